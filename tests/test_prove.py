"""`onward prove` finds what a crash would find, with the shortest way to it, and says nothing about a flow that is right."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Literal

import proofs
import pytest
from click.testing import CliRunner, Result
from faults.bugs import planted
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from onward import END, Context, Every, Flow, Process, stage
from onward.cli import cli
from onward.errors import OnwardError
from onward.testing import Http, Outside, Proof, prove
from onward.testing.proving import Fault
from onward.testing.proving.memory import Memory


class Status(StrEnum):
    OPEN = auto()
    DONE = auto()


class Job(Process[Status]):
    status: Status = Status.OPEN
    note: str = ""


def flow(handler: Any, model: Any = Job) -> Flow[Any]:
    return Flow(model, {Status.OPEN: handler, Status.DONE: END})


def proven(handler: Any, **given: Any) -> Proof:
    return prove(flow(handler), Job(id="job-1"), **given)


def only_difference(proof: Proof) -> str:
    [failure] = proof.failures
    [text] = failure.differs
    return text


# -- the ten ----------------------------------------------------------------------------------------------------

# Which point, which fault, how long the history is and in which line of it the fault comes; and what differs.
TEN = {
    "charge": ("charge, attempt 1: POST /charges: done, before its answer", Fault.KILLED, 5, 3, "done 2 times"),
    "book": ("book, attempt 1: ctx.once 'courier': after the act, before its record", Fault.KILLED, 5, 3, "not given ctx.key"),
    "wait": ("wait, attempt 3: before the handler", Fault.KILLED, 10, 3, "it took 1:28:"),
    "close": ("close, attempt 1: DELETE /sandboxes/sandbox-1: done, before its answer", Fault.KILLED, 11, 3, "404 Not Found"),
    "enter": ("enter, attempt 1: before the commit", Fault.KILLED, 3, 2, "ledger.txt differs: + a barometer"),
    "fetch": ("log_in, attempt 1: after the commit", Fault.KILLED, 6, 2, "KeyError"),
    "count": ("count, attempt 1: before the commit", Fault.KILLED, 3, 2, 'shop.db differs: + sold {"item": "a barometer"}'),
    "mail": ("mail, attempt 1: ctx.save: after it is committed", Fault.KILLED, 3, 2, "POST /mails was done 1 time less"),
    "order": ("order, attempt 1: POST /orders: done, before its answer", Fault.KILLED, 5, 3, "another Idempotency-Key"),
    "rent": (
        "rent, attempt 1: POST /machines: done, before its answer",
        Fault.CANCELLED,
        4,
        3,
        "/machines/number-1 is left behind",
    ),
}


@pytest.mark.parametrize("name", TEN)
def test_each_of_ten_mistakes_is_found_with_the_shortest_history(name: str) -> None:
    point, fault, lines, line, text = TEN[name]
    proof = proofs.careless(name, mended=False)
    assert text in only_difference(proof)
    [failure] = proof.failures
    assert (str(failure.point), failure.fault) == (point, fault)
    assert len(failure.history) == lines
    assert [number for number, told in enumerate(failure.history, 1) if told.startswith(">> ")] == [line]
    with pytest.raises(AssertionError, match="1 failure"):
        proof.assert_clean()


@pytest.mark.parametrize("name", TEN)
def test_nothing_is_said_of_it_once_it_is_mended(name: str) -> None:
    proof = proofs.careless(name, mended=True)
    proof.assert_clean()
    assert proof.runs >= 20


@pytest.mark.parametrize("name", ["parcel", "report", "cancel", "orders"])
def test_nothing_is_said_of_the_examples(name: str) -> None:
    proofs.CLEAN[name]().assert_clean()


def test_nothing_is_said_of_the_main_job() -> None:
    proof = proofs.main_job(documents=1)
    proof.assert_clean()
    assert proof.runs > 200


def test_every_example_is_proven() -> None:
    names = {path.stem for path in proofs.EXAMPLES.glob("*.py")}
    assert names == {name.partition(",")[0] for name in proofs.CLEAN} - {"main job"}


@pytest.mark.parametrize(
    ("broken", "at", "fault", "text"),
    [
        # Each of these makes the main job forget one thing that it takes care of.
        ("gone_is_done", "DELETE /v1/files/*: done, before its answer", Fault.KILLED, "ended"),
        ("uploaded", "POST /v1/files: done, before its answer", Fault.KILLED, "POST /v1/files"),
        ("to_its_end", "POST /v1/responses: done, before its answer", Fault.CANCELLED, "POST /v1/responses"),
    ],
)
def test_the_main_job_would_be_told_what_it_forgot(
    broken: str, at: str, fault: Fault, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any) -> dict[str, str]:
        return {}

    async def itself(call: Any) -> None:
        await call

    careless: dict[str, Any] = {"gone_is_done": nullcontext, "uploaded": nothing, "to_its_end": itself}
    monkeypatch.setattr(f"onward.demo.flow.{broken}", careless[broken])
    batch = proofs.Batch(id="batch-1", question="What?", documents=proofs.DOCUMENTS[:1])

    def tried(only: str) -> Proof:
        return prove(proofs.check_status, batch, outside=proofs.standin, only=only)

    point = next(point for point in tried("1:unreachable").points if str(point).endswith(at))
    assert text in str(tried(f"{point.number}:{fault}").failures)


# -- what it goes by ------------------------------------------------------------------------------------------------


def test_a_failure_is_repeated_by_its_key_to_the_line() -> None:
    module = proofs.example("careless")
    [flow] = [flow for flow in module.CARELESS if flow.name == "charge"]
    first = proofs.careless("charge", mended=False).failures[0]
    again = prove(flow, flow.model(id="job-1"), outside=module.outside, only="5:killed")
    assert again.runs == 2
    assert (again.failures[0].history, again.failures[0].differs) == (first.history, first.differs)
    assert again.failures[0].repeat == "prove(..., only='5:killed')"


def test_a_key_that_is_none_says_what_is_one() -> None:
    async def work(job: Job) -> Literal[Status.DONE]:
        return Status.DONE

    with pytest.raises(OnwardError, match="NUMBER:FAULT") as error:
        proven(work, only="99:killed")
    assert "killed" in error.value.hint


def test_a_field_may_be_declared_volatile() -> None:
    async def work(job: Job, ctx: Context) -> Literal[Status.DONE]:
        job.note = f"attempt {ctx.attempt}"
        return Status.DONE

    assert only_difference(proven(work)).startswith('the field note is "attempt 2", not "attempt 1"')
    proven(work, volatile=["note"]).assert_clean()


def test_an_act_may_be_declared_repeatable() -> None:
    async def call(item: str) -> str:
        return item

    async def work(job: Job, ctx: Context) -> Literal[Status.DONE]:
        await ctx.map(call, ["a", "b"])
        return Status.DONE

    assert "the act 'call:a' of work was done 2 times" in str(proven(work))
    proven(work, repeatable=["call"]).assert_clean()


def test_an_act_with_an_effect_that_is_seen_is_judged_by_that() -> None:
    async def write(text: str) -> None:
        Path("note.txt").write_text(text)

    async def work(job: Job, ctx: Context) -> Literal[Status.DONE]:
        await ctx.once("write", write, "the same, however often")
        return Status.DONE

    proven(work).assert_clean()


def test_what_the_user_says_of_the_world_outside_has_to_be_as_undisturbed() -> None:
    @contextmanager
    def counter() -> Iterator[Outside]:
        calls: list[int] = []
        yield Outside(resources=calls, state=lambda: {"calls": len(calls)})

    async def work(job: Job, ctx: Context) -> Literal[Status.DONE]:
        ctx.resources.append(1)
        return Status.DONE

    assert only_difference(proven(work, outside=counter)) == 'the state outside is {"calls": 2}, not {"calls": 1}'


def test_a_file_left_by_an_attempt_that_was_cut_off_is_found() -> None:
    async def work(job: Job, ctx: Context) -> Literal[Status.DONE]:
        part = Path(f"{ctx.attempt}.part")
        part.write_text("half")
        await ctx.save()
        part.unlink()
        return Status.DONE

    assert "the file 1.part is left behind" in str(proven(work))


def test_it_finds_an_engine_that_lets_an_overtaken_worker_commit() -> None:
    """The zombie's commit is refused by the store and by nobody else: take that away, and the proof says so."""

    async def work(job: Job, ctx: Context) -> Literal[Status.DONE]:
        return Status.DONE

    proven(work).assert_clean()
    with planted("no_fence"):
        for key in ("4:frozen", "5:unanswered"):
            assert only_difference(proven(work, only=key)) == "transition 1 was committed 2 times"


def test_what_never_rests_is_no_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def poll(job: Job) -> Literal[Status.OPEN, Status.DONE]:
        return Status.OPEN

    with pytest.raises(OnwardError, match="does not come to rest: it was not over after") as error:
        prove(flow(stage(poll, every=Every(3_600))), Job(), until=86_400)
    assert "until" in error.value.hint
    monkeypatch.setattr("onward.testing.proving.run.POINTS_MAX", 500)
    with pytest.raises(OnwardError, match="500 points"):
        prove(flow(stage(poll, every=Every(0.1))), Job())


def test_what_fails_undisturbed_is_no_oracle() -> None:
    async def work(job: Job) -> Literal[Status.DONE]:
        raise ValueError("no such table")

    with pytest.raises(OnwardError, match="undisturbed it ends failed at open: ValueError: no such table"):
        proven(work)


def test_it_leaves_the_program_as_it_was() -> None:
    before = Path.cwd(), dict(os.environ)

    async def work(job: Job) -> Literal[Status.DONE]:
        Path("file").write_text("x")
        assert list(Path().iterdir()) == [Path("file")]
        return Status.DONE

    proven(work).assert_clean()
    assert (Path.cwd(), dict(os.environ)) == before


# -- memory -----------------------------------------------------------------------------------------------------


class Client:
    """Stays: it is no plain data."""


SEEN: list[str] = []
BY_ID: dict[str, list[int]] = {"kept": [1]}
CLIENT = Client()
CLIENTS = [CLIENT]
NUMBER = 1


def test_a_program_that_begins_remembers_what_it_is_given_and_nothing_else() -> None:
    async def work(job: Job) -> Literal[Status.DONE]:
        return Status.DONE

    memory, seen = Memory(flow(work)), SEEN
    globals()["NUMBER"] = 2
    globals()["NEW"] = "new"
    SEEN.append("a")
    BY_ID["kept"].append(2)
    BY_ID["more"] = [3]
    mine = memory.taken()
    memory.begin()
    assert (seen, BY_ID, NUMBER) == ([], {"kept": [1]}, 1)
    assert seen is SEEN and CLIENTS[0] is CLIENT and "NEW" not in globals()
    memory.put(mine)
    assert (seen, BY_ID, NUMBER, globals()["NEW"]) == (["a"], {"kept": [1, 2], "more": [3]}, 2, "new")
    memory.begin()


# -- HTTP -------------------------------------------------------------------------------------------------------


def met(make: Callable[[], Any]) -> Callable[[], Any]:
    @contextmanager
    def outside() -> Iterator[Outside]:
        yield Outside(resources=make())

    return outside


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await asyncio.sleep(0.1)
    await send({"type": "http.response.start", "status": 201, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps({"id": scope["path"]}).encode()})


async def _ask(job: Job, ctx: Context) -> Literal[Status.DONE]:
    response = await ctx.resources.post("https://shop.example/things", json={"size": 1}, headers={"Idempotency-Key": ctx.key})
    job.note = response.json()["id"]
    return Status.DONE


def test_an_asgi_app_plays_the_service() -> None:
    proven(_ask, outside=met(lambda: DefaultAsyncHttpxClient(transport=Http(_asgi)))).assert_clean()


def test_a_host_that_nobody_plays_is_named_and_never_asked() -> None:
    def make() -> Any:
        return DefaultAsyncHttpxClient(transport=Http({"other.example": _asgi}))

    with pytest.raises(OnwardError, match=r"nobody plays the host 'shop.example'"):
        proven(_ask, outside=met(make))


@pytest.mark.parametrize("make", [DefaultAsyncHttpxClient, None])
def test_a_proof_never_goes_to_the_network(make: Any) -> None:
    async def ask(job: Job, ctx: Context) -> Literal[Status.DONE]:
        if ctx.resources is None:
            await asyncio.open_connection("127.0.0.1", 9)
        await ctx.resources.get("http://localhost:9/")
        return Status.DONE

    with pytest.raises(OnwardError, match=r"wants to reach .*:9, and a proof never goes to the network") as error:
        proven(ask, outside=met(make or (lambda: None)))
    assert "Http(service)" in error.value.hint


def test_a_synchronous_client_is_watched_as_well() -> None:
    def ask(job: Job, ctx: Context) -> Literal[Status.DONE]:
        ctx.resources.post("https://shop.example/things", json={"size": 1})
        return Status.DONE

    def make() -> Any:
        return DefaultHttpxClient(transport=Http(lambda request: (200, {"done": True})))

    proof = proven(ask, outside=met(make))
    assert only_difference(proof) == "POST /things was done 2 times with the same content, without an Idempotency-Key"
    assert {failure.fault for failure in proof.failures} == {Fault.KILLED}


# -- the command ------------------------------------------------------------------------------------------------


@pytest.fixture
def onward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(proofs.EXAMPLES))

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, list(words))

    return run


def test_the_command_says_what_it_found_and_how_to_repeat_it(onward: Callable[..., Result]) -> None:
    found = onward("prove", "parcel:flow", "--set", "address=12 Harbour Street")
    assert found.exit_code == 1
    assert "! the act 'courier' of send was done 2 times, and was not given ctx.key" in found.stdout
    [line] = [line for line in found.stdout.splitlines() if "to repeat it" in line]
    assert line.strip() == "to repeat it: onward prove parcel:flow --set 'address=12 Harbour Street' --only 6:killed"
    again = onward("prove", "parcel:flow", "--set", "address=12 Harbour Street", "--only", "6:killed", "--json")
    assert again.exit_code == 1
    told = json.loads(again.stdout)
    assert (told["schema"], told["runs"], told["ok"]) == ("onward.prove/1", 2, False)
    assert told["failures"][0]["key"] == "6:killed"
    assert told["failures"][0]["point"].endswith("after the act, before its record")
    clean = onward("prove", "parcel", "--app", "parcel:app", "--set", "address=x", "--repeatable", "courier")
    assert (clean.exit_code, clean.stdout.count("\n")) == (0, 1)
    assert "always ended as if nothing had happened" in clean.stdout
    assert not list(Path().iterdir())  # no store, no file


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["parcel:flw"], 7, "parcel has no 'flw'"),
        (["parcel:Parcel"], 7, "not a flow"),
        (["nowhere:flow"], 7, "cannot be imported"),
        (["parcel:flow"], 5, "address"),
        (["parcel:flow", "--set", "address=x", "--volatile", "adress"], 5, "no such field"),
        (["parcel:flow", "--set", "address=x", "--outside", "parcel:no"], 7, "the outside parcel:no cannot be found"),
        (["parcel:flow", "--set", "address=x", "--outside", "parcel:__doc__"], 7, "not a function"),
        (["parcel:flow", "--set", "address=x", "--only", "0:killed"], 1, "there is no '0:killed'"),
    ],
)
def test_the_command_says_what_is_wrong_with_what_was_typed(
    words: list[str], code: int, text: str, onward: Callable[..., Result]
) -> None:
    refused = onward("prove", *words)
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert text in refused.stderr


def test_the_names_are_where_people_look_for_them() -> None:
    testing = importlib.import_module("onward.testing")
    assert {"Http", "Outside", "Proof", "prove"} <= set(testing.__all__)


# -- with real kills ----------------------------------------------------------------------------------------------


def test_a_program_that_is_really_killed_does_the_same_harm_or_none(onward: Callable[..., Result], tmp_path: Path) -> None:
    words = "from careless import CARELESS, MENDED, outside\n"
    words += "charge = next(flow for flow in CARELESS if flow.name == 'charge')\n"
    words += "mended = next(flow for flow in MENDED if flow.name == 'charge')\n"
    (tmp_path / "hasty.py").write_text(words)

    def run(name: str) -> dict[str, Any]:
        told = onward("prove", f"hasty:{name}", "--outside", "hasty:outside", "--full", "--json", "--only", "5:killed")
        found: dict[str, Any] = json.loads(told.stdout)
        assert told.exit_code == (0 if found["ok"] else 1)
        assert found["runs"] == 3  # undisturbed, in memory, and for real
        return found

    [failure] = run("charge")["failures"]
    assert failure["also"] == 1  # the one in memory and the one for real
    assert failure["history"][-1] == "worker-2: POST /charges is done (200)"
    assert run("mended")["ok"]
