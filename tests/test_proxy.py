"""The fault proxy does what it says: seen by a real driver, a bare socket and the real server behind it."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest
from conftest import PATIENCE_S
from faults.proxy import DOWN, UP, Direction, Proxy, Then
from faults.wire import Dialogue, committed
from postgres import PrivateServer, Server

SILENCE_S = 0.3  # nothing came for so long; a slow machine only makes it more silent
LOST = (ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)
GROUP = """
WITH item AS (SELECT unnest($1::text[]) AS id),
     moved AS (UPDATE onward_process p SET version = version + 1 FROM item WHERE p.id = item.id RETURNING p.id, p.version),
     written AS (INSERT INTO onward_history SELECT id, version FROM moved RETURNING id)
SELECT array_agg(id ORDER BY id) FROM written
"""


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    target = urlsplit(postgres_url)
    with Proxy(target.hostname or "", target.port or 5432) as proxy:
        yield proxy


@pytest.fixture
async def direct(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Past the proxy: what is really there."""
    async with asyncio.timeout(PATIENCE_S):
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(
            "CREATE TABLE onward_process (id text PRIMARY KEY, version integer NOT NULL DEFAULT 0);"
            "CREATE TABLE onward_history (id text, version integer);"
            "INSERT INTO onward_process SELECT 'p' || n FROM generate_series(0, 9) AS n"
        )
        yield connection
        await connection.close()


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, timeout=PATIENCE_S, **options)
    try:
        yield connection
    finally:
        connection.terminate()


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.005)


async def sessions(direct: asyncpg.Connection) -> int:
    return int(
        await direct.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    )


async def until_sessions(direct: asyncpg.Connection, number: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await sessions(direct) != number:
            await asyncio.sleep(0.005)


async def versions(direct: asyncpg.Connection) -> tuple[int, int]:
    """All that rows and history say is committed; the two are the same in truth."""
    return (
        int(await direct.fetchval("SELECT sum(version) FROM onward_process")),
        int(await direct.fetchval("SELECT count(*) FROM onward_history")),
    )


class Bare:
    """A client by hand: it sees the pieces in which bytes come."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self.socket = socket.create_connection((target.hostname, target.port or 0), timeout=PATIENCE_S)
        words = f"user\0{target.username or 'postgres'}\0database\0{target.path[1:]}\0\0".encode()
        self.socket.sendall(struct.pack("!II", 8 + len(words), 196608) + words)

    def ask(self, sql: str) -> None:
        body = sql.encode() + b"\0"
        self.socket.sendall(b"Q" + struct.pack("!I", 4 + len(body)) + body)

    def until_ready(self) -> list[bytes]:
        pieces: list[bytes] = []
        while not b"".join(pieces[-6:]).endswith(b"Z\0\0\0\5I"):
            pieces.append(self.socket.recv(65_536))
            assert pieces[-1], "the server hung up"
        return pieces

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


# Passing


async def test_what_passes_is_unchanged_with_both_drivers_and_both_protocols(proxy: Proxy, postgres_url: str) -> None:
    url = proxy.url_for(postgres_url)
    assert url.rpartition("/")[2] == postgres_url.rpartition("/")[2] and url != postgres_url
    large = secrets.token_bytes(3_000_000)
    async with connected(url) as one, connected(url, ssl="disable") as other:
        assert await one.fetchval("SELECT $1::bytea", large) == large
        assert await other.fetchval("SELECT sum(n) FROM generate_series(1, 100000) AS n") == 5_000_050_000
        await other.execute("CREATE TABLE copied (n integer)")
        await other.copy_records_to_table("copied", records=[(n,) for n in range(1_000)])
        assert await other.fetchval("SELECT count(*) FROM copied") == 1_000
        with psycopg.connect(url) as third:
            assert third.execute("SELECT %s::text", ["ä" * 100_000]).fetchone() == ("ä" * 100_000,)
        assert proxy.connections == 3
    assert proxy.bytes_up > len(large) and proxy.bytes_down > len(large) and proxy.resets == 0
    await until(lambda: proxy.open == 0)


async def test_notifications_and_cancelling_get_through(proxy: Proxy, postgres_url: str) -> None:
    heard = asyncio.Event()
    async with connected(proxy.url_for(postgres_url)) as one, connected(proxy.url_for(postgres_url)) as other:
        await one.add_listener("news", lambda *_: heard.set())
        await other.execute("NOTIFY news")
        await asyncio.wait_for(heard.wait(), PATIENCE_S)
        with pytest.raises(TimeoutError):
            await one.execute("SELECT pg_sleep(60)", timeout=0.2)  # asyncpg cancels it by another connection
        assert await one.fetchval("SELECT 1", timeout=PATIENCE_S) == 1


async def test_the_end_of_one_side_is_the_end_of_the_other(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    async with connected(proxy.url_for(postgres_url)) as client:
        assert await sessions(direct) == 1
        client.terminate()
        await until_sessions(direct, 0)
    async with connected(proxy.url_for(postgres_url)) as client:
        await direct.execute("SELECT pg_terminate_backend($1)", client.get_server_pid())
        # The last: what asyncpg says when it has read why it is thrown out, and not yet that it is.
        with pytest.raises((asyncpg.AdminShutdownError, *LOST, asyncpg.InternalClientError)):
            await client.fetchval("SELECT 1", timeout=PATIENCE_S)
    assert proxy.resets == 0


async def test_a_server_that_is_not_there_is_a_lost_connection_and_then_it_is_back(private_postgres: PrivateServer) -> None:
    with Proxy("127.0.0.1", private_postgres.port) as proxy:
        url = proxy.url_for(private_postgres.url)
        private_postgres.stop()
        with pytest.raises(LOST):
            await asyncpg.connect(url, timeout=PATIENCE_S)
        private_postgres.start()
        async with connected(url) as client:
            assert await client.fetchval("SELECT 1") == 1
            private_postgres.stop("immediate")
            with pytest.raises((asyncpg.PostgresError, *LOST, asyncpg.InternalClientError)):
                await client.fetchval("SELECT 1", timeout=PATIENCE_S)


# Slow


@pytest.mark.parametrize("direction", [UP, DOWN])
async def test_a_delay_is_kept_and_ends(proxy: Proxy, postgres_url: str, direction: Direction) -> None:
    async with connected(proxy.url_for(postgres_url)) as client:
        proxy.delay(0.3, jitter=0.1, direction=direction)
        began = time.monotonic()
        await client.fetchval("SELECT 1")
        assert time.monotonic() - began >= 0.2
        proxy.heal()
        began, asked = time.monotonic(), 0
        while time.monotonic() - began < 0.2:
            await client.fetchval("SELECT 1")
            asked += 1
        assert asked > 1


async def test_a_delay_keeps_the_order(proxy: Proxy, postgres_url: str) -> None:
    proxy.delay(0.02, jitter=0.02)
    async with connected(proxy.url_for(postgres_url), ssl="disable") as client:
        assert await client.fetch("SELECT n, repeat('x', 2000) FROM generate_series(1, 500) AS n") == [
            (n, "x" * 2000) for n in range(1, 501)
        ]


async def test_slices_are_slices_and_nothing_is_lost(proxy: Proxy, postgres_url: str) -> None:
    with Bare(proxy.url_for(postgres_url)) as client:
        client.until_ready()
        proxy.slice(1)
        for _ in range(50):  # how many are read at once is up to the kernel, and to how busy the machine is
            client.ask("SELECT repeat('0123456789', 100)")
            pieces = await asyncio.to_thread(client.until_ready)
            assert b"0123456789" * 100 in b"".join(pieces)
            if len(pieces) > 10:
                break
        else:
            pytest.fail("it never came in pieces")
        assert proxy.slices > 50
    async with connected(proxy.url_for(postgres_url)) as driver:
        large = secrets.token_bytes(1_000_000)
        assert await driver.fetchval("SELECT $1::bytea", large, timeout=PATIENCE_S) == large


# Dark


@pytest.mark.parametrize("direction", ["up", "down", "both"])
async def test_a_black_hole_lets_nothing_through_and_later_all_of_it(
    proxy: Proxy, direct: asyncpg.Connection, postgres_url: str, direction: Direction
) -> None:
    async with connected(proxy.url_for(postgres_url)) as client:
        proxy.black_hole(direction=direction)
        asking = asyncio.create_task(client.execute("INSERT INTO onward_history VALUES ('here', 1)"))
        if direction == "down":  # the server heard it, and only its answer is missing
            while await direct.fetchval("SELECT count(*) FROM onward_history") == 0:
                await asyncio.sleep(0.005)
        done, _ = await asyncio.wait([asking], timeout=SILENCE_S)
        assert not done
        assert await direct.fetchval("SELECT count(*) FROM onward_history") == (1 if direction == "down" else 0)
        proxy.heal()
        assert await asking == "INSERT 0 1"
        assert await direct.fetchval("SELECT count(*) FROM onward_history") == 1


async def test_the_end_of_a_client_does_not_travel_in_the_dark(
    proxy: Proxy, direct: asyncpg.Connection, postgres_url: str
) -> None:
    locked = "SELECT id FROM onward_process WHERE id = 'p1' FOR UPDATE NOWAIT"
    async with connected(proxy.url_for(postgres_url)) as client:
        await client.transaction().start()
        await client.execute(locked)
        proxy.black_hole(direction=UP)
        client.terminate()
        await asyncio.sleep(SILENCE_S)
        assert await sessions(direct) == 1  # and it holds its lock
        with pytest.raises(asyncpg.LockNotAvailableError):
            await direct.execute(locked)
        proxy.heal()
        await until_sessions(direct, 0)
        await direct.execute(locked)


async def test_a_client_that_died_does_not_travel_in_the_dark_when_the_server_writes_to_it(
    proxy: Proxy, direct: asyncpg.Connection, postgres_url: str
) -> None:
    with Bare(proxy.url_for(postgres_url)) as client:
        client.until_ready()
        client.ask("SELECT repeat('x', 1000), pg_sleep(0.1) FROM generate_series(1, 10)")
        await asyncio.sleep(0)
        while await direct.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 0:
            await asyncio.sleep(0.005)
        proxy.black_hole(direction=UP)
    while await direct.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1:
        await asyncio.sleep(0.005)
    await asyncio.sleep(SILENCE_S)
    assert await sessions(direct) == 1
    proxy.heal()
    await until_sessions(direct, 0)


async def test_what_is_dropped_stays_dark_and_new_connections_are_well_after_healing(
    proxy: Proxy, direct: asyncpg.Connection, postgres_url: str
) -> None:
    async with connected(proxy.url_for(postgres_url)) as lost:
        proxy.black_hole(drop=True)
        with pytest.raises(TimeoutError):
            await asyncpg.connect(proxy.url_for(postgres_url), timeout=SILENCE_S)
        proxy.heal()
        async with connected(proxy.url_for(postgres_url)) as fresh:
            assert await fresh.fetchval("SELECT 1", timeout=PATIENCE_S) == 1
        asking = asyncio.create_task(lost.fetchval("SELECT 1"))
        done, _ = await asyncio.wait([asking], timeout=SILENCE_S)
        assert not done
        proxy.reset()
        with pytest.raises(LOST):
            await asking
    await until_sessions(direct, 0)


async def test_present_and_new_connections_can_have_different_weather(proxy: Proxy, postgres_url: str) -> None:
    url = proxy.url_for(postgres_url)
    async with connected(url) as present:
        proxy.black_hole(whom="new")
        assert await present.fetchval("SELECT 1") == 1
        with pytest.raises(TimeoutError):
            await asyncpg.connect(url, timeout=SILENCE_S)
        proxy.heal()
        proxy.black_hole(whom="present")
        async with connected(url) as new:
            assert await new.fetchval("SELECT 1") == 1
        with pytest.raises(TimeoutError):
            await present.fetchval("SELECT 1", timeout=SILENCE_S)


# Cut


async def test_a_reset_hits_all_who_are_there(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    url = proxy.url_for(postgres_url)
    with Bare(url) as bare:
        bare.until_ready()
        async with connected(url) as one:
            asking = asyncio.create_task(one.execute("SELECT pg_sleep(60)"))
            await until_sessions(direct, 2)
            proxy.reset()
            assert (proxy.resets, proxy.open) == (2, 0)
            with pytest.raises(LOST):
                await asking
        with pytest.raises(ConnectionResetError):
            bare.socket.recv(1)
    async with connected(url) as later:
        assert await later.fetchval("SELECT 1") == 1


async def test_refused_connections_are_refused_and_the_present_live_on(proxy: Proxy, postgres_url: str) -> None:
    url = proxy.url_for(postgres_url)
    async with connected(url) as present:
        for _ in range(2):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                await asyncpg.connect(url, timeout=PATIENCE_S)
            assert await present.fetchval("SELECT 1") == 1
            proxy.accept()
            async with connected(url) as new:
                assert await new.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("size", [1, 7, 20])
async def test_a_connection_is_cut_after_so_many_bytes(proxy: Proxy, postgres_url: str, size: int) -> None:
    with Bare(proxy.url_for(postgres_url)) as client:
        client.until_ready()
        proxy.cut_after(size)
        client.ask("SELECT 12345678901234567890")
        came = b""
        with pytest.raises(ConnectionResetError):
            while True:
                came += await asyncio.to_thread(client.socket.recv, 100)
        assert len(came) <= size and proxy.resets == 1
    before = proxy.bytes_down
    proxy.heal()
    proxy.cut_after(100, whom="new")
    with pytest.raises(LOST):
        await asyncpg.connect(proxy.url_for(postgres_url), ssl="disable", timeout=PATIENCE_S)
    await until(lambda: proxy.open == 0)
    assert proxy.bytes_down == before + 100


async def test_a_request_that_is_cut_never_happens(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    async with connected(proxy.url_for(postgres_url)) as client:
        proxy.cut_after(25, direction=UP)
        with pytest.raises(LOST):
            await client.execute("INSERT INTO onward_history VALUES ('a', 1)", timeout=PATIENCE_S)
    await until_sessions(direct, 0)
    assert await versions(direct) == (0, 0)


# Not knowing


@pytest.mark.parametrize("then", ["reset", "hang"])
async def test_a_swallowed_answer_to_a_group_commit_is_committed(
    proxy: Proxy, direct: asyncpg.Connection, postgres_url: str, then: Then
) -> None:
    async with connected(proxy.url_for(postgres_url)) as client:
        group = await client.prepare(GROUP)
        assert await group.fetchval(["p1"]) == ["p1"]
        proxy.swallow_answers(then=then)
        assert await client.fetchval("SELECT 1") == 1  # nothing else is touched
        with pytest.raises(LOST if then == "reset" else TimeoutError):
            await group.fetchval(["p1", "p2"], timeout=PATIENCE_S if then == "reset" else 1.0)
        assert proxy.swallowed == 1  # the proxy had the answer in its hands
        assert await versions(direct) == (3, 3)
        proxy.heal()
    assert proxy.resets == (1 if then == "reset" else 0)


async def test_a_swallowed_request_did_not_happen(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    async with connected(proxy.url_for(postgres_url)) as client:
        group = await client.prepare(GROUP)
        await group.fetchval(["p1"])
        proxy.swallow_requests(times=1)
        with pytest.raises(LOST):
            await group.fetchval(["p1", "p2"], timeout=PATIENCE_S)
    await until_sessions(direct, 0)
    assert (proxy.requests_swallowed, proxy.swallowed, proxy.resets) == (1, 0, 1)
    assert await versions(direct) == (1, 1)
    async with connected(proxy.url_for(postgres_url)) as client:
        assert await client.fetchval(GROUP, ["p1"]) == ["p1"]


@pytest.mark.parametrize("end", ["swallow_answers", "swallow_requests"])
async def test_of_an_explicit_transaction_only_the_commit_counts(
    proxy: Proxy, direct: asyncpg.Connection, postgres_url: str, end: str
) -> None:
    async with connected(proxy.url_for(postgres_url)) as client:
        if end == "swallow_answers":
            proxy.swallow_answers()
        else:
            proxy.swallow_requests(matches=lambda sql: sql.startswith("COMMIT"))
        async with asyncio.timeout(PATIENCE_S):
            transaction = client.transaction()
            await transaction.start()
            assert await client.fetchval(GROUP, ["p1", "p2"]) == ["p1", "p2"]
            await transaction.rollback()
            assert proxy.swallowed == proxy.requests_swallowed == 0
            transaction = client.transaction()
            await transaction.start()
            assert await client.fetchval(GROUP, ["p1", "p2"]) == ["p1", "p2"]
            with pytest.raises(LOST):
                await transaction.commit()
    await until_sessions(direct, 0)
    assert proxy.swallowed + proxy.requests_swallowed == 1
    assert await versions(direct) == ((2, 2) if end == "swallow_answers" else (0, 0))


async def test_what_failed_is_answered(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    proxy.swallow_answers()
    async with connected(proxy.url_for(postgres_url)) as client:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await client.execute("INSERT INTO onward_history SELECT 'x', 1 / 0")
        transaction = client.transaction()
        await transaction.start()
        with pytest.raises(asyncpg.DivisionByZeroError):
            await client.execute("SELECT 1 / 0")
        assert await client.execute("COMMIT") == "ROLLBACK"
    assert proxy.swallowed == 0


async def test_every_third_and_no_more_than_twice(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    proxy.swallow_answers(every=3, times=2)
    lost = []
    for n in range(10):
        async with connected(proxy.url_for(postgres_url)) as client:
            try:
                await client.fetchval(GROUP, [f"p{n}"], timeout=PATIENCE_S)
            except LOST:
                lost.append(n)
    assert lost == [2, 5] and proxy.swallowed == 2
    assert await versions(direct) == (10, 10)


async def test_many_at_once_each_lost_answer_was_a_commit(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    """Two traps, ten clients: lost answers are committed, lost requests are not, and the sums agree."""
    proxy.swallow_answers(every=3)
    proxy.swallow_requests(every=5)
    heard = 0

    async def client(n: int) -> None:
        nonlocal heard
        for _ in range(20):
            async with connected(proxy.url_for(postgres_url)) as connection:
                try:
                    for _ in range(20):
                        await connection.fetchval(GROUP, [f"p{n}"], timeout=PATIENCE_S)
                        heard += 1
                except LOST:
                    pass

    await asyncio.gather(*(client(n) for n in range(10)))
    await until_sessions(direct, 0)
    assert heard >= 50 and proxy.swallowed >= 20 and proxy.requests_swallowed >= 10
    assert await versions(direct) == (heard + proxy.swallowed,) * 2


async def test_a_pipeline_of_psycopg_is_understood_too(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    def talk() -> None:
        with psycopg.connect(proxy.url_for(postgres_url), autocommit=True) as client, client.pipeline():
            client.execute("SELECT 1")
            client.execute("INSERT INTO onward_history VALUES ('piped', %s)", [1])
            client.execute("SELECT 2")

    proxy.swallow_answers()
    with pytest.raises(psycopg.OperationalError):
        await asyncio.to_thread(talk)
    assert proxy.swallowed == 1
    assert await direct.fetchval("SELECT count(*) FROM onward_history") == 1


async def test_traps_and_weather_do_not_disturb_each_other(proxy: Proxy, direct: asyncpg.Connection, postgres_url: str) -> None:
    proxy.slice(1)
    proxy.delay(0.01, jitter=0.01)
    proxy.swallow_answers(every=2, times=1)
    async with connected(proxy.url_for(postgres_url)) as client:
        assert await client.fetchval(GROUP, ["p1"], timeout=PATIENCE_S) == ["p1"]
        with pytest.raises(LOST):
            await client.fetchval(GROUP, ["p1"], timeout=PATIENCE_S)
    assert await versions(direct) == (2, 2)


# The house


async def test_it_works_beside_a_busy_tool(proxy: Proxy, postgres_server: Server, postgres_url: str) -> None:
    """pgbench, C and libpq, as a load that knows nothing of us; a name it executes is one it prepared."""
    bench = str(postgres_server.bin / "pgbench")
    await asyncio.to_thread(subprocess.run, [bench, "-i", "-q", postgres_url], check=True, capture_output=True, timeout=60)
    command = [bench, "-M", "prepared", "-c", "4", "-t", "100", "-n", proxy.url_for(postgres_url)]
    done = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True, timeout=60)
    assert "transactions actually processed: 400/400" in done.stdout


def test_nothing_is_left_of_a_proxy_that_ends_in_the_midst_of_everything(postgres_url: str) -> None:
    before = threading.active_count()
    target = urlsplit(postgres_url)
    with Proxy(target.hostname or "", target.port or 5432) as proxy:
        clients = [Bare(proxy.url_for(postgres_url)) for _ in range(10)]
        for client in clients:
            client.until_ready()
        proxy.black_hole()
        for client in clients[:5]:
            client.ask("SELECT 1")
        clients[0].socket.close()
    for client in clients:
        client.socket.close()
    assert threading.active_count() == before and proxy.open == 0
    with pytest.raises(ConnectionRefusedError):
        Bare(proxy.url_for(postgres_url))


@pytest.mark.parametrize("noise", [b"\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\0\0\0\x04" * 3])
def test_what_is_no_protocol_is_passed_as_it_comes(noise: bytes) -> None:
    dialogue = Dialogue()
    assert b"".join(message for message, _ in dialogue.up(noise)) == noise
    assert b"".join(dialogue.down(noise)) == noise


def test_an_encrypted_connection_is_passed_as_it_comes() -> None:
    dialogue = Dialogue()
    request = struct.pack("!II", 8, 80877103)
    assert list(dialogue.up(request)) == [(request, None)]
    assert list(dialogue.down(b"S")) == [b"S"]
    hello = secrets.token_bytes(300)
    assert list(dialogue.up(hello)) == [(hello, None)] and list(dialogue.down(hello)) == [hello]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"2\0\0\0\4" b"C\0\0\0\x0dSELECT 1\0" b"Z\0\0\0\5I", True),
        (b"C\0\0\0\x0bCOMMIT\0" b"Z\0\0\0\5I", True),
        (b"C\0\0\0\x0dROLLBACK\0" b"Z\0\0\0\5I", False),
        (b"C\0\0\0\x0fINSERT 0 1\0" b"Z\0\0\0\5T", False),
        (b"E\0\0\0\5\0" b"Z\0\0\0\5I", False),
        (b"Z\0\0\0\5I", False),
    ],
)  # fmt: skip
def test_what_says_committed(answer: bytes, verdict: bool) -> None:
    assert committed(answer) is verdict
