"""Pages follow what other programs do, without pulling anything away, and let go of the server when nobody looks."""

from __future__ import annotations

import time

from playwright.sync_api import Page, Request, Route, expect

from browser.bakery import Loaf
from browser.conftest import Watched
from browser.site import Site, until


def test_a_page_shows_what_another_program_does_without_being_loaded_again(visit: Watched, site: Site) -> None:
    site.bake(Loaf(id="live-1", kind="sourdough"))
    page = visit("/process?id=live-1")
    page.evaluate("window.same = true")
    expect(page.locator("#title")).to_contain_text("waiting")
    site.do(lambda app: app.pause("live-1", reason="by another program"))
    expect(page.locator("#title")).to_contain_text("paused")
    expect(page.locator("#timeline")).to_contain_text("by another program")
    site.do(lambda app: app.resume("live-1"))
    expect(page.locator("#title")).to_contain_text("ready")
    assert page.evaluate("window.same") and page.title().startswith("live-1")


def test_a_list_gains_and_changes_rows_and_keeps_focus_ticks_and_what_is_typed_or_open(visit: Watched, site: Site) -> None:
    site.bake(*(Loaf(id=f"list-{n}", kind="sourdough") for n in range(4)))
    page = visit("/flow?name=loaf&q=id:list-*")
    page.get_by_role("checkbox", name="Select list-2").check()
    page.locator("#asking summary").click()
    page.get_by_role("searchbox").fill("is:half typed")
    page.locator('[data-row="list-1"]').get_by_role("link").focus()
    site.bake(Loaf(id="list-9", kind="sourdough"))
    site.do(lambda app: app.pause("list-1"))
    expect(page.locator('[data-row="list-9"]')).to_contain_text("waiting")
    expect(page.locator('[data-row="list-1"]')).to_contain_text("paused")
    expect(page.locator('[data-row="list-1"]').get_by_role("link")).to_be_focused()
    expect(page.get_by_role("checkbox", name="Select list-2")).to_be_checked()
    expect(page.get_by_role("searchbox")).to_have_value("is:half typed")
    assert page.locator("#asking").evaluate("one => one.open")


def test_a_row_that_leaves_the_filter_is_greyed_and_not_pulled_away(visit: Watched, site: Site) -> None:
    site.bake(*(Loaf(id=f"leave-{n}", kind="sourdough") for n in range(3)))
    page = visit("/flow?name=loaf&q=is:waiting id:leave-*")
    site.do(lambda app: app.pause("leave-1"))
    gone = page.locator('[data-row="leave-1"]')
    expect(gone).to_have_class("gone")
    expect(page.locator("[data-row].gone")).to_have_count(1)
    page.reload()
    expect(page.locator('[data-row="leave-2"]')).to_be_visible()
    expect(gone).to_have_count(0)


def test_what_changes_while_a_page_is_being_read_is_shown_as_well(visit: Watched, site: Site) -> None:
    """A busy panel may take longer to answer than the next change takes to come."""
    site.bake(Loaf(id="slow-1", kind="sourdough"))
    page = visit("/process?id=slow-1")
    expect(page.locator("#live")).to_contain_text("Live")
    page.wait_for_timeout(1_000)  # the page has read itself again, as it does when the stream opens
    read_before = []

    def answer_late(route: Route) -> None:
        if read_before or route.request.resource_type != "fetch":
            return route.continue_()
        answer = route.fetch()
        read_before.append(answer.text())
        site.do(lambda app: app.resume("slow-1", reason="changed again"))
        time.sleep(2.0)  # in which the page is told of that, while it still waits for this answer
        return route.fulfill(response=answer)

    page.route("**/process?**", answer_late)
    site.do(lambda app: app.pause("slow-1"))
    expect(page.locator("#timeline")).to_contain_text("changed again")
    assert "changed again" not in read_before[0]


def test_numbers_on_the_first_page_go_on(visit: Watched, site: Site) -> None:
    page = visit("/")
    loaves = page.locator('[data-row="loaf"]')
    number = len(site.do(lambda app: app.find(flow="loaf", limit=1_000)))
    expect(loaves).to_contain_text(f"{number} in 5 stages")
    site.do(lambda app: app.start_many(Loaf(id=f"count-{n}", kind="sourdough") for n in range(1, 8)))
    expect(loaves).to_contain_text(f"{number + 7} in 5 stages")


def test_who_holds_the_page_sees_it_stand_still_until_they_let_it_go_on(visit: Watched, site: Site) -> None:
    site.bake(Loaf(id="hold-1", kind="sourdough"))
    page, other = visit("/process?id=hold-1"), visit("/process?id=hold-1")
    expect(page.locator("#live")).to_contain_text("Live")
    page.keyboard.press("p")
    expect(page.locator("#live")).to_contain_text("Held")
    site.do(lambda app: app.pause("hold-1"))
    expect(other.locator("#title")).to_contain_text("paused")
    expect(page.locator("#title")).to_contain_text("waiting")
    page.keyboard.press("p")
    expect(page.locator("#title")).to_contain_text("paused")


class Streams:
    """The streams of a page that are open."""

    def __init__(self, page: Page) -> None:
        self.open: list[Request] = []
        page.on("request", lambda one: self.open.append(one) if "/live" in one.url else None)
        for end in ("requestfinished", "requestfailed"):
            page.on(end, self._ended)  # type: ignore[call-overload]
        self._page = page

    def _ended(self, request: Request) -> None:
        if request in self.open:
            self.open.remove(request)

    def are(self, number: int) -> None:
        def so() -> bool:
            self._page.wait_for_timeout(20)
            return len(self.open) == number

        until(so)


def look_away(page: Page, hidden: bool) -> None:
    """Headless, every tab is told that it is seen; so we tell it otherwise."""
    page.evaluate(
        """(hidden) => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
            Object.defineProperty(document, "visibilityState", { configurable: true, get: () => hidden ? "hidden" : "visible" });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_a_hidden_tab_lets_go_of_its_stream_and_catches_up_when_it_is_seen_again(visit: Watched, site: Site) -> None:
    site.bake(Loaf(id="hide-1", kind="sourdough"))
    page = visit.context().new_page()
    streams = Streams(page)
    page.goto("/process?id=hide-1")
    streams.are(1)
    look_away(page, hidden=True)
    streams.are(0)
    site.do(lambda app: app.pause("hide-1"))
    page.wait_for_timeout(1_500)  # longer than a change takes to be shown
    expect(page.locator("#title")).to_contain_text("waiting")
    look_away(page, hidden=False)
    streams.are(1)
    expect(page.locator("#title")).to_contain_text("paused")


def test_an_open_dialog_is_not_disturbed(visit: Watched, site: Site) -> None:
    page = visit.context().new_page()
    streams = Streams(page)
    page.goto("/")
    streams.are(1)
    page.keyboard.press("?")
    streams.are(0)
    page.keyboard.press("Escape")
    streams.are(1)


def test_a_page_that_is_left_lets_go_as_well_and_many_tabs_do_not_block_each_other(visit: Watched, site: Site) -> None:
    context = visit.context()
    pages = [context.new_page() for _ in range(5)]
    for page in pages:
        page.goto("/flow?name=loaf")
    site.bake(Loaf(id="tabs-1", kind="sourdough"))
    for page in pages:
        expect(page.locator('[data-row="tabs-1"]')).to_be_visible()
    streams = Streams(pages[0])
    pages[0].goto("/start")
    pages[0].goto("/")
    streams.are(1)


def test_when_the_panel_is_away_the_page_says_so_and_keeps_what_it_last_knew(visit: Watched, site: Site) -> None:
    site.bake(Loaf(id="away-1", kind="sourdough"))
    page = visit("/process?id=away-1")
    expect(page.locator("#live")).to_contain_text("Live")
    with site.away():
        expect(page.locator("#live")).to_contain_text("Reconnecting")
        expect(page.locator("#title")).to_contain_text("waiting")
    site.do(lambda app: app.pause("away-1"))
    expect(page.get_by_text("terminal").or_(page.locator("#title").get_by_text("paused"))).to_be_visible()
    visit.complaints.clear()  # of a server that is away a browser complains, and rightly so
