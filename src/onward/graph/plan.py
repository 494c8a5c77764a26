"""Decides which way each edge takes, before anything has a size: a loop, a straight or once bent line, or a shared rail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from onward.flow import Edge
from onward.graph.ranks import Cells, Pair

Side = Literal["above", "beneath"]


class Rail(NamedTuple):
    """One line in a channel, which all edges of one kind to one target share."""

    side: Side
    target: str
    why: str


class Bend(NamedTuple):
    edge: Edge
    gap: int | None  # where it changes rows; None: it does not


@dataclass
class Plan:
    """Which way each edge takes, before anything has a size."""

    cells: Cells
    loops: list[Edge] = field(default_factory=list)
    bends: list[Bend] = field(default_factory=list)
    rails: dict[Rail, list[Edge]] = field(default_factory=dict)

    def clear(self, name: str, side: Side) -> bool:
        """Whether no other box lies between this one and that channel."""
        column, row = self.cells[name]
        others = (r for c, r in self.cells.values() if c == column)
        return all(r >= row for r in others) if side == "above" else all(r <= row for r in others)


def planned(cells: Cells, edges: Sequence[Edge], back: frozenset[Pair]) -> Plan:
    plan = Plan(cells)
    used = dict.fromkeys(cells.values(), "box")
    joined: set[Pair] = set()
    for edge in edges:
        pair = (edge.source, edge.target)
        if edge.source == edge.target:
            plan.loops.append(edge)
            continue
        bend = None
        if edge.why != "on_cancel" and pair not in back and pair not in joined:
            bend = _direct(edge, cells, used)
        if bend is not None:
            plan.bends.append(bend)
            joined.add(pair)
        else:
            ahead = pair not in back and edge.why != "on_cancel" and cells[edge.target][1] == 0
            rail = Rail("above" if ahead else "beneath", edge.target, edge.why)
            plan.rails.setdefault(rail, []).append(edge)
    return plan


def _direct(edge: Edge, cells: Cells, used: dict[tuple[int, int], str]) -> Bend | None:
    """A way along free cells of one row, with at most one change of rows; the outer row first. The cells are taken."""
    (from_column, from_row), (to_column, to_row) = cells[edge.source], cells[edge.target]
    ways = [(to_row, from_column), (from_row, to_column - 1)]
    for row, gap in ways if to_row >= from_row else reversed(ways):
        run = [(column, row) for column in range(from_column + 1, to_column)]
        if not any(cell in used for cell in run):
            used.update(dict.fromkeys(run, "line"))
            return Bend(edge, None if from_row == to_row else gap)
    return None
