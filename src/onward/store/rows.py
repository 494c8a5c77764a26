"""What every SQL store writes for a commit and tells of it: a transition as one row of parameters, on its way to its verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from onward.decide import Change
from onward.errors import Fenced
from onward.process import Record

MICROSECOND = timedelta(microseconds=1)


class Write:
    """Something on its way into the database. It has landed once the database reported the commit, or refused it: `error`."""

    __slots__ = ("error", "future", "landed")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.future: asyncio.Future[None] | None = None
        self.landed = False

    async def land(self, loop: asyncio.AbstractEventLoop) -> None:
        """Returns when it is in the database; raises its error. A caller that is cancelled learns so after the verdict."""
        try:
            assert self.future is not None
            await self.future
        except asyncio.CancelledError:
            while not self.landed:
                self.future = loop.create_future()
                try:
                    await self.future
                except asyncio.CancelledError:
                    continue
            raise
        if self.error is not None:
            raise self.error


def land(batch: Iterable[Write]) -> None:
    for item in batch:
        item.landed = True
        if item.future is not None and not item.future.done():
            item.future.set_result(None)


class Commit(Write):
    """A transition as a row of parameters; all of a group are written by one statement. `at` is when it was written."""

    __slots__ = ("at", "id", "row")

    def __init__(self, row: tuple[Any, ...]) -> None:
        super().__init__()
        self.id: str = row[0]
        self.row = row
        self.at: datetime


def commit_row(record: Record, change: Change) -> tuple[Any, ...]:
    pause = change.due_after
    return (
        record.id, record.version, record.epoch, change.status, change.condition._value_, change.data, change.attempt,
        change.polls, change.transition, change.moves, change.cancelling,
        None if pause is None else pause // MICROSECOND if pause else 0,
        change.enters, change.goes_on, change.error, change.kind,
        None if change.took is None else int(change.took * 1e6), change.reason, change.excused,
    )  # fmt: skip


def oldest_first(record: Record) -> tuple[Any, ...]:
    """The order in which a claim answers: a suspect before all, then who has been due for longest."""
    return record.losses < 2, record.due_at, record.id


def fenced(item: Commit) -> Fenced:
    id, version, epoch = item.row[:3]
    return Fenced(f"{id} is past version {version}, epoch {epoch}: another worker or a person has it now")


def after(record: Record, change: Change, now: datetime) -> Record:
    """The record as the commit has left it, so that the next stage needs no reading."""
    stays, losses = change.goes_on, record.losses if change.kind == "saved" else 0
    return Record(
        record.id, record.flow, change.status, change.condition, record.data if change.data is None else change.data,
        record.version + 1, record.epoch, change.attempt, change.polls, change.transition, change.moves, change.cancelling,
        now if change.enters else record.entered_at, record.created_at, max(record.updated_at, now),
        None if change.due_after is None else now + change.due_after,
        record.owner if stays else None, record.lease_until if stays else None, change.error, now,
        change.excused, losses, change.process,
    )  # fmt: skip
