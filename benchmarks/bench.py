"""How fast it is, beside the bare limit of the same machine in the same minute: `make bench`.

Each figure comes from a program of its own, so that none inherits another's memory or warm caches. Prints a table and
writes bench.json. Absolute figures hold for one machine and one hour; read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

from onward import END, Every, Flow, Onward, Process, stage
from onward.ports import Event, NewProcess, Observer
from onward.store.sql import load, statements

STAGES = 8
BATCH = 500
LEASE_S = 1.0
ROUNDS = 3  # of each figure; the median is reported


class Step(StrEnum):
    A, B, C, D, E, F, G, H, DONE = auto(), auto(), auto(), auto(), auto(), auto(), auto(), auto(), auto()


class Ladder(Process[Step]):
    """About 200 bytes of JSON, like a small real process."""

    status: Step = Step.A
    question: str = "Which of the stages of this process have been resolved?"
    done: int = 0
    files: dict[str, str] = {"report.md": "file-2f7c1a9be04d4c5c8a1e", "notes.md": "file-93ab77c0d1e24f6f9b3d"}
    tags: list[str] = ["bench", "ladder"]


BEGAN_AT = 0.0  # when the last ladder began


async def a(p: Ladder) -> Literal[Step.B]:
    global BEGAN_AT
    BEGAN_AT = time.perf_counter()
    p.done += 1
    return Step.B


async def b(p: Ladder) -> Literal[Step.C]:
    p.done += 1
    return Step.C


async def c(p: Ladder) -> Literal[Step.D]:
    p.done += 1
    return Step.D


async def d(p: Ladder) -> Literal[Step.E]:
    p.done += 1
    return Step.E


async def e(p: Ladder) -> Literal[Step.F]:
    p.done += 1
    return Step.F


async def f(p: Ladder) -> Literal[Step.G]:
    p.done += 1
    return Step.G


async def g(p: Ladder) -> Literal[Step.H]:
    p.done += 1
    return Step.H


async def h(p: Ladder) -> Literal[Step.DONE]:
    p.done += 1
    return Step.DONE


LADDER = Flow(Ladder, {Step.A: a, Step.B: b, Step.C: c, Step.D: d, Step.E: e, Step.F: f, Step.G: g, Step.H: h, Step.DONE: END})


class Turn(StrEnum):
    TICK, TOCK, OVER = auto(), auto(), auto()


class Clockwork(Process[Turn]):
    """Goes to and fro `turns` times, and waits now and then, as the spinning guard asks."""

    status: Turn = Turn.TICK
    turns: int
    waited: bool = False


async def tick(p: Clockwork) -> Literal[Turn.TOCK, Turn.OVER]:
    p.turns -= 1
    return Turn.TOCK if p.turns > 0 else Turn.OVER


async def tock(p: Clockwork) -> Literal[Turn.TICK, Turn.TOCK]:
    if p.turns % 200 == 1 and not p.waited:
        p.waited = True
        return Turn.TOCK
    p.waited = False
    p.turns -= 1
    return Turn.TICK


CLOCKWORK = Flow(Clockwork, {Turn.TICK: tick, Turn.TOCK: stage(tock, every=Every(seconds=0.001)), Turn.OVER: END})


def app(folder: str, *observers: Observer) -> Onward:
    return Onward(f"sqlite:///{folder}/bench.db", flows=[LADDER, CLOCKWORK], observers=observers)


async def fill(it: Onward, number: int) -> None:
    data = Ladder().model_dump_json(exclude={"id", "status"})
    for begin in range(0, number, 5_000):
        ids = [f"p{n:09d}" for n in range(begin, min(begin + 5_000, number))]
        await it.store.insert([NewProcess(id, "ladder", Step.A, data) for id in ids], "bench")


# -- the bare limit -----------------------------------------------------------------------------------------------


UPDATE = """
    UPDATE onward_process SET status = ?3, data = ?4, version = ?5, updated_at = ?5, condition = 'ready', attempt = 1, polls = 0,
           transition = ?5, moves = ?5, entered_at = ?5, due_at = ?5, error = NULL, kind = 'moved', took = 50
     WHERE id = ?1 AND version = ?2 AND epoch = 1"""
INSERT = """
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor,
                                took, data)
    VALUES (?1, ?5, ?5, 'moved', ?3, ?3, ?5, 1, 1, 'worker-0123456789ab', 50, ?4)"""


def bare(folder: str, batch: int, number: int, shuffled: bool) -> float:
    """Transitions a second of a loop that does nothing else: the same rows into the same two tables, `batch` a commit.

    No engine, no threads, no model, no trigger. Neighbours in the tree are cheaper to write than strangers, hence `shuffled`.
    """
    connection = sqlite3.connect(f"{folder}/bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    for statement in statements(load("sqlite.sql")["schema 1"]):
        if "TRIGGER" not in statement:
            connection.execute(statement)
    data = Ladder().model_dump_json(exclude={"id", "status"})
    ids = [f"p{n:09d}" for n in range(number)]
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves,"
        " cancelling, entered_at, created_at, updated_at, due_at, kind, actor)"
        " VALUES (?, 'ladder', 'a', 'ready', ?, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'started', 'bench')",
        [(id, data) for id in ids],
    )
    connection.execute("COMMIT")
    began = time.perf_counter()
    for step in range(STAGES):
        if shuffled:
            random.shuffle(ids)
        for begin in range(0, number, batch):
            rows = [(id, step, f"s{step}", data, step + 1) for id in ids[begin : begin + batch]]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(UPDATE, rows)
            connection.executemany(INSERT, rows)
            connection.execute("COMMIT")
    return number * STAGES / (time.perf_counter() - began)


# -- the figures, each run in a program of its own ----------------------------------------------------------------


async def bare_group(folder: str) -> dict[str, float]:
    return {"transitions_per_s": bare(folder, BATCH, 4_000, shuffled=False)}


async def bare_shuffled(folder: str) -> dict[str, float]:
    return {"transitions_per_s": bare(folder, BATCH, 4_000, shuffled=True)}


async def bare_single(folder: str) -> dict[str, float]:
    return {"ms_per_8_commits": 1e3 * STAGES / bare(folder, 1, 200, shuffled=False)}


async def ladder(folder: str, number: int, concurrency: int) -> dict[str, float]:
    async with app(folder) as it:
        await fill(it, number)
        began, cpu = time.perf_counter(), time.process_time()
        await it.run(until_idle=True, concurrency=concurrency)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        [count] = await it.counts()
        assert (count.status, count.number) == (Step.DONE, number), count
    history = sqlite3.connect(f"{folder}/bench.db").execute("SELECT count(*) FROM onward_history").fetchone()[0]
    assert history == number * (STAGES + 1), history
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"transitions_per_s": number * STAGES / took, "cpu_us": 1e6 * cpu / number / STAGES, "peak_mb": peak}


async def throughput(folder: str) -> dict[str, float]:
    return await ladder(folder, 4_000, 2_000)


async def memory(folder: str) -> dict[str, float]:
    return await ladder(folder, 10_000, 10_000)


async def lonely(folder: str) -> dict[str, float]:
    """One process at a time. `stages`: from its first handler to its last commit. `start`: from the call of start to there."""
    stages, whole = [], []
    over = asyncio.Event()

    def watch(event: Event) -> None:
        if event.record.status == Step.DONE:
            over.set()

    async with app(folder, watch) as it:
        running = asyncio.create_task(it.run(signals=False))
        for _ in range(300):
            over.clear()
            began = time.perf_counter()
            await it.start(Ladder())
            await over.wait()
            whole.append(1e3 * (time.perf_counter() - began))
            stages.append(1e3 * (time.perf_counter() - BEGAN_AT))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    stages.sort()
    return {"p50_ms": statistics.median(stages), "p99_ms": stages[-3], "start_to_end_p50_ms": statistics.median(whole)}


async def recovery_many(folder: str) -> dict[str, float]:
    """2,000 processes in the hands of a worker that is killed; then a new one, once their leases are over."""
    return await recover(folder, "in-flight", 2_000)


async def recovery_long(folder: str) -> dict[str, float]:
    """One process that has 5,000 transitions behind it when its worker is killed."""
    return await recover(folder, "long", 5_000)


async def recover(folder: str, child: str, versions: int) -> dict[str, float]:
    victim = subprocess.Popen([sys.executable, __file__, "--child", child, folder])
    until = time.monotonic() + 60
    try:
        while history_length(folder) < versions * (2 if child == "in-flight" else 1):
            assert time.monotonic() < until and victim.poll() is None, "the victim did not get so far"
            await asyncio.sleep(0.005)
    finally:
        victim.kill()
        victim.wait()
    await asyncio.sleep(LEASE_S + 0.1)  # now the question of the lease is settled
    first = asyncio.Event()
    async with app(folder, lambda event: first.set()) as it:
        due = len(await it.find(limit=1_000, condition="ready"))
        began = time.perf_counter()
        running = asyncio.create_task(it.run(signals=False, concurrency=2_000))
        async with asyncio.timeout(30):
            await first.wait()
        took = 1e3 * (time.perf_counter() - began)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return {"first_commit_ms": took, "ready_at_start": due, "history_rows": history_length(folder)}


async def child_in_flight(folder: str) -> None:
    async with app(folder) as it:
        await fill(it, 2_000)
        await it.run(concurrency=2_000, lease=LEASE_S)


async def child_long(folder: str) -> None:
    async with app(folder) as it:
        await it.start(Clockwork(id="long", turns=1_000_000))
        await it.run(lease=LEASE_S)


def history_length(folder: str) -> int:
    try:
        connection = sqlite3.connect(f"file:{folder}/bench.db?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        return int(connection.execute("SELECT count(*) FROM onward_history").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


async def claims(folder: str) -> dict[str, float]:
    """Claims of 100 rows, 30 times, with few and with 100,000 other rows that wait for their time."""
    figures = {}
    for waiting in (1_000, 100_000):
        place = f"{folder}/{waiting}"
        Path(place).mkdir()
        async with app(place) as it:
            await fill(it, waiting)
        connection = sqlite3.connect(f"{place}/bench.db", isolation_level=None)
        later = (int(time.time()) + 86_400) * 1_000_000
        connection.execute("UPDATE onward_process SET condition = 'waiting', due_at = ? + seq * 1000", (later,))
        connection.close()
        async with app(place) as it:
            data = Ladder().model_dump_json(exclude={"id", "status"})
            await it.store.insert([NewProcess(f"due{n:09d}", "ladder", Step.A, data) for n in range(3_000)], "bench")
            known = [("ladder", status) for status in LADDER.statuses]
            times = []
            for _ in range(30):
                began = time.perf_counter()
                claimed = await it.store.claim(known, "bench", 100, timedelta(seconds=60))
                times.append(1e3 * (time.perf_counter() - began))
                assert len(claimed) == 100
        figures[f"p50_ms_at_{waiting}"] = statistics.median(times)
        figures[f"max_ms_at_{waiting}"] = max(times)
    return figures


FIGURES: dict[str, Callable[[str], Coroutine[Any, Any, dict[str, float]]]] = {
    "bare group": bare_group,
    "bare group, shuffled": bare_shuffled,
    "throughput": throughput,
    "bare single": bare_single,
    "lonely": lonely,
    "recovery, 2,000 in flight": recovery_many,
    "recovery, 5,000 transitions": recovery_long,
    "memory, 10,000 processes": memory,
    "claims": claims,
}
CHILDREN = {"in-flight": child_in_flight, "long": child_long}


def measure(name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="onward-bench-", dir=os.environ.get("ONWARD_BENCH_DIR")) as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--figure", name, folder], stdout=subprocess.PIPE, check=True, timeout=300
        )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def table(found: dict[str, dict[str, float]]) -> list[tuple[str, str, str]]:
    """What is measured, the figure, and the target with its verdict."""
    bare_tps, tps = found["bare group"]["transitions_per_s"], found["throughput"]["transitions_per_s"]
    bare_ms, ms = found["bare single"]["ms_per_8_commits"], found["lonely"]["p50_ms"]
    many, long = found["recovery, 2,000 in flight"], found["recovery, 5,000 transitions"]
    peak, claim = found["memory, 10,000 processes"]["peak_mb"], found["claims"]

    def verdict(target: str, met: bool) -> str:
        return f"{'met' if met else 'MISSED'}: {target}"

    return [
        ("bare limit, groups of 500, rows in order", f"{bare_tps:,.0f} transitions/s", ""),
        (
            "bare limit, groups of 500, rows shuffled",
            f"{found['bare group, shuffled']['transitions_per_s']:,.0f} transitions/s",
            "",
        ),
        (
            "2,000 concurrent processes of 8 stages",
            f"{tps:,.0f} transitions/s = {tps / bare_tps:.0%}, {found['throughput']['cpu_us']:.0f} µs CPU each",
            verdict("half of the limit and 20,000/s", tps >= bare_tps / 2 and tps >= 20_000),
        ),
        ("bare limit, 8 single commits", f"{bare_ms:.2f} ms", ""),
        (
            "one lonely process, 8 stages",
            f"p50 {ms:.2f} ms = {ms / bare_ms:.1f}x, p99 {found['lonely']['p99_ms']:.1f} ms",
            verdict("p50 within twice the limit", ms <= 2 * bare_ms),
        ),
        ("… from start() to its end", f"p50 {found['lonely']['start_to_end_p50_ms']:.2f} ms", ""),
        (
            "recovery, 2,000 in flight: first commit",
            f"{many['first_commit_ms']:.0f} ms",
            verdict("100 ms", many["first_commit_ms"] <= 100),
        ),
        (
            "recovery, 5,000 transitions behind it",
            f"{long['first_commit_ms']:.0f} ms",
            verdict("100 ms", long["first_commit_ms"] <= 100),
        ),
        ("peak memory, 10,000 processes at once", f"{peak:.0f} MB", verdict("below 100 MB", peak < 100)),
        (
            "claim of 100 rows, p50 beside 1,000 / 100,000 waiting",
            f"{claim['p50_ms_at_1000']:.1f} / {claim['p50_ms_at_100000']:.1f} ms",
            verdict("flat within 1.5x", claim["p50_ms_at_100000"] <= 1.5 * claim["p50_ms_at_1000"]),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each figure is taken (default 3)")
    parser.add_argument("--figure", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        asyncio.run(CHILDREN[asked.child[0]](asked.child[1]))
        return
    if asked.figure:
        print(json.dumps(asyncio.run(FIGURES[asked.figure[0]](asked.figure[1]))))
        return
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in FIGURES}
    for number in range(asked.rounds):  # in turn, so that a figure and its limit share the same minute
        for name in FIGURES:
            print(f"round {number + 1} of {asked.rounds}: {name}", file=sys.stderr, flush=True)
            rounds[name].append(measure(name))
    found = {name: median(taken) for name, taken in rounds.items()}
    machine = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores"
    print(f"\n{machine}; medians of {asked.rounds}\n")
    for what, figure, target in table(found):
        print(f"{what:54} {figure:58} {target}")
    Path("bench.json").write_text(json.dumps({"machine": machine, "rounds": rounds, "median": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
