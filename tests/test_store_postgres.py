"""The PostgreSQL store: the contract of every store, and what is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from onward.store.postgres import SQL, PostgresStore
from onward.testing import ManualClock, StoreContract


@pytest.fixture
async def url(postgres_url: str) -> str:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(SQL["schema 1"])
    await connection.execute("create table onward_schema (version int not null); insert into onward_schema values (1)")
    await connection.close()
    return postgres_url


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
