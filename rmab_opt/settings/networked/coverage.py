"""Coverage functions of a set: lazy greedy, and a ceiling by tangents that no allowed set is above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.actions.shape import Room, Shape
from rmab_opt.overdue import checkpoint

__all__ = ["Coverage", "ceiling", "celf"]

STEPS, FEWEST = 120, 20
"""Most and fewest tangents that a ceiling is looked for with; on power-law graphs ten come within 1 % and forty within
0.4 %."""

ENTRIES = 40_000_000
"""Entries of rows that all tangents together look at, from which only the fewest are taken: two seconds."""

SOFT = 0.3
"""Columns around one over which a covered row's slope falls from 1 to 0 while the tangent is looked for."""

STEEP = 8.0
"""Largest -log(1 - share) with which a tangent's place is computed; a share of 1 covers its row whatever follows."""


@dataclass(frozen=True, eq=False)
class Coverage:
    """f(A) = constant + sum of linear over A + sum over rows k of worth_k (1 - product over A in k of (1 - share))."""

    constant: float
    linear: np.ndarray
    share: np.ndarray
    """What choosing a column takes of a row's remaining worth, (C,); 1 in scenarios."""
    rows_of: sparse.csc_array
    """(K, C) of ones."""
    worth: np.ndarray

    def gains(self, left: np.ndarray) -> np.ndarray:
        """Gain of each column, (C,), when rows still have ``left`` to gain."""
        return self.linear + self.share * (self.rows_of.T @ left)


def celf(cover: Coverage, fits: Room, *, cost: np.ndarray | None = None) -> tuple[list[int], float, np.ndarray, int]:
    """Lazy greedy: the best gain (or gain by cost) next, recomputed only for candidates that come out on top.

    Parameters
    ----------
    cover
        A monotone submodular value; gains computed earlier are upper limits of gains now.
    fits
        Says whether a column can still be added, and takes it. A column that does not fit never will.
    cost
        Gains are divided by it; columns without cost come first.

    Returns
    -------
    tuple
        (columns in order of choice, gain, what rows have left (K,), gains computed).

    References
    ----------
    Minoux (1978); Leskovec et al. (2007).
    """
    left = cover.worth.copy()
    gains = cover.gains(left)
    per = np.ones(len(gains)) if cost is None else 1.0 / np.maximum(cost, 1e-12)
    upper, stamp = gains * per, np.zeros(len(gains), dtype=np.int64)
    least = 1e-12 * max(1.0, float(gains.max(initial=0.0)))
    chosen: list[int] = []
    total, counted = 0.0, len(gains)
    indptr, indices, linear, share = cover.rows_of.indptr, cover.rows_of.indices, cover.linear, cover.share
    while True:
        checkpoint()
        column = int(np.argmax(upper))
        if upper[column] <= least * per[column]:
            return chosen, total, left, counted
        if not fits(column):
            # All that no longer fit go at once: what is full stays full.
            gone = np.ones(len(upper), dtype=bool)
            gone[fits.fitting(np.flatnonzero(~np.isneginf(upper)))] = False
            upper[gone] = -np.inf
            continue
        if stamp[column] != len(chosen):
            gains[column] = linear[column] + share[column] * left[indices[indptr[column] : indptr[column + 1]]].sum()
            upper[column], stamp[column] = gains[column] * per[column], len(chosen)
            counted += 1
            continue
        fits.take(column)
        chosen.append(column)
        total += float(gains[column])
        left[indices[indptr[column] : indptr[column + 1]]] *= 1.0 - share[column]
        upper[column] = -np.inf


def ceiling(
    cover: Coverage, shape: Shape, action: np.ndarray, value: float, *, enough: float = 0.0, most: int = STEPS
) -> float:
    """An upper limit of f over all allowed sets, by tangents found with the Frank-Wolfe method from ``action`` on.

    With t = -log(1 - share), what a row has covered is 1 - exp(-t . a), concave in a. For every place T >= 0 of a row
    and every 0/1 action it is at most 1 - exp(-T) (1 + T) + sum over chosen n of exp(-T) min(t_n, 1 + T): the tangent
    at T, or, where some chosen t_n is above 1 + T, at least 1. The sum over rows is linear in the action, and its
    largest value over the set is an upper limit whatever the places; those at the mean of the maximisers so far make it
    nearly the least.

    Parameters
    ----------
    shape
        Of the set; its relaxation's value is taken where it does not maximise exactly.
    action
        Allowed, 0/1 (C,), with f(action) = ``value``: the places begin there.
    enough
        Relative distance to ``value`` at which the search for a lower limit ends.

    most
        Tangents.

    References
    ----------
    Frank, Wolfe (1956); Jaggi (2013).
    """
    rows = sparse.csr_array(cover.rows_of)
    whole = bool((cover.share == 1.0).all())
    steep = np.full(len(cover.share), np.inf)
    np.log1p(-cover.share, out=steep, where=cover.share < 1.0)
    steep = np.abs(steep)
    row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    mean, mixed = np.asarray(action, dtype=np.float64), np.minimum(steep, STEEP)
    best = np.inf
    for step in range(min(most, int(np.clip(ENTRIES // max(1, rows.nnz), FEWEST, STEPS)))):
        checkpoint()
        if whole:
            # Only 1 + T and exp(-T) as one number matter: the row's price between 0 and 1.
            price = np.clip((1.0 - rows @ mean) / SOFT + 0.5, 0.0, 1.0)
            slopes = rows.T @ (cover.worth * price)
        else:
            place = rows @ (mixed * mean)
            price = np.exp(-place) * (1.0 + place)
            part = np.exp(-place[row]) * np.minimum(steep[rows.indices], 1.0 + place[row])
            slopes = np.bincount(rows.indices, cover.worth[row] * part, minlength=len(steep))
        found = shape.best((cover.linear + slopes)[None])
        here = cover.constant + float(cover.worth @ (1.0 - price)) + float(found.values[0])
        best = min(best, here + 1e-12 * (abs(here) + float(cover.worth.sum())))
        if best - value <= enough * abs(value):
            break
        mean += (found.actions[0] - mean) * 2.0 / (step + 3.0)
    return best
