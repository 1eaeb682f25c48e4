"""The program over prices that arms' plans cut: its solution says which prices to try next, its rows how to mix plans.

    minimise   sum_q theta_q + sum_tr price_tr round_t limit_tr + sum_g past_g c_g - sum_g floor_g f_g + sum_g u_g
    subject to theta_q >= c' (value of plan j to cell q) - price' (its use)      for the plans known of each cell
               c_g = share_g + f_g + tilt_g,   sum of share over the free groups = 1 (or share = weights),
               u_g >= w_g U(v) - v share_g   at values v (welfare that bends).

It is the dual of the mixture of plans: the multipliers of its first rows are the parts of each plan in the best one.
Everything is kept near one: prices are counted per arm of a mean cell, weights per group.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from rmab_opt.errors import SolverError
from rmab_opt.settings.equity.arms import Arms, Plans
from rmab_opt.settings.equity.relaxed import Spread, Stage
from rmab_opt.solver import Program, Session, load_profile

__all__ = ["Master", "Mixture", "Multipliers"]

PENALTY = 30.0
"""Price of missing a limit at first, in units of the largest value. Misses are checked, and dearer then."""

WARM = 2
"""Steps from the last basis, in columns, before the program is solved from nothing: old bases can end in cycling."""

Multipliers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Share of the welfare (K,), prices of the floors (K,), tilt (K,) and prices of the coupling rows (T, R)."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Best mixture of the plans known: part of each plan and cell (J, Q), next multipliers, objective."""

    parts: np.ndarray
    next: Multipliers
    reached: float


class Master:
    """See the module.

    Parameters
    ----------
    arms
        Whose plans are mixed.
    per_mean
        What a cell's total adds to each group's mean, sparse (K, Q).
    spread
        Limits on inequality, of the first groups.
    limit, equal
        Of the resources, (T, R) and (R,).
    past
        (K,).
    worth
        Largest worth of one unit of each resource, (R,), in means of a group.
    """

    def __init__(
        self,
        arms: Arms,
        per_mean: sparse.csr_array,
        spread: Spread,
        limit: np.ndarray,
        equal: np.ndarray,
        past: np.ndarray,
        worth: np.ndarray,
    ) -> None:
        self.arms, self.per_mean, self.spread = arms, sparse.csc_array(per_mean), spread
        self.limit, self.equal, self.past = limit, equal, past
        n_groups, n_cells = per_mean.shape
        horizon, n_rows = limit.shape
        self.sizes = (n_groups, n_cells, horizon, n_rows)
        self.scale = float(n_groups)
        unit = np.maximum(arms.sums.sum() / n_cells, 1.0)
        self.per_price = np.full((horizon, n_rows), 1.0) / (unit * arms.round[:, None])
        """One unit of a price variable in the round's own units, times :attr:`scale`."""
        self.theta = np.arange(n_cells)
        self.weight = n_cells + np.arange(n_groups)
        self.share = self.weight + n_groups
        self.floor = self.share + n_groups
        self.bend = self.floor + n_groups
        begin = int(self.bend[-1]) + 1
        self.price = begin + np.arange(horizon * n_rows)
        self.uneven = begin + horizon * n_rows + np.arange(spread.matrix.shape[0])
        self.width = begin + horizon * n_rows + spread.matrix.shape[0]
        self.worth = np.maximum(worth, 1e-12) * self.scale
        self.penalty = PENALTY
        exact = load_profile("exact")
        steps = 1000 + WARM * self.width
        self.profile = replace(
            exact, options={**exact.options, "simplex_iteration_limit": steps}, at_limit="best_with_gap"
        )
        self.session = Session.from_arrays(self._begin(), self.profile)
        self.numbers = np.empty((0, n_cells), dtype=np.int64)
        """Row of each plan and cell, -1 where the cell's plan was known before, (J, Q)."""

    def _begin(self) -> Program:
        n_groups, _n_cells, _horizon, _n_rows = self.sizes
        one, eye = np.arange(n_groups), np.ones(n_groups)
        tilt = sparse.coo_array(self.spread.matrix[:, : self.spread.n_groups].T)
        pairs = sparse.coo_array(self.spread.matrix[:, self.spread.n_groups :].T)
        row = np.concatenate([one, one, one, tilt.row, np.full(n_groups, n_groups), n_groups + 1 + pairs.row])
        column = np.concatenate(
            [self.weight, self.share, self.floor, self.uneven[tilt.col], self.share, self.uneven[pairs.col]]
        )
        data = np.concatenate([eye, -eye, -eye, -tilt.data, eye, pairs.data])
        height = n_groups + 1 + self.spread.n_pairs
        lower, upper = np.zeros(self.width), np.full(self.width, np.inf)
        lower[self.theta], lower[self.weight] = -np.inf, -np.inf
        low, high = self._price_box()
        lower[self.price], upper[self.price] = low, high
        cost = np.zeros(self.width)
        cost[self.theta] = 1.0
        cost[self.weight] = self.past
        cost[self.price] = (self.limit * self.per_price * self.arms.round[:, None]).ravel()
        return Program(
            cost=cost,
            matrix=sparse.csr_array((data, (row, column)), shape=(height, self.width)),
            row_lower=np.concatenate([np.zeros(n_groups), [-np.inf], np.full(self.spread.n_pairs, -np.inf)]),
            row_upper=np.concatenate([np.zeros(n_groups), [np.inf], np.zeros(self.spread.n_pairs)]),
            lower=lower,
            upper=upper,
            integer=np.zeros(self.width, dtype=bool),
            maximise=False,
        )

    def _price_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest value of the price variables."""
        box = (np.broadcast_to(self.penalty * self.worth, self.limit.shape) / self.per_price).ravel()
        return np.where(np.tile(self.equal, len(self.limit)), -box, 0.0), box

    def dearer(self, stage: Stage) -> bool:
        """Let missing a limit cost more; False when it costs more than any plan could gain already."""
        if self.penalty > 1e5:
            return False
        self.penalty *= PENALTY
        self.session.set_bounds(self.price, *self._price_box())
        self.stage(stage)
        return True

    def stage(self, stage: Stage) -> None:
        """Set what is maximised and which floors hold."""
        session, n_groups = self.session, self.sizes[0]
        finite = np.isfinite(stage.floors)
        session.set_cost(self.floor, np.where(finite, -np.where(finite, stage.floors, 0.0), 0.0))
        session.set_bounds(self.floor, np.zeros(n_groups), np.where(finite, self.penalty * self.scale, 0.0))
        bends = stage.curved
        if stage.free is not None:
            low, high, total = np.zeros(n_groups), np.where(stage.free, np.inf, 0.0), self.scale
            session.set_rows(np.array([n_groups]), np.array([total]), np.array([total]))
        else:
            assert stage.weights is not None
            low = np.zeros(n_groups) if bends else stage.weights * self.scale
            high = np.where(stage.weights > 0, np.inf, 0.0) if bends else low
            session.set_rows(np.array([n_groups]), np.array([-np.inf]), np.array([np.inf]))
        session.set_bounds(self.share, low, high)
        session.set_cost(self.bend, np.full(n_groups, float(bends)))
        # A group that only has a floor counts for nothing in the welfare: no row would hold its bend.
        counted = bends and stage.weights is not None
        limit = np.where(stage.weights > 0, np.inf, 0.0) if counted else np.zeros(n_groups)
        session.set_bounds(self.bend, -limit, limit)

    def bend_at(self, stage: Stage, values: np.ndarray) -> None:
        """Rows u_g >= w_g U(v) - v share_g at group values v (K,)."""
        assert stage.welfare is not None
        assert stage.weights is not None
        shrink = 1.0 / np.maximum(1.0, values)
        one = np.arange(self.sizes[0])
        matrix = sparse.csr_array(
            (
                np.concatenate([shrink, shrink * values]),
                (np.concatenate([one, one]), np.concatenate([self.bend, self.share])),
            ),
            shape=(len(one), self.width),
        )
        height = np.where(stage.weights > 0, self.scale * stage.weights * stage.welfare.each(values), -np.inf)
        height = np.where(stage.weights > 0, height * shrink, -np.inf)
        self.session.add_rows(matrix, height, np.full(len(one), np.inf))

    def add(self, plans: Plans, cells: np.ndarray) -> None:
        """Know the plans of some cells (bool (Q,))."""
        _n_groups, n_cells, _horizon, n_rows = self.sizes
        place = np.cumsum(cells) - 1
        rows = [place[cells]]
        columns = [self.theta[cells]]
        data = [np.ones(int(cells.sum()))]
        means = self.per_mean[:, np.flatnonzero(cells)].tocoo()
        rows.append(means.col)
        columns.append(self.weight[means.row])
        data.append(-means.data * plans.values[cells][means.col])
        pairs = np.flatnonzero(cells[self.arms.pair_cell])
        of_cell, of_row = self.arms.pair_cell[pairs], self.arms.pair_row[pairs]
        use = plans.use[pairs] * (self.per_price * self.arms.round[:, None])[:, of_row].T
        at, when = np.nonzero(use)
        rows.append(place[of_cell[at]])
        columns.append(self.price[when * n_rows + of_row[at]])
        data.append(use[at, when])
        count = int(cells.sum())
        matrix = sparse.csr_array(
            (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns))), shape=(count, self.width)
        )
        numbers = np.full((1, n_cells), -1, dtype=np.int64)
        numbers[0, cells] = self.session.add_rows(matrix, np.zeros(count), np.full(count, np.inf))
        self.numbers = np.concatenate([self.numbers, numbers])

    def solve(self, stage: Stage) -> Mixture:
        """Best mixture of the plans known.

        Raises
        ------
        SolverError
            When the program is not solved.
        """
        result = self.session.solve()
        if result.x is None or result.row_duals is None or result.status != "optimal":
            # The same program from nothing does not cycle; the next solve begins from nothing too.
            result = Session.from_arrays(self.session.program, load_profile("exact")).solve()
            self.session = Session.from_arrays(self.session.program, self.profile)
        if result.x is None or result.row_duals is None:
            raise SolverError(f"the mixture was not solved: {result.status}", "plan by the program instead.")
        x = result.x
        known = self.numbers >= 0
        parts = np.zeros(self.numbers.shape)
        parts[known] = np.maximum(result.row_duals[self.numbers[known]], 0.0)
        parts /= np.maximum(parts.sum(axis=0), 1e-300)
        horizon, n_rows = self.limit.shape
        share, floor = np.maximum(x[self.share], 0.0) / self.scale, np.maximum(x[self.floor], 0.0) / self.scale
        tilt = np.zeros(self.sizes[0])
        tilt[: self.spread.n_groups] = self.spread.tilt(x[self.uneven] / self.scale)
        if stage.free is not None:
            share = np.where(stage.free, share, 0.0)
            share = share / share.sum() if share.sum() > 0 else stage.free / stage.free.sum()
        elif not stage.curved:
            assert stage.weights is not None
            share = stage.weights
        else:
            assert stage.weights is not None
            share = np.where(stage.weights > 0, np.maximum(share, 1e-12), 0.0)
        floor = np.where(np.isfinite(stage.floors), floor, 0.0)
        prices = x[self.price].reshape(horizon, n_rows) * self.per_price / self.scale
        prices = np.where(self.equal, prices, np.maximum(prices, 0.0))
        return Mixture(parts, (share, floor, tilt, prices), float(result.objective) / self.scale)
