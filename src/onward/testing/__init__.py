"""What ships for tests: a clock to turn by hand, and the contract that every store keeps.

`StoreContract` needs pytest, and is imported only when it is asked for.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from onward.testing.clock import ManualClock

if TYPE_CHECKING:
    from onward.testing.contract import StoreContract

__all__ = ["ManualClock", "StoreContract"]

_CONTRACT = "onward.testing.contract"


def __getattr__(name: str) -> Any:
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _CONTRACT not in sys.modules:
        import pytest

        pytest.register_assert_rewrite(_CONTRACT)  # so that a failure shows what differs, as in a test file
    from onward.testing.contract import StoreContract

    return StoreContract
