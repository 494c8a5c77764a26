"""Who holds processes right now, how many of what, and whose lease is over."""

from __future__ import annotations

from typing import Any

from onward.panel.page import Page, Visit
from onward.query import exactly
from onward.telling.shapes import instant
from onward.telling.workers import Worker, shape, workers

WORKERS_MAX = 200  # that the page shows: the dead ones first, then the busiest


async def facts(visit: Visit) -> dict[str, Any]:
    found = workers(await visit.app.store.leases())
    return {
        "as_of": instant(found[0].as_of) if found else None,
        "alive": sum(worker.is_alive for worker in found),
        "over": sum(not worker.is_alive for worker in found),
        "number": sum(worker.number for worker in found),
        "workers": [_told(worker) for worker in found[:WORKERS_MAX]],
        "others": max(0, len(found) - WORKERS_MAX),
    }


def _told(worker: Worker) -> dict[str, Any]:
    return {**shape(worker), "query": str(exactly("worker", worker.name))}


PAGE = Page("/workers", "workers", facts)
