"""The largest value of a network over a box of continuous or whole inputs: climbing, and halving the box under bounds.

For few inputs that meet many neurons: five inputs and three hundred neurons are hopeless for a program with a binary a
neuron, while halving five sides makes neurons stable quickly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmab_opt.encoder import Network, Support
from rmab_opt.encoder.bounds import line_above, masses
from rmab_opt.encoder.network import Reduced
from rmab_opt.errors import CertificateError, ModelError

__all__ = ["BoxSearch", "maximise_box"]

Floats = NDArray[np.float64]

BATCH = 64
"""Boxes bounded at once."""

SAFETY = 1e-11
"""Widening of bounds, relative to the largest sum of terms in the network."""

STARTS, STEPS = 64, 60
"""Points that climb, and their steps."""


@dataclass(frozen=True, eq=False)
class BoxSearch:
    """The best point found, and a proven upper limit of the value anywhere in the box."""

    point: Floats
    value: float
    """The network's own value at the point."""
    bound: float
    """No input of the box is worth more, by linear bounds of every box left."""
    boxes: int
    """Boxes bounded."""
    seconds: float
    status: str
    """``optimal`` (within the gap asked for) or ``stopped`` (by time or boxes)."""

    @property
    def gap(self) -> float:
        """bound - value, in the network's unit."""
        return self.bound - self.value

    def certify(self, forward: Callable[[Floats], float], tolerance: float = 1e-6) -> BoxSearch:
        """The same with the value that the model's own forward pass gives at the point.

        Raises
        ------
        CertificateError
            When it differs from the value by more than the tolerance, relative to the larger of 1 and the value, or
            lies above the bound.
        """
        value = float(forward(self.point))
        allowed = tolerance * max(1.0, abs(self.value))
        if not (abs(value - self.value) <= allowed and value <= self.bound + allowed):
            raise CertificateError(
                f"the model gives {value:.8g} where {self.value:.8g} was claimed, bound {self.bound:.8g}",
                "read the model again; was it changed after reading?",
            )
        return replace(self, value=value)

    def __str__(self) -> str:
        return (
            f"Search over a box · {self.status}\n"
            f"├ value       {self.value:.6g}   bound {self.bound:.6g} (proven by linear bounds)   gap {self.gap:.3g}\n"
            f"└ searched    {self.boxes} boxes · {self.seconds:.1f} s"
        )


def maximise_box(
    network: Network,
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    whole: ArrayLike = False,
    starts: ArrayLike | None = None,
    gap: float = 1e-3,
    boxes: int = 1_000_000,
    seconds: float = np.inf,
    rng: np.random.Generator | None = None,
) -> BoxSearch:
    """Maximise a network over lower <= x <= upper.

    Parameters
    ----------
    lower, upper
        Shape (n,) or numbers, finite.
    whole
        Which inputs take whole values only, shape (n,) or one answer.
    starts
        Points (k, n) to climb from besides those that are drawn.
    gap
        Relative to the value: the search ends when bound - value is at most ``gap * max(|value|, 1e-6)``.
    boxes, seconds
        Limits; where one ends the search the bound is still proven. A limit on boxes gives the same answer anywhere.
    rng
        Draws the points that climb; seeded with 0 by default.

    Returns
    -------
    BoxSearch
        ``value`` is the network's own at the point; :meth:`BoxSearch.certify` recomputes it by the model it was read
        from. The bound counts ``network.error``.

    Raises
    ------
    ModelError
        When the ends are not finite or crossed, or no whole value lies between them.

    Examples
    --------
    >>> tent = Network.from_arrays([([[1.0], [1.0]], [0.0, -1.0], "relu"), ([[1.0, -2.0]], [0.0], "linear")])
    >>> found = maximise_box(tent, [-1.0], [3.0])
    >>> round(found.value, 3), found.status
    (1.0, 'optimal')
    """
    search = _Search(network, lower, upper, whole, rng or np.random.default_rng(0))
    begun = time.monotonic()
    search.climb(starts)
    count = search.run(gap, boxes, begun + seconds)
    bound = max(search.bound, search.value) + network.error
    done = bound - search.value <= gap * max(abs(search.value), 1e-6)
    return BoxSearch(
        search.point, search.value, bound, count, time.monotonic() - begun, "optimal" if done else "stopped"
    )


class _Search:
    def __init__(
        self, network: Network, lower: ArrayLike, upper: ArrayLike, whole: ArrayLike, rng: np.random.Generator
    ) -> None:
        n = network.n_inputs
        low, high = (np.broadcast_to(np.asarray(end, dtype=np.float64), (n,)).copy() for end in (lower, upper))
        self.whole = np.broadcast_to(np.asarray(whole, dtype=bool), (n,))
        low[self.whole], high[self.whole] = np.ceil(low[self.whole] - 1e-9), np.floor(high[self.whole] + 1e-9)
        bad = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high) & (low <= high)))
        if bad.size:
            raise ModelError(
                f"input {bad[0]} has bounds [{low[bad[0]]:g}, {high[bad[0]]:g}]", "give finite lower <= upper."
            )
        self.network, self.reduced, self.rng = network, network.reduced.dense(), rng
        self.low, self.high = low, high
        mass = masses(self.reduced, Support.box(low, high))
        self.slack = [SAFETY * part for part in mass]
        self.point, self.value, self.bound, self.floor = 0.5 * (low + high), -np.inf, np.inf, -np.inf
        self.try_points(self.point[None])

    # ---- points
    def try_points(self, points: Floats) -> Floats:
        """Values of points, the best of which is kept."""
        points = np.where(self.whole, np.rint(points), points)
        values = np.atleast_1d(self.network(points))
        best = int(np.argmax(values))
        if values[best] > self.value:
            self.point, self.value = points[best].copy(), float(values[best])
        return values

    def climb(self, starts: ArrayLike | None) -> None:
        """Projected gradient steps of shrinking length from the best of many draws, then one input at a time."""
        span = self.high - self.low
        points = self.low + span * self.rng.random((16 * STARTS, len(span)))
        if starts is not None:
            given = np.atleast_2d(np.asarray(starts, dtype=np.float64))
            points = np.concatenate([points, np.clip(given, self.low, self.high)])
        points = points[np.argsort(-self.try_points(points))[:STARTS]]
        self.improve(points, 0.2)

    def improve(self, points: Floats, step: float) -> None:
        """Climb from points (k, n)."""
        span = self.high - self.low
        values = np.atleast_1d(self.network(points))
        steps = np.full(len(points), step)
        for _ in range(STEPS):
            slope = gradients(self.reduced, points) * span
            # The sign reaches corners, the gradient itself follows ridges; every second point takes either.
            size = np.abs(slope).max(axis=1, keepdims=True)
            way = np.where(
                np.arange(len(points))[:, None] % 2 == 0, np.sign(slope), slope / np.where(size > 0, size, 1)
            )
            way = way + 0.3 * self.rng.normal(size=way.shape) * (size == 0)
            new = np.clip(points + steps[:, None] * way * span, self.low, self.high)
            reached = np.atleast_1d(self.network(new))
            better = reached > values
            points, values = np.where(better[:, None], new, points), np.where(better, reached, values)
            steps = np.where(better, steps * 1.2, steps * 0.6)
        self.try_points(points)

    # ---- boxes
    def run(self, gap: float, limit: int, until: float) -> int:
        """Halve boxes, the most promising first; the number bounded."""
        low, high = self.low[None], self.high[None]
        bounds, score, corner = self.bounded(low, high)
        self.try_points(corner)
        count = 1
        while True:
            keep = bounds > self.value + gap * max(abs(self.value), 1e-6)
            # A dropped box may still hold what lies within the gap: its bound stays part of the answer.
            dropped = bounds[~keep].max(initial=self.value)
            self.floor = max(self.floor, float(dropped))
            low, high, bounds, score = low[keep], high[keep], bounds[keep], score[keep]
            self.bound = max(self.floor, float(bounds.max(initial=-np.inf)))
            if not len(bounds) or count >= limit or time.monotonic() >= until:
                return count
            order = np.argsort(-bounds, kind="stable")
            first, rest = order[:BATCH], order[BATCH:]
            a, b, parents = self.halved(low[first], high[first], score[first], bounds[first])
            if not len(a):
                # Whole boxes of one point each: their bounds are values.
                self.floor = max(self.floor, self.value)
                low, high, bounds, score = low[rest], high[rest], bounds[rest], score[rest]
                continue
            found, own, corner = self.bounded(a, b)
            count += len(a)
            before = self.value
            values = self.try_points(np.concatenate([corner, 0.5 * (a + b)]))
            if self.value > before or count % (64 * BATCH) < 2 * BATCH:
                top = np.argsort(-values)[:8]
                points = np.concatenate([corner, 0.5 * (a + b)])[top]
                self.improve(np.where(self.whole, np.rint(points), points), 0.02)
            low, high = np.concatenate([low[rest], a]), np.concatenate([high[rest], b])
            bounds = np.concatenate([bounds[rest], np.minimum(found, parents)])
            score = np.concatenate([score[rest], own])

    def halved(self, low: Floats, high: Floats, score: Floats, bounds: Floats) -> tuple[Floats, Floats, Floats]:
        """Both halves of every box along the input with the largest score; points are tried and dropped."""
        width = high - low
        score = np.where(width > 0, score, -1.0)
        at = np.argmax(score, axis=1)
        rows = np.arange(len(low))
        open_ = width[rows, at] > 1e-12 * np.maximum(1.0, np.abs(high[rows, at]))
        if (~open_).any():
            points = low[~open_]
            self.try_points(points)
            # Nothing is left to halve: the box is a point up to rounding, and so is its bound.
            self.floor = max(self.floor, float(np.max(self.network(points))), float(bounds[~open_].max()))
        low, high, at, bounds = low[open_], high[open_], at[open_], bounds[open_]
        rows = np.arange(len(low))
        middle = 0.5 * (low[rows, at] + high[rows, at])
        below, above = high.copy(), low.copy()
        below[rows, at] = np.where(self.whole[at], np.floor(middle), middle)
        above[rows, at] = np.where(self.whole[at], np.floor(middle) + 1, middle)
        return np.concatenate([low, above]), np.concatenate([below, high]), np.concatenate([bounds, bounds])

    def bounded(self, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
        """Upper bounds (B,) of boxes, scores of their inputs (B, n), and the corners their lines are largest at."""
        reduced = self.reduced
        ends: list[tuple[Floats, Floats]] = []
        for k, layer in enumerate(reduced.hidden):
            rows = np.concatenate([layer.weight, -layer.weight])
            shift = np.concatenate([layer.bias, -layer.bias])
            best, _ = self.backward(k, np.broadcast_to(rows, (len(low), *rows.shape)), shift, ends, low, high)
            m = len(layer.bias)
            lower, upper = -best[:, m:] - self.slack[k], best[:, :m] + self.slack[k]
            ends.append((np.minimum(lower, upper), np.maximum(lower, upper)))
        readout = reduced.readout if reduced.hidden else np.zeros(low.shape[1])
        last = np.broadcast_to(readout, (len(low), 1, len(readout)))
        best = np.full(len(low), np.inf)
        corner = np.zeros_like(low)
        for rule in ("adaptive", "zero", "one"):
            found, line = self.backward(
                len(reduced.hidden), last, np.array([reduced.constant]), ends, low, high, rule, reduced.skip
            )
            better = found[:, 0] < best
            corner = np.where(better[:, None], np.where(line[:, 0] > 0, high, low), corner)
            best = np.where(better, found[:, 0], best)
        # How far each input moves the output through neurons whose sign is open.
        reach = np.broadcast_to(np.abs(reduced.readout), (len(low), len(reduced.readout)))
        for layer, (_, upper) in zip(reversed(reduced.hidden), reversed(ends), strict=True):
            live = np.abs(layer.slope) + np.abs(layer.gain) * (upper > 0)
            reach = (reach * live) @ np.abs(layer.weight)
        reach = reach if reduced.hidden else np.ones_like(low)
        return best + self.slack[-1], (reach + 1e-12) * (high - low), corner

    def backward(
        self,
        k: int,
        rows: Floats,
        shift: Floats,
        ends: list[tuple[Floats, Floats]],
        low: Floats,
        high: Floats,
        rule: str = "adaptive",
        straight: Floats | None = None,
    ) -> tuple[Floats, Floats]:
        """Upper bounds (B, m) of rows (B, m, neurons) @ h + shift, h the outputs of layer k - 1, and their lines."""
        c, e = rows, np.broadcast_to(shift, rows.shape[:2]).copy()
        for layer, (lower, upper) in zip(reversed(self.reduced.hidden[:k]), reversed(ends[:k]), strict=True):
            slope, height = line_above(lower, upper)
            split = (lower < 0) & (upper > 0)
            below = np.where(split, (upper > -lower) if rule == "adaptive" else float(rule == "one"), slope)
            bent = c if (layer.gain == 1).all() else c * layer.gain
            positive = np.maximum(bent, 0.0)
            e += (positive @ height[:, :, None])[:, :, 0]
            a = positive * (slope - below)[:, None]
            a += bent * below[:, None]
            if layer.slope.any():
                a += c * layer.slope
            width = a.shape[-1]
            e += (a.reshape(-1, width) @ layer.bias).reshape(e.shape)
            c = (a.reshape(-1, width) @ layer.weight).reshape(*e.shape, -1)
        if straight is not None:
            c = c + straight
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        return np.einsum("bmn,bn->bm", c, middle) + np.einsum("bmn,bn->bm", np.abs(c), half) + e, c


def gradients(reduced: Reduced, points: Floats) -> Floats:
    """Slopes of the value at points (k, n), shape (k, n)."""
    back = np.broadcast_to(reduced.readout, (len(points), len(reduced.readout)))
    for layer, x in zip(reversed(reduced.hidden), reversed(reduced.preactivations(points)), strict=True):
        back = (back * (layer.slope + layer.gain * (x > 0))) @ layer.weight
    return (back if reduced.hidden else np.zeros_like(points)) + reduced.skip
