"""Other solvers, through Pyomo's own interface."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from rmab_opt.errors import CapabilityError, SolverError
from rmab_opt.solver.profile import OWN_NAMES, Profile
from rmab_opt.solver.program import Arrays, Floats, Ints, Program
from rmab_opt.solver.result import VALUE_TOL, Limits, Result, Solver, Status, conclude

# Pyomo's names, the one that needs no executable first; what to install when none answers.
_INTERFACES = {
    "gurobi": (("gurobi_direct",), "pip install gurobipy and a Gurobi licence"),
    "scip": (("scip_direct", "scip"), "pip install pyscipopt (Pyomo 6.10 or later), or the scip executable"),
    "cbc": (("cbc",), "the cbc executable (COIN-OR), on the PATH"),
}

_PYOMO_STATUS: dict[str, Status] = {
    "optimal": "optimal",
    "globallyOptimal": "optimal",
    "infeasible": "infeasible",
    "unbounded": "unbounded",
    "infeasibleOrUnbounded": "infeasible_or_unbounded",
    "maxTimeLimit": "feasible_limit",
    "maxIterations": "feasible_limit",
    "maxEvaluations": "feasible_limit",
    "resourceInterrupt": "feasible_limit",
    "userInterrupt": "interrupted",
}


class PyomoSolver(Solver):
    """Gurobi, SCIP or CBC, each solve from the current arrays.

    A start is passed where the interface takes one. Duals, node counts and iterations are not read; a solve can
    not be interrupted by a function. Pyomo's solver calls are not for worker threads: their output capture is global.
    """

    def __init__(self, profile: Profile) -> None:
        import pyomo.environ as pyo

        self.profile = profile
        interfaces, needed = _INTERFACES[profile.solver]
        for name in interfaces:
            # Asked first, since Pyomo takes an unknown name for an executable and logs a traceback.
            if name in pyo.SolverFactory and pyo.SolverFactory(name).available(exception_flag=False):
                self._interface = name
                return
        raise SolverError(f"profile {profile.name!r}: {profile.solver} is not installed.", f"install {needed}.")

    def load(self, arrays: Arrays) -> None:
        return None

    def push(self, arrays: Arrays) -> None:
        return None

    def add_rows(self, arrays: Arrays, new: Program) -> None:
        return None

    def delete_rows(self, arrays: Arrays, gone: Ints) -> None:
        return None

    def solve(
        self,
        arrays: Arrays,
        limits: Limits,
        start: tuple[Ints, Floats] | None,
        interrupt: Callable[[], bool] | None,
    ) -> tuple[Result, BaseException | None]:
        import pyomo.environ as pyo

        if interrupt is not None:
            raise CapabilityError("interrupt", self, ("use a HiGHS profile", "give a limit in seconds or nodes"))
        if not _free_rows_hold(arrays):
            return conclude(arrays, limits, "infeasible", None, math.nan), None
        model = _model(arrays, limits)
        solver = pyo.SolverFactory(self._interface)
        for name, value in self._options(limits).items():
            solver.options[name] = value
        extra: dict[str, Any] = {}
        if start is not None and solver.warm_start_capable():
            extra["warmstart"] = True
            for column, value in zip(*start, strict=True):
                model.x[int(column)].set_value(float(value), skip_validation=True)
        log = io.StringIO()
        clock, cpu = time.perf_counter(), time.process_time()
        try:
            with contextlib.redirect_stdout(log) if self.profile.log else contextlib.nullcontext():
                answer = solver.solve(model, load_solutions=False, tee=self.profile.log, **extra)
        except Exception as error:
            raise SolverError(
                f"{self.profile.solver} failed: {error}.", f"check the options of profile {self.profile.name!r}."
            ) from error
        seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
        status = _PYOMO_STATUS.get(str(answer.solver.termination_condition), "error")
        said = answer.problem.upper_bound if arrays.maximise else answer.problem.lower_bound
        try:
            x, bound = _solution(model, answer), math.nan if said is None else float(said)
        except (TypeError, ValueError) as error:
            raise SolverError(
                f"{self.profile.solver} answered what is no number ({error}).",
                f"check its version and the options of profile {self.profile.name!r}.",
            ) from error
        result = conclude(
            arrays,
            limits,
            status,
            x,
            bound,
            seconds=seconds,
            cpu_seconds=cpu,
            log=log.getvalue(),
        )
        return result, None

    def _options(self, limits: Limits) -> dict[str, Any]:
        """The profile's own options, and its limits under the names this solver has for them."""
        wanted = {
            "threads": self.profile.threads,
            "seed": self.profile.seed,
            "seconds": limits.seconds if math.isfinite(limits.seconds) else None,
            "nodes": limits.nodes,
            "relative_gap": limits.relative_gap,
            "absolute_gap": limits.absolute_gap,
        }
        names = OWN_NAMES[self.profile.solver]
        return dict(self.profile.options) | {names[key]: value for key, value in wanted.items() if value is not None}


def _free_rows_hold(arrays: Arrays) -> bool:
    """Whether 0 lies within the limits of every row without coefficients; Pyomo takes no such row."""
    free = np.diff(arrays.matrix.indptr) == 0
    return not (free & ((arrays.row_lower > VALUE_TOL) | (arrays.row_upper < -VALUE_TOL))).any()


def _model(arrays: Arrays, limits: Limits) -> Any:
    """A flat Pyomo model of the arrays."""
    import pyomo.environ as pyo
    from pyomo.core.expr.numeric_expr import LinearExpression

    def side(value: Any) -> float | None:
        return float(value) if math.isfinite(value) else None

    model = pyo.ConcreteModel()
    matrix = arrays.matrix
    domains = [pyo.Integers if whole else pyo.Reals for whole in arrays.integer]
    model.x = pyo.Var(
        range(arrays.cost.size),
        domain=lambda _, j: domains[j],
        bounds=lambda _, j: (side(arrays.lower[j]), side(arrays.upper[j])),
    )
    columns = list(model.x.values())

    def body(indices: Ints, data: Floats, constant: float = 0.0) -> Any:
        return LinearExpression(
            constant=constant, linear_coefs=data.tolist(), linear_vars=[columns[j] for j in indices]
        )

    model.rows = pyo.ConstraintList()
    pointers = matrix.indptr.tolist()
    for i, (low, high) in enumerate(zip(arrays.row_lower.tolist(), arrays.row_upper.tolist(), strict=True)):
        entries = slice(pointers[i], pointers[i + 1])
        if pointers[i] < pointers[i + 1] and (math.isfinite(low) or math.isfinite(high)):
            model.rows.add((side(low), body(matrix.indices[entries], matrix.data[entries]), side(high)))
    objective = body(np.arange(arrays.cost.size), arrays.cost, arrays.offset.item())
    if limits.cutoff is not None:
        at_least, at_most = (limits.cutoff, None) if arrays.maximise else (None, limits.cutoff)
        model.rows.add((at_least, objective, at_most))
    model.objective = pyo.Objective(expr=objective, sense=pyo.maximize if arrays.maximise else pyo.minimize)
    return model


def _solution(model: Any, answer: Any) -> Floats | None:
    """Values of all columns, or None: Pyomo lists a solution without values when there is none."""
    from pyomo.opt import SolverStatus

    if not len(answer.solution) or not answer.solution(0).variable:
        return None
    # Otherwise Pyomo logs a warning for every solve that stopped at a limit.
    answer.solver.status = SolverStatus.ok
    for column in model.x.values():
        column.set_value(None)
    model.solutions.load_from(answer)
    values = [column.value for column in model.x.values()]
    return None if None in values else np.array(values, dtype=float)
