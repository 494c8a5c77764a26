"""Where the programs of a test meet: a folder, in which they keep their books, and the store that this folder names.

Both kinds of store are read here, past all of our own code: instants come as microseconds and data as text from either.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import postgres
import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader

from onward.clock import SystemClock
from onward.store import upkeep_of
from onward.store.urls import is_postgres

from .points_postgres import SPY

STORES = ("sqlite", "postgres")
FEW = {"CONNECTIONS_MAX": 3, "TRANSACTIONS_MAX": 2}  # sessions of a program, for many of them share one server
LEFT_S = 10.0  # for the sessions of dead programs to end
CONNECT_S = 10
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def store_of(folder: Path) -> str:
    """Its URL. A folder that names none has a SQLite file."""
    named = folder / "store"
    return named.read_text() if named.exists() else f"sqlite:///{folder}/onward.db"


@contextmanager
def reading(folder: Path, *, write: bool = False) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """All that is asked meanwhile is answered as of one instant. `write`: SQLite may put in order what a crash has left."""
    url = store_of(folder)
    if is_postgres(url):
        with psycopg.connect(url, connect_timeout=CONNECT_S, row_factory=dict_row) as session:
            session.isolation_level = IsolationLevel.REPEATABLE_READ
            session.adapters.register_loader("jsonb", TextLoader)
            yield lambda question: [_plain(row) for row in session.execute(question.encode())]
        return
    with closing(sqlite3.connect(f"file:{folder}/onward.db?mode={'rw' if write else 'ro'}", uri=True)) as file:
        file.row_factory = sqlite3.Row
        file.execute("BEGIN")
        yield lambda question: [dict(row) for row in file.execute(question)]
        file.rollback()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: (value - EPOCH) // MICROSECOND if isinstance(value, datetime) else value for key, value in row.items()}


def finished(folder: Path) -> int:
    """How many processes are."""
    with reading(folder) as ask:
        number: int = ask("SELECT count(*) AS finished FROM onward_process WHERE condition = 'finished'")[0]["finished"]
        return number


class Places:
    """Folders with stores. Databases are emptied and used again: to drop one costs the server half a second."""

    def __init__(self, server: postgres.Server, root: Path) -> None:
        self._server, self._root = server, root
        self._lock = threading.Lock()
        self._given = 0
        self._all: list[str] = []
        self._free: list[str] = []

    def close(self) -> None:
        for name in self._all:
            self._server.drop_database(name)

    @contextmanager
    def at(self, store: str, name: str) -> Iterator[Path]:
        """A folder with an empty store of this kind; when it is given back, nobody may need it any more."""
        with self._lock:
            self._given += 1
            folder = self._root / f"{self._given}-{store}-{name}"
            database = "" if store == "sqlite" else self._free.pop() if self._free else self._make()
        folder.mkdir()
        if database:
            (folder / "store").write_text(self._server.url_of(database))
        yield folder
        if database:  # not after an error, which may have left programs that work on it
            self._empty(database)
            with self._lock:
                self._free.append(database)

    def _make(self) -> str:
        name = f"onward_faults_{secrets.token_hex(6)}"
        url = self._server.create_database(name)
        self._all.append(name)
        asyncio.run(upkeep_of(url, SystemClock(), virtual=False).upgrade(lambda _: None))
        with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S) as connection:
            connection.execute(SPY.encode())
            connection.execute("CREATE TABLE booking (process_id text, version integer, epoch integer)")
        return name

    def _empty(self, name: str) -> None:
        """A program that was killed may have left a session that is still at work for it."""
        with psycopg.connect(self._server.url_of(name), autocommit=True, connect_timeout=CONNECT_S) as connection:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(f"SELECT pg_terminate_backend(pid) {others} AND backend_type = 'client backend'".encode())
            until = time.monotonic() + LEFT_S
            while connection.execute(f"SELECT 1 {others} AND backend_type = 'client backend'".encode()).fetchone():
                assert time.monotonic() < until, f"somebody is still connected to {name}"
                time.sleep(0.01)
            for table in ("onward_process", "onward_history", "onward_step", "booking"):  # TRUNCATE takes ten times as long
                connection.execute(f"DELETE FROM {table}".encode())
            connection.execute("DROP TABLE IF EXISTS sale")
