"""The PostgreSQL store: every verb of `ports.Store` on one database, which any number of workers share."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import zlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from onward.decide import Change
from onward.errors import Conflict, Fenced, NotFound, StoreError
from onward.ports import Clock, Count, Known, NewProcess, Search
from onward.process import Condition, Entry, Record
from onward.store.rows import Commit, after, commit_row, fenced, land
from onward.store.sql import load

try:
    import asyncpg
except ImportError:
    raise StoreError("PostgreSQL needs its driver", hint="pip install 'onward[postgres]'") from None

T = TypeVar("T")
logger = logging.getLogger("onward")

SCHEMA = 1  # the newest that this code knows; each number is a block `schema N` in postgres.sql
CONNECTIONS_MAX = 8  # of one store; beside them one listens and one renews leases
IN_THE_AIR_MAX = 2  # batches under way at once: while the server writes one, the next one is made
BATCH_MAX = 1_000  # transitions of one statement
CONNECT_S = 5.0
ANSWER_S = 15.0  # past this a connection is given up; the server has given up the statement by then
NOTICE_S = 0.1  # how often an idle worker asks whether anything changed, where nobody tells it
NOTICE_TOLD_S = 1.0  # where NOTIFY tells it: asking is still the truth
TELL_EVERY_S = 0.05  # at most so often does a store NOTIFY the others
RENEW_TRIES, RENEW_PAUSE_S = 10, 0.01  # for leases whose rows are being written at that moment
CHANNEL = "onward"

# For each session, unless the URL says otherwise. Behind a pooler, which would share them with strangers, none is set.
SESSION = {
    "synchronous_commit": "on",  # what is acknowledged outlives a power cut
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "10s",  # a worker that died half-way keeps no row locked for longer
    "tcp_keepalives_idle": "2",  # a worker whose host is gone neither
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
    "plan_cache_mode": "force_generic_plan",  # our statements have one good plan each; to plan cost more than to run
    "jit": "off",
}

SQL = load("postgres.sql")
_TIMED = {block for block, sql in SQL.items() if SQL["now"] in sql}
_COMMIT_ONE = SQL["commit"].replace(SQL["given"], SQL["given one"])
_COMMITTED_ONE = SQL["committed"].replace(SQL["given"], SQL["given one"])
# What may be wrong without being the statement's fault.
TROUBLE = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError, asyncpg.InternalClientError)


class PostgresStore:
    """A database. `clock` is for tests: without one the database's own makes every instant."""

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        self.name = shown(url)
        self._clock = clock
        self._dsn, options = _split(url)
        self._pooled, self._told = options["pooler"], options["notify"]
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._pid = 0
        self._renewing = threading.Lock()
        self._renewer: tuple[asyncio.Runner, asyncpg.Connection[asyncpg.Record]] | None = None

    # -- opening and closing ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connects, and checks that the tables are those that this code knows. Raises StoreError."""
        if self._pid == os.getpid():
            raise StoreError(f"{self.name} is open already", hint="one `async with app:` at a time; share the app inside it")
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._looking = asyncio.Lock()
        self._waiting: deque[Commit] = deque()
        self._in_the_air = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._tell_at = 0.0
        self._telling: asyncio.TimerHandle | None = None
        try:
            self._pool = await asyncpg.create_pool(
                self._dsn, min_size=0, max_size=CONNECTIONS_MAX, reset=_as_it_is, **self._connecting()
            )
            self._pid = os.getpid()
            await self._check_schema()
        except BaseException as error:
            self._pid = 0
            if self._pool is not None:
                self._pool.terminate()
            if isinstance(error, TROUBLE):
                raise self._trouble(error) from error
            raise
        if self._told:
            self._begin(self._listen())

    async def _check_schema(self) -> None:
        found = await self._ask("schema found")
        version = found[0][0] if found else 0
        if version > SCHEMA:
            raise StoreError(
                f"{self.name} has schema {version}, written by a newer Onward; this one knows schema {SCHEMA}",
                hint="upgrade this program: pip install --upgrade onward",
            )

    def _connecting(self) -> dict[str, Any]:
        """How every connection is made."""
        named = dict(parse_qsl(urlsplit(self._dsn).query))
        session = {} if self._pooled else {key: value for key, value in SESSION.items() if key not in named}
        return {
            "timeout": CONNECT_S,
            "statement_cache_size": 0 if self._pooled else 100,
            "server_settings": {"application_name": f"onward {os.getpid()}", **session},
            "target_session_attrs": "read-write",  # never a standby, also where the URL names several hosts
        }

    async def close(self) -> None:
        """Waits for what is being written. May be called twice."""
        if self._pid != os.getpid():
            return
        while self._waiting or self._in_the_air:
            await asyncio.sleep(0.001)
        self._pid = 0  # what comes while it closes is refused, not forgotten
        if self._telling is not None:
            self._telling.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self._pool is not None
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._pool.close()
        except TROUBLE:
            self._pool.terminate()
        await self._loop.run_in_executor(None, self._drop_renewer)  # its loop cannot run beside this one

    def _check_usable(self) -> None:
        if self._pid == os.getpid():
            return
        if self._pid:
            raise StoreError(
                f"{self.name} was opened by process {self._pid} and is used in its fork {os.getpid()}",
                hint="open the app after the fork: `async with app:` in the child",
            )
        raise StoreError(f"{self.name} is not open", hint="use the app inside `async with app:`")

    # -- asking -----------------------------------------------------------------------------------------------

    def _now(self) -> datetime | None:
        return None if self._clock is None else self._clock.now()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """One of the pool's. What ends in the middle of an answer is worth nothing any more, and is thrown away."""
        assert self._pool is not None
        async with asyncio.timeout(ANSWER_S):
            connection = await self._pool.acquire()
            try:
                yield connection
            except (asyncpg.PostgresError, StoreError):
                raise
            except BaseException:
                connection.terminate()
                raise
            finally:
                await self._pool.release(connection)

    async def _ask(self, block: str, *values: Any) -> list[Any]:
        """The rows that a statement answers, whatever it does. Who is cancelled waits for it first, see `_write`."""
        self._check_usable()
        try:
            async with self._connection() as connection:
                return await connection.fetch(SQL[block], *self._with_clock(block, values))
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
        """A caller that is cancelled goes at once; its question goes on, so that the connection is not lost for it."""
        self._check_usable()
        task = self._begin(self._ask(block, *values))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_forget)
            raise

    async def _look(self, block: str, *values: Any) -> list[Any]:
        """Like `_read`, and never before one that was asked earlier: what changed in between is news to one of them."""

        async def in_turn() -> list[Any]:
            async with self._looking:
                return await self._ask(block, *values)

        self._check_usable()
        task = self._begin(in_turn())
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

    # -- news -------------------------------------------------------------------------------------------------

    async def wait_for_change(self, timeout: float) -> None:
        loop = self._loop
        until = loop.time() + timeout
        [[seen]] = await self._look("news")
        while (left := until - loop.time()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left, NOTICE_TOLD_S if self._told else NOTICE_S)):
                    await self._changed.wait()
                return
            except TimeoutError:
                if await self._look("news") != [(seen,)]:
                    return

    def _tell(self) -> None:
        """Something changed: wakes our own waiters, and those of other programs, but not more often than TELL_EVERY_S."""
        if self._telling is None:
            self._telling = self._loop.call_at(max(self._loop.time(), self._tell_at), self._tell_now)

    def _tell_now(self) -> None:
        self._telling, self._tell_at = None, self._loop.time() + TELL_EVERY_S
        self._changed.set()
        if self._told and self._pid:
            self._begin(self._notify())

    async def _notify(self) -> None:
        """In a transaction of its own: NOTIFY takes a lock of the whole database when it commits."""
        with suppress(StoreError):  # a hint that is lost costs a poll
            await self._ask("notify")

    async def _listen(self) -> None:
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, **self._connecting())
                gone = asyncio.Event()
                connection.add_termination_listener(lambda _: gone.set())
                await connection.add_listener(CHANNEL, lambda *_: self._changed.set())
                try:
                    await gone.wait()
                finally:
                    connection.terminate()
            except TROUBLE as error:
                logger.debug("%s: cannot listen, polling goes on: %s", self.name, error)
            await asyncio.sleep(NOTICE_TOLD_S)

    # -- the verbs of a worker --------------------------------------------------------------------------------

    async def claim(
        self, known: Known, owner: str, limit: int, lease: timedelta, ids: Collection[str] = (), *, suspect: bool = True
    ) -> list[Record]:
        what = (_known(known), owner, lease, limit)
        rows = await (self._write("claim of", *what, list(ids)) if ids else self._write("claim", *what, min(limit, suspect)))
        records = [_record(row) for row in rows]
        records.sort(key=lambda record: (record.losses < 2, record.due_at, record.id))
        return records

    async def commit(self, record: Record, change: Change) -> Record:
        self._check_usable()
        item = Commit((*commit_row(record, change), record.status, record.attempt, record.owner))
        item.future = self._loop.create_future()
        self._waiting.append(item)
        if len(self._waiting) == 1 and self._in_the_air < IN_THE_AIR_MAX:
            self._loop.call_soon(self._send)  # what else becomes ready in this turn of the loop comes along
        await item.land(self._loop)
        return after(record, change, item.at)

    def _send(self) -> None:
        while self._waiting and self._in_the_air < IN_THE_AIR_MAX:
            batch: dict[str, Commit] = {}  # an id once: the answer names ids
            while self._waiting and len(batch) < BATCH_MAX and self._waiting[0].id not in batch:
                item = self._waiting.popleft()
                batch[item.id] = item
            self._in_the_air += 1
            self._begin(self._send_batch([batch[id] for id in sorted(batch)]))

    async def _send_batch(self, batch: list[Commit]) -> None:
        try:
            await self._commit_batch(batch)
        except BaseException as error:
            for item in batch:
                item.error = self._trouble(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._in_the_air -= 1
            land(batch)
            self._send()
            self._tell()

    async def _commit_batch(self, batch: list[Commit]) -> None:
        """Each item's verdict. Of trouble with the database nobody knows what it did: whoever tries again is told."""
        try:
            written = await self._ask_of("commit", batch)
            missing = [item for item in batch if item.id not in written]
            if missing:  # fenced, or written before by a statement whose answer was lost
                written |= await self._ask_of("committed", missing)
        except asyncpg.PostgresError as error:
            if len(batch) == 1 or not _is_about_values(error):
                raise
            for item in batch:  # one of them is at fault, and none suffers for another
                try:
                    await self._commit_batch([item])
                except Exception as alone:
                    item.error = self._trouble(alone)
            return
        for item in batch:
            item.error = None if item.id in written else fenced(item)

    async def _ask_of(self, block: str, batch: list[Commit]) -> set[str]:
        if len(batch) == 1:
            sql, values = _COMMIT_ONE if block == "commit" else _COMMITTED_ONE, batch[0].row
        else:
            sql, values = SQL[block], tuple(zip(*(item.row for item in batch), strict=True))
        async with self._connection() as connection:
            now, ids = await connection.fetchrow(sql, self._now(), *values)
        for item in batch:
            item.at = now
        return set(ids or ())

    def renew(self, owner: str, held: Mapping[str, int], lease: timedelta) -> set[str]:
        self._check_usable()
        with self._renewing:
            self._check_usable()  # it may have been closed meanwhile
            try:
                if self._renewer is None:
                    self._renewer = self._new_renewer()
                runner, connection = self._renewer
                return runner.run(self._renew(connection, owner, held, lease))
            except TROUBLE as error:
                self._end_renewer()
                raise self._trouble(error) from error

    async def _renew(
        self, connection: asyncpg.Connection[asyncpg.Record], owner: str, held: Mapping[str, int], lease: timedelta
    ) -> set[str]:
        left = dict(held)
        async with asyncio.timeout(lease.total_seconds() / 2):
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

    def _new_renewer(self) -> tuple[asyncio.Runner, asyncpg.Connection[asyncpg.Record]]:
        """A connection with a loop of its own: a heartbeat must not queue up behind the commits that it protects."""
        runner = asyncio.Runner()
        try:
            return runner, runner.run(asyncpg.connect(self._dsn, **self._connecting()))
        except BaseException:
            runner.close()
            raise

    def _drop_renewer(self) -> None:
        with self._renewing:
            self._end_renewer()

    def _end_renewer(self) -> None:
        if self._renewer is not None:
            runner, connection = self._renewer
            self._renewer = None
            connection.terminate()
            runner.run(asyncio.sleep(0))  # for its socket to be closed
            runner.close()

    async def release(self, records: Sequence[Record], *, begun: bool) -> None:
        await self._write("release", [r.id for r in records], [r.epoch for r in records], begun)
        self._tell()

    async def record_step(self, record: Record, name: str, result: str) -> None:
        if await self._write("step", record.id, record.epoch, record.transition, name, result):
            return
        # No row: fenced, or recorded before by a write whose answer was lost.
        found, recorded = await self.get(record.id), await self.steps(record.id, record.transition)
        if found is None or found.epoch != record.epoch or recorded.get(name) != result:
            raise Fenced(f"{record.id} is past epoch {record.epoch}; sub-step {name!r} was not recorded")

    async def steps(self, id: str, transition: int) -> dict[str, str]:
        return dict(map(tuple, await self._read("steps", id, transition)))

    async def next_due(self, known: Known) -> timedelta | None:
        rows = await self._look("next due", _known(known))
        return rows[0][0] if rows else None

    async def taken_away(self, held: Mapping[str, int]) -> set[str]:
        return {row[0] for row in await self._look("taken away", list(held), list(held.values()))}

    # -- the verbs of a person --------------------------------------------------------------------------------

    async def insert(self, processes: Sequence[NewProcess], actor: str) -> list[bool]:
        columns = [[p.id for p in processes], [p.flow for p in processes], [p.status for p in processes]]
        fresh = {
            row[0]
            for row in await self._write(
                "insert", *columns, [p.data for p in processes], [_bucket(p.id) for p in processes], actor
            )
        }
        self._tell()
        verdicts = []
        for process in processes:  # of an id given twice the first one made it
            verdicts.append(process.id in fresh)
            fresh.discard(process.id)
        return verdicts

    async def act(self, record: Record, change: Change, actor: str, reason: str | None) -> Record:
        rows = await self._write("act", record.id, record.version, actor, reason, *_act_values(record, change))
        if rows:
            self._tell()
            return _record(rows[0])
        found = await self.get(record.id)
        if found is None:
            raise NotFound(f"there is no process {record.id}")
        raise Conflict(
            f"{record.id} has moved on from version {record.version} to {found.version}, now at {found.status};"
            " nothing was changed",
            hint=f"look again: onward show {record.id}",
        )

    async def get(self, id: str) -> Record | None:
        rows = await self._look("get", id)
        return _record(rows[0]) if rows else None

    async def find(self, search: Search) -> list[Record]:
        conditions = [condition.value for condition in search.conditions]
        wanted = list(search.flows), list(search.statuses), conditions, search.prefix, search.before, search.limit
        return [_record(row) for row in await self._read("find", *wanted)]

    async def counts(self) -> list[Count]:
        return [Count(flow, status, Condition(seen), *rest) for flow, status, seen, *rest in await self._read("counts")]

    async def history(self, id: str, after: int = -1, limit: int = 1_000) -> list[Entry]:
        return [_entry(row) for row in await self._read("history", id, after, limit)]

    async def data_at(self, id: str, version: int) -> str | None:
        rows = await self._read("data at", id, version)
        return rows[0][0] if rows else None


# -- rows <-> words -----------------------------------------------------------------------------------------------


def _known(known: Known) -> str:
    statuses: dict[str, list[str]] = {}
    for flow, status in known:
        statuses.setdefault(flow, []).append(status)
    return json.dumps(statuses)


def _bucket(id: str) -> int:
    return zlib.crc32(id.encode()) & 1023


def _record(row: Any) -> Record:
    id, flow, status, condition, data, *rest = row
    return Record(id, flow, status, Condition(condition), data, *rest)


def _entry(row: Any) -> Entry:
    *first, took, reason, data = row
    return Entry(*first, None if took is None else took / 1e6, reason, data)


def _act_values(record: Record, change: Change) -> tuple[Any, ...]:
    return (
        change.status, change.condition.value, change.attempt, change.excused, change.polls, change.transition, change.moves,
        change.cancelling, change.due_after, change.enters, change.error, change.kind, record.status, record.attempt,
    )  # fmt: skip


# -- trouble ------------------------------------------------------------------------------------------------------

_HINTS = {
    "28": "user, password or pg_hba.conf: see the URL's user:password@host",
    "3D000": "make the database first: createdb NAME",
    "42P01": "make its tables: onward db upgrade --store URL",
    "42501": "the database's user needs SELECT, INSERT, UPDATE and DELETE on the tables onward_*",
    "25006": "it is a standby, or read-only for now; it is tried again by itself",
    "53100": "free some space on its disk; what was not written is tried again by itself",
    "53300": "raise max_connections, or put a pooler in front: ?pooler=transaction",
    "57P": "the server is stopping or starting; it is tried again by itself",
}


def store_error(name: str, error: BaseException) -> StoreError:
    """PostgreSQL's error as ours, with what to do about it."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if "unsupported startup parameter" in str(error):
            return StoreError(f"{name}: {error}", hint="this is a connection pooler: add ?pooler=transaction to the URL")
        hint = next((text for start, text in _HINTS.items() if state.startswith(start)), "")
        return StoreError(f"{name}: {error} ({state})", hint=hint)
    said = str(error) or {TimeoutError: f"no answer within {ANSWER_S:g} s"}.get(type(error), "the connection was lost")
    return StoreError(f"{name}: {said} ({type(error).__name__})", hint="is the server up? It is tried again by itself")


def _is_about_values(error: asyncpg.PostgresError) -> bool:
    """Whether the error is about what is written, and not about the state that the database is in."""
    return (error.sqlstate or "")[:2] in ("21", "22", "23", "42", "54")


async def _as_it_is(connection: Any) -> None:
    """Instead of what the pool does after each use: our sessions are all alike, and nothing is left in them."""


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


# -- URLs ---------------------------------------------------------------------------------------------------------


def _split(url: str) -> tuple[str, dict[str, bool]]:
    """The URL for the driver, and what in it is ours: `notify=off`, `pooler=transaction`."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    ours = {key: value for key, value in query if key in ("notify", "pooler")}
    for key, value in ours.items():
        if value not in {"notify": ("on", "off"), "pooler": ("transaction",)}[key]:
            raise StoreError(f"{shown(url)}: {key}={value} means nothing", hint="?notify=off or ?pooler=transaction")
    rest = urlencode([(key, value) for key, value in query if key not in ours])
    pooler = "pooler" in ours
    return urlunsplit(parts._replace(query=rest)), {"pooler": pooler, "notify": not pooler and ours.get("notify") != "off"}


def shown(url: str) -> str:
    """The URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@", 1)))
