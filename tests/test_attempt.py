"""One execution of a handler: whatever it does, the process is the better for it or untouched, and the worker lives on."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from enum import StrEnum, auto
from typing import Any, Literal

import anyio
import pytest
from conftest import Job, Leg, Step, Trip, kinds, one_stage, opened, work_off
from pydantic import BaseModel

from onward import END, Condition, Context, Every, Flow, Process, Record, Retry, RetryAfter, Unrecoverable, stage
from onward.codec import PAYLOAD_MAX
from onward.testing import ManualClock

ONCE = Retry(attempts=1)


async def ran(handler: Callable[..., Any], job: Job | None = None, **policies: Any) -> Record:
    """What becomes of one process with that handler, which has one attempt; a neighbour shows that the worker lives on."""

    class Neighbour(Job):
        pass

    async def well(neighbour: Neighbour) -> Literal[Step.DONE]:
        await asyncio.sleep(0)
        return Step.DONE

    async with opened(
        one_stage(handler, **{"retry": ONCE, **policies}), Flow(Neighbour, {Step.MAKE: well, Step.DONE: END})
    ) as app:
        record = await app.start(job or Job(id="a", note="before"))
        await app.start(Neighbour(id="neighbour"))
        await work_off(app)
        assert (await app.get("neighbour")).condition is Condition.FINISHED
        return await app.get(record.id)


def failed_with(record: Record, *said: str) -> bool:
    """It failed, the message says all that, and the data is as it was committed."""
    assert record.condition is Condition.FAILED
    assert record.status == "make"
    assert record.process == Job(id=record.id, note="before")
    for text in said:
        assert text in (record.error or "")
    return True


# -- what it returns ----------------------------------------------------------------------------------------------


class Fork(StrEnum):
    GO = auto()
    LEFT = auto()
    RIGHT = auto()


class Way(Process[Fork]):
    status: Fork = Fork.GO


async def test_the_status_that_it_returns_is_where_the_process_goes_and_what_it_changed_is_kept() -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        job.note, job.extra = "after", {"deep": [1, {"er": None}]}
        job.numbers.append(1)
        return Step.DONE

    done = await ran(make)
    assert done.process == Job(id="a", status=Step.DONE, note="after", numbers=[1], extra={"deep": [1, {"er": None}]})


async def test_a_status_that_its_annotation_does_not_declare_is_refused() -> None:
    async def go(way: Way) -> Literal[Fork.LEFT]:
        return Fork.RIGHT  # type: ignore[return-value]  # mypy refuses it as well

    async def left(way: Way) -> Literal[Fork.RIGHT]:
        return Fork.RIGHT

    async with opened(Flow(Way, {Fork.GO: go, Fork.LEFT: left, Fork.RIGHT: END})) as app:
        await app.start(Way(id="a"))
        record = await app.check("a")
        assert (record.condition, record.status, record.attempt) == (Condition.FAILED, "go", 1)
        assert "go returned <Fork.RIGHT: 'right'>, which its annotation does not declare; declared: left" in (record.error or "")


class Impolite:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned None"),
        ("done", "returned 'done'"),
        (Step.MAKE, "returned <Step.MAKE: 'make'>"),
        (Fork.LEFT, "returned <Fork.LEFT: 'left'>"),
        (42, "returned 42"),
        (object, "returned <class 'object'>"),
        ("x" * 10_000_000, "returned 'xxxxx"),
        ("\x00\ud800", r"returned '\x00\ud800'"),
        ([Step.DONE], "returned [<Step.DONE: 'done'>]"),
    ],
    ids=["none", "text", "own status", "foreign status", "number", "type", "long", "broken", "list"],
)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_anything_else_that_it_returns_is_refused_at_once_and_said(kind: str, returned: Any, said: str) -> None:
    calls: list[int] = []

    async def make(job: Job) -> Literal[Step.DONE]:
        calls.append(1)
        return returned  # type: ignore[no-any-return]

    def make_sync(job: Job) -> Literal[Step.DONE]:
        calls.append(1)
        return returned  # type: ignore[no-any-return]

    record = await ran(make if kind == "async" else make_sync, retry=Retry(attempts=5))
    assert failed_with(record, said, "which its annotation does not declare; declared: done")
    assert len(record.error or "") < 2_500
    assert calls == [1]  # trying again would break the rule again


async def test_an_object_that_cannot_even_be_shown_is_a_failed_attempt() -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        return Impolite()  # type: ignore[return-value]

    assert failed_with(await ran(make))


async def test_a_sync_handler_that_returns_a_coroutine_is_told_to_be_async() -> None:
    async def really(job: Job) -> Literal[Step.DONE]:
        return Step.DONE

    def make(job: Job) -> Literal[Step.DONE]:
        return really(job)  # type: ignore[return-value]

    assert failed_with(await ran(make), "returned a coroutine: write it as `async def`")


async def test_partials_methods_and_callable_objects_are_handlers_like_any_other() -> None:
    class Maker:
        async def __call__(self, job: Job, ctx: Context) -> Literal[Step.DONE]:
            job.note = "called"
            return Step.DONE

        def method(self, job: Job) -> Literal[Step.DONE]:
            job.note = "method"
            return Step.DONE

    async def make(job: Job, ctx: Context, *, note: str) -> Literal[Step.DONE]:
        job.note = note
        return Step.DONE

    for handler, note in ((Maker(), "called"), (Maker().method, "method"), (functools.partial(make, note="partial"), "partial")):
        done = await ran(handler)
        assert (done.condition, done.process.note) == (Condition.FINISHED, note)


# -- what it does to the process ----------------------------------------------------------------------------------


async def test_it_may_set_process_status_to_what_it_returns_but_to_nothing_else() -> None:
    async def agrees(job: Job) -> Literal[Step.DONE]:
        job.status = Step.DONE
        return Step.DONE

    async def differs(way: Way) -> Literal[Fork.LEFT, Fork.RIGHT]:
        way.status = Fork.RIGHT
        return Fork.LEFT

    async def left(way: Way) -> Literal[Fork.RIGHT]:
        return Fork.RIGHT

    assert (await ran(agrees)).condition is Condition.FINISHED
    async with opened(Flow(Way, {Fork.GO: differs, Fork.LEFT: left, Fork.RIGHT: END})) as app:
        await app.start(Way(id="a"))
        record = await app.check("a")
        assert (record.condition, record.status) == (Condition.FAILED, "go")
        assert "set process.status to <Fork.RIGHT: 'right'> but returned <Fork.LEFT: 'left'>" in (record.error or "")


async def test_it_cannot_change_the_id() -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        job.id = "other"
        return Step.DONE

    assert failed_with(await ran(make), "make changed the id to 'other': a process keeps its id for ever")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("numbers", "many", "numbers: Input should be a valid"),
        ("numbers", [1, "two"], "numbers.1: Input should be a valid integer"),
        ("note", None, "note: Input should be a valid string"),
        ("extra", object(), "cannot be written as JSON"),
        ("extra", {"k": float("nan")}, "NaN, which JSON does not have"),
        ("extra", [float("inf")], "Infinity, which JSON does not have"),
        ("extra", "\ud800", "cannot be written as JSON"),
        ("extra", 10**5_000, "its data"),
        ("note", "x" * PAYLOAD_MAX, "the limit PAYLOAD_MAX is 1,000,000"),
        ("extra", ["x" * 50_000_000], "the limit PAYLOAD_MAX is 1,000,000"),
    ],
    ids=["type", "item", "none", "object", "nan", "infinity", "surrogate", "5,000 digits", "too large", "50 MB"],
)
async def test_data_that_does_not_fit_is_refused_by_name_and_what_was_there_before_stays(
    field: str, value: Any, said: str
) -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        job.note = "after"
        setattr(job, field, value)
        return Step.DONE

    record = await ran(make)
    assert failed_with(record, said)
    assert len(record.error or "") < 2_500


async def test_data_nested_without_end_is_refused() -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        job.extra = []
        job.extra.append(job.extra)
        return Step.DONE

    async def deep(job: Job) -> Literal[Step.DONE]:
        for _ in range(100_000):
            job.extra = [job.extra]
        return Step.DONE

    assert failed_with(await ran(make), "cannot be written as JSON")
    assert failed_with(await ran(deep), "its data")


async def test_a_deleted_field_is_its_default_again_and_where_there_is_none_the_attempt_fails() -> None:
    async def forget(job: Job) -> Literal[Step.DONE]:
        del job.note
        return Step.DONE

    async def lose_itself(job: Job) -> Literal[Step.DONE]:
        del job.id
        return Step.DONE

    assert (await ran(forget)).process.note == ""
    assert failed_with(await ran(lose_itself), "id")


async def test_what_a_failed_attempt_changed_is_forgotten_and_the_next_one_sees_what_was_committed() -> None:
    """I8: nested data too, and data of the object that was handed to `start`."""
    seen: list[Any] = []
    given = Job(id="a", note="before", numbers=[1], extra={"list": [1], "deep": {"set": [2]}})

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        seen.append(job.model_dump(mode="json"))
        job.numbers.append(99)
        job.extra["list"].append(99)
        job.extra["deep"]["set"] = None
        job.note = "mutated"
        if ctx.attempt < 3:
            raise RuntimeError
        return Step.DONE

    done = await ran(make, given, retry=Retry(attempts=3, first=0))
    assert seen == [given.model_dump(mode="json")] * 3
    assert done.process.numbers == [1, 99]
    assert given.numbers == [1]


async def test_what_it_keeps_of_the_process_after_its_end_reaches_nobody() -> None:
    kept: list[Job] = []

    class Two(StrEnum):
        ONE = auto()
        TWO = auto()
        END = auto()

    class Pair(Process[Two]):
        status: Two = Two.ONE
        numbers: list[int] = []

    async def one(pair: Pair) -> Literal[Two.TWO]:
        pair.numbers.append(1)
        kept.append(pair)  # type: ignore[arg-type]
        return Two.TWO

    async def two(pair: Pair) -> Literal[Two.END]:
        kept[0].numbers.append(2)
        pair.numbers.append(3)
        return Two.END

    async with opened(Flow(Pair, {Two.ONE: one, Two.TWO: two, Two.END: END})) as app:
        await app.start(Pair(id="a"))
        assert (await app.check("a")).process.numbers == [1, 3]


# -- what it raises -----------------------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class Odd(Exception):
    def __str__(self) -> str:
        return 42  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such bucket"), "ValueError: no such bucket (test_attempt.py:"),
        (ValueError(), "ValueError (test_attempt.py:"),
        (Unprintable(), "Unprintable: (its text cannot be read)"),
        (Odd(), "Odd: (its text cannot be read)"),
        (
            ValueError("nul \x00 escape \x1b[31m surrogate \ud800 bidi \u202e"),
            "nul \ufffd escape \ufffd[31m surrogate \ufffd bidi \ufffd",
        ),
        (ValueError("x" * 100_000_000), "xxx… (100,0"),
        (ExceptionGroup("both", [ValueError("one"), KeyError("two")]), "ExceptionGroup: both (2 sub-exceptions)"),
        (BaseException("odd"), "BaseException: odd"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
        (StopAsyncIteration("end"), "end"),
        (StopIteration("end"), "StopIteration"),
        (MemoryError(), "MemoryError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (TimeoutError("of its own"), "TimeoutError: of its own"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("where", ["async", "async after a wait", "sync"])
async def test_whatever_it_raises_is_recorded_and_ends_neither_process_nor_worker(
    error: BaseException, said: str, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="onward")  # the log would hold those 100 MB

    async def make(job: Job) -> Literal[Step.DONE]:
        job.note = "after"
        if where != "async":
            await asyncio.sleep(0)
        raise error

    def make_sync(job: Job) -> Literal[Step.DONE]:
        job.note = "after"
        raise error

    record = await ran(make_sync if where == "sync" else make)
    assert failed_with(record, said)
    assert len(record.error or "") < 2_100
    assert (record.error or "").isprintable()


async def test_next_of_nothing_in_a_sync_handler_is_a_failure_at_once_and_no_timeout() -> None:
    """A StopIteration cannot be raised into a future; unhandled it left the handler waiting for its own end."""

    def make(job: Job) -> Literal[Step.DONE]:
        next(iter(job.numbers))
        return Step.DONE

    begun = time.monotonic()
    assert failed_with(await ran(make, timeout=30), "StopIteration")
    assert time.monotonic() - begun < 10


async def test_the_error_names_the_place_in_the_users_code() -> None:
    def helper() -> None:
        raise LookupError("no file 7")

    async def make(job: Job) -> Literal[Step.DONE]:
        helper()
        return Step.DONE

    assert failed_with(await ran(make), "LookupError: no file 7 (test_attempt.py:", "in helper)")


async def test_the_error_of_a_task_group_names_the_first_of_its_causes() -> None:
    async def child(number: int) -> None:
        raise LookupError(f"no file {number}")

    async def make(job: Job) -> Literal[Step.DONE]:
        async with asyncio.TaskGroup() as group:
            group.create_task(child(7))
        return Step.DONE

    assert failed_with(
        await ran(make), "ExceptionGroup", "the first of them: LookupError: no file 7 (test_attempt.py:", "in child)"
    )


async def test_unrecoverable_is_not_tried_again_and_retry_after_is_tried_when_it_says() -> None:
    calls: list[int] = []

    async def never(job: Job) -> Literal[Step.DONE]:
        calls.append(1)
        raise Unrecoverable("the account is closed")

    assert failed_with(await ran(never, retry=Retry(attempts=9)), "Unrecoverable: the account is closed")
    assert calls == [1]

    async def later(job: Job) -> Literal[Step.DONE]:
        raise RetryAfter(timedelta(minutes=7), "429 from the server")

    clock = ManualClock()
    async with opened(one_stage(later, retry=Retry(attempts=2)), clock=clock) as app:
        await app.start(Job(id="a"))
        record = await app.check("a")
        assert (record.condition, record.error) == (Condition.RETRYING, "429 from the server")
        assert record.due_at == clock.now() + timedelta(minutes=7)
        clock.advance(timedelta(minutes=7))
        assert (await app.check("a")).condition is Condition.FAILED


async def test_a_handler_that_cancels_its_own_task_ends_its_attempt_and_not_the_worker() -> None:
    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        return Step.DONE

    async def first(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            raise GeneratorExit
        return Step.DONE

    clock = ManualClock()
    for handler in (make, first):
        async with opened(one_stage(handler, retry=Retry(attempts=3, first=0)), clock=clock) as app:
            await app.start(Job(id="a"))
            with contextlib.suppress(asyncio.CancelledError, GeneratorExit):
                await app.check("a")
            clock.advance(60)  # in the worst case its lease has to run out
            assert (await app.check("a")).condition is Condition.FINISHED


# -- time ---------------------------------------------------------------------------------------------------------


async def test_an_async_attempt_is_cut_off_at_its_timeout() -> None:
    ended: list[str] = []

    async def make(job: Job) -> Literal[Step.DONE]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")
        raise AssertionError

    assert failed_with(await ran(make, timeout=0.02), "TimeoutError: make took longer than 0.02 s and was cut off")
    assert ended == ["cleaned up"]


async def test_a_sync_attempt_is_cut_off_at_its_timeout_and_what_its_thread_does_later_reaches_nobody() -> None:
    go, gone = threading.Event(), threading.Event()

    def make(job: Job) -> Literal[Step.DONE]:
        go.wait(10)
        job.note = "too late"
        gone.set()
        return Step.DONE

    record = await ran(make, timeout=0.02)
    go.set()
    assert await asyncio.to_thread(gone.wait, 10)
    assert failed_with(record, "TimeoutError: make took longer than 0.02 s and was cut off")


async def test_a_handler_that_answers_its_timeout_with_a_status_has_done_its_work() -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        job.note = "just in time"
        return Step.DONE

    done = await ran(make, timeout=0.02)
    assert done.condition in (Condition.FINISHED, Condition.FAILED)
    assert done.process.note == ("just in time" if done.condition is Condition.FINISHED else "before")


async def test_a_handlers_own_timeout_error_is_not_taken_for_ours() -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
        raise AssertionError

    record = await ran(make, timeout=20)
    assert failed_with(record, "TimeoutError")
    assert "longer than" not in (record.error or "")


async def test_the_deadline_of_the_stage_cuts_an_attempt_off_and_leads_on() -> None:
    calls: list[int] = []

    async def go(way: Way) -> Literal[Fork.RIGHT]:
        calls.append(1)
        await asyncio.Event().wait()
        raise AssertionError

    async def left(way: Way) -> Literal[Fork.RIGHT]:
        return Fork.RIGHT

    flow = Flow(Way, {Fork.GO: stage(go, within=0.1, otherwise=Fork.LEFT, timeout=60), Fork.LEFT: left, Fork.RIGHT: END})
    async with opened(flow) as app:
        begun = time.monotonic()
        await app.start(Way(id="a"))
        await work_off(app)
        history = await app.history("a")
        assert [(entry.kind, entry.to_status) for entry in history[-2:]] == [("deadline", "left"), ("moved", "right")]
        assert (history[-2].reason or "").startswith("go was not done within 0.1 s")
        assert 0.1 <= time.monotonic() - begun < 10
        assert len(calls) <= 2


async def test_a_later_attempt_has_only_what_the_earlier_ones_have_left_of_the_stage() -> None:
    async def go(way: Way, ctx: Context) -> Literal[Fork.RIGHT]:
        if ctx.attempt == 1:
            await asyncio.sleep(0.3)
            raise RuntimeError
        await asyncio.Event().wait()
        raise AssertionError

    async def left(way: Way) -> Literal[Fork.RIGHT]:
        return Fork.RIGHT

    line = stage(go, within=0.4, otherwise=Fork.LEFT, retry=Retry(first=0))
    async with opened(Flow(Way, {Fork.GO: line, Fork.LEFT: left, Fork.RIGHT: END})) as app:
        await app.start(Way(id="a"))
        await work_off(app)
        took = [entry.took for entry in await app.history("a") if entry.kind in ("retry", "deadline")]
        assert took[0] is not None and took[0] >= 0.3
        assert took[1] is not None and took[1] < 0.3


async def test_a_deadline_that_passes_while_nobody_looks_is_kept_before_the_next_attempt() -> None:
    calls: list[int] = []

    async def poll(way: Way) -> Literal[Fork.GO, Fork.RIGHT]:
        calls.append(1)
        return Fork.GO

    async def left(way: Way) -> Literal[Fork.RIGHT]:
        return Fork.RIGHT

    clock = ManualClock()
    line = stage(poll, every=Every(seconds=60, longest=3_600), within=timedelta(days=1), otherwise=Fork.LEFT)
    async with opened(Flow(Way, {Fork.GO: line, Fork.LEFT: left, Fork.RIGHT: END}), clock=clock) as app:
        await app.start(Way(id="a"))
        await app.check("a")
        clock.advance(timedelta(days=2))
        record = await app.check("a")
        assert (record.status, calls) == ("right", [1])
        assert kinds(await app.history("a")) == ["started", "not yet", "deadline", "moved"]


# -- what asyncio promises to a coroutine, before and after its first suspension ----------------------------------
# The engine begins a handler by hand, and enters its timeout only when the handler really waits.

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="unset")


async def nap() -> None:
    await asyncio.sleep(0)


async def current_task_is_one() -> None:
    task = asyncio.current_task()
    assert task is not None
    await nap()
    assert asyncio.current_task() is task
    assert asyncio.get_running_loop() is task.get_loop()


async def own_timeout_expires() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.005)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def own_timeout_holds() -> None:
    async with asyncio.timeout(30) as outer:
        await nap()
        async with asyncio.timeout_at(asyncio.get_running_loop().time() + 20):
            assert await asyncio.wait_for(asyncio.sleep(0, "slept"), 10) == "slept"
        outer.reschedule(None)


async def task_group_works() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, n)) for n in range(3)]
    assert [task.result() for task in tasks] == [0, 1, 2]


async def task_group_fails_whole() -> None:
    stopped: list[int] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(1)

    async def fail() -> None:
        await nap()
        raise ValueError("one of them")

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(hang())
            group.create_task(fail())
            await asyncio.Event().wait()
    assert caught.group_contains(ValueError, match="one of them")
    assert stopped == [1]


async def anyio_scopes_work() -> None:
    with anyio.move_on_after(0.005) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(TimeoutError), anyio.fail_after(0.005):
        await anyio.sleep_forever()
    with anyio.CancelScope() as cancelled:
        cancelled.cancel()
        await anyio.lowlevel.checkpoint()
        raise AssertionError
    assert cancelled.cancelled_caught
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        await nap()
        group.cancel_scope.cancel()
    with anyio.fail_after(20):
        assert await anyio.to_thread.run_sync(lambda: 7) == 7
    with anyio.CancelScope(shield=True):
        await anyio.sleep(0)


async def context_variables_are_kept() -> None:
    token = VARIABLE.set("mine")
    await nap()
    assert VARIABLE.get() == "mine"
    assert await asyncio.create_task(read_variable()) == "mine"
    assert await asyncio.to_thread(VARIABLE.get) == "mine"
    VARIABLE.reset(token)
    assert VARIABLE.get() == "unset"


async def read_variable() -> str:
    return VARIABLE.get()


async def generators_work() -> None:
    closed: list[int] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(5):
                await nap()
                yield number
        finally:
            await nap()
            closed.append(1)

    assert [n async for n in numbers()] == [0, 1, 2, 3, 4]
    async with contextlib.aclosing(numbers()) as few:
        async for number in few:
            if number == 2:
                break
    assert closed == [1, 1]


async def shield_works() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(0.01, "done"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(inner), 0.001)
    assert not inner.cancelled()
    assert await inner == "done"


async def waiting_for_others_works() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for number in range(3):
            await queue.put(number)

    producer = asyncio.create_task(produce())
    assert [await queue.get() for _ in range(3)] == [0, 1, 2]
    await producer
    assert list(await asyncio.gather(nap(), asyncio.to_thread(lambda: 5))) == [None, 5]
    done, _ = await asyncio.wait([asyncio.create_task(nap())])
    assert len(done) == 1
    async with asyncio.Lock(), asyncio.Semaphore(1):
        await nap()


async def bare_yields_work() -> None:
    for _ in range(3):
        await asyncio.sleep(0)
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "set")
    assert await future == "set"
    assert await future == "set"  # one that is done already


async def a_cancelled_child_is_an_error_of_the_handlers() -> None:
    child = asyncio.create_task(asyncio.Event().wait())
    await nap()
    child.cancel()
    with pytest.raises(asyncio.CancelledError):
        await child


FACULTIES: list[Callable[[], Awaitable[None]]] = [
    current_task_is_one,
    own_timeout_expires,
    own_timeout_holds,
    task_group_works,
    task_group_fails_whole,
    anyio_scopes_work,
    context_variables_are_kept,
    generators_work,
    shield_works,
    waiting_for_others_works,
    bare_yields_work,
    a_cancelled_child_is_an_error_of_the_handlers,
]


@pytest.mark.parametrize("position", ["before its first wait", "after its first wait"])
@pytest.mark.parametrize("use", FACULTIES, ids=lambda use: use.__name__)
async def test_a_handler_may_use_all_of_asyncio(use: Callable[[], Awaitable[None]], position: str) -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        if position == "after its first wait":
            await asyncio.sleep(0)
        await use()
        await use()
        return Step.DONE

    done = await ran(make)
    assert (done.condition, done.error) == (Condition.FINISHED, None)


@pytest.mark.parametrize("first_wait_in_it", [True, False])
@pytest.mark.parametrize("scope", ["asyncio.timeout", "anyio.fail_after", "TaskGroup", "anyio group"])
async def test_our_timeout_cuts_through_scopes_that_the_handler_opened(scope: str, first_wait_in_it: bool) -> None:
    ended: list[str] = []

    async def make(job: Job) -> Literal[Step.DONE]:
        if not first_wait_in_it:
            await asyncio.sleep(0)
        try:
            if scope == "asyncio.timeout":
                async with asyncio.timeout(30):
                    await asyncio.Event().wait()
            elif scope == "anyio.fail_after":
                with anyio.fail_after(30):
                    await anyio.sleep_forever()
            elif scope == "TaskGroup":
                async with asyncio.TaskGroup() as group:
                    group.create_task(asyncio.Event().wait())
            else:
                async with anyio.create_task_group() as nursery:
                    nursery.start_soon(anyio.sleep_forever)
        finally:
            ended.append(scope)
        raise AssertionError

    assert failed_with(await ran(make, timeout=0.02), "make took longer than 0.02 s and was cut off")
    assert ended == [scope]


@pytest.mark.parametrize("first_wait_in_it", [True, False])
async def test_the_handlers_timeout_wins_if_it_is_the_shorter_one(first_wait_in_it: bool) -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        if not first_wait_in_it:
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            job.note = "gave up waiting"
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        await asyncio.sleep(0.01)
        return Step.DONE

    assert (await ran(make, timeout=20)).process.note == "gave up waiting"


async def test_context_variables_of_the_worker_reach_sync_handlers_too() -> None:
    VARIABLE.set("of the worker")
    seen: list[str] = []

    def make(job: Job) -> Literal[Step.DONE]:
        seen.append(VARIABLE.get())
        return Step.DONE

    await ran(make)
    assert seen == ["of the worker"]


async def test_a_handler_that_waits_for_nothing_needs_no_timer_and_one_that_waits_often_is_driven_to_its_end() -> None:
    async def often(job: Job) -> Literal[Step.DONE]:
        for number in range(500):
            await asyncio.sleep(0)
            job.numbers.append(number)
        return Step.DONE

    assert (await ran(often)).process.numbers == list(range(500))


class Nested(BaseModel):
    inner: list[dict[str, int]] = []


async def test_default_values_are_not_shared_between_processes() -> None:
    class Holder(Process[Step]):
        status: Step = Step.MAKE
        nested: Nested = Nested()

    async def make(holder: Holder) -> Literal[Step.DONE]:
        holder.nested.inner.append({"n": len(holder.nested.inner)})
        return Step.DONE

    async with opened(Flow(Holder, {Step.MAKE: make, Step.DONE: END})) as app:
        await app.start_many(Holder(id=str(n)) for n in range(3))
        await work_off(app)
        assert [record.process.nested.inner for record in await app.find()] == [[{"n": 0}]] * 3


@pytest.mark.parametrize(
    ("raised", "condition"),
    [(Unrecoverable("no such customer"), Condition.FAILED), (RetryAfter(30, "come back"), Condition.RETRYING)],
)
async def test_what_a_handler_says_is_heard_out_of_a_task_group_too(url: str, raised: Exception, condition: Condition) -> None:
    async def stumble(wait: float, error: Exception) -> None:
        await asyncio.sleep(wait)
        raise error

    async def make(job: Job) -> Literal[Step.DONE]:
        async with asyncio.TaskGroup() as group:
            group.create_task(stumble(0, raised))
            group.create_task(stumble(60, ValueError("it was cut off")))
        return Step.DONE

    async with opened(one_stage(make), url=url) as app:
        await app.start(Job(id="a"))
        record = await app.check("a")
    assert (record.condition, record.error is not None and str(raised) in record.error) == (condition, True)


async def test_an_attempt_that_the_deadline_cuts_off_leads_to_otherwise_even_if_it_was_the_last(url: str) -> None:
    async def hang(trip: Trip) -> Literal[Leg.TRAVEL]:
        await asyncio.sleep(60)
        return Leg.TRAVEL

    async def go(trip: Trip) -> Literal[Leg.OVER]:
        return Leg.OVER

    flow = Flow(
        Trip,
        {
            Leg.BOOK: stage(hang, within=0.1, otherwise=Leg.CLEAN, retry=Retry(attempts=1), on_failure=Leg.TRAVEL),
            (Leg.TRAVEL, Leg.CLEAN): go,
            Leg.OVER: END,
        },
    )
    async with opened(flow, url=url) as app:
        await app.start(Trip(id="a"))
        await work_off(app)
        entries = await app.history("a")
    assert [(entry.kind, entry.to_status) for entry in entries[1:]] == [("deadline", "clean"), ("moved", "over")]
    assert "was not done within 0.1 s" in (entries[1].reason or "")
