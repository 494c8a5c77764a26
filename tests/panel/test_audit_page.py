"""The page of what people did."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Job, Trip, one_stage, work_off
from test_attention import trips
from test_failures import fail

from onward import Onward
from onward.actor import Actor
from onward.panel.pages import audit
from onward.testing import ManualClock
from panel.conftest import Panel, entered

ADA = Actor("ada", via="panel")


async def acts(panel: Panel, before: str = "") -> dict[str, Any]:
    answer = await panel.get(f"/audit.json?before={quote(before)}")
    assert answer.status == 200
    told = answer.json()
    assert told["schema"] == "onward.panel.audit/1"
    return dict(told)


def a_store(url: str) -> Onward:
    return Onward(url, [trips(), one_stage(fail)], clock=ManualClock(datetime(2026, 3, 1, tzinfo=UTC)))


async def test_nobody_has_done_anything_yet(panel: Panel) -> None:
    assert (await acts(panel))["acts"] == []
    page = (await panel.get("/audit")).text
    assert "Nobody has done anything yet." in page and "Older" not in page


async def test_who_did_what_to_which_process_and_why_the_newest_first(url: str) -> None:
    async with entered(a_store(url)) as panel:
        app = panel.app
        await app.start(Trip(id="a"), actor="a program")  # programs stand in the history of the process only
        await app.start(Trip(id="b"), actor=ADA)
        app.clock.advance(60)
        await app.pause("a", actor=ADA, reason="the customer asked")
        app.clock.advance(60)
        await app.resume("a", actor="ines")
        app.clock.advance(60)
        await app.cancel("a", actor="ines", reason="<i>twice</i>")
        app.clock.advance(60)
        await app.check("a")
        told = await acts(panel)
        assert [(act["id"], act["what"], act["actor"], act["from"], act["to"], act["reason"]) for act in told["acts"]] == [
            ("a", "cancelled", "ines", "book", "clean", "<i>twice</i>"),
            ("a", "resumed", "ines", "book", "book", None),
            ("a", "paused", "ada (panel)", "book", "book", "the customer asked"),
            ("b", "started by hand", "ada (panel)", None, "book", None),
        ]
        assert (told["is_first"], told["older"]) == (True, None)
        page = (await panel.get("/audit")).text
        assert 'href="/process?id=a&amp;version=3"' in page and "4 min ago" in page
        assert "<i>twice" not in page and "&lt;i&gt;twice&lt;/i&gt;" in page


async def test_of_a_deleted_process_remains_who_deleted_it_and_there_is_no_link(url: str) -> None:
    async with entered(a_store(url)) as panel:
        await panel.app.start(Trip(id="a"))
        await panel.app.pause("a", actor="ines")
        await panel.app.stop("a", actor="ines")
        await panel.app.delete("a", actor="grace", reason="asked for")
        [act] = (await acts(panel))["acts"]
        assert (act["what"], act["id"], act["actor"], act["reason"], act["is_gone"]) == (
            "deleted",
            "a",
            "grace",
            "asked for",
            True,
        )
        assert "/process?id=a" not in (await panel.get("/audit")).text


async def test_pages_go_on_where_the_last_one_ended_and_tell_each_act_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE_ROWS", 3)
    odd = ["a b", "a+b", "ä/ö", "%2f..", "'\"<", "x" * 200]
    async with entered(a_store(url)) as panel:
        await panel.app.start_many(Trip(id=id) for id in odd)
        for id in odd:
            await panel.app.pause(id, actor="ines")  # all at the same instant
        panel.app.clock.advance(1)
        await panel.app.resume("a b", actor="ines")
        seen: list[tuple[str, int]] = []
        before, pages = "", 0
        while True:
            told = await acts(panel, before)
            seen += [(act["id"], act["version"]) for act in told["acts"]]
            pages += 1
            page = (await panel.get(f"/audit?before={quote(before)}")).text
            links = re.findall(r'href="([^"]*)" rel="next"', page)
            assert len(links) == (told["older"] is not None) and ("Newest" in page) == bool(before)
            if not told["older"]:
                break
            before = told["older"]
            assert (await panel.get(links[0].replace("&amp;", "&"))).status == 200
        assert (pages, len(seen)) == (3, 7) and set(seen) == {("a b", 2), *((id, 1) for id in odd)}
        assert seen[0] == ("a b", 2)


@pytest.mark.parametrize(
    "before",
    [
        "x", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00 1 a", "2026-01-01T00:00:00Z x a",
        "2026-01-01T00:00:00Z 99999999999 a", "2026-01-01T00:00:00Z 1e3 a", "9999-99-99T00:00:00Z 1 a", " 1 a",
        "0001-01-01T00:00:00+23:59 1 a", "9999-12-31T23:59:59-23:59 1 a", "2026-01-01T00:00:00Z 1 a\0b",
        "2026-01-01T00:00:00Z 1 " + "x" * 201,
    ],
)  # fmt: skip
async def test_a_place_that_is_none_is_refused_and_the_store_never_sees_it(panel: Panel, before: str) -> None:
    assert (await panel.get(f"/audit.json?before={quote(before)}")).status == 422
    assert (await panel.get(f"/audit?before={quote(before)}")).status == 422


async def test_past_the_oldest_there_is_nothing_and_a_way_back(url: str) -> None:
    async with entered(a_store(url)) as panel:
        await panel.app.start(Job(id="j"))
        await work_off(panel.app)
        page = await panel.get(f"/audit?before={quote('2020-01-01T00:00:00Z 1 a')}")
        assert page.status == 200 and "There is nothing older." in page.text


async def test_as_many_entries_as_a_page_has_room_for_are_read(url: str) -> None:
    async with entered(a_store(url)) as panel:
        await panel.app.start_many((Job(id=f"j{number:03d}") for number in range(audit.PAGE_ROWS)), actor=ADA)
        told = await acts(panel)
        assert (len(told["acts"]), told["older"]) == (audit.PAGE_ROWS, None)
