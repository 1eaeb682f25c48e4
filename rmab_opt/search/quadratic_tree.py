"""Branch and bound on columns by quadratics above the network, each node with multipliers of its own.

A node costs what some hundred nodes by lines do, and closes what takes lines many thousands: wide networks go this way.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from rmab_opt.search.node_bounds import Node
from rmab_opt.search.quadratic import Fitted, fit

if TYPE_CHECKING:
    from rmab_opt.search.branch_and_bound import _Search

__all__ = ["close"]

ROOT_STEPS, STEPS = 150, 30
"""Steps of the first fit, and of those that go on from their parent's."""

SHARE = 0.125
"""Of what lines leave open above the incumbent, what the first quadratic may leave at most: where few neurons bend,
lines take less time for the rest."""

OFTEN, SELDOM = 60, 4
"""Nodes at which swaps are tried from where the bound is reached; after them at one in some."""


def close(search: _Search, root: Node) -> tuple[float, str] | None:
    """The largest bound left below one node, and why the search ended; None where lines are left to go on.

    Parameters
    ----------
    search
        Keeps the incumbent, the limits and the record of branches.
    root
        One node that holds all that is open.
    """
    tree, status = _Tree(search), "optimal"
    before = float(root["parent"][0])
    tree.look(root, None)
    if tree.heap and search.best is not None:
        limit = search.cutoff()
        if -tree.heap[0][0] - limit > SHARE * (before - limit):
            search.lid = -tree.heap[0][0]
            return None
    while tree.heap:
        search.top = max(-tree.heap[0][0], search.closed, search.best_value)
        if -tree.heap[0][0] <= search.cutoff():
            search.closed = max(search.closed, -tree.heap[0][0])
            return -np.inf, status
        stopped = search.stopped()
        if stopped is not None:
            return -tree.heap[0][0], stopped
        _, _, node, fitted, column = heapq.heappop(tree.heap)
        first = search.record.add(node["number"], search.columns[column : column + 1])
        for side in (1, 0):
            # What no node of this tree changes is shared: open nodes may be many.
            child = node | {name: node[name].copy() for name in ("low", "up", "lower", "upper")}
            child["low" if side else "up"][0, column] = bool(side)
            child["number"] = first + side
            child["parent"] = np.array([fitted.bound])
            tree.look(child, fitted)
    return -np.inf, status


class _Tree:
    """Open nodes, dearest first."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.heap: list[tuple[float, int, Node, Fitted, int]] = []
        self.count, self.before = 0, search.nodes
        self.climbed: set[bytes] = set()

    def look(self, node: Node, start: Fitted | None) -> None:
        """Bound a node, offer what it suggests, fix columns; keep it when it stays open."""
        search = self.search
        search.nodes += 1
        if not search.bounds.tighten(node, search.cutoff())[0]:
            return
        if not (node["up"] & ~node["low"]).any():
            search.offer(node["low"].astype(np.float64), tries=None)
            return
        steps = ROOT_STEPS if start is None else STEPS
        fitted = fit(search.bounds, node, start, steps, search.cutoff(), lambda: search.stopped() is not None)
        self.suggest(fitted)
        limit, bound = search.cutoff(), min(fitted.bound, float(node["parent"][0]))
        if bound <= limit:
            search.closed = max(search.closed, bound)
            return
        worth = fitted.bound - fitted.loss
        sure = node["up"][0] & ~node["low"][0] & (worth <= limit)
        if sure.any():
            search.closed = max(search.closed, float(worth[sure].max()))
            chosen = fitted.vertex > 0.5
            node["low"][0] |= sure & chosen
            node["up"][0] &= ~(sure & ~chosen)
        free = node["up"][0] & ~node["low"][0]
        if not free.any():
            search.offer(node["low"].astype(np.float64), tries=None)
            return
        x = np.clip(fitted.point, 0.0, 1.0)
        column = int(np.where(free, fitted.cost * x * (1.0 - x) + 1e-12 * (1.0 + x), -1.0).argmax())
        self.count += 1
        heapq.heappush(self.heap, (-bound, self.count, node, fitted, column))

    def suggest(self, fitted: Fitted) -> None:
        """Incumbents from where the bound is reached, improved by swaps: at the first nodes, then now and again."""
        search = self.search
        vertex = np.floor(fitted.vertex + 1e-9)
        search.offer(vertex[None])
        if search.nodes - self.before > OFTEN and search.nodes % SELDOM:
            return
        action = search.repair(np.zeros_like(vertex), fitted.point)
        action = vertex.astype(np.int64) if action is None else action
        if search.best is not None:
            full = search.expand(action)
            name = full.tobytes()
            if name not in self.climbed and search.feasible(full):
                self.climbed.add(name)
                search.polish(full)
