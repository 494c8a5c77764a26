"""The pictures of the panel in the documentation, from a real run in a real browser: `make screenshots`.

python -m browser.screenshots FOLDER
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from pathlib import Path

from panel import scene
from playwright.sync_api import Page, expect, sync_playwright

from browser.conftest import enter
from browser.site import FLAGS, Site, chromium
from onward.process import Record

SIZE = {"width": 1280, "height": 800}
BYTES_MAX = 200_000  # of one picture: the documents stay light
THEMES = {"light": "", "dark": "-dark"}  # and how the names of its pictures end


def paths(site: Site) -> dict[str, str]:
    """What is shown: a page of each kind that people live on, where there is something to see."""

    async def of_interest(app: object) -> Record:
        [failed] = await app.find("is:failed error:overloaded attempt:>5", flow="report", limit=1)  # type: ignore[attr-defined]
        return failed

    return {
        "home": "/",
        "flow": "/flow?name=report",
        "process": f"/process?id={site.do(of_interest).id}",
        "attention": "/attention",
    }


def taken(page: Page, path: str, file: Path) -> int:
    page.goto(path)
    expect(page.get_by_text(re.compile("^(Counting|Looking).*…"))).to_have_count(0)
    page.wait_for_timeout(300)  # for a face of letters to settle
    page.screenshot(path=file)
    return file.stat().st_size


def main(target: Path) -> None:
    program = chromium()
    if program is None:
        sys.exit("no Chromium here: apt-get install chromium, or CHROMIUM=/path/to/one")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="onward-screenshots-") as folder:
        site = Site(Path(folder), "panel.scene")
        shutil.move(asyncio.run(scene.filled(Path(folder))), site.store)
        try:
            site.open()
            with site.worker(), sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
                state = enter(browser, site)
                for theme, ending in THEMES.items():
                    context = browser.new_context(storage_state=state, base_url=site.url, viewport=SIZE, color_scheme=theme)
                    page = context.new_page()
                    for name, path in paths(site).items():
                        file = target / f"panel-{name}{ending}.png"
                        size = taken(page, path, file)
                        print(f"{file}: {size:,} bytes")
                        assert size <= BYTES_MAX, f"{file} has {size:,} bytes, more than {BYTES_MAX:,}"
                    context.close()
                browser.close()
        finally:
            site.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
