"""The API that the demo talks to: the stand-in, as a program of its own, or the real one. Both say what they saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from openai import AsyncOpenAI, NotFoundError

from onward import OnwardError

START_SECONDS_MAX = 20
SECONDS_QUEUED, SECONDS_REASONING = "1.5", "4"  # long enough to be killed in the middle of, short enough to be watched
FAULTS = ("429:20",)  # every twentieth request is told to come back in a second


@dataclass(frozen=True, slots=True)
class Seen:
    """What the API has seen of the demo. `left` is what nobody deleted; `twice` is what was made more than once."""

    files_created: int
    files_left: int
    responses_created: int
    responses_left: int
    twice: int


class Service(Protocol):
    notice: str
    environment: dict[str, str]
    seconds_max: float

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    async def seen(self, files: Sequence[str], responses: Sequence[str], prefixes: Sequence[str]) -> Seen:
        """What it saw; `files` and `responses` are the ids that the processes recorded, `prefixes` begin their files' names."""


class StandIn:
    """A server of our own on loopback. It ends with the demo, however that ends."""

    seconds_max = 180.0

    def __enter__(self) -> Self:
        faults = [word for fault in FAULTS for word in ("--fault", fault)]
        seconds = ["--seconds-queued", SECONDS_QUEUED, "--seconds-reasoning", SECONDS_REASONING]
        # A session of its own: Ctrl-C is for the demo, which still wants its report. Its end of the pipe is its leash.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "onward.testing.openai_standin", "--with-parent", *seconds, *faults],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.notice = self._process.stdout.readline().strip()
        if not self.notice:
            raise OnwardError("the stand-in server did not start", hint="python -m onward.testing.openai_standin")
        self._url = self.notice.split()[-1]
        self.environment = {**os.environ, "OPENAI_BASE_URL": self._url, "OPENAI_API_KEY": "stand-in"}
        for unwanted in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            self.environment.pop(unwanted, None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(START_SECONDS_MAX)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    async def seen(self, files: Sequence[str], responses: Sequence[str], prefixes: Sequence[str]) -> Seen:
        address = self._url.removesuffix("/v1") + "/standin/report"
        # A handler that knows no proxies: what is on loopback is asked on loopback.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=10) as answer:
            report = json.load(answer)
        return Seen(
            files_created=report["files"]["created"],
            files_left=len(report["files"]["left"]),
            responses_created=report["responses"]["created"],
            responses_left=len(report["responses"]["left"]),
            twice=len(report["files"]["duplicates"]) + len(report["responses"]["duplicates"]),
        )


class RealApi:
    """The API of OPENAI_API_KEY and OPENAI_BASE_URL. It costs money, so it is used only when asked for."""

    seconds_max = 24 * 3_600.0

    def __enter__(self) -> Self:
        if not os.environ.get("OPENAI_API_KEY"):
            raise OnwardError("--real needs a key", hint="export OPENAI_API_KEY=…   (without --real: no key, no cost)")
        self.environment = dict(os.environ)
        self.notice = f"the real API, which costs money: {os.environ.get('OPENAI_BASE_URL', 'OpenAI')}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    async def seen(self, files: Sequence[str], responses: Sequence[str], prefixes: Sequence[str]) -> Seen:
        names: list[str] = []
        responses_left = 0
        async with AsyncOpenAI() as client:
            async for file in client.files.list(purpose="user_data", order="desc", limit=10_000):
                if file.filename.startswith(tuple(prefixes)):
                    names.append(file.filename)
            for id in responses:
                try:
                    await client.responses.retrieve(id)
                    responses_left += 1
                except NotFoundError:
                    pass
        return Seen(len(files), len(names), len(responses), responses_left, len(names) - len(set(names)))
