"""A simulated program: all tasks that were begun in it can be killed, or stopped and let go on, at any of their steps.

A program that is killed runs no `finally` and no `except`: its tasks just never take another step. One that is stopped
takes none until it is let go on, and does not know that time has passed, like after SIGSTOP and SIGCONT.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
FINALLYS_MAX = 1_000  # of a task that is cleared away


class Killed(BaseException):
    """Raised where a task cannot be left as it is: in the middle of a function that awaits nothing."""


class Life:
    """`life.begin(coroutine)` begins a task in it; what that begins is in it as well."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self._gate: asyncio.Future[None] | None = None  # while it is stopped
        self._tasks: list[asyncio.Task[Any]] = []  # kept, so that those of a dead one are not cleared away while others live

    def __repr__(self) -> str:
        return f"Life({self.name})"

    @classmethod
    def current(cls) -> Life | None:
        """Whose step this is."""
        return _current.get()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        context = copy_context()
        context.run(_current.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    @property
    def is_stopped(self) -> bool:
        return self._gate is not None

    def kill(self) -> None:
        """Takes effect before the next step of each task; the one that calls this should await `never()` then."""
        self.is_dead = True

    def stop(self) -> None:
        if self._gate is None:
            self._gate = asyncio.get_running_loop().create_future()

    def go_on(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.set_result(None)

    def bury(self) -> None:
        """Clears away what is left of its tasks: to be called when what they could still do harms nobody."""
        context = copy_context()
        context.run(_current.set, self)  # what their `finally` begins is dead as well
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            body = task.get_coro()
            assert isinstance(body, _Mortal)
            context.run(body.close_quietly)
        self._tasks.clear()


async def never() -> None:
    """What a dead task awaits."""
    await asyncio.get_running_loop().create_future()


def make_mortal(loop: asyncio.AbstractEventLoop) -> None:
    """Has the tasks of this loop that belong to a life ask before each step whether it still goes on."""
    loop.set_task_factory(_factory)


def _factory(loop: asyncio.AbstractEventLoop, work: Any, **given: Any) -> asyncio.Task[Any]:
    context = given.get("context")
    life = _current.get() if context is None else context.get(_current)
    if life is None:
        return asyncio.Task(work, loop=loop, **given)
    task: asyncio.Task[Any] = asyncio.Task(_Mortal(life, work), loop=loop, **given)
    life._tasks.append(task)
    return task


class _Mortal(Coroutine[Any, Any, Any]):
    """A coroutine that goes on only while its life does."""

    def __init__(self, life: Life, work: Coroutine[Any, Any, Any]) -> None:
        self._life, self._work = life, work
        self._steps = self._step()

    def _step(self) -> Generator[Any, Any, Any]:
        """Yields what `work` yields, and what to wait for instead while its life is stopped, or for ever when it is over."""
        sent: Any = None
        error: BaseException | None = None
        while True:
            while self._life.is_dead or self._life._gate is not None:
                try:
                    yield from self._wait()
                except asyncio.CancelledError as cancelled:  # it will learn of it when it goes on
                    error = cancelled
            try:
                awaited = self._work.send(sent) if error is None else self._work.throw(error)
            except StopIteration as done:
                return done.value
            sent, error = None, None
            try:
                sent = yield awaited
            except GeneratorExit:
                raise
            except BaseException as thrown:
                error = thrown

    def _wait(self) -> Generator[Any, Any, Any]:
        if self._life.is_dead or self._life._gate is None:
            return (yield from asyncio.get_running_loop().create_future().__await__())
        return (yield from asyncio.shield(self._life._gate).__await__())

    def send(self, value: Any) -> Any:
        return self._steps.send(value)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        return self._steps.throw(kind if value is None else value)

    def close(self) -> None:
        self._steps.close()
        self._work.close()

    def close_quietly(self) -> None:
        """Whatever its `finally` does has no meaning any more; each of these may wait for something once more."""
        for _ in range(FINALLYS_MAX):
            try:
                self.close()
            except BaseException as error:
                if isinstance(error, RuntimeError) and "ignored GeneratorExit" in str(error):
                    continue
            return

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._steps


_current: ContextVar[Life | None] = ContextVar("life", default=None)
