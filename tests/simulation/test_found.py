"""What seeds have found in the engine, each as a story of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum, auto
from typing import Any, Literal

import pytest

from onward import END, Context, Flow, Process, Retry, stage
from onward.errors import StoreError
from onward.ports import Store
from onward.process import Condition
from onward.testing import World, run
from onward.testing.between import Call, between
from onward.testing.world import LoopHeartbeat


class Step(StrEnum):
    MAKE = auto()
    DONE = auto()


class Job(Process[Step]):
    status: Step = Step.MAKE


def flow_of(handler: Any, **policies: Any) -> Flow[Step]:
    return Flow(Job, {Step.MAKE: stage(handler, **policies), Step.DONE: END})


class Leg(StrEnum):
    FIRST = auto()
    SECOND = auto()
    DONE = auto()


class Trip(Process[Leg]):
    status: Leg = Leg.FIRST


class SlowHeart(LoopHeartbeat):
    """Its news wait behind a handler that blocks the loop."""

    def _in_the_loop(self, function: Callable[..., None], *arguments: object) -> None:
        self._loop.call_later(5, function, *arguments)


def in_trouble_at(verbs: list[str], world: World) -> Store:
    """The store as a program sees it to which it does not answer once, for each of these verbs."""

    async def before(call: Call) -> None:
        if call.verb in verbs:
            verbs.remove(call.verb)
            raise StoreError("the store is away")

    async def after(call: Call) -> None: ...

    return between(world.store, before, after)


def test_the_attempt_of_a_handler_that_ignores_its_timeout_is_not_given_back_when_the_store_was_in_trouble() -> None:
    """Seed 1193: the next attempt had the same number, so it did not look for what the one before had done."""
    attempts: list[int] = []

    async def deaf_at_first(job: Job, ctx: Context) -> Literal[Step.DONE]:
        attempts.append(ctx.attempt)
        while job.id == "deaf" and ctx.attempt == 1:
            try:
                await asyncio.sleep(3_600)
            except asyncio.CancelledError:
                continue
        return Step.DONE

    async def main() -> None:
        in_trouble: list[str] = []
        async with World([flow_of(deaf_at_first, timeout=1)]) as world:
            await world.start(Job(id="deaf"))
            worker = world.worker(store=in_trouble_at(in_trouble, world), until_idle=False, lease=timedelta(seconds=60))
            await asyncio.sleep(10)
            in_trouble.append("next_due")
            await world.start(Job(id="another"))  # so that the worker looks up
            await asyncio.sleep(5)
            assert not in_trouble and not worker.running.done()
            assert (await world.get("deaf")).attempt == 1
            assert (await world.wait("deaf", timeout=300)).condition is Condition.FINISHED

    run(main)
    assert attempts == [1, 1, 2]


def test_a_worker_that_was_stopped_for_longer_than_a_timeout_accuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Seed 1193: when it went on all timeouts were long past, and it gave up its handlers before they knew, or itself."""

    async def hangs_at_first(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if ctx.attempt == 1:
            await asyncio.sleep(3_600)
        return Step.DONE

    async def main() -> None:
        async with World([flow_of(hangs_at_first, timeout=6, retry=Retry(attempts=3, first=1))]) as world:
            await world.start(Job(id="a"))
            in_trouble: list[str] = []
            worker = world.worker(store=in_trouble_at(in_trouble, world), until_idle=False, concurrency=1)
            await asyncio.sleep(1)
            in_trouble.append("next_due")
            await world.start(Job(id="b"))
            await asyncio.sleep(0.1)
            assert not in_trouble
            worker.stop()  # while it waits for the store, so that it looks at its handlers first of all when it goes on
            await asyncio.sleep(20)
            worker.go_on()
            for id in ("a", "b"):
                assert (await world.wait(id, timeout=300)).condition is Condition.FINISHED
            assert not worker.running.done()
            assert [entry.kind for entry in await world.whole_history("a")] == ["started", "retry", "moved"]

    with caplog.at_level(logging.ERROR, "onward"):
        run(main)
    assert caplog.messages == []


def test_what_the_heartbeat_knows_to_be_lost_is_not_begun_while_that_news_is_on_its_way() -> None:
    """Seed 11703: that renewal held for all others, and so the next stage was begun in the belief that it held for all."""
    begun: list[tuple[str, str | None]] = []

    async def first(trip: Trip, ctx: Context) -> Literal[Leg.SECOND]:
        begun.append((trip.status, ctx.record.owner))
        return Leg.SECOND

    async def second(trip: Trip, ctx: Context) -> Literal[Leg.DONE]:
        begun.append((trip.status, ctx.record.owner))
        await asyncio.sleep(10)
        return Leg.DONE

    async def main() -> None:
        async def before(call: Call) -> None:
            if call.verb == "taken_away":  # the other way on which it would learn of it
                await asyncio.sleep(10)

        async def after(call: Call) -> None:
            if call.verb == "commit":
                await asyncio.sleep(4)

        def renewing() -> None:
            if asyncio.get_running_loop().time() < 3:
                raise StoreError("the store is away")

        flow = Flow(Trip, {Leg.FIRST: stage(first), Leg.SECOND: stage(second), Leg.DONE: END})
        async with World([flow]) as world:
            await world.start(Trip(id="a"))
            lease = timedelta(seconds=2)
            sight = between(world.store, before, after, renewing)
            slow = world.worker(store=sight, until_idle=False, lease=lease, concurrency=1)
            slow.worker.heart = SlowHeart
            await asyncio.sleep(2.5)  # by now its lease is over
            world.worker(lease=lease)
            assert (await world.wait("a", timeout=60)).condition is Condition.FINISHED

    run(main)
    assert begun == [(Leg.FIRST, "worker-1"), (Leg.SECOND, "worker-2")]
