"""A real panel for a real browser: `onward panel` as a program of its own on a store of a file, and workers beside it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from onward import Onward
from onward.process import Process, Record

T = TypeVar("T")

TESTS = Path(__file__).parent.parent
PATIENCE_S = 30.0
WHO = "ada"  # who has started the panel, as far as it knows
LINK = re.compile(r"http://\S+/enter\?token=\S+")
APP = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from {module} import opened
app = opened(Path("store.db"))
"""
# Nothing that a browser does by itself on a network: it is to show one page.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    """The browser of the system. None is ever downloaded. The one without windows takes half the time for the same engine."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next((path for path in map(shutil.which, names) if path), None)


def until(what: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """What it answers, once that is something."""
    end = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


class Site:
    """The programs and the store in one folder. `opened(path)` of `module` makes the app."""

    def __init__(self, folder: Path, module: str = "browser.bakery") -> None:
        self.folder, self.store = folder, folder / "store.db"
        (folder / "browser_app.py").write_text(APP.format(tests=str(TESTS), module=module))
        (folder / "pyproject.toml").write_text('[tool.onward]\napp = "browser_app:app"\n')
        self._make = __import__(module, fromlist=["opened"]).opened
        self._log = folder / "panel.log"
        self._programs: list[subprocess.Popen[bytes]] = []
        self.url = ""

    def open(self, *words: str) -> None:
        self._begin("panel", "--port", "0", *words)
        self.url = until(self._links)[0].partition("/enter")[0]

    @property
    def link(self) -> str:
        """Where somebody can come in; each works once."""
        return self._links()[-1]

    @property
    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _links(self) -> Sequence[str]:
        assert all(program.poll() is None for program in self._programs), self.said
        return LINK.findall(self.said)

    def _begin(self, *words: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            program = subprocess.Popen(
                [sys.executable, "-m", "onward", *words],
                cwd=self.folder,
                env={**os.environ, "LOGNAME": WHO},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._programs.append(program)
        return program

    def close(self) -> None:
        for program in self._programs:
            program.terminate()
        for program in self._programs:
            try:
                program.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                program.kill()
                raise

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Another program, `onward run`, for as long as the block lasts."""
        program = self._begin("run", "--lease", "5")
        try:
            yield
        finally:
            program.terminate()
            program.wait(PATIENCE_S)
            self._programs.remove(program)

    def do(self, work: Callable[[Onward], Awaitable[T]]) -> T:
        """Something that another program does to the store. In a thread of its own: Playwright keeps a loop in this one."""

        async def alone() -> T:
            async with asyncio.timeout(PATIENCE_S), self._make(self.store) as app:
                return await work(app)

        logging.disable()  # processes fail here by the dozen, each with its traceback
        try:
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(asyncio.run, alone()).result()
        finally:
            logging.disable(logging.NOTSET)

    def get(self, id: str) -> Record:
        return self.do(lambda app: app.get(id))

    def bake(self, *processes: Process[Any]) -> None:
        """Starts them, and drives all of their flow that is due."""

        async def work(app: Onward) -> None:
            for record in await app.start_many(processes, actor="nightly import"):
                await app.check(record.id)

        self.do(work)

    @contextmanager
    def away(self) -> Iterator[None]:
        """The panel is not there for a while; then it is again, at the same address, and knows nobody."""
        port = self.url.rpartition(":")[2]
        self.close()
        self._programs.clear()
        self._log = self._log.with_suffix(".again")
        try:
            yield
        finally:
            self._begin("panel", "--port", port)
            until(self._links)
