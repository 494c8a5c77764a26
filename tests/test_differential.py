"""One behaviour: the same sequence of verbs gives the same answers and leaves the same rows, history and steps behind in
SQLite, in PostgreSQL, in the SQLite of simulations, which has no thread, and in a reference model of a few dictionaries.
RELIABILITY.md I26 and T2.

Each verb's answers are compared, errors and their words included, and then all rows, and what is new in the history of the
processes that it was about; at the end of a sequence everything, as another worker reads it. Where stores may differ:

* Data is compared as JSON values: PostgreSQL keeps the values, SQLite the text. `2` and `2.0` are one value there and two texts
  here, so "unchanged" may mean another thing; these sequences write a value in one way only.
* Which of two processes is taken that are due since the very same instant is up to the store. Where a claim's limit would cut
  between such, a larger one is asked for.
* The model has no words for its errors, and what a database refuses is told in the database's own.

The run is the same each time, and so is what it finds. By the environment:

    ONWARD_DIFFERENTIAL_SEED=N      another run, the same each time as well
    ONWARD_DIFFERENTIAL_EXAMPLES=N  so many sequences and not 200
    ONWARD_DIFFERENTIAL_SHRINK=1    looks for the shortest sequence that shows the difference, for five minutes at the most
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import asyncpg
import pytest
from alike import Said, answer_of, data_at, same
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from reference import Reference, is_suspect, place_of

from onward import END, Every, Flow, Process, Retry, decide, stage
from onward.decide import Change, Failed, Returned, Undone, Unreadable
from onward.errors import Fenced, Refused
from onward.ports import Known, NewProcess, Place, Search, Store
from onward.process import OVER, Condition, Record
from onward.query import beginning, exactly, parse
from onward.store import open_store, upkeep_of
from onward.store.sqlite.inline import InlineStore
from onward.testing import ManualClock

SEED = os.environ.get("ONWARD_DIFFERENTIAL_SEED")
EXAMPLES, STEPS = int(os.environ.get("ONWARD_DIFFERENTIAL_EXAMPLES", "200")), 50
SHRINK = "ONWARD_DIFFERENTIAL_SHRINK" in os.environ
PATIENCE_S = 30.0  # for the answers to one verb
IN_MEMORY = Path("/dev/shm")  # where there is one: whether a commit outlives a power cut is no question here


class Post(StrEnum):
    PACKED = auto()
    SENT = auto()
    LOST = auto()
    BACK = auto()
    DONE = auto()


class Parcel(Process[Post]):
    status: Post = Post.PACKED


async def send(parcel: Parcel) -> Literal[Post.SENT, Post.DONE]:
    raise NotImplementedError  # nothing runs here: the machine says what it came to


async def follow(parcel: Parcel) -> Literal[Post.SENT, Post.PACKED, Post.DONE]:
    raise NotImplementedError


async def search(parcel: Parcel) -> Literal[Post.BACK]:
    raise NotImplementedError


async def fetch(parcel: Parcel) -> Literal[Post.DONE]:
    raise NotImplementedError


AGAIN = Retry(attempts=4, first=20)
TABLE = {
    Post.PACKED: stage(send, retry=AGAIN),
    Post.SENT: stage(follow, every=Every(seconds=20), within=60, otherwise=Post.LOST, on_failure=Post.LOST, retry=AGAIN),
    Post.LOST: stage(search, retry=Retry(attempts=2, first=0)),
    Post.BACK: stage(fetch),
    Post.DONE: END,
}
FLOWS = {
    "parcel": Flow(Parcel, TABLE, name="parcel", on_cancel=Post.BACK),
    "letter": Flow(Parcel, TABLE, name="letter"),  # cancelled, it ends at once
}
# What new code knows. Old code knows no other version of data than the first, and leaves rows of the second alone.
EVERYTHING = [(flow, status.value, version) for flow in FLOWS for status in Post if status is not Post.DONE for version in (1, 2)]
OLD = [each for each in EVERYTHING if each[2] == 1]
RENAMED = st.lists(
    st.tuples(st.sampled_from([*FLOWS, "no such"]), st.sampled_from(["packed", "sent"]), st.sampled_from(Post)), max_size=2
)

IDS = ["p%1", "p_1", "é", "a", "b", "B", "𝄞", "10", "9"]
NO_SUCH = "no such"
# As alike.py writes it, so that a value has one text. PostgreSQL would put "b" before "aa".
DATA = ['{"n":[1,2.5,null,true],"note":"é𝄞 \\\\ \\""}', '{"aa":{"x":{},"y":[]},"b":1}', '{"a":0}', "{}"]
OUTCOMES = ["returned"] * 4 + ["failed", "failed", "final", "asked", "unread", "undone", "saved", "wrong"]
SHORT, LONG, ANY_LEASE = timedelta(seconds=4), timedelta(seconds=30), timedelta(hours=1)
OWNERS, ACTORS = st.sampled_from(["worker-a", "worker-b"]), st.sampled_from(["ann", "bob"])
LEASES = st.sampled_from([SHORT, LONG])
REASONS = st.sampled_from([None, "why \n\tnot: é"])
KNOWN = st.sampled_from([EVERYTHING, OLD]) | st.lists(
    st.sampled_from([*EVERYTHING, ("parcel", NO_SUCH, 1), (NO_SUCH, "packed", 1)]), max_size=6
)
NOTHING: st.SearchStrategy[list[Any]] = st.just([])
SOME_IDS = st.lists(st.sampled_from([*IDS, NO_SUCH]), max_size=4, unique=True)
LIMITS = st.integers(1, 4)
OTHER = st.sampled_from([{}, {}, {"took": 0.5}, {"reason": "?"}, {"data": DATA[0]}, {"kind": "?"}])
RARELY = st.sampled_from([False] * 9 + [True])
NEW = st.builds(
    NewProcess, st.sampled_from(IDS), st.sampled_from([*FLOWS, NO_SUCH]),
    st.sampled_from(["packed", "sent", "sent", NO_SUCH]), st.sampled_from(DATA),
    st.sampled_from(["started", "started by hand", "forked"]), REASONS, st.sampled_from([1, 1, 2]),
)  # fmt: skip
EVERY_ROW = Search(limit=1_000)
HOW = st.sampled_from(["fresh", "fresh", "claimed meanwhile", "moved on meanwhile", NO_SUCH])
HOW_OVER = st.sampled_from(["over", "over", "stopped", "moved on meanwhile", "moved on meanwhile"])
ACTS: dict[str, Callable[[Record, str, Post], Change]] = {  # with the words of a person, where he needs some
    "wake": lambda record, *_: decide.wake(record),
    "retry": lambda record, *_: decide.retry(record),
    "pause": lambda record, *_: decide.pause(record),
    "resume": lambda record, *_: decide.resume(record),
    "stop": lambda record, *_: decide.stop(record),
    "cancel": lambda record, *_: decide.cancel(FLOWS[record.flow], record),
    "edit": lambda record, text, to: decide.edit(record, text, None),
    "move": lambda record, text, to: decide.move(FLOWS[record.flow], record, to, force=False),
    "move by force": lambda record, text, to: decide.move(FLOWS[record.flow], record, to, force=True),
}


class Stores:
    """The databases, each with two handles, as two workers would have them. They outlive the sequences. That of simulations is in
    the memory of one program: both handles are one.
    """

    def __init__(self, path: Path, postgres_url: str) -> None:
        self.clock, self.loop = ManualClock(), asyncio.new_event_loop()
        self.began_at = self.clock.now()
        self.path, self.dsn = path, postgres_url
        self.urls = f"sqlite:///{path}", f"{postgres_url}?synchronous_commit=off&notify=off"

    def run(self, work: Awaitable[Any]) -> Any:
        async def in_time() -> Any:
            async with asyncio.timeout(PATIENCE_S):
                return await work

        return self.loop.run_until_complete(in_time())

    async def open(self) -> None:
        await upkeep_of(self.urls[1], self.clock).upgrade(print)
        self.simulated = InlineStore(":memory:", self.clock)
        await self.simulated.open()
        self.handles = [await self.worker(), await self.worker()]
        self._sqlite = sqlite3.connect(self.path, isolation_level=None)
        self._postgres = await asyncpg.connect(self.dsn)

    async def worker(self) -> list[Store]:
        stores = [open_store(url, self.clock) for url in self.urls]
        for store in stores:
            await store.open()
        return [*stores, self.simulated]

    async def another(self, handle: int) -> None:
        for store in self.handles[handle]:
            if store is not self.simulated:
                await store.close()
        self.handles[handle] = await self.worker()

    async def close(self) -> None:
        for store in [store for stores in self.handles for store in stores]:
            await store.close()
        self._sqlite.close()
        await self._postgres.close()

    async def empty(self) -> None:
        self.clock.jump(self.began_at - self.clock.now())
        for table in ("onward_process", "onward_history", "onward_step"):
            self._sqlite.execute(f"DELETE FROM {table}")
            await self.simulated._write(lambda connection, table=table: connection.execute(f"DELETE FROM {table}"))
            await self._postgres.execute(f"DELETE FROM {table}")


class Differential(RuleBasedStateMachine):
    """`seen` is what workers and people have in their hands, fresh and stale; `sent` are the commits that were answered."""

    def __init__(self, stores: Stores, happened: Counter[str]) -> None:
        super().__init__()
        self.stores, self.happened, self.clock, self.run = stores, happened, stores.clock, stores.run
        self.run(stores.empty())
        self.model = Reference(self.clock)
        self.seen: list[Record] = []
        self.sent: list[tuple[Record, Change]] = []
        self.number = 0
        self.place: Place | None = None  # where somebody reads on in what people did
        self.handle = 0  # the one that is asked
        self.alike = True

    def ask(self, what: str, verb: Callable[[Any], Awaitable[Any]]) -> Any:
        """The answer to a verb, the same from all. `what` counts it, with its error if it has one."""
        expected = self.compare(what, verb)
        for answer in expected if isinstance(expected, list) else [expected]:
            self.happened[f"{what}: {answer.kind}" if isinstance(answer, Said) else what] += 1
        return expected

    def compare(self, what: str, verb: Callable[[Any], Awaitable[Any]]) -> Any:
        self.alike = False

        async def answers() -> list[Any]:
            stores = self.stores.handles[self.handle]
            return [await answer_of(verb(self.model)), *await asyncio.gather(*(answer_of(verb(store)) for store in stores))]

        expected, sqlite, postgres, simulated = self.run(answers())
        same(f"{what}: SQLite and PostgreSQL", sqlite, postgres)
        same(f"{what}: SQLite and that of simulations", sqlite, simulated)
        same(f"{what}: the model and the stores", expected, sqlite)
        self.alike = True
        return expected

    def write(self, what: str, verb: Callable[[Any], Awaitable[Any]], *ids: str) -> Any:
        """The same for one that changes something of `ids`; what it left behind is the same as well."""
        known = {id: self.model.rows[id].version for id in ids if id in self.model.rows}
        answer = self.ask(what, verb)
        new = {id: known.get(id, -1) if id in self.model.rows else -1 for id in ids}

        def left_behind(store: Store) -> Awaitable[Any]:
            return asyncio.gather(store.find(EVERY_ROW), *(store.history(*place) for place in new.items()))

        self.compare(f"after {what}", left_behind)
        return answer

    def teardown(self) -> None:
        if not self.alike:
            return
        self.handle = 1 - self.handle

        def everything(store: Store) -> Awaitable[Any]:
            histories = (store.history(id) for id in self.model.entries)
            steps = (store.steps(*visit) for visit, kept in self.model.kept.items() if kept)
            return asyncio.gather(
                store.find(EVERY_ROW), store.counts(), store.next_due(EVERYTHING), store.acts(limit=1_000), *histories, *steps
            )

        self.compare("at the end", everything)

    # -- what happens -----------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.start([NewProcess(id, "parcel", "sent", "{}") for id in IDS[:3]], "ann")
        self.claim(EVERYTHING, "worker-a", 1, LONG, IDS[:1])

    @rule(new=st.lists(NEW, max_size=4), actor=ACTORS)
    def start_some(self, new: list[NewProcess], actor: str) -> None:
        self.start(new, actor)

    def start(self, new: Sequence[NewProcess], actor: str) -> None:
        verdicts = self.write("insert", lambda store: store.insert(new, actor), *{process.id for process in new})
        self.happened["insert: known"] += verdicts.count(False)
        begun = [process for process, verdict in zip(new, verdicts, strict=True) if verdict]
        self.happened["insert: forked"] += sum(process.kind == "forked" and process.reason is not None for process in begun)
        again = {process.id for process in begun if self.model.gone(process.id)}
        self.happened["insert: after a deletion"] += len(again)

    @rule(data=st.data(), owner=OWNERS, limit=LIMITS, stages=st.integers(1, 3), later=st.booleans())
    def work(self, data: st.DataObject, owner: str, limit: int, stages: int, later: bool) -> None:
        """What a worker does most of the time: takes something and brings it a stage or two further."""
        if later:
            self.time_passes(40.0)
        records = self.claim(EVERYTHING, owner, limit, LONG)
        for _ in range(stages):
            records = self.commit(data, records)

    @rule(owner=OWNERS, limit=LIMITS, times=st.integers(1, 2))
    def lose_workers(self, owner: str, limit: int, times: int) -> None:
        for _ in range(times):
            self.claim(EVERYTHING, owner, limit, SHORT)
            self.time_passes(SHORT.total_seconds())

    @rule(known=KNOWN, owner=OWNERS, limit=LIMITS, lease=LEASES, ids=NOTHING | SOME_IDS, suspect=st.booleans())
    def claim_some(self, **what: Any) -> None:
        self.claim(**what)

    def claim(
        self, known: Known, owner: str, limit: int, lease: timedelta, ids: Collection[str] = (), suspect: bool = True
    ) -> list[Record]:
        limit, suspect = self.without_a_choice(known, ids, limit, suspect)
        before = dict(self.model.rows)
        records: list[Record] = self.write("claim", lambda store: store.claim(known, owner, limit, lease, ids, suspect=suspect))
        self.happened["claim: taken over"] += sum(before[record.id].owner is not None for record in records)
        self.happened["claim: suspect"] += not ids and any(is_suspect(before[record.id]) for record in records)
        self.seen += records
        return records

    def without_a_choice(self, known: Known, ids: Collection[str], limit: int, suspect: bool) -> tuple[int, bool]:
        """The limit, enlarged until it cuts between two instants; no suspect, where either of two could be taken."""
        due = self.model.due(known, ids)
        suspects = [] if ids else [since for since, row in due if is_suspect(row)]
        times = [since for since, row in due if ids or not is_suspect(row)]
        suspect = suspect and not (len(suspects) > 1 and suspects[0] == suspects[1])
        first = int(suspect and bool(suspects))
        while 0 < limit - first < len(times) and times[limit - first - 1] == times[limit - first]:
            limit += 1
        return limit, suspect

    @rule(data=st.data(), size=LIMITS)
    def commit_some(self, data: st.DataObject, size: int) -> None:
        self.commit(data, [self.pick(data) for _ in range(size)])

    def commit(self, data: st.DataObject, records: Sequence[Record]) -> list[Record]:
        """All at once, as workers do: each has its own verdict. Of one process one, for which of two wins is not to be told.
        Answers those that go on.
        """
        group = {record.id: self.as_code_reads_it(data, record) for record in records if _is_handled(record)}
        items = [(record, self.change(data, record)) for record in group.values()]
        if not items:
            return []
        answers = self.write("commit", lambda store: asyncio.gather(*(answer_of(store.commit(*item)) for item in items)), *group)
        done = [(*item, answer) for item, answer in zip(items, answers, strict=True) if isinstance(answer, Record)]
        for record, change, answer in done:
            self.happened[f"commit {change.kind}"] += 1
            before, after = self.model.entries[record.id][-2:]
            self.happened["commit: upgraded"] += before.data_version < after.data_version
            self.happened["commit: upgraded, no data"] += before.data_version < record.data_version and change.data is None
            self.happened["commit: finished"] += change.condition is Condition.FINISHED
            self.happened["commit: in a group"] += len(items) > 1
            self.seen.append(answer)
            self.sent.append((record, change))
        return [answer for _, _, answer in done if answer.owner is not None]

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(1, 3), other=OTHER)
    def commit_again(self, back: int, other: dict[str, Any]) -> None:
        """As somebody does who had no answer; or somebody wants something else of the same version."""
        record, change = self.sent[-min(back, len(self.sent))]
        self.write("commit again", lambda store: store.commit(record, replace(change, **other)), record.id)

    @rule(data=st.data(), gives_up=st.booleans())
    def commit_in_a_transaction(self, data: st.DataObject, gives_up: bool) -> None:
        record = self.as_code_reads_it(data, self.pick(data))
        if not _is_handled(record) or decide.overdue(FLOWS[record.flow], record):
            return  # no handler runs
        change = self.change(data, record, ["returned"])

        async def verb(store: Any) -> Record | None:
            if isinstance(store, Reference):
                return None if gives_up else await store.commit(record, change, again=False)
            try:
                transaction = await store.begin(record)
                try:
                    return None if gives_up else await store.commit(record, replace(change, transaction=transaction))
                finally:
                    await transaction.rollback()
            except Fenced:  # told at once or at its commit, and not in the same words
                if gives_up:
                    return None
                raise Fenced("") from None

        answer = self.write("rollback" if gives_up else "commit in a transaction", verb, record.id)
        if isinstance(answer, Record):
            self.seen.append(answer)

    @rule(acts=st.lists(st.sampled_from([*ACTS, *["resume", "retry"] * 2]), min_size=1, max_size=4), text=st.sampled_from(DATA),
          to=st.sampled_from(Post), number=st.integers(0, 3), how=HOW, actor=ACTORS, reason=REASONS)  # fmt: skip
    def act(self, acts: list[str], text: str, to: Post, number: int, how: str, actor: str, reason: str | None) -> None:
        """A person looks, at what waits for him first, thinks, and asks for what fits what he saw, and perhaps for more."""
        records = self.run(self.model.find(EVERY_ROW))
        if how == "moved on meanwhile":
            records = [record for record in self.seen if self.moved_on(record)]
        if how == "claimed meanwhile":
            due = {row.id for _, row in self.model.due(EVERYTHING)}
            records = [record for record in records if record.id in due]
        fit = [record for record in records if any(_what_fits(act, record, text, to) for act in acts)]
        if not fit:
            return
        record = sorted(fit, key=lambda record: record.due_at is not None)[number % len(fit)]
        if how == "claimed meanwhile":
            self.happened["act: claimed meanwhile"] += len(self.claim(EVERYTHING, "worker-a", 1, LONG, [record.id]))
        if how == NO_SUCH:
            record = replace(record, id=NO_SUCH)
        for act in acts:
            record = self.ask_for(act, _what_fits(act, record, text, to), record, actor, reason)

    def ask_for(self, act: str, change: Change | None, record: Record, actor: str, reason: str | None) -> Record:
        if change is None:
            return record
        answer = self.write("act", lambda store: store.act(record, change, actor, reason), record.id)
        if not isinstance(answer, Record):
            return record
        self.happened[f"act {act}"] += 1
        self.happened["act edit: other data"] += act == "edit" and self.model.entries[record.id][-1].data is not None
        self.seen.append(answer)
        return answer

    @rule(number=st.integers(0, 3), how=HOW_OVER, again=st.booleans(), actor=ACTORS, reason=REASONS)
    def delete(self, number: int, how: str, again: bool, actor: str, reason: str | None) -> None:
        """What is over, or is stopped for it; or what somebody saw before it went on or was deleted. The id may be used again."""
        stale = how == "moved on meanwhile"
        records = self.seen if stale else self.run(self.model.find(EVERY_ROW))
        fit = [record for record in records if (self.moved_on(record) if stale else how == "stopped" or record.condition in OVER)]
        if not fit:
            return
        record = sorted(fit, key=lambda record: len(self.model.gone(record.id)))[-1 - number % len(fit)]
        if how == "stopped":
            record = self.ask_for("stop", _what_fits("stop", record), record, actor, reason)
        visits = [visit for visit, kept in self.model.kept.items() if visit[0] == record.id and kept]
        self.write("delete", lambda store: store.delete(record, actor, reason), record.id)
        if visits and record.id not in self.model.rows:
            self.compare("steps after delete", lambda store: asyncio.gather(*(store.steps(*visit) for visit in visits)))
            self.happened["delete: with steps"] += 1
        self.happened["delete: again"] += len(self.model.gone(record.id)) > 1
        if again:
            self.start([NewProcess(record.id, record.flow, "sent", record.data)], actor)

    @rule(data=st.data(), others=RARELY, patient=RARELY, lease=LEASES, no_such=st.booleans())
    def renew(self, data: st.DataObject, others: bool, patient: bool, lease: timedelta, no_such: bool) -> None:
        records = self.pick(data), self.pick(data)
        owner = "worker-c" if others else records[0].owner or "worker-a"
        held = {record.id: record.epoch for record in records} | ({NO_SUCH: 1} if no_such else {})
        if not patient:  # what is neither lost nor his might only be locked just now: PostgreSQL asks again for 0.1 s
            lost = self.run(self.model.taken_away(held))
            held = {id: epoch for id, epoch in held.items() if id in lost or self.model.rows[id].owner == owner}
        before = dict(self.model.rows)
        lost = self.write("renew", lambda store: asyncio.to_thread(store.renew, owner, held, lease))
        assert self.ask("taken_away", lambda store: store.taken_away(held)) == lost
        self.happened["renew: prolonged"] += self.model.rows != before
        self.happened["renew: lost"] += len(lost)

    @rule(data=st.data(), size=st.integers(1, 3), begun=st.booleans())
    def release(self, data: st.DataObject, size: int, begun: bool) -> None:
        records = [self.pick(data) for _ in range(size)]
        before = dict(self.model.rows)
        self.write("release", lambda store: store.release(records, begun=begun))
        what = "in vain" if self.model.rows == before else "begun" if begun else "not begun"
        self.happened[f"release: {what}"] += 1

    @rule(owner=OWNERS, ids=SOME_IDS)
    def lose_the_answer_to_a_claim(self, owner: str, ids: list[str]) -> None:
        before = dict(self.model.rows)
        self.write("release_all_but", lambda store: store.release_all_but(owner, ids, ANY_LEASE))
        self.happened["release_all_but: something"] += self.model.rows != before

    @rule(data=st.data(), name=st.sampled_from(["pay", "é"]), result=st.sampled_from(["1", '"\\u0000 é"']))
    def step(self, data: st.DataObject, name: str, result: str) -> None:
        record = self.pick(data)
        self.ask("record_step", lambda store: store.record_step(record, name, result))
        self.ask("steps", lambda store: store.steps(record.id, record.transition))

    @rule(
        flows=NOTHING | st.lists(st.sampled_from([*FLOWS, NO_SUCH]), max_size=2),
        statuses=NOTHING | st.lists(st.sampled_from(Post), max_size=2),
        conditions=NOTHING | st.lists(st.sampled_from(Condition), max_size=3),
        prefix=st.sampled_from(["", "", "", "p", "p%", "p_", "é", "A"]),
        other=st.sampled_from(["", "", "worker:worker-a", "error:*", "-is:over", "version:>1", "due:>5s", "data.a:0"]),
        before=st.sampled_from(["", "", *IDS, NO_SUCH]),
        limit=st.integers(1, 5),
        looks=st.sampled_from([0, 0, 0, 1, 2]),
        known=st.none() | KNOWN,
        renamed=RENAMED,
    )
    def find(
        self, flows: list[str], statuses: list[str], conditions: list[str], prefix: str, other: str, before: str, limit: int,
        looks: int, known: Known | None, renamed: list[tuple[str, str, str]],
    ) -> None:  # fmt: skip
        asked = {"flow": flows, "status": statuses, "is": conditions}
        terms = [*parse(other), *(exactly(name, *values) for name, values in asked.items() if values)]
        terms += [beginning("id", prefix)] if prefix else []
        search = Search(terms, before, limit, looks=looks, known=known, renamed=renamed)
        found = self.ask("find", lambda store: store.find(search))
        self.happened["find: something"] += bool(found)
        if looks:
            self.happened["past: more"] += self.ask("past", lambda store: store.past(search)) != ""
        self.ask("counts", lambda store: store.counts())
        self.happened["walk: something"] += bool(self.ask("walk", lambda store: store.walk(before, limit)))
        self.happened["leases: something"] += bool(self.ask("leases", lambda store: store.leases()))
        page = self.ask("acts", lambda store: store.acts(self.place, limit))
        self.happened["acts: something"] += bool(page)
        self.happened["acts: another page"] += bool(page) and self.place is not None
        self.happened["acts: deleted"] += any(entry.version < 0 for entry in page)
        self.place = place_of(page[-1]) if page else None

    @rule(id=st.sampled_from([*IDS, NO_SUCH]), after=st.integers(-1, 6), limit=LIMITS, known=KNOWN)
    def look(self, id: str, after: int, limit: int, known: Known) -> None:
        found = self.ask("get", lambda store: store.get(id))
        self.happened["get: nothing"] += found is None
        page = self.ask("history", lambda store: store.history(id, after, limit))
        self.happened["history: a page"] += len(page) == limit
        data = self.ask("data_at", lambda store: data_at(store, id, after + 1))
        self.happened["data_at: something"] += data is not None
        due = self.ask("next_due", lambda store: store.next_due(known))
        self.happened["next_due: nothing"] += due is None

    @rule(seconds=st.sampled_from([0.000001, 1.0, 3.0, 10.0, 40.0, 40.0, 7200.0, -0.5, -2.0]))
    def time_passes(self, seconds: float) -> None:
        """Or, where it is negative, somebody sets the clock back."""
        self.clock.jump(seconds)
        self.happened["time: back" if seconds < 0 else "time"] += 1

    @rule(gone=RARELY)  # to connect takes as long as ten commits
    def another_worker(self, gone: bool) -> None:
        """The other one is asked from now on. This one may go, and the one that comes instead knows nothing of it."""
        if gone:
            self.run(self.stores.another(self.handle))
            self.happened["another worker"] += 1
        self.handle = 1 - self.handle

    def as_code_reads_it(self, data: st.DataObject, record: Record) -> Record:
        """Old code as it is, new code upgraded: what that writes has the second version."""
        return replace(record, data_version=max(record.data_version, data.draw(st.sampled_from([1, 1, 2]), "code")))

    # -- what somebody has in his hands -----------------------------------------------------------------------

    def pick(self, data: st.DataObject) -> Record:
        """Mostly what is still his who has it, sometimes what is long past."""
        his = [record for record in self.seen if self.model.holds(record)]
        records = his if his and data.draw(st.sampled_from([True, True, False]), "still his") else self.seen
        return records[-data.draw(st.integers(1, min(9, len(records))))]

    def moved_on(self, record: Record) -> bool:
        """Whether the process is not any more at the version that somebody saw, or is gone."""
        row = self.model.rows.get(record.id)
        return row is None or row.version != record.version

    def change(self, data: st.DataObject, record: Record, outcomes: Sequence[str] = OUTCOMES) -> Change:
        """What the law makes of an attempt, as `drive` asks it; sometimes what nothing but a bug of ours would ask for."""
        flow = FLOWS[record.flow]
        self.number += 1
        took = self.number / 7  # no two are the same
        text = data.draw(st.sampled_from([record.data, *DATA, f'{{"number":{self.number}}}']), "data")
        what = data.draw(st.sampled_from(outcomes))
        if what == "saved":
            return decide.saved(record, text)
        late = decide.overdue(flow, record)
        if late is not None:
            return late
        if what == "returned":
            line = flow.stages[record.status]
            assert line is not None
            status = data.draw(st.sampled_from(sorted(line.targets)), "status")
            return decide.decide(flow, record, Returned(status, text, None, took))
        if what in ("unread", "undone"):
            return decide.decide(flow, record, Unreadable("no", took) if what == "unread" else Undone("deadlock", took))
        delay = timedelta(seconds=7) if what == "asked" else None
        change = decide.decide(flow, record, Failed("no luck: é", took, delay, what == "final"))
        return replace(change, condition=Condition.WAITING, due_after=None) if what == "wrong" else change


def _is_handled(record: Record) -> bool:
    return (record.flow, record.status, record.data_version) in EVERYTHING


def _what_fits(act: str, record: Record, text: str = "", to: Post = Post.PACKED) -> Change | None:
    try:
        return ACTS[act](record, text, to)
    except (Refused, KeyError):  # KeyError: of a flow that is not there nobody knows what cancels it
        return None


WANTED = [
    "insert", "insert: known", "insert: forked", "insert: after a deletion", "claim", "claim: taken over", "claim: suspect",
    "commit moved", "commit saved", "commit not yet", "commit retry", "commit failed", "commit gave up", "commit deadline",
    "commit rolled back", "commit: upgraded", "commit: upgraded, no data", "walk: something",
    "commit: finished", "commit: in a group", "commit: Fenced", "commit: StoreError",
    "commit again", "commit again: Fenced", "commit in a transaction", "commit in a transaction: Fenced", "rollback",
    *(f"act {act}" for act in ACTS), "act edit: other data", "act: Conflict", "act: NotFound", "act: claimed meanwhile",
    "delete", "delete: Conflict", "delete: NotFound", "delete: with steps", "delete: again",
    "renew: prolonged", "renew: lost", "taken_away", "release: begun", "release: not begun", "release: in vain",
    "release_all_but: something", "record_step", "record_step: Fenced", "steps", "find: something", "counts", "leases: something",
    "past: more", "acts: something", "acts: another page", "acts: deleted",
    "get", "get: nothing", "history: a page", "data_at: something", "next_due", "next_due: nothing",
    "time", "time: back", "another worker",
]  # fmt: skip


@pytest.fixture
def stores(tmp_path: Path, postgres_url: str) -> Iterator[Stores]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else tmp_path) as folder:
        stores = Stores(Path(folder) / "onward.db", postgres_url)
        stores.run(stores.open())
        yield stores
        stores.run(stores.close())
        stores.loop.close()


@pytest.mark.slow
def test_any_sequence_of_verbs_has_the_same_answers_and_outcome_on_every_store(stores: Stores) -> None:
    happened: Counter[str] = Counter()

    def machine() -> Differential:
        return Differential(stores, happened)

    run_state_machine_as_test(
        seed(int(SEED))(machine) if SEED else machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, derandomize=not SEED, database=None,
            phases=[Phase.generate, *[Phase.shrink] * SHRINK], print_blob=False, report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    print(happened)
    if not SEED:  # another run may be a short one, or have bad luck
        assert [what for what in WANTED if not happened[what]] == [], happened
