"""What can be done to a process now: which actions fit, which of them is the one that helps, and why the others do not fit."""

from __future__ import annotations

from typing import Any

from onward import decide
from onward.actor import Actor
from onward.app import Onward
from onward.codec import typed
from onward.errors import InvalidData, NotFound, OnwardError
from onward.process import OVER, Condition, Record

# In the order in which people think of them: verb, label, the letter that presses it, and what it does, in one line.
ACTIONS = (
    ("retry", "Retry", "r", "Goes on from its stage, with all its attempts before it again"),
    ("resume", "Resume", "r", "Lets it go on"),
    ("wake", "Wake now", "w", "Due now, instead of at the end of its wait"),
    ("pause", "Pause", "", "Nothing happens to it until somebody resumes it; a running attempt is cut off"),
    ("edit", "Edit data…", "e", "Changes its data; you see the difference before it is saved"),
    ("move", "Move…", "m", "Goes on at another status"),
    ("fork", "Fork…", "f", "A new process that begins as this one is, or was"),
    ("cancel", "Cancel…", "", "Walks the clean-up of its flow, and ends cancelled"),
    ("stop", "Stop…", "", "Ends here and now: no handler runs again, nothing is cleaned up"),
    ("delete", "Delete…", "", "Removes it and its history from the store"),
)
LABELS = {verb: label.rstrip("…") for verb, label, _, _ in ACTIONS}
ABOUT = {verb: about for verb, _, _, about in ACTIONS}
ASKED = frozenset({"cancel", "stop", "delete"})  # these ask before they do it
TYPED = frozenset({"stop", "delete"})  # and these for the id, since nothing brings back what they end
FORMS = frozenset({"edit", "move", "fork"})  # these have a page of their own
_HELPS = {Condition.FAILED: "retry", Condition.PAUSED: "resume", Condition.RETRYING: "retry", Condition.ORPHANED: "move"}


def offers(app: Onward, record: Record, actor: Actor) -> list[dict[str, Any]]:
    """Every action that this person's role allows: whether it fits, or `why` not, and whether it is the one that `helps`."""
    helps = helping(app, record)
    told = []
    for verb, label, key, about in ACTIONS:
        if actor.may(verb):
            why = refusal(app, record, verb)
            told.append(
                {
                    "verb": verb,
                    "label": label,
                    "key": key,
                    "about": about,
                    "fits": not why,
                    "why": why,
                    "helps": verb == helps and not why,
                    "ends": verb in ASKED,
                    "page": f"/{verb}" if verb in FORMS else "/confirm" if verb in ASKED else "",
                }
            )
    return told


def helping(app: Onward, record: Record) -> str:
    """The verb that makes it move on, where it does not by itself; '' where nothing is amiss."""
    if misfit(app, record) and record.condition not in OVER:
        return "edit"
    return _HELPS.get(record.condition, "")


def misfit(app: Onward, record: Record) -> str:
    """Why the model of today cannot read its data, or ''. Of an unknown flow or status nobody can say that it cannot."""
    flow = app.flow_of(record)
    if record.process is not None or flow is None or record.status not in flow.stages:
        return ""
    try:
        typed(flow, record)
    except InvalidData as error:
        return str(error).removeprefix(f"{flow.name} {record.id}: ")
    return ""


def refusal(app: Onward, record: Record, verb: str) -> str:
    """Why control would refuse that now, or ''."""
    try:
        _ask(app, record, verb)
    except OnwardError as error:
        return str(error).removeprefix(f"cannot {verb} {record.flow} {record.id}: ")
    return ""


def _ask(app: Onward, record: Record, verb: str) -> None:
    """Asks control; or, where a verb needs to be told more than that, the law that control asks."""
    match verb:
        case "edit":
            decide.refuse_edit(record)
        case "move":
            app.planned(record, verb, reason="to see whether it may", to=_another(app, record), force=True)
        case "fork":
            _fork(app, record)
        case _:
            app.planned(record, verb)


def _fork(app: Onward, record: Record) -> None:
    """Of what is over, an earlier version may be forked; the page of it says which."""
    flow = app.flow_of(record)
    if flow is None:
        raise NotFound(f"this app has no flow {record.flow!r}")
    if record.condition not in OVER:
        decide.fork(flow, record, record.status, record.version)


def _another(app: Onward, record: Record) -> str:
    flow = app.flow_of(record)
    return next((status for status in flow.statuses if status != record.status), "") if flow else ""
