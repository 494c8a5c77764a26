"""The style sheet, the script and the icon: read once, found by their names in a table. No path is ever made of a request."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.responses import Response

from onward.panel.page import Route, Visit

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def routes() -> tuple[Route, ...]:
    folder = files("onward.panel").joinpath("static")
    found = ((file.name, TYPES.get(file.name[file.name.rfind(".") :])) for file in folder.iterdir())
    return tuple(_route(name, folder.joinpath(name).read_bytes(), kind) for name, kind in sorted(found) if kind)


def _route(name: str, content: bytes, kind: str) -> Route:
    tag = f'"{hashlib.sha256(content).hexdigest()[:24]}"'

    async def answer(visit: Visit) -> Response:
        headers = {"etag": tag, "cache-control": "no-cache"}  # asked for each time, and sent only if it is another one
        if visit.request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return Route("GET", f"/static/{name}", answer, open=True)
