"""Bounds on every pre-activation over the inputs' polytope, by rising effort.

``interval``: the first layer exactly by the support function, later layers by interval arithmetic.
``linear``: rows propagated backwards through one line above and one below each unstable neuron (CROWN), then
maximised by the support function; the best of three lower lines and of the interval.
``lp``: two LPs for every neuron still unstable, over the polytope and the triangles of the layers before.
``cutoff``: the same over the whole network's triangles, where the output is at least a value known to be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmab_opt.encoder.network import Hidden, Matrix, Network, Reduced, dense, stacked
from rmab_opt.encoder.support import LP_SAFETY, Support
from rmab_opt.errors import ModelError, SolverError
from rmab_opt.solver import Program, Session

__all__ = ["EFFORTS", "Effort", "Rising", "backward", "bounds", "line_above", "rising"]

Floats = NDArray[np.float64]
Effort = Literal["auto", "interval", "linear", "lp", "cutoff"]
EFFORTS = ("interval", "linear", "lp", "cutoff")
Bounds = list[tuple[Floats, Floats]]

SAFETY = 1e-12
"""Widening of every bound, relative to the largest terms that can stand in its sums: above rounding, far below what
costs nodes."""

LP_SCALE = 1e4
"""Sums of terms above which LPs over the network's triangles are left out: HiGHS's tolerances are absolute, and with an
output near 1e6 a bound of a small neuron was wrong by 1e-3. The linear bounds stand there."""

AT_ONCE = 4_000_000
"""Coefficients propagated backwards in one piece: keeps the temporary arrays of wide layers small."""


@dataclass(frozen=True, eq=False)
class Rising:
    """Bounds, and which effort each of them came from."""

    layers: Bounds
    """One pair (lower, upper) a hidden layer, each of shape (neurons,), and last the output's, shape (1,)."""
    came: list[tuple[NDArray[np.int8], NDArray[np.int8]]]
    """The same shapes: position in ``EFFORTS`` of the effort that gave the bound."""
    lps: int = 0
    """LPs solved."""
    at_least: float | None = None
    """Bounds hold where the output is at least this; None: everywhere on the polytope."""

    def counts(self) -> dict[str, int]:
        """Bounds of hidden neurons by the effort they came from."""
        parts = [side for pair in self.came[:-1] for side in pair]
        found = np.bincount(np.concatenate(parts), minlength=len(EFFORTS)) if parts else np.zeros(len(EFFORTS), int)
        return {name: int(count) for name, count in zip(EFFORTS, found, strict=True) if count}


def bounds(network: Network, support: Support, effort: Effort = "linear", at_least: float | None = None) -> Bounds:
    """Lower and upper bounds of all pre-activations, then of the output: ``rising(...).layers``."""
    return rising(network, support, effort, at_least).layers


def rising(network: Network, support: Support, effort: Effort = "auto", at_least: float | None = None) -> Rising:
    """Bounds of all pre-activations and of the output, by rising effort.

    Parameters
    ----------
    network
        Its layers count in reduced form (``network.reduced``): a clipped neuron is two layers.
    support
        Of the inputs; one bound or point an input. What it computed of a first layer is used again while the
        weights stay the same: another state only moves the bias.
    effort
        ``interval``, ``linear``, ``lp``, ``cutoff``; each is at least as tight as the one before. ``auto`` is
        ``linear``, by what each pays in ``benchmarks/formulations.py``: against it, on 26 instances, whole
        decisions with intervals took 1.4 times as long (2.1 with two hidden layers), with ``lp`` 1.2 times (1.07
        with 128 neurons, where LPs left a smaller gap in 4 of the 5 instances nobody finished), with ``cutoff``
        1.5 times.
    at_least
        A value the network is known to reach on the set, for ``cutoff``. The bounds then hold only where the
        output is at least this.

    Raises
    ------
    ModelError
        When the support is over another number of inputs, or ``cutoff`` has no value to cut at.
    """
    if effort not in get_args(Effort):
        raise ModelError(f"effort is {effort!r}", f"use one of {', '.join(get_args(Effort))}.")
    if effort == "cutoff" and at_least is None:
        raise ModelError("effort 'cutoff' without a value", "give at_least, the value of an allowed action.")
    if support.n != network.n_inputs:
        raise ModelError(
            f"the network has {network.n_inputs} inputs, the support {support.n}", "build both over the same inputs."
        )
    work = _Work(network.reduced, support, "linear" if effort == "auto" else effort)
    for k in range(len(work.layers)):
        work.bound(k)
    if effort == "cutoff" and at_least is not None:
        work.cut(at_least)
    return Rising(work.found, work.came, work.lps, at_least if effort == "cutoff" else None)


class _Work:
    """The layers bounded so far; the output counts as a last layer of one linear neuron."""

    def __init__(self, reduced: Reduced, support: Support, effort: str) -> None:
        self.reduced, self.support, self.effort = reduced, support, effort
        output = Hidden(reduced.readout[None], np.array([reduced.constant]), np.ones(1), np.zeros(1))
        self.layers = [*reduced.hidden, output]
        self.mass = masses(reduced, support)
        self.found: Bounds = []
        self.came: list[tuple[NDArray[np.int8], NDArray[np.int8]]] = []
        self.lps = 0

    def bound(self, k: int) -> None:
        """Bounds of layer k, the ones before being known."""
        layer, last = self.layers[k], k == len(self.reduced.hidden)
        n, mass = len(layer.bias), SAFETY * self.mass[k]
        if k == 0:
            # Without hidden layers the output is linear in the inputs: its weights are the skip.
            weight = self.reduced.skip[None] if last else layer.weight
            highest, lowest = self.support.both(weight)
            lower, upper = layer.bias + lowest - mass, layer.bias + highest + mass
        else:
            lower, upper = _interval(self.layers[k - 1], layer, self.found[k - 1])
            lower, upper = lower - mass, upper + mass
            if last:
                ends = self.support.values(np.stack([self.reduced.skip, -self.reduced.skip]))
                lower, upper = lower - ends[1], upper + ends[0]
        self.found.append((lower, upper))
        self.came.append((np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.int8)))
        if k and self.effort != "interval":
            skip = self.reduced.skip if last else None
            straight = None if skip is None else np.stack([skip, -skip])
            # A neuron whose sign is known is linear or zero: tighter bounds of it change nothing.
            at = np.arange(1) if last else np.flatnonzero((lower < 0) & (upper > 0))
            weight, bias = layer.weight[at], layer.bias[at]
            rows, shift = stacked([weight, -weight]), np.concatenate([bias, -bias])
            best = linear_upper(self.reduced.hidden[:k], rows, shift, self.found, self.support, self.mass, straight)
            best += np.concatenate([mass[at], mass[at]])
            self.tighten(k, at, -best[len(at) :], best[: len(at)], 1)
        if self.effort in ("lp", "cutoff"):
            self.solve(k)
        self.found[k] = _ordered(*self.found[k])

    def tighten(self, k: int, at: np.ndarray, lower: Floats, upper: Floats, effort: int) -> None:
        """Keep what is better of neurons ``at``."""
        low, high = self.found[k]
        low, high = low.copy(), high.copy()
        up, down = at[lower > low[at]], at[upper < high[at]]
        low[at], high[at] = np.maximum(low[at], lower), np.minimum(high[at], upper)
        self.came[k][0][up] = effort
        self.came[k][1][down] = effort
        self.found[k] = (low, high)

    def solve(self, k: int) -> None:
        """LPs over the polytope and the triangles of layers 0 .. k-1, for neurons that may still turn out stable."""
        last = k == len(self.reduced.hidden)
        low, high = self.found[k]
        open_ = np.arange(1) if last else np.flatnonzero((low < 0) & (high > 0) & (self.layers[k].gain != 0))
        if not open_.size or (k == 0 and self.support.exact):
            return
        if k == 0:
            weight = self.reduced.skip[None] if last else self.layers[0].weight
            highest, lowest, solved = self.support.both_by_lp(weight, open_)
            self.lps += solved
            bias, mass = self.layers[0].bias[open_], SAFETY * self.mass[0][open_]
            self.tighten(0, open_, bias + lowest - mass, bias + highest + mass, 2)
            return
        if max(float(mass.max(initial=0.0)) for mass in self.mass[: k + 1]) > LP_SCALE:
            return
        relaxation = _Relaxation(self.reduced, self.found, self.support, k)
        self.by_lp(relaxation, k, open_, 2)

    def cut(self, at_least: float) -> None:
        """LPs over the whole network's triangles and output >= at_least, for every neuron still unstable."""
        if not self.reduced.hidden or max(float(mass.max(initial=0.0)) for mass in self.mass) > LP_SCALE:
            return
        floor = at_least - LP_SAFETY * max(1.0, abs(at_least))
        for k in range(len(self.reduced.hidden)):
            low, high = self.found[k]
            open_ = np.flatnonzero((low < 0) & (high > 0) & (self.layers[k].gain != 0))
            if not open_.size:
                continue
            relaxation = _Relaxation(self.reduced, self.found, self.support, len(self.reduced.hidden), floor)
            if not self.by_lp(relaxation, k, open_, 3):
                return
            self.found[k] = _ordered(*self.found[k])

    def by_lp(self, relaxation: _Relaxation, k: int, at: np.ndarray, effort: int) -> bool:
        """Largest and least pre-activation of neurons ``at``; False when the relaxation is empty.

        An LP is left out when an earlier one's point already reaches the bound (Gleixner and others, 2017).
        """
        layer = self.layers[k]
        session = relaxation.session
        cost = relaxation.rows(k, at)
        low, high = (side[at].copy() for side in self.found[k])
        reached = np.full((2, len(at)), -np.inf)
        for sign, side in ((1.0, 0), (-1.0, 1)):
            for i in range(len(at)):
                limit = high[i] if side == 0 else -low[i]
                own = sign * layer.bias[at[i]]
                if reached[side, i] + own >= limit - 1e-6 * max(1.0, abs(limit)):
                    continue
                session.set_cost(np.arange(cost.shape[1]), sign * cost[i])
                result = session.solve()
                self.lps += 1
                if result.status in ("infeasible", "infeasible_or_unbounded"):
                    return False
                if result.status != "optimal" or result.x is None:
                    raise SolverError(f"the LP bound of a neuron ended with {result.status!r}", "use effort='linear'.")
                values = cost @ result.x
                reached = np.maximum(reached, np.stack([values, -values]))
                value = own + result.objective
                value += LP_SAFETY * max(1.0, abs(result.objective), abs(layer.bias[at[i]]))
                if side == 0:
                    high[i] = min(high[i], value)
                else:
                    low[i] = max(low[i], -value)
        self.tighten(k, at, low, high, effort)
        return True


def masses(reduced: Reduced, support: Support) -> list[Floats]:
    """Largest sum of absolute terms behind every pre-activation, and last behind the output: the scale of rounding.

    Where large terms cancel, rounding is relative to them and not to what is left.
    """
    reach: Floats = np.maximum(np.abs(support.lower), np.abs(support.upper))
    last = np.abs(reduced.skip) @ reach + abs(reduced.constant)
    found = []
    for layer in reduced.hidden:
        mass = abs(layer.weight) @ reach + np.abs(layer.bias)
        found.append(mass)
        reach = (np.abs(layer.slope) + np.abs(layer.gain)) * mass
    if reduced.hidden:
        last = last + np.abs(reduced.readout) @ reach
    return [*found, np.array([last])]


def _ordered(lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Bounds of an empty set may cross; any ordered pair is valid there."""
    crossed = lower > upper
    return np.where(crossed, upper, lower), np.where(crossed, lower, upper)


def _interval(previous: Hidden, layer: Hidden, ends: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    low, high = ends
    # h = slope x + gain max(0, x) bends at 0 only: its extremes are at the ends or at 0.
    at_low = previous.slope * low + previous.gain * np.maximum(low, 0.0)
    at_high = previous.slope * high + previous.gain * np.maximum(high, 0.0)
    least, most = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
    inside = (low < 0) & (high > 0)
    least, most = np.where(inside, np.minimum(least, 0.0), least), np.where(inside, np.maximum(most, 0.0), most)
    up, down = (layer.weight + abs(layer.weight)) * 0.5, (layer.weight - abs(layer.weight)) * 0.5
    return up @ least + down @ most + layer.bias, up @ most + down @ least + layer.bias


def line_above(lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Slope and height at zero of the line through (lower, max(0, lower)) and (upper, max(0, upper)).

    The least line above max(0, x) on [lower, upper]; x itself where lower >= 0, zero where upper <= 0.
    """
    unstable = (lower < 0) & (upper > 0)
    width = np.where(unstable, upper - lower, 1.0)
    slope = np.where(unstable, upper / width, (lower >= 0).astype(np.float64))
    return slope, np.where(unstable, -lower * slope, 0.0)


Lines = tuple[Floats, Floats, Floats]
"""Of one layer: slope and height of the line above each neuron, slope of the line below (through zero); one value a
neuron, (h,), or one a row and neuron, (m, h)."""


def lines_below(lower: Floats, upper: Floats, slope: Floats) -> Floats:
    """Three choices of lines below, (3, h): what encloses less area, zero, x; the neuron itself where it is stable."""
    unstable = (lower < 0) & (upper > 0)
    return np.where(unstable, np.stack([upper > -lower, np.zeros(len(lower)), np.ones(len(lower))]), slope)


def backward(
    hidden: Sequence[Hidden],
    rows: Matrix,
    shift: Floats,
    lines: Callable[[int], Lines],
    mass: Sequence[Floats],
    held: Callable[[int], Floats] | None = None,
    keep: Callable[[int, Floats, Floats, Floats], None] | None = None,
) -> tuple[Matrix, Floats, Floats]:
    """Linear upper bounds of rows @ h + shift over what the first of ``hidden`` reads, h being the last one's output.

    Every neuron is replaced by its line above where it counts positive, and by the one below elsewhere.

    Parameters
    ----------
    rows, shift
        Shapes (m, h), dense or sparse, and (m,).
    lines
        Of layer k, asked from the last to the first; sparse rows take one value a neuron only.
    mass
        A layer: largest terms behind each pre-activation, (h,); see :func:`masses`.
    held
        Of layer k: what multipliers of fixed signs add to the pre-activations' coefficients, (m, h).
    keep
        Is told layer k's coefficients of the bends, the lines and the heights chosen, (m, h) each.

    Returns
    -------
    tuple
        (coefficients of the inputs (m, n), constants (m,), the size of the terms that were added up (m,)).

    References
    ----------
    Zhang, Weng, Chen, Hsieh, Daniel (2018), CROWN.
    """
    c, e, size = rows, shift, np.zeros(rows.shape[0])
    thin = sparse.issparse(rows)
    for k in range(len(hidden) - 1, -1, -1):
        layer, (slope, height, below) = hidden[k], lines(k)
        if thin:
            # On a graph every row reads few neurons: nothing as large as rows times neurons is made.
            at = c.indices
            bent = c.data * layer.gain[at]
            a = c.data * layer.slope[at] + bent * np.where(bent > 0, slope[at], below[at])
            lifted, own, terms = (_like(c, part) for part in (np.maximum(bent, 0.0), a, np.abs(a) + np.abs(bent)))
            e = e + lifted @ height + own @ layer.bias
            size, c = size + terms @ mass[k], sparse.csr_array(own @ layer.weight)
            continue
        # Plain ReLU, which most layers are, needs neither product: half the time of a step.
        bent = c if (layer.gain == 1.0).all() else c * layer.gain
        above = bent > 0
        line = np.where(above, slope, below)
        a = bent * line
        if layer.slope.any():
            a += c * layer.slope
        if held is not None:
            a += held(k)
        if keep is not None:
            lift = np.where(above, height, 0.0)
            keep(k, bent, line, lift)
            e = e + np.einsum("mh,mh->m", bent, lift)
        elif height.ndim == 1:
            e = e + np.maximum(bent, 0.0) @ height
        else:
            e = e + np.einsum("mh,mh->m", np.maximum(bent, 0.0), height)
        e = e + a @ layer.bias
        terms = np.abs(a)
        terms += np.abs(bent)
        size = size + terms @ mass[k]
        c = a @ layer.weight
    return c, e, size


def _like(rows: sparse.csr_array, data: Floats) -> sparse.csr_array:
    """New numbers at the places of sparse rows."""
    return sparse.csr_array((data, rows.indices, rows.indptr), shape=rows.shape)


def linear_upper(
    hidden: tuple[Hidden, ...],
    rows: Matrix,
    shift: Floats,
    before: Bounds,
    support: Support,
    mass: list[Floats],
    straight: Floats | None = None,
) -> Floats:
    """Upper bounds of rows @ h + shift (+ straight @ inputs), h the outputs of the last of ``hidden``; shape (m,)."""
    known = list(zip(hidden, before[: len(hidden)], strict=True))
    above = [line_above(low, high) for _, (low, high) in known]
    below = [lines_below(low, high, line[0]) for (_, (low, high)), line in zip(known, above, strict=True)]
    if sparse.issparse(rows) and straight is None and all(sparse.issparse(layer.weight) for layer in hidden):
        best = np.full(rows.shape[0], np.inf)
        for choice in range(3):
            lines = [(*line, low[choice]) for line, low in zip(above, below, strict=True)]
            c, e, size = backward(hidden, sparse.csr_array(rows), shift, lines.__getitem__, mass)
            best = np.minimum(best, support.values(c) + e + SAFETY * size)
        return best
    widest = max(support.n, *(len(layer.bias) for layer in hidden))
    step = max(1, AT_ONCE // (3 * widest))
    best = np.empty(rows.shape[0])
    for first in range(0, rows.shape[0], step):
        part = slice(first, first + step)
        own, m = dense(rows[part]), len(shift[part])
        # The three choices of lower lines travel as one batch: a row each.
        lines = [(*line, np.repeat(low, m, axis=0)) for line, low in zip(above, below, strict=True)]
        many, shifts = np.concatenate([own] * 3), np.concatenate([shift[part]] * 3)
        c, e, size = backward(hidden, many, shifts, lines.__getitem__, mass)
        if straight is not None:
            c = c + np.concatenate([straight[part]] * 3)
        best[part] = (support.values(c) + e + SAFETY * size).reshape(3, m).min(axis=0)
    return best


class _Relaxation:
    """The polytope with x and max(0, x) <= y <= the line above of layers 0 .. depth - 1, as one linear program."""

    def __init__(
        self, reduced: Reduced, before: Bounds, support: Support, depth: int, at_least: float | None = None
    ) -> None:
        base, self.inputs = support.program()
        self.reduced = reduced
        n, n_rows = base.cost.size, base.matrix.shape[0]
        coo = sparse.coo_array(base.matrix)
        blocks = [(coo.coords[0], coo.coords[1], coo.data)]
        lower, upper = [base.lower], [base.upper]
        row_lower, row_upper = [base.row_lower], [base.row_upper]
        self.at: list[tuple[np.ndarray, np.ndarray]] = []
        """Columns of x and of y, a layer."""
        for k, (layer, (low, high)) in enumerate(zip(reduced.hidden[:depth], before[:depth], strict=True)):
            width = len(layer.bias)
            x_new, y_new = n + np.arange(width), n + width + np.arange(width)
            n += 2 * width
            low, high = _ordered(low, high)
            lower += [low, np.maximum(low, 0.0)]
            upper += [high, np.maximum(high, 0.0)]
            at = np.arange(width)
            slope, height = line_above(low, high)
            # x - weight @ h = bias, y >= x, y <= slope * x + height
            parts = [(at, x_new, np.ones(width))]
            parts += [(r, c, -v) for r, c, v in self.read(k, layer.weight)]
            parts += [
                (width + at, y_new, np.ones(width)),
                (width + at, x_new, -np.ones(width)),
                (2 * width + at, y_new, np.ones(width)),
                (2 * width + at, x_new, -slope),
            ]
            blocks += [(n_rows + r, c, v) for r, c, v in parts]
            infinite = np.full(width, np.inf)
            row_lower += [layer.bias, np.zeros(width), -infinite]
            row_upper += [layer.bias, infinite, height]
            n_rows += 3 * width
            self.at.append((x_new, y_new))
        if at_least is not None:
            parts = [*self.read(depth, reduced.readout[None]), (np.zeros(support.n, int), self.inputs, reduced.skip)]
            blocks += [(n_rows + r, c, v) for r, c, v in parts]
            row_lower.append(np.array([at_least - reduced.constant]))
            row_upper.append(np.array([np.inf]))
            n_rows += 1
        rows, columns, data = (np.concatenate([block[i] for block in blocks]) for i in range(3))
        self.n = n
        program = Program(
            cost=np.zeros(n),
            matrix=sparse.csr_array((data, (rows, columns)), shape=(n_rows, n)),
            row_lower=np.concatenate(row_lower),
            row_upper=np.concatenate(row_upper),
            lower=np.concatenate(lower),
            upper=np.concatenate(upper),
            integer=np.zeros(n, dtype=bool),
            maximise=True,
        )
        self.session = Session.from_arrays(program, "fast")

    def read(self, k: int, weight: Matrix) -> list[tuple[np.ndarray, np.ndarray, Floats]]:
        """weight @ (what layer k reads) as (row, column, coefficient) arrays."""
        coo = sparse.coo_array(weight)
        row, column = (np.asarray(part, dtype=np.int64) for part in coo.coords)
        if k == 0:
            return [(row, self.inputs[column], coo.data)]
        before = self.reduced.hidden[k - 1]
        x_at, y_at = self.at[k - 1]
        return [
            (row, x_at[column], coo.data * before.slope[column]),
            (row, y_at[column], coo.data * before.gain[column]),
        ]

    def rows(self, k: int, at: np.ndarray) -> Floats:
        """Pre-activations of neurons ``at`` of layer k (the output behind the last) without their bias, (m, n)."""
        found = np.zeros((len(at), self.n))
        if k == len(self.reduced.hidden):
            found[0, self.inputs] = self.reduced.skip
            weight: Matrix = self.reduced.readout[None]
        else:
            weight = self.reduced.hidden[k].weight[at]
        for row, column, value in self.read(k, weight):
            np.add.at(found, (row, column), value)
        return found
