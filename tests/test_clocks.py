"""On PostgreSQL the database's clock says what is due and when a lease is over, and no worker's: RELIABILITY.md T11."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from conftest import Job, Step, kinds, one_stage, opened, working

from onward.clock import SystemClock
from onward.process import Condition
from onward.store.postgres.store import PostgresStore
from onward.testing.contract.rows import KNOWN, LEASE, agree, claimed, new, not_yet

HOUR = timedelta(hours=1)
WRONG = pytest.mark.parametrize("wrong", [HOUR, -HOUR], ids=["fast", "slow"])
Set = Callable[[timedelta], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets the clock of this program to so much after the right time."""

    def set_to(wrong: timedelta) -> None:
        monkeypatch.setattr(SystemClock, "now", lambda _: datetime.now(UTC) + wrong)

    return set_to


@pytest.fixture
async def store(postgres_tables_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_tables_url)
    await store.open()
    yield store
    await store.close()


@WRONG
async def test_a_lease_is_over_when_the_database_says_so_whatever_the_clock_of_a_worker(
    store: PostgresStore, set_clock: Set, wrong: timedelta
) -> None:
    [held] = await claimed(store, "held")
    set_clock(wrong)
    assert await store.claim(KNOWN, "worker-b", 9, LEASE) == []
    assert await asyncio.to_thread(store.renew, "worker-a", {"held": held.epoch}, LEASE) == set()
    row = await agree(store, "held")
    assert row.condition is Condition.RUNNING and row.lease_until is not None and row.as_of is not None
    assert timedelta(0) < row.lease_until - row.as_of <= LEASE
    set_clock(timedelta(0))
    assert await store.claim(KNOWN, "worker-b", 9, LEASE) == []


@WRONG
async def test_what_waits_is_due_when_the_database_says_so_whatever_the_clock_of_a_worker(
    store: PostgresStore, set_clock: Set, wrong: timedelta
) -> None:
    [waits] = await claimed(store, "waits")
    await store.commit(waits, not_yet(waits, after=HOUR / 2))
    await store.insert([new("due")], "ann")
    set_clock(wrong)
    left = await store.next_due([*KNOWN])
    assert left is not None and abs(left) < timedelta(minutes=1)
    assert [record.id for record in await store.claim(KNOWN, "worker-b", 9, LEASE)] == ["due"]
    left = await store.next_due([*KNOWN])
    assert left is not None and left <= LEASE


@WRONG
async def test_workers_whose_clocks_are_wrong_work_as_ever(postgres_tables_url: str, set_clock: Set, wrong: timedelta) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def hold(job: Job) -> Literal[Step.DONE]:
        begun.set()
        await end.wait()
        return Step.DONE

    async with opened(one_stage(hold), url=postgres_tables_url) as app, opened(one_stage(hold), url=postgres_tables_url) as other:
        async with working(app, lease=5.0):
            await app.start(Job(id="a"))
            await begun.wait()
            begun.clear()
            set_clock(wrong)
            async with working(other, lease=5.0):
                await other.start(Job(id="b"))
                await begun.wait()  # of the second one: nobody begins the first one anew
                end.set()
                done = [await other.wait(id) for id in ("a", "b")]
        assert [(record.condition, kinds(await app.history(record.id))) for record in done] == [
            (Condition.FINISHED, ["started", "moved"])
        ] * 2
        assert [(await app.history(record.id))[-1].attempt for record in done] == [1, 1]
