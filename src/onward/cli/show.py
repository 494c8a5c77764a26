"""`onward show` and `onward explain`: one process, in full and in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.ids import find_one
from onward.cli.output import Output, condition_text
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.codec import printable
from onward.process import Record
from onward.telling import shapes
from onward.telling.now import age, what_next
from onward.telling.secrets import masked
from onward.telling.text import one_line, to_json

DATA_CHARS_MAX = 4_000  # of data in the text view; --data and --json show all of it


@command("show", "onward show q3-report", "onward show q3-report --version 2", "onward show q3-report --data > data.json")
@click.argument("id")
@click.option("--version", "version", type=click.IntRange(0), help="The data as it was after that commit.")
@click.option("--data", "only_data", is_flag=True, help="Only the data, as JSON.")
@pass_settings
def show(settings: Settings, id: str, version: int | None, only_data: bool) -> None:
    """Show one process. ID may be the beginning of an id, of 4 characters or more. As it was at a version: onward at."""
    output = Output(settings)

    async def work(app: Onward) -> None:
        record = await find_one(app, id)
        data = shapes.stored(record.data) if version is None else masked(await app.data_at(record.id, version))
        if only_data:
            click.echo(to_json(data))
        elif settings.is_json:
            as_it_was = {} if version is None else {"data_version": version}
            output.document("process/1", {**shapes.process(record), **as_it_was, "data": data})
        elif settings.shape == "ids":
            output.line(one_line(record.id))
        else:
            for name, value in _facts(record):
                output.line(f"{name:<10} {value}")
            print_data(output, data, "" if version is None else f"as it was after version {version}")

    with_app(settings, work)


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    yield "id", one_line(record.id)
    yield "flow", one_line(record.flow)
    yield "status", one_line(record.status)
    yield "condition", condition_text(record.condition) + (", cleaning up after being cancelled" if record.cancelling else "")
    yield "next", what_next(record)
    yield "version", f"{record.version}, after {record.transition} transitions"
    if record.data_version > 1:
        yield "model", f"version {record.data_version}"
    if record.attempt:
        yield "attempt", str(record.attempt)
    yield "started", f"{age(record, record.created_at)} ago"
    yield "changed", f"{age(record, record.updated_at)} ago"
    if record.error:
        yield "error", printable(record.error).replace("\n", "\n" + " " * 11)


def print_data(output: Output, data: Any, head: str) -> None:
    text = to_json(data)
    output.line(f"{'data':<10} {head}".rstrip())
    for line in text[:DATA_CHARS_MAX].splitlines():
        output.line(f"  {line}")
    if len(text) > DATA_CHARS_MAX:
        output.line(f"  … {len(text):,} characters in all: --data shows them")


@command("explain", "onward explain q3-report", "onward ls is:active -o ids | xargs -n 1 onward explain")
@click.argument("id")
@pass_settings
def explain(settings: Settings, id: str) -> None:
    """Say in one sentence why a process is not moving: what it waits for, until when, and what happens then."""
    output = Output(settings)

    async def work(app: Onward) -> None:
        record = await find_one(app, id)
        sentence = one_line(await app.explain(record.id), 4_000)
        if settings.is_json:
            output.document(
                "explanation/1",
                {"id": record.id, "status": record.status, "condition": str(record.condition), "sentence": sentence},
            )
        else:
            output.line(sentence)

    with_app(settings, work)
