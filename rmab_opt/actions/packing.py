"""Loads into workers' room, by arrays alone: rows that every packing keeps, and packings for given values.

Exact rows of who carries whom need one variable an arm and worker. Here a weight of every load stands for a row over the
arms: what a worker can carry of it at most is a small knapsack, solved for all capacities at once, so that

    sum over chosen c of weight(load[c]) <= sum over workers of the most weight that fits one of them

holds for every allowed action. Loads themselves, how many are above a size, and loads in coarser units are such
weights (Fekete, Schepers 2001, dual feasible functions).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["carried_rows", "pack", "units_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_UNITS = 20_000
"""Largest capacity, in units of the loads' decimals, that is worked with exactly."""

COARSE_UNITS = 1000
"""Units of the largest capacity where decimals are finer than that: loads are then rounded to its safe side."""

SIZES = 6
"""Sizes that rows of counts and of coarser units are made for."""

EXCHANGES = 400
"""Rounds of exchanges after a packing."""


def units_of(load: Floats, capacity: Floats) -> tuple[float, bool]:
    """(a unit of load, whether all loads are whole multiples of it)."""
    most = float(capacity.max(initial=0.0))
    for decimals in range(4):
        scaled = load * 10.0**decimals
        if np.abs(scaled - np.rint(scaled)).max(initial=0.0) < 1e-9 and most * 10.0**decimals <= MOST_UNITS:
            return 10.0**-decimals, True
    return most / COARSE_UNITS if most > 0 else 1.0, False


def carried_rows(load: Floats, capacity: Floats) -> tuple[Floats, Floats]:
    """Rows ``weight @ act <= limit`` that hold wherever the chosen loads fit the workers: ((K, C), (K,)).

    Parameters
    ----------
    load
        Of every column, (C,), none negative.
    capacity
        Of every worker, (W,), as far as the check lets it be filled.
    """
    unit, exact = units_of(load, capacity)
    size = np.floor(load / unit + 1e-9).astype(np.int64)
    room = np.floor(capacity / unit + 1e-9).astype(np.int64)
    fits = load <= capacity.max(initial=0.0)
    rows: list[Floats] = []
    known = np.unique(size[fits & (size > 0)])
    if known.size:
        weights = _weights(known, size[fits])
        most = _most_carried(known, np.bincount(size[fits], minlength=known[-1] + 1)[known], weights, room)
        table = np.zeros((len(weights), int(size.max()) + 1))
        table[:, known] = weights
        rows = [np.where(fits, weight, 0.0) for weight in table[:, size]]
        limits = list(most)
    else:
        limits = []
    if not exact:
        rows.append(np.where(fits, load, 0.0))
        limits.append(float(capacity.sum()))
    if not fits.all():
        rows.append((~fits).astype(np.float64))
        limits.append(0.0)
    if not rows:
        return np.zeros((0, len(load))), np.zeros(0)
    return np.array(rows), np.array(limits, dtype=np.float64)


def _weights(known: Ints, size: Ints) -> Floats:
    """Whole weights of every known size, one set a row, without copies up to scale."""
    steps = np.unique(np.quantile(known, np.linspace(0.0, 1.0, SIZES), method="nearest"))
    mean = max(1, int(size.mean()))
    made = [known, *(known + max(1, extra) for extra in (mean // 2, mean, 2 * mean, 4 * mean))]
    made += [(known >= step).astype(np.int64) for step in steps] + [known // step for step in steps]
    kept: dict[bytes, Ints] = {}
    for weight in made:
        if weight.any():
            weight = weight // np.gcd.reduce(weight)
            kept.setdefault(weight.tobytes(), weight)
    return np.array(list(kept.values()), dtype=np.float64)


def _most_carried(known: Ints, count: Ints, weights: Floats, room: Ints) -> Floats:
    """The most of each weight that all workers can carry, (K,), if each had all arms to choose from."""
    largest = int(room.max(initial=0))
    best = np.zeros((len(weights), largest + 1))
    for size, copies, weight in zip(known.tolist(), count.tolist(), weights.T, strict=True):
        for _ in range(min(copies, largest // size)):
            before = best.copy()
            np.maximum(best[:, size:], best[:, : largest + 1 - size] + weight[:, None], out=best[:, size:])
            if np.array_equal(before, best):
                break
    return best[:, room].sum(axis=1)


def pack(
    wanted: Ints,
    others: Ints,
    gain: Floats,
    load: Floats,
    capacity: Floats,
    fits_rows: Callable[[int, int], bool],
) -> dict[int, int]:
    """Worker of every column of a packing that is worth much; not the best one, but allowed.

    Parameters
    ----------
    wanted
        Columns to carry if possible, which other rows allow together.
    others
        Further columns, best first.
    gain
        Value of every column, (C,).
    load, capacity
        As in :func:`carried_rows`.
    fits_rows
        (column, column that leaves or -1): whether other rows let it in; takes note when they do.
    """
    unit, _ = units_of(load, capacity)
    size = np.ceil(load / unit - 1e-9).astype(np.int64)
    room = np.floor(capacity / unit + 1e-9).astype(np.int64)
    place = _filled(wanted, size, room)
    for column in wanted.tolist():
        if column not in place:
            fits_rows(-1, column)
    lost = [c for c in wanted.tolist() if c not in place]
    # Columns without a load, and what is left over, go where they leave the least room.
    rest = np.array([*lost, *others.tolist()], dtype=np.int64)
    for column in rest[np.argsort(-gain[rest] / np.maximum(size[rest], 0.5), kind="stable")].tolist():
        if gain[column] <= 0 or size[column] > room.max(initial=-1):
            continue
        worker = int(np.where(room >= size[column], room, room.max() + 1).argmin())
        if fits_rows(column, -1):
            place[column] = worker
            room[worker] -= size[column]
    _exchange(place, gain, size, room, rest, fits_rows)
    return place


def _filled(wanted: Ints, size: Ints, room: Ints) -> dict[int, int]:
    """One worker after the other filled as full as sums of the loads go; ``room`` is what is left after it.

    The least room first; all sums that the loads left over reach are bits of one number.
    """
    left = wanted[np.argsort(-size[wanted], kind="stable")].tolist()
    place: dict[int, int] = {}
    for worker in np.argsort(room, kind="stable").tolist():
        mask, most = (1 << int(room[worker]) + 1) - 1, int(room[worker])
        reached = [1]
        for c in left:
            reached.append((reached[-1] | reached[-1] << int(size[c])) & mask)
            if reached[-1] >> most & 1:
                break
        total = reached[-1].bit_length() - 1
        for k in range(len(reached) - 1, 0, -1):
            # Leaving an item out is preferred: the largest come first in the list and go first.
            if not reached[k - 1] >> total & 1:
                total -= int(size[left[k - 1]])
                place[left[k - 1]] = worker
                room[worker] -= size[left[k - 1]]
        left = [c for c in left if c not in place]
    return place


def _exchange(
    place: dict[int, int],
    gain: Floats,
    size: Ints,
    room: Ints,
    rest: Ints,
    fits_rows: Callable[[int, int], bool],
) -> None:
    """One carried column against one that is worth more and fits in its place, the best first, until none is left."""
    for _ in range(EXCHANGES):
        inside = np.array(list(place), dtype=np.int64)
        outside = rest[(gain[rest] > 0) & ~np.isin(rest, inside)]
        if not inside.size or not outside.size:
            return
        worker = np.array([place[c] for c in inside.tolist()])
        order = outside[np.lexsort((-gain[outside], size[outside]))]
        # The most valuable of all outside up to each size.
        best = np.maximum.accumulate(gain[order])
        first = np.flatnonzero(np.concatenate([[True], best[1:] > best[:-1]]))
        at = np.searchsorted(size[order], size[inside] + room[worker], side="right") - 1
        more = np.where(at >= 0, best[at] - gain[inside], 0.0)
        taken: set[int] = set()
        touched: set[int] = set()
        done = False
        for k in np.argsort(-more, kind="stable").tolist():
            if more[k] <= 1e-12:
                break
            out, where = int(inside[k]), int(worker[k])
            into = int(order[first[np.searchsorted(first, at[k], side="right") - 1]])
            if into in taken or where in touched or not fits_rows(into, out):
                continue
            taken.add(into)
            touched.add(where)
            del place[out]
            place[into] = where
            room[where] += size[out] - size[into]
            done = True
        if not done:
            return
