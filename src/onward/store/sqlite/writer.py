"""The one thread that writes to a SQLite file, and the queue before it that makes groups of what is to be written.

What gathers while one group is written goes together in the next; a lone write goes at once. A verdict is given only
after the database has reported the commit, and a write that was handed over cannot be cancelled any more.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future as ThreadFuture
from contextlib import contextmanager
from typing import Any, TypeVar

from onward.errors import Conflict, Fenced, NotFound, StoreError
from onward.store.rows import Commit, Write, land
from onward.store.sqlite.files import FileLock, LockHeld
from onward.store.sqlite.turn import Turn

W = TypeVar("W", bound=Write)
logger = logging.getLogger("onward")

BATCH_MAX = 1_024  # writes in one transaction: about 12 ms; 1,024 * 21 parameters are below SQLite's limit of 32,766
BUSY_S = 5.0  # how long a write waits for another program's before it is refused
CHECKPOINT_AFTER = 4_000  # rows and transactions written between two checkpoints: some 30 MB of write-ahead log


class Job(Write):
    """A write: a function of the connection, run inside the group's transaction.

    It may raise Conflict, NotFound or Fenced as its verdict, if it has written nothing then.
    """

    __slots__ = ("answer", "run")

    def __init__(self, run: Callable[[sqlite3.Connection], Any]) -> None:
        super().__init__()
        self.run = run
        self.answer: Any = None


class Writer:
    """Writes in groups. `connect` opens the connection (on the thread), `commit` writes a group of transitions.

    The thread takes by itself whatever is waiting, and is rung only when it sleeps: each hand-over of the interpreter's
    lock can cost it 5 ms beside a busy event loop, so there is one for a group and not one for an item.
    """

    def __init__(
        self,
        path: str,
        lock: str | None,
        connect: Callable[[], sqlite3.Connection],
        commit: Callable[[sqlite3.Connection, list[Commit]], None],
    ) -> None:
        self._path, self._connect, self._commit = path, connect, commit
        self._lock = FileLock(lock, BUSY_S)
        self._waiting: deque[Write] = deque()
        self._turns: deque[Turn] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = False
        self._closing = False
        self._since_checkpoint = 0

    async def open(self) -> None:
        self.loop = asyncio.get_running_loop()
        opened: ThreadFuture[None] = ThreadFuture()
        self._thread = threading.Thread(target=self._work, args=(opened,), name="onward-writer", daemon=True)
        self._thread.start()
        await asyncio.wrap_future(opened)

    async def close(self) -> None:
        """Writes what is waiting, then closes the connection."""
        self._closing = True
        self._bell.put(None)
        await self.loop.run_in_executor(None, self._thread.join)

    # -- in the event loop ------------------------------------------------------------------------------------

    def add(self, item: W) -> W:
        """On its way now: `await` it."""
        self._waiting.append(item)
        if self._asleep:  # what else becomes ready before it is awake comes along; nobody waits longer than that for company
            self._asleep = False
            self._bell.put(None)
        return item

    async def lend(self, turn: Turn) -> None:
        """Returns when it is the turn of this handler; nothing else is written until it has ended."""
        self._turns.append(turn)
        if self._asleep:
            self._asleep = False
            self._bell.put(None)
        await turn.begun()

    # -- on the writer's thread -------------------------------------------------------------------------------

    def _work(self, opened: ThreadFuture[None]) -> None:
        try:
            with self._lock:
                connection = self._connect()
        except Exception as error:  # unsaid, it would leave `open` waiting for ever
            self._lock.close()
            opened.set_exception(store_error(self._path, error))
            return
        opened.set_result(None)
        while (batch := self._next()) is not None:
            if batch:
                self._write(connection, batch)
                try:
                    self.loop.call_soon_threadsafe(land, batch)
                except RuntimeError:  # the loop was closed before the store was
                    break
            if self._turns:  # one after each group, so that neither keeps the other waiting for long
                self._take_turns(connection, self._turns.popleft())
        connection.close()
        self._lock.close()

    def _next(self) -> list[Write] | None:
        """What is waiting, at most BATCH_MAX, or nothing but a handler for its turn; sleeps while nobody is. None: it is over."""
        while not self._waiting and not self._turns:
            self._asleep = True
            # Asked again, after saying so: what came before this is seen now, what comes after it rings.
            if not self._waiting and not self._turns:
                if self._closing:
                    return None
                self._bell.get()
            self._asleep = False
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]

    def _take_turns(self, connection: sqlite3.Connection, turn: Turn) -> None:
        error = None
        try:
            with self._lock:
                self._checkpoint(connection, turn.take())
        except Exception as failed:  # as with a group: nothing of one handler's may end the thread that all others need
            error = store_error(self._path, failed)
        turn.end(error)
        if self._turns:  # turns come one by one: the heartbeats and other programs would find no gap between them
            self._lock.give_way()

    def _write(self, connection: sqlite3.Connection, batch: list[Write], *, again: bool = True) -> None:
        """Writes all in one transaction; if that cannot be, each one alone, so that none suffers for another.

        A commit is tried a second time when it was alone, too: if the first time did it and only said that it did not, the
        history tells. Where another program holds the file none is tried again, since each would wait as long for it.
        """
        try:
            with self._lock:
                self._write_together(connection, batch)
                self._checkpoint(connection, len(batch))
        except Exception as error:  # whatever is wrong with one item must not end the thread that all others need
            alone = len(batch) == 1 and isinstance(batch[0], Job)
            if not again or alone or _is_busy(error):
                for item in batch:
                    item.error = store_error(self._path, error)
                return
            for item in batch:
                self._write(connection, [item], again=False)

    def _write_together(self, connection: sqlite3.Connection, batch: list[Write]) -> None:
        commits = [item for item in batch if isinstance(item, Commit)]
        if len(commits) == len(batch):
            self._commit(connection, commits)  # one statement, which is a transaction by itself
            return
        with transaction(connection):
            for item in batch:
                if isinstance(item, Job):
                    self._run(connection, item)
            if commits:
                self._commit(connection, commits)

    def _run(self, connection: sqlite3.Connection, job: Job) -> None:
        job.error = None
        try:
            job.answer = job.run(connection)
        except (Conflict, NotFound, Fenced) as verdict:
            job.error = verdict

    def _checkpoint(self, connection: sqlite3.Connection, written: int) -> None:
        """Moves the write-ahead log into the file now and then: only here, under the lock that every writer holds.

        SQLite before 3.51.3 can corrupt a file when one connection checkpoints while another one writes. A checkpoint that
        fails is no failure of the writes before it, which are durable in the log; the next one tries again.
        """
        self._since_checkpoint += written + 5
        if self._since_checkpoint > CHECKPOINT_AFTER:
            self._since_checkpoint = 0
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:
                logger.warning("%s", store_error(self._path, error))


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE … COMMIT. Raises if the database has rolled back by itself, as it does when the disk is full."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        if not connection.in_transaction:
            raise StoreError("the database rolled the transaction back by itself; nothing of it was written")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_busy(error: Exception) -> bool:
    return isinstance(error, LockHeld) or getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")


_HINTS = {
    "SQLITE_FULL": "free some space on its disk; what was not written is tried again by itself",
    "SQLITE_READONLY": "the file, its folder and its -wal and -shm files must be writable for this user",
    "SQLITE_BUSY": "another program holds it; it is tried again by itself",
    "SQLITE_NOTADB": "name a file of Onward's, or one that does not exist yet",
    "SQLITE_CORRUPT": "copy the file away, then look at it: sqlite3 FILE 'PRAGMA integrity_check'",
    "SQLITE_CANTOPEN": "its folder must exist and be writable",
}


def store_error(path: str, error: Exception) -> StoreError:
    """SQLite's error as ours, with what to do about it."""
    if isinstance(error, StoreError):
        return error
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    hint = next((text for start, text in _HINTS.items() if name.startswith(start)), "")
    return StoreError(f"{path}: {error} ({name})", hint=hint)
