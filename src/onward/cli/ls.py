"""`onward ls`: the newest processes in a table; their number; or groups of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from click.shell_completion import CompletionItem

from onward.app import Onward
from onward.cli.command import command
from onward.cli.group import Command
from onward.cli.output import Output, condition_text
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.explain import length
from onward.ports import Count
from onward.process import Condition, Record
from onward.query import GROUPS, QUALIFIERS, Term, beginning, exactly, parse
from onward.telling import shapes
from onward.telling.failures import Group, grouped
from onward.telling.now import age, what_next
from onward.telling.stats import of_counts, told_by_counts
from onward.telling.text import one_line

SHOWN = 50
PAGE = 200
LOOKED_AT_MAX = 10_000  # rows, for grouping them by error; then it stops and says so
IN_TROUBLE = (Term("error", ("*",)), Term("is", ("over",), negated=True))

_HEAD = re.compile(r"(-?[A-Za-z_][\w.]*:)?(.*)", re.DOTALL)
_NEGATED = re.compile(rf"-({'|'.join(QUALIFIERS)})[.:]")
_NEXT = re.compile(r"\s-?[A-Za-z_][\w.]*:")


class QueryWords(click.ParamType):  # type: ignore[type-arg]  # generic in newer Clicks only
    """Words of a query; a shell completes the qualifiers, and the conditions after `is:`."""

    name = "query"

    def shell_complete(self, context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = [f"{name}." if name == "data" else f"{name}:" for name in QUALIFIERS]
        known += [f"is:{condition}" for condition in (*Condition, *GROUPS)] if incomplete.startswith("is:") else []
        return [CompletionItem(one) for one in known if one.startswith(incomplete) and one != incomplete]


class QueryCommand(Command):
    """A command whose words may begin with a `-` though they are no options, and whose help tells the qualifiers."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(context, [f" {word}" if _NEGATED.match(word) else word for word in args])

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Query"):
            formatter.write_dl(list(QUALIFIERS.values()))
        super().format_options(context, formatter)


@command(
    "ls",
    "onward ls",
    "onward ls is:failed --by error",
    "onward ls --status waiting_for_payment -o ids",
    "onward ls is:active --count",
    "onward ls error:declined -is:over",
    kind=QueryCommand,
)
@click.argument("words", nargs=-1, metavar="[QUERY]...", type=QueryWords())
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

    All terms of a QUERY hold at once; a comma is "or", a - before a term is "not", * is any text. A word alone is the beginning
    of an id, or stands in an error.
    """
    query = [*parse(" ".join(map(as_typed, words)))]
    query += _options(query, flow, statuses, conditions, id_prefix)
    output = Output(settings)

    async def work(app: Onward) -> None:
        if only_count:
            _print_number(output, sum(count.number for count in await counts_of(app, query)))
        elif by == "status":
            _print_counts(output, await counts_of(app, query))
        elif by == "error":
            _print_errors(output, await _errors(app, query))
        else:
            await _list(app, output, query, None if show_all else number)

    with_app(settings, work)


def as_typed(word: str) -> str:
    """A word of the command line as it stands in a query: around `error:two words` stood quotes, which the shell has taken.
    But a word may be a whole query as well.
    """
    word = word.strip()
    match = _HEAD.fullmatch(word)
    if match is None or '"' in word or not re.search(r"\s", word) or _NEXT.search(word):
        return word
    return f'{match[1] or ""}"{match[2]}"'


def _options(
    query: Sequence[Term], flow: str | None, statuses: Sequence[str], conditions: Sequence[str], prefix: str | None
) -> list[Term]:
    """What the options ask for. UsageError where one asks for something else than the query does."""
    asked = [exactly("status", *statuses)] if statuses else []
    asked += [exactly("is", *conditions)] if conditions else []
    once = {"flow": flow and exactly("flow", flow), "id": prefix and beginning("id", prefix)}
    for name, term in once.items():
        if not term:
            continue
        for other in query:
            if other.qualifier == name and not other.negated and other != term:
                raise click.UsageError(f"{name} is asked for twice, as {other} and as {term}")
        asked.append(term)
    return asked


async def rows(app: Onward, query: Iterable[Term], *, light: bool = True) -> AsyncIterator[Record]:
    """All that match, page by page. `light`: without data."""
    terms, before = tuple(query), ""
    while True:
        page = await app.find(terms, before=before, limit=PAGE, light=light)
        for record in page:
            yield record
        if len(page) < PAGE:
            return
        before = page[-1].id


async def _list(app: Onward, output: Output, query: Sequence[Term], most: int | None) -> None:
    found: list[Record] = []
    more = False
    async for record in rows(app, query):
        if most is not None and len(found) == most:
            more = True
            break
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


def _print_table(output: Output, query: Sequence[Term], found: Sequence[Record]) -> None:
    if not found:
        output.note("no process matches; all there are: onward ls" if query else "no processes yet: onward start FLOW")
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


async def counts_of(app: Onward, query: Sequence[Term]) -> list[Count]:
    """From the store's own count, where that knows of all that is asked; else by looking at the rows."""
    if told_by_counts(query):
        return of_counts(query, await app.counts())
    tally: dict[tuple[str, str, Condition], Count] = {}
    async for record in rows(app, query):
        key = (record.flow, record.status, record.condition)
        old = tally.get(key)
        oldest = min(record.entered_at, old.oldest) if old else record.entered_at
        tally[key] = Count(*key, 1 + (old.number if old else 0), oldest)
    return list(tally.values())


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


async def _errors(app: Onward, query: Sequence[Term]) -> tuple[list[Group], datetime | None, bool]:
    """Of the newest with an error, LOOKED_AT_MAX of them, by its kind; and whether there are more."""
    found: list[Record] = []
    async for record in rows(app, (*query, *IN_TROUBLE)):
        found.append(record)
        if len(found) > LOOKED_AT_MAX:
            break
    most = found[:LOOKED_AT_MAX]
    return grouped(most, query), most[-1].as_of if most else None, len(found) > LOOKED_AT_MAX


def _print_errors(output: Output, answer: tuple[list[Group], datetime | None, bool]) -> None:
    groups, as_of, capped = answer
    match output.settings.shape:
        case "jsonl":
            output.stream("errors/1", map(_error_shape, groups))
        case "json":
            output.document("errors/1", {"errors": list(map(_error_shape, groups))})
        case _ if groups and as_of is not None:
            head = ("COUNT", "FLOW", "STATUS", "NEWEST", "ERROR")
            output.table(head, [_error_row(group, as_of) for group in groups])
        case _:
            output.note("no process has an error")
    if capped:
        output.note(f"only the newest {LOOKED_AT_MAX:,} processes with an error were looked at")
    first = next((group for group in groups if group.is_exact), None)
    if first is not None and not output.settings.is_json:
        output.note(f"retry the {'first group' if first is groups[0] else 'first of one kind'}: {retry_command(first)}")


def _error_row(group: Group, as_of: datetime) -> tuple[str, ...]:
    return f"{group.number:>5,}", one_line(group.flow), one_line(group.status), length(as_of - group.last), group.error


def _error_shape(group: Group) -> dict[str, Any]:
    return {
        "flow": group.flow,
        "status": group.status,
        "error": group.error,
        "number": group.number,
        "oldest": shapes.instant(group.first),
        "newest": shapes.instant(group.last),
        "sample": group.sample.id,
        "query": group.query,
        "exact": group.is_exact,
    }


def retry_command(group: Group) -> str:
    return shlex.join(["onward", "retry", "--query", group.query])
