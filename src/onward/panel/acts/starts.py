"""A new process from a form or from JSON; or, if only that is asked for, the command that would start it."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from onward.errors import Conflict, InvalidData
from onward.flow import Flow
from onward.panel.acts.again import again
from onward.panel.acts.asked import Faults, object_of, text_of, typed_of
from onward.panel.page import Visit, json_answer, see_other
from onward.panel.pages.start import as_command, flow_called, form
from onward.panel.shown import fields
from onward.telling import shapes
from onward.telling.text import one_line

ID_CHARS_SHOWN = 80


async def start(visit: Visit) -> Response:
    """POST /start"""
    actor = await visit.allowed("start")
    flow = flow_called(visit, text_of(visit.body, "flow"))
    id = text_of(visit.body, "id").strip()
    try:
        values = _values(visit, flow)
        process = visit.app.make(flow.name, values, id or None)
        if visit.body.get("show"):
            return await _as_command(visit, flow, as_command(flow, process, values, id))
        known = bool(id) and await visit.app.store.get(id) is not None
        record = await visit.app.start(process, actor=actor)
    except (InvalidData, Conflict) as error:
        return await _once_more(visit, flow, error)
    if visit.wants_json:
        told = {"schema": "onward.panel.start/1", "is_new": not known, "process": shapes.process(record)}
        return json_answer(told, 200 if known else 201)
    told_so = f"Started {one_line(record.id, ID_CHARS_SHOWN)}"
    if known:
        told_so = "It exists already, with the same input: nothing was started twice"
    return see_other(visit, "/process", id=record.id, done=told_so)


def _values(visit: Visit, flow: Flow[Any]) -> dict[str, Any]:
    if "data" in visit.body:
        return object_of(visit.body["data"])
    if visit.body.get("json"):
        return fields.read_json(text_of(visit.body, "json"))
    values, faults = fields.read(flow, {}, typed_of(visit))
    if faults:
        raise Faults(faults)
    return values


async def _as_command(visit: Visit, flow: Flow[Any], command: str) -> Response:
    if visit.wants_json:
        return json_answer({"schema": "onward.panel.command/1", "command": command})
    return await again(visit, "start", form(visit, flow, typed=typed_of(visit), command=command), 200)


async def _once_more(visit: Visit, flow: Flow[Any], error: InvalidData | Conflict) -> Response:
    """The form with all that was typed, and each fault beside its field."""
    if visit.wants_json:
        raise error
    told = error.by_field if isinstance(error, Faults) else fields.faults_by_field(flow, str(error))
    page = form(visit, flow, typed=typed_of(visit), faults=told, fault=str(error), hint=error.hint)
    return await again(visit, "start", page, 409 if isinstance(error, Conflict) else 422)
