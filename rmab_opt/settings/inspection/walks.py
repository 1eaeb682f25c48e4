"""The one program of visits: every arm walks from visit to visit, all share the slots.

Beliefs are certain, so what a visit adds depends on the arm's visit before it and on nothing else. An arc enters a cell
(arm, slot) from the arm's start or from an earlier cell of it; its gain is what the visit adds when none follows, and
these gains sum up to exactly what the walk earns over none. Arms that can be visited once only have one arc a cell and
need no flow rows: the program is then the plain one over cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from rmab_opt.settings.inspection.beliefs import BeliefChains
from rmab_opt.settings.inspection.kinds import Rows
from rmab_opt.settings.inspection.longest import LAYERS, NEVER, Longest

__all__ = ["Grid", "Task", "Walks"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells (arm, slot) by rising arm and slot: ``arm`` and ``slot`` int (C,)."""

    arm: np.ndarray
    slot: np.ndarray
    n_arms: int
    n_slots: int

    def __len__(self) -> int:
        return len(self.arm)

    @cached_property
    def place(self) -> np.ndarray:
        """Number of each cell, int (N, T), -1 where there is none."""
        place = np.full((self.n_arms, self.n_slots), -1, dtype=np.int64)
        place[self.arm, self.slot] = np.arange(len(self.arm))
        return place


@dataclass(frozen=True, eq=False)
class Walks:
    """Arcs over some cells.

    ``cell`` (A,) is the cell an arc enters, ``before`` (A,) the one it leaves, -1 for the arm's start. ``flow`` holds
    the rows that make arcs walks, over arcs: none where no arm is visited twice.
    """

    grid: Grid
    cell: np.ndarray
    before: np.ndarray
    flow: Rows

    @classmethod
    def over(cls, task: Task, allowed: np.ndarray) -> Walks:
        """All walks of a task through allowed cells, bool (C,)."""
        grid, most, window = task.grid, task.most, task.window
        inside = np.flatnonzero(allowed)
        arm = grid.arm[inside]
        begin = np.flatnonzero(np.diff(arm, prepend=-1))
        count = np.diff(np.append(begin, len(inside)))
        cell, before = [inside], [np.full(len(inside), -1)]
        several = (most[arm[begin]] > 1) & (count > 1) if len(begin) else np.zeros(0, dtype=bool)
        for size in np.unique(count[several]).tolist():
            first = begin[several & (count == size)]
            later, earlier = np.tril_indices(size, -1)
            head = inside[(first[:, None] + later).ravel()]
            tail = inside[(first[:, None] + earlier).ravel()]
            # An arm of one visit needs no arcs between cells, nor does a window of one.
            far = grid.slot[head] - grid.slot[tail] >= task.apart
            far &= (window[head] < 0) | (window[head] != window[tail])
            cell.append(head[far])
            before.append(tail[far])
        into, out = np.concatenate(cell), np.concatenate(before)
        walking = np.zeros(len(most), dtype=bool)
        walking[arm[begin[several]]] = True
        return cls(grid, into, out, _flow(grid, into, out, walking))

    def entering(self) -> sparse.csr_array:
        """Shape (C, A): which arcs enter each cell."""
        ones = np.ones(len(self.cell))
        return sparse.csr_array((ones, (self.cell, np.arange(len(self.cell)))), shape=(len(self.grid), len(self.cell)))

    def rows(self, rows: Rows) -> Rows:
        """Rows over cells as rows over arcs, with those that make arcs walks."""
        matrix = sparse.csr_array(rows.matrix @ self.entering())
        return Rows(
            sparse.csr_array(sparse.vstack([matrix, self.flow.matrix])),
            np.concatenate([rows.lower, self.flow.lower]),
            np.concatenate([rows.upper, self.flow.upper]),
            [*rows.names, *self.flow.names],
        )


def _flow(grid: Grid, into: np.ndarray, out: np.ndarray, walking: np.ndarray) -> Rows:
    """What leaves a cell has entered it; an arm starts once."""
    n_arcs, arcs = len(into), np.arange(len(into))
    mine = walking[grid.arm[into]]
    start = arcs[mine & (out < 0)]
    inner = arcs[out >= 0]
    left = np.unique(out[inner])
    place = np.full(len(grid), -1)
    place[left] = np.arange(len(left))
    entering = arcs[mine & (place[into] >= 0)]
    balance = sparse.csr_array(
        (
            np.concatenate([np.ones(len(inner)), -np.ones(len(entering))]),
            (np.concatenate([place[out[inner]], place[into[entering]]]), np.concatenate([inner, entering])),
        ),
        shape=(len(left), n_arcs),
    )
    arms, group = np.unique(grid.arm[into[start]], return_inverse=True)
    once = sparse.csr_array((np.ones(len(start)), (group, start)), shape=(len(arms), n_arcs))
    upper = np.concatenate([np.zeros(len(left)), np.ones(len(arms))])
    matrix = sparse.csr_array(sparse.vstack([balance, once]))
    return Rows(matrix, np.full(len(upper), -np.inf), upper, [""] * len(upper))


@dataclass(frozen=True, eq=False)
class Task:
    """Walks to choose: the arms' cells, rows in common, and what walks are worth.

    Parameters
    ----------
    rows
        Over the cells.
    allowed
        Cells that may be entered, bool (C,).
    most
        Visits each arm can get, (N,).
    apart
        Slots between two visits of an arm at least.
    age
        Slots since the last visit at the start of slot ``now``, (N,).
    beyond
        Slots after the last whose beliefs count too.
    table
        (C,): weights in place of what visits gain (published indices); None for gains.
    liking
        (C,): what a visit there is liked more, beside its gain.
    """

    grid: Grid
    rows: Rows
    allowed: np.ndarray
    most: np.ndarray
    chains: BeliefChains
    age: np.ndarray
    now: int = 0
    beyond: int = 0
    apart: int = 1
    table: np.ndarray | None = None
    liking: np.ndarray | None = None

    @cached_property
    def sums(self) -> np.ndarray:
        """Running sums of beliefs, as far as any walk asks."""
        oldest = int(np.minimum(self.age, self.chains.beliefs.shape[1]).max(initial=0))
        return self.chains.sums(oldest + self.grid.n_slots - self.now + self.beyond + 2)

    def weights(self, cell: np.ndarray, before: np.ndarray) -> np.ndarray:
        """What the visit of each arc adds over the walk that ends before it, (A,)."""
        arm, slot = self.grid.arm[cell], self.grid.slot[cell]
        if self.table is not None:
            found = self.table[cell]
        else:
            age = np.minimum(self.age, self.chains.beliefs.shape[1])
            since = np.where(before < 0, age[arm] + slot - self.now + 1, slot - self.grid.slot[before])
            left = self.grid.n_slots - slot + self.beyond
            found = self.sums[arm, left] - self.sums[arm, since + left] + self.sums[arm, since]
        return np.asarray(found if self.liking is None else found + self.liking[cell])

    def worth(self, cells: np.ndarray) -> float | None:
        """What the walks through these cells (rising) weigh, or None where they may not be entered or lie too near."""
        arm = self.grid.arm[cells]
        before = np.where(np.diff(arm, prepend=-1) == 0, np.roll(cells, 1), -1)
        inner = before >= 0
        near = self.grid.slot[cells[inner]] - self.grid.slot[before[inner]] < self.apart
        visits = np.bincount(arm, minlength=self.grid.n_arms)
        if not self.allowed[cells].all() or near.any() or (visits > self.most).any():
            return None
        return float(self.weights(cells, before).sum())

    @cached_property
    def own(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows that count visits of one arm, their arm): (K,), (K,)."""
        matrix = self.rows.matrix
        some = np.flatnonzero(np.diff(matrix.indptr) > 0)
        if not some.size:
            return some, some
        arms, start = self.grid.arm[matrix.indices], matrix.indptr[:-1][some]
        low, high = np.minimum.reduceat(arms, start), np.maximum.reduceat(arms, start)
        ones = (np.minimum.reduceat(matrix.data, start) == 1) & (np.maximum.reduceat(matrix.data, start) == 1)
        mine = (low == high) & ones
        return some[mine], low[mine]

    @cached_property
    def window(self) -> np.ndarray:
        """A row of one arm of which only one cell is taken, by cell, int (C,); -1 where there is none."""
        window = np.full(len(self.grid), -1, dtype=np.int64)
        matrix = self.rows.matrix
        for row in self.own[0][self.rows.upper[self.own[0]] < 2].tolist():
            window[matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]] = row
        return window

    @cached_property
    def totals(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows that say how often one arm is visited in all, bool (R,); visits each arm needs by them, (N,))."""
        matrix, (row, arm) = self.rows.matrix, self.own
        least, total = np.zeros(self.grid.n_arms), np.zeros(matrix.shape[0], dtype=bool)
        inside = np.asarray(matrix[row] @ self.allowed.astype(float))
        owned = np.bincount(self.grid.arm[self.allowed], minlength=self.grid.n_arms)
        mine = (inside == owned[arm]) & (self.most[arm] <= LAYERS)
        total[row[mine]] = True
        np.maximum.at(least, arm[mine], self.rows.lower[row[mine]])
        return total, least

    def priced(self, duals: np.ndarray) -> tuple[float, np.ndarray]:
        """What no choice of walks exceeds, by the rows' prices, and the cells of the arms' best walks at them.

        Parameters
        ----------
        duals
            (R,): any prices give a bound, above zero for upper limits and below for lower ones.

        Notes
        -----
        Rows in common are priced; how often an arm is visited is kept exactly, by layers of visits, up to four.
        """
        rows, (total, _) = self.rows, self.totals
        price = np.where(total, 0.0, duals)
        price = np.where((price > 0) & np.isinf(rows.upper), 0.0, price)
        price = np.where((price < 0) & np.isinf(rows.lower), 0.0, price)
        limit = np.where(price > 0, rows.upper, rows.lower)
        paid = float((price[price != 0] * limit[price != 0]).sum())
        cost = np.append(np.asarray(rows.matrix.T @ price), 0.0)
        best = np.zeros(len(self.grid), dtype=bool)
        for arms, longest in self.longest:
            place = self.cells(arms)
            worth, visits = longest.at(cost[place]).best()
            paid += float(worth.sum())
            best[place[visits]] = True
        return paid, best

    def cells(self, arms: np.ndarray) -> np.ndarray:
        """Number of each cell still open, int (S, n), -1 where there is none."""
        return self.grid.place[arms, self.now :].T

    @cached_property
    def longest(self) -> list[tuple[np.ndarray, Longest]]:
        """(arms, what their walks gain) by the number of visits they can get; arms without a cell are left out."""
        own = np.bincount(self.grid.arm[self.allowed], minlength=self.grid.n_arms) * (self.most >= 1)
        layers = np.minimum(np.where(self.most > LAYERS, LAYERS + 1, self.most), np.minimum(own, LAYERS + 1))
        found = []
        for many in np.unique(layers[own > 0]).tolist():
            arms = np.flatnonzero((layers == many) & (own > 0))
            found.append((arms, self._gains(arms, int(many))))
        return found

    def _gains(self, arms: np.ndarray, many: int) -> Longest:
        place = self.cells(arms)
        inside = (place >= 0) & self.allowed[np.maximum(place, 0)]
        cells, length = place[inside], len(place)
        first, head = np.full(place.shape, NEVER), np.full(place.shape, NEVER)
        first[inside] = self.weights(cells, np.full(len(cells), -1))
        head[inside] = 0.0 if self.liking is None else self.liking[cells]
        between = np.ascontiguousarray(self.sums[arms].T)
        left = length - np.arange(length) + self.beyond
        if self.table is None:
            tail, lead = -between[left], head + between[left]
        else:
            table = np.zeros(place.shape)
            table[inside] = self.table[cells]
            tail, lead, between = np.zeros(place.shape), head + table, np.zeros_like(between)
        return Longest(first, lead, tail, between, self.totals[1][arms], many, self.apart)
