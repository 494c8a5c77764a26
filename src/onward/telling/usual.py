"""How long processes of a flow usually are in a stage, as the histories of those that finished last tell it."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from onward.control import Control
from onward.flow import Flow
from onward.process import Condition, Entry

PROCESSES_MAX = 200  # whose histories are read
LOOKS_MAX = 10_000  # rows that are looked at to find as many
ENTRIES_MAX = 300  # of one history: who polls for longer than that tells nothing
SAMPLES_MIN = 20  # fewer say nothing of what is usual
SHARE = 0.99  # so many of the samples took no longer
AT_ONCE = 8  # histories that are read side by side

AGAIN = frozenset({"retried", "moved by hand"})  # here the stage's clock began anew, and a person had a hand in it


@dataclass(frozen=True)
class Usual:
    """`most` is what all but one in a hundred of the `samples` took at the longest."""

    most: timedelta
    samples: int


async def usual_times(app: Control, flow: Flow[Any]) -> Mapping[str, Usual]:
    """For each status of which enough is known. Those that share a stage share its time, as they share its deadline."""
    found = await app.find(flow=flow.name, condition=Condition.FINISHED, limit=PROCESSES_MAX, light=True, looks=LOOKS_MAX)
    gate = asyncio.Semaphore(AT_ONCE)

    async def history(id: str) -> list[Entry]:
        async with gate:
            return await app.store.history(id, limit=ENTRIES_MAX, light=True)

    histories = await asyncio.gather(*(history(record.id) for record in found))
    return usual_of(flow, histories)


def usual_of(flow: Flow[Any], histories: Iterable[Sequence[Entry]]) -> dict[str, Usual]:
    samples: dict[int, list[timedelta]] = defaultdict(list)
    for entries in histories:
        for status, took in _visits(flow, entries):
            samples[id(flow.stages[status])].append(took)
    return {
        status: Usual(_most(samples[id(line)]), len(samples[id(line)]))
        for status, line in flow.stages.items()
        if line is not None and len(samples[id(line)]) >= SAMPLES_MIN
    }


def _visits(flow: Flow[Any], entries: Sequence[Entry]) -> Iterator[tuple[str, timedelta]]:
    """The stages that a process went through and left again, each by the status at which it came in."""
    entered: Entry | None = None
    for entry in entries:
        line = flow.stages.get(entry.to_status)
        if entered is not None and line is flow.stages[entered.to_status] and entry.kind not in AGAIN:
            continue
        if entered is not None and entry.kind not in AGAIN:
            yield entered.to_status, entry.at - entered.at
        entered = entry if line is not None else None


def _most(samples: Sequence[timedelta]) -> timedelta:
    return sorted(samples)[math.ceil(SHARE * len(samples)) - 1]
