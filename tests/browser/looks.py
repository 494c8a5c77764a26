"""What a page must be, whatever it shows: accessible to all, and never wider than a phone."""

from __future__ import annotations

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

WCAG_2_2_AA = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
OPTIONS = {
    "runOnly": {"type": "tag", "values": WCAG_2_2_AA},
    "rules": {"target-size": {"enabled": True}},
    "resultTypes": ["violations"],
}
THEMES = ("light", "dark")
PHONE = {"width": 360, "height": 740}
AXE = Axe()
# Half-way from one theme to the other a colour is neither.
AT_REST = """async () => {
    for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame);
    const changing = document.getAnimations().filter((one) => one instanceof CSSTransition);
    await Promise.allSettled(changing.map((one) => one.finished));
}"""


def unfold(page: Page) -> None:
    """What is folded up is part of the page as well."""
    page.evaluate("for (const one of document.querySelectorAll('details:not([name])')) one.open = true")


def assert_accessible(page: Page) -> None:
    unfold(page)
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        page.evaluate(AT_REST)
        found = AXE.run(page, options=OPTIONS).response
        told = "\n".join(_told(one, theme) for one in found["violations"])
        assert not told, f"{page.url}\n{told}"
        assert found["passes"], "axe looked at nothing"


def _told(violation: dict[str, Any], theme: str) -> str:
    nodes = [f"    {node['html'][:160]}: {' '.join(node.get('failureSummary', '').split())}" for node in violation["nodes"][:3]]
    return "\n".join([f"  {theme}: {violation['id']}: {violation['help']}: {len(violation['nodes'])} of", *nodes])


def assert_fits_a_phone(page: Page) -> None:
    unfold(page)
    wide, room = page.evaluate("[document.scrollingElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= room, f"{page.url} is {wide} px wide on a phone of {room}: {_widest(page)}"


def _widest(page: Page) -> Any:
    """Who it is that stands out."""
    return page.evaluate(
        """[...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll"))
            .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
            .map((one) => one.outerHTML.slice(0, 120)).slice(0, 5)"""
    )
