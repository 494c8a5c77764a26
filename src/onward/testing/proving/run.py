"""One run of a process in a fresh world, undisturbed or with one fault at one point."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from onward.errors import OnwardError, Refused
from onward.flow import Flow
from onward.process import Entry, Process, Record
from onward.testing.life import Killed, Life, never
from onward.testing.proving.effects import Act, Effects, Request
from onward.testing.proving.memory import Memory
from onward.testing.proving.outside import Folder, Outside, Outsides, Seen, entered
from onward.testing.proving.points import BEFORE_HANDLER, TOLD, Fault, Moment, Point
from onward.testing.proving.scene import Scene, current, program, where
from onward.testing.proving.watch import WatchedWorker, watched
from onward.testing.world import Program, World, database_at
from onward.testing.world import run as run_in_virtual_time

LEASE = timedelta(seconds=2)  # of the workers of a proof: a deadline should not pass only because one of them was killed
NOTICE_S = 0.2  # so long a handler stays where it is when a person acts; a clean-up begins a second later
SETTLE_S = 0.01  # so long before a worker is frozen its other tasks have to come to where they wait
PAUSE_S = 5.0  # until a paused process is let go on
POINTS_MAX = 20_000  # of one run: it does not come to rest


class ProvedWorld(World):
    worker_type = WatchedWorker


@dataclass(frozen=True)
class Plan:
    """What is run, and in what."""

    flow: Flow[Any]
    process: Process[Any]
    outside: Outsides
    until: timedelta
    folder: Path


@dataclass
class Outcome:
    """What came of a run. `stuck`: why it did not come to rest, or ''."""

    points: list[Point] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    effects: Effects = field(default_factory=Effects)
    record: Record | None = None
    history: list[Entry] = field(default_factory=list)
    before: Seen = field(default_factory=Seen)
    seen: Seen = field(default_factory=Seen)
    took: timedelta = timedelta(0)
    stuck: str = ""
    called: list[str] = field(default_factory=list)  # who was to be reached over the network
    struck: bool = False


class Run(Scene):
    def __init__(self, plan: Plan, memory: Memory, point: int = 0, fault: Fault | None = None) -> None:
        self._plan, self._memory, self._point, self._fault = plan, memory, point, fault
        self._folder = Folder(plan.folder)
        self._first: Life | None = None
        self._before: dict[int, Any] = {}  # what was around an act when it began
        self.outcome = Outcome()

    # -- what is watched --------------------------------------------------------------------------------------

    async def at(self, moment: Moment, what: str = "", place: str = "") -> Fault | None:
        if not self._met(moment, what, place):
            return None
        life = Life.current()
        assert life is not None
        match self._fault:
            case Fault.KILLED:
                self.kill(life)
                await never()
            case Fault.FROZEN:
                self.outcome.struck = True  # what its other tasks come to meanwhile is no point any more
                await asyncio.sleep(SETTLE_S)
                life.stop()
                self._strike()
                await asyncio.sleep(0)
            case Fault.CANCELLED | Fault.PAUSED:
                self._strike()
                if moment.faults >= {Fault.KILLED}:  # else it goes on, and is cut off where it waits next
                    await asyncio.sleep(NOTICE_S)
            case error:
                self._strike()
                return error
        return None

    def at_once(self, moment: Moment, what: str = "", place: str = "") -> Fault | None:
        if not self._met(moment, what, place):
            return None
        if self._fault is not Fault.KILLED:
            self._strike()
            return self._fault
        assert self._first is not None
        self.kill(self._first)
        raise Killed

    def kill(self, life: Life) -> None:
        life.kill()
        self._strike()

    def _met(self, moment: Moment, what: str, place: str) -> bool:
        """Whether this is the point."""
        points = self.outcome.points
        if self.outcome.struck or Life.current() is not self._first:
            return False
        now = where.get()
        what = self.outcome.effects.plain(what)
        points.append(Point(len(points) + 1, now.handler, now.attempt, what, moment, place or what))
        if len(points) > POINTS_MAX:
            self._end(f"it passed {POINTS_MAX:,} points")
        if self._fault is None or len(points) != self._point:
            return False
        self._tell(f"{points[-1]}: {TOLD[self._fault]}", marked=True)
        return True

    def _end(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(why)

    def _strike(self) -> None:
        self.outcome.struck = True
        self._hit.set()

    def began(self, record: Record) -> None:
        if self._is_overtaken():
            return  # it will see that its lease is over, and not begin
        self._tell(f"{where.get().handler}, attempt {record.attempt}, begins")

    def _is_overtaken(self) -> bool:
        was_before = self.outcome.struck and self.outcome.points[-1].moment is BEFORE_HANDLER
        return was_before and self._fault is Fault.FROZEN and Life.current() is self._first

    def requested(self, request: Request) -> None:
        self.outcome.effects.noted(request)
        if request.act is not None:
            request.act.observed = True
        if request.method != "GET":
            key = f", Idempotency-Key {request.key}" if request.key else ""
            self._tell(f"{request.method} {request.path} is done ({request.status}){key}", by=request.program)

    def acting(self, act: Act) -> None:
        self._before[id(act)] = self._around()

    def acted(self, act: Act) -> None:
        act.observed = act.observed or self._around() != self._before.pop(id(act))
        self.outcome.effects.acts.append(act)
        self._tell(f"the act {act.name!r} is done{' with ctx.key' if act.keyed else ''}")

    def _around(self) -> Any:
        return self._folder.marks(), self._outside.state(), sorted(map(str, self._outside.alive()))

    def _tell(self, line: str, *, marked: bool = False, by: str = "") -> None:
        self.outcome.lines.append(f"{'>> ' if marked else ''}{by or program()}: {line}")

    # -- the run ----------------------------------------------------------------------------------------------

    def __call__(self) -> Outcome:
        with self._folder:
            self.run()
        return self.outcome

    def run(self) -> None:
        self._memory.begin()
        run_in_virtual_time(self._main)

    async def _main(self) -> None:
        current.set(self)
        _without_network(self.outcome.called)
        self._hit = asyncio.Event()
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with entered(self._plan.outside) as outside:
            self._outside = outside
            with self.database(outside) as self._database:
                async with self.world(outside) as world:
                    await self.begin(world, outside)
                    await self._in(world)

    def database(self, outside: Outside) -> AbstractContextManager[Any]:
        return database_at(outside.postgres)

    def world(self, outside: Outside) -> World:
        return ProvedWorld([self._plan.flow], resources=outside.resources, database=self._database)

    async def begin(self, world: World, outside: Outside) -> None:
        """Before the first program."""
        await world.prepare(outside.prepare)
        self.outcome.before = self._look(world)
        await world.start(self._plan.process.model_copy(deep=True))

    async def _in(self, world: World) -> None:
        self._world = world
        playing: asyncio.Future[None] = asyncio.ensure_future(self._play())
        waits: set[asyncio.Future[Any]] = {playing, self._ended}
        await asyncio.wait(waits, timeout=self._plan.until.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            self.outcome.stuck = _why(playing)
        else:
            playing.cancel()
            self.outcome.stuck = self._ended.result() if self._ended.done() else f"it was not over after {self._plan.until}"
        for life in world.lives:
            life.kill()
        outcome = self.outcome
        outcome.history = await world.whole_history(self._plan.process.id)
        outcome.record = await world.get(self._plan.process.id)
        outcome.took = outcome.history[-1].at - outcome.history[0].at
        outcome.seen = self._look(world)

    def _look(self, world: World) -> Seen:
        return Seen(self._folder.files(), world.rows(), sorted(map(str, self._outside.alive())), self._outside.state())

    async def _play(self) -> None:
        first = self._worker()
        struck = asyncio.ensure_future(self._hit.wait())
        waits: set[asyncio.Future[Any]] = {first.running, struck}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        struck.cancel()
        if not self.outcome.struck:
            return await first.running
        match self._fault:
            case Fault.KILLED:
                self._memory.begin()
                await self._worker().running
            case Fault.FROZEN:
                await self._overtake(first)
            case Fault.CANCELLED:
                await self._act(self._world.cancel)
                await first.running
            case Fault.PAUSED:
                await self._pause(first)
            case _:
                await first.running
        return None

    async def _overtake(self, first: Program) -> None:
        """The two are programs of their own: neither remembers what the other one does."""
        remembered = self._memory.taken()
        self._memory.begin()
        await self._worker().running
        self._memory.put(remembered)
        first.go_on()
        self.outcome.lines.append(f"{first.name} goes on")
        await first.running

    async def _pause(self, first: Program) -> None:
        await self._act(self._world.pause)
        await asyncio.wait({first.running}, timeout=PAUSE_S)
        await self._act(self._world.resume)
        await self._worker().running
        await first.running

    async def _act(self, act: Any) -> None:
        said: Awaitable[Any] = act(self._plan.process.id, reason="as the proof wants it")
        try:
            await said
        except Refused:
            self._tell(f"too late to {act.__name__}")

    def _worker(self) -> Program:
        program = self._world.worker(store=watched(self._world.store), lease=LEASE)
        self._first = self._first or program
        return program


def _without_network(called: list[str]) -> None:
    """Nobody is reached from this event loop."""

    async def refuse(*where: Any, **more: Any) -> Any:
        parts = (part.decode() if isinstance(part, bytes) else part for part in (*where, more.get("host"), more.get("port")))
        hosts = [str(part) for part in parts if isinstance(part, str | int)]
        called.append(":".join(hosts) or "a socket")
        raise ConnectionRefusedError(f"a proof never goes to the network: {called[-1]}")

    loop: Any = asyncio.get_running_loop()
    loop.create_connection = loop.create_unix_connection = loop.getaddrinfo = loop.sock_connect = refuse


def _why(playing: asyncio.Future[None]) -> str:
    """Why a worker ended, if not because all was done."""
    error = playing.exception()
    if isinstance(error, OnwardError):
        return f"its worker ended: {error}"
    if error is not None:
        raise error
    return ""
