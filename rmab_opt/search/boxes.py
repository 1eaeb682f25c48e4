"""The largest value of a network over few inputs with linear rows: climbing, and halving boxes under linear bounds.

For few inputs that meet many neurons: five inputs and three hundred neurons are hopeless for a program with a binary a
neuron, while halving five sides makes neurons stable quickly.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmab_opt.encoder import Network, Support
from rmab_opt.encoder.bounds import line_above, masses
from rmab_opt.errors import CertificateError, ModelError
from rmab_opt.search.ascent import Ascent
from rmab_opt.search.domain import Domain

__all__ = ["BoxOptions", "BoxSearch", "maximise_box", "maximise_over"]

Floats = NDArray[np.float64]
Signs = NDArray[np.int8]

BATCH = 64
"""Boxes bounded at once."""

SAFETY = 1e-11
"""Widening of bounds, relative to the largest sum of terms in the network."""

SLOPES, SLOPE_STEP = 8, 0.25
"""Steps towards better lines below a box's neurons for its own bound, and their first length."""

OPEN, ON, OFF = 0, 1, -1
"""Signs of a neuron's pre-activation over a box: either, never negative, never positive."""


@dataclass(frozen=True, eq=False)
class BoxOptions:
    """Where a search over a box begins, and when it ends.

    Raises
    ------
    ModelError
        When the gap or a limit is negative or no number.
    """

    gap: float = 1e-3
    """Relative to the value: the search ends when bound - value is at most ``gap * max(|value|, 1e-6)``."""
    boxes: int = 1_000_000
    """Boxes bounded at most. A limit on boxes gives the same answer anywhere; the bound is proven at any limit."""
    seconds: float = np.inf
    """The same on the clock."""
    starts: ArrayLike | None = None
    """Points (k, n) to climb from besides those that are drawn; who breaks a row is drawn inwards first."""
    seed: int = 0
    """Of the draws that climb."""

    def __post_init__(self) -> None:
        for name in ("gap", "boxes", "seconds"):
            if not getattr(self, name) >= 0:
                raise ModelError(f"{name} is {getattr(self, name)}", "give a number of at least 0.")


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
    judged: float | None = None
    """The value by the framework that the network was read from, where there is one."""

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
    rows: tuple[Any, Any, Any] | None = None,
    whole: ArrayLike = False,
    options: BoxOptions | None = None,
) -> BoxSearch:
    """Maximise a network over lower <= x <= upper and linear rows, inputs continuous, whole or mixed.

    Parameters
    ----------
    lower, upper
        Shape (n,) or numbers, finite.
    rows
        (matrix (m, n), lower limits, upper limits): row_lower <= matrix @ x <= row_upper.
    whole
        Which inputs take whole values only, shape (n,) or one answer.
    options
        Gap, limits and starts; see :class:`BoxOptions`.

    Returns
    -------
    BoxSearch
        ``value`` is the network's own at the point, and where the network was read from a framework, ``judged`` is that
        framework's, which must agree. The bound counts ``network.error``.

    Raises
    ------
    ModelError
        When the ends are not finite or crossed, no whole value lies between them, or shapes disagree.
    InfeasibleError
        When no point satisfies the rows.
    CertificateError
        When the framework gives another value at the point.

    Examples
    --------
    >>> tent = Network.from_arrays([([[1.0], [1.0]], [0.0, -1.0], "relu"), ([[1.0, -2.0]], [0.0], "linear")])
    >>> found = maximise_box(tent, [-1.0], [3.0])
    >>> round(found.value, 3), found.status
    (1.0, 'optimal')
    """
    domain = Domain.of(network.n_inputs, lower, upper, whole, rows)
    return _searched(network, domain, options or BoxOptions())


def maximise_over(model: Any, inputs: Any, *, options: BoxOptions | None = None) -> BoxSearch:
    """The same over Pyomo variables: their bounds, domains, and the linear rows of their model that hold for them.

    Parameters
    ----------
    model
        A :class:`Network`, or what :func:`rmab_opt.encoder.read_model` reads but trees.
    inputs
        One Pyomo variable an input.

    Raises
    ------
    ModelError
        Also where a row ties the inputs to other variables: nothing is left out of what is proven.
    """
    from rmab_opt.encoder.read.models import read_model

    domain = Domain.from_model(inputs)
    network = read_model(model, box=(domain.lower, domain.upper), n_inputs=domain.n)
    if not isinstance(network, Network):
        raise ModelError(f"a {type(network).__name__} has no gradients to follow", "encode it and solve in a Session.")
    if network.n_inputs != domain.n:
        raise ModelError(f"{domain.n} inputs for {network!r}", f"give {network.n_inputs}.")
    return _searched(network, domain, options or BoxOptions())


def _searched(network: Network, domain: Domain, options: BoxOptions) -> BoxSearch:
    begun = time.monotonic()
    ascent = Ascent(network, domain, np.random.default_rng(options.seed))
    ascent.from_draws(options.starts)
    search = _Search(_Bounder(network, domain), ascent)
    count = search.run(options.gap, options.boxes, begun + options.seconds)
    if not np.isfinite(ascent.value):
        raise CertificateError(
            "no point of the set was found within the limits",
            "give one by BoxOptions(starts=...), or encode and solve in a Session.",
        )
    bound = max(search.bound, ascent.value) + network.error
    done = bound - ascent.value <= options.gap * max(abs(ascent.value), 1e-6)
    found = BoxSearch(
        ascent.point, ascent.value, bound, count, time.monotonic() - begun, "optimal" if done else "stopped"
    )
    if network.judge is None:
        return found
    mass = max(float(part.max(initial=0.0)) for part in masses(network.reduced, Support.box(found.point, found.point)))
    judged = float(network.judge.forward(found.point[None])[0])
    if not abs(judged - found.value) <= network.judge.relative * max(1.0, mass) + network.error:
        raise CertificateError(
            f"the framework gives {judged:.8g} at the point where the network, as it was read, gives {found.value:.8g}",
            "report this with the model.",
        )
    return replace(found, judged=judged)


class _Bounded(NamedTuple):
    """What is known of boxes."""

    bounds: Floats
    """Shape (B,)."""
    line: Floats
    """Shape (B, n): no input of a box is worth more than line @ x + constant."""
    constant: Floats
    points: Floats
    """Shape (B, n), where the lines are largest."""
    scores: Floats
    """Shape (B, n), what halving each input promises."""
    signs: Signs


class _Bounder:
    """Upper bounds of many boxes at once, by lines propagated backwards (CROWN) from neurons whose sign is open."""

    def __init__(self, network: Network, domain: Domain) -> None:
        self.reduced, self.domain = network.reduced.dense(), domain
        self.hidden = self.reduced.hidden
        mass = masses(self.reduced, Support.box(domain.lower, domain.upper))
        self.slack = [SAFETY * part for part in mass]
        sizes = [len(layer.bias) for layer in self.hidden]
        self.parts = [slice(end - size, end) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]
        self.n_neurons = sum(sizes)

    def root(self) -> Signs:
        """Signs known before any bound: linear neurons need none."""
        linear = np.concatenate([layer.gain == 0 for layer in self.hidden] or [np.zeros(0, dtype=bool)])
        return np.where(linear, ON, OPEN).astype(np.int8)[None]

    def bounded(self, low: Floats, high: Floats, signs: Signs) -> _Bounded:
        """Of boxes (B, n) with signs known from their parents (B, neurons)."""
        signs = signs.copy()
        lines: list[tuple[Floats, Floats, Floats]] = []
        spread: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]] = []
        for k, layer in enumerate(self.hidden):
            own = signs[:, self.parts[k]]
            owner, at = np.nonzero(own == OPEN)
            m = len(at)
            two = np.concatenate([owner, owner])
            rows = np.concatenate([layer.weight[at], -layer.weight[at]])
            shift = np.concatenate([layer.bias[at], -layer.bias[at]])
            c, e = self.backward(k, rows, shift, lines, two)
            best, _ = self.domain.values(c, low[two], high[two])
            best = best + e
            upper, lower = best[:m] + self.slack[k][at], -best[m:] - self.slack[k][at]
            lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
            own[owner, at] = np.where(lower >= 0, ON, np.where(upper <= 0, OFF, OPEN))
            ends = np.zeros((2, *own.shape))
            ends[0, owner, at], ends[1, owner, at] = lower, upper
            lines.append(self.lines(own, ends))
            still = own[owner, at] == OPEN
            width = (high - low)[owner[still]]
            spread.append((owner[still], at[still], np.abs(c[:m][still]) * width, ends[:, owner[still], at[still]]))
        line, constant, point, coefficients = self.final(low, high, lines, signs)
        bounds = self.domain.values(line, low, high)[0] + constant + self.slack[-1]
        return _Bounded(
            bounds, line, constant + self.slack[-1], point, self.scores(low, high, spread, coefficients), signs
        )

    @staticmethod
    def lines(signs: Signs, ends: Floats) -> tuple[Floats, Floats, Floats]:
        """Slope and height of the line above every neuron and slope of the one below, (B, h) each."""
        slope, height = line_above(*ends)
        stable = (signs == ON).astype(np.float64)
        unstable = signs == OPEN
        below = np.where(unstable, ends[1] > -ends[0], stable)
        return np.where(unstable, slope, stable), np.where(unstable, height, 0.0), below

    def backward(
        self,
        k: int,
        rows: Floats,
        shift: Floats,
        lines: list[tuple[Floats, Floats, Floats]],
        owner: NDArray[np.int64] | None,
        keep: list[Floats] | None = None,
    ) -> tuple[Floats, Floats]:
        """Rows (R, neurons) @ outputs of layer k - 1 + shift as (R, n) @ inputs + (R,), from above; a box a row."""
        c, e = rows, shift
        for j in range(k - 1, -1, -1):
            layer = self.hidden[j]
            slope, height, below = lines[j] if owner is None else tuple(part[owner] for part in lines[j])
            bent = c if (layer.gain == 1).all() else c * layer.gain
            if keep is not None:
                keep.append(bent)
            positive = np.maximum(bent, 0.0)
            e = e + np.einsum("rh,rh->r", positive, height)
            a = np.where(bent > 0, slope, below)
            a *= bent
            if layer.slope.any():
                a += c * layer.slope
            e += a @ layer.bias
            c = a @ layer.weight
        return c, e

    def final(
        self, low: Floats, high: Floats, lines: list[tuple[Floats, Floats, Floats]], signs: Signs
    ) -> tuple[Floats, Floats, Floats, list[Floats]]:
        """The output's line (B, n), (B,) by the best of some lines below; where it is largest; coefficients a layer."""
        reduced, count, depth = self.reduced, len(low), len(self.hidden)
        if not depth:
            line = np.broadcast_to(reduced.skip, low.shape).copy()
            return line, np.full(count, reduced.constant), self.domain.values(line, low, high)[1], []
        rows, shift = np.broadcast_to(reduced.readout, (count, len(reduced.readout))), np.full(count, reduced.constant)
        open_ = [signs[:, part] == OPEN for part in self.parts]
        below = [line[2] for line in lines]
        best, line, constant, point = np.full(count, np.inf), low, shift, low
        first: list[Floats] = []
        for step in range(SLOPES + 1):
            keep: list[Floats] = []
            own = [(part[0], part[1], b) for part, b in zip(lines, below, strict=True)]
            c, e = self.backward(depth, rows, shift, own, None, keep)
            c = c + reduced.skip
            found, at = self.domain.values(c, low, high)
            better = found + e < best
            best, constant = np.where(better, found + e, best), np.where(better, e, constant)
            line, point = np.where(better[:, None], c, line), np.where(better[:, None], at, point)
            first = first or keep[::-1]
            if step < SLOPES:
                # The bound is convex in each line below; its slope is what the lines give at the point.
                size = SLOPE_STEP * 0.85**step
                for j, move in enumerate(self.slopes(at, own, keep[::-1])):
                    scale = np.abs(move).max(axis=1, keepdims=True)
                    way = np.sign(move) * np.sqrt(np.abs(move) / np.where(scale > 0, scale, 1.0))
                    below[j] = np.where(open_[j], np.clip(below[j] - 2 * size * way, 0.0, 1.0), below[j])
        return line, constant, point, first

    def slopes(self, point: Floats, lines: list[tuple[Floats, Floats, Floats]], kept: list[Floats]) -> list[Floats]:
        """Derivative of the bound after every line below: its coefficient times what the lines give at the point."""
        h, found = point, []
        for layer, (slope, height, below), bent in zip(self.hidden, lines, kept, strict=True):
            x = h @ layer.weight.T + layer.bias
            found.append(np.minimum(bent, 0.0) * x)
            y = np.where(bent > 0, slope * x + height, below * x)
            h = layer.slope * x + layer.gain * y
        return found

    def scores(
        self,
        low: Floats,
        high: Floats,
        spread: list[tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]],
        coefficients: list[Floats],
    ) -> Floats:
        """What each input adds to the width of the open neurons, weighed by what their lines cost the bound; (B, n)."""
        found = 1e-12 * (high - low)
        for (owner, at, moved, (lower, upper)), bent in zip(spread, coefficients, strict=True):
            weight = bent[owner, at]
            above = -lower * upper / np.maximum(upper - lower, 1e-300)
            cost = np.where(weight > 0, weight * above, -weight * np.minimum(upper, -lower))
            share = moved * (cost / np.maximum(moved.sum(axis=1), 1e-300))[:, None]
            np.add.at(found, owner, share)
        return found


class _Search:
    """Boxes from the most promising on; a pool of arrays and a heap, so that a step costs the batch."""

    def __init__(self, bounder: _Bounder, ascent: Ascent) -> None:
        self.bounder, self.ascent, self.domain = bounder, ascent, bounder.domain
        self.bound, self.floor = np.inf, -np.inf
        self.heap: list[tuple[float, int]] = []
        self.free: list[int] = []
        n = self.domain.n
        self.low, self.high, self.score = np.zeros((0, n)), np.zeros((0, n)), np.zeros((0, n))
        self.signs, self.bounds = np.zeros((0, bounder.n_neurons), dtype=np.int8), np.zeros(0)

    def run(self, gap: float, limit: int, until: float) -> int:
        """Halve boxes until the gap or a limit is reached; the number bounded."""
        low, high, alive = self.domain.tightened(self.domain.lower[None], self.domain.upper[None])
        if not alive[0]:
            self.bound = -np.inf
            return 0
        count = self.take(low, high, self.bounder.root(), np.full(1, np.inf), gap)
        looked = 0
        while True:
            self.bound = max(self.floor, -self.heap[0][0] if self.heap else -np.inf)
            if self.bound <= self.needed(gap) or not self.heap or count >= limit or time.monotonic() >= until:
                return count
            at = [heapq.heappop(self.heap)[1] for _ in range(min(BATCH, len(self.heap)))]
            bounds = self.bounds[at]
            low, high, signs, parents = self.halved(at, bounds)
            self.free += at
            if len(low):
                before = self.ascent.value
                count += self.take(low, high, signs, parents, gap)
                looked += 1
                if self.ascent.value > before or looked % 64 == 0:
                    self.ascent.improve(self.ascent.point[None], 0.02)

    def needed(self, gap: float) -> float:
        """Boxes at or below it cannot move the answer by more than the gap."""
        value = self.ascent.value
        return value + gap * max(abs(value), 1e-6) if np.isfinite(value) else -np.inf

    def take(self, low: Floats, high: Floats, signs: Signs, parents: Floats, gap: float) -> int:
        """Bound boxes, try their points, keep those that matter; the number."""
        known = self.bounder.bounded(low, high, signs)
        found, points = np.minimum(known.bounds, parents), known.points
        if len(self.domain.sides[0]):
            # Rows together: prices of the rows found one at a time are not the best, the solver's are.
            for i in np.flatnonzero(found > self.needed(gap)).tolist():
                value, point = self.domain.best(known.line[i], low[i], high[i])
                found[i] = min(found[i], value + known.constant[i])
                points[i] = points[i] if point is None else point
        values = self.ascent.tried(np.concatenate([points, 0.5 * (low + high)]))
        if values.max(initial=-np.inf) >= self.ascent.value and np.isfinite(values.max(initial=-np.inf)):
            self.ascent.improve(np.concatenate([points, 0.5 * (low + high)])[np.argsort(-values)[:8]], 0.02)
        keep = found > self.needed(gap)
        # A dropped box may still hold what lies within the gap: its bound stays part of the answer.
        self.floor = max(self.floor, float(found[~keep].max(initial=-np.inf)))
        kept = np.flatnonzero(keep)
        self.store(low[kept], high[kept], known.signs[kept], known.scores[kept], found[kept])
        return len(low)

    def store(self, low: Floats, high: Floats, signs: Signs, score: Floats, bounds: Floats) -> None:
        """Put boxes into free places of the pool."""
        short = len(low) - len(self.free)
        if short > 0:
            size = len(self.low)
            more = max(short, size, 256)
            for name in ("low", "high", "score", "signs"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros((more, old.shape[1]), dtype=old.dtype)]))
            self.bounds = np.concatenate([self.bounds, np.zeros(more)])
            self.free += range(size, size + more)
        at = [self.free.pop() for _ in range(len(low))]
        self.low[at], self.high[at], self.signs[at], self.score[at], self.bounds[at] = low, high, signs, score, bounds
        for place, bound in zip(at, bounds.tolist(), strict=True):
            heapq.heappush(self.heap, (-bound, place))

    def halved(self, at: list[int], bounds: Floats) -> tuple[Floats, Floats, Signs, Floats]:
        """Both halves of every box along the input with the largest score, as far as the rows leave a point."""
        low, high, score, signs = self.low[at], self.high[at], self.score[at], self.signs[at]
        whole, width = self.domain.whole, high - low
        score = np.where(width > 0, score, -1.0)
        j = np.argmax(score, axis=1)
        rows = np.arange(len(low))
        open_ = width[rows, j] > 1e-12 * np.maximum(1.0, np.abs(high[rows, j]))
        if (~open_).any():
            # Nothing is left to halve: the box is a point up to rounding. Of whole inputs it is a point outright.
            points, own = low[~open_], bounds[~open_]
            values = self.ascent.tried(points)
            exact = (points == high[~open_]).all(axis=1)
            self.floor = max(self.floor, float(np.where(exact, values, own).max()))
        low, high, j, bounds, signs = low[open_], high[open_], j[open_], bounds[open_], signs[open_]
        rows = np.arange(len(low))
        middle = 0.5 * (low[rows, j] + high[rows, j])
        below, above = high.copy(), low.copy()
        below[rows, j] = np.where(whole[j], np.floor(middle), middle)
        above[rows, j] = np.where(whole[j], np.floor(middle) + 1, middle)
        low, high, alive = self.domain.tightened(np.concatenate([low, above]), np.concatenate([below, high]))
        return low[alive], high[alive], np.concatenate([signs, signs])[alive], np.concatenate([bounds, bounds])[alive]
