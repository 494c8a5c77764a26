"""`onward move, edit, fork, delete`, and `--query` on every action."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_project import Project, shop


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with shop(tmp_path) as project:
        yield project


def broken(project: Project, *names: str) -> None:
    for number, name in enumerate(names):
        project.start("--set", "item=broken", "--set", f"count={number}", "--id", name)
    project.work()


# -- one at a time --------------------------------------------------------------------------------------------------


def test_move_says_which_ways_there_are_and_how_to_force_another(project: Project) -> None:
    broken(project, "tea-1")
    told = project.error("move", "tea-1", "shipped", code=5)
    assert "placed → shipped is no declared transition of purchase; declared: paid" in told
    assert "onward move tea-1 shipped --force --reason" in told
    assert "takes a reason" in project.error("move", "tea-1", "shipped", "--force", code=5)
    assert project.out("move", "tea-1", "paid", "--dry-run") == "tea-1 would be ▷ ready at paid\n"
    assert (
        project.out("move", "tea-1", "shipped", "--force", "--reason", "by hand") == "tea-1 is ✓ finished at shipped, version 2\n"
    )
    entry = project.json("history", "tea-1")["entries"][-1]
    assert (entry["kind"], entry["from"], entry["to"], entry["reason"]) == ("moved by hand", "placed", "shipped", "by hand")
    assert "did you mean shipped" in project.error("move", "tea-1", "shiped", code=5)
    assert "write: onward move ID STATUS" in project.error("move", "shipped", code=2)


def test_edit_shows_the_difference_and_saves_it(project: Project) -> None:
    broken(project, "tea-1")
    told = project.run("edit", "tea-1", "--set", "item=tea", "--dry-run")
    assert told.stdout == '- $.item: "broken"\n+ $.item: "tea"\n' and "nothing is changed" in told.stderr
    assert project.json("show", "tea-1")["version"] == 1
    done = project.run("edit", "tea-1", "--set", "item=tea", "--reason", "typo")
    assert done.stdout == "tea-1 is ✕ failed at placed, version 2\n" and '+ $.item: "tea"' in done.stderr
    assert project.json("history", "tea-1")["entries"][-1]["reason"] == "typo"
    assert "the data are the same" in project.run("edit", "tea-1", "--set", "item=tea").stderr
    assert "count: Input should be a valid integer" in project.error("edit", "tea-1", "--set", "count=many", code=5)
    assert "did you mean item" in project.error("edit", "tea-1", "--set", "itme=tea", code=5)
    assert "is at version 2 now, not 1" in project.error("edit", "tea-1", "--set", "count=3", "--if-version", "1", code=4)
    assert "opens $EDITOR" in project.error("edit", "tea-1", code=2)
    changes = project.json("edit", "tea-1", "--data", '{"item": "cup"}', "--dry-run")["changes"]
    assert changes[0] == {"op": "changed", "path": "$.item", "before": "tea", "after": "cup"}
    assert [change["path"] for change in changes] == ["$.item", "$.count"]  # all of the data, so a default where nothing is said


def test_fork_begins_again_at_an_earlier_version(project: Project) -> None:
    project.start("--set", "item=tea", "--set", 'notes=["file-1"]', "--id", "tea-1")
    project.work()
    told = project.run("fork", "tea-1", "--at", "0", "--id", "tea-2", "--dry-run")
    assert told.stdout == "" and "both would share file-1" in told.stderr
    assert project.out("fork", "tea-1", "--at", "0", "--id", "tea-2", "--reason", "again") == "tea-2\n"
    assert project.json("show", "tea-2")["status"] == "placed"
    assert project.json("history", "tea-2")["entries"][0]["reason"] == "from tea-1 at version 0: again"
    assert "there it was over" in project.error("fork", "tea-1", code=5)


def test_delete_takes_what_is_over_and_nothing_else(project: Project) -> None:
    broken(project, "tea-1", "tea-2")
    assert "onward cancel tea-1" in project.error("delete", "tea-1", code=5)
    project.out("stop", "tea-1")
    assert project.out("delete", "tea-1", "--dry-run") == "tea-1 would be deleted\n"
    assert project.out("delete", "tea-1", "--reason", "asked for") == "tea-1 is deleted\n"
    assert "there is no process" in project.error("show", "tea-1", code=3)


def test_a_role_takes_rights_away(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(project, "tea-1")
    assert "to retry takes operator" in project.error("retry", "tea-1", "--role", "viewer", "--actor", "eve", code=5)
    assert "eve is operator, and to stop takes admin" in project.error(
        "stop", "tea-1", "--role", "operator", "--actor", "eve", code=5
    )
    monkeypatch.setenv("ONWARD_ROLE", "viewer")
    for words in (
        ["retry", "--query", "is:failed"],
        ["edit", "tea-1", "--set", "count=1"],
        ["start", "match"],
        ["fork", "tea-1"],
    ):
        assert "is viewer" in project.error(*words, code=5)
    monkeypatch.setenv("ONWARD_ROLE", "king")
    assert "there are viewer, operator, admin" in project.error("retry", "tea-1", code=2)


# -- many at a time -------------------------------------------------------------------------------------------------


def test_a_query_acts_on_all_that_match_and_tells_what_became_of_them(project: Project) -> None:
    broken(project, "tea-1", "tea-2", "tea-3")
    project.start("--set", "item=tea", "--id", "cup-1")
    query = 'is:failed error:"card * was declined"'
    told = project.out("retry", "--query", query, "--dry-run")
    assert told.splitlines() == [
        "3 match; to retry fits 3 of them. Nothing was changed (dry run).",
        "      3  purchase  placed  failed",
    ]
    assert project.out("retry", "--query", query, "--reason", "mended") == "retry: 3 done\n"
    assert project.json("ls", "is:ready", "flow:purchase", "--count")["count"] == 4
    entry = project.json("history", "tea-1")["entries"][-1]
    assert entry["kind"] == "retried" and entry["reason"].startswith("mended (bulk ")
    bulk = project.json("ls", "flow:onward_bulk")["processes"][0]
    assert (bulk["condition"], project.json("show", bulk["id"])["data"]["done"]) == ("finished", 3)


def test_what_does_not_fit_is_refused_by_name_and_the_exit_code_says_partly(project: Project) -> None:
    broken(project, "tea-1", "tea-2")
    project.out("pause", "tea-2", code=5)
    project.start("--set", "item=tea", "--id", "tea-3")
    told = project.run("retry", "--query", "id:tea*")
    assert (told.exit_code, told.stdout) == (8, "retry: 2 done, 1 refused\n")
    assert "tea-3: cannot retry purchase tea-3: it is ready" in told.stderr
    document = project.json("retry", "--query", "id:tea*", "--dry-run")
    assert (document["schema"], document["total"], document["fit"]) == ("onward.bulk/1", 3, [])
    assert sum(one["number"] for one in document["refused"]) == 3
    assert "there is nothing to retry" in project.error("retry", "--query", "id:tea*", code=5)
    assert "no process matches" in project.error("retry", "--query", "is:failed", code=5)


def test_what_cannot_be_taken_back_takes_a_number(project: Project) -> None:
    broken(project, "tea-1", "tea-2", "tea-3")
    assert "takes --max N" in project.error("stop", "--query", "is:failed", code=2)
    assert "3 processes match, and at most 2 were agreed to" in project.error(
        "stop", "--query", "is:failed", "--max", "2", code=5
    )
    assert project.json("ls", "is:failed", "--count")["count"] == 3
    moved = project.out("move", "--query", "is:failed id:tea-1", "shipped", "--force", "--max", "1", "--reason", "lost")
    assert moved == "move: 1 done\n"
    assert project.out("stop", "--query", "is:failed", "--max", "5") == "stop: 2 done\n"
    done = project.json("delete", "--query", "is:over flow:purchase", "--max", "3")
    assert (done["done"], done["refused"]) == (3, 0)
    assert project.json("ls", "flow:purchase")["processes"] == []


def test_ids_and_a_query_are_not_mixed_and_bad_ones_are_named(project: Project) -> None:
    broken(project, "tea-1")
    assert "name ids, or say --query" in project.error("retry", code=2)
    assert "name ids, or say --query" in project.error("retry", "tea-1", "--query", "is:failed", code=2)
    assert "did you mean is" in project.error("retry", "--query", "iss:failed", code=2)
    assert "no condition" in project.error("retry", "--query", "is:faild", code=2)
    assert json.loads(project.run("retry", "--query", "is:faild", "--json").stderr)["error"]["code"] == "usage"
