"""`onward wake | retry | pause | resume | cancel | stop | delete`: what takes no more than a verb, for some processes or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.failing import PARTLY, NoApp, code_of, described
from onward.cli.group import Command
from onward.cli.ids import find_one
from onward.cli.many import act_on_all
from onward.cli.output import Output, condition_text
from onward.cli.settings import Settings, can_ask, pass_settings
from onward.cli.target import with_app
from onward.errors import OnwardError
from onward.process import Record
from onward.telling.text import one_line


def _declare(verb: str, text: str, *examples: str, asks: str = "") -> Command:
    """The command `verb`. `asks`: what to be asked before, on a terminal, since it cannot be undone."""

    @command(verb, *examples)
    @click.argument("ids", nargs=-1, metavar="[ID...]")
    @click.option("--query", metavar="QUERY", help="Instead of ids: all that match, as in onward ls.")
    @click.option("--max", "most", type=click.IntRange(1), metavar="N", help="With --query: not if more than N match.")
    @click.option("--if-version", type=click.IntRange(0), metavar="N", help="Only if it is still at this version, else exit 4.")
    @click.option("--dry-run", is_flag=True, help="Only tell what would become of them.")
    @click.option("-y", "--yes", is_flag=True, hidden=not asks, help="Do not ask.")
    @pass_settings
    def act(
        settings: Settings,
        ids: Sequence[str],
        query: str | None,
        most: int | None,
        if_version: int | None,
        dry_run: bool,
        yes: bool,
    ) -> int:
        if bool(ids) == bool(query):
            raise click.UsageError("name ids, or say --query; all that there are: onward ls")
        if query is not None:
            how: dict[str, Any] = {"most": most, "dry_run": dry_run, "yes": yes}
            return with_app(settings, lambda app: act_on_all(app, Output(settings), verb, query, **how))
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
            return await _planned(app, settings, verb, before, version)
        after = await getattr(app, verb)(before.id, version=version, actor=settings.who, reason=settings.reason)
        if after is None:
            return _told(before.id, before.flow, "deleted", before.status, before.version)
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


async def _planned(app: Onward, settings: Settings, verb: str, record: Record, version: int | None) -> dict[str, Any]:
    record, change = await app.plan(record.id, verb, version=version, actor=settings.who)
    if change is None:
        return _told(record.id, record.flow, "deleted", record.status, record.version)
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
        if result["condition"] == "deleted":
            output.line(f"{one_line(result['id'])} {verb} deleted")
            return
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
    "onward wake --query 'is:waiting flow:batch'",
)
retry = _declare(
    "retry",
    "Let failed processes go on from their stage, with all attempts before them again.",
    "onward retry q3-report --reason 'key renewed'",
    "onward retry --query 'is:failed flow:batch'",
)
pause = _declare(
    "pause",
    "Let nothing happen to processes until they are resumed. A running attempt is cut off; its stage runs again after that.",
    "onward pause q3-report",
    "onward pause q3-report --if-version 7",
)
resume = _declare(
    "resume", "Let paused processes go on.", "onward resume q3-report", "onward resume --query 'is:paused flow:batch'"
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
delete = _declare(
    "delete",
    "Delete processes that are over: row, data and history. Who did it and why stays in the audit.",
    "onward delete q3-report --reason 'asked for'",
    "onward delete --query 'is:over id:q3*' --max 500 --yes",
    asks="delete {} with its history, which cannot be taken back",
)
