"""The programs of a soak: workers and a feeder that are born again whenever they end, and one who acts on processes."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGSTOP, SIGTERM
from typing import Any

from faults.programs import Nursery, Program

LEASE_S = 1.0
WORKERS = 3
FEEDER = "feeder"
STOPPED_S = (0.2, 3.0 * LEASE_S)  # so long a program stands still
# The feeder sets the pace: some fifty commits a second, so that an hour fits into the memory of who checks it.
FEED = {"enough": 100, "portion": 8, "every": 0.8}
RACES = {"number": 6, "people": 1, "acts": 10**9}
CONSTANTS = {"CHECKPOINT_AFTER": 300}
LOG_CHARS = 600
END_S = 60.0  # of one that is told to stop, grace and the last answer of a lost network included
STRANGE_MAX = 20  # ends that nobody brought about: then it is proven that something is wrong


@dataclass
class Lives:
    """All that live on one store; `urls` are those of the workers, for some may go by way of a proxy."""

    nursery: Nursery
    folder: Path
    draw: random.Random
    urls: list[str]
    releases: tuple[int, ...] = (1, 2)  # of the code, one of which a worker is born with: they roll forward and back
    bug: str = "nothing"  # planted in all of them, to see that it is found; see faults/bugs.py
    now: dict[str, Program] = field(default_factory=dict)
    ended: list[Program] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)  # ends that nobody brought about
    counts: Counter[str] = field(default_factory=Counter)
    _drained: set[str] = field(default_factory=set)  # who was told to stop
    _standing: dict[str, tuple[Program, float]] = field(default_factory=dict)  # who is stopped, and until when

    @property
    def workers(self) -> Iterator[str]:
        return (slot for slot in self.now if slot != FEEDER)

    @property
    def all(self) -> list[Program]:
        return [*self.ended, *self.now.values()]

    def begin(self) -> Program:
        """All are born; the one who acts on races is answered, for nobody kills it."""
        for number in range(WORKERS):
            self.bear(f"worker-{number}")
        self.bear(FEEDER)
        return self.nursery.start("operate", self.folder, bug=self.bug, seed=self.draw.randrange(10**9), **RACES)

    def bear(self, slot: str, **order: Any) -> None:
        if slot == FEEDER:
            program = self.nursery.start("feed", self.folder, bug=self.bug, seed=self.draw.randrange(10**9), **FEED)
        else:
            url = self.urls[int(slot.rpartition("-")[2]) % len(self.urls)]
            program = self.nursery.start(
                "work",
                self.folder,
                store=url,
                bug=self.bug,
                release=self.draw.choice(self.releases),
                lease=LEASE_S,
                constants=CONSTANTS,
                **order,
            )
        self.now[slot] = program

    def kill(self, slot: str, **order: Any) -> None:
        """The next one in its place is born with this order."""
        self.now[slot].kill()
        self._bury(slot)
        self.bear(slot, **order)

    def drain(self, slot: str) -> None:
        """As a deploy does: it is told to stop, and the next one is born when it has ended."""
        program = self.now[slot]
        if program.boot not in self._drained:
            self._drained.add(program.boot)
            self.counts["drains"] += 1
            program.signal(SIGTERM)

    def end(self, slot: str) -> None:
        """Drains it, waits for its end, and nobody is born."""
        self.now[slot].go_on()
        self.drain(slot)
        self.now[slot].wait(END_S)
        self._bury(slot)

    def stop(self, slot: str) -> None:
        program = self.now[slot]
        if program.exited is None and not program.stopped:
            program.signal(SIGSTOP)

    def tend(self) -> None:
        """Whoever has ended is born again, whoever has stood still for long enough goes on."""
        for slot, program in list(self.now.items()):
            if program.exited is not None:
                self._bury(slot)
                self.bear(slot)
            elif program.stopped and program.boot not in self._standing:
                lasts = self.draw.uniform(*STOPPED_S)
                self._standing[program.boot] = program, time.monotonic() + lasts
                self.counts["stops"] += 1
                self.counts["zombies"] += lasts > LEASE_S
        for boot, (program, until) in list(self._standing.items()):
            if time.monotonic() > until or program.exited is not None:
                del self._standing[boot]
                program.go_on()

    def wake_all(self) -> None:
        for program in self.now.values():
            program.go_on()
        self._standing.clear()

    def _bury(self, slot: str) -> None:
        program = self.now.pop(slot)
        program.wait()
        self.ended.append(program)
        if program.exited == -9:
            self.counts["kills"] += 1
        elif program.exited in (0, -SIGTERM) and program.boot in self._drained:
            pass  # one that was born just now does not listen to SIGTERM yet
        elif program.exited == 1 and _was_never_born(program):
            self.counts["births in vain"] += 1
        else:
            self.strange.append(f"{program.boot} ended by itself with {program.exited}: {program.log()[-LOG_CHARS:]}")


def _was_never_born(program: Program) -> bool:
    """It could not open its store, which was in trouble just then, and said so; or the spy in front of it could not."""
    log = program.log()
    said = "\nonward.errors.StoreError: " in log or "in count_anew_and_open" in log
    return said and "in __aenter__" in log and not program.book("claims")


class Told:
    """Lines about the course of things on standard error, of several stores at once."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._lock = quiet, threading.Lock()

    def __call__(self, line: str) -> None:
        if not self._quiet:
            with self._lock:
                print(line, file=sys.stderr, flush=True)
