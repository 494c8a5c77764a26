"""One sentence why a process is not moving: for every condition, for every row, whatever stands in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward import END, Condition, Every, Flow, Process, Record, Retry, stage
from onward.codec import printable
from onward.explain import LATE, explain, length, times

T0 = datetime(2025, 1, 1, tzinfo=UTC)


class Step(StrEnum):
    MAKE = auto()
    LOOK = auto()
    CLEAN = auto()
    DONE = auto()


class Job(Process[Step]):
    status: Step = Step.MAKE


def make(job: Job) -> Literal[Step.LOOK]: ...
def look(job: Job) -> Literal[Step.LOOK, Step.CLEAN]: ...
def clean(job: Job) -> Literal[Step.DONE]: ...


FLOW = Flow(
    Job,
    {
        Step.MAKE: stage(make, retry=Retry(attempts=3)),
        Step.LOOK: stage(look, every=Every(2), within=timedelta(hours=24), otherwise=Step.CLEAN),
        Step.CLEAN: clean,
        Step.DONE: END,
    },
)


def a_record(condition: Condition, **given: Any) -> Record:
    fields: dict[str, Any] = {
        "id": "p1",
        "flow": "job",
        "status": "make",
        "data": "{}",
        "version": 7,
        "epoch": 3,
        "attempt": 2,
        "polls": 3,
        "transition": 4,
        "moves": 2,
        "cancelling": False,
        "entered_at": T0 - timedelta(hours=4),
        "created_at": T0 - timedelta(days=1),
        "updated_at": T0 - timedelta(minutes=2),
        "due_at": T0,
        "owner": None,
        "lease_until": None,
        "error": None,
        "as_of": T0,
    }
    return Record(condition=condition, **{**fields, **given})


C = Condition


@pytest.mark.parametrize(
    "record, sentence",
    [
        (a_record(C.FINISHED, status="done", due_at=None), "job p1 is finished at done: it reached its end 2 min ago."),
        (
            a_record(C.CANCELLED, due_at=None),
            "job p1 is cancelled at make: a person ended it 2 min ago; no handler will run again.",
        ),
        (
            a_record(C.CANCELLED, cancelling=True, due_at=None),
            "job p1 is cancelled at make: it was cancelled, cleaned up and ended 2 min ago; no handler will run again.",
        ),
        (
            a_record(C.WAITING, cancelling=True, polls=0, due_at=T0 + timedelta(seconds=1)),
            "job p1 is waiting at make: make begins in 1 s.",
        ),
        (
            a_record(C.FAILED, error="ValueError: no", due_at=None),
            "job p1 is failed at make: ValueError: no; it waits for a person, "
            "and once the cause is mended, `onward retry p1` goes on from here.",
        ),
        (
            a_record(C.FAILED, due_at=None),
            "job p1 is failed at make: no reason was recorded; it waits for a person, "
            "and once the cause is mended, `onward retry p1` goes on from here.",
        ),
        (
            a_record(C.PAUSED, due_at=None),
            "job p1 is paused at make: a person paused it 2 min ago; `onward resume p1` lets it go on.",
        ),
        (
            a_record(C.ORPHANED, status="gone"),
            "job p1 is orphaned at gone: the flow job has no status 'gone', "
            "so it is left alone until a worker comes that knows it.",
        ),
        (
            a_record(C.RUNNING, owner="w1", lease_until=T0 + timedelta(seconds=20)),
            "job p1 is running at make: w1 runs attempt 2 of make; should it die, another worker may go on in 20 s.",
        ),
        (
            a_record(C.WAITING, status="look", due_at=T0 + timedelta(seconds=2.5)),
            "job p1 is waiting at look: look said 'not yet' 3 times and looks again in 2.5 s, "
            "and at the latest 20 h from now it goes to clean.",
        ),
        (
            a_record(C.WAITING, polls=1, due_at=T0 + timedelta(seconds=2)),
            "job p1 is waiting at make: make said 'not yet' once and looks again in 2 s.",
        ),
        (
            a_record(C.RETRYING, error="ValueError: no", due_at=T0 + timedelta(seconds=75)),
            "job p1 is retrying at make: attempt 2 of 3 failed with ValueError: no; the next one is in 1 min 15 s.",
        ),
        (
            a_record(C.RETRYING, due_at=T0),
            "job p1 is retrying at make: attempt 2 of 3 failed, no reason was recorded; the next one is now.",
        ),
        (a_record(C.READY), "job p1 is ready at make: it is due now, and the next free worker takes it."),
        (
            a_record(C.READY, due_at=T0 - timedelta(hours=3)),
            "job p1 is ready at make: it has been due for 3 h and no worker took it; start one with `onward run`.",
        ),
    ],
    ids=lambda value: str(value.condition) if isinstance(value, Record) else "",
)
def test_each_condition_has_its_sentence(record, sentence):
    assert explain(record, FLOW) == sentence


def test_a_flow_that_this_code_does_not_have_is_said():
    assert explain(a_record(C.ORPHANED), None) == (
        "job p1 is orphaned at make: this code has no flow 'job', so it is left alone until a worker comes that knows it."
    )


def test_it_is_late_only_after_a_while():
    assert "due now" in explain(a_record(C.READY, due_at=T0 - LATE), FLOW)
    assert "no worker took it" in explain(a_record(C.READY, due_at=T0 - LATE - timedelta(microseconds=1)), FLOW)


def test_an_error_of_many_lines_is_still_one_sentence():
    error = "ValidationError: 2 faults\n  a: missing\r\n\n  b: missing.\n"
    for condition in (C.FAILED, C.RETRYING):
        said = explain(a_record(condition, error=error), FLOW)
        assert "ValidationError: 2 faults a: missing" in said and "b: missing; " in said
        assert_one_sentence(said)


def assert_one_sentence(said: str) -> None:
    assert said.endswith(".") and not said.endswith("..")
    assert len(said.splitlines()) == 1
    assert printable(said, len(said)) == said and "\t" not in said
    said.encode("utf-8")


@pytest.mark.parametrize("flow", [FLOW, None], ids=["known", "unknown"])
@pytest.mark.parametrize("condition", Condition)
def test_without_what_people_wrote_it_is_one_sentence(condition, flow):
    """A period stands only at its end; a semicolon is as far as it goes."""
    said = explain(a_record(condition, error="no", owner="w1"), flow)
    assert_one_sentence(said)
    assert ". " not in said
    assert said.startswith(f"job p1 is {condition} at make: ")
    assert "None" not in said


instants = st.datetimes(timezones=st.just(UTC))
texts = st.lists(st.characters() | st.sampled_from("\0\n\r\x1b\u2028\ud800."), max_size=30).map("".join)
records: Callable[[], Any] = lambda: st.builds(  # noqa: E731
    Record,
    id=texts,
    flow=texts,
    status=texts | st.sampled_from([step.value for step in Step]),
    condition=st.sampled_from(Condition),
    data=texts,
    version=st.integers(0),
    epoch=st.integers(0),
    attempt=st.integers(0),
    polls=st.integers(0),
    transition=st.integers(0),
    moves=st.integers(0),
    cancelling=st.booleans(),
    entered_at=instants,
    created_at=instants,
    updated_at=instants,
    due_at=st.none() | instants,
    owner=st.none() | texts,
    lease_until=st.none() | instants,
    error=st.none() | texts,
    as_of=instants,
)


@settings(max_examples=300)
@given(records(), st.sampled_from([FLOW, None]))
def test_whatever_stands_in_the_row_it_is_one_line_that_ends_with_a_period(record, flow):
    said = explain(record, flow)
    assert_one_sentence(said)


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0, "0 s"),
        (-5, "0 s"),
        (0.04, "0 s"),
        (0.06, "0.1 s"),
        (2.5, "2.5 s"),
        (9.96, "10 s"),
        (10, "10 s"),
        (59.99, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3_599, "59 min 59 s"),
        (3_600, "1 h"),
        (15_000, "4 h 10 min"),
        (86_400, "1 d"),
        (12 * 86_400 + 3 * 3_600 + 59, "12 d 3 h"),
        (400 * 86_400, "400 d"),
    ],
)
def test_a_duration_is_said_in_two_units_at_most(seconds, words):
    assert length(timedelta(seconds=seconds)) == words


@settings(max_examples=200)
@given(st.timedeltas())
def test_every_duration_can_be_said(duration):
    words = length(duration).split()
    assert len(words) in (2, 4) and float(words[0]) >= 0


def test_numbers_of_times_are_said_in_words():
    assert [times(number) for number in (0, 1, 2, 12_345)] == ["0 times", "once", "2 times", "12,345 times"]
