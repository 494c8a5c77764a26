"""Bugs that others have shipped, to be planted in a child program: a proof that cannot fail proves nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import onward.heartbeat as heartbeat_module
import onward.store.sqlite as sqlite_module
import onward.store.turn as turn_module
import onward.worker as worker_module
from onward.decide import Change
from onward.process import Record
from onward.store.writer import Writer
from onward.worker import Worker


def _rewrite(block: str, what: str, by: str) -> None:
    assert what in sqlite_module.SQL[block], f"{block} has been rewritten: plant this bug anew"
    sqlite_module.SQL[block] = sqlite_module.SQL[block].replace(what, by)
    sqlite_module._commit_statement.cache_clear()


def fence_by_version_only() -> None:
    """A worker that was taken over may commit as long as nobody else has."""
    _rewrite("commit", "AND p.epoch = item.epoch", "")


def claim_without_a_new_epoch() -> None:
    _rewrite("claim", "epoch = epoch + 1,", "")


def claim_what_others_have() -> None:
    for block in ("due", "next due"):
        _rewrite(block, "max(due_at, ifnull(lease_until, due_at))", "due_at")


def tell_before_the_commit() -> None:
    commit, tell = Worker._commit, vars(worker_module)["tell"]

    async def tell_and_commit(self: Worker, record: Record, change: Change) -> Record:
        promised = sqlite_module.after(record, change, record.as_of)
        tell(self._observers, record, change, promised)
        return await commit(self, record, change)

    Worker._commit = tell_and_commit  # type: ignore[method-assign]
    worker_module.tell = lambda *_: None  # type: ignore[attr-defined]


def swallow_errors_of_a_group() -> None:
    together = Writer._write_together

    def write_and_shrug(self: Writer, connection: sqlite3.Connection, batch: list[Any]) -> None:
        try:
            together(self, connection, batch)
        except sqlite3.Error:
            for item in batch:
                item.error = None
                item.at = datetime.now(UTC)

    Writer._write_together = write_and_shrug  # type: ignore[method-assign]


def cut_off_by_old_news() -> None:
    """The heartbeat says that an epoch is lost, and the worker has claimed the row anew meanwhile."""

    def cut_off(self: Worker, epochs: Mapping[str, int]) -> None:
        for id in epochs:
            if id in self._held:
                self._held[id].task.cancel()

    Worker._lost = cut_off  # type: ignore[method-assign]


def no_heartbeat() -> None:
    heartbeat_module.BEATS_PER_LEASE = 0.001  # type: ignore[assignment]
    heartbeat_module.TRUST = 1_000


def keep_what_was_rolled_back() -> None:
    """What a failed handler wrote in its transaction stays."""
    close = vars(turn_module)["_close"]

    def commit_and_close(connection: sqlite3.Connection) -> None:
        connection.set_authorizer(None)
        connection.commit()
        close(connection)

    turn_module._close = commit_and_close


def transition_without_its_transaction() -> None:
    """The transition is committed by itself, after what its handler wrote."""

    async def commit(self: turn_module.Turn, record: Record, change: Change) -> Record:
        await self.rollback()
        change.transaction = None
        return await STORES[-1].commit(record, change)

    begin = sqlite_module.SqliteStore.begin

    async def begin_and_keep(self: sqlite_module.SqliteStore, record: Record) -> turn_module.Turn:
        STORES.append(self)
        return await begin(self, record)

    STORES: list[sqlite_module.SqliteStore] = []
    turn_module.Turn.commit = commit  # type: ignore[method-assign]
    sqlite_module.SqliteStore.begin = begin_and_keep  # type: ignore[method-assign]


def nothing() -> None:
    """The same scenario must be clean without a bug."""


PLANTED: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        fence_by_version_only,
        claim_without_a_new_epoch,
        claim_what_others_have,
        nothing,
        tell_before_the_commit,
        swallow_errors_of_a_group,
        cut_off_by_old_news,
        no_heartbeat,
        keep_what_was_rolled_back,
        transition_without_its_transaction,
    )
}
