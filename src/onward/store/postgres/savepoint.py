"""What `conn.transaction()` is on the connection that a handler has: a savepoint in the transaction that Onward has begun."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import asyncpg

from onward.store.sql import load

SQL = load("postgres.sql")


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """The driver's own, but that it refuses a block within a transaction that it has not begun itself."""

    def transaction(self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False) -> Any:
        if not self.is_in_transaction():
            return super().transaction(isolation=isolation, readonly=readonly, deferrable=deferrable)
        if isolation or readonly or deferrable:
            raise asyncpg.InterfaceError("a savepoint has no isolation of its own: that of the transaction is READ COMMITTED")
        return Savepoint(self)


class Savepoint:
    """As `asyncpg.transaction.Transaction`, for one block."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._open: bool | None = None  # None: not begun

    async def start(self) -> None:
        self._check(None)
        await self._connection.execute(SQL["savepoint"])
        self._open = True

    async def commit(self) -> None:
        self._check(True)
        self._open = False
        await self._connection.execute(SQL["savepoint release"])

    async def rollback(self) -> None:
        self._check(True)
        self._open = False
        await self._connection.execute(SQL["savepoint back"])

    def _check(self, open: bool | None) -> None:
        if self._open is not open:
            raise asyncpg.InterfaceError("a savepoint is begun once, and ended once")

    async def __aenter__(self) -> None:
        await self.start()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await (self.commit() if kind is None else self.rollback())
