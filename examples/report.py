"""Plain `def` handlers, for libraries that block: they run in threads. Each night's report has the date as its id, so that
it is made once, however often it is started.

python examples/report.py
"""

import asyncio
import csv
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from onward import END, Flow, Onward, Process, Retry, Unrecoverable, stage


class Status(StrEnum):
    DUE = auto()
    COLLECTED = auto()
    PUBLISHED = auto()
    NOTHING_TO_REPORT = auto()


FOLDER = Path()
# A name in that folder and never a path: whoever may start a process, or edit one, would else say what its handler opens.
FileName = Annotated[str, Field(pattern=r"^[\w-]+\.(csv|txt)$")]


class Report(Process[Status]):
    status: Status = Status.DUE
    source: FileName
    target: FileName
    total: int = 0


def collect(report: Report) -> Literal[Status.COLLECTED]:
    source = FOLDER / report.source
    if not source.exists():
        raise Unrecoverable(f"there is no {source}")  # trying again cannot help
    with source.open(newline="") as file:
        report.total = sum(int(row["amount"]) for row in csv.DictReader(file))
    return Status.COLLECTED


def publish(report: Report) -> Literal[Status.PUBLISHED]:
    # Written beside and then renamed: however often this stage is repeated, nobody ever sees half a report.
    target = FOLDER / report.target
    beside = target.with_suffix(".part")
    beside.write_text(f"total: {report.total}\n")
    beside.replace(target)
    return Status.PUBLISHED


flow = Flow(
    Report,
    {
        Status.DUE: stage(collect, timeout=timedelta(minutes=5), on_failure=Status.NOTHING_TO_REPORT),
        Status.COLLECTED: stage(publish, retry=Retry(attempts=20, longest=60)),
        (Status.PUBLISHED, Status.NOTHING_TO_REPORT): END,
    },
)
app = Onward("sqlite:///reports.db", flows=[flow])


async def main() -> None:
    Path("sales.csv").write_text("item,amount\npears,340\napples,120\n")
    async with app:
        for _ in range(2):  # the second start answers the existing process
            await app.start(Report(id="2026-11-23", source="sales.csv", target="report.txt"))
        await app.start(Report(id="2026-11-24", source="missing.csv", target="report-2.txt"))
        await app.run(until_idle=True)
        for record in await app.find(flow="report"):
            print(await app.explain(record.id))


if __name__ == "__main__":
    asyncio.run(main())
