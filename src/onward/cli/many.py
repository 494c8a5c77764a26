"""What `--query` does: one verb for all that match, as a process of its own, which other programs and the panel see as well."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from onward import bulk
from onward.app import Onward
from onward.cli.failing import ENDED_BADLY, PARTLY
from onward.cli.follow import follow
from onward.cli.output import Output
from onward.cli.settings import can_ask, is_terminal
from onward.process import Condition, Record
from onward.telling.text import one_line


async def act_on_all(
    app: Onward, output: Output, verb: str, query: str, *, most: int | None, dry_run: bool, yes: bool, **given: Any
) -> int:
    """The exit code: 0 all done, 8 some, 1 none or stopped."""
    settings = output.settings
    if verb in bulk.DESTRUCTIVE and most is None and not dry_run:
        raise click.UsageError(f"to {verb} by a query takes --max N: to how many at the most; look first: --dry-run")
    what: dict[str, Any] = {"query": query, "reason": settings.reason, "actor": settings.who, **given}
    if dry_run:
        _print_preview(output, verb, await bulk.preview(app, verb, **what))
        return 0
    if can_ask() and not yes and verb in bulk.DESTRUCTIVE:
        seen = await bulk.preview(app, verb, **what)
        if not click.confirm(f"{verb} {sum(seen.fit.values()):,} processes, which cannot be taken back?", err=True):
            return ENDED_BADLY
    record = await bulk.begin(app, verb, most=most, **what)
    return _print_end(output, verb, await _carry_out(app, output, record))


async def _carry_out(app: Onward, output: Output, record: Record) -> Record:
    """Drives it here, until it is over. Whoever interrupts it stops it: what was done stays done."""
    worker = asyncio.create_task(app.run_own())
    try:
        with _bar(output, record.process.total) as show:
            return await follow(app, record.id, lambda seen, entries: show(seen), None)
    except (asyncio.CancelledError, KeyboardInterrupt):
        await app.stop(record.id, reason="interrupted")
        output.note(f"stopped; what was done stays done: onward show {record.id}")
        raise
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


@contextmanager
def _bar(output: Output, total: int) -> Iterator[Any]:
    if output.settings.quiet or output.settings.is_json or not is_terminal(sys.stderr):
        yield lambda record: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress

    with Progress(BarColumn(), MofNCompleteColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda record: bar.update(task, completed=_seen(record)) if record.process else None


def _seen(record: Record) -> int:
    return int(record.process.done + record.process.refused + record.process.changed)


def _print_preview(output: Output, verb: str, seen: bulk.Preview) -> None:
    fit = [{"flow": f, "status": s, "condition": c, "number": n} for (f, s, c), n in seen.fit.most_common()]
    refused = [{"why": why, "number": n, "sample": seen.samples[why]} for why, n in seen.refused.most_common()]
    if output.settings.is_json:
        content = {"verb": verb, "dry_run": True, "total": seen.total, "more": seen.more, "fit": fit, "refused": refused}
        output.document("bulk/1", content)
        return
    more = " or more" if seen.more else ""
    output.line(f"{seen.total:,}{more} match; to {verb} fits {sum(seen.fit.values()):,} of them. Nothing was changed (dry run).")
    for (flow, status, condition), number in seen.fit.most_common():
        output.line(f"{number:>7,}  {one_line(flow)}  {one_line(status)}  {condition}")
    for why, number in seen.refused.most_common():
        output.line(f"{number:>7,}  refused, like {one_line(seen.samples[why])}: {one_line(why, 200)}")


def _print_end(output: Output, verb: str, record: Record) -> int:
    told = record.process
    if output.settings.is_json:
        counts = {"done": told.done, "refused": told.refused, "changed": told.changed}
        refusals = [one.model_dump() for one in told.refusals]
        output.document("bulk/1", {"id": record.id, "verb": verb, "total": told.total, **counts, "refusals": refusals})
    else:
        for one in told.refusals:
            output.line(f"{one_line(one.id)}: {one_line(one.why, 300)}", to_stderr=True)
        parts = [f"{told.done:,} done"]
        parts += [f"{told.refused:,} refused"] if told.refused else []
        parts += [f"{told.changed:,} had changed meanwhile and were left alone"] if told.changed else []
        output.line(f"{verb}: {', '.join(parts)}")
    if record.condition is not Condition.FINISHED or not told.done:
        return ENDED_BADLY
    return PARTLY if told.refused or told.changed else 0
