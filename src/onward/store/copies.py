"""Where a backup is written: to a name of its own until it is whole, so that half a copy is never taken for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onward.errors import StoreError


@contextmanager
def copied(target: Path) -> Iterator[Path]:
    """A new file, mode 0600, that takes the name `target` at the end. What is there is not overwritten: StoreError."""
    _refuse_existing(target)  # also what has no name of its own, as "" and "..": folders that are there
    partial = target.with_name(f"{target.name}.partial")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        raise StoreError(
            f"{partial} exists: another backup is under way, or one was killed", hint="if none is under way, delete that file"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot write {partial}: {error.strerror}", hint="its folder must exist and be writable") from None
    try:
        yield partial
        _refuse_existing(target)
        partial.rename(target)
    finally:
        for name in (partial, partial.with_name(f"{partial.name}-journal")):
            name.unlink(missing_ok=True)


def _refuse_existing(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target} exists, and a backup overwrites nothing", hint="name a new file, or move that one away")
