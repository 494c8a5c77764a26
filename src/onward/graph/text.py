"""The flow in characters: drawn from left to right where that fits the terminal and stays clear, else as a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from onward.flow import Edge, Flow
from onward.graph.layout import Layout, Metrics, Point, Route, lay_out
from onward.graph.words import WHY, deadline, looks, plain

WIDTH = 100  # where nobody says how wide the page is
LINES_MAX = 24  # a drawing that does not fit on a screen is no longer one read

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_STROKES = dict(zip(range(1, 16), "│││─╯╮┤─╰╭├─┴┬┼", strict=True))
_DASHED = {"otherwise": {12: "┄", 3: "┆"}, "on_failure": {12: "┈", 3: "┊"}}
_LOOKS_AGAIN = " ↺"


def text(flow: Flow[Any], width: int = WIDTH) -> str:
    """At most `width` characters wide, where the names allow it. Every edge is in it."""
    edges = [edge for edge in flow.edges() if edge.why != "on_cancel" and edge.source != edge.target]
    drawn = Canvas(_names(flow), edges, flow.start).drawn()
    fits = drawn is not None and len(drawn) <= LINES_MAX and max(map(len, drawn)) <= width
    lines = drawn if drawn is not None and fits else _listed(flow)
    return "\n".join([*lines, *_notes(flow, fits)]) + "\n"


def _names(flow: Flow[Any]) -> dict[str, str]:
    return {status: plain(status) + (_LOOKS_AGAIN if looks(flow, status) else "") for status in flow.statuses}


def _notes(flow: Flow[Any], fits: bool) -> Iterator[str]:
    kinds = {edge.why for edge in flow.edges()}
    notes = [f"{_DASHED[why][12] * 3} {WHY[why]}" for why in _DASHED if fits and why in kinds]
    if flow.on_cancel is not None:
        notes.append(f"cancelled: goes on at {plain(flow.on_cancel)}")
    if notes:
        yield from ("", "   ".join(notes))


def _listed(flow: Flow[Any]) -> list[str]:
    """One status a line, with its handler, and every way out of it in words."""
    names = _names(flow)
    wide = max(map(len, names.values()))
    handlers = {status: "end" if line is None else plain(line.name) for status, line in flow.stages.items()}
    wide_handler = max(map(len, handlers.values()))
    lines = []
    for status in flow.statuses:
        mark = "■" if flow.is_end(status) else "●" if status == flow.start else "○"
        ways = "  ".join(_ways(flow, status))
        lines.append(f"{mark} {names[status]:{wide}}  {handlers[status]:{wide_handler}}  {ways}".rstrip())
    return lines


def _ways(flow: Flow[Any], status: str) -> Iterator[str]:
    edges = [edge for edge in flow.edges() if edge.source == status and edge.target != status]
    returned = [plain(edge.target) for edge in edges if not edge.why]
    if returned:
        yield "─▶ " + ", ".join(returned)
    for edge in edges:
        if edge.why == "otherwise":
            yield f"┄▶ {plain(edge.target)} (not {deadline(flow, status)})"
        elif edge.why == "on_failure":
            yield f"┈▶ {plain(edge.target)} (on failure)"


class Canvas:
    """A grid of characters. A line is kept as the directions in which it leaves each cell, so that lines can meet."""

    def __init__(self, names: Mapping[str, str], edges: Sequence[Edge], start: str) -> None:
        self.names, self.edges, self.start = names, edges, start
        self.strokes: dict[tuple[int, int], dict[Edge, int]] = {}
        self.tips: dict[tuple[int, int], str] = {}

    def drawn(self) -> list[str] | None:
        """None where two edges that have nothing to do with each other would seem to be one."""
        layout = lay_out(list(self.names), self.edges, self.start, _metrics(self.names))
        lanes = _lanes(layout)
        for route in layout.routes:
            self._draw(route, lanes)
        if not self.is_clear():
            return None
        return self._lines(layout)

    def _draw(self, route: Route, lanes: dict[tuple[Point, Point], int]) -> None:
        cells = _corners(route.points, lanes)
        x, y = cells[0]
        trail = [(x, y)]
        for to_x, to_y in cells[1:]:
            while (x, y) != (to_x, to_y):
                x, y = x + (to_x > x) - (to_x < x), y + (to_y > y) - (to_y < y)
                trail.append((x, y))
        inner = trail[1:-1]  # the ends belong to the boxes
        for before, here, after in zip(trail, trail[1:], trail[2:], strict=False):
            bits = _direction(here, before) | _direction(here, after)
            cell = self.strokes.setdefault(here, {})
            cell[route.edge] = cell.get(route.edge, 0) | bits
        (end_x, end_y), (tip_x, tip_y) = trail[-1], inner[-1]
        self.tips[tip_x, tip_y] = {(1, 0): "▶", (0, 1): "▼", (0, -1): "▲"}[end_x - tip_x, end_y - tip_y]

    def is_clear(self) -> bool:
        for cell in self.strokes.values():
            for one, bits in cell.items():
                for other, others in cell.items():
                    related = one.source == other.source or one.target == other.target
                    if bits & others and not related:
                        return False
        return True

    def _lines(self, layout: Layout) -> list[str]:
        cells = {at: self._letter(at, edges) for at, edges in self.strokes.items()}
        for box in layout.boxes.values():
            for number, letter in enumerate(self.names[box.name]):
                cells[round(box.left) + 1 + number, round(box.top)] = letter
        low = min(y for _, y in cells)
        high = max(y for _, y in cells)
        lines = []
        for y in range(low, high + 1):
            wide = max((x for x, at_y in cells if at_y == y), default=-1)
            lines.append("".join(cells.get((x, y), " ") for x in range(1, wide + 1)).rstrip())
        return lines

    def _letter(self, at: tuple[int, int], edges: dict[Edge, int]) -> str:
        if at in self.tips:
            return self.tips[at]
        bits = 0
        for part in edges.values():
            bits |= part
        whys = {edge.why for edge in edges}
        dashed = _DASHED.get(next(iter(whys)), {}) if len(whys) == 1 else {}
        return dashed.get(bits, _STROKES[bits])


def _direction(here: tuple[int, int], there: tuple[int, int]) -> int:
    x, y = there[0] - here[0], there[1] - here[1]
    return _RIGHT if x > 0 else _LEFT if x < 0 else _DOWN if y > 0 else _UP


def _lanes(layout: Layout) -> dict[tuple[Point, Point], int]:
    """For each change of rows the column of characters in which it goes up or down: shared by what branches from one
    row, or joins one row, and by nothing else.
    """
    slants = {pair for route in layout.routes for pair in _slants(route.points)}
    lanes: dict[tuple[Point, Point], int] = {}
    keys: dict[tuple[float, float], list[tuple[str, float]]] = {}
    for begin, end in sorted(slants):
        key = ("branch", begin.y) if end.y > begin.y else ("join", end.y)
        order = keys.setdefault((begin.x, end.x), [])
        if key not in order:
            order.append(key)
        lanes[begin, end] = round(begin.x) + 2 * order.index(key)
    return lanes


def _slants(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    for begin, end in pairwise(points):
        if begin.x != end.x and begin.y != end.y:
            yield begin, end


def _corners(points: Sequence[Point], lanes: dict[tuple[Point, Point], int]) -> list[tuple[int, int]]:
    corners = [(round(points[0].x), round(points[0].y))]
    for begin, end in pairwise(points):
        if (begin, end) in lanes:
            lane = lanes[begin, end]
            corners += [(lane, round(begin.y)), (lane, round(end.y))]
        corners.append((round(end.x), round(end.y)))
    return corners


def _metrics(names: Mapping[str, str]) -> Metrics:
    return Metrics(
        # A blank on either side of the name. A box ends at its last cell, not at the one after it.
        length=lambda name, ports: max(len(names[name]) + 2, 2 * ports + 1) - 1,
        thickness=0,
        bend=lambda bends: max(2, 2 * bends),
        pad=1,
        lane=2,
        row_gap=2,
        channel=2,
        track=1,
        start=0,
        whole=True,
    )
