"""One seed from its beginning to rest: a time of trouble, then none, in which all has to come to its end."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from onward.flow import TIMEOUT
from onward.process import Record
from onward.store.sqlite.file import micros
from onward.store.sqlite.store import NOTICE_S
from onward.testing.world import LoopHeartbeat, Program, World, run

from .judge import Found, judge
from .ledger import EVENTS_MAX, FLOW, Ledger, Outside, who
from .people import People
from .sight import Sight
from .weather import LATENCIES, Weather

EVENTS_MIN = 150  # of a seed
TROUBLE_S = 300.0  # of virtual time, at the longest
HEAL_S = 3_600.0  # so long at the most until all is at rest once the weather is calm
LOOK_S = 1.0  # between two looks whether all is at rest
LOOKS_AT_ONCE = 0.5  # how often the nemesis looks, on the average
STOPS_S, CUTS_S, NEXT_S = 8.0, 3.0, 1.0  # on the average: stops, cuts, and until another worker comes
JUMPS_S = (-60.0, -3.0, -0.5, 0.5, 3.0, 60.0)
GRACE_S = (0.0, 1.0, 30.0)
PROGRAMS_MAX = 40
VIOLATIONS_SHOWN = 5
DRAIN_S = 120.0  # for workers that were told to go


class SlowHeart(LoopHeartbeat):
    """Its news are on their way for a while, as those of a heartbeat on another thread can be."""

    def __init__(self, story: Story, *given: Any) -> None:
        super().__init__(*given)
        self._story = story

    def _in_the_loop(self, function: Callable[..., None], *arguments: object) -> None:
        self._loop.call_later(self._story.latency(), function, *arguments)


@dataclass
class Told:
    """What became of a seed."""

    seed: int
    weather: str
    lines: list[str]
    violations: list[str]
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def trace(self) -> str:
        return "\n".join([f"seed {self.seed}: {self.weather}", *self.lines, *self.violations, ""])

    @property
    def failure(self) -> str:
        shown = "\n  ".join(self.violations[:VIOLATIONS_SHOWN])
        again = f"PYTHONPATH=tests python -m simulation --seed {self.seed} --trace"
        return f"seed {self.seed} has {len(self.violations)} violations; see it again: {again}\n  {shown}"


class Story:
    """While it goes on. All that is drawn comes from `dice`, in the order in which it happens."""

    def __init__(self, seed: int) -> None:
        self.seed, self.dice = seed, random.Random(seed)
        self.weather = Weather.drawn(self.dice)
        self.counts: Counter[str] = Counter()
        self.ids: list[str] = []
        self.sights: list[Sight] = []
        self.spun = asyncio.Event()
        self.noticing = False
        self.granted: dict[tuple[str, int], datetime] = {}  # what was granted, and what its holder knows of it
        self.holders: dict[tuple[str, int], str] = {}
        self.leases: dict[tuple[str, int], datetime] = {}
        self.wanted = self.dice.randint(EVENTS_MIN // 3, EVENTS_MIN - 20)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] += number

    def ledger(self, id: str) -> Ledger:
        """The same one for the same id."""
        dice = random.Random(f"{self.seed}:{id}")
        return Ledger(id=id, seed=self.seed, length=dice.randint(2, 5), pace=self.weather.pace)

    def latency(self) -> float:
        average = 0.0 if self.weather.calm else LATENCIES[self.weather.latency]
        return self.dice.expovariate(1 / average) if average and self.dice.random() < 0.7 else 0.0

    # -- programs ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if len(self.sights) >= PROGRAMS_MAX and not self.weather.calm:
            return
        sight = Sight(self)
        grace = timedelta(seconds=self.dice.choice(GRACE_S))
        lease = timedelta(seconds=self.weather.lease)
        sight.program = self.world.worker(
            store=sight,
            until_idle=False,
            lease=lease,
            concurrency=self.weather.concurrency,
            grace=grace,
        )
        sight.program.worker.heart = functools.partial(SlowHeart, self)  # type: ignore[assignment]
        self.sights.append(sight)
        self.outside.tell(f"{sight.program.name} begins")
        self.count("begun")

    def kill(self, program: Program, when: str) -> None:
        self.outside.tell(f"kill {program.name}, {when}")
        self.outside.note("killed", program.name)
        self.count("killed")
        program.kill()
        self.loop.call_later(self.dice.expovariate(1 / NEXT_S), self.begin)

    def stop(self, program: Program, when: str) -> None:
        seconds = self.dice.expovariate(1 / STOPS_S)
        self.outside.tell(f"stop {program.name} for {seconds:.3f} s, {when}")
        self.outside.note("stopped", program.name)
        self.count("stopped")
        self.count("stopped for longer than a lease", seconds > self.weather.lease)
        program.stop()
        self.loop.call_later(seconds, program.go_on)

    def drain(self, program: Program) -> None:
        self.outside.tell(f"drain {program.name}")
        self.count("drained")
        if self.dice.random() < 0.3:
            program.worker.stop_now()
        else:
            program.worker.drain()
        self.loop.call_later(self.dice.expovariate(1 / NEXT_S), self.begin)

    def believe(self, id: str, epoch: int, until: datetime) -> None:
        """A worker was told that it has a lease."""
        self.outside.note("leases", id, epoch, until)
        self.holders[id, epoch] = who()
        self.leases[id, epoch] = max(until, self.leases.get((id, epoch), until))

    def look_at_the_lease(self, id: str) -> None:
        """After a renewal by one who does not have this process any more."""
        for row in self.sql("SELECT epoch, lease_until FROM onward_process WHERE id = ? AND owner IS NOT NULL", id):
            granted = self.granted.get((id, row["epoch"]))
            known = self.leases.get((id, row["epoch"]), granted)
            if granted is not None and known is not None and row["lease_until"] > micros(max(granted, known)):
                self.outside.note("prolonged", id, row["epoch"])

    def is_held(self, record: Record) -> bool:
        """Whether the lease is not over under which a handler begins. Who was stopped in between could not know, and for
        a clock that jumps nobody is to blame.
        """
        disturbed = self.counts["clock forward"] or any(who() == stopped for _, stopped in self.outside.books["stopped"])
        until = self.leases.get((record.id, record.epoch))
        return bool(disturbed) or (until is not None and self.world.clock.now() < until)

    def is_cut_off_for_nothing(self, record: Record) -> bool:
        """A time limit cuts off as well, and so does a worker that was told to go."""
        line = FLOW.stages[record.status]
        bounded = line is not None and (line.within is not None or line.timeout < TIMEOUT)
        [program] = [sight.program for sight in self.sights if sight.program and sight.program.name == record.owner]
        if bounded or program.worker._draining or self.is_locked:
            return False
        return self.row(record.id) == (record.epoch, record.owner)

    def spins(self) -> None:
        self.spun.set()
        for life in self.world.lives:
            life.kill()

    def living(self) -> list[Sight]:
        return [
            sight for sight in self.sights if sight.program and not sight.program.is_dead and not sight.program.running.done()
        ]

    # -- trouble ----------------------------------------------------------------------------------------------

    async def nemesis(self) -> None:
        """Acts at instants of its own, besides what happens at the calls of the store."""
        while not self.weather.calm:
            await asyncio.sleep(self.dice.expovariate(1 / LOOKS_AT_ONCE))
            weather, living = self.weather, self.living()
            if not living:
                continue
            sight = self.dice.choice(living)
            assert sight.program is not None
            if self._happens(weather.killed * 3):
                self.kill(sight.program, "by chance")
            elif self._happens(weather.stopped * 3) and not sight.program.is_stopped:
                self.stop(sight.program, "by chance")
            elif self._happens(weather.drained):
                self.drain(sight.program)
            if self._happens(weather.cut):
                self._cut(sight)
            if self._happens(weather.jump):
                self._jump()

    def _cut(self, sight: Sight) -> None:
        assert sight.program is not None
        seconds = self.dice.expovariate(1 / CUTS_S)
        sight.cut_until = self.loop.time() + seconds
        self.outside.tell(f"cut {sight.program.name} off for {seconds:.3f} s")
        self.count("cut off")

    def _jump(self) -> None:
        by = self.dice.choice(JUMPS_S)
        self.world.clock.jump(timedelta(seconds=by))
        self.outside.tell(f"the clock jumps by {by:g} s")
        self.count("clock forward" if by > 0 else "clock back")

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self.dice.random() < rate

    async def acting(self) -> None:
        while not self.weather.calm:
            await asyncio.sleep(self.dice.expovariate(1 / LOOKS_AT_ONCE))
            if self._happens(self.weather.act):
                await self.people.act()

    async def starting(self) -> None:
        for number in range(self.weather.processes):
            if number:
                await asyncio.sleep(self.dice.expovariate(1.0))
            await self._start(f"p{number}")

    async def _start(self, id: str) -> None:
        self.ids.append(id)
        await self.people.start(self.ledger(id))

    # -- the whole --------------------------------------------------------------------------------------------

    async def tell(self) -> Told:
        self.loop = asyncio.get_running_loop()
        self.outside = Outside(self.loop, self)
        async with World([FLOW], resources=self.outside, observers=[self.outside.acknowledged]) as self.world:
            store: Any = self.world.store
            store._writer.written = functools.partial(self._written, store._changed)
            self.sql("CREATE TABLE booking (process_id, version, epoch)")
            self.people = People(self)
            violations = await self._live()
            self.outside.is_over = True
            self.counts.update(f"stage {status}" for _, _, status in self.outside.received.values())
            found = Found.read(self.sql)
            violations += judge(self, found)
        return Told(self.seed, str(self.weather), self.outside.lines, violations, self.counts)

    def _written(self, changed: asyncio.Event) -> None:
        """On a file others notice by looking now and then, and many changes are one notice to them."""
        if not self.noticing:
            self.noticing = True
            self.loop.call_later(NOTICE_S, self._noticed, changed)

    def _noticed(self, changed: asyncio.Event) -> None:
        self.noticing = False
        changed.set()

    async def _live(self) -> list[str]:
        for _ in range(self.weather.workers):
            self.begin()
        trouble = [asyncio.create_task(work) for work in (self.starting(), self.nemesis(), self.acting())]
        while not self.spun.is_set() and len(self.outside.lines) < self.wanted and self.loop.time() < TROUBLE_S:
            await asyncio.sleep(LOOK_S)
            if trouble[0].done() and not self.restless():
                await self._start_another()
        self.weather.calm = True
        self.outside.tell("calm")
        await asyncio.gather(*trouble)
        for sight in self.sights:
            sight.cut_until = 0.0
            if sight.program is not None:
                sight.program.go_on()
                sight.program.worker.drain()
        self.begin()
        return [*await self._heal(), *await self._end()]

    async def _heal(self) -> list[str]:
        """Until all is at rest, and the story is long enough."""
        until = self.loop.time() + HEAL_S
        while not self.spun.is_set():
            restless = self.restless()
            if not restless:
                if len(self.outside.lines) >= EVENTS_MIN:
                    return []
                await self._start_another()
            if self.loop.time() > until:
                return [f"C7 not at rest after {HEAL_S:g} s without any trouble: {restless}"]
            for id, condition in restless.items():
                if condition in ("failed", "paused"):
                    await self.people.mend(id, condition)
            await asyncio.sleep(LOOK_S)
        return [f"C7 it spins: {EVENTS_MAX:,} events"]

    async def _end(self) -> list[str]:
        """Workers that are told to go do so."""
        programs = [sight.program for sight in self.sights if sight.program is not None and not sight.program.is_dead]
        for program in programs:
            program.worker.drain()
        if programs:
            await asyncio.wait([program.running for program in programs], timeout=DRAIN_S)
        said = []
        for program in programs:
            if not program.running.done():
                said.append(f"C7 {program.name} was told to go and has not")
            elif program.running.exception() is not None:
                said.append(f"C9 {program.name} ended with {program.running.exception()!r}")
        return said

    async def _start_another(self) -> None:
        self.count("processes begun later")
        await self._start(f"p{len(self.ids)}")

    def restless(self) -> dict[str, str]:
        """What is not over, and how it stands."""
        if self.is_locked:
            return {"somebody": "is in a transaction"}
        rows = self.sql("SELECT id, condition FROM onward_process WHERE condition NOT IN ('finished', 'cancelled') ORDER BY id")
        return {row["id"]: row["condition"] for row in rows}

    @property
    def is_locked(self) -> bool:
        """Whether a handler's transaction keeps everybody from reading."""
        store: Any = self.world.store
        return store._writer._lent is not None

    def row(self, id: str) -> tuple[int, str | None] | None:
        """The epoch and the owner of a process, as they are at this instant."""
        found = self.sql("SELECT epoch, owner FROM onward_process WHERE id = ?", id)
        return (found[0]["epoch"], found[0]["owner"]) if found else None

    def sql(self, question: str, *values: Any) -> list[dict[str, Any]]:
        """Asked of the database itself, past all code of ours."""
        store: Any = self.world.store
        cursor = store._writer._connection.execute(question, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def told(seed: int) -> Told:
    """Runs a seed. What the engine says that it should never say is a violation as well."""
    with _listening() as said:
        story = run(Story(seed).tell)
    story.violations += [f"C9 {text}" for text in said]
    return story


@contextmanager
def _listening() -> Iterator[list[str]]:
    """What the engine and the loop log as errors. Warnings there are many, as it should be in such weather."""
    said: list[str] = []
    ears = _Ears(said)
    loggers = [(logger, logger.level, logger.propagate) for logger in map(logging.getLogger, ("onward", "asyncio"))]
    for logger, *_ in loggers:
        logger.addHandler(ears)
        logger.setLevel(logging.ERROR)
        logger.propagate = False
    try:
        yield said
    finally:
        for logger, level, propagate in loggers:
            logger.removeHandler(ears)
            logger.setLevel(level)
            logger.propagate = propagate


class _Ears(logging.Handler):
    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(self.format(record))
