"""`onward completion`: the script by which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from onward.cli.command import command


@command("completion", 'eval "$(onward completion bash)"', "onward completion fish > ~/.config/fish/completions/onward.fish")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL. In ~/.bashrc or ~/.zshrc: eval "$(onward completion bash)"."""
    from onward.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None  # the choice above
    click.echo(kind(cli, {}, "onward", "_ONWARD_COMPLETE").source())
