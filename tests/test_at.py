"""Time travel: a process as it was, what came next and what could have come; and two futures side by side."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from cli_project import Project, shop
from conftest import Leg, Trip, opened, work_off

from onward import END, Flow, Onward, Record
from onward.cli.target import import_app
from onward.telling.moment import moment
from onward.telling.parting import ROWS_MAX, Parting, parting


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        yield project


def polled(project: Project, id: str = "cup-order", count: int = 7) -> str:
    """One that paid, said 'not yet' so many times and was shipped: versions 0, 1, 2 … count + 1, count + 2."""
    project.start("--id", id, "--set", "item=cup", "--set", f"count={count}")
    project.work()
    return id


# -- onward at ------------------------------------------------------------------------------------------------------


def test_at_tells_status_data_what_came_next_and_what_could_have(project: Project) -> None:
    polled(project)
    told = project.out("at", "cup-order", "1")
    assert "status     paid" in told and "version    1 of 9, after 1 transitions" in told
    assert "what       moved placed → paid in " in told
    assert "next       version 8, " in told and ": not yet ×7, paid\n" in told
    assert "           version 9, " in told and ": moved, paid → shipped\n" in told
    assert "could be   paid (returned)\n           shipped (returned)\n           returned (cancel)\n" in told
    assert '"looks": 0' in told and '"paid"' in told
    assert '"looks": 3' in project.out("at", "cup-order", "4")


def test_at_as_json_is_promised(project: Project) -> None:
    polled(project)
    told = project.json("at", "cup-o", "3")
    assert told["schema"] == "onward.at/1"
    assert {key: told[key] for key in ("id", "flow", "status", "last_version")} == {
        "id": "cup-order",
        "flow": "purchase",
        "status": "paid",
        "last_version": 9,
    }
    assert (told["entry"]["version"], told["entry"]["kind"], told["entry"]["transition"]) == (3, "not yet", 1)
    assert [(one["kind"], one["version"], one["times"]) for one in told["next"]] == [("not yet", 8, 5), ("moved", 9, 1)]
    assert told["possible"][1] == {"to": "shipped", "why": "returned"}
    assert told["data"] == {"item": "cup", "count": 7, "looks": 2, "notes": ["paid"]}
    assert json.loads(project.out("at", "cup-order", "3", "--data")) == told["data"]


def test_at_of_the_last_version_has_nothing_next_and_at_an_end_nothing_could_be(project: Project) -> None:
    polled(project)
    told = project.out("at", "cup-order", "9")
    assert "next       nothing yet" in told and "could be   nothing more: it was over" in told
    last = project.json("at", "cup-order", "9")
    assert (last["next"], last["possible"]) == ([], [])


def test_at_needs_no_app_and_then_does_not_claim_to_know_what_could_be(project: Project) -> None:
    polled(project)
    Path("pyproject.toml").unlink()
    told = project.out("at", "cup-order", "1", "--store", "sqlite:///shop.db")
    assert "could be   this code does not know its flow or status" in told
    assert project.json("at", "cup-order", "1", "--store", "sqlite:///shop.db")["possible"] is None


def test_at_shows_a_broken_row_as_it_stands(project: Project) -> None:
    project.start("--id", "odd-order", "--set", "item=cup")
    with sqlite3.connect("shop.db") as database:
        for table in ("onward_process", "onward_history"):
            database.execute(f"UPDATE {table} SET data = '{{broken \x1b[31m'")
    assert "{broken" in project.out("at", "odd-order", "0") and "\x1b" not in project.out("at", "odd-order", "0")


def test_at_refuses_a_version_that_is_not_there(project: Project) -> None:
    polled(project, count=0)
    for version in ("3", "9223372036854775807", "99999999999999999999999"):
        assert "has no version" in project.error("at", "cup-order", version, code=3)
    assert "there is no process" in project.error("at", "nobody", "0", code=3)
    project.error("at", "cup-order", "x", code=2)


def test_of_many_retries_at_shows_the_first_and_how_it_ended(project: Project) -> None:
    project.start("--id", "flaky-order", "--set", "item=flaky")
    for _ in range(5):
        attempt("flaky-order")
    told = project.out("at", "flaky-order", "0")
    assert told.count(": retry, placed: ValueError: the bank is down") == 2
    assert told.count(": woken, placed") == 2 and "           … 4 more: onward history ID\n" in told
    assert ": failed, placed: ValueError: the bank is down" in told


def attempt(id: str) -> None:
    """What would be tried again in a minute is tried now."""

    async def work() -> None:
        async with import_app("shop:app") as app:
            if (await app.get(id)).condition == "retrying":
                await app.wake(id)
            await app.check(id)

    asyncio.run(work())


async def test_what_came_next_is_found_behind_many_pages_of_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    async def book(trip: Trip, ctx: Any) -> Literal[Leg.TRAVEL]:
        for _ in range(30):
            await ctx.save()
        return Leg.TRAVEL

    monkeypatch.setattr("onward.telling.moment.PAGE", 10)
    async with opened(journey(book)) as app:
        await app.start(Trip(id="a"))
        record = await app.check("a")
        after = (await moment(app, record, 0)).after
        assert [line.entry.kind for line in after] == ["saved"] * 30 + ["moved"]
        monkeypatch.setattr("onward.telling.moment.LOOKS_MAX", 20)
        assert {line.entry.kind for line in (await moment(app, record, 0)).after} == {"saved"}


# -- two futures ----------------------------------------------------------------------------------------------------


async def book(trip: Trip) -> Literal[Leg.TRAVEL]:
    trip.log.append("booked")
    return Leg.TRAVEL


async def travel(trip: Trip) -> Literal[Leg.CLEAN]:
    if "ill" in trip.log:
        raise RuntimeError("ill")
    return Leg.CLEAN


async def clean(trip: Trip) -> Literal[Leg.OVER]:
    return Leg.OVER


def journey(first: Any = book) -> Flow[Leg]:
    return Flow(Trip, {Leg.BOOK: first, Leg.TRAVEL: travel, Leg.CLEAN: clean, Leg.OVER: END})


async def both(app: Onward, one: str, other: str) -> Parting:
    return await parting(app, await app.get(one), await app.get(other))


def common(told: Parting) -> tuple[str, int, str] | None:
    return None if told.common is None else (told.common.process_id, told.common.version, told.common.to_status)


def ways(told: Parting) -> list[tuple[bool, str, str]]:
    return [
        (row.is_same, *("" if line is None else f"{line.entry.kind} {line.entry.to_status}" for line in (row.one, row.other)))
        for row in told.rows
    ]


async def finished(app: Onward, id: str) -> Record:
    await app.start(Trip(id=id))
    return await app.check(id)


async def test_a_fork_and_its_origin_are_one_until_the_version_of_the_fork(url: str) -> None:
    async with opened(journey(), url=url) as app:
        await finished(app, "a")
        await app.fork("a", at=1, new_id="b", reason="what if: at version 2")
        await app.edit("b", {"log": ["booked", "slowly"]})
        await app.check("b")
        told = await both(app, "a", "b")
        assert common(told) == ("a", 1, "travel")
        assert ways(told) == [
            (False, "", "edited travel"),
            (True, "moved clean", "moved clean"),
            (True, "moved over", "moved over"),
        ]
        assert [(change.path, change.kind) for change in told.changes] == [("$.log[1]", "added")]
        turned = await both(app, "b", "a")
        assert common(turned) == ("a", 1, "travel") and [change.kind for change in turned.changes] == ["removed"]
        assert told.begins == (turned.begins[1], turned.begins[0])


async def test_forks_of_forks_are_one_until_the_first_of_their_forks() -> None:
    async with opened(journey()) as app:
        await finished(app, "a")
        for origin, at, new in (("a", 2, "b"), ("b", 0, "c"), ("a", 0, "d"), ("c", 0, "e")):
            await app.fork(origin, at=at, new_id=new)
            await app.check(new)
        assert common(await both(app, "a", "c")) == ("a", 2, "clean")
        assert common(await both(app, "b", "c")) == ("b", 0, "clean")
        assert common(await both(app, "e", "b")) == ("b", 0, "clean")
        assert common(await both(app, "c", "d")) == ("a", 0, "book")
        assert common(await both(app, "d", "e")) == ("a", 0, "book")


async def test_two_that_share_no_past_are_compared_from_their_beginnings() -> None:
    async with opened(journey()) as app:
        await finished(app, "a")
        await app.start(Trip(id="b", log=["ill"]))
        for _ in range(5):
            await app.check("b")
            if (await app.get("b")).condition == "retrying":
                await app.wake("b")
        told = await both(app, "a", "b")
        assert common(told) is None
        assert ways(told)[:2] == [(True, "started book", "started book"), (True, "moved travel", "moved travel")]
        assert (False, "moved clean", "retry travel") in ways(told) and ways(told)[-1][2] == "failed travel"
        assert told.changes


async def test_an_id_that_reads_like_the_reason_of_a_fork_leads_nobody_astray() -> None:
    async with opened(journey()) as app:
        odd = "a at version 1: b at version 2"
        await finished(app, odd)
        await app.fork(odd, at=1, new_id="fork", reason="x at version 3")
        assert common(await both(app, "fork", odd)) == (odd, 1, "travel")
        await finished(app, "a")  # now the reason can be read as that of a fork of this one, too
        assert common(await both(app, "fork", odd)) is None
        assert common(await both(app, "fork", "a")) is None


async def test_where_the_origin_is_deleted_or_its_history_is_gone_a_fork_begins_with_itself() -> None:
    async with opened(journey()) as app:
        await finished(app, "a")
        await app.fork("a", at=1, new_id="b")
        await app.fork("b", at=0, new_id="c")
        await app.check("b")
        await app.delete("a")
        assert common(await both(app, "b", "c")) == ("b", 0, "travel")
        await app.delete("b")
        await finished(app, "a")
        assert common(await both(app, "a", "c")) is None


async def test_long_histories_are_compared_as_far_as_a_page_goes() -> None:
    async def book(trip: Trip, ctx: Any) -> Literal[Leg.TRAVEL]:
        for _ in range(ROWS_MAX if trip.id == "a" else 2):
            await ctx.save()
        return Leg.TRAVEL

    async with opened(journey(book)) as app:
        await app.start_many([Trip(id="a"), Trip(id="b")])
        await work_off(app)
        told = await both(app, "a", "b")
        assert (len(told.rows), told.left) == (ROWS_MAX, 4)


def test_compare_prints_where_they_part_and_what_differs(project: Project) -> None:
    polled(project, "q3-report", 2)
    project.out("-q", "fork", "q3-report", "--at", "1", "--id", "q3-again")
    project.out("-q", "edit", "q3-again", "--set", "count=0", "--yes")
    project.work()
    told = project.out("compare", "q3-r", "q3-again")
    assert "they are one until version 1 of q3-report, at paid" in told
    lines = told.splitlines()
    assert lines[2].split() == ["q3-report", "q3-again"]
    assert any(line.startswith("≠ ") and "edited, paid" in line for line in lines)
    assert any(line.startswith("= ") and line.count("moved, paid → shipped") == 2 for line in lines)
    assert any(line.count("now ✓ finished at shipped") == 2 for line in lines)
    assert "- $.count: 2" in told and "+ $.count: 0" in told
    for id in ("q3-left", "q3-right"):
        project.out("-q", "fork", "q3-report", "--at", "3", "--id", id)
    told = project.out("compare", "q3-left", "q3-right")
    assert "they are one until version 3 of q3-report" in told and "their data are the same" in told


def test_compare_as_json_is_promised(project: Project) -> None:
    polled(project, "q3-report", 2)
    project.out("-q", "fork", "q3-report", "--at", "1", "--id", "q3-again")
    told = project.json("compare", "q3-report", "q3-again")
    assert told["schema"] == "onward.compare/1"
    assert (told["one"]["id"], told["other"]["status"]) == ("q3-report", "paid")
    assert told["common"] == {"id": "q3-report", "version": 1, "status": "paid"}
    assert [(row["same"], row["one"]["kind"], row["one"]["id"], row["other"]) for row in told["rows"]] == [
        (False, "not yet", "q3-report", None),
        (False, "moved", "q3-report", None),
    ]
    assert told["rows_left"] == 0
    assert told["changes"] == [{"op": "changed", "path": "$.looks", "before": 3, "after": 0}]


def test_compare_refuses_one_process_twice_and_what_is_not_there(project: Project) -> None:
    polled(project)
    assert "that is one process" in project.error("compare", "cup-order", "cup-o", code=2)
    assert "there is no process" in project.error("compare", "cup-order", "nobody", code=3)
