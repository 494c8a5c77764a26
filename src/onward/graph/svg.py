"""The flow as one standalone SVG: light and dark by CSS, kinds of edges told apart by their dashes and not by colour."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from onward.flow import Edge, Flow
from onward.graph.layout import Box, Layout, Metrics, Point, lay_out
from onward.graph.pen import arrow_tip, beside_loop, course, loop_course, px, shortened, shown, start_mark
from onward.graph.words import WHY, about, looks, plain, sentence

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
    body.append(start_mark(drawn.boxes[flow.start], down))
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
        edge, points = route.edge, shown(route)
        if edge.source == edge.target:
            yield _loop(flow, edge, points, down)
            continue
        whole = route.own == len(route.points)
        shape = course((*points[:-1], shortened(points)) if whole else points, down)
        tip = arrow_tip(points, edge.why) if whole else ""
        line = f'<path class="edge {edge.why}" {_names(edge)} d="{shape}"/>'
        yield f"<g><title>{escape(sentence(flow, edge))}</title>{line}{tip}</g>"


def _loop(flow: Flow[Any], edge: Edge, points: Sequence[Point], down: bool) -> str:
    shape, where = loop_course(points, down), beside_loop(points, down)
    tip = arrow_tip((points[2], points[3]), edge.why)
    note = f'<text class="note" {where}>{escape(looks(flow, edge.source))}</text>'
    title = f"<title>{escape(sentence(flow, edge))}</title>"
    return f'<g>{title}<path class="edge {edge.why}" {_names(edge)} d="{shape}"/>{tip}{note}</g>'


# -- boxes and the page -----------------------------------------------------------------------------------------


def _box(flow: Flow[Any], box: Box, name: str, note: str) -> str:
    kind = " end" if flow.is_end(box.name) else " start" if box.name == flow.start else ""
    middle = box.middle
    high = box.bottom - box.top
    radius = 23 if kind == " end" else 9
    frame = f'x="{px(box.left)}" y="{px(box.top)}" width="{px(box.right - box.left)}" height="{px(high)}"'
    rim = ""
    if kind == " end":
        inner = f'x="{px(box.left + 3)}" y="{px(box.top + 3)}" width="{px(box.right - box.left - 6)}" height="{px(high - 6)}"'
        rim = f'<rect class="rim" {inner} rx="{radius - 3}"/>'
    title = f"<title>{escape(about(flow, box.name))}</title>"
    return (
        f'<g class="stage{kind}" data-status="{escape(name)}">{title}<rect class="box" {frame} rx="{radius}"/>{rim}'
        f'<text class="status" x="{px(middle.x)}" y="{px(middle.y - 3)}" text-anchor="middle">{escape(name)}</text>'
        f'<text class="note" x="{px(middle.x)}" y="{px(middle.y + 13)}" text-anchor="middle">{escape(note)}</text></g>'
    )


def _legend(kinds: Sequence[str], y: float) -> tuple[str, float]:
    x, parts = 18.0, []
    for why in kinds:
        parts.append(f'<path class="edge {why}" d="M{px(x)} {px(y + 8)} h30"/>')
        parts.append(f'<text class="note" x="{px(x + 37)}" y="{px(y + 12)}">{WHY[why]}</text>')
        x += 37 + len(WHY[why]) * SMALL + 22
    return f'<g class="legend" aria-hidden="true">{"".join(parts)}</g>', x


def _page(flow: Flow[Any], body: Iterable[str], legend: str, width: float, height: float) -> str:
    told = "; ".join(sentence(flow, edge) for edge in flow.edges())
    name = escape(plain(flow.name))
    wide, high = px(width), px(height)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        f'role="img" aria-labelledby="onward-title onward-desc" font-family="system-ui, sans-serif">\n'
        f'<title id="onward-title">The flow {name}</title>\n'
        f'<desc id="onward-desc">It starts at {escape(plain(flow.start))}. {escape(told)}.</desc>\n'
        f"<style>{_style()}</style>\n"
        f'<rect class="paper" width="100%" height="100%" rx="12"/>\n' + "\n".join([*body, legend]).rstrip() + "\n</svg>\n"
    )


def _names(edge: Edge) -> str:
    return f'data-source="{escape(plain(edge.source))}" data-target="{escape(plain(edge.target))}"'
