"""Failures of one kind, so that a person looks at one of them and acts on all.

A group is what its query finds, neither more nor less. So the kinds of one stage stand in an order, those with the most
literal text first; a failure belongs to the first kind whose pattern it matches, and the query of a kind leaves out what
the kinds before it take away.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import combinations

from onward.errors import QueryError
from onward.process import Condition, Record
from onward.query import STARS_MAX, Term, exactly, literal, parse, text_of
from onward.telling.text import one_line

KINDS_MAX = 50  # of one stage; the others are told together
IDS_MAX = 10  # of the others, that are asked for by name; more of them cannot be asked for as a group
EXCLUDED_MAX = 5  # kinds that the query of another one leaves out: nobody reads longer ones
LINE_CHARS_MAX = 200  # of the error's first line
LITERAL_CHARS_MIN = 4  # a pattern with less text of its own finds anything
OTHERS = "other errors"
LEFT_OUT = "…"

# What is different each time: numbers, and words with a digit in them, such as ids. But of the place in the code, as an
# attempt records it, only the line: it changes with each deploy, file and function seldom do.
_CHANGING = re.compile(r"(?P<before> \([^()\s]+:)\d+(?P<after> in [^()\s]+\))|[\w-]*\d[\w-]*(?:[.:/+]+[\w-]*\d[\w-]*)*", re.ASCII)
_FRAME = re.compile(r'^ *File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>[^\n]+)$', re.MULTILINE)
_RAISED = re.compile(r"^(?P<type>[A-Za-z_][\w.]*)(?=:|$)", re.MULTILINE)
_LIBRARY = re.compile(r"[/\\](site-packages|dist-packages|python3[^/\\]*)[/\\]|^<frozen")


@dataclass(frozen=True)
class Kind:
    """What errors that mean the same are called, and the literal `pieces` that stand in each of them, in that order."""

    label: str
    pieces: tuple[str, ...]

    @property
    def weight(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def pattern(self) -> str:
        """The value of a term of the query language: `*` is any text."""
        return "*".join(map(literal, self.pieces))

    @cached_property
    def _sought(self) -> list[bytes]:
        return [_folded(piece) for piece in self.pieces]

    @cached_property
    def _longest(self) -> bytes:
        return max(self._sought, key=len, default=b"")

    def may_be_in(self, text: bytes) -> bool:
        """A fast look, also at many errors that were joined to one text."""
        return self._longest in text

    def matches(self, text: bytes) -> bool:
        place = 0
        for piece in self._sought:
            place = text.find(piece, place)
            if place < 0:
                return False
            place += len(piece)
        return True


@dataclass(frozen=True)
class Group:
    """`number` failures of one kind at one stage; `sample` is the newest of them, `first` and `last` are when they failed.

    `is_exact`: `query` finds these and no others. Otherwise it finds all failures of that stage, or is '' where even the names
    of flow and status are such that nobody can ask for them.
    """

    flow: str
    status: str
    error: str
    number: int
    first: datetime
    last: datetime
    sample: Record
    query: str
    is_exact: bool = True


@dataclass(frozen=True)
class Frame:
    """One line of a traceback."""

    file: str
    line: int
    function: str

    @property
    def is_library(self) -> bool:
        return _LIBRARY.search(self.file) is not None

    @property
    def name(self) -> str:
        return re.split(r"[/\\]", self.file)[-1]


# -- one error ----------------------------------------------------------------------------------------------------


def kind_of(error: str) -> Kind:
    """By its traceback, where the text has one: the type, and the last place in the user's code. Else by its first line."""
    frames = frames_of(error)
    if frames:
        return _by_frames(error, frames)
    line = error.partition("\n")[0]
    if len(line) > LINE_CHARS_MAX:  # no half of a word: it may be one that changes
        line = line[:LINE_CHARS_MAX].rpartition(" ")[0] or line[:LINE_CHARS_MAX]
    literals = _literals(line)
    return _kind(LEFT_OUT.join(literals), tuple(literals))


def frames_of(error: str) -> list[Frame]:
    """The frames of a traceback in it, as they stand there; most errors have none."""
    return [Frame(found["file"], int(found["line"]), found["function"]) for found in _FRAME.finditer(error)]


def _by_frames(error: str, frames: Sequence[Frame]) -> Kind:
    *_, end = (found.end() for found in _FRAME.finditer(error))
    raised = _RAISED.search(error, end)
    name = raised["type"] if raised else one_line(error, LINE_CHARS_MAX).partition(":")[0]
    place = next((frame for frame in reversed(frames) if not frame.is_library), frames[-1])
    return _kind(f"{name} at {place.name} in {place.function}", (place.name + '", line ', f", in {place.function}", name))


@lru_cache(maxsize=1_000)
def _kind(label: str, literals: tuple[str, ...]) -> Kind:
    pieces = [piece for text in literals for piece in _pieces(text)]
    return Kind(one_line(label, LINE_CHARS_MAX), tuple(pieces[: STARS_MAX + 1]))


def _literals(line: str) -> list[str]:
    """What stands between the parts that change."""
    return _CHANGING.sub(lambda part: f"{part['before']}\0{part['after']}" if part["before"] else "\0", line).split("\0")


def _pieces(text: str) -> list[str]:
    """What of it can stand in a query: all but characters that do not print."""
    return [piece for piece in "".join(letter if letter.isprintable() else "\0" for letter in text).split("\0") if piece]


def _folded(text: str) -> bytes:
    """Only ASCII letters lose their case, as in the query language."""
    return text.encode("utf-8", "replace").lower()


# -- many of them -------------------------------------------------------------------------------------------------


def grouped(records: Iterable[Record], within: Sequence[Term] = ()) -> list[Group]:
    """The largest groups first. Records without an error are left out, unless they failed. `within`: what was asked for to find
    these records, so that the query of a group finds no others either.
    """
    stages: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.error is not None or record.condition is Condition.FAILED:
            stages[record.flow, record.status].append(record)
    groups = [group for stage in stages.values() for group in _groups_of(stage, within)]
    return sorted(groups, key=lambda group: (-group.number, group.flow, group.status, group.error))


class _Sorted:
    """The failures of one stage, shared out among `kinds`."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.texts = [_folded(record.error or "") for record in records]
        by_kind: dict[Kind, list[int]] = defaultdict(list)
        for place, record in enumerate(records):
            by_kind[kind_of(record.error or "")].append(place)
        self.by_kind = by_kind
        most = sorted(by_kind, key=lambda kind: (-len(by_kind[kind]), kind.label))
        self.kinds = sorted(
            (kind for kind in most[:KINDS_MAX] if kind.weight >= LITERAL_CHARS_MIN),
            key=lambda kind: (-kind.weight, kind.pattern),
        )
        while True:
            self._share_out()
            crowd = self._too_much()
            if not crowd:
                return
            self.kinds = [kind for kind in self.kinds if kind not in crowd]

    def _share_out(self) -> None:
        """Each to the first kind that it matches; `excluded` of a kind are those before it that took some from it."""
        self.members: dict[Kind, list[int]] = {kind: list(self.by_kind[kind]) for kind in self.kinds}
        self.others = [place for kind, places in self.by_kind.items() if kind not in self.members for place in places]
        self.excluded: dict[Kind, list[Kind]] = {kind: [] for kind in self.kinds}
        for kind in self.kinds:
            self._take(kind, self.others)
        joined = {kind: self._joined(kind) for kind in self.kinds}
        for before, kind in combinations(self.kinds, 2):
            if before.may_be_in(joined[kind]):
                self._take(before, self.members[kind])
        joined = {kind: self._joined(kind) for kind in self.kinds}
        for before, kind in combinations(self.kinds, 2):
            if kind.may_be_in(joined[before]) and any(kind.matches(self.texts[place]) for place in self.members[before]):
                self.excluded[kind].append(before)

    def _joined(self, kind: Kind) -> bytes:
        return b"\0".join([self.texts[place] for place in self.members[kind]])

    def _take(self, kind: Kind, places: list[int]) -> None:
        """Those that match go from `places` to this kind."""
        taken = {place for place in places if kind.may_be_in(self.texts[place]) and kind.matches(self.texts[place])}
        if taken:
            places[:] = [place for place in places if place not in taken]
            self.members[kind] += sorted(taken)

    def _too_much(self) -> set[Kind]:
        """The kinds to do without, so that no query leaves out too many others."""
        crowd: set[Kind] = set()
        for kind, excluded in self.excluded.items():
            extra = sorted(excluded, key=lambda one: len(self.members[one]))[: max(0, len(excluded) - EXCLUDED_MAX)]
            if extra:
                crowd |= {kind} if len(self.members[kind]) < sum(len(self.members[one]) for one in extra) else set(extra)
        return crowd


def _groups_of(records: Sequence[Record], within: Sequence[Term]) -> list[Group]:
    found = _Sorted(records)
    asked = [term for term in within if term.negated or term.qualifier not in ("flow", "status")]  # these are said anyway
    groups = []
    for kind, places in found.members.items():
        if places:
            terms = [Term("error", (kind.pattern,))]
            if others := found.excluded[kind]:
                terms.append(Term("error", tuple(other.pattern for other in others), negated=True))
            groups.append(_group(kind.label, [records[place] for place in places], [*asked, *terms], is_exact=True))
    if found.others:
        rest = [records[place] for place in found.others]
        few = len(rest) <= IDS_MAX
        ids = [exactly("id", *(record.id for record in rest))] if few else []
        groups.append(_group(OTHERS, rest, [*asked, *ids], is_exact=few))
    return groups


def _group(label: str, records: Sequence[Record], terms: Sequence[Term], *, is_exact: bool) -> Group:
    sample = max(records, key=lambda record: (record.updated_at, record.id))
    failed = all(record.condition is Condition.FAILED for record in records)
    condition = Term("is", ("failed" if failed else "active",))
    query = stage_query(sample.flow, sample.status, condition, *(term for term in terms if term != condition))
    return Group(
        flow=sample.flow,
        status=sample.status,
        error=label,
        number=len(records),
        first=min(record.updated_at for record in records),
        last=sample.updated_at,
        sample=sample,
        query=query,
        is_exact=is_exact and query != "",
    )


def stage_query(flow: str, status: str, *terms: Term) -> str:
    """What stands at this status of this flow. '' where one of the names is such that nobody can ask for it."""
    try:
        return text_of(parse(text_of([exactly("flow", flow), exactly("status", status), *terms])))
    except QueryError:  # also where it is too long to be typed
        return ""
