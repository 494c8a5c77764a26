"""Two versions of the same code, as programs of their own on one store: `python rolling.py STORE FOLDER CODE`.

A process goes round and round until the file `enough` appears. New code keeps cents and not a price, calls the status "priced"
"charged" and has a stage more. Each attempt leaves a line in the folder: the code that ran it, and the worker.
"""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

from onward import END, Context, Every, Flow, Onward, Process, stage

ENOUGH = "enough"
PACE = Every(seconds=0.2)
folder = Path(os.devnull)


def note(code: int, ctx: Context) -> None:
    with (folder / "attempts").open("a") as book:  # a line at once, however many programs write
        book.write(f"{code} {ctx.record.owner} {ctx.record.id} {ctx.record.data_version}\n")


class Old(StrEnum):
    BEGUN = auto()
    PRICED = auto()
    PAID = auto()


class OldOrder(Process[Old]):
    status: Old = Old.BEGUN
    price: int = 5
    done: int = 0


async def old_begin(order: OldOrder, ctx: Context) -> Literal[Old.PRICED]:
    note(1, ctx)
    order.price, order.done = order.price + 1, order.done + 1
    return Old.PRICED


async def old_price(order: OldOrder, ctx: Context) -> Literal[Old.PRICED, Old.BEGUN, Old.PAID]:
    note(1, ctx)
    order.price, order.done = order.price + 1, order.done + 1
    if not ctx.record.polls:
        return Old.PRICED
    return Old.PAID if (folder / ENOUGH).exists() else Old.BEGUN


OLD = Flow(OldOrder, {Old.BEGUN: old_begin, Old.PRICED: stage(old_price, every=PACE), Old.PAID: END}, name="order")


class New(StrEnum):
    BEGUN = auto()
    CHARGED = auto()
    CHECKED = auto()
    PAID = auto()


class NewOrder(Process[New]):
    status: New = New.BEGUN
    cents: int
    done: int = 0


async def begin(order: NewOrder, ctx: Context) -> Literal[New.BEGUN, New.CHARGED]:
    """Waits at a status that the old code has as well: there nothing but the version of its data keeps that away from it."""
    note(2, ctx)
    order.cents, order.done = order.cents + 100, order.done + 1
    return New.CHARGED if ctx.record.polls else New.BEGUN


async def charge(order: NewOrder, ctx: Context) -> Literal[New.CHARGED, New.CHECKED]:
    note(2, ctx)
    order.cents, order.done = order.cents + 100, order.done + 1
    return New.CHECKED if ctx.record.polls else New.CHARGED


async def check(order: NewOrder, ctx: Context) -> Literal[New.BEGUN, New.PAID]:
    note(2, ctx)
    order.cents, order.done = order.cents + 100, order.done + 1
    return New.PAID if (folder / ENOUGH).exists() else New.BEGUN


def in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return {"cents": 100 * data.pop("price"), **data}


NEW = Flow(
    NewOrder,
    {New.BEGUN: stage(begin, every=PACE), New.CHARGED: stage(charge, every=PACE), New.CHECKED: check, New.PAID: END},
    name="order",
    version=2,
    upgrade={1: in_cents},
    renamed={"priced": New.CHARGED},
)
CODES: dict[int, Flow[Any]] = {1: OLD, 2: NEW}


async def work(store: str, code: int) -> None:
    async with Onward(store, [CODES[code]]) as app:
        await app.run(lease=0.5, concurrency=4)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    asyncio.run(work(sys.argv[1], int(sys.argv[3])))
