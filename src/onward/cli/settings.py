"""The options that every command knows, before or after its name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from onward.actor import Actor

SHAPES = ("text", "json", "jsonl", "ids")
ROLES = ("viewer", "operator", "admin")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What the user said for all commands. None: nothing, so the environment and pyproject.toml have their say."""

    app: str | None = None
    store: str | None = None
    shape: str = "text"
    quiet: bool = False
    verbose: bool = False
    color: str = "auto"
    actor: str = ""
    reason: str = ""
    role: str = ""

    @property
    def is_json(self) -> bool:
        return self.shape in ("json", "jsonl")

    @property
    def who(self) -> str | Actor:
        """Who acts, for `control`. Who gives up rights by a role is asked for them; nobody else at a shell is."""
        from onward.actor import Actor, Role  # here, because `onward --help` can do without pydantic
        from onward.control import default_actor

        role = self.role or os.environ.get("ONWARD_ROLE", "")
        if not role:
            return self.actor
        if role not in list(Role):
            raise click.UsageError(f"ONWARD_ROLE={role!r}: there are {', '.join(Role)}")
        return Actor(self.actor or default_actor(), Role(role))

    def colours(self, stream: IO[Any]) -> bool:
        """Whether text on `stream` may be coloured. https://no-color.org"""
        if self.color != "auto":
            return self.color == "always"
        return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def is_terminal(stream: IO[Any]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def can_ask() -> bool:
    """No prompt unless a person can read it and answer."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """The last one said wins; what was not said must not undo what stood before the command's name."""
    if value in (None, False):
        return
    name = parameter.name or ""
    settings = context.find_root().obj
    if name == "json":
        settings.shape = "json"
    else:
        setattr(settings, name, value)


def options(*, hidden: bool) -> list[click.Parameter]:
    """Fresh options for one command. Hidden in the help of all but the group: they are explained once."""

    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, hidden=hidden, expose_value=False, callback=_remember, **more)

    return [
        option("--app", metavar="MODULE:ATTR", help="The app. Else ONWARD_APP, else [tool.onward] app in pyproject.toml."),
        option("--store", metavar="URL", help="The store, instead of the app's. Else ONWARD_STORE. sqlite:///file.db"),
        option("--json", is_flag=True, help="One JSON document on stdout; errors as JSON on stderr."),
        option("-o", "shape", type=click.Choice(SHAPES), help="How to print: jsonl is a stream, ids is for xargs."),
        option("-q", "--quiet", is_flag=True, help="No notes on stderr, only errors."),
        option("-v", "--verbose", is_flag=True, help="Each transition (run), and the traceback of an error."),
        option("--color", type=click.Choice(["auto", "always", "never"]), help="NO_COLOR is heeded as well."),
        option("--actor", metavar="NAME", help="Who acts, for the history. Else the user of this machine."),
        option("--reason", metavar="TEXT", help="Why, for the history."),
        option("--role", type=click.Choice(ROLES), help="Act with no more rights than that. Else ONWARD_ROLE."),
    ]


pass_settings = click.make_pass_decorator(Settings)
