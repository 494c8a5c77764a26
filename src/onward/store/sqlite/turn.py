"""A handler's transaction on SQLite: its turn at the file. While it lasts the writer's thread waits, and nobody else writes."""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from onward.decide import Change
from onward.errors import Misuse, RolledBack, StoreError
from onward.process import Record
from onward.store.rows import Commit, after, land

logger = logging.getLogger("onward")

TRANSACTION_S = 5.0  # so long a handler may keep everybody else from writing to the file
TROUBLE = ("BUSY", "FULL", "IOERR", "READONLY", "NOMEM", "CANTOPEN", "CORRUPT", "NOTADB", "PROTOCOL")


class Turn:
    """One `ports.Transaction`. Its connection lives as long as it does: what a handler sets on it, or keeps of it, harms nobody.

    The handler's SQL runs in the event loop; begin, commit and rollback on the thread of the writer.
    """

    connection: sqlite3.Connection

    def __init__(
        self,
        record: Record,
        connect: Callable[[Record], sqlite3.Connection],
        write: Callable[[sqlite3.Connection, list[Commit]], None],
        committed: Callable[[sqlite3.Connection, list[Commit]], set[int]],
    ) -> None:
        self._record, self._connect, self._write, self._committed = record, connect, write, committed
        self._loop = asyncio.get_running_loop()
        self._begun, self._ended = asyncio.Event(), asyncio.Event()
        self._orders: queue.SimpleQueue[Commit | None] = queue.SimpleQueue()  # None: roll back
        self._taking = threading.Lock()  # around whether it still takes orders
        self._over = self._too_long = False
        self._refused = ""
        self.error: StoreError | None = None  # why it could not begin

    # -- in the event loop ------------------------------------------------------------------------------------

    async def begun(self) -> None:
        try:
            await self._begun.wait()
        except asyncio.CancelledError:
            self._order(None)
            raise
        if self.error is not None:
            raise self.error

    def check(self, error: Exception | None = None) -> None:
        if self._too_long:
            raise self._gone()
        if self._refused:
            raise Misuse(f"called {self._refused} in its transaction, which its transition ends: leave that to Onward")
        try:
            lost = not self.connection.in_transaction
        except sqlite3.ProgrammingError:
            raise Misuse("closed the connection of its transaction: leave that to Onward") from None
        troubles = [one for one in _parts(error) if is_trouble(one)]
        if lost or troubles:
            why = f": {troubles[0]}" if troubles else " by itself"
            raise RolledBack(f"the database rolled the handler's transaction back{why}")

    async def commit(self, record: Record, change: Change) -> Record:
        item = Commit(record, change, record.owner)
        if not self._order(item):
            raise self._gone()
        await item
        return after(record, change, item.at)

    async def rollback(self) -> None:
        if self._order(None):
            await self._ended.wait()

    def _gone(self) -> RolledBack:
        if self._too_long:
            return RolledBack(f"kept its transaction open for more than {TRANSACTION_S:g} s, and all others waiting", fault=True)
        return RolledBack("the handler's transaction was over before its transition could be committed")

    def _order(self, item: Commit | None) -> bool:
        with self._taking:
            if not self._over:
                self._orders.put(item)
            return not self._over

    # -- on the writer's thread -------------------------------------------------------------------------------

    def take(self) -> int:
        """Has its turn, to the end; answers how many rows it has written. Raises why it could not begin."""
        if not self._orders.empty():  # given up before it began
            return 0
        connection = self._connect(self._record)
        try:
            connection.set_authorizer(self._authorize)
            self.connection = connection
            self._tell(self._begun.set)
            item = self._next()
            if item is not None:
                self._commit(connection, item)
                self._tell(land, [item])
            return connection.total_changes
        except sqlite3.ProgrammingError:  # closed by the handler; there is nothing left to be done with it
            return 0
        finally:
            close(connection)

    def end(self, error: StoreError | None) -> None:
        self.error = error
        with self._taking:
            self._over = True
        while not self._orders.empty():
            item = self._orders.get()
            if item is not None:
                item.error = self._gone()
                self._tell(land, [item])
        self._tell(self._begun.set)
        self._tell(self._ended.set)

    def _next(self) -> Commit | None:
        try:
            return self._orders.get(timeout=TRANSACTION_S)
        except queue.Empty:
            self._too_long = True
            self.connection.interrupt()
            logger.warning("%s: its transaction was open for more than %g s and is rolled back", self._record.id, TRANSACTION_S)
            return None

    def _commit(self, connection: sqlite3.Connection, item: Commit) -> None:
        """Never the handler's fault, but where COMMIT finds fault with what it wrote, or with a cursor that it left open."""
        ours = True
        try:
            connection.set_authorizer(None)
            connection.row_factory, connection.text_factory = None, str
            if not connection.in_transaction:
                raise StoreError("it was over already")
            self._write(connection, [item])
            if item.error is None:
                ours = False
                connection.execute("COMMIT")
        except Exception as error:
            fault = not ours and (not is_trouble(error) or _name(error).startswith("SQLITE_BUSY"))
            item.error = None if not ours and self._is_committed(connection, item) else _refused(error, fault)

    def _is_committed(self, connection: sqlite3.Connection, item: Commit) -> bool:
        """Whether only the answer was lost. If that cannot be read, the fence will tell."""
        try:
            return not connection.in_transaction and bool(self._committed(connection, [item]))
        except sqlite3.Error as error:
            logger.warning("%s: whether its transaction was committed cannot be read: %s", item.id, error)
            return False

    def _authorize(self, action: int, argument: str | None, *_: object) -> int:
        """SQLite asks this before each statement. A COMMIT of the handler's would part its SQL from its transition."""
        if action != sqlite3.SQLITE_TRANSACTION:
            return sqlite3.SQLITE_OK
        self._refused = argument or ""
        return sqlite3.SQLITE_DENY

    def _tell(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop was closed: nobody waits for it any more
            return


def close(connection: sqlite3.Connection) -> None:
    try:
        connection.set_authorizer(None)
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.ProgrammingError:  # closed by the handler, which rolls back as well
        return
    except sqlite3.Error as error:  # closing it rolls back too
        logger.warning("a handler's transaction could not be rolled back: %s", error)
    connection.close()


def _refused(error: Exception, fault: bool) -> RolledBack:
    return RolledBack(f"the handler's transaction could not be committed: {error}", fault=fault)


def is_trouble(error: BaseException) -> bool:
    """Whether it is the store's, and no fault of the SQL that met it."""
    return isinstance(error, sqlite3.Error) and _name(error).removeprefix("SQLITE_").startswith(TROUBLE)


def _name(error: BaseException) -> str:
    return getattr(error, "sqlite_errorname", None) or ""


def _parts(error: BaseException | None) -> list[BaseException]:
    """The error, or what a group is made of."""
    if isinstance(error, BaseExceptionGroup):
        return [part for one in error.exceptions for part in _parts(one)]
    return [] if error is None else [error]
