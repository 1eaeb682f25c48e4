"""A network's largest value over a set, proven by one concave quadratic function above it: where neurons are many.

In the first layer z = weight a + bias let r = max(0, z). At every allowed action

    r (z - r) = 0,  r >= 0,  r >= z,  r <= the line above,  r (most - r) >= 0,  a (a - 1) = 0,

and a column times the room left in a row, a_j (limit - w . a), is not negative either. In the second layer,
y = V r + s, max(0, y) stays below a parabola between its ends, and above alpha y. Added to the network with multipliers
these make a quadratic function of (a, r) that lies above it. Where its matrix has a Cholesky factor with a margin it is
concave, so it lies below its tangent at any point, and a tangent is linear: r is taken at its better end, a by weak
duality. Multipliers, point, rows and prices are read from a proof; whatever they are, the limit holds: signs are
clipped here, what lacks for being concave is added, and ends of neurons are computed anew. Numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmab_opt.actions.checker import EPS, Rows, price_bound, sum_outward
from rmab_opt.decisions.leaves import Layers, Leaves

__all__ = ["MOST_IMPLIED", "Multipliers", "ends_of", "implied", "limit", "tangent"]

Floats = NDArray[np.float64]

MOST_IMPLIED = 200
"""Rows that a proof may imply."""

LEAST = 1e-3
"""The neurons' own part is kept above this share of the mean of what r (z - r) has, so that the best r is stable."""

TRIES = 10
"""Times that more is added to the columns' squares until the whole is concave, ten times as much each time."""


@dataclass(frozen=True, eq=False)
class Multipliers:
    """What a quadratic is made of; any finite numbers are valid.

    Parameters
    ----------
    neurons
        Of r (z - r), r (most - r), r, r - z, line - r; shape (5, neurons of the first layer); all but the first count
        as 0 where negative.
    bends
        Curve and slope of the parabola above max(0, y), slope of the line below; shape (3, neurons of
        the second layer).
    columns
        Where the tangent is taken; of a (1 - a); of a times the room of a row, 0 where negative; which implied row,
        counted from 0, none where there is no such row; shape (4, C).
    implied
        Prices of the set's rows, each of which make one row over the columns alone; shape (rows implied, rows).
    """

    neurons: Floats
    bends: Floats
    columns: Floats
    implied: Floats

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers."""
        return all(bool(np.isfinite(part).all()) for part in (self.neurons, self.bends, self.columns, self.implied))


class _Row(NamedTuple):
    weight: Floats
    most: float


class _Bends(NamedTuple):
    """The layers after the first: at most constant + level . y + curve . y^2, where y = outer r + shift."""

    outer: Floats
    shift: Floats
    level: Floats
    curve: Floats
    constant: float
    size: float


def limit(
    layers: Layers, rows: Rows, multipliers: Multipliers, prices: Floats, *, tables: tuple[int, ...] = ()
) -> float:
    """No action of the rows is worth more than this; infinite where nothing is proven.

    Parameters
    ----------
    prices, tables
        For the tangent, as :func:`rmab_opt.actions.checker.price_bound` takes them.
    """
    found = tangent(layers, rows, multipliers)
    if found is None or len(prices) != len(rows.row_lower) or not np.isfinite(prices).all():
        return np.inf
    cost = np.zeros(len(rows.lower))
    cost[rows.act] = found[0]
    bound = price_bound(rows, cost, found[1], prices, tables=tables)
    return bound if np.isfinite(bound) else np.inf


def tangent(layers: Layers, rows: Rows, multipliers: Multipliers) -> tuple[Floats, float] | None:
    """(cost of each column (C,), constant): a linear function above the network at every action of the rows.

    None where the arrays do not fit, the first layer is no plain ReLU of any gain, or numbers are too large.
    """
    sizes = [len(bias) for bias in layers.bias]
    fits = bool(sizes) and not layers.slope[0].any() and multipliers.finite
    fits = fits and multipliers.neurons.shape == (5, sizes[0]) and multipliers.columns.shape == (4, len(layers.skip))
    fits = fits and multipliers.bends.shape == (3, sizes[1] if len(sizes) > 1 else 0)
    fits = fits and multipliers.implied.shape[1:] == rows.row_lower.shape and len(multipliers.implied) <= MOST_IMPLIED
    if not fits:
        return None
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        try:
            cost, constant = _tangent(layers, rows, multipliers)
        except np.linalg.LinAlgError:
            return None
    return (cost, constant) if np.isfinite(cost).all() and np.isfinite(constant) else None


def _tangent(layers: Layers, rows: Rows, given: Multipliers) -> tuple[Floats, float]:
    n = len(layers.skip)
    own_rows = [implied(rows, prices) for prices in given.implied]
    ends = ends_of(layers, rows, own_rows)
    # Neurons that are never on stand nowhere.
    alive = ends[0][1] > 0
    weight, bias, least, top = layers.weight[0][alive], layers.bias[0][alive], ends[0][0][alive], ends[0][1][alive]
    square, (room, on, over, under) = given.neurons[0, alive], np.maximum(given.neurons[1:, alive], 0.0)
    rise = np.where(least < 0, top / np.where(least < 0, top - least, 1.0), 1.0)
    height = np.maximum(top - rise * top, np.maximum(least, 0.0) - rise * least)
    point, own, share = given.columns[0], given.columns[1], np.maximum(given.columns[2], 0.0)
    row = given.columns[3]
    bends = _bends(layers, ends, given.bends)
    outer = bends.outer[:, alive]

    # The quadratic: constant + of_a . a + of_r . r - a' aa a + 2 a' ar r - r' rr r.
    constant = layers.constant + bends.constant - float(over @ bias) + float(under @ (rise * bias + height))
    of_a = layers.skip + weight.T @ (under * rise - over)
    of_r = square * bias + room * top + on + over - under + outer.T @ bends.level
    constant += float(bends.level @ bends.shift + bends.curve @ bends.shift**2)
    of_r = of_r + 2.0 * outer.T @ (bends.curve * bends.shift)
    pull = outer.T @ (bends.curve[:, None] * outer)
    ar = 0.5 * (square[:, None] * weight).T
    aa = np.zeros((n, n))
    size_a = 0.0
    for k, each in enumerate(own_rows):
        inside = np.where(row == k, share, 0.0)
        if np.isfinite(each.most) and inside.any():
            both = np.outer(inside, each.weight)
            aa += 0.5 * (both + both.T)
            of_a = of_a + each.most * inside
            size_a += float(np.abs(both).sum() + abs(each.most) * inside.sum())

    # What lacks for being concave: first in r alone, then in both.
    rr = np.diag(square + room) - pull
    lacking = LEAST * float(np.abs(square).sum()) / max(1, len(square)) - float(
        np.linalg.eigvalsh(rr).min(initial=np.inf)
    )
    if lacking > 0:
        room, of_r = room + lacking, of_r + lacking * top
        rr[np.diag_indices(len(rr))] += lacking
    own = _concave(aa, ar, rr, own)
    aa[np.diag_indices(n)] += own
    of_a = of_a + own

    # The tangent at the point and the best r for it; r need not be exact, its slope is met by r's ends.
    r = np.linalg.solve(rr, ar.T @ point + 0.5 * of_r)
    slope_a = of_a - 2.0 * (aa @ point) + 2.0 * (ar @ r)
    slope_r = of_r - 2.0 * (rr @ r) + 2.0 * (ar.T @ point)
    at_point = float(point @ aa @ point - 2.0 * (point @ ar @ r) + r @ rr @ r)
    at_r = np.maximum(slope_r * top, slope_r * np.maximum(least, 0.0))

    # Sizes of all terms that stand in these sums, at the largest (a, r) that is met: the scale of rounding.
    a_size, r_size = np.maximum(1.0, np.abs(point)), np.maximum(top, np.abs(r))
    z_size = np.abs(weight) @ a_size + np.abs(bias)
    y_size = np.abs(outer) @ r_size + np.abs(bends.shift)
    size = abs(layers.constant) + float(np.abs(layers.skip) @ a_size) + bends.size
    size += float(np.abs(bends.level) @ y_size + bends.curve @ y_size**2)
    size += float((over + under) @ (z_size + r_size) + under @ height + np.abs(square) @ (r_size * (z_size + r_size)))
    size += float(on @ r_size + room @ (r_size * (top + r_size)) + 2.0 * np.abs(own) @ a_size**2)
    size += size_a * float(a_size.max() ** 2)
    slack = 16.0 * (n + sum(len(b) for b in layers.bias) + 16) * EPS * size
    return slope_a, sum_outward(np.array([constant, at_point, slack]), at_r)


def _concave(aa: Floats, ar: Floats, rr: Floats, own: Floats) -> Floats:
    """``own`` raised until the matrix of both, with it on the columns' diagonal, has a Cholesky factor with a margin.

    Cholesky's rounding is at most k eps of the roots of the diagonal's products, entry by entry, in a matrix of size k:
    a matrix less k^2 eps of its diagonal that has a factor is positive definite.
    """
    n, m = ar.shape
    rest = aa - ar @ np.linalg.solve(rr, ar.T)
    unit = np.maximum(np.abs(own), 1e-6 * float(np.abs(np.diag(rest)).max(initial=0.0)) + 1e-300)
    root = np.sqrt(unit)
    short = -float(np.linalg.eigvalsh((rest + np.diag(own)) / root[:, None] / root)[0])
    margin = 2.0 * (n + m + 4) ** 2 * EPS
    whole = np.block([[aa, -ar], [-ar.T, rr]])
    short, beside = max(short, 0.0), margin * (1.0 + max(short, 0.0))
    for _ in range(TRIES):
        raised = own + (short + beside) * unit
        trial = whole.copy()
        trial[np.arange(n), np.arange(n)] += raised
        trial[np.diag_indices(n + m)] -= margin * np.abs(np.diag(trial))
        try:
            if np.isfinite(np.linalg.cholesky(trial)).all():
                return raised
        except np.linalg.LinAlgError:
            pass
        beside *= 10.0
    raise np.linalg.LinAlgError


def _bends(layers: Layers, ends: list[tuple[Floats, Floats]], given: Floats) -> _Bends:
    """What the layers after the first add at most, as a function of the second one's pre-activations."""
    if len(ends) == 1:
        # The first layer's neurons themselves, read out.
        gain = layers.gain[0]
        shift = np.zeros(len(gain))
        return _Bends(np.diag(gain), shift, layers.readout.copy(), shift, 0.0, 0.0)
    c, constant, size = layers.readout, 0.0, 0.0
    masses = layers.mass()[0]
    for k in range(len(ends) - 1, 1, -1):
        least, most = ends[k]
        bent = c * layers.gain[k]
        open_ = (least < 0) & (most > 0)
        rise = np.where(open_, most / np.where(open_, most - least, 1.0), (least >= 0) * 1.0)
        line = np.where(open_ & (bent < 0), (most > -least) * 1.0, rise)
        size += float((np.abs(c) * (np.abs(layers.slope[k]) + 2.0 * np.abs(layers.gain[k]))) @ masses[k])
        constant += float(np.maximum(bent, 0.0) @ np.where(open_, -least * rise, 0.0))
        c = c * layers.slope[k] + bent * line
        constant += float(c @ layers.bias[k])
        c = c @ layers.weight[k]
    least, most = ends[1]
    bent = c * layers.gain[1]
    open_ = (least < 0) & (most > 0)
    curve, slope, below = np.maximum(given[0], 0.0), given[1], np.clip(given[2], 0.0, 1.0)
    up, down = np.where(open_, np.maximum(bent, 0.0), 0.0), np.where(open_, np.minimum(bent, 0.0), 0.0)
    lift = _lift(curve, slope, least, most)
    level = c * layers.slope[1] + np.where(least >= 0, bent, 0.0) + up * slope + down * below
    constant += float(up @ lift)
    reach = np.maximum(np.abs(least), np.abs(most))
    size += float(up @ (np.abs(lift) + reach * (1.0 + np.abs(slope)) + curve * reach**2)) + float(np.abs(c) @ masses[1])
    return _Bends(layers.weight[1] * layers.gain[0], layers.bias[1], level, up * curve, constant, size)


def _lift(curve: Floats, slope: Floats, least: Floats, most: Floats) -> Floats:
    """Largest max(0, y) - curve y^2 - slope y between the ends, curve >= 0: at an end, at 0, or where it is flat."""
    best = np.full(len(curve), -np.inf)
    for side, low, high in ((0.0, least, np.minimum(most, 0.0)), (1.0, np.maximum(least, 0.0), most)):
        flat = np.where(curve > 0, (side - slope) / np.where(curve > 0, 2.0 * curve, 1.0), low)
        for y in (low, high, np.clip(flat, low, high)):
            # Where a side is empty, y stands at an end of the other side.
            y = np.clip(y, least, most)
            best = np.maximum(best, np.maximum(y, 0.0) - curve * y * y - slope * y)
    return best


def implied(rows: Rows, prices: Floats) -> _Row:
    """The row over the action's columns alone that prices of all rows imply; without a limit where helpers have none.

    With y of the right signs and x allowed, y'A x is at most sum_i max(y_i L_i, y_i U_i); what helper columns take of
    it is at least what they take at their cheaper ends.
    """
    least, most = rows.limits
    y = np.where(np.isneginf(least), np.maximum(prices, 0.0), prices)
    y = np.where(np.isposinf(most), np.minimum(y, 0.0), y)
    at_row = np.where(y > 0, y * np.where(y > 0, most, 0.0), np.where(y < 0, y * np.where(y < 0, least, 0.0), 0.0))
    paid, mass = rows.priced(y)
    slack = (8 + np.bincount(rows.indices, minlength=len(paid))) * EPS * mass
    low, high = rows.ends
    helper = np.setdiff1d(np.arange(len(paid)), rows.act)
    taken = [np.where(side == 0, 0.0, side * end) for end in (low[helper], high[helper])
             for side in (-paid[helper] - slack[helper], -paid[helper] + slack[helper])]  # fmt: skip
    at_helper = np.max(taken, axis=0) if len(helper) else np.zeros(0)
    total = sum_outward(at_row, at_helper, slack[rows.act])
    return _Row(paid[rows.act], total if np.isfinite(total) else np.inf)


def ends_of(layers: Layers, rows: Rows, more: list[_Row]) -> list[tuple[Floats, Floats]]:
    """Lower and upper bounds of every layer's pre-activations over the set, with implied rows beside its own."""
    return Leaves(layers, _with(rows, more)).ends()


def _with(rows: Rows, more: list[_Row]) -> Rows:
    """The set with implied rows behind its own."""
    more = [row for row in more if np.isfinite(row.most) and row.weight.any()]
    places = [np.flatnonzero(row.weight) for row in more]
    return replace(
        rows,
        indptr=np.concatenate([rows.indptr, rows.indptr[-1] + np.cumsum([len(at) for at in places], dtype=np.int64)]),
        indices=np.concatenate([rows.indices, *(rows.act[at] for at in places)]),
        data=np.concatenate([rows.data, *(row.weight[at] for row, at in zip(more, places, strict=True))]),
        row_lower=np.concatenate([rows.row_lower, np.full(len(more), -np.inf)]),
        row_upper=np.concatenate([rows.row_upper, [row.most for row in more]]),
    )
