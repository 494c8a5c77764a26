"""The one loop, all there is to the kernel: run the handler of the current status, commit, until the process rests.

It is handed `attempt` and `commit`, and knows neither stores nor leases, so that other engines can run the same flow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from onward.decide import Change, Outcome, decide, overdue, undone
from onward.errors import RolledBack
from onward.flow import Flow
from onward.process import Record


async def drive(
    flow: Flow[Any],
    record: Record,
    attempt: Callable[[Record], Awaitable[Outcome]],
    commit: Callable[[Record, Change], Awaitable[Record]],
) -> Record:
    """Advances a claimed process until its status stops changing: finished, or waiting for time or a person."""
    while True:
        change = overdue(flow, record) or decide(flow, record, await attempt(record))
        try:
            record = await commit(record, change)
        except RolledBack as error:  # the handler's own transaction: what it wrote there is gone, so its stage runs again
            change = undone(flow, record, change, error)
            record = await commit(record, change)
        if not change.goes_on:
            return record
