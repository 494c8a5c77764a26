"""What people give to a process: its fields by name, read by the model. One validator for every door: start, edit, fork."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from onward.codec import decode
from onward.errors import InvalidData
from onward.flow import Flow
from onward.query import nearest


def read(flow: Flow[Any], values: Mapping[str, Any], id: str, status: str) -> Any:
    """The typed process of these JSON values, without id and status. What the model does not know is refused by name, not
    ignored. Raises InvalidData.
    """
    _refuse_unknown(flow, values)
    try:
        text = json.dumps(dict(values))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidData(f"{flow.name} {id}: this is no JSON: {error}", hint=takes(flow)) from None
    try:
        return decode(flow, id, status, text)
    except InvalidData as error:
        raise InvalidData(_faults(flow, error), hint=takes(flow)) from None


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


def _kind(field: Mapping[str, Any]) -> str:
    kind = field.get("type") or field.get("$ref", "").rpartition("/")[2]
    return str(kind or "|".join(_kind(one) for one in field.get("anyOf", ())) or "any")


def _faults(flow: Flow[Any], error: InvalidData) -> str:
    faults = str(error).partition(f"does not fit {flow.model.__name__}: ")[2]
    return f"the data do not fit {flow.name}: {faults}" if faults else str(error)


def _refuse_unknown(flow: Flow[Any], values: Mapping[str, Any]) -> None:
    known = set(flow.model.model_fields)
    for field in flow.model.model_fields.values():
        known |= {alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str)}
    if flow.model.model_config.get("extra") == "allow":
        return
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InvalidData(f"{flow.name} has no field {unknown[0]!r}{nearest(unknown[0], sorted(known))}", hint=takes(flow))
