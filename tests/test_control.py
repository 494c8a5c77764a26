"""What a person or another program may do to a process: each verb does what it says, or says why not."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from datetime import timedelta
from enum import StrEnum, auto
from itertools import pairwise
from typing import Any, Literal

import pytest
from conftest import Job, Leg, Step, Trip, kinds, one_stage, opened, work_off, working

from onward import (
    END,
    Condition,
    Conflict,
    Context,
    Entry,
    Every,
    Flow,
    InvalidData,
    NotFound,
    Onward,
    OnwardError,
    Process,
    Record,
    Refused,
    Retry,
    Unrecoverable,
    stage,
)
from onward.ports import NewProcess
from onward.query import QueryError, parse
from onward.testing import ManualClock


async def make(job: Job) -> Literal[Step.DONE]:
    job.note += "!"
    return Step.DONE


async def poll(job: Job) -> Literal[Step.MAKE, Step.DONE]:
    return Step.DONE if job.numbers else Step.MAKE


async def give_up(job: Job) -> Literal[Step.DONE]:
    raise Unrecoverable("no such file")


async def stumble(job: Job) -> Literal[Step.DONE]:
    raise RuntimeError("not today")


POLLING = one_stage(poll, every=Every(seconds=60))
FAILING = one_stage(give_up)
STUMBLING = one_stage(stumble, retry=Retry(attempts=3, first=60))


def trip_flow(travel: Any = None) -> Flow[Leg]:
    """Book, travel, clean, over. Cancelled, it goes on at CLEAN."""

    async def book(trip: Trip) -> Literal[Leg.TRAVEL]:
        trip.log.append("booked")
        return Leg.TRAVEL

    async def wait(trip: Trip) -> Literal[Leg.TRAVEL, Leg.CLEAN]:
        return Leg.TRAVEL

    async def clean(trip: Trip) -> Literal[Leg.OVER]:
        trip.log.append("cleaned")
        return Leg.OVER

    line = stage(travel) if travel else stage(wait, every=Every(seconds=3_600))
    return Flow(Trip, {Leg.BOOK: book, Leg.TRAVEL: line, Leg.CLEAN: clean, Leg.OVER: END}, on_cancel=Leg.CLEAN)


async def resting(app: Onward, *processes: Process[Any]) -> list[Record]:
    """Starts them and drives each until it rests."""
    records = await app.start_many(processes)
    return [await app.check(record.id) for record in records]


# -- start --------------------------------------------------------------------------------------------------------


async def test_start_makes_the_row_and_answers_it_ready_and_typed(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        record = await app.start(Job(id="a", note="hello"))

        assert (record.id, record.flow, record.status, record.condition) == ("a", "job", "make", Condition.READY)
        assert (record.version, record.transition, record.attempt, record.error) == (0, 0, 0, None)
        assert isinstance(record.process, Job)
        assert record.process == Job(id="a", note="hello")
        assert record.created_at == record.updated_at == record.entered_at == record.due_at


async def test_start_with_the_same_input_answers_the_existing_process(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        first = await app.start(Job(id="a", note="x", numbers=[1]))
        again = await app.start(Job(id="a", note="x", numbers=[1]))

        assert (again.id, again.version, again.created_at) == (first.id, 0, first.created_at)
        assert len(await app.find()) == 1


async def test_start_with_the_same_input_answers_the_existing_process_after_it_has_moved_on() -> None:
    async with opened(one_stage(make)) as app:
        await app.start(Job(id="a", note="x"))
        await work_off(app)

        again = await app.start(Job(id="a", note="x"))

        assert (again.condition, again.status, again.process.note) == (Condition.FINISHED, "done", "x!")


async def test_start_with_defaults_written_out_is_the_same_input() -> None:
    async with opened(one_stage(make)) as app:
        await app.start(Job(id="a"))

        assert (await app.start(Job(id="a", note="", numbers=[], extra=None, status=Step.MAKE))).version == 0


@pytest.mark.parametrize("other", [Job(id="a", note="y"), Job(id="a", note="x", numbers=[1])])
async def test_start_with_other_input_is_a_conflict_and_changes_nothing(other: Job) -> None:
    async with opened(one_stage(make)) as app:
        await app.start(Job(id="a", note="x"))

        with pytest.raises(Conflict, match="a exists already and was started with other input") as caught:
            await app.start(other)

        assert "onward show a" in caught.value.hint
        assert (await app.get("a")).process == Job(id="a", note="x")
        assert kinds(await app.history("a")) == ["started"]


async def test_start_of_another_flow_with_the_same_id_is_a_conflict() -> None:
    async with opened(one_stage(make), trip_flow()) as app:
        await app.start(Trip(id="a"))
        with pytest.raises(Conflict):
            await app.start(Job(id="a"))


async def test_many_starts_of_one_id_at_once_make_one_process(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        answers = await asyncio.gather(*(app.start(Job(id="a", note=str(n % 2))) for n in range(20)), return_exceptions=True)

        won = (await app.get("a")).process.note
        for n, answer in enumerate(answers):
            assert isinstance(answer, Record if str(n % 2) == won else Conflict)
        assert kinds(await app.history("a")) == ["started"]


async def test_start_without_an_id_makes_one() -> None:
    async with opened(one_stage(make)) as app:
        first, second = await app.start(Job()), await app.start(Job())
        assert first.id != second.id
        assert len(first.id) == 18


async def test_start_in_mid_flow_is_possible_but_at_an_end_it_is_refused() -> None:
    async with opened(trip_flow()) as app:
        assert (await app.start(Trip(status=Leg.CLEAN))).status == "clean"
        with pytest.raises(InvalidData, match="over before it began") as caught:
            await app.start(Trip(id="z", status=Leg.OVER))

        assert "status" in str(caught.value)
        assert await app.find(prefix="z") == []


async def test_start_of_a_model_without_a_flow_names_those_that_have_one() -> None:
    async with opened(one_stage(make), trip_flow()) as app:

        class Other(Process[Step]):
            status: Step = Step.MAKE

        with pytest.raises(NotFound, match="no flow for Other; it has flows for: Job, Trip"):
            await app.start(Other())


@pytest.mark.parametrize("id", ["", " ", "a\nb", "a\x00b", "\ud800", "x" * 201, "\u202egood"])
async def test_start_refuses_an_id_that_people_or_databases_cannot_handle(id: str) -> None:
    async with opened(one_stage(make)) as app:
        with pytest.raises(InvalidData, match="the id"):
            await app.start(Job.model_construct(id=id, status=Step.MAKE, note=""))
        assert await app.find() == []


async def test_start_many_takes_1200_in_portions_and_answers_in_their_order(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        records = await app.start_many(Job(id=f"{n:04}", numbers=[n]) for n in range(1_200))

        assert [record.process.numbers for record in records] == [[n] for n in range(1_200)]
        assert [(count.status, count.condition, count.number) for count in await app.counts()] == [("make", "ready", 1_200)]


async def test_start_many_takes_the_same_process_twice_and_answers_it_twice() -> None:
    async with opened(one_stage(make)) as app:
        records = await app.start_many([Job(id="a"), Job(id="b"), Job(id="a")])
        assert [record.id for record in records] == ["a", "b", "a"]
        with pytest.raises(Conflict):
            await app.start_many([Job(id="c"), Job(id="c", note="other")])
        assert await app.start_many([]) == []


async def test_start_many_starts_none_if_one_of_them_cannot_be_written() -> None:
    async with opened(one_stage(make)) as app:
        with pytest.raises(InvalidData):
            await app.start_many([Job(id="a"), Job(id="b", extra=object())])
        assert await app.find() == []


async def test_start_records_who_started_it_whatever_the_name_holds(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        await app.start(Job(id="a"), actor="nightly import")
        await app.start(Job(id="b"), actor="M\x00d\ud800" + "x" * 10_000)

        assert (await app.history("a"))[0].actor == "nightly import"
        assert (await app.history("b"))[0].actor.startswith("M\ufffdd\ufffdx")


# -- get, wait, find, counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["nobody", "", "\ud800", "a\x00", "x" * 100_000])
async def test_what_does_not_exist_is_not_found_with_a_hint(url: str, id: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        await app.start(Job(id="a"))
        looks: list[Any] = [app.get, app.history, app.explain, app.check, app.wait, lambda id: app.data_at(id, 0)]
        acts: list[Any] = [app.wake, app.retry, app.pause, app.resume, app.cancel, app.stop]
        for verb in looks + acts:
            with pytest.raises(NotFound, match="there is no process") as caught:
                await verb(id)
            assert caught.value.hint
        assert (await app.get("a")).version == 0


@pytest.mark.parametrize(
    ("flow", "condition"),
    [(one_stage(make), Condition.FINISHED), (FAILING, Condition.FAILED)],
    ids=["finished", "failed"],
)
async def test_wait_answers_when_it_is_over_or_needs_a_person(url: str, flow: Flow[Any], condition: Condition) -> None:
    async with opened(flow, url=url) as app, working(app):
        record = await app.start(Job())
        assert (await app.wait(record.id)).condition is condition


async def test_wait_answers_for_a_process_that_somebody_pauses_or_cancels_meanwhile(url: str) -> None:
    async with opened(POLLING, url=url) as app:
        for id, act, condition in (("a", app.pause, Condition.PAUSED), ("b", app.cancel, Condition.CANCELLED)):
            await app.start(Job(id=id))
            waiting = asyncio.create_task(app.wait(id))
            await asyncio.sleep(0)
            await act(id)
            assert (await waiting).condition is condition


async def test_wait_raises_timeout_error_and_leaves_the_process_alone() -> None:
    async with opened(one_stage(make)) as app:
        await app.start(Job(id="a"))
        with pytest.raises(TimeoutError):
            await app.wait("a", timeout=0.01)
        with pytest.raises(TimeoutError):
            await app.wait("a", timeout=timedelta(milliseconds=10))
        assert (await app.get("a")).version == 0


async def test_find_filters_by_flow_status_condition_and_prefix(url: str) -> None:
    async with opened(POLLING, trip_flow(), url=url) as app:
        await resting(app, Job(id="job-1"), Job(id="job-2", numbers=[1]), Trip(id="trip-1"))
        await app.start(Job(id="job-3"))

        async def ids(**filters: Any) -> set[str]:
            return {record.id for record in await app.find(**filters)}

        assert await ids() == {"job-1", "job-2", "job-3", "trip-1"}
        assert await ids(flow="trip") == {"trip-1"}
        assert await ids(status=Step.DONE) == await ids(status="done") == {"job-2"}
        assert await ids(status=[Step.DONE, Leg.TRAVEL]) == {"job-2", "trip-1"}
        assert await ids(condition="waiting") == {"job-1", "trip-1"}
        assert await ids(condition=[Condition.READY, Condition.FINISHED]) == {"job-2", "job-3"}
        assert await ids(prefix="job-") == {"job-1", "job-2", "job-3"}
        assert await ids(flow="job", condition=Condition.WAITING, prefix="job") == {"job-1"}
        assert await ids(prefix="%") == await ids(flow="none") == await ids(status="none") == set()


async def test_find_answers_typed_records_newest_first() -> None:
    clock = ManualClock()
    async with opened(one_stage(make), clock=clock) as app:
        for n in range(5):
            await app.start(Job(id=str(n), numbers=[n]))
            clock.advance(1)
        found = await app.find(limit=3)
        assert [record.id for record in found] == ["4", "3", "2"]
        assert [record.process.numbers for record in found] == [[4], [3], [2]]


async def test_find_goes_through_all_pages_without_losing_or_repeating_one() -> None:
    async with opened(one_stage(make)) as app:
        await app.start_many(Job(id=f"{n:03}") for n in range(250))  # of one instant: the id has to decide
        seen: list[str] = []
        while page := await app.find(before=seen[-1] if seen else "", limit=30):
            seen += [record.id for record in page]
        assert seen == sorted((f"{n:03}" for n in range(250)), reverse=True)


@pytest.mark.parametrize("limit", [0, -1, 1_001])
async def test_find_refuses_a_page_without_bounds(limit: int) -> None:
    async with opened(one_stage(make)) as app:
        with pytest.raises(OnwardError, match="1 to 1,000"):
            await app.find(limit=limit)


async def test_find_shows_as_orphaned_what_this_code_does_not_know(file_url: str) -> None:
    async with opened(POLLING, trip_flow(), url=file_url) as old:
        await resting(old, *(Trip(id=f"t{n}") for n in range(20)), Job(id="j"), Job(id="k", numbers=[1]))
        await old.stop("t3")
    async with opened(POLLING, url=file_url) as new:
        orphaned = await new.find(condition=Condition.ORPHANED, limit=50)
        assert {record.id for record in orphaned} == {f"t{n}" for n in range(20) if n != 3}
        assert all(record.process is None and record.data for record in orphaned)
        assert [record.id for record in await new.find(condition="waiting", limit=5)] == ["j"]
        assert {record.id for record in await new.find(condition=["orphaned", "finished"], prefix="k")} == {"k"}
        # What is over is over, whether the code is still there or not.
        assert [record.id for record in await new.find(condition="cancelled")] == ["t3"]
        pages = await new.find(condition="orphaned", limit=7)
        pages += await new.find(condition="orphaned", limit=50, before=pages[-1].id)
        assert [record.id for record in pages] == [record.id for record in orphaned]


async def test_find_takes_a_query_and_what_else_is_asked_all_at_once(url: str) -> None:
    async with opened(POLLING, trip_flow(), url=url) as app:
        await resting(app, Job(id="job-1", note="tea"), Job(id="job-2", numbers=[1]), Trip(id="trip-1"))

        async def ids(query: Any, **more: Any) -> set[str]:
            return {record.id for record in await app.find(query, **more)}

        assert await ids("is:waiting") == {"job-1", "trip-1"} == await ids("-is:over")
        assert await ids("is:waiting", flow="job") == {"job-1"} == await ids("data.note:tea")
        assert await ids(parse("id:*1 flow:job")) == {"job-1"}
        assert await ids("job", status="done") == {"job-2"} and await ids("is:waiting", condition="finished") == set()
        assert await ids("", status="d*") == set() == await ids("", prefix="*")  # what a program gives is no pattern
        with pytest.raises(QueryError, match="did you mean waiting"):
            await app.find("is:wating")
        with pytest.raises(QueryError, match="did you mean waiting"):
            await app.find(condition="wating")


async def test_a_light_find_answers_records_without_data_or_process_and_with_their_conditions(file_url: str) -> None:
    async with opened(POLLING, trip_flow(), url=file_url) as old:
        await resting(old, Trip(id="t"), Job(id="j", numbers=[1]))
    async with opened(POLLING, url=file_url) as new:
        found = {record.id: (record.condition, record.data, record.process) for record in await new.find(light=True)}
        assert found == {"t": (Condition.ORPHANED, "", None), "j": (Condition.FINISHED, "", None)}


async def test_a_search_for_something_rare_can_be_done_in_parts(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        await app.start_many(Job(id=f"{n:02}", numbers=[n % 10]) for n in range(40))
        await app.pause("05")
        for query, turns in (("data.numbers.0:7", 7), ("is:paused", 1), ("id:1*", 1)):
            found: list[str] = []
            before, done = "", 0
            while before or not done:
                found += [record.id for record in await app.find(query, before=before, looks=6)]
                before, done = await app.past(before, 6, query), done + 1
            assert (found, done) == ([record.id for record in await app.find(query)], turns)


async def test_counts_says_how_many_stand_where_and_since_when() -> None:
    clock = ManualClock()
    async with opened(POLLING, trip_flow(), clock=clock) as app:
        began = clock.now()
        await resting(app, Job(), Job(), Job(numbers=[1]))
        clock.advance(10)
        await resting(app, Job(), Trip())
        counts = {(c.flow, c.status, c.condition): (c.number, c.oldest) for c in await app.counts()}
        assert counts == {
            ("job", "make", "waiting"): (3, began),
            ("job", "done", "finished"): (1, began),
            ("trip", "travel", "waiting"): (1, began + timedelta(seconds=10)),
        }


async def test_counts_gathers_what_this_code_does_not_know_as_orphaned(file_url: str) -> None:
    async with opened(POLLING, trip_flow(), url=file_url) as old:
        await resting(old, Trip(id="a"), Trip(id="b"), Trip(id="c"))
        await old.wake("a")
        await old.pause("b")
    async with opened(POLLING, url=file_url) as new:
        assert [(c.status, c.condition, c.number) for c in await new.counts()] == [("travel", "orphaned", 3)]


# -- history, data_at, explain ------------------------------------------------------------------------------------


async def test_history_tells_each_commit_with_its_cause_and_no_version_is_missing(url: str) -> None:
    clock = ManualClock()
    async with opened(trip_flow(), url=url, clock=clock) as app:
        await resting(app, Trip(id="a"))
        clock.advance(timedelta(hours=2))
        await app.check("a")
        await app.cancel("a", reason="rain", actor="ann")
        clock.advance(2)
        await work_off(app)

        history = await app.history("a")
        assert [entry.version for entry in history] == list(range(len(history)))
        assert [(e.kind, e.from_status, e.to_status, e.transition) for e in history] == [
            ("started", None, "book", 0),
            ("moved", "book", "travel", 1),
            ("not yet", "travel", "travel", 1),
            ("not yet", "travel", "travel", 1),
            ("cancelled", "travel", "clean", 2),
            ("moved", "clean", "over", 3),
        ]
        assert [e.actor.partition("-")[0] for e in history[1:]] == ["worker", "worker", "worker", "ann", "worker"]
        assert history[4].reason == "rain"
        assert [e.epoch for e in history] == sorted(e.epoch for e in history)
        assert [e.at for e in history] == sorted(e.at for e in history)
        assert all(e.took is not None for e in history if e.kind in ("moved", "not yet"))
        assert [e.version for e in await app.history("a", after=2, limit=2)] == [3, 4]


async def test_data_at_answers_the_data_of_every_version() -> None:
    class Count(StrEnum):
        UP = auto()
        MORE = auto()
        END = auto()

    class Counter(Process[Count]):
        status: Count = Count.UP
        number: int = 0

    async def up(counter: Counter) -> Literal[Count.MORE]:
        counter.number += 1
        return Count.MORE

    async def more(counter: Counter) -> Literal[Count.MORE, Count.END]:
        counter.number += 1
        return Count.END if counter.number == 4 else Count.MORE

    clock = ManualClock()
    flow = Flow(Counter, {Count.UP: up, Count.MORE: stage(more, every=Every(seconds=1)), Count.END: END})
    async with opened(flow, clock=clock) as app:
        await app.start(Counter(id="a"))
        await app.check("a")
        await app.pause("a")
        await app.resume("a")
        for _ in range(2):
            await app.check("a")
            clock.advance(2)

        assert [(await app.data_at("a", v))["number"] for v in range(7)] == [0, 1, 2, 2, 2, 3, 4]
        for version in (7, -1, 10**30):
            with pytest.raises(NotFound, match="has no version"):
                await app.data_at("a", version)
        assert (await app.get("a")).version == 6


async def test_history_after_a_version_beyond_all_is_empty(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        await app.start(Job(id="a"))
        assert await app.history("a", after=10**30) == []
        assert len(await app.history("a", after=-(10**30), limit=10**30)) == 1


async def test_explain_says_for_each_condition_why_it_is_not_moving(file_url: str) -> None:
    clock = ManualClock()
    async with opened(POLLING, url=file_url, clock=clock) as app:
        await app.start(Job(id="a"))
        assert "it is due now" in await app.explain("a")
        clock.advance(60)
        assert "no worker took it; start one with `onward run`" in await app.explain("a")
        await app.check("a")
        assert "poll said 'not yet' once and looks again in 1 min" in await app.explain("a")
        await app.pause("a")
        assert "a person paused it" in await app.explain("a")
        await app.stop("a")
        assert "a person ended it" in await app.explain("a")
        await app.check((await app.start(Job(id="b", numbers=[1]))).id)
        assert "reached its end" in await app.explain("b")
        await app.start(Job(id="c"))
    async with opened(trip_flow(), url=file_url, clock=clock) as other:
        assert "this code has no flow 'job'" in await other.explain("c")
    async with opened(FAILING, url=file_url, clock=clock) as failing:
        await failing.check("c")
        assert "Unrecoverable: no such file" in await failing.explain("c")
        assert "onward retry c" in await failing.explain("c")


async def test_explain_says_who_runs_it(file_url: str) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def hold(job: Job) -> Literal[Step.DONE]:
        begun.set()
        await go.wait()
        return Step.DONE

    async with opened(one_stage(hold), url=file_url) as app, working(app):
        await app.start(Job(id="a"))
        await begun.wait()
        record = await app.get("a")
        assert record.condition is Condition.RUNNING
        assert f"{record.owner} runs attempt 1 of hold" in await app.explain("a")
        go.set()
        await app.wait("a")


# -- the acts -----------------------------------------------------------------------------------------------------


async def test_wake_makes_a_waiting_process_due_now(url: str) -> None:
    async with opened(POLLING, url=url, clock=ManualClock()) as app:
        await resting(app, Job(id="a"))

        woken = await app.wake("a")

        assert woken.condition is Condition.READY
        assert woken.due_at == woken.as_of
        assert (await app.check("a")).polls == 2


async def test_wake_makes_a_retrying_process_due_now_and_keeps_the_count() -> None:
    async with opened(STUMBLING, clock=ManualClock()) as app:
        await resting(app, Job(id="a"))
        await app.wake("a")
        record = await app.check("a")
        assert (record.condition, record.attempt) == (Condition.RETRYING, 2)


async def test_retry_goes_on_after_the_fix_with_all_attempts_before_it_again(file_url: str) -> None:
    async with opened(one_stage(stumble, retry=Retry(attempts=2, first=0)), url=file_url) as app:
        await app.start(Job(id="a", note="kept"))
        await work_off(app)
        failed = await app.get("a")
        assert (failed.condition, failed.attempt, failed.process.note) == (Condition.FAILED, 2, "kept")
        assert "RuntimeError: not today" in (failed.error or "")

        retried = await app.retry("a")
        assert (retried.condition, retried.tries, retried.error) == (Condition.READY, 0, None)
        await work_off(app)
        again = await app.get("a")
        assert (again.tries, again.attempt) == (2, 4)  # a handler that looks from attempt 2 on for what it did before looks again
        await app.retry("a")
    async with opened(one_stage(make), url=file_url) as mended:
        await work_off(mended)
        assert (await mended.get("a")).process.note == "kept!"


async def test_pause_and_resume_of_a_waiting_process(url: str) -> None:
    clock = ManualClock()
    async with opened(POLLING, url=url, clock=clock) as app:
        await resting(app, Job(id="a"))
        paused = await app.pause("a")
        assert (paused.condition, paused.due_at, paused.status) == (Condition.PAUSED, None, "make")
        clock.advance(timedelta(days=30))
        await work_off(app)
        assert (await app.get("a")).version == paused.version

        assert (await app.resume("a")).condition is Condition.READY
        assert (await app.check("a")).polls == 2


async def test_pause_stops_a_running_attempt_and_resume_runs_the_stage_again_with_the_same_key(url: str) -> None:
    begun, ended, keys = asyncio.Event(), asyncio.Event(), []

    async def hold(job: Job, ctx: Context) -> Literal[Step.DONE]:
        keys.append(ctx.key)
        if len(keys) > 1:
            return Step.DONE
        job.note = "half done"
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with opened(one_stage(hold), url=url) as app, working(app):
        await app.start(Job(id="a"))
        await begun.wait()
        paused = await app.pause("a", reason="wait for legal")
        await ended.wait()
        assert (paused.condition, paused.owner, paused.process.note) == (Condition.PAUSED, None, "")
        await app.resume("a")
        done = await app.wait("a")
        assert (done.condition, done.process.note) == (Condition.FINISHED, "")
        assert keys == ["a:0", "a:0"]
        assert kinds(await app.history("a")) == ["started", "paused", "resumed", "moved"]


async def test_a_running_attempt_cannot_commit_after_a_pause_even_if_it_ignores_being_stopped(url: str) -> None:
    begun, refused = asyncio.Event(), asyncio.Event()

    async def stubborn(job: Job) -> Literal[Step.DONE]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            refused.set()
        job.note = "too late"
        return Step.DONE

    async with opened(one_stage(stubborn), url=url) as app:
        async with working(app):
            await app.start(Job(id="a"))
            await begun.wait()
            paused = await app.pause("a")
            await refused.wait()
        after = await app.get("a")
        assert (after.condition, after.version, after.process.note) == (Condition.PAUSED, paused.version, "")


async def test_an_attempt_that_a_pause_cuts_off_counts_and_ends_before_it_has_company(url: str) -> None:
    """Paused and resumed at once, the same worker may claim it again before it has noticed anything."""
    begun, attempts, under_way = asyncio.Event(), [], 0

    async def hold(job: Job, ctx: Context) -> Literal[Step.DONE]:
        nonlocal under_way
        under_way += 1
        attempts.append((ctx.attempt, under_way))
        begun.set()
        try:
            if len(attempts) <= 3:
                await asyncio.Event().wait()
        finally:
            under_way -= 1
        return Step.DONE

    async with opened(one_stage(hold), url=url) as app, working(app):
        await app.start(Job(id="a"))
        for _ in range(3):
            await begun.wait()
            begun.clear()
            await app.pause("a")
            await app.resume("a")
        assert (await app.wait("a")).condition is Condition.FINISHED
        assert attempts == [(1, 1), (2, 1), (3, 1), (4, 1)]
        assert under_way == 0


async def test_a_stage_of_one_attempt_that_was_paused_in_mid_flight_waits_for_a_person() -> None:
    begun = asyncio.Event()

    async def hold(job: Job, ctx: Context) -> Literal[Step.DONE]:
        begun.set()
        if ctx.attempt == 1 and not job.note:
            await asyncio.Event().wait()
        return Step.DONE

    async with opened(one_stage(hold, retry=Retry(attempts=1))) as app, working(app):
        await app.start(Job(id="a"))
        await begun.wait()
        await app.pause("a")
        await app.resume("a")
        failed = await app.wait("a")
        assert failed.condition is Condition.FAILED
        assert "hold was begun once and never reported" in (failed.error or "")


async def test_cancel_runs_the_clean_up_and_ends_cancelled(url: str) -> None:
    clock = ManualClock()
    async with opened(trip_flow(), url=url, clock=clock) as app:
        await resting(app, Trip(id="a"))
        cancelled = await app.cancel("a", reason="rain", actor="ann")
        assert (cancelled.status, cancelled.condition, cancelled.cancelling) == ("clean", Condition.WAITING, True)
        assert cancelled.due_at is not None

        with pytest.raises(Refused, match="cancelled already and cleans up, now at clean") as caught:
            await app.cancel("a")
        assert "onward stop a" in caught.value.hint

        clock.advance(cancelled.due_at - cancelled.as_of)  # it settles first: what was cut off may still be making something
        await work_off(app)
        over = await app.get("a")
        assert (over.condition, over.status, over.process.log) == (Condition.CANCELLED, "over", ["booked", "cleaned"])


async def test_cancel_of_a_running_process_stops_its_attempt_and_cleans_up() -> None:
    begun = asyncio.Event()

    async def travel(trip: Trip) -> Literal[Leg.CLEAN]:
        trip.log.append("half way")
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with opened(trip_flow(travel)) as app, working(app):
        await app.start(Trip(id="a"))
        await begun.wait()
        await app.cancel("a")
        over = await app.wait("a")
        assert (over.condition, over.process.log) == (Condition.CANCELLED, ["booked", "cleaned"])


async def test_cancel_without_on_cancel_ends_at_once() -> None:
    async with opened(POLLING) as app:
        await resting(app, Job(id="a"))
        cancelled = await app.cancel("a")
        assert (cancelled.condition, cancelled.status, cancelled.due_at) == (Condition.CANCELLED, "make", None)
        await work_off(app)
        assert (await app.get("a")).version == cancelled.version


async def test_a_clean_up_that_fails_waits_for_a_person_and_still_ends_cancelled(file_url: str) -> None:
    async def broken(trip: Trip) -> Literal[Leg.OVER]:
        raise Unrecoverable("bucket is gone")

    flow = trip_flow()
    mended = dict(flow.stages)
    async with opened(
        Flow(Trip, {**{Leg(s): line or END for s, line in mended.items()}, Leg.CLEAN: broken}, on_cancel=Leg.CLEAN), url=file_url
    ) as app:
        await resting(app, Trip(id="a"))
        await app.cancel("a")
        await app.wake("a")
        assert (await app.check("a")).condition is Condition.FAILED
        with pytest.raises(Refused, match="cancelled already"):
            await app.cancel("a")
        await app.retry("a")
    async with opened(flow, url=file_url) as app:
        assert (await app.check("a")).condition is Condition.CANCELLED


async def test_stop_ends_hard_whatever_the_condition() -> None:
    async with opened(trip_flow(), clock=ManualClock()) as app:
        await resting(app, Trip(id="waiting"), Trip(id="paused"), Trip(id="cleaning"))
        await app.pause("paused")
        await app.cancel("cleaning")
        await app.start(Trip(id="ready"))
        for id in ("waiting", "paused", "cleaning", "ready"):
            stopped = await app.stop(id, reason="enough")
            assert (stopped.condition, stopped.due_at) == (Condition.CANCELLED, None)
        await work_off(app)
        for id in ("waiting", "paused", "cleaning", "ready"):
            assert "cleaned" not in (await app.get(id)).process.log


ALL = {"wake", "retry", "pause", "resume", "cancel", "stop"}
FITS = {
    Condition.READY: {"pause", "cancel", "stop"},
    Condition.WAITING: {"wake", "pause", "cancel", "stop"},
    Condition.RETRYING: {"wake", "retry", "pause", "cancel", "stop"},
    Condition.FAILED: {"retry", "cancel", "stop"},
    Condition.PAUSED: {"resume", "cancel", "stop"},
    Condition.CANCELLED: set(),
    Condition.FINISHED: set(),
}


@pytest.mark.parametrize("condition", FITS)
async def test_each_verb_works_where_it_makes_sense_and_else_says_what_would(file_url: str, condition: Condition) -> None:
    flows = {Condition.WAITING: POLLING, Condition.RETRYING: STUMBLING, Condition.FAILED: FAILING}
    async with opened(flows.get(condition, one_stage(make)), url=file_url, clock=ManualClock()) as app:
        for verb in sorted(ALL):
            await app.start(Job(id=verb))
            if condition is Condition.PAUSED:
                await app.pause(verb)
            elif condition is Condition.CANCELLED:
                await app.stop(verb)
            elif condition is not Condition.READY:
                await app.check(verb)
            before = await app.get(verb)
            assert before.condition is condition
            if verb in FITS[condition]:
                after = await getattr(app, verb)(verb, reason="because", actor="ann")
                entry = (await app.history(verb))[-1]
                assert (after.version, after.epoch) == (before.version + 1, before.epoch + 1)
                assert (entry.version, entry.actor, entry.reason) == (after.version, "ann", "because")
            else:
                with pytest.raises(Refused, match=f"cannot {verb} job {verb}: it is {condition}, at {before.status}") as caught:
                    await getattr(app, verb)(verb)
                assert "onward" in caught.value.hint
                assert (await app.get(verb)).version == before.version


@pytest.mark.parametrize("verb", sorted(ALL))
async def test_an_act_on_a_version_that_has_moved_on_is_a_conflict(verb: str) -> None:
    async with opened(POLLING) as app:
        seen = (await resting(app, Job(id="a")))[0].version
        await app.pause("a", version=seen)
        with pytest.raises(Conflict, match=f"a is at version {seen + 1} now, not {seen}; nothing was changed") as caught:
            await getattr(app, verb)("a", version=seen)
        assert "onward show a" in caught.value.hint
        assert (await app.get("a")).version == seen + 1


async def test_who_and_why_are_recorded_whatever_they_hold(url: str) -> None:
    async with opened(POLLING, url=url) as app:
        await resting(app, Job(id="a"))
        await app.pause("a", actor="\ud800\x00" + "a" * 10_000, reason="\x1b[31m" + "r" * 10_000)
        await app.resume("a")
        paused, resumed = (await app.history("a"))[-2:]
        assert paused.actor.startswith("\ufffd\ufffdaaa")
        assert paused.reason is not None and paused.reason.startswith("\ufffd[31mrrr")
        assert len(paused.actor) < 600 > len(paused.reason)
        assert resumed.actor
        assert resumed.reason is None


async def test_acts_on_what_this_code_does_not_know(file_url: str) -> None:
    async with opened(POLLING, trip_flow(), url=file_url) as old:
        await resting(old, Trip(id="a"), Trip(id="b"))
    async with opened(POLLING, url=file_url) as new:
        for verb in (new.wake, new.retry, new.resume):
            with pytest.raises(Refused, match="it is orphaned, at travel"):
                await verb("a")
        with pytest.raises(NotFound, match="no flow 'trip'"):  # only its flow knows where its clean-up begins
            await new.cancel("a")
        assert (await new.stop("a")).condition is Condition.CANCELLED
        await new.store.insert([NewProcess("x", "job", "unheard of", "{}")], "test")
        assert (await new.get("x")).condition is Condition.ORPHANED
        assert (await new.cancel("x")).condition is Condition.CANCELLED


async def test_two_people_at_once_one_of_them_is_told_no() -> None:
    async with opened(POLLING) as app:
        for n in range(20):
            [before] = await resting(app, Job(id=str(n)))
            answers = await asyncio.gather(app.pause(str(n)), app.stop(str(n)), app.wake(str(n)), return_exceptions=True)
            done = [answer for answer in answers if isinstance(answer, Record)]
            assert all(isinstance(answer, Record | Conflict | Refused) for answer in answers)
            history = await app.history(str(n))
            assert len(history) == before.version + 1 + len(done)
            assert done
            for one, after in pairwise(kinds(history[before.version :])):  # each was decided on what there really was
                assert (one, after) in {
                    ("not yet", "paused"),
                    ("not yet", "stopped"),
                    ("not yet", "woken"),
                    ("paused", "stopped"),
                    ("woken", "paused"),
                    ("woken", "stopped"),
                }


@pytest.mark.parametrize("verb", ["pause", "cancel", "stop"])
async def test_an_act_that_races_a_commit_is_answered_truly(url: str, verb: str) -> None:
    """Many trials: the act comes at any moment around the commits of a process, and is told what became of it."""
    chance = random.Random(verb)
    done_kind = {"pause": "paused", "cancel": "cancelled", "stop": "stopped"}[verb]
    begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def travel(trip: Trip) -> Literal[Leg.CLEAN]:
        begun[trip.id].set()
        await asyncio.sleep(chance.choice([0, 0.0005, 0.002, 0.005, 0.05]))  # before, while and after the act is made
        trip.log.append("travelled")
        return Leg.CLEAN

    async with opened(trip_flow(travel), url=url) as app, working(app):

        async def race(id: str) -> Record | None:
            """What the act was answered; None: refused, since it was over."""
            await begun[id].wait()
            for _ in range(chance.randrange(5)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:  # some are too late for sure, however slow the disk is
                await asyncio.sleep(0.2)
            try:
                answer: Record = await getattr(app, verb)(id)
            except Refused:
                return None
            return answer

        answers: dict[str, Record | None] = {}
        for first in range(0, 120, 15):
            ids = [str(number) for number in range(first, first + 15)]
            starts = app.start_many(Trip(id=id) for id in ids)
            _, *told = await asyncio.gather(starts, *map(race, ids))  # the act waits already when its process begins
            answers.update(zip(ids, told, strict=True))

        for id, answer in answers.items():
            after, history = await app.wait(id), await app.history(id)
            assert [entry.version for entry in history] == list(range(len(history)))
            if answer is None:
                assert (after.condition, after.process.log) == (Condition.FINISHED, ["booked", "travelled", "cleaned"])
                assert done_kind not in kinds(history)
                continue
            assert history[answer.version].kind == done_kind
            assert history[answer.version].from_status != "over"
            if verb == "cancel":
                assert (after.condition, after.process.log[-1]) == (Condition.CANCELLED, "cleaned")
                assert kinds(history[answer.version :]) == ["cancelled", "moved"]
            else:
                assert (after.version, after.condition) == (answer.version, answer.condition)
                assert after.process.log == answer.process.log
        refused = list(answers.values()).count(None)
        assert 5 <= refused <= 115, f"{refused} of {len(answers)} were refused: that was no race"


async def test_who_names_no_version_means_the_process_as_it_is_now_however_fast_it_moves(file_url: str) -> None:
    """A poll commits every few milliseconds; a person's look and act are never in one piece with that."""
    async with opened(one_stage(poll_forever, every=Every(seconds=0.001)), url=file_url) as app:
        await app.start(Job(id="a"))
        async with working(app):
            for _ in range(30):
                assert (await app.pause("a")).condition is Condition.PAUSED
                assert (await app.resume("a")).condition is Condition.READY
                await app.store.wait_for_change(0.02)
    entries = [entry.kind for entry in await history_of(file_url, "a")]
    assert entries.count("paused") == entries.count("resumed") == 30


async def poll_forever(job: Job) -> Literal[Step.MAKE, Step.DONE]:
    return Step.MAKE


async def history_of(url: str, id: str) -> list[Entry]:
    async with opened(one_stage(poll_forever, every=Every(seconds=1)), url=url) as app:
        return await app.history(id)
