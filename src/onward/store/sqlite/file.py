"""The file of a SQLite store: how it is made, how every connection to it is set up, and which schema it has."""

from __future__ import annotations

import errno
import functools
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from onward.errors import StoreError
from onward.store.rows import MICROSECOND
from onward.store.schema import Migration, migrations, pending, refuse_other_schema
from onward.store.sql import load, statements
from onward.store.sqlite.files import refuse_network_file_system
from onward.store.sqlite.writer import transaction

WAL_BYTES_MAX = 64_000_000  # the log file is cut back to this after a checkpoint
CACHE_KB = 16_000

SQL = load("sqlite.sql")
MIGRATIONS = migrations(SQL)
SCHEMA = MIGRATIONS[-1].number  # the newest that this code knows
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = -62_000_000_000_000_000, 253_000_000_000_000_000  # the years 5 and 9987
# Broken bytes in one column must not take a whole claim down with them.
_LENIENT_TEXT = functools.partial(str, encoding="utf-8", errors="surrogateescape")


def make_file(path: str) -> str:
    """Makes the file where there is none, mode 0600, and answers its whole path. Raises StoreError.

    One that is there is not opened: closing it again would drop the locks that SQLite has on it for this whole program, and
    the next program to leave would take the log with it, and our writes.
    """
    path = str(Path(path).resolve())  # the same file and lock, by whatever name and from whatever folder
    refuse_network_file_system(path)
    try:
        if Path(path).exists() and not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if Path(path).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise StoreError(
            f"cannot open {path}: {error.strerror}",
            hint=f"make its folder: mkdir -p {Path(path).parent}" if missing else "file and folder must be writable",
        ) from None
    return path


def connect(name: str, busy_s: float, *, uri: bool = False, writes: bool = True) -> sqlite3.Connection:
    """A connection for writing and reading. The file must be there already, unless `name` is memory's. One that never
    `writes` leaves a file that is not ours as it is.
    """
    connection = sqlite3.connect(
        name, timeout=busy_s, isolation_level=None, check_same_thread=False, cached_statements=64, uri=uri
    )
    connection.text_factory = _LENIENT_TEXT
    for pragma in (
        "journal_mode=WAL" if writes else "query_only=ON",
        "synchronous=FULL",  # what is acknowledged outlives a power cut; in groups that costs next to nothing
        "wal_autocheckpoint=0",  # the writer does it, see there
        f"journal_size_limit={WAL_BYTES_MAX}",
        "mmap_size=0",
        "secure_delete=ON",  # what is deleted or replaced is overwritten in the file; Debian's SQLite does so anyway
        f"cache_size=-{CACHE_KB}",
    ):
        try:
            connection.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def schema_of(connection: sqlite3.Connection | sqlite3.Cursor) -> int:
    """0 where there are no tables of ours."""
    if not connection.execute(SQL["schema there"]).fetchone()[0]:
        return 0
    number: int = connection.execute(SQL["schema found"]).fetchone()[0]
    return number


def make_or_refuse(connection: sqlite3.Connection, path: str) -> None:
    """Makes all tables where there are none: a newcomer needs no set-up. Any schema but ours is refused, and left as it is."""
    if not schema_of(connection):
        with transaction(connection):
            if not schema_of(connection):  # asked again: another program may have been faster
                _apply(connection, MIGRATIONS)
    refuse_other_schema(f"sqlite:///{path}", schema_of(connection), SCHEMA)


def upgrade(connection: sqlite3.Connection, known: Sequence[Migration] = MIGRATIONS) -> list[int]:
    """Applies what is pending, each migration in a transaction of its own. A new file is never seen half-made."""
    done: list[int] = []
    while True:
        with transaction(connection):
            found = schema_of(connection)
            left = pending(known, found)
            now = left[:1] if found else left
            _apply(connection, now)
        done += [each.number for each in now]
        if len(now) == len(left):
            return done


def _apply(connection: sqlite3.Connection, some: Sequence[Migration]) -> None:
    connection.execute(SQL["schema table"])
    for each in some:
        for statement in statements(each.sql):
            connection.execute(statement)
        connection.execute(SQL["schema add"], (each.number,))


# -- instants -----------------------------------------------------------------------------------------------------


def micros(instant: datetime) -> int:
    return (instant - _EPOCH) // MICROSECOND


def instant(micros: int) -> datetime:
    # Within what a datetime can say: a row that somebody spoiled must not hold up the ones that are read with it.
    return _EPOCH + timedelta(microseconds=min(max(micros, _EARLIEST), _LATEST))
