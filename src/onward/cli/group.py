"""The group of commands, loaded one by one, and what becomes of errors: a line, a hint and an exit code."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from onward.cli.failing import code_of, report
from onward.cli.settings import Settings, options

WIDE = 10  # the longest name of a command

Table = Mapping[str, Mapping[str, tuple[str, str]]]


class Command(click.Command):
    """A command that knows every common option, and shows how it is typed."""

    def __init__(self, *args: Any, examples: Sequence[str], **more: Any) -> None:
        self.examples = examples
        more.setdefault("context_settings", {})["help_option_names"] = ["-h", "--help"]
        super().__init__(*args, **more)
        taken = {name for parameter in self.params for name in parameter.opts}
        self.params += [option for option in options(hidden=True) if not taken & set(option.opts)]

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        formatter.write("\nEvery command takes --app --store --json -o -q -v --color --actor --reason --role: onward --help\n")


class Commands(Command, click.Group):
    """A command that is followed by the name of another one: `onward db status`."""

    def __init__(self, name: str, commands: Mapping[str, click.Command], **more: Any) -> None:
        super().__init__(name, commands=dict(commands), no_args_is_help=True, **more)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        _refuse_unknown(context, args, self.commands)
        return super().resolve_command(context, args)


class LazyGroup(click.Group):
    def __init__(self, name: str, table: Table) -> None:
        self.table = table
        self.lines = {command: line for section in table.values() for command, line in section.items()}
        version = click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="The version of Onward."
        )
        super().__init__(
            name,
            params=[*options(hidden=False), version],
            help="Durable multi-stage processes: one row, one table of stages, one loop.",
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
            no_args_is_help=True,
        )

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.lines)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.lines:
            return None
        command: click.Command = getattr(import_module(self.lines[name][0]), name)
        return command

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        _refuse_unknown(context, args, self.lines)
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in self.table.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{WIDE}}", line) for name, (_, line) in section.items()])

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_text(
                "0 done, 1 ended badly, 2 usage, 3 not found, 4 conflict, 5 refused or invalid, 6 store unreachable, "
                "7 app cannot be imported, 8 partly done, 124 timeout, 130 Ctrl-C"
            )
        with formatter.section("Examples"):
            for example in ("onward init && onward check", "onward ls is:failed", "onward explain 0kzq3vm2"):
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> Any:
        extra.setdefault("obj", Settings())
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # `onward ls --all | head`: whoever read had enough
            _mute_stdout()
            return 0

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Runs one command and exits with its code. A command returns its code; None is 0."""
        typed = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        settings = Settings()
        _never_fail_to_print()
        try:
            code = super().main(typed, prog_name or "onward", standalone_mode=False, obj=settings, **extra)
            sys.stdout.flush()
        except BrokenPipeError:  # the same, for what was still in the buffer
            _mute_stdout()
            code = 0
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = 2
        except Exception as error:
            code = code_of(error)
            if code is None:
                raise
            settings.shape = "json" if _asks_for_json(typed) else settings.shape
            report(error, settings)
        sys.exit(code or 0)


def _refuse_unknown(context: click.Context, args: Sequence[str], names: Iterable[str]) -> None:
    known = list(names)
    if args and not args[0].startswith("-") and args[0] not in known:
        near = difflib.get_close_matches(args[0], known, 1)
        raise click.UsageError(f"there is no command {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""), context)


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from onward import __version__

        click.echo(f"onward {__version__}")
        context.exit()


def _asks_for_json(typed: Sequence[str]) -> bool:
    """Read by hand: where the command line itself is wrong, nothing has parsed it."""
    pairs = zip(typed, [*typed[1:], ""], strict=True)
    return "--json" in typed or any(
        one in ("-ojson", "-ojsonl") or (one == "-o" and two in ("json", "jsonl")) for one, two in pairs
    )


def _never_fail_to_print() -> None:
    """A terminal that has no `→` shows an escape instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _mute_stdout() -> None:
    """Or the interpreter would complain once more, when it flushes stdout at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
