"""A polytope read from its rows: bounds, counts, weighted rows, disjoint families, and assignments to units.

The one place where rows are read. An action set (:mod:`rmab_opt.actions.shape`), a network's inputs
(:mod:`rmab_opt.encoder`) and the search (:mod:`rmab_opt.search`) all ask it; it knows arrays only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.solver.program import Program

__all__ = ["Polytope", "Row", "row_reach"]

Floats = NDArray[np.float64]

SORT_AT_ONCE = 4_000_000
"""Entries sorted in one piece: keeps the temporary arrays of wide sets below some hundred megabytes."""

ROW_SLACK = 1e-6
"""How far a weighted row is opened, relative to its limit: what solvers and checkers let pass must stay inside."""


@dataclass(frozen=True, eq=False)
class Row:
    """lower <= weight . x[members] <= upper after x = low + span * y with 0 <= y <= 1 and weight >= 0 in y."""

    members: np.ndarray
    weight: Floats
    lower: float
    upper: float
    counts: bool
    """All weights equal 1 and limits whole: the optimum takes whole entries."""


class Polytope:
    """lower <= x <= upper with row_lower <= matrix @ x <= row_upper, and what its rows are.

    Rows with disjoint members are maximised together exactly, each by sorting (a count: the largest entries; a
    weighted row: by value per weight). Where rows overlap, the value is the least over families of disjoint rows,
    which is valid but may be larger than the polytope's.

    Parameters
    ----------
    lower, upper
        Shape (n,), finite.
    matrix, row_lower, row_upper
        Rows over the inputs, shape (m, n), (m,), (m,).
    program
        The set with its auxiliary variables, from which assignments are read; its first n columns are the inputs.
    columns
        Where the inputs stand in the program.
    whole
        Whether inputs take whole values only: limits of counts are then rounded inwards.
    names
        What messages call the inputs.

    Raises
    ------
    ModelError
        When a bound is missing or infinite; names the input.
    """

    def __init__(
        self,
        lower: ArrayLike,
        upper: ArrayLike,
        matrix: Any = None,
        row_lower: ArrayLike = (),
        row_upper: ArrayLike = (),
        *,
        program: Program | None = None,
        columns: np.ndarray | None = None,
        whole: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        low, high = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
        if low.ndim != 1 or low.shape != high.shape:
            raise ModelError(f"bounds have shapes {low.shape} and {high.shape}", "give one of each an input.")
        bad = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))
        if bad.size:
            i = int(bad[0])
            name = names[i] if len(names) else f"input {i}"
            raise ModelError(
                f"{name} has bounds [{low[i]:g}, {high[i]:g}]",
                "give every input finite bounds: no indicator row is exact without them.",
            )
        bad = np.flatnonzero(low > high)
        if bad.size:
            i = int(bad[0])
            raise ModelError(
                f"{names[i] if len(names) else f'input {i}'} has bounds [{low[i]:g}, {high[i]:g}]",
                "give lower <= upper.",
            )
        self.n = len(low)
        self.matrix = sparse.csr_array((0, self.n)) if matrix is None else sparse.csr_array(matrix, dtype=np.float64)
        self.matrix.sum_duplicates()
        self.matrix.eliminate_zeros()
        self.row_lower, self.row_upper = np.array(row_lower, dtype=float), np.array(row_upper, dtype=float)
        if self.matrix.shape != (self.row_lower.size, self.n) or self.row_lower.shape != self.row_upper.shape:
            raise ModelError(
                f"the rows' matrix has shape {self.matrix.shape}, limits {self.row_lower.shape} and "
                f"{self.row_upper.shape}, inputs {self.n}",
                "give matrix (m, n) and limits (m,).",
            )
        self.lower, self.upper = low, high
        """Shape (n,), tightened by rows that hold one input only."""
        self._program, self._columns, self._whole = program, columns, whole
        self.rows = self._read_rows()
        """Rows that bind, over the free inputs in their unit box; negative weights count the reflected input."""
        self.rows += self._implied()
        self.families = self._group()
        """Families of disjoint rows; each is maximised exactly."""

    @classmethod
    def from_program(cls, program: Program, columns: np.ndarray, *, names: Sequence[str] = ()) -> Self:
        """From the rows of a program that is compiled already, all of which hold; ``columns`` are the inputs.

        Where a session is at hand: ``from_program(session.program, session.index(model.act))``. The rows must not
        depend on Params that change later.

        Raises
        ------
        ModelError
            When an input has no finite bounds; names it.
        """
        columns = np.asarray(columns, dtype=np.int64)
        n, n_columns = len(columns), len(program.cost)
        others = np.setdiff1d(np.arange(n_columns), columns)
        order = np.concatenate([columns, others])
        matrix = program.matrix if (order == np.arange(n_columns)).all() else program.matrix[:, order]
        own = np.ones(matrix.shape[0], dtype=bool)
        own[sparse.csc_array(matrix[:, n:]).indices] = False
        relaxed = Program(
            cost=np.zeros(n_columns),
            matrix=matrix,
            row_lower=program.row_lower,
            row_upper=program.row_upper,
            lower=program.lower[order],
            upper=program.upper[order],
            integer=np.zeros(n_columns, dtype=bool),
            maximise=True,
        )
        return cls(
            relaxed.lower[:n],
            relaxed.upper[:n],
            matrix[own][:, :n],
            program.row_lower[own],
            program.row_upper[own],
            program=relaxed,
            columns=np.arange(n),
            whole=bool(program.integer[columns].all()),
            names=names,
        )

    # ---- structure
    def _read_rows(self) -> list[Row]:
        """Rows in the unit box; single-input rows tighten the bounds first, rows that never bind are dropped."""
        keep = []
        matrix = self.matrix
        for i in range(matrix.shape[0]):
            part = slice(matrix.indptr[i], matrix.indptr[i + 1])
            members, weight = matrix.indices[part], matrix.data[part]
            if len(members) != 1:
                keep.append((members, weight, i))
                continue
            j, w = int(members[0]), float(weight[0])
            ends = sorted((self.row_lower[i] / w, self.row_upper[i] / w))
            ends = [ends[0] - ROW_SLACK * max(1.0, abs(ends[0])), ends[1] + ROW_SLACK * max(1.0, abs(ends[1]))]
            if self._whole:
                ends = [np.ceil(ends[0]), np.floor(ends[1])]
            low, high = max(self.lower[j], ends[0]), min(self.upper[j], ends[1])
            if low <= high:
                # An empty interval means an empty set, over which every bound holds: the row is left to the solver.
                self.lower[j], self.upper[j] = low, high
        span = self.upper - self.lower
        rows = []
        for members, weight, i in keep:
            free = (span[members] > 0) & (weight != 0)
            base = float(weight @ np.where(weight > 0, self.lower[members], self.upper[members]))
            w = np.abs(weight[free]) * span[members][free]
            low, high = float(self.row_lower[i]) - base, float(self.row_upper[i]) - base
            total = float(w.sum())
            slack = 1e-9 * max(1.0, abs(base), total)
            if not w.size or (low <= slack and high >= total - slack) or high < -slack or low > total + slack:
                continue
            plain = bool((weight[free] > 0).all() and np.ptp(w) <= 1e-12 * w[0])
            # Each limit by its own size, as every check does: a large upper one must not drown a small lower one.
            low, high = max(low - _opening(self.row_lower[i]), 0.0), min(high + _opening(self.row_upper[i]), total)
            counts = plain and self._whole and bool((span[members[free]] == 1).all())
            if counts:
                # Whole inputs: what lies between two whole counts is not reached.
                low, high = float(np.ceil(low / w[0] - ROW_SLACK)), float(np.floor(high / w[0] + ROW_SLACK))
                w = np.ones_like(w)
            signed = np.where(weight[free] > 0, 1.0, -1.0)
            rows.append(Row(members[free], w * signed, low, high, counts))
        return rows

    def _implied(self) -> list[Row]:
        """Rows that assignments imply for the inputs alone: loads within all capacities together.

        Inputs without any unit to use are closed.
        """
        rows = []
        for load, need, capacity in self.assignments:
            fewest = load.min(axis=1)
            least = np.where(need > 0, np.where(np.isfinite(fewest), fewest, 0.0) * need, 0.0)
            closed = (need > 0) & ~np.isfinite(fewest)
            if (self.lower[closed] <= 0).all():
                self.upper[closed] = 0.0
            members = np.flatnonzero((need > 0) & ~closed & (self.upper - self.lower == 1) & (least > 0))
            weight, limit = least[members], float(capacity.sum())
            base = float(least @ (self.lower > 0))
            if members.size < 2 or weight.sum() <= limit - base:
                continue
            limit = limit - base + ROW_SLACK * max(1.0, limit)
            counts = self._whole and bool(np.ptp(weight) <= 1e-12 * weight[0])
            if counts:
                limit, weight = float(np.floor(limit / weight[0])), np.ones_like(weight)
            if limit >= 0:
                rows.append(Row(members, weight, 0.0, limit, counts))
        return rows

    def _group(self) -> list[list[Row]]:
        """Disjoint families covering all rows, widest rows first so that partitions stay together."""
        families: list[tuple[np.ndarray, list[Row]]] = []
        for row in sorted(self.rows, key=lambda row: -len(row.members)):
            for taken, family in families:
                if not taken[row.members].any():
                    taken[row.members] = True
                    family.append(row)
                    break
            else:
                taken = np.zeros(self.n, dtype=bool)
                taken[row.members] = True
                families.append((taken, [row]))
        return [family for _, family in families] or [[]]

    @cached_property
    def assignments(self) -> list[tuple[Floats, Floats, Floats]]:
        """Auxiliary variables that assign inputs to units with capacities: (load (n, units), need (n,), capacity).

        Read from rows ``sum of y = need * input`` and ``sum of load * y <= capacity``, where each y stands in one row
        of the first kind. Load is infinite where an input has no y for the unit, per unit of need. Other rows with
        auxiliary variables are left out, so this is a relaxation.
        """
        return [] if self._program is None else _assignments(self._program, self.n)

    @property
    def exact(self) -> bool:
        """Whether the sorted form is the polytope's own support function: no overlapping rows, no auxiliary ones."""
        return len(self.families) == 1 and not self._has_auxiliary

    @property
    def integral(self) -> bool:
        """Whether maximisers are whole (for whole bounds) and satisfy every row: counts over disjoint groups."""
        whole = bool((self.lower == np.round(self.lower)).all() and (self.upper - self.lower <= 1).all())
        return self.exact and whole and all(row.counts for row in self.rows)

    @property
    def _has_auxiliary(self) -> bool:
        return self._program is not None and self._program.matrix.shape[0] > self.matrix.shape[0]

    # ---- maximising
    def values(self, cost: Any) -> Floats:
        """Maxima of cost (m, n) @ x by sorting, without the points; sparse costs are taken piece by piece; (m,)."""
        step = max(1, SORT_AT_ONCE // max(1, self.n))
        m = cost.shape[0]
        if m > step or sparse.issparse(cost):
            parts = [cost[first : first + step] for first in range(0, m, step)]
            pieces = [self.values(part.toarray() if sparse.issparse(part) else part) for part in parts]
            return np.concatenate(pieces) if pieces else np.zeros(0)
        found = np.full(m, np.inf)
        for family in self.families:
            if all(row.counts and row.lower == 0 for row in family):
                found = np.minimum(found, self._counted(cost, family))
            else:
                found = np.minimum(found, self._family(cost, family)[0])
        return found

    def _counted(self, cost: Floats, family: list[Row]) -> Floats:
        """Maxima under upper limits of counts: the largest positive entries, without ordering them."""
        gain = np.maximum(cost * (self.upper - self.lower), 0.0)
        total = cost @ self.lower + gain.sum(axis=1)
        for row in family:
            own, most = gain[:, row.members], int(row.upper)
            rest = own.shape[1] - most
            if rest > 0:
                # What stays out: all but the `most` largest.
                total -= np.partition(own, rest - 1, axis=1)[:, :rest].sum(axis=1)
        return total

    @cached_property
    def sorted_and_priced(self) -> tuple[list[Row], Floats, Floats, Floats]:
        """(rows of the first family with positive weights, the other rows (r, n), their lower and upper limits).

        The first are disjoint and maximised exactly by sorting; the others want a price each. Limits are those of the
        unit box over free inputs; inputs fixed by the bounds carry no weight there.
        """
        family = {id(row) for row in self.families[0] if (row.weight > 0).all()}
        others = [row for row in self.rows if id(row) not in family]
        matrix = np.zeros((len(others), self.n))
        for i, row in enumerate(others):
            matrix[i, row.members] = row.weight
        shift = np.minimum(matrix, 0.0).sum(axis=1)
        lower, upper = (np.array([getattr(row, side) for row in others]) + shift for side in ("lower", "upper"))
        return [row for row in self.rows if id(row) in family], matrix, lower, upper

    def maxima(self, cost: Floats) -> tuple[Floats, Floats]:
        """Maxima of cost (m, n) @ x by sorting, (m,), and where the relaxation that gave each attains it, (m, n)."""
        values = np.full(len(cost), np.inf)
        points = np.empty_like(cost)
        step = max(1, SORT_AT_ONCE // max(1, self.n))
        for first in range(0, len(cost), step):
            part = slice(first, first + step)
            for family in self.families:
                found, at = self._family(cost[part], family)
                better = found < values[part]
                values[part][better] = found[better]
                points[part][better] = at[better]
        return values, points

    def _family(self, cost: Floats, family: list[Row]) -> tuple[Floats, Floats]:
        """Box maximisers, corrected row by row."""
        span = self.upper - self.lower
        gain = cost * span
        share = (gain > 0).astype(np.float64)
        for row in family:
            share[:, row.members] = _fill(gain[:, row.members], row)
        return cost @ self.lower + np.einsum("mn,mn->m", gain, share), self.lower + span * share


def _fill(gain: Floats, row: Row) -> Floats:
    """Shares y in [0, 1] that maximise gain . y with the row's sum within its limits; gain (m, k)."""
    # A negative weight is a positive one of the reflected share 1 - y.
    down = row.weight < 0
    weight = np.abs(row.weight)
    reflected = np.where(down, -gain, gain) if down.any() else gain
    wanted = (reflected > 0).astype(np.float64)
    used = wanted @ weight
    target = np.clip(used, row.lower, row.upper)
    off = np.flatnonzero(np.abs(target - used) > 1e-12 * max(1.0, row.upper))
    if off.size:
        wanted[off] = _by_ratio(reflected[off], weight, target[off])
    if down.any():
        wanted = np.where(down, 1.0 - wanted, wanted)
    return wanted


def _by_ratio(gain: Floats, weight: Floats, target: Floats) -> Floats:
    """Fill up to ``target`` (m,) of weight, best gain per weight first; shares (m, k)."""
    order = np.argsort(-(gain / weight), axis=1, kind="stable")
    ordered = weight[order]
    before = np.cumsum(ordered, axis=1) - ordered
    filled = np.clip((target[:, None] - before) / ordered, 0.0, 1.0)
    shares = np.empty_like(filled)
    np.put_along_axis(shares, order, filled, axis=1)
    return shares


def _assignments(program: Program, n: int) -> list[tuple[Floats, Floats, Floats]]:
    matrix = sparse.csr_array(program.matrix)
    n_columns = matrix.shape[1]
    owner = np.full(n_columns, -1)
    need = np.zeros(n)
    limits: list[tuple[np.ndarray, Floats, float]] = []
    for i in range(matrix.shape[0]):
        part = slice(matrix.indptr[i], matrix.indptr[i + 1])
        members, weight = matrix.indices[part], matrix.data[part]
        ours = members < n
        others = members[~ours]
        if not others.size or (program.lower[others] < 0).any():
            continue
        low, high = program.row_lower[i], program.row_upper[i]
        if ours.sum() == 1 and low == high == 0:
            # sum of y = need * input, written with either sign
            sign = -np.sign(weight[ours][0])
            amounts = weight[~ours] * sign
            if (amounts == amounts[0]).all() and amounts[0] > 0 and (owner[others] < 0).all():
                c = int(members[ours][0])
                if need[c] == 0:
                    owner[others] = c
                    need[c] = abs(weight[ours][0]) / amounts[0]
        elif not ours.any() and np.isfinite(high) and (weight > 0).all():
            limits.append((members, weight, float(high)))
    units = [(m, w, high) for m, w, high in limits if (owner[m] >= 0).any()]
    if not units or not (need > 0).any():
        return []
    load = np.full((n, len(units)), np.inf)
    seen = np.zeros(n_columns, dtype=np.int64)
    for u, (members, weight, _) in enumerate(units):
        inside = owner[members] >= 0
        at = owner[members[inside]]
        if len(np.unique(at)) < len(at):
            # Two ways of one input to the same unit: the cheaper one counts, which relaxes.
            order = np.argsort(-weight[inside], kind="stable")
            load[at[order], u] = weight[inside][order]
        else:
            load[at, u] = weight[inside]
        seen[members] += 1
    free = (owner >= 0) & (seen == 0)
    # An input with a way outside every unit, or a y in several units, is not priced.
    loose = np.zeros(n, dtype=bool)
    loose[owner[free]] = True
    loose[owner[(owner >= 0) & (seen > 1)]] = True
    need = np.where(loose, 0.0, need)
    return [(load, need, np.array([high for _, _, high in units]))] if (need > 0).any() else []


def _opening(limit: float) -> float:
    """How far a row's limit is opened."""
    return ROW_SLACK * max(1.0, abs(limit) if np.isfinite(limit) else 0.0)


def row_reach(matrix: Any, owner: np.ndarray) -> tuple[Floats, Floats]:
    """Smallest and largest value of each row when at most one column of each owner is chosen; two arrays (m,).

    ``owner`` holds one number a column, (n,): the arm that its column acts on.
    """
    entries = sparse.coo_array(matrix)
    row, column = entries.coords
    width = int(owner.max(initial=0)) + 1
    pair, where = np.unique(row.astype(np.int64) * width + owner[column], return_inverse=True)
    low, high = np.zeros(pair.size), np.zeros(pair.size)
    np.minimum.at(low, where, entries.data)
    np.maximum.at(high, where, entries.data)
    rows = pair // width
    n_rows = entries.shape[0]
    return np.bincount(rows, low, n_rows).astype(np.float64), np.bincount(rows, high, n_rows).astype(np.float64)
