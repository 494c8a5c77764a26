"""The input of a new process, from --data and --set. What the model does not know is refused by name, not ignored."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from onward.cli.command import nearest
from onward.codec import PAYLOAD_MAX, decode
from onward.errors import InvalidData
from onward.flow import Flow
from onward.process import Process, new_id


def build(flow: Flow[Any], data: str | None, settings: Sequence[str], id: str | None) -> Process[Any]:
    """The typed process. Raises UsageError for what cannot be read, InvalidData for what the model refuses."""
    values = _read(data)
    for setting in settings:
        key, sign, value = setting.partition("=")
        if not sign or not key:
            raise click.UsageError(f"--set {setting!r}: write key=value")
        values[key] = _value(value)
    if id is not None and values.setdefault("id", id) != id:
        raise click.UsageError(f"--id says {id!r}, the data says {values['id']!r}")
    _refuse_unknown(flow, values)
    given, status = values.pop("id", None), values.pop("status", flow.start)
    if not isinstance(given, str | None) or not isinstance(status, str):
        raise InvalidData("id and status are strings", hint="--id NAME")
    try:
        process: Process[Any] = decode(flow, new_id() if given is None else given, status, json.dumps(values))
    except InvalidData as error:
        faults = str(error).partition(f"does not fit {flow.model.__name__}: ")[2] or str(error)
        raise InvalidData(f"{flow.name} cannot start so: {faults}", hint=takes(flow)) from None
    return process


def takes(flow: Flow[Any]) -> str:
    """'letter takes: to (string), note (string, optional)': the fields that a person may give."""
    schema = flow.model.model_json_schema()
    needed = schema.get("required", ())
    fields = [
        f"{name} ({_kind(field)}{'' if name in needed else ', optional'})"
        for name, field in schema.get("properties", {}).items()
        if name not in ("id", "status")
    ]
    return f"{flow.name} takes: {', '.join(fields) or 'no fields'}"


def _kind(field: dict[str, Any]) -> str:
    kind = field.get("type") or field.get("$ref", "").rpartition("/")[2]
    return str(kind or "|".join(_kind(one) for one in field.get("anyOf", ())) or "any")


def _read(data: str | None) -> dict[str, Any]:
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


def _refuse_unknown(flow: Flow[Any], values: dict[str, Any]) -> None:
    known = set(flow.model.model_fields)
    for field in flow.model.model_fields.values():
        known |= {alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str)}
    if flow.model.model_config.get("extra") == "allow":
        return
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InvalidData(f"{flow.name} has no field {unknown[0]!r}{nearest(unknown[0], sorted(known))}", hint=takes(flow))
