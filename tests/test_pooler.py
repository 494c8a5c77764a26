"""PgBouncer in transaction mode between us and PostgreSQL: each transaction gets whichever session is free, with its settings.

A real one. Where there is none, these tests are left out: `make test` installs it where it may, else apt-get install pgbouncer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import asyncpg
import pgbouncer
import pytest
from conftest import PATIENCE_S
from pgbouncer import PgBouncer
from postgres import Server
from test_store_postgres import User

from onward import END, Condition, Context, Every, Flow, Onward, Process, StoreError, stage
from onward.clock import SystemClock
from onward.store import upkeep_of
from onward.store.postgres.session import SESSION
from onward.store.postgres.store import PostgresStore
from onward.testing import ManualClock, StoreContract

pytestmark = pytest.mark.skipif(pgbouncer.program() is None, reason="no pgbouncer here: apt-get install pgbouncer")

SIZE = 3  # sessions for everybody, fewer than one store would like to have
PROCESSES = 100
HERE = Path(__file__)
WORKER = f"""
import asyncio, sys
sys.path.insert(0, {str(HERE.parent)!r})
import test_pooler
asyncio.run(test_pooler.work(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def pooler(postgres_server: Server) -> Iterator[PgBouncer]:
    with PgBouncer(postgres_server.url, SIZE) as pooler:
        yield pooler


@pytest.fixture(scope="module")
def tables(postgres_server: Server) -> Iterator[str]:
    """A database to copy, since a copy is made sooner than the tables."""
    name = f"onward_tables_{secrets.token_hex(6)}"
    url = postgres_server.create_database(name)
    asyncio.run(make_tables(url))
    yield name
    postgres_server.drop_database(name)


async def make_tables(url: str) -> None:
    await upkeep_of(url, SystemClock(), virtual=False).upgrade(print)
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE note (text text PRIMARY KEY)")
    await connection.close()


@pytest.fixture
def direct(postgres_server: Server, tables: str) -> Iterator[str]:
    """A database with our tables, without the pooler."""
    name = f"onward_test_{secrets.token_hex(6)}"
    yield postgres_server.create_database(name, template=tables)
    postgres_server.drop_database(name)


@pytest.fixture
def url(pooler: PgBouncer, direct: str) -> str:
    return pooler.url_of(direct)


# -- a flow that uses all that there is -----------------------------------------------------------------------------


class Step(StrEnum):
    COUNT, LOOK, WRITE, DONE = auto(), auto(), auto(), auto()


class Tally(Process[Step]):
    status: Step = Step.COUNT
    numbers: list[int] = []
    looks: int = 0


async def count(tally: Tally, ctx: Context) -> Literal[Step.LOOK]:
    async def one(number: int) -> int:
        await asyncio.sleep(0.01)
        return number * number

    tally.numbers = await ctx.map(one, [1, 2, 3])
    await ctx.save()
    return Step.LOOK


async def look(tally: Tally) -> Literal[Step.LOOK, Step.WRITE]:
    tally.looks += 1
    return Step.WRITE if tally.looks == 3 else Step.LOOK


async def write(tally: Tally, ctx: Context) -> Literal[Step.DONE]:
    async with ctx.transaction() as connection:
        await connection.execute("INSERT INTO written VALUES ($1)", tally.id)
    return Step.DONE


FLOW: Flow[Any] = Flow(Tally, {Step.COUNT: count, Step.LOOK: stage(look, every=Every(0.05)), Step.WRITE: write, Step.DONE: END})


async def work(url: str) -> None:
    async with Onward(url, flows=[FLOW]) as app:
        await app.run(until_idle=True, lease=2.0)


async def test_two_workers_get_along_with_three_sessions(direct: str, url: str) -> None:
    """A whole run, one of the workers killed in the middle: every effect once, every version there, and no session more."""
    connection = await asyncpg.connect(direct)
    await connection.execute("CREATE TABLE written (id text NOT NULL)")
    async with Onward(url, flows=[FLOW]) as app:
        started = await app.start_many([Tally(id=f"tally-{n}") for n in range(PROCESSES)])
        workers = [subprocess.Popen([sys.executable, "-W", "error", "-c", WORKER, url]) for _ in range(2)]
        sessions = 0
        try:
            async with asyncio.timeout(6 * PATIENCE_S):
                while any(count.condition is not Condition.FINISHED for count in await app.counts()):
                    sessions = max(
                        sessions,
                        await connection.fetchval(
                            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                        ),
                    )
                    if workers[0].poll() is None and await connection.fetchval("SELECT count(*) FROM written") > PROCESSES / 10:
                        workers[0].kill()
                    await asyncio.sleep(0.05)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait(PATIENCE_S)
        for record in started:
            versions = [entry.version for entry in await app.history(record.id)]
            assert versions == list(range(len(versions)))
    assert workers[0].returncode == -9
    assert 1 < sessions <= SIZE
    assert await connection.fetchval("SELECT count(*) = count(DISTINCT id) FROM written")
    assert await connection.fetchval("SELECT count(*) FROM written") == PROCESSES
    workers_seen = await connection.fetchval("SELECT count(DISTINCT actor) FROM onward_history WHERE actor LIKE 'worker-%'")
    assert workers_seen == 2
    await connection.close()


class TestContract(StoreContract):
    """Everything that a store promises, through the pooler."""

    @pytest.fixture
    async def store(self, url: str, clock: ManualClock) -> AsyncIterator[PostgresStore]:
        store = PostgresStore(url, clock)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture
    async def rival(self, store: PostgresStore, url: str, clock: ManualClock) -> AsyncIterator[PostgresStore]:
        rival = PostgresStore(url, clock)
        await rival.open()
        yield rival
        await rival.close()

    @pytest.fixture
    def user(self, direct: str) -> User:
        return User(direct, "asyncpg")


# -- what is said -----------------------------------------------------------------------------------------------


async def opened(url: str) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.close()


async def test_whoever_forgets_to_name_the_pooler_is_told_what_to_add_and_it_helps(url: str) -> None:
    forgotten, _, cure = url.partition("?")
    with pytest.raises(StoreError, match="unsupported startup parameter") as caught:
        await opened(forgotten)
    assert f"add ?{cure} to the URL" in str(caught.value.hint)
    await opened(f"{forgotten}?{cure}")


async def test_a_setting_in_the_url_of_a_pooler_is_refused_with_the_cure(url: str) -> None:
    with pytest.raises(StoreError, match="unsupported startup parameter: statement_timeout") as caught:
        await opened(f"{url}&statement_timeout=30s")
    assert "ALTER ROLE" in str(caught.value.hint)


async def test_a_role_that_does_not_wait_for_the_disk_is_warned_of_and_the_cure_cures(
    direct: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And the settings that docs/postgres.md advises for a role are then those of its sessions."""
    connection = await asyncpg.connect(direct)
    role = f"forgetful_{direct.rpartition('_')[2].partition('?')[0]}"
    try:
        await connection.execute(f"CREATE ROLE {role} LOGIN; ALTER ROLE {role} SET synchronous_commit = off")
        await connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
        with PgBouncer(direct, user=role) as pooler, caplog.at_level(logging.WARNING, "onward"):
            await opened(pooler.url_of(direct))
        [said] = caplog.messages
        cure = said[said.index("ALTER ROLE") : said.index(";", said.index("ALTER ROLE"))]
        await connection.execute(cure)
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            await connection.execute(f"ALTER ROLE {role} SET {name} = '{SESSION[name]}'")
        caplog.clear()
        with PgBouncer(direct, user=role) as pooler:
            await opened(pooler.url_of(direct))
            guest = await asyncpg.connect(pooler.url_of(direct).partition("?")[0], statement_cache_size=0)
            assert await guest.fetchval("SHOW synchronous_commit") == "on"
            assert await guest.fetchval("SHOW lock_timeout") == SESSION["lock_timeout"]
            await guest.close()
        assert not caplog.messages
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await connection.close()
