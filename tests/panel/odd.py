"""Processes as nobody wishes for them: with secrets, with data of every kind, broken, huge, hostile, and with a long history."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from onward import END, Context, Every, Flow, Onward, Process, Retry, Secret, Unrecoverable, stage
from onward.testing import ManualClock

CANARY = "sk-canary-7781-do-not-show"
NASTY = "\"><img src=x onerror=alert(1)>'&{{7*7}} ../../etc/passwd"


class Step(StrEnum):
    """A life with a way back, a poll, a clean-up, and an end."""

    FETCH = auto()
    WRITE = auto()
    AWAIT = auto()
    CLEAN = auto()
    DONE = auto()


class Colour(StrEnum):
    RED = auto()
    GREEN = auto()


class Address(BaseModel):
    street: str
    number: int


class Doc(Process[Step]):
    status: Step = Step.FETCH
    topic: str = Field(description="What it is about.")
    token: Secret[str] = ""
    pages: int = 1
    price: float = 0.5
    urgent: bool = False
    colour: Colour = Colour.RED
    words: list[str] = []
    counts: list[int] = []
    address: Address | None = None
    nickname: str | None = None
    files: dict[str, str] = {}
    log: list[str] = []
    fate: str = ""


async def fetch(doc: Doc, ctx: Context) -> Literal[Step.WRITE]:
    if doc.fate == "fails":
        raise Unrecoverable(f"NotFoundError: no such file {NASTY}")
    if doc.fate == "retries":
        raise ConnectionError("the service is busy")
    for name in ("minutes.md", "figures.csv"):
        doc.files[name] = await ctx.once(f"upload {name}", _upload, name)
        await ctx.save()
    return Step.WRITE


async def _upload(name: str) -> str:
    return f"file-{name[:3]}01"


async def write(doc: Doc) -> Literal[Step.AWAIT, Step.FETCH]:
    doc.log.append("written")
    return Step.AWAIT


async def look(doc: Doc) -> Literal[Step.AWAIT, Step.CLEAN]:
    return Step.CLEAN if doc.fate == "finishes" else Step.AWAIT


async def clean(doc: Doc) -> Literal[Step.DONE]:
    doc.files = {}
    return Step.DONE


docs = Flow(
    Doc,
    {
        Step.FETCH: stage(fetch, retry=Retry(attempts=4, first=60)),
        Step.WRITE: write,
        Step.AWAIT: stage(look, every=Every(seconds=60), within=86_400 * 300, otherwise=Step.CLEAN),
        Step.CLEAN: clean,
        Step.DONE: END,
    },
    on_cancel=Step.CLEAN,
    name="doc",
)


def opened(url: str, clock: ManualClock | None = None) -> Onward:
    return Onward(url, [docs], clock=clock)


async def filled(app: Onward) -> None:
    """One process for each condition that a process of this flow can be in, named after it, and a few more."""
    fates = {"waits": "", "failed": "fails", "retries": "retries", "finished": "finishes", "paused": "", "cancelled": ""}
    for id, fate in fates.items():
        await app.start(Doc(id=id, topic="harbour", token=CANARY, fate=fate), actor="api")
        await app.check(id)
    await app.pause("paused", actor="ines", reason="the customer asked us to wait")
    await app.cancel("cancelled", actor="ines", reason="ordered twice")
    await app.start(Doc(id="ready", topic="orchard", token=CANARY), actor="api")
    await app.start(Doc(id=NASTY, topic=NASTY, nickname=NASTY, words=[NASTY]), actor=NASTY)


_MADE: list[bytes] = []


async def filled_file(path: Path, now: datetime) -> str:
    """The URL of a new store of them at `path`, which stands as it was at `now`. Made once, and then copied."""
    url = f"sqlite:///{path}"
    if not _MADE:
        async with opened(url, ManualClock(now)) as app:
            await filled(app)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        _MADE.append(path.read_bytes())
    path.write_bytes(_MADE[0])
    path.chmod(0o600)
    return url


def rewrite(path: Path, id: str, **columns: Any) -> None:
    """Behind the back of the store: as an older release, a careless person or a faulty disk would leave it."""
    names = ", ".join(f"{name} = ?" for name in columns)
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE onward_process SET {names} WHERE id = ?", (*columns.values(), id))
    connection.close()


def with_long_history(path: Path, id: str, polls: int) -> None:
    """As if it had said "not yet" so often more, its data another each time."""
    first = json.dumps({"topic": "harbour"})
    with sqlite3.connect(path) as connection:
        [version] = connection.execute("SELECT version FROM onward_process WHERE id = ?", (id,)).fetchone()
        connection.execute(
            """
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
            INSERT INTO onward_history
                   (process_id, version, at, kind, from_status, to_status, transition, attempt, epoch, actor, took, reason, data)
            SELECT process_id, version + i, at + i * 1000000, 'not yet', to_status, to_status, transition, 1, epoch, 'worker-1',
                   5000, NULL, json_set(?, '$.pages', i)
              FROM onward_history, n WHERE process_id = ? AND version = ?
            """,
            (polls - 1, first, id, version),
        )  # the last one is written by the store's own trigger
        connection.execute(
            """
            UPDATE onward_process
               SET kind = 'not yet', version = version + ?, updated_at = updated_at + ? * 1000000, polls = ?,
                   data = json_set(?, '$.pages', ?)
             WHERE id = ?
            """,
            (polls, polls, polls, first, polls, id),
        )
    connection.close()
