"""What a child program of the nursery does. It ends by itself: when its work is done, when it is told to, or by its trap."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import psycopg

import onward.store.postgres.store as postgres_module
import onward.store.sqlite.store as sqlite_module
import onward.store.sqlite.turn as turn_module
import onward.store.sqlite.writer as writer_module
import onward.worker as worker_module
from onward import Flow, Onward, Process, StoreError
from onward.store.urls import is_postgres

from . import bugs, fleet, ledger, points, points_postgres, races, trouble

PORTION = 10  # processes of one insert
TRIES_MAX = 20
T = TypeVar("T")

FLOWS: list[Flow[Any]] = [ledger.FLOW, trouble.FLOW, races.FLOW]
CONSTANTS = {  # what an order may make small, so that a test need not wait
    "CHECKPOINT_AFTER": (writer_module,),
    "BUSY_S": (writer_module, sqlite_module),
    "CONNECTIONS_MAX": (postgres_module,),
    "TRANSACTIONS_MAX": (postgres_module,),
    "IGNORED_S": (worker_module,),
    "TRANSACTION_S": (turn_module,),
}


def play(order: dict[str, Any]) -> int:
    """Plays the role that the order names; its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    ledger.BOOKS = ledger.Books(Path(order["folder"]), order["boot"])
    for name, value in order.get("constants", {}).items():
        for module in CONSTANTS[name]:
            assert hasattr(module, name), name
            setattr(module, name, value)
    if "bug" in order:
        bugs.plant(order["bug"])
    points.arm(ledger.BOOKS, os.environ["CRASH"])
    points_postgres.arm()
    fleet.keep_books_of_unknown_commits(ledger.BOOKS)
    role = {"work": work, "feed": feed, "sell": sell, "operate": operate, "close": close}[order["role"]]
    asyncio.run(role(order))
    return 0


def app(order: dict[str, Any]) -> Onward:
    """`release` 2 is code of the next version of the ledger."""
    release = order.get("release", 1)
    ledger.BOOKS.note("release", release)
    flows = FLOWS if release == 1 else [ledger.NEXT, *FLOWS[1:]]
    return Onward(order["store"], flows, observers=[ledger.BOOKS.acknowledged])


async def work(order: dict[str, Any]) -> None:
    """A worker; it may start some processes first. `drain_once`: it is told to stop when so many effects have begun."""
    async with app(order) as one:
        if "start" in order:
            await _start(one, ledger.processes(**order["start"]))
        if "trouble" in order:
            await _start(one, [trouble.Trouble(**data) for data in order["trouble"]])
        told = asyncio.create_task(_tell_to_stop(order["drain_once"])) if "drain_once" in order else None
        await one.run(
            until_idle=order.get("until_idle", False),
            lease=order["lease"],
            grace=order.get("grace", 10.0),
            concurrency=order.get("concurrency", 100),
        )
        if told is not None:
            told.cancel()  # it may have been told by somebody else before


async def _tell_to_stop(begun: int) -> None:
    while ledger.BOOKS.effects < begun:
        await asyncio.sleep(0.001)
    os.kill(os.getpid(), signal.SIGTERM)


async def feed(order: dict[str, Any]) -> None:
    """Starts `portion` new processes whenever fewer than `enough` are unfinished, looking `every` so many seconds, until it is
    told to stop.
    """
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    draw = random.Random(order["seed"])
    async with app(order) as one:
        while not stop.is_set():
            try:
                waiting = sum(count.number for count in await one.counts() if count.condition not in ("finished", "failed"))
                if waiting < order["enough"]:
                    await _start(one, ledger.processes(draw.randrange(10**9), order["portion"]))
            except StoreError as error:  # it was told so: nothing was acknowledged
                logging.warning("could not start: %s", error)
            try:
                await asyncio.wait_for(stop.wait(), order.get("every", 0.05))
            except TimeoutError:
                pass


async def sell(order: dict[str, Any]) -> None:
    """Sells, and starts a process with each sale, in transactions of its own. Every third sale falls through."""
    one = app(order)
    async with one:  # makes the tables
        pass
    with closing(_guest(order["store"])) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS sale (id text PRIMARY KEY)")
        for number, process in enumerate(ledger.processes(**order["start"])):
            for end in ("ROLLBACK", "COMMIT") if number % 3 == 0 else ("COMMIT",):
                connection.execute("BEGIN")
                connection.execute(f"INSERT INTO sale VALUES ('{process.id}') ON CONFLICT DO NOTHING")
                points.trip("guest-begun")
                await one.start(process, connection=connection)
                points.trip("guest-started")
                connection.execute(end)
            points.trip("guest-committed")
            ledger.BOOKS.note("started", process.id)


def _guest(store: str) -> Any:
    """A connection of one who has an application of his own: of psycopg, or of sqlite3."""
    if is_postgres(store):
        return psycopg.connect(store, autocommit=True)
    connection = sqlite3.connect(store.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


async def operate(order: dict[str, Any]) -> None:
    async with app(order) as one:
        await races.operate(one, order)


async def close(order: dict[str, Any]) -> None:
    async with app(order) as one:
        await races.close(one, order)


async def _start(one: Onward, processes: Sequence[Process[Any]]) -> None:
    for begin in range(0, len(processes), PORTION):
        for record in await _insisting(lambda begin=begin: one.start_many(processes[begin : begin + PORTION])):  # type: ignore[misc]
            ledger.BOOKS.note("started", record.id)


async def _insisting(act: Callable[[], Awaitable[T]]) -> T:
    """As a caller should who was told that the store is in trouble: once more, for what he asks can be asked again."""
    for _ in range(TRIES_MAX):
        try:
            return await act()
        except StoreError as error:
            logging.warning("tried again: %s", error)
    return await act()
