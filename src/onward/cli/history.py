"""`onward history`: what happened to a process, commit by commit, with runs of identical polls folded into one line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import click

from onward.app import Onward
from onward.cli import shapes
from onward.cli.command import command
from onward.cli.ids import find_one
from onward.cli.output import Output, one_line
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.control import Control
from onward.explain import length
from onward.process import Entry

PAGE = 1_000
POLL = "not yet"  # the kind of a commit that left its process where it was


@dataclass
class Line:
    """An entry, or `times` polls of the same status of which `entry` is the last."""

    entry: Entry
    times: int = 1


@command("history", "onward history q3-report", "onward history q3-report --all", "onward history q3-report --json")
@click.argument("id")
@click.option("--all", "show_all", is_flag=True, help="Every single poll.")
@pass_settings
def history(settings: Settings, id: str, show_all: bool) -> None:
    """What happened to a process: when, what, from where to where, how long it took, who did it and why."""
    output = Output(settings)

    async def work(app: Onward) -> None:
        record = await find_one(app, id)
        entries = [entry async for entry in all_entries(app, record.id)]
        if settings.shape == "jsonl":
            output.stream("entry/1", ({"id": record.id, **shapes.entry(entry)} for entry in entries))
        elif settings.shape == "json":
            output.document("history/1", {"id": record.id, "entries": [shapes.entry(entry) for entry in entries]})
        else:
            lines = [Line(entry) for entry in entries] if show_all else list(folded(entries))
            output.table(("VERSION", "AT (UTC)", "WHAT", "STATUS", "TOOK", "BY", "WHY"), map(_row, lines))

    with_app(settings, work)


async def all_entries(control: Control, id: str, after: int = -1) -> AsyncIterator[Entry]:
    while True:
        page = await control.history(id, after=after, limit=PAGE)
        for entry in page:
            yield entry
        if len(page) < PAGE:
            return
        after = page[-1].version


def folded(entries: Iterable[Entry]) -> Iterator[Line]:
    """Polls of one visit that follow each other become one line."""
    line: Line | None = None
    for entry in entries:
        if line is not None and entry.kind == line.entry.kind == POLL and entry.transition == line.entry.transition:
            line = Line(entry, line.times + 1)
            continue
        if line is not None:
            yield line
        line = Line(entry)
    if line is not None:
        yield line


def _row(line: Line) -> tuple[str, ...]:
    entry = line.entry
    return (
        f"{entry.version:>7}",
        entry.at.strftime("%Y-%m-%d %H:%M:%S"),
        entry.kind + (f" ×{line.times}" if line.times > 1 else ""),
        way(entry),
        took(entry.took),
        one_line(entry.actor, 40),
        one_line(entry.reason or "", 160),
    )


def way(entry: Entry) -> str:
    """The status, or both where it changed."""
    to = one_line(entry.to_status)
    return to if entry.from_status in (None, entry.to_status) else f"{one_line(entry.from_status or '')} → {to}"


def took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else length(timedelta(seconds=seconds))
