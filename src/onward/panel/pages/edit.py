"""The form for the data of a process, by its model, and the same as JSON. It saves nothing: what it says is shown first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from onward.panel.page import Page, Visit
from onward.panel.pages.common import described, quoted
from onward.panel.shown import fields
from onward.panel.shown.contents import Contents, contents
from onward.panel.shown.offers import refusal
from onward.process import Record
from onward.telling import shapes
from onward.telling.text import to_json

FORM_BYTES_MAX = 900_000  # of data as a form sends them; the body of a request holds a little more


async def facts(visit: Visit) -> dict[str, Any]:
    record = await visit.process(visit.query.get("id", ""))
    return form(visit, record)


PAGE = Page("/edit", "edit", facts)


def form(
    visit: Visit,
    record: Record,
    *,
    typed: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
    fault: str = "",
    hint: str = "",
) -> dict[str, Any]:
    """The page; after a refusal with all that was typed in it, and each fault beside its field."""
    flow, now = visit.app.flow_of(record), contents(record.data)
    values, given = values_of(now), typed or {}
    text = to_json(now.shown) if not now.fault else now.shown
    is_large = len(quote_plus(text, errors="replace")) > FORM_BYTES_MAX
    why = refusal(visit.app, record, "edit")
    return {
        "process": described(record),
        "as_of": shapes.instant(record.as_of),
        "version": record.version,
        "refused": why,
        "is_large": is_large,
        "fields": [] if flow is None or is_large else fields.form(flow, values, typed),
        "dropped": [] if flow is None else _dropped(flow, values),
        "json": "" if is_large else given.get("json", text),
        "by_json": "json" in given or bool(now.fault),
        "reason": given.get("reason", ""),
        "faults": dict(faults or {}),
        "fault": fault,
        "hint": hint,
        "commands": [f"onward edit {quoted(record.id)}"],
    }


def values_of(now: Contents) -> dict[str, Any]:
    """The data by their names, masked; nothing where they are no object."""
    return now.shown if isinstance(now.shown, dict) else {}


def _dropped(flow: Any, values: Mapping[str, Any]) -> list[str]:
    return [] if flow.model.model_config.get("extra") == "allow" else fields.unknown(flow, values)
