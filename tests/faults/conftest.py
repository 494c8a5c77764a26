"""One nursery for the whole session: its start costs what importing everything costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .programs import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery
