"""`onward run`: the worker."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta

import click

from onward.app import Onward
from onward.cli import leaving
from onward.cli.command import Length, command
from onward.cli.failing import NoApp
from onward.cli.output import Output
from onward.cli.panel import PORT, PORTS, beside
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.ports import Event
from onward.store.urls import shown
from onward.telling.story import took
from onward.telling.text import one_line
from onward.worker import CONCURRENCY, GRACE, LEASE, LEASE_MIN

LEASES = Length(LEASE_MIN.total_seconds())


def _short(duration: timedelta) -> str:
    return f"{duration.total_seconds():g}s"


@command("run", "onward run", "onward run --panel", "onward run --until-idle -v", "onward run -c 20 --lease 1m --grace 10s")
@click.option("--until-idle", is_flag=True, help="End when nothing is due and nothing ever will be.")
@click.option("-c", "--concurrency", type=click.IntRange(1), default=CONCURRENCY, show_default=True, help="Processes at once.")
@click.option("--lease", type=LEASES, default=_short(LEASE), show_default=True, help="A dead worker keeps its processes so long.")
@click.option(
    "--grace", type=Length(), default=_short(GRACE), show_default=True, help="What runs may go on so long after SIGTERM."
)
@click.option("--panel", type=PORTS, is_flag=False, flag_value=PORT, metavar="PORT", help="The panel too, at 8321 or PORT.")
@pass_settings
def run(settings: Settings, until_idle: bool, concurrency: int, lease: float, grace: float, panel: int | None) -> None:
    """Be a worker: claim what is due and drive it. Start as many as you like, on one store.

    SIGTERM or Ctrl-C ends it when what runs is done (exit 0); a second one at once. With -v, a line for each commit.
    """
    output = Output(settings)
    level = logging.INFO if settings.verbose else logging.ERROR if settings.quiet else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def tell(event: Event) -> None:
        if settings.verbose or (event.kind == "failed" and not settings.quiet):
            output.line(_line(event), to_stderr=True)

    async def work(app: Onward) -> None:
        if not app.flows:
            raise NoApp("this app has no flows: there is nothing to run", hint="Onward(url, flows=[...])")
        output.note(f"worker for {', '.join(app.flows)} at {shown(app.url)}; Ctrl-C ends it when what runs is done")
        async with beside(app, panel, settings):
            await app.run(until_idle=until_idle, concurrency=concurrency, lease=lease, grace=grace)
        leaving.soon()
        counts: dict[str, int] = {}
        for count in await app.counts():
            counts[str(count.condition)] = counts.get(str(count.condition), 0) + count.number
        output.note(
            "worker ended; " + (", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "no processes")
        )

    with_app(settings, work, needs_flows="run", creates=True, observers=[tell])


def _line(event: Event) -> str:
    record = event.record
    status = one_line(record.status)
    where = status if event.from_status == record.status else f"{one_line(event.from_status)} → {status}"
    parts = [
        record.updated_at.strftime("%H:%M:%S"),
        one_line(record.id),
        event.kind,
        where,
        took(event.took),
        one_line(event.reason or "", 300),
    ]
    return "  ".join(part for part in parts if part)
