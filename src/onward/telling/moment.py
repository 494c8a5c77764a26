"""One version of a process: what it was, what came next until its status changed, and what could have come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onward.control import Control
from onward.errors import NotFound
from onward.flow import Flow
from onward.process import Entry, Record
from onward.telling.story import PAGE, Line, folded

LOOKS_MAX = 10_000  # entries after it in which the next change of status is looked for


@dataclass(frozen=True)
class Moment:
    """`after`: the lines of the history that follow, up to the next change of status. `possible`: each way that the table
    declares from there, as (why, status); None where the code at hand does not know the flow or the status.
    """

    entry: Entry
    after: Sequence[Line]
    possible: Sequence[tuple[str, str]] | None


async def moment(control: Control, record: Record, version: int) -> Moment:
    """Raises NotFound for a version that is not, or no longer, in the history."""
    found = await control.history(record.id, after=version - 1, limit=1, light=True) if version <= record.version else []
    if not found or found[0].version != version:
        raise NotFound(
            f"process {record.id} has no version {version} in its history; its last one is {record.version}",
            hint=f"onward history {record.id}",
        )
    return Moment(found[0], await _after(control, found[0]), possible(control.flow_of(record), found[0].to_status))


def possible(flow: Flow[Any] | None, status: str) -> list[tuple[str, str]] | None:
    if flow is None or (status := flow.renamed.get(status, status)) not in flow.stages:
        return None
    return [(edge.why, edge.target) for edge in flow.edges() if edge.source == status]


async def _after(control: Control, entry: Entry) -> list[Line]:
    found: list[Entry] = []
    last = entry.version
    while len(found) < LOOKS_MAX:
        page = await control.history(entry.process_id, after=last, limit=PAGE, light=True)
        for one in page:
            found.append(one)
            if one.transition != entry.transition:
                return list(folded(found))
        if len(page) < PAGE:
            break
        last = page[-1].version
    return list(folded(found))
