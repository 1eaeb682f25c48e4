"""The largest value of many linear functions at once over the polytope of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmab_opt.errors import ModelError, SolverError
from rmab_opt.solver import Program, Session
from rmab_opt.solver.encoded import Reading
from rmab_opt.solver.polytope import Polytope

__all__ = ["Maxima", "Support"]

Floats = NDArray[np.float64]

LP_SAFETY = 1e-6
"""Added to LP optima, relative to max(1, |value|): HiGHS's own tolerances, so that bounds stay bounds."""


class Maxima(NamedTuple):
    """h(c) = max c . x for several c."""

    values: Floats
    """Shape (m,)."""
    points: Floats
    """Shape (m, n), where the maximum is attained in the relaxation that gave the value."""


class Support(Polytope):
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

    reading: Reading | None = None
    """Rows and variables of the model that it was read from."""

    _memo: tuple[Any, tuple[Floats, Floats], Floats] | None = None

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
        rows: list[Any] = []
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
                rows.append(row)
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
        found = cls.from_program(program, np.arange(n), names=[variable.name for variable in variables])
        found.reading = Reading(everyone, rows, program)
        return found

    # ---- maximising
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
        values, points = self.maxima(c)
        if effort == "lp" and not self.exact:
            for i in range(len(c)):
                value, point = self._lp(c[i])
                if value < values[i]:
                    values[i], points[i] = value, point
        elif effort not in ("rows", "lp"):
            raise ModelError(f"effort of a support function is {effort!r}", "use 'rows' or 'lp'.")
        return Maxima(values, points)

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
