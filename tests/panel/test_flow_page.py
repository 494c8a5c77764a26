"""The page of one flow: its picture with what stands where and the same as a table, the filter, and the list."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import IN_MEMORY

from onward import Onward
from onward.errors import OnwardError
from onward.panel.pages import flow as flow_page
from onward.panel.pages.flow import FITS, number_of, reasons, toggled
from onward.ports import Count
from onward.process import Condition
from onward.query import exactly, parse
from onward.testing import ManualClock
from panel.conftest import Panel, entered
from panel.scene import FLOWS, Letter, Report, filled, opened
from panel.strict import Html

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(filled(tmp_path_factory.mktemp("scene"), until=NOW, reports=90, purchases=40))


@pytest.fixture
async def scene(night: Path) -> AsyncIterator[Panel]:
    async with entered(opened(night, clock=ManualClock(NOW))) as panel:
        yield panel


async def facts(panel: Panel, query: str = "", **more: Any) -> Any:
    path = "/flow.json?" + "&".join(f"{name}={quote(str(value))}" for name, value in {"q": query, **more}.items())
    answer = await panel.get(path)
    assert answer.status == 200, answer.text
    return answer.json()


async def page(panel: Panel, query: str = "", **more: Any) -> Html:
    answer = await panel.get("/flow?" + "&".join(f"{n}={quote(str(v))}" for n, v in {"q": query, **more}.items()))
    assert answer.status == 200, answer.text
    return Html(answer.text)


def ids(told: Any) -> list[str]:
    return [record["id"] for record in told["records"]]


# -- where they stand -------------------------------------------------------------------------------------------


async def test_the_table_has_each_status_with_what_stands_there_as_the_store_counts_it(scene: Panel) -> None:
    told = await facts(scene, name="report")
    counts = [count for count in await scene.app.counts() if count.flow == "report"]
    assert [one["status"] for one in told["statuses"]] == list(scene.app.flows["report"].statuses)
    for one in told["statuses"]:
        here = [count for count in counts if count.status == one["status"]]
        assert one["number"] == sum(count.number for count in here)
        assert one["conditions"] == {str(c.condition): c.number for c in sorted(here, key=_order)}
        waiting = [count.oldest for count in here if count.condition not in ("finished", "cancelled")]
        assert one["oldest_s"] == ((NOW - min(waiting)).total_seconds() if waiting else None)
    assert (told["start"], told["on_cancel"]) == ("upload_files", "delete_files")


def _order(count: Count) -> int:
    return flow_page.CONDITIONS.index(count.condition)


async def test_picture_and_table_say_the_same_and_lead_to_the_same_lists(scene: Panel) -> None:
    shown = await page(scene, name="purchase")
    told = await facts(scene, name="purchase")
    twin = shown.one("table", class_="statuses")
    for picture in shown.all("svg", class_="diagram"):
        boxes = {link.get("href"): link.text for link in picture.all("a")}
        for one, row in zip(told["statuses"], twin.all("tr")[1:], strict=True):
            [link] = row.all("a")
            assert link.text == one["status"]
            assert f"{one['number']:,}" in row.text
            assert link.get("href") in boxes
            assert f"{one['number']:,}" in boxes[link.get("href")]
            for condition, number in one["conditions"].items():
                assert f"{number} {condition}" in row.text
    assert len(shown.all("svg", class_="diagram")) == 2, "from left to right, and from top to bottom for phones"


async def test_a_status_that_the_code_no_longer_knows_stands_there_too(scene: Panel) -> None:
    told = await facts(scene, name="purchase")
    [gone] = [one for one in told["statuses"] if not one["declared"]]
    assert (gone["status"], gone["conditions"]) == ("gift_wrapped", {"orphaned": 3})
    listed = await facts(scene, gone["q"], name="purchase")
    assert {record["condition"] for record in listed["records"]} == {"orphaned"}
    assert "not in the table" in (await page(scene, name="purchase")).one("tr", data_row="gift_wrapped").text


async def test_a_flow_that_the_code_does_not_know_is_listed_without_a_picture(scene: Panel) -> None:
    told = await facts(scene, name="feed")
    assert (told["known"], sorted(ids(told))) == (False, ["feed-alps", "feed-coast"])
    shown = await page(scene, name="feed")
    assert not shown.all("svg", class_="diagram")
    assert "not in this code" in shown.one("main").text
    assert "open" in shown.one("details", id="twin").attributes, "the table stands in for the picture"


async def test_a_flow_that_nobody_knows_is_not_found_and_the_nearest_is_named(scene: Panel) -> None:
    answer = await scene.get("/flow?name=reprot")
    assert answer.status == 404
    assert "did you mean report?" in Html(answer.text).one("main").text


async def test_without_a_name_all_flows_are_listed_with_a_column_for_it(scene: Panel) -> None:
    told = await facts(scene, "is:orphaned")
    assert {record["flow"] for record in told["records"]} == {"feed", "purchase"}
    assert (told["number"], told["known"]) == (5, True)
    shown = await page(scene, "is:orphaned")
    assert "Flow" in [head.text for head in shown.one("table", class_="processes").all("th", scope="col")]
    assert not shown.all("button", value="move"), "there is no one flow whose stages could be chosen from"


# -- the filter -------------------------------------------------------------------------------------------------


async def test_the_list_holds_what_matches_and_says_how_many_that_are(scene: Panel) -> None:
    told = await facts(scene, "is:failed", name="report")
    found = await scene.app.find(flow="report", condition="failed", limit=1_000)
    assert ids(told) == [record.id for record in found][:50]
    assert told["number"] == len(found)
    assert all(
        record["next"] == record["error"][:160] or record["error"].startswith(record["next"][:100]) for record in told["records"]
    )
    assert "data" not in told["records"][0], "a list never loads the data"


async def test_a_query_that_means_nothing_is_told_in_its_place_and_the_rest_of_the_page_stays(scene: Panel) -> None:
    shown = await page(scene, "is:faild", name="report")
    field = shown.one("input", name="q")
    assert field.get("aria-invalid") == "true"
    assert "did you mean failed?" in shown.one(id=field.get("aria-describedby")).text
    assert field.get("value") == "is:faild"
    assert shown.all("svg", class_="diagram") and not shown.all("form", id="pick")
    answer = await scene.get("/flow.json?name=report&q=is:faild")
    assert (answer.status, answer.json()["error"]["code"]) == (422, "query"), "a program must not take it for an empty list"


async def test_chips_count_what_they_lead_to_and_lead_back(scene: Panel) -> None:
    told = await facts(scene, "status:create_responses", name="report")
    numbers = {chip["condition"]: chip["number"] for chip in told["conditions"]}
    for chip in told["conditions"]:
        assert (await facts(scene, chip["q"], name="report"))["number"] == chip["number"]
    assert numbers["finished"] == 0 and numbers["failed"] > 0
    on = await facts(scene, "status:create_responses is:failed", name="report")
    [chip] = [chip for chip in on["conditions"] if chip["on"]]
    assert (chip["condition"], chip["q"]) == ("failed", "status:create_responses")


@pytest.mark.parametrize(
    ("query", "term", "then"),
    [
        ("", "is:failed", "is:failed"),
        ("is:failed", "is:failed", ""),
        ("is:waiting age:>1h", "is:failed", "age:>1h is:failed"),
        ("-is:waiting", "is:failed", "-is:waiting is:failed"),
        ('error:"two words" status:a', "status:b", 'error:"two words" status:b'),
    ],
)
def test_a_filter_takes_the_place_of_others_of_its_kind_and_is_taken_away_by_itself(query: str, term: str, then: str) -> None:
    assert toggled(parse(query), parse(term)[0]) == then


COUNTS = [
    Count("a", "one", Condition.FAILED, 1, NOW),
    Count("a", "two", Condition.FAILED, 20, NOW),
    Count("a", "two", Condition.WAITING, 300, NOW),
    Count("b", "one", Condition.FINISHED, 4_000, NOW),
]


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", 4_321),
        ("flow:a", 321),
        ("is:failed", 21),
        ("is:active", 321),
        ("is:failed,waiting status:two", 320),
        ("-is:failed", 4_300),
        ("status:t*", 320),
        (r'status:"t\*"', 0),
        ("-status:one -flow:b", 320),
        ("is:failed error:x", None),
        ("age:>1h", None),
    ],
)
def test_how_many_match_is_known_where_the_counts_tell_it(query: str, number: int | None) -> None:
    assert number_of(parse(query), COUNTS) == number
    assert number_of(parse(query), None) is None


async def test_where_nothing_matches_the_page_names_the_term_that_keeps_it_out(scene: Panel) -> None:
    told = await facts(scene, "is:failed age:<1s status:create_responses", name="report")
    assert (told["records"], told["number"]) == ([], 0)
    assert told["without"] == [{"term": "age:<1s", "q": "is:failed status:create_responses"}]
    shown = await page(scene, "is:failed age:<1s status:create_responses", name="report")
    assert "Something would match without age:<1s" in shown.one("div", class_="empty").text


async def test_errors_of_one_kind_are_one_click_away(scene: Panel) -> None:
    told = await facts(scene, "is:failed", name="report")
    assert sum(one["number"] for one in told["reasons"]) == len(told["records"])
    assert len(told["reasons"]) >= 2
    for one in told["reasons"]:
        narrowed = await facts(scene, one["q"], name="report")
        assert len(narrowed["records"]) == one["number"]
        assert narrowed["reasons"] == [], "there is nothing more to choose"
    assert [one.get("href") for one in (await page(scene, "is:failed", name="report")).all("a", class_="reason")] == [
        f"/flow?name=report&q={quote(one['q'], safe='')}#list" for one in told["reasons"]
    ]


def test_an_error_that_cannot_be_asked_for_is_offered_to_nobody() -> None:
    assert reasons(["1", "12 34", ""], ()) == []
    assert [one["number"] for one in reasons(["no such file a1", "no such file b2", "gone"], ())] == [2, 1]
    assert reasons(["no such file"], parse("error:file")) == []


# -- the list ---------------------------------------------------------------------------------------------------


async def test_pages_follow_each_other_without_a_gap_and_know_where_they_are(panel: Panel) -> None:
    await panel.app.start_many([Letter(id=f"{number:03}", to="x") for number in range(120)])
    everything: list[str] = []
    query: dict[str, Any] = {"name": "letter"}
    for first, last in ((1, 50), (51, 100), (101, 120)):
        told = await facts(panel, **query)
        everything += ids(told)
        shown = await page(panel, **query)
        pager = shown.one("nav", class_="pager")
        assert f"{first}–{last} of 120" in pager.text
        assert bool(pager.all("a", rel="next")) == (last < 120)
        assert ("Newest" in pager.text) == (first > 1)
        query = {"name": "letter", "before": told["next"], "n": last}
    assert everything == [f"{number:03}" for number in reversed(range(120))]


async def test_a_look_that_is_bounded_says_so_and_goes_on_where_it_ended(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_page, "LOOKS_IN_DATA_MAX", 30)
    await panel.app.start(Letter(id="old", to="needle"))
    await panel.app.start_many([Letter(id=f"{number:03}", to="hay") for number in range(40)])
    first = await facts(panel, "data.to:needle", name="letter")
    assert (first["records"], first["number"], first["next"]) == ([], None, None)
    shown = await page(panel, "data.to:needle", name="letter")
    assert "None among the 30 newest" in shown.one("div", class_="empty").text
    second = await facts(panel, "data.to:needle", name="letter", before=first["further"])
    assert (ids(second), second["further"]) == (["old"], None)
    found = await page(panel, "data.to:hay", name="letter")
    assert "only the 30 newest were looked at" in found.one("nav", class_="pager").text


async def test_what_is_selected_goes_to_the_preview_with_the_query_that_was_seen(scene: Panel) -> None:
    shown = await page(scene, "is:failed", name="report")
    form = shown.one("form", id="pick")
    assert (form.get("method"), form.get("action")) == ("post", "/bulk")
    fields = {one.get("name"): one.get("value") for one in form.all("input", type="hidden")}
    assert fields["query"] == "flow:report is:failed"
    assert fields["back"].startswith("/flow?name=report")
    boxes = [box.get("value") for box in form.all("input", name="id")]
    assert boxes == ids(await facts(scene, "is:failed", name="report"))
    verbs = [button.get("value") for button in form.all("button", name="verb")]
    assert verbs == ["retry", "cancel", "move", "stop"]
    assert form.all("input", name="all")
    answer = await scene.post("/bulk", [("id", boxes[0]), ("id", boxes[1])], verb="retry", query=fields["query"])
    assert answer.status == 200 and "Retry 2 processes?" in Html(answer.text).one("h1").text
    answer = await scene.post("/bulk", [("id", boxes[0])], verb="retry", query=fields["query"], all="1")
    assert f"Retry {len(boxes)} processes?" in Html(answer.text).one("h1").text


@pytest.mark.parametrize(
    ("query", "often", "seldom"),
    [
        ("", ["retry", "wake", "pause", "resume", "cancel"], ["move", "stop", "delete"]),
        ("is:failed", ["retry", "cancel"], ["move", "stop"]),
        ("is:paused", ["resume", "cancel"], ["move", "stop"]),
        ("is:over", ["move", "delete"], []),
        ("is:active -is:failed,paused,retrying", ["wake", "pause", "cancel"], ["move", "stop"]),
        ("is:finished is:failed", [], []),
    ],
)
async def test_what_makes_no_sense_for_any_of_them_is_not_offered(
    query: str, often: list[str], seldom: list[str], panel: Panel
) -> None:
    told = await facts(panel, query, name="report")
    assert (told["verbs"], told["seldom"]) == (often, seldom)


async def test_what_can_be_done_is_offered(scene: Panel) -> None:
    """The page's own table of what fits leaves nothing out that control would do."""
    seen = set()
    for record in await scene.app.find(limit=1_000):
        if record.condition in seen:
            continue
        seen.add(record.condition)
        for verb, fits in FITS.items():
            given = {"to": record.status, "force": True, "reason": "x"} if verb == "move" else {}
            try:
                await scene.app.plan(record.id, verb, **given)
            except OnwardError:
                continue
            assert record.condition in fits, verb
    assert seen == set(Condition)


async def test_who_may_not_act_has_nothing_to_select(scene: Panel) -> None:
    for role, verbs in (("viewer", set()), ("operator", {"retry", "wake", "pause", "resume", "cancel"})):
        answer = await scene.seen_by(role).get("/flow?name=report")
        form = Html(answer.text).one("form", id="pick")
        assert {button.get("value") for button in form.all("button", name="verb")} == verbs
        assert bool(form.all("input", name="id")) == bool(verbs)


async def test_the_same_can_be_typed_in_a_shell(scene: Panel) -> None:
    told = await facts(scene, 'is:failed error:"No such File"', name="report")
    [ls, retry] = [shlex.split(one["text"]) for one in told["commands"]]
    assert ls == ["onward", "ls", "flow:report", "is:failed", 'error:"No such File"']
    assert retry == ["onward", "retry", "--query", 'flow:report is:failed error:"No such File"']
    found = await scene.app.find(retry[-1], limit=1_000)
    assert [record.id for record in found] == ids(told)
    assert len((await facts(scene, "is:finished", name="letter"))["commands"]) == 1, "there is nothing to retry"


async def test_an_empty_flow_says_how_to_begin(panel: Panel) -> None:
    empty = (await page(panel, name="report")).one("div", class_="empty")
    assert "onward start report" in empty.text
    assert [link.get("href") for link in empty.all("a")] == ["/start?flow=report"]


@pytest.mark.parametrize(
    "path", ["?name=report", "?name=report&q=is:failed", "?name=purchase&q=x", "", "?q=is:orphaned", "?name=feed"]
)
@pytest.mark.parametrize("role", ["viewer", "admin"])
async def test_every_form_of_the_page_is_sound(path: str, role: str, scene: Panel) -> None:
    answer = await scene.seen_by(role).get(f"/flow{path}")
    assert answer.status == 200
    Html(answer.text)


async def test_a_flow_too_large_for_a_picture_has_its_table(monkeypatch: pytest.MonkeyPatch, scene: Panel) -> None:
    monkeypatch.setattr(flow_page, "picture", lambda *_, **__: "")
    shown = await page(scene, name="report")
    assert not shown.all("svg", class_="diagram")
    assert "open" in shown.one("details", id="twin").attributes


async def test_the_facts_are_json_and_hold_no_drawing(scene: Panel) -> None:
    told = await facts(scene, name="report")
    assert told["schema"] == "onward.panel.flow/1"
    assert not [name for name in told if name.startswith("_")]
    assert "<svg" not in json.dumps(told)


async def test_while_it_counts_for_the_first_time_the_list_is_there_already(monkeypatch: pytest.MonkeyPatch) -> None:
    async with entered(Onward(IN_MEMORY, FLOWS)) as panel:
        await panel.app.start(Report(id="a", topic="x"))
        ready = asyncio.Event()
        counts = panel.app.store.counts

        async def slow() -> Any:
            await ready.wait()
            return await counts()

        monkeypatch.setattr(panel.app.store, "counts", slow)
        shown = await page(panel, name="report")
        assert "Counting…" in shown.one(id="picture").text
        assert shown.one("tr", data_row="a")
        assert shown.one(id="counted").get("data-counted-s") == ""
        ready.set()


def test_a_status_with_a_star_in_its_name_means_just_that_one() -> None:
    counts = [Count("f", name, Condition.READY, number, NOW) for name, number in (("a*b", 1), ("axb", 2))]
    assert number_of([exactly("status", "a*b")], counts) == 1
    assert number_of(parse("status:a*b"), counts) == 3
