"""The flows that are measured: eight trivial stages, and one that never rests."""

from __future__ import annotations

import time
from enum import StrEnum, auto
from typing import Literal

from onward import END, Every, Flow, Onward, Process, stage
from onward.ports import NewProcess, Observer

STAGES = 8


class Step(StrEnum):
    A, B, C, D, E, F, G, H, DONE = auto(), auto(), auto(), auto(), auto(), auto(), auto(), auto(), auto()


class Ladder(Process[Step]):
    """About 200 bytes of JSON, like a small real process."""

    status: Step = Step.A
    question: str = "Which of the stages of this process have been resolved?"
    done: int = 0
    files: dict[str, str] = {"report.md": "file-2f7c1a9be04d4c5c8a1e", "notes.md": "file-93ab77c0d1e24f6f9b3d"}
    tags: list[str] = ["bench", "ladder"]


DATA = Ladder().model_dump_json(exclude={"id", "status"})


class Began:
    at = 0.0  # when the last ladder began


async def a(p: Ladder) -> Literal[Step.B]:
    Began.at = time.perf_counter()
    p.done += 1
    return Step.B


async def b(p: Ladder) -> Literal[Step.C]:
    p.done += 1
    return Step.C


async def c(p: Ladder) -> Literal[Step.D]:
    p.done += 1
    return Step.D


async def d(p: Ladder) -> Literal[Step.E]:
    p.done += 1
    return Step.E


async def e(p: Ladder) -> Literal[Step.F]:
    p.done += 1
    return Step.F


async def f(p: Ladder) -> Literal[Step.G]:
    p.done += 1
    return Step.G


async def g(p: Ladder) -> Literal[Step.H]:
    p.done += 1
    return Step.H


async def h(p: Ladder) -> Literal[Step.DONE]:
    p.done += 1
    return Step.DONE


LADDER = Flow(Ladder, {Step.A: a, Step.B: b, Step.C: c, Step.D: d, Step.E: e, Step.F: f, Step.G: g, Step.H: h, Step.DONE: END})
KNOWN = LADDER.handled


class Turn(StrEnum):
    TICK, TOCK, OVER = auto(), auto(), auto()


class Clockwork(Process[Turn]):
    """Goes to and fro `turns` times, and waits now and then, as the spinning guard asks."""

    status: Turn = Turn.TICK
    turns: int
    waited: bool = False


async def tick(p: Clockwork) -> Literal[Turn.TOCK, Turn.OVER]:
    p.turns -= 1
    return Turn.TOCK if p.turns > 0 else Turn.OVER


async def tock(p: Clockwork) -> Literal[Turn.TICK, Turn.TOCK]:
    if p.turns % 200 == 1 and not p.waited:
        p.waited = True
        return Turn.TOCK
    p.waited = False
    p.turns -= 1
    return Turn.TICK


CLOCKWORK = Flow(Clockwork, {Turn.TICK: tick, Turn.TOCK: stage(tock, every=Every(seconds=0.001)), Turn.OVER: END})


def app(url: str, *observers: Observer) -> Onward:
    return Onward(url, flows=[LADDER, CLOCKWORK], observers=observers)


async def fill(it: Onward, number: int, prefix: str = "p") -> None:
    for begin in range(0, number, 5_000):
        ids = [f"{prefix}{n:09d}" for n in range(begin, min(begin + 5_000, number))]
        await it.store.insert([NewProcess(id, LADDER.name, Step.A, DATA) for id in ids], "bench")
