"""Upkeep of both stores: migrations that nothing applies but `onward db upgrade`, status, pruning, backups."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import postgres
import psycopg
import pytest
from cli_project import Project, shop
from click.testing import CliRunner

from onward.cli import cli
from onward.cli.db import db
from onward.errors import StoreError
from onward.ports import Upkeep
from onward.store import open_store, upkeep_of
from onward.store.postgres import upkeep as postgres_upkeep
from onward.store.postgres.dump import without_password
from onward.store.postgres.upkeep import PostgresUpkeep
from onward.store.schema import Migration, migrations
from onward.store.sql import load
from onward.store.sqlite import upkeep as sqlite_upkeep
from onward.store.sqlite.file import SCHEMA, SQL
from onward.store.sqlite.upkeep import SqliteUpkeep
from onward.store.urls import shown
from onward.testing import ManualClock
from onward.testing.contract.rows import moved, new

PATIENCE_S = 60.0
LEASE = timedelta(seconds=30)
KNOWN = [("parcel", "packed", 1)]
DAY = timedelta(days=1)
COLUMN = "ALTER TABLE onward_process ADD COLUMN colour text;"
INDEX = "CREATE INDEX onward_process_colour ON onward_process (colour);"
CONCURRENTLY = """DROP INDEX CONCURRENTLY IF EXISTS onward_process_colour;
CREATE INDEX CONCURRENTLY onward_process_colour ON onward_process (colour);"""


def set_to(clock: ManualClock, at: datetime) -> None:
    clock.jump(at - clock.now())


def quiet(text: str) -> None:
    pass


class Raw:
    """The database as anybody sees it who knows nothing of us."""

    def __init__(self, url: str) -> None:
        self.is_sqlite = url.startswith("sqlite")
        self.connection: Any = (
            sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=PATIENCE_S)
            if self.is_sqlite
            else psycopg.connect(url, autocommit=True)
        )

    def __call__(self, statement: str) -> list[tuple[Any, ...]]:
        done = self.connection.execute(statement)
        return list(done.fetchall()) if done.description else []

    def schema(self) -> list[tuple[Any, ...]]:
        """Every table and index, as text that is the same for the same schema."""
        if self.is_sqlite:
            return self("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2")
        columns = "SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns"
        return [
            *self(f"{columns} WHERE table_schema = 'public' ORDER BY 1, 2"),
            *self("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"),
            *self(
                "SELECT relname, reloptions::text, pg_get_expr(relpartbound, oid) FROM pg_class"
                " WHERE relname ~ '^onward' ORDER BY 1"
            ),
            *self("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conname ~ '^onward' ORDER BY 1, 2"),
        ]


@contextmanager
def raw(url: str) -> Iterator[Raw]:
    one = Raw(url)
    with closing(one.connection):
        yield one


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def upkeep(url: str, clock: ManualClock) -> Upkeep:
    return upkeep_of(url, clock)


def of_tomorrow(url: str, clock: ManualClock, *more: Migration) -> Upkeep:
    """The upkeep of a version to come, which has the migrations of today and `more`."""
    if url.startswith("sqlite"):
        return SqliteUpkeep(url, clock, [*sqlite_upkeep.MIGRATIONS, *more])
    return PostgresUpkeep(url, clock, [*postgres_upkeep.MIGRATIONS, *more], virtual=True)


def newest(url: str) -> int:
    return (sqlite_upkeep if url.startswith("sqlite") else postgres_upkeep).MIGRATIONS[-1].number


def next_after(url: str, *texts: str) -> list[Migration]:
    return [Migration(newest(url) + place, text, "CONCURRENTLY" in text) for place, text in enumerate(texts, 1)]


@asynccontextmanager
async def opened(url: str, clock: ManualClock) -> AsyncIterator[Any]:
    store = open_store(url, clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def old(path: Path) -> str:
    """A SQLite store as the first version made it, with a process in it."""
    return older(path, 1)


def older(path: Path, schema: int) -> str:
    with raw(f"sqlite:///{path}") as sql:
        sql.connection.executescript(f"{SQL['schema table']};")
        for number in range(1, schema + 1):
            sql.connection.executescript(SQL[f"schema {number}"])
            sql(f"INSERT INTO onward_schema VALUES ({number})")
        new_one = '[["a", "parcel", "packed", "{}", "started by hand", null]]'
        insert = SQL["insert"] if schema > 3 else SQL["insert"].replace(", data_version)", ")").replace(", value ->> 6", "")
        sql.connection.execute(insert, {"processes": new_one, "actor": "ann", "now": 1})
        assert sql.connection.execute("SELECT count(*) FROM onward_history").fetchone() == (1,)
    return f"sqlite:///{path}"


# -- opening: never a migration by surprise ---------------------------------------------------------------------------


async def test_an_older_schema_is_refused_and_left_as_it_is(old: str, clock: ManualClock) -> None:
    with raw(old) as sql:
        before = list(sql.connection.iterdump())
        with pytest.raises(StoreError, match=rf"has schema 1, this Onward needs schema {SCHEMA}") as caught:
            await open_store(old, clock).open()
        assert caught.value.hint == f"onward db upgrade --store {old}"
        assert list(sql.connection.iterdump()) == before


async def test_a_database_without_our_tables_is_refused_and_the_password_is_not_told(
    postgres_url: str, clock: ManualClock
) -> None:
    secret = postgres_url.replace("postgres@", "postgres:swordfish@")
    with pytest.raises(StoreError, match="has no tables of Onward") as caught:
        await open_store(secret, clock).open()
    assert "onward db upgrade --store 'postgresql://postgres:***@" in caught.value.hint
    assert "swordfish" not in f"{caught.value}{caught.value.hint}"
    with raw(postgres_url) as sql:
        assert sql.schema() == []


async def test_a_newer_schema_is_refused_by_all_that_would_write(url: str, upkeep: Upkeep, clock: ManualClock) -> None:
    await upkeep.upgrade(quiet)
    with raw(url) as sql:
        sql("INSERT INTO onward_schema (version) VALUES (99)")
    for does in (open_store(url, clock).open(), upkeep.upgrade(quiet), upkeep.prune(DAY, quiet)):
        with pytest.raises(StoreError, match="schema 99, written by a newer Onward"):
            await does


def test_a_url_is_shown_without_its_password() -> None:
    for url, expected in {
        "postgresql://ada:secret@host/db": "postgresql://ada:***@host/db",
        "postgresql://ada:sec/ret@x@host:5432/db": "postgresql://ada:***@host:5432/db",
        "postgresql://ada@host/db?password=secret&sslmode=require": "postgresql://ada@host/db?password=***&sslmode=require",
        "postgresql://ada@host:5432/db": "postgresql://ada@host:5432/db",
        "sqlite:///my files.db": "sqlite:///my files.db",
    }.items():
        assert shown(url) == expected


# -- upgrade ----------------------------------------------------------------------------------------------------------


async def test_an_upgrade_makes_the_newest_schema_and_a_second_one_finds_it_done(
    url: str, upkeep: Upkeep, clock: ManualClock
) -> None:
    assert "schema 1" in await upkeep.upgrade(quiet)
    assert await upkeep.schema() == newest(url)
    with raw(url) as sql:
        before = sql.schema()
        assert await upkeep.upgrade(quiet) == []
        assert sql.schema() == before
        assert sql("SELECT count(*) FROM onward_schema") == [(newest(url),)]
    async with opened(url, clock) as store:
        assert await store.insert([new("a")], "ann") == [True]


async def test_a_new_file_is_made_as_an_upgrade_would_make_it(tmp_path: Path, clock: ManualClock) -> None:
    made, upgraded = (f"sqlite:///{tmp_path / name}" for name in ("made.db", "upgraded.db"))
    async with opened(made, clock):
        pass
    await upkeep_of(upgraded, clock).upgrade(quiet)
    with raw(made) as one, raw(upgraded) as other:
        assert one.schema() == other.schema()
    assert stat.S_IMODE((tmp_path / "upgraded.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("schema", range(1, SCHEMA))
async def test_an_old_store_keeps_its_rows_and_goes_on_after_the_upgrade(
    path: Path, schema: int, clock: ManualClock, tmp_path: Path
) -> None:
    old = older(path, schema)
    assert await upkeep_of(old, clock).upgrade(quiet) == [f"schema {number}" for number in range(schema + 1, SCHEMA + 1)]
    async with opened(old, clock) as store:
        assert [entry.actor for entry in await store.acts()] == ["ann"]
        [record] = await store.claim(KNOWN, "worker-a", 1, LEASE)
        assert record.id == "a" and (await store.commit(record, moved(record))).version == 1
        assert [entry.version for entry in await store.history("a")] == [0, 1]
    await upkeep_of(f"sqlite:///{tmp_path / 'new.db'}", clock).upgrade(quiet)
    with raw(old) as sql, raw(f"sqlite:///{tmp_path / 'new.db'}") as new_one:
        assert sql.schema() == new_one.schema()


async def test_the_column_for_versions_of_data_rewrites_no_row_of_a_database_however_many_there_are(
    postgres_url: str, clock: ManualClock
) -> None:
    await PostgresUpkeep(postgres_url, clock, postgres_upkeep.MIGRATIONS[:2], virtual=True).upgrade(quiet)
    tables = "relname ~ '^onward_(process|history)' AND relkind = 'r'"
    files = f"SELECT relname, pg_relation_filenode(oid) FROM pg_class WHERE {tables}"
    with raw(postgres_url) as sql:
        before = sorted(sql(files))
        assert await upkeep_of(postgres_url, clock).upgrade(quiet) == ["schema 3"]
        assert sorted(sql(files)) == before and len(before) > 10


async def test_an_old_database_has_what_people_did_indexed_in_the_months_that_it_has(
    postgres_url: str, postgres_server: postgres.Server, clock: ManualClock
) -> None:
    """By an upgrade and by the printed SQL: also the months of which only that database knows."""
    fresh, by_hand = (postgres_server.create_database(f"{postgres_url.rpartition('/')[2]}_{name}") for name in ("new", "hand"))
    try:
        for url in (postgres_url, by_hand):
            first = PostgresUpkeep(url, clock, postgres_upkeep.MIGRATIONS[:1], virtual=True)
            await first.upgrade(quiet)
            with raw(url) as sql:
                for (name,) in sql("SELECT indexname FROM pg_indexes WHERE indexname ~ '_acts$'"):
                    sql(f"DROP INDEX {name}")  # as it was before there was such an index
        await upkeep_of(fresh, clock).upgrade(quiet)
        clock.advance(timedelta(days=40))  # a month of before is there, that an upgrade of today would not make
        script = await PostgresUpkeep("postgresql://127.0.0.1:1/none", clock).script(1)
        psql = [str(postgres_server.bin / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-c", "SET client_min_messages = warning"]
        assert "\\gexec" in script
        done = subprocess.run([*psql, "-f", "-", by_hand], input=script, text=True, capture_output=True, timeout=PATIENCE_S)
        assert not done.returncode, done.stderr
        assert (await upkeep_of(postgres_url, clock).upgrade(quiet))[0] == "schema 2"
        with raw(fresh) as one, raw(postgres_url) as other, raw(by_hand) as third:
            expected = [row for row in one.schema() if "_acts ON" in str(row)]
            assert len(expected) == postgres_upkeep.MONTHS + 1
            for sql in (other, third):
                assert set(expected) <= set(sql.schema())
        async with opened(postgres_url, clock) as store:
            assert await store.acts() == []
    finally:
        for url in (fresh, by_hand):
            postgres_server.drop_database(url.rpartition("/")[2])


async def test_rows_are_kept_and_workers_go_on_while_migrations_to_come_are_applied(
    url: str, upkeep: Upkeep, clock: ManualClock
) -> None:
    await upkeep.upgrade(quiet)
    index = INDEX if url.startswith("sqlite") else CONCURRENTLY
    tomorrow = of_tomorrow(url, clock, *next_after(url, COLUMN, index))
    async with asyncio.timeout(PATIENCE_S), opened(url, clock) as store:
        begun, over = asyncio.Event(), asyncio.Event()

        async def work() -> int:
            done = 0
            while not over.is_set() or done < 3:
                await store.insert([new(f"p{done}")], "ann")
                [record] = await store.claim(KNOWN, "worker-a", 1, LEASE, [f"p{done}"])
                await store.commit(record, moved(record))
                done += 1
                begun.set()
            return done

        worker = asyncio.create_task(work())
        await begun.wait()
        assert await tomorrow.upgrade(quiet) == [f"schema {newest(url) + more}" for more in (1, 2)]
        over.set()
        done = await worker
    with raw(url) as sql:
        assert sql("SELECT count(*) FROM onward_process WHERE version = 1 AND colour IS NULL") == [(done,)]
        assert sql("SELECT count(*) FROM onward_history") == [(2 * done,)]


async def test_of_several_upgrades_at_once_one_does_it_and_the_others_find_it_done(url: str, clock: ManualClock) -> None:
    async with asyncio.timeout(PATIENCE_S):
        done = await asyncio.gather(*(upkeep_of(url, clock).upgrade(quiet) for _ in range(4)))
    assert sum("schema 1" in each for each in done) == 1 and done.count([]) == 3
    with raw(url) as sql:
        assert sql("SELECT count(*) FROM onward_schema") == [(newest(url),)]


async def test_a_migration_that_fails_leaves_the_schema_before_it_whole(url: str, upkeep: Upkeep, clock: ManualClock) -> None:
    await upkeep.upgrade(quiet)
    with raw(url) as sql:
        before = sql.schema()
        broken = of_tomorrow(url, clock, *next_after(url, f"{COLUMN}\nCREATE INDEX onward_process_colour ON nowhere (colour);"))
        with pytest.raises(StoreError, match="nowhere"):
            await broken.upgrade(quiet)
        assert sql.schema() == before and await upkeep.schema() == newest(url)
    mended = of_tomorrow(url, clock, *next_after(url, f"{COLUMN}\n{INDEX}"))
    assert await mended.upgrade(quiet) == [f"schema {newest(url) + 1}"]


KILLED = f"""
import asyncio, os, signal, sys
import onward.store.sqlite.file
from onward.store.schema import Migration
from onward.store.sqlite.upkeep import MIGRATIONS, SqliteUpkeep
from onward.testing import ManualClock

def cut_short(script):
    yield "{COLUMN}"
    os.kill(os.getpid(), signal.SIGKILL)

onward.store.sqlite.file.statements = cut_short
more = Migration(len(MIGRATIONS) + 1, "")
asyncio.run(SqliteUpkeep(sys.argv[1], ManualClock(), [*MIGRATIONS, more]).upgrade(print))
"""


async def test_an_upgrade_that_is_killed_leaves_the_schema_before_it_whole(url: str, upkeep: Upkeep, clock: ManualClock) -> None:
    await upkeep.upgrade(quiet)
    with raw(url) as sql:
        before = sql.schema()
        if sql.is_sqlite:
            killed = subprocess.run([sys.executable, "-c", KILLED, url], capture_output=True, text=True, timeout=PATIENCE_S)
            assert killed.returncode == -signal.SIGKILL, killed.stderr
        else:
            cut_short = f"{COLUMN}\nSELECT pg_terminate_backend(pg_backend_pid());\n{INDEX}"
            with pytest.raises(StoreError):
                await of_tomorrow(url, clock, *next_after(url, cut_short)).upgrade(quiet)
        assert sql.schema() == before and await upkeep.schema() == newest(url)
    assert await of_tomorrow(url, clock, *next_after(url, COLUMN)).upgrade(quiet) == [f"schema {newest(url) + 1}"]


async def test_an_index_that_was_half_made_beside_the_workers_is_made_anew(postgres_url: str, clock: ManualClock) -> None:
    upkeep = of_tomorrow(postgres_url, clock, *next_after(postgres_url, f"{COLUMN}", CONCURRENTLY))
    with raw(postgres_url) as sql:
        await upkeep_of(postgres_url, clock).upgrade(quiet)
        sql(COLUMN)
        sql(f"INSERT INTO onward_schema (version) VALUES ({newest(postgres_url) + 1})")
        sql(INDEX)
        sql("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'onward_process_colour'::regclass")  # as a kill leaves it
        assert await upkeep.upgrade(quiet) == [f"schema {newest(postgres_url) + 2}"]
        assert sql("SELECT indisvalid FROM pg_index WHERE indexrelid = 'onward_process_colour'::regclass") == [(True,)]


async def test_a_migration_that_has_to_wait_for_a_lock_keeps_nobody_waiting_behind_it(
    postgres_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_upkeep, "LOCK_PAUSE_S", 0.3)
    await upkeep_of(postgres_url, clock).upgrade(quiet)
    said: list[str] = []
    async with asyncio.timeout(PATIENCE_S), opened(postgres_url, clock) as store:
        with raw(postgres_url) as sql:
            sql("BEGIN")
            sql("SELECT count(*) FROM onward_process")  # a report that somebody runs, with the weakest lock of all
            tomorrow = of_tomorrow(postgres_url, clock, *next_after(postgres_url, COLUMN))
            upgrade = asyncio.create_task(tomorrow.upgrade(said.append))
            number = 0
            while len([line for line in said if "in use" in line]) < 2:
                try:
                    await store.insert([new(f"p{number}")], "ann")  # waits behind the migration at most as long as that does
                    number += 1
                except StoreError as error:  # the worker's own limit is as long: then it is tried again
                    assert "lock timeout" in str(error)
                await asyncio.sleep(0.05)
            assert number >= 2 and not upgrade.done()
            sql("ROLLBACK")
        assert await upgrade == [f"schema {newest(postgres_url) + 1}"]


async def test_a_migration_that_never_has_its_lock_gives_up_and_says_why(
    postgres_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_upkeep, "LOCK_PAUSE_S", 0.0)
    monkeypatch.setattr(postgres_upkeep, "LOCK_TRIES", 1)
    upkeep = upkeep_of(postgres_url, clock)
    await upkeep.upgrade(quiet)
    with raw(postgres_url) as sql:
        sql("BEGIN")
        sql("SELECT count(*) FROM onward_process")
        with pytest.raises(StoreError, match="a lock could not be had") as caught:
            await of_tomorrow(postgres_url, clock, *next_after(postgres_url, COLUMN)).upgrade(quiet)
        assert "pg_stat_activity" in caught.value.hint and await upkeep.schema() == newest(postgres_url)


def test_the_migrations_of_a_file_have_no_gap() -> None:
    assert [each.concurrently for each in migrations({"schema 1": "", "schema 2 concurrently": ""})] == [False, True]
    for blocks in (["schema 2"], ["schema 1", "schema 3"], ["schema 2", "schema 1"]):
        with pytest.raises(AssertionError):
            migrations(dict.fromkeys(blocks, ""))
    for name in ("sqlite.sql", "postgres.sql"):
        assert migrations(load(name))


# -- the same by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [0, 1])
async def test_the_printed_sql_makes_in_sqlite_what_an_upgrade_makes(
    begin: int, old: str, tmp_path: Path, clock: ManualClock
) -> None:
    url = old if begin else f"sqlite:///{tmp_path / 'by hand.db'}"
    script = await upkeep_of(url, clock).script()
    assert script == await upkeep_of("sqlite:///nowhere.db", clock).script(begin)
    with raw(url) as by_hand:
        by_hand.connection.executescript(script)
        await upkeep_of(f"sqlite:///{tmp_path / 'other.db'}", clock).upgrade(quiet)
        with raw(f"sqlite:///{tmp_path / 'other.db'}") as other:
            assert by_hand.schema() == other.schema()
            assert by_hand("SELECT version FROM onward_schema") == other("SELECT version FROM onward_schema")
    async with opened(url, clock):
        pass
    assert len((await upkeep_of(url, clock).script()).splitlines()) == 1  # nothing is left to do


async def test_the_printed_sql_makes_in_postgres_what_an_upgrade_makes(
    postgres_url: str, postgres_server: postgres.Server, tmp_path: Path, clock: ManualClock
) -> None:
    other = postgres_server.create_database(f"{postgres_url.rpartition('/')[2]}_by_hand")
    try:
        more = next_after(other, COLUMN, CONCURRENTLY)
        upkeep = of_tomorrow(other, clock, *more)
        script = await upkeep.script()
        unreachable = PostgresUpkeep("postgresql://127.0.0.1:1/none", clock, [*postgres_upkeep.MIGRATIONS, *more])
        assert script == await unreachable.script(0)
        (tmp_path / "upgrade.sql").write_text(script)
        psql = [str(postgres_server.bin / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-f", str(tmp_path / "upgrade.sql"), other]
        subprocess.run(psql, check=True, capture_output=True, timeout=PATIENCE_S)
        assert await upkeep.upgrade(quiet) == []
        assert not [line for line in (await upkeep.script()).splitlines() if not line.startswith("--")]
        await of_tomorrow(postgres_url, clock, *more).upgrade(quiet)
        with raw(other) as by_hand, raw(postgres_url) as by_us:
            assert by_hand.schema() == by_us.schema()
            assert len(by_us.schema()) > 100
            assert by_hand("SELECT version FROM onward_schema") == by_us("SELECT version FROM onward_schema")
    finally:
        postgres_server.drop_database(f"{postgres_url.rpartition('/')[2]}_by_hand")


# -- months -----------------------------------------------------------------------------------------------------------


def partitions(sql: Raw) -> list[str]:
    found = sql("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'onward_history'::regclass ORDER BY 1")
    return [name.removeprefix("onward_history_") for (name,) in found]


async def test_a_year_of_months_is_made_and_an_entry_goes_into_its_own(postgres_url: str, clock: ManualClock) -> None:
    set_to(clock, datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    upkeep = upkeep_of(postgres_url, clock)
    await upkeep.upgrade(quiet)
    with raw(postgres_url) as sql:
        assert partitions(sql) == ["default", "y2026m11", "y2026m12", *(f"y2027m{month:02}" for month in range(1, 12))]
        async with opened(postgres_url, clock) as store:
            await store.insert([new("a")], "ann")
            clock.advance(timedelta(seconds=1))
            await store.insert([new("b")], "ann")
        assert sql("SELECT process_id, tableoid::regclass::text FROM onward_history ORDER BY 1") == [
            ("a", "onward_history_y2026m11"),
            ("b", "onward_history_y2026m12"),
        ]
        with pytest.raises(psycopg.errors.UniqueViolation):  # each of them has the second line of defence
            sql("INSERT INTO onward_history SELECT * FROM onward_history WHERE process_id = 'a'")
        assert list((await upkeep.standing()).notes) == []


async def test_too_few_months_and_entries_without_a_month_are_told_and_upgrade_makes_what_can_be_made(
    postgres_url: str, clock: ManualClock
) -> None:
    set_to(clock, datetime(2026, 1, 15, tzinfo=UTC))
    upkeep = upkeep_of(postgres_url, clock)
    await upkeep.upgrade(quiet)
    set_to(clock, datetime(2027, 2, 1, tzinfo=UTC))
    async with opened(postgres_url, clock) as store:
        await store.insert([new("late")], "ann")  # goes into `default`, and does not fail
    standing = await upkeep.standing()
    assert any("partitions for 0 more months" in note for note in standing.notes)
    assert any("1 history entries of months without a partition" in note for note in standing.notes)
    assert await upkeep.upgrade(quiet) == ["history partitions onward_history_y2027m03 to onward_history_y2028m02"]
    assert [note for note in (await upkeep.standing()).notes if "more months" in note] == []
    with raw(postgres_url) as sql:
        assert sql("SELECT tableoid::regclass::text FROM onward_history") == [("onward_history_default",)]


# -- dead rows --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def worn(url: str, clock: ManualClock) -> AsyncIterator[Callable[[], None]]:
    """A store in which nothing clears away dead rows but VACUUM. Whoever calls it makes as many as are worth a note."""
    upkeep = upkeep_of(url, clock)
    await upkeep.upgrade(quiet)
    rows = postgres_upkeep.DEAD_MIN // postgres_upkeep.HELD_XIDS
    async with opened(url, clock) as store:
        await store.insert([new(f"p{number:03}") for number in range(rows)], "ann")
    with raw(url) as sql:
        sql("ALTER TABLE onward_process SET (autovacuum_enabled = false)")

        def wear() -> None:
            for _ in range(postgres_upkeep.HELD_XIDS + 1):
                sql("UPDATE onward_process SET due_at = due_at + interval '1 second'")
            sql("SELECT pg_stat_force_next_flush()")
            [[dead]] = sql("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'onward_process'")
            assert dead >= postgres_upkeep.DEAD_MIN

        yield wear


def hold(url: str, kind: str) -> Any:
    """A transaction that is forgotten: it has only looked, or has written something, or was prepared."""
    connection = psycopg.connect(url, application_name="report")
    if kind == "looked":
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("SELECT count(*) FROM onward_process")
    if kind != "looked":
        connection.execute("CREATE TEMPORARY TABLE note AS SELECT 1" if kind == "wrote" else "SELECT pg_current_xact_id()")
    if kind == "prepared":
        connection.execute("PREPARE TRANSACTION 'it''s mine'")
    return connection


async def bloat(upkeep: Upkeep) -> list[str]:
    return [note for note in (await upkeep.standing()).notes if "dead rows" in note]


async def test_status_tells_who_keeps_dead_rows_from_being_cleared_away_until_they_are(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.PrivateServer(settings={"max_prepared_transactions": 1}) as server:
        url = server.create_database("worn")
        upkeep = upkeep_of(url, clock)
        async with worn(url, clock) as wear:
            wear()
            assert await bloat(upkeep) == []  # nobody holds them: autovacuum will come
            for kind in ("looked", "wrote", "prepared"):
                with raw(url) as sql, closing(hold(url, kind)) as holder:
                    sql("VACUUM onward_process")
                    assert await bloat(upkeep) == []  # it holds, and there is nothing to hold yet
                    wear()
                    sql("VACUUM onward_process")  # in vain
                    assert await bloat(upkeep) == []  # it may be over in a moment
                    monkeypatch.setattr(postgres_upkeep, "HELD_FOR", timedelta(0))
                    [note] = await bloat(upkeep)
                    pid = holder.info.backend_pid
                    assert re.match(r"1\d,\d{3} dead rows beside 100 live ones in onward_process", note)
                    assert "cannot be cleared away" in note and ", open for " in note
                    told = (
                        "the prepared transaction 'it''s mine' may still see them"
                        if kind == "prepared"
                        else f"session {pid} (report, postgres, idle in transaction) may still see them"
                    )
                    cure = "ROLLBACK PREPARED 'it''s mine'" if kind == "prepared" else f"SELECT pg_terminate_backend({pid})"
                    assert told in note and note.endswith(f"; next: {cure}")
                    sql(cure)
                    async with asyncio.timeout(PATIENCE_S):
                        while await bloat(upkeep):  # the session has been told to end
                            await asyncio.sleep(0.02)
                    monkeypatch.undo()


async def test_who_may_not_look_into_the_sessions_of_others_is_told_which_one_it_is(
    postgres_url: str, clock: ManualClock, project: Project
) -> None:
    role = f"looker_{postgres_url.rpartition('_')[2]}"
    async with worn(postgres_url, clock) as wear:
        with raw(postgres_url) as sql, closing(hold(postgres_url, "looked")) as holder:
            wear()
            sql(f"CREATE ROLE {role} LOGIN")
            try:
                sql(f"GRANT SELECT ON onward_process, onward_history, onward_step, onward_schema TO {role}")
                looker = postgres_url.replace("postgres@", f"{role}@")
                told = f"session {holder.info.backend_pid} (report, postgres) may still see them; next: SELECT pg_terminate"
                [note] = await bloat(upkeep_of(looker, clock))
                assert told in note
                at = ("--store", looker)
                assert told in await asyncio.to_thread(project.out, "db", "status", *at)
                assert told in await asyncio.to_thread(project.out, "doctor", *at)
            finally:
                sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


# -- prune ------------------------------------------------------------------------------------------------------------

OVER = "due_at = NULL, owner = NULL, lease_until = NULL"


async def fill(url: str, clock: ManualClock) -> None:
    """Processes of every condition, 90 days old, and finished ones that are a little older or younger than that."""
    begin = clock.now()
    async with opened(url, clock) as store:
        await store.insert([new("older")], "ann")
        clock.advance(timedelta(microseconds=1))
        await store.insert([new(id) for id in ("exactly", "cancelled", "failed", "paused", "ready", "waiting", "running")], "ann")
        for id in ("older", "exactly", "cancelled", "running"):
            [record] = await store.claim(KNOWN, "worker-a", 1, LEASE, [id])
            await store.record_step(record, "step", "1")
        clock.advance(timedelta(seconds=1))
        await store.insert([new("younger")], "ann")
    with raw(url) as sql:
        for id in ("older", "exactly", "younger"):
            sql(f"UPDATE onward_process SET condition = 'finished', {OVER} WHERE id = '{id}'")
        for id in ("cancelled", "failed", "paused"):
            sql(f"UPDATE onward_process SET condition = '{id}', {OVER} WHERE id = '{id}'")
        sql("UPDATE onward_process SET condition = 'waiting' WHERE id = 'waiting'")
        if sql.is_sqlite:
            sql("UPDATE onward_process SET updated_at = updated_at - 1 WHERE id = 'cancelled'")
        else:
            sql("UPDATE onward_process SET updated_at = updated_at - interval '1 microsecond' WHERE id = 'cancelled'")
            sql("UPDATE onward_process SET created_at = updated_at WHERE id = 'cancelled'")
    set_to(clock, begin + 90 * DAY + timedelta(microseconds=1))


def ids(sql: Raw, table: str, column: str) -> list[str]:
    return sorted(row[0] for row in sql(f"SELECT {column} FROM {table}"))


LEFT = ["exactly", "failed", "paused", "ready", "running", "waiting", "younger"]


@pytest.mark.parametrize("page", [2, 500])
async def test_prune_deletes_what_has_been_over_for_longer_to_the_microsecond_and_nothing_else(
    url: str, upkeep: Upkeep, clock: ManualClock, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sqlite_upkeep, postgres_upkeep):
        monkeypatch.setattr(module, "PAGE", page)
    set_to(clock, datetime(2026, 1, 31, tzinfo=UTC))
    await upkeep.upgrade(quiet)
    await fill(url, clock)
    with raw(url) as sql:
        said: list[str] = []
        counted = await upkeep.prune(90 * DAY, said.append, dry_run=True)
        assert (counted.processes, counted.history, counted.steps) == (2, 2, 2)
        assert said and len(ids(sql, "onward_process", "id")) == len(LEFT) + 2
        assert await upkeep.prune(90 * DAY, quiet) == counted
        assert ids(sql, "onward_process", "id") == LEFT
        assert ids(sql, "onward_history", "process_id") == LEFT
        assert ids(sql, "onward_step", "process_id") == ["exactly", "running"]
        assert (await upkeep.prune(90 * DAY, quiet)).processes == 0


async def test_prune_drops_the_months_that_are_wholly_older_and_live_processes_stay(
    postgres_url: str, clock: ManualClock
) -> None:
    set_to(clock, datetime(2026, 1, 10, tzinfo=UTC))
    upkeep = upkeep_of(postgres_url, clock)
    await upkeep.upgrade(quiet)
    async with opened(postgres_url, clock) as store:
        await store.insert([new("live"), new("over")], "ann")
        set_to(clock, datetime(2026, 2, 10, tzinfo=UTC))
        await store.insert([new("later")], "ann")
    with raw(postgres_url) as sql:
        sql(f"UPDATE onward_process SET condition = 'finished', {OVER} WHERE id = 'over'")
        set_to(clock, datetime(2026, 3, 31, tzinfo=UTC))
        assert (await upkeep.prune(59 * DAY, quiet, dry_run=True)).partitions == []  # January is not over for as long
        set_to(clock, datetime(2026, 4, 1, tzinfo=UTC))
        counted = await upkeep.prune(59 * DAY, quiet, dry_run=True)
        pruned = await upkeep.prune(59 * DAY, quiet)
        assert counted == pruned and pruned.partitions == ["onward_history_y2026m01"]
        assert (pruned.processes, pruned.history) == (1, 0)
        assert ids(sql, "onward_process", "id") == ["later", "live"] and ids(sql, "onward_history", "process_id") == ["later"]
        assert partitions(sql)[1] == "y2026m02" and partitions(sql)[-1] == "y2027m04"  # and a year is there again
    async with opened(postgres_url, clock) as store:
        [record] = await store.claim(KNOWN, "worker-a", 1, LEASE, ["live"])
        assert (await store.commit(record, moved(record))).version == 1


async def test_prune_can_be_stopped_between_two_pages(
    url: str, upkeep: Upkeep, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sqlite_upkeep, postgres_upkeep):
        monkeypatch.setattr(module, "PAGE", 3)
    await upkeep.upgrade(quiet)
    async with opened(url, clock) as store:
        await store.insert([new(f"p{number:02}") for number in range(30)], "ann")
    with raw(url) as sql:
        sql(f"UPDATE onward_process SET condition = 'finished', {OVER}")
        clock.advance(DAY)
        pruning = asyncio.create_task(upkeep.prune(timedelta(0), lambda text: pruning.cancel() and None))
        with pytest.raises(asyncio.CancelledError):
            await pruning
        left = ids(sql, "onward_process", "id")
        assert 0 < len(left) < 30 and left == ids(sql, "onward_history", "process_id")
        assert (await upkeep.prune(timedelta(0), quiet)).processes == len(left)


# -- backup -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def load_on(url: str, clock: ManualClock) -> AsyncIterator[list[int]]:
    """Somebody who starts and commits without a pause; answers how many so far."""
    done = [0]
    async with opened(url, clock) as store:

        async def work() -> None:
            while True:
                await store.insert([new(f"p{done[0]}-{place}", f'{{"text": "{"x" * 500}"}}') for place in range(20)], "ann")
                for record in await store.claim(KNOWN, "worker-a", 20, LEASE):
                    await store.commit(record, moved(record))
                done[0] += 1

        worker = asyncio.create_task(work())
        while done[0] < 10 and not worker.done():
            await asyncio.sleep(0.01)
        yield done
        assert not worker.done(), worker
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


def agrees(sql: Raw) -> int:
    """Every row has its history, without a gap, and no entry is without its row; answers how many rows there are."""
    of_it = "FROM onward_history WHERE process_id = p.id"
    torn = f"p.version <> (SELECT max(version) {of_it}) OR p.version + 1 <> (SELECT count(*) {of_it})"
    assert sql(f"SELECT count(*) FROM onward_process AS p WHERE {torn}") == [(0,)]
    assert sql("SELECT count(*) FROM onward_history WHERE process_id NOT IN (SELECT id FROM onward_process)") == [(0,)]
    return int(sql("SELECT count(*) FROM onward_process")[0][0])


async def test_a_copy_made_while_others_write_is_of_one_instant(
    path: Path, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "COPY_PAGES", 5)
    url, copy = f"sqlite:///{path}", tmp_path / "copy.db"
    upkeep = upkeep_of(url, clock)
    said: list[str] = []
    async with asyncio.timeout(PATIENCE_S), load_on(url, clock) as done:
        before = done[0]
        await upkeep.backup(copy, said.append)
        while done[0] < before + 3:  # they go on
            await asyncio.sleep(0.01)
    assert len(said) > 5
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"copy.db", path.name, f"{path.name}-lock"}
    with raw(f"sqlite:///{copy}") as sql, raw(url) as source:
        assert sql("PRAGMA integrity_check") == [("ok",)]
        assert 200 <= agrees(sql) < agrees(source)
    async with opened(f"sqlite:///{copy}", clock) as store:
        assert await store.get("p0-0") is not None
    held = copy.read_bytes()
    with pytest.raises(StoreError, match="exists, and a backup overwrites nothing"):
        await upkeep.backup(copy, quiet)
    assert copy.read_bytes() == held


async def test_a_copy_that_is_stopped_leaves_nothing(
    path: Path, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "COPY_PAGES", 1)
    upkeep = upkeep_of(f"sqlite:///{path}", clock)
    await upkeep.upgrade(quiet)
    loop = asyncio.get_running_loop()
    copying = asyncio.create_task(
        upkeep.backup(tmp_path / "copy.db", lambda _: loop.call_soon_threadsafe(copying.cancel) and None)
    )
    with pytest.raises(asyncio.CancelledError):
        await copying
    async with asyncio.timeout(PATIENCE_S):  # its thread may be at a page still
        while [file.name for file in tmp_path.iterdir() if "copy" in file.name] not in ([], ["copy.db"]):  # or it was faster
            await asyncio.sleep(0.01)
    (tmp_path / "other.db.partial").touch()
    with pytest.raises(StoreError, match="another backup is under way"):
        await upkeep.backup(tmp_path / "other.db", quiet)
    with pytest.raises(StoreError, match="cannot write"):
        await upkeep.backup(tmp_path / "no" / "such" / "folder.db", quiet)


async def test_a_dump_made_while_others_write_is_of_one_instant_and_can_be_restored(
    postgres_url: str, postgres_server: postgres.Server, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(postgres_server.bin))
    upkeep, copy = upkeep_of(f"{postgres_url}?notify=off&application_name=me&lock_timeout=3s", clock), tmp_path / "shop.dump"
    await upkeep.upgrade(quiet)
    async with asyncio.timeout(PATIENCE_S), load_on(postgres_url, clock) as done:
        before = done[0]
        await upkeep.backup(copy, quiet)
        while done[0] < before + 3:
            await asyncio.sleep(0.01)
    assert [file.name for file in tmp_path.iterdir()] == ["shop.dump"] and stat.S_IMODE(copy.stat().st_mode) == 0o600
    with raw(postgres_url) as sql:
        later = agrees(sql)
        schema = sql.schema()
        restore = [str(postgres_server.bin / "pg_restore"), "--clean", "--if-exists", f"--dbname={postgres_url}", str(copy)]
        subprocess.run(restore, check=True, capture_output=True, timeout=PATIENCE_S)
        assert 200 <= agrees(sql) < later
        assert sql.schema() == schema
    async with opened(postgres_url, clock) as store:
        assert await store.get("p0-0") is not None
    with pytest.raises(StoreError, match="overwrites nothing"):
        await upkeep.backup(copy, quiet)


async def test_a_dump_without_pg_dump_or_against_its_will_says_so_and_leaves_nothing(
    postgres_url: str, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = upkeep_of(postgres_url, clock)
    with pytest.raises(StoreError, match="has no tables of Onward"):
        await upkeep.backup(tmp_path / "shop.dump", quiet)
    await upkeep.upgrade(quiet)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match="pg_dump is not on PATH") as caught:
        await upkeep.backup(tmp_path / "shop.dump", quiet)
    assert "install" in caught.value.hint
    (tmp_path / "pg_dump").write_text('#!/bin/sh\necho "args: $*" >&2\necho "server version mismatch" >&2\nexit 1\n')
    (tmp_path / "pg_dump").chmod(0o755)
    secret = upkeep_of(postgres_url.replace("postgres@", "postgres:swordfish@"), clock)
    with pytest.raises(StoreError, match="server version mismatch") as caught:
        await secret.backup(tmp_path / "shop.dump", quiet)
    assert "swordfish" not in str(caught.value)  # it says what it was called with
    assert [file.name for file in tmp_path.iterdir()] == ["pg_dump"]


def test_a_password_goes_to_pg_dump_by_the_environment() -> None:
    assert without_password("postgresql://ada:s%40cret@h:1/db?sslmode=require&search_path=x") == (
        "postgresql://ada@h:1/db?sslmode=require",
        {"PGPASSWORD": "s@cret"},
    )
    assert without_password("postgresql://ada@h/db?password=s%40cret") == ("postgresql://ada@h/db", {"PGPASSWORD": "s@cret"})
    assert without_password("postgresql://h1,h2/db") == ("postgresql://h1,h2/db", {})


# -- claims beside a million rows -------------------------------------------------------------------------------------


def plan_of(sql: Raw, block: str) -> str:
    values = {"now": 1, "known": "[]", "limit": 1}
    return "\n".join(row[3] for row in sql.connection.execute(f"EXPLAIN QUERY PLAN {SQL[block]}", values))


async def test_a_claim_looks_for_suspects_in_an_index_of_their_own(path: Path, clock: ManualClock) -> None:
    async with opened(f"sqlite:///{path}", clock):
        pass
    with raw(f"sqlite:///{path}") as sql:
        for analysed in (False, True):
            assert "SEARCH onward_process USING INDEX onward_process_suspect (<expr><?)" in plan_of(sql, "due suspect")
            assert "SEARCH onward_process USING INDEX onward_process_due (<expr><?)" in plan_of(sql, "due")
            assert "B-TREE" not in plan_of(sql, "due suspect")
            if not analysed:
                sql("ANALYZE")


# -- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        yield project


@pytest.mark.parametrize("name", ["status", "upgrade", "prune", "backup"])
def test_the_help_of_every_command_of_db_has_examples_that_it_understands(name: str, project: Project) -> None:
    shown = CliRunner().invoke(cli, ["db", name, "--help"])
    assert shown.exit_code == 0 and "Examples:" in shown.output
    command: Any = db.commands[name]
    for example in command.examples:
        words = shlex.split(example.partition(">")[0])
        assert example in shown.output and words[:3] == ["onward", "db", name]
        with click.Context(cli, obj=cli.make_context("onward", ["--version"], resilient_parsing=True).obj) as parent:
            command.make_context(name, words[3:], parent=parent)


def test_db_tells_upgrades_prunes_and_copies(project: Project, url: str) -> None:
    at = ("--store", url)
    if not url.startswith("sqlite"):
        told = project.out("db", "status", *at, code=1)
        assert f"schema     none; this Onward needs {newest(url)}" in told and f"onward db upgrade --store {url}" in told
        assert "onward db upgrade" in project.out("doctor", *at, code=6)
        assert project.out("db", "upgrade", "--sql", *at).count("BEGIN;") == 2  # one for each schema that is no index
    assert project.out("db", "upgrade", *at).startswith("schema 1\n")
    assert "nothing to do" in project.out("db", "upgrade", *at)
    assert project.json("db", "upgrade", *at)["done"] == []
    for number in range(3):
        project.start("--id", f"tea-{number}", "--set", "item=tea", "--set", "count=0", *at)
    project.work(*at)
    project.start("--set", "item=tea", *at)
    told = project.out("db", "status", *at)
    assert "1 ▷ ready" in told and "3 ✓ finished" in told and "next" not in told
    document = project.json("db", "status", *at)
    assert document["conditions"] == {"ready": 1, "finished": 3} and document["schema_found"] == newest(url)
    assert set(document) == {
        "schema", "store", "schema_found", "schema_needed", "conditions", "history", "oldest_history", "bytes", "notes",
    }  # fmt: skip
    if url.startswith("sqlite"):
        assert project.out("db", "backup", "copy.db", *at).startswith("copy.db: ")
        assert "overwrites nothing" in project.error("db", "backup", "copy.db", *at, code=6)
    assert project.json("db", "prune", "--older-than", "1h", *at)["processes"] == 0
    assert "would be deleted: 3 processes, 9 history entries" in project.out(
        "db", "prune", "--older-than", "0s", "--dry-run", *at
    )
    assert "deleted: 3 processes, 9 history entries, 0 steps" in project.out("db", "prune", "--older-than", "0s", *at)
    assert [line.split()[2] for line in project.out("ls", *at).splitlines()[1:]] == ["placed"]


def test_an_older_store_is_told_by_every_command_and_changed_by_none_but_upgrade(project: Project, old: str) -> None:
    at = ("--store", old)
    with raw(old) as sql:
        before = list(sql.connection.iterdump())
        for words in (["ls"], ["show", "a"], ["check"], ["start", "purchase", "--set", "item=tea"], ["run", "--until-idle"]):
            assert f"onward db upgrade --store {old}" in project.error(*words, *at, code=6)
        told = project.out("doctor", *at, code=6)
        assert "store.schema: 1" in told and "onward db upgrade --store" in told
        assert "next       onward db upgrade" in project.out("db", "status", *at, code=1)
        assert "has schema 1" in project.error("db", "prune", "--older-than", "0s", *at, code=6)
        assert project.out("db", "backup", "before.db", *at)
        assert list(sql.connection.iterdump()) == before
    assert project.out("db", "upgrade", *at) == "schema 2\nschema 3\nschema 4\n"
    assert project.out("ls", *at)


def test_db_says_what_it_cannot_do(project: Project) -> None:
    assert "there is no store" in project.error("db", "status", code=6)
    assert not list(project.folder.glob("*.db*"))
    assert "did you mean status?" in project.error("db", "statsu", code=2)
    assert "--from goes with --sql" in project.error("db", "upgrade", "--from", "0", code=2)
    assert "needs no upkeep" in project.error("db", "status", "--store", "sqlite:///:memory:", code=6)
    assert "sqlite -bail" not in project.out("db", "upgrade", "--sql", "--from", "1")
    Path("diary.db").write_text("Dear diary, " * 1_000)
    assert "not a database" in project.error("db", "status", "--store", "sqlite:///diary.db", code=6)
    unreachable = ("--store", "postgresql://ada:swordfish@127.0.0.1:1/shop")
    said = project.error("db", "status", *unreachable, code=6)
    assert "ada:***@" in said and "swordfish" not in said
    assert "CREATE TABLE onward_process" in project.out("db", "upgrade", "--sql", "--from", "0", *unreachable)
