"""PostgreSQL: its bare limits, and the figures beside them. `place` is the URL of an empty database."""

from __future__ import annotations

import asyncio
import json
import random
import re
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import postgres
from engine import CLAIM, CLAIMS, CONCURRENT, claim_times, fleet, ladders, lonely, recovery
from figures import Figure, Figures, Row, verdict
from gate import ROWS as GATE_ROWS
from gate import gate
from gate import rows as gate_table
from ladder import DATA, KNOWN, LADDER, STAGES, app, fill
from pages import CONDITION, ERROR, LONG, ROWS, STATUS, pages
from pages import rows as pages_table

from onward.clock import SystemClock
from onward.store.postgres.session import Address
from onward.store.postgres.store import SQL
from onward.store.postgres.upkeep import PostgresUpkeep

PROCESSES = 8_000
PGBENCH_CLIENTS = 1, 2, 4, 8, 16
PGBENCH_S = 2
EIGHTS = 200
SIZES = 10_000, 100_000, 1_000_000
FAR = "interval '1 day'"


async def connect(place: str) -> asyncpg.Connection:
    """A connection like the store's own ones: durable, and with one generic plan for each statement."""
    return await asyncpg.connect(place, **Address(place).session())


async def make_tables(place: str) -> None:
    await PostgresUpkeep(place, SystemClock()).upgrade(lambda step: None)


# -- the bare limit -----------------------------------------------------------------------------------------------

# The same columns of the same rows as a transition of the engine writes, by the fewest parameters.
MOVED = """
moved AS (
    UPDATE onward_process AS p
       SET status = item.status, condition = 'ready', data = item.data::jsonb, changed = true, version = p.version + 1,
           attempt = 1, excused = 0, losses = 0, polls = 0, transition = p.transition + 1, moves = p.moves + 1,
           cancelling = false, entered_at = statement_timestamp(), updated_at = statement_timestamp(),
           due_at = statement_timestamp(), error = NULL
      FROM item WHERE p.id = item.id AND p.version = item.version
 RETURNING p.id, p.version, p.updated_at, p.status, p.transition, p.epoch, p.owner, item.took, p.data)
INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, data)
SELECT id, version, updated_at, 'moved', status, status, transition, 1, epoch, owner, took, data FROM moved"""
GROUP = f"""
WITH item AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::bigint[])
        AS item (id, version, status, data, took)),
{MOVED}"""
SINGLE = f"""
WITH item AS MATERIALIZED (
    SELECT $1::text AS id, $2::integer AS version, $3::text AS status, $4::text AS data, $5::bigint AS took),
{MOVED}"""


async def claimed(place: str, number: int) -> list[str]:
    """The ids of `number` processes in the hands of a worker."""
    await make_tables(place)
    async with app(place) as it:
        await fill(it, number)
    connection = await connect(place)
    await connection.execute(f"UPDATE onward_process SET owner = 'worker-0123456789ab', lease_until = now() + {FAR}")
    await connection.close()
    return [f"p{n:09d}" for n in range(number)]


async def bare(place: str, batch: int, shuffled: bool) -> float:
    """Transitions a second of two connections that do nothing else: the same rows into the same two tables, `batch` a commit.

    No engine, no tasks, no model. The arrays are made of rows, for that is how transitions come. Neighbours in the tree are
    cheaper to write than strangers, hence `shuffled`.
    """
    ids = await claimed(place, PROCESSES)
    connections = [await connect(place) for _ in range(2)]

    async def write(connection: asyncpg.Connection, ids: list[str]) -> None:
        for step in range(STAGES):
            if shuffled:
                random.shuffle(ids)
            for begin in range(0, len(ids), batch):
                rows = [(id, step, f"s{step}", DATA, 50) for id in ids[begin : begin + batch]]
                done = await connection.execute(GROUP, *zip(*rows, strict=True))
                assert done == f"INSERT 0 {len(rows)}", done

    began = time.perf_counter()
    await asyncio.gather(write(connections[0], ids[::2]), write(connections[1], ids[1::2]))
    took = time.perf_counter() - began
    for connection in connections:
        await connection.close()
    assert await history_length(place) == PROCESSES * (STAGES + 1)
    return PROCESSES * STAGES / took


async def bare_group(place: str) -> Figures:
    return {"transitions_per_s": await bare(place, 500, shuffled=False)}


async def bare_shuffled(place: str) -> Figures:
    return {"transitions_per_s": await bare(place, 500, shuffled=True)}


async def bare_thousand(place: str) -> Figures:
    return {"transitions_per_s": await bare(place, 1_000, shuffled=False)}


async def bare_single(place: str) -> Figures:
    """Eight commits, one after the other on one connection, each by a statement without arrays."""
    ids = await claimed(place, EIGHTS)
    connection = await connect(place)
    times = []
    for id in ids:
        began = time.perf_counter()
        for step in range(STAGES):
            assert await connection.execute(SINGLE, id, step, f"s{step}", DATA, 50) == "INSERT 0 1"
        times.append(1e3 * (time.perf_counter() - began))
    await connection.close()
    return {"ms_per_8_commits": statistics.median(times)}


async def pgbench(place: str) -> Figures:
    """The simple update of PostgreSQL's own benchmark, prepared: one transaction is one commit of four statements."""
    program = str(postgres.Server(place).bin / "pgbench")

    def run(*options: str) -> str:
        command = [program, *options, place]
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=60, text=True
        ).stdout

    run("--initialize", "--scale=10", "--quiet")
    figures = {}
    for clients in PGBENCH_CLIENTS:
        said = run("--skip-some-updates", "--protocol=prepared", f"--client={clients}", f"--time={PGBENCH_S}")
        found = re.search(r"^tps = ([0-9.]+)", said, re.MULTILINE)
        assert found is not None, said
        figures[f"tps_{clients}"] = float(found[1])
    return {**figures, "best": max(figures.values())}


# -- the engine on it ---------------------------------------------------------------------------------------------


async def throughput(place: str) -> Figures:
    await make_tables(place)
    figures = await ladders(place, PROCESSES, CONCURRENT)
    assert await history_length(place) == PROCESSES * (STAGES + 1)
    return {**figures, **await hot(place)}


async def hot(place: str) -> Figures:
    """How many of the updates touched no index."""
    connection = await connect(place)
    await asyncio.sleep(1.1)  # sessions tell of themselves once a second
    row = await connection.fetchrow("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'onward_process'")
    await connection.close()
    return {"hot": row[1] / max(1, row[0])}


async def one_worker(place: str) -> Figures:
    await make_tables(place)
    return await fleet(place, PROCESSES, 1)


async def two_workers(place: str) -> Figures:
    await make_tables(place)
    return await fleet(place, PROCESSES, 2)


async def memory(place: str) -> Figures:
    await make_tables(place)
    return await ladders(place, 10_000, 10_000)


async def alone(place: str) -> Figures:
    await make_tables(place)
    return await lonely(place)


async def recovery_many(place: str) -> Figures:
    """2,000 processes in the hands of a worker that is killed; then a new one, once their leases are over."""
    await make_tables(place)
    return await recovery(place, "in-flight", 2 * CONCURRENT, lambda: history_length(place))


async def recovery_long(place: str) -> Figures:
    """One process that has 5,000 transitions behind it when its worker is killed."""
    await make_tables(place)
    return await recovery(place, "long", 5_000, lambda: history_length(place))


async def history_length(place: str) -> int:
    connection = await connect(place)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM onward_history"))
    finally:
        await connection.close()


# -- claims beside many rows --------------------------------------------------------------------------------------

MANY = """
INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves, bucket,
                            cancelling, entered_at, created_at, updated_at, due_at)
SELECT $1 || lpad(n::text, 9, '0'), $2, 'a', $3, $4::jsonb, 0, 0, 0, 0, 0, 0, n % 1024, false, now(), now(), now(),
       now() + $5::interval + n * interval '1 microsecond' FROM generate_series(0, $6::integer - 1) AS n"""
HISTORY = """
INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, data)
SELECT p.id, n, now(), 'moved', 'a', 'a', n, 1, 1, 'worker-0123456789ab', 50, p.data
  FROM onward_process AS p, generate_series(1, $1::integer) AS n"""


class Desk:
    """A connection on which rows are made by the million, and the claim is explained."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def make(self, prefix: str, condition: str, number: int) -> None:
        later = timedelta(days=1 if condition == "waiting" else 0)
        await self._connection.execute(MANY, prefix, LADDER.name, condition, DATA, later, number)

    async def make_history(self, each: int) -> None:
        await self._connection.execute(HISTORY, each)

    async def run(self, statement: str, *values: object) -> None:
        await self._connection.execute(statement, *values)

    async def clear(self) -> None:
        await self._connection.execute("TRUNCATE onward_process, onward_history")

    async def settle(self) -> None:
        """What autovacuum would do a minute later; and no checkpoint of these rows falls into the measurement."""
        await self._connection.execute("VACUUM ANALYZE onward_process")
        await self._connection.execute("VACUUM ANALYZE onward_history")
        await self._connection.execute("CHECKPOINT")

    async def plan(self) -> str:
        """That of the claim's very text, as the server keeps it for a session of ours: made without a look at the values."""
        await self._connection.execute(f"PREPARE claim AS {SQL['claim']}")
        known = json.dumps({LADDER.name: [f"{version} {status}" for _, status, version in KNOWN]})
        lines = await self._connection.fetch(
            f"EXPLAIN (COSTS OFF) EXECUTE claim(NULL, '{known}', 'bench', interval '30 s', 100, 1)"
        )
        await self._connection.execute("DEALLOCATE claim")
        return "\n".join(line[0] for line in lines)


@asynccontextmanager
async def desk(place: str) -> AsyncIterator[Desk]:
    connection = await connect(place)
    try:
        await connection.execute("SET statement_timeout = 0")
        yield Desk(connection)
    finally:
        await connection.close()


def by_index(plan: str) -> bool:
    return "onward_process_due" in plan and "Seq Scan" not in plan


async def claims(place: str) -> Figures:
    """Claims of 100 rows, 30 times, beside more and more rows that are due too, and beside as many that are waiting."""
    await make_tables(place)
    figures: Figures = {}
    async with desk(place) as it:
        for condition in ("waiting", "ready"):
            for number in SIZES:
                await it.clear()
                await it.make("first", "ready", CLAIM * CLAIMS)
                await it.make("p", condition, number)
                await it.settle()
                plan = await it.plan()
                times = await claim_times(place)
                figures |= {f"p50_ms_{condition}_{number}": statistics.median(times), f"max_ms_{condition}_{number}": max(times)}
                figures[f"by_index_{condition}_{number}"] = by_index(plan)
    return figures


async def claims_beside_history(place: str) -> Figures:
    """The same beside 100,000 due rows, before and after a million rows were added to the history."""
    await make_tables(place)
    async with desk(place) as it:
        await it.make("p", "ready", 100_000)
        await it.settle()
        plan, before = await it.plan(), await claim_times(place)
        await it.make_history(each=10)
        await it.settle()
        after = await claim_times(place)
        same = plan == await it.plan()
    return {"p50_ms_before": statistics.median(before), "p50_ms_after": statistics.median(after), "same_plan": same}


MILLION = f"""
INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves, bucket,
                            cancelling, entered_at, created_at, updated_at, due_at, owner, lease_until, error)
SELECT 'p' || lpad(n::text, 9, '0'), 'ladder', {STATUS}, {CONDITION}, $1::jsonb, 2, 1, 1, 0, 2, 0, n % 1024, false, at, at, at,
       CASE WHEN {CONDITION} IN ('finished', 'cancelled', 'failed', 'paused') THEN NULL ELSE at + interval '1 h' END,
       CASE WHEN {CONDITION} = 'ready' AND n % 5000 < 100 THEN 'worker-' || (n % 7) END,
       CASE WHEN {CONDITION} = 'ready' AND n % 5000 < 100 THEN at + interval '1 h' END, {ERROR}
  FROM (SELECT n, now() - interval '2 s' + n * interval '1 microsecond' AS at
          FROM generate_series(0, $2::integer - 1) AS n) AS number"""
LONG_ONE = """
INSERT INTO onward_history (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, data)
SELECT $1, n, now() + n * interval '1 microsecond', CASE WHEN n % 5 > 0 THEN 'not yet' ELSE 'moved' END, 'a', 'a', n / 5, 1, 1,
       'worker-1', 50, $3::jsonb FROM generate_series(0, $2::integer) AS n"""


async def pages_of_a_million(place: str) -> Figures:
    """Each page of the panel, beside a million processes with three entries of history each."""
    await make_tables(place)

    async def make() -> None:
        async with desk(place) as it:
            await it.run(MILLION, DATA, ROWS)
            await it.make_history(each=2)
            await it.run("UPDATE onward_process SET id = 'long', version = $1 WHERE id = 'p000000097'", LONG)
            await it.run(LONG_ONE, "long", LONG, DATA)
            await it.settle()

    return await pages(place, make)


async def gate_of_a_million(place: str) -> Figures:
    await make_tables(place)
    async with desk(place) as it:
        await it.make("p", "ready", GATE_ROWS)
        await it.settle()
    return await gate(place)


FIGURES: Mapping[str, Figure] = {
    "pgbench": pgbench,
    "bare group": bare_group,
    "bare group, shuffled": bare_shuffled,
    "bare group of 1,000": bare_thousand,
    "throughput": throughput,
    "one worker": one_worker,
    "two workers": two_workers,
    "bare single": bare_single,
    "lonely": alone,
    "recovery, 2,000 in flight": recovery_many,
    "recovery, 5,000 transitions": recovery_long,
    "memory, 10,000 processes": memory,
    "claims": claims,
    "claims, history": claims_beside_history,
    "pages": pages_of_a_million,
    "gate": gate_of_a_million,
}


def table(found: dict[str, Figures]) -> list[Row]:
    return [
        *_throughput(found),
        *_alone(found),
        *_after_a_kill(found),
        *_claims(found),
        *pages_table(found["pages"]),
        *gate_table(found["gate"]),
    ]


def _throughput(found: dict[str, Figures]) -> list[Row]:
    bare_tps, tps = found["bare group"]["transitions_per_s"], found["throughput"]["transitions_per_s"]
    one, two = found["one worker"]["transitions_per_s"], found["two workers"]["transitions_per_s"]
    return [
        ("pgbench, simple update, best of 1 to 16 clients", f"{found['pgbench']['best']:,.0f} transactions/s", ""),
        ("bare limit, groups of 500, rows in order", f"{bare_tps:,.0f} transitions/s", ""),
        (
            "bare limit, groups of 500, rows shuffled",
            f"{found['bare group, shuffled']['transitions_per_s']:,.0f} transitions/s",
            "",
        ),
        (
            "bare limit, groups of 1,000, rows in order",
            f"{found['bare group of 1,000']['transitions_per_s']:,.0f} transitions/s",
            "",
        ),
        (
            "2,000 concurrent processes of 8 stages",
            f"{tps:,.0f} transitions/s = {tps / bare_tps:.0%}, {found['throughput']['cpu_us']:.0f} µs CPU each",
            verdict("half of the limit and 15,000/s", tps >= bare_tps / 2 and tps >= 15_000),
        ),
        (
            "two worker programs on one database",
            f"{two:,.0f} transitions/s = {two / one:.2f}x one of them ({one:,.0f})",
            verdict("1.4 times one", two >= 1.4 * one),
        ),
    ]


def _alone(found: dict[str, Figures]) -> list[Row]:
    bare_ms, ms = found["bare single"]["ms_per_8_commits"], found["lonely"]["p50_ms"]
    return [
        ("bare limit, 8 single commits", f"{bare_ms:.2f} ms", ""),
        (
            "one lonely process, 8 stages",
            f"p50 {ms:.2f} ms = {ms / bare_ms:.1f}x, p99 {found['lonely']['p99_ms']:.1f} ms",
            verdict("p50 within twice the limit", ms <= 2 * bare_ms),
        ),
        ("… from start() to its end", f"p50 {found['lonely']['start_to_end_p50_ms']:.2f} ms", ""),
    ]


def _after_a_kill(found: dict[str, Figures]) -> list[Row]:
    many = found["recovery, 2,000 in flight"]["first_commit_ms"]
    behind = found["recovery, 5,000 transitions"]["first_commit_ms"]
    peak = found["memory, 10,000 processes"]["peak_mb"]
    return [
        ("recovery, 2,000 in flight: first commit", f"{many:.0f} ms", verdict("100 ms", many <= 100)),
        ("recovery, 5,000 transitions behind it", f"{behind:.0f} ms", verdict("100 ms", behind <= 100)),
        ("peak memory, 10,000 processes at once", f"{peak:.0f} MB", verdict("below 100 MB", peak < 100)),
    ]


def _claims(found: dict[str, Figures]) -> list[Row]:
    claim, history = found["claims"], found["claims, history"]
    table = []
    for condition, word in (("waiting", "waiting"), ("ready", "due")):
        times = [claim[f"p50_ms_{condition}_{number}"] for number in SIZES]
        planned = all(claim[f"by_index_{condition}_{number}"] for number in SIZES)
        table.append(
            (
                f"claim of 100, p50 beside 10,000 / 100,000 / 1,000,000 {word}",
                " / ".join(f"{ms:.1f}" for ms in times) + f" ms, {'always by' if planned else 'NOT always by'} its index",
                verdict("flat within 1.5x, by index", planned and max(times) <= 1.5 * times[0]),
            )
        )
    before, after, same = history["p50_ms_before"], history["p50_ms_after"], history["same_plan"]
    table.append(
        (
            "… before and after 1,000,000 rows of history",
            f"{before:.1f} / {after:.1f} ms, {'the same' if same else 'ANOTHER'} plan",
            verdict("unchanged", bool(same) and after <= 1.5 * before),
        )
    )
    return table
