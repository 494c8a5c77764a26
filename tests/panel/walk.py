"""Every way into a panel, as its own router has them: a new page is walked without anybody listing it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from onward.panel.entry.door import METHODS, Door
from onward.panel.page import Route

STRANGE = ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "QUERY")
ABOUT_ONE = {"id": "{id}", "version": "0", "from": "0", "name": "{flow}", "flow": "{flow}", "q": "is:failed"}

OURS = (
    "self",
    "path",
    "root",
    "visit",
    "query",
    "template",
    "facts",
    "actor",
    "at",
    "here",
    "done",
    "name_",
)  # names of our code


def paths(door: Door) -> list[str]:
    return sorted({route.path for route in door.routes})


def ways(door: Door) -> Iterator[tuple[str, str]]:
    """Each path with each method there is, served or not."""
    for path in paths(door):
        for method in (*METHODS, *STRANGE):
            yield method, path


def route_of(door: Door, method: str, path: str) -> Route | None:
    asked = "GET" if method == "HEAD" else method
    return next((route for route in door.routes if (route.method, route.path) == (asked, path)), None)


def pages(door: Door, id: str = "a", flow: str = "letter") -> Iterator[str]:
    """Whatever can be looked at: bare, and asked about a process and a flow. Streams are left out."""
    for route in door.routes:
        if route.method != "GET" or route.path == "/live":
            continue
        yield route.path
        yield f"{route.path}?{'&'.join(f'{name}=x' for name in OURS)}"
        for names in (("id",), ("id", "version"), ("id", "version", "from"), ("name",), ("name", "q"), ("flow",)):
            values = (ABOUT_ONE[name].format(id=id, flow=flow) for name in names)
            yield f"{route.path}?{'&'.join(f'{name}={quote(value)}' for name, value in zip(names, values, strict=True))}"


def digest(path: Path) -> str:
    """Of all that a store's file says, row by row."""
    with closing(sqlite3.connect(path)) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()
