"""Every order in which two workers and a person can get into each other's way over one process, searched to the last state.

The rules are the real ones: each move is a verb of the SQLite store, run on a database that was put into the state before it,
with the law of decide.py and the commit of worker.py. What is a model here is only who moves when: a lease may run out at any
instant, a worker may stop between any two of its steps for as long as it likes, die, or never hear the answer to what it asked
for. A verb answers the same for the same database, so each is run once for each database that can come about.

Beside the database goes what is true, as an onlooker would know it: who was the last to be given the process (`holder`), and
how many claims brought nothing since (`tries`). An answer or a row that contradicts it is a violation, and so is a state
from which the process can never come to rest. RELIABILITY.md T1; the invariants are I2, I4, I5 and I6.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum, auto
from functools import cache
from typing import Any, Literal, NamedTuple

from faults.bugs import STARTED

from onward import END, Flow, Process, Retry, decide, stage
from onward.decide import Change, Returned, overdue
from onward.errors import Conflict, Fenced, NotFound, Refused, StoreError
from onward.ports import NewProcess
from onward.process import OVER, Condition, Record
from onward.store.sqlite.inline import InlineStore
from onward.store.sqlite.store import SqliteStore
from onward.testing import ManualClock
from onward.testing.loop import VirtualLoop
from onward.worker import Worker

ATTEMPTS = 2
LEASE = timedelta(seconds=30)
ID = "p"
# Who holds a lease that was given: one who never heard of it, or one who is no more. The next life of a worker has another name.
NOBODY, DEAD = "nobody", "dead"


class Post(StrEnum):
    PACKED = auto()
    SENT = auto()
    DONE = auto()


class Parcel(Process[Post]):
    """`log` has the version at which each handler began that moved it on, `edits` how often a person changed it."""

    status: Post = Post.PACKED
    log: list[int] = []
    edits: int = 0


async def send(parcel: Parcel) -> Literal[Post.SENT]:
    raise NotImplementedError  # nothing runs here: `_outcome` says what it came to


async def receive(parcel: Parcel) -> Literal[Post.DONE]:
    raise NotImplementedError


FLOW = Flow(
    Parcel,
    {
        Post.PACKED: stage(send, retry=Retry(attempts=ATTEMPTS), on_failure=Post.DONE),
        Post.SENT: stage(receive, retry=Retry(attempts=ATTEMPTS), on_failure=Post.DONE),
        Post.DONE: END,
    },
)
NEXT = {Post.PACKED: Post.SENT, Post.SENT: Post.DONE}

Values = tuple[Any, ...]  # of a record, in the order of its fields
_FIELDS = [field.name for field in fields(Record)]


def _values(record: Record) -> Values:
    return tuple(None if name == "process" else getattr(record, name) for name in _FIELDS)


def _data(record: Record) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(record.data)
    return data


def _outcome(record: Record) -> Change:
    """What the worker commits that has this record: one rule, the same however often it is asked."""
    late = overdue(FLOW, record)
    if late is not None:
        return late
    data = _data(record)
    wanted = json.dumps({**data, "log": [*data["log"], record.version]})
    return decide.decide(FLOW, record, Returned(NEXT[Post(record.status)], wanted, None, 0.0))


def _edit(record: Record) -> Change:
    data = _data(record)
    return decide.edit(record, json.dumps({**data, "edits": data["edits"] + 1}), None)


ACTS: dict[str, Callable[[Record], Change]] = {
    "edit": _edit,
    "pause": decide.pause,
    "stop": decide.stop,
    "resume": decide.resume,
}


class Violation(AssertionError):
    """Something was answered or written that must not be; `moves` led there."""

    def __init__(self, said: str, moves: list[str]) -> None:
        super().__init__(said, moves)
        self.said, self.moves = said, moves


class Row(NamedTuple):
    """What of a database the invariants ask about."""

    status: str
    condition: str
    data: str
    version: int
    epoch: int
    owner: str | None
    is_live: bool
    is_later: bool  # its due time is to come


class Database(NamedTuple):
    """All that it holds. `started`: of bugs.py, which no store but one with that bug keeps."""

    process: tuple[Values, ...]
    history: tuple[Values, ...]
    started: frozenset[str]


class Engine:
    """The real store and workers, on whichever database they are to find. Use it with `with`."""

    def __init__(self, *owners: str) -> None:
        self.clock = ManualClock()
        self._loop = VirtualLoop()
        self._store = InlineStore(":memory:", self.clock)
        self._workers = {owner: Worker({FLOW.name: FLOW}, self._store, self.clock, lease=LEASE) for owner in owners}
        for owner, worker in self._workers.items():
            worker.owner = owner
        self._numbers: dict[Database, int] = {}
        self._databases: list[Database] = []
        self._rows: list[Row] = []
        self._answers: dict[Any, tuple[int, Any]] = {}
        self.runs = 0  # of verbs

    def __enter__(self) -> Engine:
        self._run(self._store.open())
        self._sql = self._store._writer._connection  # type: ignore[attr-defined]
        self._columns = [row[1] for row in self._sql.execute("PRAGMA table_info(onward_process)")]
        self._run(self._store.insert([NewProcess(ID, FLOW.name, Post.PACKED, '{"log": [], "edits": 0}')], "ann"))
        self._there = self._dump()
        self.first = self._number(self._there)
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._store.close())
        self._loop.close()

    def row(self, database: int) -> Row:
        return self._rows[database]

    def do(self, database: int, verb: str, *args: Any) -> tuple[int, Any]:
        """The database that it leaves, and what it answers."""
        asked = database, verb, args
        if asked not in self._answers:
            self._load(self._databases[database])
            answer = self._run(getattr(self, f"_{verb}")(*args))
            self._there = self._dump()
            self.runs += 1
            self._answers[asked] = self._number(self._there), answer
        return self._answers[asked]

    # -- databases --------------------------------------------------------------------------------------------

    def _run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def _dump(self) -> Database:
        process, history = (
            tuple(self._sql.execute(f"SELECT * FROM {table}")) for table in ("onward_process", "onward_history ORDER BY version")
        )
        return Database(process, history, frozenset(STARTED))

    def _load(self, database: Database) -> None:
        STARTED.clear()
        STARTED.update(database.started)
        if database[:2] == self._there[:2]:
            return
        self._sql.execute("BEGIN")
        self._sql.execute("DELETE FROM onward_process")
        self._sql.execute("DELETE FROM onward_history")
        self._insert("onward_process", database.process)
        self._sql.execute("DELETE FROM onward_history")  # the line that a trigger wrote
        self._insert("onward_history", database.history)
        self._sql.execute("COMMIT")

    def _insert(self, table: str, rows: tuple[Values, ...]) -> None:
        for row in rows:
            self._sql.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    def _number(self, database: Database) -> int:
        if database not in self._numbers:
            self._numbers[database] = len(self._databases)
            self._databases.append(database)
            self._rows.append(self._read(database))
            self._check(database)
        return self._numbers[database]

    def _read(self, database: Database) -> Row:
        [values] = database.process
        row = dict(zip(self._columns, values, strict=True))
        now = self._now()
        live, later = (row["lease_until"] or 0) > now, (row["due_at"] or 0) > now
        return Row(is_live=live, is_later=later, **{name: row[name] for name in Row._fields if name in row})

    def _now(self) -> int:
        return int(self.clock.now().timestamp() * 1e6)

    def _check(self, database: Database) -> None:
        """Row and history are one, and each transition was made once, from what the one before it left."""
        row, entries = self._rows[-1], self._run(self._store.history(ID))
        if [entry.version for entry in entries] != list(range(row.version + 1)):
            raise Violation(f"versions {[entry.version for entry in entries]} beside a row of version {row.version}", [])
        statuses = [entry.to_status for entry in entries]
        if [entry.from_status for entry in entries] != [None, *statuses[:-1]] or row.status != statuses[-1]:
            raise Violation(f"a chain of {[(entry.from_status, entry.to_status) for entry in entries]} to {row.status}", [])
        moved = [entry.version - 1 for entry in entries if entry.kind == "moved"]
        edited = sum(entry.kind == "edited" for entry in entries)
        if (said := json.loads(row.data)) != {"log": moved, "edits": edited}:
            raise Violation(f"an update was lost or made twice: {said} after moves from {moved} and {edited} edits", [])

    # -- verbs ------------------------------------------------------------------------------------------------

    async def _claim(self, *owners: str) -> tuple[Values | None, ...]:
        """All of them at once."""
        asked = [self._store.claim(self._workers[owner]._known, owner, 1, LEASE) for owner in owners]
        return tuple(_values(records[0]) if records else None for records in await asyncio.gather(*asked))

    async def _renew(self, owner: str, epoch: int) -> bool:
        """Whether it is told that it lost the process."""
        return ID in self._store.renew(owner, {ID: epoch}, LEASE)

    async def _release(self, values: Values, begun: bool) -> None:
        await self._store.release([Record(*values)], begun=begun)

    async def _make_sure(self, owner: str) -> None:
        """What a worker does after trouble that has nothing in its hands."""
        await self._store.release_all_but(owner, [], LEASE)

    async def _commit(self, owner: str, values: Values, again: bool) -> Values | str:
        """`again`: the answer of the first time was lost, whatever it did."""
        worker, record = self._workers[owner], Record(*values)
        worker._store = _Forgetful(self._store) if again else self._store  # type: ignore[assignment]
        try:
            return _values(await worker._commit(record, _outcome(record)))
        except (Fenced, StoreError) as error:
            return type(error).__name__
        finally:
            worker._store = self._store

    async def _look(self) -> Values:
        record = await self._store.get(ID)
        assert record is not None
        return _values(record)

    async def _act(self, what: str, values: Values) -> str:
        record = Record(*values)
        try:
            await self._store.act(record, ACTS[what](record), "ann", None)
        except (Conflict, NotFound, StoreError) as error:
            return type(error).__name__
        return "done"

    async def _time_passes(self) -> None:
        """Every lease is over, and what is due later is due."""
        now = self._now()
        self._sql.execute("UPDATE onward_process SET lease_until = min(lease_until, ?), due_at = min(due_at, ?)", (now, now))

    async def _die(self, owner: str) -> None:
        STARTED.discard(owner)


class _Forgetful:
    """A store whose first answer to a commit is lost."""

    def __init__(self, store: SqliteStore) -> None:
        self._store, self._forgot = store, False

    async def get(self, id: str) -> Record | None:
        return await self._store.get(id)

    async def commit(self, record: Record, change: Change) -> Record:
        if not self._forgot:
            self._forgot = True
            raise StoreError("the answer was lost")
        return await self._store.commit(record, change)


# -- who moves when -----------------------------------------------------------------------------------------------


class Slot(NamedTuple):
    """An attempt: `runs` with a record, or `asks` what became of a commit, which was `written` or not."""

    does: str = "idle"
    record: Values = ()
    written: bool = False

    @property
    def epoch(self) -> int:
        return Record(*self.record).epoch


IDLE = Slot()


class State(NamedTuple):
    database: int
    slots: tuple[Slot, Slot] = (IDLE, IDLE)
    seen: Values = ()  # what a person is looking at
    acts: int = 0
    claims: int = 0
    holder: int | str | None = None  # the slot that was given the process last, and may write
    tries: int = 0


Move = tuple[str, State]


class Search:
    """`owners` are the workers of the two attempts: they may be two attempts of one worker. There are so many `claims`, and
    `acts` of a person; where that bound cuts the search off, the process counts as able to go on.
    """

    def __init__(self, engine: Engine, owners: tuple[str, str], claims: int, acts: int) -> None:
        self.engine, self.owners, self._claims_max, self._acts_max = engine, owners, claims, acts
        self._before: dict[State, tuple[State, str] | None] = {}
        self._leads_to: dict[State, list[State]] = {}
        self._ends: list[State] = []  # at rest, or cut off by a bound
        self.told: dict[str, int] = {}  # how often each kind of move was made

    def run(self) -> int:
        """How many states there are. Violation with the shortest way there."""
        first = State(self.engine.first)
        self._before[first] = None
        left = deque([first])
        while left:
            state = left.popleft()
            if self._row(state).condition in OVER or state.claims >= self._claims_max:
                self._ends.append(state)
            for move, after in self._moves_of(state):
                self.told[move] = self.told.get(move, 0) + 1
                self._leads_to.setdefault(after, []).append(state)
                if after not in self._before:
                    self._before[after] = state, move
                    left.append(after)
        self._refuse_the_stuck()
        return len(self._before)

    def _moves_of(self, state: State) -> Iterator[Move]:
        for moves in (self._time, self._people, self._both):
            yield from self._telling(state, moves(state))
        for one in (0, 1):
            yield from self._telling(state, self._worker(state, one))

    def _telling(self, state: State, moves: Iterator[Move]) -> Iterator[Move]:
        try:
            yield from moves
        except Violation as found:
            raise Violation(found.said, [*self._way_to(state), *found.moves]) from None

    def _way_to(self, state: State) -> list[str]:
        way = []
        while (before := self._before[state]) is not None:
            state, move = before
            way.append(move)
        return way[::-1]

    def _refuse_the_stuck(self) -> None:
        can, left = set(self._ends), deque(self._ends)
        while left:
            for before in self._leads_to.get(left.popleft(), []):
                if before not in can:
                    can.add(before)
                    left.append(before)
        for state in self._before:  # in the order of their distance
            if state not in can:
                raise Violation("it can never come to rest", self._way_to(state))

    def _row(self, state: State) -> Row:
        return self.engine.row(state.database)

    # -- moves ------------------------------------------------------------------------------------------------

    def _time(self, state: State) -> Iterator[Move]:
        row = self._row(state)
        if row.is_live or row.is_later:
            yield "time passes", state._replace(database=self.engine.do(state.database, "time_passes")[0])

    def _people(self, state: State) -> Iterator[Move]:
        row = self._row(state)
        if not state.seen and (state.acts < self._acts_max or row.condition == Condition.PAUSED):
            yield "a person looks", state._replace(seen=self.engine.do(state.database, "look")[1])
        if not state.seen:
            return
        seen = Record(*state.seen)
        for act in _fitting(state.seen):
            if act != "resume" and state.acts >= self._acts_max:
                continue
            database, answer = self.engine.do(state.database, "act", act, state.seen)
            _demand(answer in ("done", "Conflict"), f"{act} is answered {answer}", act)
            _demand((answer == "done") == (seen.version == row.version), f"{act} of version {seen.version}: {answer}", act)
            after = state._replace(database=database, seen=())
            if answer == "done":
                _demand(self.engine.row(database).epoch > row.epoch, "a person's action has no epoch of its own", act)
                after = after._replace(acts=state.acts + (act != "resume"), holder=None, tries=0)
            else:
                _demand(database == state.database, f"{act} was refused and has changed something", act)
            yield act, after

    def _both(self, state: State) -> Iterator[Move]:
        if state.slots == (IDLE, IDLE) and state.claims < self._claims_max:
            database, answers = self.engine.do(state.database, "claim", *self.owners)
            _demand(None in answers, "both have claimed it", "both claim at once")
            yield from self._claimed(state, database, answers, "both claim at once")

    def _claimed(self, state: State, database: int, answers: tuple[Values | None, ...], move: str) -> Iterator[Move]:
        before, after = self._row(state), self.engine.row(database)
        for one, values in enumerate(answers):
            if values is None:
                continue
            record = Record(*values)
            _demand(not before.is_live or state.holder is None, "it takes a lease that is not over", move)
            _demand(record.epoch > before.epoch, "a claim has no epoch of its own", move)
            _demand((record.version, record.epoch) == (after.version, after.epoch), "a claim answers what is not there", move)
            begins = overdue(FLOW, record) is None
            _demand(not begins or state.tries < ATTEMPTS, f"attempt {state.tries + 1} of {ATTEMPTS} begins", move)
            slots = _put(state.slots, one, Slot("runs", values))
            claims, tries = state.claims + 1, state.tries + 1
            yield move, state._replace(database=database, slots=slots, claims=claims, holder=one, tries=tries)
        if not any(answers) and database != state.database:  # it has noted that it asked
            yield move, state._replace(database=database)

    def _worker(self, state: State, one: int) -> Iterator[Move]:
        slot, owner = state.slots[one], self.owners[one]
        if slot.does == "idle":
            yield from self._idle(state, one, owner)
            return
        mine = state.holder == one
        free = state._replace(slots=_put(state.slots, one, IDLE))
        yield (
            f"{one} dies",
            free._replace(database=self.engine.do(state.database, "die", owner)[0], holder=DEAD if mine else state.holder),
        )
        if slot.does == "asks":
            yield from self._asks(state, one, owner)
            return
        yield from self._renews(state, one, owner)
        for begun in (False, True):
            move = f"{one} gives it back, {'' if begun else 'not '}begun"
            database, _ = self.engine.do(state.database, "release", slot.record, begun)
            _demand(mine or database == state.database, "it gives back what another has", move)
            after = free._replace(database=database)
            yield move, after._replace(holder=None, tries=max(state.tries - (not begun), 0)) if mine else after
        yield from self._commits(state, one, owner)

    def _idle(self, state: State, one: int, owner: str) -> Iterator[Move]:
        if state.claims < self._claims_max:
            database, [values] = self.engine.do(state.database, "claim", owner)
            answers = (values, None) if one == 0 else (None, values)
            for move, after in self._claimed(state, database, answers, f"{one} claims"):
                yield move, after
                if values is not None:
                    yield f"{one} claims, answer lost", after._replace(slots=state.slots, holder=NOBODY)
        has_none = all(slot.does == "idle" for slot, other in zip(state.slots, self.owners, strict=True) if other == owner)
        if has_none and state.holder != DEAD:
            move = f"{one} makes sure"
            database, _ = self.engine.do(state.database, "make_sure", owner)
            if database != state.database:
                _demand(state.holder == NOBODY, "it gives back what another has", move)
                yield move, state._replace(database=database, holder=None, tries=max(state.tries - 1, 0))

    def _renews(self, state: State, one: int, owner: str) -> Iterator[Move]:
        move, slot, mine = f"{one} renews", state.slots[one], state.holder == one
        database, is_lost = self.engine.do(state.database, "renew", owner, slot.epoch)
        _demand(mine or database == state.database, "it prolongs what another has", move)
        _demand(is_lost is not mine, f"it has {'' if mine else 'not '}the process and is told the contrary", move)
        _demand(not mine or self.engine.row(database).is_live, "it has renewed a lease that is over none the less", move)
        yield move, state._replace(database=database, slots=state.slots if mine else _put(state.slots, one, IDLE))

    def _commits(self, state: State, one: int, owner: str) -> Iterator[Move]:
        slot, mine = state.slots[one], state.holder == one
        database, answer = self.engine.do(state.database, "commit", owner, slot.record, False)
        move = f"{one} commits"
        _demand(mine or database == state.database, "it writes what another has", move)
        _demand((answer == "Fenced") is not mine, f"a commit is answered {answer if isinstance(answer, str) else 'done'}", move)
        yield move, self._committed(state, one, database, answer)
        lost = _put(state.slots, one, slot._replace(does="asks"))
        yield f"{one} commits in vain, answer lost", state._replace(slots=lost)
        if mine:
            written = self._committed(state, one, database, answer)
            lost = _put(state.slots, one, slot._replace(does="asks", written=True))
            yield f"{move}, answer lost", written._replace(slots=lost)

    def _asks(self, state: State, one: int, owner: str) -> Iterator[Move]:
        slot, mine = state.slots[one], state.holder == one
        database, answer = self.engine.do(state.database, "commit", owner, slot.record, True)
        move = f"{one} asks what became of its commit"
        writes = mine and not slot.written
        _demand(writes or database == state.database, "it writes once more what was lost, or what another has", move)
        is_true = (answer != "Fenced") == (writes or slot.written)
        _demand(is_true, f"it is told {answer}, and it was written: {slot.written}", move)
        if slot.written:
            goes_on = not isinstance(answer, str) and Record(*answer).owner is not None
            yield move, state._replace(slots=_put(state.slots, one, Slot("runs", answer) if goes_on else IDLE))
        else:
            yield move, self._committed(state, one, database, answer)

    def _committed(self, state: State, one: int, database: int, answer: Values | str) -> State:
        """After a commit that was written, or refused."""
        if isinstance(answer, str):
            return state._replace(slots=_put(state.slots, one, IDLE))
        after, row = Record(*answer), self.engine.row(database)
        told = after.status, after.data, after.version, after.epoch, after.owner
        _demand(told == (row.status, row.data, row.version, row.epoch, row.owner), f"what it is told is not there: {told}", "")
        goes_on = after.owner is not None
        slots = _put(state.slots, one, Slot("runs", answer) if goes_on else IDLE)
        return state._replace(database=database, slots=slots, holder=one if goes_on else None, tries=1 if goes_on else 0)


@cache
def _fitting(seen: Values) -> list[str]:
    """What can be done to what a person sees, by the law."""
    fitting = []
    for act, make in ACTS.items():
        with suppress(Refused):
            make(Record(*seen))
            fitting.append(act)
    return fitting


def _put(slots: tuple[Slot, Slot], one: int, slot: Slot) -> tuple[Slot, Slot]:
    return (slot, slots[1]) if one == 0 else (slots[0], slot)


def _demand(is_so: bool, said: str, move: str) -> None:
    if not is_so:
        raise Violation(said, [move])
