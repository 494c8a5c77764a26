"""A flow that writes to PostgreSQL in its transactions is proven with a real server, and with nothing of it left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import asyncpg
import proofs
import pytest
from click.testing import CliRunner
from conftest import Job, Step, kinds, one_stage
from postgres import Server

from onward import Context, Flow
from onward.cli import cli
from onward.errors import InvalidData, OnwardError, StoreError
from onward.testing import Outside, Proof, World, prove, run
from onward.testing.joint import JointStore
from onward.testing.proving import Fault
from onward.testing.world import database_at

TABLES = """
CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE bell (rung text);
CREATE SCHEMA shop;
CREATE TABLE shop.sale (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer integer NOT NULL REFERENCES customer DEFERRABLE INITIALLY DEFERRED,
    item text NOT NULL, number integer NOT NULL DEFAULT 1, price numeric(8, 2), sold_at timestamptz DEFAULT now(),
    entered_at timestamptz DEFAULT CURRENT_TIMESTAMP, told_at timestamptz);
"""


Sell = Callable[[Any, Context], Awaitable[object]]


def selling(sell: Sell) -> Flow[Any]:
    async def work(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as connection:
            await sell(connection, ctx)
        return Step.DONE

    return one_stage(work)


def proven(server: Server, sell: Sell, **given: Any) -> Proof:
    @contextmanager
    def shop() -> Iterator[Outside]:
        yield Outside(postgres=server.url, prepare=lambda connection: connection.execute(TABLES))

    return prove(selling(sell), Job(id="job-1"), outside=shop, **given)


def only_difference(proof: Proof) -> str:
    [failure] = proof.failures
    [text] = failure.differs
    return text


async def customer(connection: Any, name: str) -> int:
    number: int = await connection.fetchval("INSERT INTO customer (name) VALUES ($1) RETURNING id", name)
    return number


async def sale(connection: Any, item: str, **more: Any) -> None:
    columns = {"customer": await customer(connection, f"who buys {item}"), "item": item, **more}
    places = ", ".join(f"${place + 1}" for place in range(len(columns)))
    await connection.execute(f"INSERT INTO shop.sale ({', '.join(columns)}) VALUES ({places})", *columns.values())


async def rings(connection: Any, ctx: Context) -> None:
    await connection.execute("INSERT INTO bell VALUES ('a sale')")


async def databases(server: Server) -> set[str]:
    connection = await asyncpg.connect(server.url)
    try:
        return {name for (name,) in await connection.fetch("SELECT datname FROM pg_database")}
    finally:
        await connection.close()


def test_nothing_is_said_of_the_example_with_sqlalchemy(postgres_server: Server) -> None:
    proof = proofs.orders_on(postgres_server.url)
    proof.assert_clean()
    assert proof.runs >= 30


def test_all_that_a_connection_can_do_is_committed_once_and_no_database_is_left(postgres_server: Server) -> None:
    """Numbers and times that the database fills in differ each time, and nobody needs to say so."""

    async def sell(connection: Any, ctx: Context) -> None:
        prepared = await connection.prepare("INSERT INTO customer (name) VALUES ($1)")
        for name in ("Ada", "Grace", "Edith"):
            await prepared.fetch(name)
        await connection.executemany("INSERT INTO customer (name) VALUES ($1)", [("Mary",), ("Emmy",)])
        with pytest.raises(asyncpg.UniqueViolationError):
            async with connection.transaction():
                await connection.execute("DELETE FROM customer")
                await connection.execute("INSERT INTO customer (name) VALUES ('Ada'), ('Ada')")
        names = [record["name"] async for record in connection.cursor("SELECT name FROM customer ORDER BY id", prefetch=2)]
        cursor = await connection.cursor("SELECT name FROM customer ORDER BY id")
        assert (await cursor.fetch(2))[1]["name"] == "Grace"
        both = await asyncio.gather(connection.fetchval("SELECT 1"), connection.fetchval("SELECT 2"))
        assert (names, both) == (["Ada", "Grace", "Edith", "Mary", "Emmy"], [1, 2])
        assert connection.is_in_transaction() and not connection.is_closed()
        await sale(connection, "a barometer", price=12)

    before = asyncio.run(databases(postgres_server))
    proof = proven(postgres_server, sell)
    proof.assert_clean()
    assert proof.runs > 20
    assert asyncio.run(databases(postgres_server)) == before


def at_commit(fault: Fault) -> str:
    """The key of it in a flow of one such stage, right before the commit; that the point is this one is seen by what differs."""
    return f"6:{fault}"


def test_rows_that_differ_are_told_and_a_column_may_be_declared_volatile(postgres_server: Server) -> None:
    async def sell(connection: Any, ctx: Context) -> None:
        await sale(connection, "a barometer", number=ctx.attempt)
        await connection.execute("UPDATE shop.sale SET told_at = clock_timestamp()")

    def told(*volatile: str) -> Proof:
        return proven(postgres_server, sell, only=at_commit(Fault.KILLED), volatile=volatile)

    assert "told_at" in only_difference(told("shop.sale.number"))
    text = only_difference(told("shop.sale.told_at"))
    sold = '{"item": "a barometer", "price": null, "number": %d}'
    assert text == f"the tables differ: - shop.sale {sold % 1}; + shop.sale {sold % 2}"
    told("shop.sale.told_at", "shop.sale.number", "note").assert_clean()


def test_a_column_that_is_not_there_is_refused(postgres_server: Server) -> None:
    with pytest.raises(InvalidData, match=r"volatile sale\.told: Job has no such field, and no table such a column") as refused:
        proven(postgres_server, lambda connection, ctx: sale(connection, "a barometer"), volatile=["sale.told"])
    assert refused.value.hint.startswith("id, status, note, numbers, extra, customer.name, shop.sale.item")


def test_rows_that_an_overtaken_worker_committed_would_be_found(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit_one_after_the_other(self: JointStore, item: Any, theirs: Callable[[], object]) -> None:
        theirs()
        self.at_once(lambda connection: self._commit_group(connection, [item]))

    proven(postgres_server, rings, only=at_commit(Fault.FROZEN)).assert_clean()
    monkeypatch.setattr(JointStore, "commit_both", commit_one_after_the_other)
    text = only_difference(proven(postgres_server, rings, only=at_commit(Fault.FROZEN)))
    assert text == 'the tables differ: + bell {"rung": "a sale"}'


def test_rows_that_a_frozen_worker_has_locked_are_free_when_its_transaction_has_lasted_too_long(postgres_server: Server) -> None:
    async def add(connection: Any, ctx: Context) -> None:
        await connection.execute("INSERT INTO customer (name) VALUES ('Ada')")

    proven(postgres_server, add, only=at_commit(Fault.FROZEN)).assert_clean()


def test_what_a_killed_worker_has_locked_is_free_at_once(postgres_server: Server) -> None:
    async def add(connection: Any, ctx: Context) -> None:
        await connection.execute("INSERT INTO customer (name) VALUES ('Ada')")
        await asyncio.sleep(5)

    async def main() -> None:
        with database_at(postgres_server.url) as database:
            async with World([selling(add)], database=database) as world:
                await world.prepare(lambda connection: connection.execute(TABLES))
                await world.start(Job(id="job-1"))
                first = world.worker(lease=timedelta(seconds=1))
                await asyncio.sleep(2)
                first.kill()
                await world.worker(lease=timedelta(seconds=1)).running
                assert kinds(await world.whole_history("job-1")) == ["started", "moved"]
                assert world.rows() == [("customer", {"name": "Ada"})]

    run(main)


def test_a_constraint_that_is_looked_at_in_the_end_fails_the_attempt_and_nothing_is_written(postgres_server: Server) -> None:
    async def sell(connection: Any, ctx: Context) -> None:
        await connection.execute("INSERT INTO shop.sale (customer, item) VALUES (7, 'a barometer')")

    with pytest.raises(OnwardError, match=r"undisturbed it ends failed at make: .*foreign key"):
        proven(postgres_server, sell)


@pytest.mark.parametrize("verb", ["execute", "fetchval"])
def test_a_handler_of_postgresql_that_is_given_sqlite_is_told_what_it_needs(verb: str) -> None:
    with pytest.raises(OnwardError, match="undisturbed it ends failed") as error:
        prove(selling(lambda connection, ctx: getattr(connection, verb)("SELECT 1")), Job(id="job-1"))
    assert "Outside(postgres=URL)" in error.value.hint


def test_a_handler_that_ends_its_transaction_is_told_so(postgres_server: Server) -> None:
    with pytest.raises(OnwardError, match="ended its transaction, which its transition does"):
        proven(postgres_server, lambda connection, ctx: connection.execute("COMMIT"))


@pytest.mark.parametrize(
    ("url", "text", "hint"),
    [
        ("sqlite:///shop.db", "no server of PostgreSQL", "postgresql://"),
        ("postgresql://nobody:secret@127.0.0.1:9/shop", "127.0.0.1", "is the server up?"),
    ],
)
def test_a_server_that_is_none_is_named_without_its_password(url: str, text: str, hint: str) -> None:
    @contextmanager
    def shop() -> Iterator[Outside]:
        yield Outside(postgres=url)

    with pytest.raises(StoreError, match=text) as error:
        prove(selling(rings), Job(id="job-1"), outside=shop)
    assert hint in error.value.hint
    assert "secret" not in str(error.value)


def test_a_user_who_may_make_no_database_is_told_what_to_do(postgres_server: Server) -> None:
    async def make(statement: str) -> None:
        connection = await asyncpg.connect(postgres_server.url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(make("CREATE ROLE onward_prover LOGIN"))
    try:
        poor = Server(postgres_server.url.replace("postgres@", "onward_prover@"))
        with pytest.raises(StoreError, match="no database can be made there") as error:
            proven(poor, lambda connection, ctx: sale(connection, "a barometer"))
        assert "CREATEDB" in error.value.hint
    finally:
        asyncio.run(make("DROP ROLE onward_prover"))


def test_programs_that_are_really_killed_find_the_same_database(
    postgres_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SHOP", postgres_server.url)
    (tmp_path / "counting.py").write_text(COUNTING)

    def proof_of(flow: str) -> dict[str, Any]:
        words = ["--outside", "counting:shop", "--full", "--json", "--only", at_commit(Fault.KILLED)]
        told = CliRunner().invoke(cli, ["prove", f"counting:{flow}", *words])
        assert told.exit_code in (0, 1), told.output
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    assert proof_of("once")["ok"]
    [failure] = proof_of("hasty")["failures"]
    assert failure["differs"] == ['the tables differ: - counter {"number": 1}; + counter {"number": 2}']
    assert failure["also"] == 1  # the one in memory and the one for real


COUNTING = """
import os
from contextlib import contextmanager
from enum import StrEnum, auto
from typing import Literal
from onward import END, Context, Flow, Process
from onward.testing import Outside

class Status(StrEnum):
    OPEN = auto()
    DONE = auto()

class Job(Process[Status]):
    status: Status = Status.OPEN

async def count(job: Job, ctx: Context) -> Literal[Status.DONE]:
    async with ctx.transaction() as connection:
        await connection.execute("UPDATE counter SET number = number + 1")
    return Status.DONE

async def count_attempts(job: Job, ctx: Context) -> Literal[Status.DONE]:
    async with ctx.transaction() as connection:
        await connection.execute("UPDATE counter SET number = number + $1", ctx.attempt)
    return Status.DONE

async def tables(connection):
    await connection.execute("CREATE TABLE counter (number integer NOT NULL)")
    await connection.execute("INSERT INTO counter VALUES (0)")

@contextmanager
def shop():
    yield Outside(postgres=os.environ["SHOP"], prepare=tables)

once = Flow(Job, {Status.OPEN: count, Status.DONE: END}, name="once")
hasty = Flow(Job, {Status.OPEN: count_attempts, Status.DONE: END}, name="hasty")
"""
