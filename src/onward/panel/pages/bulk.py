"""Many at once: what an action would do to all that match, and then how far it is. The action is a process of its own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.responses import Response

from onward import bulk
from onward.actor import Actor
from onward.bulk import DESTRUCTIVE, IDS_MAX, PREVIEW_MAX, VERBS, Bulk, Preview
from onward.errors import Forbidden, InvalidData, NotFound, Refused
from onward.flow import Flow
from onward.panel.page import Page, Route, Visit, json_answer, render, see_other
from onward.panel.pages.common import frame
from onward.process import OVER, Record
from onward.query import exactly, parse, pieces
from onward.telling import shapes

TYPED_FROM = 100  # of more than so many that cannot be taken back, the number is typed before
RECENT = 20  # bulk actions that the page lists
WORDS = {"stop": "stop hard", "move": "move"}


async def facts(visit: Visit) -> dict[str, Any]:
    """One bulk action, or the newest ones."""
    id = visit.query.get("id", "")
    if not id:
        records = await visit.app.find(f"id:{bulk.PREFIX}* flow:{bulk.FLOW}", limit=RECENT, looks=bulk.LOOKS)
        return {"_frame": await frame(visit, "bulk"), "bulk": None, "recent": [_told(record) for record in records]}
    record = await visit.process(id)
    if record.flow != bulk.FLOW:
        raise NotFound(f"process {id} is no bulk action", hint="look at it as a process")
    return {"_frame": await frame(visit, "bulk"), "bulk": _told(record), "recent": []}


def _told(record: Record) -> dict[str, Any]:
    told = {**shapes.process(record), "as_of": shapes.instant(record.as_of), "over": record.condition in OVER}
    if not isinstance(record.process, Bulk):
        return {**told, "verb": "", "query": "", "total": 0, "seen": 0, "refusals": []}
    data = record.process.model_dump(mode="json", exclude={"id", "status", "ids", "given", "after"})
    seen = data["done"] + data["refused"] + data["changed"]
    return {**told, **data, "seen": seen, "chosen": len(record.process.ids), "word": WORDS.get(data["verb"], data["verb"])}


async def preview(visit: Visit) -> Response:
    """What it would do. Nothing is changed."""
    asked = _asked(visit)
    if asked["verb"] == "move" and not asked.get("to"):
        return _answer(visit, "bulk_move.html", {**await _choices(visit, asked), **_shown(asked)})
    actor = await visit.allowed(asked["verb"])
    theirs, barred = await _theirs(visit, actor, asked)
    seen = await bulk.preview(visit.app, actor=actor, **theirs)
    facts = _previewed(asked, seen, barred) | {"_frame": await frame(visit, "bulk"), "fault": ""}
    return _answer(visit, "bulk_preview.html", facts)


async def start(visit: Visit) -> Response:
    """Begins it, if it is still what was agreed to."""
    asked = _asked(visit)
    actor = await visit.allowed(asked["verb"])
    theirs, barred = await _theirs(visit, actor, asked)
    if asked["verb"] in DESTRUCTIVE:
        seen = await bulk.preview(visit.app, actor=actor, **theirs)
        fits = sum(seen.fit.values())
        if _is_typed(asked["verb"], fits) and visit.number("typed") != fits:
            fault = f"Type the number of processes, {fits:,}, to go on."
            facts = _previewed(asked, seen, barred) | {"_frame": await frame(visit, "bulk"), "fault": fault}
            return _answer(visit, "bulk_preview.html", facts, 422)
    record = await bulk.begin(visit.app, until=_until(visit), actor=actor, **theirs)
    if visit.wants_json:
        return json_answer({"schema": "onward.panel.bulk/1", "id": record.id, "total": record.process.total})
    return see_other(visit, "/bulk", id=record.id)


async def _theirs(visit: Visit, actor: Actor, asked: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What is asked for those with whom they may do it, and the ids of the others. In an app of somebody's own `authorize` may
    say yes to some and no to others: so it is asked about each, and those are chosen that it said yes to. Forbidden.
    """
    if visit.can_leave or not actor.may(asked["verb"]):  # a login of our own knows roles, and control asks for those
        return asked, []
    ids: list[str] = []
    barred: list[str] = []
    async for found in bulk.matching(visit.app, asked["query"], asked["ids"]):
        if len(ids) + len(barred) == IDS_MAX:
            more = f"more than {IDS_MAX:,} match, and in this app it is asked about each of them"
            raise Refused(more, hint="narrow the query, and go on after that")
        allowed = isinstance(found, str) or await _may(visit, asked["verb"], found)
        (ids if allowed else barred).append(found if isinstance(found, str) else found.id)
    if barred and not ids:
        raise Forbidden(f"{actor.name} may {asked['verb']} none of them", hint="ask whoever looks after this panel")
    return ({**asked, "query": "", "ids": ids}, barred) if ids else (asked, [])


async def _may(visit: Visit, verb: str, record: Record) -> bool:
    try:
        return (await visit.allowed(verb, record)).may(verb)
    except Forbidden:
        return False


def _asked(visit: Visit) -> dict[str, Any]:
    verb, query, ids = visit.text("verb"), visit.text("query").strip(), visit.many("id")
    if visit.text("all") and query:
        ids = []
    if verb not in VERBS:
        raise Refused(f"{verb!r} is nothing to do with many at once", hint=f"there are: {', '.join(VERBS)}")
    if not ids and not query:
        raise Refused("nothing was selected", hint="select processes, or all that match")
    asked: dict[str, Any] = {"verb": verb, "query": "" if ids else query, "ids": ids, "reason": visit.text("reason")}
    if verb == "move":
        asked |= {"to": visit.text("to"), "force": bool(visit.text("force"))}
    return asked


def _until(visit: Visit) -> datetime:
    try:
        until = datetime.fromisoformat(visit.text("until"))
    except ValueError:
        raise InvalidData("until is no instant", hint="write until=2026-01-31T12:00:00Z, as the preview said it") from None
    if until.tzinfo is None:
        raise InvalidData("until has no time zone", hint="write until=2026-01-31T12:00:00Z, as the preview said it")
    return until


def _is_typed(verb: str, fits: int) -> bool:
    return verb in DESTRUCTIVE and fits > TYPED_FROM


def _previewed(asked: dict[str, Any], seen: Preview, barred: Sequence[str]) -> dict[str, Any]:
    fits = sum(seen.fit.values())
    told = asdict(seen)
    refused = [{"why": why, "number": n, "sample": told["samples"][why]} for why, n in seen.refused.most_common()]
    refused += [{"why": f"you may not {asked['verb']} it", "number": len(barred), "sample": barred[0]}] if barred else []
    return {
        **_shown(asked),
        "total": seen.total + len(barred),
        "more": seen.more,
        "most": PREVIEW_MAX,
        "until": shapes.instant(seen.until),
        "fits": fits,
        "fit": [{"flow": f, "status": s, "condition": c, "number": n} for (f, s, c), n in seen.fit.most_common()],
        "refused": refused,
        "destructive": asked["verb"] in DESTRUCTIVE,
        "typed": _is_typed(asked["verb"], fits),
        "possible": bool(fits) and not (seen.more and asked["verb"] in DESTRUCTIVE),
    }


def _shown(asked: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in asked.items() if name != "query"}  # which is what templates call that of the address
    return {
        "to": "",
        "force": False,
        **shown,
        "matching": asked["query"],
        "word": WORDS.get(asked["verb"], asked["verb"]),
        "command": _command(asked),
    }


def _command(asked: dict[str, Any]) -> str:
    query = asked["query"] or str(exactly("id", *asked["ids"]))
    words = ["onward", asked["verb"], "--query", query]
    words += [asked["to"]] if asked.get("to") else []
    words += ["--force"] if asked.get("force") else []
    words += ["--max", str(PREVIEW_MAX)] if asked["verb"] in DESTRUCTIVE else []
    words += ["--reason", asked["reason"]] if asked["reason"] else []
    return shlex.join(words)


async def _choices(visit: Visit, asked: dict[str, Any]) -> dict[str, Any]:
    """The statuses to which they could be moved: those of the flow that they share."""
    flows_named = [term for term in parse(asked["query"]) if term.qualifier == "flow" and not term.negated]
    names = {"".join(pieces(value)) for term in flows_named for value in term.values}
    for id in asked["ids"]:
        names.add((await visit.process(id)).flow)
    flows: list[Flow[Any]] = [visit.app.flows[name] for name in sorted(names) if name in visit.app.flows]
    if len(names) != 1 or len(flows) != 1:
        raise Refused("to move many at once they have to be of one flow", hint="add flow:NAME to the query")
    return {"_frame": await frame(visit, "bulk"), "flow": flows[0].name, "statuses": list(flows[0].statuses)}


def _answer(visit: Visit, template: str, facts: dict[str, Any], status: int = 200) -> Response:
    if visit.wants_json:
        shown = {name: value for name, value in facts.items() if not name.startswith("_")}
        return json_answer({"schema": "onward.panel.bulk_preview/1", **shown}, status)
    return render(visit, template, facts, status)


PAGE = Page("/bulk", "bulk", facts)
ROUTES = (Route("POST", "/bulk", preview), Route("POST", "/bulk/start", start))
