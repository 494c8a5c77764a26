"""Group commit for a database on the network: what is ready goes together, and the next batch is made while one is written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from onward.store.rows import Commit, land

IN_THE_AIR_MAX = 2  # batches under way at once
BATCH_MAX = 1_000  # transitions of one statement


class Batches:
    """`send` writes a batch, sorted by ids, each id once, and sets each item's verdict; it raises nothing."""

    def __init__(self, send: Callable[[list[Commit]], Awaitable[None]]) -> None:
        self._send, self._loop = send, asyncio.get_running_loop()
        self._waiting: deque[Commit] = deque()
        self._in_the_air: set[asyncio.Task[None]] = set()

    async def write(self, item: Commit) -> None:
        """Returns when `item` is in the database; raises its error."""
        item.future = self._loop.create_future()
        self._waiting.append(item)
        if len(self._waiting) == 1 and len(self._in_the_air) < IN_THE_AIR_MAX:
            self._loop.call_soon(self._start)  # what else becomes ready in this turn of the loop comes along
        await item.land(self._loop)

    async def close(self) -> None:
        """Writes what is waiting."""
        self._start()
        while self._in_the_air:
            await asyncio.wait(self._in_the_air)

    def _start(self) -> None:
        while self._waiting and len(self._in_the_air) < IN_THE_AIR_MAX:
            batch: dict[str, Commit] = {}
            while self._waiting and len(batch) < BATCH_MAX and self._waiting[0].id not in batch:
                item = self._waiting.popleft()
                batch[item.id] = item
            task = self._loop.create_task(self._write([batch[id] for id in sorted(batch)]))
            self._in_the_air.add(task)
            task.add_done_callback(self._in_the_air.discard)

    async def _write(self, batch: list[Commit]) -> None:
        try:
            await self._send(batch)
        finally:
            self._in_the_air -= {asyncio.current_task()}
            self._start()  # the next batch, before those of this one go on: the database is at work while their handlers run
            land(batch)
