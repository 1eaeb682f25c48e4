"""What couples arms in a round as priced rows; rosters and routes give theirs when a plan breaks them.

An action set with variables of its own (who serves whom, which way) is a polyhedron over actions z and variables w,
lower <= act z + extra w <= upper. Whatever multipliers y are put on its rows, every allowed z keeps

    (act' y) z  <=  sum of y+ upper - y- lower  +  sum over w of the largest -(extra' y) w within its bounds,

a row on z alone, computed here in numpy: no number is the solver's word. Rows are added where the plan breaks them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from rmab_opt.errors import CapabilityError, SolverError
from rmab_opt.planning.coupling import Coupling
from rmab_opt.planning.occupancy import Polyhedron
from rmab_opt.solver import Program, Session, load_profile
from rmab_opt.solver.polytope import row_reach

__all__ = ["Resources", "Separator"]

BROKEN = 1e-7
"""Missing part of a row, in its own unit, from which the plan breaks it."""


@dataclass(frozen=True, eq=False)
class Resources:
    """R rows: sum over arms of cost is at most (or exactly) the limit, in every round.

    ``matrix`` is (R, N * A), or (R, N * S * A) where costs depend on the state; ``limit`` (T, R), ``equal`` bool (R,),
    ``allowed`` bool (N, A).
    """

    matrix: sparse.csr_array
    limit: np.ndarray
    equal: np.ndarray
    allowed: np.ndarray
    by_state: bool = False

    @property
    def n_rows(self) -> int:
        """R."""
        return self.matrix.shape[0]

    @classmethod
    def of(cls, rows: Coupling | Polyhedron, horizon: int, shape: tuple[int, int, int]) -> Resources:
        """Rows on actions alone; ``shape`` is (N, A, S)."""
        n_arms, n_actions, _ = shape
        if isinstance(rows, Coupling):
            by_state = rows.cost.by_state
            matrix = rows.cost.for_arms(n_arms)
            limit = np.broadcast_to(rows.limit, (horizon, rows.n_rows))
            return cls(matrix, limit, rows.equal, np.ones((n_arms, n_actions), dtype=bool), by_state)
        allowed = np.zeros((n_arms, n_actions), dtype=bool)
        allowed[:, 0] = True
        allowed[rows.arm[rows.z_upper > 0], rows.action[rows.z_upper > 0]] = True
        plain = np.flatnonzero(np.diff(sparse.csr_array(rows.extra).indptr) == 0)
        act = sparse.csr_array(rows.act)[plain]
        least, most = row_reach(act, rows.arm)
        slack = 1e-9 * np.maximum(1.0, np.maximum(np.abs(least), np.abs(most)))
        lower, upper = rows.lower[plain], rows.upper[plain]
        exact = lower == upper
        caps = exact | (upper < most - slack)
        floors = ~exact & (lower > least + slack)
        matrix = sparse.vstack([act[caps], -act[floors]], format="csr")
        limit = np.concatenate([upper[caps], -lower[floors]])
        return cls(
            _by_action(matrix, rows, n_arms, n_actions),
            np.broadcast_to(limit, (horizon, len(limit))),
            np.concatenate([exact[caps], np.zeros(int(floors.sum()), dtype=bool)]),
            allowed,
        )

    def joined(self, matrix: sparse.csr_array, limit: np.ndarray) -> Resources:
        """With more rows on actions, (r, N * A) and (r,)."""
        horizon = len(self.limit)
        return Resources(
            sparse.csr_array(sparse.vstack([self.matrix, matrix])),
            np.concatenate([self.limit, np.broadcast_to(limit, (horizon, len(limit)))], axis=1),
            np.concatenate([self.equal, np.zeros(len(limit), dtype=bool)]),
            self.allowed,
            self.by_state,
        )

    def of_types(self, kinds: np.ndarray, n_states: int, n_actions: int) -> sparse.csr_array:
        """Columns of some arms in the order (action, state, arm), (R, A * S or A * M)."""
        depth = n_states if self.by_state else 1
        order = (
            kinds[None, None, :] * (depth * n_actions)
            + np.arange(depth)[None, :, None] * n_actions
            + np.arange(n_actions)[:, None, None]
        )
        return sparse.csr_array(sparse.csc_array(self.matrix)[:, order.ravel()])

    def signature(self, n_arms: int, n_states: int, n_actions: int) -> np.ndarray:
        """Numbers (N, S or 1, A) that are alike where arms cost alike."""
        weight = np.random.default_rng(0).normal(size=self.n_rows)
        depth = n_states if self.by_state else 1
        marks = (self.matrix.T @ weight).reshape(n_arms, depth, n_actions)
        return marks + np.where(self.allowed, 0.0, 1.0)[:, None, :]


def _by_action(matrix: sparse.csr_array, rows: Polyhedron, n_arms: int, n_actions: int) -> sparse.csr_array:
    """Rows on columns z as rows on the arms' actions, (R, N * A)."""
    entries = sparse.coo_array(matrix)
    place = rows.arm[entries.col] * n_actions + rows.action[entries.col]
    return sparse.csr_array((entries.data, (entries.row, place)), shape=(matrix.shape[0], n_arms * n_actions))


class Separator:
    """Finds rows that a plan breaks, of an action set with variables of its own."""

    def __init__(self, rows: Polyhedron, n_arms: int, n_actions: int) -> None:
        keep = np.flatnonzero(np.diff(sparse.csr_array(rows.extra).indptr) > 0)
        self.rows, self.n_arms, self.n_actions = rows, n_arms, n_actions
        self.act = sparse.csr_array(rows.act)[keep]
        self.extra = sparse.csr_array(rows.extra)[keep]
        self.lower, self.upper = rows.lower[keep], rows.upper[keep]
        size = len(keep)
        eye = sparse.eye_array(size)
        self.program = Program(
            cost=np.concatenate([np.zeros(rows.n_extra), np.ones(2 * size)]),
            matrix=sparse.csr_array(sparse.hstack([self.extra, eye, -eye])),
            row_lower=self.lower,
            row_upper=self.upper,
            lower=np.concatenate([rows.w_lower, np.zeros(2 * size)]),
            upper=np.concatenate([rows.w_upper, np.full(2 * size, np.inf)]),
            integer=np.zeros(rows.n_extra + 2 * size, dtype=bool),
            maximise=False,
        )
        self.session = Session.from_arrays(self.program, load_profile("default"))

    def broken(self, actions: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
        """Rows (r, N * A) with limits (r,) that hold for all allowed actions and not for ``actions`` (T, A, N)."""
        found: list[np.ndarray] = []
        limits: list[float] = []
        numbers = np.arange(len(self.lower))
        for given in actions:
            z = np.minimum(given[self.rows.action, self.rows.arm].astype(float), 1.0)
            if any(float(row @ z) > limit + BROKEN for row, limit in zip(found, limits, strict=True)):
                continue
            shift = self.act @ z
            self.session.set_rows(numbers, self.lower - shift, self.upper - shift)
            result = self.session.solve()
            if result.x is None or result.row_duals is None:
                raise SolverError(f"rows were not looked for: {result.status}", "use method='program'.")
            if result.objective <= BROKEN:
                continue
            for sign in (1.0, -1.0):
                row, limit = self._row(sign * result.row_duals)
                if float(row @ z) > limit + 0.5 * BROKEN:
                    found.append(row)
                    limits.append(limit)
                    break
            else:
                raise CapabilityError(
                    "equity by prices under these rows", self.rows, ("use method='program'", "drop rosters and routes")
                )
        size = len(self.rows.arm)
        matrix = sparse.csr_array(np.array(found).reshape(len(found), size))
        return _by_action(matrix, self.rows, self.n_arms, self.n_actions), np.array(limits)

    def _row(self, price: np.ndarray) -> tuple[np.ndarray, float]:
        """The row that multipliers give, (C,), and its limit, rounded outward."""
        price = np.where(np.abs(price) > 1e-9, price, 0.0)
        price = np.where((price > 0) & np.isinf(self.upper), 0.0, price)
        price = np.where((price < 0) & np.isinf(self.lower), 0.0, price)
        sides = np.where(price > 0, self.upper, self.lower)
        own = -(self.extra.T @ price)
        own = np.where(np.abs(own) > 1e-12, own, 0.0)
        ends = np.where(own > 0, self.rows.w_upper, self.rows.w_lower)
        used, moved = price != 0, own != 0
        limit = float(price[used] @ sides[used]) + float(own[moved] @ ends[moved])
        size = float(np.abs(price[used]) @ np.abs(sides[used])) + float(np.abs(own[moved] * ends[moved]).sum())
        return self.act.T @ price, limit + 1e-13 * size
