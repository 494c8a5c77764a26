"""Where a process could go on instead: the ways that its table declares first, then all others, which take a reason."""

from __future__ import annotations

from typing import Any

from onward.decide import declared
from onward.flow import Flow
from onward.panel.page import Page, Visit
from onward.panel.pages.common import described, quoted
from onward.panel.shown.offers import refusal
from onward.process import Record
from onward.telling import shapes

WAYS = {
    "": "its handler may return it",
    "otherwise": "where its deadline leads",
    "on_failure": "where it goes when it gives up",
    "on_cancel": "where a cancelled process goes on, to clean up",
}


async def facts(visit: Visit) -> dict[str, Any]:
    record = await visit.process(visit.query.get("id", ""))
    return choice(visit, record, to=visit.query.get("to", ""))


PAGE = Page("/move", "move", facts)


def choice(
    visit: Visit, record: Record, *, to: str = "", warned: bool = False, fault: str = "", reason: str = ""
) -> dict[str, Any]:
    """The page; `warned`: the way to `to` is not declared, and the page says so and asks for a reason."""
    flow = visit.app.flow_of(record)
    ways = declared(flow, record.status) if flow else []
    others = [status for status in flow.statuses if status not in (*ways, record.status)] if flow else []
    return {
        "process": described(record),
        "as_of": shapes.instant(record.as_of),
        "version": record.version,
        "refused": refusal(visit.app, record, "move"),
        "declared": [_way(flow, record.status, status) for status in ways if flow],
        "others": [_way(flow, record.status, status) for status in others if flow],
        "to": to,
        "warned": warned,
        "fault": fault,
        "reason": reason,
        "commands": [f"onward move {quoted(record.id)} {quoted(to or (ways or ['STATUS'])[0])}" + _force(warned)],
    }


def _force(warned: bool) -> str:
    return " --force --reason '…'" if warned else ""


def _way(flow: Flow[Any], source: str, target: str) -> dict[str, Any]:
    why = next((edge.why for edge in flow.edges() if (edge.source, edge.target) == (source, target)), None)
    line = flow.stages[target]
    return {
        "status": target,
        "about": "" if why is None else WAYS[why],
        "handler": "" if line is None else line.name,
        "is_end": line is None,
    }
