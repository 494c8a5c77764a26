"""A form for a model's data: what kind of field fits each property of its JSON schema, and what was typed as values again.

What nobody touched keeps its value to the letter, whatever a form does to line ends, long numbers or masked secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from onward.errors import InvalidData
from onward.flow import Flow
from onward.panel.entry import body
from onward.secret import MARK
from onward.telling.text import to_json

PREFIX = "field."  # of the names of form fields, so that no property can be taken for one of ours
CHOICES_MAX = 200  # of a list to choose from; more of them are typed
LINES_MAX = 2_000  # of a list with one item a line; a longer one is edited as JSON
MODELS_MAX = 1_000  # of which the schema is remembered
ROWS_MAX = 16  # of a field for text of many lines, before it scrolls

_NOTHING = object()
_OWN = ("id", "status")
_NUMBERS = {"integer": int, "number": float}


@dataclass(frozen=True)
class Field:
    """One property. `kind`: text, lines (a list, one item a line), number, truth, choice, secret (a text) or json."""

    name: str
    kind: str
    title: str
    help: str
    required: bool
    nullable: bool
    choices: Sequence[Any] = ()
    item: str = "string"  # the JSON type of a line, or of a number
    default: Any = field(default=None, compare=False)
    has_default: bool = False

    def text(self, value: Any) -> str:
        """The value as it stands in the form."""
        if value is None and self.nullable and self.kind != "json":
            return ""
        if self.kind == "lines":
            return "\n".join(item if isinstance(item, str) else to_json(item, None) for item in value)
        if self.kind in ("text", "secret"):
            return str(value)
        return to_json(value, 2 if self.kind == "json" else None)

    def value(self, text: str) -> Any:
        """What was typed. Raises ValueError with words for the person who typed it."""
        if self.nullable and not text.strip() and self.kind != "json":
            return None
        match self.kind:
            case "text" | "secret":
                return text
            case "lines":
                return [self._item(line) for line in text.split("\n") if line.strip()]
            case "number":
                return _number(text.strip(), self.item)
            case _:
                return _json(text)

    def _item(self, line: str) -> Any:
        return line if self.item == "string" else _number(line.strip(), self.item)


def fields_of(flow: Flow[Any], values: Mapping[str, Any]) -> list[Field]:
    """A field for each property that a person may give, of a kind into which the present value fits."""
    schema = _schema(flow.model)
    defined, needed = schema.get("$defs", {}), schema.get("required", ())
    return [
        _field(name, _resolved(part, defined), defined, name in needed, values.get(name, part.get("default", _NOTHING)))
        for name, part in schema.get("properties", {}).items()
        if name not in _OWN
    ]


@lru_cache(maxsize=MODELS_MAX)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    try:
        return model.model_json_schema(by_alias=False)
    except PydanticUserError:  # a type of the user's that has none: its data are edited as JSON
        return {}


def _field(name: str, part: dict[str, Any], defined: Mapping[str, Any], required: bool, value: Any) -> Field:
    part, nullable = _without_null(part, defined)
    kind, item = _kind(part, defined)
    choices = part.get("enum", ())
    about = Field(
        name=name,
        kind=kind,
        title=str(part.get("title") or name),
        help=str(part.get("description") or ""),
        required=required,
        nullable=nullable,
        choices=choices,
        item=item,
        default=part.get("default"),
        has_default="default" in part,
    )
    return about if _fits(about, value) else Field(**{**about.__dict__, "kind": "json", "choices": ()})


def _resolved(part: dict[str, Any], defined: Mapping[str, Any]) -> dict[str, Any]:
    """The part itself, where it only names a definition."""
    name = str(part.get("$ref", "")).removeprefix("#/$defs/")
    return {**defined[name], **{key: value for key, value in part.items() if key != "$ref"}} if name in defined else part


def _without_null(part: dict[str, Any], defined: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """`X | None` is an X that may be left empty."""
    kinds = part.get("anyOf", ())
    others = [one for one in kinds if one.get("type") != "null"]
    if len(others) != 1 or len(others) == len(kinds):
        return part, False
    return {**_resolved(others[0], defined), **{key: value for key, value in part.items() if key != "anyOf"}}, True


def _kind(part: dict[str, Any], defined: Mapping[str, Any]) -> tuple[str, str]:
    if 0 < len(part.get("enum", ())) <= CHOICES_MAX:
        return "choice", "string"
    match part.get("type"):
        case "string":
            return "secret" if part.get(MARK) else "text", "string"
        case "integer" | "number" as number:
            return "number", number
        case "boolean":
            return "truth", "string"
        case "array":
            item = _resolved(part.get("items", {}), defined)
            plain = item.get("type") in ("string", *_NUMBERS) and "enum" not in item
            return ("lines", item["type"]) if plain and "prefixItems" not in part else ("json", "string")
    return "json", "string"


def _fits(about: Field, value: Any) -> bool:
    """Whether the form gives this value back as it is."""
    if value is _NOTHING or (value is None and about.nullable):
        return True
    match about.kind:
        case "text" | "secret":
            return isinstance(value, str) and "\r" not in value
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "truth":
            return isinstance(value, bool)
        case "choice":
            return value in about.choices
        case "lines":
            return isinstance(value, list) and len(value) <= LINES_MAX and all(_is_line(about, item) for item in value)
    return True


def _is_line(about: Field, item: Any) -> bool:
    if about.item != "string":
        return isinstance(item, int | float) and not isinstance(item, bool)
    return isinstance(item, str) and bool(item.strip()) and not set("\r\n") & set(item)


def _number(text: str, kind: str) -> int | float:
    try:
        return int(text) if kind == "integer" else json_number(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no {'whole number' if kind == 'integer' else 'number'}") from None


def json_number(text: str) -> int | float:
    """A number as JSON writes it: no NaN, no infinity, and a whole one stays whole."""
    value = _json(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(text)
    return value


def _json(text: str) -> Any:
    try:
        return body.read_json(text)
    except body.TurnedAway as error:
        raise ValueError(str(error)) from None


# -- what a page shows, and what comes back -----------------------------------------------------------------------


def form(flow: Flow[Any], values: Mapping[str, Any], typed: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The fields as facts, filled with `values`, or with what was typed before."""
    return [_shown(about, values, typed) for about in fields_of(flow, values)]


def _shown(about: Field, values: Mapping[str, Any], typed: Mapping[str, str] | None) -> dict[str, Any]:
    given = about.name in values
    value = values[about.name] if given else about.default
    text = about.text(value) if given or about.has_default else ""
    if typed is not None:
        text = typed.get(PREFIX + about.name, text)
    return {
        "name": about.name,
        "field": PREFIX + about.name,
        "kind": about.kind,
        "title": about.title,
        "help": about.help,
        "required": about.required,
        "nullable": about.nullable,
        "choices": [to_json(choice, None) for choice in about.choices],
        "item": about.item,
        "text": text,
        "rows": min(max(text.count("\n") + 1, 1 if about.kind == "text" else 3), ROWS_MAX),
    }


def read(flow: Flow[Any], values: Mapping[str, Any], typed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values that the form says, and what is wrong with which field. `values` is what the form was filled with."""
    said = {name: values[name] for name in unknown(flow, values) if flow.model.model_config.get("extra") == "allow"}
    faults: dict[str, str] = {}
    for about in fields_of(flow, values):
        given = about.name in values
        text = typed.get(PREFIX + about.name)
        if text is None:  # not in this form: as it was
            if given:
                said[about.name] = values[about.name]
            continue
        text = text.replace("\r\n", "\n")
        before = about.text(values[about.name]) if given else about.text(about.default) if about.has_default else ""
        if text == before:
            if given:
                said[about.name] = values[about.name]
            continue
        try:
            said[about.name] = about.value(text)
        except ValueError as error:
            faults[about.name] = str(error)
    return said, faults


def unknown(flow: Flow[Any], values: Mapping[str, Any]) -> list[str]:
    """What stands in the data and is no field of the model: of a model that has changed."""
    known = _schema(flow.model).get("properties", {})
    return [name for name in values if name not in known]


def faults_by_field(flow: Flow[Any], said: str) -> dict[str, str]:
    """What of the text of an InvalidData belongs to which field of a form."""
    faults: dict[str, str] = {}
    for part in said.split("; "):
        place, sign, fault = part.rpartition(f"fit {flow.name}: ")[2].partition(": ")
        name = place.partition(".")[0]
        if sign and name in flow.model.model_fields:
            faults.setdefault(name, fault if place == name else f"{place.removeprefix(name + '.')}: {fault}")
    return faults


def read_json(text: str) -> dict[str, Any]:
    """Raises InvalidData for what is no JSON object."""
    try:
        value = _json(text)
    except ValueError as error:
        raise InvalidData(str(error), hint='write an object: {"key": "value"}') from None
    if not isinstance(value, dict):
        raise InvalidData("this is JSON, but no object", hint='write {"key": "value"}')
    return value
