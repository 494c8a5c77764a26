"""Tells observers what was committed. They can watch, and nothing else: whatever they raise is logged and forgotten."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from onward.decide import Change
from onward.ports import Event, Observer
from onward.process import Record

logger = logging.getLogger("onward")


def tell(observers: Sequence[Observer], before: Record, change: Change, after: Record) -> None:
    if not observers:  # most have none, and this stands in the path of every transition
        return
    event = Event(after, change.kind, before.status, change.reason, change.took)
    for observer in observers:
        try:
            observer(event)
        except Exception:  # a broken observer must not become a broken process
            logger.exception("observer %r failed on %s", observer, after.id)
