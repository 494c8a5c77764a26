"""The crash points of the PostgreSQL store, where they lie elsewhere than SQLite's.

The instants inside a statement are told by triggers, which the databases of these tests have (see places.py) and which do
something only in sessions that ask for it: at the hit that is armed they send a notice, which reaches the program at once,
and then wait a moment in the middle of the statement, so that the program is killed or stopped while the database is at
work for it. The database counts the hits, for the program has several sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncpg.connection import Connection
from asyncpg.pool import PoolConnectionProxy

import onward.store.postgres.batches as batches_module
from onward.store.postgres.session import Address
from onward.store.postgres.store import PostgresStore
from onward.store.rows import Commit

from .points import POINTS, Trap, armed, put, trip

PAUSE_S = 0.1  # of the statement, at the hit that is armed
# A store makes no tables by itself there, and the checkpoints are the server's.
POINTS_POSTGRES = {point: what for point, what in POINTS.items() if not point.startswith(("migrate-", "checkpoint-"))}

_TRIGGERS = {
    "insert-row": "BEFORE INSERT ON onward_history FOR EACH ROW WHEN (new.version = 0",
    "commit-row": "BEFORE INSERT ON onward_history FOR EACH ROW WHEN (new.version > 0",
    "commit-history": "AFTER INSERT ON onward_history FOR EACH ROW WHEN (new.version > 0",
    "claim-row": "AFTER UPDATE OF epoch ON onward_process FOR EACH ROW WHEN (new.owner IS NOT NULL",
    "renew-within": "AFTER UPDATE OF lease_until ON onward_process FOR EACH ROW"
    " WHEN (new.owner IS NOT NULL AND new.version = old.version AND new.epoch = old.epoch",
    "release-row": "AFTER UPDATE OF owner ON onward_process FOR EACH ROW"
    " WHEN (old.owner IS NOT NULL AND new.owner IS NULL AND new.version = old.version",
}
_TRIP = f"""
CREATE SEQUENCE spy_hits;
CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('spy_hits') = current_setting('spy.hit')::bigint THEN
        RAISE NOTICE 'trip %', TG_ARGV[0];
        PERFORM pg_sleep({PAUSE_S});
    END IF;
    RETURN new;
END $$"""
SPY = ";\n".join(
    [
        _TRIP,
        *(
            f"CREATE TRIGGER \"spy_{point}\" {when} AND current_setting('spy.at', true) = '{point}')"
            f" EXECUTE FUNCTION spy('{point}')"
            for point, when in _TRIGGERS.items()
        ),
    ]
)


def arm() -> None:
    """Wraps the store of this program, after `points.arm`."""
    trap = armed()
    if trap is not None and trap.point in _TRIGGERS:
        _wrap_sessions(trap)
    _wrap_batches()
    _wrap_transactions()


def _wrap_sessions(trap: Trap) -> None:
    session, heard, opened = Address.session, Connection._process_log_message, PostgresStore.open

    def session_with_a_spy(self: Address) -> dict[str, Any]:
        assert not trap.every, "the database tells of one hit only"
        arguments = session(self)
        arguments["server_settings"].update({"spy.at": trap.point, "spy.hit": str(trap.hit)})
        return arguments

    def hear(self: Any, fields: Mapping[str, str], last_query: str) -> None:
        if fields["M"] == f"trip {trap.point}":
            trap.spring(trap.hit)
        heard(self, fields, last_query)

    async def count_anew_and_open(self: PostgresStore) -> None:
        connection = await self._connect()
        await connection.execute("SELECT setval('spy_hits', 1, false)")
        await connection.close()
        await opened(self)

    put(Address, "session", session_with_a_spy)
    put(Connection, "_process_log_message", hear)
    put(PostgresStore, "open", count_anew_and_open)


def _wrap_batches() -> None:
    commit, land = PostgresStore._commit, vars(batches_module)["land"]

    async def commit_and_trip(self: PostgresStore, batch: list[Commit]) -> None:
        trip("group-begin")
        await commit(self, batch)
        trip("group-durable")

    def trip_and_land(batch: list[Commit]) -> None:
        trip("landing")
        land(batch)

    put(PostgresStore, "_commit", commit_and_trip)
    put(batches_module, "land", trip_and_land)


def _wrap_transactions() -> None:
    """A handler's transaction is ended by words of its own."""
    execute = PoolConnectionProxy.execute

    async def execute_and_trip(self: Any, sql: str, *arguments: Any, **options: Any) -> str:
        if sql == "COMMIT":
            trip("transaction-commit")
        if sql == "ROLLBACK":
            trip("transaction-undone")
        answer: str = await execute(self, sql, *arguments, **options)
        if sql == "COMMIT" and answer == "COMMIT":
            trip("transaction-durable")
        return answer

    put(PoolConnectionProxy, "execute", execute_and_trip)
