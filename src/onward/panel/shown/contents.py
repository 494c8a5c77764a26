"""The data of a process as pages show them: masked, what differs between two versions of them, and no more than a page bears."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from typing import Any

from markupsafe import escape

from onward.codec import printable
from onward.secret import KEY, MASK, masked
from onward.telling.diff import MISSING, Change, changes, value_text
from onward.telling.text import to_json

PREVIEW_CHARS_MAX = 16_384  # of data on a page, unless somebody asks for all of it
WHOLE_BYTES_MAX = 262_144  # of HTML, and then; what is larger is downloaded
CHANGES_MAX = 200  # lines of a difference
DEPTH_MAX = 200  # of JSON that is gone through


@dataclass(frozen=True)
class Contents:
    """The data of one version: the text of the row, and its JSON `value`; or `fault`, why there is none."""

    text: str
    value: Any = None
    fault: str = ""

    @property
    def shown(self) -> Any:
        """What people may see of it: masked, and of what is no JSON a piece of the text."""
        return masked(self.value) if not self.fault else _piece(self.text)


def contents(text: str | None) -> Contents:
    """Never raises: looking at a broken row must work."""
    if text is None:
        return Contents("{}", {})
    try:
        value = json.loads(text)
    except RecursionError:
        return Contents(text, fault=f"it is nested deeper than {DEPTH_MAX} levels")
    except ValueError as error:
        return Contents(text, fault=f"it is no JSON: {printable(str(error))}")
    if _is_deep(value):
        return Contents(text, fault=f"it is nested deeper than {DEPTH_MAX} levels")
    return Contents(text, value)


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _parts(outer)]
        if not level:
            return False
    return True


def _parts(outer: Any) -> list[Any]:
    return list(outer.values()) if isinstance(outer, dict) else outer


def _piece(text: str) -> str:
    """Of a text in which nobody can find the secrets, nothing is shown if there may be one."""
    if KEY in text or "\\u" in text:
        return f"({len(text):,} characters, not shown: there may be a secret in them)"
    return printable(text)


def size(text: str) -> str:
    """'310 characters', '1.2 MB'."""
    if len(text) < 10_000:
        return f"{len(text):,} characters"
    return f"{len(text) / 1_000:,.0f} KB" if len(text) < 1_000_000 else f"{len(text) / 1_000_000:.1f} MB"


def told(found: Contents, *, whole: bool = False) -> dict[str, Any]:
    """The data as facts. `_text` is what a page prints of it, `is_cut` if that is not all."""
    text = to_json(found.shown) if not found.fault else found.shown
    fits = len(escape(text).encode("utf-8", "replace")) <= WHOLE_BYTES_MAX
    shown = text if whole and fits else text[:PREVIEW_CHARS_MAX]
    return {
        "fault": found.fault,
        "size": size(found.text),
        "sha256": hashlib.sha256(found.text.encode("utf-8", "replace")).hexdigest()[:16],
        "value": found.shown if fits else None,
        "is_cut": len(shown) < len(text),
        "is_whole": whole,
        "fits_page": fits,
        "_text": shown,
    }


# -- differences --------------------------------------------------------------------------------------------------


def difference(before: Contents, after: Contents) -> dict[str, Any]:
    """What changed, path by path, with long values told by their size; and how many paths more there are than are told."""
    if before.fault or after.fault:
        return {"changes": [], "left_off": 0, "fault": before.fault or after.fault}
    found = changes(before.value, after.value)
    told = [_told(change) for change in islice(found, CHANGES_MAX)]
    return {"changes": told, "left_off": sum(1 for _ in found), "fault": ""}


def _told(change: Change) -> dict[str, Any]:
    another = " (another one)" if change.before == change.after == MASK else ""
    return {
        "op": change.kind,
        "path": change.path.removeprefix("$.").removeprefix("$") or "all of it",
        "before": None if change.before is MISSING else value_text(change.before),
        "after": None if change.after is MISSING else value_text(change.after) + another,
    }


def in_short(text: str) -> str:
    """A recorded result, in one line."""
    found = contents(text)
    return value_text(found.shown) if not found.fault else _piece(text)[:200]
