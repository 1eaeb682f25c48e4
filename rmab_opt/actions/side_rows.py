"""Rows over the columns that hold beside routes: counts, quotas of groups, money, least numbers.

Routes are priced stop by stop (:mod:`rmab_opt.actions.labels`); what these rows ask for goes into the gains as prices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

__all__ = ["SideRows", "nested"]

PROGRAM_SECONDS = 1.0
"""Seconds that a choice among columns at hand may take where sorting does not settle it."""


MOST_FOLLOWED = 5_000
"""Choices that are followed side by side where the best one is to be proven."""


@dataclass(frozen=True, eq=False)
class SideRows:
    """``lower <= matrix @ action <= upper`` over columns 0/1.

    Parameters
    ----------
    matrix
        Sparse, (R, C).
    lower, upper
        Limits, (R,), infinite where there is none.
    """

    matrix: sparse.csr_array
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def of(cls, matrix: sparse.csr_array, lower: np.ndarray, upper: np.ndarray) -> SideRows:
        """The rows that some 0/1 vector breaks: counts by ones and whole limits, others with weights near one."""
        matrix = sparse.csr_array(matrix)
        matrix.eliminate_zeros()
        rows, limits = list[sparse.csr_array](), list[tuple[float, float]]()
        for number in range(matrix.shape[0]):
            row = sparse.csr_array(matrix[[number]])
            least, most = float(np.minimum(row.data, 0.0).sum()), float(np.maximum(row.data, 0.0).sum())
            low, high = float(lower[number]), float(upper[number])
            if low <= least and high >= most:
                continue
            weight = float(np.abs(row.data).max()) if len(row.data) else 1.0
            if len(row.data) and (row.data == weight).all():
                row.data, low, high = np.ones(len(row.data)), np.ceil(low / weight), np.floor(high / weight)
            else:
                # A power of two rounds nothing.
                unit = 2.0 ** np.floor(np.log2(weight))
                row.data, low, high = row.data / unit, low / unit, high / unit
            rows.append(row)
            limits.append((low, high))
        ends = np.array(limits, dtype=np.float64).reshape(-1, 2)
        stacked = sparse.vstack(rows) if rows else sparse.csr_array((0, matrix.shape[1]))
        return cls(sparse.csr_array(stacked), ends[:, 0], ends[:, 1])

    @classmethod
    def count(cls, n_columns: int, most: int) -> SideRows:
        """At most so many of all columns."""
        return cls.of(sparse.csr_array(np.ones((1, n_columns))), np.array([-np.inf]), np.array([float(most)]))

    def __len__(self) -> int:
        return len(self.upper)

    def part(self, which: np.ndarray) -> SideRows:
        """Some of the rows, bool (R,)."""
        return SideRows(self.matrix[np.flatnonzero(which)], self.lower[which], self.upper[which])

    def members(self, row: int) -> np.ndarray:
        """Columns of a row."""
        return self.matrix.indices[self.matrix.indptr[row] : self.matrix.indptr[row + 1]]

    @cached_property
    def growing(self) -> np.ndarray:
        """Rows without negative weights or a lower limit: a choice that breaks one breaks it with more, bool (R,)."""
        least = np.ones(len(self))
        np.minimum.at(least, np.repeat(np.arange(len(self)), np.diff(self.matrix.indptr)), self.matrix.data)
        return (least >= 0.0) & (self.lower <= 0.0)

    @cached_property
    def sorts(self) -> bool:
        """Whether taking columns as they fall, as long as there is room, is best: upper counts of nested groups."""
        counts = bool((self.matrix.data == 1.0).all() and self.growing.all() and (self.upper >= 0.0).all())
        return counts and nested([self.members(row) for row in range(len(self))], self.matrix.shape[1])

    def priced(self, price: np.ndarray) -> tuple[np.ndarray, float, float]:
        """(what each column pays (C,), what the limits bring back at most, how much was added up for these).

        A positive price is one of the upper limit, a negative one of the lower; where there is none it counts as zero.
        """
        high, low = np.where(price > 0, price, 0.0), np.where(price < 0, price, 0.0)
        high, low = np.where(np.isfinite(self.upper), high, 0.0), np.where(np.isfinite(self.lower), low, 0.0)
        back = high * np.where(high > 0, self.upper, 0.0) + low * np.where(low < 0, self.lower, 0.0)
        used = high + low
        mass = float(np.abs(back).sum()) + float((abs(self.matrix).T @ np.abs(used)).sum())
        return self.matrix.T @ used, float(back.sum()), mass

    def pulls(self, chosen: np.ndarray, price: np.ndarray) -> np.ndarray:
        """How the priced limit falls with each row's price at a choice, that may hold a column many times (C,)."""
        used = self.matrix @ chosen
        over, under = used - self.upper, used - self.lower
        at_zero = np.where(over > 0, over, np.where(under < 0, under, 0.0))
        return np.where(price > 0, over, np.where(price < 0, under, at_zero))

    def best(self, at_hand: np.ndarray, gain: np.ndarray) -> np.ndarray | None:
        """The best allowed choice among the columns ``at_hand``, int64 (C,); None where none is allowed, or found.

        Exact where :attr:`sorts`; elsewhere by a small program, whose word is not taken for more than a choice.
        """
        chosen = np.zeros(len(gain), dtype=np.int64)
        if self.sorts:
            useful = at_hand[gain[at_hand] > 0]
            useful = useful[np.argsort(-gain[useful], kind="stable")]
            chosen[useful[: int(self.upper[0])] if self._whole else self._greedy(useful)] = 1
            return chosen
        if not len(at_hand):
            return chosen if self.allow(chosen) else None
        from scipy.optimize import Bounds, LinearConstraint, milp

        rows = self.matrix[:, at_hand]
        found = milp(
            -gain[at_hand], integrality=np.ones(len(at_hand)), bounds=Bounds(0.0, 1.0),
            constraints=LinearConstraint(rows, self.lower, self.upper), options={"time_limit": PROGRAM_SECONDS},
        )  # fmt: skip
        if found.x is None:
            return None
        chosen[at_hand[found.x > 0.5]] = 1
        return chosen if self.allow(chosen) else None

    def most(self, at_hand: np.ndarray, gain: np.ndarray, price: np.ndarray, least: float) -> float:
        """What an allowed choice among columns at hand brings at most, or ``least`` where none brings more.

        At prices (R,) every column has a side that is better for it: choices that leave these sides at a loss which
        brings them to ``least`` are not followed. Where too many are left the prices alone say.
        """
        pays, back, _ = self.priced(price)
        over = (gain - pays)[at_hand]
        order = np.argsort(-np.abs(over), kind="stable")
        weights = np.asarray(self.matrix[:, at_hand].toarray().T, dtype=np.float64)
        bound = float(np.maximum(over, 0.0).sum()) + back
        left, value, used = np.array([bound]), np.zeros(1), np.zeros((1, len(self)))
        for k in order.tolist():
            loss, own = abs(float(over[k])), over[k] > 0
            # The better side first, then the other, for whoever can afford it.
            other = np.flatnonzero(left - loss > least)
            taken, free = (np.arange(len(left)), other) if own else (other, np.arange(len(left)))
            lost = np.concatenate([left[taken] - (0.0 if own else loss), left[free] - (loss if own else 0.0)])
            value = np.concatenate([value[taken] + gain[at_hand[k]], value[free]])
            used = np.concatenate([used[taken] + weights[k], used[free]])
            fits = (used <= self.upper)[:, self.growing].all(axis=1)
            left, value, used = lost[fits], value[fits], used[fits]
            if len(left) > MOST_FOLLOWED:
                return bound
        value = value[((used >= self.lower) & (used <= self.upper)).all(axis=1)]
        return max(least, float(value.max(initial=-np.inf)))

    def allow(self, action: np.ndarray) -> bool:
        """Whether an action (C,) is within the limits."""
        used = self.matrix @ action.astype(np.float64)
        return bool(((used >= self.lower) & (used <= self.upper)).all())

    @cached_property
    def _whole(self) -> bool:
        """Whether one count over all columns is all there is."""
        return len(self) == 1 and self.matrix.nnz == self.matrix.shape[1]

    @cached_property
    def _of_column(self) -> sparse.csc_array:
        return sparse.csc_array(self.matrix)

    def _greedy(self, falling: np.ndarray) -> list[int]:
        """Columns taken in order while every row has room."""
        pointer, row, room = self._of_column.indptr, self._of_column.indices, self.upper.copy()
        taken = []
        for column in falling.tolist():
            own = row[pointer[column] : pointer[column + 1]]
            if (room[own] >= 1.0).all():
                room[own] -= 1.0
                taken.append(column)
        return taken


def nested(members: list[np.ndarray], n: int) -> bool:
    """Whether any two of the sets are disjoint or one holds the other.

    Laid from the largest to the smallest, each set must lie within one of those that cover its members last.
    """
    last = np.full(n, -1)
    members = [own for own in members if len(own)]
    for i in sorted(range(len(members)), key=lambda i: -len(members[i])):
        if (last[members[i]] != last[members[i][0]]).any():
            return False
        last[members[i]] = i
    return True
