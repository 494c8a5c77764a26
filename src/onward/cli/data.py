"""The input of a new process, from --data and --set. What the model does not know is refused by name, not ignored."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from onward import intake
from onward.codec import PAYLOAD_MAX
from onward.errors import InvalidData
from onward.flow import Flow
from onward.process import Process, new_id


def build(flow: Flow[Any], data: str | None, settings: Sequence[str], id: str | None) -> Process[Any]:
    """The typed process. Raises UsageError for what cannot be read, InvalidData for what the model refuses."""
    values = changed(read(data), settings)
    if id is not None and values.setdefault("id", id) != id:
        raise click.UsageError(f"--id says {id!r}, the data says {values['id']!r}")
    given, status = values.pop("id", None), values.pop("status", flow.start)
    if not isinstance(given, str | None) or not isinstance(status, str):
        raise InvalidData("id and status are strings", hint="--id NAME")
    process: Process[Any] = intake.read(flow, values, new_id() if given is None else given, status)
    return process


def changed(values: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`values` with each `key=value` of --set in its place."""
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            raise click.UsageError(f"--set {setting!r}: write key=value")
        values[key] = _value(value)
    return values


def read(data: str | None) -> dict[str, Any]:
    if data is None:
        return {}
    if data == "-":
        text, named = sys.stdin.read(PAYLOAD_MAX + 1), "stdin"
    elif data.startswith("@"):
        named = data[1:]
        try:
            text = Path(named).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise click.UsageError(f"--data {data}: {getattr(error, 'strerror', None) or error}") from None
    else:
        text, named = data, "--data"
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{named} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise click.UsageError(f'{named} is no JSON object but {type(values).__name__}: write {{"key": …}}')
    return values


def _value(text: str) -> Any:
    """JSON if it parses, else the text itself: count=3 is a number, name=Ada is a word. For the text 3: count='"3"'."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
