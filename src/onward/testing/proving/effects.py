"""What a run did to the world, act by act, and how two runs are compared by it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

MAKING = frozenset({"POST"})  # the other methods may be repeated, or change nothing
READING = ("GET ", "HEAD ", "OPTIONS ")
GONE = (404, 410)
ID_CHARS_MIN = 6  # a shorter one may stand in a text by chance


@dataclass
class Act:
    """An act of `ctx.once` or `ctx.map` that was run to its end."""

    handler: str
    visit: int
    name: str
    place: str
    keyed: bool  # it was given ctx.key, so its receiver can tell that it is asked again
    observed: bool = False  # something finer was seen inside of it: a request, a file


@dataclass
class Request:
    """A request that was answered, whether or not the answer arrived."""

    method: str
    url: str
    path: str
    body: bytes
    key: str  # Idempotency-Key, or ''
    act: Act | None = None  # in which it was asked
    program: str = ""
    status: int = 0
    made: str = ""  # the id of what it made

    @property
    def worked(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class Effects:
    acts: list[Act] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def ids(self) -> list[str]:
        """Of what was made: another one in each run."""
        return sorted({request.made for request in self.requests if request.made}, key=len, reverse=True)

    def noted(self, request: Request) -> None:
        if any(request.made == before.made for before in self.requests):  # it answers what was there
            request.made = ""
        self.requests.append(request)

    def plain(self, text: str) -> str:
        """Without those ids, so that the texts of two runs can be compared."""
        for id in self.ids():
            if len(id) >= ID_CHARS_MIN:
                text = text.replace(id, "*")
        return text

    def pattern(self, request: Request) -> str:
        ids = self.ids()
        return f"{request.method} {'/'.join('*' if part in ids else part for part in request.path.split('/'))}"

    def standing(self) -> list[Request]:
        """What made something that nobody deleted again: such a request was made for good."""
        there: dict[str, Request] = {}
        for number, request in enumerate(self.requests):
            if request.method in MAKING and request.worked:
                there[f"{request.path.rstrip('/')}/{request.made}" if request.made else f"{number}"] = request
            elif request.method == "DELETE" and (request.worked or request.status in GONE):
                there.pop(request.path.rstrip("/"), None)
        return list(there.values())

    def alive(self) -> list[str]:
        """What was made and not deleted, by what made it."""
        return sorted(self.pattern(request) for request in self.standing() if request.made)

    def counts(self, requests: Iterable[Request]) -> Counter[str]:
        """How often each pattern worked; once for each Idempotency-Key."""
        seen = {(self.pattern(each), each.key or at) for at, each in enumerate(requests) if each.worked}
        return Counter(pattern for pattern, _ in seen)


def done_twice(effects: Effects, repeatable: frozenset[str], unobserved: set[tuple[str, str]]) -> Iterator[str]:
    """What was done again, and not undone, though nobody can tell that it is the same."""
    acts = Counter(
        (act.handler, act.visit, act.name)
        for act in effects.acts
        if (act.handler, act.place) in unobserved and not act.keyed and not {act.name, act.place} & repeatable
    )
    for (handler, _, name), times in acts.items():
        if times > 1:
            yield f"the act {name!r} of {handler} was done {times} times, and was not given ctx.key"
    keys: dict[tuple[str, str, bytes], list[str]] = {}
    for request in effects.standing():
        keys.setdefault((effects.pattern(request), request.path, request.body), []).append(request.key)
    for (pattern, _, _), given in keys.items():
        times = len(set(given)) if "" not in given else len(set(given) - {""}) + given.count("")
        if times > 1 and pattern not in repeatable:
            how = "each time with another Idempotency-Key" if "" not in given else "without an Idempotency-Key"
            yield f"{pattern} was done {times} times with the same content, {how}"


def counted(effects: Effects, expected: Effects, repeatable: frozenset[str], unobserved: set[tuple[str, str]]) -> Iterator[str]:
    """More or fewer than undisturbed."""
    more = effects.counts(effects.standing()) - expected.counts(expected.requests)
    for pattern, number in sorted(more.items()):
        if pattern not in repeatable:
            yield f"{pattern} was done {number} time{'s' if number > 1 else ''} more than undisturbed"
    missing = expected.counts(expected.requests) - effects.counts(effects.requests)
    for pattern, number in sorted(missing.items()):
        if not pattern.startswith(READING):
            yield f"{pattern} was done {number} time{'s' if number > 1 else ''} less than undisturbed"
    names, wanted = ({(act.handler, act.place) for act in each.acts} for each in (effects, expected))
    for handler, name in sorted((wanted & unobserved) - names):
        yield f"the act {name!r} of {handler} was never done"


def more_than(found: Iterable[str], expected: Iterable[str], repeatable: frozenset[str] = frozenset()) -> Mapping[str, int]:
    """Names that are there more often."""
    return {name: number for name, number in (Counter(found) - Counter(expected)).items() if name not in repeatable}


_BOUNDARY = re.compile(r"boundary=\"?([^\";]+)")


def without_boundary(body: bytes, content_type: str) -> bytes:
    """The parts of a form are divided by a line that is another one each time."""
    found = _BOUNDARY.search(content_type)
    return body.replace(found.group(1).encode("latin-1"), b"boundary") if found else body
