"""What every SQL store writes for a commit and tells of it: a transition as one row of parameters, on its way to its verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from contextvars import Context
from datetime import datetime, timedelta
from typing import Any

from onward.decide import Change
from onward.errors import Conflict, Fenced, NotFound, OnwardError
from onward.process import Record

MICROSECOND = timedelta(microseconds=1)


class Write:
    """Something on its way into the database: `await` it. It has landed once the database reported the commit, or refused it:
    `error`, which the await raises.

    To asyncio it is a future, and one that cannot be cancelled: whoever is cancelled meanwhile learns so after the verdict.
    Other futures have the loop call each task that waits for them; a thousand of those calls cost a third of what a thousand
    transitions do, so `land` goes on with the tasks itself.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_go_on", "error", "landed")

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.landed = self._asyncio_future_blocking = False
        self._go_on: Callable[[Write], object] | None = None

    def __await__(self) -> Generator[Any, None, None]:
        if not self.landed:
            self._asyncio_future_blocking = True  # what a task asks of a thing that it is to wait for
            yield self
        self.result()

    def land(self) -> None:
        """Goes on with who waits for it. Called by the loop, for no other task may be under way then."""
        self.landed = True
        if self._go_on is not None:
            self._context.run(self._go_on, self)

    # -- what the task that waits for it calls ----------------------------------------------------------------

    get_loop = staticmethod(asyncio.get_running_loop)

    def add_done_callback(self, go_on: Callable[[Write], object], *, context: Context) -> None:
        self._go_on, self._context = go_on, context

    def cancel(self, msg: object = None) -> bool:
        return False

    def result(self) -> None:
        if self.error is not None:
            raise self.error


def land(batch: Iterable[Write]) -> None:
    """Of each in its turn, whatever comes of those before."""
    items = iter(batch)
    try:
        for item in items:
            item.land()
    except BaseException:  # SystemExit or KeyboardInterrupt; a task keeps every other error for itself
        asyncio.get_running_loop().call_soon(land, items)
        raise


class Commit(Write):
    """A transition as parameters; all of a group are written by one statement. `at` is when it was written.

    `own` is the process's own; `shape` is the rest, of which a group has few different ones: it is full of processes that
    take the same step. Both are in the order of the blocks `given` of the .sql files.
    """

    __slots__ = ("at", "id", "own", "shape")

    def __init__(self, record: Record, change: Change, *more: Any) -> None:
        """`more` belongs to the shape."""
        super().__init__()
        pause = change.due_after
        self.id = record.id
        self.own = (
            record.id, record.version, record.epoch, change.data, None if change.took is None else int(change.took * 1e6),
            change.transition, change.moves,
        )  # fmt: skip
        self.shape = (
            change.status, change.condition._value_, change.attempt, change.polls, change.cancelling,
            None if pause is None else pause // MICROSECOND if pause else 0,
            change.enters, change.goes_on, change.error, change.kind, change.reason, change.excused, record.data_version, *more,
        )  # fmt: skip
        self.at: datetime


def oldest_first(record: Record) -> tuple[Any, ...]:
    """The order in which a claim answers: a suspect before all, then who has been due for longest."""
    return record.losses < 2, record.due_at, record.id


def fenced(item: Commit) -> Fenced:
    id, version, epoch = item.own[:3]
    return Fenced(f"{id} is past version {version}, epoch {epoch}: another worker or a person has it now")


def moved_on(seen: Record, found: Record | None = None) -> OnwardError:
    """Why a person's action on what was `seen` was not done; `found` is what is there now."""
    if found is None:
        return NotFound(f"there is no process {seen.id}", hint="what there is: onward ls")
    return Conflict(
        f"{seen.id} has moved on from version {seen.version} to {found.version}, now at {found.status}; nothing was changed",
        hint=f"look again: onward show {seen.id}",
    )


def after(record: Record, change: Change, now: datetime) -> Record:
    """The record as the commit has left it, so that the next stage needs no reading."""
    stays, losses = change.goes_on, record.losses if change.kind == "saved" else 0
    return Record(
        record.id, record.flow, change.status, change.condition, record.data if change.data is None else change.data,
        record.version + 1, record.epoch, change.attempt, change.polls, change.transition, change.moves, change.cancelling,
        now if change.enters else record.entered_at, record.created_at, max(record.updated_at, now),
        None if change.due_after is None else now + change.due_after,
        record.owner if stays else None, record.lease_until if stays else None, change.error, now,
        change.excused, losses, record.data_version, change.process,
    )  # fmt: skip
