"""Follows one process until it rests: for `onward watch`, `start --wait` and `start --watch`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import click

from onward.cli.failing import ENDED_BADLY, TookTooLong
from onward.cli.output import LOOKS, Output, condition_text
from onward.control import Control
from onward.explain import LATE, explain
from onward.process import Condition, Entry, Record
from onward.telling.story import POLL, all_entries, took, way
from onward.telling.text import one_line

LOOK_S = 1.0  # at least this often, for what changes by time alone

Tell = Callable[[Record, Sequence[Entry]], None]


async def follow(control: Control, id: str, tell: Tell, timeout: float | None, *, after: int = -1) -> Record:
    """Tells each commit after version `after`, and the record at every look. Raises TookTooLong."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                changed = asyncio.ensure_future(control.store.wait_for_change(LOOK_S))
                try:
                    await asyncio.sleep(0)  # it has begun: what changes while we look is not missed
                    record = await control.get(id)
                    entries = [entry async for entry in all_entries(control, id, after)]
                    after = entries[-1].version if entries else after
                    tell(record, entries)
                    if record.due_at is None:
                        return record
                    await changed
                finally:
                    changed.cancel()
                    await asyncio.gather(changed, return_exceptions=True)
    except TimeoutError:
        hint = f"it goes on by itself; follow it again: onward watch {one_line(id)}"
        raise TookTooLong(f"{one_line(id)} was not at rest within {timeout:g} s", hint=hint) from None


def exit_code(record: Record) -> int:
    """0 only where it finished: failed, cancelled and paused need somebody's attention."""
    return 0 if record.condition is Condition.FINISHED else ENDED_BADLY


def entry_line(entry: Entry) -> str:
    parts = [entry.at.strftime("%H:%M:%S"), _icon(entry), f"{entry.kind:<8}", way(entry), took(entry.took)]
    reason = one_line(entry.reason or "", 200)
    return "  ".join(part for part in [*parts, reason] if part)


def _icon(entry: Entry) -> str:
    colours = {"failed": Condition.FAILED, "retry": Condition.RETRYING, POLL: Condition.WAITING, "paused": Condition.PAUSED}
    icon, colour = LOOKS[colours.get(entry.kind, Condition.FINISHED)]
    return click.style(icon, fg=colour)


def end_line(record: Record) -> str:
    told = f"{one_line(record.id)} is {condition_text(record.condition)} at {one_line(record.status)}"
    return f"{told}: {one_line(record.error, 400)}" if record.error and record.condition is Condition.FAILED else told


class NobodyWorks:
    """Says once that a process is due and nothing takes it: the commonest surprise of the first day."""

    def __init__(self, output: Output) -> None:
        self._output, self._told = output, False

    def look(self, record: Record) -> None:
        due = record.condition is Condition.READY and record.due_at is not None
        if not self._told and due and record.as_of - (record.due_at or record.as_of) > LATE:
            self._told = True
            self._output.note(one_line(explain(record, None)))
