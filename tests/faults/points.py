"""Crash points: names for the instants at which a program may be killed, stopped, delayed or answered with an error.

Nothing is planted in the engine. A child program wraps its functions before it opens the store, and the instants inside
a statement of the database are reached by temporary triggers. `CRASH=point:hit:action` arms one:
`hit` 3 is the third time, 3+ every third time; the action is kill, stop, raise, or sleep=seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import onward.store.sqlite.file as file_module
import onward.store.sqlite.store as sqlite_module
import onward.store.sqlite.turn as turn_module
import onward.store.sqlite.writer as writer_module
import onward.worker as worker_module
from onward.context import Context
from onward.decide import Change
from onward.errors import Fenced
from onward.process import Record
from onward.store.postgres.store import PostgresStore
from onward.store.rows import Commit
from onward.store.sqlite.files import FileLock
from onward.store.sqlite.store import SqliteStore
from onward.store.sqlite.turn import Turn
from onward.store.sqlite.writer import Writer
from onward.worker import Worker

if TYPE_CHECKING:
    from .ledger import Books

POINTS = {
    "migrate-begin": "the file is there, the schema is not",
    "migrate-within": "between two statements of the migration",
    "open-done": "the store is open, nothing was done with it",
    "insert-row": "a process is inserted, its history is not",
    "insert-durable": "processes are started, nobody was told",
    "claim-row": "inside the claim's transaction",
    "claim-done": "the claim is durable, no handler has begun",
    "attempt-begin": "before a handler is called",
    "effect-begun": "in a handler, before its effect",
    "effect-done": "in a handler, after its effect",
    "attempt-done": "the handler returned, nothing is handed to the store",
    "commit-asked": "the commit is handed over",
    "group-begin": "on the writer's thread, under the lock, before the statement",
    "commit-row": "inside the commit's statement: the row is written, its history is not",
    "commit-history": "inside the commit's statement: row and history are written",
    "group-durable": "the commit is durable, the lock is still held",
    "landing": "the verdicts are on their way into the event loop",
    "commit-done": "the worker knows its verdict, no observer does",
    "told": "the observers know",
    "step-acted": "a sub-step was done and is not recorded",
    "step-recorded": "a sub-step is recorded, its handler does not know",
    "save-asked": "before a save in mid-stage",
    "save-done": "after a save in mid-stage",
    "renew-begin": "before a heartbeat",
    "renew-within": "inside a heartbeat's transaction",
    "renew-done": "after a heartbeat",
    "transaction-asked": "a handler asks for a transaction of its own",
    "transaction-begun": "it has one, and has written nothing",
    "transaction-written": "it has written in it",
    "transaction-commit": "on the writer's thread: what it wrote, row and history are written, the COMMIT is not begun",
    "transaction-durable": "the COMMIT is done, nobody was told",
    "transaction-undone": "before a transaction is rolled back",
    "guest-begun": "a caller has written in a transaction of his own, and has started nothing",
    "guest-started": "a process is started through his connection, and he has not committed",
    "guest-committed": "he has, and knows it",
    "checkpoint-begin": "before the write-ahead log is moved into the file",
    "checkpoint-within": "somewhere inside that (by another thread)",
    "checkpoint-done": "after it",
    "drain": "a worker was told to stop",
    "release-begin": "before a lease is given back",
    "release-row": "inside the statement that gives it back",
    "release-done": "after it",
    "close-begin": "before the store is closed",
}

# Only at these does the program hold the lock that all writers of the file share.
UNDER_THE_LOCK = frozenset(
    {"group-begin", "claim-row", "commit-row", "commit-history", "group-durable", "renew-within", "release-row"}
)
# And at these, by the writer's thread, for a handler in the event loop.
LENT = frozenset({"transaction-begun", "transaction-written"})
UNDER_THE_LOCK |= LENT | {"transaction-commit", "transaction-durable", "transaction-undone"}


class Planted(sqlite3.OperationalError):
    """What `raise` raises: for the engine an error like any other of the database's."""


@dataclass
class Trap:
    point: str
    hit: int
    every: bool
    action: str
    books: Books
    hits: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reached(self) -> None:
        with self.lock:
            self.hits += 1
            if not (self.hits == self.hit or (self.every and self.hits % self.hit == 0)):
                return
        self.spring(self.hits)

    def spring(self, hits: int) -> None:
        self.books.note("reached", self.point, hits, self.action)
        match self.action:
            case "kill":
                _signal_myself(signal.SIGKILL)
            case "stop":
                with nullcontext() if self.point in LENT else _gate:
                    _signal_myself(signal.SIGSTOP)
            case "raise":
                raise Planted(f"planted at {self.point}, hit {hits}")
            case _:
                time.sleep(float(self.action.removeprefix("sleep=")))


_trap: Trap | None = None
# Held around the lock of the file: a program that stops holds that lock only if the point lies under it, and not because
# another thread of it happened to write just then.
_gate = threading.RLock()


def trip(point: str) -> None:
    """This is the instant `point`. Does nothing unless it is armed."""
    if _trap is not None and _trap.point == point:
        _trap.reached()


def _signal_myself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # it may reach another thread first; nothing may happen on this one before that


def arm(books: Books, spec: str) -> None:
    """Wraps the engine of this program, and keeps books of what is claimed and refused. `spec` '' arms nothing."""
    global _trap
    if spec:
        point, hit, action = spec.split(":")
        if point not in POINTS:
            raise ValueError(f"no such crash point: {point}")
        _trap = Trap(point, int(hit.rstrip("+")), hit.endswith("+"), action, books)
    _wrap_lock()
    _wrap_opening()
    _wrap_writer()
    _wrap_turns()
    _wrap_verbs(books, SqliteStore)
    _wrap_verbs(books, PostgresStore)
    _wrap_worker()


def armed() -> Trap | None:
    return _trap


# -- where the points are -----------------------------------------------------------------------------------------


def _wrap_lock() -> None:
    enter, leave = FileLock.__enter__, FileLock.__exit__

    def enter_through_the_gate(self: FileLock) -> None:
        _gate.acquire()
        try:
            enter(self)
        except BaseException:
            _gate.release()
            raise

    def leave_through_the_gate(self: FileLock, *error: Any) -> None:
        leave(self, *error)
        _gate.release()

    if _trap is not None and _trap.action == "stop":
        put(FileLock, "__enter__", enter_through_the_gate)
        put(FileLock, "__exit__", leave_through_the_gate)


def _wrap_opening() -> None:
    connect = SqliteStore._connect_and_migrate
    statements = vars(file_module)["statements"]

    def connect_and_spy(self: SqliteStore) -> sqlite3.Connection:
        trip("migrate-begin")
        connection = connect(self)
        _spy(connection)
        return connection

    def split(script: str) -> Iterator[str]:
        for statement in statements(script):
            yield statement
            trip("migrate-within")

    put(SqliteStore, "_connect_and_migrate", connect_and_spy)
    put(file_module, "statements", split)


def _spy(connection: sqlite3.Connection) -> None:
    """Reaches the instants inside a statement. BEFORE the history's insert, the row is written already."""
    connection.create_function("trip", 1, trip)
    for name, event, point in (
        ("started", "BEFORE INSERT ON main.onward_history WHEN new.version = 0", "insert-row"),
        ("committing", "BEFORE INSERT ON main.onward_history WHEN new.version > 0", "commit-row"),
        ("committed", "AFTER INSERT ON main.onward_history WHEN new.version > 0", "commit-history"),
        ("claimed", "AFTER UPDATE OF epoch ON main.onward_process WHEN new.owner IS NOT NULL", "claim-row"),
        (
            "released",
            "AFTER UPDATE OF owner ON main.onward_process WHEN new.owner IS NULL AND new.version = old.version",
            "release-row",
        ),
    ):
        connection.execute(f"CREATE TEMP TRIGGER spy_{name} {event} BEGIN SELECT trip('{point}'); END")
    if _trap is not None and _trap.point == "checkpoint-begin":
        connection.set_authorizer(_authorize)


def _authorize(action: int, argument: str | None, *_: object) -> int:
    """SQLite asks this before each statement; where it raises, the statement is refused."""
    if action == sqlite3.SQLITE_PRAGMA and argument == "wal_checkpoint":
        trip("checkpoint-begin")
    return sqlite3.SQLITE_OK


def _wrap_writer() -> None:
    together, checkpoint, land = Writer._write_together, Writer._checkpoint, vars(writer_module)["land"]
    transaction = vars(sqlite_module)["transaction"]

    def write_together(self: Writer, connection: sqlite3.Connection, batch: list[Any]) -> None:
        trip("group-begin")
        together(self, connection, batch)
        trip("group-durable")

    def trip_and_land(batch: list[Any]) -> None:
        trip("landing")
        land(batch)

    def checkpoint_and_trip(self: Writer, connection: sqlite3.Connection, written: int) -> None:
        due = self._since_checkpoint + written + 5 > writer_module.CHECKPOINT_AFTER
        if due:
            threading.Thread(target=trip, args=("checkpoint-within",), daemon=True).start()
        checkpoint(self, connection, written)
        if due:
            trip("checkpoint-done")

    @contextmanager
    def transaction_and_trip(connection: sqlite3.Connection) -> Iterator[None]:
        with transaction(connection):
            yield
            if threading.current_thread().name == "onward-heartbeat":
                trip("renew-within")

    put(Writer, "_write_together", write_together)
    put(writer_module, "land", trip_and_land)
    put(Writer, "_checkpoint", checkpoint_and_trip)
    put(sqlite_module, "transaction", transaction_and_trip)


def _wrap_turns() -> None:
    connect, commit, close = SqliteStore._connect_for, Turn._commit, vars(turn_module)["close"]

    def connect_and_spy(self: SqliteStore, record: Record) -> sqlite3.Connection:
        connection = connect(self, record)
        _spy(connection)
        return connection

    def commit_and_trip(self: Turn, connection: sqlite3.Connection, item: Commit) -> None:
        connection.set_trace_callback(lambda statement: trip("transaction-commit") if statement == "COMMIT" else None)
        commit(self, connection, item)
        if item.error is None:
            trip("transaction-durable")

    def trip_and_close(connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            trip("transaction-undone")
        close(connection)

    put(SqliteStore, "_connect_for", connect_and_spy)
    put(Turn, "_commit", commit_and_trip)
    put(turn_module, "close", trip_and_close)


def _wrap_verbs(books: Books, kind: Any) -> None:
    insert, claim, commit, renew = kind.insert, kind.claim, kind.commit, kind.renew
    release, record_step, begin, opened, closed = kind.release, kind.record_step, kind.begin, kind.open, kind.close

    async def open_and_trip(self: Any) -> None:
        await opened(self)
        trip("open-done")

    async def trip_and_close(self: Any) -> None:
        trip("close-begin")
        await closed(self)

    async def insert_and_trip(self: Any, *arguments: Any) -> list[bool]:
        fresh = await insert(self, *arguments)
        trip("insert-durable")
        return fresh

    async def claim_and_note(
        self: Any, known: Any, owner: str, limit: int, lease: timedelta, *arguments: Any, **options: Any
    ) -> list[Record]:
        asked_at = time.monotonic()
        records = await claim(self, known, owner, limit, lease, *arguments, **options)
        books.note("leases", {record.id: record.epoch for record in records}, lease.total_seconds(), asked_at)
        for record in records:
            books.note("claims", record.id, record.epoch, record.version, record.attempt, record.owner)
        if records:
            trip("claim-done")
        return records

    async def trip_and_commit(self: Any, record: Record, change: Change) -> Record:
        trip("commit-asked")
        after: Record = await _noted(commit(self, record, change), record, "commit")
        return after

    async def begin_and_note(self: Any, record: Record) -> Any:
        return await _noted(begin(self, record), record, "begin")

    async def _noted(write: Awaitable[Any], record: Record, verb: str) -> Any:
        try:
            return await write
        except Fenced:
            books.note("refused", verb, record.id, record.epoch)
            raise

    def renew_and_note(self: Any, owner: str, held: Mapping[str, int], lease: timedelta) -> set[str]:
        trip("renew-begin")
        asked_at = time.monotonic()
        lost: set[str] = renew(self, owner, held, lease)
        for id in lost:
            books.note("refused", "renew", id, held[id])
        kept = {id: epoch for id, epoch in held.items() if id not in lost}
        books.note("renewals", kept, lease.total_seconds(), asked_at)
        trip("renew-done")
        return lost

    async def release_and_note(self: Any, records: Sequence[Record], **how: Any) -> None:
        for record in records:
            books.note("releases", record.id, record.epoch)
        trip("release-begin")
        await _to_its_end(_release(self, records, how))

    async def _release(self: Any, records: Sequence[Record], how: dict[str, Any]) -> None:
        await release(self, records, **how)
        for record in records:
            found = await self.get(record.id)
            verb = "released" if found is not None and found.epoch == record.epoch else "release"
            books.note("refused", verb, record.id, record.epoch)
        trip("release-done")  # here, for who asked may have been cancelled meanwhile

    async def step_and_trip(self: Any, record: Record, name: str, result: str) -> None:
        trip("step-acted")
        await _to_its_end(_noted(record_step(self, record, name, result), record, "record_step"))
        trip("step-recorded")

    put(kind, "open", open_and_trip)
    put(kind, "close", trip_and_close)
    put(kind, "insert", insert_and_trip)
    put(kind, "claim", claim_and_note)
    put(kind, "commit", trip_and_commit)
    put(kind, "begin", begin_and_note)
    put(kind, "renew", renew_and_note)
    put(kind, "release", release_and_note)
    put(kind, "record_step", step_and_trip)


async def _to_its_end(write: Coroutine[Any, Any, Any]) -> None:
    """A write cannot be cancelled, only its caller: what it came to is noted in any case."""
    task = asyncio.ensure_future(write)
    try:
        await asyncio.shield(task)
    finally:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
        task.exception()  # has been noted


def _wrap_worker() -> None:
    run_attempt, tell, drain = vars(worker_module)["run_attempt"], vars(worker_module)["tell"], Worker.drain
    save = Context.save

    async def attempt_and_trip(*arguments: Any) -> Any:
        trip("attempt-begin")
        outcome = await run_attempt(*arguments)
        trip("attempt-done")
        return outcome

    def tell_and_trip(*arguments: Any) -> None:
        trip("commit-done")
        tell(*arguments)
        trip("told")

    def trip_and_drain(self: Worker) -> None:
        trip("drain")
        drain(self)

    async def save_and_trip(self: Context) -> None:
        trip("save-asked")
        await save(self)
        trip("save-done")

    put(Context, "save", save_and_trip)
    put(worker_module, "run_attempt", attempt_and_trip)
    put(worker_module, "tell", tell_and_trip)
    put(Worker, "drain", trip_and_drain)


def put(owner: Any, name: str, wrapped: Callable[..., Any]) -> None:
    """In place of what is there: an engine that was rebuilt must be noticed here, not pass without being tested."""
    assert callable(getattr(owner, name, None)), name
    setattr(owner, name, wrapped)
