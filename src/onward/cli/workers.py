"""`onward workers`: who holds processes right now, and whose lease is over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from onward.app import Onward
from onward.cli.command import command
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.explain import length
from onward.telling.text import one_line
from onward.telling.workers import Worker, shape
from onward.telling.workers import workers as by_worker

HEAD = ("WORKER", "HOLDS", "FLOW", "STATUS", "LONGEST", "LEASE")


@command("workers", "onward workers", "onward workers --json")
@pass_settings
def workers(settings: Settings) -> None:
    """Tell who holds processes right now: how many of what, for how long at the most, and until when.

    A worker that has nothing to do holds nothing, so it is not listed. A lease that is over belongs to a worker that died, or
    that cannot reach the store; the next free one takes over.
    """
    output = Output(settings)

    async def work(app: Onward) -> None:
        _print(output, by_worker(await app.store.leases()))

    with_app(settings, work)


def _print(output: Output, found: Sequence[Worker]) -> None:
    shapes = [shape(worker) for worker in found]
    match output.settings.shape:
        case "json":
            output.document("workers/1", {"workers": shapes})
        case "jsonl":
            output.stream("worker/1", shapes)
        case _ if found:
            output.table(HEAD, [row for worker in found for row in _rows(worker)])
        case _:
            output.note("no worker holds anything; one that has nothing to do is not listed. To start one: onward run")


def _rows(worker: Worker) -> Iterator[tuple[str, ...]]:
    left = worker.until - worker.as_of
    text = f"{length(left)} left" if worker.is_alive else click.style(f"over for {length(-left)}", fg="red")
    for number, lease in enumerate(worker.leases):
        longest = length(lease.as_of - lease.oldest)
        first = (one_line(worker.name), text) if number == 0 else ("", "")
        yield first[0], f"{lease.number:>5,}", one_line(lease.flow), one_line(lease.status), longest, first[1]
