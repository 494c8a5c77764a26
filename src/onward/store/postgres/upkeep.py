"""Upkeep of a PostgreSQL database: migrations that hold up nobody, partitions of the history, deleting what is old, a copy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import asyncpg

from onward.errors import StoreError
from onward.explain import length
from onward.ports import Clock, Pruned, Standing, Tell
from onward.process import Condition
from onward.store.postgres.dump import dump
from onward.store.postgres.session import CONNECT_S, TROUBLE, Address, store_error
from onward.store.schema import Migration, migrations, pending, refuse_other_schema
from onward.store.sql import load, statements

T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SQL = load("postgres.sql")
MIGRATIONS = migrations(SQL)
MONTHS = 13  # of partitions: this month's, and those of a year
MONTHS_MIN = 2  # with fewer to come, `standing` warns
ALONE_TRIES, ALONE_PAUSE_S = 300, 0.2  # for another upkeep to end: a minute
LOCK_TRIES, LOCK_PAUSE_S = 20, 1.0  # for a lock on a table: each try gives up after 2 s
# Dead rows of which `standing` speaks: so many cost each claim about 10 ms, and autovacuum begins at a hundredth anyway.
DEAD_MIN, DEAD_PER_LIVE = 10_000, 0.05
# What holds them back: it is open for longer than any statement of ours may take, and others have come and gone since.
HELD_FOR, HELD_XIDS = timedelta(seconds=10), 100
PAGE = 500  # processes that are looked at, and perhaps deleted, in one transaction
_EVER = datetime.min.replace(tzinfo=UTC)
_MONTH = re.compile(r"onward_history_y(\d{4})m(\d{2})")
_BUSY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
_QUIET: dict[str, str] = {  # what a worker's session bounds, and a migration must not
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "plan_cache_mode": "auto",
}


class PostgresUpkeep:
    """`migrations` are this code's; another list is for tests. The time is the database's, unless the clock is `virtual`."""

    def __init__(self, url: str, clock: Clock, migrations: Sequence[Migration] = MIGRATIONS, *, virtual: bool = False) -> None:
        self._url, self._address, self._clock, self._virtual = url, Address(url), clock, virtual
        self.name, self._migrations = self._address.shown, migrations

    @property
    def _needed(self) -> int:
        return self._migrations[-1].number

    # -- the schema -------------------------------------------------------------------------------------------

    async def schema(self) -> int:
        async with self._connected() as connection:
            return await _schema_of(connection)

    async def script(self, found: int | None = None) -> str:
        if found is not None:  # for a database that cannot be reached from here: which months an older one has, it has to tell
            return "\n".join(self._script(found, [] if found else _months(self._clock.now())))
        async with self._connected() as connection:
            found = await _schema_of(connection)
            return "\n".join(self._script(found, await self._missing_months(connection)))

    def _script(self, found: int, missing: Sequence[_Month]) -> list[str]:
        left = pending(self._migrations, found)
        lines = [
            f"-- Onward's tables in PostgreSQL, from schema {found} to {self._needed}. To be applied with:",
            "-- psql -v ON_ERROR_STOP=1 -f FILE; what could not have a lock in time was not done, and may be tried again.",
        ]
        patience = f"{SQL['upkeep patience']};"
        for each in left:
            add = f"{SQL['schema add'].replace('$1', str(each.number))};"
            if each.concurrently:
                lines += [*map(_for_psql, statements(each.sql)), add]
                continue
            lines += ["BEGIN;", patience, f"{SQL['schema table']};", each.sql]
            if each.number == 1:
                lines += [f"{month.sql};" for month in missing]
            lines += [add, "COMMIT;"]
        if found:
            for month in missing:
                lines += ["BEGIN;", patience, f"{month.sql};", "COMMIT;"]
        return lines

    async def upgrade(self, tell: Tell) -> Sequence[str]:
        async with self._connected() as connection:
            await connection.execute(SQL["home"])
        async with self._alone(tell), self._connected() as connection:
            done = []
            found = await _schema_of(connection)
            if found > self._needed:
                refuse_other_schema(self._url, found, self._needed)
            for each in pending(self._migrations, found):
                tell(f"schema {each.number}")
                await self._migrate(connection, each, tell)
                done.append(f"schema {each.number}")
            return done + await self._make_months(connection, tell)

    async def _migrate(self, connection: Connection, one: Migration, tell: Tell) -> None:
        async def run() -> None:
            await connection.execute(SQL["schema table"])
            await connection.execute(one.sql)
            if one.number == 1:  # with the table itself, so that nothing ever begins in the partition `default`
                for month in _months(await self._now(connection)):
                    await connection.execute(month.sql)
            await connection.execute(SQL["schema add"], one.number)

        if not one.concurrently:
            await self._patiently(connection, run, tell)
            return
        for statement in statements(one.sql):  # each of them a transaction of its own
            if not _makes_statements(statement):
                await connection.execute(statement)
                continue
            for (made,) in await connection.fetch(statement):
                await connection.execute(made)
        await connection.execute(SQL["schema add"], one.number)

    # -- months -----------------------------------------------------------------------------------------------

    async def _missing_months(self, connection: Connection) -> list[_Month]:
        """Those of the coming year that have no partition; without those of which the partition `default` has rows."""
        months = _months(await self._now(connection))
        if not await _schema_of(connection):
            return months
        there = {row[0] for row in await connection.fetch(SQL["partitions"])}
        lost = {f"onward_history_{row[0]}" for row in await connection.fetch(SQL["default months"])}
        return [month for month in months if month.name not in there | lost]

    async def _make_months(self, connection: Connection, tell: Tell) -> list[str]:
        made = []
        for month in await self._missing_months(connection):
            try:
                await self._patiently(connection, partial(connection.execute, month.sql), tell)
            except asyncpg.CheckViolationError:  # a row of that month has just come into `default`, and stays there
                continue
            made.append(month.name)
        return [f"history partitions {made[0]} to {made[-1]}"] if made else []

    # -- looking ----------------------------------------------------------------------------------------------

    async def standing(self) -> Standing:
        async with self._connected() as connection:
            found = await _schema_of(connection)
            size = await connection.fetchval(SQL["size"])
            if not found:
                return Standing(0, self._needed, {}, 0, None, size, ())
            rows = await connection.fetch(SQL["conditions"], self._virtual_now())
            history, oldest = await _row(connection, "history size")
            conditions: Mapping[Condition, int] = {Condition(seen): number for seen, number in rows}
            return Standing(found, self._needed, conditions, history, oldest, size, await self._notes(connection))

    async def _notes(self, connection: Connection) -> list[str]:
        notes = []
        months = await connection.fetch(SQL["default months"]) if await connection.fetchval(SQL["default readable"]) else []
        if lost := sum(row[1] for row in months):
            notes.append(
                f"{lost:,} history entries of months without a partition are in onward_history_default: they are safe there,"
                " but go one by one with their processes, not with a month"
            )
        there = {row[0] for row in await connection.fetch(SQL["partitions"])}
        coming = _months(await self._now(connection))[1:]
        left = next((number for number, month in enumerate(coming) if month.name not in there), len(coming))
        if left < MONTHS_MIN:
            notes.append(f"the history has partitions for {left} more months: onward db upgrade makes those of a year")
        return notes + await self._bloat(connection)

    async def _bloat(self, connection: Connection) -> list[str]:
        """A note if dead rows pile up because somebody may still see them, as a transaction that was forgotten."""
        dead, live = await _row(connection, "dead rows")
        if dead < max(DEAD_MIN, DEAD_PER_LIVE * live):
            return []
        return [
            f"{dead:,} dead rows beside {live:,} live ones in onward_process slow down every claim and cannot be cleared away:"
            f" {who} may still see them{'' if open_for is None else f', open for {length(open_for)}'}; next: {cure}"
            for who, open_for, cure in await connection.fetch(SQL["held back"], HELD_FOR, HELD_XIDS)
        ]

    # -- deleting what is old ---------------------------------------------------------------------------------

    async def prune(self, older_than: timedelta, tell: Tell, *, dry_run: bool = False) -> Pruned:
        async with self._alone(tell), self._connected() as connection:
            refuse_other_schema(self._url, await _schema_of(connection), self._needed)
            _, until = await _row(connection, "prune until", self._virtual_now(), older_than)
            months = [_named(row[0]) for row in await connection.fetch(SQL["partitions"])]
            old = [month for month in months if month is not None and month.end <= until]
            if not dry_run:
                await self._drop_months(connection, old, tell)
                await self._make_months(connection, tell)
            since = max((month.end for month in old), default=_EVER)
            processes, history, steps = await self._prune_processes(connection, until, since if dry_run else None, tell)
            return Pruned(processes, history, steps, [month.name for month in old])

    async def _drop_months(self, connection: Connection, months: Sequence[_Month], tell: Tell) -> None:
        """First of all, for it costs nothing: what goes with its month need not be deleted one by one."""
        for month in months:
            tell(f"dropping {month.name}")
            await self._patiently(connection, partial(connection.execute, month.drop), tell)

    async def _prune_processes(
        self, connection: Connection, until: datetime, count_since: datetime | None, tell: Tell
    ) -> tuple[int, int, int]:
        """With `count_since` it only counts, the history from then on."""
        processes = history = steps = looked = 0
        at, id = _EVER, ""
        while True:
            page = await connection.fetch(SQL["prune page"], until, at, id, PAGE)
            old = [row[0] for row in page if row[2]]
            if count_since is None:
                gone = await _delete(connection, until, old)
            else:
                gone = await _row(connection, "prune count", old, count_since)
            processes, history, steps = processes + gone[0], history + gone[1], steps + gone[2]
            looked += len(page)
            tell(f"{looked:,} processes looked at, {processes:,} {'deleted' if count_since is None else 'found'}")
            if len(page) < PAGE:
                return processes, history, steps
            id, at, _ = page[-1]

    # -- a copy -----------------------------------------------------------------------------------------------

    async def backup(self, target: Path, tell: Tell) -> None:
        found = await self.schema()
        if not found:
            refuse_other_schema(self._url, found, self._needed)
        await dump(self._address, target, tell)

    # -- connections, locks, time -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        """A connection of its own, with the driver's errors as ours."""
        session = self._address.session()
        if not self._address.pooled:
            session["server_settings"] |= _QUIET
        try:
            connection = await asyncpg.connect(self._address.dsn, **session)
            try:
                yield connection
            except BaseException:
                connection.terminate()  # in the middle of something: the server rolls it back
                raise
            await connection.close(timeout=CONNECT_S)
        except TROUBLE as error:
            raise store_error(self.name, error) from error

    @asynccontextmanager
    async def _alone(self, tell: Tell) -> AsyncIterator[None]:
        """While no other upkeep of these tables is under way. StoreError if one is for a minute."""
        async with self._connected() as gate:
            for again in range(ALONE_TRIES):
                # A new one for each try: the other one may be at CREATE INDEX CONCURRENTLY, which waits for the end of every
                # transaction that had a snapshot when it looked, and this one would wait for that.
                transaction = gate.transaction()
                await transaction.start()
                # Not `fetchval`: it leaves its portal open, and with it a snapshot.
                if (await gate.fetch(SQL["upkeep lock"]))[0][0]:
                    break
                await transaction.rollback()
                if not again:
                    tell("waiting for another upgrade or prune")
                await asyncio.sleep(ALONE_PAUSE_S)
            else:
                raise StoreError(f"{self.name}: another upgrade or prune is under way", hint="wait for it: onward db status")
            await gate.execute(SQL["upkeep alone"])  # a simple query, which ends the one before, and its snapshot with it
            yield
            await transaction.commit()

    async def _patiently(self, connection: Connection, run: Callable[[], Awaitable[T]], tell: Tell) -> T:
        """Runs it in a transaction that waits 2 s for any lock; again, after a pause, until it has them all."""
        for again in range(LOCK_TRIES):
            if again:
                tell(f"a table is in use; try {again + 1} of {LOCK_TRIES} in {LOCK_PAUSE_S:g} s")
                await asyncio.sleep(LOCK_PAUSE_S)
            try:
                async with connection.transaction():
                    await connection.execute(SQL["upkeep patience"])
                    return await run()
            except _BUSY:
                continue
        raise StoreError(
            f"{self.name}: a lock could not be had in {LOCK_TRIES} tries; what was done before stays, the rest was not begun",
            hint="a long transaction holds a table onward_*: look into pg_stat_activity, then do the same again",
        )

    def _virtual_now(self) -> datetime | None:
        return self._clock.now() if self._virtual else None

    async def _now(self, connection: Connection) -> datetime:
        now: datetime = (await _row(connection, "prune until", self._virtual_now(), timedelta(0)))[0]
        return now


async def _schema_of(connection: Connection) -> int:
    if not await connection.fetchval(SQL["schema there"]):
        return 0
    number: int | None = await connection.fetchval(SQL["schema found"])
    return number or 0


def _makes_statements(statement: str) -> bool:
    """Whether it asks for the statements that are to be run in its place, each of its rows one."""
    return statement.lstrip().startswith("SELECT")


def _for_psql(statement: str) -> str:
    text = statement.strip()
    return f"{text.removesuffix(';')} \\gexec" if _makes_statements(text) else text


async def _row(connection: Connection, block: str, *values: Any) -> tuple[Any, ...]:
    row = await connection.fetchrow(SQL[block], *values)
    assert row is not None
    return tuple(row)


async def _delete(connection: Connection, until: datetime, ids: Sequence[str]) -> tuple[int, int, int]:
    """Each process with its history and steps in one transaction; answers how many of each."""
    async with connection.transaction():
        gone = [row[0] for row in await connection.fetch(SQL["prune processes"], until, ids)]
        history = await connection.fetchval(SQL["prune history"], gone)
        return len(gone), history, await connection.fetchval(SQL["prune steps"], gone)


class _Month:
    """One month of the history: its partition's name, when it is over, and the SQL for it, made of nothing but numbers."""

    def __init__(self, year: int, month: int) -> None:
        following = (year + month // 12, month % 12 + 1)
        self.name = f"onward_history_y{year:04}m{month:02}"
        self.end = datetime(*following, 1, tzinfo=UTC)
        days = [f"{y:04}-{m:02}-01 00:00:00+00" for y, m in ((year, month), following)]
        made = SQL["month"].replace("onward_history_month", self.name)
        self.sql = made.replace("the first of the month", days[0]).replace("the first of the next", days[1])
        self.drop = SQL["drop month"].replace("onward_history_month", self.name)
        self.next = following


def _months(now: datetime) -> list[_Month]:
    """This month and the coming ones, MONTHS in all."""
    now = now.astimezone(UTC)
    months = [_Month(now.year, now.month)]
    while len(months) < MONTHS:
        months.append(_Month(*months[-1].next))
    return months


def _named(partition: str) -> _Month | None:
    match = _MONTH.fullmatch(partition)
    return _Month(int(match[1]), int(match[2])) if match else None
