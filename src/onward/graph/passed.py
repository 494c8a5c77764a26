"""The flow as one process went through it: what is resolved, where it is now, what was not reached."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from typing import Any, Literal

from onward.explain import length, times
from onward.flow import Edge, Flow
from onward.graph.pen import px
from onward.graph.sheet import (
    PAD,
    SMALL,
    UNDECLARED,
    Card,
    Line,
    Mark,
    Sheet,
    box_mark,
    cut,
    drawn,
    icon,
    kinds,
    loop_words,
    said_of,
    stroke_mark,
    undeclared,
)
from onward.graph.words import WHY, plain, sentence
from onward.process import OVER, Condition, Entry

HIGH = 38.0
TEXT_CHARS_MAX = 24  # in one line of a box; all of it is in the title
ICON = 17.0  # the room it takes before a text

_POLL = "not yet"  # the kind of a commit that left its process where it was
_WHYS: dict[str, Literal["", "otherwise", "on_failure", "on_cancel"]] = {  # of other kinds; the rest was returned
    "deadline": "otherwise",
    "gave up": "on_failure",
    "cancelled": "on_cancel",
}


@dataclass(frozen=True, slots=True)
class Passed:
    """What a process went through: how often it came to a status, how long it was there in all, how often it went which way.

    A way from a status to itself is a "not yet" of that stage. A way that the table does not declare is named without a why.
    """

    visits: Mapping[str, int] = field(default_factory=dict)
    spent: Mapping[str, timedelta] = field(default_factory=dict)
    taken: Mapping[Edge, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Now:
    """Where a process is. `note` says what it does there; the box has room for what stands before its first comma or colon."""

    status: str
    condition: Condition
    note: str = ""


def walked(entries: Iterable[Entry], as_of: datetime) -> Passed:
    """The same from a history, oldest entry first. Time at the last status counts until `as_of`."""
    visits: dict[str, int] = {}
    spent: dict[str, timedelta] = {}
    taken: dict[Edge, int] = {}
    before: Entry | None = None

    def stayed(entry: Entry, until: datetime) -> None:
        spent[entry.to_status] = spent.get(entry.to_status, timedelta()) + max(timedelta(), until - entry.at)

    for entry in entries:
        if before is None or entry.transition != before.transition:
            visits[entry.to_status] = visits.get(entry.to_status, 0) + 1
        if before is not None:
            stayed(before, entry.at)
        if entry.from_status is not None and (entry.from_status != entry.to_status or entry.kind == _POLL):
            edge = Edge(entry.from_status, entry.to_status, _WHYS.get(entry.kind, ""))
            taken[edge] = taken.get(edge, 0) + 1
        before = entry
    if before is not None:
        stayed(before, as_of)
    return Passed(visits, spent, taken)


def path_picture(
    flow: Flow[Any], passed: Passed, now: Now, *, link: Callable[[str], str] | None = None, down: bool = False
) -> str:
    """Inline SVG. A status is a link where `link` names an address for it. "" where there are too many statuses for a picture.

    Statuses that the table does not have, or no longer, get boxes of their own.
    """
    strangers = dict.fromkeys(status for status in (*passed.visits, now.status) if status not in flow.stages)
    statuses = [*flow.statuses, *strangers]
    lines = dict(_lines(flow, passed, statuses))
    sheet = Sheet(
        flow=flow,
        told=f"The way of this process through the flow {plain(flow.name)}: now at {plain(now.status)}, {now.condition}",
        cards=[_card(flow, status, passed, now, link(status) if link else "") for status in statuses],
        lines=lines,
        high=HIGH,
        legend=list(_legend(lines)),
        down=down,
    )
    return drawn(sheet)


# -- lines ------------------------------------------------------------------------------------------------------


def _lines(flow: Flow[Any], passed: Passed, statuses: list[str]) -> Iterator[tuple[Edge, Line]]:
    """Edges of a cancel only if it was taken: else they would lead from everywhere to one status."""
    table = list(flow.edges())
    often = _by_edge(table, passed.taken)
    for edge in table:
        number = often.pop(edge, 0)
        if number or edge.why != "on_cancel":
            words = loop_words(flow, edge.source) if edge.source == edge.target else ""
            yield edge, _line(edge.why, sentence(flow, edge), number, words)
    left = {(edge.source, edge.target): number for edge, number in often.items()}
    for edge in undeclared(flow, left, statuses):
        told = f"{plain(edge.source)} led to {plain(edge.target)}, which the table does not declare"
        number = left[edge.source, edge.target]
        line = _line(UNDECLARED, told, number, "")
        yield edge, Line(line.look, line.hover, f"{UNDECLARED} {line.label}".rstrip(), taken=True)


def _by_edge(table: list[Edge], taken: Mapping[Edge, int]) -> dict[Edge, int]:
    """Under the edges of the table, as far as it knows them: a person may have moved it along one that has another why."""
    often: dict[Edge, int] = {}
    for edge, number in taken.items():
        same = [known for known in table if known[:2] == edge[:2]]
        key = edge if edge in same else same[0] if same else Edge(edge.source, edge.target)
        often[key] = often.get(key, 0) + number
    return often


def _line(look: str, told: str, often: int, words: str) -> Line:
    label = f"×{often:,}" if often > 1 or (often and words) else words
    hover = f"{told}; taken {times(often)}" if often else f"{told}; not taken"
    return Line(f"{look} {'taken' if often else 'idle'}".strip(), hover, label, taken=bool(often))


# -- one box ----------------------------------------------------------------------------------------------------


def _card(flow: Flow[Any], status: str, passed: Passed, now: Now, href: str) -> Card:
    known = status in flow.stages
    told = f"{plain(status)}: {_told(status, passed, now)}"
    return Card(
        status=status,
        look=_state(status, passed, now) + ("" if known else " unknown"),
        told=told,
        hover=f"{said_of(flow, status)}\n{_told(status, passed, now)}",
        room=lambda tight: _least(status, passed, now, tight),
        body=lambda width, top: _body(status, passed, now, width, top),
        href=href,
    )


def _state(status: str, passed: Passed, now: Now) -> str:
    return f"now {now.condition}" if status == now.status else "resolved" if passed.visits.get(status) else "unreached"


def _told(status: str, passed: Passed, now: Now) -> str:
    """'now waiting, came here 3 times, 4 min 12 s in all, looks again in 12 s'"""
    often, here = passed.visits.get(status, 0), status == now.status
    if not here and not often:
        return "not reached"
    parts = [f"now {now.condition}" if here else "resolved"]
    if often > 1:
        parts.append(f"came here {times(often)}")
    if long := _spent(status, passed, now):
        parts.append(long + (" in all" if often > 1 else ""))
    return ", ".join(parts + ([plain(now.note)] if here and now.note else []))


def _spent(status: str, passed: Passed, now: Now) -> str:
    over = status == now.status and now.condition in OVER
    if over or status not in passed.spent:
        return ""
    spent = passed.spent[status]
    return length(spent) if spent >= timedelta(seconds=1) else f"{spent / timedelta(milliseconds=1):.0f} ms"


def _texts(status: str, passed: Passed, now: Now, tight: bool) -> tuple[str, str]:
    """The two lines of a box. Where room is scarce, durations lose their smaller unit, and each thing has a line for itself."""
    often = f"×{passed.visits[status]:,}" if passed.visits.get(status, 0) > 1 else ""
    long = _spent(status, passed, now)
    if tight:
        long = " ".join(long.split()[:2])
    first, second = [often, long], ""
    if status == now.status:
        first = [str(now.condition), often, *([] if tight else [long])]
        second = re.split("[,:] ", plain(now.note))[0] or (long if tight else "")
    return cut(" · ".join(filter(None, first)), TEXT_CHARS_MAX), cut(second, TEXT_CHARS_MAX)


def _least(status: str, passed: Passed, now: Now, tight: bool) -> float:
    first, second = _texts(status, passed, now, tight)
    return max(len(first) * SMALL + ICON if first else 0, len(second) * SMALL)


def _body(status: str, passed: Passed, now: Now, width: float, top: float) -> str:
    inner = width - 2 * PAD
    tight = _least(status, passed, now, tight=False) > inner
    first, second = _texts(status, passed, now, tight)
    name = str(now.condition) if status == now.status else "finished" if passed.visits.get(status) else ""
    parts = [icon(name, PAD, top + 7)] if name else []
    if first:
        parts.append(f'<text class="note" x="{px(PAD + ICON)}" y="{px(top + 17)}">{escape(first)}</text>')
    if second:
        parts.append(f'<text class="note" x="{px(PAD)}" y="{px(top + 32)}">{escape(second)}</text>')
    return "".join(parts)


def _legend(lines: Mapping[Edge, Line]) -> Iterator[Mark]:
    yield stroke_mark("taken", "taken")
    yield stroke_mark("idle", "not taken")
    yield from (stroke_mark(why, WHY[why]) for why in kinds(lines, lines) if why)
    if any(UNDECLARED in line.look for line in lines.values()):
        yield stroke_mark(UNDECLARED, "not in the table")
    yield box_mark("now", "now")
    yield box_mark("unreached", "not reached")
