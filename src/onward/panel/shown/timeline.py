"""The timeline of a process: a row for each attempt and each act of a person, with a bar on an axis that all rows share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from onward.explain import length
from onward.panel.shown.trouble import error_parts
from onward.process import OVER, Condition, Entry, Record
from onward.telling import shapes
from onward.telling.story import Line, folded, took
from onward.telling.text import one_line

AXIS = 1_000  # units from the left end to the right one
BAR_MIN = 12  # units: what took a moment is still to be seen
WAITS_TIMES = 1.5  # as much longer than all work may all waits be drawn
SAVED = "saved"

# For each kind of entry: what it says, and the colour of which condition it has.
WORDS = {
    "started": ("started", "person"),
    "started by hand": ("started by hand", "person"),
    "forked": ("forked from another process", "person"),
    "moved": ("done", "finished"),
    "not yet": ("not yet", "waiting"),
    SAVED: ("saved its data", "running"),
    "retry": ("failed", "retrying"),
    "rolled back": ("rolled back by the database, runs again", "retrying"),
    "gave up": ("gave up", "failed"),
    "deadline": ("ran out of time", "failed"),
    "failed": ("failed: waits for a person", "failed"),
    "woken": ("woken", "person"),
    "retried": ("retried", "person"),
    "paused": ("paused", "person"),
    "resumed": ("resumed", "person"),
    "cancelled": ("cancelled", "person"),
    "stopped": ("stopped", "person"),
    "edited": ("data edited", "person"),
    "moved by hand": ("moved by hand", "person"),
    "deleted": ("deleted", "person"),
}
_NUMBERED = {"retry", "failed", "rolled back"}  # these say which attempt it was
_TROUBLE = {"retry", "failed", "gave up", "deadline", "rolled back"}  # the reason of these is an error


@dataclass(frozen=True)
class Row:
    """One row, before it is drawn: a line of the story, and from when to when its work went on."""

    line: Line
    began: datetime
    ended: datetime

    @property
    def first(self) -> int:
        """The version of its first entry."""
        return self.line.entry.version - self.line.times + 1


def rows_of(entries: Sequence[Entry]) -> list[Row]:
    """The rows of entries that follow each other, oldest first."""
    began = {entry.version: entry.at - timedelta(seconds=entry.took or 0) for entry in entries}
    rows = []
    for line in _without_runs_of_saves(folded(entries)):
        first = line.entry.version - line.times + 1
        rows.append(Row(line, min(began[first], line.entry.at), line.entry.at))
    return rows


def _without_runs_of_saves(lines: Iterable[Line]) -> list[Line]:
    """A handler that saves after each of its items would else fill the page."""
    kept: list[Line] = []
    for line in lines:
        last = kept[-1] if kept else None
        alike = last is not None and last.entry.kind == line.entry.kind == SAVED
        if last is not None and alike and last.entry.transition == line.entry.transition:
            kept[-1] = Line(line.entry, last.times + line.times)
        else:
            kept.append(line)
    return kept


def told(rows: Sequence[Row], record: Record | None) -> dict[str, Any]:
    """The rows as facts, newest first. With a `record` the axis reaches until now, and what it does now is a bar as well."""
    spans = [(row.began, row.ended) for row in rows]
    now = [] if record is None or not rows else _now_spans(record, rows[-1].ended)
    axis = Axis([*spans, *now])
    facts = [_row(row, before, after, axis) for before, row, after in zip([None, *rows], rows, [*rows[1:], None], strict=False)]
    return {
        "rows": facts[::-1],
        "now": axis.bar(rows[-1].ended, now[0][1]) if now else None,
        "is_cut": axis.is_cut,
        "starts": None if not spans else shapes.instant(axis.starts),
        "ends": None if not spans else shapes.instant(axis.ends),
        "spans": None if not spans else length(axis.ends - axis.starts),
    }


def _now_spans(record: Record, last: datetime) -> list[tuple[datetime, datetime]]:
    """What goes on at this moment is work where it runs, and else a wait that has not ended. Where it is over, nothing does."""
    if record.condition in OVER or record.as_of <= last:
        return []
    return [(last if record.condition is Condition.RUNNING else record.as_of, record.as_of)]


def _row(row: Row, before: Row | None, after: Row | None, axis: Axis) -> dict[str, Any]:
    entry, times = row.line.entry, row.line.times
    words, tone = WORDS.get(entry.kind, (one_line(entry.kind), "person"))
    waited = None if before is None else max(row.began - before.ended, timedelta(0))
    return {
        **shapes.entry(entry),
        "times": times,
        "first_version": row.first,
        "began": shapes.instant(row.began),
        "words": f"attempt {entry.attempt} {words}" if entry.kind in _NUMBERED and entry.attempt and times == 1 else words,
        "tone": tone,
        "stage": entry.from_status or entry.to_status,
        "moved": entry.from_status not in (None, entry.to_status),
        "took": took(entry.took) if times == 1 else length(row.ended - row.began),
        "waited": None if not waited else length(waited),
        "error": error_parts(entry.reason) if entry.reason and entry.kind in _TROUBLE else None,
        "again": after is not None and _fails_alike(entry, after.line.entry),
        "by_person": tone == "person",
        "bar": axis.bar(row.began, row.ended),
        "wait": None if before is None or not waited else axis.line(before.ended, row.began),
    }


def _fails_alike(entry: Entry, later: Entry) -> bool:
    """Whether the entry after it, which stands above it, says the same error."""
    return entry.reason == later.reason and {entry.kind, later.kind} <= _TROUBLE


class Axis:
    """Instants on a line of AXIS units. Where waits are far longer than work they are drawn shorter: a wait of a day beside
    one of an hour is still the longer one, but leaves room for the work between them.
    """

    def __init__(self, spans: Sequence[tuple[datetime, datetime]]) -> None:
        busy = _merged(spans)
        self.knots: list[tuple[datetime, float]] = []  # instants, and how much is drawn before them
        self.is_cut = False
        if not busy:
            return
        self.starts, self.ends = busy[0][0], busy[-1][1]
        work = sum(_seconds(start, end) for start, end in busy)
        waits = [_seconds(before[1], after[0]) for before, after in pairwise(busy)]
        self.is_cut = sum(waits) > WAITS_TIMES * work
        self._lay(busy, waits, _shortened(waits, work) if self.is_cut else waits)

    def _lay(self, busy: Sequence[tuple[datetime, datetime]], waits: Sequence[float], drawn: Sequence[float]) -> None:
        place = 0.0
        for (start, end), wait in zip(busy, [0.0, *drawn], strict=True):
            place += wait
            self.knots.append((start, place))
            place += _seconds(start, end)
            self.knots.append((end, place))
        self.scale = AXIS / place if place else 0.0

    def at(self, instant: datetime) -> float:
        """The place of an instant, in units."""
        before = self.knots[0]
        for knot in self.knots:
            if knot[0] >= instant:
                span = (knot[0] - before[0]).total_seconds()
                part = (instant - before[0]).total_seconds() / span if span else 1.0
                return (before[1] + (knot[1] - before[1]) * max(part, 0.0)) * self.scale
            before = knot
        return before[1] * self.scale

    def bar(self, start: datetime, end: datetime) -> dict[str, int]:
        x, to = self.at(start), self.at(end)
        width = max(to - x, BAR_MIN)
        return {"x": round(min(x, AXIS - width)), "width": round(width)}

    def line(self, start: datetime, end: datetime) -> dict[str, int]:
        x, to = self.at(start), self.at(end)
        return {"x": round(x), "width": round(max(to - x, 0))}


def _shortened(waits: Sequence[float], work: float) -> list[float]:
    """As they are drawn: all together WAITS_TIMES as long as the work, shared out by their square roots."""
    roots = [wait**0.5 for wait in waits]
    unit = WAITS_TIMES * (work or 1.0) / sum(roots)
    return [root * unit for root in roots]


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def _merged(spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
