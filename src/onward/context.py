"""What a handler may ask of the engine while it runs: its key, its recorded sub-steps, a commit in mid-stage."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import json
import logging
import typing
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar, cast, overload

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from onward.codec import PAYLOAD_MAX, encode, printable
from onward.decide import Change, saved
from onward.errors import Fenced, InvalidData, LeaseLost, Misuse, RolledBack, StoreError
from onward.flow import Flow
from onward.observe import Seldom
from onward.ports import Store, Transaction
from onward.process import Record

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - an item

NAME_CHARS_MAX = 200  # of a sub-step
MAP_LIMIT = 8  # sub-steps of one `map` under way at once, where the caller does not say
DIGEST_CHARS = 12
STORE_PAUSE_FIRST_S, STORE_PAUSE_MAX_S = 0.05, 1.0  # between two tries while the store is in trouble

RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]


class Context:
    """Made anew for each attempt; worth nothing after it."""

    def __init__(
        self, flow: Flow[Any], record: Record, process: Any, store: Store, resources: Any, run_sync: RunSync, seldom: Seldom
    ) -> None:
        self.record = record
        self.resources = resources
        self._flow, self._process, self._store, self._run_sync, self._seldom = flow, process, store, run_sync, seldom
        self._steps: dict[str, str] | None = None
        self._lock = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._transaction: Transaction | None = None
        self._inside: bool | None = None  # the block of a transaction; None: there was none
        self._over = False
        self.verdict: RolledBack | Misuse | None = None  # on that transaction; a handler may catch it, but not do away with it

    @property
    def key(self) -> str:
        """The idempotency key: the same over all attempts of this visit to the stage, another for each new visit."""
        return self.record.key

    @property
    def attempt(self) -> int:
        """The number of this attempt in this visit, from 1. It only grows: attempts that ended with their worker count,
        and so do those before a "not yet" or before a person's retry. From 2 on, look for what was done before.
        """
        return self.record.attempt

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines name the process and its status; both are in its records too, as `process_id` and `status`."""
        return _ProcessLog(logging.getLogger("onward.flow"), {"process_id": self.record.id, "status": self.record.status})

    async def save(self) -> None:
        """Commits the data as it is now, in the middle of the stage: a crash after this finds it.

        Raises InvalidData if it does not fit the model, and ends the handler if the process was taken over.
        """
        self._refuse_inside("save")
        async with self._lock:
            record = self.record
            data, _ = encode(self._flow, self._process, record.id, record.status)
            await self._stored(lambda: self._commit(saved(record, data)))

    async def _commit(self, change: Change) -> None:
        commit = asyncio.ensure_future(self._store.commit(self.record, change))
        try:
            await asyncio.shield(commit)
        finally:  # also when the handler is cut off here: what is committed next has to stand on what this one left
            while not commit.done():
                try:
                    await asyncio.wait({commit})
                except asyncio.CancelledError:  # cut off twice; the first one is on its way already
                    continue
            if commit.exception() is None:
                self.record.version, self.record.data = commit.result().version, commit.result().data

    @overload
    async def once(self, name: str, fn: Callable[..., Awaitable[T]], *args: Any) -> T: ...
    @overload
    async def once(self, name: str, fn: Callable[..., T], *args: Any) -> T: ...
    async def once(self, name: str, fn: Callable[..., Any], *args: Any) -> Any:
        """The result of `fn(*args)`: run now and recorded, or read back if an earlier attempt of this visit recorded it.

        What is answered has been through JSON and the return annotation of `fn` in either case, so that the first run
        shows no more than a later one would. A crash between the act and its record runs `fn` again: give the receiver
        `ctx.key`, or make `fn` find what it has done before.
        """
        if not 0 < len(name) <= NAME_CHARS_MAX or printable(name) != name:
            raise ValueError(f"a sub-step's name has 1 to {NAME_CHARS_MAX} printable characters, not {printable(name, 40)!r}")
        self._refuse_inside("once")
        steps = await self._recorded()
        async with self._turns[name]:  # of two at the same time one runs it, the other one reads it back
            if name not in steps:
                result = await self._call(fn, args)
                text = self._as_json(name, result)
                await self._stored(lambda: self._store.record_step(self.record, name, text))
                steps[name] = text
        return _read_back(fn, name, steps[name])

    @overload
    async def map(
        self, fn: Callable[[I], Awaitable[T]], items: Iterable[I], *, limit: int = MAP_LIMIT, name: str | None = None
    ) -> list[T]: ...
    @overload
    async def map(
        self, fn: Callable[[I], T], items: Iterable[I], *, limit: int = MAP_LIMIT, name: str | None = None
    ) -> list[T]: ...
    async def map(
        self, fn: Callable[[Any], Any], items: Iterable[Any], *, limit: int = MAP_LIMIT, name: str | None = None
    ) -> list[Any]:
        """`once` for each item, at most `limit` at a time; the results in the order of the items.

        A record belongs to the item's content, not to its place, so the order may change between attempts. `name`
        (default: the function's) tells two maps of one stage apart. If some fail, those under way are waited for and
        recorded, no new ones begin, and the first error is raised.
        """
        self._refuse_inside("map")
        if limit < 1:
            raise ValueError(f"limit={limit}: at least 1")
        prefix, seen = name or called(fn), Counter[str]()
        named = []
        for item in items:
            label = _label(item)
            seen[label] += 1
            named.append((prefix + (f"#{seen[label]}" if seen[label] > 1 else "") + f":{label}", item))
        slots, failed = asyncio.Semaphore(limit), False

        async def one(step: str, item: Any) -> Any:
            nonlocal failed
            async with slots:
                if failed:
                    raise asyncio.CancelledError
                try:
                    return await self.once(step, fn, item)
                except (SystemExit, KeyboardInterrupt) as error:  # in a task of its own it would end the whole worker
                    failed = True
                    raise RuntimeError(f"{type(error).__name__} in sub-step {step!r}") from error
                except BaseException:
                    failed = True
                    raise

        results = await asyncio.gather(*(one(step, item) for step, item in named), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, asyncio.CancelledError)):
            raise failure  # what failed, before what was not begun because of it
        return results

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """`async with ctx.transaction() as conn:` what `conn` writes is committed in one with the transition, or not at all.

        `conn` is the driver's own connection to the database of the store (sqlite3.Connection, asyncpg.Connection). The
        transaction goes on after the block, and commits with the status that the handler then returns. An exception that
        leaves the block rolls it back, and so does all that ends the attempt in another way. One for an attempt, in `async`
        handlers only; `save`, `once` and `map` come before it. On SQLite all other writers wait meanwhile, so be quick.
        """
        line = self._flow.stages[self.record.status]
        if line is None or not line.is_async:
            raise Misuse("ctx.transaction() is for asynchronous handlers: write this one as `async def`")
        return self._in_transaction()

    @asynccontextmanager
    async def _in_transaction(self) -> AsyncIterator[Any]:
        if self._inside is not None:
            raise Misuse("began a second transaction: an attempt has one, which commits with its transition")
        if self._lock.locked() or any(turn.locked() for turn in self._turns.values()):
            raise Misuse("began its transaction while ctx.save, ctx.once or ctx.map is under way: await that first")
        self._inside = True
        try:
            self._transaction = transaction = await self._stored(lambda: self._store.begin(self.record))
            if self._over:  # a task that the handler left behind
                raise Misuse("began its transaction after its attempt was over")
            try:
                yield transaction.connection
                transaction.check()
            except Exception as error:
                transaction.check(error)
                raise
        except GeneratorExit:  # nobody waits for it any more
            raise
        except BaseException as error:
            if isinstance(error, RolledBack | Misuse):
                self.verdict = error
            await self._roll_back()
            raise
        finally:
            self._inside = False

    def to_commit(self) -> Transaction | None:
        """The handler's transaction, if it is to be committed with what the handler has returned. Raises why it cannot be."""
        self._over = True
        if self._inside:
            raise Misuse("returned before the block of its transaction had ended")
        if self.verdict is not None:
            raise self.verdict
        if self._transaction is not None:
            self._transaction.check()
        return self._transaction

    async def give_up(self) -> None:
        """The attempt came to nothing: its transaction is ended, though a task that the handler left behind may still use it."""
        self._over = True
        await self._roll_back()

    async def _roll_back(self) -> None:
        if self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            await transaction.rollback()

    def _refuse_inside(self, verb: str) -> None:
        if self._transaction is not None:
            raise Misuse(f"called ctx.{verb} in its transaction, which commits with its transition: call it before that")

    async def _recorded(self) -> dict[str, str]:
        async with self._lock:
            if self._steps is None:
                self._steps = await self._stored(lambda: self._store.steps(self.record.id, self.record.transition))
            return self._steps

    async def _call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if inspect.iscoroutinefunction(fn):
            return await fn(*args)
        result = await self._run_sync(functools.partial(fn, *args))
        return await result if inspect.isawaitable(result) else result

    def _as_json(self, name: str, result: Any) -> str:
        try:
            text = to_json(result, inf_nan_mode="constants").decode()
            json.loads(text, parse_constant=_no_constant)
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            raise InvalidData(
                f"the result of sub-step {name!r} cannot be kept as JSON: {printable(str(error))}",
                hint="let it return plain values, like the id of what it made",
            ) from None
        if len(text) > PAYLOAD_MAX:
            raise InvalidData(
                f"the result of sub-step {name!r} is {len(text):,} characters, the limit PAYLOAD_MAX is {PAYLOAD_MAX:,}"
            )
        return text

    async def _stored(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the store answers. Its trouble is not the process's fault: we wait, for as long as the attempt may last."""
        pause = STORE_PAUSE_FIRST_S
        while True:
            try:
                return await ask()
            except Fenced as error:
                raise LeaseLost(str(error)) from None
            except StoreError as error:
                self._seldom.warning("%s: its handler waits for the store: %s", self.record.id, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, STORE_PAUSE_MAX_S)


class _ProcessLog(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        bound = cast(Mapping[str, Any], self.extra)
        kwargs["extra"] = {**bound, **(kwargs.get("extra") or {})}
        return f"{bound['process_id']} {bound['status']}: {msg}", kwargs


def called(fn: Callable[..., Any]) -> str:
    function = fn.func if isinstance(fn, functools.partial) else fn
    return str(getattr(function, "__name__", type(function).__name__))


def _label(item: Any) -> str:
    if isinstance(item, str) and len(item) <= NAME_CHARS_MAX // 2 and printable(item) == item:
        return item
    try:
        content = to_json(item, fallback=repr)
    except (PydanticSerializationError, ValueError, RecursionError):  # as a file name with bytes that are no text
        content = repr(item).encode("utf-8", "backslashreplace")
    return hashlib.sha256(content).hexdigest()[:DIGEST_CHARS]


def _no_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _read_back(fn: Callable[..., Any], name: str, text: str) -> Any:
    function = fn.func if isinstance(fn, functools.partial) else fn
    try:
        returns = typing.get_type_hints(function).get("return", Any)
    except (NameError, AttributeError, TypeError):  # annotations that cannot be read here: plain JSON values then
        returns = Any
    try:
        return _adapter(returns).validate_json(text)
    except ValidationError as error:
        raise InvalidData(
            f"the recorded result of sub-step {name!r} does not fit its function's annotation: {printable(str(error))}"
        ) from None


@functools.lru_cache(maxsize=256)
def _adapter(returns: Any) -> TypeAdapter[Any]:
    return TypeAdapter(returns)
