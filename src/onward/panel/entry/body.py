"""What comes in, read within bounds: the one parser of queries, forms and JSON. Whatever is in doubt is refused."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from onward.errors import OnwardError

BODY_MAX = 1_000_000  # bytes
BODY_S_MAX = 30.0  # until all of it has come
QUERY_CHARS_MAX = 8_000
QUERY_FIELDS_MAX = 30
FORM_FIELDS_MAX = 1_000  # the checkboxes of a page are among them
DEPTH_MAX = 64
DIGITS_MAX = 100

FORM, JSON = "application/x-www-form-urlencoded", "application/json"


class TurnedAway(OnwardError):
    """A request that gets no further than the door, with the status that says why."""

    def __init__(self, status: int, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.headers = dict(headers or {})


def read_query(text: bytes) -> dict[str, str]:
    """One value for each name, so that nobody reads the first and somebody else the last."""
    if len(text) > QUERY_CHARS_MAX:
        raise TurnedAway(414, f"the query is longer than {QUERY_CHARS_MAX:,} characters", hint="search for less at once")
    pairs = _pairs(text, QUERY_FIELDS_MAX)
    query = dict(pairs)
    if len(query) < len(pairs):
        raise TurnedAway(400, "a name stands in the query twice", hint="give each once")
    return query


async def read_body(request: Request) -> dict[str, Any]:
    """The fields of a form (a list where a name comes several times), or the object of a JSON document."""
    kind = check_type(request)
    text = await _bytes(request)
    if kind == JSON:
        value = read_json(_decoded(text))
        if not isinstance(value, dict):
            raise TurnedAway(400, "the JSON is no object", hint='send {"verb": "...", ...}')
        return value
    fields: dict[str, Any] = {}
    for name, value in _pairs(text, FORM_FIELDS_MAX):
        before = fields.get(name)
        fields[name] = value if before is None else [*before, value] if isinstance(before, list) else [before, value]
    return fields


def check_type(request: Request) -> str:
    """FORM or JSON. Any other type would be read as what it is not."""
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    if kind.strip() not in (FORM, JSON) or parameters.replace(" ", "") not in ("", "charset=utf-8"):
        raise TurnedAway(415, "a body is a form or JSON here, in UTF-8", hint=f"send content-type: {JSON}")
    return kind.strip()


def check_length(request: Request) -> None:
    """What says beforehand that it is too long need not come at all."""
    said = request.headers.get("content-length", "0")
    if not (said.isascii() and said.isdigit()) or len(said) > len(str(BODY_MAX)) or int(said) > BODY_MAX:
        raise _too_long()


def read_json(text: str) -> Any:
    """The value of a JSON text. Refused: NaN, a key that comes twice, what is nested too deep, numbers without end."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise TurnedAway(400, f"this is no JSON: {error}", hint="mend it, then try again") from None
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key comes twice in one object")
    return made


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS_MAX:
        raise ValueError(f"an integer has more than {DIGITS_MAX} digits")
    return int(digits)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return
        level = [inner for outer in level for inner in _inside(outer)]
    raise _too_deep()


def _inside(outer: dict[str, Any] | list[Any]) -> Any:
    return outer.values() if isinstance(outer, dict) else outer


def _too_deep() -> TurnedAway:
    return TurnedAway(400, f"the JSON is nested deeper than {DEPTH_MAX}", hint="send something flatter")


def _too_long() -> TurnedAway:
    return TurnedAway(413, f"the body is longer than {BODY_MAX:,} bytes", hint="send less at once")


async def _bytes(request: Request) -> bytes:
    parts, length = [], 0
    try:
        async with asyncio.timeout(BODY_S_MAX):
            async for part in request.stream():
                length += len(part)
                if length > BODY_MAX:  # counted as it comes: what was said about the length may be missing or a lie
                    raise _too_long()
                parts.append(part)
    except TimeoutError:
        raise TurnedAway(408, f"the body did not come within {BODY_S_MAX:g} s", hint="send it again") from None
    return b"".join(parts)


def _pairs(text: bytes, most: int) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most)
    except UnicodeError:
        raise TurnedAway(400, "a field is no UTF-8", hint="send it as UTF-8, percent-encoded") from None
    except ValueError:
        raise TurnedAway(400, f"there are more than {most:,} fields", hint="send fewer at once") from None


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeError:
        raise TurnedAway(400, "the body is no UTF-8", hint="send it as UTF-8") from None
