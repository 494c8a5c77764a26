"""`onward check`: the gate before a deploy. Importing the app proves its flows; then what is stored is held against them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onward.app import Onward
from onward.cli.command import command
from onward.cli.failing import ENDED_BADLY
from onward.cli.ls import rows
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import app_name, find_app, sqlite_path, with_app
from onward.codec import decode
from onward.errors import InvalidData
from onward.flow import Flow
from onward.process import OVER, Condition
from onward.query import exactly
from onward.store.urls import shown
from onward.telling.text import one_line

# Rows whose flow and status are known, and that are not over: their data has to fit.
LIVE = set(Condition) - OVER - {Condition.ORPHANED}


@dataclass
class Misfit:
    """So many rows that this code cannot move, with one of them as a sample."""

    flow: str
    status: str
    problem: str
    number: int
    sample: str


@command("check", "onward check", "onward check --store sqlite:////var/lib/app/onward.db", "onward check --json")
@pass_settings
def check(settings: Settings) -> int:
    """Prove the flows, and hold them against what is stored: exit 1 if a live process does not fit this code."""
    app = find_app(settings, needs_flows="check")
    warnings = [warning for flow in app.flows.values() for warning in warnings_of(flow)]
    path = sqlite_path(app.url)
    stored = path is None or path.exists()
    misfits = with_app(settings, find_misfits, needs_flows="check") if stored else []
    output, name = Output(settings), app_name(settings)[0]
    if settings.is_json:
        output.document(
            "check/1",
            {
                "app": name,
                "flows": [{"name": flow.name, "statuses": list(flow.statuses)} for flow in app.flows.values()],
                "warnings": warnings,
                "store": shown(app.url) if stored else None,
                "misfits": [vars(misfit) for misfit in misfits],
                "ok": not misfits,
            },
        )
    else:
        _print(output, f"{name}", app, warnings, misfits, stored)
    return ENDED_BADLY if misfits else 0


def _print(output: Output, name: str, app: Onward, warnings: list[str], misfits: list[Misfit], stored: bool) -> None:
    statuses = sum(len(flow.statuses) for flow in app.flows.values())
    output.line(f"{name}: {_several(len(app.flows), 'flow')}, {_several(statuses, 'status', 'statuses')}, proven")
    for flow in app.flows.values():
        output.line(f"  {flow.name}: {', '.join(map(one_line, flow.statuses))}")
    for warning in warnings:
        output.line(f"warning: {warning}")
    if not stored:
        output.note(f"there is no store at {shown(app.url)} yet: only the flows were checked")
    for misfit in misfits:
        where = f"{one_line(misfit.flow)} at {one_line(misfit.status)}"
        number = _several(misfit.number, "process", "processes")
        output.line(f"error: {number} of {where}: {misfit.problem}; one is {one_line(misfit.sample)}")
    if misfits:
        output.note("they are left alone until code comes that fits; to see one: onward show ID")
    else:
        output.line("ok")


def _several(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


# -- what is stored ---------------------------------------------------------------------------------------------


async def find_misfits(app: Onward) -> list[Misfit]:
    misfits: dict[tuple[str, str, str], Misfit] = {}
    for count in await app.counts():
        if count.condition is Condition.ORPHANED:
            [sample] = await app.find(flow=count.flow, status=count.status, condition=Condition.ORPHANED, limit=1)
            problem = "this code has no such flow" if count.flow not in app.flows else "the flow has no such status"
            misfits[count.flow, count.status, problem] = Misfit(count.flow, count.status, problem, count.number, sample.id)
    async for record in rows(app, [exactly("is", *LIVE)], light=False):
        if record.process is not None:
            continue
        try:
            decode(app.flows[record.flow], record.id, record.status, record.data)
        except InvalidData as error:
            problem = one_line(str(error).partition(f"{record.id}: ")[2], 300)
            misfit = misfits.setdefault(
                (record.flow, record.status, problem), Misfit(record.flow, record.status, problem, 0, record.id)
            )
            misfit.number += 1
    return list(misfits.values())


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
