"""A small project for the tests of the command line: two flows, an app and a pyproject.toml in a folder of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from onward.cli import cli

SHOP = """
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Literal

from onward import END, Every, Flow, Onward, Process, Retry, Unrecoverable, stage


class Order(StrEnum):
    PLACED = auto()
    PAID = auto()
    SHIPPED = auto()
    RETURNED = auto()
    REFUNDED = auto()


class Purchase(Process[Order]):
    status: Order = Order.PLACED
    item: str
    count: int = 1
    looks: int = 0
    notes: list[str] = []


async def pay(one: Purchase) -> Literal[Order.PAID]:
    if one.item == "broken" and not Path("mended").exists():
        raise Unrecoverable(f"card 4711-{one.count} was declined")
    if one.item == "flaky":
        raise ValueError("the bank is down")
    one.notes.append("paid")
    return Order.PAID


async def look(one: Purchase) -> Literal[Order.PAID, Order.SHIPPED]:
    one.looks += 1
    return Order.SHIPPED if one.looks > one.count else Order.PAID


async def refund(one: Purchase) -> Literal[Order.REFUNDED]:
    return Order.REFUNDED


purchase = Flow(
    Purchase,
    {
        Order.PLACED: stage(pay, retry=Retry(first=60)),
        Order.PAID: stage(look, every=Every(0.01)),
        Order.SHIPPED: END,
        Order.RETURNED: refund,
        Order.REFUNDED: END,
    },
    on_cancel=Order.RETURNED,
)


class Side(StrEnum):
    PING = auto()
    PONG = auto()
    OUT = auto()


class Match(Process[Side]):
    status: Side = Side.PING


async def ping(one: Match) -> Literal[Side.PONG]:
    return Side.PONG


async def pong(one: Match) -> Literal[Side.PING, Side.OUT]:
    return Side.OUT


match = Flow(Match, {Side.PING: ping, Side.PONG: pong, Side.OUT: END})
app = Onward("sqlite:///shop.db", flows=[purchase, match])
"""


@dataclass
class Project:
    """A folder with an app, and `onward` inside it, in this very process."""

    folder: Path

    def run(self, *words: str, input: str | None = None, env: dict[str, str] | None = None) -> Result:
        """Whatever nobody foresaw comes up as it is, with its traceback."""
        result = CliRunner().invoke(cli, list(words), input=input, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def out(self, *words: str, code: int = 0, input: str | None = None) -> str:
        result = self.run(*words, input=input)
        assert result.exit_code == code, (words, result.exit_code, result.output)
        return result.stdout

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.out(*words, "--json", code=code))

    def error(self, *words: str, code: int, input: str | None = None) -> str:
        """The error, which has a hint beneath it and leaves stdout empty; the same as JSON is checked on the way."""
        result = self.run(*words, input=input)
        assert (result.exit_code, result.stdout) == (code, ""), (words, result.output)
        lines = result.stderr.splitlines()
        [at] = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        assert lines[-1].startswith("  ") and len(lines) > at + 1, f"no hint: {result.stderr}"
        return "\n".join(lines[at:])

    def start(self, *words: str) -> str:
        return self.out("-q", "start", "purchase", *words).strip()

    def forget(self) -> None:
        """As if nothing had been imported from this folder: what is written there now is what counts."""
        for name in [name for name, module in sys.modules.items() if str(self.folder) in str(getattr(module, "__file__", None))]:
            del sys.modules[name]

    def work(self, *words: str) -> str:
        """Drives all there is, and answers what the worker said."""
        result = self.run("run", "--until-idle", *words)
        assert result.exit_code == 0, result.output
        return result.stderr


def lines(text: str) -> Sequence[list[str]]:
    return [line.split() for line in text.splitlines()]


@contextmanager
def shop(folder: Path) -> Iterator[Project]:
    """The project, as the current folder. What importing its app leaves behind is taken away again."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "pyproject.toml").write_text('[tool.onward]\napp = "shop:app"\n')
    path, before = list(sys.path), Path.cwd()
    os.chdir(folder)
    project = Project(folder)
    try:
        yield project
    finally:
        os.chdir(before)
        sys.path[:] = path
        project.forget()
