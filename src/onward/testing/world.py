"""A world for a flow: the real kernel over the real store, in memory and in virtual time, in one thread.

    ran = run_to_rest(flow, Parcel(address="12 Harbour Street"), until=timedelta(days=14))
    assert ran.path == ["ordered", "sent", "delivered"]

What it cannot turn forward is a clock that a handler reads by itself: `datetime.now()` there is the real one.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from onward.control import Control
from onward.errors import OnwardError
from onward.flow import Duration, Flow, in_seconds
from onward.heartbeat import BEATS_PER_LEASE, Heartbeat
from onward.ports import Clock, Observer, Store
from onward.process import Condition, Entry, Process, Record
from onward.store import open_scratch
from onward.store.sqlite.inline import InlineStore
from onward.store.sqlite.user_tables import rows
from onward.testing.life import Life, make_mortal
from onward.testing.loop import BEGINNING, VirtualClock, VirtualLoop
from onward.testing.scripts import Script, scripted
from onward.worker import Worker

T = TypeVar("T")
UNTIL = timedelta(days=30)

Row = tuple[str, dict[str, Any]]  # the table, and what is in its columns


def run(main: Callable[[], Awaitable[T]]) -> T:
    """`asyncio.run` in virtual time. In a thread that runs a loop already: `await asyncio.to_thread(run, main)`."""

    if asyncio._get_running_loop() is not None:
        raise OnwardError(
            "virtual time needs an event loop of its own; this thread runs one", hint="await asyncio.to_thread(...)"
        )

    async def body() -> T:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(body())


@dataclass(frozen=True)
class Ran:
    """What became of a process: the record at the end, its whole history, how much virtual time it took, and the rows that are
    in your own tables then, each with the name of its table; without the columns that the database fills in by itself.
    """

    record: Record
    history: list[Entry]
    took: timedelta
    rows: list[Row]

    @property
    def process(self) -> Any:
        return self.record.process

    @property
    def status(self) -> Any:
        return self.record.status if self.process is None else self.process.status

    @property
    def condition(self) -> Condition:
        return self.record.condition

    @property
    def path(self) -> list[str]:
        """The statuses that it went through, the first one and the last one included."""
        went = [self.history[0].to_status]
        went += [entry.to_status for entry in self.history[1:] if entry.to_status != entry.from_status]
        return went


def run_to_rest(
    flow: Flow[Any],
    process: Process[Any],
    *,
    until: Duration = UNTIL,
    resources: Any = None,
    outcomes: Script | None = None,
    prepare: Callable[[Any], object] = lambda connection: None,
    postgres: str = "",
) -> Ran:
    """Runs a process in virtual time until it rests (finished, failed, paused), or until so much time has passed: then it is
    answered as it stands. `resources` is what handlers get as `ctx.resources` in the place of what the flow's lifespan opens;
    `outcomes` is what their first attempts come to, see `onward.testing.outcomes`. `prepare` is given a connection to the
    database of `ctx.transaction()`, to make tables: the store's, or with `postgres`, the URL of a server, a real one that is made
    there and dropped in the end. Then it is asyncpg's, and `prepare` may be asynchronous.
    """
    flow = flow if outcomes is None else scripted(flow, outcomes)

    async def main() -> Ran:
        with database_at(postgres) as database:
            async with World([flow], resources=resources, database=database) as world:
                await world.prepare(prepare)
                return await _rested(world, process, in_seconds(until))

    return run(main)


async def _rested(world: World, process: Process[Any], until_s: float) -> Ran:
    begun = (await world.start(process)).created_at
    worker = world.worker()
    _, left = await asyncio.wait({worker.running}, timeout=until_s)
    if left:
        worker.kill()  # what its transaction has written is nothing yet
    else:
        worker.running.result()
    entries = await world.whole_history(process.id)
    record = await world.get(process.id)
    took = (record.as_of if left else entries[-1].at) - begun
    return Ran(record, entries, took, world.rows())


class LoopHeartbeat(Heartbeat):
    """The heartbeat as a task of the worker's own loop, which virtual time never blocks; it beats while there is a lease."""

    def __enter__(self) -> LoopHeartbeat:
        self._loop = asyncio.get_running_loop()
        self._needed = asyncio.Event()
        self._task = asyncio.create_task(self._beats())
        return self

    def __exit__(self, *_: object) -> None:
        self._task.cancel()

    def wake(self) -> None:
        self._needed.set()

    async def _beats(self) -> None:
        while True:
            await self._needed.wait()
            await asyncio.sleep(self._lease.total_seconds() / BEATS_PER_LEASE)
            if not self._held():
                self._needed.clear()
            self.renew()


class VirtualWorker(Worker):
    """A worker that needs no looking now and then: in this world no notice is ever lost."""

    heart = LoopHeartbeat
    idle_max_s = timedelta(days=1).total_seconds()

    def _begin(self, record: Record) -> asyncio.Task[Record | None]:
        assert isinstance(self._heartbeat, LoopHeartbeat)
        self._heartbeat.wake()
        return super()._begin(record)


class World(Control):
    """`async with World([flow]) as world:` inside of `run`. Programs in it are `Life`s, which can be killed and stopped."""

    store: InlineStore
    worker_type = VirtualWorker

    def __init__(
        self,
        flows: Iterable[Flow[Any]],
        *,
        resources: Any = None,
        observers: Iterable[Observer] = (),
        start: datetime = BEGINNING,
        path: str = ":memory:",
        database: Any = None,
    ) -> None:
        """`database` is a `Scratch` of PostgreSQL, into which handlers write."""
        self.clock = VirtualClock(start)
        self.observers = tuple(observers)
        self.lives: list[Life] = []
        flows = [flow if resources is None else _with_resources(flow, resources) for flow in flows]
        super().__init__(flows, InlineStore(path, self.clock) if database is None else _joint(path, self.clock, database))
        self._database = database

    async def __aenter__(self) -> Self:
        make_mortal(asyncio.get_running_loop())
        await self.store.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for life in self.lives:
            life.kill()
            life.bury()
        await self.store.close()

    def worker(self, *, store: Store | None = None, until_idle: bool = True, **given: Any) -> Program:
        """A worker begins to run, as a program of its own. `store` is how it sees the store of this world."""
        program = Program(f"worker-{len(self.lives) + 1}", self, store or self.store, until_idle, given)
        self.lives.append(program)
        return program

    async def prepare(self, run: Callable[[Any], object]) -> None:
        """Runs this on a connection to the database of `ctx.transaction()`."""
        if self._database is None:
            self.store.at_once(run)
        else:
            await self._database.prepare(run)

    def rows(self) -> list[Row]:
        """What is in the user's own tables."""
        return self.store.at_once(rows) + ([] if self._database is None else self._database.rows())

    async def whole_history(self, id: str) -> list[Entry]:
        entries: list[Entry] = []
        while page := await self.store.history(id, entries[-1].version if entries else -1):
            entries += page
        return entries


class Program(Life):
    """A worker as a program. `running` is done when it has ended by itself; it never is when it was killed."""

    def __init__(self, name: str, world: World, store: Store, until_idle: bool, given: dict[str, Any]) -> None:
        super().__init__(name)
        self.worker = world.worker_type(world.flows, store, world.clock, world.observers, **given)
        self.worker.owner = name
        self._world = world
        self.running = self.begin(self.worker.run(until_idle=until_idle))

    def kill(self) -> None:
        super().kill()
        self._world.store.forget(self.name)


def database_at(postgres: str) -> AbstractContextManager[Any]:
    """A new database on this server, or None where handlers write to that of the store."""
    return open_scratch(postgres) if postgres else nullcontext()


def _joint(path: str, clock: Clock, database: Any) -> InlineStore:
    from onward.testing.joint import JointStore  # needs the driver of PostgreSQL

    return JointStore(path, clock, database)


def _with_resources(flow: Flow[Any], resources: Any) -> Flow[Any]:
    def lifespan() -> AbstractAsyncContextManager[Any]:
        return nullcontext(resources)

    changed = copy.copy(flow)
    changed.lifespan = lifespan
    return changed
