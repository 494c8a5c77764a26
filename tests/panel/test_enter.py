"""How people come in where the panel stands alone, how long they stay, and how they are kept out."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import IN_MEMORY, PATIENCE_S

from onward import Onward, OnwardError
from onward.actor import Actor, Role
from onward.panel import standalone
from onward.panel.entry import enter
from onward.panel.entry.door import Door
from onward.panel.entry.enter import IDLE_S_MAX, LINK_S_MAX, TRIES_MAX, TRIES_S, Link, Users, digest, new_user
from onward.testing import ManualClock
from panel.client import FORM, JSON, Answer, Client
from panel.scene import FLOWS, Letter
from panel.walk import route_of, ways

LINK_USED_UP = "this token opens nothing, or no more"


class Alone(Client):
    """A browser before a panel that stands alone, with the tokens that were printed in its terminal."""

    door: Door
    onward: Onward
    clock: ManualClock
    printed: list[str]

    async def enter(self, token: str | None = None) -> Answer:
        return await self.post("/enter", token=self.printed[-1] if token is None else token)

    def another(self) -> Alone:
        other = Alone(self.asgi)
        other.printed, other.clock, other.onward = self.printed, self.clock, self.onward
        return other

    @property
    def session(self) -> str:
        return self.cookies.get(self.cookie("session"), "")


@asynccontextmanager
async def standing(users: Path | None = None, role: Role = Role.ADMIN) -> AsyncIterator[Alone]:
    clock, printed = ManualClock(), list[str]()
    async with asyncio.timeout(PATIENCE_S), Onward(IN_MEMORY, FLOWS, clock=clock) as app:
        await app.start(Letter(id="a"))
        link = Link(Actor("ada", role, "panel"), clock, printed.append)
        keys = Users(users) if users else link
        link.renew()
        client = Alone(standalone(app, keys))
        client.printed, client.clock, client.onward = printed, clock, app
        yield client


@pytest.fixture
async def alone() -> AsyncIterator[Alone]:
    async with standing() as client:
        yield client


async def test_s2_without_a_session_every_way_but_the_open_ones_is_a_401(alone: Alone) -> None:
    opened = set()
    for method, path in ways(alone.asgi):
        answer = await alone.request(method, path, headers=[*alone.own(), ("content-type", FORM)])
        if method not in ("GET", "HEAD", "POST"):
            assert answer.status == 405, (method, path)
        elif (route := route_of(alone.asgi, method, path)) is not None and route.open:
            opened.add(path)
            assert answer.status == (403 if method == "POST" else 200), (method, path)  # a POST without a token
        else:
            assert answer.status == 401, (method, path)
            assert answer.header("www-authenticate")
    assert {path for path in opened if not path.startswith("/static/")} == {"/enter", "/health"}


async def test_s2_the_link_is_looked_at_without_being_used_up_and_then_opens_once(alone: Alone) -> None:
    [token] = alone.printed
    for _ in range(3):
        page = await alone.get(f"/enter?token={token}")
        assert page.status == 200 and f'name="token" value="{token}"' in page.text and "data-submit" in page.text
    answer = await alone.enter(token)
    assert (answer.status, answer.header("location")) == (303, "/")
    assert (await alone.get("/")).status == 200
    assert len(alone.printed) == 2 and alone.printed[1] != token
    thief = alone.another()
    assert (await thief.enter(token)).status == 401
    assert (await thief.get("/")).status == 401
    assert (await thief.enter()).status == 303  # the fresh one, from the terminal
    assert (await alone.get("/")).status == 200  # and nobody was put out by it


async def test_s2_the_session_is_a_cookie_that_no_script_reads_and_no_other_site_sends(alone: Alone) -> None:
    answer = await alone.enter()
    session, csrf = answer.all("set-cookie")
    for cookie in (session, csrf):
        assert cookie.endswith("; HttpOnly; Path=/; SameSite=strict")
    secure = alone.another()
    secure.scheme = "https"
    secure.cookies = {secure.cookie("csrf"): alone.csrf}
    for cookie in (await secure.enter()).all("set-cookie"):
        assert cookie.startswith("__Host-onward_") and cookie.endswith("; HttpOnly; Path=/; SameSite=strict; Secure")


async def test_who_followed_a_link_from_elsewhere_can_open_the_page_again_as_one_of_ours(alone: Alone) -> None:
    """Browsers send the cookie of a session with no link from another site, so the first answer is a 401 all the same."""
    page = await alone.get("/process?id=x%26y%22")
    assert page.status == 401 and 'href="/process?id=x%26y%22"' in page.text
    for foul in ("//evil.example/", "/\\evil.example", '/"><script>alert(1)</script>'):
        page = await alone.get(foul)
        assert page.status == 401
        assert 'href="//' not in page.text and 'href="/\\' not in page.text and "<script>" not in page.text


async def test_s2_tokens_are_compared_in_constant_time(alone: Alone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, two: str) -> bool:
        compared.append((one, two))
        return one == two

    monkeypatch.setattr(enter, "compare_digest", compare)
    [token] = alone.printed
    await alone.enter("wrong")
    assert compared == [(digest("wrong"), digest(token))]
    users = users_file(tmp_path, ada="admin", bea="viewer", cleo="admin")
    compared.clear()
    await Users(users.path).open(users.tokens["ada"])
    assert len(compared) == 3  # the first one fits, and the others are looked at all the same


async def test_s2_a_link_is_over_after_its_time_and_another_one_is_printed(alone: Alone) -> None:
    alone.clock.advance(timedelta(seconds=LINK_S_MAX + 1))
    answer = await alone.enter()
    assert answer.status == 401 and LINK_USED_UP in answer.text
    assert len(alone.printed) == 2
    assert (await alone.enter()).status == 303


async def test_s2_a_session_that_nobody_uses_is_over(alone: Alone) -> None:
    await alone.enter()
    for _ in range(3):
        alone.clock.advance(timedelta(seconds=IDLE_S_MAX - 1))
        assert (await alone.get("/")).status == 200
    for _ in range(3):  # a page that refreshes itself is no sign of a person
        alone.clock.advance(timedelta(seconds=IDLE_S_MAX / 3))
        assert (await alone.request("GET", "/", headers=[("sec-fetch-dest", "empty")])).status == 200
    alone.clock.advance(timedelta(seconds=1))
    assert (await alone.get("/")).status == 401


async def test_s6_to_log_in_takes_the_token_of_the_form_too(alone: Alone) -> None:
    body = f"token={alone.printed[0]}".encode()
    assert (await alone.request("POST", "/enter", headers=[*alone.own(), ("content-type", FORM)], body=body)).status == 403
    evil = [("origin", "http://evil.example"), ("content-type", FORM)]
    whole = f"csrf={alone.csrf}&token={alone.printed[0]}".encode()
    assert (await alone.request("POST", "/enter", headers=evil, body=whole)).status == 403
    assert len(alone.printed) == 1  # nothing of that used it up


async def test_s8_who_says_another_address_is_still_counted_by_his_own(alone: Alone) -> None:
    for number in range(TRIES_MAX):
        body = f"csrf={alone.csrf}&token=wrong{number}".encode()
        headers = [*alone.own(), ("content-type", FORM), ("x-forwarded-for", f"10.0.0.{number}")]
        assert (await alone.request("POST", "/enter", headers=headers, body=body)).status == 401
    assert (await alone.enter()).status == 429


async def test_s9_who_tries_too_many_tokens_waits_and_nobody_else_does(alone: Alone) -> None:
    statuses = [(await alone.enter(f"wrong{number}")).status for number in range(50)]
    assert statuses == [401] * TRIES_MAX + [429] * (50 - TRIES_MAX)
    refused = await alone.enter()
    assert refused.status == 429 and refused.header("retry-after") == "60"
    other = alone.another()
    other.address = "::1"
    assert (await other.enter()).status == 303
    alone.clock.advance(timedelta(seconds=TRIES_S))
    assert (await alone.enter()).status == 303


async def test_s9_the_session_is_another_one_after_each_login_and_what_was_planted_is_worth_nothing(alone: Alone) -> None:
    planted = "p" * 43
    alone.cookies[alone.cookie("session")] = planted
    before = alone.csrf
    await alone.enter()
    first = alone.session
    assert first not in ("", planted) and alone.csrf != before
    await alone.enter()
    assert alone.session not in ("", first, planted)
    for old in (first, planted):
        thief = alone.another()
        thief.cookies[thief.cookie("session")] = old
        assert (await thief.get("/")).status == 401
    assert (await alone.get("/")).status == 200


async def test_s9_leaving_kills_the_session(alone: Alone) -> None:
    await alone.enter()
    kept = alone.session
    answer = await alone.post("/leave")
    assert (answer.status, answer.header("location"), alone.session) == (303, "/enter", "")
    assert "Max-Age=0" in answer.header("set-cookie")
    alone.cookies[alone.cookie("session")] = kept
    assert (await alone.get("/")).status == 401
    assert "newest link" in (await alone.get("/enter")).text


async def test_sessions_have_a_limit_and_the_one_unused_for_longest_makes_room(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enter, "SESSIONS_MAX", 2)
    browsers = [alone, alone.another(), alone.another()]
    for browser in browsers[:2]:
        await browser.enter()
        alone.clock.advance(timedelta(seconds=1))
    assert (await alone.get("/")).status == 200
    await browsers[2].enter()
    assert [(await browser.get("/")).status for browser in browsers] == [200, 401, 200]


async def test_neither_tokens_nor_sessions_stand_in_the_log(alone: Alone, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first = alone.printed[0]
    await alone.enter("wrong-token-of-mine")
    await alone.enter()
    await alone.get("/")
    for secret in (first, alone.printed[1], alone.session, alone.csrf, "wrong-token-of-mine"):
        assert secret not in caplog.text
    assert "ada came in from 127.0.0.1" in caplog.text


async def test_a_program_comes_in_and_acts_with_json(alone: Alone) -> None:
    """It chooses the token against forgery by itself, in cookie and header, and says where it comes from as our pages do."""
    chosen = "t" * 43
    program = alone.another()
    program.cookies = {program.cookie("csrf"): chosen}
    headers = [("origin", program.origin), ("content-type", JSON), ("x-csrf-token", chosen)]
    entered = await program.request("POST", "/enter", headers=headers, body=json.dumps({"token": alone.printed[0]}).encode())
    assert (entered.status, entered.json()) == (200, {"name": "ada", "role": "admin"})
    assert (await program.get("/process.json?id=a")).json()["process"]["version"] == 0
    headers[-1] = ("x-csrf-token", program.csrf)  # the login brought another one
    body = json.dumps({"verb": "pause", "id": "a", "version": 0, "reason": "x"}).encode()
    acted = await program.request("POST", "/act", headers=headers, body=body)
    assert acted.status == 200 and acted.header("content-type") == JSON
    assert (await alone.onward.get("a")).condition == "paused"
    refused = await program.request("POST", "/act", headers=headers, body=body)
    assert refused.status == 409 and refused.json()["error"]["code"] == "conflict"


async def test_a_role_can_be_given_up_for_looking_only() -> None:
    async with standing(role=Role.VIEWER) as alone:
        await alone.enter()
        assert (await alone.get("/")).status == 200
        assert (await alone.post("/act", verb="cancel", id="a", version=0)).status == 403
        assert (await alone.onward.get("a")).version == 0


# -- users ------------------------------------------------------------------------------------------------------------


class users_file:
    """A file of users, and the tokens that are nowhere in it."""

    def __init__(self, folder: Path, **roles: str) -> None:
        self.path, self.tokens, self.lines = folder / "users", {}, {}
        for name, role in roles.items():
            self.tokens[name], self.lines[name] = new_user(name, Role(role))
        self.write()

    def write(self, mode: int = 0o600) -> None:
        self.path.unlink(missing_ok=True)  # a new file has a new number, however coarse the clock of the file system is
        self.path.write_text("# who may come in\n\n" + "".join(f"{line}\n" for line in self.lines.values()))
        self.path.chmod(mode)


async def test_users_come_in_with_a_token_of_their_own_in_their_own_role(tmp_path: Path) -> None:
    users = users_file(tmp_path, ada="admin", bea="viewer")
    async with standing(users.path) as alone:
        page = await alone.get("/enter")
        assert 'type="password"' in page.text and "data-submit" not in page.text
        bea = alone.another()
        for _ in range(2):  # a token of one's own is not used up
            assert (await bea.enter(users.tokens["bea"])).status == 303
        assert "bea" in (await bea.get("/")).text
        assert (await bea.post("/act", verb="cancel", id="a", version=0)).status == 403
        assert (await alone.enter(users.tokens["ada"])).status == 303
        assert (await alone.post("/act", verb="pause", id="a", version=0, reason="x")).status == 303
        [_, entry] = await alone.onward.history("a")
        assert entry.actor == "ada (panel)"
        assert (await alone.another().enter(users.lines["ada"].split()[2])).status == 401  # the hash opens nothing
    assert not any(token in users.path.read_text() for token in users.tokens.values())


async def test_who_is_taken_out_of_the_file_is_out_at_once_and_a_changed_role_counts_at_once(tmp_path: Path) -> None:
    users = users_file(tmp_path, ada="admin", bea="viewer")
    async with standing(users.path) as ada:
        bea = ada.another()
        await ada.enter(users.tokens["ada"])
        await bea.enter(users.tokens["bea"])
        users.lines["ada"] = users.lines["ada"].replace("admin", "viewer")
        del users.lines["bea"]
        users.write()
        assert (await bea.get("/")).status == 401
        assert (await bea.enter(users.tokens["bea"])).status == 401
        assert (await ada.post("/act", verb="cancel", id="a", version=0)).status == 403


@pytest.mark.parametrize(
    "spoil", [lambda users: users.write(0o644), lambda users: users.write(0o602), lambda users: users.path.unlink()]
)
async def test_a_file_of_users_that_has_become_unfit_lets_nobody_in(
    tmp_path: Path, spoil: Callable[[users_file], None], caplog: pytest.LogCaptureFixture
) -> None:
    users = users_file(tmp_path, ada="admin")
    async with standing(users.path) as alone:
        await alone.enter(users.tokens["ada"])
        spoil(users)
        answer = await alone.get("/")
        assert answer.status == 401 and str(tmp_path) not in answer.text
        assert (await alone.another().enter(users.tokens["ada"])).status == 401
        assert "nobody can come in" in caplog.text
        users.write()
        assert (await alone.get("/")).status == 200


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("ada admin " + "a" * 64, 0o644, "read or changed by others"),
        ("ada admin " + "a" * 64, 0o622, "read or changed by others"),
        ("ada root " + "a" * 64, 0o600, "line 1"),
        ("# nobody\nada admin abc", 0o600, "line 2"),
        (f"ada admin {'a' * 64}\nada viewer {'b' * 64}", 0o600, "line 2"),
        ("", 0o600, "no users"),
        ("\udcff", 0o600, "cannot be read"),
    ],
)
def test_a_file_of_users_that_is_unfit_is_refused_at_once(tmp_path: Path, text: str, mode: int, said: str) -> None:
    path = tmp_path / "users"
    path.write_bytes(os.fsencode(text))
    path.chmod(mode)
    with pytest.raises(OnwardError, match=said) as no:
        Users(path)
    assert no.value.hint


def test_a_file_of_users_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(OnwardError, match=r"read|no file"):
            Users(path)


@pytest.mark.parametrize("name", ["", "a b", "#a", "a\n", "a\x1b[31m", "x" * 81])
def test_a_name_that_the_file_could_not_hold_is_refused(name: str) -> None:
    with pytest.raises(OnwardError, match="no name for a user"):
        new_user(name, Role.ADMIN)
