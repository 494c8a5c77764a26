"""One execution of a handler: whatever it does, an `Outcome` comes of it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from onward.codec import encode, printable, typed
from onward.context import Context, RunSync
from onward.decide import Failed, Outcome, Returned, Undone, Unreadable
from onward.errors import InvalidData, LeaseLost, Misuse, RetryAfter, RolledBack, Unrecoverable
from onward.flow import Flow, Stage
from onward.observe import Seldom
from onward.ports import Store
from onward.process import Record
from onward.secret import Hider

logger = logging.getLogger("onward")


@dataclass(slots=True)
class Tools:
    """What an attempt works with. `run_sync` runs a function in a thread; `monotonic` is the clock's."""

    store: Store
    resources: dict[str, Any]  # by the flow's name
    run_sync: RunSync
    monotonic: Callable[[], float]
    seldom: Seldom
    context: type[Context] = Context


async def run_attempt(flow: Flow[Any], record: Record, tools: Tools) -> Outcome:
    """Gives the handler a private copy of the process and judges what it did. Raises LeaseLost, or when cancelled.

    A transaction that the handler has begun is open after it only if the outcome is Returned, to be committed with that.
    """
    line = flow.stages[record.status]
    assert line is not None
    began = tools.monotonic()
    process = record.process
    if process is None:
        try:
            process = typed(flow, record)
        except InvalidData as error:
            return Unreadable(str(error))
    record.process = None  # the copy is the handler's now; another attempt gets another
    context = None
    if line.takes_context:
        resources = tools.resources.get(flow.name)
        context = tools.context(flow, record, process, tools.store, resources, tools.run_sync, tools.seldom)
    try:
        status = await _call(line, record, process, context, tools)
        data, copy = _judge(flow, line, record, process, status)
        transaction = None if context is None else context.to_commit()
    except GeneratorExit:  # nobody waits for it any more
        raise
    except BaseException as error:  # also SystemExit: a handler ends its attempt, never its worker
        if context is not None:
            await context.give_up()
        if isinstance(error, LeaseLost):
            raise
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return Failed("CancelledError: something that the handler awaited was cancelled", tools.monotonic() - began)
        verdict = error if context is None or context.verdict is None else context.verdict
        hide = Hider(flow.model)
        hide.learn(record.data)
        hide.learn_from(process)
        return _failed(record, verdict, tools.monotonic() - began, hide)
    return Returned(status._value_, data, copy, tools.monotonic() - began, transaction)


async def _call(line: Stage[Any], record: Record, process: Any, context: Context | None, tools: Tools) -> Any:
    arguments = (process,) if context is None else (process, context)
    if not line.is_async:
        async with _limited(line, record):
            return await tools.run_sync(functools.partial(line.handler, *arguments))
    work = cast(Coroutine[Any, Any, Any], line.handler(*arguments))
    try:
        awaited = work.send(None)
    except StopIteration as done:
        return done.value  # it never waited, as short handlers do: a timer would have cost more than the handler
    async with _limited(line, record):
        return await _Begun(work, awaited)


@asynccontextmanager
async def _limited(line: Stage[Any], record: Record) -> AsyncIterator[None]:
    """Cuts the attempt off at its timeout, or at the stage's deadline."""
    limit = line.limit_s
    if line.within is not None:
        limit = min(limit, (line.within - (record.as_of - record.entered_at)).total_seconds())
    clock = asyncio.timeout(limit)
    try:
        async with clock:
            yield
    except TimeoutError:
        if clock.expired():
            raise TimeoutError(f"{line.name} took longer than {limit:g} s and was cut off") from None
        raise


class _Begun:
    """Awaits a coroutine that was begun already and now waits for `awaited`: what `yield from` would do from there."""

    def __init__(self, work: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._work, self._awaited = work, awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        work, awaited = self._work, self._awaited
        try:
            while True:
                try:
                    sent = yield awaited
                except BaseException as error:
                    awaited = work.throw(error)
                else:
                    awaited = work.send(sent)
        except StopIteration as done:
            return done.value


def _judge(flow: Flow[Any], line: Stage[Any], record: Record, process: Any, status: Any) -> tuple[str, Any]:
    if not isinstance(status, flow.status_type) or status._value_ not in line.targets:
        if inspect.iscoroutine(status):
            status.close()
            raise Misuse(f"{line.name} returned a coroutine: write it as `async def`")
        declared = ", ".join(sorted(line.targets))
        raise Misuse(
            f"{line.name} returned {printable(repr(status), 80)}, which its annotation does not declare; declared: {declared}"
        )
    if process.status != record.status and process.status != status:
        raise Misuse(f"{line.name} set process.status to {process.status!r} but returned {status!r}: only return it")
    if process.id != record.id:
        raise Misuse(f"{line.name} changed the id to {printable(repr(process.id), 80)}: a process keeps its id for ever")
    return encode(flow, process, record.id, status._value_)


def _failed(record: Record, error: BaseException, took: float, hide: Hider) -> Failed | Undone:
    said = _said(error)
    text = _text(said, hide)
    if isinstance(said, RolledBack):
        logger.warning("%s %s: %s", record.id, record.status, text)
        return Failed(text, took) if said.fault else Undone(text, took)
    if isinstance(said, RetryAfter):
        return Failed(text, took, delay=said.delay)
    if isinstance(said, Unrecoverable | Misuse | InvalidData):
        return Failed(text, took, permanent=True)
    _log_failure(record, error, hide)
    return Failed(text, took)


def _log_failure(record: Record, error: BaseException, hide: Hider) -> None:
    """With its traceback; as text where a secret stands in that, for what a logger makes of an exception is not ours."""
    told = "".join(traceback.format_exception(error)) if hide.knows_any else ""
    safe = hide(told)
    if safe == told:
        logger.warning("%s %s: attempt %d failed", record.id, record.status, record.attempt, exc_info=error)
    else:
        logger.warning("%s %s: attempt %d failed\n%s", record.id, record.status, record.attempt, safe.rstrip())


def _said(error: BaseException) -> BaseException:
    """What the handler raised to steer the engine, also where a TaskGroup has wrapped it up; else the error itself."""
    if isinstance(error, BaseExceptionGroup):
        parts = [_said(part) for part in error.exceptions]
        for kind in (RolledBack, Unrecoverable, RetryAfter):
            for part in parts:
                if isinstance(part, kind):
                    return part
    return error


def _text(error: BaseException, hide: Hider) -> str:
    """The error for people, with the place in the user's code; it can be recorded, whatever is in it."""
    try:
        said = hide(str(error))
    except Exception:  # its __str__ is the user's code as well
        said = "(its text cannot be read)"
    if isinstance(error, Misuse | InvalidData | RetryAfter | RolledBack):
        return printable(said)
    frames = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({frame.filename.rpartition('/')[2]}:{frame.lineno} in {frame.name})" for frame in frames)
    if isinstance(error, BaseExceptionGroup):  # as of a TaskGroup: by itself it says nothing of the cause
        place += f"; the first of them: {_text(error.exceptions[0], hide)}"
    return printable(f"{type(error).__name__}: {said}{place}" if said else f"{type(error).__name__}{place}")
