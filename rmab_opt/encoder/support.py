"""The largest value of many linear functions at once over the polytope of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmab_opt.errors import ModelError, SolverError
from rmab_opt.solver import Program, Session

__all__ = ["Maxima", "Support"]

Floats = NDArray[np.float64]

SORT_AT_ONCE = 4_000_000
"""Entries sorted in one piece: keeps the temporary arrays of wide sets below some hundred megabytes."""

ROW_SLACK = 1e-6
"""How far a weighted row is opened, relative to its limit: what solvers and checkers let pass must stay inside."""

LP_SAFETY = 1e-6
"""Added to LP optima, relative to max(1, |value|): HiGHS's own tolerances, so that bounds stay bounds."""


class Maxima(NamedTuple):
    """h(c) = max c . x for several c."""

    values: Floats
    """Shape (m,)."""
    points: Floats
    """Shape (m, n), where the maximum is attained in the relaxation that gave the value."""


@dataclass(frozen=True, eq=False)
class Row:
    """lower <= weight . x[members] <= upper after x = low + span * y with 0 <= y <= 1 and weight >= 0 in y."""

    members: np.ndarray
    weight: Floats
    lower: float
    upper: float
    counts: bool
    """All weights equal 1 and limits whole: the optimum takes whole entries."""


class Support:
    """Support function h(c) = max c . x over a polytope of inputs, for many c at once.

    The polytope is lower <= x <= upper with row_lower <= matrix @ x <= row_upper. Rows with disjoint members
    are maximised together exactly, each by sorting (a count: the largest entries; a weighted row: by value per
    weight). Where rows overlap, the value is the least over families of disjoint rows, which is valid but may be
    larger than the polytope's; ``effort="lp"`` asks HiGHS.

    Parameters
    ----------
    lower, upper
        Shape (n,), finite.
    matrix, row_lower, row_upper
        Rows over the inputs, shape (m, n), (m,), (m,).
    program
        The set with its auxiliary variables, for ``effort="lp"``; ``columns`` says where the inputs stand in it.
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
        self._memo: tuple[Any, tuple[Floats, Floats], Floats] | None = None
        self.rows = self._read_rows()
        """Rows that bind, over the free inputs in their unit box; negative weights count the reflected input."""
        self.rows += self._implied()
        self.families = self._group()
        """Families of disjoint rows; each is maximised exactly."""

    @classmethod
    def box(cls, lower: ArrayLike, upper: ArrayLike) -> Support:
        """Bounds only."""
        return cls(lower, upper)

    @classmethod
    def from_rows(
        cls,
        matrix: Any,
        row_lower: ArrayLike,
        row_upper: ArrayLike,
        lower: ArrayLike = 0.0,
        upper: ArrayLike = 1.0,
        *,
        whole: bool = True,
    ) -> Support:
        """From rows over the inputs, 0/1 by default."""
        n = matrix.shape[1]
        return cls(np.broadcast_to(lower, n), np.broadcast_to(upper, n), matrix, row_lower, row_upper, whole=whole)

    @classmethod
    def from_model(cls, model: Any, inputs: Sequence[Any]) -> Support:
        """From the active linear constraints of a Pyomo model that hold for its variables ``inputs``.

        Rows with other variables count in the LP form only. Rows that are not linear, or whose numbers hang on
        mutable Params and so may change later, are left out; fixed variables count by their bounds. So the
        bounds found stay valid when Params are changed and variables are fixed or released.

        Raises
        ------
        ModelError
            When an input has no finite bounds; names it.
        """
        import pyomo.environ as pyo
        from pyomo.core.expr import identify_mutable_parameters
        from pyomo.repn import generate_standard_repn

        variables = list(inputs)
        position = {id(variable): i for i, variable in enumerate(variables)}
        if len(position) != len(variables):
            raise ModelError("an input stands twice in the list", "give each input variable once.")
        n = len(variables)
        entries: list[tuple[int, int, float]] = []
        limits: list[tuple[float, float]] = []
        others: list[Any] = []
        fixed = [v for v in model.component_data_objects(pyo.Var, descend_into=True) if v.fixed]
        try:
            for variable in fixed:
                variable.fixed = False
            for row in model.component_data_objects(pyo.Constraint, active=True, descend_into=True):
                if any(True for _ in identify_mutable_parameters(row.expr)):
                    continue
                terms = generate_standard_repn(row.body, quadratic=False)
                if terms.nonlinear_expr is not None or not terms.linear_vars:
                    continue
                low = -np.inf if row.lower is None else float(pyo.value(row.lower)) - float(terms.constant)
                high = np.inf if row.upper is None else float(pyo.value(row.upper)) - float(terms.constant)
                for variable, coefficient in zip(terms.linear_vars, terms.linear_coefs, strict=True):
                    if id(variable) not in position:
                        position[id(variable)] = n + len(others)
                        others.append(variable)
                    entries.append((len(limits), position[id(variable)], float(coefficient)))
                limits.append((low, high))
        finally:
            for variable in fixed:
                variable.fixed = True
        everyone = [*variables, *others]
        bounds = np.array(
            [[-np.inf if v.lb is None else v.lb, np.inf if v.ub is None else v.ub] for v in everyone], dtype=float
        ).reshape(-1, 2)
        at = np.array([e[:2] for e in entries], dtype=np.int64).reshape(-1, 2)
        matrix = sparse.csr_array(
            (np.array([e[2] for e in entries]), (at[:, 0], at[:, 1])), shape=(len(limits), len(everyone))
        )
        sides = np.array(limits, dtype=float).reshape(-1, 2)
        program = Program(
            cost=np.zeros(len(everyone)),
            matrix=matrix,
            row_lower=sides[:, 0],
            row_upper=sides[:, 1],
            lower=bounds[:, 0],
            upper=bounds[:, 1],
            integer=np.array([variable.is_integer() for variable in everyone], dtype=bool),
        )
        return cls.from_program(program, np.arange(n), names=[variable.name for variable in variables])

    @classmethod
    def from_program(cls, program: Program, columns: np.ndarray, *, names: Sequence[str] = ()) -> Support:
        """From the rows of a program that is compiled already, all of which hold; ``columns`` are the inputs.

        Much cheaper than :meth:`from_model` where a session is at hand: ``from_program(session.program,
        session.index(model.act))``. The rows must not depend on Params that change later.

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
            opened = ROW_SLACK * max(
                1.0, abs(low) if np.isfinite(low) else 0.0, abs(high) if np.isfinite(high) else 0.0
            )
            low, high = max(low - opened, 0.0), min(high + opened, total)
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

    def both(self, weight: Any) -> tuple[Floats, Floats]:
        """Largest and least value of every row of a weight (m, n) over the set, by sorting; kept for the next call.

        States of one network share the first layer's weight and differ in its bias.
        """
        return self._told(weight)[1]

    def _told(self, weight: Any) -> tuple[Any, tuple[Floats, Floats], Floats]:
        """(the weight asked for last, its values by sorting, by HiGHS where known)."""
        # Taken and put back whole, so that threads may share a support.
        memo = self._memo
        if memo is None or not _same(memo[0], weight):
            unknown = np.full((2, weight.shape[0]), np.nan)
            memo = self._memo = (weight, (self.values(weight), -self.values(-weight)), unknown)
        return memo

    def both_by_lp(self, weight: Any, at: np.ndarray) -> tuple[Floats, Floats, int]:
        """The same of rows ``at`` by HiGHS, and how many LPs were new: never looser than :meth:`both`."""
        _, both, known = self._told(weight)
        new = at[np.isnan(known[1, at])]
        for side, sign in ((0, 1.0), (1, -1.0)):
            for i in new.tolist():
                row = weight[[i]].toarray()[0] if sparse.issparse(weight) else weight[i]
                value = sign * self._lp(sign * row)[0]
                known[side, i] = min(both[0][i], value) if side == 0 else max(both[1][i], value)
        return known[0, at], known[1, at], 2 * len(new)

    def __call__(self, cost: ArrayLike, effort: str = "rows") -> Maxima:
        """Maxima of cost (m, n) @ x; ``effort`` is ``rows`` (sorting) or ``lp`` (HiGHS, warm-started, never worse)."""
        c = np.atleast_2d(np.asarray(cost, dtype=np.float64))
        values = np.full(len(c), np.inf)
        points = np.empty_like(c)
        step = max(1, SORT_AT_ONCE // max(1, self.n))
        for first in range(0, len(c), step):
            part = slice(first, first + step)
            for family in self.families:
                found, at = self._family(c[part], family)
                better = found < values[part]
                values[part][better] = found[better]
                points[part][better] = at[better]
        if effort == "lp" and not self.exact:
            for i in range(len(c)):
                value, point = self._lp(c[i])
                if value < values[i]:
                    values[i], points[i] = value, point
        elif effort not in ("rows", "lp"):
            raise ModelError(f"effort of a support function is {effort!r}", "use 'rows' or 'lp'.")
        return Maxima(values, points)

    def _family(self, cost: Floats, family: list[Row]) -> tuple[Floats, Floats]:
        """Box maximisers, corrected row by row."""
        span = self.upper - self.lower
        gain = cost * span
        share = (gain > 0).astype(np.float64)
        for row in family:
            share[:, row.members] = _fill(gain[:, row.members], row)
        return cost @ self.lower + np.einsum("mn,mn->m", gain, share), self.lower + span * share

    @cached_property
    def _session(self) -> Session:
        program = self._program
        if program is None:
            program = Program(
                cost=np.zeros(self.n),
                matrix=self.matrix,
                row_lower=self.row_lower,
                row_upper=self.row_upper,
                lower=self.lower,
                upper=self.upper,
                integer=np.zeros(self.n, dtype=bool),
                maximise=True,
            )
        return Session.from_arrays(program, "fast")

    def program(self) -> tuple[Program, np.ndarray]:
        """The polytope as a linear program without costs, auxiliary variables included, and the inputs' columns."""
        return self._session.program, np.arange(self.n) if self._columns is None else self._columns

    def _lp(self, cost: Floats) -> tuple[float, Floats]:
        session = self._session
        columns = np.arange(self.n) if self._columns is None else self._columns
        session.set_cost(columns, cost)
        result = session.solve()
        if result.status in ("infeasible", "infeasible_or_unbounded"):
            # An empty set: the sorted bound stands, the solve of the whole program will say that it is empty.
            return np.inf, np.zeros(self.n)
        if result.status != "optimal" or result.x is None:
            raise SolverError(
                f"the LP of a support function ended with {result.status!r}", "use effort='linear' instead of 'lp'."
            )
        return result.objective + LP_SAFETY * max(1.0, abs(result.objective)), result.x[columns]


def _same(before: Any, now: Any) -> bool:
    """Whether two weights hold the same numbers."""
    if before is now:
        return True
    if before.shape != now.shape or sparse.issparse(before) != sparse.issparse(now):
        return False
    if sparse.issparse(now):
        parts = ("data", "indices", "indptr")
        return all(np.array_equal(getattr(before, part), getattr(now, part)) for part in parts)
    return bool(np.array_equal(before, now))


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
