"""Leases where nothing fails: a worker that lives keeps what it has, however slow its heartbeat or its neighbours are."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checker import Verdict, check
from .programs import Nursery


def busy_polls(nursery: Nursery, folder: Path, crash: str, **order: object) -> Verdict:
    """Polls claim the same rows again and again, each time with another epoch, while a heartbeat still speaks of the last."""
    start = {"seed": 1, "number": 200, "length": [10, 16], "pace": 0.1}
    worker = nursery.start("work", folder, start=start, lease=1.2, until_idle=True, crash=crash, **order)
    assert worker.wait() == 0, worker.log()
    assert len(worker.book("reached")) >= 2 or not crash
    return check(folder, [] if "bug" not in order else [worker])


@pytest.mark.parametrize("crash", ["", "renew-begin:1+:sleep=0.2", "renew-done:1+:sleep=0.2"])
def test_a_slow_heartbeat_takes_nothing_away_from_its_own_worker(nursery: Nursery, tmp_path: Path, crash: str) -> None:
    assert busy_polls(nursery, tmp_path, crash).assert_clean().counts["takeovers"] == 0
