"""The SQLite store in trouble: a full disk, broken bytes, a locked file, cancelled callers, answers that are lost.

Nothing is acknowledged that is not in the file, nothing in the file is acknowledged as failed and then written again.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pytest

from onward.errors import Fenced, StoreError
from onward.ports import NewProcess, Search
from onward.process import Record
from onward.store.sqlite.store import SqliteStore
from onward.testing import ManualClock
from onward.testing.contract.rows import KNOWN, LEASE, agree, claimed, failed, finished, moved, new, not_yet, trace, verdict

BUSY_S = 0.15  # in these tests


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "onward.db"


@pytest.fixture
async def store(path: Path, clock: ManualClock):
    store = SqliteStore(str(path), clock)
    await store.open()
    yield store
    await store.close()
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


@pytest.fixture
def raw(path: Path, store: SqliteStore):
    """What any other program of the user may do to the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = bytes
    yield connection
    connection.close()


# -- the disk is full -------------------------------------------------------------------------------------------------


async def limit_pages(store: SqliteStore, more: int) -> None:
    """From now on the file can grow by so many pages only: SQLite does the same as when its disk is full."""
    [pages] = await store._write(lambda c: c.execute("PRAGMA page_count").fetchone())
    await store._write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + more}").fetchone())


async def test_a_full_disk_never_acknowledges_what_it_rolled_back_and_goes_on_once_there_is_space(
    store: SqliteStore, raw: sqlite3.Connection
):
    records = {record.id: record for record in await claimed(store, *(f"p{n:03}" for n in range(120)))}
    await limit_pages(store, 40)
    errors: list[StoreError] = []
    born: set[str] = set()
    for turn, size in enumerate((50, 3_000, 3_000, 3_000, 10, 9_000)):  # small ones still find room where large ones do not
        data = json.dumps({"fill": "x" * size})
        starts = [store.insert([new(f"{size}-{turn}-{n}", data)], "ann") for n in range(10)]
        commits = [verdict(store.commit(r, moved(r, data=data, took=0.1))) for r in records.values()]
        *started, answers = await asyncio.gather(*starts, asyncio.gather(*commits), return_exceptions=True)
        born |= {f"{size}-{turn}-{n}" for n, answer in enumerate(started) if not isinstance(answer, StoreError)}
        assert not isinstance(answers, BaseException)
        records.update({answer.id: answer for answer in answers if isinstance(answer, Record)})
        errors += [answer for answer in answers if isinstance(answer, StoreError)]
        stored = {id.decode(): version for id, version in raw.execute("SELECT id, version FROM onward_process")}
        assert stored == {id: record.version for id, record in records.items()} | dict.fromkeys(born, 0)
    assert len(errors) > 120 and len(born) < 60 and any(record.version > 1 for record in records.values())  # both really happened
    for error in errors:
        assert type(error) is StoreError and "full" in str(error) and "free some space" in error.hint
    with pytest.raises(StoreError, match="full"):
        await store.insert([new(f"new-{n}", json.dumps("x" * 9_000)) for n in range(50)], "ann")
    assert raw.execute("SELECT count(*) FROM onward_process").fetchone() == (120 + len(born),)

    await limit_pages(store, 100_000)
    for id, record in records.items():  # the very same store, and nobody had to do anything to it
        records[id] = await store.commit(record, moved(record, data='{"fill":"' + "y" * 9_000 + '"}'))
        assert (await agree(store, id)).version == record.version + 1


async def test_an_act_and_a_claim_on_a_full_disk_say_so_and_do_nothing(store: SqliteStore):
    [a] = await claimed(store, "a")
    await store.insert([new("b")], "ann")
    await limit_pages(store, 0)
    before = await trace(store, "a")
    with pytest.raises(StoreError, match="full"):
        await store.act(a, failed(a, error="x" * 20_000), "ann", None)
    assert await trace(store, "a") == before
    await limit_pages(store, 100_000)
    assert (await store.act(a, failed(a, error="x" * 20_000), "ann", None)).version == 1


SMALL_DISK = """
    import asyncio, json, os, sqlite3, sys
    from onward.errors import Fenced, StoreError
    from onward.process import Record
    from onward.store.sqlite.store import SqliteStore
    from onward.testing import ManualClock
    from onward.testing.contract.rows import *

    folder = sys.argv[1]
    path, ballast = os.path.join(folder, "onward.db"), os.path.join(folder, "ballast")

    async def main():
        with open(ballast, "wb") as file:
            file.write(b"x" * 300_000)
        store = SqliteStore(path, ManualClock())
        await store.open()
        records = {r.id: r for r in await claimed(store, *(f"p{n}" for n in range(20)))}
        failures = after_freeing = 0
        for turn in range(40):
            data = json.dumps({"fill": "x" * 1_500 * (1 + turn % 3)})
            answers = await asyncio.gather(*(verdict(store.commit(r, moved(r, data=data))) for r in records.values()))
            for answer in answers:
                if isinstance(answer, Record):
                    records[answer.id] = answer
                    after_freeing += not os.path.exists(ballast)
                else:
                    assert type(answer) is StoreError, answer
                    failures += 1
            if failures >= 100 and os.path.exists(ballast):
                os.unlink(ballast)  # and that is all that anybody does about it
        for record in records.values():
            assert (await agree(store, record.id)).version == record.version
        await store.close()
        raw = sqlite3.connect(path)
        assert dict(raw.execute("SELECT id, version FROM onward_process")) == {r.id: r.version for r in records.values()}
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        print(json.dumps({"failures": failures, "after_freeing": after_freeing}))

    asyncio.run(main())
"""


def test_a_real_disk_of_one_megabyte_fills_up_and_is_freed_without_a_false_word(tmp_path: Path):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace of one's own")
    mount = ["unshare", "-Urm", "sh", "-c", f"mount -t tmpfs -o size=1m tmpfs '{tmp_path}' && exec \"$@\"", "sh"]
    script = [sys.executable, "-c", textwrap.dedent(SMALL_DISK), str(tmp_path)]
    done = subprocess.run(mount + script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen["failures"] >= 100 and seen["after_freeing"] >= 20


# -- broken bytes -----------------------------------------------------------------------------------------------------

POISONS = {
    "truncated": "'{\"broken'",
    "empty": "''",
    "no object": "'[1]'",
    "invalid UTF-8": "CAST(x'7b22ff80fe227d' AS TEXT)",
    "NUL": "'{\"a' || char(0) || 'b\":1}'",
    "lone surrogate": "CAST(x'7b22eda080227d' AS TEXT)",
    "deep": "'" + "[" * 50_000 + "'",
    "duplicate keys": '\'{"n":1,"n":2}\'',
    "not a number": '\'{"n":NaN,"m":1e999}\'',
}


def kept(raw: sqlite3.Connection, id: str) -> list[tuple[bytes, ...]]:
    query = (
        "SELECT CAST(id AS BLOB), CAST(flow AS BLOB), CAST(status AS BLOB), CAST(data AS BLOB) FROM onward_process WHERE id = ?"
    )
    rows = raw.execute(query, (id,)).fetchall()
    return (
        rows + raw.execute("SELECT CAST(data AS BLOB) FROM onward_history WHERE process_id = ? AND version = 0", (id,)).fetchall()
    )


@pytest.mark.parametrize("poison", POISONS)
async def test_data_that_cannot_be_read_keeps_its_bytes_and_holds_up_nobody(
    store: SqliteStore, raw: sqlite3.Connection, clock: ManualClock, poison: str
):
    await store.insert([new("bad")], "ann")
    raw.execute(f"UPDATE onward_process SET data = {POISONS[poison]}")
    raw.execute(f"UPDATE onward_history SET data = {POISONS[poison]}")
    before = kept(raw, "bad")
    clock.advance(1)
    await store.insert([new("good-1"), new("good-2")], "ann")

    bad, good = await store.claim(KNOWN, "worker-a", 2, LEASE)  # the neighbour comes in the very same claim
    assert (bad.id, good.id, good.data) == ("bad", "good-1", '{"n": 0}')
    assert bad.data.encode("utf-8", "surrogateescape") == before[0][3]
    answers = await asyncio.gather(store.commit(bad, failed(bad, "it does not fit")), store.commit(good, finished(good)))
    assert [answer.version for answer in answers] == [1, 1]
    assert len(await store.find(Search())) == sum(count.number for count in await store.counts()) == 3
    assert len(await store.history("bad")) == 2
    data = await store.data_at("bad", 1)
    assert data is not None and data.data.encode("utf-8", "surrogateescape") == before[0][3]
    row = await store.get("bad")
    assert row is not None
    await store.act(row, not_yet(row), "ann", "once more")
    assert kept(raw, "bad") == before


@pytest.mark.parametrize(
    "column",
    [
        "status = 'lost'",
        "flow = 'unknown'",
        "flow = ''",
        "status = 'pack' || char(0) || 'ed'",
        "flow = CAST(x'ff' AS TEXT)",
        "status = CAST(x'c328' AS TEXT)",
    ],
)
async def test_a_row_of_a_status_or_flow_that_nobody_knows_is_shown_and_left_alone(
    store: SqliteStore, raw: sqlite3.Connection, clock: ManualClock, column: str
):
    await store.insert([new("bad")], "ann")
    raw.execute(f"UPDATE onward_process SET {column}")
    before = kept(raw, "bad"), raw.execute("SELECT * FROM onward_process").fetchall()
    clock.advance(1)
    await store.insert([new("good")], "ann")
    assert [record.id for record in await store.claim(KNOWN, "worker-a", 1, LEASE)] == ["good"]
    assert await store.claim(KNOWN, "worker-a", 1, LEASE, ["bad"]) == []
    assert {record.id for record in await store.find(Search())} == {"bad", "good"}
    assert len(await store.counts()) == 2 and await store.get("bad") is not None
    assert (kept(raw, "bad"), raw.execute("SELECT * FROM onward_process WHERE id = 'bad'").fetchall()) == before


@pytest.mark.parametrize("id", ["CAST(x'6261ff64' AS TEXT)", "'ba' || char(0) || 'd'", "CAST(x'eda080' AS TEXT)"])
async def test_an_id_that_is_no_text_ends_nothing_and_its_neighbours_go_on(
    store: SqliteStore, raw: sqlite3.Connection, clock: ManualClock, id: str
):
    await store.insert([new("bad")], "ann")
    raw.execute(f"UPDATE onward_process SET id = {id}")
    clock.advance(1)
    await store.insert([new("good-1"), new("good-2")], "ann")
    async with asyncio.timeout(10):
        for limit in (3, 2):
            records = await store.claim(KNOWN, "worker-a", limit, LEASE)
            good = [record for record in records if record.id.startswith("good")]
            for record in good:
                assert (await store.commit(record, finished(record))).version == 1
        assert [(await agree(store, one)).version for one in ("good-1", "good-2")] == [1, 1]
        assert len(await store.find(Search())) == 3


# -- the file is locked -----------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onward.store.sqlite.writer.BUSY_S", BUSY_S)
    monkeypatch.setattr("onward.store.sqlite.store.BUSY_S", BUSY_S)


class Holder:
    """Another program that holds the file: by SQLite's own lock, or by the lock between the writers."""

    def __init__(self, path: Path, how: str) -> None:
        self.how = how
        if how == "BEGIN IMMEDIATE":
            self.connection = sqlite3.connect(path, isolation_level=None)
            self.connection.execute("BEGIN IMMEDIATE")
        else:
            self.file = os.open(f"{path}-lock", os.O_RDWR)
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def let_go(self) -> None:
        if self.how == "BEGIN IMMEDIATE":
            self.connection.execute("ROLLBACK")
            self.connection.close()
        else:
            os.close(self.file)


HOLDS = pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "-lock"])


@HOLDS
async def test_a_file_that_stays_locked_is_an_error_in_time_for_each_and_then_all_goes_on(
    impatient: None, store: SqliteStore, path: Path, how: str
):
    records = await claimed(store, *(f"p{n:02}" for n in range(40)))
    holder = Holder(path, how)
    begun = time.monotonic()
    others = [
        store.insert([new("x")], "ann"),
        store.release(records[:1], begun=True),
        asyncio.to_thread(store.renew, "worker-a", {"p00": 1}, LEASE),
    ]
    commits = [store.commit(record, moved(record)) for record in records]
    answers = await asyncio.gather(*commits, *others, return_exceptions=True)
    took = time.monotonic() - begun
    for answer in answers:
        assert isinstance(answer, StoreError) and not isinstance(answer, Fenced) and "by itself" in answer.hint
    assert took < 10 * BUSY_S, "each of them waited for all that stood before it"
    assert {record.id for record in await store.find(Search())} == {record.id for record in records}  # reading goes on
    holder.let_go()
    answers = await asyncio.gather(*(store.commit(record, moved(record)) for record in records))
    assert {answer.version for answer in answers} == {1}
    assert await asyncio.to_thread(store.renew, "worker-a", {"p00": 1}, LEASE) == set()
    for record in records:
        await agree(store, record.id)


@HOLDS
async def test_a_short_lock_is_waited_for_and_nobody_hears_of_it(store: SqliteStore, path: Path, how: str):
    [record] = await claimed(store, "a")
    holder = Holder(path, how)
    commit = asyncio.create_task(store.commit(record, moved(record)))
    renewal = asyncio.create_task(asyncio.to_thread(store.renew, "worker-a", {"a": 1}, LEASE))
    done, _ = await asyncio.wait({commit, renewal}, timeout=0.1)
    assert not done
    holder.let_go()
    assert (await commit).version == 1 and await renewal == set()


async def test_a_file_is_opened_though_somebody_writes_to_it(impatient: None, store: SqliteStore, path: Path):
    [record] = await claimed(store, "a")
    holder = Holder(path, "BEGIN IMMEDIATE")
    other = SqliteStore(str(path), ManualClock())
    await other.open()
    assert (await other.get("a")) is not None
    holder.let_go()
    assert (await other.commit(record, moved(record))).version == 1
    await other.close()


async def test_opening_a_file_whose_lock_is_held_is_an_error_in_time(impatient: None, store: SqliteStore, path: Path):
    holder = Holder(path, "-lock")
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        await SqliteStore(str(path), ManualClock()).open()
    assert time.monotonic() - begun < 10 * BUSY_S and "by itself" in caught.value.hint
    holder.let_go()
    again = SqliteStore(str(path), ManualClock())
    await again.open()
    await again.close()


# -- the caller is cancelled ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["onward.db", ":memory:"])
async def test_a_cancelled_caller_and_the_database_never_contradict_each_other(tmp_path: Path, name: str):
    store = SqliteStore(":memory:" if name == ":memory:" else str(tmp_path / name), ManualClock())
    await store.open()
    heard: list[str] = []
    for turns in [*range(21), 40, 80, 160, 320, 640, 1_280, 20_000]:
        record, mate = await claimed(store, f"p{turns}", f"mate-{turns}")
        task = asyncio.create_task(store.commit(record, moved(record)))
        beside = asyncio.create_task(store.commit(mate, moved(mate)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        again = turns % 2  # a caller may be cancelled once more while it waits for the verdict
        if again:
            await asyncio.sleep(0)
            task.cancel()
        [answer] = await asyncio.gather(task, return_exceptions=True)
        at_verdict = await store.get(record.id)
        assert at_verdict is not None
        heard.append(f"{type(answer).__name__} {at_verdict.version}")
        assert (await beside).version == 1
        row = await agree(store, record.id)  # nothing was written after its verdict
        assert row.version == at_verdict.version
        if isinstance(answer, Record):
            assert row.version == answer.version == 1
        assert (await store.commit(row, moved(row))).version == row.version + 1  # and the next one works
    assert {"CancelledError 0", "CancelledError 1", "Record 1"} == set(heard)  # before, amid, after
    await store.close()


async def test_every_caller_of_a_group_may_be_cancelled_and_none_drags_another_along(store: SqliteStore):
    records = await claimed(store, *(f"p{n:03}" for n in range(60)))
    tasks = [asyncio.create_task(store.commit(record, moved(record))) for record in records]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(answer, asyncio.CancelledError) for answer in answers) == 20
    assert [(await agree(store, record.id)).version for record in records] == [1] * 60
    for verb in (store.insert([new("x")], "ann"), store.claim(KNOWN, "b", 1, LEASE), store.get("p001"), store.wait_for_change(9)):
        task = asyncio.create_task(verb)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await store.get("x")) is not None


# -- errors in the middle, answers that are lost ----------------------------------------------------------------------


class Faulty:
    """The writer's connection, with faults on order: `before` a write is done, or `after` it was done."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.before = self.after = 0
        self.wanted = "UPDATE onward_process AS p"
        self.seen: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self.connection, name)

    def execute(self, sql: str, *values):
        hit = sql.startswith(self.wanted)
        self.seen += [self.wanted] if hit else []
        if hit and self.before:
            self.before -= 1
            raise sqlite3.OperationalError("disk I/O error")
        answer = self.connection.execute(sql, *values)
        if hit and self.after:
            self.after -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return answer


@pytest.fixture
async def faulty(path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch):
    """A store and the connection on which its writer stands."""
    made: list[Faulty] = []
    really = SqliteStore._connect_and_migrate

    def connect(store: SqliteStore) -> Faulty:
        made.append(Faulty(really(store)))
        return made[-1]

    monkeypatch.setattr(SqliteStore, "_connect_and_migrate", connect)
    store = SqliteStore(str(path), clock)
    await store.open()
    yield store, made[0]
    await store.close()


async def test_an_error_in_a_group_makes_each_one_be_tried_alone(faulty: tuple[SqliteStore, Faulty]):
    store, connection = faulty
    records = await claimed(store, *(f"p{n}" for n in range(10)))
    connection.before = 3  # the group, then two of the ten
    answers = await asyncio.gather(*(verdict(store.commit(record, moved(record))) for record in records))
    assert [type(answer) for answer in answers].count(StoreError) == 2
    assert len(connection.seen) == 11
    for record, answer in zip(records, answers, strict=True):
        assert (await agree(store, record.id)).version == isinstance(answer, Record)
        if not isinstance(answer, Record):
            assert (await store.commit(record, moved(record))).version == 1


@pytest.mark.parametrize("size", [1, 2, 30])
@pytest.mark.parametrize("company", [False, True], ids=["commits only", "with other writes"])
async def test_a_commit_whose_answer_was_lost_is_found_in_the_history_and_not_made_twice(
    faulty: tuple[SqliteStore, Faulty], size: int, company: bool
):
    store, connection = faulty
    records = await claimed(store, *(f"p{n:02}" for n in range(size)))
    stale = await claimed(store, "stale")
    await store.commit(stale[0], moved(stale[0], data='{"n":"ours"}'))
    connection.after, connection.wanted = 1, "COMMIT" if company else connection.wanted
    writes = [verdict(store.commit(record, moved(record, data=f'{{"of":"{record.id}"}}'))) for record in records]
    writes += [verdict(store.commit(stale[0], moved(stale[0], data='{"n":"late"}')))] if size > 1 else []
    other = [store.release([], begun=True)] if company else []
    *answers, _ = await asyncio.gather(*writes, *other, asyncio.sleep(0))
    assert connection.after == 0  # it did happen
    for record, answer in zip(records, answers, strict=False):
        if size == 1 and isinstance(answer, StoreError):  # then its worker says it again
            answer = await store.commit(record, moved(record, data=f'{{"of":"{record.id}"}}'))
        assert isinstance(answer, Record) and answer.version == 1
        row = await agree(store, record.id)
        assert (row.version, row.data) == (1, f'{{"of":"{record.id}"}}')
        assert (await store.commit(answer, moved(answer))).version == 2
    if size > 1 and not company:
        assert isinstance(answers[size], Fenced)
    assert (await agree(store, "stale")).data == '{"n":"ours"}'


async def test_a_lost_answer_after_which_another_took_over_is_told_truly(faulty: tuple[SqliteStore, Faulty], clock: ManualClock):
    store, _ = faulty
    made, unmade = await claimed(store, "made", "unmade")
    first = moved(made, data='{"n":1}', goes_on=False)
    await store.commit(made, first)  # imagine that this answer was lost
    clock.advance(LEASE)
    for record in await store.claim(KNOWN, "worker-b", 2, LEASE):
        await store.commit(record, moved(record, data='{"n":2}'))
    before = [await trace(store, id) for id in ("made", "unmade")]
    assert (await store.commit(made, first)).version == 1  # it was made, whatever came after it
    with pytest.raises(Fenced):
        await store.commit(unmade, moved(unmade, data='{"n":1}'))
    assert [await trace(store, id) for id in ("made", "unmade")] == before


async def test_other_writes_may_lose_their_answers_too(faulty: tuple[SqliteStore, Faulty]):
    store, connection = faulty
    [record] = await claimed(store, "a")
    connection.wanted = "COMMIT"

    async def losing(write) -> None:
        connection.after = 1
        await asyncio.gather(write, return_exceptions=True)
        assert connection.after == 0

    await losing(store.record_step(record, "pay", "1"))
    await store.record_step(record, "pay", "1")
    await losing(store.release([record], begun=False))
    await store.release([record], begun=False)
    await losing(store.insert([new("b")], "ann"))
    assert await store.insert([new("b")], "ann") == [False]
    row = await agree(store, "a")
    assert (row.attempt, await store.steps("a", 0), len(await store.history("b"))) == (0, {"pay": "1"}, 1)


async def test_a_checkpoint_that_fails_takes_no_verdict_back(faulty: tuple[SqliteStore, Faulty], monkeypatch: pytest.MonkeyPatch):
    store, connection = faulty
    monkeypatch.setattr("onward.store.sqlite.writer.CHECKPOINT_AFTER", 0)
    [record] = await claimed(store, "a")
    connection.wanted, connection.before = "PRAGMA wal_checkpoint", 99
    record = await store.commit(record, moved(record))
    record = await store.act(record, not_yet(record), "ann", None)
    assert await store.insert([new("b")], "ann") == [True]
    assert connection.before < 99 and (await agree(store, "a")).version == 2


async def test_the_log_is_kept_short_while_it_is_written(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("onward.store.sqlite.writer.CHECKPOINT_AFTER", 100)
    records = await claimed(store, *(f"p{n:02}" for n in range(50)))
    written, longest = 0, 0
    for _ in range(60):
        data = json.dumps({"fill": "x" * 2_000, "n": written})
        records = await asyncio.gather(*(store.commit(record, moved(record, data=data)) for record in records))
        written += sum(len(record.data) for record in records)
        longest = max(longest, Path(f"{path}-wal").stat().st_size)
    assert written > 6_000_000 and longest < 2_000_000


async def test_a_row_with_an_impossible_instant_holds_up_nobody(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "a.db"), ManualClock())
    await store.open()
    try:
        await store.insert([NewProcess("good", "f", "s", "{}"), NewProcess("spoiled", "f", "s", "{}")], "test")
        raw = sqlite3.connect(tmp_path / "a.db")
        raw.execute("UPDATE onward_process SET created_at = 9e18, due_at = -9e18 WHERE id = 'spoiled'")
        raw.commit()
        raw.close()
        assert {record.id for record in await store.find(Search())} == {"good", "spoiled"}
        assert {record.id for record in await store.claim([("f", "s", 1)], "w", 10, timedelta(seconds=5))} == {"good", "spoiled"}
    finally:
        await store.close()


async def test_opening_twice_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "a.db"), ManualClock())
    await store.open()
    try:
        with pytest.raises(StoreError, match="open already"):
            await store.open()
    finally:
        await store.close()
