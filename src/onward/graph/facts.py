"""The flow as plain values, for JSON."""

from __future__ import annotations

from typing import Any

from onward.flow import Flow, Stage


def as_dict(flow: Flow[Any]) -> dict[str, Any]:
    """`onward.flow/1`: the statuses in the order of the table, and every edge. Durations are seconds."""
    return {
        "name": flow.name,
        "start": flow.start,
        "on_cancel": flow.on_cancel,
        "statuses": [{"status": status, "end": line is None, **_policies(line)} for status, line in flow.stages.items()],
        "edges": [{"source": edge.source, "target": edge.target, "why": edge.why or "returned"} for edge in flow.edges()],
    }


def _policies(line: Stage[Any] | None) -> dict[str, Any]:
    if line is None:
        return {"handler": None}
    return {
        "handler": line.name,
        "attempts": line.retry.attempts,
        "timeout_s": line.timeout.total_seconds(),
        "every_s": None if line.every is None else [line.every.seconds, line.every.longest],
        "within_s": None if line.within is None else line.within.total_seconds(),
    }
