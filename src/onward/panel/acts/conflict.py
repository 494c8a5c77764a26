"""Somebody was faster: what happened since the version that was seen, what it changed, and the same form once more."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from onward.errors import Conflict, OnwardError
from onward.panel.acts.again import again
from onward.panel.acts.asked import Asked
from onward.panel.page import Visit, json_answer
from onward.panel.pages.common import described
from onward.panel.shown import contents, fields, timeline
from onward.panel.shown.offers import LABELS, refusal
from onward.panel.shown.story import story
from onward.process import Record
from onward.telling import shapes
from onward.telling.secrets import restored
from onward.telling.text import one_line


async def conflict(visit: Visit, asked: Asked, error: Conflict) -> Response:
    """409. For programs the error, with the version that it has now."""
    record = await visit.process(asked.id)
    if visit.wants_json:
        told = {"code": "conflict", "message": str(error), "hint": error.hint, "id": "", "version": record.version}
        return json_answer({"error": told}, 409)
    return await again(visit, "conflict", await _facts(visit, asked, record), 409)


def moved_on(record: Record, seen: int) -> Conflict:
    """As control says it, where the panel itself sees it first."""
    return Conflict(
        f"process {one_line(record.id, 80)} is at version {record.version} now, not {seen}; nothing was changed",
        hint="look at what it is now, then decide again",
    )


async def _facts(visit: Visit, asked: Asked, record: Record) -> dict[str, Any]:
    seen = asked.version if asked.version is not None and asked.version <= record.version else record.version
    told = await story(visit.app, record.id, record.version + 1)
    rows = [row for row in told.rows if row.line.entry.version > seen]
    old = await visit.app.text_at(record, seen)
    return {
        "process": described(record),
        "as_of": shapes.instant(record.as_of),
        "verb": asked.verb,
        "label": LABELS.get(asked.verb, asked.verb),
        "seen": seen,
        "version": record.version,
        "reason": asked.reason,
        "back": asked.back,
        "timeline": timeline.told(rows, None),
        **contents.difference(contents.contents(old if old is not None else record.data), contents.contents(record.data)),
        "refused": refusal(visit.app, record, asked.verb),
        "yours": _yours(visit, asked, record),
        "_again": {name: value for name, value in asked.given.items() if isinstance(value, str)},
    }


def _yours(visit: Visit, asked: Asked, record: Record) -> dict[str, Any] | None:
    """What the edit that was refused would change now."""
    if asked.verb != "edit" or not isinstance(asked.given.get("data"), str):
        return None
    before = contents.contents(record.data)
    try:
        data = restored(fields.read_json(asked.text("data")), before.value)
        change = visit.app.planned(record, "edit", data=data)
    except OnwardError as error:
        return {"changes": [], "left_off": 0, "fault": str(error)}
    return contents.difference(before, contents.contents(change.data if change else record.data))
