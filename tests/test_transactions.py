"""Transactions of the user's own: what a handler writes beside its transition, and what starts with the caller's commit.

The tests need of a database what `Database` says; whatever else they see, they see through the app.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal

import asyncpg
import psycopg
import pytest
from conftest import PATIENCE_S, Job, Step, kinds, one_stage, opened, work_off, working

import onward.store.sqlite.turn as turn_module
from onward import Condition, Conflict, Context, Every, Flow, Onward, OnwardError, Record, Retry, StoreError, Unrecoverable
from onward.clock import SystemClock
from onward.store import upkeep_of
from onward.store.sqlite.store import SqliteStore
from onward.store.sqlite.turn import Turn
from onward.store.sqlite.writer import Writer


class Database:
    """The user's side of a database: a table of his own beside ours, `entry(job, n)`, `n` unique."""

    url: str

    async def make(self) -> None:
        """Our tables and his."""

    async def add(self, conn: Any, job: str, n: int) -> None:
        """One row, through the connection that a handler was given."""

    async def entries(self) -> list[tuple[str, int]]:
        """What is committed, as somebody else sees it."""

    async def end(self, conn: Any) -> None:
        """COMMIT by the handler itself."""


class Sqlite(Database):
    def __init__(self, path: Path) -> None:
        self.path, self.url = path, f"sqlite:///{path}"

    async def make(self) -> None:
        async with opened(one_stage(free), url=self.url):
            pass
        with closing(self.connect()) as conn:
            conn.execute("CREATE TABLE entry (job TEXT NOT NULL, n INTEGER NOT NULL UNIQUE)")

    def connect(self, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(self.path, **{"isolation_level": None, **options})

    async def add(self, conn: Any, job: str, n: int) -> None:
        conn.execute("INSERT INTO entry (job, n) VALUES (?, ?)", (job, n))

    async def entries(self) -> list[tuple[str, int]]:
        with closing(self.connect()) as conn:
            return conn.execute("SELECT job, n FROM entry ORDER BY n").fetchall()

    async def end(self, conn: Any) -> None:
        conn.commit()


class Postgres(Database):
    def __init__(self, url: str) -> None:
        self.url = url

    async def make(self) -> None:
        await upkeep_of(self.url, SystemClock()).upgrade(lambda _: None)
        async with self.connected() as conn:
            await conn.execute("CREATE TABLE entry (job text NOT NULL, n integer NOT NULL UNIQUE)")

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Any]:
        conn = await asyncpg.connect(self.url)
        try:
            yield conn
        finally:
            await conn.close()

    async def add(self, conn: Any, job: str, n: int) -> None:
        await conn.execute("INSERT INTO entry (job, n) VALUES ($1, $2)", job, n)

    async def entries(self) -> list[tuple[str, int]]:
        async with self.connected() as conn:
            return [tuple(row) for row in await conn.fetch("SELECT job, n FROM entry ORDER BY n")]

    async def end(self, conn: Any) -> None:
        await conn.execute("COMMIT")


@pytest.fixture(params=["sqlite", "postgres"])
async def db(request: pytest.FixtureRequest, path: Path) -> Database:
    database = Sqlite(path) if request.param == "sqlite" else Postgres(request.getfixturevalue("postgres_url"))
    await database.make()
    return database


@pytest.fixture
async def lite(path: Path) -> Sqlite:
    """For what is SQLite's alone."""
    database = Sqlite(path)
    await database.make()
    return database


async def free(job: Job) -> Literal[Step.DONE]:
    return Step.DONE


Handler = Callable[[Job, Context], Awaitable[Any]]


@asynccontextmanager
async def running(db: Database, handler: Handler, **policies: Any) -> AsyncIterator[tuple[Onward, Record]]:
    async with opened(one_stage(handler, **policies), url=db.url) as app:
        yield app, await app.start(Job(id="j"))


async def ran(db: Database, handler: Handler, **policies: Any) -> Record:
    """What became of the one process of that handler."""
    policies = {"retry": Retry(attempts=1), **policies}
    async with running(db, handler, **policies) as (app, record):
        await work_off(app)
        return await app.get(record.id)


async def history(db: Database, flow: Flow[Any]) -> list[Any]:
    async with opened(flow, url=db.url) as app:
        return await app.history("j")


# -- a stage and its SQL --------------------------------------------------------------------------------------------


async def test_what_a_handler_writes_is_committed_with_its_transition_and_seen_by_nobody_before(db: Database) -> None:
    seen = []

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, 1)
            job.note = "written"
        seen.append(await db.entries())
        return Step.DONE

    record = await ran(db, handler)
    assert (record.condition, record.process.note) == (Condition.FINISHED, "written")
    assert seen == [[]]
    assert await db.entries() == [("j", 1)]
    assert kinds(await history(db, one_stage(free))) == ["started", "moved"]


async def test_a_not_yet_commits_its_sql_too(db: Database) -> None:
    async def handler(job: Job, ctx: Context) -> Literal[Step.MAKE, Step.DONE]:
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, ctx.record.polls)
        return Step.DONE if ctx.record.polls == 2 else Step.MAKE

    assert (await ran(db, handler, every=Every(0.01))).condition is Condition.FINISHED
    assert await db.entries() == [("j", 0), ("j", 1), ("j", 2)]


class Bang(Exception):
    pass


async def raises_inside(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
        raise Bang("inside")


async def raises_after(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
    raise Bang("after")


async def refuses(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
    raise Unrecoverable("Bang")


async def hangs_inside(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
        await asyncio.sleep(PATIENCE_S)


async def hangs_after(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
    await asyncio.sleep(PATIENCE_S)


async def exits(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
        raise SystemExit(3)


@pytest.mark.parametrize("act", [raises_inside, raises_after, refuses, hangs_inside, hangs_after, exits])
async def test_an_attempt_that_ends_in_another_way_leaves_nothing_of_its_sql(db: Database, act: Any) -> None:
    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        await act(db, job, ctx)
        return Step.DONE

    record = await ran(db, handler, timeout=0.3)
    assert record.condition is Condition.FAILED
    assert ("cut off" if "hangs" in act.__name__ else "SystemExit" if act is exits else "Bang") in (record.error or "")
    assert await db.entries() == []


async def test_a_failed_attempt_and_the_next_one_together_write_once(db: Database) -> None:
    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, 7)
        if ctx.attempt == 1:
            raise Bang
        return Step.DONE

    record = await ran(db, handler, retry=Retry(attempts=2, first=0.01))
    assert record.condition is Condition.FINISHED
    assert await db.entries() == [("j", 7)]


async def test_what_is_caught_around_the_block_is_rolled_back_and_the_handler_may_go_another_way(db: Database) -> None:
    """As with a row that is there already: the handler's own decision, and no trouble."""

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        try:
            async with ctx.transaction() as conn:
                await db.add(conn, job.id, 1)
                await db.add(conn, job.id, 1)
        except Exception as error:
            job.note = type(error).__name__
        return Step.DONE

    record = await ran(db, handler)
    assert record.condition is Condition.FINISHED
    assert "Integrity" in record.process.note or "Unique" in record.process.note
    assert await db.entries() == []


async def test_what_is_returned_against_the_rules_takes_its_sql_with_it(db: Database) -> None:
    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, 1)
        return "nowhere"  # type: ignore[return-value]

    assert "does not declare" in ((await ran(db, handler)).error or "")
    assert await db.entries() == []


async def test_a_person_who_takes_the_process_away_takes_its_sql_too(db: Database) -> None:
    begun = asyncio.Event()

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        begun.set()
        await asyncio.sleep(0.05)
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, ctx.attempt)
        return Step.DONE

    async with running(db, handler) as (app, record), working(app):
        await begun.wait()
        await app.pause(record.id)
        assert await db.entries() == []
        await app.resume(record.id)
        await app.wait(record.id)
    assert await db.entries() == [("j", 2)]


# -- rules of the house -----------------------------------------------------------------------------------------------


async def begins_a_second(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
    async with ctx.transaction():
        raise AssertionError


async def begins_two_at_once(db: Database, job: Job, ctx: Context) -> None:
    async def one() -> None:
        async with ctx.transaction():
            await asyncio.sleep(0.01)

    await asyncio.gather(one(), one())


async def saves_inside(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction():
        await ctx.save()


async def saves_after(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction():
        pass
    await ctx.save()


async def asks_once_inside(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction():
        await ctx.once("it", lambda: 1)


async def maps_inside(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction():
        await ctx.map(str, [1, 2])


async def begins_beside_a_step(db: Database, job: Job, ctx: Context) -> None:
    async def slow() -> int:
        await asyncio.sleep(0.05)
        return 1

    async def begin() -> None:
        await asyncio.sleep(0.01)
        async with ctx.transaction():
            pass

    await asyncio.gather(ctx.once("slow", slow), begin())


async def commits_itself(db: Database, job: Job, ctx: Context) -> None:
    async with ctx.transaction() as conn:
        await db.add(conn, job.id, 1)
        with contextlib.suppress(sqlite3.Error):
            await db.end(conn)


async def returns_from_inside_a_task(db: Database, job: Job, ctx: Context) -> None:
    begun = asyncio.Event()

    async def other() -> None:
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, 1)
            begun.set()
            await asyncio.sleep(PATIENCE_S)

    task = asyncio.create_task(other())
    await begun.wait()
    asyncio.get_running_loop().call_later(0.1, task.cancel)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (begins_a_second, "a second transaction"),
        (begins_two_at_once, "a second transaction"),
        (saves_inside, "called ctx.save in its transaction"),
        (saves_after, "called ctx.save in its transaction"),
        (asks_once_inside, "called ctx.once in its transaction"),
        (maps_inside, "called ctx.map in its transaction"),
        (begins_beside_a_step, "is under way"),
        (commits_itself, "leave that to Onward"),
        (returns_from_inside_a_task, "before the block of its transaction had ended"),
    ],
)
async def test_a_broken_rule_is_told_at_once_and_leaves_nothing(db: Database, act: Any, said: str) -> None:
    attempts = []

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        attempts.append(ctx.attempt)
        await act(db, job, ctx)
        return Step.DONE

    record = await ran(db, handler, retry=Retry(attempts=3, first=0.01))
    assert record.condition is Condition.FAILED
    assert said in (record.error or "")
    assert attempts == [1], "trying again could not help"
    if act is not commits_itself or isinstance(db, Sqlite):  # which does not let it happen; PostgreSQL can only tell
        assert await db.entries() == []


def test_a_sync_handler_is_told_to_be_async(path: Path) -> None:
    def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        ctx.transaction()
        return Step.DONE

    async def run() -> Record:
        async with opened(one_stage(handler), url=f"sqlite:///{path}") as app:
            await app.start(Job(id="j"))
            await work_off(app)
            return await app.get("j")

    assert "async def" in (asyncio.run(run()).error or "")


async def test_in_memory_it_is_the_same(path: Path) -> None:
    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        await asyncio.sleep(0.01)
        async with ctx.transaction() as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS entry (job TEXT, n INTEGER)")
            conn.execute("INSERT INTO entry VALUES (?, ?)", (job.id, ctx.attempt))
            job.numbers = [n for (n,) in conn.execute("SELECT n FROM entry")]
        if ctx.attempt == 1:
            raise Bang
        return Step.DONE

    async with opened(one_stage(handler, retry=Retry(attempts=2, first=0.01))) as app:
        await app.start_many([Job(id=f"j{n}") for n in range(5)])
        await work_off(app)
        records = [await app.get(f"j{n}") for n in range(5)]
    assert {record.condition for record in records} == {Condition.FINISHED}
    assert sorted(len(record.process.numbers) for record in records) == [1, 2, 3, 4, 5]


# -- trouble is not the process's fault -------------------------------------------------------------------------------


def no_file() -> None:
    raise FileNotFoundError("no such parcel")


def no_answer() -> None:
    raise ConnectionRefusedError("the courier's telephone is off the hook")


def too_slow() -> None:
    raise TimeoutError("the courier did not come")


@pytest.mark.parametrize("trouble", [no_file, no_answer, too_slow])
async def test_trouble_with_the_rest_of_the_world_is_an_ordinary_failure(db: Database, trouble: Callable[[], None]) -> None:
    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, 1)
            trouble()
        return Step.DONE

    assert (await ran(db, handler, retry=Retry(attempts=2, first=0.01))).condition is Condition.FAILED
    assert kinds(await history(db, one_stage(free))) == ["started", "retry", "failed"]
    assert await db.entries() == []


class Trouble(sqlite3.OperationalError):
    def __init__(self, name: str) -> None:
        super().__init__(f"planted {name}")
        self.sqlite_errorname = name


ERRORS = {
    "sqlite": [Trouble("SQLITE_FULL"), Trouble("SQLITE_IOERR_WRITE"), Trouble("SQLITE_BUSY"), Trouble("SQLITE_READONLY")],
    "postgres": [
        asyncpg.DeadlockDetectedError("planted 40P01"),
        asyncpg.SerializationError("planted 40001"),
        asyncpg.LockNotAvailableError("planted 55P03"),
        asyncpg.DiskFullError("planted 53100"),
    ],
}


@pytest.mark.parametrize("nth", range(4))
async def test_trouble_inside_the_block_runs_the_stage_again_and_spends_no_attempt(db: Database, nth: int) -> None:
    error = ERRORS["sqlite" if isinstance(db, Sqlite) else "postgres"][nth]

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        with contextlib.suppress(Exception):  # it cannot be done away with: the SQL is gone
            async with ctx.transaction() as conn:
                await db.add(conn, job.id, ctx.attempt)
                if ctx.attempt <= 2:
                    raise error
        return Step.DONE

    record = await ran(db, handler)
    assert record.condition is Condition.FINISHED
    assert await db.entries() == [("j", 3)]
    entries = await history(db, one_stage(free))
    assert kinds(entries) == ["started", "rolled back", "rolled back", "moved"]
    assert str(error) in entries[1].reason


async def test_a_session_that_is_cut_in_the_middle_runs_the_stage_again(postgres_url: str) -> None:
    """In its block, and between that and its commit; the handler may even hide it."""
    db = Postgres(postgres_url)
    await db.make()

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, ctx.attempt)
            pid = await conn.fetchval("SELECT pg_backend_pid()")
            if ctx.attempt == 1:
                await cut(pid)
                with contextlib.suppress(Exception):
                    await conn.execute("SELECT 1")
        if ctx.attempt == 2:
            await cut(pid)
        return Step.DONE

    async def cut(pid: int) -> None:
        async with db.connected() as conn:
            assert await conn.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)

    record = await ran(db, handler)
    assert record.condition is Condition.FINISHED
    assert await db.entries() == [("j", 3)]
    assert kinds(await history(db, one_stage(free))) == ["started", "rolled back", "rolled back", "moved"]


async def test_a_statement_that_takes_too_long_is_the_handlers_failure(postgres_url: str) -> None:
    db = Postgres(postgres_url)
    await db.make()

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await conn.execute("SET LOCAL statement_timeout = 50")
            await conn.execute("SELECT pg_sleep(10)")
        return Step.DONE

    assert (await ran(db, handler)).condition is Condition.FAILED


async def test_a_block_of_conn_transaction_is_a_savepoint(postgres_url: str) -> None:
    db = Postgres(postgres_url)
    await db.make()

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            async with conn.transaction():
                await db.add(conn, job.id, 1)
                with pytest.raises(asyncpg.UniqueViolationError):
                    async with conn.transaction():
                        await db.add(conn, job.id, 2)
                        await db.add(conn, job.id, 1)
            with pytest.raises(LookupError):
                async with conn.transaction():
                    await db.add(conn, job.id, 3)
                    with pytest.raises(asyncpg.UniqueViolationError):
                        async with conn.transaction():
                            await db.add(conn, job.id, 3)
                    raise LookupError  # all of this block goes, not only what came after the one inside of it
            by_hand = conn.transaction()
            await by_hand.start()
            await db.add(conn, job.id, 4)
            await by_hand.rollback()
            with pytest.raises(asyncpg.InterfaceError, match="isolation"):
                conn.transaction(isolation="serializable")
            with pytest.raises(asyncpg.InterfaceError, match="once"):
                await by_hand.commit()
            await db.add(conn, job.id, 5)
        return Step.DONE

    assert (await ran(db, handler)).condition is Condition.FINISHED
    assert await db.entries() == [("j", 1), ("j", 5)]


async def test_a_deferred_constraint_that_fails_at_the_commit_is_the_handlers_failure(postgres_url: str) -> None:
    db = Postgres(postgres_url)
    await db.make()

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await conn.execute("CREATE TABLE child (n integer REFERENCES entry (n) DEFERRABLE INITIALLY DEFERRED)")
            await conn.execute("INSERT INTO child VALUES (1)")
        return Step.DONE

    record = await ran(db, handler, retry=Retry(attempts=2, first=0.01))
    assert record.condition is Condition.FAILED
    assert "could not be committed" in (record.error or "")
    assert kinds(await history(db, one_stage(free))) == ["started", "retry", "failed"]


def _planted(monkeypatch: pytest.MonkeyPatch, *, before: bool, times: int = 1) -> list[str]:
    """The next COMMIT of a handler's transaction is answered with an error, before or after it was done."""
    real, met = Turn._commit, []

    class Liar:
        def __init__(self, connection: sqlite3.Connection) -> None:
            self.__dict__["real"] = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self.__dict__["real"], name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(self.__dict__["real"], name, value)

        def execute(self, statement: str, *values: Any) -> Any:
            if statement != "COMMIT" or len(met) >= times:
                return self.__dict__["real"].execute(statement, *values)
            met.append(statement)
            self.__dict__["real"].execute("ROLLBACK" if before else "COMMIT")
            raise Trouble("SQLITE_IOERR")

    monkeypatch.setattr(Turn, "_commit", lambda self, connection, item: real(self, Liar(connection), item))  # type: ignore[arg-type]
    return met


async def test_a_commit_that_failed_runs_the_stage_again(lite: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    met = _planted(monkeypatch, before=True, times=2)

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await lite.add(conn, job.id, ctx.attempt)
        return Step.DONE

    record = await ran(lite, handler)
    assert (record.condition, len(met)) == (Condition.FINISHED, 2)
    assert await lite.entries() == [("j", 3)]
    assert kinds(await history(lite, one_stage(free))) == ["started", "rolled back", "rolled back", "moved"]


async def test_a_commit_whose_answer_was_lost_is_found_in_the_history(lite: Sqlite, monkeypatch: pytest.MonkeyPatch) -> None:
    met = _planted(monkeypatch, before=False)
    seen = []

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await lite.add(conn, job.id, ctx.attempt)
        return Step.DONE

    async with opened(one_stage(handler), url=lite.url, observers=[lambda event: seen.append(event.kind)]) as app:
        await app.start(Job(id="j"))
        await work_off(app)
    assert len(met) == 1
    assert seen == ["moved"]
    assert await lite.entries() == [("j", 1)]
    assert kinds(await history(lite, one_stage(free))) == ["started", "moved"]


@pytest.mark.parametrize("fault", ["deferred key", "open cursor"])
async def test_what_the_handler_wrote_and_the_commit_refuses_is_its_own_failure(lite: Sqlite, fault: str) -> None:
    kept: list[Any] = []

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            if fault == "open cursor":
                kept.append(conn.execute("INSERT INTO entry VALUES ('j', 1), ('j', 2) RETURNING n"))
            else:
                conn.execute("CREATE TABLE child (n INTEGER REFERENCES entry (n) DEFERRABLE INITIALLY DEFERRED)")
                conn.execute("INSERT INTO child VALUES (1)")
        return Step.DONE

    record = await ran(lite, handler, retry=Retry(attempts=2, first=0.01))
    assert record.condition is Condition.FAILED
    assert "could not be committed" in (record.error or "")
    assert kinds(await history(lite, one_stage(free))) == ["started", "retry", "failed"]
    assert await lite.entries() == []


async def test_a_transaction_that_is_held_for_too_long_is_ended_and_is_the_handlers_failure(
    lite: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_module, "TRANSACTION_S", 0.2)

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await lite.add(conn, job.id, 1)
            for _ in range(1_000):  # until it is told
                await asyncio.sleep(0.01)
                conn.execute("SELECT 1")
        return Step.DONE

    record = await ran(lite, handler)
    assert record.condition is Condition.FAILED
    assert "open for more than 0.2 s" in (record.error or "")
    assert await lite.entries() == []


async def test_the_others_wait_for_a_transaction_and_then_go_on(lite: Sqlite) -> None:
    """In this program and in another one: nobody fails for it."""

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            await lite.add(conn, job.id, int(job.id))
            await asyncio.sleep(0.05)
        return Step.DONE

    async with opened(one_stage(handler), url=lite.url) as app, opened(one_stage(handler), url=lite.url) as rival:
        await app.start_many([Job(id=str(n)) for n in range(12)])
        await asyncio.gather(work_off(app), work_off(rival))
        records = await app.find()
    assert {record.condition for record in records} == {Condition.FINISHED}
    assert {record.attempt for record in records} == {0}
    assert await lite.entries() == [(str(n), n) for n in range(12)]


async def test_what_a_handler_sets_on_its_connection_or_keeps_of_it_harms_nobody(lite: Sqlite) -> None:
    kept: list[sqlite3.Connection] = []

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as conn:
            assert isinstance(conn, sqlite3.Connection) and conn.row_factory is None
            conn.row_factory, conn.text_factory = (lambda cursor, row: {"n": row}), bytes
            conn.execute("CREATE TEMP TABLE entry (job, n)")
            await lite.add(conn, job.id, 1)
            conn.execute("INSERT INTO main.entry VALUES ('j', 2)")
            kept.append(conn)
        return Step.DONE

    assert (await ran(lite, handler)).condition is Condition.FINISHED
    assert await lite.entries() == [("j", 2)]
    with pytest.raises(sqlite3.ProgrammingError):
        kept[0].execute("SELECT 1")


async def test_a_cancelled_wait_for_a_transaction_holds_up_nobody(lite: Sqlite) -> None:
    store = SqliteStore(str(lite.path), Onward(lite.url, []).clock)
    await store.open()
    try:
        from onward.testing.contract.rows import claimed

        [first, second] = await claimed(store, "a", "b")
        turn = await store.begin(first)
        waiting = asyncio.create_task(store.begin(second))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await turn.rollback()
        await turn.rollback()
        again = await store.begin(second)
        await again.rollback()
        assert isinstance(store._writer, Writer)
    finally:
        await store.close()


# -- killed at every point ----------------------------------------------------------------------------------------------
# On SQLite faults/test_crash_matrix.py does it, with all else that can be under way.

PROGRAM = """
import asyncio, os, signal, sys
import asyncpg
from onward.store.postgres import transaction as postgres_transaction
from test_transactions import Postgres, killed_flow
url, point = sys.argv[1:]

def trip(here):
    if here == point:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

class Connection(asyncpg.Connection):
    async def execute(self, query, *values, **options):
        trip(f"before {query.split()[0]}")
        answer = await super().execute(query, *values, **options)
        trip(f"after {query.split()[0]}")
        return answer

connect = asyncpg.connect
asyncpg.connect = lambda *a, **o: connect(*a, **{**o, "connection_class": Connection})
make = asyncpg.create_pool
asyncpg.create_pool = lambda *a, **o: make(*a, **{**o, "connection_class": Connection})
asyncio.run(killed_flow(url, trip))
"""
POINTS = ["asked", "before BEGIN", "after BEGIN", "before INSERT", "after INSERT", "left", "before COMMIT", "after COMMIT"]
NUMBER = 6


async def killed_flow(url: str, trip: Callable[[str], None]) -> None:
    db = Postgres(url)

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        trip("asked")
        async with ctx.transaction() as conn:
            await db.add(conn, job.id, int(job.id))
        trip("left")
        return Step.DONE

    async with Onward(url, [one_stage(handler, retry=Retry(attempts=20, first=0.01))]) as app:
        await app.start_many([Job(id=str(n)) for n in range(NUMBER)])
        await app.run(until_idle=True, lease=0.4, concurrency=2)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_anywhere_leaves_one_row_for_each_transition_and_no_other(postgres_url: str, point: str) -> None:
    db = Postgres(postgres_url)
    asyncio.run(db.make())
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=60, env=here)
    died = run([sys.executable, "-c", PROGRAM, db.url, point])
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert asyncio.run(parted(db)) == []
    lived = run([sys.executable, "-c", PROGRAM, db.url, "nowhere"])
    assert lived.returncode == 0, lived.stderr
    assert asyncio.run(parted(db)) == []
    assert asyncio.run(db.entries()) == [(str(n), n) for n in range(NUMBER)]


async def parted(db: Postgres) -> list[Any]:
    """Rows without their transition, and transitions without their row."""
    query = """
        SELECT e.job, h.process_id FROM entry AS e
          FULL JOIN (SELECT * FROM onward_history WHERE kind = 'moved') AS h ON h.process_id = e.job
         WHERE e.job IS NULL OR h.process_id IS NULL"""
    async with db.connected() as conn:
        return list(await conn.fetch(query))


# -- starting with the caller's commit --------------------------------------------------------------------------------


@pytest.fixture
def app(lite: Sqlite) -> Onward:
    """Not entered: to start through a connection needs no open store."""
    return Onward(lite.url, [one_stage(free)])


async def there(app: Onward) -> list[str]:
    async with Onward(app.url, app.flows.values()) as other:
        return sorted(record.id for record in await other.find())


@pytest.mark.parametrize("ends", ["commit", "rollback"])
@pytest.mark.parametrize("implicit", [True, False])
async def test_a_process_exists_exactly_if_the_caller_commits(lite: Sqlite, app: Onward, ends: str, implicit: bool) -> None:
    with closing(lite.connect(isolation_level="" if implicit else None)) as conn:
        if not implicit:
            conn.execute("BEGIN")
        record = await app.start(Job(id="j", note="n"), connection=conn, actor="ann")
        await lite.add(conn, "j", 1)
        assert (record.id, record.condition, record.version, record.process.note) == ("j", Condition.READY, 0, "n")
        assert await there(app) == []
        conn.execute(ends)
    committed = ends == "commit"
    assert await there(app) == (["j"] if committed else [])
    assert await lite.entries() == ([("j", 1)] if committed else [])


async def test_a_worker_notices_at_the_commit_what_was_started_through_a_connection(lite: Sqlite, app: Onward) -> None:
    async with opened(one_stage(free), url=lite.url) as other, working(other):
        with closing(lite.connect()) as conn:
            conn.execute("BEGIN IMMEDIATE")
            await app.start_many([Job(id=f"j{n}") for n in range(700)], connection=conn)
            conn.execute("COMMIT")
        for n in range(700):
            assert (await other.wait(f"j{n}")).condition is Condition.FINISHED


async def test_the_same_input_answers_the_existing_process_and_another_is_a_conflict_that_spoils_nothing(
    lite: Sqlite, app: Onward
) -> None:
    with closing(lite.connect()) as conn:
        conn.execute("BEGIN")
        first = await app.start(Job(id="j", note="n"), connection=conn)
        again = await app.start(Job(id="j", note="n"), connection=conn)
        assert (again.id, again.version, again.created_at) == (first.id, 0, first.created_at)
        with pytest.raises(Conflict):
            await app.start(Job(id="j", note="other"), connection=conn)
        await lite.add(conn, "j", 1)
        conn.execute("COMMIT")
    assert await there(app) == ["j"]
    assert await lite.entries() == [("j", 1)]


async def test_nothing_that_the_caller_has_set_on_his_connection_matters_or_is_changed(lite: Sqlite, app: Onward) -> None:
    class Mine(sqlite3.Connection):
        pass

    def row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> dict[str, Any]:
        return {"row": values}

    with closing(lite.connect(factory=Mine, detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES)) as conn:
        conn.row_factory, conn.text_factory = row, bytes
        conn.execute("PRAGMA busy_timeout=1234")
        conn.execute("BEGIN")
        for _ in range(2):
            assert (await app.start(Job(id="j", note="é"), connection=conn)).process.note == "é"
        assert (conn.row_factory, conn.text_factory, conn.isolation_level) == (row, bytes, None)
        assert conn.execute("PRAGMA busy_timeout").fetchone() == {"row": (1234,)}
        conn.execute("COMMIT")
    assert await there(app) == ["j"]


def test_a_synchronous_program_starts_processes_too(lite_path: Path) -> None:
    url = f"sqlite:///{lite_path}"
    with closing(sqlite3.connect(lite_path)) as conn, conn:
        asyncio.run(Onward(url, [one_stage(free)]).start(Job(id="j"), connection=conn))
    assert asyncio.run(there(Onward(url, [one_stage(free)]))) == ["j"]


@pytest.fixture
def lite_path(path: Path) -> Path:
    asyncio.run(Sqlite(path).make())
    return path


class _Named:
    """Something of a class of that module and name."""

    def __new__(cls, module: str, name: str = "Connection") -> Any:
        return type(name, (), {"__module__": module})()


@pytest.mark.parametrize(
    ("connection", "said", "hint"),
    [
        (object(), "builtins.object", "asyncpg.Connection"),
        ("sqlite:///there.db", "builtins.str", "sqlite3.Connection"),
        (_Named("sqlalchemy.ext.asyncio.engine", "AsyncConnection"), "sqlalchemy", "driver_connection"),
        (_Named("asyncpg.pool", "Pool"), "asyncpg.pool.Pool", "out of the pool"),
        (_Named("psycopg2.extensions", "connection"), "psycopg2", "psycopg.Connection"),
        (_Named("asyncpg.connection"), "asyncpg's to PostgreSQL", "without connection="),
        (_Named("psycopg"), "psycopg's to PostgreSQL", "without connection="),
    ],
)
async def test_a_connection_that_is_of_no_use_is_refused_with_what_to_write(
    app: Onward, connection: Any, said: str, hint: str
) -> None:
    with pytest.raises(OnwardError, match=said) as error:
        await app.start(Job(id="j"), connection=connection)
    assert hint in error.value.hint
    assert await there(app) == []


async def test_a_connection_in_no_transaction_is_refused(lite: Sqlite, app: Onward) -> None:
    with closing(lite.connect()) as conn:
        with pytest.raises(OnwardError, match="in no transaction") as error:
            await app.start(Job(id="j"), connection=conn)
        assert "BEGIN" in error.value.hint
    assert await there(app) == []


async def test_a_connection_to_postgresql_has_to_be_in_a_transaction_that_works(postgres_url: str) -> None:
    db = Postgres(postgres_url)
    await db.make()
    app = Onward(db.url, [one_stage(free)])

    async def refused(conn: Any, said: str) -> None:
        with pytest.raises(OnwardError, match=said):
            await app.start(Job(id="j"), connection=conn)

    async with db.connected() as conn:
        await refused(conn, "in no transaction")
        async with conn.transaction():
            await app.start(Job(id="asyncpg"), connection=conn)
    async with asyncpg.create_pool(db.url, min_size=1, max_size=1) as pool:
        await refused(pool, "nothing that a process could be started through")
        async with pool.acquire() as conn, conn.transaction():
            await app.start(Job(id="pooled"), connection=conn)
    async with await psycopg.AsyncConnection.connect(db.url, autocommit=True) as conn:
        await refused(conn, "in no transaction")
        async with conn.transaction():
            await app.start(Job(id="async"), connection=conn)
            with pytest.raises(Conflict):
                await app.start(Job(id="async", note="other"), connection=conn)
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with conn.transaction():
                    await conn.execute("SELECT 1 / 0")
    with psycopg.connect(db.url, autocommit=True) as conn:
        await refused(conn, "in no transaction")
        with conn.transaction():
            await app.start(Job(id="sync"), connection=conn)
    with psycopg.connect(db.url, row_factory=psycopg.rows.dict_row) as conn:
        await app.start(Job(id="begun by it"), connection=conn)
    with psycopg.connect(db.url) as conn:
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("SELECT 1 / 0")
        await refused(conn, "has failed already")
        conn.rollback()
    with closing(sqlite3.connect(":memory:")) as other:
        await refused(other, "the store of this app is PostgreSQL, and the connection is sqlite3's to SQLite")
    assert await there(app) == ["async", "asyncpg", "begun by it", "pooled", "sync"]


async def test_a_connection_to_another_file_or_to_one_without_our_tables_is_refused(tmp_path: Path, app: Onward) -> None:
    for other in (":memory:", tmp_path / "other.db"):
        with closing(sqlite3.connect(other)) as conn, pytest.raises(OnwardError, match="and the store of this app is"):
            await app.start(Job(id="j"), connection=conn)
    empty = Onward(f"sqlite:///{tmp_path}/empty.db", app.flows.values())
    with closing(sqlite3.connect(tmp_path / "empty.db")) as conn, pytest.raises(StoreError, match="no tables of Onward") as error:
        await empty.start(Job(id="j"), connection=conn)
    assert "onward db upgrade" in error.value.hint


async def test_a_busy_file_is_the_callers_to_wait_for(lite: Sqlite, app: Onward) -> None:
    with closing(lite.connect()) as holder, closing(lite.connect(timeout=0.05)) as conn:
        holder.execute("BEGIN IMMEDIATE")
        conn.execute("BEGIN")
        with pytest.raises(StoreError, match="locked"):
            await app.start(Job(id="j"), connection=conn)
        holder.execute("ROLLBACK")
        conn.execute("ROLLBACK")
    assert await there(app) == []


def test_guest_imports_no_driver() -> None:
    script = "import sys, onward.store.guest; print({'asyncpg', 'psycopg'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
