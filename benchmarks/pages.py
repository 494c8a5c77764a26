"""How long a page of the panel takes beside a million processes: each is asked for as a browser would, without the network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from figures import Figures, Row, verdict
from ladder import LADDER, app

from onward.actor import Actor

ROWS = 1_000_000
LONG = 20_000  # entries of the one process with a long history
TIMES = 7  # that each page is asked for; the first one counts as well
PAGE_MAX_MS = 300.0

# Of a hundred processes, in the order of their births: most are over, some wait, a few failed for one of three reasons.
CONDITION = """CASE WHEN n % 100 < 78 THEN 'finished' WHEN n % 100 < 80 THEN 'cancelled' WHEN n % 100 < 94 THEN 'waiting'
  WHEN n % 100 < 96 THEN 'ready' WHEN n % 100 < 97 THEN 'retrying' WHEN n % 100 < 99 THEN 'failed' ELSE 'paused' END"""
STATUS = """CASE WHEN n % 100 < 80 THEN 'done' WHEN n % 100 < 94 THEN 'c' WHEN n % 100 < 97 THEN 'd' WHEN n % 200 < 198 THEN 'e'
  ELSE 'f' END"""
ERROR = """CASE WHEN n % 100 BETWEEN 96 AND 98 THEN CASE n % 3 WHEN 0 THEN 'NotFoundError: no such file: file-' || n
  WHEN 1 THEN 'RateLimitError 429: request req_' || n || ' was refused' ELSE 'ValueError: not today' END END"""

ID = f"p{ROWS // 2:09d}"  # a finished one in the middle
PAGES: dict[str, tuple[str, dict[str, str]]] = {
    "home": ("/", {}),
    "flow": ("/flow", {"name": LADDER.name}),
    "flow, page 2": ("/flow", {"name": LADDER.name, "before": f"p{ROWS - 51:09d}"}),
    "flow, is:failed": ("/flow", {"name": LADDER.name, "q": "is:failed"}),
    "flow, one reason": ("/flow", {"name": LADDER.name, "q": 'is:failed error:"NotFoundError: no such file: *"'}),
    "flow, a status": ("/flow", {"name": LADDER.name, "q": "status:f"}),
    "flow, nothing matches": ("/flow", {"name": LADDER.name, "q": "data.question:nobody"}),
    "flow, a rare id": ("/flow", {"name": LADDER.name, "q": "id:p00000001*"}),
    "flow, older than": ("/flow", {"name": LADDER.name, "q": "age:>1s -is:over"}),
    "process": ("/process", {"id": ID}),
    "process, 20,000 entries": ("/process", {"id": "long"}),
    "attention": ("/attention", {}),
    "workers": ("/workers", {}),
    "audit": ("/audit", {}),
    "start": ("/start", {"flow": LADDER.name}),
    "bulk": ("/bulk", {}),
}


async def pages(url: str, fill: Callable[[], Awaitable[None]]) -> Figures:
    """The median and the slowest of each page, in milliseconds."""
    async with app(url):
        pass  # makes the tables
    await fill()
    figures: Figures = {}
    async with app(url) as it:
        panel = it.panel(authorize=lambda request, action, record: Actor("bench"))
        for name, (path, query) in PAGES.items():
            times = [await _ask(panel, path, query) for _ in range(TIMES)]
            figures |= {f"p50_ms {name}": statistics.median(times), f"max_ms {name}": max(times)}
    return figures


async def _ask(panel: Any, path: str, query: dict[str, str]) -> float:
    """How long until the whole page is there."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "path": path, "raw_path": path.encode(),
        "query_string": urlencode(query).encode(), "root_path": "", "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    began = time.perf_counter()
    await panel(scope, receive, send)
    took = 1e3 * (time.perf_counter() - began)
    assert statuses == [200], (path, query, statuses)
    return took


def rows(found: Figures) -> list[Row]:
    told = []
    for name in PAGES:
        typical, worst = found[f"p50_ms {name}"], found[f"max_ms {name}"]
        told.append((f"page beside 1,000,000 processes: {name}", f"{typical:.0f} ms, at most {worst:.0f}",
                     verdict("300 ms", worst <= PAGE_MAX_MS)))  # fmt: skip
    return told
