"""What a worker may rely on: who gets which process, and that a commit is made whole or not at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from onward.decide import NOW, Change
from onward.errors import Fenced, StoreError
from onward.ports import Store
from onward.process import Condition, Entry, Record
from onward.testing.clock import ManualClock
from onward.testing.contract.rows import (
    FOREIGN_ROWS,
    KNOWN,
    LEASE,
    SECOND,
    agree,
    bare,
    change,
    claimed,
    failed,
    finished,
    moved,
    new,
    not_yet,
    paused,
    resumed,
    trace,
    verdict,
)


class Work:
    """insert, claim, commit."""

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
        [record] = await store.claim([(text, text, 1)], text, 1, LEASE)
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
        assert await store.claim([("letter", "new", 1)], "worker-b", 9, LEASE, ["d"]) == []

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
        assert await store.claim([*KNOWN, ("parcel", "done", 1)], "worker-a", 9, LEASE) == []

    async def test_rows_of_unknown_code_are_neither_changed_nor_in_the_way(self, store: Store, clock: ManualClock) -> None:
        third = FOREIGN_ROWS // 3
        foreign = [new(f"letter-{n}", flow="letter") for n in range(third)]
        foreign += [new(f"odd-{n}", status="lost") for n in range(third)]
        foreign += [replace(new(f"newer-{n}"), data_version=2) for n in range(third)]
        for begin in range(0, len(foreign), 1_000):
            await store.insert(foreign[begin : begin + 1_000], "ann")
        before = [await trace(store, f"{what}-0") for what in ("letter", "odd", "newer")]
        clock.advance(1)
        await store.insert([new("ours")], "ann")
        begun = time.monotonic()
        assert [r.id for r in await store.claim(KNOWN, "worker-a", 10, LEASE)] == ["ours"]
        assert await store.claim(KNOWN, "worker-a", 10, LEASE, ["letter-0", "odd-0", "newer-0"]) == []
        assert await store.next_due(KNOWN) == LEASE
        assert time.monotonic() - begun < 1
        assert [await trace(store, f"{what}-0") for what in ("letter", "odd", "newer")] == before

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
        kept = [at and at.data for at in [await store.data_at("a", version) for version in range(-1, 7)]]
        assert kept == [None, '{"n": 0}', '{"n": 0}', '{"n": 1}', '{"n": 1}', '{"n": 1}', '{"n": 0}', None]
        assert await store.data_at("no such", 0) is None

    async def test_a_commit_with_data_gives_them_its_version_and_one_without_leaves_both_as_they_are(self, store: Store) -> None:
        await store.insert([new("a"), replace(new("b"), data_version=2)], "ann")
        records = {record.id: record for record in await store.claim([("parcel", "packed", n) for n in (1, 2)], "w", 9, LEASE)}
        assert {id: record.data_version for id, record in records.items()} == {"a": 1, "b": 2}
        newer = replace(records["a"], data_version=3)  # as who has upgraded it in memory hands it over
        newer = await store.commit(newer, moved(newer))
        assert (await agree(store, "a")).data_version == 1
        newer = await store.commit(newer, moved(newer, data='{"n": 0}'))  # the same values mean another thing now
        assert (await agree(store, "a")).data_version == newer.data_version == 3
        versions = [(entry.data, entry.data_version) for entry in await store.history("a")]
        assert versions == [('{"n": 0}', 1), (None, 1), ('{"n": 0}', 3)]
        assert [await store.data_at("a", version) for version in (0, 1, 2)] == [('{"n": 0}', n) for n in (1, 1, 3)]
        again = await store.commit(newer, moved(newer, data='{"n": 0}'))
        assert (await agree(store, "a")).version == again.version and (await store.history("a"))[-1].data is None

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
