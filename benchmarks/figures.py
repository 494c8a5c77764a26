"""What a figure is, and a row of the table: what was measured, the figure, and the target with its verdict."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

Figures = dict[str, float]
Figure = Callable[[str], Coroutine[Any, Any, Figures]]  # given a place for its database
Row = tuple[str, str, str]


def verdict(target: str, met: bool) -> str:
    return f"{'met' if met else 'MISSED'}: {target}"
