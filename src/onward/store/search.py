"""A search as SQL: through which list of rows it goes, and the one place where a statement is put together of parts.

The parts are named blocks of the .sql file and nothing else. A value stands in them as `:name`, and each of them is bound: of
what a person typed nothing gets into a statement. The order is always the same: the newest first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from onward.ports import Known, Search
from onward.process import Condition
from onward.query import Term, is_exact, is_place, pieces

FEW_MAX = 10_000  # rows that may be looked at as a whole, and sorted, for each page of a search

_VALUE = re.compile(r"(?<!:):([a-z]+)\b")  # `::` is a cast
_COMPARED = {"age": "term age", "in": "term in", "due": "term due", "attempt": "term attempt", "version": "term version"}
_SAME = {"flow": "term flow", "status": "term status", "id": "term id"}
_ALIKE = {"flow": "term flow like", "status": "term status like", "id": "term id like", "worker": "term worker"}
_LAST_CHARACTER, _SURROGATES = "\U0010ffff", range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class Part:
    """A block, and the values that stand in it."""

    block: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Way:
    """A list of rows in which is all that a search asks for, by the block that begins it.

    `in_order`: it comes in the order of the answer, so that it can be looked at a part at a time. Else it is looked at as a
    whole, and is to be taken only if each of the blocks `counted` counts FEW_MAX at the most.
    """

    head: Part
    in_order: bool = True
    counted: Sequence[Part] = ()


def ways(terms: Sequence[Term]) -> Iterator[Way]:
    """The lists that would do, the shortest first. The last one always does."""
    asked = [term for term in terms if not term.negated]
    ids, words = ([term.values for term in asked if term.qualifier == name] for name in ("id", ""))
    conditions = [term.conditions for term in asked if term.qualifier == "is"]
    held = any(term.qualifier == "worker" for term in asked)
    for values in ids:
        if all(map(is_exact, values)):
            yield Way(Part("list ids", {"ids": [pieces(value)[0] for value in values]}), in_order=False)
    for begin in filter(None, (_range(values) for values in ids)):
        yield Way(Part("list beginning", begin), in_order=False, counted=[Part("few beginning", begin)])
    if held or any(one <= {Condition.RUNNING} for one in conditions):
        yield Way(Part("list held"), in_order=False)
    if any(one <= {Condition.FAILED, Condition.PAUSED} for one in conditions):
        yield Way(Part("list stopped"))
    if any(term.qualifier == "error" for term in asked):
        yield Way(Part("list errors"))
    for begin in filter(None, map(_range, words)):
        few = [Part("few beginning", begin), Part("few errors", {"most": begin["most"]})]
        yield Way(Part("list words", begin), in_order=False, counted=few)
    yield Way(Part("list all"))


def _range(values: Sequence[str]) -> dict[str, Any] | None:
    """From the first text that begins as the value does, and up to the first one after all of those."""
    begin = pieces(values[0])[0].rstrip(_LAST_CHARACTER)
    if len(values) > 1 or not begin:
        return None
    after = ord(begin[-1]) + 1
    return {
        "low": begin,
        "high": begin[:-1] + chr(_SURROGATES.stop if after in _SURROGATES else after),
        "most": FEW_MAX + 1,
    }


# -- texts with stars, in the ways of databases -------------------------------------------------------------------


def like(value: str) -> str:
    return "%".join(re.sub(r"([%_\\])", r"\\\1", piece) for piece in pieces(value))


def glob(value: str) -> str:
    return "*".join(re.sub(r"([*?[])", r"[\1]", piece) for piece in pieces(value))


def json_paths(path: Sequence[str]) -> list[str]:
    """A path into JSON as SQLite writes it. A number may be a place in a list or the name of a field, so there are several."""
    steps = [(f'."{name}"', f"[{int(name)}]") if is_place(name) else (f'."{name}"',) for name in path]
    return [f"${''.join(choice)}" for choice in itertools.product(*steps)]


# -- statements ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between databases: the blocks, the pattern for a text with stars, and how it is told code that is known, and
    statuses with their flows.
    """

    blocks: Mapping[str, str]
    pattern: Callable[[str], str]
    known: Callable[[Known], Any]
    pairs: Callable[[Sequence[tuple[str, str]]], Any]

    def find(self, search: Search, way: Way, until: Sequence[Any] | None) -> tuple[str, dict[str, Any]]:
        """The statement that answers a search, and its values. `until`: when the last row that it may look at was made, and
        the id of that one.
        """
        last = [] if until is None else [Part("until", {"at": until[0], "id": until[1]})]
        terms = [self._term(term, search) for term in search.terms]
        tail = Part("found light" if search.light else "found", {"limit": search.limit})
        return self.statement([way.head, *_before(search), *last, *terms, tail])

    def place(self, search: Search, way: Way) -> tuple[str, dict[str, Any]]:
        """The statement that answers the last row of that list that the search may look at, and the one after it."""
        return self.statement([way.head, *_before(search), Part("found place", {"skipped": search.looks - 1})])

    def statement(self, parts: Sequence[Part]) -> tuple[str, dict[str, Any]]:
        """A value's name in the statement is that in its block, with the number of the part."""
        values: dict[str, Any] = {}
        texts = []
        for number, part in enumerate(parts):
            names = {name: f"{name}{number}" for name in sorted(part.values) if name in _VALUE.findall(self.blocks[part.block])}
            values |= {new: part.values[name] for name, new in names.items()}
            texts.append(_renamed(self.blocks[part.block], names))
        return "\n".join(texts), values

    def _term(self, term: Term, search: Search) -> Part:
        block, values = self._asked(term, search.known)
        if term.qualifier == "status":
            values["renamed"] = self.pairs([(flow, old) for flow, old, new in search.renamed if _matches(term, new)])
        return Part(block, {**values, "wanted": not term.negated})

    def _asked(self, term: Term, known: Known | None) -> tuple[str, dict[str, Any]]:
        patterns = [self.pattern(value) for value in term.values]
        match term.qualifier:
            case "":
                return "term word", {"beginning": self.pattern(f"{term.values[0]}*"), "part": f"%{like(term.values[0])}%"}
            case "is":
                conditions = {"conditions": sorted(condition.value for condition in term.conditions)}
                return ("term is", conditions) if known is None else ("term is known", {**conditions, "known": self.known(known)})
            case "error":
                return "term error", {"patterns": [f"%{like(value)}%" for value in term.values]}
            case "data":
                return "term data", {"path": list(term.path), "paths": json_paths(term.path), "patterns": patterns}
            case "updated":
                least, most = term.bounds
                return "term updated at" if isinstance(least, datetime) else "term updated", {"least": least, "most": most}
            case name if name in _COMPARED:
                return _COMPARED[name], {"least": term.bounds[0], "most": term.bounds[1]}
            case name if name in _SAME and all(map(is_exact, term.values)):
                return _SAME[name], {"values": [pieces(value)[0] for value in term.values]}
        return _ALIKE[term.qualifier], {"patterns": patterns}


def _matches(term: Term, status: str) -> bool:
    """Whether the term asks for that status."""
    return any(re.fullmatch(".*".join(map(re.escape, pieces(value))), status, re.DOTALL) for value in term.values)


def _before(search: Search) -> list[Part]:
    return [Part("before", {"id": search.before})] if search.before else []


def _renamed(block: str, names: Mapping[str, str]) -> str:
    return _VALUE.sub(lambda match: f":{names.get(match[1], match[1])}", block)


def numbered(statement: str, values: Mapping[str, Any], first: int) -> tuple[str, list[Any]]:
    """The same with `$1` … for its values, as PostgreSQL has it."""
    names = {name: f"${number}" for number, name in enumerate(values, first)}
    return re.sub(r"(?<!:):([a-z]+\d+)\b", lambda match: names[match[1]], statement), list(values.values())
