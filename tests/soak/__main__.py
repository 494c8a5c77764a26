"""`python -m soak`: all stores at once; a table in Markdown, the same as JSON, and exit code 1 if anything was wrong."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from faults.programs import Nursery

from .lives import Told
from .run import MINIMA, Result, soak

VIOLATIONS_SHOWN = 20
MINUTES_MAX = 24 * 60
COLUMNS: dict[str, Callable[[Result], str]] = {
    "store": lambda r: r.store,
    "seed": lambda r: str(r.seed),
    "minutes": lambda r: f"{r.minutes:g}",
    "processes": lambda r: f"{r.processes:,}",
    "commits": lambda r: f"{r.commits:,}",
    "kills": lambda r: f"{r.kills:,}",
    "zombies": lambda r: f"{r.zombies:,}",
    "restarts": lambda r: f"{r.restarts:,}",
    "sessions stolen": lambda r: f"{r.stolen:,}",
    "unknown outcomes": lambda r: f"{r.unknown:,}",
    "commits fenced": lambda r: f"{r.fenced:,}",
    "acts of people": lambda r: f"{r.acts:,}",
    "upgraded": lambda r: f"{r.upgraded:,}",
    "takeovers": lambda r: f"{r.takeovers:,}",
    "p50": lambda r: f"{r.takeover_p50_s:.2f} s",
    "max": lambda r: f"{r.takeover_max_s:.2f} s",
    "healed in": lambda r: f"{r.healed_in_s:.1f} s",
    "violations": lambda r: f"{len(r.violations):,}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    stores = asked.stores or sorted(MINIMA)
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    root = Path(tempfile.mkdtemp(prefix="onward-soak-", dir=asked.folder))
    told = Told(asked.quiet)
    told(f"soak of {', '.join(stores)} for {asked.minutes:g} minutes, seed {seed}, in {root}")
    with Nursery() as nursery, ThreadPoolExecutor(len(stores)) as pool:
        runs = [pool.submit(soak, nursery, store, seed, asked.minutes, root, told) for store in stores]
        results = [run.result() for run in runs]
    print(table(results, asked.minutes, seed))
    if asked.json:
        asked.json.write_text(json.dumps([result.as_json() for result in results], indent=2) + "\n")
    if all(result.passed for result in results):
        shutil.rmtree(root)
        return 0
    print(f"What the programs left is in {root}", file=sys.stderr)
    return 1


def table(results: Sequence[Result], minutes: float, seed: int) -> str:
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *([cell(result) for cell in COLUMNS.values()] for result in results)]
    said = ["".join(f"| {cell} " for cell in line) + "|" for line in lines]
    for result in results:
        done = ", ".join(f"{number} × {what}" for what, number in result.done.items())
        said += ["", f"{result.store}: {done}"]
        said += [f"* violation: {violation}" for violation in result.violations[:VIOLATIONS_SHOWN]]
        said += [f"* happened too seldom: {missing}" for missing in result.missing]
    return "\n".join([*said, "", f"`make soak MINUTES={minutes:g} SEED={seed}`"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--minutes", type=_minutes, default=60.0, help="how long, the heal included (60)")
    parser.add_argument("--seed", type=int, help="draws all that is done to the programs")
    parser.add_argument("--store", dest="stores", choices=sorted(MINIMA), action="append", help="one store only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the results")
    parser.add_argument("--folder", type=Path, help="where the stores are; a temporary one without")
    parser.add_argument("--quiet", action="store_true", help="nothing but the table")
    return parser


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= MINUTES_MAX:
        raise argparse.ArgumentTypeError(f"give 0 < minutes <= {MINUTES_MAX}")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
