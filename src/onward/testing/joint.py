"""The store of a world whose handlers write to PostgreSQL: processes are in memory, `ctx.transaction()` is in a real database.

The two are committed in one step of the event loop, in which nothing else happens: nobody ever sees one without the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from onward.decide import Change
from onward.errors import RolledBack
from onward.ports import Clock
from onward.process import Record
from onward.store.postgres.scratch import Blocking, Scratch
from onward.store.postgres.session import TROUBLE, is_gone
from onward.store.postgres.transaction import TRANSACTION_S, check, undone
from onward.store.rows import Commit, after
from onward.store.sqlite.inline import InlineStore


class JointStore(InlineStore):
    def __init__(self, path: str, clock: Clock, database: Scratch) -> None:
        super().__init__(path, clock)
        self._database = database
        self._open: list[JointTransaction] = []

    async def begin(self, record: Record) -> Any:
        transaction = JointTransaction(record, self, self._database)
        self._open.append(transaction)
        return transaction

    def forget(self, owner: str) -> None:
        super().forget(owner)
        for transaction in self._open:
            if transaction.record.owner == owner:
                transaction.end()

    def commit_both(self, item: Commit, theirs: Callable[[], object]) -> None:
        def commit(connection: Any) -> None:
            self._commit_group(connection, [item])
            if item.error is None:
                theirs()

        self.at_once(commit)
        self._writer.written()


class JointTransaction:
    """One `ports.Transaction`."""

    def __init__(self, record: Record, store: JointStore, database: Scratch) -> None:
        self.record, self._store, self._ask = record, store, database.ask
        self._theirs = database.connect()
        self._ask(self._theirs.execute("BEGIN ISOLATION LEVEL READ COMMITTED"))
        self.connection = Blocking(self._theirs, self._ask)
        self._too_long = False
        self._alarm = asyncio.get_running_loop().call_later(TRANSACTION_S, self._expire)

    def check(self, error: Exception | None = None) -> None:
        check(self._theirs, self._too_long, error)

    async def commit(self, record: Record, change: Change) -> Record:
        self.check()
        item = Commit(record, change, record.owner)
        try:
            self._store.commit_both(item, self._commit)
        except TROUBLE as error:
            raise undone(error) from error
        finally:
            self.end()
        item.result()  # raises, if it was refused
        return after(record, change, item.at)

    async def rollback(self) -> None:
        self.end()

    def _commit(self) -> None:
        if self._ask(self._theirs.execute("COMMIT")) != "COMMIT":
            raise RolledBack("the database answered the COMMIT of the handler's transaction with a rollback")

    def end(self) -> None:
        """Rolled back, unless it was committed."""
        self._alarm.cancel()
        if not is_gone(self._theirs):
            if self._theirs.is_in_transaction():
                self._ask(self._theirs.execute("ROLLBACK"))
            self._ask(self._theirs.close())

    def _expire(self) -> None:
        self._too_long = True
        self.end()
