"""The command line as a program of its own: signals, terminals, pipes, and what it imports."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_project import Project, shop

import onward
from onward.cli.settings import Settings
from onward.cli.target import find_app

PATIENCE_S = 20.0
ONWARD = [sys.executable, "-m", "onward"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        yield project


def begin(*words: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([*ONWARD, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def until(stream: Any, text: str) -> str:
    """Reads lines until one has `text`."""
    seen = ""
    for line in stream:
        seen += str(line)
        if text in line:
            return seen
    raise AssertionError(f"{text!r} never came: {seen}")


def on_terminal(
    words: Sequence[str], *, keys: bytes = b"", after: bytes = b"", env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Runs it on a terminal of its own, and types `keys` once `after` is on the screen. Ctrl-C is a key like others.

    The keys are typed again while nothing comes of them: what arrives while a prompt is set up may be lost.
    """
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*ONWARD, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", **(env or {})}, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    screen, until, typed_at = b"", time.monotonic() + PATIENCE_S, 0.0
    while time.monotonic() < until:
        readable, _, _ = select.select([ours], [], [], 0.1)
        if readable:
            try:
                screen += os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
        if keys and after in screen and time.monotonic() > typed_at + 1:
            os.write(ours, keys)
            typed_at = time.monotonic()
    os.close(ours)
    return program.wait(PATIENCE_S), screen.decode()


# -- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_told_worker_drains_and_exits_with_0(project: Project, number: signal.Signals) -> None:
    project.start("--set", "item=slow", "--set", "count=100000")
    worker = begin("run", "-v")
    until(worker.stderr, "not yet")
    worker.send_signal(number)
    _, told = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 0, told
    assert "worker ended" in told
    assert project.json("ls")["processes"][0]["owner"] is None


def test_interrupting_what_only_watches_is_130_and_leaves_the_process_alone(project: Project) -> None:
    id = project.start("--set", "item=tea")
    for words in (["watch", id], ["watch"], ["start", "purchase", "--set", "item=tea", "--id", id, "--watch"]):
        watcher = begin(*words)
        until(watcher.stderr if words[0] == "start" else watcher.stdout, "placed")
        watcher.send_signal(signal.SIGINT)
        _, told = watcher.communicate(timeout=PATIENCE_S)
        assert watcher.returncode == 130, told
        assert "Traceback" not in told
    assert project.json("show", id)["condition"] == "ready"


def test_start_can_wait_for_a_worker_and_exits_with_what_became_of_the_process(project: Project) -> None:
    worker = begin("run")
    try:
        good = project.run("start", "purchase", "--set", "item=tea", "--wait", "--timeout", "20")
        bad = project.run("start", "purchase", "--set", "item=broken", "--watch", "--timeout", "20")
        one = project.run("start", "purchase", "--set", "item=tea", "--wait", "--json")
    finally:
        worker.terminate()
        worker.communicate(timeout=PATIENCE_S)
    assert (good.exit_code, "finished at shipped" in good.stderr.replace("✓ ", "")) == (0, True)
    assert (bad.exit_code, "declined" in bad.stderr) == (1, True)
    assert re.fullmatch(r"\w{18}\n", bad.stdout)
    assert '"condition": "finished"' in one.stdout


# -- terminals and pipes --------------------------------------------------------------------------------------------


def test_on_a_terminal_there_is_colour_unless_somebody_does_not_want_it(project: Project) -> None:
    project.start("--set", "item=tea")
    code, screen = on_terminal(["ls"])
    assert code == 0 and "\x1b[94m▷ ready\x1b[0m" in screen
    assert "\x1b" not in on_terminal(["ls"], env={"NO_COLOR": "1"})[1]
    assert "\x1b" not in on_terminal(["ls", "--color", "never"])[1]
    assert "\x1b" not in on_terminal(["ls"], env={"TERM": "dumb"})[1]


def test_on_a_terminal_what_cannot_be_undone_is_asked_for(project: Project) -> None:
    id = project.start("--set", "item=tea")
    code, screen = on_terminal(["stop", id], keys=b"n\n", after=b"[y/N]")
    assert code == 1 and "cannot be taken back" in screen
    assert on_terminal(["stop", id], keys=b"\x03", after=b"[y/N]")[0] == 130
    assert project.json("show", id)["condition"] == "ready"
    assert on_terminal(["stop", id], keys=b"y\n", after=b"[y/N]")[0] == 0
    assert project.json("show", id)["condition"] == "cancelled"
    other = project.start("--set", "item=tea")
    assert on_terminal(["stop", other, "--yes"])[0] == 0


def test_watching_on_a_terminal_keeps_the_present_at_the_bottom(project: Project) -> None:
    id = project.start("--set", "item=tea")
    code, screen = on_terminal(["watch", id], keys=b"\x03", after=b"due now")
    assert code == 130
    assert "started" in screen and f"onward watch {id}" in screen
    code, screen = on_terminal(["watch"], keys=b"\x03", after=b"placed")
    assert code == 130 and "ready" in screen
    project.work()
    assert on_terminal(["watch", id])[0] == 0
    assert on_terminal(["watch", "--until-idle"])[0] == 0


def test_a_reader_that_has_had_enough_is_no_error(project: Project) -> None:
    for number in range(3):
        project.start("--set", "item=tea", "--id", f"tea-{number}")
    for words in (["ls"], ["ls", "-o", "jsonl"]):
        program = begin(*words)
        assert program.stdout is not None and program.stderr is not None
        program.stdout.close()
        assert program.wait(PATIENCE_S) == 0
        assert program.stderr.read() == ""
        program.stderr.close()


def test_a_terminal_without_the_characters_shows_something_else_and_does_not_fail(project: Project) -> None:
    project.start("--set", "item=tea")
    done = subprocess.run(
        [*ONWARD, "ls"], capture_output=True, timeout=PATIENCE_S, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    )
    assert done.returncode == 0 and b"ready" in done.stdout


# -- what is imported, and what init promises -----------------------------------------------------------------------


def test_the_help_of_onward_imports_neither_the_app_nor_anything_heavy(project: Project) -> None:
    """The package itself is left out by a stand-in: what its own `__init__` imports is not the command line's."""
    Path("shop.py").write_text("raise SystemExit('imported')")
    code = f"""
import sys, types
package = types.ModuleType("onward"); package.__path__ = [{str(Path(onward.__file__).parent)!r}]; sys.modules["onward"] = package
from onward.cli import cli
try:
    cli(["--help"])
except SystemExit as exit:
    heavy = {{"asyncio", "pydantic", "sqlite3", "rich", "shop", "onward.app", "onward.store"}} & set(sys.modules)
    sys.exit(f"imported: {{heavy}}" if exit.code or heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert "onward" in done.stdout


def test_the_commands_that_init_prints_work_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "onward").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onward "$@"\n')
    (tmp_path / "bin" / "onward").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    shell: dict[str, Any] = {"cwd": tmp_path, "env": env, "text": True, "capture_output": True, "timeout": PATIENCE_S}
    said = subprocess.run(["onward", "init", "my letters"], **shell)
    assert said.returncode == 0, said.stderr
    done = subprocess.run(["sh", "-e", "-c", said.stdout], **shell)
    assert done.returncode == 0, done.stderr
    assert "letter: written, posted, answered, lost" in done.stdout and "1 finished" in done.stderr
    found = subprocess.run(["onward", "ls", "is:finished", "--count"], **{**shell, "cwd": tmp_path / "my letters"})
    assert found.stdout == "1\n"


@pytest.mark.parametrize("body", ["time.sleep(120)", "await deaf()"], ids=["thread", "coroutine"])
def test_a_worker_leaves_without_a_handler_that_cannot_be_ended(tmp_path: Path, body: str) -> None:
    prefix = "async " if "await" in body else ""
    (tmp_path / "stuck.py").write_text(
        f"""
import asyncio, time
from enum import StrEnum, auto
from typing import Literal
from onward import END, Flow, Onward, Process

class Status(StrEnum):
    WORK = auto()
    DONE = auto()

class Job(Process[Status]):
    status: Status = Status.WORK

async def deaf() -> None:
    while True:
        try:
            await asyncio.sleep(120)
        except asyncio.CancelledError:
            pass

{prefix}def work(job: Job) -> Literal[Status.DONE]:
    print("begun", flush=True)
    {body}
    return Status.DONE

app = Onward("sqlite:///stuck.db", flows=[Flow(Job, {{Status.WORK: work, Status.DONE: END}})])
"""
    )
    subprocess.run([*ONWARD, "--app", "stuck:app", "start", "job", "--id", "a"], cwd=tmp_path, check=True, capture_output=True)
    program = begin("--app", "stuck:app", "run", "--grace", "0.1s", cwd=tmp_path)
    assert program.stdout is not None
    until(program.stdout, "begun")
    program.send_signal(signal.SIGTERM)
    _, said = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 0, said
    assert "leaves without it" in said
    shown = subprocess.run(
        [*ONWARD, "--app", "stuck:app", "explain", "a"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert "is due" in shown.stdout or "is ready" in shown.stdout or "runs attempt" in shown.stdout


def test_ctrl_c_stops_what_a_query_began_and_what_was_done_stays_done(project: Project) -> None:
    number = 1_000

    async def hold() -> Any:
        async with find_app(Settings()) as app:
            await app.start_many(app.make("match", {}, f"match-{n:04}") for n in range(number))
            for n in range(number):
                await app.pause(f"match-{n:04}")

    async def ended() -> Any:
        async with find_app(Settings()) as app:
            [bulk] = await app.find("flow:onward_bulk")
            return bulk, len(await app.find("flow:match is:paused", limit=1_000))

    asyncio.run(hold())
    program = begin("resume", "--query", "flow:match is:paused")
    deadline = time.monotonic() + PATIENCE_S
    while project.json("ls", "flow:match", "is:ready", "--count")["count"] < 100:
        assert program.poll() is None and time.monotonic() < deadline, program.communicate()
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=PATIENCE_S)
    bulk, paused = asyncio.run(ended())
    assert program.returncode == 130 and f"stopped; what was done stays done: onward show {bulk.id}" in said
    assert bulk.condition is onward.Condition.CANCELLED
    assert 0 < paused < number
