"""Errors as people and scripts meet them: what went wrong, what to type next, and an exit code that says which kind.

1 ended badly, 2 usage, 3 not found, 4 conflict, 5 refused or invalid, 6 store unreachable, 7 app cannot be imported,
8 partly done, 124 timeout, 130 Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import traceback

import click

from onward.cli.settings import Settings
from onward.errors import (
    Conflict,
    Fenced,
    FlowError,
    Forbidden,
    InvalidData,
    NotFound,
    OnwardError,
    QueryError,
    Refused,
    StoreError,
)

ENDED_BADLY, USAGE, PARTLY, TIMEOUT = 1, 2, 8, 124


class NoApp(OnwardError):
    """There is no app, or it cannot be imported."""


class Ambiguous(OnwardError):
    """The beginning of an id that several processes share."""


class TookTooLong(OnwardError):
    """What was waited for did not come about within --timeout."""


# The first that fits; a word for `error.code` in JSON, the exit code, and what to type where the error has no hint.
_KINDS: tuple[tuple[type[Exception], str, int, str], ...] = (
    (click.Abort, "interrupted", 130, ""),
    (click.ClickException, "usage", USAGE, "see: onward --help"),
    (QueryError, "usage", USAGE, "what can be asked for: onward ls --help"),
    (Ambiguous, "ambiguous", USAGE, "type more of the id"),
    (NoApp, "no_app", 7, "name it: --app module:attr"),
    (FlowError, "flow", 7, "mend the flow, then: onward check"),
    (TookTooLong, "timeout", TIMEOUT, "it goes on by itself: onward ls"),
    (NotFound, "not_found", 3, "what there is: onward ls"),
    (Conflict, "conflict", 4, "look again: onward ls"),
    (Fenced, "conflict", 4, "look again: onward ls"),
    (StoreError, "store", 6, "look at it: onward doctor"),
    (InvalidData, "invalid", 5, "mend the data, then try again"),
    (Forbidden, "forbidden", 5, "ask somebody who may"),
    (Refused, "refused", 5, "look at it: onward ls"),
    (OnwardError, "failed", ENDED_BADLY, "look at it: onward doctor"),
    (OSError, "system", ENDED_BADLY, "look at the path and its permissions"),
)


def code_of(error: Exception) -> int | None:
    """The exit code; None for what nobody foresaw, which should be seen with its traceback."""
    return next((code for kind, _, code, _ in _KINDS if isinstance(error, kind)), None)


def described(error: Exception) -> dict[str, str]:
    """The error for JSON, and for the report of one id among several."""
    word, hint = next((word, hint) for kind, word, _, hint in _KINDS if isinstance(error, kind))
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        return {
            "code": word,
            "message": error.format_message(),
            "hint": f"see: {context.command_path} --help" if context else hint,
        }
    if isinstance(error, click.Abort):
        return {"code": word, "message": "interrupted", "hint": ""}
    return {"code": word, "message": str(error), "hint": getattr(error, "hint", "") or hint}


def report(error: Exception, settings: Settings) -> None:
    """On stderr; stdout is for data, and there is none."""
    from onward.codec import printable  # here, because `onward --help` can do without pydantic

    if settings.verbose and not isinstance(error, (click.ClickException, click.Abort)):
        traceback.print_exception(error, file=sys.stderr)
    told = described(error)
    if settings.is_json:
        click.echo(json.dumps({"error": {key: printable(text) for key, text in told.items()}}), err=True)
        return
    if isinstance(error, click.Abort):
        return  # whoever pressed Ctrl-C knows
    coloured = settings.colours(sys.stderr)
    head = click.style("error:", fg="red", bold=True) if coloured else "error:"
    click.echo(f"{head} {printable(told['message'])}", err=True, color=coloured)
    if told["hint"]:
        click.echo(f"  {printable(told['hint'])}", err=True, color=coloured)
