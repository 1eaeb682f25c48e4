"""Prices of many rows and arms by a quasi-Newton method, for bounds that cuts would take too many evaluations for.

Where actions are drawn with chances that fall off with what they lose, the arms' values under prices are smooth in the
prices, and a gradient step knows the curvature of hundreds of them at once; cuts would need an evaluation or more a
price. The bound is evaluated without smoothing at the prices found. The drawn actions, less what of them passes a
limit, round by round, are a point of the relaxed problem itself: its value is certified from below.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import sparse

from rmab_opt.overdue import checkpoint

__all__ = ["COLD", "FINE", "ROUGH", "Drawn", "Problem", "Rests", "Smoothed", "smoothed"]

Floats = np.ndarray

HEATS = ((0.03, 1e-6), (0.004, 1e-8), (0.002, 1e-9), (0.001, 1e-10))
"""Heat of the drawn actions, as a share of the largest difference between rewards, and the relative progress of a step
at which its search ends; each begins where the last ended."""

ROUGH, FINE, COLD = ((0.03, 1e-5), (0.004, 1e-6)), HEATS[2:], ((0.0, 1e-9),)
"""For a sample, and after it for all; and without heat, where single arms weigh too little to be felt."""

MEMORY, MOST, LOOKED = 30, 150, 15
"""Steps that the curvature is read from, evaluations of each heat, and those after which the gap is looked at."""


class Drawn(NamedTuple):
    """What arms that draw their actions come to under prices."""

    total: float
    """The smooth value of all arms together, prices taken off."""
    acted: Floats
    """Expected actions, (T, N, A)."""


class Problem(NamedTuple):
    """Minimise ``drawn(price, heat).total + rent @ price`` over ``0 <= price <= high``."""

    drawn: Callable[[Floats, float], Drawn]
    hard: Callable[[Floats], float]
    """The bound itself at a price, rent included."""
    within: Callable[[Floats, float], tuple[float, Floats]]
    """What drawn actions earn where arms rest with the chance that their rows ask for, and use of the rows (T, K)."""
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
    looked = (price, np.inf, best.value)

    def enough(at: Floats, heat: float) -> bool:
        nonlocal best, looked
        here = np.array_equal(at, looked[0])
        if here and heat == looked[1]:
            return best.closed(tolerance)
        lower, use = problem.within(at, heat)
        value = looked[2] if here else problem.hard(at)
        looked = (at, heat, value)
        best = Smoothed(
            at if value < best.value else best.price,
            min(value, best.value),
            max(lower, best.lower),
            use if lower > best.lower else best.use,
            count,
        )
        return best.closed(tolerance)

    for share, progress in heats:
        heat = share * problem.span
        # Without a gap to stop at, nobody asks for it on the way.
        look = partial(enough, heat=heat) if tolerance > 0 else None
        price, tried = _descent(problem, price, heat, progress, deadline, look)
        count += tried
        if enough(price, heat) or time.perf_counter() > deadline:
            break
    return replace(best, evaluations=count + 1)


class _Enough(Exception):
    """The deadline passed while a descent went on, or the gap is closed."""


def _descent(
    problem: Problem,
    price: Floats,
    heat: float,
    progress: float,
    deadline: float,
    look: Callable[[Floats], bool] | None,
) -> tuple[Floats, int]:
    """(prices at which the smooth function is nearly least, evaluations); ended early where ``look`` says so."""
    from scipy.optimize import minimize

    rent, weight, unit = (problem.limit * problem.weight).ravel(), problem.weight.ravel(), problem.unit
    shape, tried = problem.limit.shape, 0
    found = price
    least = np.inf
    size = max(1.0, float(np.abs(rent).sum())) * problem.span

    def value(scaled: Floats) -> tuple[float, Floats]:
        nonlocal tried, found, least
        late = time.perf_counter() > deadline
        if (late and tried) or (not late and look is not None and not tried % LOOKED and look(found)):
            raise _Enough
        checkpoint()
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
    with suppress(_Enough):
        minimize(value, price / unit, jac=True, method="L-BFGS-B", bounds=ends, options=options)
    return found, tried


def _use(rows: sparse.csr_array, acted: Floats) -> Floats:
    """What expected actions (T, N, A) take of each row, (T, K)."""
    return np.asarray((rows @ acted.reshape(len(acted), -1).T).T)


class Rests:
    """With what chance arms must rest so that no row passes its limit."""

    def __init__(self, rows: sparse.csr_array, n_actions: int) -> None:
        n_arms = rows.shape[1] // n_actions
        members = sparse.csr_array(
            (np.ones(rows.nnz), rows.indices // n_actions, rows.indptr.copy()), (rows.shape[0], n_arms)
        )
        members.sum_duplicates()
        wide = 2 * np.diff(members.indptr) > n_arms
        # Small rows first: what they take off counts for those over many arms as well.
        self.parts = []
        for own in (np.flatnonzero(~wide), np.flatnonzero(wide)):
            if own.size:
                part = sparse.csr_array(rows[own])
                row = np.repeat(np.arange(own.size), np.diff(part.indptr))
                self.parts.append((own, part, row, part.indices // n_actions))

    def share(self, acted: Floats, limit: Floats) -> Floats:
        """Chance to act all the same, (N,), of expected actions (T, N, A) under limits (T, K)."""
        share = np.ones(acted.shape[1])
        for own, rows, row, arm in self.parts:
            used = _use(rows, acted * share[None, :, None])
            over = np.where(used > 0, limit[:, own] / np.where(used > 0, used, 1.0), 1.0).min(axis=0)
            keep = np.ones(len(share))
            np.minimum.at(keep, arm, np.minimum(over, 1.0)[row])
            share *= keep
        return share
