"""For a test of a page: `panel` is a client who has come in, before an app with the flows of scene.py and an empty store.

    async def test_a_page_says_what_it_should(panel: Panel) -> None:
        await panel.app.start(Letter(id="a", to="ada"))
        facts = (await panel.get("/process.json?id=a")).json()
        page = await panel.get("/process?id=a")
        assert page.status == 200 and "written" in page.text
        assert (await panel.post("/act", verb="pause", id="a", version=0)).status == 303
        assert (await panel.seen_by("viewer").post("/act", verb="resume", id="a", version=1)).status == 403

Another app: `async with entered(Onward(url, flows=[...])) as panel: ...`. What else the client can is in client.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from conftest import IN_MEMORY, PATIENCE_S
from starlette.requests import Request

from onward import Onward
from onward.actor import Actor, Role
from onward.panel import panel as make_panel
from onward.process import Record
from panel.client import Client
from panel.scene import FLOWS

WHO = "x-test-role"  # the door of the tests: it lets in who says their role


def authorize(request: Request, action: str, record: Record | None) -> Actor | None:
    role = request.headers.get(WHO, "")
    return Actor("ada", Role(role), "panel") if role else None


@dataclass
class Panel(Client):
    """A client of the panel of `app`, as somebody of that role; '' has not come in."""

    app: Onward = None  # type: ignore[assignment]
    role: str = Role.ADMIN

    def scope(self, *args: Any, **more: Any) -> dict[str, Any]:
        made = super().scope(*args, **more)
        made["headers"].append((WHO.encode(), str(self.role).encode()))
        return made

    def seen_by(self, role: str) -> Panel:
        """The same panel, and somebody else before it."""
        return replace(self, role=role, cookies={})


@asynccontextmanager
async def entered(app: Onward, **options: Any) -> AsyncIterator[Panel]:
    """The panel of an app that is opened for the test, with an admin before it; `options` as in `Onward.panel`."""
    async with asyncio.timeout(PATIENCE_S), app:
        yield Panel(make_panel(app, authorize=authorize, **options), app=app)


@pytest.fixture
async def panel() -> AsyncIterator[Panel]:
    async with entered(Onward(IN_MEMORY, FLOWS)) as client:
        yield client
