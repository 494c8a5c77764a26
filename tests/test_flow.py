"""The definition-time proof: whatever can be wrong with a table is said at once, in plain words, when it is defined."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum, auto
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn, Protocol, TypedDict, TypeVar, Union, cast

import pytest
from pydantic import BaseModel
from typing_extensions import TypeAliasType

from onward import END, Context, Every, Flow, FlowError, Process, Retry, RetryAfter, stage
from onward.flow import JITTER, TIMEOUT, Edge


class Step(StrEnum):
    NEW = auto()
    SENT = auto()
    DONE = auto()


class Foreign(StrEnum):
    """The members look the same and are not: nobody can tell them apart by their values."""

    NEW = auto()
    SENT = auto()
    DONE = auto()


class Parcel(Process[Step]):
    status: Step = Step.NEW
    weight: int = 0


class Letter(Process[Step]):
    status: Step = Step.NEW


def send(parcel: Parcel) -> Literal[Step.SENT]:
    return Step.SENT


def close(parcel: Parcel) -> Literal[Step.DONE]:
    return Step.DONE


def look(parcel: Parcel) -> Literal[Step.SENT, Step.DONE]:
    return Step.DONE


GOOD: dict[Any, Any] = {Step.NEW: send, Step.SENT: close, Step.DONE: END}


def faults(table: Any, model: Any = Parcel, **options: Any) -> list[str]:
    with pytest.raises(FlowError) as caught:
        Flow(model, table, **options)
    return list(caught.value.faults)


def test_a_good_table_is_accepted_and_read():
    flow = Flow(Parcel, GOOD)
    assert flow.statuses == ("new", "sent", "done")
    assert flow.start == "new"
    assert flow.name == "parcel"
    assert [flow.is_end(status) for status in flow.statuses] == [False, False, True]
    assert repr(flow) == "Flow(parcel, 3 statuses)"


def test_a_flow_is_named_after_its_model_in_snake_case_unless_it_is_given_a_name():
    class BigBoxV2(Parcel): ...

    assert Flow(BigBoxV2, GOOD).name == "big_box_v2"
    assert Flow(BigBoxV2, GOOD, name="box").name == "box"


def test_policies_that_are_not_given_are_bounded_and_safe():
    line = Flow(Parcel, GOOD).stages["new"]
    assert line is not None
    assert (line.retry.attempts, line.timeout, line.every, line.within, line.on_failure) == (5, TIMEOUT, None, None, None)


def test_an_attempt_is_limited_by_its_timeout_or_by_the_deadline_of_its_stage_if_that_is_shorter():
    def limit(**policies: Any) -> float:
        line = Flow(Parcel, {**GOOD, Step.NEW: stage(send, **policies)}).stages["new"]
        assert line is not None
        return line.limit_s

    assert limit() == 600
    assert limit(timeout=5) == 5
    assert limit(timeout=5, within=3, otherwise=Step.DONE) == 3
    assert limit(timeout=5, within=timedelta(hours=1), otherwise=Step.DONE) == 5


# -- the table ----------------------------------------------------------------------------------------------------


def test_a_member_missing_from_the_table_is_named():
    assert faults({Step.NEW: send, Step.DONE: END}) == ["Step.SENT is not in the table: give it a handler, or END"]


def test_a_status_that_stands_in_the_table_twice_is_named():
    assert faults({**GOOD, (Step.NEW,): send}) == ["Step.NEW stands in the table twice"]
    assert faults({(Step.NEW, Step.NEW): send, Step.SENT: close, Step.DONE: END}) == ["Step.NEW stands in the table twice"]
    assert faults({(Step.NEW, Step.SENT): close, Step.SENT: END, Step.DONE: END}) == ["Step.SENT stands in the table twice"]


@pytest.mark.parametrize("key, said", [(Foreign.NEW, "<Foreign.NEW: 'new'>"), ("new", "'new'"), (None, "None"), (7, "7")])
def test_a_key_that_is_no_member_of_the_enum_is_named(key, said):
    """To a dict a foreign member of the same value is the same key, so this cannot be left to the look-up."""
    missing = "Step.NEW is not in the table: give it a handler, or END"
    for line in (key, (key,)):
        found = faults({line: send, Step.SENT: close, Step.DONE: END})
        assert found == [f"the table's {said} is no member of Step", missing]


@pytest.mark.parametrize("junk", [None, 5, "send", Step.DONE, [send], timedelta(1)])
def test_junk_in_the_place_of_a_handler_is_named(junk):
    assert faults({**GOOD, Step.NEW: junk}) == [f"Step.NEW has {junk!r}: give it a handler, stage(...), or END"]


@pytest.mark.parametrize("junk", [None, END, send, 5])
def test_a_line_without_a_status_is_a_fault(junk):
    assert "a line of the table names no status: ()" in faults({**GOOD, (): junk})


@pytest.mark.parametrize("junk", [None, 5, "send"])
def test_junk_inside_a_stage_is_named(junk):
    found = faults({**GOOD, Step.NEW: stage(junk)})
    assert found == [f"Step.NEW has stage({junk!r}): give it a handler"]


def test_policies_of_a_wrong_type_are_named():
    assert faults({**GOOD, Step.NEW: stage(send, retry=3)}) == ["send has retry=3: write retry=Retry(attempts=...)"]  # type: ignore[arg-type]
    polling = stage(look, every=timedelta(seconds=2))  # type: ignore[arg-type]
    assert faults({**GOOD, Step.SENT: polling}) == [
        "look has every=datetime.timedelta(seconds=2): write every=Every(seconds=...)"
    ]


def test_an_empty_table_names_every_member():
    assert len(faults({})) == 3


# -- the graph ----------------------------------------------------------------------------------------------------


def test_a_status_that_cannot_be_reached_is_named():
    def skip(parcel: Parcel) -> Literal[Step.DONE]: ...

    assert faults({**GOOD, Step.NEW: skip}) == ["Step.SENT cannot be reached from the start 'new'"]


@pytest.mark.parametrize("way", ["otherwise", "on_failure", "on_cancel"])
def test_a_status_that_only_a_policy_leads_to_is_reached(way):
    def skip(parcel: Parcel) -> Literal[Step.DONE]: ...

    table = {**GOOD, Step.NEW: skip}
    if way == "on_cancel":
        flow = Flow(Parcel, table, on_cancel=Step.SENT)
    elif way == "otherwise":
        flow = Flow(Parcel, {**table, Step.NEW: stage(skip, within=5, otherwise=Step.SENT)})
    else:
        flow = Flow(Parcel, {**table, Step.NEW: stage(skip, on_failure=Step.SENT)})
    assert Edge("new", "sent", way) in set(flow.edges())


def test_a_flow_without_an_end_is_a_fault():
    def again(parcel: Parcel) -> Literal[Step.NEW]: ...

    assert faults({Step.NEW: send, Step.SENT: close, Step.DONE: again}) == ["no status is END: a process could never be over"]


def test_a_status_that_never_leads_to_an_end_is_named():
    class Spin(StrEnum):
        OPEN = auto()
        LEFT = auto()
        RIGHT = auto()
        OVER = auto()

    class Top(Process[Spin]):
        status: Spin = Spin.OPEN

    def start(top: Top) -> Literal[Spin.LEFT, Spin.OVER]: ...
    def left(top: Top) -> Literal[Spin.RIGHT]: ...
    def right(top: Top) -> Literal[Spin.LEFT]: ...

    assert faults({Spin.OPEN: start, Spin.LEFT: left, Spin.RIGHT: right, Spin.OVER: END}, Top) == [
        "Spin.LEFT never leads to an END: the process would run for ever",
        "Spin.RIGHT never leads to an END: the process would run for ever",
    ]


def test_only_being_cancelled_is_no_way_to_an_end():
    """A person is not there for every process: a loop that only cancelling leaves is a loop."""

    def back(parcel: Parcel) -> Literal[Step.NEW]: ...

    found = faults({Step.NEW: send, Step.SENT: back, Step.DONE: END}, on_cancel=Step.DONE)
    assert found == [
        "Step.NEW never leads to an END: the process would run for ever",
        "Step.SENT never leads to an END: the process would run for ever",
    ]


def test_a_way_out_by_deadline_or_failure_is_a_way_to_an_end():
    Flow(Parcel, {Step.NEW: send, Step.SENT: stage(look, every=Every(1)), Step.DONE: END})

    def back(parcel: Parcel) -> Literal[Step.NEW]: ...

    Flow(Parcel, {Step.NEW: send, Step.SENT: stage(back, within=5, otherwise=Step.DONE), Step.DONE: END})
    Flow(Parcel, {Step.NEW: send, Step.SENT: stage(back, on_failure=Step.DONE), Step.DONE: END})


# -- what a handler declares --------------------------------------------------------------------------------------

WRITE_IT = "say in the return annotation which statuses it may return, like `-> Literal[Step.NEW]`"


def handler(returned: Any = Literal[Step.SENT], taken: Any = Parcel) -> Callable[..., Any]:
    def made(parcel): ...

    made.__annotations__ = {"parcel": taken, "return": returned}
    return made


def test_a_handler_without_a_return_annotation_is_told_what_to_write():
    def silent(parcel: Parcel): ...

    assert faults({**GOOD, Step.NEW: silent}) == [f"silent: {WRITE_IT}"]


@pytest.mark.parametrize(
    "returned", [Step, str, None, Any, bool, NoReturn, Literal[Step.SENT] | None, Literal[Step.SENT] | Step, list[Step]]
)
def test_a_return_annotation_that_is_no_literal_is_told_what_to_write(returned):
    assert faults({**GOOD, Step.NEW: handler(returned)}) == [f"made: {WRITE_IT}"]


@pytest.mark.parametrize("status, said", [(Foreign.SENT, "<Foreign.SENT: 'sent'>"), ("sent", "'sent'"), (3, "3")])
def test_a_target_that_is_no_member_is_named(status, said):
    assert faults({**GOOD, Step.NEW: handler(Literal[status])}) == [f"made: its target {said} is no member of Step"]


Way = Literal[Step.SENT, Step.DONE]
Named = TypeAliasType("Named", Literal[Step.SENT])  # `type Named = ...`, for Pythons that do not have it yet


@pytest.mark.parametrize(
    "returned, targets",
    [
        (Literal[Step.SENT], {"sent"}),
        (Way, {"sent", "done"}),
        (Literal[Step.SENT] | Literal[Step.DONE], {"sent", "done"}),
        (Union[Literal[Step.SENT], Literal[Step.DONE]], {"sent", "done"}),  # noqa: UP007
        (Literal[Way, Step.DONE], {"sent", "done"}),
        (Named, {"sent"}),
        (Named | Literal[Step.DONE], {"sent", "done"}),
    ],
)
def test_a_literal_may_be_written_in_every_way_that_typing_knows(returned, targets):
    line = Flow(Parcel, {**GOOD, Step.NEW: handler(returned)}).stages["new"]
    assert line is not None and line.targets == targets


def test_its_own_status_without_every_is_a_fault():
    assert faults({**GOOD, Step.SENT: look}) == [
        "look may return its own status 'sent', which means 'not yet': say how often to look, every=Every(seconds=...)"
    ]


def test_every_without_its_own_status_is_a_fault():
    assert faults({**GOOD, Step.SENT: stage(close, every=Every(1))}) == [
        "close has every=..., but never returns its own status ['sent']: nothing to wait for"
    ]


def test_a_deadline_has_to_lead_somewhere():
    said = "send: within and otherwise belong together: a deadline has to lead somewhere"
    assert faults({**GOOD, Step.NEW: stage(send, within=5)}) == [said]
    assert faults({**GOOD, Step.NEW: stage(send, otherwise=Step.DONE)}) == [said]


@pytest.mark.parametrize("status, said", [(Foreign.DONE, "<Foreign.DONE: 'done'>"), ("done", "'done'"), (7, "7")])
def test_policies_lead_only_to_members(status, said):
    assert faults({**GOOD, Step.NEW: stage(send, within=5, otherwise=status)}) == [f"send: otherwise {said} is no member of Step"]
    assert faults({**GOOD, Step.NEW: stage(send, on_failure=status)}) == [f"send: on_failure {said} is no member of Step"]
    assert faults(GOOD, on_cancel=status) == [f"on_cancel {said} is no member of Step"]


def test_policies_do_not_lead_back_to_their_own_stage():
    assert faults({**GOOD, Step.NEW: stage(send, within=5, otherwise=Step.NEW)}) == [
        "send: otherwise leads back to its own stage 'new'"
    ]
    assert faults({**GOOD, Step.NEW: stage(send, on_failure=Step.NEW)}) == ["send: on_failure leads back to its own stage 'new'"]
    grouped = stage(look, every=Every(1), on_failure=Step.NEW)
    assert faults({(Step.NEW, Step.SENT): grouped, Step.DONE: END}) == ["look: on_failure leads back to its own stage 'new'"]


# -- what a handler takes -----------------------------------------------------------------------------------------


class HasWeight(Protocol):
    weight: int


class Shape(TypedDict):
    weight: int


class Unrelated(BaseModel): ...


AnyParcel = TypeVar("AnyParcel", bound=Parcel)


@pytest.mark.parametrize("taken, said", [(Letter, "Letter"), (int, "int"), (Unrelated, "Unrelated"), (list[Parcel], "list")])
def test_a_parameter_of_a_type_that_the_model_does_not_fit_is_named(taken, said):
    assert faults({**GOOD, Step.NEW: handler(taken=taken)}) == [f"made takes a {said}, but the flow's model is Parcel"]


def test_the_process_of_another_enum_does_not_fit_the_parameter():
    assert faults({**GOOD, Step.NEW: handler(taken=Process[Foreign])}) == [
        "made takes a Process[Foreign], but the flow's model is Parcel"
    ]
    assert faults({**GOOD, Step.NEW: handler(taken=Letter | int)}) == [
        f"made takes a {Letter | int}, but the flow's model is Parcel"
    ]


@pytest.mark.parametrize(
    "taken",
    [
        *[Parcel, Process, Process[Step], Process[Any], BaseModel, object, Any, AnyParcel, HasWeight, Shape],
        *[Parcel | Letter, Parcel | None, Union[Letter, Parcel]],  # noqa: UP007
    ],
)
def test_a_parameter_that_the_model_may_fit_is_accepted(taken):
    """In doubt it fits: the type checker knows better."""
    Flow(Parcel, {**GOOD, Step.NEW: handler(taken=taken)})


def test_a_parameter_without_an_annotation_is_accepted():
    def bare(parcel) -> Literal[Step.SENT]: ...

    Flow(Parcel, {**GOOD, Step.NEW: bare})


def _none() -> Literal[Step.SENT]: ...
def _three(parcel: Parcel, ctx: Context, more: int) -> Literal[Step.SENT]: ...
def _keyword(parcel: Parcel, *, more: int) -> Literal[Step.SENT]: ...
def _stars(*parcels: Any) -> Literal[Step.SENT]: ...
def _stars2(**parcels: Any) -> Literal[Step.SENT]: ...


@pytest.mark.parametrize("wrong", [_none, _three, _keyword, _stars, _stars2])
def test_a_handler_that_takes_anything_but_process_and_ctx_is_named(wrong):
    assert faults({**GOOD, Step.NEW: wrong}) == [f"{wrong.__name__}: a handler takes (process) or (process, ctx)"]


def test_a_class_or_a_builtin_as_handler_is_a_fault_and_no_crash():
    for wrong in (Parcel, print, dict, int, type, len):
        found = faults({**GOOD, Step.NEW: wrong})
        assert found[-1] == f"{wrong.__name__}: {WRITE_IT}"


# -- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("junk", [5, None, BaseModel, Step, Parcel()])
def test_what_is_no_process_is_no_model(junk):
    assert faults(GOOD, junk) == [f"{junk!r} is no model: write `class Batch(Process[Status])`"]


def test_a_model_without_its_own_statuses_is_told_what_to_write():
    class Bare(Process): ...  # type: ignore[type-arg]

    class Wide(Process[StrEnum]):
        status: StrEnum = Step.NEW

    class Empty(StrEnum): ...

    class Hollow(Process[Empty]): ...

    for model in (Bare, Wide, Hollow):
        name = model.__name__
        for table in ({}, GOOD):
            assert faults(table, model) == [
                f"{name} has no statuses of its own: write `class {name}(Process[Status])`, where Status is a StrEnum"
            ]


def test_a_model_without_a_default_status_is_told_what_to_write():
    class Startless(Process[Step]): ...

    class Misled(Process[Step]):
        status: Step = Foreign.NEW  # type: ignore[assignment]

    for model in (Startless, Misled):
        name = model.__name__
        assert faults({**GOOD, Step.NEW: handler(taken=model), Step.SENT: handler(Literal[Step.DONE], model)}, model) == [
            f"{name} does not say where it starts: `status: Step = Step.NEW`"
        ]


# -- all at once --------------------------------------------------------------------------------------------------


def test_all_faults_are_said_in_one_error():
    class Startless(Process[Step]): ...

    def silent(process: Startless): ...
    def wrong(process: Letter, a: int, b: int) -> Literal[Foreign.SENT]: ...

    with pytest.raises(FlowError) as caught:
        Flow(
            Startless,
            {
                Step.NEW: stage(silent, within=5, on_failure=cast(Any, Foreign.NEW)),
                cast(Any, Foreign.SENT): wrong,
                (Step.SENT, Step.NEW): cast(Any, 5),
            },
            on_cancel=cast(Any, "gone"),
        )
    assert str(caught.value) == (
        "flow startless has 12 faults:\n"
        f"  - silent: {WRITE_IT}\n"
        "  - silent: on_failure <Foreign.NEW: 'new'> is no member of Step\n"
        "  - silent: within and otherwise belong together: a deadline has to lead somewhere\n"
        "  - the table's <Foreign.SENT: 'sent'> is no member of Step\n"
        "  - wrong: a handler takes (process) or (process, ctx)\n"
        "  - wrong: its target <Foreign.SENT: 'sent'> is no member of Step\n"
        "  - wrong takes a Letter, but the flow's model is Startless\n"
        "  - Step.SENT has 5: give it a handler, stage(...), or END\n"
        "  - Step.NEW stands in the table twice\n"
        "  - Step.DONE is not in the table: give it a handler, or END\n"
        "  - Startless does not say where it starts: `status: Step = Step.NEW`\n"
        "  - on_cancel 'gone' is no member of Step"
    )
    assert len(caught.value.faults) == 12


def test_one_fault_is_not_called_faults():
    assert str(FlowError("parcel", ["it is wrong"])) == "flow parcel has 1 fault:\n  - it is wrong"


# -- kinds of handlers --------------------------------------------------------------------------------------------


async def _async(parcel: Parcel) -> Literal[Step.SENT]: ...
async def _async_ctx(parcel: Parcel, ctx: Context) -> Literal[Step.SENT]: ...
def _sync_ctx(parcel: Parcel, ctx: Context) -> Literal[Step.SENT]: ...
def _default(parcel: Parcel, tries: int = 3) -> Literal[Step.SENT]: ...
def _more(parcel: Parcel, ctx: Context, tries: int = 3, *, fast: bool = True, **rest: Any) -> Literal[Step.SENT]: ...
def _to(where: str, parcel: Parcel, ctx: Context) -> Literal[Step.SENT]: ...
def _fast(parcel: Parcel, *, fast: bool) -> Literal[Step.SENT]: ...
async def _async_to(where: str, parcel: Parcel) -> Literal[Step.SENT]: ...


class Sender:
    def __call__(self, parcel: Parcel) -> Literal[Step.SENT]: ...
    async def later(self, parcel: Parcel, ctx: Context) -> Literal[Step.SENT]: ...
    @staticmethod
    def static(parcel: Parcel) -> Literal[Step.SENT]: ...
    @classmethod
    def of_class(cls, parcel: Parcel) -> Literal[Step.SENT]: ...


class AsyncSender:
    async def __call__(self, parcel: Parcel, ctx: Context) -> Literal[Step.SENT]: ...


def logged(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def wrapper(*args: Any) -> Any:
        return await fn(*args)

    return wrapper


@pytest.mark.parametrize(
    "made, takes_context, is_async, name",
    [
        (send, False, False, "send"),
        (_async, False, True, "_async"),
        (_async_ctx, True, True, "_async_ctx"),
        (_sync_ctx, True, False, "_sync_ctx"),
        (_default, False, False, "_default"),
        (_more, True, False, "_more"),
        (functools.partial(_to, "home"), True, False, "_to"),
        (functools.partial(_fast, fast=True), False, False, "_fast"),
        (functools.partial(_async_to, "home"), False, True, "_async_to"),
        (functools.partial(cast(Any, Sender()), fast=True), None, None, None),
        (functools.partial(Sender()), False, False, "Sender"),
        (Sender(), False, False, "Sender"),
        (AsyncSender(), True, True, "AsyncSender"),
        (Sender().later, True, True, "Sender.later"),
        (Sender.static, False, False, "Sender.static"),
        (Sender.of_class, False, False, "Sender.of_class"),
        (logged(_async_ctx), True, True, "_async_ctx"),
        (functools.lru_cache(send), False, False, "send"),
    ],
)
def test_every_kind_of_callable_is_read(made, takes_context, is_async, name):
    if name is None:  # a keyword that the object does not take: no signature fits
        assert "no signature that can be read" in faults({**GOOD, Step.NEW: made})[0]
        return
    line = Flow(Parcel, {**GOOD, Step.NEW: made}).stages["new"]
    assert line is not None
    assert (line.takes_context, line.is_async, line.name) == (takes_context, is_async, name)
    assert line.targets == {"sent"}


def test_a_wrong_partial_or_object_is_named_like_its_function():
    assert faults({**GOOD, Step.NEW: functools.partial(handler(Step), more=1)})[-1] == f"made: {WRITE_IT}"

    class Mute:
        def __call__(self, parcel: Letter): ...

    assert faults({**GOOD, Step.NEW: Mute()}) == [
        f"{Mute.__qualname__.rpartition('<locals>.')[2]}: {WRITE_IT}",
        "Mute takes a Letter, but the flow's model is Parcel",
    ]


# -- string annotations -------------------------------------------------------------------------------------------


_number = itertools.count()


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module from its text."""
    made = []

    def load(text: str) -> ModuleType:
        name = f"flow_module_{next(_number)}"
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
        made.append(name)
        spec.loader.exec_module(loaded)
        return loaded

    yield load
    for name in made:
        del sys.modules[name]


TEXT = """
    from enum import StrEnum
    from typing import Literal
    from onward import END, Context, Every, Flow, Process, stage

    class Status(StrEnum):
        A = "a"; B = "b"; C = "c"

    class Thing(Process[Status]):
        status: Status = Status.A

    async def first(thing: Thing, ctx: Context) -> Literal[Status.B]: ...
    def second(thing: Thing) -> Literal[Status.B, Status.C]: ...

    flow = Flow(Thing, {Status.A: first, Status.B: stage(second, every=Every(1)), Status.C: END})
"""
FUTURE = "    from __future__ import annotations\n"
INSIDE = """
    from enum import StrEnum
    from typing import Literal
    from onward import END, Context, Every, Flow, Process, stage

    def build():
        class Status(StrEnum):
            A = "a"; B = "b"; C = "c"

        class Thing(Process[Status]):
            status: Status = Status.A

        async def first(thing: Thing, ctx: Context) -> Literal[Status.B]: ...
        def second(thing: Thing) -> Literal[Status.B, Status.C]: ...

        return Flow(Thing, {Status.A: first, Status.B: stage(second, every=Every(1)), Status.C: END})

    flow = build()
"""
EDGES = [("a", "b", ""), ("b", "b", ""), ("b", "c", "")]


@pytest.mark.parametrize("text", [TEXT, INSIDE], ids=["at the top", "inside a function"])
@pytest.mark.parametrize("future", ["", FUTURE], ids=["real", "strings"])
def test_annotations_are_read_as_objects_and_as_strings_at_the_top_and_inside_functions(module, text, future):
    assert list(module(future + text).flow.edges()) == EDGES


def test_enum_and_model_inside_a_function_are_read_in_a_test_module_of_string_annotations():
    class Status(StrEnum):
        A = auto()
        B = auto()

    class Thing(Process[Status]):
        status: Status = Status.A

    Way = Literal[Status.B]  # noqa: F841 - a name that only the function which defines the flow knows

    def move(thing: Thing, ctx: Context) -> Way: ...

    assert list(Flow(Thing, {Status.A: move, Status.B: END}).edges()) == [("a", "b", "")]


def test_context_may_be_imported_for_the_type_checker_only(module):
    text = (FUTURE + TEXT).replace("Context, ", "") + "    assert 'Context' not in globals()\n"
    assert list(module(text).flow.edges()) == EDGES


MADE_ELSEWHERE = """
    from __future__ import annotations
    from enum import StrEnum
    from typing import Literal
    from onward import END, Flow, Process

    class Status(StrEnum):
        A = "a"; B = "b"

    class Thing(Process[Status]):
        status: Status = Status.A

    def make():
        Way = Literal[Status.B]
        def move(thing: Thing) -> Way: ...
        return move

    flow = Flow(Thing, {Status.A: make(), Status.B: END})
"""


def test_string_annotations_that_cannot_be_read_say_what_to_do(module):
    with pytest.raises(FlowError) as caught:
        module(MADE_ELSEWHERE)
    assert caught.value.faults == (
        "move: its annotations cannot be read (name 'Way' is not defined): define the names at the top of the module, "
        "or drop `from __future__ import annotations` there",
    )
    assert module(MADE_ELSEWHERE.replace("from __future__ import annotations", "")).flow


@pytest.mark.parametrize("broken", ["Literal[Step.NOWHERE]", "not python (", "Literal[", "5()", "Missing"])
def test_annotations_that_are_no_python_are_a_fault_and_no_crash(broken):
    [fault] = faults({**GOOD, Step.NEW: handler(broken)})
    assert fault.startswith("made: its annotations cannot be read (")


def test_a_string_annotation_means_what_it_means_in_the_module_of_its_handler(module):
    """The enum there has the same name, and is another one."""
    elsewhere = module("""
        from __future__ import annotations
        from enum import StrEnum
        from typing import Any, Literal

        class Step(StrEnum):
            NEW = "new"; SENT = "sent"; DONE = "done"

        def send(parcel: Any) -> Literal[Step.SENT]: ...
    """)
    assert faults({**GOOD, Step.NEW: elsewhere.send}) == ["send: its target <Step.SENT: 'sent'> is no member of Step"]


# -- groups and edges ---------------------------------------------------------------------------------------------


def test_statuses_of_one_line_share_their_stage():
    flow = Flow(Parcel, {(Step.NEW, Step.SENT): stage(look, every=Every(1)), Step.DONE: END})
    assert flow.stages["new"] is flow.stages["sent"]
    line = flow.stages["new"]
    assert line is not None and line.statuses == {"new", "sent"}
    assert list(flow.edges()) == [("new", "sent", ""), ("new", "done", ""), ("sent", "sent", ""), ("sent", "done", "")]


def test_a_line_of_two_statuses_that_may_return_one_of_them_needs_every():
    [fault] = faults({(Step.NEW, Step.SENT): look, Step.DONE: END})
    assert fault.startswith("look may return its own status 'sent'")


def test_several_statuses_may_be_ends():
    def either(parcel: Parcel) -> Literal[Step.SENT, Step.DONE]: ...

    flow = Flow(Parcel, {Step.NEW: either, (Step.SENT, Step.DONE): END})
    assert flow.is_end("sent") and flow.is_end("done")
    assert list(flow.edges()) == [("new", "sent", ""), ("new", "done", "")]


def test_edges_come_in_the_order_of_the_table_with_the_word_for_each():
    flow = Flow(
        Parcel,
        {
            Step.NEW: stage(send, within=5, otherwise=Step.DONE, on_failure=Step.SENT),
            Step.SENT: stage(look, every=Every(1), on_failure=Step.DONE),
            Step.DONE: END,
        },
        on_cancel=Step.SENT,
    )
    assert list(flow.edges()) == [
        Edge("new", "sent"),
        Edge("new", "done", "otherwise"),
        Edge("new", "sent", "on_failure"),
        Edge("sent", "sent"),
        Edge("sent", "done"),
        Edge("sent", "done", "on_failure"),
        Edge("new", "sent", "on_cancel"),
    ]


def test_the_lifespan_is_kept_for_the_worker():
    @asynccontextmanager
    async def clients():
        yield {}

    assert Flow(Parcel, GOOD, lifespan=clients).lifespan is clients
    assert Flow(Parcel, GOOD).lifespan is None


def test_one_handler_may_stand_in_several_lines_with_policies_of_their_own():
    def either(parcel: Parcel) -> Literal[Step.SENT, Step.DONE]: ...

    flow = Flow(Parcel, {Step.NEW: stage(either, timeout=3), Step.SENT: stage(either, every=Every(1)), Step.DONE: END})
    new, sent = flow.stages["new"], flow.stages["sent"]
    assert new is not None and sent is not None
    assert (new.limit_s, sent.limit_s, new.every) == (3, 600, None)


# -- bounds of the policies ---------------------------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("wrong", [0, -1, NAN, INFINITY, timedelta(0), timedelta(days=366), 1e300])
@pytest.mark.parametrize("what", ["timeout", "within"])
def test_a_stage_refuses_durations_that_are_a_mistake(what, wrong):
    with pytest.raises(ValueError) as caught:
        stage(send, **{what: wrong})
    assert str(caught.value) == f"{what}={wrong!r}: more than 0 s and at most 365 days"


@pytest.mark.parametrize("right", [1e-6, 1, timedelta(days=365)])
def test_a_stage_takes_durations_as_timedelta_or_seconds(right):
    assert stage(send, timeout=right).timeout == (right if isinstance(right, timedelta) else timedelta(seconds=right))


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"attempts": 1_000_001},
        {"first": -1},
        {"first": 301},
        {"first": NAN},
        {"longest": NAN},
        {"longest": INFINITY},
        {"first": INFINITY, "longest": INFINITY},
        {"longest": timedelta(days=366)},
        {"first": timedelta(seconds=2), "longest": 1},
    ],
)
def test_retry_refuses_what_has_no_bounds(wrong):
    with pytest.raises(ValueError) as caught:
        Retry(**wrong)
    assert str(caught.value).startswith("Retry(attempts=")
    assert str(caught.value).endswith("): at least 1 attempt, and 0 <= first <= longest <= 365 days")


@pytest.mark.parametrize(
    "wrong", [(0,), (-1,), (NAN,), (INFINITY,), (2, 1), (2, timedelta(seconds=1)), (1, timedelta(days=366)), (1, NAN)]
)
def test_every_refuses_what_has_no_bounds(wrong):
    with pytest.raises(ValueError) as caught:
        Every(*wrong)
    assert str(caught.value).startswith("Every(seconds=")
    assert str(caught.value).endswith("): 0 < seconds <= longest <= 365 days")


@pytest.mark.parametrize("wrong", [-1, timedelta(days=366), NAN, INFINITY])
def test_retry_after_refuses_a_delay_that_is_a_mistake(wrong):
    with pytest.raises(ValueError) as caught:
        RetryAfter(wrong)
    assert str(caught.value) == f"RetryAfter({wrong!r}): a delay is between 0 and 365 days"


def test_retry_doubles_up_to_the_longest_and_ends_with_the_attempts():
    retry = Retry(attempts=5, first=1, longest=4)
    for attempt, expected in ((1, 1), (2, 2), (3, 4), (4, 4)):
        pause = retry.pause(attempt, "p")
        assert pause is not None
        assert expected <= pause.total_seconds() < expected * (1 + JITTER)
    assert retry.pause(5, "p") is None
    assert retry.pause(6, "p") is None
    assert Retry(attempts=1).pause(1, "p") is None


def test_every_grows_by_half_up_to_the_longest_and_never_ends():
    every = Every(2, longest=timedelta(seconds=4))
    for polls, expected in ((0, 2), (1, 3), (2, 4), (3, 4), (1_000_000, 4)):
        assert expected <= every.pause(polls, "p").total_seconds() < expected * (1 + JITTER)


def test_every_without_a_longest_looks_at_an_even_pace():
    assert all(7 <= Every(7).pause(polls, "p").total_seconds() < 7 * (1 + JITTER) for polls in range(100))


def test_policies_say_what_they_are():
    assert repr(Retry(3, timedelta(seconds=2))) == "Retry(attempts=3, first=2, longest=300)"
    assert repr(Every(2)) == "Every(seconds=2, longest=2)"
    assert repr(END) == "END"
