"""The architecture as a test: what may know what, and where each thing stands. See docs/ARCHITECTURE.md."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onward
import onward.testing
from onward.store.sql import load

ROOT = Path(onward.__file__).parent
EXAMPLES = sorted((ROOT.parent.parent / "examples").glob("*.py"))
LINES_MAX = 500  # what a newcomer reads in one sitting

# From below upwards. Imports go down, or stay on their floor; motors and plugs stand side by side and never meet.
FLOORS: list[dict[str, list[str]]] = [
    {"words": ["errors", "process", "actor", "secret"]},
    {"law": ["versions", "flow", "codec", "query", "intake", "decide", "explain", "bounds", "graph"]},
    {"sockets": ["ports"]},
    {"motors": ["drive", "attempt", "context", "worker", "heartbeat", "control", "clock", "observe"], "plugs": ["store"]},
    {"hosts": ["app", "bulk", "testing", "__init__"]},
    {"telling": ["telling"]},
    {"faces": ["cli", "panel", "demo", "__main__"]},
]
PLACE = {part: (height, room) for height, floor in enumerate(FLOORS) for room, parts in floor.items() for part in parts}

LONG = {  # longer than LINES_MAX
    "testing/openai_standin.py": "a whole server in one file, so that it can be copied and run alone",
}
PURE = {"__future__", "collections", "contextlib", "dataclasses", "datetime", "enum", "functools", "html", "inspect", "itertools"}
PURE |= {"contextvars", "difflib", "json", "math", "pydantic", "pydantic_core", "re", "sys", "types", "typing", "zlib"}
CLOCKS = {  # who reads a clock, and why it is not handed one
    "clock.py": "this is the clock",
    "process.py": "new_id: ids sort by their birth",
    "store/sqlite/files.py": "waits for another program's lock, in real time",
    "testing/contract/hold.py": "measures how soon a store notices something",
    "testing/contract/work.py": "bounds a claim among many rows that nobody here knows",
    "testing/openai_standin.py": "a server of its own",
    "demo/main.py": "shows people how long it took",
    "demo/show.py": "shows people how long it took",
}
FINDERS = {  # who imports a module by its name, and from where the name comes
    "app.py": "our own panel, which stands on the floor above; a constant",
    "cli/target.py": "the app that a person named on the command line",
    "cli/group.py": "our own commands, from a table in the file",
}
# Statements that are no named block as it stands: who runs them, and why nothing of what anybody typed is in them.
STATEMENTS = {
    ("store/guest.py", "statement"): "a block, handed on by a store",
    ("store/postgres/looking.py", "text"): "of store/search.py",
    ("store/postgres/scratch.py", "made"): "answered by a block, which quotes the name in it as an identifier",
    ("store/postgres/scratch.py", "statement"): "answered by the block `user tables`, which quotes all names as identifiers",
    ("store/postgres/store.py", "sql"): "the block `commit` or `committed`, for one row or for many",
    ("store/postgres/transaction.py", "self._commit_sql"): "the block `commit`, for one row",
    ("store/postgres/upkeep.py", "one.sql"): "a migration, a block",
    ("store/postgres/upkeep.py", "statement"): "a single statement of a migration",
    ("store/postgres/upkeep.py", "made"): "answered by a statement of a migration, which quotes the names in it as identifiers",
    ("store/postgres/upkeep.py", "month.sql"): "the block `month`, with a year and a month in it: numbers",
    ("store/sqlite/file.py", "statement"): "a single statement of a migration",
    ("store/sqlite/file.py", "f'PRAGMA {pragma}'"): "of a list of constants",
    ("store/sqlite/user_tables.py", "statement"): "answered by the block `user tables`, which quotes all names as identifiers",
    ("store/sqlite/looking.py", "statement"): "of store/search.py",
    ("store/sqlite/store.py", "_commit_statement(rows)"): "the block `commit` for so many rows",
}
SQLITE = {"cli/doctor.py": "asks for SQLite's version, and opens nothing"}


def modules() -> Iterator[tuple[str, ast.Module, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(ROOT).as_posix(), ast.parse(text), text


MODULES = list(modules())


def part_of(name: str) -> str:
    """'store/urls.py' -> 'store', 'onward.store.urls' -> 'store', 'onward' -> '__init__'."""
    return (re.sub(r"\.py$", "", name).removeprefix("onward").strip("./").replace("/", ".").split(".") or [""])[0] or "__init__"


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules it imports, anywhere in it: `from onward import decide` is onward.decide."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute: they can be searched for"
            if node.module == "onward":
                yield from (f"onward.{alias.name}" if alias.name in PLACE else "onward" for alias in node.names)
            else:
                yield node.module or ""


def strings(tree: ast.AST) -> Iterator[str]:
    """Its string constants but the docstrings."""
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_every_file_has_its_floor() -> None:
    assert {part_of(name) for name, _, _ in MODULES} == set(PLACE)


@pytest.mark.parametrize(("name", "tree"), [(name, tree) for name, tree, _ in MODULES], ids=[name for name, _, _ in MODULES])
def test_imports_go_down_only_and_motors_and_plugs_never_meet(name: str, tree: ast.Module) -> None:
    height, room = PLACE[part_of(name)]
    for imported in imports(tree):
        if not imported.startswith("onward"):
            continue
        below, other = PLACE[part_of(imported)]
        assert below <= height, f"{name} ({room}) imports {imported} ({other}), which is above it"
        assert below < height or other == room, f"{name} ({room}) imports {imported} ({other}) beside it"


def test_no_two_parts_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name, tree, _ in MODULES:
        part = part_of(name)
        graph.setdefault(part, set()).update({part_of(i) for i in imports(tree) if i.startswith("onward")} - {part})
    graph = {part: needs - {"__init__"} for part, needs in graph.items()}
    while free := [part for part, needs in graph.items() if not needs & set(graph)]:
        for part in free:
            del graph[part]
    assert not graph, f"circles among {sorted(graph)}"


def test_law_and_words_do_no_io_read_no_clock_draw_no_number_and_log_nothing() -> None:
    for name, tree, _ in MODULES:
        if PLACE[part_of(name)][0] > PLACE["flow"][0]:
            continue
        allowed = PURE | ({"secrets", "time"} if name == "process.py" else set())  # new_id, and nothing else of it
        foreign = {i.partition(".")[0] for i in imports(tree)} - allowed - {"onward"}
        assert not foreign, f"{name} imports {foreign}"
        used = {called for called, _ in calls(tree)} & {"open", "print", "input", "datetime.now", "datetime.today", "globals"}
        assert not used, f"{name} calls {used}"


def test_only_the_store_knows_sqlite_and_only_its_sql_files_hold_sql() -> None:
    statement = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|REPLACE|WITH|ATTACH|VACUUM)\b.*\s", re.DOTALL)
    for name, tree, _ in MODULES:
        if not name.startswith("store/"):
            assert name in SQLITE or "sqlite3" not in {i.partition(".")[0] for i in imports(tree)}, name
            assert not [called for called, _ in calls(tree) if called == "sqlite3.connect"], name
        for text in strings(tree):
            assert not statement.match(text), f"{name}: {text}"


def test_nothing_is_put_into_a_statement_but_by_binding_it() -> None:
    left = set(STATEMENTS)
    for name, tree, _ in MODULES:
        for called, call in calls(tree):
            if called.rpartition(".")[2] not in ("execute", "executemany", "executescript", "fetch", "fetchrow", "fetchval"):
                continue
            if not call.args or isinstance(call.args[0], ast.Constant):
                continue
            said = ast.unparse(call.args[0])
            assert re.fullmatch(r"SQL\[['\w ]+\]", said) or (name, said) in STATEMENTS, f"{name}: {called}({said})"
            left.discard((name, said))
    assert not left


def test_a_search_is_put_together_of_blocks_that_both_databases_have_and_of_no_other_text() -> None:
    tree = next(tree for name, tree, _ in MODULES if name == "store/search.py")
    said = set(strings(tree))
    words = re.compile(r"\b(SELECT|FROM|WHERE|AND|OR|NOT|IN|LIKE|GLOB|ORDER|LIMIT|UNION|IS|NULL)\b|--|;|\(\)")
    assert not [text for text in said if words.search(text)]
    parts = re.compile(r"(list|few|before|until|term|found)\b")
    here, there = ({block for block in load(file) if parts.match(block)} for file in ("sqlite.sql", "postgres.sql"))
    assert here == there and here <= said
    # What is put together is either a block or what stands between two of them. The rest of S20 is in tests/test_search.py:
    # whatever is typed, the text of the statement stays the same.
    [made] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "statement"]
    joined = [ast.unparse(call) for called, call in calls(made) if called.endswith(("join", "append", "format"))]
    assert joined == ["texts.append(_renamed(self.blocks[part.block], names))", "'\\n'.join(texts)"]


@pytest.mark.parametrize("file", ["sqlite.sql", "postgres.sql"])
def test_every_block_of_sql_is_used_and_every_used_one_is_there(file: str) -> None:
    blocks = load(file)
    raw = (ROOT / "store" / file).read_text(encoding="utf-8")
    told = {text for name, tree, _ in MODULES if name.startswith("store/") for text in strings(tree)}
    told |= set(re.findall(r"\{(\w+)\}", raw)) | {block for block in blocks if block.startswith("schema ")}
    assert not set(blocks) - told
    assert "{" not in "".join(blocks.values())


def test_only_the_clock_reads_the_clock() -> None:
    reads = re.compile(r"\b(time\.(time|time_ns|monotonic|perf_counter|sleep)|(datetime|date)\.(now|utcnow|today))\b")
    for name, tree, _ in MODULES:
        said = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert name in CLOCKS or not [text for text in said if reads.fullmatch(text)], name


def test_no_code_comes_from_data() -> None:
    banned = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml", "runpy", "code", "imp"}
    for name, tree, _ in MODULES:
        assert not {i.partition(".")[0] for i in imports(tree)} & banned, name
        for called, _ in calls(tree):
            assert called not in ("eval", "exec", "compile", "__import__"), f"{name} calls {called}"
            assert name in FINDERS or not called.endswith("import_module"), f"{name} imports by name"


def test_nobody_swallows_errors_in_silence_or_starts_a_shell() -> None:
    for name, tree, _ in MODULES:
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{name}:{node.lineno} has a bare except"
        for called, call in calls(tree):
            assert called not in ("os.system", "os.popen"), name
            assert "shell" not in {keyword.arg for keyword in call.keywords}, name


def test_no_file_is_too_long_for_one_sitting_and_each_says_what_it_is_for() -> None:
    for name, tree, text in MODULES:
        assert name in LONG or text.count("\n") <= LINES_MAX, f"{name} has {text.count(chr(10))} lines"
        assert ast.get_docstring(tree), f"{name} does not say what it is for"


def test_the_lists_of_exceptions_name_nothing_that_is_gone() -> None:
    names = {name for name, _, _ in MODULES}
    for exceptions in (LONG, CLOCKS, FINDERS, SQLITE):
        assert set(exceptions) <= names


def public() -> Iterator[tuple[str, Any]]:
    for module in (onward, onward.testing):
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)
    for owner in (onward.Onward, onward.Context):
        for name, member in inspect.getmembers(owner):
            if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                yield f"{owner.__name__}.{name}", member


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*each, id=each[0]) for each in public()])
def test_every_public_name_says_what_it_is(name: str, thing: Any) -> None:
    own = thing.__doc__ if not inspect.isclass(thing) else thing.__dict__.get("__doc__")
    assert own and own.strip(), f"{name} has no docstring"
    assert not own.startswith(f"{name.rpartition('.')[2]}("), f"{name} has only the docstring that dataclass made"


def test_all_is_sorted_and_complete() -> None:
    assert list(onward.__all__) == sorted(onward.__all__, key=lambda name: (name.upper() != name, name))
    assert all(hasattr(onward, name) for name in onward.__all__)


@pytest.mark.parametrize("example", [*EXAMPLES, ROOT / "demo" / "flow.py"], ids=lambda path: path.name)
def test_s31_no_example_puts_data_into_code_a_shell_or_a_statement(example: Path) -> None:
    for called, call in calls(ast.parse(example.read_text(encoding="utf-8"))):
        assert called not in ("eval", "exec", "os.system", "subprocess.run", "subprocess.Popen"), f"it calls {called}"
        if called.rpartition(".")[2] in ("execute", "fetch", "fetchrow", "text"):
            assert not isinstance(call.args[0], ast.JoinedStr | ast.BinOp), f"it puts something into {ast.unparse(call)}"


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.txt", "a/b.csv", "..", "", "a.csv/../b.txt", "a\\b.txt", "a.csv\n", "a.py"]
)
def test_s31_an_example_that_opens_files_takes_names_and_no_paths(name: str) -> None:
    """Whoever edits data steers handlers."""
    spec = importlib.util.spec_from_file_location("report_example", EXAMPLES[0].with_name("report.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_example"] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["report_example"]
    assert module.app.make("report", {"source": "sales.csv", "target": "report.txt"}).source == "sales.csv"
    for field in ("source", "target"):
        with pytest.raises(onward.InvalidData, match=field):
            module.app.make("report", {"source": "sales.csv", "target": "report.txt", field: name})


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_runs_to_its_end(example: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    paths = os.pathsep.join(path for path in (str(ROOT.parent), os.environ.get("PYTHONPATH", "")) if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    if "DATABASE_URL" in example.read_text(encoding="utf-8"):
        environment["DATABASE_URL"] = url = request.getfixturevalue("postgres_url")
        upgrade = [sys.executable, "-m", "onward", "-q", "db", "upgrade", "--store", url]
        subprocess.run(upgrade, env=environment, check=True, capture_output=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
