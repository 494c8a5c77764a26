"""The pictures of the panel: whole, clear, always the same, and harmless whatever a status is called."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import StrEnum
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest
from conftest import Leg, Trip, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph import ARTICLE, PIXELS, STRANGE, graphs

import onward.panel
from onward import END, Condition, Every, Flow, Process, Retry, stage
from onward.demo.flow import check_status
from onward.flow import Edge
from onward.graph.fold import folded
from onward.graph.layout import Layout, Point, lay_out
from onward.graph.live import ORDER, Standing, picture
from onward.graph.passed import Now, Passed, path_picture, walked
from onward.graph.sheet import NAME_CHARS_MAX, READABLE_MAX, STATUSES_MAX
from onward.graph.words import plain
from onward.testing import ManualClock

SVG = "{http://www.w3.org/2000/svg}"
PANEL = Path(onward.panel.__file__).parent
C = Condition


# -- any flow -----------------------------------------------------------------------------------------------------


def flow_of(names: list[str], rows: list[dict[str, Any]], cancel: int | None = None) -> Flow[Any]:
    """A chain of these names, the last of them END, with what `rows` add to each: more targets, polls, ways out by number."""
    kind: Any = StrEnum("Kind", {f"S{number}": name for number, name in enumerate(names)})
    members = list(kind)
    model = type("Any", (Process[kind],), {"__annotations__": {"status": kind}, "status": members[0], "__module__": __name__})
    table: dict[Any, Any] = {members[-1]: END}
    for number, row in enumerate(rows):
        here = members[number]
        targets = {members[number + 1], *(members[to] for to in row.get("to", ()) if to != number)}
        ways = {key: members[row[key]] for key in ("otherwise", "on_failure") if row.get(key, number) != number}
        more: dict[str, Any] = {"within": timedelta(hours=1)} if "otherwise" in ways else {}
        more |= {"every": Every(2, 30)} if row.get("poll") else {}

        async def handler(process: Any) -> Any: ...

        returned = Literal[tuple([*targets, here] if row.get("poll") else targets)]  # type: ignore[valid-type]
        handler.__annotations__ = {"process": model, "return": returned}
        table[here] = stage(handler, **ways, **more)
    return Flow(model, table, on_cancel=None if cancel is None else members[cancel], name=names[0])


NAMES = st.one_of(
    st.text(min_size=1, max_size=40),
    st.from_regex(r"[a-z]{1,12}(_[a-z]{1,9}){0,3}", fullmatch=True),
    st.sampled_from(
        ["<script>alert(1)</script>", '"><a href="javascript:x">', "a & b", "' onload='x", "\x00\x1b[31m", "]]>", "&lt;"]
    ),
)


@st.composite
def flows(draw: st.DrawFn) -> Flow[Any]:
    names = draw(st.lists(NAMES, min_size=2, max_size=12, unique=True))
    anywhere = st.integers(0, len(names) - 1)
    row = st.fixed_dictionaries(
        {"to": st.lists(anywhere, max_size=3), "poll": st.booleans()},
        optional={"otherwise": anywhere, "on_failure": anywhere},
    )
    rows = [draw(row) for _ in names[:-1]]
    return flow_of(names, rows, draw(st.none() | anywhere))


COUNTS = st.dictionaries(st.sampled_from(list(C)), st.integers(0, 20_000))
SPANS = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=4_000))
STANDINGS = st.builds(Standing, COUNTS, st.none() | SPANS, st.booleans())
PAIRS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=4)


def link(status: str) -> str:
    return f"/flow?name=any&q={quote(f'status:{status}', safe='')}"


def pairs_of(flow: Flow[Any], numbers: list[tuple[int, int]], more: tuple[str, ...] = ()) -> set[tuple[str, str]]:
    names = [*flow.statuses, *more]
    return {(names[one % len(names)], names[other % len(names)]) for one, other in numbers}


def parsed(drawn: str) -> ET.Element:
    """As an XML parser reads it; in HTML it needs no namespace, and has none."""
    return ET.fromstring(drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def stages(root: ET.Element) -> list[ET.Element]:
    return [each for each in root if each.get("data-status") is not None]


def frame(card: ET.Element) -> tuple[float, float, float, float]:
    place = re.fullmatch(r"translate\(([\d.]+) ([\d.]+)\)", card.get("transform", ""))
    box = card.find(f"{SVG}rect[@class='box']")
    assert place is not None and box is not None
    left, top = float(place[1]), float(place[2])
    return left, top, left + float(box.get("width", "")), top + float(box.get("height", ""))


def lines(root: ET.Element) -> Counter[tuple[str | None, str | None]]:
    return Counter(
        (path.get("data-source"), path.get("data-target"))
        for path in root.iter(f"{SVG}path")
        if path.get("data-source") is not None
    )


TAGS = {"svg", "g", "a", "title", "text", "tspan", "rect", "circle", "path", "use"}
ATTRIBUTES = {
    "class",
    "viewBox",
    "width",
    "height",
    "role",
    "aria-label",
    "aria-hidden",
    "aria-current",
    "x",
    "y",
    "rx",
    "cx",
    "cy",
    "r",
    "d",
}
ATTRIBUTES |= {"transform", "text-anchor", "href", "data-status", "data-source", "data-target"}


def assert_harmless(root: ET.Element, links: list[str]) -> None:
    """A strict policy lets all of it pass, and nothing in it can meet another picture on its page."""
    for element in root.iter():
        tag = element.tag.removeprefix(SVG)
        assert tag in TAGS and set(element.attrib) <= ATTRIBUTES, (tag, element.attrib)
        if tag == "use":
            assert re.fullmatch(r"#i-[a-z]+", element.get("href", ""))
    assert [card.get("href") for card in root.iter(f"{SVG}a")] == links


def assert_clear(root: ET.Element) -> None:
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert (root.get("width"), root.get("height")) == (f"{width:.0f}", f"{height:.0f}")
    frames = [frame(card) for card in stages(root)]
    for left, top, right, bottom in frames:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    for one, other in combinations(frames, 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1], (one, other)


def assert_named(root: ET.Element, statuses: list[str]) -> None:
    assert [card.get("data-status") for card in stages(root)] == [plain(status) for status in statuses]
    for card in stages(root):
        name = "".join(span.text or "" for span in card.iter(f"{SVG}tspan"))
        said = card.get("data-status", "")
        assert name == said or ("…" in name and len(said) > NAME_CHARS_MAX), (name, said)
        assert (card.findtext(f"{SVG}title") or "").startswith(said)
        assert card.get("aria-label", "").startswith(f"{said}: ")


@given(flows(), st.lists(STANDINGS, max_size=14), PAIRS, st.booleans())
@settings(max_examples=120, deadline=None)
def test_the_live_picture_of_any_flow(
    flow: Flow[Any], counted: list[Standing], numbers: list[tuple[int, int]], down: bool
) -> None:
    standing = dict(zip([*flow.statuses, "gone", "also <gone>"], counted, strict=False))
    strangers = [status for status, here in standing.items() if status not in flow.stages and here.number]
    seen = pairs_of(flow, numbers, ("gone", "never there"))
    drawn = picture(flow, standing, link=link, seen=seen, down=down)
    assert drawn == picture(flow, standing, link=link, seen=sorted(seen, reverse=True), down=down)
    if not drawn:
        return
    root, statuses = parsed(drawn), [*flow.statuses, *strangers]
    assert_harmless(root, [link(status) for status in statuses])
    assert_clear(root)
    assert_named(root, statuses)
    table = list(flow.edges())
    allowed = {(edge.source, edge.target) for edge in table}
    declared = [(edge.source, edge.target) for edge in table if edge.why != "on_cancel"]
    bugs = [pair for pair in seen if pair not in allowed and {*pair} <= {*statuses}]
    assert lines(root) == Counter((plain(one), plain(other)) for one, other in [*declared, *bugs])
    assert len(
        [
            path
            for path in root.iter(f"{SVG}path")
            if path.get("class") == "edge undeclared" and path.get("data-source") is not None
        ]
    ) == len(bugs)


@st.composite
def paths(draw: st.DrawFn) -> tuple[Flow[Any], Passed, Now]:
    flow = draw(flows())
    names = st.sampled_from([*flow.statuses, "gone", "also <gone>"])
    whys: Any = st.sampled_from(["", "otherwise", "on_failure", "on_cancel"])
    edges = st.sampled_from(list(flow.edges())) | st.builds(Edge, names, names, whys)
    passed = Passed(
        visits=draw(st.dictionaries(names, st.integers(1, 5_000), max_size=8)),
        spent=draw(st.dictionaries(names, SPANS, max_size=8)),
        taken=draw(st.dictionaries(edges, st.integers(1, 5_000), max_size=8)),
    )
    return flow, passed, Now(draw(names), draw(st.sampled_from(list(C))), draw(st.text(max_size=60)))


@given(paths(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_the_way_of_one_process_through_any_flow(given: tuple[Flow[Any], Passed, Now], down: bool) -> None:
    flow, passed, now = given

    def linked(status: str) -> str:
        return link(status) if status in passed.visits else ""

    drawn = path_picture(flow, passed, now, link=linked, down=down)
    assert drawn == path_picture(flow, passed, now, link=linked, down=down)
    if not drawn:
        return
    root = parsed(drawn)
    statuses = [*flow.statuses, *dict.fromkeys(s for s in (*passed.visits, now.status) if s not in flow.stages)]
    assert_harmless(root, [link(status) for status in statuses if status in passed.visits])
    assert_clear(root)
    assert_named(root, statuses)
    table = {(edge.source, edge.target) for edge in flow.edges()}
    shown = {(edge.source, edge.target) for edge in flow.edges() if edge.why != "on_cancel"}
    gone = {(edge.source, edge.target) for edge in passed.taken}
    expected = shown | {pair for pair in gone if pair in table or {*pair} <= {*statuses}}
    assert set(lines(root)) == {(plain(one), plain(other)) for one, other in expected}
    looks = dict(zip(statuses, ((card.get("class") or "").split() for card in stages(root)), strict=True))
    assert [status for status, look in looks.items() if "now" in look] == [now.status]
    assert str(now.condition) in looks[now.status]
    for status, look in looks.items():
        if status != now.status:
            assert ("resolved" if status in passed.visits else "unreached") in look


# -- folding ------------------------------------------------------------------------------------------------------


def pieces_of(layout: Layout) -> Iterator[tuple[Edge, Point, Point]]:
    for route in layout.routes:
        for begin, end in pairwise(route.points):
            yield route.edge, begin, end


def crossings(layout: Layout) -> Counter[frozenset[Edge]]:
    """How often a level piece of one edge and an upright one of another cross."""
    level = [piece for piece in pieces_of(layout) if piece[1].y == piece[2].y]
    upright = [piece for piece in pieces_of(layout) if piece[1].x == piece[2].x]
    found: Counter[frozenset[Edge]] = Counter()
    for one, begin, end in level:
        for other, top, bottom in upright:
            across = min(begin.x, end.x) < top.x < max(begin.x, end.x)
            if one != other and across and min(top.y, bottom.y) < begin.y < max(top.y, bottom.y):
                found[frozenset((one, other))] += 1
    return found


@given(graphs(), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_a_folded_drawing_has_the_same_boxes_and_ways_and_no_crossing_more(
    graph: tuple[list[str], list[Edge]], number: int
) -> None:
    nodes, edges = graph
    flat = lay_out(nodes, edges, nodes[0], PIXELS)
    page = folded(flat, number)
    assert folded(flat, 1) == flat
    assert list(page.boxes) == list(flat.boxes) and [route.edge for route in page.routes] == edges
    for box in page.boxes.values():
        old = flat.boxes[box.name]
        assert (box.right - box.left, box.bottom - box.top) == pytest.approx((old.right - old.left, old.bottom - old.top))
    for one, other in combinations(page.boxes.values(), 2):
        assert one.right < other.left or other.right < one.left or one.bottom < other.top or other.bottom < one.top
    for route in page.routes:
        source, target = page.boxes[route.edge.source], page.boxes[route.edge.target]
        for box, point in ((source, route.points[0]), (target, route.points[-1])):
            assert box.left - 0.01 <= point.x <= box.right + 0.01 and box.top - 0.01 <= point.y <= box.bottom + 0.01
        assert 2 <= route.own <= len(route.points)
    for _, begin, end in pieces_of(page):
        for x, y in (begin, end, Point((begin.x + end.x) / 2, (begin.y + end.y) / 2)):
            assert 0 <= x <= page.width and 0 <= y <= page.height
        if begin.x == end.x or begin.y == end.y:
            for box in page.boxes.values():
                beside = max(begin.x, end.x) <= box.left + 0.01 or box.right - 0.01 <= min(begin.x, end.x)
                assert beside or max(begin.y, end.y) <= box.top + 0.01 or box.bottom - 0.01 <= min(begin.y, end.y)
    assert crossings(page) == crossings(flat)


def test_a_long_chain_is_folded_to_the_width_of_a_page_and_a_short_one_stays_in_one_piece() -> None:
    def size(number: int) -> tuple[float, int]:
        flow = flow_of([f"status_{n}" for n in range(number)], [{} for _ in range(number - 1)])
        root = parsed(picture(flow, {}, link=link))
        return float(root.get("width", "")), len({frame(card)[1] for card in stages(root)})

    assert [size(number)[1] for number in (2, 6, 9, 15, 24, 40)] == [1, 1, 1, 2, 3, 5]
    assert all(size(number)[0] <= 1_400 for number in (2, 6, 9, 15, 24, 40))


def test_too_many_statuses_are_no_picture() -> None:
    def chain(number: int) -> Flow[Any]:
        return flow_of([f"status_{n}" for n in range(number)], [{} for _ in range(number - 1)])

    most, more = chain(STATUSES_MAX), chain(STATUSES_MAX + 1)
    now = Now("status_0", C.RUNNING)
    assert picture(most, {}, link=link) and path_picture(most, Passed(), now)
    assert picture(more, {}, link=link) == "" == path_picture(more, Passed(), now)
    assert picture(most, {"gone": Standing({C.ORPHANED: 1})}, link=link) == ""


def test_what_is_too_wide_to_be_followed_is_no_picture() -> None:
    ways = [{"to": list(range(1, 25))}, *({"to": [25]} for _ in range(24)), {}]
    fan = flow_of([f"a_rather_long_name_{n}" for n in range(27)], ways)
    drawn = picture(fan, {}, link=link, down=True)
    assert drawn == "" or float(parsed(drawn).get("width", "")) <= READABLE_MAX


# -- the demo's flow ----------------------------------------------------------------------------------------------

STANDING = {
    "files_created": Standing({C.RUNNING: 3}, timedelta(seconds=2.4)),
    "files_uploaded": Standing({C.RUNNING: 6, C.RETRYING: 8, C.FAILED: 3}, timedelta(minutes=3, seconds=9)),
    "responses_reasoning": Standing({C.RUNNING: 4, C.WAITING: 119, C.RETRYING: 1}, timedelta(minutes=4, seconds=12)),
    "files_deleted": Standing({C.FAILED: 1}, timedelta(hours=7, minutes=3)),
    "process_deleted": Standing({C.FINISHED: 9_990, C.CANCELLED: 10}, timedelta(days=9), at_least=True),
}


def test_every_box_says_how_many_stand_there_since_when_and_how_many_failed() -> None:
    root = parsed(picture(check_status, STANDING, link=link))
    assert root.get("role") == "group"
    assert root.get("aria-label") == "The flow batch and how many processes stand at each of its statuses"
    assert [card.get("aria-label") for card in stages(root)] == [
        "files_created: 3 processes, oldest 2.4 s",
        "files_uploaded: 17 processes, oldest 3 min 9 s, 3 failed",
        "responses_created: 0 processes",
        "responses_reasoning: 124 processes, oldest 4 min 12 s",
        "responses_completed: 0 processes",
        "files_deleted: 1 process, oldest 7 h 3 min, 1 failed",
        "responses_deleted: 0 processes",
        "responses_finished: 0 processes",
        "process_deleted: 10,000+ processes",
    ]
    figures = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "figure"]
    assert figures == ["3", "17", "0", "124", "0", "1", "0", "0", "10,000+"]
    reasoning = stages(root)[3]
    assert reasoning.findtext(f"{SVG}title") == (
        "responses_reasoning: check_responses, up to 5 attempts, every 2 – 30 s, within 1 d\n"
        "leads to responses_completed\ndeadline: responses_completed\nfailure: responses_completed\n"
        "4 running, 119 waiting, 1 retrying, the oldest for 4 min 12 s"
    )


def test_what_failed_is_marked_by_a_drawing_and_a_number_and_not_by_colour_alone() -> None:
    root = parsed(picture(check_status, STANDING, link=link))
    marked = {
        card.get("data-status"): [text.text for text in card.iter(f"{SVG}text") if text.get("class") == "failures"]
        for card in stages(root)
        if card.find(f"{SVG}use[@href='#i-failed']") is not None
    }
    assert marked == {"files_uploaded": ["3"], "files_deleted": ["1"]}
    roomy = picture(ARTICLE, {"drafted": Standing({C.FAILED: 37})}, link=link)
    assert ">37 failed<" in roomy


def test_the_parts_of_a_bar_are_as_wide_as_their_numbers_and_none_of_them_vanishes() -> None:
    standing = {"drafted": Standing({C.FAILED: 1, C.WAITING: 9_000, C.RUNNING: 3_000, C.READY: 0})}
    [*parts] = parsed(picture(ARTICLE, standing, link=link)).findall(f".//{SVG}a/{SVG}rect[@height='5']")
    assert [part.get("class") for part in parts] == ["part running", "part waiting", "part failed"]
    running, waiting, failed = (float(part.get("width", "")) for part in parts)
    assert waiting / running == pytest.approx(3, abs=0.3)
    assert 2.9 <= failed <= 3.1
    for one, other in pairwise(parts):
        assert float(one.get("x", "")) + float(one.get("width", "")) < float(other.get("x", ""))


def legend_of(root: ET.Element) -> list[str | None]:
    [legend] = root.findall(f"{SVG}g[@class='legend']")
    return [text.text for text in legend.iter(f"{SVG}text")]


def test_cancelling_is_one_line_of_the_legend_and_no_arrow_from_every_box() -> None:
    root = parsed(picture(check_status, STANDING, link=link))
    assert legend_of(root) == [
        "returned", "deadline", "failure", "cancelled: goes on at responses_completed",
        "running", "waiting", "retrying", "failed", "finished", "cancelled",
    ]  # fmt: skip
    drawn = [path for path in root.iter(f"{SVG}path") if path.get("data-source") is not None]
    assert len(drawn) == len([edge for edge in check_status.edges() if edge.why != "on_cancel"])
    assert not [path for path in drawn if "on_cancel" in (path.get("class") or "")]


def test_what_was_seen_but_not_declared_is_drawn_as_such_and_what_a_cancel_did_is_not() -> None:
    seen = [
        ("files_created", "responses_finished"),
        ("files_created", "files_uploaded"),
        ("files_deleted", "responses_completed"),  # as a cancel may
        ("files_created", "nowhere"),
    ]
    root = parsed(picture(check_status, {}, link=link, seen=seen))
    marked = [
        path for path in root.iter(f"{SVG}path") if path.get("class") == "edge undeclared" and path.get("data-source") is not None
    ]
    assert [(path.get("data-source"), path.get("data-target")) for path in marked] == [("files_created", "responses_finished")]
    assert "undeclared" in [text.text for text in root.iter(f"{SVG}text")]
    assert "seen, but not in the table" in legend_of(root)


def test_a_status_that_the_table_does_not_have_gets_a_box_of_its_own() -> None:
    root = parsed(picture(check_status, {"transcoded": Standing({C.ORPHANED: 2}, timedelta(hours=5))}, link=link))
    stranger = stages(root)[-1]
    assert stranger.get("class") == "stage unknown"
    assert stranger.get("aria-label") == "transcoded: 2 processes, oldest 5 h"
    assert "not in the table" in (stranger.findtext(f"{SVG}title") or "")


# -- the way of one process ---------------------------------------------------------------------------------------

WAY = Passed(
    visits={"files_created": 1, "files_uploaded": 2, "responses_created": 1, "responses_reasoning": 1},
    spent={
        "files_created": timedelta(seconds=1.2),
        "files_uploaded": timedelta(seconds=245),
        "responses_created": timedelta(seconds=0.04),
    },
    taken={
        Edge("files_created", "files_uploaded"): 1,
        Edge("files_uploaded", "responses_created"): 1,
        Edge("responses_created", "responses_reasoning"): 1,
        Edge("responses_reasoning", "responses_reasoning"): 9,
        Edge("responses_created", "files_uploaded"): 2,
    },
)


def test_the_way_of_a_process_is_resolved_now_or_not_reached() -> None:
    now = Now("responses_reasoning", C.WAITING, "looks again in 12 s, looked 9×")
    root = parsed(path_picture(check_status, WAY, now))
    assert [card.get("class") for card in stages(root)] == [
        "stage start resolved", "stage resolved", "stage resolved", "stage now waiting",
        "stage unreached", "stage unreached", "stage unreached", "stage unreached", "stage end unreached",
    ]  # fmt: skip
    assert [card.get("aria-label") for card in stages(root)][:5] == [
        "files_created: resolved, 1.2 s",
        "files_uploaded: resolved, came here 2 times, 4 min 5 s in all",
        "responses_created: resolved, 40 ms",
        "responses_reasoning: now waiting, looks again in 12 s, looked 9×",
        "responses_completed: not reached",
    ]
    assert [card.get("data-status") for card in stages(root) if card.get("aria-current")] == ["responses_reasoning"]
    assert root.get("aria-label") == "The way of this process through the flow batch: now at responses_reasoning, waiting"
    drawings = {card.get("data-status"): [use.get("href") for use in card.iter(f"{SVG}use")] for card in stages(root)}
    assert drawings["files_created"] == ["#i-finished"] and drawings["responses_reasoning"] == ["#i-waiting"]
    assert drawings["files_deleted"] == []
    assert "looks again in 12 s" in [text.text for text in stages(root)[3].iter(f"{SVG}text")]


def drawn_as(root: ET.Element) -> dict[tuple[str | None, str | None, str], str]:
    """(source, target, kind) -> taken or idle."""
    found = {}
    for path in root.iter(f"{SVG}path"):
        if path.get("data-source") is not None:
            _, *kind, state = (path.get("class") or "").split()
            found[path.get("data-source"), path.get("data-target"), "".join(kind)] = state
    return found


def test_ways_taken_are_told_from_those_not_taken_by_their_kind_and_counted() -> None:
    root = parsed(path_picture(check_status, WAY, Now("responses_reasoning", C.WAITING)))
    drawn = drawn_as(root)
    assert {edge for edge, state in drawn.items() if state == "taken"} == {
        ("files_created", "files_uploaded", ""),
        ("files_uploaded", "responses_created", ""),
        ("responses_created", "responses_reasoning", ""),
        ("responses_reasoning", "responses_reasoning", ""),
        ("responses_created", "files_uploaded", "undeclared"),
    }
    labels = [text.text for text in root.findall(f"{SVG}text")]
    assert sorted(filter(None, labels)) == ["undeclared ×2", "×9"]
    assert "not in the table" in legend_of(root)

    gave_up = Passed({"files_uploaded": 1}, {}, {Edge("responses_created", "responses_completed", "on_failure"): 1})
    drawn = drawn_as(parsed(path_picture(check_status, gave_up, Now("responses_completed", C.READY))))
    here = {
        kind: state for (one, other, kind), state in drawn.items() if (one, other) == ("responses_created", "responses_completed")
    }
    assert here == {"": "idle", "otherwise": "idle", "on_failure": "taken"}


def test_a_cancel_is_drawn_where_it_was_taken_and_nowhere_else() -> None:
    cancelled = Passed(
        {"files_created": 1, "responses_completed": 1}, {}, {Edge("files_created", "responses_completed", "on_cancel"): 1}
    )
    drawn = drawn_as(parsed(path_picture(check_status, cancelled, Now("responses_completed", C.WAITING))))
    assert [edge for edge in drawn if edge[2] == "on_cancel"] == [("files_created", "responses_completed", "on_cancel")]


def test_an_orphan_stands_in_a_box_of_its_own() -> None:
    passed = Passed({"drafted": 1, "in_translation": 1}, {}, {Edge("drafted", "in_translation"): 1})
    root = parsed(path_picture(ARTICLE, passed, Now("in_translation", C.ORPHANED)))
    assert stages(root)[-1].get("class") == "stage now orphaned unknown"
    assert drawn_as(root)["drafted", "in_translation", "undeclared"] == "taken"


def test_nothing_that_a_status_is_called_gets_out_of_its_text() -> None:
    drawn = picture(STRANGE, {}, link=link) + path_picture(STRANGE, Passed(), Now("<b>", C.ORPHANED, "<i>\x07 & co"))
    assert "\x07" not in drawn and "\x1b" not in drawn
    assert "<b>" not in drawn and "<i>" not in drawn and "&lt;b&gt;" in drawn


# -- what history says --------------------------------------------------------------------------------------------


async def way_of(flow: Flow[Any], process: Process[Any], act: Callable[[Any], Any] | None = None) -> tuple[Passed, Any]:
    """What a real process left behind: driven until it rests for good, each wait one call of the clock."""
    clock = ManualClock()
    async with opened(flow, clock=clock) as app:
        await app.start(process)
        record = await app.check(process.id)
        if act is not None:
            await act(app)
            record = await app.get(process.id)
        while record.due_at is not None:
            clock.advance(record.due_at - record.as_of)
            record = await app.check(process.id)
        clock.advance(5)
        return walked(await app.history(process.id), clock.now()), record


def trip(looks: list[Any], **policies: Any) -> Flow[Any]:
    async def book(trip: Trip) -> Literal[Leg.TRAVEL]:
        return Leg.TRAVEL

    async def track(trip: Trip) -> Literal[Leg.TRAVEL, Leg.BOOK, Leg.OVER]:
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found  # type: ignore[no-any-return]

    async def clean(trip: Trip) -> Literal[Leg.OVER]:
        return Leg.OVER

    line = stage(track, every=Every(seconds=60), retry=Retry(attempts=1), on_failure=Leg.CLEAN, **policies)
    return Flow(Trip, {Leg.BOOK: book, Leg.TRAVEL: line, Leg.CLEAN: clean, Leg.OVER: END}, on_cancel=Leg.CLEAN)


async def test_visits_time_and_ways_are_read_from_the_history_of_a_real_process() -> None:
    passed, _ = await way_of(trip([Leg.TRAVEL, Leg.TRAVEL, Leg.BOOK, Leg.TRAVEL, Leg.OVER]), Trip(id="a"))
    assert passed.visits == {Leg.BOOK: 2, Leg.TRAVEL: 2, Leg.OVER: 1}
    assert passed.taken == {
        Edge(Leg.BOOK, Leg.TRAVEL): 2,
        Edge(Leg.TRAVEL, Leg.TRAVEL): 3,
        Edge(Leg.TRAVEL, Leg.BOOK): 1,
        Edge(Leg.TRAVEL, Leg.OVER): 1,
    }
    assert timedelta(seconds=150) < passed.spent[Leg.TRAVEL] < timedelta(seconds=240)
    assert (passed.spent[Leg.BOOK], passed.spent[Leg.OVER]) == (timedelta(), timedelta(seconds=5))


async def test_the_history_says_why_a_way_was_taken() -> None:
    failed, _ = await way_of(trip([ValueError("lost")]), Trip(id="a"))
    assert failed.taken[Edge(Leg.TRAVEL, Leg.CLEAN, "on_failure")] == 1
    late, _ = await way_of(trip([Leg.TRAVEL] * 9, within=timedelta(seconds=90), otherwise=Leg.CLEAN), Trip(id="a"))
    assert late.taken[Edge(Leg.TRAVEL, Leg.CLEAN, "otherwise")] == 1
    cancelled, record = await way_of(trip([Leg.TRAVEL] * 9), Trip(id="a"), lambda app: app.cancel("a"))
    assert cancelled.taken[Edge(Leg.TRAVEL, Leg.CLEAN, "on_cancel")] == 1
    assert record.condition is C.CANCELLED


def test_of_no_history_nothing_is_said() -> None:
    assert walked([], ManualClock().now()) == Passed()


# -- the page around it -------------------------------------------------------------------------------------------


def test_the_pages_have_the_drawings_and_the_colours_of_every_condition() -> None:
    icons = (PANEL / "templates" / "icons.html").read_text(encoding="utf-8")
    style = (PANEL / "static" / "panel.css").read_text(encoding="utf-8")
    assert set(ORDER) == set(C)
    for condition in C:
        assert f'id="i-{condition}"' in icons
        assert f".{condition}" in style and f".diagram .now.{condition} .box" in style
    for look in ("otherwise", "on_failure", "on_cancel", "undeclared"):
        dashes = re.findall(rf"\.diagram \.edge\.{look} {{[^}}]*stroke-dasharray: ([^;]*);", style)
        assert len(dashes) == 1, look


def test_the_kinds_of_lines_differ_in_their_dashes_and_not_only_in_colour() -> None:
    style = (PANEL / "static" / "panel.css").read_text(encoding="utf-8")
    found = re.findall(r"\.diagram \.edge\.(?:otherwise|on_failure|on_cancel|undeclared) {[^}]*stroke-dasharray: ([^;]*);", style)
    assert len(found) == len(set(found)) == 4
