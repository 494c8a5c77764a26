"""A drawing that is too wide for its page, cut between columns and set like a text: the next piece stands beneath the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from onward.graph.layout import Box, Layout, Point, Route

_CLEAR = 4.0  # so far behind a column every line is level: that is where it can be cut
_LANE = 9.0  # between two lines that turn into the next piece
_TURN = 14.0  # between a piece and the first of those
_MARGIN = 14.0  # above and beneath a piece
_LOOP_WORDS = 16.0  # what stands above a loop


@dataclass(frozen=True)
class _Piece:
    """The columns from one cut to the next, and by how much they are moved."""

    begin: float
    end: float
    top: float
    bottom: float


def folded(layout: Layout, pieces: int) -> Layout:
    """In so many pieces of about as many columns each. Lines that are cut go on round the end, and none of those cross."""
    cuts = _cuts(layout, pieces)
    return _Fold(layout, cuts).layout() if cuts else layout


def _cuts(layout: Layout, pieces: int) -> list[float]:
    ends: dict[float, float] = {}
    for box in layout.boxes.values():
        ends[box.left] = max(ends.get(box.left, 0.0), box.right)
    columns = [ends[left] for left in sorted(ends)]
    each = -(-len(columns) // max(1, pieces))
    return [columns[number - 1] + _CLEAR for number in range(each, len(columns), each)]


class _Fold:
    def __init__(self, layout: Layout, cuts: list[float]) -> None:
        self.flat, self.cuts = layout, cuts
        self.levels = [self._levels(cut) for cut in cuts]
        self.pieces = [self._piece(begin, end) for begin, end in pairwise((0.0, *cuts, layout.width))]
        self.left = _TURN + _LANE * max(map(len, self.levels))
        self.width = self.left + max(piece.end - piece.begin for piece in self.pieces) + self.left
        self.shift: list[float] = []  # by how much each piece is moved down
        y = 0.0
        for number, piece in enumerate(self.pieces):
            self.shift.append(y - piece.top)
            y += piece.bottom - piece.top
            if number < len(cuts):
                y += _TURN * 2 + _LANE * (len(self.levels[number]) - 1)
        self.height = y

    def layout(self) -> Layout:
        boxes = {name: self._box(box) for name, box in self.flat.boxes.items()}
        return Layout(boxes, tuple(self._route(route) for route in self.flat.routes), self.width, self.height)

    def _levels(self, cut: float) -> list[float]:
        """The heights at which lines cross this cut, from above."""
        pairs = (pair for route in self.flat.routes for pair in pairwise(route.points))
        return sorted({begin.y for begin, end in pairs if min(begin.x, end.x) < cut < max(begin.x, end.x)})

    def _piece(self, begin: float, end: float) -> _Piece:
        heights = [y for box in self.flat.boxes.values() if begin < box.left < end for y in (box.top, box.bottom)]
        for route in self.flat.routes:
            words = _LOOP_WORDS if route.edge.source == route.edge.target else 0
            for one, other in pairwise(route.points):
                if min(one.x, other.x) < end and begin < max(one.x, other.x):
                    heights += (one.y - words, other.y)
        return _Piece(begin, end, min(heights) - _MARGIN, max(heights) + _MARGIN)

    def _number(self, x: float) -> int:
        return sum(cut < x for cut in self.cuts)

    def _moved(self, point: Point, number: int) -> Point:
        return Point(point.x - self.pieces[number].begin + (self.left if number else 0), point.y + self.shift[number])

    def _box(self, box: Box) -> Box:
        number = self._number(box.left)
        begin, end = self._moved(Point(box.left, box.top), number), self._moved(Point(box.right, box.bottom), number)
        return Box(box.name, begin.x, begin.y, end.x, end.y)

    def _route(self, route: Route) -> Route:
        points, own = [self._moved(route.points[0], self._number(route.points[0].x))], 1
        for number, (begin, end) in enumerate(pairwise(route.points), 2):
            points += self._turns(begin, end)
            points.append(self._moved(end, self._number(end.x)))
            if number <= route.own:
                own = len(points)
        return replace(route, points=tuple(points), own=own)

    def _turns(self, begin: Point, end: Point) -> Iterator[Point]:
        first, last = self._number(begin.x), self._number(end.x)
        if first <= last:
            for number in range(first, last):
                yield from self._turn(number, begin.y)
        else:
            for number in range(first - 1, last - 1, -1):
                yield from reversed(self._turn(number, begin.y))

    def _turn(self, number: int, y: float) -> list[Point]:
        """Round the end, back between the pieces, and in again: the uppermost outermost, and so the lowest between them."""
        levels, upper = self.levels[number], self.pieces[number]
        place = levels.index(y)
        rest = len(levels) - 1 - place
        right = self._moved(Point(upper.end, y), number).x + _TURN / 2 + _LANE * rest
        between = upper.bottom + self.shift[number] + _TURN / 2 + _LANE * rest
        left = self.left - _TURN / 2 - _LANE * place
        return [
            Point(right, y + self.shift[number]),
            Point(right, between),
            Point(left, between),
            Point(left, y + self.shift[number + 1]),
        ]
