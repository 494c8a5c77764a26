"""Printing: text for people, JSON for programs. Whatever came from a store is cleaned before a terminal sees it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from onward.cli.settings import Settings, is_terminal
from onward.process import Condition
from onward.telling.text import to_json

# The icons and colours of the control panel. Never colour alone: the word stands beside it.
LOOKS = {
    Condition.READY: ("▷", "bright_blue"),
    Condition.RUNNING: ("▶", "blue"),
    Condition.WAITING: ("⧗", "yellow"),
    Condition.RETRYING: ("↻", "bright_yellow"),
    Condition.FAILED: ("✕", "red"),
    Condition.PAUSED: ("‖", "bright_black"),
    Condition.ORPHANED: ("?", "magenta"),
    Condition.CANCELLED: ("⊘", "bright_black"),
    Condition.FINISHED: ("✓", "green"),
}
COLUMN_GAP = "  "
_ANSI = re.compile("\x1b\\[[0-9;]*m")


class Output:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.coloured = settings.colours(sys.stdout)
        self.coloured_notes = settings.colours(sys.stderr)

    def line(self, text: str = "", *, to_stderr: bool = False) -> None:
        """One line of text as it is; styles are dropped where colour is not wanted."""
        coloured = self.coloured_notes if to_stderr else self.coloured
        click.echo(text if coloured else _ANSI.sub("", text), err=to_stderr, color=coloured)

    def note(self, text: str) -> None:
        """For the person, not for the pipe."""
        if not self.settings.quiet:
            self.line(text, to_stderr=True)

    def document(self, schema: str, content: dict[str, Any]) -> None:
        """The one JSON document of a command; in a stream, one line of it."""
        indent = 2 if self.settings.shape == "json" else None
        click.echo(to_json({"schema": f"onward.{schema}", **content}, indent))

    def stream(self, schema: str, rows: Iterable[dict[str, Any]]) -> None:
        for row in rows:
            click.echo(to_json({"schema": f"onward.{schema}", **row}, None))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], *, last_may_be_cut: bool = True) -> None:
        """Columns as wide as they need; on a terminal the last but one or last is cut at the edge, in a pipe nothing is."""
        room = shutil.get_terminal_size().columns if last_may_be_cut and is_terminal(sys.stdout) else None
        for number, text in enumerate(aligned([head, *rows])):
            self.line(click.style(text, bold=True) if number == 0 else _cut(text, room))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, its columns as wide as they need."""
    wide = [max(map(seen_length, column)) for column in zip(*rows, strict=True)]
    return [
        COLUMN_GAP.join(text + " " * (w - seen_length(text)) for text, w in zip(row, wide, strict=True)).rstrip() for row in rows
    ]


def condition_text(condition: Condition) -> str:
    icon, colour = LOOKS[condition]
    return click.style(f"{icon} {condition}", fg=colour)


def seen_length(text: str) -> int:
    return len(_ANSI.sub("", text))


def _cut(text: str, room: int | None) -> str:
    """Cut to `room` characters that are seen. Styles after the cut are dropped, so the last one is ended."""
    if room is None or seen_length(text) <= room:
        return text
    shown, left = "", room - 1
    for part in re.split(f"({_ANSI.pattern})", text):
        if _ANSI.fullmatch(part):
            shown += part
        else:
            shown += part[: max(left, 0)]
            left -= len(part)
    return shown + "…"
