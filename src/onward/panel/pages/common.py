"""What stands around every page: how many processes need a person, whether anything moves at all, and where one is."""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from onward.errors import StoreError
from onward.explain import LATE, length
from onward.panel.counting import WAIT_AGAIN_S, Answer, numbers
from onward.ports import Count
from onward.process import Condition
from onward.store.urls import shown
from onward.telling.shapes import instant

if TYPE_CHECKING:
    from onward.app import Onward
    from onward.panel.page import Visit

NEED_A_PERSON = frozenset({Condition.FAILED, Condition.ORPHANED})
REFRESH_S = 5  # of a browser without scripts, where somebody asks for it
NOTICE_CHARS_MAX = 300


async def frame(visit: Visit, page: str) -> dict[str, Any]:
    """The facts of base.html. A store in trouble takes nothing from it: the page itself says so."""
    attention = standstill = None
    try:
        counted = (await numbers(visit.app).counts.ask(wait=WAIT_AGAIN_S)).value
        attention = None if counted is None else needs_a_person(counted)
        standstill = await nothing_moves(visit.app)
    except StoreError:
        pass  # an error page must not fail for what stands around it
    refresh = visit.query.get("refresh") == str(REFRESH_S)
    asked = {name: value for name, value in visit.query.items() if name not in ("done", "refresh")}
    return {
        "page": page,
        "now": instant(visit.app.clock.now()),
        "attention": attention,
        "standstill": standstill,
        "store": shown(visit.app.url),
        "version": version("onward"),
        "flows": len(visit.app.flows),
        "notice": visit.query.get("done", "")[:NOTICE_CHARS_MAX],
        "refresh_s": REFRESH_S if refresh else None,
        "refresh_url": visit.at(_path(visit), **{**asked, "refresh": "" if refresh else REFRESH_S}),
        "json_url": visit.at(f"/{page}.json", **asked),
        # What a POST answered cannot be asked for again.
        "live_url": visit.at("/live", page=page, id=visit.query.get("id")) if visit.request.method == "GET" else "",
    }


def _path(visit: Visit) -> str:
    return visit.request.url.path.removeprefix(visit.root) or "/"


def needs_a_person(counts: list[Count]) -> int:
    return sum(count.number for count in counts if count.condition in NEED_A_PERSON)


async def nothing_moves(app: Onward) -> str | None:
    """For how long something has been due that nobody takes, while nobody works on anything else either."""
    if not app.flows:
        return None
    known = [(flow.name, status) for flow in app.flows.values() for status in flow.statuses if not flow.is_end(status)]
    due = await app.store.next_due(known)
    if due is None or due >= -LATE or await app.find(condition=Condition.RUNNING, limit=1, light=True):
        return None
    return length(max(-due, timedelta()))


def counted(*answers: Answer[Any]) -> dict[str, Any]:
    """How old the numbers of a page are, and when there can be newer ones; the script asks again then."""
    ages = [answer.age_s for answer in answers if answer.age_s is not None]
    return {
        "age_s": round(max(ages), 3) if len(ages) == len(answers) else None,
        "again_s": round(max(answer.again_s for answer in answers), 3),
    }
