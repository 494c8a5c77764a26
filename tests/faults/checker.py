"""Reads what the programs left: the database, past all of our own code, and their books. Says what cannot have happened.

C1 acknowledged means written · C2 versions without gap or twin · C3 the row is its last history · C4 epochs only grow, each
granted once, and none while the lease of the one before runs · C5 a later read sees what was acknowledged before ·
C6 effects · C7 all at rest · C8 the data's own log · C9 no word of a bug in a program's log · C10 SQLite's file is whole ·
C11 what was written in a transaction with a transition, or with a start, is there once if that is there, and not at all if
it is not · C12 data of a newer version of the code are neither claimed nor written by an older one.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from onward.store.urls import is_postgres

from . import ledger, races, trouble
from .places import reading, store_of
from .programs import Program, read_book

FLOWS = (ledger.FLOW, trouble.FLOW, races.FLOW)
EDGES = {(flow.name, edge.source, edge.target) for flow in FLOWS for edge in flow.edges()}
KEEPING_A_LOG = (ledger.FLOW.name, races.FLOW.name)
BY_HANDLERS = ("moved", "not yet")  # kinds of commits that only a handler's return brings about
BY_PEOPLE = ("woken", "retried", "paused", "resumed", "cancelled", "stopped")
GOES_ON = ("moved", "saved", "gave up", "deadline")  # kinds after which the same worker may still have it
WORDS_OF_A_BUG = (
    "the engine failed", "never retrieved", "Exception in thread", "Fatal Python error", "malformed", "never awaited",
    "Exception ignored", "Exception in callback", "disk image", "constraint failed", "violates",
    "deadlock",
)  # fmt: skip
# What asyncpg says of a session that was given up while it was being made: the program had been stopped for too long.
NO_BUG = re.compile(
    r"Future exception was never retrieved\nfuture: <Future \w+ exception=ConnectionError\('unexpected connection_lost"
)
VIOLATIONS_SHOWN = 20
CLOCKS_DIFFER_S = 0.1


@dataclass
class Verdict:
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    takeovers: list[tuple[str, str, float]] = field(default_factory=list)  # (dead program, next one, when it was claimed)

    def say(self, what: str, *about: object) -> None:
        self.violations.append(" ".join([what, *map(str, about)]))

    def assert_clean(self) -> Verdict:
        shown = "\n".join(self.violations[:VIOLATIONS_SHOWN])
        assert not self.violations, f"{len(self.violations)} violations, the first of them:\n{shown}"
        return self


@dataclass
class Found:
    """The database as one reading of it saw it."""

    rows: dict[str, dict[str, Any]]
    history: dict[str, list[dict[str, Any]]]
    steps: dict[tuple[str, int, str], str]
    bookings: Counter[tuple[str, int, int]]  # (process, version that the commit stood on, epoch)
    sales: list[str] | None
    integrity: str

    @staticmethod
    def read(folder: Path, *, deep: bool = True) -> Found:
        with reading(folder, write=deep) as ask:
            rows = {row["id"]: row for row in ask("SELECT * FROM onward_process")}
            history: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for entry in ask("SELECT * FROM onward_history ORDER BY process_id, version"):
                history[entry["process_id"]].append(entry)
            steps = {(s["process_id"], s["transition"], s["name"]): s["result"] for s in ask("SELECT * FROM onward_step")}
            sqlite = not is_postgres(store_of(folder))
            names = "SELECT name FROM sqlite_master" if sqlite else "SELECT relname::text AS name FROM pg_class"
            tables = {table["name"] for table in ask(names)}
            bookings = Counter(tuple(row.values()) for row in (ask("SELECT * FROM booking") if "booking" in tables else ()))
            sales = [row["id"] for row in ask("SELECT id FROM sale")] if "sale" in tables else None
            integrity = ask("PRAGMA integrity_check")[0]["integrity_check"] if deep and sqlite else "ok"
        return Found(rows, history, steps, bookings, sales, integrity)


def check(
    folder: Path,
    programs: Iterable[Program] = (),
    *,
    at_rest: bool = True,
    failed: Collection[str] = (),
    over: Collection[str] = ("finished",),
) -> Verdict:
    """The whole check, after the last program has ended. `programs`: those that may have been killed or stopped.

    `failed` are the ids that must have ended as failed, with an error; all others must be over, in one of these conditions.
    """
    verdict, found = Verdict(), Found.read(folder)
    names = ("started", "acks", "claims", "effects", "once", "refused", "leases", "renewals", "releases", "release")
    books = {name: list(_books(folder, name)) for name in names}
    excused = {program.boot for program in programs if program.exited != 0 or program.stops}
    _acknowledged(verdict, found, books)
    _chains(verdict, found)
    _grants(verdict, found, books)
    _leases(verdict, found, books)
    _effects(verdict, found, books, excused)
    _steps(verdict, found, books)
    _data(verdict, found)
    _transactions(verdict, found)
    _releases(verdict, found, books)
    if at_rest:
        _rest(verdict, found, failed, over)
    for path in folder.glob("log-*"):
        text = NO_BUG.sub("", path.read_text(errors="replace"))
        verdict.violations += [f"C9 {path.name} says: {words}" for words in WORDS_OF_A_BUG if words in text]
    if found.integrity != "ok":
        verdict.say("C10", found.integrity)
    _takeovers(verdict, found, books)
    verdict.counts.update(f"refused {verb}" for _, verb, *_about in books["refused"])
    verdict.counts.update(processes=len(found.rows), acks=len(books["acks"]), commits=sum(map(len, found.history.values())))
    return verdict


def look(folder: Path) -> Verdict:
    """C5, and C1 to C3 while everything runs: the books are read first, so the database must know all that is in them."""
    verdict = Verdict()
    books = {name: list(_books(folder, name)) for name in ("started", "acks")}
    found = Found.read(folder, deep=False)
    _acknowledged(verdict, found, books)
    _chains(verdict, found)
    _transactions(verdict, found)
    return verdict


def _books(folder: Path, name: str) -> Iterable[list[Any]]:
    """All lines of one kind of book, each behind the name of its program."""
    for path in sorted(folder.glob(f"{name}-*")):
        boot = path.name.partition("-")[2]
        yield from ([boot, *line] for line in read_book(path))


def _acknowledged(verdict: Verdict, found: Found, books: dict[str, list[list[Any]]]) -> None:
    for boot, id, _ in books["started"]:
        if id not in found.rows:
            verdict.say("C1 started and lost:", id, "by", boot)
    for boot, id, version, epoch, kind, status, _ in books["acks"]:
        entry = next((e for e in found.history.get(id, ())[version : version + 1]), None)
        if entry is None:
            verdict.say("C1 acknowledged and lost:", id, "version", version, "by", boot)
        elif (entry["epoch"], entry["kind"], entry["to_status"]) != (epoch, kind, status):
            verdict.say("C1 acknowledged otherwise than written:", id, "version", version, "by", boot, "epoch", epoch, entry)


def _chains(verdict: Verdict, found: Found) -> None:
    if set(found.rows) != set(found.history):
        verdict.say("C2 rows without history or history without row:", sorted(set(found.rows) ^ set(found.history)))
    for id, entries in found.history.items():
        if [entry["version"] for entry in entries] != list(range(len(entries))):
            verdict.say("C2 versions of", id, "are", [entry["version"] for entry in entries])
        for before, after in pairwise(entries):
            moved = after["kind"] in ("moved", "gave up", "deadline", "cancelled") and after["to_status"] != after["from_status"]
            if after["from_status"] != before["to_status"] or after["transition"] != before["transition"] + moved:
                verdict.say("C2 the chain of", id, "breaks at version", after["version"])
            if after["epoch"] < before["epoch"]:
                verdict.say("C4 the epoch of", id, "went back at version", after["version"])
            if after["at"] < before["at"]:
                verdict.say("C2 the time of", id, "went back at version", after["version"])
        row = found.rows.get(id)
        if row is None:
            continue
        if any((row["flow"], e["from_status"], e["to_status"]) not in EDGES for e in entries if e["kind"] == "moved"):
            verdict.say("C2 a move of", id, "is not in the table")
        last = entries[-1]
        data = next((entry["data"] for entry in reversed(entries) if entry["data"] is not None), None)
        kept = (last["version"], last["to_status"], last["transition"], data)
        if (row["version"], row["status"], row["transition"], row["data"]) != kept:
            verdict.say("C3 the row of", id, "is not its last history:", row["version"], row["status"], "but", *kept[:2])
        if row["epoch"] < last["epoch"]:
            verdict.say("C4 the row of", id, "has epoch", row["epoch"], "its history", last["epoch"])


def _grants(verdict: Verdict, found: Found, books: dict[str, list[list[Any]]]) -> None:
    """Each epoch is granted once, and what was committed in it was committed by the one who had it."""
    owners: dict[tuple[str, int], str] = {}
    for boot, id, epoch, _, _, owner, _ in books["claims"]:
        if owners.setdefault((id, epoch), owner) != owner:
            verdict.say("C4 epoch", epoch, "of", id, "was granted twice, also to", boot)
        if id in found.rows and epoch > found.rows[id]["epoch"]:
            verdict.say("C4 epoch", epoch, "of", id, "was granted and forgotten")
    for _, _, id, *_visit, epoch, owner, _ in books["effects"]:
        if owners.setdefault((id, epoch), owner) != owner:
            verdict.say("C4 epoch", epoch, "of", id, "was used by two:", owner)
    for id, entries in found.history.items():
        for entry in entries[1:]:
            if entry["actor"] != owners.get((id, entry["epoch"]), entry["actor"]):
                verdict.say("C4 version", entry["version"], "of", id, "was committed by one who did not have it:", entry["actor"])


def _leases(verdict: Verdict, found: Found, books: dict[str, list[list[Any]]]) -> None:
    """Nobody is granted what another one has, and has neither given back nor come to rest with."""
    until: dict[tuple[str, int], float] = {}
    for _, kept, lease, asked_at, _ in (*books["leases"], *books["renewals"]):
        for attempt in kept.items():
            until[attempt] = max(asked_at + lease, until.get(attempt, 0.0))
    for _, id, epoch, _ in books["releases"]:
        until.pop((id, epoch), None)
    for id, entries in found.history.items():
        for entry in entries:
            if entry["kind"] not in GOES_ON:
                until.pop((id, entry["epoch"]), None)
    for boot, id, epoch, *_, at in books["claims"]:
        if at < until.get((id, epoch - 1), 0.0):
            verdict.say("C4 epoch", epoch, "of", id, "was granted to", boot, "while another one had it")


def _cut_off(found: Found, books: dict[str, list[list[Any]]]) -> set[tuple[str, int]]:
    """What was taken from a living worker that may not have been told: by a person, or since it was too slow to renew at all."""
    holders = {(id, epoch): boot for boot, id, epoch, *_ in books["claims"]}
    renewed: dict[str, list[tuple[float, float]]] = defaultdict(list)
    last_sign: Counter[str] = Counter()
    for boot, _, lease, asked_at, _ in books["renewals"]:
        renewed[boot].append((asked_at, asked_at + lease))
    for boot, *_, at in (*books["claims"], *books["effects"], *books["renewals"], *books["releases"]):
        last_sign[boot] = max(last_sign[boot], at)
    cut_off = {(id, e["epoch"] - 1) for id, entries in found.history.items() for e in entries if e["kind"] in BY_PEOPLE}
    for _, id, epoch, *_, at in books["claims"]:
        holder = holders.get((id, epoch - 1), "")
        if last_sign[holder] >= at and not any(asked_at < at < until for asked_at, until in renewed[holder]):
            cut_off.add((id, epoch - 1))
    return cut_off


def _effects(verdict: Verdict, found: Found, books: dict[str, list[list[Any]]], excused: set[str]) -> None:
    begun: Counter[tuple[str, int, int]] = Counter()
    ended: Counter[tuple[str, int, int]] = Counter()
    who: dict[tuple[str, int, int], str] = {}
    done_at: dict[tuple[str, int, int], float] = {}
    for boot, when, id, transition, key, _, epoch, _, at in books["effects"]:
        attempt = (id, transition, epoch)
        (begun if when == "before" else ended)[attempt] += 1
        who[attempt], done_at[attempt] = boot, at
        if key != f"{id}:{transition}":
            verdict.say("C6 the key of", id, "at transition", transition, "was", key)
    committed: set[tuple[str, int, int]] = set()
    wall = time.time() - time.monotonic()  # the database has the one clock, the books have the other
    for id, entries in found.history.items():
        for before, entry in pairwise(entries):
            attempt = (id, before["transition"], entry["epoch"])
            if entry["kind"] != "saved":
                committed.add(attempt)
            unseen = entry["from_status"] == "sent"  # the one stage whose handler keeps no books
            if entry["kind"] in BY_HANDLERS and not unseen and not ended[attempt]:
                verdict.say("C6 version", entry["version"], "of", id, "was committed without its effect")
            elif entry["kind"] in BY_HANDLERS and not unseen and entry["at"] / 1e6 - wall < done_at[attempt] - CLOCKS_DIFFER_S:
                verdict.say("C6 version", entry["version"], "of", id, "was committed by somebody before its effect was done")
    released = {(id, epoch) for _, _, id, epoch, _ in books["refused"]} | _cut_off(found, books)
    for attempt in begun.keys() - committed:
        if who[attempt] not in excused and (attempt[0], attempt[2]) not in released:
            verdict.say("C6 an effect of", who[attempt], "which was neither killed nor fenced was not committed:", attempt)
    for attempt, times in begun.items():
        if times > 1:
            verdict.say("C6 one attempt ran", times, "times:", attempt)
    verdict.counts["effects again"] = len(begun) - len({(id, transition) for id, transition, _ in begun})


def _steps(verdict: Verdict, found: Found, books: dict[str, list[list[Any]]]) -> None:
    """A sub-step runs again only if no run of it was recorded; what a handler was told is what is recorded."""
    runs: dict[tuple[str, int, str], list[tuple[int, str]]] = defaultdict(list)
    for _, what, id, transition, name, epoch, token, _ in books["once"]:
        if what == "ran":
            runs[id, transition, name].append((epoch, token))
    for _, what, id, transition, name, _, token, _ in books["once"]:
        recorded = found.steps.get((id, transition, name))
        if what == "known" and (recorded is None or json.loads(recorded) != token):
            verdict.say("C6 the handler of", id, "was told", token, "for", name, "but recorded is", recorded)
    for (id, transition, name), result in found.steps.items():
        by = [epoch for epoch, token in runs[id, transition, name] if token == json.loads(result)]
        if len(by) != 1:
            verdict.say("C6 sub-step", name, "of", id, "has a record that", len(by), "runs made")
        elif any(epoch > by[0] for epoch, _ in runs[id, transition, name]):
            verdict.say("C6 sub-step", name, "of", id, "ran again after it was recorded, at transition", transition)
    for step, made in runs.items():
        if len({epoch for epoch, _ in made}) != len(made):
            verdict.say("C6 sub-step", step, "ran twice in one attempt")
    verdict.counts["steps"] = len(found.steps)
    verdict.counts["steps again"] = sum(len(made) - 1 for made in runs.values())


def _transactions(verdict: Verdict, found: Found) -> None:
    due = Counter(
        (id, entry["version"] - 1, entry["epoch"])
        for id, entries in found.history.items()
        for entry in entries
        if entry["from_status"] == ledger.Status.BOOKED and entry["kind"] in BY_HANDLERS
    )
    for booking in (due - found.bookings).elements():
        verdict.say("C11 committed without what its handler wrote with it:", *booking)
    for booking in (found.bookings - due).elements():
        verdict.say("C11 written by a handler without its commit:", *booking)
    if found.sales is not None and sorted(found.sales) != sorted(found.rows):
        verdict.say("C11 sold and started differ:", sorted(set(found.sales) ^ set(found.rows)))
    verdict.counts["bookings"] = found.bookings.total()


def _releases(verdict: Verdict, found: Found, books: dict[str, list[list[Any]]]) -> None:
    """Versions of data only grow, the data are of the version that stands beside them, and old programs keep off new ones."""
    release = {boot: number for boot, number, _ in books["release"]}
    ledgers = {id: row for id, row in found.rows.items() if row["flow"] == ledger.FLOW.name and id in found.history}
    for boot, id, _, version, *_ in books["claims"]:
        entry = next(iter(found.history.get(id, ())[version : version + 1]), None)
        if entry is not None and id in ledgers and entry["data_version"] > release.get(boot, 1):
            verdict.say("C12", boot, "claimed", id, "at version", version, "whose data are newer than its code")
    for id, row in ledgers.items():
        for before, entry in pairwise([*found.history[id], row]):
            if entry["data_version"] < before["data_version"]:
                verdict.say("C12 the data of", id, "became older at version", entry["version"])
            if entry["data"] is not None and json.loads(entry["data"])["release"] != entry["data_version"]:
                verdict.say("C12 the data of", id, "at version", entry["version"], "are not of the version that it says")
        verdict.counts["upgraded"] += row["data_version"] > found.history[id][0]["data_version"]


def _data(verdict: Verdict, found: Found) -> None:
    """C8: the list that each process keeps of its own commits grows by exactly the one that was committed."""
    for id, entries in found.history.items():
        if id not in found.rows or found.rows[id]["flow"] not in KEEPING_A_LOG:
            continue
        log: list[list[Any]] = []
        for entry in entries[1:]:
            if entry["kind"] in (*BY_HANDLERS, "saved"):
                log = [*log, [entry["version"] - 1, entry["from_status"]]]
            if entry["data"] is not None and json.loads(entry["data"])["log"] != log:
                verdict.say("C8 the log of", id, "at version", entry["version"], "is", json.loads(entry["data"])["log"])
                break
        data = json.loads(found.rows[id]["data"])
        if data["log"] != log:
            verdict.say("C8 the log of", id, "is", data["log"], "and should be", log)
        for label, token in data.get("tokens", {}).items():
            transition, _, name = label.partition(":")
            if json.loads(found.steps.get((id, int(transition), name), "null")) != token:
                verdict.say("C8", id, "keeps", token, "for", label, "which is not what is recorded")


def _rest(verdict: Verdict, found: Found, failed: Collection[str], over: Collection[str]) -> None:
    for id, row in found.rows.items():
        wanted = ("failed",) if id in failed else over
        if row["condition"] not in wanted or row["owner"] is not None or row["due_at"] is not None:
            state = (row["status"], row["owner"], row["due_at"], row["error"])
            verdict.say("C7", id, "should be", *wanted, "and is", row["condition"], *state)
        if id in failed and not row["error"]:
            verdict.say("C7", id, "failed and does not say why")


def _takeovers(verdict: Verdict, found: Found, books: dict[str, list[list[Any]]]) -> None:
    """A takeover is a claim with more attempts than its last commit left: the one before it ended without a word."""
    claims = {(id, epoch): (boot, at) for boot, id, epoch, _, _, _, at in books["claims"]}
    for boot, id, epoch, version, attempt, _, at in books["claims"]:
        entry = next(iter(found.history.get(id, ())[version : version + 1]), None)
        left = entry["attempt"] if entry is not None and entry["kind"] in ("retry", "not yet") else 0
        if entry is not None and entry["kind"] != "saved" and attempt > left + 1:
            verdict.counts["takeovers"] += 1
            if (id, epoch - 1) in claims:
                verdict.takeovers.append((claims[id, epoch - 1][0], boot, at))
