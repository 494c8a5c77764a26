"""Numbers of a store for people: how many processes of each flow are in which condition, and how fast they come and go."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from onward.control import Control
from onward.ports import Count
from onward.process import OVER, Condition
from onward.query import Term, pieces

SAMPLE_MAX = 500  # processes of each flow: the newest that were started, and the newest that finished
LOOKS_MAX = 10_000  # rows that are looked at to find them
WINDOW = timedelta(hours=1)  # rates are of that time, or of less where the sample does not reach so far back


@dataclass(frozen=True)
class Rate:
    """`number` of something in the last `within`."""

    number: int
    within: timedelta

    @property
    def per_minute(self) -> float:
        return 60 * self.number / max(self.within.total_seconds(), 1.0)


@dataclass
class FlowStats:
    """`took`: how long half of those that finished lately took, from their start to their end; None if none did."""

    flow: str
    conditions: Counter[Condition] = field(default_factory=Counter)
    started: Rate = Rate(0, WINDOW)
    finished: Rate = Rate(0, WINDOW)
    took: timedelta | None = None

    @property
    def number(self) -> int:
        return self.conditions.total()

    @property
    def active(self) -> int:
        """Those that are not over."""
        return sum(number for condition, number in self.conditions.items() if condition not in OVER)


async def stats(app: Control) -> list[FlowStats]:
    """Of the flows that this code knows, in its order, and then of others that are stored."""
    found = by_flow(await app.counts(), app.flows)
    for one in found:
        if one.number:
            await _add_rates(app, one)
    return found


def by_flow(counts: Iterable[Count], flows: Iterable[str]) -> list[FlowStats]:
    found = {name: FlowStats(name) for name in flows}
    for count in counts:
        found.setdefault(count.flow, FlowStats(count.flow)).conditions[count.condition] += count.number
    return list(found.values())


async def _add_rates(app: Control, one: FlowStats) -> None:
    started = await app.find(flow=one.flow, limit=SAMPLE_MAX, light=True, looks=LOOKS_MAX)
    finished = await app.find(flow=one.flow, condition=Condition.FINISHED, limit=SAMPLE_MAX, light=True, looks=LOOKS_MAX)
    if started:
        one.started = rate([record.created_at for record in started], started[0].as_of)
    if finished:
        one.finished = rate([record.updated_at for record in finished], finished[0].as_of)
        seconds = statistics.median((record.updated_at - record.created_at).total_seconds() for record in finished)
        one.took = timedelta(seconds=seconds)


def rate(instants: Sequence[datetime], as_of: datetime) -> Rate:
    """How often in the last WINDOW; where a whole sample lies within that, in the time that it covers."""
    recent = [at for at in instants if as_of - at <= WINDOW]
    covers_all = len(instants) < SAMPLE_MAX or len(recent) < len(instants)
    return Rate(len(recent), WINDOW if covers_all else as_of - min(recent))


def shape(one: FlowStats) -> dict[str, Any]:
    """One flow of `onward.stats/1`."""
    return {
        "flow": one.flow,
        "number": one.number,
        "active": one.active,
        "conditions": {str(condition): one.conditions[condition] for condition in Condition},
        "started_per_minute": round(one.started.per_minute, 3),
        "finished_per_minute": round(one.finished.per_minute, 3),
        "took_s": None if one.took is None else round(one.took.total_seconds(), 3),
    }


def told_by_counts(terms: Iterable[Term]) -> bool:
    """Whether the counts of a store tell how many match: they know of flow, status and condition, and of nothing else."""
    return all(term.qualifier in ("is", "status", "flow") for term in terms)


def of_counts(terms: Sequence[Term], counts: Iterable[Count]) -> list[Count]:
    """Those that match, where `told_by_counts`."""
    return [count for count in counts if all(_holds(term, count) != term.negated for term in terms)]


def _holds(term: Term, count: Count) -> bool:
    if term.qualifier == "is":
        return count.condition in term.conditions
    text = count.status if term.qualifier == "status" else count.flow
    return any(re.fullmatch(".*".join(map(re.escape, pieces(value))), text, re.DOTALL) for value in term.values)
