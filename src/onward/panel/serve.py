"""The panel as a server of its own, on this machine only unless it was told who its users are: `onward panel`."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from onward.actor import Actor, Role
from onward.app import Onward
from onward.control import default_actor
from onward.errors import OnwardError
from onward.panel import standalone
from onward.panel.entry.enter import VIA, Keys, Link, Users

PORT = 8321
LOCAL = "127.0.0.1"
CONNECTIONS_MAX = 500  # at once; more are told to come later
ENDING_S_MAX = 5.0  # for answers that are under way when the server is told to end
BINDS_MAX = 10  # until a free port is free on both loopback addresses


@dataclass(frozen=True)
class Site:
    """Where the panel is served, and for whom. `hosts`: the names by which browsers reach it from elsewhere."""

    host: str = LOCAL
    port: int = PORT
    hosts: Sequence[str] = ()
    role: Role = Role.ADMIN
    users: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def is_local(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def check(self) -> None:
        """Raises OnwardError where others could reach it and nobody asked who they are."""
        if not self.is_local and self.users is None:
            raise OnwardError(
                f"at {self.host} others can reach the panel, and there are no users who may come in",
                hint="make one: onward panel --new-user NAME --role ROLE >> users; then: --users users",
            )
        if self.host in ("0.0.0.0", "::") and not self.hosts:  # noqa: S104
            raise OnwardError(
                f"at {self.host} the panel does not know its name, and it answers to no other",
                hint="say by which name browsers reach it: --hosts panel.example.com",
            )

    def url(self, port: int) -> str:
        name = self.hosts[0] if self.hosts else f"[{self.host}]" if ":" in self.host else self.host
        name = name if ":" in name.rpartition("]")[2] else f"{name}:{port}"
        return f"{'https' if self.cert else 'http'}://{name}"


@asynccontextmanager
async def serving(app: Onward, site: Site, tell: Callable[[str], None]) -> AsyncIterator[asyncio.Task[None]]:
    """Serves the panel of an open app for as long as the block lasts; the task ends early only if the server fails.

    `tell` is given the link on which to come in, and another one whenever it was used. OnwardError where it cannot serve.
    """
    site.check()
    sockets = _bound(site)
    try:
        url = site.url(sockets[0].getsockname()[1])
        keys, announce = _keys(app, site, f"{url}/enter", tell)
        door = standalone(app, keys, (*site.hosts, url.partition("://")[2]))
        server = _Server(_loaded(_config(door, site)))
        task = asyncio.create_task(server.serve(sockets))
        announce()
        try:
            yield task
        finally:
            await door.live.close()
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)
    finally:
        for one in sockets:
            one.close()


async def serve(app: Onward, site: Site, tell: Callable[[str], None]) -> None:
    """Until SIGTERM or Ctrl-C. A second one ends the program at once."""
    async with serving(app, site, tell) as server, _own_work(app):
        with _told_to_end() as told:
            end = asyncio.create_task(told.wait())
            await asyncio.wait([server, end], return_when=asyncio.FIRST_COMPLETED)
            end.cancel()
            if server.done():
                server.result()  # or why it failed


def _keys(app: Onward, site: Site, page: str, tell: Callable[[str], None]) -> tuple[Keys, Callable[[], None]]:
    """What opens the panel, and what tells people where that is."""
    if site.users is not None:
        return Users(site.users), lambda: tell(page)
    link = Link(Actor(default_actor(), site.role, VIA), app.clock, lambda token: tell(f"{page}?token={token}"))
    return link, link.renew


@asynccontextmanager
async def _own_work(app: Onward) -> AsyncIterator[None]:
    """Bulk actions go on while the panel does, also where no worker is."""
    task = asyncio.create_task(app.run_own())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# -- the server ---------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours: uvicorn would end the program by one of them before the store is closed."""
        yield


def _config(door: object, site: Site) -> uvicorn.Config:
    return uvicorn.Config(
        door,  # type: ignore[arg-type]  # it is one of the shapes that an ASGI app may have
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # whoever reaches this port could say anything in them
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=int(ENDING_S_MAX),
        ssl_certfile=site.cert,
        ssl_keyfile=site.key,
    )


def _loaded(config: uvicorn.Config) -> uvicorn.Config:
    try:
        config.load()
    except OSError as error:  # of ssl, which says in its own words what is wrong with a file
        raise OnwardError(f"the certificate or its key cannot be used: {error}", hint="both are files in PEM") from None
    return config


@contextmanager
def _told_to_end() -> Iterator[asyncio.Event]:
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def tell() -> None:
        told.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    for number in before:
        loop.add_signal_handler(number, tell)
    try:
        yield told
    finally:
        restore()


# -- where it listens ---------------------------------------------------------------------------------------------


def _bound(site: Site) -> list[socket.socket]:
    """Listens where it was told to; on this machine on both of its addresses, so that nobody else answers on the other."""
    if site.host not in (LOCAL, "localhost"):
        return [_listener(site.host, site.port)]
    for left in reversed(range(BINDS_MAX)):
        first = _listener(LOCAL, site.port)
        try:
            return [first, *_second(first.getsockname()[1])]
        except OnwardError:
            first.close()
            if site.port or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _second(port: int) -> list[socket.socket]:
    try:
        return [_listener("::1", port)]
    except OSError:  # no IPv6 here
        return []


def _listener(host: str, port: int) -> socket.socket:
    """OnwardError for what a person can mend."""
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise OnwardError(f"there is no address {host!r} here", hint=f"on this machine only: --host {LOCAL}") from None
    made = socket.socket(family, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen()
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise OnwardError(f"port {port} is taken", hint=f"take another one: --port {port + 1}") from None
        if error.errno == errno.EACCES:
            raise OnwardError(f"port {port} is not for this user", hint=f"take one above 1023: --port {PORT}") from None
        raise
    return made
