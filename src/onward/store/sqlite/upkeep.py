"""Upkeep of a SQLite file: its schema, what is in it, deleting what is old, a copy while others write."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from onward.errors import StoreError
from onward.ports import Clock, Pruned, Standing, Tell
from onward.process import Condition
from onward.store.copies import copied
from onward.store.schema import Migration, pending, refuse_other_schema
from onward.store.sqlite.file import MIGRATIONS, SQL, connect, instant, make_file, micros, schema_of, upgrade
from onward.store.sqlite.files import FileLock, refuse_network_file_system
from onward.store.sqlite.writer import BUSY_S, store_error, transaction
from onward.store.urls import sqlite_path

T = TypeVar("T")

UPGRADE_WAIT_S = 60.0  # for another program's upgrade; an index over a million rows takes seconds
PAGE = 500  # rows that are looked at, and perhaps deleted, in one transaction
PAUSE_S = 0.01  # between those, for the programs that work beside it: its lock is not handed out in turn
CHECKPOINT_PAGES = 20  # so often the log is moved into the file
COPY_PAGES = 4_000  # of the file between two words about it


class SqliteUpkeep:
    """`migrations` are this code's; another list is for tests."""

    def __init__(self, url: str, clock: Clock, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        path = sqlite_path(url)
        if path == ":memory:":
            raise StoreError("a store in memory needs no upkeep", hint="it is new each time; a file: --store sqlite:///onward.db")
        self.path, self.name = str(Path(path).resolve()), url
        self._clock, self._migrations = clock, migrations

    @property
    def _needed(self) -> int:
        return self._migrations[-1].number

    # -- the schema -------------------------------------------------------------------------------------------

    async def schema(self) -> int:
        return await asyncio.to_thread(self._with, schema_of)

    async def script(self, found: int | None = None) -> str:
        if found is None:
            found = await self.schema() if await asyncio.to_thread(Path(self.path).exists) else 0
        lines = [f"-- Onward's tables in SQLite, from schema {found} to {self._needed}. To be applied with: sqlite3 -bail FILE"]
        for each in pending(self._migrations, found):
            add = SQL["schema add"].replace("?", str(each.number))
            lines += ["BEGIN IMMEDIATE;", f"{SQL['schema table']};", each.sql, f"{add};", "COMMIT;"]
        return "\n".join(lines)

    async def upgrade(self, tell: Tell) -> Sequence[str]:
        def run() -> list[str]:
            path = make_file(self.path)
            lock = FileLock(f"{path}-lock", UPGRADE_WAIT_S)
            try:
                with lock, closing(connect(path, UPGRADE_WAIT_S)) as connection:
                    found = schema_of(connection)
                    if found > self._needed:
                        refuse_other_schema(self.name, found, self._needed)
                    if left := pending(self._migrations, found):
                        tell(f"from schema {found} to {left[-1].number}; programs that write to the file wait meanwhile")
                    return [f"schema {number}" for number in upgrade(connection, self._migrations)]
            except sqlite3.Error as error:
                raise store_error(path, error) from error
            finally:
                lock.close()

        return await asyncio.to_thread(run)

    # -- looking ----------------------------------------------------------------------------------------------

    async def standing(self) -> Standing:
        def run(connection: sqlite3.Connection) -> Standing:
            found = schema_of(connection)
            if not found:
                return Standing(0, self._needed, {}, 0, None, self._bytes(), ())
            rows = connection.execute(SQL["conditions"], {"now": micros(self._clock.now())}).fetchall()
            history, oldest = connection.execute(SQL["history size"]).fetchone()
            return Standing(
                found,
                self._needed,
                {Condition(seen): number for seen, number in rows},
                history,
                None if oldest is None else instant(oldest),
                self._bytes(),
                (),
            )

        return await asyncio.to_thread(self._with, run)

    def _bytes(self) -> int:
        return sum(Path(name).stat().st_size for name in (self.path, f"{self.path}-wal") if Path(name).exists())

    # -- deleting what is old ---------------------------------------------------------------------------------

    async def prune(self, older_than: timedelta, tell: Tell, *, dry_run: bool = False) -> Pruned:
        until = micros(self._clock.now() - older_than)
        connection = await asyncio.to_thread(self._open, writes=not dry_run)
        lock = FileLock(f"{self.path}-lock", BUSY_S)
        processes = history = steps = pages = 0
        last: int | None = -1
        try:
            await asyncio.to_thread(self._refuse_other, connection)
            while last is not None:
                page = (connection, lock, until, last, dry_run, pages)
                last, gone = await asyncio.to_thread(self._prune_page, *page)
                pages += 1
                processes, history, steps = processes + gone[0], history + gone[1], steps + gone[2]
                tell(f"{pages * PAGE:,} processes looked at, {processes:,} {'found' if dry_run else 'deleted'}")
                await asyncio.sleep(0 if dry_run else PAUSE_S)
        finally:
            connection.close()
            lock.close()
        return Pruned(processes, history, steps, ())

    def _prune_page(
        self, connection: sqlite3.Connection, lock: FileLock, until: int, after: int, dry_run: bool, pages: int
    ) -> tuple[int | None, tuple[int, int, int]]:
        """One page of rows after `after`, in a transaction. Answers where to go on, or None, and how much was deleted."""
        wanted = {"until": until, "after": after, "limit": PAGE}
        try:
            if dry_run:
                rows = connection.execute(SQL["prune page"], wanted).fetchall()
                gone = connection.execute(SQL["prune count"], {"old": _old(rows)}).fetchone()
            else:
                with lock:
                    with transaction(connection):
                        rows = connection.execute(SQL["prune page"], wanted).fetchall()
                        old = {"old": _old(rows)}
                        steps = connection.execute(SQL["prune steps"], old).rowcount
                        history = connection.execute(SQL["prune history"], old).rowcount
                        gone = connection.execute(SQL["prune processes"], old).rowcount, history, steps
                    if len(rows) < PAGE or pages % CHECKPOINT_PAGES == 0:
                        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error
        return rows[-1][0] if len(rows) == PAGE else None, gone

    # -- a copy -----------------------------------------------------------------------------------------------

    async def backup(self, target: Path, tell: Tell) -> None:
        stopped = False

        def told(status: int, left: int, total: int) -> None:
            if stopped:
                raise StoreError("the copy was stopped")
            tell(f"{total - left:,} of {total:,} pages copied")

        def run(source: sqlite3.Connection) -> None:
            self._refuse_other(source, newer_too=False)
            with copied(target) as partial, closing(sqlite3.connect(partial, isolation_level=None)) as copy:
                # Inside one transaction all pages are of one instant, though others write: they write into the log.
                source.execute("BEGIN")
                schema_of(source)
                source.backup(copy, pages=COPY_PAGES, progress=told)
                source.execute("ROLLBACK")

        copying = asyncio.create_task(asyncio.to_thread(self._with, run))
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:
            stopped = True
            await asyncio.wait({copying})
            raise

    # -- opening ----------------------------------------------------------------------------------------------

    def _open(self, *, writes: bool) -> sqlite3.Connection:
        """A connection to the file, which is not made where it is not."""
        if not Path(self.path).is_file():
            raise StoreError(f"there is no store at {self.path}", hint="the first process makes it, or: onward db upgrade")
        refuse_network_file_system(self.path)
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise StoreError(f"cannot open {self.path}: permission denied", hint="file and folder must be writable for this user")
        try:
            return connect(self.path, BUSY_S, writes=writes)
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _with(self, run: Callable[[sqlite3.Connection], T]) -> T:
        with closing(self._open(writes=False)) as connection:
            try:
                return run(connection)
            except sqlite3.Error as error:
                raise store_error(self.path, error) from error

    def _refuse_other(self, connection: sqlite3.Connection, *, newer_too: bool = True) -> None:
        found = schema_of(connection)
        if newer_too or not found:
            refuse_other_schema(self.name, found, self._needed)


def _old(rows: Sequence[tuple[int, int]]) -> str:
    return json.dumps([seq for seq, old in rows if old])
