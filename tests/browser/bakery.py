"""A flow for the tests in a browser: what goes wrong in it can be mended from outside, while everything runs.

While the file `cold` lies in the folder, whatever comes to the oven fails; without `flour` the dough does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

from panel import scene
from pydantic import BaseModel

from onward import END, Context, Every, Flow, Onward, Process, Retry, Secret, stage


class OvenError(Exception):
    pass


class Dough(StrEnum):
    ORDERED = auto()
    KNEADED = auto()
    RISING = auto()
    BAKED = auto()
    SOLD = auto()


class Topping(BaseModel):
    name: str = "salt"
    grams: int = 5


class Loaf(Process[Dough]):
    status: Dough = Dough.ORDERED
    kind: str = "rye"
    grams: int = 500
    is_sliced: bool = False
    toppings: list[Topping] = []
    notes: dict[str, Any] = {}
    card: Secret[str] = ""
    looks: int = 0


async def knead(loaf: Loaf, ctx: Context) -> Literal[Dough.KNEADED]:
    if loaf.kind == "spelt" and not (ctx.resources / "flour").exists():
        raise LookupError("there is no spelt flour")
    return Dough.KNEADED


async def rest(loaf: Loaf) -> Literal[Dough.RISING]:
    return Dough.RISING


async def look(loaf: Loaf, ctx: Context) -> Literal[Dough.RISING, Dough.BAKED]:
    loaf.looks += 1
    if (ctx.resources / "cold").exists():
        raise OvenError(f"oven 7 is cold: 21 degrees, asked for by {loaf.id}")
    return Dough.RISING if loaf.kind == "sourdough" else Dough.BAKED


async def sell(loaf: Loaf, ctx: Context) -> Literal[Dough.SOLD]:
    loaf.notes["ticket"] = await ctx.once("ticket", str.upper, loaf.id)
    return Dough.SOLD


@contextmanager
def cold(folder: Path) -> Iterator[None]:
    """Meanwhile no loaf is baked."""
    (folder / "cold").touch()
    try:
        yield
    finally:
        (folder / "cold").unlink()


ONCE = Retry(attempts=1)


def opened(path: Path) -> Onward:
    """The bakery, in the store in which scene.py has let a day pass."""
    loaves = Flow(
        Loaf,
        {
            Dough.ORDERED: stage(knead, retry=ONCE),
            Dough.KNEADED: rest,
            Dough.RISING: stage(look, retry=ONCE, every=Every(seconds=3600)),
            Dough.BAKED: sell,
            Dough.SOLD: END,
        },
        on_cancel=Dough.BAKED,
        lifespan=lambda: nullcontext(path.parent),
    )
    return Onward(f"sqlite:///{path}", flows=[loaves, *scene.FLOWS])
