"""The page of what needs a person: groups of failures with their buttons, and what stands still."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from conftest import IN_MEMORY, Job, Step, one_stage, work_off
from test_failures import fail as fail_literally

from onward import Flow, Onward, Retry, Unrecoverable
from onward.panel.pages import attention
from onward.telling.attention import PAUSED_LONG
from onward.telling.failures import IDS_MAX
from onward.testing import ManualClock
from panel.conftest import Panel, entered

TRACEBACK = """the worker said no
Traceback (most recent call last):
  File "/srv/shop/jobs.py", line 31, in pack_order
    carrier.book(order)
  File "/usr/lib/python3.12/site-packages/carrier/client.py", line 1023, in book
    raise NoRoom(number)
carrier.errors.NoRoom: no room for parcel 7"""
EVIL = "<script>alert(1)</script>\" onload='x' {{ 7*7 }}"


async def fail(job: Job) -> Literal[Step.DONE]:
    raise Unrecoverable(job.note)


def jobs() -> Flow[Step]:
    return one_stage(fail)


@asynccontextmanager
async def failing(url: str, *notes: str, **options: Any) -> AsyncIterator[Panel]:
    """The panel of a store in which a process failed for each of these notes."""
    async with entered(Onward(url, [jobs()], **options)) as panel:
        await panel.app.start_many(Job(id=f"j{number}", note=note) for number, note in enumerate(notes))
        await work_off(panel.app)
        yield panel


async def facts(panel: Panel) -> dict[str, Any]:
    answer = await panel.get("/attention.json")
    assert answer.status == 200
    told = answer.json()
    assert told["schema"] == "onward.panel.attention/1"
    return dict(told)


async def shown(panel: Panel, role: str = "admin") -> str:
    """The page, when it has looked through all there is."""
    await facts(panel)
    answer = await panel.seen_by(role).get("/attention")
    assert answer.status == 200
    return answer.text


def forms(page: str) -> list[dict[str, list[str]]]:
    """The fields of each form for many at once: names with their values."""
    found = []
    for form in re.findall(r'<form[^>]*action="/bulk".*?</form>', page, re.DOTALL):
        fields: dict[str, list[str]] = {}
        for name, value in re.findall(r'name="([^"]*)" value="([^"]*)"', form):
            fields.setdefault(name, []).append(html.unescape(value))
        found.append(fields)
    return found


async def test_an_empty_store_and_one_in_which_all_goes_well_need_nobody(panel: Panel) -> None:
    for _ in range(2):
        assert "Nothing needs a person." in await shown(panel)
        told = await facts(panel)
        assert (told["groups"], told["items"], told["failures"]) == ([], [], 0)
        await work_off(panel.app)


async def test_failures_stand_there_by_their_kind_the_biggest_group_first(url: str) -> None:
    async with failing(url, "no file 1", "no room", "no file 2", "no file 3") as panel:
        told = await facts(panel)
        assert told["failures"] == 4
        assert [(group["number"], group["flow"], group["status"]) for group in told["groups"]] == [
            (3, "job", "make"),
            (1, "job", "make"),
        ]
        group = told["groups"][0]
        assert group["error"].startswith("Unrecoverable: no file … (test_attention_page.py:… in fail)")
        assert group["sample"]["kind"] == "Unrecoverable" and group["sample"]["said"].startswith("no file ")
        assert group["sample"]["id"] in ("j0", "j2", "j3")
        page = await shown(panel)
        assert page.index("Retry these 3") < page.index("Retry this one")
        assert f'href="/process?id={group["sample"]["id"]}"' in page


async def test_the_button_of_a_group_asks_for_exactly_that_group(url: str) -> None:
    async with failing(url, "no file 1", "no room", "no file 2", "no room for parcel 5") as panel:
        found = forms(await shown(panel))
        assert [form["verb"] for form in found] == [["retry", "move", "cancel"]] * 3
        assert all(form["query"][0].startswith("flow:job ") for form in found)
        links = re.findall(r'href="(/flow\?name=job&amp;q=status[^"]*)"', await shown(panel))
        listed = [(await panel.get(html.unescape(link))).text.count('data-row="j') for link in links]
        assert listed[::2] == listed[1::2] == [2, 1, 1]  # the status and "see them" lead to the same
        numbers = []
        for form in found:
            [query] = form["query"]
            answer = await panel.post("/bulk", verb="retry", query=query)
            assert answer.status == 200
            numbers.append(len(await panel.app.find(query)))
        assert numbers == [2, 1, 1]


async def test_the_command_of_a_group_is_what_its_button_does(url: str) -> None:
    async with failing(url, "no file 1", 'it\'s "odd"') as panel:
        told = await facts(panel)
        page = await shown(panel)
        for group in told["groups"]:
            assert group["command"].startswith("onward retry --query ")
            assert html.escape(group["command"]).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
            assert html.escape(group["query"]).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page


async def test_the_frames_of_the_user_stand_there_and_those_of_libraries_are_folded() -> None:
    async with failing(IN_MEMORY, TRACEBACK) as panel:
        [group] = (await facts(panel))["groups"]
        assert group["error"] == "carrier.errors.NoRoom at jobs.py in pack_order"
        assert [frame["file"] for frame in group["sample"]["own"]] == ["/srv/shop/jobs.py"]
        page = await shown(panel)
        folded = re.findall(r"<details.*?</details>", page, re.DOTALL)
        assert any("carrier/client.py" in one for one in folded) and not any("jobs.py:31" in one for one in folded)


async def test_who_may_not_act_sees_no_buttons(url: str) -> None:
    async with failing(url, "no file 1") as panel:
        operator, viewer = [await shown(panel, role) for role in ("operator", "viewer")]
        assert forms(operator)[0]["verb"] == ["retry", "cancel"]  # to move takes an admin
        assert "verb" not in forms(viewer)[0] and "See it" in viewer
        assert (await panel.seen_by("").get("/attention")).status == 403


async def test_what_cannot_be_asked_for_exactly_has_no_button_for_it() -> None:
    async with entered(Onward(IN_MEMORY, [one_stage(fail_literally, retry=Retry(attempts=1))])) as panel:
        await panel.app.start_many(Job(id=f"j{number}", note=str(number)) for number in range(IDS_MAX + 1))
        await work_off(panel.app)
        [group] = (await facts(panel))["groups"]
        assert (group["number"], group["is_exact"], group["command"]) == (IDS_MAX + 1, False, "")
        page = await shown(panel)
        assert "verb" not in forms(page)[0] and "See all that failed there" in page


async def test_whatever_an_error_says_it_stays_text(url: str) -> None:
    async with failing(url, EVIL, *(["x" * 1_900] * 2)) as panel:
        page = await shown(panel)
        assert "<script>alert" not in page and "onload='x'" not in page
        assert "The whole error" in page and "&lt;script&gt;alert(1)" in page and "{{ 7*7 }}" in page
        assert any(EVIL in group["sample"]["error"] for group in (await facts(panel))["groups"])


async def test_what_stands_still_has_its_sentence_its_processes_and_what_to_type(url: str) -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    async with entered(Onward(url, [jobs()], clock=clock)) as panel:
        await panel.app.start(Job(id="late"))
        await panel.app.pause("late", actor="ines")
        clock.advance(PAUSED_LONG + timedelta(minutes=1))
        [item] = (await facts(panel))["items"]
        assert (item["kind"], item["ids"], item["number"]) == ("paused", ["late"], 1)
        page = await shown(panel)
        assert item["sentence"] in page and 'href="/process?id=late"' in page and "onward resume --query" in page
        assert "Nothing failed; 1 thing to look at" in " ".join(page.split())


async def test_more_groups_than_the_page_has_room_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "GROUPS_MAX", 1)
    async with failing(IN_MEMORY, "no file 1", "no room", "no time") as panel:
        told = await facts(panel)
        assert (len(told["groups"]), told["other_groups"]) == (1, 2)
        assert "2 more kinds of failures" in await shown(panel)


async def test_what_a_person_unfolded_has_the_same_name_the_next_time() -> None:
    async with failing(IN_MEMORY, "x" * 900, "no room") as panel:
        first, second = [re.findall(r'id="((?:group|whole)-[^"]*)"', await shown(panel)) for _ in range(2)]
        assert first == second and len(set(first)) == len(first) == 3


async def test_a_page_that_is_still_looking_says_so_and_a_program_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WAIT_S", 0.0)
    async with failing(IN_MEMORY, "no room") as panel:
        page = (await panel.get("/attention")).text
        assert "Looking for what needs a person" in page and "Nothing needs a person" not in page
        assert (await facts(panel))["looked"] is True
        assert "Retry this one" in (await panel.get("/attention")).text
