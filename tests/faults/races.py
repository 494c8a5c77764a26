"""A flow whose handlers come to their end at instants that everybody knows, so that other programs can act around them.

All programs of a machine have one monotonic clock. Each process has a beat of its own on it, and all of its handlers that
move it end at the next one.
"""

from __future__ import annotations

import asyncio
import random
import time
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from onward import (
    END,
    Conflict,
    Context,
    Every,
    Flow,
    NotFound,
    Onward,
    Process,
    Refused,
    Retry,
    StoreError,
    Unrecoverable,
    stage,
)
from onward.process import OVER, Record

from . import ledger

BEAT_S = 0.2
NEAR_S = 0.005  # so long before or after a beat somebody acts
ENOUGH = "enough"  # the file that lets all processes end
CLOSER = "the last one"
NOBODY_KNOWS = "nobody knows"  # the answer to an action whose answer was lost: it was done, or it was not
NOBODY, NOBODY_EVERY = "nobody", 50  # the id of no process
KINDS = {  # what each action is called in the history
    "pause": "paused",
    "resume": "resumed",
    "wake": "woken",
    "retry": "retried",
    "cancel": "cancelled",
    "stop": "stopped",
}
FITTING = {  # what a person would do, to what he sees
    "running": ("pause", "pause", "pause", "cancel", "stop"),
    "waiting": ("wake", "wake", "pause"),
    "retrying": ("retry", "retry", "wake"),
    "failed": ("retry",),
    "paused": ("resume",),
}
FITTING_SHARE = 0.85  # and the rest does anything


class Status(StrEnum):
    TICKING = auto()
    TOCKING = auto()
    WAITING = auto()
    FAILING = auto()
    CLEANING = auto()
    OVER = auto()


class Race(Process[Status]):
    status: Status = Status.TICKING
    log: list[tuple[int, str]] = []  # the version and status that each commit with data stood on


def until_beat(id: str) -> float:
    """Seconds until the next beat of this process."""
    phase = crc32(id.encode()) % 1000 / 1000 * BEAT_S
    return BEAT_S - (time.monotonic() - phase) % BEAT_S


def write_down(race: Race, ctx: Context) -> None:
    race.log.append((ctx.record.version, ctx.record.status))


def is_enough() -> bool:
    return (ledger.BOOKS.folder / ENOUGH).exists()


async def tick(race: Race, ctx: Context) -> Literal[Status.TOCKING, Status.OVER]:
    with ledger.effect(ctx):
        await asyncio.sleep(until_beat(race.id))
    write_down(race, ctx)
    return Status.OVER if is_enough() else Status.TOCKING


async def tock(race: Race, ctx: Context) -> Literal[Status.TICKING, Status.WAITING, Status.FAILING]:
    with ledger.effect(ctx):
        await asyncio.sleep(until_beat(race.id))
    write_down(race, ctx)
    return random.choice((Status.TICKING, Status.WAITING, Status.FAILING, Status.FAILING))


async def wait(race: Race, ctx: Context) -> Literal[Status.WAITING, Status.TICKING]:
    with ledger.effect(ctx):
        pass
    write_down(race, ctx)
    return Status.TICKING if ctx.record.polls else Status.WAITING


async def fail(race: Race, ctx: Context) -> Literal[Status.TICKING]:
    with ledger.effect(ctx):
        await asyncio.sleep(until_beat(race.id))
    if is_enough() or random.random() < 0.2:
        write_down(race, ctx)
        return Status.TICKING
    raise random.choice((ledger.Planned, Unrecoverable))("it has to")


async def clean(race: Race, ctx: Context) -> Literal[Status.OVER]:
    with ledger.effect(ctx):
        pass
    write_down(race, ctx)
    return Status.OVER


# Attempts enough for those that are cut off again and again; what fails for good does so by its own word.
PATIENT = Retry(attempts=1_000, first=2 * BEAT_S, longest=2 * BEAT_S)
FLOW = Flow(
    Race,
    {
        Status.TICKING: stage(tick, retry=PATIENT),
        Status.TOCKING: stage(tock, retry=PATIENT),
        Status.WAITING: stage(wait, retry=PATIENT, every=Every(2 * BEAT_S)),
        Status.FAILING: stage(fail, retry=PATIENT),
        Status.CLEANING: stage(clean, retry=PATIENT),
        Status.OVER: END,
    },
    on_cancel=Status.CLEANING,
)


# -- the roles of those who act ------------------------------------------------------------------------------------


async def operate(one: Onward, order: dict[str, Any]) -> None:
    """So many `people` act, `acts` times in all, each on one of `number` processes after another. What is over is begun anew.

    The book `acts` has a line for each: who, what, on which process, the version that was seen or None, and what came of it:
    "done" with version, epoch, status and condition, or the error and its words. Once it is enough nobody acts any more.
    """
    numbers = iter(range(order["acts"]))
    draw = random.Random(order["seed"])
    lives = [0] * order["number"]  # of each process: all who act make the same ones

    async def go_on() -> None:
        for number in numbers:
            if is_enough():
                break
            index = draw.randrange(len(lives))
            if number % NOBODY_EVERY == 0:
                await _act(one, number, "wake", NOBODY, None)
                continue
            record = await _living(one, index, lives)
            verbs = FITTING.get(record.condition) if draw.random() < FITTING_SHARE else None
            verb = draw.choice(verbs or list(KINDS))
            await asyncio.sleep(max(0.0, until_beat(record.id) + draw.uniform(-NEAR_S, NEAR_S)))
            await _act(one, number, verb, record.id, record.version if draw.random() < 0.5 else None)

    await asyncio.gather(*(go_on() for _ in range(order["people"])))


async def _living(one: Onward, index: int, lives: list[int]) -> Record:
    while True:
        id = f"race-{index}-{lives[index]}"
        try:
            record = await one.start(Race(id=id))
        except StoreError:  # nothing was acknowledged, and whoever asks again makes no second one
            await asyncio.sleep(BEAT_S)
            continue
        ledger.BOOKS.note("started", id)
        if record.condition not in OVER:
            return record
        lives[index] += 1


async def _act(one: Onward, number: int, verb: str, id: str, seen: int | None) -> None:
    who = f"{ledger.BOOKS.boot}/{number}"
    try:
        record = await getattr(one, verb)(id, version=seen, actor=who)
    except (Conflict, Refused, NotFound) as error:
        ledger.BOOKS.note("acts", who, verb, id, seen, type(error).__name__, str(error))
    except StoreError as error:
        ledger.BOOKS.note("acts", who, verb, id, seen, NOBODY_KNOWS, str(error))
    else:
        about = record.version, record.epoch, record.status, record.condition
        ledger.BOOKS.note("acts", who, verb, id, seen, "done", *about)


async def close(one: Onward, order: dict[str, Any]) -> None:
    """Retries and resumes what waits for a person, until all races are over."""
    (Path(order["folder"]) / ENOUGH).touch()
    while not all(count.condition in OVER for count in await one.counts() if count.flow == FLOW.name):
        for condition, verb in (("failed", "retry"), ("paused", "resume")):
            for record in await one.find(flow=FLOW.name, condition=condition, limit=1_000):
                await getattr(one, verb)(record.id, actor=CLOSER)
        await asyncio.sleep(BEAT_S)
