"""Lines above the first layer's neurons that are not multiples of their own weights.

max(0, w . a + b) lies under any line s . a + d over the set with d = max(max -s . a, max (w - s) . a + b): two
linear maxima. The best s for one bound cuts off what the triangle of a neuron's ends leaves, since it knows which
columns go together: the hull of one neuron over the whole set, not over its two ends (Anderson, Huchette, Ma,
Tjandraatmadja, Vielma 2020 for boxes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.search.node_bounds import ROUNDING, Adam, Node, NodeBounds
from rmab_opt.search.oracle import Oracle

__all__ = ["ends", "fit"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

AT_ONCE = 250_000
"""Entries of slopes worked on together: about a second's work between two looks at the clock."""
STEPS, RATE = 150, 0.05
ENDS_STEPS, ENDS_RATE = 36, 0.15
"""Steps, and the length of the first as a share of the mean absolute weight: of the lines for the output, and of those
for the second layer's neurons. Twice as many close 1 % more of the gap."""


def fit(bounds: NodeBounds, node: Node) -> Floats:
    """Slopes (neurons, C) that lower one node's bound, by subgradient steps (Adam) together with the lines below.

    Parameters
    ----------
    bounds
        Of a network with a layer.
    node
        One node; its ``alpha`` and ``price`` are moved in place.
    """
    layer, oracle, part = bounds.net.hidden[0], bounds.oracle, bounds.parts[0]
    lines, size = bounds.lines(node), len(layer.bias)
    open_ = np.flatnonzero(lines["unstable"][0, part])
    weight, bias = layer.weight[open_], layer.bias[open_]
    work: Node = {**node, "share": np.ones((1, size)), "slopes": lines["slope"][0, part][:, None] * layer.weight}
    best, best_slopes = np.inf, work["slopes"]
    raised = np.zeros((1, size))
    rates: dict[str, Any] = {"alpha": 0.05, "slopes": RATE * float(np.abs(layer.weight).mean())}
    if oracle.n_prices:
        rates["price"] = 0.05 * bounds.price_scale
    steps = {name: Adam(rate, STEPS) for name, rate in rates.items()}
    low, up = (np.repeat(node[side], 2 * len(open_), axis=0) for side in ("low", "up"))
    for step in range(STEPS):
        own = work["slopes"][open_]
        raised[0, open_], points = _heights(oracle, own, weight, bias, low, up)
        found = bounds.evaluate(work, False, {**lines, "raised": raised}, work["slopes"])
        if found["bound"][0] < best:
            best, best_slopes = float(found["bound"][0]), work["slopes"]
            node["alpha"], node["price"] = work["alpha"], work["price"]
        pull = np.zeros_like(work["slopes"])
        rises = np.maximum(found["bent"][0, part][open_], 0.0)
        pull[open_] = rises[:, None] * (found["points"][0] - points)
        gradient = bounds.gradient(work, found) | {"slopes": pull}
        for name, stepper in steps.items():
            work[name] = work[name] - stepper.move(gradient[name], step)
        bounds.project(work)
    return best_slopes


def _heights(
    oracle: Oracle, slopes: Floats, weight: Floats, bias: Floats, low: Mask, up: Mask
) -> tuple[Floats, Floats]:
    """Least heights (m,) of lines of these slopes (m, C) above max(0, weight . a + bias), and where each touches."""
    m = len(slopes)
    low, up = low[: 2 * m], up[: 2 * m]
    tops, points, _, _ = oracle.maximise(np.concatenate([-slopes, weight - slopes]), low, up)
    left, right = tops[:m], tops[m:] + bias
    return np.maximum(left, right), np.where((right > left)[:, None], points[m:], points[:m])


def ends(bounds: NodeBounds, node: Node, stop: Callable[[], bool]) -> None:
    """Sharpen the ends of the second layer's open neurons at one node, in place, by tilted lines of their own.

    Every pair of a neuron of the second layer and one of the first has its own line, since what one asks of the first
    layer is not what another asks.

    Parameters
    ----------
    bounds
        Of a network with at least two layers.
    node
        One node.
    stop
        Asked between pieces of the work; what is done by then stays.
    """
    part = bounds.parts[1]
    lower, upper = node["lower"][0, part], node["upper"][0, part]
    # Where the read-out is negative the line below is the neuron's own: its ends cost nothing there.
    last = len(bounds.net.hidden) == 2
    counts = bounds.net.readout * bounds.net.hidden[1].gain > 0 if last else np.ones(len(lower), dtype=bool)
    wanted = np.flatnonzero((lower < 0) & (upper > 0) & counts)
    each = int(bounds.lines(node)["unstable"][0, bounds.parts[0]].sum()) * bounds.oracle.n
    at_once = max(1, AT_ONCE // max(each, 1))
    for start in range(0, len(wanted), at_once):
        if stop():
            return
        some = wanted[start : start + at_once]
        least, most = _ends_of(bounds, node, some)
        lower[some], upper[some] = np.maximum(lower[some], least), np.minimum(upper[some], most)


def _ends_of(bounds: NodeBounds, node: Node, some: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Bounds of some neurons of the second layer, each by lines of its own: one for every neuron of the first."""
    before, layer, oracle = bounds.net.hidden[0], bounds.net.hidden[1], bounds.oracle
    lines, part = bounds.lines(node), bounds.parts[0]
    slope, open_ = lines["slope"][0, part], lines["unstable"][0, part]
    at = np.flatnonzero(open_)
    weight, bias, rows = before.weight[at], before.bias[at], layer.weight[some]
    m, n, width = len(some), len(at), oracle.n
    bent = rows[:, at] * before.gain[at]
    # What does not bend: stable neurons, and the linear part of leaky ones.
    plain = rows * before.slope + np.where(open_, 0.0, rows * before.gain * slope)
    base, shift = plain @ before.weight, plain @ before.bias + layer.bias[some]
    size = np.abs(plain) @ np.abs(before.bias) + np.abs(layer.bias[some]) + np.abs(bent) @ np.abs(bias)
    # A neuron that counts positive above counts negative below: one line and one slope a pair serve both ends.
    slopes = np.repeat((slope[at][:, None] * weight)[None], m, axis=0)
    alpha = np.full((m, n), 0.5)
    rises = np.maximum(bent, 0.0), np.maximum(-bent, 0.0)
    tilts, slides = Adam(ENDS_RATE * float(np.abs(before.weight).mean()), ENDS_STEPS), Adam(0.1, ENDS_STEPS)
    low, up = (np.broadcast_to(node[side], (max(2 * m * n, m), width)) for side in ("low", "up"))
    every, all_bias = np.tile(weight, (m, 1)), np.tile(bias, m)
    best = np.full((2, m), np.inf)
    for step in range(ENDS_STEPS):
        flat, touches = _heights(oracle, slopes.reshape(-1, width), every, all_bias, low, up)
        raised, found = flat.reshape(m, n), []
        for side, sign in ((0, 1.0), (1, -1.0)):
            own, other = rises[side], -rises[1 - side] * alpha
            cost = np.einsum("mn,mnc->mc", own, slopes) + other @ weight + sign * base
            fixed = (own * raised).sum(axis=1) + other @ bias + sign * shift
            tops, x, _, _ = oracle.maximise(cost, low[:m], up[:m])
            terms = np.einsum("mn,mnc->m", own, np.abs(slopes)) + (own * np.abs(raised)).sum(axis=1)
            slack = ROUNDING * (terms + size + 2.0 * bounds.mass[1][some] + np.abs(cost).sum(axis=1))
            best[side] = np.minimum(best[side], tops + fixed + slack)
            found.append(x)
        pull = np.where((bent > 0)[:, :, None], found[0][:, None, :], found[1][:, None, :])
        pull = np.abs(bent)[:, :, None] * (pull - touches.reshape(m, n, width))
        above, below = (x @ weight.T + bias for x in found)
        slopes = slopes - tilts.move(pull, step)
        alpha = np.clip(alpha - slides.move(-np.abs(bent) * np.where(bent > 0, below, above), step), 0.0, 1.0)
    return -best[1], best[0]
