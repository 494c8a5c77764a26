"""The worker: claims what is due, drives it until it rests, and gives back what it cannot finish."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum, auto
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import IN_MEMORY, PATIENCE_S, Job, Leg, Step, Trip, kinds, one_stage, opened, work_off, working

from onward import (
    END,
    Condition,
    Context,
    Event,
    Every,
    Flow,
    NotFound,
    Onward,
    OnwardError,
    Process,
    Record,
    Retry,
    StoreError,
    stage,
)
from onward.decide import MOVES_MAX, Change
from onward.store.sqlite.store import SqliteStore
from onward.testing import ManualClock

KNOWN = [("job", "make", 1)]


async def make(job: Job) -> Literal[Step.DONE]:
    job.note += "!"
    return Step.DONE


async def book(trip: Trip) -> Literal[Leg.TRAVEL]:
    await asyncio.sleep(0)
    return Leg.TRAVEL


async def travel(trip: Trip) -> Literal[Leg.CLEAN]:
    await asyncio.sleep(0)
    return Leg.CLEAN


async def clean(trip: Trip) -> Literal[Leg.OVER]:
    return Leg.OVER


def trips(first: Any = book) -> Flow[Leg]:
    return Flow(Trip, {Leg.BOOK: first, Leg.TRAVEL: travel, Leg.CLEAN: clean, Leg.OVER: END})


async def free(app: Onward) -> bool:
    """Nobody holds a lease: whatever is not over can be claimed at once, or waits for its time."""
    return all(record.owner is None for record in await app.find(limit=1_000))


# -- working off --------------------------------------------------------------------------------------------------


async def test_until_idle_ends_when_nothing_is_due_and_nothing_ever_will_be(url: str) -> None:
    async def fail(job: Job) -> Literal[Step.DONE]:
        if job.note == "bad":
            raise RuntimeError
        return Step.DONE

    async with opened(one_stage(fail, retry=Retry(attempts=2, first=0.01)), url=url) as app:
        await work_off(app)
        await app.start_many([*(Job(id=str(n)) for n in range(50)), Job(id="bad", note="bad"), Job(id="paused")])
        await app.pause("paused")
        await work_off(app)
        assert Counter(record.condition for record in await app.find()) == {"finished": 50, "failed": 1, "paused": 1}


async def test_until_idle_waits_for_what_is_due_later_and_looks_no_earlier() -> None:
    looks: list[float] = []

    async def poll(job: Job) -> Literal[Step.MAKE, Step.DONE]:
        looks.append(time.monotonic())
        return Step.DONE if len(looks) == 4 else Step.MAKE

    async with opened(one_stage(poll, every=Every(seconds=0.05, longest=0.05))) as app:
        await app.start(Job())
        await work_off(app)
    pauses = [later - earlier for earlier, later in pairwise(looks)]
    assert len(pauses) == 3
    assert all(0.05 <= pause < 2 for pause in pauses)


async def test_until_idle_leaves_alone_what_other_code_knows(file_url: str) -> None:
    async with opened(trips(), url=file_url) as other:
        await other.start(Trip(id="t"))
    async with opened(one_stage(make), url=file_url) as app:
        await app.start(Job(id="j"))
        await work_off(app)
        assert (await app.get("j")).condition is Condition.FINISHED
        assert ((await app.get("t")).condition, (await app.get("t")).epoch) == (Condition.ORPHANED, 0)


async def test_never_more_than_concurrency_at_once_and_nothing_is_claimed_without_room(url: str) -> None:
    under_way, peak = 0, 0
    app: Onward

    async def hold(job: Job) -> Literal[Step.DONE]:
        nonlocal under_way, peak
        under_way += 1
        peak = max(peak, under_way)
        running = [record for record in await app.find(condition="running") if record.condition == "running"]
        assert len(running) <= 3
        under_way -= 1
        return Step.DONE

    async with opened(one_stage(hold, retry=Retry(attempts=1)), url=url) as app:
        await app.start_many(Job() for _ in range(30))
        await work_off(app, concurrency=3)
        assert {record.condition for record in await app.find()} == {Condition.FINISHED}
        assert peak == 3


async def test_sync_handlers_run_side_by_side_in_threads_and_block_nobody() -> None:
    meeting = threading.Barrier(4, timeout=PATIENCE_S)

    def meet(job: Job) -> Literal[Step.DONE]:
        meeting.wait()
        return Step.DONE

    async with opened(one_stage(meet)) as app:
        await app.start_many(Job() for _ in range(4))
        await work_off(app, concurrency=4)
        assert {record.condition for record in await app.find()} == {Condition.FINISHED}


async def test_what_is_started_while_the_worker_is_idle_is_picked_up_at_once(url: str) -> None:
    """Not at its next look, seconds later, whatever it was doing when the start came."""
    chance, slowest = random.Random(1), 0.0
    async with opened(one_stage(make), url=url) as app, working(app):
        for _ in range(25):
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(chance.choice([0, 0, 0, 0.0003]))
            begun = time.monotonic()
            record = await app.start(Job())
            await app.wait(record.id)
            slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 2.5


async def test_what_another_program_starts_is_picked_up_soon(file_url: str) -> None:
    slowest = 0.0
    async with opened(one_stage(make), url=file_url) as app, opened(one_stage(make), url=file_url) as other, working(app):
        for _ in range(10):
            begun = time.monotonic()
            record = await other.start(Job())
            assert (await other.wait(record.id)).process.note == "!"
            slowest = max(slowest, time.monotonic() - begun)
    assert slowest < 2.5


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"lease": 0.01}, {"lease": -1}])
async def test_a_worker_that_could_not_work_is_refused(options: dict[str, Any]) -> None:
    async with opened(one_stage(make)) as app:
        with pytest.raises(ValueError, match="concurrency >= 1 and a lease of at least"):
            await app.run(signals=False, **options)


async def test_a_worker_of_an_app_that_is_not_open_or_has_no_flows_says_so() -> None:
    with pytest.raises(StoreError, match="not open") as caught:
        await asyncio.wait_for(Onward(IN_MEMORY, [one_stage(make)]).run(until_idle=True, signals=False), 5)
    assert "async with app" in caught.value.hint
    async with opened() as app:
        with pytest.raises(OnwardError, match="no flows"):
            await app.run(until_idle=True)


# -- takeover -----------------------------------------------------------------------------------------------------


async def test_what_a_dead_worker_held_is_taken_over_when_its_lease_is_over_and_not_before(url: str) -> None:
    clock = ManualClock()
    attempts: list[int] = []

    async def note(job: Job, ctx: Context) -> Literal[Step.DONE]:
        attempts.append(ctx.attempt)
        return Step.DONE

    async with opened(one_stage(note), url=url, clock=clock) as app:
        await app.start(Job(id="a"))
        [held] = await app.store.claim(KNOWN, "dead", 1, timedelta(seconds=30))
        clock.advance(29)
        assert (await app.check("a")).condition is Condition.RUNNING
        clock.advance(1)
        assert (await app.check("a")).condition is Condition.FINISHED
        assert attempts == [2]
        assert (await app.get("a")).epoch == held.epoch + 1


async def test_a_worker_that_waits_takes_over_by_itself(url: str) -> None:
    async with opened(one_stage(make), url=url) as app:
        await app.start_many([Job(id="a"), Job(id="b")])
        await app.store.claim(KNOWN, "dead", 2, timedelta(seconds=0.2))
        await work_off(app)
        assert {record.process.note for record in await app.find()} == {"!"}


async def test_a_process_whose_workers_die_again_and_again_is_failed_in_the_end() -> None:
    clock = ManualClock()
    async with opened(one_stage(make, retry=Retry(attempts=3)), clock=clock) as app:
        await app.start(Job(id="a"))
        for _ in range(3):
            assert await app.store.claim(KNOWN, "dead", 1, timedelta(seconds=30))
            clock.advance(31)
        record = await app.check("a")
        assert record.condition is Condition.FAILED
        assert "make was begun 3 times and never reported" in (record.error or "")


@pytest.mark.parametrize("how", ["waits", "blocks the event loop"])
async def test_a_handler_that_takes_longer_than_its_lease_keeps_it(file_url: str, how: str) -> None:
    calls: list[int] = []
    begun, rival_looked = asyncio.Event(), asyncio.Event()

    async def long(job: Job) -> Literal[Step.DONE]:
        calls.append(1)
        begun.set()
        if how == "waits":
            await rival_looked.wait()
        else:
            time.sleep(0.9)  # that is what it must survive
        return Step.DONE

    async with opened(one_stage(long), url=file_url) as app, opened(one_stage(make), url=file_url) as rival:
        await app.start(Job(id="a"))
        async with working(app, lease=0.3):
            await begun.wait()
            for _ in range(0 if how == "blocks the event loop" else 12):
                await rival.check("a")
                await asyncio.sleep(0.06)
            rival_looked.set()
            done = await app.wait("a")
        assert (done.process.note, done.epoch, calls) == ("", 1, [1])


# -- neighbours, observers, bugs ----------------------------------------------------------------------------------


async def test_a_process_that_fails_disturbs_no_other() -> None:
    async def fail_odd(job: Job) -> Literal[Step.DONE]:
        await asyncio.sleep(0)
        if job.numbers[0] % 2:
            raise BaseException(f"odd {job.numbers[0]}")
        return Step.DONE

    async with opened(one_stage(fail_odd, retry=Retry(attempts=2, first=0))) as app:
        await app.start_many(Job(id=f"{n:02}", numbers=[n]) for n in range(40))
        await work_off(app)
        for record in await app.find():
            assert record.condition == ("failed" if int(record.id) % 2 else "finished")


async def test_observers_are_told_after_the_commit_of_each_one_in_its_order(path: Path) -> None:
    told: list[Event] = []
    seen: list[int] = []

    def observe(event: Event) -> None:
        told.append(event)
        with contextlib.closing(sqlite3.connect(path)) as other:  # as any other program sees it
            seen.append(other.execute("SELECT version FROM onward_process WHERE id = ?", (event.record.id,)).fetchone()[0])

    async def stumble(trip: Trip, ctx: Context) -> Literal[Leg.TRAVEL]:
        if ctx.attempt == 1:
            raise RuntimeError("once")
        return Leg.TRAVEL

    async with opened(trips(stage(stumble, retry=Retry(first=0))), url=f"sqlite:///{path}", observers=[observe]) as app:
        await app.start(Trip(id="a"))
        await work_off(app)
        assert [(event.kind, event.from_status, event.record.status) for event in told] == [
            ("retry", "book", "book"),
            ("moved", "book", "travel"),
            ("moved", "travel", "clean"),
            ("moved", "clean", "over"),
        ]
        assert seen == [event.record.version for event in told] == [1, 2, 3, 4]
        assert all(event.took is not None for event in told)
        assert "once" in (told[0].reason or "")


async def test_an_observer_that_raises_is_logged_and_disturbs_neither_process_nor_other_observers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    async with opened(one_stage(make), observers=[broken, lambda event: told.append(event.kind)]) as app:
        await app.start(Job(id="a"))
        await work_off(app)
        assert (await app.get("a")).condition is Condition.FINISHED
    assert told == ["moved"]
    assert "failed on a" in caplog.text


class TroubledStore(SqliteStore):
    """The real store, whose verbs raise `error` as often as `refusals` says."""

    error: Exception = StoreError("the disk is full")

    def __init__(self, path: str, clock: Any) -> None:
        super().__init__(path, clock)
        self.refusals: Counter[str] = Counter()

    def _refuse(self, verb: str) -> None:
        if self.refusals[verb] > 0:
            self.refusals[verb] -= 1
            raise self.error

    async def claim(self, *args: Any, **options: Any) -> list[Record]:
        self._refuse("claim")
        return await super().claim(*args, **options)

    async def commit(self, record: Record, change: Change) -> Record:
        self._refuse("commit")
        self._refuse(f"commit {record.id}")
        after = await super().commit(record, change)
        self._refuse("answer")  # it is written, and nobody hears of it
        return after

    async def next_due(self, known: Any) -> timedelta | None:
        self._refuse("next_due")
        return await super().next_due(known)

    async def release(self, *args: Any, **options: Any) -> None:
        self._refuse("release")
        await super().release(*args, **options)


@asynccontextmanager
async def troubled(flow: Flow[Any], path: str = ":memory:", clock: Any = None) -> AsyncIterator[tuple[Onward, TroubledStore]]:
    app = Onward(f"sqlite:///{path}", [flow], clock=clock)
    store = app.store = TroubledStore(path, app.clock)
    async with asyncio.timeout(PATIENCE_S), app:
        yield app, store


async def test_a_bug_of_ours_in_one_process_does_not_end_the_worker_and_harms_no_row(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    async with troubled(one_stage(make), clock=clock) as (app, store):
        store.error = AssertionError("a bug of ours")
        store.refusals["commit bad"] = 1
        await app.start_many([Job(id="bad"), Job(id="good")])
        async with working(app):
            assert (await app.wait("good")).condition is Condition.FINISHED
        assert (await app.get("bad")).condition is Condition.RUNNING
        assert "the engine failed" in caplog.text
        clock.advance(31)
        await work_off(app)
        done = await app.get("bad")
        assert (done.process.note, kinds(await app.history("bad"))) == ("!", ["started", "moved"])


@pytest.mark.parametrize("verb", ["commit", "answer"])
async def test_store_trouble_in_a_commit_spends_no_attempt_runs_no_handler_again_and_loses_nothing(
    file_url: str, path: Path, verb: str
) -> None:
    calls: list[int] = []

    async def count(job: Job) -> Literal[Step.DONE]:
        calls.append(1)
        job.note = "kept"
        return Step.DONE

    async with troubled(one_stage(count, retry=Retry(attempts=1)), str(path)) as (app, store):
        await app.start(Job(id="a"))
        store.refusals[verb] = 3 if verb == "commit" else 1
        await work_off(app)
        done = await app.get("a")
        assert (done.condition, done.process.note, done.version, calls) == (Condition.FINISHED, "kept", 1, [1])
        assert store.refusals.total() == 0


@pytest.mark.parametrize("verb", ["claim", "next_due"])
async def test_store_trouble_while_looking_for_work_does_not_end_the_worker(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onward.worker.STORE_PAUSE_MAX_S", 0.01)
    async with troubled(one_stage(make)) as (app, store):
        await app.start(Job(id="a"))
        async with working(app):
            await app.wait("a")
            store.refusals[verb] = 3
            await app.start(Job(id="b"))
            await app.wait("b")
            while store.refusals.total():  # it goes on asking
                await asyncio.sleep(0.01)


async def test_a_spinning_flow_is_parked_with_its_reason_and_lets_others_go_on() -> None:
    class Spin(StrEnum):
        LEFT = auto()
        RIGHT = auto()
        END = auto()

    class Top(Process[Spin]):
        status: Spin = Spin.LEFT

    async def left(top: Top) -> Literal[Spin.RIGHT, Spin.END]:
        return Spin.RIGHT

    async def right(top: Top) -> Literal[Spin.LEFT]:
        return Spin.LEFT

    async with opened(Flow(Top, {Spin.LEFT: left, Spin.RIGHT: right, Spin.END: END}), one_stage(make)) as app:
        await app.start_many([Top(id="top"), Job(id="job")])
        await work_off(app)
        parked = await app.get("top")
        assert (parked.condition, parked.version) == (Condition.FAILED, MOVES_MAX + 1)
        assert "spinning" in (parked.error or "")
        assert (await app.get("job")).condition is Condition.FINISHED


# -- ending -------------------------------------------------------------------------------------------------------


async def test_a_cancelled_worker_lets_handlers_end_within_the_grace_and_begins_no_further_stage(url: str) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def book(trip: Trip) -> Literal[Leg.TRAVEL]:
        begun.set()
        await go.wait()
        trip.log.append("booked")
        return Leg.TRAVEL

    async def never(trip: Trip) -> Literal[Leg.CLEAN, Leg.OVER]:
        raise AssertionError

    async def last(trip: Trip) -> Literal[Leg.OVER]:
        return Leg.OVER

    async with opened(Flow(Trip, {Leg.BOOK: book, Leg.TRAVEL: never, Leg.CLEAN: last, Leg.OVER: END}), url=url) as app:
        worker = asyncio.create_task(app.run(signals=False))
        await app.start(Trip(id="a"))
        await begun.wait()
        worker.cancel()
        await app.start(Trip(id="late"))
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await worker
        record = await app.get("a")
        assert (record.status, record.process.log, record.condition, record.attempt) == ("travel", ["booked"], "ready", 0)
        assert (await app.get("late")).epoch == 0
        assert await free(app)


async def test_what_does_not_end_within_the_grace_is_cut_off_and_free_at_once(url: str) -> None:
    begun = asyncio.Event()

    async def hang(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt > 1:
            return Step.DONE
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with opened(one_stage(hang), url=url) as app:
        await app.start(Job(id="a"))
        async with working(app, grace=0.02):
            await begun.wait()
        record = await app.get("a")
        assert (record.condition, record.owner, record.version) == (Condition.READY, None, 0)
        await work_off(app)
        assert (await app.get("a")).condition is Condition.FINISHED


async def test_a_worker_cancelled_at_any_moment_leaves_no_lease_behind_and_the_next_one_goes_on(url: str) -> None:
    """Also in the middle of a claim: what came back from it is nobody's then."""
    chance = random.Random(7)

    async with opened(trips(), url=url) as app:
        for trial in range(80):
            await app.start(Trip(id=f"{trial:02}"))
            worker = asyncio.create_task(app.run(signals=False, concurrency=3))
            for _ in range(chance.randrange(25)):
                await asyncio.sleep(chance.choice([0, 0, 0.0005]))
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
            assert await free(app), f"trial {trial}"
        await work_off(app)
        assert {record.condition for record in await app.find()} == {Condition.FINISHED}


async def test_a_check_cancelled_at_any_moment_leaves_no_lease_behind(url: str) -> None:
    chance = random.Random(8)
    async with opened(one_stage(make, retry=Retry(attempts=1_000)), url=url) as app:
        for trial in range(60):
            await app.start(Job(id=f"{trial:02}"))
            checking = asyncio.create_task(app.check(f"{trial:02}"))
            for _ in range(chance.randrange(15)):
                await asyncio.sleep(chance.choice([0, 0, 0.0005]))
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)
            assert await free(app), f"trial {trial}"


async def test_one_app_can_have_a_second_worker_after_the_first() -> None:
    async with opened(one_stage(make)) as app:
        for number in range(3):
            await app.start(Job(id=str(number)))
            await work_off(app)
        actors = {(await app.history(str(number)))[-1].actor for number in range(3)}
        assert len(actors) == 3  # each life of a worker has a name of its own
        assert await free(app)


async def test_two_workers_of_one_app_share_the_work_and_do_no_stage_twice(url: str) -> None:
    done: Counter[str] = Counter()

    async def first(trip: Trip, ctx: Context) -> Literal[Leg.TRAVEL]:
        done[ctx.key] += 1
        return await book(trip)

    async def second(trip: Trip, ctx: Context) -> Literal[Leg.CLEAN]:
        done[ctx.key] += 1
        return await travel(trip)

    async def third(trip: Trip, ctx: Context) -> Literal[Leg.OVER]:
        done[ctx.key] += 1
        return Leg.OVER

    flow = Flow(Trip, {Leg.BOOK: first, Leg.TRAVEL: second, Leg.CLEAN: third, Leg.OVER: END})
    async with opened(flow, url=url) as app:
        await app.start_many(Trip(id=f"{n:02}") for n in range(60))
        await asyncio.gather(work_off(app, concurrency=4), work_off(app, concurrency=4))
        assert set(done.values()) == {1}
        assert len(done) == 180
        actors = {entry.actor for n in range(60) for entry in (await app.history(f"{n:02}"))[1:]}
        assert len(actors) == 2


async def test_sigterm_drains_every_worker_of_the_program_and_gives_the_signal_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    begun, go = asyncio.Event(), asyncio.Event()

    async def hold(job: Job) -> Literal[Step.DONE]:
        begun.set()
        await go.wait()
        return Step.DONE

    async with opened(one_stage(hold)) as app, opened(one_stage(make)) as other:
        await app.start(Job(id="a"))
        workers = [asyncio.create_task(app.run()), asyncio.create_task(app.run()), asyncio.create_task(other.run())]
        await begun.wait()
        await work_off(other)
        await other.run(until_idle=True)  # one that ends before does not take the signal away from the others
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0)
        go.set()
        await asyncio.wait_for(asyncio.gather(*workers), 5)
        assert (await app.get("a")).condition is Condition.FINISHED
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_a_second_sigterm_cuts_handlers_off_and_leaves_their_process_free() -> None:
    begun = asyncio.Event()

    async def hang(job: Job) -> Literal[Step.DONE]:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with opened(one_stage(hang)) as app:
        await app.start(Job(id="a"))
        worker = asyncio.create_task(app.run())
        await begun.wait()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
        await asyncio.wait_for(worker, 5)
        record = await app.get("a")
        assert (record.condition, record.owner) == (Condition.READY, None)


async def test_a_handler_that_ignores_its_timeout_loses_its_process_to_others_and_cannot_hold_the_worker_for_ever() -> None:
    clock, release, calls = ManualClock(), asyncio.Event(), 0

    async def stubborn(job: Job) -> Literal[Step.DONE]:
        nonlocal calls
        calls += 1
        if calls > 1:
            job.note = "by another one"
            return Step.DONE
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        job.note = "too late"
        return Step.DONE

    async with opened(one_stage(stubborn, timeout=0.02), clock=clock) as app:
        await app.start(Job(id="a"))
        worker = asyncio.create_task(app.run(signals=False, concurrency=1))
        try:
            while not calls:
                await asyncio.sleep(0)
            clock.advance(60)
            await app.start(Job(id="b"))  # so that the worker looks up
            with pytest.raises(OnwardError, match="all 1 slots are taken by handlers that ignore their timeouts"):
                await worker
            clock.advance(60)
            assert (await app.check("a")).process.note == "by another one"
        finally:
            release.set()
        await asyncio.sleep(0)
        assert (await app.get("a")).process.note == "by another one"


# -- check --------------------------------------------------------------------------------------------------------


async def test_check_drives_one_process_to_its_rest_and_touches_no_other(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await app.start_many([Trip(id="a"), Trip(id="b")])
        done = await app.check("a")
        assert (done.condition, done.status, done.transition) == (Condition.FINISHED, "over", 3)
        assert (await app.get("b")).epoch == 0
        with pytest.raises(NotFound):
            await app.check("nobody")


async def test_check_of_what_is_not_due_answers_it_as_it_is() -> None:
    async def poll(job: Job) -> Literal[Step.MAKE, Step.DONE]:
        return Step.MAKE

    clock = ManualClock()
    async with opened(one_stage(poll, every=Every(seconds=60)), clock=clock) as app:
        await app.start(Job(id="a"))
        waiting = await app.check("a")
        assert waiting.condition is Condition.WAITING
        for act, condition in ((None, "waiting"), (app.pause, "paused"), (app.stop, "cancelled")):
            if act:
                await act("a")
            before = await app.get("a")
            after = await app.check("a")
            assert (after.version, after.epoch, after.condition) == (before.version, before.epoch, condition)


async def test_many_checks_beside_a_worker_run_each_stage_once(url: str) -> None:
    done: Counter[str] = Counter()

    async def count(job: Job, ctx: Context) -> Literal[Step.DONE]:
        done[ctx.key] += 1
        await asyncio.sleep(0)
        return Step.DONE

    async with opened(one_stage(count), url=url) as app, working(app):
        for number in range(10):
            id = str(number)
            await app.start(Job(id=id))
            answers = await asyncio.gather(*(app.check(id) for _ in range(4)))
            assert all(answer.condition in ("ready", "running", "finished") for answer in answers)
            await app.wait(id)
    assert done == {f"{number}:0": 1 for number in range(10)}
