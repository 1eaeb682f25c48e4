"""Whole budgets for groups from their value curves, unit by unit: the greedy rules that are exact on concave curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.planning.equity.groups import Groups
from rmab_opt.planning.equity.welfare import LEAST_VALUE, Welfare

__all__ = ["Shares", "share_units"]

NO_GAIN = 1e-7
"""A unit that lifts a group's mean by less, relative to the largest mean, lifts nothing: single precision."""


@dataclass(frozen=True, eq=False)
class Shares:
    """Units in the order in which the welfare asks for them.

    ``budgets`` (K,) are the first units given; ``order`` lists the group of every unit that gains, the given ones
    first, so that constraints which forbid one unit pass it to the next; ``left`` counts units nobody gains by.
    """

    budgets: np.ndarray
    order: np.ndarray
    left: int


def share_units(
    curves: np.ndarray,
    budget: int,
    groups: Groups,
    *,
    welfare: str | float | Welfare = "leximin",
    past: np.ndarray | None = None,
    caps: np.ndarray | None = None,
    beyond: int = 0,
) -> Shares:
    """Split whole units between groups: the best welfare of concave curves, by giving one unit at a time.

    Parameters
    ----------
    curves
        Group totals at b = 0, 1, ..., shape (K, J + 1); a group takes at most J units.
    budget
        Units to share.
    past
        Totals collected before, (K,): what is compared is past plus future.
    caps
        Most units of each group, e.g. how many of its arms respond, (K,).
    beyond
        Further units to put in order.

    Notes
    -----
    ``max_min`` and ``leximin`` raise the lowest group; one that the next unit does not lift is left as it is and the
    others go on, so nothing is spent where it has no effect. Other welfares give each unit where it gains most;
    optimal for separable concave functions (Federgruen, Groenevelt 1986). Ties go to the larger unmet need, then to
    the first group.
    """
    kind = Welfare.of(welfare)
    curves = np.asarray(curves, dtype=float)
    n_groups = len(groups)
    if curves.ndim != 2 or len(curves) != n_groups or budget < 0:
        raise ModelError(f"curves {curves.shape} of {n_groups} groups, budget {budget}", "give one curve a group.")
    most = np.minimum(curves.shape[1] - 1, groups.sizes.astype(np.int64))
    if caps is not None:
        most = np.minimum(most, np.asarray(caps, dtype=np.int64))
    past = np.zeros(n_groups) if past is None else np.asarray(past, dtype=float)
    means = (curves + past[:, None]) / groups.sizes[:, None]
    # Curves are minima over charges: concave up to rounding, which must not stop the filling.
    lift = np.diff(means, axis=1)
    small = NO_GAIN * max(LEAST_VALUE, float(np.abs(means).max()))
    useful = lift > small
    if kind.lowest_first:
        urgency = -means[:, :-1]
    else:
        urgency = kind.weights(groups)[:, None] * np.diff(kind.each(means), axis=1)
    taken = np.zeros(n_groups, dtype=np.int64)
    order: list[int] = []
    budgets = taken.copy()
    group = np.arange(n_groups)
    for unit in range(budget + beyond):
        at = np.minimum(taken, lift.shape[1] - 1) if lift.shape[1] else taken
        able = (taken < most) & (useful[group, at] if lift.shape[1] else False)
        if not able.any():
            break
        now = np.where(able, urgency[group, at], -np.inf)
        chosen = int(now.argmax())
        taken[chosen] += 1
        order.append(chosen)
        if unit < budget:
            budgets[chosen] += 1
    return Shares(budgets, np.array(order, dtype=np.int64), max(0, budget - len(order)))
