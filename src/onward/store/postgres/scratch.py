"""A PostgreSQL database for one run of a proof: made on a server, and dropped in the end.

It is asked in a thread, while the event loop of whoever asks stands still: an answer takes no time there, and whoever asks
the same in the same order goes the same way each time.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from asyncpg.connresource import ConnectionResource

from onward.errors import StoreError
from onward.store.postgres.savepoint import Connection, Savepoint
from onward.store.postgres.session import TROUBLE, Address, store_error
from onward.store.sql import load

T = TypeVar("T")

SQL = load("postgres.sql")
ANSWER_S = 30.0  # so long its server may take
# Nobody but who stands still can have what is locked: to wait for it is in vain.
SESSION = {"lock_timeout": "100ms", "synchronous_commit": "off"}


class Scratch:
    """The database of this URL, until `close`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = Address(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="onward-scratch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, what: Awaitable[T]) -> T:
        """Waits for the answer, with all that runs in this thread."""

        async def answer() -> T:
            async with asyncio.timeout(ANSWER_S):
                return await what

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result()

    def connect(self) -> Any:
        """An `asyncpg.Connection`, which lives in the other thread."""
        options = self._address.session()
        options["server_settings"] |= SESSION
        try:
            return self.ask(asyncpg.connect(self._address.dsn, connection_class=Connection, **options))
        except TROUBLE as error:
            raise store_error(self._address.shown, error) from error

    @contextmanager
    def connected(self) -> Iterator[Any]:
        connection = self.connect()
        try:
            yield connection
        finally:
            self.ask(connection.close())

    async def prepare(self, run: Callable[[Any], object]) -> None:
        """Runs this on a connection, asynchronous or not."""
        with self.connected() as connection:
            running = run(Blocking(connection, self.ask))
            if inspect.isawaitable(running):
                await running

    def rows(self) -> list[tuple[str, dict[str, Any]]]:
        """What is in the user's tables, each row with the name of its table."""
        found: list[tuple[str, dict[str, Any]]] = []
        with self.connected() as connection:
            for table, statement in self.ask(connection.fetch(SQL["user tables"])):
                found += [(table, json.loads(row)) for (row,) in self.ask(connection.fetch(statement))]
        return found

    def make(self, name: str) -> None:
        with self.connected() as connection:
            made = self.ask(connection.fetchval(SQL["scratch make"], name))
            try:
                self.ask(connection.execute(made))
            except asyncpg.InsufficientPrivilegeError as error:
                raise StoreError(
                    f"no database can be made there: {error}", hint="name a server of your own, or a user who may: CREATEDB"
                ) from error

    def drop(self, name: str) -> None:
        with self.connected() as connection:
            made = self.ask(connection.fetchval(SQL["scratch drop"], name))
            self.ask(connection.execute(made))


@contextmanager
def scratch(url: str) -> Iterator[Scratch]:
    """A new database on the server of this URL, whose user has to be allowed to make one. The one it names is left alone."""
    name = f"onward_scratch_{secrets.token_hex(6)}"
    with closing(Scratch(url)) as server, closing(Scratch(urlsplit(url)._replace(path=f"/{name}").geturl())) as database:
        server.make(name)
        try:
            yield database
        finally:
            server.drop(name)


class Blocking:
    """A connection as handlers see it, or what comes of one: a transaction, a prepared statement, a cursor."""

    def __init__(self, it: Any, ask: Callable[[Awaitable[Any]], Any]) -> None:
        self._it, self._ask = it, ask

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._it, name)
        if not callable(value):
            return value

        @functools.wraps(value)
        def call(*arguments: Any, **named: Any) -> Any:
            async def begin() -> Any:
                return value(*arguments, **named)

            begun = self._ask(begin())
            return self._answered(begun) if inspect.iscoroutine(begun) else self._given(begun)

        return call

    async def _answered(self, what: Awaitable[Any]) -> Any:
        return self._given(self._ask(what))

    def _given(self, value: Any) -> Any:
        return Blocking(value, self._ask) if isinstance(value, ConnectionResource | Savepoint) else value

    def __await__(self) -> Any:
        return self._answered(self._it).__await__()

    async def __aenter__(self) -> Any:
        return self._given(self._ask(self._it.__aenter__()))

    async def __aexit__(self, *raised: Any) -> Any:
        return self._ask(self._it.__aexit__(*raised))

    def __aiter__(self) -> Any:
        return self._given(self._it.__aiter__())

    async def __anext__(self) -> Any:
        return self._ask(self._it.__anext__())
