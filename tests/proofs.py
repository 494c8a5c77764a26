"""What `make prove` proves: the main job and every example, each disturbed at every point.

PYTHONPATH=tests python -m proofs            all of them
PYTHONPATH=tests python -m proofs orders     one
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from postgres import shared
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from onward.demo.flow import Batch, Document, check_status
from onward.demo.outside import standin
from onward.testing import Outside, Proof, prove

EXAMPLES = Path(__file__).parent.parent / "examples"
DOCUMENTS = [
    Document(name="pier.md", text="The pier was old. It was decided to replace the pier in October. Nobody objected."),
    Document(name="star.txt", text="The star was faint. The star will be observed every night. The dome motor failed."),
]


def example(name: str) -> Any:
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return importlib.import_module(name)


def main_job(documents: int = len(DOCUMENTS)) -> Proof:
    """The service takes no idempotency key for a response and lists none: one made in the moment of a crash stays there."""
    batch = Batch(id="batch-1", question="What was decided about the pier and the star?", documents=DOCUMENTS[:documents])
    return prove(check_status, batch, outside=standin, repeatable=["POST /v1/responses"])


def parcel() -> Proof:
    module = example("parcel")
    # Its courier stands for one that knows whom it has been called by.
    return prove(module.flow, module.Parcel(id="parcel-1", address="12 Harbour Street"), repeatable=["courier"])


def report() -> Proof:
    @contextmanager
    def sales() -> Iterator[Outside]:
        Path("sales.csv").write_text("item,amount\npears,340\napples,120\n")
        yield Outside()

    module = example("report")
    return prove(module.flow, module.Report(id="2026-11-23", source="sales.csv", target="report.txt"), outside=sales)


class Cloud(set[str]):
    """No plain set, which a killed program would forget."""


def cancel() -> Proof:
    module = example("cancel")

    @contextmanager
    def cloud() -> Iterator[Outside]:
        before, module.RENTED = module.RENTED, Cloud()
        yield Outside(alive=lambda: module.RENTED)
        module.RENTED = before

    return prove(module.flow, module.Job(id="job-1"), outside=cloud)


def orders() -> Proof:
    def tables(conn: Any) -> None:
        conn.execute("CREATE TABLE stock (item TEXT PRIMARY KEY, number INTEGER NOT NULL CHECK (number >= 0))")
        conn.execute("CREATE TABLE shop_order (id TEXT PRIMARY KEY, item TEXT NOT NULL, reserved INTEGER NOT NULL DEFAULT false)")
        conn.execute("INSERT INTO stock VALUES ('a barometer', 2)")
        conn.execute("INSERT INTO shop_order (id, item) VALUES ('order-1', 'a barometer')")

    @contextmanager
    def shop() -> Iterator[Outside]:
        yield Outside(prepare=tables)

    module = example("orders")
    return prove(module.flow, module.Order(id="order-1", item="a barometer"), outside=shop)


def sqlalchemy_orders() -> Proof:
    with shared() as server:
        return orders_on(server.url)


def orders_on(url: str) -> Proof:
    os.environ["DATABASE_URL"] = url  # the example asks for it when it is imported, and no more
    module = example("sqlalchemy_orders")

    async def tables(connection: Any) -> None:
        for table in module.Base.metadata.sorted_tables:
            await connection.execute(str(CreateTable(table).compile(dialect=postgresql.dialect())))
        await connection.execute("INSERT INTO shop_order (item, sent) VALUES ('a barometer', false)")

    @contextmanager
    def shop() -> Iterator[Outside]:
        yield Outside(postgres=url, prepare=tables)

    return prove(module.flow, module.Delivery(id="order-1", order=1), outside=shop)


def careless(name: str, *, mended: bool) -> Proof:
    module = example("careless")
    [flow] = [flow for flow in (module.MENDED if mended else module.CARELESS) if flow.name == name]
    return prove(flow, flow.model(id="job-1"), outside=module.outside)


CLEAN: dict[str, Callable[[], Proof]] = {
    "main job": main_job,
    "parcel": parcel,
    "report": report,
    "cancel": cancel,
    "orders": orders,
    "sqlalchemy_orders": sqlalchemy_orders,
    **{f"careless, mended: {flow.name}": partial(careless, flow.name, mended=True) for flow in example("careless").MENDED},
}


def main(names: list[str]) -> int:
    """Prints a line for each, and all that was found."""
    wanted = {name: make for name, make in CLEAN.items() if not names or name in names}
    bad = 0
    for name, make in wanted.items():
        began = time.perf_counter()
        proof = make()
        bad += not proof.is_clean
        print(f"{name} ({time.perf_counter() - began:.1f} s): {proof}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
