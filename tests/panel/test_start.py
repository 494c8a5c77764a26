"""The form for a new process: by its model, as JSON, as a command; and that a form gives back what it was filled with."""

from __future__ import annotations

import json
import shlex
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward import END, Flow, Onward, Process, stage
from onward.panel.shown import fields as form
from onward.testing import ManualClock
from panel.conftest import Panel, entered
from panel.odd import CANARY, NASTY, Doc, Step, docs, filled_file, opened
from panel.scene import FLOWS
from panel.strict import Html
from panel.test_acts import fields, form_to, query_of
from panel.walk import digest

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
async def odd(path: Path) -> AsyncIterator[Panel]:
    async with entered(opened(await filled_file(path, NOW), ManualClock(NOW))) as panel:
        yield panel


async def data_of(panel: Panel, id: str) -> Any:
    return json.loads((await panel.app.get(id)).data)


async def test_the_form_has_a_field_for_each_property_of_its_kind(odd: Panel) -> None:
    facts = (await odd.get("/start.json?flow=doc")).json()
    assert {one["name"]: one["kind"] for one in facts["fields"]} == {
        "topic": "text", "token": "secret", "pages": "number", "price": "number", "urgent": "truth", "colour": "choice",
        "words": "lines", "counts": "lines", "address": "json", "nickname": "text", "files": "json", "log": "lines",
        "fate": "text",
    }  # fmt: skip
    topic = facts["fields"][0]
    assert (topic["required"], topic["help"], topic["text"]) == (True, "What it is about.", "")
    sent = fields(form_to(await odd.get("/start?flow=doc"), "/start", **{"field.pages": "1"}))
    assert (sent["field.colour"], sent["field.urgent"], sent["field.files"]) == ('"red"', "false", "{}")


async def test_what_the_form_says_is_started_and_shown(odd: Panel) -> None:
    sent = fields(form_to(await odd.get("/start?flow=doc"), "/start", **{"field.pages": "1"}))
    typed = {
        "id": "mine", "field.topic": NASTY, "field.token": CANARY, "field.pages": "12", "field.price": "1e2",
        "field.urgent": "true",
        "field.colour": '"green"', "field.words": "one\r\n\r\n two \r\n", "field.counts": "1\r\n-2", "field.nickname": "Bo",
        "field.address": '{"street": "Hill", "number": 3}', "field.files": '{"a": "b"}',
    }  # fmt: skip
    answer = await odd.post("/start", **{**sent, **typed})
    assert answer.status == 303, Html(answer.text).root.text
    assert query_of(answer) == {"id": "mine", "done": "Started mine"}
    assert await data_of(odd, "mine") == {
        "topic": NASTY, "token": {"$secret": CANARY}, "pages": 12, "price": 100.0, "urgent": True, "colour": "green",
        "words": ["one", " two "], "counts": [1, -2], "nickname": "Bo", "address": {"street": "Hill", "number": 3},
        "files": {"a": "b"}, "log": [], "fate": "",
    }  # fmt: skip
    [entry] = await odd.app.history("mine")
    assert (entry.actor, entry.kind) == ("ada (panel)", "started by hand")
    assert (await odd.get(answer.header("location"))).status == 200


async def test_only_what_differs_from_the_defaults_is_given(odd: Panel) -> None:
    sent = fields(form_to(await odd.get("/start?flow=doc"), "/start", **{"field.pages": "1"}))
    answer = await odd.post("/start", **{**sent, "field.topic": "x", "show": "command"})
    [command] = Html(answer.text).one(id="command").all(class_="command-text")
    assert command.text == """onward start doc --data '{"topic": "x"}'"""


@pytest.mark.parametrize(
    ("typed", "name", "fault"),
    [
        ({}, "topic", "Field required"),
        ({"field.topic": "x", "field.pages": "x"}, "pages", "no whole number"),
        (
            {"field.topic": "x", "field.address": '{"street": 1, "number": 2}'},
            "address",
            "street: Input should be a valid string",
        ),
    ],
)
async def test_a_fault_stands_beside_its_field_and_nothing_is_started(
    odd: Panel, path: Path, typed: dict[str, str], name: str, fault: str
) -> None:
    before = digest(path)
    sent = fields(form_to(await odd.get("/start?flow=doc"), "/start", **{"field.pages": "1"}))
    answer = await odd.post("/start", **{**sent, "id": "mine", "field.nickname": "kept", **typed})
    assert answer.status == 422
    again = form_to(answer, "/start", **{"field.nickname": "kept", "id": "mine"})
    [wrong] = [one for one in again if one.get("aria-invalid") == "true"]
    assert wrong.get("name") == f"field.{name}" and fault in again.text
    assert digest(path) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "this is no JSON"),
        ("3", "no object"),
        ('{"subject": 1}', "no field 'subject'"),
        ('{"topic": "x", "status": "done"}', "status"),
        ('{"topic": "x", "topic": "y"}', "twice"),
        ('{"topic": null}', "topic: Input should be a valid string"),
    ],
)
async def test_s12_json_that_does_not_fit_is_refused_and_stands_there_again(odd: Panel, path: Path, text: str, says: str) -> None:
    before = digest(path)
    answer = await odd.post("/start", [("flow", "doc"), ("json", text)])
    assert answer.status == 422 and says in Html(answer.text).root.text
    assert form_to(answer, "/start", json=text)
    assert digest(path) == before


async def test_programs_start_with_json(odd: Panel) -> None:
    answer = await odd.post_json("/start", {"flow": "doc", "id": "mine", "data": {"topic": "x", "pages": 3}})
    assert (answer.status, answer.json()["is_new"], answer.json()["process"]["id"]) == (201, True, "mine")
    again = await odd.post_json("/start", {"flow": "doc", "id": "mine", "data": {"topic": "x", "pages": 3}})
    assert (again.status, again.json()["is_new"]) == (200, False)
    other = await odd.post_json("/start", {"flow": "doc", "id": "mine", "data": {"topic": "other"}})
    assert (other.status, other.json()["error"]["code"]) == (409, "conflict")
    wrong = await odd.post_json("/start", {"flow": "doc", "data": {"topic": 1}})
    assert (wrong.status, wrong.json()["error"]["code"]) == (422, "invalid")


async def test_an_id_that_exists_starts_nothing_twice(odd: Panel, path: Path) -> None:
    sent = [("flow", "doc"), ("id", "mine"), ("json", '{"topic": "x"}')]
    assert query_of(await odd.post("/start", sent))["done"] == "Started mine"
    before = digest(path)
    assert "nothing was started twice" in query_of(await odd.post("/start", sent))["done"]
    other = await odd.post("/start", [("flow", "doc"), ("id", "mine"), ("json", '{"topic": "y"}')])
    assert other.status == 409 and "started with other input" in Html(other.text).root.text
    assert form_to(other, "/start", json='{"topic": "y"}')
    assert digest(path) == before


@pytest.mark.parametrize("id", ["x" * 201, "a\nb", "\u202e", " "])
async def test_an_id_that_names_nothing_is_refused(odd: Panel, path: Path, id: str) -> None:
    before = digest(path)
    answer = await odd.post_json("/start", {"flow": "doc", "id": f"a{id}b" if id != " " else " \u202e ", "data": {"topic": "x"}})
    assert answer.status == 422, answer.text
    assert digest(path) == before


async def test_the_command_is_quoted_for_a_shell_and_masks_secrets(odd: Panel, path: Path) -> None:
    before = digest(path)
    data = {"topic": "it's", "token": CANARY}
    answer = await odd.post("/start", [("flow", "doc"), ("id", "a b"), ("json", json.dumps(data)), ("show", "command")])
    assert answer.status == 200
    [command] = Html(answer.text).one(id="command").all(class_="command-text")
    words = shlex.split(command.text)
    assert words[:5] == ["onward", "start", "doc", "--id", "a b"]
    assert json.loads(words[6]) == {"topic": "it's", "token": "••••••••"}
    assert digest(path) == before


async def test_which_flow_is_asked_where_there_are_several(path: Path) -> None:
    async with entered(Onward(f"sqlite:///{path}", [*FLOWS, docs])) as panel:
        html = Html((await panel.get("/start")).text)
        assert [link.text for link in html.one("main").all("a", class_="button")] == ["doc", "letter", "purchase", "report"]
        assert (await panel.get("/start.json")).json()["flow"] == ""
        wrong = await panel.get("/start?flow=docs")
        assert wrong.status == 404 and "did you mean doc?" in Html(wrong.text).root.text
        assert (await panel.post("/start", [("flow", "docs"), ("json", "{}")])).status == 404
        assert (await panel.post_json("/start", {"flow": ["doc"]})).status == 400
    async with entered(Onward(f"sqlite:///{path}", [docs])) as panel:
        assert (await panel.get("/start.json")).json()["flow"] == "doc"


async def test_a_viewer_reads_that_to_start_takes_an_operator(odd: Panel) -> None:
    assert "takes an operator" in Html((await odd.seen_by("viewer").get("/start?flow=doc")).text).root.text


# -- fields ---------------------------------------------------------------------------------------------------------------------


class Curious:
    """A type that has no JSON schema."""


class Strange(Process[Step]):
    model_config = {"arbitrary_types_allowed": True}
    status: Step = Step.FETCH
    name: str = ""
    thing: Curious | None = None


class Loose(Process[Step]):
    model_config = {"extra": "allow"}
    status: Step = Step.FETCH
    name: str = ""


def flow_of(model: Any) -> Flow[Any]:
    table: dict[Any, Any] = {step: stage_of(step) for step in Step if step is not Step.DONE}
    return Flow(model, {**table, Step.DONE: END})


def stage_of(step: Step) -> Any:
    from typing import Literal

    order = list(Step)
    following = order[order.index(step) + 1]

    def handler(process: Any) -> Any:
        return following

    handler.__annotations__ = {"process": Any, "return": Literal[following]}
    return stage(handler)


def test_a_model_without_a_schema_is_edited_as_json() -> None:
    assert form.form(flow_of(Strange), {"name": "x"}) == []


def test_a_model_that_takes_anything_keeps_what_it_has() -> None:
    flow, values = flow_of(Loose), {"name": "x", "more": [1]}
    assert form.read(flow, values, {"field.name": "y"}) == ({"more": [1], "name": "y"}, {})
    assert form.read(docs, {"topic": "x", "gone": 1}, {"field.topic": "y"})[0] == {"topic": "y"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(values=st.dictionaries(st.sampled_from([*Doc.model_fields, "other"]), JSON))
def test_a_form_gives_back_whatever_it_was_filled_with(values: dict[str, Any]) -> None:
    """Also what does not fit the model: it may be what a person came to mend."""
    shown = {one["field"]: one["text"].replace("\n", "\r\n") for one in form.form(docs, values)}
    said, faults = form.read(docs, values, shown)
    wanted = {name: value for name, value in values.items() if name not in ("id", "status", "other")}
    assert not faults
    assert json.dumps(said, sort_keys=True) == json.dumps(wanted, sort_keys=True)


@settings(max_examples=200, deadline=None)
@given(texts=st.dictionaries(st.sampled_from([f"field.{name}" for name in Doc.model_fields]), st.text()))
def test_whatever_is_typed_is_a_value_or_a_fault_of_its_field(texts: dict[str, str]) -> None:
    said, faults = form.read(docs, {}, texts)
    assert not said.keys() & faults.keys()
    assert said.keys() | faults.keys() <= Doc.model_fields.keys()
    json.dumps(said, allow_nan=False)
