"""What needs a person: what is stuck, orphaned, forgotten or left behind, each in one sentence with what to type."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from conftest import Job, Leg, Step, Trip, one_stage, opened, work_off
from test_failures import NOW, fail, record

from onward import END, Every, Flow, Onward, Retry, Unrecoverable, stage
from onward.cli import cli
from onward.explain import LATE
from onward.ports import Count, Lease
from onward.process import Condition, Entry
from onward.telling import attention as module
from onward.telling.attention import (
    PAUSED_LONG,
    SHOWN_MAX,
    STUCK_MIN,
    USUAL_TIMES,
    Item,
    attention,
    dead_leases,
    declared,
    limit_of,
    nobody_works,
    oldest_moving,
    orphaned,
    paused,
)
from onward.telling.usual import SAMPLES_MIN, Usual, usual_of
from onward.testing import ManualClock

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


async def book(trip: Trip) -> Literal[Leg.BOOK, Leg.TRAVEL]:
    trip.log.append("asked")
    return Leg.BOOK if len(trip.log) < 2 or trip.id.startswith("slow") else Leg.TRAVEL


async def travel(trip: Trip) -> Literal[Leg.CLEAN]:
    return Leg.CLEAN


async def clean(trip: Trip) -> Literal[Leg.OVER]:
    return Leg.OVER


def trips(**policies: Any) -> Flow[Leg]:
    looks = {"every": Every(5), **policies}
    return Flow(Trip, {Leg.BOOK: stage(book, **looks), Leg.TRAVEL: travel, Leg.CLEAN: clean, Leg.OVER: END}, on_cancel=Leg.CLEAN)


def line_of(**policies: Any) -> Any:
    return one_stage(fail, **policies).stages["make"]


# -- how long is too long -------------------------------------------------------------------------------------------


def test_a_stage_declares_its_deadline_or_all_its_attempts_and_their_pauses() -> None:
    limit = declared(line_of(within=HOUR, otherwise=Step.DONE))
    assert limit is not None and limit.after == HOUR + LATE and "1 h" in limit.why
    limit = declared(line_of(timeout=10, retry=Retry(attempts=4, first=1, longest=3)))
    assert limit is not None
    assert limit.after == timedelta(seconds=4 * 10 + (1 + 2 + 3) * 1.2)
    many = declared(line_of(timeout=1, retry=Retry(attempts=1_000_000, first=1, longest=1)))
    assert many is not None and many.after == timedelta(seconds=1_000_000 + 999_999 * 1.2)
    assert declared(trips().stages["book"]) is None  # a poll without a deadline may look for ever


def test_of_what_is_declared_and_what_is_usual_the_shorter_counts() -> None:
    within = line_of(within=HOUR, otherwise=Step.DONE)
    assert limit_of(within, Usual(2 * MINUTE, 20)).after == USUAL_TIMES * 2 * MINUTE  # type: ignore[union-attr]
    assert limit_of(within, Usual(2 * HOUR, 20)).after == HOUR + LATE  # type: ignore[union-attr]
    assert limit_of(trips().stages["book"], None) is None  # type: ignore[arg-type]
    quick = limit_of(within, Usual(timedelta(milliseconds=3), 20))
    assert quick is not None and (quick.after, quick.why) == (STUCK_MIN, "usually it takes less than 1 min")


def history(*steps: tuple[float, str, str | None, str]) -> list[Entry]:
    """Of (seconds, kind, from, to)."""
    return [
        Entry("a", version, NOW + timedelta(seconds=at), kind, source, target, version, 1, 1, "w", None, None, None)
        for version, (at, kind, source, target) in enumerate(steps)
    ]


def done(wait: float) -> list[Entry]:
    """Booked after that many seconds, and a poll on the way."""
    return history(
        (0, "started", None, "book"),
        (wait / 2, "not yet", "book", "book"),
        (wait, "moved", "book", "travel"),
        (wait + 1, "moved", "travel", "clean"),
        (wait + 2, "moved", "clean", "over"),
    )


def test_what_is_usual_is_what_all_but_one_in_a_hundred_took_in_a_stage_with_its_polls() -> None:
    usual = usual_of(trips(), [done(wait) for wait in range(1, 201)])
    assert usual["book"] == Usual(timedelta(seconds=198), 200)
    assert usual["travel"] == Usual(timedelta(seconds=1), 200)
    assert "over" not in usual


def test_too_few_samples_say_nothing_of_what_is_usual() -> None:
    assert usual_of(trips(), [done(1)] * (SAMPLES_MIN - 1)) == {}
    assert set(usual_of(trips(), [done(1)] * SAMPLES_MIN)) == {"book", "travel", "clean"}


def test_a_visit_in_which_a_person_had_a_hand_is_no_sample() -> None:
    helped = history((0, "started", None, "book"), (5, "failed", "book", "book"), (9_000, "retried", "book", "book"))
    helped += [dataclasses.replace(entry, version=entry.version + 3, at=entry.at + 3 * HOUR) for entry in done(7)[2:]]
    by_hand = history(
        (0, "started", None, "book"), (9_000, "moved by hand", "book", "travel"), (9_001, "moved", "travel", "clean")
    )
    usual = usual_of(trips(), [*([done(7)] * 20), *([helped] * 20), *([by_hand] * 20)])
    assert usual["book"] == Usual(timedelta(seconds=1_807), 40)  # what came after the person is one
    assert usual["travel"].most == timedelta(seconds=1)


def test_statuses_that_share_a_stage_share_its_time() -> None:
    async def both(trip: Trip) -> Literal[Leg.BOOK, Leg.TRAVEL, Leg.CLEAN]:
        return Leg.CLEAN

    flow = Flow(Trip, {(Leg.BOOK, Leg.TRAVEL): stage(both, every=Every(1)), Leg.CLEAN: clean, Leg.OVER: END})
    usual = usual_of(flow, [done(9)] * 20)
    assert usual["book"] == usual["travel"] == Usual(timedelta(seconds=10), 20)


def test_statuses_that_the_code_has_forgotten_disturb_nobody() -> None:
    strange = history((0, "started", None, "packed"), (5, "moved", "packed", "book"), (9, "moved", "book", "gone"))
    assert usual_of(trips(), [strange] * 30)["book"].most == timedelta(seconds=4)


# -- sentences --------------------------------------------------------------------------------------------------------


def check_item(item: Item) -> None:
    """Each is one sentence, and a command that the command line understands."""
    assert item.sentence.endswith(".") and "\n" not in item.sentence and item.sentence[0].upper() == item.sentence[0]
    words = shlex.split(item.command)
    assert words[0] == "onward" and words[1] in {"run", "ls", "explain", "resume"}
    assert CliRunner().invoke(cli, [words[1], "--help"]).exit_code == 0


def count(status: str, condition: Condition, number: int = 1, ago: timedelta = MINUTE, flow: str = "trip") -> Count:
    return Count(flow, status, condition, number, NOW - ago)


def test_orphaned_ones_are_told_by_flow_and_status_and_why() -> None:
    counts = [
        count("packed", Condition.ORPHANED, 3),
        count("packed", Condition.ORPHANED, 2, HOUR),
        count("book", Condition.ORPHANED, 1, flow="gone"),
        count("book", Condition.FAILED, 9),
    ]
    items = orphaned(counts, {"trip": trips()})
    assert [(item.flow, item.status, item.number, item.since) for item in items] == [
        ("trip", "packed", 5, NOW - HOUR),
        ("gone", "book", 1, NOW - MINUTE),
    ]
    assert "the flow trip has no status packed" in items[0].sentence and "this code has no flow gone" in items[1].sentence
    assert shlex.split(items[0].command) == ["onward", "ls", "flow:trip status:packed is:orphaned"]
    for item in items:
        check_item(item)


def lease(owner: str, until: timedelta, number: int = 1) -> Lease:
    return Lease(owner, "trip", "book", number, NOW + until, NOW - MINUTE, NOW)


def test_leases_that_ended_and_that_nobody_took_over_are_told_by_their_worker() -> None:
    leases = [lease("dead", -MINUTE, 2), lease("dead", -HOUR), lease("alive", MINUTE), lease("just now", -LATE)]
    [item] = dead_leases(leases, NOW)
    assert (item.number, item.query, item.since) == (3, "worker:dead", NOW - MINUTE)
    assert "3 processes still in the hands of dead, whose lease ended 1 min ago" in item.sentence
    check_item(item)


def test_nobody_works_where_something_is_due_and_no_lease_is_alive() -> None:
    assert nobody_works(None, [], NOW) == nobody_works(LATE, [], NOW) == []
    assert nobody_works(HOUR, [lease("alive", MINUTE)], NOW) == []
    [item] = nobody_works(HOUR, [lease("dead", -MINUTE)], NOW)
    assert "due for 1 h" in item.sentence and item.command == "onward run"
    check_item(item)


def test_what_is_paused_for_long_may_have_been_forgotten() -> None:
    ago = {"a": PAUSED_LONG, "b": PAUSED_LONG + MINUTE, "c": 3 * PAUSED_LONG}
    found = [record(None, id, condition=Condition.PAUSED, updated_at=NOW - since) for id, since in ago.items()]
    [item] = paused(found, NOW)
    assert (item.number, item.ids, item.since) == (2, ("b", "c"), NOW - 3 * PAUSED_LONG)
    assert item.query == "flow:job status:make is:paused updated:>1d"
    check_item(item)


def test_the_oldest_of_those_that_move_by_themselves_is_of_any_of_their_conditions() -> None:
    counts = [
        count("book", Condition.WAITING, 5, HOUR),
        count("book", Condition.READY),
        count("book", Condition.RETRYING, 1, 9 * HOUR),
    ]
    counts += [count("book", Condition.FAILED, 1, 9 * HOUR), count("book", Condition.FINISHED, 1, 9 * HOUR)]
    assert oldest_moving(counts) == {("trip", "book"): NOW - HOUR}


@pytest.mark.parametrize("number", [1, SHOWN_MAX, SHOWN_MAX + 1])
def test_stuck_ones_are_named_as_far_as_there_is_room(number: int) -> None:
    found = [record(None, f"id-{place}", entered_at=NOW - HOUR) for place in range(number)]
    limit = module.Limit(MINUTE, "usually it takes less than 1 min")
    item = module.stuck("trip", "book", limit, 3 * HOUR, "flow:trip in:>60s", found)
    assert len(item.ids) == min(number, SHOWN_MAX)
    assert item.sentence.startswith(
        "More than 10 processes" if number > SHOWN_MAX else "1 process of trip" if number == 1 else "10 processes"
    )
    assert "for up to 3 h; usually it takes less than 1 min." in item.sentence
    assert item.command.startswith("onward explain id-0" if number == 1 else "onward ls ")
    check_item(item)


# -- on real stores -----------------------------------------------------------------------------------------------------


async def found_in(app: Onward) -> module.Attention:
    return await attention(app, await app.counts())


def kinds(found: module.Attention) -> list[str]:
    return [item.kind for item in found.items]


async def ids_of(app: Onward, query: str) -> set[str]:
    return {one.id for one in await app.find(query, light=True)}


async def work(app: Onward, ids: Sequence[str]) -> None:
    for id in ids:
        await app.check(id)


def a_clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 1, tzinfo=UTC))


async def test_an_empty_store_needs_nobody(url: str) -> None:
    async with opened(trips(), url=url, clock=a_clock()) as app:
        found = await found_in(app)
        assert (found.as_of, list(found.groups), list(found.items)) == (None, [], [])


async def test_what_goes_on_as_usual_needs_nobody(url: str) -> None:
    async with opened(trips(), url=url, clock=a_clock()) as app:
        await app.start_many(Trip(id=f"t{number}") for number in range(3))
        await work(app, ["t0", "t1"])
        found = await found_in(app)
        assert found.as_of == app.clock.now() and not found.groups and not found.items


async def with_usual_times(app: Onward, clock: ManualClock) -> None:
    """Enough have finished to tell that booking takes seven seconds."""
    ids = [f"t{number:02d}" for number in range(SAMPLES_MIN + 5)]
    await app.start_many(Trip(id=id) for id in ids)
    await work(app, ids)
    clock.advance(timedelta(seconds=7))
    await work(app, ids)
    assert {one.condition for one in await app.find(limit=100)} == {Condition.FINISHED}


async def test_longer_in_its_stage_than_usual_is_stuck_and_the_query_finds_it(url: str) -> None:
    clock = a_clock()
    async with opened(trips(), url=url, clock=clock) as app:
        await with_usual_times(app, clock)
        await app.start_many(Trip(id=id) for id in ("slow-1", "slow-2"))
        clock.advance(STUCK_MIN - timedelta(seconds=1))
        await app.start_many([Trip(id="young")])
        ids = ["slow-1", "slow-2", "young"]
        await work(app, ids)
        assert not (await found_in(app)).items
        clock.advance(timedelta(seconds=2))
        await work(app, ids)
        [item] = (await found_in(app)).items
        assert (item.kind, item.number, set(item.ids)) == ("stuck", 2, {"slow-1", "slow-2"})
        assert await ids_of(app, item.query) == {"slow-1", "slow-2"}
        assert "usually it takes less than 1 min" in item.sentence


async def test_past_its_deadline_and_untouched_is_stuck_where_others_are_being_worked_on(url: str) -> None:
    clock = a_clock()
    async with opened(trips(within=HOUR, otherwise=Leg.CLEAN), url=url, clock=clock) as app:
        await app.start_many([Trip(id="slow-1"), Trip(id="other")])
        clock.advance(2 * HOUR)
        assert kinds(await found_in(app)) == ["nobody"]
        await app.store.claim([("trip", "book", 1)], "worker-1", 1, HOUR, ["other"])
        await app.start_many([Trip(id="new")])
        [item] = (await found_in(app)).items
        assert item.kind == "stuck" and "its deadline is 1 h" in item.sentence
        assert set(item.ids) == await ids_of(app, item.query) == {"slow-1", "other"}


async def test_retrying_is_not_stuck(url: str) -> None:
    clock = a_clock()

    async def break_down(job: Job) -> Literal[Step.DONE]:
        raise ValueError("no room")

    async with opened(one_stage(break_down, retry=Retry(50, first=3_600, longest=3_600)), url=url, clock=clock) as app:
        await app.start(Job(id="a"))
        await app.check("a")
        clock.advance(30 * MINUTE)
        assert not (await found_in(app)).items


async def test_no_worker_is_one_thing_to_look_at_and_not_one_for_each_stage(url: str) -> None:
    clock = a_clock()
    async with opened(trips(), url=url, clock=clock) as app:
        await with_usual_times(app, clock)
        await app.start_many(Trip(id=f"slow-{number}") for number in range(3))
        clock.advance(HOUR)
        found = await found_in(app)
        assert kinds(found) == ["nobody"]
        assert found.items[0].since == app.clock.now() - HOUR


async def test_a_lease_that_ran_out_is_seen_until_somebody_takes_over(url: str) -> None:
    clock = a_clock()
    async with opened(trips(), url=url, clock=clock) as app:
        await app.start_many([Trip(id="a"), Trip(id="b")])
        await app.store.claim([("trip", "book", 1)], "worker-dead", 1, MINUTE, ["a"])
        clock.advance(MINUTE + 2 * LATE)
        assert kinds(await found_in(app)) == ["nobody", "lease"]
        assert await ids_of(app, (await found_in(app)).items[1].query) == {"a"}
        await work(app, ["a", "b"])
        assert not (await found_in(app)).items


async def test_what_the_code_has_forgotten_is_orphaned_whatever_it_was(url: str) -> None:
    async with opened(trips(), one_stage(fail, retry=Retry(attempts=1)), url=url, clock=a_clock()) as app:
        await app.start_many([Trip(id="a"), Job(id="b", note="no room"), Job(id="c")])
        await work(app, ["b"])
        del app.flows["job"]  # as in a deploy that has lost it
        found = await found_in(app)
        assert kinds(found) == ["orphaned"] and not found.groups
        assert (found.items[0].number, await ids_of(app, found.items[0].query)) == (2, {"b", "c"})


async def test_what_was_paused_a_day_ago_is_told_and_can_be_found(url: str) -> None:
    clock = a_clock()
    async with opened(trips(), url=url, clock=clock) as app:
        await app.start_many([Trip(id="old"), Trip(id="new")])
        await app.pause("old", actor="ines")
        clock.advance(PAUSED_LONG)
        await app.pause("new", actor="ines")
        assert not (await found_in(app)).items
        clock.advance(MINUTE)
        [item] = (await found_in(app)).items
        assert (item.kind, item.ids, await ids_of(app, item.query)) == ("paused", ("old",), {"old"})


async def test_failures_are_counted_and_grouped_up_to_a_limit(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail_hard(job: Job) -> Literal[Step.DONE]:
        raise Unrecoverable(job.note)

    async with opened(one_stage(fail_hard), url=url) as app:
        await app.start_many(Job(id=f"j{number}", note=f"no file {number}") for number in range(7))
        await work_off(app)
        found = await found_in(app)
        assert ([group.number for group in found.groups], found.failures, found.more_failures) == ([7], 7, False)
        monkeypatch.setattr(module, "FAILURES_MAX", 4)
        monkeypatch.setattr(module, "PAGE_MAX", 2)
        found = await found_in(app)
        assert ([group.number for group in found.groups], found.failures, found.more_failures) == ([4], 4, True)


async def test_a_store_without_code_is_looked_at_as_well(file_url: str) -> None:
    async with opened(trips(), url=file_url) as app:
        await app.start(Trip(id="a"))
        await app.pause("a")
    async with opened(url=file_url) as app:
        assert not (await found_in(app)).items
