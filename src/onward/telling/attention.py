"""What needs a person: failures by their kind, and what stands still without having failed. One sentence each, and what to type.

Whether something needs a person is decided apart from reading, and by the instant at which the store was read.
"""

from __future__ import annotations

import asyncio
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from onward.control import PAGE_MAX, Control
from onward.explain import LATE, length
from onward.flow import JITTER, Flow, Stage
from onward.ports import Count, Lease
from onward.process import Condition, Record
from onward.query import Term, exactly
from onward.telling.failures import Group, grouped, stage_query
from onward.telling.text import one_line
from onward.telling.usual import Usual, usual_times

FAILURES_MAX = 10_000  # the newest ones are grouped; then it says that there are more
PAUSED_MAX = 1_000  # the newest ones are looked at
SHOWN_MAX = 10  # ids that an item names
LOOKS_MAX = 10_000  # rows that are looked at to find them
PAUSED_LONG = timedelta(days=1)  # who pauses something for longer may have forgotten it
STUCK_MIN = timedelta(minutes=1)  # nobody has to look at anything sooner, however fast it usually is
USUAL_TIMES = 2  # longer than so many times what is usual: one in a hundred is a little slower than that, and all right
DOUBLINGS_MAX = 64  # of a pause: by then it is as long as it gets
MOVING = (Condition.READY, Condition.RUNNING, Condition.WAITING)  # retrying says itself what is wrong, and ends by itself


@dataclass(frozen=True)
class Item:
    """Something that a person should look at. `query` finds it, where processes are meant; `ids` are some of them."""

    kind: str  # nobody, stuck, orphaned, lease, paused
    sentence: str
    command: str
    number: int
    flow: str = ""
    status: str = ""
    query: str = ""
    since: datetime | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attention:
    """`as_of` None: there is no process at all. `failures` are in the `groups`; `more_failures`: there are older ones."""

    as_of: datetime | None
    groups: Sequence[Group] = ()
    failures: int = 0
    more_failures: bool = False
    items: Sequence[Item] = ()


async def attention(app: Control, counts: Sequence[Count]) -> Attention:
    """`counts` are those of the app: they are costly to read, and whoever asks may have them at hand."""
    as_of = await now(app)
    if as_of is None:
        return Attention(None)
    failed, more = await _failed(app)
    # In a thread: ten thousand errors of many kinds take half a second, and workers may live in this event loop.
    groups = await asyncio.to_thread(grouped, failed)
    leases = await app.store.leases()
    nobody = nobody_works(await late(app), leases, as_of)
    items = [
        *(nobody or await _stuck(app, counts, as_of)),  # without a worker everything stands still, and it is clear why
        *orphaned(counts, app.flows),
        *dead_leases(leases, as_of),
        *paused(await app.find("is:paused", limit=PAUSED_MAX, light=True), as_of),
    ]
    return Attention(as_of, groups, len(failed), more, items)


# -- reading ------------------------------------------------------------------------------------------------------


async def now(app: Control) -> datetime | None:
    """The store's own time, as a row tells it. None where there is no row."""
    newest = await app.find(limit=1, light=True)
    return newest[0].as_of if newest else None


async def _failed(app: Control) -> tuple[list[Record], bool]:
    found: list[Record] = []
    while len(found) < FAILURES_MAX:
        page = await app.find("is:failed", before=found[-1].id if found else "", limit=PAGE_MAX, light=True)
        found += page
        if len(page) < PAGE_MAX:
            return found, False
    return found, True


async def late(app: Control) -> timedelta | None:
    """For how long the first one that this code can move has waited for a worker."""
    due = await app.store.next_due([pair for flow in (*app.flows.values(), *app.own.values()) for pair in flow.handled])
    return None if due is None else -due


async def _stuck(app: Control, counts: Iterable[Count], as_of: datetime) -> list[Item]:
    usual: dict[str, Mapping[str, Usual]] = {}
    items = []
    for (flow_name, status), oldest in oldest_moving(counts).items():
        flow = app.flows.get(flow_name) or app.own.get(flow_name)
        line = flow.stages.get(status) if flow is not None else None
        if flow is None or line is None or as_of - oldest <= STUCK_MIN:
            continue
        if flow_name not in usual:
            usual[flow_name] = await usual_times(app, flow)
        limit = limit_of(line, usual[flow_name].get(status))
        if limit is None or as_of - oldest <= limit.after:
            continue
        longer = Term("in", (f">{limit.after.total_seconds():.0f}s",))
        query = stage_query(flow_name, status, Term("is", tuple(MOVING)), longer)
        found = await app.find(query, limit=SHOWN_MAX + 1, light=True, looks=LOOKS_MAX) if query else []
        items.append(stuck(flow_name, status, limit, as_of - oldest, query, found))
    return items


# -- deciding -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limit:
    """A process that is in its stage for longer than `after` is stuck; `why` is what makes it so."""

    after: timedelta
    why: str


def limit_of(line: Stage[Any], usual: Usual | None) -> Limit | None:
    """The shorter of what the table allows and what is usual. None: a poll without a deadline, of which little is known."""
    limits = [declared(line)]
    if usual is not None:
        about = f"no longer than {length(usual.most)}" if usual.most >= STUCK_MIN else f"less than {length(STUCK_MIN)}"
        limits.append(Limit(max(usual.most * USUAL_TIMES, STUCK_MIN), f"usually it takes {about}"))
    return min((limit for limit in limits if limit is not None), key=lambda limit: limit.after, default=None)


def declared(line: Stage[Any]) -> Limit | None:
    """The deadline of the stage; without one all attempts and the pauses between them, unless it polls."""
    if line.within is not None:
        return Limit(line.within + LATE, f"its deadline is {length(line.within)}")
    if line.every is not None:
        return None
    retry = line.retry
    doubled = sum(min(retry.first * 2.0**pause, retry.longest) for pause in range(min(retry.attempts - 1, DOUBLINGS_MAX)))
    rest = max(0, retry.attempts - 1 - DOUBLINGS_MAX) * retry.longest
    most = line.timeout * retry.attempts + timedelta(seconds=(doubled + rest) * (1 + JITTER))
    return Limit(most, f"all its attempts together take {length(most)} at the most")


def oldest_moving(counts: Iterable[Count]) -> dict[tuple[str, str], datetime]:
    """When that process entered its stage which has been there the longest, of those that move by themselves."""
    oldest: dict[tuple[str, str], datetime] = {}
    for count in counts:
        if count.condition in MOVING:
            key = count.flow, count.status
            oldest[key] = min(count.oldest, oldest.get(key, count.oldest))
    return oldest


def stuck(flow: str, status: str, limit: Limit, longest: timedelta, query: str, found: Sequence[Record]) -> Item:
    """`found` are some of them, one more than can be named if there are more; they may have moved on since."""
    many = len(found) > SHOWN_MAX
    number = max(1, min(len(found), SHOWN_MAX))
    who = f"{'More than ' if many else ''}{processes(number)} of {one_line(flow)}"
    return Item(
        "stuck",
        f"{who} {'stand' if number > 1 else 'stands'} at {one_line(status)} for up to {length(longest)}; {limit.why}.",
        _explain_or_list(found, query),
        number,
        flow,
        status,
        query,
        min((record.entered_at for record in found), default=None),
        _ids(found),
    )


def orphaned(counts: Iterable[Count], flows: Mapping[str, Flow[Any]]) -> list[Item]:
    """By flow and status, whatever condition they were in."""
    numbers: dict[tuple[str, str], int] = defaultdict(int)
    since: dict[tuple[str, str], datetime] = {}
    for count in counts:
        if count.condition is Condition.ORPHANED:
            key = count.flow, count.status
            numbers[key] += count.number
            since[key] = min(count.oldest, since.get(key, count.oldest))
    items = []
    for (flow, status), number in sorted(numbers.items(), key=lambda one: -one[1]):
        at = one_line(status)
        why = f"the flow {one_line(flow)} has no status {at}" if flow in flows else f"this code has no flow {one_line(flow)}"
        query = stage_query(flow, status, Term("is", (Condition.ORPHANED,)))
        items.append(
            Item(
                "orphaned",
                f"{processes(number)} at {at}: {why}, so nobody touches {'it' if number == 1 else 'them'}"
                " until a worker comes that knows it.",
                f"onward ls {shlex.quote(query)}",
                number,
                flow,
                status,
                query,
                since[flow, status],
            )
        )
    return items


def dead_leases(leases: Iterable[Lease], as_of: datetime) -> list[Item]:
    """Leases that ran out and that nobody has taken over: whoever held them died, and no worker is free."""
    held: dict[str, list[Lease]] = defaultdict(list)
    for lease in leases:
        if as_of - lease.until > LATE:
            held[lease.owner].append(lease)
    items = []
    for owner, parts in sorted(held.items()):
        number = sum(lease.number for lease in parts)
        until = max(lease.until for lease in parts)
        items.append(
            Item(
                "lease",
                f"{processes(number)} still in the hands of {one_line(owner)}, whose lease ended {length(as_of - until)} ago:"
                " the next free worker takes over.",
                "onward run",
                number,
                query=str(exactly("worker", owner)),
                since=until,
            )
        )
    return items


def nobody_works(late: timedelta | None, leases: Iterable[Lease], as_of: datetime) -> list[Item]:
    """Something is due, and no worker is alive that has anything: there seems to be none."""
    if late is None or late <= LATE or any(lease.until > as_of for lease in leases):
        return []
    sentence = f"Nothing will move: something has been due for {length(late)}, and no worker took it."
    return [Item("nobody", sentence, "onward run", 1, query="is:ready", since=as_of - late)]


def paused(records: Iterable[Record], as_of: datetime) -> list[Item]:
    """By flow and status: what a person paused for so long that it may have been forgotten."""
    stages: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if as_of - record.updated_at > PAUSED_LONG:
            stages[record.flow, record.status].append(record)
    items = []
    for (flow, status), found in sorted(stages.items(), key=lambda one: -len(one[1])):
        query = stage_query(flow, status, Term("is", (Condition.PAUSED,)), Term("updated", (f">{PAUSED_LONG.days}d",)))
        since = min(record.updated_at for record in found)
        items.append(
            Item(
                "paused",
                f"{processes(len(found))} of {one_line(flow)} paused at {one_line(status)} for up to {length(as_of - since)}.",
                f"onward resume --query {shlex.quote(query)}",
                len(found),
                flow,
                status,
                query,
                since,
                _ids(found),
            )
        )
    return items


# -- words --------------------------------------------------------------------------------------------------------


def processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number:,} processes"


def _ids(found: Sequence[Record]) -> tuple[str, ...]:
    return tuple(record.id for record in found[:SHOWN_MAX])


def _explain_or_list(found: Sequence[Record], query: str) -> str:
    return f"onward explain {shlex.quote(found[0].id)}" if len(found) == 1 else f"onward ls {shlex.quote(query)}"
