"""For atheris, which looks for the branches that hypothesis does not find: codec and query language, led by what was covered.

pip install atheris && PYTHONPATH=tests python -m fuzz.harness -max_total_time=300
"""

from __future__ import annotations

import sys
from enum import StrEnum, auto
from typing import Any, Literal

try:
    import atheris
except ImportError:
    sys.exit("atheris is not there: pip install atheris")

with atheris.instrument_imports(include=["onward"]):
    from onward import END, Flow, InvalidData, Process, Secret
    from onward.codec import decode, encode
    from onward.query import QueryError, parse, text_of


class Step(StrEnum):
    MAKE = auto()
    DONE = auto()


class Thing(Process[Step]):
    status: Step = Step.MAKE
    text: str = ""
    token: Secret[str] = ""
    numbers: list[int] = []
    by_name: dict[str, float] = {}
    anything: Any = None


async def make(thing: Thing) -> Literal[Step.DONE]:
    return Step.DONE


FLOW = Flow(Thing, {Step.MAKE: make, Step.DONE: END})


def one(data: bytes) -> None:
    text = data[1:].decode("utf-8", "surrogateescape")
    if data[:1] < b"\x80":
        _codec(text)
    else:
        _query(text)


def _codec(text: str) -> None:
    try:
        process = decode(FLOW, "p1", "make", "{" + text)
        again, copy = encode(FLOW, process, "p1", "make")
    except InvalidData:
        return
    assert decode(FLOW, "p1", "make", again) == copy


def _query(text: str) -> None:
    try:
        terms = parse(text)
    except QueryError:
        return
    assert parse(text_of(terms)) == terms


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
