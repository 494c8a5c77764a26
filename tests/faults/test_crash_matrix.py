"""SIGKILL at every named point, the first, second and third time it is reached; then a clean worker, then the checker.

All runs are made by two threads beforehand, because a run mostly waits for the dead worker's leases; each test is one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .checker import check
from .points import POINTS
from .programs import Nursery

LEASE_S = 0.4
NUMBER = 30
ONCE_IN_A_LIFE = {"migrate-begin", "open-done", "drain", "close-begin"}
WHILE_DRAINING = {"drain", "release-begin", "release-row", "release-done"}
PAIRS = 12
WHILE_SELLING = {"guest-begun", "guest-started", "guest-committed"}
OFTEN = sorted(POINTS.keys() - ONCE_IN_A_LIFE - WHILE_DRAINING - WHILE_SELLING - {"migrate-within", "insert-durable"})
HEALED_WITHIN_S = 10.0  # three leases, and what a busy machine adds

CASES = [(point, hit) for point in POINTS for hit in (1, 2, 3) if hit == 1 or point not in ONCE_IN_A_LIFE]


def run(nursery: Nursery, folder: Path, point: str, hit: int) -> None:
    start: dict[str, object] = {"seed": 100 + hit, "number": NUMBER, "pace": 0.03}
    if point in WHILE_SELLING:
        victim = nursery.start("sell", folder, start=start, crash=f"{point}:{hit}:kill")
        assert victim.wait() == -9, victim.log()
        assert check(folder, [victim], at_rest=False).assert_clean().counts["processes"] < hit + 1
        assert nursery.start("sell", folder, start=start).wait() == 0
        start["number"] = 0  # the sellers have started them all
    else:
        drain = {"drain_after": 0.1, "grace": 0.0 if hit == 2 else 5.0} if point in WHILE_DRAINING else {}
        victim = nursery.start(
            "work",
            folder,
            start=start,
            lease=0.2,
            until_idle=True,
            crash=f"{point}:{hit}:kill",
            constants={"CHECKPOINT_AFTER": 60},
            **drain,
        )
    assert victim.wait() == -9, f"{point} was not reached {hit} times\n{victim.log()}"
    assert [line[:2] for line in victim.book("reached")] == [[point, hit]]
    healer = nursery.start("work", folder, start=start, lease=LEASE_S, until_idle=True)
    assert healer.wait() == 0, healer.log()
    verdict = check(folder, [victim, healer]).assert_clean()
    assert verdict.counts["processes"] == NUMBER
    assert healer.exited_at - healer.born_at < HEALED_WITHIN_S


@pytest.fixture(scope="module")
def runs(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[dict[tuple[str, int], Future[None]]]:
    asked = {item.name for item in request.session.items}
    with ThreadPoolExecutor(2) as pool:
        yield {
            case: pool.submit(run, nursery, tmp_path_factory.mktemp(case[0]), *case)
            for case in CASES
            if any(name.endswith(f"[{case[0]}-{case[1]}]") for name in asked)
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("case", CASES, ids=[f"{point}-{hit}" for point, hit in CASES])
def test_nothing_is_lost_or_doubled_by_a_kill_at(runs: dict[tuple[str, int], Future[None]], case: tuple[str, int]) -> None:
    runs[case].result()


def test_a_kill_during_the_recovery_from_a_kill_changes_nothing(
    nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    pairs = [(draw.choice(OFTEN), draw.choice(OFTEN)) for _ in range(PAIRS)]
    print(f"\nseed {seed}")
    with ThreadPoolExecutor(2) as pool:
        deaths = sum(pool.map(lambda pair: run_twice(nursery, tmp_path_factory.mktemp("pair"), *pair), pairs))
    print(f"{deaths} deaths in {PAIRS} pairs")
    assert deaths >= 1.5 * PAIRS


def run_twice(nursery: Nursery, folder: Path, first: str, second: str) -> int:
    start = {"seed": 9, "number": NUMBER, "pace": 0.03}
    lives = []
    for point in (first, second):
        order = {"start": start, "lease": 0.2, "until_idle": True, "crash": f"{point}:4:kill"}
        lives.append(nursery.start("work", folder, **order, constants={"CHECKPOINT_AFTER": 60}))
        assert lives[-1].wait() in (-9, 0), lives[-1].log()
    healer = nursery.start("work", folder, start=start, lease=LEASE_S, until_idle=True)
    assert healer.wait() == 0, healer.log()
    assert check(folder, lives).assert_clean().counts["processes"] == NUMBER
    return sum(life.exited == -9 for life in lives)
