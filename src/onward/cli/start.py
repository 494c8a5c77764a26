"""`onward start`: makes a process, and if asked waits for its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from onward.app import Onward
from onward.cli.command import Length, command
from onward.cli.data import build
from onward.cli.follow import NobodyWorks, end_line, exit_code, follow
from onward.cli.output import Output
from onward.cli.settings import Settings, pass_settings
from onward.cli.target import with_app
from onward.cli.watch import watch_one
from onward.errors import NotFound
from onward.flow import Flow
from onward.query import nearest
from onward.telling import shapes
from onward.telling.text import one_line


@command(
    "start",
    "onward start letter --set to=Ada",
    'onward start batch --id q3 --data \'{"question": "Total?"}\' --wait --timeout 10m',
    "onward start batch --data @input.json --watch",
)
@click.argument("flow")
@click.option("--data", metavar="JSON|@FILE|-", help="Its data: a JSON object, a file, or stdin.")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="One field: JSON if it parses, else text. May be repeated."
)
@click.option("--id", help="Its id. With an id that exists and the same input, nothing is started twice.")
@click.option("--wait", is_flag=True, help="Until it rests. Exit 1 unless it finished.")
@click.option("--watch", is_flag=True, help="Like --wait, telling each commit on stderr.")
@click.option("--timeout", type=Length(), metavar="DURATION", help="With --wait or --watch: exit 124 after that.")
@pass_settings
def start(
    settings: Settings,
    flow: str,
    data: str | None,
    sets: Sequence[str],
    id: str | None,
    wait: bool,
    watch: bool,
    timeout: float | None,
) -> int:
    """Start a process of FLOW; its id goes to stdout. A worker moves it on: onward run."""
    output = Output(settings)
    if timeout is not None and not (wait or watch):
        raise click.UsageError("--timeout is for --wait and --watch")

    async def work(app: Onward) -> int:
        process = build(flow_of(app, flow), data, sets, id)
        existed = id is not None and await app.store.get(process.id) is not None
        record = await app.start(process, actor=settings.who)
        output.note(
            f"{'exists already' if existed else 'started'}: {flow} {one_line(record.id)}, {record.condition} at {record.status}"
        )
        if not settings.is_json:
            output.line(one_line(record.id))
        code = 0
        try:
            if watch:
                code = await watch_one(app, output, record.id, timeout, to_stderr=True)
            elif wait:
                nobody = NobodyWorks(output)
                code = exit_code(end := await follow(app, record.id, lambda seen, entries: nobody.look(seen), timeout))
                output.note(end_line(end))
        finally:
            if settings.is_json:
                record = await app.get(record.id)
                output.document("process/1", {**shapes.process(record), "data": shapes.stored(record.data)})
        return code

    return with_app(settings, work, needs_flows="start", creates=True)


def flow_of(app: Onward, name: str) -> Flow[Any]:
    flow = app.flows.get(name)
    if flow is None:
        known = sorted(app.flows)
        raise NotFound(f"this app has no flow {name!r}{nearest(name, known)}", hint=f"its flows: {', '.join(known) or 'none'}")
    return flow
