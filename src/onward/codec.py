"""Typed process <-> the JSON in its row. Only JSON: nothing that is stored can name code, and nothing is pickled.

`encode` reads its own writing: what the next handler gets is exactly what a restart after a crash would give it.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from onward.errors import InvalidData
from onward.flow import Flow

PAYLOAD_MAX = 1_000_000  # characters of JSON in one row; larger things belong in a file store, named by the row
FAULTS_MAX = 5  # as many fields are named in one message

# id and status have columns of their own; kept twice they could differ.
_OWN_COLUMNS = {"id", "status"}
# What a log, a terminal or a database may choke on: control characters (but newline and tab) and lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str, most: int = 2_000) -> str:
    """`text` without what could break a log, a terminal or a database, cut to `most` characters. Never raises."""
    if len(text) > most:
        text = text[:most] + f"… ({len(text):,} characters)"
    return _UNPRINTABLE.sub("�", text)


def encode(flow: Flow[Any], process: Any, id: str, status: str) -> tuple[str, Any]:
    """The JSON for the row, and the fresh copy at `status` that is read back from it.

    Raises InvalidData, naming the fields or the limit.
    """
    try:
        data: str = process.__pydantic_serializer__.to_json(process, exclude=_OWN_COLUMNS, warnings=False).decode()
    except (PydanticSerializationError, ValueError, RecursionError, UnicodeError) as error:
        raise InvalidData(f"{flow.name} {id}: its data cannot be written as JSON: {printable(str(error))}") from None
    if len(data) > PAYLOAD_MAX:
        raise InvalidData(
            f"{flow.name} {id}: its data is {len(data):,} characters of JSON, the limit PAYLOAD_MAX is {PAYLOAD_MAX:,}",
            hint="keep the large part in a file or object store, and its name in the process",
        )
    if "NaN" in data or "Infinity" in data:
        _refuse_constants(flow, id, data)
    return data, decode(flow, id, status, data)


def decode(flow: Flow[Any], id: str, status: str, data: str) -> Any:
    """The typed process. Raises InvalidData when `data` is no JSON or does not fit the model, naming the fields."""
    if not data.startswith("{"):
        raise InvalidData(f"{flow.name} {id}: its data is no JSON object: {printable(data, 40)!r}")
    head = f'{{"id":{_quoted(id)},"status":{_quoted(status)}'
    text = f"{head}}}" if data == "{}" else f"{head},{data[1:]}"
    try:
        return flow.model.__pydantic_validator__.validate_json(text)
    except ValidationError as error:
        raise InvalidData(f"{flow.name} {id}: its data does not fit {flow.model.__name__}: {_faults(error)}") from None
    except (ValueError, RecursionError, UnicodeError) as error:
        raise InvalidData(f"{flow.name} {id}: its data cannot be read: {printable(str(error))}") from None


def to_dict(process: BaseModel) -> dict[str, Any]:
    """The process as plain JSON values, for people and tools."""
    return process.model_dump(mode="json")


def _refuse_constants(flow: Flow[Any], id: str, data: str) -> None:
    def refuse(constant: str) -> None:
        raise InvalidData(f"{flow.name} {id}: its data holds {constant}, which JSON does not have")

    json.loads(data, parse_constant=refuse)


def _faults(error: ValidationError) -> str:
    faults = [
        f"{'.'.join(map(str, e['loc'])) or 'JSON'}: {e['msg']}" for e in error.errors(include_url=False, include_input=False)
    ]
    more = f" (and {len(faults) - FAULTS_MAX} more)" if len(faults) > FAULTS_MAX else ""
    return printable("; ".join(faults[:FAULTS_MAX]) + more)
