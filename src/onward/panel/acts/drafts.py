"""An edit, before it is saved: what was typed is read, checked, and shown as a difference. Nothing is changed."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from onward.errors import InvalidData, NotFound
from onward.panel.acts.again import again
from onward.panel.acts.asked import Asked, Faults, object_of, read_asked, typed_of
from onward.panel.acts.conflict import conflict, moved_on
from onward.panel.page import Visit, json_answer
from onward.panel.pages import edit
from onward.panel.pages.common import described
from onward.panel.shown import contents, fields
from onward.process import Record
from onward.telling import shapes
from onward.telling.secrets import restored
from onward.telling.text import to_json


async def draft(visit: Visit) -> Response:
    """POST /draft"""
    asked = read_asked(visit, "edit")
    record = await visit.process(asked.id)
    actor = await visit.allowed("edit", record)
    if asked.version is not None and asked.version != record.version:
        return await conflict(visit, asked, moved_on(record, asked.version))
    if asked.given.get("again") and not visit.wants_json:  # somebody saw the difference, and goes on editing
        typed = {**typed_of(visit), "json": to_json(object_of(asked.given.get("json")))}
        return await again(visit, "edit", edit.form(visit, record, typed=typed), 200)
    before = contents.contents(record.data)
    try:
        values = _values(visit, asked, record)
        data = restored(values, before.value)
        _, change = await visit.app.plan(asked.id, "edit", version=record.version, actor=actor, data=data)
    except InvalidData as error:
        return await _once_more(visit, record, error)
    after = contents.contents(record.data if change is None or change.data is None else change.data)
    facts = {
        "process": described(record),
        "as_of": shapes.instant(record.as_of),
        "version": record.version,
        **contents.difference(before, after),
        "reason": asked.reason,
    }
    if visit.wants_json:
        return json_answer({"schema": "onward.panel.draft/1", **facts})
    return await again(visit, "draft", {**facts, "_data": to_json(values, None)}, 200)


def _values(visit: Visit, asked: Asked, record: Record) -> dict[str, Any]:
    """The new data as the form or the JSON says them, with masks where they had masks."""
    if "data" in asked.given:
        return object_of(asked.given["data"])
    if asked.given.get("json"):
        return fields.read_json(asked.text("json"))
    flow = visit.app.flow_of(record)
    if flow is None:
        raise NotFound(f"this app has no flow {record.flow!r}", hint="run the panel with the app that has it")
    values, faults = fields.read(flow, edit.values_of(contents.contents(record.data)), typed_of(visit))
    if faults:
        raise Faults(faults)
    return values


async def _once_more(visit: Visit, record: Record, error: InvalidData) -> Response:
    """The form with all that was typed, and each fault beside its field."""
    if visit.wants_json:
        raise error
    flow = visit.app.flow_of(record)
    told = error.by_field if isinstance(error, Faults) else fields.faults_by_field(flow, str(error)) if flow else {}
    page = edit.form(visit, record, typed=typed_of(visit), faults=told, fault=str(error), hint=error.hint)
    return await again(visit, "edit", page)
