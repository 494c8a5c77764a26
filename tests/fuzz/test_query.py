"""Any text is a query with an answer, or is refused in words: asked of a store full of odd processes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Literal

import pytest
from conftest import IN_MEMORY, Job, Step, one_stage
from hypothesis import given
from hypothesis import strategies as st

from onward import Onward, query
from onward.process import Condition
from onward.query import QueryError

from .effort import ODD, fuzz, odd, texts

LIMITS = st.sampled_from([1, 3, 100])

qualifiers = st.sampled_from([*query.QUALIFIERS, "data.note", "data.extra.a", "data.numbers.0", "data.'x'", "data..", "data.é"])
given_values = texts | st.sampled_from([*Condition, *query.GROUPS, "make", "job", "a*", ">10m", "<1d", ">3", "2026-01-01", "*"])
terms = st.builds(
    lambda no, name, words, quoted: f"{no}{name}:{','.join(f'{chr(34)}{word}{chr(34)}' if quoted else word for word in words)}",
    st.sampled_from(["", "-"]), qualifiers, st.lists(given_values, min_size=1, max_size=3), st.booleans(),
)  # fmt: skip
queries = st.lists(terms | odd | st.text(max_size=10), max_size=4).map(" ".join)


async def make(job: Job) -> Literal[Step.DONE]:
    return Step.DONE


FLOW = one_stage(make)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def ask(request: pytest.FixtureRequest) -> Iterator[tuple[asyncio.Runner, Onward]]:
    """A store with what processes should not be asked about, and who can ask it."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    name = f"onward_fuzz_{secrets.token_hex(6)}"
    url = server.create_database(name, template=request.getfixturevalue("postgres_template")) if server else IN_MEMORY
    with asyncio.Runner() as runner:
        app = runner.run(_filled(url))
        yield runner, app
        runner.run(app.__aexit__(None, None, None))
    if server:
        server.drop_database(name)


async def _filled(url: str) -> Onward:
    app = await Onward(url, [FLOW]).__aenter__()
    sound = [text for text in ODD if "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)]
    for number, text in enumerate(sound):
        name = text[:50] if text.isprintable() else ""  # an id has to be
        await app.start(Job(id=f"a{number}{name}", note=text, numbers=[number], extra={text[:50]: [text[:50]], "a": number}))
    return app


@fuzz(80)
@given(queries, LIMITS)
def test_any_text_is_a_query_with_an_answer_or_is_refused_in_words(
    ask: tuple[asyncio.Runner, Onward], text: str, limit: int
) -> None:
    runner, app = ask
    try:
        found = runner.run(app.find(text, limit=limit))
    except QueryError as error:
        assert str(error).isprintable() and error.hint is not None
        return
    assert len(found) <= limit
    rest = runner.run(app.find(text, limit=limit, before=found[-1].id)) if found else []
    assert not {record.id for record in found} & {record.id for record in rest}
