"""Live updates: one reader of the store's changes while anybody watches, and a stream for each page that somebody looks at.

A stream says only *that* something changed; the page asks for itself again, so there is one way to make a page.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from onward.errors import StoreError
from onward.panel.entry.body import TurnedAway
from onward.panel.page import Visit, ask, log

STREAMS_MAX = 100  # pages watched at once; each is a connection that stays open
APART_S = 0.5  # between two changes that are told
LOOK_S = 1.0  # whether the server ends, while nothing changes; and at a store in trouble
HEARTBEAT_S = 15.0  # or a proxy takes a stream for dead
STALE_S = 60.0  # a page is read again after that: some things change by time alone
RETRY_MS = 2_000  # how soon a browser comes back to a stream that ended


@dataclass(eq=False)
class _Stream:
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    changed: bool = False

    def wake(self, *, changed: bool) -> None:
        self.changed |= changed
        self.woken.set()

    async def news(self) -> bool:
        """Whether something changed, when that is so or somebody should be asked again; at the latest after HEARTBEAT_S."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self.woken.wait()
        except TimeoutError:
            return False
        self.woken.clear()
        changed, self.changed = self.changed, False
        return changed


class Live:
    def __init__(self, wait_for_change: Callable[[float], Awaitable[None]]) -> None:
        self._wait_for_change = wait_for_change
        self._streams: set[_Stream] = set()
        self._reader: asyncio.Task[None] | None = None
        self._closed = False

    async def answer(self, visit: Visit) -> Response:
        """GET /live"""
        if len(self._streams) >= STREAMS_MAX:
            raise TurnedAway(503, f"{STREAMS_MAX} pages are watched already", hint="close some of them")
        return _EventStream(self._events(visit))

    def recheck(self) -> None:
        """Somebody may have lost the right to look: each stream asks again, now."""
        for stream in self._streams:
            stream.wake(changed=False)

    async def close(self) -> None:
        """Ends all streams, because a server waits for them before it ends itself."""
        self._closed = True
        self.recheck()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _events(self, visit: Visit) -> AsyncGenerator[bytes, None]:
        stream = _Stream()
        self._streams.add(stream)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while True:
                changed = await stream.news()
                if self._closed or not await ask(visit.authorize, visit.request, "look", None):
                    return
                yield b"event: change\ndata: 1\n\n" if changed else b": still here\n\n"
        finally:
            self._streams.discard(stream)
            if not self._streams and self._reader is not None:
                self._reader.cancel()
                self._reader = None

    async def _read(self) -> None:
        """Tells every stream of changes, at most once in APART_S. Ends with the server, and the streams with it."""
        change = asyncio.create_task(self._change())
        try:
            while not _server_ends():
                await asyncio.wait([change], timeout=LOOK_S)
                if not change.done():
                    continue
                # It has begun before anybody is told, so that what changes while a page is made is not missed.
                change = asyncio.create_task(self._change())
                await asyncio.sleep(0)
                for stream in self._streams:
                    stream.wake(changed=True)
                await asyncio.sleep(APART_S)
            self._closed = True
            self.recheck()
        finally:
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)

    async def _change(self) -> None:
        """Until something changed, or may have. Whatever ends this wait is told: its last look may have found a change, and
        what changes between two waits nobody sees. A store in trouble is asked again soon; the pages say what is wrong.
        """
        try:
            await self._wait_for_change(STALE_S)
        except StoreError as error:
            log.debug("no live updates at the moment: %s", error)
            await asyncio.sleep(LOOK_S)


def _server_ends() -> bool:
    """Whether a uvicorn that was told to end is waiting for its streams. Where the panel is mounted nobody else would tell us:
    it tells its apps only when all connections are closed.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))


class _EventStream(Response):
    """Sends what comes, until it ends or the browser goes."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tasks = [asyncio.ensure_future(self._stream(send)), asyncio.ensure_future(_gone(receive))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events) as events:  # at once, also when it is the sending that is cut off
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
