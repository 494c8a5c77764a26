"""Where rows live. `open_store` finds the plug that a URL asks for; each stands in a file of its own, beside its SQL."""

from __future__ import annotations

from onward.errors import StoreError
from onward.ports import Clock, Store
from onward.store.sqlite import SqliteStore

SCHEMES = "sqlite:///relative/path.db, sqlite:////absolute/path.db, sqlite:///:memory: or postgresql://user@host/database"


def open_store(url: str, clock: Clock, *, virtual: bool = True) -> Store:
    """The store for `url`, not yet opened. Raises StoreError for a URL that names none.

    A database that several hosts share keeps its own time, unless `clock` is `virtual`, as in a test.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from onward.store.postgres import PostgresStore  # its driver is an extra

        return PostgresStore(url, clock if virtual else None)
    scheme, separator, path = url.partition(":///")
    if separator and scheme == "sqlite" and path:
        return SqliteStore(path, clock)
    raise StoreError(f"no store for {url!r}", hint=f"a store is named by a URL: {SCHEMES}")
