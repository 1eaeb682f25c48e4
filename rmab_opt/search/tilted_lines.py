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

from rmab_opt.search.node_bounds import ROUNDING, Node, NodeBounds

__all__ = ["ends", "fit"]

Floats = NDArray[np.float64]

STEPS = 150
AT_ONCE = 1_000_000
"""Entries of slopes worked on together."""
RATE = 0.03
"""Length of a step, as a share of the mean absolute weight."""


def fit(bounds: NodeBounds, node: Node, steps: int = STEPS) -> Floats:
    """Slopes (neurons, C) that lower one node's bound, by subgradient steps (Adam) together with the lines below.

    Parameters
    ----------
    bounds
        Without tilted lines.
    node
        One node.
    """
    layer, oracle = bounds.net.hidden[0], bounds.oracle
    lines, size = bounds.lines(node), len(layer.bias)
    part = bounds.parts[0]
    open_ = np.flatnonzero(lines["unstable"][0, part])
    slopes = lines["slope"][0, part][:, None] * layer.weight
    best, best_slopes = np.inf, slopes.copy()
    work: Node = {name: value.copy() for name, value in node.items()}
    work["share"] = np.ones((1, size))
    names = ["alpha"] + (["price"] if oracle.n_prices else [])
    rate: dict[str, Any] = {
        "alpha": 0.05,
        "price": 0.05 * bounds.price_scale,
        "slopes": RATE * float(np.abs(layer.weight).mean()),
    }
    first: dict[str, Any] = {name: 0.0 for name in (*names, "slopes")}
    second: dict[str, Any] = {name: 0.0 for name in (*names, "slopes")}
    low, up = (np.repeat(node[side], 2 * len(open_), axis=0) for side in ("low", "up"))
    before = bounds.tilted
    try:
        for step in range(steps):
            own = slopes[open_]
            tops, points, _, _ = oracle.maximise(np.concatenate([-own, layer.weight[open_] - own]), low, up)
            on = tops[len(open_) :] + layer.bias[open_] > tops[: len(open_)]
            raised = np.zeros((1, size))
            raised[0, open_] = np.where(on, tops[len(open_) :] + layer.bias[open_], tops[: len(open_)])
            bounds.tilted = slopes
            found = bounds.evaluate(work, False, {**lines, "raised": raised})
            if found["bound"][0] < best:
                best, best_slopes = float(found["bound"][0]), slopes.copy()
                for name in names:
                    node[name] = work[name].copy()
            at = np.where(on[:, None], points[len(open_) :], points[: len(open_)])
            pull = np.zeros_like(slopes)
            pull[open_] = np.maximum(found["bent"][0, part][open_], 0.0)[:, None] * (found["points"][0] - at)
            gradient = {
                "alpha": np.where(lines["unstable"], np.minimum(found["bent"], 0.0) * found["x"], 0.0),
                "slopes": pull,
            }
            if "price" in names:
                gradient["price"] = oracle.price_slope(found["points"], work["price"], found["cheapest"])
            fade = 1.0 - step / steps
            for name, g in gradient.items():
                first[name] = 0.8 * first[name] + 0.2 * g
                second[name] = 0.95 * second[name] + 0.05 * g * g
                move = (first[name] / (1 - 0.8 ** (step + 1))) / (
                    np.sqrt(second[name] / (1 - 0.95 ** (step + 1))) + 1e-12
                )
                if name == "slopes":
                    slopes = slopes - fade * rate[name] * move
                else:
                    work[name] = work[name] - fade * rate[name] * move
            work["alpha"] = np.clip(work["alpha"], 0.0, 1.0)
            if "price" in names:
                work["price"] = oracle.project(work["price"])
    finally:
        bounds.tilted = before
    return best_slopes


ENDS_STEPS, ENDS_RATE = 24, 0.15


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
    before, layer, oracle = bounds.net.hidden[0], bounds.net.hidden[1], bounds.oracle
    lines = bounds.lines(node)
    part = bounds.parts[0]
    slope, height, open_ = (lines[name][0, part] for name in ("slope", "height", "unstable"))
    at = np.flatnonzero(open_)
    weight, bias = before.weight[at], before.bias[at]
    rows = layer.weight[some]
    m, n, width = len(some), len(at), oracle.n
    bent = rows[:, at] * before.gain[at]
    # What does not bend: stable neurons, and the linear part of leaky ones.
    plain = rows * before.slope + np.where(open_, 0.0, rows * before.gain * slope)
    base = plain @ before.weight
    shift = plain @ before.bias + layer.bias[some]
    slopes = np.broadcast_to((slope[at][:, None] * weight)[None], (m, n, width)).copy()
    alpha = np.full((m, n), 0.5)
    rises = np.maximum(bent, 0.0), np.maximum(-bent, 0.0)
    size = np.abs(bent)
    first, second = np.zeros_like(slopes), np.zeros_like(slopes)
    alpha_first, alpha_second = np.zeros_like(alpha), np.zeros_like(alpha)
    low, up = (np.broadcast_to(node[side], (2 * m * n, width)) for side in ("low", "up"))
    best = np.full((2, m), np.inf)
    rate = ENDS_RATE * float(np.abs(before.weight).mean())
    for step in range(ENDS_STEPS):
        flat = np.concatenate([-slopes.reshape(-1, width), (weight[None] - slopes).reshape(-1, width)])
        tops, points, _, _ = oracle.maximise(flat, low, up)
        left, right = tops[: m * n].reshape(m, n), tops[m * n :].reshape(m, n) + bias
        on = right > left
        raised = np.maximum(left, right)
        points = np.where(on.reshape(-1, 1), points[m * n :], points[: m * n]).reshape(m, n, width)
        found = []
        for side, sign in ((0, 1.0), (1, -1.0)):
            own, other = rises[side], -rises[1 - side] * alpha
            cost = np.einsum("mn,mnc->mc", own, slopes) + other @ weight + sign * base
            fixed = (own * raised).sum(axis=1) + other @ bias + sign * shift
            tops, x, _, _ = oracle.maximise(cost, low[:m], up[:m])
            slack = np.abs(cost).sum(axis=1) + np.abs(own * raised).sum(axis=1) + np.abs(other @ bias) + np.abs(shift)
            best[side] = np.minimum(best[side], tops + fixed + ROUNDING * (slack + bounds.mass[1][some]))
            found.append(x)
        if step + 1 == ENDS_STEPS:
            break
        z = [x @ weight.T + bias for x in found]
        pull = np.where((bent > 0)[:, :, None], found[0][:, None, :], found[1][:, None, :]) - points
        pull *= size[:, :, None]
        slide = -size * np.where(bent > 0, z[1], z[0])
        fade = 1.0 - step / ENDS_STEPS
        for value, g, one, two, speed in (
            (slopes, pull, first, second, rate), (alpha, slide, alpha_first, alpha_second, 0.1)
        ):
            one *= 0.8
            one += 0.2 * g
            two *= 0.95
            two += 0.05 * g * g
            move = one / (1 - 0.8 ** (step + 1)) / (np.sqrt(two / (1 - 0.95 ** (step + 1))) + 1e-12)
            value -= fade * speed * move
        np.clip(alpha, 0.0, 1.0, out=alpha)
    return -best[1], best[0]
