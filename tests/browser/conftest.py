"""A browser, pages that must not complain, and the panel before them.

Each file has its own Chromium and its own panel: Playwright keeps an event loop in this thread for as long as it runs, in
which no test of another file could start one. Without a Chromium these tests are skipped on a laptop, and fail where CI is set.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from panel import scene
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

from browser.bakery import Loaf, Topping, cold
from browser.site import FLAGS, PATIENCE_S, Site, chromium, until

HERE = Path(__file__).parent
NIGHT_S = 180.0  # for a day to pass: seconds, if nobody else uses the machine

expect.set_options(timeout=PATIENCE_S * 1_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = chromium()
    if program is None:
        reason = "no Chromium here: apt-get install chromium, or CHROMIUM=/path/to/one"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which a day has passed; to be copied."""
    folder = tmp_path_factory.mktemp("night")
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, scene.filled(folder)).result(NIGHT_S)


@pytest.fixture(scope="module")
def site(browser: Browser, night: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The panel of a bakery, and of all that scene.py has in its store. The tests of one file share it."""
    site = Site(tmp_path_factory.mktemp("site"))
    shutil.copy(night, site.store)
    try:
        site.open()
        yield site
    finally:
        site.close()


@pytest.fixture(scope="module")
def bread(site: Site) -> Site:
    """The same after a bad morning: six rye loaves failed for one reason and three spelt ones for another."""
    site.bake(
        Loaf(id="white-1", kind="white", card="4929-1234"), Loaf(id="white-2", kind="white"), Loaf(id="sour-1", kind="sourdough")
    )
    with cold(site.folder):
        site.bake(*(Loaf(id=f"rye-{n}", card="4929-1234", toppings=[Topping()]) for n in range(1, 7)))
    site.bake(*(Loaf(id=f"spelt-{n}", kind="spelt") for n in range(1, 4)))
    return site


@pytest.fixture(scope="module")
def entered(browser: Browser, site: Site) -> StorageState:
    """What a browser knows that has come in by the link."""
    return enter(browser, site)


def enter(browser: Browser, site: Site) -> StorageState:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(site.link)
        page.get_by_role("main").get_by_role("button").click()
        page.wait_for_url(f"{site.url}/")
        return context.storage_state()


class Watched:
    """Contexts of a browser of which every complaint is kept: errors in the console or the script, requests without answer."""

    def __init__(self, browser: Browser, site: Site, state: StorageState) -> None:
        self._browser, self._site, self._state = browser, site, state
        self._contexts: list[BrowserContext] = []
        self.complaints: list[str] = []

    def context(self, **options: Any) -> BrowserContext:
        options = {"storage_state": self._state, "base_url": self._site.url, "viewport": {"width": 1280, "height": 800}} | options
        context = self._browser.new_context(**options)
        context.set_default_timeout(PATIENCE_S * 1_000)
        context.on(
            "console", lambda said: self._note(said.type in ("error", "warning"), f"console: {said.text} at {said.location}")
        )
        context.on("weberror", lambda error: self._note(True, f"script: {error.error}"))
        context.on("requestfailed", lambda asked: self._note(not _left(asked), f"{asked.method} {asked.url}: {asked.failure}"))
        self._contexts.append(context)
        return context

    def __call__(self, path: str = "/", **options: Any) -> Page:
        page = self.context(**options).new_page()
        page.goto(path)
        return page

    def _note(self, is_one: bool, complaint: str) -> None:
        if is_one:
            self.complaints.append(complaint)

    def expect(self, part: str) -> None:
        """Of the complaints that name `part`, which a test means to bring about; there has to be one."""
        page = self._contexts[-1].pages[-1]

        def came() -> bool:
            page.wait_for_timeout(20)  # in which the browser tells us
            return any(part in complaint for complaint in self.complaints)

        until(came)
        self.forget(part)

    def forget(self, part: str) -> None:
        self.complaints = [complaint for complaint in self.complaints if part not in complaint]

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def _left(request: Any) -> bool:
    """Whether the browser itself gave it up, because the page was left."""
    return request.failure == "net::ERR_ABORTED"


@pytest.fixture
def visit(browser: Browser, site: Site, entered: StorageState) -> Iterator[Watched]:
    """`visit("/flow?name=loaf")` is a page. The test fails if the browser complains of anything."""
    watched = Watched(browser, site, entered)
    yield watched
    watched.close()
    assert watched.complaints == []
