"""`onward export`: a process with its history as JSON, or as a test that fails where production failed."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.ids import find_one
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import app_name, with_app
from onward.errors import InvalidData, NotFound, Refused
from onward.flow import Flow
from onward.process import Record
from onward.telling import shapes
from onward.telling.as_test import DAYS, Case, can_be_imported, test_file, without_secrets
from onward.telling.origin import Trouble, last_trouble, trouble_after
from onward.telling.story import all_entries
from onward.telling.text import one_line, to_json
from onward.testing.production import stored

DAY_S = 86_400


@command(
    "export",
    "onward export q3-report > q3-report.json",
    "onward export q3-report --as-test > test_q3_report.py",
    "onward export q3-report --as-test --at 4 --to-rest > test_q3_report.py",
)
@click.argument("id")
@click.option("--as-test", is_flag=True, help="A pytest file that fails where this process failed. Needs the app.")
@click.option("--at", "version", type=click.IntRange(0), metavar="N", help="Begin as it was after version N.")
@click.option("--to-rest", is_flag=True, help="Not only the one stage: until the process rests.")
@pass_settings
def export(settings: Settings, id: str, as_test: bool, version: int | None, to_rest: bool) -> None:
    """A process with its whole history, as JSON; or, as a test, what went wrong with it. Secrets are masked.

    The test begins where the attempts began that went wrong. It runs the handlers: have it use stand-ins for what is outside.
    """
    if (version is not None or to_rest) and not as_test:
        raise click.UsageError("--at and --to-rest are for --as-test; one version as JSON: onward at ID N --json")

    async def work(app: Onward) -> str:
        record = await find_one(app, id)
        if as_test:
            return await _as_test(app, settings, record.id, version, to_rest)
        return await _as_document(app, record)

    text = with_app(settings, work, needs_flows="export --as-test" if as_test else "")
    click.echo(text.encode("utf-8"), nl=False)  # whatever the terminal's encoding is: Python reads its files as UTF-8


async def _as_document(app: Onward, record: Record) -> str:
    history = [
        {**shapes.entry(entry), "data": None if entry.data is None else shapes.stored(entry.data)}
        async for entry in all_entries(app, record.id)
    ]
    process = {**shapes.process(record), "data": shapes.stored(record.data)}
    return to_json({"schema": "onward.export/1", "process": process, "history": history}) + "\n"


async def _as_test(app: Onward, settings: Settings, id: str, version: int | None, to_rest: bool) -> str:
    module, attribute = _importable(settings)
    record = await app.get(id)
    trouble = await _trouble(app, record, version)
    flow, status = _stage(app, record, trouble)
    kept = await app.store.data_at(id, trouble.begin.version)
    assert kept is not None  # its entry is there
    data, secrets = _values(record, kept.data, trouble.begin.version)
    whole = to_rest or trouble.is_spinning
    _tell_misfit(settings, flow, id, status, data, kept.version, secrets)
    told = [*_told(record, trouble), *await _steps(app, id, trouble)]
    told += [f"No secret is in this file; a placeholder stands in the place of {', '.join(secrets)}."] if secrets else []
    days = _days(flow, status)
    return test_file(Case(module, attribute, flow.name, id, trouble.begin.to_status, data, kept.version, days, whole, told))


def _importable(settings: Settings) -> tuple[str, str]:
    name, _ = app_name(settings)
    module, _, attribute = (name or "").partition(":")
    attribute = attribute or "app"
    if not can_be_imported(module, attribute):
        raise click.UsageError(
            f"no import statement can name {module}:{attribute}: give that module a name of letters, digits and _"
        )
    return module, attribute


async def _trouble(app: Onward, record: Record, version: int | None) -> Trouble:
    entries = [entry async for entry in all_entries(app, record.id, light=True)]
    if version is None:
        found = last_trouble(record, entries)
        if found is None:
            raise Refused(
                f"nothing went wrong with {one_line(record.flow)} {one_line(record.id)}, as far as its history tells",
                hint="say from where: --at N; which there are: onward history ID",
            )
        return found
    found = trouble_after(entries, version)
    if found is None:
        raise NotFound(
            f"process {one_line(record.id)} has no version {version} in its history; its last one is {record.version}",
            hint=f"onward history {one_line(record.id)}",
        )
    return found


def _stage(app: Onward, record: Record, trouble: Trouble) -> tuple[Flow[Any], str]:
    """The flow, and the status as it is called now. Raises Refused where no handler of this code would run."""
    flow, version = app.flow_of(record), trouble.begin.version
    if flow is None:
        raise NotFound(f"this app has no flow {record.flow!r}", hint="run it with the app that has: --app module:attr")
    status = flow.today(trouble.begin.to_status)
    if flow.stages.get(status) is None:
        what = "was over" if status in flow.stages else f"was at {one_line(status)}, which {flow.name} has not any more"
        raise Refused(
            f"no handler would run for {one_line(record.id)} at version {version}: it {what}", hint="an earlier version: --at N"
        )
    return flow, status


def _values(record: Record, data: str, version: int) -> tuple[dict[str, Any], list[str]]:
    """With placeholders for secrets, and the paths of these."""
    try:
        values, secrets = without_secrets(json.loads(data))
    except (ValueError, RecursionError):
        values, secrets = None, []
    if not isinstance(values, dict):
        raise InvalidData(
            f"the data of {one_line(record.id)} at version {version} are no JSON object, so no test can be made of them",
            hint=f"see them: onward at {one_line(record.id)} {version}",
        )
    return values, secrets


def _days(flow: Flow[Any], status: str) -> int:
    """Of virtual time: enough for the deadline of the stage."""
    line = flow.stages[status]
    within = 0 if line is None or line.within is None else line.within.total_seconds()
    return max(DAYS, math.ceil(within / DAY_S) + 1)


def _told(record: Record, trouble: Trouble) -> list[str]:
    begin, end = trouble.begin, trouble.end
    told = [
        f"It begins as the process was after version {begin.version}, at {begin.to_status}, on {begin.at:%Y-%m-%d %H:%M:%S} UTC."
    ]
    if end is None:
        return [*told, "Nothing more has happened to it there yet."]
    way = f"{end.kind} at {end.from_status or end.to_status}" + (
        "" if end.to_status == end.from_status else f", to {end.to_status}"
    )
    told.append(f"What happened in production, version {end.version}: {way}")
    told += [f"> {line}" for line in (end.reason or "").splitlines() if line.strip()]
    return told


async def _steps(app: Onward, id: str, trouble: Trouble) -> list[str]:
    """What the visit had done already: it is recorded in the store, where a test does not find it."""
    names = sorted(await app.store.steps(id, trouble.begin.transition))
    return [f"In production these steps had been recorded, and in this test they run: {', '.join(names)}"] if names else []


def _tell_misfit(
    settings: Settings, flow: Flow[Any], id: str, status: str, data: dict[str, Any], version: int, secrets: list[str]
) -> None:
    """The model may refuse a placeholder, and then the test would fail for another reason than production."""
    if not secrets:
        return
    try:
        stored(flow, id=id, status=status, data=data, version=version)
    except InvalidData as error:
        Output(settings).note(f"warning: {one_line(str(error))}")
        Output(settings).note("  if that is for a placeholder: type a value that the model takes in its place")
