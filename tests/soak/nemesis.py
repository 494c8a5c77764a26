"""What is done to the programs of a soak, and to what they stand on, drawn by a seed."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from faults.points import POINTS
from faults.points_postgres import POINTS_POSTGRES
from faults.proxy import DOWN, UP, Proxy
from faults.trouble import ERRORS, Status
from postgres import PrivateServer

from .lives import FEEDER, LEASE_S, STRANGE_MAX, Lives

PAUSE_S = (0.1, 1.2)  # between two acts
TEND_EVERY_S = 0.05
WEATHER_S = (0.5, 5.0)
FROZEN_S = (0.3, 3.0)
ROBBING_S, ROB_EVERY_S = 3.0, 0.001
TAKE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
OF_WORKERS = "application_name LIKE 'onward %'"
COMMITTING = f"{OF_WORKERS} AND state <> 'idle' AND (query LIKE '%INSERT INTO onward_history%' OR query = 'COMMIT')"
LOCKED_S = (0.2, 2.0)
READING_S = 5.0
HITS_MAX = 40
CONNECT_S = 5
NEVER = ("guest-", "migrate-")  # no program of a soak gets there
# Where SQLite may answer with an error. The last one comes after the commit: it is done, and nobody was told so.
RAISING = ("group-begin", "claim-row", "commit-row", "commit-history", "checkpoint-begin", "renew-within", *["group-durable"] * 4)

TO_PROGRAMS = {"kill": 8, "kill the feeder": 1, "stop": 4, "set a trap": 6, "drain": 2, "bring trouble": 1}
TO_SQLITE = {"take the lock": 2, "read for long": 1}
TO_POSTGRES = {"restart": 1, "rob of sessions": 2, "freeze": 1, "change the weather": 8}


def _refuse_all(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.reset()


WEATHERS: dict[str, Callable[[Proxy], Any]] = {
    "answers swallowed": lambda proxy: proxy.swallow_answers(every=3),
    "answers swallowed, nobody denies": lambda proxy: proxy.swallow_answers(times=1, then="hang"),
    "requests swallowed": lambda proxy: proxy.swallow_requests(every=3),
    "black hole": lambda proxy: proxy.black_hole(),
    "black hole, all lost": lambda proxy: proxy.black_hole(drop=True),
    "black hole to the server": lambda proxy: proxy.black_hole(direction=UP),
    "black hole to the workers": lambda proxy: proxy.black_hole(direction=DOWN),
    "refused and reset": _refuse_all,
    "slow": lambda proxy: proxy.delay(0.3, 0.2),
    "crumbling": lambda proxy: proxy.slice(1),
}


class Nemesis:
    """It acts again and again; what lasts goes on meanwhile."""

    def __init__(self, lives: Lives, draw: random.Random, number: int) -> None:
        self.lives, self.draw = lives, draw
        self.counts: Counter[str] = Counter()
        self.chances: dict[str, int] = dict(TO_PROGRAMS)
        self.points = [point for point in POINTS if not point.startswith(NEVER)]
        self._numbers = iter(range(number, 10**9))

    def rage(self, until: float) -> None:
        act_at = time.monotonic()
        while time.monotonic() < until and len(self.lives.strange) < STRANGE_MAX:
            self.tend()
            if time.monotonic() >= act_at:
                [what] = self.draw.choices(list(self.chances), weights=list(self.chances.values()))
                self.counts[what] += 1
                self.acts[what]()
                act_at = time.monotonic() + self.draw.uniform(*PAUSE_S)
            time.sleep(TEND_EVERY_S)

    def tend(self) -> None:
        self.lives.tend()

    def end(self) -> None:
        """From now on all is well."""
        self.lives.wake_all()

    @property
    def acts(self) -> Mapping[str, Callable[[], None]]:
        return {
            "kill": lambda: self.lives.kill(self._worker()),
            "kill the feeder": lambda: self.lives.kill(FEEDER),
            "stop": lambda: self.lives.stop(self._worker()),
            "set a trap": self._set_a_trap,
            "drain": lambda: self.lives.drain(self._worker()),
            "bring trouble": self._bring_trouble,
        }

    def _worker(self) -> str:
        return self.draw.choice(sorted(self.lives.workers))

    def _set_a_trap(self) -> None:
        """The next one is killed, stopped or delayed at an instant of its own."""
        action = self.draw.choice(("kill", "kill", "stop", "sleep=0.2"))
        self.lives.kill(self._worker(), crash=f"{self.draw.choice(self.points)}:{self.draw.randint(1, HITS_MAX)}:{action}")

    def _bring_trouble(self) -> None:
        """Handlers that no worker should meet: one of these kills its worker whenever it is begun, until it is parked."""
        kind = self.draw.choice(
            (Status.BLOCKING, Status.BLOCKING_A_THREAD, Status.ENDLESS, Status.DEAF, Status.DEADLY, Status.RAISING)
        )
        about = {"seconds": 1.5 * LEASE_S, "error": self.draw.choice(sorted(ERRORS))}
        trouble = {"id": f"{kind}-{next(self._numbers)}", "kind": kind.value, **about}
        self.lives.kill(self._worker(), trouble=[trouble])


class SqliteNemesis(Nemesis):
    """Another program is at the file, and the file answers with errors."""

    def __init__(self, lives: Lives, draw: random.Random, path: Path) -> None:
        super().__init__(lives, draw, 0)
        self.chances |= TO_SQLITE
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._reads_until = 0.0

    @property
    def acts(self) -> Mapping[str, Callable[[], None]]:
        return {**super().acts, "take the lock": self._take_the_lock, "read for long": self._read_for_long}

    def tend(self) -> None:
        super().tend()
        if self._reader is not None and time.monotonic() > self._reads_until:
            self._read_no_more()

    def end(self) -> None:
        super().end()
        self._read_no_more()

    def _set_a_trap(self) -> None:
        if self.draw.random() < 0.5:
            return super()._set_a_trap()
        point, every = self.draw.choice(RAISING), self.draw.randint(5, 30)
        return self.lives.kill(self._worker(), crash=f"{point}:{every}+:raise")

    def _take_the_lock(self) -> None:
        if not self._path.exists():
            return
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=0.5)) as connection:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:  # a program that stands still has it
                return
            self._wait(self.draw.uniform(*LOCKED_S))
            connection.execute("ROLLBACK")

    def _read_for_long(self) -> None:
        """Nothing can be cleared out of the write-ahead log meanwhile."""
        if self._reader is None and self._path.exists():
            self._reader = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)
            self._reader.execute("BEGIN")
            self._reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._reads_until = time.monotonic() + READING_S

    def _read_no_more(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.lives.tend()
            time.sleep(TEND_EVERY_S)


class PostgresNemesis(Nemesis):
    """The server is restarted, frozen and robbed of its sessions; of the workers, some have a network between it and them."""

    def __init__(self, lives: Lives, draw: random.Random, server: PrivateServer, proxy: Proxy, url: str) -> None:
        super().__init__(lives, draw, 0)
        self.chances |= TO_POSTGRES
        self.points = [point for point in POINTS_POSTGRES if not point.startswith(NEVER)]
        self._server, self._proxy, self._url = server, proxy, url
        self._clears_up_at = 0.0

    @property
    def acts(self) -> Mapping[str, Callable[[], None]]:
        return {
            **super().acts,
            "restart": lambda: self._server.restart(self.draw.choice(("immediate", "immediate", "fast"))),
            "rob of sessions": self._rob,
            "freeze": self._freeze,
            "change the weather": self._change_the_weather,
        }

    def tend(self) -> None:
        super().tend()
        if self._clears_up_at and time.monotonic() > self._clears_up_at:
            self._proxy.heal()
            self._clears_up_at = 0.0

    def end(self) -> None:
        super().end()
        self._proxy.heal()

    def _rob(self) -> None:
        """Of all that workers have at this instant, and then for a while of those in which something is just being committed."""
        until = time.monotonic() + ROBBING_S
        with psycopg.connect(self._url, autocommit=True, connect_timeout=CONNECT_S) as connection:
            self.counts["sessions taken"] += len(connection.execute(f"{TAKE} AND {OF_WORKERS}").fetchall())
            while time.monotonic() < until:
                self.counts["sessions taken in a commit"] += len(connection.execute(f"{TAKE} AND {COMMITTING}").fetchall())
                time.sleep(ROB_EVERY_S)

    def _freeze(self) -> None:
        self._server.pause(backends=True)
        time.sleep(self.draw.uniform(*FROZEN_S))
        self._server.resume()

    def _change_the_weather(self) -> None:
        if self._clears_up_at:
            return
        name = self.draw.choice(sorted(WEATHERS))
        self.counts[name] += 1
        WEATHERS[name](self._proxy)
        self._clears_up_at = time.monotonic() + self.draw.uniform(*WEATHER_S)
