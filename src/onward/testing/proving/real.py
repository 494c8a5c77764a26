"""The sample of a proof with real kills: a program of its own for each worker, a SQLite file, and SIGKILL.

The services of the `outside` are played in this program, and so they outlive the others.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from onward.errors import OnwardError
from onward.process import Condition, Entry
from onward.store.sqlite.user_tables import rows_of_file
from onward.testing.loop import VirtualLoop
from onward.testing.proving.effects import Act, Request
from onward.testing.proving.link import Link, request_of, response_as_json
from onward.testing.proving.outside import Folder, Outside, Seen, entered
from onward.testing.proving.points import Fault, Point
from onward.testing.proving.run import Outcome, Plan
from onward.testing.proving.scene import Scene, current
from onward.testing.world import database_at
from onward.testing.world import run as run_in_virtual_time

SAMPLE = 20
PROGRAM_S_MAX = 60.0  # of real time


def sample(points: Sequence[Point], number: int = SAMPLE) -> list[Point]:
    """Of those at which a worker can be killed, so many, evenly spread."""
    killing = [point for point in points if Fault.KILLED in point.moment.faults]
    if len(killing) <= number:
        return killing
    return [killing[at * len(killing) // number] for at in range(number)]


@dataclass(frozen=True)
class Programs:
    """`words` begin one, with the number of its end of the link; `given` tells it which flow to run, and in what."""

    words: Sequence[str]
    given: Mapping[str, Any]


class RealRun(Scene):
    """Two programs, the first of which is killed at the point."""

    def __init__(self, plan: Plan, oracle: Outcome, programs: Programs, point: Point) -> None:
        self._plan, self._oracle, self._programs, self._point = plan, oracle, programs, point
        self._https: list[Any] = []
        self._time = 0.0
        self._over: dict[str, Any] = {}
        self._teller = ""
        self.outcome = Outcome()

    def __call__(self) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="onward-prove-") as folder, Folder(self._plan.folder):
            self._store = Path(folder) / "proof.db"
            run_in_virtual_time(self._main)
        return self.outcome

    async def _main(self) -> None:
        current.set(self)
        async with entered(self._plan.outside) as outside:
            with database_at(outside.postgres) as self._database:
                self.outcome.before = self._look(outside)
                await self._program(self._point.number)
                await self._program(0)
                self._judge(outside)

    def _judge(self, outside: Outside) -> None:
        told, oracle = self._over, self._oracle.record
        assert oracle is not None
        condition = Condition(told["condition"])
        self.outcome.record = replace(oracle, status=told["status"], condition=condition, data=told["data"], error=told["error"])
        entry = self._oracle.history[0]
        self.outcome.history = [_entry(entry, kind, transition) for kind, transition in told["history"]]
        self.outcome.took, self.outcome.stuck = timedelta(seconds=told["took"]), told["stuck"]
        seen = self._look(outside)
        if not self._https:  # what the outside remembers it remembers in programs that are gone
            seen = replace(seen, alive=self._oracle.seen.alive, state=self._oracle.seen.state)
        self.outcome.seen = seen

    def _look(self, outside: Outside) -> Seen:
        rows = rows_of_file(self._store) if self._store.exists() else []
        if self._database is not None:
            rows += self._database.rows()
        return Seen(Folder(self._plan.folder).files(), rows, sorted(map(str, outside.alive())), outside.state())

    # -- a program ----------------------------------------------------------------------------------------------

    async def _program(self, point: int) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(PROGRAM_S_MAX)
        program = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
            [*self._programs.words, str(theirs.fileno())],
            cwd=self._plan.folder,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        link = Link(ours)
        try:
            places = {"store": str(self._store), "postgres": self._database.url if self._database is not None else ""}
            link.send("begin", {**self._programs.given, **places, "point": point, "began": self._time})
            await self._serve(link)
            _, errors = program.communicate(timeout=PROGRAM_S_MAX)
        finally:
            link.close()
            program.kill()
            program.wait()
        wanted = -signal.SIGKILL if point else 0
        if program.returncode != wanted:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise OnwardError(
                f"a program of the proof ended with {program.returncode}, not {wanted}: {''.join(last)}",
                hint="without --full no program is begun",
            )

    async def _serve(self, link: Link) -> None:
        while (told := link.read()) is not None:
            time, kind, value = told
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.pass_time(max(0.0, time - loop.time()))  # one clock for all
            self._time = max(self._time, time)
            match kind:
                case "request":
                    number, request, self._teller = value
                    link.send("response", response_as_json(await self._https[number - 1].answered(request_of(request))))
                case "act":
                    self.outcome.effects.acts.append(Act(**value))
                case "line":
                    self.outcome.lines.append(value)
                case "killed":
                    self.outcome.struck, self.outcome.points = value == str(self._point), [self._point]
                case "over":
                    self._over = value

    # -- what its outside asks ----------------------------------------------------------------------------------

    def enters(self, http: Any) -> int:
        self._https.append(http)
        return len(self._https)

    def requested(self, request: Request) -> None:
        self.outcome.effects.noted(request)
        if request.method != "GET":
            self.outcome.lines.append(f"{self._teller}: {request.method} {request.path} is done ({request.status})")


def _entry(like: Entry, kind: str, transition: int) -> Entry:
    return replace(like, kind=kind, transition=transition)
