"""A service that keeps its orders with SQLAlchemy, and starts the process of an order in the transaction that writes the order.

Either both are there or neither: there is no second write that a crash could forget. The last stage does it the other way
round: what it writes into the service's table is committed together with the end of the process.

export DATABASE_URL=postgresql://localhost/shop
onward db upgrade --store $DATABASE_URL
python examples/sqlalchemy_orders.py
"""

import asyncio
import os
from enum import StrEnum, auto
from typing import Literal

from sqlalchemy import make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from onward import END, Context, Flow, Onward, Process

# -- the service's own data ------------------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "shop_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    sent: Mapped[bool] = mapped_column(default=False)


# -- what becomes of an order ----------------------------------------------------------------------------------


class Status(StrEnum):
    PLACED = auto()
    PACKED = auto()
    SENT = auto()


class Delivery(Process[Status]):
    status: Status = Status.PLACED
    order: int


async def pack(delivery: Delivery) -> Literal[Status.PACKED]:
    return Status.PACKED


async def send(delivery: Delivery, ctx: Context) -> Literal[Status.SENT]:
    async with ctx.transaction() as connection:  # asyncpg's own
        await connection.execute("UPDATE shop_order SET sent = true WHERE id = $1", delivery.order)
    return Status.SENT


flow = Flow(Delivery, {Status.PLACED: pack, Status.PACKED: send, Status.SENT: END})


# -- the service -----------------------------------------------------------------------------------------------

URL = os.environ["DATABASE_URL"]
app = Onward(URL, flows=[flow])
engine = create_async_engine(make_url(URL).set(drivername="postgresql+asyncpg"))
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def place(session: AsyncSession, item: str) -> Order:
    """In the transaction of the session, whoever began it: what comes of that comes of the order and of its process."""
    order = Order(item=item)
    session.add(order)
    await session.flush()  # it has its number now, and SQLAlchemy has begun the transaction
    connection = await (await session.connection()).get_raw_connection()
    await app.start(Delivery(id=f"order-{order.id}", order=order.id), connection=connection.driver_connection)
    return order


async def main() -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    async with sessions.begin() as session:
        kept = await place(session, "a barometer")
    try:
        async with sessions.begin() as session:
            lost = await place(session, "a lighthouse")
            raise LookupError(f"we have no {lost.item[2:]}")
    except LookupError as error:
        print(f"no order and no process: {error}")

    async with app:
        await app.run(until_idle=True)
        print(await app.explain(f"order-{kept.id}"))
    async with sessions() as session:
        for order in await session.scalars(select(Order).where(Order.id >= kept.id)):
            print(f"{order.item}: {'sent' if order.sent else 'not sent'}")
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
