"""What a network does between a worker and its PostgreSQL: it swallows answers, goes dark, comes back. Nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .fleet import Fleet, fleet, until
from .proxy import Proxy

PROCESSES = 40


@pytest.fixture
def proxy(postgres_url: str) -> Iterator[Proxy]:
    target = urlsplit(postgres_url)
    with Proxy(target.hostname or "", target.port or 5432) as proxy:
        yield proxy


@pytest.fixture
def workers(postgres_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, postgres_url) as one:
        yield one


def a_handlers_commit(sql: str) -> bool:
    return sql == "COMMIT"


def a_group_commit(sql: str) -> bool:
    return "INSERT INTO onward_history" in sql


def test_commits_whose_answers_are_swallowed_are_found_and_not_repeated(workers: Fleet, proxy: Proxy) -> None:
    workers.start(PROCESSES)
    for _ in range(2):
        workers.worker(proxy.url_for(workers.url))
    workers.work_on()
    proxy.swallow_answers(every=5, times=200, matches=a_group_commit)
    until(lambda: proxy.swallowed >= 200, "200 lost answers", workers)
    proxy.heal()
    proxy.swallow_answers(every=3, times=30, matches=a_handlers_commit)
    until(lambda: proxy.swallowed >= 230, "30 lost answers to COMMIT", workers)
    proxy.heal()
    proxy.swallow_requests(every=5, times=50)
    until(lambda: proxy.requests_swallowed >= 50, "50 lost requests", workers)
    proxy.heal()
    proxy.swallow_answers(times=2, then="hang")
    until(lambda: proxy.swallowed >= 232, "two answers that nobody denies", workers)
    workers.work_on(500)
    counts = workers.come_to_rest()
    committed, not_committed = workers.looked_up()
    print(
        f"\n{proxy.swallowed} answers and {proxy.requests_swallowed} requests swallowed; {committed} transitions found committed,"
        f" {not_committed} not; {counts}"
    )
