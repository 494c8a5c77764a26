"""Tells seeds again: `PYTHONPATH=tests python -m simulation --seeds 1..2000`, or `--seed 17 --trace`."""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
from collections import Counter

from .story import told

STORY_S_MAX = 60  # of real time: a story that takes longer spins in one instant, and it is shown where


def seeds_of(text: str) -> range:
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m simulation", description=__doc__)
    which = asked.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=seeds_of, dest="seeds", metavar="N", help="one of them")
    which.add_argument("--seeds", type=seeds_of, metavar="A..B", help="from one to another")
    asked.add_argument("--trace", action="store_true", help="print all that happens")
    given = asked.parse_args()
    began, bad, events, counts = time.process_time(), 0, 0, Counter[str]()
    for seed in given.seeds:
        faulthandler.dump_traceback_later(STORY_S_MAX, exit=True)
        story = told(seed)
        events, counts = events + len(story.lines), counts + story.counts
        if story.violations:
            bad += 1
            print(story.failure)
        if given.trace:
            sys.stdout.write(story.trace)
    faulthandler.cancel_dump_traceback_later()
    seconds = time.process_time() - began
    print(f"{len(given.seeds)} seeds, {events} events, {seconds:.1f} s, {bad} with violations")
    print(", ".join(f"{what} {number}" for what, number in sorted(counts.items())))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
