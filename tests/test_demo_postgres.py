"""`onward demo --store postgresql://…`: two workers on one database, one of them killed, as a program that people start."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from conftest import PATIENCE_S

from onward import Condition, Onward
from onward.clock import SystemClock
from onward.demo.flow import Batch, Document, Status, check_status
from onward.demo.main import HOW_TO_GET_ONE
from onward.store import upkeep_of

ONWARD = [sys.executable, "-m", "onward"]
DEMO_S = 180.0  # the longest that the demo itself takes before it gives up
HOME = re.compile(r"search_path=(onward_demo_\w+)")


def demo(url: str, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir()
    return subprocess.Popen(
        [*ONWARD, "demo", "--store", url], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


async def cancelled_on_the_way(program: subprocess.Popen[str], url: str) -> str:
    """What it says until its first process is cancelled, half-way, by somebody else."""
    assert program.stdout is not None
    said = ""
    for line in program.stdout:
        said += line
        if "responses_created" in line:
            break
    home = HOME.search(said)
    assert home is not None, said
    async with Onward(f"{url}?search_path={home[1]}", flows=[check_status]) as app:
        await app.cancel(home[1].replace("onward_demo_", "demo-") + "-1", reason="no longer wanted")
    return said


async def test_the_main_job_is_done_by_two_workers_of_which_one_is_killed_and_nobody_elses_processes_are_touched(
    postgres_url: str, tmp_path: Path
) -> None:
    """And a second demo beside it on the same database, whose job is cancelled, says so and fails."""
    await upkeep_of(postgres_url, SystemClock(), virtual=False).upgrade(print)
    async with Onward(postgres_url, flows=[check_status]) as app:
        mine = await app.start(Batch(id="mine", question="Why?", documents=[Document(name="a.md", text="Because.")]))
        good, bad = demo(postgres_url, tmp_path / "good"), demo(postgres_url, tmp_path / "bad")
        try:
            complaint = await cancelled_on_the_way(bad, postgres_url) + bad.communicate(timeout=DEMO_S)[0]
            said = good.communicate(timeout=DEMO_S)[0]
        finally:
            for program in (good, bad):
                program.kill()
        assert (good.returncode, bad.returncode) == (0, 1), said + complaint
        assert "\x1b" not in said, "no colours and no cursor without a terminal"
        assert "✂ worker 1 was killed with SIGKILL" in said and "worker 2 goes on" in said

        *_, verdict = said.splitlines()
        counted = re.fullmatch(
            r"demo: ok · 3 processes, 24 stages resolved \(before the kill (.+), after it (\d+) by worker 2\)"
            r" · files: 9 created, 0 left · responses: 9 created, 0 left · 0 duplicate effects",
            verdict,
        )
        assert counted is not None, verdict
        assert sum(map(int, re.findall(r"(\d+) by worker", counted[1]))) + int(counted[2]) == 24
        assert "demo: FAILED" in complaint and "1 processes did not finish" in complaint
        assert " 0 left · responses:" in complaint and "0 duplicate effects" in complaint

        # It looked at nothing of ours, and what it leaves is what it says.
        assert (await app.get("mine")).version == mine.version and (await app.get("mine")).epoch == 0
    homes = [found[1] for found in (HOME.search(said), HOME.search(complaint)) if found is not None]
    async with Onward(f"{postgres_url}?search_path={homes[0]}", flows=[check_status]) as app:
        left = await app.find()
        assert [(record.condition, record.status) for record in left] == [(Condition.FINISHED, Status.PROCESS_DELETED)] * 3
    connection = await asyncpg.connect(postgres_url)
    there = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'onward%' ORDER BY 1")
    assert [row[0] for row in there] == sorted(homes)
    for output in (said, complaint):
        clean_up = re.search(r"DROP SCHEMA \w+ CASCADE;", output)
        assert clean_up is not None
        await connection.execute(clean_up[0])
    assert not await connection.fetch("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'onward%'")
    await connection.close()


@pytest.mark.parametrize(
    ("store", "code", "words"),
    [
        ("postgresql://somebody@127.0.0.1:1/nowhere", 6, HOW_TO_GET_ONE),
        ("postgresql://somebody:secret@127.0.0.1:1/nowhere", 6, "somebody:***@"),
        ("postgresql://somebody@127.0.0.1:1/nowhere?pooler=transaction", 5, "give the URL of the database itself"),
    ],
)
def test_where_no_database_is_at_hand_it_says_how_to_get_one_and_fails(store: str, code: int, words: str, tmp_path: Path) -> None:
    done = subprocess.run([*ONWARD, "demo", "--store", store], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == code
    assert words in done.stderr and "Traceback" not in done.stderr and "secret" not in done.stderr


async def test_a_role_that_may_make_no_schema_is_told_to_bring_a_database_of_its_own(postgres_url: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(postgres_url)
    role = f"nobody_{postgres_url.rpartition('_')[2].partition('?')[0]}"
    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        url = re.sub("//[^@]*@", f"//{role}:secret@", postgres_url)
        done = subprocess.run([*ONWARD, "demo", "--store", url], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 6 and "give it a database that is yours" in done.stderr, done.stderr
    finally:
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()
