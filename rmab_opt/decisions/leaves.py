"""A network's largest value over a set, proven by a tree: columns taken in or out, neurons taken on or off.

Numpy alone. The tree says only what each node branches on; every bound is computed here, at every node, from the
network's arrays and the set's rows. Any lines below a bend, any multipliers and any prices give valid bounds, so
those found here need not be stored. A node that does not close is branched on further, within a limit: a tree is a
guide, never a proof by itself. Rounding is met by 1e-12 of the largest terms that stand in each sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rmab_opt.actions.checker import EPS, Rows

__all__ = ["Closed", "Layers", "Leaves"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ROUNDING = 1e-12
"""Added to every bound, relative to the largest terms that can stand in its sums."""

BATCH = 64
"""Nodes looked at together."""

ROOT_STEPS, STEPS = 24, 8
"""Steps on lines and multipliers: at the root, and at nodes with neurons fixed."""

FIXING = 3
"""Times that a node's columns are fixed by reduced costs."""

BIG_SHARE = 0.05
"""A neuron is branched on when its line costs more than this share of what is open."""

MOST_NODES = 200_000
"""Largest tree."""


class Layers(NamedTuple):
    """value = skip . a + constant + readout . h;  h = slope z + gain max(0, z),  z = weight h_before + bias."""

    weight: tuple[Floats, ...]
    bias: tuple[Floats, ...]
    slope: tuple[Floats, ...]
    gain: tuple[Floats, ...]
    readout: Floats
    skip: Floats
    constant: float

    def value(self, actions: Floats) -> Floats:
        """Values of actions (B, n)."""
        h = actions
        for w, b, s, g in zip(self.weight, self.bias, self.slope, self.gain, strict=True):
            z = h @ w.T + b
            h = s * z + g * np.maximum(z, 0.0)
        total = actions @ self.skip + self.constant
        return np.asarray(total + h @ self.readout if self.weight else total)

    def mass(self) -> tuple[list[Floats], float]:
        """Largest sums of absolute terms behind every neuron and behind the output: the scale of rounding."""
        reach, found = np.ones(len(self.skip)), []
        for w, b, s, g in zip(self.weight, self.bias, self.slope, self.gain, strict=True):
            found.append(np.abs(w) @ reach + np.abs(b))
            reach = (np.abs(s) + np.abs(g)) * found[-1]
        last = float(np.abs(self.skip).sum()) + abs(self.constant)
        return found, last + (float(np.abs(self.readout) @ reach) if self.weight else 0.0)


@dataclass
class Closed:
    """What a tree has come to."""

    bound: float
    """No action of the set is worth more."""
    tree: NDArray[np.int16]
    """What each node branches on, level by level: a column, the number of columns + a neuron, or -1 for a leaf."""
    whole: bool
    """Whether every leaf is at most the target."""
    ended: bool = True
    """Whether no limit stopped it: what stands above the target then are single actions, by rounding alone."""
    better: NDArray[np.int64] | None = None
    """An allowed action worth more than the target, when one was met."""
    leaves: int = 0
    seconds: float = 0.0


@dataclass
class _Ends:
    """Bounds of a layer's pre-activations at nodes (B, neurons)."""

    low: Floats
    high: Floats

    @cached_property
    def bends(self) -> Mask:
        return (self.low < 0) & (self.high > 0)

    @cached_property
    def lines(self) -> tuple[Floats, Floats, Floats]:
        """Slope and height of the line above max(0, z), slope of the nearer one below it."""
        bends = self.bends
        slope = np.where(bends, self.high / np.where(bends, self.high - self.low, 1.0), (self.low >= 0) * 1.0)
        return slope, np.where(bends, -self.low * slope, 0.0), np.where(bends, self.high > -self.low, slope)

    def at(self, nodes: NDArray[np.int64]) -> _Ends:
        """Those of some nodes, with their lines, which are not worked out again."""
        found = _Ends(self.low[nodes], self.high[nodes])
        found.__dict__["lines"] = tuple(part[nodes] for part in self.lines)
        return found


@dataclass
class _Node:
    low: Mask
    up: Mask
    sign: NDArray[np.int8]
    number: int
    parent: float = np.inf


@dataclass
class _Found:
    """The linear bound at nodes: value, the line over the columns behind it, and what branching asks."""

    value: Floats
    cost: Floats
    fixed: Floats
    """The part of the bound that no column changes."""
    price: Floats
    """Price of each column's row, (B, n)."""
    shares: list[Floats] = field(default_factory=list)
    """What each neuron's line costs at the maximiser."""


class Leaves:
    """Bounds of one network over one set of rows.

    Parameters
    ----------
    layers
        The network over the C columns.
    rows
        The set.
    prices
        One a row, for the rows that sorting does not maximise; any are valid, none by default.
    """

    def __init__(self, layers: Layers, rows: Rows, prices: Floats | None = None) -> None:
        self.net, self.n = layers, len(layers.skip)
        self.masses, self.output_mass = layers.mass()
        parts = zip(layers.slope, layers.gain, self.masses, strict=True)
        self.reach = [(np.abs(s) + 2.0 * np.abs(g)) * mass * (1.0 + 1e-6) for s, g, mass in parts]
        self.plain = [bool((s == 0).all() and (g == 1).all()) for s, g in zip(layers.slope, layers.gain, strict=True)]
        self.sizes = [len(b) for b in layers.bias]
        act = rows.act
        self.low0, self.up0 = rows.lower[act] > 0.5, rows.upper[act] > 0.5
        self.groups = _family(rows)
        self.weight = np.zeros(self.n)
        self.group = np.full(self.n, -1)
        for g, (members, weight, _, _) in enumerate(self.groups):
            self.weight[members], self.group[members] = weight, g
        self.shift, self.earned, self.charged = np.zeros(self.n), 0.0, 0.0
        if prices is not None and np.any(prices):
            self._charge(rows, prices)
        if layers.weight:
            both = np.concatenate([layers.weight[0], -layers.weight[0]])
            self.first = self._ends_of(both)

    def _charge(self, rows: Rows, prices: Floats) -> None:
        """Prices of rows that are not sorted: what they take from the columns and what the limits earn."""
        place = np.full(len(rows.lower), -1)
        place[rows.act] = np.arange(self.n)
        y = prices.copy()
        y[[row for *_, row in _family_rows(rows)]] = 0.0
        least, most = rows.limits
        y = np.where(np.isneginf(least), np.maximum(y, 0.0), y)
        y = np.where(np.isposinf(most), np.minimum(y, 0.0), y)
        paid, mass = rows.priced(y)
        helper = np.setdiff1d(np.arange(len(rows.lower)), rows.act)
        low, high = rows.ends
        d = -paid[helper]
        with np.errstate(invalid="ignore"):
            at = np.maximum(np.where(d == 0, 0.0, d * low[helper]), np.where(d == 0, 0.0, d * high[helper]))
        at_row = np.where(y > 0, y * np.where(y > 0, most, 0.0), np.where(y < 0, y * np.where(y < 0, least, 0.0), 0.0))
        if not (np.isfinite(at).all() and np.isfinite(at_row).all()):
            return
        self.shift = paid[rows.act]
        ends = np.where(np.isfinite(low), np.abs(low), 0.0) + np.where(np.isfinite(high), np.abs(high), 0.0)
        self.earned = float(at.sum() + at_row.sum())
        self.charged = float(np.abs(at).sum() + np.abs(at_row).sum() + (mass * np.maximum(ends, 1.0)).sum())

    # ---- linear functions over the columns
    def _ends_of(self, weight: Floats) -> Callable[[Mask, Mask], Floats]:
        """Upper bounds of weight (m, n) @ a at nodes: the least over a few prices that the rows take, (B, m)."""
        plain = self.group < 0
        tables: list[list[tuple[Floats, Floats]]] = []
        for members, w, most, _ in self.groups:
            ratio = weight[:, members] / w
            order = np.argsort(-ratio, axis=1)
            used = np.cumsum(w[order], axis=1)
            at = np.arange(len(weight))
            grid = [np.zeros(len(weight))]
            for share in (0.15, 0.3, 0.45, 0.6, 0.75, 0.88, 1.0, 1.15, 1.4, 1.8, 2.5):
                rank = np.minimum((used <= share * most).sum(axis=1), len(members) - 1)
                grid.append(np.maximum(ratio[at, order[at, rank]], 0.0))
            tables.append([(p, np.maximum(weight[:, members] - p[:, None] * w, 0.0)) for p in grid])
        positive = np.maximum(weight[:, plain], 0.0)

        def ends(low: Mask, up: Mask) -> Floats:
            free = (up & ~low).astype(np.float64)
            total = low.astype(np.float64) @ weight.T + free[:, plain] @ positive.T
            for (members, w, most, _), table in zip(self.groups, tables, strict=True):
                room = np.maximum(most - low[:, members] @ w, 0.0)
                open_ = free[:, members]
                total += np.min([open_ @ over.T + room[:, None] * p for p, over in table], axis=0)
            return total

        return ends

    def maximise(self, cost: Floats, low: Mask, up: Mask) -> tuple[Floats, Floats, Mask]:
        """(upper bounds of cost (B, n) @ a (B,), price of each column's row (B, n), nodes that are empty (B,))."""
        free = up & ~low
        price = np.zeros(cost.shape)
        total = np.einsum("bn,bn->b", cost, low.astype(np.float64))
        empty = np.zeros(len(cost), dtype=bool)
        for members, w, most, least in self.groups:
            used = low[:, members] @ w
            room, need = most - used, np.maximum(least - used, 0.0)
            empty |= room < -1e-9 * (1.0 + abs(most))
            empty |= free[:, members] @ w < need - 1e-9 * (1.0 + abs(least))
            p = _critical(np.where(free[:, members], cost[:, members] / w, -np.inf), w, np.maximum(room, 0.0), need)
            price[:, members] = p[:, None]
            total += np.where(p >= 0, p * np.maximum(room, 0.0), p * need)
        gain = np.maximum(cost - price * self.weight, 0.0)
        return total + np.where(free, gain, 0.0).sum(axis=1), price, empty

    # ---- pre-activations
    def _pre(self, node: tuple[Mask, Mask, list[NDArray[np.int8]]], empty: Mask) -> list[_Ends]:
        """Bounds of every layer's neurons at nodes; marks those that no action reaches."""
        low, up, signs = node
        found: list[_Ends] = []
        for k, (_weight, bias) in enumerate(zip(self.net.weight, self.net.bias, strict=True)):
            slack = ROUNDING * self.masses[k]
            if k == 0:
                both, m = self.first(low, up), len(bias)
                least, most = bias - both[:, m:] - slack, bias + both[:, :m] + slack
            else:
                least, most = self._through(k, found[-1])
                least, most = least - slack, most + slack
                self._sharpen(k, found, low, up, least, most)
            least = np.where(signs[k] > 0, np.maximum(least, 0.0), least)
            most = np.where(signs[k] < 0, np.minimum(most, 0.0), most)
            empty |= (least > most + 1e-9 * self.masses[k]).any(axis=1)
            found.append(_Ends(np.minimum(least, most), np.maximum(least, most)))
        return found

    def ends(self) -> list[tuple[Floats, Floats]]:
        """Lower and upper bounds of every layer's pre-activations over the whole set, (neurons,) each."""
        signs = [np.zeros((1, size), dtype=np.int8) for size in self.sizes]
        found = self._pre((self.low0[None], self.up0[None], signs), np.zeros(1, dtype=bool))
        return [(part.low[0], part.high[0]) for part in found]

    def _through(self, k: int, before: _Ends) -> tuple[Floats, Floats]:
        """Bounds of layer k by intervals of the layer before."""
        s, g = self.net.slope[k - 1], self.net.gain[k - 1]
        ends = [s * z + g * np.maximum(z, 0.0) for z in (before.low, before.high)]
        least, most = np.minimum(*ends), np.maximum(*ends)
        across = before.bends
        least, most = np.where(across, np.minimum(least, 0.0), least), np.where(across, np.maximum(most, 0.0), most)
        plus, minus = np.maximum(self.net.weight[k], 0.0), np.minimum(self.net.weight[k], 0.0)
        bias = self.net.bias[k]
        return least @ plus.T + most @ minus.T + bias, most @ plus.T + least @ minus.T + bias

    def _sharpen(self, k: int, found: list[_Ends], low: Mask, up: Mask, least: Floats, most: Floats) -> None:
        """Linear bounds of the neurons of layer k that may still bend, in place."""
        at, neuron = np.nonzero((least < 0) & (most > 0))
        step = max(1, 400_000 // max(self.n, 1))
        for first in range(0, len(at), step):
            a, i = at[first : first + step], neuron[first : first + step]
            weight, bias = self.net.weight[k][i], self.net.bias[k][i]
            both = np.concatenate([a, a])
            ends = [e.at(both) for e in found]
            cost, fixed, size = self._back(
                np.concatenate([weight, -weight]), np.concatenate([bias, -bias]), ends, None, None
            )
            top = self.maximise(cost, low[both], up[both])[0] + fixed
            top += ROUNDING * (size + np.abs(cost).sum(axis=1) + self.masses[k][np.concatenate([i, i])])
            most[a, i] = np.minimum(most[a, i], top[: len(a)])
            least[a, i] = np.maximum(least[a, i], -top[len(a) :])

    def _back(
        self,
        c: Floats,
        fixed: Floats,
        ends: list[_Ends],
        alpha: list[Floats] | None,
        held: list[Floats] | None,
        keep: list[tuple[Floats, Floats, Floats]] | None = None,
    ) -> tuple[Floats, Floats, Floats]:
        """From coefficients of the last layer's outputs (B, h) back to the columns: (cost, fixed part, size of terms).

        ``alpha`` are slopes below bends, ``held`` signed multipliers of neurons fixed to a side.
        """
        size = np.abs(fixed)
        for k in range(len(ends) - 1, -1, -1):
            slope, height, below = ends[k].lines
            if alpha is not None:
                below = np.where(ends[k].bends, alpha[k], slope)
            bent = c if self.plain[k] else c * self.net.gain[k]
            above = bent > 0
            line = np.where(above, slope, below)
            if keep is not None:
                keep.append((bent, line, np.where(above, height, 0.0)))
            # Lines are no steeper than 1 and no higher than the neuron's own mass: that bounds the terms' sizes.
            size = size + np.abs(c) @ self.reach[k]
            fixed = fixed + np.einsum("bn,bn->b", np.maximum(bent, 0.0), height)
            c = bent * line if self.plain[k] else c * self.net.slope[k] + bent * line
            if held is not None:
                c = c + held[k]
                size = size + np.abs(held[k]) @ self.masses[k]
            fixed = fixed + c @ self.net.bias[k]
            c = c @ self.net.weight[k]
        return c, fixed, size

    # ---- the output
    def bound(self, low: Mask, up: Mask, sign: NDArray[np.int8], target: float, steps: int) -> tuple[_Found, Mask]:
        """Upper bounds at nodes, each the best of a few steps on lines and multipliers."""
        signs = np.split(sign, np.cumsum(self.sizes)[:-1], axis=1) if self.sizes else []
        empty = np.zeros(len(low), dtype=bool)
        ends = self._pre((low, up, signs), empty)
        n_nodes = len(low)
        alpha = [(e.high > -e.low).astype(np.float64) for e in ends]
        beta = [np.zeros_like(a) for a in alpha]
        moments = [[np.zeros_like(a) for a in alpha] for _ in range(4)]
        best: _Found | None = None
        steps = steps if any(e.bends.any() for e in ends) else 0
        for step in range(steps + 1):
            keep: list[tuple[Floats, Floats, Floats]] = []
            held = [b * s for b, s in zip(beta, signs, strict=True)]
            readout = np.broadcast_to(self.net.readout, (n_nodes, len(self.net.readout)))
            c, fixed, size = self._back(readout, np.full(n_nodes, self.net.constant), ends, alpha, held, keep)
            cost = (c if self.sizes else np.zeros((n_nodes, self.n))) + self.net.skip - self.shift
            value, price, none = self.maximise(cost, low, up)
            empty |= none
            fixed = fixed + self.earned
            fixed = fixed + ROUNDING * (size + np.abs(cost).sum(axis=1) + self.output_mass + self.charged)
            now = _Found(value + fixed, cost, fixed, price)
            x = self._point(cost, price, low, up)
            z = self._forward(x, keep)
            now.shares = [
                b * (line * v + lift - np.maximum(v, 0.0)) for (b, line, lift), v in zip(keep[::-1], z, strict=True)
            ]
            best = now if best is None else _better(best, now)
            if step == steps or (best.value <= target).all():
                break
            fade = 0.3 * (1.0 - step / (steps + 1))
            for k, v in enumerate(z):
                bent = keep[len(z) - 1 - k][0]
                slope_step = np.where(ends[k].bends, np.minimum(bent, 0.0) * v, 0.0)
                alpha[k] = np.clip(alpha[k] - fade * _adam(slope_step, moments[0][k], moments[1][k], step), 0.0, 1.0)
                rate = fade * (np.abs(bent).mean() + 1e-12)
                beta[k] = np.maximum(beta[k] - rate * _adam(signs[k] * v, moments[2][k], moments[3][k], step), 0.0)
        assert best is not None
        best.value = np.where(empty, -np.inf, best.value)
        return best, empty

    def _point(self, cost: Floats, price: Floats, low: Mask, up: Mask) -> Floats:
        """The relaxation's maximiser at the prices, without its fractions."""
        return (low | (up & (cost - price * self.weight > 0))).astype(np.float64)

    def _forward(self, x: Floats, keep: list[tuple[Floats, Floats, Floats]]) -> list[Floats]:
        """Pre-activations when every neuron follows its line."""
        found, h = [], x
        for k, (_, line, lift) in enumerate(keep[::-1]):
            z = h @ self.net.weight[k].T + self.net.bias[k]
            found.append(z)
            h = self.net.slope[k] * z + self.net.gain[k] * (line * z + lift)
        return found

    def settle(self, low: Mask, up: Mask, sign: NDArray[np.int8], target: float, steps: int) -> tuple[_Found, Floats]:
        """Bounds at nodes, with columns fixed, in place, whose other value is worth at most the target.

        Returns
        -------
        tuple
            (the last bound, the largest worth of what was given up, (B,)).
        """
        lost = np.full(len(low), -np.inf)
        for turn in range(FIXING):
            for members, w, most, _ in self.groups:
                room = most - low[:, members] @ w
                up[:, members] &= low[:, members] | (w <= room[:, None] + 1e-9 * (1.0 + abs(most)))
            found, _ = self.bound(low, up, sign, target, steps if turn == 0 else min(steps, 2))
            free = up & ~low
            d = found.cost - found.price * self.weight
            worth = found.value[:, None] - np.abs(d) + EPS * 16 * np.abs(d)
            sure = free & (worth <= target) & (found.value > target)[:, None]
            if not sure.any():
                break
            lost = np.maximum(lost, np.where(sure, worth, -np.inf).max(axis=1))
            low |= sure & (d > 0)
            up &= ~(sure & (d <= 0))
        return found, lost

    def _choose(
        self, found: _Found, low: Mask, up: Mask, sign: NDArray[np.int8], target: float, neurons: bool
    ) -> Floats:
        """What to branch on, (B,): a column, or the number of columns + a neuron."""
        free = up & ~low
        pull = np.abs(found.cost) * 1e-3
        if self.sizes:
            reach = np.zeros((len(low), 0))
            for k in range(len(self.sizes) - 1, -1, -1):
                own = np.maximum(found.shares[k], 0.0)
                reach = (own + reach if reach.size else own) @ np.abs(self.net.weight[k])
            pull = pull + reach
        column = np.where(free, pull, -1.0).argmax(axis=1)
        if not neurons or not self.sizes:
            return column
        share = np.where(sign == 0, np.concatenate(found.shares, axis=1), 0.0)
        best = share.argmax(axis=1)
        open_ = np.where(np.isfinite(found.value), found.value - target, 0.0)
        big = (share.max(axis=1) > BIG_SHARE * open_) & (free.sum(axis=1) > 3)
        return np.where(big, self.n + best, column)

    # ---- the tree
    def close(
        self,
        target: float,
        allows: Callable[[NDArray[np.int64]], bool],
        guide: NDArray[np.int16] | None = None,
        *,
        neurons: bool = True,
        seconds: float = np.inf,
        nodes: int = MOST_NODES,
    ) -> Closed:
        """Show that no allowed action is worth more than the target, along a tree or by one of its own.

        Parameters
        ----------
        allows
            The set's own check, for single actions.
        guide
            A tree to follow; nodes of it that close early end there, leaves of it that do not are branched on.
        neurons
            Whether own branches may fix neurons.
        seconds, nodes
            Limits; what is open then stays open, and ``bound`` says what holds all the same.
        """
        began = perf_counter()
        kids = None if guide is None else _children(guide)
        branch: dict[int, int] = {}
        children: dict[int, int] = {}
        stack = [(_Node(self.low0.copy(), self.up0.copy(), np.zeros(sum(self.sizes), dtype=np.int8), 0), 0)]
        count, leaves, top, better, whole = 1, 0, -np.inf, None, True
        while stack:
            if perf_counter() - began > seconds or count > nodes:
                top = max(top, *(node.parent for node, _ in stack))
                break
            taken, stack = stack[-BATCH:], stack[:-BATCH]
            low, up = np.array([node.low for node, _ in taken]), np.array([node.up for node, _ in taken])
            sign = np.array([node.sign for node, _ in taken])
            steps = ROOT_STEPS if len(taken) == 1 and taken[0][0].number == 0 else STEPS if (sign != 0).any() else 0
            found, lost = self.settle(low, up, sign, target, steps)
            parents = np.array([node.parent for node, _ in taken])
            value, ended = np.minimum(found.value, parents), ~(up & ~low).any(axis=1)
            for i in np.flatnonzero(ended & (value > target)).tolist():
                action = low[i].astype(np.int64)
                if not allows(action):
                    value[i] = -np.inf
                    continue
                own = float(self.net.value(low[i][None].astype(np.float64))[0])
                value[i] = min(value[i], own + ROUNDING * self.output_mass)
                if own - ROUNDING * self.output_mass > target:
                    better = action
                # Else rounding alone is wider than the gap: the leaf stays a little above the target.
                whole &= value[i] <= target
            top = max(top, float(lost.max()), float(np.where(value <= target, value, -np.inf).max()))
            own_choice = self._choose(found, low, up, sign, target, neurons)
            for i, (node, at) in enumerate(taken):
                if value[i] <= target or ended[i]:
                    leaves += 1
                    top = max(top, float(value[i]))
                    continue
                j = int(guide[at]) if guide is not None and at >= 0 else -1
                follow = kids is not None and j >= 0
                if j < 0 or (j < self.n and not (up[i, j] and not low[i, j])):
                    # The guide ends here, or names a column that is settled by now.
                    skip = self._skip(guide, kids, at, low[i], up[i]) if follow else -1
                    j, at = (int(guide[skip]), skip) if skip >= 0 and guide is not None else (int(own_choice[i]), -1)
                    follow = skip >= 0
                branch[node.number], children[node.number] = j, count
                ahead = int(kids[at]) if follow and kids is not None else -1
                for side, child in enumerate(self._split(low[i], up[i], sign[i], j)):
                    place = ahead + side if follow else -1
                    stack.append((_Node(*child, count + side, float(value[i])), place))
                count += 2
            if better is not None:
                return Closed(
                    np.inf, _level_order(branch, children), False, True, better, leaves, perf_counter() - began
                )
        whole = bool(whole) and not stack
        return Closed(
            float(top), _level_order(branch, children), whole, not stack, None, leaves, perf_counter() - began
        )

    def _skip(
        self, guide: NDArray[np.int16] | None, kids: NDArray[np.int64] | None, at: int, low: Mask, up: Mask
    ) -> int:
        """The first node of the guide below ``at`` that branches on something still open; -1 when it ends before."""
        assert guide is not None
        assert kids is not None
        while at >= 0 and guide[at] >= 0:
            j = int(guide[at])
            if j >= self.n or (up[j] and not low[j]):
                return at
            # The column is out (first child) or in (second child) already.
            at = int(kids[at]) + int(low[j])
        return -1

    def _split(
        self, low: Mask, up: Mask, sign: NDArray[np.int8], j: int
    ) -> tuple[tuple[Mask, Mask, NDArray[np.int8]], ...]:
        """Both children: column out, column in; or neuron off, neuron on."""
        if j < self.n:
            less, more = up.copy(), low.copy()
            less[j], more[j] = False, True
            return (low, less, sign), (more, up, sign)
        off, on = sign.copy(), sign.copy()
        off[j - self.n], on[j - self.n] = -1, 1
        return (low, up, off), (low, up, on)


def _family_rows(rows: Rows) -> list[tuple[Ints, Floats, float, float, int]]:
    """Disjoint rows with positive weights over the action's columns alone: (columns, weights, most, least, row)."""
    place = np.full(len(rows.lower), -1)
    place[rows.act] = np.arange(len(rows.act))
    free = np.ones(len(rows.act), dtype=bool)
    least, most = rows.limits
    found = []
    for i in np.argsort(-np.diff(rows.indptr), kind="stable").tolist():
        part = slice(rows.indptr[i], rows.indptr[i + 1])
        columns, weight = place[rows.indices[part]], rows.data[part]
        if not len(columns) or (columns < 0).any() or (weight <= 0).any() or not np.isfinite(most[i]):
            continue
        if not free[columns].all() or (weight.sum() <= min(most[i], np.inf) and least[i] <= 0):
            continue
        free[columns] = False
        found.append((columns, weight, float(most[i]), max(0.0, float(least[i])), i))
    return found


def _family(rows: Rows) -> list[tuple[Ints, Floats, float, float]]:
    return [part[:4] for part in _family_rows(rows)]


Ints = NDArray[np.int64]


def _critical(ratio: Floats, w: Floats, room: Floats, need: Floats) -> Floats:
    """The price at which a row fills up, (B,): 0 with room to spare, negative where a lower limit asks for more."""
    order = np.argsort(-ratio, axis=1)
    ranked = np.take_along_axis(ratio, order, axis=1)
    load = np.where(np.isfinite(ranked), w[order], 0.0)
    used = np.cumsum(load, axis=1)
    at = np.arange(len(ratio))
    last = ratio.shape[1] - 1
    rank = (used <= room[:, None] * (1 + 1e-12)).sum(axis=1)
    price = np.where(rank <= last, ranked[at, np.minimum(rank, last)], 0.0)
    price = np.where(np.isfinite(price), np.maximum(price, 0.0), 0.0)
    if need.any():
        short = np.where(ranked > 0, load, 0.0).sum(axis=1) < need
        rank = np.minimum((used < need[:, None]).sum(axis=1), last)
        below = ranked[at, rank]
        price = np.where(short & np.isfinite(below), np.minimum(below, 0.0), price)
    return np.asarray(price)


def _better(best: _Found, now: _Found) -> _Found:
    """Node by node the lower of two bounds."""
    take = now.value < best.value
    pick = [np.where(take[:, None], new, old) for new, old in ((now.cost, best.cost), (now.price, best.price))]
    shares = [np.where(take[:, None], new, old) for new, old in zip(now.shares, best.shares, strict=True)]
    return _Found(np.minimum(now.value, best.value), pick[0], np.where(take, now.fixed, best.fixed), pick[1], shares)


def _adam(gradient: Floats, first: Floats, second: Floats, step: int) -> Floats:
    """Length of a step, by the running means of the gradient, which are moved in place."""
    first *= 0.8
    first += 0.2 * gradient
    second *= 0.95
    second += 0.05 * gradient * gradient
    scale = np.sqrt(second / (1 - 0.95 ** (step + 1)))
    return np.asarray(first / (1 - 0.8 ** (step + 1)) / (scale + 1e-300 + 1e-12 * scale.max(initial=0.0)))


def _children(tree: NDArray[np.int16]) -> NDArray[np.int64]:
    """First child of every node of a tree written level by level."""
    return np.asarray(2 * (np.cumsum(tree >= 0) - 1) + 1, dtype=np.int64)


def _level_order(branch: dict[int, int], children: dict[int, int]) -> NDArray[np.int16]:
    """The tree level by level; open and closed nodes alike are leaves."""
    order, place = [0], 0
    while place < len(order):
        number = order[place]
        if number in branch:
            order += [children[number], children[number] + 1]
        place += 1
    return np.array([branch.get(number, -1) for number in order], dtype=np.int16)


def _pairs(sizes: list[int]) -> list[slice]:
    """Places of each layer's neurons among all."""
    return [slice(a, b) for a, b in pairwise(np.cumsum([0, *sizes]).tolist())]
