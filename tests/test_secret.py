"""Secrets: plain to handlers, and shown by nobody: no face, no log, no error."""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import pytest
from cli_project import Project, shop
from conftest import Step, opened, work_off
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, ValidationError, model_validator

from onward import END, Flow, InvalidData, Process, Retry, Secret, Unrecoverable, stage
from onward.codec import decode, encode
from onward.explain import explain
from onward.secret import KEY, MARK, MASK, SECRET_CHARS_MIN, Hider, holds_secrets, masked
from onward.telling.diff import changes
from onward.telling.secrets import restored
from onward.telling.shapes import stored

CANARY = "c4n4ry/tweet+tweet '1'"
OTHER = "0ther-c4n4ry"


class Inner(BaseModel):
    key: Secret[str] = CANARY
    size: int = 0


class Vault(Process[Step]):
    status: Step = Step.MAKE
    token: Secret[str] = CANARY
    pin: Secret[int] | None = None
    either: int | Secret[str] = 5
    many: list[Secret[str]] = []
    named: dict[str, Secret[str]] = {}
    inner: Inner = Inner()
    whole: Secret[Inner] = Inner()
    plain: str = "plain"


def flow_of(model: type[Process[Step]], make: Any = None) -> Flow[Step]:
    def nothing(process: Any) -> Literal[Step.DONE]:
        return Step.DONE

    return Flow(model, {Step.MAKE: stage(make or nothing, retry=Retry(1)), Step.DONE: END})


VAULT = flow_of(Vault)


def full() -> Vault:
    return Vault(id="p1", pin=98765432, either=OTHER, many=[CANARY, OTHER], named={"a": OTHER}, plain="seen")


# -- the row ------------------------------------------------------------------------------------------------------


def test_the_row_marks_each_secret_and_its_handler_gets_the_plain_value():
    data, copy = encode(VAULT, full(), "p1", "make")
    assert json.loads(data) == {
        "token": {"$secret": CANARY},
        "pin": {"$secret": 98765432},
        "either": {"$secret": OTHER},
        "many": [{"$secret": CANARY}, {"$secret": OTHER}],
        "named": {"a": {"$secret": OTHER}},
        "inner": {"key": {"$secret": CANARY}, "size": 0},
        "whole": {"$secret": {"key": {"$secret": CANARY}, "size": 0}},
        "plain": "seen",
    }
    assert copy == full() and type(copy.token) is str and copy.whole.key == CANARY


def test_what_is_no_secret_stays_plain_beside_it():
    assert json.loads(encode(VAULT, Vault(id="p1"), "p1", "make")[0])["either"] == 5
    assert json.loads(encode(VAULT, Vault(id="p1"), "p1", "make")[0])["pin"] is None


@pytest.mark.parametrize("form", ["plain", "wrapped"])
def test_input_is_taken_plain_or_wrapped(form):
    token: Any = CANARY if form == "plain" else {"$secret": CANARY}
    assert decode(VAULT, "p1", "make", json.dumps({"token": token, "many": [token], "whole": {"key": token}})) == Vault(
        id="p1", many=[CANARY]
    )
    assert Vault(token=token).token == CANARY


def test_a_dump_for_python_is_plain_and_one_for_json_is_marked():
    assert full().model_dump()["token"] == CANARY and Vault(**full().model_dump()) == full()
    assert full().model_dump(mode="json")["token"] == {"$secret": CANARY}
    assert Vault.model_validate_json(full().model_dump_json()) == full()


def test_a_secret_that_would_be_the_key_of_a_dictionary_is_refused():
    class Keyed(Process[Step]):
        status: Step = Step.MAKE
        by: dict[Secret[str], int] = {}

    with pytest.raises(InvalidData) as refused:
        encode(flow_of(Keyed), Keyed(id="p1", by={CANARY: 1}), "p1", "make")
    assert "cannot be written as JSON" in str(refused.value) and CANARY not in str(refused.value)


def test_a_strict_model_keeps_what_json_has_and_refuses_the_rest_loudly():
    class Strict(Process[Step]):
        model_config = ConfigDict(strict=True)
        status: Step = Step.MAKE
        token: Secret[str] = CANARY
        ports: Secret[list[int]] = [1]

    class Dated(Strict):
        day: Secret[date] = date(2025, 1, 1)

    assert encode(flow_of(Strict), Strict(id="p1"), "p1", "make")[1] == Strict(id="p1")
    with pytest.raises(InvalidData, match="day: Input should be a valid date"):
        encode(flow_of(Dated), Dated(id="p1"), "p1", "make")


def test_pydantics_own_secret_is_refused_and_ours_is_named_instead():
    class Hidden(Process[Step]):
        status: Step = Step.MAKE
        token: SecretStr = SecretStr(CANARY)

    with pytest.raises(InvalidData) as refused:
        encode(flow_of(Hidden), Hidden(id="p1"), "p1", "make")
    assert "onward.Secret[str]" in refused.value.hint


def test_a_form_can_tell_by_the_schema_what_is_a_secret():
    fields = Vault.model_json_schema()["properties"]
    assert fields["token"][MARK] is True and fields["token"]["type"] == "string"
    assert fields["many"]["items"][MARK] is True and fields["whole"][MARK] is True
    assert MARK not in fields["plain"] and MARK not in fields["inner"]


class Without(Process[Step]):
    status: Step = Step.MAKE
    note: str = KEY
    extra: Any = None


class Deep(Process[Step]):
    status: Step = Step.MAKE
    inners: list[dict[str, Inner | None]] = []


class Recursive(Process[Step]):
    status: Step = Step.MAKE
    tree: Node | None = None


class Node(BaseModel):
    below: list[Node] = []
    key: Secret[str] = ""


Recursive.model_rebuild()


def test_it_is_known_which_models_have_secrets():
    assert [holds_secrets(model) for model in (Vault, Deep, Recursive, Inner, Without)] == [True, True, True, True, False]


# -- what shows a process -----------------------------------------------------------------------------------------


def test_a_process_that_is_printed_shows_no_secret():
    for text in (repr(full()), str(full()), f"{full()}", repr([full()])):
        assert CANARY not in text and OTHER not in text and "98765432" not in text
        assert "plain='seen'" in text and f"token='{MASK}'" in text and "size" in text
    assert repr(Without(id="p1")) == f"Without(id='p1', status={Step.MAKE!r}, note='$secret', extra=None)"


def test_a_process_that_cannot_be_written_down_is_printed_with_nothing_of_it():
    broken = full()
    broken.inner = {"a": broken}  # type: ignore[assignment]  # round in a circle
    assert CANARY not in repr(broken) and "seen" not in repr(broken) and "id='p1'" in repr(broken)


def test_errors_of_validation_do_not_quote_what_was_given():
    class Wants(Vault):
        needed: str

    for wrong in ({"pin": CANARY}, {"token": [CANARY]}, {"whole": {"size": CANARY}}, {"named": {"a": [OTHER]}}):
        with pytest.raises(ValidationError) as caught:
            Wants(id="p1", **wrong)
        assert CANARY not in str(caught.value) and OTHER not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        Inner(key=[CANARY])
    assert CANARY not in str(caught.value) and CANARY not in repr(caught.value.errors())
    assert caught.value.errors()[0]["loc"] == ("key",) and "valid string" in caught.value.errors()[0]["msg"]


def picky(text: str) -> str:
    if text.startswith("c4n"):
        raise ValueError(f"{text} is no good")
    return text


class Picky(Process[Step]):
    status: Step = Step.MAKE
    inside: Secret[Annotated[str, AfterValidator(picky)]] = ""
    outside: Annotated[Secret[str], AfterValidator(picky)] = ""
    last: Secret[str] = ""

    @model_validator(mode="after")
    def looks_at_all(self) -> Picky:
        picky(self.last)
        return self


@pytest.mark.parametrize("field", ["inside", "outside", "last"])
@pytest.mark.parametrize("form", ["plain", "wrapped"])
def test_what_a_validator_says_of_a_secret_is_masked(field, form):
    value: Any = CANARY if form == "plain" else {"$secret": CANARY}
    with pytest.raises(InvalidData) as refused:
        decode(flow_of(Picky), "p1", "make", json.dumps({field: value}))
    assert f"{MASK} is no good" in str(refused.value) and "c4n4ry" not in str(refused.value)


def test_what_a_validator_says_of_the_whole_row_is_masked():
    class Quoting(Process[Step]):
        status: Step = Step.MAKE
        token: Secret[str] = ""

        @model_validator(mode="before")
        @classmethod
        def quotes(cls, data: Any) -> Any:
            raise ValueError(f"what is {data}?")

    with pytest.raises(InvalidData) as refused:
        decode(flow_of(Quoting), "p1", "make", json.dumps({"token": {KEY: CANARY}}))
    assert "what is" in str(refused.value) and MASK in str(refused.value) and "c4n4ry" not in str(refused.value)


def test_what_faces_are_given_is_masked_also_where_the_row_is_broken():
    data, _ = encode(VAULT, full(), "p1", "make")
    assert stored(data)["token"] == MASK and stored(data)["whole"] == MASK and stored(data)["plain"] == "seen"
    for broken in (data[:-5], "[" * 100_000 + data):
        assert CANARY not in stored(broken) and "no JSON" in stored(broken)
    assert stored("no JSON, but no secret either") == "no JSON, but no secret either"


def test_a_diff_tells_that_a_secret_changed_and_not_what_it_is():
    before = {"a": {KEY: "one"}, "b": {KEY: "same"}, "c": {KEY: 1}, "gone": [{KEY: "x"}], "e": "text"}
    after = {"a": {KEY: "two"}, "b": {KEY: "same"}, "c": {KEY: True}, "new": {"k": {KEY: "y"}}, "e": {KEY: "text"}}
    told = [(change.path, change.kind, change.before, change.after) for change in changes(before, after)]
    assert [(path, kind) for path, kind, _, _ in told] == [
        ("$.a", "changed"), ("$.gone", "removed"), ("$.e", "changed"), ("$.new", "added"),
    ]  # fmt: skip
    assert told[0][2:] == (MASK, MASK) and told[1][2] == [MASK] and told[3][3] == {"k": MASK}
    assert told[2][2:] == ("text", MASK)


# -- masked, and back again ---------------------------------------------------------------------------------------

leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.just(MASK)
secrets = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)
values = st.recursive(
    leaves | secrets.map(lambda value: {KEY: value}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """As JSON: 1 and True are two things."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(values)
def test_what_was_masked_comes_back_as_it_was(value):
    assert same(restored(masked(value), value), value)


@given(values)
def test_nothing_secret_remains_in_what_is_masked(value):
    assert KEY not in json.dumps(masked(value))
    assert same(masked(masked(value)), masked(value))


@given(values, st.integers(0, 20), leaves.filter(lambda leaf: leaf != MASK))
def test_one_edited_element_changes_no_other(value, at, new):
    """In a list of named things, which is where secrets would go astray."""
    before = [{"name": number, "inside": value} for number in range(5)]
    edited = masked(before)
    edited[at % 5]["inside"] = new
    after = [dict(one) for one in before]
    after[at % 5]["inside"] = new
    assert same(restored(edited, before), after)


ACCOUNTS = [{"name": "a", "key": {KEY: "s1"}}, {"name": "b", "key": {KEY: "s2"}}]
SHOWN = masked(ACCOUNTS)


@pytest.mark.parametrize(
    ("new", "is_then"),
    [
        (SHOWN, ACCOUNTS),
        (SHOWN[::-1], ACCOUNTS[::-1]),
        (SHOWN[1:], ACCOUNTS[1:]),
        ([*SHOWN, {"name": "c", "key": "s3"}], [*ACCOUNTS, {"name": "c", "key": "s3"}]),
        ([{"name": "A", "key": MASK}, SHOWN[1]], [{"name": "A", "key": {KEY: "s1"}}, ACCOUNTS[1]]),
        ([{"name": "a", "key": "typed"}, SHOWN[1]], [{"name": "a", "key": "typed"}, ACCOUNTS[1]]),
        ([{"name": "a", "key": {KEY: MASK}}, SHOWN[1]], ACCOUNTS),
        ([], []),
    ],
    ids=["as it was", "turned round", "first removed", "one added", "renamed", "typed anew", "wrapped mask", "emptied"],
)
def test_each_secret_stays_with_its_own_when_a_list_is_edited(new, is_then):
    assert same(restored(new, ACCOUNTS), is_then)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ([SHOWN[1], {"name": "c", "key": MASK}], ACCOUNTS),
        ([MASK], [{KEY: "s1"}, {KEY: "s2"}]),
        ([MASK, MASK, MASK], [{KEY: "s1"}, {KEY: "s2"}]),
        ({"renamed": MASK}, {"name": {KEY: "s1"}}),
        ({"name": MASK}, {"name": "was no secret"}),
        ({"name": [MASK]}, {"name": {KEY: ["s1"]}}),
        (MASK, None),
    ],
)
def test_a_mask_of_which_nobody_knows_what_it_stood_for_is_refused(new, old):
    with pytest.raises(InvalidData, match="is the mask of a secret") as refused:
        restored(new, old)
    assert refused.value.hint == "type the secret anew in that place"


def test_of_two_equal_secrets_one_may_be_taken_away():
    assert restored([MASK], [{KEY: "s"}, {KEY: "s"}]) == [{KEY: "s"}]


# -- what others have written -------------------------------------------------------------------------------------


def hidden(text: str, secret: Any) -> str:
    hide = Hider(Vault)
    hide.learn(json.dumps({"token": {KEY: secret}}))
    return hide(text)


@pytest.mark.parametrize("secret", [CANARY, "ünïcödé-ключ", "a\nb\tc\\d\"e'f", "p%41ss w0rd&=?", "x" * 20_000, "😀😀😀😀😀😀"])
@pytest.mark.parametrize(
    "spelt", [str, repr, json.dumps, quote, lambda text: quote(text, safe=""), lambda text: quote(text).lower()]
)
def test_a_secret_is_found_in_a_text_however_it_is_spelt(secret, spelt):
    said = hidden(f"GET https://x/?key={spelt(secret)}&more failed", secret)
    assert said.startswith("GET https://x/?key=") and said.endswith("&more failed")
    assert said.strip("GET htps:/x?key=&morfaild\"'") == MASK


@given(st.text(min_size=SECRET_CHARS_MIN), st.text(), st.text())
def test_no_text_keeps_a_secret(secret, before, after):
    assert secret not in hidden(before + secret + after, secret).replace(MASK, "\0") or secret in MASK


def test_short_secrets_and_words_are_left_in_texts():
    assert hidden("the pin is 1234, true and yes", 1234) == "the pin is 1234, true and yes"
    assert hidden("pin 123456", 123456) == f"pin {MASK}"
    assert hidden("deep: 0ther-c4n4ry, key", {"key": [OTHER]}) == f"deep: {MASK}, key"
    assert hidden("abcdef abcdefgh", ["abcdef", "abcdefgh"]) == f"{MASK} {MASK}"


class Raised(Exception):
    """With the secret in its text."""


async def use(process: Vault) -> Literal[Step.DONE]:
    match process.plain:
        case "raises":
            raise Raised(f"401 for {process.token}")
        case "gives up":
            raise Unrecoverable(f"401 for {process.token!r}")
        case "grouped":
            raise ExceptionGroup("two", [ValueError(process.token), ValueError("b")])
        case "chained":
            try:
                raise KeyError(process.token)
            except KeyError as error:
                error.add_note(process.inner.key)
                raise Raised(quote(process.token, safe="")) from error
        case "fetched":
            process.token = "fr3sh-c4n4ry"
            raise Raised(f"refused: {process.token}")
        case "forgot":
            [old] = process.many
            process.many = []
            raise Raised(f"refused: {old}")
        case "misfits":
            process.pin = CANARY  # type: ignore[assignment]
    return Step.DONE


@pytest.mark.parametrize("how", ["raises", "gives up", "grouped", "chained", "fetched", "forgot", "misfits"])
async def test_no_secret_of_the_process_is_left_in_its_error_its_history_or_the_log(how, caplog):
    caplog.set_level(logging.DEBUG, "onward")
    async with opened(flow_of(Vault, use)) as app:
        await app.start(Vault(id="p1", plain=how, many=[OTHER]))
        await work_off(app)
        record = await app.get("p1")
        entries = await app.history("p1")
    assert "c4n4ry" not in repr(record) + repr(entries)
    assert record.condition == "failed" and record.error
    said = [record.error, *(entry.reason or "" for entry in entries), caplog.text, explain(record, app.flows["vault"])]
    for text in said:
        assert "c4n4ry" not in text
    if how != "misfits":
        assert MASK in record.error
    if how in ("raises", "grouped", "chained", "fetched"):
        assert "attempt 1 failed" in caplog.text and "Traceback" in caplog.text and "test_secret.py" in caplog.text
    assert record.process.token == CANARY


async def test_the_log_of_a_failure_that_names_no_secret_is_what_it_was(caplog):
    async def fails(process: Vault) -> Literal[Step.DONE]:
        raise Raised("nothing secret")

    async with opened(flow_of(Vault, fails)) as app:
        await app.start(Vault(id="p1"))
        await work_off(app)
    [line] = [line for line in caplog.records if "attempt 1 failed" in line.message]
    assert line.exc_info is not None and line.exc_info[0] is Raised


async def test_a_fork_is_told_of_no_secret_that_it_would_share():
    async with opened(VAULT) as app:
        await app.start(Vault(id="p1", token="file-68d1", plain="file-99aa"))
        assert await app.shared("p1") == ["file-99aa"]


# -- canaries through the command line ----------------------------------------------------------------------------

BANK = """
import os
from enum import StrEnum, auto
from pathlib import Path
from typing import Literal

from onward import END, Context, Flow, Onward, Process, Retry, Secret, stage


class Step(StrEnum):
    LOGIN = auto()
    PAY = auto()
    PAID = auto()


class Payment(Process[Step]):
    status: Step = Step.LOGIN
    token: Secret[str]
    spare: list[Secret[str]] = []
    mode: str = "good"


async def login(one: Payment, ctx: Context) -> Literal[Step.PAY]:
    if one.mode == "crash" and not Path("crashed").exists():
        Path("crashed").touch()
        os._exit(9)
    one.spare = [*one.spare, "fr3sh-" + one.token]
    return Step.PAY


async def pay(one: Payment) -> Literal[Step.PAID]:
    if one.mode != "good" and not Path("mended").exists():
        raise PermissionError(f"{one.token} with {one.spare!r} of {one} was refused")
    return Step.PAID


app = Onward("sqlite:///bank.db", flows=[Flow(Payment, {
    Step.LOGIN: stage(login, retry=Retry(first=0)), Step.PAY: stage(pay, retry=Retry(2, first=0)), Step.PAID: END})])
"""


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        (tmp_path / "bank.py").write_text(BANK)
        (tmp_path / "pyproject.toml").write_text('[tool.onward]\napp = "bank:app"\n')
        yield project


LOOKS = [line.split() for line in ("show {}", "show {} --version 1", "history {}", "explain {}", "diff {} 0..1", "diff {} 0")]
LOOKS += [line.split() for line in ("at {} 1", "export {}", "export {} --as-test", "export {} --as-test --at 0")]
LISTS = [["ls"], ["ls", "is:failed", "--by", "error"], ["check"], ["doctor"], ["watch", "bad"], ["show", "bad", "--data"]]
LISTS += [["at", "bad", "1", "--data"], ["compare", "good", "bad"]]


def test_canaries_come_out_of_no_command_in_no_shape(bank):
    said: list[str] = []

    def onward(*words: str) -> str:
        result = bank.run(*words)
        said.extend((result.stdout, result.stderr))
        return result.stdout

    def a_program_of_its_own(*words: str) -> int:
        command = [sys.executable, "-m", "onward", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said.extend((done.stdout, done.stderr))
        return done.returncode

    for mode in ("good", "bad", "crash"):
        onward("start", "payment", "--id", mode, "--json", "--data", json.dumps({"token": f"c4n4ry-{mode}", "mode": mode}))
    assert bank.run("start", "payment", "--set", 'token={"$secret": ["c4n4ry-wrong"]}').exit_code == 5
    onward("start", "payment", "--set", 'token={"$secret": ["c4n4ry-wrong"]}')
    onward("start", "payment", "--set", "token=c4n4ry-other", "--id", "bad")
    assert a_program_of_its_own("-v", "run", "--until-idle", "--lease", "1") == 9
    assert a_program_of_its_own("-v", "run", "--until-idle", "--lease", "1") == 0
    for words in LISTS + [[word.format(id) for word in look] for look in LOOKS for id in ("good", "bad", "crash")]:
        for shape in ("text", "json", "jsonl"):
            onward(*words, "-o", shape)
    shown = json.loads(onward("show", "bad", "--data"))
    assert (shown["token"], shown["spare"]) == (MASK, [MASK])
    assert sorted(onward("ls", "is:failed", "-o", "ids").split()) == ["bad", "crash"]
    bank.folder.joinpath("mended").touch()
    onward("retry", "bad", "--reason", "mended")
    assert a_program_of_its_own("-v", "run", "--until-idle") == 0
    assert json.loads(onward("show", "bad", "--json"))["condition"] == "finished"

    with closing(sqlite3.connect("bank.db")) as database:
        dump = list(database.iterdump())
        [rows] = database.execute("SELECT json_group_array(json_array(error, reason, actor)) FROM onward_process")
        [lines] = database.execute("SELECT json_group_array(json_array(reason, actor)) FROM onward_history")
    assert sum("c4n4ry-bad" in line for line in dump) > 2, "the canary was not stored, so this test proves nothing"
    assert MASK in rows[0] and lines[0].count("was refused") >= 2
    assert sum("Traceback" in text for text in said) >= 1
    for text in [*said, *rows, *lines]:
        assert "c4n4ry" not in text
