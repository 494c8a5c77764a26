"""Rows as JSON, for programs: these shapes are promised, and each is held by a test. Texts for people are not."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from onward.ports import Count
from onward.process import Entry, Record
from onward.secret import KEY, MASK, masked


def process(record: Record) -> dict[str, Any]:
    """`onward.process/1`, without the data, which can be large."""
    return {
        "id": record.id,
        "flow": record.flow,
        "status": record.status,
        "condition": str(record.condition),
        "version": record.version,
        "transition": record.transition,
        "attempt": record.attempt,
        "polls": record.polls,
        "cancelling": record.cancelling,
        "created_at": instant(record.created_at),
        "updated_at": instant(record.updated_at),
        "entered_at": instant(record.entered_at),
        "due_at": instant(record.due_at),
        "owner": record.owner,
        "lease_until": instant(record.lease_until),
        "error": record.error,
        "model_version": record.data_version,
    }


def entry(line: Entry) -> dict[str, Any]:
    """One line of `onward.history/1`."""
    return {
        "version": line.version,
        "at": instant(line.at),
        "kind": line.kind,
        "from": line.from_status,
        "to": line.to_status,
        "transition": line.transition,
        "attempt": line.attempt,
        "actor": line.actor,
        "took_s": line.took,
        "reason": line.reason,
        "changed_data": line.data is not None,
        "model_version": line.data_version,
    }


def count(line: Count) -> dict[str, Any]:
    return {
        "flow": line.flow,
        "status": line.status,
        "condition": str(line.condition),
        "number": line.number,
        "oldest": instant(line.oldest),
    }


def stored(data: str) -> Any:
    """The data of a row, with its secrets masked; where it is no JSON, the text: looking at a broken row must work."""
    try:
        return masked(json.loads(data))
    except (ValueError, RecursionError):
        return data if KEY not in data else f"{MASK} (this is no JSON, and secrets may stand in it)"


def instant(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")
