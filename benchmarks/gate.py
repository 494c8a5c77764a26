"""How long `onward check --store` takes for a million live rows, and what memory: a program of its own, as CI would run it.

Three kinds of code: that which fits, that which has to upgrade each row first, and that which no row fits.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from figures import Figures, Row, verdict
from ladder import LADDER, Ladder, Step

from onward import END, Flow, Onward

ROWS = 1_000_000
SECONDS_MAX, PEAK_MB_MAX = 120.0, 200.0


class Asking(Ladder):
    """As `Ladder`, with a field that no row has."""

    asked_by: str


def asked(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "asked_by": "bench"}


TABLE: dict[Any, Any] = {Step(status): END if line is None else line.handler for status, line in LADDER.stages.items()}
NOWHERE = "sqlite:///:memory:"  # the store is named on the command line
fits = Onward(NOWHERE, flows=[LADDER])
upgrades = Onward(NOWHERE, flows=[Flow(Asking, TABLE, name="ladder", version=2, upgrade={1: asked})])
misfits = Onward(NOWHERE, flows=[Flow(Asking, TABLE, name="ladder")])


async def gate(url: str) -> Figures:
    """The store is there, and has ROWS live processes."""
    figures: Figures = {}
    for name in ("fits", "upgrades", "misfits"):
        seconds, peak, found = await checked(url, name)
        assert found["processes"] == ROWS and found["ok"] is (name != "misfits"), found
        assert sum(misfit["number"] for misfit in found["misfits"]) == (ROWS if name == "misfits" else 0)
        figures |= {f"s_{name}": seconds, f"peak_mb_{name}": peak}
    return figures


async def checked(url: str, name: str) -> tuple[float, float, dict[str, Any]]:
    """Its seconds, its peak of memory in MB, and what it answered."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "onward", "check", "--app", f"gate:{name}", "--store", url, "--json"]
    program = await asyncio.create_subprocess_exec(
        *words, cwd=os.path.dirname(__file__), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    peak = asyncio.create_task(_peak_mb(program.pid))
    answer, _ = await program.communicate()
    return time.perf_counter() - began, await peak, json.loads(answer)


async def _peak_mb(pid: int) -> float:
    """As the kernel tells it while the program runs; what it says of all children together would be that of other figures."""
    peak = 0.0
    while True:
        try:
            with open(f"/proc/{pid}/status", encoding="ascii") as status:
                lines = [line for line in status if line.startswith("VmHWM")]
        except OSError:
            return peak
        if not lines:  # it is over, and nobody has looked yet
            return peak
        peak = int(lines[0].split()[1]) / 1_000
        await asyncio.sleep(0.05)


def rows(found: Figures) -> list[Row]:
    return [
        (
            f"onward check, a million rows {what}",
            f"{found[f's_{name}']:.0f} s, {found[f'peak_mb_{name}']:.0f} MB",
            verdict("2 minutes, 200 MB", found[f"s_{name}"] <= SECONDS_MAX and found[f"peak_mb_{name}"] <= PEAK_MB_MAX),
        )
        for name, what in (("fits", "that fit"), ("upgrades", "to be upgraded"), ("misfits", "of which none fits"))
    ]
