"""A worker that is stopped for longer than its lease and comes back: everything it still has in its hands is refused.

All scenarios run beforehand in a few threads, because they mostly wait; each test is one of them, the last one counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from .beforehand import Played, played
from .checker import check
from .places import FEW, STORES, Places, finished, store_of
from .points import UNDER_THE_LOCK
from .programs import PATIENCE_S, Nursery, Program

LEASE_S = 0.5
LONG_LEASE_S = 5.0  # of those that are never stopped: a busy machine takes nothing from them
BUSY_S = 0.4  # so long the others wait for the lock of a stopped program before they say that the store is busy
# So long a session of PostgreSQL may keep its locks when its program has stopped in the middle of a transaction.
IDLE_S = 2
NUMBER, MORE = 16, 6  # processes before it is stopped, and after it has come back
THREADS = 6
STOPS_MIN = 40
LOOK_S = 0.2

# Stopped there, the hit so many times: others take over, and what the zombie does next is refused.
IN_THE_WAY_OF_NOBODY = {
    "claim-done": 1,
    "attempt-begin": 5,
    "effect-begun": 8,
    "effect-done": 8,
    "attempt-done": 8,
    "commit-asked": 12,
    "landing": 9,
    "commit-done": 12,
    "step-acted": 2,
    "step-recorded": 2,
    "save-asked": 1,
    "save-done": 1,
    "renew-begin": 1,
    "renew-done": 1,
    "release-begin": 1,
    "transaction-asked": 2,
}
# Stopped there it holds the lock of SQLite's file: nobody else can write until it goes on, and then its write comes first.
IN_THE_WAY_OF_ALL = {
    "group-begin": 12,
    "claim-row": 3,
    "commit-row": 12,
    "group-durable": 12,
    "renew-within": 1,
    "transaction-begun": 2,
    "transaction-written": 2,
    "transaction-commit": 2,
    "transaction-durable": 2,
}
assert IN_THE_WAY_OF_ALL.keys() <= UNDER_THE_LOCK
# PostgreSQL brings the statement to its end without its program, and rolls a transaction back that stands still for IDLE_S.
CASES = {
    "sqlite": IN_THE_WAY_OF_NOBODY,
    "postgres": {**IN_THE_WAY_OF_NOBODY, **IN_THE_WAY_OF_ALL, "commit-history": 12, "release-row": 1},
}


@dataclass
class Haunting:
    """What one scenario came to."""

    stops: int
    refused: Counter[str]
    lived_on: bool
    said_so: bool
    begun_late: int  # attempts that it began after it came back, though it had them from before
    busy: int  # times another program was told that the store is busy
    counts: Counter[str]


def haunt(nursery: Nursery, places: Places, store: str, point: str, hit: int, *, locked: bool) -> Haunting:
    draining = point.startswith("release")
    with places.at(store, point) as folder:
        idle = {"store": f"{store_of(folder)}?idle_in_transaction_session_timeout={IDLE_S}s"} if store == "postgres" else {}
        zombie = nursery.start(
            "work",
            folder,
            start={"seed": hit, "number": NUMBER, "pace": 0.15, "length": [5, 9]},
            lease=LEASE_S,
            crash=f"{point}:{hit}:stop",
            **({"drain_once": 2 * NUMBER, "grace": 0.0} if draining else {}),
            constants=FEW,
            **idle,
        )
        zombie.wait_until_stopped()
        others = {"lease": LONG_LEASE_S, "constants": {"BUSY_S": BUSY_S, **FEW}}
        other = nursery.start("work", folder, until_idle=not locked, **others)
        if locked:
            time.sleep(LEASE_S + 3 * BUSY_S)
            # Whoever opens the file now, or works on it, hears that it is busy; nobody hangs, nothing breaks.
            busy = _busy(other)
            if other.exited is not None:
                assert "has held" in other.log(), other.log()
                other = nursery.start("work", folder, lease=LONG_LEASE_S, constants=FEW)
        else:
            assert other.wait() == 0, other.log()  # it took over everything and brought it to its end
            busy = 0
        before, came_back_at = finished(folder), time.monotonic()
        zombie.go_on()
        if draining:
            assert zombie.end() == 0, zombie.log()
            lived_on = True
        else:
            if locked:
                _until(lambda: finished(folder) == NUMBER)
                assert other.end() == 0, other.log()
            else:
                assert before == NUMBER
            more = nursery.start("feed", folder, enough=1, portion=MORE, seed=hit, constants=FEW)
            _until(lambda: finished(folder) >= NUMBER + MORE)
            assert more.end() == 0, more.log()
            lived_on = zombie.exited is None
            assert zombie.end() == 0, zombie.log()
        healer = nursery.start("work", folder, lease=LONG_LEASE_S, until_idle=True, constants=FEW)
        assert healer.wait() == 0, healer.log()
        verdict = check(folder, [zombie, other]).assert_clean()
    refused = Counter(line[0] for line in zombie.book("refused") if line[0] != "released")
    had = {(line[0], line[1]) for line in zombie.book("claims") if line[-1] < came_back_at}
    late = [
        line for line in zombie.book("effects") if line[0] == "before" and line[-1] > came_back_at and (line[1], line[5]) in had
    ]
    return Haunting(zombie.stops, refused, lived_on, "taken over" in zombie.log(), len(late), busy, verdict.counts)


def _busy(program: Program) -> int:
    return program.log().count("has held")


def _until(true: object) -> None:
    until = time.monotonic() + PATIENCE_S
    assert callable(true)
    while not true():
        assert time.monotonic() < until
        time.sleep(LOOK_S)


def named(store: str, point: str) -> str:
    return f"{store}-{point}"


@pytest.fixture(scope="module")
def hauntings(nursery: Nursery, places: Places, request: pytest.FixtureRequest) -> Iterator[Played[Haunting]]:
    begin = partial(partial, haunt, nursery, places)
    scenarios = {named("sqlite", point): begin("sqlite", point, hit, locked=True) for point, hit in IN_THE_WAY_OF_ALL.items()}
    for store, points in CASES.items():
        scenarios |= {named(store, point): begin(store, point, hit, locked=False) for point, hit in points.items()}
    with played(request, scenarios, THREADS) as hauntings:
        yield hauntings


@pytest.mark.parametrize("case", [named(store, point) for store in STORES for point in CASES[store]])
def test_a_worker_that_comes_back_from_the_dead_is_refused_and_works_on(hauntings: Played[Haunting], case: str) -> None:
    haunting = hauntings[case].result()
    assert haunting.stops == 1
    assert haunting.lived_on
    # One that was told to stop has nothing in its hands any more that could be taken: it gives back, and asks for no answer.
    assert haunting.said_so or (haunting.refused["release"] >= 1 and "release" in case)
    assert sum(haunting.refused.values()) >= 1
    assert haunting.counts["takeovers"] >= 1


@pytest.mark.parametrize("case", [named("sqlite", point) for point in IN_THE_WAY_OF_ALL])
def test_a_worker_that_is_stopped_while_it_writes_makes_the_others_wait_and_loses_nothing(
    hauntings: Played[Haunting], case: str
) -> None:
    haunting = hauntings[case].result()
    assert haunting.stops == 1
    assert haunting.lived_on
    assert haunting.busy >= 1


@pytest.mark.parametrize("store", STORES)
def test_what_was_claimed_before_a_long_stop_is_not_begun_after_it(hauntings: Played[Haunting], store: str) -> None:
    assert hauntings[named(store, "claim-done")].result().begun_late == 0


def test_every_kind_of_late_write_was_really_tried_and_refused(hauntings: Played[Haunting]) -> None:
    all_of_them = [future.result() for future in hauntings.values()]
    stops = sum(haunting.stops for haunting in all_of_them)
    refused = sum((haunting.refused for haunting in all_of_them), Counter[str]())
    print(f"\n{stops} stops, refused: {dict(refused)}")
    assert stops >= STOPS_MIN
    assert refused["commit"] >= 10
    assert refused["renew"] >= 5
    assert refused["record_step"] >= 1
    assert refused["release"] >= 1
