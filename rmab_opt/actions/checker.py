"""Upper bounds of a linear objective recomputed from stored prices, tables and lists: numpy alone, rounded outward.

Nothing here asks a solver, reads a claimed bound or shares code with the search. The set is given as rows

    row_lower <= A x <= row_upper,  lower <= x <= upper,  x[j] whole where whole[j]

over the columns of the action and helper variables. Limits are opened by what the kinds' own checks let pass, so that
the bounds hold for every action that ``violations`` accepts; where a row's sums lie on a grid (whole numbers, or a few
decimals), an opened limit falls back onto it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EPS",
    "OPENING",
    "Rows",
    "best_of_routes",
    "count_rows",
    "knapsack",
    "price_bound",
    "sum_outward",
    "table_rows",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EPS = float(np.finfo(np.float64).eps)

OPENING = 1e-6
"""How far the kinds' checks let a sum pass its limit, relative to max(1, |limit|)."""

DECIMALS = 6
"""Decimals up to which a row's coefficients are looked for on a grid."""

TABLE_UNITS = 200_000
"""Largest capacity, in units of its grid, of a knapsack table."""

TABLE_STEPS = 100_000_000
"""Largest number of entries that a table over two rows may visit: about a quarter of a second."""

ROUNDS = 6
"""Rounds in which ends of helper variables are taken from the rows."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The set as sparse rows; see the module's first lines. ``act`` are the action's columns, in order."""

    indptr: Ints
    indices: Ints
    data: Floats
    row_lower: Floats
    row_upper: Floats
    lower: Floats
    upper: Floats
    whole: NDArray[np.bool_]
    act: Ints

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.row_lower), len(self.lower)

    @cached_property
    def row(self) -> Ints:
        """Row of every entry."""
        return np.repeat(np.arange(len(self.row_lower)), np.diff(self.indptr))

    def priced(self, prices: Floats) -> tuple[Floats, Floats]:
        """(A'y, sum of |a_ij y_i|), a column each."""
        terms = self.data * prices[self.row]
        n = len(self.lower)
        sums: Floats = np.bincount(self.indices, terms, n).astype(np.float64)
        sizes: Floats = np.bincount(self.indices, np.abs(terms), n).astype(np.float64)
        return sums, sizes

    @cached_property
    def grid(self) -> Floats:
        """Step of the grid on which each row's sums lie; 0 where there is none or a column takes any value."""
        m = len(self.row_lower)
        step = np.zeros(m)
        open_ = np.bincount(self.row, ~self.whole[self.indices], m) == 0
        open_ &= np.diff(self.indptr) > 0
        for decimals in range(DECIMALS + 1):
            scaled = self.data * 10.0**decimals
            off = np.abs(scaled - np.rint(scaled)) > 4 * EPS * np.abs(scaled)
            off |= np.abs(scaled) > 2.0**52
            found = np.flatnonzero(open_ & (np.bincount(self.row, off, m) == 0))
            for i in found.tolist():
                part = np.abs(np.rint(scaled[self.indptr[i] : self.indptr[i + 1]])).astype(np.int64)
                step[i] = float(np.gcd.reduce(part)) / 10.0**decimals
            open_[found] = False
        return step

    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """Limits of the rows as the checks take them, rounded outward."""
        low, high = self.row_lower.copy(), self.row_upper.copy()
        m = len(low)
        bound = np.bincount(self.row, ~self.whole[self.indices], m) == 0
        for side, sign in ((low, -1.0), (high, 1.0)):
            at = bound & np.isfinite(side)
            side[at] += sign * OPENING * np.maximum(1.0, np.abs(side[at]))
            on = at & (self.grid > 0)
            steps = side[on] / self.grid[on]
            side[on] = (np.floor(steps + 1e-9) if sign > 0 else np.ceil(steps - 1e-9)) * self.grid[on]
        mass = np.bincount(self.row, np.abs(self.data), m)
        return low - 8 * EPS * mass, high + 8 * EPS * mass

    @cached_property
    def packing(self) -> list[tuple[int, bool]]:
        """(row, whether its weights differ): positive weights on a grid over several 0/1 columns, an upper limit."""
        found = []
        for i in np.flatnonzero((self.grid > 0) & np.isfinite(self.row_upper)).tolist():
            part = slice(self.indptr[i], self.indptr[i + 1])
            columns, weight = self.indices[part], self.data[part]
            plain = (self.lower[columns] == 0).all() and (self.upper[columns] == 1).all()
            units = self.limits[1][i] / self.grid[i]
            if plain and (weight > 0).all() and 0 <= units <= TABLE_UNITS and len(columns) > 1:
                found.append((i, bool(np.ptp(weight) > 0)))
        return found

    @cached_property
    def ends(self) -> tuple[Floats, Floats]:
        """Finite ends of every column where the rows imply some; infinite elsewhere."""
        low, high = self.lower.copy(), self.upper.copy()
        if np.isfinite(low).all() and np.isfinite(high).all():
            return low, high
        least, most = self.limits
        for _ in range(ROUNDS):
            before = np.isfinite(low).sum() + np.isfinite(high).sum()
            for i in range(len(least)):
                part = slice(self.indptr[i], self.indptr[i + 1])
                _imply(self.indices[part], self.data[part], least[i], most[i], low, high)
            if np.isfinite(low).sum() + np.isfinite(high).sum() == before:
                break
        return low, high


def _imply(columns: Ints, weight: Floats, least: float, most: float, low: Floats, high: Floats) -> None:
    """Infinite ends of a row's columns from the finite ends of its others, in place."""
    up = weight > 0
    small = np.where(up, weight * low[columns], weight * high[columns])
    big = np.where(up, weight * high[columns], weight * low[columns])
    for side, limit, terms in (("most", most, small), ("least", least, big)):
        bad = np.flatnonzero(~np.isfinite(terms))
        if not np.isfinite(limit) or len(bad) > 1:
            continue
        total = float(terms[np.isfinite(terms)].sum())
        for q in bad.tolist() if len(bad) else range(len(columns)):
            rest = total - (terms[q] if np.isfinite(terms[q]) else 0.0)
            end = (limit - rest) / weight[q]
            end += (1.0 if (weight[q] > 0) == (side == "most") else -1.0) * 1e-9 * (abs(limit) + abs(rest) + 1.0)
            at = columns[q]
            if (weight[q] > 0) == (side == "most"):
                high[at] = end if np.isinf(high[at]) else high[at]
            else:
                low[at] = end if np.isinf(low[at]) else low[at]


def sum_outward(*parts: Floats) -> float:
    """Sum of all terms, never below the exact sum: k terms are rounded by at most k eps sum|terms|."""
    terms = np.concatenate([np.atleast_1d(part) for part in parts])
    return float(terms.sum() + 2 * (len(terms) + 2) * EPS * np.abs(terms).sum())


def price_bound(rows: Rows, cost: Floats, constant: float, prices: Floats, *, tables: tuple[int, ...] = ()) -> float:
    """No point of the rows is worth more than this, whatever the prices.

    Weak duality: sum_i max(y_i L_i, y_i U_i) + sum_j max(d_j l_j, d_j u_j) with d = c - A'y. Prices of the wrong sign
    count as 0.

    Parameters
    ----------
    cost
        Value of each column of the rows, (n,).
    prices
        One a row, (m,).
    tables
        Rows that are maximised exactly together, by a table over their capacities, instead of priced: a knapsack, and a
        count beside it (:func:`table_rows`, :func:`count_rows`).

    Returns
    -------
    float
        Infinite when a column without a finite end would be worth something.
    """
    least, most = rows.limits
    y = np.where(np.isneginf(least), np.maximum(prices, 0.0), prices)
    y = np.where(np.isposinf(most), np.minimum(y, 0.0), y)
    y[list(tables)] = 0.0
    full = np.asarray(cost, dtype=np.float64)
    paid, mass = rows.priced(y)
    d = full - paid
    slack = 4 * EPS * (np.abs(full) + mass) + EPS * np.bincount(rows.indices, minlength=len(d)) * mass
    low, high = rows.ends
    at_row = np.where(y > 0, y * np.where(np.isfinite(most), most, 0.0), 0.0)
    at_row += np.where(y < 0, y * np.where(np.isfinite(least), least, 0.0), 0.0)
    up, down = d + slack, d - slack
    inside, loads, rooms = _loads(rows, tables)
    gain = up[inside]
    packed = knapsack(gain, loads, rooms) + 2 * (len(gain) + 2) * EPS * float(np.abs(gain).sum())
    up[inside] = down[inside] = 0.0
    ends = np.stack([_times(end, side) for end in (low, high) for side in (up, down)])
    at_column = ends.max(axis=0)
    if not np.isfinite(at_column).all():
        return np.inf
    return sum_outward(np.array([constant, packed]), at_column, at_row)


def _times(end: Floats, side: Floats) -> Floats:
    """end * side, where nothing times infinity is nothing."""
    return np.where(side == 0.0, 0.0, side * np.where((side == 0.0) & ~np.isfinite(end), 0.0, end))


def table_rows(rows: Rows) -> list[int]:
    """Rows that a table can maximise: positive weights on a grid over 0/1 columns, only an upper limit that matters."""
    return [i for i, weighted in rows.packing if weighted]


def count_rows(rows: Rows, table: int) -> list[int]:
    """Rows with one weight for all that a table can maximise together with the row ``table``, the longest first."""

    def length(i: int) -> int:
        return int(rows.indptr[i + 1] - rows.indptr[i])

    def steps(i: int) -> float:
        cells = [1.0 + rows.limits[1][row] / rows.grid[row] for row in (table, i)]
        return cells[0] * cells[1] * max(length(table), length(i))

    found = [i for i, weighted in rows.packing if not weighted and steps(i) <= TABLE_STEPS]
    return sorted(found, key=lambda i: (-length(i), i))


def _loads(rows: Rows, tables: tuple[int, ...]) -> tuple[Ints, Ints, tuple[int, ...]]:
    """(columns in any of the rows, what each takes of each row (rows, columns), the rows' rooms), in grid units."""
    parts = [slice(rows.indptr[i], rows.indptr[i + 1]) for i in tables]
    inside = np.unique(np.concatenate([rows.indices[part] for part in parts])) if parts else np.zeros(0, dtype=np.int64)
    loads = np.zeros((len(tables), len(inside)), dtype=np.int64)
    for load, part, i in zip(loads, parts, tables, strict=True):
        load[np.searchsorted(inside, rows.indices[part])] = np.rint(rows.data[part] / rows.grid[i])
    return inside, loads, tuple(int(np.floor(rows.limits[1][i] / rows.grid[i] + 1e-6)) for i in tables)


def knapsack(gain: Floats, loads: Ints, rooms: tuple[int, ...]) -> float:
    """Largest sum of gains (C,) whose whole loads (k, C) fit into all rooms (k,); by a table over them."""
    best = np.zeros([room + 1 for room in rooms])
    for j in np.flatnonzero((gain > 0) & (loads <= np.array(rooms, dtype=np.int64)[:, None]).all(axis=0)).tolist():
        load = loads[:, j].tolist()
        to = tuple(slice(taken, None) for taken in load)
        before = tuple(slice(0, room + 1 - taken) for taken, room in zip(load, rooms, strict=True))
        best[to] = np.maximum(best[to], best[before] + gain[j])
    return float(best.flat[-1])


def best_of_routes(inside: NDArray[np.bool_], gain: Floats, most: int) -> float:
    """Largest sum of at most ``most`` gains within one of the sets ``inside`` (M, C), rounded outward."""
    useful = np.where(inside, np.maximum(gain, 0.0), 0.0)
    if not useful.size or not most:
        return 0.0
    width = useful.shape[1]
    if most < width:
        useful = np.partition(useful, width - most, axis=1)[:, width - most :]
    value = useful.sum(axis=1)
    return float((value + 2 * (most + 2) * EPS * value).max())
