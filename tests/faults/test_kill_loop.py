"""A minute of kill -9: two workers on one file and a third program that feeds them, a random one killed every 50 to 400 ms.

ONWARD_KILL_SECONDS and ONWARD_KILL_SEED change the length and the run.
"""

from __future__ import annotations

import os
import random
import time
from itertools import count
from pathlib import Path
from signal import SIGTERM

import pytest

from .checker import Verdict, check, look
from .programs import Nursery, Program

SECONDS = float(os.environ.get("ONWARD_KILL_SECONDS", "60"))
SEED = int(os.environ.get("ONWARD_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
LEASE_S = 1.0
KILLS_A_MINUTE_MIN, TAKEOVERS_A_MINUTE_MIN = 150, 20
TAKEOVER_MAX_S = LEASE_S + 1.5  # the rest of a lease, then the next claim of a worker which may just have been born
LOOK_EVERY = 30  # kills between two looks at the running store
SCALE = SECONDS / 60


@pytest.mark.alone
def test_a_minute_of_kill_9_loses_nothing_and_doubles_nothing(nursery: Nursery, tmp_path: Path) -> None:
    draw = random.Random(SEED)
    print(f"\nONWARD_KILL_SEED={SEED} ONWARD_KILL_SECONDS={SECONDS:g}")

    def born(role: str) -> Program:
        order = {"enough": 150, "portion": 25, "seed": draw.randrange(10**9)} if role == "feed" else {"lease": LEASE_S}
        return nursery.start(role, tmp_path, **order)

    lives = [born("work"), born("work"), born("feed")]
    dead: list[Program] = []
    until, violations = time.monotonic() + SECONDS, []
    for kill in count(1):
        if time.monotonic() >= until:
            break
        time.sleep(draw.uniform(0.05, 0.4))
        victim = draw.choices(range(3), weights=(5, 5, 1))[0]
        lives[victim].kill()
        dead.append(lives[victim])
        lives[victim] = born("feed" if victim == 2 else "work")
        if kill % LOOK_EVERY == 0:
            violations += look(tmp_path).violations
    assert all(program.exited == -9 for program in dead), [program.boot for program in dead if program.exited != -9]
    assert not violations, violations[:20]
    assert all(program.end() in (0, -SIGTERM) for program in lives)  # one that was born just now does not listen yet
    heal_began = time.monotonic()
    healer = nursery.start("work", tmp_path, lease=LEASE_S, until_idle=True)
    assert healer.wait(60) == 0
    healed_in = time.monotonic() - heal_began
    verdict = check(tmp_path, [*dead, *lives, healer])
    times = takeover_times(verdict, dead)
    print(
        f"{len(dead)} kills, {verdict.counts['processes']} processes, {verdict.counts['commits']} commits, "
        f"{verdict.counts['acks']} acknowledged transitions, {verdict.counts['takeovers']} takeovers, of "
        f"{len(times)} after a kill the median took {times[len(times) // 2]:.2f} s and the longest {times[-1]:.2f} s "
        f"at a lease of {LEASE_S:g} s; {verdict.counts['steps again']} sub-steps "
        f"ran again, {verdict.counts['bookings']} transactions of handlers; healed in {healed_in:.1f} s; "
        f"{len(verdict.violations)} violations"
    )
    verdict.assert_clean()
    assert len(dead) >= KILLS_A_MINUTE_MIN * SCALE
    assert verdict.counts["takeovers"] >= TAKEOVERS_A_MINUTE_MIN * SCALE
    assert times[-1] <= TAKEOVER_MAX_S


def takeover_times(verdict: Verdict, dead: list[Program]) -> list[float]:
    """From the kill of who had it to the claim of who took it, shortest first."""
    killed = {program.boot: program.signalled_at for program in dead}
    return sorted(at - killed[before] for before, _, at in verdict.takeovers if before in killed and at > killed[before])
