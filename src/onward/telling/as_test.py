"""A pytest file made of a process: it begins as that was at a version, and fails where production failed.

Nothing of the data becomes code: it stands there as the literals of JSON values, or in comments of one line each.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onward.secret import KEY, is_secret
from onward.telling.text import one_line

COMMENT_CHARS_MAX = 2_000
NAME_CHARS_MAX = 40  # of an id, or of a status, in the name of the test
LEVELS_MAX = 50  # of nested literals; Python reads no more than about a hundred, so what is deeper is read by json
DAYS = 30  # of virtual time

_HOLDERS: dict[type, Any] = {str: "placeholder", bool: False, int: 0, float: 0.0, list: [], dict: {}}


@dataclass(frozen=True)
class Case:
    """What the test is made of. `module` and `attribute` name the app; `data` are JSON values as stored, without secrets.

    `whole`: it goes on until the process rests, and not only until it leaves its stage. `told` are lines for its comment.
    """

    module: str
    attribute: str
    flow: str
    id: str
    status: str
    data: Any
    data_version: int
    days: int
    whole: bool
    told: Sequence[str]


def test_file(case: Case) -> str:
    helpers = "run_to_rest, stored" if case.whole else "only_stage, run_to_rest, stored"
    first, _, rest = case.attribute.partition(".")
    data = literal(case.data)
    return "\n".join(
        [
            '"""A process as it stood in production, and what has to come of it. Made by `onward export`."""',
            "",
            "from __future__ import annotations",
            "",
            *(["import json"] if "json.loads(" in data else []),
            "from datetime import timedelta",
            "",
            f"from {case.module} import {first}",
            "",
            f"from onward.testing import {helpers}",
            "",
            *map(comment, case.told),
            f"FLOW = {case.flow!r}",
            f"ID = {case.id!r}",
            f"STATUS = {case.status!r}",
            f"DATA = {data}",
            "",
            "",
            f"def test_{named(case.id)}_{'comes_to_its_end_from' if case.whole else 'gets_past'}_{named(case.status)}() -> None:",
            f"    flow = {first}{'.' if rest else ''}{rest}.flows[FLOW]",
            f"    process = stored(flow, id=ID, status=STATUS, data=DATA, version={case.data_version})",
            "    # The handlers run, in virtual time. For what they reach outside, hand in stand-ins: resources=...",
            *(f"    {line}" for line in _asserted(case)),
            "",
        ]
    )


def _asserted(case: Case) -> Iterator[str]:
    until = f"until=timedelta(days={case.days})"
    if case.whole:
        yield f"ran = run_to_rest(flow, process, {until})"
        yield 'assert ran.condition == "finished", f"{ran.condition} at {ran.status}: {ran.record.error}"'
    else:
        yield f"ran = run_to_rest(only_stage(flow, process.status), process, {until})"
        yield "last = ran.history[-1]"
        yield 'assert last.kind == "moved", f"{last.kind} at {last.to_status}: {last.reason}"'


def can_be_imported(module: str, attribute: str) -> bool:
    """Whether Python has a statement that imports it by these names."""
    parts = [*module.split("."), *attribute.split(".")]
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)


def comment(text: str) -> str:
    """One line, in which nothing but what can be seen is left."""
    seen = "".join(letter if letter.isprintable() else " " for letter in one_line(text, COMMENT_CHARS_MAX))
    return f"# {seen}".rstrip()


def named(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower())[:NAME_CHARS_MAX].strip("_") or "it"


def without_secrets(value: Any, path: str = "$") -> tuple[Any, list[str]]:
    """The value with a placeholder in the place of each secret, and the paths of these. The marks of secrets stay."""
    if is_secret(value):
        return {KEY: _HOLDERS.get(type(value[KEY]))}, [path]
    found: list[str] = []

    def inner(one: Any, step: str) -> Any:
        made, paths = without_secrets(one, path + step)
        found.extend(paths)
        return made

    if isinstance(value, dict):
        return {key: inner(one, f".{key}") for key, one in value.items()}, found
    if isinstance(value, list):
        return [inner(one, f"[{number}]") for number, one in enumerate(value)], found
    return value, found


# -- literals -----------------------------------------------------------------------------------------------------


def literal(value: Any, indent: int = 0, level: int = 0) -> str:
    """A JSON value as Python writes it: `ast.literal_eval` reads it back, but for what is nested very deep."""
    if level > LEVELS_MAX and isinstance(value, dict | list) and value:
        return f"json.loads({json.dumps(value)!r})"
    if isinstance(value, dict) and value:
        inner = (f"{key!r}: {literal(one, indent + 4, level + 1)}," for key, one in value.items())
        return _block("{", inner, "}", indent)
    if isinstance(value, list) and value:
        return _block("[", (f"{literal(one, indent + 4, level + 1)}," for one in value), "]", indent)
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    return repr(value)


def _block(begin: str, lines: Iterator[str], end: str, indent: int) -> str:
    margin = " " * indent
    return "\n".join([begin, *(f"{margin}    {line}" for line in lines), f"{margin}{end}"])
