"""One program of `onward prove --full`, which begins it, and may find it killed: `python -m onward.cli.prove_child FD`."""

from __future__ import annotations

import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from onward.cli.prove import named_flow, named_outside
from onward.cli.settings import Settings
from onward.codec import decode
from onward.testing.proving.child import Child
from onward.testing.proving.link import Link
from onward.testing.proving.run import Plan


def main(fd: int) -> None:
    link = Link(socket.socket(fileno=fd))
    told = link.read()
    assert told is not None, "the proof has ended"
    given: dict[str, Any] = told[2]
    sys.path[:] = given["path"]
    link.began = given["began"]
    flow = named_flow(Settings(app=given["app"]), given["target"])
    process = decode(flow, given["id"], given["status"], given["data"])
    outside = named_outside(given["outside"])
    plan = Plan(flow, process, outside, timedelta(seconds=given["until"]), Path.cwd())
    Child(plan, given["point"], given["store"], given["postgres"], link)()
    link.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
