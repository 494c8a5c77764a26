"""The world around a run: a folder of its own, the tables of the user, and what the user says of the rest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from onward.store.sqlite.user_tables import HEAD, rows_of_file
from onward.testing.world import Row

TEXT_BYTES_MAX = 2_000  # of a file are compared line by line, and shown; of more, a digest


def _nothing() -> list[str]:
    return []


@dataclass
class Outside:
    """What a flow meets in a proof, made anew for each run: what an `outside` function yields.

    `resources` is `ctx.resources`. `alive` answers the names of what exists now and should not be left behind; `state` any
    JSON value, which has to end as it does undisturbed. `prepare` is given a connection to the store's database before the
    process starts: it makes the tables that `ctx.transaction()` writes to. With `postgres`, the URL of a server, those
    transactions are in a real database there, which is made for the run and dropped in the end; then `prepare` may be
    asynchronous, and is given asyncpg's connection as handlers are.
    """

    resources: Any = None
    alive: Callable[[], Iterable[str]] = _nothing
    state: Callable[[], Any] = lambda: None
    prepare: Callable[[Any], object] = lambda connection: None
    postgres: str = ""


Outsides = Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]


def nothing_outside() -> AbstractContextManager[Outside]:
    return nullcontext(Outside())


@dataclass(frozen=True)
class Seen:
    """What there is in the end."""

    files: dict[str, list[str]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    alive: list[str] = field(default_factory=list)
    state: Any = None


@asynccontextmanager
async def entered(make: Outsides) -> AsyncIterator[Outside]:
    """Of whatever it yields, what is there is taken."""
    manager = make()
    if isinstance(manager, AbstractAsyncContextManager):
        async with manager as made:
            yield _outside(made)
    else:
        with manager as made:
            yield _outside(made)


def _outside(made: Any) -> Outside:
    if isinstance(made, Outside):
        return made
    names = (each.name for each in fields(Outside))
    return Outside(**{name: getattr(made, name) for name in names if hasattr(made, name)})


class Folder:
    """The current directory of a run, empty in the beginning; afterwards the old one is current again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Folder:
        self._before = Path.cwd()
        os.chdir(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        os.chdir(self._before)
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def files(self) -> dict[str, list[str]]:
        """Their lines by their names. A database is its rows: its bytes differ, whatever is done."""
        paths = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
        names = {path.name for path in paths}
        return {path.relative_to(self.path).as_posix(): _content(path) for path in paths if not _is_beside(path.name, names)}

    def marks(self) -> dict[str, tuple[int, int, int]]:
        """By which it is seen that one was written, if only with what it holds already."""
        found = {}
        for path in self.path.rglob("*"):
            if path.is_file():
                status = path.stat()
                found[path.as_posix()] = (status.st_size, status.st_mtime_ns, status.st_ino)
        return found


def line(row: Row, without: Collection[str] = ()) -> str:
    """As it is compared, and shown; `without` names columns as `table.column`."""
    table, values = row
    kept = {name: value for name, value in values.items() if f"{table}.{name}" not in without}
    return f"{table} {json.dumps(kept, ensure_ascii=False, default=repr)}"


def _is_beside(name: str, names: set[str]) -> bool:
    stem, sign, end = name.rpartition("-")
    return bool(sign) and end in ("wal", "shm", "journal", "lock") and stem in names


def _content(path: Path) -> list[str]:
    content = path.read_bytes()
    if content.startswith(HEAD):
        return sorted(map(line, rows_of_file(path)))
    if len(content) > TEXT_BYTES_MAX:
        return [f"{len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()[:16]}"]
    return content.decode("utf-8", "backslashreplace").splitlines()
