"""How far long work has got, on stderr."""

from __future__ import annotations

import sys

import click

from onward.cli.output import Output
from onward.cli.settings import is_terminal
from onward.ports import Clock

TOLD_EVERY_S = 5.0  # into a file or a pipe; on a terminal, where one line is written again and again, much more often
TOLD_OFTEN_S = 0.1


class Progress:
    """One line that is written over on a terminal, a line now and then elsewhere."""

    def __init__(self, output: Output, clock: Clock) -> None:
        self._output, self._clock = output, clock
        self._live = is_terminal(sys.stderr) and not output.settings.quiet
        self._told_at = clock.monotonic() - TOLD_EVERY_S + TOLD_OFTEN_S  # what is over at once is not worth a line
        self._wide = 0

    def tell(self, text: str) -> None:
        now = self._clock.monotonic()
        if now - self._told_at < (TOLD_OFTEN_S if self._live else TOLD_EVERY_S):
            return
        self._told_at = now
        if self._live:
            click.echo(f"\r{text:<{self._wide}}", err=True, nl=False)
            self._wide = len(text)
        else:
            self._output.note(text)

    def close(self) -> None:
        if self._wide:
            click.echo(f"\r{'':<{self._wide}}\r", err=True, nl=False)
            self._wide = 0
