"""The action set as the exact search sees it: linear functions maximised at many nodes at once, priced rows, units.

Rows over disjoint columns are maximised exactly by sorting; every other row, and units that columns are assigned to,
enter by prices, so that what comes out is always an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder import Support
from rmab_opt.solver.polytope import Row

__all__ = ["Assignment", "Oracle", "Places"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PRICE_SHARES = (0.75, 1.0, 1.3)
"""Prices of a weighted row are tried where these shares of its limit would be used."""

IN_CACHE = 60_000
"""Entries of the arrays that weighted rows are priced in: several must fit the processor's cache together."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Every chosen column takes ``need`` units of load from the units it can use; units have capacities."""

    load: Floats
    """Shape (C, units), infinite where a column cannot use a unit; per unit of need."""
    need: Floats
    """Shape (C,), 0 for columns outside."""
    capacity: Floats
    """Shape (units,)."""

    @cached_property
    def lists(self) -> tuple[list[list[int]], list[list[float]], list[int]]:
        """Units that each column can use, its loads and its need, as lists: what one step at a time reads fastest."""
        usable = [np.flatnonzero(np.isfinite(row)).tolist() for row in self.load]
        return usable, self.load.tolist(), np.rint(self.need).astype(int).tolist()

    @cached_property
    def matched(self) -> bool:
        """Whether every visit takes one unit of load, so that augmenting paths decide whether columns fit."""
        finite = self.load[np.isfinite(self.load)]
        return bool((finite == 1.0).all() and (self.need == np.rint(self.need)).all())

    def holds(self, action: np.ndarray) -> bool:
        """Whether the chosen columns fit their units; True where paths cannot decide it."""
        places = Places(self)
        return not self.matched or all(places.insert(c) for c in np.flatnonzero(action).tolist())


@dataclass(eq=False)
class Oracle:
    """max A . a over the groups for many (A, fixed columns) at once, with what forcing a column would lose."""

    n: int
    groups: list[Row]
    """Disjoint rows with positive weights, maximised by sorting."""
    side: Floats
    """Rows priced instead of sorted, shape (r, C)."""
    side_lower: Floats
    side_upper: Floats
    assignments: list[Assignment]
    boxed: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        boxed = np.ones(self.n, dtype=bool)
        for group in self.groups:
            boxed[group.members] = False
        self.boxed = np.flatnonzero(boxed)

    @classmethod
    def of(cls, support: Support) -> Oracle:
        """Groups are what the support's rows sort exactly; prices for everything else."""
        groups, side, lower, upper = support.sorted_and_priced
        return cls(support.n, list(groups), side, lower, upper, [Assignment(*parts) for parts in support.assignments])

    def restrict(self, kept: Mask, one: Mask) -> Oracle:
        """The same set over the kept columns, the others fixed: chosen where ``one``, left out elsewhere."""
        place = np.cumsum(kept) - 1
        groups = []
        for group in self.groups:
            stays = kept[group.members]
            used = float(group.weight[one[group.members] & ~stays].sum())
            weight = group.weight[stays]
            lower, upper = max(group.lower - used, 0.0), group.upper - used
            if weight.size and (lower > 0 or upper < weight.sum()):
                groups.append(Row(place[group.members[stays]], weight, lower, upper, group.counts))
        gone = self.side[:, one & ~kept].sum(axis=1)
        assignments = [Assignment(a.load[kept], a.need[kept], a.capacity) for a in self.assignments]
        return Oracle(
            int(kept.sum()), groups, self.side[:, kept], self.side_lower - gone, self.side_upper - gone, assignments
        )

    def removable(self, one: Mask) -> Mask:
        """Which chosen columns may leave the set when fixed: those that take no unit of an assignment."""
        free = one.copy()
        for block in self.assignments:
            free &= block.need == 0
        return free

    @property
    def exact(self) -> bool:
        """Whether no row needs a price."""
        return not len(self.side) and not self.assignments

    @property
    def n_prices(self) -> int:
        return len(self.side) + sum(len(block.capacity) for block in self.assignments)

    def fits(self, actions: Floats) -> Mask:
        """Which actions (M, C) keep groups and side rows; assignments are left to the checker."""
        good = np.ones(len(actions), dtype=bool)
        for group in self.groups:
            used = actions[:, group.members] @ group.weight
            slack = 1e-9 * max(1.0, group.upper)
            good &= (used <= group.upper + slack) & (used >= group.lower - slack)
        if len(self.side):
            used = actions @ self.side.T
            good &= ((used <= self.side_upper + 1e-9) & (used >= self.side_lower - 1e-9)).all(axis=1)
        return good

    def priced(self, cost: Floats, prices: Floats) -> tuple[Floats, Floats, list[np.ndarray]]:
        """Costs less what prices (B, n_prices) charge, what capacities earn, and each column's cheapest unit."""
        r = len(self.side)
        cheapest: list[np.ndarray] = []
        if not self.n_prices:
            return cost, np.zeros(len(cost)), cheapest
        cost, earned = cost.copy(), np.zeros(len(cost))
        if r:
            part = prices[:, :r]
            cost -= part @ self.side
            earned += np.maximum(part, 0.0) @ np.where(np.isfinite(self.side_upper), self.side_upper, 0.0)
            earned += np.minimum(part, 0.0) @ np.where(np.isfinite(self.side_lower), self.side_lower, 0.0)
        at = r
        for block in self.assignments:
            part = prices[:, at : at + len(block.capacity)]
            at += len(block.capacity)
            inside = np.flatnonzero(block.need > 0)
            # A unit's price per load; where a column cannot use it, more than any price.
            usable = np.isfinite(block.load[inside])
            charge = np.where(usable, part[:, None, :] * np.where(usable, block.load[inside], 0.0), np.inf)
            pick = charge.argmin(axis=2)
            cheapest.append(pick)
            cost[:, inside] -= block.need[inside] * np.take_along_axis(charge, pick[:, :, None], axis=2)[:, :, 0]
            earned += part @ block.capacity
        return cost, earned, cheapest

    def price_slope(self, points: Floats, prices: Floats, cheapest: list[np.ndarray]) -> Floats:
        """Subgradient of the priced maximum at its maximisers: what is left of each limit."""
        slope = np.empty_like(prices)
        r = len(self.side)
        if r:
            used: Floats = points @ self.side.T
            upper = np.where(np.isfinite(self.side_upper), self.side_upper, used)
            lower = np.where(np.isfinite(self.side_lower), self.side_lower, used)
            part = prices[:, :r]
            at_zero = np.where(used > upper, upper - used, np.where(used < lower, lower - used, 0.0))
            slope[:, :r] = np.where(part > 0, upper - used, np.where(part < 0, lower - used, at_zero))
        at = r
        for block, pick in zip(self.assignments, cheapest, strict=True):
            inside = np.flatnonzero(block.need > 0)
            units = len(block.capacity)
            load = np.take_along_axis(block.load[inside][None].repeat(len(points), 0), pick[:, :, None], 2)[:, :, 0]
            amount = points[:, inside] * block.need[inside] * load
            flat = (np.arange(len(points))[:, None] * units + pick).reshape(-1)
            taken = np.bincount(flat, amount.reshape(-1), minlength=len(points) * units).reshape(len(points), units)
            slope[:, at : at + units] = block.capacity - taken
            at += units
        return slope

    def project(self, prices: Floats) -> Floats:
        """Prices with the signs that their limits allow."""
        r = len(self.side)
        prices = prices.copy()
        prices[:, :r] = np.where(np.isfinite(self.side_upper), prices[:, :r], np.minimum(prices[:, :r], 0.0))
        prices[:, :r] = np.where(np.isfinite(self.side_lower), prices[:, :r], np.maximum(prices[:, :r], 0.0))
        prices[:, r:] = np.maximum(prices[:, r:], 0.0)
        return prices

    def maximise(self, cost: Floats, low: Mask, up: Mask, losses: bool = False) -> tuple[Floats, Floats, Floats, Mask]:
        """(values (B,), points (B, C), loss of the other value of each column (B, C), possible (B,))."""
        free = up & ~low
        points: Floats = np.where(free, cost > 0, low).astype(np.float64)
        loss = np.abs(cost) if losses else np.empty((0, 0))
        possible = np.ones(len(cost), dtype=bool)
        for group in self.groups:
            m = group.members
            sort = self._count if group.counts else self._weighted
            share, lost, fits = sort(group, cost[:, m], low[:, m], free[:, m], losses)
            points[:, m] = share
            possible &= fits
            if losses:
                loss[:, m] = lost
        values = np.einsum("bn,bn->b", cost, points)
        return np.where(possible, values, -np.inf), points, loss, possible

    def values(self, cost: Floats, low: Mask, up: Mask, node: np.ndarray) -> Floats:
        """Upper bounds of max cost (m, C) @ a at nodes ``node`` (m,): exact for counts, by prices for weights."""
        free = up & ~low
        total = np.einsum("mn,mn->m", cost, low.astype(np.float64)[node])
        if len(self.boxed):
            total += np.einsum(
                "mn,mn->m", np.maximum(cost[:, self.boxed], 0.0), free[:, self.boxed].astype(np.float64)[node]
            )
        for group in self.groups:
            m = group.members
            used = low[:, m] @ group.weight
            most, need = np.maximum(group.upper - used, 0.0)[node], np.maximum(group.lower - used, 0.0)[node]
            a, open_ = cost[:, m], free[:, m][node]
            width = len(m)
            if group.counts and not need.any():
                gains = np.where(open_, np.maximum(a, 0.0), 0.0)
                if width > 4 * (most.max(initial=0) + 1):
                    top = int(most.max(initial=0))
                    gains = np.partition(gains, width - top - 1, axis=1)[:, width - top :] if top else gains[:, :0]
                    width = top
                gains.sort(axis=1)
                total += np.einsum("mn,mn->m", gains, (np.arange(width) >= width - most[:, None]).astype(np.float64))
                continue
            total += _by_prices(group, a, open_, most, need)
        return total

    @staticmethod
    def _count(group: Row, a: Floats, one: Mask, free: Mask, losses: bool) -> tuple[Floats, Floats, Mask]:
        used = one.sum(axis=1)
        open_ = free.sum(axis=1)
        most = np.minimum(group.upper - used, open_).astype(np.int64)
        need = np.maximum(group.lower - used, 0).astype(np.int64)
        fits = (group.upper - used >= 0) & (need <= open_)
        key = np.where(free, a, -np.inf)
        order = np.argsort(-key, axis=1)
        s = np.take_along_axis(key, order, axis=1)
        t = np.clip(np.clip((s > 0).sum(axis=1), need, None), 0, np.maximum(most, 0))
        share: Floats = np.zeros(a.shape)
        np.put_along_axis(share, order, (np.arange(a.shape[1]) < t[:, None]).astype(np.float64), axis=1)
        share += one
        if not losses:
            return share, a, fits
        rows, last = np.arange(len(a)), a.shape[1] - 1
        kth = np.where(t > 0, s[rows, np.maximum(t - 1, 0)], np.inf)
        following = np.where(t < open_, s[rows, np.minimum(t, last)], -np.inf)
        full = t >= np.minimum(group.upper - used, 1e18)
        # In: displaces the last chosen when full or when only the lower limit keeps that one; out: the next follows.
        price_in = np.where(full, kth, np.where((t == need) & (t > 0), np.minimum(kth, 0.0), 0.0))
        price_out = np.where(t <= need, following, np.maximum(following, 0.0))
        chosen = share > 0
        lost = np.where(chosen, a - price_out[:, None], price_in[:, None] - a)
        return share, lost, fits

    @staticmethod
    def _weighted(group: Row, a: Floats, one: Mask, free: Mask, losses: bool) -> tuple[Floats, Floats, Mask]:
        w = group.weight
        used = one @ w
        most, need = group.upper - used, np.maximum(group.lower - used, 0.0)
        available = free @ w
        slack = 1e-9 * max(1.0, group.upper)
        fits = (most >= -slack) & (need <= available + slack)
        wanted = (free & (a > 0)) @ w
        target = np.clip(np.clip(wanted, need, None), 0.0, np.maximum(most, 0.0))
        ratio = np.where(free, a / w, -np.inf)
        order = np.argsort(-ratio, axis=1)
        ordered = np.where(np.take_along_axis(free, order, axis=1), w[order], 0.0)
        before = np.cumsum(ordered, axis=1) - ordered
        filled = np.clip((target[:, None] - before) / np.where(ordered > 0, ordered, 1.0), 0.0, 1.0) * (ordered > 0)
        share = np.empty(a.shape)
        np.put_along_axis(share, order, filled, axis=1)
        share += one
        if not losses:
            return share, a, fits
        at = np.clip((before < target[:, None] - slack).sum(axis=1) - 1, 0, a.shape[1] - 1)
        critical = np.take_along_axis(ratio, np.take_along_axis(order, at[:, None], axis=1), axis=1)[:, 0]
        price = np.where((np.abs(target - wanted) > slack) & np.isfinite(critical), critical, 0.0)
        return share, np.abs(a - price[:, None] * w), fits

    def ends(self, weight: Floats) -> Callable[[Mask, Mask], Floats]:
        """A function giving upper bounds of weight (m, C) @ a at nodes (low, up): shape (B, m)."""
        plus = np.maximum(weight, 0.0)
        parts = [self._group_ends(group, weight[:, group.members]) for group in self.groups]

        def at(low: Mask, up: Mask) -> Floats:
            free = up & ~low
            total = low.astype(np.float64) @ weight.T
            if len(self.boxed):
                total += free[:, self.boxed].astype(np.float64) @ plus[:, self.boxed].T
            for group, part in zip(self.groups, parts, strict=True):
                total += part(low[:, group.members], free[:, group.members])
            return total

        return at

    @staticmethod
    def _group_ends(group: Row, weight: Floats) -> Callable[[Mask, Mask], Floats]:
        width = weight.shape[1]
        # Any price p gives a bound: sum of max(0, weight - p w) over free columns plus p times what is left.
        w = group.weight
        ratio = weight / w
        order = np.argsort(-ratio, axis=1)
        sums = np.cumsum(w[order], axis=1)
        limit = group.upper if np.isfinite(group.upper) else sums[:, -1].max()
        prices = [np.zeros(len(weight))]
        for share in (0.4, 0.6, 0.75, 0.9, 1.0, 1.15, 1.4, 2.0):
            at = np.minimum((sums < share * limit).sum(axis=1), width - 1)
            prices.append(ratio[np.arange(len(weight)), order[np.arange(len(weight)), at]])
        grid = [(p, np.maximum(weight - p[:, None] * w, 0.0)) for p in prices]

        def by_prices(one: Mask, free: Mask) -> Floats:
            used = one @ w
            most, need = np.maximum(group.upper - used, 0.0), np.maximum(group.lower - used, 0.0)
            open_ = free.astype(np.float64)
            best = np.full((len(one), len(weight)), np.inf)
            for p, above in grid:
                best = np.minimum(
                    best, open_ @ above.T + most[:, None] * np.maximum(p, 0.0) + need[:, None] * np.minimum(p, 0.0)
                )
            return best

        return by_prices


def _by_prices(group: Row, a: Floats, open_: Mask, most: Floats, need: Floats) -> Floats:
    """Upper bounds of max a . x over a weighted row, (m,), each the best of a few prices per weight.

    Any price p gives one: sum of max(0, a - p w) over open columns plus p times what is left of the limit.
    """
    w = group.weight
    width, average = len(w), float(w.mean())
    best = np.full(len(a), np.inf)
    step = max(1, IN_CACHE // width)
    for first in range(0, len(a), step):
        part = slice(first, first + step)
        gain, room, least = a[part], most[part], need[part]
        asked = bool(least.any())
        gain = np.where(open_[part], gain, -np.inf) if asked else np.where(open_[part], gain, 0.0)
        ranked = gain / w
        ranked.sort(axis=1)
        at = np.arange(len(gain))
        work = np.empty_like(gain)
        # Where the limits would bind if all columns weighed the average, and a little to either side.
        tries = [
            (np.clip(width - 1 - (share * room / average).astype(np.int64), 0, width - 1), 0.0, np.inf, room)
            for share in PRICE_SHARES
        ]
        if asked:
            tries.append((np.clip(width - (least / average).astype(np.int64), 0, width - 1), -np.inf, 0.0, least))
        for rank, lowest, highest, limit in tries:
            price = ranked[at, rank]
            price = np.where(np.isfinite(price), np.clip(price, lowest, highest), 0.0)
            np.multiply(price[:, None], w, out=work)
            np.subtract(gain, work, out=work)
            np.maximum(work, 0.0, out=work)
            best[part] = np.minimum(best[part], work.sum(axis=1) + price * limit)
    return best


class Places:
    """Units of an assignment filled column by column: a column goes in when an augmenting path finds it room."""

    def __init__(self, block: Assignment) -> None:
        self.usable, self.load, self.need = block.lists
        self.room = [float(limit) + 1e-9 for limit in block.capacity]
        self.inside: list[list[int]] = [[] for _ in self.room]

    def insert(self, c: int) -> bool:
        """Find room for all that the column needs; False leaves the units as they were."""
        need = self.need[c]
        if need <= 1:
            return need == 0 or self._one(c)
        before = list(self.room), [list(unit) for unit in self.inside]
        for _ in range(need):
            if not self._one(c):
                self.room, self.inside = before
                return False
        return True

    def _one(self, c: int) -> bool:
        load, room = self.load, self.room
        for u in self.usable[c]:
            if room[u] >= load[c][u]:
                self.inside[u].append(c)
                room[u] -= load[c][u]
                return True
        came: dict[int, tuple[int, int] | None] = dict.fromkeys(self.usable[c])
        queue = list(came)
        for u in queue:
            previous = came[u]
            mover = c if previous is None else previous[1]
            if room[u] >= load[mover][u]:
                # Move everyone along the path one unit on.
                while previous is not None:
                    behind, mover = previous
                    self.inside[behind].remove(mover)
                    room[behind] += load[mover][behind]
                    self.inside[u].append(mover)
                    room[u] -= load[mover][u]
                    u, previous = behind, came[behind]
                if room[u] < load[c][u]:
                    return False
                self.inside[u].append(c)
                room[u] -= load[c][u]
                return True
            for other in self.inside[u]:
                for v in self.usable[other]:
                    if v not in came:
                        came[v] = (u, other)
                        queue.append(v)
        return False
