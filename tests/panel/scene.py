"""A store as a panel meets it at night: three flows, and real runs of them that ended, wait, failed, or were left behind.

    async with scene.open_scene(folder) as app: ...

`filled` lets a day pass under a clock turned by hand; at its end the store stands as if it were `until`, by default now.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

from onward import END, Context, Every, Flow, Onward, Process, Retry, Unrecoverable, stage
from onward.process import Condition
from onward.testing import ManualClock

DAY = timedelta(hours=25)
LAST = timedelta(minutes=2)  # after people acted
WAVES = 50  # of starts, spread over the day


# -- a report: files go up, a model thinks, somebody looks at the answer ------------------------------------------------


class NotFoundError(Exception):
    pass


class RateLimitError(Exception):
    pass


class Stage(StrEnum):
    UPLOAD_FILES = auto()
    CREATE_RESPONSES = auto()
    POLL_RESPONSES = auto()
    WRITE_REPORT = auto()
    DELETE_FILES = auto()
    FINISHED = auto()


class Report(Process[Stage]):
    status: Stage = Stage.UPLOAD_FILES
    topic: str
    fate: str = ""  # what becomes of it: no_file, quota, busy, slow
    files: dict[str, str] = {}
    responses: dict[str, str] = {}
    answer: str = ""
    looks: int = 0


async def upload_files(report: Report, ctx: Context) -> Literal[Stage.CREATE_RESPONSES]:
    report.files = {name: f"file-{abs(hash(report.id + name)) % 10**10:010d}" for name in ("minutes.md", "figures.csv")}
    return Stage.CREATE_RESPONSES


async def create_responses(report: Report, ctx: Context) -> Literal[Stage.POLL_RESPONSES]:
    if report.fate == "no_file":
        raise Unrecoverable(f"NotFoundError: No such File object: {report.files['minutes.md']}")
    if report.fate == "quota":
        raise Unrecoverable("RateLimitError 429: You exceeded your current quota, please check your plan and billing details")
    if report.fate == "busy":
        raise RateLimitError(f"429, request req_{random.Random(report.id).randrange(10**8):08d}: the model is overloaded")
    report.responses = {name: f"resp_{abs(hash(name + report.id)) % 16**8:08x}" for name in report.files}
    return Stage.POLL_RESPONSES


async def poll_responses(report: Report) -> Literal[Stage.POLL_RESPONSES, Stage.WRITE_REPORT]:
    report.looks += 1
    return Stage.POLL_RESPONSES if report.fate == "slow" or report.looks < 4 else Stage.WRITE_REPORT


async def write_report(report: Report) -> Literal[Stage.DELETE_FILES]:
    report.answer = f"What there is to say about {report.topic}."
    return Stage.DELETE_FILES


async def delete_files(report: Report) -> Literal[Stage.FINISHED]:
    report.files = {}
    return Stage.FINISHED


reports = Flow(
    Report,
    {
        Stage.UPLOAD_FILES: stage(upload_files, retry=Retry(attempts=6)),
        Stage.CREATE_RESPONSES: stage(create_responses, retry=Retry(attempts=12, first=60, longest=3600)),
        Stage.POLL_RESPONSES: stage(
            poll_responses,
            every=Every(seconds=30, longest=1800),
            within=timedelta(hours=24),
            otherwise=Stage.DELETE_FILES,
        ),
        Stage.WRITE_REPORT: write_report,
        Stage.DELETE_FILES: delete_files,
        Stage.FINISHED: END,
    },
    on_cancel=Stage.DELETE_FILES,
)


# -- an order, which may come back --------------------------------------------------------------------------------------


class Order(StrEnum):
    PLACED = auto()
    PAID = auto()
    PACKED = auto()
    SHIPPED = auto()
    RETURNED = auto()
    DELIVERED = auto()
    REFUNDED = auto()


class Purchase(Process[Order]):
    status: Order = Order.PLACED
    item: str
    euros: int = 0
    fate: str = ""  # declined, slow, returned


async def pay(purchase: Purchase) -> Literal[Order.PAID]:
    if purchase.fate == "declined":
        raise Unrecoverable("CardError: your card was declined (insufficient_funds)")
    return Order.PAID


async def pack(purchase: Purchase) -> Literal[Order.PACKED]:
    return Order.PACKED


async def ship(purchase: Purchase) -> Literal[Order.SHIPPED]:
    return Order.SHIPPED


async def track(purchase: Purchase) -> Literal[Order.SHIPPED, Order.RETURNED, Order.DELIVERED]:
    if purchase.fate == "slow":
        return Order.SHIPPED
    return Order.RETURNED if purchase.fate == "returned" else Order.DELIVERED


async def refund(purchase: Purchase) -> Literal[Order.REFUNDED]:
    return Order.REFUNDED


purchases = Flow(
    Purchase,
    {
        Order.PLACED: stage(pay, retry=Retry(attempts=3)),
        Order.PAID: pack,
        Order.PACKED: ship,
        Order.SHIPPED: stage(track, every=Every(seconds=600, longest=3600)),
        Order.RETURNED: refund,
        Order.DELIVERED: END,
        Order.REFUNDED: END,
    },
    on_cancel=Order.RETURNED,
)


# -- a letter, the shortest of flows ------------------------------------------------------------------------------------


class Post(StrEnum):
    WRITTEN = auto()
    SENT = auto()


class Letter(Process[Post]):
    status: Post = Post.WRITTEN
    to: str = ""


async def send(letter: Letter) -> Literal[Post.SENT]:
    return Post.SENT


letters = Flow(Letter, {Post.WRITTEN: send, Post.SENT: END})


# -- what the code of yesterday knew and that of today does not ---------------------------------------------------------


class OldOrder(StrEnum):
    PLACED = auto()
    GIFT_WRAPPED = auto()
    DELIVERED = auto()


class Gift(Process[OldOrder]):
    status: OldOrder = OldOrder.PLACED
    item: str = ""


async def wrap(gift: Gift) -> Literal[OldOrder.GIFT_WRAPPED]:
    return OldOrder.GIFT_WRAPPED


async def unwrap(gift: Gift) -> Literal[OldOrder.GIFT_WRAPPED, OldOrder.DELIVERED]:
    return OldOrder.GIFT_WRAPPED


gifts = Flow(
    Gift,
    {
        OldOrder.PLACED: wrap,
        OldOrder.GIFT_WRAPPED: stage(unwrap, every=Every(seconds=3600)),
        OldOrder.DELIVERED: END,
    },
    name="purchase",
)


class Feed(Process[Post]):
    status: Post = Post.WRITTEN


async def fetch(feed: Feed) -> Literal[Post.WRITTEN, Post.SENT]:
    return Post.WRITTEN


feeds = Flow(Feed, {Post.WRITTEN: stage(fetch, every=Every(seconds=3600)), Post.SENT: END})

FLOWS = (reports, purchases, letters)
TOPICS = ("harbour", "orchard", "observatory", "Q3 figures", "night trains", "salt marsh")
ITEMS = ("lamp", "kettle", "atlas", "bicycle bell", "teapot")


def opened(path: Path, **options: Any) -> Onward:
    """The app of today on the store at `path`."""
    return Onward(f"sqlite:///{path}", flows=FLOWS, **options)


async def filled(folder: Path, *, until: datetime | None = None, reports: int = 220, purchases: int = 110) -> Path:
    """A store with about `reports + purchases + 40` processes, in all nine conditions; the path of its file."""
    path = folder / "scene.db"
    clock = ManualClock((until or datetime.now(UTC)) - DAY - LAST)
    chance = random.Random(4)
    coming = _births(chance, reports, purchases)
    with _quiet():  # attempts fail here by the dozen, and each one is logged with its traceback
        async with Onward(f"sqlite:///{path}", flows=[gifts, feeds], clock=clock) as old:
            await old.start_many([Gift(id=f"gift-{n:02d}", item="atlas") for n in range(3)], actor="ines")
            await old.start_many([Feed(id=f"feed-{n}") for n in ("alps", "coast")], actor="ines")
            await _work(old, clock, timedelta(0))
        async with opened(path, clock=clock) as app:
            for wave in range(WAVES):
                born = coming[wave * len(coming) // WAVES : (wave + 1) * len(coming) // WAVES]
                await app.start_many(born, actor="nightly import")
                await _work(app, clock, DAY / WAVES)
            await _people(app)
            await _now(app, clock)
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("onward")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _births(chance: random.Random, reports: int, purchases: int) -> list[Process[Any]]:
    fates = {"": 76, "no_file": 5, "quota": 2, "busy": 4, "slow": 9}
    born: list[Process[Any]] = []
    for n in range(reports):
        [fate] = chance.choices(list(fates), list(fates.values()))
        born.append(Report(id=f"report-{n:04d}", topic=chance.choice(TOPICS), fate=fate))
    for n in range(purchases):
        [fate] = chance.choices(["", "declined", "slow", "returned"], [80, 4, 8, 8])
        born.append(Purchase(id=f"order-{n:04d}", item=chance.choice(ITEMS), euros=chance.randrange(5, 200), fate=fate))
    born += [Letter(to=chance.choice(("ada", "grace", "ines"))) for _ in range(40)]
    chance.shuffle(born)
    return born


async def _work(app: Onward, clock: ManualClock, length: timedelta) -> None:
    """A worker drives all that becomes due within `length`; the clock stands still while anything is under way."""
    end = clock.now() + length
    known = [each for flow in app.flows.values() for each in flow.handled]
    while True:
        for record in await app.find(condition=Condition.READY, limit=1_000):
            await app.check(record.id)
        left = end - clock.now()
        due = await app.store.next_due(known)
        if due is None or due > left:
            clock.advance(max(left, timedelta(0)))
            return
        clock.advance(max(due, min(timedelta(minutes=5), left)))


async def _people(app: Onward) -> None:
    """What the operators did: paused, cancelled, tried again in vain."""
    slow = [record.id for record in await app.find(flow="report", condition="waiting", limit=1_000)]
    for id in slow[:3]:
        await app.pause(id, actor="ines", reason="the customer asked us to wait")
    for id in slow[3:6]:
        await app.cancel(id, actor="ines", reason="ordered twice")
    for id in slow[6:8]:
        await app.stop(id, actor="grace", reason="test run")
    failed = [record.id for record in await app.find(flow="purchase", condition="failed", limit=1_000)]
    for id in failed[:1]:
        await app.retry(id, actor="grace", reason="they have another card")
    for id in slow[3:6]:
        await app.check(id)


async def _now(app: Onward, clock: ManualClock) -> None:
    """The last seconds: two workers are in the middle of something, and a few processes have just come in."""
    await _work(app, clock, LAST)
    fresh = [Report(id=f"report-{n}", topic=topic) for n, topic in enumerate(TOPICS, 9000)]
    await app.start_many(fresh, actor="api")
    known = [each for flow in app.flows.values() for each in flow.handled]
    for owner, ids in (("worker-7f2c90aa31d0", ["report-9000", "report-9001"]), ("worker-b81d04e6c277", ["report-9002"])):
        await app.store.claim(known, owner, 10, timedelta(hours=2), ids)


def main() -> Iterator[str]:
    """`python tests/panel/scene.py FOLDER` makes one to look at, with an app beside it."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    yield str(asyncio.run(filled(folder)))
    here = str(Path(__file__).parent)
    lines = ("import sys", f"sys.path.insert(0, {here!r})", "from scene import Path, opened")
    (folder / "scene_app.py").write_text("\n".join([*lines, f"app = opened(Path({str(folder / 'scene.db')!r}))", ""]))
    (folder / "pyproject.toml").write_text('[tool.onward]\napp = "scene_app:app"\n')


@asynccontextmanager
async def open_scene(folder: Path, **options: Any) -> AsyncIterator[Onward]:
    """`filled` and `opened` in one."""
    async with opened(await filled(folder), **options) as app:
        yield app


if __name__ == "__main__":
    for line in main():
        print(line)
