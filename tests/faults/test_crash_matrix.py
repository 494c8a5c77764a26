"""SIGKILL at every named point, the first, second and third time it is reached; then a clean worker, then the checker.

All runs are made by a few threads beforehand, because a run mostly waits for the dead worker's leases; each test is one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from .beforehand import Played, played
from .checker import check
from .places import FEW, STORES, Places
from .points import POINTS
from .points_postgres import POINTS_POSTGRES
from .programs import Nursery

LEASE_S = 0.4  # of those that are killed
HEALERS_LEASE_S = 5.0  # it is slow on a busy machine, and must not lose anything for that
NUMBER, MANY = 12, 30
THREADS = 4
SMALL = {**FEW, "CHECKPOINT_AFTER": 20}  # so that the checkpoints are reached, and the rest costs less
ONCE_IN_A_LIFE = {"migrate-begin", "open-done", "drain", "close-begin"}
WHILE_DRAINING = {"drain", "release-begin", "release-row", "release-done"}
WHILE_RENEWING = {"renew-begin", "renew-within", "renew-done"}
SELDOM = WHILE_DRAINING | {"insert-durable", "transaction-undone"}
PAIRS = 12
ROUNDS_MAX = 4  # of pairs drawn anew, in place of those whose second point was not reached
WHILE_SELLING = {"guest-begun", "guest-started", "guest-committed"}
OFTEN = POINTS.keys() - ONCE_IN_A_LIFE - WHILE_DRAINING - WHILE_SELLING - {"migrate-within", "insert-durable"}
HEALED_WITHIN_S = 10.0  # three leases, and what a busy machine adds

HITS = (1, 2, 3)
CASES = [
    (store, point, hit)
    for hit in HITS
    for store, points in zip(STORES, (POINTS, POINTS_POSTGRES), strict=True)
    for point in points
    if hit == 1 or point not in ONCE_IN_A_LIFE
]


def named(store: str, point: str, hit: int) -> str:
    return f"{store}-{point}-{hit}"


def run(nursery: Nursery, places: Places, store: str, point: str, hit: int) -> None:
    number = MANY if point in SELDOM else NUMBER
    start: dict[str, object] = {"seed": 100 + hit, "number": number, "pace": 0.15 if point in WHILE_RENEWING else 0.03}
    with places.at(store, point) as folder:
        if point in WHILE_SELLING:
            victim = nursery.start("sell", folder, start=start, crash=f"{point}:{hit}:kill")
            assert victim.wait() == -9, victim.log()
            assert check(folder, [victim], at_rest=False).assert_clean().counts["processes"] < hit + 1
            assert nursery.start("sell", folder, start=start).wait() == 0
            start["number"] = 0  # the sellers have started them all
        else:
            drain = {"drain_once": MANY, "grace": 0.0 if hit == 2 else 5.0} if point in WHILE_DRAINING else {}
            victim = nursery.start("work", folder, **working(start, point, hit), **drain)
        assert victim.wait() == -9, f"{point} was not reached {hit} times\n{victim.log()}"
        assert [line[:2] for line in victim.book("reached")] == [[point, hit]]
        healer = nursery.start("work", folder, start=start, lease=HEALERS_LEASE_S, until_idle=True, constants=SMALL)
        assert healer.wait() == 0, healer.log()
        verdict = check(folder, [victim, healer]).assert_clean()
        assert verdict.counts["processes"] == number
        assert healer.exited_at - healer.born_at < HEALED_WITHIN_S


def working(start: dict[str, object], point: str, hit: int) -> dict[str, object]:
    """The order of a worker that is killed there."""
    return {"start": start, "lease": LEASE_S, "until_idle": True, "crash": f"{point}:{hit}:kill", "constants": SMALL}


@pytest.fixture(scope="module")
def runs(nursery: Nursery, places: Places, request: pytest.FixtureRequest) -> Iterator[Played[None]]:
    scenarios = {named(*case): partial(run, nursery, places, *case) for case in CASES}
    with played(request, scenarios, THREADS) as runs:
        yield runs


@pytest.mark.parametrize("case", [named(*case) for case in CASES])
def test_nothing_is_lost_or_doubled_by_a_kill_at(runs: Played[None], case: str) -> None:
    runs[case].result()


@pytest.mark.parametrize("store", STORES)
def test_a_kill_during_the_recovery_from_a_kill_changes_nothing(nursery: Nursery, places: Places, store: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    often = sorted(OFTEN if store == "sqlite" else OFTEN & POINTS_POSTGRES.keys())
    killed_twice, drawn = 0, 0
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(ROUNDS_MAX):
            traps = [[(draw.choice(often), draw.choice(HITS)) for _ in range(2)] for _ in range(PAIRS - killed_twice)]
            killed_twice += sum(pool.map(lambda pair: run_twice(nursery, places, store, *pair), traps))
            drawn += len(traps)
    print(f"\nseed {seed}: killed twice in {killed_twice} of {drawn} runs")
    assert killed_twice == PAIRS


def run_twice(nursery: Nursery, places: Places, store: str, first: tuple[str, int], second: tuple[str, int]) -> bool:
    """Whether it was killed twice: what is left to do after the first time may not lead to the second point."""
    points = {first[0], second[0]}
    number = MANY if points & SELDOM else NUMBER
    start = {"seed": 100 + first[1], "number": number, "pace": 0.15 if points & WHILE_RENEWING else 0.03}
    with places.at(store, "twice") as folder:
        lives = [nursery.start("work", folder, **working(start, *first))]
        assert lives[0].wait() == -9, lives[0].log()
        lives.append(nursery.start("work", folder, **working(start, *second)))
        assert lives[1].wait() in (-9, 0), lives[1].log()
        healer = nursery.start("work", folder, start=start, lease=HEALERS_LEASE_S, until_idle=True, constants=SMALL)
        assert healer.wait() == 0, healer.log()
        assert check(folder, lives).assert_clean().counts["processes"] == number
    return lives[1].exited == -9
