"""`onward check`: the gate before a deploy. Importing the app proves its flows; then what is stored is held against them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.failing import ENDED_BADLY
from onward.cli.output import Output
from onward.cli.progress import Progress
from onward.cli.settings import Settings, is_terminal, pass_settings
from onward.cli.target import app_name, find_app, sqlite_path, with_app
from onward.flow import Flow
from onward.store.urls import shown
from onward.telling.gate import Held, Late, Misfit, hold
from onward.telling.text import one_line

BAR = 24  # characters of the bar on a terminal


@command(
    "check",
    "onward check",
    "onward check --store sqlite:////var/lib/app/onward.db",
    "onward check --strict --json",
)
@click.option("--strict", is_flag=True, help="Warnings and deadlines that have passed are errors, too.")
@pass_settings
def check(settings: Settings, strict: bool) -> int:
    """Prove the flows, and hold them against what is stored: exit 1 if a live process does not fit this code."""
    app = find_app(settings, needs_flows="check")
    warnings = [warning for flow in app.flows.values() for warning in warnings_of(flow)]
    path = sqlite_path(app.url)
    held = _held(settings) if path is None or path.exists() else None
    found = held or Held()
    ok = not found.misfits and not (strict and (warnings or found.late))
    output, name = Output(settings), app_name(settings)[0]
    if settings.is_json:
        output.document("check/1", _document(name, app, warnings, held, ok))
    else:
        _print(output, f"{name}", app, warnings, held)
        if ok:
            output.line("ok")
    return 0 if ok else ENDED_BADLY


def _held(settings: Settings) -> Held:
    """What is stored, with a bar on a terminal while it is looked at; a line now and then elsewhere."""

    async def work(app: Onward) -> Held:
        progress = Progress(Output(settings), app.clock)
        try:
            return await hold(app, lambda looked, total: progress.tell(_so_far(looked, total)))
        finally:
            progress.close()

    return with_app(settings, work, needs_flows="check")


def _so_far(looked: int, total: int) -> str:
    text = f"{looked:,} of {total:,} processes"
    if not is_terminal(sys.stderr):
        return f"{text} looked at"
    done = BAR * looked // total
    return f"{'█' * done}{'░' * (BAR - done)}  {100 * looked // total} %  {text}"


def _document(name: str | None, app: Onward, warnings: list[str], held: Held | None, ok: bool) -> dict[str, Any]:
    found = held or Held()
    return {
        "app": name,
        "flows": [{"name": flow.name, "statuses": list(flow.statuses), "version": flow.version} for flow in app.flows.values()],
        "warnings": warnings,
        "store": None if held is None else shown(app.url),
        "processes": found.processes,
        "misfits": [vars(misfit) for misfit in found.misfits],
        "late": [vars(late) for late in found.late],
        "ok": ok,
    }


def _print(output: Output, name: str, app: Onward, warnings: list[str], held: Held | None) -> None:
    statuses = sum(len(flow.statuses) for flow in app.flows.values())
    output.line(f"{name}: {_several(len(app.flows), 'flow')}, {_several(statuses, 'status', 'statuses')}, proven")
    for flow in app.flows.values():
        version = f" (data version {flow.version})" if flow.version > 1 else ""
        output.line(f"  {flow.name}{version}: {', '.join(map(one_line, flow.statuses))}")
    for warning in warnings:
        output.line(f"warning: {warning}")
    if held is None:
        output.note(f"there is no store at {shown(app.url)} yet: only the flows were checked")
        return
    output.line(f"{shown(app.url)}: {_several(held.processes, 'process', 'processes')} not over")
    for late in held.late:
        output.line(f"warning: {_late(late)}")
    for misfit in held.misfits:
        output.line(f"error: {_misfit(misfit)}")
        output.line(f"  {one_line(misfit.advice)}")
    if held.misfits:
        output.note("they are left alone until code comes that fits; to see one: onward show ID")


def _misfit(misfit: Misfit) -> str:
    where = " at ".join(map(one_line, filter(None, (misfit.flow, misfit.status))))
    version = f", data version {misfit.data_version}" if misfit.data_version > 1 and misfit.kind in ("data", "upgrade") else ""
    number = _several(misfit.number, "process", "processes")
    return f"{number} of {where}{version}: {misfit.problem}; one is {one_line(misfit.sample)}"


def _late(late: Late) -> str:
    number = _several(late.number, "process", "processes")
    where = f"{one_line(late.flow)} at {one_line(late.status)}"
    return (
        f"{number} of {where}: the deadline of {late.stage} has passed; with the first look of a worker of this code it goes to "
        f"{one_line(late.otherwise)}; one is {one_line(late.sample)}"
    )


def _several(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


# -- what is proven but unwise ----------------------------------------------------------------------------------


def warnings_of(flow: Flow[Any]) -> Iterator[str]:
    """Flows that work, and may still surprise: polls without an end, and circles that nothing slows down."""
    for name, statuses in _polls_without_end(flow).items():
        yield f"{flow.name}: {name} at {', '.join(map(one_line, statuses))} may poll for ever: give it within= and otherwise="
    for circle in _circles(flow):
        way = " → ".join(map(one_line, [*circle, circle[0]]))
        yield f"{flow.name}: the circle {way} never waits: unless its handlers leave it, it is parked as spinning"


def _polls_without_end(flow: Flow[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for status, line in flow.stages.items():
        if line is not None and line.every is not None and line.within is None:
            found.setdefault(line.name, []).append(status)
    return found


def _circles(flow: Flow[Any]) -> Iterator[list[str]]:
    """One circle of returned edges for each status that can come back to itself without a poll on the way."""
    hasty = {status for status, line in flow.stages.items() if line is not None and line.every is None}
    follow = {
        status: [edge.target for edge in flow.edges() if edge.source == status and not edge.why and edge.target in hasty]
        for status in hasty
    }
    told: set[str] = set()
    for start in flow.statuses:
        circle = _way_back(start, follow) if start in hasty - told else None
        if circle is not None:
            told |= set(circle)
            yield circle


def _way_back(start: str, follow: dict[str, list[str]]) -> list[str] | None:
    """The shortest way from `start` to itself, breadth first."""
    ways: list[list[str]] = [[start]]
    seen: set[str] = set()
    for way in ways:  # it grows while it is read
        for target in follow[way[-1]]:
            if target == start:
                return way
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    return None
