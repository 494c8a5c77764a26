"""`onward init`: one small flow that runs as it stands, and the line by which `onward` finds it."""

from __future__ import annotations

import shlex
import tomllib
from importlib.resources import files
from pathlib import Path

import click

from onward.cli.command import command
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.errors import Refused

MODULE = "onward_example"
SETTING = f'[tool.onward]\napp = "{MODULE}:app"\n'
NEXT = ("onward check", "onward start letter --set to=Ada", "onward run --until-idle -v")


@command("init", "onward init", "onward init my-project")
@click.argument("directory", required=False, type=click.Path(file_okay=False, path_type=Path))
@pass_settings
def init(settings: Settings, directory: Path | None) -> None:
    """Write a small example that runs, and say how. Nothing that exists is changed, but [tool.onward] may be added."""
    folder = directory or Path()
    example, project = folder / f"{MODULE}.py", folder / "pyproject.toml"
    text = _with_setting(project)
    if example.exists():
        raise Refused(f"{example} exists already; nothing was written", hint="onward check, or another folder: onward init DIR")
    folder.mkdir(parents=True, exist_ok=True)
    example.write_text(files("onward.cli").joinpath("example.py.txt").read_text(encoding="utf-8"), encoding="utf-8")
    project.write_text(text, encoding="utf-8")
    commands = [*([f"cd {shlex.quote(str(folder))}"] if directory else []), *NEXT]
    output = Output(settings)
    if settings.is_json:
        output.document("init/1", {"wrote": [str(example), str(project)], "next": commands})
        return
    output.note(f"wrote {example} and [tool.onward] in {project}. Next:")
    for line in commands:
        output.line(line)


def _with_setting(project: Path) -> str:
    """pyproject.toml with our table at its end. Raises Refused where one is there, or where TOML would break."""
    if not project.exists():
        return SETTING
    text = project.read_text(encoding="utf-8")
    try:
        known = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{project} cannot be read: {error}; nothing was written", hint="mend it first") from None
    if "onward" in known.get("tool", {}):
        raise Refused(f"{project} has [tool.onward] already; nothing was written", hint="onward check")
    return text + ("" if text.endswith("\n") or not text else "\n") + ("\n" if text else "") + SETTING
