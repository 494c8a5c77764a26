"""What people do in the panel: with the mouse, with the keyboard alone, and when somebody else was faster."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

from playwright.sync_api import Locator, Page, expect

from browser.bakery import Loaf, Topping, cold
from browser.conftest import Watched
from browser.looks import PHONE, assert_accessible, assert_fits_a_phone
from browser.site import Site, until

COLD = "is cold"
MANY = 3_000  # for a bulk action to be caught at it


def group(page: Page, words: str) -> Locator:
    """The failures of one kind, on the page of what needs a person."""
    return page.get_by_role("main").locator("section").filter(has=page.get_by_role("heading", name=words))


def looks_right(page: Page) -> None:
    """For the pages that come only in answer to a POST; it is the last thing that is done with one."""
    assert_accessible(page)
    page.set_viewport_size(PHONE)
    assert_fits_a_phone(page)


def onward(site: Site, command: str, *more: str) -> str:
    """What somebody sees who types that into a shell."""
    first, *words = shlex.split(command)
    assert first == "onward"
    done = subprocess.run(
        [sys.executable, "-m", "onward", *words, *more], cwd=site.folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


# -- one reason, many processes -------------------------------------------------------------------------------------


def test_whoever_has_never_seen_it_retries_all_that_failed_for_one_reason_and_sees_them_finish(
    visit: Watched, bread: Site
) -> None:
    with cold(bread.folder):
        bread.bake(*(Loaf(id=f"new-{n}", toppings=[Topping(grams=n)]) for n in range(6)))
    page = visit("/")
    page.get_by_role("link", name="need a person").first.click()
    failed = group(page, COLD)
    expect(failed.get_by_text("new-0", exact=True).or_(failed.get_by_text("new-5", exact=True)).first).to_be_visible()
    number = int(failed.locator(".badge b").inner_text())
    failed.get_by_role("button", name=f"Retry these {number}").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Retry {number}")
    expect(page.get_by_text("Nothing has been changed yet")).to_be_visible()
    assert bread.get("new-0").condition == "failed"
    page.get_by_label("Why").fill("the oven is warm again")
    page.get_by_role("button", name=f"Retry {number}").click()

    expect(page.locator("#bulk-condition")).to_contain_text("finished")
    expect(page.locator("#bulk-progress")).to_contain_text(f"{number} done, 0 refused")
    with bread.worker():
        page.goto("/flow?name=loaf&q=id:new-*")
        for n in range(6):
            expect(page.locator(f'[data-row="new-{n}"]')).to_contain_text("finished")
    assert all(bread.get(f"new-{n}").condition == "finished" for n in range(6))
    [retried] = [entry for entry in bread.do(lambda app: app.history("new-0")) if entry.kind == "retried"]
    assert "the oven is warm again" in (retried.reason or "") and retried.actor
    page.goto("/attention")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(group(page, COLD)).to_have_count(0)


def test_the_command_that_stands_beside_it_does_the_same(visit: Watched, bread: Site) -> None:
    bread.bake(*(Loaf(id=f"shell-{n}", kind="spelt") for n in range(3)))
    page = visit("/attention")
    command = group(page, "no spelt flour").locator(".command-text").inner_text()
    assert command.startswith("onward retry ")
    (bread.folder / "flour").touch()
    onward(bread, command, "--yes")
    with bread.worker():
        until(lambda: bread.get("shell-2").condition == "finished")
    (bread.folder / "flour").unlink()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    expect(group(page, "no spelt flour")).to_have_count(0)


def test_selected_rows_are_shown_before_anything_happens_with_those_that_would_be_refused(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="pick-1", kind="sourdough"), Loaf(id="pick-2", kind="sourdough"), Loaf(id="pick-3", kind="white"))
    page = visit("/flow?name=loaf&q=id:pick-*")
    for id in ("pick-1", "pick-3"):
        page.get_by_role("checkbox", name=f"Select {id}").check()
    expect(page.locator("[data-selected-number]")).to_have_text("2")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Pause 1 process")
    expect(page.get_by_role("row").filter(has_text="pick-3")).to_be_visible()
    page.get_by_role("button", name="Pause 1").click()
    expect(page.locator("#bulk-condition")).to_contain_text("finished")
    assert [bread.get(f"pick-{n}").condition for n in (1, 2, 3)] == ["paused", "waiting", "finished"]
    looks_right(page)


def test_what_cannot_be_taken_back_is_asked_for_in_bulk_as_well(visit: Watched, bread: Site) -> None:
    page = visit("/flow?name=loaf&q=is:finished")
    page.get_by_role("checkbox", name="that match").check()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Delete")
    assert bread.get("white-1").condition == "finished"
    looks_right(page)


def test_a_bulk_action_can_be_stopped_half_way(visit: Watched, bread: Site) -> None:
    many = [Loaf(id=f"many-{n:04}", kind="sourdough") for n in range(MANY)]
    bread.do(lambda app: app.start_many(many))
    page = visit("/flow?name=loaf&q=id:many-*")
    page.get_by_role("checkbox", name="that match").check()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name=f"Pause {MANY:,}").click()
    expect(page.locator("#bulk-progress")).to_contain_text(re.compile(r"\b[1-9][0-9]* done"))
    page.locator("#bulk-acts").get_by_role("button", name="Stop").click()
    expect(page.locator("#bulk-condition")).to_contain_text("cancelled")
    done = bread.do(lambda app: app.find("is:paused id:many-*", flow="loaf", limit=1_000))
    assert 0 < len(done) < MANY
    page.goto("/bulk")
    expect(page.get_by_role("row").filter(has_text="many-")).to_contain_text("cancelled")
    looks_right(page)


# -- one process ----------------------------------------------------------------------------------------------------


def test_an_edit_shows_what_it_would_change_before_it_is_saved_and_nobody_sees_the_secret(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="edit-1", kind="sourdough", card="4929-1234", toppings=[Topping(name="seeds")]))
    page = visit("/process?id=edit-1")
    page.get_by_role("link", name="Edit data").click()
    assert "4929-" not in page.content()
    page.get_by_label("grams").first.fill("750")
    page.get_by_role("button", name="See what would change").first.click()
    main = page.get_by_role("main")
    expect(main).to_contain_text("grams")
    expect(main).to_contain_text("500")
    expect(main).to_contain_text("750")
    assert "4929-" not in page.content() and bread.get("edit-1").process.grams == 500
    assert_accessible(page)
    page.get_by_label("Why").fill("they want more")
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/process?**")
    after = bread.get("edit-1").process
    assert (after.grams, after.card, after.toppings) == (750, "4929-1234", [Topping(name="seeds")])
    assert "4929-" not in page.content()


def test_an_edit_that_does_not_fit_says_where_and_keeps_what_was_typed(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="edit-2", kind="sourdough"))
    before = bread.get("edit-2").version
    page = visit("/edit?id=edit-2")
    page.get_by_label("grams").first.fill("much")
    page.get_by_label("kind").fill("dark rye")
    page.get_by_role("button", name="See what would change").first.click()
    visit.expect("422")
    grams = page.get_by_label("grams").first
    expect(grams).to_have_attribute("aria-invalid", "true")
    expect(grams).to_have_value("much")
    expect(page.get_by_label("kind")).to_have_value("dark rye")
    assert bread.get("edit-2").version == before
    looks_right(page)


def test_who_comes_second_is_shown_what_happened_meanwhile_and_may_do_it_all_the_same(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="both-1", kind="sourdough"))
    page = visit("/confirm?id=both-1&verb=cancel")
    bread.do(lambda app: app.pause("both-1", actor="ines", reason="I was faster"))
    page.get_by_role("button", name="Cancel").click()
    visit.expect("409")
    main = page.get_by_role("main")
    for told in ("changed meanwhile", "Nothing was done", "I was faster", "ines"):
        expect(main).to_contain_text(told)
    assert bread.get("both-1").condition == "paused"
    assert_accessible(page)
    page.get_by_role("button", name="as it is now").click()
    page.wait_for_url("**/process?**")
    assert bread.get("both-1").status != "rising"


def test_an_edit_of_what_was_edited_meanwhile_shows_both_changes(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="both-2", kind="sourdough"))
    page = visit("/edit?id=both-2")
    page.get_by_label("grams").first.fill("750")
    page.get_by_role("button", name="See what would change").first.click()

    async def edit(app: Any) -> None:
        data = (await app.get("both-2")).process.model_dump(mode="json", exclude={"id", "status"})
        await app.edit("both-2", {**data, "kind": "whole wheat"}, actor="ines")

    bread.do(edit)
    page.get_by_role("button", name="Save").click()
    visit.expect("409")
    expect(page.get_by_role("main")).to_contain_text("whole wheat")
    expect(page.get_by_role("main")).to_contain_text("750")
    after = bread.get("both-2").process
    assert (after.kind, after.grams) == ("whole wheat", 500)
    looks_right(page)


def test_a_move_that_the_flow_does_not_declare_is_warned_of_and_takes_a_reason(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="move-1", kind="sourdough"))
    page = visit("/move?id=move-1")
    page.locator("label.choice").filter(has_text="ordered").click()
    page.get_by_role("button", name="Move it there").click()
    visit.expect("422")
    expect(page.get_by_text("has no way from rising to ordered")).to_be_visible()
    assert bread.get("move-1").status == "rising"
    assert_accessible(page)
    page.get_by_label("Why").fill("it was the wrong dough")
    page.get_by_role("button", name="all the same").click()
    page.wait_for_url("**/process?**")
    assert bread.get("move-1").status == "ordered"


def test_to_delete_takes_the_id_typed_out(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="gone-1", kind="white"))
    page = visit("/process?id=gone-1")
    page.get_by_role("link", name="Delete").click()
    page.get_by_label("Type its id").fill("gone-2")
    page.get_by_role("button", name="Delete").click()
    visit.expect("422")
    assert bread.get("gone-1").condition == "finished"
    page.get_by_label("Type its id").fill("gone-1")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("gone-1 is deleted")).to_be_visible()
    assert bread.do(lambda app: app.find("id:gone-1")) == []


def test_a_process_is_started_from_a_form_made_of_its_model(visit: Watched, bread: Site) -> None:
    page = visit("/flow?name=loaf")
    page.get_by_role("link", name="Start").click()
    assert_fits_a_phone(page)
    page.get_by_label("id", exact=False).first.fill("form-1")
    page.get_by_label("kind").fill("sourdough")
    page.get_by_label("grams").first.fill("900")
    page.get_by_label("card").fill("4929-5678")
    page.get_by_role("button", name="Start").first.click()
    page.wait_for_url("**/process?**")
    loaf = bread.get("form-1").process
    assert (loaf.kind, loaf.grams, loaf.card) == ("sourdough", 900, "4929-5678")
    assert "4929-" not in page.content()


# -- the keyboard alone ---------------------------------------------------------------------------------------------


def focused(page: Page) -> Locator:
    return page.locator(":focus")


def has_a_ring(page: Page) -> bool:
    """Whether the focus can be seen: by an outline or a shadow that it has only then."""
    return bool(
        page.evaluate(
            """() => {
                const one = document.activeElement, style = getComputedStyle(one);
                const ring = parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none";
                const seen = one.getBoundingClientRect();
                return (ring || style.boxShadow !== "none") && seen.width > 0 && seen.bottom > 0 && seen.top < innerHeight;
            }"""
        )
    )


def tab_to(page: Page, name: str, role: str = "link", most: int = 60) -> None:
    """Presses Tab until the focus is there. Whatever has it on the way must show it."""
    for _ in range(most):
        page.keyboard.press("Tab")
        assert has_a_ring(page), f"nobody sees where the focus is: {focused(page).evaluate('one => one.outerHTML.slice(0, 200)')}"
        one = page.get_by_role(role, name=name).and_(focused(page))  # type: ignore[arg-type]
        if one.count():
            return
    raise AssertionError(f"no {role} {name!r} within {most} tabs")


def test_from_the_first_page_to_a_failed_process_and_its_retry_with_the_keyboard_alone(visit: Watched, bread: Site) -> None:
    with cold(bread.folder):
        bread.bake(Loaf(id="keys-1"))
    page = visit("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    assert has_a_ring(page)
    page.keyboard.press("Enter")
    tab_to(page, "loaf")
    page.keyboard.press("Enter")
    page.wait_for_url("**/flow?name=loaf")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.type("is:failed id:keys-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=is**")
    tab_to(page, "keys-1")
    page.keyboard.press("Enter")
    page.wait_for_url("**/process?id=keys-1**")
    tab_to(page, "Retry", "button")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Retry: keys-1 is ready")).to_be_visible()
    assert bread.get("keys-1").condition == "ready"
    with bread.worker():
        expect(page.locator("#title")).to_contain_text("finished")


def test_the_letters_do_what_the_help_says(visit: Watched, bread: Site) -> None:
    bread.bake(Loaf(id="keys-2", kind="sourdough"), Loaf(id="keys-3", kind="sourdough"))
    page = visit("/flow?name=loaf&q=id:keys-*")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert_accessible(page)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("[data-rows] [data-row]").nth(1).get_by_role("link").first).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.locator("[data-rows] [data-row]").first.get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("Enter") if page.locator("a:focus").count() else page.locator("[data-rows] [data-row] a").first.press(
        "Enter"
    )
    page.wait_for_url("**/process?id=keys-**")
    page.keyboard.press("e")
    page.wait_for_url("**/edit?id=keys-**")
    for key, path in (("w", "workers"), ("h", "audit"), ("a", "attention")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**/{path}")
    page.keyboard.press("g")
    page.keyboard.press("p")
    page.wait_for_url(f"{bread.url}/")
