"""What a flow says of processes that older code left behind: how their data become today's, and what a status is called now.

Proven when the flow is defined, like its table. The upgrades themselves run where data are read, in `onward.codec`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any

VERSIONS_MAX = 100  # of a flow's data: each claim names all of them that it reads; what is older has long been upgraded

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def faults_of(version: object, upgrade: object, renamed: object, statuses: type[StrEnum]) -> Iterator[str]:
    """All that is wrong with what a flow says of them."""
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSIONS_MAX:
        yield f"version={version!r}: the version of its data is a whole number from 1 to {VERSIONS_MAX}"
    elif not isinstance(upgrade, Mapping):
        yield f"upgrade={upgrade!r}: write upgrade={{1: f}}, where f takes the data of version 1 and returns those of version 2"
    else:
        yield from _faults_of_steps(version, upgrade)
    if not isinstance(renamed, Mapping):
        yield f"renamed={renamed!r}: write renamed={{'old name': {statuses.__name__}.{next(iter(statuses)).name}}}"
    else:
        yield from _faults_of_names(renamed, statuses)


def _faults_of_steps(version: int, upgrade: Mapping[Any, Any]) -> Iterator[str]:
    steps = {key for key in upgrade if isinstance(key, int) and not isinstance(key, bool) and 1 <= key < version}
    for key in upgrade:
        if key not in steps:
            yield f"upgrade[{key!r}] is no step on the way to version={version}: its keys are the versions from which it leads on"
    for step in range(min(steps, default=version - 1) or 1, version):
        if step not in steps:
            yield (
                f"version={version} has no upgrade from {step}: write upgrade={{{step}: f}}, where f takes the data of version "
                f"{step} as a dict and returns those of version {step + 1}"
            )
        elif not callable(upgrade[step]):
            yield f"upgrade[{step}]={upgrade[step]!r} cannot be called: give it a function"
        elif inspect.iscoroutinefunction(upgrade[step]):
            yield f"upgrade[{step}] is async: write it as `def`; it has nothing to wait for but its data"


def _faults_of_names(renamed: Mapping[Any, Any], statuses: type[StrEnum]) -> Iterator[str]:
    known = {member.value for member in statuses}
    for old, new in renamed.items():
        if not isinstance(old, str) or not old:
            yield f"renamed[{old!r}]: the old name of a status is a text, as it stands in the rows"
        elif str(old) in known:
            yield f"renamed[{str(old)!r}]: {statuses.__name__} still has a status of that name"
        if not isinstance(new, statuses):
            yield f"renamed[{str(old)!r}]={new!r} is no member of {statuses.__name__}"
