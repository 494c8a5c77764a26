"""Holds what the programs did and were told against the rows that are there in the end. Says what cannot have happened.

The rules are those of `faults/checker.py`, by the same numbers. Here everything is in one memory and one order, so they are
exact: no clock is compared with another one, and nothing is excused that could have been known.

C1 acknowledged means written · C2 versions without gap or twin · C3 the row is its last history · C4 epochs only grow, each
granted once, and none while the lease of the one before runs · C6 effects · C7 all at rest · C8 the data's own log ·
C11 what was written in a transaction is there if its transition is · C12 what people were told is true.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .ledger import FLOW, Status
from .weather import FAIR

if TYPE_CHECKING:
    from .story import Story

EDGES = {(edge.source, edge.target) for edge in FLOW.edges()}
BY_HANDLERS = ("moved", "not yet")  # kinds of commits that only a handler's return brings about
MOVES = ("moved", "gave up", "deadline", "moved by hand", "cancelled")
GOES_ON = ("moved", "saved", "gave up", "deadline")  # kinds after which the same worker may still have it
BY_WORKERS = (*GOES_ON, "not yet", "retry", "failed", "rolled back")
LEAVES_S = 1.0  # so long after somebody acted on it a handler may go on
OVER = ("finished", "cancelled")

Ask = Callable[[str], list[dict[str, Any]]]
Attempt = tuple[str, int, int]  # process, transition, epoch


@dataclass
class Found:
    """The database in the end."""

    rows: dict[str, dict[str, Any]]
    history: dict[str, list[dict[str, Any]]]
    deletions: list[dict[str, Any]]
    steps: dict[tuple[str, int, str], str]
    bookings: Counter[tuple[str, int, int]]  # process, version that the commit stood on, epoch

    @staticmethod
    def read(ask: Ask) -> Found:
        rows = {row["id"]: row for row in ask("SELECT * FROM onward_process")}
        history: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in ask("SELECT * FROM onward_history WHERE version >= 0 ORDER BY process_id, version"):
            history[entry["process_id"]].append(entry)
        deletions = ask("SELECT * FROM onward_history WHERE version < 0")
        steps = {(s["process_id"], s["transition"], s["name"]): s["result"] for s in ask("SELECT * FROM onward_step")}
        bookings = Counter(tuple(row.values()) for row in ask("SELECT * FROM booking"))
        return Found(rows, history, deletions, steps, bookings)

    def entries(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Each commit after the start, behind the one before."""
        for id, entries in self.history.items():
            for before, entry in pairwise(entries):
                yield id, before, entry


def judge(story: Story, found: Found) -> list[str]:
    return list(_Judge(story, found).violations())


class _Judge:
    def __init__(self, story: Story, found: Found) -> None:
        self.story, self.found = story, found
        self.gone: dict[str, int] = {}  # the last epoch of what was deleted; who had it then knows nothing of what came after
        for entry in found.deletions:
            self.gone[entry["process_id"]] = max(entry["epoch"], self.gone.get(entry["process_id"], 0))
        self.books = story.outside.books
        self.owners: dict[tuple[str, int], str] = {}

    def is_gone(self, id: str, epoch: int) -> bool:
        return epoch <= self.gone.get(id, -1)

    def violations(self) -> Iterator[str]:
        yield from self._acknowledged()
        for id, entries in self.found.history.items():
            yield from self._chain(id, entries)
        yield from self._grants()
        yield from self._leases()
        yield from self._effects()
        yield from self._steps()
        for id, entries in self.found.history.items():
            yield from self._data(id, entries)
        yield from self._transactions()
        yield from self._acts()
        for id, entries in self.found.history.items():
            yield from self._rest(id, entries)

    # -- the rows ---------------------------------------------------------------------------------------------

    def _acknowledged(self) -> Iterator[str]:
        for _, id, epoch in self.books["started"]:
            if id not in self.found.rows and not self.is_gone(id, epoch):
                yield f"C1 started and lost: {id}"
        for who, id, version, epoch, kind, status in self.books["acks"]:
            if self.is_gone(id, epoch):
                continue
            entry = next(iter(self.found.history.get(id, ())[version : version + 1]), None)
            if entry is None:
                yield f"C1 acknowledged and lost: {id} version {version} by {who}"
            elif (entry["epoch"], entry["kind"], entry["to_status"]) != (epoch, kind, status):
                yield f"C1 acknowledged otherwise than written: {id} version {version} by {who}, epoch {epoch}, {kind}"

    def _chain(self, id: str, entries: list[dict[str, Any]]) -> Iterator[str]:
        if [entry["version"] for entry in entries] != list(range(len(entries))):
            yield f"C2 versions of {id} are {[entry['version'] for entry in entries]}"
        for before, after in pairwise(entries):
            at = f"{id} at version {after['version']}"
            moved = after["kind"] in MOVES and (after["to_status"] != after["from_status"] or after["kind"] == "cancelled")
            if after["from_status"] != before["to_status"] or after["transition"] != before["transition"] + moved:
                yield f"C2 the chain of {at} breaks"
            if after["epoch"] < before["epoch"]:
                yield f"C4 the epoch of {at} went back"
            if after["at"] < before["at"]:
                yield f"C2 the time of {at} went back"
            if after["kind"] == "moved" and (after["from_status"], after["to_status"]) not in EDGES:
                yield f"C2 the move of {at} is not in the table"
            if before["kind"] == "stopped" and after["kind"] in BY_WORKERS:
                yield f"C12 {at} was moved by a worker after it was stopped"
        row, last = self.found.rows.get(id), entries[-1]
        if row is None:
            yield f"C3 {id} has a history and no row"
            return
        data = next(entry["data"] for entry in reversed(entries) if entry["data"] is not None)
        kept = (last["version"], last["to_status"], last["transition"], data)
        if (row["version"], row["status"], row["transition"], row["data"]) != kept:
            yield f"C3 the row of {id} is not its last history: {row['version']} {row['status']} but {kept[:2]}"
        if row["epoch"] < last["epoch"]:
            yield f"C4 the row of {id} has epoch {row['epoch']}, its history {last['epoch']}"

    def _rest(self, id: str, entries: list[dict[str, Any]]) -> Iterator[str]:
        row = self.found.rows.get(id)
        if row is None:
            return
        if row["condition"] not in OVER or row["owner"] is not None or row["due_at"] is not None:
            stands = (row["condition"], row["status"], row["owner"], row["due_at"], row["error"])
            yield f"C7 {id} is not at rest: {stands}"
        asked = [entry for entry in entries if entry["kind"] in ("cancelled", "stopped", "moved by hand")]
        if asked and asked[-1]["kind"] != "moved by hand" and row["condition"] != "cancelled":
            yield f"C12 {id} was {asked[-1]['kind']} and is {row['condition']}"
        cleaned = any(entry["from_status"] == Status.CLEANED and entry["kind"] == "moved" for entry in entries)
        if asked and asked[-1]["kind"] == "cancelled" and not cleaned:
            yield f"C12 {id} was cancelled and nobody cleaned up"

    # -- who had it -------------------------------------------------------------------------------------------

    def _grants(self) -> Iterator[str]:
        """Each epoch is granted once, and what was committed in it was committed by the one who had it."""
        for who, id, epoch, *_, owner, _at in self.books["claims"]:
            if self.owners.setdefault((id, epoch), owner) != owner:
                yield f"C4 epoch {epoch} of {id} was granted twice, also to {who}"
            if id in self.found.rows and epoch > self.found.rows[id]["epoch"]:
                yield f"C4 epoch {epoch} of {id} was granted and forgotten"
        for who, id, *_, epoch, owner, _at in self.books["begun"]:
            if self.owners.get((id, epoch)) != owner:
                yield f"C4 epoch {epoch} of {id} was used by {who}, who did not have it"
        for id, _, entry in self.found.entries():
            if entry["kind"] in BY_WORKERS and self.owners.get((id, entry["epoch"])) != entry["actor"]:
                yield f"C4 version {entry['version']} of {id} was committed by {entry['actor']}, who did not have it"

    def _leases(self) -> Iterator[str]:
        """Nobody is granted what another one has, and has neither given back nor come to rest with."""
        until: dict[tuple[str, int], Any] = {}
        for _, id, epoch, end in self.books["leases"]:
            until[id, epoch] = max(end, until.get((id, epoch), end))
        had = set(until)
        given_back = {(id, epoch) for _, id, _, epoch, _ in self.books["releases"]}
        given_back |= {(id, e["epoch"]) for id, _, e in self.found.entries() if e["kind"] not in GOES_ON}
        given_back |= {(id, row["epoch"]) for id, row in self.found.rows.items() if row["condition"] in OVER}
        takeovers = 0
        for who, id, epoch, *_, at in self.books["claims"]:
            before = (id, epoch - 1)
            if before not in had or before in given_back or self.is_gone(*before):
                continue
            takeovers += 1
            if at < until[before]:
                yield f"C4 epoch {epoch} of {id} was granted to {who} while another one had it"
        self.story.count("takeovers", takeovers)
        if takeovers and self.story.weather.is_harmless:
            yield f"C4 {takeovers} processes were taken from workers that nothing had happened to"
        for who, id, epoch, status in self.books["without a lease"]:
            yield f"C4 {who} began {status} of {id} in epoch {epoch}, whose lease was over"
        for who, id, epoch, status in self.books["cut off"]:
            yield f"C4 {who} was cut off at {status} of {id} in epoch {epoch}, and nobody else had come"
        for who, id, epoch in self.books["prolonged"]:
            yield f"C4 {who} prolonged the lease of {id}, which another one has in epoch {epoch}"

    # -- what they did ----------------------------------------------------------------------------------------

    def _effects(self) -> Iterator[str]:
        begun: Counter[Attempt] = Counter((id, transition, epoch) for _, id, transition, *_, epoch, _, _ in self.books["begun"])
        done = {(id, transition, epoch) for _, id, transition, epoch in self.books["done"]}
        concluded = {(id, before["transition"], e["epoch"]) for id, before, e in self.found.entries() if e["kind"] != "saved"}
        for who, id, transition, key, *_ in self.books["begun"]:
            if key != f"{id}:{transition}":
                yield f"C6 the key of {id} at transition {transition} was {key}, for {who}"
        for attempt, times in begun.items():
            if times > 1:
                yield f"C6 one attempt ran {times} times: {attempt}"
        for id, before, entry in self.found.entries():
            if entry["kind"] in BY_HANDLERS and (id, before["transition"], entry["epoch"]) not in done:
                yield f"C6 version {entry['version']} of {id} was committed without its effect"
        for _, id, transition, epoch, was_begun in self.books["releases"]:
            if not was_begun and (id, transition, epoch) in begun.keys() - concluded and not self.is_gone(id, epoch):
                yield f"C6 an attempt was given back that had begun: {(id, transition, epoch)}"
        for attempt in sorted(begun.keys() - concluded):
            yield from self._unfinished(attempt)
        yield from self._numbers()
        yield from self._late_to_leave()
        for _, key, before, content in self.books["mistaken"]:
            if before[0] not in self.gone:
                yield f"C6 the key {key} was given for {before} and for {content}"
        again = len(begun) - len({(id, transition) for id, transition, _ in begun})
        self.story.count("effects again", again)

    def _unfinished(self, attempt: Attempt) -> Iterator[str]:
        """What was begun comes to its end, unless its worker died or somebody else has come since."""
        id, _, epoch = attempt
        row = self.found.rows.get(id)
        if row is None or self.is_gone(id, epoch) or row["epoch"] > epoch:
            return
        owner = self.owners.get((id, epoch))
        if owner not in {who for who, *_ in self.books["killed"]}:
            yield f"C6 {owner} lives and has forgotten what it began: {attempt}"

    def _numbers(self) -> Iterator[str]:
        """The number of an attempt tells its handler whether there was one before it."""
        last: dict[tuple[str, int], tuple[int, int]] = {}
        for _, id, transition, _, number, epoch, *_ in sorted(self.books["begun"], key=lambda begun: (begun[1], begun[5])):
            known, before = last.get((id, transition), (-1, 0))
            if number <= before and not self.is_gone(id, known):
                yield f"C6 attempt {number} of {id} at transition {transition} came after attempt {before}"
            last[id, transition] = epoch, number

    def _late_to_leave(self) -> Iterator[str]:
        """Who sees the store learns soon that a person has taken the process, and its handler ends."""
        weather = self.story.weather
        if weather.refused or weather.unanswered or weather.cut or weather.latency not in FAIR:
            return
        left = {(id, transition, epoch): at for _, id, transition, epoch, at in self.books["left"]}
        harmed = {name for _, name in (*self.books["killed"], *self.books["stopped"])}
        for _, reason, verb, id, how, _, epoch, at in self.books["acts"]:
            if how != "done" or verb in ("fork", "delete"):
                continue
            for who, whose, transition, _, _, had, _, began in self.books["begun"]:
                ended = left.get((id, transition, had), float("inf"))
                if whose == id and had <= epoch and began < at and at + LEAVES_S < ended and who not in harmed:
                    yield f"C12 {who} went on with {id} in epoch {had} long after {reason}, {verb}"

    def _steps(self) -> Iterator[str]:
        """A sub-step runs again only if no run of it was recorded; what a handler was told is what is recorded."""
        runs: dict[tuple[str, int, str], list[tuple[int, str]]] = defaultdict(list)
        for _, what, id, transition, name, epoch, token in self.books["once"]:
            if self.is_gone(id, epoch):
                continue
            if what == "ran":
                runs[id, transition, name].append((epoch, token))
            elif json.loads(self.found.steps.get((id, transition, name), "null")) != token:
                yield f"C6 the handler of {id} was told {token} for {name} at transition {transition}, which is not recorded"
        for step, result in self.found.steps.items():
            by = [epoch for epoch, token in runs[step] if token == json.loads(result)]
            if len(by) != 1:
                yield f"C6 sub-step {step} has a record that {len(by)} runs made"
            elif any(epoch > by[0] for epoch, _ in runs[step]):
                yield f"C6 sub-step {step} ran again after it was recorded"
        for step, made in runs.items():
            if len({epoch for epoch, _ in made}) != len(made):
                yield f"C6 sub-step {step} ran twice in one attempt"
        self.story.count("steps", len(self.found.steps))
        self.story.count("steps again", sum(len(made) - 1 for made in runs.values() if made))

    def _data(self, id: str, entries: list[dict[str, Any]]) -> Iterator[str]:
        """C8: the list that each process keeps of its own commits grows by exactly the one that was committed."""
        first = json.loads(entries[0]["data"])
        log, data = first["log"], first  # a fork has those of its origin
        for entry in entries[1:]:
            if entry["kind"] in (*BY_HANDLERS, "saved"):
                log = [*log, [entry["version"] - 1, entry["from_status"]]]
            data = data if entry["data"] is None else json.loads(entry["data"])
            if data["log"] != log:
                yield f"C8 the log of {id} at version {entry['version']} is {data['log']} and should be {log}"
                return
        for label, token in data["tokens"].items():
            transition, _, name = label.partition(":")
            known = first["tokens"].get(label) == token
            if not known and json.loads(self.found.steps.get((id, int(transition), name), "null")) != token:
                yield f"C8 {id} keeps {token} for {label}, which is not what is recorded"

    def _transactions(self) -> Iterator[str]:
        due = Counter(
            (id, entry["version"] - 1, entry["epoch"])
            for id, _, entry in self.found.entries()
            if entry["from_status"] == Status.BOOKED and entry["kind"] in BY_HANDLERS
        )
        for booking in (due - self.found.bookings).elements():
            yield f"C11 committed without what its handler wrote with it: {booking}"
        for booking in (self.found.bookings - due).elements():
            if not self.is_gone(booking[0], booking[2]):
                yield f"C11 written by a handler without its commit: {booking}"

    # -- what people were told --------------------------------------------------------------------------------

    def _acts(self) -> Iterator[str]:
        entries: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for entry in (*(e for es in self.found.history.values() for e in es), *self.found.deletions):
            if entry["reason"] and "act " in entry["reason"]:
                entries[entry["reason"].rpartition(": ")[2]].append(entry)
        for _, reason, verb, id, how, version, epoch, _at in self.books["acts"]:
            written = entries[reason]
            if len(written) > (how != "not done"):
                yield f"C12 {reason}, {verb} {id}, was {how} and stands there {len(written)} times"
            if how != "done" or (self.is_gone(id, epoch) and verb != "delete"):
                continue
            if not written:
                yield f"C12 {reason}, {verb} {id}, was done and is not there"
            elif verb != "delete" and (written[0]["process_id"], written[0]["version"]) != (id, version if verb != "fork" else 0):
                yield f"C12 {reason}, {verb} {id}, was done at version {version} and stands at {written[0]['version']}"
