"""`onward diff`: what changed in a process's data between two versions, path by path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.history import all_entries
from onward.cli.ids import find_one
from onward.cli.output import Output, one_line, to_json
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.errors import NotFound
from onward.process import Entry

VALUE_CHARS_MAX = 200  # a longer value is told by its size and a hash
_MISSING = object()


@dataclass(frozen=True)
class Change:
    """One path that was added, removed or changed."""

    path: str
    before: Any = _MISSING
    after: Any = _MISSING

    @property
    def kind(self) -> str:
        return "added" if self.before is _MISSING else "removed" if self.after is _MISSING else "changed"


@command("diff", "onward diff q3-report", "onward diff q3-report 2..5", "onward diff q3-report 4")
@click.argument("id")
@click.argument("versions", required=False, metavar="[A..B]")
@pass_settings
def diff(settings: Settings, id: str, versions: str | None) -> None:
    """What changed in the data of a process: from version A to B; A alone is what commit A did; nothing: the last change."""
    asked = _parse(versions)
    output = Output(settings)

    async def work(app: Onward) -> None:
        record = await find_one(app, id)
        entries = [entry async for entry in all_entries(app, record.id)]
        first, last = _between(asked, entries)
        before = {} if first < 0 else await app.data_at(record.id, first)
        after = await app.data_at(record.id, last)
        found = list(changes(before, after))
        if settings.is_json:
            output.document("diff/1", {"id": record.id, "from": first, "to": last, "changes": [_described(c) for c in found]})
            return
        output.note(_head(entries, first, last))
        for change in found:
            for line in _lines(change):
                output.line(line)
        if not found:
            output.note("the data did not change")

    with_app(settings, work)


def _parse(versions: str | None) -> tuple[int | None, int | None] | None:
    if versions is None:
        return None
    match = re.fullmatch(r"(\d+)(\.\.(\d*))?", versions)
    if match is None:
        raise click.UsageError(f"{versions!r} names no versions: write 2..5, 2.. or 5")
    if match[2] is None:
        return int(match[1]) - 1, int(match[1])
    return int(match[1]), int(match[3]) if match[3] else None


def _between(asked: tuple[int | None, int | None] | None, entries: list[Entry]) -> tuple[int, int]:
    """The two versions; -1 is the nothing before the start. Raises NotFound."""
    newest = entries[-1].version
    if asked is None:
        last = next(entry.version for entry in reversed(entries) if entry.data is not None or entry.version == 0)
        return last - 1, last
    first, last = asked[0] or 0, newest if asked[1] is None else asked[1]
    first = -1 if asked[0] == -1 else first
    if max(first, last) > newest:
        raise NotFound(f"there is no version {max(first, last)}; the last one is {newest}", hint="all of them: onward history ID")
    return first, last


def changes(before: Any, after: Any, path: str = "$") -> Iterator[Change]:
    """The paths at which two JSON values differ, in a settled order. Lists are compared place by place."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from changes(before.get(key, _MISSING), after.get(key, _MISSING), path + _step(key))
    elif isinstance(before, list) and isinstance(after, list):
        for number in range(max(len(before), len(after))):
            old = before[number] if number < len(before) else _MISSING
            new = after[number] if number < len(after) else _MISSING
            yield from changes(old, new, f"{path}[{number}]")
    elif type(before) is not type(after) or before != after:
        yield Change(path, before, after)


def _step(key: str) -> str:
    return f".{key}" if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else f"[{to_json(key, None)}]"


def _described(change: Change) -> dict[str, Any]:
    values = {"before": change.before, "after": change.after}
    return {"op": change.kind, "path": change.path, **{key: value for key, value in values.items() if value is not _MISSING}}


def _lines(change: Change) -> Iterator[str]:
    if change.before is not _MISSING:
        yield click.style(f"- {one_line(change.path)}: {_value(change.before)}", fg="red")
    if change.after is not _MISSING:
        yield click.style(f"+ {one_line(change.path)}: {_value(change.after)}", fg="green")


def _value(value: Any) -> str:
    text = to_json(value, None)
    if len(text) <= VALUE_CHARS_MAX:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
    return f"{text[:60]}… ({len(text):,} characters, sha256 {digest})"


def _head(entries: list[Entry], first: int, last: int) -> str:
    statuses = {entry.version: one_line(entry.to_status) for entry in entries}
    begin = f"version {first} ({statuses[first]})" if first in statuses else "nothing"
    return f"{begin} → version {last} ({statuses[last]})"
