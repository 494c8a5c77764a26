"""Two processes side by side: where a fork and its origin part, and how each went on from there."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from onward.control import Control
from onward.errors import NotFound
from onward.process import Entry, Record
from onward.telling import shapes
from onward.telling.diff import Change, changes
from onward.telling.story import Line, all_entries, folded

GENERATIONS_MAX = 100  # of forks of forks that are followed back
ROWS_MAX = 200  # lines of each side that are compared


@dataclass(frozen=True)
class Row:
    """What came in the same place on both sides, or only on one of them."""

    one: Line | None
    other: Line | None

    @property
    def is_same(self) -> bool:
        return self.one is not None and self.other is not None and _key(self.one) == _key(self.other)


@dataclass(frozen=True)
class Parting:
    """`common`: the last commit that both have, of the process in which it was made; None where they share none. `begins`: the
    instants from which each went on alone. `rows` follow, and `left` says how many lines of the longer side are left out.
    """

    common: Entry | None
    begins: tuple[datetime, datetime]
    rows: Sequence[Row]
    left: int
    changes: Sequence[Change]


async def parting(control: Control, one: Record, other: Record) -> Parting:
    """Compares the data as they are now; that a secret differs is told, and what it is is not."""
    lives = [await _life(control, one), await _life(control, other)]
    together = _together(*lives)
    apart = [life[together:] for life in lives]
    common = lives[0][together - 1] if together else None
    begins = [_begin(part, common, record) for part, record in zip(apart, (one, other), strict=True)]
    lines = [list(folded(entry for entry in part if common is None or entry.kind != "forked")) for part in apart]
    return Parting(
        common=common,
        begins=(begins[0], begins[1]),
        rows=list(_rows(lines[0][:ROWS_MAX], lines[1][:ROWS_MAX])),
        left=max(0, max(map(len, lines)) - ROWS_MAX),
        changes=list(changes(_plain(one.data), _plain(other.data))),
    )


async def _life(control: Control, record: Record) -> list[Entry]:
    """Its history, and before that of the process that it was forked from, up to the fork, and so on."""
    life = [entry async for entry in all_entries(control, record.id, light=True)]
    for _ in range(GENERATIONS_MAX):
        older = await _origin(control, life[0]) if life and life[0].kind == "forked" else []
        if not older:
            break
        life = older + life
    return life


async def _origin(control: Control, forked: Entry) -> list[Entry]:
    """The history of the origin up to the fork; nothing where it was deleted or pruned, or where it is not clear which it was."""
    found: list[list[Entry]] = []
    for id, version in _readings(forked.reason or ""):
        try:
            entries = [entry async for entry in _until(all_entries(control, id, light=True), version)]
        except NotFound:
            continue
        if entries and entries[-1].version == version:
            found.append(entries)
    return found[0] if len(found) == 1 else []


def _readings(reason: str) -> Iterator[tuple[str, int]]:
    """'from a at version 3: why': an id may hold anything, also such words, so there may be several ways to read it."""
    for match in re.finditer(r" at version (\d+)(?=: |$)", reason):
        yield reason[len("from ") : match.start()], int(match[1])


async def _until(entries: AsyncIterator[Entry], version: int) -> AsyncIterator[Entry]:
    async for entry in entries:
        if entry.version > version:
            return
        yield entry


def _together(one: Sequence[Entry], other: Sequence[Entry]) -> int:
    """How many commits, from the first, are the very same ones."""
    number = 0
    for ours, theirs in zip(one, other, strict=False):
        if (ours.process_id, ours.version) != (theirs.process_id, theirs.version):
            break
        number += 1
    return number


def _begin(part: Sequence[Entry], common: Entry | None, record: Record) -> datetime:
    if common is not None and (not part or part[0].kind != "forked"):
        return common.at
    return part[0].at if part else record.created_at


def _rows(one: Sequence[Line], other: Sequence[Line]) -> Iterable[Row]:
    matcher = SequenceMatcher(None, list(map(_key, one)), list(map(_key, other)), autojunk=False)
    for _, begin, end, start, stop in matcher.get_opcodes():
        yield from (Row(*pair) for pair in zip_longest(one[begin:end], other[start:stop]))


def _key(line: Line) -> tuple[str, str | None, str]:
    return line.entry.kind, line.entry.from_status, line.entry.to_status


def _plain(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return shapes.stored(data)
