"""What an action will do, before it is done; and what cannot be brought back is done only to whom its id was typed for."""

from __future__ import annotations

from typing import Any

from onward.errors import NotFound
from onward.panel.page import Page, Visit
from onward.panel.pages.common import described, quoted
from onward.panel.pages.fork import names_outside
from onward.panel.shown.offers import ABOUT, ASKED, FORMS, LABELS, TYPED, refusal
from onward.process import Record
from onward.query import nearest
from onward.telling import shapes
from onward.telling.text import one_line


async def facts(visit: Visit) -> dict[str, Any]:
    record = await visit.process(visit.query.get("id", ""))
    return await question(visit, record, visit.query.get("verb", ""))


PAGE = Page("/confirm", "confirm", facts)


async def question(visit: Visit, record: Record, verb: str, *, fault: str = "", reason: str = "") -> dict[str, Any]:
    known = [one for one in LABELS if one not in FORMS]
    if verb not in known:
        raise NotFound(f"there is no action {one_line(verb, 40)!r}{nearest(verb, known)}", hint=f"there are: {', '.join(known)}")
    return {
        "process": described(record),
        "as_of": shapes.instant(record.as_of),
        "version": record.version,
        "verb": verb,
        "label": LABELS[verb],
        "about": ABOUT[verb],
        "ends": verb in ASKED,
        "typed": verb in TYPED,
        "refused": refusal(visit.app, record, verb),
        "becomes": _becomes(visit, record, verb),
        "outside": await names_outside(visit, record) if verb in ("stop", "cancel") else [],
        "fault": fault,
        "reason": reason,
        "commands": [f"onward {verb} {quoted(record.id)}"],
    }


def _becomes(visit: Visit, record: Record, verb: str) -> dict[str, str] | None:
    """At which status and in which condition it will be."""
    if verb == "delete" or refusal(visit.app, record, verb):
        return None
    change = visit.app.planned(record, verb)
    return None if change is None else {"status": change.status, "condition": str(change.condition)}
