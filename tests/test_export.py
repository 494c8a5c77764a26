"""`onward export`: a process as JSON, and as a test that fails where production failed and passes once that is mended."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cli_project import Project, shop
from hypothesis import given, settings
from hypothesis import strategies as st

from onward.process import Condition, Entry, Record
from onward.secret import KEY, MASK
from onward.telling.as_test import LEVELS_MAX, Case, can_be_imported, comment, literal, named, without_secrets
from onward.telling.as_test import test_file as written
from onward.telling.origin import last_trouble, trouble_after

ROOT = Path(__file__).parent.parent
PIN = "4711-correct-horse"
VAULT = """
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

from onward import END, Context, Every, Flow, Onward, Process, Retry, Secret, Unrecoverable, stage


class Door(StrEnum):
    SHUT = auto()
    KNOCKED = auto()
    OPEN = auto()
    GIVEN_UP = auto()


class Vault(Process[Door]):
    status: Door = Door.SHUT
    pin: Secret[str] = ""
    code: Secret[int] = 1
    tries: int = 0
    note: Any = None


async def knock(vault: Vault, ctx: Context) -> Literal[Door.KNOCKED]:
    await ctx.once("ring the bell", str, 1)
    vault.tries += 1
    await ctx.save()
    if vault.note == "locked" and not Path("mended").exists():
        raise ValueError(f"{vault.pin} does not fit, try {vault.tries}")
    return Door.KNOCKED


async def listen(vault: Vault) -> Literal[Door.KNOCKED, Door.OPEN]:
    vault.tries += 1
    return Door.KNOCKED if vault.note == "nobody" and not Path("mended").exists() else Door.OPEN


async def leave(vault: Vault) -> Literal[Door.OPEN]:
    return Door.OPEN


vault = Flow(
    Vault,
    {
        Door.SHUT: stage(knock, retry=Retry(3, first=0), on_failure=Door.GIVEN_UP),
        Door.KNOCKED: stage(listen, every=Every(0.05), within=timedelta(seconds=0.2), otherwise=Door.GIVEN_UP),
        Door.GIVEN_UP: leave,
        Door.OPEN: END,
    },
)
app = Onward("sqlite:///shop.db", flows=[vault])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        (tmp_path / "vault.py").write_text(VAULT)
        yield project


def judged(project: Project, text: str) -> str:
    """What becomes of it: what its assertion says, or 'passed'. It imports the app from the project's folder."""
    space: dict[str, Any] = {"__name__": "test_exported"}
    exec(compile(text, "test_exported.py", "exec"), space)
    [test] = [value for name, value in space.items() if name.startswith("test_")]
    try:
        test()
    except AssertionError as error:
        return str(error)
    return "passed"


def judged_by_pytest(project: Project, text: str) -> str:
    """The same in a program of its own: its line with the failure, or 'passed'."""
    (project.folder / "test_exported.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-c", os.devnull, "--rootdir", "."]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        [*command, "test_exported.py"], cwd=project.folder, env=environment, capture_output=True, text=True, timeout=60
    )
    if done.returncode == 0 and "1 passed" in done.stdout:
        return "passed"
    said = [line for line in done.stdout.splitlines() if line.startswith("E ")]
    assert done.returncode == 1 and said, done.stdout + done.stderr
    return said[0]


def constants(text: str) -> dict[str, Any]:
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


# -- as JSON --------------------------------------------------------------------------------------------------------


def test_export_is_one_document_with_the_whole_history_and_no_secret(project: Project) -> None:
    project.out("-q", "--app", "vault", "start", "vault", "--id", "bank", "--set", f"pin={PIN}", "--set", "note=locked")
    project.work("--app", "vault")
    told = json.loads(project.out("--app", "vault", "export", "bank"))
    assert told["schema"] == "onward.export/1" and PIN not in json.dumps(told)
    process, history = told["process"], told["history"]
    assert (process["id"], process["status"], process["data"]["pin"], process["model_version"]) == ("bank", "open", MASK, 1)
    assert [line["version"] for line in history] == list(range(process["version"] + 1))
    assert history[0]["data"] == {"pin": MASK, "code": MASK, "tries": 0, "note": "locked"} and history[0]["kind"] == "started"
    assert [line["data"]["tries"] for line in history if line["kind"] == "saved"] == [1, 2, 3]
    assert project.out("--store", "sqlite:///shop.db", "export", "bank") == project.out("--app", "vault", "export", "bank")


# -- as a test ------------------------------------------------------------------------------------------------------


def test_the_test_fails_where_production_failed_and_passes_once_that_is_mended(project: Project) -> None:
    project.start("--id", "it's-broken", "--set", "item=broken", "--set", "count=7")
    project.work()
    text = project.out("export", "it's-broken", "--as-test")
    assert "from shop import app\n" in text and "# > Unrecoverable: card 4711-7 was declined (shop.py:28 in pay)\n" in text
    assert constants(text) == {
        "FLOW": "purchase",
        "ID": "it's-broken",
        "STATUS": "placed",
        "DATA": {"item": "broken", "count": 7, "looks": 0, "notes": []},
    }
    assert "def test_it_s_broken_gets_past_placed() -> None:" in text
    assert "failed at placed: Unrecoverable: card 4711-7 was declined" in judged_by_pytest(project, text)
    (project.folder / "mended").touch()
    assert judged_by_pytest(project, text) == "passed"


def test_attempts_that_saved_and_gave_up_are_begun_anew_and_secrets_are_placeholders(project: Project) -> None:
    project.out("-q", "--app", "vault", "start", "vault", "--id", "bank", "--set", f"pin={PIN}", "--set", "note=locked")
    project.work("--app", "vault")
    assert project.json("--app", "vault", "show", "bank")["status"] == "open"  # it gave up, and went on
    text = project.out("--app", "vault:app", "export", "bank", "--as-test")
    assert PIN not in text and constants(text)["STATUS"] == "shut"
    assert constants(text)["DATA"] == {"pin": {KEY: "placeholder"}, "code": {KEY: 0}, "tries": 0, "note": "locked"}
    assert "# No secret is in this file; a placeholder stands in the place of $.pin, $.code.\n" in text
    assert f"# > ValueError: {MASK} does not fit, try 3 (vault.py:" in text
    assert "in this test they run: ring the bell\n" in text
    assert "gave up at given_up: ValueError: " in judged(project, text)
    (project.folder / "mended").touch()
    assert judged(project, text) == "passed"


def test_a_deadline_that_passed_passes_again_in_virtual_time(project: Project) -> None:
    project.out("-q", "--app", "vault", "start", "vault", "--id", "bank", "--set", "note=nobody")
    project.work("--app", "vault")
    text = project.out("--app", "vault", "export", "bank", "--as-test")
    assert constants(text)["STATUS"] == "knocked" and "deadline at knocked, to given_up" in text
    assert "deadline at given_up: listen was not done within 0.2 s" in judged(project, text)


def test_a_test_may_begin_at_any_version_and_go_on_to_the_rest(project: Project) -> None:
    project.start("--id", "cup", "--set", "item=cup", "--set", "count=3")
    project.work()
    assert "nothing went wrong" in project.error("export", "cup", "--as-test", code=5)
    text = project.out("export", "cup", "--as-test", "--at", "3", "--to-rest")
    assert constants(text)["DATA"]["looks"] == 2 and "run_to_rest(flow, process" in text
    assert "def test_cup_comes_to_its_end_from_paid() -> None:" in text
    assert judged(project, text) == "passed"
    assert "it was over" in project.error("export", "cup", "--as-test", "--at", "5", code=5)
    assert "has no version 6" in project.error("export", "cup", "--as-test", "--at", "6", code=3)
    assert "--at and --to-rest are for --as-test" in project.error("export", "cup", "--at", "1", code=2)
    Path("pyproject.toml").unlink()
    assert "export --as-test needs the app" in project.error("export", "cup", "--as-test", "--store", "sqlite:///shop.db", code=7)


def test_what_older_code_left_behind_is_upgraded_by_the_test_as_by_a_worker(project: Project) -> None:
    project.out("-q", "--app", "vault", "start", "vault", "--id", "bank", "--set", "note=locked")
    project.work("--app", "vault")
    newer = VAULT.replace("SHUT", "CLOSED").replace("tries: int = 0", "attempts: int").replace(".tries", ".attempts")
    upgrade = "version=2, upgrade={1: lambda old: {'attempts': old.pop('tries'), **old}}, renamed={'shut': Door.CLOSED},\n)\napp"
    (project.folder / "vault.py").write_text(newer.replace(")\napp", upgrade))
    project.forget()
    text = project.out("--app", "vault", "export", "bank", "--as-test")
    assert constants(text)["STATUS"] == "shut" and constants(text)["DATA"]["tries"] == 0 and "version=1)" in text
    assert "gave up at given_up: ValueError" in judged(project, text)
    (project.folder / "mended").touch()
    assert judged(project, text) == "passed"


HOSTILE: dict[str, Any] = {
    "quotes": ["'", '"', "'''", '"""', "\\'", '\\"""', "{x}", "%s", "${x}", "#", "\\"],
    "ends of lines": "a\nimport os\r\n\x0b\x0c\x1c\x1d\x85\u2028\u2029import os",
    "code": '"""\n)\nraise SystemExit("out")\nDATA = "',
    "bidi": "\u202e\u2066 # \u202c nothing \u200f\u061c\ufeff",
    "surrogates": "\ud800 \udfff",
    "escapes": "\x1b[31m \x00 \\x41 \\u0041 \\N{DIGIT ONE}",
    "a million": "x\"'\\\n" * 200_000,
    "keys": {'"""': {"'''\n": 1}, "": 2, "\u202e": 3, "__class__": 4},
    "numbers": [0, -0.0, 1e22, 5e-324, 2**63, 10**4_000, True, False, None],
    "deep": json.loads("[" * 150 + "]" * 150),
}


def without_constants(tree: ast.Module) -> list[str]:
    """All that it does, but for the values of the constants, the name of the test, and the import of json."""
    body = [node for node in tree.body if ast.unparse(node) != "import json" and not isinstance(node, ast.Assign)]
    for node in body:
        if isinstance(node, ast.FunctionDef):
            node.name = "test"
    return [ast.dump(node) for node in body]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_the_data_becomes_code(name: str) -> None:
    value = HOSTILE[name]
    hostile = value if isinstance(value, str) else json.dumps(value)
    told = [hostile, f"> {hostile}"]
    text = written(Case("shop", "app.inner", hostile, hostile, hostile, {"value": value}, 3, 30, False, told))
    text.encode("utf-8")
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    tree = ast.parse(text)
    [function] = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert function.name.isidentifier() and function.name.isascii()
    plain = ast.parse(written(Case("shop", "app.inner", "a", "a", "a", {}, 3, 30, False, [])))
    assert without_constants(tree) == without_constants(plain)
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    assert [ast.unparse(node.targets[0]) for node in assigned] == ["FLOW", "ID", "STATUS", "DATA"]
    if name != "deep":
        found = constants(text)
        assert found["ID"] == found["FLOW"] == found["STATUS"] == hostile
        assert found["DATA"] == {"value": value} and repr(found["DATA"]) == repr({"value": value})


def test_what_is_nested_very_deep_is_read_by_json() -> None:
    space: dict[str, Any] = {"json": json}
    exec(f"value = {literal(HOSTILE['deep'])}", space)
    assert space["value"] == HOSTILE["deep"] and "json.loads('[[" in literal(HOSTILE["deep"])
    assert "json.loads" not in literal(json.loads("[" * LEVELS_MAX + "]" * LEVELS_MAX))
    assert literal(float("inf")) == "float('inf')" and literal([]) == "[]" and literal({}) == "{}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(JSON, st.text())
def test_a_literal_is_read_back_as_what_it_was_and_a_comment_stays_one(value: Any, text: str) -> None:
    assert repr(ast.literal_eval(literal(value))) == repr(value)
    assert ast.parse(comment(text)).body == [] and "\n" not in comment(text)
    assert f"test_{named(text)}".isidentifier() and named(text).isascii()


def test_a_hostile_process_comes_back_whole_and_its_test_runs(project: Project) -> None:
    note = [value for name, value in HOSTILE.items() if name in ("quotes", "ends of lines", "code", "bidi", "keys")]
    id = '"\'\'\'""" # )'
    data = json.dumps({"note": note})
    project.out("-q", "--app", "vault", "start", "vault", "--id", id, "--data", data)
    text = project.out("--app", "vault", "export", id, "--as-test", "--at", "0")
    assert constants(text)["DATA"]["note"] == note and constants(text)["ID"] == id
    assert judged(project, text) == "passed"


def test_who_has_secrets_that_no_placeholder_can_stand_for_is_told(project: Project) -> None:
    source = VAULT.replace("code: Secret[int] = 1", 'code: Secret[Literal["a", "b"]] = "a"')
    (project.folder / "vault.py").write_text(source)
    project.out("-q", "--app", "vault", "start", "vault", "--id", "bank")
    told = project.run("--app", "vault", "export", "bank", "--as-test", "--at", "0")
    assert told.exit_code == 0 and "does not fit Vault: code" in told.stderr
    assert "type a value that the model takes in its place" in told.stderr


def test_secrets_anywhere_are_placeholders_of_their_kind() -> None:
    value = {"a": [{KEY: "x"}, {"b": {KEY: {"c": 1}}}], "d": {KEY: None}, "e": {KEY: 1.5}, "f": {KEY: True}, "g": 1}
    made, paths = without_secrets(value)
    assert paths == ["$.a[0]", "$.a[1].b", "$.d", "$.e", "$.f"]
    assert made == {"a": [{KEY: "placeholder"}, {"b": {KEY: {}}}], "d": {KEY: None}, "e": {KEY: 0.0}, "f": {KEY: False}, "g": 1}


def test_an_app_that_no_import_names_is_refused() -> None:
    assert can_be_imported("pkg.module", "make.app")
    assert not any(can_be_imported(*names) for names in (("my-module", "app"), ("class.x", "app"), ("a", "b c"), ("a", "")))


# -- where the attempts began ---------------------------------------------------------------------------------------

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def story(*kinds: str) -> list[Entry]:
    """Entries of these kinds; 'kind>' changes the status."""
    entries: list[Entry] = []
    at = 0
    for version, kind in enumerate(kinds):
        before = f"s{at}" if version else None
        at += kind.endswith(">")
        entries.append(
            Entry(
                "a",
                version,
                NOON + timedelta(seconds=version),
                kind.rstrip(">"),
                before,
                f"s{at}",
                at,
                1,
                1,
                "w",
                None,
                None,
                None,
            )
        )
    return entries


def record(condition: Condition = Condition.FAILED) -> Record:
    unused: dict[str, Any] = dict.fromkeys(("due_at", "owner", "lease_until", "error"))
    numbers: dict[str, Any] = dict.fromkeys(("version", "epoch", "attempt", "polls", "transition", "moves"), 0)
    instants: dict[str, Any] = dict.fromkeys(("entered_at", "created_at", "updated_at", "as_of"), NOON)
    return Record("a", "flow", "s0", condition, "{}", cancelling=False, **numbers, **instants, **unused)


@pytest.mark.parametrize(
    ("kinds", "begin", "end"),
    [
        (["started", "moved>", "retry", "saved", "retry", "failed"], 1, 5),
        (["started", "moved>", "not yet", "not yet", "retry", "failed"], 3, 5),
        (["started", "retry", "edited", "retry", "failed"], 2, 4),
        (["started", "failed", "retried", "failed"], 2, 3),
        (["started", "failed", "retried", "moved>"], 0, 1),
        (["started", "moved>", "retry", "gave up>", "moved>"], 1, 3),
        (["started", "moved>", "not yet", "deadline>", "failed"], 3, 4),
        (["forked", "saved", "paused", "resumed", "woken", "rolled back", "failed"], 0, 6),
        (["started", "moved>", "moved>", "failed>"], 2, 3),
    ],
)
def test_a_failure_begins_where_its_attempts_began(kinds: list[str], begin: int, end: int) -> None:
    found = last_trouble(record(), story(*kinds))
    assert found is not None and found.end is not None
    assert (found.begin.version, found.end.version) == (begin, end)
    assert found.is_spinning == (kinds[end] == "failed>")


def test_a_retry_is_trouble_only_while_it_lasts_and_a_pruned_beginning_is_none() -> None:
    retried = story("started", "retry", "moved>")
    assert last_trouble(record(Condition.READY), retried) is None
    found = last_trouble(record(Condition.RETRYING), retried[:2])
    assert found is not None and found.begin.version == 0
    assert last_trouble(record(), story("started", "retry", "failed")[1:]) is None
    assert last_trouble(record(), []) is None


def test_from_a_chosen_version_it_is_told_what_came_of_it() -> None:
    entries = story("started", "moved>", "not yet", "moved>", "failed")
    for version, end in ((0, 1), (1, 3), (3, 4)):
        found = trouble_after(entries, version)
        assert found is not None and found.end is not None and found.end.version == end
    last = trouble_after(entries, 4)
    assert last is not None and last.end is None and trouble_after(entries, 9) is None
