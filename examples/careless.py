"""Ten ways to lose something in a crash, and how each is mended. `onward prove` finds them; each handler below runs very well as
long as nothing happens to it.

python examples/careless.py            proves the first of them
python examples/careless.py rent       proves another one: charge, book, wait, close, enter, fetch, count, mail, order, rent
"""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from openai import DefaultAsyncHttpxClient  # any httpx client would do

from onward import END, Context, Every, Flow, Process, stage
from onward.testing import Http, Outside, prove


class Status(StrEnum):
    OPEN = auto()
    DONE = auto()


class Job(Process[Status]):
    status: Status = Status.OPEN
    item: str = "a barometer"
    booking: str = ""
    mailed: bool = False


class Steps(StrEnum):
    OPEN = auto()
    UNDER_WAY = auto()
    DONE = auto()


class Longer(Process[Steps]):
    status: Steps = Steps.OPEN
    token: str = ""
    machine: str = ""


# 1. A request that makes something, without an idempotency key: when its answer is lost, it is sent again.


async def charge(job: Job, ctx: Context) -> Literal[Status.DONE]:
    await post(ctx, "/charges", {"item": job.item})
    return Status.DONE


async def charge_mended(job: Job, ctx: Context) -> Literal[Status.DONE]:
    await post(ctx, "/charges", {"item": job.item}, key=ctx.key)  # the same in all attempts: the receiver knows it
    return Status.DONE


# 2. An act before its record, and nothing by which it can be found again: a crash between the two does it twice.


async def call_courier(item: str, key: str = "") -> str:
    return f"{item} is booked"


async def book(job: Job, ctx: Context) -> Literal[Status.DONE]:
    job.booking = await ctx.once("courier", call_courier, job.item)
    return Status.DONE


async def book_mended(job: Job, ctx: Context) -> Literal[Status.DONE]:
    job.booking = await ctx.once("courier", call_courier, job.item, ctx.key)
    return Status.DONE


# 3. The deadline of a poll in memory: with each restart it begins anew.

DEADLINES: dict[str, float] = {}
PATIENCE_S = 3_600.0


async def wait(job: Job) -> Literal[Status.OPEN, Status.DONE]:
    now = asyncio.get_running_loop().time()
    return Status.OPEN if now < DEADLINES.setdefault(job.id, now + PATIENCE_S) else Status.DONE


async def wait_mended(job: Job) -> Literal[Status.OPEN, Status.DONE]:
    return Status.OPEN  # its deadline stands in the table: within=..., otherwise=...


# 4. A deletion that takes "there is none" for an error: after a crash it can never be done again.


async def close(job: Job, ctx: Context) -> Literal[Status.DONE]:
    response = await ctx.resources.delete("/sandboxes/sandbox-1")
    response.raise_for_status()
    return Status.DONE


async def close_mended(job: Job, ctx: Context) -> Literal[Status.DONE]:
    response = await ctx.resources.delete("/sandboxes/sandbox-1")
    if response.status_code != 404:  # an attempt before this one did it
        response.raise_for_status()
    return Status.DONE


# 5. A line that is added to a file: with each attempt one more.


def enter(job: Job) -> Literal[Status.DONE]:
    with Path("ledger.txt").open("a") as ledger:
        ledger.write(f"{job.item}\n")
    return Status.DONE


def enter_mended(job: Job) -> Literal[Status.DONE]:
    beside = Path("entry.part")
    beside.write_text(f"{job.item}\n")
    beside.replace("entry.txt")  # the same file, however often
    return Status.DONE


# 6. State outside of the process: another worker does not have it, and after a restart nobody does.

TOKENS: dict[str, str] = {}


async def log_in(job: Longer) -> Literal[Steps.UNDER_WAY]:
    TOKENS[job.id] = "token-1"
    return Steps.UNDER_WAY


async def fetch(job: Longer) -> Literal[Steps.DONE]:
    job.token = TOKENS[job.id]
    return Steps.DONE


async def log_in_mended(job: Longer) -> Literal[Steps.UNDER_WAY]:
    job.token = "token-1"
    return Steps.UNDER_WAY


async def fetch_mended(job: Longer) -> Literal[Steps.DONE]:
    return Steps.DONE


# 7. A transaction of one's own, beside that of the transition: one of the two commits first.


async def count(job: Job) -> Literal[Status.DONE]:
    shop = sqlite3.connect("shop.db")
    with shop:
        shop.execute("CREATE TABLE IF NOT EXISTS sold (item TEXT)")
        shop.execute("INSERT INTO sold VALUES (?)", (job.item,))
    shop.close()
    return Status.DONE


async def count_mended(job: Job, ctx: Context) -> Literal[Status.DONE]:
    async with ctx.transaction() as conn:
        conn.execute("INSERT INTO sold VALUES (?)", (job.item,))
    return Status.DONE


# 8. "It is done" is written down before it is done: a crash between the two, and it never will be.


async def mail(job: Job, ctx: Context) -> Literal[Status.DONE]:
    if not job.mailed:
        job.mailed = True
        await ctx.save()
        await post(ctx, "/mails", {"item": job.item}, key=ctx.key)
    return Status.DONE


async def mail_mended(job: Job, ctx: Context) -> Literal[Status.DONE]:
    if not job.mailed:
        await post(ctx, "/mails", {"item": job.item}, key=ctx.key)
        job.mailed = True
        await ctx.save()
    return Status.DONE


# 9. A key that is a new one in each attempt, so that it is no key.


async def order(job: Job, ctx: Context) -> Literal[Status.DONE]:
    await post(ctx, "/orders", {"item": job.item}, key=str(uuid4()))
    return Status.DONE


async def order_mended(job: Job, ctx: Context) -> Literal[Status.DONE]:
    await post(ctx, "/orders", {"item": job.item}, key=ctx.key)
    return Status.DONE


# 10. A clean-up that knows only what was written down: a process cancelled while it was being made leaves it behind.


async def rent(job: Longer, ctx: Context) -> Literal[Steps.UNDER_WAY]:
    job.machine = (await post(ctx, "/machines", {"size": "small"}, key=ctx.key))["id"]
    return Steps.UNDER_WAY


async def give_back(job: Longer, ctx: Context) -> Literal[Steps.DONE]:
    if job.machine:
        await ctx.resources.delete(f"/machines/{job.machine}")
    return Steps.DONE


async def rent_mended(job: Longer, ctx: Context) -> Literal[Steps.UNDER_WAY]:
    response = await ctx.resources.put(f"/machines/{job.id}", json={"size": "small"})  # a name that is known beforehand
    response.raise_for_status()
    return Steps.UNDER_WAY


async def give_back_mended(job: Longer, ctx: Context) -> Literal[Steps.DONE]:
    await ctx.resources.delete(f"/machines/{job.id}")
    return Steps.DONE


async def post(ctx: Context, path: str, content: dict[str, Any], key: str = "") -> dict[str, Any]:
    headers = {"Idempotency-Key": key} if key else {}
    response = await ctx.resources.post(path, json=content, headers=headers)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


# -- the tables ----------------------------------------------------------------------------------------------------


def one(name: str, handler: Any) -> Flow[Status]:
    return Flow(Job, {Status.OPEN: handler, Status.DONE: END}, name=name)


def two(name: str, first: Any, second: Any, on_cancel: Steps | None = None) -> Flow[Steps]:
    return Flow(Longer, {Steps.OPEN: first, Steps.UNDER_WAY: second, Steps.DONE: END}, name=name, on_cancel=on_cancel)


LOOK = Every(seconds=600)
LATER = timedelta(hours=1)

CARELESS: list[Flow[Any]] = [
    one("charge", charge),
    one("book", book),
    one("wait", stage(wait, every=LOOK)),
    one("close", close),
    one("enter", enter),
    two("fetch", log_in, fetch),
    one("count", count),
    one("mail", mail),
    one("order", order),
    two("rent", rent, give_back, Steps.UNDER_WAY),
]
MENDED: list[Flow[Any]] = [
    one("charge", charge_mended),
    one("book", book_mended),
    one("wait", stage(wait_mended, every=LOOK, within=LATER, otherwise=Status.DONE)),
    one("close", close_mended),
    one("enter", enter_mended),
    two("fetch", log_in_mended, fetch_mended),
    one("count", count_mended),
    one("mail", mail_mended),
    one("order", order_mended),
    two("rent", rent_mended, give_back_mended, Steps.UNDER_WAY),
]


# -- what they meet in a proof: a service in this program, and the shop's own table --------------------------------


class Service:
    """It honours an Idempotency-Key, like any service worth its money."""

    def __init__(self) -> None:
        self.rented = {"/sandboxes/sandbox-1"}
        self.known: dict[str, dict[str, Any]] = {}

    def __call__(self, request: Any) -> tuple[int, dict[str, Any]]:
        path, key = request.url.path, request.headers.get("idempotency-key")
        if request.method == "DELETE":
            was_there = path in self.rented
            self.rented.discard(path)
            return 200 if was_there else 404, {}
        if request.method == "PUT":
            self.rented.add(path)
            return 200, {}
        if key in self.known:
            return 200, self.known[key]
        answer = {"id": f"number-{len(self.known) + 1}", **json.loads(request.content)}
        if path == "/machines":
            self.rented.add(f"{path}/{answer['id']}")
        self.known[key or answer["id"]] = answer
        return 200, answer


@contextmanager
def outside() -> Iterator[Outside]:
    service = Service()
    client = DefaultAsyncHttpxClient(transport=Http(service), base_url="https://shop.example")

    def tables(conn: Any) -> None:
        conn.execute("CREATE TABLE sold (item TEXT)")

    yield Outside(resources=client, alive=lambda: service.rented, prepare=tables)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "charge"
    for kind, flows in (("careless", CARELESS), ("mended", MENDED)):
        for flow in flows:
            if flow.name == name:
                print(f"{kind} {prove(flow, flow.model.model_validate({'id': 'job-1'}), outside=outside)}\n")


if __name__ == "__main__":
    main()
