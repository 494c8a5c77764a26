"""The type checker is part of the product: what it accepts and what it rejects is proven on the snippets in tests/types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onward import FlowError

SNIPPETS = Path(__file__).parent / "types"
EXPECTED = re.compile(r"# error: ([a-z, ]+)")
MYPY_ERROR = re.compile(r"(?:.*[/\\])?(\w+\.py):(\d+): error: ")
PATIENCE_S = 120

Place = tuple[str, int]


@pytest.fixture(scope="module")
def snippets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies, without the first lines that keep the checkers silent about them in the house."""
    folder = tmp_path_factory.mktemp("snippets")
    for source in SNIPPETS.glob("*.py"):
        text = source.read_text()
        (folder / source.name).write_text(text.replace("# mypy: ignore-errors\n", "#\n"))
    return folder


def expected(checker: str) -> set[Place]:
    marked = set()
    for source in SNIPPETS.glob("*.py"):
        for number, line in enumerate(source.read_text().splitlines(), start=1):
            found = EXPECTED.search(line)
            if found and checker in found[1].split(", "):
                marked.add((source.name, number))
    return marked


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def lines(places: set[Place]) -> list[str]:
    return [
        f"{name}:{number}: {(SNIPPETS / name).read_text().splitlines()[number - 1].strip()}" for name, number in sorted(places)
    ]


def assert_sees_exactly(checker: str, found: set[Place], said: str) -> None:
    marked = expected(checker)
    assert len(marked) > 40
    assert lines(found - marked) == [], f"{checker} complains where it should not\n{said}"
    assert lines(marked - found) == [], f"{checker} does not see this"


def test_mypy_strict_sees_what_is_marked_and_nothing_else(snippets):
    said = run(snippets, "mypy", "--strict", "--config-file=", "--cache-dir=cache", "good.py", "bad.py")
    found = {(match[1], int(match[2])) for match in map(MYPY_ERROR.match, said.splitlines()) if match}
    assert_sees_exactly("mypy", found, said)


def test_pyright_sees_what_is_marked_and_nothing_else(snippets):
    (snippets / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "standard"}))
    said = run(snippets, "basedpyright", "--outputjson", "--pythonpath", sys.executable, "good.py", "bad.py")
    found = {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in json.loads(said)["generalDiagnostics"]
        if one["severity"] == "error"
    }
    assert_sees_exactly("pyright", found, said)


def test_the_good_flow_of_the_snippets_is_proven_when_it_is_imported():
    names: dict[str, object] = {"__name__": "good"}
    code = compile((SNIPPETS / "good.py").read_text(), "good.py", "exec")
    sys.modules["good"] = type(sys)("good")
    try:
        sys.modules["good"].__dict__.update(names)
        exec(code, sys.modules["good"].__dict__)
        assert len(list(sys.modules["good"].check_status.edges())) > 8
    finally:
        del sys.modules["good"]


def test_what_only_the_proof_can_see_it_sees():
    """The lines of bad.py that no checker can reject are faults when the flow is defined."""
    module = type(sys)("bad")
    text = (SNIPPETS / "bad.py").read_text()
    text = text.replace("class Numbered(Process[int]):", "class Numbered:").replace("Literal[Status.SEND]", "None")
    sys.modules["bad"] = module
    try:
        exec(compile(text, "bad.py", "exec"), module.__dict__)
        wrong = [line.partition("#")[0].strip() for line in text.splitlines() if "# only the proof" in line]
        assert len(wrong) == 6
        for line in wrong:
            with pytest.raises(FlowError):
                exec(line if line.startswith("Flow") else f"Flow(Parcel, {{Status.NEW: {line}}})", module.__dict__)
    finally:
        del sys.modules["bad"]
