"""What is said of a write is true: acknowledged is durable, refused is told to nobody, and old news ends nothing."""

from __future__ import annotations

import asyncio
import json
import platform
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import PATIENCE_S, Job, Leg, Step, Trip, kinds, one_stage, opened, work_off, working

from onward import END, Condition, Context, Event, Every, Flow, Record, StoreError, stage
from onward.decide import Change
from onward.store.sqlite.store import SqliteStore
from onward.testing import ManualClock
from onward.testing.contract.rows import KNOWN, LEASE, new

# -- a disk that cannot flush -----------------------------------------------------------------------------------------

CANNOT_FLUSH = """
    import asyncio, ctypes, json, platform, sys
    from onward.store.sqlite.store import SqliteStore
    from onward.testing import ManualClock
    from onward.testing.contract.rows import claimed, moved, verdict

    FLUSHES = {"x86_64": (74, 75), "aarch64": (82, 83)}[platform.machine()]  # fsync and fdatasync
    EIO, LOAD, EQUAL, RETURN, REFUSE, ALLOW = 5, 0x20, 0x15, 0x06, 0x00050000, 0x7FFF0000

    class Instruction(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]

    def refuse_flushes():
        asked = [(LOAD, 0, 0, 0), (EQUAL, 1, 0, FLUSHES[0]), (EQUAL, 0, 1, FLUSHES[1])]
        lines = [*asked, (RETURN, 0, 0, REFUSE | EIO), (RETURN, 0, 0, ALLOW)]
        program = Program(len(lines), (Instruction * len(lines))(*lines))
        libc = ctypes.CDLL(None, use_errno=True)
        done = libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0)  # no new privileges; seccomp
        if done:
            print(json.dumps("refused"))
            sys.exit()

    async def main():
        store = SqliteStore(sys.argv[1], ManualClock())
        await store.open()
        records = await claimed(store, "a", "b", "c")
        begin = [moved(record, data='{"n": 1}') for record in records]
        records = [await store.commit(record, change) for record, change in zip(records, begin)]
        await verdict(store._write(lambda _: refuse_flushes()))  # on the thread that writes
        alone = [await verdict(store.commit(records[0], moved(records[0], data='{"n": 2}')))]
        group = await asyncio.gather(*(verdict(store.commit(record, moved(record, data='{"n": 2}'))) for record in records[1:]))
        person = [await verdict(store.act(records[0], moved(records[0]), "ann", None))]
        print(json.dumps([f"{type(answer).__name__}: {answer}" for answer in (*alone, *group, *person)]))

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux's seccomp")
def test_what_cannot_be_flushed_is_acknowledged_to_nobody(path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CANNOT_FLUSH), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    if (answers := json.loads(done.stdout)) == "refused":
        pytest.skip("this system lets no program give up system calls")
    assert len(answers) == 4
    for answer in answers:
        assert answer.startswith("StoreError: ") and "IOERR" in answer, answer
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        stands = raw.execute(
            "SELECT p.version, max(h.version), count(*) FROM onward_process AS p JOIN onward_history AS h ON h.process_id = p.id "
            "GROUP BY p.id"
        ).fetchall()
    assert len(stands) == 3
    for version, last, entries in stands:  # nobody was told, so either is true
        assert version == last == entries - 1 and version in (1, 2)


# -- beside a guest ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(str(path), ManualClock())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def guest(path: Path, store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """Another program, which writes to the file and knows nothing of our lock. It has begun."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


async def after_the_guest(guest: sqlite3.Connection, write: Awaitable[Any]) -> Any:
    """What it comes to, if the guest commits while it waits."""
    task = asyncio.ensure_future(write)
    done, _ = await asyncio.wait({task}, timeout=0.1)
    assert not done
    guest.execute("COMMIT")
    return await asyncio.wait_for(task, PATIENCE_S)


async def test_a_claim_waits_for_a_guest_and_takes_what_he_started(store: SqliteStore, guest: sqlite3.Connection) -> None:
    guest.execute("ROLLBACK")
    await store.insert([new("ours")], "ann")
    guest.execute("BEGIN IMMEDIATE")
    await store.insert([new("his")], "bob", guest)
    records = await after_the_guest(guest, store.claim(KNOWN, "worker-a", 9, LEASE))
    assert {record.id for record in records} == {"ours", "his"}


async def test_a_start_waits_for_a_guest_and_finds_what_he_started(store: SqliteStore, guest: sqlite3.Connection) -> None:
    await store.insert([new("his")], "bob", guest)
    assert await after_the_guest(guest, store.insert([new("his"), new("ours")], "ann")) == [False, True]


# -- whoever is told --------------------------------------------------------------------------------------------------


async def test_nobody_is_told_of_a_commit_that_was_refused(file_url: str) -> None:
    begun, stubborn_once_more = asyncio.Event(), asyncio.Event()
    told: list[Event] = []

    async def stubborn(job: Job) -> Literal[Step.DONE]:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stubborn_once_more.set()
        return Step.DONE

    async with opened(one_stage(stubborn), url=file_url, observers=[told.append]) as app:
        async with working(app):
            await app.start(Job(id="a"))
            await begun.wait()
            await app.pause("a")
            await stubborn_once_more.wait()
        assert (await app.get("a")).condition is Condition.PAUSED
    assert "moved" not in [event.kind for event in told]


async def test_a_transition_whose_answer_was_lost_is_made_once(url: str) -> None:
    """The store does what it is told and says that it could not, once for each version up to the last one."""
    lost: set[int] = set()

    def forgetting(commit: Callable[..., Awaitable[Record]]) -> Callable[..., Coroutine[Any, Any, Record]]:
        async def commit_and_forget(record: Record, change: Change) -> Record:
            after = await commit(record, change)
            if record.version in lost or record.version > 3:
                return after
            lost.add(record.version)
            raise StoreError("the answer was lost")

        return commit_and_forget

    async def note(trip: Trip, ctx: Context) -> None:
        trip.log.append(f"{trip.status} {ctx.record.version}")

    async def book(trip: Trip, ctx: Context) -> Literal[Leg.TRAVEL]:
        await note(trip, ctx)
        return Leg.TRAVEL

    async def travel(trip: Trip, ctx: Context) -> Literal[Leg.TRAVEL, Leg.CLEAN]:
        await note(trip, ctx)
        return Leg.CLEAN if ctx.record.polls else Leg.TRAVEL

    async def clean(trip: Trip, ctx: Context) -> Literal[Leg.OVER]:
        await note(trip, ctx)
        return Leg.OVER

    flow = Flow(Trip, {Leg.BOOK: book, Leg.TRAVEL: stage(travel, every=Every(0.01)), Leg.CLEAN: clean, Leg.OVER: END})
    async with opened(flow, url=url) as app:
        app.store.commit = forgetting(app.store.commit)  # type: ignore[method-assign]
        await app.start(Trip(id="a"))
        await work_off(app)
        done = await app.get("a")
        assert kinds(await app.history("a")) == ["started", "moved", "not yet", "moved", "moved"]
        assert (done.version, lost) == (4, {0, 1, 2, 3})
        assert done.process.log == ["book 0", "travel 1", "travel 2", "clean 3"]


async def test_a_handler_that_blocks_the_event_loop_has_a_lease_all_the_while(path: Path, file_url: str) -> None:
    left: list[float] = []

    async def block(job: Job) -> Literal[Step.DONE]:
        with closing(sqlite3.connect(path)) as raw:
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                time.sleep(0.05)
                [over] = raw.execute("SELECT lease_until FROM onward_process").fetchone()
                left.append(over / 1e6 - time.time())
        return Step.DONE

    async with opened(one_stage(block), url=file_url) as app:
        await app.start(Job(id="a"))
        await work_off(app, lease=1.0)
    assert len(left) >= 5 and min(left) > 0, left


async def test_news_of_an_older_lease_ends_nothing(file_url: str) -> None:
    """A heartbeat asks of a lease that a person takes away; when it hears so, the worker has the process again."""
    begun, end = asyncio.Event(), asyncio.Event()
    begins = 0
    asked, may_ask, asked_again = threading.Event(), threading.Event(), threading.Event()

    async def hold(job: Job) -> Literal[Step.DONE]:
        nonlocal begins
        begins += 1
        begun.set()
        await end.wait()
        return Step.DONE

    def late(renew: Callable[..., set[str]]) -> Callable[..., set[str]]:
        def renew_late(*about: Any) -> set[str]:
            if asked.is_set():
                asked_again.set()
            asked.set()
            may_ask.wait(PATIENCE_S)
            return renew(*about)

        return renew_late

    async with opened(one_stage(hold), url=file_url) as app:
        app.store.renew = late(app.store.renew)  # type: ignore[method-assign]
        async with working(app, lease=2.0):
            await app.start(Job(id="a"))
            await begun.wait()
            begun.clear()
            assert await asyncio.to_thread(asked.wait, PATIENCE_S)
            await app.pause("a")
            await app.resume("a")
            await begun.wait()  # it is ours again
            may_ask.set()
            assert await asyncio.to_thread(asked_again.wait, PATIENCE_S)
            end.set()
            done = await app.wait("a")
        assert (done.condition, begins) == (Condition.FINISHED, 2)
        assert kinds(await app.history("a")) == ["started", "paused", "resumed", "moved"]
