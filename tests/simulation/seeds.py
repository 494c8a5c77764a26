"""What the seeds of one test have to come to: no violation, and enough of every fault that nothing was proven by its absence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .ledger import FLOW
from .story import EVENTS_MIN, told

SHOWN_MAX = 3
AT_LEAST = {  # of a thousand seeds, about a third of what there is of each
    "killed": 300, "stopped": 250, "stopped for longer than a lease": 200, "drained": 120, "cut off": 200, "refused": 800,
    "unanswered": 500, "unanswered claim": 80, "unanswered commit": 80, "unanswered record_step": 5, "unanswered act": 4,
    "unanswered release": 5, "renewal lost": 200, "renewal unanswered": 200, "clock forward": 120, "clock back": 120,
    "takeovers": 150, "leases lost": 100, "commit: Fenced": 30, "record_step: Fenced": 2, "act: Conflict": 5,
    "effects again": 1_200, "steps": 500, "steps again": 7,
    "wake: done": 6, "retry: done": 1, "pause: done": 25, "resume: done": 5, "cancel: done": 30, "stop: done": 30,
    "move: done": 30, "edit: done": 15, "fork: done": 60, "delete: done": 25,
    **{f"stage {status}": 20 for status in FLOW.stages if not FLOW.is_end(status)},
}  # fmt: skip


def live_through(seeds: Iterable[int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for seed in seeds:
        story = told(seed)
        assert len(story.lines) >= EVENTS_MIN or story.violations, f"seed {seed} has {len(story.lines)} events"
        counts += story.counts
        counts["seeds"] += 1
        counts["events"] += len(story.lines)
        if story.violations:
            failures.append(story.failure)
            if len(failures) == SHOWN_MAX:
                break
    assert not failures, "\n" + "\n".join(failures)
    missing = {what: counts[what] for what, number in AT_LEAST.items() if counts[what] < number * counts["seeds"] / 1_000}
    assert not missing, f"too little happened: {missing}"
    return counts
