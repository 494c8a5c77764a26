"""What people do to one process: each action is one POST, compared with the version that was seen, and asked of control.

A form is answered with a page of ours to go on from; JSON is answered with JSON. Nothing here decides what may be done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, urlsplit

from starlette.responses import Response

from onward.actor import Actor
from onward.app import Onward
from onward.codec import printable
from onward.decide import declared
from onward.errors import Conflict, InvalidData, NotFound
from onward.panel.acts import drafts, starts
from onward.panel.acts.again import again
from onward.panel.acts.asked import Asked, object_of, read_asked, version_of
from onward.panel.acts.conflict import conflict, moved_on
from onward.panel.entry.body import QUERY_FIELDS_MAX
from onward.panel.page import Route, Visit, json_answer, see_other
from onward.panel.pages import confirm, move
from onward.panel.shown import contents
from onward.panel.shown.offers import LABELS, TYPED
from onward.process import Record
from onward.query import nearest
from onward.telling import shapes
from onward.telling.secrets import restored
from onward.telling.text import one_line

BACK = frozenset({"/", "/flow", "/process", "/attention", "/workers", "/audit", "/bulk"})  # pages that a form may lead back to,
BACK_NAMES = frozenset({"id", "name", "q", "version", "from", "before", "data"})  # and what their queries may say
ID_CHARS_SHOWN = 80

Act = Callable[[Onward, Asked, Actor], Awaitable[Record | None]]


def _simple(act: Callable[..., Awaitable[Record | None]]) -> Act:
    def call(app: Onward, asked: Asked, actor: Actor) -> Awaitable[Record | None]:
        return act(app, asked.id, version=asked.version, reason=asked.reason, actor=actor)

    return call


async def _move(app: Onward, asked: Asked, actor: Actor) -> Record:
    force = asked.given.get("force") in (True, "1")
    return await app.move(asked.id, asked.text("to"), force=force, version=asked.version, reason=asked.reason, actor=actor)


async def _edit(app: Onward, asked: Asked, actor: Actor) -> Record:
    if asked.version is None:
        raise InvalidData("an edit says of which version it was made", hint="send version: the one that you saw")
    record = await app.get(asked.id)
    if record.version != asked.version:  # the masks in what was sent stand for the secrets of that version
        raise moved_on(record, asked.version)
    data = restored(object_of(asked.given.get("data")), contents.contents(record.data).value)
    return await app.edit(asked.id, data, version=asked.version, reason=asked.reason, actor=actor)


async def _fork(app: Onward, asked: Asked, actor: Actor) -> Record:
    at, new_id = version_of(asked.given, "at"), asked.text("new_id").strip() or None
    return await app.fork(asked.id, at=at, new_id=new_id, reason=asked.reason, actor=actor)


# A closed table: no word that somebody sends is ever looked up elsewhere.
VERBS: dict[str, Act] = {
    "wake": _simple(Onward.wake),
    "retry": _simple(Onward.retry),
    "pause": _simple(Onward.pause),
    "resume": _simple(Onward.resume),
    "cancel": _simple(Onward.cancel),
    "stop": _simple(Onward.stop),
    "delete": _simple(Onward.delete),
    "move": _move,
    "edit": _edit,
    "fork": _fork,
}


async def act(visit: Visit) -> Response:
    """POST /act"""
    asked = read_asked(visit)
    if asked.verb not in VERBS:
        known = ", ".join(VERBS)
        raise NotFound(f"there is no action {one_line(asked.verb, 40)!r}{nearest(asked.verb, VERBS)}", hint=f"there are: {known}")
    record = await visit.process(asked.id)
    actor = await visit.allowed(asked.verb, record)
    if not visit.wants_json and (page := await _asks_first(visit, asked, record)):
        return page
    try:
        after = await VERBS[asked.verb](visit.app, asked, actor)
    except Conflict as error:
        if asked.version is None or asked.verb == "fork":  # then it is not its version that has moved on
            raise
        return await conflict(visit, asked, error)
    return _done(visit, asked, record, after)


async def _asks_first(visit: Visit, asked: Asked, record: Record) -> Response | None:
    """The page that warns, or asks for more, before it is done; to programs control says the same as an error."""
    if asked.verb in TYPED and asked.text("typed") != record.id:
        fault = (
            "This is not its id: nothing was done. Type its id" if asked.text("typed") else "Type its id: nothing was done yet"
        )
        return await again(visit, "confirm", await confirm.question(visit, record, asked.verb, fault=fault, reason=asked.reason))
    if asked.verb == "move" and asked.version == record.version and _is_undeclared(visit, record, asked.text("to")):
        forced = "force" in asked.given
        if not (forced and asked.reason.strip()):
            fault = "Say why: it stands in the history" if forced else ""
            page = move.choice(visit, record, to=asked.text("to"), warned=True, fault=fault, reason=asked.reason)
            return await again(visit, "move", page)
    return None


def _is_undeclared(visit: Visit, record: Record, to: str) -> bool:
    flow = visit.app.flow_of(record)
    return flow is not None and to in flow.stages and to not in (record.status, *declared(flow, record.status))


def _done(visit: Visit, asked: Asked, before: Record, after: Record | None) -> Response:
    if visit.wants_json:
        told = None if after is None else shapes.process(after)
        return json_answer({"schema": "onward.panel.act/1", "verb": asked.verb, "id": asked.id, "process": told})
    if after is None:  # there is no page of it any more
        return see_other(visit, "/flow", name=before.flow, done=f"{one_line(before.id, ID_CHARS_SHOWN)} is deleted")
    where = f"{one_line(after.id, ID_CHARS_SHOWN)} is {after.condition} at {one_line(after.status, ID_CHARS_SHOWN)}"
    told_so = f"{LABELS[asked.verb].removesuffix(' now')}: {where}"
    if asked.verb == "fork":
        return see_other(visit, "/process", id=after.id, done=told_so)
    path, query = back_to(visit, asked.back) or ("/process", {"id": after.id})
    return see_other(visit, path, **query, done=told_so)


def back_to(visit: Visit, back: str) -> tuple[str, dict[str, str]] | None:
    """The page of ours that `back` names, and its query; None for whatever else it may be."""
    local = back.removeprefix(visit.root)
    if not local.startswith("/") or printable(local) != local:
        return None
    parts = urlsplit(local)
    if parts.scheme or parts.netloc or parts.path not in BACK:
        return None
    try:
        query = dict(parse_qsl(parts.query, max_num_fields=QUERY_FIELDS_MAX))
    except ValueError:
        return None
    return parts.path, {name: value for name, value in query.items() if name in BACK_NAMES}


ROUTES = (Route("POST", "/act", act), Route("POST", "/draft", drafts.draft), Route("POST", "/start", starts.start))
