"""The gate before a deploy: the flows at hand held against every process that is not over, in one walk through the store.

What does not fit is told by kinds, each with a number, a sample and what to write; so it takes no more room for a million rows
than for a few.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from onward.codec import named, typed
from onward.control import Control
from onward.errors import InvalidData
from onward.explain import unknown
from onward.flow import Flow
from onward.process import OVER, Record
from onward.telling.text import one_line

PAGE = 1_000  # rows of one part of the walk
MISFITS_MAX = 100  # kinds of trouble that are told one by one
PROBLEM_CHARS_MAX = 300
NEAR = 0.5  # as `query.nearest` has it

Kind = Literal["flow", "status", "version", "upgrade", "data", "other"]


@dataclass
class Misfit:
    """So many processes that this code could not move, with one of them as a sample, and what to write."""

    flow: str
    status: str
    problem: str
    number: int
    sample: str
    kind: Kind
    data_version: int
    fields: tuple[str, ...] = ()
    advice: str = ""


@dataclass
class Late:
    """So many processes whose deadline has passed: with the first look of a worker they go to `otherwise`."""

    flow: str
    status: str
    stage: str
    otherwise: str
    number: int
    sample: str


@dataclass
class Held:
    """What came of it; `processes` were looked at, which are all that are not over."""

    processes: int = 0
    misfits: list[Misfit] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)


async def hold(app: Control, tell: Callable[[int, int], None]) -> Held:
    """Walks through all there is. `tell` is called with how many it has looked at, and of how many."""
    gate = _Gate(app)
    looked, total = 0, sum(count.number for count in await app.counts())
    after = ""
    while page := await app.store.walk(after, PAGE):
        for record in page:
            gate.look(record)
        after, looked = page[-1].id, looked + len(page)
        tell(looked, max(looked, total))
    return gate.end()


class _Gate:
    def __init__(self, app: Control) -> None:
        self._app = app
        self._misfits: dict[tuple[Any, ...], Misfit] = {}
        self._late: dict[tuple[str, str], Late] = {}
        self._seen: set[tuple[str, str]] = set()  # at which statuses of ours somebody stands
        self._processes = 0

    def look(self, record: Record) -> None:
        if record.condition in OVER:
            return
        self._processes += 1
        flow = self._app.flow_of(record)
        if flow is not None and record.status in flow.stages:
            self._seen.add((record.flow, record.status))
        if flow is None or not flow.knows(record.status, record.data_version):
            self._misfit(record, _kind(record, flow), unknown(record, flow))
            return
        version = record.data_version
        named(flow, record)
        try:
            typed(flow, record)
        except InvalidData as error:
            problem = str(error).removeprefix(f"{flow.name} {record.id}: ")
            self._misfit(record, "upgrade" if problem.startswith("upgrade[") else "data", problem, version, error.fields)
        self._look_at_the_deadline(flow, record)

    def _misfit(self, record: Record, kind: Kind, problem: str, version: int | None = None, fields: Iterable[str] = ()) -> None:
        """Of data the fields are what matters, and not which of a list it is, nor what their validators say of each value."""
        status, version = record.was or record.status, record.data_version if version is None else version
        key = (record.flow, status, kind, version, *(fields or [problem]))
        if key not in self._misfits and len(self._misfits) >= MISFITS_MAX:
            key, kind, status, problem = ("",), "other", "", "and others, of more kinds than are told here"
        misfit = self._misfits.get(key)
        if misfit is None:
            said = one_line(problem, PROBLEM_CHARS_MAX)
            self._misfits[key] = misfit = Misfit(record.flow, status, said, 0, record.id, kind, version, tuple(fields))
        misfit.number += 1

    def _look_at_the_deadline(self, flow: Flow[Any], record: Record) -> None:
        line = flow.stages[record.status]
        if line is None or line.within is None or line.otherwise is None or record.due_at is None:
            return
        if record.as_of - record.entered_at < line.within:
            return
        new = Late(record.flow, record.status, line.name, line.otherwise.value, 0, record.id)
        self._late.setdefault((record.flow, record.status), new).number += 1

    def end(self) -> Held:
        for misfit in self._misfits.values():
            misfit.advice = self._advice(misfit)
        return Held(self._processes, list(self._misfits.values()), list(self._late.values()))

    # -- what to write ----------------------------------------------------------------------------------------

    def _advice(self, misfit: Misfit) -> str:
        flow = self._app.flows.get(misfit.flow) or self._app.own.get(misfit.flow)
        if misfit.kind == "other":
            return "mend what is told here, then look again: onward check"
        if flow is None:
            return _advice_for_a_flow(misfit.flow, self._app.flows)
        match misfit.kind:
            case "status" if misfit.status in flow.renamed:
                return f"nobody moves what stands at an END: onward move {misfit.sample} STATUS --force, or a status of its own"
            case "status":
                return f"if it has another name now: {self._renamed(flow, misfit.status)}; if it is gone: onward move"
            case "version" if misfit.data_version > flow.version:
                return "newer code has been at work: deploy that, or code that is newer still"
            case "version":
                return f"keep the upgrades of then: {_upgrade(flow, misfit.data_version)}"
            case "upgrade":
                return f"mend that upgrade; its data: onward show {misfit.sample} --data"
        if misfit.data_version < flow.version:
            return f"the upgrades from version {misfit.data_version} lead to data that do not fit: mend them"
        version = flow.version + 1
        return f"version={version}, {_upgrade(flow, flow.version)}, {_what_it_does(misfit.fields)}"

    def _renamed(self, flow: Flow[Any], old: str) -> str:
        """The likeliest new name: one at which nobody stands yet, and no END, where nobody waits; of several the nearest."""
        handled = [status for status in flow.statuses if not flow.is_end(status)]
        empty = [status for status in handled if (flow.name, status) not in self._seen]
        near = empty if len(empty) == 1 else difflib.get_close_matches(old, empty, 1, NEAR)
        near = near or difflib.get_close_matches(old, handled, 1, NEAR)
        kind = flow.status_type
        names = {name: kind(new).name for name, new in flow.renamed.items()} | {old: kind(near[0]).name if near else "…"}
        return f"renamed={{{', '.join(f'{name!r}: {kind.__name__}.{member}' for name, member in names.items())}}}"


def _kind(record: Record, flow: Flow[Any] | None) -> Kind:
    if flow is None:
        return "flow"
    return "version" if flow.knows(record.status, flow.version) else "status"


def _advice_for_a_flow(name: str, flows: dict[str, Flow[Any]]) -> str:
    near = difflib.get_close_matches(name, flows, 1, NEAR)
    model = flows[near[0]].model.__name__ if near else "…"
    return (
        f"if its model has another name now: Flow({model}, …, name={name!r}); else keep its flow until its last process is over"
    )


def _upgrade(flow: Flow[Any], version: int) -> str:
    """The argument with a step from that version beside those that are there."""
    steps = {**{number: getattr(step, "__name__", "…") for number, step in flow.upgrade.items()}, version: f"from_{version}"}
    return f"upgrade={{{', '.join(f'{number}: {steps[number]}' for number in sorted(steps))}}}"


def _what_it_does(fields: tuple[str, ...]) -> str:
    what = ", ".join(fields) or "what does not fit"
    return f"where it is a function that takes the data as a dict, mends {what} and returns them; a default does for a new field"
