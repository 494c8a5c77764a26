"""`onward ls`: the newest processes in a table; their number; or groups of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.output import Output, condition_text
from onward.cli.query import Query, parse
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.explain import length
from onward.ports import Count
from onward.process import Condition, Record
from onward.telling import shapes
from onward.telling.now import age, what_next
from onward.telling.text import one_line

SHOWN = 50
PAGE = 200
LOOKED_AT_MAX = 10_000  # rows, for grouping them by error; then it stops and says so


@command(
    "ls",
    "onward ls",
    "onward ls is:failed --by error",
    "onward ls --status waiting_for_payment -o ids",
    "onward ls is:active --count",
)
@click.argument("words", nargs=-1, metavar="[QUERY]...")
@click.option("--flow", help="Of this flow only.")
@click.option("--status", "statuses", multiple=True, help="At this status only. May be repeated.")
@click.option(
    "--condition", "conditions", multiple=True, help="In this condition only: failed, waiting, active, over … May be repeated."
)
@click.option("--id-prefix", help="Whose id begins so.")
@click.option("-n", "number", type=click.IntRange(1), default=SHOWN, show_default=True, help="At most so many.")
@click.option("--all", "show_all", is_flag=True, help="All of them.")
@click.option("--count", "only_count", is_flag=True, help="Only their number.")
@click.option("--by", type=click.Choice(["status", "error"]), help="Groups of them, with a number each.")
@pass_settings
def ls(
    settings: Settings,
    words: Sequence[str],
    flow: str | None,
    statuses: Sequence[str],
    conditions: Sequence[str],
    id_prefix: str | None,
    number: int,
    show_all: bool,
    only_count: bool,
    by: str | None,
) -> None:
    """List processes, the newest first.

    QUERY is any of is:CONDITION, status:NAME, flow:NAME and id:PREFIX*, as in `is:failed,retrying flow:batch`.
    """
    query = parse(words, flow=flow, statuses=statuses, conditions=conditions, prefix=id_prefix)
    output = Output(settings)

    async def work(app: Onward) -> None:
        if only_count:
            _print_number(output, sum(count.number for count in await _counts(app, query)))
        elif by == "status":
            _print_counts(output, await _counts(app, query))
        elif by == "error":
            _print_errors(output, query, await _errors(app, query))
        else:
            await _list(app, output, query, None if show_all else number)

    with_app(settings, work)


async def rows(app: Onward, query: Query) -> AsyncIterator[Record]:
    before = ""
    while True:
        page = await app.find(
            flow=query.flow, status=query.statuses, condition=query.conditions, prefix=query.prefix, before=before, limit=PAGE
        )
        for record in page:
            yield record
        if len(page) < PAGE:
            return
        before = page[-1].id


async def _list(app: Onward, output: Output, query: Query, most: int | None) -> None:
    found: list[Record] = []
    more = False
    async for record in rows(app, query):
        if most is not None and len(found) == most:
            more = True
            break
        record.data, record.process = "", None  # not shown here, and there may be many
        found.append(record)
    match output.settings.shape:
        case "ids":
            for record in found:
                output.line(one_line(record.id))
        case "jsonl":
            output.stream("process/1", map(shapes.process, found))
        case "json":
            output.document("processes/1", {"processes": list(map(shapes.process, found)), "more": more})
        case _:
            _print_table(output, query, found)
    if more:
        output.note(f"there are more: -n {len(found) * 10}, or --all")


def _print_table(output: Output, query: Query, found: Sequence[Record]) -> None:
    if not found:
        output.note("no process matches; all there are: onward ls" if not query.is_all else "no processes yet: onward start FLOW")
        return
    head = ("ID", "FLOW", "STATUS", "CONDITION", "AGE", "WHAT NEXT, OR WHY NOT")
    output.table(
        head,
        [
            (
                one_line(record.id),
                one_line(record.flow),
                one_line(record.status),
                condition_text(record.condition),
                age(record, record.created_at),
                what_next(record),
            )
            for record in found
        ],
    )


# -- numbers and groups -----------------------------------------------------------------------------------------


async def _counts(app: Onward, query: Query) -> list[Count]:
    """From the store's own count where the query allows; an id prefix makes it look at the rows."""
    if not query.prefix:
        counts = await app.counts()
    else:
        tally: dict[tuple[str, str, Condition], Count] = {}
        async for record in rows(app, query):
            key = (record.flow, record.status, record.condition)
            old = tally.get(key)
            oldest = min(record.entered_at, old.oldest) if old else record.entered_at
            tally[key] = Count(*key, 1 + (old.number if old else 0), oldest)
        counts = list(tally.values())
    return [
        count
        for count in counts
        if (not query.flow or count.flow == query.flow)
        and (not query.statuses or count.status in query.statuses)
        and (not query.conditions or count.condition in query.conditions)
    ]


def _print_number(output: Output, number: int) -> None:
    if output.settings.is_json:
        output.document("count/1", {"count": number})
    else:
        output.line(str(number))


def _print_counts(output: Output, counts: Sequence[Count]) -> None:
    if output.settings.shape == "jsonl":
        output.stream("counts/1", map(shapes.count, counts))
    elif output.settings.shape == "json":
        output.document("counts/1", {"counts": list(map(shapes.count, counts))})
    elif counts:
        output.table(("COUNT", "FLOW", "STATUS", "CONDITION"), map(count_row, counts))
    else:
        output.note("no process matches")


def count_row(count: Count) -> tuple[str, str, str, str]:
    return f"{count.number:>5,}", one_line(count.flow), one_line(count.status), condition_text(count.condition)


@dataclass
class _Group:
    flow: str
    status: str
    error: str
    number: int
    newest: datetime
    sample: str


async def _errors(app: Onward, query: Query) -> tuple[list[_Group], datetime | None, bool]:
    """Errors that differ only in ids and numbers are one group. Looks at the newest rows, LOOKED_AT_MAX of them."""
    groups: dict[tuple[str, str, str], _Group] = {}
    as_of, seen = None, 0
    async for record in rows(app, query):
        seen += 1
        if seen > LOOKED_AT_MAX:
            break
        as_of = record.as_of
        if record.error is None or record.condition in (Condition.FINISHED, Condition.CANCELLED):
            continue
        key = (record.flow, record.status, kind_of_error(record.error))
        group = groups.setdefault(key, _Group(*key, 0, record.updated_at, record.id))
        group.number += 1
        group.newest = max(group.newest, record.updated_at)
    found = sorted(groups.values(), key=lambda group: (-group.number, group.flow, group.status, group.error))
    return found, as_of, seen > LOOKED_AT_MAX


def kind_of_error(error: str) -> str:
    """The first line, with what is different each time left out: numbers, and words with a digit in them."""
    first = one_line(error.partition("\n")[0], 200)
    return re.sub(r"\b[\w-]*\d[\w-]*\b", "…", first)


def _print_errors(output: Output, query: Query, answer: tuple[list[_Group], datetime | None, bool]) -> None:
    groups, as_of, capped = answer
    if output.settings.is_json:
        described: list[dict[str, Any]] = [
            {
                "flow": group.flow,
                "status": group.status,
                "error": group.error,
                "number": group.number,
                "newest": shapes.instant(group.newest),
                "sample": group.sample,
            }
            for group in groups
        ]
        if output.settings.shape == "jsonl":
            output.stream("errors/1", described)
        else:
            output.document("errors/1", {"errors": described})
        return
    if not groups or as_of is None:
        output.note("no process has an error")
        return
    output.table(
        ("COUNT", "FLOW", "STATUS", "NEWEST", "ERROR"),
        [
            (f"{group.number:>5,}", one_line(group.flow), one_line(group.status), length(as_of - group.newest), group.error)
            for group in groups
        ],
    )
    if capped:
        output.note(f"only the newest {LOOKED_AT_MAX:,} processes were looked at")
    status = shlex.quote(f"status:{groups[0].status}")
    output.note(f"retry the first group: onward ls is:failed {status} -o ids --all | xargs onward retry")
