"""The flow with what stands in it right now: in each box how many processes, in which conditions, and since when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from html import escape
from typing import Any

from onward.explain import length
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
    bar_mark,
    drawn,
    icon,
    kinds,
    loop_words,
    said_of,
    stroke_mark,
    undeclared,
)
from onward.graph.words import WHY, plain, sentence
from onward.process import Condition

PART_LEAST = 3.0  # px: one failed process among ten thousand is still seen
FIGURE = 9.4  # the advance of a 16 px digit
HIGH = 50.0
COUNT = 7.0  # of a 12 px digit

# In this order stand the parts of a bar.
ORDER = (
    Condition.RUNNING, Condition.READY, Condition.WAITING, Condition.RETRYING, Condition.FAILED, Condition.PAUSED,
    Condition.ORPHANED, Condition.FINISHED, Condition.CANCELLED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at one status: so many processes in each condition, the oldest of them since so long."""

    counts: Mapping[Condition, int] = field(default_factory=dict)
    oldest: timedelta | None = None
    at_least: bool = False  # the counting ended early: there may be more

    @property
    def number(self) -> int:
        return sum(self.counts.values())

    def said(self) -> str:
        return f"{self.number:,}" + ("+" if self.at_least else "")


NOBODY = Standing()


def picture(
    flow: Flow[Any],
    standing: Mapping[str, Standing],
    *,
    link: Callable[[str], str],
    seen: Collection[tuple[str, str]] = (),
    down: bool = False,
) -> str:
    """Inline SVG, each status a link. "" where the flow has too many statuses for a picture.

    `seen` are pairs of statuses that processes went between: what the table does not declare is drawn as such.
    A status that the table does not have gets a box as well where processes stand at it.
    """
    strangers = [status for status, here in standing.items() if status not in flow.stages and here.number]
    statuses = [*flow.statuses, *strangers]
    here = {status: standing.get(status, NOBODY) for status in statuses}
    lines = dict(_lines(flow, seen, statuses))
    sheet = Sheet(
        flow=flow,
        told=f"The flow {plain(flow.name)} and how many processes stand at each of its statuses",
        cards=[_card(flow, status, here[status], link(status)) for status in statuses],
        lines=lines,
        high=HIGH,
        legend=list(_legend(flow, lines, here)),
        down=down,
    )
    return drawn(sheet)


def _lines(flow: Flow[Any], seen: Collection[tuple[str, str]], statuses: Collection[str]) -> Iterator[tuple[Edge, Line]]:
    """Cancelling leads from everywhere to one status: a line of the legend says so, instead of an arrow from every box."""
    for edge in flow.edges():
        if edge.why != "on_cancel":
            label = loop_words(flow, edge.source) if edge.source == edge.target else ""
            yield edge, Line(edge.why, sentence(flow, edge), label)
    for edge in undeclared(flow, seen, statuses):
        told = f"processes went from {plain(edge.source)} to {plain(edge.target)}, which the table does not declare"
        yield edge, Line(UNDECLARED, told, UNDECLARED)


# -- one box ----------------------------------------------------------------------------------------------------


def _card(flow: Flow[Any], status: str, here: Standing, href: str) -> Card:
    known = status in flow.stages
    over = known and flow.is_end(status)
    return Card(
        status=status,
        look=" ".join(("" if here.number else "empty", "" if known else "unknown")).strip(),
        told=_told(status, here, over),
        hover=_hover(flow, status, here),
        room=lambda tight: _least(here, tight),
        body=lambda width, top: _body(here, width, top, over),
        href=href,
    )


def _told(status: str, here: Standing, over: bool) -> str:
    """'poll_responses: 124 processes, oldest 4 min 12 s, 3 failed'"""
    failed = here.counts.get(Condition.FAILED, 0)
    parts = [f"{here.said()} process" + ("" if here.number == 1 else "es")]
    if here.oldest is not None and here.number and not over:
        parts.append(f"oldest {length(here.oldest)}")
    if failed:
        parts.append(f"{failed:,} failed")
    return f"{plain(status)}: {', '.join(parts)}"


def _hover(flow: Flow[Any], status: str, here: Standing) -> str:
    known = status in flow.stages
    parts = [f"{here.counts[condition]:,} {condition}" for condition in ORDER if here.counts.get(condition)]
    if here.oldest is not None and here.number and not (known and flow.is_end(status)):
        parts.append(f"the oldest for {length(here.oldest)}")
    return "\n".join(filter(None, (said_of(flow, status), ", ".join(parts))))


def _least(here: Standing, tight: bool) -> float:
    failed = here.counts.get(Condition.FAILED, 0)
    mark = 12 + _mark_width(failed, words=not tight) if failed else 0
    return max(len(here.said()) * FIGURE + mark, len(_oldest(here, tight)) * SMALL)


def _body(here: Standing, width: float, top: float, over: bool) -> str:
    inner = width - 2 * PAD
    parts = [f'<text class="figure" x="{px(PAD)}" y="{px(top + 19)}">{here.said()}</text>']
    if failed := here.counts.get(Condition.FAILED, 0):
        words = len(here.said()) * FIGURE + 12 + _mark_width(failed, words=True) <= inner
        parts.append(_mark(failed, words, width - PAD, top + 5))
    if not over and (oldest := _oldest(here, tight=len(_oldest(here, False)) * SMALL > inner)):
        parts.append(f'<text class="note" x="{px(PAD)}" y="{px(top + 34)}">{escape(oldest)}</text>')
    return "".join([*parts, *_bar(here, inner, top + 41)])


def _mark(failed: int, words: bool, right: float, y: float) -> str:
    """What nobody shall miss: a cross, the number, and the word for it where there is room."""
    wide = _mark_width(failed, words)
    x, said = right - wide, f"{failed:,} failed" if words else f"{failed:,}"
    back = f'<rect class="mark" x="{px(x)}" y="{px(y)}" width="{px(wide)}" height="17" rx="8.5"/>'
    text = f'<text class="failures" x="{px(x + 18)}" y="{px(y + 12.5)}">{said}</text>'
    return f"{back}{icon('failed', x + 5, y + 3, 11)}{text}"


def _mark_width(failed: int, words: bool) -> float:
    return 25 + len(f"{failed:,}") * COUNT + (len(" failed") * SMALL if words else 0)


def _oldest(here: Standing, tight: bool) -> str:
    """'oldest 4 min 12 s', or where room is scarce 'oldest 4 min'."""
    if here.oldest is None or not here.number:
        return ""
    words = length(here.oldest).split()
    return " ".join(["oldest", *(words[:2] if tight else words)])


def _bar(here: Standing, width: float, y: float) -> Iterator[str]:
    there = [(condition, here.counts[condition]) for condition in ORDER if here.counts.get(condition)]
    if not there:
        return
    gaps = len(there) - 1.0
    left = width - gaps - PART_LEAST * len(there)
    x = PAD
    for condition, number in there:
        wide = PART_LEAST + left * number / here.number
        yield f'<rect class="part {condition}" x="{px(x)}" y="{px(y)}" width="{px(wide)}" height="5" rx="1.5"/>'
        x += wide + 1


def _legend(flow: Flow[Any], lines: Mapping[Edge, Line], here: Mapping[str, Standing]) -> Iterator[Mark]:
    there = kinds(lines, lines)
    if there != [""]:
        yield from (stroke_mark(why, WHY[why]) for why in there)
    if any(line.look == UNDECLARED for line in lines.values()):
        yield stroke_mark(UNDECLARED, "seen, but not in the table")
    if flow.on_cancel is not None:
        yield stroke_mark("on_cancel", f"cancelled: goes on at {plain(flow.on_cancel)}")
    for condition in ORDER:
        if any(one.counts.get(condition) for one in here.values()):
            yield bar_mark(condition, condition)
