"""Numbered migrations: the blocks `schema N` of a .sql file, and the rule that only `onward db upgrade` applies them.

A migration that must run outside of a transaction, as an index on a big table of PostgreSQL does, is the block
`schema N concurrently`. Its statements are run one by one and may be run twice, so they undo first what an interrupted
run has left: DROP INDEX CONCURRENTLY IF EXISTS, then CREATE INDEX CONCURRENTLY. A SELECT among them answers statements, which
are run in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onward.errors import StoreError
from onward.store.urls import shown, upgrade_command


@dataclass(frozen=True, slots=True)
class Migration:
    """What makes schema `number` out of the one before."""

    number: int
    sql: str
    concurrently: bool = False


def migrations(blocks: Mapping[str, str]) -> list[Migration]:
    """Those among the blocks of a .sql file, in their order: 1, 2, 3 … without a gap."""
    found = []
    for title, sql in blocks.items():
        if match := re.fullmatch(r"schema (\d+)( concurrently)?", title):
            found.append(Migration(int(match[1]), sql, match[2] is not None))
    assert [each.number for each in found] == list(range(1, len(found) + 1)), "a number is missing, or out of order"
    return found


def pending(all_of_them: Sequence[Migration], found: int) -> list[Migration]:
    return [each for each in all_of_them if each.number > found]


def refuse_other_schema(url: str, found: int, needed: int) -> None:
    """Raises StoreError unless the store has the very schema that this code needs. What to do about it is in the hint."""
    if found > needed:
        raise StoreError(
            f"{shown(url)} has schema {found}, written by a newer Onward; this one knows schema {needed}",
            hint="upgrade this program: pip install --upgrade onward",
        )
    if found < needed:
        has = f"has schema {found}" if found else "has no tables of Onward"
        raise StoreError(f"{shown(url)} {has}, this Onward needs schema {needed}", hint=upgrade_command(url))
