"""The page of one process: why it does not move, what to press, what happened, and what each step changed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward import Onward
from onward.panel.shown import contents, story
from onward.panel.shown.timeline import AXIS, Axis, rows_of
from onward.panel.shown.trouble import error_parts
from onward.process import Entry
from onward.testing import ManualClock
from panel.conftest import Panel, entered
from panel.odd import CANARY, NASTY, Doc, filled_file, opened, rewrite, with_long_history
from panel.scene import letters
from panel.strict import Html
from panel.walk import digest

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PAGES = ("/process", "/process.json", "/edit", "/edit.json", "/move", "/fork", "/fork.json", "/data.json")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def odd(path: Path, clock: ManualClock) -> AsyncIterator[Panel]:
    """An admin before a store in a file with a process in each condition, named after it."""
    async with entered(opened(await filled_file(path, NOW), clock)) as panel:
        yield panel


async def facts(panel: Panel, id: str, **query: Any) -> Any:
    asked = "".join(f"&{name.rstrip('_')}={value}" for name, value in query.items())
    answer = await panel.get(f"/process.json?id={quote(id, safe='')}{asked}")
    assert answer.status == 200, answer.text
    return answer.json()


async def page(panel: Panel, id: str, **query: Any) -> Html:
    asked = "".join(f"&{name.rstrip('_')}={value}" for name, value in query.items())
    answer = await panel.get(f"/process?id={quote(id, safe='')}{asked}")
    assert answer.status == 200, answer.text
    return Html(answer.text)


def verbs(html: Html) -> list[str]:
    """What can be pressed, in the order of the page."""
    posted = [field.get("value") for field in html.one(id="answer").all("input") if field.get("name") == "verb"]
    asked = [link.get("href") for link in html.one(id="answer").all("a", class_="button")]
    return posted + [href.partition("verb=")[2] or href.partition("?")[0].strip("/") for href in asked]


# -- each condition says what it should -------------------------------------------------------------------------------

EXPECTED = {
    "waits": ("waiting", "look said 'not yet' once and looks again in 1 min", "", {"wake", "pause"}),
    "failed": ("failed", "it waits for a person", "retry", {"retry"}),
    "retries": (
        "retrying",
        "Attempt 1 of 4 failed with ConnectionError: the service is busy",
        "retry",
        {"retry", "wake", "pause"},
    ),
    "paused": ("paused", "A person paused it", "resume", {"resume"}),
    "finished": ("finished", "It reached its end", "", set()),
    "cancelled": ("waiting", "begins in 1 s", "", {"wake", "pause"}),
    "ready": ("ready", "It is due now, and the next free worker takes it.", "", {"pause"}),
}


@pytest.mark.parametrize("id", EXPECTED)
async def test_each_condition_says_why_it_does_not_move_and_offers_what_helps(odd: Panel, id: str) -> None:
    condition, says, helps, direct = EXPECTED[id]
    told, html = await facts(odd, id), await page(odd, id)
    assert told["process"]["condition"] == condition
    answer = html.one(id="answer")
    assert says in answer.text
    assert f"is-{condition}" in answer.get("class")
    assert html.one(id="title").all(class_="badge")[0].text == condition
    assert {one["verb"] for one in told["actions"] if one["fits"] and not one["page"]} == direct
    assert [one["verb"] for one in told["actions"] if one["helps"]] == ([helps] if helps else [])
    primary = answer.all(class_="primary")
    assert [one.text for one in primary] == ([told["helps"]["label"]] if helps else [])
    for action in told["actions"]:  # what does not fit says why, and is no button
        assert bool(action["why"]) is not action["fits"]
        assert action["fits"] or action["why"] in answer.text
        assert (action["verb"] in verbs(html)) is action["fits"]


async def test_what_runs_can_be_paused_and_says_to_be_paused_before_it_is_changed(odd: Panel) -> None:
    await odd.app.store.claim([("doc", "fetch", 1)], "worker-7", 1, timedelta(minutes=5), ["ready"])
    told, html = await facts(odd, "ready"), await page(odd, "ready")
    assert told["process"]["condition"] == "running"
    assert "worker-7 runs attempt 1 of fetch" in html.one(id="answer").text
    assert {"pause", "cancel", "stop", "fork"} == set(verbs(html))
    why = {one["verb"]: one["why"] for one in told["actions"]}
    assert "worker-7 is running fetch" in why["edit"] and "worker-7 is running fetch" in why["move"]


async def test_a_cancelled_process_that_is_cleaned_up_says_so_and_when_it_is_over_offers_to_delete_it(odd: Panel) -> None:
    assert "cleaning up after being cancelled" in (await page(odd, "cancelled")).one(id="title").text
    odd.app.clock.advance(timedelta(seconds=2))  # type: ignore[attr-defined]
    await odd.app.check("cancelled")
    html = await page(odd, "cancelled")
    assert "it was cancelled, cleaned up and ended" in html.one(id="answer").text.lower()
    assert set(verbs(html)) == {"move", "fork", "delete"}


async def test_an_unknown_status_offers_to_move_it_and_is_drawn(odd: Panel, path: Path) -> None:
    rewrite(path, "ready", status="transcode")
    told, html = await facts(odd, "ready"), await page(odd, "ready")
    assert told["process"]["condition"] == "orphaned"
    assert "The flow doc has no status 'transcode'" in html.one(id="answer").text
    assert [one["verb"] for one in told["actions"] if one["helps"]] == ["move"]
    assert "transcode" in html.one(id="way").text
    assert (await odd.get("/move?id=ready")).status == 200


async def test_an_unknown_flow_is_shown_as_far_as_the_row_goes(odd: Panel, path: Path) -> None:
    async with entered(Onward(f"sqlite:///{path}", [letters])) as other:
        told, html = await facts(other, "waits"), await page(other, "waits")
        assert told["process"]["condition"] == "orphaned"
        assert "This code has no flow 'doc'" in html.one(id="answer").text
        assert "no picture" in html.one(id="way").text
        assert set(verbs(html)) == {"pause", "stop"} and told["helps"] is None
        assert not (await other.get("/edit?id=waits")).text.count("<textarea")


async def test_data_that_do_not_fit_the_model_offer_to_be_edited(odd: Panel, path: Path) -> None:
    rewrite(path, "ready", data=json.dumps({"subject": "x", "token": {"$secret": CANARY}}))
    told, html = await facts(odd, "ready"), await page(odd, "ready")
    assert told["misfit"] == "its data does not fit Doc: topic: Field required" and told["helps"]["verb"] == "edit"
    assert "No handler can read its data: its data does not fit Doc: topic: Field required" in html.one(id="answer").text
    edit = Html((await odd.get("/edit?id=ready")).text)
    assert "does not know subject any more" in edit.one("main").text


@pytest.mark.parametrize("data", ['{"topic": ', "[" * 400 + "]" * 400, "nothing", "[1, 2]", '"text"', "3"])
async def test_data_that_are_no_object_do_not_break_the_page(odd: Panel, path: Path, data: str) -> None:
    rewrite(path, "ready", data=data)
    for where in PAGES:
        assert (await odd.get(f"{where}?id=ready")).status == 200, where
    assert "No handler can read its data" in (await page(odd, "ready")).one(id="answer").text


async def test_of_broken_data_that_may_hold_a_secret_nothing_is_shown(odd: Panel, path: Path) -> None:
    rewrite(path, "ready", data=f'{{"token": {{"$secret": "{CANARY}"}}, ')
    rewrite(path, "failed", data=f'{{"token": {{"\\u0024secret": "{CANARY}"}}, ')
    for id in ("ready", "failed"):
        for where in PAGES:
            assert CANARY not in (await odd.get(f"{where}?id={id}")).text, where


async def test_a_viewer_sees_it_all_and_can_press_nothing(odd: Panel) -> None:
    viewer = odd.seen_by("viewer")
    told, html = await facts(viewer, "failed"), await page(viewer, "failed")
    assert told["actions"] == [] and told["helps"] is None
    assert verbs(html) == [] and "You are viewer" in html.one(id="answer").text
    operator = odd.seen_by("operator")
    assert set(verbs(await page(operator, "failed"))) == {"retry", "cancel"}


async def test_who_may_not_look_at_this_process_does_not_see_it(path: Path) -> None:
    def authorize(request: Any, action: str, record: Any) -> Any:
        from panel.conftest import authorize as everybody

        return None if record is not None and record.id == "failed" else everybody(request, action, record)

    from onward.panel import panel as make

    async with opened(await filled_file(path, NOW), ManualClock(NOW)) as app:
        panel = Panel(make(app, authorize=authorize), app=app)
        for where in PAGES:
            assert (await panel.get(f"{where}?id=failed")).status == 403, where
            assert (await panel.get(f"{where}?id=ready")).status == 200, where
        assert (await panel.get("/confirm?id=failed&verb=cancel")).status == 403


async def test_bulk_actions_are_processes_too(odd: Panel) -> None:
    from onward import bulk

    process = bulk.Bulk(id="many", verb="retry", query="is:failed", actor="ada", role="admin", total=1, until=NOW)  # type: ignore[arg-type]
    await odd.app.start(process)
    assert (await page(odd, "many")).one(id="title").all(class_="badge")[0].text == "ready"


# -- errors -------------------------------------------------------------------------------------------------------------

TRACEBACK = """Traceback (most recent call last):
  File "/app/jobs/upload.py", line 40, in upload
    await client.post(url)
  File "/usr/lib/python3.11/site-packages/httpx/client.py", line 9, in post
    raise
httpx.ReadTimeout: the read operation timed out"""


def test_an_error_is_told_by_kind_text_and_place() -> None:
    told = error_parts("RateLimitError: 429: too many (flow.py:70 in ask)")
    assert (told["kind"], told["said"], told["place"]) == ("RateLimitError", "429: too many", "flow.py:70 in ask")
    assert error_parts("spinning: more than 1,000")["kind"] == ""
    assert error_parts("") == {"kind": "", "said": "", "place": None, "own": [], "library": []}


def test_of_a_traceback_the_frames_of_the_user_come_first_and_those_of_libraries_apart() -> None:
    told = error_parts(TRACEBACK)
    assert (told["kind"], told["said"]) == ("httpx.ReadTimeout", "the read operation timed out")
    assert [(frame["file"], frame["line"]) for frame in told["own"]] == [("/app/jobs/upload.py", 40)]
    assert [frame["function"] for frame in told["library"]] == ["post"]


async def test_a_traceback_stands_on_the_page_with_its_library_frames_folded(odd: Panel, path: Path) -> None:
    rewrite(path, "failed", error=TRACEBACK)
    answer = (await page(odd, "failed")).one(id="answer")
    assert answer.all(class_="answer-error")[0].text == "httpx.ReadTimeout: the read operation timed out"
    assert "/app/jobs/upload.py:40 in upload" in answer.text
    [folded] = [one for one in answer.all("details") if "libraries" in one.text]
    assert "site-packages/httpx" in folded.text and "open" not in folded.attributes


async def test_an_endless_error_does_not_fill_the_page(odd: Panel, path: Path) -> None:
    rewrite(path, "failed", error="ValueError: " + "x" * 50_000)
    answer = (await page(odd, "failed")).one(id="answer")
    assert len(answer.all(class_="answer-error")[0].text) < 400
    assert len(answer.all("details")[0].text) > 49_000


# -- hostile names and secrets ----------------------------------------------------------------------------------------------


async def test_hostile_names_are_text_on_every_page(odd: Panel) -> None:
    id = quote(NASTY, safe="")
    for where in ("/process", "/edit", "/move", "/fork", "/confirm", "/process", "/start"):
        answer = await odd.get(f"{where}?id={id}&verb=stop&flow=doc")
        assert answer.status == 200, where
        html = Html(answer.text)
        assert (not html.all("img") and "{{7*7}}" in answer.text.replace("&#123;", "{")) or where == "/start"
    failed = await page(odd, "failed")
    assert "no such file" in failed.one(id="answer").text and not failed.all("img")


@pytest.mark.parametrize(
    "id", ["..", "../../etc/passwd", "a/b", "%2e%2e", "\U0001f600", "0", "a\u202eb", "x" * 300, "", "nobody"]
)
async def test_an_id_is_only_ever_a_name(odd: Panel, id: str) -> None:
    for where in (*PAGES, "/confirm"):
        answer = await odd.get(f"{where}?id={quote(id, safe='')}&verb=stop")
        assert answer.status == 404, where


async def test_a_download_has_a_harmless_name(odd: Panel) -> None:
    answer = await odd.get(f"/data.json?id={quote(NASTY, safe='')}")
    assert answer.header("content-disposition") == 'attachment; filename="img-src-x-onerror-alert-1-7-7-etc-passwd-v0.json"'
    assert answer.json()["topic"] == NASTY


async def test_no_page_shows_a_secret(odd: Panel) -> None:
    data = json.loads((await odd.app.get("waits")).data)
    await odd.app.edit("waits", {**data, "token": {"$secret": CANARY + "-2"}, "pages": 2})
    for id in ("waits", "failed", "ready", "finished"):
        for where in (*PAGES, "/confirm"):
            for more in ("", "&version=1", "&version=0&from=0", "&data=whole"):
                answer = await odd.get(f"{where}?id={id}&verb=cancel{more}")
                assert answer.status in (200, 404)
                assert CANARY not in answer.text, (where, id, more)
    told = await facts(odd, "waits")
    assert {one["path"]: (one["before"], one["after"]) for one in told["data"]["changes"]} == {
        "token": ('"••••••••"', '"••••••••" (another one)'),
        "pages": ("1", "2"),
    }


async def test_looking_changes_nothing(odd: Panel, path: Path) -> None:
    before = digest(path)
    for id in [*EXPECTED, quote(NASTY, safe="")]:
        for where in PAGES:
            await odd.get(f"{where}?id={id}")
        for verb in ("cancel", "stop", "delete", "retry", "wake", "pause", "resume", "edit", "nothing"):
            await odd.get(f"/confirm?id={id}&verb={verb}")
    await odd.get("/start?flow=doc")
    assert digest(path) == before


# -- the timeline -----------------------------------------------------------------------------------------------------------


async def test_each_attempt_and_act_is_a_row_and_runs_of_polls_and_saves_are_one(odd: Panel, clock: ManualClock) -> None:
    for _ in range(3):
        clock.advance(timedelta(minutes=5))
        await odd.app.check("waits")
    await odd.app.pause("waits", actor="ines", reason="lunch")
    told = (await facts(odd, "waits"))["timeline"]["rows"]
    assert [(row["words"], row["stage"], row["to"], row["times"]) for row in told] == [
        ("paused", "await", "await", 1),
        ("not yet", "await", "await", 4),
        ("done", "write", "await", 1),
        ("done", "fetch", "write", 1),
        ("saved its data", "fetch", "fetch", 2),
        ("started", "fetch", "fetch", 1),
    ]
    assert [row["version"] for row in told] == [9, 8, 4, 3, 2, 0] and told[1]["first_version"] == 5
    text = (await page(odd, "waits")).one("table", class_="timeline").text
    assert "×4" in text and "by ines: lunch" in text and "by api" in text


async def test_retries_say_which_attempt_and_the_same_error_only_once(odd: Panel, clock: ManualClock) -> None:
    for _ in range(3):
        clock.advance(timedelta(hours=1))
        await odd.app.check("retries")
    clock.advance(timedelta(seconds=5))
    told = await facts(odd, "retries")
    rows = told["timeline"]["rows"]
    assert [row["words"] for row in rows[:4]] == [
        "attempt 4 failed: waits for a person",
        *(f"attempt {n} failed" for n in (3, 2, 1)),
    ]
    assert [row["again"] for row in rows[:4]] == [False, True, True, True]
    assert rows[0]["error"]["kind"] == "ConnectionError"
    assert [row["waited"] is not None for row in rows[:3]] == [True] * 3
    assert (await page(odd, "retries")).one("table", class_="timeline").text.count("the service is busy") == 2  # now, and its row


INSTANTS = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1), timezones=st.just(UTC))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(INSTANTS, st.timedeltas(timedelta(0), timedelta(days=3))), min_size=1, max_size=20))
def test_bars_stay_on_the_axis_and_in_the_order_of_time(spans: list[tuple[datetime, timedelta]]) -> None:
    whole = [(start, start + length) for start, length in spans]
    axis = Axis(whole)
    for start, end in whole:
        bar = axis.bar(start, end)
        assert bar["x"] >= 0 and bar["x"] + bar["width"] <= AXIS + 1 and bar["width"] > 0
    places = [axis.at(instant) for instant in sorted(instant for span in whole for instant in span)]
    assert places == sorted(places) and places[-1] <= AXIS + 1e-6


def test_waits_that_dwarf_the_work_are_drawn_shorter_and_a_longer_one_still_longer() -> None:
    second, hour = timedelta(seconds=1), timedelta(hours=1)
    starts = [NOW, NOW + hour, NOW + 10 * hour]
    axis = Axis([(start, start + second) for start in starts])
    first, middle, last = (axis.bar(start, start + second) for start in starts)
    assert axis.is_cut
    assert first["width"] > AXIS / 10  # the work can be seen
    assert last["x"] - middle["x"] > middle["x"] - first["x"]
    assert not Axis([(NOW, NOW + hour), (NOW + hour + second, NOW + 2 * hour)]).is_cut


def entry(version: int, kind: str = "not yet", transition: int = 1, **more: Any) -> Entry:
    told: dict[str, Any] = {
        "from_status": "a",
        "to_status": "a",
        "attempt": 1,
        "epoch": 1,
        "actor": "w",
        "took": 0.1,
        "reason": None,
        "data": None,
    }
    return Entry(
        process_id="x", version=version, at=NOW + timedelta(minutes=version), kind=kind, transition=transition, **told | more
    )


def test_rows_of_different_visits_are_not_one() -> None:
    rows = rows_of([entry(3), entry(4), entry(5, transition=2), entry(6, "saved", 2), entry(7, "saved", 3)])
    assert [(row.first, row.line.times) for row in rows] == [(3, 2), (5, 1), (6, 1), (7, 1)]


# -- long histories -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def long(path: Path, clock: ManualClock) -> AsyncIterator[tuple[Panel, list[int]]]:
    """One process with 20,000 polls, and how many entries each reading of the history has taken."""
    async with entered(opened(f"sqlite:///{path}", clock)) as panel:
        await panel.app.start(Doc(id="long", topic="harbour"))
        await panel.app.check("long")
        with_long_history(path, "long", 20_000)
        read: list[int] = []
        plain = panel.app.store.history

        async def counted(*args: Any, **options: Any) -> list[Entry]:
            entries = await plain(*args, **options)
            read.append(len(entries))
            assert options.get("light"), "a page of a long history must not read its data"
            return entries

        panel.app.store.history = counted  # type: ignore[method-assign]
        yield panel, read


async def test_a_long_history_is_read_from_its_end_and_never_in_full(long: tuple[Panel, list[int]]) -> None:
    panel, read = long
    told, html = await facts(panel, "long"), await page(panel, "long")
    assert max(read) <= story.READ_MAX
    assert sum(read) <= 2 * (story.ENTRIES_MAX + 2 * story.READ_MAX)  # the facts, and then the page
    [row] = told["timeline"]["rows"]
    assert row["times"] == story.ENTRIES_MAX and told["timeline"]["is_part"]
    assert "and more" in html.one("table", class_="timeline").text
    states = {one["status"]: one["state"] for one in told["statuses"]}
    assert states == {"fetch": "resolved", "write": "resolved", "await": "now", "clean": "not reached", "done": "not reached"}
    assert told["counted_all"]  # all that is left out is of one visit
    assert "×20,001" in html.one(id="way").text


async def test_older_pages_go_on_without_a_gap(long: tuple[Panel, list[int]]) -> None:
    panel, _ = long
    told = (await facts(panel, "long"))["timeline"]
    seen = [(row["first_version"], row["version"]) for row in told["rows"]]
    while told["older"]:
        told = (await facts(panel, "long", before=told["older"]))["timeline"]
        seen += [(row["first_version"], row["version"]) for row in told["rows"]]
    assert seen[0][1] == 20_005 and seen[-1][0] == 0
    assert all(newer[0] == older[1] + 1 for newer, older in pairwise(seen))


async def test_an_old_version_is_shown_with_the_history_around_it(long: tuple[Panel, list[int]]) -> None:
    panel, read = long
    told = await facts(panel, "long", version=7_000)
    assert told["past"]["version"] == 7_000 and told["timeline"]["rows"][0]["version"] == 7_000
    assert told["data"]["changes"] == [{"op": "changed", "path": "pages", "before": "6994", "after": "6995"}]
    assert (told["previous"], told["later"]) == (6_999, 7_001)
    assert sum(read) < 3 * story.ENTRIES_MAX


async def test_a_history_of_many_short_rows_comes_in_pages(path: Path, clock: ManualClock) -> None:
    async with entered(opened(f"sqlite:///{path}", clock)) as panel:
        await panel.app.start(Doc(id="busy", topic="x"))
        for _ in range(70):
            await panel.app.pause("busy", actor="ines")
            await panel.app.resume("busy", actor="ines")
        told = (await facts(panel, "busy"))["timeline"]
        assert len(told["rows"]) == story.ROWS_MAX and told["older"] == 140 - story.ROWS_MAX + 1
        older = (await facts(panel, "busy", before=told["older"]))["timeline"]
        assert older["rows"][0]["version"] == told["older"] - 1 and older["is_newest"] is False
        assert (await page(panel, "busy", before=told["older"])).one(id="timeline").all("a", href="/process?id=busy")


async def test_where_history_was_pruned_the_rest_is_shown(odd: Panel, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM onward_history WHERE process_id = 'waits' AND version < 4")
    connection.close()
    told = await facts(odd, "waits")
    assert [row["version"] for row in told["timeline"]["rows"]] == [5, 4] and told["timeline"]["older"] is None
    assert told["counted_all"] is False
    assert (await odd.get("/process?id=waits&version=2")).status == 404
    assert (await page(odd, "waits")).one(id="timeline")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM onward_history WHERE process_id = 'waits'")
    connection.close()
    assert "pruned" in (await page(odd, "waits")).one(id="timeline").text


# -- data ---------------------------------------------------------------------------------------------------------------------


async def test_what_a_version_changed_is_told_path_by_path_and_between_any_two(odd: Panel) -> None:
    told = await facts(odd, "finished", version=1)
    assert told["data"]["changes"] == [{"op": "added", "path": 'files["minutes.md"]', "before": None, "after": '"file-min01"'}]
    assert (told["data"]["from"], told["data"]["version"], told["previous"], told["later"]) == (0, 1, 0, 2)
    whole = await facts(odd, "finished", from_=0, version=told["process"]["version"])
    assert [one["path"] for one in whole["data"]["changes"]] == ["log[0]"]
    backwards = await facts(odd, "finished", from_=told["process"]["version"], version=1)
    assert {one["op"] for one in backwards["data"]["changes"]} == {"added", "removed"}
    started = await facts(odd, "finished", version=0)
    assert {one["op"] for one in started["data"]["changes"]} == {"added"} and started["previous"] is None


async def test_the_version_before_and_after_are_links_with_rel_and_key(odd: Panel) -> None:
    html = await page(odd, "finished", version=2)
    [back], [on] = html.all("a", rel="prev"), html.all("a", rel="next")
    assert (back.get("href"), back.get("data-key")) == ("/process?id=finished&version=1", "[")
    assert (on.get("href"), on.get("data-key")) == ("/process?id=finished&version=3", "]")


async def test_an_earlier_version_can_only_be_looked_at_and_forked(odd: Panel) -> None:
    html = await page(odd, "waits", version=2)
    assert "As it was after version 2" in html.one(id="answer").text
    assert not html.one(id="answer").all("form")
    assert [one.get("href") for one in html.one(id="answer").all("a")] == ["/process?id=waits", "/fork?id=waits&at=2"]
    told = await facts(odd, "waits", version=2)
    assert told["actions"] == [] and told["past"]["to"] == "fetch"
    assert {one["status"]: one["state"] for one in told["statuses"]}["await"] == "not reached"
    last = (await odd.app.get("waits")).version
    assert (await facts(odd, "waits", version=last))["past"] is None  # that is the present


@pytest.mark.parametrize("version", ["99", "-1", "x", "1e3", "9" * 40, "٣", "1.0", " 1"])
async def test_a_version_that_is_not_there_is_not_found(odd: Panel, version: str) -> None:
    for name in ("version", "from", "before"):
        if (name, version) != ("from", "-1"):
            assert (await odd.get(f"/process?id=waits&{name}={quote(version)}")).status == 404, name
    assert (await odd.get(f"/fork?id=waits&at={quote(version)}")).status == 404
    assert (await odd.get(f"/data.json?id=waits&version={quote(version)}")).status == 404


async def test_large_data_are_cut_shown_on_demand_or_only_downloaded(odd: Panel) -> None:
    await odd.app.start(Doc(id="large", topic="x" * 60_000, words=["ä" * 50_000]))
    await odd.app.start(Doc(id="huge", topic="y" * 600_000))
    cut, whole = await odd.get("/process?id=large"), await odd.get("/process?id=large&data=whole")
    assert len(cut.body) < 80_000 < len(whole.body)
    assert "Show all of it" in cut.text and "Show all of it" not in whole.text
    huge = await odd.get("/process?id=huge&data=whole")
    assert len(huge.body) < 400_000 and "too large for a page" in huge.text
    told = await facts(odd, "huge")
    quoted = {str(n): "<&" for n in range(20_000)}
    await odd.app.start(Doc(id="quoted", topic="x", files=quoted))
    assert len((await odd.get("/process?id=quoted&data=whole")).body) < 250_000  # its HTML would be a megabyte
    assert told["data"]["all"]["value"] is None and told["data"]["all"]["size"] == "600 KB"
    change = next(one for one in told["data"]["changes"] if one["path"] == "topic")
    assert len(change["after"]) < 200 and "600,002 characters, sha256" in change["after"]
    assert (await odd.get("/data.json?id=huge")).json()["topic"] == "y" * 600_000


async def test_a_difference_of_many_paths_says_how_many_more(odd: Panel) -> None:
    await odd.app.start(Doc(id="wide", topic="x", files={f"f{n}": "" for n in range(1_000)}))
    await odd.app.edit("wide", {"topic": "x"})
    told = await facts(odd, "wide")
    assert len(told["data"]["changes"]) == contents.CHANGES_MAX
    assert told["data"]["left_off"] == 800
    assert "And 800 more" in (await page(odd, "wide")).one(id="data").text


async def test_recorded_sub_steps_of_the_visit_are_shown(odd: Panel, clock: ManualClock) -> None:
    told = await facts(odd, "finished", version=3)
    assert told["steps"]["shown"] == [
        {"name": "upload figures.csv", "result": '"file-fig01"'},
        {"name": "upload minutes.md", "result": '"file-min01"'},
    ]
    assert "upload minutes.md" in (await page(odd, "finished", version=3)).one(id="steps").text
    assert (await facts(odd, "finished"))["steps"]["number"] == 0
    await odd.app.store.claim([("doc", "fetch", 1)], "w", 1, timedelta(minutes=1), ["ready"])
    record = await odd.app.get("ready")
    for n in range(60):
        await odd.app.store.record_step(record, f"step {n:02d}", json.dumps({"token": {"$secret": CANARY}, "n": "z" * 500}))
    told = await facts(odd, "ready")
    assert (told["steps"]["number"], len(told["steps"]["shown"])) == (60, 50)
    assert CANARY not in json.dumps(told) and len(json.dumps(told["steps"])) < 20_000


async def test_it_is_the_same_on_every_store(url: str) -> None:
    async with entered(opened(url)) as panel:
        await panel.app.start(Doc(id="a", topic="harbour", token=CANARY))
        await panel.app.check("a")
        told = await facts(panel, "a")
        assert [row["words"] for row in told["timeline"]["rows"]] == ["not yet", "done", "done", "saved its data", "started"]
        assert [row["changed_data"] for row in told["timeline"]["rows"]] == [False, True, False, True, True]
        assert [one["path"] for one in told["data"]["changes"]] == ["log[0]"]
        assert {step["name"] for step in (await facts(panel, "a", version=3))["steps"]["shown"]} == {
            "upload figures.csv",
            "upload minutes.md",
        }
        version = told["process"]["version"]
        data = {**told["data"]["all"]["value"], "pages": 9}
        edited = await panel.post_json("/act", {"verb": "edit", "id": "a", "version": version, "data": data, "reason": "more"})
        assert edited.status == 200, edited.text
        assert (await panel.post_json("/act", {"verb": "edit", "id": "a", "version": version, "data": data})).status == 409
        assert (await panel.post_json("/act", {"verb": "fork", "id": "a", "at": 3, "new_id": "b"})).status == 200
        assert (await panel.post_json("/act", {"verb": "move", "id": "a", "to": "clean", "version": version + 1})).status == 200
        assert (await panel.post_json("/act", {"verb": "stop", "id": "a"})).status == 200
        rows = (await facts(panel, "a"))["timeline"]["rows"][:3]
        assert [(row["words"], row["reason"]) for row in rows] == [
            ("stopped", None),
            ("moved by hand", None),
            ("data edited", "more"),
        ]
        assert (await panel.post_json("/act", {"verb": "delete", "id": "a"})).status == 200
        assert (await panel.get("/process?id=a")).status == 404
        assert json.loads((await panel.app.get("b")).data)["token"] == {"$secret": CANARY}


async def test_the_same_in_a_shell_is_quoted_for_it(odd: Panel) -> None:
    await odd.app.start(Doc(id="it's; rm -rf /", topic="x"))
    told = await facts(odd, "it's; rm -rf /")
    assert told["commands"][0] == """onward show 'it'"'"'s; rm -rf /'"""
