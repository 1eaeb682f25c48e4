"""Whole budgets for groups from their value curves, unit by unit: the greedy rules that are exact on concave curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmab_opt.errors import ModelError
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.welfare import LEAST_VALUE, Welfare

__all__ = ["Shares", "doubtful", "share_units"]

NO_GAIN = 1e-7
"""A unit that lifts a group's mean by less, relative to the largest mean, lifts nothing: single precision."""


SAME = 1e-9
"""Units whose urgencies differ by less, relative to the largest, are equally urgent."""


@dataclass(frozen=True, eq=False)
class Shares:
    """Units in the order in which the welfare asks for them.

    ``budgets`` (K,) are the first units given; ``order`` lists the group of every unit that gains, the most urgent
    first, ``level`` how many distinct urgencies stand before it and ``worth`` by how much it lifts a welfare that is
    a sum (zero for ``max_min`` and ``leximin``, of which only the order counts). ``left`` counts units nobody gains by.
    """

    budgets: np.ndarray
    order: np.ndarray
    level: np.ndarray
    worth: np.ndarray
    left: int


def share_units(
    curves: np.ndarray,
    budget: int,
    groups: Groups,
    *,
    welfare: str | float | Welfare = "leximin",
    past: np.ndarray | None = None,
    caps: np.ndarray | None = None,
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

    Notes
    -----
    ``max_min`` and ``leximin`` raise the lowest group; one that the next unit does not lift is left as it is and the
    others go on, so nothing is spent where it has no effect. Other welfares give each unit where it gains most;
    optimal for separable concave functions (Federgruen, Groenevelt 1986). Ties go to the first group.

    The whole order is returned: of two sets of units that some constraints allow, the one that holds the more urgent
    unit where they first differ has the leximin-larger group values, because a group's value is the urgency of its
    first missing unit.
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
    gains = np.diff(means, axis=1) > NO_GAIN * max(LEAST_VALUE, float(np.abs(means).max()))
    useful = np.logical_and.accumulate(gains & (np.arange(gains.shape[1]) < most[:, None]), axis=1)
    if kind.lowest_first:
        late, worth = means[:, :-1], np.zeros(gains.shape)
    else:
        worth = kind.weights(groups)[:, None] * np.diff(kind.each(means), axis=1)
        late = -worth
    # Curves are minima over charges: concave up to rounding, which must not bring a later unit before an earlier one.
    late = np.maximum.accumulate(late, axis=1)
    group, unit = np.nonzero(useful)
    when = late[group, unit]
    rank = np.lexsort((unit, group, when))
    step = np.diff(when[rank], prepend=when[rank[:1]]) > SAME * max(LEAST_VALUE, float(np.abs(when).max(initial=0.0)))
    order = group[rank]
    budgets = np.bincount(order[:budget], minlength=n_groups)
    return Shares(budgets, order, np.cumsum(step), worth[group, unit][rank], max(0, budget - len(order)))


def doubtful(
    lower: np.ndarray,
    upper: np.ndarray,
    shares: Shares,
    groups: Groups,
    *,
    welfare: str | float | Welfare = "leximin",
    past: np.ndarray | None = None,
    caps: np.ndarray | None = None,
) -> np.ndarray:
    """Values of curves known between two limits, (K, J + 1), on which the budgets of ``shares`` may hang, bool.

    Where none is, :func:`share_units` gives the same budgets for every concave curve between the limits. A group's
    units come in their order, so only the last one given and the first one not given of each are compared.
    """
    kind = Welfare.of(welfare)
    past = np.zeros(len(groups)) if past is None else np.asarray(past, dtype=float)
    low, high = ((curve + past[:, None]) / groups.sizes[:, None] for curve in (lower, upper))
    size = max(LEAST_VALUE, float(np.abs(high).max()))
    most = np.minimum(lower.shape[1] - 1, groups.sizes.astype(np.int64))
    if caps is not None:
        most = np.minimum(most, np.asarray(caps, dtype=np.int64))
    found = np.zeros(lower.shape, dtype=bool)
    given, ahead = np.flatnonzero(shares.budgets > 0), np.flatnonzero(shares.budgets < most)
    last, first = shares.budgets[given] - 1, shares.budgets[ahead]

    def mark(group: np.ndarray, unit: np.ndarray) -> None:
        for value in (unit, unit + 1):
            found[group, value] |= high[group, value] - low[group, value] > 0

    # Whether a unit gains at all decides whether it, and those after it, are asked for.
    for group, unit in ((given, last), (ahead, first)):
        gain = high[group, unit + 1] - low[group, unit], low[group, unit + 1] - high[group, unit]
        unsure = (gain[0] > NO_GAIN * size) & (gain[1] <= NO_GAIN * size)
        mark(group[unsure], unit[unsure])
    if shares.left or not len(given) or not len(ahead):
        return found
    weights = kind.weights(groups)

    def late(group: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Earliest and latest that a unit can come."""
        if kind.lowest_first:
            return low[group, unit], high[group, unit]
        most_worth = kind.each(high[group, unit + 1]) - kind.each(low[group, unit])
        least_worth = kind.each(low[group, unit + 1]) - kind.each(high[group, unit])
        return -weights[group] * most_worth, -weights[group] * least_worth

    of_given, of_ahead = late(given, last), late(ahead, first)
    scale = SAME * max(LEAST_VALUE, float(np.abs(np.concatenate([*of_given, *of_ahead])).max()))
    gains = high[ahead, first + 1] - low[ahead, first] > NO_GAIN * size
    if not gains.any():
        return found
    late_given, early_ahead = of_given[1] > of_ahead[0][gains].min() + scale, of_ahead[0] < of_given[1].max() - scale
    mark(given[late_given], last[late_given])
    mark(ahead[early_ahead & gains], first[early_ahead & gains])
    return found
