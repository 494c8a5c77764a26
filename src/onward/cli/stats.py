"""`onward stats`: how many processes of each flow are in which condition, and how fast they come and go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import click

from onward.app import Onward
from onward.cli.command import Length, command
from onward.cli.failing import TookTooLong
from onward.cli.output import Output, aligned, condition_text
from onward.cli.settings import Settings, is_terminal, pass_settings
from onward.cli.target import with_app
from onward.cli.watch import live
from onward.explain import length
from onward.process import Condition
from onward.telling import stats as numbers
from onward.telling.stats import FlowStats, Rate
from onward.telling.text import one_line, to_json

RENEW_S = 1.0  # no more often: the numbers of a busy store change all the time
HEAD = ("FLOW", "STARTED", "FINISHED", "TAKES", "PROCESSES")


@command("stats", "onward stats", "onward stats --watch", "onward stats --json")
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option("--timeout", type=Length(), metavar="DURATION", help="With --watch: exit 124 after that.")
@pass_settings
def stats(settings: Settings, watch: bool, timeout: float | None) -> None:
    """Tell how many processes of each flow are in which condition, and how fast they come and go.

    The rates are of the last hour, and of the newest processes where there are very many. TAKES is what half of those that
    finished lately took at the most, from their start to their end.
    """
    output = Output(settings)
    if timeout is not None and not watch:
        raise click.UsageError("--timeout is for --watch")

    async def work(app: Onward) -> None:
        if watch:
            await _watch(app, output, timeout)
        else:
            _print(output, await numbers.stats(app))

    with_app(settings, work)


async def _watch(app: Onward, output: Output, timeout: float | None) -> None:
    """A table that renews itself on a terminal; elsewhere, and as JSON, one after each change."""
    on_terminal = is_terminal(sys.stdout) and not output.settings.is_json
    before: Sequence[FlowStats] | None = None
    try:
        with live(output, plain=False) as show:
            async with asyncio.timeout(timeout):
                while True:
                    now = await numbers.stats(app)
                    if on_terminal:
                        show("\n".join(aligned([HEAD, *map(_row, now)])))
                    elif now != before:
                        _print(output, now, on_one_line=True)
                    before = now
                    await asyncio.sleep(RENEW_S)
                    await app.store.wait_for_change(RENEW_S)
    except TimeoutError:
        raise TookTooLong(f"watched for {timeout:g} s", hint="the numbers of now: onward stats") from None


def _print(output: Output, found: Sequence[FlowStats], *, on_one_line: bool = False) -> None:
    shapes = [numbers.shape(one) for one in found]
    if output.settings.is_json and on_one_line:
        click.echo(to_json({"schema": "onward.stats/1", "flows": shapes}, None))
    elif output.settings.shape == "jsonl":
        output.stream("flow_stats/1", shapes)
    elif output.settings.shape == "json":
        output.document("stats/1", {"flows": shapes})
    elif found:
        output.table(HEAD, map(_row, found))
    else:
        output.note("no processes yet, and this app has no flows")


def _row(one: FlowStats) -> tuple[str, ...]:
    conditions = [f"{number:,} {condition_text(condition)}" for condition, number in _in_order(one)]
    took = "" if one.took is None else length(one.took)
    return one_line(one.flow), _per_time(one.started), _per_time(one.finished), took, "  ".join(conditions) or "none"


def _in_order(one: FlowStats) -> list[tuple[Condition, int]]:
    return [(condition, one.conditions[condition]) for condition in Condition if one.conditions[condition]]


def _per_time(rate: Rate) -> str:
    """In the first unit of time in which it is one or more."""
    if not rate.number:
        return "-"
    in_units = {unit: rate.per_minute * minutes for unit, minutes in (("s", 1 / 60), ("min", 1), ("h", 60))}
    unit = next((unit for unit, number in in_units.items() if number >= 1), "h")
    return f"{in_units[unit]:,.0f}/{unit}" if in_units[unit] >= 10 else f"{in_units[unit]:.2g}/{unit}"
