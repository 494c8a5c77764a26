"""The pictures of a flow: that they are whole, clear, always the same, and can be read by machines."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum, auto
from itertools import combinations, pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward import END, Every, Flow, Process, stage
from onward.flow import Edge
from onward.graph import as_dict, mermaid, svg, text
from onward.graph.layout import Box, Layout, Metrics, Point, lay_out
from onward.graph.text import Canvas
from onward.graph.words import looks

SVG = "{http://www.w3.org/2000/svg}"


class Desk(StrEnum):
    DRAFTED = auto()
    REVIEWED = auto()
    CORRECTED = auto()
    APPROVED = auto()
    PUBLISHED = auto()
    REJECTED = auto()
    FAILED = auto()


class Article(Process[Desk]):
    status: Desk = Desk.DRAFTED


async def review(article: Article) -> Literal[Desk.REVIEWED]:
    return Desk.REVIEWED


async def ask(article: Article) -> Literal[Desk.REVIEWED, Desk.CORRECTED, Desk.APPROVED, Desk.REJECTED]:
    return Desk.REVIEWED


async def correct(article: Article) -> Literal[Desk.DRAFTED]:
    return Desk.DRAFTED


async def publish(article: Article) -> Literal[Desk.PUBLISHED]:
    return Desk.PUBLISHED


ARTICLE = Flow(
    Article,
    {
        Desk.DRAFTED: stage(review, on_failure=Desk.FAILED),
        Desk.REVIEWED: stage(ask, every=Every(60), within=timedelta(days=14), otherwise=Desk.REJECTED),
        Desk.CORRECTED: correct,
        Desk.APPROVED: stage(publish, on_failure=Desk.FAILED),
        Desk.PUBLISHED: END,
        Desk.REJECTED: END,
        Desk.FAILED: END,
    },
    on_cancel=Desk.REJECTED,
)


class Odd(StrEnum):
    """Nothing keeps a status from holding what XML, Mermaid and terminals have their own meaning for."""

    BEGIN = 'a <b> & "c"; x'
    END = "end"
    BELL = "ring\x07\x1b[31m"


class Strange(Process[Odd]):
    status: Odd = Odd.BEGIN


async def from_begin(one: Strange) -> Literal[Odd.BELL]:
    return Odd.BELL


async def from_bell(one: Strange) -> Literal[Odd.END]:
    return Odd.END


STRANGE = Flow(Strange, {Odd.BEGIN: from_begin, Odd.BELL: from_bell, Odd.END: END})


# -- the layout, on any graph -------------------------------------------------------------------------------------

WHYS: tuple[Literal["", "otherwise", "on_failure", "on_cancel"], ...] = ("", "otherwise", "on_failure", "on_cancel")


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[Edge]]:
    nodes = [f"{'long_' * draw(st.integers(0, 2))}n{number}" for number in range(draw(st.integers(1, 9)))]
    names = st.sampled_from(nodes)
    edges = draw(st.lists(st.builds(Edge, names, names, st.sampled_from(WHYS)), max_size=18, unique=True))
    # A loop is a poll, which is a returned edge; no flow has another.
    return nodes, [edge for edge in edges if edge.source != edge.target or not edge.why]


PIXELS = Metrics(
    length=lambda name, ports: max(80.0, 15.0 * (ports + 1)),
    thickness=40,
    bend=lambda bends: 30,
    pad=8,
    lane=12,
    row_gap=50,
    channel=20,
    track=12,
    start=20,
    loop=30,
    loop_length=40,
    margin=10,
)


def _inside(box: Box, point: Point) -> bool:
    return box.left + 0.01 < point.x < box.right - 0.01 and box.top + 0.01 < point.y < box.bottom - 0.01


def _on_rim(box: Box, point: Point) -> bool:
    inside = box.left - 0.01 <= point.x <= box.right + 0.01 and box.top - 0.01 <= point.y <= box.bottom + 0.01
    return inside and not _inside(box, point)


def _along(points: tuple[Point, ...]) -> Iterator[Point]:
    """Points so close together along the way that no box fits between two of them."""
    for begin, end in pairwise(points):
        steps = int(max(abs(end.x - begin.x), abs(end.y - begin.y)) // 5) + 1
        for step in range(steps + 1):
            yield Point(begin.x + (end.x - begin.x) * step / steps, begin.y + (end.y - begin.y) * step / steps)


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_boxes_never_overlap_and_every_edge_leads_from_its_box_to_its_box_around_all_others(
    graph: tuple[list[str], list[Edge]],
) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges, nodes[0], PIXELS)
    assert set(layout.boxes) == set(nodes)
    for one, other in combinations(layout.boxes.values(), 2):
        apart = one.right < other.left or other.right < one.left or one.bottom < other.top or other.bottom < one.top
        assert apart, (one, other)
    assert [route.edge for route in layout.routes] == edges
    for route in layout.routes:
        assert _on_rim(layout.boxes[route.edge.source], route.points[0])
        assert _on_rim(layout.boxes[route.edge.target], route.points[-1])
        assert 2 <= route.own <= len(route.points)
        for point in _along(route.points):
            assert not any(_inside(box, point) for box in layout.boxes.values()), (route, point)
            assert 0 <= point.x <= layout.width and 0 <= point.y <= layout.height


@given(graphs())
@settings(max_examples=50, deadline=None)
def test_every_rail_is_drawn_whole_by_somebody(graph: tuple[list[str], list[Edge]]) -> None:
    nodes, edges = graph
    routes = lay_out(nodes, edges, nodes[0], PIXELS).routes
    whole = {(route.edge.target, route.edge.why) for route in routes if route.own == len(route.points)}
    assert {(route.edge.target, route.edge.why) for route in routes} == whole


@given(graphs())
@settings(max_examples=50, deadline=None)
def test_equal_input_gives_the_equal_picture_and_turning_it_loses_nothing(graph: tuple[list[str], list[Edge]]) -> None:
    nodes, edges = graph
    layout: Layout = lay_out(nodes, edges, nodes[0], PIXELS)
    assert layout == lay_out(nodes, edges, nodes[0], PIXELS)
    assert layout.turned().turned() == layout


def test_what_comes_later_stands_farther_right_and_the_longest_way_is_one_straight_line() -> None:
    edges = [Edge("a", "b"), Edge("a", "d"), Edge("b", "c"), Edge("c", "d"), Edge("d", "b"), Edge("c", "x", "on_failure")]
    boxes = lay_out(["a", "b", "c", "d", "x"], edges, "a", PIXELS).boxes
    assert boxes["a"].left < boxes["b"].left < boxes["c"].left < boxes["d"].left
    assert len({boxes[name].top for name in "abcd"}) == 1
    assert boxes["x"].top > boxes["a"].top


# -- text ---------------------------------------------------------------------------------------------------------


def test_the_drawing_in_characters() -> None:
    assert text(ARTICLE) == (
        """\
drafted ──▶ reviewed ↺ ┬───▶ approved ───┬─▶ published
  ┊ ▲            ┆     │                 ┊
  ┊ │            ┆     ├───▶ corrected ╮ ╰┈▶ failed
  ┊ │            ┆     │               │       ▲
  ┊ │            ┆     ╰───▶ rejected  │       ┊
  ┊ │            ┆               ▲     │       ┊
  ┊ │            ╰┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄╯     │       ┊
  ┊ ╰──────────────────────────────────╯       ┊
  ╰┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈┈╯

┄┄┄ deadline   ┈┈┈ failure   cancelled: goes on at rejected
"""
    )


def test_what_does_not_fit_the_terminal_is_a_list_with_every_way_out() -> None:
    listed = text(ARTICLE, width=40)
    assert "● drafted" in listed and "■ published" in listed
    for edge in ARTICLE.edges():
        if edge.why != "on_cancel" and edge.source != edge.target:
            [line] = [line for line in listed.splitlines() if line[2:].startswith(edge.source)]
            assert edge.target in line


def test_characters_that_a_terminal_would_obey_are_not_drawn() -> None:
    for width in (200, 10):
        assert "\x07" not in text(STRANGE, width) and "\x1b" not in text(STRANGE, width)


@given(graphs())
@settings(max_examples=100, deadline=None)
def test_a_drawing_in_characters_has_all_names_whole_and_a_tip_at_each_target(graph: tuple[list[str], list[Edge]]) -> None:
    nodes, edges = graph
    edges = [edge for edge in edges if edge.source != edge.target]
    canvas = Canvas({node: node.upper() for node in nodes}, edges, nodes[0])
    drawn = canvas.drawn()
    if drawn is not None:  # None: it would not be clear, and the list is shown instead
        for node in nodes:
            assert node.upper() in "\n".join(drawn)
        assert len(canvas.tips) <= len(edges) and len(canvas.tips) >= len({edge.target for edge in edges})


def test_a_drawing_in_which_two_edges_would_seem_one_is_not_shown() -> None:
    edges = [Edge("a", "d"), Edge("b", "c"), Edge("a", "b"), Edge("a", "c", "otherwise"), Edge("b", "d", "on_failure")]
    clear = Canvas({"a": "a", "b": "b"}, [Edge("a", "b")], "a")
    assert clear.drawn() == ["a ──▶ b"]
    clear.strokes[0, 99] = dict.fromkeys(edges[:2], 12)
    assert not clear.is_clear()


# -- SVG ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("flow", [ARTICLE, STRANGE], ids=["article", "strange"])
def test_the_svg_has_every_box_and_every_edge_and_says_itself_in_words(flow: Flow[Any], down: bool) -> None:
    drawn = svg(flow, down=down)
    root = ET.fromstring(drawn)
    assert len(root.findall(f".//{SVG}g[@data-status]")) == len(flow.statuses)
    paths = [path for path in root.iter(f"{SVG}path") if path.get("data-source") is not None]
    assert len(paths) == len(list(flow.edges()))
    assert root.findtext(f"{SVG}title") == f"The flow {flow.name}"
    assert root.get("role") == "img" and root.findtext(f"{SVG}desc")
    assert "prefers-color-scheme: dark" in drawn
    assert "var(" not in drawn and "http" not in drawn.replace("http://www.w3.org/2000/svg", "")
    assert drawn == svg(flow, down=down)


def test_the_kinds_of_edges_differ_in_their_dashes_and_not_only_in_colour() -> None:
    drawn = svg(ARTICLE)
    dashes = [
        line.partition("stroke-dasharray: ")[2].split(";")[0].split("}")[0].strip()
        for line in drawn.splitlines()
        if "dasharray" in line
    ]
    assert len(set(dashes)) == 3
    for word in ("returned", "deadline", "failure", "cancel"):
        assert f">{word}<" in drawn


def test_colours_are_legible_on_their_paper_in_both_schemes() -> None:
    from onward.graph.svg import _DARK, _LIGHT

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for palette in (_LIGHT, _DARK):
        for name, least in {"INK": 7, "SOFT": 4.5, "LINE": 3, "START": 3, "END": 3, "WARN": 3, "FAIL": 3, "OFF": 3}.items():
            light, dark = sorted((luminance(palette[name]), luminance(palette["PAPER"])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= least, name


# -- Mermaid and plain values ---------------------------------------------------------------------------------------


def test_mermaid_of_a_plain_flow() -> None:
    assert mermaid(ARTICLE) == (
        """\
stateDiagram-v2
    direction LR
    [*] --> drafted
    drafted --> reviewed
    drafted --> failed : on failure
    reviewed --> reviewed : not yet, every 1 min
    reviewed --> corrected
    reviewed --> approved
    reviewed --> rejected
    reviewed --> rejected : not done within 14 d
    corrected --> drafted
    approved --> published
    approved --> failed : on failure
    published --> [*]
    rejected --> [*]
    failed --> [*]
    note right of rejected : a cancelled process goes on here
"""
    )


def test_mermaid_gives_short_names_to_statuses_that_it_would_misread() -> None:
    drawn = mermaid(STRANGE)
    assert 'state "a #60;b#62; #38; #34;c#34;#59; x" as s0' in drawn
    assert 'state "end" as s1' in drawn or 'state "end" as s2' in drawn
    assert "\x07" not in drawn and drawn.count("[*] -->") == 1


def test_the_flow_as_plain_values_is_json() -> None:
    facts = json.loads(json.dumps(as_dict(ARTICLE)))
    assert facts["start"] == "drafted" and facts["on_cancel"] == "rejected"
    assert facts["statuses"][1] == {
        "status": "reviewed", "end": False, "handler": "ask", "attempts": 5, "timeout_s": 600.0, "every_s": [60.0, 60.0],
        "within_s": 1_209_600.0,
    }  # fmt: skip
    assert {"source": "reviewed", "target": "rejected", "why": "otherwise"} in facts["edges"]


def test_how_often_a_stage_looks_is_said_in_few_words() -> None:
    def flow(every: Every) -> Flow[Desk]:
        table = {
            **dict.fromkeys(Desk, END),
            Desk.DRAFTED: review,
            Desk.REVIEWED: stage(ask, every=every),
            Desk.CORRECTED: correct,
        }
        return Flow(Article, {**table, Desk.APPROVED: stage(publish, on_failure=Desk.FAILED)})  # type: ignore[dict-item]

    assert looks(flow(Every(2)), "reviewed") == "every 2 s"
    assert looks(flow(Every(2, 30)), "reviewed") == "every 2 – 30 s"
    assert looks(flow(Every(2, 300)), "reviewed") == "every 2 s – 5 min"
    assert looks(ARTICLE, "drafted") == ""
