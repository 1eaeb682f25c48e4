"""Lines above the first layer's neurons that are not multiples of their own weights.

max(0, w . a + b) lies under any line s . a + d over the set with d = max(max -s . a, max (w - s) . a + b): two
linear maxima. The best s for one bound cuts off what the triangle of a neuron's ends leaves, since it knows which
columns go together: the hull of one neuron over the whole set, not over its two ends (Anderson, Huchette, Ma,
Tjandraatmadja, Vielma 2020 for boxes).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.search.node_bounds import Node, NodeBounds

__all__ = ["fit"]

Floats = NDArray[np.float64]

STEPS = 150
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
