"""`Onward`: flows and a store put together. Everything that an application needs of the library is one object."""

from __future__ import annotations

import asyncio
import importlib
import signal
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from onward import bulk
from onward.clock import SystemClock
from onward.control import Control
from onward.errors import OnwardError
from onward.flow import Duration, Flow, in_seconds
from onward.ports import Clock, Observer
from onward.process import Record
from onward.store import open_store
from onward.worker import CONCURRENCY, GRACE, LEASE, Worker

PANEL_PACKAGES = ("starlette", "jinja2", "uvicorn")


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
        self.add_own(bulk.flow(self))

    async def __aenter__(self) -> Self:
        await self.store.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.store.close()

    async def check(self, id: str) -> Record:
        """Drives one process here and now, if it is due, until it rests; answers what became of it. NotFound."""
        record = await self.get(id)
        if self.flow_of(record) is not None and record.due_at is not None and record.due_at <= record.as_of:
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

    async def run_own(self) -> None:
        """The worker of the house's own flows alone, bulk actions: the panel has one, so that they go on without any other."""
        await Worker(self.own, self.store, self.clock, self.observers).run()

    def panel(
        self, *, authorize: Callable[..., Any] | None = None, hosts: Iterable[str] = ()
    ) -> Callable[[Any, Any, Any], Awaitable[None]]:
        """The control panel as an ASGI app, to be mounted in one of yours: `web.mount("/panel", app.panel(authorize=who))`.

        `who(request, action, record)` says who that is: an `onward.Actor`, or None for nobody. It may be async. `action` is
        "look" for each page, else the verb; `record` is the process that it is about, or None. Whoever has your pages has a
        Host of yours: `hosts` lists the names by which browsers reach it, `["ops.example.com"]`. To have it alone, with a
        login of its own: `onward panel`.
        """
        try:
            # By its name, since a host imports no face: the panel stands on the floor above, and is made only here.
            made = importlib.import_module("onward.panel")
        except ModuleNotFoundError as error:
            raise without_panel(error) from None
        door: Callable[[Any, Any, Any], Awaitable[None]] = made.panel(self, authorize=authorize, hosts=hosts)
        return door

    def _worker(self, *, concurrency: int = CONCURRENCY, lease: Duration = LEASE, grace: Duration = GRACE) -> Worker:
        if not self.flows:
            raise OnwardError("this app has no flows: there is nothing to run", hint="Onward(url, flows=[...])")
        return Worker(
            {**self.flows, **self.own},
            self.store,
            self.clock,
            self.observers,
            concurrency=concurrency,
            lease=timedelta(seconds=in_seconds(lease)),
            grace=timedelta(seconds=in_seconds(grace)),
        )


def without_panel(error: ModuleNotFoundError) -> Exception:
    """What to say where the packages of the panel are not installed."""
    if (error.name or "").partition(".")[0] not in PANEL_PACKAGES:
        return error
    return OnwardError("the panel needs its packages", hint="pip install 'onward[panel]'")


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
