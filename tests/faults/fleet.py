"""Workers on a PostgreSQL that somebody ill-treats: programs of their own, the work they do, and what must be true of it after.

Each process goes round and round through three stages (an effect under its key, a row of its handler's own transaction, a
wait) until the file `enough` appears. Each program keeps books beside the database: what it did, what was acknowledged, and
which commits it had no answer to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum, auto
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import psycopg

from onward import END, Context, Every, Flow, Onward, Process, Retry, stage
from onward.clock import SystemClock
from onward.store import upkeep_of
from onward.store.postgres import store as postgres_module
from onward.store.rows import Commit

from .checker import WORDS_OF_A_BUG
from .ledger import Books
from .programs import read_book

PATIENCE_S = 30.0
LEASE_S = 1.0
ENOUGH = "enough"
# A commit that met these was never sent.
NOT_SENT = {"ConnectionRefusedError", "CannotConnectNowError", "ConnectionResetError while connecting"}


class Status(StrEnum):
    PAYING = auto()
    BOOKING = auto()
    WAITING = auto()
    CLOSED = auto()


class Order(Process[Status]):
    status: Status = Status.PAYING
    done: int = 0  # commits of handlers, all of them with data
    pace: float = 0.01


BOOKS = Books(Path(os.devnull), "")


def note(ctx: Context) -> None:
    record = ctx.record
    BOOKS.note("effects", record.id, record.transition, ctx.key, record.version, record.epoch, ctx.attempt)


async def pay(order: Order, ctx: Context) -> Literal[Status.BOOKING, Status.CLOSED]:
    await asyncio.sleep(order.pace)
    order.done += 1
    note(ctx)
    return Status.CLOSED if (BOOKS.folder / ENOUGH).exists() else Status.BOOKING


async def book(order: Order, ctx: Context) -> Literal[Status.WAITING]:
    order.done += 1
    async with ctx.transaction() as connection:
        await connection.execute("INSERT INTO booking VALUES ($1, $2, $3)", ctx.record.id, ctx.record.version, ctx.record.epoch)
        await asyncio.sleep(order.pace)
    note(ctx)
    return Status.WAITING


async def wait(order: Order, ctx: Context) -> Literal[Status.WAITING, Status.PAYING]:
    order.done += 1
    note(ctx)
    return Status.PAYING if ctx.record.polls else Status.WAITING


# One attempt more than none: a process that is charged for what the database did fails, and the test sees it.
PATIENT = Retry(attempts=100, first=0.01)
FLOW = Flow(
    Order,
    {
        Status.PAYING: stage(pay, retry=PATIENT),
        Status.BOOKING: stage(book, retry=PATIENT),
        Status.WAITING: stage(wait, retry=PATIENT, every=Every(0.05)),
        Status.CLOSED: END,
    },
)


# -- a program ----------------------------------------------------------------------------------------------------


def main(order: dict[str, Any]) -> None:
    global BOOKS
    BOOKS = Books(Path(order["folder"]), order["boot"])
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s")
    keep_books_of_unknown_commits(BOOKS)
    asyncio.run(work(order))


async def work(order: dict[str, Any]) -> None:
    async with Onward(order["store"], [FLOW], observers=[BOOKS.acknowledged]) as app:
        BOOKS.note("begun", os.getpid())
        await app.run(lease=LEASE_S, grace=10.0, concurrency=order["concurrency"])


def keep_books_of_unknown_commits(books: Books) -> None:
    """`unknown`: a commit got no answer. `looked`: what a look into the history said of some."""
    store = postgres_module.PostgresStore
    ask_of = store._ask_of

    async def ask_and_note(self: Any, block: str, batch: list[Commit]) -> set[str]:
        try:
            found = await ask_of(self, block, batch)
        except Exception as error:
            if block == "commit":
                books.note("unknown", type(error).__name__, [(item.id, item.own[1], item.own[2]) for item in batch])
            raise
        if block == "committed":
            books.note("looked", [(item.id, item.own[1], item.own[2], item.id in found) for item in batch])
        return found

    store._ask_of = ask_and_note  # type: ignore[method-assign]


# -- the test's side ----------------------------------------------------------------------------------------------


class Worker:
    """A program that works until it is told to stop."""

    def __init__(self, folder: Path, boot: str, url: str, concurrency: int) -> None:
        self.folder, self.boot, self.killed = folder, boot, False
        root = Path(__file__).resolve().parents[1]
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        with (folder / f"log-{boot}").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.fleet", json.dumps(
                    {"folder": str(folder), "boot": boot, "store": url, "concurrency": concurrency})],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )  # fmt: skip

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def application(self) -> str:
        return f"onward {self.process.pid}"

    def log(self) -> str:
        return (self.folder / f"log-{self.boot}").read_text(errors="replace")

    def acknowledged(self, since: float) -> list[float]:
        """When it was told of commits."""
        return [at for *_, at in self.book("acks") if at > since]

    def book(self, name: str) -> list[list[Any]]:
        return read_book(self.folder / f"{name}-{self.boot}")

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


class Fleet:
    """Workers, their orders and a look into the database past all proxies."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.workers: list[Worker] = []

    def start(self, number: int, pace: float = 0.01) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE booking (process_id text, version integer, epoch integer)")

        async def start() -> None:
            await upkeep_of(self.url, SystemClock()).upgrade(lambda line: None)
            async with Onward(self.url, [FLOW], clock=None) as app:
                await app.start_many([Order(id=f"order-{n}", pace=pace) for n in range(number)])

        asyncio.run(start())

    def worker(self, url: str = "", concurrency: int = 100, *, begun: bool = True) -> Worker:
        """One more; with `begun` it is at work already."""
        worker = Worker(self.folder, f"w{len(self.workers)}", url or self.url, concurrency)
        self.workers.append(worker)
        if begun:
            until(lambda: worker.book("begun") or not worker.runs, f"{worker.boot} to begin")
            assert worker.runs, worker.log()
        return worker

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(sql, values).fetchall()

    def commits(self) -> int:
        return int(self.ask("SELECT sum(version) FROM onward_process")[0][0])

    def work_on(self, number: int = 100) -> float:
        """Waits for so many commits more; how long it took."""
        began, goal = time.monotonic(), self.commits() + number
        until(lambda: self.commits() >= goal, f"{number} commits", self)
        return time.monotonic() - began

    def unknown(self) -> Counter[str]:
        """Commits without an answer, group by group, by the error that came instead."""
        return Counter(error for worker in self.workers for error, _, _ in worker.book("unknown") if error not in NOT_SENT)

    def owner(self, worker: Worker) -> str:
        """The name under which it has leases: whose is what it was first told of?"""
        until(lambda: worker.book("acks"), f"{worker.boot} to commit something", self)
        id, version, *_ = worker.book("acks")[0]
        [[actor]] = self.ask("SELECT actor FROM onward_history WHERE process_id = %s AND version = %s", id, version)
        return str(actor)

    def looked_up(self) -> tuple[int, int]:
        """Of how many transitions it was found in the history that they had been committed, and that they had not."""
        found = [line[3] for worker in self.workers for lines, _ in worker.book("looked") for line in lines]
        return sum(found), len(found) - sum(found)

    def come_to_rest(self) -> Counter[str]:
        """Lets all processes end, ends the workers, and checks everything. What was counted."""
        (self.folder / ENOUGH).touch()
        until(lambda: not self.ask("SELECT FROM onward_process WHERE condition <> 'finished' LIMIT 1"), "all to be done", self)
        alive = [worker for worker in self.workers if not worker.killed]
        assert [worker.boot for worker in alive if not worker.runs] == [], "a worker has ended by itself"
        assert [worker.end() for worker in alive] == [0] * len(alive)
        return self.check()

    def check(self) -> Counter[str]:
        """What cannot have happened, has not."""
        rows = {row[0]: row[1:] for row in self.ask("SELECT id, status, version, transition, epoch, data FROM onward_process")}
        history: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for id, *entry in self.ask(
            "SELECT process_id, version, kind, from_status, to_status, transition, epoch, attempt, data, actor"
            " FROM onward_history ORDER BY process_id, version"
        ):
            history[id].append(tuple(entry))
        counts: Counter[str] = Counter(entry[1] for entries in history.values() for entry in entries)
        bad = [f"kind {kind}" for kind in counts if kind not in ("started", "moved", "not yet", "rolled back")]
        due: Counter[tuple[str, int, int]] = Counter()
        keys: set[str] = set()
        for id, entries in history.items():
            if [entry[0] for entry in entries] != list(range(len(entries))):
                bad.append(f"{id}: its versions are {[entry[0] for entry in entries]}")
            done = 0
            for before, entry in pairwise(entries):
                version, kind, source, _, transition, epoch, attempt, data, _ = entry
                moved = kind == "moved"
                if source != before[3] or transition != before[4] + moved or epoch < before[5]:
                    bad.append(f"{id}: the chain breaks at {version}")
                done += kind != "rolled back"
                if kind != "rolled back" and (data is None or data["done"] != done):
                    bad.append(f"{id}: at version {version} its data says {data}")
                if moved and source == Status.BOOKING:
                    due[id, version - 1, epoch] += 1
                if kind != "rolled back":
                    keys.add(f"{id}:{before[4]}")
                counts["attempts again"] += attempt > 1 and kind == "moved"
            last = entries[-1]
            if rows[id][:3] != (last[3], last[0], last[4]) or rows[id][4] != last[7]:
                bad.append(f"{id}: its row {rows[id]} is not its last history {last}")
        booked = Counter((id, version, epoch) for id, version, epoch in self.ask("SELECT * FROM booking"))
        bad += [f"committed without its booking: {one}" for one in (due - booked).elements()]
        bad += [f"booked without its commit: {one}" for one in (booked - due).elements()]
        received: dict[str, set[str]] = defaultdict(set)
        done_for: Counter[tuple[str, int, int]] = Counter()
        for worker in self.workers:
            for id, version, epoch, kind, status, _ in worker.book("acks"):
                entry = next(iter(history[id][version : version + 1]), None)
                if entry is None or (entry[1], entry[3], entry[5]) != (kind, status, epoch):
                    bad.append(f"{worker.boot} was told of {id} version {version}, and written is {entry}")
                counts["acknowledged"] += 1
            for id, transition, key, version, epoch, *_ in worker.book("effects"):
                received[key].add(f"{id}:{transition}")
                done_for[id, version, epoch] += 1
                counts["effects"] += 1
            bad += [f"{worker.boot} says: {words}" for words in WORDS_OF_A_BUG if words in worker.log()]
        bad += [f"an effect of {key}, which never was" for key in received.keys() - keys]
        bad += [f"no effect of {key}, which was committed" for key in keys - received.keys()]
        bad += [f"done {times} times by who had it once: {one}" for one, times in done_for.items() if times > 1]
        bad += [f"the key {key} stands for {visits}" for key, visits in received.items() if len(visits) > 1]
        counts["effects again"] = counts["effects"] - counts["moved"] - counts["not yet"]
        counts["commits"] = sum(map(len, history.values()))
        counts["log lines"] = sum(len(worker.log().splitlines()) for worker in self.workers)
        assert not bad, f"{len(bad)} violations, the first of them:\n" + "\n".join(bad[:20])
        return counts


@contextmanager
def fleet(folder: Path, url: str) -> Iterator[Fleet]:
    """Nothing of it lives longer than the test."""
    one = Fleet(folder, url)
    try:
        yield one
    finally:
        for worker in one.workers:
            worker.process.kill()
            worker.process.wait(PATIENCE_S)


def until(
    true: Callable[[], Any], what: str, fleet: Fleet | None = None, patience: float = PATIENCE_S, every: float = 0.02
) -> float:
    """How long it took."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > patience:
            logs = "".join(f"\n{worker.boot}:\n{worker.log()[-1500:]}" for worker in fleet.workers) if fleet else ""
            raise AssertionError(f"waited {patience:g} s for {what}{logs}")
        time.sleep(every)
    return time.monotonic() - began


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
