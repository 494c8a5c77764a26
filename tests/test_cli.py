"""The command line: finding the app, starting and looking. What is printed, where, and with which exit code."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from cli_project import Project, lines, shop
from click.testing import CliRunner

from onward.cli import COMMANDS, cli
from onward.cli.group import Command
from onward.query import QUALIFIERS

NAMES = [name for section in COMMANDS.values() for name in section]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        yield project


def shape(value: Any) -> Any:
    """The types in a JSON document, for what a test cannot know: instants, random ids, lengths of time."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


# -- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_every_command_has_examples_that_it_understands(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("input.json", "report.pdf"):
        (tmp_path / file).write_text("{}")
    shown = CliRunner().invoke(cli, [name, "--help"])
    assert shown.exit_code == 0 and "Examples:" in shown.output
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, Command) and command.examples
    for example in command.examples:
        assert example in shown.output
        for part in re.findall(r"onward ([^|>\")]*)", example):
            words = shlex.split(re.split(r"[|>]| && ", example[example.index(f"onward {part}") + 7 :])[0].rstrip(')"'))
            parsed = cli.get_command(click.Context(cli), words[0])
            assert parsed is not None
            if "xargs" in example and words[0] != "ls":
                words.append("an-id")
            with click.Context(cli, obj=cli.make_context("onward", ["--version"], resilient_parsing=True).obj) as parent:
                parsed.make_context(words[0], words[1:], parent=parent)


def test_the_overview_tells_of_every_command_and_every_exit_code() -> None:
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    for name in NAMES:
        assert re.search(rf"^  {name} ", shown.output, re.MULTILINE), name
    for code in ("0 done", "124 timeout", "130 Ctrl-C"):
        assert code in shown.output.replace("\n ", "").replace("  ", " ")
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("onward ")


def test_nothing_typed_shows_the_help_and_counts_as_a_wrong_use() -> None:
    shown = CliRunner().invoke(cli, [])
    assert shown.exit_code == 2 and "Usage: onward" in shown.stderr and shown.stdout == ""


# -- finding app and store ------------------------------------------------------------------------------------------


def test_the_app_is_named_by_option_then_environment_then_pyproject_of_a_folder_above(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, flow in (("by_option", "option"), ("by_env", "env")):
        text = (project.folder / "shop.py").read_text().replace("on_cancel=Order", f'name="{flow}", on_cancel=Order')
        (project.folder / f"{module}.py").write_text(text)
    below = project.folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert [flow["name"] for flow in project.json("check")["flows"]] == ["purchase", "match"]
    monkeypatch.setenv("ONWARD_APP", "by_env:app")
    monkeypatch.chdir(project.folder)
    assert [flow["name"] for flow in project.json("check")["flows"]] == ["env", "match"]
    assert [flow["name"] for flow in project.json("check", "--app", "by_option")["flows"]] == ["option", "match"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("1 / 0", "bad:app", "ZeroDivisionError"),
        ("x = 1", "bad:app", "bad has no 'app'"),
        ("x = 1", "bad:x", "is a int, not an app"),
        ("import nowhere_to_be_found", "bad:app", "No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)", "bad:app", "SystemExit: 3"),
        ("from onward import Flow, Process\nFlow(Process, {})", "bad:app", "has 1 fault"),
        ("", "missing:app", "No module named 'missing'"),
    ],
)
def test_an_app_that_cannot_be_imported_is_exit_7_with_the_reason(project: Project, text: str, name: str, message: str) -> None:
    (project.folder / "bad.py").write_text(text)
    assert message in project.error("--app", name, "ls", code=7)
    assert message.split(":")[0] in json.loads(project.run("--app", name, "ls", "--json").stderr)["error"]["message"]
    verbose = project.run("-v", "--app", name, "ls")
    assert verbose.exit_code == 7 and "Traceback" in verbose.stderr


def test_no_app_and_no_store_says_how_to_name_them(project: Project) -> None:
    Path("pyproject.toml").unlink()
    assert "--app module:attr" in project.error("ls", code=7)
    assert "start needs the app" in project.error("start", "purchase", "--store", "sqlite:///shop.db", code=7)
    Path("pyproject.toml").write_text("not toml")
    assert "cannot be read" in project.error("ls", code=7)


def test_looking_at_a_store_that_is_not_there_does_not_make_it(project: Project) -> None:
    for words in (["ls"], ["show", "abcd"], ["pause", "abcd"], ["watch"], ["--store", "sqlite:///other.db", "ls"]):
        assert "there is no store" in project.error(*words, code=6)
    assert not list(project.folder.glob("*.db*"))


def test_a_store_that_is_none_is_exit_6(project: Project) -> None:
    Path("shop.db").write_text("this is no database, and long enough to be looked at as if it were one" * 20)
    assert "not a database" in project.error("ls", code=6)
    assert "no store for 'mysql://x'" in project.error("ls", "--store", "mysql://x", code=6)
    Path("empty.db").touch()
    assert "no tables of Onward" in project.error("ls", "--store", "sqlite:///empty.db", code=6)
    assert Path("empty.db").stat().st_size == 0  # looking does not make them


def test_the_store_is_chosen_by_option_or_environment(project: Project) -> None:
    project.start("--store", "sqlite:///other.db", "--set", "item=tea", "--id", "over-there")
    assert project.out("ls", "-o", "ids", "--store", "sqlite:///other.db") == "over-there\n"
    assert project.run("ls", "-o", "ids", env={"ONWARD_STORE": "sqlite:///other.db"}).stdout == "over-there\n"
    assert not Path("shop.db").exists()


def test_without_the_code_conditions_are_as_the_store_says_and_processes_can_be_acted_on(project: Project) -> None:
    project.start("--set", "item=tea", "--id", "tea-1")
    Path("shop.py").write_text("1 / 0")
    project.forget()
    store = ("--store", "sqlite:///shop.db")
    shown = project.run("show", "tea-1", *store, "--json")
    assert "going on without the app" in shown.stderr
    Path("pyproject.toml").unlink()
    assert project.json("show", "tea-1", *store)["condition"] == "ready"
    assert project.out("pause", "tea-1", *store).startswith("tea-1 is ‖ paused")
    assert "a person paused it" in project.out("explain", "tea-1", *store)
    assert "paused" in project.out("history", "tea-1", *store)
    assert project.out("resume", "tea-1", *store).startswith("tea-1 is ▷ ready")
    refused = project.error("cancel", "tea-1", *store, code=7)
    assert "onward stop tea-1" in refused
    assert project.out("stop", "tea-1", *store).startswith("tea-1 is ⊘ cancelled")


# -- start ----------------------------------------------------------------------------------------------------------


def test_start_prints_the_id_and_nothing_else_on_stdout(project: Project) -> None:
    result = project.run("start", "purchase", "--set", "item=tea", "--set", "count=3")
    assert result.exit_code == 0
    assert re.fullmatch(r"[0-9a-z]{18}\n", result.stdout)
    assert result.stderr.startswith("started: purchase ")
    assert json.loads(project.out("show", result.stdout.strip(), "--data")) == {
        "item": "tea",
        "count": 3,
        "looks": 0,
        "notes": [],
    }


def test_data_comes_from_the_option_a_file_or_stdin_and_set_has_the_last_word(project: Project) -> None:
    Path("in.json").write_text('{"item": "from file", "count": 7}')
    ids = [
        project.start("--data", '{"item": "typed"}', "--set", "item=last"),
        project.start("--data", "@in.json"),
        project.out("-q", "start", "purchase", "--data", "-", input='{"item": "piped", "notes": ["a"]}').strip(),
        project.start("--set", 'item="7"', "--set", 'notes=["x","y"]'),
    ]
    found = [json.loads(project.out("show", id, "--data")) for id in ids]
    assert [(data["item"], data["count"], data["notes"]) for data in found] == [
        ("last", 1, []), ("from file", 7, []), ("piped", 1, ["a"]), ("7", 1, ["x", "y"]),
    ]  # fmt: skip


def test_starting_twice_with_one_id_is_once_and_with_other_input_a_conflict(project: Project) -> None:
    words = ("--set", "item=tea", "--id", "tea-1")
    assert project.start(*words) == "tea-1" == project.start(*words)
    again = project.run("start", "purchase", *words)
    assert again.exit_code == 0 and again.stderr.startswith("exists already")
    assert project.out("ls", "--count") == "1\n"
    assert "started with other input" in project.error("start", "purchase", "--set", "item=coffee", "--id", "tea-1", code=4)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["purchas", "--set", "item=x"], 3, "did you mean purchase?"),
        (["purchase", "--set", "itme=x"], 5, "did you mean item?"),
        (["purchase"], 5, "item: Field required"),
        (["purchase", "--set", "item=x", "--set", "count=many"], 5, "count: Input should be a valid integer"),
        (["purchase", "--set", "item=x", "--set", "status=nowhere"], 5, "status: Input should be"),
        (["purchase", "--set", "item=x", "--set", "status=3"], 5, "id and status are strings"),
        (["purchase", "--set", "item=x", "--id", "a\x1bb"], 5, "not printable"),
        (["purchase", "--data", "{"], 2, "is no JSON"),
        (["purchase", "--data", "[1]"], 2, "is no JSON object but list"),
        (["purchase", "--data", "@none.json"], 2, "No such file"),
        (["purchase", "--set", "item"], 2, "write key=value"),
        (["purchase", "--data", '{"item": "x", "id": "a"}', "--id", "b"], 2, "--id says 'b'"),
        (["purchase", "--set", "item=x", "--timeout", "3"], 2, "--timeout is for"),
        (["purchase", "--set", "item=x", "--wait", "--timeout", "soon"], 2, "is no duration"),
    ],
)
def test_what_cannot_be_started_is_refused_with_a_reason(project: Project, words: list[str], code: int, message: str) -> None:
    assert message in project.error("start", *words, code=code)


def test_a_refused_start_tells_what_the_flow_takes(project: Project) -> None:
    told = project.error("start", "purchase", code=5)
    assert "purchase takes: item (string), count (integer, optional), looks (integer, optional), notes (array, optional)" in told


def test_wait_ends_after_the_timeout_with_124_and_the_id_is_known(project: Project) -> None:
    result = project.run("start", "purchase", "--set", "item=tea", "--id", "tea-1", "--wait", "--timeout", "0.2")
    assert (result.exit_code, result.stdout) == (124, "tea-1\n")
    assert "onward watch tea-1" in result.stderr


# -- looking --------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(project: Project) -> Project:
    """One finished, two failed, one retrying, one paused, one at rest in the other flow."""
    project.start("--set", "item=tea", "--id", "tea-1")
    project.start("--set", "item=broken", "--id", "broken-1")
    project.start("--set", "item=broken", "--set", "count=2", "--id", "broken-2")
    project.start("--set", "item=late", "--id", "late-1")
    project.out("pause", "late-1", "--reason", "out of stock", "--actor", "ada")
    project.out("start", "match", "--id", "match-1")
    project.work()
    return project


def test_ls_is_a_table_of_the_newest_first(busy: Project) -> None:
    head, *rows = lines(busy.out("ls"))
    assert head == ["ID", "FLOW", "STATUS", "CONDITION", "AGE", "WHAT", "NEXT,", "OR", "WHY", "NOT"]
    assert [(row[0], row[1], row[2], row[4]) for row in rows] == [
        ("match-1", "match", "out", "finished"),
        ("late-1", "purchase", "placed", "paused"),
        ("broken-2", "purchase", "placed", "failed"),
        ("broken-1", "purchase", "placed", "failed"),
        ("tea-1", "purchase", "shipped", "finished"),
    ]
    assert "card 4711-1 was declined" in busy.out("ls")


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["is:failed"], ["broken-2", "broken-1"]),
        (["is:failed,paused"], ["late-1", "broken-2", "broken-1"]),
        (["is:over", "flow:purchase"], ["tea-1"]),
        (["is:active"], ["late-1", "broken-2", "broken-1"]),
        (["status:shipped,out"], ["match-1", "tea-1"]),
        (["id:bro*"], ["broken-2", "broken-1"]),
        (["--condition", "paused", "--flow", "purchase"], ["late-1"]),
        (["--id-prefix", "tea"], ["tea-1"]),
        (["--status", "out"], ["match-1"]),
        (["-n", "2"], ["match-1", "late-1"]),
        (["--all"], ["match-1", "late-1", "broken-2", "broken-1", "tea-1"]),
        (["is:orphaned"], []),
        (["id:broken-1"], ["broken-1"]),
        (["id:bro"], []),
        (["-is:over"], ["late-1", "broken-2", "broken-1"]),
        (["-is:failed", "-flow:match", "--status", "placed"], ["late-1"]),
        (["bro"], ["broken-2", "broken-1"]),
        (["error:was declined"], ["broken-2", "broken-1"]),  # as a shell hands on error:"was declined"
        (["card declined"], []),
        (["card", "declined"], ["broken-2", "broken-1"]),
        (['error:"card * was" is:failed'], ["broken-2", "broken-1"]),  # a whole query, quoted for the shell
        (["data.item:tea"], ["tea-1"]),
        (["data.count:2"], ["broken-2"]),
        (["age:<1h", "version:>0", "flow:purchase", "is:over,paused"], ["late-1", "tea-1"]),
        (["worker:*"], []),
        (["updated:>2020-01-01", "attempt:>=1", "is:failed", "-data.count:2"], ["broken-1"]),
    ],
)
def test_ls_shows_what_is_asked_for(busy: Project, words: list[str], ids: list[str]) -> None:
    assert busy.out("ls", "-o", "ids", *words).split() == ids
    assert [process["id"] for process in busy.json("ls", *words)["processes"]] == ids
    assert (
        busy.out("ls", "--count", *[word for word in words if word not in ("-n", "2")])
        == f"{len(ids) if '-n' not in words else 5}\n"
    )


def test_ls_says_that_there_are_more(busy: Project) -> None:
    assert "there are more" in busy.run("ls", "-n", "2").stderr
    assert busy.json("ls", "-n", "2")["more"] is True
    assert busy.json("ls")["more"] is False
    assert "there are more" not in busy.run("ls", "-n", "5").stderr


def test_ls_counts_by_status_and_by_error(busy: Project) -> None:
    assert lines(busy.out("ls", "--by", "status", "flow:purchase")) == [
        ["COUNT", "FLOW", "STATUS", "CONDITION"],
        ["2", "purchase", "placed", "✕", "failed"],
        ["1", "purchase", "placed", "‖", "paused"],
        ["1", "purchase", "shipped", "✓", "finished"],
    ]
    assert lines(busy.out("ls", "--by", "status", "id:bro*"))[1:] == [["2", "purchase", "placed", "✕", "failed"]]
    by_error = busy.run("ls", "is:failed", "--by", "error")
    assert by_error.stdout.splitlines()[1].split()[:3] == ["2", "purchase", "placed"]
    assert "card … was declined" in by_error.stdout
    command = shlex.split(by_error.stderr.partition("group: onward ")[2])
    assert command[:2] == ["retry", "--query"]
    assert busy.json(*command, "--dry-run")["total"] == 2
    [error] = busy.json("ls", "--by", "error", "id:broken-1")["errors"]
    assert (error["number"], busy.out("ls", "-o", "ids", error["query"]).split()) == (1, ["broken-1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["is:faild"], "did you mean failed?"),
        (["stat:x"], "did you mean status?"),
        (["is:"], "nothing to look for"),
        (["age:5m"], "write age:>5m or age:<5m"),
        (['error:"x'], "no closing quote"),
        (["data.a.$secret:x"], "a secret cannot be asked for"),
        (["--condition", "faild"], "did you mean failed?"),
        (["flow:a", "--flow", "b"], "asked for twice"),
        (["id:a", "--id-prefix", "b"], "asked for twice"),
        (["--jsn"], "No such option"),
        (["-n", "0"], "-n"),
    ],
)
def test_a_wrong_question_names_the_nearest_right_one(busy: Project, words: list[str], message: str) -> None:
    assert message in busy.error("ls", *words, code=2)


def test_ls_tells_every_qualifier_in_its_help_and_to_the_shell(project: Project) -> None:
    told = " ".join(project.out("ls", "--help").split())
    for example, meaning in QUALIFIERS.values():
        assert f"{example} {meaning}" in told
    for typed, offered in (("st", "status:"), ("data", "data."), ("is:fa", "is:failed"), ("is:ov", "is:over")):
        shell = {"_ONWARD_COMPLETE": "zsh_complete", "COMP_WORDS": f"onward ls {typed}", "COMP_CWORD": "2"}
        assert offered in project.run(env=shell).stdout


def test_an_unknown_command_names_the_nearest(project: Project) -> None:
    assert "did you mean history?" in project.error("histroy", code=2)


def test_show_tells_all_of_one_process_and_what_it_was(busy: Project) -> None:
    shown = busy.out("show", "broken-1")
    for fact in ("broken-1", "purchase", "placed", "✕ failed", "Unrecoverable: card 4711-1 was declined", '"item": "broken"'):
        assert fact in shown
    assert json.loads(busy.out("show", "tea-1", "--data", "--version", "0"))["notes"] == []
    assert json.loads(busy.out("show", "tea-1", "--data", "--version", "1"))["notes"] == ["paid"]
    assert "last one is" in busy.error("show", "tea-1", "--version", "99", code=3)
    assert "\nmodel " not in shown
    with closing(sqlite3.connect(busy.folder / "shop.db")) as connection, connection:
        connection.execute("UPDATE onward_process SET data_version = 2 WHERE id = 'broken-1'")
    assert "\nmodel      version 2\n" in busy.out("show", "broken-1")


def test_ids_may_be_typed_by_their_beginning_where_that_is_clear(busy: Project) -> None:
    assert busy.json("show", "late")["id"] == "late-1"
    assert "broken-2, broken-1" in busy.error("show", "broke", code=2)
    assert "there is no process 'tea'" in busy.error("show", "tea", code=3)  # three characters are a slip, not a choice
    busy.start("--set", "item=x", "--id", "late")
    assert busy.json("show", "late")["id"] == "late"  # a whole id is never a beginning


def test_history_folds_polls_unless_asked_for_all(busy: Project) -> None:
    busy.start("--set", "item=slow", "--set", "count=4", "--id", "slow-1")
    busy.work()
    folded = busy.out("history", "slow-1")
    assert "not yet ×4" in folded and len(folded.splitlines()) == 5
    assert len(busy.out("history", "slow-1", "--all").splitlines()) == 8
    assert "placed → paid" in folded
    assert "out of stock" in busy.out("history", "late-1") and "ada" in busy.out("history", "late-1")


def test_diff_tells_what_changed_path_by_path(busy: Project) -> None:
    assert busy.out("diff", "tea-1") == "- $.looks: 1\n+ $.looks: 2\n"
    assert busy.out("diff", "tea-1", "0..1") == '+ $.notes[0]: "paid"\n'
    assert busy.out("diff", "tea-1", "1") == '+ $.notes[0]: "paid"\n'
    assert busy.out("diff", "tea-1", "1..0") == '- $.notes[0]: "paid"\n'
    assert '+ $.item: "tea"' in busy.out("diff", "tea-1", "0")
    assert busy.out("diff", "tea-1", "0..") == '- $.looks: 0\n+ $.looks: 2\n+ $.notes[0]: "paid"\n'
    assert "the data did not change" in busy.run("diff", "late-1", "0..1").stderr
    assert "no version 99" in busy.error("diff", "tea-1", "0..99", code=3)
    assert "names no versions" in busy.error("diff", "tea-1", "x", code=2)


def test_a_large_value_is_told_by_its_size(busy: Project) -> None:
    busy.start("--data", json.dumps({"item": "x" * 5_000}), "--id", "large")
    assert re.search(r"\(5,002 characters, sha256 [0-9a-f]{12}\)", busy.out("diff", "large", "0"))
    assert "characters in all: --data shows them" in busy.out("show", "large")


def test_explain_is_one_sentence(busy: Project) -> None:
    assert busy.out("explain", "broken-1").count("\n") == 1
    assert "onward retry broken-1" in busy.out("explain", "broken-1")


def test_watch_tells_every_commit_and_ends_with_the_process(busy: Project) -> None:
    told = busy.run("watch", "tea-1")
    assert told.exit_code == 0 and "placed → paid" in told.stdout and "finished" in told.stderr
    assert busy.run("watch", "broken-1").exit_code == 1
    assert busy.run("watch", "late-1").exit_code == 1
    assert "at rest within 0.1 s" in busy.run("watch", busy.start("--set", "item=x"), "--timeout", "0.1").stderr


def test_watch_without_an_id_counts_until_nothing_happens_by_itself(busy: Project) -> None:
    assert lines(busy.out("watch", "--until-idle"))[0] == ["1", "match", "out", "✓", "finished"]
    busy.start("--set", "item=x")
    assert busy.run("watch", "--until-idle", "--timeout", "0.1").exit_code == 124
    assert "--until-idle is for" in busy.error("watch", "tea-1", "--until-idle", code=2)


def test_watch_counts_those_that_match_a_query(busy: Project) -> None:
    told = lines(busy.out("watch", "--query", "flow:purchase id:tea*", "--until-idle"))
    assert told[0] == ["1", "purchase", "shipped", "✓", "finished"] and len(told) == 2
    assert "name one process, or say --query" in busy.error("watch", "tea-1", "--query", "is:failed", code=2)
    assert "did you mean flow" in busy.error("watch", "--query", "flwo:purchase", code=2)


def test_control_characters_of_a_store_never_reach_the_terminal(project: Project) -> None:
    evil = "\x1b[2J\x07\x9b31m\u202egnp"
    project.start("--data", json.dumps({"item": evil, "notes": [evil]}), "--id", "evil")
    project.out("pause", "evil", "--reason", evil, "--actor", evil)
    for words in (["ls"], ["show", "evil"], ["history", "evil"], ["diff", "evil", "0"], ["explain", "evil"], ["watch", "evil"]):
        for more in ([], ["--json"]):
            result = project.run(*words, *more)
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.output), words
    assert json.loads(project.out("show", "evil", "--data"))["item"] == evil


def test_text_is_the_same_with_and_without_colour(busy: Project) -> None:
    plain = re.sub(r"[\d.]+ s ", "… s ", busy.out("ls"))
    coloured = busy.out("ls", "--color", "always")
    assert "\x1b[31m✕ failed" in coloured
    assert re.sub(r" +", " ", re.sub("\x1b\\[[0-9;]*m", "", re.sub(r"[\d.]+ s ", "… s ", coloured))) == re.sub(r" +", " ", plain)


# -- the shapes that are promised to programs --------------------------------------------------------------------------

PROCESS = {
    "schema": "str", "id": "str", "flow": "str", "status": "str", "condition": "str", "version": "int", "transition": "int",
    "attempt": "int", "polls": "int", "cancelling": "bool", "created_at": "str", "updated_at": "str", "entered_at": "str",
    "due_at": "NoneType", "owner": "NoneType", "lease_until": "NoneType", "error": "str", "model_version": "int",
}  # fmt: skip
ENTRY = {
    "version": "int", "at": "str", "kind": "str", "from": "NoneType", "to": "str", "transition": "int", "attempt": "int",
    "actor": "str", "took_s": "NoneType", "reason": "NoneType", "changed_data": "bool", "model_version": "int",
}  # fmt: skip
COUNT = {"flow": "str", "status": "str", "condition": "str", "number": "int", "oldest": "str"}
DATA = {"item": "str", "count": "int", "looks": "int", "notes": []}


def without_schema(of: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in of.items() if key != "schema"}


ERRORS = {
    "flow": "str", "status": "str", "error": "str", "number": "int", "oldest": "str", "newest": "str", "sample": "str",
    "query": "str", "exact": "bool",
}  # fmt: skip
CONDITIONS = ("ready", "running", "waiting", "retrying", "failed", "paused", "orphaned", "cancelled", "finished")
STATS = {
    "flow": "str", "number": "int", "active": "int", "conditions": dict.fromkeys(CONDITIONS, "int"),
    "started_per_minute": "float", "finished_per_minute": "float", "took_s": "float",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "schema", "expected"),
    [
        (["ls", "is:failed"], "processes/1", {"processes": [without_schema(PROCESS)], "more": "bool"}),
        (["ls", "--count"], "count/1", {"count": "int"}),
        (["ls", "--by", "status"], "counts/1", {"counts": [COUNT]}),
        (
            ["ls", "--by", "error"],
            "errors/1",
            {"errors": [ERRORS]},
        ),
        (["stats"], "stats/1", {"flows": [STATS]}),
        (["workers"], "workers/1", {"workers": []}),
        (["show", "broken-1"], "process/1", {**without_schema(PROCESS), "data": DATA}),
        (["show", "broken-1", "--version", "0"], "process/1", {**without_schema(PROCESS), "data_version": "int", "data": DATA}),
        (["history", "broken-1"], "history/1", {"id": "str", "entries": [ENTRY]}),
        (
            ["diff", "tea-1"],
            "diff/1",
            {"id": "str", "from": "int", "to": "int", "changes": [{"op": "str", "path": "str", "before": "int", "after": "int"}]},
        ),
        (["explain", "tea-1"], "explanation/1", {"id": "str", "status": "str", "condition": "str", "sentence": "str"}),
        (
            ["pause", "slow-1", "--dry-run"],
            "results/1",
            {
                "dry_run": "bool",
                "results": [{"id": "str", "ok": "bool", "flow": "str", "condition": "str", "status": "str", "version": "int"}],
            },
        ),
        (
            ["check"],
            "check/1",
            {
                "app": "str",
                "flows": [{"name": "str", "statuses": ["str"], "version": "int"}],
                "warnings": ["str"],
                "store": "str",
                "processes": "int",
                "misfits": [],
                "late": [],
                "ok": "bool",
            },
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_each_json_document_has_its_promised_shape(
    busy: Project, words: list[str], schema: str, expected: dict[str, Any]
) -> None:
    busy.start("--set", "item=slow", "--id", "slow-1")
    document = busy.json(*words)
    assert document["schema"] == f"onward.{schema}"
    assert shape(without_schema(document)) == expected


def test_the_watched_and_the_started_process_are_documents_too(busy: Project) -> None:
    assert busy.json("watch", "tea-1")["schema"] == "onward.process/1"
    started = busy.json("start", "purchase", "--set", "item=x")
    assert shape(started) == {**PROCESS, "due_at": "str", "error": "NoneType", "data": DATA}


def test_a_stream_has_one_document_a_line(busy: Project) -> None:
    processes = [json.loads(line) for line in busy.out("ls", "-o", "jsonl").splitlines()]
    assert [process["id"] for process in processes] == busy.out("ls", "-o", "ids").split()
    assert {process["schema"] for process in processes} == {"onward.process/1"}
    entries = [json.loads(line) for line in busy.out("watch", "tea-1", "-o", "jsonl").splitlines()]
    assert entries == [json.loads(line) for line in busy.out("history", "tea-1", "-o", "jsonl").splitlines()]
    assert without_schema(shape(entries[0])) == {"id": "str", **ENTRY}


def test_errors_are_json_on_stderr_and_stdout_stays_empty(busy: Project) -> None:
    for words, code, name in (
        (["show", "nobody", "--json"], 3, "not_found"),
        (["--json", "ls", "is:x"], 2, "usage"),
        (["ls", "--nonsense", "--json"], 2, "usage"),
        (["-o", "json", "wake", "tea-1"], 5, "refused"),
        (["pause", "late-1", "--if-version", "0", "--json"], 4, "conflict"),
    ):
        result = busy.run(*words)
        assert (result.exit_code, result.stdout) == (code, ""), words
        error = json.loads(result.stderr)["error"]
        assert error["code"] == name and set(error) == {"code", "message", "hint"} and all(error.values())


def test_a_command_called_inside_a_program_never_ends_that_program(project: Project) -> None:
    project.out("run", "--until-idle")
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
