"""Several programs on one SQLite file: nothing twice, nothing lost, and nobody waits for the dead."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from onward.clock import SystemClock
from onward.store.sqlite.store import SqliteStore
from onward.testing.contract.rows import agree, claimed, moved, new

PATIENCE_S = 60.0  # of this file with a program that should have ended


class Program:
    """Another program: `script` runs inside an event loop with `store` open, and may `say` things to us."""

    HEAD = """
        import asyncio, json, sys, time
        from dataclasses import replace
        from onward.clock import SystemClock
        from onward.errors import StoreError
        from onward.store.sqlite import writer
        from onward.store.sqlite.store import SqliteStore
        from onward.testing.contract.rows import *

        def say(*words):
            print(json.dumps(words), flush=True)

        async def main(path, *given):
            store = SqliteStore(path, SystemClock())
            await store.open()
            try:
                await script(store, *given)
            finally:
                await store.close()
    """

    def __init__(self, script: str, path: Path, *given: object) -> None:
        text = (
            textwrap.dedent(self.HEAD) + "\nasync def script(store, *given):\n" + textwrap.indent(textwrap.dedent(script), "    ")
        )
        command = [sys.executable, "-c", text + "\nasyncio.run(main(*sys.argv[1:]))", str(path), *map(str, given)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def heard(self) -> list:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program ended without a word"
        return json.loads(line)

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def rest(self) -> list[list]:
        """What it said until it ended well, or was killed in the middle of a line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        out = self.process.stdout.read()
        self.process.wait(PATIENCE_S)
        return [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith("\n")]

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "onward.db"


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def store(path: Path):
    store = SqliteStore(str(path), SystemClock())
    await store.open()
    yield store
    await store.close()


def look(path: Path, question: str) -> list:
    """What a program that comes, reads and goes finds in the file."""
    script = """if True:
        import json, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1])
        print(json.dumps(connection.execute(sys.argv[2]).fetchall()))
        connection.close()
    """
    done = subprocess.run([sys.executable, "-c", script, str(path), question], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


# -- working side by side ---------------------------------------------------------------------------------------------

WORK = """
    owner, writer.CHECKPOINT_AFTER = given[0], 500
    say("ready"); sys.stdin.readline()
    for turn in range(10_000):
        records = await store.claim(KNOWN, owner, 40, LEASE)
        say("claimed", [(record.id, record.epoch) for record in records])
        if not records:
            if await store.next_due(KNOWN) is None:
                break
            await store.wait_for_change(0.05)
            continue
        again = [await store.commit(records[0], moved(records[0], data='{"n":1}'))]
        again += await asyncio.gather(*(store.commit(r, moved(r, data='{"n":1}')) for r in records[1:]))
        await asyncio.gather(*(store.commit(r, finished(r)) for r in again))
"""


@pytest.mark.parametrize("programs", [2, 4])
async def test_programs_that_share_a_file_claim_each_process_once_and_never_see_it_busy(
    path: Path, stack: ExitStack, programs: int
):
    store = SqliteStore(str(path), SystemClock())
    await store.open()
    rows = 2_000
    for begin in range(0, rows, 500):
        await store.insert([new(f"p{n:04}") for n in range(begin, begin + 500)], "ann")
    workers = [stack.enter_context(Program(WORK, path, f"worker-{n}")) for n in range(programs)]
    assert [worker.heard() for worker in workers] == [["ready"]] * programs
    for worker in workers:
        worker.tell("go")
    log, longest = Path(f"{path}-wal"), 0
    talk = [asyncio.create_task(asyncio.to_thread(worker.rest)) for worker in workers]
    while not all(task.done() for task in talk):
        longest = max(longest, log.stat().st_size)
        await asyncio.wait(talk, timeout=0.01)
    claims: Counter[str] = Counter()
    for worker, task in zip(workers, talk, strict=True):
        assert worker.process.returncode == 0  # any StoreError would have ended it
        claims.update(id for _, rows in await task for id, _ in rows)
    assert len(claims) == rows and set(claims.values()) == {1}
    assert all(any(rows for _, rows in task.result()) for task in talk)  # each one had its share
    assert longest < 16_000_000
    await store.close()
    assert look(path, "PRAGMA integrity_check") == [["ok"]]
    answer = look(path, "SELECT condition, version, epoch, count(*) FROM onward_process GROUP BY 1, 2, 3")
    assert answer == [["finished", 2, 1, rows]]
    assert look(path, "SELECT version, count(*) FROM onward_history GROUP BY 1") == [[0, rows], [1, rows], [2, rows]]


async def test_a_second_store_in_one_program_costs_the_first_one_none_of_its_writes(path: Path):
    stores = [SqliteStore(str(path), SystemClock()) for _ in range(2)]
    for number, store in enumerate(stores):
        await store.open()
        await store.insert([new(f"a{number}")], "ann")
    count = "SELECT count(*) FROM onward_process"
    assert look(path, count) == [[2]]  # it comes and goes; if it believes to be the last one, it takes the log with it
    for number, store in enumerate(stores):
        await store.insert([new(f"b{number}")], "ann")
    assert look(path, count) == [[4]]
    for store in stores:
        await store.close()
    assert look(path, count) == [[4]]


# -- hearing of each other --------------------------------------------------------------------------------------------

TALK = """
    await store.insert([new("talk")], "bob")
    say("ready")
    for number, word in enumerate(sys.stdin):
        if word.strip() == "start":
            await store.insert([new(f"started-{number}")], "bob")
        else:
            seen = await store.get("talk")
            await store.act(seen, paused(seen), "bob", None)
        say(time.monotonic())
"""


async def test_what_another_program_starts_or_asks_for_is_noticed_within_100_ms(store: SqliteStore, path: Path):
    delays = []
    with Program(TALK, path) as other:
        await asyncio.to_thread(other.heard)
        for trial in range(20):
            waiting = asyncio.create_task(store.wait_for_change(5))
            await asyncio.sleep(0.01 + trial * 0.0037)  # at any point between two of its looks
            other.tell("act" if trial % 2 else "start")
            [done] = await asyncio.to_thread(other.heard)
            await waiting
            delays.append(time.monotonic() - done)
    assert statistics.median(delays) < 0.1 and max(delays) < 1, delays


async def test_waiting_without_news_costs_next_to_no_processor_time(store: SqliteStore):
    await store.wait_for_change(0.06)
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    await store.wait_for_change(1.0)
    after, took = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - begun
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    assert 0.9 < took < 2 and used < 0.05 * took


# -- sudden death -----------------------------------------------------------------------------------------------------

WRITE = """
    records = await claimed(store, *(f"{given[0]}-{n}" for n in range(40)))
    say("ready")
    for turn in range(1_000_000):
        data = json.dumps({"fill": "x" * 4_000, "turn": turn})
        records = await asyncio.gather(*(store.commit(r, moved(r, data=data)) for r in records))
        say("written", records[0].version)
"""


def held_elsewhere(path: Path) -> bool:
    """Whether another program is inside a write just now."""
    file = os.open(f"{path}-lock", os.O_RDWR)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


async def test_a_program_killed_in_the_middle_of_a_write_holds_up_nobody_and_takes_nothing_back(store: SqliteStore, path: Path):
    [record] = await claimed(store, "ours")
    for death in range(6):
        with Program(WRITE, path, f"victim-{death}") as victim:
            await asyncio.to_thread(victim.heard)
            said = await asyncio.to_thread(victim.heard)
            for _ in range(2_000):
                victim.process.send_signal(signal.SIGSTOP)  # so that it is certain where it stands
                os.waitpid(victim.process.pid, os.WUNTRACED)
                if held_elsewhere(path):
                    break
                victim.process.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.0005)
            else:
                pytest.fail("it was never caught writing")
            commit = asyncio.create_task(store.commit(record, moved(record)))
            done, _ = await asyncio.wait({commit}, timeout=0.05)
            assert not done  # it has to wait, as long as the other one lives
            victim.process.kill()
            begun = time.monotonic()
            record = await commit
            assert time.monotonic() - begun < 1
            said = [*[said], *await asyncio.to_thread(victim.rest)][-1]
            for n in range(40):
                row = await agree(store, f"victim-{death}-{n}")
                assert row.version >= said[1]  # what it was told is written is there
    assert record.version == 6
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
