"""Bulk: one verb for all processes that match a query. It is a process like any other, so it survives a restart, shows how far
it is, and can be paused and stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from typing import Any, Literal

from pydantic import BaseModel

from onward.actor import Actor, Role, refuse_unless_allowed
from onward.context import Context
from onward.control import Control
from onward.errors import Conflict, NotFound, OnwardError, Refused, StoreError
from onward.flow import END, Every, Flow, Retry, stage
from onward.process import Process, Record, new_id
from onward.query import nearest

FLOW = "onward_bulk"
PREFIX = "bulk-"  # of their ids: by that they are found among a million others
DESTRUCTIVE = frozenset({"cancel", "stop", "move", "delete"})  # what cannot be taken back
# A closed table, so that nothing that is stored can choose another method.
VERBS: dict[str, Callable[..., Awaitable[Record | None]]] = {
    "wake": Control.wake,
    "retry": Control.retry,
    "pause": Control.pause,
    "resume": Control.resume,
    "cancel": Control.cancel,
    "move": Control.move,
    "stop": Control.stop,
    "delete": Control.delete,
}
PREVIEW_MAX = 10_000  # processes that a preview looks at
IDS_MAX = 1_000  # processes chosen one by one; more are meant by a query
PAGE = 100  # processes of one look
PAUSE_S = 0.1  # between two looks: at most a thousand acts a second, so that workers are not crowded out
LOOKS_BACK = 20  # entries of a history, for an act that was done before a crash
REASON_MAX = 400  # characters, so that the mark of the bulk action stands behind it
REFUSALS_MAX = 100  # that are kept with their reasons; the others are counted
LOOKS = 10_000  # rows of the list that one look goes through


class Stage(StrEnum):
    ACTING = auto()
    DONE = auto()


class Refusal(BaseModel):
    """A process with which it was not done, and why."""

    id: str
    why: str


class Bulk(Process[Stage]):
    """`ids`, or all that match `query`. What has changed after `until` is passed over: nobody has seen it so."""

    status: Stage = Stage.ACTING
    verb: str
    query: str = ""
    ids: list[str] = []
    given: dict[str, Any] = {}  # what the verb takes beside: `to` and `force` of a move
    reason: str = ""
    actor: str
    role: Role
    via: str = ""
    until: datetime
    total: int
    after: str = ""  # where it goes on in the list
    next: str = ""  # and where after those that are
    under_way: list[str] = []  # with these it has begun: after a crash it asks each whether it was done
    done: int = 0
    refused: int = 0
    changed: int = 0
    refusals: list[Refusal] = []


@dataclass
class Preview:
    """What a bulk action would do. `until` is when it was looked at; None: nothing matches. `more`: than PREVIEW_MAX."""

    until: datetime | None = None
    total: int = 0
    more: bool = False
    fit: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by flow, status and condition
    refused: Counter[str] = field(default_factory=Counter)  # by the reason
    samples: dict[str, str] = field(default_factory=dict)  # one id for each reason


async def preview(
    control: Control,
    verb: str,
    *,
    query: str = "",
    ids: Sequence[str] = (),
    reason: str = "",
    actor: str | Actor = "",
    **given: Any,
) -> Preview:
    """Looks at what matches and changes nothing. Raises Forbidden, Refused, or QueryError."""
    _check(verb, query, ids, actor)
    seen = Preview()
    async for found in matching(control, query, ids):
        if seen.total == PREVIEW_MAX:
            seen.more = True
            break
        _count(seen, control, verb, found, reason, given)
    return seen


async def matching(control: Control, query: str, ids: Sequence[str]) -> AsyncIterator[Record | str]:
    """All that are meant, without data where a query means them. An id that names nothing comes as it is."""
    after, first = "", True
    while after or first:
        page, after = await _page(control, query, ids, after)
        first = False
        for found in page:
            yield found


def _count(seen: Preview, control: Control, verb: str, found: Record | str, reason: str, given: dict[str, Any]) -> None:
    seen.total += 1
    try:
        record = _existing(found)
        seen.until = seen.until or record.as_of
        control.planned(record, verb, reason=reason, **given)
        seen.fit[record.flow, record.status, str(record.condition)] += 1
    except OnwardError as error:
        id = _id(found)
        why = str(error).replace(id, "…")
        seen.refused[why] += 1
        seen.samples.setdefault(why, id)


async def begin(
    control: Control,
    verb: str,
    *,
    query: str = "",
    ids: Sequence[str] = (),
    most: int | None = None,
    until: datetime | None = None,
    reason: str = "",
    actor: str | Actor = "",
    **given: Any,
) -> Record:
    """Starts it; answers the record of the bulk process. What changed after `until` (None: now) is left alone.

    Raises Refused, and nothing was begun, if nothing matches or more than `most` do (None: as many as there are, but no more
    than PREVIEW_MAX where it is DESTRUCTIVE).
    """
    seen = await preview(control, verb, query=query, ids=ids, reason=reason, actor=actor, **given)
    if seen.until is None or not seen.fit:
        why = next(iter(seen.refused), "no process matches")
        raise Refused(f"there is nothing to {verb}: {why}", hint="look at what matches: onward ls …")
    if most is None and verb in DESTRUCTIVE:
        most = PREVIEW_MAX
    if most is not None and (seen.more or seen.total > most):
        number = f"more than {PREVIEW_MAX:,}" if seen.more else f"{seen.total:,}"
        raise Refused(f"{number} processes match, and at most {most:,} were agreed to", hint="narrow the query, or agree to more")
    who = actor if isinstance(actor, Actor) else Actor(actor or "a program")
    process = Bulk(
        id=PREFIX + new_id(),
        verb=verb, query=query, ids=list(ids), given=given, reason=reason, actor=who.name, role=who.role, via=who.via,
        until=min(until or seen.until, seen.until), total=seen.total,
    )  # fmt: skip
    return await control.start(process, actor=str(actor))


def flow(control: Control) -> Flow[Stage]:
    """The flow of bulk actions on what `control` knows."""

    async def act(bulk: Bulk, ctx: Context) -> Literal[Stage.ACTING, Stage.DONE]:
        if bulk.under_way:  # an attempt was cut off in the midst of them
            page = [await _get(control, id) for id in bulk.under_way]
            for found in page:
                await _once(control, bulk, found)
        else:
            page, bulk.next = await _page(control, bulk.query, bulk.ids, bulk.after)
            bulk.under_way = [_id(found) for found in page]
            await ctx.save()
            for found in page:
                await _act_on(control, bulk, found)
        bulk.after = await _goes_on(control, bulk)
        bulk.under_way = []
        return Stage.ACTING if bulk.next else Stage.DONE

    acting = stage(act, every=Every(seconds=PAUSE_S), retry=Retry(attempts=20, first=0.5, longest=60))
    return Flow(Bulk, {Stage.ACTING: acting, Stage.DONE: END}, name=FLOW)


async def _once(control: Control, bulk: Bulk, found: Record | str) -> None:
    """Acts on it, unless that was done before the attempt was cut off. Then its history says so, or it is gone."""
    if isinstance(found, str):
        done = bulk.verb == "delete"
    else:
        entries = await control.history(found.id, after=found.version - LOOKS_BACK)
        done = any((entry.reason or "").endswith(_mark(bulk)) for entry in entries)
    if done:
        bulk.done += 1
    else:
        await _act_on(control, bulk, found)


async def _act_on(control: Control, bulk: Bulk, found: Record | str) -> None:
    """Counts what becomes of it."""
    id = _id(found)
    try:
        record = _existing(found)
        if record.updated_at > bulk.until:
            raise Conflict(f"{id} has changed since it was looked at")
        how: dict[str, Any] = {"reason": f"{bulk.reason[:REASON_MAX]} {_mark(bulk)}".strip(), **bulk.given}
        await VERBS[bulk.verb](control, id, version=record.version, actor=Actor(bulk.actor, bulk.role, bulk.via), **how)
        bulk.done += 1
    except Conflict:
        bulk.changed += 1
    except StoreError:
        raise  # not this one's fault: the whole look is tried again
    except OnwardError as error:
        bulk.refused += 1
        if len(bulk.refusals) < REFUSALS_MAX:
            bulk.refusals.append(Refusal(id=id, why=str(error)))


def _mark(bulk: Bulk) -> str:
    return f"(bulk {bulk.id})"


async def _goes_on(control: Control, bulk: Bulk) -> str:
    """Where the list goes on. After a row that was deleted it cannot: so after the last one that is still there, or from where
    it was, now without those.
    """
    if bulk.verb != "delete" or bulk.ids or not bulk.next:
        return bulk.next
    for id in (bulk.next, *reversed(bulk.under_way)):
        if not isinstance(await _get(control, id), str):
            return id
    return bulk.after


async def _page(control: Control, query: str, ids: Sequence[str], after: str) -> tuple[list[Record | str], str]:
    """The next ones, and where to go on after them: '' at the end. An id that names nothing stands there as it is."""
    if ids:
        begin = int(after or 0)
        part = ids[begin : begin + PAGE]
        return [await _get(control, id) for id in part], str(begin + PAGE) if begin + PAGE < len(ids) else ""
    found = await control.find(query, before=after, limit=PAGE, light=True, looks=LOOKS)
    further = found[-1].id if len(found) == PAGE else await control.past(after, LOOKS, query)
    return [record for record in found if record.flow != FLOW], further


async def _get(control: Control, id: str) -> Record | str:
    try:
        return await control.get(id)
    except NotFound:
        return id


def _id(found: Record | str) -> str:
    return found if isinstance(found, str) else found.id


def _existing(found: Record | str) -> Record:
    if isinstance(found, str):
        raise NotFound(f"there is no process {found}")
    return found


def _check(verb: str, query: str, ids: Sequence[str], actor: str | Actor) -> None:
    if verb not in VERBS:
        raise Refused(f"{verb!r} is nothing to do with many at once{nearest(verb, VERBS)}", hint=f"there are: {', '.join(VERBS)}")
    if bool(ids) == bool(query.strip()):
        raise Refused("a bulk action takes either a query or ids", hint="all of a flow: flow:NAME")
    if len(ids) > IDS_MAX:
        raise Refused(f"{len(ids):,} ids, the limit IDS_MAX is {IDS_MAX:,}", hint="say it by a query")
    refuse_unless_allowed(actor, verb)
