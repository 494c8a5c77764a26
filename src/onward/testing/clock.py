"""A clock that stands still until it is told to move, so that no test has to sleep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class ManualClock:
    """Give it to `Onward(..., clock=ManualClock())` or to a store: a year passes in one call of `advance`.

    `advance` lets time pass. `jump` sets the wall clock forward or back, as an administrator or NTP does; the monotonic
    clock does not notice.
    """

    def __init__(self, start: datetime = datetime(2025, 1, 1, tzinfo=UTC)) -> None:
        self._now, self._monotonic = start, 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, by: timedelta | float) -> datetime:
        """Lets `by` (timedelta, or seconds) pass; answers the new time. Time does not run backwards: ValueError."""
        step = _duration(by)
        if step < timedelta(0):
            raise ValueError(f"advance({by!r}): time does not run backwards; to set the clock back: jump()")
        self._monotonic += step.total_seconds()
        return self.jump(step)

    def jump(self, by: timedelta | float) -> datetime:
        """Sets the wall clock by `by`, which may be negative; answers the new time."""
        self._now += _duration(by)
        return self._now


def _duration(by: timedelta | float) -> timedelta:
    return by if isinstance(by, timedelta) else timedelta(seconds=by)
