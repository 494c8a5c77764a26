"""Bugs that others have shipped, to be planted in a program: a proof that cannot fail proves nothing.

Each is a mutant of the engine and the first line of its docstring says what it plants. Nothing of this is in the package:
`plant` replaces functions and statements in the program that calls it, for good; `planted` takes it back at the end.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial, wraps
from typing import Any

import onward.heartbeat as heartbeat_module
import onward.store.postgres.store as postgres_module
import onward.store.sqlite.file as file_module
import onward.store.sqlite.store as sqlite_module
import onward.store.sqlite.turn as turn_module
import onward.store.sqlite.writer as writer_module
import onward.worker as worker_module
from onward.clock import SystemClock
from onward.decide import Change
from onward.errors import Conflict, Fenced, LeaseLost, NotFound, RolledBack, StoreError
from onward.heartbeat import Heartbeat
from onward.ports import Search
from onward.process import Condition, Record
from onward.query import parse
from onward.store.postgres.store import PostgresStore
from onward.store.postgres.transaction import PostgresTransaction
from onward.store.rows import after, oldest_first
from onward.store.sqlite.store import SqliteStore
from onward.store.sqlite.writer import Writer
from onward.worker import Worker

SQLITE, POSTGRES = file_module.SQL, postgres_module.SQL
CLAIMS = {"sqlite": ("claim",), "postgres": ("claim", "claim of")}
STARTED: set[str] = set()  # workers that have claimed, for the one bug that asks whether they have

_undo: list[Callable[[], object]] = []


# -- how to plant -------------------------------------------------------------------------------------------------


def _put(owner: Any, name: str, value: Any) -> None:
    _undo.append(partial(setattr, owner, name, vars(owner)[name]))
    setattr(owner, name, value)


def _put_everywhere(name: str, value: Any, module: Any) -> None:
    """In every module of ours that has fetched it from this one."""
    found = vars(module)[name]
    for other in [one for key, one in sys.modules.items() if key.startswith("onward")]:
        if vars(other).get(name) is found:
            _put(other, name, value)


def _rewrite(sql: dict[str, str], block: str, what: str, by: str) -> None:
    """Wherever it stands in the block, however its lines are broken."""
    text, found = re.subn(r"\s+".join(map(re.escape, what.split())), lambda _: by, sql[block])
    assert found, f"{block} has been rewritten and has no {what!r}: plant this bug anew"
    _undo.append(partial(sql.__setitem__, block, sql[block]))
    sql[block] = text


def _rewrite_claims(*, sqlite: tuple[str, str], postgres: tuple[str, str]) -> None:
    for sql, blocks, (what, by) in ((SQLITE, CLAIMS["sqlite"], sqlite), (POSTGRES, CLAIMS["postgres"], postgres)):
        for block in blocks:
            _rewrite(sql, block, what, by)


def _rewrite_both(block: str, *, sqlite: tuple[str, str], postgres: tuple[str, str]) -> None:
    _rewrite(SQLITE, block, *sqlite)
    _rewrite(POSTGRES, block, *postgres)


def _prepare() -> None:
    """What the stores have made of their statements, made of them as they are now."""
    sqlite_module._commit_statement.cache_clear()
    postgres_module._COMMIT_ONE = POSTGRES["commit"].replace(POSTGRES["given"], POSTGRES["given one"])


def plant(name: str) -> None:
    PLANTED[name]()
    _prepare()


@contextmanager
def planted(name: str) -> Iterator[None]:
    assert not _undo, "another bug is planted in this program"
    try:
        plant(name)
        yield
    finally:
        while _undo:
            _undo.pop()()
        _prepare()
        STARTED.clear()


# -- the fence of a commit ----------------------------------------------------------------------------------------


def _unfence(*columns: str) -> None:
    for column in columns:
        fence = f"p.{column} = item.{column}"
        if column == "owner":  # it may be nobody's now; the history says who wrote
            _rewrite(SQLITE, "commit", "actor = p.owner", "actor = item.owner")
        for sql in (SQLITE, POSTGRES):
            _rewrite(sql, "commit", fence, "true")


def fence_by_version_only() -> None:
    """A commit asks for the version only: who was taken over may write as long as nobody else has."""
    _unfence("epoch", "owner")


def no_fence() -> None:
    """A commit asks for nothing: whoever has ended his handler writes."""
    _unfence("version", "epoch", "owner")


def fence_by_owner_only() -> None:
    """A commit asks for the name of the worker only: of two attempts of one worker both may write."""
    _unfence("version", "epoch")


# -- claims -------------------------------------------------------------------------------------------------------


def claim_without_a_new_epoch() -> None:
    """A claim keeps the epoch: nothing fences who had the process before."""
    _rewrite_claims(sqlite=("epoch = epoch + 1,", ""), postgres=("epoch = p.epoch + 1,", ""))


def epoch_of_the_lease() -> None:
    """The epoch counts the claims of a lease and begins anew when that was given back."""
    _rewrite_claims(
        sqlite=("epoch = epoch + 1,", "epoch = CASE WHEN owner IS NULL THEN 1 ELSE epoch + 1 END,"),
        postgres=("epoch = p.epoch + 1,", "epoch = CASE WHEN p.owner IS NULL THEN 1 ELSE p.epoch + 1 END,"),
    )


def claim_what_others_have() -> None:
    """A claim asks for the due time and for no lease."""
    for block in ("due", "next due"):
        _rewrite(SQLITE, block, "max(due_at, ifnull(lease_until, due_at))", "due_at")


def claim_by_a_list_of_before() -> None:
    """A claim takes by their ids what it found in an earlier transaction, whoever has it by now."""
    claim = SqliteStore.claim

    @wraps(claim)
    async def look_and_claim(self: SqliteStore, known: Any, owner: str, limit: int, lease: Any, *args: Any, **how: Any) -> Any:
        found = await claim(_Looking(self), known, owner, limit, lease, *args, **how)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        ids = json.dumps([record.id for record in found])

        def take(connection: sqlite3.Connection) -> Any:
            now = self._clock.now()
            until = file_module.micros(now + lease)
            connection.execute(SQLITE["claim"], {"ids": ids, "owner": owner, "lease_until": until})
            return sorted(sqlite_module._records(connection, "claimed", now, ids=ids), key=oldest_first)

        return await self._write(take) if found else []

    _put(SqliteStore, "claim", look_and_claim)
    for block in CLAIMS["postgres"]:
        _rewrite(POSTGRES, block, "FOR NO KEY UPDATE SKIP LOCKED", "")


class _Looking:
    """A store that only looks: what it writes it takes back."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def _write(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        def look(connection: sqlite3.Connection) -> Any:
            connection.execute("SAVEPOINT look")
            try:
                return run(connection)
            finally:
                connection.execute("ROLLBACK TO look")
                connection.execute("RELEASE look")

        return await self._store._write(look)


def _never_take_over(sqlite: dict[str, str], postgres: dict[str, str]) -> None:
    for block in ("due", "due suspect", "next due"):
        _rewrite(sqlite, block, "due_at IS NOT NULL", "due_at IS NOT NULL AND lease_until IS NULL")
    _rewrite(sqlite, "due of", "(lease_until IS NULL OR lease_until <= :now)", "lease_until IS NULL")
    for block in CLAIMS["postgres"]:
        _rewrite(postgres, block, "p.claim_at <=", "p.owner IS NULL AND p.claim_at <=")
    _rewrite(postgres, "next due", "p.claim_at IS NOT NULL", "p.claim_at IS NOT NULL AND p.owner IS NULL")


def never_take_over() -> None:
    """What is claimed is never claimed again: a process whose worker died is nobody's for ever."""
    _never_take_over(SQLITE, POSTGRES)


def take_over_at_the_start_only() -> None:
    """Only the first claim in the life of a worker takes over what others have left."""
    whole = dict(SQLITE), dict(POSTGRES)
    _never_take_over(SQLITE, POSTGRES)
    for block in CLAIMS["postgres"]:
        started = f"{block} at the start"
        POSTGRES[started] = whole[1][block]
        postgres_module._TIMED.add(started)
        _undo.extend((partial(POSTGRES.pop, started), partial(postgres_module._TIMED.discard, started)))

    def only_at_the_start(store: Any, starting: Callable[[Any], Any]) -> None:
        claim = store.claim

        @wraps(claim)
        async def claim_and_remember(self: Any, known: Any, owner: str, *args: Any, **how: Any) -> Any:
            has_started = owner in STARTED
            STARTED.add(owner)
            return await claim(self if has_started else starting(self), known, owner, *args, **how)

        _put(store, "claim", claim_and_remember)

    only_at_the_start(SqliteStore, partial(_Starting, whole[0]))
    only_at_the_start(PostgresStore, _StartingPostgres)


class _Starting(_Looking):
    """A store whose claims are as they were."""

    def __init__(self, blocks: dict[str, str], store: Any) -> None:
        super().__init__(store)
        self._blocks = blocks

    async def _write(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        def run_as_it_was(connection: sqlite3.Connection) -> Any:
            now = {block: SQLITE[block] for block in ("due", "due suspect", "due of")}
            SQLITE.update({block: self._blocks[block] for block in now})
            try:
                return run(connection)
            finally:
                SQLITE.update(now)

        return await self._store._write(run_as_it_was)


class _StartingPostgres(_Looking):
    async def _write(self, block: str, *values: Any) -> Any:  # type: ignore[override]
        return await self._store._write(f"{block} at the start", *values)


def count_attempts_when_they_fail() -> None:
    """An attempt is counted with its outcome and not with its claim: one that never reports is not counted."""
    _rewrite_claims(sqlite=("attempt = attempt + 1,", ""), postgres=("attempt = p.attempt + 1,", ""))

    def uncounted(store: Any) -> None:
        claim = store.claim

        @wraps(claim)
        async def claim_and_number(self: Any, *args: Any, **how: Any) -> list[Record]:
            return [replace(record, attempt=record.attempt + 1) for record in await claim(self, *args, **how)]

        _put(store, "claim", claim_and_number)

    uncounted(SqliteStore)
    uncounted(PostgresStore)


def claim_what_newer_code_wrote() -> None:
    """A status that the code at hand knows is claimed, whatever the version of the data that stand there."""
    all_three = "(flow, status, data_version) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM"
    for block in ("due", "due suspect", "due of", "next due"):
        _rewrite(SQLITE, block, all_three, "(flow, status) IN (SELECT value ->> 0, value ->> 1 FROM")
    for block in ("claim", "claim of", "next due"):
        _rewrite(
            POSTGRES,
            block,
            "? (p.data_version || ' ' || p.status)",
            "?| ARRAY(SELECT v || ' ' || p.status FROM generate_series(1, 100) v)",
        )


def fail_what_is_unknown() -> None:
    """What the code at hand does not know is failed, in place of being left alone."""

    def failing(store: Any) -> None:
        claim = store.claim

        @wraps(claim)
        async def fail_and_claim(self: Any, known: Any, owner: str, *args: Any, **how: Any) -> list[Record]:
            for record in await self.find(Search(parse("is:orphaned"), known=known, limit=10)):
                so_far = record.attempt, record.polls, record.transition, record.moves, record.cancelling
                change = Change("failed", record.status, Condition.FAILED, None, *so_far, error="unknown status")
                try:
                    await self.act(record, change, owner, None)
                except (Conflict, NotFound):
                    continue
            claimed: list[Record] = await claim(self, known, owner, *args, **how)
            return claimed

        _put(store, "claim", fail_and_claim)

    failing(SqliteStore)
    failing(PostgresStore)


# -- leases -------------------------------------------------------------------------------------------------------


def release_what_others_have() -> None:
    """A lease is given back though it has become somebody else's."""
    lease = "(id, epoch, owner) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM"
    by_id = lease, "id IN (SELECT value ->> 0 FROM"
    _rewrite_both("release", sqlite=by_id, postgres=("USING (id, epoch, owner)", "USING (id)"))


def renew_what_others_have() -> None:
    """A heartbeat prolongs a lease though it has become somebody else's."""
    _rewrite(SQLITE, "renew", "(id, epoch) IN (SELECT value ->> 0, value ->> 1 FROM", "id IN (SELECT value ->> 0 FROM")
    _rewrite(SQLITE, "renew", "owner = :owner", "owner IS NOT NULL AND :owner <> ''")
    _rewrite(POSTGRES, "renew", "USING (id, epoch)", "USING (id)")
    _rewrite(POSTGRES, "renew", "p.owner = $4", "p.owner IS NOT NULL AND $4::text <> ''")


def cut_off_by_old_news() -> None:
    """The heartbeat says that an epoch is lost, and the worker cuts off what it has claimed anew meanwhile."""

    def cut_off(self: Worker, epochs: Mapping[str, int]) -> None:
        for id in epochs:
            if id in self._held:
                self._held[id].task.cancel()

    _put(Worker, "_lost", cut_off)


def no_heartbeat() -> None:
    """No lease is renewed in time."""
    _put(heartbeat_module, "BEATS_PER_LEASE", 0.001)
    _put(heartbeat_module, "TRUST", 1_000)


def beat_in_the_loop() -> None:
    """The heartbeat is a task of the event loop, and stands still with it."""

    def begin(self: Heartbeat) -> Heartbeat:
        self._loop = asyncio.get_running_loop()

        async def beat() -> None:
            while not self._over.is_set():
                await asyncio.sleep(self._lease.total_seconds() / heartbeat_module.BEATS_PER_LEASE)
                await asyncio.to_thread(self.renew)

        self._beating = self._loop.create_task(beat())  # type: ignore[attr-defined]
        return self

    def end(self: Heartbeat, *_: object) -> None:
        self._over.set()
        self._beating.cancel()  # type: ignore[attr-defined]

    _put(Heartbeat, "__enter__", begin)
    _put(Heartbeat, "__exit__", end)


def expiry_by_the_workers_clock() -> None:
    """On PostgreSQL the clock of each worker says when a lease is over, and not the database's."""
    clock = SystemClock()
    _put(PostgresStore, "_now", lambda self: self._clock.now() if self._clock is not None else clock.now())


# -- what people do -----------------------------------------------------------------------------------------------


def act_without_a_new_epoch() -> None:
    """A person's action keeps the epoch: whoever runs the process is not told that it was taken away."""
    _rewrite_both("act", sqlite=("epoch = epoch + 1,", ""), postgres=("epoch = p.epoch + 1,", ""))


def act_on_what_nobody_saw() -> None:
    """A lost update: the process has moved on, and is changed as if it had not."""
    _rewrite_both("act", sqlite=("AND version = :version", ""), postgres=("p.version = $3", "$3::integer IS NOT NULL"))


# -- the verdict of a commit --------------------------------------------------------------------------------------


def tell_before_the_commit() -> None:
    """Observers are told of a transition before it is durable."""
    commit, tell = Worker._commit, vars(worker_module)["tell"]

    async def tell_and_commit(self: Worker, record: Record, change: Change) -> Record:
        promised = after(record, change, record.as_of)
        tell(self._observers, record, change, promised)
        return await commit(self, record, change)

    _put(Worker, "_commit", tell_and_commit)
    _put(worker_module, "tell", lambda *_: None)


def write_again_what_may_be_written() -> None:
    """After an error a commit is written to the version that stands there by then, though it may stand there already."""

    async def commit_again(self: Worker, record: Record, change: Change) -> Record:
        fresh: Record | None = record
        while True:
            try:
                done = await self._store.commit(fresh or record, change)
                break
            except (Fenced, RolledBack):
                raise
            except StoreError:
                if self._over:
                    raise LeaseLost(f"{record.id}: its worker is over") from None
                await asyncio.sleep(0.05)
                fresh = await self._store.get(record.id)
                if fresh is not None:
                    fresh = replace(record, version=fresh.version, epoch=fresh.epoch, owner=fresh.owner)
        worker_module.tell(self._observers, record, change, done)  # type: ignore[attr-defined]
        return done

    _put(Worker, "_commit", commit_again)


def swallow_errors_of_a_group() -> None:
    """An error in a group of commits is caught, and each of them is told that it is done."""
    together = Writer._write_together

    def write_and_shrug(self: Writer, connection: sqlite3.Connection, batch: list[Any]) -> None:
        try:
            together(self, connection, batch)
        except sqlite3.Error:
            for item in batch:
                item.error = None
                item.at = datetime.now(UTC)

    _put(Writer, "_write_together", write_and_shrug)


def flush_now_and_then() -> None:
    """SQLite flushes at a checkpoint and not with each commit (synchronous=NORMAL)."""
    connect = vars(file_module)["connect"]

    @wraps(connect)
    def connect_and_relax(*args: Any, **more: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **more)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    _put_everywhere("connect", connect_and_relax, file_module)


def begin_deferred() -> None:
    """A transaction that looks first and then writes asks for the write lock only when it writes (BEGIN)."""

    @contextmanager
    def transaction(connection: sqlite3.Connection) -> Iterator[None]:
        connection.execute("BEGIN")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    _put_everywhere("transaction", transaction, writer_module)


# -- a handler's own transaction ----------------------------------------------------------------------------------


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

    _put_everywhere("close", commit_and_close, turn_module)
    _put(PostgresTransaction, "rollback", commit_and_roll_back)


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

        _put(store, "begin", begin_and_keep)

    keep(SqliteStore)
    keep(PostgresStore)
    _put(turn_module.Turn, "commit", commit)
    _put(PostgresTransaction, "commit", commit)


def nothing() -> None:
    """Nothing: the same scenario must be clean without a bug."""


TWENTY: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        # the wrong designs of a lease
        fence_by_version_only,
        no_fence,
        fence_by_owner_only,
        epoch_of_the_lease,
        claim_by_a_list_of_before,
        renew_what_others_have,
        release_what_others_have,
        write_again_what_may_be_written,
        act_on_what_nobody_saw,
        never_take_over,
        take_over_at_the_start_only,
        # what else goes wrong in engines
        tell_before_the_commit,
        swallow_errors_of_a_group,
        flush_now_and_then,
        begin_deferred,
        beat_in_the_loop,
        expiry_by_the_workers_clock,
        count_attempts_when_they_fail,
        fail_what_is_unknown,
        act_without_a_new_epoch,
    )
}
MORE: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        claim_without_a_new_epoch,
        claim_what_newer_code_wrote,
        claim_what_others_have,
        cut_off_by_old_news,
        no_heartbeat,
        keep_what_was_rolled_back,
        transition_without_its_transaction,
    )
}
PLANTED: dict[str, Callable[[], None]] = {**TWENTY, **MORE, "nothing": nothing}
