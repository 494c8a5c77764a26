"""The command line where it changes something, or judges: actions, check, doctor, graph, init, completion, demo."""

from __future__ import annotations

import json
import sqlite3
import sys
import types
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_project import Project, shop

from onward.cli.check import warnings_of


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        yield project


# -- actions --------------------------------------------------------------------------------------------------------


def test_pause_resume_cancel_and_stop_do_what_they_say_and_stand_in_the_history(project: Project) -> None:
    id = project.start("--set", "item=tea")
    assert project.out("pause", id, "--reason", "lunch", "--actor", "ada") == f"{id} is ‖ paused at placed, version 1\n"
    assert project.out("resume", id) == f"{id} is ▷ ready at placed, version 2\n"
    assert project.out("cancel", id, "--reason", "no money") == f"{id} is ⧗ waiting at returned, version 3\n"
    entries = project.json("history", id)["entries"]
    assert [entry["kind"] for entry in entries] == ["started", "paused", "resumed", "cancelled"]
    assert (entries[1]["actor"], entries[1]["reason"]) == ("ada", "lunch")
    other = project.start("--set", "item=tea")
    assert project.out("stop", other) == f"{other} is ⊘ cancelled at placed, version 1\n"


def test_a_failed_process_goes_on_after_retry(project: Project) -> None:
    id = project.start("--set", "item=broken")
    assert "declined" in project.work()  # a failure is told even without -v
    Path("mended").touch()
    assert project.out("retry", id).startswith(f"{id} is ▷ ready")
    told = project.work("-v")
    assert "placed → paid" in told and "paid → shipped" in told and "1 finished" in told


def test_a_retrying_process_can_be_woken(project: Project) -> None:
    id = project.start("--set", "item=flaky")
    assert project.run("start", "purchase", "--set", "item=flaky", "--id", id).exit_code == 0
    with_worker = project.run("wake", id)
    assert with_worker.exit_code == 5 and "cannot wake" in with_worker.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["wake", "tea-1"], 5, "a worker takes it: onward run"),
        (["resume", "tea-1"], 5, "cannot resume"),
        (["retry", "nobody-here"], 3, "none that begins so"),
        (["pause", "tea-1", "--if-version", "4"], 4, "is at version 0 now, not 4"),
        (["pause", "tea-1", "tea-2", "--if-version", "0"], 2, "--if-version is for one"),
        (["pause"], 2, "name ids, or say --query"),
        (["pause", "tea-1", "--dry-run", "--if-version", "4"], 4, "is at version 0 now, not 4"),
    ],
)
def test_an_action_that_is_refused_says_what_fits_instead(project: Project, words: list[str], code: int, message: str) -> None:
    project.start("--set", "item=tea", "--id", "tea-1")
    assert message in project.error(*words, code=code)


def test_several_ids_have_a_verdict_each_and_partly_done_is_exit_8(project: Project) -> None:
    for name in ("tea-1", "tea-2", "tea-3"):
        project.start("--set", "item=tea", "--id", name)
    project.out("pause", "tea-2")
    result = project.run("pause", "tea-1", "tea-2", "nobody")
    assert result.exit_code == 8
    assert result.stdout == "tea-1 is ‖ paused at placed, version 1\n"
    assert "cannot pause purchase tea-2" in result.stderr and "there is no process 'nobody'" in result.stderr
    document = project.json("resume", "tea-1", "tea-3", "tea-2", code=8)
    assert [(one["id"], one["ok"]) for one in document["results"]] == [("tea-1", True), ("tea-3", False), ("tea-2", True)]
    assert document["results"][1]["error"]["code"] == "refused"
    assert project.run("resume", "tea-1", "tea-3").exit_code == 5
    assert project.out("pause", "tea-1", "tea-1", "tea-3", "-o", "ids") == "tea-1\ntea-3\n"


def test_a_dry_run_tells_what_would_be_and_changes_nothing(project: Project) -> None:
    id = project.start("--set", "item=tea")
    assert project.out("cancel", id, "--dry-run") == f"{id} would be ⧗ waiting at returned, version 0\n"
    assert project.out("stop", id, "--dry-run") == f"{id} would be ⊘ cancelled at placed, version 0\n"
    assert project.json("show", id)["version"] == 0


# -- check and doctor -----------------------------------------------------------------------------------------------


def test_check_lists_the_flows_and_warns_of_what_may_surprise(project: Project) -> None:
    told = project.out("check")
    assert "shop:app: 2 flows, 8 statuses, proven" in told and told.endswith("ok\n")
    assert "warning: purchase: look at paid may poll for ever" in told
    assert "warning: match: the circle ping → pong → ping never waits" in told
    assert "only the flows were checked" in project.run("check").stderr
    assert not Path("shop.db").exists()


def test_check_finds_rows_that_no_longer_fit_the_code(project: Project) -> None:
    for name in ("tea-1", "tea-2", "old-1", "gone-1", "done-1"):
        project.start("--set", "item=tea", "--id", name)
    project.out("stop", "done-1")
    connection = sqlite3.connect("shop.db", isolation_level=None)
    connection.execute("""UPDATE onward_process SET data = '{"item": 7}' WHERE id IN ('tea-1', 'tea-2')""")
    connection.execute("UPDATE onward_process SET status = 'wrapped' WHERE id = 'old-1'")
    connection.execute("UPDATE onward_process SET flow = 'gift' WHERE id = 'gone-1'")
    connection.execute("UPDATE onward_process SET flow = 'gift' WHERE id = 'done-1'")  # over: nobody minds
    connection.close()
    misfits = project.json("check", code=1)["misfits"]
    assert [(m["flow"], m["status"], m["number"], m["problem"]) for m in misfits] == [
        ("gift", "placed", 1, "this code has no flow 'gift'"),
        ("purchase", "wrapped", 1, "the flow purchase has no status 'wrapped'"),
        ("purchase", "placed", 2, "its data does not fit Purchase: item: Input should be a valid string"),
    ]
    assert {m["sample"] for m in misfits} <= {"gone-1", "old-1", "tea-1", "tea-2"}
    assert "error: 2 processes of purchase at placed" in project.out("check", code=1)
    assert "there are orphaned processes" in project.out("doctor")


def test_a_flow_that_waits_on_its_circle_is_not_warned_of(project: Project) -> None:
    from onward.cli.target import import_app

    sys.path.insert(0, str(project.folder))
    flows: dict[str, Any] = import_app("shop:app").flows
    assert [warning for warning in warnings_of(flows["purchase"]) if "circle" in warning] == []


def test_doctor_tells_facts_without_secrets(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project.folder))
    assert "there is no store yet" in project.out("doctor")
    project.start("--set", "item=secret")
    told = project.out("doctor")
    for fact in (
        "versions.sqlite: ",
        "store.mode: 600",
        "store.journal: wal",
        "store.schema: 4",
        "processes.conditions: ready 1",
    ):
        assert fact in told
    assert str(project.folder) not in told and "secret" not in told
    document = project.json("doctor")
    assert document["schema"] == "onward.doctor/1"
    assert set(document) == {"schema", "versions", "app", "store", "processes", "notes"}


def test_doctor_works_where_nothing_else_does(project: Project) -> None:
    Path("shop.py").write_text("1 / 0")
    project.forget()
    told = project.out("doctor", code=7)
    assert "versions.onward: " in told and "ZeroDivisionError" in told
    Path("pyproject.toml").unlink()
    assert "versions.onward: " in project.out("doctor")
    assert "…@127.0.0.1" in project.out("doctor", "--store", "postgres://ada:pass@127.0.0.1:1/db", code=6)


# -- graph ----------------------------------------------------------------------------------------------------------


def test_graph_draws_in_four_ways(project: Project) -> None:
    assert project.out("graph", "match").startswith("ping ──▶ pong ──▶ out")
    assert project.out("graph").startswith("purchase\n\n")
    assert project.out("graph", "match", "-f", "mermaid").startswith("stateDiagram-v2\n")
    assert project.json("graph", "match")["schema"] == "onward.flow/1"
    assert [flow["name"] for flow in project.json("graph")["flows"]] == ["purchase", "match"]
    ET.fromstring(project.out("graph", "match", "-f", "svg", "--down"))
    assert "an SVG shows one flow" in project.error("graph", "-f", "svg", code=2)
    assert "did you mean match?" in project.error("graph", "mach", code=3)


def test_graph_writes_a_file(project: Project) -> None:
    result = project.run("graph", "match", "-f", "svg", "--output", "match.svg")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "wrote match.svg\n")
    ET.parse("match.svg")
    assert "No such file" in project.error("graph", "match", "--output", "no/where.txt", code=1)


# -- init, completion, demo -----------------------------------------------------------------------------------------


def test_init_keeps_what_is_there(project: Project) -> None:
    assert "has [tool.onward] already" in project.error("init", code=5)
    Path("pyproject.toml").write_text('[project]\nname = "mine"')
    assert project.out("init").splitlines() == ["onward check", "onward start letter --set to=Ada", "onward run --until-idle -v"]
    assert Path("pyproject.toml").read_text() == '[project]\nname = "mine"\n\n[tool.onward]\napp = "onward_example:app"\n'
    Path("pyproject.toml").write_text('[project]\nname = "mine"')
    Path("onward_example.py").write_text("# mine")
    assert "exists already" in project.error("init", code=5)
    assert Path("onward_example.py").read_text() == "# mine"
    assert "onward" not in Path("pyproject.toml").read_text()
    Path("pyproject.toml").write_text("broken")
    assert "cannot be read" in project.error("init", code=5)
    assert project.json("init", "sub dir")["next"][0] == "cd 'sub dir'"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(project: Project, shell: str) -> None:
    assert "_ONWARD_COMPLETE" in project.out("completion", shell)


def test_completion_completes_commands(project: Project) -> None:
    env = {"_ONWARD_COMPLETE": "bash_complete", "COMP_WORDS": "onward his", "COMP_CWORD": "1"}
    assert project.run(env=env).stdout == "plain,history\n"


def test_demo_hands_everything_on(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}

    def run_demo(**options: Any) -> int:
        said.update(options)
        return 1

    fake: Any = types.ModuleType("onward.demo.main")
    fake.run_demo = run_demo
    monkeypatch.setitem(sys.modules, "onward.demo.main", fake)
    Path("a.md").touch()
    words = ("demo", "a.md", "--question", "Why?", "-n", "3", "--no-crash", "--real", "--store", "sqlite:///d.db")
    assert project.run(*words).exit_code == 1
    assert said == {
        "paths": (Path("a.md"),), "question": "Why?", "number": 3, "crash": False, "real": True, "store": "sqlite:///d.db",
    }  # fmt: skip
    assert project.run("demo").exit_code == 1
    assert said == {"paths": (), "question": None, "number": None, "crash": True, "real": False, "store": None}


def test_the_error_of_an_interrupted_command_is_json_as_well(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**options: Any) -> int:
        raise KeyboardInterrupt

    fake: Any = types.ModuleType("onward.demo.main")
    fake.run_demo = interrupted
    monkeypatch.setitem(sys.modules, "onward.demo.main", fake)
    assert project.run("demo").exit_code == 130
    assert json.loads(project.run("--json", "demo").stderr.strip())["error"]["code"] == "interrupted"
