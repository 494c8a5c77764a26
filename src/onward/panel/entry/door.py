"""The door of the panel: what it asks of each request before a page sees it, and the one place where answers are sent.

In this order: method, host, length, type, query, who it is, where it comes from, and for each POST the token of the form. Paths
are fixed and looked up as they stand, so no spelling of one leads around the door; what is open to everybody is a route object,
never a path. Headers by which a proxy could speak for somebody else are not read.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from hmac import compare_digest
from logging import INFO, WARNING
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from onward.actor import Actor, Role
from onward.app import Onward
from onward.errors import NotFound
from onward.panel.entry.body import TurnedAway, check_length, check_type, read_body, read_query
from onward.panel.entry.live import Live
from onward.panel.page import Authorize, Route, Visit, ask, error_answer, log
from onward.telling.text import one_line

METHODS = ("GET", "HEAD", "POST")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = (
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
POLICY_VIOLATION = 1008  # of a WebSocket: https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
TOKEN_BYTES = 32
TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")  # TOKEN_BYTES in base64
NOTE_CHARS_MAX = 400
CUT_OFF = (408, 413)
_NO_ASCII = re.compile(rb"[\x80-\xff]")
NOBODY = Actor("", Role.VIEWER)


class Door:
    """The panel as an ASGI app."""

    def __init__(
        self,
        app: Onward,
        routes: Iterable[Route],
        authorize: Authorize,
        *,
        live: Live,
        hosts: Iterable[str] = (),
        closed: Callable[[Visit], Exception],
    ) -> None:
        """`hosts`: names by which it is reached besides those of this machine. `closed`: what is told to who is not let in."""
        self.app, self.live, self._authorize, self._closed = app, live, authorize, closed
        self.routes = tuple(routes)
        self._hosts = frozenset(host.lower() for host in hosts)
        self._table: dict[str, dict[str, Route]] = {}
        for route in self.routes:
            assert route.method not in self._table.setdefault(route.path, {}), f"{route.path} is served twice"
            self._table[route.path][route.method] = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] != "http":  # nothing of ours speaks anything else
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            request = Request(_escaped(scope), receive)
            try:
                answer = await self._answer(self._visit(request))
            except ClientDisconnect:
                return
            await _send(request, answer, send)

    def _visit(self, request: Request) -> Visit:
        csrf = _csrf_of(request) or secrets.token_urlsafe(TOKEN_BYTES)
        return Visit(request, self.app, NOBODY, self._authorize, csrf=csrf, can_leave="/leave" in self._table)

    async def _answer(self, visit: Visit) -> Response:
        try:
            self._check(visit.request)
            visit = replace(visit, query=read_query(visit.request.scope.get("query_string", b"")))
            route = self._table.get(visit.here, {}).get(_asked(visit.request))
            if route is None or not route.open:
                visit = await self._recognised(visit)
                _check_site(visit.request)
            if route is None:
                raise self._nowhere(visit)
            if route.method == "POST":
                visit = replace(visit, body=await _body_of_ours(visit))
            answer = await route.answer(visit)
        except ClientDisconnect:
            raise
        except Exception as error:  # whatever a page or the store does, the person gets an answer, and the log the reason
            answer = _told(visit, error)
        if visit.request.method == "POST" and (visit.actor is not NOBODY or answer.status_code >= 400):
            _note(visit, answer.status_code)
        if answer.media_type == "text/html" and _csrf_of(visit.request) != visit.csrf:
            give(visit.request, answer, "csrf", visit.csrf)
        return answer

    def _check(self, request: Request) -> None:
        """What is asked before anybody reads who it is or what they want."""
        if request.method not in METHODS:
            raise TurnedAway(405, f"{one_line(request.method, 20)} is not served here", headers={"allow": ", ".join(METHODS)})
        if not self._is_ours(request):
            raise TurnedAway(
                421,
                f"this panel is not called {one_line(request.headers.get('host', ''), 100) or 'nothing'}",
                hint="open it by a name that it knows; more of them: onward panel --hosts NAME, or app.panel(hosts=[...])",
            )
        check_length(request)
        if request.method == "POST":
            check_type(request)

    def _is_ours(self, request: Request) -> bool:
        """Whether the Host is one of our names: a foreign page that lets its own name point here has another one."""
        said = request.headers.getlist("host")
        parts = HOST.fullmatch(said[0].lower()) if len(said) == 1 else None
        if parts is None:
            return False
        port = (request.scope.get("server") or ("", None))[1]
        local = parts["name"] in LOOPBACK and port in (None, int(parts["port"] or _default_port(request.url.scheme)))
        return local or parts[0] in self._hosts or parts["name"] in self._hosts

    async def _recognised(self, visit: Visit) -> Visit:
        actor = await ask(self._authorize, visit.request, "look", None)
        if actor is None:
            raise self._closed(visit)
        return replace(visit, actor=actor)

    def _nowhere(self, visit: Visit) -> Exception:
        others = self._table.get(visit.here)
        if not others:
            return NotFound("there is no such page", hint="go back to the overview")
        served = [method for method in METHODS if method in others or (method == "HEAD" and "GET" in others)]
        return TurnedAway(405, "that is not how this is asked", headers={"allow": ", ".join(served)})


def _asked(request: Request) -> str:
    return "GET" if request.method == "HEAD" else request.method


# -- where a request comes from -----------------------------------------------------------------------------------


def _check_site(request: Request) -> None:
    if _is_foreign(request):
        raise TurnedAway(403, "this was asked by a page of another site", hint="open the panel itself")


async def _body_of_ours(visit: Visit) -> dict[str, Any]:
    """The body of a POST that a page of ours sent: it comes from our origin, and it knows the token in the cookie."""
    request = visit.request
    _check_site(request)
    if not _says_where_from(request):
        raise TurnedAway(403, "this was not sent by a page of this panel", hint="open the page again and repeat it there")
    body = await read_body(request)
    token = body.pop("csrf", "") or request.headers.get("x-csrf-token", "")
    cookie = _csrf_of(request)
    if not cookie or not isinstance(token, str) or not compare_digest(token.encode("utf-8", "replace"), cookie.encode()):
        raise TurnedAway(403, "this form is of another session", hint="open the page again and repeat it there")
    return body


def _says_where_from(request: Request) -> bool:
    """Browsers say it of every POST. A form on a page without referrer says `Origin: null`, and then only the other header."""
    return request.headers.get("origin", "null") != "null" or request.headers.get("sec-fetch-site") == "same-origin"


def _is_foreign(request: Request) -> bool:
    """Whether another site had a hand in it. Following a link from there is fine: that only looks, and on our own page."""
    sites, origins = request.headers.getlist("sec-fetch-site"), request.headers.getlist("origin")
    if any(origin != "null" and not _is_own(origin, request) for origin in origins):
        return True
    linked = request.method in ("GET", "HEAD") and request.headers.get("sec-fetch-mode") == "navigate"
    return not linked and any(site not in ("same-origin", "none") for site in sites)


def _is_own(origin: str, request: Request) -> bool:
    scheme, _, host = origin.lower().partition("://")
    own, theirs = HOST.fullmatch(request.headers["host"].lower()), HOST.fullmatch(host)
    if own is None or theirs is None or scheme not in ("http", "https") or (request.url.scheme == "https") > (scheme == "https"):
        return False  # a proxy before us may end TLS without our knowing; that a page without TLS speaks for one with it is foul
    return (own["name"], own["port"] or _default_port(scheme)) == (theirs["name"], theirs["port"] or _default_port(scheme))


def _default_port(scheme: str) -> str:
    return "443" if scheme == "https" else "80"


# -- cookies ------------------------------------------------------------------------------------------------------


def cookie_name(request: Request, what: str) -> str:
    """With the port, because browsers give cookies to all ports of a host; with __Host-, so that no other host can plant one."""
    parts = HOST.fullmatch(request.headers.get("host", "").lower())
    port = (parts["port"] if parts else "") or _default_port(request.url.scheme)
    return f"{'__Host-' if request.url.scheme == 'https' else ''}onward_{what}_{port}"


def give(request: Request, answer: Response, what: str, value: str) -> None:
    """A cookie that no script can read and no other site can send. Empty: takes it away."""
    secure = request.url.scheme == "https"
    answer.set_cookie(
        cookie_name(request, what), value, max_age=None if value else 0, httponly=True, samesite="strict", secure=secure
    )


def token_of(request: Request, what: str) -> str:
    """The token in one of our cookies, or ''."""
    value = request.cookies.get(cookie_name(request, what), "")
    return value if TOKEN.fullmatch(value) else ""


def _csrf_of(request: Request) -> str:
    return token_of(request, "csrf")


# -- answers ------------------------------------------------------------------------------------------------------


def _told(visit: Visit, error: Exception) -> Response:
    try:
        return error_answer(visit, error)
    except Exception:
        log.exception("the error page has an error of its own")
        return Response("something went wrong here; the log of the panel has the reason", 500, media_type="text/plain")


def _note(visit: Visit, status: int) -> None:
    """One line for each thing that somebody did or tried to do."""
    what = " ".join(str(visit.body[name]) for name in ("verb", "flow", "id") if name in visit.body)
    client = visit.request.client
    told = f"{visit.actor.name or 'nobody'} from {client.host if client else 'this machine'}: {visit.here} {what}: {status}"
    log.log(WARNING if status >= 400 else INFO, "%s", one_line(told, NOTE_CHARS_MAX))


def _escaped(scope: Scope) -> Scope:
    """Some servers pass bytes on that no URL has, and no URL can be made of them: as escapes they are judged like all others."""
    query = scope.get("query_string", b"")
    return scope if query.isascii() else {**scope, "query_string": _NO_ASCII.sub(lambda byte: b"%%%02X" % ord(byte[0]), query)}


async def _send(request: Request, answer: Response, send: Send) -> None:
    headers = answer.headers
    for name, value in HEADERS:
        headers[name] = value
    headers["referrer-policy"] = _referrer_policy(request)
    headers.setdefault("cache-control", "no-store")
    if answer.status_code in CUT_OFF and request.scope.get("http_version", "").startswith("1"):
        headers["connection"] = "close"  # or the server would go on to take in the rest of the body
    if request.method == "HEAD":  # a stream would never end
        await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": b""})
    else:
        await answer(request.scope, request.receive, send)


def _referrer_policy(request: Request) -> str:
    """Nothing of ours is told to anybody. Without TLS on another host, browsers say where a form comes from only in Origin,
    and under `no-referrer` not even there.
    """
    parts = HOST.fullmatch(request.headers.get("host", "").lower())
    local = parts is not None and parts["name"] in LOOPBACK
    return "no-referrer" if local or request.url.scheme == "https" else "same-origin"


async def _lifespan(receive: Receive, send: Send) -> None:
    """The app is opened and closed by whoever made it; here is nothing to do."""
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})
