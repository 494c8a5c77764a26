"""What the body of a POST asks for: read strictly, field by field, and not yet judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onward.errors import InvalidData
from onward.panel.entry.body import TurnedAway
from onward.panel.page import Visit
from onward.panel.shown import fields

VERSION_DIGITS_MAX = 18
_COMMON = frozenset({"verb", "id", "version", "reason", "back", "csrf"})


@dataclass(frozen=True)
class Asked:
    """One action on one process, at the version that was seen; `given` is what this verb takes beside."""

    verb: str
    id: str
    version: int | None
    reason: str
    back: str
    given: Mapping[str, Any] = field(default_factory=dict)

    def text(self, name: str) -> str:
        return text_of(self.given, name)


class Faults(InvalidData):
    """What was typed into a form and is not of the kind that its field takes."""

    def __init__(self, by_field: Mapping[str, str]) -> None:
        self.by_field = by_field
        super().__init__("; ".join(f"{name}: {fault}" for name, fault in by_field.items()))


def read_asked(visit: Visit, verb: str = "") -> Asked:
    body = visit.body
    return Asked(
        verb=verb or text_of(body, "verb"),
        id=text_of(body, "id"),
        version=version_of(body, "version"),
        reason=text_of(body, "reason"),
        back=text_of(body, "back"),
        given={name: value for name, value in body.items() if name not in _COMMON},
    )


def text_of(body: Mapping[str, Any], name: str) -> str:
    """'' where it is missing. A field that came twice, or is of another kind, is turned away."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TurnedAway(400, f"{name} is a text, once", hint=f'send "{name}": "..."')
    return value


def version_of(body: Mapping[str, Any], name: str) -> int | None:
    """From a form or from JSON. None where it is missing."""
    value = body.get(name)
    if value is None or value == "":
        return None
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or len(text) > VERSION_DIGITS_MAX:
        raise TurnedAway(400, f"{name} is the number of a version, 0 or more", hint=f'send "{name}": 3')
    return int(text)


def object_of(value: Any) -> dict[str, Any]:
    """The data of a process: an object, or in a form the text of one. InvalidData."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return fields.read_json(value)
    raise InvalidData("the data of a process are an object", hint='send "data": {"key": "value"}')


def typed_of(visit: Visit) -> dict[str, str]:
    """The fields of a form as they were typed, each with one value: browsers make CRLF of a line end."""
    return {name: value.replace("\r\n", "\n") for name, value in visit.body.items() if isinstance(value, str) and name != "csrf"}
