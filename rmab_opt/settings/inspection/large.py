"""Large plans: prices of the rows in common, and arms seated one after another at them.

Over a year of days thousands of establishments choose among tens of thousands of walks each. Many are nearly alike:
those with the same cells, needs and rows form types with a count, and at prices that type by type visits keep to the
rows, arms one by one want what there is. Any prices prove a bound: what one longest walk of every arm earns at them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, sparse

from rmab_opt.settings.inspection.longest import NEVER, Longest
from rmab_opt.settings.inspection.walks import Task

__all__ = ["Seats", "asking", "corrected", "improve", "in_common", "levelled", "seated", "type_prices"]

TYPES = 400
"""Types of arms by which prices are found."""

HEATS = (0.03, 0.01, 0.003, 0.001, 0.0003)
"""How widely a type's arms spread over walks, as a share of what a visit gains: first widely, last hardly at all."""

STEPS = 60
"""Steps of the prices' search, at each of the heats."""

SEATED = 48
"""Arms that look for their best walks at a time; those whose seats are gone look again."""

MANY = 0.05
"""Share of the arms that may have cells which they must take before these are left to programs."""

PATIENCE = 12
"""Times that an arm looks again."""

SENT = 200
"""Arms without a seat at most that others make room for."""

TIES = 1e-11
"""What a visit more in a slot counts among walks of the same worth, as a share of what a visit gains."""

CHOOSING = 144
"""Arms that choose again at a time: together they may change places, which one alone could not."""

TINY = 1e-6


def in_common(task: Task) -> np.ndarray:
    """Rows that several arms share and that limit them, bool (R,)."""
    common = np.ones(len(task.rows.lower), dtype=bool)
    common[task.own[0]] = False
    return common & (np.isfinite(task.rows.upper) | (task.rows.lower > TINY)) & (np.diff(task.rows.matrix.indptr) > 0)


# --------------------------------------------------------------------------------------------------------------- prices
@dataclass(frozen=True, eq=False)
class _Types:
    """Arms that are nearly alike: ``count`` (G,) arms gain what ``gains`` says; ``cells`` (S, G) are one arm's."""

    count: np.ndarray
    cells: np.ndarray
    gains: Longest


def _types(task: Task, common: np.ndarray) -> list[_Types]:
    """The arms as types, by their number of visits."""
    rng = np.random.default_rng(0)
    mark = task.rows.matrix.T @ np.where(common, rng.random(len(common)), 0.0)
    open_ = task.allowed & (task.grid.slot >= task.now)
    weights = (1.0 + mark[open_]) * rng.random(task.grid.n_slots)[task.grid.slot[open_]]
    # Arms with the same open cells in the same rows have the same sign.
    sign = np.round(np.bincount(task.grid.arm[open_], weights=weights, minlength=task.grid.n_arms), 6)
    total, found = max(1, sum(len(arms) for arms, _ in task.longest)), []
    for arms, longest in task.longest:
        key = sign[arms] + 1e6 * longest.least
        best = longest.first.max(axis=0)
        order = np.lexsort((best, key))
        new = np.diff(key[order], prepend=-1.0) != 0
        # Within a type of cells, neighbours by what a visit gains them.
        start = np.flatnonzero(new)
        size = np.diff(np.append(start, len(order)))
        inside = np.arange(len(order)) - np.repeat(start, size)
        parts = np.maximum(1, np.round(size * TYPES / total)).astype(np.int64)
        part = inside * np.repeat(parts, size) // np.repeat(size, size)
        begin = np.flatnonzero(new | (np.diff(part, prepend=-1) != 0))
        count = np.diff(np.append(begin, len(order))).astype(float)
        gains, cells = longest.of(order).means(begin), task.cells(arms[order[begin]])
        if len(begin) > 2 * TYPES:
            # Everybody differs: some stand for all.
            some = np.sort(rng.choice(len(begin), 2 * TYPES, replace=False))
            count = count[some] * (count.sum() / count[some].sum())
            gains, cells = gains.of(some), cells[:, some]
        found.append(_Types(count, cells, gains))
    return found


def asking(task: Task, prices: np.ndarray) -> np.ndarray:
    """The prices, and what few arms are paid for cells that they alone must take (promises), (R,).

    A price of a row of one arm proves as much as any other; without it the arm's best walk would pass the row by.
    """
    row, _ = task.own
    asked = row[(task.rows.lower[row] > TINY) & ~task.totals[0][row]]
    if not asked.size or len(asked) > MANY * task.grid.n_arms:
        return prices
    prices = prices.copy()
    prices[asked] = -2.0 * max((float(gains.first.max()) for _, gains in task.longest), default=0.0)
    return prices


def type_prices(task: Task, common: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Prices of the rows in common, (R,), at which types of arms keep to them; zero for all other rows.

    Notes
    -----
    Minimises ``limit' p + sum over types of count * heat log sum over walks exp((gain - cost at p) / heat)``, smooth
    and convex, whose derivative is the limits less the visits.
    """
    types, rows = _types(task, common), task.rows
    which = np.flatnonzero(common)
    upper, lower = rows.upper[which], rows.lower[which]
    limits = [(None if low > TINY else 0.0, None if np.isfinite(high) else 0.0)
              for low, high in zip(lower.tolist(), upper.tolist(), strict=True)]  # fmt: skip
    matrix = sparse.csc_array(rows.matrix[which])
    parts = [sparse.csr_array(matrix[:, np.maximum(each.cells, 0).ravel()]) for each in types]
    backs = [sparse.csr_array(part.T) for part in parts]
    gain = max((float(each.gains.first.max()) for each in types), default=0.0)
    scale = max(gain, 1e-9)

    def dual(price: np.ndarray, heat: float) -> tuple[float, np.ndarray]:
        price = price * scale
        limit = np.where(price > 0, np.where(np.isfinite(upper), upper, 0.0), np.where(np.isfinite(lower), lower, 0.0))
        worth, slope = float(price @ limit), limit.copy()
        slope[price == 0] = np.where(np.isfinite(upper), upper, lower)[price == 0]
        for each, part, back in zip(types, parts, backs, strict=True):
            value, visits = each.gains.at((back @ price).reshape(each.cells.shape)).soft(heat * scale)
            worth += float(each.count @ np.maximum(value, NEVER / 2))
            slope -= part @ (visits * each.count).ravel()
        return worth / scale, slope

    price = np.zeros(len(which)) if start is None else start[which] / scale
    for heat in HEATS if start is None or not start.any() else HEATS[-1:]:
        found = optimize.minimize(
            dual,
            price,
            args=(heat,),
            jac=True,
            method="L-BFGS-B",
            bounds=limits,
            options={"maxiter": STEPS, "maxcor": 20},
        )
        price = found.x
    prices = np.zeros(len(common))
    prices[which] = price * scale
    return prices


def corrected(task: Task, common: np.ndarray, prices: np.ndarray, worth: float, steps: int) -> tuple[np.ndarray, float]:
    """(prices, the bound that they give), by some steps against what all arms together take too much.

    ``worth`` is what some walks earn: the length of a step is what the bound is above it (Polyak).
    """
    rows, best, kept, price, share = task.rows, np.inf, prices, prices, 1.0
    for _ in range(steps + 1):
        bound, cells = task.priced(price)
        if bound < best:
            best, kept = bound, price
        else:
            share, price = share / 2, kept
        counts = rows.matrix @ cells.astype(float)
        excess = np.where(price >= 0, counts - np.where(np.isfinite(rows.upper), rows.upper, counts), 0.0)
        excess = np.where(common, excess, 0.0)
        excess[(price <= 0) & (excess < 0)] = 0.0
        size = float(excess @ excess)
        if size <= 0 or best - worth <= TINY * abs(best):
            break
        price = np.where(common & (price >= 0), np.maximum(0.0, price + share * (bound - worth) / size * excess), price)
    return kept, best


# ---------------------------------------------------------------------------------------------------------------- seats
class Seats:
    """Room left in every row while arms take their walks one after another.

    Parameters
    ----------
    cells
        Taken already, rising.
    """

    def __init__(self, task: Task, cells: np.ndarray) -> None:
        self.task = task
        self.taken = np.zeros(len(task.grid), dtype=bool)
        self.taken[cells] = True
        used = task.rows.matrix @ self.taken.astype(float)
        self.load = np.bincount(task.grid.slot[cells], minlength=task.grid.n_slots).astype(float)
        self.rng = np.random.default_rng(0)
        # The last row is nobody's: cells stand in different numbers of rows.
        self.room = np.append(task.rows.upper - used, np.inf)

    @cached_property
    def _stands(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows of each cell (C + 1, m), what it uses there)."""
        columns = sparse.csc_array(self.task.rows.matrix)
        size = np.diff(columns.indptr)
        n, most = len(size), int(size.max(initial=1))
        row = np.full((n + 1, most), len(self.room) - 1, dtype=np.int64)
        need = np.zeros((n + 1, most))
        inside = np.arange(most) < size[:, None]
        row[:-1][inside], need[:-1][inside] = columns.indices, columns.data
        return row, need

    @property
    def cells(self) -> np.ndarray:
        """All cells that are taken, rising."""
        return np.flatnonzero(self.taken)

    def seat(self, arms: np.ndarray, gains: Longest, cost: np.ndarray) -> np.ndarray:
        """Arms take the best walks at prices of cells, one after another; returns those that nothing is left for."""
        waiting, without = np.arange(len(arms)), []
        for _ in range(PATIENCE):
            again = []
            for begin in range(0, len(waiting), SEATED):
                some = waiting[begin : begin + SEATED]
                place = self.task.cells(arms[some])
                row, need = (each[place] for each in self._stands)
                open_ = (self.room[row] + TINY >= need).all(axis=2)
                _, visits = gains.of(some).at(cost[place] + self._ties(len(some))).only(open_).best()
                for j in range(len(some)):
                    walk = place[visits[:, j], j]
                    if not len(walk):
                        without.append(some[j])
                    elif not self.take(walk):
                        again.append(some[j])
            waiting = np.array(again, dtype=np.int64)
            if not len(waiting):
                break
        return arms[np.array([*without, *waiting.tolist()], dtype=np.int64)]

    @cached_property
    def scale(self) -> float:
        """What a visit gains at most."""
        return max((float(gains.first.max()) for _, gains in self.task.longest), default=0.0)

    def _ties(self, n: int) -> np.ndarray:
        """Next to nothing for a full slot, (S, n): among walks of the same worth, those of the emptier slots; arms that
        choose at the same time spread."""
        load = self.load[self.task.now :, None]
        return np.asarray(TIES * self.scale * (load + self.rng.uniform(0, n, (len(load), n))))

    def take(self, walk: np.ndarray) -> bool:
        """Take a walk's cells where all of them have room."""
        row, need = (each[walk].ravel() for each in self._stands)
        np.subtract.at(self.room, row, need)
        if (self.room[row] < -TINY).any():
            np.add.at(self.room, row, need)
            return False
        self._count(walk, True)
        return True

    def _count(self, cells: np.ndarray, taken: bool) -> None:
        self.taken[cells] = taken
        np.add.at(self.load, self.task.grid.slot[cells], 1.0 if taken else -1.0)

    def asking(self, prices: np.ndarray) -> np.ndarray:
        """Arms that lack a visit they are paid for, see :func:`asking`."""
        row, arm = self.task.own
        lacks = self.task.rows.matrix[row] @ self.taken.astype(float) < self.task.rows.lower[row] - TINY
        found: np.ndarray = arm[lacks & (prices[row] < 0)]
        return found

    def displace(self, arm: int, gains: Longest, cost: np.ndarray) -> bool:
        """Seat an arm where there is no room: in each full row somebody goes elsewhere, who loses least by it.

        ``gains`` are the arm's own.
        """
        kept, place = (self.room.copy(), self.taken.copy(), self.load.copy()), self.task.cells(np.array([arm]))
        _, visits = gains.at(cost[place]).best()
        walk = place[visits[:, 0], 0]
        rows, need = self._stands[0][walk], self._stands[1][walk]
        np.subtract.at(self.room, rows.ravel(), need.ravel())
        self._count(walk, True)
        for full in np.unique(rows[self.room[rows] < -TINY]).tolist():
            while self.room[full] < -TINY:
                if not self._send(full, arm, cost):
                    self.room, self.taken, self.load = kept
                    return False
        return len(walk) > 0

    def _send(self, full: int, arm: int, cost: np.ndarray) -> bool:
        """One of the arms in a full row takes its best walk beside all full rows; False where nobody can."""
        matrix, grid = self.task.rows.matrix, self.task.grid
        inside = matrix.indices[matrix.indptr[full] : matrix.indptr[full + 1]]
        sitting = np.unique(grid.arm[inside[self.taken[inside] & (grid.slot[inside] >= self.task.now)]])
        least, leaving, coming = np.inf, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        for arms, gains in self.task.longest:
            some = np.flatnonzero(np.isin(arms, sitting[sitting != arm]))
            if not some.size:
                continue
            place = self.task.cells(arms[some])
            mine, open_ = self._beside(full, place)
            then = gains.of(some).at(cost[place])
            worth, visits = then.only(open_).best()
            loss = np.where(visits.sum(axis=0) >= mine.sum(axis=0), then.worth(mine) - worth, np.inf)
            best = int(loss.argmin())
            if loss[best] < least:
                least, leaving, coming = loss[best], place[mine[:, best], best], place[visits[:, best], best]
        if not np.isfinite(least):
            return False
        self.free(leaving)
        return self.take(coming)

    def _beside(self, full: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(seats that arms have, seats that they may have beside a full row), bool, by their cells (S, n)."""
        row, need = (each[place] for each in self._stands)
        mine = self.taken[place] & (place >= 0)
        fits = self.room[row] + TINY >= need
        # Rows about the arm itself are full of its own visits, and seats of its own are open to it.
        others = (fits | np.isin(row, self.task.own[0])).all(axis=2) & ~mine & (place >= 0)
        own = (self.room[row] + need + TINY >= need).all(axis=2) & mine & ~(row == full).any(axis=2)
        return mine, others | own

    def free(self, walks: np.ndarray) -> None:
        """Give some cells back."""
        row, need = (each[walks].ravel() for each in self._stands)
        np.add.at(self.room, row, need)
        self._count(walks, False)

    def seat_again(self, arms: np.ndarray, gains: Longest, cost: np.ndarray, least: float = TINY * TINY) -> float:
        """Some arms give up their seats and choose again: what that gains; all go back for ``least`` or less (0)."""
        place = self.task.cells(arms)
        held = self.taken[place] & (place >= 0)
        before = np.sort(place[held])
        self.free(before)
        without = self.seat(arms, gains, cost)
        after = np.sort(place[self.taken[place] & (place >= 0)])
        more = (self.task.worth(after) or 0.0) - (self.task.worth(before) or 0.0)
        needed = np.isin(arms, without) & (held.sum(axis=0) > 0)
        if needed.any() or more <= least:
            self.free(after)
            self.take(before)
            return 0.0
        return more


def seated(task: Task, prices: np.ndarray, cells: np.ndarray) -> Seats:
    """Walks for all arms that ``cells`` (rising) leave without: the most visits first, then who gains most."""
    seats, cost = Seats(task, cells), np.append(np.asarray(task.rows.matrix.T @ prices), 0.0)
    waiting = np.ones(task.grid.n_arms, dtype=bool)
    waiting[task.grid.arm[cells]] = False
    for arms, gains in reversed(task.longest):
        mine = np.flatnonzero(waiting[arms])
        order = mine[np.argsort(-gains.first[:, mine].max(axis=0), kind="stable")]
        without = np.isin(arms, seats.seat(arms[order], gains.of(order), cost)) & (gains.least > 0)
        # Who must be seated where no room is left: others make some.
        needy = np.flatnonzero(without | np.isin(arms, seats.asking(prices)))
        for at in needy[:SENT].tolist():
            place = task.cells(arms[at : at + 1])[:, 0]
            held = place[(place >= 0) & seats.taken[place]]
            seats.free(held)
            if not seats.displace(int(arms[at]), gains.of(slice(at, at + 1)), cost):
                seats.take(held)
    return seats


def improve(seats: Seats, prices: np.ndarray, rng: np.random.Generator) -> float:
    """Arms choose again, some at a time, where that gains: what it gained in all."""
    task, more = seats.task, 0.0
    cost = np.append(np.asarray(task.rows.matrix.T @ prices), 0.0)
    for arms, gains in task.longest:
        order = rng.permutation(len(arms))
        for begin in range(0, len(order), CHOOSING):
            some = order[begin : begin + CHOOSING]
            more += seats.seat_again(arms[some], gains.of(some), cost)
    return more


def levelled(task: Task, cells: np.ndarray) -> np.ndarray:
    """Walks of the same worth (rising cells) with more even loads: arms choose again one after another."""
    seats, own = Seats(task, cells), task.own[0]
    needed = np.zeros(len(task.rows.lower))
    needed[own[(task.rows.lower[own] > TINY) & ~task.totals[0][own]]] = -2.0 * seats.scale
    cost = np.append(np.asarray(task.rows.matrix.T @ needed), 0.0)
    for arms, gains in task.longest:
        order, size = seats.rng.permutation(len(arms)), int(np.clip(len(arms) // 16, 1, 256))
        for begin in range(0, len(order), size):
            some = order[begin : begin + size]
            seats.seat_again(arms[some], gains.of(some), cost, -1e3 * TIES * seats.scale * len(some))
    found = seats.cells
    counts = task.rows.matrix @ seats.taken.astype(float)
    fine = (counts >= task.rows.lower - TINY).all() and (counts <= task.rows.upper + TINY).all()
    return found if fine and task.worth(found) is not None else cells
