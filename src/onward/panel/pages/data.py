"""The data of a process to take along: all of it, masked, as a file."""

from __future__ import annotations

import re

from starlette.responses import Response

from onward.errors import NotFound
from onward.panel.page import Route, Visit
from onward.panel.pages.process import asked_version
from onward.panel.shown.contents import contents
from onward.telling.text import to_json

NAME_CHARS_MAX = 80


async def download(visit: Visit) -> Response:
    """GET /data.json"""
    record = await visit.process(visit.query.get("id", ""))
    version = asked_version(visit, "version", record)
    text = record.data if version in (None, record.version) else await visit.app.text_at(record, version)
    if text is None:
        raise NotFound(f"version {version} of it is no longer in its history, which was pruned", hint="take the present one")
    name = _name(record.id, record.version if version is None else version)
    return Response(
        to_json(contents(text).shown).encode("utf-8", "replace"),
        media_type="application/json",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _name(id: str, version: int) -> str:
    """Of letters that mean nothing to any file system."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", id)[:NAME_CHARS_MAX].strip("-") or "process"
    return f"{plain}-v{version}.json"


ROUTES = (Route("GET", "/data.json", download),)
