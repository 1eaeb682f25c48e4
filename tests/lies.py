"""A solver that lies: whatever the solver layer reads back is replaced, one lie a run.

:func:`lying` changes what HiGHS, or a solver behind Pyomo, is taken to have said: status, point, bound, duals, before
the product looks at it, or the objective after. Required of every answer: a typed error, or nothing that enumeration
refutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import pyomo.environ as pyo

from rmab_opt.solver import highs, through_pyomo
from rmab_opt.solver.program import Arrays
from rmab_opt.solver.result import Result

__all__ = ["LIES", "Said", "StandIn", "behind_pyomo", "lying"]


@dataclass
class Said:
    """What a solver said of one solve; lies change it in place."""

    arrays: Arrays
    status: str
    x: np.ndarray | None
    bound: float
    row_duals: np.ndarray | None
    reduced_costs: np.ndarray | None
    first: dict[str, Any]
    """Kept from solve to solve."""
    objective: float = 0.0
    """Added to the objective that the product computed from the point."""

    @property
    def sign(self) -> float:
        """1 when maximising."""
        return 1.0 if self.arrays.maximise else -1.0

    def worth(self, x: np.ndarray) -> float:
        """Objective of a point."""
        return float(self.arrays.cost @ x + self.arrays.offset.item())

    def nothing(self) -> np.ndarray:
        """The point nearest to zero within the bounds."""
        return np.clip(0.0, self.arrays.lower, self.arrays.upper)

    @property
    def size(self) -> float:
        """Sum of the costs' sizes: lies are of the problem's own scale."""
        return float(np.abs(self.arrays.cost).sum()) or 1.0


def _objective_high(said: Said) -> None:
    said.objective = 10 * said.size


def _objective_low(said: Said) -> None:
    said.objective = -10 * said.size


def _bound_low(said: Said) -> None:
    said.bound -= said.sign * 0.3 * said.size


def _nothing_is_best(said: Said) -> None:
    said.x = said.nothing()
    said.bound, said.status = said.worth(said.x), "optimal"


def _bound_high(said: Said) -> None:
    said.bound += said.sign * 5 * said.size


def _bound_is(value: float) -> Callable[[Said], None]:
    def lie(said: Said) -> None:
        said.bound = value

    return lie


def _all_ones(said: Said) -> None:
    if said.x is not None:
        said.x = np.where(np.isfinite(said.arrays.upper), said.arrays.upper, said.x)


def _point(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Said], None]:
    def lie(said: Said) -> None:
        if said.x is not None:
            said.x = change(said.x.copy())

    return lie


def _one_column_less(said: Said) -> None:
    if said.x is not None:
        on = np.flatnonzero((said.x > 0.5) & said.arrays.integer)
        if on.size:
            said.x = said.x.copy()
            said.x[on[0]] = 0.0


def _status(status: str, *, keep: bool = False) -> Callable[[Said], None]:
    def lie(said: Said) -> None:
        said.status = status
        if not keep:
            said.x = None

    return lie


def _duals(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Callable[[Said], None]:
    def lie(said: Said) -> None:
        rng = np.random.default_rng(3)
        if said.row_duals is not None:
            said.row_duals = change(said.row_duals, rng)
        if said.reduced_costs is not None:
            said.reduced_costs = change(said.reduced_costs, rng)

    return lie


def _reduced_costs(said: Said) -> None:
    if said.reduced_costs is not None:
        said.reduced_costs = -1e3 * said.reduced_costs


def _worth_less(said: Said) -> None:
    """Nothing is best, and the bound lies between its value and the right one."""
    said.x = said.nothing()
    said.bound = said.worth(said.x) + 0.3 * (said.bound - said.worth(said.x))
    said.status = "optimal"


def _stale(said: Said) -> None:
    first = said.first.setdefault(said.arrays.cost.size, (said.status, said.x, said.bound))
    said.status, said.x, said.bound = first[0], None if first[1] is None else first[1].copy(), first[2]


LIES: dict[str, Callable[[Said], None]] = {
    "1 objective too high": _objective_high,
    "2 objective too low": _objective_low,
    "3 bound too low": _bound_low,
    "4 nothing chosen and its own value as the bound": _nothing_is_best,
    "5 bound too high": _bound_high,
    "6 bound nan": _bound_is(math.nan),
    "6 bound inf": _bound_is(math.inf),
    "6 bound -inf": _bound_is(-math.inf),
    "7 all ones": _all_ones,
    "8 fractional": _point(lambda x: 0.5 * x),
    "8 nan": _point(lambda x: x * math.nan),
    "8 wrong length": _point(lambda x: x[:-1]),
    "9 off whole by 1e-5": _point(lambda x: x - 1e-5 * np.sign(x)),
    "10 one column less": _one_column_less,
    "11 infeasible": _status("infeasible"),
    "12 unbounded": _status("unbounded"),
    "12 empty": _status("empty"),
    "12 error": _status("error"),
    "13 optimal at a limit": _status("feasible_limit", keep=True),
    "14 duals zero": _duals(lambda y, rng: 0 * y),
    "14 duals of the wrong sign": _duals(lambda y, rng: -y),
    "14 duals times 1e3": _duals(lambda y, rng: 1e3 * y),
    "14 duals of another instance": _duals(lambda y, rng: rng.permutation(y)),
    "15 reduced costs": _reduced_costs,
    "16 worth too small": _worth_less,
    "19 the first answer again": _stale,
}
"""By number of the specification's table; 17 is a lie of prices, 18 of options, 20 of rows."""


@contextmanager
def lying(name: str, *, after: int = 0) -> Iterator[list[str]]:
    """Every solve within the context, but for the first ``after``, is answered by a lie; yields what statuses were."""
    lie, kept, told = LIES[name], {}, []
    real = highs.conclude

    def conclude(arrays: Arrays, limits: Any, status: str, x: Any, bound: float, **rest: Any) -> Result:
        duals = {key: rest.pop(key, None) for key in ("row_duals", "reduced_costs")}
        said = Said(arrays, status, x, bound, duals["row_duals"], duals["reduced_costs"], kept)
        if len(told) >= after:
            lie(said)
        told.append(said.status)
        given = {"row_duals": said.row_duals, "reduced_costs": said.reduced_costs}
        given = {key: value for key, value in given.items() if value is not None}
        result = real(arrays, limits, said.status, said.x, said.bound, **given, **rest)  # type: ignore[arg-type]
        return replace(result, objective=result.objective + said.objective) if said.objective else result

    with mock.patch.object(highs, "conclude", conclude), mock.patch.object(through_pyomo, "conclude", conclude):
        yield told


class StandIn:
    """A solver behind Pyomo that is none: HiGHS by Pyomo's own interface, whose answer a test may change."""

    def __init__(self, inner: Any, change: Callable[[Any], None] | None) -> None:
        self._inner, self._change = inner, change
        self.options: dict[str, Any] = {}
        """Taken and left alone: they stand under another solver's names."""

    def available(self, exception_flag: bool = True) -> bool:
        return bool(self._inner.available(exception_flag=exception_flag))

    def warm_start_capable(self) -> bool:
        return False

    def solve(self, model: Any, *, load_solutions: bool = False, tee: bool = False) -> Any:
        answer = self._inner.solve(model, load_solutions=load_solutions, tee=tee)
        if self._change is not None:
            self._change(answer)
        return answer


@contextmanager
def behind_pyomo(change: Callable[[Any], None] | None = None) -> Iterator[list[str]]:
    """Whatever solver is asked for behind Pyomo, the stand-in answers; yields the names that were asked for."""
    real, asked = pyo.SolverFactory, []

    class Factory:
        def __contains__(self, name: str) -> bool:
            return True

        def __call__(self, name: str) -> StandIn:
            asked.append(name)
            return StandIn(real("appsi_highs"), change)

    with mock.patch.object(pyo, "SolverFactory", Factory()):
        yield asked
