"""Command lines that nobody would type: one of the documented exit codes, and never a traceback."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from cli_project import Project, shop
from hypothesis import example, given
from hypothesis import strategies as st

from onward.cli import COMMANDS, cli
from onward.cli.group import Command, Commands

from .effort import fuzz, odd

ENDLESS = {
    "run",
    "panel",
    "watch",
    "demo",
    "init",
    "completion",
    "prove",
}  # they work, serve or write elsewhere; see their own tests
LEFT_OUT = {"--follow", "--wait", "--watch", "--verbose", "--store", "--app", "--version", "--color"}
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 124}
HANGS_S = 20.0
STORE = "shop.db"
IDS = ["one", "two", "three"]
STATUSES = ["shipped", "placed", "paid", "returned", "refunded"]
QUERIES = ["is:failed", "status:placed", "data.item:tea", "id:t*", "-flow:match", "error:declined", "tea"]
FITTING = {  # by the name of a parameter
    "id": IDS, "ids": IDS, "other": IDS, "one": IDS, "id_prefix": ["o", "t"], "new_id": ["four", "one"],
    "flow": ["purchase", "match"], "to": STATUSES, "status": STATUSES, "statuses": STATUSES, "versions": ["0", "1", "2"],
    "conditions": ["failed", "waiting", "active", "over", "ready"], "query": QUERIES, "words": [*QUERIES, *IDS, *STATUSES],
    "data": ["{}", '{"item": "tea"}', '{"item": "tea", "count": 2}', "[1]", "{", "@nothing.json", "-"],
    "sets": ["item=tea", "count=3", "count=x", "notes=[1]", 'notes=["a"]', "nothing=1", "="],
}  # fmt: skip
ODD_WORDS = [word for words in FITTING.values() for word in words] + [
    "0",
    "-1",
    "1d",
    "-1s",
    "json",
    "-",
    "--",
    "nobody",
    "sqlite:///x.db",
]
STORES = [
    "sqlite:///shop.db",
    "sqlite:///:memory:",
    "sqlite:///no/such/folder/x.db",
    "papyrus://x",
    "postgresql://127.0.0.1:1/x",
    "",
]
APPS = ["shop:app", "shop:purchase", "shop:nothing", "nothing:app", "shop", ":", "shop:", "shop.app", "shop:Order.PAID"]


def leaves(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Command]]:
    if isinstance(command, Commands):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*words, name))
    elif isinstance(command, Command):
        yield words, command


def options(command: Command) -> list[click.Option]:
    return [one for one in command.params if isinstance(one, click.Option) and not LEFT_OUT & set(one.opts)]


NAMES = [name for section in COMMANDS.values() for name in section if name not in ENDLESS]
LEAVES = [leaf for name in NAMES for leaf in leaves(cli.get_command(click.Context(cli), name) or cli, (name,))]


def typed(text: str) -> str:
    """As a word of a program: without NUL, bytes that are no text as Python has them. And no path to anywhere else."""
    return "".join(one for one in text if one not in "\0/~" and not ("\ud800" <= one < "\udc80" or "\udcff" < one <= "\udfff"))


words = st.sampled_from(ODD_WORDS) | (odd | st.text(max_size=12)).map(typed)


def fitting(parameter: click.Parameter) -> st.SearchStrategy[str]:
    """What somebody would give it who has read the help, as far as that can be known."""
    if isinstance(parameter.type, click.Choice):
        return st.sampled_from([str(choice) for choice in parameter.type.choices])
    if isinstance(parameter.type, click.types.IntParamType):
        return st.integers(0, 6).map(str)
    return st.sampled_from(FITTING.get(parameter.name or "", ["1d", "5m", "why not", "ada", "copy.db"]))


@st.composite
def lines(draw: Any) -> list[str]:
    name, command = draw(st.sampled_from(LEAVES))
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    line = [*name, *(draw(fitting(one)) for one in arguments)]
    for option in draw(st.lists(st.sampled_from(options(command)), max_size=2)):
        line += [draw(st.sampled_from(option.opts)), *([] if option.is_flag or option.count else [draw(fitting(option))])]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):  # and then something happens to it
        at = draw(st.integers(len(name), len(line)))
        line[at : at + draw(st.integers(0, 1))] = [draw(words)]
    line += draw(st.sampled_from([[]] * 8 + [["--store", store] for store in STORES] + [["--app", app] for app in APPS]))
    return line


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Three processes, one finished, one failed and one ready, to be copied anew for each line."""
    with pytest.MonkeyPatch.context() as patch, shop(tmp_path_factory.mktemp("shop")) as project:
        for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("EDITOR", "true")
        patch.setenv("VISUAL", "true")
        for id, item in (("one", "tea"), ("two", "broken")):
            project.start("--set", f"item={item}", "--id", id)
        project.work()
        project.start("--set", "item=flaky", "--id", "three")
        for path in project.folder.glob(f"{STORE}*"):
            shutil.copy(path, project.folder / f"kept-{path.name}")
        yield project


def as_it_was(folder: Path) -> None:
    for path in folder.glob(f"{STORE}*"):
        path.unlink()
    for path in folder.glob(f"kept-{STORE}*"):
        shutil.copy(path, folder / path.name.removeprefix("kept-"))


@contextmanager
def bounded(line: list[str]) -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise AssertionError(f"it hangs: {line}")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@fuzz(80)
@given(lines(), st.sampled_from(["", "\n", "y\n", "one\ntwo\n", "{}", '{"item": "tea"}', "\x00"]))
@example(["db", "backup", ""], "")
@example(["db", "backup", ".."], "")
def test_whatever_is_typed_ends_with_a_documented_code_and_no_traceback(project: Project, line: list[str], input: str) -> None:
    as_it_was(project.folder)
    with bounded(line):
        result = project.run(*line, input=input)
    assert result.exit_code in CODES, (line, result.output)
    assert "Traceback" not in result.output, (line, result.output)
    assert result.exit_code == 0 or result.output.strip(), f"{line} ended with {result.exit_code} and said nothing"
