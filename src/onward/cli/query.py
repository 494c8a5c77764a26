"""What `ls` shows: options and words like `is:failed status:a,b flow:x id:q3*`, made into one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import click

from onward.cli.command import nearest
from onward.process import OVER, Condition

QUALIFIERS = ("is", "status", "flow", "id")
# Words for several conditions at once.
GROUPS = {"active": set(Condition) - OVER, "over": set(OVER)}


@dataclass
class Query:
    """Sets are alternatives; empty means any."""

    flow: str | None = None
    statuses: list[str] = field(default_factory=list)
    conditions: set[Condition] = field(default_factory=set)
    prefix: str = ""

    @property
    def is_all(self) -> bool:
        return not (self.flow or self.statuses or self.conditions or self.prefix)


def parse(
    words: Sequence[str], *, flow: str | None, statuses: Sequence[str], conditions: Sequence[str], prefix: str | None
) -> Query:
    """Raises UsageError naming the nearest word that is known."""
    query = Query(flow, list(statuses), set(), prefix or "")
    for name in conditions:
        query.conditions |= _condition(name)
    for word in words:
        qualifier, colon, value = word.partition(":")
        if not colon or not value:
            raise click.UsageError(f"{word!r} is no qualifier: write is:failed, status:NAME, flow:NAME or id:PREFIX*")
        values = [one for one in value.split(",") if one]
        match qualifier:
            case "is":
                for one in values:
                    query.conditions |= _condition(one)
            case "status":
                query.statuses += values
            case "flow":
                query.flow = _once("flow", query.flow, value)
            case "id":
                query.prefix = _once("id", query.prefix or None, value.rstrip("*"))
            case _:
                raise click.UsageError(
                    f"there is no qualifier {qualifier!r}{nearest(qualifier, QUALIFIERS)} (is, status, flow, id)"
                )
    return query


def _condition(name: str) -> set[Condition]:
    if name in GROUPS:
        return GROUPS[name]
    try:
        return {Condition(name)}
    except ValueError:
        known = [*map(str, Condition), *GROUPS]
        raise click.UsageError(f"there is no condition {name!r}{nearest(name, known)} ({', '.join(known)})") from None


def _once(what: str, before: str | None, value: str) -> str:
    if before is not None and before != value:
        raise click.UsageError(f"{what} is asked for twice, as {before!r} and as {value!r}")
    return value
