"""The language of searches: what it means, what it refuses and with which words, and that a printed query means the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward import query
from onward.process import OVER, Condition
from onward.query import QueryError, Term, beginning, exactly, literal, parse, pieces, quoted, text_of

# Whatever may mean something to the reader, and a few things that mean nothing to anybody.
SCRAPS = [
    *(*query.QUALIFIERS, *Condition, *query.GROUPS, "10", "m", "2026-11-20", "T08:30Z", "$secret", "'; DROP TABLE x--"),
    *(":", ":", ":", ",", " ", "\n", "-", '"', '"', "*", "\\", ".", ">", "<", "=", "%", "_", "é", "𝄞", "a", "\0", "\ud800"),
]
TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=20) | st.sampled_from(
    ["*", "\\", '"', "\\*", 'a"b', "-x", "a:b", " "]
)


def term(text: str) -> Term:
    [one] = parse(text)
    return one


@given(st.lists(st.sampled_from(SCRAPS), max_size=12).map("".join) | st.text(max_size=60))
def test_any_text_either_means_something_or_is_refused_with_a_reason(text: str) -> None:
    try:
        terms = parse(text)
    except QueryError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 300
        return
    assert parse(text_of(terms)) == terms
    assert text_of(parse(text_of(terms))) == text_of(terms)


@given(st.sampled_from(sorted(query.TEXTS - {"data"})), st.lists(TEXTS, min_size=1, max_size=3), st.booleans())
def test_a_term_that_a_program_makes_of_any_text_means_that_text_and_is_read_back(
    qualifier: str, texts: list[str], negated: bool
) -> None:
    made = exactly(qualifier, *texts[: 1 if qualifier == "" else 3], negated=negated)
    assert [pieces(value) for value in made.values] == [[text] for text in texts[: len(made.values)]]
    assert term(str(made)) == made
    if qualifier:
        assert term(f"{qualifier}:{quoted(texts[0])}").values == (literal(texts[0]),)
        assert pieces(beginning(qualifier, texts[0]).values[0]) == [texts[0], ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("  \n ", ()),
        ("status:a,b", (Term("status", ("a", "b")),)),
        ('status:"a b","c,d"', (Term("status", ("a b", "c,d")),)),
        ("-is:finished  flow:x", (Term("is", ("finished",), True), Term("flow", ("x",)))),
        ("id:q3*", (Term("id", ("q3*",)),)),
        ('error:"two words"', (Term("error", ("two words",)),)),
        ('data.topic:"Q3"', (Term("data", ("Q3",), path=("topic",)),)),
        ("data.list.0:-5", (Term("data", ("-5",), path=("list", "0")),)),
        ("data.at:12:30", (Term("data", ("12:30",), path=("at",)),)),
        ("tea", (Term("", ("tea",)),)),
        ("card,declined", (Term("", ("card,declined",)),)),  # a word is no list
        ('-"two words"', (Term("", ("two words",), True),)),
        ('"a:b"', (Term("", ("a:b",)),)),
        ("12:30", (Term("", ("12:30",)),)),
        (r"error:50\*", (Term("error", (r"50\*",)),)),
        (r"error:C:\temp", (Term("error", (r"C:\\temp",)),)),  # a backslash before anything else is one
        (r'error:"a \"b\" c"', (Term("error", ('a "b" c',)),)),
        ("age:>10m", (Term("age", (">10m",)),)),
    ],
)
def test_a_query_is_read_as_it_is_meant(text: str, expected: tuple[Term, ...]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stat:x", "did you mean status?"),
        ("http://x", "there is no qualifier 'http'"),
        ("Status:x", "did you mean status?"),
        ("is:faild", "did you mean failed?"),
        ("is:*", "there is no condition"),
        ("status:", "status: nothing to look for"),
        ("status:a,,b", "status: nothing to look for"),
        ("-", "nothing to look for"),
        ('""', "nothing to look for"),
        ('error:"two words', "no closing quote"),
        ('status:"a"b', "stands right after"),
        ('ab"c"', "stands right after"),
        ("data:x", "takes a path"),
        ("status.a:x", "takes no path"),
        ("data..x:1", "is empty, or has"),
        ("data.$secret:x", "a secret cannot be asked for"),
        ("data.token.$secret.0:x", "a secret cannot be asked for"),
        ("age:10m", "write age:>10m or age:<10m"),
        ("age:>ten", "no duration"),
        ("age:>-1m", "no duration"),
        ("age:>999999999999d", "no duration"),
        ("age:>1m,>2m", "takes one value"),
        ("updated:>2026-13-01", "no date"),
        ("updated:1h", "longer or shorter"),
        ("attempt:>x", "no number"),
        ("attempt:>1e9", "no number"),
        ("version:9999999999", "no number"),
        ("error:\0", "a character in it that no process has"),
        ("error:\ud800", "a character in it that no process has"),
        ("x" * 4_001, "4,001 characters; the limit is 4,000"),
        ("\\x" * 1_900, "5,702 characters"),  # written so that it can be read back it is longer
        ("a " * 21, "at most 20 terms"),
        ("status:" + "a," * 200 + "a", "201 alternatives; the limit is 200"),
        ("error:" + "*a" * 9, "more than 8 stars"),
        ("data." + "a." * 16 + "a:x", "more than 16 names"),
        ("data.1.2.3.4:x", "more than 3 numbers"),
    ],
)
def test_what_means_nothing_is_refused_and_told_what_to_write(text: str, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert said in f"{caught.value} {caught.value.hint}"


def test_the_limits_themselves_are_allowed() -> None:
    assert len(parse("a " * query.TERMS_MAX)) == query.TERMS_MAX
    assert len(term("status:" + "a," * (query.VALUES_MAX - 1) + "a").values) == query.VALUES_MAX
    assert term("error:" + "*a" * query.STARS_MAX)
    assert term("x" * query.QUERY_CHARS_MAX)


def test_is_means_conditions_and_groups_of_them() -> None:
    assert term("is:failed,paused").conditions == {Condition.FAILED, Condition.PAUSED}
    assert term("is:over").conditions == OVER
    assert term("is:active").conditions == set(Condition) - OVER
    assert str(term("is:active,finished")) == "is:active,finished"  # as it was typed


TICK, LONG = timedelta(microseconds=1), query.LENGTH_MAX * 2


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("age:>10m", (timedelta(minutes=10) + TICK, LONG)),
        ("age:>=10min", (timedelta(minutes=10), LONG)),
        ("in:<1.5h", (-LONG, timedelta(minutes=90) - TICK)),
        ("due:<=5", (-LONG, timedelta(seconds=5))),
        ("updated:<1d", (-LONG, timedelta(days=1) - TICK)),
        ("attempt:>2", (3, query.NUMBER_MAX)),
        ("attempt:>=2", (2, query.NUMBER_MAX)),
        ("version:<3", (0, 2)),
        ("version:3", (3, 3)),
    ],
)
def test_a_comparison_says_the_least_and_the_most_that_it_means(text: str, bounds: tuple[Any, Any]) -> None:
    assert term(text).bounds == bounds


def at(*when: int) -> datetime:
    return datetime(*when, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("value", "first", "last"),
    [
        ("2026-11-20", at(2026, 11, 20), at(2026, 11, 21) - TICK),
        (">2026-11-20", at(2026, 11, 21), None),
        (">=2026-11-20", at(2026, 11, 20), None),
        ("<2026-11-20", None, at(2026, 11, 20) - TICK),
        ("<=2026-11-20", None, at(2026, 11, 21) - TICK),
        (">2026-11-20T08:30", at(2026, 11, 20, 8, 30) + TICK, None),
        ("<2026-11-20T08:30:00+02:00", None, at(2026, 11, 20, 6, 30) - TICK),
        ("2026-11-20T08:30:00.5Z", at(2026, 11, 20, 8, 30, 0, 500_000), at(2026, 11, 20, 8, 30, 0, 500_000)),
    ],
)
def test_a_date_is_the_whole_day_in_utc(value: str, first: datetime | None, last: datetime | None) -> None:
    bounds = term(f"updated:{value}").bounds
    assert bounds == (first or query._EARLIEST, last or query._LATEST)


def test_a_star_is_any_text_unless_a_backslash_says_otherwise() -> None:
    assert pieces(term("id:q3*").values[0]) == ["q3", ""]
    assert pieces(term(r'error:"* of \* and \\"').values[0]) == ["", r" of * and " + "\\"]
    assert query.is_exact(term(r"id:a\*").values[0]) and not query.is_exact(term("id:a*").values[0])


def test_every_example_that_is_shown_to_people_can_be_typed() -> None:
    for example, meaning in query.QUALIFIERS.values():
        assert str(term(example)) and meaning
