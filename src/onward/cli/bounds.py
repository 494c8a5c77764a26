"""`onward graph --bounds`: how long each stage, each way and the whole of a flow can take at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from onward.bounds import ASSUMED, Bounds, StageBound, bounds
from onward.cli.output import Output
from onward.explain import length
from onward.flow import Flow
from onward.graph.words import plain

YEAR_S = 365 * 86_400
YEARS_SHOWN_MIN = 10  # a longer time is told in years: nobody counts the days of it


def tell_bounds(output: Output, flows: Sequence[Flow[Any]]) -> None:
    found = [(flow, bounds(flow)) for flow in flows]
    if output.settings.is_json:
        output.document("bounds/1", {"assumed": list(ASSUMED), "flows": [_described(*one) for one in found]})
        return
    for number, (flow, told) in enumerate(found):
        if number:
            output.line()
        _tell(output, flow, told)
    output.note(f"as long as {'; '.join(ASSUMED)}")


def at_most(seconds: float) -> str:
    """'at most 2 h 5 min' is never less than it is: the last unit is rounded up. 'no bound' where there is none."""
    if math.isinf(seconds):
        return "no bound"
    if seconds >= YEARS_SHOWN_MIN * YEAR_S:
        return f"{math.ceil(seconds / YEAR_S):,} years"
    unit = next((unit for least, unit in ((86_400, 3_600), (3_600, 60), (10, 1)) if seconds >= least), 0.1)
    return length(timedelta(seconds=math.ceil(round(seconds / unit, 6)) * unit))


def _tell(output: Output, flow: Flow[Any], told: Bounds) -> None:
    total = at_most(told.at_most_s)
    said = total if math.isinf(told.at_most_s) else f"at most {total}"
    output.line(f"{plain(flow.name)}: {said}, from {plain(flow.start)} until it rests")
    if told.cancel_s is not None:
        output.line(f"  after a cancel, from {plain(flow.on_cancel or '')}: {at_most(told.cancel_s)}")
    output.line()
    head = ("STAGE", "ATTEMPTS", "ONE ATTEMPT", "THE STAGE", "TO ITS REST", "AND THEN")
    output.table(head, map(_row, told.stages))
    output.line()
    for way in told.ways:
        output.line(f"{at_most(way.at_most_s)}: {' → '.join(map(plain, way.steps))}")
    if told.ways_in_all > len(told.ways):
        output.line(f"and {told.ways_in_all - len(told.ways):,} more ways, none of them longer")
    for warning in told.warnings:
        output.line(f"warning: {plain(warning)}")


def _row(stage: StageBound) -> Sequence[str]:
    return (
        ", ".join(map(plain, stage.statuses)),
        f"{stage.attempts:>8,}",
        at_most(stage.attempt_s),
        at_most(stage.at_most_s),
        at_most(stage.to_rest_s),
        plain(stage.then) or "failed, for a person",
    )


def _described(flow: Flow[Any], told: Bounds) -> dict[str, Any]:
    return {
        "name": flow.name,
        "start": flow.start,
        "at_most_s": _finite(told.at_most_s),
        "on_cancel": flow.on_cancel,
        "cancel_s": None if told.cancel_s is None else _finite(told.cancel_s),
        "stages": [_described_stage(stage) for stage in told.stages],
        "ways": [{"steps": list(way.steps), "at_most_s": _finite(way.at_most_s)} for way in told.ways],
        "ways_in_all": told.ways_in_all,
        "warnings": list(told.warnings),
    }


def _described_stage(stage: StageBound) -> dict[str, Any]:
    return {
        "statuses": list(stage.statuses),
        "handler": stage.handler,
        "attempts": stage.attempts,
        "attempt_s": stage.attempt_s,
        "at_most_s": _finite(stage.at_most_s),
        "to_rest_s": _finite(stage.to_rest_s),
        "then": stage.then or None,
    }


def _finite(seconds: float) -> float | None:
    """JSON has no infinity; null says that there is no bound."""
    return None if math.isinf(seconds) else seconds
