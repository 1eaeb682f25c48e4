"""A box of inputs with linear rows: boxes inside it tightened and bounded at once, and points of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from rmab_opt.encoder import Support
from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.solver import Program, Session
from rmab_opt.solver.profile import load_profile

__all__ = ["Domain"]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

OPEN = 1e-7
"""How far rows are opened, relative to their limit: points within it are allowed, and bounds hold for them."""

SWEEPS = 2
"""Rounds over the rows when boxes are tightened and when prices are sought."""


@dataclass(frozen=True, eq=False)
class Domain:
    """lower <= x <= upper, row_lower <= matrix @ x <= row_upper, some inputs whole.

    Raises
    ------
    ModelError
        When ends are not finite or crossed, or shapes disagree; names the input or the shape.
    """

    lower: Floats
    """Shape (n,)."""
    upper: Floats
    whole: NDArray[np.bool_]
    matrix: Floats
    """Shape (m, n)."""
    row_lower: Floats
    row_upper: Floats

    @classmethod
    def of(
        cls,
        n: int,
        lower: ArrayLike,
        upper: ArrayLike,
        whole: ArrayLike = False,
        rows: tuple[Any, Any, Any] | None = None,
    ) -> Self:
        """Of numbers or arrays; ``rows`` are (matrix (m, n), lower limits, upper limits)."""
        low, high = (np.broadcast_to(np.asarray(end, dtype=np.float64), (n,)).copy() for end in (lower, upper))
        integer = np.broadcast_to(np.asarray(whole, dtype=bool), (n,))
        low[integer], high[integer] = np.ceil(low[integer] - 1e-9), np.floor(high[integer] + 1e-9)
        bad = np.flatnonzero(~(np.isfinite(low) & np.isfinite(high) & (low <= high)))
        if bad.size:
            i = int(bad[0])
            raise ModelError(f"input {i} has bounds [{low[i]:g}, {high[i]:g}]", "give finite lower <= upper.")
        given: tuple[Any, Any, Any] = (np.zeros((0, n)), (), ()) if rows is None else rows
        matrix = (
            given[0].toarray() if sparse.issparse(given[0]) else np.atleast_2d(np.asarray(given[0], dtype=np.float64))
        )
        if matrix.shape[1] != n or np.isnan(matrix).any():
            raise ModelError(f"rows of shape {matrix.shape} over {n} inputs", "give one finite number an input.")
        limits = [np.broadcast_to(np.asarray(side, dtype=np.float64), (len(matrix),)) for side in given[1:]]
        if any(np.isnan(side).any() for side in limits):
            raise ModelError("a row's limit is NaN", "give numbers, or infinity for no limit.")
        return cls(low, high, integer, matrix, limits[0], limits[1])

    @classmethod
    def from_model(cls, inputs: Any) -> Self:
        """Of Pyomo variables and the linear rows of their model that hold for them.

        Raises
        ------
        ModelError
            When a row of the model mixes the inputs with other variables, or hangs on mutable Params or products:
            what is left out of the search would not be proven.
        """
        import pyomo.environ as pyo

        variables: Sequence[Any] = list(inputs.values()) if getattr(inputs, "is_indexed", bool)() else list(inputs)
        model = variables[0].model()
        support = Support.from_model(model, variables)
        assert support.reading is not None
        n, program = len(variables), support.reading.program
        own = {id(variable) for variable in variables}
        read = {id(row) for row in support.reading.rows}
        for row in model.component_data_objects(pyo.Constraint, active=True, descend_into=True):
            names = {id(variable) for variable in pyo_variables(row.body)}
            if names & own and (id(row) not in read or names - own):
                raise ModelError(
                    f"constraint {row.name!r} ties the inputs to other variables, Params or products",
                    "encode the network and solve in a Session, which takes every linear row.",
                )
        kept = np.flatnonzero(np.asarray((program.matrix[:, :n] != 0).sum(axis=1)).reshape(-1) > 0)
        rows = (program.matrix[kept][:, :n], program.row_lower[kept], program.row_upper[kept])
        return cls.of(n, program.lower[:n], program.upper[:n], program.integer[:n], rows)

    @property
    def n(self) -> int:
        """Number of inputs."""
        return len(self.lower)

    @cached_property
    def sides(self) -> tuple[Floats, Floats]:
        """Rows as G x <= h, opened and scaled to a largest coefficient of 1; shapes (k, n) and (k,)."""
        upper, lower = np.isfinite(self.row_upper), np.isfinite(self.row_lower)
        rows = np.concatenate([self.matrix[upper], -self.matrix[lower]])
        limits = np.concatenate([self.row_upper[upper], -self.row_lower[lower]])
        limits = limits + OPEN * np.maximum(1.0, np.abs(limits))
        size = np.abs(rows).max(axis=1, initial=0.0)
        if (limits[size == 0] < 0).any():
            raise InfeasibleError("a row without inputs cannot hold", "check the rows.")
        rows, limits, size = rows[size > 0], limits[size > 0], size[size > 0]
        return rows / size[:, None], limits / size

    def allows(self, points: Floats) -> NDArray[np.bool_]:
        """Which points (P, n) lie in the set."""
        rows, limits = self.sides
        inside = ((points >= self.lower) & (points <= self.upper)).all(axis=1)
        inside &= (points[:, self.whole] == np.rint(points[:, self.whole])).all(axis=1)
        return inside & (points @ rows.T <= limits).all(axis=1)

    # ---- boxes
    def tightened(self, low: Floats, high: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Boxes (B, n) narrowed to what the rows leave, and which may still hold a point."""
        rows, limits = self.sides
        if not len(rows):
            return low, high, np.ones(len(low), dtype=bool)
        low, high = low.copy(), high.copy()
        alive = np.ones(len(low), dtype=bool)
        for _ in range(SWEEPS):
            for g, h in zip(rows, limits, strict=True):
                least = np.where(g > 0, g * low, g * high)
                slack = h - least.sum(axis=1)
                alive &= slack >= 0
                with np.errstate(divide="ignore", invalid="ignore"):
                    reach = np.maximum(slack, 0.0)[:, None] / np.abs(g)
                ends = np.where(g > 0, low + reach, high - reach)
                np.minimum(high, ends, out=high, where=g > 0)
                np.maximum(low, ends, out=low, where=g < 0)
            low[:, self.whole] = np.ceil(low[:, self.whole] - 1e-9)
            high[:, self.whole] = np.floor(high[:, self.whole] + 1e-9)
            alive &= (low <= high).all(axis=1)
            low, high = np.where(alive[:, None], low, self.lower), np.where(alive[:, None], high, self.lower)
        return low, high, alive

    def values(self, cost: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Upper bounds (R,) of cost (R, n) @ x over boxes (R, n) and the rows, and where they are reached in the box.

        Each row's price is set to its best while the others stand, a few rounds: any prices give a bound.
        """
        rows, limits = self.sides
        if not len(rows):
            up = cost > 0
            points = np.where(up, high, low)
            return np.einsum("rn,rn->r", cost, points), points
        left = cost.copy()
        prices = np.zeros((len(rows), len(cost)))
        for sweep in range(SWEEPS if len(rows) > 1 else 1):
            for i, (g, h) in enumerate(zip(rows, limits, strict=True)):
                if sweep:
                    left += prices[i][:, None] * g
                prices[i] = _best_price(left, g, h, low, high)
                left -= prices[i][:, None] * g
        reach = np.maximum(np.abs(self.lower), np.abs(self.upper))
        lift = prices.T @ limits + 1e-12 * (prices.T @ (np.abs(limits) + np.abs(rows) @ reach))
        points = np.where(left > 0, high, low)
        return np.einsum("rn,rn->r", left, points) + lift, points

    # ---- points
    @cached_property
    def _session(self) -> Session:
        return self._program(np.zeros(self.n, dtype=bool))

    @cached_property
    def _whole_session(self) -> Session:
        return self._program(self.whole)

    def _program(self, integer: NDArray[np.bool_]) -> Session:
        program = Program(
            cost=np.zeros(self.n), matrix=sparse.csr_array(self.matrix), row_lower=self.row_lower,
            row_upper=self.row_upper, lower=self.lower, upper=self.upper, integer=integer, maximise=True,
        )  # fmt: skip
        return Session.from_arrays(program, load_profile("exact"))

    def best(self, cost: Floats, low: Floats, high: Floats) -> tuple[float, Floats | None]:
        """A limit of cost (n,) @ x over one box and the rows, by HiGHS's prices, and its point.

        The limit is computed here from the prices, any of which give one; infinity and None where there are none.
        """
        session = self._session
        session.set_cost(np.arange(self.n), cost)
        session.set_bounds(np.arange(self.n), low, high)
        result = session.solve()
        if result.x is None or result.row_duals is None:
            # Nobody's word is taken that a box is empty: the box's own bound stays.
            return np.inf, None
        y = result.row_duals
        limit = np.where(y > 0, self.row_upper, self.row_lower)
        # A price on a side that has no limit is rounding.
        priced = (y != 0) & np.isfinite(limit)
        y, limit = np.where(priced, y, 0.0), np.where(priced, limit, 0.0)
        limit = limit + np.sign(y) * OPEN * np.maximum(1.0, np.abs(limit))
        left = cost - y @ self.matrix
        reach = np.maximum(np.abs(self.lower), np.abs(self.upper))
        slack = 1e-12 * float(np.abs(y) @ (np.abs(limit) + np.abs(self.matrix) @ reach))
        return float(np.maximum(left * low, left * high).sum() + y @ limit) + slack, np.clip(result.x, low, high)

    def corners(self, count: int, rng: np.random.Generator) -> Floats:
        """Points of the set where random directions end, whole where inputs are; (at most count, n).

        Raises
        ------
        InfeasibleError
            When the set is empty.
        """
        session = self._whole_session if self.whole.any() else self._session
        found = []
        for _ in range(count):
            session.set_cost(np.arange(self.n), rng.normal(size=self.n))
            session.set_bounds(np.arange(self.n), self.lower, self.upper)
            result = session.solve(seconds=10.0)
            if result.status in ("infeasible", "infeasible_or_unbounded"):
                raise InfeasibleError("no point of the box satisfies the rows", "relax a row or widen the box.")
            if result.x is not None:
                point = np.clip(result.x, self.lower, self.upper)
                found.append(np.where(self.whole, np.rint(point), point))
        points = np.unique(np.array(found).reshape(-1, self.n), axis=0)
        return points[self.allows(points)]

    def draws(self, count: int, rng: np.random.Generator) -> Floats:
        """Points spread over the set, (at most count, n)."""
        if not len(self.sides[0]):
            points = self.lower + (self.upper - self.lower) * rng.random((count, self.n))
            return np.where(self.whole, np.rint(points), points)
        corners = self.corners(min(4 * self.n + 8, 48), rng)
        if not len(corners):
            return corners
        # Few corners in a mixture reach the sides of the set, many its middle.
        shares = rng.gamma(rng.choice([0.05, 0.3, 1.0], size=(count, 1)), size=(count, len(corners)))
        points = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300) @ corners
        points = np.clip(np.where(self.whole, np.rint(points), points), self.lower, self.upper)
        return np.concatenate([corners, points[self.allows(points)]])

    def within(self, points: Floats, way: Floats) -> Floats:
        """The part of steps ``way`` from allowed points (P, n) that stays inside: along the sides that are touched."""
        rows, limits = self.sides
        way = np.where(self.whole, 0.0, way)
        if len(rows):
            touched = limits - points @ rows.T <= 1e-9
            size = (rows**2).sum(axis=1)
            for _ in range(4):
                way = np.where((points <= self.lower) & (way < 0) | (points >= self.upper) & (way > 0), 0.0, way)
                for i, g in enumerate(rows):
                    out = np.where(touched[:, i], np.maximum(way @ g, 0.0), 0.0)
                    way = way - (out / size[i])[:, None] * g
        new = np.clip(points + way, self.lower, self.upper)
        if not len(rows):
            return new
        step = new - points
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.maximum(limits - points @ rows.T, 0.0) / (step @ rows.T)
        share = np.where(step @ rows.T > 0, room, 1.0).min(axis=1, initial=1.0)
        return points + np.minimum(share, 1.0)[:, None] * step


def pyo_variables(body: Any) -> Any:
    """The variables of a Pyomo expression."""
    from pyomo.core.expr import identify_variables

    return identify_variables(body, include_fixed=True)


def _best_price(cost: Floats, g: Floats, h: float, low: Floats, high: Floats) -> Floats:
    """The price p >= 0 of g x <= h that makes max over each box of (cost - p g) x + p h least, shape (R,)."""
    at = np.flatnonzero(g)
    c, own = cost[:, at], g[at]
    a, b = low[:, at], high[:, at]
    # Just above price 0 a costless input stands where the row wants it.
    rising = np.where(c == 0, own < 0, c > 0)
    over = np.where(rising, b, a) @ own - h
    found = np.zeros(len(cost))
    rows = np.flatnonzero(over > 0)
    if not rows.size:
        return found
    turn = c[rows] / own
    turn = np.where(turn > 0, turn, np.inf)
    order = np.argsort(turn, axis=1)
    gain = np.abs(own) * (b[rows] - a[rows])
    taken = np.cumsum(np.take_along_axis(np.where(np.isfinite(turn), gain, 0.0), order, axis=1), axis=1)
    enough = taken >= over[rows][:, None]
    first = np.where(enough.any(axis=1), np.argmax(enough, axis=1), -1)
    price = np.take_along_axis(np.take_along_axis(turn, order, axis=1), np.maximum(first, 0)[:, None], axis=1)[:, 0]
    # Where no price is enough the box holds no point of the row; the last turn is as good as any.
    last = np.where(np.isfinite(turn), turn, 0.0).max(axis=1)
    found[rows] = np.where((first < 0) | ~np.isfinite(price), last, price)
    return found
