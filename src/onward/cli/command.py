"""How commands are declared, and the arguments that several share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import click

from onward.cli.group import Command

SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def command(name: str, *examples: str) -> Callable[[Callable[..., Any]], Command]:
    """A command of that name. `examples` are whole command lines that work as they stand (ids aside)."""

    def declare(function: Callable[..., Any]) -> Command:
        return click.command(name, cls=Command, examples=examples)(function)

    return declare


class Length(click.ParamType):  # type: ignore[type-arg]  # generic in newer Clicks only
    """A duration: `30`, `30s`, `5m`, `2h`, `1d`; the answer is in seconds."""

    name = "duration"

    def __init__(self, least: float = 0) -> None:
        self.least = least

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip())
        if match is None or match[2] not in SECONDS:
            self.fail(f"{value!r} is no duration: write 30, 30s, 5m, 2h or 1d", parameter, context)
        seconds = float(match[1]) * SECONDS[match[2]]
        if seconds < self.least:
            self.fail(f"{value!r} is too short: at least {self.least:g} s", parameter, context)
        return seconds


def nearest(word: str, words: Sequence[str]) -> str:
    """'; did you mean X?', or nothing."""
    import difflib

    near = difflib.get_close_matches(word, words, 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""
