"""The run that is going on: whatever watches it asks here. Where none is, nothing is noted and nothing is disturbed."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from onward.process import Record
from onward.testing.life import Life
from onward.testing.proving.effects import Act, Request
from onward.testing.proving.points import Fault, Moment


@dataclass(frozen=True)
class Where:
    """Which handler this is in, and which act of it."""

    handler: str = ""
    attempt: int = 0
    act: Act | None = None
    place: str = ""  # of an act of `map`


class Scene:
    """Of nobody."""

    async def at(self, moment: Moment, what: str = "", place: str = "") -> Fault | None:
        """A point. It may end the program here, or answer what the caller has to raise."""
        return None

    def at_once(self, moment: Moment, what: str = "", place: str = "") -> Fault | None:
        """The same for one who cannot wait."""
        return None

    def enters(self, http: Any) -> int:
        """An `Http` is made; answers its number."""
        return 0

    def plays(self, http: Any, service: Any) -> Any:
        """Who answers in the place of its service."""
        return service

    def began(self, record: Record) -> None:
        """A handler begins."""

    def requested(self, request: Request) -> None:
        """The service has done it."""

    def acting(self, act: Act) -> None:
        """It begins."""

    def acted(self, act: Act) -> None:
        """It has come to its end."""


_NOBODY = Scene()
current: ContextVar[Scene] = ContextVar("scene", default=_NOBODY)
where: ContextVar[Where] = ContextVar("where", default=Where())  # noqa: B039 - it is frozen


def scene() -> Scene:
    return current.get()


def program() -> str:
    """Who does this."""
    life = Life.current()
    return life.name if life is not None else "a person"
