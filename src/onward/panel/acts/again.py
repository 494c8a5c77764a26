"""A page as the answer of a POST, where one has to be asked once more. It has no address of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from onward.panel.page import Visit, render
from onward.panel.pages.common import frame


async def again(visit: Visit, name: str, facts: Mapping[str, Any], status: int = 422) -> Response:
    """The links that lead from a page to itself lead to the process, or to the form for a new one."""
    process = facts.get("process")
    path, query = ("/process", {"id": process["id"]}) if process else ("/start", {"flow": facts["flow"]})
    links = {"refresh_url": visit.at(path, **query), "refresh_s": None, "json_url": visit.at(f"{path}.json", **query)}
    return render(visit, f"{name}.html", {**facts, "_frame": {**await frame(visit, name), **links}}, status)
