"""Of the simulation itself: a seed is the same story each time, planted bugs are found, and it can be asked by hand."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from faults.bugs import planted

from onward.testing import World, run

from . import ledger
from .ledger import FLOW, Ledger, Outside, Watch
from .story import told
from .weather import Weather

HERE = Path(__file__).parent
TOLD_TWICE = range(1, 21)
FOUND_WITHIN = 300
BUGS = {  # and the kind of weather that shows them: seeds without it need not be told
    "fence_by_version_only": "",
    "fence_by_owner_only": "",
    "no_fence": "",
    "epoch_of_the_lease": "",
    "claim_without_a_new_epoch": "",
    "claim_by_a_list_of_before": "",
    "never_take_over": "",
    "take_over_at_the_start_only": "",
    "renew_what_others_have": "",
    "release_what_others_have": "",
    "act_without_a_new_epoch": "act",
    "act_on_what_nobody_saw": "act",
    "tell_before_the_commit": "",
    "count_attempts_when_they_fail": "",
    "no_heartbeat": "",
    "keep_what_was_rolled_back": "",
    "transition_without_its_transaction": "",
}


@pytest.fixture(scope="module")
def trace() -> str:
    return "".join(told(seed).trace for seed in TOLD_TWICE)


def simulate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "simulation", *arguments]
    given = {**os.environ, "PYTHONPATH": str(HERE.parent), **environment}
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)


def test_a_seed_is_the_same_story_to_the_byte_in_another_program_as_well(trace: str) -> None:
    """Whose sets of strings have another order."""
    assert "".join(told(seed).trace for seed in TOLD_TWICE) == trace
    there = simulate("--seeds", f"{TOLD_TWICE[0]}..{TOLD_TWICE[-1]}", "--trace", PYTHONHASHSEED="7")
    assert there.returncode == 0, there.stdout + there.stderr
    assert there.stdout.startswith(f"{trace}{len(TOLD_TWICE)} seeds, ")


def test_no_two_seeds_are_the_same_story() -> None:
    one, another = told(1), told(2)
    assert one.lines != another.lines and one.weather != another.weather


@pytest.mark.parametrize(("bug", "weather"), BUGS.items(), ids=list(BUGS))
def test_it_finds_what_is_planted(bug: str, weather: str) -> None:
    seeds = range(1, FOUND_WITHIN + 1)
    shown = (seed for seed in seeds if not weather or getattr(Weather.drawn(random.Random(seed)), weather))
    with planted(bug):
        found = next((story for story in map(told, shown) if story.violations), None)
    assert found is not None, f"{bug} lived through {FOUND_WITHIN} seeds"


def test_a_failure_is_told_with_the_command_that_shows_it_again() -> None:
    with planted("claim_without_a_new_epoch"):
        story = told(1)
    assert "PYTHONPATH=tests python -m simulation --seed 1 --trace" in story.failure
    assert story.violations[0] in story.failure


def test_what_spins_is_a_violation_and_no_endless_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "EVENTS_MAX", 100)
    assert any("it spins" in violation for violation in told(1).violations)


def test_a_seed_that_is_not_one_is_refused() -> None:
    refused = simulate("--seed", "one")
    assert refused.returncode == 2
    assert "--seed" in refused.stderr


def test_what_a_killed_program_had_open_keeps_nobody_waiting() -> None:
    """As a database rolls back at once what a dead program had begun."""

    async def main() -> None:
        outside = Outside(asyncio.get_running_loop(), cast(Watch, None))
        async with World([FLOW], resources=outside) as world:
            await world.start(Ledger(id="a", seed=1))
            [record] = await world.store.claim(FLOW.handled, "worker-1", 1, timedelta(seconds=60))
            worker = world.worker()
            transaction = await world.store.begin(record)
            transaction.connection.execute("CREATE TABLE note (text)")
            worker.kill()
            assert (await world.get("a")).owner == "worker-1"
            assert asyncio.get_running_loop().time() == 0.0
            store: Any = world.store
            tables = store._writer._connection.execute("SELECT name FROM sqlite_schema WHERE name = 'note'").fetchall()
            assert tables == []

    run(main)
