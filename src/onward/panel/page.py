"""What a page is: facts, which are JSON values, and a template of just these facts. And what every answer is made of."""

from __future__ import annotations

import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from onward.actor import Actor
from onward.app import Onward
from onward.errors import Conflict, Fenced, Forbidden, InvalidData, NotFound, OnwardError, QueryError, Refused, StoreError
from onward.explain import length
from onward.panel.entry.body import TurnedAway
from onward.panel.pages.common import frame
from onward.process import Record
from onward.telling.text import to_json

NUMBER_CHARS_MAX = 18  # of a version or a count: what a database calls a big integer

log = logging.getLogger("onward.panel")

# The first that fits. What the database says of itself may name paths, hosts and statements: that stands in the log only.
CODES: tuple[tuple[type[Exception], int, str], ...] = (
    (NotFound, 404, "not_found"),
    (Conflict, 409, "conflict"),
    (Fenced, 409, "conflict"),
    (Forbidden, 403, "forbidden"),
    (QueryError, 422, "query"),
    (InvalidData, 422, "invalid"),
    (Refused, 422, "refused"),
    (StoreError, 503, "store"),
    (OnwardError, 400, "failed"),
)

Authorize = Callable[[Request, str, Record | None], Actor | Awaitable[Actor | None] | None]


async def ask(authorize: Authorize, request: Request, action: str, record: Record | None) -> Actor | None:
    """Who that is, if they may. Whatever is neither an Actor nor None is a mistake in `authorize`, and lets nobody in."""
    answer = authorize(request, action, record)
    actor = await answer if inspect.isawaitable(answer) else answer
    if actor is not None and not isinstance(actor, Actor):
        raise TypeError(f"authorize answered {type(actor).__name__} for {action!r}; it answers an onward.Actor, or None")
    return actor


@dataclass(frozen=True)
class Visit:
    """One request of somebody who was let in. `query` has one value for each name; `body` is what a POST brought."""

    request: Request
    app: Onward
    actor: Actor
    authorize: Authorize
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    csrf: str = ""
    can_leave: bool = False  # the panel stands alone, and knows sessions

    @property
    def given(self) -> Mapping[str, Any]:
        """What the request says: the body of a POST, else the query."""
        return self.body if self.request.method == "POST" else self.query

    def text(self, name: str, default: str = "") -> str:
        """InvalidData where a program sent something else than text."""
        value = self.given.get(name, default)
        if not isinstance(value, str):
            raise InvalidData(f"{name} is a {type(value).__name__}, and has to be text", hint=f'write "{name}": "..."')
        return value

    def number(self, name: str) -> int | None:
        """A whole number, as text or as JSON; None where it is not given. InvalidData."""
        value = self.given.get(name, "")
        if value is None or value == "":
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and len(value) <= NUMBER_CHARS_MAX and value.isascii() and value.isdigit():
            return int(value)
        raise InvalidData(f"{name} is no whole number", hint=f"write {name}=3")

    def many(self, name: str) -> list[str]:
        """All values of one name: of the checkboxes of a form, or of a list in JSON. InvalidData."""
        value = self.given.get(name, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise InvalidData(f"{name} has to be a list of texts", hint=f'write "{name}": ["..."]')
        return values

    @property
    def wants_json(self) -> bool:
        """Programs ask for a `.json` page, or send JSON; everything else is a browser."""
        return wants_json(self.request)

    @property
    def root(self) -> str:
        """Where the panel is mounted: '' or '/panel'."""
        return str(self.request.scope.get("root_path", "")).rstrip("/")

    @property
    def here(self) -> str:
        """The path of the request, wherever the panel is mounted."""
        path = str(self.request.scope["path"])
        return path.removeprefix(self.root) or "/" if path == self.root or path.startswith(f"{self.root}/") else path

    def at(self, path: str, /, **query: Any) -> str:
        """The URL of one of our pages. What is None or '' is left out of the query."""
        return at(self.root, path, **query)

    async def process(self, id: str) -> Record:
        """The process that a page is about. NotFound; Forbidden for who may not look at this one."""
        record = await self.app.get(id)
        await self.allowed("look", record)
        return record

    async def allowed(self, action: str, record: Record | None = None) -> Actor:
        """Who acts, if `authorize` lets them do `action` with this process. Forbidden. Control asks for their role as well."""
        actor = await ask(self.authorize, self.request, action, record)
        if actor is None:
            raise Forbidden(f"{self.actor.name} may not {action} here", hint="ask whoever looks after this panel")
        return actor


def at(root: str, path: str, /, **query: Any) -> str:
    given = {name.rstrip("_"): value for name, value in query.items() if value is not None and value != ""}
    text = urlencode(given, quote_via=quote, errors="replace") if given else ""
    local = quote("/" + path.lstrip("/"), errors="replace")  # two of them would begin the name of another host
    return f"{root}{local}{'?' + text if text else ''}"


def wants_json(request: Request) -> bool:
    sends = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    accepts = request.headers.get("accept", "")
    return request.url.path.endswith(".json") or sends == "application/json" or accepts.startswith("application/json")


@dataclass(frozen=True)
class Page:
    """Served at `path` as HTML, made by the template `name`.html, and as JSON at `/name.json`: the same facts."""

    path: str
    name: str
    facts: Callable[[Visit], Awaitable[dict[str, Any]]]

    async def html(self, visit: Visit) -> Response:
        facts = await self.facts(visit)
        return render(visit, f"{self.name}.html", {**facts, "_frame": await frame(visit, self.name)})

    async def json(self, visit: Visit) -> Response:
        facts = await self.facts(visit)
        shown = {name: value for name, value in facts.items() if not name.startswith("_")}
        return json_answer({"schema": f"onward.panel.{self.name}/1", **shown})

    def routes(self) -> tuple[Route, Route]:
        return Route("GET", self.path, self.html), Route("GET", f"/{self.name}.json", self.json)


@dataclass(frozen=True)
class Route:
    """One method of one fixed path. `open` ones, and no others, are answered to people who have not come in."""

    method: str
    path: str
    answer: Callable[[Visit], Awaitable[Response]]
    open: bool = False


# -- answers ----------------------------------------------------------------------------------------------------


def render(visit: Visit, template: str, facts: Mapping[str, Any], status: int = 200) -> Response:
    """The page made of the facts, which are all that the template knows besides the visit."""

    def local(path: str, /, **query: Any) -> str:
        return visit.at(path, **query)

    known = {
        "at": local,
        "here": visit.here,
        "query": visit.query,
        "actor": visit.actor,
        "may": visit.actor.may,
        "csrf": visit.csrf,
        "can_leave": visit.can_leave,
    }
    text = templates().get_template(template).render({**facts, **known})
    # A browser has no use for half a character, and UTF-8 has no place for it.
    return Response(text.encode("utf-8", "replace"), status, media_type="text/html")


def json_answer(value: Any, status: int = 200) -> Response:
    return Response(to_json(value).encode(), status, media_type="application/json")


def see_other(visit: Visit, path: str, /, **query: Any) -> Response:
    """After a form was accepted: look there. Only at a page of ours."""
    return Response(status_code=303, headers={"location": visit.at(path, **query)})


def error_answer(visit: Visit, error: Exception) -> Response:
    """What went wrong, for people or as JSON. A fault of ours or the database's is told by an id that the log has too."""
    status, word = next(((status, word) for kind, status, word in CODES if isinstance(error, kind)), (500, "fault"))
    if isinstance(error, TurnedAway):
        status, word = error.status, "turned_away"
    told = {"code": word, "message": str(error), "hint": getattr(error, "hint", ""), "id": ""}
    if status >= 500:
        told |= _hidden(error, status)
    if visit.wants_json:
        answer = json_answer({"error": told}, status)
    else:
        answer = render(visit, "error.html", {"status": status, "error": told}, status)
    for name, value in getattr(error, "headers", {}).items():
        answer.headers[name] = value
    return answer


def _hidden(error: Exception, status: int) -> dict[str, str]:
    id = secrets.token_hex(4)
    log.error("error %s: %s", id, error, exc_info=error)
    if status == 503:
        return {"id": id, "message": "the store cannot be used at the moment", "hint": "try again; onward doctor says more"}
    return {"id": id, "message": "something went wrong here", "hint": f"the log of the panel has the reason beside the id {id}"}


# -- templates --------------------------------------------------------------------------------------------------


@cache
def templates() -> Environment:
    made = Environment(
        loader=PackageLoader("onward.panel"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["ago"] = ago
    made.filters["until"] = until
    made.filters["instant"] = instant
    made.filters["duration"] = duration
    made.filters["markup"] = Markup  # of a picture that we drew ourselves, and of nothing else
    return made


def ago(at: str, as_of: str) -> str:
    """How long before `as_of` an instant was, both as our JSON has them: '3 min 5 s'."""
    return length(datetime.fromisoformat(as_of) - datetime.fromisoformat(at))


def until(at: str, as_of: str) -> str:
    """'in 3 min 5 s', or 'now' when it has come."""
    left = datetime.fromisoformat(at) - datetime.fromisoformat(as_of)
    return f"in {length(left)}" if left > timedelta() else "now"


def instant(at: str) -> str:
    return datetime.fromisoformat(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    return length(timedelta(seconds=seconds))
