"""A session for heartbeats, with an event loop of its own: they come from another thread, and whatever keeps the first loop
busy, or stands in the queue of its commits, must not keep leases from being renewed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from onward.store.postgres.session import TROUBLE

T = TypeVar("T")


class Renewer:
    """`connect` makes the session, at the first use and again after trouble."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._connect = connect
        self._turn = threading.Lock()
        self._runner: asyncio.Runner | None = None
        self._connection: Any = None

    def run(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        """What `work` answers. From any thread that runs no event loop; raises what the driver raises."""
        with self._turn:
            try:
                if self._runner is None:
                    self._runner = asyncio.Runner()
                    self._connection = self._runner.run(self._connect())
                return self._runner.run(work(self._connection))
            except TROUBLE:
                self._end()
                raise

    def close(self) -> None:
        with self._turn:
            self._end()

    def _end(self) -> None:
        runner, connection = self._runner, self._connection
        self._runner = self._connection = None
        if connection is not None and runner is not None:
            connection.terminate()
            runner.run(asyncio.sleep(0))  # for its socket to be closed
        if runner is not None:
            runner.close()
