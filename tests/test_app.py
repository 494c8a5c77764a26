"""The library as a program uses it: a flow from its start to its end, over restarts, new code and fourteen days."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import IN_MEMORY, Job, Leg, Step, Trip, kinds, one_stage, opened, work_off, working
from pydantic import BaseModel

from onward import END, Condition, Conflict, Context, Every, Flow, Onward, OnwardError, Process, Refused, Retry, StoreError, stage
from onward.testing import ManualClock


class Status(StrEnum):
    FILES_CREATED = auto()
    FILES_UPLOADED = auto()
    RESPONSES_CREATED = auto()
    RESPONSES_REASONING = auto()
    RESPONSES_COMPLETED = auto()
    FILES_DELETED = auto()
    PROCESS_DELETED = auto()


class Document(BaseModel):
    name: str
    text: str


class Batch(Process[Status]):
    status: Status = Status.FILES_CREATED
    question: str
    documents: list[Document]
    files: dict[str, str] = {}
    responses: dict[str, str] = {}
    answers: dict[str, str] = {}


class Api:
    """A service with files and responses, which are ready at the third look."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.responses: dict[str, int] = {}
        self.made = 0

    async def upload(self, document: Document) -> str:
        await asyncio.sleep(0)
        self.made += 1
        self.files[f"file-{self.made}"] = document.text
        return f"file-{self.made}"

    async def create(self, file: str) -> str:
        await asyncio.sleep(0)
        self.made += 1
        self.responses[f"response-{self.made}"] = 0
        return f"response-{self.made}"

    async def look(self, response: str) -> str | None:
        self.responses[response] += 1
        return f"answer of {response}" if self.responses[response] >= 3 else None


def check_status(api: Api) -> Flow[Status]:
    """The main job in small."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Api]:
        yield api

    async def upload_files(batch: Batch, ctx: Context) -> Literal[Status.FILES_UPLOADED]:
        ids = await ctx.map(ctx.resources.upload, batch.documents, limit=2)
        batch.files = dict(zip((document.name for document in batch.documents), ids, strict=True))
        return Status.FILES_UPLOADED

    async def create_responses(batch: Batch, ctx: Context) -> Literal[Status.RESPONSES_CREATED]:
        for name, file in batch.files.items():
            batch.responses[name] = await ctx.once(f"response for {name}", ctx.resources.create, file)
        return Status.RESPONSES_CREATED

    async def check_responses(
        batch: Batch, ctx: Context
    ) -> Literal[Status.RESPONSES_CREATED, Status.RESPONSES_REASONING, Status.RESPONSES_COMPLETED]:
        for name, response in batch.responses.items():
            if name not in batch.answers and (answer := await ctx.resources.look(response)):
                batch.answers[name] = answer
        return Status.RESPONSES_COMPLETED if len(batch.answers) == len(batch.responses) else Status.RESPONSES_REASONING

    def delete_files(batch: Batch, ctx: Context) -> Literal[Status.FILES_DELETED]:
        for file in batch.files.values():
            ctx.resources.files.pop(file, None)
        return Status.FILES_DELETED

    async def delete_process(batch: Batch) -> Literal[Status.PROCESS_DELETED]:
        return Status.PROCESS_DELETED

    return Flow(
        Batch,
        {
            Status.FILES_CREATED: stage(upload_files, retry=Retry(attempts=6)),
            Status.FILES_UPLOADED: stage(create_responses, on_failure=Status.RESPONSES_COMPLETED),
            (Status.RESPONSES_CREATED, Status.RESPONSES_REASONING): stage(
                check_responses,
                every=Every(seconds=2, longest=30),
                within=timedelta(hours=24),
                otherwise=Status.RESPONSES_COMPLETED,
            ),
            Status.RESPONSES_COMPLETED: delete_files,
            Status.FILES_DELETED: delete_process,
            Status.PROCESS_DELETED: END,
        },
        on_cancel=Status.RESPONSES_COMPLETED,
        lifespan=lifespan,
    )


DOCUMENTS = [Document(name="a.md", text="Lighthouse"), Document(name="b.md", text="Harbour")]


def batch(id: str = "batch-1") -> Batch:
    return Batch(id=id, question="How old is it?", documents=DOCUMENTS)


async def test_the_main_job_runs_from_its_start_to_its_end_on_a_file(file_url: str, path: Path) -> None:
    api, clock = Api(), ManualClock()
    async with opened(check_status(api), url=file_url, clock=clock) as app:
        await app.start(batch())
        looks = 0
        while (record := await app.check("batch-1")).condition is not Condition.FINISHED:
            assert record.status in ("responses_reasoning",)
            assert record.due_at is not None
            clock.advance(record.due_at - record.as_of)
            looks += 1
        assert looks == 1  # the first two were made on the way: RESPONSES_CREATED -> RESPONSES_REASONING is a move
        assert record.process.answers == {"a.md": "answer of response-3", "b.md": "answer of response-4"}
        assert api.files == {}
        assert api.made == 4
        assert [entry.to_status for entry in await app.history("batch-1")] == [
            "files_created",
            "files_uploaded",
            "responses_created",
            "responses_reasoning",
            "responses_reasoning",
            "responses_completed",
            "files_deleted",
            "process_deleted",
        ]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


async def test_the_main_job_goes_on_where_it_was_after_a_restart_between_any_two_stages(file_url: str) -> None:
    """A new program for each stage: nothing is made twice, nothing is left behind."""
    api, clock, lives = Api(), ManualClock(), 0
    async with opened(check_status(api), url=file_url, clock=clock) as app:
        await app.start(batch())
    while lives < 50:
        lives += 1
        stopper: list[asyncio.Task[None]] = []
        async with opened(
            check_status(api), url=file_url, clock=clock, observers=[lambda _, stop=stopper: stop[0].cancel()]
        ) as app:
            record = await app.get("batch-1")
            if record.condition is Condition.FINISHED:
                break
            stopper.append(asyncio.create_task(app.run(signals=False)))
            await asyncio.gather(*stopper, return_exceptions=True)
            record = await app.get("batch-1")
            assert record.owner is None
            clock.advance(60)
    assert record.condition is Condition.FINISHED
    assert lives >= 4  # what was begun at the signal is ended, so each life makes two commits at most
    assert len(record.process.answers) == 2
    assert (api.files, api.made) == ({}, 4)


async def test_many_of_it_run_side_by_side_beside_another_flow(url: str) -> None:
    api = Api()

    async def make(job: Job) -> Literal[Step.DONE]:
        return Step.DONE

    async with opened(check_status(api), one_stage(make), url=url) as app:
        await app.start_many([*(batch(f"batch-{n}") for n in range(10)), *(Job() for _ in range(10))])
        async with working(app):
            for n in range(10):
                while (await app.get(f"batch-{n}")).condition is not Condition.FINISHED:
                    try:
                        await app.wake(f"batch-{n}")  # it has no reason to wait for its polls here
                    except (Refused, Conflict):
                        await asyncio.sleep(0.002)
        assert (len(await app.find(condition="finished")), api.files, api.made) == (20, {}, 40)


async def test_fourteen_days_pass_in_a_moment() -> None:
    """The README's parcel: looked after every hour, given up after fourteen days."""
    looks: list[int] = []

    async def send(trip: Trip) -> Literal[Leg.TRAVEL]:
        return Leg.TRAVEL

    async def track(trip: Trip) -> Literal[Leg.TRAVEL, Leg.OVER]:
        looks.append(1)
        return Leg.TRAVEL

    async def lost(trip: Trip) -> Literal[Leg.OVER]:
        trip.log.append("lost")
        return Leg.OVER

    line = stage(track, every=Every(seconds=3_600), within=timedelta(days=14), otherwise=Leg.CLEAN)
    clock = ManualClock()
    async with opened(Flow(Trip, {Leg.BOOK: send, Leg.TRAVEL: line, Leg.CLEAN: lost, Leg.OVER: END}), clock=clock) as app:
        began, begun_at = time.monotonic(), clock.now()
        await app.start(Trip(id="a"))
        while (record := await app.check("a")).condition is Condition.WAITING:
            assert record.due_at is not None
            clock.advance(record.due_at - record.as_of)
        assert (record.condition, record.process.log) == (Condition.FINISHED, ["lost"])
        assert clock.now() - begun_at == timedelta(days=14)
        assert 14 * 24 / 1.2 - 1 <= len(looks) <= 14 * 24
        assert time.monotonic() - began < 5


# -- code that changes in flight ----------------------------------------------------------------------------------


class Old(StrEnum):
    DRAFT = auto()
    REVIEW = auto()
    PUBLISHED = auto()


class New(StrEnum):
    DRAFT = auto()
    APPROVAL = auto()
    PUBLISHED = auto()


class Both(StrEnum):
    DRAFT = auto()
    APPROVAL = auto()
    REVIEW = auto()
    PUBLISHED = auto()


def article(kind: Any, middle: str, approved: set[str]) -> tuple[Flow[Any], Any]:
    """draft -> `middle`, which waits until the article is among the approved -> published."""

    class Article(Process[kind]):  # one for each life of the code
        status: kind = kind.DRAFT

    here, published = kind(middle), kind.PUBLISHED

    async def draft(article: Article) -> Any:
        return here

    async def wait(article: Article) -> Any:
        return published if article.id in approved else here

    draft.__annotations__["return"] = Literal[tuple(kind)[1:-1]]  # a retired status has to be reachable, by the word at least
    wait.__annotations__["return"] = Literal[here, published]
    line: Any = stage(wait, every=Every(seconds=60))
    table: Any = {kind.DRAFT: draft, tuple(kind)[1:-1]: line, published: END}
    return Flow(Article, table, name="article"), Article


async def test_new_code_leaves_alone_what_it_does_not_know_and_shows_it_and_code_that_does_goes_on(file_url: str) -> None:
    old, OldArticle = article(Old, "review", set())
    async with opened(old, url=file_url) as app:
        for id in ("waits", "due"):
            await app.start(OldArticle(id=id))
            await app.check(id)
        await app.wake("due")

    new, NewArticle = article(New, "approval", {"waits", "due", "fresh"})
    async with opened(new, url=file_url) as app:  # a deploy: REVIEW is gone
        before = [await app.get(id) for id in ("waits", "due")]
        await app.start(NewArticle(id="fresh"))
        await work_off(app)
        assert (await app.get("fresh")).condition is Condition.FINISHED
        for record in before:
            after = await app.check(record.id)
            assert after.condition is Condition.ORPHANED
            assert (after.version, after.epoch, after.data, after.owner) == (record.version, record.epoch, record.data, None)
            assert "has no status 'review'" in await app.explain(record.id)

    async with opened(article(Both, "approval", {"due"})[0], url=file_url) as app:  # and the mending of it
        assert (await app.check("due")).condition is Condition.FINISHED
        assert (await app.get("waits")).condition is Condition.WAITING


async def test_a_new_field_with_a_default_needs_no_migration_and_a_repeated_start_is_still_the_same(file_url: str) -> None:
    async def make(job: Any) -> Literal[Step.DONE]:
        return Step.DONE

    class Order(Process[Step]):
        status: Step = Step.MAKE
        lines: set[str] = set()

    first = Flow(Order, {Step.MAKE: make, Step.DONE: END})
    async with opened(first, url=file_url) as app:
        await app.start(Order(id="a", lines={"x", "y", "z"}))

    class Later(Process[Step]):
        status: Step = Step.MAKE
        lines: set[str] = set()
        priority: int = 3

    async with opened(Flow(Later, {Step.MAKE: make, Step.DONE: END}, name="order"), url=file_url) as app:
        assert (await app.start(Later(id="a", lines={"z", "y", "x"}))).version == 0
        with pytest.raises(Conflict):
            await app.start(Later(id="a", lines={"x", "y", "z"}, priority=4))
        done = await app.check("a")
        assert (done.condition, done.process.priority, done.process.lines) == (Condition.FINISHED, 3, {"x", "y", "z"})


# -- an app that cannot be ----------------------------------------------------------------------------------------


async def make(job: Job) -> Literal[Step.DONE]:
    return Step.DONE


async def test_two_flows_of_one_name_or_of_one_model_are_refused() -> None:
    class Other(Process[Step]):
        status: Step = Step.MAKE

    async def other(it: Other) -> Literal[Step.DONE]:
        return Step.DONE

    with pytest.raises(OnwardError, match="two flows are called 'job', or share the model") as caught:
        Onward(IN_MEMORY, [one_stage(make), Flow(Other, {Step.MAKE: other, Step.DONE: END}, name="job")])
    assert "name=" in caught.value.hint
    with pytest.raises(OnwardError, match="share the model Job"):
        Onward(IN_MEMORY, [one_stage(make), one_stage(make, name="job2")])


@pytest.mark.parametrize("url", ["", "onward.db", "sqlite://onward.db", "sqlite:///", "mysql:///x", "sqlite", ":///x"])
async def test_a_url_that_names_no_store_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(StoreError, match="no store for") as caught:
        Onward(url, [one_stage(make)])
    assert "sqlite:///" in caught.value.hint


async def test_a_file_that_cannot_be_opened_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open") as caught:
        async with Onward(f"sqlite:///{tmp_path / 'none' / 'onward.db'}", [one_stage(make)]):
            pass
    assert "mkdir -p" in caught.value.hint
    foreign = tmp_path / "notes.txt"
    foreign.write_text("no database " * 1_000)
    with pytest.raises(StoreError, match="not a database"):
        async with Onward(f"sqlite:///{foreign}", [one_stage(make)]):
            pass
    assert foreign.read_text() == "no database " * 1_000


async def test_an_app_that_is_not_open_refuses_and_says_how_to_open_it(file_url: str) -> None:
    app = Onward(file_url, [one_stage(make)])
    for closed in range(2):
        for ask in (app.get("a"), app.start(Job()), app.find(), app.counts(), app.check("a"), app.stop("a")):
            with pytest.raises(StoreError, match="not open") as caught:
                await ask
            assert "async with app" in caught.value.hint
        if not closed:
            async with app:
                await app.start(Job(id="a"))
    async with app:  # it may be opened again
        assert (await app.get("a")).condition is Condition.READY


async def test_several_apps_on_one_file_see_each_others_processes_at_once(file_url: str) -> None:
    async with opened(one_stage(make), url=file_url) as first, opened(one_stage(make), url=file_url) as second:
        await asyncio.gather(*((first, second)[n % 2].start(Job(id=str(n))) for n in range(20)))
        assert len(await first.find()) == len(await second.find()) == 20
        await asyncio.gather(work_off(first), work_off(second))
        assert {record.condition for record in await first.find()} == {Condition.FINISHED}
        assert kinds(await second.history("7")) == ["started", "moved"]
