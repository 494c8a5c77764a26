"""What changed between two JSON values, path by path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from onward.secret import is_secret, masked
from onward.telling.text import to_json

VALUE_CHARS_MAX = 200  # a longer value is told by its size and a hash
MISSING = object()


@dataclass(frozen=True)
class Change:
    """One path that was added, removed or changed."""

    path: str
    before: Any = MISSING
    after: Any = MISSING

    @property
    def kind(self) -> str:
        return "added" if self.before is MISSING else "removed" if self.after is MISSING else "changed"


def changes(before: Any, after: Any, path: str = "$") -> Iterator[Change]:
    """The paths at which two JSON values differ, in a settled order. Lists are compared place by place.

    Give it the values as they are stored: that a secret changed is told, and what it is or was is masked.
    """
    if is_secret(before) or is_secret(after):
        if before != after:
            yield Change(path, masked(before), masked(after))
    elif isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from changes(before.get(key, MISSING), after.get(key, MISSING), path + _step(key))
    elif isinstance(before, list) and isinstance(after, list):
        for number in range(max(len(before), len(after))):
            old = before[number] if number < len(before) else MISSING
            new = after[number] if number < len(after) else MISSING
            yield from changes(old, new, f"{path}[{number}]")
    elif type(before) is not type(after) or before != after:
        yield Change(path, masked(before), masked(after))


def _step(key: str) -> str:
    return f".{key}" if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else f"[{to_json(key, None)}]"


def described(change: Change) -> dict[str, Any]:
    values = {"before": change.before, "after": change.after}
    return {"op": change.kind, "path": change.path, **{key: value for key, value in values.items() if value is not MISSING}}


def value_text(value: Any) -> str:
    text = to_json(value, None)
    if len(text) <= VALUE_CHARS_MAX:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]
    return f"{text[:60]}… ({len(text):,} characters, sha256 {digest})"
