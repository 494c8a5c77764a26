"""Who acts, and what somebody may do. Asked in `control`, so that no face can forget it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from onward.errors import Forbidden


class Role(StrEnum):
    """What a person may do: a viewer looks, an operator steers, an admin may change what handlers will work with."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


# The least role for each verb. Who edits data or moves a process steers handlers: that is an admin's.
NEEDS = {
    **dict.fromkeys(("start", "wake", "retry", "pause", "resume", "cancel"), Role.OPERATOR),
    **dict.fromkeys(("move", "edit", "fork", "stop", "delete"), Role.ADMIN),
}
_RANK = list(Role)


@dataclass(frozen=True, slots=True)
class Actor:
    """A person at a face: a name for the history, a role, and by which door (`via`) they came in.

    Where a verb takes a plain string instead, a program of yours acts; it may do everything.
    """

    name: str
    role: Role = Role.ADMIN
    via: str = ""

    def may(self, verb: str) -> bool:
        return _RANK.index(self.role) >= _RANK.index(NEEDS.get(verb, Role.ADMIN))

    def __str__(self) -> str:
        return f"{self.name} ({self.via})" if self.via else self.name


def refuse_unless_allowed(actor: str | Actor, verb: str) -> None:
    """Raises Forbidden. Nothing was changed."""
    if isinstance(actor, Actor) and not actor.may(verb):
        raise Forbidden(
            f"{actor.name} is {actor.role}, and to {verb} takes {NEEDS.get(verb, Role.ADMIN)}",
            hint=f"ask somebody who is {NEEDS.get(verb, Role.ADMIN)}",
        )
