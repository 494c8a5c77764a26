"""Everything that a person or another program may do to a process. App, command line and panel are its faces.

Each action is compare-and-set on the version that was seen, stands in the history with who and why, and answers truthfully.
"""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from onward import decide
from onward.codec import decode, encode, printable
from onward.decide import Change
from onward.errors import Conflict, InvalidData, NotFound, OnwardError
from onward.explain import explain
from onward.flow import Duration, Flow, in_seconds
from onward.ports import Count, NewProcess, Search, Store
from onward.process import ID_CHARS_MAX, OVER, Condition, Entry, Process, Record

P = TypeVar("P", bound=Process[Any])

START_MAX = 500  # processes of one insert; `start_many` takes any number, in portions
REASON_CHARS_MAX = 500  # of who and why: people read them in one line of a table
ACT_TRIES = 20  # of an action on a process that moves on between each look and the act
PAGE_MAX = 1_000  # rows of one `find` or `history`


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

    # -- starting ---------------------------------------------------------------------------------------------

    async def start(self, process: Process[Any], *, actor: str = "", connection: Any = None) -> Record:
        """Makes the row; a worker goes on from there. With an id that exists and the same input it answers the existing
        process, with other input it raises Conflict. Raises InvalidData for data that could not be read back.

        With a `connection` of yours to the database of the store it is done in your transaction: the process exists exactly
        if you commit that. It needs no `async with app:`. A connection of asyncpg, psycopg or sqlite3, in a transaction;
        a synchronous one is used in the calling thread.
        """
        [record] = await self.start_many([process], actor=actor, connection=connection)
        return record

    async def start_many(self, processes: Iterable[Process[Any]], *, actor: str = "", connection: Any = None) -> list[Record]:
        """`start` for many, in portions: each portion is one transaction, so after an error some may have been started.

        With a `connection` of yours, all of them are in your transaction.
        """
        rows = [self._new(process) for process in processes]
        records = []
        for begin in range(0, len(rows), START_MAX):
            portion = rows[begin : begin + START_MAX]
            fresh = await self.store.insert(portion, _who(actor), connection)
            for row, new in zip(portion, fresh, strict=True):
                if not new:
                    await self._same_input(row, connection)
            records += [self._seen(await self._row(row.id, connection)) for row in portion]
        return records

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
        return NewProcess(process.id, flow.name, status.value, data)

    async def _same_input(self, row: NewProcess, connection: Any) -> None:
        entries = await self.store.history(row.id, limit=1, connection=connection)
        record = await self._row(row.id, connection)
        if not entries or entries[0].version:
            raise Conflict(
                f"process {row.id} exists already; with what input it was started is no longer in its history, which was pruned",
                hint=f"use another id, or look at it: onward show {row.id}",
            )
        first = entries[0]
        same = record.flow == row.flow and first.to_status == row.status
        if same and first.data != row.data:  # as the model of today reads it: a new field with a default is no other input
            flow = self.flows[row.flow]
            try:
                same = decode(flow, row.id, row.status, first.data or "") == decode(flow, row.id, row.status, row.data)
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
        *,
        flow: str | None = None,
        status: str | Collection[str] = (),
        condition: Condition | str | Collection[Condition | str] = (),
        prefix: str = "",
        before: str = "",
        limit: int = 100,
    ) -> list[Record]:
        """The newest first, at most `limit` (1 to 1,000). `prefix` is of the id; `before` goes on after a page's last id."""
        if not 1 <= limit <= PAGE_MAX:
            raise OnwardError(f"limit={limit}: a page has 1 to {PAGE_MAX:,} rows", hint="go on with before=the last id")
        statuses = (status,) if isinstance(status, str) else tuple(status)
        wanted = {Condition(condition)} if isinstance(condition, str) else {Condition(one) for one in condition}
        # Orphaned is known only here, where the flows are: search wider, then look.
        search = Search(
            flows=() if flow is None else (printable(flow),),
            statuses=tuple(printable(str(one)) for one in statuses),
            conditions=() if Condition.ORPHANED in wanted else tuple(wanted),
            prefix=printable(prefix),
            before=printable(before),
            limit=limit,
        )
        found: list[Record] = []
        while True:
            page = await self.store.find(search)
            found += [record for record in map(self._seen, page) if not wanted or record.condition in wanted]
            if len(found) >= limit or len(page) < limit:
                return found[:limit]
            search = Search(search.flows, search.statuses, search.conditions, search.prefix, page[-1].id, limit)

    async def counts(self) -> list[Count]:
        """How many processes of each flow stand at which status in which condition."""
        counts: dict[tuple[str, str, Condition], Count] = {}
        for count in await self.store.counts():
            condition = self._condition(count.flow, count.status, count.condition)
            key = (count.flow, count.status, condition)
            known = counts.get(key)
            number = count.number + (known.number if known else 0)
            oldest = min(count.oldest, known.oldest) if known else count.oldest
            counts[key] = Count(count.flow, count.status, condition, number, oldest)
        return list(counts.values())

    async def history(self, id: str, *, after: int = -1, limit: int = PAGE_MAX) -> list[Entry]:
        """What happened to it after version `after`, oldest first. NotFound."""
        record = await self._row(id)
        return await self.store.history(id, min(max(after, -1), record.version), min(max(limit, 1), PAGE_MAX))

    async def data_at(self, id: str, version: int) -> Any:
        """The data as it was after that version, as plain JSON values. NotFound, or InvalidData where it is no JSON."""
        record = await self._row(id)
        data = await self.store.data_at(id, version) if 0 <= version <= record.version else None
        if data is None:
            raise NotFound(
                f"process {id} has no version {version}; its last one is {record.version}", hint=f"onward history {id}"
            )
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise InvalidData(
                f"{record.flow} {id}: its data at version {version} cannot be read: {printable(str(error))}"
            ) from None

    async def explain(self, id: str) -> str:
        """One sentence: why it is not moving. NotFound."""
        record = await self.get(id)
        return explain(record, self.flows.get(record.flow))

    # -- acting -----------------------------------------------------------------------------------------------

    async def wake(self, id: str, *, version: int | None = None, reason: str = "", actor: str = "") -> Record:
        """A waiting or retrying process is due now."""
        return await self._act(id, decide.wake, version, reason, actor)

    async def retry(self, id: str, *, version: int | None = None, reason: str = "", actor: str = "") -> Record:
        """A failed (or retrying) process goes on from its stage, with all its attempts before it again."""
        return await self._act(id, decide.retry, version, reason, actor)

    async def pause(self, id: str, *, version: int | None = None, reason: str = "", actor: str = "") -> Record:
        """Nothing happens to it until `resume`. A running attempt is cut off; its stage runs again after that."""
        return await self._act(id, decide.pause, version, reason, actor)

    async def resume(self, id: str, *, version: int | None = None, reason: str = "", actor: str = "") -> Record:
        """A paused process is due now."""
        return await self._act(id, decide.resume, version, reason, actor)

    async def cancel(self, id: str, *, version: int | None = None, reason: str = "", actor: str = "") -> Record:
        """It goes on at the flow's `on_cancel`, cleans up and ends *cancelled*; without `on_cancel` it ends at once."""

        def change(record: Record) -> Change:
            return decide.cancel(self._flow(record), record)

        return await self._act(id, change, version, reason, actor)

    async def stop(self, id: str, *, version: int | None = None, reason: str = "", actor: str = "") -> Record:
        """It ends here and now, *cancelled*: no handler runs again, nothing outside is cleaned up."""
        return await self._act(id, decide.stop, version, reason, actor)

    async def _act(self, id: str, decision: Callable[[Record], Change], version: int | None, reason: str, actor: str) -> Record:
        note = printable(reason, REASON_CHARS_MAX) or None
        for left in reversed(range(ACT_TRIES)):
            record = self._seen(await self._row(id))
            if version is not None and version != record.version:
                raise Conflict(
                    f"process {id} is at version {record.version} now, not {version}; nothing was changed",
                    hint=f"look again: onward show {id}",
                )
            try:
                return self._seen(await self.store.act(record, decision(record), _who(actor), note))
            except Conflict:
                # It moved on between our look and the act. Who named no version means the process as it is now.
                if version is not None or not left:
                    raise
        raise AssertionError("the last try returns or raises")

    # -- between rows and what people see ---------------------------------------------------------------------

    async def _row(self, id: str, connection: Any = None) -> Record:
        # An id that `start` refuses names nothing, and a database may choke on it.
        record = await self.store.get(id, connection) if printable(id, ID_CHARS_MAX) == id else None
        if record is None:
            raise NotFound(f"there is no process {printable(id, 80)!r}", hint="what there is: onward ls")
        return record

    def _flow(self, record: Record) -> Flow[Any]:
        flow = self.flows.get(record.flow)
        if flow is None:
            raise NotFound(f"this app has no flow {record.flow!r}", hint="run it with the app that has: --app module:attr")
        return flow

    def _condition(self, flow: str, status: str, condition: Condition) -> Condition:
        if not self.flows:  # a tool that has only the store: it knows no code that could be missing
            return condition
        known = flow in self.flows and status in self.flows[flow].stages
        return condition if known or condition in OVER else Condition.ORPHANED

    def _seen(self, record: Record) -> Record:
        record.condition = self._condition(record.flow, record.status, record.condition)
        flow = self.flows.get(record.flow)
        if flow is not None and record.condition is not Condition.ORPHANED:
            try:
                record.process = decode(flow, record.id, record.status, record.data)
            except InvalidData as error:
                record.error = record.error or str(error)
        return record


def _who(actor: str) -> str:
    return printable(actor, REASON_CHARS_MAX) or default_actor()


def default_actor() -> str:
    """Who acts, where the caller does not say: the user of this machine."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a user database
        return "unknown"
