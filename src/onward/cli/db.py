"""`onward db`: the store as a whole, for whoever looks after it. Workers may go on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from onward.cli.command import Length, command
from onward.cli.failing import ENDED_BADLY
from onward.cli.group import Commands
from onward.cli.output import Output, condition_text
from onward.cli.progress import Progress
from onward.cli.settings import Settings, can_ask, pass_settings
from onward.cli.target import find_app
from onward.clock import SystemClock
from onward.explain import length
from onward.ports import Pruned, Standing, Upkeep
from onward.store import upkeep_of
from onward.store.urls import shown, sqlite_path, upgrade_command
from onward.telling import shapes
from onward.telling.text import one_line

T = TypeVar("T")

AGE_MAX_S = 100 * 365 * 86_400.0  # what is older than this is older than computers


def _with_upkeep(settings: Settings, work: Callable[[Upkeep, Progress], Coroutine[Any, Any, T]]) -> T:
    clock = SystemClock()
    progress = Progress(Output(settings), clock)
    try:
        return asyncio.run(work(upkeep_of(find_app(settings).url, clock, virtual=False), progress))
    finally:
        progress.close()


# -- status -------------------------------------------------------------------------------------------------------


@command("status", "onward db status", "onward db status --store postgresql://localhost/shop --json")
@pass_settings
def status(settings: Settings) -> int:
    """How the store is: its schema, what is in it, how large it is, and what to do next.

    Exit 0: it has the schema that this Onward needs; 1: it needs an upgrade.
    """
    output = Output(settings)

    async def work(upkeep: Upkeep, progress: Progress) -> Standing:
        return await upkeep.standing()

    url = find_app(settings).url
    found = _with_upkeep(settings, work)
    if settings.is_json:
        output.document("db_status/1", {"store": shown(url), **_described(found)})
    else:
        for name, text in _lines(found, url):
            output.line(f"{name:<9}  {text}")
        for note in found.notes:
            output.line(f"note: {one_line(note)}")
    return 0 if found.found >= found.needed else ENDED_BADLY


def _described(found: Standing) -> dict[str, Any]:
    return {
        "schema_found": found.found,
        "schema_needed": found.needed,
        "conditions": {str(name): number for name, number in found.conditions.items()},
        "history": found.history,
        "oldest_history": shapes.instant(found.oldest),
        "bytes": found.bytes,
        "notes": list(found.notes),
    }


def _lines(found: Standing, url: str) -> list[tuple[str, str]]:
    schema = str(found.found) if found.found else "none"
    what = [("store", one_line(shown(url))), ("schema", f"{schema}; this Onward needs {found.needed}")]
    if found.found:
        rows = sorted(found.conditions.items())
        about = "" if sqlite_path(url) else "about "
        history = f"{about}{found.history:,} entries"
        if found.oldest is not None:
            history += f", since {found.oldest:%Y-%m-%d} ({length(SystemClock().now() - found.oldest)})"
        what.append(("processes", ", ".join(f"{number:,} {condition_text(name)}" for name, number in rows) or "none"))
        what.append(("history", history))
    what.append(("size", _size(found.bytes)))
    if found.found < found.needed:
        what.append(("next", upgrade_command(url)))
    elif found.found > found.needed:
        what.append(("next", "upgrade this program: pip install --upgrade onward"))
    return what


def _size(bytes: int) -> str:
    for unit, one in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if bytes >= one:
            return f"{bytes / one:.1f} {unit}"
    return f"{bytes} bytes"


# -- upgrade ------------------------------------------------------------------------------------------------------


@command(
    "upgrade",
    "onward db upgrade",
    "onward db upgrade --sql > upgrade.sql",
    "onward db upgrade --store postgresql://localhost/shop --sql --from 0",
)
@click.option("--sql", is_flag=True, help="Print the SQL of what is pending, for a person to apply. Nothing is changed.")
@click.option("--from", "found", type=click.IntRange(0), metavar="N", help="With --sql: from schema N, without asking the store.")
@pass_settings
def upgrade(settings: Settings, sql: bool, found: int | None) -> None:
    """Make the tables, or bring them up to what this Onward needs. Nothing else ever changes a schema.

    Each migration is one transaction, done whole or not at all. On PostgreSQL none waits longer than 2 s for a lock,
    since all would wait behind it; it tries again instead. The partitions of the coming year are made as well. A
    SQLite file is locked while it lasts, and its workers wait.
    """
    output = Output(settings)
    if found is not None and not sql:
        raise click.UsageError("--from goes with --sql")

    async def work(upkeep: Upkeep, progress: Progress) -> None:
        if sql:
            text = await upkeep.script(found)
            if settings.is_json:
                output.document("db_script/1", {"sql": text})
            else:
                click.echo(text)
            return
        done = await upkeep.upgrade(progress.tell)
        progress.close()
        if settings.is_json:
            output.document("db_upgrade/1", {"done": list(done)})
        else:
            for line in done or ["nothing to do: the schema is what this Onward needs"]:
                output.line(line)

    _with_upkeep(settings, work)


# -- prune --------------------------------------------------------------------------------------------------------


@command("prune", "onward db prune --older-than 90d --dry-run", "onward db prune --older-than 90d --yes")
@click.option("--older-than", type=Length(), required=True, metavar="TIME", help="Over for longer than this: 90d, 12h …")
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_settings
def prune(settings: Settings, older_than: float, dry_run: bool, yes: bool) -> int:
    """Delete processes that have been finished or cancelled for longer, with their history. All others stay.

    It is done in small transactions beside the workers, and may be stopped at any time. On PostgreSQL the history
    is kept in a partition for each month: those that are wholly older are dropped, and with them the old history of
    processes that still go on; the partitions of the coming year are made. A SQLite file does not shrink: its free
    pages are used again.
    """
    output = Output(settings)
    age = timedelta(seconds=min(older_than, AGE_MAX_S))
    question = f"delete what has been over for more than {length(age)}, for good?"
    if not (yes or dry_run) and can_ask() and not click.confirm(question, err=True):
        return 1

    async def work(upkeep: Upkeep, progress: Progress) -> Pruned:
        return await upkeep.prune(age, progress.tell, dry_run=dry_run)

    gone = _with_upkeep(settings, work)
    if settings.is_json:
        output.document(
            "db_prune/1",
            {
                "dry_run": dry_run,
                "processes": gone.processes,
                "history": gone.history,
                "steps": gone.steps,
                "partitions": list(gone.partitions),
            },
        )
        return 0
    what = f"{gone.processes:,} processes, {gone.history:,} history entries, {gone.steps:,} steps"
    if gone.partitions:
        what += f", and the partitions {', '.join(gone.partitions)}"
    output.line(f"{'would be ' if dry_run else ''}deleted: {what}")
    return 0


# -- backup -------------------------------------------------------------------------------------------------------


@command("backup", "onward db backup before-the-upgrade.db", "onward db backup --store postgresql://localhost/shop shop.dump")
@click.argument("file", type=click.Path(path_type=Path))
@pass_settings
def backup(settings: Settings, file: Path) -> None:
    """Copy the store to FILE, as it is at one instant, while workers go on. FILE is new, and only its owner reads it.

    To restore it, stop all workers first. SQLite: put FILE in the place of the store, and delete the -wal and -shm
    files beside it. PostgreSQL (FILE is made by pg_dump, of the tables onward_*): pg_restore --clean --if-exists
    --dbname=URL FILE. What was done since is then done again: handlers ask by ctx.key whether it was.
    """
    output = Output(settings)

    async def work(upkeep: Upkeep, progress: Progress) -> None:
        await upkeep.backup(file, progress.tell)

    _with_upkeep(settings, work)
    size = file.stat().st_size
    if settings.is_json:
        output.document("db_backup/1", {"file": str(file), "bytes": size})
    else:
        output.line(f"{file}: {_size(size)}")


db = Commands(
    "db",
    {each.name or "": each for each in (status, upgrade, prune, backup)},
    help="Look after the store: its schema, its size, its backup.",
    examples=(
        "onward db status",
        "onward db upgrade",
        "onward db prune --older-than 90d --dry-run",
        "onward db backup onward.bak",
    ),
)
