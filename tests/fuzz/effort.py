"""How much is tried, and the odd texts that all of these tests try."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FACTOR = int(os.environ.get("ONWARD_FUZZ_FACTOR", "0"))  # 0: the same few examples each time
T = TypeVar("T", bound=Callable[..., object])


def fuzz(examples: int) -> Callable[[T], T]:
    """So many examples in `make test`, and as many times more as it says in `make fuzz`."""
    return settings(
        max_examples=examples * max(FACTOR, 1),
        derandomize=not FACTOR,
        database=None,
        deadline=None,
        print_blob=bool(FACTOR),
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# What has meant something to somebody: a parser, a terminal, a database, a path, a template, a number.
ODD = [
    *("", " ", "\0", "\n", "\r\n", "\x1b[2J", "\ud800", "\udcff", "\u202e", "\ufeff", "é", "𝄞", "\u2028", "a" * 300, "null", "-"),
    *("'", '"', "\\", "%", "_", "*", "`", ";", "'; DROP TABLE onward_process; --", "$secret", "${x}", "{{7*7}}", "{0}", "%s"),
    *("0", "-1", "1", "00", "1e9", "1" * 30, "9" * 5_000, "0x1", "１", "٣", "1.5", "nan", "Infinity", "true", "[]", "{}", "[[["),
    *("..", ".", "__class__", "<script>", "&amp;", "is:failed", "status:", "data.a:1", "-is:", "age:>1m", "id:a*", '"'),
]
# And what most often breaks something.
WORST = ["\0", "a\0b", "\ud800", "a\udcffb", "\x1b[2J", "\u2028", "**********", "\ufffd\ufffd\ufffd"]
odd = st.sampled_from(ODD)
texts = odd | st.sampled_from(WORST) | st.text(max_size=30) | st.lists(odd, max_size=4).map("".join)
