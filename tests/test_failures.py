"""Failures by their kind: which belong together, and that the query of a group finds exactly these, on every store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from conftest import Job, Step, one_stage, opened, work_off
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onward import Onward, Retry, RetryAfter
from onward.process import Condition, Record
from onward.query import QUERY_CHARS_MAX, STARS_MAX, TERMS_MAX, Term, parse
from onward.telling import failures
from onward.telling.failures import OTHERS, frames_of, grouped, kind_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRACEBACK = """RemoteError: the worker said no
Traceback (most recent call last):
  File "/srv/shop/jobs.py", line {line}, in pack_order
    carrier.book(order)
  File "/usr/lib/python3.12/site-packages/carrier/client.py", line 1023, in book
    raise NoRoom(number)
carrier.errors.NoRoom: no room for parcel {number}
 (pool.py:774 in get)"""


async def fail(job: Job) -> Literal[Step.DONE]:
    """Its error is its note, to the letter."""
    raise RetryAfter(0, job.note)


def an_app(url: str) -> Onward:
    return Onward(url, [one_stage(fail, retry=Retry(attempts=1))])


def record(error: str | None, id: str = "a", **changes: Any) -> Record:
    made = Record(
        id=id, flow="job", status="make", condition=Condition.FAILED, data="", version=1, epoch=1, attempt=1, polls=0,
        transition=0, moves=0, cancelling=False, entered_at=NOW, created_at=NOW, updated_at=NOW, due_at=None, owner=None,
        lease_until=None, error=error, as_of=NOW,
    )  # fmt: skip
    return replace(made, **changes)


def failed(errors: Sequence[str | None]) -> list[Record]:
    return [record(error, f"id-{number}") for number, error in enumerate(errors)]


# -- which belong together ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "label"),
    [
        ("NotFoundError: no file file-8Xk2 (report.py:88 in create)", "NotFoundError: no file … (report.py:… in create)"),
        ("TimeoutError: check took longer than 2.5 s", "TimeoutError: check took longer than … s"),
        ("ValueError: at 2026-11-20T10:00:00.123Z, in 10.0.0.1:8080", "ValueError: at …, in …"),
        ("KeyError: 'topic' (v2_steps.py:9 in make_v2)", "KeyError: 'topic' (v2_steps.py:… in make_v2)"),
        ("first\nsecond 5", "first"),
        ("a\tb   c", "a b c"),
        ("Größe 5 Ä", "Größe … Ä"),
        ("4711", "…"),
        ("", ""),
    ],
)
def test_an_error_is_called_by_its_first_line_without_what_changes(error: str, label: str) -> None:
    assert kind_of(error).label == label


def test_a_long_error_is_not_called_by_half_a_word_that_may_change() -> None:
    first, second = (f"{'word ' * 38}the file {id}" for id in ("abcdefgh4711", "xyzabcde0815"))
    assert len(first) > failures.LINE_CHARS_MAX and kind_of(first) == kind_of(second)


def test_a_traceback_is_called_by_the_type_and_the_last_place_in_the_code_of_the_user() -> None:
    first, second = (TRACEBACK.format(line=line, number=number) for line, number in ((31, 7), (32, 8)))
    assert kind_of(first).label == "carrier.errors.NoRoom at jobs.py in pack_order"
    assert kind_of(first) == kind_of(second)
    assert kind_of(first) != kind_of(first.replace("in pack_order", "in return_order"))
    assert [(frame.name, frame.line, frame.is_library) for frame in frames_of(first)] == [
        ("jobs.py", 31, False),
        ("client.py", 1023, True),
    ]
    [group] = grouped(failed([first, second, TRACEBACK.format(line=1, number=1)]))
    assert (group.number, group.is_exact) == (3, True)


def test_a_traceback_of_libraries_alone_is_called_by_its_last_place() -> None:
    error = TRACEBACK.format(line=3, number=1).replace("/srv/shop", "/usr/lib/python3.12")
    assert kind_of(error).label == "carrier.errors.NoRoom at client.py in book"


def test_groups_are_of_one_flow_and_one_status_and_the_largest_comes_first() -> None:
    records = failed(["no file 1", "no file 2", "no room"])
    records += [record("no file 3", "x", flow="other"), record("no file 4", "y", status="done")]
    groups = grouped(records)
    assert [(group.flow, group.status, group.error, group.number) for group in groups] == [
        ("job", "make", "no file …", 2),
        ("job", "done", "no file …", 1),
        ("job", "make", "no room", 1),
        ("other", "make", "no file …", 1),
    ]
    assert groups[0].query == 'flow:job status:make is:failed error:"no file "'


def test_a_group_tells_since_when_and_shows_the_newest() -> None:
    hours = [timedelta(hours=hour) for hour in (3, 1, 2)]
    [group] = grouped(record("no file", f"id-{hour}", updated_at=NOW - hour) for hour in hours)
    assert (group.first, group.last, group.sample.id) == (NOW - hours[0], NOW - hours[1], "id-1:00:00")


def test_what_has_no_error_and_did_not_fail_is_in_no_group() -> None:
    assert grouped([record(None, condition=Condition.READY), record(None, condition=Condition.PAUSED)]) == []
    [group] = grouped([record("x is missing", condition=Condition.RETRYING), record("x is missing")])
    assert (group.number, group.query) == (2, 'flow:job status:make is:active error:"x is missing"')


def test_a_kind_that_stands_in_the_text_of_another_leaves_that_one_out() -> None:
    groups = {group.error: group for group in grouped(failed(["no room", "no room", "no room for parcel 5"]))}
    assert groups["no room"].number == 2
    assert groups["no room"].query.endswith('error:"no room" -error:"no room for parcel "')
    assert groups["no room for parcel …"].query.endswith('is:failed error:"no room for parcel "')


def test_an_error_in_whose_changing_part_another_kind_stands_belongs_to_that_kind() -> None:
    [group] = grouped(failed(["longword", "abcd file1longword2 x"]))  # or the query of the first would find the second too
    assert (group.error, group.number, group.is_exact) == ("longword", 2, True)


def test_an_error_with_more_changing_parts_than_a_query_may_have_is_asked_for_by_the_first_of_them() -> None:
    error = " ".join(
        f"{number} {word}"
        for number, word in enumerate(("of", "the", "many", "words", "that", "stand", "in", "one", "error", "here"))
    )
    [group] = grouped(failed([error, error.replace("1", "17")]))
    assert (group.number, group.is_exact, parse(group.query)[-1].values[0].count("*")) == (2, True, STARS_MAX)


def test_where_too_many_kinds_would_have_to_be_left_out_the_rarest_are_taken_in() -> None:
    names = ["ada", "grace", "ines", "mary", "hedy", "joan"]
    errors = ["no user"] * 20 + [f"no user called {name}" for name in names for _ in range(1 + (name != "mary"))]
    groups = {group.error: group.number for group in grouped(failed(errors))}
    assert groups == {"no user": 21, **{f"no user called {name}": 2 for name in names if name != "mary"}}
    assert len(groups) == 1 + failures.EXCLUDED_MAX


def test_what_says_too_little_to_be_asked_for_is_asked_for_by_its_ids_as_long_as_it_is_little() -> None:
    few = failed(["4711", "0815", "x", None, "no room"])
    groups = grouped(few)
    assert [(group.error, group.number, group.is_exact) for group in groups] == [(OTHERS, 4, True), ("no room", 1, True)]
    assert groups[0].query == "flow:job status:make is:failed id:id-0,id-1,id-2,id-3"
    many = grouped([*few, *(record("7", f"more-{number}") for number in range(failures.IDS_MAX))])
    assert (many[0].number, many[0].is_exact, many[0].query) == (14, False, "flow:job status:make is:failed")


def test_more_kinds_than_anybody_reads_are_told_together() -> None:
    letters = [f"{one}{two}{one}{two}{one} happened" for one in "abcdefgh" for two in "qrstuvwxyz"]
    groups = grouped(failed([*letters, letters[-1]]))
    assert len(groups) == failures.KINDS_MAX + 1
    assert groups[0].error == OTHERS and sum(group.number for group in groups) == len(letters) + 1
    assert groups[1].number == 2  # the most frequent kinds are kept


def test_groups_of_what_somebody_asked_for_are_found_within_that_only() -> None:
    asked = parse("flow:job is:failed id:id-* -status:done age:>1m")
    [group] = grouped(failed(["no room"]), asked)
    assert group.query == 'flow:job status:make is:failed id:id-* -status:done age:>1m error:"no room"'
    many = tuple(Term("data", ("x",), path=(f"field{number}",)) for number in range(TERMS_MAX))
    assert grouped(failed(["no room"]), many)[0].query == ""  # longer than a query may be


@pytest.mark.parametrize("name", ["", "a\x1bb", "x" * QUERY_CHARS_MAX])
def test_names_that_nobody_can_ask_for_make_a_group_without_a_query(name: str) -> None:
    [group] = grouped([record("no room", status=name)])
    assert (group.query, group.is_exact) == ("", False)


def test_ten_thousand_different_errors_are_grouped_while_a_page_waits() -> None:
    chance = random.Random(5)
    words = ["".join(chance.choices("abcdefghij", k=4)) for _ in range(400)]
    records = failed([" ".join(chance.choices(words, k=20)) for _ in range(10_000)])
    assert sum(group.number for group in grouped(records)) == 10_000


# -- the query of a group finds the group ----------------------------------------------------------------------------

ATOMS = [
    'a "quoted" word', "50 % of x_y", "a\\b", "C:\\temp\\n", "*", "**stars**", "two\nlines", "tab\there", "'single'", "-error:x",
    "is:failed", "Größe", "ÄÖÜ", "äöü", "ΣΊΣΥΦΟΣ", "İstanbul", "straße", "日本語", "👍", "ID", "id", "no file", "NO FILE",
    "no  file", "file-123", "e5", "_", "%", "[a-z]", "(x.py:3 in go)", "(y.py:4 in go)", "x", "…", "a,b", "\\*", '\\"', '"', "\\",
    "NULL", "' OR 1=1 --", "$1", ":prefix", "{now}",
]  # fmt: skip


async def check_each_query_finds_its_group(app: Onward, errors: Sequence[str]) -> None:
    await app.start_many(Job(id=f"j{number:04d}", note=error) for number, error in enumerate(errors))
    await work_off(app)
    stored = [*await app.find("is:failed", limit=1_000, light=True)]
    assert {one.id: one.error for one in stored} == {f"j{number:04d}": error for number, error in enumerate(errors)}
    found: list[str] = []
    for group in grouped(stored):
        ids = [one.id for one in await app.find(group.query, limit=1_000, light=True)]
        if group.is_exact:
            assert group.sample.id in ids
            assert len(ids) == group.number, (group.error, group.query, [errors[int(id[1:])] for id in ids])
            found += ids
        else:
            assert len(ids) == len(errors)
    assert len(found) == len(set(found))  # no two groups share one


async def test_the_query_of_a_group_finds_exactly_that_group_whatever_the_errors_say(url: str) -> None:
    chance = random.Random(7)
    errors = [*ATOMS, *(TRACEBACK.format(line=line, number=line) for line in range(3))]
    errors += [" ".join(chance.choices(ATOMS, k=chance.randrange(1, 5))).strip() for _ in range(300)]
    errors += [f"{error} {number}" for number, error in enumerate(errors[:60])]
    async with opened(*an_app(url).flows.values(), url=url) as app:
        await check_each_query_finds_its_group(app, [error for error in errors if error.strip()])


@given(st.lists(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=4).map(" ".join), min_size=1, max_size=12))
@example(["abcd", "4711", "abcd4711"])
@example(["longword", "abcd file1longword2 x"])
@example(["x y x y z", "x 1 y 1 z"])
@settings(max_examples=60, deadline=None)
async def test_whatever_failures_there_are_each_query_finds_its_group(errors: list[str]) -> None:
    async with opened(*an_app("sqlite:///:memory:").flows.values()) as app:
        await check_each_query_finds_its_group(app, [error for error in errors if error.strip()])


@given(st.text(min_size=1), st.text(min_size=1))
@settings(deadline=None)
def test_every_error_matches_its_own_kind_and_every_query_can_be_read(first: str, second: str) -> None:
    for group in grouped(failed([first, second])):
        assert parse(group.query) if group.query else not group.is_exact
    for text in (first, second):
        assert kind_of(text).matches(text.encode("utf-8", "replace").lower())
