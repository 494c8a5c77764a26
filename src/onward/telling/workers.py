"""Who holds processes right now. A worker that has nothing to do holds nothing, so nobody can tell that it is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from onward.ports import Lease
from onward.telling.shapes import instant


@dataclass(frozen=True)
class Worker:
    """One life of a worker, by what it holds. `until`: the end of its latest lease; it renews them while it lives."""

    name: str
    leases: Sequence[Lease]

    @property
    def number(self) -> int:
        return sum(lease.number for lease in self.leases)

    @property
    def until(self) -> datetime:
        return max(lease.until for lease in self.leases)

    @property
    def oldest(self) -> datetime:
        """When that one of its processes entered its stage which has been there the longest."""
        return min(lease.oldest for lease in self.leases)

    @property
    def as_of(self) -> datetime:
        return self.leases[0].as_of

    @property
    def is_alive(self) -> bool:
        return self.until > self.as_of


def workers(leases: Iterable[Lease]) -> list[Worker]:
    """Those whose leases are over first, then the busiest."""
    held: dict[str, list[Lease]] = defaultdict(list)
    for lease in leases:
        held[lease.owner].append(lease)
    found = [Worker(name, sorted(parts, key=lambda one: (-one.number, one.flow, one.status))) for name, parts in held.items()]
    return sorted(found, key=lambda worker: (worker.is_alive, -worker.number, worker.name))


def shape(worker: Worker) -> dict[str, Any]:
    """One worker of `onward.workers/1`."""
    return {
        "worker": worker.name,
        "alive": worker.is_alive,
        "lease_until": instant(worker.until),
        "oldest": instant(worker.oldest),
        "number": worker.number,
        "holds": [
            {"flow": lease.flow, "status": lease.status, "number": lease.number, "oldest": instant(lease.oldest)}
            for lease in worker.leases
        ],
    }
