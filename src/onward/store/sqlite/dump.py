"""What is in a SQLite database besides Onward's own tables, as lines of text that can be compared."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Set
from pathlib import Path

HEAD = b"SQLite format 3\0"

_INSERTED = re.compile(r'(?:INSERT) INTO "([^"]+)"')
_MADE = re.compile(r'(?:CREATE) (?:UNIQUE )?\w+ (?:IF NOT EXISTS )?"?(\w+)')


def schema_lines(connection: sqlite3.Connection) -> set[str]:
    """How its tables, indexes and triggers are made: given to `dump` later, these are left out."""
    return {line for line in connection.iterdump() if _MADE.match(line)}


def dump(connection: sqlite3.Connection, without: Set[str] = frozenset()) -> list[str]:
    """Its tables and rows, but for what `schema_lines` answered, and the rows of those tables."""
    theirs = {made.group(1) for line in without if (made := _MADE.match(line))}
    lines = []
    for line in connection.iterdump():
        into = _INSERTED.match(line)
        if (_MADE.match(line) and line not in without) or (into and into.group(1) not in theirs):
            lines.append(line)
    return sorted(lines)


def dump_file(path: Path, without: Set[str] = frozenset()) -> list[str]:
    """The same of a file that somebody else may have open."""
    connection = sqlite3.connect(path)
    try:
        return dump(connection, without)
    finally:
        connection.close()
