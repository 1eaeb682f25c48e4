"""Loads into workers' room, by arrays alone: rows that every packing keeps, and packings for given values.

Exact rows of who carries whom need one variable an arm and worker. Here a weight of every load stands for a row over
the arms: what a worker can carry of it at most is a small knapsack, solved for all capacities at once, so that

    sum over chosen c of weight(load[c]) <= sum over workers of the most weight that fits one of them

holds for every allowed action. Loads themselves, how many are above a size, and loads in coarser units are such
weights (Fekete, Schepers 2001, dual feasible functions).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmab_opt.errors import OverdueError
from rmab_opt.solver import Program, Session

__all__ = ["carried_rows", "pack", "units_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_UNITS = 20_000
"""Largest capacity, in units of the loads' decimals, that is worked with exactly."""

PATTERNS, LONGEST_PATTERN, PATTERN_NODES = 2000, 12, 2000
"""Ways to fill workers, and columns in one, up to which the best packing is sought by a program, and its nodes."""

COARSE_UNITS = 1000
"""Units of the largest capacity where decimals are finer than that: loads are then rounded to its safe side."""

SIZES = 6
"""Sizes that rows of counts and of coarser units are made for."""

EXCHANGES, REFILLS = 400, 6
"""Rounds of exchanges of single columns after a packing, and of workers that are loaded anew."""


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
    worth: Floats,
    load: Floats,
    capacity: Floats,
    fits_rows: Callable[[int, int], bool],
    until: float = np.inf,
) -> dict[int, int]:
    """Worker of every column of a packing that is worth much; not the best one, but allowed.

    Parameters
    ----------
    wanted
        Columns to carry if possible, which other rows allow together.
    others
        Further columns, best first.
    gain, worth
        Value of every column, (C,), and what is left of it after the other rows' prices.
    load, capacity
        As in :func:`carried_rows`.
    fits_rows
        (column, column that leaves or -1): whether other rows let it in; takes note when they do.
    until
        Time of ``perf_counter`` at which nothing more is packed or exchanged.
    """
    unit, _ = units_of(load, capacity)
    size = np.ceil(load / unit - 1e-9).astype(np.int64)
    room = np.floor(capacity / unit + 1e-9).astype(np.int64)
    # Where other rows bind, their prices tell too little of how many patterns they let in.
    early = perf_counter() < until
    place = _patterned(gain, size, room, until) if early and np.array_equal(gain, worth) else None
    settled = place is not None
    if place is None:
        place = _filled(wanted, size, room, until)
    taken = set(wanted.tolist())
    for column in wanted.tolist():
        if column not in place:
            fits_rows(-1, column)
    for column in sorted(set(place) - taken, key=lambda c: -gain[c]):
        if not fits_rows(column, -1):
            room[place.pop(column)] += size[column]
            settled = False
    lost = [c for c in wanted.tolist() if c not in place]
    # Columns without a load, and what is left over, go where they leave the least room.
    rest = np.array([c for c in [*lost, *others.tolist()] if c not in place], dtype=np.int64)
    for column in rest[np.argsort(-gain[rest] / np.maximum(size[rest], 0.5), kind="stable")].tolist():
        if perf_counter() > until:
            return place
        if gain[column] <= 0 or size[column] > room.max(initial=-1):
            continue
        worker = int(np.where(room >= size[column], room, room.max() + 1).argmin())
        if fits_rows(column, -1):
            place[column] = worker
            room[worker] -= size[column]
    if settled:
        return place
    everyone = np.flatnonzero((gain > 0) & (load <= capacity.max(initial=0.0)))
    _exchange(place, gain, size, room, everyone, fits_rows, until)
    _refill(place, worth, size, room, everyone[worth[everyone] > 0], fits_rows, until)
    return place


def _patterns(known: Ints, full: int) -> list[list[int]] | None:
    """How many of each size a worker with room ``full`` can carry, largest loads only; None when there are many."""
    found: list[list[int]] = []
    stack: list[tuple[list[int], int]] = [([], full)]
    while stack:
        begun, left = stack.pop()
        if len(begun) == len(known):
            if left < known[0]:
                found.append(begun[::-1])
            if len(found) > PATTERNS:
                return None
            continue
        each = int(known[len(known) - 1 - len(begun)])
        stack += [([*begun, many], left - many * each) for many in range(left // each + 1)]
        if len(stack) > PATTERNS * len(known):
            return None
    return found


def _patterned(gain: Floats, size: Ints, room: Ints, until: float) -> dict[int, int] | None:
    """The best packing where few patterns of sizes fill a worker: how many workers of each room take which; else None.

    Columns of one size are taken best first, so that a program of patterns settles all.
    """
    known = np.unique(size[(size > 0) & (size <= room.max(initial=0)) & (gain > 0)])
    if not known.size or room.max() // known[0] > LONGEST_PATTERN:
        return None
    rooms, count = np.unique(room, return_counts=True)
    pairs: list[tuple[int, list[int]]] = []
    for at, full in enumerate(rooms.tolist()):
        made = _patterns(known, full)
        if made is None or len(pairs) + len(made) > PATTERNS:
            return None
        pairs += [(at, pattern) for pattern in made]
    order = np.argsort(-gain, kind="stable")
    order = order[gain[order] > 0]
    best = [order[size[order] == each][: int((room // each).sum())] for each in known]
    columns = np.concatenate(best)
    n, n_patterns = len(columns), len(pairs)
    sort = np.repeat(np.arange(len(known)), [len(own) for own in best])
    of_room, uses = np.array([at for at, _ in pairs]), np.array([pattern for _, pattern in pairs], dtype=np.float64)
    by_sort = sparse.csr_array((np.ones(n), (sort, np.arange(n))), shape=(len(known), n))
    by_room = sparse.csr_array((np.ones(n_patterns), (of_room, np.arange(n_patterns))), shape=(len(rooms), n_patterns))
    program = Program(
        cost=np.concatenate([gain[columns], np.zeros(n_patterns)]),
        matrix=sparse.csr_array(sparse.block_array([[by_sort, sparse.csr_array(-uses.T)], [None, by_room]])),
        row_lower=np.full(len(known) + len(rooms), -np.inf),
        row_upper=np.concatenate([np.zeros(len(known)), count.astype(np.float64)]),
        lower=np.zeros(n + n_patterns),
        upper=np.concatenate([np.ones(n), count[of_room].astype(np.float64)]),
        integer=np.concatenate([np.zeros(n, dtype=bool), np.ones(n_patterns, dtype=bool)]),
        maximise=True,
    )
    seconds = None if np.isinf(until) else max(0.01, until - perf_counter())
    try:
        found = Session.from_arrays(program, "fast").solve(nodes=PATTERN_NODES, seconds=seconds)
    except OverdueError:
        # One worker after the other is packed without a solver.
        return None
    if not found.has_solution or found.x is None:
        return None
    place: dict[int, int] = {}
    free = {at: np.flatnonzero(room == full).tolist() for at, full in enumerate(rooms.tolist())}
    next_of = [own.tolist()[::-1] for own in best]
    for (at, pattern), times in zip(pairs, np.rint(found.x[n:]).astype(np.int64).tolist(), strict=True):
        for _ in range(times):
            worker = free[at].pop()
            for k, many in enumerate(pattern):
                for _ in range(min(many, len(next_of[k]))):
                    column = next_of[k].pop()
                    place[column] = worker
                    room[worker] -= size[column]
    return place


def _filled(wanted: Ints, size: Ints, room: Ints, until: float) -> dict[int, int]:
    """One worker after the other filled as full as sums of the loads go; ``room`` is what is left after it.

    The least room first; all sums that the loads left over reach are bits of one number.
    """
    left = wanted[np.argsort(-size[wanted], kind="stable")].tolist()
    place: dict[int, int] = {}
    for worker in np.argsort(room, kind="stable").tolist():
        if perf_counter() > until:
            break
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
    until: float,
) -> None:
    """One carried column against one that is worth more and fits in its place, the best first, until none is left."""
    open_ = np.ones(len(gain), dtype=bool)
    for _ in range(EXCHANGES):
        if perf_counter() > until:
            return
        inside = np.array(list(place), dtype=np.int64)
        open_[:] = True
        open_[inside] = False
        outside = rest[open_[rest]]
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


def _refill(
    place: dict[int, int],
    worth: Floats,
    size: Ints,
    room: Ints,
    useful: Ints,
    fits_rows: Callable[[int, int], bool],
    until: float,
) -> None:
    """One worker after the other loaded anew, as well as its own columns and those outside allow, by a table."""
    carried: list[list[int]] = [[] for _ in room]
    inside = np.zeros(len(size), dtype=bool)
    for column, worker in place.items():
        carried[worker].append(column)
        inside[column] = True
    full = room + np.array([int(size[own].sum()) for own in carried])
    order = useful[np.lexsort((-worth[useful], size[useful]))]
    starts = np.flatnonzero(np.concatenate([[True], size[order][1:] > size[order][:-1]])) if order.size else order
    ends = np.append(starts[1:], len(order))
    for _ in range(REFILLS):
        better = False
        for worker in range(len(room)):
            if perf_counter() > until:
                return
            own = carried[worker]
            inside[own] = False
            items = _candidates(order, starts, ends, size, inside, int(full[worker]))
            best = items[_knapsack(worth[items], size[items], int(full[worker]))]
            if worth[best].sum() > worth[own].sum() + 1e-9 and _changed(own, best.tolist(), fits_rows):
                for column in own:
                    del place[column]
                place.update(dict.fromkeys(best.tolist(), worker))
                carried[worker] = own = best.tolist()
                room[worker] = full[worker] - size[best].sum()
                better = True
            inside[own] = True
        if not better:
            return


def _candidates(order: Ints, starts: Ints, ends: Ints, size: Ints, inside: NDArray[np.bool_], full: int) -> Ints:
    """Of every size the best columns that are free, as many as fit a worker."""
    found = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        each = int(size[order[start]])
        if each > full:
            break
        most = full // each if each else end - start
        at = start
        while most > 0 and at < end:
            column = order[at]
            if not inside[column]:
                found.append(int(column))
                most -= 1
            at += 1
    return np.array(found, dtype=np.int64)


def _knapsack(worth: Floats, size: Ints, full: int) -> NDArray[np.bool_]:
    """Which columns a worker carries at best, (items,)."""
    best = np.zeros(full + 1)
    taken = np.zeros((len(worth), full + 1), dtype=bool)
    for k, (value, each) in enumerate(zip(worth.tolist(), size.tolist(), strict=True)):
        more = best[: full + 1 - each] + value
        taken[k, each:] = more > best[each:]
        best[each:] = np.maximum(best[each:], more)
    chosen, left = np.zeros(len(worth), dtype=bool), full
    for k in range(len(worth) - 1, -1, -1):
        if taken[k, left]:
            chosen[k] = True
            left -= int(size[k])
    return chosen


def _changed(own: list[int], new: list[int], fits_rows: Callable[[int, int], bool]) -> bool:
    """Whether the other rows let ``new`` in for ``own``; nothing is changed when they do not."""
    leaving, coming = [c for c in own if c not in new], [c for c in new if c not in own]
    for column in leaving:
        fits_rows(-1, column)
    for k, column in enumerate(coming):
        if not fits_rows(column, -1):
            for back in coming[:k]:
                fits_rows(-1, back)
            for back in leaving:
                # What was there before fits again.
                fits_rows(back, -1)
            return False
    return True
