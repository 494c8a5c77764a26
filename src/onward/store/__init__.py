"""Where rows live. `open_store` finds the plug that a URL asks for; each stands in a file of its own, beside its SQL."""

from __future__ import annotations

from onward.errors import StoreError
from onward.ports import Clock, Store
from onward.store.sqlite import SqliteStore

SCHEMES = "sqlite:///relative/path.db, sqlite:////absolute/path.db or sqlite:///:memory:"


def open_store(url: str, clock: Clock) -> Store:
    """The store for `url`, not yet opened. Raises StoreError for a URL that names none."""
    scheme, separator, path = url.partition(":///")
    if separator and scheme == "sqlite" and path:
        return SqliteStore(path, clock)
    raise StoreError(f"no store for {url!r}", hint=f"a store is named by a URL: {SCHEMES}")
