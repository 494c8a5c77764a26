"""The PostgreSQL store: the contract of every store, and what is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import asyncpg
import psycopg
import pytest
from conftest import Job, Step, one_stage, opened

from onward.errors import Conflict
from onward.store.postgres.store import PostgresStore
from onward.testing import ManualClock, StoreContract


@pytest.fixture
async def url(postgres_tables_url: str) -> str:
    return postgres_tables_url


class User:
    """Somebody with a table of notes, and with one of the drivers."""

    def __init__(self, url: str, driver: str) -> None:
        self.url, self.driver = url, driver

    async def note(self, connection: Any, text: str) -> None:
        if isinstance(connection, psycopg.Connection):
            connection.execute("INSERT INTO note VALUES (%s)", (text,))
        elif isinstance(connection, psycopg.AsyncConnection):
            await connection.execute("INSERT INTO note VALUES (%s)", (text,))
        else:
            await connection.execute("INSERT INTO note VALUES ($1)", text)

    async def notes(self) -> set[str]:
        connection = await asyncpg.connect(self.url)
        rows = await connection.fetch("SELECT text FROM note")
        await connection.close()
        return {row[0] for row in rows}

    @asynccontextmanager
    async def connected(self, *, commit: bool) -> AsyncIterator[Any]:
        if self.driver == "psycopg":
            with psycopg.connect(self.url) as connection:
                yield connection
                connection.commit() if commit else connection.rollback()
        elif self.driver == "psycopg async":
            async with await psycopg.AsyncConnection.connect(self.url) as connection:
                yield connection
                await (connection.commit() if commit else connection.rollback())
        else:
            connection = await asyncpg.connect(self.url)
            transaction = connection.transaction()
            await transaction.start()
            yield connection
            await (transaction.commit() if commit else transaction.rollback())
            await connection.close()


class TestContract(StoreContract):
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

    @pytest.fixture(params=["asyncpg", "psycopg", "psycopg async"])
    async def user(self, url: str, request: pytest.FixtureRequest) -> User:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE note (text text PRIMARY KEY)")
        await connection.close()
        return User(url, request.param)


async def test_a_start_that_cannot_be_compared_any_more_is_refused_and_says_why(url: str) -> None:
    async def make(job: Job) -> Literal[Step.DONE]:
        return Step.DONE

    async with opened(one_stage(make), url=url) as app:
        await app.start(Job(id="a"))
        assert (await app.start(Job(id="a"))).version == 0
        connection = await asyncpg.connect(url)
        await connection.execute("DELETE FROM onward_history")  # as `onward db prune` does by dropping its month
        await connection.close()
        with pytest.raises(Conflict, match="process a exists already; with what input it was started is no longer"):
            await app.start(Job(id="a"))
