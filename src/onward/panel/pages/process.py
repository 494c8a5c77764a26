"""One process: why it does not move, what to press, what happened to it, and what each step changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from onward.errors import NotFound
from onward.explain import explain, length
from onward.flow import Edge, Flow
from onward.graph.passed import Now, Passed, path_picture, walked
from onward.panel.page import Page, Visit
from onward.panel.pages.common import described, quoted
from onward.panel.shown import contents, timeline
from onward.panel.shown.offers import misfit, offers
from onward.panel.shown.story import ENTRIES_MAX, Story, around, story, whole_way
from onward.panel.shown.trouble import error_parts
from onward.process import Condition, Entry, Record
from onward.telling import shapes
from onward.telling.now import what_next
from onward.telling.text import one_line

STEPS_MAX = 50  # recorded sub-steps that a page shows
BEFORE_ALL = -1  # the version before the start, when there was nothing
ERROR_CHARS_MAX = 300  # of an error inside the sentence; all of it stands beneath

# Of these the sentence begins with the name of a handler or worker, which is written as it is.
_NAMED_FIRST = {Condition.WAITING, Condition.RUNNING}

# What an entry left its process in. Where it moved to is due at once, unless that is its end.
_LEFT = {
    "not yet": Condition.WAITING,
    "retry": Condition.RETRYING,
    "rolled back": Condition.RETRYING,
    "failed": Condition.FAILED,
    "paused": Condition.PAUSED,
    "stopped": Condition.CANCELLED,
}


async def facts(visit: Visit) -> dict[str, Any]:
    record = await visit.process(visit.query.get("id", ""))
    version = asked_version(visit, "version", record)
    told = await _story_around(visit, record, version)
    past = None if version is None or version == record.version else await entry_at(visit, record, version)
    shown = record.version if version is None else version
    data = await _data(visit, record, version, told.entries)
    earlier, later = around(told.entries, data["version"], record.version)
    actions = [] if past else offers(visit.app, record, visit.actor)
    sentence = explain(record, visit.app.flow_of(record))
    return {
        "process": described(record),
        "as_of": shapes.instant(record.as_of),
        "explain": sentence,
        "misfit": misfit(visit.app, record),
        "trouble": error_parts(record.error) if record.error else None,
        "_said": said(record, sentence),
        "actions": actions,
        "helps": next((action for action in actions if action["helps"]), None),
        "past": None if past is None else {**shapes.entry(past), "words": timeline.WORDS.get(past.kind, (past.kind, ""))[0]},
        "version": shown,
        "previous": earlier,
        "later": later,
        "timeline": {
            **timeline.told(told.rows, None if visit.query.get("before") else record),
            "older": told.older,
            "is_part": told.is_part,
            "is_newest": not told.entries or told.entries[-1].version == record.version,
        },
        "data": data,
        "steps": await _steps(visit, record, past),
        "commands": commands(record, data["from"], data["version"]),
        **await _way(visit, record, past, told.entries),
    }


PAGE = Page("/process", "process", facts)


def asked_version(visit: Visit, name: str, record: Record) -> int | None:
    """The version that the query names, or None for the present. NotFound for one that the process has not."""
    text = visit.query.get(name, "")
    if not text:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else BEFORE_ALL
    if text == str(BEFORE_ALL) and name == "from":
        return BEFORE_ALL
    if not 0 <= number <= record.version:
        raise NotFound(
            f"process {one_line(record.id, 80)} has no version {one_line(text, 20)}; its last one is {record.version}",
            hint="go back to what it is now",
        )
    return number


async def entry_at(visit: Visit, record: Record, version: int) -> Entry:
    """The entry of that version. NotFound where it was pruned."""
    entries = await visit.app.store.history(record.id, version - 1, 1, light=True)
    if not entries or entries[0].version != version:
        raise NotFound(f"version {version} of it is no longer in its history, which was pruned", hint="go back to what it is now")
    return entries[0]


async def _story_around(visit: Visit, record: Record, version: int | None) -> Story:
    """The page of the history that was asked for; else the newest one, or the one in which the version stands."""
    before = asked_version(visit, "before", record)
    if before is None and version is not None and record.version - version > ENTRIES_MAX:
        before = version + 1  # the newest page does not reach so far back
    if before is not None:
        return await story(visit.app, record.id, before)
    told = await story(visit.app, record.id, record.version + 1)
    if version is None or not told.rows or version >= told.rows[0].first:
        return told
    return await story(visit.app, record.id, version + 1)


def said(record: Record, sentence: str) -> list[dict[str, str]]:
    """The sentence without its beginning, which the page says above it, in parts: its text, the error, and what to type."""
    text = sentence.removeprefix(one_line(f"{record.flow} {record.id} is {record.condition} at {record.status}:", len(sentence)))
    whole = (record.error or "").rstrip(". \n\t")
    error = one_line(whole, max(len(whole), 1))
    before, found, after = text.partition(error) if error else (text, "", "")
    before = before.lstrip()
    if record.condition not in _NAMED_FIRST:
        before = before[:1].upper() + before[1:]
    parts = [*_typed(before)]
    if found:
        parts.append({"kind": "error", "text": _in_short(error_parts(whole))})
    return [*parts, *_typed(after)]


def _in_short(error: Mapping[str, Any]) -> str:
    """Without its traceback, which has a place of its own."""
    place = f" ({error['place']})" if error["place"] else ""
    text = one_line((f"{error['kind']}: " if error["kind"] else "") + error["said"], ERROR_CHARS_MAX * 2)
    return (text if len(text) <= ERROR_CHARS_MAX else f"{text[:ERROR_CHARS_MAX]}…") + place


def _typed(text: str) -> list[dict[str, str]]:
    """What stands between backticks is to be typed."""
    return [{"kind": "code" if n % 2 else "", "text": part} for n, part in enumerate(text.split("`")) if part]


# -- the way through the flow -----------------------------------------------------------------------------------------


async def _way(visit: Visit, record: Record, past: Entry | None, entries: Sequence[Entry]) -> dict[str, Any]:
    """The diagram, and the same as a table: each status, whether it was reached, and how often."""
    flow = visit.app.flow_of(record)
    last = record.version if past is None else past.version
    known, left_out = await whole_way(visit.app, record.id, [entry for entry in entries if entry.version <= last], last)
    if flow is not None and flow.renamed:  # the way of a process is drawn on the flow as it is now
        known, past = [_by_new_names(flow, entry) for entry in known], past and _by_new_names(flow, past)
    passed = _with_polls(walked(known, record.as_of if past is None else past.at), known, left_out)
    status = record.status if past is None else past.to_status
    condition = record.condition if past is None else _condition_then(visit, record, past)
    reached = {entry.to_status: entry.version for entry in known}
    statuses = [*(flow.statuses if flow else ()), *(one for one in reached if flow is None or one not in flow.stages)]
    table = [
        {
            "status": one,
            "state": "now" if one == status else "resolved" if one in reached else "not reached",
            "visits": passed.visits.get(one, 0),
            "spent": length(passed.spent[one]) if one in passed.spent else None,
            "version": reached.get(one),
        }
        for one in statuses
    ]
    told = {"statuses": table, "counted_all": left_out is not None}
    if flow is None:
        return {**told, "_picture": "", "_picture_down": ""}

    def link(one: str) -> str:
        return visit.at("/process", id=record.id, version=reached[one]) if one in reached else ""

    now = Now(status, condition, "" if past else _note(record))
    across, down = (path_picture(flow, passed, now, link=link, down=down) for down in (False, True))
    return {**told, "_picture": across, "_picture_down": down}


def _by_new_names(flow: Flow[Any], entry: Entry) -> Entry:
    source = entry.from_status and flow.today(entry.from_status)
    return replace(entry, from_status=source, to_status=flow.today(entry.to_status))


def _with_polls(passed: Passed, entries: Sequence[Entry], left_out: int | None) -> Passed:
    """With the entries that were left out between others of the same visit, which are looks of a poll."""
    if not left_out:
        return passed
    way = Edge(entries[-1].to_status, entries[-1].to_status)
    return replace(passed, taken={**passed.taken, way: passed.taken.get(way, 0) + left_out})


def _note(record: Record) -> str:
    """A word or two for the box in the diagram."""
    if record.condition is Condition.FAILED and record.error:
        error = error_parts(record.error)
        return str(error["kind"] or error["said"])
    return what_next(record)


def _condition_then(visit: Visit, record: Record, entry: Entry) -> Condition:
    flow = visit.app.flow_of(record)
    if flow is not None and entry.to_status in flow.stages and flow.is_end(entry.to_status):
        return Condition.FINISHED
    return _LEFT.get(entry.kind, Condition.READY)


# -- data -----------------------------------------------------------------------------------------------------------


async def _data(visit: Visit, record: Record, version: int | None, entries: Sequence[Entry]) -> dict[str, Any]:
    """What a version changed, and all of the data after it. Without a version: what the last change was."""
    shown = _last_change(entries, record) if version is None else version
    first = asked_version(visit, "from", record)
    first = shown - 1 if first is None else first
    after = await _contents_at(visit, record, shown)
    before = contents.contents("{}") if first < 0 else await _contents_at(visit, record, first)
    return {
        "version": shown,
        "from": first,
        **contents.difference(before, after),
        "all": contents.told(after, whole=visit.query.get("data") == "whole"),
    }


def _last_change(entries: Sequence[Entry], record: Record) -> int:
    return next((entry.version for entry in reversed(entries) if entry.data is not None), record.version)


async def _contents_at(visit: Visit, record: Record, version: int) -> contents.Contents:
    if version == record.version:
        return contents.contents(record.data)
    text = await visit.app.text_at(record, version)
    if text is None:
        return contents.Contents("", fault=f"version {version} is no longer in its history, which was pruned")
    return contents.contents(text)


async def _steps(visit: Visit, record: Record, past: Entry | None) -> dict[str, Any]:
    """The sub-steps recorded in this visit to the stage, or in the one of which that entry tells."""
    transition = record.transition if past is None else past.transition - (past.from_status not in (None, past.to_status))
    found = await visit.app.store.steps(record.id, transition)
    shown = list(found.items())[:STEPS_MAX]
    return {
        "transition": transition,
        "number": len(found),
        "shown": [{"name": name, "result": contents.in_short(result)} for name, result in shown],
    }


# -- the same in the command line -------------------------------------------------------------------------------------


def commands(record: Record, first: int, last: int) -> list[str]:
    """What to type to see the same."""
    id = quoted(record.id)
    between = f"{max(first, 0)}..{last}" if last != first + 1 else str(last)
    return [f"onward show {id}", f"onward history {id}", f"onward diff {id} {between}"]
