"""What people did, the newest first: who, what, to which process, and why. Also to processes that are deleted."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from onward.codec import printable
from onward.errors import InvalidData
from onward.panel.page import Page, Visit
from onward.panel.shown.timeline import WORDS
from onward.ports import Place
from onward.process import ID_CHARS_MAX, Entry
from onward.telling import shapes
from onward.telling.attention import now

PAGE_ROWS = 100
VERSION_MAX = 2**31 - 1  # what a database calls an integer
GONE = "deleted"  # the process of such an entry is no more


async def facts(visit: Visit) -> dict[str, Any]:
    before = visit.query.get("before", "")
    entries = await visit.app.store.acts(place_of(before) if before else None, PAGE_ROWS + 1)
    shown = entries[:PAGE_ROWS]
    return {
        "as_of": shapes.instant(await now(visit.app) or (shown[0].at if shown else None)),
        "acts": [told(entry) for entry in shown],
        "is_first": not before,
        "older": text_of(shown[-1]) if len(entries) > PAGE_ROWS else None,
    }


def told(entry: Entry) -> dict[str, Any]:
    return {
        **shapes.entry(entry),
        "id": entry.process_id,
        "what": WORDS.get(entry.kind, (entry.kind, ""))[0],
        "is_gone": entry.kind == GONE,
    }


# -- where a page goes on -------------------------------------------------------------------------------------------


def text_of(entry: Entry) -> str:
    return f"{shapes.instant(entry.at)} {entry.version} {entry.process_id}"


def place_of(text: str) -> Place:
    """InvalidData for what `text_of` did not write."""
    try:
        at, version, id = text.split(" ", 2)
        instant, number = datetime.fromisoformat(at), int(version)
        place = instant.astimezone(UTC), id, number
    except (ValueError, OverflowError):
        raise _no_place() from None
    if instant.tzinfo is None or abs(number) > VERSION_MAX or printable(id, ID_CHARS_MAX) != id:
        raise _no_place()
    return place


def _no_place() -> InvalidData:
    return InvalidData("before names no place in this list", hint="leave it out, to begin at the newest")


PAGE = Page("/audit", "audit", facts)
