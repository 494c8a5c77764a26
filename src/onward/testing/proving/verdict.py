"""What differs between an undisturbed run and one with a fault: nothing, if the flow is right."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from onward.codec import printable
from onward.process import Condition
from onward.secret import masked
from onward.testing.proving.effects import counted, done_twice, more_than
from onward.testing.proving.outside import line
from onward.testing.proving.points import Fault
from onward.testing.proving.run import LEASE, Outcome

LATE_SHARE, LATE_MIN = 0.25, timedelta(minutes=1)  # so much longer than undisturbed a run may take, beside what is done again
SHOWN_MAX = 3  # differences of one kind
CHARS_MAX = 160


@dataclass(frozen=True)
class Rules:
    """What the user declares: fields and columns (`table.column`) whose value does not matter, and acts and requests that may
    be repeated, and left behind.
    """

    volatile: frozenset[str] = frozenset()
    repeatable: frozenset[str] = frozenset()


def differences(oracle: Outcome, run: Outcome, fault: Fault, rules: Rules) -> list[str]:
    if run.stuck:
        return [f"it did not come to rest: {run.stuck}"]
    assert run.record is not None and oracle.record is not None
    unobserved = {(act.handler, act.place) for act in oracle.effects.acts}
    unobserved -= {(act.handler, act.place) for act in oracle.effects.acts if act.observed}
    found = [*_moved_twice(run), *done_twice(run.effects, rules.repeatable, unobserved)]
    if fault is Fault.CANCELLED and run.record.condition is Condition.CANCELLED:
        return [*found, *_left(oracle, run, rules, found)]
    found += _elsewhere(oracle, run)
    if found and found[-1].startswith("it ended"):  # the rest follows from that
        return found
    if not found:
        found += counted(run.effects, oracle.effects, rules.repeatable, unobserved)
    found += _data(oracle, run, rules)
    found += _world(oracle, run, rules)
    found += list(_left(oracle, run, rules, found))
    return found or list(_late(oracle, run, fault))


def _moved_twice(run: Outcome) -> Iterator[str]:
    """Two workers took the same step, which the store refuses the second: never the flow's fault."""
    steps = Counter(entry.transition for entry in run.history if entry.kind == "moved")
    yield from (f"transition {number} was committed {times} times" for number, times in steps.items() if times > 1)


def _elsewhere(oracle: Outcome, run: Outcome) -> Iterator[str]:
    assert run.record is not None and oracle.record is not None
    ended = (run.record.condition, run.record.status)
    wanted = (oracle.record.condition, oracle.record.status)
    if ended != wanted:
        why = f": {one_line(run.record.error, CHARS_MAX)}" if run.record.error else ""
        yield f"it ended {ended[0]} at {ended[1]}, not {wanted[0]} at {wanted[1]}{why}"


def _data(oracle: Outcome, run: Outcome, rules: Rules) -> Iterator[str]:
    assert run.record is not None and oracle.record is not None
    found, wanted = (json.loads(each.effects.plain(each.record.data)) for each in (run, oracle) if each.record)
    for name in sorted(found.keys() | wanted.keys()):
        if name not in rules.volatile and found.get(name) != wanted.get(name):
            yield f"the field {name} is {_short(found.get(name))}, not {_short(wanted.get(name))}"


def _world(oracle: Outcome, run: Outcome, rules: Rules) -> Iterator[str]:
    for name in sorted(run.seen.files.keys() | oracle.seen.files.keys()):
        found, wanted = run.seen.files.get(name), oracle.seen.files.get(name)
        if found is None:
            yield f"the file {name} is not there"
        elif wanted is not None and found != wanted:
            yield f"the file {name} differs: {_lines(wanted, found)}"
    found_rows, wanted_rows = (sorted(line(row, rules.volatile) for row in each.seen.rows) for each in (run, oracle))
    if found_rows != wanted_rows:
        yield f"the tables differ: {_lines(wanted_rows, found_rows)}"
    if run.seen.state != oracle.seen.state:
        yield f"the state outside is {_short(run.seen.state)}, not {_short(oracle.seen.state)}"


def _left(oracle: Outcome, run: Outcome, rules: Rules, told: list[str]) -> Iterator[str]:
    """What there is more of than undisturbed, and was not there before the process began."""
    names = list(more_than(run.seen.alive, [*oracle.seen.alive, *run.before.alive]))
    yield from (f"{one_line(name, CHARS_MAX)} is left behind" for name in names)
    made = more_than(run.effects.alive(), oracle.effects.alive(), rules.repeatable)
    for name, number in made.items() if not names else ():
        if not any(name in text for text in told):  # else it was made too often, and what is left has been said
            yield f"{number} more of what {name} made {'is' if number == 1 else 'are'} left behind"
    for name in more_than(list(run.seen.files), [*oracle.seen.files, *run.before.files]):
        yield f"the file {name} is left behind"


def _late(oracle: Outcome, run: Outcome, fault: Fault) -> Iterator[str]:
    """Where time is kept in memory, a restart begins it anew. An attempt that was killed is done again, and nothing else."""
    if fault not in (Fault.KILLED, Fault.FROZEN):
        return
    again = timedelta(seconds=max((entry.took or 0 for entry in oracle.history), default=0))
    allowed = oracle.took * (1 + LATE_SHARE) + again + 2 * LEASE + LATE_MIN
    if run.took > allowed:
        yield f"it took {_length(run.took)}, not {_length(oracle.took)}"


def _length(length: timedelta) -> str:
    return str(timedelta(seconds=round(length.total_seconds())))


def _short(value: Any) -> str:
    return one_line(json.dumps(masked(value), ensure_ascii=False, default=repr), CHARS_MAX)


def one_line(text: str, most: int) -> str:
    return " ".join(printable(text, most).split())


def _lines(wanted: list[str], found: list[str]) -> str:
    changed = [line for line in difflib.ndiff(wanted, found) if line[0] in "+-"]
    more = f" and {len(changed) - SHOWN_MAX} more" if len(changed) > SHOWN_MAX else ""
    return "; ".join(one_line(line, CHARS_MAX) for line in changed[:SHOWN_MAX]) + more
