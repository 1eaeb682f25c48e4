"""Exact maximisation of a network over 0/1 columns without a MILP solver: best-first branch and bound in batches.

A node fixes some columns and the signs of some neurons. Its upper bound is the network's linear bound (one line above
and one below each neuron that may still bend) maximised over the columns by sorting; the lines below, the multipliers
of fixed signs and the prices of rows that cannot be sorted are improved by a few subgradient steps, inherited from the
parent. Columns whose other value would lose more than the gap are fixed. Maximisers of the bounds are the incumbents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder import Network, Support, bounds
from rmab_opt.encoder.bounds import line_above, masses
from rmab_opt.encoder.network import Hidden, Reduced
from rmab_opt.errors import CapabilityError, CertificateError, InfeasibleError, ModelError, SolverError

__all__ = ["SearchResult", "climb", "maximise"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDING = 1e-12
"""Added to every bound, relative to the largest terms that can stand in its sums: float64 stays far below, also where
large terms cancel."""

SORTED_WIDTH = 600
"""Columns up to which pre-activations are bounded by sorting at every node; wider rows take prices on a grid."""

ROOT_STEPS, NODE_STEPS = 60, 3
"""Subgradient steps on lines, multipliers and prices."""

FEW_COLUMNS = 12
"""From so few open columns on only columns are branched on: the tree below is then finite in practice too, also where
weights of many orders of magnitude leave rounding margins wider than the gap."""

EXACT_ROOT_STEPS, EASY_NODES = 10, 300
"""Sets without prices need fewer at the root, and none at nodes while the tree is small: measured to pay by a third."""

STALL = 10
"""Steps after which one per cent of the gap must have gone, or the steps end."""


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search has proven: no allowed action is worth more than ``bound``."""

    action: np.ndarray
    """int64 (C,), allowed."""
    value: float
    """The network's value of ``action``."""
    bound: float
    nodes: int
    seconds: float
    status: str
    """``optimal`` (gap reached), ``limit`` (seconds or nodes), ``interrupted``."""

    @property
    def gap(self) -> float:
        """bound - value, in the network's unit."""
        return self.bound - self.value


def maximise(
    network: Network,
    support: Support,
    feasible: Callable[[np.ndarray], bool],
    start: np.ndarray | None = None,
    *,
    gap: float = 1e-4,
    absolute_gap: float = 1e-6,
    seconds: float | None = None,
    nodes: int | None = None,
    batch: int = 160,
    interrupt: Callable[[], bool] | None = None,
) -> SearchResult:
    """The allowed action with the largest network value, with a proven bound.

    Parameters
    ----------
    network
        Over the C columns, everything else folded in.
    support
        A relaxation of the set over the columns, 0/1. Rows over disjoint columns are exact; other rows, and
        assignments of columns to units with capacities, enter by prices; what it does not hold is left to ``feasible``.
    feasible
        Judges an action (C,) independently: True when it is allowed. Decides what may become the incumbent.
    start
        An action to begin from; used when it is allowed.
    gap, absolute_gap
        The search ends when bound - value <= max(absolute_gap, gap * abs(value)).
    seconds, nodes
        Limits; none by default. Runs repeat exactly when only ``nodes`` limits them.
    batch
        Nodes looked at together.
    interrupt
        Asked once a batch; the search stops when it says True.

    Raises
    ------
    InfeasibleError
        When no action is allowed, proven by exhausting the tree.
    SolverError
        When a limit came before any allowed action was met.
    CapabilityError
        When the inputs are not 0/1 columns.
    CertificateError
        When an allowed action is worth more than the bound: the support misses it, or a bound is wrong.
    """
    if not np.isin(support.lower, (0, 1)).all() or not np.isin(support.upper, (0, 1)).all():
        raise CapabilityError(
            "a search over inputs that are not 0/1", support, ("encode the network for a MILP", "use binary columns")
        )
    if support.n != network.n_inputs:
        raise ModelError(f"the network has {network.n_inputs} inputs, the support {support.n}", "build both alike.")
    search = _Search(network.reduced, support, feasible, bounds(network, support, "linear"))
    found = search.run(start, gap, absolute_gap, seconds, nodes, batch, interrupt)
    # The network's own forward pass has the last word: where large terms cancel the two differ in their last digits.
    value = float(network(found.action))
    return replace(found, value=value, bound=max(found.bound, value))


# ---------------------------------------------------------------------------------------------------- the set
@dataclass(frozen=True, eq=False)
class _Group:
    """lower <= weight . a[members] <= upper with weight > 0; disjoint from the other groups."""

    members: np.ndarray
    weight: Floats
    lower: float
    upper: float
    counts: bool


@dataclass(frozen=True, eq=False)
class _Assignment:
    """Every chosen column takes ``need`` units of load from the units it can use; units have capacities."""

    load: Floats
    """Shape (C, units), infinite where a column cannot use a unit; per unit of need."""
    need: Floats
    """Shape (C,), 0 for columns outside."""
    capacity: Floats
    """Shape (units,)."""


@dataclass(eq=False)
class Oracle:
    """max A . a over the groups for many (A, fixed columns) at once, with what forcing a column would lose."""

    n: int
    groups: list[_Group]
    side: Floats
    """Rows priced instead of sorted, shape (r, C)."""
    side_lower: Floats
    side_upper: Floats
    assignments: list[_Assignment]
    boxed: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        boxed = np.ones(self.n, dtype=bool)
        for group in self.groups:
            boxed[group.members] = False
        self.boxed = np.flatnonzero(boxed)

    @classmethod
    def of(cls, support: Support) -> Oracle:
        """Groups from the support's first family, prices for everything else."""
        base, side, low, high = [], [], [], []
        family = [row for row in support.families[0] if (row.weight > 0).all()]
        for row in support.rows:
            if any(row is kept for kept in family):
                base.append(_Group(row.members, row.weight, row.lower, row.upper, row.counts))
                continue
            shift = float(np.abs(row.weight[row.weight < 0]).sum())
            weight = np.zeros(support.n)
            weight[row.members] = row.weight
            # Limits are in the unit box over free columns; columns fixed by the support carry no weight there.
            side.append(weight)
            low.append(row.lower - shift)
            high.append(row.upper - shift)
        return cls(
            support.n,
            base,
            np.array(side).reshape(-1, support.n),
            np.array(low),
            np.array(high),
            [_Assignment(*parts) for parts in support.assignments],
        )

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
                groups.append(_Group(place[group.members[stays]], weight, lower, upper, group.counts))
        gone = self.side[:, one & ~kept].sum(axis=1)
        assignments = [_Assignment(a.load[kept], a.need[kept], a.capacity) for a in self.assignments]
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
            # Any price p: sum of max(0, a - p w) over free columns plus p times what is left of the limit.
            ratio = np.where(open_, a / group.weight, -np.inf)
            ranked = np.sort(ratio, axis=1)
            average = float(group.weight.mean())
            weight = np.where(open_, a, -np.inf)
            best = np.full(len(a), np.inf)
            for share in (0.75, 1.0, 1.3):
                rank = np.clip(width - 1 - (share * most / average).astype(np.int64), 0, width - 1)
                price = ranked[np.arange(len(a)), rank]
                price = np.where(np.isfinite(price), np.maximum(price, 0.0), 0.0)
                above = np.maximum(weight - price[:, None] * group.weight, 0.0).sum(axis=1)
                best = np.minimum(best, above + price * most)
            if need.any():
                rank = np.clip(width - (need / average).astype(np.int64), 0, width - 1)
                price = ranked[np.arange(len(a)), rank]
                price = np.where(np.isfinite(price), np.minimum(price, 0.0), 0.0)
                above = np.maximum(weight - price[:, None] * group.weight, 0.0).sum(axis=1)
                best = np.minimum(best, above + price * need)
            total += best
        return total

    @staticmethod
    def _count(group: _Group, a: Floats, one: Mask, free: Mask, losses: bool) -> tuple[Floats, Floats, Mask]:
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
    def _weighted(group: _Group, a: Floats, one: Mask, free: Mask, losses: bool) -> tuple[Floats, Floats, Mask]:
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
    def _group_ends(group: _Group, weight: Floats) -> Callable[[Mask, Mask], Floats]:
        width = weight.shape[1]
        if group.counts and width <= SORTED_WIDTH:

            def by_sorting(one: Mask, free: Mask) -> Floats:
                used = one.sum(axis=1)
                most = np.clip(group.upper - used, 0, width).astype(np.int64)
                need = np.clip(group.lower - used, 0, width).astype(np.int64)
                key = np.where(free[:, None, :], -weight, np.inf)
                key.sort(axis=2)
                # Largest first; closed columns stand last as infinity.
                top = int(most.max(initial=0))
                kept = np.minimum(key[:, :, :top], 0.0)
                sums = np.zeros((*key.shape[:2], top + 1))
                np.cumsum(-kept, axis=2, out=sums[:, :, 1:])
                total: Floats = np.take_along_axis(sums, most[:, None, None], axis=2)[:, :, 0]
                low_top = int(need.max(initial=0))
                if low_top:
                    lack = np.where(np.isfinite(key[:, :, :low_top]), np.maximum(key[:, :, :low_top], 0.0), 0.0)
                    below = np.zeros((*key.shape[:2], low_top + 1))
                    np.cumsum(-lack, axis=2, out=below[:, :, 1:])
                    total = total + np.take_along_axis(below, need[:, None, None], axis=2)[:, :, 0]
                return total

            return by_sorting
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


# ------------------------------------------------------------------------------------------------- the search
class _Search:
    """State of one search; arrays of open nodes in one pool."""

    def __init__(
        self,
        reduced: Reduced,
        support: Support,
        feasible: Callable[[np.ndarray], bool],
        root: list[tuple[Floats, Floats]],
    ) -> None:
        self.net, self.feasible = reduced, feasible
        self.oracle = Oracle.of(support)
        self.low0, self.up0 = support.lower > 0, support.upper > 0
        # The search may shrink to the columns still open; these lead back to all columns.
        self.whole = (reduced, self.oracle, self.low0, self.up0)
        self.columns, self.base = np.arange(support.n), np.zeros(support.n, dtype=np.int64)
        self.root = root
        sizes = [len(layer.bias) for layer in reduced.hidden]
        ends = np.cumsum([0, *sizes])
        self.parts = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self.n_neurons = int(ends[-1])
        self._prepare()
        self.mass = masses(reduced, support)[:-1]
        self.best_value = -np.inf
        self.best: np.ndarray | None = None
        self.nodes = 0
        self.scale = np.ones(self.n_neurons)
        self.price_scale = 1.0
        self.rejected = 0
        self.batches, self.probing, self.neurons_won = 0, True, 0.5

    def _prepare(self) -> None:
        if self.net.hidden:
            first = self.net.hidden[0]
            self.first_ends = self.oracle.ends(np.concatenate([first.weight, -first.weight]))

    def shrink(self, pool: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Drop the columns that are fixed alike in all open nodes, when they are many: everything gets narrower."""
        one: Mask = np.logical_and.reduce(pool["low"], axis=0)
        out = ~np.logical_or.reduce(pool["up"], axis=0)
        kept = ~(out | self.oracle.removable(one))
        if kept.sum() > 0.7 * len(kept) or not kept.any():
            return pool
        gone = one & ~kept
        self.base[self.columns[gone]] = 1
        net = self.net
        hidden = net.hidden
        if hidden:
            first = hidden[0]
            bias = first.bias + first.weight[:, gone].sum(axis=1)
            hidden = (Hidden(np.ascontiguousarray(first.weight[:, kept]), bias, first.slope, first.gain), *hidden[1:])
        self.net = Reduced(hidden, net.readout, net.skip[kept], net.constant + float(net.skip[gone].sum()))
        self.oracle = self.oracle.restrict(kept, one)
        self.columns = self.columns[kept]
        self.low0, self.up0 = self.low0[kept], self.up0[kept]
        self._prepare()
        # Positions of branching columns move with the columns; a fixed one is not branched on.
        place = np.cumsum(kept) - 1
        pool = dict(pool)
        pool["low"], pool["up"] = pool["low"][:, kept], pool["up"][:, kept]
        pool["column"] = place[pool["column"]]
        return pool

    def expand(self, action: np.ndarray) -> np.ndarray:
        """All columns of an action over the columns still open."""
        full = self.base.copy()
        full[self.columns] = np.rint(action).astype(np.int64)
        return full

    # ---- bounds
    def tighten(self, node: dict[str, np.ndarray]) -> Mask:
        """Sharper pre-activation bounds from fixed columns and signs; False for nodes that are empty."""
        low, up = node["low"], node["up"]
        alive = np.ones(len(low), dtype=bool)
        before: tuple[Floats, Floats] | None = None
        for k, layer in enumerate(self.net.hidden):
            part = self.parts[k]
            if k == 0:
                both = self.first_ends(low, up)
                size = len(layer.bias)
                lower, upper = layer.bias - both[:, size:], layer.bias + both[:, :size]
            else:
                assert before is not None
                previous = self.net.hidden[k - 1]
                a = previous.slope * before[0] + previous.gain * np.maximum(before[0], 0.0)
                b = previous.slope * before[1] + previous.gain * np.maximum(before[1], 0.0)
                least, most = np.minimum(a, b), np.maximum(a, b)
                if (previous.slope < 0).any() or (previous.slope + previous.gain < 0).any():
                    inside = (before[0] < 0) & (before[1] > 0)
                    least = np.where(inside, np.minimum(least, 0.0), least)
                    most = np.where(inside, np.maximum(most, 0.0), most)
                plus, minus = np.maximum(layer.weight, 0.0), np.minimum(layer.weight, 0.0)
                lower = least @ plus.T + most @ minus.T + layer.bias
                upper = most @ plus.T + least @ minus.T + layer.bias
            slack = ROUNDING * self.mass[k]
            lower = np.maximum(lower - slack, node["lower"][:, part])
            upper = np.minimum(upper + slack, node["upper"][:, part])
            if k:
                self._linear(node, k, lower, upper)
            sign = node["sign"][:, part]
            lower = np.where(sign > 0, np.maximum(lower, 0.0), lower)
            upper = np.where(sign < 0, np.minimum(upper, 0.0), upper)
            gap = lower - upper
            # A neuron fixed to one sign may have no range left; rounding alone must not empty a node.
            alive &= ~(gap > 1e-7 * (1.0 + np.abs(lower) + np.abs(upper))).any(axis=1)
            crossed = gap > 0
            lower, upper = np.where(crossed, upper, lower), np.where(crossed, lower, upper)
            node["lower"][:, part], node["upper"][:, part] = lower, upper
            before = (lower, upper)
        return alive

    def _linear(self, node: dict[str, np.ndarray], k: int, lower: Floats, upper: Floats) -> None:
        """Sharpen bounds of layer k in place by linear bounds, for the (node, neuron) pairs that are still open."""
        layer = self.net.hidden[k]
        at, neuron = np.nonzero((lower < 0) & (upper > 0) & (node["sign"][:, self.parts[k]] == 0))
        if not at.size:
            return
        weight, bias = layer.weight[neuron], layer.bias[neuron]
        c, e = np.concatenate([weight, -weight]), np.concatenate([bias, -bias])
        twice = np.concatenate([at, at])
        slack = np.full(len(c), float(self.mass[k].max()))
        for j in range(k - 1, -1, -1):
            before, part = self.net.hidden[j], self.parts[j]
            low, up = node["lower"][:, part], node["upper"][:, part]
            slope, height = line_above(low, up)
            # The line below that encloses less area: zero or x.
            below = np.where((low < 0) & (up > 0), (up > -low).astype(np.float64), slope)
            bent = c * before.gain
            positive = bent > 0
            e = e + np.einsum("mh,mh->m", np.where(positive, bent, 0.0), height[twice])
            a = c * before.slope + bent * np.where(positive, slope[twice], below[twice])
            e = e + a @ before.bias
            slack = slack + (np.abs(a) + np.abs(bent)) @ self.mass[j]
            c = a @ before.weight
        tops = self.oracle.values(c, node["low"], node["up"], twice) + e + ROUNDING * slack
        upper[at, neuron] = np.minimum(upper[at, neuron], tops[: len(at)])
        lower[at, neuron] = np.maximum(lower[at, neuron], -tops[len(at) :])

    def evaluate(self, node: dict[str, np.ndarray], losses: bool) -> dict[str, Any]:
        """The linear bound at the node's lines, multipliers and prices, with everything a step or a branch needs."""
        hidden = self.net.hidden
        lower, upper = node["lower"], node["upper"]
        unstable = (lower < 0) & (upper > 0)
        slope, height = line_above(lower, upper)
        below = np.where(unstable, node["alpha"], slope)
        bent = np.zeros_like(lower)
        n_nodes = len(lower)
        c = np.broadcast_to(self.net.readout, (n_nodes, len(self.net.readout)))
        e = np.full(n_nodes, self.net.constant)
        size = np.abs(e) + np.abs(self.net.skip).sum()
        for k in range(len(hidden) - 1, -1, -1):
            layer, part = hidden[k], self.parts[k]
            b = c * layer.gain
            bent[:, part] = b
            line = np.where(b > 0, slope[:, part], below[:, part])
            lift = np.where(b > 0, b * height[:, part], 0.0)
            a = c * layer.slope + b * line + node["beta"][:, part] * node["sign"][:, part]
            e = e + lift.sum(axis=1) + a @ layer.bias
            size = size + (np.abs(a) + np.abs(b)) @ self.mass[k]
            c = a @ layer.weight
        cost = c + self.net.skip if len(hidden) else np.broadcast_to(self.net.skip, (n_nodes, self.oracle.n))
        cost, earned, cheapest = self.oracle.priced(cost, node["price"])
        values, points, loss, possible = self.oracle.maximise(cost, node["low"], node["up"], losses)
        size = size + np.abs(earned) + np.einsum("bn,bn->b", np.abs(cost), points)
        total = values + e + earned + ROUNDING * size
        # Forward through the chosen lines at the maximiser: what each line and multiplier is worth there.
        x = np.zeros_like(lower)
        h = points
        for k, layer in enumerate(hidden):
            part = self.parts[k]
            z = h @ layer.weight.T + layer.bias
            x[:, part] = z
            above = bent[:, part] > 0
            line = np.where(above, slope[:, part] * z + height[:, part], below[:, part] * z)
            h = layer.slope * z + layer.gain * line
        return {
            "bound": np.where(possible, total, -np.inf),
            "points": points,
            "loss": loss,
            "x": x,
            "bent": bent,
            "unstable": unstable,
            "slope": slope,
            "height": height,
            "cheapest": cheapest,
        }

    def improve(self, node: dict[str, np.ndarray], steps: int, cutoff: float) -> None:
        """Subgradient steps (Adam) on lines below, multipliers and prices; each node keeps its best."""
        names = [name for name, width in (("alpha", self.n_neurons), ("beta", self.n_neurons)) if width]
        names += ["price"] if self.oracle.n_prices else []
        if not names:
            return
        rate: dict[str, Any] = {"alpha": 0.3, "beta": 0.3 * self.scale, "price": 0.2 * self.price_scale}
        n_nodes = len(node["low"])
        at = np.arange(n_nodes)
        work = {name: node[name].copy() for name in node}
        first = {name: np.zeros_like(work[name]) for name in names}
        second = {name: np.zeros_like(work[name]) for name in names}
        best = np.full(n_nodes, np.inf)
        earlier = np.inf
        for step in range(steps):
            found = self.evaluate(work, False)
            if step and step % STALL == 0:
                now = float(best.max())
                if earlier - now <= 1e-2 * (now - cutoff if np.isfinite(cutoff) else abs(now)):
                    break
                earlier = now
            better = found["bound"] < best[at]
            rows = at[better]
            best[rows] = found["bound"][better]
            for name in names:
                node[name][rows] = work[name][better]
            if step + 1 == steps:
                break
            open_ = best[at] > cutoff
            if not open_.any():
                break
            gradient = {
                "alpha": np.where(found["unstable"], np.minimum(found["bent"], 0.0) * found["x"], 0.0),
                "beta": work["sign"] * found["x"],
            }
            if "price" in names:
                gradient["price"] = self.oracle.price_slope(found["points"], work["price"], found["cheapest"])
            if not open_.all() and open_.mean() < 0.75:
                at = at[open_]
                work = {name: value[open_] for name, value in work.items()}
                first = {name: value[open_] for name, value in first.items()}
                second = {name: value[open_] for name, value in second.items()}
                gradient = {name: value[open_] for name, value in gradient.items()}
            fade = 1.0 - step / steps
            for name in names:
                g = gradient[name]
                first[name] = 0.8 * first[name] + 0.2 * g
                second[name] = 0.95 * second[name] + 0.05 * g * g
                move = (first[name] / (1 - 0.8 ** (step + 1))) / (
                    np.sqrt(second[name] / (1 - 0.95 ** (step + 1))) + 1e-12
                )
                work[name] = work[name] - fade * rate[name] * move
            work["alpha"] = np.clip(work["alpha"], 0.0, 1.0)
            work["beta"] = np.where(work["sign"] != 0, np.maximum(work["beta"], 0.0), 0.0)
            if "price" in names:
                work["price"] = self.oracle.project(work["price"])

    # ---- incumbents
    def offer(self, actions: np.ndarray, tries: int | None = 8) -> None:
        """Take the best allowed one among the actions (M, C) as incumbent when it is better; None tries all."""
        values = self.net(actions.astype(np.float64))
        for i in np.argsort(-values, kind="stable")[:tries]:
            if not values[i] > self.best_value:
                return
            if self.allowed(actions[i]):
                self.best = self.expand(actions[i])
                # From all columns again, so that folding leaves no trace in the value.
                self.best_value = float(self.whole[0](self.best[None].astype(np.float64))[0])
                return

    def fits(self, actions: Floats) -> Mask:
        """Which actions (M, C) keep the support's fixed columns and rows."""
        return ((actions >= self.low0) & (actions <= self.up0)).all(axis=1) & self.oracle.fits(actions)

    def allowed(self, action: np.ndarray) -> bool:
        """By the rows at hand first, then by the checker."""
        if not self.fits(action[None].astype(np.float64))[0]:
            return False
        return bool(self.feasible(self.expand(action)))

    def polish(self) -> None:
        """Local search from the incumbent."""
        if self.best is not None:
            net, oracle, low, up = self.whole

            def fits(actions: Floats) -> Mask:
                return ((actions >= low) & (actions <= up)).all(axis=1) & oracle.fits(actions)

            action, value = climb(net, self.best, fits, self.feasible)
            if value > self.best_value:
                self.best, self.best_value = action, value

    def repair(self, point: Floats, worth: Floats) -> None:
        """Columns of a maximiser, dearest first, as long as the checker lets each in: an incumbent where rows clash."""
        action = self.low0.astype(np.int64)
        if not self.feasible(self.expand(action)) and not self.oracle.exact:
            # Sets that ask for something cannot be grown from nothing one column at a time.
            return
        ranked = np.argsort(-(point * 1e6 + worth), kind="stable")
        order = [int(c) for c in ranked[: int(point.sum()) + 60] if self.up0[c] and not action[c]]
        # Places in units by augmenting paths judge most columns at once; the checker then sees the whole action.
        units = [_Places(block) for block in self.oracle.assignments]
        for c in np.flatnonzero(action).tolist():
            for places in units:
                places.insert(c)
        grown = action.copy()
        for c in order:
            grown[c] = 1
            if not (self.fits(grown[None].astype(np.float64))[0] and all(places.insert(c) for places in units)):
                grown[c] = 0
        if self.feasible(self.expand(grown)):
            self.offer(grown[None])
            return
        for c in order:
            action[c] = 1
            if not self.allowed(action):
                action[c] = 0
        self.offer(action[None])

    # ---- tree
    def run(
        self,
        start: np.ndarray | None,
        gap: float,
        absolute_gap: float,
        seconds: float | None,
        nodes: int | None,
        batch: int,
        interrupt: Callable[[], bool] | None,
    ) -> SearchResult:
        """See :func:`maximise`."""
        began = perf_counter()
        if start is not None:
            self.offer(np.asarray(start)[None])
            self.polish()
        width = self.n_neurons
        lower, upper = (
            np.concatenate([ends[side] for ends in self.root[:-1]]) if width else np.zeros(0) for side in (0, 1)
        )
        node: dict[str, np.ndarray] = {
            "low": self.low0[None].copy(),
            "up": self.up0[None].copy(),
            "lower": lower[None],
            "upper": upper[None],
            "alpha": (upper > -lower).astype(np.float64)[None],
            "beta": np.zeros((1, width)),
            "sign": np.zeros((1, width), dtype=np.int8),
            "price": np.zeros((1, self.oracle.n_prices)),
            "parent": np.array([float(self.root[-1][1][0])]),
            "origin": np.zeros(1, dtype=np.int64),
            "way": np.zeros(1, dtype=bool),
        }
        root = self.evaluate(node, True)
        if width:
            self.scale = np.abs(root["bent"][0]) + 1e-3 * np.abs(root["bent"][0]).max() + 1e-12
        losses = root["loss"][0]
        self.price_scale = float(np.median(losses[np.isfinite(losses)])) + 1e-12 if np.isfinite(losses).any() else 1.0
        if self.oracle.exact and start is None:
            # The first maximiser, improved by swaps, gives the root something to fix columns against.
            self.offer_points(root, root["bound"])
            self.polish()

        def tolerance() -> float:
            return max(absolute_gap, gap * abs(self.best_value))

        def cutoff() -> float:
            return -np.inf if self.best is None else self.best_value + tolerance()

        pool = _Pool()
        closed = -np.inf  # largest bound among nodes dropped because the incumbent is within the gap
        status = "optimal"
        fresh, steps = node, ROOT_STEPS if self.oracle.n_prices else min(ROOT_STEPS, EXACT_ROOT_STEPS)
        last_polish = -np.inf
        picked: dict[str, np.ndarray] | None = None
        while True:
            kept, dropped = self.look(fresh, steps, cutoff)
            if picked is not None:
                kept = self.select(kept, picked, cutoff())
            closed = max(closed, dropped)
            if self.best is not None and self.best_value > last_polish + absolute_gap:
                before = self.best_value
                self.polish()
                last_polish = self.best_value
                if picked is None and len(kept["bound"]) and self.best_value > before:
                    # At the root a better incumbent fixes more columns, and what is fixed there leaves for good.
                    again = {name: value for name, value in kept.items() if name in node}
                    again["parent"] = kept["bound"]
                    kept, dropped = self.look(again, NODE_STEPS, cutoff)
                    closed = max(closed, dropped)
            pool.add(kept)
            if picked is None or self.batches % 20 == 0:
                # Now and again: what the incumbent has settled leaves, and columns that all open nodes agree on.
                everyone = pool.take(pool.size)
                alive = everyone["bound"] > cutoff()
                closed = max(closed, float(everyone["bound"][~alive].max(initial=-np.inf)))
                everyone = {name: value[alive] for name, value in everyone.items()}
                pool = _Pool()
                pool.add(self.shrink(everyone) if alive.any() else everyone)
            if pool.top <= cutoff():
                closed = max(closed, pool.top)
                pool = _Pool()
                break
            if (seconds is not None and perf_counter() - began >= seconds) or (
                nodes is not None and self.nodes >= nodes
            ):
                status = "limit"
                break
            if interrupt is not None and interrupt():
                status = "interrupted"
                break
            picked = pool.take(min(batch // 4, pool.size))
            easy = not self.oracle.n_prices and self.nodes < EASY_NODES
            fresh, steps = self.branch(picked), 1 if easy else NODE_STEPS
        bound = max(pool.top, self.best_value)
        if np.isfinite(closed):
            # A node left because it was within the gap still bounds what was not looked at, never by more than that.
            bound = max(bound, min(closed, self.best_value + tolerance()))
        ceiling = float(self.root[-1][1][0])
        if self.best_value > ceiling + 1e-6 * max(1.0, abs(ceiling)):
            raise CertificateError(
                f"an allowed action is worth {self.best_value:.8g}, above the proven bound {ceiling:.8g}",
                "check that the support holds every allowed action; report this with the model file.",
            )
        if self.best is None:
            if status == "optimal":
                raise InfeasibleError("no action is allowed", "read the explanation of the action set.")
            raise SolverError("no allowed action was met before the limit", "give a start, or more seconds.")
        return SearchResult(self.best, self.best_value, float(bound), self.nodes, perf_counter() - began, status)

    def look(
        self, node: dict[str, np.ndarray], steps: int, cutoff: Callable[[], float]
    ) -> tuple[dict[str, np.ndarray], float]:
        """Bound nodes, offer their maximisers, fix columns; the nodes still open and the largest bound dropped."""
        self.nodes += len(node["low"])
        alive = self.tighten(node)
        node = {name: value[alive] for name, value in node.items()}
        self.improve(node, steps, cutoff())
        found = self.evaluate(node, True)
        bound = np.minimum(found["bound"], node["parent"])
        self.offer_points(found, bound)
        limit = cutoff()
        open_ = bound > limit
        dropped = float(bound[~open_].max(initial=-np.inf))
        node = {name: value[open_] for name, value in node.items()}
        found = {name: value[open_] if isinstance(value, np.ndarray) else value for name, value in found.items()}
        bound = bound[open_]
        # Reduced costs: the other value of a column is worth at most found bound - loss.
        free = node["up"] & ~node["low"]
        sure = free & (found["bound"][:, None] - found["loss"] <= limit)
        chosen = found["points"] > 0.5
        dropped = max(
            dropped,
            float((found["bound"][:, None] - found["loss"])[sure].max(initial=-np.inf)) if sure.any() else -np.inf,
        )
        node["low"] = node["low"] | (sure & chosen)
        node["up"] = node["up"] & ~(sure & ~chosen)
        # Nodes without free columns are single actions: offered exactly, and done.
        done = ~(node["up"] & ~node["low"]).any(axis=1)
        if done.any():
            self.offer(node["low"][done].astype(np.float64), tries=None)
            keep = ~done
            node = {name: value[keep] for name, value in node.items()}
            found = {name: value[keep] if isinstance(value, np.ndarray) else value for name, value in found.items()}
            bound = bound[keep]
        node["bound"] = bound
        node["neuron"], node["column"] = self.choose(node, found)
        return node, dropped

    def offer_points(self, found: dict[str, Any], bound: Floats) -> None:
        """Maximisers, made whole, that could beat the incumbent."""
        if not len(bound):
            return
        points = np.floor(found["points"] + 1e-9)
        if self.oracle.exact:
            self.offer(points)
            return
        good = self.fits(points)
        if good.any():
            self.offer(points[good])
        self.rejected += 1
        if self.rejected <= 2 or self.best is None or self.rejected % 10 == 0:
            top = int(np.argmax(bound))
            self.repair(points[top], np.where(found["points"][top] > 0, found["loss"][top], -found["loss"][top]))

    def choose(self, node: dict[str, np.ndarray], found: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """What each node branches on: a neuron (kind 1) by its share of the gap, or a column (kind 0)."""
        n_nodes = len(node["low"])
        neuron, column = np.full(n_nodes, -1), np.full(n_nodes, -1)
        if not n_nodes:
            return neuron, column
        free = node["up"] & ~node["low"]
        pull = np.zeros(free.shape)
        if self.n_neurons:
            x, bent = found["x"], found["bent"]
            relu = np.maximum(x, 0.0)
            above = bent * (found["slope"] * x + found["height"] - relu)
            below = bent * (node["alpha"] * x - relu)
            share = np.where(found["unstable"], np.maximum(np.where(bent > 0, above, below), 0.0), 0.0)
            best = share.argmax(axis=1)
            worth = share[np.arange(n_nodes), best]
            left = node["bound"] - self.best_value if self.best is not None else np.full(n_nodes, np.inf)
            neuron = np.where(worth > 1e-4 * np.where(np.isfinite(left), left, 0.0) + 1e-12, best, -1)
            neuron = np.where(free.sum(axis=1) <= FEW_COLUMNS, -1, neuron)
            spread = np.where(found["unstable"], share / np.maximum(node["upper"] - node["lower"], 1e-12), 0.0)
            # Signs that the maximiser breaks also ask for columns.
            spread += np.where(node["sign"] * x < 0, np.abs(x) * node["beta"], 0.0)
            reach = np.zeros((n_nodes, 0))
            for k in range(len(self.net.hidden) - 1, -1, -1):
                own = spread[:, self.parts[k]]
                reach = (own if not reach.size else own + reach) @ np.abs(self.net.hidden[k].weight)
            pull = reach
        part = found["points"]
        fractional = np.minimum(part, 1 - part)
        near = 1.0 / (1e-9 + np.abs(found["loss"]))
        # Columns that widen the neurons behind the gap come first; shares and near ties only decide without any.
        tie = fractional + 1e-3 * near / near.max(axis=1, keepdims=True)
        score = np.where(free, pull + 1e-6 * (pull.max(axis=1, keepdims=True) + 1e-12) * tie, -1.0)
        column = score.argmax(axis=1)
        return neuron, column

    def branch(self, node: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Both children of every node, on its neuron or on its column; of both ``select`` keeps the better pair."""
        children = []
        self.batches += 1
        # Both pairs are looked at until one kind wins nearly always; then now and again.
        self.probing = 0.08 < self.neurons_won < 0.92 or self.batches < 6 or self.batches % 5 == 0
        for on_neuron in (True, False):
            use = node["neuron"] >= 0
            if not self.probing:
                use = use & (self.neurons_won > 0.5)
            rows = np.flatnonzero(use) if on_neuron else np.flatnonzero(self.probing | ~use)
            at = np.arange(len(rows))
            for side in (True, False):
                child = {
                    name: node[name][rows] for name in ("low", "up", "lower", "upper", "alpha", "beta", "sign", "price")
                }
                child["parent"] = node["bound"][rows]
                child["origin"] = rows
                child["way"] = np.full(len(rows), on_neuron)
                if on_neuron:
                    child["sign"][at, node["neuron"][rows]] = 1 if side else -1
                elif side:
                    child["low"][at, node["column"][rows]] = True
                else:
                    child["up"][at, node["column"][rows]] = False
                children.append(child)
        return {name: np.concatenate([child[name] for child in children]) for name in children[0]}

    def select(
        self, node: dict[str, np.ndarray], parents: dict[str, np.ndarray], limit: float
    ) -> dict[str, np.ndarray]:
        """Of the two pairs of children that cover a parent, those of the pair that closes more of its gap."""
        if not self.probing:
            return node
        n = len(parents["bound"])
        # Without an incumbent the best child's own bound stands for the goal.
        goal = limit if np.isfinite(limit) else float(node["bound"].min(initial=0.0))
        gap = np.maximum(parents["bound"] - goal, 1e-300)
        closed = np.ones((2, n))
        for way in (0, 1):
            mine = node["way"] == bool(way)
            origin = node["origin"][mine]
            left = np.clip((node["bound"][mine] - goal) / gap[origin], 0.0, 1.0)
            np.multiply.at(closed[way], origin, 1.03 - left)
            # A child that is gone has closed its whole share.
            closed[way] *= 1.03 ** (2 - np.bincount(origin, minlength=n))
        take = (closed[1] > closed[0]) & (parents["neuron"] >= 0)
        self.neurons_won += 0.2 * (float(take.mean()) - self.neurons_won)
        keep = node["way"] == take[node["origin"]]
        return {name: value[keep] for name, value in node.items()}


class _Places:
    """Units of an assignment filled column by column: a column goes in when an augmenting path finds it room."""

    def __init__(self, block: _Assignment) -> None:
        self.block = block
        self.usable = [np.flatnonzero(np.isfinite(row)).tolist() for row in block.load]
        self.room = block.capacity.astype(np.float64) + 1e-9
        self.inside: list[list[int]] = [[] for _ in self.room]

    def insert(self, c: int) -> bool:
        """Find room for all that the column needs; False leaves the units as they were."""
        need = round(float(self.block.need[c]))
        before = self.room.copy(), [list(unit) for unit in self.inside]
        for _ in range(need):
            if not self._one(c):
                self.room, self.inside = before
                return False
        return True

    def _one(self, c: int) -> bool:
        load = self.block.load
        came: dict[int, tuple[int, int] | None] = dict.fromkeys(self.usable[c])
        queue = list(came)
        for u in queue:
            previous = came[u]
            mover = c if previous is None else previous[1]
            if self.room[u] >= load[mover, u]:
                # Move everyone along the path one unit on.
                while previous is not None:
                    behind, mover = previous
                    self.inside[behind].remove(mover)
                    self.room[behind] += load[mover, behind]
                    self.inside[u].append(mover)
                    self.room[u] -= load[mover, u]
                    u, previous = behind, came[behind]
                if self.room[u] < load[c, u]:
                    return False
                self.inside[u].append(c)
                self.room[u] -= load[c, u]
                return True
            for other in self.inside[u]:
                for v in self.usable[other]:
                    if v not in came:
                        came[v] = (u, other)
                        queue.append(v)
        return False


class _Pool:
    """Open nodes in arrays that grow; best ones are taken out, the last ones fill their places."""

    def __init__(self) -> None:
        self.parts: dict[str, np.ndarray] = {}
        self.size = 0

    @property
    def top(self) -> float:
        """Largest bound of an open node."""
        return float(self.parts["bound"][: self.size].max()) if self.size else -np.inf

    def add(self, nodes: dict[str, np.ndarray]) -> None:
        """Put nodes in."""
        count = len(nodes["bound"])
        if not count:
            return
        if not self.parts:
            self.parts = {name: value.copy() for name, value in nodes.items()}
            self.size = count
            return
        end = self.size + count
        if end > len(self.parts["bound"]):
            for name, value in self.parts.items():
                room = np.empty((2 * end, *value.shape[1:]), dtype=value.dtype)
                room[: self.size] = value[: self.size]
                self.parts[name] = room
        for name, value in self.parts.items():
            value[self.size : end] = nodes[name]
        self.size = end

    def take(self, count: int) -> dict[str, np.ndarray]:
        """The nodes with the largest bounds, out of the pool."""
        if not count:
            return {name: value[:0].copy() for name, value in self.parts.items()} or {"bound": np.zeros(0)}
        bound = self.parts["bound"][: self.size]
        chosen = np.argpartition(-bound, count - 1)[:count] if count < self.size else np.arange(self.size)
        taken = {name: value[chosen] for name, value in self.parts.items()}
        left = self.size - count
        holes = chosen[chosen < left]
        movers = np.setdiff1d(np.arange(left, self.size), chosen)
        for value in self.parts.values():
            value[holes] = value[movers]
        self.size = left
        return taken


# ---------------------------------------------------------------------------------------------- local search
def climb(
    network: Network | Reduced,
    action: np.ndarray,
    fits: Callable[[Floats], Mask],
    feasible: Callable[[np.ndarray], bool],
    *,
    passes: int = 60,
    tries: int = 8,
) -> tuple[np.ndarray, float]:
    """Best single flips and one-for-one swaps from an allowed action until none helps.

    Neighbours are scored from the action's first pre-activation plus a difference of two columns of the first
    weight, the most promising swaps (by the network's slope at the action) first.

    Parameters
    ----------
    fits
        Which actions (M, C) keep the rows at hand; a cheap filter.
    feasible
        The full check of one action, asked for the best neighbours only.

    Returns
    -------
    tuple
        (allowed action int64 (C,), its value); never worse than the one given.
    """
    net = network.reduced if isinstance(network, Network) else network
    current = np.asarray(action).astype(np.float64)
    value = float(net(current[None])[0])
    for _ in range(passes):
        inside, outside = np.flatnonzero(current > 0.5), np.flatnonzero(current < 0.5)
        # The slope at the action ranks columns; the outermost of each side make the neighbourhood.
        slope = _slope(net, current)
        inside = inside[np.argsort(slope[inside], kind="stable")[:40]]
        outside = outside[np.argsort(-slope[outside], kind="stable")[:40]]
        moved = np.concatenate(
            [
                np.stack([np.repeat(inside, len(outside)), np.tile(outside, len(inside))], axis=1),
                np.stack([inside, np.full(len(inside), -1)], axis=1),
                np.stack([np.full(len(outside), -1), outside], axis=1),
            ]
        )
        if not len(moved):
            break
        values = _after(net, current, moved[:, 0], moved[:, 1])
        better = np.flatnonzero(values > value + 1e-9 * max(1.0, abs(value)))
        taken = False
        checked = 0
        for i in better[np.argsort(-values[better], kind="stable")]:
            candidate = current.copy()
            if moved[i, 0] >= 0:
                candidate[moved[i, 0]] = 0.0
            if moved[i, 1] >= 0:
                candidate[moved[i, 1]] = 1.0
            if not fits(candidate[None])[0]:
                continue
            checked += 1
            if feasible(candidate.astype(np.int64)):
                current, value, taken = candidate, float(net(candidate[None])[0]), True
                break
            if checked >= tries:
                break
        if not taken:
            break
    return current.astype(np.int64), value


def _slope(net: Reduced, action: Floats) -> Floats:
    """Gradient of the network at an action, shape (C,)."""
    signs, h = [], action
    for layer in net.hidden:
        x = layer.weight @ h + layer.bias
        d = layer.slope + layer.gain * (x > 0)
        signs.append(d)
        h = layer.slope * x + layer.gain * np.maximum(x, 0.0)
    if not net.hidden:
        return net.skip
    c = net.readout
    for layer, d in zip(reversed(net.hidden), reversed(signs), strict=True):
        c = (c * d) @ layer.weight
    return c + net.skip


def _after(net: Reduced, action: Floats, out: np.ndarray, into: np.ndarray) -> Floats:
    """Values after taking column ``out`` away and ``into`` in; -1 for none."""
    change = np.where(into >= 0, net.skip[into], 0.0) - np.where(out >= 0, net.skip[out], 0.0)
    value = float(action @ net.skip) + net.constant + change
    if not net.hidden:
        return value
    first = net.hidden[0]
    # Position -1 reads the zero column that stands last.
    columns = np.concatenate([first.weight, np.zeros((len(first.bias), 1))], axis=1).T
    x = first.weight @ action + first.bias + columns[into] - columns[out]
    h = first.slope * x + first.gain * np.maximum(x, 0.0)
    for layer in net.hidden[1:]:
        h = layer(h)
    return value + h @ net.readout
