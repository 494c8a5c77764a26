"""What a store's URL says, and how it is shown to people."""

from __future__ import annotations

import re
import shlex

IN_MEMORY = "sqlite:///:memory:"
SCHEMES = "sqlite:///relative/path.db, sqlite:////absolute/path.db, sqlite:///:memory: or postgresql://user@host/database"
_PASSWORD = re.compile(r"^([a-z][a-z0-9+.-]*://[^:@/]*):.*@", re.IGNORECASE)  # greedy: also one that should have been quoted
_NAMED_PASSWORD = re.compile(r"([?&](?:ssl)?password=)[^&#]*", re.IGNORECASE)


def is_postgres(url: str) -> bool:
    return url.startswith(("postgresql://", "postgres://"))


def sqlite_path(url: str) -> str:
    """The path in an SQLite URL, or `:memory:`; '' for any other URL."""
    scheme, separator, path = url.partition(":///")
    return path if separator and scheme == "sqlite" else ""


def shown(url: str) -> str:
    """The URL without its password: for messages, which end up in logs and on other people's screens."""
    return _NAMED_PASSWORD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def upgrade_command(url: str) -> str:
    return f"onward db upgrade --store {shlex.quote(shown(url))}"
