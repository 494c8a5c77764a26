"""What people were told who acted on races, held against what is written: done means there, refused means nothing there."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import races
from .checker import BY_HANDLERS, BY_PEOPLE, Found
from .programs import Program
from .races import NEAR_S, Status

NEAR_US = NEAR_S * 1e6
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


@dataclass
class Raced:
    """What a run came to."""

    violations: list[str]
    answers: Counter[str]
    done: Counter[str]
    near: int  # actions and commits of handlers that lie that close to each other, or of which one was refused for the other
    fenced: int  # commits of handlers that were refused


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
            if answer == races.NOBODY_KNOWS:
                by.pop(who, None)
                continue
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
