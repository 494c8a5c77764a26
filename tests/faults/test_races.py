"""People who act on processes at the very moment at which a worker commits them, from programs of their own.

What they are told is true: what is answered as done is there, at that version, and fences whoever ran it; what is refused
says why, and has changed nothing.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from . import races
from .beforehand import Played, played
from .checker import BY_HANDLERS, BY_PEOPLE, Found, check
from .places import FEW, STORES, Places
from .programs import Nursery, Program
from .races import NEAR_S, Status

ACTS, ACTS_OF_A_BUG = 1_000, 200  # of two programs together
NUMBER, PEOPLE = 24, 10
LEASE_S = 5.0  # nobody dies here: what a worker loses it loses to a person
THREADS = 6
NEAR_US = NEAR_S * 1e6
# Of a hundred actions, at the least; what a run brings about is two to five times as much.
CONFLICTS_MIN, REFUSED_MIN, DONE_MIN, OF_EACH_MIN, NEAR_MIN, FENCED_MIN = 2, 5, 30, 1, 5, 2

ALIVE = {"ready", "running", "waiting", "retrying"}
FITS = {  # to what each can be done
    "pause": ALIVE,
    "resume": {"paused"},
    "wake": {"waiting", "retrying"},
    "retry": {"failed", "retrying"},
    "cancel": ALIVE | {"failed", "paused"},
    "stop": ALIVE | {"failed", "paused"},
}
LEAVES = {"pause": "paused", "resume": "ready", "wake": "ready", "retry": "ready", "cancel": "waiting", "stop": "cancelled"}
BUGS = {"act_without_a_new_epoch": ("C4",), "act_on_what_nobody_saw": ("operate",)}  # and what is said of them


@dataclass
class Raced:
    """What a run came to."""

    violations: list[str]
    answers: Counter[str]
    done: Counter[str]
    near: int  # actions and commits of handlers that lie that close to each other, or of which one was refused for the other
    fenced: int  # commits of handlers that were refused


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


def judge(folder: Path, operators: list[Program], violations: list[str], fenced: int) -> Raced:
    found = Found.read(folder)
    raced = Raced(list(violations), Counter(), Counter(), 0, fenced)
    by: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entries in found.history.values():
        for entry in entries:
            if entry["kind"] in BY_PEOPLE and entry["actor"] != races.CLOSER:
                by[entry["actor"]].append(entry)
    for operator in operators:
        for who, verb, id, seen, answer, *about, _ in operator.book("acts"):
            raced.answers[answer] += 1
            entries = found.history.get(id, [])
            if answer == "done":
                raced.done[verb] += 1
                lies = _done(verb, id, seen, about, by.pop(who, []), entries)
                raced.near += _is_near(about[0], entries)
            else:
                lies = _refused(verb, id, seen, answer, about[0], by.pop(who, []), entries)
                raced.near += answer == "Conflict"
            raced.violations += [f"{who} was told of {verb} {id} at {seen}: {answer} {about}, but {lie}" for lie in lies]
    raced.violations += [f"nobody was told of {entry}" for entry in by.values()]
    return raced


def _done(
    verb: str, id: str, seen: int | None, about: list[Any], mine: list[dict[str, Any]], entries: list[dict[str, Any]]
) -> Iterator[str]:
    version, epoch, status, condition = about
    written = [(e["process_id"], e["kind"], e["version"], e["epoch"], e["to_status"]) for e in mine]
    if written != [(id, races.KINDS[verb], version, epoch, status)]:
        yield f"written is {written}"
    if seen is not None and version != seen + 1:
        yield "it was done to what nobody saw"
    if condition != LEAVES[verb]:
        yield "that is not how it leaves a process"
    after = entries[version + 1 :]
    if any(entry["epoch"] <= epoch for entry in after):
        yield "who had it before has written since"
    if verb == "stop" and after:
        yield "it went on"
    if verb == "pause" and after and after[0]["kind"] not in BY_PEOPLE:
        yield "it went on without being asked to"
    if verb == "cancel" and any(entry["to_status"] not in (Status.CLEANING, Status.OVER) for entry in after):
        yield "it did something else than to clean up"


def _refused(
    verb: str, id: str, seen: int | None, answer: str, words: str, mine: list[dict[str, Any]], entries: list[dict[str, Any]]
) -> Iterator[str]:
    if mine:
        yield f"written is {mine}"
    if (id == races.NOBODY) != (answer == "NotFound"):
        yield "that is no answer"
    if answer == "Conflict":
        versions = sorted(int(version) for version in re.findall(r"(?:version|to|not) (\d+)", words))
        if len(versions) != 2 or versions[0] == versions[1] or versions[1] >= len(entries) or seen not in (None, versions[0]):
            yield f"the versions that it names are {versions}"
    if answer == "Refused":
        named = re.search(r"it is (\w+), at (\w+)$", words)
        cleans_up = re.search(r"is cancelled already and cleans up, now at (\w+)$", words)
        status = named[2] if named else cleans_up[1] if cleans_up and verb == "cancel" else None
        if not any(entry["to_status"] == status for entry in entries) or (named and named[1] in FITS[verb]):
            yield "it names no condition in which that cannot be done"


def _is_near(version: int, entries: list[dict[str, Any]]) -> bool:
    """Whether a handler's commit came just before it. None comes just after it: that one was refused."""
    before, entry = entries[version - 1], entries[version]
    return before["kind"] in (*BY_HANDLERS, "retry", "failed") and entry["at"] - before["at"] <= NEAR_US


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
