"""`onward doctor`: facts about this installation and its store, to paste into an issue. No secrets, no data."""

from __future__ import annotations

import asyncio
import platform
import re
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onward.app import Onward
from onward.cli.command import command
from onward.cli.failing import NoApp, code_of
from onward.cli.ls import rows
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import app_name, find_app, sqlite_path, with_app
from onward.clock import SystemClock
from onward.errors import OnwardError
from onward.process import Condition
from onward.query import exactly
from onward.store import upkeep_of
from onward.store.urls import IN_MEMORY
from onward.telling.text import one_line

WAL_RESET_FIXED = (3, 51, 3)
LOOKED_AT_MAX = 10_000  # rows, for leases that ran out

Facts = dict[str, Any]


@command("doctor", "onward doctor", "onward doctor --store sqlite:///onward.db", "onward doctor --json")
@pass_settings
def doctor(settings: Settings) -> int:
    """Facts about this installation and its store, to paste into an issue. No secrets, and no data of processes."""
    facts: Facts = {"versions": _versions()}
    notes: list[str] = []
    code = 0
    if sqlite3.sqlite_version_info < WAL_RESET_FIXED:
        fixed = ".".join(map(str, WAL_RESET_FIXED))
        notes.append(
            f"SQLite {sqlite3.sqlite_version} is older than {fixed}, which mended a race that can corrupt a write-ahead log: "
            "Onward's lock file beside the store keeps it away, other programs must not write to that file"
        )
    try:
        name, said_by = app_name(settings)
        facts["app"] = {"name": name, "from": _tidy(said_by)}
        app = find_app(settings)
        facts["app"]["flows"] = {flow.name: len(flow.statuses) for flow in app.flows.values()}
        facts["store"] = _store(app.url)
        if facts["store"].get("exists", True):
            if app.url != IN_MEMORY:  # before it is opened, which is refused where the schema is another one than ours
                standing = asyncio.run(upkeep_of(app.url, SystemClock(), virtual=False).standing())
                facts["store"]["schema"] = standing.found
                notes += standing.notes
            facts["processes"] = with_app(settings, _processes)
            notes += _worries(facts["processes"])
        else:
            notes.append("there is no store yet: the first process makes it")
    except OnwardError as error:
        # Outside of any project there is nothing wrong with having no app; the versions are told all the same.
        named = facts.get("app", {}).get("name")
        code = code_of(error) or 0 if named or not isinstance(error, NoApp) else 0
        notes.append(f"{_tidy(str(error))}" + (f" ({_tidy(error.hint)})" if error.hint else ""))
    output = Output(settings)
    if settings.is_json:
        output.document("doctor/1", {**facts, "notes": notes})
    else:
        for line in _lines(facts):
            output.line(one_line(line))
        for note in notes:
            output.line(f"note: {one_line(note)}")
    return code


def _versions() -> Facts:
    from importlib.metadata import version

    import onward

    return {
        "onward": onward.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        **{name: version(name) for name in ("pydantic", "click", "rich")},
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _store(url: str) -> Facts:
    path = sqlite_path(url)
    if path is None:
        return {"url": _tidy(url)}
    facts: Facts = {"url": _tidy(url), "path": _tidy(str(path.absolute())), "exists": path.exists()}
    if path.exists():
        log = path.with_name(path.name + "-wal")
        with path.open("rb") as file:
            head = file.read(20)
        facts |= {
            "mode": f"{path.stat().st_mode & 0o777:o}",
            "bytes": path.stat().st_size,
            "wal_bytes": log.stat().st_size if log.exists() else 0,
            # Bytes 18 and 19 of the header: https://sqlite.org/fileformat.html#file_format_version_numbers
            "journal": "wal" if head[18:20] == b"\x02\x02" else "rollback",
        }
    return facts


async def _processes(app: Onward) -> Facts:
    conditions: dict[str, int] = {}
    for count in await app.counts():
        conditions[str(count.condition)] = conditions.get(str(count.condition), 0) + count.number
    expired = looked = late = 0
    async for record in rows(app, [exactly("is", Condition.READY)]):
        looked += 1
        expired += record.lease_until is not None and record.lease_until <= record.as_of
        late += record.due_at is not None and (record.as_of - record.due_at).total_seconds() > 60
        if looked == LOOKED_AT_MAX:
            break
    return {"conditions": dict(sorted(conditions.items())), "expired_leases": expired, "due_for_a_minute": late}


def _worries(processes: Facts) -> Iterator[str]:
    if processes["due_for_a_minute"]:
        yield f"{processes['due_for_a_minute']:,} processes have been due for over a minute: is a worker running? onward run"
    if processes["expired_leases"]:
        yield f"{processes['expired_leases']:,} leases ran out: those workers died; the next one that looks takes over"
    if processes["conditions"].get("orphaned"):
        yield "there are orphaned processes, whose flow or status this code does not know: onward check"
    if processes["conditions"].get("failed"):
        yield "there are failed processes: onward ls is:failed --by error"


def _lines(facts: Facts) -> Iterator[str]:
    for title, group in facts.items():
        for name, value in group.items():
            shown = ", ".join(f"{key} {number}" for key, number in value.items()) or "none" if isinstance(value, dict) else value
            yield f"{title}.{name}: {'none' if shown is None or shown == '' else shown}"


def _tidy(text: str) -> str:
    """Without the password of a URL, and without the name of the user's home."""
    text = re.sub(r"//[^/@\s]*@", "//…@", text)
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
