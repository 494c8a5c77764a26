"""What every store promises, as tests. Whoever writes a store runs them by supplying a fixture or two:

    from onward.testing import ManualClock, StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self, clock: ManualClock):
            store = MyStore("…", clock)
            await store.open()
            yield store
            await store.close()

        @pytest.fixture
        async def rival(self, store, clock: ManualClock):    # a second store object on the same rows, as another
            ...                                              # program would have it; left out, it is `store` itself

        @pytest.fixture
        async def user(self, store):                         # somebody with a table of his own beside ours: see `User`
            ...

Data is JSON as PostgreSQL's jsonb writes it, `{"n": 1}`: a store may keep the values rather than the text.

Each test needs a store without rows. It needs pytest with pytest-asyncio and sleeps nowhere: `clock` is turned by hand.
What is specific to one store stands in that store's own test file; what is true of every store stands here.
"""

from __future__ import annotations

import pytest

from onward.ports import Store
from onward.testing.clock import ManualClock
from onward.testing.contract.hold import Hold
from onward.testing.contract.people import People
from onward.testing.contract.rows import User
from onward.testing.contract.work import Work

__all__ = ["StoreContract", "User"]


@pytest.mark.asyncio
class StoreContract(Work, Hold, People):
    """Inherit it in a test class and supply the fixtures `store` and `user`, and `rival` if your store can be opened twice."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def rival(self, store: Store) -> Store:
        return store
