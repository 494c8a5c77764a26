"""The flow as one standalone SVG: light and dark by CSS, kinds of edges told apart by their dashes and not by colour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from math import hypot
from typing import Any

from onward.flow import Edge, Flow
from onward.graph.layout import Box, Layout, Metrics, Point, Route, lay_out
from onward.graph.words import WHY, deadline, looks, plain, sentence

RADIUS = 9.0
LETTER = 7.83  # the advance of a 13 px monospaced letter
SMALL = 6.3  # and a little more than that of an 11 px sans-serif one, on the average
HIGH = 46.0
LEGEND = 32.0

_SHAPES = """
.box { stroke-width: 1.25 } .start .box { stroke-width: 1.9 } .end .box { stroke-width: 1.5 } .rim { fill: none; stroke-width: 1 }
.status { font: 600 13px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace }
.note { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif }
.edge { fill: none; stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round }
.edge.otherwise { stroke-dasharray: 7 5 }
.edge.on_failure { stroke-dasharray: 0.1 4.5; stroke-width: 2.1 }
.edge.on_cancel { stroke-dasharray: 9 4 0.1 4; stroke-width: 1.3 }
"""
# Spelled out for each scheme, without CSS variables: many viewers of SVG that are no browsers know none.
_COLOURS = """
.paper { fill: PAPER } .status { fill: INK } .note { fill: SOFT }
.box { fill: BOX; stroke: RIM } .start .box { stroke: START } .end .box { fill: GREEN; stroke: END } .rim { stroke: END }
.edge { stroke: LINE } .tip { fill: LINE } .dot { fill: START }
.edge.otherwise { stroke: WARN } .edge.on_failure { stroke: FAIL } .edge.on_cancel { stroke: OFF }
.tip.otherwise { fill: WARN } .tip.on_failure { fill: FAIL } .tip.on_cancel { fill: OFF }
"""
_LIGHT = {
    **{"PAPER": "#ffffff", "INK": "#1f2937", "SOFT": "#5b6878", "LINE": "#475569", "BOX": "#f6f8fb", "RIM": "#94a3b8"},
    **{"START": "#2563eb", "END": "#15803d", "GREEN": "#f0fdf4", "WARN": "#b45309", "FAIL": "#c02626", "OFF": "#7c8798"},
}
_DARK = {
    **{"PAPER": "#0d1117", "INK": "#e6edf3", "SOFT": "#9aa7b5", "LINE": "#8b98a8", "BOX": "#161d27", "RIM": "#4b5869"},
    **{"START": "#60a5fa", "END": "#4ade80", "GREEN": "#10241a", "WARN": "#f0b35a", "FAIL": "#f87171", "OFF": "#768394"},
}


def _style() -> str:
    def filled(palette: dict[str, str]) -> str:
        return re.sub("[A-Z]{3,}", lambda match: palette[match[0]], _COLOURS)

    return f"{_SHAPES}{filled(_LIGHT)}@media (prefers-color-scheme: dark) {{{filled(_DARK)}}}\n"


def svg(flow: Flow[Any], *, down: bool = False) -> str:
    """The drawing, from left to right, or from top to bottom for narrow pages. Statuses are text: they can be searched."""
    edges = list(flow.edges())
    texts = {status: _texts(flow, status) for status in flow.statuses}
    width = max(116.0, *(max(len(name) * LETTER, len(note) * SMALL) + 30 for name, note in texts.values()))
    notes = [looks(flow, edge.source) for edge in edges if edge.source == edge.target]
    # On the way down the note of a loop stands at the left of its box, where it needs room of its own.
    loop = 0.0 if not notes else 44 + max(map(len, notes)) * SMALL if down else 32.0
    layout = lay_out(flow.statuses, edges, flow.start, _metrics_down(width, loop) if down else _metrics(width, loop))
    drawn = layout.turned() if down else layout
    body = [*_edges(flow, drawn, down), *(_box(flow, drawn.boxes[s], *texts[s]) for s in flow.statuses)]
    body.append(_start(drawn.boxes[flow.start], down))
    kinds = [why for why in WHY if any(edge.why == why for edge in edges)]
    legend, legend_width = _legend(kinds, drawn.height) if kinds != [""] else ("", 0.0)
    full = max(drawn.width, legend_width), drawn.height + (LEGEND if legend else 0)
    return _page(flow, body, legend, *full)


def _metrics(width: float, loop: float) -> Metrics:
    return Metrics(
        length=lambda _, ports: max(width, 18.0 * (ports + 1)),
        thickness=HIGH,
        bend=lambda bends: 36 + 4 * bends,
        pad=11,
        lane=13,
        row_gap=46 + loop / 2,
        channel=14 if loop else 26,
        track=13,
        start=22,
        loop=loop,
        loop_length=64,
        margin=18,
    )


def _metrics_down(width: float, loop: float) -> Metrics:
    return Metrics(
        length=lambda _, ports: max(HIGH, 15.0 * (ports + 1)),
        thickness=width,
        bend=lambda bends: 52 if bends else 16,
        pad=11,
        lane=13,
        row_gap=46 + loop / 2,
        channel=24,
        track=13,
        start=22,
        loop=loop,
        loop_length=34,
        margin=18,
    )


def _texts(flow: Flow[Any], status: str) -> tuple[str, str]:
    line = flow.stages[status]
    return plain(status), "end" if line is None else plain(line.name)


# -- lines ------------------------------------------------------------------------------------------------------


def _edges(flow: Flow[Any], layout: Layout, down: bool) -> Iterable[str]:
    """Solid lines last, so that nothing dashed is drawn over them."""
    for route in sorted(layout.routes, key=lambda route: -list(WHY).index(route.edge.why)):
        edge, points = route.edge, _shown(route)
        if edge.source == edge.target:
            yield _loop(flow, edge, points, down)
            continue
        whole = route.own == len(route.points)
        shape = _path((*points[:-1], _short(points)) if whole else points, down)
        tip = _tip(points, edge.why) if whole else ""
        line = f'<path class="edge {edge.why}" {_names(edge)} d="{shape}"/>'
        yield f"<g><title>{escape(sentence(flow, edge))}</title>{line}{tip}</g>"


def _shown(route: Route) -> tuple[Point, ...]:
    """Its own points, and where it joins a rail the curve onto that: dashes drawn twice would look like a solid line."""
    if route.own == len(route.points):
        return route.points
    (x, y), onto = route.points[route.own - 1], route.points[route.own]
    far = hypot(onto.x - x, onto.y - y)
    part = min(1.0, RADIUS / far) if far else 0.0
    return (*route.points[: route.own], Point(x + (onto.x - x) * part, y + (onto.y - y) * part))


def _loop(flow: Flow[Any], edge: Edge, points: Sequence[Point], down: bool) -> str:
    (x0, y0), (_, y1), (x2, _), (x3, y3) = points
    tip = _tip((points[2], points[3]), edge.why)
    if down:
        turn = x0 - 22
        shape = f"M{_n(x0)} {_n(y0)} H{_n(turn + 9)} a9 9 0 0 0 -9 9 V{_n(y3 - 9)} a9 9 0 0 0 9 9 H{_n(x3 - 6)}"
        where = f'x="{_n(turn - 6)}" y="{_n((y0 + y3) / 2 + 4)}" text-anchor="end"'
    else:
        shape = f"M{_n(x0)} {_n(y0)} V{_n(y1 + 9)} a9 9 0 0 1 9 -9 H{_n(x2 - 9)} a9 9 0 0 1 9 9 V{_n(y3 - 6)}"
        where = f'x="{_n((x0 + x2) / 2)}" y="{_n(y1 - 5)}" text-anchor="middle"'
    note = f'<text class="note" {where}>{escape(looks(flow, edge.source))}</text>'
    title = f"<title>{escape(sentence(flow, edge))}</title>"
    return f'<g>{title}<path class="edge {edge.why}" {_names(edge)} d="{shape}"/>{tip}{note}</g>'


def _path(points: Sequence[Point], down: bool) -> str:
    """Straight pieces with round corners; a slanting piece becomes a soft double curve."""
    points = [point for number, point in enumerate(points) if not number or point != points[number - 1]]
    shape = f"M{_n(points[0].x)} {_n(points[0].y)}"
    for before, here, after in zip(points, points[1:], [*points[2:], None], strict=False):
        if abs(before.x - here.x) > 0.01 and abs(before.y - here.y) > 0.01:
            half = Point(before.x, (before.y + here.y) / 2) if down else Point((before.x + here.x) / 2, before.y)
            rest = Point(here.x, half.y) if down else Point(half.x, here.y)
            shape += f" C{_n(half.x)} {_n(half.y)} {_n(rest.x)} {_n(rest.y)} {_n(here.x)} {_n(here.y)}"
        elif after is None or _slanting(here, after):
            shape += f" L{_n(here.x)} {_n(here.y)}"
        else:
            radius = min(RADIUS, _length(before, here) / 2, _length(here, after) / 2)
            begin, end = _towards(here, before, radius), _towards(here, after, radius)
            shape += f" L{_n(begin.x)} {_n(begin.y)} Q{_n(here.x)} {_n(here.y)} {_n(end.x)} {_n(end.y)}"
    return shape


def _slanting(here: Point, there: Point) -> bool:
    return abs(here.x - there.x) > 0.01 and abs(here.y - there.y) > 0.01


def _length(here: Point, there: Point) -> float:
    return hypot(here.x - there.x, here.y - there.y)


def _towards(here: Point, there: Point, far: float) -> Point:
    part = far / (_length(here, there) or 1.0)
    return Point(here.x + (there.x - here.x) * part, here.y + (there.y - here.y) * part)


def _short(points: Sequence[Point]) -> Point:
    """The end, drawn back beneath the arrow's tip, so that the line does not stick out of it."""
    return _towards(points[-1], points[-2], 6)


def _tip(points: Sequence[Point], why: str) -> str:
    end, back = points[-1], _towards(points[-1], points[-2], 9)
    aside = Point((end.y - back.y) * 0.45, (back.x - end.x) * 0.45)
    corners = (end, Point(back.x + aside.x, back.y + aside.y), Point(back.x - aside.x, back.y - aside.y))
    return f'<path class="tip {why}" d="M' + " L".join(f"{_n(x)} {_n(y)}" for x, y in corners) + 'Z"/>'


# -- boxes and the page -----------------------------------------------------------------------------------------


def _box(flow: Flow[Any], box: Box, name: str, note: str) -> str:
    kind = " end" if flow.is_end(box.name) else " start" if box.name == flow.start else ""
    middle = box.middle
    high = box.bottom - box.top
    radius = 23 if kind == " end" else 9
    frame = f'x="{_n(box.left)}" y="{_n(box.top)}" width="{_n(box.right - box.left)}" height="{_n(high)}"'
    rim = ""
    if kind == " end":
        inner = f'x="{_n(box.left + 3)}" y="{_n(box.top + 3)}" width="{_n(box.right - box.left - 6)}" height="{_n(high - 6)}"'
        rim = f'<rect class="rim" {inner} rx="{radius - 3}"/>'
    title = f"<title>{escape(_hover(flow, box.name))}</title>"
    return (
        f'<g class="stage{kind}" data-status="{escape(name)}">{title}<rect class="box" {frame} rx="{radius}"/>{rim}'
        f'<text class="status" x="{_n(middle.x)}" y="{_n(middle.y - 3)}" text-anchor="middle">{escape(name)}</text>'
        f'<text class="note" x="{_n(middle.x)}" y="{_n(middle.y + 13)}" text-anchor="middle">{escape(note)}</text></g>'
    )


def _hover(flow: Flow[Any], status: str) -> str:
    line = flow.stages[status]
    if line is None:
        return f"{plain(status)}: the process is over"
    parts = [
        f"{plain(status)}: {plain(line.name)}",
        f"up to {line.retry.attempts} attempts",
        looks(flow, status),
        deadline(flow, status),
    ]
    return ", ".join(part for part in parts if part)


def _start(box: Box, down: bool) -> str:
    middle = box.middle
    end = Point(middle.x, box.top) if down else Point(box.left, middle.y)
    dot = Point(middle.x, box.top - 22) if down else Point(box.left - 22, middle.y)
    line = (_towards(dot, end, 5), end)
    path = _path((line[0], _short(line)), down)
    return f'<circle class="dot" cx="{_n(dot.x)}" cy="{_n(dot.y)}" r="5"/><path class="edge" d="{path}"/>{_tip(line, "")}'


def _legend(kinds: Sequence[str], y: float) -> tuple[str, float]:
    x, parts = 18.0, []
    for why in kinds:
        parts.append(f'<path class="edge {why}" d="M{_n(x)} {_n(y + 8)} h30"/>')
        parts.append(f'<text class="note" x="{_n(x + 37)}" y="{_n(y + 12)}">{WHY[why]}</text>')
        x += 37 + len(WHY[why]) * SMALL + 22
    return f'<g class="legend" aria-hidden="true">{"".join(parts)}</g>', x


def _page(flow: Flow[Any], body: Iterable[str], legend: str, width: float, height: float) -> str:
    told = "; ".join(sentence(flow, edge) for edge in flow.edges())
    name = escape(plain(flow.name))
    wide, high = _n(width), _n(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        f'role="img" aria-labelledby="onward-title onward-desc" font-family="system-ui, sans-serif">\n'
        f'<title id="onward-title">The flow {name}</title>\n'
        f'<desc id="onward-desc">It starts at {escape(plain(flow.start))}. {escape(told)}.</desc>\n'
        f"<style>{_style()}</style>\n"
        f'<rect class="paper" width="100%" height="100%" rx="12"/>\n' + "\n".join([*body, legend]).rstrip() + "\n</svg>\n"
    )


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _names(edge: Edge) -> str:
    return f'data-source="{escape(plain(edge.source))}" data-target="{escape(plain(edge.target))}"'
