"""The main job: upload documents, ask a model about each in the background, poll, and clean everything up.

Read it as the model of a good flow. The real `openai` SDK is used as it comes, but for two settings: its own retries are
off (a lost answer and an unseen retry make two files of one, and ours survive a restart), and each call has a time limit.

    onward --app onward.demo.flow:app graph batch
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import PurePath
from typing import Any, Literal

from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response
from pydantic import BaseModel

from onward import END, Context, Every, Flow, LeaseLost, Onward, Process, Retry, RetryAfter, Unrecoverable, stage

CALL_SECONDS = 60.0  # one call of the API; the SDK's own limit is ten minutes
FILE_SECONDS = 86_400  # an uploaded file that everybody forgot deletes itself after a day
AT_ONCE = 4  # calls of one process under way


class Status(StrEnum):
    FILES_CREATED = auto()
    FILES_UPLOADED = auto()
    RESPONSES_CREATED = auto()
    RESPONSES_REASONING = auto()
    RESPONSES_COMPLETED = auto()
    FILES_DELETED = auto()
    RESPONSES_DELETED = auto()
    RESPONSES_FINISHED = auto()
    PROCESS_DELETED = auto()


class Document(BaseModel):
    name: str
    text: str


class Batch(Process[Status]):
    """One question about several documents. All three dictionaries go by the document's name."""

    status: Status = Status.FILES_CREATED
    question: str
    documents: list[Document]
    model: str = "gpt-5-mini"
    files: dict[str, str] = {}  # the id of the uploaded file
    responses: dict[str, str] = {}  # the id of the response
    answers: dict[str, str] = {}
    problems: dict[str, str] = {}  # why there is no answer


# -- the stages, in the order in which they come ------------------------------------------------------------------


async def upload_files(batch: Batch, ctx: Context) -> Literal[Status.FILES_UPLOADED]:
    client: AsyncOpenAI = ctx.resources
    before = await uploaded(client, batch) if ctx.attempt > 1 else {}

    async def upload(document: Document) -> str:
        name = file_name(batch, document)
        if name in before:  # the attempt before this one did it, and died or lost the answer before it could say so
            return before[name]
        file = await client.files.create(
            file=(name, document.text.encode()),
            purpose="user_data",
            expires_after={"anchor": "created_at", "seconds": FILE_SECONDS},
        )
        return file.id

    with api_errors():
        ids = await ctx.map(upload, batch.documents, limit=AT_ONCE)
    batch.files = {document.name: id for document, id in zip(batch.documents, ids, strict=True)}
    return Status.FILES_UPLOADED


async def create_responses(batch: Batch, ctx: Context) -> Literal[Status.RESPONSES_CREATED]:
    client: AsyncOpenAI = ctx.resources

    async def ask(name: str) -> None:
        response = await client.responses.create(
            model=batch.model,
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_file", "file_id": batch.files[name]},
                        {"type": "input_text", "text": batch.question},
                    ],
                }
            ],
            background=True,
            store=True,
            metadata={"process": batch.id, "item": name[:500], "attempt": str(ctx.attempt)},
        )
        # Responses cannot be listed, so nobody could find this one again: into the row with its id, now.
        batch.responses[name] = response.id
        try:
            await ctx.save()
        except LeaseLost:  # somebody cancelled the job meanwhile, and its clean-up will never hear of this one
            await client.responses.delete(response.id)
            raise

    with api_errors():
        await all_of(to_its_end(ask(name)) for name in batch.files if name not in batch.responses)
    return Status.RESPONSES_CREATED


async def check_responses(batch: Batch, ctx: Context) -> Literal[Status.RESPONSES_REASONING, Status.RESPONSES_COMPLETED]:
    client: AsyncOpenAI = ctx.resources

    async def check(name: str) -> None:
        try:
            response = await client.responses.retrieve(batch.responses[name])
        except NotFoundError:
            batch.problems[name] = "the response is gone"
            return
        if response.status == "completed":
            batch.answers[name] = response.output_text
        elif response.status not in ("queued", "in_progress"):
            batch.problems[name] = why_not(response)

    with api_errors():
        await all_of(check(name) for name in open_ones(batch))
    return Status.RESPONSES_REASONING if open_ones(batch) else Status.RESPONSES_COMPLETED


async def delete_files(batch: Batch, ctx: Context) -> Literal[Status.FILES_DELETED]:
    client: AsyncOpenAI = ctx.resources

    async def delete(id: str) -> None:
        with gone_is_done():
            await client.files.delete(id)

    with api_errors():
        # By name as well: a job cancelled in the middle of its uploads has files that its row does not know.
        ids = {*batch.files.values(), *(await uploaded(client, batch)).values()}
        await ctx.map(delete, sorted(ids), limit=AT_ONCE)
    return Status.FILES_DELETED


async def delete_responses(batch: Batch, ctx: Context) -> Literal[Status.RESPONSES_DELETED]:
    client: AsyncOpenAI = ctx.resources
    running = set(open_ones(batch))

    async def delete(name: str) -> None:
        with gone_is_done():
            if name in running:
                with already_over():
                    await client.responses.cancel(batch.responses[name])
            await client.responses.delete(batch.responses[name])

    with api_errors():
        await ctx.map(delete, sorted(batch.responses), limit=AT_ONCE)
    return Status.RESPONSES_DELETED


async def finish_responses(batch: Batch) -> Literal[Status.RESPONSES_FINISHED]:
    for document in batch.documents:
        if document.name not in batch.answers:
            batch.problems.setdefault(document.name, "it was not answered in time")
    return Status.RESPONSES_FINISHED


async def delete_process(batch: Batch) -> Literal[Status.PROCESS_DELETED]:
    """Forgets what was needed only on the way. The question, the answers and the problems stay."""
    batch.documents, batch.files, batch.responses = [], {}, {}
    return Status.PROCESS_DELETED


# -- what the stages share ----------------------------------------------------------------------------------------


def open_ones(batch: Batch) -> list[str]:
    """The documents whose response has not come to its end."""
    return [name for name in batch.responses if name not in batch.answers and name not in batch.problems]


def file_name(batch: Batch, document: Document) -> str:
    """A name by which a file is found again when the answer to its upload was lost: no two processes share one."""
    digest = hashlib.sha256(f"{document.name}\0{document.text}".encode()).hexdigest()[:8]
    # The service goes by the extension, and takes no file without a known one.
    return f"{batch.id}.{digest}{PurePath(document.name).suffix.lower() or '.txt'}"


async def uploaded(client: AsyncOpenAI, batch: Batch) -> dict[str, str]:
    """The files of this process that the service has: {their name: their id}. Of two with one name, the second is deleted."""
    found: dict[str, str] = {}
    with api_errors():
        async for file in client.files.list(purpose="user_data", order="asc", limit=10_000):
            if not file.filename.startswith(f"{batch.id}."):
                continue
            if file.filename in found:
                with gone_is_done():
                    await client.files.delete(file.id)
            else:
                found[file.filename] = file.id
    return found


def why_not(response: Response) -> str:
    if response.status == "failed" and response.error is not None:
        return f"failed: {response.error.code}: {response.error.message}"
    if response.status == "incomplete" and response.incomplete_details is not None:
        return f"incomplete: {response.incomplete_details.reason}"
    return str(response.status)


async def all_of(calls: Iterator[Awaitable[None]]) -> None:
    """All calls, a few at once. The rest are waited for even if one fails: what they did has to be known."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(call: Awaitable[None]) -> None:
        async with slots:
            await call

    results = await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)
    for error in results:
        if error is not None:
            raise error


async def to_its_end(call: Coroutine[Any, Any, None]) -> None:
    """The call, which is not left half-way even if the handler is cut off: half-way is where it can leave something behind."""
    task = asyncio.create_task(call)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@contextmanager
def api_errors() -> Iterator[None]:
    """Says which of the API's errors can pass, and when to come back; the engine does the waiting."""
    try:
        yield
    except APIStatusError as error:
        passing = error.status_code in (408, 409, 429) or error.status_code >= 500
        if not passing or error.code == "insufficient_quota":
            raise Unrecoverable(f"{error.status_code} {error.code or ''}: {error.message}") from error
        if (after := error.response.headers.get("retry-after", "")).isdecimal():
            raise RetryAfter(min(int(after), 3_600), f"{error.status_code}: the service asks to wait {after} s") from error
        raise


@contextmanager
def gone_is_done() -> Iterator[None]:
    """Deleting what is not there any more has worked: an attempt before this one did it."""
    try:
        yield
    except NotFoundError:
        pass


@contextmanager
def already_over() -> Iterator[None]:
    """A response that has ended meanwhile cannot be cancelled, and need not be."""
    try:
        yield
    except BadRequestError:
        pass


@asynccontextmanager
async def openai_client() -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(max_retries=0, timeout=CALL_SECONDS) as client:
        yield client


# -- the table: the whole job, understood with a single read ------------------------------------------------------

check_status = Flow(
    Batch,
    {
        Status.FILES_CREATED: stage(upload_files, retry=Retry(attempts=6)),
        Status.FILES_UPLOADED: stage(create_responses, retry=Retry(attempts=6), on_failure=Status.RESPONSES_COMPLETED),
        (Status.RESPONSES_CREATED, Status.RESPONSES_REASONING): stage(
            check_responses,
            every=Every(seconds=2, longest=30),
            within=timedelta(hours=24),
            otherwise=Status.RESPONSES_COMPLETED,
            on_failure=Status.RESPONSES_COMPLETED,
        ),
        Status.RESPONSES_COMPLETED: stage(delete_files, retry=Retry(attempts=8)),
        Status.FILES_DELETED: stage(delete_responses, retry=Retry(attempts=8)),
        Status.RESPONSES_DELETED: finish_responses,
        Status.RESPONSES_FINISHED: delete_process,
        Status.PROCESS_DELETED: END,
    },
    on_cancel=Status.RESPONSES_COMPLETED,  # a cancelled job still cleans up
    lifespan=openai_client,
)

app = Onward("sqlite:///onward-demo.db", flows=[check_status])
