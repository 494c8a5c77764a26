"""`onward demo`: only its options; the demonstration itself is `onward.demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from onward.cli.command import command
from onward.cli.settings import Settings, pass_settings


@command(
    "demo",
    "onward demo",
    "onward demo -n 20 --no-crash",
    "onward demo --store postgresql://localhost/test",
    "onward demo report.pdf --question 'What was the total?' --real",
)
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]...")
@click.option("--question", metavar="TEXT", help="What to ask about each document.")
@click.option("-n", "number", type=click.IntRange(1), help="So many batches.")
@click.option("--crash/--no-crash", default=True, help="Kill the worker in the middle, or not.  [default: crash]")
@click.option("--real", is_flag=True, help="With the real service and your key, instead of the stand-in.")
@pass_settings
def demo(settings: Settings, paths: tuple[Path, ...], question: str | None, number: int | None, crash: bool, real: bool) -> None:
    """Batches of documents go through upload, answers and clean-up, while the worker is killed in the middle.

    Without PATH it brings its own documents, and without --real it talks to a stand-in on this machine: no key, no network.
    With --store postgresql://… two workers share the database, and the other one goes on.
    """
    from onward.demo.main import run_demo

    sys.exit(run_demo(paths=paths, question=question, number=number, crash=crash, real=real, store=settings.store))
