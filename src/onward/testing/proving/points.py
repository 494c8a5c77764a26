"""Where a flow can be disturbed, and how. A point has a name for people; points of one place are much the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What happens at a point."""

    KILLED = "killed"  # the worker; another takes over when its lease is over
    FROZEN = "frozen"  # the worker, until another has finished; then it goes on with what it was doing
    CANCELLED = "cancelled"  # the process, by a person
    PAUSED = "paused"  # the process, by a person, who lets it go on later
    UNREACHABLE = "unreachable"  # the store, or the service: nothing was done
    UNANSWERED = "unanswered"  # by the store, or the service: it was done, and the answer is lost


TOLD = {
    Fault.KILLED: "the worker is killed here",
    Fault.FROZEN: "the worker is frozen here, and goes on when another one has finished",
    Fault.CANCELLED: "a person cancels the process here",
    Fault.PAUSED: "a person pauses the process here, and lets it go on later",
    Fault.UNREACHABLE: "it cannot be reached here: nothing is done",
    Fault.UNANSWERED: "its answer is lost here: it is done all the same",
}


@dataclass(frozen=True)
class Moment:
    """A kind of point, in words, and what can happen there."""

    text: str
    faults: frozenset[Fault]


_PEOPLE = frozenset({Fault.CANCELLED, Fault.PAUSED})
_ANY = _PEOPLE | {Fault.KILLED}

# What a frozen worker has not sent yet it sends when it goes on, and nobody can take that back: so it is frozen only where
# what comes next is the store's, which refuses it, or the answer to what was sent.
BEFORE_HANDLER = Moment("before the handler", _ANY | {Fault.FROZEN})
BEFORE_ACT = Moment("before the act", _ANY)
BEFORE_RECORD = Moment("after the act, before its record", _ANY | {Fault.FROZEN, Fault.UNREACHABLE})
AFTER_RECORD = Moment("after its record", _ANY | {Fault.UNANSWERED})
BEFORE_SAVE = Moment("before it is committed", _ANY | {Fault.FROZEN, Fault.UNREACHABLE})
AFTER_SAVE = Moment("after it is committed", _ANY | {Fault.UNANSWERED})
BEFORE_COMMIT = Moment("before the commit", _ANY | {Fault.FROZEN, Fault.UNREACHABLE})
AFTER_COMMIT = Moment("after the commit", _ANY | {Fault.UNANSWERED})
BEFORE_REQUEST = Moment("before it is sent", _ANY | {Fault.UNREACHABLE})
AFTER_REQUEST = Moment("done, before its answer", _ANY | {Fault.FROZEN, Fault.UNANSWERED})
AFTER_ANSWER = Moment("after its answer", frozenset({Fault.CANCELLED}))
BEFORE_SYNC_REQUEST = Moment(BEFORE_REQUEST.text, frozenset({Fault.KILLED, Fault.UNREACHABLE}))
AFTER_SYNC_REQUEST = Moment(AFTER_REQUEST.text, frozenset({Fault.KILLED, Fault.UNANSWERED}))
BEFORE_CALL = Moment("before", frozenset({Fault.UNREACHABLE}))
AFTER_CALL = Moment("after", frozenset({Fault.KILLED, Fault.UNANSWERED}))


@dataclass(frozen=True)
class Point:
    """Number `number` of a run. `place` is the same for all items of a `map`, and for all looks of a poll."""

    number: int
    handler: str  # '' between the stages
    attempt: int
    what: str
    moment: Moment
    place: str

    def __str__(self) -> str:
        parts = [f"{self.handler}, attempt {self.attempt}" if self.handler else "", self.what, self.moment.text]
        return ": ".join(part for part in parts if part)


def is_like(one: Point, other: Point) -> bool:
    """Whether they are of one place."""
    return (one.handler, one.place, one.moment) == (other.handler, other.place, other.moment)


def folded(points: Iterable[Point]) -> list[Point]:
    """Of each place the first, a middle and the last."""
    places: dict[tuple[str, str, Moment], list[Point]] = {}
    for point in points:
        places.setdefault((point.handler, point.place, point.moment), []).append(point)
    chosen = {each.number: each for place in places.values() for each in (place[0], place[len(place) // 2], place[-1])}
    return sorted(chosen.values(), key=lambda point: point.number)


def key_of(point: Point, fault: Fault) -> str:
    """What `--only` takes."""
    return f"{point.number}:{fault}"
