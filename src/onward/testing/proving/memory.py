"""What a program forgets when it ends: the module globals of the flow's own modules that are plain data."""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, defaultdict, deque
from types import ModuleType
from typing import Any

from onward.flow import Flow

_VALUES = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, dict, set, bytearray, tuple, frozenset, Counter, OrderedDict, defaultdict, deque)

Globals = dict[tuple[str, str], Any]


class Memory:
    """As it was when it was made is what a program that begins finds.

    Plain data are numbers, texts and containers of them. Objects of other classes stay as they are: clients, locks, and what
    stands for the world outside; so does a container that holds one from the beginning.
    """

    def __init__(self, flow: Flow[Any]) -> None:
        self._modules = modules_of(flow)
        self._beginning = self._values()
        self._fresh = {name: _copied(value) for name, value in self._beginning.items() if _is_plain(value)}

    def taken(self) -> Globals:
        """A copy of what is remembered now."""
        now = self._values()
        return {name: _copied(value) for name, value in now.items() if name in self._fresh or name not in self._beginning}

    def begin(self) -> None:
        """A program begins, and remembers nothing of those before."""
        for owner, name in self._values().keys() - self._beginning.keys():
            delattr(sys.modules[owner], name)
        self.put(self._fresh)
        for module in self._modules:
            for value in vars(module).values():
                if callable(forget := getattr(value, "cache_clear", None)) and not isinstance(value, type):
                    forget()

    def put(self, remembered: Globals) -> None:
        """In place where it can be: another module may have imported the container by name."""
        for (module, name), value in remembered.items():
            setattr(sys.modules[module], name, _refilled(self._beginning.get((module, name)), _copied(value)))

    def _values(self) -> Globals:
        return {
            (module.__name__, name): value
            for module in self._modules
            for name, value in vars(module).items()
            if not name.startswith("__") and type(value) in (*_VALUES, *_CONTAINERS)
        }


def _is_plain(value: Any) -> bool:
    if type(value) not in _CONTAINERS:
        return type(value) in _VALUES
    return all(map(_is_plain, [*value, *(value.values() if isinstance(value, dict) else ())]))


def _copied(value: Any) -> Any:
    """With containers of its own, and the same objects in them."""
    if type(value) not in _CONTAINERS or isinstance(value, tuple | frozenset):
        return value
    copy = value.copy()
    if isinstance(copy, dict):
        copy.update({key: _copied(one) for key, one in value.items()})
    elif isinstance(copy, list | deque):
        copy.clear()
        copy.extend(map(_copied, value))
    return copy


def _refilled(there: Any, value: Any) -> Any:
    if type(there) is not type(value) or not isinstance(there, dict | set | list | deque | bytearray):
        return value
    there.clear()
    if isinstance(there, dict | set):
        there.update(value)
    else:
        there.extend(value)
    return there


def modules_of(flow: Flow[Any]) -> list[ModuleType]:
    """Those that define the flow's model and its handlers."""
    functions = [line.handler for line in flow.stages.values() if line is not None]
    names = {getattr(each, "__module__", "") for each in (*functions, flow.model, flow.status_type)}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]
