"""Virtual time: the real kernel and store, without threads and without waiting; programs that live and die by command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings

from onward import END, Context, Every, Flow, Process, Retry, RetryAfter, stage
from onward.errors import NotFound, OnwardError, StoreError
from onward.process import Condition
from onward.testing import VirtualClock, World, outcomes, run, run_to_rest
from onward.testing.between import Call, between
from onward.testing.life import Life, never
from onward.testing.loop import Deadlock
from onward.testing.scripts import AsksToWait, Fails, GivesUp, Hangs, Runs, Says
from onward.testing.world import Ran

FORTNIGHT = timedelta(days=14)


class Status(StrEnum):
    ORDERED = auto()
    SENT = auto()
    DELIVERED = auto()
    LOST = auto()


class Parcel(Process[Status]):
    status: Status = Status.ORDERED
    looks: int = 0
    needed: int = 3


class Courier:
    """Outside of the process: what was booked there, and what happened in its programs."""

    def __init__(self) -> None:
        self.booked: list[str] = []
        self.told: list[str] = []


async def send(parcel: Parcel, ctx: Context) -> Literal[Status.SENT]:
    courier: Courier = ctx.resources

    async def book() -> str:
        courier.booked.append(ctx.key)
        return ctx.key

    await ctx.once("book", book)
    try:
        await asyncio.sleep(60)
    finally:
        courier.told.append(f"{ctx.attempt} was over")
    return Status.SENT


def track(parcel: Parcel) -> Literal[Status.SENT, Status.DELIVERED]:
    parcel.looks += 1
    return Status.DELIVERED if parcel.looks >= parcel.needed else Status.SENT


flow = Flow(
    Parcel,
    {
        Status.ORDERED: stage(send, retry=Retry(attempts=3)),
        Status.SENT: stage(track, every=Every(seconds=60, longest=7200), within=FORTNIGHT, otherwise=Status.LOST),
        (Status.DELIVERED, Status.LOST): END,
    },
    on_cancel=Status.LOST,
)


def test_a_fortnight_of_polls_and_a_deadline_pass_in_no_time() -> None:
    began = time.monotonic()
    ran = run_to_rest(flow, Parcel(id="parcel", needed=1_000_000), resources=Courier())
    assert (ran.path, ran.condition) == (["ordered", "sent", "lost"], Condition.FINISHED)
    assert FORTNIGHT < ran.took < FORTNIGHT + timedelta(hours=3)  # from its first look on, so it says more than that of the clock
    assert ran.process.looks > 140
    assert time.monotonic() - began < 60


def test_the_same_program_has_the_same_history_each_time() -> None:
    once, again = (run_to_rest(flow, Parcel(id="parcel", needed=50), resources=Courier()) for _ in range(2))
    assert once == again


def test_who_asks_only_for_three_days_sees_it_as_it_stands_then() -> None:
    ran = run_to_rest(flow, Parcel(needed=1_000_000), until=timedelta(days=3), resources=Courier())
    assert (ran.status, ran.condition, ran.took) == (Status.SENT, Condition.WAITING, timedelta(days=3))


def test_a_process_that_fails_is_answered_with_its_error() -> None:
    ran = run_to_rest(flow, Parcel(), resources=None)  # no courier at all
    assert (ran.condition, ran.path, len(ran.history)) == (Condition.FAILED, ["ordered"], 4)
    assert "'NoneType' object has no attribute" in (ran.record.error or "")


def test_in_a_thread_that_runs_a_loop_it_says_what_to_do() -> None:
    async def main() -> None:
        with pytest.raises(OnwardError, match="an event loop of its own") as raised:
            run_to_rest(flow, Parcel())
        assert "to_thread" in raised.value.hint
        ran = await asyncio.to_thread(run_to_rest, flow, Parcel(), resources=Courier())
        assert ran.status is Status.DELIVERED

    asyncio.run(main())


def test_a_world_in_which_nothing_can_happen_any_more_says_so() -> None:
    with pytest.raises(Deadlock, match="nothing will ever happen"):
        run(asyncio.Event().wait)


def test_its_clock_goes_by_the_loop_and_can_be_set() -> None:
    async def main() -> None:
        clock = VirtualClock()
        began = clock.now()
        await asyncio.sleep(3_600)
        assert (clock.now() - began, clock.monotonic()) == (timedelta(hours=1), 3_600)
        clock.jump(-timedelta(days=1))
        assert (clock.now() - began, clock.monotonic()) == (timedelta(hours=-23), 3_600)

    run(main)


class Step(StrEnum):
    OPEN = auto()
    DONE = auto()


class Books(Process[Step]):
    status: Step = Step.OPEN


async def test_transactions_of_handlers_come_one_after_the_other_and_commit_with_their_transition() -> None:
    async def write(books: Books, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS book (id TEXT)")
            conn.execute("INSERT INTO book VALUES (?)", (books.id,))
            await asyncio.sleep(0.1)
        if ctx.attempt == 1:
            raise RetryAfter(1, "what it wrote is gone")
        if ctx.attempt == 2:
            await asyncio.sleep(10)  # longer than a transaction may keep the others waiting
        return Step.DONE

    async def main() -> list[str]:
        async with World([Flow(Books, {Step.OPEN: write, Step.DONE: END})]) as world:
            await world.start_many([Books(id=f"b-{n}") for n in range(3)])
            await world.worker().running
            assert [record.attempt for record in await world.find(condition="finished")] == [0, 0, 0]
            histories = [await world.whole_history(f"b-{n}") for n in range(3)]
            assert {tuple(entry.kind for entry in entries) for entries in histories} == {("started", "retry", "retry", "moved")}
            assert all("kept its transaction open" in (entries[2].reason or "") for entries in histories)
            rows: list[tuple[str]] = world.store.at_once(lambda conn: conn.execute("SELECT id FROM book").fetchall())
            return sorted(id for (id,) in rows)

    assert await asyncio.to_thread(run, main) == ["b-0", "b-1", "b-2"]


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_run_tells_what_is_in_your_own_tables(database: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_server").url if database == "postgres" else ""

    async def write(books: Books, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            raise RetryAfter(timedelta(days=14))
        async with ctx.transaction() as conn:
            written = conn.execute(f"INSERT INTO book (id) VALUES ('{books.id}')")
            if url:
                await written
            await asyncio.sleep(2)
        return Step.DONE

    def ran(**given: Any) -> Ran:
        flow = Flow(Books, {Step.OPEN: write, Step.DONE: END})
        made = "CREATE TABLE book (id text, written_at timestamp DEFAULT CURRENT_TIMESTAMP)"
        return run_to_rest(flow, Books(id="b"), prepare=lambda conn: conn.execute(made), postgres=url, **given)

    over = ran()
    assert (over.condition, over.rows) == (Condition.FINISHED, [("book", {"id": "b"})])
    assert timedelta(days=14) < over.took < timedelta(days=15)
    in_its_midst = ran(until=timedelta(days=14, seconds=1))
    assert (in_its_midst.condition, in_its_midst.rows) == (Condition.RUNNING, [])


# -- programs -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def parcel_under_way(courier: Courier) -> AsyncIterator[World]:
    async with World([flow], resources=courier) as world:
        await world.start(Parcel(id="parcel"))
        yield world


def test_a_killed_program_runs_no_finally_and_another_goes_on_when_its_lease_is_over() -> None:
    courier = Courier()

    async def main() -> None:
        async with parcel_under_way(courier) as world:
            first = world.worker()
            await asyncio.sleep(10)
            assert courier.booked == ["parcel:0"]
            first.kill()
            second = world.worker()
            await second.running
            assert courier.told == ["2 was over"]  # nobody has told of the first one
            assert courier.booked == ["parcel:0"]  # its record was read back
            claims = [entry for entry in await world.whole_history("parcel") if entry.kind == "moved"]
            assert [entry.actor for entry in claims] == ["worker-2", "worker-2"]
            assert not first.running.done()

    run(main)


def test_a_program_that_was_stopped_learns_when_it_goes_on_that_it_was_overtaken() -> None:
    courier = Courier()

    async def main() -> None:
        async with parcel_under_way(courier) as world:
            zombie = world.worker()
            await asyncio.sleep(10)
            zombie.stop()
            await asyncio.sleep(100)
            assert (await world.get("parcel")).condition is Condition.READY  # its lease is over
            await world.worker().running
            assert (await world.get("parcel")).condition is Condition.FINISHED
            assert courier.told == ["2 was over"]
            zombie.go_on()
            await zombie.running
            assert courier.told == ["2 was over", "1 was over"]
            assert (await world.get("parcel")).version == 4

    run(main)


def test_between_a_program_and_the_store_answers_can_be_lost() -> None:
    courier, lost = Courier(), []

    async def before(call: Call) -> None:
        return None

    async def after(call: Call) -> None:
        if call.verb in ("commit", "record_step") and call.verb not in lost:
            lost.append(call.verb)
            raise StoreError("the answer was lost")

    async def main() -> None:
        async with parcel_under_way(courier) as world:
            await world.worker(store=between(world.store, before, after)).running
            entries = await world.whole_history("parcel")
            assert [entry.version for entry in entries] == [0, 1, 2, 3, 4]

    run(main)
    assert lost == ["record_step", "commit"]
    assert courier.booked == ["parcel:0"]


def test_a_program_can_die_between_two_lines_of_its_own() -> None:
    told: list[str] = []

    async def dies() -> None:
        life = Life.current()
        assert life is not None
        told.append("before")
        try:
            life.kill()
            await never()
        finally:
            told.append("after")

    async def main() -> None:
        async with World([flow]) as world:
            life = Life("mortal")
            world.lives.append(life)
            task = life.begin(dies())
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.sleep(1)
            assert told == ["before"]
            assert not task.done()

    run(main)


def test_a_stopped_program_is_cancelled_when_it_goes_on() -> None:
    told: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async def main() -> None:
        async with World([flow]) as world:
            life = Life("stopped")
            world.lives.append(life)
            task = life.begin(waits())
            await asyncio.sleep(1)
            life.stop()
            task.cancel()
            await asyncio.sleep(20)
            assert told == []
            life.go_on()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert told == ["cancelled"]

    run(main)


# -- scripts ------------------------------------------------------------------------------------------------------

QUICK = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@QUICK
@given(outcomes(flow))
def test_whatever_the_stages_come_to_the_parcel_comes_to_rest(script: dict[str, Any]) -> None:
    ran = run_to_rest(flow, Parcel(), outcomes=script, resources=Courier())
    assert ran.condition in (Condition.FINISHED, Condition.FAILED)


def test_a_bad_history_is_shrunk_to_the_shortest_one() -> None:
    def is_lost(script: dict[str, Any]) -> bool:
        return run_to_rest(flow, Parcel(), outcomes=script, resources=Courier()).condition is Condition.FAILED

    quick = settings(max_examples=300, deadline=None, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
    assert find(outcomes(flow), is_lost, settings=quick) in ({"send": [GivesUp()]}, {"track": [GivesUp()]})


@pytest.mark.parametrize(
    ("script", "path", "attempts"),
    [
        ({"send": [Fails(), Fails(after=True)]}, ["ordered", "sent", "delivered"], 3),
        ({"send": [AsksToWait()]}, ["ordered", "sent", "delivered"], 2),
        ({"send": [Hangs(), Runs()]}, ["ordered", "sent", "delivered"], 2),
        ({"send": [Says("sent")], "track": [Says("sent")]}, ["ordered", "sent", "delivered"], 1),
    ],
)
def test_attempts_come_to_what_the_script_says(script: Any, path: list[str], attempts: int) -> None:
    ran = run_to_rest(flow, Parcel(), outcomes=script, resources=Courier())
    assert ran.path == path
    assert next(entry.attempt for entry in ran.history if entry.to_status == "sent") in (attempts, 1)
    assert sum(entry.to_status == "ordered" for entry in ran.history) == attempts


def test_a_script_for_a_handler_that_the_flow_has_not_is_refused() -> None:
    with pytest.raises(NotFound, match="parcel has no handler 'sned'") as raised:
        run_to_rest(flow, Parcel(), outcomes={"sned": [Fails()]})
    assert "send, track" in raised.value.hint


# -- fixtures -----------------------------------------------------------------------------------------------------

pytest_plugins = ["pytester"]


def test_the_plugin_brings_an_app_and_its_clock(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makepyfile("""
        from datetime import timedelta
        from test_world import Courier, Parcel, Status, flow

        async def test_it(onward_app, onward_clock):
            async with onward_app(flow) as app:
                await app.start(Parcel(id="p", status=Status.SENT))
                assert (await app.check("p")).condition == "waiting"
                onward_clock.advance(timedelta(days=14))
                assert (await app.check("p")).status == "lost"
    """)
    result = pytester.runpytest_subprocess("-o", "asyncio_mode=auto", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
