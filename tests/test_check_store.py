"""`onward check --store`, the gate before a deploy: the code at hand held against every process that is not over."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_project import Project, shop
from conftest import opened
from rolling import NEW, OLD, NewOrder, OldOrder

from onward import Onward
from onward.clock import SystemClock
from onward.flow import Flow
from onward.ports import WALK_CHARS
from onward.store import open_store
from onward.telling.gate import MISFITS_MAX, Held, hold
from onward.testing import ManualClock

MODEL = """
from datetime import timedelta
from enum import StrEnum, auto
from typing import Literal

from onward import END, Every, Flow, Onward, Process, stage


class Status(StrEnum):
    BEGUN = auto()
    {second} = auto()
    PAID = auto()


class Order(Process[Status]):
    status: Status = Status.BEGUN
    {field}


async def begin(order: Order) -> Literal[Status.{second}]:
    return Status.{second}


async def charge(order: Order) -> Literal[Status.{second}, Status.PAID]:
    return Status.PAID if getattr(order, "pays", False) else Status.{second}


def in_cents(data):
    return {{"cents": int(data.pop("price")) * 100, **data}}


order = Flow(
    Order,
    {{
        Status.BEGUN: begin,
        Status.{second}: stage(charge, every=Every(60), within={within}, otherwise=Status.PAID),
        Status.PAID: END,
    }},
    {more}
)
app = Onward("sqlite:///orders.db", flows=[order])
"""
V1 = {"second": "PRICED", "field": "price: str = '5'", "within": "timedelta(days=9)", "more": ""}
V2 = {"second": "CHARGED", "field": "cents: int", "within": "timedelta(days=9)", "more": ""}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with shop(tmp_path) as project:
        (tmp_path / "pyproject.toml").write_text('[tool.onward]\napp = "till:app"\n')
        deploy(project, V1)
        project.out("start", "order", "--id", "begun-1")
        project.out("start", "order", "--id", "priced-1")
        project.out("start", "order", "--id", "priced-2", "--set", "price=x")
        project.out("start", "order", "--id", "over-1")
        project.out("stop", "over-1")
        with sqlite3.connect("orders.db") as connection:
            connection.execute("UPDATE onward_process SET status = 'priced' WHERE id LIKE 'priced%'")
        connection.close()
        yield project


def deploy(project: Project, code: dict[str, str], **more: str) -> None:
    """The next program that looks finds this code."""
    project.forget()
    text = MODEL.format(**{**code, **more})
    (project.folder / "till.py").write_text(text)
    # Two texts of one length within a second are one to the cache of bytecode.
    for cached in (project.folder / "__pycache__").glob("till*"):
        cached.unlink()


def checked(project: Project, *words: str, code: int) -> Any:
    answer = project.json("check", *words, code=code)
    assert answer["ok"] is (code == 0)
    return answer


def test_code_that_fits_passes_and_the_number_of_processes_is_told(project: Project) -> None:
    told = project.out("check")
    assert "sqlite:///orders.db: 3 processes not over\n" in told and told.endswith("\nok\n")
    answer = checked(project, code=0)
    assert (answer["processes"], answer["misfits"], answer["late"]) == (3, [], [])


def test_the_way_from_a_change_of_the_model_to_a_deploy_is_told_step_by_step(project: Project) -> None:
    """What it advises is what mends it, as far as a program can know."""
    deploy(project, V2)
    one, two = checked(project, code=1)["misfits"]
    assert (one["kind"], one["status"], one["number"], one["sample"]) == ("data", "begun", 1, "begun-1")
    assert (one["problem"], one["fields"]) == ("its data does not fit Order: cents: Field required", ["cents"])
    assert one["advice"].startswith("version=2, upgrade={1: from_1}, where it is a function")
    assert (two["kind"], two["status"], two["number"], two["sample"]) == ("status", "priced", 2, "priced-1")
    assert two["problem"] == "the flow order has no status 'priced'"
    assert two["advice"].startswith("if it has another name now: renamed={'priced': Status.CHARGED}")

    deploy(project, V2, more="version=2, upgrade={1: in_cents}")
    [two] = checked(project, code=1)["misfits"]
    assert two["kind"] == "status"

    deploy(project, V2, more="version=2, upgrade={1: in_cents}, renamed={'priced': Status.CHARGED}")
    [three] = checked(project, code=1)["misfits"]
    assert (three["kind"], three["number"], three["sample"], three["data_version"]) == ("upgrade", 1, "priced-2", 1)
    assert "upgrade[1], of its data to version 2, failed: ValueError: invalid literal for int()" in three["problem"]
    assert three["advice"] == "mend that upgrade; its data: onward show priced-2 --data"
    told = project.out("check", code=1)
    assert "  order (data version 2): begun, charged, paid\n" in told
    assert "error: 1 process of order at priced: upgrade[1]" in told and "  mend that upgrade" in told
    assert not told.endswith("ok\n")

    project.out("stop", "priced-2")
    checked(project, code=0)


def test_an_upgrade_that_leads_to_data_that_do_not_fit_is_told_as_such(project: Project) -> None:
    deploy(project, V2, more="version=2, upgrade={1: dict}, renamed={'priced': Status.CHARGED}")
    misfits = checked(project, code=1)["misfits"]
    assert {misfit["kind"] for misfit in misfits} == {"data"}
    assert {misfit["advice"] for misfit in misfits} == {"the upgrades from version 1 lead to data that do not fit: mend them"}


def test_data_of_the_newest_version_that_do_not_fit_take_one_version_more(project: Project) -> None:
    more = "version=2, upgrade={1: in_cents}, renamed={'priced': Status.CHARGED}"
    deploy(project, V2, more=more)
    project.out("stop", "priced-2")
    project.out("start", "order", "--id", "newer", "--set", "cents=1")
    deploy(project, V2, more=more, field="cents: int; when: str")
    advice = {misfit["data_version"]: misfit["advice"] for misfit in checked(project, code=1)["misfits"]}
    assert advice[2].startswith("version=3, upgrade={1: in_cents, 2: from_2}, where it is a function")
    assert advice[1] == "the upgrades from version 1 lead to data that do not fit: mend them"


def test_who_rolls_back_is_told_what_stays_behind(project: Project) -> None:
    deploy(project, V2, more="version=2, upgrade={1: in_cents}, renamed={'priced': Status.CHARGED}")
    project.out("start", "order", "--id", "newer", "--set", "cents=1")
    deploy(project, V1)
    [misfit] = checked(project, code=1)["misfits"]
    assert (misfit["kind"], misfit["sample"], misfit["data_version"]) == ("version", "newer", 2)
    assert misfit["problem"] == "its data has version 2, and this code reads no newer one than 1"
    assert misfit["advice"].startswith("newer code has been at work: deploy that")


def test_upgrades_that_were_thrown_away_too_early_are_missed(project: Project) -> None:
    deploy(project, V2, more="version=3, upgrade={2: in_cents}, renamed={'priced': Status.CHARGED}")
    misfits = checked(project, code=1)["misfits"]
    assert {misfit["kind"] for misfit in misfits} == {"version"}
    assert {misfit["advice"] for misfit in misfits} == {"keep the upgrades of then: upgrade={1: from_1, 2: in_cents}"}


def test_a_renamed_model_is_missed_by_its_flow(project: Project) -> None:
    deploy(project, V1, more="name='orders'")
    misfits = checked(project, code=1)["misfits"]
    assert {(misfit["flow"], misfit["kind"]) for misfit in misfits} == {("order", "flow")}
    assert misfits[0]["advice"].startswith("if its model has another name now: Flow(Order, …, name='order')")


def test_a_process_at_the_old_name_of_an_end_is_a_misfit(project: Project) -> None:
    deploy(project, V1, second="CHARGED", more="renamed={'priced': Status.PAID}")
    [misfit] = checked(project, code=1)["misfits"]
    assert (misfit["kind"], misfit["number"], misfit["status"]) == ("status", 2, "priced")
    assert "is called 'paid' now, an END" in misfit["problem"] and "onward move priced-1" in misfit["advice"]


def test_deadlines_that_have_passed_are_a_warning_and_with_strict_an_error(project: Project) -> None:
    with sqlite3.connect("orders.db") as connection:
        connection.execute("UPDATE onward_process SET entered_at = entered_at - 7200000000 WHERE id = 'priced-1'")
    connection.close()
    checked(project, "--strict", code=0)
    deploy(project, V1, within="timedelta(hours=1)")
    answer = checked(project, code=0)
    assert answer["late"] == [
        {"flow": "order", "status": "priced", "stage": "charge", "otherwise": "paid", "number": 1, "sample": "priced-1"}
    ]
    assert checked(project, "--strict", code=1)["misfits"] == []
    told = project.out("check", "--strict", code=1)
    assert "warning: 1 process of order at priced: the deadline of charge has passed" in told and "ok" not in told.split()
    project.out("pause", "priced-1")
    assert checked(project, "--strict", code=0)["late"] == []  # it waits for a person


def test_it_changes_nothing(project: Project) -> None:
    def everything() -> list[str]:
        connection = sqlite3.connect("orders.db")
        lines = list(connection.iterdump())
        connection.close()
        return lines

    before = everything()
    deploy(project, V2, more="version=2, upgrade={1: in_cents}, renamed={'priced': Status.CHARGED}")
    checked(project, code=1)
    assert everything() == before


def test_what_a_row_holds_cannot_write_to_the_terminal(project: Project) -> None:
    hostile = "\x1b]0;owned\x07\x1b[31m\u202e"
    with sqlite3.connect("orders.db") as connection:
        connection.execute("UPDATE onward_process SET flow = ?, status = ?, id = ? WHERE id = 'priced-1'", (hostile,) * 3)
        connection.execute("UPDATE onward_process SET status = ? WHERE id = 'priced-2'", (hostile,))
        connection.execute("UPDATE onward_process SET data = ? WHERE id = 'begun-1'", (json.dumps({hostile: 1, "price": 1}),))
    connection.close()
    result = project.run("check")
    assert result.exit_code == 1
    for said in (result.stdout, result.stderr, project.run("check", "--json").stdout):
        assert not set(said) & set("\x1b\x07\u202e")


# -- the gate itself, on either store -----------------------------------------------------------------------------


async def held(app: Onward) -> Held:
    return await hold(app, lambda looked, total: None)


@pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)
async def test_each_store_tells_the_same_of_what_old_code_left_behind(url: str) -> None:
    clock = ManualClock()
    async with opened(OLD, url=url, clock=clock) as app:
        await app.start_many([OldOrder(id=f"p{n}", price=n) for n in range(9)])
        for n in range(3):
            await app.stop(f"p{n}")
    async with opened(NEW, url=url, clock=clock) as app:
        await app.start(NewOrder(id="new", cents=1))
        assert await held(app) == Held(7, [], [])
    async with opened(OLD, url=url, clock=clock) as app:
        found = await held(app)
        [misfit] = found.misfits
        assert (found.processes, misfit.kind, misfit.number, misfit.sample) == (7, "version", 1, "new")
    async with opened(NEW, url=url, clock=clock) as app:
        looks: list[tuple[int, int]] = []
        await hold(app, lambda looked, total: looks.append((looked, total)))
        assert looks == [(10, 10)]


async def test_whatever_stands_in_a_row_is_told_and_ends_nothing(file_url: str, path: Path) -> None:
    async with opened(OLD, url=file_url) as app:
        await app.start_many([OldOrder(id=f"p{n}") for n in range(7)])
    raw = sqlite3.connect(path, isolation_level=None)
    poisons = ["''", "'[1]'", "'{\"price\": '", "cast(x'7b22ff' AS TEXT)", "'{\"price\": 1e999}'", "'null'"]
    for number, poison in enumerate(poisons):
        raw.execute(f"UPDATE onward_process SET data = {poison} WHERE id = 'p{number}'")
    raw.close()
    async with opened(NEW, url=file_url) as app:
        found = await held(app)
    assert found.processes == 7 and sum(misfit.number for misfit in found.misfits) == 6
    assert {misfit.kind for misfit in found.misfits} <= {"data", "upgrade"}


async def test_of_many_kinds_of_trouble_the_first_are_told_and_the_others_counted(file_url: str) -> None:
    from onward.ports import NewProcess

    number = 3 * MISFITS_MAX
    store = open_store(file_url, SystemClock())
    await store.open()
    try:
        rows = [NewProcess(f"p{n:04}", "order", f"status-{n}", "{}") for n in range(number)]
        await store.insert(rows, "ann")
    finally:
        await store.close()
    async with opened(NEW, url=file_url) as app:
        found = await held(app)
    assert len(found.misfits) == MISFITS_MAX + 1 and sum(misfit.number for misfit in found.misfits) == number
    assert found.misfits[-1].kind == "other" and found.misfits[-1].number == number - MISFITS_MAX


async def test_places_in_a_list_and_words_of_a_validator_make_no_kinds_of_their_own(file_url: str) -> None:
    from enum import StrEnum, auto
    from typing import Literal

    from pydantic import field_validator

    from onward import END, Process

    class Step(StrEnum):
        MAKE = auto()
        DONE = auto()

    class Loose(Process[Step]):
        status: Step = Step.MAKE
        sizes: list[Any] = []
        name: Any = ""

    class Strict(Process[Step]):
        status: Step = Step.MAKE
        sizes: list[int] = []
        name: str = ""

        @field_validator("name")
        @classmethod
        def short(cls, name: str) -> str:
            if name:
                raise ValueError(f"{name} is too long")
            return name

    async def make(one: Process[Step]) -> Literal[Step.DONE]:
        return Step.DONE

    table: dict[Any, Any] = {Step.MAKE: make, Step.DONE: END}
    async with opened(Flow(Loose, table, name="job"), url=file_url) as app:
        await app.start_many([Loose(id=f"list-{n}", sizes=[0] * n + ["x"]) for n in range(5)])
        await app.start_many([Loose(id=f"name-{n}", name=f"name {n}") for n in range(5)])
    async with opened(Flow(Strict, table, name="job"), url=file_url) as app:
        misfits = (await held(app)).misfits
    assert [(misfit.fields, misfit.number) for misfit in misfits] == [(("sizes.*",), 5), (("name",), 5)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_nor_with_their_size(tmp_path: Path) -> None:
    """2,000 rows of 100 kB in a page of the walk would be 100 MB of text alone."""
    (tmp_path / "till.py").write_text(MODEL.format(**V1))
    path = tmp_path / "orders.db"

    def onward(*words: str, rss: bool = False) -> str:
        told = (
            "import resource, atexit, sys; atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))\n"
        )
        program = f"{told if rss else ''}from onward.cli import main; main()"
        command = [sys.executable, "-c", program, *words, "--app", "till:app"]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    onward("start", "order", "--id", "p")
    assert WALK_CHARS <= 100_000 * 20
    peaks = []
    for number, size in ((10, 10), (2_000, 100_000)):
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < ? - 1)"
            " INSERT INTO onward_process (id, flow, status, condition, data, version, epoch, attempt, polls, transition, moves,"
            " cancelling, entered_at, created_at, updated_at, due_at, kind, actor)"
            " SELECT printf('%d-%06d', ?2, n), 'order', 'begun', 'ready', json_object('price', hex(zeroblob(?2 / 2))), 0, 0,"
            " 0, 0, 0, 0, 0, 0, 0, 0, 0, 'started', 'ann' FROM n",
            (number, size),
        )
        raw.close()
        peaks.append(int(onward("check", rss=True).split()[-1]))
    assert peaks[1] - peaks[0] < 40_000, peaks  # kilobytes
