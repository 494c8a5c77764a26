"""Between the typed process and the JSON in its row: what fits comes back equal, and all that does not is refused by name."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum, auto
from typing import Any, Literal, cast
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, SecretStr, computed_field, field_serializer, model_validator

from onward import END, Flow, InvalidData, Process, Retry, stage
from onward.codec import FAULTS_MAX, PAYLOAD_MAX, decode, encode, printable


class Step(StrEnum):
    MAKE = auto()
    DONE = auto()


def flow_of(model: type[Process[Step]]) -> Flow[Step]:
    def make(process: Any) -> Literal[Step.DONE]: ...

    return Flow(model, {Step.MAKE: stage(make, retry=Retry(1)), Step.DONE: END})


class Loose(Process[Step]):
    status: Step = Step.MAKE
    text: str = ""
    number: float = 0.0
    whole: int = 0
    anything: Any = None
    named: dict[str, Any] = {}


LOOSE = flow_of(Loose)


def write(process: Any, flow: Flow[Any] = LOOSE) -> tuple[str, Any]:
    return encode(flow, process, "p1", "make")


def refused(process: Any, flow: Flow[Any] = LOOSE) -> str:
    with pytest.raises(InvalidData) as caught:
        write(process, flow)
    said = str(caught.value)
    assert said.startswith(f"{flow.name} p1: its data ")
    assert len(said) < 3_000 and printable(said, 10_000) == said
    return said


def unread(data: str, flow: Flow[Any] = LOOSE) -> str:
    with pytest.raises(InvalidData) as caught:
        decode(flow, "p1", "make", data)
    said = str(caught.value)
    assert said.startswith(f"{flow.name} p1: its data ")
    assert len(said) < 3_000 and printable(said, 10_000) == said
    return said


# -- the good case ------------------------------------------------------------------------------------------------


def test_id_and_status_have_columns_of_their_own_and_are_not_in_the_data():
    data, copy = write(Loose(id="p1", text="hi"))
    assert json.loads(data) == {"text": "hi", "number": 0.0, "whole": 0, "anything": None, "named": {}}
    assert copy == Loose(id="p1", text="hi")


def test_the_copy_stands_at_the_status_that_was_committed_and_not_where_the_handler_left_it():
    _, copy = encode(LOOSE, Loose(id="p1"), "p1", "done")
    assert copy.status is Step.DONE


def test_a_row_cannot_name_another_id_or_status_than_its_columns():
    """Somebody who edits by hand pastes the whole process, and the last word of a JSON object wins."""
    assert "holds another id or status" in unread('{"id":"p2"}')
    assert "holds another id or status" in unread('{"text":"hi","status":"done"}')
    assert decode(LOOSE, "p1", "make", '{"id":"p1","status":"make","text":"hi"}').text == "hi"


def test_the_copy_shares_nothing_with_the_original():
    nested: dict[str, Any] = {"list": [1, {"deep": []}]}
    process = Loose(id="p1", anything=nested, named=nested)
    data, copy = write(process)
    process.anything["list"].append("changed")
    process.named["list"][1]["deep"].append("changed")
    assert copy.anything == copy.named == {"list": [1, {"deep": []}]}
    copy.anything["list"].append("other")
    assert copy.named == {"list": [1, {"deep": []}]}
    assert decode(LOOSE, "p1", "make", data).named == {"list": [1, {"deep": []}]}


def test_a_mutable_default_is_not_shared_between_copies():
    one, two = decode(LOOSE, "p1", "make", "{}"), decode(LOOSE, "p2", "make", "{}")
    one.named["x"] = 1
    assert two.named == {} and Loose().named == {}


def test_a_model_without_fields_of_its_own_is_an_empty_object():
    class Bare(Process[Step]):
        status: Step = Step.MAKE

    assert write(Bare(id="p1"), flow_of(Bare)) == ("{}", Bare(id="p1"))


def test_what_the_next_handler_gets_is_what_a_restart_would_give_it():
    _, copy = write(Loose(id="p1", anything={"when": datetime(2025, 1, 1, tzinfo=UTC), "set": {1}, 3: (1, 2)}))
    assert copy.anything == {"when": "2025-01-01T00:00:00Z", "set": [1], "3": [1, 2]}


# -- poison -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"text": "a\0b"}, {"named": {"\0": "x"}}, {"anything": [{"a": ["\\", "\0"]}]}])
def test_a_nul_is_refused_because_no_database_but_sqlite_keeps_it(fields):
    with pytest.raises(InvalidData, match=f"holds a NUL character in {next(iter(fields))}") as refused:
        write(Loose(id="p1", **fields))
    assert refused.value.hint == "take it out: text.replace('\\0', '')"


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "a\\", "\\\\"])
def test_text_that_only_spells_a_nul_is_kept(text):
    data, copy = write(Loose(id="p1", text=text, named={text: text}))
    assert "\0" not in data and (copy.text, copy.named) == (text, {text: text})


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "\ud800"},
        {"anything": ["\udfff"]},
        {"anything": {"\ud800": 1}},
        {"named": {"\ud800": 1}},
        {"named": {"x": {"\ud800": 1}}},
        {"named": dict.fromkeys(["\ud800", "\ud801"], 1)},
    ],
    ids=lambda fields: ascii(fields),
)
def test_lone_surrogates_are_refused_and_never_replaced_in_silence(fields):
    refused(Loose(id="p1", **fields))


def test_a_replacement_character_that_is_really_there_is_kept():
    process = Loose(id="p1", text="\ufffd\ufffd\ufffd", named={"\ufffd\ufffd\ufffd": 1})
    assert write(process)[1] == process


@pytest.mark.parametrize("value, said", [("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")])
def test_what_json_does_not_have_is_refused_in_every_field(value, said):
    process = Loose(id="p1")
    process.number = float(value)  # past the validation of pydantic
    assert refused(process) == f"loose p1: its data holds {said}, which JSON does not have"
    for anything in (float(value), [float(value)], {"a": {"b": float(value)}}):
        assert refused(Loose(id="p1", anything=anything)) == f"loose p1: its data holds {said}, which JSON does not have"


def test_text_that_only_speaks_of_nan_is_text():
    process = Loose(id="p1", text="NaN, Infinity and -Infinity", anything=["NaN"], named={"NaN": "Infinity"})
    assert write(process)[1] == process


def test_integers_of_five_thousand_digits_are_refused():
    for fields in ({"whole": 10**5_000}, {"anything": [10**5_000]}, {"whole": -(10**5_000)}):
        refused(Loose(id="p1", **fields))
    refused(Loose(id="p1", anything=10**5_000, text="NaN"))
    unread('{"whole":1' + "0" * 5_000 + "}")
    unread('{"anything":1' + "0" * 5_000 + "}")


def test_integers_beyond_64_bits_are_kept_exactly():
    process = Loose(id="p1", whole=2**200 + 1, anything=[-(2**64), 10**4_000])
    assert write(process)[1] == process


def nest(kind: str, depth: int) -> Any:
    whole: Any = []
    for _ in range(depth):
        whole = [whole] if kind == "list" else {"a": whole}
    return whole


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_nesting_of_ten_thousand_is_refused(kind):
    refused(Loose(id="p1", anything=nest(kind, 10_000)))
    unread('{"anything":' + ("[" if kind == "list" else '{"a":') * 10_000 + "}")
    unread('{"anything":' + "[" * 10_000 + "]" * 10_000 + "}")


def test_nesting_of_a_hundred_is_kept():
    process = Loose(id="p1", anything=nest("list", 100), named={"a": nest("dict", 100)})
    assert write(process)[1] == process


def test_what_holds_itself_is_refused():
    ring: list[Any] = []
    ring.append(ring)
    refused(Loose(id="p1", anything=ring))


def test_data_over_the_limit_is_refused_and_says_what_to_do():
    frame = len(write(Loose(id="p1"))[0])
    data, _ = write(Loose(id="p1", text="x" * (PAYLOAD_MAX - frame)))
    assert len(data) == PAYLOAD_MAX
    with pytest.raises(InvalidData) as caught:
        write(Loose(id="p1", text="x" * (PAYLOAD_MAX - frame + 1)))
    assert str(caught.value) == "loose p1: its data is 1,000,001 characters of JSON, the limit PAYLOAD_MAX is 1,000,000"
    assert caught.value.hint == "keep the large part in a file or object store, and its name in the process"


@pytest.mark.parametrize("junk", [object(), print, sys, lambda: 1, b"\xff", {"x": object()}, NotImplemented])
def test_what_is_no_json_is_refused(junk):
    assert "cannot be written as JSON" in refused(Loose(id="p1", anything=junk))


class Crooked:
    def __repr__(self) -> str:
        return "\x1b[31m\ud800" * 2_000


def test_a_crooked_object_is_refused_in_printable_words():
    refused(Loose(id="p1", anything=Crooked()))
    refused(Loose(id="p1", anything=type("\x07Bell", (), {})()))


def test_a_field_that_the_handler_left_in_a_wrong_type_is_named():
    process = Loose(id="p1")
    process.whole = "many"  # type: ignore[assignment]
    assert refused(process) == (
        "loose p1: its data does not fit Loose: whole: Input should be a valid integer, unable to parse string as an integer"
    )


def test_a_field_that_is_gone_is_named():
    class Strict(Process[Step]):
        status: Step = Step.MAKE
        needed: int

    process = Strict(id="p1", needed=1)
    del process.needed
    assert "needed: Field required" in refused(process, flow_of(Strict))


def test_a_secret_is_refused_and_not_replaced_by_asterisks():
    class Safe(Process[Step]):
        status: Step = Step.MAKE
        token: SecretStr = SecretStr("")
        note: str = ""

    flow = flow_of(Safe)
    said = refused(Safe(id="p1", token=SecretStr("hush")), flow)
    assert said == "safe p1: its data would come back with another token than was written"
    assert write(Safe(id="p1", note="**********"), flow)[1].note == "**********"


def test_all_fields_that_do_not_fit_are_named_up_to_a_number():
    class Wide(Process[Step]):
        status: Step = Step.MAKE
        a: int
        b: int
        c: int
        d: int
        e: int
        f: int
        g: list[int]

    said = unread('{"a":1,"g":[1,"x"]}', flow_of(Wide))
    assert said == (
        "wide p1: its data does not fit Wide: b: Field required; c: Field required; d: Field required; e: Field required; "
        "f: Field required (and 1 more)"
    )
    assert said.count("Field required") == FAULTS_MAX
    assert "g.1: Input should be a valid integer" in unread('{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":[1,"x"]}', flow_of(Wide))


# -- rows that are not what they were -----------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["", "[]", "null", "5", '"text"', "nonsense", " {}", "\ufeff{}", "\0", "\ud800"])
def test_what_is_no_json_object_is_unreadable(data):
    assert "is no JSON object" in unread(data)


@pytest.mark.parametrize(
    "data",
    [
        *[
            "{",
            '{"a"',
            '{"a":',
            '{"a":1',
            '{"a":1,',
            '{"a":1}}',
            "{}{}",
            "{}x",
            "{,}",
            '{"text":"a',
            '{"text":"\\ud800"}',
            "{1:2}",
        ],
        '{"text":"\0"}',
        "{'text':1}",
        '{"text":"\\x"}',
        "{" * 100_000,
        '{"text":"\ud800"}',
        '{"text":"\udc80\udcff"}',
        "{\udcff}",
    ],
    ids=lambda data: ascii(data[:20]),
)
def test_corrupt_data_is_unreadable_and_no_crash(data):
    unread(data)


def test_every_truncation_of_a_row_is_unreadable():
    data, _ = write(Loose(id="p1", text='}"}', anything={"a": ["}", {"b": 1}]}, named={"id": "p1"}))
    for cut in range(len(data)):
        unread(data[:cut])


def test_a_status_that_the_enum_does_not_have_is_named():
    with pytest.raises(InvalidData) as caught:
        decode(LOOSE, "p1", "gone", "{}")
    assert str(caught.value) == "loose p1: its data does not fit Loose: status: Input should be 'make' or 'done'"


class Crash(Exception):
    def __str__(self) -> str:
        raise RuntimeError("its text cannot be read either")


@pytest.mark.parametrize("error", [KeyError("old"), TypeError("no"), ZeroDivisionError(), AttributeError("x"), Crash()], ids=repr)
def test_whatever_the_users_own_validators_and_serializers_raise_makes_the_row_unreadable_and_nothing_else(error):
    class Checked(Process[Step]):
        status: Step = Step.MAKE
        text: str = ""

        @model_validator(mode="before")
        @classmethod
        def upgrade(cls, data: Any) -> Any:
            if isinstance(data, dict) and data.get("text") == "old":
                raise error
            return data

        @field_serializer("text")
        def shorten(self, text: str) -> str:
            if text == "long":
                raise error
            return text

    unread('{"text":"old"}', flow_of(Checked))
    refused(Checked(id="p1", text="long"), flow_of(Checked))
    process = Checked(id="p1")
    process.text = "old"
    refused(process, flow_of(Checked))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=30).map(lambda text: "{" + text) | st.text(st.characters(), max_size=30))
def test_whatever_stands_in_the_row_is_read_or_refused_and_nothing_else(data):
    try:
        process = decode(LOOSE, "p1", "make", data)
    except InvalidData:
        return
    assert (process.id, process.status) == ("p1", Step.MAKE)


quoted = st.sampled_from(["", '"', "\\", '","status":"done', "\x00", "\ud800", "é", "😀", "}"])


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=20), quoted)
def test_no_id_can_break_out_of_its_quotes(text, more):
    id = text + more
    try:
        process = decode(LOOSE, id, "make", "{}")
    except InvalidData:
        assert any("\ud800" <= char <= "\udfff" for char in id)
        return
    assert (process.id, process.status) == (id, Step.MAKE)


# -- models of all kinds ------------------------------------------------------------------------------------------


class Kind(Enum):
    A = 1
    B = "b"


class Part(BaseModel):
    name: str
    size: int | None = None
    parts: list[Part] = []


class Rich(Process[Step]):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    status: Step = Step.MAKE
    text: str = ""
    number: float = 0.0
    whole: int = 0
    yes: bool | None = None
    when: datetime | None = None
    day: date | None = None
    took: timedelta = timedelta(0)
    money: Decimal = Decimal(0)
    kind: Kind = Kind.A
    raw: bytes = b""
    part: Part | None = None
    parts: list[Part] = []
    by_name: dict[str, Part] = {}
    by_number: dict[int, list[str]] = {}
    by_kind: dict[Kind, int] = {}
    pair: tuple[int, str] = (0, "")
    seen: set[int] = set()
    few: frozenset[str] = frozenset()
    token: UUID = UUID(int=0)
    choice: Literal["x", "y"] = "x"
    either: int | str = 0
    anything: Any = None


RICH = flow_of(Rich)

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
wholes = st.integers(-(2**80), 2**80)
part_leaves = st.builds(Part, name=texts, size=st.none() | wholes)
any_part = st.recursive(part_leaves, lambda inner: st.builds(Part, name=texts, parts=st.lists(inner, max_size=2)), max_leaves=4)
plain = st.recursive(
    st.none() | st.booleans() | wholes | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
rich = st.builds(
    Rich,
    id=st.just("p1"),
    status=st.just(Step.MAKE),
    text=texts,
    number=st.floats(allow_nan=False, allow_infinity=False),
    whole=wholes,
    yes=st.none() | st.booleans(),
    when=st.none() | st.datetimes(timezones=st.just(UTC)) | st.datetimes(),
    day=st.none() | st.dates(),
    took=st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    money=st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12),
    kind=st.sampled_from(Kind),
    raw=st.binary(max_size=20),
    part=st.none() | any_part,
    parts=st.lists(any_part, max_size=3),
    by_name=st.dictionaries(texts, any_part, max_size=2),
    by_number=st.dictionaries(wholes, st.lists(texts, max_size=2), max_size=2),
    by_kind=st.dictionaries(st.just(Kind.B), wholes),
    pair=st.tuples(wholes, texts),
    seen=st.sets(wholes, max_size=3),
    few=st.frozensets(texts, max_size=3),
    token=st.uuids(),
    choice=st.sampled_from(["x", "y"]),
    either=wholes | texts,
    anything=plain,
)


@settings(max_examples=200, deadline=None)
@given(rich)
def test_what_is_written_comes_back_equal(process):
    data, copy = write(process, RICH)
    assert copy == process
    assert decode(RICH, "p1", "make", data) == process
    assert write(copy, RICH)[1] == copy
    assert isinstance(json.loads(data), dict) and "\0" not in data


def test_bytes_that_are_no_text_ask_for_base64():
    class Raw(Process[Step]):
        status: Step = Step.MAKE
        raw: bytes = b""

    assert write(Raw(id="p1", raw=b"text"), flow_of(Raw))[1].raw == b"text"
    assert "cannot be written as JSON" in refused(Raw(id="p1", raw=b"\xff"), flow_of(Raw))


def alias_model(**field: Any) -> Any:
    class Aliased(Process[Step]):
        status: Step = Step.MAKE
        size: int = cast(Any, Field)(0, **field)

    return Aliased


@pytest.mark.parametrize(
    "field",
    [
        {"alias": "Size"},
        {"validation_alias": "Size"},
        {"serialization_alias": "Size"},
        {"validation_alias": "in", "serialization_alias": "out"},
    ],
    ids=str,
)
def test_fields_with_an_alias_are_kept_by_their_own_name(field):
    model = alias_model(**field)
    process = model(id="p1", **{field.get("alias") or field.get("validation_alias") or "size": 5})
    assert process.size == 5
    data, copy = write(process, flow_of(model))
    assert (data, copy) == ('{"size":5}', process)


def test_a_config_that_makes_aliases_of_all_names_is_no_trouble():
    class Inner(BaseModel):
        model_config = ConfigDict(alias_generator=str.upper, serialize_by_alias=True)
        depth: int = 0

    class Shouted(Process[Step]):
        model_config = ConfigDict(alias_generator=str.upper, serialize_by_alias=True)
        status: Step = Step.MAKE
        size: int = 0
        inner: Inner = Inner()

    process = Shouted(ID="p1", SIZE=5, INNER={"DEPTH": 3})  # type: ignore[call-arg]
    assert write(process, flow_of(Shouted)) == ('{"size":5,"inner":{"depth":3}}', process)


def test_extra_fields_are_kept_where_the_model_allows_them():
    class Open(Process[Step]):
        model_config = ConfigDict(extra="allow")
        status: Step = Step.MAKE

    process = Open(id="p1", size=5, inner={"deep": [1]})  # type: ignore[call-arg]
    data, copy = write(process, flow_of(Open))
    assert copy == process and json.loads(data) == {"size": 5, "inner": {"deep": [1]}}
    setattr(process, "\ud800", 1)
    refused(process, flow_of(Open))


def test_extra_fields_are_ignored_or_refused_as_the_model_says():
    class Closed(Process[Step]):
        model_config = ConfigDict(extra="forbid")
        status: Step = Step.MAKE

    assert "size: Extra inputs are not permitted" in unread('{"size":5}', flow_of(Closed))
    assert decode(LOOSE, "p1", "make", '{"size":5}') == Loose(id="p1")


def test_computed_fields_are_not_data():
    class Sized(Process[Step]):
        model_config = ConfigDict(extra="forbid")
        status: Step = Step.MAKE
        width: int = 2

        @computed_field
        def area(self) -> int:
            return self.width**2

    assert write(Sized(id="p1", width=3), flow_of(Sized)) == ('{"width":3}', Sized(id="p1", width=3))


def test_a_field_of_json_text_comes_back_as_what_it_holds():
    class Texted(Process[Step]):
        status: Step = Step.MAKE
        inner: Json[list[int]] = Field(default=[])

    process = Texted(id="p1", inner="[1, 2]")  # type: ignore[arg-type]
    assert write(process, flow_of(Texted))[1].inner == [1, 2]


@pytest.mark.parametrize("config", [{"strict": True}, {"frozen": True}, {"use_enum_values": True}, {"validate_assignment": True}])
def test_the_usual_settings_of_a_model_are_no_trouble(config):
    class Set(Process[Step]):
        model_config = cast(ConfigDict, config)
        status: Step = Step.MAKE
        when: datetime | None = None
        kind: Kind = Kind.A

    process = Set(id="p1", when=datetime(2025, 1, 1, tzinfo=UTC), kind=Kind.B)
    assert write(process, flow_of(Set))[1] == process


# -- printable ----------------------------------------------------------------------------------------------------

FORBIDDEN = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)} - {9, 10}
troublesome = st.sampled_from([chr(code) for code in FORBIDDEN] + ["\ud800", "\udbff", "\udc00", "\udfff"])
anything_typed = st.lists(st.characters() | troublesome, max_size=60).map("".join)  # text() leaves out lone surrogates


@settings(max_examples=300)
@given(anything_typed, st.integers(0, 40))
def test_printable_leaves_nothing_that_could_break_a_log(text, most):
    shown = printable(text, most)
    assert not any(ord(char) in FORBIDDEN or "\ud800" <= char <= "\udfff" for char in shown)
    shown.encode("utf-8")
    if len(text) <= most:
        assert len(shown) == len(text)
    else:
        assert shown[most:] == f"… ({len(text):,} characters)"
    assert printable(shown, 1_000) == shown


def test_printable_keeps_what_people_write():
    for text in ("plain", "zwei\nZeilen\tmit Tab", "Ωμέγα 漢字 😀 é", ""):
        assert printable(text) == text
