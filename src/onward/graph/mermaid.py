"""The flow as a Mermaid `stateDiagram-v2`, which GitHub draws inside Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from onward.flow import Edge, Flow
from onward.graph.words import deadline, looks, plain

# Names of Mermaid's own; a status that is called so, or is no single word, gets a short name and a label.
_RESERVED = {
    "end",
    "state",
    "note",
    "direction",
    "class",
    "classdef",
    "style",
    "click",
    "default",
    "as",
    "title",
    "hide",
    "scale",
}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def mermaid(flow: Flow[Any]) -> str:
    """Cancelling leads from everywhere to one status, so it is a note there instead of an arrow from every box."""
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in _lines(flow))]) + "\n"


def _lines(flow: Flow[Any]) -> Iterator[str]:
    names = {status: _name(status, number) for number, status in enumerate(flow.statuses)}
    yield "direction LR"
    for status, name in names.items():
        if name != status:
            yield f'state "{_label(status)}" as {name}'
    yield f"[*] --> {names[flow.start]}"
    for edge in flow.edges():
        if edge.why != "on_cancel":
            label = _why(flow, edge)
            yield f"{names[edge.source]} --> {names[edge.target]}" + (f" : {label}" if label else "")
    for status in flow.statuses:
        if flow.is_end(status):
            yield f"{names[status]} --> [*]"
    if flow.on_cancel is not None:
        yield f"note right of {names[flow.on_cancel]} : a cancelled process goes on here"


def _why(flow: Flow[Any], edge: Edge) -> str:
    if edge.source == edge.target:
        return f"not yet, {looks(flow, edge.source)}"
    match edge.why:
        case "otherwise":
            return f"not done {deadline(flow, edge.source)}"
        case "on_failure":
            return "on failure"
        case _:
            return ""


def _name(status: str, number: int) -> str:
    fits = _WORD.fullmatch(status) and status.lower() not in _RESERVED and not re.fullmatch(r"s\d+", status)
    return status if fits else f"s{number}"


def _label(status: str) -> str:
    """Mermaid knows characters by number, and ends a statement at `;` wherever that stands."""
    return re.sub(r"[^\w .,+/()-]", lambda match: f"#{ord(match[0])};", plain(status), flags=re.ASCII)
