"""Models that hypothesis makes up, and values that may or may not fit them."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

from conftest import Step
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, create_model

from onward import END, Flow, Process, Secret

from .effort import texts


class Part(BaseModel):
    name: str
    parts: list[Part] = []


def _choosy(text: str) -> str:
    """A validator as people write them: it says no in its own words, or fails."""
    if text.startswith("a"):
        raise ValueError(f"{text!r} is not what it should be")
    return text[0:1] + text[1:] if text else str(1 // len(text))


SCALARS: list[Any] = [
    *(str, int, float, bool, bytes, Decimal, datetime, date, timedelta, UUID, Any, None),
    *(Literal["x", "y"], Annotated[int, Field(ge=0, le=10)], Annotated[str, AfterValidator(_choosy)], Secret[str], Part),
]
NAMES = ["a", "b", "status_", "data", "value", "id_", "é", "$secret", "version", "items", "from_", "null"]
scalar_types = st.sampled_from([str] * 8 + [Any] * 4 + SCALARS)
types = st.recursive(
    scalar_types,
    lambda inner: (
        inner.map(lambda kind: list[kind])  # type: ignore[valid-type]
        | inner.map(lambda kind: dict[str, kind])  # type: ignore[valid-type]
        | inner.map(lambda kind: kind | None if isinstance(kind, type) else list[kind])  # type: ignore[valid-type]
        | st.tuples(inner, inner).map(lambda kinds: tuple[kinds[0], kinds[1]])  # type: ignore[valid-type]
    ),
    max_leaves=3,
)

numbers = st.integers() | st.sampled_from([2**63, -(2**64), 10**400]) | st.floats() | st.just(math.nan)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)
# What no JSON has, and a handler may leave in its process all the same.
objects = values | st.sampled_from(
    [b"\xff", {1, 2}, object(), Decimal("NaN"), datetime.max, datetime.now(UTC), timedelta.max, Step.MAKE]
)


@st.composite
def flows(draw: Callable[[Any], Any]) -> Flow[Any]:
    fields = draw(
        st.dictionaries(st.sampled_from([name for name in NAMES if name.isidentifier()]), types, min_size=1, max_size=3)
    )
    made: dict[str, Any] = {name: (kind, draw(st.sampled_from([..., None]))) for name, kind in fields.items()}
    made["status"] = (Step, Step.MAKE)
    model: Any = create_model("Made", __base__=Process[Step], **made)

    async def make(process: Any) -> Literal[Step.DONE]:
        return Step.DONE

    make.__annotations__ = {"process": model, "return": Literal[Step.DONE]}
    return Flow(model, {Step.MAKE: make, Step.DONE: END})


def fitting(kind: Any) -> st.SearchStrategy[Any]:
    """Values that such a field may well take, worst texts among them."""
    inner = get_args(kind)
    match get_origin(kind) or kind:
        case builtins.str:
            return texts
        case builtins.int | builtins.float:
            return st.integers()
        case builtins.list:
            return st.lists(fitting(inner[0]), max_size=3)
        case builtins.dict:
            return st.dictionaries(texts, fitting(inner[1]), max_size=3)
        case builtins.tuple:
            return st.tuples(*map(fitting, inner))
    return values


@st.composite
def flows_and_fields(draw: Callable[[Any], Any], given: st.SearchStrategy[Any]) -> tuple[Flow[Any], dict[str, Any]]:
    """A flow, and values for its fields; sometimes one of them is anything, or there is one that the model does not know."""
    flow = draw(flows())
    kinds = {name: field.annotation for name, field in flow.model.model_fields.items() if name not in ("id", "status")}
    fields = {name: draw(fitting(kind)) for name, kind in kinds.items()}
    match draw(st.sampled_from(["fits", "fits", "one is anything", "one more"])):
        case "one is anything":
            fields[draw(st.sampled_from(sorted(kinds)))] = draw(given)
        case "one more":
            fields[draw(texts)] = draw(given)
    return flow, fields
