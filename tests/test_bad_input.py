"""Broken data, wherever they come from: a clear word, nothing lost, and the neighbours go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import IN_MEMORY, Job, Leg, Step, Trip, kinds, one_stage, opened, work_off, working
from pydantic import Field

from onward import END, Condition, Conflict, Flow, InvalidData, NotFound, Onward, Process, Record, Retry, StoreError
from onward.codec import PAYLOAD_MAX
from onward.errors import QueryError
from onward.store.sqlite.store import SqliteStore


class Neighbour(Process[Leg]):
    status: Leg = Leg.BOOK


async def to_travel(neighbour: Neighbour) -> Literal[Leg.TRAVEL]:
    return Leg.TRAVEL


async def to_clean(neighbour: Neighbour) -> Literal[Leg.CLEAN]:
    return Leg.CLEAN


async def to_over(neighbour: Neighbour) -> Literal[Leg.OVER]:
    return Leg.OVER


NEIGHBOURS = Flow(Neighbour, {Leg.BOOK: to_travel, Leg.TRAVEL: to_clean, Leg.CLEAN: to_over, Leg.OVER: END})


async def make(job: Job) -> Literal[Step.DONE]:
    return Step.DONE


FLOW = one_stage(make)


async def neighbours_go_on(app: Onward) -> None:
    """Some beside the broken one, from before and from after it, reach their end with it there."""
    started = await app.start_many(Neighbour() for _ in range(5))
    await work_off(app)
    assert {(await app.get(record.id)).condition for record in started} == {Condition.FINISHED}


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def endless() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "nan": (lambda: float("nan"), "NaN, which JSON does not have"),
    "infinity": (lambda: {"a": [float("inf")]}, "Infinity, which JSON does not have"),
    "lone surrogate": (lambda: "a\ud800b", "surrogates not allowed"),
    "surrogate in a key": (lambda: {"\ud800": 1}, "surrogates not allowed"),
    "5,000 digits": (lambda: 10**5_000, "number out of range"),
    "5,000 digits beside the word NaN": (lambda: [10**5_000, "NaN"], "number out of range"),
    "nested without end": (endless, "cannot be written as JSON"),
    "nested very deep": (lambda: deep(100_000), "cannot be written as JSON"),
    "nested too deep to be read back": (lambda: deep(210), "recursion limit exceeded"),
    "50 MB": (lambda: "x" * 50_000_000, f" characters of JSON, the limit PAYLOAD_MAX is {PAYLOAD_MAX:,}"),
    "bytes that are no text": (lambda: b"\xff\xfe", "cannot be written as JSON"),
    "NUL": (lambda: ["a\x00b"], "holds a NUL character in extra, which databases do not keep"),
    "NUL in a name": (lambda: {"a\x00": 1}, "holds a NUL character in extra"),
    "an object": (object, "cannot be written as JSON"),
    "a function": (lambda: print, "cannot be written as JSON"),
}

KEPT: dict[str, Any] = {
    "control characters": "\x1b[31m\r\x7f\x80",
    "text that only looks like it": ["NaN", "Infinity", "-Infinity", '{"a": NaN}', "\\ud800", "\\u0000", "\\\\u0000"],
    "4,000 digits": 10**4_000,
    "emoji and combining": "👩‍👩‍👧 ȩ́ \u202e \ufeff \uffff",
    "quotes": "'; DROP TABLE onward_process; --\"\\",
    "numbers": [0, -0.0, 1e22, 5e-324, 2**63, -(2**63) - 1, 0.1],
    "nested": deep(150),
    "empty": {"": [[], {}, None, ""]},
    "the largest": "x" * (PAYLOAD_MAX - 100),
}


# -- at start -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
async def test_start_refuses_what_could_not_be_read_back_and_writes_nothing(url: str, name: str) -> None:
    value, said = BROKEN[name]
    async with opened(FLOW, NEIGHBOURS, url=url) as app:
        with pytest.raises(InvalidData) as caught:
            await app.start(Job(id="a", extra=value()))
        assert said in str(caught.value)
        assert len(str(caught.value)) < 2_500
        assert await app.find() == []
        await neighbours_go_on(app)


@pytest.mark.parametrize("name", KEPT)
async def test_what_is_odd_but_sound_is_kept_as_it_is(url: str, name: str) -> None:
    value = KEPT[name]

    async def copy(job: Job) -> Literal[Step.DONE]:
        assert job.extra == value
        job.note = "seen"
        return Step.DONE

    async with opened(one_stage(copy, retry=Retry(attempts=1)), NEIGHBOURS, url=url) as app:
        await app.start(Job(id="a", extra=value))
        assert (await app.start(Job(id="a", extra=value))).version == 0
        await neighbours_go_on(app)
        done = await app.get("a")
        assert (done.error, done.process.extra, done.process.note) == (None, value, "seen")


async def test_a_status_that_was_set_to_nonsense_is_refused() -> None:
    async with opened(FLOW) as app:
        job = Job(id="a")
        job.status = "nonsense"  # type: ignore[assignment]  # models do not check assignments
        with pytest.raises(InvalidData, match="status 'nonsense'"):
            await app.start(job)
        assert await app.find() == []


async def test_invalid_fields_are_named_all_of_them_up_to_five() -> None:
    class Form(Process[Step]):
        status: Step = Step.MAKE
        one: int = 0
        two: int = 0
        three: list[int] = []
        four: dict[str, int] = {}
        five: float = 0
        six: bool = False

    async def fill(form: Form) -> Literal[Step.DONE]:
        return Step.DONE

    async with opened(Flow(Form, {Step.MAKE: fill, Step.DONE: END})) as app:
        bad: dict[str, Any] = {"one": "x", "two": None, "three": [1, "y"], "four": {"k": "z"}, "five": "w", "six": "v"}
        with pytest.raises(InvalidData) as caught:
            await app.start(Form.model_construct(id="a", status=Step.MAKE, **bad))
        for word in ("one: ", "two: ", "three.1: ", "four.k: ", "five: ", "(and 1 more)", "does not fit Form"):
            assert word in str(caught.value)


# -- as a handler's result ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
async def test_a_handler_that_leaves_broken_data_fails_visibly_and_the_data_before_stay(url: str, name: str) -> None:
    value, said = BROKEN[name]

    async def spoil(job: Job) -> Literal[Step.DONE]:
        job.note, job.extra = "after", value()
        return Step.DONE

    async with opened(one_stage(spoil), NEIGHBOURS, url=url) as app:
        await app.start(Job(id="a", note="before", extra=[1]))
        await neighbours_go_on(app)
        failed = await app.get("a")
        assert (failed.condition, failed.attempt, failed.process) == (Condition.FAILED, 1, Job(id="a", note="before", extra=[1]))
        assert said in (failed.error or "")
        assert len(failed.error or "") < 2_500
        assert (await app.history("a"))[-1].reason == failed.error


# -- as a row in the file -----------------------------------------------------------------------------------------


def put(path: Path, id: str, *, flow: str = "job", status: str = "make", data: str | bytes = "{}") -> None:
    """A row as another program, another version or a broken disk may have left it."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves,"
            " cancelling, entered_at, created_at, updated_at, due_at, kind, actor)"
            " VALUES (?, ?, ?, 'ready', cast(? AS TEXT), 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 'started', 'test')",
            (id, flow, status, data),
        )


def raw(path: Path, id: str) -> bytes:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        data: bytes = connection.execute("SELECT cast(data AS BLOB) FROM onward_process WHERE id = ?", (id,)).fetchone()[0]
        return data


@pytest.mark.parametrize(
    ("flow", "status"),
    [
        ("job", "unheard of"),
        ("unheard of", "make"),
        ("job", ""),
        ("", ""),
        ("job", "MAKE"),
        ("job", "x" * 100_000),
        ("job\x00", "make"),
        ("neighbour", "make"),
        ("__class__", "__init__"),
    ],
)
async def test_a_row_of_unknown_flow_or_status_is_left_alone_and_shown_as_orphaned(
    file_url: str, path: Path, flow: str, status: str
) -> None:
    async with opened(FLOW, NEIGHBOURS, url=file_url) as app:
        put(path, "a", flow=flow, status=status, data='{"note":"kept"}')
        await neighbours_go_on(app)
        record = await app.check("a")
        assert (record.condition, record.process) == (Condition.ORPHANED, None)
        assert (record.version, record.epoch, record.owner) == (0, 0, None)
        assert raw(path, "a") == b'{"note":"kept"}'
        assert [found.id for found in await app.find(condition="orphaned")] == ["a"]
        assert (await app.explain("a")).isprintable()
        assert (await app.stop("a")).condition is Condition.CANCELLED


ROWS: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("{broken", "its data does not fit Job: JSON: Invalid JSON"),
    "cut off": ('{"note":"hello', "Invalid JSON: EOF while parsing"),
    "empty": ("", "its data is no JSON object"),
    "a list": ("[1]", "its data is no JSON object"),
    "a wrong type": ('{"note":{"a":1}}', "note: Input should be a valid string"),
    "a wrong item": ('{"numbers":[1,"two"]}', "numbers.1: Input should be a valid integer"),
    "NUL": ('{"note":"a\x00b"}', "control character"),
    "only a NUL": ("\x00", "its data is no JSON object"),
    "a lone surrogate": ('{"note":"\\ud800"}', "Invalid JSON"),
    "bytes that are no text": (b'{"note":"\xff\xfe"}', "unable to parse raw data as a unicode string"),
    "bytes that are no text at all": (b"\xff\xfe\x80", "its data is no JSON object"),
    "5,000 digits": ('{"extra":' + "9" * 5_000 + "}", "number out of range"),
    "deep": ('{"extra":' + "[" * 10_000 + "]" * 10_000 + "}", "recursion limit exceeded"),
    "another id in it": ('{"id":"other","note":"x"}', "another id or status than its row"),
    "another status in it": ('{"note":"x","status":"done"}', "another id or status than its row"),
}


@pytest.mark.parametrize("name", ROWS)
async def test_a_row_that_cannot_be_read_is_parked_with_its_bytes_intact_and_says_why(
    file_url: str, path: Path, name: str
) -> None:
    data, said = ROWS[name]
    calls: list[str] = []

    async def touch(job: Job) -> Literal[Step.DONE]:
        calls.append(job.id)
        return Step.DONE

    async with opened(one_stage(touch), NEIGHBOURS, url=file_url) as app:
        put(path, "a", data=data)
        before = raw(path, "a")
        ready = await app.get("a")
        assert (ready.process, ready.condition) == (None, Condition.READY)
        assert said in (ready.error or "")
        await app.start(Job(id="b"))

        await neighbours_go_on(app)

        failed = await app.get("a")
        assert (failed.condition, failed.process, failed.owner, failed.due_at) == (Condition.FAILED, None, None, None)
        assert said in (failed.error or "")
        assert len(failed.error or "") < 2_500
        assert raw(path, "a") == before
        assert calls == ["b"]
        assert kinds(await app.history("a")) == ["started", "failed"]
        assert {record.id for record in await app.find(condition="failed")} == {"a"}
        assert said[:20] in await app.explain("a")
        with pytest.raises(Conflict):
            await app.start(Job(id="a"))
        for act in (app.retry, app.stop):  # and a person can do with it what they want
            await act("a")
        assert raw(path, "a") == before


async def test_data_at_a_version_that_is_no_json_says_so(file_url: str, path: Path) -> None:
    async with opened(FLOW, url=file_url) as app:
        put(path, "a", data="{broken")
        put(path, "b", data='{"extra":' + "9" * 5_000 + "}")
        for id in ("a", "b"):
            with pytest.raises(InvalidData, match=f"job {id}: its data at version 0 cannot be read"):
                await app.data_at(id, 0)


async def test_after_the_model_is_mended_retry_goes_on_with_the_old_bytes(file_url: str, path: Path) -> None:
    async with opened(FLOW, url=file_url) as app:
        await app.start(Job(id="a", note="twelve", numbers=[1, 2]))

    class Narrow(Process[Step]):
        status: Step = Step.MAKE
        note: int = 0  # a deploy with a mistake in it
        numbers: list[int] = Field(default=[], max_length=1)

    async def narrow(job: Narrow) -> Literal[Step.DONE]:
        raise AssertionError

    async with opened(Flow(Narrow, {Step.MAKE: narrow, Step.DONE: END}, name="job"), url=file_url) as app:
        await work_off(app)
        failed = await app.get("a")
        assert failed.condition is Condition.FAILED
        assert "note: Input should be a valid integer" in (failed.error or "")
        assert "numbers: List should have at most 1 item" in (failed.error or "")
        await app.retry("a")  # before the mending it is of no use, and does no harm
        await work_off(app)
        assert (await app.get("a")).condition is Condition.FAILED
    async with opened(FLOW, url=file_url) as app:
        await app.retry("a")
        done = await app.check("a")
        assert (done.condition, done.process.note, done.process.numbers) == (Condition.FINISHED, "twelve", [1, 2])


async def test_a_hundred_broken_rows_before_a_good_one_do_not_keep_it_waiting(file_url: str, path: Path) -> None:
    async with opened(FLOW, NEIGHBOURS, url=file_url) as app:
        for n in range(100):
            put(path, f"broken-{n}", data="{broken")
            put(path, f"orphan-{n}", status="unheard of")
        await app.start(Job(id="good"))
        await work_off(app, concurrency=2)
        assert (await app.get("good")).condition is Condition.FINISHED
        assert len(await app.find(condition="failed", limit=200)) == len(await app.find(condition="orphaned", limit=200)) == 100


async def test_broken_bytes_in_other_columns_harm_nobody_else(file_url: str, path: Path) -> None:
    """A disk or a tool that wrote half a character into an error, an owner or an id."""
    async with opened(FLOW, NEIGHBOURS, url=file_url) as app:
        for id, column in (("e", "error"), ("s", "status"), ("f", "flow")):
            put(path, id)
            with contextlib.closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(f"UPDATE onward_process SET {column} = cast(? AS TEXT) WHERE id = ?", (b"caf\xc3", id))
        put(path, "x")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE onward_process SET id = cast(? AS TEXT) WHERE id = 'x'", (b"x\xc3",))
        started = await app.start_many(Neighbour() for _ in range(3))
        async with working(app):  # it never gets idle: the row with the broken id stays due
            for record in started:
                assert (await app.wait(record.id, timeout=5)).condition is Condition.FINISHED
            assert (await app.wait("e", timeout=5)).condition is Condition.FINISHED
        shown = {record.id: record.condition for record in await app.find(limit=20)}
        assert (shown["s"], shown["f"], shown["x\udcc3"]) == ("orphaned", "orphaned", "ready")
        with pytest.raises(StoreError, match="surrogates not allowed"):  # it would have to be written once more
            await app.stop("s")
        assert (await app.start(Job(id="after"))).version == 0


async def test_a_row_that_is_due_and_cannot_be_claimed_does_not_make_the_worker_spin(file_url: str, path: Path) -> None:
    claims = 0

    class Counting(SqliteStore):
        async def claim(self, *args: Any, **options: Any) -> list[Record]:
            nonlocal claims
            claims += 1
            return await super().claim(*args, **options)

    app = Onward(file_url, [FLOW])
    app.store = Counting(str(path), app.clock)
    async with app:
        put(path, "x")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE onward_process SET id = cast(? AS TEXT) WHERE id = 'x'", (b"x\xc3",))
        async with working(app):
            await asyncio.sleep(0.3)
    assert 1 < claims < 40


@pytest.mark.parametrize("id", ["\ud800", "x\x00y", "a" * 201, "\x1b[2J"])
async def test_an_id_that_cannot_be_is_just_not_found(url: str, id: str) -> None:
    async with opened(FLOW, url=url) as app:
        with pytest.raises(NotFound) as caught:
            await app.get(id)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["\ud800", "\x00", "%", "'", "x" * 100_000, "\udcff"])
async def test_find_takes_any_text_for_its_filters(url: str, text: str) -> None:
    async with opened(FLOW, url=url) as app:
        await app.start(Job(id="a"))
        assert await app.find(prefix=text) == []
        assert await app.find(flow=text) == []
        assert await app.find(status=text) == []
        assert await app.find(before=text) == []
        with pytest.raises(QueryError):
            await app.find(condition=text)
        assert len(await app.find()) == 1


async def test_the_same_broken_start_in_a_group_of_good_ones_names_the_one(url: str = IN_MEMORY) -> None:
    async with opened(FLOW, url=url) as app:
        with pytest.raises(InvalidData, match="job bad: "):
            await app.start_many([Job(id="good"), Job(id="bad", extra=float("nan"))])
        assert await app.find() == []


def test_the_limits_have_names_and_reasons() -> None:
    """A limit that nobody can look up is a riddle."""
    from onward import codec, context, control, decide, process
    from onward.store.sqlite import writer

    limits = {
        codec: ["PAYLOAD_MAX", "FAULTS_MAX"],
        context: ["NAME_CHARS_MAX"],
        control: ["START_MAX", "REASON_CHARS_MAX", "PAGE_MAX"],
        decide: ["MOVES_MAX"],
        process: ["ID_CHARS_MAX"],
        writer: ["BATCH_MAX"],
    }
    for module, names in limits.items():
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        for name in names:
            assert isinstance(getattr(module, name), int)
            line = next(line for line in source.splitlines() if line.startswith(f"{name} = "))
            assert "#" in line, f"{name} has no reason beside it"


async def test_records_of_all_kinds_can_be_shown_as_json(file_url: str, path: Path) -> None:
    """What CLI and panel do with a row, whatever is in it."""
    async with opened(FLOW, url=file_url) as app:
        put(path, "a", data=b'{"note":"\xff"}')
        await work_off(app)
        record: Record = await app.get("a")
        assert json.loads(json.dumps({"error": record.error, "id": record.id}))["id"] == "a"
        assert (record.error or "").isprintable()
        assert Trip.__name__ not in (record.error or "")
