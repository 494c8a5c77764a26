"""How long a process can take at most, from what stands in the table: attempts, timeouts, pauses, polls and deadlines.

A bound is from the start of a stage until it is left, or until its process waits for a person as *failed*. It counts what the
table says and nothing else: see `ASSUMED`. Where the table says nothing, the bound is infinite and a warning says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onward.decide import MOVES_MAX, SETTLE
from onward.flow import JITTER, Flow, Retry, Stage

WAYS_MAX = 10  # as many ways are named, the longest first; all of them count

ASSUMED = (
    "a worker is free whenever the process is due, and none dies (each death costs a lease and counts as an attempt)",
    "the store is not in trouble",
    "handlers end when they are cut off, and raise no RetryAfter (that adds its delay, up to the deadline of the stage)",
    "nobody acts on the process",
)


@dataclass(frozen=True, slots=True)
class StageBound:
    """One line of the table. `at_most_s`: one visit; `to_rest_s`: from its entry until the process rests. Both may be infinite.

    `then` is where it goes when its attempts or its time are used up, '' where it fails and waits for a person.
    """

    statuses: tuple[str, ...]
    handler: str
    attempts: int
    attempt_s: float
    at_most_s: float
    to_rest_s: float
    then: str


@dataclass(frozen=True, slots=True)
class Way:
    """A way from the start to an end, stage by stage. A circle of several stages is one step of it, in brackets."""

    steps: tuple[str, ...]
    at_most_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """`at_most_s`: from the start until the process rests. `cancel_s`: from a cancel until its clean-up is over; None: none."""

    at_most_s: float
    cancel_s: float | None
    stages: tuple[StageBound, ...]
    ways: tuple[Way, ...]
    ways_in_all: int
    warnings: tuple[str, ...]


def bounds(flow: Flow[Any]) -> Bounds:
    """The longest that each stage and each way of the flow can take."""
    plan = _Plan(flow)
    start = plan.place[flow.start]
    longest = plan.longest_ways()
    return Bounds(
        at_most_s=longest[start][0][0],
        cancel_s=None if flow.on_cancel is None else _cancel_s(flow, longest[plan.place[flow.on_cancel]][0][0]),
        stages=tuple(_stages(plan, longest)),
        ways=tuple(Way(plan.named(way), total) for total, way in longest[start]),
        ways_in_all=plan.number_of_ways()[start],
        warnings=tuple(_warnings(plan)),
    )


def _cancel_s(flow: Flow[Any], to_rest_s: float) -> float:
    """A clean-up begins a moment after the cancel, see `decide.cancel`."""
    return 0.0 if flow.on_cancel is None or flow.is_end(flow.on_cancel) else SETTLE.total_seconds() + to_rest_s


# -- one stage ----------------------------------------------------------------------------------------------------


def visit_s(line: Stage[Any]) -> float:
    """From its entry until it is left or has failed; infinite for a poll that no deadline ends."""
    tries = math.inf if line.every is not None else line.retry.attempts * line.limit_s + pauses_s(line.retry)
    return tries if line.within is None else min(tries, line.within.total_seconds())


def pauses_s(retry: Retry) -> float:
    """All pauses between its attempts together, each as long as its jitter can make it."""
    total, left, pause = 0.0, retry.attempts - 1, retry.first
    while left and 0 < pause < retry.longest:
        total, left, pause = total + pause, left - 1, pause * 2
    return (total + left * min(pause, retry.longest)) * (1 + JITTER)


def may_wait(line: Stage[Any]) -> bool:
    """Whether a visit of it may have a pause, after which the guard against spinning counts from nought."""
    return line.every is not None or (line.retry.attempts > 1 and line.retry.first > 0)


# -- the graph of stages ------------------------------------------------------------------------------------------

_Ways = list[tuple[float, "_Link"]]
_Link = tuple[int, Any]  # a place, and the link after it, or None


class _Plan:
    """The lines of the table and its ends, put together into `places` where a circle joins them: so there is no circle of places.

    A line is one place for all its statuses: between them nothing happens but polls, which its own bound has.
    """

    def __init__(self, flow: Flow[Any]) -> None:
        self.flow = flow
        lead = _leads(flow)
        # A cancel is a person's doing; every other way counts.
        self.edges = [edge for edge in flow.edges() if edge.why != "on_cancel" and lead[edge.source] != lead[edge.target]]
        follow: dict[str, list[str]] = {one: [] for one in lead.values()}
        for edge in self.edges:
            follow[lead[edge.source]].append(lead[edge.target])
        self.places = _joined(follow)  # of leads; whoever follows stands behind
        number = {one: place for place, leads in enumerate(self.places) for one in leads}
        self.place = {status: number[one] for status, one in lead.items()}
        self.after: list[list[int]] = [
            sorted({number[two] for one in leads for two in follow[one]} - {place}) for place, leads in enumerate(self.places)
        ]

    def lines(self, place: int) -> list[Stage[Any]]:
        return [line for line in (self.flow.stages[lead] for lead in self.places[place]) if line is not None]

    def is_circle(self, place: int) -> bool:
        return len(self.places[place]) > 1

    def may_wait(self, place: int) -> bool:
        return any(map(may_wait, self.lines(place)))

    def cost_s(self, place: int) -> float:
        """Of being there, until it is left for another place or the process rests."""
        longest = max(map(visit_s, self.lines(place)), default=0.0)
        if not self.is_circle(place):
            return longest
        return math.inf if self.may_wait(place) else longest * (MOVES_MAX + 1)

    def longest_ways(self) -> list[_Ways]:
        """From each place the longest ways to an end, the longest first."""
        found: list[_Ways] = [[] for _ in self.places]
        for place in reversed(range(len(self.places))):
            cost = self.cost_s(place)
            ways: _Ways = [(cost + total, (place, way)) for after in self.after[place] for total, way in found[after]]
            found[place] = sorted(ways, key=lambda one: -one[0])[:WAYS_MAX] or [(cost, (place, None))]
        return found

    def number_of_ways(self) -> list[int]:
        numbers = [0] * len(self.places)
        for place in reversed(range(len(self.places))):
            numbers[place] = sum(numbers[after] for after in self.after[place]) or 1
        return numbers

    def named(self, way: _Link | None) -> tuple[str, ...]:
        """Each place by the statuses at which it is entered from the one before it."""
        names: list[str] = []
        before: int | None = None
        while way is not None:
            place, way = way
            names.append(self._name(before, place))
            before = place
        return tuple(names)

    def _name(self, before: int | None, place: int) -> str:
        if self.is_circle(place):
            return f"({' ⇄ '.join(self.statuses(place))})"
        if before is None:
            return self.flow.start
        entered = {e.target for e in self.edges if self.place[e.source] == before and self.place[e.target] == place}
        return "/".join(status for status in self.statuses(place) if status in entered)

    def statuses(self, place: int) -> list[str]:
        return [status for status in self.flow.stages if self.place[status] == place]


def _leads(flow: Flow[Any]) -> dict[str, str]:
    """For each status the first one of its line; an end is its own."""
    first: dict[int, str] = {}
    return {status: status if line is None else first.setdefault(id(line), status) for status, line in flow.stages.items()}


def _joined(follow: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The strongly connected components, in an order in which edges lead to later ones only. After Kosaraju."""
    against: dict[str, list[str]] = {one: [] for one in follow}
    for one, targets in follow.items():
        for target in targets:
            against[target].append(one)
    seen: set[str] = set()
    late = [one for start in follow for one in _walked(start, follow, seen)]
    seen.clear()
    order = {one: number for number, one in enumerate(follow)}
    parts = (list(_walked(start, against, seen)) for start in reversed(late))
    return [sorted(part, key=order.__getitem__) for part in parts if part]


def _walked(start: str, follow: Mapping[str, Sequence[str]], seen: set[str]) -> Iterator[str]:
    """Depth first from `start`, each when all that follow it are done; what was seen before is left out."""
    if start in seen:
        return
    seen.add(start)
    todo: list[tuple[str, Iterator[str]]] = [(start, iter(follow[start]))]
    while todo:
        one, targets = todo[-1]
        target = next((target for target in targets if target not in seen), None)
        if target is None:
            todo.pop()
            yield one
        else:
            seen.add(target)
            todo.append((target, iter(follow[target])))


# -- what is said of it -------------------------------------------------------------------------------------------


def _stages(plan: _Plan, longest: list[_Ways]) -> Iterator[StageBound]:
    flow = plan.flow
    for statuses, line in _lines(flow):
        # Where it has both, either may happen: its time is over, or its attempts are.
        then = dict.fromkeys(one.value for one in (line.otherwise, line.on_failure) if one is not None)
        yield StageBound(
            statuses=statuses,
            handler=line.name,
            attempts=line.retry.attempts,
            attempt_s=line.limit_s,
            at_most_s=visit_s(line),
            to_rest_s=longest[plan.place[statuses[0]]][0][0],
            then=", ".join(then),
        )


def _lines(flow: Flow[Any]) -> Iterable[tuple[tuple[str, ...], Stage[Any]]]:
    found: dict[str, list[str]] = {}
    for status, lead in _leads(flow).items():
        found.setdefault(lead, []).append(status)
    for lead, statuses in found.items():
        line = flow.stages[lead]
        if line is not None:
            yield tuple(statuses), line


def _warnings(plan: _Plan) -> Iterator[str]:
    flow = plan.flow
    for statuses, line in _lines(flow):
        if math.isinf(visit_s(line)):
            yield (
                f"{flow.name}: {line.name} at {', '.join(statuses)} has no bound: it may say 'not yet' for ever: "
                "give it within= and otherwise="
            )
    for place in range(len(plan.places)):
        if plan.is_circle(place):
            yield f"{flow.name}: the circle of {', '.join(plan.statuses(place))} {_said_of_circle(plan, place)}"


def _said_of_circle(plan: _Plan, place: int) -> str:
    if plan.may_wait(place):
        return "has no bound: it may come round for ever, waiting on its way: have a handler count the rounds, and leave"
    return f"is bounded only by the guard against spinning: after {MOVES_MAX:,} transitions without a wait it has failed"
