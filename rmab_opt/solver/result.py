"""What a solve has proven: status, solution, bound and gap made to agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from rmab_opt.solver.profile import Profile
from rmab_opt.solver.program import Arrays, Floats, Ints, Program

Status = Literal[
    "optimal",
    "feasible_limit",
    "infeasible",
    "unbounded",
    "infeasible_or_unbounded",
    "no_solution_limit",
    "interrupted",
    "empty",
    "error",
]

VALUE_TOL = 1e-6
"""Slack, absolute and relative, when status, bound and gap are held against one another: HiGHS's own tolerances."""

VIOLATION_TOL = 1e-4
"""A row or bound missed by more, relative to max(1, |value|), makes the result an error: a hundred times what HiGHS
promises, because presolve may return points slightly worse than its tolerance in the original space."""


@dataclass(frozen=True, eq=False)
class Result:
    """What one solve has proven.

    ``status``: ``optimal`` (bound and objective agree within the gap), ``feasible_limit`` (a solution, a limit),
    ``infeasible``, ``unbounded``, ``infeasible_or_unbounded``, ``no_solution_limit`` (a limit before a solution, or
    nothing at least as good as the cut-off), ``interrupted`` (look at ``has_solution``), ``empty`` (no columns),
    ``error``.
    """

    status: Status
    has_solution: bool
    objective: float
    """Of ``x``; nan without a solution."""
    bound: float
    """No solution is better than this; +inf (maximising) or -inf (minimising) when nothing is proven."""
    x: Floats | None
    """Shape (n,), integer columns within the solver's tolerance of whole numbers; None without a solution."""
    row_duals: Floats | None = None
    """Shape (m,), change of the objective per unit of a row's right-hand side; LPs solved to optimality only."""
    reduced_costs: Floats | None = None
    """Shape (n,), the same for column bounds; LPs solved to optimality only."""
    nodes: int = 0
    """Branch-and-bound nodes."""
    iterations: int = 0
    """Simplex and interior-point iterations."""
    seconds: float = 0.0
    """Wall-clock time."""
    cpu_seconds: float = 0.0
    """CPU time of the solving thread; of the process when several threads solve."""
    violation: float = 0.0
    """Largest amount by which x misses a row or a column bound, recomputed from the arrays."""
    log: str = ""
    """The solver's log, when the profile keeps it."""
    refuted: bool = False
    """Whether the solver's bound lay on the wrong side of its own point, and was dropped."""

    @property
    def gap(self) -> float:
        """|bound - objective| in the objective's unit; inf without a solution or a bound."""
        return abs(self.bound - self.objective) if self.has_solution else math.inf

    @property
    def relative_gap(self) -> float:
        """Gap as a share of max(1, |bound|): near zero only the absolute gap means something."""
        return self.gap / max(1.0, abs(self.bound)) if math.isfinite(self.gap) else math.inf


@dataclass
class Limits:
    """What one solve may use: the profile's limits with the call's own on top."""

    seconds: float
    nodes: int | None
    relative_gap: float
    absolute_gap: float
    cutoff: float | None


def conclude(
    arrays: Arrays,
    limits: Limits,
    status: Status,
    x: Floats | None,
    bound: float,
    **rest: Any,
) -> Result:
    """Result whose status, solution, bound and gap agree with one another and with the arrays.

    Objective and violation are recomputed from ``x``: HiGHS has said Optimal with objective NaN, with an infinite bound
    after a MIP start, and with another point's objective. ``bound`` is the solver's: of an LP, its objective.
    """
    sense = 1.0 if arrays.maximise else -1.0
    nothing = sense * math.inf
    if not math.isfinite(bound) or status in ("infeasible", "unbounded", "infeasible_or_unbounded", "error"):
        bound = nothing
    objective, violation = math.nan, 0.0
    if x is not None and status in ("optimal", "feasible_limit", "interrupted"):
        violation, relative = violation_of(arrays, x)
        x = x + 0.0  # HiGHS returns -0.0 for columns at zero.
        objective = float(arrays.cost @ x + arrays.offset.item()) if math.isfinite(relative) else math.nan
        if not (math.isfinite(objective) and relative <= VIOLATION_TOL):
            status, x = "error", None
    else:
        x = None
    if x is None:
        objective = math.nan
        without: dict[Status, Status] = {"optimal": "error", "feasible_limit": "no_solution_limit"}
        status = without.get(status, status)
    elif arrays.integer.any() or status == "optimal":
        slack = VALUE_TOL * max(1.0, abs(objective))
        # Rounding puts a tight bound a hair on the wrong side of its objective; more than a hair is no bound.
        behind = sense * (objective - bound)
        if behind > slack:
            bound, rest = nothing, rest | {"refuted": True}
        else:
            bound = sense * max(sense * bound, sense * objective)
        allowed = max(limits.absolute_gap, limits.relative_gap * abs(objective)) if arrays.integer.any() else 0.0
        if status == "optimal" and not abs(bound - objective) <= allowed + slack:
            status = "feasible_limit"
    else:
        bound = nothing
    if limits.cutoff is not None and x is None:
        if status == "infeasible":
            status, bound = "no_solution_limit", limits.cutoff
        elif math.isfinite(bound):
            bound = sense * max(sense * bound, sense * limits.cutoff)
    if status != "optimal" or arrays.integer.any():
        rest |= {"row_duals": None, "reduced_costs": None}
    return Result(
        status=status, has_solution=x is not None, objective=objective, bound=bound, x=x, violation=violation, **rest
    )


def violation_of(arrays: Arrays, x: Floats) -> tuple[float, float]:
    """Largest miss of a row, a bound or a whole number: as it is, and relative to max(1, |value|)."""
    if x.shape != arrays.cost.shape or not np.isfinite(x).all():
        return math.inf, math.inf
    activity = arrays.matrix @ x
    misses = [
        (np.maximum(arrays.row_lower - activity, activity - arrays.row_upper), activity),
        (np.maximum(arrays.lower - x, x - arrays.upper), x),
        (np.abs(x - np.round(x)) * arrays.integer, x),
    ]
    worst = max(float(miss.max(initial=0.0)) for miss, _ in misses)
    relative = max(float((miss / np.maximum(1.0, np.abs(value))).max(initial=0.0)) for miss, value in misses)
    return worst, relative


def solve_empty(arrays: Arrays, limits: Limits) -> Result:
    """Without columns HiGHS says Empty, even when a row cannot hold; here that is infeasible."""
    sense = 1.0 if arrays.maximise else -1.0
    x, objective = np.zeros(0), arrays.offset.item()
    if violation_of(arrays, x)[1] > VALUE_TOL:
        return Result("infeasible", False, math.nan, sense * math.inf, None)
    if limits.cutoff is not None and sense * objective < sense * limits.cutoff:
        return Result("no_solution_limit", False, math.nan, limits.cutoff, None)
    return Result("empty", True, objective, objective, x)


class Solver(Protocol):
    """What a session asks of a solver."""

    matrix_changed: bool = False
    """Set by the session when it writes matrix coefficients."""

    def __init__(self, profile: Profile) -> None: ...

    def load(self, arrays: Arrays) -> None:
        """Another program's arrays are in place."""

    def push(self, arrays: Arrays) -> None:
        """Take the changes now; called before rows come or go."""

    def add_rows(self, arrays: Arrays, new: Program) -> None:
        """The rows of ``new`` were appended to ``arrays``."""

    def delete_rows(self, arrays: Arrays, gone: Ints) -> None:
        """The rows ``gone`` (old numbers, sorted) have left ``arrays``."""

    def solve(
        self,
        arrays: Arrays,
        limits: Limits,
        start: tuple[Ints, Floats] | None,
        interrupt: Callable[[], bool] | None,
    ) -> tuple[Result, BaseException | None]:
        """Push, run, read. The second value is what stopped the wait: Ctrl-C, or an error in ``interrupt``."""
