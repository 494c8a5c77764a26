"""A rented machine that is given back whatever happens: when the work is done, when it fails, and when a person cancels it.

python examples/cancel.py
"""

import asyncio
from enum import StrEnum, auto
from typing import Literal

from onward import END, Every, Flow, Onward, Process, Retry, stage

RENTED: set[str] = set()  # stands for the cloud


class Status(StrEnum):
    WANTED = auto()
    RENTED = auto()
    DONE = auto()
    GIVEN_BACK = auto()


class Job(Process[Status]):
    status: Status = Status.WANTED


def machine_of(job: Job) -> str:
    return f"machine-of-{job.id}"


async def rent(job: Job) -> Literal[Status.RENTED]:
    # The same name in every attempt: renting it again changes nothing. And one that the clean-up knows without being told: a
    # job cancelled at this moment has a machine, and nothing of it in its row.
    RENTED.add(machine_of(job))
    return Status.RENTED


async def work(job: Job) -> Literal[Status.RENTED, Status.DONE]:
    return Status.RENTED  # never done: somebody will have to cancel it


async def give_back(job: Job) -> Literal[Status.GIVEN_BACK]:
    RENTED.discard(machine_of(job))  # what is gone already is gone: that is done too
    return Status.GIVEN_BACK


flow = Flow(
    Job,
    {
        Status.WANTED: rent,
        Status.RENTED: stage(
            work, every=Every(seconds=0.1, longest=600), within=3600, otherwise=Status.DONE, on_failure=Status.DONE
        ),
        Status.DONE: stage(give_back, retry=Retry(attempts=100)),
        Status.GIVEN_BACK: END,
    },
    on_cancel=Status.DONE,
)
app = Onward("sqlite:///:memory:", flows=[flow])


async def main() -> None:
    async with app:
        job = await app.start(Job(id="job-1"))
        worker = asyncio.create_task(app.run(until_idle=True))
        await asyncio.sleep(0.5)
        print(f"rented: {len(RENTED)}. {await app.explain(job.id)}")
        await app.cancel(job.id, reason="the customer changed her mind")
        await worker
        print(f"rented: {len(RENTED)}. {await app.explain(job.id)}")


if __name__ == "__main__":
    asyncio.run(main())
