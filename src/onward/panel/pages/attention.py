"""What needs a person: failures by their kind, each with its button, and then what stands still without having failed."""

from __future__ import annotations

import shlex
from typing import Any
from weakref import WeakKeyDictionary, proxy
from zlib import crc32

from onward.app import Onward
from onward.panel.page import Page, Visit
from onward.panel.pages.common import counted
from onward.panel.shown.counting import Lately, numbers
from onward.panel.shown.trouble import error_parts
from onward.query import exactly, parse, text_of
from onward.telling import shapes
from onward.telling.attention import FAILURES_MAX, Attention, Item, attention
from onward.telling.failures import Group

GROUPS_MAX = 50  # that the page shows: the others are rarer, and come up when these are gone
WAIT_S = 0.15  # of a person for the first look; then the page says that it is still looking
JSON_WAIT_S = 10.0  # of a program


_LATELY: WeakKeyDictionary[Onward, Lately[Attention]] = WeakKeyDictionary()


async def facts(visit: Visit) -> dict[str, Any]:
    answer = await _lately(visit.app).ask(JSON_WAIT_S if visit.wants_json else WAIT_S)
    return {**told(answer.value or Attention(None)), "looked": answer.value is not None, "counting": counted(answer)}


def _lately(app: Onward) -> Lately[Attention]:
    """Ten thousand failures take a while to be looked through, and a busy store asks for it twice a second."""
    found = _LATELY.get(app)
    if found is None:
        seen: Onward = proxy(app)  # or it would never be forgotten
        counts = numbers(app).counts

        async def look() -> Attention:
            return await attention(seen, (await counts.ask()).value or ())

        found = _LATELY[app] = Lately(look, app.clock.monotonic)
    return found


def told(found: Attention) -> dict[str, Any]:
    return {
        "as_of": shapes.instant(found.as_of),
        "failures": found.failures,
        "more_failures": found.more_failures,
        "most": FAILURES_MAX,
        "groups": [_group(group) for group in found.groups[:GROUPS_MAX]],
        "other_groups": max(0, len(found.groups) - GROUPS_MAX),
        "items": [_item(item) for item in found.items],
    }


def _group(group: Group) -> dict[str, Any]:
    return {
        "key": _key(group.flow, group.status, group.error),
        "flow": group.flow,
        "status": group.status,
        "error": group.error,
        "number": group.number,
        "first": shapes.instant(group.first),
        "last": shapes.instant(group.last),
        "query": group.query,
        "q": _on_page_of(group.flow, group.query),
        "is_exact": group.is_exact,
        "sample": {"id": group.sample.id, "error": group.sample.error, **error_parts(group.sample.error or "")},
        "command": shlex.join(["onward", "retry", "--query", group.query]) if group.is_exact else "",
    }


def _item(item: Item) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "sentence": item.sentence,
        "flow": item.flow,
        "status": item.status,
        "number": item.number,
        "query": item.query,
        "q": _on_page_of(item.flow, item.query),
        "since": shapes.instant(item.since),
        "ids": list(item.ids),
        "command": item.command,
    }


def _on_page_of(flow: str, query: str) -> str:
    """What is left of the query on the page of that flow."""
    return text_of(term for term in parse(query) if term != exactly("flow", flow)) if flow and query else query


def _key(*parts: str) -> str:
    """Names the same thing each time, so that what a person has unfolded stays so when the page renews itself."""
    return f"{crc32(chr(0).join(parts).encode('utf-8', 'replace')):08x}"


PAGE = Page("/attention", "attention", facts)
