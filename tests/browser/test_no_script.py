"""Without JavaScript the panel does all of its main work: it is made of links and forms."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from browser.bakery import Loaf, cold
from browser.conftest import Watched
from browser.looks import PHONE
from browser.site import Site, until


@pytest.fixture
def page(visit: Watched, bread: Site) -> Page:
    return visit.context(java_script_enabled=False).new_page()


def test_from_the_first_page_to_all_that_failed_for_one_reason_and_their_retry(page: Page, bread: Site) -> None:
    with cold(bread.folder):
        bread.bake(*(Loaf(id=f"plain-{n}") for n in range(3)))
    page.goto("/")
    page.get_by_role("link", name="Attention").click()
    failed = page.get_by_role("main").locator("section").filter(has=page.get_by_role("heading", name="is cold"))
    until(lambda: failed.count() or not page.reload())  # a page that is still looking says so, and is asked again
    failed.get_by_role("button", name="Retry these").click()
    expect(page.get_by_text("Nothing has been changed yet")).to_be_visible()
    page.get_by_role("main").get_by_role("button", name=re.compile("^Retry ")).click()
    bulk = page.locator("#bulk-condition")
    until(lambda: "finished" in bulk.inner_text() or not page.reload())
    assert bread.get("plain-2").condition == "ready"


def test_one_process_is_found_filtered_paused_and_resumed(page: Page, bread: Site) -> None:
    bread.bake(Loaf(id="plain-8", kind="sourdough"))
    page.goto("/")
    page.get_by_role("link", name="loaf", exact=True).click()
    page.get_by_role("searchbox").fill("id:plain-8")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="plain-8", exact=True).click()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Pause: plain-8 is paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Resume: plain-8 is ready")).to_be_visible()


def test_data_are_edited_with_the_difference_shown_before(page: Page, bread: Site) -> None:
    bread.bake(Loaf(id="plain-9", kind="sourdough", card="4929-1234"))
    page.goto("/process?id=plain-9")
    page.get_by_role("link", name="Edit data").click()
    page.get_by_label("grams").first.fill("800")
    page.get_by_role("button", name="See what would change").first.click()
    expect(page.get_by_role("main")).to_contain_text("800")
    page.get_by_role("button", name="Save").click()
    after = bread.get("plain-9").process
    assert (after.grams, after.card) == (800, "4929-1234")
    assert "4929-" not in page.content()


def test_selected_rows_are_acted_on(page: Page, bread: Site) -> None:
    bread.bake(Loaf(id="pick-1", kind="sourdough"), Loaf(id="pick-2", kind="sourdough"))
    page.goto("/flow?name=loaf&q=id:pick-*")
    page.get_by_role("checkbox", name="Select pick-2").check()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Pause 1").click()
    until(lambda: bread.get("pick-2").condition == "paused")
    assert bread.get("pick-1").condition == "waiting"


def test_a_process_is_started_from_the_form(page: Page, bread: Site) -> None:
    page.goto("/start?flow=loaf")
    page.get_by_label("kind").fill("rye")
    page.get_by_role("button", name="Start").first.click()
    page.wait_for_url("**/process?**")
    expect(page.get_by_text(re.compile("^Started "))).to_be_visible()


def test_a_page_renews_itself_if_it_is_told_to(page: Page, bread: Site) -> None:
    bread.bake(Loaf(id="plain-7", kind="sourdough"))
    page.goto("/process?id=plain-7")
    page.get_by_role("link", name="Refresh every 5 s").click()
    expect(page.locator("#title")).to_contain_text("waiting")
    bread.do(lambda app: app.pause("plain-7"))
    expect(page.locator("#title")).to_contain_text("paused", timeout=20_000)
    page.get_by_role("link", name="Stop refreshing").click()
    expect(page.get_by_role("link", name="Refresh every 5 s")).to_be_visible()


def test_nothing_is_shown_that_only_a_script_could_do(page: Page, bread: Site) -> None:
    for path in ("/", "/flow?name=loaf", "/process?id=rye-1", "/attention"):
        page.goto(path)
        for name in ("Copy", "Theme", "Keys", "Live"):
            assert page.get_by_role("button", name=name).count() == 0, (path, name)
        assert page.locator("[data-select-all]").is_hidden()


def test_somebody_comes_in_and_leaves_again_on_a_phone(visit: Watched, bread: Site) -> None:
    page = visit(bread.link, java_script_enabled=False, storage_state=None, viewport=PHONE)
    page.get_by_role("main").get_by_role("button").click()
    page.wait_for_url(f"{bread.url}/")
    page.get_by_role("button", name="Leave").click()
    page.wait_for_url("**/enter")
    page.goto("/")
    visit.expect("401")
