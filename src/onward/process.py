"""The words for one durable row: the user's typed `Process`, and the `Record` that the store keeps of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from onward.secret import MASK, as_json, holds_secrets, masked

S = TypeVar("S", bound=StrEnum)

ID_CHARS_MAX = 200  # an id is typed by people and indexed by databases
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that is mistaken for another


def new_id() -> str:
    """A fresh id of 18 characters: 48 bits of milliseconds, then 40 random bits, so ids sort by their birth.

    Sorted ids keep the rows of one hour side by side in the database, which halves the cost of a commit.
    """
    number = (time.time_ns() // 1_000_000) << 40 | secrets.randbits(40)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(85, -1, -5))


class Process(BaseModel, Generic[S]):
    """Subclass it with your fields: the data is the model is the row.

    `status` needs a default in the subclass: it is where the process starts. `id` names the process for
    ever; give your own to make `start` idempotent. NaN and infinities are refused: JSON has none.
    """

    # An error that quotes its input would quote all of it, with the secrets of other fields.
    model_config = ConfigDict(allow_inf_nan=False, ser_json_inf_nan="constants", hide_input_in_errors=True)

    id: str = Field(default_factory=new_id, min_length=1, max_length=ID_CHARS_MAX)
    status: S

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """With a mask in the place of each secret: processes are printed, and logged, by the way."""
        shown = super().__repr_args__()
        if not holds_secrets(type(self)):
            yield from shown
            return
        try:
            told = as_json(self)
        except Exception:  # what cannot be written down now may hold a secret as well
            told = {}
        for name, value in shown:
            plain = told.get(name or "", value)
            safe = masked(plain) if name in told or name in ("id", "status") else MASK
            yield name, value if safe == plain else safe


class Condition(StrEnum):
    """What the engine makes of a row. Never mixed up with the status, which is the user's word."""

    READY = "ready"  # due, and nobody has it
    RUNNING = "running"  # a worker holds its lease
    WAITING = "waiting"  # looks again at `due_at`
    RETRYING = "retrying"  # an attempt failed; the next one is at `due_at`
    FAILED = "failed"  # waits for a person, with the error on it
    PAUSED = "paused"  # waits for a person, who asked for it
    ORPHANED = "orphaned"  # the code at hand does not know its flow or status
    CANCELLED = "cancelled"  # over, because a person said so
    FINISHED = "finished"  # over, at END


OVER = frozenset({Condition.FINISHED, Condition.CANCELLED})
RESTING = OVER | {Condition.FAILED, Condition.PAUSED}  # these have no due time: nothing will happen by itself


@dataclass(slots=True)
class Record:
    """One row as the store holds it, read at the instant `as_of`. Treat it as frozen.

    `version` counts commits from 0 (the start), `transition` counts changes of status; `epoch` counts the claims and
    the actions of people, and fences everybody who came before. `process` is the typed copy once somebody decoded
    `data`. Instants are aware datetimes in UTC.
    """

    id: str
    flow: str
    status: str
    condition: Condition
    data: str = field(repr=False)  # it may be large, and hold secrets
    version: int
    epoch: int
    attempt: int  # executions of the handler claimed in this visit to the stage; the first is 1
    polls: int  # times this stage said "not yet" in this visit
    transition: int
    moves: int  # transitions since it last waited: the spinning guard
    cancelling: bool  # a person cancelled it and its clean-up is under way
    entered_at: datetime  # when the stage's clock (`within`) began
    created_at: datetime
    updated_at: datetime
    due_at: datetime | None
    owner: str | None
    lease_until: datetime | None
    error: str | None
    as_of: datetime
    excused: int = 0  # of these attempts, how many no longer count: before the last "not yet", or before a person's retry
    losses: int = 0  # how often in a row its worker was lost without an outcome
    data_version: int = 1  # of `data`, and of what a commit writes: once the data are upgraded in memory, that of the flow
    process: Any = None
    was: str = ""  # the status as it stands in the row, where the flow has another name for it now

    @property
    def tries(self) -> int:
        """The attempts that the policy counts."""
        return self.attempt - self.excused

    @property
    def key(self) -> str:
        """The idempotency key of this visit to this stage: the same for all its attempts, another for the next visit."""
        return f"{self.id}:{self.transition}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a process's history: what commit number `version` did, who did it and why.

    `data` is the JSON after that commit, or None where it did not change, and `data_version` the version of the process's data.
    `took` is the attempt's length in seconds.
    """

    process_id: str
    version: int
    at: datetime
    kind: str
    from_status: str | None
    to_status: str
    transition: int
    attempt: int
    epoch: int
    actor: str
    took: float | None
    reason: str | None
    data: str | None = field(repr=False)
    data_version: int = 1
