"""Workers that are killed, and a PostgreSQL that is restarted, frozen and robbed of its sessions: nothing is lost or doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest

from .fleet import Fleet, fleet

PROCESSES = 60
KILLS_MIN, KILLING_S = 150, 60.0
RESUMED_MAX_S = 10.0  # the promise is 2 s; a busy machine may take longer


@pytest.fixture
def workers(postgres_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, postgres_url) as one:
        yield one


@pytest.mark.alone
def test_a_minute_of_kill_9_among_four_workers_loses_nothing_and_doubles_nothing(workers: Fleet) -> None:
    workers.start(PROCESSES)
    dice, kills = random.Random(6), 0
    alive = [workers.worker() for _ in range(4)]
    until_at = time.monotonic() + KILLING_S
    while time.monotonic() < until_at:
        victim = alive.pop(dice.randrange(len(alive)))
        victim.kill()
        kills += 1
        alive.append(workers.worker(begun=False))
        time.sleep(dice.uniform(0.1, 0.5))
    counts = workers.come_to_rest()
    print(f"\n{kills} kills; {counts}")
    assert kills >= KILLS_MIN and counts["acknowledged"] > 1_000
    assert counts["effects again"] >= 20, "hardly a handler was cut off"


def test_restarts_lost_sessions_and_a_frozen_server_cost_time_and_nothing_else(
    private_postgres: postgres.PrivateServer, tmp_path: Path
) -> None:
    with fleet(tmp_path, private_postgres.create_database("onward_fleet")) as workers:
        workers.start(PROCESSES)
        for _ in range(2):
            workers.worker()
        workers.work_on()
        resumed = []
        for mode in ("immediate", "fast") * 3:
            private_postgres.restart(mode)
            resumed.append(workers.work_on(1))
            workers.work_on(50)
        robbed = 0
        until_at = time.monotonic() + 30
        while robbed < 100 and time.monotonic() < until_at:  # in the midst of commits, as far as they can be met there
            found = workers.ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'onward %%'"
                " AND state <> 'idle' AND (query LIKE '%%INSERT INTO onward_history%%' OR query = 'COMMIT' OR random() < 0.05)"
            )
            robbed += len(found)
            time.sleep(0.01)
        private_postgres.pause(backends=True)
        time.sleep(3)
        private_postgres.resume()
        resumed.append(workers.work_on(1))
        workers.work_on()
        unknown, (committed, not_committed) = sum(workers.unknown().values()), workers.looked_up()
        counts = workers.come_to_rest()  # no worker has ended, no attempt was spent, nothing failed
    print(
        f"\n6 restarts, {robbed} sessions ended, work resumed after {max(resumed):.1f} s at the latest; {unknown} groups"
        f" of commits without an answer, {committed} transitions found committed, {not_committed} not; {counts}"
    )
    assert robbed >= 100 and unknown >= 3
    assert max(resumed) < RESUMED_MAX_S
