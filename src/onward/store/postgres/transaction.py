"""A handler's transaction on PostgreSQL: a session of its own, in which its SQL and its transition are committed as one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import asyncpg

from onward.decide import Change
from onward.errors import Misuse, RolledBack, StoreError
from onward.process import Record
from onward.store.postgres.pool import Pool
from onward.store.postgres.session import ANSWER_S, TROUBLE, cut, is_gone, is_trouble, message, state_of
from onward.store.rows import Commit, after, fenced
from onward.store.sql import load

logger = logging.getLogger("onward")

SQL = load("postgres.sql")
TRANSACTION_S = 10.0  # so long a handler may keep its transaction open, and what it has locked there


class PostgresTransaction:
    """One `ports.Transaction`. `commit_sql` writes row and history; `committed` asks, on another session, whether it did,
    `works` whether the server is at work for the session of that pid.
    """

    def __init__(
        self,
        pool: Pool,
        commit_sql: str,
        now: Callable[[], datetime | None],
        committed: Callable[[Commit], Awaitable[bool]],
        works: Callable[[int], Awaitable[bool]],
    ) -> None:
        self._pool, self._commit_sql, self._now, self._committed, self._works = pool, commit_sql, now, committed, works
        self._over = self._too_long = False
        self.connection: Any = None

    async def begin(self) -> None:
        async with asyncio.timeout(ANSWER_S) as limit:
            connection = await self._pool.lend()
            try:
                await connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            except BaseException:
                cut(connection)
                if limit.expired():
                    self._pool.doubt()
                await self._pool.take_back(connection)
                raise
        self.connection = connection
        self._alarm = asyncio.get_running_loop().create_task(self._take_away())

    async def _take_away(self) -> None:
        await asyncio.sleep(TRANSACTION_S)
        self._too_long = not await self._waits_in_vain()
        cut(self.connection)

    async def _waits_in_vain(self) -> bool:
        """Whether the handler waits for an answer to which the server is not at work: the network is to blame."""
        try:
            await self.connection.execute("SELECT", timeout=ANSWER_S)
        except asyncpg.InterfaceError:  # it has asked for something itself, and has no answer yet
            try:
                return not await self._works(self.connection.get_server_pid())
            except StoreError:
                return True
        except TROUBLE:
            pass
        return False

    def check(self, error: Exception | None = None) -> None:
        check(self.connection, self._too_long, error)

    async def commit(self, record: Record, change: Change) -> Record:
        """Cannot be cancelled: who is learns so after the verdict."""
        item = Commit(record, change, record.was or record.status, record.attempt, record.owner)
        task = asyncio.ensure_future(self._commit(item))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError:
                    continue
            if not task.cancelled():
                task.exception()
            raise
        return after(record, change, item.at)

    async def _commit(self, item: Commit) -> None:
        self.check()
        self._alarm.cancel()  # from here on it takes no longer than the database does
        asked = False
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.connection.execute(SQL["commit soon"])
                [[item.at, written]] = await self.connection.fetch(self._commit_sql, self._now(), *item.own, *item.shape)
                if not written:
                    raise fenced(item)
                asked = True
                answer = await self.connection.execute("COMMIT")
            if answer != "COMMIT":  # a transaction that has failed is answered like this, and not with an error
                raise RolledBack("the database answered the COMMIT of the handler's transaction with a rollback")
        except TROUBLE as error:
            if not asked or not _is_unknown(error):
                raise undone(error) from error
            cut(self.connection)
            logger.warning("%s: the answer to its COMMIT was lost, it is looked up: %s", item.id, error)
            if not await self._committed(item):
                raise undone(error) from error
        finally:
            await self.rollback()

    async def rollback(self) -> None:
        if self._over:
            return
        self._over = True
        self._alarm.cancel()
        try:
            if not is_gone(self.connection) and self.connection.is_in_transaction():
                await self.connection.execute("ROLLBACK", timeout=ANSWER_S)
        except (*TROUBLE, asyncio.CancelledError) as error:
            cut(self.connection)  # which rolls back as well
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            try:
                await self._pool.take_back(self.connection)
            except TROUBLE as error:  # the pool has thrown it away
                logger.debug("a session was not given back: %s", error)


def check(connection: Any, too_long: bool, error: Exception | None = None) -> None:
    """As `ports.Transaction` has it."""
    if too_long:
        raise RolledBack(f"kept its transaction open for more than {TRANSACTION_S:g} s", fault=True)
    if is_gone(connection):
        raise RolledBack("the database ended the session of the handler's transaction")
    if not connection.is_in_transaction():
        raise Misuse("ended its transaction, which its transition does: leave that to Onward")
    trouble = next((one for one in _parts(error) if is_trouble(one) and not _is_its_own(one)), None)
    if trouble is not None:
        raise RolledBack(f"the database rolled the handler's transaction back: {message(trouble)}")


def _is_its_own(error: BaseException) -> bool:
    """What a handler can meet elsewhere too, or has brought about. Where it was the end of the session, that is seen."""
    return isinstance(error, (OSError, asyncpg.QueryCanceledError))


def _is_unknown(error: BaseException) -> bool:
    """Whether a COMMIT that was answered like this may have been done."""
    return not isinstance(error, asyncpg.PostgresError) or state_of(error)[:2] in ("08", "57")


def undone(error: BaseException) -> RolledBack:
    return RolledBack(f"the handler's transaction could not be committed: {message(error)}", fault=not is_trouble(error))


def _parts(error: BaseException | None) -> list[BaseException]:
    """The error, or what a group is made of."""
    if isinstance(error, BaseExceptionGroup):
        return [part for one in error.exceptions for part in _parts(one)]
    return [] if error is None else [error]
