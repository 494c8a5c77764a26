"""The main job against the stand-in, with everything that the service may do to it. The SDK is the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from onward import Condition, Onward, Record
from onward.demo.flow import Batch, Document, Status, check_status, file_name
from onward.demo.main import read_documents
from onward.testing.openai_standin import OpenAIStandin

DOCUMENTS = [
    Document(name="pier.md", text="The pier was old. It was decided to replace the pier in October. Nobody objected."),
    Document(name="star.txt", text="The star was faint. The star will be observed every night. The dome motor failed."),
]


@contextmanager
def service(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[OpenAIStandin]:
    seconds = {"seconds_queued": 0.05, "seconds_reasoning": 0.1, "seconds_retry_after": 0}
    with OpenAIStandin(**{**seconds, **options}) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "stand-in")
        yield server


def batch(**fields: Any) -> Batch:
    return Batch(question="What was decided about the pier and the star?", documents=DOCUMENTS, **fields)


async def until(app: Onward, id: str, *statuses: Status) -> Record:
    async with asyncio.timeout(20):
        while (record := await app.get(id)).status not in statuses:
            await app.store.wait_for_change(0.05)
    return record


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/demo.db"


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow as it is, but for the pauses: they are the engine's to keep, and its own tests hold it to them."""
    monkeypatch.setattr("onward.flow.Every.pause", lambda self, polls, id: timedelta(milliseconds=50))
    pause = check_status.stages[Status.FILES_CREATED].retry.__class__.pause  # type: ignore[union-attr]
    monkeypatch.setattr(
        "onward.flow.Retry.pause",
        lambda self, attempt, id: None if pause(self, attempt, id) is None else timedelta(milliseconds=10),
    )


async def run_job(url: str, job: Batch) -> Record:
    async with Onward(url, flows=[check_status]) as app:
        await app.start(job)
        async with asyncio.timeout(30):
            await app.run(until_idle=True, signals=False)
        return await app.get(job.id)


async def test_the_whole_job_answers_every_document_and_leaves_nothing_behind(monkeypatch, url):
    impatient(monkeypatch)
    with service(monkeypatch) as server:
        record = await run_job(url, batch())
        report = server.report()
    assert (record.condition, record.status) == (Condition.FINISHED, Status.PROCESS_DELETED)
    assert sorted(record.process.answers) == ["pier.md", "star.txt"] and not record.process.problems
    assert "replace the pier" in record.process.answers["pier.md"]
    assert not record.process.documents and not record.process.files and not record.process.responses
    assert report["files"]["created"] == 2 and not report["files"]["left"] and not report["files"]["duplicates"]
    assert report["responses"]["created"] == 2 and not report["responses"]["left"] and not report["responses"]["duplicates"]


async def test_its_history_names_all_nine_statuses_in_their_order(monkeypatch, url):
    impatient(monkeypatch)
    with service(monkeypatch):
        record = await run_job(url, batch())
        async with Onward(url, flows=[check_status]) as app:
            entries = await app.history(record.id)
    seen = list(dict.fromkeys(entry.to_status for entry in entries))
    assert seen == [str(status) for status in Status]


async def test_a_lost_reply_to_an_upload_leaves_one_file_that_is_adopted(monkeypatch, url):
    impatient(monkeypatch)
    with service(monkeypatch, faults={"lost": 3}) as server:
        record = await run_job(url, batch())
        report = server.report()
    assert report["faults"]["lost"] >= 1
    assert record.condition is Condition.FINISHED
    assert not report["files"]["left"] and not report["files"]["duplicates"]


async def test_refusals_for_the_rate_and_server_errors_only_delay_it(monkeypatch, url):
    impatient(monkeypatch)
    with service(monkeypatch, faults={"429": 4, "500": 7}) as server:
        record = await run_job(url, batch())
        report = server.report()
    assert report["faults"]["429"] >= 2 and report["faults"]["500"] >= 1
    assert record.condition is Condition.FINISHED and len(record.process.answers) == 2
    assert not report["files"]["left"] and not report["responses"]["left"]
    assert not report["files"]["duplicates"] and not report["responses"]["duplicates"]


async def test_a_retry_after_of_the_service_is_kept(monkeypatch, url):
    with service(monkeypatch, faults={"429": 2}, seconds_retry_after=7):
        async with Onward(url, flows=[check_status]) as app:
            job = await app.start(batch())
            record = await app.check(job.id)
    assert record.condition is Condition.RETRYING and record.due_at is not None
    assert timedelta(seconds=6) < record.due_at - record.updated_at <= timedelta(seconds=7)


@pytest.mark.parametrize(("fault", "words"), [("failed", "server_error"), ("incomplete", "max_output_tokens")])
async def test_a_response_that_ends_badly_is_named_and_cleaned_up(monkeypatch, url, fault, words):
    impatient(monkeypatch)
    with service(monkeypatch, faults={fault: 2}) as server:
        record = await run_job(url, batch())
        report = server.report()
    assert record.condition is Condition.FINISHED
    assert len(record.process.answers) == 1 and len(record.process.problems) == 1
    assert words in next(iter(record.process.problems.values()))
    assert not report["files"]["left"] and not report["responses"]["left"]


async def test_a_used_up_quota_is_not_tried_again_and_the_clean_up_runs(monkeypatch, url):
    with service(monkeypatch, faults={"quota": 1}) as server:
        record = await run_job(url, batch())
        report = server.report()
    assert report["faults"]["quota"] <= 2  # one for each document, and none after that
    assert record.condition is Condition.FINISHED and not record.process.answers
    assert set(record.process.problems) == {"pier.md", "star.txt"}
    assert not report["files"]["left"] and not report["responses"]["left"]


async def test_a_quota_that_ends_in_the_middle_leaves_no_response_behind(monkeypatch, url):
    impatient(monkeypatch)
    with service(monkeypatch, faults={"quota": 2}) as server:
        await run_job(url, batch())
        report = server.report()
    assert report["responses"]["created"] == 1 and not report["responses"]["left"] and not report["files"]["left"]


async def test_an_answer_that_never_comes_ends_at_the_deadline_with_everything_deleted(monkeypatch, url):
    impatient(monkeypatch)
    line = check_status.stages[Status.RESPONSES_REASONING]
    assert line is not None and line.within == timedelta(hours=24)
    with service(monkeypatch, seconds_queued=0.0, seconds_reasoning=10_000) as server:
        async with Onward(url, flows=[check_status]) as app:
            job = await app.start(batch())
            worker = asyncio.create_task(app.run(signals=False))
            await until(app, job.id, Status.RESPONSES_REASONING)
            await app.pause(job.id)
            shift_a_day(url)  # the stage began a day earlier
            await app.resume(job.id)
            record = await app.wait(job.id, timeout=20)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        report = server.report()
    assert record.condition is Condition.FINISHED and record.process.problems["pier.md"] == "it was not answered in time"
    assert not report["files"]["left"] and not report["responses"]["left"]


def shift_a_day(url: str) -> None:
    import sqlite3

    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.execute("UPDATE onward_process SET entered_at = entered_at - 86400 * 1000000")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("status", [Status.RESPONSES_REASONING, Status.FILES_UPLOADED, Status.FILES_CREATED])
async def test_a_cancelled_job_deletes_its_files_and_responses(monkeypatch, url, status):
    impatient(monkeypatch)
    with service(monkeypatch, seconds_reasoning=10_000) as server:
        async with Onward(url, flows=[check_status]) as app:
            job = await app.start(batch())
            worker = asyncio.create_task(app.run(signals=False))
            await until(app, job.id, status, Status.RESPONSES_REASONING)
            await app.cancel(job.id, reason="no longer wanted")
            record = await app.wait(job.id, timeout=20)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        report = server.report()
    assert (record.condition, record.status) == (Condition.CANCELLED, Status.PROCESS_DELETED)
    assert not report["files"]["left"] and not report["responses"]["left"]


async def test_files_that_the_row_does_not_know_are_found_by_their_names(monkeypatch, url):
    from openai import AsyncOpenAI

    impatient(monkeypatch)
    with service(monkeypatch) as server:
        job = batch(status=Status.RESPONSES_COMPLETED)
        async with AsyncOpenAI() as client:  # what an upload leaves whose record a crash has swallowed
            await client.files.create(file=(file_name(job, DOCUMENTS[0]), b"text"), purpose="user_data")
            await client.files.create(file=(file_name(job, DOCUMENTS[0]), b"text"), purpose="user_data")
            await client.files.create(file=("somebody-elses.txt", b"text"), purpose="user_data")
        await run_job(url, job)
        left = server.report()["files"]["left"]
    assert len(left) == 1  # somebody else's


def test_documents_come_from_files_and_folders_and_bad_ones_are_named(tmp_path):
    (tmp_path / "a.md").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "c.png").write_bytes(b"\x89PNG")
    assert [document.name for document in read_documents([tmp_path])] == ["a.md", "b.txt"]
    assert len(read_documents([])) == 3
    for path, words in ((tmp_path / "missing.md", "there is no file"), (tmp_path / "c.png", "UTF-8")):
        with pytest.raises(Exception, match=words):
            read_documents([path])
