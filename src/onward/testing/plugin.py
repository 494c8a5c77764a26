"""The pytest plugin, which pytest finds by itself: fixtures for asynchronous tests. It imports Onward only where one is used.

    async def test_it_is_sent(onward_app, onward_clock):
        async with onward_app(flow) as app:
            await app.start(Parcel(id="parcel-1", address="12 Harbour Street"))
            await app.check("parcel-1")
            onward_clock.advance(timedelta(days=1))
            assert (await app.check("parcel-1")).condition == "finished"

Where no test has to look in between, `onward.testing.run_to_rest` does it all, and needs no fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onward import Flow, Onward
    from onward.testing.clock import ManualClock


@pytest.fixture
def onward_clock() -> ManualClock:
    """A clock that stands still until the test says `onward_clock.advance(...)`; that of `onward_app`."""
    from onward.testing.clock import ManualClock

    return ManualClock()


@pytest.fixture
def onward_app(onward_clock: ManualClock) -> Callable[..., Onward]:
    """`onward_app(flow, …)`: an app with these flows and a store of its own in memory, by the time of `onward_clock`."""
    from onward import Onward

    def make(*flows: Flow[Any], **given: Any) -> Onward:
        return Onward("sqlite:///:memory:", flows, clock=onward_clock, **given)

    return make
