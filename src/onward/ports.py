"""The sockets of the house, on one page: what a store, a clock and an observer are to the rest.

A socket exists only where a second plug exists: SQLite and PostgreSQL, real and virtual time, any number of observers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from onward.decide import Change
from onward.process import Condition, Entry, Record
from onward.query import Term


class Clock(Protocol):
    """The one source of time. Workers use `monotonic` only to stop earlier, never to go on longer."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Event:
    """What observers are told, after the database reported the commit: entry number `record.version` was written."""

    record: Record
    kind: str
    from_status: str
    reason: str | None
    took: float | None


Observer = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class NewProcess:
    """What `insert` needs; `data` is JSON, and equal data means equal input. `kind` and `reason` go to the history."""

    id: str
    flow: str
    status: str
    data: str
    kind: str = "started"
    reason: str | None = None
    data_version: int = 1


@dataclass(frozen=True, slots=True)
class Search:
    """Which processes `find` answers, newest first: those for which all terms hold.

    `before` is the id after which a page goes on. `light`: '' stands for the data. `looks`: at most so many rows of the list
    that it goes through are looked at, 0: all of them. `known` is what the caller's code can move, as in `Store`: other rows are
    orphaned, unless they are over; None: none is. `renamed` is (flow, old name, new name): a search for the new one finds both.
    """

    terms: Sequence[Term] = ()
    before: str = ""
    limit: int = 100
    light: bool = False
    looks: int = 0
    known: Known | None = None
    renamed: Collection[tuple[str, str, str]] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """So many processes of one flow stand at this status in this condition, with data of this version; `oldest` entered its
    stage first.
    """

    flow: str
    status: str
    condition: Condition
    number: int
    oldest: datetime
    data_version: int = 1


class Kept(NamedTuple):
    """The JSON of a process's data, and its version."""

    data: str
    version: int


@dataclass(frozen=True, slots=True)
class Lease:
    """So many processes of one flow at this status are in the hands of this worker.

    `until` is the end of the latest of these leases: if it is over, the worker has died, or cannot reach the store. `oldest`
    entered its stage first.
    """

    owner: str
    flow: str
    status: str
    number: int
    until: datetime
    oldest: datetime
    as_of: datetime


class Transaction(Protocol):
    """A handler's transaction in the store's own database, open from `Store.begin` until `commit` or `rollback`."""

    connection: Any  # the driver's own, for the handler's SQL

    def check(self, error: Exception | None = None) -> None:
        """Raises RolledBack if it cannot be committed any more, or if `error`, which the handler met in it, was trouble of
        the database's; raises Misuse if the handler ended it. Asks the driver only, never the network.
        """

    async def commit(self, record: Record, change: Change) -> Record:
        """`Store.commit` in this transaction, then its COMMIT: Fenced or RolledBack mean that nothing of it was written."""

    async def rollback(self) -> None:
        """Ends it, unless it has ended. Raises nothing of the database's."""


class Store(Protocol):
    """Where rows live. Durations come in; the store makes the instants, by its own clock.

    Whatever cannot be done now raises StoreError and has done nothing. `known` is the (flow, status, version of data) that the
    caller's code can move: others are neither claimed nor changed. A write without data leaves data and their version as they
    are; one with data gives them the `data_version` of its record. `onward.testing.StoreContract` says the rest.
    """

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def insert(self, processes: Sequence[NewProcess], actor: str, connection: Any = None) -> list[bool]:
        """Each one's verdict: True if it was new. An id that exists is left as it is.

        Through a `connection` of the caller's it is done inside his transaction, and this store need not be open; so it is
        with `get` and `history`. OnwardError for one that is of no use for it, or in no transaction.
        """

    async def claim(
        self, known: Known, owner: str, limit: int, lease: timedelta, ids: Collection[str] = (), *, suspect: bool = True
    ) -> list[Record]:
        """Takes due processes (of `ids` only, if given), oldest first, each with a new epoch and one more attempt.

        Of those whose worker was lost twice in a row without an outcome it takes one at the most, first of all, and none
        without `suspect`: one of them may be what killed it.
        """

    async def commit(self, record: Record, change: Change) -> Record:
        """Writes row and history as one, if version and epoch are still the record's; else Fenced. Cannot be cancelled.

        A change with a `transaction` is committed in that one, together with what the handler wrote there.
        """

    async def begin(self, record: Record) -> Transaction:
        """A transaction for the handler that has this record. Fenced, at once or at its commit, if it is no longer his."""

    async def act(self, record: Record, change: Change, actor: str, reason: str | None) -> Record:
        """A person's commit: if the version is still the one seen, else Conflict. A new epoch fences whoever runs it."""

    async def delete(self, record: Record, actor: str, reason: str | None) -> None:
        """Row, history and sub-steps, if the version is still the one seen, else Conflict. One entry stays in the history, with
        a version below 0, that says who did it: `history` does not answer it, `acts` does.
        """

    def renew(self, owner: str, held: Mapping[str, int], lease: timedelta) -> set[str]:
        """Prolongs the leases of these {id: epoch}; answers the ids that are no longer ours. Called from any thread."""

    async def release(self, records: Sequence[Record], *, begun: bool) -> None:
        """Gives leases back early: due at once. Those no longer ours are left alone. Where no handler was `begun`, the
        attempt that was counted with the claim is given back too; a handler that was cut off has used it.
        """

    async def release_all_but(self, owner: str, ids: Collection[str], lease: timedelta) -> None:
        """Gives back what `owner` has and does not know of, because the answer to a claim of at most that lease was lost:
        all but `ids`. No handler was begun for it, so the attempt is given back too.
        """

    async def record_step(self, record: Record, name: str, result: str) -> None:
        """Keeps a sub-step's result (JSON) for this visit, under the fence of the record; else Fenced."""

    async def steps(self, id: str, transition: int) -> dict[str, str]:
        """The recorded sub-steps of one visit."""

    async def get(self, id: str, connection: Any = None) -> Record | None: ...

    async def find(self, search: Search) -> list[Record]: ...

    async def past(self, search: Search) -> str:
        """The id at which `find` of it ends after its `looks`, to go on `before` it; '' where there is nothing more to look at.

        Through which list it goes depends on the terms: what only needs people, or is held by workers, is found in a short one.
        """

    async def counts(self) -> list[Count]: ...

    async def leases(self) -> list[Lease]: ...

    async def acts(self, before: Place | None = None, limit: int = 100) -> list[Entry]:
        """What people did, newest first, also to processes that are deleted. Where an entry has data, '' stands for it."""

    async def history(
        self, id: str, after: int = -1, limit: int = 1_000, connection: Any = None, *, light: bool = False
    ) -> list[Entry]:
        """The history after version `after`, oldest first. `light`: where an entry has data, '' stands for it."""

    async def data_at(self, id: str, version: int) -> Kept | None:
        """The data after that version; None if there is no such version."""

    async def walk(self, after: str, limit: int) -> list[Record]:
        """All there is, a part at a time: what comes after that id in the order of ids, at most `limit` of it and, for the sake
        of memory, not much more than WALK_CHARS of data. Of what is over '' stands for the data. Empty: that was all.
        """

    async def next_due(self, known: Known) -> timedelta | None:
        """How long until something can be claimed (zero or less: now); None if nothing ever will be."""

    async def taken_away(self, held: Mapping[str, int]) -> set[str]:
        """Which of these {id: epoch} a person or another worker took since."""

    async def wait_for_change(self, timeout: float) -> None:
        """Returns soon after anything changed, at the latest after `timeout` seconds. Noticed within 100 ms."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a store is: its schema (`found` 0: no tables yet) and the one this code needs, what is in it, what to know of it."""

    found: int
    needed: int
    conditions: Mapping[Condition, int]
    history: int  # entries; on PostgreSQL an estimate
    oldest: datetime | None  # of the history, about
    bytes: int
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be. Entries that go with a whole `partition` are not among those of the `history`."""

    processes: int
    history: int
    steps: int
    partitions: Sequence[str]


class Upkeep(Protocol):
    """What a person does to a store as a whole. It need not be open for that, and workers may go on meanwhile.

    `tell` is called with a line for people, now and then. StoreError for what cannot be done.
    """

    name: str

    async def schema(self) -> int:
        """The number of the schema that is there; 0 for none."""

    async def standing(self) -> Standing: ...

    async def script(self, found: int | None = None) -> str:
        """The SQL of what `upgrade` would do, to be applied by hand: from schema `found`, or the one that is there."""

    async def upgrade(self, tell: Tell) -> Sequence[str]:
        """Makes the tables, or what is newer about them; answers what was done."""

    async def prune(self, older_than: timedelta, tell: Tell, *, dry_run: bool = False) -> Pruned:
        """Deletes what has been over for longer, with its history and steps, a little at a time."""

    async def backup(self, target: Path, tell: Tell) -> None:
        """A consistent copy, made beside workers that write. StoreError if `target` exists."""


Tell = Callable[[str], None]
Known = Collection[tuple[str, str, int]]
WALK_CHARS = 2_000_000  # of data, after which a part of a walk ends
Place = tuple[datetime, str, int]  # of an entry among those of all processes: its instant, the process's id, its version
