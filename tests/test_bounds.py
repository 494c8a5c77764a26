"""How long a flow can take at most: what the table says, and that no run in virtual time ever takes longer."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import pytest
from cli_project import Project, shop
from hypothesis import given, settings
from hypothesis import strategies as st

from onward import END, Every, Flow, Process, Retry, stage
from onward.bounds import ASSUMED, WAYS_MAX, bounds, pauses_s, visit_s
from onward.cli.bounds import at_most
from onward.decide import MOVES_MAX, SETTLE
from onward.demo.flow import check_status
from onward.process import OVER, Condition
from onward.testing import run_to_rest

DAY_S = 86_400


class Leg(StrEnum):
    A = auto()
    B = auto()
    C = auto()
    D = auto()


class Trip(Process[Leg]):
    status: Leg = Leg.A


def to(*targets: Leg) -> Callable[..., Any]:
    """A handler that declares these targets; nobody runs it."""

    async def go(trip: Trip) -> Any: ...

    go.__annotations__["return"] = Literal[targets]
    return go


def line(handler: Callable[..., Any], **policies: Any) -> float:
    flow = Flow(Trip, {Leg.A: stage(handler, **policies), Leg.B: to(Leg.D), Leg.C: to(Leg.B), Leg.D: END})
    found = flow.stages["a"]
    assert found is not None
    return visit_s(found)


# -- one stage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "retry", [Retry(), Retry(1), Retry(2, 0, 0), Retry(3, 5, 5), Retry(12, 0.5, 7), Retry(4, 0, 9), Retry(70)]
)
def test_the_pauses_of_a_policy_are_the_longest_that_its_jitter_makes(retry: Retry) -> None:
    real = [retry.pause(attempt, "an-id") for attempt in range(1, retry.attempts)]
    told = sum(pause.total_seconds() for pause in real if pause is not None)
    assert told <= pauses_s(retry) <= told * 1.2 + 1e-9
    assert retry.pause(retry.attempts, "an-id") is None


def test_a_million_attempts_are_added_up_at_once() -> None:
    assert pauses_s(Retry(1_000_000, 1, 300)) == pytest.approx(1.2 * (511 + (999_999 - 9) * 300))


def test_a_stage_takes_its_attempts_and_their_pauses() -> None:
    go = to(Leg.B, Leg.C)
    assert line(go, retry=Retry(3, 10, 100), timeout=60) == 3 * 60 + (10 + 20) * 1.2
    assert line(go, retry=Retry(1), timeout=60) == 60


def test_a_poll_has_no_bound_but_its_deadline() -> None:
    look = to(Leg.A, Leg.B, Leg.C)
    assert math.isinf(line(look, every=Every(5)))
    assert line(look, every=Every(5), within=3_600, otherwise=Leg.B) == 3_600


def test_a_deadline_bounds_attempts_as_well_and_never_makes_a_stage_longer() -> None:
    go = to(Leg.B, Leg.C)
    assert line(go, within=100, otherwise=Leg.B) == 100
    assert line(go, timeout=5, retry=Retry(2, 1, 1), within=100, otherwise=Leg.B) == 2 * 5 + 1.2


# -- ways -----------------------------------------------------------------------------------------------------------


def plain(handler: Callable[..., Any], seconds: float, **more: Any) -> Any:
    return stage(handler, retry=Retry(1), timeout=seconds, **more)


def test_the_whole_is_its_longest_way_and_every_way_is_told() -> None:
    flow = Flow(
        Trip,
        {Leg.A: plain(to(Leg.B, Leg.C, Leg.D), 1), Leg.B: plain(to(Leg.D), 10), Leg.C: plain(to(Leg.B), 100), Leg.D: END},
    )
    told = bounds(flow)
    assert told.at_most_s == 111 and told.ways_in_all == 3 and not told.warnings and told.cancel_s is None
    assert [(way.steps, way.at_most_s) for way in told.ways] == [
        (("a", "c", "b", "d"), 111),
        (("a", "b", "d"), 11),
        (("a", "d"), 1),
    ]
    assert [(line.statuses, line.at_most_s, line.to_rest_s) for line in told.stages] == [
        (("a",), 1, 111),
        (("b",), 10, 10),
        (("c",), 100, 110),
    ]


def test_ways_out_of_a_failure_and_of_a_deadline_count_and_a_cancel_is_told_apart() -> None:
    flow = Flow(
        Trip,
        {
            Leg.A: plain(to(Leg.D), 1, on_failure=Leg.B),
            Leg.B: plain(to(Leg.D), 10, within=5, otherwise=Leg.C),
            Leg.C: plain(to(Leg.D), 100),
            Leg.D: END,
        },
        on_cancel=Leg.C,
    )
    told = bounds(flow)
    assert told.ways[0].steps == ("a", "b", "c", "d") and told.at_most_s == 106
    assert told.cancel_s == SETTLE.total_seconds() + 100
    assert [line.then for line in told.stages] == ["b", "c", ""]


def test_a_line_of_several_statuses_has_one_deadline_for_all_of_them() -> None:
    look = stage(to(Leg.A, Leg.B, Leg.C), every=Every(1), within=50, otherwise=Leg.D)
    told = bounds(Flow(Trip, {(Leg.A, Leg.B): look, Leg.C: plain(to(Leg.B, Leg.D), 10), Leg.D: END}))
    assert told.stages[0].statuses == ("a", "b") and told.stages[0].at_most_s == 50
    assert math.isinf(told.at_most_s)  # for C leads back to B, and the deadline begins anew there
    [warning] = told.warnings
    assert "the circle of a, b, c has no bound" in warning


def test_what_has_no_bound_is_said_and_how_to_give_it_one() -> None:
    flow = Flow(Trip, {Leg.A: stage(to(Leg.A, Leg.B), every=Every(5)), Leg.B: to(Leg.C), Leg.C: to(Leg.B, Leg.D), Leg.D: END})
    told = bounds(flow)
    assert math.isinf(told.at_most_s) and math.isinf(told.ways[0].at_most_s)
    poll, circle = told.warnings
    assert "at a has no bound" in poll and "give it within= and otherwise=" in poll
    assert "the circle of b, c has no bound" in circle and "count the rounds" in circle
    assert told.ways[0].steps == ("a", "(b ⇄ c)", "d")


def test_a_circle_that_never_waits_is_bounded_by_the_guard_against_spinning() -> None:
    told = bounds(Flow(Trip, {Leg.A: to(Leg.B), Leg.B: plain(to(Leg.C), 2), Leg.C: plain(to(Leg.B, Leg.D), 3), Leg.D: END}))
    assert told.stages[1].to_rest_s == (MOVES_MAX + 1) * 3
    assert "guard against spinning" in told.warnings[0]


def test_many_ways_are_counted_and_the_longest_are_told() -> None:
    names = [f"s{number}" for number in range(41)]
    kind = StrEnum("Many", {name: name for name in names})  # type: ignore[misc]
    model = type("Job", (Process[kind],), {"__annotations__": {"status": kind}, "status": kind("s0")})  # type: ignore[valid-type]
    steps = [kind(name) for name in names]

    def step(number: int) -> Callable[..., Any]:
        async def go(job: Any) -> Any: ...

        go.__annotations__["return"] = Literal[tuple(steps[number + 1 : number + 3])]
        return go

    table: dict[Any, Any] = {one: plain(step(number), number + 1) for number, one in enumerate(steps[:-1])}
    told = bounds(Flow(model, {**table, steps[-1]: END}))
    assert told.ways_in_all == 165_580_141  # the 41st of Fibonacci
    assert len(told.ways) == WAYS_MAX and told.at_most_s == sum(range(1, 41))
    assert [way.at_most_s for way in told.ways] == sorted((way.at_most_s for way in told.ways), reverse=True)


def test_the_main_job_has_a_bound_and_nothing_to_warn_of() -> None:
    told = bounds(check_status)
    assert DAY_S < told.at_most_s < 2 * DAY_S and not told.warnings


# -- against reality ------------------------------------------------------------------------------------------------

POLICIES = st.fixed_dictionaries(
    {
        "attempts": st.integers(1, 4),
        "first": st.sampled_from([0.0, 0.7, 5.0]),
        "longest": st.sampled_from([5.0, 30.0]),
        "timeout": st.sampled_from([0.5, 20.0, 90.0]),
        "polls": st.booleans(),
        "within": st.sampled_from([None, 3.0, 40.0, 400.0]),
        "fails_to": st.booleans(),
    }
)


def made(policies: list[dict[str, Any]], behave: Callable[[str, int], float | str]) -> Flow[Any]:
    """A flow of so many stages, each of which may go on to any later one; `behave` says what the attempts at a stage come to:
    so many seconds of sleep and an error, or "go", "skip" or "wait".
    """
    names = [f"s{number}" for number in range(len(policies) + 1)]
    kind = StrEnum("Step", {name: name for name in names})  # type: ignore[misc]
    steps = [kind(name) for name in names]
    model = type("Job", (Process[kind],), {"__annotations__": {"status": kind}, "status": steps[0]})  # type: ignore[valid-type]

    def handler(number: int, polls: bool) -> Callable[..., Any]:
        begun = 0

        async def go(job: Any) -> Any:
            nonlocal begun
            begun += 1
            match behave(names[number], begun):
                case "go":
                    return steps[number + 1]
                case "skip":
                    return steps[-1]
                case "wait":
                    return steps[number]
                case seconds:
                    assert isinstance(seconds, float)
                    await asyncio.sleep(seconds)
                    raise ValueError("no")

        go.__annotations__["return"] = Literal[tuple({steps[number + 1], steps[-1], *([steps[number]] if polls else [])})]
        return go

    table: dict[Any, Any] = {}
    for number, one in enumerate(policies):
        within = one["within"] or (300.0 if one["polls"] else None)
        table[steps[number]] = stage(
            handler(number, one["polls"]),
            retry=Retry(one["attempts"], one["first"], one["longest"]),
            timeout=one["timeout"],
            every=Every(2, 50) if one["polls"] else None,
            within=within,
            otherwise=None if within is None else steps[number + 1],
            on_failure=steps[number + 1] if one["fails_to"] else None,
        )
    return Flow(model, {**table, steps[-1]: END})


def ran_within(flow: Flow[Any]) -> tuple[float, float, Condition]:
    """How long it took, what is the bound, and how it ended."""
    ran = run_to_rest(flow, flow.model(id=f"id-{random.random()}"), until=timedelta(days=300))
    return ran.took.total_seconds(), bounds(flow).at_most_s, ran.condition


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_no_run_takes_longer_than_its_bound_and_the_worst_one_takes_nearly_as_long() -> None:
    ends: set[Condition] = set()

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.lists(POLICIES, min_size=1, max_size=4), st.integers(0, 2**32))
    def holds(policies: list[dict[str, Any]], seed: int) -> None:
        luck = random.Random(seed)

        def behave(status: str, begun: int) -> float | str:
            polls = policies[int(status[1:])]["polls"]
            return luck.choice([luck.uniform(0, 100), luck.uniform(0, 1), "go", "go", "skip", "wait" if polls else "go"])

        took, most, end = ran_within(made(policies, behave))
        assert took <= most + 1e-3, (took, most)
        assert end in OVER or end is Condition.FAILED
        ends.add(end)

    @settings(max_examples=25, deadline=None, derandomize=True, database=None)
    @given(st.lists(POLICIES, min_size=1, max_size=4))
    def is_nearly_reached(policies: list[dict[str, Any]]) -> None:
        """All attempts are cut off, all polls wait, and what fails goes on to the next stage."""
        policies = [{**one, "fails_to": True} for one in policies]
        polls = {f"s{number}": one["polls"] for number, one in enumerate(policies)}
        took, most, _ = ran_within(made(policies, lambda status, begun: "wait" if polls[status] else 1_000.0))
        assert most / 1.2 - 1e-3 <= took <= most + 1e-3, (took, most)

    holds()
    is_nearly_reached()
    assert ends == {Condition.FINISHED, Condition.FAILED}


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with shop(tmp_path) as project:
        yield project


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.51, "0.6 s"),
        (1.2, "1.2 s"),
        (9.95, "10 s"),
        (59.2, "1 min"),
        (61, "1 min 1 s"),
        (3_599.5, "1 h"),
        (3_600, "1 h"),
        (3_661, "1 h 2 min"),
        (2 * DAY_S + 1, "2 d 1 h"),
        (1e15, "31,709,792 years"),
        (math.inf, "no bound"),
    ],
)
def test_a_bound_is_never_told_shorter_than_it_is(seconds: float, text: str) -> None:
    assert at_most(seconds) == text


def test_graph_bounds_tells_stages_ways_and_warnings(project: Project) -> None:
    told = project.run("graph", "--bounds")
    assert told.exit_code == 0
    assert "purchase: no bound, from placed until it rests" in told.stdout
    assert "after a cancel, from returned: 50 min 19 s" in told.stdout
    assert "placed           5  10 min       1 h 5 min    no bound     failed, for a person" in told.stdout
    assert "no bound: placed → paid → shipped" in told.stdout
    assert "warning: purchase: look at paid has no bound" in told.stdout
    assert all(assumed in told.stderr for assumed in ASSUMED)


def test_graph_bounds_as_json_has_null_where_there_is_no_bound(project: Project) -> None:
    told = project.json("graph", "purchase", "--bounds")
    assert told["schema"] == "onward.bounds/1" and told["assumed"] == list(ASSUMED)
    [flow] = told["flows"]
    assert flow["at_most_s"] is None and flow["cancel_s"] == 3_019.0 and flow["ways_in_all"] == 1
    assert [(one["handler"], one["at_most_s"], one["then"]) for one in flow["stages"]] == [
        ("pay", 5 * 600 + 1.2 * (60 + 120 + 240 + 300), None),
        ("look", None, None),
        ("refund", 3_018.0, None),
    ]
    assert flow["ways"] == [{"steps": ["placed", "paid", "shipped"], "at_most_s": None}] and len(flow["warnings"]) == 1
    assert (
        project.run("graph", "purchase", "--bounds", "-f", "json").stdout
        == project.run("graph", "purchase", "--bounds", "--json").stdout
    )
    assert "--bounds is no picture" in project.error("graph", "--bounds", "-f", "svg", code=2)
