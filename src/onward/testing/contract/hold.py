"""What a worker may rely on while it has a process: its transactions, its leases, its sub-steps, and the news."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from onward.decide import NOW
from onward.errors import Fenced, StoreError
from onward.ports import Store
from onward.process import Condition
from onward.testing.clock import ManualClock
from onward.testing.contract.rows import (
    KNOWN,
    LEASE,
    NOTICED_S,
    SECOND,
    User,
    agree,
    bare,
    change,
    claimed,
    failed,
    finished,
    moved,
    new,
    paused,
    resumed,
    trace,
)


class Hold:
    """begin, renew, release, taken_away, steps, wait_for_change."""

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
            if commit.cancel():  # what has ended by now cannot be
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
