"""What the two pictures of the panel have in common: boxes that tell something, lines that may have been taken, a legend.

There is no style and no id in them: they stand inside pages that allow no inline style, and two may stand on one page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil
from typing import Any

from onward.flow import Edge, Flow
from onward.graph.fold import folded
from onward.graph.layout import Box, Layout, Metrics, Point, Route, lay_out
from onward.graph.pen import arrow_tip, beside_loop, course, loop_course, px, shortened, shown, start_mark
from onward.graph.words import WHY, about, looks, plain

STATUSES_MAX = 40  # more than this nobody reads as a picture: the pages show their table
ROOMY_MAX = 1_260.0  # what is wider is set with less room and names in two rows
WIDTH_MAX = 1_400.0  # what is wider than this even so is folded
PIECES_MAX = 8  # into which it is folded
READABLE_MAX = 2_400.0  # and what is wider than this even folded has too many lines to be followed
NAME_CHARS_MAX = 24  # in one line of a box; the whole name is in its title

LETTER = 7.6  # the advance of a 12.5 px monospaced letter
SMALL = 6.1  # of an 11 px sans-serif one, on the average
NAME_LINE = 15.0
UNDECLARED = "undeclared"  # the class, and the word, of what went a way that is not in the table
PAD = 11.0
LEAST = 84.0  # for what stands in a box
MARGIN = 14.0

Names = dict[str, list[str]]  # of each status the rows in which its name is set


@dataclass(frozen=True, slots=True)
class Card:
    """The box of one status. `body(width, top)` draws what stands beneath its name, `room(tight)` is how wide that is at
    least; tight: where room is scarce.
    """

    status: str
    look: str  # its classes
    told: str  # to a screen reader
    hover: str
    room: Callable[[bool], float]
    body: Callable[[float, float], str]
    href: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """How one edge is drawn. Taken: over all of its way, also where it shares that with others."""

    look: str
    hover: str
    label: str = ""
    taken: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A line of the legend: a drawing, so wide and 12 high, and its words."""

    drawing: str
    width: float
    words: str


@dataclass(frozen=True, slots=True)
class Sheet:
    flow: Flow[Any]
    told: str
    cards: Sequence[Card]
    lines: Mapping[Edge, Line]
    high: float  # the height of a body
    legend: Sequence[Mark]
    down: bool = False


def undeclared(flow: Flow[Any], seen: Collection[tuple[str, str]], statuses: Collection[str]) -> list[Edge]:
    """What was seen between these statuses and stands in no line of the table. It does not shape the picture, and so it
    is laid out as the edges of a cancel are.
    """
    allowed = {(edge.source, edge.target) for edge in flow.edges()}
    return [Edge(*pair, "on_cancel") for pair in sorted(seen) if pair not in allowed and {*pair} <= {*statuses}]


def drawn(sheet: Sheet) -> str:
    """The picture, or "" where there would be too much in it."""
    if len(sheet.cards) > STATUSES_MAX:
        return ""
    layout, names = _laid_out(sheet)
    if layout.width > READABLE_MAX:
        return ""
    parts = [*_lines(sheet, layout), start_mark(layout.boxes[sheet.flow.start], sheet.down)]
    parts += (_card(sheet, card, layout.boxes[card.status], names) for card in sheet.cards)
    legend, width, height = _legend(sheet.legend, layout.width, layout.height)
    return _page(sheet, [*parts, legend], width, height)


# -- sizes ------------------------------------------------------------------------------------------------------


def _laid_out(sheet: Sheet) -> tuple[Layout, Names]:
    """The layout, and the rows of each name: one where that fits, else up to two; what is too wide even then is folded."""
    names: Names = {card.status: [cut(plain(card.status), NAME_CHARS_MAX)] for card in sheet.cards}
    layout = _sized(sheet, names, tight=False)
    if sheet.down:
        return layout.turned(), names
    if layout.width <= ROOMY_MAX:
        return layout, names
    names = {card.status: _parted(plain(card.status)) for card in sheet.cards}
    letters = max(LEAST / LETTER, max(len(row) for rows in names.values() for row in rows))
    names = {status: ["".join(rows)] if len("".join(rows)) <= letters else rows for status, rows in names.items()}
    layout = _sized(sheet, names, tight=True)
    return _fitting(layout), names


def _fitting(layout: Layout) -> Layout:
    """In as few pieces as fit; where none do, since there are too many lines between them, in as few as its width asks for."""
    least = ceil(layout.width / WIDTH_MAX)
    ways = (folded(layout, pieces) for pieces in range(least, PIECES_MAX + 1))
    return next((way for way in ways if way.width <= WIDTH_MAX), folded(layout, least))


def _sized(sheet: Sheet, names: Names, tight: bool) -> Layout:
    widths, height = _widths(sheet, names, tight), _foot(names) + 4 + sheet.high
    labels = [sheet.lines[edge].label for edge in sheet.lines if edge.source == edge.target]
    # On the way down the words of a loop stand at the left of its box, where they need room of their own.
    loop = 0.0 if not labels else 44 + max(map(len, labels)) * SMALL if sheet.down else 32.0
    bent, straight = (44.0, 22.0) if sheet.down else (20.0, 20.0) if tight else (36.0, 36.0)
    metrics = Metrics(
        length=lambda status, ports: max(height if sheet.down else widths[status], 15.0 * (ports + 1)),
        thickness=max(widths.values()) if sheet.down else height,
        bend=lambda bends: bent + 4 * bends if bends else straight,
        pad=9,
        lane=13,
        row_gap=36 + loop / 2,
        channel=16 if loop and not sheet.down else 24,
        track=14,
        start=22,
        loop=loop,
        loop_length=34 if sheet.down else 56,
        margin=MARGIN,
    )
    return lay_out([card.status for card in sheet.cards], list(sheet.lines), sheet.flow.start, metrics)


def _widths(sheet: Sheet, names: Names, tight: bool) -> dict[str, float]:
    """All the same; but where room is scarce only those boxes are wider that have more to say."""
    letters = max(len(row) for rows in names.values() for row in rows)
    needs = {card.status: max(LEAST, card.room(tight)) for card in sheet.cards}
    least = max(letters * LETTER, min(needs.values()) if tight else max(needs.values()))
    return {status: max(least, need) + 2 * PAD for status, need in needs.items()}


def _foot(names: Names) -> float:
    """How far down in its box the name of a status reaches."""
    return 5 + NAME_LINE * max(map(len, names.values()))


def _parted(name: str) -> list[str]:
    """In two rows, parted where its words are, so that the longer row is as short as it can be."""
    breaks = [at for at in range(1, len(name)) if not name[at - 1].isalnum() and name[at].isalnum()]
    ways = [[name], *([name[:at], name[at:]] for at in breaks)]
    return [cut(row, NAME_CHARS_MAX) for row in min(ways, key=lambda way: max(map(len, way)))]


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


# -- lines ------------------------------------------------------------------------------------------------------


def _lines(sheet: Sheet, layout: Layout) -> Iterator[str]:
    """What was taken last, before that what is solid, so that nothing dashed is drawn over it. Words above all lines."""
    order = list(WHY)

    def height(route: Route) -> tuple[bool, bool, int]:
        line = sheet.lines[route.edge]
        return line.taken, UNDECLARED in line.look, -order.index(route.edge.why)

    routes = sorted(layout.routes, key=height)
    yield from (_line(route, sheet.lines[route.edge], sheet.down) for route in routes)
    yield from (_label(route, sheet.lines[route.edge], sheet.down) for route in routes if sheet.lines[route.edge].label)


def _line(route: Route, line: Line, down: bool) -> str:
    loop = route.edge.source == route.edge.target
    points = route.points if line.taken else shown(route)
    whole = line.taken or route.own == len(route.points)
    shape = loop_course(points, down) if loop else course((*points[:-1], shortened(points)) if whole else points, down)
    tip = arrow_tip(points[-2:], line.look) if whole else ""
    # What is taken runs over other lines: beneath it lies a strip of paper, which parts the two.
    casing = f'<path class="casing" d="{shape}"/>' if line.taken and not loop else ""
    names = f'data-source="{escape(plain(route.edge.source))}" data-target="{escape(plain(route.edge.target))}"'
    stroke = f'<path class="edge {line.look}" {names} d="{shape}"/>'
    return f'<g aria-hidden="true"><title>{escape(line.hover)}</title>{casing}{stroke}{tip}</g>'


def _label(route: Route, line: Line, down: bool) -> str:
    loop = route.edge.source == route.edge.target
    where = beside_loop(route.points, down) if loop else _on_the_way(route.points[: max(route.own, 2)], line.label)
    return f'<text class="note on-line {line.look}" {where} aria-hidden="true">{escape(line.label)}</text>'


def _on_the_way(points: Sequence[Point], label: str) -> str:
    """In the middle of where it changes rows, which is where it has left what goes elsewhere; else of its longest piece."""

    def fitness(piece: tuple[Point, Point]) -> tuple[bool, bool, float]:
        wide, high = abs(piece[0].x - piece[1].x), abs(piece[0].y - piece[1].y)
        return wide > 1 and high > 1, wide > len(label) * SMALL + 12, wide + high

    begin, end = max(pairwise(points), key=fitness)
    x, y = (begin.x + end.x) / 2, (begin.y + end.y) / 2
    upright = abs(begin.x - end.x) < 1 and len(label) > 5
    turned = f' transform="rotate(-90 {px(x)} {px(y)})"' if upright else ""
    return f'x="{px(x)}" y="{px(y + 4)}" text-anchor="middle"{turned}'


# -- boxes ------------------------------------------------------------------------------------------------------


def _card(sheet: Sheet, card: Card, box: Box, names: Names) -> str:
    flow, width, height = sheet.flow, box.right - box.left, box.bottom - box.top
    end = card.status in flow.stages and flow.is_end(card.status)
    radius = 20 if end else 9
    parts = [f"<title>{escape(card.hover)}</title>", _frame("box", 0, width, height, radius)]
    if end:
        parts.append(_frame("rim", 3, width, height, radius))
    parts += [_name(names[card.status], _foot(names)), card.body(width, _foot(names))]
    kind = "end" if end else "start" if card.status == flow.start else ""
    start = f'class="{" ".join(("stage", *filter(None, (kind, card.look))))}" data-status="{escape(plain(card.status))}"'
    start += f' transform="translate({px(box.left)} {px(box.top)})" aria-label="{escape(card.told)}"'
    if "now" in card.look.split():
        start += ' aria-current="step"'
    if card.href:
        return f'<a {start} href="{escape(card.href)}">{"".join(parts)}</a>'
    return f'<g {start} role="img">{"".join(parts)}</g>'


def _name(rows: Sequence[str], foot: float) -> str:
    """In the middle of the room that is there for the longest."""
    first = 5 + (foot - 5 - NAME_LINE * len(rows)) / 2 + NAME_LINE
    spans = (f'<tspan x="{px(PAD)}" y="{px(first + NAME_LINE * n)}">{escape(row)}</tspan>' for n, row in enumerate(rows))
    return f'<text class="status">{"".join(spans)}</text>'


def _frame(look: str, inset: float, width: float, height: float, radius: float) -> str:
    size = f'width="{px(width - 2 * inset)}" height="{px(height - 2 * inset)}"'
    return f'<rect class="{look}" x="{px(inset)}" y="{px(inset)}" {size} rx="{px(radius - inset)}"/>'


def icon(name: str, x: float, y: float, size: float = 12) -> str:
    """One of the drawings that every page of the panel has at its top."""
    place = f'x="{px(x)}" y="{px(y)}" width="{px(size)}" height="{px(size)}"'
    return f'<use class="icon {name}" href="#i-{name}" {place}/>'


# -- the page ---------------------------------------------------------------------------------------------------


def stroke_mark(look: str, words: str) -> Mark:
    return Mark(f'<path class="edge {look}" d="M0 6 h24"/>', 24, words)


def box_mark(look: str, words: str) -> Mark:
    return Mark(f'<g class="stage {look}"><rect class="box" x="1.5" y="1" width="18" height="10" rx="3"/></g>', 21, words)


def bar_mark(look: str, words: str) -> Mark:
    return Mark(f'<rect class="part {look}" x="0" y="1" width="10" height="10" rx="2"/>', 10, words)


def _legend(items: Sequence[Mark], width: float, y: float) -> tuple[str, float, float]:
    """One row beneath the picture, or as many as its width asks for. And how wide and high all is then."""
    x, parts, widest = MARGIN, [], width
    for item in items:
        wide = item.width + 6 + len(item.words) * SMALL
        if x > MARGIN and x + wide > width:
            x, y = MARGIN, y + 20
        text = f'<text class="note" x="{px(item.width + 6)}" y="10">{escape(item.words)}</text>'
        parts.append(f'<g transform="translate({px(x)} {px(y)})">{item.drawing}{text}</g>')
        x += wide + 20
        widest = max(widest, x - 20 + MARGIN)
    return f'<g class="legend" aria-hidden="true">{"".join(parts)}</g>', widest, y + (24 if items else 0)


def _page(sheet: Sheet, parts: Iterable[str], width: float, height: float) -> str:
    wide, high = px(ceil(width)), px(ceil(height))
    return (
        f'<svg class="diagram {"down" if sheet.down else "across"}" viewBox="0 0 {wide} {high}" width="{wide}" '
        f'height="{high}" role="group" aria-label="{escape(sheet.told)}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def kinds(edges: Iterable[Edge], lines: Mapping[Edge, Line]) -> list[str]:
    """The kinds of edges that need a word in the legend, in their settled order."""
    there = {edge.why for edge in edges if UNDECLARED not in lines[edge].look}
    return [why for why in WHY if why in there]


def said_of(flow: Flow[Any], status: str) -> str:
    """What its line of the table says, and where that leads."""
    if status not in flow.stages:
        return f"{plain(status)}: this status is not in the table"
    ways = []
    for why, word in WHY.items():
        targets = [edge.target for edge in flow.edges() if edge[::2] == (status, why) and edge.target != status]
        if targets and why != "on_cancel":
            ways.append(f"{f'{word}: ' if why else 'leads to '}{', '.join(map(plain, targets))}")
    return "\n".join([about(flow, status), *ways])


def loop_words(flow: Flow[Any], status: str) -> str:
    return looks(flow, status) if status in flow.stages else ""
