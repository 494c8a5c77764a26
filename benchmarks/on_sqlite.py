"""SQLite: its bare limit, and the figures beside it. `place` is an empty folder."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from engine import CONCURRENT, claim_times, ladders, lonely, recovery
from figures import Figure, Figures, Row, verdict
from gate import ROWS as GATE_ROWS
from gate import gate
from gate import rows as gate_table
from ladder import DATA, STAGES, app, fill
from pages import CONDITION, ERROR, LONG, ROWS, STATUS, pages
from pages import rows as pages_table

from onward.store.sql import load, statements

BATCH = 500


def url(place: str) -> str:
    return f"sqlite:///{place}/bench.db"


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
    ids = [f"p{n:09d}" for n in range(number)]
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves,"
        " cancelling, entered_at, created_at, updated_at, due_at, kind, actor)"
        " VALUES (?, 'ladder', 'a', 'ready', ?, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'started', 'bench')",
        [(id, DATA) for id in ids],
    )
    connection.execute("COMMIT")
    began = time.perf_counter()
    for step in range(STAGES):
        if shuffled:
            random.shuffle(ids)
        for begin in range(0, number, batch):
            rows = [(id, step, f"s{step}", DATA, step + 1) for id in ids[begin : begin + batch]]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(UPDATE, rows)
            connection.executemany(INSERT, rows)
            connection.execute("COMMIT")
    return number * STAGES / (time.perf_counter() - began)


async def bare_group(place: str) -> Figures:
    return {"transitions_per_s": bare(place, BATCH, 4_000, shuffled=False)}


async def bare_shuffled(place: str) -> Figures:
    return {"transitions_per_s": bare(place, BATCH, 4_000, shuffled=True)}


async def bare_single(place: str) -> Figures:
    return {"ms_per_8_commits": 1e3 * STAGES / bare(place, 1, 200, shuffled=False)}


# -- the engine on it ---------------------------------------------------------------------------------------------


async def throughput(place: str) -> Figures:
    figures = await ladders(url(place), 4_000, CONCURRENT)
    assert await history_length(place) == 4_000 * (STAGES + 1)
    return figures


async def memory(place: str) -> Figures:
    return await ladders(url(place), 10_000, 10_000)


async def alone(place: str) -> Figures:
    return await lonely(url(place))


async def recovery_many(place: str) -> Figures:
    """2,000 processes in the hands of a worker that is killed; then a new one, once their leases are over."""
    return await recovery(url(place), "in-flight", 2 * CONCURRENT, lambda: history_length(place))


async def recovery_long(place: str) -> Figures:
    """One process that has 5,000 transitions behind it when its worker is killed."""
    return await recovery(url(place), "long", 5_000, lambda: history_length(place))


async def history_length(place: str) -> int:
    try:
        connection = sqlite3.connect(f"file:{place}/bench.db?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    try:
        return int(connection.execute("SELECT count(*) FROM onward_history").fetchone()[0])
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


DUE = """
    WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :number - 1)
    INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves,
                                cancelling, entered_at, created_at, updated_at, due_at, kind, actor)
    SELECT printf('p%09d', n), 'ladder', 'a', :condition, :data, 0, 0, 0, 0, 0, 0, 0, :now, :now, :now, :at + n,
           'started', 'bench' FROM number"""


async def claims(place: str) -> Figures:
    """Claims of 100 rows, 30 times, with few and with many other rows that wait for their time, or that are due as well."""
    figures: Figures = {}
    for condition, number in [("waiting", 1_000), ("waiting", 100_000), ("ready", 10_000), ("ready", 1_000_000)]:
        folder = f"{place}/{condition}-{number}"
        Path(folder).mkdir()
        async with app(url(folder)) as it:
            await fill(it, 3_000, "first")
        now = int(time.time() * 1e6)
        at = now + 86_400_000_000 if condition == "waiting" else now
        connection = sqlite3.connect(f"{folder}/bench.db", isolation_level=None)
        connection.execute(DUE, {"number": number, "condition": condition, "data": DATA, "now": now, "at": at})
        connection.close()
        times = await claim_times(url(folder))
        figures |= {f"p50_ms_{condition}_{number}": statistics.median(times), f"max_ms_{condition}_{number}": max(times)}
    return figures


MILLION = f"""
    WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :number - 1)
    INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves,
                                cancelling, entered_at, created_at, updated_at, due_at, owner, lease_until, error, kind, actor)
    SELECT printf('p%09d', n), 'ladder', {STATUS}, {CONDITION}, :data, 3, 1, 1, 0, 2, 0, 0, :now + n, :now + n, :now + n,
           CASE WHEN {CONDITION} IN ('finished', 'cancelled', 'failed', 'paused') THEN NULL ELSE :now + 3600000000 + n END,
           CASE WHEN {CONDITION} = 'ready' AND n % 5000 < 100 THEN 'worker-' || (n % 7) END,
           CASE WHEN {CONDITION} = 'ready' AND n % 5000 < 100 THEN :now + 3600000000 END, {ERROR}, 'moved', 'bench' FROM number"""
LONG_ONE = """
    WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :number - 1)
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch,
                                actor, took, data)
    SELECT :id, n, :now + n, CASE WHEN n % 5 THEN 'not yet' ELSE 'moved' END, 'a', 'a', n / 5, 1, 1, 'worker-1', 50, :data
      FROM number"""
TWO_MORE = """
    INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor)
    SELECT p.id, n.value, p.created_at, 'moved', 'a', 'b', n.value, 1, 1, 'worker-1'
      FROM onward_process AS p, json_each('[1, 2]') AS n WHERE true"""


async def pages_of_a_million(place: str) -> Figures:
    """Each page of the panel, beside a million processes with three entries of history each."""

    async def make() -> None:
        now = int(time.time() * 1e6) - ROWS
        connection = sqlite3.connect(f"{place}/bench.db", isolation_level=None)
        connection.execute(MILLION, {"number": ROWS, "data": DATA, "now": now})
        connection.execute(TWO_MORE)
        connection.execute("UPDATE onward_process SET id = 'long', version = ? WHERE id = 'p000000097'", (LONG,))
        connection.execute(LONG_ONE, {"id": "long", "number": LONG, "now": now, "data": DATA})
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    return await pages(url(place), make)


async def gate_of_a_million(place: str) -> Figures:
    async with app(url(place)):
        pass
    now = int(time.time() * 1e6)
    connection = sqlite3.connect(f"{place}/bench.db", isolation_level=None)
    connection.execute(DUE, {"number": GATE_ROWS, "condition": "ready", "data": DATA, "now": now, "at": now})
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return await gate(url(place))


FIGURES: Mapping[str, Figure] = {
    "bare group": bare_group,
    "bare group, shuffled": bare_shuffled,
    "throughput": throughput,
    "bare single": bare_single,
    "lonely": alone,
    "recovery, 2,000 in flight": recovery_many,
    "recovery, 5,000 transitions": recovery_long,
    "memory, 10,000 processes": memory,
    "claims": claims,
    "pages": pages_of_a_million,
    "gate": gate_of_a_million,
}


def table(found: dict[str, Figures]) -> list[Row]:
    bare_tps, tps = found["bare group"]["transitions_per_s"], found["throughput"]["transitions_per_s"]
    shuffled = found["bare group, shuffled"]["transitions_per_s"]
    bare_ms, ms = found["bare single"]["ms_per_8_commits"], found["lonely"]["p50_ms"]
    many = found["recovery, 2,000 in flight"]["first_commit_ms"]
    behind = found["recovery, 5,000 transitions"]["first_commit_ms"]
    peak, claim = found["memory, 10,000 processes"]["peak_mb"], found["claims"]
    waiting = claim["p50_ms_waiting_1000"], claim["p50_ms_waiting_100000"]
    due = claim["p50_ms_ready_10000"], claim["p50_ms_ready_1000000"]
    return [
        ("bare limit, groups of 500, rows in order", f"{bare_tps:,.0f} transitions/s", ""),
        ("bare limit, groups of 500, rows shuffled", f"{shuffled:,.0f} transitions/s", ""),
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
        ("recovery, 2,000 in flight: first commit", f"{many:.0f} ms", verdict("100 ms", many <= 100)),
        ("recovery, 5,000 transitions behind it", f"{behind:.0f} ms", verdict("100 ms", behind <= 100)),
        ("peak memory, 10,000 processes at once", f"{peak:.0f} MB", verdict("below 100 MB", peak < 100)),
        (
            "claim of 100 rows, p50 beside 1,000 / 100,000 waiting",
            f"{waiting[0]:.1f} / {waiting[1]:.1f} ms",
            verdict("flat within 1.5x", waiting[1] <= 1.5 * waiting[0]),
        ),
        (
            "claim of 100 rows, p50 beside 10,000 / 1,000,000 due",
            f"{due[0]:.1f} / {due[1]:.1f} ms",
            verdict("flat within 1.5x", due[1] <= 1.5 * due[0]),
        ),
        *pages_table(found["pages"]),
        *gate_table(found["gate"]),
    ]
