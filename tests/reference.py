"""What every store should answer, in plain Python: the verbs of `ports.Store` as DESIGN.md §3–4 and ports.py tell them.

It keeps dictionaries and knows no SQL, no tasks and no files. Only tests/test_differential.py uses it, beside real stores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from onward.decide import Change
from onward.errors import Conflict, Fenced, NotFound, StoreError
from onward.ports import WALK_CHARS, Clock, Count, Kept, Known, Lease, NewProcess, Place, Search
from onward.process import OVER, RESTING, Condition, Entry, Record
from onward.query import Term, is_exact, pieces

PEOPLES = {
    "started by hand", "woken", "retried", "paused", "resumed", "cancelled", "stopped", "moved by hand", "edited", "forked",
    "deleted",
}  # fmt: skip


class Reference:
    """One database. Whatever handle of it is asked, the answer is the same."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[str, Record] = {}  # as they were decided; `seen` is how they look now
        self.entries: dict[str, list[Entry]] = {}  # of a process that was deleted what stays of it: versions -1, -2 …
        self.kept: dict[tuple[str, int], dict[str, str]] = {}

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def seen(self, row: Record) -> Record:
        condition = row.condition
        if row.lease_until is not None and row.lease_until > self.now:
            condition = Condition.RUNNING
        elif condition in (Condition.WAITING, Condition.RETRYING) and row.due_at is not None and row.due_at <= self.now:
            condition = Condition.READY
        return replace(row, condition=condition, as_of=self.now)

    # -- the verbs of a worker --------------------------------------------------------------------------------

    def due(self, known: Known, ids: Collection[str] = ()) -> list[tuple[datetime, Record]]:
        """What can be claimed, and since when; the oldest first."""
        found = []
        for row in self.rows.values():
            since = _since(row)
            if since is not None and since <= self.now and _is_known(row, known) and (not ids or row.id in ids):
                found.append((since, row))
        return sorted(found, key=lambda one: one[0])

    async def claim(
        self, known: Known, owner: str, limit: int, lease: timedelta, ids: Collection[str] = (), *, suspect: bool = True
    ) -> list[Record]:
        due = [row for _, row in self.due(known, ids)]
        if not ids:
            suspects = [row for row in due if is_suspect(row)]
            due = suspects[: int(suspect)] + [row for row in due if not is_suspect(row)]
        for row in due[:limit]:
            losses = row.losses + (row.owner is not None)
            self.rows[row.id] = replace(
                row, owner=owner, epoch=row.epoch + 1, attempt=row.attempt + 1, losses=losses, lease_until=self.now + lease
            )
        answer = [self.seen(self.rows[row.id]) for row in due[:limit]]
        return sorted(answer, key=lambda record: (record.losses < 2, record.due_at, record.id))

    async def commit(self, record: Record, change: Change, *, again: bool = True) -> Record:
        """`again`: whether it may have been sent before, and the answer been lost."""
        if not self.holds(record):
            if not again or not self._stands_in_the_history(record, change):
                raise Fenced("")
        else:
            row = self.rows[record.id]
            stays = row.owner if change.goes_on else None
            self._write(row, change, row.owner, change.reason, owner=stays, data_version=record.data_version)
        keeps = {"owner": record.owner, "lease_until": record.lease_until} if change.goes_on else {}
        data = record.data if change.data is None else change.data
        losses = record.losses if change.kind == "saved" else 0
        return self._after(replace(record, as_of=self.now), change, losses=losses, data=data, **keeps)

    def renew(self, owner: str, held: Mapping[str, int], lease: timedelta) -> set[str]:
        lost = self._lost(held)
        for id in held.keys() - lost:
            row = self.rows[id]
            if row.owner == owner and row.lease_until is not None:
                self.rows[id] = replace(row, lease_until=max(row.lease_until, self.now + lease))
        return lost

    async def release(self, records: Sequence[Record], *, begun: bool) -> None:
        for record in records:
            row = self.rows.get(record.id)
            if row is not None and row.owner is not None and (row.epoch, row.owner) == (record.epoch, record.owner):
                attempt = row.attempt if begun else max(row.attempt - 1, 0)
                self.rows[row.id] = replace(row, owner=None, lease_until=None, due_at=self.now, attempt=attempt)

    async def release_all_but(self, owner: str, ids: Collection[str], lease: timedelta) -> None:
        for row in self.rows.values():
            if row.owner == owner and row.id not in ids:
                self.rows[row.id] = replace(row, owner=None, lease_until=None, attempt=max(row.attempt - 1, 0))

    async def record_step(self, record: Record, name: str, result: str) -> None:
        row, kept = self.rows.get(record.id), self.kept.setdefault((record.id, record.transition), {})
        is_his = row is not None and row.owner is not None and (row.epoch, row.owner) == (record.epoch, record.owner)
        if row is not None and is_his and row.transition == record.transition:
            kept.setdefault(name, result)
        if not is_his or kept.get(name) != result:
            raise Fenced("")

    async def steps(self, id: str, transition: int) -> dict[str, str]:
        return dict(self.kept.get((id, transition), {}))

    async def next_due(self, known: Known) -> timedelta | None:
        times = [since for row in self.rows.values() if _is_known(row, known) and (since := _since(row))]
        return min(times) - self.now if times else None

    async def taken_away(self, held: Mapping[str, int]) -> set[str]:
        return self._lost(held)

    def holds(self, record: Record) -> bool:
        """Whether a commit of it would pass the fence."""
        row = self.rows.get(record.id)
        fence = (record.version, record.epoch, record.owner)
        return row is not None and (row.version, row.epoch, row.owner) == fence and row.owner is not None

    def _lost(self, held: Mapping[str, int]) -> set[str]:
        return {id for id, epoch in held.items() if id not in self.rows or self.rows[id].epoch != epoch}

    # -- the verbs of a person --------------------------------------------------------------------------------

    async def insert(self, processes: Sequence[NewProcess], actor: str) -> list[bool]:
        verdicts, now = [], self.now
        for new in processes:
            verdicts.append(new.id not in self.rows)
            if verdicts[-1]:
                what = (new.id, new.flow, new.status, Condition.READY, new.data)
                epoch = max((entry.epoch for entry in self.gone(new.id)), default=0)
                row = Record(*what, 0, epoch, 0, 0, 0, 0, False, now, now, now, now, None, None, None, now)
                self.rows[new.id] = replace(row, data_version=new.data_version)
                kept = (new.reason, new.data, new.data_version)
                first = Entry(new.id, 0, now, new.kind, None, new.status, 0, 0, epoch, actor, None, *kept)
                self.entries.setdefault(new.id, []).append(first)
        return verdicts

    async def act(self, record: Record, change: Change, actor: str, reason: str | None) -> Record:
        row = self._still(record)
        if change.transition == row.transition:  # a claim may have counted one more since the person looked
            change = replace(change, attempt=row.attempt)
        self._write(replace(row, epoch=row.epoch + 1), change, actor, reason, owner=None, data_version=record.data_version)
        return self.seen(self.rows[row.id])

    async def delete(self, record: Record, actor: str, reason: str | None) -> None:
        row = self._still(record)
        del self.rows[row.id]
        self.kept = {visit: kept for visit, kept in self.kept.items() if visit[0] != row.id}
        stays = self.gone(row.id)
        what = (row.status, row.status, row.transition, 0, row.epoch)
        last = Entry(row.id, -1 - len(stays), self.now, "deleted", *what, actor, None, reason, None)
        self.entries[row.id] = [*stays, last]

    def gone(self, id: str) -> list[Entry]:
        """What stays of the processes that had this id and were deleted."""
        return [entry for entry in self.entries.get(id, []) if entry.version < 0]

    def _still(self, record: Record) -> Record:
        """The row, if it is at the version that a person saw."""
        row = self.rows.get(record.id)
        if row is None:
            raise NotFound("")
        if row.version != record.version:
            raise Conflict("")
        return row

    async def get(self, id: str) -> Record | None:
        return self.seen(self.rows[id]) if id in self.rows else None

    async def find(self, search: Search) -> list[Record]:
        rows, walked = self._after_before(search), _walked(search)
        if walked is not None and search.looks:
            rows = [row for row in rows if walked(row)][: search.looks]
        found = [row for row in rows if all(holds(term, row, search) != term.negated for term in search.terms)]
        return [replace(row, data="") if search.light else row for row in found[: search.limit]]

    async def past(self, search: Search) -> str:
        walked = _walked(search)
        if walked is None or not search.looks:
            return ""
        rows = [row for row in self._after_before(search) if walked(row)]
        return rows[search.looks - 1].id if len(rows) > search.looks else ""

    def _after_before(self, search: Search) -> list[Record]:
        """The newest first, from there on where a page goes on."""
        rows = sorted(map(self.seen, self.rows.values()), key=lambda row: (row.created_at, row.id.encode()), reverse=True)
        if not search.before:
            return rows
        ids = [row.id for row in rows]
        return rows[ids.index(search.before) + 1 :] if search.before in ids else []

    async def leases(self) -> list[Lease]:
        held = [row for row in self.rows.values() if row.owner is not None]
        stages = sorted(
            {(row.owner or "", row.flow, row.status) for row in held}, key=lambda stage: [one.encode() for one in stage]
        )
        parts = [(stage, [row for row in held if (row.owner, row.flow, row.status) == stage]) for stage in stages]
        return [
            Lease(
                *stage, len(rows), max(row.lease_until or self.now for row in rows), min(row.entered_at for row in rows), self.now
            )
            for stage, rows in parts
        ]

    async def acts(self, before: Place | None = None, limit: int = 100) -> list[Entry]:
        entries = [entry for entries in self.entries.values() for entry in entries if entry.kind in PEOPLES]
        if before is not None:
            entries = [entry for entry in entries if _place(place_of(entry)) < _place(before)]
        entries.sort(key=lambda entry: _place(place_of(entry)), reverse=True)
        return [replace(entry, data=None if entry.data is None else "") for entry in entries[:limit]]

    async def counts(self) -> list[Count]:
        groups: dict[tuple[str, str, Condition, int], list[datetime]] = {}
        for row in map(self.seen, self.rows.values()):
            groups.setdefault((row.flow, row.status, row.condition, row.data_version), []).append(row.entered_at)
        return [Count(*key[:3], len(groups[key]), min(groups[key]), key[3]) for key in sorted(groups)]

    async def history(self, id: str, after: int = -1, limit: int = 1_000) -> list[Entry]:
        return [entry for entry in self.entries.get(id, []) if entry.version > after][:limit]

    async def data_at(self, id: str, version: int) -> Kept | None:
        entries = self.entries.get(id, [])
        if version not in {entry.version for entry in entries}:
            return None
        return [Kept(e.data, e.data_version) for e in entries if e.version <= version and e.data is not None][-1]

    async def walk(self, after: str, limit: int) -> list[Record]:
        found: list[Record] = []
        rows = sorted(map(self.seen, self.rows.values()), key=lambda row: row.id.encode())
        for row in [row for row in rows if row.id.encode() > after.encode()][:limit]:
            found.append(replace(row, data="") if row.condition in OVER else row)
            if sum(len(one.data) for one in found) > WALK_CHARS:
                break
        return found

    # -- a commit ---------------------------------------------------------------------------------------------

    def _write(
        self, row: Record, change: Change, actor: str, reason: str | None, *, owner: str | None, data_version: int
    ) -> None:
        """Row and history as one, or StoreError where nobody would ever take the row again, or nobody should have it."""
        if (change.due_after is None) != (change.condition in RESTING) or (change.due_after is None and owner is not None):
            raise StoreError("")
        losses = row.losses if change.kind == "saved" else 0
        new = self._after(
            row, change, losses=losses, data=row.data if change.data is None else change.data,
            data_version=row.data_version if change.data is None else data_version,
            owner=owner, lease_until=None if owner is None else row.lease_until,
        )  # fmt: skip
        self.rows[row.id] = new
        same = (new.data, new.data_version) == (row.data, row.data_version)
        self.entries[row.id].append(
            Entry(row.id, new.version, new.updated_at, change.kind, row.status, new.status, new.transition, row.attempt,
                  row.epoch, actor, _microseconds(change.took), reason, None if same else new.data, new.data_version)
        )  # fmt: skip

    def _after(self, row: Record, change: Change, **other: Any) -> Record:
        free = {"owner": None, "lease_until": None}
        return replace(
            row, status=change.status, condition=change.condition, version=row.version + 1, attempt=change.attempt,
            excused=change.excused, polls=change.polls, transition=change.transition, moves=change.moves,
            cancelling=change.cancelling, entered_at=self.now if change.enters else row.entered_at,
            updated_at=max(row.updated_at, self.now), error=change.error,
            due_at=None if change.due_after is None else self.now + change.due_after, **{**free, **other},
        )  # fmt: skip

    def _stands_in_the_history(self, record: Record, change: Change) -> bool:
        for entry in self.entries.get(record.id, []):
            if entry.version == record.version + 1:
                ours = (entry.epoch, entry.actor, entry.to_status, entry.transition, entry.kind, entry.took, entry.reason)
                took = _microseconds(change.took)
                same = ours == (record.epoch, record.owner, change.status, change.transition, change.kind, took, change.reason)
                data = [e.data for e in self.entries[record.id] if e.version <= entry.version and e.data is not None][-1]
                return same and (entry.data is None if change.data is None else data == change.data)
        return False


def _found(text: str, value: str, *, anywhere: bool = False, folded: bool = False) -> bool:
    if folded:
        text, value = (one.translate({n: n + 32 for n in range(65, 91)}) for one in (text, value))
    middle = ".*".join(map(re.escape, pieces(value)))
    pattern = f".*{middle}.*" if anywhere else middle
    return re.fullmatch(pattern, text, re.DOTALL) is not None


def _in_data(record: Record, path: tuple[str, ...]) -> str | None:
    value = json.loads(record.data)
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    if isinstance(value, dict | list):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _condition(record: Record, known: Known | None) -> Condition:
    orphaned = known is not None and not _is_known(record, known) and record.condition not in OVER
    return Condition.ORPHANED if orphaned else record.condition


def _is_known(row: Record, known: Known) -> bool:
    return (row.flow, row.status, row.data_version) in set(known)


def holds(term: Term, record: Record, search: Search) -> bool:
    """What a term means, once more and in plain Python."""
    values = term.values
    match term.qualifier:
        case "is":
            return _condition(record, search.known) in term.conditions
        case "error":
            return record.error is not None and any(_found(record.error, one, anywhere=True, folded=True) for one in values)
        case "":
            in_error = record.error is not None and _found(record.error, values[0], anywhere=True, folded=True)
            return in_error or _found(record.id, values[0] + "*")
        case "data":
            text = _in_data(record, term.path)
            return text is not None and any(_found(text, one) for one in values)
        case "worker":
            return record.owner is not None and any(_found(record.owner, one) for one in values)
        case "status":
            names = [record.status, *(new for flow, old, new in search.renamed if (flow, old) == (record.flow, record.status))]
            return any(_found(name, one) for name in names for one in values)
        case "flow" | "id" as column:
            return any(_found(getattr(record, column), one) for one in values)
        case "attempt" | "version" as column:
            return bool(term.bounds[0] <= getattr(record, column) <= term.bounds[1])
    if term.qualifier == "due":
        return record.due_at is not None and bool(term.bounds[0] <= record.due_at - record.as_of <= term.bounds[1])  # type: ignore[operator]
    since = {"age": record.created_at, "in": record.entered_at, "updated": record.updated_at}[term.qualifier]
    return bool(term.bounds[0] <= record.as_of - since <= term.bounds[1])  # type: ignore[operator]


def _walked(search: Search) -> Callable[[Record], bool] | None:
    """Which rows are in the list that a search goes through a part at a time; None where it is looked at as a whole."""
    asked = [term for term in search.terms if not term.negated]
    begun = [term for term in asked if len(term.values) == 1 and pieces(term.values[0])[0]]
    conditions = [term.conditions for term in asked if term.qualifier == "is"]
    if any(term.qualifier == "id" and (term in begun or all(map(is_exact, term.values))) for term in asked):
        return None
    if any(term.qualifier == "worker" for term in asked) or {Condition.RUNNING} in conditions:
        return None
    if any(one <= {Condition.FAILED, Condition.PAUSED} for one in conditions):
        return lambda row: row.condition in (Condition.FAILED, Condition.PAUSED)
    if any(term.qualifier == "error" for term in asked):
        return lambda row: row.error is not None
    return None if any(term.qualifier == "" for term in begun) else lambda row: True


def place_of(entry: Entry) -> Place:
    return entry.at, entry.process_id, entry.version


def _place(place: Place) -> tuple[datetime, bytes, int]:
    """As it is ordered: texts by their bytes."""
    return place[0], place[1].encode(), place[2]


def is_suspect(row: Record) -> bool:
    """Two workers were lost with it, one after the other."""
    return row.owner is not None and row.losses >= 1


def _since(row: Record) -> datetime | None:
    """When it can be claimed: by its timer, and when nobody's lease is on it."""
    return None if row.due_at is None else max(row.due_at, row.lease_until or row.due_at)


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else int(seconds * 1e6) / 1e6
