"""Upper bounds of many nodes at once: the network's linear bound, its lines improved, maximised over the action set.

A node is a row in a dictionary of arrays: which columns are in (``low``) and may be in (``up``), the bounds of every
pre-activation (``lower``, ``upper``), the slopes of the lines below (``alpha``), the fixed signs of neurons (``sign``)
with their multipliers (``beta``), and the prices of rows that cannot be sorted (``price``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder.bounds import backward, line_above
from rmab_opt.encoder.network import Hidden, Reduced
from rmab_opt.search.oracle import Oracle

__all__ = ["ROUNDING", "Adam", "Node", "NodeBounds", "rows"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Node = dict[str, np.ndarray]

ROUNDING = 1e-12
"""Added to every bound, relative to the largest terms that can stand in its sums: float64 stays far below, also where
large terms cancel."""

WORTH = 0.01
"""Share of a node's gap that a neuron's line above may cost before its bounds are sharpened: a third of the time on
hard instances, hardly more nodes."""

STALL = 10
"""Steps after which one per cent of the gap must have gone, or the steps end."""


def rows(node: Node, kept: Any) -> Node:
    """Some nodes, by mask or positions."""
    return {name: value[kept] for name, value in node.items()}


class Adam:
    """Subgradient steps (Adam) that fade, on arrays whose first axis may lose rows."""

    def __init__(self, rate: Any, steps: int) -> None:
        self.rate, self.steps = rate, steps
        self.first: Any = 0.0
        self.second: Any = 0.0

    def move(self, gradient: Floats, step: int) -> Floats:
        """What to take off in a step."""
        self.first = 0.8 * self.first + 0.2 * gradient
        self.second = 0.95 * self.second + 0.05 * gradient * gradient
        scale = np.sqrt(self.second / (1 - 0.95 ** (step + 1))) + 1e-12
        return np.asarray((1.0 - step / self.steps) * self.rate * ((self.first / (1 - 0.8 ** (step + 1))) / scale))

    def keep(self, kept: Mask) -> None:
        """Some rows only."""
        if np.ndim(self.first):
            self.first, self.second = self.first[kept], self.second[kept]


@dataclass(eq=False)
class NodeBounds:
    """Bounds of one network over one set.

    ``mass`` holds the largest sum of absolute terms behind each pre-activation: the scale of rounding.
    """

    net: Reduced
    oracle: Oracle
    mass: list[Floats]

    tilted: Floats | None = None
    """Slopes (neurons of the first layer, C) of further lines above them, of any direction: see :mod:`tilted_lines`."""

    def __post_init__(self) -> None:
        ends = np.cumsum([0, *(len(layer.bias) for layer in self.net.hidden)])
        self.parts = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        """Places of each layer's neurons in arrays over all of them."""
        self.n_neurons = int(ends[-1])
        self.scale = np.ones(self.n_neurons)
        """What a multiplier of each neuron is worth, for the length of steps; likewise ``price_scale``."""
        self.price_scale = 1.0
        self._prepare()

    def _prepare(self) -> None:
        if self.net.hidden:
            first = self.net.hidden[0]
            self.first_ends = self.oracle.ends(np.concatenate([first.weight, -first.weight]))
            if self.tilted is not None:
                self.tilted_ends = self.oracle.ends(np.concatenate([-self.tilted, first.weight - self.tilted]))
                size = np.abs(self.tilted).sum(axis=1) + np.abs(first.weight - self.tilted).sum(axis=1)
                self.tilted_slack = ROUNDING * (size + np.abs(first.bias))

    def tilt(self, slopes: Floats) -> None:
        """Lines of these slopes above the neurons of the first layer, beside the usual ones."""
        self.tilted = slopes
        self._prepare()

    def restrict(self, kept: Mask, one: Mask) -> None:
        """Narrow everything to the kept columns; the others are chosen where ``one`` and left out elsewhere."""
        net, gone = self.net, one & ~kept
        hidden = net.hidden
        if hidden:
            first = hidden[0]
            bias = first.bias + first.weight[:, gone].sum(axis=1)
            hidden = (Hidden(np.ascontiguousarray(first.weight[:, kept]), bias, first.slope, first.gain), *hidden[1:])
        self.net = Reduced(hidden, net.readout, net.skip[kept], net.constant + float(net.skip[gone].sum()))
        self.oracle = self.oracle.restrict(kept, one)
        if self.tilted is not None:
            self.tilted = np.ascontiguousarray(self.tilted[:, kept])
        self._prepare()

    # ---- pre-activations
    def tighten(self, node: Node, cutoff: float = -np.inf) -> Mask:
        """Sharper pre-activation bounds from fixed columns and signs; False for nodes that are empty.

        Where the bounds of nodes' parents stand little above ``cutoff``, neurons that cannot cost that much are left.
        """
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
                lower, upper = _interval(self.net.hidden[k - 1], layer, before)
            slack = ROUNDING * self.mass[k]
            lower = np.maximum(lower - slack, node["lower"][:, part])
            upper = np.minimum(upper + slack, node["upper"][:, part])
            if k:
                self._linear(node, k, lower, upper, node["parent"] - cutoff)
            sign = node["sign"][:, part]
            lower = np.where(sign > 0, np.maximum(lower, 0.0), lower)
            upper = np.where(sign < 0, np.minimum(upper, 0.0), upper)
            gap = lower - upper
            crossed = gap > 0
            if crossed.any():
                # A neuron fixed to one sign may have no range left; rounding alone must not empty a node.
                alive &= ~(gap > 1e-7 * (1.0 + np.abs(lower) + np.abs(upper))).any(axis=1)
                lower, upper = np.where(crossed, upper, lower), np.where(crossed, lower, upper)
            node["lower"][:, part], node["upper"][:, part] = lower, upper
            before = (lower, upper)
        return alive

    def _linear(self, node: Node, k: int, lower: Floats, upper: Floats, room: Floats) -> None:
        """Sharpen bounds of layer k in place by linear bounds, for the (node, neuron) pairs worth it.

        Those are open, and their line above stands higher over the bend than a share of the node's room (B,).
        """
        layer, part = self.net.hidden[k], self.parts[k]
        open_ = (lower < 0) & (upper > 0) & (node["sign"][:, part] == 0)
        if np.isfinite(room).all():
            height = np.where(open_, -lower * upper, 0.0) / np.where(open_, upper - lower, 1.0) * self.scale[part]
            if k == len(self.net.hidden) - 1:
                # The last layer takes its lines above where the read-out is positive, and nowhere else.
                height = height * (self.net.readout * layer.gain > 0)
            open_ &= height > WORTH * np.maximum(room, 0.0)[:, None]
        at, neuron = np.nonzero(open_)
        if not at.size:
            return
        weight, bias = layer.weight[neuron], layer.bias[neuron]
        c, e = np.concatenate([weight, -weight]), np.concatenate([bias, -bias])
        twice = np.concatenate([at, at])

        def lines(j: int) -> tuple[Floats, Floats, Floats]:
            low, up = node["lower"][:, self.parts[j]], node["upper"][:, self.parts[j]]
            slope, height = line_above(low, up)
            # The line below that encloses less area: zero or x.
            below = np.where((low < 0) & (up > 0), (up > -low).astype(np.float64), slope)
            return slope[twice], height[twice], below[twice]

        c, e, size = backward(self.net.hidden[:k], c, e, lines, self.mass)
        slack = float(self.mass[k].max()) + size
        tops = self.oracle.values(c, node["low"], node["up"], twice) + e + ROUNDING * slack
        upper[at, neuron] = np.minimum(upper[at, neuron], tops[: len(at)])
        lower[at, neuron] = np.maximum(lower[at, neuron], -tops[len(at) :])

    # ---- the output
    def lines(self, node: Node) -> Node:
        """Which neurons may still bend, and the line above each: ``unstable``, ``slope``, ``height``, ``raised``."""
        lower, upper = node["lower"], node["upper"]
        slope, height = line_above(lower, upper)
        found = {"unstable": (lower < 0) & (upper > 0), "slope": slope, "height": height}
        if self.tilted is not None:
            # Above zero and above the neuron's own line, each over all that the node allows.
            both, size = self.tilted_ends(node["low"], node["up"]), len(self.tilted)
            found["raised"] = np.maximum(both[:, :size], both[:, size:] + self.net.hidden[0].bias) + self.tilted_slack
        return found

    def evaluate(
        self, node: Node, losses: bool, lines: Node | None = None, tilted: Floats | None = None
    ) -> dict[str, Any]:
        """The linear bound at the node's lines, multipliers and prices, with everything a step or a branch needs.

        ``tilted`` stands for slopes still in the making, whose heights are in ``lines``.
        """
        tilted = self.tilted if tilted is None else tilted
        hidden = self.net.hidden
        lines = self.lines(node) if lines is None else lines
        slope, height = lines["slope"], lines["height"]
        below = np.where(lines["unstable"], node["alpha"], slope)
        bent, line, lift = np.zeros_like(slope), np.zeros_like(slope), np.zeros_like(slope)
        n_nodes, parts = len(slope), self.parts
        held = node["beta"] * node["sign"]
        share = node["share"] * lines["unstable"][:, parts[0]] if tilted is not None else None

        def chosen(k: int) -> tuple[Floats, Floats, Floats]:
            over, lift = slope[:, parts[k]], height[:, parts[k]]
            if k == 0 and share is not None:
                over, lift = over * (1.0 - share), lift * (1.0 - share)
            return over, lift, below[:, parts[k]]

        def keep(k: int, *found: Floats) -> None:
            for side, value in zip((bent, line, lift), found, strict=True):
                side[:, parts[k]] = value

        c, e, size = backward(
            hidden,
            np.broadcast_to(self.net.readout, (n_nodes, len(self.net.readout))),
            np.full(n_nodes, self.net.constant),
            chosen,
            self.mass,
            lambda k: held[:, parts[k]],
            keep,
        )
        if share is not None and tilted is not None:
            part = share * np.maximum(bent[:, parts[0]], 0.0)
            c = c + part @ tilted
            e = e + np.einsum("bh,bh->b", part, lines["raised"])
            size = size + part @ np.abs(tilted).sum(axis=1) + np.einsum("bh,bh->b", part, np.abs(lines["raised"]))
        size = size + abs(self.net.constant) + np.abs(self.net.skip).sum()
        cost = c + self.net.skip if len(hidden) else np.broadcast_to(self.net.skip, (n_nodes, self.oracle.n))
        cost, earned, cheapest = self.oracle.priced(cost, node["price"])
        values, points, loss, possible = self.oracle.maximise(cost, node["low"], node["up"], losses)
        size = size + np.abs(earned) + np.einsum("bn,bn->b", np.abs(cost), points)
        total = values + e + earned + ROUNDING * size
        # Forward through the chosen lines at the maximiser: what each line and multiplier is worth there.
        x, tops = np.zeros_like(slope), np.zeros_like(slope)
        found: dict[str, Any] = {}
        h = points
        for k, layer in enumerate(hidden):
            here = parts[k]
            z = h @ layer.weight.T + layer.bias
            x[:, here] = z
            bend = line[:, here] * z + lift[:, here]
            tops[:, here] = slope[:, here] * z + height[:, here]
            if k == 0 and share is not None and tilted is not None:
                apart = tops[:, here] - (points @ tilted.T + lines["raised"])
                saved = np.maximum(bent[:, here], 0.0) * apart
                found["saved"] = np.where(lines["unstable"][:, here], saved, 0.0)
                tops[:, here] -= share * apart
                bend = np.where(bent[:, here] > 0, tops[:, here], bend)
            h = layer.slope * z + layer.gain * bend
        return {
            **found,
            "top": tops,
            "bound": np.where(possible, total, -np.inf),
            "points": points,
            "loss": loss,
            "x": x,
            "bent": bent,
            "cheapest": cheapest,
            **lines,
        }

    def improve(self, node: Node, steps: int, cutoff: float) -> None:
        """Subgradient steps (Adam) on lines below, multipliers and prices; each node keeps its best."""
        names = [name for name, width in (("alpha", self.n_neurons), ("beta", self.n_neurons)) if width]
        names += ["price"] if self.oracle.n_prices else []
        names += ["share"] if self.tilted is not None else []
        if not names or steps < 2:
            return
        rate: dict[str, Any] = {"alpha": 0.3, "beta": 0.3 * self.scale, "price": 0.2 * self.price_scale, "share": 0.3}
        n_nodes = len(node["low"])
        at = np.arange(n_nodes)
        work, lines = {name: value.copy() for name, value in node.items()}, self.lines(node)
        movers = {name: Adam(rate[name], steps) for name in names}
        best = np.full(n_nodes, np.inf)
        earlier = np.inf
        for step in range(steps):
            found = self.evaluate(work, False, lines)
            if step and step % STALL == 0:
                now = float(best.max())
                if earlier - now <= 1e-2 * (now - cutoff if np.isfinite(cutoff) else abs(now)):
                    break
                earlier = now
            better = found["bound"] < best[at]
            gained = at[better]
            best[gained] = found["bound"][better]
            for name in names:
                node[name][gained] = work[name][better]
            if step + 1 == steps:
                break
            open_ = best[at] > cutoff
            if not open_.any():
                break
            gradient = self.gradient(work, found)
            if not open_.all() and open_.mean() < 0.75:
                at = at[open_]
                work, lines, gradient = rows(work, open_), rows(lines, open_), rows(gradient, open_)
                for mover in movers.values():
                    mover.keep(open_)
            for name, mover in movers.items():
                work[name] = work[name] - mover.move(gradient[name], step)
            self.project(work)

    def gradient(self, work: Node, found: dict[str, Any]) -> Node:
        """Subgradients of :meth:`evaluate`'s bound by what may be moved."""
        bent, x = found["bent"], found["x"]
        gradient = {
            "alpha": np.where(found["unstable"], np.minimum(bent, 0.0) * x, 0.0),
            "beta": work["sign"] * x,
        }
        if self.oracle.n_prices:
            gradient["price"] = self.oracle.price_slope(found["points"], work["price"], found["cheapest"])
        if "saved" in found:
            gradient["share"] = -found["saved"]
        return gradient

    def project(self, work: Node) -> None:
        """What was moved, back within its limits, in place."""
        work["alpha"] = np.clip(work["alpha"], 0.0, 1.0)
        work["beta"] = np.where(work["sign"] != 0, np.maximum(work["beta"], 0.0), 0.0)
        work["share"] = np.clip(work["share"], 0.0, 1.0)
        work["price"] = self.oracle.project(work["price"]) if self.oracle.n_prices else work["price"]


def _interval(previous: Hidden, layer: Hidden, before: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Bounds of a layer's pre-activations from those of the layer before, (B, h) each."""
    a = previous.slope * before[0] + previous.gain * np.maximum(before[0], 0.0)
    b = previous.slope * before[1] + previous.gain * np.maximum(before[1], 0.0)
    least, most = np.minimum(a, b), np.maximum(a, b)
    if (previous.slope < 0).any() or (previous.slope + previous.gain < 0).any():
        # Not monotone: the extreme may stand at the bend.
        inside = (before[0] < 0) & (before[1] > 0)
        least = np.where(inside, np.minimum(least, 0.0), least)
        most = np.where(inside, np.maximum(most, 0.0), most)
    plus, minus = np.maximum(layer.weight, 0.0), np.minimum(layer.weight, 0.0)
    return least @ plus.T + most @ minus.T + layer.bias, most @ plus.T + least @ minus.T + layer.bias
