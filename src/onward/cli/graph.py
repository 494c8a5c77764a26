"""`onward graph`: a flow as a picture."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from onward import graph as drawing
from onward.app import Onward
from onward.cli.bounds import tell_bounds
from onward.cli.command import command
from onward.cli.output import Output
from onward.cli.settings import Settings, is_terminal, pass_settings
from onward.cli.start import flow_of
from onward.cli.target import find_app
from onward.flow import Flow
from onward.graph.text import WIDTH
from onward.telling.text import to_json


@command(
    "graph",
    "onward graph",
    "onward graph letter -f mermaid",
    "onward graph letter -f svg --down --output letter.svg",
    "onward graph letter --bounds",
)
@click.argument("flow", required=False)
@click.option("-f", "--format", "kind", type=click.Choice(["text", "mermaid", "svg", "json"]), help="text, unless --json.")
@click.option("--down", is_flag=True, help="The SVG from top to bottom, for narrow pages.")
@click.option("--output", "path", type=click.Path(dir_okay=False, path_type=Path), help="A file, instead of stdout.")
@click.option("--bounds", "only_bounds", is_flag=True, help="No picture: how long each stage and each way can take at most.")
@pass_settings
def graph(settings: Settings, flow: str | None, kind: str | None, down: bool, path: Path | None, only_bounds: bool) -> None:
    """Draw FLOW, or all flows. The SVG needs nothing beside it, and fits light and dark pages."""
    app = find_app(settings, needs_flows="graph")
    kind = kind or ("json" if settings.is_json else "text")
    flows = list(app.flows.values()) if flow is None else [flow_of(app, flow)]
    if only_bounds:
        if down or path is not None or kind not in ("text", "json"):
            raise click.UsageError("--bounds is no picture: beside it there is only --json")
        settings.shape = "json" if kind == "json" else settings.shape
        tell_bounds(Output(settings), flows)
        return
    if kind == "svg" and len(flows) != 1:
        raise click.UsageError(f"an SVG shows one flow: which? {', '.join(app.flows) or 'the app has none'}")
    text = _drawn(app, flows, kind, down, single=flow is not None)
    if path is None:
        click.echo(text, nl=False)
        return
    path.write_text(text, encoding="utf-8")
    Output(settings).note(f"wrote {path}")


def _drawn(app: Onward, flows: list[Flow[Any]], kind: str, down: bool, *, single: bool) -> str:
    match kind:
        case "svg":
            return drawing.svg(flows[0], down=down)
        case "mermaid":
            return "\n".join(map(drawing.mermaid, flows))
        case "json":
            described = [{"schema": "onward.flow/1", **drawing.as_dict(flow)} for flow in flows]
            return to_json(described[0] if single else {"schema": "onward.flows/1", "flows": described}) + "\n"
        case _:
            width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else WIDTH
            pictures = [drawing.text(flow, width) for flow in flows]
            if single or len(flows) == 1:
                return pictures[0]
            return "\n".join(f"{flow.name}\n\n{picture}" for flow, picture in zip(flows, pictures, strict=True))
