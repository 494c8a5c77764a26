"""How a waiting program learns that something changed. Asking the database is the truth; NOTIFY only makes it quicker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from onward.errors import StoreError
from onward.store.postgres.session import ANSWER_S, TROUBLE

logger = logging.getLogger("onward")

CHANNEL = "onward"
ASK_EVERY_S = 0.1  # where nobody tells us
ASK_EVERY_TOLD_S = 1.0
PROBE_EVERY_S = 10.0  # of the session that listens: a network that swallowed its end tells nobody, and silence is its trade
TELL_EVERY_S = 0.05  # at most so often: NOTIFY takes a lock of the whole database when it commits, so it is never in a commit


class News:
    """`look` answers something else after each change; `connect` makes a session to listen on; `notify` tells the others.

    With `told` False nobody is told and nobody listened to, as behind a pooler.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Any]],
        connect: Callable[[], Awaitable[Any]],
        notify: Callable[[], Awaitable[Any]],
        *,
        told: bool,
    ) -> None:
        self._look, self._connect, self._notify, self._told = look, connect, notify, told
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._listening = self._loop.create_task(self._listen()) if told else None
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        tasks = self._tasks | ({self._listening} if self._listening is not None else set())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def wait(self, timeout: float) -> None:
        """Until something changed, at the latest for so many seconds."""
        until = self._loop.time() + timeout
        seen = await self._look()
        while (left := until - self._loop.time()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left, ASK_EVERY_TOLD_S if self._told else ASK_EVERY_S)):
                    await self._changed.wait()
                return
            except TimeoutError:
                if await self._look() != seen:
                    return

    def tell(self, *, at_once: bool = False) -> None:
        """Something changed: wakes our own waiters and those of other programs, but not more often than TELL_EVERY_S.

        `at_once`: our own ones now, for somebody waits for what a person has just begun or done. A commit is no such news,
        and there are thousands of them.
        """
        if at_once:
            self._changed.set()
        if self._telling is None:
            self._telling = self._loop.call_at(max(self._loop.time(), self._told_at + TELL_EVERY_S), self._tell)

    def _tell(self) -> None:
        self._telling, self._told_at = None, self._loop.time()
        self._changed.set()
        if self._told:
            task = self._loop.create_task(self._tell_others())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_others(self) -> None:
        try:
            await self._notify()
        except StoreError as error:  # a hint that is lost costs the time until the next question
            logger.debug("others could not be told: %s", error)

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once(asyncio.Event())
            except TROUBLE as error:
                logger.debug("cannot listen, asking goes on: %s", error)
            await asyncio.sleep(ASK_EVERY_TOLD_S)

    async def _listen_once(self, gone: asyncio.Event) -> None:
        connection = await self._connect()
        try:
            connection.add_termination_listener(lambda _: gone.set())
            async with asyncio.timeout(ANSWER_S):
                await connection.add_listener(CHANNEL, lambda *_: self._changed.set())
            while not gone.is_set():
                try:
                    async with asyncio.timeout(PROBE_EVERY_S):
                        await gone.wait()
                except TimeoutError:
                    await connection.execute("LISTEN onward", timeout=ANSWER_S)  # once more, for its answer
        finally:
            connection.terminate()
