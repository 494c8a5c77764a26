"""What is in a SQLite database besides Onward's own tables, as rows that can be compared."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from onward.store.sql import load

HEAD = b"SQLite format 3\0"

SQL = load("sqlite.sql")


def rows(connection: sqlite3.Connection) -> list[tuple[str, dict[str, Any]]]:
    """Each with the name of its table."""
    found: list[tuple[str, dict[str, Any]]] = []
    for table, statement in connection.execute(SQL["user tables"]).fetchall():
        cursor = connection.execute(statement)
        names = [column[0] for column in cursor.description]
        found += [(table, dict(zip(names, values, strict=True))) for values in cursor]
    return found


def rows_of_file(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """The same of a file that somebody else may have open."""
    with closing(sqlite3.connect(path)) as connection:
        return rows(connection)
