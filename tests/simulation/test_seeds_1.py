"""A thousand seeds of the simulation. The next thousand are in a file of their own, for another lane of the tests."""

from __future__ import annotations

import pytest

from .seeds import live_through


@pytest.mark.slow
def test_the_first_thousand_seeds_have_no_violation() -> None:
    live_through(range(1, 1_001))
