"""The PostgreSQL store: every verb of `ports.Store` on one database, which any number of workers share."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import asyncpg

from onward.decide import Change
from onward.errors import Fenced, StoreError
from onward.ports import Clock, Count, Kept, Known, Lease, NewProcess, Place, Search
from onward.process import Condition, Entry, Record
from onward.store import guest
from onward.store.fork import not_open, pid
from onward.store.postgres import looking
from onward.store.postgres.batches import IN_THE_AIR_MAX, Batches
from onward.store.postgres.looking import known_json
from onward.store.postgres.news import News
from onward.store.postgres.pool import Pool
from onward.store.postgres.renewer import Renewer
from onward.store.postgres.savepoint import Connection
from onward.store.postgres.session import ANSWER_S, SEARCH_S, TROUBLE, Address, is_about_values, state_of, store_error
from onward.store.postgres.transaction import PostgresTransaction
from onward.store.rows import Commit, after, fenced, moved_on, oldest_first
from onward.store.schema import migrations, refuse_other_schema
from onward.store.sql import load
from onward.store.urls import upgrade_command

T = TypeVar("T")
logger = logging.getLogger("onward")

CONNECTIONS_MAX = 8  # of one store; beside them one listens and one renews leases
TRANSACTIONS_MAX = 8  # of handlers, at once; each has a connection of its own
RENEW_TRIES, RENEW_PAUSE_S = 10, 0.01  # for leases whose rows are being written at that moment
LOOK_UP_S = 0.2  # between two tries to learn what became of a commit
SEARCHES = frozenset({"counts", "history", "data at"})  # what people ask, of tables that may be large
UNDEFINED_TABLE = "42P01"
LAST = datetime(9999, 1, 1, tzinfo=UTC)

SQL = load("postgres.sql")
SCHEMA = migrations(SQL)[-1].number  # the newest that this code knows
_TIMED = {block for block, sql in SQL.items() if SQL["now"] in sql}
_COMMIT_ONE = SQL["commit"].replace(SQL["given"], SQL["given one"])
_COMMITTED_ONE = SQL["committed"].replace(SQL["given"], SQL["given one"])


class PostgresStore:
    """A database. `clock` is for tests: without one the database's own makes every instant."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self._url = url
        address = Address(url)
        self.name, self._dsn, self._told = address.shown, address.dsn, address.notify
        self._session, self._pooled = address.session(), address.pooled
        self._clock = clock
        self._pool: Pool | None = None
        self._pid = 0

    # -- opening and closing ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connects, and checks that the tables are those that this code knows. Raises StoreError."""
        if self._pid == pid():
            raise StoreError(f"{self.name} is open already", hint="one `async with app:` at a time; share the app inside it")
        self._loop = asyncio.get_running_loop()
        self._looking = asyncio.Lock()
        self._batches = Batches(self._send)
        self._tasks: set[asyncio.Task[Any]] = set()
        try:
            self._pool = Pool(self._dsn, CONNECTIONS_MAX, at_hand=IN_THE_AIR_MAX, reset=_as_it_is, **self._session)
            self._transactions = Pool(self._dsn, TRANSACTIONS_MAX, connection_class=Connection, **self._session)
            await self._pool.open()
            await self._transactions.open()
            self._pid = pid()
            await self._check_schema()
        except BaseException as error:
            self._pid = 0
            if self._pool is not None:
                await self._pool.close()
            if isinstance(error, TROUBLE):
                raise self._trouble(error) from error
            raise
        self._news = News(lambda: self._look("news"), self._connect, lambda: self._ask("notify"), told=self._told)
        self._renewer = Renewer(self._connect)

    async def _check_schema(self) -> None:
        [[there]] = await self._ask("schema there")
        found = (await self._ask("schema found"))[0][0] if there else 0
        refuse_other_schema(self._url, found or 0, SCHEMA)
        for (cure,) in await self._ask("forgetful") if self._pooled else ():
            logger.warning(
                "%s: behind this pooler synchronous_commit is off: a crash of the database takes back what was acknowledged. %s;"
                " then let the pooler make new sessions",
                self.name,
                cure,
            )

    async def close(self) -> None:
        """Waits for what is being written. May be called twice."""
        if self._pid != pid():
            return
        await self._batches.close()
        self._pid = 0  # what comes while it closes is refused, not forgotten
        await self._news.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._pool is not None
        await asyncio.gather(self._pool.close(), self._transactions.close())
        await self._loop.run_in_executor(None, self._renewer.close)  # its loop cannot run beside this one

    def _check_usable(self) -> None:
        if self._pid != pid():
            raise not_open(self.name, self._pid)

    async def wait_for_change(self, timeout: float) -> None:
        await self._news.wait(timeout)

    # -- asking -----------------------------------------------------------------------------------------------

    def _now(self) -> datetime | None:
        return None if self._clock is None else self._clock.now()

    def _connection(self, block: str) -> AbstractAsyncContextManager[Any]:
        assert self._pool is not None
        return self._pool.session(SEARCH_S if block in SEARCHES else ANSWER_S)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A session beside the pool's."""
        return await asyncpg.connect(self._dsn, **self._session)

    async def _ask(self, block: str, *values: Any) -> list[Any]:
        """The rows that a statement answers, whatever it does. Who is cancelled waits for it first, see `_write`."""
        self._check_usable()
        try:
            async with self._connection(block) as connection:
                rows: list[Any] = await connection.fetch(SQL[block], *self._with_clock(block, values))
                return rows
        except TROUBLE as error:
            raise self._trouble(error) from error

    def _with_clock(self, block: str, values: Sequence[Any]) -> Sequence[Any]:
        return (self._now(), *values) if block in _TIMED else values

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self, block: str, *values: Any) -> list[Any]:
        return await self._undisturbed(self._ask(block, *values))

    async def _look(self, block: str, *values: Any) -> list[Any]:
        """Like `_read`, and never before one that was asked earlier: what changed in between is news to one of them."""

        async def in_turn() -> list[Any]:
            async with self._looking:
                return await self._ask(block, *values)

        return await self._undisturbed(in_turn())

    async def _search(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        async def search() -> T:
            assert self._pool is not None
            try:
                async with self._pool.session(SEARCH_S) as session, looking.planned(session):
                    return await ask(session)
            except TROUBLE as error:
                raise self._trouble(error) from error

        return await self._undisturbed(search())

    async def _undisturbed(self, work: Coroutine[Any, Any, T]) -> T:
        """A caller that is cancelled goes at once; its question goes on, so that the connection is not lost for it."""
        try:
            self._check_usable()
        except StoreError:
            work.close()
            raise
        task = self._begin(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_forget)
            raise

    async def _write(self, block: str, *values: Any) -> list[Any]:
        """A caller that is cancelled learns so after the verdict."""
        self._check_usable()
        task = self._begin(self._ask(block, *values))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            _forget(task)
            raise

    def _trouble(self, error: BaseException) -> StoreError:
        return store_error(self.name, error)

    # -- the verbs of a worker --------------------------------------------------------------------------------

    async def claim(
        self, known: Known, owner: str, limit: int, lease: timedelta, ids: Collection[str] = (), *, suspect: bool = True
    ) -> list[Record]:
        what = (known_json(known), owner, lease, limit)
        rows = await (self._write("claim of", *what, list(ids)) if ids else self._write("claim", *what, min(limit, suspect)))
        return sorted(map(_record, rows), key=oldest_first)

    async def commit(self, record: Record, change: Change) -> Record:
        self._check_usable()
        if change.transaction is not None:
            written: Record = await change.transaction.commit(record, change)
            self._news.tell()
            return written
        item = Commit(record, change, record.was or record.status, record.attempt, record.owner)
        await self._batches.add(item)
        return after(record, change, item.at)

    async def _send(self, batch: list[Commit]) -> None:
        """Each item's verdict. Of trouble with the database nobody knows what it did: whoever tries again is told."""
        try:
            await self._commit(batch)
        except Exception as error:
            if len(batch) == 1 or not is_about_values(error):
                for item in batch:
                    item.error = self._trouble(error)
                return
            for item in batch:  # one of them is at fault, and none suffers for another
                await self._send([item])
        self._news.tell()

    async def _commit(self, batch: list[Commit]) -> None:
        written = await self._ask_of("commit", batch)
        missing = [item for item in batch if item.id not in written]
        if missing:  # fenced, or written before by a statement whose answer was lost
            written |= await self._ask_of("committed", missing)
        for item in batch:
            item.error = None if item.id in written else fenced(item)

    async def _ask_of(self, block: str, batch: list[Commit]) -> set[str]:
        if len(batch) == 1:
            sql, values = _COMMIT_ONE if block == "commit" else _COMMITTED_ONE, (*batch[0].own, *batch[0].shape)
        else:
            sql, values = SQL[block], _arrays(batch)
        async with self._connection(block) as connection:
            # Not `fetchrow`: it stops at the first row, and is not told that the statement was done.
            [[now, ids]] = await connection.fetch(sql, self._now(), *values)
        for item in batch:
            item.at = now
        return set(ids or ())

    async def begin(self, record: Record) -> PostgresTransaction:
        self._check_usable()
        transaction = PostgresTransaction(self._transactions, _COMMIT_ONE, self._now, self._was_committed, self._works)
        try:
            await transaction.begin()
        except TROUBLE as error:
            raise self._trouble(error) from error
        return transaction

    async def _works(self, pid: int) -> bool:
        """Whether the server is at work for that session. A pooler keeps to itself which one it is."""
        return self._pooled or bool(await self._ask("at work", pid))

    async def _was_committed(self, item: Commit) -> bool:
        """Asks until it is told, or the store is closed."""
        while True:
            self._check_usable()
            try:
                return bool(await self._ask_of("committed", [item]))
            except TROUBLE as error:
                logger.warning("%s: whether it was committed cannot be looked up yet: %s", item.id, error)
                await asyncio.sleep(LOOK_UP_S)

    def renew(self, owner: str, held: Mapping[str, int], lease: timedelta) -> set[str]:
        self._check_usable()
        try:
            return self._renewer.run(lambda connection: self._renew(connection, owner, held, lease))
        except TROUBLE as error:
            raise self._trouble(error) from error

    async def _renew(
        self, connection: asyncpg.Connection[asyncpg.Record], owner: str, held: Mapping[str, int], lease: timedelta
    ) -> set[str]:
        left = dict(held)
        async with asyncio.timeout(min(lease.total_seconds() / 2, ANSWER_S)):
            for again in range(RENEW_TRIES):
                if again:
                    await asyncio.sleep(RENEW_PAUSE_S)
                ours = list(left), list(left.values())
                for row in await connection.fetch(SQL["renew"], self._now(), *ours, owner, lease):
                    del left[row[0]]
                lost = {row[0] for row in await connection.fetch(SQL["taken away"], list(held), list(held.values()))}
                if left.keys() <= lost:
                    break
        return lost

    async def release(self, records: Sequence[Record], *, begun: bool) -> None:
        await self._write("release", [r.id for r in records], [r.epoch for r in records], [r.owner for r in records], begun)
        self._news.tell(at_once=True)

    async def release_all_but(self, owner: str, ids: Collection[str], lease: timedelta) -> None:
        await self._write("release all but", owner, list(ids), lease)
        self._news.tell()

    async def record_step(self, record: Record, name: str, result: str) -> None:
        if await self._write("step", record.id, record.epoch, record.owner, record.transition, name, result):
            return
        # No row: fenced, or recorded before by a write whose answer was lost.
        found, recorded = await self.get(record.id), await self.steps(record.id, record.transition)
        if found is None or (found.epoch, found.owner) != (record.epoch, record.owner) or recorded.get(name) != result:
            raise Fenced(f"{record.id} is past epoch {record.epoch}; sub-step {name!r} was not recorded")

    async def steps(self, id: str, transition: int) -> dict[str, str]:
        return dict(map(tuple, await self._read("steps", id, transition)))

    async def next_due(self, known: Known) -> timedelta | None:
        rows = await self._look("next due", known_json(known))
        return rows[0][0] if rows else None

    async def taken_away(self, held: Mapping[str, int]) -> set[str]:
        return {row[0] for row in await self._look("taken away", list(held), list(held.values()))}

    # -- the verbs of a person --------------------------------------------------------------------------------

    async def insert(self, processes: Sequence[NewProcess], actor: str, connection: Any = None) -> list[bool]:
        if not processes:
            return []
        rows_of = ((p.id, p.flow, p.status, p.data, p.kind, p.reason, p.data_version, _bucket(p.id)) for p in processes)
        columns = zip(*rows_of, strict=True)
        values = (*map(list, columns), actor)
        if connection is not None:
            rows = await self._through(connection, "insert", *values)
        else:
            rows = await self._write("insert", *values)
            self._news.tell(at_once=True)
        fresh = {row[0] for row in rows}
        verdicts = []
        for process in processes:  # of an id given twice the first one made it
            verdicts.append(process.id in fresh)
            fresh.discard(process.id)
        return verdicts

    async def _through(self, connection: Any, block: str, *values: Any) -> list[Any]:
        """The rows of a statement on a connection of the caller's, in his transaction."""
        try:
            rows = await guest.Postgres(connection).fetch(SQL[block], *self._with_clock(block, values))
            return [tuple(map(_in_utc, row)) for row in rows]
        except Exception as error:
            if state_of(error) == UNDEFINED_TABLE:
                without = f"the connection is to a database without Onward's tables: {error}"
                raise StoreError(without, hint=upgrade_command(self._url)) from error
            raise

    async def act(self, record: Record, change: Change, actor: str, reason: str | None) -> Record:
        rows = await self._write("act", record.id, record.version, actor, reason, *_act_values(change), record.data_version)
        if rows:
            self._news.tell(at_once=True)
            return _record(rows[0])
        raise moved_on(record, await self.get(record.id))

    async def delete(self, record: Record, actor: str, reason: str | None) -> None:
        if not await self._write("delete", record.id, record.version, actor, reason):
            raise moved_on(record, await self.get(record.id))
        self._news.tell(at_once=True)

    async def get(self, id: str, connection: Any = None) -> Record | None:
        rows = await (self._look("get", id) if connection is None else self._through(connection, "get", id))
        return _record(rows[0]) if rows else None

    async def find(self, search: Search) -> list[Record]:
        return [_record(row) for row in await self._search(lambda c: looking.find(c, search, self._now()))]

    async def past(self, search: Search) -> str:
        return await self._search(lambda c: looking.past(c, search, self._now()))

    async def counts(self) -> list[Count]:
        return [Count(flow, status, Condition(seen), *rest) for flow, status, seen, *rest in await self._read("counts")]

    async def leases(self) -> list[Lease]:
        rows = await self._search(lambda connection: connection.fetch(SQL["leases"], self._now()))
        return [Lease(*row) for row in rows]

    async def acts(self, before: Place | None = None, limit: int = 100) -> list[Entry]:
        place = (LAST, "", 0) if before is None else before
        return [_entry(row) for row in await self._search(lambda connection: connection.fetch(SQL["acts"], *place, limit))]

    async def history(
        self, id: str, after: int = -1, limit: int = 1_000, connection: Any = None, *, light: bool = False
    ) -> list[Entry]:
        what = ("history", id, after, limit, light)
        rows = await (self._read(*what) if connection is None else self._through(connection, *what))
        return [_entry(row) for row in rows]

    async def data_at(self, id: str, version: int) -> Kept | None:
        rows = await self._read("data at", id, version)
        return Kept(*rows[0]) if rows else None

    async def walk(self, after: str, limit: int) -> list[Record]:
        return [_record(row) for row in await self._search(lambda c: looking.walk(c, after, limit, self._now()))]


# -- rows <-> words -----------------------------------------------------------------------------------------------


def _in_utc(value: Any) -> Any:
    """Other drivers answer instants in the time zone of their session."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def _arrays(batch: list[Commit]) -> tuple[Any, ...]:
    """A group's parameters. Most of what a transition writes, many of them share; each of its shapes is sent once."""
    shapes: dict[tuple[Any, ...], int] = {}
    own = [(*item.own, shapes.setdefault(item.shape, len(shapes) + 1)) for item in batch]
    return *zip(*own, strict=True), *zip(*shapes, strict=True)


def _bucket(id: str) -> int:
    return zlib.crc32(id.encode()) & 1023


def _record(row: Any) -> Record:
    id, flow, status, condition, data, *rest = row
    return Record(id, flow, status, Condition(condition), data, *rest)


def _entry(row: Any) -> Entry:
    id, version, at, kind, source, target, transition, attempt, epoch, actor, took, *rest = row
    seconds = None if took is None else took / 1e6
    return Entry(id, version, at, kind, source, target, transition, attempt, epoch, actor, seconds, *rest)


def _act_values(change: Change) -> tuple[Any, ...]:
    return (
        change.status, change.condition.value, change.attempt, change.excused, change.polls, change.transition, change.moves,
        change.cancelling, change.due_after, change.enters, change.error, change.kind, change.data,
    )  # fmt: skip


async def _as_it_is(connection: Any) -> None:
    """Instead of what the pool does after each use: our sessions are all alike, and nothing is left in them."""


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
