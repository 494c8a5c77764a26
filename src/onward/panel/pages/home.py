"""All flows, a row each: how many processes are in which condition, and how many were started when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from onward.app import Onward
from onward.flow import Flow
from onward.panel.page import Page, Visit
from onward.panel.pages.common import counted, needs_a_person
from onward.panel.shown.counting import Start, Starts, numbers
from onward.ports import Count
from onward.process import Condition

GROUPS = {
    "Need a person": (Condition.FAILED, Condition.ORPHANED, Condition.PAUSED),
    "Under way": (Condition.RUNNING, Condition.READY, Condition.RETRYING, Condition.WAITING),
    "Over": (Condition.FINISHED, Condition.CANCELLED),
}
BARS = 48
SPARK_HIGH = 24
# How far back the picture of the starts reaches: as far as the newest processes tell, a day at the most.
WINDOWS = {
    timedelta(hours=24): "24 h",
    timedelta(hours=6): "6 h",
    timedelta(hours=1): "1 h",
    timedelta(minutes=10): "10 min",
    timedelta(minutes=1): "1 min",
}
DAY = next(iter(WINDOWS))


async def facts(visit: Visit) -> dict[str, Any]:
    known = numbers(visit.app)
    answer, started = await asyncio.gather(known.counts.ask(), known.starts.ask())
    counts, starts = answer.value, started.value
    window = _window(starts)
    rows = [_row(visit.app, name, counts, _bars(starts, name, window)) for name in _names(visit.app, counts)]
    return {
        "flows": rows,
        "groups": {title: [str(condition) for condition in some] for title, some in GROUPS.items()},
        "number": None if counts is None else sum(count.number for count in counts),
        "need_a_person": None if counts is None else needs_a_person(counts),
        "window_s": window.total_seconds(),
        "window": WINDOWS[window],
        "counting": counted(answer, started),
        "_sparks": {row["name"]: spark(row["starts"]) for row in rows},
    }


def _names(app: Onward, counts: Sequence[Count] | None) -> list[str]:
    """Those of the app, in its order; then those that only the store knows, and the house's own if there are any."""
    stored = {count.flow for count in counts or ()} - set(app.flows)
    return [*app.flows, *sorted(stored, key=lambda name: (name in app.own, name))]


def _row(app: Onward, name: str, counts: Sequence[Count] | None, bars: list[int] | None) -> dict[str, Any]:
    flow: Flow[Any] | None = app.flows.get(name) or app.own.get(name)
    tally: dict[str, int] | None = None
    if counts is not None:
        tally = {str(condition): 0 for some in GROUPS.values() for condition in some}
        for count in counts:
            if count.flow == name:
                tally[str(count.condition)] += count.number
    return {
        "name": name,
        "known": flow is not None or not app.flows,
        "own": name in app.own,
        "stages": None if flow is None else len(flow.statuses),
        "start": None if flow is None else flow.start,
        "conditions": tally,
        "number": None if tally is None else sum(tally.values()),
        "starts": bars,
    }


# -- how many were started when ---------------------------------------------------------------------------------


def _window(starts: Starts | None) -> timedelta:
    if starts is None or starts.all or starts.as_of is None or not starts.starts:
        return DAY
    span = starts.as_of - starts.starts[-1].at
    return next((window for window in WINDOWS if window <= span), min(WINDOWS))


def _bars(starts: Starts | None, flow: str, window: timedelta) -> list[int] | None:
    """How many of this flow began in each of the BARS parts of the window, the oldest part first."""
    if starts is None:
        return None
    return histogram([start for start in starts.starts if start.flow == flow], starts.as_of, window)


def histogram(starts: Sequence[Start], as_of: datetime | None, window: timedelta) -> list[int]:
    bars = [0] * BARS
    for start in starts:
        ago = (as_of or start.at) - start.at
        if timedelta() <= ago < window:
            bars[BARS - 1 - int(ago / window * BARS)] += 1
    return bars


def spark(bars: Sequence[int] | None) -> str:
    """The bars as one path, each 2 wide and 0.5 apart; something is never drawn as nothing."""
    most = max(bars or (0,))
    if not bars or not most:
        return ""
    high = [max(number / most * SPARK_HIGH, 1.5) if number else 0 for number in bars]
    return "".join(f"M{at * 2.5:g} {SPARK_HIGH}v-{tall:.3g}h2v{tall:.3g}z" for at, tall in enumerate(high) if tall)


PAGE = Page("/", "home", facts)
