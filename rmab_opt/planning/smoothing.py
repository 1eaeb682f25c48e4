"""Prices of many rows and arms by a quasi-Newton method, for bounds that cuts would take too many evaluations for.

Where actions are drawn with chances that fall off with what they lose, the arms' values under prices are smooth in the
prices, and a gradient step knows the curvature of hundreds of them at once; cuts would need an evaluation or more a
price. The bound is evaluated without smoothing at the prices found. The drawn actions, less what of them passes a
limit, are a point of the relaxed problem itself: its value is certified from below.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse

__all__ = ["COLD", "ROUGH", "Drawn", "Problem", "Smoothed", "smoothed"]

Floats = np.ndarray

HEATS = ((0.03, 1e-6), (0.004, 1e-8), (0.002, 1e-9), (0.001, 1e-10))
"""Heat of the drawn actions, as a share of the largest difference between rewards, and the relative progress of a step
at which its search ends; each begins where the last ended."""

ROUGH, COLD = HEATS[:1], ((0.0, 1e-9),)
"""For a sample; and without heat, where single arms weigh too little to be felt."""

MEMORY, MOST = 30, 150
"""Steps that the curvature is read from, and evaluations of each heat."""

NEVER = 1e6
"""Price, in its unit, at which nobody acts."""


class Drawn(NamedTuple):
    """What arms that draw their actions come to under prices."""

    total: float
    """The smooth value of all arms together, prices taken off."""
    acted: Floats
    """Expected actions, (T, N, A)."""
    earned: Floats
    """Rewards without prices, (N,)."""


class Problem(NamedTuple):
    """Minimise ``drawn(price, heat).total + rent @ price`` over ``0 <= price <= high``."""

    drawn: Callable[[Floats, float], Drawn]
    hard: Callable[[Floats], float]
    """The bound itself at a price, rent included."""
    rows: sparse.csr_array
    """What each arm's action takes of each row, (K, N * A)."""
    limit: Floats
    """(T, K)."""
    weight: Floats
    """What a unit of each row counts in the value, (T, K)."""
    high: Floats
    """(T * K,)."""
    unit: Floats
    """(T * K,)."""
    span: float
    """Of rewards."""


@dataclass(frozen=True)
class Smoothed:
    """Prices and what they prove: no policy above ``value``, and the relaxed problem attains ``lower``."""

    price: Floats
    value: float
    lower: float
    use: Floats
    evaluations: int

    def closed(self, tolerance: float) -> bool:
        """Whether the two are within a relative gap."""
        return self.value - self.lower <= tolerance * max(1.0, abs(self.value))


def smoothed(
    problem: Problem,
    first: Floats,
    tolerance: float,
    deadline: float,
    heats: tuple[tuple[float, float], ...] = HEATS,
) -> Smoothed:
    """The best prices that descents at falling heats come to.

    Parameters
    ----------
    first
        Where to begin, (T * K,).
    tolerance
        Relative gap at which no further heat is tried.
    deadline
        ``time.perf_counter()`` after which no further evaluation begins; what is found until then is valid.
    heats
        Heats and what ends each, see :data:`HEATS`; :data:`COLD` for arms whose best actions are taken as they are.
    """
    price, count = np.clip(first, 0.0, problem.high), 0
    best = Smoothed(price, problem.hard(price), -np.inf, np.full(problem.limit.shape, np.nan), 1)
    idle = problem.drawn(price + NEVER * problem.unit, heats[0][0] * problem.span).earned
    for heat, progress in heats:
        price, tried = _descent(problem, price, heat * problem.span, progress, deadline)
        count += tried
        drawn = problem.drawn(price, heat * problem.span)
        lower, use = _within(problem, drawn, idle)
        value = problem.hard(price)
        better = value < best.value
        best = Smoothed(
            price if better else best.price,
            min(value, best.value),
            max(lower, best.lower),
            use if lower > best.lower else best.use,
            count + 1,
        )
        if best.closed(tolerance) or time.perf_counter() > deadline:
            break
    return best


class _Late(Exception):
    """The deadline passed while a descent went on."""


def _descent(problem: Problem, price: Floats, heat: float, progress: float, deadline: float) -> tuple[Floats, int]:
    """(prices at which the smooth function is nearly least, evaluations)."""
    from scipy.optimize import minimize

    rent, weight, unit = (problem.limit * problem.weight).ravel(), problem.weight.ravel(), problem.unit
    shape, tried = problem.limit.shape, 0
    found = price
    least = np.inf
    size = max(1.0, float(np.abs(rent).sum())) * problem.span

    def value(scaled: Floats) -> tuple[float, Floats]:
        nonlocal tried, found, least
        if tried and time.perf_counter() > deadline:
            raise _Late
        tried += 1
        at = scaled * unit
        drawn = problem.drawn(at, heat)
        used = _use(problem.rows, drawn.acted).reshape(shape).ravel()
        total = drawn.total + float(rent @ at)
        if total < least:
            least, found = total, at
        return total / size, (rent - weight * used) * unit / size

    options = {"maxfun": MOST, "maxiter": MOST, "maxcor": MEMORY, "ftol": progress, "gtol": 0.0}
    ends = list(zip(np.zeros(len(unit)), problem.high / unit, strict=True))
    with suppress(_Late):
        minimize(value, price / unit, jac=True, method="L-BFGS-B", bounds=ends, options=options)
    return found, tried


def _use(rows: sparse.csr_array, acted: Floats) -> Floats:
    """What expected actions (T, N, A) take of each row, (T, K)."""
    return np.asarray((rows @ acted.reshape(len(acted), -1).T).T)


def _within(problem: Problem, drawn: Drawn, idle: Floats) -> tuple[float, Floats]:
    """(value of the drawn actions once each arm rests from the start with the chance that its rows ask for, use)."""
    limit, (_, n_arms, n_actions) = problem.limit, drawn.acted.shape
    acted = drawn.acted.copy()
    entries = np.diff(problem.rows.indptr)
    members = sparse.csr_array(
        (np.ones(problem.rows.nnz), problem.rows.indices // n_actions, problem.rows.indptr),
        shape=(problem.rows.shape[0], n_arms),
    )
    share = np.ones(n_arms)
    # Small rows first: what they take off counts for those over many arms as well.
    wide = 2 * entries > n_arms
    for part in (np.flatnonzero(~wide), np.flatnonzero(wide)):
        if not part.size:
            continue
        used = _use(problem.rows[part], acted)
        over = np.where(used > 0, limit[:, part] / np.where(used > 0, used, 1.0), 1.0).min(axis=0)
        own = members[part]
        keep = np.ones(n_arms)
        np.minimum.at(keep, own.indices, np.repeat(np.minimum(over, 1.0), np.diff(own.indptr)))
        share *= keep
        acted *= keep[None, :, None]
    value = float((idle + share * (drawn.earned - idle)).sum())
    return value, _use(problem.rows, acted)
