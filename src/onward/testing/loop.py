"""An event loop whose time is virtual: where nobody is ready it does not wait, it sets its clock forward to the next timer.

A pause of a fortnight takes no longer than one of a second, and the same program always runs in the same order: functions
that would go to a thread run in the loop, one after the other.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from selectors import SelectorKey
from typing import Any

from onward.errors import OnwardError

BEGINNING = datetime(2025, 1, 1, tzinfo=UTC)
REAL_WAIT_S = 0.05  # for bytes of a real connection, before time goes on without them


class Deadlock(OnwardError):
    """All tasks wait for something that no timer and no connection will ever bring."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`asyncio.Runner(loop_factory=VirtualLoop)`, or `onward.testing.run(main())`."""

    def __init__(self) -> None:
        self._passed = 0.0
        self._clock_resolution = 1e-9
        super().__init__(_Jumping(self))
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._passed

    def pass_time(self, seconds: float) -> None:
        self._passed += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except StopIteration as error:  # no future takes it
                future.set_exception(RuntimeError(f"it raised {error!r}"))
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(run)
        return future


class VirtualClock:
    """`ports.Clock` by the time of a `VirtualLoop`: the loop that runs when it is first asked, or the one it is given.

    `jump` sets the wall clock forward or back, as an administrator or NTP does; the monotonic clock does not notice.
    """

    def __init__(self, start: datetime = BEGINNING, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._start, self._loop = start, loop

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def jump(self, by: timedelta) -> None:
        self._start += by


class _Jumping(selectors.BaseSelector):
    """The selector of such a loop: it looks at real connections without waiting, and lets virtual time pass instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        # One connection is the loop's own, by which it is woken up. With others somebody may be about to answer.
        if len(self._real.get_map()) > 1 and (ready := self._real.select(REAL_WAIT_S)):
            return ready
        if timeout is None:
            if len(self._real.get_map()) > 1:
                return self._real.select(None)
            raise Deadlock(
                "all tasks wait, and nothing will ever happen", hint="look for a lock that is kept, or a future left alone"
            )
        self._loop.pass_time(timeout)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()
