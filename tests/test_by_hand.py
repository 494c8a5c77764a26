"""What takes more than a word: to move, edit, fork and delete a process by hand, and who may do what."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import Job, Leg, Step, Trip, kinds, one_stage, opened, work_off

from onward import (
    END,
    Condition,
    Conflict,
    Context,
    Every,
    Flow,
    InvalidData,
    NotFound,
    Onward,
    Process,
    Refused,
    Unrecoverable,
    stage,
)
from onward.actor import NEEDS, Actor, Role
from onward.clock import SystemClock
from onward.decide import Returned, decide
from onward.errors import Fenced, Forbidden
from onward.store import upkeep_of


async def make(job: Job) -> Literal[Step.DONE]:
    if job.note == "bad":
        raise Unrecoverable("no such file: file-68d1")
    job.numbers.append(len(job.numbers))
    return Step.DONE


FLOW = one_stage(make)


def trips(*, on_cancel: bool = True) -> Flow[Leg]:
    async def book(trip: Trip) -> Literal[Leg.TRAVEL]:
        trip.log.append("booked")
        return Leg.TRAVEL

    async def travel(trip: Trip) -> Literal[Leg.TRAVEL, Leg.CLEAN]:
        return Leg.TRAVEL

    async def clean(trip: Trip) -> Literal[Leg.OVER]:
        trip.log.append("cleaned")
        return Leg.OVER

    table: dict[Any, Any] = {
        Leg.BOOK: book,
        Leg.TRAVEL: stage(travel, every=Every(seconds=3_600)),
        Leg.CLEAN: clean,
        Leg.OVER: END,
    }
    return Flow(Trip, table, on_cancel=Leg.CLEAN if on_cancel else None)


async def travelling(app: Onward, id: str = "t") -> None:
    await app.start(Trip(id=id))
    await app.check(id)
    assert (await app.get(id)).status == Leg.TRAVEL


# -- move ---------------------------------------------------------------------------------------------------------


async def test_move_goes_on_from_another_status(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await travelling(app)
        moved = await app.move("t", "clean", reason="they are home", actor="ada")
        assert (moved.status, moved.condition, moved.error) == ("clean", Condition.READY, None)
        done = await app.check("t")
        assert (done.condition, done.process.log) == (Condition.FINISHED, ["booked", "cleaned"])
        entry = (await app.history("t"))[3]
        assert (entry.kind, entry.from_status, entry.to_status) == ("moved by hand", "travel", "clean")
        assert (entry.actor, entry.reason) == ("ada", "they are home")


async def test_move_along_no_edge_takes_force_and_a_reason(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await travelling(app)
        with pytest.raises(Refused, match=r"travel → book is no declared transition of trip; declared: clean") as caught:
            await app.move("t", "book")
        assert "--force --reason" in caught.value.hint
        with pytest.raises(Refused, match="takes a reason"):
            await app.move("t", "book", force=True, reason="  ")
        assert (await app.get("t")).version == 2
        moved = await app.move("t", "book", force=True, reason="the train was cancelled")
        assert (moved.status, moved.condition) == ("book", Condition.READY)
        assert (await app.check("t")).process.log == ["booked", "booked"]


async def test_move_takes_up_what_was_over_and_ends_what_is_not(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await travelling(app)
        over = await app.move("t", "over", force=True, reason="nothing to clean")
        assert (over.condition, over.due_at) == (Condition.FINISHED, None)
        again = await app.move("t", "clean", force=True, reason="there was")
        assert again.condition is Condition.READY
        assert (await app.check("t")).condition is Condition.FINISHED
        await travelling(app, "c")
        await app.cancel("c")
        assert (await app.move("c", "over")).condition is Condition.CANCELLED  # declared, and still on its way out
        revived = await app.move("c", "travel", force=True, reason="after all")
        assert not revived.cancelling


async def test_move_knows_the_statuses_of_its_flow_only(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await travelling(app)
        for status in ("claen", "__init__", "os.system", ""):
            with pytest.raises(Refused, match="has no status"):
                await app.move("t", status, force=True, reason="x")
        with pytest.raises(Refused, match="did you mean clean"):
            await app.move("t", "claen")
        with pytest.raises(Refused, match="is at travel already"):
            await app.move("t", "travel", force=True, reason="x")
        assert (await app.get("t")).version == 2


async def test_move_and_edit_leave_a_running_process_alone(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await app.start(Job(id="j"))
        await app.store.claim([(FLOW.name, "make", 1)], "worker-1", 1, timedelta(seconds=30))
        for act in (app.move("j", "done"), app.edit("j", {"note": "new"})):
            with pytest.raises(Refused, match="worker-1 is running make") as caught:
                await act
            assert caught.value.hint == "interrupt it first: onward pause j"
        await app.pause("j")
        assert (await app.edit("j", {"note": "new"})).condition is Condition.PAUSED


# -- edit ---------------------------------------------------------------------------------------------------------


async def test_edit_changes_the_data_and_nothing_else(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await app.start(Job(id="j", note="bad", numbers=[1]))
        await work_off(app)
        failed = await app.get("j")
        edited = await app.edit("j", {"note": "good", "numbers": [1]}, version=failed.version, reason="typo", actor="ada")
        assert (edited.condition, edited.status, edited.error) == (Condition.FAILED, "make", failed.error)
        assert (edited.version, edited.process.note) == (failed.version + 1, "good")
        [*_, entry] = await app.history("j")
        assert (entry.kind, entry.actor, entry.reason, json.loads(entry.data or "")["note"]) == ("edited", "ada", "typo", "good")
        assert (await app.data_at("j", failed.version))["note"] == "bad"
        await app.retry("j")
        assert (await app.check("j")).process.numbers == [1, 1]


async def test_edit_keeps_the_time_at_which_it_looks_again(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await travelling(app)
        before = await app.get("t")
        after = await app.edit("t", {"log": ["by hand"]})
        assert after.condition is Condition.WAITING
        assert after.due_at is not None and before.due_at is not None
        assert abs(after.due_at - before.due_at) < timedelta(seconds=1)
        assert after.entered_at == before.entered_at


async def test_edit_refuses_what_the_model_refuses_and_keeps_what_was(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await app.start(Job(id="j", note="bad"))
        await work_off(app)
        for data, told in (
            ({"numbers": "x"}, "numbers"),
            ({"nota": "x"}, "has no field 'nota'; did you mean note?"),
            ({"id": "other"}, "another id or status"),
            ({"note": "\0"}, "NUL"),
            ({"extra": float("nan")}, "NaN"),
        ):
            with pytest.raises(InvalidData, match=told):
                await app.edit("j", data)
        assert (await app.get("j")).version == 1
        with pytest.raises(Conflict):
            await app.edit("j", {"note": "good"}, version=0)
        await app.stop("j")
        with pytest.raises(Refused, match="cannot edit job j: it is cancelled"):
            await app.edit("j", {"note": "good"})


async def test_an_edit_that_changes_nothing_keeps_no_second_copy(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        await app.start(Job(id="j"))
        await app.pause("j")
        record = await app.edit("j", {"note": "", "numbers": [], "extra": None})
        assert record.version == 2
        assert (await app.history("j"))[2].data is None


# -- fork ---------------------------------------------------------------------------------------------------------


async def test_fork_begins_as_the_other_one_was(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await travelling(app)
        await app.move("t", "clean")
        await app.check("t")
        forked = await app.fork("t", at=1, new_id="t-2", reason="another way", actor=Actor("ada", via="panel"))
        assert (forked.id, forked.status, forked.condition, forked.version) == ("t-2", "travel", Condition.READY, 0)
        assert forked.process.log == ["booked"]
        [first] = await app.history("t-2")
        assert (first.kind, first.actor, first.reason) == ("forked", "ada (panel)", "from t at version 1: another way")
        assert (await app.get("t")).condition is Condition.FINISHED
        for at, told in ((None, "there it was over"), (9, "has no version 9"), (-1, "has no version -1")):
            with pytest.raises((Refused, NotFound), match=told):
                await app.fork("t", at=at)
        with pytest.raises(Conflict, match="t-2 exists already"):
            await app.fork("t", at=1, new_id="t-2")
        with pytest.raises(InvalidData):
            await app.fork("t", at=1, new_id="two\nlines")
        assert (await app.fork("t", at=0)).id not in ("t", "t-2")


async def test_shared_names_what_lies_outside(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        extra = {"file": "file-68d1", "urls": ["https://example.org/a/1"], "text": "two words 2", "word": "plain", "n": 12345}
        await app.start(Job(id="j", extra=extra))
        assert await app.shared("j") == ["file-68d1", "https://example.org/a/1"]


# -- delete -------------------------------------------------------------------------------------------------------


async def test_delete_leaves_nothing_but_who_did_it(url: str) -> None:
    async with opened(FLOW, url=url) as app:
        for round in range(2):  # the id can be used again
            await app.start(Job(id="j", note="canary"))
            with pytest.raises(Refused, match="cannot delete job j: it is ready") as caught:
                await app.delete("j")
            assert "onward cancel j" in caught.value.hint
            await work_off(app)
            version = (await app.get("j")).version
            with pytest.raises(Conflict):
                await app.delete("j", version=version - 1)
            await app.delete("j", version=version, reason="asked for", actor="ada")
            with pytest.raises(NotFound):
                await app.get("j")
            with pytest.raises(NotFound):
                await app.delete("j")
            assert await app.store.history("j") == []
            assert await app.store.data_at("j", 0) is None
            acts = [entry for entry in await app.store.acts() if entry.process_id == "j"]
            assert [(e.kind, e.version, e.actor, e.reason, e.data) for e in acts] == [
                ("deleted", -1 - number, "ada", "asked for", None) for number in reversed(range(round + 1))
            ]


async def test_what_was_deleted_is_gone_from_the_file(path: Path, file_url: str) -> None:
    canary = "canary-0c77"

    async def keep(job: Job, ctx: Context) -> Literal[Step.DONE]:
        await ctx.once("step", lambda: canary + "-step")
        job.note = ""
        await ctx.save()
        job.extra = [canary] * 3_000
        return Step.DONE

    flow = one_stage(keep)
    async with opened(flow, url=file_url) as app:
        await app.start(Job(id="j", note=canary))
        await app.start(Job(id="other"))
        await work_off(app)
        assert canary.encode() in path.read_bytes() + path.with_name(path.name + "-wal").read_bytes()
        for id in ("j", "other"):
            await app.delete(id)
    rest = [file for file in path.parent.iterdir() if canary.encode() in file.read_bytes()]
    assert rest == []


@pytest.mark.parametrize("url", ["file", "postgres"], indirect=True)
async def test_who_had_a_process_that_was_pruned_cannot_write_to_the_one_that_bears_its_id_now(url: str) -> None:
    """Nothing stays of what is pruned, so version and epoch begin anew: whose lease it is tells the two apart."""
    known, lease = [(FLOW.name, "make", 1)], timedelta(seconds=30)
    async with opened(FLOW, url=url) as app:
        await app.start(Job(id="j"))
        [before] = await app.store.claim(known, "worker-a", 1, lease)
        await app.stop("j")
        await upkeep_of(url, SystemClock()).prune(timedelta(0), lambda line: None)
        await app.start(Job(id="j", note="new"))
        [now] = await app.store.claim(known, "worker-b", 1, lease)
        assert (now.version, now.epoch) == (before.version, before.epoch)
        end = decide(FLOW, before, Returned("done", "{}", None, 0.1))
        for write in (app.store.commit(before, end), app.store.record_step(before, "upload", '"file-1"')):
            with pytest.raises(Fenced):
                await write
        await app.store.release([before], begun=True)
        there = await app.get("j")
        assert (there.condition, there.owner, there.process.note) == (Condition.RUNNING, "worker-b", "new")
        assert (await app.store.commit(now, decide(FLOW, now, Returned("done", "{}", None, 0.1)))).status == "done"


# -- plan, and who may --------------------------------------------------------------------------------------------


async def test_plan_says_what_would_be_and_does_nothing(url: str) -> None:
    async with opened(trips(), url=url) as app:
        await travelling(app)
        record, change = await app.plan("t", "move", to="clean")
        assert change is not None and (record.status, change.status) == ("travel", "clean")
        record, change = await app.plan("t", "edit", data={"log": ["x"]})
        assert change is not None and json.loads(change.data or "") == {"log": ["x"]}
        _, change = await app.plan("t", "cancel")
        assert change is not None and change.status == "clean"
        with pytest.raises(Refused):
            await app.plan("t", "delete")
        with pytest.raises(Conflict):
            await app.plan("t", "stop", version=0)
        with pytest.raises(NotFound):
            await app.plan("t", "start_many", actor=Actor("ada"))
        with pytest.raises(Forbidden):
            await app.plan("t", "start_many", actor=Actor("eve", Role.OPERATOR))
        with pytest.raises(NotFound, match="did you mean cancel"):
            await app.plan("t", "cancle")
        assert len(await app.history("t")) == 3


LEAST = {"start": Role.OPERATOR, "wake": Role.OPERATOR, "retry": Role.OPERATOR, "pause": Role.OPERATOR, "resume": Role.OPERATOR,
         "cancel": Role.OPERATOR, "move": Role.ADMIN, "edit": Role.ADMIN, "fork": Role.ADMIN, "stop": Role.ADMIN,
         "delete": Role.ADMIN}  # fmt: skip


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("verb", sorted(LEAST))
async def test_each_role_may_do_what_it_may_and_nothing_else(verb: str, role: Role) -> None:
    given: dict[str, Any] = {"move": {"to": "clean"}, "edit": {"data": {"log": []}}}.get(verb, {})
    actor = Actor("eve", role)
    async with opened(trips(), FLOW) as app:
        await travelling(app)
        if verb == "delete":
            await app.stop("t")
        if verb in ("retry", "resume"):
            await {"resume": app.pause, "retry": _failed(app)}[verb]("t")
        before = await app.history("t")
        act = app.start(Trip(id="new"), actor=actor) if verb == "start" else getattr(app, verb)("t", actor=actor, **given)
        if list(Role).index(role) >= list(Role).index(LEAST[verb]):
            await act
            if verb not in ("start", "fork", "delete"):
                assert (await app.history("t"))[-1].actor == "eve"
            return
        with pytest.raises(Forbidden, match=f"eve is {role}, and to {verb} takes {LEAST[verb]}"):
            await act
        assert await app.history("t") == before
        with pytest.raises(Forbidden):
            await app.plan("t", verb, actor=actor, **given)


def _failed(app: Onward) -> Any:
    async def fail(id: str) -> None:
        [record] = await app.store.claim([("trip", "travel", 1)], "w", 1, timedelta(seconds=9), [id]) or [None]  # type: ignore[list-item]
        if record is None:
            await app.wake(id)
            [record] = await app.store.claim([("trip", "travel", 1)], "w", 1, timedelta(seconds=9), [id])
        from onward.decide import Failed, decide

        await app.store.commit(record, decide(app.flows["trip"], record, Failed("broken", 0.1, permanent=True)))

    return fail


def test_every_verb_of_a_person_has_its_role() -> None:
    assert NEEDS == LEAST
    verbs = {name for name in vars(Onward.__mro__[1]) if "actor" in getattr(getattr(Onward, name), "__code__", _none).co_varnames}
    public = {verb for verb in verbs if not verb.startswith("_")} - {"start_many", "plan"}
    assert public == set(NEEDS)


class _none:
    co_varnames = ()


async def test_what_a_person_starts_is_told_apart_from_what_a_program_does() -> None:
    async with opened(FLOW) as app:
        await app.start(Job(id="a"), actor="cron")
        await app.start(Job(id="b"), actor=Actor("ada", Role.OPERATOR, via="panel"))
        assert kinds(await app.history("a") + await app.history("b")) == ["started", "started by hand"]
        made = app.make("job", {"note": "x"}, "c")
        assert isinstance(made, Process) and (made.id, made.status) == ("c", Step.MAKE)
        with pytest.raises(NotFound, match="did you mean job"):
            app.make("jop", {})
        with pytest.raises(InvalidData, match="has no field"):
            app.make("job", {"status": "done", "nope": 1})
