"""One sentence that says why a process is not moving. The same in the API, the command line and the panel."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from onward.codec import printable, unread
from onward.flow import Flow
from onward.process import Condition, Record

LATE = timedelta(seconds=5)  # due for longer than this, and nobody took it: there is no worker


def explain(record: Record, flow: Flow[Any] | None) -> str:
    """What it waits for, since when, until when, and what happens then. `flow` None: the code at hand has no such flow."""
    sentence = _sentence(record, flow)
    return " ".join(printable(sentence, len(sentence)).split())  # errors may have many lines, and ids are data as well


def _sentence(record: Record, flow: Flow[Any] | None) -> str:
    head = f"{record.flow} {record.id} is {record.condition} at {record.status}"
    line = flow.stages.get(record.status) if flow is not None else None
    since = length(record.as_of - record.updated_at)
    error = (record.error or "").rstrip(". \n\t")
    match record.condition:
        case Condition.FINISHED:
            return f"{head}: it reached its end {since} ago."
        case Condition.CANCELLED:
            how = "it was cancelled, cleaned up and" if record.cancelling else "a person"
            return f"{head}: {how} ended {'' if record.cancelling else 'it '}{since} ago; no handler will run again."
        case Condition.FAILED:
            after = f"once the cause is mended, `onward retry {record.id}` goes on from here"
            return f"{head}: {error or 'no reason was recorded'}; it waits for a person, and {after}."
        case Condition.PAUSED:
            return f"{head}: a person paused it {since} ago; `onward resume {record.id}` lets it go on."
        case Condition.ORPHANED:
            return f"{head}: {unknown(record, flow)}, so it is left alone until a worker comes that knows it."
        case Condition.RUNNING:
            after = f"should it die, another worker may go on {_until(record, record.lease_until)}"
            return f"{head}: {record.owner or 'a worker'} runs attempt {record.attempt} of {_name(line)}; {after}."
        case Condition.WAITING:
            said = f"said 'not yet' {times(record.polls)} and looks again" if record.polls else "begins"
            looks = f"{_name(line)} {said} {_until(record, record.due_at)}"
            if line is not None and line.within is not None:
                left = max(timedelta(0), line.within - (record.as_of - record.entered_at))
                looks += f", and at the latest {length(left)} from now it goes to {line.otherwise}"
            return f"{head}: {looks}."
        case Condition.RETRYING:
            most = f" of {line.retry.attempts}" if line else ""
            after = f"the next one is {_until(record, record.due_at)}"
            why = f" with {error}" if error else ", no reason was recorded"
            return f"{head}: attempt {record.tries}{most} failed{why}; {after}."
        case Condition.READY:
            late = record.as_of - (record.due_at or record.as_of)
            if late > LATE:
                return f"{head}: it has been due for {length(late)} and no worker took it; start one with `onward run`."
            return f"{head}: it is due now, and the next free worker takes it."


def unknown(record: Record, flow: Flow[Any] | None) -> str:
    """Why code that has this flow, or none, leaves the row alone."""
    if flow is None:
        return f"this code has no flow {record.flow!r}"
    if flow.today(record.status) not in flow.stages:
        return f"the flow {record.flow} has no status {record.status!r}"
    if not flow.oldest <= record.data_version <= flow.version:
        return unread(flow, record.data_version)
    return f"its status {record.status!r} is called {flow.today(record.status)!r} now, an END, and it is not over"


def length(duration: timedelta) -> str:
    """A duration in words of two units at most: '3 s', '2 min 5 s', '4 h 10 min', '12 d 3 h'."""
    seconds = duration.total_seconds()
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s".replace(".0 s", " s")
    whole = int(seconds)
    for unit, name, below, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _name(line: Any) -> str:
    return line.name if line is not None else "its handler"


def _until(record: Record, instant: datetime | None) -> str:
    return f"in {length(instant - record.as_of)}" if instant is not None and instant > record.as_of else "now"
