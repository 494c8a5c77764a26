"""The documents are held to the truth: links lead somewhere, named tests and commands exist, and their code runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from onward.cli import COMMANDS
from onward.demo.flow import check_status
from onward.graph.svg import svg

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"`(?:tests/)?([\w/]+\.py)(?:::(\w+))?`")
COMMAND = re.compile(r"(?:^    |`)onward ([a-z]+)\b", re.MULTILINE)


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_of_the_repository(document: Path) -> None:
    prose = re.sub(r"^    .*$", "", text_of(document), flags=re.MULTILINE)  # without blocks of code
    broken = [link for link in LINK.findall(prose) if "://" not in link and not (document.parent / link).exists()]
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_python_block_is_python(document: Path) -> None:
    for block in PYTHON.findall(text_of(document)):
        compile(block, str(document), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_named_exists(document: Path) -> None:
    named = set(COMMAND.findall(text_of(document)))
    known = {name for group in COMMANDS.values() for name in group}
    assert named <= known, named - known


def test_every_promise_names_a_test_that_exists() -> None:
    named = TEST.findall(text_of(ROOT / "docs" / "RELIABILITY.md"))
    assert len(named) > 20
    for file, test in named:
        path = next((p for p in (ROOT / "tests" / file, ROOT / file) if p.exists()), None)
        assert path is not None, f"{file} does not exist"
        assert not test or re.search(rf"\bdef {test}\b", text_of(path)), f"{file} has no {test}"


def test_the_tutorials_code_does_what_the_tutorial_says(tmp_path: Path) -> None:
    onward = [sys.executable, "-m", "onward"]
    subprocess.run([*onward, "init"], cwd=tmp_path, check=True, capture_output=True)
    use, test_post, test_lost = PYTHON.findall(text_of(ROOT / "docs" / "tutorial.md"))
    program = f"""
import asyncio
from datetime import timedelta
from onward_example import *

{test_post}
{test_lost}
async def use() -> None:
{textwrap.indent(use, "    ")}
asyncio.run(test_post())
asyncio.run(test_a_letter_that_nobody_answers_is_lost())
asyncio.run(use())
"""
    worker = subprocess.Popen([*onward, "run"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    finally:
        worker.terminate()
        worker.wait(20)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["finished", "3"]


def test_the_picture_in_the_readme_is_the_demos_flow_as_it_is() -> None:
    assert text_of(ROOT / "docs" / "images" / "batch.svg").strip() == svg(check_status, down=True).strip()
