"""What people do to processes, at any instant, and what each of them was told about it: done, not done, or nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onward.control import Control
from onward.errors import NotFound, OnwardError, StoreError
from onward.process import OVER, Condition, Record

from .ledger import FLOW, Ledger
from .sight import Sight

if TYPE_CHECKING:
    from .story import Story

ALIVE = ("pause", "cancel", "stop", "wake", "fork", "move", "edit")
FITTING = {  # what a person would do, to what he sees
    Condition.WAITING: ("wake", "wake", "edit", "move", *ALIVE),
    Condition.RETRYING: ("retry", "wake", "edit", "move", *ALIVE),
    Condition.FAILED: ("retry", "retry", "edit", "move", "cancel", "fork"),
    Condition.PAUSED: ("resume", "resume", "edit", "move", "cancel", "fork"),
    Condition.FINISHED: ("delete", "fork", "fork", "move"),
    Condition.CANCELLED: ("delete", "fork", "move"),
}
ANYTHING = ("wake", "retry", "pause", "resume", "cancel", "stop", "move", "edit", "fork", "delete")
FITTING_SHARE = 0.8  # and the rest does anything
FORKS_MAX = 4


class People:
    def __init__(self, story: Story) -> None:
        self._story = story
        self.sight = Sight(story)
        self.control = Control([FLOW], self.sight)
        self.acts = 0
        self.forks = 0

    async def start(self, ledger: Ledger) -> None:
        """Again and again, as whoever has no answer does: it starts once."""
        while True:
            try:
                record = await self.control.start(ledger)
            except StoreError:
                continue
            except OnwardError as error:  # somebody deleted it between the start and its answer
                self._story.outside.tell(f"{ledger.id} not started: {error}")
                return
            self._story.outside.note("started", record.id, record.epoch)
            return

    async def act(self) -> None:
        """One act on one process, with a reason by which its entry in the history is known."""
        dice = self._story.dice
        id = dice.choice(self._story.ids)
        self.acts += 1
        reason = f"act {self.acts}"
        verb, self.sight.in_doubt = "look", False
        try:
            seen = await self.control.get(id)
            choices = FITTING.get(seen.condition, ALIVE) if dice.random() < FITTING_SHARE else ANYTHING
            verb = dice.choice(choices)
            done = await self._do(verb, seen, reason)
        except OnwardError as error:
            how = "in doubt" if self.sight.in_doubt else "not done"
            self._story.outside.tell(f"{reason}: {verb} {id}: {how}, {type(error).__name__}")
            self._story.outside.note("acts", reason, verb, id, how, None, None, 0.0)
            self._story.count(f"{verb}: {how}")
            if isinstance(error, NotFound) and verb == "look":
                await self.start(self._story.ledger(id))
        else:
            version, epoch = (seen.version, seen.epoch) if done is None else (done.version, done.epoch)
            self._story.outside.tell(f"{reason}: {verb} {id}: done")
            whose, now = id if done is None else done.id, self._story.outside.now()
            self._story.outside.note("acts", reason, verb, whose, "done", version, epoch, now)
            self._story.count(f"{verb}: done")

    async def _do(self, verb: str, seen: Record, reason: str) -> Record | None:
        dice, control = self._story.dice, self.control
        version = seen.version if dice.random() < 0.5 else None
        match verb:
            case "move":
                to = dice.choice(FLOW.statuses)
                return await control.move(seen.id, to, force=dice.random() < 0.7, version=version, reason=reason)
            case "edit":  # all that it has seen, so never on what has moved on since
                assert seen.process is not None
                data = seen.process.model_dump(mode="json", exclude={"id", "status"}) | {"note": reason}
                return await control.edit(seen.id, data, version=seen.version, reason=reason)
            case "fork":
                return await self._fork(seen, reason)
            case "delete":
                await control.delete(seen.id, version=version, reason=reason)
                return None
        act = getattr(control, verb)
        done: Record = await act(seen.id, version=version, reason=reason)
        return done

    async def _fork(self, seen: Record, reason: str) -> Record:
        self.forks += 1
        new_id = f"fork{self.forks}" if self.forks <= FORKS_MAX else seen.id  # which is there already
        at = self._story.dice.randint(0, seen.version)
        done = await self.control.fork(seen.id, at=at, new_id=new_id, reason=reason)
        self._story.ids.append(new_id)
        return done

    async def mend(self, id: str, condition: str) -> None:
        """Once the weather is calm: whatever waits for a person goes on."""
        record = await self.control.get(id)
        if record.condition in OVER or record.due_at is not None:
            return
        await (self.control.retry(id) if condition == Condition.FAILED else self.control.resume(id))
