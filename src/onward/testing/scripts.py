"""What could come of each attempt of a flow's stages, for Hypothesis: it looks for a history that breaks what you assert, and
shrinks it to the shortest one.

    @given(outcomes(flow))
    def test_a_parcel_is_never_lost(script):
        ran = run_to_rest(flow, Parcel(address="12 Harbour Street"), outcomes=script)
        assert ran.condition is not Condition.FAILED

A script says for a stage, by the name of its handler, what its first attempts come to; all later ones run the handler.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from onward.errors import NotFound, RetryAfter, Unrecoverable
from onward.flow import Flow, Stage

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

ATTEMPTS_MAX = 4  # of a stage with an outcome of their own: few bad histories need more, and short ones can be read
PAUSE = timedelta(minutes=1)
HANG_S = 10.0 * 365 * 86_400  # longer than any timeout


@dataclass(frozen=True)
class Runs:
    """The handler runs."""


@dataclass(frozen=True)
class Says:
    """The handler does not run, and this status is returned in its place."""

    status: str


@dataclass(frozen=True)
class Fails:
    """An error that may pass, before or after all that the handler does."""

    after: bool = False


@dataclass(frozen=True)
class AsksToWait:
    """RetryAfter, as when a service says so."""


@dataclass(frozen=True)
class GivesUp:
    """Unrecoverable."""


@dataclass(frozen=True)
class Hangs:
    """It never answers, until its timeout cuts it off."""


Outcome = Runs | Says | Fails | AsksToWait | GivesUp | Hangs
Script = Mapping[str, Sequence[Outcome]]


def outcomes(flow: Flow[Any], *, longest: int = ATTEMPTS_MAX) -> SearchStrategy[dict[str, list[Outcome]]]:
    """Scripts for this flow, with at most `longest` outcomes for a stage. Needs Hypothesis: pip install hypothesis."""
    from hypothesis import strategies as st

    def of(line: Stage[Any]) -> SearchStrategy[list[Outcome]]:
        # Each is tried in the place of those after it when a history is shrunk: what ends a stage at once makes it short.
        kinds: list[Outcome] = [Runs(), GivesUp(), Fails(), Fails(after=True), AsksToWait(), Hangs()]
        kinds += [Says(status) for status in flow.statuses if status in line.targets]
        return st.lists(st.sampled_from(kinds), min_size=1, max_size=longest)

    lines = {line.name: of(line) for line in flow.stages.values() if line is not None}
    return st.fixed_dictionaries({}, optional=lines)


def scripted(flow: Flow[Any], script: Script) -> Flow[Any]:
    """The same flow, whose attempts come to what the script says. NotFound for a handler that it has not."""
    names = {line.name for line in flow.stages.values() if line is not None}
    for name in script:
        if name not in names:
            raise NotFound(f"{flow.name} has no handler {name!r}", hint=f"it has: {', '.join(sorted(names))}")
    left = {name: iter(script.get(name, ())) for name in names}
    changed = copy.copy(flow)
    changed.stages = {
        status: line and replace(line, handler=_handler(flow, line, left[line.name]), takes_context=True, is_async=True)
        for status, line in flow.stages.items()
    }
    return changed


def _handler(flow: Flow[Any], line: Stage[Any], left: Iterator[Outcome]) -> Any:
    async def handler(process: Any, ctx: Any) -> Any:
        outcome = next(left, Runs())
        match outcome:
            case Says(status):
                return flow.status_type(status)
            case AsksToWait():
                raise RetryAfter(PAUSE, "the script says so")
            case GivesUp():
                raise Unrecoverable("the script says so")
            case Hangs():
                await asyncio.sleep(HANG_S)
            case Fails(after=False):
                raise RuntimeError("the script says so")
        answer = line.handler(process, ctx) if line.takes_context else line.handler(process)
        status = await answer if inspect.isawaitable(answer) else answer
        if isinstance(outcome, Fails):
            raise RuntimeError("the script says so")
        return status

    return handler
