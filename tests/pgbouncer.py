"""A real PgBouncer in front of a database: it gives each transaction whichever of its few sessions is free.

No package of Python's carries one, so it is the system's: `make test` installs it where it may.
PgBouncer refuses to run as root; started by root it runs as `nobody`, like the server: see postgres.py.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

import postgres

START_S, PAUSE_S = 20.0, 0.01
INI = """
[databases]
* = host={host} port={port} user={user}{password}

[pgbouncer]
listen_addr = {here}
listen_port = {at}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
"""


def program() -> str | None:
    """Where it is; a user's path often lacks the place where Debian puts it."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


class PgBouncer:
    """To be entered. All databases of the server of `url` can be had through it, `size` sessions each."""

    def __init__(self, url: str, size: int = 3, *, user: str = "") -> None:
        self._server, self._size, self._user = urlsplit(url), size, user
        self.port = 0

    def url_of(self, url: str) -> str:
        """`url` through the pooler, as a person would write it."""
        return urlsplit(url)._replace(netloc=f"anybody@{postgres.HOST}:{self.port}", query="pooler=transaction").geturl()

    @property
    def log(self) -> str:
        return (self._room / "log").read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        self._room, self.port = postgres._room(), postgres.free_port()
        password = unquote(self._server.password or "").replace("'", "''")
        at = {
            "host": self._server.hostname,
            "port": self._server.port or 5432,
            "user": self._user or unquote(self._server.username or ""),
            "password": f" password='{password}'" if password else "",
        }
        ini = self._room / "ini"
        ini.write_text(INI.format(**at, here=postgres.HOST, at=self.port, size=self._size), encoding="utf-8")
        self._keeper = subprocess.Popen(
            [sys.executable, __file__, str(self._room)], stdin=subprocess.PIPE, start_new_session=True
        )
        until = time.monotonic() + START_S
        while not self._answers():
            if self._keeper.poll() is not None or time.monotonic() > until:
                said = self.log
                self.__exit__(None, None, None)
                raise RuntimeError(f"PgBouncer did not start:\n{said[-2_000:]}")
            time.sleep(PAUSE_S)
        return self

    def _answers(self) -> bool:
        try:
            socket.create_connection((postgres.HOST, self.port), START_S).close()
        except OSError:
            return False
        return True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._keeper.communicate(timeout=START_S)


def keep(room: Path) -> None:
    """Runs it until our input ends, with whoever started us. A program of its own, so that a killed test run leaves nothing."""
    found = program()
    assert found is not None
    with (room / "log").open("ab") as log:
        pooler = subprocess.Popen(
            [found, str(room / "ini")], cwd=room, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **postgres._as_nobody()
        )
    sys.stdin.buffer.read()
    pooler.kill()
    pooler.wait(START_S)
    shutil.rmtree(room)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
