"""Who comes through the door of the panel, and what does not. S3 … S30 are the lines of the security checklist.

Whatever holds for every way in is asked of every way that the router has, so that no page can be forgotten.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from onward import Onward, OnwardError
from onward.actor import NEEDS, Actor, Role
from onward.errors import StoreError
from onward.panel.entry.door import HEADERS
from onward.panel.page import Route, Visit
from onward.process import Record
from panel.client import FORM, JSON, Client
from panel.conftest import Panel, authorize, entered
from panel.scene import FLOWS, Letter
from panel.walk import digest, pages, paths, route_of, ways

FOREIGN = "http://evil.example"
SPOOFED = {
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": "127.0.0.1:8321",
    "x-forwarded-proto": "https",
    "x-forwarded-prefix": "/health",
    "x-real-ip": "127.0.0.1",
    "forwarded": "for=127.0.0.1;host=127.0.0.1:8321;proto=https",
    "x-original-url": "/health",
    "x-rewrite-url": "/health",
    "x-http-method-override": "GET",
    "x-remote-user": "admin",
    "remote-user": "admin",
    "x-internal": "1",
}


@pytest.fixture
async def filed(path: Path) -> AsyncIterator[Panel]:
    """A panel on a store in a file, with a few processes of names that could be paths."""
    async with entered(Onward(f"sqlite:///{path}", FLOWS)) as panel:
        names = ["a", "health", "configs", "x/health", "../health", "static/panel.css", "..", "enter?token="]
        await panel.app.start_many([Letter(id=name, to="ada") for name in names])
        yield panel


# -- who it is --------------------------------------------------------------------------------------------------------


async def test_s2_who_has_not_come_in_gets_nothing_but_what_is_open_to_everybody(filed: Panel) -> None:
    nobody = filed.seen_by("")
    for method, path in ways(filed.asgi):
        route = route_of(filed.asgi, method, path)
        answer = await nobody.request(method, path, headers=[*nobody.own(), ("content-type", FORM)])
        served = method in ("GET", "HEAD", "POST")
        assert answer.status == (405 if not served else 200 if route and route.open else 403), (method, path)
    assert {route.path for route in filed.asgi.routes if route.open and not route.path.startswith("/static/")} == {"/health"}


async def test_s4_no_spelling_of_a_path_leads_around_the_door(filed: Panel) -> None:
    nobody = filed.seen_by("")
    spelled = ["{}/", "//{}", "/health{}", "/health/..{}", "/static/..{}", "/static/panel.css{}", "{}%0a", "{}%00", "{};/health"]
    spelled += ["{}/health", "{}.css", "{}%2fhealth", "/health%2f..{}", "/HEALTH{}", "{}?/health", "{}%3f/health", "/./{}"]
    for path in paths(filed.asgi):
        for how in spelled:
            target = how.format(path)
            answer = await nobody.get(target)
            exactly_open = route_of(filed.asgi, "GET", target.partition("?")[0])
            assert answer.status == (200 if exactly_open and exactly_open.open else 403), target
    for odd in ("", "*", "health", "/Health", "/health/", "/static", "/static/", "/static/../health", "/enter/x"):
        assert (await nobody.get(odd)).status == 403, odd
    for name in ("health", "configs", "x/health", "../health"):
        assert (await nobody.get(f"/process?id={name}")).status == 403
        assert (await nobody.get(f"/process.json?id={name}")).status == 403


async def test_a_panel_is_closed_until_somebody_says_who_may_come_in() -> None:
    with pytest.raises(OnwardError, match="closed until somebody says who may come in") as no:
        Onward("sqlite:///:memory:", FLOWS).panel()
    assert "authorize=" in no.value.hint


async def test_authorize_is_asked_for_every_page_and_its_no_is_a_403(path: Path) -> None:
    asked: list[tuple[str, str, str | None]] = []

    async def who(request: Request, action: str, record: Record | None) -> Actor | None:
        asked.append((request.url.path, action, record.id if record else None))
        return None if record and record.id == "secret" else Actor("ada", Role.ADMIN)

    async with Onward(f"sqlite:///{path}", FLOWS) as app:
        await app.start_many([Letter(id="a", to="canary-a"), Letter(id="secret", to="canary-secret")])
        client = Client(app.panel(authorize=who))
        for page in pages(client.asgi):
            asked.clear()
            await client.get(page)
            target = page.partition("?")[0]
            route = route_of(client.asgi, "GET", target)
            assert route is not None
            assert ((target, "look", None) in asked) is not route.open, page
        assert (await client.get("/process?id=a")).status == 200
        assert ("/process", "look", "a") in asked
        for page in pages(client.asgi, id="secret"):
            answer = await client.get(page)
            assert "canary-secret" not in answer.text, page
        for page in ("/process", "/process.json", "/data.json"):
            assert (await client.get(f"{page}?id=secret")).status == 403


async def test_s10_authorize_is_asked_for_each_action_with_the_process_and_its_no_changes_nothing(path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def who(request: Request, action: str, record: Record | None) -> Actor | None:
        asked.append((action, record.id if record else None))
        return Actor("ada", Role.ADMIN) if action == "look" else None

    async with Onward(f"sqlite:///{path}", FLOWS) as app:
        await app.start(Letter(id="a", to="ada"))
        client = Client(app.panel(authorize=who))
        before = digest(path)
        for verb in sorted(NEEDS.keys() - {"start", "bulk"}):
            for more in ({"to": "sent", "force": "on"}, {"data": '{"to": "eve"}'}, {"at": "0", "new_id": "b"}):
                asked.clear()
                answer = await client.post("/act", verb=verb, id="a", version=0, reason="x", typed="a", **more)
                assert answer.status == 403, (verb, answer.text)
                assert (verb, "a") in asked
        assert digest(path) == before


async def test_an_authorize_that_answers_neither_an_actor_nor_none_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    async with Onward("sqlite:///:memory:", FLOWS) as app:
        client = Client(app.panel(authorize=lambda request, action, record: True))
        assert (await client.get("/")).status == 500
    assert "authorize answered bool" in caplog.text


# -- by which name, and from where ------------------------------------------------------------------------------------


async def test_s3_a_foreign_host_gets_nowhere_not_even_to_what_is_open(filed: Panel) -> None:
    foreign = ["evil.example", "evil.example:8321", "127.0.0.1.evil.example:8321", "127.0.0.1:8322", "localhost", "0.0.0.0:8321"]
    foreign += ["", "127.0.0.1:8321@evil.example", "[::2]:8321", "127.1:8321", "localhost.:8321", "127.0.0.1:8321/", "127.0.0.1:"]
    for method, path in ways(filed.asgi):
        if method not in ("GET", "HEAD", "POST"):
            continue
        for host in foreign:
            answer = await filed.request(method, path, headers=[("host", host), ("content-type", FORM)])
            assert answer.status == 421, (method, path, host)
    for host in ("127.0.0.1:8321", "localhost:8321", "LOCALHOST:8321", "[::1]:8321"):
        assert (await filed.request("GET", "/health", headers=[("host", host)])).status == 200, host


async def test_s3_other_names_are_known_when_they_are_said() -> None:
    async with entered(Onward("sqlite:///:memory:", FLOWS), hosts=["ops.example.com", "10.0.0.5:9000"]) as panel:
        for host, status in (
            ("ops.example.com", 200),
            ("Ops.Example.com:443", 200),
            ("10.0.0.5:9000", 200),
            ("10.0.0.5:9001", 421),
            ("x.ops.example.com", 421),
            ("localhost:8321", 200),
        ):
            assert (await panel.request("GET", "/health", headers=[("host", host)])).status == status, host


async def test_s3_two_hosts_in_one_request_are_one_too_many(panel: Panel) -> None:
    scope = panel.scope("GET", "/health")
    scope["headers"].append((b"host", b"evil.example"))
    assert await status_of(panel, scope) == 421
    scope["headers"] = []
    assert await status_of(panel, scope) == 421


async def status_of(panel: Panel, scope: dict[str, Any]) -> int:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await panel.asgi(scope, receive, send)
    return int(sent[0]["status"])


async def test_s5_a_stream_is_for_those_who_came_in_and_for_our_own_pages(panel: Panel) -> None:
    assert (await panel.seen_by("").get("/live")).status == 403
    assert (await panel.request("GET", "/live", headers=[("origin", FOREIGN)])).status == 403
    script = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")]
    for site in ("cross-site", "same-site"):
        assert (await panel.request("GET", "/live", headers=[("sec-fetch-site", site), *script])).status == 403
    async with panel.watch(headers=[("sec-fetch-site", "same-origin"), *script]):
        pass


async def test_s5_there_are_no_web_sockets(filed: Panel) -> None:
    for path in paths(filed.asgi):
        scope = {**filed.scope("GET", path), "type": "websocket", "scheme": "ws"}
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any, sent: list[Any] = sent) -> None:
            sent.append(message)

        await filed.asgi(scope, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008}], path


async def test_a_page_may_be_reached_by_a_link_from_elsewhere_but_no_script_of_another_site_reads_it(panel: Panel) -> None:
    linked = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
    assert (await panel.request("GET", "/", headers=linked)).status == 200
    assert (await panel.request("GET", "/", headers=[*linked[:1], ("sec-fetch-mode", "no-cors")])).status == 403
    assert (await panel.request("GET", "/", headers=[("origin", FOREIGN)])).status == 403


async def test_s6_nothing_changes_unless_a_page_of_ours_asks_with_its_token(filed: Panel, path: Path) -> None:
    own = [("origin", filed.origin), ("sec-fetch-site", "same-origin")]
    form = b"csrf=" + filed.csrf.encode() + b"&verb=cancel&id=a&version=0&flow=letter&name=letter"
    bare = form.partition(b"&")[2]
    as_json = json.dumps({"csrf": filed.csrf, "verb": "cancel", "id": "a", "version": 0}).encode()
    bad: list[tuple[int, list[tuple[str, str]], bytes]] = [
        (403, [*own, ("content-type", FORM)], bare),  # no token
        (403, [*own, ("content-type", FORM)], b"csrf=" + b"x" * 43 + b"&" + bare),
        (403, [*own, ("content-type", FORM)], b"csrf=&" + bare),
        (403, [*own, ("content-type", FORM)], form.replace(b"csrf", b"csrf=&csrf", 1)),  # two tokens
        (403, [*own, ("content-type", FORM), ("cookie", "")], form),  # a token and no cookie
        (403, [*own, ("content-type", FORM), ("cookie", f"{filed.cookie('csrf')}=")], b"csrf=&" + bare),
        (403, [*own, ("content-type", FORM), ("cookie", f"{filed.cookie('csrf')}=x")], b"csrf=x&" + bare),  # no token of ours
        (403, [*own, ("content-type", JSON)], as_json.replace(filed.csrf.encode(), b"")),
        (403, [*own, ("content-type", JSON)], as_json.replace(b'"' + filed.csrf.encode() + b'"', b"null")),
        (403, [("content-type", FORM)], form),  # from nobody knows where
        (403, [("origin", "null"), ("content-type", FORM)], form),
        (403, [("origin", "null"), ("sec-fetch-site", "none"), ("content-type", FORM)], form),
        (403, [("origin", FOREIGN), ("content-type", FORM)], form),
        (403, [("origin", FOREIGN), ("sec-fetch-site", "same-origin"), ("content-type", FORM)], form),
        (403, [("origin", "http://127.0.0.1:8322"), ("content-type", FORM)], form),  # another port is another one's
        (403, [("origin", "http://localhost:8321"), ("content-type", FORM)], form),
        (403, [("origin", filed.origin), ("sec-fetch-site", "cross-site"), ("content-type", FORM)], form),
        (403, [("origin", filed.origin), ("sec-fetch-site", "same-site"), ("content-type", FORM)], form),
        (415, [*own, ("content-type", "text/plain")], as_json),
        (415, [*own, ("content-type", "text/plain; application/json")], as_json),
        (415, [*own, ("content-type", "multipart/form-data; boundary=x")], form),
        (415, [*own], form),
    ]
    posts = [route.path for route in filed.asgi.routes if route.method == "POST"]
    before, cookies = digest(path), dict(filed.cookies)
    for target in posts:
        for status, headers, body in bad:
            filed.cookies = dict(cookies)  # an answer may have brought another token
            answer = await filed.request("POST", target, headers=headers, body=body)
            assert answer.status == status, (target, headers, body)
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            overridden = [*own, ("content-type", FORM), ("x-http-method-override", "POST")]
            answer = await filed.request(method, f"{target}?{form.decode()}", headers=overridden, body=form)
            assert answer.status in (200, 404, 405), (method, target)
    assert digest(path) == before
    filed.cookies = cookies
    assert (
        await filed.request("POST", "/act", headers=[*own, ("content-type", FORM)], body=form)
    ).status == 303  # and so it works
    assert digest(path) != before


async def test_s6_looking_changes_nothing(filed: Panel, path: Path) -> None:
    before = digest(path)
    for page in pages(filed.asgi):
        for method in ("GET", "HEAD"):
            answer = await filed.request(method, page, headers=[("sec-fetch-site", "same-origin")])
            assert answer.status < 500, (page, answer.text)
    assert digest(path) == before


async def test_s6_what_is_served_by_another_method_is_405_and_says_by_which(panel: Panel) -> None:
    for method, path in ways(panel.asgi):
        if route_of(panel.asgi, method, path) is not None:
            continue
        answer = await panel.request(method, path, headers=[*panel.own(), ("content-type", FORM)])
        assert answer.status == 405, (method, path)
        assert method not in answer.header("allow").split(", ")


async def test_s7_other_types_are_refused_and_no_answer_lets_another_site_read_it(filed: Panel) -> None:
    for method, path in ways(filed.asgi):
        for kind in ("text/plain", "text/html", "application/xml", "multipart/form-data", "application/json; charset=utf-16", ""):
            headers = [*filed.own(), ("content-type", kind), ("access-control-request-method", "POST")]
            if method == "GET" and path == "/live":
                continue
            answer = await filed.request(method, path, headers=headers)
            assert not [name for name, _ in answer.headers if name.startswith("access-control")], (method, path)
            if method == "POST":
                assert answer.status == 415, (path, kind)


async def test_s8_no_header_speaks_for_somebody_else(filed: Panel) -> None:
    nobody = filed.seen_by("")
    for path in paths(filed.asgi):
        plain = await nobody.get(path)
        for name, value in SPOOFED.items():
            spoofed = await nobody.get(path, headers=[(name, value)])
            assert (spoofed.status, spoofed.all("set-cookie")) == (plain.status, plain.all("set-cookie")), (path, name)
        assert (await nobody.get(path, headers=[("host", "evil.example"), *SPOOFED.items()])).status == 421


# -- what every answer says -------------------------------------------------------------------------------------------


async def test_s18_every_answer_carries_the_headers_that_keep_it_harmless(filed: Panel) -> None:
    for client in (filed, filed.seen_by("")):
        for method, path in ways(filed.asgi):
            if method == "GET" and path == "/live":
                continue
            answer = await client.request(method, path, headers=[*client.own(), ("content-type", FORM)])
            for name, value in HEADERS:
                assert answer.header(name) == value, (method, path, name)
            assert answer.header("referrer-policy") == "no-referrer"
            good = path.startswith("/static/") and answer.status == 200
            assert answer.header("cache-control") == ("no-cache" if good else "no-store"), (method, path)
    policy = dict(HEADERS)["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy


async def test_where_no_other_header_says_it_the_origin_is_told_to_ourselves() -> None:
    """Under no-referrer a form says `Origin: null`, and on such a page browsers send no Sec-Fetch-Site."""
    async with entered(Onward("sqlite:///:memory:", FLOWS), hosts=["panel.lan"]) as panel:
        panel.host = "panel.lan"
        assert (await panel.get("/")).header("referrer-policy") == "same-origin"
        panel.scheme = "https"
        assert (await panel.get("/")).header("referrer-policy") == "no-referrer"


async def test_cookies_are_for_nobody_else_and_under_tls_for_nothing_else(panel: Panel) -> None:
    panel.cookies.clear()
    assert (await panel.get("/")).header("set-cookie").endswith("; HttpOnly; Path=/; SameSite=strict")
    panel.scheme, panel.cookies = "https", {}
    cookie = (await panel.get("/")).header("set-cookie")
    assert cookie.startswith("__Host-onward_csrf_8321=") and cookie.endswith("; HttpOnly; Path=/; SameSite=strict; Secure")
    assert not (await panel.get("/")).all("set-cookie")  # the one it has is good


async def test_a_page_without_tls_does_not_speak_for_one_with_it(panel: Panel) -> None:
    for scheme, origin, status in (
        ("https", "http", 403),
        ("https", "https", 405),
        ("http", "http", 405),
        ("http", "https", 405),
    ):
        panel.scheme = scheme
        headers = [("origin", f"{origin}://127.0.0.1:8321"), ("content-type", FORM)]
        assert (await panel.request("POST", "/health", headers=headers)).status == status, (scheme, origin)


@pytest.mark.parametrize("error", [RuntimeError, StoreError, KeyError])
async def test_s28_a_page_about_an_error_has_an_id_and_the_log_has_the_reason(
    filed: Panel, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    secret = "SELECT data FROM process; postgresql://ada:pw@db/x; /home/ada/onward.db"

    def broken(route: Route) -> Route:
        async def answer(visit: Visit) -> Any:
            raise error(secret)

        return Route(route.method, route.path, answer, route.open)

    filed.asgi._table = {route.path: {} for route in filed.asgi.routes}
    for route in filed.asgi.routes:
        filed.asgi._table[route.path][route.method] = broken(route)
    for route in filed.asgi.routes:
        for accept in ("text/html", "application/json"):
            caplog.clear()
            body = f"csrf={filed.csrf}".encode() if route.method == "POST" else b""
            headers = [*filed.own(), ("content-type", FORM), ("accept", accept)]
            answer = await filed.request(route.method, route.path, headers=headers, body=body)
            assert answer.status == (503 if error is StoreError else 500)
            for word in ("SELECT", "postgresql", "pw@", "/home", "Traceback", "onward.db", ".py"):
                assert word not in answer.text, (route.path, word)
            [said] = [record for record in caplog.records if record.levelno == logging.ERROR]
            assert secret in caplog.text and said.exc_info
            id = said.getMessage().split()[1].rstrip(":")
            assert len(id) == 8 and id in answer.text


async def test_s28_an_error_page_that_fails_itself_still_says_nothing(
    panel: Panel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(visit: Visit, error: Exception) -> Any:
        raise RuntimeError("postgresql://ada:pw@db")

    monkeypatch.setattr("onward.panel.entry.door.error_answer", fails)
    answer = await panel.get("/nowhere")
    assert (answer.status, answer.header("x-content-type-options")) == (500, "nosniff")
    assert "postgresql" not in answer.text


async def test_s30_each_action_leaves_a_line_with_who_and_from_where_refused_ones_too(
    panel: Panel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "onward.panel")
    for route in panel.asgi.routes:
        if route.method != "POST":
            continue
        for client, who in ((panel, "ada"), (panel.seen_by(""), "nobody")):
            caplog.clear()
            await client.post(route.path, verb="no\nsuch\x1b[31m", id="a")
            [line] = [record for record in caplog.records if route.path in record.getMessage()]
            told = line.getMessage()
            assert told.startswith(f"{who} from 127.0.0.1: {route.path} ")
            assert "\n" not in told and "\x1b" not in told
            if client is panel:
                assert " no such" in told and " a: 4" in told


# -- mounted ----------------------------------------------------------------------------------------------------------


async def test_mounted_in_another_app_it_finds_its_pages_and_its_links(path: Path) -> None:
    async with Onward(f"sqlite:///{path}", FLOWS) as app:
        await app.start(Letter(id="a", to="ada"))
        door: Any = app.panel(authorize=authorize)
        web = Starlette(routes=[Mount("/ops/panel", door)])
        client = Panel(web, app=app)
        page = await client.get("/ops/panel/")
        assert page.status == 200
        assert 'href="/ops/panel/static/panel.css"' in page.text and 'href="/' in page.text
        links = page.text.replace('href="/ops/panel/', "").replace('action="/ops/panel/', "").replace('src="/ops/panel/', "")
        assert 'href="/' not in links and 'action="/' not in links and 'src="/' not in links
        assert (await client.get("/ops/panel/health")).status == 200
        assert (await client.get("/ops/panel/nowhere")).status == 404
        assert (await client.get("/health")).status == 404
        assert (await client.seen_by("").get("/ops/panel/")).status == 403
        assert not {"/enter", "/leave"} & {route.path for route in door.routes}
