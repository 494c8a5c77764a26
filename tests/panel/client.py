"""A browser without a window, talking ASGI to the panel in the same loop: it keeps cookies and says where it comes from.

answer = await client.get("/flow?name=trip")
answer = await client.post("/act", verb="pause", id="a", version=3)       # as the form of a page
answer = await client.post_json("/act", {"verb": "pause", "id": "a"})     # as a program
async with client.watch("/live") as events: assert await anext(events) == "change"
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import unquote, urlencode

HOST = "127.0.0.1:8321"
CSRF = "c" * 43  # a double submit token may be anybody's choice
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
GONE = b"(gone)"  # compared by identity
Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Headers
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str:
        """'' where there is none; a header twice is a mistake."""
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0] if values else ""

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    asgi: Any
    host: str = HOST
    scheme: str = "http"
    root: str = ""  # where the panel is mounted
    address: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cookies.setdefault(self.cookie("csrf"), CSRF)

    def cookie(self, what: str) -> str:
        """The name of one of the panel's cookies."""
        port = self.host.rpartition(":")[2] if ":" in self.host else "443" if self.scheme == "https" else "80"
        return f"{'__Host-' if self.scheme == 'https' else ''}onward_{what}_{port}"

    @property
    def csrf(self) -> str:
        return self.cookies.get(self.cookie("csrf"), "")

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"

    async def get(self, path: str, *, headers: Iterable[tuple[str, str]] = ()) -> Answer:
        """As a person does who types an address or follows a link on a page."""
        navigation = [("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]
        return await self.request("GET", path, headers=[*navigation, *headers])

    async def post(self, path: str, fields: Iterable[tuple[str, Any]] = (), /, **more: Any) -> Answer:
        """As the form of a page does. A name may come several times in `fields`."""
        body = urlencode([("csrf", self.csrf), *fields, *more.items()]).encode()
        return await self.request("POST", path, headers=[*self.own(), ("content-type", FORM)], body=body)

    async def post_json(self, path: str, value: Mapping[str, Any]) -> Answer:
        body = json.dumps({"csrf": self.csrf, **value}).encode()
        return await self.request("POST", path, headers=[*self.own(), ("content-type", JSON)], body=body)

    def own(self) -> Headers:
        """What a browser says of a POST by a page of the panel."""
        return [("origin", self.origin), ("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "navigate")]

    async def request(
        self, method: str, path: str, *, headers: Iterable[tuple[str, str]] = (), body: bytes | list[bytes] = b""
    ) -> Answer:
        """Just these headers, besides host and cookies. A body in pieces has no content-length; each is taken out of the list
        when it is asked for, and GONE stands for a browser that hung up.
        """
        receive, send, sent = _pipe(body)
        await asyncio.wait_for(self.asgi(self.scope(method, path, headers, body), receive, send), 20)
        if not sent:
            raise ConnectionError("the panel answered nothing")
        status, given = sent[0]["status"], [(key.decode(), value.decode()) for key, value in sent[0]["headers"]]
        self._keep(given)
        return Answer(status, given, b"".join(message.get("body", b"") for message in sent[1:]))

    def scope(
        self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes | list[bytes] = b""
    ) -> dict[str, Any]:
        said = ({"content-length": str(len(body))} if isinstance(body, bytes) and body else {}) | dict(headers)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        lines = [*({"host": self.host} | ({"cookie": cookies} if cookies else {}) | said).items()]
        raw, _, query = path.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": self.scheme,
            "path": self.root + unquote(raw),
            "raw_path": (self.root + raw).encode(),
            "root_path": self.root,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in lines],
            "client": (self.address, 50_000),
            "server": ("127.0.0.1", 8321),
        }

    @asynccontextmanager
    async def watch(self, path: str = "/live", headers: Iterable[tuple[str, str]] = ()) -> AsyncIterator[AsyncIterator[str]]:
        """The events of a stream, by name; comments are told as ':'. StopAsyncIteration when it ends; leaving it hangs up."""
        gone, queue = asyncio.Event(), asyncio.Queue[dict[str, Any]]()

        async def receive() -> dict[str, Any]:
            await gone.wait()
            return {"type": "http.disconnect"}

        task = asyncio.create_task(self.asgi(self.scope("GET", path, headers), receive, queue.put))
        try:
            start = await asyncio.wait_for(queue.get(), 20)
            assert start["status"] == 200, start
            assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
            yield _events(queue)
        finally:
            gone.set()
            await asyncio.wait_for(task, 20)

    def _keep(self, headers: Headers) -> None:
        for name, value in headers:
            if name == "set-cookie":
                for key, morsel in SimpleCookie(value).items():
                    self.cookies.pop(key, None)
                    if morsel["max-age"] != "0":
                        self.cookies[key] = morsel.value


async def _events(queue: asyncio.Queue[dict[str, Any]]) -> AsyncIterator[str]:
    text = ""
    while True:
        message = await asyncio.wait_for(queue.get(), 20)
        text += message.get("body", b"").decode()
        while "\n\n" in text:
            event, _, text = text.partition("\n\n")
            if event.startswith(":"):
                yield ":"
            elif event.startswith("event: "):
                yield event.partition("\n")[0].removeprefix("event: ")
        if not message.get("more_body"):
            return


def _pipe(body: bytes | list[bytes]) -> tuple[Any, Any, list[dict[str, Any]]]:
    pieces = [body] if isinstance(body, bytes) else body
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if pieces and pieces[0] is not GONE:
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    return receive, send, sent
