"""What every store promises, as tests. Whoever writes a store runs them by supplying a fixture or two:

    from onward.testing import ManualClock, StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self, clock: ManualClock):
            store = MyStore("…", clock)
            await store.open()
            yield store
            await store.close()

        @pytest.fixture
        async def rival(self, store, clock: ManualClock):    # a second store object on the same rows, as another
            ...                                              # program would have it; left out, it is `store` itself

        @pytest.fixture
        async def user(self, store):                         # somebody with a table of his own beside ours: see `User`
            ...

Data is JSON as PostgreSQL's jsonb writes it, `{"n": 1}`: a store may keep the values rather than the text.

Each test needs a store without rows. It needs pytest with pytest-asyncio and sleeps nowhere: `clock` is turned by hand.
What is specific to one store stands in that store's own test file; what is true of every store stands here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from onward.decide import NOW, Change
from onward.errors import Conflict, Fenced, NotFound, StoreError
from onward.ports import Known, NewProcess, Search, Store
from onward.process import Condition, Entry, Record
from onward.query import parse
from onward.testing.clock import ManualClock

KNOWN = [("parcel", "packed"), ("parcel", "sent")]  # what "our code" can move; the third status, done, is the end
LEASE, SECOND = timedelta(seconds=30), timedelta(seconds=1)
FOREIGN_ROWS = 20_000  # rows of code that nobody here knows
NOTICED_S = 1.0  # the promise is 100 ms; a busy machine may take longer
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class User(Protocol):
    """Who keeps rows of his own in the database of the store: notes, each of them different."""

    async def note(self, connection: Any, text: str) -> None:
        """Writes one, through the connection of a handler's transaction or through his own."""

    async def notes(self) -> set[str]:
        """What is committed of them. Asked only while no transaction is open."""

    def connected(self, *, commit: bool) -> AbstractAsyncContextManager[Any]:
        """A connection of his own, in a transaction that is committed or rolled back at the end of the block."""


def new(id: str, data: str = '{"n": 0}', flow: str = "parcel", status: str = "packed") -> NewProcess:
    return NewProcess(id, flow, status, data)


def change(record: Record, kind: str, condition: Condition, after: timedelta | None, **fields: Any) -> Change:
    """A change that keeps everything of `record` but what is named."""
    kept = Change(
        kind, record.status, condition, after, record.attempt, record.polls, record.transition, record.moves, record.cancelling
    )
    return replace(kept, **{"excused": record.excused, **fields})


def moved(record: Record, data: str | None = None, **fields: Any) -> Change:
    step = {"status": "sent", "transition": record.transition + 1, "moves": record.moves + 1, "attempt": 1, "excused": 0}
    return change(record, "moved", Condition.READY, NOW, **{**step, "data": data, "enters": True, "goes_on": True, **fields})


def not_yet(record: Record, after: timedelta = SECOND, **fields: Any) -> Change:
    return change(record, "not yet", Condition.WAITING, after, excused=record.attempt, polls=record.polls + 1, **fields)


def failed(record: Record, error: str = "no stamps") -> Change:
    return change(record, "failed", Condition.FAILED, None, error=error, reason=error)


def finished(record: Record) -> Change:
    step = {"status": "done", "transition": record.transition + 1, "attempt": 0, "excused": 0}
    return change(record, "moved", Condition.FINISHED, None, **step, enters=True)


def resumed(record: Record) -> Change:
    return change(record, "resumed", Condition.READY, NOW)


def paused(record: Record) -> Change:
    return change(record, "paused", Condition.PAUSED, None)


async def claimed(store: Store, *ids: str, owner: str = "worker-a", data: str = '{"n": 0}') -> list[Record]:
    """New processes, already in the hands of `owner`, in the order of `ids`."""
    await store.insert([new(id, data) for id in ids], "ann")
    records = {record.id: record for record in await store.claim(KNOWN, owner, len(ids), LEASE, ids)}
    return [records[id] for id in ids]


SCENE = ["new", "held", "late", "bad%", "bad_", "done", "old"]  # newest first


async def scene(store: Store, clock: ManualClock) -> None:
    """One process in each situation, started a few seconds apart."""
    data = {
        "old": '{"n": 1.5, "deep": {"list": ["y", {"é": "x"}]}}', "done": '{"b": null}', "bad_": '{"t": "a \\"b\\" 100%"}',
        "bad%": '{"t": "Q3"}', "late": '{"b": false}', "held": '{"b": true}', "new": '{"n": 1, "deep": {"0": "named"}}',
    }  # fmt: skip
    for id in reversed(SCENE):
        clock.advance(5)
        await store.insert([new(id, data[id], flow="letter" if id == "old" else "parcel")], "ann")
    ends: dict[str, Callable[[Record], Change]] = {
        "done": finished,
        "bad_": lambda record: failed(record, "100% of C:\\dir is full"),
        "bad%": lambda record: failed(record, "No stamps\nare left"),
        "late": lambda record: change(record, "retry", Condition.RETRYING, 5 * SECOND, error="no STAMPS yet"),
    }
    for id, end in ends.items():
        [record] = await store.claim(KNOWN, "worker-b", 1, LEASE, [id])
        await store.commit(record, end(record))
    await store.claim(KNOWN, "worker-a", 1, LEASE, ["held"])


def asked(query: str, **more: Any) -> Search:
    return Search(parse(query), **more)


async def verdict(write: Awaitable[Record]) -> Record | StoreError:
    try:
        return await write
    except StoreError as error:
        return error


def bare(record: Record, **other: Any) -> Record:
    """The record without what depends on the moment of reading it, and with these `other` values."""
    return replace(record, as_of=_NEVER, process=None, **other)


async def trace(store: Store, id: str) -> tuple[Record, list[Entry]]:
    """All that is kept of a process, to compare with what is kept later."""
    record = await store.get(id)
    assert record is not None
    return bare(record), await store.history(id)


async def agree(store: Store, id: str) -> Record:
    """Checks that row and history say the same, whoever wrote last; answers the row."""
    record, entries = await store.get(id), await store.history(id)
    assert record is not None
    assert [entry.version for entry in entries] == list(range(record.version + 1)), "a gap, or a version written twice"
    last, data = entries[-1], None
    assert (record.status, record.transition, record.updated_at) == (last.to_status, last.transition, last.at)
    assert [entry.from_status for entry in entries] == [None, *(entry.to_status for entry in entries[:-1])]
    for entry in entries:
        data = entry.data if entry.data is not None else data
        assert await store.data_at(id, entry.version) == data
    assert record.data == data
    for ascending in ([e.at for e in entries], [e.epoch for e in entries], [e.transition for e in entries]):
        assert ascending == sorted(ascending)
    assert last.epoch <= record.epoch
    return record


@pytest.mark.asyncio
class StoreContract:
    """Inherit it in a test class and supply the fixtures `store` and `user`, and `rival` if your store can be opened twice."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def rival(self, store: Store) -> Store:
        return store

    # -- insert -----------------------------------------------------------------------------------------------

    async def test_a_new_process_is_ready_at_version_0_and_its_history_says_who_started_it(
        self, store: Store, clock: ManualClock
    ) -> None:
        assert await store.insert([new("a", '{"n": 1}')], "ann") == [True]
        now = clock.now()
        what = ("a", "parcel", "packed", Condition.READY, '{"n": 1}')
        row = Record(*what, 0, 0, 0, 0, 0, 0, False, now, now, now, now, None, None, None, now)
        assert await store.get("a") == row
        first = Entry("a", 0, now, "started", None, "packed", 0, 0, 0, "ann", None, None, '{"n": 1}')
        assert await store.history("a") == [first]

    async def test_insert_answers_for_each_whether_it_was_new_also_within_one_batch(self, store: Store, rival: Store) -> None:
        assert await store.insert([], "ann") == []
        batch = [new("a", '{"first": 1}'), new("b"), new("a", '{"second": 2}'), new("b")]
        assert await store.insert(batch, "ann") == [True, True, False, False]
        assert (await agree(store, "a")).data == '{"first": 1}'
        assert await rival.insert([new("b"), new("c")], "bob") == [False, True]

    async def test_insert_leaves_an_id_that_exists_as_it_is(self, store: Store) -> None:
        [record] = await claimed(store, "a")
        await store.commit(record, moved(record))
        before = await trace(store, "a")
        assert await store.insert([new("a", '{"other": 1}', flow="letter", status="new")], "bob") == [False]
        assert await trace(store, "a") == before

    @pytest.mark.parametrize("text", ["007", "1e5", "null", "é ✓ 𝄞", "a'b\"c;--", "x" * 200])
    async def test_text_comes_back_as_it_was_given(self, store: Store, text: str) -> None:
        data = '{"t": "' + "é𝄞'%s:x" * 20_000 + '"}'
        await store.insert([new(text, data, flow=text, status=text)], text)
        [record] = await store.claim([(text, text)], text, 1, LEASE)
        after = await store.commit(record, moved(record, status=text, error=text, reason=text, data=data[:-2] + '!"}'))
        await store.record_step(after, text, text)
        seen = await agree(store, text)
        assert (seen.id, seen.flow, seen.status, seen.data, seen.owner, seen.error) == (
            text,
            text,
            text,
            data[:-2] + '!"}',
            text,
            text,
        )
        assert [entry.actor for entry in await store.history(text)] == [text, text]
        assert await store.steps(text, 1) == {text: text}

    # -- claim ------------------------------------------------------------------------------------------------

    async def test_a_claim_takes_the_due_ones_oldest_first_up_to_the_limit(self, store: Store, clock: ManualClock) -> None:
        for id in ("c", "a", "d", "b"):
            await store.insert([new(id)], "ann")
            clock.advance(1)
        assert [r.id for r in await store.claim(KNOWN, "worker-a", 3, LEASE)] == ["c", "a", "d"]
        assert [r.id for r in await store.claim(KNOWN, "worker-a", 3, LEASE)] == ["b"]
        assert await store.claim(KNOWN, "worker-a", 3, LEASE) == []

    async def test_a_claim_answers_in_the_order_in_which_they_were_due_and_those_of_one_instant_by_their_ids(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.insert([new("d"), new("b")], "ann")
        clock.advance(1)
        await store.insert([new("c"), new("a")], "ann")
        assert [r.id for r in await store.claim(KNOWN, "worker-a", 9, LEASE, ["d"])] == ["d"]
        clock.advance(LEASE)  # due since the first second, though to be claimed only since its lease is over
        assert [r.id for r in await store.claim(KNOWN, "worker-b", 9, LEASE)] == ["b", "d", "a", "c"]

    async def test_a_claim_of_ids_takes_only_those_and_only_what_is_due(self, store: Store, clock: ManualClock) -> None:
        for id in ("c", "a", "d", "b"):
            await store.insert([new(id)], "ann")
            clock.advance(1)
        [record] = await store.claim(KNOWN, "worker-a", 9, LEASE, ["d"])
        await store.commit(record, not_yet(record, after=SECOND))
        assert [r.id for r in await store.claim(KNOWN, "worker-a", 1, LEASE, ["a", "c", "d", "no such"])] == ["c"]
        assert [r.id for r in await store.claim(KNOWN, "worker-b", 9, LEASE, ["b", "a", "c", "d"])] == ["a", "b"]
        assert await store.claim([("letter", "new")], "worker-b", 9, LEASE, ["d"]) == []

    async def test_a_claim_counts_the_attempt_and_raises_the_epoch_and_is_no_commit(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.insert([new("a")], "ann")
        before, history = await trace(store, "a")
        clock.advance(5)
        [record] = await store.claim(KNOWN, "worker-a", 1, LEASE)
        until = clock.now() + LEASE
        owned = {"owner": "worker-a", "lease_until": until, "epoch": 1, "attempt": 1, "condition": Condition.RUNNING}
        assert bare(record) == bare(before, **owned)
        assert record.as_of == clock.now()
        assert await trace(store, "a") == (bare(record), history)

    async def test_nothing_is_claimed_before_it_is_due(self, store: Store, clock: ManualClock) -> None:
        [record] = await claimed(store, "a")
        await store.commit(record, not_yet(record, after=SECOND))
        clock.advance(SECOND - timedelta(microseconds=1))
        assert await store.claim(KNOWN, "worker-b", 9, LEASE) == []
        clock.advance(timedelta(microseconds=1))
        assert [r.id for r in await store.claim(KNOWN, "worker-b", 9, LEASE)] == ["a"]

    async def test_a_live_lease_is_left_alone_and_one_that_is_over_is_taken_over(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        [record] = await claimed(store, "a")
        clock.advance(LEASE - timedelta(microseconds=1))
        assert await rival.claim(KNOWN, "worker-b", 9, LEASE) == []
        assert await rival.claim(KNOWN, "worker-b", 9, LEASE, ["a"]) == []
        clock.advance(timedelta(microseconds=1))
        [taken] = await rival.claim(KNOWN, "worker-b", 9, LEASE)
        assert (taken.owner, taken.epoch, taken.attempt, taken.version) == ("worker-b", record.epoch + 1, 2, 0)

    async def test_of_those_that_lost_two_workers_in_a_row_a_claim_takes_one_at_a_time(
        self, store: Store, clock: ManualClock
    ) -> None:
        await claimed(store, "a", "b", "c")
        clock.advance(LEASE)
        once = await store.claim(KNOWN, "worker-b", 9, LEASE)
        assert [record.losses for record in once] == [1, 1, 1]  # one loss accuses nobody: all go on together
        [saved] = [await store.commit(once[1], change(once[1], "saved", Condition.READY, timedelta(0), goes_on=True))]
        assert saved.losses == 1  # to have saved something is no outcome
        await store.commit(once[2], not_yet(once[2]))  # but this is
        clock.advance(LEASE)
        assert [(r.id, r.losses) for r in await store.claim(KNOWN, "worker-c", 9, LEASE, suspect=False)] == [("c", 0)]
        assert [(r.id, r.losses) for r in await store.claim(KNOWN, "worker-c", 9, LEASE)] == [("a", 2)]
        assert [r.id for r in await store.claim(KNOWN, "worker-c", 9, LEASE)] == ["b"]

    async def test_what_rests_or_waits_for_a_person_is_never_claimed(self, store: Store, clock: ManualClock) -> None:
        for id, rest in {"done": finished, "failed": failed, "paused": paused}.items():
            [record] = await claimed(store, id)
            await store.commit(record, rest(record))
        clock.advance(timedelta(days=365))
        assert await store.claim([*KNOWN, ("parcel", "done")], "worker-a", 9, LEASE) == []

    async def test_rows_of_unknown_code_are_neither_changed_nor_in_the_way(self, store: Store, clock: ManualClock) -> None:
        half = FOREIGN_ROWS // 2
        foreign = [new(f"letter-{n}", flow="letter") for n in range(half)] + [new(f"odd-{n}", status="lost") for n in range(half)]
        for begin in range(0, FOREIGN_ROWS, 1_000):
            await store.insert(foreign[begin : begin + 1_000], "ann")
        before = await trace(store, "letter-0"), await trace(store, "odd-0")
        clock.advance(1)
        await store.insert([new("ours")], "ann")
        begun = time.monotonic()
        assert [r.id for r in await store.claim(KNOWN, "worker-a", 10, LEASE)] == ["ours"]
        assert await store.claim(KNOWN, "worker-a", 10, LEASE, ["letter-0", "odd-0"]) == []
        assert await store.next_due(KNOWN) == LEASE
        assert time.monotonic() - begun < 1
        assert (await trace(store, "letter-0"), await trace(store, "odd-0")) == before

    async def test_rivals_that_claim_at_once_never_get_the_same_process(self, store: Store, rival: Store) -> None:
        await store.insert([new(f"p{n:03}") for n in range(200)], "ann")
        claims = [(rival if n % 2 else store).claim(KNOWN, f"worker-{n}", 7, LEASE) for n in range(40)]
        got = [record.id for records in await asyncio.gather(*claims) for record in records]
        assert len(got) == 200 == len(set(got))

    async def test_the_epoch_grows_with_each_claim_and_each_act_and_is_never_reset(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.insert([new("a")], "ann")
        [first] = await store.claim(KNOWN, "worker-a", 1, LEASE)
        await store.release([first], begun=False)
        [second] = await store.claim(KNOWN, "worker-a", 1, LEASE)
        await store.commit(second, not_yet(second, after=NOW))
        clock.advance(1)
        [third] = await store.claim(KNOWN, "worker-b", 1, LEASE)
        fourth = await store.act(third, paused(third), "ann", None)
        fifth = await store.act(fourth, resumed(fourth), "ann", None)
        [sixth] = await store.claim(KNOWN, "worker-a", 1, LEASE)
        clock.advance(LEASE)
        [seventh] = await store.claim(KNOWN, "worker-a", 1, LEASE)
        await store.commit(seventh, finished(seventh))
        epochs = [r.epoch for r in (first, second, third, fourth, fifth, sixth, seventh)]
        assert epochs == [1, 2, 3, 4, 5, 6, 7] and (await agree(store, "a")).epoch == 7

    # -- commit -----------------------------------------------------------------------------------------------

    async def test_row_and_history_are_written_as_one_and_the_answer_is_what_stands_there(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        [record] = await claimed(store, "a")
        line: list[Callable[[Record], Change]] = [
            lambda r: moved(r, data='{"n": 1}', took=0.25),
            lambda r: change(r, "saved", Condition.READY, NOW, data='{"n": 2}', goes_on=True),
            lambda r: not_yet(r, data='{"n": 2}'),
            lambda r: change(
                r, "retry", Condition.RETRYING, 2 * SECOND, error="no", reason="no", moves=0, excused=1, cancelling=True
            ),
            finished,
        ]
        for version, make in enumerate(line, 1):
            clock.advance(3)
            if record.owner is None:
                [record] = await store.claim(KNOWN, "worker-a", 1, LEASE)
            wanted = make(record)
            after = await store.commit(record, wanted)
            row = await agree(rival, "a")
            shown = {"condition": row.condition} if wanted.goes_on else {}  # whoever looks sees it running
            assert bare(after, **shown) == bare(row) and after.version == version
            assert (after.owner is None) is not wanted.goes_on
            entry = (await rival.history("a"))[version]
            done = (wanted.kind, wanted.took, wanted.reason, record.attempt, record.epoch, "worker-a", clock.now())
            assert (entry.kind, entry.took, entry.reason, entry.attempt, entry.epoch, entry.actor, entry.at) == done
            record = after

    async def test_data_stands_in_the_history_only_where_it_changed(self, store: Store) -> None:
        [record] = await claimed(store, "a")
        for data in (None, '{"n": 1}', '{"n": 1}', None, '{"n": 0}'):
            record = await store.commit(record, moved(record, data=data))
        assert [entry.data for entry in await store.history("a")] == ['{"n": 0}', None, '{"n": 1}', None, None, '{"n": 0}']
        light = [entry.data for entry in await store.history("a", 0, 3, light=True)]
        assert light == [None, "", None]  # that there are data, and not the data
        kept = [await store.data_at("a", version) for version in range(-1, 7)]
        assert kept == [None, '{"n": 0}', '{"n": 0}', '{"n": 1}', '{"n": 1}', '{"n": 1}', '{"n": 0}', None]
        assert await store.data_at("no such", 0) is None

    async def test_a_commit_of_the_right_version_and_an_old_epoch_is_refused_and_leaves_no_trace(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        [old] = await claimed(store, "a")
        clock.advance(LEASE)
        [taken] = await rival.claim(KNOWN, "worker-b", 1, LEASE)
        assert (taken.version, taken.epoch) == (old.version, old.epoch + 1)
        before = await trace(store, "a")
        with pytest.raises(Fenced, match="a"):
            await store.commit(old, moved(old, data='{"zombie": 1}'))
        assert await trace(rival, "a") == before
        await rival.commit(taken, moved(taken))  # and it did not disturb the one who has it
        with pytest.raises(Fenced):
            await store.commit(replace(old, version=1), moved(old))
        await agree(store, "a")

    async def test_a_commit_of_the_right_epoch_and_an_old_version_is_refused_and_leaves_no_trace(self, store: Store) -> None:
        [old] = await claimed(store, "a")
        after = await store.commit(old, moved(old, data='{"n": 1}'))
        assert (after.version, after.epoch) == (old.version + 1, old.epoch)
        before = await trace(store, "a")
        for late in (
            moved(old, data='{"n": 2}'),
            not_yet(old),
            finished(old),
            failed(old),
            moved(old, data='{"n": 1}', took=1.0),
        ):
            with pytest.raises(Fenced, match="a"):
                await store.commit(old, late)
            assert await trace(store, "a") == before
        with pytest.raises(Fenced):
            await store.commit(replace(after, version=after.version + 1), moved(after))
        with pytest.raises(Fenced):
            await store.commit(replace(old, id="no such"), moved(old))

    async def test_the_same_commit_handed_over_again_is_not_written_again_and_is_told_of_its_success(self, store: Store) -> None:
        """So a worker may simply repeat a commit whose answer was lost."""
        [record] = await claimed(store, "a")
        once = not_yet(record, data='{"n": 1}', took=0.123456, reason="why")
        await store.commit(record, once)
        before = await trace(store, "a")
        assert bare(await store.commit(record, once)) == before[0]
        assert await trace(store, "a") == before

    async def test_a_lease_that_ran_out_but_was_not_taken_still_commits_and_one_given_back_does_not(
        self, store: Store, clock: ManualClock
    ) -> None:
        late, released = await claimed(store, "late", "released")
        await store.release([released], begun=True)
        clock.advance(2 * LEASE)
        assert (await store.commit(late, moved(late))).version == 1
        with pytest.raises(Fenced):
            await store.commit(released, moved(released))
        await agree(store, "released")

    async def test_in_a_group_each_has_its_own_verdict(self, store: Store, rival: Store) -> None:
        records = await claimed(store, *(f"p{n:03}" for n in range(300)))
        stale = {5, 17, 299}
        for n in stale:
            await rival.act(records[n], paused(records[n]), "ann", None)
        verdicts = await asyncio.gather(*(verdict(store.commit(r, moved(r, data=f'{{"of": "{r.id}"}}'))) for r in records))
        for n, (record, answer) in enumerate(zip(records, verdicts, strict=True)):
            if n in stale:
                assert isinstance(answer, Fenced) and record.id in str(answer)
            else:
                assert isinstance(answer, Record) and (answer.id, answer.data) == (record.id, f'{{"of": "{record.id}"}}')
            assert (await agree(rival, record.id)).condition is (Condition.PAUSED if n in stale else Condition.RUNNING)

    async def test_of_two_changes_to_one_version_in_one_group_exactly_one_is_made(self, store: Store) -> None:
        a, b = await claimed(store, "a", "b")
        answers = await asyncio.gather(*(verdict(store.commit(a, moved(a, data=f'{{"n": {n}}}'))) for n in (1, 2, 3)))
        made = [answer for answer in answers if isinstance(answer, Record)]
        assert [type(answer) for answer in answers].count(Fenced) == 2
        row = await agree(store, "a")
        assert row.version == 1 and [answer.data for answer in made] == [row.data]
        assert (await store.commit(b, moved(b))).version == 1

    @pytest.mark.parametrize(
        "stuck",
        [
            {"condition": Condition.WAITING, "due_after": None},
            {"condition": Condition.READY, "due_after": None, "goes_on": True},
            {"condition": Condition.FAILED, "due_after": NOW},
            {"condition": Condition.FINISHED, "due_after": None, "goes_on": True},
            {"condition": Condition.FAILED, "due_after": None, "reason": "\ud800"},  # no text that can be kept
        ],
        ids=["waits for nothing", "runs without a time", "rests with a time", "rests with a lease", "not to be written"],
    )
    async def test_a_change_that_cannot_stand_is_refused_alone_and_its_neighbours_are_made(
        self, store: Store, stuck: dict[str, Any]
    ) -> None:
        a, bad, c = await claimed(store, "a", "bad", "c")
        before = await trace(store, "bad")
        changes = moved(a), replace(not_yet(bad), **stuck), moved(c)
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*map(verdict, map(store.commit, (a, bad, c), changes)))
        assert [type(answer) for answer in answers] == [Record, StoreError, Record]
        assert await trace(store, "bad") == before
        assert (await store.commit(bad, moved(bad))).version == 1
        for id in ("a", "bad", "c"):
            assert (await agree(store, id)).version == 1

    # -- transactions of the user's own ------------------------------------------------------------------------

    async def test_what_a_handler_writes_is_committed_with_its_transition(
        self, store: Store, user: User, clock: ManualClock
    ) -> None:
        [record] = await claimed(store, "a")
        transaction = await store.begin(record)
        await user.note(transaction.connection, "one")
        transaction.check()
        clock.advance(3)
        wanted = moved(record, '{"n": 1}', transaction=transaction, took=0.25)
        after = await store.commit(record, wanted)
        assert bare(after, condition=Condition.RUNNING) == bare(await agree(store, "a"))
        assert (after.version, after.status, after.data, after.updated_at) == (1, "sent", '{"n": 1}', clock.now())
        assert await user.notes() == {"one"}
        await transaction.rollback()  # which comes too late
        for version in (2, 3):  # and everybody goes on as ever
            after = await store.commit(after, moved(after))
            assert after.version == version
        assert await user.notes() == {"one"}

    async def test_what_a_handler_rolled_back_leaves_no_trace(self, store: Store, user: User) -> None:
        [record] = await claimed(store, "a")
        before = await trace(store, "a")
        transaction = await store.begin(record)
        await user.note(transaction.connection, "one")
        await transaction.rollback()
        await transaction.rollback()
        assert await trace(store, "a") == before
        with pytest.raises(StoreError):
            await transaction.commit(record, moved(record))
        assert await trace(store, "a") == before
        await store.commit(record, failed(record))
        assert await user.notes() == set()

    @pytest.mark.parametrize("older", [{"epoch": 0}, {"version": 7}])
    async def test_a_commit_past_the_fence_takes_what_the_handler_wrote_with_it(
        self, store: Store, user: User, older: dict[str, Any]
    ) -> None:
        [record] = await claimed(store, "a")
        before = await trace(store, "a")
        transaction = await store.begin(record)
        await user.note(transaction.connection, "one")
        with pytest.raises(Fenced):
            await transaction.commit(replace(record, **older), moved(record))
        await transaction.rollback()
        assert await trace(store, "a") == before
        assert await user.notes() == set()
        await store.commit(record, moved(record))

    async def test_a_handler_whose_process_was_taken_over_writes_nothing(
        self, store: Store, rival: Store, user: User, clock: ManualClock
    ) -> None:
        [record] = await claimed(store, "a")
        clock.advance(LEASE)
        [taken] = await rival.claim(KNOWN, "worker-b", 1, LEASE)
        with pytest.raises(Fenced):
            transaction = await store.begin(record)
            await user.note(transaction.connection, "one")
            await transaction.commit(record, moved(record))
        assert bare(await agree(store, "a")) == bare(taken)
        assert await user.notes() == set()

    async def test_what_others_ask_for_during_a_transaction_is_done_at_last(self, store: Store, rival: Store, user: User) -> None:
        """Some stores make them wait, and none loses anything."""
        records = await claimed(store, "a", "b", "c", "d")
        transaction = await store.begin(records[0])
        await user.note(transaction.connection, "one")
        others = [
            asyncio.create_task(store.commit(records[1], moved(records[1]))),
            asyncio.create_task(rival.commit(records[2], moved(records[2]))),
        ]
        await asyncio.sleep(0.02)
        beside = asyncio.create_task(store.begin(records[3]))
        await store.commit(records[0], moved(records[0], transaction=transaction))
        second = await beside
        await user.note(second.connection, "two")
        await second.rollback()
        await asyncio.gather(*others)
        for id, version in {"a": 1, "b": 1, "c": 1, "d": 0}.items():
            assert (await agree(store, id)).version == version
        assert await user.notes() == {"one"}

    async def test_a_cancelled_commit_of_a_transaction_and_the_database_never_contradict_each_other(
        self, store: Store, user: User
    ) -> None:
        for number in range(10):
            [record] = await claimed(store, f"p{number}")
            transaction = await store.begin(record)
            await user.note(transaction.connection, record.id)
            commit = asyncio.create_task(store.commit(record, moved(record, transaction=transaction)))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            commit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await commit
            await transaction.rollback()
            row = await agree(store, record.id)
            assert (record.id in await user.notes()) == (row.version == 1)

    @pytest.mark.parametrize("commit", [True, False])
    async def test_what_is_started_through_a_connection_is_there_exactly_if_its_owner_commits(
        self, store: Store, user: User, clock: ManualClock, commit: bool
    ) -> None:
        await store.insert([new("old", '{"n": 7}')], "ann")
        before = await trace(store, "old")
        async with user.connected(commit=commit) as connection:
            await user.note(connection, "one")
            assert await store.insert([new("a"), new("old"), new("a")], "bob", connection) == [True, False, False]
            assert await store.insert([new("b")], "bob", connection) == [True]
            record = await store.get("a", connection)
            assert record is not None and (record.condition, record.created_at) == (Condition.READY, clock.now())
            assert [entry.actor for entry in await store.history("a", connection=connection)] == ["bob"]
            assert [entry.data for entry in await store.history("old", -1, 1, connection)] == ['{"n": 7}']
            assert await store.get("no such", connection) is None
            await user.note(connection, "two")
        assert await user.notes() == ({"one", "two"} if commit else set())
        assert [await store.get(id) is not None for id in ("a", "b")] == [commit, commit]
        assert await trace(store, "old") == before
        if commit:
            assert {r.id for r in await store.claim(KNOWN, "worker-a", 9, LEASE)} == {"a", "b", "old"}
            await agree(store, "a")

    # -- renew, release, taken_away ---------------------------------------------------------------------------

    async def test_renewing_prolongs_and_never_shortens_and_tells_what_is_lost(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        kept, lost, over = await claimed(store, "kept", "lost", "over")
        await rival.act(lost, paused(lost), "ann", None)
        await store.commit(over, moved(over, goes_on=False))
        [over] = await rival.claim(KNOWN, "worker-b", 1, LEASE, ["over"])
        before = [await trace(store, id) for id in ("lost", "over")]
        held = {"kept": kept.epoch, "lost": lost.epoch, "over": over.epoch - 1, "no such": 1}
        clock.advance(10)
        for lease, until in ((LEASE, clock.now() + LEASE), (SECOND, clock.now() + LEASE), (2 * LEASE, clock.now() + 2 * LEASE)):
            assert await asyncio.to_thread(store.renew, "worker-a", held, lease) == {"lost", "over", "no such"}
            assert bare(await agree(store, "kept")) == bare(kept, lease_until=until)
        assert [await trace(store, id) for id in ("lost", "over")] == before
        assert (await store.commit(kept, moved(kept))).version == 1  # the heartbeat did not fence its own worker
        assert await store.taken_away(held) == {"lost", "over", "no such"}
        assert await store.taken_away({}) == set() == await asyncio.to_thread(store.renew, "worker-a", {}, LEASE)

    async def test_nobody_prolongs_the_lease_of_another_or_one_that_was_given_back(self, store: Store) -> None:
        a, b = await claimed(store, "a", "b")
        await store.release([b], begun=False)
        before = await trace(store, "a"), await trace(store, "b")
        await asyncio.to_thread(store.renew, "worker-b", {"a": a.epoch}, 9 * LEASE)
        await asyncio.to_thread(store.renew, "worker-a", {"b": b.epoch}, 9 * LEASE)
        assert (await trace(store, "a"), await trace(store, "b")) == before

    @pytest.mark.parametrize("begun", [False, True])
    async def test_release_makes_it_due_at_once_and_gives_back_an_attempt_that_was_not_begun(
        self, store: Store, rival: Store, clock: ManualClock, begun: bool
    ) -> None:
        [record] = await claimed(store, "a")
        clock.advance(1)
        await store.release([record], begun=begun)
        row = await agree(store, "a")
        free = {"owner": None, "lease_until": None, "attempt": int(begun), "due_at": clock.now(), "condition": Condition.READY}
        assert bare(row) == bare(record, **free)
        await store.release([record], begun=begun)  # once more is no harm
        assert await trace(store, "a") == (bare(row), await store.history("a"))
        [again] = await rival.claim(KNOWN, "worker-b", 1, LEASE)
        assert again.attempt == 1 + begun

    async def test_release_leaves_alone_what_is_no_longer_ours(self, store: Store, rival: Store, clock: ManualClock) -> None:
        old, stopped = await claimed(store, "old", "stopped")
        await rival.act(stopped, paused(stopped), "ann", None)
        clock.advance(LEASE)
        [taken] = await rival.claim(KNOWN, "worker-b", 1, LEASE, ["old"])
        before = await trace(store, "old"), await trace(store, "stopped")
        await store.release([old, stopped, replace(old, id="no such")], begun=False)
        assert (await trace(store, "old"), await trace(store, "stopped")) == before
        assert (await rival.commit(taken, moved(taken))).version == 1

    async def test_what_a_lost_answer_of_a_claim_took_goes_back_and_nothing_else(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        await store.insert([new(id) for id in ("kept", "lost", "theirs", "free")], "ann")
        [kept, lost] = [(await store.claim(KNOWN, "worker-a", 1, LEASE, [id]))[0] for id in ("kept", "lost")]
        [theirs] = await rival.claim(KNOWN, "worker-b", 1, LEASE, ["theirs"])
        free = await store.get("free")
        await store.release_all_but("worker-a", ["kept", "free"], LEASE)
        assert bare(await agree(store, "lost")) == bare(lost, owner=None, lease_until=None, attempt=0, condition=Condition.READY)
        assert (await store.get("kept"), await store.get("theirs"), await store.get("free")) == (kept, theirs, free)
        with pytest.raises(Fenced):
            await store.commit(lost, moved(lost))  # should the answer come after all
        [again] = await rival.claim(KNOWN, "worker-b", 1, LEASE, ["lost"])
        assert (again.attempt, again.losses) == (1, 0)
        await store.release_all_but("worker-a", [], LEASE)  # the claim of before is over; others' are left alone
        assert (await store.get("lost"), (await agree(store, "kept")).owner) == (again, None)

    # -- steps ------------------------------------------------------------------------------------------------

    async def test_a_step_is_kept_once_for_its_visit_and_no_other(self, store: Store, rival: Store) -> None:
        a, b = await claimed(store, "a", "b")
        await store.record_step(a, "pay", '"receipt 1"')
        await store.record_step(a, "pay", '"receipt 1"')  # its answer was lost: no harm
        with pytest.raises(Fenced):
            await store.record_step(a, "pay", '"receipt 2"')
        await store.record_step(b, "pay", "2")
        saved = await store.commit(a, change(a, "saved", Condition.READY, NOW, goes_on=True))
        await asyncio.gather(
            *(store.record_step(a, f"many {n}", str(n)) for n in range(20))
        )  # a save fences no step of its visit
        assert await rival.steps("a", 0) == {"pay": '"receipt 1"', **{f"many {n}": str(n) for n in range(20)}}
        after = await store.commit(saved, moved(saved))
        assert await store.steps("a", 1) == {} == await store.steps("no such", 0)
        await store.record_step(after, "pay", "3")
        assert (await rival.steps("a", 1), await rival.steps("b", 0)) == ({"pay": "3"}, {"pay": "2"})

    async def test_a_step_of_a_visit_that_is_over_or_was_taken_over_is_refused(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        gone, acted, old = await claimed(store, "gone", "acted", "old")
        await store.commit(gone, moved(gone))  # same epoch, next visit: its step would be taken for the next one's
        await rival.act(acted, paused(acted), "ann", None)
        clock.advance(LEASE)
        await rival.claim(KNOWN, "worker-b", 1, LEASE, ["old"])
        for record in (gone, acted, old, replace(old, id="no such")):
            with pytest.raises(Fenced):
                await store.record_step(record, "pay", "1")
            assert await store.steps(record.id, 0) == {} == await store.steps(record.id, 1)

    # -- act --------------------------------------------------------------------------------------------------

    async def test_an_act_stands_in_the_history_with_who_and_why_and_fences_who_runs_it(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        [running] = await claimed(store, "a")
        clock.advance(1)
        pause = replace(paused(running), excused=running.attempt, polls=7, moves=5, cancelling=True, error="closed")
        after = await rival.act(running, pause, "ann", "the street is closed")
        assert (after.attempt, after.excused, after.polls, after.moves, after.cancelling, after.error) == (
            1,
            1,
            7,
            5,
            True,
            "closed",
        )
        assert (after.version, after.epoch, after.condition, after.due_at) == (1, running.epoch + 1, Condition.PAUSED, None)
        assert (after.owner, after.lease_until, after.updated_at) == (None, None, clock.now())
        assert bare(after) == bare(await agree(store, "a"))
        entry = (await store.history("a"))[-1]
        assert (entry.kind, entry.actor, entry.reason, entry.took) == ("paused", "ann", "the street is closed", None)
        before = await trace(store, "a")
        with pytest.raises(Fenced):
            await store.commit(running, moved(running))
        assert await trace(store, "a") == before

    async def test_an_act_on_a_version_that_has_moved_on_is_a_conflict_that_says_where_it_is_now(self, store: Store) -> None:
        [seen] = await claimed(store, "a")
        after = await store.commit(seen, moved(seen))
        before = await trace(store, "a")
        with pytest.raises(Conflict, match=r"a has moved on from version 0 to 1, now at sent; nothing was changed") as caught:
            await store.act(seen, paused(seen), "ann", None)
        assert "a" in caught.value.hint and await trace(store, "a") == before
        with pytest.raises(NotFound, match="no such"):
            await store.act(replace(seen, id="no such"), paused(seen), "ann", None)
        assert (await store.act(after, paused(after), "ann", None)).version == 2

    async def test_an_act_may_change_the_data_and_the_history_has_them_where_they_did(self, store: Store) -> None:
        await store.insert([new("a", '{"n": 1}')], "ann")
        first, _ = await trace(store, "a")
        same = await store.act(first, change(first, "edited", Condition.READY, NOW, data='{"n": 1}'), "bob", None)
        other = await store.act(same, change(same, "edited", Condition.READY, NOW, data='{"n": 2}'), "bob", "typo")
        assert (json.loads(same.data), json.loads(other.data)) == ({"n": 1}, {"n": 2})
        written = [None if entry.data is None else json.loads(entry.data) for entry in await store.history("a")]
        assert written == [{"n": 1}, None, {"n": 2}]
        assert json.loads(await store.data_at("a", 1) or "") == {"n": 1}

    async def test_what_begins_otherwise_than_by_a_start_says_so(self, store: Store) -> None:
        other = NewProcess("b", "parcel", "sent", '{"n": 0}', "forked", "from a at version 3")
        assert await store.insert([new("a"), other, new("a")], "ann") == [True, True, False]
        told = [(entry.kind, entry.reason, entry.actor) for id in ("a", "b") for entry in await store.history(id)]
        assert told == [("started", None, "ann"), ("forked", "from a at version 3", "ann")]

    async def test_what_is_deleted_leaves_only_who_did_it_and_its_id_can_be_used_again(
        self, store: Store, clock: ManualClock
    ) -> None:
        for round in (1, 2):
            clock.advance(1)
            [record] = await claimed(store, "a")
            await store.record_step(record, "upload", '"file-1"')
            over = await store.commit(record, finished(record))
            with pytest.raises(Conflict):
                await store.delete(record, "bob", "too early")
            await store.delete(over, "bob", "asked for")
            with pytest.raises(NotFound):
                await store.delete(over, "bob", "again")
            assert (await store.get("a"), await store.history("a"), await store.steps("a", 0)) == (None, [], {})
            kept = [entry for entry in await store.acts() if entry.process_id == "a"]
            assert [(e.kind, e.version, e.actor, e.reason, e.to_status, e.data) for e in kept] == [
                ("deleted", -number, "bob", "asked for", "done", None) for number in range(round, 0, -1)
            ]

    async def test_who_had_a_process_that_was_deleted_cannot_write_to_the_one_that_bears_its_id_now(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        [before] = await claimed(store, "a")
        clock.advance(LEASE)
        [taken] = await rival.claim(KNOWN, "worker-b", 1, LEASE)
        over = await rival.commit(taken, finished(taken))
        await rival.delete(over, "bob", None)
        await rival.insert([new("a", '{"n": 9}')], "ann")
        [now] = await rival.claim(KNOWN, "worker-b", 1, LEASE)
        assert now.epoch > taken.epoch and now.version == 0
        assert await store.taken_away({"a": before.epoch}) == {"a"}
        for write in (store.commit(before, finished(before)), store.record_step(before, "upload", '"file-1"')):
            with pytest.raises(Fenced):
                await write
        await store.release([before], begun=True)
        assert bare(await agree(store, "a")) == bare(now)  # untouched, and still in the hands of whoever has it
        assert (await rival.commit(now, moved(now))).status == "sent"

    async def test_an_act_does_not_need_the_newest_epoch_but_of_two_on_one_version_one_wins(
        self, store: Store, rival: Store
    ) -> None:
        await store.insert([new("a")], "ann")
        seen = await store.get("a")
        assert seen is not None
        [running] = await store.claim(KNOWN, "worker-a", 1, LEASE)  # while the person looked: no commit, no conflict
        acts = [s.act(seen, paused(seen), who, None) for s, who in ((store, "ann"), (rival, "bob"))]
        answers = await asyncio.gather(*acts, return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict", "Record"]
        after = await agree(store, "a")
        assert after.epoch == running.epoch + 1
        assert after.attempt == running.attempt  # in one visit it never goes back
        assert (await store.history("a"))[-1].attempt == running.attempt  # the one that it ended, not the one that was seen

    # -- looking ----------------------------------------------------------------------------------------------

    async def test_find_and_counts_show_each_condition_as_it_is_now(self, store: Store, clock: ManualClock) -> None:
        ids = ["ready", "running", "waiting", "retrying", "failed", "paused", "cancelled", "finished"]
        rows = dict(zip(ids, await claimed(store, *ids), strict=True))
        await store.release([rows["ready"]], begun=False)
        waits: dict[str, Callable[[Record], Change]] = {
            "waiting": not_yet,
            "failed": failed,
            "paused": paused,
            "finished": finished,
        }
        for id, make in waits.items():
            await store.commit(rows[id], make(rows[id]))
        await store.commit(rows["retrying"], change(rows["retrying"], "retry", Condition.RETRYING, SECOND))
        await store.act(rows["cancelled"], change(rows["cancelled"], "cancelled", Condition.CANCELLED, None), "ann", None)

        async def seen() -> dict[str, str]:
            found = {record.id: record.condition.value for record in await store.find(Search())}
            counted = {c.condition: c.number for c in await store.counts()}
            assert counted == {Condition(one): list(found.values()).count(one) for one in found.values()}
            for condition in Condition:
                page = await store.find(asked(f"is:{condition}"))
                assert {record.id for record in page} == {id for id, one in found.items() if one == condition}
            one = await store.get("waiting")
            assert one is not None and one.condition == found["waiting"]
            return found

        assert await seen() == {id: id for id in ids}
        clock.advance(SECOND)
        assert await seen() == {id: id for id in ids} | {"waiting": "ready", "retrying": "ready"}
        clock.advance(LEASE)
        assert (await seen())["running"] == "ready"

    async def test_find_filters_by_all_that_was_asked_at_once(self, store: Store, clock: ManualClock) -> None:
        await store.insert([new("a1"), new("a2", status="sent"), new("b%1", flow="letter"), new("b_1", flow="other")], "ann")

        async def ids(query: str) -> set[str]:
            return {record.id for record in await store.find(asked(query))}

        assert await ids("") == {"a1", "a2", "b%1", "b_1"}
        assert await ids("flow:parcel") == {"a1", "a2"} == await ids("id:a*")
        assert await ids("flow:letter,other status:packed") == {"b%1", "b_1"}
        assert await ids("flow:parcel status:sent is:ready id:a2*") == {"a2"}
        assert await ids("id:b%*") == {"b%1"} and await ids("id:A*") == set() == await ids("flow:nothing")
        assert await store.get("no such") is None and await store.history("no such") == []

    @pytest.mark.parametrize(
        ("query", "ids"),
        [
            ("status:sent,packed", "new held late bad% bad_ old"),
            ("-status:packed", "done"),
            ("status:p*d", "new held late bad% bad_ old"),
            (r"status:p\*d", ""),
            ("-flow:par*", "old"),
            ("id:old,new,nobody", "new old"),
            ("id:bad*", "bad% bad_"),
            ("id:*_", "bad_"),
            ("-id:bad*", "new held late done old"),
            ("id:bad_ -id:bad_", ""),
            ("bad", "bad% bad_"),
            ("BAD", ""),
            ("-bad", "new held late done old"),
            ("stamps", "late bad%"),
            ("100%", "bad_"),
            ("error:STAMPS", "late bad%"),
            ("error:no*left", "bad%"),
            ("error:left*no", ""),
            (r'error:"C:\dir"', "bad_"),
            ("error:_00", ""),
            ("error:[n]o", ""),
            ("error:*", "late bad% bad_"),
            ("-error:*", "new held done old"),
            ("-error:stamps", "new held bad_ done old"),
            ("worker:*", "held"),
            ("worker:worker-a,x", "held"),
            ("worker:work", ""),
            ("-worker:w*", "new late bad% bad_ done old"),
            ("is:failed", "bad% bad_"),
            ("is:paused,running", "held"),
            ("is:active -is:failed", "new held late old"),
            ("is:over", "done"),
            ("is:running worker:worker-b", ""),
            ("data.n:1", "new"),
            ("data.n:1.5", "old"),
            ("data.n:1*", "new old"),
            ("data.t:Q3", "bad%"),
            ("data.t:q3", ""),
            ('data.t:"a \\"b\\" 100%"', "bad_"),
            ("data.t:_3", ""),
            ("data.b:true", "held"),
            ("data.b:1", ""),
            ("data.b:false", "late"),
            ("data.b:null", "done"),
            ("-data.b:*", "new bad% bad_ old"),
            ("data.deep.list.1.é:x", "old"),
            ("data.deep.list.0:y", "old"),
            ("data.deep.0:named", "new"),
            ("data.deep.list:*", ""),
            ("data.deep:*", ""),
            ("data.deep.list.9.é:x", ""),
            ("data.t.deeper:x", ""),
            ("age:>20s", "done old"),
            ("age:<=20s", "new held late bad% bad_"),
            ("in:<1s", "new done"),
            ("due:<=0s", "new held old"),
            ("due:>0s", "late"),
            ("-due:>0s", "new held bad% bad_ done old"),
            ("updated:<1s", "new late bad% bad_ done"),
            ("updated:>=2025-01-01", "new held late bad% bad_ done old"),
            ("updated:<2025-01-01T00:00:31Z", "held old"),
            ("attempt:>0", "held late bad% bad_"),
            ("version:0", "new held old"),
            ("-version:<1", "late bad% bad_ done"),
        ],
    )
    async def test_find_answers_exactly_what_a_query_means(self, store: Store, clock: ManualClock, query: str, ids: str) -> None:
        await scene(store, clock)
        assert [record.id for record in await store.find(asked(query))] == ids.split()
        assert [record.id for record in await store.find(asked(query, limit=2))] == ids.split()[:2]
        assert [record.id for record in await store.find(asked(query, looks=1_000, light=True))] == ids.split()
        for before in ("new", "late", "old", "nobody"):
            older = SCENE[SCENE.index(before) + 1 :] if before in SCENE else []
            found = [record.id for record in await store.find(asked(query, before=before))]
            assert found == [id for id in ids.split() if id in older]

    async def test_a_light_answer_lacks_the_data_and_nothing_else(self, store: Store, clock: ManualClock) -> None:
        await scene(store, clock)
        whole = await store.find(Search())
        assert [bare(record) for record in await store.find(Search(light=True))] == [bare(record, data="") for record in whole]

    async def test_what_the_code_at_hand_does_not_know_is_orphaned_to_every_query(self, store: Store, clock: ManualClock) -> None:
        await scene(store, clock)

        async def ids(query: str, known: Known | None) -> str:
            return " ".join(record.id for record in await store.find(asked(query, known=known)))

        assert await ids("is:orphaned", None) == "" and await ids("is:orphaned", KNOWN) == "old"
        assert await ids("is:orphaned", [("parcel", "done")]) == "new held late bad% bad_ old" == await ids("is:orphaned", [])
        assert await ids("is:failed,running", KNOWN) == "held bad% bad_" and await ids("is:failed,running", []) == ""
        assert await ids("is:ready,orphaned", KNOWN) == "new old" and await ids("is:ready", KNOWN) == "new"
        assert await ids("is:over", []) == "done" == await ids("-is:orphaned", [])  # what is over is over, whatever is known
        assert await ids("is:active", []) == await ids("is:active", None) == "new held late bad% bad_ old"

    @pytest.mark.parametrize(
        "query", ["", "is:failed", "is:failed -id:p1*", "error:x", "id:p0*", "id:p03,p04", "p1", "worker:*", "status:sent"]
    )
    async def test_looking_at_a_part_at_a_time_answers_all_without_gaps_or_repeats(
        self, store: Store, clock: ManualClock, query: str
    ) -> None:
        for n, record in enumerate(await claimed(store, *(f"p{n:02}" for n in range(20)))):
            clock.advance(n % 2)
            ends = (failed(record, "x"), finished(record), not_yet(record), moved(record), paused(record))
            await store.commit(record, ends[n % len(ends)])
        expected = [record.id for record in await store.find(asked(query))]
        for looks in (1, 3, 7, 20, 21):
            found: list[str] = []
            before, turns = "", 0
            while True:
                found += [record.id for record in await store.find(asked(query, before=before, looks=looks))]
                before = await store.past(asked(query, before=before, looks=looks))
                turns += 1
                if not before:
                    break
                assert turns <= 20
            assert found == expected
            if not query:
                assert turns == -(-20 // looks)
        if query == "is:failed":  # they are found in a list of their own, with those that are paused
            assert await store.past(asked(query, looks=8)) == "" != await store.past(asked("", looks=8))

    async def test_leases_tell_who_has_what_in_his_hands_and_until_when(
        self, store: Store, rival: Store, clock: ManualClock
    ) -> None:
        assert await store.leases() == []
        begun = clock.now()
        a, _, c = await claimed(store, "a", "b", "c")
        await store.commit(a, moved(a))
        await store.commit(c, finished(c))
        clock.advance(LEASE / 2)
        await rival.insert([new("d"), new("e")], "ann")
        await rival.claim(KNOWN, "worker-b", 1, LEASE, ["d"])
        await asyncio.to_thread(store.renew, "worker-a", {"a": a.epoch}, LEASE)
        told = [
            (lease.owner, lease.flow, lease.status, lease.number, lease.until, lease.oldest) for lease in await store.leases()
        ]
        assert told == [
            ("worker-a", "parcel", "packed", 1, begun + LEASE, begun),
            ("worker-a", "parcel", "sent", 1, clock.now() + LEASE, begun),
            ("worker-b", "parcel", "packed", 1, clock.now() + LEASE, clock.now()),
        ]
        clock.advance(LEASE * 2)  # they are over, and nobody has taken over: whoever held them is gone
        assert [(lease.number, lease.until < lease.as_of) for lease in await store.leases()] == [(1, True)] * 3
        assert {lease.as_of for lease in await store.leases()} == {clock.now()}

    async def test_acts_are_what_people_did_newest_first_in_pages(self, store: Store, clock: ManualClock) -> None:
        expected: list[tuple[str, str]] = []
        for n in range(6):
            await store.insert(
                [NewProcess(f"p{n}", "parcel", "packed", '{"n": 0}', "started by hand" if n % 2 else "started")], "ann"
            )
            [record] = await store.claim(KNOWN, "worker-a", 1, LEASE, [f"p{n}"])
            record = await store.commit(record, moved(record))
            await store.act(record, change(record, "edited", Condition.READY, NOW, data='{"n": 1}'), "bob", f"reason {n}")
            expected += [(f"p{n}", "started by hand")] * (n % 2) + [(f"p{n}", "edited")]
            clock.advance(n % 2)
        entries = await store.acts()
        assert [(entry.process_id, entry.kind) for entry in entries] == expected[::-1]
        assert (entries[0].actor, entries[0].reason, entries[0].data, entries[0].version) == ("bob", "reason 5", "", 2)
        pages: list[Entry] = []
        while page := await store.acts(None if not pages else (pages[-1].at, pages[-1].process_id, pages[-1].version), limit=2):
            assert len(page) <= 2
            pages += page
        assert pages == entries

    async def test_pages_are_newest_first_without_gaps_or_repeats(self, store: Store, clock: ManualClock) -> None:
        order: list[str] = []
        for n in range(25):  # three at each instant, so that the ids have to decide too
            clock.advance(0 if n % 3 else 1)
            order.append(f"p{n:02}")
            await store.insert([new(order[-1])], "ann")
        pages: list[str] = []
        before = ""
        while (page := await store.find(Search(before=before, limit=4))) and len(pages) <= 25:
            pages += [record.id for record in page]
            before = pages[-1]
            await store.insert([new(f"later-{len(pages)}")], "ann")  # what comes meanwhile moves no page
            clock.advance(1)
        assert pages == order[::-1]

    async def test_history_comes_in_pages_too(self, store: Store) -> None:
        [record] = await claimed(store, "a")
        for _ in range(9):
            record = await store.commit(record, moved(record))
        pages = [[e.version for e in await store.history("a", after, 4)] for after in (-1, 3, 7, 9)]
        assert pages == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]

    async def test_counts_say_since_when_the_oldest_stands_there(self, store: Store, clock: ManualClock) -> None:
        since = clock.now()
        await store.insert([new("a")], "ann")
        clock.advance(60)
        await store.insert([new("b"), new("c", flow="letter")], "ann")
        counts = {(c.flow, c.status, c.condition): (c.number, c.oldest) for c in await store.counts()}
        ready = Condition.READY
        assert counts == {("parcel", "packed", ready): (2, since), ("letter", "packed", ready): (1, clock.now())}

    async def test_next_due_looks_past_live_leases_and_unknown_rows(self, store: Store, clock: ManualClock) -> None:
        assert await store.next_due(KNOWN) is None
        await store.insert([new("foreign", flow="letter")], "ann")
        assert await store.next_due(KNOWN) is None
        [held] = await claimed(store, "held")
        assert await store.next_due(KNOWN) == LEASE
        [waits] = await claimed(store, "waits")
        await store.commit(waits, not_yet(waits, after=SECOND))
        assert await store.next_due(KNOWN) == SECOND
        clock.advance(3 * SECOND)
        assert (await store.next_due(KNOWN) or NOW) == -2 * SECOND
        [waits] = await store.claim(KNOWN, "worker-a", 9, LEASE)
        await store.commit(waits, finished(waits))
        assert await store.next_due(KNOWN) == LEASE - 3 * SECOND
        await store.commit(held, failed(held))
        assert await store.next_due(KNOWN) is None

    # -- time and news ----------------------------------------------------------------------------------------

    async def test_the_stamps_of_one_process_never_go_back_though_the_clock_does(self, store: Store, clock: ManualClock) -> None:
        [record] = await claimed(store, "a")
        started = clock.now()
        clock.jump(timedelta(hours=-1))
        record = await store.commit(record, moved(record))
        assert record.updated_at == started == (await agree(store, "a")).updated_at
        record = await store.act(record, paused(record), "ann", None)
        record = await store.act(record, resumed(record), "ann", None)
        assert [entry.at for entry in await store.history("a")] == [started] * 4
        clock.jump(timedelta(hours=2))
        [record] = await store.claim(KNOWN, "worker-a", 1, LEASE)  # and no timer was lost by it
        assert (await store.commit(record, finished(record))).updated_at == clock.now()
        await agree(store, "a")

    @pytest.mark.parametrize("kind", ["insert", "claim", "commit", "act", "release"])
    async def test_waiting_for_a_change_ends_soon_after_one(self, store: Store, rival: Store, kind: str) -> None:
        [record] = await claimed(store, "a")
        async with asyncio.timeout(20):
            for where in (store, rival):  # our own news, and those of another program
                begun, number = time.monotonic(), 0
                waiting = asyncio.create_task(store.wait_for_change(60))
                while not waiting.done():  # again and again: the first may come before the waiting has begun
                    number += 1
                    match kind:
                        case "insert":
                            await where.insert([new(f"{id(where)}-{number}")], "ann")
                        case "claim" | "release":
                            await where.release([record], begun=False)
                            [record] = await where.claim(KNOWN, "worker-a", 1, LEASE, ["a"])
                        case "commit":
                            record = await where.commit(record, change(record, "saved", Condition.READY, NOW, goes_on=True))
                        case _:
                            record = await where.act(record, resumed(record), "ann", None)
                assert time.monotonic() - begun < NOTICED_S

    async def test_waiting_for_a_change_that_does_not_come_ends_after_the_timeout(self, store: Store) -> None:
        async with asyncio.timeout(20):
            for timeout in (0.12, 0.0, -1.0):
                begun = time.monotonic()
                await store.wait_for_change(timeout)
                assert max(timeout, 0) * 0.9 <= time.monotonic() - begun < max(timeout, 0) + NOTICED_S
