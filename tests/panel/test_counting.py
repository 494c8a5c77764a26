"""Numbers that are read beside the pages: nobody waits for them, they are read seldom, and once for all who ask."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Literal

import pytest
from conftest import IN_MEMORY, Job, Step, one_stage, opened

from onward import Onward
from onward.errors import StoreError
from onward.panel.shown.counting import REST_MIN_S, REST_TIMES, Lately, numbers
from onward.testing import ManualClock


class Question:
    """A slow answer from a store: it counts how often it was asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.ready = asyncio.Event()
        self.trouble: StoreError | None = None

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        await self.ready.wait()
        if self.trouble is not None:
            raise self.trouble
        return number


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_a_page_does_not_wait_for_slow_numbers_and_gets_them_later() -> None:
    question, clock = Question(), ManualClock()
    lately = Lately(question, clock.monotonic)
    first = await lately.ask(wait=0)
    assert (first.value, first.age_s) == (None, None)
    assert first.again_s > 0
    question.ready.set()
    assert (await lately.ask(wait=5)).value == 1


async def test_all_who_ask_meanwhile_share_one_reading() -> None:
    question, clock = Question(), ManualClock()
    lately = Lately(question, clock.monotonic)
    asking = [asyncio.create_task(lately.ask(wait=5)) for _ in range(20)]
    await until(lambda: question.asked > 0)
    question.ready.set()
    assert {answer.value for answer in await asyncio.gather(*asking)} == {1}
    assert question.asked == 1


async def test_who_goes_away_while_waiting_does_not_stop_the_reading() -> None:
    question, clock = Question(), ManualClock()
    lately = Lately(question, clock.monotonic)
    asking = asyncio.create_task(lately.ask(wait=5))
    await until(lambda: question.asked > 0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    question.ready.set()
    assert (await lately.ask(wait=5)).value == 1
    assert question.asked == 1


@pytest.mark.parametrize("cost", [0.0, 0.02, 3.0])
async def test_numbers_are_read_again_at_most_every_second_and_every_ten_times_their_cost(cost: float) -> None:
    clock = ManualClock()
    asked = 0

    async def read() -> int:
        nonlocal asked
        asked += 1
        clock.advance(cost)
        return asked

    lately = Lately(read, clock.monotonic)
    rest = max(REST_MIN_S, REST_TIMES * cost)
    assert (await lately.ask()).value == 1
    clock.advance(rest - 0.01)
    early = await lately.ask()
    assert early.value == 1
    assert early.age_s == pytest.approx(rest - 0.01 + cost)
    assert early.again_s == pytest.approx(0.01)
    clock.advance(0.02)
    assert (await lately.ask()).value == 2


async def test_older_numbers_are_shown_while_newer_ones_are_read() -> None:
    question, clock = Question(), ManualClock()
    question.ready.set()
    lately = Lately(question, clock.monotonic)
    await lately.ask(wait=5)
    clock.advance(60)
    question.ready.clear()
    answer = await lately.ask(wait=0)
    assert (answer.value, answer.age_s) == (1, 60)
    question.ready.set()
    assert (await lately.ask(wait=5)).value == 2


async def test_a_store_in_trouble_is_told_only_where_nothing_is_known_and_is_asked_again() -> None:
    question, clock = Question(), ManualClock()
    question.ready.set()
    question.trouble = StoreError("gone")
    lately = Lately(question, clock.monotonic)
    with pytest.raises(StoreError, match="gone"):
        await lately.ask(wait=5)
    with pytest.raises(StoreError):  # and not asked again at once
        await lately.ask(wait=5)
    assert question.asked == 1
    clock.advance(REST_MIN_S)
    question.trouble = None
    assert (await lately.ask(wait=5)).value == 2
    clock.advance(REST_MIN_S)
    question.trouble = StoreError("gone again")
    assert (await lately.ask(wait=5)).value == 2


async def _make(job: Job) -> Literal[Step.DONE]:
    return Step.DONE


async def test_a_mistake_of_ours_is_not_taken_for_slow_counting() -> None:
    async def read() -> int:
        raise TypeError("a mistake")

    clock = ManualClock()
    lately = Lately(read, clock.monotonic)
    for _ in range(2):
        with pytest.raises(TypeError, match="a mistake"):
            await lately.ask(wait=5)
        clock.advance(REST_MIN_S)


async def test_counts_are_exact_and_shared_by_all_pages_of_an_app() -> None:
    flow = one_stage(_make)
    async with opened(flow) as app, opened(flow) as another:
        await app.start_many([Job() for _ in range(7)])
        assert numbers(app) is numbers(app)
        assert numbers(app) is not numbers(another)
        counts = (await numbers(app).counts.ask(wait=5)).value
        assert counts is not None
        assert [(count.flow, count.number) for count in counts] == [("job", 7)]
        starts = (await numbers(app).starts.ask(wait=5)).value
        assert starts is not None
        assert (len(starts.starts), starts.all) == (7, True)


async def test_what_is_remembered_of_an_app_keeps_it_not_alive() -> None:
    app = Onward(IN_MEMORY, [one_stage(_make)])
    async with app:
        await numbers(app).counts.ask(wait=5)
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
