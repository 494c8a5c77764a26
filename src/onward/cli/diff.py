"""`onward diff`: what changed in a process's data between two versions, path by path."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.ids import find_one
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.errors import NotFound
from onward.process import Entry
from onward.telling.diff import MISSING, Change, changes, described, value_text
from onward.telling.story import all_entries
from onward.telling.text import one_line


@command("diff", "onward diff q3-report", "onward diff q3-report 2..5", "onward diff q3-report 4")
@click.argument("id")
@click.argument("versions", required=False, metavar="[A..B]")
@pass_settings
def diff(settings: Settings, id: str, versions: str | None) -> None:
    """What changed in the data of a process: from version A to B; A alone is what commit A did; nothing: the last change."""
    asked = _parse(versions)
    output = Output(settings)

    async def work(app: Onward) -> None:
        record = await find_one(app, id)
        entries = [entry async for entry in all_entries(app, record.id)]
        first, last = _between(asked, entries)
        before = {} if first < 0 else await app.data_at(record.id, first)
        after = await app.data_at(record.id, last)
        found = list(changes(before, after))
        if settings.is_json:
            output.document("diff/1", {"id": record.id, "from": first, "to": last, "changes": [described(c) for c in found]})
            return
        output.note(_head(entries, first, last))
        for change in found:
            for line in lines(change):
                output.line(line)
        if not found:
            output.note("the data did not change")

    with_app(settings, work)


def _parse(versions: str | None) -> tuple[int | None, int | None] | None:
    if versions is None:
        return None
    match = re.fullmatch(r"(\d+)(\.\.(\d*))?", versions)
    if match is None:
        raise click.UsageError(f"{versions!r} names no versions: write 2..5, 2.. or 5")
    if match[2] is None:
        return int(match[1]) - 1, int(match[1])
    return int(match[1]), int(match[3]) if match[3] else None


def _between(asked: tuple[int | None, int | None] | None, entries: list[Entry]) -> tuple[int, int]:
    """The two versions; -1 is the nothing before the start. Raises NotFound."""
    newest = entries[-1].version
    if asked is None:
        last = next(entry.version for entry in reversed(entries) if entry.data is not None or entry.version == 0)
        return last - 1, last
    first, last = asked[0] or 0, newest if asked[1] is None else asked[1]
    first = -1 if asked[0] == -1 else first
    if max(first, last) > newest:
        raise NotFound(f"there is no version {max(first, last)}; the last one is {newest}", hint="all of them: onward history ID")
    return first, last


def lines(change: Change) -> Iterator[str]:
    if change.before is not MISSING:
        yield click.style(f"- {one_line(change.path)}: {value_text(change.before)}", fg="red")
    if change.after is not MISSING:
        yield click.style(f"+ {one_line(change.path)}: {value_text(change.after)}", fg="green")


def _head(entries: list[Entry], first: int, last: int) -> str:
    statuses = {entry.version: one_line(entry.to_status) for entry in entries}
    begin = f"version {first} ({statuses[first]})" if first in statuses else "nothing"
    return f"{begin} → version {last} ({statuses[last]})"
