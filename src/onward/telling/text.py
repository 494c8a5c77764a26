"""Text and JSON in which nothing can surprise a terminal, a log or a page."""

from __future__ import annotations

import json
import re
from typing import Any

from onward.codec import printable


def one_line(text: str, most: int = 2_000) -> str:
    """Text of unknown origin, for a cell or a line."""
    return " ".join(printable(text, most).split())


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON in which every character is one that a terminal may show; the others stand there as escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return re.sub("[\x7f-\U0010ffff]", lambda match: match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1], text)
