"""The bound as a function of one resource's limit: one search whose cuts serve every limit.

For a fixed price the arms' part of the bound does not depend on the limit, so each evaluated policy is a cut for all
limits; the curve is concave and piecewise linear, and its slope is the value of one more unit a round.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.lagrangian import Sweep
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular

__all__ = ["Curve", "budget_curve", "sweep"]


@dataclass(frozen=True, eq=False)
class Curve:
    """The bound over the limit of one resource.

    Parameters
    ----------
    name
        The resource.
    limits
        Units a round, rising, (L,).
    values
        Bounds at the limits, (L,), in total reward units.
    marginal
        Value of one more unit in every round, (L,): the slope of the curve to the right and left agree except at
        breakpoints, where this is one of the slopes in between.
    gaps
        Proven distance to the relaxed problem's own value, (L,).
    breakpoints
        Limits between the requested ones where the slope changes, as far as they were sought, with their values,
        (M, 2).
    evaluations, seconds
        Effort of the whole curve.
    """

    name: str
    limits: np.ndarray
    values: np.ndarray
    marginal: np.ndarray
    gaps: np.ndarray
    breakpoints: np.ndarray
    evaluations: int
    seconds: float

    def rows(self) -> list[dict[str, float]]:
        """One row a limit, for tables and CSV."""
        return [
            {"limit": float(limit), "bound": float(value), "one_more_unit": float(slope), "gap": float(gap)}
            for limit, value, slope, gap in zip(self.limits, self.values, self.marginal, self.gaps, strict=True)
        ]


def sweep(
    problem: Problem,
    actions: ActionSet,
    limits: Sequence[float] | np.ndarray,
    *,
    resource: str | None = None,
    tolerance: float = 1e-6,
    breakpoints: int = 0,
    seconds: float | None = None,
) -> Curve:
    """Curve of the time-indexed bound over one resource's limit.

    Parameters
    ----------
    limits
        Units a round to compute the bound at.
    resource
        Name of the constraint whose limit moves; the only one by default.
    tolerance
        Relative gap at every limit.
    breakpoints
        Most further limits to evaluate in search of points where the slope changes.
    seconds
        Wall-clock time, shared among the limits; every value is a bound at any gap.

    Raises
    ------
    CapabilityError
        When a constraint brings variables of its own, so that there is no single limit to move.
    ModelError
        When there is no such resource, or a limit is negative.
    """
    transition, reward = require_tabular(problem.dynamics, "the upper bound")
    n_arms, n_actions = transition.shape[:2]
    coupling = polyhedron(actions, n_actions).coupling(n_arms, n_actions)
    if coupling is None:
        raise CapabilityError(
            "a curve over one limit", actions, ("sweep a model with plain rows", "call bound() for each model")
        )
    if resource is None and coupling.n_rows != 1:
        raise ModelError(f"there are {coupling.n_rows} resources", f"name one of {', '.join(coupling.names)}.")
    name = coupling.names[0] if resource is None else resource
    if name not in coupling.names:
        raise ModelError(f"no resource {name!r}", f"name one of {', '.join(coupling.names)}.")
    return budget_curve(
        transition,
        reward,
        coupling,
        problem.start_distribution,
        limits,
        row=coupling.names.index(name),
        horizon=problem.horizon,
        discount=problem.discount,
        tolerance=tolerance,
        breakpoints=breakpoints,
        seconds=seconds,
    )


def budget_curve(
    transition: np.ndarray,
    reward: np.ndarray,
    coupling: Coupling,
    start: np.ndarray,
    limits: Sequence[float] | np.ndarray,
    *,
    row: int = 0,
    horizon: int | None,
    discount: float = 1.0,
    tolerance: float = 1e-6,
    breakpoints: int = 0,
    seconds: float | None = None,
) -> Curve:
    """:func:`sweep` on arrays; without a horizon the discounted bound with constant prices."""
    begun = time.perf_counter()
    limits = np.unique(np.asarray(limits, dtype=np.float64))
    if limits.size == 0 or (limits < 0).any() or not np.isfinite(limits).all():
        raise ModelError(f"limits {limits.tolist()}", "give at least one finite, non-negative limit.")
    search = Sweep(transition, reward, coupling, start, horizon=horizon, discount=discount, tolerance=tolerance)

    due = np.inf if seconds is None else begun + seconds

    def at(limit: float, waiting: int = 1) -> tuple[float, float, float]:
        moved = np.array(coupling.limit)
        moved[..., row] = limit
        now = time.perf_counter()
        found = search.solve(moved, now + (due - now) / waiting)
        weights = discount ** np.arange(horizon) if horizon is not None else np.array([1.0 / (1.0 - discount)])
        slope = float(weights @ np.atleast_2d(found.prices)[:, row])
        return found.value, slope, found.gap

    known = {float(limit): at(float(limit), len(limits) - k) for k, limit in enumerate(limits)}
    corners: dict[float, float] = {}
    spent = 0
    pairs = list(zip(limits[:-1].tolist(), limits[1:].tolist(), strict=True))
    while pairs and spent < breakpoints and time.perf_counter() < due:
        left, right = pairs.pop(0)
        (low, rise, _), (high, fall, _) = known[left], known[right]
        slack = 4.0 * tolerance * max(1.0, abs(high))
        if rise - fall <= 1e-9 * max(1.0, abs(rise)) or high - low >= rise * (right - left) - slack:
            continue
        # Tangents from both ends meet here; the curve touches the meeting point only at a breakpoint.
        meet = (high - low + rise * left - fall * right) / (rise - fall)
        if not left + 1e-6 < meet < right - 1e-6:
            continue
        known[meet] = at(meet)
        spent += 1
        if known[meet][0] >= low + rise * (meet - left) - slack:
            corners[meet] = known[meet][0]
        else:
            pairs += [(left, meet), (meet, right)]
    table = np.array([known[float(limit)] for limit in limits])
    return Curve(
        name=coupling.names[row],
        limits=limits,
        values=table[:, 0],
        marginal=table[:, 1],
        gaps=table[:, 2],
        breakpoints=np.array(sorted(corners.items())).reshape(-1, 2),
        evaluations=search.evaluations,
        seconds=time.perf_counter() - begun,
    )
