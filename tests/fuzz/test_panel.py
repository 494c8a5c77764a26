"""Every way into the panel, with anything in its path, query, headers, cookies and body: an answer, and never a fault of ours.

Whoever looks changes nothing, and nobody changes anything without the token of the form.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from panel.client import CSRF, FORM, JSON, Answer, _pipe
from panel.conftest import Panel, authorize
from panel.odd import docs, filled_file
from panel.walk import STRANGE, digest, paths

from onward import Onward
from onward.panel import panel as make_panel
from onward.panel.acts.act import VERBS

from .effort import fuzz, odd, texts
from .models import values

NAMES = [
    *("id", "version", "from", "name", "flow", "q", "before", "data", "done", "refresh", "to", "token", "verb", "back", "json"),
    *(
        "reason",
        "force",
        "again",
        "show",
        "query",
        "by",
        "at",
        "until",
        "new_id",
        "typed",
        "all",
        "csrf",
        "status",
        "number",
        "page",
    ),
    *(
        "data.topic",
        "data.pages",
        "data.words",
        "data.address.street",
        "data.files.a",
        "data.counts.0",
        "topic",
        "pages",
        "token",
    ),
]
IDS = ["waits", "failed", "retries", "finished", "paused", "cancelled", "ready"]
CHARSET = "application/json; charset=utf-8"
HEADERS = ["content-type", "content-length", "cookie", "origin", "referer", "accept", "sec-fetch-site", "sec-fetch-mode", "host"]
HEADERS += [
    "sec-fetch-dest",
    "x-forwarded-for",
    "if-none-match",
    "range",
    "accept-encoding",
    "transfer-encoding",
    "x-onward-csrf",
]

names = st.sampled_from(NAMES) | odd
told = texts | st.sampled_from(
    [*IDS, *VERBS, "doc", "write", "done", "is:failed", "/process", "0", "1", "2", '{"topic": "x"}', "{}"]
)
pairs = st.lists(st.tuples(names, told), max_size=6)


def encoded(of: list[tuple[str, str]]) -> bytes:
    return urlencode([(name.encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in of]).encode()


queries = pairs.map(encoded) | st.binary(max_size=60).map(lambda raw: quote_from_bytes(raw, safe="&=%+;").encode())
queries |= st.binary(max_size=40)
latin = (odd | st.text(st.characters(max_codepoint=255), max_size=20)).map(
    lambda text: text.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
)
headers = st.lists(st.tuples(st.sampled_from(HEADERS).map(str.encode), latin), max_size=4)
bodies = st.one_of(
    pairs.map(lambda of: (FORM, encoded([("csrf", CSRF), *of]))),
    st.dictionaries(names, values, max_size=6).map(lambda value: (JSON, json.dumps({"csrf": CSRF, **value}).encode())),
    st.tuples(st.sampled_from([FORM, JSON, CHARSET, "text/plain", ""]), st.binary(max_size=80)),
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def opened(path: Path) -> Panel:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    url = await filled_file(path, datetime.now(UTC) - timedelta(hours=1))
    app = await Onward(url, [docs]).__aenter__()
    return Panel(make_panel(app, authorize=authorize), app=app)


async def ask(
    panel: Panel, method: str, path: str, query: bytes, given: list[tuple[bytes, bytes]], kind: str, body: bytes, *, own: bool
) -> Answer:
    """Whatever it is, as it may come from a socket."""
    usual = [*panel.own(), ("content-type", kind)] if own else []
    scope = panel.scope(method, "/", usual, body)
    scope |= {"path": path, "raw_path": path.encode(), "query_string": query, "headers": [*scope["headers"], *given]}
    receive, send, sent = _pipe(body)
    await asyncio.wait_for(panel.asgi(scope, receive, send), 20)
    assert sent and sent[0]["status"] < 500, (method, path, query, given, body, sent)
    return Answer(sent[0]["status"], [], b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.fixture(scope="module")
def looked_at(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Panel, Path]]:
    path = tmp_path_factory.mktemp("fuzz") / "onward.db"
    panel = runner.run(opened(path))
    yield panel, path
    runner.run(panel.app.__aexit__(None, None, None))


ways = st.sampled_from(paths(make_panel(Onward("sqlite:///:memory:", [docs]), authorize=authorize)))
# A server has read the path as UTF-8 already, with a replacement for what is none.
places = ways | texts.map(lambda text: f"/{text}".encode("utf-8", "replace").decode())


@fuzz(100)
@given(st.sampled_from(["GET", "HEAD", *STRANGE]), places, queries, headers, st.booleans())
def test_whatever_is_looked_at_is_an_answer_and_changes_nothing(
    runner: asyncio.Runner,
    looked_at: tuple[Panel, Path],
    method: str,
    path: str,
    query: bytes,
    given: list[tuple[bytes, bytes]],
    own: bool,
) -> None:
    assume(path != "/live")  # a stream, which does not end
    panel, file = looked_at
    before = digest(file)
    runner.run(ask(panel, method, path, query, given, FORM, b"", own=own))
    assert digest(file) == before


@fuzz(40)
@given(ways, queries, headers, bodies)
def test_whatever_is_sent_is_an_answer(
    runner: asyncio.Runner, path: Path, way: str, query: bytes, given: list[tuple[bytes, bytes]], body: tuple[str, bytes]
) -> None:
    async def send() -> None:
        panel = await opened(path)
        try:
            await ask(panel, "POST", way, query, given, *body, own=True)
            assert (await panel.get("/")).status == 200
        finally:
            await panel.app.__aexit__(None, None, None)

    runner.run(send())


@fuzz(60)
@given(st.sampled_from(sorted(VERBS)), st.sampled_from(IDS), st.integers(0, 4), st.dictionaries(names, values, max_size=4))
def test_whatever_an_action_is_given_is_done_or_refused(
    runner: asyncio.Runner, path: Path, verb: str, id: str, version: int, given: dict[str, Any]
) -> None:
    async def act() -> None:
        panel = await opened(path)
        try:
            body = json.dumps({**given, "csrf": CSRF, "verb": verb, "id": id, "version": version}).encode()
            answer = await ask(panel, "POST", "/act", b"", [], JSON, body, own=True)
            assert answer.status in (200, 400, 404, 409, 422), answer
        finally:
            await panel.app.__aexit__(None, None, None)

    runner.run(act())


@fuzz(40)
@given(ways, queries, headers, pairs, st.booleans())
def test_nothing_that_is_sent_without_the_token_changes_anything(
    runner: asyncio.Runner,
    looked_at: tuple[Panel, Path],
    way: str,
    query: bytes,
    given: list[tuple[bytes, bytes]],
    body: list[tuple[str, str]],
    own: bool,
) -> None:
    panel, file = looked_at
    before = digest(file)
    tokenless = encoded([(name, value) for name, value in body if name != "csrf"])
    runner.run(ask(panel, "POST", way, query, given, FORM, tokenless, own=own))
    assert digest(file) == before
