"""How one program of a world sees the store: around each of its calls somebody may wait, raise, or kill the program.

An error before the call: nothing was done. An error after it: it was done, and its answer was lost, which is the worst.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from onward.ports import Store


@dataclass(frozen=True)
class Call:
    """One call of a verb of `ports.Store`."""

    verb: str
    arguments: tuple[Any, ...]


Hook = Callable[[Call], Awaitable[None]]


def between(store: Store, before: Hook, after: Hook, renewing: Callable[[], None] = lambda: None) -> Store:
    """`renewing` is called before each renewal of leases, which cannot wait; it may raise StoreError."""
    return cast(Store, _Between(store, before, after, renewing))


class _Between:
    def __init__(self, store: Store, before: Hook, after: Hook, renewing: Callable[[], None]) -> None:
        self._store, self._before, self._after, self._renewing = store, before, after, renewing

    def renew(self, *arguments: Any) -> set[str]:
        self._renewing()
        return self._store.renew(*arguments)

    def __getattr__(self, verb: str) -> Any:
        do = getattr(self._store, verb)

        async def call(*arguments: Any, **named: Any) -> Any:
            asked = Call(verb, arguments)
            await self._before(asked)
            answer = await do(*arguments, **named)
            await self._after(asked)
            return answer

        return call
