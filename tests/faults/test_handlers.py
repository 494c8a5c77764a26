"""Handlers that block, hang, ignore, raise and kill, and workers that are told to stop: real programs, real signals."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import pytest

from .checker import Found, check
from .programs import Nursery, Program
from .trouble import DEAF_S, ERRORS, Status

LEASE_S = 0.6
LONG_LEASE_S = 30.0  # nobody can take over within a test: whoever goes on was given the process
SOON_S = 2.0  # with two polls of 0.05 s, and what a busy machine adds
BLOCKED_S = 5 * LEASE_S


def trouble(kind: Status, number: int = 1, **data: Any) -> list[dict[str, Any]]:
    return [{"id": f"{kind}-{n}", "kind": kind.value, **data} for n in range(number)]


def kinds(folder: Path, id: str) -> list[str]:
    return [entry["kind"] for entry in Found.read(folder).history[id]]


def done_by(folder: Path) -> Counter[str]:
    return Counter(json.loads(row["data"])["done_by"] for row in Found.read(folder).rows.values())


def wait_for_effect(program: Program, number: int = 1, patience: float = 10.0) -> None:
    """Until so many of its handlers have begun."""
    until = time.monotonic() + patience
    while sum(line[0] == "before" for line in program.book("effects")) < number:
        assert time.monotonic() < until and program.exited is None, program.log()
        time.sleep(0.01)


# -- handlers that block, hang and ignore -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Status.BLOCKING, Status.BLOCKING_A_THREAD])
def test_a_handler_that_blocks_for_five_leases_keeps_its_process(nursery: Nursery, tmp_path: Path, kind: Status) -> None:
    blocked = nursery.start("work", tmp_path, trouble=trouble(kind, seconds=BLOCKED_S), lease=LEASE_S, until_idle=True)
    wait_for_effect(blocked)
    other = nursery.start("work", tmp_path, lease=LEASE_S, until_idle=True)
    assert blocked.wait() == 0 and other.wait() == 0
    verdict = check(tmp_path).assert_clean()
    assert verdict.counts["takeovers"] == 0 and not other.book("claims")
    assert kinds(tmp_path, f"{kind}-0") == ["started", "moved", "moved"]
    warned = "the event loop has not moved" in blocked.log() and "block_the_loop" in blocked.log()
    assert warned == (kind is Status.BLOCKING)


def test_a_handler_that_never_returns_is_cut_off_and_tried_again(nursery: Nursery, tmp_path: Path) -> None:
    worker = nursery.start("work", tmp_path, trouble=trouble(Status.ENDLESS, 5), lease=LEASE_S, until_idle=True)
    assert worker.wait() == 0, worker.log()
    check(tmp_path).assert_clean()
    for entries in Found.read(tmp_path).history.values():
        assert [entry["kind"] for entry in entries] == ["started", "moved", "retry", "moved"]
        assert "took longer than 0.3 s and was cut off" in entries[2]["reason"]


def test_a_handler_that_ignores_its_cancellation_loses_its_lease_and_its_worker_can_end(nursery: Nursery, tmp_path: Path) -> None:
    deaf = nursery.start(
        "work", tmp_path, trouble=trouble(Status.DEAF), lease=LEASE_S, concurrency=1, constants={"IGNORED_S": 0.3}
    )
    wait_for_effect(deaf)
    other = nursery.start("work", tmp_path, trouble=trouble(Status.SLOW, 3), lease=LEASE_S, until_idle=True)
    assert other.wait() == 0, other.log()
    assert other.exited_at - deaf.born_at < DEAF_S  # it did not wait for the deaf one
    # Its only slot was taken for good: it says so and ends, as soon as that handler lets it, and writes nothing any more.
    assert deaf.wait(DEAF_S + SOON_S) == 1
    assert "ignores its timeout" in deaf.log() and "all 1 slots are taken" in deaf.log()
    check(tmp_path, [deaf, other]).assert_clean()
    assert done_by(tmp_path) == {other.boot: 4}


def test_a_worker_with_slots_left_outlives_a_handler_that_ignores_its_cancellation(nursery: Nursery, tmp_path: Path) -> None:
    deaf = nursery.start("work", tmp_path, trouble=trouble(Status.DEAF), lease=LEASE_S, constants={"IGNORED_S": 0.3})
    wait_for_effect(deaf)
    time.sleep(DEAF_S + 0.5)
    assert [line[0] for line in deaf.book("refused")].count("commit") == 1
    other = nursery.start("work", tmp_path, trouble=trouble(Status.SLOW, 3), lease=LEASE_S, until_idle=True)
    assert other.wait() == 0, other.log()
    assert deaf.end() == 0, deaf.log()
    assert "ignores its timeout" in deaf.log()
    check(tmp_path, [deaf]).assert_clean()


# -- handlers that raise and kill ---------------------------------------------------------------------------------


def test_whatever_a_handler_raises_ends_its_attempt_and_nothing_else(nursery: Nursery, tmp_path: Path) -> None:
    raising = (Status.RAISING, Status.RAISING_IN_A_THREAD, Status.RAISING_IN_A_MAP)
    asked = [{"id": f"{kind}-{error}", "kind": kind.value, "error": error} for kind in raising for error in ERRORS]
    worker = nursery.start("work", tmp_path, trouble=asked, lease=LEASE_S, until_idle=True)
    assert worker.wait() == 0, worker.log()
    check(tmp_path, [worker]).assert_clean()
    histories = Found.read(tmp_path).history
    slow = {id: entries for id, entries in histories.items() if entries[-1]["at"] - entries[0]["at"] > 2_500_000}
    assert not slow, f"these waited for their time-out: {sorted(slow)}"
    assert {id: [e["kind"] for e in entries] for id, entries in histories.items()} == {
        id: ["started", "moved", "retry", "moved"] for id in histories
    }


@pytest.mark.parametrize(
    "bystander",
    [
        Status.SLOW,  # may be tried more often than the deadly one
        Status.STRICT,  # just as often
    ],
)
def test_a_handler_that_kills_its_worker_every_time_is_parked_and_takes_nobody_with_it(
    nursery: Nursery, tmp_path: Path, bystander: Status
) -> None:
    asked = [*trouble(bystander, 20, seconds=0.05), *trouble(Status.DEADLY)]
    lives: list[Program] = []
    while not lives or (lives[-1].wait() == -9 and len(lives) < 30):
        lives.append(nursery.start("work", tmp_path, trouble=asked, lease=LEASE_S, until_idle=True))
    assert lives[-1].exited == 0, lives[-1].log()
    print(f"\n{len(lives) - 1} workers died of it")
    check(tmp_path, lives, failed={"deadly-0"}).assert_clean()
    row = Found.read(tmp_path).rows["deadly-0"]
    assert "begun 3 times" in row["error"] and "died" in row["error"]


# -- being told to stop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_a_worker_that_is_told_to_stop_lets_its_handlers_end(nursery: Nursery, tmp_path: Path, number: Any) -> None:
    worker = nursery.start("work", tmp_path, trouble=trouble(Status.SLOW, 10, seconds=0.8), lease=LONG_LEASE_S)
    wait_for_effect(worker, 10)
    worker.signal(number)
    assert worker.wait(SOON_S + 0.8) == 0, worker.log()
    check(tmp_path).assert_clean()
    assert done_by(tmp_path) == {worker.boot: 10}


def test_what_a_drained_worker_did_not_begin_is_free_at_once(nursery: Nursery, tmp_path: Path) -> None:
    start = {"seed": 3, "number": 40, "pace": 0.3}
    first = nursery.start("work", tmp_path, start=start, lease=LONG_LEASE_S)
    wait_for_effect(first, 60)
    assert first.end() == 0, first.log()
    second = nursery.start("work", tmp_path, lease=LONG_LEASE_S, until_idle=True)
    assert second.wait(10) == 0, second.log()
    assert min(line[-1] for line in second.book("claims")) - second.born_at < SOON_S
    verdict = check(tmp_path).assert_clean()
    assert verdict.counts["takeovers"] == 0


def test_a_handler_longer_than_the_grace_is_cut_off_and_its_process_is_free_at_once(nursery: Nursery, tmp_path: Path) -> None:
    asked = trouble(Status.SLOW, 5, seconds=3.0)
    first = nursery.start("work", tmp_path, trouble=asked, lease=LONG_LEASE_S, grace=0.2)
    wait_for_effect(first, 5)
    first.signal(SIGTERM)
    assert first.wait(SOON_S) == 0, first.log()
    second = nursery.start("work", tmp_path, lease=LONG_LEASE_S, until_idle=True)
    assert second.wait(3.0 + SOON_S) == 0, second.log()
    check(tmp_path).assert_clean()
    assert done_by(tmp_path) == {second.boot: 5}


def test_a_second_signal_stops_the_worker_at_once_and_frees_what_it_had(nursery: Nursery, tmp_path: Path) -> None:
    asked = trouble(Status.SLOW, 5, seconds=3.0)
    first = nursery.start("work", tmp_path, trouble=asked, lease=LONG_LEASE_S, grace=30.0)
    wait_for_effect(first, 5)
    first.signal(SIGTERM)
    time.sleep(0.3)
    assert first.exited is None
    first.signal(SIGTERM)
    assert first.wait(SOON_S) == 0, first.log()
    second = nursery.start("work", tmp_path, lease=LONG_LEASE_S, until_idle=True)
    assert second.wait(3.0 + SOON_S) == 0, second.log()
    check(tmp_path).assert_clean()


def test_stopping_again_and_again_in_the_middle_of_commits_loses_nothing_and_leaves_no_lease(
    nursery: Nursery, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    print(f"\nseed {seed}")
    lives = []
    for life in range(12):
        start = {"seed": life, "number": 40, "length": [10, 20], "pace": 0.05}
        slow = draw.choice(["group-begin", "group-durable", "landing", "commit-asked", "claim-done", "save-asked", "step-acted"])
        crash = f"{slow}:{draw.randint(2, 5)}:sleep=0.15"
        worker = nursery.start("work", tmp_path, start=start, lease=LONG_LEASE_S, grace=draw.choice([0.0, 5.0]), crash=crash)
        lives.append(worker)
        wait_for_effect(worker)
        time.sleep(draw.uniform(0.0, 0.2))
        assert worker.end() == 0, worker.log()
    healer = nursery.start("work", tmp_path, lease=LONG_LEASE_S, until_idle=True)
    assert healer.wait(20) == 0, healer.log()
    check(tmp_path, lives).assert_clean()
