"""What is in a SQLite database besides Onward's own tables, as lines of text that can be compared."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

HEAD = b"SQLite format 3\0"

_OURS = re.compile(r'[A-Z ]+"?onward_')  # a statement of the dump that is about a table, an index or a trigger of that name
_AROUND = ("BEGIN TRANSACTION;", "COMMIT;")


def dump(connection: sqlite3.Connection) -> list[str]:
    return sorted(line for line in connection.iterdump() if not _OURS.match(line) and line not in _AROUND)


def dump_file(path: Path) -> list[str]:
    """The same of a file that somebody else may have open."""
    with closing(sqlite3.connect(path)) as connection:
        return dump(connection)
