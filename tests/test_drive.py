"""The one loop, with hand-written `attempt` and `commit`: it needs neither store nor lease, so any engine can run it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from onward import END, Condition, Every, Flow, Process, Record, Retry, stage
from onward.decide import MOVES_MAX, NOW, Change, Failed, Outcome, Returned, Unreadable
from onward.drive import drive
from onward.errors import Fenced, LeaseLost, RolledBack

T0 = datetime(2025, 1, 1, tzinfo=UTC)


class Step(StrEnum):
    MAKE = auto()
    LOOK = auto()
    BACK = auto()
    DONE = auto()


class Job(Process[Step]):
    status: Step = Step.MAKE


def make(job: Job) -> Literal[Step.LOOK, Step.BACK]: ...
def look(job: Job) -> Literal[Step.LOOK, Step.DONE]: ...
def back(job: Job) -> Literal[Step.MAKE]: ...


FLOW = Flow(
    Job,
    {
        Step.MAKE: stage(make, retry=Retry(attempts=2), within=10, otherwise=Step.LOOK),
        Step.LOOK: stage(look, every=Every(2)),
        Step.BACK: back,
        Step.DONE: END,
    },
)


class Engine:
    """As small as an engine can be. `calls` is what it was asked for, in order."""

    def __init__(self, *outcomes: Outcome | BaseException | Callable[[Record], Outcome], tick: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.tick = timedelta(seconds=tick)  # how long each commit takes
        self.calls: list[str] = []

    async def attempt(self, record: Record) -> Outcome:
        self.calls.append(f"attempt {record.attempt} at {record.status}")
        await asyncio.sleep(0)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome if isinstance(outcome, Returned | Failed | Unreadable) else outcome(record)

    async def commit(self, record: Record, change: Change) -> Record:
        self.calls.append(f"commit {change.kind} to {change.status}")
        await asyncio.sleep(0)
        now = record.as_of + self.tick
        return make_record(
            status=change.status,
            condition=change.condition,
            data=record.data if change.data is None else change.data,
            version=record.version + 1,
            attempt=change.attempt,
            polls=change.polls,
            transition=change.transition,
            moves=change.moves,
            entered_at=now if change.enters else record.entered_at,
            due_at=None if change.due_after is None else now + change.due_after,
            error=change.error,
            as_of=now,
        )


def make_record(**given: Any) -> Record:
    fields: dict[str, Any] = {
        "id": "p1",
        "flow": "job",
        "status": "make",
        "condition": Condition.RUNNING,
        "data": "{}",
        "version": 0,
        "epoch": 1,
        "attempt": 1,
        "polls": 0,
        "transition": 0,
        "moves": 0,
        "cancelling": False,
        "entered_at": T0,
        "created_at": T0,
        "updated_at": T0,
        "due_at": T0,
        "owner": "w1",
        "lease_until": None,
        "error": None,
        "as_of": T0,
    }
    return Record(**{**fields, **given})


def to(status: Step) -> Returned:
    return Returned(status.value, f'{{"at":"{status}"}}', None, 0.1)


async def run(engine: Engine, **given: Any) -> Record:
    return await drive(FLOW, make_record(**given), engine.attempt, engine.commit)


async def test_it_runs_stage_after_stage_until_the_end():
    engine = Engine(to(Step.LOOK), to(Step.DONE))
    record = await run(engine)
    assert engine.calls == ["attempt 1 at make", "commit moved to look", "attempt 1 at look", "commit moved to done"]
    assert (record.status, record.condition, record.version, record.transition) == ("done", Condition.FINISHED, 2, 2)


async def test_it_rests_when_the_status_stops_changing():
    engine = Engine(to(Step.LOOK), to(Step.LOOK), to(Step.DONE))
    record = await run(engine)
    assert engine.calls[-2:] == ["attempt 1 at look", "commit not yet to look"]
    assert (record.status, record.condition) == ("look", Condition.WAITING)
    assert record.due_at is not None and record.due_at >= T0 + timedelta(seconds=2)
    assert len(engine.outcomes) == 1


@pytest.mark.parametrize(
    "outcome, attempt, condition",
    [
        (Failed("no", 0.1), 1, Condition.RETRYING),
        (Failed("no", 0.1), 2, Condition.FAILED),
        (Failed("no", 0.1, permanent=True), 1, Condition.FAILED),
        (Failed("no", 0.1, delay=NOW), 1, Condition.RETRYING),
        (Unreadable("no"), 1, Condition.FAILED),
    ],
)
async def test_it_rests_after_a_failure(outcome, attempt, condition):
    engine = Engine(outcome)
    record = await run(engine, attempt=attempt)
    assert (record.status, record.condition, record.error) == ("make", condition, "no")
    assert len(engine.calls) == 2


async def test_a_stage_that_is_overdue_is_not_begun_again():
    engine = Engine(to(Step.DONE))
    record = await run(engine, as_of=T0 + timedelta(seconds=10))
    assert engine.calls == ["commit deadline to look", "attempt 1 at look", "commit moved to done"]
    assert record.condition is Condition.FINISHED


async def test_attempts_that_ended_without_a_word_are_not_begun_again():
    engine = Engine()
    record = await run(engine, attempt=3)
    assert engine.calls == ["commit failed to make"]
    assert record.condition is Condition.FAILED


async def test_overdue_is_asked_before_each_attempt_and_not_only_before_the_first():
    """Each commit takes six seconds here; at the second visit of the stage its clock begins anew."""
    engine = Engine(to(Step.BACK), to(Step.MAKE), to(Step.LOOK), to(Step.DONE), tick=6)
    await run(engine, as_of=T0 + timedelta(seconds=9))
    assert [call for call in engine.calls if "deadline" in call] == []
    slow = Engine(to(Step.BACK), to(Step.MAKE), to(Step.DONE), tick=6)

    async def commit(record: Record, change: Change) -> Record:
        after = await slow.commit(record, change)
        if change.kind == "moved" and change.status == "make":
            after.as_of += timedelta(seconds=10)  # the database was slow to answer
        return after

    record = await drive(FLOW, make_record(), slow.attempt, commit)
    assert slow.calls[-3:] == ["commit deadline to look", "attempt 1 at look", "commit moved to done"]
    assert record.condition is Condition.FINISHED


async def test_each_stage_gets_the_record_that_the_commit_answered():
    seen: list[Record] = []

    def note(status: Step) -> Callable[[Record], Outcome]:
        def outcome(record: Record) -> Outcome:
            seen.append(record)
            return to(status)

        return outcome

    await run(Engine(note(Step.LOOK), note(Step.DONE)))
    assert [(r.status, r.version, r.transition, r.data) for r in seen] == [("make", 0, 0, "{}"), ("look", 1, 1, '{"at":"look"}')]
    assert [r.key for r in seen] == ["p1:0", "p1:1"]


async def test_a_flow_that_never_rests_is_parked():
    def around(record: Record) -> Outcome:
        return to(Step.BACK if record.status == "make" else Step.MAKE)

    engine = Engine(*[around] * (MOVES_MAX + 5))
    record = await run(engine)
    assert record.condition is Condition.FAILED
    assert record.transition == MOVES_MAX + 1
    assert len(engine.outcomes) == 4


@pytest.mark.parametrize("error", [LeaseLost("taken"), asyncio.CancelledError(), KeyError("bug"), KeyboardInterrupt()], ids=repr)
async def test_what_the_attempt_raises_passes_through_and_nothing_is_committed(error):
    engine = Engine(to(Step.LOOK), error)
    with pytest.raises(type(error)):
        await run(engine)
    assert engine.calls == ["attempt 1 at make", "commit moved to look", "attempt 1 at look"]


@pytest.mark.parametrize("error", [Fenced("another claim"), asyncio.CancelledError(), OSError("disk")], ids=repr)
async def test_what_the_commit_raises_passes_through_and_no_stage_is_begun_after_it(error):
    engine = Engine(to(Step.LOOK), to(Step.DONE))

    async def commit(record: Record, change: Change) -> Record:
        raise error

    with pytest.raises(type(error)):
        await drive(FLOW, make_record(), engine.attempt, commit)
    assert engine.calls == ["attempt 1 at make"]


@pytest.mark.parametrize("fault, kind", [(False, "rolled back"), (True, "retry")])
async def test_a_commit_that_was_rolled_back_is_followed_by_one_that_says_so_and_rests(fault: bool, kind: str):
    engine = Engine(to(Step.LOOK), to(Step.DONE))

    async def commit(record: Record, change: Change) -> Record:
        if change.kind == "moved":
            raise RolledBack("gone", fault=fault)
        return await engine.commit(record, change)

    record = await drive(FLOW, make_record(), engine.attempt, commit)
    assert engine.calls == ["attempt 1 at make", f"commit {kind} to make"]
    assert (record.status, record.condition, record.error) == ("make", Condition.RETRYING, "gone")
