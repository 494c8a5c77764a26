"""The table that is the program: every status, the function that moves it on, and the policies of that stage.

A `Flow` is proven when it is defined: the edges are read from the handlers' return annotations, and everything that can
be wrong with the graph is said at once, in one `FlowError`. Nothing here does I/O, reads a clock or draws a number.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import typing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from types import UnionType
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar
from zlib import crc32

from onward.errors import DELAY_MAX, FlowError
from onward.process import Process
from onward.versions import Upgrade, faults_of

S = TypeVar("S", bound=StrEnum)
S_co = TypeVar("S_co", bound=StrEnum, covariant=True)

Duration = timedelta | float  # a number is seconds
Handler = Callable[..., Awaitable[S_co]] | Callable[..., S_co]
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

ATTEMPTS = 5
TIMEOUT = timedelta(minutes=10)  # of one attempt, where the table says nothing: none may last for ever
JITTER = 0.2  # a pause is up to a fifth longer, by a hash of the id: what failed together comes back apart


def in_seconds(duration: Duration) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def _in_bounds(what: str, duration: Duration) -> timedelta:
    if not 0 < in_seconds(duration) <= DELAY_MAX.total_seconds():
        raise ValueError(f"{what}={duration!r}: more than 0 s and at most {DELAY_MAX.days} days")
    return timedelta(seconds=in_seconds(duration))


def _spread(pause: float, longest: float, seed: str) -> timedelta:
    return timedelta(seconds=min(pause, longest) * (1 + JITTER * crc32(seed.encode("utf-8", "replace")) / 2**32))


class Retry:
    """How often a failing stage is tried, and the pauses between: `first` seconds, doubled up to `longest`."""

    __slots__ = ("attempts", "first", "longest")

    def __init__(self, attempts: int = ATTEMPTS, first: Duration = 1.0, longest: Duration = 300.0) -> None:
        self.attempts, self.first, self.longest = attempts, in_seconds(first), in_seconds(longest)
        if not 1 <= attempts <= 1_000_000 or not 0 <= self.first <= self.longest <= DELAY_MAX.total_seconds():
            raise ValueError(f"{self!r}: at least 1 attempt, and 0 <= first <= longest <= {DELAY_MAX.days} days")

    def __repr__(self) -> str:
        return f"Retry(attempts={self.attempts}, first={self.first:g}, longest={self.longest:g})"

    def pause(self, attempt: int, id: str) -> timedelta | None:
        """The pause after failed attempt number `attempt`, from 1. None: no attempt is left."""
        if attempt >= self.attempts:
            return None
        return _spread(self.first * 2.0 ** min(attempt - 1, 60), self.longest, f"{id}:{attempt}")


class Every:
    """How often a polling stage looks: after `seconds`, then each time half as long again, up to `longest`."""

    __slots__ = ("longest", "seconds")

    def __init__(self, seconds: float, longest: Duration | None = None) -> None:
        self.seconds = float(seconds)
        self.longest = self.seconds if longest is None else in_seconds(longest)
        if not 0 < self.seconds <= self.longest <= DELAY_MAX.total_seconds():
            raise ValueError(f"{self!r}: 0 < seconds <= longest <= {DELAY_MAX.days} days")

    def __repr__(self) -> str:
        return f"Every(seconds={self.seconds:g}, longest={self.longest:g})"

    def pause(self, polls: int, id: str) -> timedelta:
        """The pause after look number `polls`, from 0."""
        return _spread(self.seconds * 1.5 ** min(polls, 60), self.longest, f"{id}:{polls}")


class End:
    """The type of END, which stands in the table where a status has no handler because the process is over."""

    def __repr__(self) -> str:
        return "END"


END: Final = End()


@dataclass(frozen=True, slots=True)
class Stage(Generic[S_co]):
    """One line of the table: a handler and its policies; make it with `stage`.

    The last six fields are what the flow read from the handler and the table; before that they are empty.
    """

    handler: Handler[S_co]
    retry: Retry
    timeout: timedelta
    every: Every | None
    within: timedelta | None
    otherwise: S_co | None
    on_failure: S_co | None
    name: str = ""
    statuses: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    takes_context: bool = False
    is_async: bool = False
    limit_s: float = 0.0  # of one attempt: its timeout, or the stage's deadline if that is shorter


_RETRY = Retry()
_NOTHING: Mapping[Any, Any] = {}


def stage(
    handler: Handler[S],
    *,
    retry: Retry = _RETRY,
    timeout: Duration = TIMEOUT,
    every: Every | None = None,
    within: Duration | None = None,
    otherwise: S | None = None,
    on_failure: S | None = None,
) -> Stage[S]:
    """One line of the table, with policies.

    `timeout` bounds one attempt. `every` makes it a poll: the handler may return its own status, which means "not yet".
    `within` bounds the whole stage from its entry, polls, pauses and retries included; then the process goes to
    `otherwise`. `on_failure` is where it goes when attempts are used up or the handler raised `Unrecoverable`; without
    it the process stays where it is, *failed*, and waits for a person. Durations are timedeltas, or seconds.
    """
    return Stage(
        handler=handler,
        retry=retry,
        timeout=_in_bounds("timeout", timeout),
        every=every,
        within=None if within is None else _in_bounds("within", within),
        otherwise=otherwise,
        on_failure=on_failure,
    )


class Edge(NamedTuple):
    """One way from a status to another; `why` is the word for it in pictures ('' for what a handler returns)."""

    source: str
    target: str
    why: Literal["", "otherwise", "on_failure", "on_cancel"] = ""


class Flow(Generic[S]):
    """The table, proven. Raises `FlowError` with all its faults.

    `on_cancel` is the status at which a cancelled process goes on, so that its clean-up runs. `lifespan` is a function
    that returns an async context manager: entered once per worker, what it yields is `ctx.resources` in every handler.
    `name` is kept in every row (default: the model's name in snake_case): to rename the model, give the old name here.

    For processes in flight: `version` is that of the model's data, and `upgrade={1: f}` makes data of version 1 those of
    version 2: `f` takes them as a dict of JSON values, without id and status, and returns them. It may run any number of
    times. `renamed={"old name": Status.NEW}` is for rows at a status that has another name now.
    """

    def __init__(
        self,
        model: type[Process[S]],
        table: Mapping[S | tuple[S, ...], Stage[S] | Handler[S] | End],
        *,
        on_cancel: S | None = None,
        lifespan: Lifespan | None = None,
        name: str | None = None,
        version: int = 1,
        upgrade: Mapping[int, Upgrade] = _NOTHING,
        renamed: Mapping[str, S] = _NOTHING,
    ) -> None:
        self.model = model
        self.name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", getattr(model, "__name__", str(model))).lower()
        self.lifespan = lifespan
        faults: list[str] = []
        # Where the flow is defined inside a function, its enum may be a local of that function.
        caller = sys._getframe(1).f_locals
        self.status_type = _status_type(self.name, model)
        self.stages: dict[str, Stage[S] | None] = {}
        self.start = ""
        self.on_cancel: str | None = None
        _Reader(self, table, caller, faults).read(on_cancel)
        faults += faults_of(version, upgrade, renamed, self.status_type)
        if faults:
            raise FlowError(self.name, faults)
        self.version, self.upgrade = version, dict(upgrade)
        self.oldest = min(upgrade, default=version)  # the first version of the data that it can read
        self.renamed: dict[str, str] = {str(old): new.value for old, new in renamed.items()}

    @property
    def statuses(self) -> tuple[str, ...]:
        """Every status, in the order of the table."""
        return tuple(self.stages)

    @property
    def handled(self) -> list[tuple[str, str, int]]:
        """What code that has this flow can move: its name with each status that has a handler, also by an old name, and each
        version of data that it reads.
        """
        return [(flow, status, version) for flow, status, version in self.known if self.stages[self.today(status)] is not None]

    @property
    def known(self) -> list[tuple[str, str, int]]:
        """The same with the statuses that are an END. Not so an old name of an END: who stands there is over, or lost."""
        names = [*self.stages, *(old for old, new in self.renamed.items() if self.stages[new] is not None)]
        return [(self.name, status, version) for status in names for version in range(self.oldest, self.version + 1)]

    def knows(self, status: str, version: int) -> bool:
        """Whether it is one of those that are known."""
        is_known = status in self.stages or self.stages.get(self.today(status)) is not None
        return is_known and self.oldest <= version <= self.version

    def today(self, status: str) -> str:
        """What that status is called now."""
        return self.renamed.get(status, status)

    def is_end(self, status: str) -> bool:
        return self.stages[status] is None

    def edges(self) -> Iterator[Edge]:
        """Every way that the table allows, in the order of the table."""
        for status, line in self.stages.items():
            if line is None:
                continue
            order = [s for s in self.stages if s in line.targets]
            yield from (Edge(status, target) for target in order)
            if line.otherwise is not None:
                yield Edge(status, line.otherwise.value, "otherwise")
            if line.on_failure is not None:
                yield Edge(status, line.on_failure.value, "on_failure")
        if self.on_cancel is not None:
            for status, line in self.stages.items():
                if line is not None and status != self.on_cancel:
                    yield Edge(status, self.on_cancel, "on_cancel")

    def __repr__(self) -> str:
        return f"Flow({self.name}, {len(self.stages)} statuses)"


def _status_type(name: str, model: object) -> type[StrEnum]:
    if not (isinstance(model, type) and issubclass(model, Process)):
        raise FlowError(name, [f"{model!r} is no model: write `class Batch(Process[Status])`"])
    kind = model.model_fields["status"].annotation
    if not (isinstance(kind, type) and issubclass(kind, StrEnum) and len(kind)):
        written = f"class {model.__name__}(Process[Status])"
        raise FlowError(name, [f"{model.__name__} has no statuses of its own: write `{written}`, where Status is a StrEnum"])
    return kind


class _Reader:
    """Reads a table into `flow.stages` and collects what is wrong with it, instead of stopping at the first fault."""

    def __init__(self, flow: Flow[Any], table: Mapping[Any, Any], names: Mapping[str, Any], faults: list[str]) -> None:
        self.flow, self.table, self.faults = flow, table, faults
        self.enum: type[StrEnum] = flow.status_type
        # Context is often imported for the type checker only, and what it is does not matter here.
        self.names = {"Context": Any, **names, self.enum.__name__: self.enum, flow.model.__name__: flow.model}

    def read(self, on_cancel: Any) -> None:
        for key, entry in self.table.items():
            self._line(key if isinstance(key, tuple) else (key,), entry)
        for member in self.enum:
            if member.value not in self.flow.stages:
                self.faults.append(f"{self._word(member)} is not in the table: give it a handler, or END")
        self._start()
        if on_cancel is not None and self._member(on_cancel, "on_cancel"):
            self.flow.on_cancel = on_cancel.value
        if not self.faults:  # a graph with holes would only have more faults of the same cause
            self._graph()

    def _word(self, status: object) -> str:
        return f"{self.enum.__name__}.{status.name}" if isinstance(status, self.enum) else repr(status)

    def _member(self, status: object, where: str) -> bool:
        if isinstance(status, self.enum):
            return True
        self.faults.append(f"{where} {status!r} is no member of {self.enum.__name__}")
        return False

    def _line(self, keys: tuple[Any, ...], entry: object) -> None:
        known = [key for key in keys if self._member(key, "the table's")]
        if not keys:
            self.faults.append("a line of the table names no status: ()")
            return
        line: Stage[Any] | None = None
        if entry is not END:
            declared = entry if isinstance(entry, Stage) else stage(entry) if callable(entry) else None
            if declared is not None and not callable(declared.handler):
                self.faults.append(f"{self._word(keys[0])} has stage({declared.handler!r}): give it a handler")
            elif declared is None:
                self.faults.append(f"{self._word(keys[0])} has {entry!r}: give it a handler, stage(...), or END")
            else:
                line = self._stage(declared, frozenset(key.value for key in known))
        for key in known:
            if key.value in self.flow.stages:
                self.faults.append(f"{self._word(key)} stands in the table twice")
            self.flow.stages[key.value] = line

    def _stage(self, declared: Stage[Any], statuses: frozenset[str]) -> Stage[Any]:
        handler = declared.handler
        name = _name(handler)
        positional = self._parameters(name, handler)
        hints = self._hints(name, handler)
        targets = self._targets(name, hints)
        if positional and hints:
            self._model_fits(name, positional[0], hints)
        if not isinstance(declared.retry, Retry):
            self.faults.append(f"{name} has retry={declared.retry!r}: write retry=Retry(attempts=...)")
        if not isinstance(declared.every, Every | None):
            self.faults.append(f"{name} has every={declared.every!r}: write every=Every(seconds=...)")
        own = sorted(statuses & targets)
        if targets and own and not declared.every:
            self.faults.append(
                f"{name} may return its own status {own[0]!r}, which means 'not yet': "
                "say how often to look, every=Every(seconds=...)"
            )
        if targets and declared.every and not own:
            self.faults.append(f"{name} has every=..., but never returns its own status {sorted(statuses)}: nothing to wait for")
        for what, status in (("otherwise", declared.otherwise), ("on_failure", declared.on_failure)):
            if status is not None and self._member(status, f"{name}: {what}") and status.value in statuses:
                self.faults.append(f"{name}: {what} leads back to its own stage {status.value!r}")
        if (declared.within is None) != (declared.otherwise is None):
            self.faults.append(f"{name}: within and otherwise belong together: a deadline has to lead somewhere")
        return replace(
            declared,
            name=name,
            statuses=statuses,
            targets=targets,
            takes_context=len(positional) > 1,
            is_async=any(map(inspect.iscoroutinefunction, (handler, type(handler).__call__))),
            limit_s=min(declared.timeout, declared.within or declared.timeout).total_seconds(),
        )

    def _parameters(self, name: str, handler: Callable[..., Any]) -> list[str]:
        try:
            parameters = inspect.signature(handler).parameters.values()
        except (TypeError, ValueError):
            self.faults.append(f"{name} has no signature that can be read: write it as a function")
            return []
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        required = [p for p in positional[2:] if p.default is p.empty]
        required += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
        if not positional or required:
            self.faults.append(f"{name}: a handler takes (process) or (process, ctx)")
        return [p.name for p in positional[:2] if p.default is p.empty]

    def _hints(self, name: str, handler: Callable[..., Any]) -> dict[str, Any]:
        function = handler.func if isinstance(handler, functools.partial) else handler
        if not inspect.isroutine(function):
            function = function.__call__  # type: ignore[operator]  # an object with __call__; its signature was read above
        names = self.names
        if "<locals>" not in getattr(function, "__qualname__", ""):  # its names mean what they mean in its own module
            names = {**names, **getattr(inspect.unwrap(function), "__globals__", {})}
        try:
            return typing.get_type_hints(function, localns=names)
        except (NameError, AttributeError, SyntaxError, TypeError) as error:
            self.faults.append(
                f"{name}: its annotations cannot be read ({error}): define the names at the top of the module, "
                "or drop `from __future__ import annotations` there"
            )
            return {}

    def _targets(self, name: str, hints: Mapping[str, Any]) -> frozenset[str]:
        if not hints and self.faults and self.faults[-1].startswith(f"{name}: its annotations"):
            return frozenset()
        returned = hints.get("return")
        members = list(_literals(returned)) if returned is not None else []
        if not members or None in members:
            example = next(iter(self.enum))
            self.faults.append(
                f"{name}: say in the return annotation which statuses it may return, "
                f"like `-> Literal[{self.enum.__name__}.{example.name}]`"
            )
            return frozenset()
        return frozenset(m.value for m in members if self._member(m, f"{name}: its target"))

    def _model_fits(self, name: str, parameter: str, hints: Mapping[str, Any]) -> None:
        wanted = hints.get(parameter)
        if not _may_take(wanted, self.flow.model):
            kind = getattr(wanted, "__name__", wanted)
            self.faults.append(f"{name} takes a {kind}, but the flow's model is {self.flow.model.__name__}")

    def _start(self) -> None:
        default = self.flow.model.model_fields["status"].default
        if isinstance(default, self.enum):
            self.flow.start = default.value
        else:
            example = next(iter(self.enum))
            self.faults.append(
                f"{self.flow.model.__name__} does not say where it starts: "
                f"`status: {self.enum.__name__} = {self.enum.__name__}.{example.name}`"
            )

    def _graph(self) -> None:
        ends = [status for status, line in self.flow.stages.items() if line is None]
        if not ends:
            self.faults.append("no status is END: a process could never be over")
            return
        edges = list(self.flow.edges())
        reached = _closure([self.flow.start], edges)
        ending = _closure(ends, [Edge(e.target, e.source) for e in edges if e.why != "on_cancel"])
        for member in self.enum:
            if member.value not in reached:
                self.faults.append(f"{self._word(member)} cannot be reached from the start {self.flow.start!r}")
            elif member.value not in ending:
                self.faults.append(f"{self._word(member)} never leads to an END: the process would run for ever")


def _name(handler: object) -> str:
    function = handler.func if isinstance(handler, functools.partial) else handler
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]


def _literals(annotation: Any) -> Iterator[Any]:
    """The members that a return annotation names; None for anything that is no Literal."""
    annotation = getattr(annotation, "__value__", annotation)  # of `type Next = Literal[...]`
    origin = typing.get_origin(annotation)
    if origin is Literal:
        yield from typing.get_args(annotation)
    elif origin in (typing.Union, UnionType):
        for part in typing.get_args(annotation):
            yield from _literals(part)
    else:
        yield None


def _may_take(annotation: Any, model: type) -> bool:
    """Whether a parameter of that annotation may be given a `model`. In doubt it may: the type checker knows better."""
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return any(_may_take(part, model) for part in parts)
    kind = typing.get_origin(annotation) or annotation
    generic = getattr(kind, "__pydantic_generic_metadata__", {})  # Process[Any] is a class of its own to pydantic
    if Any in generic.get("args", ()):
        kind = generic["origin"]
    try:
        return kind is Any or not isinstance(kind, type) or issubclass(model, kind)
    except TypeError:  # a protocol or a TypedDict: nobody can ask them
        return True


def _closure(start: Iterable[str], edges: Iterable[Edge]) -> set[str]:
    follow: dict[str, list[str]] = {}
    for edge in edges:
        follow.setdefault(edge.source, []).append(edge.target)
    seen, todo = set(start), list(start)
    while todo:
        for target in follow.get(todo.pop(), ()):
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return seen
