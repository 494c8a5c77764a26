"""`onward compare`: two processes side by side, as a fork and its origin: where they part, and what became of each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.diff import lines
from onward.cli.ids import find_one
from onward.cli.output import Output, condition_text
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.explain import length
from onward.process import Record
from onward.telling import shapes
from onward.telling.diff import described
from onward.telling.parting import Parting, Row, parting
from onward.telling.story import Line, way
from onward.telling.text import one_line


@command("compare", "onward compare q3-report q3-again", "onward compare q3-report q3-again --json")
@click.argument("one")
@click.argument("other")
@pass_settings
def compare(settings: Settings, one: str, other: str) -> None:
    """Two futures: where a process and its fork part, how each went on from there, and how their data differ now.

    Of two that share no past, as one that failed and one that did not, all is compared. Two versions of one: onward diff.
    """
    output = Output(settings)

    async def work(app: Onward) -> None:
        left, right = await find_one(app, one), await find_one(app, other)
        if left.id == right.id:
            raise click.UsageError(f"that is one process; two versions of it: onward diff {one_line(left.id)} A..B")
        told = await parting(app, left, right)
        if settings.is_json:
            output.document("compare/1", _described(left, right, told))
        else:
            _print(output, left, right, told)

    with_app(settings, work)


def _print(output: Output, one: Record, other: Record, told: Parting) -> None:
    output.line(_head(one, other, told))
    output.line()
    rows = [_cells(row, told.begins) for row in told.rows]
    if told.left:
        rows.append(("", f"and {told.left:,} more", "onward history ID"))
    rows.append(("", _now(one), _now(other)))
    output.table(("", one_line(one.id, 80), one_line(other.id, 80)), rows)
    output.line()
    if not told.changes:
        output.line("their data are the same")
        return
    output.line(f"from the data of {one_line(one.id)} to those of {one_line(other.id)}:")
    for change in told.changes:
        for line in lines(change):
            output.line(line)


def _now(record: Record) -> str:
    return f"now {condition_text(record.condition)} at {one_line(record.status)}"


def _head(one: Record, other: Record, told: Parting) -> str:
    common = told.common
    if common is None:
        return "they share no past that is known: compared from their beginnings"
    return f"they are one until version {common.version} of {one_line(common.process_id)}, at {one_line(common.to_status)}"


def _cells(row: Row, begins: tuple[datetime, datetime]) -> tuple[str, str, str]:
    return "=" if row.is_same else "≠", _cell(row.one, begins[0]), _cell(row.other, begins[1])


def _cell(line: Line | None, begin: datetime) -> str:
    if line is None:
        return ""
    entry, often = line.entry, f" ×{line.times}" if line.times > 1 else ""
    return f"{entry.version}, after {length(entry.at - begin)}: {entry.kind}{often}, {way(entry)}"


def _described(one: Record, other: Record, told: Parting) -> dict[str, Any]:
    common = told.common
    at = None if common is None else {"id": common.process_id, "version": common.version, "status": common.to_status}
    return {
        "one": shapes.process(one),
        "other": shapes.process(other),
        "common": at,
        "rows": [{"same": row.is_same, **dict(_sides(row))} for row in told.rows],
        "rows_left": told.left,
        "changes": [described(change) for change in told.changes],
    }


def _sides(row: Row) -> Iterator[tuple[str, Any]]:
    for name, line in (("one", row.one), ("other", row.other)):
        yield name, None if line is None else {"id": line.entry.process_id, "times": line.times, **shapes.entry(line.entry)}
