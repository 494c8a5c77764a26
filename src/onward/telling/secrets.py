"""Secrets in what faces show, and back again: whoever edits data that were masked must not overwrite what they could not see."""

from __future__ import annotations

from typing import Any

from onward.errors import InvalidData
from onward.secret import KEY, MASK, is_secret, masked

__all__ = ["MASK", "masked", "restored"]

_NONE = object()  # no value of before stands in that place


def restored(new: Any, old: Any) -> Any:
    """`new`, as a person made it from `masked(old)`, with each mask replaced by the secret that it stood for.

    What was typed over a mask is the new secret. Raises InvalidData for a mask of which nobody can tell what it stood for,
    as where a list was cut or a key was renamed.
    """
    return _restored(new, old, "$")


def _restored(new: Any, old: Any, path: str) -> Any:
    if new == MASK or new == {KEY: MASK}:
        return _meant(old, path)
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        return {key: _restored(one, before.get(key, _NONE), f"{path}.{key}") for key, one in new.items()}
    if isinstance(new, list):
        origins = _origins(new, old if isinstance(old, list) else [])
        return [
            _restored(one, origin, f"{path}[{number}]") for number, (one, origin) in enumerate(zip(new, origins, strict=True))
        ]
    return new


def _meant(old: Any, path: str) -> Any:
    if is_secret(old) or old == MASK:  # or a text that only looks like a mask
        return old
    raise InvalidData(
        f"{path} is the mask of a secret, and which one it stood for cannot be told",
        hint="type the secret anew in that place",
    )


def _origins(new: list[Any], old: list[Any]) -> list[Any]:
    """For each element the one of before that it was made of: the only one that looks the same, else the one in its place."""
    shown = [masked(one) for one in old]
    origins: list[Any] = []
    taken: set[int] = set()
    for one in new:
        same = [number for number, look in enumerate(shown) if look == one]
        alike = same and all(old[number] == old[same[0]] for number in same)
        origins.append(old[same[0]] if alike else _NONE)
        taken.update(same if alike else ())
    if len(new) == len(old):
        for number, origin in enumerate(origins):
            if origin is _NONE and number not in taken:
                origins[number] = old[number]
    return origins
