"""Concave quadratic functions of the columns above a network: what no line above single neurons can see.

Lines above neurons let every neuron pick its own mixture of actions. With r = max(0, z) a neuron knows r (z - r) = 0,
and a column knows a (a - 1) = 0; multipliers of these products, of r >= 0, r >= z, of the usual line above r, and of
columns times rows of the set turn the network into a quadratic function of columns and neurons that lies above it at
every allowed action. Where it is concave in both, its largest value over the neurons is known in closed form, and the
tangent at any point is a linear function above the network. This is the dual of the semidefinite relaxation
(Raghunathan, Steinhardt, Liang 2018; Billionnet, Elloumi 2007 for columns), at multipliers found by subgradient steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

from rmab_opt.encoder.bounds import backward, line_above
from rmab_opt.search.node_bounds import ROUNDING, Adam, Node, NodeBounds
from rmab_opt.search.oracle import Oracle

__all__ = ["Fitted", "applies", "fit"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

STEPS, RATE = 150, 0.15
"""Subgradient steps on the multipliers, and the length of the first one, in powers of e."""

FIRST, APART = 1.0, 1.5
"""The neurons' multipliers at the start: of the mean coefficient over the mean width, and of the steepest square."""

LEAST = 1e-3
"""Least eigenvalue of the neurons' part, in shares of its mean diagonal: what is divided by stays away from zero."""

OUTER, COLUMNS = {"q", "p", "alpha"}, {"tau", "row"}
"""Multipliers of the second layer's neurons, and of columns; all others are of the first layer's neurons."""

AGAIN, PACE = 0.08, 0.06
"""Length of the first step, and of the tangent's way to its maximiser, where a fit goes on from another."""

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Fitted:
    """The lowest tangent found over a node: a linear function above the network, and what led there."""

    bound: float
    loss: Floats
    """What the other value of each column would lose at least, (C,); 0 where it is fixed."""
    vertex: Floats
    """The tangent's maximiser, (C,)."""
    point: Floats
    """Where the tangent touches the quadratic, (C,)."""
    cost: Floats
    """What a column costs between 0 and 1, (C,)."""
    price: Floats
    """Of the set's rows, (prices,)."""
    multipliers: dict[str, Floats]
    """All others, where every neuron and column has its place: what fits at nodes below start from."""


def applies(bounds: NodeBounds) -> bool:
    """Whether the first layer bends and is plain ReLU (of any gain)."""
    hidden = bounds.net.hidden
    return bool(hidden) and not hidden[0].slope.any()


class _Above(NamedTuple):
    """The quadratic at some multipliers, over the columns."""

    bend: Floats
    linear: Floats
    constant: float
    diagonal: Floats
    size: float


class _Fit:
    """Multipliers of one network at one node, and the quadratic that they make.

    In z = weight a + bias and y = outer max(0, z) + shift the network is at most
    skip . a + constant + direct . max(0, z) + straight . y + bent . max(0, y).
    """

    def __init__(self, bounds: NodeBounds, node: Node) -> None:
        net, parts = bounds.net, bounds.parts
        lower, upper = node["lower"][0], node["upper"][0]
        one, up = node["low"][0], node["up"][0]
        # Columns that are settled leave, as far as the set lets them go; neurons that are never on are not there.
        self.kept = kept = ~(~up | bounds.oracle.removable(one))
        self.oracle = bounds.oracle.restrict(kept, one)
        self.low, self.up = one[None, kept], up[None, kept]
        first, gone = net.hidden[0], one & ~kept
        neurons = np.flatnonzero(upper[parts[0]] > 0)
        self.neurons = neurons = neurons if neurons.size else np.zeros(1, dtype=np.int64)
        self.least, self.most = lower[parts[0]][neurons], upper[parts[0]][neurons]
        self.weight = np.ascontiguousarray(first.weight[neurons][:, kept])
        self.bias = first.bias[neurons] + first.weight[neurons][:, gone].sum(axis=1)
        self.line, self.height = line_above(self.least, self.most)
        self.skip = net.skip[kept]
        self.constant = net.constant + float(net.skip[gone].sum())
        self.size = abs(net.constant) + float(np.abs(net.skip).sum())
        if len(net.hidden) == 1:
            self.direct = (net.readout * first.gain)[neurons]
            self.outer = np.zeros((0, len(neurons)))
            self.straight = self.bent = self.shift = self.lowest = self.highest = np.zeros(0)
        else:
            self._second(bounds, node)
        self.groups = [group for group in self.oracle.groups if np.isfinite(group.upper)]

    def _second(self, bounds: NodeBounds, node: Node) -> None:
        net, parts, kept = bounds.net, bounds.parts, self.neurons
        second = net.hidden[1]
        c, e = net.readout[None], np.zeros(1)
        if len(net.hidden) > 2:

            def lines(k: int) -> tuple[Floats, Floats, Floats]:
                low, up = node["lower"][:, parts[k + 2]], node["upper"][:, parts[k + 2]]
                slope, height = line_above(low, up)
                return slope, height, np.where((low < 0) & (up > 0), node["alpha"][:, parts[k + 2]], slope)

            c, e, size = backward(net.hidden[2:], c, e, lines, bounds.mass[2:])
            self.size += float(size[0])
        self.constant = self.constant + float(e[0])
        self.direct = np.zeros(len(kept))
        self.outer = np.ascontiguousarray(second.weight[:, kept]) * net.hidden[0].gain[kept]
        self.shift = second.bias
        self.straight, bent = c[0] * second.slope, c[0] * second.gain
        self.lowest, self.highest = node["lower"][0, parts[1]], node["upper"][0, parts[1]]
        # What never bends is straight or nothing.
        self.straight = self.straight + np.where(self.lowest >= 0, bent, 0.0)
        self.bent = np.where((self.lowest < 0) & (self.highest > 0), bent, 0.0)

    def begin(self) -> dict[str, Floats]:
        """Multipliers to start from, each in its own unit; those that must not be negative as logarithms."""
        # The curve of a neuron that hardly bends does not matter; it must not be steep.
        reach = self.highest - self.lowest
        q = -np.log(np.maximum(reach, (0.25 * float(reach.mean()) if reach.size else 0.0) or 1.0))
        middle = self.direct + self.outer.T @ (self.straight + 0.5 * self.bent)
        m, n = len(self.neurons), len(self.skip)
        across = float((self.most - self.least).mean()) + 1e-9 * float(np.abs(self.bias).mean()) or 1.0
        curve = float(np.abs(middle).mean()) + 1e-3 * float(np.abs(self.bent).sum()) + 1e-9 * self.size or 1.0
        # Neurons start far from where the quadratic would cease to be concave in them.
        square = self.outer.T @ ((np.maximum(self.bent, 0.0) * np.exp(q))[:, None] * self.outer)
        steep = float(eigh(square, eigvals_only=True, subset_by_index=[m - 1, m - 1])[0])
        weight = float(np.mean([group.weight.mean() for group in self.groups])) if self.groups else 1.0
        return {
            "q": q,
            "p": np.full(len(q), 0.5),
            "alpha": (self.highest > -self.lowest).astype(np.float64),
            "e": np.full(m, np.log(FIRST * curve / across + APART * max(steep, 0.0))),
            "on": np.full(m, np.log(1e-3 * curve)),
            "own": np.full(m, np.log(1e-3 * curve)),
            "under": np.full(m, np.log(1e-3 * curve)),
            "most": np.full(m, np.log(0.01 * curve / across)),
            "tau": np.zeros(n),
            "row": np.full(n, np.log(0.01 * curve * across / weight)),
        }

    def part(self, every: dict[str, Floats]) -> dict[str, Floats]:
        """Of multipliers of all neurons and columns, those that are here."""
        return {
            name: value.copy() if name in OUTER else value[self.kept if name in COLUMNS else self.neurons]
            for name, value in every.items()
        }

    def whole(self, now: dict[str, Floats], width: int) -> dict[str, Floats]:
        """These multipliers at the places of all neurons (of a first layer of this width) and columns."""
        found = dict(now)
        for name in now.keys() - OUTER:
            place = self.kept if name in COLUMNS else self.neurons
            found[name] = np.zeros(len(self.kept) if name in COLUMNS else width)
            found[name][place] = now[name]
        return found

    def touch(self, q: Floats, p: Floats) -> tuple[Floats, Floats]:
        """Least height of q y^2 + p y above max(0, y) between the ends, and where it touches."""
        heights, at = [], []
        for low, high, slope in (
            (self.lowest, np.minimum(self.highest, 0.0), 0.0),
            (np.maximum(self.lowest, 0.0), self.highest, 1.0),
        ):
            y = np.clip((slope - p) / (2.0 * q), low, np.maximum(low, high))
            heights.append(slope * y - q * y * y - p * y)
            at.append(y)
        return np.maximum(*heights), np.where(heights[1] > heights[0], at[1], at[0])

    def _raise(self, spread: Floats, least: float) -> tuple[float, Floats]:
        """Add to the diagonal, in place, until no eigenvalue is below ``least``; how much, and the lowest's vector."""
        at = np.arange(len(spread))
        spread[at, at] -= least
        try:
            np.linalg.cholesky(spread)
        except np.linalg.LinAlgError:
            value, vector = eigh(spread, subset_by_index=[0, 0], check_finite=False)
            raised = max(0.0, -float(value[0]))
            spread[at, at] += least + raised
            return raised, vector
        spread[at, at] += least
        return 0.0, np.empty((0, 0))

    def above(self, now: dict[str, Floats]) -> tuple[_Above, Callable[[Floats, Floats], dict[str, Floats]]]:
        """The quadratic at these multipliers; and a function of (point, maximiser) giving the tangent's gradient."""
        q, p, alpha = np.exp(now["q"]), now["p"], now["alpha"]
        top = self.bent > 0
        k, ends = np.maximum(self.bent, 0.0), np.minimum(self.bent, 0.0)
        lift, touched = self.touch(q, p)
        kq, level = k * q, self.straight + k * p + ends * alpha
        v, s = self.outer, self.shift
        square = v.T @ (kq[:, None] * v)
        read = self.direct + v.T @ (level + 2.0 * kq * s)
        constant = self.constant + float(level @ s + kq @ (s * s) + k @ lift)
        reach = np.abs(v) @ np.maximum(self.most, 0.0)
        size = self.size + float(np.abs(level) @ (np.abs(s) + reach) + kq @ (np.abs(s) + reach) ** 2 + k @ np.abs(lift))
        e, on, own, under, most = (np.exp(now[name]) for name in ("e", "on", "own", "under", "most"))
        spread = np.diag(e + most) - square
        m = len(e)
        raised, vector = self._raise(spread, LEAST * float(e.mean()))
        factor = cho_factor(spread, check_finite=False)
        gamma = read + on + own - under + (most + raised) * self.most
        f, y = e * self.bias + gamma, e[:, None] * self.weight
        solved = cho_solve(factor, np.column_stack([y, f]), check_finite=False)
        ys, fs = solved[:, :-1], solved[:, -1]
        curve = 0.25 * y.T @ ys
        on_z = under * self.line - own
        linear = 0.5 * y.T @ fs + self.weight.T @ on_z + self.skip
        constant += float(0.25 * f @ fs + on_z @ self.bias + under @ self.height)
        # Terms behind every sum, blown up by what dividing by the neurons' part can lose.
        loss = 8.0 * EPS * m * float((e + most).max() + raised) / (LEAST * float(e.mean()))
        mass = np.abs(self.weight).sum(axis=1) + np.abs(self.bias)
        size += float(np.abs(on_z) @ mass + under @ self.height + e @ (np.maximum(self.most, 0.0) * mass))
        terms = size + float(np.abs(f) @ np.abs(fs) + (np.abs(y).T @ np.abs(fs)).sum())
        terms += float(np.sqrt(np.maximum(np.diag(curve), 0.0)).sum() ** 2)
        rows = []
        for group in self.groups:
            own_row, weight = np.zeros(len(linear)), np.zeros(len(linear))
            own_row[group.members], weight[group.members] = np.exp(now["row"][group.members]), group.weight
            both = np.outer(own_row, weight)
            curve = curve - 0.5 * (both + both.T)
            # What is allowed may stand above a limit by rounding.
            limit = group.upper + 1e-9 * max(1.0, abs(group.upper))
            linear = linear + limit * own_row
            terms += float(both.sum() + abs(limit) * own_row.sum())
            rows.append((own_row, weight, limit))
        root = np.exp(0.5 * now["tau"])
        scaled = curve / root[:, None] / root
        largest, direction = eigh(scaled, subset_by_index=[len(root) - 1, len(root) - 1], check_finite=False)
        share = max(float(largest[0]), 0.0)
        # A little more than the largest eigenvalue, so that rounding leaves none above zero.
        diagonal = (share * (1.0 + 1e-9) + ROUNDING * float(np.abs(scaled).sum())) * root * root
        bend = curve - np.diag(diagonal)
        found = _Above(bend, linear + diagonal, constant, diagonal, (ROUNDING + loss) * terms)

        def gradient(x: Floats, a: Floats) -> dict[str, Floats]:
            """What each multiplier adds to the tangent at x, at its maximiser a."""
            outer = np.outer(x, a)
            on_curve = outer + outer.T - np.outer(x, x)
            on_diagonal = a - 2.0 * x * a + x * x
            weight = float(on_diagonal @ (root * root)) if share > 0 else 0.0
            z = direction[:, 0] / root
            on_curve = on_curve + weight * np.outer(z, z)
            on_y = 0.5 * ys @ on_curve + 0.5 * np.outer(fs, a)
            on_f = 0.5 * ys @ a + 0.5 * fs
            half = np.outer(ys @ a, fs)
            on_spread = -(0.25 * (ys @ on_curve) @ ys.T + 0.25 * (half + half.T) + 0.25 * np.outer(fs, fs))
            if raised > 0:
                by = float(np.trace(on_spread) + on_f @ self.most)
                on_spread = on_spread + -by * np.outer(vector[:, 0], vector[:, 0])
            own_z = self.weight @ a + self.bias
            straight = v @ on_f + s
            on_q = -np.einsum("im,im->i", v @ on_spread, v) + 2.0 * s * (v @ on_f) + s * s - touched * touched
            trace = np.diag(on_spread)
            found = {
                "q": np.where(top, k * on_q * q, 0.0),
                "p": np.where(top, k * (straight - touched), 0.0),
                "alpha": ends * straight,
                "e": e * (np.einsum("mn,mn->m", on_y, self.weight) + on_f * self.bias + trace)
                + (0.0 if raised == 0 else LEAST * by * e / m),
                "on": on * on_f,
                "own": own * (on_f - own_z),
                "under": under * (self.line * own_z + self.height - on_f),
                "most": most * (trace + on_f * self.most),
                "tau": share * root * root * on_diagonal - share * weight * direction[:, 0] ** 2,
            }
            found["row"] = np.zeros(len(a))
            for own_row, weight_row, limit in rows:
                found["row"] += own_row * (limit * a - on_curve @ weight_row)
            return found

        return found, gradient


def fit(
    bounds: NodeBounds, node: Node, start: Fitted | None, steps: int, cutoff: float, stop: Callable[[], bool]
) -> Fitted:
    """A linear function above the network over one node, by subgradient steps (Adam) on all multipliers.

    Parameters
    ----------
    bounds
        Of a network that :func:`applies`.
    node
        One node, not all of whose columns are fixed; each column that is free has both values.
    start
        What was found for a node that holds this one.
    cutoff
        No lower bound is needed.
    stop
        Asked after every few steps.
    """
    made = _Fit(bounds, node)
    oracle, kept, low, up = made.oracle, made.kept, made.low, made.up
    now = made.begin() if start is None else made.part(start.multipliers)
    x = _mean(oracle, low, up) if start is None else np.clip(start.point[kept], low[0], up[0])
    price = (node["price"] if start is None else start.price[None]).copy()
    rate = RATE if start is None else AGAIN
    movers = {name: Adam(rate, steps) for name in now}
    charge = Adam((0.05 if start is None else 0.02) * bounds.price_scale, steps)
    n = len(x)
    best: tuple[float, Any] = (np.inf, (np.zeros(n), x, x, np.ones(n), price, now))
    for step in range(steps):
        try:
            above, gradient = made.above(now)
        except np.linalg.LinAlgError:
            # Weights of many orders of magnitude: what was found before stands.
            break
        bent = above.bend @ x
        own, earned, cheapest = oracle.priced((above.linear + 2.0 * bent)[None], price)
        values, vertex, loss, possible = oracle.maximise(own, low, up, losses=True)
        size = float(np.abs(above.linear).sum() + np.abs(above.bend).sum() + np.abs(earned[0]))
        total = float(values[0] + earned[0]) + above.constant - float(x @ bent) + above.size + ROUNDING * size
        total = total if possible[0] else -np.inf
        if total < best[0]:
            best = total, (loss[0], vertex[0], x, above.diagonal, price, now)
        if total <= cutoff or step + 1 == steps or (step % 10 == 9 and stop()):
            break
        slopes = gradient(x, vertex[0])
        now = {name: now[name] - mover.move(slopes[name], step) for name, mover in movers.items()}
        now["alpha"] = np.clip(now["alpha"], 0.0, 1.0)
        if oracle.n_prices:
            price = oracle.project(price - charge.move(oracle.price_slope(vertex, price, cheapest), step))
        pace = max(0.004, 0.1 * (1.0 - step / steps) ** 2) if start is None else PACE * (1.0 - step / steps)
        x = x + pace * (vertex[0] - x)
    bound, (loss_, vertex_, x, diagonal, price, now) = best
    loss_, vertex_, x, diagonal = (_spread(part, kept) for part in (loss_, vertex_, x, diagonal))
    vertex_[node["low"][0]] = x[node["low"][0]] = 1.0
    multipliers = made.whole(now, len(bounds.net.hidden[0].bias))
    return Fitted(bound, loss_, vertex_, x, diagonal, price[0], multipliers)


def _spread(part: Floats, kept: Mask) -> Floats:
    """Values of the kept columns among all columns, 0 elsewhere."""
    whole = np.zeros(len(kept))
    whole[kept] = part
    return whole


def _mean(oracle: Oracle, low: Mask, up: Mask) -> Floats:
    """A point inside: every open column alike, as much as the rows leave."""
    share = 1.0
    for group in oracle.groups:
        used = float(group.weight.sum())
        share = min(share, group.upper / used if used > 0 else 1.0)
    return np.where(up[0] & ~low[0], min(share, 0.2), low[0].astype(np.float64))
