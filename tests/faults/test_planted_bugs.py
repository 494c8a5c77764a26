"""Each planted bug is caught by the checker, in the scenario that is there for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from .beforehand import Played, played
from .checker import Verdict, check
from .places import FEW, STORES, Places
from .programs import Nursery
from .test_leases import SLOW_BEFORE, busy_polls
from .trouble import Status

LEASE_S = 0.5
POLLING_S = 20.0
THREADS = 6
LEDGERS = {"seed": 21, "number": 40, "pace": 0.05}
Scenario = Callable[[Nursery, Places, str, str], Verdict]


def slow(number: int, seconds: float) -> list[dict[str, object]]:
    return [{"id": f"slow-{n}", "kind": Status.SLOW.value, "seconds": seconds} for n in range(number)]


def killed(nursery: Nursery, places: Places, store: str, bug: str, *, point: str, hits: range) -> Verdict:
    """The first verdict with violations, of workers that were killed there and those that healed it."""
    verdict = Verdict()
    for hit in hits:
        with places.at(store, bug) as folder:
            order = {"start": LEDGERS, "lease": LEASE_S, "bug": bug, "constants": FEW}
            victim = nursery.start("work", folder, crash=f"{point}:{hit}:kill", **order)
            assert victim.wait() == -9
            healer = nursery.start("work", folder, until_idle=True, **order)
            assert healer.wait() == 0, healer.log()
            verdict = check(folder, [victim, healer])
        if verdict.violations:
            break
    return verdict


def answered_with_errors(nursery: Nursery, places: Places, store: str, bug: str) -> Verdict:
    with places.at(store, bug) as folder:
        worker = nursery.start("work", folder, start=LEDGERS, lease=LEASE_S, crash="commit-row:20+:raise", bug=bug)
        time.sleep(1.5)
        worker.kill()
        return check(folder, [worker], at_rest=False)


def stopped(nursery: Nursery, places: Places, store: str, bug: str, *, crash: str = "attempt-done:4:stop") -> Verdict:
    """It comes back while the one that took over is in the middle of the same stage."""
    drain = {"drain_once": 3, "grace": 0.0} if crash.startswith("release") else {}
    with places.at(store, bug) as folder:
        order = {"lease": LEASE_S, "bug": bug, "constants": FEW}
        zombie = nursery.start("work", folder, trouble=slow(3, 0.9), crash=crash, **order, **drain)
        zombie.wait_until_stopped()
        others = [nursery.start("work", folder, **order) for _ in range(2)]
        until = time.monotonic() + 10
        while not any(line[0] == "before" and line[1] == "slow-0" for other in others for line in other.book("effects")):
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(LEASE_S / 2)  # so that they have renewed
        zombie.go_on()
        time.sleep(1.5)
        assert [program.end() for program in (zombie, *others)] == [0, 0, 0]
        healer = nursery.start("work", folder, until_idle=True, **order)
        assert healer.wait() == 0
        return check(folder, [zombie])


def undisturbed(nursery: Nursery, places: Places, store: str, bug: str) -> Verdict:
    with places.at(store, bug) as folder:
        order = {"trouble": slow(10, 1.2), "lease": LEASE_S, "until_idle": True, "bug": bug}
        two = [nursery.start("work", folder, **order) for _ in range(2)]
        if bug == "nothing":
            assert [one.wait() for one in two] == [0, 0]
            return check(folder)
        time.sleep(2.5)
        for one in two:  # they would rob each other for ever
            one.kill()
        return check(folder, two, at_rest=False)


def polled(nursery: Nursery, places: Places, store: str, bug: str) -> Verdict:
    with places.at(store, bug) as folder:
        worker = busy_polls(nursery, folder, SLOW_BEFORE, bug=bug)
        with suppress(AssertionError):  # it takes its own away again and again, and may do so for ever
            worker.wait(POLLING_S)
        if worker.exited is None:
            worker.kill()
        return check(folder, [worker], at_rest=False)


# In a kill in the middle of a group of saves nothing is betrayed, since nobody is told of those: one of ten kills does it.
TELLING_EARLY = partial(killed, point="commit-row", hits=range(60, 70))
OPENING = partial(killed, point="effect-begun", hits=range(60, 61))
BOOKING = partial(killed, point="transaction-asked", hits=range(10, 11))
RELEASING = partial(stopped, crash="release-begin:1:stop")
BOTH = {  # what catches it, and what is said of it, on both stores
    "claim_without_a_new_epoch": (OPENING, ("C4 epoch",)),
    "fence_by_version_only": (stopped, ("C6 version", "C4")),
    "release_what_others_have": (RELEASING, ("C4 epoch",)),
    "keep_what_was_rolled_back": (BOOKING, ("C11 written by a handler without",)),
    "transition_without_its_transaction": (BOOKING, ("C11 committed without",)),
    "tell_before_the_commit": (TELLING_EARLY, ("C1",)),
}
ALONE = {  # on SQLite
    "swallow_errors_of_a_group": (answered_with_errors, ("C1",)),
    "claim_what_others_have": (undisturbed, ("C4 epoch",)),
}
# No word of the checker's is false then: a lease runs out, and another worker goes on. It should not have come to that.
ROBBED = {"cut_off_by_old_news": polled, "no_heartbeat": undisturbed}


def scenarios() -> Iterator[tuple[str, Scenario, str, str]]:
    for store in STORES:
        for bug, (scenario, _) in {**BOTH, **(ALONE if store == "sqlite" else {})}.items():
            yield f"{store}-{bug}", scenario, store, bug
        yield f"{store}-nothing", stopped, store, "nothing"
        yield f"{store}-nothing-released", RELEASING, store, "nothing"
    for bug, scenario in ROBBED.items():
        yield bug, scenario, "sqlite", bug
    yield "undisturbed", undisturbed, "sqlite", "nothing"


@pytest.fixture(scope="module")
def verdicts(nursery: Nursery, places: Places, request: pytest.FixtureRequest) -> Iterator[Played[Verdict]]:
    plays = {id: partial(scenario, nursery, places, store, bug) for id, scenario, store, bug in scenarios()}
    with played(request, plays, THREADS) as verdicts:
        yield verdicts


@pytest.mark.parametrize("case", [f"{store}-{bug}" for store in STORES for bug in BOTH] + [f"sqlite-{bug}" for bug in ALONE])
def test_the_checker_catches(verdicts: Played[Verdict], case: str) -> None:
    violations = verdicts[case].result().violations
    said = {**BOTH, **ALONE}[case.partition("-")[2]][1]
    assert any(violation.startswith(said) for violation in violations), violations


@pytest.mark.parametrize("case", ROBBED)
def test_taking_from_a_living_worker_is_seen(verdicts: Played[Verdict], case: str) -> None:
    assert verdicts[case].result().counts["takeovers"] >= 1


@pytest.mark.parametrize("case", [f"{store}-nothing{when}" for store in STORES for when in ("", "-released")])
def test_without_a_bug_a_worker_that_comes_back_changes_nothing(verdicts: Played[Verdict], case: str) -> None:
    verdicts[case].result().assert_clean()


@pytest.mark.parametrize("case", ["undisturbed"])
def test_without_a_bug_nobody_takes_anything_from_a_living_worker(verdicts: Played[Verdict], case: str) -> None:
    assert verdicts[case].result().assert_clean().counts["takeovers"] == 0
