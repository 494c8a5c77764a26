"""The law: what becomes of a row after an attempt, or after what a person asked for.

Every store and every engine asks these functions and nobody else. They are pure: no I/O, no clock, no randomness. Time
comes in as `record.as_of` plus the attempt's length; durations go out, and the store makes instants of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from onward.codec import printable
from onward.errors import Refused, RolledBack
from onward.flow import Flow, Stage
from onward.process import OVER, RESTING, Condition, Record
from onward.query import nearest

MOVES_MAX = 1_000  # a process that moves this often without waiting once is spinning
NOW = timedelta(0)
ROLLED_BACK = timedelta(seconds=1)  # before a stage runs again whose transaction the database took away
SETTLE = timedelta(seconds=1)  # a worker notices within 0.1 s that a process was taken from it; its handler has to end

# -- what an attempt can come to ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Returned:
    """The handler returned `status`, left `data` (JSON) and it was read back as `process`. `transaction` is its own, still
    open, to be committed with the transition; the law only hands it on.
    """

    status: str
    data: str
    process: Any
    took: float
    transaction: Any = None


@dataclass(slots=True)
class Failed:
    """The handler raised, timed out or broke a rule. `delay`: a RetryAfter; `permanent`: trying again cannot help."""

    error: str
    took: float
    delay: timedelta | None = None
    permanent: bool = False


@dataclass(slots=True)
class Unreadable:
    """The row's data does not fit the model, so no handler could be asked; its bytes stay as they are."""

    error: str
    took: float = 0.0


@dataclass(slots=True)
class Undone:
    """The database took the handler's transaction away, and what it wrote there. No fault of the process's."""

    error: str
    took: float


Outcome = Returned | Failed | Unreadable | Undone


@dataclass(slots=True)
class Change:
    """What a commit writes. `data` None keeps the data; `due_after` None means that nothing happens by itself.

    `goes_on`: the status changed and is not END, so the same worker keeps the lease and runs the next stage.
    `enters`: the clock of the stage (`within`) starts anew. `reason` goes to the history, `error` stays on the row.
    """

    kind: str
    status: str
    condition: Condition
    due_after: timedelta | None
    attempt: int
    polls: int
    transition: int
    moves: int
    cancelling: bool
    excused: int = 0
    data: str | None = None
    process: Any = None
    error: str | None = None
    reason: str | None = None
    took: float | None = None
    enters: bool = False
    goes_on: bool = False
    transaction: Any = None


# -- after an attempt ---------------------------------------------------------------------------------------------


def decide(flow: Flow[Any], record: Record, outcome: Outcome) -> Change:
    """What to commit after `outcome` of an attempt on `record`."""
    line = _line(flow, record)
    match outcome:
        case Returned():
            if outcome.status == record.status:
                return _not_yet(line, record, outcome)
            change = _go(flow, record, outcome.status, data=outcome.data, process=outcome.process, took=outcome.took)
            change.transaction = outcome.transaction
            return change
        case Failed():
            return _after_failure(flow, line, record, outcome)
        case Unreadable():
            return _fail(record, outcome.error, outcome.took)
        case Undone():
            return _undone(line, record, outcome)


def undone(flow: Flow[Any], record: Record, change: Change, error: RolledBack) -> Change:
    """What to commit instead of `change`, whose transaction could not be committed: the stage has to run again."""
    said, took = printable(str(error)), change.took or 0.0
    return decide(flow, record, Failed(said, took) if error.fault else Undone(said, took))


def overdue(flow: Flow[Any], record: Record) -> Change | None:
    """What to commit instead of an attempt: the stage's deadline has passed, or attempts ended without a word.

    An attempt is counted when it is claimed, so a handler that takes its worker down with it cannot do so for ever.
    """
    line = _line(flow, record)
    if _is_late(line, record, 0):
        return _too_late(flow, line, record)
    if record.tries > line.retry.attempts:
        often = "once" if record.tries == 2 else f"{record.tries - 1} times"
        error = record.error or f"{line.name} was begun {often} and never reported: its worker died, or somebody cut it off"
        return _give_up(flow, line, record, error, None)
    return None


def saved(record: Record, data: str) -> Change:
    """What `ctx.save()` commits: the data, and the attempt goes on."""
    change = _stay(record, "saved", Condition.READY, NOW)
    change.data, change.goes_on = data, True
    return change


def _not_yet(line: Stage[Any], record: Record, outcome: Returned) -> Change:
    assert line.every is not None  # the flow was proven, and attempt() refuses what was not declared
    pause = _in_time(line, record, line.every.pause(record.polls, record.id), outcome.took)
    change = _stay(record, "not yet", Condition.WAITING, pause)
    change.data, change.process, change.took = outcome.data, outcome.process, outcome.took
    change.polls, change.excused, change.moves, change.error = record.polls + 1, record.attempt, 0, None
    change.transaction = outcome.transaction
    return change


def _go(
    flow: Flow[Any],
    record: Record,
    status: str,
    *,
    kind: str = "moved",
    data: str | None = None,
    process: Any = None,
    reason: str | None = None,
    took: float | None = None,
) -> Change:
    goal = flow.stages[status]
    moves = record.moves + 1
    change = Change(
        kind=kind,
        status=status,
        condition=Condition.READY,
        due_after=NOW,
        attempt=1,
        polls=0,
        transition=record.transition + 1,
        moves=moves,
        cancelling=record.cancelling,
        data=data,
        process=process,
        reason=reason,
        took=took,
        enters=goal is None or goal is not flow.stages[record.status],
        goes_on=True,
    )
    if goal is None:
        change.condition = Condition.CANCELLED if record.cancelling else Condition.FINISHED
        change.due_after, change.attempt, change.goes_on = None, 0, False
    elif moves > MOVES_MAX:
        change.condition, change.due_after, change.goes_on = Condition.FAILED, None, False
        change.attempt = change.moves = 0
        change.error = f"spinning: more than {MOVES_MAX:,} transitions without waiting once, the last to {status}"
        change.kind, change.reason = "failed", change.error
    return change


def _after_failure(flow: Flow[Any], line: Stage[Any], record: Record, failed: Failed) -> Change:
    if not failed.permanent and _is_late(line, record, failed.took):  # also if it was the last attempt: time ran out first
        change = _too_late(flow, line, record)
        change.took, change.reason = failed.took, f"{change.reason}; at last: {failed.error}"
        return change
    pause = None if failed.permanent else line.retry.pause(record.tries, record.id)
    if pause is None:
        return _give_up(flow, line, record, failed.error, failed.took)
    pause = _in_time(line, record, pause if failed.delay is None else failed.delay, failed.took)
    change = _stay(record, "retry", Condition.RETRYING, pause)
    change.error = change.reason = failed.error
    change.took = failed.took
    change.moves = 0 if pause else record.moves  # a pause of nothing is no wait
    return change


def _undone(line: Stage[Any], record: Record, undone: Undone) -> Change:
    pause = _in_time(line, record, ROLLED_BACK, undone.took)
    change = _stay(record, "rolled back", Condition.RETRYING, pause)
    change.error = change.reason = undone.error
    change.took, change.excused = undone.took, record.excused + 1
    change.moves = 0 if pause else record.moves
    return change


def _give_up(flow: Flow[Any], line: Stage[Any], record: Record, error: str, took: float | None) -> Change:
    if line.on_failure is None:
        return _fail(record, error, took)
    change = _go(flow, record, line.on_failure.value, kind="gave up", reason=error, took=took)
    change.error = change.error or error
    return change


def _fail(record: Record, error: str, took: float | None) -> Change:
    change = _stay(record, "failed", Condition.FAILED, None)
    change.error = change.reason = error
    change.took, change.moves = took, 0
    return change


def _stay(record: Record, kind: str, condition: Condition, due_after: timedelta | None) -> Change:
    """A change that leaves everything else as it is."""
    return Change(
        kind=kind,
        status=record.status,
        condition=condition,
        due_after=due_after,
        attempt=record.attempt,
        excused=record.excused,
        polls=record.polls,
        transition=record.transition,
        moves=record.moves,
        cancelling=record.cancelling,
        error=record.error,
    )


def _is_late(line: Stage[Any], record: Record, took: float) -> bool:
    return line.within is not None and record.as_of - record.entered_at + timedelta(seconds=took) >= line.within


def _too_late(flow: Flow[Any], line: Stage[Any], record: Record) -> Change:
    assert line.within is not None and line.otherwise is not None  # the flow was proven
    reason = f"{line.name} was not done within {_length(line.within)}"
    return _go(flow, record, line.otherwise.value, kind="deadline", reason=reason)


def _in_time(line: Stage[Any], record: Record, pause: timedelta, took: float) -> timedelta:
    """`pause`, but no longer than until the stage's deadline: then is the time to look again, and not after it."""
    if line.within is None:
        return pause
    left = line.within - (record.as_of - record.entered_at) - timedelta(seconds=took)
    return max(NOW, min(pause, left))


# -- what a person may ask for ------------------------------------------------------------------------------------
# `record.condition` is what the person saw; the commit is refused if the version has moved on since.


def wake(record: Record) -> Change:
    """Due now, instead of at the end of its wait or pause."""
    if record.condition not in (Condition.WAITING, Condition.RETRYING):
        raise _refused("wake", record)
    return _stay(record, "woken", Condition.READY, NOW)


def retry(record: Record) -> Change:
    """Goes on from where it failed, with all attempts and the stage's whole time before it again."""
    if record.condition not in (Condition.FAILED, Condition.RETRYING):
        raise _refused("retry", record)
    change = _stay(record, "retried", Condition.READY, NOW)
    change.excused, change.moves, change.enters, change.error = record.attempt, 0, True, None
    return change


def pause(record: Record) -> Change:
    """Nothing happens until somebody resumes it. A running attempt loses its right to commit, and is stopped."""
    # No due time: it is over or waits for a person already, also where this code does not know it and calls it orphaned.
    if record.due_at is None or record.condition in RESTING:
        raise _refused("pause", record)
    return _stay(record, "paused", Condition.PAUSED, None)


def resume(record: Record) -> Change:
    if record.condition is not Condition.PAUSED:
        raise _refused("resume", record)
    return _stay(record, "resumed", Condition.READY, NOW)


def cancel(flow: Flow[Any], record: Record) -> Change:
    """Goes on at `on_cancel`, so that its clean-up runs, and ends *cancelled*; without `on_cancel` it ends here."""
    if record.condition in OVER:
        raise _refused("cancel", record)
    if record.cancelling:
        raise Refused(
            f"{record.flow} {record.id} is cancelled already and cleans up, now at {record.status}",
            hint=f"to give up its clean-up as well: onward stop {record.id}",
        )
    if flow.on_cancel is None:
        return _stay(record, "cancelled", Condition.CANCELLED, None)
    # A moment later: an attempt that is cut off may be about to make something, and its clean-up has to find that.
    change = _stay(record, "cancelled", Condition.WAITING, SETTLE)
    if flow.is_end(flow.on_cancel):  # nobody claims a row at END
        change.condition, change.due_after = Condition.CANCELLED, None
    change.status, change.transition, change.cancelling = flow.on_cancel, record.transition + 1, True
    change.attempt = change.excused = change.polls = change.moves = 0
    change.enters, change.error = True, None
    return change


def stop(record: Record) -> Change:
    """Ends here and now: no handler runs again, nothing is cleaned up."""
    if record.condition in OVER:
        raise _refused("stop", record)
    return _stay(record, "stopped", Condition.CANCELLED, None)


def move(flow: Flow[Any], record: Record, to: str, *, force: bool) -> Change:
    """Goes on at another status, as after a handler that returned it. Along an edge that the table has not, only by force."""
    _refuse_running("move", record)
    if to not in flow.stages:
        raise Refused(
            f"{flow.name} has no status {printable(to, 80)!r}{nearest(to, flow.statuses)}", hint=f"onward graph {flow.name}"
        )
    if to == record.status:
        raise Refused(f"{record.flow} {record.id} is at {to} already", hint=_what_fits(record))
    if not force and to not in declared(flow, record.status):
        raise Refused(
            f"{record.status} → {to} is no declared transition of {flow.name}; declared: "
            f"{', '.join(declared(flow, record.status)) or 'none'}",
            hint=f"to do it anyway: onward move {printable(record.id)} {to} --force --reason '…'",
        )
    change = _stay(record, "moved by hand", Condition.READY, NOW)
    change.cancelling = record.cancelling and record.condition not in OVER  # who takes it up again wants it to go on
    if flow.is_end(to):  # nobody claims a row at END
        change.condition = Condition.CANCELLED if change.cancelling else Condition.FINISHED
        change.due_after = None
    change.status, change.transition = to, record.transition + 1
    change.attempt = change.excused = change.polls = change.moves = 0
    change.enters, change.error = True, None
    return change


def declared(flow: Flow[Any], status: str) -> list[str]:
    """Where the table leads from there, in its order; nowhere from a status that it does not know. To cancel is another verb."""
    ways = [edge for edge in flow.edges() if edge.source == status and edge.why != "on_cancel"]
    return list(dict.fromkeys(edge.target for edge in ways if edge.target != status))


def edit(record: Record, data: str, process: Any) -> Change:
    """Other data, which were validated, at the same place: its next handler, and its times, stay what they are."""
    refuse_edit(record)
    change = _stay(record, "edited", record.condition, _left(record))
    change.data, change.process = data, process
    return change


def refuse_edit(record: Record) -> None:
    """Raises Refused where nothing would read the data any more, or somebody has read them already."""
    _refuse_running("edit", record)
    if record.condition in OVER or record.condition is Condition.ORPHANED:
        raise _refused("edit", record)


def delete(record: Record) -> None:
    """Raises Refused unless it is over: what is under way may have left things outside that only its handlers know of."""
    if record.condition not in OVER:
        raise Refused(
            f"cannot delete {record.flow} {record.id}: it is {record.condition}, at {record.status}",
            hint=f"end it first: onward cancel {printable(record.id)}, or without clean-up: onward stop {printable(record.id)}",
        )


def fork(flow: Flow[Any], record: Record, status: str, at: int) -> None:
    """Raises Refused where a process that begins as this one was at version `at` could do nothing."""
    if flow.stages.get(status) is None:
        what = "was over" if status in flow.stages else f"was at {printable(status)}, which {flow.name} has not any more"
        raise Refused(
            f"cannot fork {record.flow} {record.id} at version {at}: there it {what}",
            hint=f"an earlier version: onward history {printable(record.id)}",
        )


def _refuse_running(verb: str, record: Record) -> None:
    """The attempt under way has its copy of status and data already, and effects outside."""
    if record.condition is Condition.RUNNING:
        raise Refused(
            f"cannot {verb} {record.flow} {record.id}: {record.owner or 'a worker'} is running {record.status}",
            hint=f"interrupt it first: onward pause {printable(record.id)}",
        )


def _left(record: Record) -> timedelta | None:
    return None if record.due_at is None else max(NOW, record.due_at - record.as_of)


_WHAT_FITS = {
    Condition.READY: "it is due; a worker takes it: onward run",
    Condition.RUNNING: "to interrupt it: onward pause {id}",
    Condition.WAITING: "to look at once: onward wake {id}",
    Condition.RETRYING: "to try at once: onward retry {id}",
    Condition.FAILED: "after mending the cause: onward retry {id}",
    Condition.PAUSED: "to go on: onward resume {id}",
    Condition.ORPHANED: "start the code that knows its status, or: onward stop {id}",
    Condition.CANCELLED: "it is over: onward history {id}",
    Condition.FINISHED: "it is over: onward history {id}",
}


def _refused(verb: str, record: Record) -> Refused:
    return Refused(
        f"cannot {verb} {record.flow} {record.id}: it is {record.condition}, at {record.status}",
        hint=_what_fits(record),
    )


def _what_fits(record: Record) -> str:
    return _WHAT_FITS[record.condition].format(id=printable(record.id))


def _line(flow: Flow[Any], record: Record) -> Stage[Any]:
    line = flow.stages[record.status]
    assert line is not None, f"{record.id} is at END; nobody claims it"
    return line


def _length(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s" if duration.total_seconds() < 120 else str(duration)
