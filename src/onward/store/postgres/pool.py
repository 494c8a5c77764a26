"""The sessions of a store. One that does not answer in time is ended, and with it those that lie idle beside it.

A network that swallows everything ends no connection. Each of them would be asked in its turn, and each would cost the whole
time that is given to an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

import asyncpg

from onward.errors import StoreError
from onward.store.postgres.session import ANSWER_S, CLOSE_S, TROUBLE, cut, is_gone


class Pool:
    """At most `size` sessions, made when they are needed. `options` are the driver's.

    So many as `at_hand` are not given back to the driver between two uses: that costs as much as a small statement.
    """

    def __init__(self, dsn: str, size: int, *, at_hand: int = 0, **options: Any) -> None:
        self._pool = asyncpg.create_pool(dsn, min_size=0, max_size=size, init=self._made, **options)
        self._at_hand_max, self._at_hand, self._waiting = at_hand, list[Any](), 0
        self._sessions: WeakValueDictionary[int, Any] = WeakValueDictionary()  # by the server's pid
        self._lent: dict[int, int] = {}  # what the driver lends, by its identity -> that pid

    async def open(self) -> None:
        await self._pool

    async def close(self) -> None:
        """Ends all sessions, in good order where the server still answers."""
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._at_hand:
                    await self._pool.release(self._at_hand.pop())
                await self._pool.close()
        except TROUBLE:
            self._pool.terminate()

    async def _made(self, session: Any) -> None:
        self._sessions[session.get_server_pid()] = session

    @asynccontextmanager
    async def session(self, answer_s: float) -> AsyncIterator[Any]:
        """One of them, for no longer than its answer may take. One that is left in the midst of an answer is worth nothing."""
        async with asyncio.timeout(answer_s) as limit:
            session = await self.lend()
            try:
                yield session
            except (asyncpg.PostgresError, StoreError):
                raise
            except BaseException:
                cut(session)
                if limit.expired():
                    self.doubt()
                raise
            finally:
                await self.take_back(session)

    async def lend(self) -> Any:
        session = await self._at_hand_or_acquire()
        self._lent[id(session)] = session.get_server_pid()
        return session

    async def _at_hand_or_acquire(self) -> Any:
        while self._at_hand:
            session = self._at_hand.pop()
            if not is_gone(session):
                return session
            await self._pool.release(session)
        self._waiting += 1
        try:
            return await self._pool.acquire()
        finally:
            self._waiting -= 1

    async def take_back(self, session: Any) -> None:
        del self._lent[id(session)]
        if not self._waiting and len(self._at_hand) < self._at_hand_max and not is_gone(session):
            self._at_hand.append(session)
        else:
            await self._pool.release(session, timeout=ANSWER_S)

    def doubt(self) -> None:
        """Ends those that lie idle: a session like them did not answer."""
        lent = set(self._lent.values())
        for pid, session in list(self._sessions.items()):
            if pid not in lent:
                cut(session)
