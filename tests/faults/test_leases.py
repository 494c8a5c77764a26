"""Leases where nothing fails: a worker that lives keeps what it has, however slow its heartbeat or its neighbours are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from .beforehand import Played, played
from .checker import Verdict, check
from .places import Places
from .programs import Nursery, Program

PATIENCE_S = 60.0  # they poll for some seconds
SLOW_BEFORE = "renew-begin:1+:sleep=0.2"
CASES = {"": "", "before": SLOW_BEFORE, "after": "renew-done:1+:sleep=0.2"}


def busy_polls(nursery: Nursery, folder: Path, crash: str, **order: object) -> Program:
    """Polls claim the same rows again and again, each time with another epoch, while a heartbeat still speaks of the last."""
    start = {"seed": 1, "number": 100, "length": [10, 16], "pace": 0.1}
    return nursery.start("work", folder, start=start, lease=1.2, until_idle=True, crash=crash, **order)


def run(nursery: Nursery, places: Places, crash: str) -> Verdict:
    with places.at("sqlite", "busy-polls") as folder:
        worker = busy_polls(nursery, folder, crash)
        assert worker.wait(PATIENCE_S) == 0, worker.log()
        assert len(worker.book("reached")) >= 2 or not crash
        return check(folder)


@pytest.fixture(scope="module")
def verdicts(nursery: Nursery, places: Places, request: pytest.FixtureRequest) -> Iterator[Played[Verdict]]:
    scenarios = {case: partial(run, nursery, places, crash) for case, crash in CASES.items()}
    with played(request, scenarios, len(CASES)) as verdicts:
        yield verdicts


@pytest.mark.parametrize("case", CASES)
def test_a_slow_heartbeat_takes_nothing_away_from_its_own_worker(verdicts: Played[Verdict], case: str) -> None:
    assert verdicts[case].result().assert_clean().counts["takeovers"] == 0
