"""Who may come in where the panel stands alone: with a link that works once, or with a token of one's own. And their sessions."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from onward.actor import Actor, Role
from onward.errors import OnwardError
from onward.panel.entry.body import TurnedAway
from onward.panel.entry.door import TOKEN_BYTES, give, token_of
from onward.panel.page import Route, Visit, json_answer, log, render, see_other
from onward.ports import Clock
from onward.process import Record

IDLE_S_MAX = 12 * 3600.0  # a session that nobody used for so long is over
SESSIONS_MAX = 1_000  # the one that was not used for longest makes room
LINK_S_MAX = 3600.0  # a link that was not used for so long is over
TRIES_MAX, TRIES_S = 10, 60.0  # wrong tokens from one address, and in what time
ADDRESSES_MAX = 1_000  # whose wrong tokens are counted
VIA = "panel"
USER = re.compile(r"(?P<name>\S{1,80}) +(?P<role>viewer|operator|admin) +(?P<hash>[0-9a-f]{64})")


class Keys(Protocol):
    """What opens the panel. `by_link`: nobody has a key of their own."""

    by_link: bool

    async def open(self, token: str) -> Actor | None: ...

    async def known(self, actor: Actor) -> Actor | None:
        """That one as they are now; None if they may not come in any more."""


class Entrance:
    """The pages on which people come and go, and the sessions in between, which only this server knows."""

    def __init__(self, keys: Keys, clock: Clock, left: Callable[[], None] = lambda: None) -> None:
        """`left` is called when a session has ended."""
        self._keys, self._left = keys, left
        self._sessions, self._tries = Sessions(clock), Tries(clock)

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/enter", self.page, open=True),
            Route("POST", "/enter", self.enter, open=True),
            Route("POST", "/leave", self.leave),
        )

    async def authorize(self, request: Request, action: str, record: Record | None) -> Actor | None:
        # What a script asks by itself is no sign that somebody is there.
        actor = self._sessions.find(token_of(request, "session"), used=request.headers.get("sec-fetch-dest") != "empty")
        return None if actor is None else await self._keys.known(actor)

    def closed(self, visit: Visit) -> Exception:
        """What somebody is told who has not come in."""
        hint = "open the link that stands in the terminal of the panel" if self._keys.by_link else "log in first"
        return TurnedAway(401, "this panel does not know you yet", hint=hint, headers={"www-authenticate": "Onward"})

    async def page(self, visit: Visit) -> Response:
        """GET /enter: a form with the token of the link. It changes nothing, so a look at the link does not use it up."""
        return render(visit, "enter.html", {"token": visit.query.get("token", ""), "by_link": self._keys.by_link})

    async def enter(self, visit: Visit) -> Response:
        """POST /enter: the token, for a session. Whatever session the browser had is over, and the new one has new names."""
        address = visit.request.client.host if visit.request.client else ""
        self._tries.check(address)
        actor = await self._keys.open(visit.text("token"))
        if actor is None:
            self._tries.wrong(address)
            hint = "open the newest link in the terminal of the panel" if self._keys.by_link else "ask whoever gave it to you"
            raise TurnedAway(401, "this token opens nothing, or no more", hint=hint, headers={"www-authenticate": "Onward"})
        self._end(visit.request)
        log.info("%s came in from %s", actor.name, address or "this machine")
        answer = json_answer({"name": actor.name, "role": actor.role}) if visit.wants_json else see_other(visit, "/")
        give(visit.request, answer, "session", self._sessions.begin(actor))
        give(visit.request, answer, "csrf", secrets.token_urlsafe(TOKEN_BYTES))
        return answer

    async def leave(self, visit: Visit) -> Response:
        """POST /leave"""
        self._end(visit.request)
        answer = see_other(visit, "/enter")
        give(visit.request, answer, "session", "")
        return answer

    def _end(self, request: Request) -> None:
        if self._sessions.end(token_of(request, "session")):
            self._left()


def digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


@dataclass
class _Session:
    actor: Actor
    used_at: float


class Sessions:
    """By the hash of their token, so that neither a look-up's time nor a dump of the memory gives one away."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, _Session] = {}

    def begin(self, actor: Actor) -> str:
        if len(self._open) >= SESSIONS_MAX:
            del self._open[min(self._open, key=lambda name: self._open[name].used_at)]
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._open[digest(token)] = _Session(actor, self._clock.monotonic())
        return token

    def find(self, token: str, *, used: bool) -> Actor | None:
        session = self._open.get(digest(token))
        if session is None:
            return None
        now = self._clock.monotonic()
        if now - session.used_at > IDLE_S_MAX:
            del self._open[digest(token)]
            return None
        if used:
            session.used_at = now
        return session.actor

    def end(self, token: str) -> bool:
        return self._open.pop(digest(token), None) is not None


class Tries:
    """Wrong tokens, counted by address: who tries too many waits, and nobody else does."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong: dict[str, list[float]] = {}

    def check(self, address: str) -> None:
        """Also a right token is not looked at then, or waiting would not slow anybody down."""
        lately = [at for at in self._wrong.get(address, ()) if self._clock.monotonic() - at < TRIES_S]
        if len(lately) >= TRIES_MAX:
            raise TurnedAway(429, "too many wrong tokens", hint=f"wait {TRIES_S:g} s", headers={"retry-after": f"{TRIES_S:g}"})

    def wrong(self, address: str) -> None:
        lately = self._wrong.pop(address, [])[1 - TRIES_MAX :]
        self._wrong[address] = [*lately, self._clock.monotonic()]
        if len(self._wrong) > ADDRESSES_MAX:
            del self._wrong[next(iter(self._wrong))]


# -- keys ---------------------------------------------------------------------------------------------------------


class Link:
    """A token that works once. Then, or when it was too old, `tell` is given a fresh one, for the next browser.

    There is none before the first `renew`.
    """

    by_link = True

    def __init__(self, actor: Actor, clock: Clock, tell: Callable[[str], None]) -> None:
        self._actor, self._clock, self._tell = actor, clock, tell
        self._hash, self._made_at = "", 0.0

    def renew(self) -> None:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._hash, self._made_at = digest(token), self._clock.monotonic()
        self._tell(token)

    async def open(self, token: str) -> Actor | None:
        if not compare_digest(digest(token), self._hash):
            return None
        fresh = self._clock.monotonic() - self._made_at <= LINK_S_MAX
        self.renew()
        return self._actor if fresh else None

    async def known(self, actor: Actor) -> Actor | None:
        return actor


class Users:
    """A file with a line for each: `name role sha256-of-the-token`. It is read again whenever it changed, so taking a line out
    of it puts that one out of the panel.
    """

    by_link = False

    def __init__(self, path: Path) -> None:
        """Raises OnwardError for a file that is not fit for it."""
        self._path = path
        self._seen: Any = None
        self._users: dict[str, tuple[Role, str]] = {}
        self._read()

    async def open(self, token: str) -> Actor | None:
        await asyncio.to_thread(self._look)
        theirs = digest(token)
        found = None
        for name, (role, hash) in self._users.items():  # all of them, so that the time says nothing
            if compare_digest(theirs, hash):
                found = Actor(name, role, VIA)
        return found

    async def known(self, actor: Actor) -> Actor | None:
        await asyncio.to_thread(self._look)
        user = self._users.get(actor.name)
        return None if user is None else Actor(actor.name, user[0], VIA)

    def _look(self) -> None:
        """A file that has become unfit, or is gone, lets nobody in."""
        try:
            self._read()
        except OnwardError as error:
            log.error("nobody can come in: %s; %s", error, error.hint)

    def _read(self) -> None:
        try:
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
            if seen == self._seen:
                return
            self._users, self._seen = {}, seen
            _check_mode(self._path, found)
            self._users = _users(self._path.read_text(encoding="utf-8"))
        except (OSError, UnicodeError) as error:
            self._users, self._seen = {}, None
            raise OnwardError(f"the users cannot be read: {error}", hint=MAKE_USERS) from None


MAKE_USERS = "make one: onward panel --new-user NAME --role ROLE >> users; chmod 600 users"


def _check_mode(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OnwardError(f"{path} is no file", hint=MAKE_USERS)
    if found.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise OnwardError(f"{path} can be read or changed by others", hint=f"chmod 600 {path}")


def _users(text: str) -> dict[str, tuple[Role, str]]:
    users: dict[str, tuple[Role, str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = USER.fullmatch(line.strip())
        if parts is None or parts["name"] in users:
            raise OnwardError(f"line {number} of the users is not: name role sha256-of-the-token", hint=MAKE_USERS)
        users[parts["name"]] = Role(parts["role"]), parts["hash"]
    if not users:
        raise OnwardError("there are no users in the file, so nobody could come in", hint=MAKE_USERS)
    return users


def new_user(name: str, role: Role) -> tuple[str, str]:
    """A token, and the line for the file, from which nobody can make the token again. OnwardError."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    line = f"{name} {role} {digest(token)}"
    if USER.fullmatch(line) is None or name.startswith("#") or not name.isprintable():
        raise OnwardError(f"{name!r} is no name for a user", hint="up to 80 characters without a blank")
    return token, line
