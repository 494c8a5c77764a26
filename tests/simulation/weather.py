"""Which faults a seed has, and how often: each seed draws a mix of its own (a swarm), for faults that are always all there
hide each other. Every number comes from the seed and from nowhere else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Any

SHARE = 0.4  # of the seeds have any one kind of fault
FAIR_SHARE = 0.1  # of the seeds have nothing that can harm a worker, to show that it does not see ghosts
# Chances at each call of the store, or at each look of the nemesis.
RATES = {
    "killed": (0.005, 0.06),
    "stopped": (0.005, 0.06),
    "refused": (0.02, 0.25),  # StoreError, and nothing was done
    "unanswered": (0.02, 0.25),  # it was done, and its answer is lost
    "unrenewed": (0.1, 0.9),  # a renewal of leases is lost, on its way or on its way back
    "cut": (0.03, 0.2),  # a program is cut off from the store for a while
    "jump": (0.02, 0.3),  # of the clock
    "drained": (0.02, 0.15),  # a worker is told to go, and another one comes
    "act": (0.2, 1.0),  # of a person
}
LATENCIES = {"none": 0.0, "short": 0.005, "long": 0.2, "slow": 1.0}  # seconds, before and after each call, on the average
FAIR = ["none", "short"]
DANGERS = ("killed", "stopped", "refused", "unanswered", "unrenewed", "cut", "jump")  # what may cost a lease


@dataclass
class Weather:
    """What may happen in this seed. Once it is `calm` nothing happens any more."""

    killed: float = 0.0
    stopped: float = 0.0
    refused: float = 0.0
    unanswered: float = 0.0
    unrenewed: float = 0.0
    cut: float = 0.0
    jump: float = 0.0
    drained: float = 0.0
    act: float = 0.0
    latency: str = "none"
    lease: float = 2.0  # seconds
    workers: int = 1
    processes: int = 2
    concurrency: int = 2
    pace: float = 1.0
    calm: bool = False

    @classmethod
    def drawn(cls, dice: random.Random) -> Weather:
        fair = dice.random() < FAIR_SHARE
        faults: dict[str, Any] = {
            kind: low * (high / low) ** dice.random()
            for kind, (low, high) in RATES.items()
            if dice.random() < SHARE and not (fair and kind in DANGERS)
        }
        return cls(
            **faults,
            latency=dice.choice(FAIR if fair else list(LATENCIES)),
            lease=dice.choice([1.0, 2.0, 5.0]),
            workers=dice.randint(1, 3),
            processes=dice.randint(2, 4),
            concurrency=dice.randint(1, 4),
            pace=dice.choice([0.1, 1.0, 4.0]),
        )

    @property
    def is_harmless(self) -> bool:
        """Whether nothing in it can cost a living worker a lease."""
        return not any(getattr(self, kind) for kind in DANGERS) and self.latency in FAIR

    def __str__(self) -> str:
        said = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "calm"}
        return " ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in said.items() if value
        )
