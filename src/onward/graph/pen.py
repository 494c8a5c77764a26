"""The strokes of every SVG: ways as paths with round corners, and the tips at their ends. What they mean is said by classes."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

from onward.graph.layout import Box, Point, Route

RADIUS = 9.0


def px(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def shown(route: Route) -> tuple[Point, ...]:
    """Its own points, and where it joins a rail the curve onto that: dashes drawn twice would look like a solid line."""
    if route.own == len(route.points):
        return route.points
    (x, y), onto = route.points[route.own - 1], route.points[route.own]
    far = hypot(onto.x - x, onto.y - y)
    part = min(1.0, RADIUS / far) if far else 0.0
    return (*route.points[: route.own], Point(x + (onto.x - x) * part, y + (onto.y - y) * part))


def course(points: Sequence[Point], down: bool) -> str:
    """Straight pieces with round corners; a slanting piece becomes a soft double curve."""
    points = [point for number, point in enumerate(points) if not number or point != points[number - 1]]
    shape = f"M{px(points[0].x)} {px(points[0].y)}"
    for before, here, after in zip(points, points[1:], [*points[2:], None], strict=False):
        if abs(before.x - here.x) > 0.01 and abs(before.y - here.y) > 0.01:
            half = Point(before.x, (before.y + here.y) / 2) if down else Point((before.x + here.x) / 2, before.y)
            rest = Point(here.x, half.y) if down else Point(half.x, here.y)
            shape += f" C{px(half.x)} {px(half.y)} {px(rest.x)} {px(rest.y)} {px(here.x)} {px(here.y)}"
        elif after is None or _slanting(here, after):
            shape += f" L{px(here.x)} {px(here.y)}"
        else:
            radius = min(RADIUS, _length(before, here) / 2, _length(here, after) / 2)
            begin, end = towards(here, before, radius), towards(here, after, radius)
            shape += f" L{px(begin.x)} {px(begin.y)} Q{px(here.x)} {px(here.y)} {px(end.x)} {px(end.y)}"
    return shape


def _slanting(here: Point, there: Point) -> bool:
    return abs(here.x - there.x) > 0.01 and abs(here.y - there.y) > 0.01


def _length(here: Point, there: Point) -> float:
    return hypot(here.x - there.x, here.y - there.y)


def towards(here: Point, there: Point, far: float) -> Point:
    part = far / (_length(here, there) or 1.0)
    return Point(here.x + (there.x - here.x) * part, here.y + (there.y - here.y) * part)


def loop_course(points: Sequence[Point], down: bool) -> str:
    (x0, y0), (_, y1), (x2, _), (x3, y3) = points
    if down:
        turn = x0 - 22
        return f"M{px(x0)} {px(y0)} H{px(turn + 9)} a9 9 0 0 0 -9 9 V{px(y3 - 9)} a9 9 0 0 0 9 9 H{px(x3 - 6)}"
    return f"M{px(x0)} {px(y0)} V{px(y1 + 9)} a9 9 0 0 1 9 -9 H{px(x2 - 9)} a9 9 0 0 1 9 9 V{px(y3 - 6)}"


def beside_loop(points: Sequence[Point], down: bool) -> str:
    """Where the words of a loop stand, as attributes of their text."""
    (x0, y0), (_, y1), (x2, _), (_, y3) = points
    if down:
        return f'x="{px(x0 - 28)}" y="{px((y0 + y3) / 2 + 4)}" text-anchor="end"'
    return f'x="{px((x0 + x2) / 2)}" y="{px(y1 - 5)}" text-anchor="middle"'


def shortened(points: Sequence[Point]) -> Point:
    """The end, drawn back beneath the arrow's tip, so that the line does not stick out of it."""
    return towards(points[-1], points[-2], 6)


def arrow_tip(points: Sequence[Point], why: str) -> str:
    end, back = points[-1], towards(points[-1], points[-2], 9)
    aside = Point((end.y - back.y) * 0.45, (back.x - end.x) * 0.45)
    corners = (end, Point(back.x + aside.x, back.y + aside.y), Point(back.x - aside.x, back.y - aside.y))
    return f'<path class="tip {why}" d="M' + " L".join(f"{px(x)} {px(y)}" for x, y in corners) + 'Z"/>'


def start_mark(box: Box, down: bool) -> str:
    middle = box.middle
    end = Point(middle.x, box.top) if down else Point(box.left, middle.y)
    dot = Point(middle.x, box.top - 22) if down else Point(box.left - 22, middle.y)
    line = (towards(dot, end, 5), end)
    shaft = course((line[0], shortened(line)), down)
    return f'<circle class="dot" cx="{px(dot.x)}" cy="{px(dot.y)}" r="5"/><path class="edge" d="{shaft}"/>{arrow_tip(line, "")}'
