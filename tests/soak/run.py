"""A soak of one store: rage, heal, check; and what it came to."""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from faults import races
from faults.checker import Found, Verdict, check, look
from faults.judging import judge
from faults.places import Places, reading, store_of
from faults.programs import PATIENCE_S, Nursery, Program
from faults.proxy import HOST, Proxy
from postgres import PrivateServer

from .lives import FEEDER, LEASE_S, Lives, Told
from .nemesis import Nemesis, PostgresNemesis, SqliteNemesis

HEAL_SHARE = 3 / 60  # of the time
HEAL_S_MIN = 40.0
LOOKS = 5  # into the running store
IDLE_S = 2  # so long a session of PostgreSQL may keep its locks when its program stands still in a transaction
OVER = ("finished", "failed", "cancelled")
TAKEOVER_MEDIAN_MAX_S = LEASE_S + 2.0
# Of a minute, at the least: a soak in which nothing happens proves nothing. The longer it lasts, the more of those that are under
# way wait for a retry far away, so the pace falls: over half an hour to half of what it is over five minutes.
MINIMA: dict[str, dict[str, float]] = {
    "sqlite": {"kills": 15, "zombies": 2, "commits": 300, "takeovers": 30, "acts": 100, "upgraded": 3, "unknown": 0.5},
    "postgres": {
        "kills": 15,
        "zombies": 2,
        "commits": 300,
        "takeovers": 30,
        "acts": 100,
        "upgraded": 3,
        "unknown": 3,
        "restarts": 0.3,
        "stolen": 10,
    },
}
CHECKING = threading.Lock()  # one store after the other, for all that happened is in memory then


@dataclass
class Result:
    store: str
    seed: int
    minutes: float
    processes: int = 0
    commits: int = 0
    kills: int = 0
    zombies: int = 0  # stopped for longer than a lease
    drains: int = 0
    restarts: int = 0
    stolen: int = 0  # sessions that were ended from outside
    unknown: int = 0  # groups of commits that got no answer, or an error although they were done
    fenced: int = 0  # commits that were refused
    acts: int = 0  # of people
    takeovers: int = 0
    takeover_p50_s: float = 0.0
    takeover_max_s: float = 0.0
    healed_in_s: float = 0.0
    upgraded: int = 0  # processes that code of a newer version took over while older code was at work beside it
    parked: int = 0  # handlers that kill whoever begins them, and what else was charged with too many deaths
    done: dict[str, int] = field(default_factory=dict)  # what was done to them
    violations: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # what happened less often than it has to

    @property
    def passed(self) -> bool:
        return not self.violations and not self.missing

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def soak(nursery: Nursery, store: str, seed: int, minutes: float, root: Path, told: Told, bug: str = "nothing") -> Result:
    """Never raises for what the programs did; `root` keeps all that they left."""
    draw = random.Random(f"{seed}:{store}")
    result = Result(store, seed, minutes)
    heal_s = max(HEAL_S_MIN, minutes * 60 * HEAL_SHARE)
    rage_s = max(minutes * 60 * (1 - HEAL_SHARE), 5.0)
    with stage(nursery, store, draw, root) as (lives, nemesis):
        lives.bug = bug
        operator = lives.begin()
        waited_for_tables(lives)
        began = time.monotonic()
        for part in range(1, LOOKS + 1):
            nemesis.rage(began + rage_s * part / LOOKS)
            result.violations += look(lives.folder).violations
            told(f"{store}: {part}/{LOOKS}, {dict(lives.counts)}, {len(result.violations)} violations")
        nemesis.end()
        try:
            result.healed_in_s = heal(lives, operator, heal_s)
        except AssertionError as error:
            result.violations.append(f"it did not heal: {error}")
        result.violations += lives.strange
        with CHECKING:
            judged(result, lives, nemesis, operator)
            if result.violations:
                keep(lives.folder)
    result.missing = [
        f"{name}: {getattr(result, name)} of {int(least * minutes)}"
        for name, least in MINIMA[store].items()
        if getattr(result, name) < int(least * minutes)
    ]
    return result


@contextmanager
def stage(nursery: Nursery, store: str, draw: random.Random, root: Path) -> Iterator[tuple[Lives, Nemesis]]:
    """Where it is played: an empty store, and who will be after those that live on it."""
    if store == "sqlite":
        folder = root / "sqlite"
        folder.mkdir(parents=True)
        lives = Lives(nursery, folder, draw, [store_of(folder)])
        yield lives, SqliteNemesis(lives, draw, folder / "onward.db")
        return
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        server = stack.enter_context(PrivateServer())
        folder = stack.enter_context(stack.enter_context(closing(Places(server, root))).at("postgres", "soak"))
        proxy = stack.enter_context(Proxy(HOST, server.port, seed=draw.randrange(10**9)))
        url = store_of(folder)
        ways = [f"{way}?idle_in_transaction_session_timeout={IDLE_S}s" for way in (url, proxy.url_for(url))]
        lives = Lives(nursery, folder, draw, ways)
        yield lives, PostgresNemesis(lives, draw, server, proxy, url)


def waited_for_tables(lives: Lives) -> None:
    """A new SQLite file gets its tables from the first program that opens it."""
    until = time.monotonic() + PATIENCE_S
    while not any(program.book("claims") for program in lives.all):
        assert time.monotonic() < until, "".join(program.log() for program in lives.all)
        time.sleep(0.05)


def heal(lives: Lives, operator: Program, patience_s: float) -> float:
    """Nothing is done to anybody any more, and no new work comes: all has to come to rest. How long it took."""
    began = time.monotonic()
    (lives.folder / races.ENOUGH).touch()
    lives.releases = lives.releases[-1:]
    assert operator.wait() == 0, operator.log()
    for slot in list(lives.now):  # some have traps in them still
        lives.tend()
        lives.end(slot)
        if slot != FEEDER:
            lives.bear(slot)
    closer = lives.nursery.start("close", lives.folder)
    while (left := unfinished(lives.folder)) and time.monotonic() < began + patience_s:
        lives.tend()
        time.sleep(0.2)
    assert not left, f"{left} processes are not at rest after {patience_s:g} s"
    assert closer.wait() == 0, closer.log()
    healed_in = time.monotonic() - began
    for slot in list(lives.now):
        lives.end(slot)
    healer = lives.nursery.start("work", lives.folder, lease=LEASE_S, until_idle=True, release=lives.releases[-1])
    assert healer.wait() == 0, healer.log()
    return healed_in


def unfinished(folder: Path) -> int:
    with reading(folder) as ask:
        counted = ask("SELECT condition, count(*) AS number FROM onward_process GROUP BY condition")
    return sum(row["number"] for row in counted if row["condition"] not in OVER)


def judged(result: Result, lives: Lives, nemesis: Nemesis, operator: Program) -> None:
    """Fills in what it came to."""
    failed = parked(lives.folder)
    verdict = check(lives.folder, lives.all, failed=failed, over=("finished", "cancelled"))
    raced = judge(lives.folder, [operator], [], 0)
    result.violations += [*verdict.violations, *raced.violations]
    result.processes, result.commits = verdict.counts["processes"], verdict.counts["commits"]
    result.kills, result.zombies, result.drains = (lives.counts[name] for name in ("kills", "zombies", "drains"))
    result.restarts, result.fenced = nemesis.counts["restart"], verdict.counts["refused commit"]
    result.stolen = nemesis.counts["sessions taken"] + nemesis.counts["sessions taken in a commit"]
    result.unknown, result.acts, result.parked = unknown(lives), raced.answers.total(), len(failed)
    result.upgraded = verdict.counts["upgraded"]
    result.takeovers = verdict.counts["takeovers"]
    times = takeover_times(verdict, lives.all)
    if times:
        result.takeover_p50_s, result.takeover_max_s = statistics.median(times), times[-1]
    if result.takeover_p50_s > TAKEOVER_MEDIAN_MAX_S:
        result.violations.append(f"half of all takeovers took longer than {result.takeover_p50_s:.1f} s")
    result.done = dict(sorted((lives.counts + nemesis.counts).items()))


def keep(folder: Path) -> None:
    """What the database says, beside the books: its server goes with the soak."""
    found = Found.read(folder)
    (folder / "found.json").write_text(json.dumps({"rows": found.rows, "history": found.history}))


def parked(folder: Path) -> set[str]:
    """Those that may have failed: each deadly one must have, and others in trouble may have died with too many workers."""
    with reading(folder) as ask:
        troubled = ask("SELECT id, condition FROM onward_process WHERE flow = 'trouble'")
    return {row["id"] for row in troubled if row["condition"] == "failed" or row["id"].startswith("deadly")}


def takeover_times(verdict: Verdict, programs: list[Program]) -> list[float]:
    """From the death of who had it to the claim of who took it, shortest first."""
    died = {program.boot: program.exited_at for program in programs if program.exited == -9}
    return sorted(at - died[before] for before, _, at in verdict.takeovers if before in died and at > died[before])


def unknown(lives: Lives) -> int:
    counts: Counter[str] = Counter()
    for program in lives.all:
        counts["lost"] += len(program.book("unknown"))
        counts["denied"] += sum(point == "group-durable" and how == "raise" for point, _, how, _ in program.book("reached"))
    return counts.total()
