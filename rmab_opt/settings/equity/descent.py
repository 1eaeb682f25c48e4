"""Weights of groups and prices by a quasi-Newton descent, where cuts would take a program of many rows a step.

Arms that draw their actions (:meth:`~.arms.Arms.evaluate` with heat) have values smooth in weights and prices, so a
gradient step knows the curvature of hundreds of them at once. Nothing is proven here: the point found is where the
proof looks first, and the drawn actions there nearly keep the limits, so that mixtures of a few such plans do.
"""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter

import numpy as np
from scipy import sparse

from rmab_opt.settings.equity.arms import Arms, Plans
from rmab_opt.settings.equity.master import Multipliers
from rmab_opt.settings.equity.relaxed import Stage
from rmab_opt.settings.equity.resources import Resources

__all__ = ["HEATS", "MANY", "descended"]

HEATS = ((0.03, 1e-5), (0.004, 1e-6), (0.001, 1e-7))
"""Heats of the drawn actions, as shares of the span of an arm's weighted rewards, and the relative progress of a step
that ends each descent; each begins where the last ended."""

MANY = 100
"""Types of arms from which descents pay: of few, single arms jump."""

MEMORY, MOST = 30, 150
"""Steps that the curvature is read from, and evaluations of each heat."""

PRICE = 0.3
"""Price at which the first descent begins, in rewards."""

SHARE = 4.0
"""Unit of a share, in even shares: groups' values answer less to their weights than use does to prices."""


class _Late(Exception):
    """The clock ended a descent."""


def descended(
    arms: Arms,
    per_mean: sparse.csr_array,
    resources: Resources,
    past: np.ndarray,
    stage: Stage,
    span: float,
    start: Multipliers | None,
    heat: tuple[float, float],
    until: float | None,
) -> tuple[Multipliers, Plans]:
    """Multipliers where a stage's smooth bound is nearly least, and the plans drawn there.

    Parameters
    ----------
    per_mean
        What a cell's total adds to each group's mean, (K, Q).
    past
        What groups have collected, (K,).
    stage
        Its objective must be linear in the groups' values, or their least.
    span
        Largest difference of rewards.
    start
        Where to begin; every group alike and the same price in every round by default.
    heat
        Heat and what ends the descent, see :data:`HEATS`.
    until
        Time of the clock (``perf_counter``) after which no further evaluation begins.
    """
    from scipy.optimize import minimize

    n_groups, (horizon, n_rows) = per_mean.shape[0], resources.limit.shape
    seen = np.ones(n_groups, dtype=bool) if stage.free is None else stage.free
    held = np.flatnonzero(np.isfinite(stage.floors))
    even = seen / seen.sum() if stage.weights is None else stage.weights
    usual = float((even @ per_mean)[arms.cell].mean()) * span
    cost = abs(resources.matrix)
    typical = cost.sum(axis=1) / np.maximum(np.diff(cost.indptr), 1)
    unit = [
        np.full(int(seen.sum()) if stage.free is not None else 0, SHARE / seen.sum()),
        np.full(len(held), 1.0 / n_groups),
        np.tile(usual / np.maximum(typical, 1e-12), horizon),
    ]
    ends = np.cumsum([len(part) for part in unit])
    scale = np.concatenate(unit)
    rent = arms.round[:, None] * resources.limit
    share, floor = even.astype(float), np.zeros(n_groups)
    prices = np.where(resources.equal, 0.0, PRICE) * unit[2].reshape(horizon, n_rows)
    if start is not None:
        share, floor, _, prices = start

    def told(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Share and floors' prices (K,), prices (T, R) and the sum of the shares before they were made to sum to one.

        The bound is as many times as large as its multipliers are, so the ray they lie on is all that counts.
        """
        own, at_floor, price = np.split(scaled * scale, ends[:2])
        total = float(own.sum()) if stage.free is not None else 1.0
        whole = even
        if stage.free is not None:
            whole = np.zeros(n_groups)
            whole[seen] = own / total
        floors = np.zeros(n_groups)
        floors[held] = at_floor / total
        return whole, floors, price.reshape(horizon, n_rows) / total, total

    def drawn(whole: np.ndarray, floors: np.ndarray, price: np.ndarray) -> Plans:
        return arms.evaluate((whole + floors) @ per_mean, price, heat=heat[0] * usual)

    best = (np.inf, np.zeros(0))

    def value(scaled: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        if until is not None and len(best[1]) and perf_counter() >= until:
            raise _Late
        whole, floors, price, total = told(scaled)
        found = drawn(whole, floors, price)
        use = np.zeros((n_rows, horizon))
        np.add.at(use, arms.pair_row, found.use)
        means = past + per_mean @ found.values
        slopes = rent - arms.round[:, None] * use.T
        bound = found.total + float((rent * price).sum()) + float((whole + floors) @ past)
        bound -= float(floors[held] @ stage.floors[held])
        kept = means[held] - stage.floors[held]
        inner = float(means @ whole) + float(floors[held] @ kept) + float((slopes * price).sum())
        own = (means[seen] - inner) if stage.free is not None else np.zeros(0)
        if bound < best[0]:
            best = (bound, scaled.copy())
        return bound, np.concatenate([own, kept, slopes.ravel()]) * scale / total

    first = np.concatenate([share[seen] if stage.free is not None else np.zeros(0), floor[held], prices.ravel()])
    # A share of nothing at all could leave no weight at all.
    least = np.concatenate([1e-6 / SHARE * np.ones(ends[0]), np.zeros(len(held))])
    lower = np.concatenate([least, np.where(np.tile(resources.equal, horizon), -np.inf, 0.0)])
    options = {"maxfun": MOST, "maxiter": MOST, "maxcor": MEMORY, "ftol": heat[1], "gtol": 0.0}
    with suppress(_Late):
        minimize(
            value,
            np.maximum(first / scale, lower),
            jac=True,
            method="L-BFGS-B",
            bounds=[(low, None) for low in lower],
            options=options,
        )
    whole, floors, price, _ = told(best[1])
    return (whole, floors, np.zeros(n_groups), price), drawn(whole, floors, price)
