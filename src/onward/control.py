"""Everything that a person or another program may do to a process. App, command line and panel are its faces.

Each action is compare-and-set on the version that was seen, stands in the history with who and why, and answers truthfully.
"""

from __future__ import annotations

import asyncio
import getpass
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from onward import decide
from onward.actor import NEEDS, Actor, refuse_unless_allowed
from onward.codec import decode, encode, named, printable, typed, upgraded
from onward.decide import Change
from onward.errors import Conflict, InvalidData, NotFound, OnwardError, Refused
from onward.explain import explain
from onward.flow import Duration, Flow, in_seconds
from onward.intake import read
from onward.ports import Count, NewProcess, Search, Store
from onward.process import ID_CHARS_MAX, OVER, Condition, Entry, Process, Record
from onward.process import new_id as make_id
from onward.query import Term, beginning, exactly, nearest, parse
from onward.secret import masked

P = TypeVar("P", bound=Process[Any])

START_MAX = 500  # processes of one insert; `start_many` takes any number, in portions
REASON_CHARS_MAX = 500  # of who and why: people read them in one line of a table
ACT_TRIES = 20  # of an action on a process that moves on between each look and the act
PAGE_MAX = 1_000  # rows of one `find` or `history`
SHARED_MAX = 200  # names that `shared` answers
_OUTSIDE = re.compile(r"(?=\S*\d)[^\s\"'<>{}]{5,200}")


class Control:
    """The verbs. Where one takes `version`, it is the version you saw: if the process has moved on, Conflict."""

    def __init__(self, flows: Iterable[Flow[Any]], store: Store) -> None:
        self.store = store
        self.flows: dict[str, Flow[Any]] = {}
        self._by_model: dict[type, Flow[Any]] = {}
        for flow in flows:
            if flow.name in self.flows or flow.model in self._by_model:
                raise OnwardError(
                    f"two flows are called {flow.name!r}, or share the model {flow.model.__name__}",
                    hint="give one a name=",
                )
            self.flows[flow.name] = self._by_model[flow.model] = flow
        self.own: dict[str, Flow[Any]] = {}  # of the house: workers drive them, and nobody has to name them

    def add_own(self, flow: Flow[Any]) -> None:
        """A flow of the house, beside those of the user."""
        self.own[flow.name] = self._by_model[flow.model] = flow

    def flow_of(self, record: Record) -> Flow[Any] | None:
        """None where the code at hand has no such flow."""
        return self._by_name(record.flow)

    def _by_name(self, name: str) -> Flow[Any] | None:
        return self.flows.get(name) or self.own.get(name)

    # -- starting ---------------------------------------------------------------------------------------------

    async def start(self, process: Process[Any], *, actor: str | Actor = "", connection: Any = None) -> Record:
        """Makes the row; a worker goes on from there. With an id that exists and the same input it answers the existing
        process, with other input it raises Conflict. Raises InvalidData for data that could not be read back.

        With a `connection` of yours to the database of the store it is done in your transaction: the process exists exactly
        if you commit that. It needs no `async with app:`. A connection of asyncpg, psycopg or sqlite3, in a transaction;
        a synchronous one is used in the calling thread.
        """
        [record] = await self.start_many([process], actor=actor, connection=connection)
        return record

    async def start_many(
        self, processes: Iterable[Process[Any]], *, actor: str | Actor = "", connection: Any = None
    ) -> list[Record]:
        """`start` for many, in portions: each portion is one transaction, so after an error some may have been started.

        With a `connection` of yours, all of them are in your transaction.
        """
        refuse_unless_allowed(actor, "start")
        kind = "started by hand" if isinstance(actor, Actor) else "started"
        rows = [replace(self._new(process), kind=kind) for process in processes]
        records = []
        for begin in range(0, len(rows), START_MAX):
            portion = rows[begin : begin + START_MAX]
            fresh = await self.store.insert(portion, _who(actor), connection)
            for row, new in zip(portion, fresh, strict=True):
                if not new:
                    await self._same_input(row, connection)
            records += [self._seen(await self._row(row.id, connection)) for row in portion]
        return records

    def make(self, flow: str, values: Mapping[str, Any], id: str | None = None) -> Process[Any]:
        """A process of that flow, at its start, of JSON values; it is not started yet. InvalidData, or NotFound for the flow."""
        known = self.flows.get(flow)
        if known is None:
            raise NotFound(
                f"this app has no flow {printable(flow, 80)!r}{nearest(flow, self.flows)}",
                hint=f"it has: {', '.join(self.flows) or 'none'}",
            )
        process: Process[Any] = read(known, values, make_id() if id is None else id, known.start)
        return process

    def _new(self, process: Process[Any]) -> NewProcess:
        flow = self._by_model.get(type(process))
        if flow is None:
            known = ", ".join(sorted(flow.model.__name__ for flow in self.flows.values())) or "none"
            raise NotFound(f"this app has no flow for {type(process).__name__}; it has flows for: {known}")
        if printable(process.id, ID_CHARS_MAX) != process.id or not process.id.strip() or "\n" in process.id:
            raise InvalidData(
                f"the id {printable(process.id, 40)!r} is empty, longer than {ID_CHARS_MAX} characters or not printable"
            )
        try:
            status = flow.status_type(process.status)
        except ValueError:
            raise InvalidData(f"{flow.name} {process.id}: its status {process.status!r} is none of its flow") from None
        if flow.is_end(status.value):
            raise InvalidData(
                f"{flow.name} {process.id}: started at its end, status {status.value!r}, it would be over before it began"
            )
        data, _ = encode(flow, process, process.id, status.value)
        return NewProcess(process.id, flow.name, status.value, data, data_version=flow.version)

    async def _same_input(self, row: NewProcess, connection: Any) -> None:
        entries = await self.store.history(row.id, limit=1, connection=connection)
        record = await self._row(row.id, connection)
        if not entries or entries[0].version:
            raise Conflict(
                f"process {row.id} exists already; with what input it was started is no longer in its history, which was pruned",
                hint=f"use another id, or look at it: onward show {row.id}",
            )
        first, flow = entries[0], self._by_name(row.flow)
        same = record.flow == row.flow and flow is not None and flow.today(first.to_status) == row.status
        if same and flow is not None and first.data != row.data:
            # As the model of today reads it: a new field with a default is no other input, nor is what only had to be upgraded.
            try:
                data = upgraded(flow, row.id, first.data or "", first.data_version)
                same = decode(flow, row.id, row.status, data) == decode(flow, row.id, row.status, row.data)
            except InvalidData:
                same = False
        if not same:
            raise Conflict(
                f"process {row.id} exists already and was started with other input",
                hint=f"use another id, or look at it: onward show {row.id}",
            )

    # -- looking ----------------------------------------------------------------------------------------------

    async def get(self, id: str) -> Record:
        """The process as it is now; `.process` is the typed model, or None where its data does not fit it. NotFound."""
        return self._seen(await self._row(id))

    async def wait(self, id: str, *, timeout: Duration | None = None) -> Record:
        """Until it is over or needs a person (finished, cancelled, failed, paused). TimeoutError after `timeout`."""
        async with asyncio.timeout(None if timeout is None else in_seconds(timeout)):
            while True:
                changed = asyncio.ensure_future(self.store.wait_for_change(1.0))
                try:
                    await asyncio.sleep(0)  # it has begun: what changes while we look is not missed
                    record = await self.get(id)
                    if record.due_at is None:
                        return record
                    await changed
                finally:
                    changed.cancel()
                    await asyncio.gather(changed, return_exceptions=True)

    async def find(
        self,
        query: str | Iterable[Term] = "",
        *,
        flow: str | None = None,
        status: str | Collection[str] = (),
        condition: Condition | str | Collection[Condition | str] = (),
        prefix: str = "",
        before: str = "",
        limit: int = 100,
        light: bool = False,
        looks: int = 0,
    ) -> list[Record]:
        """The newest first, at most `limit` (1 to 1,000): those that match the `query`, see `onward.query`, and all else that is
        asked. `prefix` is of the id; `before` goes on after a page's last id. `light`: without data, and `.process` is None.

        Something rare may be looked for in a million rows: `looks` bounds how many (0: all), and `past` says where to go on.
        """
        if not 1 <= limit <= PAGE_MAX:
            raise OnwardError(f"limit={limit}: a page has 1 to {PAGE_MAX:,} rows", hint="go on with before=the last id")
        asked = {"status": (status,) if isinstance(status, str) else status, "flow": () if flow is None else (flow,)}
        asked["is"] = (condition,) if isinstance(condition, str) else condition
        terms = [*(parse(query) if isinstance(query, str) else query)]
        terms += [exactly(name, *(printable(str(one)) for one in values)) for name, values in asked.items() if values]
        terms += [beginning("id", printable(prefix))] if prefix else []
        renamed = [(flow.name, old, new) for flow in self.flows.values() for old, new in flow.renamed.items()]
        search = Search(terms, printable(before), limit, light, max(looks, 0), self._known(), renamed)
        return [self._seen(record, light=light) for record in await self.store.find(search)]

    async def past(self, before: str, rows: int, query: str | Iterable[Term] = "") -> str:
        """The id at which `find` of the same query, `before` and looks=`rows` ended, to go on `before` it. '' if it has looked at
        all there is: what only needs people, or is held by workers, it finds without looking at every row.
        """
        terms = parse(query) if isinstance(query, str) else tuple(query)
        return await self.store.past(Search(terms, printable(before), looks=max(rows, 1)))

    async def counts(self) -> list[Count]:
        """How many processes of each flow stand at which status in which condition."""
        counts: dict[tuple[str, str, Condition], Count] = {}
        for count in await self.store.counts():
            condition = self._condition(count.flow, count.status, count.data_version, count.condition)
            flow = None if condition is Condition.ORPHANED else self._by_name(count.flow)
            key = (count.flow, count.status if flow is None else flow.today(count.status), condition)
            known = counts.get(key)
            number = count.number + (known.number if known else 0)
            oldest = min(count.oldest, known.oldest) if known else count.oldest
            counts[key] = Count(*key, number, oldest)
        return list(counts.values())

    async def history(self, id: str, *, after: int = -1, limit: int = PAGE_MAX, light: bool = False) -> list[Entry]:
        """What happened to it after version `after`, oldest first. `light`: '' stands for data. NotFound."""
        record = await self._row(id)
        return await self.store.history(id, min(max(after, -1), record.version), min(max(limit, 1), PAGE_MAX), light=light)

    async def data_at(self, id: str, version: int) -> Any:
        """The data as it was after that version, as plain JSON values: what older code wrote is upgraded, as this code would read
        it. NotFound, or InvalidData where it is no JSON or cannot be upgraded.
        """
        record = await self._row(id)
        kept = await self.store.data_at(id, version) if 0 <= version <= record.version else None
        if kept is None:
            raise NotFound(
                f"process {id} has no version {version}; its last one is {record.version}", hint=f"onward history {id}"
            )
        flow = self.flow_of(record)
        data = kept.data if flow is None else upgraded(flow, id, *kept)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidData(
                f"{record.flow} {id}: its data at version {version} cannot be read: {printable(str(error))}"
            ) from None

    async def text_at(self, record: Record, version: int) -> str | None:
        """The same as the JSON itself, for who only shows it: as it is kept, where it cannot be upgraded. None: there is none."""
        kept, flow = await self.store.data_at(record.id, version), self.flow_of(record)
        try:
            return None if kept is None else kept.data if flow is None else upgraded(flow, record.id, *kept)
        except InvalidData:
            return kept.data if kept else None

    async def explain(self, id: str) -> str:
        """One sentence: why it is not moving. NotFound."""
        record = await self.get(id)
        return explain(record, self.flow_of(record))

    # -- acting -----------------------------------------------------------------------------------------------

    async def wake(self, id: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "") -> Record:
        """A waiting or retrying process is due now."""
        return await self._act(id, "wake", version, reason, actor)

    async def retry(self, id: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "") -> Record:
        """A failed (or retrying) process goes on from its stage, with all its attempts before it again."""
        return await self._act(id, "retry", version, reason, actor)

    async def pause(self, id: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "") -> Record:
        """Nothing happens to it until `resume`. A running attempt is cut off; its stage runs again after that."""
        return await self._act(id, "pause", version, reason, actor)

    async def resume(self, id: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "") -> Record:
        """A paused process is due now."""
        return await self._act(id, "resume", version, reason, actor)

    async def cancel(self, id: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "") -> Record:
        """It goes on at the flow's `on_cancel`, cleans up and ends *cancelled*; without `on_cancel` it ends at once."""
        return await self._act(id, "cancel", version, reason, actor)

    async def stop(self, id: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "") -> Record:
        """It ends here and now, *cancelled*: no handler runs again, nothing outside is cleaned up."""
        return await self._act(id, "stop", version, reason, actor)

    async def move(
        self, id: str, to: str, *, force: bool = False, version: int | None = None, reason: str = "", actor: str | Actor = ""
    ) -> Record:
        """It goes on at status `to`. Where the table has no way from here to there that takes `force`, and a `reason`."""
        return await self._act(id, "move", version, reason, actor, to=to, force=force)

    async def edit(
        self, id: str, data: Mapping[str, Any], *, version: int | None = None, reason: str = "", actor: str | Actor = ""
    ) -> Record:
        """Puts these data, all of them and as JSON values, in the place of its own. InvalidData if the model refuses them."""
        return await self._act(id, "edit", version, reason, actor, data=data)

    async def fork(
        self, id: str, *, at: int | None = None, new_id: str | None = None, reason: str = "", actor: str | Actor = ""
    ) -> Record:
        """A new process that begins as this one was after version `at` (None: now). It answers the new one.

        Both know the same things outside by their ids, see `shared`: what one deletes, the other misses.
        """
        refuse_unless_allowed(actor, "fork")
        record = self._seen(await self._row(id))
        flow, at = self._flow(record), record.version if at is None else at
        status = flow.today(await self._status_at(record, at))
        decide.fork(flow, record, status, at)
        process = read(flow, await self.data_at(id, at), make_id() if new_id is None else new_id, status)
        why = f"from {id} at version {at}" + (f": {reason}" if reason else "")
        row = replace(self._new(process), kind="forked", reason=printable(why, REASON_CHARS_MAX))
        if not (await self.store.insert([row], _who(actor)))[0]:
            raise Conflict(f"process {row.id} exists already", hint="fork to another id, or leave it out for a new one")
        return self._seen(await self._row(row.id))

    async def shared(self, id: str, at: int | None = None) -> list[str]:
        """The names of things outside, as far as they look like it, that a fork at version `at` would share with this one."""
        record = await self._row(id)
        return sorted(set(_names(masked(await self.data_at(id, record.version if at is None else at)))))[:SHARED_MAX]

    async def delete(self, id: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "") -> None:
        """Row, data and history of a process that is over. Who did it and why stays. It cannot be taken back."""
        refuse_unless_allowed(actor, "delete")
        async for record in self._looks(id, version):
            decide.delete(record)
            try:
                return await self.store.delete(record, _who(actor), _note(reason))
            except Conflict:
                if version is not None:
                    raise
        raise _restless(id)

    async def plan(
        self, id: str, verb: str, *, version: int | None = None, reason: str = "", actor: str | Actor = "", **given: Any
    ) -> tuple[Record, Change | None]:
        """What `verb` would do to it, and nothing is changed: raises what the verb would raise. Without a change: `delete`."""
        refuse_unless_allowed(actor, verb)
        async for record in self._looks(id, version):
            return record, self.planned(record, verb, reason=reason, **given)
        raise _restless(id)

    def planned(self, record: Record, verb: str, *, reason: str = "", **given: Any) -> Change | None:
        """The same for a record at hand. Raises Refused, InvalidData or NotFound."""
        match verb:
            case "wake" | "retry" | "pause" | "resume" | "stop":
                simple: Callable[[Record], Change] = getattr(decide, verb)
                return simple(record)
            case "cancel":
                return decide.cancel(self._flow(record), record)
            case "move":
                return self._planned_move(record, reason, **given)
            case "edit":
                return self._planned_edit(record, **given)
            case "delete":
                decide.delete(record)
                return None
        raise NotFound(f"there is no action {printable(verb, 40)!r}{nearest(verb, NEEDS)}", hint=f"there are: {', '.join(NEEDS)}")

    def _planned_move(self, record: Record, reason: str, to: str, force: bool = False) -> Change:
        change = decide.move(self._flow(record), record, to, force=force)
        if force and not reason.strip() and to not in decide.declared(self._flow(record), record.status):
            raise Refused(
                f"{record.status} → {to} is no declared transition: to force it takes a reason, for the history",
                hint="--reason '…'",
            )
        return change

    def _planned_edit(self, record: Record, data: Mapping[str, Any]) -> Change:
        decide.refuse_edit(record)
        flow = self._flow(record)
        process = read(flow, data, record.id, record.status)
        record.data_version = flow.version  # of the data that come, whatever becomes of those that were
        return decide.edit(record, *encode(flow, process, record.id, record.status))

    async def _status_at(self, record: Record, version: int) -> str:
        entries = await self.store.history(record.id, version - 1, 1) if 0 <= version <= record.version else []
        if not entries or entries[0].version != version:
            raise NotFound(
                f"process {record.id} has no version {version}; its last one is {record.version}",
                hint=f"onward history {record.id}",
            )
        return entries[0].to_status

    async def _act(self, id: str, verb: str, version: int | None, reason: str, actor: str | Actor, **given: Any) -> Record:
        refuse_unless_allowed(actor, verb)
        async for record in self._looks(id, version):
            change = self.planned(record, verb, reason=reason, **given)
            assert change is not None
            try:
                return self._seen(await self.store.act(record, change, _who(actor), _note(reason)))
            except Conflict:
                if version is not None:
                    raise
        raise _restless(id)

    async def _looks(self, id: str, version: int | None) -> AsyncIterator[Record]:
        """It may move on between a look and the act. Who names no version means the process as it is now, so looks again."""
        for _ in range(ACT_TRIES):
            record = self._seen(await self._row(id))
            if version is not None and version != record.version:
                raise Conflict(
                    f"process {id} is at version {record.version} now, not {version}; nothing was changed",
                    hint=f"look again: onward show {id}",
                )
            yield record

    # -- between rows and what people see ---------------------------------------------------------------------

    async def _row(self, id: str, connection: Any = None) -> Record:
        # An id that `start` refuses names nothing, and a database may choke on it.
        record = await self.store.get(id, connection) if printable(id, ID_CHARS_MAX) == id else None
        if record is None:
            raise NotFound(f"there is no process {printable(id, 80)!r}", hint="what there is: onward ls")
        return record

    def _flow(self, record: Record) -> Flow[Any]:
        flow = self.flow_of(record)
        if flow is None:
            raise NotFound(f"this app has no flow {record.flow!r}", hint="run it with the app that has: --app module:attr")
        return flow

    def _condition(self, flow: str, status: str, version: int, condition: Condition) -> Condition:
        if not self.flows or condition in OVER:  # without flows it is a tool that has only the store: it misses no code
            return condition
        known = self._by_name(flow)
        return condition if known is not None and known.knows(status, version) else Condition.ORPHANED

    def _known(self) -> list[tuple[str, str, int]] | None:
        """What this code can move. None where it is a tool that has only the store."""
        if not self.flows:
            return None
        return [each for flow in (*self.flows.values(), *self.own.values()) for each in flow.known]

    def _seen(self, record: Record, *, light: bool = False) -> Record:
        record.condition = self._condition(record.flow, record.status, record.data_version, record.condition)
        flow = self.flow_of(record)
        if flow is not None and record.condition is not Condition.ORPHANED:
            named(flow, record)
            if not light:
                try:
                    record.process = typed(flow, record)
                except InvalidData as error:
                    record.error = record.error or str(error)
        return record


def _who(actor: str | Actor) -> str:
    return printable(str(actor), REASON_CHARS_MAX) or default_actor()


def _note(reason: str) -> str | None:
    return printable(reason, REASON_CHARS_MAX) or None


def _restless(id: str) -> Conflict:
    return Conflict(
        f"process {id} moved on {ACT_TRIES} times between each look and the act; nothing was changed",
        hint=f"hold it first: onward pause {id}",
    )


def _names(value: Any) -> Iterator[str]:
    """Strings that look like the id of something elsewhere: one word with a digit in it, as in file-68d1 or a URL."""
    if isinstance(value, dict):
        yield from (name for one in value.values() for name in _names(one))
    elif isinstance(value, list):
        yield from (name for one in value for name in _names(one))
    elif isinstance(value, str) and _OUTSIDE.fullmatch(value):
        yield value


def default_actor() -> str:
    """Who acts, where the caller does not say: the user of this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user database
        return "unknown"
