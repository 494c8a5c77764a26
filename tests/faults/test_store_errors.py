"""A database that answers with an error, before it acted or after: the second is the most useful fault there is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from .beforehand import Played, played
from .checker import Found, check
from .places import Places
from .programs import Nursery

NUMBER = 60
THREADS = 5
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


def run(nursery: Nursery, places: Places, point: str) -> None:
    with places.at("sqlite", point) as folder:
        worker = nursery.start(
            "work",
            folder,
            start={"seed": 7, "number": NUMBER, "pace": 0.15},
            lease=1.0,
            until_idle=True,
            concurrency=20,
            crash=f"{point}:{EVERY[point]}+:raise",
            constants={"CHECKPOINT_AFTER": 60},
        )
        assert worker.wait() == 0, worker.log()
        assert len(worker.book("reached")) >= 2
        verdict = check(folder, [worker]).assert_clean()
        assert verdict.counts["processes"] == NUMBER
        histories = Found.read(folder).history.values()
    reasons = [entry["reason"] for entries in histories for entry in entries if entry["kind"] == "retry"]
    assert reasons and all(reason.startswith("Planned: ") for reason in reasons)


@pytest.fixture(scope="module")
def runs(nursery: Nursery, places: Places, request: pytest.FixtureRequest) -> Iterator[Played[None]]:
    with played(request, {point: partial(run, nursery, places, point) for point in EVERY}, THREADS) as runs:
        yield runs


@pytest.mark.parametrize("point", EVERY)
def test_trouble_with_the_store_loses_nothing_and_is_never_the_fault_of_a_process(runs: Played[None], point: str) -> None:
    runs[point].result()
