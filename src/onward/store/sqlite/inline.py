"""The same store without a thread: it writes in the event loop, so that the same program always writes the same groups in the
same order. Virtual time is built on it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from onward.errors import StoreError
from onward.store.rows import Commit, Write, land
from onward.store.sqlite.store import SqliteStore
from onward.store.sqlite.turn import TRANSACTION_S, Turn, close
from onward.store.sqlite.writer import BATCH_MAX, W, Writer, store_error, transaction

T = TypeVar("T")


class InlineWriter(Writer):
    """What gathers in one turn of the event loop is written together at its end."""

    written: Callable[[], object] = lambda: None  # called after each change
    _connection: sqlite3.Connection
    _called = False
    _lent: InlineTurn | None = None

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        try:
            self._connection = self._connect()
        except Exception as error:
            raise store_error(self._path, error) from error

    async def close(self) -> None:
        # The loop writes what waits: those who wait for that cannot go on within the task that closes.
        while self._waiting and self._lent is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        self._connection.close()

    def add(self, item: W) -> W:
        self._waiting.append(item)
        self._call()
        return item

    async def lend(self, turn: Turn) -> None:
        assert isinstance(turn, InlineTurn)
        self._turns.append(turn)
        self._call()
        await turn.begun()

    def now(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """Written at once, for one who cannot wait: a heartbeat."""
        if self._lent is not None:
            raise StoreError("a handler's transaction keeps everybody else waiting")
        with transaction(self._connection):
            return run(self._connection)

    def forget(self, owner: str) -> None:
        """The program is dead whose worker that was: a database rolls back what it had open, and others need not wait for it."""
        for turn in [self._lent, *self._turns]:
            if isinstance(turn, InlineTurn):
                turn.give_up_of(owner)

    def _call(self) -> None:
        if not self._called and self._lent is None:
            self._called = True
            self.loop.call_soon(self._work_off)

    def _work_off(self) -> None:
        self._called = False
        batch: list[Write] = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
        if batch:
            before = self._connection.total_changes  # reads come here as well
            self._write(self._connection, batch)
            if self._connection.total_changes != before:
                self.written()
        if self._turns:
            turn = self._turns.popleft()
            assert isinstance(turn, InlineTurn)
            self._lent = turn
            turn.take_now(self._given_back)
        if self._waiting or self._turns:
            self._call()
        land(batch)

    def _given_back(self) -> None:
        self._lent = None
        self.written()
        self._call()


class InlineTurn(Turn):
    """A handler's transaction in that store: begun, committed and rolled back in the event loop as well."""

    def take_now(self, given_back: Callable[[], None]) -> None:
        self._given_back = given_back
        if self._over:  # given up before it began
            return self._end(None)
        try:
            connection = self._connect(self._record)
        except Exception as error:
            return self._end(store_error("memory", error))
        connection.set_authorizer(self._authorize)
        self.connection = connection
        self._alarm = self._loop.call_later(TRANSACTION_S, self._expire)
        self._begun.set()
        return None

    def give_up_of(self, owner: str) -> None:
        if self._record.owner == owner:
            self._order(None)

    def _order(self, item: Commit | None) -> bool:
        if self._over:
            return False
        self._over = True
        if not hasattr(self, "connection"):
            return True
        self._alarm.cancel()
        try:
            if item is not None:
                self._commit(self.connection, item)
        finally:
            close(self.connection)
            self._end(None)  # by now others may write
        if item is not None:
            self._loop.call_soon(land, [item])
        return True

    def _expire(self) -> None:
        self._too_long = self._over = True
        close(self.connection)
        self._end(None)

    def _end(self, error: StoreError | None) -> None:
        self.error, self._over = error, True
        self._begun.set()
        self._ended.set()
        self._given_back()


class InlineStore(SqliteStore):
    """Nobody but its own program may write to it, and its writer reads as well, in memory and on a file."""

    _writer: InlineWriter
    writer_type = InlineWriter
    turn_type = InlineTurn

    async def open(self) -> None:
        await super().open()
        self._writer.written = self._changed.set

    async def wait_for_change(self, timeout: float) -> None:
        """It is told of each change: there is no need to look now and then."""
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return

    def at_once(self, run: Callable[[sqlite3.Connection], T]) -> T:
        """What it answers, in a transaction of its own. StoreError while a handler has one."""
        return self._writer.now(run)

    def forget(self, owner: str) -> None:
        """The program of this worker died, so whatever it had open is rolled back."""
        self._writer.forget(owner)

    async def _read(self, run: Callable[[sqlite3.Connection], Any], *, long: bool = False) -> Any:
        return await self._write(run)

    def _renewed(self, run: Callable[[sqlite3.Connection], set[str]]) -> set[str]:
        return self._writer.now(run)
