"""S23: what comes in is bounded, and read in one way only. And S22, S29: nothing of the panel needs a network."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import IN_MEMORY

import onward.panel
from onward import Onward
from onward.panel.entry import body
from onward.panel.entry.body import (
    BODY_MAX,
    DEPTH_MAX,
    DIGITS_MAX,
    FORM_FIELDS_MAX,
    QUERY_CHARS_MAX,
    QUERY_FIELDS_MAX,
    TurnedAway,
)
from onward.panel.entry.door import Door
from onward.panel.page import Route, Visit, json_answer
from panel.client import FORM, GONE, JSON, Answer, Client
from panel.conftest import Panel, authorize
from panel.scene import FLOWS

ROOT = Path(onward.panel.__file__).parent
# A path or a name that a browser would fetch from somewhere else. The name of a notation is no address.
OUTSIDE = re.compile(r"""(?:https?:)?//(?!www\.w3\.org/2000/svg["'])[a-z0-9.-]+\.[a-z]{2,}""", re.IGNORECASE)


@pytest.fixture
async def echo() -> AsyncIterator[Panel]:
    """A panel of two pages: what is sent to it comes back as it was read."""

    async def body(visit: Visit) -> Any:
        return json_answer(dict(visit.body))

    async def query(visit: Visit) -> Any:
        return json_answer(dict(visit.query))

    async with Onward(IN_MEMORY, FLOWS) as app:
        made: Any = app.panel(authorize=authorize)
        routes = [Route("POST", "/echo", body), Route("GET", "/echo", query)]
        yield Panel(Door(app, routes, authorize, live=made.live, closed=lambda visit: TurnedAway(403, "no")), app=app)


async def sent(client: Client, text: bytes | list[bytes], kind: str = JSON, *headers: tuple[str, str]) -> Answer:
    token = [("x-csrf-token", client.csrf)]
    return await client.request("POST", "/echo", headers=[*client.own(), *token, ("content-type", kind), *headers], body=text)


async def test_s23_a_body_of_fifty_megabytes_is_refused_before_it_has_come(echo: Panel) -> None:
    pieces = [b"x" * 65_536] * 800
    assert (await sent(echo, pieces)).status == 413
    assert len(pieces) > 780  # the rest was never asked for
    assert (await sent(echo, b"{}", JSON, ("content-length", "50000000"))).status == 413
    for lie in ("-1", "1e3", "0x10", "9" * 40, "\u0661".encode().decode("latin-1")):
        assert (await sent(echo, b"{}", JSON, ("content-length", lie))).status == 413, lie


async def test_s23_the_limit_holds_to_the_byte_whatever_was_said_about_the_length(echo: Panel) -> None:
    fits = json.dumps({"a": "x" * (BODY_MAX - 9)}).encode()
    assert len(fits) == BODY_MAX
    assert (await sent(echo, fits)).status == 200
    assert (await sent(echo, [fits[:500_000], fits[500_000:]])).status == 200
    assert (await sent(echo, [fits[:500_000], fits[500_000:], b" "])).status == 413
    assert (await sent(echo, [fits, b" "], JSON, ("content-length", "10"))).status == 413


async def test_s23_a_body_that_does_not_come_is_not_waited_for(echo: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_S_MAX", 0.05)
    answers: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [*echo.own(), ("content-type", JSON), ("x-csrf-token", echo.csrf), ("content-length", "10")]
    await asyncio.wait_for(echo.asgi(echo.scope("POST", "/echo", headers), receive, send), 5)
    assert answers[0]["status"] == 408


async def test_who_hangs_up_in_the_middle_leaves_nothing_behind(echo: Panel, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectionError, match="answered nothing"):
        await sent(echo, [b"{", GONE])
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 400_000 + "]" * 400_000, "nested deeper"),
        ('{"a":' * 65 + "1" + "}" * 65, "nested deeper"),
        ('{"a":' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}", "nested deeper"),
        ('{"a": ' + "9" * (DIGITS_MAX + 1) + "}", "digits"),
        ('{"a": -' + "9" * 5_000 + "}", "digits"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e400}', "too large"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": {"b": 1, "b": 2}}', "twice"),
        ("[1]", "no object"),
        ('"a"', "no object"),
        ("", "no JSON"),
        ('{"a": 1} x', "no JSON"),
        ("{'a': 1}", "no JSON"),
    ],
    ids=lambda text: str(text)[:20],
)
async def test_s23_json_of_a_foul_shape_is_refused(echo: Panel, text: str, said: str) -> None:
    answer = await sent(echo, text.encode())
    assert answer.status == 400
    assert said in answer.json()["error"]["message"]


async def test_s23_what_fits_is_read_to_the_letter(echo: Panel) -> None:
    value = {"a": int("9" * DIGITS_MAX), "b": {"c": [1, 2.5, None, True, "ä\u0000\n"]}, "": ""}
    value["deep"] = json.loads("[" * (DEPTH_MAX - 1) + "]" * (DEPTH_MAX - 1))
    assert (await sent(echo, json.dumps(value).encode())).json() == value
    assert (await sent(echo, b'\xef\xbb\xbf{"a": 1}')).status == 400
    assert (await sent(echo, '{"a": 1}'.encode("utf-16"))).status == 400
    assert (await sent(echo, b'{"a": "\xff"}')).status == 400


async def test_s23_a_form_has_a_limit_of_fields_and_one_encoding(echo: Panel) -> None:
    assert (await sent(echo, b"a=1&b=%C3%A4&c=&id=x&id=y&id=z", FORM)).json() == {
        "a": "1",
        "b": "ä",
        "c": "",
        "id": ["x", "y", "z"],
    }
    assert (await sent(echo, b"&".join(b"a%d=1" % n for n in range(FORM_FIELDS_MAX)), FORM)).status == 200
    assert (await sent(echo, b"&".join(b"a%d=1" % n for n in range(FORM_FIELDS_MAX + 1)), FORM)).status == 400
    for foul in (b"a=%ff", b"a=\xff", b"a=%ed%a0%80", "a=ä".encode()):
        assert (await sent(echo, foul, FORM)).status == 400, foul
    assert (await sent(echo, b"a=1;b=2", FORM)).json() == {"a": "1;b=2"}


async def test_s23_a_query_is_bounded_and_says_each_thing_once(echo: Panel) -> None:
    assert (await echo.get("/echo?a=1&b=%C3%A4&c=")).json() == {"a": "1", "b": "ä", "c": ""}
    assert (await echo.get("/echo?b=ä")).json() == {"b": "ä"}  # as bytes that no URL has, which some servers pass on
    for foul, status in (
        ("a=1&a=2", 400),
        ("a=%ff", 400),
        ("&".join(f"a{n}=1" for n in range(QUERY_FIELDS_MAX + 1)), 400),
        ("a=" + "x" * QUERY_CHARS_MAX, 414),
    ):
        assert (await echo.get(f"/echo?{foul}")).status == status, foul[:20]


async def test_fields_of_the_wrong_kind_are_refused_in_words(panel: Panel) -> None:
    visit = Visit(None, panel.app, None, authorize, body={"n": 3, "s": "x", "l": ["a"], "b": True, "o": {}})  # type: ignore[arg-type]
    object.__setattr__(visit, "request", type("Request", (), {"method": "POST"})())
    assert (visit.number("n"), visit.text("s"), visit.many("l"), visit.many("s"), visit.number("none")) == (
        3,
        "x",
        ["a"],
        ["x"],
        None,
    )
    for read, name in ((visit.number, "s"), (visit.number, "b"), (visit.text, "n"), (visit.many, "o"), (visit.many, "n")):
        with pytest.raises(onward.InvalidData) as no:
            read(name)
        assert name in str(no.value) and no.value.hint


# -- no network -------------------------------------------------------------------------------------------------------


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_s22_the_panel_fetches_nothing(path: Path) -> None:
    clients = {"httpx", "httpx2", "requests", "aiohttp", "urllib3", "http", "ftplib", "smtplib", "telnetlib", "xmlrpc"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.partition(".")[0] not in clients, f"{path.name} imports {name}"
            assert not name.startswith("urllib") or name.startswith("urllib.parse"), f"{path.name} imports {name}"
            assert name.partition(".")[0] != "socket" or path.name == "serve.py", f"{path.name} imports {name}"
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        assert not re.search(r"\b(open_connection|create_connection|urlopen)$", called), f"{path.name} calls {called}"


def test_s29_no_template_and_no_file_names_another_host() -> None:
    files = [path for folder in ("templates", "static") for path in (ROOT / folder).iterdir()]
    assert len(files) > 5
    for path in files:
        found = OUTSIDE.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {found and found[0]}"
    for outside in ("https://cdn.example.com/x.js", "//cdn.example.com", "url(http://a.example)"):
        assert OUTSIDE.search(outside)


def test_s18_no_template_switches_escaping_off_or_needs_an_inline_script_or_style() -> None:
    for path in (ROOT / "templates").iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|\bon[a-z]+=\"|\sstyle=|<style|javascript:", text), path.name
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path.name
        for said in re.findall(r"\{\{([^}]*)\|\s*markup", text):
            assert said.strip().rpartition(".")[2].startswith("_picture"), f"{path.name}: {said}"
