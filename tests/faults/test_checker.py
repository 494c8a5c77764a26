"""The checker itself: a store that is in order passes, and each thing that must not happen is caught when it is put there."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from .checker import Found, Verdict, _cut_off, check, look
from .places import Places, store_of
from .programs import Nursery, Program

# A store that was used, by a worker that was killed and one that went on; the tests break copies of it.
Used = tuple[Path, list[Program]]


@pytest.fixture(scope="module")
def used(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Used:
    folder = tmp_path_factory.mktemp("used")
    start = {"seed": 11, "number": 30, "pace": 0.02}
    killed = nursery.start("work", folder, start=start, lease=0.3, crash="commit-done:60:kill")
    assert killed.wait() == -9
    healer = nursery.start("work", folder, start=start, lease=1.0, until_idle=True)
    assert healer.wait() == 0
    return folder, [killed, healer]


@pytest.fixture
def copy(used: Used, tmp_path: Path) -> Path:
    return Path(shutil.copytree(used[0], tmp_path / "copy"))


@contextmanager
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Without the triggers and the index that stand in a forger's way."""
    with closing(sqlite3.connect(f"{folder}/onward.db")) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DROP INDEX onward_history_version")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        yield connection
        connection.commit()


def sql(statement: str) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        with database(folder) as connection:
            assert connection.execute(statement).rowcount > 0, statement

    return forge


def write(book: str, like: Callable[[list[Any]], bool], change: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    """One more line in a book of the healer, made from each one that is alike: not each attempt ends in a commit of its own."""

    def forge(folder: Path) -> None:
        path = max(folder.glob(f"{book}-*"))
        lines = [line for line in map(json.loads, path.read_text().splitlines()) if like(line)]
        assert lines
        with path.open("a") as file:
            file.writelines(json.dumps(change(line)) + "\n" for line in lines)

    return forge


def erase(book: str, like: Callable[[list[Any]], bool]) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        erased = 0
        for path in folder.glob(f"{book}-*"):
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if not like(json.loads(line))]
            erased += len(lines) - len(kept)
            path.write_text("".join(kept))
        assert erased

    return forge


def forget_the_last_commit(folder: Path) -> None:
    """As if a commit had been acknowledged and rolled back: what is left is in perfect order."""
    with database(folder) as connection:
        connection.execute("DELETE FROM onward_history WHERE process_id = '11-3' AND version = 3")
        connection.execute("DELETE FROM onward_history WHERE process_id = '11-3' AND version > 2")
        connection.execute(
            """UPDATE onward_process AS p SET version = 2, status = h.to_status, transition = h.transition,
                      data = (SELECT data FROM onward_history WHERE process_id = p.id AND data IS NOT NULL ORDER BY version DESC)
                 FROM onward_history AS h WHERE p.id = '11-3' AND h.process_id = p.id AND h.version = 2"""
        )


def change_the_log(folder: Path) -> None:
    """The data of the row and of its last history, alike."""
    with database(folder) as connection:
        for table, key in (("onward_process", "id"), ("onward_history", "process_id")):
            connection.execute(
                f"UPDATE {table} SET data = json_set(data, '$.log', json('[]')) WHERE {key} = '11-4' AND version ="
                " (SELECT max(version) FROM onward_history WHERE process_id = '11-4' AND data IS NOT NULL)"
            )


def renew_what_the_killed_had(folder: Path) -> None:
    """For so long that the leases still ran when the next worker was granted them."""
    claims = min(folder.glob("claims-*"))
    lines = [json.loads(line) for line in claims.read_text().splitlines()]
    renewal = [{id: epoch for id, epoch, *_ in lines}, 100.0, lines[-1][-1], lines[-1][-1]]
    claims.with_name(claims.name.replace("claims", "renewals")).write_text(f"{json.dumps(renewal)}\n")


def go_where_no_way_leads(folder: Path) -> None:
    with database(folder) as connection:
        connection.execute("UPDATE onward_history SET to_status = 'mapped' WHERE process_id = '11-5' AND version = 1")
        connection.execute("UPDATE onward_history SET from_status = 'mapped' WHERE process_id = '11-5' AND version = 2")


def twist_an_index(folder: Path) -> None:
    with database(folder) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        twist = "replace(sql, 'created_at, id', 'id, created_at')"
        connection.execute(f"UPDATE sqlite_schema SET sql = {twist} WHERE name = 'onward_process_created'")


def say_something_bad(folder: Path) -> None:
    with max(folder.glob("log-*")).open("a") as log:
        log.write("ERROR Task exception was never retrieved\n")


def end(number: int) -> str:
    last = f"SELECT max(version) FROM onward_history WHERE process_id = '11-{number}'"
    return f"WHERE process_id = '11-{number}' AND version = ({last})"


FORGERIES: list[tuple[str, str, Callable[[Path], None]]] = [
    ("a commit that was acknowledged and lost", "C1 acknowledged and lost", forget_the_last_commit),
    ("a process that was started and lost", "C1 started and lost", write("started", bool, lambda line: ["nobody", line[-1]])),
    (
        "an acknowledgement of another epoch",
        "C1 acknowledged otherwise",
        write("acks", bool, lambda line: [*line[:2], line[2] + 1, *line[3:]]),
    ),
    ("a gap", "C2 versions", sql("DELETE FROM onward_history WHERE process_id = '11-0' AND version = 2")),
    (
        "a double transition",
        "C2 versions",
        sql(
            "INSERT INTO onward_history SELECT 1000000, process_id, version, at, kind, from_status, 'right', transition, attempt,"
            " epoch, actor, took, reason, data, data_version FROM onward_history WHERE process_id = '11-0' AND version = 1"
        ),
    ),
    ("a row without history", "C2 rows", sql("DELETE FROM onward_history WHERE process_id = '11-0'")),
    ("a history without its row", "C2 rows", sql("DELETE FROM onward_process WHERE id = '11-0'")),
    ("a break in the chain", "C2 the chain", sql(f"UPDATE onward_history SET from_status = 'opened' {end(0)}")),
    ("a skipped transition", "C2 the chain", sql(f"UPDATE onward_history SET transition = transition + 1 {end(0)}")),
    ("a way that is not in the table", "C2 a move", go_where_no_way_leads),
    ("a clock that went back", "C2 the time", sql(f"UPDATE onward_history SET at = 1 {end(0)}")),
    ("a stale row", "C3", sql("UPDATE onward_process SET version = version - 1 WHERE id = '11-1'")),
    ("a row at another status", "C3", sql("UPDATE onward_process SET status = 'left' WHERE id = '11-1'")),
    ("a row with other data", "C3", sql("UPDATE onward_process SET data = json_set(data, '$.seed', 0) WHERE id = '11-1'")),
    ("an epoch that went back", "C4 the epoch", sql(f"UPDATE onward_history SET epoch = 0 {end(2)}")),
    ("an epoch that was set back", "C4 the row", sql("UPDATE onward_process SET epoch = 0 WHERE id = '11-2'")),
    (
        "an epoch that two were granted",
        "C4 epoch",
        write("claims", bool, lambda line: [*line[:4], "worker-other", line[-1]]),
    ),
    ("an epoch that two used", "C4 epoch", write("effects", bool, lambda line: [*line[:6], "worker-other", line[-1]])),
    ("an epoch that is forgotten", "C4 epoch", write("claims", bool, lambda line: [line[0], 99, *line[2:]])),
    ("an epoch granted while a lease ran", "C4 epoch", renew_what_the_killed_had),
    ("a commit by another worker", "C4 version", sql("UPDATE onward_history SET actor = 'worker-other' WHERE version = 1")),
    ("a commit without its effect", "C6 version", erase("effects", lambda line: line[1] == "11-6" and line[2] == 1)),
    (
        "a commit before its effect was done",
        "C6 version",
        write("effects", lambda line: line[0] == "after", lambda line: [*line[:-1], line[-1] + 100]),
    ),
    (
        "an effect that a living worker did not commit",
        "C6 an effect",
        write("effects", lambda line: line[0] == "before", lambda line: [*line[:5], 99, *line[6:]]),
    ),
    ("an attempt that ran twice", "C6 one attempt", write("effects", lambda line: line[0] == "before", lambda line: line)),
    ("another key", "C6 the key", write("effects", bool, lambda line: [*line[:3], "other", *line[4:]])),
    (
        "a sub-step that ran after it was recorded",
        "C6 sub-step",
        write("once", lambda line: line[0] == "ran", lambda line: [*line[:4], line[4] + 1, "other", line[-1]]),
    ),
    (
        "a sub-step that ran twice in one attempt",
        "C6 sub-step",
        write("once", lambda line: line[0] == "ran", lambda line: [*line[:5], "other", line[-1]]),
    ),
    ("a sub-step whose record is lost", "C6 the handler", sql("DELETE FROM onward_step")),
    ("a sub-step with another result", "C6 sub-step", sql("UPDATE onward_step SET result = '\"other\"'")),
    ("a process that is forgotten", "C7", sql("UPDATE onward_process SET condition = 'ready', due_at = 1 WHERE id = '11-7'")),
    ("data of another version", "C12 the data", sql("UPDATE onward_history SET data_version = 2 WHERE process_id = '11-7'")),
    ("data that became older", "C12 the data of", sql("UPDATE onward_history SET data_version = 2 WHERE version = 0")),
    ("new data that old code claimed", "C12 work", sql("UPDATE onward_history SET data_version = 2")),
    ("a process that failed", "C7", sql("UPDATE onward_process SET condition = 'failed' WHERE id = '11-7'")),
    ("a lease that nobody gave back", "C7", sql("UPDATE onward_process SET owner = 'w', lease_until = 1 WHERE id = '11-7'")),
    ("data that lost its log", "C8", change_the_log),
    ("a program that says what must not be said", "C9", say_something_bad),
    ("a damaged file", "C10", twist_an_index),
]


def test_a_store_that_is_in_order_passes(used: Used, copy: Path) -> None:
    verdict = check(copy, used[1]).assert_clean()
    assert verdict.counts["takeovers"] >= 1 and verdict.counts["steps"] >= 1 and verdict.counts["acks"] >= 60
    assert look(copy).violations == []


@pytest.mark.parametrize(("expected", "forge"), [f[1:] for f in FORGERIES], ids=[f[0] for f in FORGERIES])
def test_the_checker_catches(used: Used, copy: Path, expected: str, forge: Callable[[Path], None]) -> None:
    forge(copy)
    assert caught(check(copy, used[1]), expected)


def test_the_checker_reads_postgres_as_well(nursery: Nursery, places: Places) -> None:
    with places.at("postgres", "used") as folder:
        worker = nursery.start("work", folder, start={"seed": 11, "number": 10}, lease=5.0, until_idle=True)
        assert worker.wait() == 0, worker.log()
        assert check(folder).assert_clean().counts["commits"] >= 50
        with psycopg.connect(store_of(folder)) as connection:
            for _, forgery in FORGERIES_POSTGRES:
                assert connection.execute(forgery.encode()).rowcount == 1, forgery
        verdict = check(folder)
        assert all(caught(verdict, expected) for expected, _ in FORGERIES_POSTGRES)


FORGERIES_POSTGRES = [
    ("C1 acknowledged and lost: 11-0", "DELETE FROM onward_history WHERE process_id = '11-0' AND version = 3"),
    ("C2 versions of 11-6", "DELETE FROM onward_history WHERE process_id = '11-6' AND version = 2"),
    ("C2 the time of 11-1", "UPDATE onward_history SET at = 'epoch' WHERE process_id = '11-1' AND version = 2"),
    ("C3 the row of 11-2", "UPDATE onward_process SET data = data || '{\"seed\": 0}' WHERE id = '11-2'"),
    ("C4 the epoch of 11-3", "UPDATE onward_history SET epoch = 0 WHERE process_id = '11-3' AND version = 2"),
    ("C7 11-4", "UPDATE onward_process SET condition = 'failed' WHERE id = '11-4'"),
    ("C8 the log of 11-5", "UPDATE onward_process SET data = data || '{\"log\": []}' WHERE id = '11-5'"),
    ("C11 written by a handler", "INSERT INTO booking VALUES ('11-6', 0, 0)"),
]


def test_a_look_at_the_running_store_catches_a_read_that_is_behind(copy: Path) -> None:
    forget_the_last_commit(copy)
    assert caught(look(copy), "C1 acknowledged and lost")


def test_a_process_that_should_have_failed_and_finished_is_caught(used: Used, copy: Path) -> None:
    assert caught(check(copy, used[1], failed={"11-7"}), "C7")


def test_the_effect_of_a_killed_worker_is_excused_and_of_no_other(used: Used, copy: Path) -> None:
    assert check(copy, used[1]).violations == []
    assert caught(check(copy, []), "C6 an effect")


def test_a_line_torn_by_a_kill_is_no_line(used: Used, copy: Path) -> None:
    with min(copy.glob("acks-*")).open("a") as book:
        book.write('["11-0", 99, 9')
    check(copy, used[1]).assert_clean()


def caught(verdict: Verdict, expected: str) -> bool:
    assert any(violation.startswith(expected) for violation in verdict.violations), verdict.violations
    return True


def test_who_gave_back_after_it_was_taken_over_had_been_cut_off_and_lived() -> None:
    """By the network: it could not renew, and had nothing else to give a sign of life with."""
    books: dict[str, list[list[Any]]] = {
        "claims": [["a", "p", 1, 0, 1, "worker-a", 1.0], ["b", "p", 2, 0, 2, "worker-b", 3.0]],
        "effects": [["a", "before", "p", 0, "p:0", 1, 1, "worker-a", 1.1]],
        "renewals": [["a", {"p": 1}, 1.0, 1.5, 1.6]],
        "releases": [],
    }
    nothing = Found({}, {}, {}, Counter(), None, "ok")
    assert _cut_off(nothing, books) == set()
    books["releases"].append(["a", "p", 1, 9.0])
    assert _cut_off(nothing, books) == {("p", 1)}
