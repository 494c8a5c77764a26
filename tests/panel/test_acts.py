"""What people do to one process, through forms and as programs: who may, what conflicts, what is asked first, what is kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from onward.actor import NEEDS, Actor, Role
from onward.panel.acts.act import VERBS
from onward.panel.shown.offers import ACTIONS
from onward.process import Record
from onward.testing import ManualClock
from panel.client import Answer
from panel.conftest import Panel, entered
from panel.odd import CANARY, NASTY, Doc, filled_file, opened, rewrite
from panel.strict import Element, Html
from panel.walk import digest

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
async def odd(path: Path) -> AsyncIterator[Panel]:
    """An admin before a store in a file with a process in each condition, named after it."""
    async with entered(opened(await filled_file(path, NOW), ManualClock(NOW))) as panel:
        yield panel


async def data_of(panel: Panel, id: str) -> Any:
    return json.loads((await panel.app.get(id)).data)


async def last(panel: Panel, id: str) -> Any:
    record = await panel.app.get(id)
    return (await panel.app.history(id, after=record.version - 1))[0]


def fields(form: Element) -> dict[str, str]:
    """What a browser would send of this form, as nobody touched it."""
    sent = {}
    for one in form:
        name = one.get("name")
        if one.name == "input" and (one.get("type") not in ("radio", "checkbox") or "checked" in one.attributes):
            sent[name] = one.get("value")
        elif one.name == "textarea":  # a browser drops one line end at its beginning, and sends those inside as CRLF
            text = "".join(part for part in one.children if isinstance(part, str))
            sent[name] = text.removeprefix("\n").replace("\n", "\r\n")
        elif one.name == "select":
            chosen = [option for option in one.all("option") if "selected" in option.attributes] or one.all("option")[:1]
            sent[name] = chosen[0].get("value")
    sent.pop("csrf", None)
    return sent


def form_to(answer: Answer, action: str, **having: str) -> Element:
    """The form of a page that posts to `action` and has these fields."""
    html = Html(answer.text)
    found = [form for form in html.all("form", action=action) if having.items() <= fields(form).items()]
    assert len(found) == 1, f"{len(found)} forms to {action}"
    return found[0]


def query_of(answer: Answer) -> dict[str, str]:
    from urllib.parse import parse_qsl, urlsplit

    return dict(parse_qsl(urlsplit(answer.header("location")).query))


# -- each action, both ways in ----------------------------------------------------------------------------------------

# The process it fits, what it is given beside, and where it comes to.
FITS: dict[str, tuple[str, dict[str, Any], tuple[str, str]]] = {
    "wake": ("waits", {}, ("ready", "await")),
    "retry": ("failed", {}, ("ready", "fetch")),
    "pause": ("waits", {}, ("paused", "await")),
    "resume": ("paused", {}, ("ready", "await")),
    "cancel": ("waits", {}, ("waiting", "clean")),
    "stop": ("waits", {"typed": "waits"}, ("cancelled", "await")),
    "move": ("waits", {"to": "clean"}, ("ready", "clean")),
    "edit": ("failed", {"data": '{"topic": "other"}'}, ("failed", "fetch")),
    "fork": ("waits", {"at": "3", "new_id": "again"}, ("ready", "write")),
    "delete": ("finished", {"typed": "finished"}, ("", "")),
}


def test_every_action_is_tested_here_and_on_the_pages() -> None:
    assert set(FITS) == set(VERBS) == {verb for verb, *_ in ACTIONS} == set(NEEDS) - {"start", "bulk"}


@pytest.mark.parametrize("verb", FITS)
async def test_a_form_acts_and_leads_back_with_a_word_of_what_was_done(odd: Panel, verb: str) -> None:
    id, given, (condition, status) = FITS[verb]
    version = (await odd.app.get(id)).version
    answer = await odd.post("/act", verb=verb, id=id, version=version, reason="why not", **given)
    assert answer.status == 303, answer.text
    told = query_of(answer)
    if verb == "delete":
        assert answer.header("location").startswith("/flow?name=doc&done=")
        assert (await odd.get(f"/process?id={id}")).status == 404
        return
    after = told["id"]
    assert after == ("again" if verb == "fork" else id)
    record = await odd.app.get(after)
    assert (str(record.condition), record.status) == (condition, status)
    entry = await last(odd, after)
    assert (entry.actor, entry.reason.rpartition(": ")[2]) == ("ada (panel)", "why not")
    assert f"is {condition} at {status}" in told["done"]
    assert told["done"] in Html((await odd.get(answer.header("location"))).text).root.text


@pytest.mark.parametrize("verb", FITS)
async def test_a_program_sends_json_and_gets_json(odd: Panel, verb: str) -> None:
    id, given, (condition, status) = FITS[verb]
    body = {"verb": verb, "id": id, "version": (await odd.app.get(id)).version, "reason": "why not", **given}
    if verb == "edit":
        body["data"] = json.loads(given["data"])
    answer = await odd.post_json("/act", body)
    assert answer.status == 200, answer.text
    told = answer.json()
    assert (told["schema"], told["verb"], told["id"]) == ("onward.panel.act/1", verb, id)
    if verb == "delete":
        assert told["process"] is None
    else:
        assert (told["process"]["condition"], told["process"]["status"]) == (condition, status)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("verb", FITS)
async def test_s10_each_role_may_do_what_it_needs_and_nothing_else(odd: Panel, path: Path, verb: str, role: Role) -> None:
    id, given, _ = FITS[verb]
    version = (await odd.app.get(id)).version
    allowed = Actor("", role).may(verb)
    before, somebody = digest(path), odd.seen_by(role)
    answer = await somebody.post("/act", verb=verb, id=id, version=version, **given)
    assert answer.status == (303 if allowed else 403), answer.text
    as_json = {"verb": verb, "id": id, "version": version, **given}
    assert allowed or (await somebody.post_json("/act", as_json)).json()["error"]["code"] == "forbidden"
    assert (digest(path) == before) is not allowed


async def test_s10_a_viewer_may_neither_draft_nor_start(odd: Panel, path: Path) -> None:
    before, viewer, operator = digest(path), odd.seen_by("viewer"), odd.seen_by("operator")
    assert (await viewer.post("/draft", id="failed", version=1, json="{}")).status == 403
    assert (await operator.post("/draft", id="failed", version=1, json='{"topic": "x"}')).status == 403
    assert (await viewer.post("/start", [("flow", "doc"), ("field.topic", "x")])).status == 403
    assert digest(path) == before


async def test_authorize_is_asked_for_each_action_and_each_process(path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def authorize(request: Any, action: str, record: Record | None) -> Actor | None:
        asked.append((action, record.id if record else None))
        return Actor("ada") if action == "look" else None

    from onward.panel import panel as make

    async with opened(await filled_file(path, NOW), ManualClock(NOW)) as app:
        before = digest(path)
        panel = Panel(make(app, authorize=authorize), app=app)
        for verb, (id, given, _) in FITS.items():
            version = (await app.get(id)).version
            assert (await panel.post("/act", verb=verb, id=id, version=version, **given)).status == 403, verb
            assert (verb, id) in asked
        assert (await panel.post("/draft", id="failed", version=1, json="{}")).status == 403
        assert (await panel.post("/start", [("flow", "doc"), ("field.topic", "x")])).status == 403
        assert digest(path) == before


@pytest.mark.parametrize("verb", FITS)
async def test_what_does_not_fit_is_refused_with_the_reason_and_changes_nothing(odd: Panel, path: Path, verb: str) -> None:
    misfit = {"retry": "waits", "resume": "waits", "delete": "waits", "fork": "nobody"}.get(verb, "finished")
    given = {**FITS[verb][1], "typed": misfit, "force": "1", "to": "await", "reason": ""}
    version = (await odd.app.get(misfit)).version if misfit != "nobody" else 0
    before = digest(path)
    answer = await odd.post_json("/act", {"verb": verb, "id": misfit, "version": version, **given})
    assert answer.status == (404 if verb == "fork" else 422), answer.text
    assert answer.json()["error"]["hint"]
    assert digest(path) == before


# -- what is asked for is read strictly -----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["", "get", "find", "store", "__init__", "_act", "close", "start", "Retry", "wake ", "run"])
async def test_s17_no_word_leads_to_anything_but_the_table_of_actions(odd: Panel, path: Path, verb: str) -> None:
    before = digest(path)
    answer = await odd.post("/act", verb=verb, id="failed", version=1)
    assert answer.status == 404 and "there is no action" in Html(answer.text).root.text
    assert (await odd.post_json("/act", {"verb": verb, "id": "failed"})).status == 404
    assert digest(path) == before


@pytest.mark.parametrize(
    "wrong",
    [{"verb": ["retry", "stop"]}, {"id": 3}, {"id": None}, {"id": {"a": 1}}, {"version": "x"}, {"version": True}, {"version": -1},
     {"version": 1.5}, {"version": "9" * 30}, {"version": [1]}, {"reason": ["a"]}, {"back": 7}],
)  # fmt: skip
async def test_a_field_of_the_wrong_kind_is_no_action(odd: Panel, path: Path, wrong: dict[str, Any]) -> None:
    before = digest(path)
    answer = await odd.post_json("/act", {"verb": "retry", "id": "failed", "version": 1, **wrong})
    assert answer.status in (400, 404), answer.text
    assert digest(path) == before


async def test_a_field_twice_is_no_action(odd: Panel) -> None:
    answer = await odd.post("/act", [("verb", "retry"), ("verb", "stop"), ("id", "failed"), ("version", "1")])
    assert answer.status == 400
    assert (await odd.post("/act", [("verb", "retry"), ("id", "failed"), ("id", "waits")])).status == 400


async def test_hostile_reasons_and_ids_stand_in_the_history_as_text(odd: Panel) -> None:
    answer = await odd.post("/act", verb="pause", id=NASTY, version=0, reason=NASTY)
    assert answer.status == 303
    page = Html((await odd.get(answer.header("location"))).text)
    assert not page.all("img")
    assert NASTY.split()[1] in page.one(id="timeline").text


# -- where a form leads back to --------------------------------------------------------------------------------------------

ELSEWHERE = [
    "https://evil.example/", "//evil.example/", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
    "///evil.example/flow", "/process//evil.example", "http:/process", "/process@evil.example", " /flow", "\t/flow",
    "/flow\r\nset-cookie: a=b", "/leave", "/static/panel.css", "/act", "/flow/../leave", "%2f%2fevil.example", "/%2e%2e/",
    "flow", "?id=x", "/flow;//evil", "https:/flow", "/FLOW",
]  # fmt: skip


@pytest.mark.parametrize("back", ELSEWHERE)
async def test_no_form_leads_to_somewhere_else(odd: Panel, back: str) -> None:
    answer = await odd.post("/act", verb="retry", id="failed", version=1, back=back)
    assert answer.status == 303
    assert answer.header("location").startswith("/process?id=failed&done=")


@pytest.mark.parametrize(
    ("back", "leads"),
    [
        ("/flow?name=doc&q=is%3Afailed", "/flow?name=doc&q=is%3Afailed&done="),
        ("/", "/?done="),
        ("/attention", "/attention?done="),
        ("/process?id=waits&version=2&done=old", "/process?id=waits&version=2&done="),
        ("/flow?from=1&path=x&self=2&root=3&__a=4&a-b=5", "/flow?from=1&done="),
    ],
)
async def test_a_form_leads_back_to_the_list_it_was_sent_from(odd: Panel, back: str, leads: str) -> None:
    answer = await odd.post("/act", verb="retry", id="failed", version=1, back=back)
    assert answer.status == 303 and answer.header("location").startswith(leads)


async def test_a_mounted_panel_leads_back_into_itself(path: Path) -> None:
    async with entered(opened(await filled_file(path, NOW), ManualClock(NOW))) as panel:
        panel.root = "/ops/panel"
        page = Html((await panel.get("/process?id=failed")).text)
        assert page.one(id="answer").all("form", action="/ops/panel/act")
        answer = await panel.post("/act", verb="retry", id="failed", version=1, back="/ops/panel/flow?name=doc")
        assert answer.header("location").startswith("/ops/panel/flow?name=doc&done=")


# -- conflicts ------------------------------------------------------------------------------------------------------------


async def test_s13_who_acts_on_what_is_no_longer_so_sees_what_changed_and_can_do_it_again(odd: Panel) -> None:
    await odd.app.pause("waits", actor="grace", reason="I was faster")
    answer = await odd.post("/act", verb="cancel", id="waits", version=5, reason="mine")
    assert answer.status == 409
    html = Html(answer.text)
    assert "You saw version 5, it is at version 6 now. Nothing was done." in html.root.text
    assert "by grace: I was faster" in html.root.text
    assert (await odd.app.get("waits")).condition == "paused"
    again = fields(form_to(answer, "/act"))
    assert again["version"] == "6" and again["reason"] == "mine"
    assert (await odd.post("/act", **again)).status == 303
    assert (await odd.app.get("waits")).status == "clean"


@pytest.mark.parametrize("verb", sorted(set(FITS) - {"fork"}))
async def test_a_stale_version_is_a_conflict_for_every_action_and_changes_nothing(odd: Panel, path: Path, verb: str) -> None:
    id, given, _ = FITS[verb]
    version = (await odd.app.get(id)).version
    before = digest(path)
    for stale in (version - 1, version + 1):
        answer = await odd.post("/act", verb=verb, id=id, version=stale, **given)
        assert answer.status == 409, answer.text
        Html(answer.text)
        answer = await odd.post_json("/act", {"verb": verb, "id": id, "version": stale, **given})
        assert (answer.status, answer.json()["error"]["code"], answer.json()["error"]["version"]) == (409, "conflict", version)
    assert digest(path) == before


async def test_a_conflict_that_has_made_the_action_senseless_says_so(odd: Panel) -> None:
    await odd.app.resume("paused", actor="grace")
    version = (await odd.app.get("paused")).version
    answer = await odd.post("/act", verb="resume", id="paused", version=version - 1)
    assert answer.status == 409 and "it is ready, at await" in Html(answer.text).root.text
    assert not Html(answer.text).all("form", action="/act")


async def test_a_conflict_with_an_edit_shows_what_it_would_change_now_and_keeps_what_was_typed(odd: Panel) -> None:
    now = await data_of(odd, "failed")
    mine = {**now, "token": "••••••••", "topic": "mine"}
    await odd.app.edit("failed", {**now, "topic": "theirs", "pages": 9}, actor="grace")
    answer = await odd.post("/act", verb="edit", id="failed", version=1, data=json.dumps(mine), reason="typo")
    assert answer.status == 409 and CANARY not in answer.text
    html = Html(answer.text)
    [yours] = [one for one in html.all("section") if one.get("aria-labelledby") == "yours-title"]
    assert 'topic "theirs"' in yours.text and 'topic "mine"' in yours.text and "pages" in yours.text and "token" not in yours.text
    assert (await odd.post("/act", **fields(form_to(answer, "/act")))).status == 303
    after = await data_of(odd, "failed")
    assert (after["topic"], after["token"]) == ("mine", {"$secret": CANARY})


async def test_a_draft_of_what_is_no_longer_so_is_a_conflict_too(odd: Panel) -> None:
    await odd.app.retry("failed", actor="grace")
    answer = await odd.post("/draft", [("id", "failed"), ("version", "1"), ("field.topic", "mine")])
    assert answer.status == 409
    again = form_to(answer, "/draft")
    answer = await odd.post("/draft", **fields(again))
    assert answer.status == 200 and 'topic "mine"' in Html(answer.text).root.text


async def test_of_two_at_the_same_time_one_wins(odd: Panel) -> None:
    import asyncio

    both = [odd.post_json("/act", {"verb": "retry", "id": "failed", "version": 1}) for _ in range(2)]
    answers = await asyncio.gather(*both)
    assert sorted(answer.status for answer in answers) == [200, 409]


# -- what is asked first -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["stop", "delete"])
@pytest.mark.parametrize("typed", ["", "finishe", "FINISHED", "finished "])
async def test_what_cannot_be_taken_back_asks_for_the_id(odd: Panel, path: Path, verb: str, typed: str) -> None:
    id = "finished" if verb == "delete" else "waits"
    typed = typed.replace("finishe", "wait").replace("FINISHED", "WAITS") if verb == "stop" else typed
    before = digest(path)
    version = (await odd.app.get(id)).version
    answer = await odd.post("/act", verb=verb, id=id, version=version, typed=typed, reason="mine")
    assert answer.status == 422 and "Type its id" in Html(answer.text).root.text
    assert fields(form_to(answer, "/act"))["reason"] == "mine"
    assert digest(path) == before


async def test_the_page_that_confirms_says_what_becomes_of_it_and_what_stays_outside(odd: Panel) -> None:
    cancel = Html((await odd.get("/confirm?id=waits&verb=cancel")).text).one("main").text
    assert "It will be waiting at clean" in cancel
    stop = await odd.get("/confirm?id=waits&verb=stop")
    assert "file-min01" in Html(stop.text).one("main").text
    assert fields(form_to(stop, "/act"))["typed"] == ""
    delete = Html((await odd.get("/confirm?id=finished&verb=delete")).text).one("main").text
    assert "entries of history" in delete
    refused = Html((await odd.get("/confirm?id=waits&verb=delete")).text)
    assert not refused.all("form", action="/act") and "it is waiting, at await" in refused.root.text
    assert (await odd.get("/confirm?id=waits&verb=nothing")).status == 404


async def test_the_form_on_the_page_that_confirms_does_it(odd: Panel) -> None:
    sent = fields(form_to(await odd.get("/confirm?id=waits&verb=cancel"), "/act"))
    assert (await odd.post("/act", **{**sent, "reason": "ordered twice"})).status == 303
    assert (await last(odd, "waits")).reason == "ordered twice"


# -- move ----------------------------------------------------------------------------------------------------------------------


async def test_the_page_to_move_has_the_declared_ways_first_each_with_what_leads_there(odd: Panel) -> None:
    facts = (await odd.get("/move.json?id=waits")).json()
    assert [(one["status"], one["about"]) for one in facts["declared"]] == [("clean", "its handler may return it")]
    assert [one["status"] for one in facts["others"]] == ["fetch", "write", "done"]
    form = form_to(await odd.get("/move?id=waits"), "/act")
    assert [one.get("value") for one in form.all("input", type="radio")] == ["clean", "fetch", "write", "done"]


async def test_a_way_that_is_not_declared_warns_first_and_takes_a_reason(odd: Panel, path: Path) -> None:
    before = digest(path)
    answer = await odd.post("/act", verb="move", id="waits", version=5, to="fetch")
    assert answer.status == 422 and "has no way from await to fetch" in Html(answer.text).root.text
    sent = fields(form_to(answer, "/act"))
    assert sent["force"] == "1"
    answer = await odd.post("/act", **{**sent, "reason": " "})
    assert answer.status == 422 and "Say why" in answer.text
    as_json = await odd.post_json("/act", {"verb": "move", "id": "waits", "version": 5, "to": "fetch"})
    assert as_json.status == 422 and "no declared transition" in as_json.json()["error"]["message"]
    assert digest(path) == before
    assert (await odd.post("/act", **{**sent, "reason": "from the start"})).status == 303
    assert ((await odd.app.get("waits")).status, (await last(odd, "waits")).reason) == ("fetch", "from the start")


async def test_a_warning_about_a_way_gives_no_force_to_who_has_none(odd: Panel, path: Path) -> None:
    before = digest(path)
    for force in ("", "0", "false", "no"):
        answer = await odd.post_json("/act", {"verb": "move", "id": "waits", "to": "fetch", "force": force, "reason": "x"})
        assert answer.status == 422, force
    assert digest(path) == before


@pytest.mark.parametrize("to", ["", "nowhere", "__init__", "await"])
async def test_no_status_but_another_one_of_the_flow_can_be_moved_to(odd: Panel, path: Path, to: str) -> None:
    before = digest(path)
    answer = await odd.post("/act", verb="move", id="waits", version=5, to=to, force="1", reason="x")
    assert answer.status == 422
    assert digest(path) == before


async def test_an_unknown_status_can_be_left(odd: Panel, path: Path) -> None:
    rewrite(path, "ready", status="transcode")
    answer = await odd.post("/act", verb="move", id="ready", version=0, to="write")
    answer = await odd.post("/act", **{**fields(form_to(answer, "/act")), "reason": "renamed"})
    assert answer.status == 303 and (await odd.app.get("ready")).status == "write"


# -- edit ----------------------------------------------------------------------------------------------------------------------


async def test_an_edit_shows_the_difference_before_it_is_saved_and_keeps_secrets(odd: Panel, path: Path) -> None:
    before = digest(path)
    sent = fields(form_to(await odd.get("/edit?id=failed"), "/draft", **{"field.pages": "1"}))
    draft = await odd.post("/draft", **{**sent, "field.pages": "7", "field.words": "one\r\ntwo", "field.nickname": "Bo"})
    assert draft.status == 200
    text = Html(draft.text).one("main").text
    assert (
        "pages 1" in text and "pages 7" in text and 'words[0] "one"' in text and 'nickname "Bo"' in text and "token" not in text
    )
    assert digest(path) == before  # nothing is saved by it
    old = await data_of(odd, "failed")
    assert (await odd.post("/act", **{**fields(form_to(draft, "/act")), "reason": "typo"})).status == 303
    assert await data_of(odd, "failed") == {**old, "pages": 7, "words": ["one", "two"], "nickname": "Bo"}
    assert old["token"] == {"$secret": CANARY}
    entry = await last(odd, "failed")
    assert (entry.kind, entry.reason, entry.actor) == ("edited", "typo", "ada (panel)")


async def test_a_form_that_nobody_touched_changes_nothing_whatever_the_data(odd: Panel) -> None:
    doc = Doc(
        id="all", topic=" lead\nand\ttrail \n", token="\n•", pages=10**30, price=1e-300, nickname="", words=["", " ", "a\nb"],
        counts=[0, -1], files={"ä": "\u2028"}, log=["\nfirst", "</textarea><script>"], fate="\r\n",
    )  # fmt: skip
    await odd.app.start(doc)
    for id in ("all", "waits", "failed"):
        page = await odd.get(f"/edit?id={id}")
        forms = Html(page.text).all("form", action="/draft")
        assert len(forms) == 2
        for form in forms:
            draft = await odd.post("/draft", **fields(form))
            assert draft.status == 200, Html(draft.text).root.text
            assert "No difference." in Html(draft.text).root.text


async def test_a_new_secret_is_told_as_another_one_and_saved(odd: Panel) -> None:
    sent = fields(form_to(await odd.get("/edit?id=failed"), "/draft", **{"field.pages": "1"}))
    draft = await odd.post("/draft", **{**sent, "field.token": "sk-brand-new"})
    [difference] = [one for one in Html(draft.text).all("section") if one.get("aria-label") == "What would change"]
    assert 'token "••••••••" (another one)' in difference.text and "sk-brand-new" not in difference.text
    assert (await odd.post("/act", **fields(form_to(draft, "/act")))).status == 303
    assert (await data_of(odd, "failed"))["token"] == {"$secret": "sk-brand-new"}


async def test_a_mask_that_stands_for_nothing_is_refused(odd: Panel) -> None:
    answer = await odd.post("/draft", [("id", "failed"), ("version", "1"), ("json", '{"topic": "••••••••"}')])
    assert answer.status == 422 and "mask of a secret" in Html(answer.text).root.text
    assert (await odd.post("/act", verb="edit", id="failed", version=1, data='{"topic": "••••••••"}')).status == 422


FAULTY = [
    ({"field.pages": "many"}, "pages", "'many' is no whole number"),
    ({"field.pages": "1.5"}, "pages", "is no whole number"),
    ({"field.price": "NaN"}, "price", "is no number"),
    ({"field.counts": "1\r\ntwo"}, "counts", "'two' is no whole number"),
    ({"field.address": '{"street": '}, "address", "this is no JSON"),
    ({"field.address": '{"street": "x"}'}, "address", "number: Field required"),
    ({"field.files": "[]"}, "files", "Input should be an object"),
    ({"field.colour": '"blue"'}, "colour", "Input should be 'red' or 'green'"),
    ({"field.urgent": "perhaps"}, "urgent", "this is no JSON"),
]


@pytest.mark.parametrize(("typed", "name", "fault"), FAULTY, ids=lambda value: str(value)[:30])
async def test_a_fault_stands_beside_its_field_and_nothing_typed_is_lost(
    odd: Panel, path: Path, typed: dict[str, str], name: str, fault: str
) -> None:
    before = digest(path)
    sent = fields(form_to(await odd.get("/edit?id=failed"), "/draft", **{"field.pages": "1"}))
    sent = {**sent, "field.topic": "kept, whatever happens", **typed}
    answer = await odd.post("/draft", **sent)
    assert answer.status == 422
    again = form_to(answer, "/draft", **{"field.topic": "kept, whatever happens"})
    assert {key: value for key, value in fields(again).items() if value != sent[key]} == {}
    [wrong] = [one for one in again if one.get("aria-invalid") == "true"]
    assert wrong.get("name") == f"field.{name}"
    [said] = [one for one in again if one.get("id") and one.get("id") in wrong.get("aria-describedby").split()[-1:]]
    assert fault in said.text
    assert digest(path) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "this is no JSON"),
        ("[]", "no object"),
        ('{"topic": "a", "topic": "b"}', "twice"),
        ('{"topic": NaN}', "NaN"),
        ("[" * 300, "no JSON"),
        ('{"topic": "x", "colours": 1}', "no field 'colours'; did you mean colour?"),
        ('{"pages": 3}', "topic: Field required"),
        ('{"topic": "x", "id": "other"}', "id"),
        ('{"topic": "x", "status": "done"}', "status"),
    ],
)
async def test_s12_json_that_does_not_fit_is_refused_and_stands_there_again(odd: Panel, path: Path, text: str, says: str) -> None:
    before = digest(path)
    answer = await odd.post("/draft", [("id", "failed"), ("version", "1"), ("json", text)])
    assert answer.status == 422 and says in Html(answer.text).root.text
    assert fields(form_to(answer, "/draft", json=text))
    assert (await odd.post("/act", verb="edit", id="failed", version=1, data=text)).status == 422
    assert digest(path) == before


async def test_an_edit_can_be_gone_on_with_after_the_difference(odd: Panel) -> None:
    draft = await odd.post("/draft", [("id", "failed"), ("version", "1"), ("json", '{"topic": "x", "pages": 3}')])
    edit = await odd.post("/draft", **fields(form_to(draft, "/draft")))
    assert edit.status == 200
    [form] = [form for form in Html(edit.text).all("form", action="/draft") if "json" in fields(form)]
    assert json.loads(fields(form)["json"]) == {"topic": "x", "pages": 3}


async def test_programs_can_draft_too(odd: Panel) -> None:
    data = {**await data_of(odd, "failed"), "pages": 5, "token": "••••••••"}
    answer = await odd.post_json("/draft", {"id": "failed", "version": 1, "data": data})
    told = answer.json()
    assert (told["schema"], told["changes"]) == (
        "onward.panel.draft/1",
        [{"op": "changed", "path": "pages", "before": "1", "after": "5"}],
    )
    assert (await odd.post_json("/draft", {"id": "failed", "version": 1, "data": {"topic": 1}})).json()["error"][
        "code"
    ] == "invalid"


async def test_an_edit_names_the_version_it_was_made_of(odd: Panel) -> None:
    answer = await odd.post_json("/act", {"verb": "edit", "id": "failed", "data": {"topic": "x"}})
    assert answer.status == 422 and "which version" in answer.json()["error"]["message"]
    wrong: list[Any] = [None, [], 3]
    for data in wrong:
        answer = await odd.post_json("/act", {"verb": "edit", "id": "failed", "version": 1, "data": data})
        assert answer.status == 422


async def test_data_too_large_for_a_form_are_edited_elsewhere(odd: Panel) -> None:
    await odd.app.start(Doc(id="large", topic="ä" * 300_000))
    text = (await odd.get("/edit?id=large")).text
    assert len(text) < 50_000 and "onward edit large" in text and not Html(text).all("textarea")


async def test_what_is_over_or_runs_has_no_form_but_the_reason(odd: Panel) -> None:
    await odd.app.store.claim([("doc", "fetch", 1)], "worker-7", 1, timedelta(minutes=5), ["ready"])
    for id, why in (("finished", "it is finished, at done"), ("ready", "worker-7 is running fetch")):
        html = Html((await odd.get(f"/edit?id={id}")).text)
        assert why in html.root.text and not html.all("form", action="/draft")
    for id, why in (("ready", "worker-7 is running fetch"),):
        html = Html((await odd.get(f"/move?id={id}")).text)
        assert why in html.root.text and not html.all("form", action="/act")


# -- fork ----------------------------------------------------------------------------------------------------------------------


async def test_a_fork_says_which_things_outside_both_would_share_and_never_a_secret(odd: Panel) -> None:
    facts = (await odd.get("/fork.json?id=waits")).json()
    assert facts["shared"] == ["file-fig01", "file-min01"] and facts["at_version"] == 5
    assert "file-min01 would be changed or deleted by both" in Html((await odd.get("/fork?id=waits")).text).root.text
    assert (await odd.get("/fork.json?id=waits&at=0")).json()["shared"] == []


async def test_what_is_over_is_forked_at_the_last_version_at_which_it_was_not(odd: Panel) -> None:
    last_version = (await odd.app.get("finished")).version
    facts = (await odd.get("/fork.json?id=finished")).json()
    assert facts["at_version"] == last_version - 1 and facts["then"]["to"] == "clean" and not facts["refused"]
    html = Html((await odd.get(f"/fork?id=finished&at={last_version}")).text)
    assert "was over" in html.root.text and not html.all("form", action="/act")


async def test_a_fork_to_an_id_that_exists_is_a_conflict(odd: Panel) -> None:
    answer = await odd.post("/act", verb="fork", id="waits", at=3, new_id="failed")
    assert answer.status == 409 and "exists already" in Html(answer.text).root.text
    answer = await odd.post("/act", verb="fork", id="waits", at=99)
    assert answer.status == 404


async def test_a_fork_has_an_id_of_its_own_if_none_is_given(odd: Panel) -> None:
    answer = await odd.post("/act", **fields(form_to(await odd.get("/fork?id=waits&at=3"), "/act")))
    assert answer.status == 303
    new = await odd.app.get(query_of(answer)["id"])
    assert (new.status, new.version) == ("write", 0) and new.id != "waits"
    assert (
        "from waits at version 3" in Html((await odd.get("/process?" + urlencode({"id": new.id}))).text).one(id="timeline").text
    )


async def test_no_answer_to_an_action_shows_a_secret(odd: Panel) -> None:
    for verb, (id, given, _) in FITS.items():
        for version in (99, (await odd.app.get(id)).version):
            answer = await odd.post("/act", verb=verb, id=id, version=version, **given)
            assert CANARY not in answer.text and quote(CANARY) not in answer.header("location"), verb
            if verb == "delete":
                break
