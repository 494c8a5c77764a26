"""Reads the named blocks of a .sql file, so that all SQL stands where a database administrator can read it."""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from importlib.resources import files

_BLOCK = re.compile(r"^-- name: (.+)$", re.MULTILINE)
_QUOTED = re.compile(r"\{(\w+)\}")
_COMMENT = re.compile(r"\s*--.*$", re.MULTILINE)


@cache
def load(name: str) -> dict[str, str]:
    """The blocks of `store/<name>` by their names, in order; `{other}` is replaced by the block of that name."""
    parts = _BLOCK.split(files("onward.store").joinpath(name).read_text(encoding="utf-8"))
    blocks = {title.strip(): _COMMENT.sub("", body).strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}

    def expand(text: str) -> str:
        return _QUOTED.sub(lambda match: expand(blocks[match[1]]), text)

    return {title: expand(body) for title, body in blocks.items()}


def statements(script: str) -> list[str]:
    """The single statements of a script, triggers whole."""
    found, text = [], ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    return found
