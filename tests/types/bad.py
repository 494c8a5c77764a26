# mypy: ignore-errors
# ruff: noqa: RET503
"""What the type checkers reject: each line that is wrong says by whom. The test takes the first line away.

Lines that say "only the proof" are wrong as well: no checker sees it, but `Flow` does when the module is imported.
"""

from __future__ import annotations

from enum import StrEnum, auto
from typing import Literal

from onward import END, Context, Every, Flow, Process, Retry, RetryAfter, Secret, stage
from onward.flow import Stage


class Status(StrEnum):
    NEW = auto()
    SENT = auto()
    DONE = auto()


class Foreign(StrEnum):
    NEW = auto()
    SENT = auto()
    DONE = auto()


class Parcel(Process[Status]):
    status: Status = Status.NEW


class Letter(Process[Foreign]):
    status: Foreign = Foreign.NEW


class Vault(Process[Status]):
    status: Status = Status.NEW
    token: Secret[str]
    wrong: Secret[int] = "1"  # error: mypy, pyright


class Numbered(Process[int]):  # error: mypy, pyright
    pass


class Mixed(Process[Status]):
    status: Foreign = Foreign.NEW  # error: mypy, pyright


# -- a handler returns what it did not declare --------------------------------------------------------------------


async def send(parcel: Parcel, ctx: Context) -> Literal[Status.SENT]:
    return Status.SENT


async def undeclared(parcel: Parcel) -> Literal[Status.SENT]:
    if parcel.id:
        return Status.DONE  # error: mypy, pyright
    return Status.SENT


def undeclared_sync(parcel: Parcel) -> Literal[Status.SENT, Status.DONE]:
    return Status.NEW  # error: mypy, pyright


def foreign_status(parcel: Parcel) -> Literal[Status.SENT]:
    return Foreign.SENT  # error: mypy, pyright


def a_word(parcel: Parcel) -> Literal[Status.SENT]:
    return "sent"  # error: mypy, pyright


def forgets(parcel: Parcel, ctx: Context) -> Literal[Status.SENT]:  # error: mypy, pyright
    if ctx.attempt > 1:
        return Status.SENT


def misspelt(parcel: Parcel) -> Literal[Status.SEND]:  # error: mypy, pyright
    raise NotImplementedError


# -- handlers of another flow, or of none -------------------------------------------------------------------------


async def abroad(parcel: Parcel) -> Literal[Foreign.SENT]:
    return Foreign.SENT


def abroad_sync(parcel: Parcel) -> Literal[Foreign.SENT]:
    return Foreign.SENT


async def a_text(parcel: Parcel) -> str:
    return "sent"


async def whole_enum(parcel: Parcel) -> Status:
    return Status.SENT


async def of_letters(letter: Letter) -> Literal[Status.SENT]:
    return Status.SENT


async def wants_more(parcel: Parcel, ctx: Context, more: int) -> Literal[Status.SENT]:
    return Status.SENT


def tables() -> None:
    Flow(Parcel, {Status.NEW: abroad})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: abroad_sync})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: stage(abroad)})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: stage(abroad_sync)})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: a_text})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: stage(a_text)})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: whole_enum})  # only the proof: it is a Status, if not a declared one
    Flow(Parcel, {Status.NEW: of_letters})  # only the proof: a handler may take more than the model, so any parameter goes
    Flow(Parcel, {Status.NEW: stage(of_letters)})  # only the proof
    Flow(Parcel, {Status.NEW: wants_more})  # only the proof
    Flow(Parcel, {Status.NEW: send})  # only the proof: SENT and DONE are missing


# -- the table ----------------------------------------------------------------------------------------------------


def keys() -> None:
    Flow(Parcel, {Foreign.NEW: send})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: send, Foreign.SENT: END})  # error: mypy, pyright
    Flow(Parcel, {(Status.NEW, Foreign.SENT): send})  # error: mypy, pyright
    Flow(Parcel, {"new": send})  # error: mypy, pyright
    Flow(Parcel, {None: send})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: 5})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: Status.SENT})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: None})  # error: mypy, pyright
    Flow(int, {Status.NEW: send})  # error: mypy, pyright
    Flow(Status, {Status.NEW: send})  # error: mypy, pyright
    Flow(Letter, {Status.NEW: send})  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: send, Status.DONE: END}, on_cancel=Foreign.DONE)  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: send, Status.DONE: END}, on_cancel="done")  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: send}, lifespan=5)  # error: mypy, pyright
    Flow(Parcel, {Status.NEW: send}, nmae="parcel")  # error: mypy, pyright


# -- the policies -------------------------------------------------------------------------------------------------


def policies() -> None:
    # In a call like these, pyright takes a literal of another enum for a member of the first.
    Flow(Parcel, {Status.NEW: stage(send, on_failure=Foreign.DONE)})  # error: mypy
    Flow(Parcel, {Status.NEW: stage(send, within=5, otherwise=Foreign.DONE)})  # error: mypy
    line: Stage[Status] = stage(send, on_failure=Foreign.DONE)  # error: mypy
    del line
    stage(send, on_failure="done")  # error: mypy, pyright
    stage(send, within=5, otherwise="done")  # error: mypy, pyright
    stage(send, retry=3)  # error: mypy, pyright
    stage(send, every=3)  # error: mypy, pyright
    stage(send, timeout="5")  # error: mypy, pyright
    stage(send, within="5", otherwise=Status.DONE)  # error: mypy, pyright
    stage(send, timeout=None)  # error: mypy, pyright
    stage(send, Retry(3))  # error: mypy, pyright
    stage(send, attempts=3)  # error: mypy, pyright
    stage(5)  # error: mypy, pyright
    stage(a_text)  # error: mypy, pyright
    stage(send, within=5)  # only the proof: a deadline has to lead somewhere
    Retry(attempts="3")  # error: mypy, pyright
    Retry(tries=3)  # error: mypy, pyright
    Every("2")  # error: mypy, pyright
    Every()  # error: mypy, pyright
    RetryAfter("5")  # error: mypy, pyright


async def context(ctx: Context) -> None:
    await ctx.sleep(5)  # error: mypy, pyright
    ctx.attempt.upper()  # error: mypy, pyright


def secrets(vault: Vault) -> None:
    Vault(token=5)  # error: mypy, pyright
    Vault()  # error: mypy, pyright
    vault.token = None  # error: mypy, pyright
    vault.token.get_secret_value()  # error: mypy, pyright
