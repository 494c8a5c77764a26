"""A database that answers with an error, before it acted or after: the second is the most useful fault there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from .checker import Found, check
from .programs import Nursery

NUMBER = 60
EVERY = {  # so that a portion of ten can pass, and a group of a few as well
    "group-begin": 7,
    "insert-row": 17,
    "claim-row": 30,
    "commit-row": 7,
    "commit-history": 7,
    "group-durable": 7,
    "checkpoint-begin": 2,
    "renew-begin": 1,
    "renew-within": 1,
    "renew-done": 1,
}


@pytest.mark.parametrize("point", EVERY)
def test_trouble_with_the_store_loses_nothing_and_is_never_the_fault_of_a_process(
    nursery: Nursery, tmp_path: Path, point: str
) -> None:
    worker = nursery.start(
        "work",
        tmp_path,
        start={"seed": 7, "number": NUMBER, "pace": 0.15},
        lease=1.0,
        until_idle=True,
        concurrency=20,
        crash=f"{point}:{EVERY[point]}+:raise",
        constants={"CHECKPOINT_AFTER": 60},
    )
    assert worker.wait() == 0, worker.log()
    assert len(worker.book("reached")) >= 2
    verdict = check(tmp_path, [worker]).assert_clean()
    assert verdict.counts["processes"] == NUMBER
    reasons = [e["reason"] for entries in Found.read(tmp_path).history.values() for e in entries if e["kind"] == "retry"]
    assert reasons and all(reason.startswith("Planned: ") for reason in reasons)
