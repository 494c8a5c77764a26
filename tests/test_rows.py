"""A write is a future of our own: who waits for it goes on when it has landed, and learns of being cancelled only then."""

from __future__ import annotations

import asyncio

import pytest

from onward.errors import StoreError
from onward.store.rows import Write, land


async def begun(*writes: Write) -> tuple[list[int], list[asyncio.Task[None]]]:
    """Tasks that wait for these, and the numbers of those that went on."""
    went_on: list[int] = []

    async def wait(number: int, write: Write) -> None:
        await write
        went_on.append(number)

    tasks = [asyncio.create_task(wait(*item)) for item in enumerate(writes)]
    await asyncio.sleep(0)
    return went_on, tasks


async def land_in_the_loop(*writes: Write) -> None:
    """As a store does it, from where no task is under way."""
    landed = asyncio.Event()

    def now() -> None:
        land(writes)
        landed.set()

    asyncio.get_running_loop().call_soon(now)
    await landed.wait()


async def test_all_who_wait_go_on_in_the_call_that_lands_them_and_in_that_order() -> None:
    writes = [Write(), Write(), Write()]
    went_on, tasks = await begun(*writes)
    asyncio.get_running_loop().call_soon(land, [writes[1], writes[0]])
    asyncio.get_running_loop().call_soon(lambda: went_on.append(9))
    await asyncio.sleep(0.01)
    assert went_on == [1, 0, 9]
    await land_in_the_loop(writes[2])
    await asyncio.gather(*tasks)


async def test_the_error_of_a_write_is_raised_by_its_await_and_by_no_other() -> None:
    writes = [Write(), Write()]
    writes[0].error = StoreError("the disk is full")
    went_on, tasks = await begun(*writes)
    await land_in_the_loop(*writes)
    with pytest.raises(StoreError, match="the disk is full"):
        await tasks[0]
    await tasks[1]
    assert went_on == [1]


async def test_what_has_landed_is_not_waited_for() -> None:
    write = Write()
    land([write])
    async with asyncio.timeout(1):
        await write


async def test_who_is_cancelled_learns_so_after_the_verdict() -> None:
    write = Write()
    went_on, [task] = await begun(write)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    await land_in_the_loop(write)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert went_on == []


def test_what_stops_the_loop_in_one_of_them_leaves_no_other_one_waiting() -> None:
    writes, went_on = [Write(), Write(), Write()], []
    loop = asyncio.new_event_loop()

    async def wait(number: int) -> None:
        await writes[number]
        went_on.append(number)
        if number == 1:
            raise KeyboardInterrupt

    tasks = [loop.create_task(wait(number)) for number in range(3)]
    loop.call_later(0.01, land, writes)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(1))
    assert went_on == [0, 1]
    loop.run_until_complete(asyncio.wait({tasks[0], tasks[2]}, timeout=1))
    assert went_on == [0, 1, 2]
    assert isinstance(tasks[1].exception(), KeyboardInterrupt)
    loop.close()
