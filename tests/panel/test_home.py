"""The first page: each flow in a row, how many of its processes are in which condition, and what to do where there are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pytest
from conftest import IN_MEMORY

from onward import END, Flow, Onward, Process, Unrecoverable
from onward.panel.page import templates
from onward.panel.pages import common, home
from onward.panel.pages.home import BARS, SPARK_HIGH, histogram, spark
from onward.panel.shown.counting import Start, Starts, numbers
from onward.process import Condition
from onward.testing import ManualClock
from panel.conftest import Panel, entered
from panel.scene import Letter, filled, letters, opened
from panel.strict import Html

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = """"><img src=x onerror=alert(1)><b id="pwned">'{{7*7}}</b>"""


class Bad(StrEnum):
    A = HOSTILE
    B = f"{HOSTILE} end"


class Worst(Process[Bad]):
    status: Bad = Bad.A


async def fail(one: Worst) -> Literal[Bad.B]:
    raise Unrecoverable(HOSTILE)


worst = Flow(Worst, {Bad.A: fail, Bad.B: END}, name=HOSTILE)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(filled(tmp_path_factory.mktemp("scene"), until=NOW, reports=60, purchases=40))


@pytest.fixture
async def scene(night: Path) -> AsyncIterator[Panel]:
    async with entered(opened(night, clock=ManualClock(NOW))) as panel:
        yield panel


async def facts(panel: Panel, path: str = "/home.json") -> Any:
    answer = await panel.get(path)
    assert answer.status == 200, answer.text
    return answer.json()


async def test_each_flow_has_its_counts_by_condition_and_they_are_those_of_the_store(scene: Panel) -> None:
    told = await facts(scene)
    assert told["schema"] == "onward.panel.home/1"
    found = {
        (row["name"], condition): number for row in told["flows"] for condition, number in row["conditions"].items() if number
    }
    expected: dict[tuple[str, str], int] = {}
    for count in await scene.app.counts():
        key = (count.flow, str(count.condition))
        expected[key] = expected.get(key, 0) + count.number
    assert found == expected
    assert {condition for _, condition in found} == set(Condition), "the scene has all conditions, and the page shows them"
    assert told["number"] == sum(expected.values())
    assert told["need_a_person"] == sum(n for (_, c), n in expected.items() if c in ("failed", "orphaned"))


async def test_flows_stand_in_the_order_of_the_app_and_those_it_does_not_know_after_them(scene: Panel) -> None:
    told = await facts(scene)
    assert [(row["name"], row["known"]) for row in told["flows"]] == [
        ("report", True),
        ("purchase", True),
        ("letter", True),
        ("feed", False),
    ]
    page = Html((await scene.get("/")).text)
    [row] = page.all("tr", data_row="feed")
    assert "not in this code" in row.text
    assert row.all("a")[0].get("href") == "/flow?name=feed", "it can still be reached"
    assert not [link for link in row.all("a") if "/start" in link.get("href")]


async def test_each_number_is_a_link_to_the_list_of_what_it_counts(scene: Panel) -> None:
    told = await facts(scene)
    page = Html((await scene.get("/")).text)
    for row in told["flows"]:
        [shown] = page.all("tr", data_row=row["name"])
        links = {link.get("href"): link.text for link in shown.all("a") if "is%3A" in link.get("href")}
        assert links == {
            f"/flow?name={row['name']}&q=is%3A{condition}": f"{number:,} {condition}"
            for condition, number in row["conditions"].items()
            if number
        }
        for href in links:
            listed = await facts(scene, href.replace("/flow?", "/flow.json?"))
            assert listed["number"] == int(links[href].split()[0].replace(",", ""))


async def test_the_picture_of_the_starts_shows_the_last_day(scene: Panel) -> None:
    told = await facts(scene)
    assert (told["window"], told["window_s"]) == ("24 h", 86_400)
    reports = next(row for row in told["flows"] if row["name"] == "report")
    born = [record.created_at for record in await scene.app.find(flow="report", limit=1_000)]
    assert sum(reports["starts"]) == sum(NOW - at < timedelta(days=1) for at in born) > 40
    drawn = Html((await scene.get("/")).text).all("svg", role="img")
    assert f"{sum(reports['starts'])} started in the last 24 h" in [each.get("aria-label") for each in drawn]


def test_starts_fall_into_the_part_of_the_window_in_which_they_were() -> None:
    def at(hours: float) -> Start:
        return Start("a", NOW - timedelta(hours=hours))

    bars = histogram([at(0), at(0.4), at(0.6), at(23.9), at(24), at(30)], NOW, timedelta(hours=24))
    assert (bars[-1], bars[-2], bars[0], sum(bars), len(bars)) == (2, 1, 1, 4, BARS)


def test_a_single_start_among_many_is_still_drawn_and_nothing_is_drawn_for_none() -> None:
    assert spark([0] * BARS) == spark(None) == ""
    path = spark([1, 0, 10_000])
    assert path.count("z") == 2
    assert f"v-{SPARK_HIGH}h2" in path and "v-1.5h2" in path


def test_the_window_is_as_long_as_the_newest_processes_tell() -> None:
    def window(hours: float, every: bool) -> str:
        starts = Starts([Start("a", NOW), Start("a", NOW - timedelta(hours=hours))], every, NOW)
        return home.WINDOWS[home._window(starts)]

    assert [window(hours, False) for hours in (30, 24, 23, 2, 0.5, 0.1, 0.001)] == [
        "24 h",
        "24 h",
        "6 h",
        "1 h",
        "10 min",
        "1 min",
        "1 min",
    ]
    assert window(0.1, True) == window(1_000, True) == "24 h"
    assert home.WINDOWS[home._window(None)] == "24 h"


async def test_while_it_counts_for_the_first_time_the_page_says_so_and_is_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with entered(Onward(IN_MEMORY, [letters])) as panel:
        ready, counts = asyncio.Event(), panel.app.store.counts

        async def slow() -> Any:
            await ready.wait()
            return await counts()

        monkeypatch.setattr(panel.app.store, "counts", slow)
        told = await facts(panel)
        assert (told["number"], told["flows"][0]["conditions"], told["counting"]["age_s"]) == (None, None, None)
        page = Html((await panel.get("/")).text)
        assert "Counting…" in page.one(id="sum").text
        assert page.one(data_counted_s="").get("data-again-s")
        ready.set()
        await numbers(panel.app).counts.ask(wait=5)
        told = await facts(panel)
        assert told["number"] == 0 and told["counting"]["age_s"] is not None


async def test_without_processes_the_page_says_how_to_start_one(panel: Panel) -> None:
    page = Html((await panel.get("/")).text)
    empty = page.one("div", class_="empty")
    assert "No process yet" in empty.text
    assert "onward start report" in [code.text for code in empty.all("code")]
    assert "/start?flow=report" in [link.get("href") for link in page.all("a")]


async def test_without_flows_the_page_says_how_to_make_one() -> None:
    async with entered(Onward(IN_MEMORY, [])) as panel:
        empty = Html((await panel.get("/")).text).one("div", class_="empty")
        assert "There is no flow yet" in empty.text
        assert [code.text for code in empty.all("code")] == ["onward init"]


async def test_a_tool_that_has_only_the_store_shows_its_flows_and_calls_none_orphaned(night: Path) -> None:
    async with entered(Onward(f"sqlite:///{night}", [], clock=ManualClock(NOW))) as panel:
        told = await facts(panel)
        assert [row["name"] for row in told["flows"]] == ["feed", "letter", "purchase", "report"]
        assert {row["conditions"]["orphaned"] for row in told["flows"]} == {0}
        assert "not in this code" not in (await panel.get("/")).text


async def test_who_may_only_look_is_offered_nothing_to_start(scene: Panel) -> None:
    page = Html((await scene.seen_by("viewer").get("/")).text)
    assert not [link for link in page.all("a") if "/start" in link.get("href")]
    assert page.one(class_="role").text == "viewer"


@pytest.fixture
async def hostile() -> AsyncIterator[Panel]:
    async with entered(Onward(IN_MEMORY, [worst])) as panel:
        for id in (HOSTILE, "second"):
            await panel.app.start(Worst(id=id))
            await panel.app.check(id)
        yield panel


@pytest.mark.parametrize("path", ["/", "/flow?name=report", "/flow?name=report&q=is:failed", "/flow"])
async def test_names_ids_and_errors_are_text_whatever_they_hold(path: str, hostile: Panel) -> None:
    answer = await hostile.get(path.replace("report", quote(HOSTILE)))
    assert answer.status == 200, answer.text
    page = Html(answer.text)
    assert HOSTILE in page.root.text
    assert not page.all("script", src=None) and not page.all("img") and not page.all("b", id="pwned")


async def test_the_red_strip_stands_there_while_something_is_due_and_no_worker_is(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    async with entered(Onward(f"sqlite:///{tmp_path / 'a.db'}", [letters], clock=clock)) as panel:
        await panel.app.start(Letter(id="a", to="ada"))

        async def strip() -> str:
            return Html((await panel.get("/")).text).one(id="standstill").text

        assert await strip() == ""
        clock.advance(5)
        assert await strip() == "", "five seconds are not late yet"
        clock.advance(1)
        assert await strip() == (
            "Nothing will move. Something has been due for 6 s and no worker is there. Start one: onward run"
        )
        await panel.app.start(Letter(id="b", to="ada"))
        [_] = await panel.app.store.claim([("letter", "written", 1)], "w", 1, timedelta(minutes=1), ["b"])
        assert await strip() == "", "a worker is there: it has its hands full"
        clock.advance(61)
        assert (await strip()).startswith("Nothing will move.")
        await panel.app.check("a")
        await panel.app.check("b")
        assert await strip() == ""


async def test_what_stands_around_a_page_says_where_one_is_who_and_how_many_need_a_person(scene: Panel) -> None:
    page = Html((await scene.get("/?done=" + "Retried%20%3Cb%3E3%3C%2Fb%3E" + "&refresh=5")).text)
    nav = page.one("nav", aria_label="Pages")
    assert [link.text for link in nav.all("a", aria_current="page")] == ["Processes"]
    need = (await facts(scene))["need_a_person"]
    assert f"({need} need a person)" in nav.text
    assert "Retried <b>3</b>" in page.one(class_="notice").text
    assert page.one("meta", http_equiv="refresh").get("content") == "5"
    assert page.one("span", class_="who").text == "adaadmin"
    [first] = [one for one in page.root if one.name == "a"][:1]
    assert (first.get("href"), first.get("class")) == ("#main", "skip")
    assert page.one("body").get("data-live-url") == "/live?page=home"
    assert page.one("noscript").all("a")[0].get("href") == "/", "and from there it can be stopped"


async def test_a_mounted_panel_links_to_itself(night: Path) -> None:
    async with entered(opened(night, clock=ManualClock(NOW))) as panel:
        panel.root = "/ops/panel"
        for path in ("/", "/flow?name=report&q=is:failed"):
            page = Html((await panel.get(path)).text)
            for one in page.root:
                for name in ("href", "src", "action", "data-live-url"):
                    target = one.get(name)
                    assert not target or target.startswith(("#", "/ops/panel/")), f"<{one.name} {name}={target}>"


def test_every_template_can_be_read() -> None:
    for name in templates().list_templates():
        templates().get_template(name)


def test_needing_a_person_means_failed_and_orphaned() -> None:
    assert set(common.NEED_A_PERSON) == {"failed", "orphaned"}


def test_the_script_is_short_and_makes_nothing_of_text() -> None:
    static = Path(common.__file__).parent.parent / "static"
    script = (static / "panel.js").read_text(encoding="utf-8")
    assert script.count("\n") <= 300, "what nobody reads whole is not our own"
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "http:",
        "https:",
        "import ",
    ):
        assert word not in script, word
    sheet = (static / "panel.css").read_text(encoding="utf-8")
    for word in ("@import", "url(", "http:", "https:"):
        assert word not in sheet, f"{word}: nothing comes from elsewhere"
