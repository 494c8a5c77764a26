"""Ids as people type them: whole, or the beginning of one where that is clear."""

from __future__ import annotations

from onward.cli.failing import Ambiguous
from onward.control import Control
from onward.errors import NotFound
from onward.process import Record
from onward.telling.text import one_line

PREFIX_CHARS_MIN = 4
CANDIDATES_MAX = 5  # as many are named


async def find_one(control: Control, text: str) -> Record:
    """The process of that id, or the only one whose id begins so. Raises NotFound or Ambiguous."""
    try:
        return await control.get(text)
    except NotFound:
        if len(text) < PREFIX_CHARS_MIN:
            raise
        missing = NotFound(
            f"there is no process {one_line(text, 80)!r}, and none that begins so", hint="what there is: onward ls"
        )
    found = await control.find(prefix=text, limit=CANDIDATES_MAX + 1)
    if not found:
        raise missing
    if len(found) > 1:
        ids = ", ".join(one_line(record.id) for record in found[:CANDIDATES_MAX])
        more = " and others" if len(found) > CANDIDATES_MAX else ""
        raise Ambiguous(
            f"{one_line(text)!r} begins several ids: {ids}{more}", hint=f"type more of it: onward ls 'id:{one_line(text)}*'"
        )
    return found[0]
