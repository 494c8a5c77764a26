"""How one program sees the store: through weather. And what it was told there, for the judge.

Latency before and after each call is what puts the steps of programs into every possible order. The callbacks of the loop
are not shuffled: asyncio promises to run what is ready in the order in which it became so, and code may rely on that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from onward.errors import Conflict, Fenced, NotFound, RolledBack, StoreError
from onward.testing.life import never
from onward.testing.world import Program

if TYPE_CHECKING:
    from .story import Story

UNTOUCHED = ("wait_for_change",)  # nothing is asked of the store there
WRITES = ("insert", "act", "delete")  # of people: an answer that is lost leaves them not knowing


class Sight:
    """`program` is who looks: a worker that can die of it, or None for people, who cannot."""

    def __init__(self, story: Story, program: Program | None = None) -> None:
        self._story, self.program = story, program
        self._store: Any = story.world.store
        self.cut_until = 0.0
        self.in_doubt = False  # whether something was written, so that who has no good answer does not know

    def __getattr__(self, verb: str) -> Any:
        do = getattr(self._store, verb)
        if verb in UNTOUCHED:
            return do

        async def call(*arguments: Any, **named: Any) -> Any:
            story = self._story
            story.outside.tell(verb)
            asking = _ASKING.get(verb)
            if asking is not None:
                asking(self, *arguments, **named)
            await self._before(verb)
            try:
                answer = await do(*arguments, **named)
            except (Fenced, Conflict, NotFound, RolledBack) as error:
                story.count(f"{verb}: {type(error).__name__}")
                story.outside.tell(f"{verb}: {type(error).__name__}")
                raise
            if verb in WRITES:
                self.in_doubt = self.in_doubt or verb != "insert" or any(answer)
            note = _NOTES.get(verb)
            if note is not None:
                note(self, answer, *arguments, **named)
            if verb != "begin":  # a transaction that is open and nobody's is a bug of ours, and no weather
                await self._after(verb)
            if verb == "claim":  # from here on it relies on its leases
                for record in answer:
                    story.believe(record.id, record.epoch, record.lease_until)
            return answer

        setattr(self, verb, call)
        return call

    def renew(self, owner: str, held: Mapping[str, int], lease: timedelta) -> set[str]:
        """It cannot wait. Of those that are lost half are lost on their way back."""
        story = self._story
        story.outside.tell(f"renew {len(held)}")
        lost_before = self._is_cut() or self._happens("unrenewed")
        if lost_before and story.dice.random() < 0.5:
            story.count("renewal lost")
            raise StoreError("the renewal is lost")
        lost: set[str] = self._store.renew(owner, held, lease)
        until = story.world.clock.now() + lease
        for id, epoch in held.items():
            if id not in lost:
                story.believe(id, epoch, until)
        story.count("leases lost", len(lost))
        for id in lost:
            story.look_at_the_lease(id)
        if lost_before:
            story.count("renewal unanswered")
            raise StoreError("the answer to the renewal is lost")
        return lost

    # -- weather ----------------------------------------------------------------------------------------------

    async def _before(self, verb: str) -> None:
        await self._late()
        await self._die_or_stop(verb, "before")
        if self._is_cut() or self._happens("refused"):
            self._story.count("refused")
            self._story.outside.tell(f"{verb}: refused")
            raise StoreError("the weather is bad")

    async def _after(self, verb: str) -> None:
        await self._die_or_stop(verb, "after")
        if self._is_cut() or self._happens("unanswered"):
            self._story.count("unanswered")
            self._story.count(f"unanswered {verb}")
            self._story.outside.tell(f"{verb}: done, and unanswered")
            raise StoreError("the weather is bad, and the answer lost")
        await self._late()

    def _happens(self, kind: str) -> bool:
        weather = self._story.weather
        rate: float = getattr(weather, kind)
        return rate > 0 and not weather.calm and self._story.dice.random() < rate

    def _is_cut(self) -> bool:
        return self._story.loop.time() < self.cut_until

    async def _late(self) -> None:
        seconds = self._story.latency()
        if seconds:
            await asyncio.sleep(seconds)

    async def _die_or_stop(self, verb: str, when: str) -> None:
        if self.program is None:
            return
        if self._happens("killed"):
            self._story.kill(self.program, f"{when} {verb}")
            await never()
        if self._happens("stopped"):
            self._story.stop(self.program, f"{when} {verb}")
            await asyncio.sleep(0)

    # -- what it was told -------------------------------------------------------------------------------------

    def _claimed(self, records: Any, *_: Any, **__: Any) -> None:
        story, now = self._story, self._story.world.clock.now()
        for record in records:
            story.outside.tell(f"{record.id} claimed, epoch {record.epoch}, attempt {record.attempt}")
            story.granted[record.id, record.epoch] = record.lease_until
            story.outside.note("claims", record.id, record.epoch, record.version, record.attempt, record.owner, now)
            story.count("claims")

    def _committed(self, after: Any, before: Any, change: Any) -> None:
        self._story.outside.tell(f"{before.id} {change.kind} to {change.status}, version {before.version + 1}")

    def _acted(self, record: Any, *_: Any) -> None:
        self._story.outside.tell(f"{record.id} acted upon, now version {record.version}, {record.condition}")

    # -- what it gives up by asking for it, whether or not it is done -----------------------------------------

    def _release(self, records: Any, *, begun: bool) -> None:
        for record in records:
            self._story.outside.tell(f"{record.id} given back, epoch {record.epoch}{', begun' if begun else ''}")
            self._story.outside.note("releases", record.id, record.transition, record.epoch, begun)

    def _release_all_but(self, owner: str, ids: Any, _: timedelta) -> None:
        for (id, epoch), holder in self._story.holders.items():
            if holder == owner and id not in ids:
                self._story.outside.note("releases", id, -1, epoch, False)


_NOTES: dict[str, Callable[..., None]] = {
    "claim": Sight._claimed, "commit": Sight._committed, "act": Sight._acted,
}  # fmt: skip
_ASKING: dict[str, Callable[..., None]] = {"release": Sight._release, "release_all_but": Sight._release_all_but}
