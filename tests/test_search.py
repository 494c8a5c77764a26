"""How a search becomes SQL: of what is typed nothing gets into a statement, plans go through the indexes that are meant for
them, both databases answer the same, and a long look keeps no other one waiting.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import holds

from onward import query
from onward.ports import Known, Search
from onward.process import Condition, Record
from onward.query import Query, QueryError, Term, parse, pieces
from onward.store import open_store
from onward.store.postgres import looking as postgres_looking
from onward.store.postgres.store import _COMMIT_ONE
from onward.store.rows import Commit
from onward.store.search import FEW_MAX, Dialect, Way, json_paths, numbered, ways
from onward.store.sqlite import looking as sqlite_looking
from onward.store.sqlite.store import SqliteStore
from onward.testing import ManualClock
from onward.testing.contract.rows import KNOWN, LEASE, failed, finished, moved, new, not_yet, paused

DIALECTS = [sqlite_looking.DIALECT, postgres_looking.DIALECT]
PATIENCE_S = 60.0

# -- nothing of what is typed is in a statement -----------------------------------------------------------------------

HOSTILE = [
    "x",
    "'; DROP TABLE onward_process; --",
    '"',
    "\\",
    "%",
    "_",
    "*",
    ":id",
    ":now",
    "$1",
    "{now}",
    "?",
    "1 OR 1=1",
    "é𝄞",
    ")",
]
TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
BOUNDS = {"age": ">1h", "in": "<1h", "due": "<1m", "updated": ">2026-11-20", "attempt": ">2", "version": "3"}


@st.composite
def terms(draw: st.DrawFn) -> Term:
    negated = draw(st.booleans())
    match draw(st.sampled_from([*query.QUALIFIERS, ""])):
        case "is":
            return Term("is", tuple(draw(st.lists(st.sampled_from([*Condition, "active"]), min_size=1, max_size=3))), negated)
        case "data":
            name = st.from_regex(r"[^\s\":.]{1,5}", fullmatch=True).filter(str.isprintable)
            path = tuple(draw(st.lists(name | st.sampled_from(["0", "12", "'", "$1"]), min_size=1, max_size=3)))
            return Term("data", (query.literal(draw(TEXT)),), negated, path)
        case qualifier if qualifier in BOUNDS:
            return Term(qualifier, (BOUNDS[qualifier],), negated)
        case qualifier:
            texts = draw(st.lists(TEXT, min_size=1, max_size=1 if qualifier == "" else 3))
            star = draw(st.sampled_from(["", "*"]))
            return Term(qualifier, tuple(query.literal(text) + star for text in texts), negated)


def harmless(term: Term) -> Term:
    """The same question with other words in it."""
    if term.qualifier in query.TEXTS:
        return replace(
            term, values=tuple("*".join("x" for _ in pieces(value)) for value in term.values), path=term.path and ("x",)
        )
    return term


@given(st.lists(terms(), max_size=4), st.sampled_from(HOSTILE), st.booleans(), st.sampled_from([None, [("'", "--", 1)]]))
def test_a_statement_is_the_same_whatever_words_were_typed(
    asked: list[Term], before: str, light: bool, known: Known | None
) -> None:
    for dialect in DIALECTS:
        search = Search(asked, before=before, light=light, looks=5, known=known)
        other = Search([harmless(term) for term in asked], before="x", light=light, looks=5, known=known and [("x", "x", 1)])
        for way, same in zip(ways(asked), ways(other.terms), strict=False):
            if way.head.block != same.head.block:  # a word of stars alone begins no id
                break
            until = (0, before)
            for make in (lambda one, path: dialect.find(one, path, until), dialect.place):  # noqa: B023
                text, values = make(search, way)
                assert text == make(other, same)[0]
                _is_made_of_blocks(dialect, text, values)


def _is_made_of_blocks(dialect: Dialect, text: str, values: dict[str, Any]) -> None:
    left = re.sub(r"(?<!:):([a-z]+)\d+\b", r":\1", text)
    for block in sorted(dialect.blocks.values(), key=len, reverse=True):
        left = left.replace(block, "")
    assert left.strip() == ""
    named = set(re.findall(r"(?<!:):([a-z]+\d+)\b", text))
    assert named == set(values)
    line, numbers = numbered(text, values, 2)
    assert len(numbers) == len(values) and not re.search(r"(?<!:):[a-z]+\d", line)


def test_the_paths_into_json_take_a_number_for_a_place_or_a_name() -> None:
    assert json_paths(["a", "b'c"]) == ["""$."a"."b'c\""""]
    assert json_paths(["a", "0", "x"]) == ['$."a"."0"."x"', '$."a"[0]."x"']
    assert len(json_paths(["0", "1", "2"])) == 8


# -- which list ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lists"),
    [
        ("", ["all"]),
        ("status:a -is:failed -worker:x -id:a -error:x -word", ["all"]),
        ("is:failed", ["stopped", "all"]),
        ("is:failed,paused flow:x", ["stopped", "all"]),
        ("is:failed,waiting", ["all"]),
        ("is:active is:paused", ["stopped", "all"]),
        ("is:running", ["held", "all"]),
        ("worker:a*", ["held", "all"]),
        ("id:a,b", ["ids", "all"]),
        ("id:a*", ["beginning", "all"]),
        ("id:a*,b*", ["all"]),
        ("id:*a", ["all"]),
        ("error:x is:failed", ["stopped", "errors", "all"]),
        ("word", ["words", "all"]),
        ("*word", ["all"]),
        ("id:\U0010ffff*", ["all"]),
    ],
)
def test_a_search_goes_through_the_shortest_list_that_holds_all_it_asks_for(text: str, lists: list[str]) -> None:
    assert [way.head.block.removeprefix("list ") for way in ways(parse(text))] == lists


@pytest.mark.parametrize(("begin", "high"), [("a", "b"), ("a\ud7ff", "a\ue000"), ("az\U0010ffff", "a{"), ("aé", "aê")])
def test_the_texts_that_begin_so_end_at_the_next_one(begin: str, high: str) -> None:
    way = next(iter(ways([query.beginning("id", begin)])))
    assert way.head.values["high"] == high
    assert begin.encode("utf-8", "surrogatepass") < high.encode() and f"{begin}zzz".encode() < high.encode()


# -- plans --------------------------------------------------------------------------------------------------------

ROWS = 4_000
INDEXES = {  # what a plan has to go through, and nothing else of the table
    "": "onward_process_created",
    "status:packed -is:finished": "onward_process_created",
    "is:failed error:x": "onward_process_stopped",
    "error:x": "onward_process_error",
    "worker:a*": "onward_process_owner",
    "id:p00001,p00002": "onward_process_pkey|sqlite_autoindex_onward_process_1",
    "id:p0001*": "onward_process_pkey|sqlite_autoindex_onward_process_1",
    "p0001": "onward_process_error",
}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, path: Path) -> str:
    return f"sqlite:///{path}" if request.param == "sqlite" else str(request.getfixturevalue("postgres_tables_url"))


@pytest.fixture
async def store(url: str, clock: ManualClock) -> AsyncIterator[Any]:
    store = open_store(url, clock)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def many(store: Any, clock: ManualClock) -> None:
    """ROWS of them: a few failed, one is held by a worker, all the others are finished."""
    for begin in range(0, ROWS, 1_000):
        await store.insert([new(f"p{n:05}", f'{{"n": {n % 7}}}') for n in range(begin, begin + 1_000)], "ann")
        clock.advance(1)
    for begin in range(0, ROWS, 1_000):
        records = await store.claim(KNOWN, "worker-a", 1_000, LEASE, [f"p{n:05}" for n in range(begin, begin + 1_000)])
        await asyncio.gather(*(store.commit(record, _end(record)) for record in records if record.id != "p00500"))


def _end(record: Record) -> Any:
    return failed(record, "no stamps left") if record.id.endswith("000") else finished(record)


async def plan_of(url: str, search: Search, way: Way, *, place: bool = False) -> str:
    """What the database means to do, and PostgreSQL has done, to answer that search; or to find how far it may look."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            until = sqlite_looking._place(connection, search, way)
            statement, values = _made(sqlite_looking.DIALECT, search, way, until, place)
            bound = {name: sqlite_looking._bound(value) for name, value in values.items()}
            rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", {**bound, "now": 0}).fetchall()
        connection.close()
        return "\n".join(row[-1] for row in rows)
    server = await asyncpg.connect(url)
    async with postgres_looking.planned(server):
        last = await postgres_looking._place(server, search, way, None)
        statement, values = _made(postgres_looking.DIALECT, search, way, last, place)
        told = await postgres_looking._asked(server, f"EXPLAIN (ANALYZE, TIMING OFF) {statement}", values, None)
    await server.close()
    return "\n".join(row[0] for row in told)


def _made(dialect: Dialect, search: Search, way: Way, until: Any, place: bool) -> tuple[str, dict[str, Any]]:
    return dialect.place(search, way) if place else dialect.find(search, way, until)


async def test_every_plan_goes_through_the_index_of_its_list(store: Any, clock: ManualClock, url: str) -> None:
    await many(store, clock)
    for analysed in (False, True):
        if analysed:
            run(url, "ANALYZE")
        for text, index in INDEXES.items():
            way = next(iter(ways(parse(text))))
            for before, looks in itertools.product(("", "p02000"), (0, 100)):
                search = Search(parse(text), before=before, limit=51, light=True, looks=looks, known=KNOWN)
                for place in (False, True)[: 1 + (looks > 0 and way.in_order)]:
                    plan = await plan_of(url, search, way, place=place)
                    assert re.search(rf"\b({index})\b", plan), plan
                    assert not re.search(r"Seq Scan on onward_process|SCAN onward_process$", plan, re.MULTILINE), plan
                    assert not way.in_order or not re.search(r"Sort Key|TEMP B-TREE", plan), plan


async def test_a_bounded_look_for_something_rare_costs_as_much_as_its_bound(store: Any, clock: ManualClock, url: str) -> None:
    await many(store, clock)
    for text in ("status:nobody", "is:failed flow:nobody", "error:nothing"):
        bounded, whole = (Search(parse(text), looks=looks, known=KNOWN) for looks in (10, 0))
        way = next(iter(ways(bounded.terms)))
        if url.startswith("sqlite"):
            few, all_of_them = (_steps(url, lambda c, one=one: sqlite_looking.find(c, one, 0)) for one in (bounded, whole))
            assert few < 4_000 < 10_000 < all_of_them or way.head.block != "list all"
        else:
            few, all_of_them = [_passed_over(await plan_of(url, search, way)) for search in (bounded, whole)]
            assert few <= 10 < all_of_them or way.head.block != "list all"


def _steps(url: str, ask: Callable[[sqlite3.Connection], Any]) -> int:
    """Instructions of SQLite's machine, in hundreds of them."""
    number = 0

    def count() -> int:
        nonlocal number
        number += 100
        return 0

    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.set_progress_handler(count, 100)
        ask(connection)
    connection.close()
    return number


def _passed_over(plan: str) -> int:
    return sum(int(number) for number in re.findall(r"Rows Removed by Filter: (\d+)", plan))


def run(url: str, statement: str, before: str = "") -> list[tuple[Any, ...]]:
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=PATIENCE_S) as connection:
            rows = connection.execute(statement).fetchall()
        connection.close()
        return rows
    with psycopg.connect(url, autocommit=True) as server:
        if before:
            server.execute(before.encode())
        done = server.execute(statement.encode())
        return list(done.fetchall()) if done.description else []


async def test_the_other_looks_of_people_go_through_their_indexes(store: Any, url: str) -> None:
    now, explain = ("0", "EXPLAIN QUERY PLAN ") if url.startswith("sqlite") else ("now()", "EXPLAIN (COSTS OFF) ")
    blocks = DIALECTS[0 if url.startswith("sqlite") else 1].blocks
    values = {"$1": now, "$2": "''", "$3": "0", "$4": "50", ":at": "0", ":id": "''", ":version": "0", ":limit": "50", ":now": "0"}
    for block, index in {"leases": "onward_process_owner", "acts": "_acts"}.items():
        text = re.sub(r"\$\d|(?<!:):[a-z]+", lambda match: values[match[0]], blocks[block])
        plan = "\n".join(str(row[-1]) for row in run(url, explain + text, "SET enable_seqscan = off"))
        assert index in plan and "Seq Scan" not in plan and not re.search(r"SCAN onward_\w+$", plan, re.MULTILINE), plan


# -- both databases mean the same ---------------------------------------------------------------------------------

MIXED, QUERIES = 120, 400
ERRORS = ["no stamps", "No STAMPS left", "100% full", "a_b", "C:\\dir [x] *", 'said "no"', "é É", "x\ny"]
DATA = [
    {}, {"n": 1}, {"n": -1.5}, {"n": "1"}, {"t": "Q3"}, {"t": "a*b"}, {"b": True}, {"b": None}, {"l": ["x", {"k": "y"}]},
    {"l": {"0": "x"}}, {"t": "é \"'\\"}, {"deep": {"er": {"n": 0}}},
]  # fmt: skip
VALUES = [
    "1", "x", "a", "Q3", "q3", "*", "a*", "*b", "100%", "a_b", "no*", "NO ST*", "é", "[x]", "_00", "a%", "n_ s*",
    "\\*", '"', "null", "true", "worker-a", "p1*", "-1.5",
]  # fmt: skip
PATHS = [("n",), ("t",), ("b",), ("l", "0"), ("l", "1", "k"), ("deep", "er", "n"), ("l",), ("none",)]


def _random_term(chance: random.Random) -> Term:
    qualifier = chance.choice([*query.QUALIFIERS, ""])
    negated, value = chance.random() < 0.3, chance.choice(VALUES)
    match qualifier:
        case "is":
            return Term("is", tuple(chance.sample([*Condition, "active", "over"], chance.randint(1, 3))), negated)
        case "data":
            return Term("data", (value.replace("\\*", "*"),), negated, chance.choice(PATHS))
        case "status" | "flow":
            return Term(qualifier, tuple(chance.sample(["packed", "sent", "done", "parcel", "letter", "p*", "*e*"], 2)), negated)
        case "attempt" | "version":
            return Term(qualifier, (chance.choice(["0", ">0", "<2", ">=1", "<=0"]),), negated)
        case "age" | "in" | "due" | "updated":
            return Term(qualifier, (chance.choice([">10s", "<10s", ">=60s", "<=0s", ">1h"]),), negated)
    return Term(qualifier, (value,), negated)


async def _mixed(stores: list[Any], clock: ManualClock) -> None:
    for store in stores:
        clock.jump(datetime.fromisoformat("2026-11-20T00:00:00Z") - clock.now())
        chance = random.Random(1)
        for n in range(MIXED):
            clock.advance(chance.choice([0, 1]))
            where = chance.choice(["parcel", "letter"]), chance.choice(["packed", "packed", "sent", "lost"])
            await store.insert([new(f"p{n}", json.dumps(chance.choice(DATA), ensure_ascii=False), *where)], "ann")
            known = [*KNOWN, ("letter", "packed", 1), ("letter", "sent", 1), ("parcel", "lost", 1), ("letter", "lost", 1)]
            claimed = await store.claim(known, chance.choice(["worker-a", "worker-b"]), 1, LEASE, [f"p{n}"])
            ends = (finished, paused, not_yet, moved, None, lambda record: failed(record, chance.choice(ERRORS)))  # noqa: B023
            end = chance.choice(ends)
            if end is not None and chance.random() < 0.9:
                await store.commit(claimed[0], end(claimed[0]))
            elif chance.random() < 0.5:
                await store.release(claimed, begun=True)


async def test_both_databases_answer_what_the_language_means(postgres_tables_url: str, path: Path, clock: ManualClock) -> None:
    stores = [open_store(f"sqlite:///{path}", clock), open_store(postgres_tables_url, clock)]
    for store in stores:
        await store.open()
    try:
        await _mixed(stores, clock)
        rows = await stores[0].find(Search(limit=1_000))
        chance, seen = random.Random(2), 0
        for _ in range(QUERIES):
            asked = _random_query(chance)
            known = chance.choice([None, KNOWN, []])
            expected = [row.id for row in rows if all(holds(term, row, Search(known=known)) != term.negated for term in asked)]
            for store in stores:
                found = [record.id for record in await store.find(Search(asked, limit=1_000, light=True, known=known))]
                assert found == expected, (query.text_of(asked), type(store).__name__)
            seen += 0 < len(expected) < MIXED
        assert seen > QUERIES / 4  # or the queries were too strict to tell anything
    finally:
        for store in stores:
            await store.close()


def _random_query(chance: random.Random) -> Query:
    while True:
        try:
            return tuple(_random_term(chance) for _ in range(chance.choice([1, 1, 1, 2, 3])))
        except QueryError:
            continue


# -- what spoils nothing ------------------------------------------------------------------------------------------


async def test_data_that_is_no_json_matches_nothing_and_keeps_no_search_from_its_answer(path: Path, clock: ManualClock) -> None:
    store = SqliteStore(str(path), clock)
    await store.open()
    await store.insert([new("good", '{"n": 1}'), new("bad"), new("worse")], "ann")
    run(f"sqlite:///{path}", "UPDATE onward_process SET data = '{\"n\": 1' WHERE id = 'bad'")
    run(f"sqlite:///{path}", "UPDATE onward_process SET data = CAST(x'7b22ff' AS TEXT) WHERE id = 'worse'")
    for text, ids in {"data.n:1": ["good"], "-data.n:1": ["worse", "bad"], "data.n.0.\\:1": []}.items():
        assert [record.id for record in await store.find(Search(parse(text)))] == ids
    await store.close()


async def test_names_in_the_data_that_look_like_paths_are_names(store: Any) -> None:
    names = ("[0]", "$", "#", "a[1]", "'", "@>", "é", "-1")
    await store.insert([new("a", json.dumps(dict.fromkeys(names, "x"), ensure_ascii=False))], "ann")
    for name in names:
        assert [record.id for record in await store.find(Search(parse(f"data.{name}:x")))] == ["a"], name
        assert await store.find(Search(parse(f"data.{name}.more:x"))) == []


async def test_more_rows_than_may_be_sorted_are_walked_through_in_order(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an id's beginning, or a word, is in too many rows, they are looked at a part at a time."""
    await store.insert([new(f"p{n}") for n in range(9)], "ann")
    for most in (FEW_MAX, 5):
        for module in (sqlite_looking, postgres_looking):
            monkeypatch.setattr(module, "FEW_MAX", most)
        for text in ("id:p*", "p"):
            assert [record.id for record in await store.find(Search(parse(text), limit=3))] == ["p8", "p7", "p6"]
            part = Search(parse(text), looks=4)
            assert len(await store.find(part)) == (9 if most == FEW_MAX else 4)
            assert await store.past(part) == ("" if most == FEW_MAX else "p5")


# -- beside others ------------------------------------------------------------------------------------------------


async def test_a_long_look_into_a_file_keeps_only_its_like_waiting(path: Path, clock: ManualClock) -> None:
    store = SqliteStore(str(path), clock)
    await store.open()
    await store.insert([new("a")], "ann")
    over = threading.Event()
    async with asyncio.timeout(PATIENCE_S):
        long = asyncio.create_task(store._read(lambda connection: over.wait(PATIENCE_S), long=True))
        others = [asyncio.create_task(work) for work in (store.counts(), store.find(Search(parse("status:packed"))))]
        assert await store.get("a") is not None and len(await store.history("a")) == 1
        assert len(await store.find(Search())) == len(await store.find(Search(parse("status:packed"), looks=10))) == 1
        assert await store.past(Search(looks=1)) == ""
        assert await store.leases() == [] == await store.acts()
        assert not long.done() and not any(task.done() for task in others)
        over.set()
        counts, found = await asyncio.gather(*others)
        assert await long and [count.number for count in counts] == [1] and len(found) == 1
    await store.close()


async def test_a_search_leaves_nothing_behind_in_its_session(postgres_tables_url: str, clock: ManualClock) -> None:
    store: Any = open_store(postgres_tables_url, clock)
    await store.open()
    await store.insert([new("a")], "ann")
    for _ in range(20):
        await store.find(Search(parse("id:a")))
    with pytest.raises(Exception, match=r"LIKE pattern must not end"):
        await store._search(lambda connection: connection.fetch("SELECT 'a' LIKE '\\'"))
    session = await store._pool.lend()
    assert await session.fetchval("SHOW enable_seqscan") == "on" and not session.is_in_transaction()
    await store._pool.take_back(session)
    assert await store.get("a") is not None
    await store.close()


# -- what it costs those who write ----------------------------------------------------------------------------------


async def test_a_stage_under_a_lease_stays_an_update_that_touches_no_index(postgres_tables_url: str, clock: ManualClock) -> None:
    store = open_store(postgres_tables_url, clock)
    await store.open()
    await store.insert([new("a")], "ann")
    [record] = await store.claim(KNOWN, "worker-a", 1, LEASE)
    connection = await asyncpg.connect(postgres_tables_url)
    transaction = connection.transaction()
    await transaction.start()
    for _ in range(3):
        item = Commit(record, moved(record, data='{"n": 2}'), record.status, record.attempt, record.owner)
        await connection.fetch(_COMMIT_ONE, clock.now(), *item.own, *item.shape)
        record = replace(record, version=record.version + 1, transition=record.transition + 1)
    told = await connection.fetchrow(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'onward_process'"
    )
    assert tuple(told) == (3, 3)
    indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = 'onward_process'")
    changing = re.compile(r"\b(status|due_at|version|updated_at|data|attempt|transition|moves|entered_at)\b")
    assert len(indexes) == 7 and not [row[0] for row in indexes if changing.search(row[0])]
    await transaction.rollback()
    await connection.close()
    await store.close()
