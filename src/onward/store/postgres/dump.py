"""A copy of our tables in PostgreSQL, by its own `pg_dump`: consistent, and made beside all who write."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from onward.errors import StoreError
from onward.ports import Tell
from onward.store.copies import copied
from onward.store.postgres.session import Address

TABLES = ("onward_schema", "onward_process", "onward_step", "onward_history*")  # as pg_dump's patterns
TELL_EVERY_S = 1.0
SAID_CHARS_MAX = 500
# What libpq calls the same as the driver does. Anything else in a URL is a setting of the session, which it would not take.
_SHARED = {"host", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile", "options"}
_SHARED |= {"application_name", "target_session_attrs", "connect_timeout", "service", "krbsrvname", "gsslib"}


async def dump(address: Address, target: Path, tell: Tell) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise StoreError(
            "pg_dump is not on PATH; it comes with PostgreSQL's client programs",
            hint="apt install postgresql-client, or the like",
        )
    dsn, environment = without_password(address.dsn)
    if home := dict(parse_qsl(urlsplit(address.dsn).query)).get("search_path"):  # the names of TABLES go by it
        environment["PGOPTIONS"] = "-c search_path=" + home.replace("\\", "\\\\").replace(" ", "\\ ")
    with copied(target) as partial:
        words = [
            f"--dbname={dsn}",
            "--no-password",
            "--format=custom",
            f"--file={partial}",
            *(f"--table={name}" for name in TABLES),
        ]
        said = await _run(program, words, environment, partial, tell)
        if said:
            raise StoreError(f"{address.shown}: {said}", hint="pg_dump must be as new as the server, and may read all onward_*")


async def _run(program: str, words: list[str], environment: Mapping[str, str], partial: Path, tell: Tell) -> str:
    """What it complained of; '' if it went well."""
    # Nobody may see the password among the arguments of a program: those are for everybody on the machine.
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stderr is not None
    complaint = asyncio.create_task(process.stderr.read())
    try:
        while not (await asyncio.wait({complaint}, timeout=TELL_EVERY_S))[0]:
            tell(f"{(await asyncio.to_thread(partial.stat)).st_size:,} bytes written")
        failed = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    text = (await complaint).decode(errors="replace").strip()
    return (text[-SAID_CHARS_MAX:] or f"pg_dump ended with code {failed}") if failed else ""


def without_password(dsn: str) -> tuple[str, dict[str, str]]:
    """The URL for libpq, and its password as an environment variable."""
    parts = urlsplit(dsn)
    query = parse_qsl(parts.query, keep_blank_values=True)
    password = parts.password or dict(query).get("password")
    user, at, hosts = parts.netloc.rpartition("@")
    rest = urlencode([(key, value) for key, value in query if key in _SHARED])
    clean = urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + hosts, query=rest))
    return clean, {"PGPASSWORD": unquote(password) if parts.password else password} if password else {}
