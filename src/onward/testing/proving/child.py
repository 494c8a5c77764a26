"""One program of a proof with real kills: a worker over a SQLite file, in virtual time, that ends itself by SIGKILL at one point.

What it does to the world it tells the proof, in whose program the services are: those outlive it.
"""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from onward.store import at_scratch
from onward.testing.life import Life
from onward.testing.loop import BEGINNING
from onward.testing.proving.effects import Act, Request
from onward.testing.proving.link import Link, request_as_json, response_of
from onward.testing.proving.memory import Memory
from onward.testing.proving.outside import Outside
from onward.testing.proving.points import Fault
from onward.testing.proving.run import Outcome, Plan, ProvedWorld, Run
from onward.testing.world import World


class Child(Run):
    """Of two that follow each other: the first (`point` is not 0) begins the process and is killed, the second ends it."""

    def __init__(self, plan: Plan, point: int, store: str, postgres: str, link: Link) -> None:
        super().__init__(plan, Memory(plan.flow), point, Fault.KILLED if point else None)
        self._store, self._postgres, self._link, self._https = store, postgres, link, 0
        self._is_first = point > 0

    def __call__(self) -> Outcome:
        self.run()
        return self.outcome

    async def _main(self) -> None:
        await super()._main()
        record = self.outcome.record
        assert record is not None
        told = {name: getattr(record, name) for name in ("status", "condition", "data", "error")}
        self._link.send(
            "over",
            {
                **told,
                "stuck": self.outcome.stuck,
                "history": [(entry.kind, entry.transition) for entry in self.outcome.history],
                "took": self.outcome.took.total_seconds(),
            },
        )

    def database(self, outside: Outside) -> AbstractContextManager[Any]:
        """The proof has made it."""
        return at_scratch(self._postgres) if self._postgres else nullcontext()

    def world(self, outside: Outside) -> World:
        start = BEGINNING + timedelta(seconds=self._link.began)
        given = {"resources": outside.resources, "database": self._database, "path": self._store, "start": start}
        world = ProvedWorld([self._plan.flow], **given)
        if not self._is_first:
            world.lives.append(Life("worker-1"))  # it is dead
        return world

    async def begin(self, world: World, outside: Outside) -> None:
        if self._is_first:
            await super().begin(world, outside)

    def kill(self, life: Life) -> None:
        self._link.send("killed", str(self.outcome.points[-1]))
        os.kill(os.getpid(), signal.SIGKILL)

    def enters(self, http: Any) -> int:
        self._https += 1
        return self._https

    def plays(self, http: Any, service: Any) -> Any:
        def ask(request: Any) -> Any:
            told = self._link.ask("request", [http.number, request_as_json(request), self._teller()])
            return response_of(told, request)

        return ask

    def requested(self, request: Request) -> None:
        """The proof, which has answered it, judges it; here the points only need to be called as they are called there."""
        self.outcome.effects.noted(request)

    def acted(self, act: Act) -> None:
        super().acted(act)
        self._link.send("act", asdict(act))

    def _tell(self, line: str, *, marked: bool = False, by: str = "") -> None:
        super()._tell(line, marked=marked, by=by)
        self._link.send("line", self.outcome.lines[-1])

    def _teller(self) -> str:
        life = Life.current() or self._first
        return life.name if life is not None else ""
