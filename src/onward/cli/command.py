"""How commands are declared, and the arguments that several share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from onward.cli.group import Command
from onward.query import seconds


def command(name: str, *examples: str, kind: type[Command] = Command) -> Callable[[Callable[..., Any]], Command]:
    """A command of that name. `examples` are whole command lines that work as they stand (ids aside)."""

    def declare(function: Callable[..., Any]) -> Command:
        return click.command(name, cls=kind, examples=examples)(function)

    return declare


class Length(click.ParamType):  # type: ignore[type-arg]  # generic in newer Clicks only
    """A duration: `30`, `30s`, `5m`, `2h`, `1d`; the answer is in seconds."""

    name = "duration"

    def __init__(self, least: float = 0) -> None:
        self.least = least

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        length = seconds(str(value).strip())
        if length is None:
            self.fail(f"{value!r} is no duration: write 30, 30s, 5m, 2h or 1d", parameter, context)
        if length < self.least:
            self.fail(f"{value!r} is too short: at least {self.least:g} s", parameter, context)
        return length
