"""Claims due processes, drives each in a task of its own until it rests, and gives back what it cannot finish.

There is no scheduler and no rescuer: a claim takes what is due, by its timer or because somebody's lease ran out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from contextvars import copy_context
from datetime import timedelta
from typing import Any

from onward.attempt import Tools, run_attempt
from onward.codec import named
from onward.decide import Change, Outcome
from onward.drive import drive
from onward.errors import Fenced, LeaseLost, OnwardError, RolledBack, StoreError
from onward.flow import Flow
from onward.heartbeat import Heartbeat
from onward.observe import Seldom, tell
from onward.ports import Clock, Known, Observer, Store
from onward.process import Record

logger = logging.getLogger("onward")

CONCURRENCY = 100  # processes under way at once, where the user does not say
LEASE = timedelta(seconds=30)
LEASE_MIN = timedelta(milliseconds=200)
CLAIM_MAX = 500  # rows of one claim
SUSPECT_LOSSES = 2  # workers lost in a row with one process: it may have been the cause
THREADS_MAX = 64  # for sync handlers
AGAIN_S = 0.01  # before the next claim, should one after the other bring nothing though something is due
IDLE_MAX_S = 5.0  # an idle worker looks at least this often, should every notice have failed
STORE_PAUSE_MAX_S = 1.0  # between two tries of a commit while the store is in trouble
GRACE = timedelta(seconds=30)  # for running handlers, after a worker was told to stop
LATE_S = 0.5  # for handlers to end at last, before it is said of one that it ignores its timeout
IGNORED_S = 5.0  # so long after its timeout a handler that ignores it keeps its lease


class _Drained(BaseException):
    """Ends a drive between two stages. Not an error, and nobody else's to catch."""


class _Overdue(BaseException):
    """Ends a drive between two stages, too: the lease was not renewed in time, so somebody else may have the process."""


class _Held:
    """A process in this worker's hands."""

    __slots__ = ("claimed_at", "held_at", "over_at", "record", "task")

    def __init__(self, record: Record, claimed_at: float, held_at: float) -> None:
        self.record, self.claimed_at = record, claimed_at
        self.held_at = held_at  # a renewal that was sent before was for others
        self.over_at = float("inf")  # past this a running attempt has ignored its timeout, and loses its lease
        self.task: asyncio.Task[Record | None]


class Worker:
    """One worker of one event loop. `owner` names this life of it: a restarted worker is another one."""

    heart = Heartbeat
    idle_max_s = IDLE_MAX_S

    def __init__(
        self,
        flows: Mapping[str, Flow[Any]],
        store: Store,
        clock: Clock,
        observers: Sequence[Observer] = (),
        *,
        concurrency: int = CONCURRENCY,
        lease: timedelta = LEASE,
        grace: timedelta = GRACE,
    ) -> None:
        if concurrency < 1 or lease < LEASE_MIN:
            raise ValueError(f"a worker needs concurrency >= 1 and a lease of at least {LEASE_MIN.total_seconds():g} s")
        self.owner = f"worker-{secrets.token_hex(6)}"
        self._flows, self._store, self._clock, self._observers = flows, store, clock, observers
        self._concurrency, self._lease, self._grace = concurrency, lease, grace
        self._known: Known = [each for flow in flows.values() for each in flow.handled]
        self._held: dict[str, _Held] = {}
        self._stuck: dict[asyncio.Task[Record | None], str] = {}  # handlers that ignore their timeouts, and of what
        self._draining = False
        self._over = False
        self._in_vain = False  # whether the last claim was, though something was due
        self._unsure = False  # whether the store was in trouble since we last knew what we have
        self._seldom = Seldom(clock.monotonic)
        self._wakeup = asyncio.Event()

    # -- being a worker ---------------------------------------------------------------------------------------

    async def run(self, *, until_idle: bool = False) -> None:
        """Works until `drain` is called or, with `until_idle`, until nothing is due and nothing ever will be.

        Being cancelled means the same as `drain`. Raises OnwardError if handlers that ignore their time-outs have taken
        every slot; their processes are free for other workers by then.
        """
        async with AsyncExitStack() as equipment:
            await self._equip(equipment, self._flows.values())
            try:
                await self._work(until_idle)
            finally:
                self.drain()
                await self._let_go()
                self._over = True

    async def check(self, record: Record) -> Record | None:
        """Drives this one process now, if it is due, until it rests. None if it cannot be had."""
        async with AsyncExitStack() as equipment:
            await self._equip(equipment, [self._flows[record.flow]])
            try:
                for claimed in await self._claim(1, [record.id]):
                    return await asyncio.shield(self._begin(claimed))
            finally:
                self.drain()
                await self._let_go()
                self._over = True
        return None

    def drain(self) -> None:
        """Claims nothing more and begins no further stage; running handlers have the grace time to end."""
        self._draining = True
        self._wakeup.set()

    def stop_now(self) -> None:
        """Like drain, without the grace: running handlers are cancelled, their leases released."""
        self._grace = timedelta(0)
        self.drain()
        for held in list(self._held.values()):
            held.task.cancel()

    async def _equip(self, equipment: AsyncExitStack, flows: Iterable[Flow[Any]]) -> None:
        threads = ThreadPoolExecutor(min(self._concurrency, THREADS_MAX), thread_name_prefix="onward-handler")
        equipment.callback(threads.shutdown, wait=False, cancel_futures=True)
        resources = {flow.name: await equipment.enter_async_context(flow.lifespan()) for flow in flows if flow.lifespan}
        self._tools = Tools(self._store, resources, _in_threads(threads), self._clock.monotonic, self._seldom)
        self._heartbeat = equipment.enter_context(
            self.heart(self._store, self.owner, self._lease, self._to_renew, self._lost, self._clock.monotonic, self._seldom)
        )

    async def _work(self, until_idle: bool) -> None:
        while not self._draining:
            self._wakeup.clear()
            await self._give_up_the_stuck()
            try:
                if self._unsure:
                    await self._make_sure()
                wanted = min(self._concurrency - len(self._held), CLAIM_MAX)
                claimed = await self._claim(wanted) if wanted else []
                for record in claimed:
                    self._begin(record)
                self._in_vain = self._in_vain and not claimed
                full = len(self._held) >= self._concurrency
                if (len(claimed) < wanted or full) and not await self._wait(until_idle):
                    return
            except StoreError as error:
                self._seldom.warning("the store is in trouble, the worker waits: %s", error)
                self._unsure = True
                await asyncio.sleep(STORE_PAUSE_MAX_S)

    async def _make_sure(self) -> None:
        """After trouble, before the next claim: it would take from us what we still have, and that would cost an attempt.

        What we do not know of goes back: a claim whose answer was lost has taken it.
        """
        await asyncio.to_thread(self._heartbeat.renew)
        known = [*self._held, *self._stuck.values()]  # the leases of the stuck run out by themselves: their attempts have begun
        await self._store.release_all_but(self.owner, known, self._lease)
        self._unsure = False
        logger.warning("the store answers again")

    async def _wait(self, until_idle: bool) -> bool:
        """Until something is due and there is room for it, or something changed, or a process is done.

        False, at once, if `until_idle` and there is nothing to wait for: nothing is due, and nothing ever will be.
        """
        waits = [
            asyncio.ensure_future(self._store.wait_for_change(self.idle_max_s)),
            asyncio.ensure_future(self._wakeup.wait()),
        ]
        try:
            await asyncio.sleep(0)  # both have begun: what changes while we look ends the wait, and is not missed
            due = await self._store.next_due(self._known)
            if until_idle and due is None and not self._held:
                return False
            if self._held and not self._wakeup.is_set():
                epochs = {id: held.record.epoch for id, held in self._held.items()}
                self._lost({id: epochs[id] for id in await self._store.taken_away(epochs)})
            full = len(self._held) >= self._concurrency
            timeout = self.idle_max_s if due is None or full else min(self.idle_max_s, due.total_seconds())
            if timeout <= 0:  # it has become due since the claim; or another worker is taking it at this moment
                timeout, self._in_vain = AGAIN_S if self._in_vain else 0.0, True
            await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return True

    async def _let_go(self) -> None:
        """Waits for what runs, as long as the grace lasts, then cancels it. Nothing stays claimed."""
        tasks = [held.task for held in self._held.values()]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._grace.total_seconds())
        finally:  # the grace is over, or somebody lost patience
            left = [task for task in tasks if not task.done()]  # in their order: simulations tell everything twice alike
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=IGNORED_S)
        unbegun = [held.record for held in self._held.values() if held.task.done()]  # cancelled before they had begun
        if unbegun:
            await self._release(unbegun, begun=False)

    # -- one process ------------------------------------------------------------------------------------------

    async def _claim(self, limit: int, ids: Sequence[str] = ()) -> list[Record]:
        self._sent_at = self._clock.monotonic()
        # One that may have killed its workers runs beside no other such one: who it was shows when one of them is alone.
        suspect = all(held.record.losses < SUSPECT_LOSSES for held in self._held.values())
        claim = asyncio.ensure_future(self._store.claim(self._known, self.owner, limit, self._lease, ids, suspect=suspect))
        try:
            return await asyncio.shield(claim)
        except asyncio.CancelledError:  # it goes on none the less; what it brings would be nobody's until its lease is over
            await asyncio.wait({claim})
            if claim.exception() is None:
                await self._release(claim.result(), begun=False)
            raise

    def _begin(self, record: Record) -> asyncio.Task[Record | None]:
        held, before = _Held(record, self._sent_at, self._clock.monotonic()), self._held.get(record.id)
        self._held[record.id] = held
        held.task = asyncio.create_task(self._serve(held, before.task if before else None), name=f"onward {record.id}")
        return held.task

    async def _serve(self, held: _Held, before: asyncio.Task[Record | None] | None) -> Record | None:
        """Drives it until it rests. Whatever goes wrong on the way, the row tells the truth and somebody can claim it."""
        record = held.record
        flow = self._flows[record.flow]
        try:
            if before is not None:  # taken from us and ours again before we noticed: no two attempts at once
                before.cancel()
                await asyncio.wait({before}, timeout=IGNORED_S)
            return await drive(flow, named(flow, record), self._attempt, self._commit)
        except (Fenced, LeaseLost) as error:
            logger.info("%s was taken over or changed meanwhile: %s", record.id, error)
        except _Overdue:
            logger.info("%s may have been taken over: its lease was not renewed in time", record.id)
            await self._release([held.record], begun=False)
        except _Drained:
            await self._release([held.record], begun=False)
        except asyncio.CancelledError:
            if self._draining:
                await self._release([held.record], begun=True)
        except Exception:  # a bug of ours must not end the worker: the lease runs out, and the row shows no harm
            logger.exception("%s: the engine failed; its lease runs out by itself", record.id)
        finally:
            self._stuck.pop(held.task, None)
            if self._held.get(record.id) is held:
                del self._held[record.id]
            self._wakeup.set()
        return None

    async def _attempt(self, record: Record) -> Outcome:
        held = self._held.get(record.id)
        if self._draining:
            raise _Drained
        if held is None or held.record.epoch != record.epoch or self._heartbeat.gone.get(record.id) == record.epoch:
            raise LeaseLost(f"{record.id} was given up")
        held.record = record
        flow, now = self._flows[record.flow], self._clock.monotonic()
        renewed_at = self._heartbeat.renewed_at
        if now > (renewed_at if renewed_at >= held.held_at else held.claimed_at) + self._heartbeat.trusted_for:
            raise _Overdue
        line = flow.stages[record.status]
        assert line is not None
        held.over_at = now + line.limit_s + IGNORED_S
        try:
            return await run_attempt(flow, record, self._tools)
        finally:
            held.over_at = float("inf")

    async def _commit(self, record: Record, change: Change) -> Record:
        """Commits; while the store is in trouble it tries again. That is never the process's fault, and costs no attempt."""
        pause = 0.05
        while True:
            try:
                after = await self._store.commit(record, change)
                break
            except (Fenced, RolledBack):
                raise
            except StoreError as error:
                if self._over:  # a handler outlived its worker and the store: nothing comes back to wait for
                    raise LeaseLost(f"{record.id}: its worker is over") from None
                self._seldom.warning("%s: its commit waits for the store: %s", record.id, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, STORE_PAUSE_MAX_S)
        tell(self._observers, record, change, after)
        return after

    async def _release(self, records: Sequence[Record], *, begun: bool) -> None:
        try:
            await self._store.release(records, begun=begun)
        except StoreError as error:
            ids = ", ".join(record.id for record in records)
            self._seldom.warning("%s could not be released, the lease runs out by itself: %s", ids, error)

    # -- with the heartbeat -----------------------------------------------------------------------------------

    def _to_renew(self) -> dict[str, int]:
        """Called on the heartbeat's thread. A handler that ignores its timeout loses its lease: others may go on."""
        now = self._clock.monotonic()
        return {id: held.record.epoch for id, held in list(self._held.items()) if now < held.over_at}

    async def _give_up_the_stuck(self) -> None:
        if self._late():
            await asyncio.sleep(LATE_S)  # this whole program may have been stopped: then the timeouts of all are only due now
        for id, held in self._late():
            logger.error("%s: its handler ignores its timeout; its lease is given up", id)
            del self._held[id]
            self._stuck[held.task] = id
            held.task.cancel()
        if len(self._stuck) >= self._concurrency:
            raise OnwardError(
                f"all {self._concurrency} slots are taken by handlers that ignore their timeouts",
                hint="let CancelledError pass in them; their processes are free for other workers",
            )

    def _late(self) -> list[tuple[str, _Held]]:
        now = self._clock.monotonic()
        return [(id, held) for id, held in self._held.items() if now >= held.over_at]

    def _lost(self, epochs: Mapping[str, int]) -> None:
        for id, held in list(self._held.items()):
            if held.record.epoch == epochs.get(id):  # not claimed anew while this news was on its way
                logger.info("%s was taken over or changed meanwhile: its handler is cut off", id)
                held.task.cancel()


def _in_threads(threads: ThreadPoolExecutor) -> Callable[[Callable[[], Any]], Awaitable[Any]]:
    async def run(function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, _contained, function)

    return run


def _contained(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except StopIteration as error:  # a future takes any other exception; this one would leave its waiter waiting for ever
        raise RuntimeError("it raised StopIteration") from error
