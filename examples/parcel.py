"""A parcel on its way: the smallest flow that has a step to do once, a poll and an end. Run it twice: it is not sent twice.

python examples/parcel.py
"""

import asyncio
from enum import StrEnum, auto
from typing import Literal

from onward import END, Context, Every, Flow, Onward, Process, Retry, stage


class Status(StrEnum):
    ORDERED = auto()
    SENT = auto()
    DELIVERED = auto()


class Parcel(Process[Status]):
    status: Status = Status.ORDERED  # where it starts
    address: str
    tracking: str = ""
    looks: int = 0


async def book_courier(address: str) -> str:
    return f"TRACK-{len(address)}"


async def send(parcel: Parcel, ctx: Context) -> Literal[Status.SENT]:
    parcel.tracking = await ctx.once("courier", book_courier, parcel.address)
    return Status.SENT


async def track(parcel: Parcel) -> Literal[Status.SENT, Status.DELIVERED]:
    parcel.looks += 1
    return Status.DELIVERED if parcel.looks == 3 else Status.SENT  # its own status: not yet


flow = Flow(
    Parcel,
    {
        Status.ORDERED: stage(send, retry=Retry(attempts=10)),
        Status.SENT: stage(track, every=Every(seconds=0.1)),
        Status.DELIVERED: END,
    },
)
app = Onward("sqlite:///parcels.db", flows=[flow])


async def main() -> None:
    async with app:
        await app.start(Parcel(id="parcel-1", address="12 Harbour Street"))
        await app.run(until_idle=True)
        print(await app.explain("parcel-1"))


if __name__ == "__main__":
    asyncio.run(main())
