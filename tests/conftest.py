"""What the tests share: a few flows to fill in, and an app on a real SQLite store, in memory or in a file."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from enum import StrEnum, auto
from pathlib import Path
from typing import Any

import postgres
import pytest

from onward import END, Flow, Onward, Process, stage
from onward.clock import SystemClock
from onward.store import upkeep_of

# A shell starts what it puts into the background deaf to Ctrl-C, and programs pass that on to what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# These compute, and nothing in them counts milliseconds: they run beside the others, in the time that those leave.
COMPUTING = {
    "test_bounds.py", "test_codec.py", "test_decide.py", "test_differential.py", "test_explain.py", "test_export.py",
    "test_graph.py", "test_graph_live.py", "test_lease_model.py", "test_prove.py", "test_prove_postgres.py", "test_query.py",
    "test_types.py", "test_world.py", "test_xss.py",
}  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in COMPUTING or item.path.parent.name == "simulation":
            item.add_marker("computes")


PATIENCE_S = 20.0  # a test that waits for longer hangs; none of them sleeps for its result
IN_MEMORY = "sqlite:///:memory:"


class Step(StrEnum):
    """The shortest life: one stage."""

    MAKE = auto()
    DONE = auto()


class Job(Process[Step]):
    status: Step = Step.MAKE
    note: str = ""
    numbers: list[int] = []
    extra: Any = None


class Leg(StrEnum):
    """A life with a way out: book, travel, and clean up when all is done or cancelled."""

    BOOK = auto()
    TRAVEL = auto()
    CLEAN = auto()
    OVER = auto()


class Trip(Process[Leg]):
    status: Leg = Leg.BOOK
    log: list[str] = []


def one_stage(handler: Callable[..., Any], *, lifespan: Any = None, name: str | None = None, **policies: Any) -> Flow[Step]:
    """A flow of one stage; policies as in `stage`."""
    return Flow(Job, {Step.MAKE: stage(handler, **policies), Step.DONE: END}, lifespan=lifespan, name=name)


@asynccontextmanager
async def opened(*flows: Flow[Any], url: str = IN_MEMORY, **options: Any) -> AsyncIterator[Onward]:
    """An open app; whatever hangs inside is ended by a TimeoutError."""
    async with asyncio.timeout(PATIENCE_S), Onward(url, flows, **options) as app:
        yield app


@asynccontextmanager
async def working(app: Onward, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    """A worker of `app` beside the test, cancelled at its end."""
    task = asyncio.create_task(app.run(signals=False, **options))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def work_off(app: Onward, **options: Any) -> None:
    """A worker that ends when there is nothing left to do."""
    await app.run(until_idle=True, signals=False, **options)


def kinds(entries: list[Any]) -> list[str]:
    return [entry.kind for entry in entries]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "onward.db"


@pytest.fixture(params=["memory", "file", "postgres"])
def url(request: pytest.FixtureRequest, file_url: str) -> str:
    """Every kind of store, for what could differ between them."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_tables_url"))
    return IN_MEMORY if request.param == "memory" else file_url


@pytest.fixture
def file_url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A real PostgreSQL, started when the first test asks for it; never to be stopped. See tests/postgres.py."""
    with postgres.shared() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: postgres.Server) -> Iterator[str]:
    """A new database, empty, dropped afterwards whoever is still connected."""
    name = f"onward_test_{secrets.token_hex(6)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgres.Server) -> Iterator[str]:
    """A database with Onward's tables. To copy it takes a tenth of the time that it takes to make them."""
    name = f"onward_template_{secrets.token_hex(6)}"
    asyncio.run(upkeep_of(postgres_server.create_database(name), SystemClock()).upgrade(print))
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_tables_url(postgres_server: postgres.Server, postgres_template: str) -> Iterator[str]:
    name = f"onward_test_{secrets.token_hex(6)}"
    yield postgres_server.create_database(name, template=postgres_template)
    postgres_server.drop_database(name)


@pytest.fixture
def private_postgres() -> Iterator[postgres.PrivateServer]:
    """A server for one test, to be stopped, restarted and frozen. It costs half a second."""
    with postgres.PrivateServer() as server:
        yield server
