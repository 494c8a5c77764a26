"""`onward at`: a process as it was after one of its versions, what came next, and what could have come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.ids import find_one
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.show import print_data
from onward.cli.target import with_app
from onward.explain import length
from onward.graph.words import WHY
from onward.process import Entry, Record
from onward.telling import shapes
from onward.telling.moment import Moment, moment
from onward.telling.story import Line, took, way
from onward.telling.text import one_line, to_json

LINES_MAX = 5  # of what came next, in the text view


@command("at", "onward at q3-report 4", "onward at q3-report 4 --json", "onward at q3-report 4 --data > data.json")
@click.argument("id")
@click.argument("version", type=click.IntRange(0))
@click.option("--data", "only_data", is_flag=True, help="Only the data, as JSON.")
@pass_settings
def at(settings: Settings, id: str, version: int, only_data: bool) -> None:
    """A process as it was after version VERSION: status and data, what came next, and what could have come.

    To go on from there with a new process: onward fork ID --at VERSION.
    """
    output = Output(settings)

    async def work(app: Onward) -> None:
        record = await find_one(app, id)
        then = await moment(app, record, version)
        data = shapes.stored(await app.text_at(record, version) or "")
        if only_data:
            click.echo(to_json(data))
        elif settings.is_json:
            output.document("at/1", {**_described(record, then), "data": data})
        else:
            for name, value in _facts(record, then):
                output.line(f"{name:<10} {value}".rstrip())
            print_data(output, data, "")

    with_app(settings, work)


def _facts(record: Record, then: Moment) -> Iterator[tuple[str, str]]:
    entry = then.entry
    yield "id", one_line(record.id)
    yield "flow", one_line(record.flow)
    yield "status", one_line(entry.to_status)
    yield "version", f"{entry.version} of {record.version}, after {entry.transition} transitions"
    yield "at", f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"
    yield "by", one_line(entry.actor, 80)
    yield "what", " ".join(filter(None, (entry.kind, way(entry), took(entry.took) and f"in {took(entry.took)}")))
    if entry.reason:
        yield "why", one_line(entry.reason, 400)
    yield from _named("next", _next(then))
    yield from _named("could be", _could(then))


def _named(name: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines):
        yield "" if number else name, line


def _next(then: Moment) -> list[str]:
    """The first ones, and the last one, which says how it left the status."""
    told = [_came(then.entry, line) for line in then.after] or ["nothing yet"]
    left = len(told) - LINES_MAX
    return told if left <= 0 else [*told[: LINES_MAX - 1], f"… {left:,} more: onward history ID", told[-1]]


def _could(then: Moment) -> list[str]:
    if then.possible is None:
        return ["this code does not know its flow or status"]
    return [f"{one_line(target)} ({WHY[why]})" for why, target in then.possible] or ["nothing more: it was over"]


def _came(entry: Entry, line: Line) -> str:
    often = f" ×{line.times}" if line.times > 1 else ""
    later = length(line.entry.at - entry.at)
    why = f": {one_line(line.entry.reason, 160)}" if line.entry.reason else ""
    return f"version {line.entry.version}, {later} later: {line.entry.kind}{often}, {way(line.entry)}{why}"


def _described(record: Record, then: Moment) -> dict[str, Any]:
    possible = then.possible
    return {
        "id": record.id,
        "flow": record.flow,
        "status": then.entry.to_status,
        "last_version": record.version,
        "entry": shapes.entry(then.entry),
        "next": [{**shapes.entry(line.entry), "times": line.times} for line in then.after],
        "possible": None if possible is None else [{"to": target, "why": WHY[why]} for why, target in possible],
    }
