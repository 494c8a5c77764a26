"""Proves a flow by disturbing it: runs it once undisturbed, then again with a fault at each of its points, and compares.

proof = prove(flow, Parcel(address="12 Harbour Street"))
proof.assert_clean()
"""

from __future__ import annotations

import gc
import logging
import shlex
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from onward.errors import InvalidData, OnwardError
from onward.flow import Duration, Flow, in_seconds
from onward.process import OVER, Process
from onward.testing.proving.http import Http
from onward.testing.proving.memory import Memory
from onward.testing.proving.outside import Outside, Outsides, nothing_outside
from onward.testing.proving.points import Fault, Point, folded, is_like, key_of
from onward.testing.proving.proof import Failure, Proof, cause, grouped, in_order
from onward.testing.proving.real import Programs, RealRun, sample
from onward.testing.proving.run import Outcome, Plan, Run
from onward.testing.proving.verdict import Rules, differences

__all__ = ["Failure", "Fault", "Http", "Outside", "Point", "Programs", "Proof", "prove"]

UNTIL = timedelta(days=30)

Progress = Callable[[int, int], None]  # runs done, runs in all


def prove(
    flow: Flow[Any],
    process: Process[Any],
    *,
    outside: Outsides = nothing_outside,
    volatile: Iterable[str] = (),
    repeatable: Iterable[str] = (),
    until: Duration = UNTIL,
    only: str = "",
    every_point: bool = False,
    command: str = "",
    programs: Programs | None = None,
    progress: Progress = lambda done, runs: None,
) -> Proof:
    """Runs `process` once undisturbed, which is the oracle, then once for each fault at each point, in virtual time, and holds
    the ends against each other.

    `outside` makes what the flow meets, anew for each run: see `Outside`. `volatile` names fields, and columns of your tables
    (`table.column`), whose value may differ. `repeatable` names acts (of `ctx.once` or `ctx.map`) and requests
    (`POST /v1/responses`) that may be done again, and what they made may be left behind. `only` is the key of one failure, to
    repeat it. Of the points of one place the first, a middle and the last are disturbed, unless `every_point`. `command` begins
    the line that repeats a failure. With `programs` a sample is run once more in real programs that are really killed:
    `onward prove --full` does it.
    """
    rules = Rules(frozenset(volatile), frozenset(repeatable))
    with tempfile.TemporaryDirectory(prefix="onward-prove-") as folder, _quiet():
        plan = Plan(flow, process, outside, timedelta(seconds=in_seconds(until)), Path(folder).resolve())
        prover = _Prover(plan, rules, command, programs)
        try:
            return prover.proof(only, every_point, progress)
        finally:
            prover.memory.begin()


class _Prover:
    def __init__(self, plan: Plan, rules: Rules, command: str, programs: Programs | None) -> None:
        self.plan, self.rules, self.command, self.programs = plan, rules, command, programs
        self.memory = Memory(plan.flow)
        self.runs = 0

    def proof(self, only: str, every_point: bool, progress: Progress) -> Proof:
        self.oracle = self.run()
        _must_rest(self.oracle)
        _must_know(self.rules.volatile, self.plan.flow, self.oracle)
        points = self.oracle.points
        chosen = points if every_point or only else folded(points)
        pairs = _only([(point, fault) for point in chosen for fault in Fault if fault in point.moment.faults], only)
        sampled = self.sampled(only)
        runs = len(pairs) + len(sampled)
        found: dict[tuple[Point, Fault], Failure] = {}
        for number, (point, fault) in enumerate(pairs, 1):
            failure = self.tried(point, fault)
            if failure is not None:
                found[point, fault] = failure
            progress(number, runs)
        real = []
        for number, point in enumerate(sampled, len(pairs) + 1):
            real.append(self.really_killed(point))
            progress(number, runs)
        told = [*found.values(), *(failure for failure in real if failure is not None)]
        failures = [self.shortest(failure, pairs, found) for failure in grouped(told)]
        tried = len({point for point, _ in pairs})
        return Proof(self.plan.flow.name, points, tried, self.runs, in_order(failures))

    def sampled(self, only: str) -> list[Point]:
        """What is run in real programs as well; of one that is repeated, its own point."""
        if self.programs is None:
            return []
        points = self.oracle.points
        return sample([point for point in points if key_of(point, Fault.KILLED) == only] if only else points)

    def really_killed(self, point: Point) -> Failure | None:
        assert self.programs is not None
        self.runs += 1
        run = RealRun(self.plan, self.oracle, self.programs, point)()
        return self.judged(run, point, Fault.KILLED, " --full")

    def run(self, point: int = 0, fault: Fault | None = None) -> Outcome:
        self.runs += 1
        return Run(self.plan, self.memory, point, fault)()

    def tried(self, point: Point, fault: Fault) -> Failure | None:
        return self.judged(self.run(point.number, fault), point, fault)

    def judged(self, run: Outcome, point: Point, fault: Fault, more: str = "") -> Failure | None:
        if not run.struck or str(run.points[-1]) != str(point):
            found = ["undisturbed it does not take the same way twice: it never came to this point again"]
        else:
            found = differences(self.oracle, run, fault, self.rules)
        if not found:
            return None
        key = key_of(point, fault)
        repeat = f"{self.command} --only {shlex.quote(key)}{more}" if self.command else f"prove(..., only={key!r})"
        return Failure(point, fault, tuple(found), tuple(run.lines), repeat)

    def shortest(
        self, failure: Failure, pairs: list[tuple[Point, Fault]], found: Mapping[tuple[Point, Fault], Failure]
    ) -> Failure:
        """Of the points between the last one of this place that did no harm and this one, the first that does: by halves."""
        place = [point for point in self.oracle.points if is_like(point, failure.point) and point.number <= failure.point.number]
        harmless = [
            at for at, point in enumerate(place) if (point, failure.fault) in pairs and (point, failure.fault) not in found
        ]
        low, high = max(harmless, default=-1), len(place) - 1
        while low + 1 < high:
            middle = (low + high) // 2
            shorter = self.tried(place[middle], failure.fault)
            if shorter is not None and cause(shorter) == cause(failure):
                failure, high = replace(shorter, also=failure.also), middle
            else:
                low = middle
        return failure


_NEEDS = "give it what it needs: the data of a process that finishes, and an outside that answers"
_POSTGRES = "ctx.transaction() is in SQLite here; for asyncpg's connection: Outside(postgres=URL), docs/proving.md"


def _must_rest(oracle: Outcome) -> None:
    if oracle.called:
        raise OnwardError(
            f"it wants to reach {oracle.called[0]}, and a proof never goes to the network",
            hint="an outside gives it a client with transport=Http(service): docs/proving.md",
        )
    if oracle.stuck:
        raise OnwardError(
            f"undisturbed it does not come to rest: {oracle.stuck}",
            hint="a clock that a handler reads by itself stands still here; give it an outside that lets it end, or until=",
        )
    assert oracle.record is not None
    if oracle.record.condition not in OVER:
        error = oracle.record.error or ""
        said = f": {error}" if error else ""
        asks_postgres = "sqlite3." in error  # whose connection has no fetch, and nothing to await
        raise OnwardError(
            f"undisturbed it ends {oracle.record.condition} at {oracle.record.status}{said}",
            hint=_POSTGRES if asks_postgres else _NEEDS,
        )


def _must_know(volatile: Collection[str], flow: Flow[Any], oracle: Outcome) -> None:
    columns = {f"{table}.{column}" for table, values in oracle.seen.rows for column in values}
    for name in sorted(volatile):
        if name not in flow.model.model_fields and name not in columns:
            known = ", ".join([*flow.model.model_fields, *sorted(columns)])
            raise InvalidData(f"volatile {name}: {flow.model.__name__} has no such field, and no table such a column", hint=known)


def _only(pairs: list[tuple[Point, Fault]], only: str) -> list[tuple[Point, Fault]]:
    if not only:
        return pairs
    found = [(point, fault) for point, fault in pairs if key_of(point, fault) == only]
    if not found:
        raise OnwardError(
            f"there is no {only!r}: a key is NUMBER:FAULT, with up to {max((p.number for p, _ in pairs), default=0)} points here",
            hint=f"run it without --only: the code may have other points by now; faults: {', '.join(Fault)}",
        )
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """What a disturbed worker logs, and leaves undone, is as it should be, and there are thousands of lines of it."""
    loggers = [logging.getLogger(name) for name in ("onward", "onward.flow", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)  # its program was killed
            yield
            gc.collect()  # what is left of killed programs, before anybody is warned of it
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
