"""Concave quadratic functions of the columns above a network: what no line above single neurons can see.

Lines above neurons let every neuron pick its own mixture of actions. With r = max(0, z) a neuron knows r (z - r) = 0,
and a column knows a (a - 1) = 0; multipliers of these products, of r >= 0, r >= z, of the usual line above r, and of
columns times rows of the set turn the network into a quadratic function of columns and neurons that lies above it at
every allowed action. Where it is concave in both, its largest value over the neurons is known in closed form, and the
tangent at any point is a linear function above the network. This is the dual of the semidefinite relaxation (Raghunathan,
Steinhardt, Liang 2018; Billionnet, Elloumi 2007 for columns), taken at multipliers that subgradient steps improve.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh

from rmab_opt.encoder.bounds import backward, line_above
from rmab_opt.search.node_bounds import ROUNDING, Adam, Node, NodeBounds
from rmab_opt.search.oracle import Oracle

__all__ = ["Quadratic", "applies", "fit"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

STEPS, RATE = 150, 0.15
"""Subgradient steps on the multipliers, and the length of the first one, in powers of e."""

FIRST, APART = 1.0, 1.5
"""The neurons' multipliers at the start: of the mean coefficient over the mean width, and of the steepest square."""

LEAST = 1e-3
"""Least eigenvalue of the neurons' part, in shares of its mean diagonal: what is divided by stays away from zero."""

EPS = float(np.finfo(np.float64).eps)


class Seen(NamedTuple):
    """Bounds of nodes by a quadratic's tangents."""

    bound: Floats
    loss: Floats
    """What the other value of each column would lose at least, (B, C)."""
    vertex: Floats
    """Maximisers of the tangents, (B, C)."""


@dataclass(frozen=True, eq=False)
class Quadratic:
    """network(a) <= constant + linear . a + a . bend a at every allowed action; concave."""

    bend: Floats
    """Shape (C, C), symmetric, no positive eigenvalue."""
    linear: Floats
    constant: float
    slack: float
    """Rounding of everything above."""
    diagonal: Floats
    """Multipliers of a (1 - a), (C,): what a column costs between 0 and 1."""
    point: Floats
    """Where the tangent was best, (C,)."""
    price: Floats
    """Prices of the set's rows there."""
    bound: float

    def restrict(self, kept: Mask, one: Mask) -> Quadratic:
        """The same over the kept columns; the others are chosen where ``one`` and left out elsewhere."""
        gone = one & ~kept
        linear = self.linear[kept] + 2.0 * self.bend[np.ix_(kept, gone)].sum(axis=1)
        constant = self.constant + float(self.linear[gone].sum()) + float(self.bend[np.ix_(gone, gone)].sum())
        bend = np.ascontiguousarray(self.bend[np.ix_(kept, kept)])
        return replace(
            self, bend=bend, linear=linear, constant=constant, diagonal=self.diagonal[kept], point=self.point[kept]
        )

    def look(self, oracle: Oracle, node: Node, steps: int, cutoff: float, rate: float) -> Seen:
        """Bounds of nodes, each the best of a few tangents; moves their ``point`` and ``charge`` (prices) in place.

        Every step goes from the point towards the tangent's maximiser as far as the quadratic rises (Frank, Wolfe 1956).
        """
        low, up = node["low"], node["up"]
        x, y = np.clip(node["point"], low, up), node["charge"]
        mover = Adam(rate, steps + 1)
        best: Seen | None = None
        for step in range(steps + 1):
            bent = x @ self.bend
            cost = self.linear + 2.0 * bent
            own, earned, cheapest = oracle.priced(cost, y)
            values, vertex, loss, possible = oracle.maximise(own, low, up, losses=True)
            size = np.einsum("bn,bn->b", np.abs(own), vertex) + np.abs(bent) @ np.ones(len(self.linear)) + np.abs(earned)
            total = values + earned + self.constant - np.einsum("bn,bn->b", x, bent) + self.slack + ROUNDING * size
            total = np.where(possible, total, -np.inf)
            if best is None:
                best = Seen(total, loss, vertex)
                node["point"], node["charge"] = x, y
            else:
                better = total < best.bound
                best.bound[better], best.loss[better], best.vertex[better] = total[better], loss[better], vertex[better]
                node["point"] = np.where(better[:, None], x, node["point"])
                node["charge"] = np.where(better[:, None], y, node["charge"])
            if step == steps or not (best.bound > cutoff).any():
                break
            way = vertex - x
            rise = np.einsum("bn,bn->b", own, way)
            fall = -2.0 * np.einsum("bn,bn->b", way @ self.bend, way)
            x = x + np.clip(rise / np.maximum(fall, 1e-300), 0.0, 1.0)[:, None] * way
            if oracle.n_prices:
                y = oracle.project(y - mover.move(oracle.price_slope(vertex, y, cheapest), step))
        assert best is not None
        return best


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
        net, parts, oracle = bounds.net, bounds.parts, bounds.oracle
        lower, upper = node["lower"][0], node["upper"][0]
        first = net.hidden[0]
        # Neurons that are never on are not there.
        kept = np.flatnonzero(upper[parts[0]] > 0)
        self.low, self.up = lower[parts[0]][kept], upper[parts[0]][kept]
        self.weight, self.bias = first.weight[kept], first.bias[kept]
        self.line, self.height = line_above(self.low, self.up)
        self.skip, self.constant, self.size = net.skip, net.constant, abs(net.constant)
        if len(net.hidden) == 1:
            self.direct = net.readout * first.gain
            self.direct = self.direct[kept]
            self.outer = np.zeros((0, len(kept)))
            self.straight = self.bent = self.shift = self.least = self.most = np.zeros(0)
        else:
            self._second(bounds, node, kept)
        self.group = [(group.members, group.weight, float(group.upper)) for group in oracle.groups]
        self.group = [part for part in self.group if np.isfinite(part[2])]

    def _second(self, bounds: NodeBounds, node: Node, kept: NDArray[np.int64]) -> None:
        net, parts = bounds.net, bounds.parts
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
        self.least, self.most = node["lower"][0, parts[1]], node["upper"][0, parts[1]]
        # What never bends is straight or nothing.
        self.straight = self.straight + np.where(self.least >= 0, bent, 0.0)
        self.bent = np.where((self.least < 0) & (self.most > 0), bent, 0.0)

    def begin(self) -> dict[str, Floats]:
        """Multipliers to start from, each in its own unit; those that must not be negative as logarithms."""
        width, reach = self.up - self.low, np.maximum(self.most - self.least, 1e-300)
        found = {"p": np.full(len(self.bent), 0.5), "alpha": (self.most > -self.least).astype(np.float64)}
        q = np.log(1.0 / reach)
        middle = self.direct + self.outer.T @ (self.straight + 0.5 * self.bent)
        across = float(width.mean())
        curve = float(np.abs(middle).mean()) + 1e-3 * float(np.abs(self.bent).sum()) + 1e-300
        found |= {"q": q}
        # Neurons start far from where the quadratic would cease to be concave in them.
        tops = np.maximum(self.bent, 0.0) * np.exp(q)
        square = self.outer.T @ (tops[:, None] * self.outer)
        m = len(width)
        steep = float(eigh(square, eigvals_only=True, subset_by_index=[m - 1, m - 1])[0]) if m else 0.0
        found |= {"e": np.full(m, np.log(FIRST * curve / across + APART * steep))}
        found |= {name: np.full(len(width), np.log(1e-3 * curve)) for name in ("on", "own", "under")}
        found |= {"most": np.full(len(width), np.log(0.01 * curve / across)), "tau": np.zeros(len(self.skip))}
        for k, (members, weight, _) in enumerate(self.group):
            found[f"row{k}"] = np.full(len(members), np.log(0.01 * curve * across / float(weight.mean())))
        return found

    def touch(self, q: Floats, p: Floats) -> tuple[Floats, Floats]:
        """Least height of q y^2 + p y above max(0, y) between the ends, and where it touches."""
        heights, at = [], []
        for low, high, slope in (
            (self.least, np.minimum(self.most, 0.0), 0.0),
            (np.maximum(self.least, 0.0), self.most, 1.0),
        ):
            y = np.clip((slope - p) / (2.0 * q), low, np.maximum(low, high))
            heights.append(slope * y - q * y * y - p * y)
            at.append(y)
        return np.maximum(*heights), np.where(heights[1] > heights[0], at[1], at[0])

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
        size = self.size + float(np.abs(level) @ np.abs(s) + kq @ (s * s) + k @ np.abs(lift))
        e, on, own, under, most = (np.exp(now[name]) for name in ("e", "on", "own", "under", "most"))
        spread = np.diag(e + most) - square
        least, vector = eigh(spread, subset_by_index=[0, 0])
        raised = max(0.0, LEAST * float(e.mean()) - float(least[0]))
        m = len(e)
        spread[np.arange(m), np.arange(m)] += raised
        factor = cho_factor(spread)
        gamma = read + on + own - under + (most + raised) * self.up
        f, y = e * self.bias + gamma, e[:, None] * self.weight
        solved = cho_solve(factor, np.column_stack([y, f]))
        ys, fs = solved[:, :-1], solved[:, -1]
        curve = 0.25 * y.T @ ys
        on_z = under * self.line - own
        linear = 0.5 * y.T @ fs + self.weight.T @ on_z + self.skip
        constant += float(0.25 * f @ fs + on_z @ self.bias + under @ self.height)
        # Terms behind every sum, blown up by what dividing by the neurons' part can lose.
        loss = 8.0 * EPS * m * float((e + most).max() + raised) / (LEAST * float(e.mean()))
        size += float(np.abs(on_z) @ np.abs(self.bias) + under @ self.height + np.abs(f) @ np.abs(fs))
        terms = size + float((np.abs(y).T @ np.abs(fs)).sum() + np.abs(on_z) @ np.abs(self.weight).sum(axis=1))
        terms += float(np.abs(curve).sum()) + float(np.abs(self.skip).sum())
        rows = []
        for g, (members, weight, limit) in enumerate(self.group):
            kappa, all_weight, all_kappa = np.exp(now[f"row{g}"]), np.zeros(len(linear)), np.zeros(len(linear))
            all_weight[members], all_kappa[members] = weight, kappa
            both = np.outer(all_kappa, all_weight)
            curve = curve - 0.5 * (both + both.T)
            linear = linear + limit * all_kappa
            terms += float(both.sum() + limit * kappa.sum())
            rows.append((members, kappa, all_weight, limit))
        root = np.exp(0.5 * now["tau"])
        largest, direction = eigh(curve / root[:, None] / root, subset_by_index=[len(root) - 1, len(root) - 1])
        share = max(float(largest[0]), 0.0)
        diagonal = share * root * root
        # A little more than the largest eigenvalue, so that rounding leaves none above zero.
        diagonal = diagonal * (1.0 + 1e-9) + loss * (1.0 + np.abs(curve).sum(axis=1).max() / (root * root).min()) * 0.0
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
                by = float(np.trace(on_spread) + on_f @ self.up)
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
                "most": most * (trace + on_f * self.up),
                "tau": share * root * root * on_diagonal - share * weight * direction[:, 0] ** 2,
            }
            for g, (members, kappa, all_weight, limit) in enumerate(rows):
                found[f"row{g}"] = kappa * (limit * a - on_curve @ all_weight)[members]
            return found

        return found, gradient


def fit(bounds: NodeBounds, node: Node, stop: Callable[[], bool], start: dict[str, Floats] | None = None) -> Quadratic:
    """A quadratic above the network over one node, by subgradient steps (Adam) on its multipliers.

    Parameters
    ----------
    bounds
        Of a network that :func:`applies`.
    node
        One node; fixed columns are fixed for what comes out, too.
    stop
        Asked after every few steps.
    """
    made, oracle = _Fit(bounds, node), bounds.oracle
    now = made.begin()
    low, up = node["low"], node["up"]
    x, price = _mean(oracle, low, up), node["price"].copy()
    rates: dict[str, Any] = dict.fromkeys(now, RATE)
    movers = {name: Adam(rate, STEPS) for name, rate in rates.items()}
    charge = Adam(0.05 * bounds.price_scale, STEPS)
    best: Quadratic | None = None
    for step in range(STEPS):
        above, gradient = made.above(now)
        cost = above.linear + 2.0 * above.bend @ x
        own, earned, cheapest = oracle.priced(cost[None], price)
        values, vertex, _, _ = oracle.maximise(own, low, up)
        size = float(np.abs(above.linear).sum() + np.abs(above.bend).sum())
        slack = above.size + ROUNDING * size
        total = float(values[0] + earned[0]) + above.constant - float(x @ above.bend @ x) + slack
        if best is None or total < best.bound:
            best = Quadratic(
                above.bend, above.linear, above.constant, slack, above.diagonal, x.copy(), price[0].copy(), total
            )
        if step % 10 == 0 and stop():
            break
        slopes = gradient(x, vertex[0])
        for name, mover in movers.items():
            now[name] = now[name] - mover.move(slopes[name], step)
        now["alpha"] = np.clip(now["alpha"], 0.0, 1.0)
        if oracle.n_prices:
            price = oracle.project(price - charge.move(oracle.price_slope(vertex, price, cheapest), step))
        x = x + max(0.004, 0.1 * (1.0 - step / STEPS) ** 2) * (vertex[0] - x)
    assert best is not None
    return best


def _mean(oracle: Oracle, low: Mask, up: Mask) -> Floats:
    """A point inside: every open column alike, as much as the rows leave."""
    share = 1.0
    for group in oracle.groups:
        used = float(group.weight.sum())
        share = min(share, group.upper / used if used > 0 else 1.0)
    return np.where(up[0] & ~low[0], min(share, 0.2), low[0].astype(np.float64))
