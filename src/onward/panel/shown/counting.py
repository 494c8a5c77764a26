"""The numbers of a whole store, read beside the pages: a million rows take longer to count than a page may take to answer.

Nothing here is state: what was read last is shown until it is read again, and a panel that starts anew reads it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, proxy

from onward.app import Onward
from onward.errors import StoreError
from onward.ports import Count

T = TypeVar("T")

WAIT_MAX_S = 0.1  # a page waits no longer for the first numbers; then it says that they are being counted
WAIT_AGAIN_S = 0.02  # and no longer for newer ones: those of a small store are there by then
REST_MIN_S = 1.0  # between one reading and the next,
REST_TIMES = 10  # and so many times the length of the last: counting never takes more than a tenth of a core
STARTS_MAX = 10_000  # of the newest processes, for the picture of how many were started when
STARTS_PAGE = 1_000


@dataclass(frozen=True)
class Answer(Generic[T]):
    """`value` as it was `age_s` seconds ago, or None while it is read for the first time. Newer can be had in `again_s`."""

    value: T | None
    age_s: float | None
    again_s: float


class Lately(Generic[T]):
    """One costly question to the store, and what it answered last. All pages of a panel share it."""

    def __init__(self, read: Callable[[], Awaitable[T]], monotonic: Callable[[], float]) -> None:
        self._read, self._monotonic = read, monotonic
        self._reading: asyncio.Task[None] | None = None
        self._value: T | None = None
        self._began = self._rests_until = float("-inf")

    async def ask(self, wait: float | None = None) -> Answer[T]:
        """At once where it was read lately; else it is read now, and after `wait` seconds the older answer has to do.
        StoreError if it could never be read.
        """
        if wait is None:
            wait = WAIT_MAX_S if self._value is None else WAIT_AGAIN_S
        if self._reading is None or (self._reading.done() and self._monotonic() >= self._rests_until):
            self._reading = asyncio.create_task(self._renew())
        if not self._reading.done():
            await asyncio.wait({self._reading}, timeout=wait)  # whoever asks may go away; it is read for the others too
        self._raise_trouble(self._reading)
        now = self._monotonic()
        age = None if self._value is None else now - self._began
        return Answer(self._value, age, max(self._rests_until - now, 0.0) if self._reading.done() else REST_MIN_S)

    def _raise_trouble(self, reading: asyncio.Task[None]) -> None:
        error = reading.exception() if reading.done() and not reading.cancelled() else None
        # What was known before is still good while the database is in trouble; a mistake of ours has to be seen.
        if error is not None and (self._value is None or not isinstance(error, StoreError)):
            raise error

    async def _renew(self) -> None:
        began = self._monotonic()
        try:
            self._value = await self._read()
            self._began = began
        finally:
            now = self._monotonic()
            self._rests_until = now + max(REST_MIN_S, REST_TIMES * (now - began))


@dataclass(frozen=True)
class Start:
    """One process, and when it began."""

    flow: str
    at: datetime


@dataclass(frozen=True)
class Starts:
    """The newest processes, the newest first; `all`: there are no others. Read at `as_of`."""

    starts: Sequence[Start]
    all: bool
    as_of: datetime | None


class Numbers:
    """What the pages of one panel want to know of the store as a whole."""

    def __init__(self, app: Onward) -> None:
        known: Onward = proxy(app)  # the table below keeps no app alive
        self.counts: Lately[list[Count]] = Lately(lambda: known.counts(), app.clock.monotonic)
        self.starts: Lately[Starts] = Lately(lambda: _starts(known), app.clock.monotonic)


async def _starts(app: Onward) -> Starts:
    starts: list[Start] = []
    before, as_of = "", None
    while len(starts) < STARTS_MAX:
        page = await app.find(before=before, limit=STARTS_PAGE, light=True)
        starts += [Start(record.flow, record.created_at) for record in page]
        if len(page) < STARTS_PAGE:
            return Starts(starts, True, page[-1].as_of if page else as_of)
        before, as_of = page[-1].id, page[-1].as_of
    return Starts(starts, False, as_of)


_NUMBERS: WeakKeyDictionary[Onward, Numbers] = WeakKeyDictionary()


def numbers(app: Onward) -> Numbers:
    """The one of this app, however many pages ask."""
    found = _NUMBERS.get(app)
    if found is None:
        found = _NUMBERS[app] = Numbers(app)
    return found
