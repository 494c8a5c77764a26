"""`onward prove`: disturbs a flow at every point of it, and holds each end against that of an undisturbed run."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing, redirect_stdout
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import Length, command
from onward.cli.data import build
from onward.cli.failing import ENDED_BADLY, NoApp
from onward.cli.output import Output
from onward.cli.progress import Progress
from onward.cli.settings import Settings, pass_settings
from onward.cli.start import flow_of
from onward.cli.target import app_name, find_app, import_named
from onward.clock import SystemClock
from onward.codec import encode
from onward.flow import Flow
from onward.process import Process
from onward.testing.proving import UNTIL, Programs
from onward.testing.proving import prove as proven
from onward.testing.proving.outside import Outsides, nothing_outside


@command(
    "prove",
    'onward prove parcel:flow --data \'{"address": "12 Harbour Street"}\' --repeatable courier',
    "onward prove batch --data @input.json --outside onward.demo.outside:standin",
    "onward prove parcel --only 7:killed",
)
@click.argument("target", metavar="FLOW")
@click.option("--data", metavar="JSON|@FILE|-", help="The data of the process: a JSON object, a file, or stdin.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="One field: JSON if it parses, else text.")
@click.option("--id", default="proven", show_default=True, help="Its id.")
@click.option("--outside", metavar="MODULE:ATTR", help="A function that makes what the flow meets, anew for each run.")
@click.option("--volatile", multiple=True, metavar="FIELD", help="A field or table.column that may differ. May be repeated.")
@click.option("--repeatable", multiple=True, metavar="NAME", help="An act or a request that may be done again. May be repeated.")
@click.option("--only", default="", metavar="KEY", help="One disturbance: NUMBER:FAULT, as a failure names it.")
@click.option("--every-point", is_flag=True, help="All points of a place, instead of the first, a middle and the last.")
@click.option("--full", is_flag=True, help="A sample once more with real programs, a SQLite file and SIGKILL.")
@click.option(
    "--until", type=Length(), default=f"{UNTIL.days}d", show_default=True, help="So long a run may last, in its own time."
)
@pass_settings
def prove(
    settings: Settings,
    target: str,
    data: str | None,
    sets: Sequence[str],
    id: str,
    outside: str | None,
    volatile: Sequence[str],
    repeatable: Sequence[str],
    only: str,
    every_point: bool,
    full: bool,
    until: float,
) -> int:
    """Crash FLOW at every point, and compare with an undisturbed run: exit 1 if it ever ends otherwise.

    FLOW is module:attr, or the name of a flow of the app. Nothing is stored, and no time is lost in waiting: it runs in memory
    and in virtual time. The folder that handlers see is an empty one.
    """
    output = Output(settings)
    name, _ = app_name(settings)
    flow = named_flow(settings, target)
    process = build(flow, data, sets, id)
    # What handlers print in each of a thousand runs is for nobody.
    with closing(Progress(output, SystemClock())) as progress, redirect_stdout(io.StringIO()):
        proof = proven(
            flow,
            process,
            outside=named_outside(outside),
            volatile=volatile,
            repeatable=repeatable,
            until=until,
            only=only,
            every_point=every_point,
            command=_command(settings, name, target, data, sets, id, outside, volatile, repeatable),
            programs=_programs(name if settings.app else None, target, outside, flow, process, until) if full else None,
            progress=lambda done, runs: progress.tell(f"{done:,} of {runs:,} runs"),
        )
    if settings.is_json:
        output.document("prove/1", proof.to_json())
    else:
        output.line(str(proof))
    return 0 if proof.is_clean else ENDED_BADLY


def _programs(
    app: str | None, target: str, outside: str | None, flow: Flow[Any], process: Process[Any], until: float
) -> Programs:
    data, _ = encode(flow, process, process.id, process.status)
    given = {"app": app, "target": target, "outside": outside, "until": until, "path": sys.path}
    given |= {"id": process.id, "status": process.status, "data": data}
    return Programs([sys.executable, "-m", "onward.cli.prove_child"], given)


def named_flow(settings: Settings, target: str) -> Flow[Any]:
    """Of `module:attr`, or of the app by its name."""
    if ":" not in target:
        return flow_of(find_app(settings, needs_flows="prove"), target)
    found = import_named(target, "flow")
    if isinstance(found, Onward) and len(found.flows) == 1:
        return next(iter(found.flows.values()))
    if not isinstance(found, Flow):
        raise NoApp(
            f"{target} is a {type(found).__name__}, not a flow", hint="flow = Flow(Model, {...}), or an app that has one flow"
        )
    return found


def named_outside(name: str | None) -> Outsides:
    if name is None:
        return nothing_outside
    found: Outsides = import_named(name, "outside")
    if not callable(found):
        raise NoApp(
            f"{name} is a {type(found).__name__}, not a function", hint="a function with @contextmanager: docs/proving.md"
        )
    return found


def _command(
    settings: Settings,
    app: str | None,
    target: str,
    data: str | None,
    sets: Sequence[str],
    id: str,
    outside: str | None,
    volatile: Sequence[str],
    repeatable: Sequence[str],
) -> str:
    """The line as it was typed, to which `--only` is added."""
    words = ["onward", *(["--app", app] if app and settings.app else []), "prove", target]
    for option, values in (
        ("--data", [data] if data else []),
        ("--set", sets),
        ("--id", [id] if id != "proven" else []),
        ("--outside", [outside] if outside else []),
        ("--volatile", volatile),
        ("--repeatable", repeatable),
    ):
        for value in values:
            words += [option, value]
    return shlex.join(words)
