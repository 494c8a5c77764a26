"""Handlers that no worker should meet: they block, hang, refuse to be cancelled, raise what must not be raised, and kill."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from enum import StrEnum, auto
from typing import Literal

from onward import END, Context, Flow, Process, Retry, stage

from . import ledger

DEAF_S = 3.0  # so long a handler that ignores its cancellation goes on; long enough for the tests, and it ends


class Status(StrEnum):
    SENT = auto()
    BLOCKING = auto()
    BLOCKING_A_THREAD = auto()
    ENDLESS = auto()
    DEAF = auto()
    DEADLY = auto()
    RAISING = auto()
    RAISING_IN_A_THREAD = auto()
    RAISING_IN_A_MAP = auto()
    SLOW = auto()
    STRICT = auto()
    DONE = auto()


class Trouble(Process[Status]):
    status: Status = Status.SENT
    kind: Status
    seconds: float = 0.0
    error: str = ""
    done_by: str = ""


class Strange(BaseException):
    """No Exception, and nobody's."""


ERRORS: dict[str, type[BaseException]] = {
    error.__name__: error
    for error in (
        SystemExit, KeyboardInterrupt, Strange, StopIteration, StopAsyncIteration, asyncio.CancelledError,
        TimeoutError, MemoryError, RecursionError, ValueError,
    )
}  # fmt: skip

Done = Literal[Status.DONE]


def _done(trouble: Trouble) -> Done:
    trouble.done_by = ledger.BOOKS.boot
    return Status.DONE


async def send_on(
    trouble: Trouble,
) -> Literal[
    Status.BLOCKING,
    Status.BLOCKING_A_THREAD,
    Status.ENDLESS,
    Status.DEAF,
    Status.DEADLY,
    Status.RAISING,
    Status.RAISING_IN_A_THREAD,
    Status.RAISING_IN_A_MAP,
    Status.SLOW,
    Status.STRICT,
]:
    assert trouble.kind is not Status.SENT and trouble.kind is not Status.DONE
    return trouble.kind


async def block_the_loop(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        time.sleep(trouble.seconds)
    return _done(trouble)


def block_a_thread(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        time.sleep(trouble.seconds)
    return _done(trouble)


async def never_return(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        if ctx.attempt == 1:
            await asyncio.Event().wait()
    return _done(trouble)


async def ignore_cancellation(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        until = time.monotonic() + DEAF_S
        while ctx.attempt == 1 and time.monotonic() < until:
            try:
                await asyncio.sleep(max(0.0, until - time.monotonic()))
            except asyncio.CancelledError:
                pass
    return _done(trouble)


async def kill_the_worker(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    return _done(trouble)


async def raise_once(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        await asyncio.sleep(0)
        if ctx.attempt == 1:
            raise ERRORS[trouble.error]("planned")
    return _done(trouble)


def raise_once_in_a_thread(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        if ctx.attempt == 1:
            raise ERRORS[trouble.error]("planned")
    return _done(trouble)


async def raise_once_in_a_map(trouble: Trouble, ctx: Context) -> Done:
    async def one(item: str) -> str:
        await asyncio.sleep(0)
        if ctx.attempt == 1 and item == "b":
            raise ERRORS[trouble.error]("planned")
        return ledger.act(f"one:{item}")

    ledger.RUNNING.set(ctx.record)
    with ledger.effect(ctx):
        await ctx.map(one, ledger.MAPPED_ITEMS)
    return _done(trouble)


async def take_time(trouble: Trouble, ctx: Context) -> Done:
    with ledger.effect(ctx):
        await asyncio.sleep(trouble.seconds)
    return _done(trouble)


SOON = Retry(attempts=5, first=0.02, longest=0.05)
STRICT = Retry(attempts=3, first=0.02)

FLOW = Flow(
    Trouble,
    {
        Status.SENT: stage(send_on, retry=Retry(attempts=50, first=0.02, longest=0.05)),
        Status.BLOCKING: stage(block_the_loop, retry=SOON),
        Status.BLOCKING_A_THREAD: stage(block_a_thread, retry=SOON),
        Status.ENDLESS: stage(never_return, retry=SOON, timeout=0.3),
        Status.DEAF: stage(ignore_cancellation, retry=SOON, timeout=0.3),
        Status.DEADLY: stage(kill_the_worker, retry=STRICT),
        Status.RAISING: stage(raise_once, retry=SOON, timeout=3.0),
        Status.RAISING_IN_A_THREAD: stage(raise_once_in_a_thread, retry=SOON, timeout=3.0),
        Status.RAISING_IN_A_MAP: stage(raise_once_in_a_map, retry=SOON, timeout=3.0),
        Status.SLOW: stage(take_time, retry=SOON),
        Status.STRICT: stage(take_time, retry=STRICT),
        Status.DONE: END,
    },
)
