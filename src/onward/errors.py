"""Everything that Onward raises, and the two things a handler may raise to steer it.

OnwardError                    ours, all of them; `.hint` says what to type next
├── FlowError                  the table is wrong: every fault of it at once (at definition)
├── InvalidData                data that does not fit the model, or is too large to keep
├── Conflict                   somebody else was first: same id with other input, or the version moved on
├── NotFound                   no such process, version or flow
├── Refused                    the process is in no condition for that action
├── Forbidden                  the actor's role does not allow that action
├── QueryError                 a search that means nothing; the message names what would
├── Misuse                     a handler broke a rule of the house
└── StoreError                 the database cannot be used now, or not at all
    ├── Fenced                 this attempt no longer owns its process: nothing of it was written
    └── RolledBack             a handler's transaction came to nothing, and its transition with it

Unrecoverable, RetryAfter      said by a handler, see `onward.flow`
LeaseLost                      ends a handler from inside `ctx`; not an Exception, so that no
                               `except Exception` in a handler can swallow it
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

DELAY_MAX = timedelta(days=365)  # a longer wait is a mistake in somebody's units, not a plan


class OnwardError(Exception):
    """The root of our errors. `hint`: one line that says what to do or type next, or ''."""

    hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint


class FlowError(OnwardError):
    """A flow that cannot work. `faults` lists all that was found, in plain words, not only the first."""

    def __init__(self, flow: str, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        count = f"{len(self.faults)} faults" if len(self.faults) != 1 else "1 fault"
        super().__init__(f"flow {flow} has {count}:" + "".join(f"\n  - {fault}" for fault in self.faults))


class InvalidData(OnwardError):
    """Data that the model refuses; the message names each field, and so does `fields`, as far as it is a matter of fields. What
    was stored before is untouched.
    """

    fields: tuple[str, ...] = ()


class Conflict(OnwardError):
    """The caller acted on what is no longer so. Read the process again, then decide again."""


class NotFound(OnwardError):
    """What was named does not exist."""


class Refused(OnwardError):
    """The action makes no sense in the process's present condition. Nothing was changed."""


class Forbidden(OnwardError):
    """Whoever acts has no role that allows it. Nothing was changed."""


class QueryError(OnwardError):
    """A query that cannot be read; nothing was looked up. See `onward.query`."""


class Misuse(OnwardError):
    """A handler broke a rule of the house. Trying again would break it again, so no attempt is made."""


class StoreError(OnwardError):
    """The database did not do it: locked, full, read-only, gone, or not one of ours. Never the process's fault."""


class Fenced(StoreError):
    """Another claim or a person's action came in between; the database refused this one whole."""


class RolledBack(StoreError):
    """A handler's transaction came to nothing, and its transition with it. `fault`: by what the handler did in it; else the
    database was in trouble, and the stage runs again without an attempt being spent.
    """

    def __init__(self, message: str, *, fault: bool = False) -> None:
        super().__init__(message)
        self.fault = fault


class LeaseLost(BaseException):
    """Raised inside a handler by `ctx` when its process was taken over. Let it pass."""


class Unrecoverable(Exception):
    """Raise it in a handler: trying again cannot help. The process goes to `on_failure`, or fails visibly."""


class RetryAfter(Exception):
    """Raise it in a handler: try this stage again in `delay` (timedelta, or seconds), as a server asked.

    It spends an attempt like any error. Zero to 365 days, else ValueError.
    """

    def __init__(self, delay: timedelta | float, reason: str = "") -> None:
        seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if not 0 <= seconds <= DELAY_MAX.total_seconds():  # asked first: no timedelta can be made of NaN or 1e300
            raise ValueError(f"RetryAfter({delay!r}): a delay is between 0 and {DELAY_MAX.days} days")
        self.delay = timedelta(seconds=seconds)
        super().__init__(reason or f"try again in {self.delay.total_seconds():g} s")
