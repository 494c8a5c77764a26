"""Change while processes are in flight: data of an older version are upgraded, a renamed status is known by its old name, and
code leaves alone what only newer code can read. RELIABILITY.md T19 and I11.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum, auto
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import rolling
from conftest import opened, work_off
from panel.conftest import entered
from rolling import ENOUGH, NEW, OLD, New, NewOrder, OldOrder

from onward import END, Condition, Conflict, Every, Flow, FlowError, InvalidData, Onward, Process, Refused, Secret, stage
from onward.codec import upgraded
from onward.testing import ManualClock
from onward.versions import VERSIONS_MAX

# -- what a flow may say ------------------------------------------------------------------------------------------


class Step(StrEnum):
    MAKE = auto()
    DONE = auto()


class Job(Process[Step]):
    status: Step = Step.MAKE
    text: str = ""


async def make(job: Job) -> Literal[Step.DONE]:
    job.text += "!"
    return Step.DONE


def flow(**more: Any) -> Flow[Step]:
    return Flow(Job, {Step.MAKE: make, Step.DONE: END}, **more)


def same(data: dict[str, Any]) -> dict[str, Any]:
    return data


async def later(data: dict[str, Any]) -> dict[str, Any]:
    return data


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"version": 0}, r"version=0: .* from 1 to 100"),
        ({"version": VERSIONS_MAX + 1}, "version=101"),
        ({"version": True}, "version=True"),
        ({"version": "2"}, "version='2'"),
        ({"version": 2}, r"no upgrade from 1: write upgrade=\{1: f\}"),
        ({"version": 4, "upgrade": {1: same, 3: same}}, "no upgrade from 2"),
        ({"version": 3, "upgrade": {1: same}}, "no upgrade from 2"),
        ({"version": 2, "upgrade": {1: same, 2: same}}, r"upgrade\[2\] is no step on the way to version=2"),
        ({"upgrade": {1: same}}, r"upgrade\[1\] is no step on the way to version=1"),
        ({"version": 2, "upgrade": {0: same, 1: same}}, r"upgrade\[0\] is no step"),
        ({"version": 2, "upgrade": {"1": same}}, r"upgrade\['1'\] is no step"),
        ({"version": 2, "upgrade": {1: "same"}}, "cannot be called"),
        ({"version": 2, "upgrade": {1: later}}, "is async"),
        ({"version": 2, "upgrade": same}, "upgrade=<function"),
        ({"renamed": {"done": Step.DONE}}, "Step still has a status of that name"),
        ({"renamed": {Step.MAKE: Step.DONE}}, r"renamed\['make'\]: Step still has"),
        ({"renamed": {"old": "done"}}, "'done' is no member of Step"),
        ({"renamed": {"": Step.DONE}}, "a text"),
        ({"renamed": [("old", Step.DONE)]}, "renamed="),
    ],
)
def test_what_cannot_work_is_refused_when_the_flow_is_defined(said: dict[str, Any], fault: str) -> None:
    with pytest.raises(FlowError, match=fault):
        flow(**said)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(FlowError) as caught:
        flow(version=3, upgrade={5: same}, renamed={"make": Step.DONE, "old": None}, on_cancel="nowhere")
    assert len(caught.value.faults) == 5


def test_a_flow_knows_each_version_from_the_first_step_on_and_each_old_name_but_those_of_an_end() -> None:
    one = flow(version=4, upgrade={2: same, 3: same}, renamed={"old": Step.MAKE, "over": Step.DONE})
    assert one.handled == [("job", status, version) for status in ("make", "old") for version in (2, 3, 4)]
    assert [one.knows("old", version) for version in (1, 2, 4, 5)] == [False, True, True, False]
    assert (one.knows("done", 4), one.knows("over", 4), one.knows("unheard of", 4)) == (True, False, False)


# -- upgrades -----------------------------------------------------------------------------------------------------


def test_upgrades_are_chained() -> None:
    steps = {n: lambda data, n=n: {**data, "log": [*data["log"], n]} for n in (1, 2, 3)}
    one, data = flow(version=4, upgrade=steps), '{"log":[]}'
    assert [upgraded(one, "j", data, version) for version in (1, 3, 4)] == ['{"log":[1,2,3]}', '{"log":[3]}', data]


def raises(error: BaseException) -> Callable[[Any], Any]:
    def upgrade(data: dict[str, Any]) -> dict[str, Any]:
        raise error

    return upgrade


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (raises(KeyError("price")), "KeyError: 'price'"),
        (raises(SystemExit(1)), "SystemExit: 1"),
        (raises(Unspeakable()), "Unspeakable"),
        (raises(ValueError("\x1b[31m\0")), "ValueError: "),
        (lambda data: None, "it returned NoneType and not the data, a dict"),
        (lambda data: {"x": float("nan")}, "Out of range float"),
        (lambda data: {"x": {1, 2}}, "not JSON serializable"),
    ],
)
def test_a_step_that_fails_is_named(second: Any, said: str) -> None:
    one = flow(version=3, upgrade={1: same, 2: second})
    with pytest.raises(InvalidData, match=re.escape("job j: upgrade[2], of its data to version 3, failed: ")) as caught:
        upgraded(one, "j", "{}", 1)
    assert said in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("data", ["", "[1]", "null", "nonsense", '{"n":', "[" * 100_000, '{"n": ' + "1" * 5_000 + "}"])
def test_what_is_no_json_object_is_invalid_and_not_handed_to_the_upgrade(data: str) -> None:
    with pytest.raises(InvalidData, match=r"^job j: its data"):
        upgraded(flow(version=2, upgrade={1: raises(AssertionError())}), "j", data, 1)


def test_what_an_upgrade_says_shows_no_secret_even_where_the_model_has_none_any_more() -> None:
    one = flow(version=2, upgrade={1: lambda data: data[data["token"]["$secret"]]})
    with pytest.raises(InvalidData) as caught:
        upgraded(one, "j", '{"token":{"$secret":"hunter2hunter2"}}', 1)
    assert "hunter2" not in str(caught.value) and "KeyError" in str(caught.value)


class Keeper(Process[Step]):
    status: Step = Step.MAKE
    token: Secret[str]


async def keep(keeper: Keeper) -> Literal[Step.DONE]:
    return Step.DONE


async def test_what_was_plain_becomes_a_secret(file_url: str) -> None:
    class Plain(Process[Step]):
        status: Step = Step.MAKE
        token: str

    async def plain(one: Plain) -> Literal[Step.DONE]:
        return Step.DONE

    async with opened(Flow(Plain, {Step.MAKE: plain, Step.DONE: END}, name="keeper"), url=file_url) as app:
        await app.start(Plain(id="k", token="hunter2hunter2"))
    new = Flow(Keeper, {Step.MAKE: keep, Step.DONE: END}, version=2, upgrade={1: same})
    async with opened(new, url=file_url) as app:
        done = await app.check("k")
        assert done.process.token == "hunter2hunter2" and done.data == '{"token":{"$secret":"hunter2hunter2"}}'


# -- a process that older code left behind ------------------------------------------------------------------------


@contextmanager
def looking(folder: Path) -> Iterator[None]:
    rolling.folder, before = folder, rolling.folder
    try:
        yield
    finally:
        rolling.folder = before


@pytest.fixture(params=["file", "postgres"])
def store(request: pytest.FixtureRequest, file_url: str, tmp_path: Path) -> Iterator[str]:
    with looking(tmp_path):
        yield file_url if request.param == "file" else str(request.getfixturevalue("postgres_tables_url"))


async def left_behind(url: str, clock: ManualClock, *ids: str) -> None:
    """By old code, each at "priced" with a price of 7."""
    async with opened(OLD, url=url, clock=clock) as app:
        for id in ids:
            await app.start(OldOrder(id=id))
            waiting = await app.check(id)
            assert (waiting.status, waiting.process.price, waiting.data_version) == ("priced", 7, 1)


async def test_it_is_seen_and_driven_on_as_new_code_knows_it_and_the_history_keeps_what_was(store: str, tmp_path: Path) -> None:
    clock = ManualClock()
    await left_behind(store, clock, "a", "b")
    async with opened(NEW, url=store, clock=clock) as app:
        seen = await app.get("a")
        assert (seen.status, seen.condition, seen.process.cents, seen.version) == ("charged", Condition.WAITING, 700, 2)
        assert seen.process.status is New.CHARGED and "at charged" in await app.explain("a")
        [count] = await app.counts()
        assert (count.status, count.number, count.condition) == ("charged", 2, Condition.WAITING)
        for query in ("status:charged", "status:priced", "status:charg*", "flow:order -status:begun"):
            assert [record.status for record in await app.find(query, light=True)] == ["charged"] * 2, query
        assert await app.find("is:orphaned") == [] == await app.find("-status:charged")
        (tmp_path / ENOUGH).touch()
        clock.advance(1)
        done = await app.check("a")
        assert (done.status, done.condition, done.process.cents, done.data_version) == ("paid", Condition.FINISHED, 900, 2)
        ways = [(entry.from_status, entry.to_status, entry.data_version) for entry in await app.history("a")]
        assert ways == [
            (None, "begun", 1), ("begun", "priced", 1), ("priced", "priced", 1), ("priced", "checked", 2), ("checked", "paid", 2),
        ]  # fmt: skip
        assert [(await app.data_at("a", version))["cents"] for version in range(5)] == [500, 600, 700, 800, 900]
        assert (await app.get("b")).version == 2  # to look at it changed nothing


async def test_what_is_done_without_its_data_leaves_their_version(store: str) -> None:
    clock = ManualClock()
    await left_behind(store, clock, "a")
    async with opened(NEW, url=store, clock=clock) as app:
        await app.pause("a")
        resumed = await app.resume("a")
        assert (resumed.status, resumed.process.cents) == ("charged", 700)
        row = await app.store.get("a")
        assert row is not None and (row.status, row.data_version, '"price"' in row.data) == ("charged", 1, True)
        assert [(entry.from_status, entry.to_status) for entry in await app.history("a", after=2)] == [
            ("priced", "charged"), ("charged", "charged"),
        ]  # fmt: skip
    async with opened(OLD, url=store, clock=clock) as app:  # its data are old enough, its status is not
        assert (await app.get("a")).condition is Condition.ORPHANED


async def test_an_edit_writes_the_new_version(store: str) -> None:
    clock = ManualClock()
    await left_behind(store, clock, "a")
    async with opened(NEW, url=store, clock=clock) as app:
        edited = await app.edit("a", {"cents": 1, "done": 2})
        assert (edited.process.cents, edited.data_version) == (1, 2)
        assert [(await app.data_at("a", version))["cents"] for version in (2, 3)] == [700, 1]


async def test_a_fork_begins_as_it_was_upgraded(store: str) -> None:
    clock = ManualClock()
    await left_behind(store, clock, "a")
    async with opened(NEW, url=store, clock=clock) as app:
        forks = [await app.fork("a", at=at) for at in (0, 1, 2)]
        assert [(fork.status, fork.process.cents, fork.data_version) for fork in forks] == [
            ("begun", 500, 2), ("charged", 600, 2), ("charged", 700, 2),
        ]  # fmt: skip


async def test_who_starts_it_again_with_the_same_input_is_answered_with_it(store: str) -> None:
    clock = ManualClock()
    await left_behind(store, clock, "a")
    async with opened(NEW, url=store, clock=clock) as app:
        assert (await app.start(NewOrder(id="a", cents=500))).version == 2
        with pytest.raises(Conflict, match="other input"):
            await app.start(NewOrder(id="a", cents=501))


async def test_a_deadline_that_passed_moves_it_without_its_data(store: str) -> None:
    """Nobody reads the data for that, so nobody may say that they are of the new version."""

    async def never(job: Job) -> Literal[Step.MAKE]:
        return Step.MAKE

    class Late(StrEnum):
        MAKE = auto()
        LATE = auto()
        DONE = auto()

    class New(Process[Late]):
        status: Late = Late.MAKE
        words: str

    async def wait(job: New) -> Literal[Late.MAKE]:
        return Late.MAKE

    async def late(job: New) -> Literal[Late.DONE]:
        job.words += " late"
        return Late.DONE

    clock = ManualClock()
    old = Flow(
        Job,
        {Step.MAKE: stage(never, every=Every(5), within=60, otherwise=Step.DONE), Step.DONE: END},
        name="job",
    )
    table: dict[Any, Any] = {
        Late.MAKE: stage(wait, every=Every(5), within=60, otherwise=Late.LATE),
        Late.LATE: late,
        Late.DONE: END,
    }
    new = Flow(New, table, name="job", version=2, upgrade={1: lambda data: {"words": data["text"]}})
    async with opened(old, url=store, clock=clock) as app:
        await app.start(Job(id="j", text="why"))
    clock.advance(timedelta(hours=1))
    async with opened(new, url=store, clock=clock) as app:
        done = await app.check("j")
        assert (done.condition, done.process.words) == (Condition.FINISHED, "why late")
        entries = await app.history("j")
        assert [(entry.kind, entry.data_version) for entry in entries] == [("started", 1), ("deadline", 1), ("moved", 2)]


async def test_an_upgrade_that_fails_parks_it_with_its_bytes_and_holds_up_nobody(store: str) -> None:
    def careless(data: dict[str, Any]) -> dict[str, Any]:
        return {"text": data["text"].removeprefix("v") if data["text"] != "bad" else data["no such"]}

    async with opened(flow(), url=store) as app:
        for id, text in (("a", "bad"), ("b", "v1"), ("c", "v2")):
            await app.start(Job(id=id, text=text))
        before = await app.store.get("a")
    assert before is not None
    new = flow(version=2, upgrade={1: careless})
    async with opened(new, url=store) as app:
        assert "upgrade[1]" in ((await app.get("a")).error or "")
        await work_off(app)
        bad, *good = [await app.get(id) for id in "abc"]
        assert [(one.condition, one.process.text) for one in good] == [(Condition.FINISHED, "1!"), (Condition.FINISHED, "2!")]
        assert (bad.condition, bad.process, bad.attempt) == (Condition.FAILED, None, 1)
        assert bad.error == "job a: upgrade[1], of its data to version 2, failed: KeyError: 'no such'"
        row = await app.store.get("a")
        assert row is not None and (row.data, row.data_version) == (before.data, 1)
        assert (await app.history("a"))[-1].data_version == 1
        with pytest.raises(InvalidData, match="upgrade"):
            await app.fork("a")
        mended = await app.edit("a", {"text": "good"})  # of what it was nothing has to be read for that
        assert (mended.process.text, mended.data_version) == ("good", 2)
        await app.retry("a")
        assert (await app.check("a")).process.text == "good!"


async def test_the_panel_shows_it_on_the_flow_of_today(store: str) -> None:
    clock = ManualClock()
    await left_behind(store, clock, "a")
    async with entered(Onward(store, [NEW], clock=clock)) as panel:
        page = (await panel.get("/process.json?id=a")).json()
        states = {one["status"]: (one["state"], one["visits"]) for one in page["statuses"]}
        assert states == {
            "begun": ("resolved", 1), "charged": ("now", 1), "checked": ("not reached", 0), "paid": ("not reached", 0),
        }  # fmt: skip
        assert page["data"]["all"]["value"] == {"cents": 700, "done": 2}


# -- a process of newer code --------------------------------------------------------------------------------------


async def test_older_code_leaves_alone_what_it_does_not_know_and_says_why(store: str) -> None:
    clock = ManualClock()
    async with opened(NEW, url=store, clock=clock) as app:
        await app.start(NewOrder(id="newer", cents=1))
    await left_behind(store, clock, "known")
    async with opened(OLD, url=store, clock=clock) as app:
        before = await app.store.get("newer"), await app.store.history("newer")
        seen = await app.get("newer")
        assert (seen.condition, seen.process, seen.error) == (Condition.ORPHANED, None, None)
        assert [record.id for record in await app.find("is:orphaned")] == ["newer"]
        assert {(one.status, one.condition) for one in await app.counts()} == {("begun", "orphaned"), ("priced", "waiting")}
        assert "has version 2, and this code reads no newer one than 1, so it is left alone" in await app.explain("newer")
        with pytest.raises(Refused, match="orphaned"):
            await app.edit("newer", {"price": 1})
        with pytest.raises(InvalidData, match="version 2"):
            await app.fork("newer")
        assert (await app.check("newer")).version == 0
        assert (await app.store.get("newer"), await app.store.history("newer")) == before
        assert await app.store.next_due(OLD.handled) is not None
        assert await app.text_at(seen, 0) == before[1][0].data  # people may look at it all the same
        stopped = await app.stop("newer", reason="it was a mistake")  # and end it
        assert (stopped.condition, stopped.data_version) == (Condition.CANCELLED, 2)


async def test_what_is_older_than_the_first_upgrade_is_left_alone_too(file_url: str) -> None:
    async with opened(flow(), url=file_url) as app:
        await app.start(Job(id="j"))
    async with opened(flow(version=3, upgrade={2: same}), url=file_url) as app:
        await work_off(app)
        assert (await app.get("j")).condition is Condition.ORPHANED
        assert "this code has no upgrade from it: it begins at 2" in await app.explain("j")


async def test_who_stands_at_the_old_name_of_an_end_and_is_not_over_is_lost_and_not_ready(file_url: str) -> None:
    async with opened(flow(), url=file_url) as app:
        await app.start(Job(id="lost"))
        await app.start(Job(id="over"))
        await app.check("over")

    class Other(StrEnum):
        BEGIN = auto()
        ENDED = auto()

    class Renamed(Process[Other]):
        status: Other = Other.BEGIN
        text: str = ""

    async def begin(one: Renamed) -> Literal[Other.ENDED]:
        return Other.ENDED

    table: dict[Any, Any] = {Other.BEGIN: begin, Other.ENDED: END}
    new = Flow(Renamed, table, name="job", renamed={"make": Other.ENDED, "done": Other.ENDED})
    async with opened(new, url=file_url) as app:
        await work_off(app)
        over, lost = await app.get("over"), await app.get("lost")
        assert (over.status, over.condition, over.process.text) == ("ended", Condition.FINISHED, "!")
        assert (lost.status, lost.condition) == ("make", Condition.ORPHANED)
        assert "is called 'ended' now, an END" in await app.explain("lost")


# -- both, side by side -------------------------------------------------------------------------------------------


class Worker:
    """A program that runs one of the two codes."""

    def __init__(self, store: str, folder: Path, code: int) -> None:
        self.code = code
        with (folder / "log").open("ab") as log:
            program = [sys.executable, rolling.__file__, store, str(folder), str(code)]
            self.process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ))

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self.process.wait(20)


def attempts(folder: Path) -> list[tuple[int, str, str, int]]:
    path = folder / "attempts"
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(code), owner, id, int(version)) for code, owner, id, version in rows]


async def until(what: str, true: Callable[[], bool], folder: Path) -> None:
    try:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what}: {Counter(row[0] for row in attempts(folder))}\n{(folder / 'log').read_text()}") from None


PROCESSES = 24


@pytest.mark.slow
async def test_old_and_new_code_side_by_side_rolled_forward_and_back_touch_nothing_that_is_not_theirs(
    store: str, tmp_path: Path
) -> None:
    workers: list[Worker] = []

    async def roll(*codes: int, how: signal.Signals) -> None:
        """One after the other, as a deploy does it. Each of the new ones does something before the next one comes."""
        for code in codes:
            if len(workers) == 2:
                workers.pop(0).end(how)
            seen = {row[1] for row in attempts(tmp_path)}
            workers.append(Worker(store, tmp_path, code))
            await until(
                f"nobody ran code {code}",
                lambda code=code, seen=seen: sum(c == code and o not in seen for c, o, _, _ in attempts(tmp_path)) > 30,  # type: ignore[misc]
                tmp_path,
            )

    async def start(app: Onward, what: str) -> None:
        await app.start_many([OldOrder(id=f"{what}-{n}") for n in range(PROCESSES)])

    try:
        async with Onward(store, [OLD]) as app:
            await start(app, "first")
            await roll(1, 1, how=signal.SIGKILL)
            await roll(2, 2, how=signal.SIGKILL)  # forward
            for worker in workers:
                worker.end(signal.SIGTERM)
            workers.clear()
            await start(app, "second")  # by a program that nobody has deployed anew
            await roll(1, 1, how=signal.SIGTERM)  # and back
            orphans = {record.id for record in await app.find("is:orphaned", light=True, limit=1_000)}
            done = {id: (await app.store.history(id))[-1].version for id in orphans}
            assert orphans and "left alone until a worker comes that knows it" in await app.explain(min(orphans))
            so_far = len(attempts(tmp_path))
            await until("old code has nothing to do", lambda: len(attempts(tmp_path)) > so_far + 50, tmp_path)
            assert done == {id: (await app.store.history(id))[-1].version for id in orphans}  # untouched meanwhile
        (tmp_path / ENOUGH).touch()
        await roll(2, how=signal.SIGKILL)  # forward again, and both are at work until all is over
        async with Onward(store, [NEW]) as app:
            async with asyncio.timeout(30):
                for record in await app.find(light=True, limit=1_000):
                    assert (await app.wait(record.id)).condition is Condition.FINISHED, await app.explain(record.id)
            await _nobody_touched_what_is_not_his(app, tmp_path)
    finally:
        for worker in workers:
            worker.end(signal.SIGKILL)
    for words in ("Traceback", "the engine failed"):
        assert words not in (tmp_path / "log").read_text()


async def _nobody_touched_what_is_not_his(app: Onward, folder: Path) -> None:
    codes = {owner: code for code, owner, _, _ in attempts(folder)}
    assert all(version == code for code, _, _, version in attempts(folder))  # new code is given what it has upgraded
    names = {1: {"begun", "priced", "paid"}, 2: {"begun", "charged", "checked", "paid"}}
    upgraded_ones = 0
    for record in await app.find(limit=1_000):
        entries = await app.history(record.id)
        assert [entry.version for entry in entries] == list(range(record.version + 1))
        for before, entry in pairwise(entries):
            code = codes[entry.actor]
            assert entry.data_version == code >= before.data_version, (record.id, entry)
            assert before.to_status == entry.from_status and entry.to_status in names[code], (record.id, entry)
            upgraded_ones += before.data_version < entry.data_version
        last = entries[-1].data_version
        row = record.process
        assert row.done == len(entries) - 1 and row.cents == 500 + 100 * row.done, record.id  # no update was lost or made twice
        assert record.data_version == 2 and last in (1, 2)
    assert upgraded_ones >= PROCESSES // 2, upgraded_ones
