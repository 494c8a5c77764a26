"""`python -m fuzz`: the properties of this folder again and again, each time from another seed, until the time is over."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
FACTOR = 5  # times the examples of `make test`, in one round
ROUND_S_MAX = 1_800.0


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    until, rounds = time.monotonic() + asked.minutes * 60, 0
    while rounds == 0 or time.monotonic() < until:
        if _round(seed + rounds, asked.tests):
            print(f"found something: `make fuzz MINUTES={asked.minutes:g} SEED={seed + rounds}`", file=sys.stderr)
            return 1
        rounds += 1
    print(f"{rounds} rounds of {FACTOR} times the examples of `make test`, from seed {seed}: nothing found")
    return 0


def _round(seed: int, tests: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"--hypothesis-seed={seed}"]
    environment = {**os.environ, "ONWARD_FUZZ_FACTOR": str(FACTOR)}
    return subprocess.run([*command, *(tests or [str(HERE)])], env=environment, timeout=ROUND_S_MAX).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="a round that has begun is brought to its end (5)")
    parser.add_argument("--seed", type=int, help="of the first round; the next one has the next number")
    parser.add_argument("tests", nargs="*", help="these only, as for pytest")
    return parser


if __name__ == "__main__":
    sys.exit(main())
