"""Where rows live. `open_store` finds the plug that a URL asks for; each stands in a file of its own, beside its SQL."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing
from typing import Any

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


def open_scratch(url: str) -> AbstractContextManager[Any]:
    """A `Scratch` on this server of PostgreSQL: a database that is there for as long as it is needed."""
    if not is_postgres(url):
        raise StoreError(f"{shown(url)!r} is no server of PostgreSQL", hint="postgresql://user@host/database")
    try:
        from onward.store.postgres.scratch import scratch
    except ModuleNotFoundError as error:
        raise _without_driver(error) from None
    return scratch(url)


def at_scratch(url: str) -> AbstractContextManager[Any]:
    """That one, as another program finds it."""
    from onward.store.postgres.scratch import Scratch

    return closing(Scratch(url))


def _without_driver(error: ModuleNotFoundError) -> Exception:
    if error.name != "asyncpg":
        return error
    return StoreError("PostgreSQL needs its driver", hint="pip install 'onward[postgres]'")


def _no_store(url: str) -> StoreError:
    return StoreError(f"no store for {shown(url)!r}", hint=f"a store is named by a URL: {SCHEMES}")
