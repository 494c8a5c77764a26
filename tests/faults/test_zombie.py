"""A worker that is stopped for longer than its lease and comes back: everything it still has in its hands is refused.

All scenarios run beforehand in a few threads, because they mostly wait; each test is one of them, the last one counts.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from .checker import check
from .points import UNDER_THE_LOCK
from .programs import PATIENCE_S, Nursery, Program

LEASE_S = 0.5
BUSY_S = 0.4  # so long the others wait for the lock of a stopped program before they say that the store is busy
NUMBER = 24
THREADS = 4

# Stopped there, the hit so many times: others take over, and what the zombie does next is refused.
IN_THE_WAY_OF_NOBODY = [
    ("claim-done", 1),
    ("attempt-begin", 5),
    ("effect-begun", 8),
    ("effect-done", 8),
    ("attempt-done", 8),
    ("commit-asked", 12),
    ("landing", 9),
    ("commit-done", 12),
    ("step-acted", 2),
    ("step-recorded", 2),
    ("save-asked", 1),
    ("save-done", 1),
    ("renew-begin", 1),
    ("renew-done", 1),
    ("release-begin", 1),
    ("transaction-asked", 2),
]
# Stopped there it holds the lock of the file: nobody else can write until it goes on, and then its write comes first.
IN_THE_WAY_OF_ALL = [("group-begin", 12), ("claim-row", 3), ("commit-row", 12), ("group-durable", 12), ("renew-within", 1)]
IN_THE_WAY_OF_ALL += [("transaction-begun", 2), ("transaction-written", 2), ("transaction-commit", 2), ("transaction-durable", 2)]
assert {point for point, _ in IN_THE_WAY_OF_ALL} <= UNDER_THE_LOCK


@dataclass
class Haunting:
    """What one scenario came to."""

    stops: int
    refused: Counter[str]
    lived_on: bool
    said_so: bool
    busy: int  # times another program was told that the store is busy
    counts: Counter[str]


def haunt(nursery: Nursery, folder: Path, point: str, hit: int, *, locked: bool) -> Haunting:
    draining = point.startswith("release")
    zombie = nursery.start(
        "work",
        folder,
        start={"seed": hit, "number": NUMBER, "pace": 0.15, "length": [5, 9]},
        lease=LEASE_S,
        crash=f"{point}:{hit}:stop",
        **({"drain_after": 0.3, "grace": 0.0} if draining else {}),
    )
    zombie.wait_until_stopped()
    other = nursery.start("work", folder, lease=LEASE_S, until_idle=not locked, constants={"BUSY_S": BUSY_S})
    if locked:
        time.sleep(LEASE_S + 3 * BUSY_S)
        # Whoever opens the file now, or works on it, hears that it is busy; nobody hangs, nothing breaks.
        busy = _busy(other)
        if other.exited is not None:
            assert "has held" in other.log(), other.log()
            other = nursery.start("work", folder, lease=LEASE_S)
    else:
        assert other.wait() == 0, other.log()  # it took over everything and brought it to its end
        busy = 0
    before = _finished(folder)
    zombie.go_on()
    if draining:
        assert zombie.wait() == 0, zombie.log()
        lived_on = True
    else:
        if locked:
            _until(lambda: _finished(folder) == NUMBER)
            assert other.end() == 0, other.log()
        else:
            assert before == NUMBER
        more = nursery.start("feed", folder, enough=1, portion=NUMBER, seed=hit)
        _until(lambda: _finished(folder) >= 2 * NUMBER)
        assert more.end() == 0, more.log()
        lived_on = zombie.exited is None
        assert zombie.end() == 0, zombie.log()
    healer = nursery.start("work", folder, lease=LEASE_S, until_idle=True)
    assert healer.wait() == 0, healer.log()
    verdict = check(folder, [zombie, other]).assert_clean()
    refused = Counter(line[0] for line in zombie.book("refused") if line[0] != "released")
    return Haunting(zombie.stops, refused, lived_on, "taken over" in zombie.log(), busy, verdict.counts)


def _busy(program: Program) -> int:
    return program.log().count("has held")


def _finished(folder: Path) -> int:
    with closing(sqlite3.connect(f"file:{folder}/onward.db?mode=ro", uri=True)) as connection:
        number: int = connection.execute("SELECT count(*) FROM onward_process WHERE condition = 'finished'").fetchone()[0]
        return number


def _until(true: object) -> None:
    until = time.monotonic() + PATIENCE_S
    assert callable(true)
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def hauntings(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Haunting]]]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield {
            point: pool.submit(haunt, nursery, tmp_path_factory.mktemp(point), point, hit, locked=locked)
            for cases, locked in ((IN_THE_WAY_OF_ALL, True), (IN_THE_WAY_OF_NOBODY, False))
            for point, hit in cases
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("point", [point for point, _ in IN_THE_WAY_OF_NOBODY])
def test_a_worker_that_comes_back_from_the_dead_is_refused_and_works_on(
    hauntings: dict[str, Future[Haunting]], point: str
) -> None:
    haunting = hauntings[point].result()
    assert haunting.stops == 1
    assert haunting.lived_on
    assert haunting.said_so
    assert sum(haunting.refused.values()) >= 1
    assert haunting.counts["takeovers"] >= 1


@pytest.mark.parametrize("point", [point for point, _ in IN_THE_WAY_OF_ALL])
def test_a_worker_that_is_stopped_while_it_writes_makes_the_others_wait_and_loses_nothing(
    hauntings: dict[str, Future[Haunting]], point: str
) -> None:
    haunting = hauntings[point].result()
    assert haunting.stops == 1
    assert haunting.lived_on
    assert haunting.busy >= 1


def test_every_kind_of_late_write_was_really_tried_and_refused(hauntings: dict[str, Future[Haunting]]) -> None:
    all_of_them = [future.result() for future in hauntings.values()]
    refused = sum((haunting.refused for haunting in all_of_them), Counter[str]())
    print(f"\n{sum(h.stops for h in all_of_them)} stops, refused: {dict(refused)}")
    assert sum(haunting.stops for haunting in all_of_them) >= 10
    assert refused["commit"] >= 10
    assert refused["renew"] >= 5
    assert refused["record_step"] >= 1
    assert refused["release"] >= 1
