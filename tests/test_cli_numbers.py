"""`onward stats` and `onward workers`: what is told of a whole store, as text and as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_project import Project, lines, shop
from conftest import Job, Trip, one_stage, opened, work_off
from test_attention import trips
from test_failures import fail

from onward import Onward, Retry
from onward.cli.stats import _per_time
from onward.ports import Lease
from onward.process import Condition
from onward.telling import stats
from onward.telling.stats import SAMPLE_MAX, WINDOW, Rate, rate
from onward.telling.workers import workers
from onward.testing import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        yield project


# -- stats ------------------------------------------------------------------------------------------------------------


def test_stats_tells_each_flow_its_conditions_and_how_fast_they_come_and_go(project: Project) -> None:
    for number in range(3):
        project.start("--set", "item=tea", "--id", f"tea-{number}")
    project.start("--set", "item=broken")
    project.work()
    head, purchase, match = lines(project.out("stats"))
    assert head == ["FLOW", "STARTED", "FINISHED", "TAKES", "PROCESSES"]
    assert (purchase[0], purchase[1], purchase[2]) == ("purchase", "4/h", "3/h")
    assert purchase[-6:] == ["1", "✕", "failed", "3", "✓", "finished"]
    assert match == ["match", "-", "-", "none"]


def test_stats_as_json_tells_all_conditions_of_all_flows(project: Project) -> None:
    project.start("--set", "item=broken")
    project.work()
    document = project.json("stats")
    assert document["schema"] == "onward.stats/1"
    purchase, match = document["flows"]
    assert set(purchase["conditions"]) == set(Condition) and purchase["conditions"]["failed"] == 1
    assert (purchase["number"], purchase["active"], purchase["finished_per_minute"], purchase["took_s"]) == (1, 1, 0.0, None)
    assert purchase["started_per_minute"] == round(1 / 60, 3)
    assert (match["number"], match["conditions"]["failed"]) == (0, 0)
    assert [json.loads(line)["flow"] for line in project.out("stats", "-o", "jsonl").splitlines()] == ["purchase", "match"]


def test_watched_stats_come_again_after_a_change_until_the_timeout(project: Project) -> None:
    project.start("--set", "item=tea")
    watched = project.run("stats", "--watch", "--timeout", "0.2")
    assert watched.exit_code == 124 and lines(watched.stdout)[0][0] == "FLOW"
    watched = project.run("stats", "--watch", "--timeout", "0.2", "--json")
    assert {json.loads(line)["schema"] for line in watched.stdout.splitlines()} == {"onward.stats/1"}
    assert "--timeout is for --watch" in project.error("stats", "--timeout", "3", code=2)


async def test_rates_and_the_usual_length_of_a_life_are_of_the_last_hour(url: str) -> None:
    clock = ManualClock(NOW)
    async with opened(trips(), one_stage(fail, retry=Retry(attempts=1)), url=url, clock=clock) as app:
        await app.start(Trip(id="long ago"))
        await app.check("long ago")
        clock.advance(10)
        await app.check("long ago")
        clock.advance(2 * WINDOW)
        await app.start_many(Trip(id=f"t{number}") for number in range(6))
        for number in range(6):
            await app.check(f"t{number}")
        clock.advance(30)
        for number in range(3):
            await app.check(f"t{number}")
        trip, job = await stats.stats(app)
        assert (trip.flow, trip.number, trip.active) == ("trip", 7, 3)
        assert (trip.started, trip.finished) == (Rate(6, WINDOW), Rate(3, WINDOW))
        assert trip.took == timedelta(seconds=30)
        assert (job.number, job.took, job.started) == (0, None, Rate(0, WINDOW))


async def test_flows_that_only_the_store_knows_are_told_too(file_url: str) -> None:
    async with opened(trips(), url=file_url) as app:
        await app.start(Trip(id="a"))
    async with opened(one_stage(fail), url=file_url) as app:
        await app.start(Job(id="j"))
        await work_off(app)
        found = await stats.stats(app)
        assert [(one.flow, dict(one.conditions)) for one in found] == [
            ("job", {Condition.FAILED: 1}),
            ("trip", {Condition.ORPHANED: 1}),
        ]


def test_a_rate_is_of_the_time_that_the_sample_covers() -> None:
    each_second = [NOW - timedelta(seconds=second) for second in range(SAMPLE_MAX)]
    assert rate(each_second[:10], NOW) == Rate(10, WINDOW)
    assert rate(each_second, NOW) == Rate(SAMPLE_MAX, timedelta(seconds=SAMPLE_MAX - 1))
    each_minute = [NOW - timedelta(minutes=minute) for minute in range(SAMPLE_MAX)]
    assert rate(each_minute, NOW) == Rate(61, WINDOW)
    assert rate([], NOW) == Rate(0, WINDOW)
    assert Rate(5, timedelta()).per_minute == 300  # all at one instant: as if in a second


@pytest.mark.parametrize(
    ("number", "within", "text"),
    [(0, 60, "-"), (1, 3_600, "1/h"), (90, 3_600, "1.5/min"), (600, 60, "10/s"), (12_000, 1, "12,000/s"), (59, 60, "59/min")],
)
def test_rates_are_told_in_the_unit_in_which_they_are_one_or_more(number: int, within: float, text: str) -> None:
    assert _per_time(Rate(number, timedelta(seconds=within))) == text


# -- workers ----------------------------------------------------------------------------------------------------------


async def claim(url: str, owner: str, lease: timedelta, *ids: str) -> None:
    async with Onward(url, []) as app:
        assert len(await app.store.claim([("purchase", "placed", 1)], owner, 10, lease, ids)) == len(ids)


def test_workers_tells_who_holds_what_and_who_is_gone(project: Project) -> None:
    ids = [project.start("--set", "item=tea") for _ in range(3)]
    asyncio.run(claim("sqlite:///shop.db", "worker-dead", timedelta(microseconds=1), ids[0]))
    asyncio.run(claim("sqlite:///shop.db", "worker-alive", timedelta(hours=1), *ids[1:]))
    head, dead, alive = lines(project.out("workers"))
    assert head == ["WORKER", "HOLDS", "FLOW", "STATUS", "LONGEST", "LEASE"]
    assert dead[:4] == ["worker-dead", "1", "purchase", "placed"] and "over" in dead
    assert alive[:4] == ["worker-alive", "2", "purchase", "placed"] and alive[-1] == "left"
    document = project.json("workers")
    assert document["schema"] == "onward.workers/1"
    assert [(one["worker"], one["alive"], one["number"]) for one in document["workers"]] == [
        ("worker-dead", False, 1),
        ("worker-alive", True, 2),
    ]
    assert [set(one) for one in document["workers"]] == [{"worker", "alive", "lease_until", "oldest", "number", "holds"}] * 2
    [held] = document["workers"][1]["holds"]
    assert set(held) == {"flow", "status", "number", "oldest"} and held["number"] == 2
    streamed = [json.loads(line) for line in project.out("workers", "-o", "jsonl").splitlines()]
    assert [one["schema"] for one in streamed] == ["onward.worker/1"] * 2


def test_where_nobody_holds_anything_it_says_that_an_idle_worker_is_not_seen(project: Project) -> None:
    project.start("--set", "item=tea")
    told = project.run("workers")
    assert told.stdout == "" and "is not listed" in told.stderr and "onward run" in told.stderr
    assert project.json("workers") == {"schema": "onward.workers/1", "workers": []}


def test_a_worker_is_alive_as_long_as_its_latest_lease_and_gone_ones_come_first() -> None:
    def lease(owner: str, status: str, number: int, until: float) -> Lease:
        return Lease(owner, "f", status, number, NOW + timedelta(seconds=until), NOW - timedelta(seconds=number), NOW)

    found = workers([lease("a", "x", 1, -5), lease("a", "y", 3, 5), lease("b", "x", 9, 1), lease("c", "x", 1, 0)])
    assert [(one.name, one.is_alive, one.number) for one in found] == [("c", False, 1), ("b", True, 9), ("a", True, 4)]
    a = found[-1]
    assert ([part.status for part in a.leases], a.until, a.oldest) == (
        ["y", "x"],
        NOW + timedelta(seconds=5),
        NOW - timedelta(seconds=3),
    )
