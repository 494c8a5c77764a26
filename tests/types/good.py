"""What the type checkers accept without a word: the flow of the documentation, and every kind of handler and policy."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum, auto
from typing import Any, Literal, assert_type

from onward import END, Context, Every, Flow, Process, Retry, RetryAfter, Secret, Unrecoverable, stage


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


class Batch(Process[Status]):
    status: Status = Status.FILES_CREATED
    question: str
    documents: list[str]
    files: dict[str, str] = {}
    answers: dict[str, str] = {}
    token: Secret[str] = ""
    ports: Secret[list[int]] = []
    keys: dict[str, Secret[bytes]] = {}
    spare: Secret[str] | None = None


async def upload_files(batch: Batch, ctx: Context) -> Literal[Status.FILES_UPLOADED]:
    for document in batch.documents:
        batch.files[document] = ctx.key
    await ctx.save()
    return Status.FILES_UPLOADED


async def create_responses(batch: Batch) -> Literal[Status.RESPONSES_CREATED]:
    if not batch.files:
        raise Unrecoverable("nothing to ask about")
    return Status.RESPONSES_CREATED


Checked = Literal[Status.RESPONSES_REASONING, Status.RESPONSES_COMPLETED]


async def check_responses(batch: Batch, ctx: Context) -> Checked:
    if ctx.attempt > 3:
        raise RetryAfter(timedelta(seconds=5), "busy")
    if batch.answers:
        return Status.RESPONSES_COMPLETED
    return Status.RESPONSES_REASONING


def delete_files(batch: Batch) -> Literal[Status.FILES_DELETED]:
    batch.files.clear()
    return Status.FILES_DELETED


def delete_responses(batch: Batch, ctx: Context) -> Literal[Status.RESPONSES_DELETED]:
    ctx.log.info("%d answers", len(batch.answers))
    return Status.RESPONSES_DELETED


def finish(status: str, batch: Batch) -> Literal[Status.RESPONSES_FINISHED] | Literal[Status.PROCESS_DELETED]:
    return Status.RESPONSES_FINISHED if status else Status.PROCESS_DELETED


class Deleter:
    async def __call__(self, batch: Batch, ctx: Context) -> Literal[Status.PROCESS_DELETED]:
        return Status.PROCESS_DELETED


@asynccontextmanager
async def clients() -> AsyncIterator[dict[str, Any]]:
    yield {}


check_status = Flow(
    Batch,
    {
        Status.FILES_CREATED: stage(upload_files, retry=Retry(attempts=6, first=2, longest=timedelta(minutes=5))),
        Status.FILES_UPLOADED: stage(create_responses, on_failure=Status.RESPONSES_COMPLETED, timeout=timedelta(minutes=1)),
        (Status.RESPONSES_CREATED, Status.RESPONSES_REASONING): stage(
            check_responses,
            every=Every(seconds=2, longest=30),
            within=timedelta(hours=24),
            otherwise=Status.RESPONSES_COMPLETED,
            on_failure=Status.RESPONSES_COMPLETED,
            timeout=5,
        ),
        Status.RESPONSES_COMPLETED: delete_files,
        Status.FILES_DELETED: stage(delete_responses),
        Status.RESPONSES_DELETED: functools.partial(finish, "now"),
        Status.RESPONSES_FINISHED: Deleter(),
        Status.PROCESS_DELETED: END,
    },
    on_cancel=Status.RESPONSES_COMPLETED,
    lifespan=clients,
    name="batch",
)
assert_type(check_status, Flow[Status])


async def a_handler_is_a_plain_function_that_a_unit_test_calls() -> None:
    batch = Batch(question="why?", documents=[])
    assert_type(await create_responses(batch), Literal[Status.RESPONSES_CREATED])
    assert_type(delete_files(batch), Literal[Status.FILES_DELETED])


def a_secret_is_its_plain_value(batch: Batch) -> None:
    assert_type(batch.token, str)
    assert_type(batch.ports, list[int])
    assert_type(batch.keys, dict[str, bytes])
    assert_type(batch.spare, str | None)
    batch.token = batch.token.strip()
    Batch(question="why?", documents=[], token="t", spare=None)
