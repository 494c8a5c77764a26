"""Decides which cell of a grid each status stands in: its column by the longest way to it, its row by the main path.

Plain names and edges in, so that it can be tested with any graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onward.flow import Edge

Pair = tuple[str, str]
Cells = dict[str, tuple[int, int]]

_ORDER = {"": 0, "otherwise": 1, "on_failure": 2, "on_cancel": 3}


def place(nodes: Sequence[str], edges: Sequence[Edge], start: str) -> tuple[Cells, frozenset[Pair]]:
    """The (column, row) of every node, and the pairs of nodes whose edge leads back. Any graph will do, cyclic or not."""
    shaping = _shaping(nodes, edges, start)
    back, finished = _depth_first(nodes, shaping, start)
    onward = {node: [target for target in shaping[node] if (node, target) not in back and target != start] for node in nodes}
    columns = dict.fromkeys(nodes, 0)
    for node in reversed(finished):
        for target in onward[node]:
            columns[target] = max(columns[target], columns[node] + 1)
    _behind_start(columns, start, nodes, onward)
    back |= {(s, t) for s, t, _ in edges if s != t and columns[t] <= columns[s]}
    main = _main_path(start, edges, back, finished)
    return _rows(nodes, columns, main, onward), frozenset(back)


def _shaping(nodes: Sequence[str], edges: Sequence[Edge], start: str) -> dict[str, list[str]]:
    """The edges that shape the drawing. Cancelling leads from everywhere to one status: it says nothing about order,
    and counts only where no other way leads to that status.
    """
    plain = [edge for edge in edges if edge.why != "on_cancel" and edge.source != edge.target]
    reached = {start} | {edge.target for edge in plain}
    used = plain + [edge for edge in edges if edge.why == "on_cancel" and edge.target not in reached]
    shaping: dict[str, list[str]] = {node: [] for node in nodes}
    for edge in sorted(used, key=lambda edge: _ORDER[edge.why]):
        if edge.target not in shaping[edge.source]:
            shaping[edge.source].append(edge.target)
    return shaping


def _depth_first(nodes: Sequence[str], follow: Mapping[str, Sequence[str]], start: str) -> tuple[set[Pair], list[str]]:
    """The pairs that lead back to where the search came from, and the nodes in the order in which it left them."""
    back: set[Pair] = set()
    finished: list[str] = []
    state = dict.fromkeys(nodes, "new")
    for root in (start, *nodes):
        if state[root] != "new":
            continue
        state[root] = "open"
        path: list[tuple[str, Iterator[str]]] = [(root, iter(follow[root]))]
        while path:
            node, targets = path[-1]
            target = next(targets, None)
            if target is None:
                path.pop()
                state[node] = "left"
                finished.append(node)
            elif state[target] == "open":
                back.add((node, target))
            elif state[target] == "new":
                state[target] = "open"
                path.append((target, iter(follow[target])))
    return back, finished


def _behind_start(columns: dict[str, int], start: str, nodes: Sequence[str], onward: Mapping[str, Sequence[str]]) -> None:
    """What only a cancelled process reaches still stands behind the start, which is the leftmost of all."""
    led_to = {target for targets in onward.values() for target in targets}
    for node in nodes:
        if node != start and node not in led_to:
            columns[node] += 1
    # One pass is enough to push what follows: columns only grow, and there is no cycle left.
    for node in sorted(nodes, key=columns.__getitem__):
        for target in onward[node]:
            columns[target] = max(columns[target], columns[node] + 1)


def _main_path(start: str, edges: Sequence[Edge], back: set[Pair], finished: Sequence[str]) -> list[str]:
    """The longest way that handlers return, the first in the table among equals: what a reader should follow first."""
    onward: dict[str, list[str]] = {}
    for source, target, why in edges:
        if not why and source != target and (source, target) not in back:
            onward.setdefault(source, []).append(target)
    left = dict.fromkeys(finished, 0)
    for node in finished:
        left[node] = max((left[target] + 1 for target in onward.get(node, ())), default=0)
    path = [start]
    while onward.get(path[-1]):
        path.append(max(onward[path[-1]], key=left.__getitem__))
    return path


def _rows(nodes: Sequence[str], columns: Mapping[str, int], main: Sequence[str], onward: Mapping[str, Sequence[str]]) -> Cells:
    cells: Cells = {node: (columns[node], 0) for node in main}
    taken = set(cells.values())
    sources: dict[str, list[str]] = {}
    for node, targets in onward.items():
        for target in targets:
            sources.setdefault(target, []).append(node)
    order = {node: number for number, node in enumerate(nodes)}
    for node in sorted(nodes, key=lambda node: (columns[node], order[node])):
        if node in cells:
            continue
        near = max(1, min((cells[source][1] for source in sources.get(node, ()) if source in cells), default=1))
        free = (row for row in range(1, len(nodes) + 2) if (columns[node], row) not in taken)
        row = min(free, key=lambda row: (abs(row - near), row))
        cells[node] = (columns[node], row)
        taken.add(cells[node])
    return cells
