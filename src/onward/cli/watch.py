"""`onward watch`: one process commit by commit until it rests, or the counts of all."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import Length, command
from onward.cli.failing import TookTooLong
from onward.cli.follow import LOOK_S, NobodyWorks, end_line, entry_line, exit_code, follow
from onward.cli.ids import find_one
from onward.cli.ls import count_row, counts_of
from onward.cli.output import Output, aligned, condition_text
from onward.cli.settings import Settings, is_terminal, pass_settings
from onward.cli.target import with_app
from onward.ports import Count
from onward.process import RESTING, Condition, Entry, Record
from onward.query import Query, parse
from onward.telling import shapes
from onward.telling.now import what_next
from onward.telling.text import one_line

Show = Callable[[str], None]


@command(
    "watch",
    "onward watch q3-report",
    "onward watch --until-idle",
    "onward watch --query 'flow:batch is:active' --until-idle",
    "onward watch q3-report --timeout 5m -o jsonl",
)
@click.argument("id", required=False)
@click.option("--query", metavar="QUERY", help="Instead of ID: the counts of those that match, as in onward ls.")
@click.option("--until-idle", is_flag=True, help="Without ID: end when nothing will happen by itself any more.")
@click.option("--timeout", type=Length(), metavar="DURATION", help="Exit 124 after that: 30, 5m, 2h.")
@pass_settings
def watch(settings: Settings, id: str | None, query: str | None, until_idle: bool, timeout: float | None) -> int:
    """Follow one process until it rests, or without ID the counts of all, or of those that match, until Ctrl-C.

    The exit code is 0 if the process finished, and 1 if it failed, was cancelled or paused. Ctrl-C leaves it running.
    """
    output = Output(settings)
    if id is not None and until_idle:
        raise click.UsageError("--until-idle is for watching all; one process is watched until it rests")

    if id is not None and query is not None:
        raise click.UsageError("name one process, or say --query")
    terms = parse(query or "")

    async def work(app: Onward) -> int:
        if id is None:
            return await _watch_all(app, output, terms, until_idle, timeout)
        record = await find_one(app, id)
        return await watch_one(app, output, record.id, timeout)

    try:
        return with_app(settings, work)
    except KeyboardInterrupt:
        if id is not None:
            output.note(f"left running; follow it again: onward watch {one_line(id)}")
        raise


# -- one process ------------------------------------------------------------------------------------------------


async def watch_one(app: Onward, output: Output, id: str, timeout: float | None, *, to_stderr: bool = False) -> int:
    nobody = NobodyWorks(output)
    stream = output.settings.shape == "jsonl" and not to_stderr
    quiet = output.settings.is_json and not stream

    with live(output, to_stderr or quiet) as show:

        def tell(record: Record, entries: Sequence[Entry]) -> None:
            nobody.look(record)
            if stream:
                output.stream("entry/1", ({"id": record.id, **shapes.entry(entry)} for entry in entries))
                return
            for entry in [] if quiet else entries:
                output.line(entry_line(entry), to_stderr=to_stderr)
            show(
                ""
                if record.due_at is None
                else f"{condition_text(record.condition)} at {one_line(record.status)}: {what_next(record)}"
            )

        record = await follow(app, id, tell, timeout)
    if output.settings.shape == "json" and not to_stderr:
        output.document("process/1", {**shapes.process(record), "data": shapes.stored(record.data)})
    output.note(end_line(record))
    return exit_code(record)


@contextmanager
def live(output: Output, plain: bool) -> Iterator[Show]:
    """A line at the bottom of the terminal that tells the present; nothing where no terminal, or no rich, is there."""
    if plain or output.settings.is_json or not is_terminal(sys.stdout):
        yield lambda text: None
        return
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        yield lambda text: None
        return
    console = Console(no_color=not output.coloured, highlight=False)
    before = ""
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(text: str) -> None:
            nonlocal before
            if text != before:
                before = text
                live.update(Text.from_ansi(text), refresh=True)

        yield show


# -- all of them ------------------------------------------------------------------------------------------------


async def _watch_all(app: Onward, output: Output, query: Query, until_idle: bool, timeout: float | None) -> int:
    """A table that renews itself on a terminal; elsewhere a table after each change."""
    before: list[Any] = []
    on_terminal = is_terminal(sys.stdout) and not output.settings.is_json
    try:
        with live(output, plain=False) as show:
            async with asyncio.timeout(timeout):
                while True:
                    counts = await counts_of(app, query)
                    now = [(count.flow, count.status, count.condition, count.number) for count in counts]
                    if on_terminal:
                        show("\n".join(_table(counts)) or ("no process matches" if query else "no processes yet"))
                    elif now != before:
                        _print(output, counts)
                    before = now
                    if until_idle and all(count.condition in RESTING | {Condition.ORPHANED} for count in counts):
                        break
                    await app.store.wait_for_change(LOOK_S)
    except TimeoutError:
        raise TookTooLong(f"still at work after {timeout:g} s", hint="what is: onward ls is:active") from None
    if on_terminal:
        _print(output, counts)
    return 0


def _print(output: Output, counts: Sequence[Count]) -> None:
    if output.settings.is_json:
        click.echo(_json_line(counts))
        return
    for line in _table(counts):
        output.line(line)
    output.line()


def _json_line(counts: Sequence[Count]) -> str:
    from onward.telling.text import to_json

    return to_json({"schema": "onward.counts/1", "counts": list(map(shapes.count, counts))}, None)


def _table(counts: Sequence[Count]) -> list[str]:
    return aligned([count_row(count) for count in counts])
