"""What exported tests are made of: a process as it stood in a store, and one stage of its flow alone. See `onward export`."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from onward.codec import decode, upgraded
from onward.flow import Flow


def stored(flow: Flow[Any], *, id: str, status: str, data: Mapping[str, Any], version: int = 1) -> Any:
    """The typed process of JSON values as they stand in a row, where the data have that version: what a worker would make of it.

    Raises InvalidData, as that worker would.
    """
    text = json.dumps(dict(data), separators=(",", ":"))
    return decode(flow, id, flow.today(status), upgraded(flow, id, text, version))


def only_stage(flow: Flow[Any], status: str) -> Flow[Any]:
    """The same flow, in which all but the stage of that status is an end: its process is over once it leaves it."""
    line = flow.stages[status]
    alone = copy.copy(flow)
    alone.stages = {name: one if one is line else None for name, one in flow.stages.items()}
    alone.on_cancel = None
    return alone
