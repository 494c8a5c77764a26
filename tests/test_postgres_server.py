"""The PostgreSQL of the tests: it can be stopped in every way and come back, and nothing of it outlives whoever started it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import postgres
import psycopg
import pytest
from conftest import PATIENCE_S
from postgres import PrivateServer, Server

HERE = Path(__file__).parent
OWNER = """
import sys, time
import postgres
server = postgres.PrivateServer()
server.start()
print(server.room, server.pid, (server.room / "copy").exists(), flush=True)
if sys.argv[1:] == ["paused"]:
    server.pause(backends=True)
if sys.argv[1:] != ["leave"]:
    time.sleep(60)
"""


def within_patience(true: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # nobody may be there to bury it
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def value(url: str, query: str) -> object:
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return row[0]


def test_a_database_of_its_own_for_each_test(postgres_server: Server, postgres_url: str) -> None:
    assert value(postgres_url, "SELECT current_database()") == postgres_url.rpartition("/")[2].partition("?")[0]
    assert value(postgres_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    assert value(postgres_url, "SHOW server_encoding") == "UTF8"


def test_a_template_is_copied_and_a_database_in_use_can_be_dropped(postgres_server: Server, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE grown AS SELECT 7 AS size")
    copy = postgres_server.create_database("onward_copy", template=postgres_url.rpartition("/")[2].partition("?")[0])
    try:
        assert value(copy, "SELECT size FROM grown") == 7
    finally:
        with psycopg.connect(copy) as guest:
            postgres_server.drop_database("onward_copy")
            with pytest.raises(psycopg.OperationalError):
                guest.execute("SELECT 1")
    postgres_server.drop_database("onward_copy")  # is not there: nothing to do


def test_what_was_committed_outlives_every_way_to_stop(private_postgres: PrivateServer) -> None:
    with psycopg.connect(private_postgres.url) as connection:
        connection.execute("CREATE TABLE kept (mode text)")
    url, modes = private_postgres.url, list(postgres.SIGNALS)
    for mode in modes:
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO kept VALUES (%s)", [mode])
        before = private_postgres.pid
        private_postgres.restart(mode)
        assert private_postgres.pid != before and private_postgres.url == url
    assert value(url, "SELECT array_agg(mode ORDER BY mode) FROM kept") == sorted(modes)
    assert "database system was not properly shut down" in private_postgres.log


def test_a_stopped_server_refuses_and_a_frozen_one_is_silent(private_postgres: PrivateServer) -> None:
    url = private_postgres.url
    with psycopg.connect(url, autocommit=True) as known:
        private_postgres.pause()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(url, connect_timeout=2)
        assert known.execute("SELECT 1").fetchone() == (1,)  # its backend lives on
        private_postgres.resume()
        assert value(url, "SELECT 1") == 1
        private_postgres.pause(backends=True)
        private_postgres.stop("immediate")  # also when it is frozen
    assert not private_postgres.running
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url)
    private_postgres.start()
    assert value(url, "SELECT 1") == 1


def test_a_server_has_the_settings_it_was_given() -> None:
    with PrivateServer(settings={"fsync": "off", "max_connections": 7}) as server:
        assert value(server.url, "SHOW fsync") == "off"
        assert value(server.url, "SHOW max_connections") == "7"
        assert value(server.url, "SHOW shared_buffers") == "128MB"


@pytest.mark.parametrize("version", postgres.installations())
def test_every_version_of_the_package_can_be_had(version: int) -> None:
    with PrivateServer(version) as server:
        assert str(value(server.url, "SHOW server_version")).startswith(f"{version}.")
        assert (server.bin / "pg_dump").exists() and (server.bin / "pgbench").exists() and (server.bin / "psql").exists()


def test_a_version_that_nobody_has_is_named() -> None:
    with pytest.raises(LookupError, match="no PostgreSQL 7 to start"):
        PrivateServer(7)


def test_a_server_with_a_setting_that_is_wrong_says_what_is_wrong_and_leaves_nothing() -> None:
    server = PrivateServer(settings={"shared_buffers": "much"})
    try:
        with pytest.raises(RuntimeError, match="shared_buffers"):
            server.start()
        room = server.room
    finally:
        server.close()
    assert not room.exists() and not server.running


def test_two_servers_stand_side_by_side(private_postgres: PrivateServer) -> None:
    with PrivateServer() as other:
        assert other.port != private_postgres.port
        assert value(other.url, "SELECT 1") == value(private_postgres.url, "SELECT 1")
        room = other.room
    assert not room.exists() and private_postgres.running


@pytest.mark.parametrize("end", ["leave", "killed", "paused", "interrupted"])
def test_nothing_is_left_however_the_tests_end(end: str) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, end], cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert owner.stdout is not None
        told = owner.stdout.readline().split()
        room, pid = Path(told[0].decode()), int(told[1])
        if end == "interrupted":
            owner.send_signal(signal.SIGINT)
        elif end != "leave":
            owner.kill()
        owner.wait(PATIENCE_S)
    finally:
        owner.kill()
        owner.communicate()
    assert within_patience(lambda: not room.exists())
    assert not alive(pid)


def test_nothing_is_left_of_a_server_whose_owner_is_killed_while_it_begins() -> None:
    place = Path(tempfile.mkdtemp(prefix="onward-begin-"))
    place.chmod(0o755)  # the server may be somebody else's
    environment = {**os.environ, "TMPDIR": str(place)}
    try:
        owners = [
            subprocess.Popen([sys.executable, "-c", OWNER], cwd=HERE, stdout=subprocess.DEVNULL, env=environment)
            for _ in range(4)
        ]
        try:
            assert within_patience(lambda: len(list(place.glob("*/data"))) == len(owners))  # initdb is at work
            for owner in owners:
                owner.kill()
                time.sleep(0.15)
        finally:
            for owner in owners:
                owner.kill()
                owner.wait(PATIENCE_S)
        assert within_patience(lambda: not list(place.iterdir()))
    finally:
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a server as somebody else")
def test_binaries_in_a_closed_home_are_copied_and_the_home_stays_closed(tmp_path: Path) -> None:
    package = postgres.installations()[max(postgres.installations())].parent.parent
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for each in (package, package.with_name(f"{package.name}.libs")):
        if each.exists():
            shutil.copytree(each, home / each.name, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__"))
    modes = {each: each.lstat().st_mode for each in (home, *home.rglob("*"))}
    # Another environment, whose package is the one in that home.
    done = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            OWNER.replace("import postgres", f"sys.path[:0] = {[str(home), *sys.path]}; import postgres"),
            "leave",
        ],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    room, _, copied = done.stdout.split()
    assert copied == "True" and not Path(room).exists()
    assert modes == {each: each.lstat().st_mode for each in (home, *home.rglob("*")) if "__pycache__" not in each.parts}
