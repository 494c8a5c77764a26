r"""The language in which people say which processes they mean: `is:failed,paused flow:purchase error:"card*declined" age:>10m`.

All terms hold at once; commas part alternatives, a `-` before a term says that it does not hold. `*` is any text. In quotes
may stand what else would end a value; `\*` and `\"` are a star and a quote themselves. Nothing is looked up here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

from onward.codec import printable
from onward.errors import QueryError as QueryError  # where the language is, there its error is looked for
from onward.process import OVER, Condition
from onward.secret import KEY as SECRET

T = TypeVar("T")

QUERY_CHARS_MAX = 4_000
TERMS_MAX = 20
VALUES_MAX = 200  # alternatives of one term: a page of processes that a person chose fits in
STARS_MAX = 8  # in one value
PATH_MAX = 16  # names and places on the way into the data
PLACES_MAX = 3  # of these, those that are numbers: each may be a place in a list, or a name
LENGTH_MAX = timedelta(days=36_500)
NUMBER_MAX = 2**31 - 1

# What a term may ask for, as it is typed, and what it means. A word without any of these is the beginning of an id, or is
# found in an error.
QUALIFIERS = {
    "is": ("is:failed,paused", "in one of these conditions; `active` and `over` are several at once"),
    "status": ("status:a,b", "at one of these statuses"),
    "flow": ("flow:NAME", "of this flow"),
    "id": ("id:PREFIX*", "with this id, or with one that begins so"),
    "error": ('error:"Text with *"', "whose error holds this text, in capitals or not"),
    "data": (
        "data.path.to:value",
        "whose data has this text, number, true, false or null there; data.list.0 is the first of a list",
    ),
    "age": ("age:>10m", "started longer ago than that; units are s, m, h and d"),
    "in": ("in:>1h", "in this stage for longer than that"),
    "due": ("due:<5m", "due before so much time has passed"),
    "updated": ("updated:<1h", "changed less than an hour ago; or updated:>2026-11-20, after that day in UTC"),
    "attempt": ("attempt:>2", "in a later attempt than the second"),
    "version": ("version:>9", "past that version"),
    "worker": ("worker:NAME*", "held by this worker"),
}
TEXTS = frozenset({"", "status", "flow", "id", "error", "data", "worker"})  # whose values are any text, with `*`
LENGTHS = frozenset({"age", "in", "due"})
NUMBERS = frozenset({"attempt", "version"})
GROUPS = {"active": frozenset(Condition) - OVER, "over": OVER}
SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

_HEAD = re.compile(r'([A-Za-z_][^\s":]*):')
_QUOTED = re.compile(r'"((?:\\.|[^"\\])*)"', re.DOTALL)
_BARE, _WORD = re.compile(r'[^\s",]+'), re.compile(r'[^\s"]+')
_ESCAPE = re.compile(r'\\(["*\\])|(\\)', re.DOTALL)  # a backslash before anything else is a backslash
_PLAIN = re.compile(r"[\w.@/+*<>=-]+")  # what needs no quotes
_PIECE = re.compile(r"\\([*\\])|(\*)|([^\\*]+|\\)", re.DOTALL)
_NAME = re.compile(r'[^\s":.]+')
_COMPARED = re.compile(r"(>=|<=|>|<)?(.+)", re.DOTALL)
_LENGTH = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]*)")
_DAY = re.compile(r"(?:19|2[0-9])[0-9]{2}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+(?:Z|[+-][0-9:]+)?)?")
_EARLIEST, _LATEST = datetime(1000, 1, 1, tzinfo=UTC), datetime(5000, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Term:
    """One thing that is asked of a process. `qualifier` is one of QUALIFIERS, or '' for a word alone.

    Of the `values` one has to hold. In those of TEXTS a `*` is any text, and a star or backslash itself has a backslash before
    it: see `exactly`. `path` leads into the data. Raises QueryError for what means nothing.
    """

    qualifier: str
    values: tuple[str, ...]
    negated: bool = False
    path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.qualifier and self.qualifier not in QUALIFIERS:
            raise _unknown(self.qualifier)
        if len(self.values) > VALUES_MAX:
            raise QueryError(f"{self._name} has {len(self.values):,} alternatives; the limit is {VALUES_MAX}")
        if not all(self.values) or not self.values:
            raise QueryError(f"{self._name}: nothing to look for", hint=f"as in {self._example}")
        for text in (*self.values, *self.path):
            if len(text) > 2 * QUERY_CHARS_MAX:  # with a backslash before each character, it can be so long
                raise _too_long(len(text))
            if printable(text, len(text)) != text:
                raise QueryError(
                    f"{_short(text)} has a character in it that no process has", hint="leave it out, or type * for it"
                )
        self._check_path()
        if self.qualifier in TEXTS:
            if max(len(pieces(value)) for value in self.values) > STARS_MAX + 1:
                raise QueryError(f"{self._name}: more than {STARS_MAX} stars in one value")
        elif self.qualifier == "is":
            _ = self.conditions
        else:
            _ = self.bounds

    def _check_path(self) -> None:
        if (self.qualifier == "data") != bool(self.path):
            raise QueryError(
                f"{self.qualifier}: takes {'a' if self.qualifier == 'data' else 'no'} path", hint=f"as in {self._example}"
            )
        if not all(_NAME.fullmatch(name) for name in self.path):
            raise QueryError(
                f"{self._name}: a name in the data is empty, or has a space, dot, colon or quote in it",
                hint="such names cannot be asked for",
            )
        if len(self.path) > PATH_MAX or sum(is_place(name) for name in self.path) > PLACES_MAX:
            raise QueryError(f"{self._name}: more than {PATH_MAX} names, or more than {PLACES_MAX} numbers among them")
        if SECRET in self.path:
            raise QueryError(f"{self._name}: a secret cannot be asked for", hint="or the answers would tell it, piece by piece")

    @property
    def _name(self) -> str:
        return printable(".".join((self.qualifier, *self.path)), 40) or "a word"

    @property
    def _example(self) -> str:
        return QUALIFIERS[self.qualifier][0] if self.qualifier else '"two words"'

    @cached_property
    def conditions(self) -> frozenset[Condition]:
        """Of `is:`."""
        found: set[Condition] = set()
        for name in self.values:
            if name not in GROUPS and name not in list(Condition):
                known = [*Condition, *GROUPS]
                raise QueryError(
                    f"there is no condition {_short(name)}{nearest(name, known)}", hint=f"there are {', '.join(known)}"
                )
            found |= GROUPS.get(name) or {Condition(name)}
        return frozenset(found)

    @cached_property
    def bounds(self) -> tuple[timedelta, timedelta] | tuple[datetime, datetime] | tuple[int, int]:
        """The least and the most that is meant, both included; of what is compared: LENGTHS, NUMBERS and `updated`."""
        match = _COMPARED.fullmatch(self.values[0])
        if len(self.values) > 1 or match is None:
            raise QueryError(f"{self._name}: takes one value", hint=f"as in {self._example}")
        sign, text = match[1] or "", match[2].strip()
        if self.qualifier in NUMBERS:
            return self._numbers(sign, text)
        if self.qualifier == "updated" and _DAY.fullmatch(text):
            return self._instants(sign, text)
        return self._lengths(sign, text)

    def _numbers(self, sign: str, text: str) -> tuple[int, int]:
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise QueryError(f"{self._name}: {_short(text)} is no number", hint=f"as in {self._example}")
        number = int(text)
        return _between(sign, number, number, 1, (0, NUMBER_MAX))

    def _lengths(self, sign: str, text: str) -> tuple[timedelta, timedelta]:
        length = seconds(text)
        if length is None or length > LENGTH_MAX.total_seconds():
            raise QueryError(f"{self._name}: {_short(text)} is no duration", hint="write >30s, >5m, <2h or <1d")
        if not sign:
            raise QueryError(
                f"{self._name}: longer or shorter than {_short(text)}?",
                hint=f"write {self.qualifier}:>{text} or {self.qualifier}:<{text}",
            )
        exactly = timedelta(seconds=length)
        return _between(sign, exactly, exactly, _TICK, (-LENGTH_MAX * 2, LENGTH_MAX * 2))

    def _instants(self, sign: str, text: str) -> tuple[datetime, datetime]:
        try:
            first = datetime.fromisoformat(text)
        except ValueError:
            raise QueryError(f"{self._name}: {_short(text)} is no date", hint="write 2026-11-20 or 2026-11-20T08:30Z") from None
        first = first.replace(tzinfo=UTC) if first.tzinfo is None else first.astimezone(UTC)
        last = first + timedelta(days=1) - _TICK if len(text) == len("2026-11-20") else first
        return _between(sign, first, last, _TICK, (_EARLIEST, _LATEST))

    def __str__(self) -> str:
        """As it is typed; `parse` reads it back."""
        head = f"{'.'.join((self.qualifier, *self.path))}:" if self.qualifier else ""
        written = ",".join(value if _PLAIN.fullmatch(value) else _in_quotes(value) for value in self.values)
        if not head and not re.match(r"\w", written):  # not to be taken for a `-` of ours
            written = _in_quotes(self.values[0])
        return f"{'-' if self.negated else ''}{head}{written}"


Query = tuple[Term, ...]


def parse(text: str) -> Query:
    """The terms of a query. Raises QueryError, which says what to write instead."""
    if len(text) > QUERY_CHARS_MAX:
        raise _too_long(len(text))
    terms: list[Term] = []
    place = _after_space(text, 0)
    while place < len(text):
        if len(terms) == TERMS_MAX:
            raise QueryError(f"a query has at most {TERMS_MAX} terms", hint="commas join alternatives: status:a,b,c")
        term, place = _term(text, place)
        terms.append(term)
        if place < len(text) and not text[place].isspace():
            raise QueryError(
                f"{_short(text[place:])} stands right after {_short(str(term))}",
                hint="a space parts terms; quotes are around a whole value",
            )
        place = _after_space(text, place)
    if len(written := text_of(terms)) > QUERY_CHARS_MAX:  # quoted, it can be longer than it was
        raise _too_long(len(written))
    return tuple(terms)


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _term(text: str, place: int) -> tuple[Term, int]:
    """The term that begins there, and where it ends."""
    negated = text[place] == "-"
    place += negated
    if (head := _HEAD.match(text, place)) is None:
        value, place = _value(text, place, _WORD)
        return Term("", (value,), negated), place
    qualifier, *path = head[1].split(".")
    if qualifier not in QUALIFIERS:
        raise _unknown(qualifier)
    values: list[str] = []
    place = head.end()
    while True:
        value, place = _value(text, place, _BARE)
        values.append(value)
        if text[place : place + 1] != ",":
            return Term(qualifier, tuple(values), negated, tuple(path)), place
        place += 1


def _value(text: str, place: int, bare: re.Pattern[str]) -> tuple[str, int]:
    """'' where there is none."""
    if text[place : place + 1] == '"':
        if (quoted := _QUOTED.match(text, place)) is None:
            raise QueryError(f"{_short(text[place:])} has no closing quote", hint='a quote inside of quotes is written \\"')
        return _ESCAPE.sub(_escaped, quoted[1]), quoted.end()
    found = bare.match(text, place)
    return (_ESCAPE.sub(_escaped, found[0]), found.end()) if found else ("", place)


def _escaped(match: re.Match[str]) -> str:
    """As it stands in a term: a quote needs no backslash there, a star and a backslash have one."""
    return '"' if match[1] == '"' else f"\\{match[1] or match[2]}"


# -- texts with stars ---------------------------------------------------------------------------------------------


def literal(text: str) -> str:
    """A value that means this very text, whatever stars are in it."""
    return re.sub(r"([*\\])", r"\\\1", text)


def exactly(qualifier: str, *texts: str, negated: bool = False) -> Term:
    """A term that means these very texts."""
    return Term(qualifier, tuple(map(literal, texts)), negated)


def beginning(qualifier: str, text: str) -> Term:
    """A term that means whatever begins with this very text."""
    return Term(qualifier, (f"{literal(text)}*",))


def pieces(value: str) -> list[str]:
    """The texts between the stars of a value: one, if it has none."""
    found = [""]
    for escaped, star, plain in _PIECE.findall(value):
        if star:
            found.append("")
        else:
            found[-1] += escaped or plain
    return found


def is_exact(value: str) -> bool:
    return len(pieces(value)) == 1


def is_place(name: str) -> bool:
    """Whether a name on the way into the data may be the place in a list."""
    return re.fullmatch(r"[0-9]{1,9}", name) is not None


# -- as text again ------------------------------------------------------------------------------------------------


def text_of(terms: Iterable[Term]) -> str:
    """The query as it is typed; `parse` reads it back."""
    return " ".join(map(str, terms))


def quoted(text: str) -> str:
    """This very text as a value, to be put after `status:` or the like."""
    return _in_quotes(literal(text))


def _in_quotes(value: str) -> str:
    return '"' + value.replace('"', '\\"') + '"'


# -- words, numbers, durations ------------------------------------------------------------------------------------


def seconds(text: str) -> float | None:
    """Of a duration as people write it: `30`, `30s`, `5m`, `2h`, `1d`; None for anything else."""
    match = _LENGTH.fullmatch(text)
    return float(match[1]) * SECONDS[match[2]] if match and match[2] in SECONDS else None


def _between(sign: str, first: T, last: T, tick: Any, ends: tuple[T, T]) -> tuple[T, T]:
    """What `>` and the like leave of all that is between these ends, where the value is `first` to `last`."""
    after, before = last + tick, first - tick
    return {">": (after, ends[1]), ">=": (first, ends[1]), "<": (ends[0], before), "<=": (ends[0], last), "": (first, last)}[sign]


def nearest(word: str, words: Iterable[str]) -> str:
    """'; did you mean X?', or nothing."""
    near = difflib.get_close_matches(word, list(words), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _unknown(qualifier: str) -> QueryError:
    known = ", ".join(QUALIFIERS)
    return QueryError(
        f"there is no qualifier {_short(qualifier)}{nearest(qualifier, QUALIFIERS)}",
        hint=f"there are {known}; a text with a colon stands in quotes",
    )


def _too_long(chars: int) -> QueryError:
    return QueryError(f"a query of {chars:,} characters; the limit is {QUERY_CHARS_MAX:,}", hint="ask for less at once")


def _short(text: str) -> str:
    return repr(printable(text, 40))
