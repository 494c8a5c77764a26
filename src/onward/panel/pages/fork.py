"""What a fork would be: a new process that begins as this one was, and what outside both of them would take for their own."""

from __future__ import annotations

from typing import Any

from onward import decide
from onward.errors import NotFound, OnwardError
from onward.panel.page import Page, Visit
from onward.panel.pages.common import described, quoted
from onward.panel.pages.process import asked_version, entry_at
from onward.panel.shown.contents import contents
from onward.process import OVER, Record
from onward.telling import shapes

LOOKS_MAX = 500  # entries before the end of a process, of which the last one that can be forked is offered


async def facts(visit: Visit) -> dict[str, Any]:
    record = await visit.process(visit.query.get("id", ""))
    return await choice(visit, record)


PAGE = Page("/fork", "fork", facts)


async def choice(visit: Visit, record: Record, *, fault: str = "", new_id: str = "", reason: str = "") -> dict[str, Any]:
    at = asked_version(visit, "at", record)
    at = await _last_forkable(visit, record) if at is None else at
    entry = await entry_at(visit, record, at)
    return {
        "process": described(record),
        "as_of": shapes.instant(record.as_of),
        "at_version": at,
        "then": shapes.entry(entry),
        "refused": _refused(visit, record, entry.to_status, at),
        "shared": await names_outside(visit, record, at),
        "fault": fault,
        "new_id": new_id,
        "reason": reason,
        "commands": [f"onward fork {quoted(record.id)} --at {at}"],
    }


async def _last_forkable(visit: Visit, record: Record) -> int:
    """Now; of a process that is over, the last version at which it was not."""
    flow = visit.app.flow_of(record)
    if record.condition not in OVER or flow is None:
        return record.version
    entries = await visit.app.store.history(record.id, record.version - LOOKS_MAX, LOOKS_MAX, light=True)
    alive = (entry.version for entry in reversed(entries) if flow.stages.get(flow.today(entry.to_status)) is not None)
    return next(alive, record.version)


def _refused(visit: Visit, record: Record, status: str, at: int) -> str:
    flow = visit.app.flow_of(record)
    try:
        if flow is None:
            raise NotFound(f"this app has no flow {record.flow!r}")
        decide.fork(flow, record, flow.today(status), at)
    except OnwardError as error:
        return str(error)
    return ""


async def names_outside(visit: Visit, record: Record, at: int | None = None) -> list[str]:
    """What of the data looks like the name of something outside; nothing, where nobody can read them."""
    text = record.data if at is None or at == record.version else await visit.app.text_at(record, at)
    return [] if contents(text).fault else await visit.app.shared(record.id, at)
