"""A handler is not blamed for what the network did to its transaction."""

from __future__ import annotations

import asyncio
from typing import Literal
from urllib.parse import urlsplit

import pytest
from conftest import Job, Step, one_stage, opened, working

from onward import Condition, Context
from onward.clock import SystemClock
from onward.store import upkeep_of
from onward.store.postgres import transaction as postgres_transaction

from .proxy import Proxy

ENDS_S = 15.0  # a session that a network has swallowed is given up after 5 s, and there may be two in a row


@pytest.mark.parametrize("drop", [False, True])
async def test_a_handler_whose_transaction_is_swallowed_by_the_network_is_not_blamed(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, drop: bool
) -> None:
    monkeypatch.setattr(postgres_transaction, "TRANSACTION_S", 1.0)
    await upkeep_of(postgres_url, SystemClock()).upgrade(lambda line: None)
    inside, dark = asyncio.Event(), asyncio.Event()

    async def make(job: Job, ctx: Context) -> Literal[Step.DONE]:
        async with ctx.transaction() as connection:
            inside.set()
            await dark.wait()
            await connection.execute("SELECT 1")
        return Step.DONE

    flow = one_stage(make)
    target = urlsplit(postgres_url)
    with Proxy(target.hostname or "", target.port or 5432) as proxy:
        cut_off = opened(flow, url=proxy.url_for(postgres_url))
        async with opened(flow, url=postgres_url) as app, cut_off as worker, working(worker):
            job = await app.start(Job())
            await inside.wait()
            proxy.black_hole(drop=drop)
            dark.set()
            await asyncio.sleep(2.0)
            proxy.heal()
            assert (await app.wait(job.id, timeout=ENDS_S)).condition is Condition.FINISHED
            assert {entry.kind for entry in await app.history(job.id)} <= {"started", "rolled back", "moved"}  # never "retry"
