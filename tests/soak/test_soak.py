"""That `make soak` takes what it should, and that a soak of seconds finds a bug that was planted in its programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.programs import Nursery

from .__main__ import COLUMNS, main, table
from .lives import Told
from .run import Result, soak

MINUTES = 0.15
BUGS = {"sqlite": "claim_without_a_new_epoch", "postgres": "act_without_a_new_epoch"}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--minutes", "1e9"], ["--store", "papyrus"], ["--seed", "x"]])
def test_what_makes_no_sense_is_refused_before_anything_is_started(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_the_table_is_markdown_and_names_the_command_that_repeats_it() -> None:
    result = Result("sqlite", 7, 60.0, commits=1_234_567, violations=["C1 lost"], missing=["kills: 0 of 8"])
    lines = table([result], 60.0, 7).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == len(COLUMNS) + 1
    assert "1,234,567" in lines[2]
    assert "* violation: C1 lost" in lines and "* happened too seldom: kills: 0 of 8" in lines
    assert lines[-1] == "`make soak MINUTES=60 SEED=7`"
    assert not result.passed and json.loads(json.dumps(result.as_json()))["passed"] is False


def test_a_soak_of_seconds_finds_a_bug_that_was_planted(nursery: Nursery, tmp_path: Path) -> None:
    with ThreadPoolExecutor(len(BUGS)) as pool:
        runs = {
            store: pool.submit(soak, nursery, store, 1, MINUTES, tmp_path, Told(quiet=True), bug) for store, bug in BUGS.items()
        }
    for store, run in runs.items():
        result = run.result()
        print(f"\n{store}: {len(result.violations)} violations in {result.commits} commits, {result.kills} kills")
        assert any(violation.startswith("C4") for violation in result.violations), (store, result.violations[:10])
