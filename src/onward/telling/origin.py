"""From which version a failure can be repeated: where the attempts began of which the last one went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onward.process import Condition, Entry, Record

_WRONG = frozenset({"failed", "gave up", "deadline"})
# These stand between the beginning of such attempts and their end, and change nothing about how the next one begins; what was
# saved meanwhile is left out, for the attempts of the test save it again.
_BETWEEN = frozenset({"retry", "saved", "rolled back", "woken", "paused", "resumed"})


@dataclass(frozen=True)
class Trouble:
    """`begin`: the commit after which the attempts began. `end`: the one that says what became of them, if it is known."""

    begin: Entry
    end: Entry | None

    @property
    def is_spinning(self) -> bool:
        """Parked where it went, since it moved too often: no stage of it failed, the way as a whole did."""
        return self.end is not None and self.end.kind == "failed" and self.end.from_status != self.end.to_status


def last_trouble(record: Record, entries: Sequence[Entry]) -> Trouble | None:
    """What went wrong last, for good or until now; None where nothing did, or its beginning is no longer in the history."""
    wrong = _WRONG | {"retry"} if record.condition is Condition.RETRYING else _WRONG
    end = next((number for number in reversed(range(len(entries))) if entries[number].kind in wrong), None)
    if end is None:
        return None
    begin = end - 1
    while begin >= 0 and entries[begin].kind in _BETWEEN:
        begin -= 1
    return None if begin < 0 else Trouble(entries[begin], entries[end])


def trouble_after(entries: Sequence[Entry], version: int) -> Trouble | None:
    """The same from a version that somebody chose; `end` is the first one after it that left its status or went wrong."""
    begin = next((entry for entry in entries if entry.version == version), None)
    if begin is None:
        return None
    later = (entry for entry in entries if entry.version > version)
    return Trouble(begin, next((one for one in later if one.kind in _WRONG or one.transition != begin.transition), None))
