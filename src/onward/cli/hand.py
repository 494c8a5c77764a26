"""`onward move | edit | fork`: what takes more than a verb. Each shows first what it would do, with --dry-run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.data import changed, read
from onward.cli.diff import lines
from onward.cli.failing import ENDED_BADLY
from onward.cli.ids import find_one
from onward.cli.many import act_on_all
from onward.cli.output import Output, condition_text
from onward.cli.settings import Settings, can_ask, pass_settings
from onward.cli.target import with_app
from onward.process import Record
from onward.telling import shapes
from onward.telling.diff import changes, described
from onward.telling.secrets import masked, restored
from onward.telling.text import one_line, to_json

IF_VERSION = click.option("--if-version", type=click.IntRange(0), metavar="N", help="Only if it is at this version, else exit 4.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only tell what would become of it.")


@command(
    "move",
    "onward move q3-report files_deleted",
    "onward move q3-report created --force --reason 'uploaded by hand'",
    "onward move --query 'is:failed status:uploaded' created --force --max 50 --reason 'new bucket'",
)
@click.argument("words", nargs=-1, required=True, metavar="[ID] STATUS")
@click.option("--query", metavar="QUERY", help="Instead of ID: all that match, as in onward ls.")
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="With --query: not if more than N match.")
@click.option("--force", is_flag=True, help="Also where the flow declares no such transition. Takes a --reason.")
@IF_VERSION
@DRY_RUN
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_settings
def move(
    settings: Settings,
    words: Sequence[str],
    query: str | None,
    most: int | None,
    force: bool,
    if_version: int | None,
    dry_run: bool,
    yes: bool,
) -> int:
    """Move a process to STATUS, as if its handler had returned that. Needs the app."""
    if len(words) != (1 if query else 2):
        raise click.UsageError("write: onward move ID STATUS, or: onward move --query QUERY STATUS")
    output, given = Output(settings), {"to": words[-1], "force": force}

    async def work(app: Onward) -> int:
        if query:
            return await act_on_all(app, output, "move", query, most=most, dry_run=dry_run, yes=yes, **given)
        record = await find_one(app, words[0])
        what: dict[str, Any] = {**given, "version": if_version, "reason": settings.reason, "actor": settings.who}
        if dry_run:
            _, change = await app.plan(record.id, "move", **what)
            assert change is not None
            output.line(f"{one_line(record.id)} would be {condition_text(change.condition)} at {one_line(change.status)}")
            return 0
        _print(output, await app.move(record.id, **what))
        return 0

    return with_app(settings, work, needs_flows="move")


@command(
    "edit",
    "onward edit q3-report --set question=Total",
    "onward edit q3-report --data @mended.json --dry-run",
    "onward edit q3-report",
)
@click.argument("id")
@click.option("--data", metavar="JSON|@FILE|-", help="All of its data: a JSON object, a file, or stdin.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="One field: JSON if it parses, else text.")
@IF_VERSION
@DRY_RUN
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_settings
def edit(
    settings: Settings, id: str, data: str | None, sets: Sequence[str], if_version: int | None, dry_run: bool, yes: bool
) -> int:
    """Change the data of a process; its model has to accept them. Needs the app. Whoever edits data steers handlers."""
    output = Output(settings)

    async def work(app: Onward) -> int:
        record = await find_one(app, id)
        version = record.version if if_version is None else if_version
        before = shapes.stored(record.data)
        wanted = _wanted(before, data, sets)
        if wanted is None:
            output.note("nothing was changed")
            return ENDED_BADLY
        what: dict[str, Any] = {"version": version, "reason": settings.reason, "actor": settings.who}
        what["data"] = restored(wanted, before)
        _, change = await app.plan(record.id, "edit", **what)
        assert change is not None and change.data is not None
        found = list(changes(masked(before), masked(json.loads(change.data))))
        if dry_run and settings.is_json:
            output.document("diff/1", {"id": record.id, "from": record.version, "changes": [described(one) for one in found]})
            return 0
        for one in found:
            for line in lines(one):
                output.line(line, to_stderr=not dry_run)
        if dry_run or not found:
            output.note("dry run: nothing is changed" if found else "the data are the same; nothing was changed")
            return 0
        if can_ask() and not yes and not click.confirm(f"save this to {one_line(record.id)}?", err=True):
            return ENDED_BADLY
        _print(output, await app.edit(record.id, **what))
        return 0

    return with_app(settings, work, needs_flows="edit")


def _wanted(before: Any, data: str | None, sets: Sequence[str]) -> dict[str, Any] | None:
    """The data as they shall be; None if the editor was left without a change. Secrets stay masked, and what they are."""
    shown = masked(before)
    if data is not None or sets:
        return changed(read(data) if data is not None else dict(shown), sets)
    if not can_ask():
        raise click.UsageError("say what to change: --set key=value, or --data; in a terminal it opens $EDITOR")
    text = click.edit(to_json(shown) + "\n", extension=".json")
    return None if text is None else read(text)


@command("fork", "onward fork q3-report --at 4", "onward fork q3-report --id q3-again --reason 'with the new prompt'")
@click.argument("id")
@click.option("--at", type=click.IntRange(0), metavar="N", help="As it was after version N; else as it is now.")
@click.option("--id", "new_id", metavar="NEW", help="The id of the new one.")
@DRY_RUN
@pass_settings
def fork(settings: Settings, id: str, at: int | None, new_id: str | None, dry_run: bool) -> None:
    """Begin a new process as ID was; its own id goes to stdout. Needs the app.

    Both know the same things outside. What looks like one is listed: what one of them deletes, the other will miss.
    """
    output = Output(settings)

    async def work(app: Onward) -> None:
        record = await find_one(app, id)
        for name in await app.shared(record.id, at):
            output.note(f"both would share {one_line(name)}")
        if dry_run:
            output.note("dry run: nothing is changed")
            return
        made = await app.fork(record.id, at=at, new_id=new_id, reason=settings.reason, actor=settings.who)
        output.note(f"forked from {one_line(record.id)}: {made.condition} at {one_line(made.status)}")
        if settings.is_json:
            output.document("process/1", {**shapes.process(made), "data": masked(shapes.stored(made.data))})
        else:
            output.line(one_line(made.id))

    with_app(settings, work, needs_flows="fork")


def _print(output: Output, record: Record) -> None:
    if output.settings.is_json:
        output.document("process/1", shapes.process(record))
    elif output.settings.shape == "ids":
        output.line(one_line(record.id))
    else:
        state = condition_text(record.condition)
        output.line(f"{one_line(record.id)} is {state} at {one_line(record.status)}, version {record.version}")
