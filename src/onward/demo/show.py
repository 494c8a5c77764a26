"""How the demo is seen: a live table in a terminal, one plain line for each thing that happens everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from onward import Condition, Entry, Record
from onward.codec import printable
from onward.demo.flow import Status

_STYLES = {
    Condition.RUNNING: "bold blue",
    Condition.READY: "blue",
    Condition.WAITING: "yellow",
    Condition.RETRYING: "dark_orange",
    Condition.FAILED: "bold red",
    Condition.CANCELLED: "dim",
    Condition.FINISHED: "green",
}


class Show(Protocol):
    """Where the demo says what happens."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def say(self, text: str) -> None:
        """Something that stays on the screen."""

    def happened(self, entry: Entry) -> None:
        """One line of a process's history, just committed."""

    def stand(self, records: Sequence[Record]) -> None:
        """Where all processes are now."""


def open_show() -> Show:
    return LiveShow() if sys.stdout.isatty() else PlainShow()


class PlainShow:
    """Lines that a log can keep."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, flush=True)

    def happened(self, entry: Entry) -> None:
        self.say(f"{time.monotonic() - self._began:6.1f} s  {entry.process_id}  {line_of(entry)}")

    def stand(self, records: Sequence[Record]) -> None:
        pass


class LiveShow:
    """A row for each process and a column for each stage; what is said stands above."""

    def __init__(self) -> None:
        self._live = Live(console=Console(), refresh_per_second=8, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        self._live.console.print(Text(text))

    def happened(self, entry: Entry) -> None:
        if entry.kind in ("retry", "failed", "gave up", "deadline"):
            self.say(f"{entry.process_id}  {line_of(entry)}")

    def stand(self, records: Sequence[Record]) -> None:
        table = Table(box=None, padding=(0, 1))
        table.add_column("process", style="bold")
        for number, _ in enumerate(Status, 1):
            table.add_column(str(number), justify="center")
        table.add_column("status")
        table.add_column("condition")
        for record in records:
            here = list(Status).index(Status(record.status))
            style = _STYLES.get(record.condition, "")
            over = record.condition is Condition.FINISHED
            cells = [
                Text("✓", style="green") if place < here or over else Text("●" if place == here else "·", style=style)
                for place, _ in enumerate(Status)
            ]
            table.add_row(record.id, *cells, record.status, Text(record.condition, style=style))
        self._live.update(table)


def line_of(entry: Entry) -> str:
    """A history entry in words."""
    took = f"  ({entry.took:.1f} s)" if entry.took is not None and entry.took >= 0.05 else ""
    reason = f": {printable(entry.reason, 160)}" if entry.reason else ""
    if entry.from_status is not None and entry.from_status != entry.to_status:
        how = "" if entry.kind == "moved" else f"  [{entry.kind}]"
        return f"{entry.from_status} → {entry.to_status}{how}{reason}{took}"
    return f"{entry.to_status}  {entry.kind}{reason}{took}"
