"""A store in which a disk, a tool or a careless person wrote anything into any column of text: others are served, and whoever
looks or acts is answered, or told no in words of ours.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import opened, working
from hypothesis import example, given
from hypothesis import strategies as st
from panel.conftest import Panel, authorize
from panel.odd import docs, filled_file
from panel.walk import pages
from test_bad_input import NEIGHBOURS, Neighbour

from onward import Condition, Onward, OnwardError
from onward.panel import panel as make_panel

from .effort import fuzz, texts

VICTIMS = ("waits", "failed", "retries", "finished", "paused", "cancelled", "ready")
COLUMNS = {
    "onward_process": ("id", "flow", "status", "data", "owner", "error", "kind", "actor", "reason"),
    "onward_history": ("process_id", "kind", "from_status", "to_status", "actor", "reason", "data"),
    "onward_step": ("process_id", "name", "result"),
}
KEY = {"onward_process": "id", "onward_history": "process_id", "onward_step": "process_id"}
SERVED_S = 10.0

written = st.binary(max_size=30) | texts.map(lambda text: text.encode("utf-8", "surrogatepass"))
written |= st.sampled_from(
    [b'{"topic":"' + byte for byte in (b"\xff", b'\\ud800"}', b'a\0"}', b'a","pages":' + b"9" * 5_000 + b"}")]
)
spots = st.sampled_from([(table, column) for table, columns in COLUMNS.items() for column in columns])
damages = st.lists(st.tuples(spots, st.sampled_from(VICTIMS), written), min_size=1, max_size=3)
Damage = tuple[tuple[str, str], str, bytes]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def damage(path: Path, one: Damage) -> None:
    (table, column), victim, value = one
    lease = ", lease_until = 1" if column == "owner" else ""
    with closing(sqlite3.connect(path)) as connection, connection:
        try:
            connection.execute(f"UPDATE {table} SET {column} = cast(? AS TEXT){lease} WHERE {KEY[table]} = ?", (value, victim))
        except sqlite3.IntegrityError:  # the database itself refuses it
            pass


@asynccontextmanager
async def damaged(path: Path, damages: list[Damage]) -> AsyncIterator[Onward]:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    url = await filled_file(path, datetime.now(UTC) - timedelta(hours=1))
    for one in damages:
        damage(path, one)
    async with opened(docs, NEIGHBOURS, url=url) as app:
        yield app


async def answered(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What it answers, or the error that says why not."""
    try:
        return await ask()
    except OnwardError as error:
        assert str(error)
        return error


@fuzz(12)
@given(damages)
def test_whatever_stands_in_a_row_the_others_are_served_and_the_worker_lives(
    runner: asyncio.Runner, path: Path, damages: list[Damage]
) -> None:
    async def serve() -> None:
        async with damaged(path, damages) as app, working(app) as worker:
            started = await app.start_many(Neighbour() for _ in range(3))
            for record in started:
                assert (await app.wait(record.id, timeout=SERVED_S)).condition is Condition.FINISHED
            assert not worker.done()

    runner.run(serve())


@fuzz(12)
@given(damages, st.sampled_from(VICTIMS))
@example([(("onward_process", "id"), "ready", b"x\xc3")], "ready")
def test_whatever_stands_in_a_row_who_looks_or_acts_is_answered(
    runner: asyncio.Runner, path: Path, damages: list[Damage], id: str
) -> None:
    async def look_and_act() -> None:
        async with damaged(path, damages) as app:
            found = await app.find()
            assert isinstance(await app.counts(), list)
            for whole in set(VICTIMS) - {victim for _, victim, _ in damages}:
                assert whole in {record.id for record in found}
                assert (await app.get(whole)).process.topic and await app.history(whole) and await app.explain(whole)
            for query in ("is:failed", "data.topic:harbour", "error:x", "-id:a*", "actor:x"):
                await answered(lambda query=query: app.find(query))  # type: ignore[misc]
            for look in (app.get, app.history, app.explain, lambda one: app.data_at(one, 0)):
                await answered(lambda look=look: look(id))  # type: ignore[misc]
            for verb in ("wake", "retry", "pause", "resume", "cancel", "stop", "delete"):
                await answered(lambda verb=verb: getattr(app, verb)(id))  # type: ignore[misc]
            assert (await app.start(Neighbour(id="after"))).version == 0

    runner.run(look_and_act())


@fuzz(3)
@given(damages)
def test_whatever_stands_in_a_row_every_page_is_an_answer(runner: asyncio.Runner, path: Path, damages: list[Damage]) -> None:
    async def walk() -> None:
        async with damaged(path, damages) as app:
            panel = Panel(make_panel(app, authorize=authorize), app=app)
            for id in {victim for _, victim, _ in damages}:
                for page in pages(panel.asgi, id, "doc"):
                    answer = await panel.get(page)
                    assert answer.status < 500, (page, answer.status, answer.text[:2_000])

    runner.run(walk())
