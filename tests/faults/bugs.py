"""Bugs that others have shipped, to be planted in a child program: a proof that cannot fail proves nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import onward.heartbeat as heartbeat_module
import onward.store.postgres.store as postgres_module
import onward.store.sqlite.store as sqlite_module
import onward.store.sqlite.turn as turn_module
import onward.worker as worker_module
from onward.decide import Change
from onward.process import Record
from onward.store.postgres.transaction import PostgresTransaction
from onward.store.rows import after
from onward.store.sqlite.writer import Writer
from onward.worker import Worker


def _rewrite(block: str, *, sqlite: tuple[str, str], postgres: tuple[str, str]) -> None:
    for sql, (what, by) in ((sqlite_module.SQL, sqlite), (postgres_module.SQL, postgres)):
        assert what in sql[block], f"{block} has been rewritten: plant this bug anew"
        sql[block] = sql[block].replace(what, by)
    sqlite_module._commit_statement.cache_clear()
    postgres_module._COMMIT_ONE = postgres_module.SQL["commit"].replace(
        postgres_module.SQL["given"], postgres_module.SQL["given one"]
    )


def fence_by_version_only() -> None:
    """A worker that was taken over may commit as long as nobody else has."""
    fence = "AND p.epoch = item.epoch AND p.owner = item.owner", ""
    _rewrite("commit", sqlite=fence, postgres=fence)


def claim_without_a_new_epoch() -> None:
    _rewrite("claim", sqlite=("epoch = epoch + 1,", ""), postgres=("epoch = p.epoch + 1,", ""))


def claim_what_others_have() -> None:
    for block in ("due", "next due"):
        what = "max(due_at, ifnull(lease_until, due_at))"
        assert what in sqlite_module.SQL[block], f"{block} has been rewritten: plant this bug anew"
        sqlite_module.SQL[block] = sqlite_module.SQL[block].replace(what, "due_at")


def release_what_others_have() -> None:
    """A lease is given back though it has become somebody else's."""
    lease = "(id, epoch, owner) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM"
    _rewrite("release", sqlite=(lease, "id IN (SELECT value ->> 0 FROM"), postgres=("USING (id, epoch, owner)", "USING (id)"))


def act_without_a_new_epoch() -> None:
    """Whoever runs it is not fenced: the next version is his."""
    _rewrite("act", sqlite=("epoch = epoch + 1,", ""), postgres=("epoch = p.epoch + 1,", ""))


def act_on_what_nobody_saw() -> None:
    """A lost update: the process has moved on, and is changed as if it had not."""
    _rewrite("act", sqlite=("AND version = :version", ""), postgres=("p.version = $3", "$3::integer IS NOT NULL"))


def tell_before_the_commit() -> None:
    commit, tell = Worker._commit, vars(worker_module)["tell"]

    async def tell_and_commit(self: Worker, record: Record, change: Change) -> Record:
        promised = after(record, change, record.as_of)
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
    close, rollback = vars(turn_module)["close"], PostgresTransaction.rollback

    def commit_and_close(connection: sqlite3.Connection) -> None:
        connection.set_authorizer(None)
        connection.commit()
        close(connection)

    async def commit_and_roll_back(self: PostgresTransaction) -> None:
        if not self._over:
            await self.connection.execute("COMMIT")
        await rollback(self)

    turn_module.close = commit_and_close
    PostgresTransaction.rollback = commit_and_roll_back  # type: ignore[method-assign]


def transition_without_its_transaction() -> None:
    """The transition is committed by itself, without what its handler wrote."""
    stores: list[Any] = []

    async def commit(self: Any, record: Record, change: Change) -> Record:
        await self.rollback()
        change.transaction = None
        after: Record = await stores[-1].commit(record, change)
        return after

    def keep(store: Any) -> None:
        begin = store.begin

        async def begin_and_keep(self: Any, record: Record) -> Any:
            stores.append(self)
            return await begin(self, record)

        store.begin = begin_and_keep

    keep(sqlite_module.SqliteStore)
    keep(postgres_module.PostgresStore)
    turn_module.Turn.commit = commit  # type: ignore[method-assign]
    PostgresTransaction.commit = commit  # type: ignore[method-assign]


def nothing() -> None:
    """The same scenario must be clean without a bug."""


PLANTED: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        fence_by_version_only,
        claim_without_a_new_epoch,
        claim_what_others_have,
        release_what_others_have,
        act_without_a_new_epoch,
        act_on_what_nobody_saw,
        nothing,
        tell_before_the_commit,
        swallow_errors_of_a_group,
        cut_off_by_old_news,
        no_heartbeat,
        keep_what_was_rolled_back,
        transition_without_its_transaction,
    )
}
