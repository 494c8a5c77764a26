"""Tells observers what was committed. They can watch, and nothing else: whatever they raise is logged and forgotten.

And tells people, in the log, what a thousand processes meet at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from onward.decide import Change
from onward.ports import Event, Observer
from onward.process import Record

logger = logging.getLogger("onward")

SELDOM_S = 10.0


class Seldom:
    """Warnings, each of them at most once in SELDOM_S: a store that is away is news, and not once more for each process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._said_at: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def warning(self, message: str, *about: object) -> None:
        """`message` is what makes it the same warning."""
        now = self._monotonic()
        if now < self._said_at.get(message, -SELDOM_S) + SELDOM_S:
            self._unsaid[message] += 1
            return
        self._said_at[message] = now
        more = self._unsaid.pop(message, 0)
        logger.warning(message + ("" if not more else f" (and {more} times more since this was said last)"), *about)


def tell(observers: Sequence[Observer], before: Record, change: Change, after: Record) -> None:
    if not observers:  # most have none, and this stands in the path of every transition
        return
    event = Event(after, change.kind, before.status, change.reason, change.took)
    for observer in observers:
        try:
            observer(event)
        except Exception:  # a broken observer must not become a broken process
            logger.exception("observer %r failed on %s", observer, after.id)
