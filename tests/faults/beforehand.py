"""Scenarios that mostly wait, for leases of the dead to run out: all of a module are played at once, before its tests ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

T = TypeVar("T")
Played = Mapping[str, Future[T]]


@contextmanager
def played(request: pytest.FixtureRequest, scenarios: Mapping[str, Callable[[], T]], threads: int) -> Iterator[Played[T]]:
    """What each scenario will have come to, by the id of its test; only those whose tests, or all of them, are asked for."""
    asked = {item.name.partition("[")[2].removesuffix("]") for item in request.session.items if item.module is request.module}
    with ThreadPoolExecutor(threads) as pool:
        yield {id: pool.submit(play) for id, play in scenarios.items() if id in asked}
        pool.shutdown(cancel_futures=True)
