"""Connections that the user brings, to start processes inside a transaction of his own: whose they are, and how to ask them.

No driver is imported here: a connection is known by the module of its class, and its user has imported that already.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from onward.errors import OnwardError

SUPPORTED = "asyncpg.Connection, psycopg.AsyncConnection and psycopg.Connection (3.2 or newer), sqlite3.Connection"
NO_TRANSACTION = "what is started would stay, whatever becomes of yours"
_KINDS = {"sqlite3": "SQLite", "asyncpg": "PostgreSQL", "psycopg": "PostgreSQL"}
_BROKEN = 3  # psycopg's TransactionStatus.INERROR


def sqlite(connection: Any) -> sqlite3.Cursor:
    """A cursor of the caller's connection, in his transaction; it answers plain rows, whatever `row_factory` he has set."""
    _refuse_unless("SQLite", connection)
    assert isinstance(connection, sqlite3.Connection)
    cursor = sqlite3.Cursor(connection)
    if not connection.in_transaction:
        if connection.isolation_level is None or getattr(connection, "autocommit", None) is True:
            raise _no_transaction('connection.execute("BEGIN IMMEDIATE") begins one')
        cursor.execute("BEGIN IMMEDIATE")  # as Python would before the first write; but we look before we write
    return cursor


class Postgres:
    """The caller's connection to PostgreSQL, of whichever driver, in his transaction."""

    def __init__(self, connection: Any) -> None:
        _refuse_unless("PostgreSQL", connection)
        self._connection, self._cursor = connection, None
        if _driver(connection) == "asyncpg":
            if not connection.is_in_transaction():
                raise _no_transaction("async with connection.transaction(): … begins one")
            return
        if connection.info.transaction_status == _BROKEN:
            raise OnwardError("the transaction of this connection has failed already", hint="roll it back, then begin anew")
        if connection.autocommit and not connection.info.transaction_status:
            raise _no_transaction("with connection.transaction(): … begins one (`async with`, if it is asynchronous)")
        self._cursor = _raw_cursor(connection)

    async def fetch(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement with `$1` … for its values. A synchronous connection is used here and now."""
        if self._cursor is None:
            return [tuple(row) for row in await self._connection.fetch(statement, *values)]
        done = self._cursor.execute(statement, values)
        if not _is_async(self._connection):
            return list(self._cursor.fetchall()) if self._cursor.description else []
        await done
        return list(await self._cursor.fetchall()) if self._cursor.description else []


def _raw_cursor(connection: Any) -> Any:
    try:
        from psycopg import AsyncRawCursor, RawCursor
        from psycopg.rows import tuple_row
    except ImportError:
        raise OnwardError("this psycopg has no raw cursors", hint="pip install 'psycopg>=3.2'") from None
    make: Any = AsyncRawCursor if _is_async(connection) else RawCursor
    return make(connection, row_factory=tuple_row)


def _names(connection: Any) -> Sequence[tuple[str, str]]:
    return [(kind.__module__.partition(".")[0], kind.__name__) for kind in type(connection).__mro__]


def _driver(connection: Any) -> str:
    """'' for what is no connection that we know."""
    for module, name in _names(connection):
        if module in _KINDS and (name in ("Connection", "AsyncConnection") or name == "PoolConnectionProxy"):
            return module
    return ""


def _is_async(connection: Any) -> bool:
    return ("psycopg", "AsyncConnection") in _names(connection)


def _refuse_unless(kind: str, connection: Any) -> None:
    driver = _driver(connection)
    if not driver:
        what = f"{type(connection).__module__}.{type(connection).__qualname__}"
        modules = {module for module, _ in _names(connection)}
        hint = f"supported are {SUPPORTED}"
        if "sqlalchemy" in modules:
            hint = "give its driver's: (await conn.get_raw_connection()).driver_connection, or conn.connection.driver_connection"
        elif "asyncpg" in modules or "psycopg_pool" in modules:
            hint = "take a connection out of the pool, and begin a transaction on it"
        raise OnwardError(f"connection={what}: nothing that a process could be started through", hint=hint)
    if _KINDS[driver] != kind:
        raise OnwardError(
            f"the store of this app is {kind}, and the connection is {driver}'s to {_KINDS[driver]}",
            hint="a transaction reaches one database only: start without connection=, or give the app the URL of that one",
        )


def _no_transaction(hint: str) -> OnwardError:
    return OnwardError(f"the connection is in no transaction: {NO_TRANSACTION}", hint=hint)
