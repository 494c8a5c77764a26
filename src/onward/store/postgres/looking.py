"""How a PostgreSQL database is searched: in a transaction of its own, so that each statement is planned as searches need it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from onward.ports import WALK_CHARS, Known, Search
from onward.store.search import FEW_MAX, Dialect, Way, like, numbered, ways
from onward.store.sql import load

SQL = load("postgres.sql")
WALK_AT_ONCE = 50  # rows that the server sends at once; each may have a megabyte


def known_json(known: Known) -> str:
    return by_flow([(flow, f"{version} {status}") for flow, status, version in known])


def by_flow(pairs: Sequence[tuple[str, str]]) -> str:
    """{flow: [texts]}, which a row can be looked up in by its own."""
    texts: dict[str, list[str]] = {}
    for flow, text in pairs:
        texts.setdefault(flow, []).append(text)
    return json.dumps(texts)


DIALECT = Dialect(SQL, like, known_json, by_flow)


@asynccontextmanager
async def planned(connection: Any) -> AsyncIterator[Any]:
    """One snapshot for all that is asked. After trouble with the connection itself it is left as it is: it ends."""
    await connection.execute(SQL["search begin"])
    try:
        yield connection
    except asyncpg.PostgresError:
        await connection.execute(SQL["search end"])
        raise
    await connection.execute(SQL["search end"])


async def find(connection: Any, search: Search, now: datetime | None) -> list[Any]:
    """The rows of a search, as the block `columns` or `light` has them."""
    way = await _way(connection, search)
    until = await _place(connection, search, way, now)
    return await _asked(connection, *DIALECT.find(search, way, until), now)


async def past(connection: Any, search: Search, now: datetime | None) -> str:
    place = await _place(connection, search, await _way(connection, search), now)
    return "" if place is None else place[1]


async def walk(connection: Any, after: str, limit: int, now: datetime | None) -> list[Any]:
    """The rows of a part of a walk; `connection` is in a transaction."""
    rows: list[Any] = []
    chars = 0
    async for row in connection.cursor(SQL["walk"], now, after, limit, prefetch=WALK_AT_ONCE):
        rows.append(row)
        chars += len(row[4])
        if chars > WALK_CHARS:
            break
    return rows


async def _way(connection: Any, search: Search) -> Way:
    for way in ways(search.terms):
        for part in way.counted:
            if (await _asked(connection, *DIALECT.statement([part]), None))[0][0] > FEW_MAX:
                break
        else:
            return way
    raise AssertionError("the last way counts nothing")


async def _place(connection: Any, search: Search, way: Way, now: datetime | None) -> tuple[datetime, str] | None:
    """When the last row that it may look at was made, and its id; None where none comes after it."""
    if not search.looks or not way.in_order:
        return None
    rows = await _asked(connection, *DIALECT.place(search, way), now)
    return (rows[0][0], rows[0][1]) if len(rows) == 2 else None


async def _asked(connection: Any, statement: str, values: Mapping[str, Any], now: datetime | None) -> list[Any]:
    timed = SQL["now"] in statement
    text, numbers = numbered(statement, values, 2 if timed else 1)
    rows: list[Any] = await connection.fetch(text, *([now] if timed else []), *numbers)
    return rows
