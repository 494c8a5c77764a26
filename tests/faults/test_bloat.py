"""A transaction that somebody forgot, beside workers: no dead row can be cleared away, claims go on, and status says whose."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from onward.clock import SystemClock
from onward.store import upkeep_of
from onward.store.postgres.session import SESSION
from onward.store.postgres.store import SQL
from onward.store.postgres.upkeep import DEAD_MIN

from .fleet import FLOW, fleet, until

HELD_S = float(os.environ.get("ONWARD_TEST_BLOAT_S", "20"))  # for a soak: 300
PROCESSES = 300
FAR = 20_000  # processes that wait for tomorrow: without them it is no use to look into an index
COMMITS_MIN = 3_000  # a quiet machine makes ten times as many
LOOKS = 20  # at a claim, for one figure
HELD_MAX_MS = 60.0  # of a claim, for each 10,000 dead rows that cannot be cleared away: they cost about 10
AGAIN_MAX, NOISE_MS = 5.0, 10.0  # afterwards: so many times what it was before. The promise is twice, on a machine that is quiet

MAKE_FAR = """
INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves, bucket,
                            cancelling, entered_at, created_at, updated_at, due_at)
SELECT 'far-' || n, %s, %s, 'waiting', '{}', 0, 0, 0, 0, 0, 0, 0, false, now(), now(), now(), now() + interval '1 day'
  FROM generate_series(1, %s) AS n"""
KNOWN = json.dumps({FLOW.name: [f"1 {status}" for status in FLOW.statuses if not FLOW.is_end(status)]})
CLAIM = f"EXECUTE claim(NULL, '{KNOWN}', 'desk', interval '30 s', 10, 1)"
DEAD = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'onward_process'"


class Desk:
    """Claims as a worker does, in a session like its own, and gives back at once what it took."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        for name in ("plan_cache_mode", "jit"):
            connection.execute(f"SET {name} = {SESSION[name]}")

    def claim_ms(self) -> float:
        """Of the server, the median of LOOKS claims, each planned anew, as for a worker that has just begun: by the index."""
        return statistics.median(self._claim_ms() for _ in range(LOOKS))

    def _claim_ms(self) -> float:
        with self._connection.transaction(force_rollback=True):
            self._connection.execute(f"PREPARE claim AS {SQL['claim']}".encode())
            [[[found]]] = self._connection.execute(f"EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, FORMAT JSON) {CLAIM}").fetchall()
            self._connection.execute("DEALLOCATE claim")
        scans = list(scans_of(found["Plan"]))
        assert ("Index Scan", "onward_process_due") in scans and not [kind for kind, _ in scans if kind == "Seq Scan"], scans
        time.sleep(0.02)
        return float(found["Execution Time"])


def scans_of(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Each scan of the table, with its index."""
    own = (
        [(plan["Node Type"], plan.get("Index Name", ""))]
        if "Scan" in plan["Node Type"] and plan["Node Type"] != "CTE Scan"
        else []
    )
    return own + [scan for part in plan.get("Plans", ()) for scan in scans_of(part)]


@pytest.mark.alone
def test_a_forgotten_transaction_makes_claims_slower_and_is_told_and_all_is_well_when_it_is_over(
    postgres_url: str, tmp_path: Path
) -> None:
    def notes() -> list[str]:
        standing = asyncio.run(upkeep_of(postgres_url, SystemClock(), virtual=False).standing())
        return [note for note in standing.notes if "dead rows" in note]

    with fleet(tmp_path, postgres_url) as workers, closing(psycopg.connect(postgres_url, autocommit=True)) as own:
        workers.start(PROCESSES, pace=0.0)
        own.execute(MAKE_FAR, [FLOW.name, "waiting", FAR])
        own.execute("VACUUM ANALYZE onward_process")
        for _ in range(2):
            workers.worker()
        workers.work_on(1_000)
        desk = Desk(own)
        before_ms, before = desk.claim_ms(), workers.commits()
        with closing(psycopg.connect(postgres_url)) as looked, closing(psycopg.connect(postgres_url)) as wrote:
            looked.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            looked.execute("SELECT count(*) FROM onward_process")
            wrote.execute("CREATE TABLE note AS SELECT 1 AS n")
            time.sleep(HELD_S)
            until(lambda: own.execute(DEAD).fetchall()[0][0] > DEAD_MIN, "dead rows")
            own.execute("VACUUM ANALYZE onward_process")  # as autovacuum does; it can clear away nothing
            held_ms, commits = desk.claim_ms(), workers.commits() - before
            [[dead]] = own.execute(DEAD).fetchall()
            [told] = notes()
            assert f"session {looked.info.backend_pid} " in told and "idle in transaction" in told
            looked.rollback()
            until(lambda: f"session {wrote.info.backend_pid} " in "".join(notes()), "the other one to be told")
            wrote.rollback()
        assert notes() == []
        own.execute("VACUUM onward_process")  # as autovacuum does, within a minute
        after_ms = desk.claim_ms()
        own.execute("DELETE FROM onward_process WHERE id LIKE 'far-%'")
        counts = workers.come_to_rest()
    print(
        f"\n{commits} commits and {dead} dead rows in {HELD_S:g} s; a claim took {before_ms:.1f} ms before, {held_ms:.1f} ms"
        f" beside them, {after_ms:.1f} ms afterwards; {counts}\n{told}"
    )
    assert commits >= COMMITS_MIN and dead >= commits / 2
    assert held_ms < HELD_MAX_MS * dead / 10_000 + NOISE_MS and after_ms < AGAIN_MAX * before_ms + NOISE_MS
