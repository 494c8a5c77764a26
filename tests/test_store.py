"""The SQLite store: the contract of every store, in memory and on a file, and what is particular to files."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from onward.errors import Conflict, Fenced, OnwardError, StoreError
from onward.ports import Search
from onward.store import open_store
from onward.store.sqlite.files import file_system_of, refuse_network_file_system
from onward.store.sqlite.inline import InlineStore
from onward.store.sqlite.store import SqliteStore
from onward.testing import ManualClock, StoreContract
from onward.testing.contract.rows import KNOWN, LEASE, agree, claimed, moved, new


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


class TestInline(SqliteContract):
    """The one of simulations, which has no thread: it is no other store."""

    @pytest.fixture
    async def store(self, clock: ManualClock):
        store = InlineStore(":memory:", clock)
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

    monkeypatch.setattr("onward.store.sqlite.store.sqlite3.connect", connect)
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
    assert "schema 99" in str(error) and "knows schema 4" in str(error) and "upgrade" in error.hint
    raw = sqlite3.connect(path)
    assert list(raw.iterdump()) == before
    raw.close()


READ_ONLY = """
    import asyncio, os, sys
    from onward.errors import StoreError
    from onward.store.sqlite.store import SqliteStore
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
    from onward.store.sqlite.store import SqliteStore
    from onward.testing import ManualClock
    from onward.testing.contract.rows import *

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
