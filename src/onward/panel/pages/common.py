"""What stands around every page: how many processes need a person, whether anything moves at all, and where one is."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from onward.errors import StoreError
from onward.explain import LATE, length
from onward.panel.shown.counting import WAIT_AGAIN_S, Answer, numbers
from onward.ports import Count
from onward.process import Condition, Record
from onward.store.urls import shown
from onward.telling import shapes
from onward.telling.attention import late, nobody_works, now
from onward.telling.now import what_next
from onward.telling.shapes import instant
from onward.telling.text import one_line

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
    waited = await late(app)
    if waited is None or waited <= LATE:  # next to always: then nothing else is asked
        return None
    as_of = await now(app)
    nobody = as_of is not None and nobody_works(waited, await app.store.leases(), as_of)
    return length(waited) if nobody else None


def counted(*answers: Answer[Any]) -> dict[str, Any]:
    """How old the numbers of a page are, and when there can be newer ones; the script asks again then."""
    ages = [answer.age_s for answer in answers if answer.age_s is not None]
    return {
        "age_s": round(max(ages), 3) if len(ages) == len(answers) else None,
        "again_s": round(max(answer.again_s for answer in answers), 3),
    }


def described(record: Record) -> dict[str, Any]:
    """A process for any page and any list: its shape, what comes next, and how old it is."""
    age_s = (record.as_of - record.created_at).total_seconds()
    return {**shapes.process(record), "next": what_next(record), "age_s": age_s, "as_of": shapes.instant(record.as_of)}


def quoted(text: str) -> str:
    """For a shell; on one line, whatever it is."""
    return shlex.quote(one_line(text))
