"""`onward panel`: the control panel in a browser."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import webbrowser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onward.actor import Role
from onward.app import Onward, without_panel
from onward.cli.command import command
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.store.urls import shown

if TYPE_CHECKING:
    from onward.panel.serve import Site

PORT = 8321
PORTS = click.IntRange(0, 65_535)
ROLES = click.Choice([role.value for role in Role])
FILE = click.Path(dir_okay=False, path_type=Path)


@command(
    "panel",
    "onward panel",
    "onward panel --open --port 8400",
    "onward panel --new-user ada --role operator >> users",
    "onward panel --host 0.0.0.0 --hosts panel.example.com --users users --cert cert.pem --key key.pem",
)
@click.option("--port", type=PORTS, default=PORT, show_default=True, help="0: any that is free.")
@click.option("--open", "opens", is_flag=True, help="Open it in the browser of this machine.")
@click.option("--role", type=ROLES, default=Role.ADMIN.value, show_default=True, help="What you, or the new user, may do.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another address than this machine's own needs --users.")
@click.option("--hosts", multiple=True, metavar="NAME", help="A name by which browsers reach it; may be said several times.")
@click.option("--users", type=FILE, help="Who may come in: lines of `name role sha256-of-the-token`.")
@click.option("--new-user", metavar="NAME", help="Print the line of a new user for that file, and the token once.")
@click.option("--cert", type=FILE, help="A certificate, so that nobody listens in (TLS).")
@click.option("--key", type=FILE, help="The private key of the certificate.")
@pass_settings
def panel(
    settings: Settings,
    port: int,
    opens: bool,
    role: str,
    host: str,
    hosts: Sequence[str],
    users: Path | None,
    new_user: str | None,
    cert: Path | None,
    key: Path | None,
) -> None:
    """See in a browser what every process is doing, and act on it. Ctrl-C ends it.

    It prints a link that works once; after that another one, for another browser. Only this machine can reach it.
    """
    output = Output(settings)
    serve = _serve_module()
    if new_user is not None:
        _print_new_user(output, new_user, Role(role))
        return
    if key and not cert:
        raise click.UsageError("--key is the key of a certificate: say --cert as well")
    site = serve.Site(host, port, tuple(hosts), Role(role), users, cert, key)
    site.check()
    if not site.is_local and cert is None:
        output.note("warning: without --cert and --key, whoever sits on the network reads the tokens and all that is shown")
    _log(settings)
    named = settings.store or os.environ.get("ONWARD_STORE")
    with_app(settings, lambda app: _serve(app, site, output, opens), creates=not named)


async def _serve(app: Onward, site: Site, output: Output, opens: bool) -> None:
    output.note(f"panel of {shown(app.url)}; Ctrl-C ends it")
    with tempfile.TemporaryDirectory(prefix="onward-") if opens else nullcontext() as folder:
        await _serve_module().serve(app, site, _Teller(output, Path(folder) if folder else None))
    output.note("panel ended")


@asynccontextmanager
async def beside(app: Onward, port: int | None, settings: Settings) -> AsyncIterator[None]:
    """The panel while a worker works in the same program; nothing where no port was asked for."""
    if port is None:
        yield
        return
    serve = _serve_module()
    logging.getLogger("onward.panel").setLevel(logging.WARNING if settings.quiet else logging.INFO)
    async with serve.serving(app, serve.Site(port=port), _Teller(Output(settings))):
        yield


class _Teller:
    """The first link is what the command was called for: data. Those after it are notes."""

    def __init__(self, output: Output, folder: Path | None = None) -> None:
        self._output, self._folder, self._told = output, folder, False

    def __call__(self, link: str) -> None:
        if self._told:
            self._output.line(f"for another browser: {link}", to_stderr=True)
            return
        self._told = True
        if self._output.settings.is_json:
            self._output.document("panel/1", {"url": link})
        else:
            self._output.line(link)
        sys.stdout.flush()
        if self._folder is not None:
            _open(link, self._folder)


def _open(link: str, folder: Path) -> None:
    """By way of a file that only this user can read: every user of this machine sees the arguments of a browser."""
    page = folder / "panel.html"
    page.touch(mode=0o600)
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(link)}">', encoding="utf-8")
    asyncio.get_running_loop().run_in_executor(None, webbrowser.open, page.as_uri())


def _print_new_user(output: Output, name: str, role: Role) -> None:
    from onward.panel.entry.enter import new_user

    token, line = new_user(name, role)
    if output.settings.is_json:
        output.document("user/1", {"name": name, "role": role, "token": token, "line": line})
        return
    output.line(f"the token of {name}, which stands nowhere else: {token}", to_stderr=True)
    output.line(line)


def _log(settings: Settings) -> None:
    logging.basicConfig(
        level=logging.INFO if settings.verbose else logging.ERROR if settings.quiet else logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    logging.getLogger("onward.panel").setLevel(logging.ERROR if settings.quiet else logging.INFO)


def _serve_module() -> Any:
    try:
        from onward.panel import serve
    except ModuleNotFoundError as error:
        raise without_panel(error) from None
    return serve
