"""The figures of the engine itself, the same on every store, and the programs that it takes to measure them."""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from figures import Figures
from ladder import KNOWN, STAGES, Began, Clockwork, Ladder, Step, app, fill

from onward.ports import Event

RUNNER = str(Path(__file__).with_name("bench.py"))
CONCURRENT = 2_000
LEASE_S = 1.0
VICTIM_S = 60.0
FLEET_S = 120.0
CLAIM = 100
CLAIMS = 30


async def ladders(url: str, number: int, concurrency: int) -> Figures:
    """`number` processes from end to end, by one worker in this program."""
    async with app(url) as it:
        await fill(it, number)
        began, cpu = time.perf_counter(), time.process_time()
        await it.run(until_idle=True, concurrency=concurrency)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        [count] = await it.counts()
        assert (count.status, count.number) == (Step.DONE, number), count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"transitions_per_s": number * STAGES / took, "cpu_us": 1e6 * cpu / number / STAGES, "peak_mb": peak}


async def lonely(url: str) -> Figures:
    """One process at a time. `stages`: from its first handler to its last commit. `start`: from the call of start to there."""
    stages, whole = [], []
    over = asyncio.Event()

    def watch(event: Event) -> None:
        if event.record.status == Step.DONE:
            over.set()

    async with app(url, watch) as it:
        running = asyncio.create_task(it.run(signals=False))
        for _ in range(300):
            over.clear()
            began = time.perf_counter()
            await it.start(Ladder())
            await over.wait()
            whole.append(1e3 * (time.perf_counter() - began))
            stages.append(1e3 * (time.perf_counter() - Began.at))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    stages.sort()
    return {"p50_ms": statistics.median(stages), "p99_ms": stages[-3], "start_to_end_p50_ms": statistics.median(whole)}


async def recovery(url: str, child: str, length: int, written: Callable[[], Awaitable[int]]) -> Figures:
    """The first commit of a new worker, when the leases of the one that was killed are over.

    `child` is killed as soon as `written`, the rows of the history, are `length`.
    """
    victim = subprocess.Popen([sys.executable, RUNNER, "--child", child, url])
    until = time.monotonic() + VICTIM_S
    try:
        while await written() < length:
            assert time.monotonic() < until and victim.poll() is None, "the victim did not get so far"
            await asyncio.sleep(0.005)
    finally:
        victim.kill()
        victim.wait()
    await asyncio.sleep(LEASE_S + 0.1)  # now the question of the lease is settled
    first = asyncio.Event()
    async with app(url, lambda event: first.set()) as it:
        due = len(await it.find(limit=1_000, condition="ready"))
        began = time.perf_counter()
        running = asyncio.create_task(it.run(signals=False, concurrency=CONCURRENT))
        async with asyncio.timeout(30):
            await first.wait()
        took = 1e3 * (time.perf_counter() - began)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return {"first_commit_ms": took, "ready_at_start": due, "history_rows": await written()}


async def fleet(url: str, number: int, workers: int) -> Figures:
    """Worker programs that begin together on one database; from then until the last commit of the last of them."""
    async with app(url) as it:
        await fill(it, number)
    command = [sys.executable, RUNNER, "--child", "worker", url]
    programs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(workers)]
    try:
        for program in programs:
            assert program.stdout is not None and program.stdout.readline() == "ready\n"
        began = time.monotonic()
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        told = [json.loads(program.communicate(timeout=FLEET_S)[0]) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    assert sum(one["done"] for one in told) == number, told
    took = max(one["last_at"] for one in told) - began
    return {"transitions_per_s": number * STAGES / took, "least_share": min(one["done"] for one in told) / number}


async def claim_times(url: str) -> list[float]:
    """Claims of 100 rows, in milliseconds."""
    times = []
    async with app(url) as it:
        for _ in range(CLAIMS):
            began = time.perf_counter()
            claimed = await it.store.claim(KNOWN, "bench", CLAIM, timedelta(minutes=10))
            times.append(1e3 * (time.perf_counter() - began))
            assert len(claimed) == CLAIM
    return times


# -- programs that the figures start ------------------------------------------------------------------------------


async def in_flight(url: str) -> None:
    async with app(url) as it:
        await fill(it, CONCURRENT)
        await it.run(concurrency=CONCURRENT, lease=LEASE_S)


async def long(url: str) -> None:
    async with app(url) as it:
        await it.start(Clockwork(id="long", turns=1_000_000))
        await it.run(lease=LEASE_S)


async def worker(url: str) -> None:
    done, last_at = 0, 0.0

    def watch(event: Event) -> None:
        nonlocal done, last_at
        if event.record.status == Step.DONE:
            done, last_at = done + 1, time.monotonic()

    async with app(url, watch) as it:
        print("ready", flush=True)
        sys.stdin.readline()
        await it.run(until_idle=True, concurrency=CONCURRENT)
    print(json.dumps({"done": done, "last_at": last_at}))


CHILDREN = {"in-flight": in_flight, "long": long, "worker": worker}
