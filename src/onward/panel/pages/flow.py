"""One flow, or all of them: its picture with what stands where, a filter, and the list of what it lets through."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from onward.errors import NotFound, QueryError
from onward.explain import length
from onward.flow import Flow
from onward.graph.live import Standing, picture
from onward.panel.page import Page, Visit
from onward.panel.pages.common import counted, described
from onward.panel.pages.home import GROUPS
from onward.panel.shown.counting import numbers
from onward.ports import Count
from onward.process import OVER, RESTING, Condition
from onward.query import QUALIFIERS, Term, exactly, nearest, parse, text_of
from onward.telling import shapes
from onward.telling.failures import LITERAL_CHARS_MIN, Kind, kind_of
from onward.telling.stats import of_counts, told_by_counts
from onward.telling.text import one_line

ROWS = 50  # of one page
LOOKS_MAX = 100_000  # rows of the list that one page goes through; then it says so, and where to go on
LOOKS_IN_DATA_MAX = 20_000  # the same where it has to read the data of each
REASONS_MAX = 6  # kinds of errors that are offered as a filter
HINTS_MAX = 4  # terms without which is looked, where nothing matches
CONDITIONS = tuple(condition for some in GROUPS.values() for condition in some)
ALL = frozenset(Condition)
# In which conditions each verb may do something. Those that are seldom meant stand behind a button of their own.
FITS = {
    "retry": frozenset({Condition.FAILED, Condition.RETRYING}),
    "wake": frozenset({Condition.WAITING, Condition.RETRYING}),
    "pause": ALL - RESTING,
    "resume": frozenset({Condition.PAUSED}),
    "cancel": ALL - OVER,
    "move": ALL - {Condition.RUNNING},
    "stop": ALL - OVER,
    "delete": OVER,
}
SELDOM = ("move", "stop", "delete")


async def facts(visit: Visit) -> dict[str, Any]:
    name = visit.query.get("name", "")
    answer = await numbers(visit.app).counts.ask()
    flow = visit.app.flows.get(name) or visit.app.own.get(name)
    _check_name(visit, name, answer.value)
    here = None if answer.value is None else [count for count in answer.value if not name or count.flow == name]
    text = visit.query.get("q", "").strip()
    terms, fault = _read(visit, text)
    now = visit.app.clock.now()
    standing = None if here is None else _standing(flow, here, now)
    whole = (*((exactly("flow", name),) if name else ()), *terms)
    listed = _nothing() if fault else await _list(visit, whole, terms, here)
    return {
        "name": name,
        "known": flow is not None or not visit.app.flows or not name,
        "own": name in visit.app.own,
        "start": flow.start if flow else None,
        "on_cancel": flow.on_cancel if flow else None,
        "statuses": _statuses(flow, here, now, terms),
        "asked": text,
        "fault": fault,
        "conditions": _chips(here, terms),
        "commands": [] if fault else _commands(whole, here, terms),
        "whole": text_of(whole),
        **_verbs(visit, terms),
        "qualifiers": [{"example": example, "means": means} for example, means in QUALIFIERS.values()],
        **listed,
        "reasons": reasons([record["error"] for record in listed["records"] if record["error"]], terms),
        "counting": counted(answer),
        **_pictures(visit, flow, standing, terms),
    }


def _check_name(visit: Visit, name: str, counts: Sequence[Count] | None) -> None:
    """NotFound for a flow that neither the code nor the store knows."""
    if not name or name in {*visit.app.flows, *visit.app.own} or counts is None or any(count.flow == name for count in counts):
        return
    known = [*visit.app.flows, *{count.flow for count in counts}]
    raise NotFound(f"there is no flow {one_line(name, 80)!r}{nearest(name, known)}", hint="all of them are on the first page")


def _read(visit: Visit, text: str) -> tuple[tuple[Term, ...], dict[str, str] | None]:
    """The query, or what is wrong with it: that stands beside the field, and the rest of the page stays as it is."""
    try:
        return parse(text), None
    except QueryError as error:
        if visit.wants_json:
            raise
        return (), {"message": str(error), "hint": error.hint}


# -- what stands where ------------------------------------------------------------------------------------------


def _standing(flow: Flow[Any] | None, here: Sequence[Count], now: datetime) -> dict[str, Standing]:
    found: dict[str, Standing] = {}
    for status in {count.status for count in here}:
        some = [count for count in here if count.status == status]
        waiting = [count.oldest for count in some if count.condition not in OVER]
        oldest = max(now - min(waiting), timedelta()) if waiting else None
        found[status] = Standing({count.condition: count.number for count in some}, oldest)
    return found


def _statuses(flow: Flow[Any] | None, here: Sequence[Count] | None, now: datetime, terms: Sequence[Term]) -> list[dict[str, Any]]:
    """The picture as a table: each status with its handler, and what stands there."""
    standing = _standing(flow, here or (), now)
    declared = list(flow.statuses) if flow else []
    return [
        {
            "status": status,
            "declared": flow is None or status in flow.stages,
            "handler": _handler(flow, status),
            "end": flow is not None and status in flow.stages and flow.is_end(status),
            "number": None if here is None else standing[status].number if status in standing else 0,
            "conditions": {} if status not in standing else _ordered(standing[status]),
            "oldest_s": None if status not in standing else _seconds(standing[status].oldest),
            "oldest": None if status not in standing else _words(standing[status].oldest),
            "q": toggled(terms, exactly("status", status)),
            "on": exactly("status", status) in terms,
        }
        for status in [*declared, *sorted(set(standing) - set(declared))]
    ]


def _handler(flow: Flow[Any] | None, status: str) -> str | None:
    line = flow.stages.get(status) if flow else None
    return line.name if line else None


def _ordered(standing: Standing) -> dict[str, int]:
    return {str(condition): standing.counts[condition] for condition in CONDITIONS if standing.counts.get(condition)}


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _words(duration: timedelta | None) -> str | None:
    return None if duration is None else length(duration)


def _pictures(
    visit: Visit, flow: Flow[Any] | None, standing: dict[str, Standing] | None, terms: Sequence[Term]
) -> dict[str, str]:
    """From left to right, and from top to bottom for narrow screens."""
    if flow is None or standing is None:
        return {"_picture": "", "_picture_down": ""}

    def link(status: str) -> str:
        return visit.at("/flow", name=flow.name, q=toggled(terms, exactly("status", status))) + "#list"

    return {
        "_picture": picture(flow, standing, link=link),
        "_picture_down": picture(flow, standing, link=link, down=True),
    }


# -- the filter -------------------------------------------------------------------------------------------------


def toggled(terms: Sequence[Term], term: Term) -> str:
    """The query with this term in the place of others like it; without it, if it is there already."""
    others = [one for one in terms if one.qualifier != term.qualifier or one.negated]
    return text_of(others if term in terms else [*others, term])


def _chips(here: Sequence[Count] | None, terms: Sequence[Term]) -> list[dict[str, Any]]:
    """One for each condition that there is: how many of those that the rest of the query lets through, where that is known."""
    rest = [term for term in terms if term.qualifier != "is" or term.negated]
    there = {count.condition for count in here or ()}
    return [
        {
            "condition": str(condition),
            "number": number_of([*rest, Term("is", (condition,))], here),
            "on": on,
            "q": toggled(terms, Term("is", (condition,))),
        }
        for condition in CONDITIONS
        for on in [any(term.qualifier == "is" and not term.negated and condition in term.conditions for term in terms)]
        if on or condition in there
    ]


def _verbs(visit: Visit, terms: Iterable[Term]) -> dict[str, list[str]]:
    """What this person may do, and makes sense with what the query lets through."""
    conditions = ALL
    for term in terms:
        if term.qualifier == "is":
            conditions = conditions - term.conditions if term.negated else conditions & term.conditions
    fit = [verb for verb, fits in FITS.items() if fits & conditions and visit.actor.may(verb)]
    seldom = [] if conditions <= OVER else [verb for verb in fit if verb in SELDOM]
    return {"verbs": [verb for verb in fit if verb not in seldom], "seldom": seldom}


def reasons(errors: Sequence[str], terms: Sequence[Term]) -> list[dict[str, Any]]:
    """The errors of these rows by their kind, the most frequent first, each with the query that asks for it alone."""
    if any(term.qualifier == "error" for term in terms):
        return []
    kinds = Counter(kind for kind in map(kind_of, errors) if kind.weight >= LITERAL_CHARS_MIN)
    found = [{"error": kind.label, "number": number, "q": _asking(kind, terms)} for kind, number in kinds.most_common()]
    return [one for one in found if one["q"]][:REASONS_MAX]


def _asking(kind: Kind, terms: Sequence[Term]) -> str:
    try:
        return toggled(terms, Term("error", (kind.pattern,)))
    except QueryError:  # longer than a query may be
        return ""


def number_of(terms: Sequence[Term], counts: Sequence[Count] | None) -> int | None:
    """How many match, where the terms ask for nothing but what the counts tell; else None."""
    if counts is None or not told_by_counts(terms):
        return None
    return sum(count.number for count in of_counts(terms, counts))


def _commands(whole: Sequence[Term], here: Sequence[Count] | None, terms: Sequence[Term]) -> list[dict[str, str]]:
    """What to type in a shell to see the same, and to try again what failed of it."""
    told = [{"label": "This list", "text": shlex.join(["onward", "ls", *map(str, whole)])}]
    if here is None or number_of([*(t for t in terms if t.qualifier in ("is", "status")), Term("is", ("failed",))], here):
        failed = whole if Term("is", ("failed",)) in whole else (*whole, Term("is", ("failed",)))
        told.append({"label": "Retry what failed of it", "text": shlex.join(["onward", "retry", "--query", text_of(failed)])})
    return told


# -- the list ---------------------------------------------------------------------------------------------------


async def _list(visit: Visit, whole: Sequence[Term], terms: Sequence[Term], here: Sequence[Count] | None) -> dict[str, Any]:
    before, first = visit.query.get("before", ""), (visit.number("n") or 0) + 1
    looks = _looks(whole)
    found = await visit.app.find(whole, before=before, limit=ROWS + 1, light=True, looks=looks)
    shown, more = found[:ROWS], len(found) > ROWS
    further = "" if more else await visit.app.past(before, looks, whole)
    number = number_of(whole, here)
    if number is None and not before and not more and not further:
        number = len(shown)
    return {
        "records": [described(record) for record in shown],
        "as_of": shapes.instant(shown[0].as_of if shown else visit.app.clock.now()),
        "first": first,
        "number": number,
        "before": before,
        "next": shown[-1].id if more else None,
        "further": further or None,
        "looked_at": looks,
        "without": [] if shown or further or before else await _without(visit, whole, terms),
    }


def _looks(terms: Iterable[Term]) -> int:
    return LOOKS_IN_DATA_MAX if any(term.qualifier == "data" for term in terms) else LOOKS_MAX


def _nothing() -> dict[str, Any]:
    nothing: dict[str, Any] = {"records": [], "as_of": None, "first": 1, "number": None, "before": "", "next": None}
    return {**nothing, "further": None, "looked_at": LOOKS_MAX, "without": []}


async def _without(visit: Visit, whole: Sequence[Term], terms: Sequence[Term]) -> list[dict[str, str]]:
    """The terms that alone keep everything out: without each of these, something would match."""
    found = []
    for term in terms[:HINTS_MAX] if len(terms) > 1 else ():
        rest = [one for one in whole if one is not term]
        if await visit.app.find(rest, limit=1, light=True, looks=_looks(rest)):
            found.append({"term": str(term), "q": text_of(one for one in terms if one is not term)})
    return found


PAGE = Page("/flow", "flow", facts)
