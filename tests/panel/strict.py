"""Reads a page more strictly than browsers do: `Html(text)` raises AssertionError for what they would silently put right.

page = Html(answer.text)
[link] = page.all("a", href="/flow?name=report")
assert page.text(link) == "report"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "input", "br", "hr", "img", "col", "wbr"}
DRAWN = {"svg", "path", "circle", "rect", "line", "use", "g", "text", "tspan", "title", "desc", "symbol", "defs", "polyline"}
FIELDS = {"input", "select", "textarea"}
NO_LABEL = {"hidden", "submit", "button"}
POINTERS = ("aria-labelledby", "aria-describedby", "aria-controls", "for", "form", "list")


@dataclass
class Element:
    """One element; `children` are elements and texts."""

    name: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Element]:
        """All elements in it, itself first."""
        yield self
        for child in self.children:
            if isinstance(child, Element):
                yield from child

    @property
    def above(self) -> Iterator[Element]:
        here = self.parent
        while here is not None:
            yield here
            here = here.parent

    def get(self, name: str) -> str:
        return self.attributes.get(name, "")

    def all(self, name: str = "", /, **attributes: str | None) -> list[Element]:
        """Those of that name with these attributes; None: without it. `class_="x"` means that x is among its classes."""
        return [one for one in self if (not name or one.name == name) and all(_has(one, *each) for each in attributes.items())]

    @property
    def text(self) -> str:
        """What a reader sees, with single spaces."""
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            elif child.name != "use":
                yield from child._texts()


def _has(one: Element, name: str, wanted: str | None) -> bool:
    if name == "class_":
        return wanted in one.get("class").split()
    found = one.attributes.get(name.replace("_", "-"))
    return found == wanted


class Html(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self._here = Element("#page", {})
        self.feed(text)
        self.close()
        assert self._here is self.root, f"<{self._here.name}> is never closed"
        _check(self.root)

    def all(self, name: str = "", /, **attributes: str | None) -> list[Element]:
        return self.root.all(name, **attributes)

    def one(self, name: str = "", /, **attributes: str | None) -> Element:
        found = self.all(name, **attributes)
        assert len(found) == 1, f"{len(found)} of {name} {attributes}"
        return found[0]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._add(tag, attrs)
        if tag not in VOID:
            last = self._here.children[-1]
            assert isinstance(last, Element)
            self._here = last

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID | DRAWN, f"<{tag}/> is no empty element"
        self._add(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._here.name == tag, f"</{tag}> inside of <{self._here.name}> at {self.getpos()}"
        assert self._here.parent is not None
        self._here = self._here.parent

    def handle_data(self, data: str) -> None:
        self._here.children.append(data)

    def _add(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        twice = [name for name, number in Counter(name for name, _ in attrs).items() if number > 1]
        assert not twice, f"<{tag}> has {twice} twice at {self.getpos()}"
        self._here.children.append(Element(tag, {name: value or "" for name, value in attrs}, self._here))


def _check(root: Element) -> None:
    ids = [one.get("id") for one in root if "id" in one.attributes]
    assert len(ids) == len(set(ids)), f"ids twice: {[id for id, number in Counter(ids).items() if number > 1]}"
    assert not [id for id in ids if not id or any(letter.isspace() for letter in id)]
    labelled = {one.get("for") for one in root.all("label")}
    for one in root:
        _check_policy(one)
        for name in POINTERS:
            missing = set(one.get(name).split()) - set(ids)
            assert not missing, f"<{one.name} {name}> points to {missing}, which is not there"
        if one.name == "use" or (one.name == "a" and one.get("href").startswith("#")):
            assert one.get("href")[1:] in ids, f"{one.get('href')} is not there"
        if one.name in FIELDS and one.get("type") not in NO_LABEL:
            named = one.get("aria-label") or one.get("aria-labelledby") or one.get("id") in labelled
            assert named or any(up.name == "label" for up in one.above), f"a field without a label: {one.attributes}"
        if one.name in ("button", "a", "summary"):
            assert one.text or one.get("aria-label") or one.all("svg", role="img"), f"<{one.name}> says nothing: {one.attributes}"
        if one.name == "table":
            assert one.all("caption"), "a table without a caption"
        if one.name == "form":
            assert "form" not in {up.name for up in one.above}, "a form inside a form"


def _check_policy(one: Element) -> None:
    """What the content security policy forbids would be dropped in silence."""
    assert one.name != "style" and "style" not in one.attributes, f"inline style: {one.attributes}"
    assert one.name != "script" or (one.get("src") and not one.text), "inline script"
    handlers = [name for name in one.attributes if name.startswith("on")]
    assert not handlers, f"<{one.name}> has {handlers}"
    for name in ("href", "src", "action", "formaction"):
        assert not one.get(name).lower().lstrip().startswith(("javascript:", "data:", "http:", "https:", "//")), one.attributes
