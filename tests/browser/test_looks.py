"""Every page there is: no error of the browser, no violation of WCAG 2.2 AA in light and dark, and room enough on a phone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from browser.conftest import Watched
from browser.looks import PHONE, assert_accessible, assert_fits_a_phone
from browser.site import Site
from onward.panel import PAGES

# By name of the page. The answers to a POST are in test_acting.py.
PATHS = {
    "home": ["/"],
    "flow": [
        "/flow", "/flow?name=loaf", "/flow?name=report&q=is:failed", "/flow?name=feed", "/flow?q=colour:red", "/flow?q=id:nobody",
    ],
    "process": [
        "/process?id=rye-1", "/process?id=white-1", "/process?id=white-1&version=2&from=0", "/process?id=sour-1",
        "/process?id=report-9000", "/process?id=gift-00",
    ],
    "edit": ["/edit?id=rye-1", "/edit?id=white-1"],
    "move": ["/move?id=rye-1"],
    "fork": ["/fork?id=white-1&at=1"],
    "confirm": ["/confirm?id=rye-1&verb=cancel", "/confirm?id=rye-1&verb=stop", "/confirm?id=white-1&verb=delete"],
    "start": ["/start", "/start?flow=loaf"],
    "attention": ["/attention"],
    "workers": ["/workers"],
    "audit": ["/audit"],
    "bulk": ["/bulk"],
}  # fmt: skip
MISSING = ["/process?id=nobody", "/nowhere", "/process?id=white-1&version=99"]
EVERY = [path for paths in PATHS.values() for path in paths]


def test_no_page_is_left_out_here() -> None:
    assert {page.name for page in PAGES} == set(PATHS)


@pytest.mark.parametrize("path", EVERY)
def test_a_page_is_accessible_to_all_in_light_and_dark_and_fits_a_phone(visit: Watched, bread: Site, path: str) -> None:
    page = visit(path)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert page.title().endswith("· onward")
    assert_accessible(page)
    page.set_viewport_size(PHONE)
    assert_fits_a_phone(page)


def test_no_page_and_no_twin_of_it_in_json_holds_a_secret(visit: Watched, bread: Site) -> None:
    page = visit("/")
    twins = [path.replace("?", ".json?") if "?" in path else f"{path}.json" for path in EVERY if path != "/"]
    data = [f"/data.json?id={id}{version}" for id in ("rye-1", "white-1") for version in ("", "&version=0", "&version=2")]
    assert bread.get("rye-1").process.card == bread.get("white-1").process.card == "4929-1234"
    for path in [*EVERY, "/home.json", *twins, *data]:
        answer = page.request.get(f"{bread.url}{path}")
        assert answer.status in (200, 422) and "4929-" not in answer.text(), path
    for asked in ("data.card:4929-1234", "data.card.$secret:4929-1234", "data.card.$secret:4929*", "data.card:4929*"):
        told = page.request.get(f"{bread.url}/flow?q={asked}").text()
        assert "rye-1" not in told and "white-1" not in told, f"{asked} finds by what the secret is"


@pytest.mark.parametrize("path", MISSING)
def test_a_page_that_says_that_there_is_nothing_is_as_good(visit: Watched, bread: Site, path: str) -> None:
    page = visit(path, viewport=PHONE)
    visit.expect("404")
    assert_accessible(page)
    assert_fits_a_phone(page)
    assert page.get_by_role("main").get_by_role("link").count(), "it does not say where to go on"


def test_whoever_has_not_come_in_is_told_how(visit: Watched, bread: Site) -> None:
    page = visit("/flow?name=loaf", viewport=PHONE, storage_state=None)
    visit.expect("401")
    expect(page.get_by_text("terminal")).to_be_visible()
    assert_accessible(page)
    assert_fits_a_phone(page)


def test_the_link_lets_a_browser_in_by_itself(visit: Watched, bread: Site) -> None:
    page = visit(bread.link, storage_state=None)
    page.wait_for_url(f"{bread.url}/")
    expect(page.get_by_role("heading", name="Processes")).to_be_visible()


def test_the_theme_that_was_chosen_stays_on_all_pages_and_without_a_choice_it_is_that_of_the_system(
    visit: Watched, bread: Site
) -> None:
    def is_dark() -> bool:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return max(map(int, re.findall(r"\d+", colour)[:3])) < 100

    page = visit("/", color_scheme="dark")
    assert is_dark()
    theme = page.locator("#theme")
    theme.click()
    assert "light" in (theme.get_attribute("title") or "") and not is_dark()
    page.goto("/flow?name=loaf")
    assert not is_dark()
    page.keyboard.press("t")
    assert "dark" in (theme.get_attribute("title") or "") and is_dark()
    page.emulate_media(color_scheme="light")
    page.reload()
    assert is_dark()
    page.locator("#theme").click()
    assert "system" in (theme.get_attribute("title") or "") and not is_dark()


@pytest.mark.parametrize("path", ["/", "/flow?name=loaf", "/process?id=rye-1", "/attention"])
def test_on_paper_stands_what_there_is_to_read_and_nothing_to_press(visit: Watched, bread: Site, path: str) -> None:
    page = visit(path, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert [
        one.inner_text() for one in page.locator("button, input:not([type=hidden]), .button, .nav").all() if one.is_visible()
    ] == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    paper = page.pdf(format="A4", print_background=True)
    assert paper.startswith(b"%PDF") and paper.count(b"/Type /Page\n") < 12


def test_colours_that_a_person_forces_are_kept_and_nothing_vanishes_in_them(visit: Watched, bread: Site) -> None:
    page = visit("/process?id=rye-1", forced_colors="active")
    for text in ("failed", "Retry"):
        expect(page.get_by_role("main").get_by_text(text).first).to_be_visible()
    assert_accessible(page)


def test_whoever_wants_less_motion_sees_none(visit: Watched, bread: Site) -> None:
    page = visit("/process?id=report-9000", reduced_motion="reduce")
    moving = """[...document.querySelectorAll("*")].filter((one) => {
        const style = getComputedStyle(one);
        return style.animationName !== "none" && parseFloat(style.animationDuration) > 0.01;
    }).map((one) => one.outerHTML.slice(0, 80))"""
    assert page.evaluate(moving) == []
