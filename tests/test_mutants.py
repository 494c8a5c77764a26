"""The machinery of `make mutants`, with a sample of it, so that it cannot rot between two runs of the whole."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import mutants
import pytest
from faults import bugs
from mutants import CATCHERS, CATCHERS_MIN, HERE, Run, environment, judge, table

import onward.testing.contract
from onward.heartbeat import Heartbeat
from onward.store.postgres.store import PostgresStore
from onward.store.postgres.transaction import PostgresTransaction
from onward.store.sqlite.store import SqliteStore
from onward.store.sqlite.turn import Turn
from onward.store.sqlite.writer import Writer
from onward.worker import Worker

SAMPLE = ("tell_before_the_commit", "swallow_errors_of_a_group", "begin_deferred")  # quick ones, and without a server
CONTRACT = Path(onward.testing.contract.__file__).parent


@cache
def functions_of(file: Path) -> set[str]:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_there_are_twenty_and_each_has_at_least_two_tests_that_exist() -> None:
    assert len(bugs.TWENTY) == 20
    assert set(CATCHERS) == {*bugs.TWENTY, *bugs.MORE}
    for name, tests in CATCHERS.items():
        assert len({test.rpartition("::")[2] for test in tests}) >= CATCHERS_MIN, name
        for test in tests:
            file, *_, function = test.split("::")
            here = functions_of(HERE / file).union(*map(functions_of, CONTRACT.glob("*.py")) if "Test" in test else ())
            assert function in here, f"{name}: there is no {test}"


@pytest.mark.parametrize("name", bugs.PLANTED)
def test_each_bug_can_be_planted_as_the_engine_is_today_and_leaves_nothing_behind(name: str) -> None:
    def look() -> list[object]:
        kinds = SqliteStore, PostgresStore, PostgresTransaction, Writer, Worker, Heartbeat, Turn
        modules = [module for name, module in sys.modules.items() if name.startswith("onward.")]
        return [dict(bugs.SQLITE), dict(bugs.POSTGRES), *(dict(vars(one)) for one in (*kinds, *modules))]

    before = look()
    with bugs.planted(name):
        assert (look() == before) is (name == "nothing")
    assert look() == before
    assert (bugs.PLANTED[name].__doc__ or "").strip()


def test_a_bug_reaches_the_programs_that_tests_start() -> None:
    script = "import onward.heartbeat; print(onward.heartbeat.BEATS_PER_LEASE)"
    for name, beats in (("no_heartbeat", "0.001"), ("nothing", "4")):
        done = subprocess.run([sys.executable, "-c", script], env=environment(name), capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == beats, done.stderr


def test_the_same_test_on_two_stores_is_one_and_what_is_listed_has_to_catch() -> None:
    tests = CATCHERS["fence_by_version_only"]
    assert Run("fence_by_version_only", set(tests), (), 1.0, "").is_caught
    assert not Run("fence_by_version_only", {test for test in tests if "Contract" not in test}, (), 1.0, "").is_caught
    twice = Run("fence_by_version_only", {test for test in tests if "lease_model" not in test}, (), 1.0, "")
    assert len(twice.failed) == 2 and len(twice.caught_by) == 1 and not twice.is_caught
    assert "not by `test_lease_model.py" in table([twice])


def test_a_sample_of_the_mutants_is_caught_and_nothing_is_where_nothing_is_planted() -> None:
    sound, runs = judge(SAMPLE)
    assert not sound.said and not sound.failed, (sound.said, sound.failed)
    assert set(sound.passed) == {test for name in SAMPLE for test in CATCHERS[name]}
    assert [(one.name, one.is_caught) for one in runs] == [(name, True) for name in SAMPLE], table(runs)
    assert all(not one.said for one in runs)


def test_a_name_that_is_no_mutant_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main(["no_such"]) == 2
    assert "no_fence" in capsys.readouterr().out
