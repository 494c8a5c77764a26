"""An error as people read it: what kind, what it says, and where in their own code; what libraries were on the way comes last."""

from __future__ import annotations

import re
from typing import Any

from onward.telling.failures import frames_of

FRAMES_MAX = 50
_TRACEBACK = "Traceback (most recent call last)"
_PLACE = re.compile(r" \((?P<place>[^()/\s][^()/]*:\d+ in [^()]+)\)$")
_KIND = re.compile(r"(?P<kind>(?:\w+\.)*[A-Z]\w*): (?P<said>.*)", re.DOTALL)


def error_parts(text: str) -> dict[str, Any]:
    """`kind` ('' where it names none), `said`, `place` in the user's code or None, and the `frames` of a traceback in it,
    the innermost first: `own` ones of the user, and those of a `library`.
    """
    head = _said(text)
    found = _PLACE.search(head)
    head, place = (head[: found.start()], found["place"]) if found else (head, None)
    kind = _KIND.fullmatch(head)
    frames = frames_of(text)[-FRAMES_MAX:][::-1]
    told = [{"file": frame.file, "line": frame.line, "function": frame.function, "library": frame.is_library} for frame in frames]
    return {
        "kind": kind["kind"] if kind else "",
        "said": kind["said"] if kind else head,
        "place": place,
        "own": [frame for frame in told if not frame["library"]],
        "library": [frame for frame in told if frame["library"]],
    }


def _said(text: str) -> str:
    """Without the traceback: what stands before it, and after its frames."""
    before, mark, after = text.partition(_TRACEBACK)
    if not mark:
        return text.strip()
    lines = after.partition("\n")[2].splitlines()
    said = [line for line in lines if line.strip() and not line.startswith(" ")]
    return "\n".join([*filter(None, [before.strip()]), *said]) or text.strip()
