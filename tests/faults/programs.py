"""The tests' side of the nursery: starts programs, signals them, waits for what becomes of them. Every wait has a limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from typing import Any

from .places import store_of

PATIENCE_S = 30.0  # for anything that a program is expected to do


@dataclass
class Program:
    """One life of one program. `boot` names it in all books; `exited` is its exit code, -9 after a kill."""

    boot: str
    folder: Path
    _nursery: Nursery
    pid: int = 0
    born_at: float = 0.0
    signalled_at: float = 0.0  # by the monotonic clock, which all programs of one machine share
    exited: int | None = None
    exited_at: float = 0.0
    stops: int = 0
    stopped: bool = False

    def signal(self, number: Signals) -> None:
        self.signalled_at = time.monotonic()
        self._nursery.order({"pid": self.pid, "signal": int(number)})

    def wait(self, patience: float = PATIENCE_S) -> int:
        """Its exit code."""
        self._until(lambda: self.exited is not None, patience, "has not ended")
        assert self.exited is not None
        return self.exited

    def wait_until_stopped(self, patience: float = PATIENCE_S) -> None:
        self._until(lambda: self.stopped or self.exited is not None, patience, "was not stopped")
        assert self.stopped, f"{self.boot} ended with {self.exited} before it was stopped\n{self.log()}"

    def end(self, patience: float = PATIENCE_S) -> int:
        """Tells it to stop in good order."""
        self.signal(SIGTERM)
        return self.wait(patience)

    def kill(self) -> None:
        self.signal(SIGKILL)
        self.wait()

    def go_on(self) -> None:
        self.signal(SIGCONT)

    def log(self) -> str:
        path = self.folder / f"log-{self.boot}"
        return path.read_text(errors="replace") if path.exists() else ""

    def book(self, name: str) -> list[list[Any]]:
        return read_book(self.folder / f"{name}-{self.boot}")

    def _until(self, true: Callable[[], bool], patience: float, what: str) -> None:
        with self._nursery.news:
            if not self._nursery.news.wait_for(true, patience):
                raise AssertionError(f"{self.boot} (pid {self.pid}) {what} within {patience:g} s\n{self.log()[-4000:]}")


def read_book(path: Path) -> list[list[Any]]:
    """Its lines; the last one may be torn by a kill, and is nothing then."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


@dataclass
class Nursery:
    """Programs of many tests, also of tests that run at once. Use it with `with`."""

    programs: list[Program] = field(default_factory=list)

    def __enter__(self) -> Nursery:
        package = __package__ or ""
        root = Path(__file__).resolve().parents[package.count(".") + 1]
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._server = subprocess.Popen(
            [sys.executable, "-m", f"{package}.nursery", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.news = threading.Condition()
        self._by_pid: dict[int, Program] = {}
        self._unborn: dict[int, Program] = {}
        self._ordered = 0
        self._reader = threading.Thread(target=self._read, name="nursery", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._reader.join(10)
        self._server.stdout.close()

    def order(self, order: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        with self.news:
            self._server.stdin.write(json.dumps(order).encode() + b"\n")
            self._server.stdin.flush()

    def start(self, role: str, folder: Path, **order: Any) -> Program:
        """A program on the store of this folder; see roles.py for what an order may say."""
        with self.news:
            self._ordered += 1
            program = Program(f"{role}{self._ordered}", folder, self)
            self._unborn[self._ordered] = program
            self.programs.append(program)
            name = {"n": self._ordered, "role": role, "boot": program.boot, "folder": str(folder)}
            self.order({"store": store_of(folder), **name, **order})
        program._until(lambda: program.pid != 0, PATIENCE_S, "was not born")
        return program

    def _read(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            news = json.loads(line)
            with self.news:
                self._take(news)
                self.news.notify_all()

    def _take(self, news: dict[str, Any]) -> None:
        if "n" in news:
            program = self._unborn.pop(news["n"])
            program.pid, program.born_at = news["pid"], time.monotonic()
            self._by_pid[program.pid] = program
        elif "exited" in news:
            program = self._by_pid.pop(news["pid"])
            program.exited, program.exited_at, program.stopped = news["exited"], time.monotonic(), False
        elif "stopped" in news:
            program = self._by_pid[news["pid"]]
            program.stopped = news["stopped"]
            program.stops += news["stopped"]
