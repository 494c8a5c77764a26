"""One nursery for the whole session, whose start costs what importing everything costs, and one set of stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import postgres
import pytest

from .places import Places
from .programs import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def places(postgres_server: postgres.Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with closing(Places(postgres_server, tmp_path_factory.mktemp("places"))) as places:
        yield places
