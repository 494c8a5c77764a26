"""What a process does next or waits for, in a few words for one cell of a table."""

from __future__ import annotations

from datetime import datetime

from onward.explain import LATE, length
from onward.process import Condition, Record
from onward.telling.text import one_line

ERROR_CHARS_MAX = 160


def what_next(record: Record) -> str:
    """Short; the whole sentence is `onward explain`."""
    match record.condition:
        case Condition.READY:
            late = record.as_of - (record.due_at or record.as_of)
            return f"due for {length(late)}, and no worker took it" if late > LATE else "due now"
        case Condition.RUNNING:
            return f"attempt {record.tries} by {one_line(record.owner or '')}"
        case Condition.WAITING:
            if record.polls == 0:  # a cancelled process settles for a moment before it cleans up
                return f"goes on {_in(record, record.due_at)}"
            return f"looks again {_in(record, record.due_at)}" + (f", looked {record.polls}×" if record.polls > 1 else "")
        case Condition.RETRYING:
            return f"attempt {record.tries + 1} {_in(record, record.due_at)}: {_error(record)}"
        case Condition.FAILED:
            return _error(record)
        case Condition.PAUSED:
            return f"by a person, {age(record, record.updated_at)} ago"
        case Condition.ORPHANED:
            return "this code does not know its flow or status"
        case Condition.CANCELLED | Condition.FINISHED:
            return f"{age(record, record.updated_at)} ago"


def age(record: Record, since: datetime) -> str:
    return length(record.as_of - since)


def _in(record: Record, at: datetime | None) -> str:
    return f"in {length(at - record.as_of)}" if at is not None and at > record.as_of else "now"


def _error(record: Record) -> str:
    return one_line(record.error or "no reason was recorded", ERROR_CHARS_MAX)
