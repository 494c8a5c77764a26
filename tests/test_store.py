"""The SQLite store: the contract of every store, in memory and on a file, and what is particular to files."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections import Counter
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum, auto
from operator import itemgetter
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from onward import END, Every, Flow, Process, Retry, decide, stage
from onward.decide import Change
from onward.errors import Conflict, Fenced, OnwardError, Refused, StoreError
from onward.ports import Search
from onward.process import Condition, Entry, Record
from onward.store import open_store
from onward.store.files import file_system_of, refuse_network_file_system
from onward.store.sqlite import SqliteStore
from onward.testing import ManualClock, StoreContract
from onward.testing.contract import KNOWN, LEASE, agree, bare, claimed, moved, new, verdict


class SqliteUser:
    """Somebody who keeps notes of his own in the database of the store."""

    def __init__(self, store: SqliteStore):
        self.database = store._memory or store.path
        with closing(self.connect()) as connection:
            connection.execute("CREATE TABLE note (text TEXT NOT NULL UNIQUE)")

    def connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.database, uri=self.database.startswith("file:"), isolation_level=None)

    async def note(self, connection: sqlite3.Connection, text: str) -> None:
        connection.execute("INSERT INTO note VALUES (?)", (text,))

    async def notes(self) -> set[str]:
        with closing(self.connect()) as connection:
            return {text for (text,) in connection.execute("SELECT text FROM note")}

    @asynccontextmanager
    async def connected(self, *, commit: bool):
        with closing(self.connect()) as connection:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT" if commit else "ROLLBACK")


class SqliteContract(StoreContract):
    @pytest.fixture
    async def user(self, store: SqliteStore) -> SqliteUser:
        return SqliteUser(store)


class TestInMemory(SqliteContract):
    @pytest.fixture
    async def store(self, clock: ManualClock):
        store = SqliteStore(":memory:", clock)
        await store.open()
        yield store
        await store.close()


class TestOnAFile(SqliteContract):
    @pytest.fixture
    async def store(self, clock: ManualClock, tmp_path: Path):
        async for store in opened(tmp_path / "onward.db", clock):
            yield store

    @pytest.fixture
    async def rival(self, store, clock: ManualClock, tmp_path: Path):
        async for rival in opened(tmp_path / "onward.db", clock):
            yield rival


async def opened(path: Path, clock: ManualClock):
    store = SqliteStore(str(path), clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "onward.db"


@pytest.fixture
async def store(path: Path):
    async for store in opened(path, ManualClock()):
        yield store


def run_script(script: str, *args: object, prefix: tuple[str, ...] = ()) -> str:
    """Runs `script` in another program and answers what it printed; it has to end well."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_open_below(folder: Path) -> list[str]:
    here = Path("/proc/self/fd")
    if not here.exists():
        pytest.skip("this system does not tell which files are open")
    links = [os.readlink(link) for link in here.iterdir() if link.is_symlink()]
    return [link for link in links if link.startswith(str(folder))]


def test_the_clock_for_tests_needs_no_pytest_and_the_contract_is_fetched_when_asked_for():
    run_script("""
        import sys
        sys.modules["pytest"] = None  # as if it were not installed
        import onward.testing
        clock = onward.testing.ManualClock()
        begun = clock.now()
        assert (clock.advance(1.5) - begun).total_seconds() == 1.5 == clock.monotonic()
        clock.jump(-3600)
        assert clock.monotonic() == 1.5 and clock.now() < begun
        for wrong in (lambda: clock.advance(-1), lambda: onward.testing.NoSuch, lambda: onward.testing.StoreContract):
            try:
                wrong()
            except (ValueError, AttributeError, ImportError):
                continue
            sys.exit("let through")
    """)


# -- the file and what guards it --------------------------------------------------------------------------------------


async def test_the_file_and_all_beside_it_are_for_their_owner_only_whatever_the_umask(path: Path):
    before = os.umask(0)
    try:
        store = SqliteStore(str(path), ManualClock())
        await store.open()
        [record] = await claimed(store, "a")
        await asyncio.to_thread(store.renew, "worker-a", {"a": record.epoch}, LEASE)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("onward.db", "onward.db-wal", "onward.db-shm", "onward.db-lock"), 0o600)


async def test_every_connection_writes_ahead_and_flushes_what_it_acknowledges(path: Path, monkeypatch: pytest.MonkeyPatch):
    connections = []

    def connect(*args, **more):
        connections.append(sqlite3.Connection(*args, **more))
        return connections[-1]

    monkeypatch.setattr("onward.store.sqlite.sqlite3.connect", connect)
    async for store in opened(path, ManualClock()):
        [record] = await claimed(store, "a")
        await asyncio.to_thread(store.renew, "worker-a", {"a": record.epoch}, LEASE)
        assert len(connections) >= 3  # writing, reading, renewing
        for connection in connections:
            pragmas = ["journal_mode", "synchronous", "wal_autocheckpoint", "mmap_size"]
            assert [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas] == ["wal", 2, 0, 0]
            assert connection.execute("PRAGMA busy_timeout").fetchone()[0] >= 1_000


async def test_eight_that_open_a_new_file_at_once_all_can(path: Path):
    stores = [SqliteStore(str(path), ManualClock()) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    fresh = await asyncio.gather(*(store.insert([new("a")], "ann") for store in stores))
    assert sorted(fresh) == [[False]] * 7 + [[True]]
    for store in stores:
        await store.close()
    assert {file.name for file in path.parent.iterdir()} <= {"onward.db", "onward.db-lock"}


async def test_the_database_itself_refuses_a_row_that_would_be_stuck(store: SqliteStore, path: Path):
    await claimed(store, "a")
    raw = sqlite3.connect(path, isolation_level=None)
    rests = ("finished", "cancelled", "failed", "paused")
    stuck = [f"condition = '{name}'" for name in rests]
    stuck += [
        f"due_at = NULL, owner = NULL, lease_until = NULL, condition = '{name}'" for name in ("ready", "waiting", "retrying")
    ]
    stuck += ["due_at = NULL", "owner = NULL", "lease_until = NULL", "condition = 'asleep'", "condition = 'running'"]
    stuck += ["condition = 'finished', due_at = NULL", "due_at = 'soon'", "condition = NULL", "id = NULL"]
    for change in stuck:
        with pytest.raises(sqlite3.IntegrityError):
            raw.execute(f"UPDATE onward_process SET {change}")
    for name in rests:
        raw.execute(f"UPDATE onward_process SET condition = '{name}', due_at = NULL, owner = NULL, lease_until = NULL")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):  # nor is a version written twice
        raw.execute("UPDATE onward_process SET version = version")
    raw.close()


async def test_reading_goes_on_beside_somebody_who_writes(store: SqliteStore, path: Path):
    await claimed(store, "a")
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    raw.execute("UPDATE onward_process SET data = '{}'")
    async with asyncio.timeout(2):
        record = await store.get("a")
        assert record is not None and record.data == '{"n": 0}'
        assert len(await store.find(Search())) == len(await store.counts()) == len(await store.history("a")) == 1
    raw.execute("ROLLBACK")
    raw.close()


# -- what cannot be opened --------------------------------------------------------------------------------------------


async def refused(path: Path | str) -> StoreError:
    """The error of opening `path`, which leaves no file open behind it."""
    with pytest.raises(StoreError) as caught:
        await SqliteStore(str(path), ManualClock()).open()
    assert str(path) in str(caught.value)
    assert files_open_below(Path(path).parent) == []
    return caught.value


async def test_a_missing_folder_is_named_and_how_to_make_it(tmp_path: Path):
    error = await refused(tmp_path / "no" / "such" / "onward.db")
    assert error.hint == f"make its folder: mkdir -p {tmp_path}/no/such"
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_in_place_of_the_file_is_refused(path: Path):
    path.mkdir()
    assert "directory" in str(await refused(path)).lower()


async def test_a_lock_file_that_cannot_be_opened_is_refused(path: Path):
    Path(f"{path}-lock").mkdir()
    error = await refused(path)
    assert f"{path}-lock" in str(error) and "writable" in error.hint


@pytest.mark.parametrize("content", [b"Dear diary, " * 1_000, b"short", b"SQLite format 3\0" + b"\xff" * 4_080])
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path: Path, content: bytes):
    path.write_bytes(content)
    error = await refused(path)
    assert "not a database" in str(error) and "one that does not exist yet" in error.hint
    assert path.read_bytes() == content


async def test_a_database_of_a_newer_onward_is_refused_and_left_as_it_is(path: Path):
    async for store in opened(path, ManualClock()):
        await claimed(store, "a")
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("INSERT INTO onward_schema VALUES (99)")
    before = list(raw.iterdump())
    raw.close()
    error = await refused(path)
    assert "schema 99" in str(error) and "knows schema 2" in str(error) and "upgrade" in error.hint
    raw = sqlite3.connect(path)
    assert list(raw.iterdump()) == before
    raw.close()


READ_ONLY = """
    import asyncio, os, sys
    from onward.errors import StoreError
    from onward.store.sqlite import SqliteStore
    from onward.testing import ManualClock

    if len(sys.argv) > 2 and os.geteuid() == 0:  # no mode stops root: be somebody else
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    for name in ("onward.db", "new.db"):
        path = os.path.join(sys.argv[1], name)
        try:
            asyncio.run(SqliteStore(path, ManualClock()).open())
        except StoreError as error:
            assert path in str(error) and "writable" in error.hint, (error, error.hint)
        else:
            sys.exit(f"{path} was opened")
"""


async def test_a_file_and_folder_without_the_right_to_write_are_refused(tmp_path: Path):
    async for store in opened(tmp_path / "onward.db", ManualClock()):
        await claimed(store, "a")
    (tmp_path / "onward.db").chmod(0o444)
    tmp_path.chmod(0o555)
    above = [folder for folder in tmp_path.parents if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001]
    modes = {folder: folder.stat().st_mode for folder in above}
    try:
        for folder in above:  # only so that somebody else can come as far as here
            folder.chmod(modes[folder] | 0o011)
        run_script(READ_ONLY, tmp_path, "as somebody else")
    finally:
        tmp_path.chmod(0o755)
        for folder, mode in modes.items():
            folder.chmod(mode)


async def test_a_read_only_file_system_is_refused(tmp_path: Path):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("needs a mount namespace of one's own")
    async for store in opened(tmp_path / "onward.db", ManualClock()):
        await claimed(store, "a")
    mount = f"mount --bind '{tmp_path}' '{tmp_path}' && mount -o remount,bind,ro '{tmp_path}' && exec \"$@\""
    run_script(READ_ONLY, tmp_path, prefix=("unshare", "-Urm", "sh", "-c", mount, "sh"))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/data/onward.db", "ext4"),
        ("/srv/data2/onward.db", "ext4"),
        ("/srv/nfs/onward.db", "nfs4"),
        ("/srv/nfs/local/onward.db", "xfs"),
        ("/srv/my disk/onward.db", "cifs"),
        ("/srv/over/onward.db", "fuse.sshfs"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_and_latest_mount(path: str, kind: str):
    mounts = "\n".join(
        [
            "/dev/sda1 / ext4 rw 0 0",
            "server:/x /srv/nfs nfs4 rw 0 0",
            "/dev/sdb1 /srv/nfs/local xfs rw 0 0",
            "//host/share /srv/my\\040disk cifs rw 0 0",
            "/dev/sdc1 /srv/over ext4 rw 0 0",
            "host: /srv/over fuse.sshfs rw 0 0",
            "nonsense",
        ]
    )
    assert file_system_of(path, mounts) == kind
    if kind in ("ext4", "xfs"):
        refuse_network_file_system(path, mounts)
    else:
        with pytest.raises(StoreError, match=f"network file system \\({kind}\\)") as caught:
            refuse_network_file_system(path, mounts)
        assert "local disk" in caught.value.hint
    assert file_system_of(path, "") == ""


def test_a_url_that_names_no_store_is_refused_with_what_would():
    for url in ("onward.db", "sqlite://onward.db", "mysql:///x", "sqlite:///", ""):
        with pytest.raises(StoreError) as caught:
            open_store(url, ManualClock())
        assert "sqlite:///relative/path.db" in caught.value.hint


# -- among others -----------------------------------------------------------------------------------------------------


async def test_it_lives_beside_somebody_elses_tables(path: Path):
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("CREATE TABLE process (id TEXT PRIMARY KEY, history TEXT)")
    raw.execute("CREATE TABLE history (n INTEGER)")
    raw.execute("CREATE TRIGGER process_started AFTER INSERT ON process BEGIN INSERT INTO history VALUES (1); END")
    raw.execute("INSERT INTO process VALUES ('theirs', 'x')")
    raw.execute("PRAGMA user_version = 7")
    async for store in opened(path, ManualClock()):
        [record] = await claimed(store, "ours")
        await store.commit(record, moved(record))
        raw.execute("INSERT INTO process VALUES ('more', 'y')")
    assert (
        raw.execute("SELECT count(*) FROM process").fetchone() == raw.execute("SELECT count(*) FROM history").fetchone() == (2,)
    )
    assert raw.execute("PRAGMA user_version").fetchone() == (7,)
    ours = [name for (name,) in raw.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'onward%'")]
    assert len(ours) >= 8
    raw.close()


@pytest.mark.parametrize(
    "name", ["my files.db", "100%.db", "%41.db", "it's.db", 'say "hi".db', "a?mode=ro.db", "a#b;c.db", "ü✓.db", "file:x.db"]
)
async def test_any_name_of_a_file_is_taken_as_it_is(tmp_path: Path, name: str):
    store = open_store(f"sqlite:///{tmp_path / name}", ManualClock())
    await store.open()
    [record] = await claimed(store, "a")
    assert await asyncio.to_thread(store.renew, "worker-a", {"a": record.epoch}, LEASE) == set()
    await store.close()
    assert {file.name for file in tmp_path.iterdir()} == {name, f"{name}-lock"}


async def test_by_whatever_name_it_is_the_same_file_and_the_same_lock(tmp_path: Path, path: Path):
    (tmp_path / "link.db").symlink_to(path)  # to nothing yet
    (tmp_path / "folder").symlink_to(tmp_path)
    for number, name in enumerate(("link.db", "folder/onward.db", "folder/link.db")):
        async for store in opened(tmp_path / name, ManualClock()):
            assert await store.insert([new(f"p{number}")], "ann") == [True]
            assert len(await store.find(Search())) == number + 1
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"onward.db", "onward.db-lock", "link.db", "folder"}


async def test_a_relative_name_stays_the_same_file_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    async for store in opened(Path("onward.db"), ManualClock()):
        [record] = await claimed(store, "a")
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert await asyncio.to_thread(store.renew, "worker-a", {"a": record.epoch}, LEASE) == set()
        await store.commit(record, moved(record))
        assert list((tmp_path / "elsewhere").iterdir()) == []


# -- when it may be used ----------------------------------------------------------------------------------------------


async def every_verb(store: SqliteStore, record) -> list[type[BaseException] | None]:
    """What each verb raises, all of them asked."""
    verbs = [
        lambda: store.insert([new("b")], "ann"),
        lambda: store.claim(KNOWN, "worker-a", 1, LEASE),
        lambda: store.commit(record, moved(record)),
        lambda: store.act(record, moved(record), "ann", None),
        lambda: asyncio.to_thread(store.renew, "worker-a", {"a": 1}, LEASE),
        lambda: store.release([record], begun=True),
        lambda: store.record_step(record, "pay", "1"),
        lambda: store.steps("a", 0),
        lambda: store.get("a"),
        lambda: store.find(Search()),
        lambda: store.counts(),
        lambda: store.history("a"),
        lambda: store.data_at("a", 0),
        lambda: store.next_due(KNOWN),
        lambda: store.taken_away({"a": 1}),
        lambda: store.wait_for_change(0.05),
    ]
    raised: list[type[BaseException] | None] = []
    for verb in verbs:
        try:
            await verb()
        except OnwardError as error:
            assert type(error) is not StoreError or "async with app:" in error.hint
            raised.append(type(error))
        else:
            raised.append(None)
    return raised


@pytest.mark.parametrize("name", ["onward.db", ":memory:"])
async def test_before_it_is_opened_and_after_it_is_closed_each_verb_says_so(tmp_path: Path, name: str):
    store = SqliteStore(":memory:" if name == ":memory:" else str(tmp_path / name), ManualClock())
    other = SqliteStore(":memory:", ManualClock())
    await other.open()
    [record] = await claimed(other, "a")
    await other.close()
    assert await every_verb(store, record) == [StoreError] * 16
    await store.close()  # nothing to do, no harm
    await store.open()
    [record] = await claimed(store, "a")
    assert await every_verb(store, record) == [None, None, None, Conflict, None, None, Fenced] + [None] * 9
    await store.close()
    await store.close()
    assert await every_verb(store, record) == [StoreError] * 16
    assert files_open_below(tmp_path) == []


@pytest.mark.parametrize("turns", range(12))
async def test_what_races_with_closing_is_done_or_refused_and_never_hangs(path: Path, turns: int):
    store = SqliteStore(str(path), ManualClock())
    await store.open()
    records = await claimed(store, *(f"p{n}" for n in range(8)))
    early = [asyncio.ensure_future(store.commit(record, moved(record))) for record in records[:4]]
    closing = asyncio.create_task(store.close())
    for _ in range(turns):
        await asyncio.sleep(0)

    async def commit(record):
        return await store.commit(record, moved(record))

    late = [asyncio.ensure_future(commit(record)) for record in records[4:]]
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*early, *late, return_exceptions=True)
        await closing
    again = SqliteStore(str(path), ManualClock())
    await again.open()
    for record, answer in zip(records, answers, strict=True):
        assert (await agree(again, record.id)).version == (0 if isinstance(answer, StoreError) else 1), answer
    assert not any(isinstance(answer, BaseException) for answer in answers[:4])
    await again.close()


@pytest.mark.parametrize("name", ["onward.db", ":memory:"])
def test_it_works_in_two_event_loops_one_after_the_other(tmp_path: Path, name: str):
    store = SqliteStore(":memory:" if name == ":memory:" else str(tmp_path / name), ManualClock())

    async def use(id: str) -> None:
        await store.open()
        waiting = asyncio.create_task(store.wait_for_change(0.2))
        await asyncio.sleep(0)
        [record] = await claimed(store, id)
        await store.commit(record, moved(record))
        await asyncio.to_thread(store.renew, "worker-a", {id: record.epoch}, LEASE)
        await waiting
        await store.close()

    for id in ("a", "b", "c"):
        asyncio.run(use(id))


FORK = """
    import asyncio, os, sys, time
    from onward.errors import StoreError
    from onward.store.sqlite import SqliteStore
    from onward.testing import ManualClock
    from onward.testing.contract import *

    path = sys.argv[1]
    loop = asyncio.new_event_loop()
    store = SqliteStore(path, ManualClock())
    loop.run_until_complete(store.open())
    a, b = loop.run_until_complete(claimed(store, "a", "b"))
    loop.run_until_complete(asyncio.to_thread(store.renew, "worker-a", {"a": 1}, LEASE))

    async def in_the_child():
        begun = time.monotonic()
        for verb in (lambda: store.get("a"), lambda: store.insert([new("c")], "ann"), lambda: store.commit(a, moved(a)),
                     lambda: asyncio.to_thread(store.renew, "worker-a", {"a": 1}, LEASE), lambda: store.wait_for_change(9)):
            try:
                await verb()
            except StoreError as error:
                assert "fork" in str(error) and str(os.getppid()) in str(error) and "after the fork" in error.hint, error
            else:
                raise AssertionError("it was let through")
        assert time.monotonic() - begun < 2
        await store.close()  # no harm
        own = SqliteStore(path, ManualClock())
        await own.open()
        assert (await own.commit(b, moved(b))).version == 1
        await own.close()

    child = os.fork()
    if child == 0:
        try:
            asyncio.run(in_the_child())
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    async def in_the_parent():
        assert (await store.commit(a, moved(a))).version == 1
        assert (await agree(store, "b")).version == 1
        assert await asyncio.to_thread(store.renew, "worker-a", {"a": 1}, LEASE) == set()
        await store.close()

    loop.run_until_complete(in_the_parent())
    loop.close()
"""


def test_after_a_fork_the_child_is_told_at_once_and_the_parent_is_unharmed(path: Path):
    run_script(FORK, path)
    raw = sqlite3.connect(path)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()


# -- any sequence of verbs, beside a model of a few dictionaries ------------------------------------------------------


class Stop(StrEnum):
    OPEN = auto()
    LOOKING = auto()
    CLOSED = auto()


class Errand(Process[Stop]):
    status: Stop = Stop.OPEN


async def begin(errand: Errand) -> Literal[Stop.LOOKING, Stop.CLOSED]:
    raise NotImplementedError  # the machine says what it came to


async def look(errand: Errand) -> Literal[Stop.OPEN, Stop.LOOKING, Stop.CLOSED]:
    raise NotImplementedError


FLOW = Flow(
    Errand,
    {
        Stop.OPEN: stage(begin, retry=Retry(attempts=2, first=3)),
        Stop.LOOKING: stage(look, every=Every(seconds=2), on_failure=Stop.CLOSED, retry=Retry(attempts=1)),
        Stop.CLOSED: END,
    },
    on_cancel=Stop.LOOKING,
)
FLOW_KNOWN = [("errand", "open"), ("errand", "looking")]
OWNERS, IDS = st.sampled_from(["worker-a", "worker-b"]), st.sampled_from([f"p{n}" for n in range(6)])
SHORT_LEASES = st.sampled_from([timedelta(seconds=4), timedelta(seconds=30)])
ACTS = [decide.wake, decide.retry, decide.pause, decide.resume, decide.stop, functools.partial(decide.cancel, FLOW)]


class StoreMachine(RuleBasedStateMachine):
    """The real store in memory on one side; `rows`, `entries` and `steps` say what it should hold."""

    happened: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.loop = ManualClock(), asyncio.new_event_loop()
        self.store = SqliteStore(":memory:", self.clock)
        self.run(self.store.open())
        self.rows: dict[str, Record] = {}
        self.entries: dict[str, list[Entry]] = {}
        self.steps: dict[tuple[str, int], dict[str, str]] = {}
        self.seen: list[Record] = []  # what workers and people hold in their hands, fresh and stale
        self.number = 0

    def run(self, verb):
        return self.loop.run_until_complete(verb)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    def note(self, what: str) -> None:
        self.happened[what] += 1

    def pick(self, data: st.DataObject) -> Record:
        """Mostly what was seen last, sometimes what is long past."""
        return self.seen[-min(data.draw(st.sampled_from([1, 1, 1, 2, 3, 5, 9])), len(self.seen))]

    # -- the model --------------------------------------------------------------------------------------------

    def due_since(self, row: Record) -> datetime | None:
        return None if row.due_at is None else max(row.due_at, row.lease_until or row.due_at)

    def shown(self, row: Record) -> Record:
        now, condition = self.clock.now(), row.condition
        if row.lease_until is not None and row.lease_until > now:
            condition = Condition.RUNNING
        elif condition in (Condition.WAITING, Condition.RETRYING) and row.due_at is not None and row.due_at <= now:
            condition = Condition.READY
        return bare(row, condition=condition)

    def write(self, row: Record, change: Change, actor: str, reason: str | None, *, act: bool) -> None:
        now, keeps = self.clock.now(), change.goes_on and not act
        data = row.data if change.data is None or act else change.data
        new_row = replace(
            row, status=change.status, condition=change.condition, data=data, version=row.version + 1, epoch=row.epoch + act,
            attempt=change.attempt, excused=change.excused, losses=row.losses if change.kind == "saved" else 0,
            polls=change.polls, transition=change.transition, moves=change.moves, cancelling=change.cancelling,
            entered_at=now if change.enters else row.entered_at, updated_at=max(row.updated_at, now),
            due_at=None if change.due_after is None else now + change.due_after, owner=row.owner if keeps else None,
            lease_until=row.lease_until if keeps else None, error=change.error,
        )  # fmt: skip
        took = None if change.took is None else int(change.took * 1e6) / 1e6
        self.entries[row.id].append(
            Entry(row.id, new_row.version, new_row.updated_at, change.kind, row.status, change.status, change.transition,
                  row.attempt, new_row.epoch, actor, took, reason, None if data == row.data else data)
        )  # fmt: skip
        self.rows[row.id] = new_row

    def outcome(self, data: st.DataObject, record: Record) -> Change:
        """A change as the law makes it; no two are the same."""
        self.number += 1
        took = self.number / 1_000
        text = data.draw(st.sampled_from([record.data, f'{{"n":{self.number}}}']), "data")
        what = data.draw(st.sampled_from(["returned", "returned", "returned", "failed", "permanent", "asked", "saved"]))
        if what == "returned":
            target = data.draw(st.sampled_from([s for s in Stop if s != record.status or s is Stop.LOOKING]), "target")
            return decide.decide(FLOW, record, decide.Returned(target.value, text, None, took))
        if what == "saved":
            return decide.saved(record, f'{{"n":{self.number}}}')
        delay = timedelta(seconds=7) if what == "asked" else None
        return decide.decide(FLOW, record, decide.Failed("no luck", took, delay, what == "permanent"))

    # -- the verbs --------------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.start(["p0", "p1", "p2"], "{}")

    def start(self, ids: list[str], text: str) -> None:
        answers = self.run(self.store.insert([new(id, text, "errand", "open") for id in ids], "ann"))
        now = self.clock.now()
        for id, answer in zip(ids, answers, strict=True):
            assert answer is (id not in self.rows)
            self.note("start" if answer else "start again")
            if answer:
                what = (id, "errand", "open", Condition.READY, text)
                self.rows[id] = Record(*what, 0, 0, 0, 0, 0, 0, False, now, now, now, now, None, None, None, now)
                self.entries[id] = [Entry(id, 0, now, "started", None, "open", 0, 0, 0, "ann", None, None, text)]

    @rule(ids=st.lists(IDS, min_size=1, max_size=4), text=st.sampled_from(["{}", '{"n":0}']))
    def start_some(self, ids: list[str], text: str) -> None:
        self.start(ids, text)

    @rule(owner=OWNERS, limit=st.integers(1, 4), data=st.data())
    def work(self, owner: str, limit: int, data: st.DataObject) -> None:
        """What a worker does most of the time: takes something and brings it a stage or two further."""
        self.claim(owner, limit, LEASE)
        self.commit_some(data, self.seen[-limit:])
        self.commit_some(data, self.seen[-1:])

    @rule(owner=OWNERS, limit=st.integers(1, 4), lease=SHORT_LEASES, ids=st.sampled_from([(), (), ("p0", "p1", "p2", "p3")]))
    def claim_some(self, owner: str, limit: int, lease: timedelta, ids: tuple[str, ...]) -> None:
        self.claim(owner, limit, lease, ids)

    def claim(self, owner: str, limit: int, lease: timedelta, ids: tuple[str, ...] = ()) -> None:
        now = self.clock.now()
        due = [(since, row) for row in self.rows.values() if (since := self.due_since(row)) is not None and since <= now]
        due.sort(key=itemgetter(0))  # the sort is stable: at the same instant the one that was started first
        chosen = [row for _, row in due if row.status != "closed" and (not ids or row.id in ids)]
        if not ids:
            suspects = [row for row in chosen if row.owner and row.losses >= 1]
            chosen = suspects[:1] + [row for row in chosen if row not in suspects]
        chosen = chosen[:limit]
        answers = self.run(self.store.claim(FLOW_KNOWN, owner, limit, lease, ids))
        assert [record.id for record in answers] == [row.id for row in chosen]
        for row, record in zip(chosen, answers, strict=True):
            self.note("take over" if row.owner else "claim")
            losses = row.losses + (row.owner is not None)
            self.rows[row.id] = replace(
                row, owner=owner, lease_until=now + lease, epoch=row.epoch + 1, attempt=row.attempt + 1, losses=losses
            )
            assert bare(record) == self.shown(self.rows[row.id])
        self.seen += answers

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), size=st.integers(1, 4))
    def commit(self, data: st.DataObject, size: int) -> None:
        self.commit_some(data, [self.pick(data) for _ in range(size)])

    def commit_some(self, data: st.DataObject, records: list[Record]) -> None:
        records = [record for record in records if record.status != "closed"]
        changes = [self.outcome(data, record) for record in records]

        async def together():
            return await asyncio.gather(*(verdict(self.store.commit(r, c)) for r, c in zip(records, changes, strict=True)))

        answers = self.run(together())
        before = dict(self.rows)
        for record, change, answer in zip(records, changes, answers, strict=True):
            row = before[record.id]
            may = (row.version, row.epoch) == (record.version, record.epoch) and row.owner is not None
            if isinstance(answer, Record):
                assert may and self.rows[record.id] is row, "two successors, or one that was fenced"
                assert row.owner is not None
                self.write(row, change, row.owner, change.reason, act=False)
                self.note(change.kind)
                self.happened["finished"] += change.status == "closed"
                after = self.shown(self.rows[record.id])
                other = {"condition": after.condition, "lease_until": after.lease_until} if change.goes_on else {}
                assert bare(answer, **other) == after
                self.seen.append(answer)
            else:
                assert type(answer) is Fenced
                self.note("fenced")
        for record in records:  # of those that may, one does
            row = before[record.id]
            if (row.version, row.epoch) == (record.version, record.epoch) and row.owner is not None:
                assert self.rows[record.id] is not row

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), act=st.sampled_from(ACTS), stale=st.booleans())
    def act(self, data: st.DataObject, act, stale: bool) -> None:
        known = [record for record in self.seen if record.status != "closed"]
        seen = self.pick(data) if stale and known else self.shown(data.draw(st.sampled_from(list(self.rows.values()))))
        try:
            change = act(seen)
        except Refused:
            return
        row = self.rows[seen.id]
        try:
            answer = self.run(self.store.act(seen, change, "ann", "why"))
        except Conflict:
            assert row.version != seen.version
            self.note("conflict")
            return
        assert row.version == seen.version
        self.write(row, change, "ann", "why", act=True)
        assert bare(answer) == self.shown(self.rows[row.id])
        self.note("act")
        self.seen.append(answer)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), owner=OWNERS, lease=SHORT_LEASES)
    def renew(self, data: st.DataObject, owner: str, lease: timedelta) -> None:
        held = {record.id: record.epoch for record in [self.pick(data), self.pick(data)]}
        lost = {id for id, epoch in held.items() if self.rows[id].epoch != epoch}
        assert self.run(asyncio.to_thread(self.store.renew, owner, held, lease)) == lost
        assert self.run(self.store.taken_away(held)) == lost
        for id in held.keys() - lost:
            row = self.rows[id]
            if row.owner == owner and row.lease_until is not None:
                self.rows[id] = replace(row, lease_until=max(row.lease_until, self.clock.now() + lease))
                self.note("renew")
        self.happened["lost"] += len(lost)

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), begun=st.booleans())
    def release(self, data: st.DataObject, begun: bool) -> None:
        record = self.pick(data)
        row = self.rows[record.id]
        self.run(self.store.release([record], begun=begun))
        if row.epoch == record.epoch and row.owner is not None:
            attempt = row.attempt if begun else max(row.attempt - 1, 0)
            self.rows[row.id] = replace(row, owner=None, lease_until=None, due_at=self.clock.now(), attempt=attempt)
            self.note("release")
        else:
            self.note("release in vain")

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), name=st.sampled_from(["pay", "send"]), result=st.sampled_from(["1", "2"]))
    def step(self, data: st.DataObject, name: str, result: str) -> None:
        record = self.pick(data)
        row, kept = self.rows[record.id], self.steps.setdefault((record.id, record.transition), {})
        if row.epoch == record.epoch and row.transition == record.transition and name not in kept:
            kept[name] = result
        try:
            self.run(self.store.record_step(record, name, result))
        except Fenced:
            assert row.epoch != record.epoch or kept.get(name) != result
            self.note("step refused")
        else:
            assert row.epoch == record.epoch and kept[name] == result
            self.note("step")

    @rule(seconds=st.sampled_from([0.000001, 1.0, 3.0, 10.0, 40.0, 40.0, 7200.0, -2.0, -3600.0]))
    def time_passes(self, seconds: float) -> None:
        """Or, where it is negative, somebody sets the clock back."""
        self.clock.jump(seconds)
        self.note("jump back" if seconds < 0 else "advance")

    # -- what both sides hold ---------------------------------------------------------------------------------

    @invariant()
    def both_sides_are_the_same(self) -> None:
        newest = sorted(self.rows.values(), key=lambda row: (row.created_at, row.id), reverse=True)
        rows = [self.shown(row) for row in newest]
        assert [bare(record) for record in self.run(self.store.find(Search()))] == rows
        counted = {(count.status, count.condition): count.number for count in self.run(self.store.counts())}
        assert counted == Counter((row.status, row.condition) for row in rows)
        for row in rows:
            assert self.run(self.store.history(row.id)) == self.entries[row.id]
            assert self.run(self.store.data_at(row.id, row.version)) == row.data
        for (id, transition), kept in self.steps.items():
            assert self.run(self.store.steps(id, transition)) == kept
        times = [since for row in self.rows.values() if row.status != "closed" and (since := self.due_since(row)) is not None]
        assert self.run(self.store.next_due(FLOW_KNOWN)) == (min(times) - self.clock.now() if times else None)


def test_any_sequence_of_verbs_leaves_what_a_simple_model_of_the_store_says():
    StoreMachine.happened.clear()
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    wanted = ["start", "start again", "claim", "take over", "moved", "not yet", "retry", "failed", "finished", "saved", "fenced"]
    wanted += ["gave up", "act", "conflict", "renew", "lost", "release", "release in vain", "step", "step refused", "jump back"]
    assert {what for what in wanted if not StoreMachine.happened[what]} == set(), StoreMachine.happened
