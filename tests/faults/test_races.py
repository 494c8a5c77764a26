"""People who act on processes at the very moment at which a worker commits them, from programs of their own.

What they are told is true: what is answered as done is there, at that version, and fences whoever ran it; what is refused
says why, and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from . import races
from .beforehand import Played, played
from .checker import check
from .judging import Raced, judge
from .places import FEW, STORES, Places
from .programs import Nursery

ACTS, ACTS_OF_A_BUG = 1_000, 200  # of two programs together
NUMBER, PEOPLE = 24, 10
LEASE_S = 5.0  # nobody dies here: what a worker loses it loses to a person
THREADS = 6
# Of a hundred actions, at the least; what a run brings about is two to five times as much.
CONFLICTS_MIN, REFUSED_MIN, DONE_MIN, OF_EACH_MIN, NEAR_MIN, FENCED_MIN = 2, 5, 30, 1, 5, 2

BUGS = {"act_without_a_new_epoch": ("C4",), "act_on_what_nobody_saw": ("operate",)}  # and what is said of them


def race(nursery: Nursery, places: Places, store: str, bug: str, *, acts: int) -> Raced:
    with places.at(store, f"race-{bug}") as folder:
        order = {"constants": FEW, "bug": bug}
        workers = [nursery.start("work", folder, lease=LEASE_S, **order) for _ in range(2)]
        people = {"acts": acts // 2, "number": NUMBER, "people": PEOPLE, **order}
        operators = [nursery.start("operate", folder, seed=seed, **people) for seed in range(2)]
        assert [one.wait(60) for one in operators] == [0, 0], [one.log() for one in operators]
        closer = nursery.start("close", folder, constants=FEW)
        assert closer.wait() == 0, closer.log()
        assert [one.end() for one in workers] == [0, 0], [one.log() for one in workers]
        verdict = check(folder, over=("finished", "cancelled"))
        return judge(folder, operators, verdict.violations, verdict.counts["refused commit"])


@pytest.fixture(scope="module")
def raced(nursery: Nursery, places: Places, request: pytest.FixtureRequest) -> Iterator[Played[Raced]]:
    scenarios = {store: partial(race, nursery, places, store, "nothing", acts=ACTS) for store in STORES}
    for store in STORES:
        for bug in BUGS:
            scenarios[f"{store}-{bug}"] = partial(race, nursery, places, store, bug, acts=ACTS_OF_A_BUG)
    with played(request, scenarios, THREADS) as raced:
        yield raced


@pytest.mark.parametrize("store", STORES)
def test_whoever_acts_around_a_commit_is_told_the_truth_and_nothing_is_lost(raced: Played[Raced], store: str) -> None:
    run = raced[store].result()
    print(f"\n{store}: {dict(run.answers)}, done {dict(run.done)}, {run.near} close to a commit, {run.fenced} commits fenced")
    assert not run.violations, run.violations[:20]
    hundreds = ACTS / 100
    assert run.answers.total() >= ACTS
    assert run.answers["done"] >= DONE_MIN * hundreds
    assert run.answers["Conflict"] >= CONFLICTS_MIN * hundreds
    assert run.answers["Refused"] >= REFUSED_MIN * hundreds
    assert run.answers["NotFound"] >= hundreds
    assert all(run.done[verb] >= OF_EACH_MIN * hundreds for verb in races.KINDS)
    assert run.near >= NEAR_MIN * hundreds
    assert run.fenced >= FENCED_MIN * hundreds


@pytest.mark.parametrize("case", [f"{store}-{bug}" for store in STORES for bug in BUGS])
def test_an_action_that_fences_nobody_or_loses_an_update_is_caught(raced: Played[Raced], case: str) -> None:
    violations = raced[case].result().violations
    assert any(violation.startswith(BUGS[case.partition("-")[2]]) for violation in violations), violations[:20]
