"""What a proof found: nothing, or failures, the shortest history of each first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onward.testing.proving.points import TOLD, Fault, Point, key_of

LINES_MAX = 24  # of a history are shown


@dataclass(frozen=True)
class Failure:
    """One cause, as far as can be told: what differs, and the shortest history that leads to it.

    `also` is how many other disturbances led to the same.
    """

    point: Point
    fault: Fault
    differs: tuple[str, ...]
    history: tuple[str, ...]
    repeat: str
    also: int = 0

    def __str__(self) -> str:
        more = f"\n  the same in {self.also} other run{'s' if self.also > 1 else ''}" if self.also else ""
        return (
            f"{self.point}: {TOLD[self.fault]}\n"
            + "".join(f"  ! {text}\n" for text in self.differs)
            + "".join(f"    {line}\n" for line in shown(self.history))
            + f"  to repeat it: {self.repeat}{more}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "point": str(self.point),
            "key": key_of(self.point, self.fault),
            "handler": self.point.handler,
            "fault": str(self.fault),
            "differs": list(self.differs),
            "history": list(self.history),
            "repeat": self.repeat,
            "also": self.also,
        }


@dataclass(frozen=True)
class Proof:
    """`points` are those of the undisturbed run, `tried` how many of them were disturbed, in so many `runs`."""

    flow: str
    points: Sequence[Point]
    tried: int
    runs: int
    failures: Sequence[Failure]

    @property
    def is_clean(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        head = f"{self.flow}: {len(self.points):,} points, {self.tried:,} of them disturbed in {self.runs:,} runs"
        if self.is_clean:
            return f"{head}: it always ended as if nothing had happened"
        count = len(self.failures)
        return "\n\n".join([f"{head}: {count} failure{'s' if count > 1 else ''}", *map(str, self.failures)])

    def assert_clean(self) -> None:
        """Raises AssertionError with all that was found, as text to be read."""
        if self.failures:
            raise AssertionError(f"\n{self}")

    def to_json(self) -> dict[str, Any]:
        return {
            "flow": self.flow,
            "points": len(self.points),
            "tried": self.tried,
            "runs": self.runs,
            "failures": [failure.to_json() for failure in self.failures],
            "ok": self.is_clean,
        }


def cause(failure: Failure) -> str:
    """What differs, but for its numbers: what two failures of one cause have in common."""
    return re.sub(r"\d+", "", "\n".join(failure.differs))


def in_order(failures: Iterable[Failure]) -> list[Failure]:
    return sorted(failures, key=lambda one: (len(one.history), one.point.number))


def grouped(failures: Iterable[Failure]) -> list[Failure]:
    """One for each cause, with the shortest history of all that led to it."""
    groups: dict[str, list[Failure]] = {}
    for failure in failures:
        groups.setdefault(cause(failure), []).append(failure)
    return [replace(in_order(group)[0], also=len(group) - 1) for group in groups.values()]


def shown(history: Sequence[str]) -> Iterable[str]:
    """Its beginning, what is around the fault, and its end."""
    if len(history) <= LINES_MAX:
        return history
    hit = next((at for at, line in enumerate(history) if line.startswith(">> ")), 0)
    wanted = {0, 1, len(history) - 1, *range(max(hit - 4, 0), min(hit + LINES_MAX - 10, len(history)))}
    lines, left = [], 0
    for at, line in enumerate(history):
        if at in wanted:
            if left:
                lines.append(f"... {left} lines")
            lines.append(line)
            left = 0
        else:
            left += 1
    return lines
