"""Keeps the leases of a worker alive, on a thread of its own: a handler that blocks the event loop must not lose its process.

It also watches that loop, and says which code holds it up.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta

from onward.observe import Seldom
from onward.ports import Store

logger = logging.getLogger("onward")

BEATS_PER_LEASE = 4
TRUST = 0.7  # of a lease: so long after a renewal was sent we still believe in it; a slow answer does not prolong that
AGAIN_S = 1.0  # at the latest, after a beat that failed
LOOK_S = 1.0  # how often the event loop is looked at; it is called stalled when it answers nothing for that long


class Heartbeat:
    """`held` answers {id: epoch} of what is to be kept; `lost` is called in the loop with those that are ours no more."""

    def __init__(
        self,
        store: Store,
        owner: str,
        lease: timedelta,
        held: Callable[[], Mapping[str, int]],
        lost: Callable[[Mapping[str, int]], None],
        monotonic: Callable[[], float],
        seldom: Seldom,
    ) -> None:
        self._store, self._owner, self._lease = store, owner, lease
        self._held, self._lost, self._monotonic, self._seldom = held, lost, monotonic, seldom
        self._over = threading.Event()
        self._answered = True
        self.trusted_for = lease.total_seconds() * TRUST  # seconds for which a lease renewed now may be believed in
        self.renewed_at = monotonic()  # when the last renewal that succeeded was sent
        self.gone: Mapping[str, int] = {}  # what that one found to be ours no more; the news may be on its way into the loop yet

    def __enter__(self) -> Heartbeat:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._beat, name="onward-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _beat(self) -> None:
        beat = self._lease.total_seconds() / BEATS_PER_LEASE
        next_beat = self._monotonic() + beat
        while not self._over.wait(max(0.0, min(LOOK_S, next_beat - self._monotonic()))):
            if self._monotonic() >= next_beat:
                next_beat = self._monotonic() + beat
                if not self.renew():
                    next_beat = self._monotonic() + min(beat, AGAIN_S)
            self._look()

    def renew(self) -> bool:
        """Renews now, and says whether it could. From any thread but that of an event loop."""
        sent_at, held = self._monotonic(), self._held()
        if not held:
            self.renewed_at = sent_at
            return True
        try:
            lost = self._store.renew(self._owner, held, self._lease)
        except Exception as error:  # whatever it is: a heart that stopped for it would cost every lease of this worker
            self._seldom.warning("the leases of %d processes could not be renewed: %s", len(held), error)
            return False
        self.gone = {id: held[id] for id in lost}  # first: whoever believes in this renewal has to see what it does not hold for
        self.renewed_at = sent_at
        if lost:
            self._in_the_loop(self._lost, self.gone)
        return True

    _stalled_since = 0.0

    def _look(self) -> None:
        now = self._monotonic()
        if self._answered:
            self._answered, self._asked_at, self._stalled_since = False, now, 0.0
            self._in_the_loop(self._answer)
        elif now - self._asked_at >= LOOK_S and not self._stalled_since:
            self._stalled_since = self._asked_at
            logger.warning(
                "the event loop has not moved for %.1f s; a handler blocks it, in:\n%s"
                "Make that handler a plain `def` (it runs in a thread), or await what it waits for.",
                now - self._asked_at,
                self._where(),
            )

    def _in_the_loop(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # it is closed: this worker is over
            self._over.set()

    def _answer(self) -> None:
        self._answered = True

    def _where(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame, limit=-3)[:1] + traceback.format_stack(frame)[-2:]) if frame else ""
