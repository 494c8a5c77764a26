"""The workload: processes of seeded length through all that a stage can do. What they do to the world is written down there.

`Outside` is that world: it lies beyond every crash, like a service on another machine, and forgets nothing.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum, auto
from typing import Any, Literal, Protocol, TypeVar

from onward import END, Context, Event, Every, Flow, Process, Record, Retry, RetryAfter, stage
from onward.testing.life import Life

EVENTS_MAX = 20_000  # more than a seed can take: something spins
MAPPED_ITEMS = ("a", "b", "c")


class Watch(Protocol):
    """Who can look at all at once, and sees what is wrong at the instant at which it is."""

    def is_held(self, record: Record) -> bool:
        """Whether the lease of a handler that begins is not over."""

    def is_cut_off_for_nothing(self, record: Record) -> bool:
        """Whether a handler that is cut off still had every right to go on."""

    def spins(self) -> None:
        """Something does the same again and again."""


class Outside:
    """What happened, in its order: `lines` for people, `books` for the judge. An entry begins with who did it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watch: Watch) -> None:
        self._loop, self._watch = loop, watch
        self.lines: list[str] = []
        self.books: defaultdict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.received: dict[str, tuple[Any, ...]] = {}  # by key: who gives the same one again changes nothing
        self.is_over = False

    def now(self) -> float:
        return self._loop.time()

    def tell(self, what: str) -> None:
        if not self.is_over:  # what is cleared away then still runs its `finally`
            self.lines.append(f"{self._loop.time():.6f} {who()} {what}")
            if len(self.lines) > EVENTS_MAX:
                self._watch.spins()

    def note(self, book: str, *values: Any) -> None:
        if not self.is_over:
            self.books[book].append((who(), *values))

    def acknowledged(self, event: Event) -> None:
        """The observer: called after the commit was reported."""
        record = event.record
        self.note("acks", record.id, record.version, record.epoch, event.kind, record.status)

    def begun(self, record: Record, key: str) -> None:
        self.note("begun", record.id, record.transition, key, record.attempt, record.epoch, record.owner, self.now())
        if not self._watch.is_held(record):
            self.note("without a lease", record.id, record.epoch, record.status)

    def cut_off(self, record: Record) -> None:
        if not self.is_over and self._watch.is_cut_off_for_nothing(record):
            self.note("cut off", record.id, record.epoch, record.status)

    def receive(self, key: str, content: tuple[Any, ...]) -> None:
        before = self.received.setdefault(key, content)
        if before != content:
            self.note("mistaken", key, before, content)


def who() -> str:
    life = Life.current()
    return "world" if life is None else life.name


class Status(StrEnum):
    OPENED = auto()
    LEFT = auto()
    RIGHT = auto()
    POLLED = auto()
    LATE = auto()
    RETRIED = auto()
    BROKEN = auto()
    CHARGED = auto()
    MAPPED = auto()
    SAVED = auto()
    BOOKED = auto()
    CLEANED = auto()
    CLOSED = auto()


S = TypeVar("S", bound=Status)


class Ledger(Process[Status]):
    status: Status = Status.OPENED
    seed: int
    length: int = 6  # transitions before it may close
    pace: float = 1.0  # seconds of an effect, at most
    log: list[tuple[int, str]] = []  # the version and status that each commit with data stood on
    tokens: dict[str, str] = {}  # what `once` and `map` answered, by transition and name
    note: str = ""  # what people write on it


class Planned(Exception):
    """A failure that belongs to the workload."""


def dice(ledger: Ledger, transition: int) -> random.Random:
    """The same in every attempt of a visit, in every life of every program."""
    return random.Random(f"{ledger.seed}:{ledger.id}:{transition}")


def write_down(ledger: Ledger, ctx: Context) -> None:
    ledger.log.append((ctx.record.version, ctx.record.status))


def turn(ledger: Ledger, ctx: Context, *choices: S) -> S:
    """Writes down the commit to come and says where it goes: by the dice, and to the last choice once it is long enough."""
    write_down(ledger, ctx)
    if len({version for version, _ in ledger.log}) >= ledger.length:
        return choices[-1]
    return dice(ledger, ctx.record.transition).choice(choices[:-1] or choices)


@contextmanager
def effect(ctx: Context) -> Iterator[None]:
    """What the stage does to the world: there is a book of what has begun and one of what is done."""
    record, outside = ctx.record, ctx.resources
    outside.tell(f"{record.id} begins {record.status}, version {record.version}, epoch {record.epoch}, attempt {ctx.attempt}")
    outside.begun(record, ctx.key)
    try:
        yield
    except asyncio.CancelledError:
        outside.cut_off(record)
        raise
    finally:
        outside.note("left", record.id, record.transition, record.epoch, outside.now())
    outside.receive(ctx.key, (record.id, record.transition, record.status))
    outside.note("done", record.id, record.transition, record.epoch)


def pause(ledger: Ledger, ctx: Context) -> float:
    return dice(ledger, ctx.record.transition).random() * ledger.pace


RUNNING: ContextVar[Context] = ContextVar("RUNNING")  # so that a sub-step can tell whose it is


def act(name: str) -> str:
    record, outside = RUNNING.get().record, RUNNING.get().resources
    token = f"{record.owner}/{record.epoch}/{len(outside.books['once'])}"
    outside.note("once", "ran", record.id, record.transition, name, record.epoch, token)
    outside.tell(f"{record.id} runs {name}, transition {record.transition}, epoch {record.epoch}")
    return token


def charge() -> str:
    return act("charge")


async def pack(item: str) -> str:
    await asyncio.sleep(0.001)
    return act(f"pack:{item}")


def _keep(ledger: Ledger, ctx: Context, name: str, token: str) -> None:
    ctx.resources.note("once", "known", ctx.record.id, ctx.record.transition, name, ctx.record.epoch, token)
    ledger.tokens[f"{ctx.record.transition}:{name}"] = token


# -- the stages ---------------------------------------------------------------------------------------------------


async def opened(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.RIGHT]:
    with effect(ctx):
        pass
    return turn(ledger, ctx, Status.LEFT, Status.RIGHT, Status.RIGHT)


async def left(
    ledger: Ledger, ctx: Context
) -> Literal[Status.POLLED, Status.RETRIED, Status.BROKEN, Status.CHARGED, Status.BOOKED, Status.CLOSED]:
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.POLLED, Status.RETRIED, Status.BROKEN, Status.CHARGED, Status.BOOKED, Status.CLOSED)


def right(ledger: Ledger, ctx: Context) -> Literal[Status.MAPPED, Status.SAVED, Status.BOOKED, Status.POLLED, Status.CLOSED]:
    with effect(ctx):
        pass
    return turn(ledger, ctx, Status.MAPPED, Status.SAVED, Status.BOOKED, Status.POLLED, Status.CLOSED)


async def polled(ledger: Ledger, ctx: Context) -> Literal[Status.POLLED, Status.LEFT, Status.SAVED, Status.CLOSED]:
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    if ctx.record.polls < dice(ledger, ctx.record.transition).randrange(5):
        write_down(ledger, ctx)
        return Status.POLLED
    return turn(ledger, ctx, Status.LEFT, Status.SAVED, Status.CLOSED)


async def late(ledger: Ledger, ctx: Context) -> Literal[Status.RIGHT, Status.CLOSED]:
    with effect(ctx):
        pass
    return turn(ledger, ctx, Status.RIGHT, Status.CLOSED)


async def retried(ledger: Ledger, ctx: Context) -> Literal[Status.RIGHT, Status.CHARGED, Status.CLOSED]:
    dices = dice(ledger, ctx.record.transition)
    fails, how = dices.randrange(5), dices.choice(["raises", "hangs", "asks"])
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    if ctx.attempt <= fails:
        if how == "hangs":
            await asyncio.sleep(3_600)
        raise RetryAfter(2.0) if how == "asks" else Planned(f"attempt {ctx.attempt}")
    return turn(ledger, ctx, Status.RIGHT, Status.CHARGED, Status.CLOSED)


async def broken(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.CLOSED]:
    """It fails for good until a person has it tried again."""
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    if ctx.attempt <= 2:
        raise Planned(f"attempt {ctx.attempt}")
    return turn(ledger, ctx, Status.LEFT, Status.CLOSED)


async def charged(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.MAPPED, Status.CLOSED]:
    RUNNING.set(ctx)
    with effect(ctx):
        _keep(ledger, ctx, "charge", await ctx.once("charge", charge))
        await asyncio.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.LEFT, Status.MAPPED, Status.CLOSED)


async def mapped(ledger: Ledger, ctx: Context) -> Literal[Status.POLLED, Status.SAVED, Status.CLOSED]:
    RUNNING.set(ctx)
    with effect(ctx):
        tokens = await ctx.map(pack, MAPPED_ITEMS, limit=2)
    for item, token in zip(MAPPED_ITEMS, tokens, strict=True):
        _keep(ledger, ctx, f"pack:{item}", token)
    return turn(ledger, ctx, Status.POLLED, Status.SAVED, Status.CLOSED)


async def saved(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.RETRIED, Status.CLOSED]:
    with effect(ctx):
        for _ in range(dice(ledger, ctx.record.transition).randrange(1, 3)):
            write_down(ledger, ctx)
            await ctx.save()
            ctx.resources.note("acks", ctx.record.id, ctx.record.version, ctx.record.epoch, "saved", ctx.record.status)
            await asyncio.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.LEFT, Status.RETRIED, Status.CLOSED)


async def booked(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.BOOKED, Status.SAVED, Status.CLOSED]:
    """Its row in `booking` is to be there once for each of its commits, and for nothing else."""
    dices = dice(ledger, ctx.record.transition)
    fails, polls = ctx.attempt <= dices.randrange(2), ctx.record.polls < dices.randrange(4) // 3
    with effect(ctx):
        async with ctx.transaction() as connection:
            assert isinstance(connection, sqlite3.Connection)
            row = (ledger.id, ctx.record.version, ctx.record.epoch)
            connection.execute("INSERT INTO booking VALUES (?, ?, ?)", row)
            await asyncio.sleep(pause(ledger, ctx) / 20)  # meanwhile nobody else can write, nor renew a lease
            if fails and ledger.seed % 2:
                raise Planned(f"attempt {ctx.attempt}, in its transaction")
    if fails:
        raise Planned(f"attempt {ctx.attempt}, after it")
    if polls:
        write_down(ledger, ctx)
        return Status.BOOKED
    return turn(ledger, ctx, Status.LEFT, Status.SAVED, Status.CLOSED)


async def cleaned(ledger: Ledger, ctx: Context) -> Literal[Status.CLOSED]:
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.CLOSED)


# A worker that is killed spends an attempt of everything it holds, and this is a world of much killing.
PATIENT = Retry(attempts=200, first=0.2, longest=2)
LOOKS = Every(0.5, longest=4)

FLOW = Flow(
    Ledger,
    {
        Status.OPENED: stage(opened, retry=PATIENT),
        Status.LEFT: stage(left, retry=PATIENT),
        Status.RIGHT: stage(right, retry=PATIENT),
        Status.POLLED: stage(polled, retry=PATIENT, every=LOOKS, within=8, otherwise=Status.LATE),
        Status.LATE: stage(late, retry=PATIENT),
        Status.RETRIED: stage(retried, retry=Retry(attempts=3, first=0.5, longest=4), timeout=6, on_failure=Status.SAVED),
        Status.BROKEN: stage(broken, retry=Retry(attempts=2, first=0.2)),
        Status.CHARGED: stage(charged, retry=PATIENT),
        Status.MAPPED: stage(mapped, retry=PATIENT),
        Status.SAVED: stage(saved, retry=PATIENT),
        Status.BOOKED: stage(booked, retry=PATIENT, every=LOOKS),
        Status.CLEANED: stage(cleaned, retry=PATIENT),
        Status.CLOSED: END,
    },
    on_cancel=Status.CLEANED,
)
