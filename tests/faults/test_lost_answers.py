"""Writes that were made and answered with an error. What came of them is found out, and never taken for another write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import pytest

from onward import END, Condition, Context, Flow, Onward, Process, Retry, StoreError, stage
from onward.decide import Change
from onward.process import Record


class Status(StrEnum):
    WRITING = auto()
    READING = auto()
    CLOSED = auto()


class Page(Process[Status]):
    status: Status = Status.WRITING
    words: list[str] = []
    patient: bool = True


async def write(page: Page, ctx: Context) -> Literal[Status.READING]:
    page.words.append("one")
    if page.patient:
        await ctx.save()
    else:
        try:
            await asyncio.wait_for(ctx.save(), 0.2)
        except (TimeoutError, StoreError):  # it does not care whether its words were kept
            pass
    page.words.append("two")
    return Status.READING


async def count(page: Page, ctx: Context) -> str:
    return await ctx.once("count", lambda: str(len(page.words)))


async def read(page: Page, ctx: Context) -> Literal[Status.CLOSED]:
    assert int(await count(page, ctx)) >= 2
    return Status.CLOSED


FLOW = Flow(
    Page,
    {
        Status.WRITING: stage(write, retry=Retry(attempts=2, first=0.01), timeout=1.0, on_failure=Status.READING),
        Status.READING: stage(read, retry=Retry(attempts=1)),
        Status.CLOSED: END,
    },
)

Verb = Callable[..., Awaitable[Any]]


def forget_answers(app: Onward, verb: str, times: int, *, saves_only: bool = False) -> list[str]:
    """The store does what it is told and then says that it could not, `times` times. Returns the list of those."""
    act: Verb = getattr(app.store, verb)
    forgotten: list[str] = []

    async def act_and_forget(record: Record, *about: Any) -> Any:
        result = await act(record, *about)
        saved = isinstance(about[0], Change) and about[0].kind == "saved"
        if len(forgotten) < times and (saved or not saves_only):
            forgotten.append(verb)
            raise StoreError("the answer was lost")
        return result

    setattr(app.store, verb, act_and_forget)
    return forgotten


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/onward.db"


async def chain(app: Onward, id: str) -> list[tuple[str, str | None, str]]:
    return [(entry.kind, entry.from_status, entry.to_status) for entry in await app.history(id)]


SAVED = ("saved", "writing", "writing")
MOVED = [("moved", "writing", "reading"), ("moved", "reading", "closed")]


@pytest.mark.parametrize(("verb", "saves_only"), [("commit", False), ("commit", True), ("record_step", False)])
async def test_a_lost_answer_costs_no_attempt_and_changes_nothing(url: str, verb: str, saves_only: bool) -> None:
    async with Onward(url, [FLOW]) as app:
        forgotten = forget_answers(app, verb, 3, saves_only=saves_only)
        page = await app.start(Page())
        async with asyncio.timeout(20):
            await app.run(until_idle=True, signals=False, lease=0.5)
        assert len(forgotten) == 3
        assert (await chain(app, page.id))[1:] == [SAVED, *MOVED]
        assert (await app.get(page.id)).process.words == ["one", "two"]


async def test_a_handler_that_shrugs_at_a_save_without_answer_is_fenced_by_that_save(url: str) -> None:
    # The save stands in the history under the version and epoch at which the handler's own transition would stand.
    async with Onward(url, [FLOW]) as app:
        forgotten = forget_answers(app, "commit", 100, saves_only=True)
        page = await app.start(Page(patient=False))
        run = asyncio.create_task(app.run(signals=False, lease=0.3))
        async with asyncio.timeout(10):
            while not forgotten:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)  # the handler has shrugged
        forgotten.extend(["enough"] * 100)
        record = await app.wait(page.id, timeout=10)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        assert record.condition is Condition.FINISHED
        entries = [entry for entry in await chain(app, page.id) if entry[0] == "moved"]
        assert entries == MOVED


async def test_a_stage_cut_off_in_a_save_without_answer_is_not_taken_for_done(url: str) -> None:
    async with Onward(url, [FLOW]) as app:
        forget_answers(app, "commit", 4, saves_only=True)
        page = await app.start(Page())
        async with asyncio.timeout(20):
            await app.run(until_idle=True, signals=False, lease=0.3)
        before = "writing"
        for kind, source, target in (await chain(app, page.id))[1:]:
            assert source == before, await chain(app, page.id)
            assert kind == "saved" or source != target or kind == "retry"
            before = target
        assert (await app.get(page.id)).condition is Condition.FINISHED
