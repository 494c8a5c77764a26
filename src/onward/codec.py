"""Typed process <-> the JSON in its row. Only JSON: nothing that is stored can name code, and nothing is pickled.

`encode` reads its own writing: what the next handler gets is exactly what a restart after a crash would give it.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from pydantic import ValidationError

from onward.errors import InvalidData
from onward.flow import Flow
from onward.process import Record
from onward.secret import Hider

PAYLOAD_MAX = 1_000_000  # characters of JSON in one row; larger things belong in a file store, named by the row
FAULTS_MAX = 5  # as many fields are named in one message

# id and status have columns of their own; kept twice they could differ.
_OWN_COLUMNS = {"id", "status"}
# Where these stand in the JSON, something may have been replaced in silence: a secret, or a key with a lone surrogate.
_MASKED, _REPLACED = "**********", "���"
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
        data: str = process.__pydantic_serializer__.to_json(
            process, exclude=_OWN_COLUMNS, by_alias=False, round_trip=True, warnings=False
        ).decode()
    except Exception as error:  # serializers and validators are the user's code as well, and may raise anything
        hide = Hider(flow.model)
        hide.learn_from(process)
        raise InvalidData(f"{flow.name} {id}: its data cannot be written as JSON: {_said(error, hide)}") from None
    if len(data) > PAYLOAD_MAX:
        raise InvalidData(
            f"{flow.name} {id}: its data is {len(data):,} characters of JSON, the limit PAYLOAD_MAX is {PAYLOAD_MAX:,}",
            hint="keep the large part in a file or object store, and its name in the process",
        )
    if "NaN" in data or "Infinity" in data:
        _refuse_constants(flow, id, data)
    if "\\u0000" in data:
        _refuse_nul(flow, id, data)
    copy = decode(flow, id, status, data)
    if _MASKED in data or _REPLACED in data:
        _refuse_replaced(flow, id, process, copy)
    return data, copy


def decode(flow: Flow[Any], id: str, status: str, data: str) -> Any:
    """The typed process. Raises InvalidData when `data` is no JSON or does not fit the model, naming the fields."""
    if not data.startswith("{"):
        raise InvalidData(f"{flow.name} {id}: its data is no JSON object: {printable(data, 40)!r}")
    head = f'{{"id":{_quoted(id)},"status":{_quoted(status)}'
    text = f"{head}}}" if data == "{}" else f"{head},{data[1:]}"
    try:
        process = flow.model.__pydantic_validator__.validate_json(text, by_alias=False, by_name=True)
    except ValidationError as error:
        said = _faults(error, _hiding(flow, text))
        refused = InvalidData(f"{flow.name} {id}: its data does not fit {flow.model.__name__}: {said}")
        refused.fields = _fields(error)
        raise refused from None
    except Exception as error:
        raise InvalidData(f"{flow.name} {id}: its data cannot be read: {_said(error, _hiding(flow, text))}") from None
    if process.id != id or process.status != status:  # a name twice in one object: the last one wins
        raise InvalidData(f"{flow.name} {id}: its data holds another id or status than its row")
    return process


# -- what older code left behind ----------------------------------------------------------------------------------


def named(flow: Flow[Any], record: Record) -> Record:
    """The same record, its status by the name that it has now."""
    if record.status in flow.renamed:
        record.was, record.status = record.status, flow.renamed[record.status]
    return record


def typed(flow: Flow[Any], record: Record) -> Any:
    """The typed process of a row whose status is `named`; the record has the upgraded data after that. Raises InvalidData, and
    then the record is as it was.
    """
    if record.data_version != flow.version:
        data = upgraded(flow, record.id, record.data, record.data_version)
        process = decode(flow, record.id, record.status, data)
        record.data, record.data_version = data, flow.version
        return process
    return decode(flow, record.id, record.status, record.data)


def upgraded(flow: Flow[Any], id: str, data: str, version: int) -> str:
    """The JSON of that version as it is in the flow's own. Raises InvalidData, which names the step that failed."""
    if not flow.oldest <= version <= flow.version:
        raise InvalidData(f"{flow.name} {id}: {unread(flow, version)}")
    if version == flow.version:
        return data
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{flow.name} {id}: its data cannot be read: {_said(error, _hiding(flow, data))}") from None
    if not isinstance(values, dict):
        raise InvalidData(f"{flow.name} {id}: its data is no JSON object: {printable(data, 40)!r}")
    for step in range(version, flow.version):
        try:
            values = flow.upgrade[step](values)
            _refuse_no_object(values)
        except (Exception, SystemExit) as error:  # the user's code; what it does ends no worker
            said = _raised(error, _hiding(flow, data))
            raise InvalidData(f"{flow.name} {id}: upgrade[{step}], of its data to version {step + 1}, failed: {said}") from None
    return json.dumps(values, separators=(",", ":"))


def unread(flow: Flow[Any], version: int) -> str:
    """Why data of that version are not for this code."""
    if version > flow.version:
        return f"its data has version {version}, and this code reads no newer one than {flow.version}"
    return f"its data has version {version}, and this code has no upgrade from it: it begins at {flow.oldest}"


def _refuse_no_object(values: object) -> None:
    if not isinstance(values, dict):
        raise TypeError(f"it returned {type(values).__name__} and not the data, a dict")
    json.dumps(values, allow_nan=False)


def _hiding(flow: Flow[Any], text: str) -> Hider:
    """For what validators say, which are the user's code and may quote a secret."""
    hide = Hider(flow.model)
    hide.learn(text)
    hide.learn_by(lambda: flow.model.__pydantic_validator__.validate_json(text, by_alias=False, by_name=True))
    return hide


def _refuse_constants(flow: Flow[Any], id: str, data: str) -> None:
    def refuse(constant: str) -> None:
        raise InvalidData(f"{flow.name} {id}: its data holds {constant}, which JSON does not have")

    json.loads(data, parse_constant=refuse, parse_int=str)  # an integer may have more digits than Python reads


def _refuse_nul(flow: Flow[Any], id: str, data: str) -> None:
    """PostgreSQL's JSON has no NUL; what SQLite would keep could not move there."""
    for field, value in json.loads(data, parse_int=str).items():
        if "\\u0000" in json.dumps(value).replace("\\\\", ""):  # an escaped backslash before it makes it plain text
            raise InvalidData(
                f"{flow.name} {id}: its data holds a NUL character in {printable(field)}, which databases do not keep",
                hint="take it out: text.replace('\\0', '')",
            )


def _refuse_replaced(flow: Flow[Any], id: str, process: Any, copy: Any) -> None:
    before, after = ({**one.__dict__, **(one.__pydantic_extra__ or {})} for one in (process, copy))
    for field in after.keys() - _OWN_COLUMNS:
        if before.get(field) != after[field]:
            raise InvalidData(
                f"{flow.name} {id}: its data would come back with another {printable(field)} than was written",
                hint="pydantic masks what is a SecretStr: write it as onward.Secret[str]; and take lone surrogates out of texts",
            )


def _said(error: Exception, hide: Hider) -> str:
    return _raised(error, hide, by_name=not isinstance(error, ValueError))


def _raised(error: BaseException, hide: Hider, *, by_name: bool = True) -> str:
    name = type(error).__name__
    try:
        return printable(hide(f"{name}: {error}" if by_name else str(error)))
    except Exception:  # its __str__ is the user's code as well
        return name


def _fields(error: ValidationError) -> tuple[str, ...]:
    """Which they are, each once, the places in a list as one: `files.*.name`."""
    places = (one["loc"] for one in error.errors(include_url=False, include_input=False, include_context=False))
    return tuple(sorted({".".join("*" if isinstance(step, int) else printable(step, 80) for step in place) for place in places}))


def _faults(error: ValidationError, hide: Hider) -> str:
    faults = [
        f"{'.'.join(map(str, e['loc'])) or 'JSON'}: {e['msg']}" for e in error.errors(include_url=False, include_input=False)
    ]
    more = f" (and {len(faults) - FAULTS_MAX} more)" if len(faults) > FAULTS_MAX else ""
    return printable(hide("; ".join(faults[:FAULTS_MAX])) + more)
