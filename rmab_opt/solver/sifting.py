"""Linear programs of few rows over very many columns, by programs of the columns that prices leave in doubt.

Under prices of the rows most columns are far from their margin: they stand at an end, and a program of those near it
gives new prices. When no column stands at the wrong end under these, the point is the whole program's optimum, and
prices say so (weak duality, computed here over all columns). A sample of the columns gives the first prices.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from scipy import sparse

from rmab_opt.solver.profile import Profile
from rmab_opt.solver.program import Floats, Program
from rmab_opt.solver.result import Result
from rmab_opt.solver.session import Session

__all__ = ["Sifting", "siftable"]

MANY_COLUMNS, FEW_ROWS = 5_000, 500
"""Columns from which a program is sifted, and rows up to which."""

IN_DOUBT = 1_500
"""Columns that prices leave in doubt at first, and a few for each row."""

EACH_ROW = 10
"""Columns in doubt for each row."""

ROUNDS = 12
"""Programs until the whole one is solved after all."""

WRONG = 1e-9
"""Share of the largest value that a column may lose at its end."""


def siftable(program: Program) -> bool:
    """Whether it is linear, with many columns between finite ends under few rows."""
    rows, columns = program.matrix.shape
    boxed = np.isfinite(program.lower).all() and np.isfinite(program.upper).all()
    return columns >= MANY_COLUMNS and rows <= FEW_ROWS and bool(boxed) and program.maximise


class Sifting:
    """One program whose values change from question to question; no answer depends on the questions before.

    Parameters
    ----------
    program
        See :func:`siftable`; whole numbers are not asked for.
    profile
        Of the small programs.
    """

    def __init__(self, program: Program, profile: Profile) -> None:
        self.program = replace(program, integer=np.zeros(len(program.cost), dtype=bool))
        self.profile = profile
        self._by_column = sparse.csc_array(program.matrix)
        self._cost: Floats = np.array(program.cost)

    def set_cost(self, columns: np.ndarray, cost: Floats) -> None:
        """What columns are worth, as :meth:`Session.set_cost`."""
        self._cost[columns] = cost

    def solve(self, *, seconds: float | None = None) -> Result:
        """The optimum at the present values, as :meth:`Session.solve`."""
        began, clock = time.perf_counter(), time.thread_time()
        until = np.inf if seconds is None else began + seconds
        found = self._sifted(until)
        if found is None:
            found = self._solved(replace(self.program, cost=self._cost), until)
        return replace(found, seconds=time.perf_counter() - began, cpu_seconds=time.thread_time() - clock)

    def _sifted(self, until: float) -> Result | None:
        """The optimum, or where a limit stopped it; None where the whole program has to be solved after all."""
        prices, many = self._guess(until), IN_DOUBT + EACH_ROW * len(self.program.row_lower)
        for _ in range(ROUNDS):
            if prices is None or many >= len(self._cost):
                return None
            found, wrong = self._round(prices, many, until)
            if found.status == "infeasible":
                # Too much was taken for certain.
                many *= 4
            elif found.row_duals is None or not wrong:
                return found
            else:
                prices, many = found.row_duals, many + many // 2
        return None

    def _guess(self, until: float) -> Floats | None:
        """Prices of a sample of the columns under its share of the limits."""
        n = len(self._cost)
        part = np.sort(np.random.default_rng(0).permutation(n)[: max(2 * IN_DOUBT, n // 20)])
        taken, width = self._by_column[:, part], self.program.upper - self.program.lower
        share = (abs(taken) @ width[part]) / np.maximum(abs(self._by_column) @ width, 1e-300)
        program = replace(
            self.program,
            cost=self._cost[part],
            matrix=sparse.csr_array(taken),
            row_lower=_times(self.program.row_lower, share),
            row_upper=_times(self.program.row_upper, share),
            lower=self.program.lower[part],
            upper=self.program.upper[part],
            integer=self.program.integer[part],
        )
        return self._proven(self._solved(program, until).row_duals)

    def _proven(self, prices: Floats | None) -> Floats | None:
        """Prices without what the solver's rounding left on the wrong side of nothing."""
        if prices is None:
            return None
        prices = np.where(np.isneginf(self.program.row_lower), np.maximum(prices, 0.0), prices)
        return np.where(np.isposinf(self.program.row_upper), np.minimum(prices, 0.0), prices)

    def _round(self, prices: Floats, many: int, until: float) -> tuple[Result, bool]:
        """The program of what prices leave in doubt, read as one of the whole; whether columns stand at a wrong end."""
        program = self.program
        gain = self._cost - self._by_column.T @ prices
        doubt = np.zeros(len(gain), dtype=bool)
        doubt[np.argpartition(np.abs(gain), many - 1)[:many]] = True
        x = np.where(gain > 0, program.upper, program.lower)
        x[doubt] = 0.0
        taken, near = self._by_column @ x, np.flatnonzero(doubt)
        found = self._solved(
            replace(
                program,
                cost=self._cost[near],
                matrix=sparse.csr_array(self._by_column[:, near]),
                row_lower=program.row_lower - taken,
                row_upper=program.row_upper - taken,
                lower=program.lower[near],
                upper=program.upper[near],
                integer=program.integer[near],
            ),
            until,
        )
        if found.status != "optimal" or found.x is None or found.row_duals is None:
            return replace(found, x=None, has_solution=False, objective=np.nan, bound=np.inf, row_duals=None), True
        x[near] = found.x
        high, proven = gain > 0, self._proven(found.row_duals)
        assert proven is not None
        gain = self._cost - self._by_column.T @ proven
        loss = np.where(high, -gain, gain)
        loss[doubt] = 0.0
        size = float(np.abs(self._cost).max(initial=0.0))
        objective = float(self._cost @ x) + program.offset
        limit = np.where(proven > 0, program.row_upper, program.row_lower)
        rent = float(proven[proven != 0] @ limit[proven != 0])
        bound = float(np.maximum(gain * program.upper, gain * program.lower).sum()) + rent + program.offset
        whole = replace(
            found, x=x, objective=objective, bound=max(bound, objective), row_duals=proven, reduced_costs=gain
        )
        return whole, bool((loss > WRONG * size).any())

    def _solved(self, program: Program, until: float) -> Result:
        left = None if np.isinf(until) else max(0.0, until - time.perf_counter())
        return Session.from_arrays(program, self.profile).solve(seconds=left)


def _times(limit: Floats, share: Floats) -> Floats:
    """Limits of a share of the columns; those that are none stay none."""
    return np.where(np.isfinite(limit), np.where(np.isfinite(limit), limit, 0.0) * share, limit)
