"""What ships for tests: a world in virtual time, proofs by crashing, scripts for Hypothesis, a clock to turn by hand, and the
contract of stores. Each is imported only when it is asked for: some need pytest or Hypothesis.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onward.testing.clock import ManualClock
    from onward.testing.contract import StoreContract
    from onward.testing.loop import VirtualClock
    from onward.testing.production import only_stage, stored
    from onward.testing.proving import Http, Outside, Proof, prove
    from onward.testing.scripts import outcomes
    from onward.testing.world import World, run, run_to_rest

__all__ = [
    "Http",
    "ManualClock",
    "Outside",
    "Proof",
    "StoreContract",
    "VirtualClock",
    "World",
    "only_stage",
    "outcomes",
    "prove",
    "run",
    "run_to_rest",
    "stored",
]


def __getattr__(name: str) -> Any:
    home: Any
    match name:
        case "ManualClock":
            from onward.testing import clock as home
        case "VirtualClock":
            from onward.testing import loop as home
        case "World" | "run" | "run_to_rest":
            from onward.testing import world as home
        case "only_stage" | "stored":
            from onward.testing import production as home
        case "Http" | "Outside" | "Proof" | "prove":
            from onward.testing import proving as home
        case "outcomes":
            from onward.testing import scripts as home
        case "StoreContract":
            home = _contract()
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(home, name)


def _contract() -> Any:
    if "onward.testing.contract" not in sys.modules:
        import pytest

        pytest.register_assert_rewrite("onward.testing.contract")  # so that a failure shows what differs, as in a test file
    from onward.testing import contract

    return contract
