"""What happened to a process, as a story: runs of polls in one line, who did what, how long it took."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from onward.control import Control
from onward.explain import length
from onward.process import Entry
from onward.telling.text import one_line

PAGE = 1_000
POLL = "not yet"  # the kind of a commit that left its process where it was


@dataclass
class Line:
    """An entry, or `times` polls of the same status of which `entry` is the last."""

    entry: Entry
    times: int = 1


async def all_entries(control: Control, id: str, after: int = -1, *, light: bool = False) -> AsyncIterator[Entry]:
    """`light`: where an entry has data, '' stands for it."""
    while True:
        page = await control.history(id, after=after, limit=PAGE, light=light)
        for entry in page:
            yield entry
        if len(page) < PAGE:
            return
        after = page[-1].version


def folded(entries: Iterable[Entry]) -> Iterator[Line]:
    """Polls of one visit that follow each other become one line."""
    line: Line | None = None
    for entry in entries:
        if line is not None and entry.kind == line.entry.kind == POLL and entry.transition == line.entry.transition:
            line = Line(entry, line.times + 1)
            continue
        if line is not None:
            yield line
        line = Line(entry)
    if line is not None:
        yield line


def way(entry: Entry) -> str:
    """The status, or both where it changed."""
    to = one_line(entry.to_status)
    return to if entry.from_status in (None, entry.to_status) else f"{one_line(entry.from_status or '')} → {to}"


def took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else length(timedelta(seconds=seconds))
