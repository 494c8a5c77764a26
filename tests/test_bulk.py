"""Many at once: the bulk process does what was looked at, each by compare-and-set, and survives what may happen to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Literal

import pytest
from conftest import Job, Step, kinds, one_stage, opened, work_off

from onward import Condition, Onward, Record, Refused, Unrecoverable, bulk
from onward.actor import NEEDS, Actor, Role
from onward.errors import Forbidden, QueryError


async def fail(job: Job) -> Literal[Step.DONE]:
    if job.note != "good":
        raise Unrecoverable(f"no such file: {job.note}")
    return Step.DONE


FLOW = one_stage(fail)
OPERATOR = Actor("ada", Role.OPERATOR, via="panel")


async def failed(app: Onward, number: int) -> None:
    await app.start_many(Job(id=f"job-{n:05}", note="bad") for n in range(number))
    await work_off(app)


async def carried_out(app: Onward, record: Record) -> bulk.Bulk:
    worker = asyncio.create_task(app.run_own())
    try:
        end = await app.wait(record.id)
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    assert end.condition is Condition.FINISHED, end.error
    told: bulk.Bulk = end.process
    return told


async def conditions(app: Onward, query: str = "flow:job") -> Counter[str]:
    found: Counter[str] = Counter()
    before = ""
    while page := await app.find(query, before=before, limit=1_000):
        found.update(str(record.condition) for record in page)
        before = page[-1].id
    return found


async def test_all_that_match_are_done_page_after_page(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await failed(app, 250)
        await app.start(Job(id="other", note="good"))
        seen = await bulk.preview(app, "retry", query="is:failed", actor=OPERATOR)
        assert (seen.total, seen.more, dict(seen.fit)) == (250, False, {("job", "make", "failed"): 250})
        told = await carried_out(app, await bulk.begin(app, "retry", query="is:failed", reason="mended", actor=OPERATOR))
        assert (told.total, told.done, told.refused, told.changed) == (250, 250, 0, 0)
        assert await conditions(app) == {"ready": 251}
        [*_, entry] = await app.history("job-00007")
        assert (entry.kind, entry.actor, entry.reason) == ("retried", "ada (panel)", f"mended (bulk {told.id})")


async def test_what_changed_since_it_was_looked_at_is_left_alone(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await failed(app, 5)
        seen = await bulk.preview(app, "stop", ids=["job-00000", "job-00001", "nobody"])
        assert (seen.total, sum(seen.fit.values()), list(seen.samples.values())) == (3, 2, ["nobody"])
        await app.edit("job-00001", {"note": "new"})
        record = await bulk.begin(app, "stop", ids=["job-00000", "job-00001", "nobody"], until=seen.until)
        told = await carried_out(app, record)
        assert (told.done, told.refused, told.changed) == (1, 1, 1)
        assert [(one.id, one.why) for one in told.refusals] == [("nobody", "there is no process nobody")]
        assert (await app.get("job-00001")).condition is Condition.FAILED


@pytest.mark.parametrize("most", [None, 3])
async def test_deleting_goes_on_where_the_list_has_lost_its_rows(
    url: str, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "PAGE", 4)
    async with opened(FLOW, url=url) as app:
        await failed(app, 15)
        for number in range(15):
            if number != 5:
                await app.stop(f"job-{number:05}")
        if most is not None:
            with pytest.raises(Refused, match="15 processes match, and at most 3 were agreed to"):
                await bulk.begin(app, "delete", query="flow:job", most=most)
            assert await conditions(app) == {"cancelled": 14, "failed": 1}
            return
        told = await carried_out(app, await bulk.begin(app, "delete", query="flow:job", most=15))
        assert (told.done, told.refused, told.changed) == (14, 1, 0)
        assert await conditions(app) == {"failed": 1}


async def test_it_can_be_stopped_on_its_way(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAGE", 2)
    async with opened(FLOW, url=file_url) as app:
        await failed(app, 40)
        record = await bulk.begin(app, "retry", query="is:failed")
        await app.check(record.id)
        stopped = await app.cancel(record.id)
        assert stopped.condition is Condition.CANCELLED
        done = stopped.process.done
        assert 0 < done < 40
        worker = asyncio.create_task(app.run_own())
        await asyncio.sleep(0.3)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert await conditions(app) == {"ready": done, "failed": 40 - done}


async def test_it_goes_on_after_a_crash_and_does_nothing_twice(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PAGE", 8)
    async with opened(FLOW, url=file_url) as app:
        await failed(app, 30)
        record = await bulk.begin(app, "retry", query="is:failed")
        left, real = [5], app.store.act

        async def cut(*arguments: Any) -> Any:
            if arguments[1].kind == "retried":
                left[0] -= 1
                if left[0] == 0:
                    raise asyncio.CancelledError
            return await real(*arguments)

        monkeypatch.setattr(app.store, "act", cut)
        await asyncio.gather(app.check(record.id), return_exceptions=True)
        monkeypatch.setattr(app.store, "act", real)
        told = await carried_out(app, record)
        assert (told.done, told.changed, told.refused) == (30, 0, 0)
        for number in range(30):
            assert kinds(await app.history(f"job-{number:05}")).count("retried") == 1


async def test_rights_are_asked_for_each_of_them(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await failed(app, 3)
        with pytest.raises(Forbidden):
            await bulk.begin(app, "stop", query="is:failed", actor=OPERATOR)
        with pytest.raises(Forbidden):
            await bulk.preview(app, "retry", query="is:failed", actor=Actor("eve", Role.VIEWER))
        # The process is the user's row as well: whoever writes another verb into it gains nothing.
        forged = bulk.Bulk(
            verb="stop", ids=["job-00000"], actor="ada", role=Role.OPERATOR, until=(await app.get("job-00000")).as_of, total=1
        )
        told = await carried_out(app, await app.start(forged))
        assert (told.done, told.refused) == (0, 1) and "takes admin" in told.refusals[0].why


async def test_what_cannot_be_is_said_and_nothing_begins(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await failed(app, 1)
        for error, told, asked in (
            (Refused, "nothing to do with many", {"verb": "edit", "query": "is:failed"}),
            (Refused, "did you mean retry", {"verb": "retyr", "query": "is:failed"}),
            (Refused, "either a query or ids", {"verb": "retry"}),
            (Refused, "either a query or ids", {"verb": "retry", "query": "is:failed", "ids": ["x"]}),
            (Refused, "the limit IDS_MAX", {"verb": "retry", "ids": ["x"] * 1_001}),
            (Refused, "no process matches", {"verb": "retry", "query": "is:paused"}),
            (Refused, "there is nothing to resume: cannot resume", {"verb": "resume", "query": "is:failed"}),
            (QueryError, "no condition", {"verb": "retry", "query": "is:faild"}),
        ):  # fmt: skip
            with pytest.raises(error, match=told):
                await bulk.begin(app, **asked)
        assert await app.find(f"flow:{bulk.FLOW}") == []


async def test_it_never_acts_on_its_own_kind(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await failed(app, 2)
        first = await bulk.begin(app, "retry", query="is:failed")
        await app.start(Job(id="other"))
        told = await carried_out(app, await bulk.begin(app, "pause", query="is:active"))
        assert (await app.get(first.id)).condition is not Condition.PAUSED
        assert (told.done, (await app.get("other")).condition) == (1, Condition.PAUSED)


async def test_more_than_are_looked_at_can_be_retried_but_not_deleted(file_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PREVIEW_MAX", 10)
    async with opened(FLOW, url=file_url) as app:
        await failed(app, 12)
        seen = await bulk.preview(app, "retry", query="is:failed")
        assert (seen.total, seen.more) == (10, True)
        with pytest.raises(Refused, match="more than 10 processes match, and at most 10"):
            await bulk.begin(app, "stop", query="is:failed")
        told = await carried_out(app, await bulk.begin(app, "retry", query="is:failed"))
        assert told.done == 12


async def test_a_worker_drives_bulk_actions_as_well(file_url: str) -> None:
    async with opened(FLOW, url=file_url) as app:
        await failed(app, 3)
        record = await bulk.begin(app, "cancel", query="is:failed")
        await work_off(app)
        assert (await app.get(record.id)).condition is Condition.FINISHED
        assert await conditions(app) == {"cancelled": 3}


def test_each_verb_that_takes_no_more_than_a_word_can_be_done_to_many() -> None:
    assert set(bulk.VERBS) == set(NEEDS) - {"start", "edit", "fork"}
