"""A flow as a picture: text for a terminal, Mermaid for Markdown, SVG for everything else. Pure, and always the same."""

from onward.graph.facts import as_dict
from onward.graph.mermaid import mermaid
from onward.graph.svg import svg
from onward.graph.text import text

__all__ = ["as_dict", "mermaid", "svg", "text"]
