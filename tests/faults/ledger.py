"""The workload: processes of seeded length through branches, polls, retries, `once`, `map` and `save`, which keep books.

Each program keeps four books of its own, outside the store: what it claimed, what it did (before and after each
effect), what was acknowledged to it, and what was refused. The checker compares them with the database.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal, TypeVar

from onward import END, Context, Event, Every, Flow, Process, Record, Retry, stage

from .points import trip

MAPPED_ITEMS = ("a", "b", "c")


class Books:
    """The append-only logs of one life of one program, `boot`. A line is one write, so a kill can tear the last one only."""

    def __init__(self, folder: Path, boot: str) -> None:
        self.folder, self.boot = folder, boot
        self._files: dict[str, int] = {}
        self._lock = threading.Lock()
        self.effects = 0  # that have begun

    def note(self, book: str, *values: Any) -> None:
        with self._lock:
            if book not in self._files:
                path = self.folder / f"{book}-{self.boot}"
                self._files[book] = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(self._files[book], json.dumps([*values, time.monotonic()]).encode() + b"\n")

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def acknowledged(self, event: Event) -> None:
        """The observer: called after the commit was reported."""
        record = event.record
        self.note("acks", record.id, record.version, record.epoch, event.kind, record.status)


BOOKS = Books(Path(os.devnull), "")  # of this program; replaced before the app is opened


class Status(StrEnum):
    OPENED = auto()
    LEFT = auto()
    RIGHT = auto()
    POLLED = auto()
    RETRIED = auto()
    CHARGED = auto()
    MAPPED = auto()
    SAVED = auto()
    BOOKED = auto()
    CLOSED = auto()


S = TypeVar("S", bound=Status)


class Ledger(Process[Status]):
    status: Status = Status.OPENED
    seed: int
    length: int = 6  # transitions before it may close
    pace: float = 0.01  # seconds of an effect, at most
    release: int = 1  # of which version of the code its data are
    log: list[tuple[int, str]] = []  # the version and status that each commit with data stood on
    tokens: dict[str, str] = {}  # what `once` and `map` answered, by transition and name


class Planned(Exception):
    """A failure that belongs to the workload."""


def dice(ledger: Ledger, transition: int) -> random.Random:
    """The same in every attempt of a visit, in every life of every program."""
    return random.Random(f"{ledger.seed}:{ledger.id}:{transition}")


def turn(ledger: Ledger, ctx: Context, *choices: S) -> S:
    """Writes down the commit to come and says where it goes: by the dice, and to the last choice once it is long enough."""
    ledger.log.append((ctx.record.version, ctx.record.status))
    if len({version for version, _ in ledger.log}) >= ledger.length:
        return choices[-1]
    return dice(ledger, ctx.record.transition).choice(choices[:-1] or choices)


@contextmanager
def effect(ctx: Context) -> Iterator[None]:
    """What the stage does to the world: one line before, one after."""
    record = ctx.record
    visit = (record.id, record.transition, ctx.key, ctx.attempt, record.epoch, record.owner)
    BOOKS.note("effects", "before", *visit)
    BOOKS.effects += 1
    trip("effect-begun")
    yield
    BOOKS.note("effects", "after", *visit)
    trip("effect-done")


def pause(ledger: Ledger, ctx: Context) -> float:
    return dice(ledger, ctx.record.transition).random() * ledger.pace


RUNNING: ContextVar[Record] = ContextVar("RUNNING")  # so that a sub-step can note whose it is; it reaches threads as well


def act(name: str) -> str:
    record = RUNNING.get()
    token = f"{BOOKS.boot}/{record.epoch}/{random.getrandbits(40):x}"
    BOOKS.note("once", "ran", record.id, record.transition, name, record.epoch, token)
    return token


def charge() -> str:
    return act("charge")


async def pack(item: str) -> str:
    await asyncio.sleep(0.001)
    return act(f"pack:{item}")


def _keep(ledger: Ledger, ctx: Context, name: str, token: str) -> None:
    BOOKS.note("once", "known", ctx.record.id, ctx.record.transition, name, ctx.record.epoch, token)
    ledger.tokens[f"{ctx.record.transition}:{name}"] = token


# -- the stages ---------------------------------------------------------------------------------------------------


async def opened(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.RIGHT]:
    with effect(ctx):
        pass
    return turn(ledger, ctx, Status.LEFT, Status.RIGHT, Status.RIGHT)


async def left(
    ledger: Ledger, ctx: Context
) -> Literal[Status.POLLED, Status.RETRIED, Status.CHARGED, Status.BOOKED, Status.CLOSED]:
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.POLLED, Status.RETRIED, Status.CHARGED, Status.BOOKED, Status.CLOSED)


def right(ledger: Ledger, ctx: Context) -> Literal[Status.MAPPED, Status.SAVED, Status.CHARGED, Status.CLOSED]:
    with effect(ctx):
        time.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.MAPPED, Status.SAVED, Status.CHARGED, Status.CLOSED)


async def polled(ledger: Ledger, ctx: Context) -> Literal[Status.POLLED, Status.LEFT, Status.SAVED, Status.CLOSED]:
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    if ctx.record.polls < dice(ledger, ctx.record.transition).randrange(3):
        ledger.log.append((ctx.record.version, ctx.record.status))
        return Status.POLLED
    return turn(ledger, ctx, Status.LEFT, Status.SAVED, Status.CLOSED)


async def retried(ledger: Ledger, ctx: Context) -> Literal[Status.RIGHT, Status.CHARGED, Status.CLOSED]:
    with effect(ctx):
        await asyncio.sleep(pause(ledger, ctx))
    if ctx.attempt <= dice(ledger, ctx.record.transition).randrange(3):
        raise Planned(f"attempt {ctx.attempt}")
    return turn(ledger, ctx, Status.RIGHT, Status.CHARGED, Status.CLOSED)


async def charged(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.MAPPED, Status.CLOSED]:
    RUNNING.set(ctx.record)
    with effect(ctx):
        _keep(ledger, ctx, "charge", await ctx.once("charge", charge))
        await asyncio.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.LEFT, Status.MAPPED, Status.CLOSED)


async def mapped(ledger: Ledger, ctx: Context) -> Literal[Status.POLLED, Status.SAVED, Status.CLOSED]:
    RUNNING.set(ctx.record)
    with effect(ctx):
        tokens = await ctx.map(pack, MAPPED_ITEMS, limit=2)
    for item, token in zip(MAPPED_ITEMS, tokens, strict=True):
        _keep(ledger, ctx, f"pack:{item}", token)
    return turn(ledger, ctx, Status.POLLED, Status.SAVED, Status.CLOSED)


async def saved(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.RETRIED, Status.CLOSED]:
    with effect(ctx):
        for _ in range(dice(ledger, ctx.record.transition).randrange(1, 3)):
            ledger.log.append((ctx.record.version, ctx.record.status))
            await ctx.save()
            BOOKS.note("acks", ctx.record.id, ctx.record.version, ctx.record.epoch, "saved", ctx.record.status)
            await asyncio.sleep(pause(ledger, ctx))
    return turn(ledger, ctx, Status.LEFT, Status.RETRIED, Status.CLOSED)


async def booked(ledger: Ledger, ctx: Context) -> Literal[Status.LEFT, Status.BOOKED, Status.SAVED, Status.CLOSED]:
    """Its row in `booking` is to be there once for each of its commits, and for nothing else."""
    dices = dice(ledger, ctx.record.transition)
    fails, polls = ctx.attempt <= dices.randrange(2), ctx.record.polls < dices.randrange(4) // 3
    with effect(ctx):
        trip("transaction-asked")
        async with ctx.transaction() as connection:
            trip("transaction-begun")
            row = (ledger.id, ctx.record.version, ctx.record.epoch)
            if isinstance(connection, sqlite3.Connection):
                connection.execute("CREATE TABLE IF NOT EXISTS booking (process_id, version, epoch)")
                connection.execute("INSERT INTO booking VALUES (?, ?, ?)", row)
            else:  # PostgreSQL, where the table is there already: two who make it at once are in each other's way
                await connection.execute("INSERT INTO booking VALUES ($1, $2, $3)", *row)
            trip("transaction-written")
            if fails and ledger.seed % 2:
                raise Planned(f"attempt {ctx.attempt}, in its transaction")
    if fails:
        raise Planned(f"attempt {ctx.attempt}, after it")
    if polls:
        ledger.log.append((ctx.record.version, ctx.record.status))
        return Status.BOOKED
    return turn(ledger, ctx, Status.LEFT, Status.SAVED, Status.CLOSED)


# A worker that is killed spends an attempt of everything it holds, so the kill loop needs many.
PATIENT = Retry(attempts=50, first=0.01, longest=0.05)

TABLE = {
    Status.OPENED: stage(opened, retry=PATIENT),
    Status.LEFT: stage(left, retry=PATIENT),
    Status.RIGHT: stage(right, retry=PATIENT),
    Status.POLLED: stage(polled, retry=PATIENT, every=Every(0.01, longest=0.04)),
    Status.RETRIED: stage(retried, retry=PATIENT),
    Status.CHARGED: stage(charged, retry=PATIENT),
    Status.MAPPED: stage(mapped, retry=PATIENT),
    Status.SAVED: stage(saved, retry=PATIENT),
    Status.BOOKED: stage(booked, retry=PATIENT, every=Every(0.01, longest=0.04)),
    Status.CLOSED: END,
}
FLOW = Flow(Ledger, TABLE)
# The next release of the code, which may be at work beside the one before.
NEXT = Flow(Ledger, TABLE, version=2, upgrade={1: lambda data: {**data, "release": 2}})


def processes(seed: int, number: int, *, length: tuple[int, int] = (4, 10), pace: float = 0.01) -> Sequence[Ledger]:
    """The same ones for the same arguments: starting them again starts nothing."""
    draw = random.Random(seed)
    return [Ledger(id=f"{seed}-{n}", seed=seed, length=draw.randint(*length), pace=pace) for n in range(number)]
