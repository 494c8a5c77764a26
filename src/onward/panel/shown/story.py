"""What of a long history one page tells: the newest part of it, polls folded, read backwards and never in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onward.app import Onward
from onward.panel.shown.timeline import Row, rows_of
from onward.process import Entry
from onward.telling.story import POLL

ROWS_MAX = 60  # of one page
READ_MAX = 500  # entries of one reading
ENTRIES_MAX = 3_000  # that are looked at for one page, if they are polls that all come to a few rows


@dataclass(frozen=True)
class Story:
    """Rows of a page, oldest first, with the entries that were read for them. `older`: where the page before goes on, if any."""

    rows: Sequence[Row]
    entries: Sequence[Entry]
    older: int | None

    @property
    def is_part(self) -> bool:
        """Whether the oldest row is the end of a longer run of polls."""
        first = self.entries[0] if self.entries else None
        return bool(first and self.rows and first.version and first.kind == POLL and self.rows[0].first == first.version)


async def story(app: Onward, id: str, before: int) -> Story:
    """The newest rows of the entries before version `before`."""
    entries: list[Entry] = []
    number = 0  # of rows, at least about: a run of polls over the end of a reading is counted twice
    while before > 0 and len(entries) < ENTRIES_MAX and number <= ROWS_MAX:
        after = max(before - READ_MAX, 0) - 1
        page = await app.store.history(id, after, before - 1 - after, light=True)
        if not page:
            break  # what is older was pruned
        entries = [*page, *entries]
        number += len(rows_of(page))
        before = after + 1
    rows = rows_of(entries)[-ROWS_MAX:] if entries else []
    first = rows[0].first if rows else 0
    return Story(rows, entries, first if first > 0 and (before > 0 or first > entries[0].version) else None)


async def whole_way(app: Onward, id: str, entries: Sequence[Entry], last: int) -> tuple[list[Entry], int | None]:
    """The entries until version `last` that tell the way of the process, the first ones among them; and how many are left out in
    between, where all of those are of one visit, so that nothing else is missing. None: it is not known what is missing.
    """
    if not entries or entries[-1].version != last:  # a page of older ones
        after = max(last - READ_MAX, -1)
        entries = await app.store.history(id, after, last - after, light=True)
    if not entries or entries[0].version == 0:
        return [*entries], 0 if entries else None
    first = await app.store.history(id, -1, min(READ_MAX, entries[0].version), light=True)
    left_out = entries[0].version - first[-1].version - 1 if first else 0
    same = first and first[0].version == 0 and (not left_out or first[-1].transition == entries[0].transition)
    return [*first, *entries], left_out if same else None


def around(entries: Sequence[Entry], version: int, last: int) -> tuple[int | None, int | None]:
    """The versions before and after this one at which something changed, as far as the entries tell; else the next ones."""
    changed = [entry.version for entry in entries if entry.data is not None or entry.from_status != entry.to_status]
    earlier = max((one for one in changed if one < version), default=version - 1)
    later = min((one for one in changed if one > version), default=version + 1)
    return earlier if earlier >= 0 else None, later if later <= last else None
