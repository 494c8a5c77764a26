"""The rules of leases, searched to the last state: see lease_model.py. RELIABILITY.md T1.

A larger search, which takes a minute and more:

    ONWARD_LEASE_CLAIMS=4 ONWARD_LEASE_ACTS=1 pytest tests/test_lease_model.py
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from faults.bugs import planted
from lease_model import Engine, Search, Violation

OWNERS = {"two workers": ("a", "b"), "one worker": ("a", "a")}  # of the two attempts
CLAIMS, ACTS = int(os.environ.get("ONWARD_LEASE_CLAIMS", "2")), int(os.environ.get("ONWARD_LEASE_ACTS", "1"))
STATES_MIN = 4_000  # with fewer something was not searched
MOVES = {  # each of them has to be made somewhere
    "time passes", "a person looks", "edit", "pause", "resume", "stop", "both claim at once",
    *(f"{one} {move}" for one in (0, 1) for move in (
        "claims", "claims, answer lost", "makes sure", "dies", "renews", "gives it back, begun", "gives it back, not begun",
        "commits", "commits, answer lost", "commits in vain, answer lost", "asks what became of its commit",
    )),
}  # fmt: skip
WITH_PEOPLE, ALONE, LONGER = (2, 1), (2, 0), (3, 0)  # claims and acts
WRONG = {  # what is said of each wrong design, and how far one has to search for it
    "fence_by_version_only": ("it writes what another has", WITH_PEOPLE),
    "no_fence": ("made twice", WITH_PEOPLE),
    "fence_by_owner_only": ("made twice", WITH_PEOPLE),
    "claim_without_a_new_epoch": ("a claim has no epoch of its own", WITH_PEOPLE),
    "epoch_of_the_lease": ("a claim has no epoch of its own", WITH_PEOPLE),
    "claim_what_others_have": ("both have claimed it", WITH_PEOPLE),
    "claim_by_a_list_of_before": ("both have claimed it", WITH_PEOPLE),
    "renew_what_others_have": ("it prolongs what another has", WITH_PEOPLE),
    "release_what_others_have": ("it gives back what another has", WITH_PEOPLE),
    "write_again_what_may_be_written": ("made twice", WITH_PEOPLE),
    "act_on_what_nobody_saw": ("an update was lost", WITH_PEOPLE),
    "act_without_a_new_epoch": ("a person's action has no epoch of its own", WITH_PEOPLE),
    "never_take_over": ("it can never come to rest", ALONE),
    "take_over_at_the_start_only": ("it can never come to rest", ALONE),
    "count_attempts_when_they_fail": ("attempt 3 of 2 begins", LONGER),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of lost answers are no news."""
    logger = logging.getLogger("onward")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


def searched(owners: tuple[str, str], claims: int, acts: int) -> tuple[int, set[str]]:
    """How many states there are, and which moves were made."""
    with Engine(*dict.fromkeys(owners)) as engine:
        search = Search(engine, owners, claims, acts)
        states = search.run()
        moves = sum(search.told.values())
        print(f"\n{owners}, {claims} claims, {acts} acts: {states:,} states, {moves:,} moves, {engine.runs:,} runs of verbs")
        return states, set(search.told)


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_no_order_of_claims_pauses_deaths_lost_answers_and_acts_breaks_the_rules(owners: tuple[str, str]) -> None:
    states, moves = searched(owners, CLAIMS, ACTS)
    assert states >= STATES_MIN
    assert not MOVES - moves


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_nor_does_any_order_of_more_claims(owners: tuple[str, str]) -> None:
    searched(owners, CLAIMS + 1, 0)


@pytest.mark.parametrize("bug", WRONG)
def test_the_search_finds_a_wrong_design_and_the_shortest_way_to_its_harm(bug: str) -> None:
    harm, bounds = WRONG[bug]
    with planted(bug), pytest.raises(Violation) as found:
        searched(OWNERS["two workers"], *bounds)
    assert harm in found.value.said
    assert 1 <= len(found.value.moves) <= 6
