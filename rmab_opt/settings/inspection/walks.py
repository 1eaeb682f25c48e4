"""The one program of visits: every arm walks from visit to visit, all share the slots.

Beliefs are certain, so what a visit adds depends on the arm's visit before it and on nothing else. An arc enters a cell
(arm, slot) from the arm's start or from an earlier cell of it; its gain is what the visit adds when none follows, and
these gains sum up to exactly what the walk earns over none. Arms that can be visited once only have one arc a cell and
need no flow rows: the program is then the plain one over cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.settings.inspection.beliefs import BeliefChains
from rmab_opt.settings.inspection.kinds import Rows, VisitColumns

__all__ = ["Walks"]


@dataclass(frozen=True, eq=False)
class Walks:
    """Arcs over the cells of some columns.

    ``cell`` (A,) is the cell an arc enters, ``before`` (A,) the one it leaves, -1 for the arm's start. ``flow`` holds
    the rows that make arcs walks, over arcs: none where no arm is visited twice.
    """

    columns: VisitColumns
    cell: np.ndarray
    before: np.ndarray
    flow: Rows

    @classmethod
    def over(cls, columns: VisitColumns, allowed: np.ndarray, most: np.ndarray, apart: int = 1) -> Walks:
        """All walks through allowed cells.

        Parameters
        ----------
        allowed
            Cells a walk may enter, bool (C,).
        most
            Visits each arm can get, (N,): an arm of one needs no arcs between cells.
        apart
            Slots between two visits of an arm at least; 1 for neighbours.
        """
        inside = np.flatnonzero(allowed)
        arm = columns.arm[inside]
        begin = np.flatnonzero(np.diff(arm, prepend=-1))
        count = np.diff(np.append(begin, len(inside)))
        cell, before = [inside], [np.full(len(inside), -1)]
        several = (most[arm[begin]] > 1) & (count > 1) if len(begin) else np.zeros(0, dtype=bool)
        for size in np.unique(count[several]).tolist():
            first = begin[several & (count == size)]
            later, earlier = np.tril_indices(size, -1)
            head = inside[(first[:, None] + later).ravel()]
            tail = inside[(first[:, None] + earlier).ravel()]
            far = columns.slot[head] - columns.slot[tail] >= apart
            cell.append(head[far])
            before.append(tail[far])
        into, out = np.concatenate(cell), np.concatenate(before)
        walking = np.zeros(len(most), dtype=bool)
        walking[arm[begin[several]]] = True
        return cls(columns, into, out, _flow(columns, into, out, walking))

    def gains(self, chains: BeliefChains, age: np.ndarray, now: int, beyond: int) -> np.ndarray:
        """What each arc's visit adds over the walk that ends before it, (A,).

        Parameters
        ----------
        age
            Slots since the last visit at the start of slot ``now``, (N,).
        beyond
            Slots after the period whose beliefs count too.
        """
        arm, slot = self.columns.arm[self.cell], self.columns.slot[self.cell]
        age = np.minimum(age, chains.beliefs.shape[1])
        since = np.where(self.before < 0, age[arm] + slot - now + 1, slot - self.columns.slot[self.before])
        left = self.columns.n_slots - slot + beyond
        sums = chains.sums(int((since + left).max(initial=0)) + 1)
        return np.asarray(sums[arm, left] - sums[arm, since + left] + sums[arm, since])

    def entering(self) -> sparse.csr_array:
        """Shape (C, A): which arcs enter each cell."""
        ones = np.ones(len(self.cell))
        return sparse.csr_array(
            (ones, (self.cell, np.arange(len(self.cell)))), shape=(len(self.columns), len(self.cell))
        )

    def rows(self, rows: Rows) -> Rows:
        """Rows over cells as rows over arcs, with those that make arcs walks."""
        matrix = sparse.csr_array(rows.matrix @ self.entering())
        return Rows(
            sparse.csr_array(sparse.vstack([matrix, self.flow.matrix])),
            np.concatenate([rows.lower, self.flow.lower]),
            np.concatenate([rows.upper, self.flow.upper]),
            [*rows.names, *self.flow.names],
        )


def _flow(columns: VisitColumns, into: np.ndarray, out: np.ndarray, walking: np.ndarray) -> Rows:
    """What leaves a cell has entered it; an arm starts once."""
    n_arcs, arcs = len(into), np.arange(len(into))
    mine = walking[columns.arm[into]]
    start = arcs[mine & (out < 0)]
    inner = arcs[out >= 0]
    left = np.unique(out[inner])
    place = np.full(len(columns), -1)
    place[left] = np.arange(len(left))
    entering = arcs[mine & (place[into] >= 0)]
    balance = sparse.csr_array(
        (
            np.concatenate([np.ones(len(inner)), -np.ones(len(entering))]),
            (np.concatenate([place[out[inner]], place[into[entering]]]), np.concatenate([inner, entering])),
        ),
        shape=(len(left), n_arcs),
    )
    arms, group = np.unique(columns.arm[into[start]], return_inverse=True)
    once = sparse.csr_array((np.ones(len(start)), (group, start)), shape=(len(arms), n_arcs))
    upper = np.concatenate([np.zeros(len(left)), np.ones(len(arms))])
    matrix = sparse.csr_array(sparse.vstack([balance, once]))
    return Rows(matrix, np.full(len(upper), -np.inf), upper, [""] * len(upper))
