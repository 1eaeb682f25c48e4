"""Bounds on every pre-activation over the inputs' polytope, by rising effort.

``interval``: the first layer exactly by the support function, later layers by interval arithmetic.
``linear``: rows propagated backwards through one line above and one below each unstable neuron (CROWN), then
maximised by the support function; the best of three lower lines and of the interval.
``lp``: two LPs for every neuron still unstable, over the polytope and the triangles of the layers before.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from rmab_opt.encoder.network import Hidden, Network, Reduced
from rmab_opt.encoder.support import LP_SAFETY, Support
from rmab_opt.errors import ModelError, SolverError
from rmab_opt.solver import Program, Session

__all__ = ["Effort", "bounds", "line_above"]

Floats = NDArray[np.float64]
Effort = Literal["interval", "linear", "lp"]
Bounds = list[tuple[Floats, Floats]]

SAFETY = 1e-12
"""Widening of every bound, relative to the largest terms that can stand in its sums: above rounding, far below what
costs nodes."""


def bounds(network: Network, support: Support, effort: Effort = "linear") -> Bounds:
    """Lower and upper bounds of all pre-activations, then of the output.

    Parameters
    ----------
    network
        Its layers count in reduced form (``network.reduced``): a clipped neuron is two entries.
    support
        Of the inputs; one bound or point an input.
    effort
        ``interval``, ``linear`` or ``lp``; each is at least as tight as the one before.

    Returns
    -------
    list
        One pair (lower, upper) a hidden layer, each of shape (neurons,), and last the output's, shape (1,).

    Raises
    ------
    ModelError
        When the support is over another number of inputs.
    """
    if effort not in ("interval", "linear", "lp"):
        raise ModelError(f"effort is {effort!r}", "use 'interval', 'linear' or 'lp'.")
    if support.n != network.n_inputs:
        raise ModelError(
            f"the network has {network.n_inputs} inputs, the support {support.n}", "build both over the same inputs."
        )
    reduced = network.reduced
    found: Bounds = []
    mass = masses(reduced, support)
    for k, layer in enumerate(reduced.hidden):
        found.append(_layer(reduced, layer, k, found, support, effort, mass))
    output = Hidden(reduced.readout[None], np.array([reduced.constant]), np.ones(1), np.zeros(1))
    found.append(_layer(reduced, output, len(reduced.hidden), found, support, effort, mass, skip=reduced.skip))
    return found


def masses(reduced: Reduced, support: Support) -> list[Floats]:
    """Largest sum of absolute terms behind every pre-activation, and last behind the output: the scale of rounding.

    Where large terms cancel, rounding is relative to them and not to what is left.
    """
    reach: Floats = np.maximum(np.abs(support.lower), np.abs(support.upper))
    last = np.abs(reduced.skip) @ reach + abs(reduced.constant)
    found = []
    for layer in reduced.hidden:
        mass = np.abs(layer.weight) @ reach + np.abs(layer.bias)
        found.append(mass)
        reach = (np.abs(layer.slope) + np.abs(layer.gain)) * mass
    if reduced.hidden:
        last = last + np.abs(reduced.readout) @ reach
    return [*found, np.array([last])]


def _layer(
    reduced: Reduced,
    layer: Hidden,
    k: int,
    before: Bounds,
    support: Support,
    effort: Effort,
    mass: list[Floats],
    skip: Floats | None = None,
) -> tuple[Floats, Floats]:
    if k == 0:
        # Without hidden layers the output is linear in the inputs: its weights are the skip.
        weight = layer.weight if skip is None else skip[None]
        both = support(np.concatenate([weight, -weight]), "lp" if effort == "lp" else "rows").values
        n = len(weight)
        return layer.bias - both[n:] - SAFETY * mass[0], layer.bias + both[:n] + SAFETY * mass[0]
    lower, upper = _interval(reduced.hidden[k - 1], layer, before[k - 1])
    lower, upper = lower - SAFETY * mass[k], upper + SAFETY * mass[k]
    if skip is not None:
        ends = support(np.stack([skip, -skip])).values
        lower, upper = lower - ends[1], upper + ends[0]
    if effort == "interval":
        return lower, upper
    n = len(layer.bias)
    rows = np.concatenate([layer.weight, -layer.weight])
    shift = np.concatenate([layer.bias, -layer.bias])
    straight = None if skip is None else np.stack([skip, -skip])
    best = linear_upper(reduced.hidden[:k], rows, shift, before, support, mass, straight)
    best += SAFETY * np.concatenate([mass[k], mass[k]])
    lower, upper = np.maximum(lower, -best[n:]), np.minimum(upper, best[:n])
    if effort == "lp":
        lower, upper = _by_lp(reduced, layer, k, before, support, skip, lower, upper)
    return _ordered(lower, upper)


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
    up, down = np.maximum(layer.weight, 0.0), np.minimum(layer.weight, 0.0)
    return up @ least + down @ most + layer.bias, up @ most + down @ least + layer.bias


def line_above(lower: Floats, upper: Floats) -> tuple[Floats, Floats]:
    """Slope and height at zero of the line through (lower, max(0, lower)) and (upper, max(0, upper)).

    The least line above max(0, x) on [lower, upper]; x itself where lower >= 0, zero where upper <= 0.
    """
    unstable = (lower < 0) & (upper > 0)
    width = np.where(unstable, upper - lower, 1.0)
    slope = np.where(unstable, upper / width, (lower >= 0).astype(np.float64))
    return slope, np.where(unstable, -lower * slope, 0.0)


def linear_upper(
    hidden: tuple[Hidden, ...],
    rows: Floats,
    shift: Floats,
    before: Bounds,
    support: Support,
    mass: list[Floats],
    straight: Floats | None = None,
) -> Floats:
    """Upper bounds of rows @ h + shift (+ straight @ inputs), h the outputs of the last of ``hidden``; shape (m,)."""
    best = np.full(len(rows), np.inf)
    for choice in ("adaptive", "zero", "one"):
        c, e = rows, shift.copy()
        size = np.zeros(len(rows))
        for layer, (low, high), terms in zip(
            reversed(hidden), reversed(before), reversed(mass[: len(hidden)]), strict=True
        ):
            slope, height = line_above(low, high)
            if choice == "adaptive":
                below = np.where((low < 0) & (high > 0), (high > -low).astype(np.float64), slope)
            else:
                below = np.where((low < 0) & (high > 0), float(choice == "one"), slope)
            bent = c * layer.gain
            positive = np.maximum(bent, 0.0)
            e = e + positive @ height
            a = c * layer.slope + positive * slope + np.minimum(bent, 0.0) * below
            e = e + a @ layer.bias
            size = size + (np.abs(a) + np.abs(bent)) @ terms
            c = a @ layer.weight
        if straight is not None:
            c = c + straight
        best = np.minimum(best, support(c).values + e + SAFETY * size)
    return best


def _by_lp(
    reduced: Reduced,
    layer: Hidden,
    k: int,
    before: Bounds,
    support: Support,
    skip: Floats | None,
    lower: Floats,
    upper: Floats,
) -> tuple[Floats, Floats]:
    """LPs over the polytope and the triangles of layers 0 .. k-1, for neurons that may still turn out stable."""
    open_ = np.flatnonzero((lower < 0) & (upper > 0)) if skip is None else np.arange(len(lower))
    if not open_.size:
        return lower, upper
    session, columns, last = _relaxation(reduced.hidden[:k], before, support)
    lower, upper = lower.copy(), upper.copy()
    n_columns = session.program.cost.size
    previous = reduced.hidden[k - 1]
    x_at, y_at = last
    for i in open_:
        cost = np.zeros(n_columns)
        cost[x_at] = layer.weight[i] * previous.slope
        cost[y_at] += layer.weight[i] * previous.gain
        if skip is not None:
            cost[columns] += skip
        for sign in (1.0, -1.0):
            session.set_cost(np.arange(n_columns), sign * cost)
            result = session.solve()
            if result.status in ("infeasible", "infeasible_or_unbounded"):
                return lower, upper
            if result.status != "optimal":
                raise SolverError(f"the LP bound of a neuron ended with {result.status!r}", "use effort='linear'.")
            value = result.objective + LP_SAFETY * max(1.0, abs(result.objective), abs(layer.bias[i]))
            if sign > 0:
                upper[i] = min(upper[i], layer.bias[i] + value)
            else:
                lower[i] = max(lower[i], layer.bias[i] - value)
    return lower, upper


def _relaxation(
    hidden: tuple[Hidden, ...], before: Bounds, support: Support
) -> tuple[Session, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The polytope with x and y >= max(0, x) of every neuron; the inputs' columns and the last layer's (x, y)."""
    base, inputs = support.program()
    n = base.cost.size
    lower, upper = [base.lower], [base.upper]
    blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    coo = sparse.coo_array(base.matrix)
    blocks.append((coo.coords[0], coo.coords[1], coo.data))
    row_lower, row_upper = [base.row_lower], [base.row_upper]
    n_rows = base.matrix.shape[0]
    x_at = y_at = np.zeros(0, dtype=np.int64)
    for k, (layer, (low, high)) in enumerate(zip(hidden, before[: len(hidden)], strict=True)):
        width = len(layer.bias)
        x_new, y_new = n + np.arange(width), n + width + np.arange(width)
        n += 2 * width
        lower += [low, np.maximum(low, 0.0)]
        upper += [high, np.maximum(high, 0.0)]
        at = np.arange(width)
        slope, height = line_above(low, high)
        # x - weight @ h = bias, with h the inputs or slope * x + gain * y of the layer before.
        parts = [(at, x_new, np.ones(width))]
        into = layer.weight
        if k == 0:
            parts.append((np.repeat(at, into.shape[1]), np.tile(inputs, width), -into.reshape(-1)))
        else:
            previous = hidden[k - 1]
            parts.append((np.repeat(at, len(x_at)), np.tile(x_at, width), -(into * previous.slope).reshape(-1)))
            parts.append((np.repeat(at, len(y_at)), np.tile(y_at, width), -(into * previous.gain).reshape(-1)))
        # y >= x and y <= slope * x + height
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
        x_at, y_at = x_new, y_new
    rows, columns, data = (np.concatenate([block[i] for block in blocks]) for i in range(3))
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
    return Session.from_arrays(program, "fast"), inputs, (x_at, y_at)
