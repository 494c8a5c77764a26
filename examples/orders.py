"""An order and its process in one transaction, and a stage whose SQL is committed with its transition: all of it happens once.

python examples/orders.py
"""

import asyncio
import sqlite3
from enum import StrEnum, auto
from typing import Literal

from onward import END, Context, Flow, Onward, Process, RetryAfter

FILE = "shop.db"  # the shop's own tables, and Onward's beside them


class Status(StrEnum):
    PLACED = auto()
    PAID = auto()
    RESERVED = auto()


class Order(Process[Status]):
    status: Status = Status.PLACED
    item: str


async def take_payment(order: Order, ctx: Context) -> Literal[Status.PAID]:
    return Status.PAID  # a payment service honours ctx.key, or takes part in no transaction of ours


async def reserve(order: Order, ctx: Context) -> Literal[Status.RESERVED]:
    async with ctx.transaction() as conn:  # commits with the transition below, or not at all: one is never taken twice
        conn.execute("UPDATE stock SET number = number - 1 WHERE item = ?", (order.item,))
        conn.execute("UPDATE shop_order SET reserved = true WHERE id = ?", (order.id,))
    if ctx.attempt == 1:
        raise RetryAfter(0.1, "the warehouse does not answer")  # whatever goes wrong after it: then nothing was taken
    return Status.RESERVED


flow = Flow(Order, {Status.PLACED: take_payment, Status.PAID: reserve, Status.RESERVED: END})
app = Onward(f"sqlite:///{FILE}", flows=[flow])


def connect() -> sqlite3.Connection:
    conn = sqlite3.connect(FILE, isolation_level=None)
    conn.execute("PRAGMA wal_autocheckpoint = 0")  # Onward's worker sees to that; two at once are too many for older SQLite
    return conn


async def place(conn: sqlite3.Connection, order: Order) -> None:
    conn.execute("BEGIN IMMEDIATE")
    try:
        conn.execute("INSERT INTO shop_order (id, item) VALUES (?, ?)", (order.id, order.item))
        await app.start(order, connection=conn)  # exists exactly if the order does
        if not conn.execute("SELECT 1 FROM stock WHERE item = ? AND number > 0", (order.item,)).fetchone():
            raise LookupError(f"no {order.item} in stock")
    except BaseException:
        conn.execute("ROLLBACK")
        raise
    conn.execute("COMMIT")


async def main() -> None:
    async with app:  # makes Onward's tables in a new file
        conn = connect()
        conn.execute("CREATE TABLE stock (item TEXT PRIMARY KEY, number INTEGER NOT NULL CHECK (number >= 0))")
        conn.execute("CREATE TABLE shop_order (id TEXT PRIMARY KEY, item TEXT NOT NULL, reserved INTEGER NOT NULL DEFAULT false)")
        conn.execute("INSERT INTO stock VALUES ('a barometer', 2)")
        await place(conn, Order(id="order-1", item="a barometer"))
        try:
            await place(conn, Order(id="order-2", item="a lighthouse"))
        except LookupError as error:
            print(f"order-2: {error}; so there is no order and no process: {len(await app.find())} in all")
        await app.run(until_idle=True)
        print(await app.explain("order-1"))
        [(left,)] = conn.execute("SELECT number FROM stock")
        print(f"one of two taken, in the second attempt; left: {left}")
        conn.close()


if __name__ == "__main__":
    asyncio.run(main())
