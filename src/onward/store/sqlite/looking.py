"""How a SQLite file is looked at: the threads that read, and the statements of a search."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

from onward.ports import WALK_CHARS, Search
from onward.store.rows import MICROSECOND
from onward.store.search import FEW_MAX, Dialect, Part, Way, glob, ways
from onward.store.sqlite.file import SQL, micros

DIALECT = Dialect(SQL, glob, known=list, pairs=list)
LAST = 2**62  # later than any instant


class Reader:
    """A thread and a connection of its own, so that a read waits for nobody but those that came to it before."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        self._connect = connect
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    async def read(self, run: Callable[[sqlite3.Connection], Any]) -> Any:
        """Opens the connection with the first one that comes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: run(self.open()))

    def close(self) -> None:
        """After what is being read."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()


def find(connection: sqlite3.Connection, search: Search, now: int) -> list[Any]:
    """The rows of a search, as the block `columns` or `light` has them."""
    way = _way(connection, search)
    until = _place(connection, search, way)
    return _asked(connection, *DIALECT.find(search, way, until), now=now)


def past(connection: sqlite3.Connection, search: Search) -> str:
    place = _place(connection, search, _way(connection, search))
    return "" if place is None else place[1]


def walk(connection: sqlite3.Connection, after: str, limit: int, now: int) -> Iterator[Any]:
    """The rows of a part of a walk."""
    chars = 0
    rows = connection.execute(SQL["walk"], {"after": after, "limit": limit, "now": now})
    for row in rows:
        yield row
        chars += len(row[4])
        if chars > WALK_CHARS:
            break
    rows.close()


def _way(connection: sqlite3.Connection, search: Search) -> Way:
    return next(way for way in ways(search.terms) if all(_is_short(connection, part) for part in way.counted))


def _is_short(connection: sqlite3.Connection, part: Part) -> bool:
    statement, values = DIALECT.statement([part])
    number: int = connection.execute(statement, values).fetchone()[0]
    return number <= FEW_MAX


def _place(connection: sqlite3.Connection, search: Search, way: Way) -> tuple[int, str] | None:
    """When the last row that it may look at was made, and its id; None where none comes after it."""
    if not search.looks or not way.in_order:
        return None
    rows = _asked(connection, *DIALECT.place(search, way))
    return (rows[0][0], rows[0][1]) if len(rows) == 2 else None


def _asked(connection: sqlite3.Connection, statement: str, values: Mapping[str, Any], **more: Any) -> list[Any]:
    bound = {name: _bound(value) for name, value in values.items()}
    answer: list[Any] = json.loads(connection.execute(statement, {**bound, **more}).fetchone()[0])
    return answer


def _bound(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, timedelta):
        return value // MICROSECOND
    return micros(value) if isinstance(value, datetime) else value
