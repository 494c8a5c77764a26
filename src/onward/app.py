"""`Onward`: flows and a store put together. Everything that an application needs of the library is one object."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from onward.clock import SystemClock
from onward.control import Control
from onward.errors import OnwardError
from onward.flow import Duration, Flow, in_seconds
from onward.ports import Clock, Observer
from onward.process import Record
from onward.store import open_store
from onward.worker import CONCURRENCY, GRACE, LEASE, Worker


class Onward(Control):
    """`async with Onward("sqlite:///onward.db", flows=[...]) as app:` opens the store; `app.run()` is the worker.

    `observers` are called after each commit with an `Event`; they can watch and nothing else.
    """

    def __init__(
        self, url: str, flows: Iterable[Flow[Any]], *, observers: Sequence[Observer] = (), clock: Clock | None = None
    ) -> None:
        self.url = url
        self.clock = clock or SystemClock()
        self.observers = tuple(observers)
        super().__init__(flows, open_store(url, self.clock, virtual=clock is not None))

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.store.close()

    async def check(self, id: str) -> Record:
        """Drives one process here and now, if it is due, until it rests; answers what became of it. NotFound."""
        record = await self.get(id)
        if record.flow in self.flows and record.due_at is not None and record.due_at <= record.as_of:
            await self._worker().check(record)
        return await self.get(id)

    async def run(
        self,
        *,
        until_idle: bool = False,
        concurrency: int = CONCURRENCY,
        lease: Duration = LEASE,
        grace: Duration = GRACE,
        signals: bool = True,
    ) -> None:
        """The worker: claims what is due and drives it, up to `concurrency` processes at once.

        Ends after SIGTERM or SIGINT (a second one: at once), when it is cancelled, or with `until_idle` when nothing is
        due and nothing ever will be. Running handlers have the `grace` time to end; what is cut off is free at once for
        other workers. `lease` bounds how long a dead worker keeps a process. Inside a server that handles signals
        itself, say signals=False.
        """
        worker = self._worker(concurrency=concurrency, lease=lease, grace=grace)
        await self.store.get("")  # a store that is not open says so here, and not again and again to a waiting worker
        with _signals.tell(worker) if signals else _untold():
            await worker.run(until_idle=until_idle)

    def _worker(self, *, concurrency: int = CONCURRENCY, lease: Duration = LEASE, grace: Duration = GRACE) -> Worker:
        if not self.flows:
            raise OnwardError("this app has no flows: there is nothing to run", hint="Onward(url, flows=[...])")
        return Worker(
            self.flows,
            self.store,
            self.clock,
            self.observers,
            concurrency=concurrency,
            lease=timedelta(seconds=in_seconds(lease)),
            grace=timedelta(seconds=in_seconds(grace)),
        )


@contextmanager
def _untold() -> Iterator[None]:
    yield


class _Signals:
    """SIGTERM and SIGINT drain every worker of the main thread; a second one stops them now. In other threads: nothing."""

    def __init__(self) -> None:
        self._told: dict[Worker, bool] = {}  # whether it was told before

    @contextmanager
    def tell(self, worker: Worker) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        if not self._told:
            self._install()
        self._told[worker] = False
        try:
            yield
        finally:
            del self._told[worker]
            if not self._told:
                self._restore()

    def _tell(self) -> None:
        for worker, told in self._told.items():
            worker.stop_now() if told else worker.drain()
            self._told[worker] = True

    def _install(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in self._before:
            self._loop.add_signal_handler(number, self._tell)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            signal.signal(number, handler)


_signals = _Signals()
