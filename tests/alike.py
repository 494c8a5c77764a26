"""How answers of different stores are compared. Where they may differ, see tests/test_differential.py."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

from onward.errors import OnwardError, StoreError
from onward.ports import Store
from onward.process import Entry, Record


@dataclass
class Said:
    """An error; without words, any of its kind."""

    kind: str
    words: str

    def __eq__(self, other: object) -> bool:
        alike = isinstance(other, Said) and self.kind == other.kind
        return alike and (self.words == other.words or "" in (self.words, other.words))


async def answer_of(work: Awaitable[Any]) -> Any:
    """What it answers, as all have to answer it: data as JSON values, written in one way; an error as what it said."""
    try:
        return _plain(await work)
    except OnwardError as error:
        kind = type(error)
        return Said(kind.__name__, "" if kind is StoreError else str(error))


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return replace(value, data=_spelled(value.data), process=None)
    if isinstance(value, Entry):
        return value if value.data is None else replace(value, data=_spelled(value.data))
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


@lru_cache
def _spelled(text: str) -> str:
    if not text:  # it stands for data that nobody asked for
        return text
    return json.dumps(json.loads(text), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


async def data_at(store: Store, id: str, version: int) -> str | None:
    kept = await store.data_at(id, version)
    return None if kept is None else f"{kept.version} {_spelled(kept.data)}"


def same(what: str, one: Any, other: Any) -> None:
    """Says where they differ: hundreds of fields are the same."""
    if one == other:
        return
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            same(f"{what} [{place}]", left, right)
    elif type(one) is type(other) and isinstance(one, Record | Entry):
        for field in fields(one):
            same(f"{what} .{field.name} of {one}", getattr(one, field.name), getattr(other, field.name))
    else:
        raise AssertionError(f"{what}: {one!r} and {other!r}")
