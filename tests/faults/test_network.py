"""What a network does between a worker and its PostgreSQL: it swallows answers, goes dark, comes back. Nothing is done twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg
import pytest

from onward.store.postgres import news as news_module
from onward.store.postgres.news import News
from onward.store.postgres.store import TRANSACTIONS_MAX

from .cut import HELD_MIN, PAUSED_S, PROCESSES, TAKEN_MAX_S, look_on, wait_for_work
from .fleet import LEASE_S, PATIENCE_S, Fleet, fleet, until
from .proxy import DOWN, UP, Proxy

SWALLOWED_MIN = 200


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    target = urlsplit(postgres_url)
    with Proxy(target.hostname or "", target.port or 5432) as proxy:
        yield proxy


@pytest.fixture
def workers(postgres_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, postgres_url) as one:
        yield one


# -- answers ------------------------------------------------------------------------------------------------------


def a_handlers_commit(sql: str) -> bool:
    return sql == "COMMIT"


def a_group_commit(sql: str) -> bool:
    return "INSERT INTO onward_history" in sql


def test_commits_whose_answers_are_swallowed_are_found_and_not_repeated(workers: Fleet, proxy: Proxy) -> None:
    workers.start(PROCESSES)
    for _ in range(2):
        workers.worker(proxy.url_for(workers.url))
    workers.work_on()
    proxy.swallow_answers(every=3, times=SWALLOWED_MIN, matches=a_group_commit)
    until(lambda: proxy.swallowed >= SWALLOWED_MIN, "200 lost answers", workers)
    proxy.heal()
    proxy.swallow_answers(every=3, times=30, matches=a_handlers_commit)
    until(lambda: proxy.swallowed >= SWALLOWED_MIN + 30, "30 lost answers to COMMIT", workers)
    proxy.heal()
    proxy.swallow_requests(every=3, times=50)
    until(lambda: proxy.requests_swallowed >= 50, "50 lost requests", workers)
    proxy.heal()
    proxy.swallow_answers(times=2, then="hang")
    until(lambda: proxy.swallowed >= SWALLOWED_MIN + 32, "two answers that nobody denies", workers)
    workers.work_on(500)
    counts = workers.come_to_rest()
    committed, not_committed = workers.looked_up()
    resolved, others = resolve(workers)
    print(
        f"\n{proxy.swallowed} answers and {proxy.requests_swallowed} requests swallowed; {committed} transitions found committed,"
        f" {not_committed} not; {resolved} without an answer were told in the end, {others} overtaken; {counts}"
    )
    assert sum(workers.unknown().values()) >= SWALLOWED_MIN and committed >= SWALLOWED_MIN and resolved >= SWALLOWED_MIN


def resolve(workers: Fleet) -> tuple[int, int]:
    """Of how many transitions the answer was lost, and they were told in the end that they are committed; and how many others.

    Those were not written, or somebody else had the process before the truth could be told, as he may if it is due again.
    """
    epochs = {(id, version): epoch for id, version, epoch in workers.ask("SELECT process_id, version, epoch FROM onward_history")}
    resolved = others = 0
    for worker in workers.workers:
        told = {(id, version, epoch) for id, version, epoch, *_ in worker.book("acks")}
        sent = {(id, version + 1, epoch) for _, items, _ in worker.book("unknown") for id, version, epoch in items}
        resolved += len(sent & told)
        others += len(sent - told)
        for id, version, epoch in sent - told:
            taken_over = epochs.get((id, version + 1), epoch + 1) > epoch
            assert epochs.get((id, version)) != epoch or taken_over, (
                f"{id}, version {version}: written, and its worker was not told"
            )
    return resolved, others


# -- cuts ---------------------------------------------------------------------------------------------------------

RESUMED_MAX_S = 10.0  # the promise is 2 s; a busy machine may take longer
IN_FLIGHT_S = 2.0  # a busy worker reads so late what had come before the cut
GONE_MAX_S = 7.5  # the promise is 5 s


@dataclass(frozen=True)
class Cut:
    name: str
    do: Callable[[Proxy], Any]
    lasts_s: float = 3 * LEASE_S


def refuse_all(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.reset()


CUTS = [
    Cut("black hole", lambda proxy: proxy.black_hole()),
    # Longer than an answer may take, and what was on its way is lost: those sessions are dead, and nobody tells the worker.
    Cut("black hole, all lost", lambda proxy: proxy.black_hole(drop=True), 6.5),
    Cut("black hole to the server", lambda proxy: proxy.black_hole(direction=UP)),
    Cut("black hole to the worker", lambda proxy: proxy.black_hole(direction=DOWN)),
    Cut("RST", refuse_all),
]
ROUGH = [
    Cut("delay of 500 ± 400 ms", lambda proxy: proxy.delay(0.5, 0.4), 5.0),
    Cut("slices of one byte", lambda proxy: proxy.slice(1)),
]
SAID = ("processes could not be renewed", "the store is in trouble", "the store answers again")


def test_what_a_worker_had_that_is_cut_off_is_taken_over_and_it_goes_on_when_it_is_back(workers: Fleet, proxy: Proxy) -> None:
    workers.start(PROCESSES, pace=PAUSED_S)
    cut, free = (workers.worker(url, PROCESSES - 2 * HELD_MIN) for url in (proxy.url_for(workers.url), workers.url))
    owner = workers.owner(cut)
    workers.work_on()
    for each in CUTS:
        wait_for_work(workers, owner)
        each.do(proxy)
        cut_at = time.monotonic()
        seen = look_on(workers, cut, owner, each.lasts_s)
        told = len(cut.acknowledged(cut_at + IN_FLIGHT_S))
        proxy.heal()
        healed_at = time.monotonic()
        until(lambda since=healed_at: cut.acknowledged(since), "a commit of the worker that was cut off", workers)
        resumed_s = min(cut.acknowledged(healed_at)) - healed_at
        others = [at for at in free.acknowledged(cut_at) if at < healed_at]
        print(
            f"\n{each.name}, {healed_at - cut_at:.1f} s: {len(seen.taken)} of {len(seen.held)} taken over after"
            f" {max(seen.taken.values(), default=0):.2f} s at the latest, {seen.half_done} half done, locks for"
            f" {seen.locked_s:.2f} s, {len(others)} commits of the other worker, resumed after {resumed_s:.2f} s"
        )
        # A handler's transaction may have been committed just before, and its session could not be put back for 5 s.
        assert told <= TRANSACTIONS_MAX, f"{each.name}: it was told of {told} commits meanwhile"
        assert seen.taken and len(seen.left) <= seen.half_done, f"{each.name}: not taken over: {seen.left}"
        assert max(seen.taken.values()) < TAKEN_MAX_S and resumed_s < RESUMED_MAX_S
        assert len(others) >= 10
        workers.work_on()
    counts = workers.come_to_rest()  # no worker has ended, no attempt was spent, nothing failed
    print(f"{proxy.resets} connections reset; {counts}")
    assert [words for words in SAID if words not in cut.log()] == []
    assert proxy.resets >= HELD_MIN


def test_on_a_slow_and_crumbling_network_the_work_goes_on(workers: Fleet, proxy: Proxy) -> None:
    workers.start(PROCESSES, pace=PAUSED_S)
    through, _ = workers.worker(proxy.url_for(workers.url)), workers.worker()
    workers.work_on()
    for each in ROUGH:
        each.do(proxy)
        began = time.monotonic()
        with closing(psycopg.connect(proxy.url_for(workers.url), autocommit=True, connect_timeout=20)) as slow:
            asked_at = time.monotonic()
            slow.execute("SELECT 1")
            trip_s = time.monotonic() - asked_at
        before = workers.commits()
        time.sleep(max(0.0, began + each.lasts_s - time.monotonic()))
        done = workers.commits() - before
        own = len(through.acknowledged(began))
        proxy.heal()
        healed_at = time.monotonic()
        until(lambda since=healed_at: through.acknowledged(since), "a commit of the worker behind the proxy", workers)
        print(f"\n{each.name}: a round trip took {trip_s:.2f} s; {done} commits meanwhile, {own} of them through it")
        assert done >= 20
        assert trip_s > 0.19 if "delay" in each.name else (proxy.slices > 5_000 and own >= 5)
        workers.work_on()
    print(workers.come_to_rest())


def can_be_alone() -> bool:
    """Whether a program can be given a network of its own: root can, on Linux."""
    return (
        shutil.which("unshare") is not None and not subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode
    )


@pytest.mark.skipif(not can_be_alone(), reason="unshare --net: a network of one's own takes root, on Linux")
def test_of_a_worker_whose_network_is_gone_nothing_is_locked_for_longer_than_five_seconds(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", f"{__package__}.cut", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True, text=True, timeout=4 * PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    told = json.loads(done.stdout)
    seen = told["seen"]
    print(
        f"\n{len(seen['taken'])} of {len(seen['held'])} taken over after {max(seen['taken'].values()):.2f} s at the latest; locks"
        f" for {seen['locked_s']:.2f} s, sessions for {seen['sessions_s']:.2f} s; resumed after {told['resumed_s']:.2f} s;"
        f" {told['counts']}"
    )
    assert len(seen["held"]) >= HELD_MIN and set(seen["taken"]) == set(seen["held"])
    assert 0.5 < seen["locked_s"] < GONE_MAX_S and seen["sessions_s"] < GONE_MAX_S
    assert told["resumed_s"] < RESUMED_MAX_S


async def test_who_listens_for_news_finds_out_that_nobody_speaks_any_more(
    postgres_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing() -> int:
        return 0

    for name, seconds in {"PROBE_EVERY_S": 0.2, "ANSWER_S": 0.5, "ASK_EVERY_TOLD_S": 0.2}.items():
        monkeypatch.setattr(news_module, name, seconds)
    async with asyncio.timeout(PATIENCE_S):
        speaking = await asyncpg.connect(postgres_url)
        news = News(nothing, lambda: asyncpg.connect(proxy.url_for(postgres_url), timeout=1.0), nothing, told=True)
        try:
            for cut in (lambda: None, lambda: proxy.black_hole(drop=True), lambda: proxy.black_hole(drop=True, whom="present")):
                cut()
                await asyncio.sleep(0.3)
                proxy.heal()  # what was connected stays dead, and nobody says so
                await until_heard(news, speaking)
        finally:
            await news.close()
            await speaking.close()


async def until_heard(news: News, speaking: asyncpg.Connection) -> None:
    while True:
        news._changed.clear()
        await speaking.execute("NOTIFY onward")
        with suppress(TimeoutError):
            return await asyncio.wait_for(news._changed.wait(), 0.1)
