"""The control panel: an ASGI app that shows what a store holds and does what people ask of it. It keeps no state of its own."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

from onward.app import Onward
from onward.errors import Forbidden, OnwardError
from onward.panel.acts import act
from onward.panel.entry import files
from onward.panel.entry.door import Door
from onward.panel.entry.enter import Entrance, Keys
from onward.panel.entry.live import Live
from onward.panel.page import Authorize, Page, Route, Visit, json_answer
from onward.panel.pages import attention, audit, bulk, confirm, data, edit, flow, fork, home, move, process, start, workers

# Every page there is, each in a file of its own.
PAGES: tuple[Page, ...] = (
    home.PAGE,
    flow.PAGE,
    process.PAGE,
    attention.PAGE,
    workers.PAGE,
    audit.PAGE,
    edit.PAGE,
    move.PAGE,
    fork.PAGE,
    confirm.PAGE,
    start.PAGE,
    bulk.PAGE,
)
# What people do: one POST each.
ACTS: tuple[Route, ...] = (*act.ROUTES, *bulk.ROUTES, *data.ROUTES)


def panel(app: Onward, *, authorize: Authorize | None = None, hosts: Iterable[str] = ()) -> Door:
    """The panel of `app`, to be mounted in an ASGI app of yours; see `Onward.panel`."""
    if authorize is None:
        raise OnwardError(
            "the panel is closed until somebody says who may come in",
            hint="app.panel(authorize=f), with f(request, action, record) -> onward.Actor(name, role), or None",
        )
    live = Live(app.store.wait_for_change)
    return Door(app, routes(live), authorize, live=live, hosts=hosts, closed=_not_for_you)


def standalone(app: Onward, keys: Keys, hosts: Iterable[str] = ()) -> Door:
    """The panel of `app` with a login of its own, for `onward panel`."""
    live = Live(app.store.wait_for_change)
    entrance = Entrance(keys, app.clock, left=live.recheck)
    ways = [*routes(live), *entrance.routes()]
    return Door(app, ways, entrance.authorize, live=live, hosts=hosts, closed=entrance.closed)


def routes(live: Live) -> list[Route]:
    """All of the panel but where people come in."""
    pages = [route for page in PAGES for route in page.routes()]
    return [*pages, *ACTS, Route("GET", "/live", live.answer), Route("GET", "/health", _health, open=True), *files.routes()]


async def _health(visit: Visit) -> Response:
    """GET /health: whether the server and its store answer, and nothing else."""
    await visit.app.store.get("")
    return json_answer({"status": "ok"})


def _not_for_you(visit: Visit) -> Exception:
    return Forbidden("you may not look at this panel", hint="ask whoever looks after it")


__all__ = ["panel", "standalone"]
