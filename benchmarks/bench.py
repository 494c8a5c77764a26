"""How fast it is, beside the bare limit of the same machine in the same minute: `make bench`.

Each figure comes from a program of its own, on a new database, so that none inherits another's memory or warm caches.
Prints a table for each store and writes bench.json. Absolute figures hold for one machine and one hour; read the ratios.

    python benchmarks/bench.py --only postgres --rounds 1
    ONWARD_BENCH_DIR=/mnt/disk python benchmarks/bench.py    # where the databases stand; a disk, not a piece of memory
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # for the server that the tests use

import engine
import on_postgres
import on_sqlite
import postgres
from figures import Figure, Figures, Row

ROUNDS = 3  # of each figure; the median is reported
FIGURE_S = 300.0


@dataclass(frozen=True)
class Bench:
    """The figures of one store. `place` makes a new place for one of them."""

    name: str
    figures: Mapping[str, Figure]
    table: Callable[[dict[str, Figures]], list[Row]]
    place: Callable[[], AbstractContextManager[str]]


@contextmanager
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="onward-bench-") as name:
        yield name


@contextmanager
def server() -> Iterator[str]:
    with postgres.PrivateServer() as one:
        yield one.url


BENCHES = {
    "sqlite": Bench(f"SQLite {sqlite3.sqlite_version}", on_sqlite.FIGURES, on_sqlite.table, folder),
    "postgres": Bench(f"PostgreSQL {max(postgres.installations())}", on_postgres.FIGURES, on_postgres.table, server),
}


def measure(key: str, name: str) -> Figures:
    with BENCHES[key].place() as place:
        command = [sys.executable, __file__, "--figure", key, name, place]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=FIGURE_S)
    answer: Figures = json.loads(done.stdout)
    return answer


def median(rounds: list[Figures]) -> Figures:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BENCHES, help="one of the stores")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each figure is taken (default 3)")
    parser.add_argument("--figure", nargs=3, metavar=("STORE", "NAME", "PLACE"), help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=2, metavar=("NAME", "URL"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        name, url = asked.child
        asyncio.run(engine.CHILDREN[name](url))
    elif asked.figure:
        key, name, place = asked.figure
        print(json.dumps(asyncio.run(BENCHES[key].figures[name](place))))
    else:
        take(asked.rounds, [asked.only] if asked.only else list(BENCHES))


def take(number: int, keys: list[str]) -> None:
    tempfile.tempdir = os.environ.get("ONWARD_BENCH_DIR")
    rounds: dict[str, dict[str, list[Figures]]] = {key: {name: [] for name in BENCHES[key].figures} for key in keys}
    for turn in range(number):  # in turn, so that a figure and its limit share the same minute
        for key, figures in rounds.items():
            for name, taken in figures.items():
                print(f"round {turn + 1} of {number}: {key}, {name}", file=sys.stderr, flush=True)
                taken.append(measure(key, name))
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    written: dict[str, Any] = {"machine": machine}
    for key, figures in rounds.items():
        found = {name: median(taken) for name, taken in figures.items()}
        written[key] = {"store": BENCHES[key].name, "rounds": figures, "median": found}
        print(f"\n{BENCHES[key].name}, {machine}; medians of {number}\n")
        for what, figure, target in BENCHES[key].table(found):
            print(f"{what:62} {figure:60} {target}")
    Path("bench.json").write_text(json.dumps(written, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
