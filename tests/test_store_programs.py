"""Several programs on one SQLite file: nothing twice, nothing lost, nobody waits for the dead."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

from onward.store.sqlite import SqliteStore
from onward.testing import ManualClock
from onward.testing.contract import new

LOOK = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(c.execute('SELECT count(*) FROM onward_process').fetchone()[0])"
)


async def test_a_second_store_in_one_program_costs_the_first_one_none_of_its_writes(tmp_path: Path):
    path = tmp_path / "onward.db"

    def look() -> int:
        done = subprocess.run([sys.executable, "-c", LOOK + "; c.close()", str(path)], capture_output=True, text=True, check=True)
        return int(done.stdout)

    stores = [SqliteStore(str(path), ManualClock()) for _ in range(2)]
    for number, store in enumerate(stores):
        await store.open()
        await store.insert([new(f"a{number}")], "ann")
    assert look() == 2  # another program comes and goes; if it believes to be the last one, it takes the log with it
    for number, store in enumerate(stores):
        await store.insert([new(f"b{number}")], "ann")
    assert look() == 4
    for store in stores:
        await store.close()
    assert look() == 4
