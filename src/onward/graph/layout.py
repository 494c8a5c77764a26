"""Gives every box and every line of a flow its coordinates, in any unit: pixels for SVG, characters for a terminal.

The picture is thought of as running from left to right. Between two columns of boxes lies a gap, above and beneath all
rows lies a channel, and no box ever stands in either: a line that keeps to gaps and channels cannot cross a box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from onward.flow import Edge
from onward.graph.plan import Bend, Plan, Rail, Side, planned
from onward.graph.ranks import place


class Point(NamedTuple):
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    name: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> Point:
        return Point((self.left + self.right) / 2, (self.top + self.bottom) / 2)


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one edge. A slanting piece stands for a change of rows inside a gap, to be drawn as one likes.

    `own`: from this point on it runs on the rail of another edge to the same target, already drawn; else all of them.
    """

    edge: Edge
    points: tuple[Point, ...]
    own: int


@dataclass(frozen=True, slots=True)
class Layout:
    boxes: dict[str, Box]
    routes: tuple[Route, ...]
    width: float
    height: float

    def turned(self) -> Layout:
        """The same picture, running from top to bottom."""
        return Layout(
            boxes={name: Box(name, box.top, box.left, box.bottom, box.right) for name, box in self.boxes.items()},
            routes=tuple(replace(route, points=tuple(Point(y, x) for x, y in route.points)) for route in self.routes),
            width=self.height,
            height=self.width,
        )


@dataclass(frozen=True, slots=True)
class Metrics:
    """The sizes of one kind of drawing. `length` of a box is asked with the number of lines at its busier long side."""

    length: Callable[[str, int], float]
    thickness: float
    bend: Callable[[int], float]  # the room in a gap for so many changes of rows
    pad: float  # between a box and the first lane beside it
    lane: float  # between two parallel lines
    row_gap: float
    channel: float  # between the boxes, or their loops, and the nearest rail
    track: float  # between two parallel rails
    start: float  # room before the start, for its mark
    loop: float = 0  # how far a loop stands out above its box; 0: loops are not drawn as lines
    loop_length: float = 0
    margin: float = 0
    whole: bool = False  # coordinates are whole numbers


def lay_out(nodes: Sequence[str], edges: Sequence[Edge], start: str, metrics: Metrics) -> Layout:
    """Boxes that do not overlap, and for each edge a route that crosses none of them. Equal input, equal picture."""
    cells, back = place(nodes, edges, start)
    return _Drawing(planned(cells, edges, back), metrics).layout(edges)


class _Drawing:
    """Gives the plan its sizes: first along the flow, then across, since the order of rails needs the former."""

    def __init__(self, plan: Plan, metrics: Metrics) -> None:
        self.plan, self.metrics = plan, metrics
        self.columns = 1 + max(column for column, _ in plan.cells.values())
        self.lanes_out: dict[int, list[Rail]] = {gap: [] for gap in range(-1, self.columns)}
        self.lanes_in: dict[int, list[Rail]] = {gap: [] for gap in range(-1, self.columns)}
        self.ports: dict[tuple[str, Side], list[tuple[Rail, bool]]] = {}
        for rail, edges in plan.rails.items():
            self._attach(rail, edges)
        for key, ports in self.ports.items():
            ports.sort(key=lambda port, name=key[0]: self._port_order(name, *port))  # type: ignore[misc]  # binds name now
        self._place_along()
        self._place_rails()
        self._place_across()

    def layout(self, edges: Sequence[Edge]) -> Layout:
        routes = {edge: self._loop(edge) for edge in self.plan.loops if self.metrics.loop}
        routes |= {bend.edge: self._bend(bend) for bend in self.plan.bends}
        for rail, sharing in self.plan.rails.items():
            routes |= self._rail_routes(rail, sharing)
        return Layout(self.boxes, tuple(routes[edge] for edge in edges if edge in routes), self.width, self.height)

    # -- who needs room where ---------------------------------------------------------------------------------

    def _attach(self, rail: Rail, edges: Sequence[Edge]) -> None:
        """An edge leaves a box towards its channel, or, where another box is in the way, through the gap beside it."""
        for edge in edges:
            if self.plan.clear(edge.source, rail.side):
                self.ports.setdefault((edge.source, rail.side), []).append((rail, True))
            else:
                _add(self.lanes_out[self._column(edge.source)], rail)
        if self.plan.clear(rail.target, rail.side):
            self.ports.setdefault((rail.target, rail.side), []).append((rail, False))
        else:
            _add(self.lanes_in[self._column(rail.target) - 1], rail)

    def _port_order(self, name: str, rail: Rail, leaves: bool) -> tuple[float, ...]:
        """From left to right: what goes left, the nearest rail first; what arrives from both sides; what goes right."""
        here, span = self._column(name), self._span(rail)
        if leaves:
            right = self._column(rail.target) > here
        else:
            others = [self._column(edge.source) for edge in self.plan.rails[rail]]
            if min(others) <= here <= max(others) and min(others) != max(others):
                return (0, 0)
            right = max(others) > here
        return (1, -span) if right else (-1, span)

    def _span(self, rail: Rail) -> float:
        columns = [self._column(rail.target), *(self._column(edge.source) for edge in self.plan.rails[rail])]
        return 100 * (rail.why == "on_cancel") + max(columns) - min(columns)

    def _column(self, name: str) -> int:
        return self.plan.cells[name][0]

    # -- along the flow ---------------------------------------------------------------------------------------

    def _place_along(self) -> None:
        m = self.metrics
        length = {name: m.length(name, self._busiest(name)) for name in self.plan.cells}
        widest = [max(length[n] for n, (c, _) in self.plan.cells.items() if c == column) for column in range(self.columns)]
        bends = [sum(bend.gap == gap for bend in self.plan.bends) for gap in range(self.columns)]
        x = m.margin + m.start + m.lane * len(self.lanes_in[-1])
        self.left: list[float] = []
        self.bend_at: list[tuple[float, float]] = []
        self.out_at: list[float] = []  # the first lane of each gap
        self.in_at: list[float] = [m.margin + m.start / 2]  # the first lane before each column
        for column in range(self.columns):
            self.left.append(x)
            x += widest[column] + m.pad
            self.out_at.append(x)
            x += m.lane * len(self.lanes_out[column])
            last = column == self.columns - 1
            bend_from, x = x, x + (0 if last else m.bend(bends[column]))
            self.bend_at.append((bend_from, x))
            self.in_at.append(x)
            x += m.lane * len(self.lanes_in[column]) + (0 if last else m.pad)
        self.width = x - m.pad + m.margin
        self.right = {name: self.left[self._column(name)] + length[name] for name in self.plan.cells}

    def _busiest(self, name: str) -> int:
        return max(len(self.ports.get((name, side), ())) for side in ("above", "beneath"))

    def _lane_out(self, name: str, rail: Rail) -> float:
        gap = self._column(name)
        return self.out_at[gap] + self.metrics.lane * self.lanes_out[gap].index(rail)

    def _lane_in(self, rail: Rail) -> float:
        gap = self._column(rail.target) - 1
        return self.in_at[gap + 1] + self.metrics.lane * self.lanes_in[gap].index(rail)

    def _port(self, name: str, rail: Rail, leaves: bool) -> float:
        ports = self.ports[name, rail.side]
        left, right = self.left[self._column(name)], self.right[name]
        if rail.side == "above" and any(edge.source == name for edge in self.plan.loops):
            right -= self.metrics.loop_length  # the loop has the right end of its side for itself
        at = left + (right - left) * (ports.index((rail, leaves)) + 1) / (len(ports) + 1)
        return round(at) if self.metrics.whole else at

    def _leaves_at(self, edge: Edge, rail: Rail) -> float:
        by_port = self.plan.clear(edge.source, rail.side)
        return self._port(edge.source, rail, True) if by_port else self._lane_out(edge.source, rail)

    def _arrives_at(self, rail: Rail) -> float:
        return self._port(rail.target, rail, False) if self.plan.clear(rail.target, rail.side) else self._lane_in(rail)

    # -- across it --------------------------------------------------------------------------------------------

    def _place_rails(self) -> None:
        """The short rails next to the boxes; two share a line where they do not meet."""
        self.track: dict[Rail, int] = {}
        spans: dict[tuple[Side, int], list[tuple[float, float]]] = {}
        for rail in sorted(self.plan.rails, key=lambda rail: (self._span(rail), rail)):
            ends = [self._arrives_at(rail), *(self._leaves_at(edge, rail) for edge in self.plan.rails[rail])]
            low, high = min(ends) - self.metrics.lane, max(ends) + self.metrics.lane
            number = 0
            while any(low < right and left < high for left, right in spans.get((rail.side, number), ())):
                number += 1
            spans.setdefault((rail.side, number), []).append((low, high))
            self.track[rail] = number

    def _place_across(self) -> None:
        m = self.metrics
        tracks: dict[Side, int] = {"above": 0, "beneath": 0}
        for rail, number in self.track.items():
            tracks[rail.side] = max(tracks[rail.side], number + 1)
        loops = m.loop if any(self.plan.cells[edge.source][1] == 0 for edge in self.plan.loops) else 0
        above = loops + (m.channel + m.track * (tracks["above"] - 1) if tracks["above"] else 0)
        first = m.margin + above
        last = first + max(row for _, row in self.plan.cells.values()) * (m.thickness + m.row_gap) + m.thickness
        self.boxes = {}
        for name, (column, row) in self.plan.cells.items():
            top = first + row * (m.thickness + m.row_gap)
            self.boxes[name] = Box(name, self.left[column], top, self.right[name], top + m.thickness)
        self.rail_at = {
            rail: first - loops - m.channel - m.track * number if rail.side == "above" else last + m.channel + m.track * number
            for rail, number in self.track.items()
        }
        self.height = last + (m.channel + m.track * (tracks["beneath"] - 1) if tracks["beneath"] else 0) + m.margin

    # -- the ways ---------------------------------------------------------------------------------------------

    def _loop(self, edge: Edge) -> Route:
        box, m = self.boxes[edge.source], self.metrics
        left, right = box.right - m.loop_length * 0.8, box.right - m.loop_length * 0.2
        top = box.top - m.loop * 0.7
        return _route(edge, Point(left, box.top), Point(left, top), Point(right, top), Point(right, box.top))

    def _bend(self, bend: Bend) -> Route:
        source, target = self.boxes[bend.edge.source], self.boxes[bend.edge.target]
        out, into = Point(source.right, source.middle.y), Point(target.left, target.middle.y)
        if bend.gap is None:
            return _route(bend.edge, out, into)
        begin, end = self.bend_at[bend.gap]
        return _route(bend.edge, out, Point(begin, out.y), Point(end, into.y), into)

    def _rail_routes(self, rail: Rail, edges: Sequence[Edge]) -> dict[Edge, Route]:
        """The edge that comes from farthest draws the rail on its side of the target; the others only join it."""
        at, y = self._arrives_at(rail), self.rail_at[rail]
        target = self.boxes[rail.target]
        if self.plan.clear(rail.target, rail.side):
            end = [Point(at, y), Point(at, target.top if rail.side == "above" else target.bottom)]
        else:
            end = [Point(at, y), Point(at, target.middle.y), Point(target.left, target.middle.y)]
        routes: dict[Edge, Route] = {}
        sides: set[bool] = set()
        for edge in sorted(edges, key=lambda edge: (-abs(self._leaves_at(edge, rail) - at), edge)):
            begin = self._begin(edge, rail, y)
            route = _route(edge, *begin, *end)
            side = self._leaves_at(edge, rail) < at
            own = len(begin) if side in sides else len(begin) + 1 if sides else len(route.points)
            routes[edge] = replace(route, own=min(own, len(route.points)))
            sides.add(side)
        return routes

    def _begin(self, edge: Edge, rail: Rail, y: float) -> list[Point]:
        source, x = self.boxes[edge.source], self._leaves_at(edge, rail)
        if self.plan.clear(edge.source, rail.side):
            return [Point(x, source.top if rail.side == "above" else source.bottom), Point(x, y)]
        return [Point(source.right, source.middle.y), Point(x, source.middle.y), Point(x, y)]


def _add(lanes: list[Rail], rail: Rail) -> None:
    if rail not in lanes:
        lanes.append(rail)


def _route(edge: Edge, *points: Point) -> Route:
    return Route(edge, points, len(points))
