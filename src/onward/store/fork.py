"""In which program we are, without asking the kernel each time: before each commit a store asks whether it is in a fork now."""

from __future__ import annotations

import os

from onward.errors import StoreError

_pid = os.getpid()


def pid() -> int:
    return _pid


def not_open(name: str, opened_by: int) -> StoreError:
    """Why the store `name` cannot be used here, which that program opened; 0: none has."""
    if not opened_by:
        return StoreError(f"{name} is not open", hint="use the app inside `async with app:`")
    return StoreError(
        f"{name} was opened by process {opened_by} and is used in its fork {_pid}",
        hint="open the app after the fork: `async with app:` in the child",
    )


def _forked() -> None:
    global _pid
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):  # else there are no forks
    os.register_at_fork(after_in_child=_forked)
