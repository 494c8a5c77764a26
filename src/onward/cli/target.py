"""Which app and which store a command means, and the event loop in which it uses them."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import tomllib
import traceback
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from onward.app import Onward
from onward.cli.failing import NoApp
from onward.cli.settings import Settings
from onward.clock import SystemClock
from onward.errors import FlowError, StoreError
from onward.ports import Observer
from onward.store import upkeep_of

T = TypeVar("T")


def with_app(
    settings: Settings,
    work: Callable[[Onward], Awaitable[T]],
    *,
    needs_flows: str = "",
    creates: bool = False,
    observers: Sequence[Observer] = (),
) -> T:
    """Runs `work` with the app, its store open. `needs_flows` says for what the flows are needed, if they are.

    Only a command that `creates` may make a store that does not exist: looking at a mistyped path must not.
    """
    app = find_app(settings, needs_flows=needs_flows, observers=observers)
    if not creates:
        _must_exist(app.url)

    async def run() -> T:
        async with app:
            return await work(app)

    return asyncio.run(run())


def find_app(settings: Settings, *, needs_flows: str = "", observers: Sequence[Observer] = ()) -> Onward:
    """The app at the chosen store; an app without flows where only a store is known and that is enough."""
    name, said_by = app_name(settings)
    url = settings.store or os.environ.get("ONWARD_STORE") or ""
    if name is None:
        if url and not needs_flows:
            return Onward(url, flows=[], observers=observers)
        wanted = f"{needs_flows} needs the app" if needs_flows else "neither an app nor a store was named"
        raise NoApp(wanted, hint=_HOW_TO_NAME_IT if needs_flows else f"{_HOW_TO_NAME_IT}; or --store sqlite:///file.db")
    try:
        app = import_app(name)
    except NoApp as error:
        # Whoever names a store has to get at it, all the more while the code is broken.
        if not url or needs_flows or settings.app:
            raise
        click.echo(f"note: going on without the app: {error} (from {said_by})", err=True)
        return Onward(url, flows=[], observers=observers)
    if url or observers:
        return Onward(url or app.url, app.flows.values(), observers=(*app.observers, *observers), clock=app.clock)
    return app


_HOW_TO_NAME_IT = (
    '--app module:attr, or ONWARD_APP, or [tool.onward] app = "module:attr" in pyproject.toml (onward init writes one)'
)


def app_name(settings: Settings) -> tuple[str | None, str]:
    """`module:attr`, and who said so. The folder of that pyproject.toml, and this one, are where modules are found."""
    _can_import_from(Path.cwd())
    if settings.app:
        return settings.app, "--app"
    if name := os.environ.get("ONWARD_APP"):
        return name, "ONWARD_APP"
    for folder in (Path.cwd(), *Path.cwd().parents):
        project = folder / "pyproject.toml"
        if project.is_file():
            name = _said_in(project)
            if name:
                _can_import_from(folder)
            return name, str(project)
    return None, ""


def _said_in(project: Path) -> str | None:
    try:
        name = tomllib.loads(project.read_text(encoding="utf-8")).get("tool", {}).get("onward", {}).get("app")
    except (tomllib.TOMLDecodeError, UnicodeError) as error:
        raise NoApp(f"{project} cannot be read: {error}", hint="mend it, or say --app module:attr") from None
    return str(name) if name else None


def _can_import_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def import_app(name: str) -> Onward:
    """Imports `module:attr` (attr: `app` where it is left out). Raises NoApp with the reason, in one line."""
    found = import_named(name)
    if not isinstance(found, Onward):
        raise NoApp(f"{name} is a {type(found).__name__}, not an app", hint="app = Onward(url, flows=[...])")
    return found


def import_named(name: str, what: str = "app") -> Any:
    """What `module:attr` names (attr: `app` where it is left out), once `app_name` has been asked where modules are found."""
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except FlowError as error:
        raise NoApp(f"the {what} {name} cannot be imported: {error}", hint="mend the flow, then: onward check") from error
    except (Exception, SystemExit) as error:  # the user's module may do anything while it is imported
        raise NoApp(
            f"the {what} {name} cannot be imported: {type(error).__name__}: {error}{_where(error)}", hint=_hint(error)
        ) from error
    for part in (attribute or "app").split("."):
        if not hasattr(found, part):
            hint = "--app module:attr" if what == "app" else "write module:attr"
            raise NoApp(f"the {what} {name} cannot be found: {module_name} has no {attribute or 'app'!r}", hint=hint)
        found = getattr(found, part)
    return found


def _where(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    last = next((frame for frame in reversed(frames) if frame.filename != __file__), None)
    return f" ({Path(last.filename).name}, line {last.lineno})" if last else ""


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"is {error.name} installed here, and is this the right folder? --app module:attr"
    return "the whole traceback: -v"


def sqlite_path(url: str) -> Path | None:
    """The file that an SQLite URL names; None for any other store."""
    scheme, separator, path = url.partition(":///")
    return Path(path) if separator and scheme == "sqlite" and path and path != ":memory:" else None


def _must_exist(url: str) -> None:
    path = sqlite_path(url)
    if path is not None and not path.exists():
        raise StoreError(
            f"there is no store at {path} yet (in {path.absolute().parent})",
            hint="the first process makes it: onward start FLOW; another store: --store URL",
        )
    if path is not None and not asyncio.run(upkeep_of(url, SystemClock()).schema()):
        raise StoreError(
            f"{path} has no tables of Onward yet",
            hint="is it the right file? The first process makes them: onward start FLOW; or: onward db upgrade",
        )
