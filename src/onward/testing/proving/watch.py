"""The worker of a proof: the real one, with an eye on each step of a handler and on each call to the store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any

from onward.context import MAP_LIMIT, Context, called
from onward.decide import Outcome
from onward.errors import StoreError
from onward.ports import Store
from onward.process import Record
from onward.testing.between import Call, between
from onward.testing.proving import points
from onward.testing.proving.effects import Act
from onward.testing.proving.scene import Where, scene, where
from onward.testing.world import VirtualWorker

_map: ContextVar[str] = ContextVar("map", default="")
_LOOKING = frozenset({"wait_for_change", "next_due", "taken_away"})  # they change nothing, and the worker asks all the time


class WatchedContext(Context):
    """The real one; the name of an act is known where the act is run."""

    async def map(self, fn: Any, items: Any, *, limit: int = MAP_LIMIT, name: str | None = None) -> list[Any]:
        token = _map.set(name or called(fn))
        try:
            return await super().map(fn, items, limit=limit, name=name)
        finally:
            _map.reset(token)

    async def once(self, name: str, fn: Any, *args: Any) -> Any:
        now = where.get()
        keyed = any(isinstance(value, str) and self.key in value for value in args)
        place = _map.get()
        act = Act(now.handler, self.record.transition, name, place or name, keyed)
        what = f"ctx.map {name!r}" if place else f"ctx.once {name!r}"
        token = where.set(Where(now.handler, now.attempt, act, what))
        try:
            return await super().once(name, fn, *args)
        finally:
            where.reset(token)

    async def _call(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        now = where.get()
        assert now.act is not None
        await scene().at(points.BEFORE_ACT, now.place, now.act.place)
        scene().acting(now.act)
        result = await super()._call(fn, args)
        scene().acted(now.act)
        return result


class WatchedWorker(VirtualWorker):
    async def _equip(self, equipment: AsyncExitStack, flows: Any) -> None:
        await super()._equip(equipment, flows)
        self._tools.context = WatchedContext

    async def _attempt(self, record: Record) -> Outcome:
        line = self._flows[record.flow].stages[record.status]
        assert line is not None
        where.set(Where(line.name, record.attempt))
        await scene().at(points.BEFORE_HANDLER)
        scene().began(record)
        return await super()._attempt(record)


def watched(store: Store) -> Store:
    """The store as a worker of a proof sees it: around each call something can happen."""
    return between(store, _before, _after)


async def _before(call: Call) -> None:
    what, place, before, _ = _moments(call)
    if before is not None and await scene().at(before, what, place) is not None:
        raise StoreError("the store cannot be reached, as the proof wants it")


async def _after(call: Call) -> None:
    what, place, _, after = _moments(call)
    if after is not None and await scene().at(after, what, place) is not None:
        raise StoreError("the answer of the store is lost, as the proof wants it")


def _moments(call: Call) -> tuple[str, str, points.Moment | None, points.Moment | None]:
    """What is done, its place, and the two kinds of point around it."""
    now = where.get()
    match call.verb:
        case "record_step" if now.act is not None:
            return now.place, now.act.place, points.BEFORE_RECORD, points.AFTER_RECORD
        case "commit" if call.arguments[1].kind == "saved":
            return "ctx.save", "ctx.save", points.BEFORE_SAVE, points.AFTER_SAVE
        case "commit":
            return "", "commit", points.BEFORE_COMMIT, points.AFTER_COMMIT
        case "begin":
            return "ctx.transaction", "ctx.transaction", points.BEFORE_CALL, points.AFTER_CALL
        case verb if verb in _LOOKING:
            return "", "", None, None
        case "steps":
            return "the store's steps", "steps", points.BEFORE_CALL, None
        case verb:
            return f"the store's {verb}", verb, points.BEFORE_CALL, points.AFTER_CALL
