"""Many at once, in the panel: look first, agree, see how far it is, stop it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.requests import Request

from onward import Actor, Condition, Onward, bulk
from onward.panel import panel as make_panel
from onward.process import Record
from panel.conftest import Panel, entered
from panel.scene import FLOWS, Letter, Report


async def failed(panel: Panel, number: int, fate: str = "no_file") -> None:
    await panel.app.start_many(Report(id=f"{fate}-{n:03}", topic="x", fate=fate) for n in range(number))
    await panel.app.run(signals=False, until_idle=True)


@asynccontextmanager
async def own_work(panel: Panel) -> AsyncIterator[None]:
    """What `onward panel` has beside it."""
    task = asyncio.create_task(panel.app.run_own())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def conditions(panel: Panel, query: str = "flow:report") -> set[str]:
    return {str(record.condition) for record in await panel.app.find(query, limit=1_000)}


def hidden(page: str) -> list[tuple[str, str]]:
    """The fields of the form that leads on, as a browser sends them back."""
    form = page[page.index("/bulk/start") :]
    return re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form[: form.index("</form>")])


async def test_look_agree_and_see_it_done(panel: Panel) -> None:
    await failed(panel, 3)
    await failed(panel, 2, "quota")
    query = 'flow:report is:failed error:"*No such File object: *"'
    preview = await panel.post("/bulk", verb="retry", query=query, reason="")
    assert preview.status == 200 and "Retry 3 processes" in preview.text
    assert "onward retry --query" in preview.text
    assert await conditions(panel) == {"failed"}
    fields = [(name, value.replace("&#34;", '"')) for name, value in hidden(preview.text) if name != "csrf"]
    begun = await panel.post("/bulk/start", [*fields, ("reason", "there they are")])
    assert begun.status == 303, (fields, re.findall(r"<p>.*", begun.text))
    where = begun.header("location")
    id = where.rpartition("=")[2]
    async with own_work(panel):
        end: Record = await panel.app.wait(id)
    assert (end.condition, end.process.done) == (Condition.FINISHED, 3)
    facts = (await panel.get(f"/bulk.json?id={id}")).json()["bulk"]
    assert (facts["total"], facts["done"], facts["refused"], facts["changed"], facts["over"]) == (3, 3, 0, 0, True)
    page = (await panel.get(where)).text
    assert 'value="3"' in page and "finished" in page
    entry = (await panel.app.history("no_file-000"))[-1]
    assert (entry.kind, entry.actor) == ("retried", "ada (panel)") and entry.reason == f"there they are (bulk {id})"
    assert (await panel.get("/bulk")).text.count(f"id={id}") == 1


async def test_some_that_were_chosen_and_what_is_refused_is_said(panel: Panel) -> None:
    await failed(panel, 2)
    await panel.app.start(Letter(id="letter", to="ada"))
    answer = await panel.post_json("/bulk", {"verb": "retry", "id": ["no_file-000", "letter", "nobody"]})
    told = answer.json()
    assert (told["schema"], told["total"], told["fits"]) == ("onward.panel.bulk_preview/1", 3, 1)
    assert {one["sample"] for one in told["refused"]} == {"letter", "nobody"}
    begun = await panel.post_json("/bulk/start", {"verb": "retry", "id": ["no_file-000", "letter"], "until": told["until"]})
    async with own_work(panel):
        end = await panel.app.wait(begun.json()["id"])
    assert (end.process.done, end.process.refused) == (1, 1)
    assert "cannot retry letter letter" in (await panel.get(f"/bulk?id={end.id}")).text


async def test_the_box_for_all_that_match_wins_over_what_was_selected(panel: Panel) -> None:
    await failed(panel, 4)
    told = await panel.post_json("/bulk", {"verb": "retry", "query": "is:failed", "all": "1", "id": ["no_file-000"]})
    assert told.json()["fits"] == 4
    told = await panel.post_json("/bulk", {"verb": "retry", "query": "is:failed", "id": ["no_file-000"]})
    assert told.json()["fits"] == 1


async def test_what_cannot_be_taken_back_is_agreed_to_by_its_number(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onward.panel.pages.bulk.TYPED_FROM", 2)
    await failed(panel, 3)
    preview = await panel.post_json("/bulk", {"verb": "stop", "query": "is:failed"})
    assert preview.json()["typed"] is True
    asked = {"verb": "stop", "query": "is:failed", "until": preview.json()["until"]}
    for typed in ("", "2", "4"):
        refused = await panel.post_json("/bulk/start", {**asked, "typed": typed})
        assert refused.status == 422 and "Type the number" in refused.json()["fault"]
    assert await conditions(panel) == {"failed"} and await panel.app.find(f"flow:{bulk.FLOW}") == []
    begun = await panel.post_json("/bulk/start", {**asked, "typed": "3"})
    async with own_work(panel):
        await panel.app.wait(begun.json()["id"])
    assert await conditions(panel) == {"cancelled"}


async def test_more_than_can_be_looked_at_are_not_stopped(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PREVIEW_MAX", 2)
    await failed(panel, 3)
    told = (await panel.post_json("/bulk", {"verb": "stop", "query": "is:failed"})).json()
    assert (told["more"], told["possible"]) == (True, False)
    assert "/bulk/start" not in (await panel.post("/bulk", verb="stop", query="is:failed")).text
    assert (await panel.post_json("/bulk/start", {"verb": "stop", "query": "is:failed", "until": told["until"]})).status == 422


async def test_what_changed_since_the_preview_is_left_alone(panel: Panel) -> None:
    await failed(panel, 2)
    until = (await panel.post_json("/bulk", {"verb": "stop", "query": "is:failed"})).json()["until"]
    await panel.app.edit("no_file-001", {"topic": "another"})
    begun = await panel.post_json("/bulk/start", {"verb": "stop", "query": "is:failed", "until": until})
    async with own_work(panel):
        end = await panel.app.wait(begun.json()["id"])
    assert (end.process.done, end.process.changed) == (1, 1)
    for bad in ("", "yesterday", "2026-01-01T00:00:00"):
        assert (await panel.post_json("/bulk/start", {"verb": "stop", "query": "is:failed", "until": bad})).status == 422


async def test_to_move_many_asks_where_to(panel: Panel) -> None:
    await failed(panel, 2)
    page = await panel.post("/bulk", verb="move", query="flow:report is:failed")
    assert page.status == 200 and "<option>delete_files</option>" in page.text
    told = (await panel.post_json("/bulk", {"verb": "move", "query": "flow:report is:failed", "to": "delete_files"})).json()
    assert told["fits"] == 0 and "no declared transition" in told["refused"][0]["why"]
    asked = {"verb": "move", "query": "flow:report is:failed", "to": "delete_files", "force": "1", "reason": "no files"}
    told = (await panel.post_json("/bulk", asked)).json()
    assert told["fits"] == 2 and "--force" in told["command"]
    begun = await panel.post_json("/bulk/start", {**asked, "until": told["until"]})
    async with own_work(panel):
        end = await panel.app.wait(begun.json()["id"])
    assert (end.process.done, end.process.refusals) == (2, [])
    assert {record.status for record in await panel.app.find("flow:report")} == {"delete_files"}
    assert (await panel.post_json("/bulk", {"verb": "move", "query": "is:failed"})).status == 422


async def test_it_can_be_stopped_by_who_may_begin_it(panel: Panel) -> None:
    await failed(panel, 2)
    until = (await panel.post_json("/bulk", {"verb": "retry", "query": "is:failed"})).json()["until"]
    begun = (await panel.post_json("/bulk/start", {"verb": "retry", "query": "is:failed", "until": until})).json()
    operator = panel.seen_by("operator")
    assert "Stop" in (await operator.get(f"/bulk?id={begun['id']}")).text
    answer = await operator.post("/act", verb="cancel", id=begun["id"], version="", back=f"/bulk?id={begun['id']}")
    assert answer.status == 303
    assert (await panel.app.get(begun["id"])).condition is Condition.CANCELLED
    assert await conditions(panel) == {"failed"}


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_roles_are_asked_for(panel: Panel, role: str) -> None:
    await failed(panel, 1)
    until = (await panel.post_json("/bulk", {"verb": "stop", "query": "is:failed"})).json()["until"]
    somebody = panel.seen_by(role)
    for verb in ("stop", "retry"):
        allowed = (role, verb) == ("operator", "retry")
        for path in ("/bulk", "/bulk/start"):
            answer = await somebody.post_json(path, {"verb": verb, "query": "is:failed", "until": until})
            assert answer.status == (200 if allowed else 403), (role, verb, path)
    assert len(await panel.app.find(f"flow:{bulk.FLOW}")) == (role == "operator")


async def test_s11_of_many_only_those_that_authorize_allows(path: Path) -> None:
    def theirs_only(request: Request, action: str, record: Record | None) -> Actor | None:
        return None if record is not None and action != "look" and record.id.endswith("1") else Actor("ada", via="panel")

    async with entered(Onward(f"sqlite:///{path}", FLOWS)) as panel:
        await failed(panel, 3)
        mine = Panel(make_panel(panel.app, authorize=theirs_only), app=panel.app)
        for asked in ({"query": "is:failed"}, {"id": ["no_file-000", "no_file-001", "no_file-002"]}):
            told = (await mine.post_json("/bulk", {"verb": "cancel", **asked})).json()
            assert (told["total"], told["fits"]) == (3, 2)
            assert told["refused"] == [{"why": "you may not cancel it", "number": 1, "sample": "no_file-001"}]
        begun = await mine.post_json("/bulk/start", {"verb": "cancel", "query": "is:failed", "until": told["until"]})
        async with own_work(panel):
            end = await panel.app.wait(begun.json()["id"])
        assert end.process.done == 2
        assert (await panel.app.get("no_file-001")).condition is Condition.FAILED
        alone = await mine.post_json("/bulk", {"verb": "cancel", "id": ["no_file-001"]})
        assert alone.status == 403


async def test_what_makes_no_sense_is_said(panel: Panel) -> None:
    await failed(panel, 1)
    for asked, told in (
        ({"verb": "retry"}, "nothing was selected"),
        ({"verb": "edit", "query": "is:failed"}, "nothing to do with many"),
        ({"verb": "retry", "query": "is:faild"}, "there is no condition"),
        ({"verb": "__class__", "query": "is:failed"}, "nothing to do with many"),
    ):
        answer = await panel.post_json("/bulk", asked)
        assert answer.status == 422 and told in answer.text, asked
    assert (await panel.get("/bulk?id=no_file-000")).status == 404
    assert (await panel.get("/bulk?id=nobody")).status == 404
