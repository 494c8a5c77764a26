"""The page of who holds processes right now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from conftest import Job, one_stage
from test_failures import fail

from onward import Onward
from onward.panel.pages import workers
from onward.testing import ManualClock
from panel.conftest import Panel, entered

KNOWN = [("job", "make", 1)]


async def test_nobody_holds_anything_says_that_an_idle_worker_is_not_seen(panel: Panel) -> None:
    told = (await panel.get("/workers.json")).json()
    assert (told["schema"], told["workers"], told["alive"], told["number"]) == ("onward.panel.workers/1", [], 0, 0)
    page = (await panel.get("/workers")).text
    assert "No worker holds anything." in page and "is not listed" in page and "onward run" in page


async def test_a_worker_stands_there_with_what_it_holds_and_until_when(url: str) -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    async with entered(Onward(url, [one_stage(fail)], clock=clock)) as panel:
        await panel.app.start_many(Job(id=f"j{number}") for number in range(3))
        clock.advance(60)
        await panel.app.store.claim(KNOWN, "worker-a", 2, timedelta(seconds=30), ["j0", "j1"])
        clock.advance(10)
        told = (await panel.get("/workers.json")).json()
        assert (told["alive"], told["over"], told["number"]) == (1, 0, 2)
        [worker] = told["workers"]
        assert (worker["worker"], worker["alive"], worker["lease_until"]) == ("worker-a", True, "2026-03-01T00:01:30.000000Z")
        assert worker["holds"] == [{"flow": "job", "status": "make", "number": 2, "oldest": "2026-03-01T00:00:00.000000Z"}]
        assert {one.id for one in await panel.app.find(worker["query"])} == {"j0", "j1"}
        page = (await panel.get("/workers")).text
        assert "alive" in page and "in 20 s" in page and "gone" not in page


async def test_a_worker_that_is_gone_comes_first_and_says_what_becomes_of_its_processes(url: str) -> None:
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    async with entered(Onward(url, [one_stage(fail)], clock=clock)) as panel:
        await panel.app.start_many(Job(id=f"j{number}") for number in range(4))
        await panel.app.store.claim(KNOWN, "worker-busy", 3, timedelta(hours=1), ["j1", "j2", "j3"])
        await panel.app.store.claim(KNOWN, "worker-dead", 1, timedelta(seconds=10), ["j0"])
        clock.advance(75)
        told = (await panel.get("/workers.json")).json()
        assert [(one["worker"], one["alive"]) for one in told["workers"]] == [("worker-dead", False), ("worker-busy", True)]
        page = (await panel.get("/workers")).text
        assert "1 at work, 1 gone" in page and "1 min 5 s ago" in page and "the next free worker takes over" in page


async def test_more_workers_than_a_page_has_room_for_are_counted(url: str, monkeypatch: object) -> None:
    assert isinstance(workers.WORKERS_MAX, int)
    async with entered(Onward(url, [one_stage(fail)])) as panel:
        await panel.app.start_many(Job(id=f"j{number}") for number in range(workers.WORKERS_MAX + 2))
        for number in range(workers.WORKERS_MAX + 2):
            await panel.app.store.claim(KNOWN, f"worker-{number:03d}", 1, timedelta(hours=1), [f"j{number}"])
        told = (await panel.get("/workers.json")).json()
        assert (len(told["workers"]), told["others"], told["number"]) == (workers.WORKERS_MAX, 2, workers.WORKERS_MAX + 2)
        assert "2 more workers hold something." in (await panel.get("/workers")).text


async def test_whatever_a_worker_is_called_it_stays_text(url: str) -> None:
    name = "<b>\"'&worker*\\"
    async with entered(Onward(url, [one_stage(fail)])) as panel:
        await panel.app.start(Job(id="j"))
        await panel.app.store.claim(KNOWN, name, 1, timedelta(hours=1))
        [worker] = (await panel.get("/workers.json")).json()["workers"]
        assert [one.id for one in await panel.app.find(worker["query"])] == ["j"]
        assert '<b>"' not in (await panel.get("/workers")).text
