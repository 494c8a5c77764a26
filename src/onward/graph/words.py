"""What the drawings say in words: the kinds of edges, how often a stage looks, when its time is over."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from onward.explain import length
from onward.flow import Edge, Flow

WHY = {"": "returned", "otherwise": "deadline", "on_failure": "failure", "on_cancel": "cancel"}


def plain(text: str) -> str:
    """One line that neither a terminal nor XML can choke on: a status is whatever text its enum holds."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def looks(flow: Flow[Any], status: str) -> str:
    """'every 2 s' or 'every 2 s – 5 min'; '' for a stage that does not poll."""
    line = flow.stages[status]
    if line is None or line.every is None:
        return ""
    first, longest = (length(timedelta(seconds=s)) for s in (line.every.seconds, line.every.longest))
    if first == longest:
        return f"every {first}"
    number, _, unit = first.partition(" ")
    return f"every {number} – {longest}" if longest.endswith(f" {unit}") else f"every {first} – {longest}"


def deadline(flow: Flow[Any], status: str) -> str:
    """'within 24 h'; '' for a stage without a deadline."""
    line = flow.stages[status]
    return "" if line is None or line.within is None else f"within {length(line.within)}"


def about(flow: Flow[Any], status: str) -> str:
    """One status and how it is resolved, for whoever points at it."""
    line = flow.stages[status]
    if line is None:
        return f"{plain(status)}: the process is over"
    parts = [
        f"{plain(status)}: {plain(line.name)}",
        f"up to {line.retry.attempts} attempts",
        looks(flow, status),
        deadline(flow, status),
    ]
    return ", ".join(part for part in parts if part)


def sentence(flow: Flow[Any], edge: Edge) -> str:
    """One edge, for somebody who does not see the picture."""
    source, target = plain(edge.source), plain(edge.target)
    if edge.source == edge.target:
        return f"{source} looks again {looks(flow, edge.source)}"
    match edge.why:
        case "otherwise":
            return f"{source} leads to {target} if it is not done {deadline(flow, edge.source)}"
        case "on_failure":
            return f"{source} leads to {target} when its attempts are used up"
        case "on_cancel":
            return f"{source} leads to {target} when it is cancelled"
        case _:
            return f"{source} leads to {target}"
