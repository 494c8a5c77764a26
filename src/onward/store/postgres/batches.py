"""Group commit for a database on the network: what is ready goes together, and the next batch is made while one is written."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from onward.store.rows import Commit, land

IN_THE_AIR_MAX = 2  # batches under way at once
BATCH_MAX = 1_000  # transitions of one statement


class Batches:
    """`send` writes a batch, sorted by ids, each id once, and sets each item's verdict; it raises nothing."""

    def __init__(self, send: Callable[[list[Commit]], Coroutine[Any, Any, None]]) -> None:
        self._send, self._loop = send, asyncio.get_running_loop()
        self._waiting: deque[Commit] = deque()
        self._in_the_air: set[asyncio.Task[None]] = set()

    def add(self, item: Commit) -> Commit:
        """On its way now: `await` it."""
        self._waiting.append(item)
        if len(self._waiting) == 1:
            self._start()
        return item

    async def close(self) -> None:
        """Writes what is waiting."""
        self._start()
        while self._in_the_air:
            await asyncio.wait(self._in_the_air)

    def _start(self) -> None:
        if self._waiting and len(self._in_the_air) < IN_THE_AIR_MAX:
            batch: list[Commit] = []
            task = self._loop.create_task(self._send_waiting(batch))
            self._in_the_air.add(task)
            task.add_done_callback(partial(self._landed, batch))

    async def _send_waiting(self, batch: list[Commit]) -> None:
        """Fills `batch` and sends it. The loop begins this after its turn, and what became ready in that comes along."""
        items: dict[str, Commit] = {}
        while self._waiting and len(items) < BATCH_MAX and self._waiting[0].id not in items:
            item = self._waiting.popleft()
            items[item.id] = item
        batch += [items[id] for id in sorted(items)]
        self._start()
        if batch:
            await self._send(batch)

    def _landed(self, batch: list[Commit], task: asyncio.Task[None]) -> None:
        self._in_the_air.discard(task)
        self._start()  # the next batch, before those of this one go on: the database is at work while their handlers run
        land(batch)
