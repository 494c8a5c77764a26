"""The law: what becomes of a row after an attempt, or after what a person asked for. Pure, so no store is needed here."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import Any, Literal, cast

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from onward import END, Condition, Every, Flow, Process, Record, Refused, Retry, stage
from onward import decide as law
from onward.decide import MOVES_MAX, NOW, SETTLE, Change, Failed, Returned, Undone, Unreadable, decide, overdue, saved, undone
from onward.errors import DELAY_MAX, RolledBack
from onward.flow import JITTER
from onward.process import OVER, RESTING

T0 = datetime(2025, 1, 1, tzinfo=UTC)


class Step(StrEnum):
    MAKE = auto()
    ASK = auto()
    LOOK = auto()
    CLEAN = auto()
    DONE = auto()


class Job(Process[Step]):
    status: Step = Step.MAKE


def make(job: Job) -> Literal[Step.ASK]: ...
def look(job: Job) -> Literal[Step.LOOK, Step.CLEAN]: ...
def clean(job: Job) -> Literal[Step.MAKE, Step.DONE]: ...


FLOW = Flow(
    Job,
    {
        Step.MAKE: stage(make, retry=Retry(attempts=3, first=1, longest=8)),
        (Step.ASK, Step.LOOK): stage(
            look, every=Every(2, longest=30), within=100, otherwise=Step.CLEAN, on_failure=Step.DONE, retry=Retry(2, 10)
        ),
        Step.CLEAN: clean,
        Step.DONE: END,
    },
    on_cancel=Step.CLEAN,
)
PLAIN = Flow(
    Job, {Step.MAKE: make, (Step.ASK, Step.LOOK): stage(look, every=Every(2)), Step.CLEAN: clean, Step.DONE: END}, name="job"
)


def a_record(status: Step = Step.MAKE, **given: Any) -> Record:
    fields: dict[str, Any] = {
        "id": "p1",
        "flow": "job",
        "status": status.value,
        "condition": Condition.RUNNING,
        "data": "{}",
        "version": 7,
        "epoch": 3,
        "attempt": 1,
        "polls": 0,
        "transition": 4,
        "moves": 2,
        "cancelling": False,
        "entered_at": T0,
        "created_at": T0,
        "updated_at": T0,
        "due_at": T0,
        "owner": "w1",
        "lease_until": T0 + timedelta(seconds=30),
        "error": None,
        "as_of": T0,
    }
    return Record(**{**fields, **given})


def returned(status: Step, data: str = '{"x":1}', took: float = 0.5) -> Returned:
    return Returned(status.value, data, "the copy", took)


def later(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


# -- what a handler may say ---------------------------------------------------------------------------------------


def test_another_status_is_a_transition_and_the_next_stage_runs_at_once():
    assert decide(FLOW, a_record(error="old"), returned(Step.ASK)) == Change(
        kind="moved",
        status="ask",
        condition=Condition.READY,
        due_after=NOW,
        attempt=1,
        polls=0,
        transition=5,
        moves=3,
        cancelling=False,
        data='{"x":1}',
        process="the copy",
        took=0.5,
        enters=True,
        goes_on=True,
    )


def test_the_last_transition_finishes_the_process():
    change = decide(FLOW, a_record(Step.CLEAN, attempt=2, polls=3), returned(Step.DONE))
    assert (change.condition, change.due_after, change.goes_on) == (Condition.FINISHED, None, False)
    assert (change.status, change.attempt, change.polls, change.transition) == ("done", 0, 0, 5)


def test_the_last_transition_of_a_cancelled_process_ends_it_cancelled():
    change = decide(FLOW, a_record(Step.CLEAN, cancelling=True), returned(Step.DONE))
    assert (change.condition, change.due_after, change.goes_on) == (Condition.CANCELLED, None, False)


def test_the_clean_up_of_a_cancelled_process_goes_through_its_stages_as_any_other():
    change = decide(FLOW, a_record(Step.CLEAN, cancelling=True), returned(Step.MAKE))
    assert (change.condition, change.cancelling, change.goes_on) == (Condition.READY, True, True)


def test_its_own_status_means_not_yet_keeps_the_data_and_looks_again():
    change = decide(FLOW, a_record(Step.LOOK, polls=1, attempt=2, error="old"), returned(Step.LOOK))
    pause = Every(2, 30).pause(1, "p1")
    assert change == Change(
        kind="not yet",
        status="look",
        condition=Condition.WAITING,
        due_after=pause,
        attempt=2,
        excused=2,  # what was tried before counts no more, but the number of the next attempt is 3
        polls=2,
        transition=4,
        moves=0,
        cancelling=False,
        data='{"x":1}',
        process="the copy",
        took=0.5,
    )


def test_an_error_is_tried_again_after_the_pause_of_the_policy_and_keeps_the_data_as_it_was():
    change = decide(FLOW, a_record(attempt=2, polls=1), Failed("ValueError: no", 0.5))
    assert change == Change(
        kind="retry",
        status="make",
        condition=Condition.RETRYING,
        due_after=Retry(3, 1, 8).pause(2, "p1"),
        attempt=2,
        polls=1,
        transition=4,
        moves=0,
        cancelling=False,
        data=None,
        error="ValueError: no",
        reason="ValueError: no",
        took=0.5,
    )


def test_when_the_attempts_end_the_process_fails_visibly_and_waits_for_a_person():
    change = decide(FLOW, a_record(attempt=3), Failed("ValueError: no", 0.5))
    assert change == Change(
        kind="failed",
        status="make",
        condition=Condition.FAILED,
        due_after=None,
        attempt=3,
        polls=0,
        transition=4,
        moves=0,
        cancelling=False,
        data=None,
        error="ValueError: no",
        reason="ValueError: no",
        took=0.5,
    )


@pytest.mark.parametrize("failed", [Failed("broken", 0.5), Failed("broken", 0.5, delay=timedelta(seconds=5))])
def test_when_the_attempts_end_it_goes_to_on_failure_with_the_error_on_it(failed):
    change = decide(FLOW, a_record(Step.CLEAN, attempt=4), failed)
    assert change.condition is Condition.RETRYING
    flow = Flow(
        Job,
        {Step.MAKE: make, Step.ASK: stage(make_done, on_failure=Step.CLEAN, retry=Retry(2)), Step.CLEAN: clean, **REST},
    )
    change = decide(flow, a_record(Step.ASK, attempt=2), failed)
    assert (change.kind, change.status, change.condition, change.goes_on) == ("gave up", "clean", Condition.READY, True)
    assert (change.error, change.reason, change.data, change.transition) == ("broken", "broken", None, 5)


def make_done(job: Job) -> Literal[Step.LOOK]: ...
def look_done(job: Job) -> Literal[Step.DONE]: ...


REST: dict[Any, Any] = {Step.LOOK: look_done, Step.DONE: END}


def test_on_failure_may_be_an_end():
    change = decide(FLOW, a_record(Step.LOOK, attempt=2), Failed("broken", 0.5))
    assert (change.kind, change.status, change.condition) == ("gave up", "done", Condition.FINISHED)
    assert (change.error, change.due_after, change.goes_on) == ("broken", None, False)


def test_unrecoverable_is_not_tried_again():
    change = decide(FLOW, a_record(attempt=1), Failed("refused for good", 0.5, permanent=True))
    assert (change.kind, change.condition, change.error) == ("failed", Condition.FAILED, "refused for good")
    change = decide(FLOW, a_record(Step.LOOK, attempt=1), Failed("refused for good", 0.5, permanent=True))
    assert (change.kind, change.status, change.error) == ("gave up", "done", "refused for good")


@pytest.mark.parametrize("delay", [NOW, timedelta(seconds=77), DELAY_MAX])
def test_retry_after_waits_as_long_as_it_was_asked_to(delay):
    change = decide(FLOW, a_record(attempt=1), Failed("busy", 0.5, delay=delay))
    assert (change.condition, change.due_after, change.attempt) == (Condition.RETRYING, delay, 1)


def test_retry_after_spends_an_attempt_like_any_error():
    change = decide(FLOW, a_record(attempt=3), Failed("busy", 0.5, delay=timedelta(seconds=5)))
    assert change.condition is Condition.FAILED


def test_data_that_cannot_be_read_waits_for_a_person_with_its_bytes_as_they_are():
    for status in (Step.MAKE, Step.LOOK):  # also where on_failure is named: no handler of it could read the data either
        change = decide(FLOW, a_record(status), Unreadable("weight: Field required"))
        assert (change.kind, change.condition, change.due_after) == ("failed", Condition.FAILED, None)
        assert (change.status, change.data, change.error) == (status.value, None, "weight: Field required")


def test_a_transaction_that_the_database_took_away_runs_its_stage_again_and_spends_no_attempt():
    record = a_record(attempt=3, polls=1, moves=5)  # its last one
    change = decide(FLOW, record, Undone("deadlock", 0.5))
    assert change == Change(
        kind="rolled back",
        status="make",
        condition=Condition.RETRYING,
        due_after=law.ROLLED_BACK,
        attempt=3,
        excused=1,
        polls=1,
        transition=4,
        moves=0,
        cancelling=False,
        error="deadlock",
        reason="deadlock",
        took=0.5,
    )
    assert overdue(FLOW, replace(record, attempt=4, excused=1)) is None
    assert overdue(FLOW, replace(record, attempt=5, excused=1)) is not None


@pytest.mark.parametrize("fault, condition", [(False, Condition.RETRYING), (True, Condition.FAILED)])
def test_a_commit_that_was_rolled_back_is_the_handlers_failure_only_if_that_is_its_fault(fault, condition):
    record = a_record(attempt=3)
    change = decide(FLOW, record, replace(returned(Step.ASK), transaction="its own"))
    assert change.transaction == "its own"
    instead = undone(FLOW, record, change, RolledBack("no\x00 way", fault=fault))
    assert (instead.status, instead.condition, instead.transaction, instead.data) == ("make", condition, None, None)
    assert instead.took == 0.5 and "\x00" not in (instead.error or "") and "way" in (instead.error or "")


def test_the_transaction_of_a_not_yet_is_committed_with_it_and_that_of_no_other_change():
    assert decide(FLOW, a_record(Step.LOOK), replace(returned(Step.LOOK), transaction="its own")).transaction == "its own"
    assert decide(FLOW, a_record(), Failed("no", 0.5)).transaction is None
    assert saved(a_record(), "{}").transaction is None


def test_saving_in_mid_stage_keeps_everything_but_the_data():
    record = a_record(Step.LOOK, attempt=2, polls=3, error="old", cancelling=True)
    change = saved(record, '{"y":2}')
    assert change.data == '{"y":2}'
    assert (change.due_after, change.goes_on, change.enters, change.process) == (NOW, True, False, None)
    for field in ("status", "attempt", "polls", "transition", "moves", "cancelling", "error"):
        assert getattr(change, field) == getattr(record, field)


# -- attempts are counted when they begin -------------------------------------------------------------------------


def test_nothing_is_overdue_while_attempts_and_time_are_left():
    assert overdue(FLOW, a_record(attempt=3)) is None
    assert overdue(FLOW, a_record(Step.LOOK, as_of=later(99.999999))) is None
    assert overdue(FLOW, a_record(as_of=later(1e8))) is None, "a stage without `within` has no deadline"


def test_a_handler_that_takes_its_worker_down_with_it_is_not_begun_for_ever():
    change = overdue(FLOW, a_record(attempt=4))
    assert change is not None
    assert (change.condition, change.due_after) == (Condition.FAILED, None)
    assert change.error == change.reason == "make was begun 3 times and never reported: its worker died, or somebody cut it off"


def test_the_error_that_was_seen_is_better_than_none():
    change = overdue(FLOW, a_record(attempt=4, error="ValueError: no"))
    assert change is not None and change.error == "ValueError: no"


def test_a_handler_that_takes_its_worker_down_goes_to_on_failure():
    change = overdue(FLOW, a_record(Step.LOOK, attempt=3))
    assert change is not None
    assert (change.kind, change.status, change.condition) == ("gave up", "done", Condition.FINISHED)
    assert change.error == "look was begun 2 times and never reported: its worker died, or somebody cut it off"


def test_a_stage_with_one_attempt_is_begun_once():
    flow = Flow(Job, {**dict.fromkeys((Step.ASK, Step.CLEAN), END), **REST, Step.MAKE: stage(any_of, retry=Retry(1))})
    assert overdue(flow, a_record(attempt=1)) is None
    change = overdue(flow, a_record(attempt=2))
    assert change is not None and change.condition is Condition.FAILED
    assert change.error == "any_of was begun once and never reported: its worker died, or somebody cut it off"


def any_of(job: Job) -> Literal[Step.ASK, Step.CLEAN, Step.LOOK]: ...


# -- deadlines ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [100, 100.000001, 1e6])
def test_when_its_time_is_over_the_stage_goes_to_otherwise_without_another_attempt(after):
    change = overdue(FLOW, a_record(Step.LOOK, as_of=later(after), polls=9, error="old"))
    assert change is not None
    assert (change.kind, change.status, change.condition, change.goes_on) == ("deadline", "clean", Condition.READY, True)
    assert (change.attempt, change.polls, change.transition, change.enters) == (1, 0, 5, True)
    assert (change.data, change.error, change.reason) == (None, None, "look was not done within 100 s")


def test_a_long_deadline_is_said_in_words():
    flow = Flow(Job, {**REST, Step.MAKE: make, Step.CLEAN: END, Step.ASK: stage(make_done, within=DAY, otherwise=Step.CLEAN)})
    change = overdue(flow, a_record(Step.ASK, as_of=T0 + DAY))
    assert change is not None and change.reason == "make_done was not done within 1 day, 0:00:00"


DAY = timedelta(days=1)


def test_the_deadline_comes_before_the_count_of_attempts():
    change = overdue(FLOW, a_record(Step.LOOK, as_of=later(100), attempt=9))
    assert change is not None and change.kind == "deadline"


def test_moving_between_the_statuses_of_one_line_does_not_restart_its_clock():
    change = decide(FLOW, a_record(Step.ASK, as_of=later(50)), returned(Step.LOOK))
    assert (change.status, change.enters, change.transition) == ("look", False, 5)
    assert (change.attempt, change.polls) == (1, 0)


def test_entering_another_line_starts_its_clock():
    assert decide(FLOW, a_record(Step.MAKE), returned(Step.ASK)).enters
    assert decide(FLOW, a_record(Step.LOOK), returned(Step.CLEAN)).enters


def test_neither_polls_nor_retries_nor_saving_restart_the_clock():
    record = a_record(Step.LOOK)
    assert not decide(FLOW, record, returned(Step.LOOK)).enters
    assert not decide(FLOW, record, Failed("no", 0.5)).enters
    assert not saved(record, "{}").enters


def test_a_person_who_retries_gives_the_stage_its_whole_time_and_all_its_attempts_again():
    change = law.retry(a_record(Step.LOOK, condition=Condition.FAILED, attempt=2, polls=5, moves=9, error="no"))
    assert (change.enters, change.attempt, change.excused, change.moves, change.error) == (True, 2, 2, 0, None)
    assert (change.condition, change.due_after, change.transition) == (Condition.READY, NOW, 4)


@pytest.mark.parametrize(
    "outcome",
    [
        returned(Step.LOOK, took=0.0),
        Failed("no", 0.0),
        Failed("no", 0.0, delay=timedelta(days=1)),
    ],
)
def test_no_pause_reaches_beyond_the_deadline(outcome):
    for passed, left in ((99.0, 1.0), (99.5, 0.5), (100.0, 0.0), (150.0, 0.0)):
        change = decide(FLOW, a_record(Step.LOOK, as_of=later(passed)), outcome)
        assert change.due_after == timedelta(seconds=left)


def test_the_length_of_the_attempt_counts_towards_the_deadline():
    for outcome in (returned(Step.LOOK, took=4.0), Failed("no", 4.0, delay=DAY)):
        assert decide(FLOW, a_record(Step.LOOK, as_of=later(95)), outcome).due_after == timedelta(seconds=1)
        assert decide(FLOW, a_record(Step.LOOK, as_of=later(99)), outcome).due_after == NOW


# -- the spinning guard -------------------------------------------------------------------------------------------


def test_a_process_may_move_exactly_as_often_as_the_limit_without_waiting():
    change = decide(FLOW, a_record(moves=MOVES_MAX - 1), returned(Step.ASK))
    assert (change.condition, change.moves, change.goes_on) == (Condition.READY, MOVES_MAX, True)


def test_a_process_that_moves_once_more_is_parked_where_it_went_with_its_data():
    change = decide(FLOW, a_record(moves=MOVES_MAX), returned(Step.ASK))
    assert (change.kind, change.status, change.condition) == ("failed", "ask", Condition.FAILED)
    assert (change.due_after, change.goes_on, change.transition) == (None, False, 5)
    assert (change.data, change.moves, change.attempt) == ('{"x":1}', 0, 0)
    assert change.error == change.reason == "spinning: more than 1,000 transitions without waiting once, the last to ask"


def test_reaching_the_end_is_never_spinning():
    change = decide(FLOW, a_record(Step.CLEAN, moves=MOVES_MAX), returned(Step.DONE))
    assert (change.condition, change.error) == (Condition.FINISHED, None)


def test_moves_by_deadline_and_by_failure_count_as_well():
    at_deadline = overdue(FLOW, a_record(Step.LOOK, moves=MOVES_MAX, as_of=later(100)))
    assert at_deadline is not None and at_deadline.condition is Condition.FAILED
    flow = Flow(Job, {**REST, Step.MAKE: make, Step.CLEAN: END, Step.ASK: stage(make_done, on_failure=Step.CLEAN)})
    assert decide(flow, a_record(Step.ASK, moves=MOVES_MAX), Failed("no", 0, permanent=True)).condition is Condition.FINISHED
    flow = Flow(Job, {**REST, Step.MAKE: make, Step.CLEAN: clean, Step.ASK: stage(make_done, on_failure=Step.CLEAN)})
    change = decide(flow, a_record(Step.ASK, moves=MOVES_MAX), Failed("no", 0, permanent=True))
    assert change.condition is Condition.FAILED and (change.error or "").startswith("spinning")


def test_waiting_once_ends_the_count():
    assert decide(FLOW, a_record(Step.LOOK, moves=900), returned(Step.LOOK)).moves == 0
    assert decide(FLOW, a_record(moves=900), Failed("no", 0.5)).moves == 0


# -- what a person may ask for: action x condition ----------------------------------------------------------------

ACTIONS: dict[str, Callable[[Record], Change]] = {
    "wake": law.wake,
    "retry": law.retry,
    "pause": law.pause,
    "resume": law.resume,
    "cancel": lambda record: law.cancel(FLOW, record),
    "stop": law.stop,
}
C = Condition
ALL = set(Condition)
ALLOWED: dict[str, set[Condition]] = {
    "wake": {C.WAITING, C.RETRYING},
    "retry": {C.FAILED, C.RETRYING},
    "pause": {C.READY, C.RUNNING, C.WAITING, C.RETRYING, C.ORPHANED},
    "resume": {C.PAUSED},
    "cancel": ALL - OVER,
    "stop": ALL - OVER,
}
BECOMES = {
    "wake": ("woken", C.READY, NOW),
    "retry": ("retried", C.READY, NOW),
    "pause": ("paused", C.PAUSED, None),
    "resume": ("resumed", C.READY, NOW),
    "cancel": ("cancelled", C.WAITING, SETTLE),
    "stop": ("stopped", C.CANCELLED, None),
}
HINTS = {
    C.READY: "it is due; a worker takes it: onward run",
    C.RUNNING: "to interrupt it: onward pause p1",
    C.WAITING: "to look at once: onward wake p1",
    C.RETRYING: "to try at once: onward retry p1",
    C.FAILED: "after mending the cause: onward retry p1",
    C.PAUSED: "to go on: onward resume p1",
    C.ORPHANED: "start the code that knows its status, or: onward stop p1",
    C.CANCELLED: "it is over: onward history p1",
    C.FINISHED: "it is over: onward history p1",
}


@pytest.mark.parametrize("condition", list(Condition))
@pytest.mark.parametrize("action", list(ACTIONS))
def test_each_action_in_each_condition_is_a_change_or_refused_with_a_hint(action, condition):
    record = a_record(Step.LOOK, condition=condition, attempt=2, polls=3, error="old")
    if condition not in ALLOWED[action]:
        with pytest.raises(Refused) as caught:
            ACTIONS[action](record)
        assert str(caught.value) == f"cannot {action} job p1: it is {condition}, at look"
        assert caught.value.hint == HINTS[condition]
        return
    change = ACTIONS[action](record)
    assert (change.kind, change.condition, change.due_after) == BECOMES[action]
    assert change.data is None and not change.goes_on
    assert change.cancelling is (action == "cancel")
    if action != "cancel":
        assert (change.status, change.transition) == ("look", 4)
    if action in ("wake", "pause", "resume", "stop"):
        assert (change.error, change.polls, change.enters) == ("old", 3, False)


def test_waking_keeps_the_count_of_attempts_and_polls():
    change = law.wake(a_record(Step.LOOK, condition=Condition.RETRYING, attempt=2, polls=3, error="no"))
    assert (change.attempt, change.polls, change.error, change.moves) == (2, 3, "no", 2)


@pytest.mark.parametrize("condition", [C.READY, C.RUNNING, C.WAITING, C.RETRYING, C.ORPHANED])
def test_an_attempt_that_a_person_cut_off_counts(condition):
    """The next one is told by its number to look for what it did."""
    paused = law.pause(a_record(condition=condition, attempt=2))
    assert law.resume(a_record(condition=Condition.PAUSED, attempt=paused.attempt)).attempt == 2


def test_cancelling_goes_on_at_on_cancel_as_a_fresh_visit_once_the_handler_had_time_to_end():
    change = law.cancel(FLOW, a_record(Step.LOOK, condition=C.FAILED, attempt=2, polls=3, moves=9, error="no"))
    assert (change.status, change.transition, change.cancelling, change.enters) == ("clean", 5, True, True)
    assert (change.attempt, change.polls, change.moves, change.error) == (0, 0, 0, None)
    assert (change.condition, change.due_after) == (C.WAITING, timedelta(seconds=1))


def test_cancelling_twice_is_refused_and_says_how_to_give_up_the_clean_up():
    for condition in ALL - OVER:
        with pytest.raises(Refused) as caught:
            law.cancel(FLOW, a_record(Step.CLEAN, condition=condition, cancelling=True))
        assert str(caught.value) == "job p1 is cancelled already and cleans up, now at clean"
        assert caught.value.hint == "to give up its clean-up as well: onward stop p1"


def test_cancelling_without_on_cancel_ends_it_here():
    change = law.cancel(PLAIN, a_record(condition=C.WAITING))
    assert (change.kind, change.condition, change.due_after, change.status) == ("cancelled", C.CANCELLED, None, "make")


@pytest.mark.parametrize("condition", sorted(ALL - OVER))
def test_cancelling_to_an_end_is_over_at_once(condition):
    """Nobody claims a row at END: due there, it would wait for ever."""
    flow = Flow(
        Job,
        {Step.MAKE: make, (Step.ASK, Step.LOOK): stage(look, every=Every(2)), Step.CLEAN: clean, Step.DONE: END},
        on_cancel=Step.DONE,
    )
    change = law.cancel(flow, a_record(condition=condition))
    assert (change.status, change.condition, change.due_after, change.transition) == ("done", C.CANCELLED, None, 5)


def test_a_hint_for_a_poisoned_id_is_printable():
    with pytest.raises(Refused) as caught:
        law.resume(a_record(id="\x1b[2J", condition=C.FINISHED))
    assert "\x1b" not in caught.value.hint


# -- properties ---------------------------------------------------------------------------------------------------
# Random policies, and random sequences of outcomes, claims, crashes and actions on a row in memory, which does with a
# change what the store's `commit`, `act`, `claim` and `release` do. The same rules hold for every sequence.


class Road(StrEnum):
    A = auto()
    B = auto()
    C = auto()
    X = auto()
    END = auto()


class Walk(Process[Road]):
    status: Road = Road.A


def walk(walk: Walk) -> Literal[Road.A, Road.B, Road.C, Road.X, Road.END]: ...


durations = st.floats(0.001, 1e6)


@st.composite
def retries(draw: st.DrawFn) -> Retry:
    longest = draw(st.floats(0, 1e5))
    return Retry(draw(st.integers(1, 6)), draw(st.floats(0, longest)), longest)


@st.composite
def polls(draw: st.DrawFn) -> Every:
    seconds = draw(durations)
    return Every(seconds, draw(st.floats(seconds, 2e6)))


@st.composite
def flows(draw: st.DrawFn) -> Flow[Road]:
    """The edges are those of a full mesh, the policies are anything."""

    def line(*own: Road) -> Any:
        others = st.sampled_from([road for road in Road if road not in own])
        within = draw(st.none() | durations)
        return stage(
            walk,
            retry=draw(retries()),
            every=draw(polls()),
            within=within,
            otherwise=None if within is None else draw(others),
            on_failure=draw(st.none() | others),
        )

    grouped = draw(st.booleans())
    table: dict[Any, Any] = {(Road.A, Road.B): line(Road.A, Road.B)} if grouped else {r: line(r) for r in (Road.A, Road.B)}
    table |= {Road.C: line(Road.C), Road.X: line(Road.X), Road.END: END}
    return Flow(Walk, table, on_cancel=draw(st.none() | st.sampled_from(Road)))


outcomes = st.one_of(
    st.builds(Returned, st.sampled_from([road.value for road in Road]), st.just("{}"), st.none(), st.floats(0, 1e5)),
    st.builds(Failed, st.just("it broke"), st.floats(0, 1e5), st.none(), st.booleans()),
    st.builds(Failed, st.just("busy"), st.floats(0, 1e5), st.timedeltas(NOW, DELAY_MAX)),
    st.builds(Unreadable, st.just("no JSON")),
    st.builds(Undone, st.just("deadlock"), st.floats(0, 1e5)),
)
# Mostly the worker's side; a person comes now and then.
events = st.one_of(outcomes, outcomes, outcomes, st.sampled_from(["crash", "crash", "cut off", "not begun", *ACTIONS]))


class Row:
    """One row and its rules: each change is checked before it is applied."""

    def __init__(self, flow: Flow[Road]) -> None:
        self.flow = flow
        self.record = a_record(
            cast(Any, Road.A),
            condition=C.READY,
            attempt=0,
            transition=0,
            moves=0,
            version=0,
            epoch=0,
            owner=None,
            lease_until=None,
        )
        self.begun = 0  # handlers begun in this visit since the last reset
        self.over = False

    def claim(self) -> None:
        """A worker takes it as soon as it is due."""
        record = self.record
        assert record.due_at is not None
        record.as_of = max(record.as_of, record.due_at)
        record.epoch, record.attempt, record.owner = record.epoch + 1, record.attempt + 1, "w"
        record.condition = C.RUNNING

    def apply(self, change: Change, *, by_person: bool = False, took: float = 0.0) -> None:
        record = self.record
        self.check(change, by_person)
        record.as_of += timedelta(seconds=took)
        if change.enters:
            record.entered_at = record.as_of
        record.due_at = None if change.due_after is None else record.as_of + change.due_after
        for field in ("status", "condition", "attempt", "excused", "polls", "transition", "moves", "cancelling", "error"):
            setattr(record, field, getattr(change, field))
        record.version += 1
        if not change.goes_on:
            record.owner = None

    def check(self, change: Change, by_person: bool) -> None:
        record, flow = self.record, self.flow
        moved = change.transition != record.transition
        # Never stuck: the CHECK constraint of the schema, and the same the other way round.
        assert (change.due_after is None) == (change.condition in RESTING)
        assert change.condition in {C.READY, C.WAITING, C.RETRYING, C.FAILED, C.PAUSED, C.CANCELLED, C.FINISHED}
        assert change.due_after is None or change.due_after >= NOW
        if change.due_after is not None or change.condition is C.FINISHED:
            assert flow.is_end(change.status) == (change.condition is C.FINISHED)
        # Transitions are numbered without a gap.
        assert change.transition == record.transition + moved
        if change.status != record.status:
            assert moved
        if not by_person:
            assert moved == (change.status != record.status)
            assert change.goes_on == (moved and not flow.is_end(change.status) and change.condition is not C.FAILED)
            assert change.cancelling == record.cancelling
        else:
            assert not change.goes_on
        assert 0 <= change.moves <= MOVES_MAX
        # A failure says why.
        assert change.condition not in (C.FAILED, C.RETRYING) or change.error
        assert change.kind


def within_bounds(row: Row, outcome: Any, change: Change) -> None:
    """Pauses stay between nothing and the longest of their policy, a fifth added, and never reach beyond the deadline."""
    record, line = row.record, row.flow.stages[row.record.status]
    assert line is not None
    if change.condition is C.WAITING:
        assert line.every is not None
        longest = timedelta(seconds=line.every.longest * (1 + JITTER))
    elif change.condition is C.RETRYING:
        longest = law.ROLLED_BACK if isinstance(outcome, Undone) else timedelta(seconds=line.retry.longest * (1 + JITTER))
        if not isinstance(outcome, Undone) and outcome.delay is not None:
            longest = outcome.delay
    else:
        assert change.due_after in (None, NOW)
        return
    assert change.due_after is not None
    assert NOW <= change.due_after <= longest + timedelta(microseconds=1)
    if line.within is not None and change.due_after > NOW:
        end = record.as_of + timedelta(seconds=outcome.took) + change.due_after
        assert end <= record.entered_at + line.within + timedelta(microseconds=2)


@settings(max_examples=300, deadline=None)
@given(flows(), st.lists(events, max_size=40))
def test_whatever_happens_in_whatever_order_the_rules_of_the_row_hold(flow, happenings):
    row = Row(flow)
    for happening in happenings:
        record = row.record
        if record.condition in OVER:
            break
        if isinstance(happening, str):
            if happening not in ACTIONS:
                if record.due_at is not None:
                    begin(row, happening)
                continue
            act(row, happening)
            continue
        if record.due_at is None:
            continue
        if not begin(row, "outcome"):
            continue
        before = copy.copy(record)
        change = decide(flow, record, happening)
        assert record == before, "the law changes nothing by itself"
        assert change == decide(flow, copy.copy(record), happening), "the same input, the same answer"
        within_bounds(row, happening, change)
        reset = change.transition != record.transition or change.condition is C.WAITING
        row.apply(change, took=happening.took)
        row.begun = 0 if reset else row.begun - isinstance(happening, Undone)  # which spends no attempt
    event(f"ends {row.record.condition}")


def begin(row: Row, how: str) -> bool:
    """Claims the row if nobody has it, and begins an attempt unless the stage is overdue. False: there was none."""
    record = row.record
    if record.owner is None:
        row.claim()
    change = overdue(row.flow, record)
    if change is not None:
        assert change == overdue(row.flow, copy.copy(record))
        row.apply(change)
        row.begun = 0
        return False
    line = row.flow.stages[record.status]
    assert line is not None
    if how == "not begun":  # the worker is stopped before it begins, and gives the attempt back
        record.owner, record.due_at, record.attempt = None, record.as_of, max(record.attempt - 1, 0)
        record.condition = C.READY
        return False
    row.begun += 1
    assert row.begun <= line.retry.attempts, "attempts never exceed the policy, crashes included"
    assert record.attempt >= row.begun
    if how in ("crash", "cut off"):  # the row is as it was committed, and free when the lease runs out or is released
        record.owner, record.condition = None, C.READY
        record.as_of += timedelta(seconds=30 if how == "crash" else 0)
        return False
    record.condition = C.RUNNING
    return True


def act(row: Row, action: str) -> None:
    record = row.record
    before = copy.copy(record)
    try:
        change = law.cancel(row.flow, record) if action == "cancel" else ACTIONS[action](record)
    except Refused as refused:
        assert refused.hint
        assert record == before
        return
    row.apply(change, by_person=True)
    record.epoch += 1
    if action in ("retry", "cancel"):
        row.begun = 0


@settings(max_examples=200, deadline=None)
@given(flows(), st.sampled_from([r.value for r in Road if r is not Road.END]), outcomes, st.data())
def test_the_law_draws_no_number_and_reads_no_clock(flow, status, outcome, data):
    record = a_record(
        cast(Any, Road(status)),
        attempt=data.draw(st.integers(1, 9)),
        polls=data.draw(st.integers(0, 100)),
        moves=data.draw(st.integers(0, MOVES_MAX)),
        as_of=later(data.draw(st.floats(0, 1e7))),
    )
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((random, "random"), (time, "time"), (time, "monotonic"), (time, "time_ns")):
            patch.delattr(module, name)
        first = (decide(flow, record, outcome), overdue(flow, record))
    assert first == (decide(flow, record, outcome), overdue(flow, record))


@settings(max_examples=200, deadline=None)
@given(st.builds(asdict, st.builds(a_record, st.sampled_from(Step))), st.sampled_from(list(ACTIONS)), st.sampled_from(Condition))
def test_an_action_leaves_the_record_that_was_seen_alone(fields, action, condition):
    record = Record(**{**fields, "condition": condition})
    before = copy.copy(record)
    try:
        ACTIONS[action](record)
    except Refused:
        pass
    assert record == before


@settings(max_examples=200)
@given(retries(), st.integers(1, 10_000), st.text(max_size=20))
def test_the_pause_of_a_retry_is_a_function_of_id_and_number_and_stays_in_its_bounds(retry, attempt, id):
    pause = retry.pause(attempt, id)
    assert pause == retry.pause(attempt, id)
    if attempt >= retry.attempts:
        assert pause is None
        return
    assert pause is not None
    low = min(retry.first * 2 ** (attempt - 1), retry.longest)
    assert low - 1e-6 <= pause.total_seconds() <= low * (1 + JITTER) + 1e-6


@settings(max_examples=200)
@given(polls(), st.integers(0, 10_000), st.text(max_size=20))
def test_the_pause_of_a_poll_is_a_function_of_id_and_number_and_stays_in_its_bounds(every, looks, id):
    pause = every.pause(looks, id)
    assert pause == every.pause(looks, id)
    assert every.seconds - 1e-6 <= pause.total_seconds() <= every.longest * (1 + JITTER) + 1e-6


def test_what_failed_together_comes_back_apart():
    for pause in (lambda id: Retry(first=100, longest=100).pause(1, id), lambda id: Every(100).pause(0, id)):
        pauses = {pause(f"p{number}") for number in range(1_000)}
        assert len(pauses) > 990
        seconds = sorted(one.total_seconds() for one in pauses if one is not None)
        assert seconds[0] < 101 and seconds[-1] > 119, "spread over the whole fifth"


def test_one_process_does_not_wait_as_long_each_time():
    assert len({Every(100).pause(looks, "p1") for looks in range(50)}) == 50
    assert len({Retry(99, first=100, longest=100).pause(attempt, "p1") for attempt in range(1, 51)}) == 50


def test_a_lone_surrogate_in_an_id_has_a_pause_as_well():
    assert Every(1).pause(0, "\ud800") >= timedelta(seconds=1)
    assert decide(FLOW, replace(a_record(), id="\ud800"), Failed("no", 0.0)).condition is C.RETRYING
