"""Typed process <-> JSON, for models that nobody has thought of: InvalidData and nothing else, and what is read comes back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from onward import Flow, InvalidData
from onward.codec import PAYLOAD_MAX, decode, encode
from onward.intake import read, takes

from .effort import fuzz, odd, texts
from .models import flows_and_fields, objects, values


@st.composite
def rows(draw: Any) -> tuple[Flow[Any], str]:
    """A flow, and the JSON of some fields with something cut out of it, put into it, or said twice."""
    flow, fields = draw(flows_and_fields(values))
    text = json.dumps(fields)  # lone surrogates and NaN as Python writes them
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        begin = draw(st.integers(0, len(text)))
        end = draw(st.integers(begin, min(len(text), begin + 10)))
        text = text[:begin] + draw(odd | st.just(text[begin:end] * 2) | st.sampled_from(list('{}[]",:\\'))) + text[end:]
    return flow, text


ids = texts.filter(bool).map(lambda text: text[:200])


@fuzz(150)
@given(rows(), ids)
def test_what_stands_in_a_row_is_read_or_is_invalid_and_what_is_read_is_written_and_comes_back(
    row: tuple[Flow[Any], str], id: str
) -> None:
    flow, data = row
    try:
        process = decode(flow, id, "make", data)
    except InvalidData as error:
        assert str(error) and len(str(error)) < 10_000
        return
    assert (process.id, process.status) == (id, "make")
    try:
        again, copy = encode(flow, process, id, "make")
    except InvalidData:  # NaN, NUL, a lone surrogate: it could be read, and may not be written
        return
    assert decode(flow, id, "make", again) == copy
    assert encode(flow, copy, id, "make")[0] == again


@fuzz(150)
@given(flows_and_fields(objects))
def test_what_a_handler_leaves_behind_is_kept_as_it_is_or_is_invalid(given: tuple[Flow[Any], dict[str, Any]]) -> None:
    flow, left = given
    process = flow.model.model_construct(**{**left, "id": "p1", "status": "make"})
    try:
        data, copy = encode(flow, process, "p1", "make")
    except InvalidData as error:
        assert str(error)
        return
    assert len(data) <= PAYLOAD_MAX and "\0" not in data and "\\u0000" not in data.replace("\\\\", "")
    data.encode()
    json.loads(data, parse_constant=lambda name: 1 / 0)
    assert decode(flow, "p1", "make", data) == copy


@fuzz(150)
@given(flows_and_fields(objects))
def test_what_people_give_is_read_or_refused_by_name_and_told_what_there_is(given: tuple[Flow[Any], dict[str, Any]]) -> None:
    flow, fields = given
    try:
        process = read(flow, fields, "p1", "make")
    except InvalidData as error:
        assert str(error) and "Traceback" not in str(error)
        return
    assert (process.id, process.status) == ("p1", "make")
    assert set(fields) <= set(flow.model.model_fields)
    assert takes(flow)
