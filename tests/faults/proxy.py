"""What a network does to a worker and its PostgreSQL: a proxy on loopback that delays, slices, hangs, cuts and resets, and
that can lose exactly one answer: the one to a commit.

    with Proxy("127.0.0.1", server.port) as proxy:
        url = proxy.url_for(server.url)       # for the worker
        proxy.swallow_answers(every=20)       # the server commits, and the worker never hears of it
        ...
        proxy.heal()

All methods may be called from any thread; when they return, it is so. A direction is UP (to the server), DOWN (to the
client) or BOTH. What is done to `present` connections leaves later ones alone, and what is done to `new` ones the present.

It runs in a thread of its own. It can read what is said as long as this is not encrypted, and it sees TCP from above: the
two kernels that it stands between go on answering each other's probes, so keepalive is nothing that it can test.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from postgres import free_port

from .wire import Dialogue, committed

HOST = "127.0.0.1"
READ_BYTES = 262_144
SLICES_MAX = 256  # of what was read at once; the rest passes in one piece, so that work goes on
SLICE_PAUSES_MAX = 16  # after so many of them the receiver has the time to read what it has
SLICE_PAUSE_S = 0.0005
LISTEN_TRIES_MAX = 20
LISTEN_PAUSE_S = 0.05
CALL_S = 20.0

Direction = Literal["up", "down", "both"]
Whom = Literal["all", "present", "new"]
Then = Literal["reset", "hang"]
UP: Direction = "up"
DOWN: Direction = "down"
BOTH: Direction = "both"

COMMITS = "INSERT INTO onward_history"  # what stands in the one statement of a group commit
T = TypeVar("T")


def is_a_commit(sql: str) -> bool:
    return COMMITS in sql or sql.lstrip().upper().startswith(("COMMIT", "END"))


@dataclass
class Weather:
    """What one direction of one connection suffers."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    slice_bytes: int = 0  # 0: as it comes
    cut_after: int | None = None  # so many bytes still pass
    dark: bool = False
    lost: bool = False  # dark for good


@dataclass
class Trap:
    """Closes on every k-th commit, `times` times at most."""

    every: int
    times: int | None
    then: Then
    matches: Callable[[str], bool]
    seen: int = 0
    closed: int = 0

    def closes(self) -> bool:
        if self.times is not None and self.closed >= self.times:
            return False
        self.seen += 1
        if self.seen % self.every:
            return False
        self.closed += 1
        return True


class _Cut(Exception):
    """This connection is to be reset."""


class _Line:
    """One direction of one connection."""

    back: _Line  # the other direction

    def __init__(self, weather: Weather, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, draw: random.Random) -> None:
        self._reader, self.writer, self._draw = reader, writer, draw
        self.passed = self.slices = 0
        self._light = asyncio.Event()
        self.weather = weather
        self.change()

    def change(self, **changes: Any) -> None:
        self.weather = replace(self.weather, **changes)
        if self.weather.dark or self.weather.lost:
            self._light.clear()
        else:
            self._light.set()

    def heal(self) -> None:
        self.weather = Weather(lost=self.weather.lost)
        self.change()

    async def read(self) -> bytes:
        """What came; nothing at the end. The end of one side is news for the other, and does not travel in the dark either."""
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError:
            await self._light.wait()
            raise
        if not data:
            await self._light.wait()
        return data

    async def pass_on(self, data: bytes | bytearray) -> None:
        if data and self.weather.delay_s:
            await asyncio.sleep(self.weather.delay_s + self._draw.uniform(-1, 1) * self.weather.jitter_s)
        for number, piece in enumerate(self._pieces(bytes(data))):
            if self.weather.slice_bytes:
                self.slices += 1
                if 0 < number <= SLICE_PAUSES_MAX:
                    await asyncio.sleep(SLICE_PAUSE_S)
            await self._light.wait()
            left = self.weather.cut_after
            passing = piece if left is None else piece[:left]
            self.passed += len(passing)
            try:
                self.writer.write(passing)
                await self.writer.drain()
            except OSError:  # that the receiver is gone is news that comes from there
                await self.back._light.wait()
                raise
            if left is not None:
                self.weather.cut_after = left - len(passing)
                if not self.weather.cut_after:
                    raise _Cut

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if size := self.weather.slice_bytes:
            sliced = min(len(data), size * SLICES_MAX)
            yield from (data[at : min(at + size, sliced)] for at in range(0, sliced, size))
            data = data[sliced:]
        if data:
            yield data


class _Link:
    """A connection: the client's end, the server's end, and what is said between them."""

    def __init__(self, up: _Line, down: _Line) -> None:
        self.up, self.down = up, down
        up.back, down.back = down, up
        self.dialogue = Dialogue()
        self.watched: dict[int, Trap] = {}  # request -> what may close on its answer

    def lines(self, direction: Direction) -> list[_Line]:
        return {"up": [self.up], "down": [self.down], "both": [self.up, self.down]}[direction]

    def watching(self) -> Trap | None:
        """What waits for the answer that is being given."""
        return None if self.dialogue.opaque else self.watched.get(self.dialogue.answer)

    async def close(self) -> None:
        """When what was said before has arrived."""
        for line in self.lines(BOTH):
            line.writer.close()
        await asyncio.gather(*(line.writer.wait_closed() for line in self.lines(BOTH)), return_exceptions=True)

    def reset(self) -> None:
        for line in self.lines(BOTH):
            _reset(line.writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN: what was on its way is forgotten."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Proxy:
    """See the module. `seed` draws the jitter."""

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.target = (host, port)
        self.port = 0
        self.swallowed = 0  # answers to commits
        self.requests_swallowed = 0
        self.resets = 0  # connections that the proxy has reset, for whatever reason
        self.connections = 0  # that were ever made
        self._passed_before = {"up": 0, "down": 0, "slices": 0}
        self._draw = random.Random(seed)
        self._links: dict[_Link, asyncio.Task[None]] = {}
        self._callers: set[asyncio.Task[Any]] = set()
        self._strange: list[BaseException] = []  # faults of the proxy itself
        self._new: dict[str, Weather] = {"up": Weather(), "down": Weather()}
        self._answers: Trap | None = None
        self._requests: Trap | None = None
        self._listener: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()

    def url_for(self, url: str) -> str:
        """`url` of the server, by way of this proxy."""
        parts = urlsplit(url)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return parts._replace(netloc=f"{user}{HOST}:{self.port}").geturl()

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    @property
    def bytes_up(self) -> int:
        return self._passed_before["up"] + sum(link.up.passed for link in list(self._links))

    @property
    def bytes_down(self) -> int:
        return self._passed_before["down"] + sum(link.down.passed for link in list(self._links))

    @property
    def slices(self) -> int:
        """How many pieces passed while things were sliced."""
        return self._passed_before["slices"] + sum(line.slices for link in list(self._links) for line in link.lines(BOTH))

    def delay(self, seconds: float, jitter: float = 0.0, *, direction: Direction = BOTH, whom: Whom = "all") -> None:
        """Everything comes `seconds` ± `jitter` later, and still in its order."""
        assert 0 <= jitter <= seconds
        self._change(direction, whom, delay_s=seconds, jitter_s=jitter)

    def slice(self, size: int = 1, *, direction: Direction = BOTH, whom: Whom = "all") -> None:
        """Everything comes in pieces of `size` bytes; see SLICES_MAX."""
        self._change(direction, whom, slice_bytes=size)

    def black_hole(self, *, direction: Direction = BOTH, whom: Whom = "all", drop: bool = False) -> None:
        """Nothing passes, not even the end of a connection; all stay open. Healed, what was held passes.

        `drop`: what was on its way is lost, so these connections stay dark for good; later ones are well after `heal`.
        """
        self._change(direction, whom, dark=True, **({"lost": True} if drop else {}))

    def cut_after(self, size: int, *, direction: Direction = DOWN, whom: Whom = "all") -> None:
        """Each connection is reset when so many more bytes have passed."""
        assert size > 0
        self._change(direction, whom, cut_after=size)

    def reset(self) -> None:
        """RST to both ends of all present connections."""
        self._call(self._reset_all)

    def refuse(self) -> None:
        """New connections are refused; the present ones live on."""
        self._call(self._stop_listening)

    def accept(self) -> None:
        self._call(self._listen)

    def swallow_answers(
        self, *, every: int = 1, times: int | None = None, then: Then = "reset", matches: Callable[[str], bool] = is_a_commit
    ) -> None:
        """Of every k-th commit the server's answer is dropped, after it came: it is committed, and nobody knows.

        Only what really committed counts: no failed statement, and none inside a transaction that goes on.
        """
        self._call(self._set_traps, Trap(every, times, then, matches), self._requests)

    def swallow_requests(
        self, *, every: int = 1, times: int | None = None, then: Then = "reset", matches: Callable[[str], bool] = is_a_commit
    ) -> None:
        """The other half of not knowing: every k-th commit is dropped before the server sees it."""
        self._call(self._set_traps, self._answers, Trap(every, times, then, matches))

    def heal(self) -> None:
        """Good weather for all, no traps; new connections are welcome. What was lost stays lost."""
        self._call(self._heal)

    def _change(self, direction: Direction, whom: Whom, **changes: Any) -> None:
        self._call(self._change_weather, direction, whom, changes)

    def _call(self, act: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        return asyncio.run_coroutine_threadsafe(act(*args), self._loop).result(CALL_S)

    # Below: on the proxy's own thread.

    async def _change_weather(self, direction: Direction, whom: Whom, changes: dict[str, Any]) -> None:
        if whom != "new":
            for link in self._links:
                for line in link.lines(direction):
                    line.change(**changes)
        if whom != "present":
            changes.pop("lost", None)  # who is to come has lost nothing yet
            for way in ("up", "down") if direction == "both" else (direction,):
                self._new[way] = replace(self._new[way], **changes)

    async def _reset_all(self) -> None:
        tasks = list(self._links.values())
        self.resets += len(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _set_traps(self, answers: Trap | None, requests: Trap | None) -> None:
        self._answers, self._requests = answers, requests

    async def _heal(self) -> None:
        for trap in (self._answers, self._requests):
            if trap is not None:
                trap.times = 0  # some answer may be waited for already
        self._answers = self._requests = None
        self._new = {"up": Weather(), "down": Weather()}
        for link in self._links:
            for line in link.lines(BOTH):
                line.heal()
        await self._listen()

    async def _listen(self) -> None:
        for tries_left in reversed(range(LISTEN_TRIES_MAX)):
            if self._listener is not None:
                return
            port = self.port or free_port()
            try:
                self._listener = await asyncio.start_server(self._welcome, HOST, port, reuse_address=True, limit=READ_BYTES)
                self.port = port
            except OSError:  # somebody took it in between
                if not tries_left:
                    raise
                await asyncio.sleep(LISTEN_PAUSE_S)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _welcome(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._callers.add(task)
        task.add_done_callback(self._callers.discard)
        try:
            from_server, to_server = await asyncio.open_connection(*self.target, limit=READ_BYTES)
        except OSError:  # there is no server: the nearest to being refused that can be said now
            _reset(to_client)
            return
        except asyncio.CancelledError:
            _reset(to_client)
            raise
        for end in (to_client, to_server):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        up = _Line(replace(self._new["up"]), from_client, to_server, self._draw)
        down = _Line(replace(self._new["down"]), from_server, to_client, self._draw)
        link = _Link(up, down)
        self.connections += 1
        self._links[link] = task
        try:
            await self._serve(link)
        except asyncio.CancelledError:  # it was reset, and has ended as it should: asyncio would log it as a fault
            pass

    async def _serve(self, link: _Link) -> None:
        """Until one side has ended, and the other could hear of it."""
        pumps = [asyncio.create_task(self._upwards(link)), asyncio.create_task(self._downwards(link))]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            errors = [error for pump in done if (error := pump.exception()) is not None]
            self.resets += any(isinstance(error, _Cut) for error in errors)
            self._strange += [error for error in errors if not isinstance(error, _Cut | OSError)]
            if not errors:
                await link.close()
        finally:
            link.reset()  # a reset of one side becomes one of the other; to who is closed it does nothing
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._passed_before["up"] += link.up.passed
            self._passed_before["down"] += link.down.passed
            self._passed_before["slices"] += link.up.slices + link.down.slices
            del self._links[link]

    async def _upwards(self, link: _Link) -> None:
        while data := await link.up.read():
            passing = bytearray()
            for message, sql in link.dialogue.up(data):
                if sql is not None and (trap := self._requests) is not None and trap.matches(sql) and trap.closes():
                    await link.up.pass_on(passing)
                    self.requests_swallowed += 1
                    await self._spring(link, trap)
                if sql is not None and (trap := self._answers) is not None and trap.matches(sql):
                    link.watched[link.dialogue.request] = trap
                passing += message
            await link.up.pass_on(passing)

    async def _downwards(self, link: _Link) -> None:
        held = bytearray()
        while data := await link.down.read():
            passing = bytearray()
            for message in link.dialogue.down(data):
                if (trap := link.watching()) is None:
                    passing += message
                    continue
                held += message
                if message[:1] != b"Z":
                    continue
                del link.watched[link.dialogue.answer]
                if committed(held) and trap.closes():
                    await link.down.pass_on(passing)
                    self.swallowed += 1
                    await self._spring(link, trap)
                passing += held
                held.clear()
            await link.down.pass_on(passing)
        await link.down.pass_on(held)  # the server ended in the midst of an answer

    async def _spring(self, link: _Link, trap: Trap) -> None:
        if trap.then == "reset":
            raise _Cut
        for line in link.lines(BOTH):
            line.change(lost=True)
        await asyncio.Event().wait()

    # The thread.

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        await self._listen()
        self._ready.set()
        await self._over.wait()
        await self._stop_listening()
        for caller in list(self._callers):
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)

    async def _end(self) -> None:
        self._over.set()

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(CALL_S):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._call(self._end)
        self._thread.join(CALL_S)
        assert not self._thread.is_alive()
        if self._strange:
            raise self._strange[0]
