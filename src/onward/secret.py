"""`Secret[T]`: a field whose value no face, no log and no error shows.

    class Upload(Process[Status]):
        token: Secret[str]

A handler sees the plain value, and so does a type checker. In the row it stands as `{"$secret": value}`, so that whoever
shows data can mask it without knowing the model; input is taken in either form.

It is masked, not encrypted: the database, its backups and every handler hold it in the clear. So let it keep the name or key
under which the real secret is found, or one that may lie in the database. What handlers write by themselves is their own
business: a log line, a result of `ctx.once`, a copy in another field; and so is the reason that a person gives for an action.

In a strict model T has to be a type that JSON has. A secret cannot be the key of a dictionary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

T = TypeVar("T")

KEY = "$secret"
MARK = "onward_secret"  # in a JSON schema, and in pydantic's own
MASK = "••••••••"
SECRET_CHARS_MIN = 6  # a shorter one is left in texts: it may be a word that stands there for another reason
SPELT_CHARS_MAX = 4_000  # a longer one is sought as it is, and not as a URL or a repr() would spell it
MODELS_MAX = 1_000  # of which is remembered whether they have secrets

_noticed: ContextVar[list[Any] | None] = ContextVar("onward_secrets_noticed", default=None)


class _Kept:
    """What `Secret` adds to a type: how its value is written, read and described."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler(source)
        return core_schema.no_info_wrap_validator_function(
            _read,
            inner,
            serialization=core_schema.wrap_serializer_function_ser_schema(_written, schema=inner, when_used="json"),
            metadata={MARK: True},
        )

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema["schema"]), MARK: True}

    def __repr__(self) -> str:
        return "Secret"


Secret = Annotated[T, _Kept()]
"""A plain T to handlers and type checkers, and masked wherever the process is shown. See `onward.secret`."""


def _read(value: Any, validate: Callable[[Any], Any]) -> Any:
    if is_secret(value):
        value = value[KEY]
    seen = _noticed.get()
    if seen is not None:
        seen.append(value)
    try:
        return validate(value)
    except ValidationError as error:
        raise _blinded(error, set(_texts(value, secret=True))) from None


def _blinded(error: ValidationError, secrets: set[str]) -> ValidationError:
    """The same faults, without the input that they quote."""
    faults: list[InitErrorDetails] = [
        {
            "type": PydanticCustomError(fault["type"], "{said}", {"said": _without(secrets, fault["msg"])}),
            "loc": fault["loc"],
            "input": MASK,
        }
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return ValidationError.from_exception_data(error.title, faults)


def _written(value: Any, write: Callable[[Any], Any]) -> dict[str, Any]:
    return {KEY: write(value)}


# -- showing ------------------------------------------------------------------------------------------------------


def is_secret(value: Any) -> bool:
    """Whether this JSON value is a secret as it stands in a row."""
    return isinstance(value, dict) and value.keys() == {KEY}


def masked(value: Any) -> Any:
    """The JSON value with a mask in the place of each secret: what faces show. It shares nothing with `value`."""
    if is_secret(value):
        return MASK
    if isinstance(value, dict):
        return {key: masked(one) for key, one in value.items()}
    return [masked(one) for one in value] if isinstance(value, list) else value


@lru_cache(maxsize=MODELS_MAX)
def holds_secrets(model: type[BaseModel]) -> bool:
    """Whether a Secret stands anywhere in the model. Most have none, and pay for none of this."""
    todo: list[Any] = [model.__pydantic_core_schema__]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if (part.get("metadata") or {}).get(MARK):
                return True
            todo += [inner for key, inner in part.items() if key not in ("default", "metadata")]
        elif isinstance(part, list | tuple):
            todo += part
    return False


def as_json(process: BaseModel) -> dict[str, Any]:
    """The process as JSON values, secrets marked; what JSON does not have stands there as text. May raise anything."""
    told: dict[str, Any] = process.__pydantic_serializer__.to_python(
        process, mode="json", by_alias=False, warnings=False, fallback=str
    )
    return told


# -- texts in which one may stand ---------------------------------------------------------------------------------


class Hider:
    """Takes the secrets of one process out of texts that others have written, as those of exceptions."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._asked = holds_secrets(model)
        self._secrets: set[str] = set()

    @property
    def knows_any(self) -> bool:
        return bool(self._secrets)

    def learn(self, data: str) -> None:
        """From the JSON of a row, also where the model of today has no secrets any more; where it is no JSON, nothing."""
        if KEY in data:
            try:
                self._secrets.update(_texts(json.loads(data)))
            except (ValueError, RecursionError):
                pass  # nobody could have read a secret from it either

    def learn_from(self, process: BaseModel) -> None:
        """From the typed process, which its handler may have changed."""
        if self._asked:
            with suppress(Exception):  # serializers are the user's code; what was stored is known from the row
                self._secrets.update(_texts(as_json(process)))

    def learn_by(self, validate: Callable[[], Any]) -> None:
        """From a validation that is known to fail: also what is plain in its input comes by the fields that are secrets."""
        if self._asked:
            with _noticing() as seen, suppress(Exception):  # validators are the user's code; how they fail is known already
                validate()
            for value in seen:
                self._secrets.update(_texts(value, secret=True))

    def __call__(self, text: str) -> str:
        """The text with a mask for each secret that stands in it, also as a URL, JSON or repr() spells it."""
        return _without(self._secrets, text)


@contextmanager
def _noticing() -> Iterator[list[Any]]:
    seen: list[Any] = []
    token = _noticed.set(seen)
    try:
        yield seen
    finally:
        _noticed.reset(token)


def _without(secrets: set[str], text: str) -> str:
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        spelt = "".join(map(_spellings, secret)) if len(secret) <= SPELT_CHARS_MAX else re.escape(secret)
        text = re.sub(spelt, MASK, text)
    return text


def _texts(value: Any, secret: bool = False) -> Iterable[str]:
    """What of a secret could be met in a text: each word and number in it, if it is long enough to be told from others."""
    if isinstance(value, dict):
        secret = secret or is_secret(value)
        for one in value.values():
            yield from _texts(one, secret)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one, secret)
    elif secret and isinstance(value, str | int | float) and len(text := str(value)) >= SECRET_CHARS_MIN:
        yield text


def _spellings(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    quoted = "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
    spelt = {char, quoted, quoted.lower(), json.dumps(char)[1:-1], repr(char)[1:-1], {" ": "+", "'": "\\'"}.get(char, char)}
    return f"(?:{'|'.join(re.escape(one) for one in sorted(spelt, key=len, reverse=True))})"
