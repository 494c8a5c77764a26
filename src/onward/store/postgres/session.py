"""How this library talks to PostgreSQL: what is set in each session, what a URL may say, and what its errors mean to us."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from onward.errors import StoreError
from onward.store.urls import shown

CONNECT_S = 5.0
CLOSE_S = 2.0  # for the server to hear that we go
# Past this a session is given up. What may have been written none the less is looked up, so it need not be waited for: a
# network that swallows everything must not hold up for long those who have other sessions.
ANSWER_S = 5.0
SEARCH_S = 15.0  # for what may take long on a large table; the server has given it up by then

# For each session, unless the URL says otherwise. Behind a pooler, which would share them with strangers, none is set.
SESSION = {
    "synchronous_commit": "on",  # what is acknowledged outlives a power cut
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "15s",  # a worker that hangs half-way keeps no row locked for longer
    "tcp_keepalives_idle": "2",  # a worker whose host is gone neither
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "5s",
    "plan_cache_mode": "force_generic_plan",  # our statements have one good plan each; to plan cost more than to run
    "jit": "off",
}

# What the driver raises, all of it.
TROUBLE = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError, asyncpg.InternalClientError)


class Address:
    """A URL taken apart. `dsn` is for the driver, `shown` for people, without the password. StoreError if it means nothing.

    Two words in it are ours: `notify=off`, and `pooler=transaction` where a pooler gives each transaction another session.
    """

    def __init__(self, url: str) -> None:
        self.shown = shown(url)
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        ours = {key: value for key, value in query if key in ("notify", "pooler")}
        if ours.get("notify", "off") not in ("on", "off") or ours.get("pooler", "transaction") != "transaction":
            said = "&".join(f"{key}={value}" for key, value in ours.items())
            raise StoreError(f"{self.shown}: {said} means nothing", hint="there are ?notify=off and ?pooler=transaction")
        rest = [(key, value) for key, value in query if key not in ours]
        self.dsn = urlunsplit(parts._replace(query=urlencode(rest)))
        self.pooled = "pooler" in ours
        self.notify = not self.pooled and ours.get("notify") != "off"
        self._set = dict(rest)

    def session(self) -> dict[str, Any]:
        """The arguments with which the driver makes each connection."""
        settings = {} if self.pooled else {key: value for key, value in SESSION.items() if key not in self._set}
        return {
            "timeout": CONNECT_S,
            "statement_cache_size": 0 if self.pooled else 100,
            "server_settings": {"application_name": f"onward {os.getpid()}", **settings},
            "target_session_attrs": "read-write",  # never a standby, also where the URL names several hosts
        }


_HINTS = {
    "28": "user, password or pg_hba.conf: see the URL's user:password@host",
    "3D000": "make the database first: createdb NAME",
    "42P01": "make its tables: onward db upgrade --store URL",
    "42501": "the database's user needs SELECT, INSERT, UPDATE and DELETE on the tables onward_*",
    "25006": "it is a standby, or read-only for now; it is tried again by itself",
    "53100": "free some space on its disk; what was not written is tried again by itself",
    "53300": "raise max_connections, or put a pooler in front: ?pooler=transaction",
    "57P": "the server is stopping or starting; it is tried again by itself",
}

# A pooler takes no settings for a session, since it hands the same one to everybody.
_POOLER = "this is a connection pooler: add ?pooler=transaction to the URL"
_POOLER_ROLE = "no setting can be in the URL of a pooler: ALTER ROLE … SET …, and take it out of the URL"


def store_error(name: str, error: BaseException) -> StoreError:
    """PostgreSQL's error as ours, with what to do about it."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        if "unsupported startup parameter" in str(error):
            return StoreError(f"{name}: {error}", hint=_POOLER_ROLE if "pooler=" in name else _POOLER)
        hint = next((text for start, text in _HINTS.items() if state.startswith(start)), "")
        return StoreError(f"{name}: {message(error)} ({state})", hint=hint)
    said = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else "the connection was lost")
    return StoreError(f"{name}: {said} ({type(error).__name__})", hint="is the server up? It is tried again by itself")


def is_gone(connection: Any) -> bool:
    """Whether its session has ended. What a pool lends knows nothing any more then, not even this."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True


def cut(connection: Any) -> None:
    """Ends a session at once, without a word to the other side."""
    if not is_gone(connection):
        connection.terminate()


def message(error: BaseException) -> str:
    """What it says, without the detail: that can be a whole row, with all that is secret in it."""
    return str(error.args[0]) if isinstance(error, asyncpg.PostgresError) and error.args else str(error)


def state_of(error: BaseException) -> str:
    """PostgreSQL's five characters, or ''."""
    return getattr(error, "sqlstate", None) or ""


def is_about_values(error: BaseException) -> bool:
    """Whether the error is about what is written, and not about the state that the database is in."""
    return state_of(error)[:2] in ("21", "22", "23", "54")


def is_trouble(error: BaseException) -> bool:
    """Whether it is the database's, and no fault of the SQL that met it: connection, resources, locks, stopping, read-only."""
    if isinstance(error, asyncpg.PostgresError):
        return state_of(error).startswith(("08", "40", "53", "55P03", "57", "58", "25006", "XX"))
    return isinstance(error, (OSError, asyncpg.InternalClientError, asyncpg.ConnectionDoesNotExistError)) or (
        isinstance(error, asyncpg.InterfaceError) and "closed" in str(error)
    )
