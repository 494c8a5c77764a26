"""The form for a new process, by the model of its flow, the same as JSON, and the same as a command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from onward.errors import NotFound
from onward.flow import Flow
from onward.intake import takes
from onward.panel.page import Page, Visit
from onward.panel.pages.common import quoted
from onward.panel.shown import fields
from onward.query import nearest
from onward.secret import as_json, masked
from onward.telling.text import one_line, to_json


async def facts(visit: Visit) -> dict[str, Any]:
    name = visit.query.get("flow", "")
    if not name and len(visit.app.flows) != 1:
        return {**_nothing(), "flows": sorted(visit.app.flows)}
    return form(visit, flow_called(visit, name or next(iter(visit.app.flows))))


PAGE = Page("/start", "start", facts)


def flow_called(visit: Visit, name: str) -> Flow[Any]:
    """NotFound, with the nearest one."""
    flow = visit.app.flows.get(name)
    if flow is None:
        known = sorted(visit.app.flows)
        raise NotFound(
            f"this app has no flow {one_line(name, 80)!r}{nearest(name, known)}", hint=f"its flows: {', '.join(known) or 'none'}"
        )
    return flow


_TEXTS = ("json", "id", "fault", "hint", "command", "takes")


def _nothing() -> dict[str, Any]:
    return {"flow": "", "flows": [], "fields": [], "by_json": False, "faults": {}, **dict.fromkeys(_TEXTS, "")}


def form(
    visit: Visit,
    flow: Flow[Any],
    *,
    typed: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
    fault: str = "",
    hint: str = "",
    command: str = "",
) -> dict[str, Any]:
    """The page; after a refusal with all that was typed in it."""
    given = typed or {}
    return {
        **_nothing(),
        "flow": flow.name,
        "flows": sorted(visit.app.flows),
        "fields": fields.form(flow, {}, typed),
        "json": given.get("json") or _sample(flow),
        "by_json": bool(given.get("json")),
        "id": given.get("id", ""),
        "faults": dict(faults or {}),
        "fault": fault,
        "hint": hint,
        "command": command,
        "takes": takes(flow),
    }


def _sample(flow: Flow[Any]) -> str:
    """What has to be given, with nothing in it."""
    empty = {"text": "", "secret": "", "lines": [], "number": 0, "truth": False}
    needed = [about for about in fields.fields_of(flow, {}) if about.required]
    return to_json({about.name: about.choices[0] if about.choices else empty.get(about.kind) for about in needed})


def as_command(flow: Flow[Any], process: Any, values: Mapping[str, Any], id: str) -> str:
    """What to type to start the same. In the place of a secret stands its mask: no shell should remember it."""
    shown = masked(as_json(process))
    given = {name: shown.get(name, value) for name, value in values.items()}
    named = f" --id {quoted(id)}" if id else ""
    return f"onward start {flow.name}{named} --data {shlex.quote(to_json(given, None))}"
