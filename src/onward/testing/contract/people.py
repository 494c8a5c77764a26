"""What people may rely on: what they do is done or refused, and what they look for is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from onward.decide import NOW, Change
from onward.errors import Conflict, Fenced, NotFound
from onward.ports import WALK_CHARS, Kept, Known, NewProcess, Search, Store
from onward.process import Condition, Entry, Record
from onward.testing.clock import ManualClock
from onward.testing.contract.rows import (
    KNOWN,
    LEASE,
    SCENE,
    SECOND,
    agree,
    asked,
    bare,
    change,
    claimed,
    failed,
    finished,
    moved,
    new,
    not_yet,
    paused,
    scene,
    trace,
)


class People:
    """act, delete, get, find, past, counts, leases, acts, history."""

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
        assert json.loads((await store.data_at("a", 1) or Kept("", 1)).data) == {"n": 1}

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

    async def test_an_act_with_data_gives_them_its_version_and_one_without_leaves_both_as_they_are(self, store: Store) -> None:
        [seen] = await claimed(store, "a")
        seen = await store.act(replace(seen, data_version=2), paused(seen), "ann", None)
        assert (await agree(store, "a")).data_version == seen.data_version == 1
        edit = replace(paused(seen), kind="edited", data='{"n": 0}')
        seen = await store.act(replace(seen, data_version=2), edit, "ann", None)
        assert (await agree(store, "a")).data_version == seen.data_version == 2
        assert [(entry.data, entry.data_version) for entry in await store.history("a", 0)] == [(None, 1), ('{"n": 0}', 2)]

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
        assert await ids("is:orphaned", [("parcel", "done", 1)]) == "new held late bad% bad_ old" == await ids("is:orphaned", [])
        assert await ids("is:orphaned", [("parcel", "packed", 2)]) == "new held late bad% bad_ old"
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

    async def test_what_stands_under_an_old_name_is_found_by_the_new_one(self, store: Store) -> None:
        await store.insert([new("a"), new("b", status="wrapped"), new("c", status="wrapped", flow="letter"), new("d")], "ann")
        renamed = [("parcel", "wrapped", "packed"), ("letter", "packed", "wrapped")]
        for query, ids in {
            "status:packed": "dba", "status:wrapped": "cb", "status:pack*": "dba", "status:packed,sent": "dba",
            "-status:packed": "c", "status:sent": "", "flow:letter status:*": "c",
        }.items():  # fmt: skip
            found = await store.find(asked(query, renamed=renamed))
            assert "".join(record.id for record in found) == ids, query
        assert [record.status for record in await store.find(asked("id:b", renamed=renamed))] == ["wrapped"]  # the caller knows

    async def test_data_of_another_version_are_counted_apart(self, store: Store) -> None:
        await store.insert([new("a"), replace(new("b"), data_version=2), replace(new("c"), data_version=2)], "ann")
        assert [(count.data_version, count.number) for count in await store.counts()] == [(1, 1), (2, 2)]

    async def test_a_walk_comes_by_all_there_is_in_parts_of_bounded_size(self, store: Store, clock: ManualClock) -> None:
        large = '{"t": "' + "x" * (WALK_CHARS // 4) + '"}'
        await claimed(store, *(f"p{n}" for n in range(9)), data=large)
        [over] = await store.find(asked("id:p4"))
        [over] = [await store.act(over, finished(over), "ann", None)]
        await store.insert([new("é"), replace(new("B"), data_version=2)], "ann")
        parts: list[list[Record]] = []
        while part := await store.walk(parts[-1][-1].id if parts else "", 7):
            parts.append(part)
        walked = [record for part in parts for record in part]
        assert [record.id for record in walked] == ["B", *(f"p{n}" for n in range(9)), "é"]
        assert [len(part) for part in parts] == [5, 5, 1]  # four large ones and a small one: a fifth large one would be too much
        for record in walked:
            assert bare(record) == bare(await agree(store, record.id), **{"data": ""} if record.id == over.id else {})
        assert [len(await store.walk("p5", limit)) for limit in (1, 2)] == [1, 2]

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
