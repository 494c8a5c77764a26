"""Where rows live. `open_store` finds the plug that a URL asks for; each stands in a file of its own, beside its SQL."""

from __future__ import annotations

from onward.errors import StoreError
from onward.ports import Clock, Store, Upkeep
from onward.store.sqlite.store import SqliteStore
from onward.store.sqlite.upkeep import SqliteUpkeep
from onward.store.urls import SCHEMES, is_postgres, shown, sqlite_path


def open_store(url: str, clock: Clock, *, virtual: bool = True) -> Store:
    """The store for `url`, not yet opened. Raises StoreError for a URL that names none.

    A database that several hosts share keeps its own time, unless `clock` is `virtual`, as in a test.
    """
    if is_postgres(url):
        try:
            from onward.store.postgres.store import PostgresStore
        except ModuleNotFoundError as error:
            raise _without_driver(error) from None
        return PostgresStore(url, clock if virtual else None)
    if path := sqlite_path(url):
        return SqliteStore(path, clock)
    raise _no_store(url)


def upkeep_of(url: str, clock: Clock, *, virtual: bool = True) -> Upkeep:
    """The same for the upkeep of a store, which nobody need have opened."""
    if is_postgres(url):
        try:
            from onward.store.postgres.upkeep import PostgresUpkeep
        except ModuleNotFoundError as error:
            raise _without_driver(error) from None
        return PostgresUpkeep(url, clock, virtual=virtual)
    if sqlite_path(url):
        return SqliteUpkeep(url, clock)
    raise _no_store(url)


def _without_driver(error: ModuleNotFoundError) -> Exception:
    if error.name != "asyncpg":
        return error
    return StoreError("PostgreSQL needs its driver", hint="pip install 'onward[postgres]'")


def _no_store(url: str) -> StoreError:
    return StoreError(f"no store for {shown(url)!r}", hint=f"a store is named by a URL: {SCHEMES}")
