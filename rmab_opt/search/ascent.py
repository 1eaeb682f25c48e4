"""Climbing a network's value over continuous, whole and mixed inputs: gradient steps with restarts, then unit moves."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmab_opt.encoder import Network
from rmab_opt.encoder.network import Reduced
from rmab_opt.errors import ModelError
from rmab_opt.search.domain import Domain

__all__ = ["Ascent", "gradients"]

Floats = NDArray[np.float64]

STARTS, STEPS = 64, 60
"""Points that climb, and their steps."""

UNIT_POINTS, PAIRS = 8, 24
"""Points whose whole inputs are moved, and the number of inputs up to which two are moved against each other."""


class Ascent:
    """The best point seen so far, and ways to better ones."""

    def __init__(self, network: Network, domain: Domain, rng: np.random.Generator) -> None:
        self.network, self.reduced, self.domain, self.rng = network, network.reduced.dense(), domain, rng
        self.span = domain.upper - domain.lower
        self.point: Floats = domain.lower
        self.value = -np.inf

    def tried(self, points: Floats) -> Floats:
        """Values of points (P, n), -inf where they are not allowed; the best is kept."""
        points = np.where(self.domain.whole, np.rint(points), points)
        allowed = self.domain.allows(points)
        values = np.full(len(points), -np.inf)
        if allowed.any():
            values[allowed] = self.network(points[allowed])
            best = int(np.argmax(values))
            if values[best] > self.value:
                self.point, self.value = points[best].copy(), float(values[best])
        return values

    def from_draws(self, starts: ArrayLike | None) -> None:
        """Climb from the starts given and the best of many draws.

        Raises
        ------
        ModelError
            When starts are not one number an input.
        """
        points = self.domain.draws(16 * STARTS, self.rng)
        given = np.zeros((0, self.domain.n)) if starts is None else np.atleast_2d(np.asarray(starts, dtype=np.float64))
        if given.shape[1] != self.domain.n or not np.isfinite(given).all():
            raise ModelError(f"starts of shape {given.shape}", f"give finite points of {self.domain.n} numbers.")
        if len(given):
            points = np.concatenate([points, self.pulled(given, points)])
        values = self.tried(points)
        kept = np.argsort(-values, kind="stable")[:STARTS]
        self.improve(points[kept[np.isfinite(values[kept])]], 0.2)

    def pulled(self, given: Floats, inside: Floats) -> Floats:
        """Starts as they are where they are allowed, else drawn towards the middle of the set until they are."""
        given = np.clip(given, self.domain.lower, self.domain.upper)
        given = np.where(self.domain.whole, np.rint(given), given)
        bad = ~self.domain.allows(given)
        if bad.any() and len(inside):
            middle = np.broadcast_to(inside.mean(axis=0), given[bad].shape)
            given[bad] = self.domain.within(middle, given[bad] - middle)
        return given

    def improve(self, points: Floats, step: float) -> None:
        """Climb from allowed points (P, n): whole inputs by units, the others by gradients, twice where both are."""
        domain = self.domain
        points = points[domain.allows(np.where(domain.whole, np.rint(points), points))]
        points = np.where(domain.whole, np.rint(points), points)
        if not len(points):
            return
        some, all_ = bool(domain.whole.any()), bool(domain.whole.all())
        for _ in range(2 if some and not all_ else 1):
            if some:
                points = self._units(points)
            if not all_:
                points = self._gradients(points, step)

    def _gradients(self, points: Floats, step: float) -> Floats:
        """Steps of shrinking length."""
        values = np.atleast_1d(self.network(points))
        steps = np.full(len(points), step)
        for _ in range(STEPS):
            slope = gradients(self.reduced, points) * self.span
            # The sign reaches corners, the gradient itself follows ridges; every second point takes either.
            size = np.abs(slope).max(axis=1, keepdims=True)
            even = np.arange(len(points))[:, None] % 2 == 0
            way = np.where(even, np.sign(slope), slope / np.where(size > 0, size, 1))
            way = way + 0.3 * self.rng.normal(size=way.shape) * (size == 0)
            new = self.domain.within(points, steps[:, None] * way * self.span)
            reached = np.atleast_1d(self.network(new))
            better = reached > values
            points, values = np.where(better[:, None], new, points), np.where(better, reached, values)
            steps = np.where(better, steps * 1.2, steps * 0.6)
        self.tried(points)
        return points

    def _units(self, points: Floats) -> Floats:
        """The best of all moves of one whole input by one, or two against each other, while one is better."""
        at = np.flatnonzero(self.domain.whole)
        one = np.eye(self.domain.n)[at]
        moves = [one, -one]
        if len(at) <= PAIRS:
            first, second = np.nonzero(~np.eye(len(at), dtype=bool))
            moves.append(one[first] - one[second])
        every = np.concatenate(moves)
        found = []
        for point in points[np.argsort(-np.atleast_1d(self.network(points)))[:UNIT_POINTS]]:
            value = float(self.network(point))
            while True:
                values = self.tried(point + every)
                best = int(np.argmax(values))
                if not values[best] > value + 1e-12 * max(1.0, abs(value)):
                    break
                point, value = np.clip(point + every[best], self.domain.lower, self.domain.upper), float(values[best])
            found.append(point)
        return np.array(found)


def gradients(reduced: Reduced, points: Floats) -> Floats:
    """Slopes of the value at points (k, n), shape (k, n)."""
    back = np.broadcast_to(reduced.readout, (len(points), len(reduced.readout)))
    for layer, x in zip(reversed(reduced.hidden), reversed(reduced.preactivations(points)), strict=True):
        back = (back * (layer.slope + layer.gain * (x > 0))) @ layer.weight
    return (back if reduced.hidden else np.zeros_like(points)) + reduced.skip
