"""Live updates: what a stream says and when, who may have one, and that nothing waits for it in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest
from conftest import IN_MEMORY

from onward import Onward, StoreError
from onward.actor import Actor
from onward.panel.entry import live
from onward.panel.entry.live import APART_S, STREAMS_MAX, Live
from panel.client import Client
from panel.conftest import Panel, entered
from panel.scene import FLOWS, Letter
from panel.test_enter import standing

SOON_S = 5.0


async def told(events: AsyncIterator[str]) -> str:
    return await asyncio.wait_for(anext(events), SOON_S)


async def until(what: Any) -> None:
    async with asyncio.timeout(SOON_S):
        while not what():
            await asyncio.sleep(0.01)


def streams(client: Any) -> int:
    return len(client.asgi.live._streams)


class Changes:
    """A store's changes, made by the test: how many wait for one, and what each is told."""

    def __init__(self) -> None:
        self.waits, self.asked, self.happened = 0, 0, asyncio.Event()
        self.error: Exception | None = None

    async def wait(self, timeout: float) -> None:
        self.waits += 1
        self.asked += 1
        try:
            if self.error:
                raise self.error
            async with asyncio.timeout(timeout):
                await self.happened.wait()
            self.happened.clear()
        except TimeoutError:
            pass
        finally:
            self.waits -= 1


@pytest.fixture
async def changes(panel: Panel) -> Changes:
    """Puts them in the place of the store's, so that no poll of a database disturbs the counting."""
    changes = Changes()
    live: Live = panel.asgi.live
    live._wait_for_change = changes.wait
    return changes


async def test_a_change_in_the_store_is_told_to_each_who_watches(url: str) -> None:
    async with entered(Onward(url, FLOWS)) as panel, panel.watch("/live?page=home") as one, panel.watch("/live?page=flow") as two:
        await until(lambda: streams(panel) == 2)
        await panel.app.start(Letter(id="a"))
        assert [await told(one), await told(two)] == ["change", "change"]


async def test_many_changes_are_told_at_most_twice_a_second(panel: Panel, changes: Changes) -> None:
    loop = asyncio.get_running_loop()
    async with panel.watch() as events:
        begun, times = loop.time(), list[float]()

        async def change() -> None:
            while loop.time() - begun < 1.3:
                changes.happened.set()
                await asyncio.sleep(0.005)

        changing = asyncio.create_task(change())
        while len(times) < 3:
            assert await told(events) == "change"
            times.append(loop.time())
        await changing
    assert all(later - earlier >= APART_S * 0.95 for earlier, later in pairwise(times))


async def test_what_changes_while_the_last_change_is_told_is_not_lost(panel: Panel, changes: Changes) -> None:
    async with panel.watch() as events:
        await until(lambda: changes.waits)
        changes.happened.set()
        assert await told(events) == "change"
        changes.happened.set()  # within APART_S
        assert await told(events) == "change"


async def test_one_wait_lasts_until_something_happens(panel: Panel, changes: Changes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens between the end of one and the beginning of the next, or is found by its last look, would be lost."""
    monkeypatch.setattr(live, "LOOK_S", 0.02)
    async with panel.watch() as events:
        await until(lambda: changes.waits)
        await asyncio.sleep(10 * live.LOOK_S)
        assert changes.asked == 1
        changes.happened.set()
        assert await told(events) == "change"


async def test_nobody_asks_the_store_for_changes_while_nobody_watches(
    panel: Panel, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_S", 0.02)
    assert changes.waits == 0
    async with panel.watch(), panel.watch():
        await until(lambda: changes.waits)
        assert changes.waits == 1  # one reader for all of them
    async with panel.watch() as events:  # at once, while the reader is still ending
        await until(lambda: changes.waits)
        changes.happened.set()
        assert await told(events) == "change"
    assert streams(panel) == 0
    await until(lambda: not changes.waits)
    asked = changes.asked
    await asyncio.sleep(APART_S + 5 * live.LOOK_S)
    assert changes.asked == asked


async def test_a_heartbeat_comes_while_nothing_happens(panel: Panel, changes: Changes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert live.HEARTBEAT_S == 15
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.02)
    async with panel.watch() as events:
        assert [await told(events) for _ in range(3)] == [":", ":", ":"]


async def test_a_page_is_read_again_now_and_then_because_some_things_change_by_time_alone(
    panel: Panel, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LOOK_S", 0.02)
    monkeypatch.setattr(live, "STALE_S", 0.05)
    async with panel.watch() as events:
        assert await told(events) == "change"


async def test_a_store_in_trouble_ends_no_stream(panel: Panel, changes: Changes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_S", 0.02)
    changes.error = StoreError("gone")
    async with panel.watch() as events:
        await asyncio.sleep(0.1)  # several times in trouble
        changes.error = None
        await until(lambda: changes.waits)
        changes.happened.set()
        assert await told(events) == "change"


async def test_there_is_a_limit_of_streams_and_it_is_told(panel: Panel, changes: Changes) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS_MAX):
            await stack.enter_async_context(panel.watch())
        await until(lambda: streams(panel) == STREAMS_MAX)
        assert (await panel.get("/live")).status == 503
    await until(lambda: not streams(panel))
    async with panel.watch():
        pass


async def test_head_opens_no_stream(panel: Panel) -> None:
    answer = await panel.request("HEAD", "/live")
    assert (answer.status, answer.body) == (200, b"")
    assert streams(panel) == 0


async def test_a_stream_ends_at_once_with_the_session() -> None:
    async with standing() as alone:
        await alone.enter()
        async with alone.watch() as events:
            await until(lambda: streams(alone) == 1)
            await alone.post("/leave")
            with pytest.raises(StopAsyncIteration):
                await told(events)


async def test_a_stream_ends_for_who_may_no_longer_look() -> None:
    allowed = True

    async def who(request: Any, action: str, record: Any) -> Actor | None:
        return Actor("ada") if allowed else None

    async with Onward(IN_MEMORY, FLOWS) as app:
        client = Client(app.panel(authorize=who))
        async with client.watch() as events:
            await until(lambda: streams(client) == 1)
            allowed = False
            await app.start(Letter(id="a"))
            with pytest.raises(StopAsyncIteration):
                await told(events)
        assert (await client.get("/live")).status == 403


async def test_all_streams_end_when_the_panel_is_closed(panel: Panel) -> None:
    async with panel.watch() as one, panel.watch() as two:
        await until(lambda: streams(panel) == 2)
        await panel.asgi.live.close()
        for events in (one, two):
            with pytest.raises(StopAsyncIteration):
                await told(events)
