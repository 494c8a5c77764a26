"""docs/postgres.md is held to the truth: its statements are run, by the roles that it makes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import asyncpg
import pytest
from conftest import Job, Step, kinds, one_stage, work_off
from postgres import PrivateServer

from onward import Condition, Context, Onward
from onward.demo.flow import Batch, check_status
from onward.store.postgres import store
from onward.store.postgres.session import SESSION, Address

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "postgres.md").read_text(encoding="utf-8")
ROLES, QUERY, INDEX, SETTINGS = re.findall(r"^```sql\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def db(*words: str, url: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "onward", "db", *words, "--store", url],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def send(job: Job, ctx: Context) -> Literal[Step.DONE]:
    job.note = await ctx.once("note", str, "sent")
    await ctx.save()
    async with ctx.transaction() as connection:
        job.extra = await connection.fetchval("SELECT current_user::text")
    return Step.DONE


@asynccontextmanager
async def connected(url: str, **session: Any) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url, **session)
    try:
        yield connection
    finally:
        await connection.close()


def as_role(server: PrivateServer, role: str) -> str:
    return server.url.replace("postgres@", f"{role}@")


async def test_a_worker_needs_no_more_rights_than_the_document_says(private_postgres: PrivateServer) -> None:
    worker = as_role(private_postgres, "worker")
    db("upgrade", url=private_postgres.url)
    async with connected(private_postgres.url) as owner:
        await owner.execute(ROLES)
        async with Onward(worker, flows=[one_stage(send)]) as app:
            job = await app.start(Job(id="job"))
            await app.pause(job.id)
            await app.resume(job.id)
            await work_off(app)
            record = await app.get("job")
            assert (record.condition, record.process.extra, record.process.note) == (Condition.FINISHED, "worker", "sent")
            assert len(await app.history("job")) == record.version + 1
        for statement in ("DROP TABLE onward_process", "DELETE FROM onward_history", "CREATE TABLE mine ()"):
            async with connected(worker) as connection:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
        # The settings that a pooler needs are a role's, and the same as ours.
        await owner.execute(SETTINGS)
        async with connected(worker) as connection:
            for name in re.findall(r"SET (\w+) =", SETTINGS):
                assert await connection.fetchval("SELECT current_setting($1)", name) == SESSION[name]


async def test_data_are_found_by_path_and_an_index_serves_the_question(postgres_url: str) -> None:
    db("upgrade", url=postgres_url)
    async with Onward(postgres_url, flows=[check_status]) as app:
        await app.start(Batch(id="one", question="Why?", documents=[], answers={"harbour.md": "So."}))
        await app.start(Batch(id="two", question="Who?", documents=[], model="other", answers={"harbour.md": "You."}))
        await app.start(Batch(id="three", question="When?", documents=[]))
    async with connected(postgres_url) as connection:
        assert [tuple(row) for row in await connection.fetch(QUERY)] == [("one", "files_created", "Why?")]
        await connection.execute(INDEX)
        await connection.execute("SET enable_seqscan = off; SET enable_indexscan = off")  # of three rows it would read all
        assert "my_batches_by_data" in str(await connection.fetch(f"EXPLAIN {QUERY}"))


async def test_jsonb_keeps_values_and_not_their_spelling(postgres_url: str) -> None:
    db("upgrade", url=postgres_url)
    extra = {"long": 1e3, "b": -0.0, "big": 1e16}
    async with Onward(postgres_url, flows=[one_stage(send)]) as app:
        await app.start(Job(id="job", extra=extra))
        back = (await app.get("job")).process.extra
    assert back == extra and list(back) != list(extra)
    assert isinstance(back["big"], int)


async def test_a_schema_of_its_own_is_made_used_and_copied(private_postgres: PrivateServer, tmp_path: Path) -> None:
    """Beside another store in `public`, which it leaves alone."""
    public, jobs = private_postgres.url, f"{private_postgres.url}?search_path=jobs"
    db("upgrade", url=public)
    assert "schema 1" in db("upgrade", url=jobs)
    async with Onward(jobs, flows=[one_stage(send)]) as app:
        await app.start(Job(id="job"))
        await work_off(app)
    async with connected(public) as connection:
        assert await connection.fetchval("SELECT count(*) FROM jobs.onward_process") == 1
        assert await connection.fetchval("SELECT count(*) FROM public.onward_process") == 0
    assert '"finished": 1' in db("status", "--json", url=jobs)
    db("backup", str(tmp_path / "copy"), url=jobs, PATH=f"{private_postgres.bin}:{os.environ['PATH']}")
    listed = subprocess.run([private_postgres.bin / "pg_restore", "--list", tmp_path / "copy"], capture_output=True, text=True)
    assert "TABLE DATA jobs onward_process" in listed.stdout and "public" not in listed.stdout


async def test_each_session_has_the_settings_of_the_table_unless_the_url_says_otherwise(postgres_url: str) -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", TEXT, re.MULTILINE))
    assert told == SESSION
    address = Address(f"{postgres_url}?statement_timeout=30s&jit=on")
    async with connected(address.dsn, **address.session()) as connection:
        for name, value in {**SESSION, "statement_timeout": "30s", "jit": "on"}.items():
            if not name.startswith("tcp"):  # each system keeps what it knows of these
                assert await connection.fetchval("SELECT current_setting($1)", name) == value


def test_a_worker_has_no_more_connections_than_the_document_says() -> None:
    said = re.search(r"never more than (\d+): (\d+) to read and write, (\d+) for handlers", TEXT)
    each = (store.CONNECTIONS_MAX, store.TRANSACTIONS_MAX)
    assert said is not None and tuple(map(int, said.groups())) == (sum(each) + 2, *each)


async def test_a_restart_of_the_database_fails_nothing_and_costs_no_attempt(private_postgres: PrivateServer) -> None:
    db("upgrade", url=private_postgres.url)

    async def handler(job: Job, ctx: Context) -> Literal[Step.DONE]:
        if not job.numbers:
            job.numbers.append(ctx.attempt)
            private_postgres.restart("immediate")
        return Step.DONE

    async with Onward(private_postgres.url, flows=[one_stage(handler)]) as app:
        await app.start(Job(id="job"))
        await work_off(app)
        record = await app.get("job")
        assert (record.condition, record.process.numbers) == (Condition.FINISHED, [1])
        assert kinds(await app.history("job")) == ["started", "moved"]
