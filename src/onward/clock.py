"""The real clock. Time is a parameter everywhere else: this is the only file that reads it for the engine."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """Wall-clock time in UTC, and the monotonic clock of this host."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    monotonic = staticmethod(time.monotonic)
