"""`onward wake | retry | pause | resume | cancel | stop`: what a person may do to processes, one or several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from onward import decide
from onward.app import Onward
from onward.cli.command import command
from onward.cli.failing import PARTLY, NoApp, code_of, described
from onward.cli.group import Command
from onward.cli.ids import find_one
from onward.cli.output import Output, condition_text
from onward.cli.settings import Settings, can_ask, pass_settings
from onward.cli.target import with_app
from onward.errors import Conflict, OnwardError
from onward.process import Record
from onward.telling.text import one_line


def _declare(verb: str, text: str, *examples: str, asks: str = "") -> Command:
    """The command `verb`. `asks`: what to be asked before, on a terminal, since it cannot be undone."""

    @command(verb, *examples)
    @click.argument("ids", nargs=-1, required=True, metavar="ID...")
    @click.option("--if-version", type=click.IntRange(0), metavar="N", help="Only if it is still at this version, else exit 4.")
    @click.option("--dry-run", is_flag=True, help="Only tell what would become of them.")
    @click.option("-y", "--yes", is_flag=True, hidden=not asks, help="Do not ask.")
    @pass_settings
    def act(settings: Settings, ids: Sequence[str], if_version: int | None, dry_run: bool, yes: bool) -> int:
        if if_version is not None and len(ids) > 1:
            raise click.UsageError("--if-version is for one process")
        if asks and not (yes or dry_run) and can_ask() and not click.confirm(f"{asks.format(_number(ids))}?", err=True):
            return 1
        return _act(settings, verb, ids, if_version, dry_run)

    act.help = text
    return act


def _number(ids: Sequence[str]) -> str:
    return one_line(ids[0]) if len(ids) == 1 else f"{len(ids)} processes"


def _act(settings: Settings, verb: str, ids: Sequence[str], version: int | None, dry_run: bool) -> int:
    output = Output(settings)
    if dry_run:
        output.note("dry run: nothing is changed")

    async def one(app: Onward, text: str) -> dict[str, Any]:
        before = await find_one(app, text)
        if verb == "cancel":
            _must_know(app, before)
        if dry_run:
            return _planned(app, verb, before, version)
        after = await getattr(app, verb)(before.id, version=version, actor=settings.actor, reason=settings.reason)
        return _told(after.id, after.flow, str(after.condition), after.status, after.version)

    async def work(app: Onward) -> int:
        results, codes = [], []
        for text in dict.fromkeys(ids):
            try:
                results.append(await one(app, text))
                codes.append(0)
            except OnwardError as error:
                if len(ids) == 1:
                    raise
                results.append({"id": text, "ok": False, "error": described(error)})
                codes.append(code_of(error) or 1)
        _print(output, results, dry_run)
        return _code(codes)

    return with_app(settings, work)


def _must_know(app: Onward, record: Record) -> None:
    if record.flow not in app.flows:
        raise NoApp(
            f"cancel needs the flow {record.flow!r}, which says how it cleans up, and no app here has it",
            hint=f"name the app: --app module:attr; to end it without cleaning up: onward stop {one_line(record.id)}",
        )


def _planned(app: Onward, verb: str, record: Record, version: int | None) -> dict[str, Any]:
    if version is not None and version != record.version:
        raise Conflict(
            f"process {record.id} is at version {record.version} now, not {version}", hint=f"look again: onward show {record.id}"
        )
    change = decide.cancel(app.flows[record.flow], record) if verb == "cancel" else getattr(decide, verb)(record)
    return _told(record.id, record.flow, str(change.condition), change.status, record.version)


def _told(id: str, flow: str, condition: str, status: str, version: int) -> dict[str, Any]:
    return {"id": id, "ok": True, "flow": flow, "condition": condition, "status": status, "version": version}


def _print(output: Output, results: Sequence[dict[str, Any]], dry_run: bool) -> None:
    match output.settings.shape:
        case "json":
            output.document("results/1", {"dry_run": dry_run, "results": list(results)})
        case "jsonl":
            output.stream("result/1", results)
        case _:
            for result in results:
                _print_one(output, result, dry_run)


def _print_one(output: Output, result: dict[str, Any], dry_run: bool) -> None:
    from onward.process import Condition

    if not result["ok"]:
        output.line(f"error: {one_line(result['error']['message'])}", to_stderr=True)
        output.line(f"  {one_line(result['error']['hint'])}", to_stderr=True)
    elif output.settings.shape == "ids":
        output.line(one_line(result["id"]))
    else:
        verb = "would be" if dry_run else "is"
        state = condition_text(Condition(result["condition"]))
        output.line(f"{one_line(result['id'])} {verb} {state} at {one_line(result['status'])}, version {result['version']}")


def _code(codes: Sequence[int]) -> int:
    """0 all done, 8 some; where none was done, what stopped the first."""
    if 0 in codes:
        return 0 if set(codes) == {0} else PARTLY
    return codes[0]


wake = _declare(
    "wake",
    "Make waiting or retrying processes due now, instead of at the end of their wait.",
    "onward wake q3-report",
    "onward ls is:waiting -o ids | xargs onward wake",
)
retry = _declare(
    "retry",
    "Let failed processes go on from their stage, with all attempts before them again.",
    "onward retry q3-report --reason 'key renewed'",
    "onward ls is:failed -o ids | xargs onward retry",
)
pause = _declare(
    "pause",
    "Let nothing happen to processes until they are resumed. A running attempt is cut off; its stage runs again after that.",
    "onward pause q3-report",
    "onward pause q3-report --if-version 7",
)
resume = _declare(
    "resume", "Let paused processes go on.", "onward resume q3-report", "onward ls is:paused -o ids | xargs onward resume"
)
cancel = _declare(
    "cancel",
    "Cancel processes: each goes on at its flow's on_cancel, cleans up, and ends cancelled. Needs the app.",
    "onward cancel q3-report --reason 'wrong documents'",
    "onward cancel q3-report --dry-run",
    asks="cancel {}, which cannot be taken back",
)
stop = _declare(
    "stop",
    "End processes here and now: no handler runs again, and nothing outside is cleaned up.",
    "onward stop q3-report --yes",
    "onward stop q3-report --dry-run",
    asks="stop {} without cleaning up, which cannot be taken back",
)
