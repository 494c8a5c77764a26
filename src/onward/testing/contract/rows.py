"""Rows and changes for the tests of a store, without a flow and without a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from onward.decide import NOW, Change
from onward.errors import StoreError
from onward.ports import NewProcess, Search, Store
from onward.process import Condition, Entry, Record
from onward.query import parse
from onward.testing.clock import ManualClock

KNOWN = [("parcel", "packed", 1), ("parcel", "sent", 1)]  # what "our code" can move; the third status, done, is the end
LEASE, SECOND = timedelta(seconds=30), timedelta(seconds=1)
FOREIGN_ROWS = 20_000  # rows of code that nobody here knows
NOTICED_S = 1.0  # the promise is 100 ms; a busy machine may take longer
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class User(Protocol):
    """Who keeps rows of his own in the database of the store: notes, each of them different."""

    async def note(self, connection: Any, text: str) -> None:
        """Writes one, through the connection of a handler's transaction or through his own."""

    async def notes(self) -> set[str]:
        """What is committed of them. Asked only while no transaction is open."""

    def connected(self, *, commit: bool) -> AbstractAsyncContextManager[Any]:
        """A connection of his own, in a transaction that is committed or rolled back at the end of the block."""


def new(id: str, data: str = '{"n": 0}', flow: str = "parcel", status: str = "packed") -> NewProcess:
    return NewProcess(id, flow, status, data)


def change(record: Record, kind: str, condition: Condition, after: timedelta | None, **fields: Any) -> Change:
    """A change that keeps everything of `record` but what is named."""
    kept = Change(
        kind, record.status, condition, after, record.attempt, record.polls, record.transition, record.moves, record.cancelling
    )
    return replace(kept, **{"excused": record.excused, **fields})


def moved(record: Record, data: str | None = None, **fields: Any) -> Change:
    step = {"status": "sent", "transition": record.transition + 1, "moves": record.moves + 1, "attempt": 1, "excused": 0}
    return change(record, "moved", Condition.READY, NOW, **{**step, "data": data, "enters": True, "goes_on": True, **fields})


def not_yet(record: Record, after: timedelta = SECOND, **fields: Any) -> Change:
    return change(record, "not yet", Condition.WAITING, after, excused=record.attempt, polls=record.polls + 1, **fields)


def failed(record: Record, error: str = "no stamps") -> Change:
    return change(record, "failed", Condition.FAILED, None, error=error, reason=error)


def finished(record: Record) -> Change:
    step = {"status": "done", "transition": record.transition + 1, "attempt": 0, "excused": 0}
    return change(record, "moved", Condition.FINISHED, None, **step, enters=True)


def resumed(record: Record) -> Change:
    return change(record, "resumed", Condition.READY, NOW)


def paused(record: Record) -> Change:
    return change(record, "paused", Condition.PAUSED, None)


async def claimed(store: Store, *ids: str, owner: str = "worker-a", data: str = '{"n": 0}') -> list[Record]:
    """New processes, already in the hands of `owner`, in the order of `ids`."""
    await store.insert([new(id, data) for id in ids], "ann")
    records = {record.id: record for record in await store.claim(KNOWN, owner, len(ids), LEASE, ids)}
    return [records[id] for id in ids]


SCENE = ["new", "held", "late", "bad%", "bad_", "done", "old"]  # newest first


async def scene(store: Store, clock: ManualClock) -> None:
    """One process in each situation, started a few seconds apart."""
    data = {
        "old": '{"n": 1.5, "deep": {"list": ["y", {"é": "x"}]}}', "done": '{"b": null}', "bad_": '{"t": "a \\"b\\" 100%"}',
        "bad%": '{"t": "Q3"}', "late": '{"b": false}', "held": '{"b": true}', "new": '{"n": 1, "deep": {"0": "named"}}',
    }  # fmt: skip
    for id in reversed(SCENE):
        clock.advance(5)
        await store.insert([new(id, data[id], flow="letter" if id == "old" else "parcel")], "ann")
    ends: dict[str, Callable[[Record], Change]] = {
        "done": finished,
        "bad_": lambda record: failed(record, "100% of C:\\dir is full"),
        "bad%": lambda record: failed(record, "No stamps\nare left"),
        "late": lambda record: change(record, "retry", Condition.RETRYING, 5 * SECOND, error="no STAMPS yet"),
    }
    for id, end in ends.items():
        [record] = await store.claim(KNOWN, "worker-b", 1, LEASE, [id])
        await store.commit(record, end(record))
    await store.claim(KNOWN, "worker-a", 1, LEASE, ["held"])


def asked(query: str, **more: Any) -> Search:
    return Search(parse(query), **more)


async def verdict(write: Awaitable[Record]) -> Record | StoreError:
    try:
        return await write
    except StoreError as error:
        return error


def bare(record: Record, **other: Any) -> Record:
    """The record without what depends on the moment of reading it, and with these `other` values."""
    return replace(record, as_of=_NEVER, process=None, **other)


async def trace(store: Store, id: str) -> tuple[Record, list[Entry]]:
    """All that is kept of a process, to compare with what is kept later."""
    record = await store.get(id)
    assert record is not None
    return bare(record), await store.history(id)


async def agree(store: Store, id: str) -> Record:
    """Checks that row and history say the same, whoever wrote last; answers the row."""
    record, entries = await store.get(id), await store.history(id)
    assert record is not None
    assert [entry.version for entry in entries] == list(range(record.version + 1)), "a gap, or a version written twice"
    last, data = entries[-1], None
    assert (record.status, record.transition, record.updated_at) == (last.to_status, last.transition, last.at)
    assert [entry.from_status for entry in entries] == [None, *(entry.to_status for entry in entries[:-1])]
    for entry in entries:
        data = entry.data if entry.data is not None else data
        assert await store.data_at(id, entry.version) == (data, entry.data_version)
    assert (record.data, record.data_version) == (data, last.data_version)
    for ascending in ([e.at for e in entries], [e.epoch for e in entries], [e.transition for e in entries]):
        assert ascending == sorted(ascending)
    assert last.epoch <= record.epoch
    return record
