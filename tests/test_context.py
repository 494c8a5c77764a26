"""What a handler may ask of the engine while it runs: its key, its recorded sub-steps, a commit in mid-stage."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum, auto
from typing import Any, Literal

import pytest
from conftest import Job, Step, kinds, one_stage, opened, work_off, working
from pydantic import BaseModel

from onward import END, Condition, Context, Every, Flow, LeaseLost, Onward, Process, Record, Retry, StoreError, stage
from onward.codec import PAYLOAD_MAX
from onward.testing import ManualClock

AGAIN = Retry(attempts=5, first=0)  # a failed attempt is tried again at once


async def ran(handler: Callable[..., Any], **policies: Any) -> Record:
    """What becomes of one process with that handler."""
    async with opened(one_stage(handler, **{"retry": AGAIN, **policies})) as app:
        record = await app.start(Job(id="a"))
        await work_off(app)
        return await app.get(record.id)


class Trouble(RuntimeError):
    """What the handlers of these tests fail with."""


# -- key, attempt, resources, log ---------------------------------------------------------------------------------


async def test_key_is_the_same_over_all_attempts_of_a_visit_and_attempt_counts_them() -> None:
    seen: list[tuple[str, int]] = []

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        seen.append((ctx.key, ctx.attempt))
        if len(seen) < 4:
            raise Trouble
        return Step.DONE

    await ran(make)
    assert seen == [("a:0", 1), ("a:0", 2), ("a:0", 3), ("a:0", 4)]


async def test_key_is_another_for_each_stage_and_for_each_new_visit_of_one() -> None:
    class Loop(StrEnum):
        LEFT = auto()
        RIGHT = auto()
        END = auto()

    class Walk(Process[Loop]):
        status: Loop = Loop.LEFT
        keys: list[str] = []

    async def left(walk: Walk, ctx: Context) -> Literal[Loop.RIGHT, Loop.END]:
        walk.keys.append(ctx.key)
        return Loop.END if len(walk.keys) > 4 else Loop.RIGHT

    async def right(walk: Walk, ctx: Context) -> Literal[Loop.LEFT]:
        walk.keys.append(ctx.key)
        return Loop.LEFT

    async with opened(Flow(Walk, {Loop.LEFT: left, Loop.RIGHT: right, Loop.END: END})) as app:
        await app.start(Walk(id="a"))
        assert (await app.check("a")).process.keys == ["a:0", "a:1", "a:2", "a:3", "a:4"]


async def test_key_is_the_same_over_all_looks_of_a_polling_stage() -> None:
    keys = []

    async def poll(job: Job, ctx: Context) -> Literal[Step.MAKE, Step.DONE]:
        keys.append((ctx.key, ctx.attempt))
        return Step.DONE if len(keys) == 3 else Step.MAKE

    clock = ManualClock()
    async with opened(one_stage(poll, every=Every(seconds=1)), clock=clock) as app:
        await app.start(Job(id="a"))
        for _ in range(3):
            await app.check("a")
            clock.advance(2)
    assert keys == [("a:0", 1), ("a:0", 2), ("a:0", 3)]


async def test_key_survives_a_restart_of_the_program(file_url: str) -> None:
    keys = []

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        keys.append(ctx.key)
        if len(keys) == 1:
            raise Trouble
        return Step.DONE

    flow = one_stage(make, retry=AGAIN)
    async with opened(flow, url=file_url) as app:
        await app.start(Job(id="a"))
        await app.check("a")
    async with opened(flow, url=file_url) as app:
        await app.check("a")
    assert keys == ["a:0", "a:0"]


async def test_resources_are_opened_once_per_worker_and_closed_at_its_end() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        events.append("opened")
        try:
            yield "client"
        finally:
            events.append("closed")

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        events.append(ctx.resources)
        return Step.DONE

    def sync(job: Job, ctx: Context) -> Literal[Step.DONE]:
        assert ctx.resources is None
        return Step.DONE

    class Other(Job):
        pass

    without = Flow(Other, {Step.MAKE: sync, Step.DONE: END})
    async with opened(one_stage(make, lifespan=lifespan), without) as app:
        await app.start_many([Job(), Job(), Job(), Other()])
        await work_off(app)
        assert events == ["opened", "client", "client", "client", "closed"]
        assert {record.condition for record in await app.find()} == {Condition.FINISHED}
        events.clear()
        await app.check((await app.start(Job())).id)
        assert events == ["opened", "client", "closed"]


async def test_resources_are_closed_when_the_worker_is_cancelled_and_while_no_handler_uses_them() -> None:
    events: list[str] = []
    begun = asyncio.Event()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("closed")

    async def make(job: Job) -> Literal[Step.DONE]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("handler ended")
        raise AssertionError

    async with opened(one_stage(make, lifespan=lifespan)) as app:
        await app.start(Job())
        async with working(app, grace=0):
            await begun.wait()
    assert events == ["handler ended", "closed"]


async def test_resources_that_cannot_be_opened_end_the_worker_with_their_error_and_close_the_others() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def good() -> AsyncIterator[None]:
        try:
            yield
        finally:
            events.append("closed")

    @asynccontextmanager
    async def bad() -> AsyncIterator[None]:
        raise Trouble("no route to host")
        yield

    async def make(job: Job) -> Literal[Step.DONE]:
        raise AssertionError

    class Other(Job):
        pass

    async with opened(one_stage(make, lifespan=good), Flow(Other, {Step.MAKE: stage(make), Step.DONE: END}, lifespan=bad)) as app:
        await app.start(Other(id="a"))
        with pytest.raises(Trouble, match="no route"):
            await work_off(app)
        assert events == ["closed"]
        assert (await app.get("a")).attempt == 0


async def test_log_lines_carry_id_and_status(caplog: pytest.LogCaptureFixture) -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        ctx.log.info("made %d things", 3, extra={"colour": "red"})
        return Step.DONE

    with caplog.at_level(logging.INFO, logger="onward.flow"):
        await ran(make)
    [line] = [record for record in caplog.records if record.name == "onward.flow"]
    assert line.getMessage() == "a make: made 3 things"
    assert (line.process_id, line.status, line.colour) == ("a", "make", "red")  # type: ignore[attr-defined]  # from extra


# -- save ---------------------------------------------------------------------------------------------------------


async def test_save_is_durable_in_mid_stage_and_the_final_commit_fits_after_it(url: str) -> None:
    seen: list[tuple[str, int]] = []
    app: Onward

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        for number in range(3):
            job.numbers.append(number)
            await ctx.save()
            record = await app.get(job.id)
            assert record.process.numbers == job.numbers
            seen.append((record.condition, record.version))
        job.note = "done"
        return Step.DONE

    async with opened(one_stage(make), url=url) as app:
        await app.start(Job(id="a"))
        done = await app.check("a")
        assert (done.condition, done.process.numbers, done.process.note) == (Condition.FINISHED, [0, 1, 2], "done")
        assert seen == [("running", 1), ("running", 2), ("running", 3)]
        assert kinds(await app.history("a")) == ["started", "saved", "saved", "saved", "moved"]
        assert [(await app.data_at("a", v))["numbers"] for v in range(5)] == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2]]


async def test_what_was_saved_outlives_a_failure_of_the_handler_and_the_rest_does_not() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            job.numbers.append(1)
            await ctx.save()
            job.numbers.append(2)
            raise Trouble
        job.note = str(job.numbers)
        return Step.DONE

    done = await ran(make)
    assert (done.process.note, done.transition) == ("[1]", 1)


async def test_what_was_saved_is_there_after_the_handler_was_cut_off_at_its_timeout() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            job.numbers.append(1)
            await ctx.save()
            await asyncio.Event().wait()
        return Step.DONE

    assert (await ran(make, timeout=0.05)).process.numbers == [1]


async def test_save_refuses_data_that_does_not_fit_and_what_was_saved_before_stays() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.note = "good"
        await ctx.save()
        job.numbers = "many"  # type: ignore[assignment]  # that is the point
        await ctx.save()
        raise AssertionError

    failed = await ran(make)
    assert (failed.condition, failed.process.note, failed.attempt) == (Condition.FAILED, "good", 1)
    assert "numbers: Input should be a valid" in (failed.error or "")


async def test_many_saves_at_once_are_made_one_after_the_other() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async def one(number: int) -> None:
            job.numbers.append(number)
            await ctx.save()

        await asyncio.gather(*(one(number) for number in range(10)))
        return Step.DONE

    done = await ran(make)
    assert (done.condition, done.process.numbers, done.version) == (Condition.FINISHED, list(range(10)), 11)


@pytest.mark.parametrize("cuts", [1, 2, 3])
async def test_a_save_that_is_cut_off_leaves_a_consistent_record_for_the_commit_after_it(url: str, cuts: int) -> None:
    """However often it is cancelled: whether the save landed or not, the stage's own commit fits what it left."""

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        for turns in range(6):
            job.numbers.append(turns)
            saving = asyncio.create_task(ctx.save())
            for _ in range(turns):
                await asyncio.sleep(0)
            for _ in range(cuts):
                saving.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([saving])
        return Step.DONE

    async with opened(one_stage(make, retry=Retry(attempts=1)), url=url) as app:
        await app.start(Job(id="a"))
        done = await app.check("a")
        assert (done.condition, done.error) == (Condition.FINISHED, None)
        assert done.process.numbers == list(range(6))
        assert [entry.version for entry in await app.history("a")] == list(range(done.version + 1))


async def test_a_timeout_in_the_middle_of_a_save_is_a_failed_attempt_and_no_lost_lease(url: str) -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            while True:
                job.numbers.append(len(job.numbers))
                await ctx.save()
        return Step.DONE

    async with opened(one_stage(make, retry=AGAIN, timeout=0.05), url=url) as app:
        await app.start(Job(id="a"))
        await work_off(app)
        done = await app.get("a")
        history = await app.history("a")
        assert done.condition is Condition.FINISHED
        assert kinds(history)[-2:] == ["retry", "moved"]
        assert done.process.numbers == list(range(kinds(history).count("saved")))


# -- once ---------------------------------------------------------------------------------------------------------


async def test_once_runs_a_sub_step_once_and_the_second_attempt_reads_it_back() -> None:
    calls: list[str] = []

    async def create(name: str, size: int) -> str:
        calls.append(name)
        return f"{name}-{size}"

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.note = await ctx.once("create", create, "disk", 5)
        assert await ctx.once("create", create, "disk", 5) == job.note
        if ctx.attempt < 3:
            raise Trouble
        return Step.DONE

    done = await ran(make)
    assert (done.process.note, calls) == ("disk-5", ["disk"])


async def test_once_survives_a_restart_of_the_program(file_url: str) -> None:
    calls: list[int] = []

    async def create() -> int:
        calls.append(1)
        return 41

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.numbers = [await ctx.once("create", create)]
        if ctx.attempt == 1:
            raise Trouble
        return Step.DONE

    flow = one_stage(make, retry=AGAIN)
    async with opened(flow, url=file_url) as app:
        await app.start(Job(id="a"))
        await app.check("a")
    async with opened(flow, url=file_url) as app:
        assert (await app.check("a")).process.numbers == [41]
    assert calls == [1]


async def test_once_runs_again_in_a_new_visit_of_the_stage() -> None:
    class Loop(StrEnum):
        LEFT = auto()
        RIGHT = auto()
        END = auto()

    class Walk(Process[Loop]):
        status: Loop = Loop.LEFT
        calls: int = 0

    calls: list[int] = []

    def count() -> int:
        calls.append(1)
        return len(calls)

    async def left(walk: Walk, ctx: Context) -> Literal[Loop.RIGHT, Loop.END]:
        walk.calls = await ctx.once("count", count)
        return Loop.END if walk.calls == 3 else Loop.RIGHT

    async def right(walk: Walk) -> Literal[Loop.LEFT]:
        return Loop.LEFT

    async with opened(Flow(Walk, {Loop.LEFT: left, Loop.RIGHT: right, Loop.END: END})) as app:
        await app.start(Walk(id="a"))
        assert (await app.check("a")).process.calls == 3


class Answer(BaseModel):
    text: str
    day: date


@dataclass
class Point:
    x: int
    y: tuple[int, ...]


def an_answer() -> Answer:
    return Answer(text="yes", day=date(2025, 1, 2))


async def a_point() -> Point:
    return Point(1, (2, 3))


async def points() -> list[Point]:
    return [Point(1, ()), Point(2, (3,))]


def a_set() -> set[int]:
    return {1, 2}


def a_duration() -> timedelta:
    return timedelta(minutes=5)


def nothing() -> None:
    return None


def unannotated() -> Any:
    return (1, {"a": date(2025, 1, 2)})


def partial_of(text: str, day: date) -> Answer:
    return Answer(text=text, day=day)


class Named:
    def __call__(self) -> Point:
        return Point(7, ())

    def method(self) -> Point:
        return Point(8, ())


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (an_answer, an_answer()),
        (a_point, Point(1, (2, 3))),
        (points, [Point(1, ()), Point(2, (3,))]),
        (a_set, {1, 2}),
        (a_duration, timedelta(minutes=5)),
        (nothing, None),
        (unannotated, [1, {"a": "2025-01-02"}]),
        (functools.partial(partial_of, "no", date(2025, 1, 3)), Answer(text="no", day=date(2025, 1, 3))),
        (Named().method, Point(8, ())),
        (lambda: {"plain": [1, None, True]}, {"plain": [1, None, True]}),
    ],
)
async def test_once_answers_what_the_annotation_says_at_first_and_when_read_back(fn: Callable[[], Any], expected: Any) -> None:
    answers: list[Any] = []

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        answers.append(await ctx.once("it", fn))
        if ctx.attempt == 1:
            raise Trouble
        return Step.DONE

    assert (await ran(make)).condition is Condition.FINISHED
    assert answers == [expected, expected]
    assert type(answers[0]) is type(answers[1]) is type(expected)


async def test_once_runs_a_sync_function_in_a_thread_and_an_async_one_in_the_loop() -> None:
    def sync() -> int:
        return threading.get_ident()

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async def in_loop() -> int:
            return threading.get_ident()

        assert await ctx.once("sync", sync) != threading.get_ident()
        assert await ctx.once("async", in_loop) == threading.get_ident()
        return Step.DONE

    assert (await ran(make)).error is None


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (object(), "the result of sub-step 'it' cannot be kept as JSON"),
        (float("nan"), "NaN is no JSON"),
        ([{"a": float("-inf")}], "-Infinity is no JSON"),
        ("\ud800", "cannot be kept as JSON"),
        (threading.Lock(), "cannot be kept as JSON"),
        ("x" * (PAYLOAD_MAX + 1), "1,000,003 characters, the limit PAYLOAD_MAX is 1,000,000"),
    ],
    ids=["object", "NaN", "infinity", "surrogate", "lock", "too large"],
)
async def test_once_says_clearly_what_result_it_cannot_keep_and_tries_no_second_time(result: Any, said: str) -> None:
    calls: list[int] = []

    def create() -> Any:
        calls.append(1)
        return result

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        await ctx.once("it", create)
        raise AssertionError

    failed = await ran(make)
    assert failed.condition is Condition.FAILED
    assert said in (failed.error or "")
    assert calls == [1]


async def test_once_keeps_what_is_text_and_only_looks_like_a_constant() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        text = await ctx.once("it", lambda: "NaN Infinity \x00")
        job.note = text.replace("\x00", "and NUL")  # which only the data of a process cannot hold
        return Step.DONE

    assert (await ran(make)).process.note == "NaN Infinity and NUL"


async def test_once_says_clearly_when_the_annotation_does_not_fit_what_was_recorded() -> None:
    def liar() -> int:
        return "seven"  # type: ignore[return-value]  # that is the point

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        await ctx.once("lie", liar)
        raise AssertionError

    failed = await ran(make)
    assert "the recorded result of sub-step 'lie' does not fit its function's annotation" in (failed.error or "")


@pytest.mark.parametrize("name", ["", "x" * 201, "a\x00", "\ud800", "a\x1b[31m"])
async def test_once_refuses_a_name_that_nobody_could_read(name: str) -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        with pytest.raises(ValueError, match="a sub-step's name has 1 to 200 printable characters"):
            await ctx.once(name, nothing)
        await ctx.once("x" * 200, nothing)
        return Step.DONE

    assert (await ran(make)).error is None


async def test_once_records_nothing_when_the_function_raises() -> None:
    calls: list[int] = []

    async def create() -> int:
        calls.append(1)
        if len(calls) < 3:
            raise Trouble
        return len(calls)

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.numbers = [await ctx.once("it", create)]
        return Step.DONE

    done = await ran(make)
    assert (done.process.numbers, done.attempt) == ([3], 0)


async def test_once_of_one_name_twice_at_the_same_time_runs_it_once() -> None:
    calls: list[int] = []

    async def create() -> int:
        calls.append(1)
        await asyncio.sleep(0)
        return len(calls)

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.numbers = list(await asyncio.gather(*(ctx.once("it", create) for _ in range(5))))
        return Step.DONE

    done = await ran(make)
    assert (done.condition, done.process.numbers, calls) == (Condition.FINISHED, [1, 1, 1, 1, 1], [1])


async def test_once_and_save_at_the_same_time_do_not_fence_each_other() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async def create(number: int) -> int:
            await ctx.save()
            return number

        await asyncio.gather(*(ctx.once(f"it {n}", create, n) for n in range(10)), *(ctx.save() for _ in range(10)))
        return Step.DONE

    assert (await ran(make)).condition is Condition.FINISHED


# -- map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (8, 8), (100, 20)])
async def test_map_runs_at_most_limit_at_once_and_keeps_the_order(limit: int, most: int) -> None:
    under_way, peak = 0, 0

    async def square(number: int) -> int:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        for _ in range(30 - number):  # the last ones are the fastest
            await asyncio.sleep(0)
        under_way -= 1
        return number * number

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.numbers = await ctx.map(square, range(20), limit=limit)
        return Step.DONE

    done = await ran(make)
    assert done.process.numbers == [n * n for n in range(20)]
    assert peak == most


async def test_map_of_a_sync_function_runs_in_threads_up_to_the_limit() -> None:
    meeting = threading.Barrier(4, timeout=10)

    def meet(number: int) -> int:
        meeting.wait()  # four have to be here at once
        return number

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.numbers = await ctx.map(meet, range(8), limit=4)
        return Step.DONE

    assert (await ran(make)).process.numbers == list(range(8))


async def test_map_over_nothing_is_nothing_and_over_an_iterator_all_of_it() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        assert await ctx.map(a_negative, []) == []
        job.numbers = await ctx.map(a_negative, (n for n in (1, 2)))
        with pytest.raises(ValueError, match="limit=0"):
            await ctx.map(a_negative, [1], limit=0)
        return Step.DONE

    assert (await ran(make)).process.numbers == [-1, -2]


def a_negative(number: int) -> int:
    return -number


async def test_map_knows_an_item_by_its_content_wherever_it_stands() -> None:
    calls: list[Any] = []

    async def upper(item: Any) -> str:
        calls.append(item)
        return repr(item).upper()

    long = "x" * 5_000
    items: list[Any] = ["a", {"k": 1}, 3, long, "ü\n", Answer(text="t", day=date(2025, 1, 1)), Point(1, ()), None, "\ud800", ""]
    answers: list[dict[str, str]] = []

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        order = items if ctx.attempt == 1 else items[::-1]
        answers.append(dict(zip(map(repr, order), await ctx.map(upper, order), strict=True)))
        if ctx.attempt == 1:
            raise Trouble
        return Step.DONE

    assert (await ran(make)).error is None
    assert answers[0] == answers[1] == {repr(item): repr(item).upper() for item in items}
    assert len(calls) == len(items)


async def test_map_runs_each_of_equal_items_by_itself() -> None:
    calls: list[str] = []

    async def number(item: str) -> str:
        calls.append(item)
        return f"{item}{len(calls)}"

    answers: list[list[str]] = []

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        answers.append(await ctx.map(number, ["a", "a", "b", "a", "a#2"], limit=1))
        if ctx.attempt == 1:
            raise Trouble
        return Step.DONE

    assert (await ran(make)).error is None
    assert answers == [["a1", "a2", "b3", "a4", "a#25"]] * 2


async def test_two_maps_of_one_stage_do_not_take_each_others_results() -> None:
    def scale(by: int, number: int) -> int:
        return by * number

    def shift(by: int, number: int) -> int:
        return by + number

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        job.numbers = await ctx.map(functools.partial(scale, 10), [1, 2])
        job.numbers += await ctx.map(functools.partial(shift, 10), [1, 2])
        job.numbers += await ctx.map(functools.partial(shift, 20), [1, 2], name="by 20")
        return Step.DONE

    assert (await ran(make)).process.numbers == [10, 20, 11, 12, 21, 22]


async def test_map_records_the_others_when_one_fails_and_the_second_attempt_runs_only_what_is_missing() -> None:
    calls: list[int] = []
    failing = {3}

    async def upload(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0)
        if number in failing:
            failing.clear()
            raise Trouble(f"number {number} was refused")
        await asyncio.sleep(0)
        return number

    errors: list[str] = []

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        try:
            job.numbers = await ctx.map(upload, range(10), limit=4)
        except Trouble as error:
            errors.append(str(error))
            raise
        return Step.DONE

    done = await ran(make)
    assert done.process.numbers == list(range(10))
    assert errors == ["number 3 was refused"]
    assert calls[:4] == [0, 1, 2, 3]
    assert sorted(calls) == sorted([*range(10), 3])  # no other one twice


async def test_map_stops_what_is_under_way_when_the_attempt_is_cut_off() -> None:
    stopped: list[int] = []

    async def hang(number: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(number)
        raise AssertionError

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        await ctx.map(hang, range(5), limit=3)
        raise AssertionError

    failed = await ran(make, timeout=0.05, retry=Retry(attempts=1))
    assert "took longer than 0.05 s" in (failed.error or "")
    assert sorted(stopped) == [0, 1, 2]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_whatever_an_item_of_a_map_raises_ends_the_attempt_and_not_the_worker(kind: type[BaseException]) -> None:
    async def leave(number: int) -> int:
        if number == 1:
            raise kind("enough")
        return number

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            await ctx.map(leave, range(3))
        return Step.DONE

    assert (await ran(make)).condition is Condition.FINISHED


# -- the fence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["save", "once", "map"])
async def test_a_handler_whose_process_was_taken_over_is_ended_by_what_it_asks_next(file_url: str, ask: str) -> None:
    """A rival, to whom the lease is over, claims the process in the middle of the handler."""
    now = ManualClock()
    later = ManualClock(now.now() + timedelta(minutes=5))
    ended: list[str] = []
    effects: list[str] = []

    async def rival_works(job: Job) -> Literal[Step.DONE]:
        job.note = "by the rival"
        return Step.DONE

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with opened(one_stage(rival_works), url=file_url, clock=later) as rival:
            await rival.check(job.id)
        job.note = "by the first"
        try:
            if ask == "save":
                await ctx.save()
            elif ask == "once":
                await ctx.once("it", nothing)
            else:
                await ctx.map(a_negative, [1, 2])
            effects.append("went on")
        except Exception:  # no such thing can hold it up
            effects.append("swallowed")
        except LeaseLost as lost:
            ended.append(str(lost))
            raise
        return Step.DONE

    async with opened(one_stage(make), url=file_url, clock=now) as app:
        await app.start(Job(id="a"))
        done = await app.check("a")
        assert len(ended) == 1
        assert effects == []
        assert (done.process.note, kinds(await app.history("a"))) == ("by the rival", ["started", "moved"])
        steps = await app.store.steps("a", 0)
        assert steps == {}


async def test_a_rivals_commit_stands_and_the_late_one_leaves_no_trace(file_url: str) -> None:
    now = ManualClock()
    later = ManualClock(now.now() + timedelta(minutes=5))

    async def rival_works(job: Job) -> Literal[Step.DONE]:
        job.note = "by the rival"
        return Step.DONE

    async def make(job: Job) -> Literal[Step.DONE]:
        async with opened(one_stage(rival_works), url=file_url, clock=later) as rival:
            await rival.check(job.id)
        job.note = "by the first"
        return Step.DONE

    async with opened(one_stage(make), url=file_url, clock=now) as app:
        await app.start(Job(id="a"))
        await app.check("a")
        done = await app.get("a")
        assert (done.process.note, done.version, done.attempt) == ("by the rival", 1, 0)


@pytest.mark.parametrize("ask", ["nothing", "save", "once"])
async def test_one_who_was_overtaken_cannot_commit_though_the_rival_has_written_nothing_yet(file_url: str, ask: str) -> None:
    """The version is still the one that it read; the epoch is not."""
    now = ManualClock()
    later = ManualClock(now.now() + timedelta(minutes=5))

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with opened(url=file_url, clock=later) as rival:
            assert await rival.store.claim([("job", "make", 1)], "rival", 1, timedelta(minutes=5))
        job.note = "too late"
        if ask == "save":
            await ctx.save()
        elif ask == "once":
            await ctx.once("it", nothing)
        return Step.DONE

    async with opened(one_stage(make), url=file_url, clock=now) as app:
        await app.start(Job(id="a"))
        held = await app.check("a")
        assert (held.owner, held.version, held.process.note) == ("rival", 0, "")
        assert await app.store.steps("a", 0) == {}


# -- store trouble ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["commit", "record_step", "steps"])
async def test_store_trouble_in_mid_handler_spends_no_attempt(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    attempts: list[int] = []

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        attempts.append(ctx.attempt)
        job.numbers = [await ctx.once("one", a_negative, 1)]
        await ctx.save()
        return Step.DONE

    async with opened(one_stage(make, retry=Retry(attempts=1))) as app:
        done_by_store, refusals = getattr(app.store, verb), [StoreError("the disk is full")] * 3

        async def troubled(*args: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return await done_by_store(*args)

        monkeypatch.setattr(app.store, verb, troubled)
        await app.start(Job(id="a"))
        done = await app.check("a")
        assert (done.condition, done.error, done.process.numbers) == (Condition.FINISHED, None, [-1])
        assert attempts == [1]
        assert not refusals


async def test_a_handler_that_waits_for_the_store_in_vain_is_cut_off_at_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        await ctx.once("one", nothing)
        raise AssertionError

    async with opened(one_stage(make, retry=Retry(attempts=1), timeout=0.2)) as app:

        async def troubled(*args: Any) -> Any:
            raise StoreError("the disk is full")

        monkeypatch.setattr(app.store, "record_step", troubled)
        await app.start(Job(id="a"))
        assert "took longer than 0.2 s" in ((await app.check("a")).error or "")
