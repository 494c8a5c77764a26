"""Forty strings that want to be scripts stand in every field that a person or a program can fill, and stay text.

The policy of the panel would stop them even if they were not. So here the browser is told to disregard it: what these tests
prove is that nothing is ever taken for markup in the first place. That the policy holds is proven apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from browser import evil
from browser.conftest import Watched
from browser.evil import STRINGS
from browser.site import Site

# What no page of the panel has of its own, so whatever there is of it came out of a text.
FOREIGN = r"""(page) => {
    page ??= document;
    const own = (node) => node.matches("script[src$='/static/panel.js'], link[href$='/static/panel.css'], link[rel=icon]");
    const bad = "script, style, link, img, image, iframe, object, embed, base, audio, video, source, marquee, math, animate, "
        + "foreignObject, template, meta[http-equiv]:not([content='5']), [id=canary], [name=canary], [style], [srcdoc]";
    const told = [...page.querySelectorAll(bad)].filter((node) => !own(node)).map((node) => node.outerHTML.slice(0, 200));
    const goes = /^(href|src|action|formaction|xlink:href|data|poster|background)$/i;
    for (const node of page.querySelectorAll("*")) {
        for (const { name, value } of node.attributes) {
            const runs = name.startsWith("on") || goes.test(name) && !/^(\/|#|\.|http:\/\/127)/.test(value) && value !== "";
            if (runs) told.push(`${node.nodeName} ${name}=${value}`);
        }
    }
    return told;
}"""
# The same of pages that are read and not shown: nothing runs there, but what is markup is markup.
FOREIGN_IN_MANY = f"""async (paths) => {{
    const foreign = {FOREIGN}, told = [];
    for (const path of paths) {{
        const answer = await fetch(path), text = await answer.text();
        if (![200, 400, 401, 404, 422].includes(answer.status)) told.push(`${{path}}: ${{answer.status}}`);
        told.push(...foreign(new DOMParser().parseFromString(text, "text/html")).map((one) => `${{path}}: ${{one}}`));
    }}
    return told;
}}"""


@pytest.fixture(scope="module")
def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("evil"), "browser.evil")
    try:
        site.do(evil.fill)
        site.open()
        yield site
    finally:
        site.close()


@pytest.fixture
def page(visit: Watched) -> Page:
    """In it nothing is forbidden: what is taken for a script runs."""
    return visit.context(bypass_csp=True).new_page()


def assert_only_text(page: Page, text: str = "") -> None:
    assert page.evaluate("window.canary") is None, f"{text!r} ran on {page.url}"
    assert page.evaluate(FOREIGN) == [], f"{text!r} became markup on {page.url}"
    if text:
        assert text in page.get_by_role("main").inner_text() or text in page.content(), page.url


def look(page: Page, path: str, text: str = "", *, may_fail: bool = False) -> None:
    answer = page.goto(path)
    assert answer is not None and (answer.status == 200 or (may_fail and answer.status in (400, 401, 404, 422))), (path, answer)
    assert_only_text(page)
    if text:
        shown = " ".join(page.get_by_role("main").inner_text().split())
        assert " ".join(text.split())[:30] in shown, f"{text!r} is not shown on {path}, so this proves nothing"


def q(text: str) -> str:
    return quote(text, safe="")


def test_these_strings_do_run_where_they_are_taken_for_markup(visit: Watched, page: Page, site: Site) -> None:
    """Else the other tests would prove nothing."""
    ran = 0
    for text in STRINGS:
        page.set_content(f"<title>{text}</title><p title=\"{text}\" class='{text}'>{text}</p><textarea>{text}</textarea>")
        page.wait_for_timeout(30)
        ran += page.evaluate("window.canary !== undefined") and page.evaluate(FOREIGN) != []
    assert ran >= 34
    page.goto("/")
    visit.complaints.clear()  # of all that these strings tried


@pytest.mark.parametrize("path", ["/", "/flow", "/flow?q=is:failed", "/attention", "/workers", "/audit", "/start", "/bulk"])
def test_they_are_text_on_the_pages_that_show_many(page: Page, site: Site, path: str) -> None:
    look(page, path)


def test_they_are_text_on_the_pages_of_their_flow_and_process(page: Page, site: Site) -> None:
    for text in STRINGS:
        look(page, f"/flow?name={q(text)}", text)
        look(page, f"/process?id={q(text)}", text)


def test_they_are_text_in_every_form(page: Page, site: Site) -> None:
    page.goto("/")
    forms = (
        "/process?id={} p", "/process?id={}&version=1&from=0", "/edit?id={}", "/move?id={}", "/fork?id={}&at=0",
        "/confirm?id={}&verb=stop", "/start?flow={}", "/flow?name={}&q=is:failed",
    )  # fmt: skip
    paths = [form.format(q(text)) for text in STRINGS for form in forms]
    assert page.evaluate(FOREIGN_IN_MANY, paths) == []


def test_they_are_text_where_an_address_names_them(visit: Watched, page: Page, site: Site) -> None:
    page.goto("/")
    asked = (
        "/flow?q={}", "/flow?q=error:{}", "/flow?q={}:1", "/flow?name={}x", "/process?id={}x", "/process?id=x&version={}&from={}",
        "/?done={}&refresh={}&x={}", "/start?flow={}x", "/audit?before={}", "/bulk?id={}", "/confirm?id=x&verb={}&back={}",
        "/enter?token={}", "/{}", "/?{}={}",
    )  # fmt: skip
    paths = [path.replace("{}", q(text)) for text in STRINGS for path in asked]
    assert page.evaluate(FOREIGN_IN_MANY, paths) == []
    for path in paths[:: len(asked) * 3 + 1]:  # and of each kind a few before people's eyes
        look(page, path, may_fail=True)
    visit.expect("Failed to load resource")


@pytest.mark.parametrize("number", range(0, len(STRINGS), 8))
def test_they_are_text_where_somebody_types_them(visit: Watched, page: Page, site: Site, number: int) -> None:
    text = STRINGS[number]
    page.goto(f"/edit?id={q(text + ' p')}")
    page.get_by_label("text").first.fill(text * 2)
    page.get_by_role("button", name="See what would change").first.click()
    expect(page.get_by_role("button", name="Save")).to_be_visible()
    assert_only_text(page, text)
    page.get_by_label("Why").fill(text)
    page.get_by_role("button", name="Save").click()
    page.wait_for_url("**/process?**")
    assert_only_text(page, text)
    page.goto(f"/start?flow={q(text)}")
    page.get_by_label("text").first.fill(text)
    page.locator("textarea[name]").first.fill(text)
    page.get_by_role("button", name="Start").first.click()
    page.wait_for_load_state()
    assert_only_text(page)
    visit.forget("422")


def test_they_are_text_when_they_arrive_while_somebody_looks(page: Page, site: Site) -> None:
    page.goto("/flow?q=id:live*")
    for number, text in enumerate(STRINGS):
        model = evil.flows()[number].model
        site.do(lambda app, id=f"live {text}", model=model: app.start(model(id=id)))
    expect(page.locator("[data-rows] [data-row]")).to_have_count(len(STRINGS))
    assert_only_text(page)


def test_the_policy_of_the_panel_stops_what_would_have_got_in(visit: Watched, site: Site) -> None:
    page = visit("/")
    for text in STRINGS[::3]:
        page.evaluate("(text) => document.body.insertAdjacentHTML('beforeend', text)", text)
    page.evaluate("const made = document.createElement('script'); made.textContent = 'canary = 1'; document.body.append(made)")
    page.wait_for_timeout(200)
    assert page.evaluate("window.canary === undefined || window.canary instanceof Element")
    visit.expect("Content Security Policy")
    visit.complaints.clear()


def test_no_answer_is_ever_without_the_policy(visit: Watched, site: Site) -> None:
    page = visit("/")
    for path in (
        "/",
        "/flow",
        "/home.json",
        "/static/panel.js",
        "/static/panel.css",
        "/health",
        "/nowhere",
        "/process?id=nobody",
    ):
        headers = page.request.get(f"{site.url}{path}").headers
        assert headers["content-security-policy"].startswith("default-src 'none'"), path
        assert "unsafe" not in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer", path
