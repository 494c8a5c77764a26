"""Each planted bug is caught by the checker, in the scenario that is there for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .checker import Verdict, check
from .programs import Nursery
from .test_leases import busy_polls
from .trouble import Status

LEASE_S = 0.5
LEDGERS = {"seed": 21, "number": 40, "pace": 0.05}


def slow(number: int, seconds: float) -> list[dict[str, object]]:
    return [{"id": f"slow-{n}", "kind": Status.SLOW.value, "seconds": seconds} for n in range(number)]


def killed(nursery: Nursery, folder: Path, point: str, bug: str, hit: int = 60) -> Verdict:
    folder.mkdir(exist_ok=True)
    victim = nursery.start("work", folder, start=LEDGERS, lease=LEASE_S, crash=f"{point}:{hit}:kill", bug=bug)
    assert victim.wait() == -9
    healer = nursery.start("work", folder, start=LEDGERS, lease=LEASE_S, until_idle=True, bug=bug)
    assert healer.wait() == 0, healer.log()
    return check(folder, [victim, healer])


def answered_with_errors(nursery: Nursery, folder: Path, bug: str) -> Verdict:
    worker = nursery.start("work", folder, start=LEDGERS, lease=LEASE_S, crash="commit-row:20+:raise", bug=bug)
    time.sleep(1.5)
    worker.kill()
    return check(folder, [worker], at_rest=False)


def stopped(nursery: Nursery, folder: Path, point: str, bug: str) -> Verdict:
    """It comes back while the one that took over is in the middle of the same stage."""
    crash = f"{point}:4:stop"
    zombie = nursery.start("work", folder, trouble=slow(3, 0.9), lease=LEASE_S, crash=crash, bug=bug)
    zombie.wait_until_stopped()
    others = [nursery.start("work", folder, lease=LEASE_S, bug=bug) for _ in range(2)]
    until = time.monotonic() + 10
    while not any(line[0] == "before" and line[1] == "slow-0" for other in others for line in other.book("effects")):
        assert time.monotonic() < until
        time.sleep(0.01)
    zombie.go_on()
    time.sleep(1.5)
    assert [program.end() for program in (zombie, *others)] == [0, 0, 0]
    healer = nursery.start("work", folder, lease=LEASE_S, until_idle=True, bug=bug)
    assert healer.wait() == 0
    return check(folder, [zombie])


def undisturbed(nursery: Nursery, folder: Path, bug: str) -> Verdict:
    two = [nursery.start("work", folder, trouble=slow(10, 1.2), lease=LEASE_S, until_idle=True, bug=bug) for _ in range(2)]
    if bug == "nothing":
        assert [one.wait() for one in two] == [0, 0]
        return check(folder)
    time.sleep(2.5)
    for one in two:  # they would rob each other for ever
        one.kill()
    return check(folder, two, at_rest=False)


def caught(verdict: Verdict, *expected: str) -> bool:
    assert any(violation.startswith(expected) for violation in verdict.violations), verdict.violations
    return True


def test_telling_before_the_commit_is_caught(nursery: Nursery, tmp_path: Path) -> None:
    # A kill in the middle of a group of saves betrays nothing, since nobody is told of those. One of ten kills does.
    verdicts = (killed(nursery, tmp_path / str(hit), "commit-row", "tell_before_the_commit", hit) for hit in range(60, 70))
    assert any(violation.startswith("C1") for verdict in verdicts for violation in verdict.violations)


def test_claiming_without_a_new_epoch_is_caught(nursery: Nursery, tmp_path: Path) -> None:
    assert caught(killed(nursery, tmp_path, "effect-begun", "claim_without_a_new_epoch"), "C4 epoch")


def test_swallowing_the_error_of_a_group_is_caught(nursery: Nursery, tmp_path: Path) -> None:
    assert caught(answered_with_errors(nursery, tmp_path, "swallow_errors_of_a_group"), "C1")


def test_a_fence_by_version_only_is_caught(nursery: Nursery, tmp_path: Path) -> None:
    assert caught(stopped(nursery, tmp_path, "attempt-done", "fence_by_version_only"), "C6 version", "C4")


def test_cutting_off_by_old_news_is_caught(nursery: Nursery, tmp_path: Path) -> None:
    assert busy_polls(nursery, tmp_path, "renew-begin:1+:sleep=0.2", bug="cut_off_by_old_news").counts["takeovers"] >= 1


@pytest.mark.parametrize("bug", ["claim_what_others_have", "no_heartbeat"])
def test_taking_from_a_living_worker_is_caught(nursery: Nursery, tmp_path: Path, bug: str) -> None:
    assert undisturbed(nursery, tmp_path, bug).counts["takeovers"] >= 1


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        ("keep_what_was_rolled_back", "C11 written by a handler without"),
        ("transition_without_its_transaction", "C11 committed without"),
    ],
)
def test_parting_a_handlers_sql_from_its_transition_is_caught(nursery: Nursery, tmp_path: Path, bug: str, said: str) -> None:
    assert caught(killed(nursery, tmp_path, "transaction-asked", bug, hit=10), said)


def test_without_a_bug_a_worker_that_comes_back_changes_nothing(nursery: Nursery, tmp_path: Path) -> None:
    stopped(nursery, tmp_path, "attempt-done", "nothing").assert_clean()


def test_without_a_bug_nobody_takes_anything_from_a_living_worker(nursery: Nursery, tmp_path: Path) -> None:
    assert undisturbed(nursery, tmp_path, "nothing").assert_clean().counts["takeovers"] == 0
