"""Another thousand seeds of the simulation, see test_seeds_1.py."""

from __future__ import annotations

import pytest

from .seeds import live_through


@pytest.mark.slow
def test_the_next_thousand_seeds_have_no_violation() -> None:
    live_through(range(1_001, 2_001))
