"""The SQLite store: every verb of `ports.Store` on one file, which several programs may share."""

from __future__ import annotations

import asyncio
import functools
import json
import operator
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from onward.decide import Change
from onward.errors import Fenced, OnwardError, StoreError
from onward.ports import Clock, Count, Kept, Known, Lease, NewProcess, Place, Search
from onward.process import Condition, Entry, Record
from onward.store import guest
from onward.store.fork import not_open, pid
from onward.store.rows import MICROSECOND, Commit, after, fenced, moved_on, oldest_first
from onward.store.schema import refuse_other_schema
from onward.store.sqlite import looking
from onward.store.sqlite.file import SCHEMA, SQL, connect, instant, make_file, make_or_refuse, micros, schema_of
from onward.store.sqlite.files import FileLock
from onward.store.sqlite.looking import LAST, Reader
from onward.store.sqlite.turn import Turn
from onward.store.sqlite.writer import BUSY_S, Job, Writer, store_error, transaction

NOTICE_S = 0.05  # how often an idle worker looks whether another program wrote

Sql = sqlite3.Connection | sqlite3.Cursor


class SqliteStore:
    """A file, or `:memory:` for tests. Open it in the event loop that uses it; `clock` makes every instant."""

    writer_type: type[Writer] = Writer
    turn_type: type[Turn] = Turn

    def __init__(self, path: str, clock: Clock) -> None:
        self.path, self._clock = path, clock
        self._in_memory = path == ":memory:"
        # By a name of its own, so that a second connection of this program can be made to the same memory.
        self._memory = f"file:/onward-{secrets.token_hex(8)}?vfs=memdb" if self._in_memory else ""
        self._pid = 0  # of the program that opened it; 0: not open
        self._changed = asyncio.Event()
        self._renewing = threading.Lock()
        self._renewer: sqlite3.Connection | None = None

    # -- opening and closing ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Opens the file; makes it and its tables where there are none. Raises StoreError, also for an older schema."""
        if self._pid == pid():
            raise StoreError(f"{self.path} is open already", hint="one `async with app:` at a time; share the app inside it")
        self._changed = asyncio.Event()  # of this event loop
        if not self._in_memory:
            self.path = make_file(self.path)
        self._lock_path = None if self._in_memory else f"{self.path}-lock"
        self._writer = self.writer_type(self.path, self._lock_path, self._connect_and_migrate, self._commit_group)
        await self._writer.open()
        self._reader, self._slow_reader = (Reader(self._connect, name) for name in ("onward-reader", "onward-slow-reader"))
        if not self._in_memory:
            try:
                self._reader.open()
            except sqlite3.Error as error:
                await self._writer.close()
                raise store_error(self.path, error) from error
        self._pid = pid()

    async def close(self) -> None:
        """Waits for what is being written. May be called twice."""
        if self._pid != pid():
            return
        self._pid = 0  # first: what comes while it closes is refused, not forgotten
        await self._writer.close()
        self._reader.close()
        self._slow_reader.close()
        with self._renewing:
            if self._renewer is not None:
                self._renewer.close()
                self._renewer_lock.close()
                self._renewer = None

    def _connect(self) -> sqlite3.Connection:
        return connect(self._memory or self.path, BUSY_S, uri=self._in_memory)

    def _connect_and_migrate(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            make_or_refuse(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    # -- writing, reading, waiting ----------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._pid != pid():
            raise not_open(self.path, self._pid)

    async def _write(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        self._check_usable()
        job = Job(run)
        await self._writer.add(job)
        return job.answer

    async def _read(self, run: Callable[[sqlite3.Connection], Any], *, long: bool = False) -> Any:
        """What may take `long` keeps only its like waiting."""
        if self._in_memory:  # nobody else can see it: the writer reads as well
            return await self._write(run)
        self._check_usable()
        reader = self._slow_reader if long else self._reader
        try:
            return await reader.read(run)
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    async def wait_for_change(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        seen = await self._read(self._news)
        while (left := until - loop.time()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left, NOTICE_S)):
                    await self._changed.wait()
                return
            except TimeoutError:
                if await self._read(self._news) != seen:
                    return

    def _news(self, connection: sqlite3.Connection) -> int:
        """A number that is another one after each change."""
        # It changes when another connection commits, this store's own writer included; in memory that is the one that asks.
        number: int = connection.execute("PRAGMA data_version").fetchone()[0]
        return number + connection.total_changes

    # -- the verbs of a worker --------------------------------------------------------------------------------

    async def claim(
        self, known: Known, owner: str, limit: int, lease: timedelta, ids: Collection[str] = (), *, suspect: bool = True
    ) -> list[Record]:
        code, asked = json.dumps(list(known)), json.dumps(list(ids))

        def run(connection: sqlite3.Connection) -> list[Record]:
            now = self._clock.now()
            when = {"now": micros(now), "known": code}
            if ids:
                due = _list(connection, "due of", ids=asked, limit=limit, **when)
            else:
                due = _list(connection, "due suspect", **when) if suspect else []
                due += _list(connection, "due", limit=limit - len(due), **when)
            if not due:
                return []
            claimed = json.dumps(due)
            connection.execute(SQL["claim"], {"ids": claimed, "owner": owner, "lease_until": micros(now + lease)})
            return sorted(_records(connection, "claimed", now, ids=claimed), key=oldest_first)

        answer: list[Record] = await self._write(run)
        return answer

    async def commit(self, record: Record, change: Change) -> Record:
        self._check_usable()
        if change.transaction is not None:
            written: Record = await change.transaction.commit(record, change)
            return written
        item = Commit(record, change, record.owner)
        await self._writer.add(item)
        return after(record, change, item.at)

    def _commit_group(self, connection: sqlite3.Connection, commits: list[Commit]) -> None:
        commits.sort(key=_by_id)  # neighbours in the tree share pages: fewer are written
        now = self._clock.now()
        values: list[Any] = [micros(now)] * 3
        for item in commits:
            values += item.own
            values += item.shape
        rows = 1 << (len(commits) - 1).bit_length()  # few lengths, so that their statements stay prepared
        values += (None,) * ((rows - len(commits)) * _COMMIT_WIDTH)
        written = connection.execute(_commit_statement(rows), values).rowcount
        done = None if written == len(commits) else _committed(connection, commits)
        for place, item in enumerate(commits):
            item.at = now
            item.error = None if done is None or place in done else fenced(item)

    async def begin(self, record: Record) -> Turn:
        self._check_usable()
        turn = self.turn_type(record, self._connect_for, self._commit_group, _committed)
        await self._writer.lend(turn)
        return turn

    def _connect_for(self, record: Record) -> sqlite3.Connection:
        """A connection for the handler that has this record, in a transaction: nobody can take it away until that ends."""
        connection = self._connect()
        try:
            connection.text_factory = str
            connection.execute("PRAGMA foreign_keys=ON")  # cannot be asked for inside of a transaction
            connection.execute("BEGIN IMMEDIATE")
            if _list(connection, "taken away", held=json.dumps([[record.id, record.epoch]])):
                raise Fenced(f"{record.id} is past epoch {record.epoch}: another worker or a person has it now")
        except BaseException:
            connection.close()
            raise
        return connection

    def renew(self, owner: str, held: Mapping[str, int], lease: timedelta) -> set[str]:
        self._check_usable()
        ours = json.dumps(list(held.items()))

        def run(connection: sqlite3.Connection) -> set[str]:
            until = micros(self._clock.now() + lease)
            connection.execute(SQL["renew"], {"owner": owner, "held": ours, "lease_until": until})
            return set(_list(connection, "taken away", held=ours))

        return self._renewed(run)

    def _renewed(self, run: Callable[[sqlite3.Connection], set[str]]) -> set[str]:
        if self._in_memory:
            loop = self._writer.loop
            lost: set[str] = asyncio.run_coroutine_threadsafe(self._write(run), loop).result(BUSY_S)
            return lost
        with self._renewing:
            self._check_usable()  # it may have been closed meanwhile
            try:
                # A connection of its own: a heartbeat must not queue up behind the commits that it protects.
                if self._renewer is None:
                    self._renewer_lock = FileLock(self._lock_path, BUSY_S)
                    self._renewer = self._connect()
                with self._renewer_lock, transaction(self._renewer):
                    return run(self._renewer)
            except sqlite3.Error as error:
                raise store_error(self.path, error) from error

    async def release(self, records: Sequence[Record], *, begun: bool) -> None:
        held = json.dumps([(record.id, record.epoch, record.owner) for record in records])

        def run(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["release"], {"held": held, "begun": begun, "now": micros(self._clock.now())})

        await self._write(run)
        self._changed.set()

    async def release_all_but(self, owner: str, ids: Collection[str], lease: timedelta) -> None:
        def run(connection: sqlite3.Connection) -> None:
            connection.execute(SQL["release all but"], {"owner": owner, "ids": json.dumps(list(ids))})

        await self._write(run)
        self._changed.set()

    async def record_step(self, record: Record, name: str, result: str) -> None:
        def run(connection: sqlite3.Connection) -> None:
            whose = {"id": record.id, "epoch": record.epoch, "owner": record.owner, "transition": record.transition}
            if connection.execute(
                SQL["step"], {**whose, "name": name, "result": result, "now": micros(self._clock.now())}
            ).rowcount:
                return
            # No row: fenced, or recorded before by a write whose answer was lost.
            found = _records(connection, "get", self._clock.now(), id=record.id)
            recorded = dict(_list(connection, "steps", id=record.id, transition=record.transition))
            if not found or (found[0].epoch, found[0].owner) != (record.epoch, record.owner) or recorded.get(name) != result:
                raise Fenced(f"{record.id} is past epoch {record.epoch}; sub-step {name!r} was not recorded")

        await self._write(run)

    async def steps(self, id: str, transition: int) -> dict[str, str]:
        return dict(await self._read(lambda c: _list(c, "steps", id=id, transition=transition)))

    async def next_due(self, known: Known) -> timedelta | None:
        code = {"known": json.dumps(list(known))}
        row = await self._read(lambda c: c.execute(SQL["next due"], code).fetchone())
        return None if row is None else instant(row[0]) - self._clock.now()

    async def taken_away(self, held: Mapping[str, int]) -> set[str]:
        return set(await self._read(lambda c: _list(c, "taken away", held=json.dumps(list(held.items())))))

    # -- the verbs of a person --------------------------------------------------------------------------------

    async def insert(self, processes: Sequence[NewProcess], actor: str, connection: Any = None) -> list[bool]:
        rows = json.dumps([(p.id, p.flow, p.status, p.data, p.kind, p.reason, p.data_version) for p in processes])
        ids = json.dumps([p.id for p in processes])

        def run(connection: Sql) -> list[bool]:
            seen = set(_list(connection, "existing", ids=ids))
            connection.execute(SQL["insert"], {"processes": rows, "actor": actor, "now": micros(self._clock.now())})
            verdicts = []
            for process in processes:
                verdicts.append(process.id not in seen)
                seen.add(process.id)
            return verdicts

        answer: list[bool] = await self._write(run) if connection is None else self._through(connection, run)
        self._changed.set()
        return answer

    def _through(self, connection: Any, run: Callable[[sqlite3.Cursor], Any]) -> Any:
        """Runs it on a connection of the caller's, in his transaction. It has to be one to this very database."""
        try:
            cursor = guest.sqlite(connection)
            here = self._memory[5:].partition("?")[0] or str(Path(self.path).resolve())
            there = os.fsdecode(next(row[2] for row in cursor.execute("PRAGMA database_list") if row[1] in ("main", b"main")))
            if here != there and not (Path(here).exists() and Path(there).exists() and Path(here).samefile(there)):
                raise OnwardError(f"the connection is to {there or 'a database in memory'}, and the store of this app is {here}")
            refuse_other_schema(f"sqlite:///{self.path}", schema_of(cursor), SCHEMA)
            return run(cursor)
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    async def act(self, record: Record, change: Change, actor: str, reason: str | None) -> Record:
        def run(connection: sqlite3.Connection) -> Record:
            now = self._clock.now()
            written = connection.execute(SQL["act"], _act_values(record, change, micros(now), actor, reason)).rowcount
            found = _records(connection, "get", now, id=record.id)
            if not found or not written:
                raise moved_on(record, *found)
            return found[0]

        answer: Record = await self._write(run)
        self._changed.set()
        return answer

    async def delete(self, record: Record, actor: str, reason: str | None) -> None:
        def run(connection: sqlite3.Connection) -> None:
            gone = connection.execute(SQL["delete"], {"id": record.id, "version": record.version}).fetchall()
            if not gone:
                raise moved_on(record, *_records(connection, "get", self._clock.now(), id=record.id))
            connection.execute(SQL["delete steps"], {"id": record.id})
            connection.execute(SQL["delete history"], {"id": record.id})
            what = dict(zip(("status", "transition", "epoch"), gone[0], strict=True))
            who = {"now": micros(self._clock.now()), "actor": actor, "reason": reason}
            connection.execute(SQL["deleted"], {"id": record.id, **what, **who})

        await self._write(run)
        self._changed.set()

    async def get(self, id: str, connection: Any = None) -> Record | None:
        def run(connection: Sql) -> list[Record]:
            return _records(connection, "get", self._clock.now(), id=id)

        found: list[Record] = await self._read(run) if connection is None else self._through(connection, run)
        return found[0] if found else None

    async def find(self, search: Search) -> list[Record]:
        def run(connection: sqlite3.Connection) -> list[Record]:
            now = self._clock.now()
            return [_record(row, now) for row in looking.find(connection, search, micros(now))]

        answer: list[Record] = await self._read(run, long=bool(search.terms) and not search.looks)
        return answer

    async def past(self, search: Search) -> str:
        answer: str = await self._read(lambda connection: looking.past(connection, search))
        return answer

    async def counts(self) -> list[Count]:
        rows = await self._read(lambda c: _list(c, "counts", now=micros(self._clock.now())), long=True)
        return [Count(flow, status, Condition(seen), n, instant(oldest), data) for flow, status, seen, n, oldest, data in rows]

    async def leases(self) -> list[Lease]:
        rows, now = await self._read(lambda c: _list(c, "leases")), self._clock.now()
        return [Lease(o, flow, status, n, instant(until), instant(oldest), now) for o, flow, status, n, until, oldest in rows]

    async def acts(self, before: Place | None = None, limit: int = 100) -> list[Entry]:
        at, id, version = (LAST, "", 0) if before is None else (micros(before[0]), *before[1:])
        return [_entry(row) for row in await self._read(lambda c: _list(c, "acts", at=at, id=id, version=version, limit=limit))]

    async def history(
        self, id: str, after: int = -1, limit: int = 1_000, connection: Any = None, *, light: bool = False
    ) -> list[Entry]:
        def run(connection: Sql) -> list[Any]:
            return _list(connection, "history", id=id, after=after, limit=limit, light=light)

        rows = await self._read(run) if connection is None else self._through(connection, run)
        return [_entry(row) for row in rows]

    async def data_at(self, id: str, version: int) -> Kept | None:
        row = await self._read(lambda c: c.execute(SQL["data at"], {"id": id, "version": version}).fetchone())
        return None if row is None else Kept(*row)

    async def walk(self, after: str, limit: int) -> list[Record]:
        def run(connection: sqlite3.Connection) -> list[Record]:
            now = self._clock.now()
            return [_record(row, now) for row in looking.walk(connection, after, limit, micros(now))]

        answer: list[Record] = await self._read(run, long=True)
        return answer


# -- rows <-> words -----------------------------------------------------------------------------------------------


def _list(connection: Sql, block: str, **parameters: Any) -> list[Any]:
    answer: list[Any] = json.loads(connection.execute(SQL[block], parameters).fetchone()[0])
    return answer


def _committed(connection: Sql, commits: Sequence[Commit]) -> set[int]:
    """The places of those that stand in the history."""
    return set(_list(connection, "committed", items=json.dumps([(*item.own, *item.shape) for item in commits])))


def _records(connection: Sql, block: str, now: datetime, **parameters: Any) -> list[Record]:
    return [_record(row, now) for row in _list(connection, block, now=micros(now), **parameters)]


def _record(row: Sequence[Any], now: datetime) -> Record:
    (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves, cancelling,
     entered_at, created_at, updated_at, due_at, owner, lease_until, error, excused, losses, data_version) = row  # fmt: skip
    return Record(
        id, flow, status, Condition(condition), data, version, epoch, attempt, polls, transition, moves, bool(cancelling),
        instant(entered_at), instant(created_at), instant(updated_at), None if due_at is None else instant(due_at),
        owner, None if lease_until is None else instant(lease_until), error, now, excused, losses, data_version,
    )  # fmt: skip


def _entry(row: Sequence[Any]) -> Entry:
    id, version, at, kind, source, target, transition, attempt, epoch, actor, took, *rest = row
    seconds = None if took is None else took / 1e6
    return Entry(id, version, instant(at), kind, source, target, transition, attempt, epoch, actor, seconds, *rest)


_COMMIT_WIDTH = 21
_COMMIT_ROW = "(" + ", ".join("?" * _COMMIT_WIDTH) + ")"
_by_id = operator.attrgetter("id")


@functools.cache
def _commit_statement(rows: int) -> str:
    return SQL["commit"].replace(_COMMIT_ROW, ", ".join([_COMMIT_ROW] * rows))


def _act_values(record: Record, change: Change, now: int, actor: str, reason: str | None) -> dict[str, Any]:
    return {
        "id": record.id, "version": record.version, "now": now, "status": change.status,
        "condition": change.condition.value, "attempt": change.attempt, "excused": change.excused, "polls": change.polls,
        "transition": change.transition, "moves": change.moves, "cancelling": change.cancelling,
        "due_at": None if change.due_after is None else now + change.due_after // MICROSECOND,
        "enters": change.enters, "error": change.error, "kind": change.kind, "actor": actor, "reason": reason,
        "data": change.data, "data_version": record.data_version,
    }  # fmt: skip
