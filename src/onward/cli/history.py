"""`onward history`: what happened to a process, commit by commit, with runs of identical polls folded into one line."""

from __future__ import annotations

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.ids import find_one
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.telling import shapes
from onward.telling.story import Line, all_entries, folded, took, way
from onward.telling.text import one_line


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
