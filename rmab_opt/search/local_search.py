"""Local search for the best action of a network: flips and one-for-one swaps, for many states at once.

Neighbours are valued from an action's first pre-activation plus a difference of two columns of the first weight; the
network's slope at the action says which columns are worth a look. All states move in the same tensor operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmab_opt.encoder import Network
from rmab_opt.encoder.network import Reduced

__all__ = ["climb", "climb_all", "slopes"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

NEAR, FAR = 12, 40
"""Columns of each side that make the neighbourhood: the nearest by slope, and more only when none of those helps."""

AT_ONCE = 2_000_000
"""Entries of one temporary array."""

LEAST_GAIN = 1e-9
"""A move must gain more, relative to max(1, |value|): rounding alone must not keep the search going."""


def climb(
    network: Network | Reduced,
    action: np.ndarray,
    fits: Callable[[Floats], Mask],
    feasible: Callable[[np.ndarray], bool],
    *,
    ceiling: float = np.inf,
    passes: int = 60,
    tries: int = 8,
) -> tuple[np.ndarray, float]:
    """:func:`climb_all` for one network and one action (C,): (allowed action int64 (C,), its value)."""
    actions, values = climb_all(
        [network], np.asarray(action)[None], fits, feasible, ceilings=np.array([ceiling]), passes=passes, tries=tries
    )
    return actions[0], float(values[0])


def climb_all(
    networks: Sequence[Network | Reduced],
    actions: np.ndarray,
    fits: Callable[[Floats], Mask],
    feasible: Callable[[np.ndarray], bool],
    *,
    ceilings: np.ndarray | None = None,
    passes: int = 60,
    tries: int = 8,
) -> tuple[np.ndarray, Floats]:
    """Best single flips and one-for-one swaps from allowed actions until none helps, one network a row.

    What is found for one state does not depend on which others it is searched with.

    Parameters
    ----------
    networks
        M networks of one architecture over the C columns; they may share weights (then only biases differ).
    actions
        Shape (M, C), allowed.
    fits
        Which actions (m, C) keep the rows at hand; a cheap filter.
    feasible
        The full check of one action, asked for the best neighbours only.
    ceilings
        Shape (M,), proven upper limits less the gap that is good enough: a state that reaches its own stops.
    passes, tries
        Most moves a state, and most full checks a move.

    Returns
    -------
    tuple
        (allowed actions int64 (M, C), their values (M,)); never worse than the ones given.
    """
    stack = _Stack.of(networks)
    current = np.array(actions, dtype=np.float64)
    values = stack.values(current)
    limit = np.full(len(current), np.inf) if ceilings is None else np.asarray(ceilings, dtype=np.float64)
    wide = np.zeros(len(current), dtype=bool)
    active = np.flatnonzero(values < limit)
    for _ in range(2 * passes):
        if not active.size:
            break
        for far in (False, True):
            rows = active[wide[active] == far]
            step = max(1, AT_ONCE // ((FAR if far else NEAR) ** 2 * stack.width))
            for first in range(0, len(rows), step):
                part = rows[first : first + step]
                moved = _move(stack.at(part), current, values, part, FAR if far else NEAR, fits, feasible, tries)
                # Without a move the neighbourhood grows; without one there the state is done.
                limit[part[~moved & far]] = -np.inf
                wide[part] = ~moved
        active = active[values[active] < limit[active]]
    return current.astype(np.int64), values


def slopes(networks: Sequence[Network | Reduced], actions: np.ndarray) -> Floats:
    """Each network's gradient at its action (M, C), shape (M, C)."""
    return _Stack.of(networks).slopes(np.asarray(actions, dtype=np.float64))


def _move(
    stack: _Stack,
    current: Floats,
    values: Floats,
    rows: np.ndarray,
    reach: int,
    fits: Callable[[Floats], Mask],
    feasible: Callable[[np.ndarray], bool],
    tries: int,
) -> Mask:
    """Take the best allowed move of every row of ``current``, in place; which rows moved, bool (m,)."""
    here, value = current[rows], values[rows]
    chosen = here > 0.5
    slope = stack.slopes(here)
    out, into = _outermost(np.where(chosen, slope, np.inf), reach), _outermost(np.where(chosen, np.inf, -slope), reach)
    after = stack.after(here, out, into)
    sides = after.shape[1:]
    after = after.reshape(len(rows), -1)
    least = value + LEAST_GAIN * np.maximum(1.0, np.abs(value))
    moved = np.zeros(len(rows), dtype=bool)
    for i in np.flatnonzero((after > least[:, None]).any(axis=1)):
        better = np.flatnonzero(after[i] > least[i])
        order = better[np.argsort(-after[i, better], kind="stable")]
        if _take(here[i], out[i], into[i], order, sides, fits, feasible, tries):
            moved[i] = True
    if moved.any():
        at = rows[moved]
        current[at] = here[moved]
        values[at] = stack.at(np.flatnonzero(moved)).values(here[moved])
    return moved


def _take(
    action: Floats,
    out: np.ndarray,
    into: np.ndarray,
    order: np.ndarray,
    sides: tuple[int, ...],
    fits: Callable[[Floats], Mask],
    feasible: Callable[[np.ndarray], bool],
    tries: int,
) -> bool:
    """Change an action (C,) in place by the first of the ranked moves that is allowed."""
    checked = 0
    step = max(16, AT_ONCE // (8 * len(action)))
    for first in range(0, len(order), step):
        a, b = np.unravel_index(order[first : first + step], sides)
        candidates = np.repeat(action[None], len(a), axis=0)
        # Position -1 of either list stands for no column on that side.
        each = np.arange(len(a))
        candidates[each[out[a] >= 0], out[a][out[a] >= 0]] = 0.0
        candidates[each[into[b] >= 0], into[b][into[b] >= 0]] = 1.0
        for i in np.flatnonzero(fits(candidates)):
            checked += 1
            if feasible(candidates[i].astype(np.int64)):
                action[:] = candidates[i]
                return True
            if checked >= tries:
                return False
    return False


def _outermost(key: Floats, reach: int) -> np.ndarray:
    """Columns with the smallest finite keys (m, C), nearest first, then -1; shape (m, reach + 1)."""
    m, n = key.shape
    reach = min(reach, n)
    near = np.argpartition(key, reach - 1, axis=1)[:, :reach] if reach < n else np.tile(np.arange(n), (m, 1))
    near = np.take_along_axis(near, np.argsort(np.take_along_axis(key, near, axis=1), axis=1, kind="stable"), axis=1)
    near = np.where(np.isfinite(np.take_along_axis(key, near, axis=1)), near, -1)
    return np.concatenate([near, np.full((m, 1), -1)], axis=1)


@dataclass(frozen=True, eq=False)
class _Stack:
    """Networks of one architecture as arrays over networks; weights that all share are kept once."""

    weight: list[Floats]
    """A layer: (h, inputs) when shared, else (M, h, inputs)."""
    bias: list[Floats]
    """A layer: (M, h)."""
    shape: list[tuple[Floats, Floats]]
    """Slope and gain of every layer's neurons, (h,) each."""
    readout: Floats
    """(M, h) of the last layer."""
    skip: Floats
    """(M, C)."""
    constant: Floats
    """(M,)."""

    @classmethod
    def of(cls, networks: Sequence[Network | Reduced]) -> _Stack:
        """Stack them; slopes and gains must be the same in all."""
        nets = [(net.reduced if isinstance(net, Network) else net).dense() for net in networks]
        first = nets[0]
        weights, biases, shapes = [], [], []
        for k, layer in enumerate(first.hidden):
            mine = [net.hidden[k] for net in nets]
            shared = all(other.weight is layer.weight or np.array_equal(other.weight, layer.weight) for other in mine)
            weights.append(layer.weight if shared else np.stack([other.weight for other in mine]))
            biases.append(np.stack([other.bias for other in mine]))
            shapes.append((layer.slope, layer.gain))
        return cls(
            weights,
            biases,
            shapes,
            np.stack([net.readout for net in nets]),
            np.stack([net.skip for net in nets]),
            np.array([net.constant for net in nets]),
        )

    @property
    def width(self) -> int:
        """Neurons of the widest layer."""
        return max([bias.shape[1] for bias in self.bias], default=1)

    def at(self, rows: np.ndarray) -> _Stack:
        """The networks of some rows."""
        if len(rows) == len(self.constant):
            return self
        return _Stack(
            [w if w.ndim == 2 else w[rows] for w in self.weight],
            [b[rows] for b in self.bias],
            self.shape,
            self.readout[rows],
            self.skip[rows],
            self.constant[rows],
        )

    def _forward(self, h: Floats, first: int = 0) -> Floats:
        """Outputs of the last layer for inputs (M, ..., width) of layer ``first``."""
        for w, b, (slope, gain) in zip(self.weight[first:], self.bias[first:], self.shape[first:], strict=True):
            h = _bend(_times(h, w, b), slope, gain)
        return h

    def values(self, actions: Floats) -> Floats:
        """Each network's value of its action (M, C)."""
        value: Floats = np.einsum("mc,mc->m", actions, self.skip) + self.constant
        return value + np.einsum("mh,mh->m", self._forward(actions), self.readout) if self.weight else value

    def slopes(self, actions: Floats) -> Floats:
        """Gradients at the actions, shape (M, C)."""
        if not self.weight:
            return self.skip
        signs, h = [], actions
        for w, b, (slope, gain) in zip(self.weight, self.bias, self.shape, strict=True):
            x = _times(h, w, b)
            signs.append(slope + gain * (x > 0))
            h = _bend(x, slope, gain)
        c = self.readout
        for w, d in zip(reversed(self.weight), reversed(signs), strict=True):
            c = (c * d) @ w if w.ndim == 2 else ((c * d)[:, None, :] @ w)[:, 0]
        return c + self.skip

    def after(self, actions: Floats, out: np.ndarray, into: np.ndarray) -> Floats:
        """Values after taking ``out`` (M, p) away and ``into`` (M, q) in, every pair: (M, p, q); -1 for none."""
        at = np.arange(len(actions))[:, None]
        less, more = (np.where(side >= 0, self.skip[at, side], 0.0) for side in (out, into))
        value = np.einsum("mc,mc->m", actions, self.skip) + self.constant
        value = value[:, None, None] - less[:, :, None] + more[:, None, :]
        if not self.weight:
            return value
        w, (slope, gain) = self.weight[0], self.shape[0]
        x = _times(actions, w, self.bias[0])
        if w.ndim == 2:
            gone, come = w.T[out], w.T[into]
        else:
            gone, come = w.transpose(0, 2, 1)[at, out], w.transpose(0, 2, 1)[at, into]
        gone[out < 0], come[into < 0] = 0.0, 0.0
        h = _bend((x[:, None] - gone)[:, :, None] + come[:, None], slope, gain)
        h = self._forward(h.reshape(len(actions), -1, h.shape[-1]), 1)
        return value + np.einsum("mkh,mh->mk", h, self.readout).reshape(value.shape)


def _times(h: Floats, weight: Floats, bias: Floats) -> Floats:
    """weight @ h + bias for h (M, inputs) or (M, k, inputs)."""
    if h.ndim == 3:
        product = h @ (weight.T if weight.ndim == 2 else weight.transpose(0, 2, 1))
        product += bias[:, None]
        return product
    return (h @ weight.T if weight.ndim == 2 else np.einsum("mhc,mc->mh", weight, h)) + bias


def _bend(x: Floats, slope: Floats, gain: Floats) -> Floats:
    """slope * x + gain * max(0, x); plain ReLU in place, which is what most layers are."""
    if not slope.any() and (gain == 1.0).all():
        return np.maximum(x, 0.0, out=x)
    return slope * x + gain * np.maximum(x, 0.0)
