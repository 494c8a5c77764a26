"""Leases where nothing fails: a worker that lives keeps what it has, however slow its heartbeat or its neighbours are."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checker import check
from .programs import Nursery


@pytest.mark.parametrize("crash", ["", "renew-begin:1+:sleep=0.08", "renew-done:1+:sleep=0.08"])
def test_a_slow_heartbeat_takes_nothing_away_from_its_own_worker(nursery: Nursery, tmp_path: Path, crash: str) -> None:
    # Polls claim the same rows again and again, each time with another epoch, while the heartbeat still speaks of the last.
    worker = nursery.start("work", tmp_path, start={"seed": 1, "number": 250}, lease=0.4, until_idle=True, crash=crash)
    assert worker.wait() == 0, worker.log()
    verdict = check(tmp_path).assert_clean()
    assert verdict.counts["takeovers"] == 0
    assert len(worker.book("reached")) >= 2 or not crash
