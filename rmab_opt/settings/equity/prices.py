"""The relaxed equity problem by prices: weights on groups and a price a resource and round make the arms independent.

For weights c_g and prices p every arm solves its own small problem; arms of the same groups (a cell) together give
one column: their groups' values and their use of the resources. A small program mixes the columns of every cell
within the limits and gives the next weights and prices. Each price vector proves an upper limit,

    sum_arms V_arm(c, p) + rent(p) + c . past - floors . their prices + conjugate of the welfare at its share of c,

where c is the sum of the welfare's share, the floors' prices and the tilt that limits on inequality add;
the mixture is a plan that attains its objective, and the difference is a true gap.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.planning.coupling import Coupling, merge_identical
from rmab_opt.planning.occupancy import Polyhedron
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.relaxed import Answer, Spread, Stage
from rmab_opt.solver import Program, Session, load_profile

__all__ = ["PricedGroups"]

CACHE_BYTES = 1 << 21
"""Kernels of one chunk of arms."""

SMOOTHING = 0.5
"""Weight of the best prices so far in the next ones; 0 is plain column generation, which zigzags."""

MOST_ROUNDS = 600
"""Mixtures until the search gives up and returns the gap it has."""

KEPT_FANS = 60
"""Tangents kept a group: older ones are far from where the optimum is."""

PENALTY = 1e3
"""Price of missing a limit, in units of the largest value: above every multiplier met in practice. Misses are
checked, never assumed away."""

Multipliers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Share of the welfare (K,), prices of the floors (K,), tilt (K,) and prices of the coupling rows (T, R)."""


class PricedGroups:
    """Arms under weights and prices, and the mixture of their policies.

    Parameters are those of :class:`~rmab_opt.settings.equity.program.EquityProgram`; ``rows`` must be resources.

    Raises
    ------
    CapabilityError
        When the action set brings variables of its own, such as rosters; the program takes those.
    """

    def __init__(
        self,
        transition: np.ndarray,
        reward: np.ndarray,
        start: np.ndarray,
        groups: Groups,
        rows: Coupling | Polyhedron,
        *,
        horizon: int,
        discount: float,
        past: np.ndarray | None = None,
        gini: float | None = None,
        ratio: float | None = None,
        arm_floors: np.ndarray | None = None,
    ) -> None:
        coupling = rows if isinstance(rows, Coupling) else rows.coupling(*transition.shape[:2])
        if coupling is None:
            raise CapabilityError("equity by prices", rows, ("use method='program'", "drop rosters and routes"))
        assert coupling.equal is not None
        self.horizon, self.n_groups = horizon, len(groups)
        self.spread = Spread(len(groups), gini, ratio)
        past = np.zeros(len(groups)) if past is None else np.asarray(past, dtype=float)
        # An arm with a floor is one more group, of itself, that the welfare does not look at.
        floors = np.full(len(transition), -np.inf) if arm_floors is None else np.asarray(arm_floors, dtype=float)
        guarded = np.flatnonzero(np.isfinite(floors))
        self.arm_floors = floors[guarded]
        alone = np.zeros((len(guarded), len(transition)), dtype=bool)
        alone[np.arange(len(guarded)), guarded] = True
        names = tuple(f"arm {n}" for n in guarded)
        self.groups = groups = Groups((*groups.names, *names), np.concatenate([groups.member, alone]))
        self.past = np.concatenate([past, np.zeros(len(guarded))])
        cell, self.pattern = groups.cells
        n_arms, n_actions, n_states, _ = transition.shape
        own = np.broadcast_to(coupling.cost, (coupling.n_rows, n_arms, *coupling.cost.shape[2:]))
        marks = np.broadcast_to(cell.astype(float)[None, :, None, None], (1, *own.shape[1:]))
        merged = merge_identical(transition, reward, np.concatenate([own, marks]), start)
        kinds = merged.representative
        # Arms of a cell stand together, so that sums over cells are sums over slices.
        order = np.argsort(cell[kinds], kind="stable")
        kinds, self.start = kinds[order], merged.start[order]
        self.cell = cell[kinds]
        self.count = merged.count[order]
        self.kernel = np.ascontiguousarray(transition[kinds]).reshape(len(kinds), n_actions * n_states, n_states)
        self.reward = np.ascontiguousarray(reward[kinds].transpose(0, 2, 1))
        cost = coupling.cost if coupling.cost.shape[1] == 1 else coupling.cost[:, kinds]
        self.cost = np.ascontiguousarray(cost.transpose(0, 1, 3, 2))
        self.first = np.searchsorted(self.cell, np.arange(self.pattern.shape[1]))
        self.n_cells, self.n_rows = self.pattern.shape[1], coupling.n_rows
        self.discount = discount
        self.round = discount ** np.arange(horizon)
        self.limit = np.broadcast_to(coupling.limit, (horizon, coupling.n_rows))
        self.equal = np.broadcast_to(coupling.equal, (horizon, coupling.n_rows))
        self.per_mean = self.pattern / groups.sizes[:, None]
        """(K, cells): what a cell's total adds to the mean of each group."""
        self.chunk = max(16, CACHE_BYTES // (8 * n_actions * n_states * n_states))
        self.top = float(np.abs(reward).max()) * horizon + 1e-9
        self._values: list[np.ndarray] = []
        self._uses: list[np.ndarray] = []
        self._acted: list[np.ndarray] = []
        self.evaluations = 0
        self._seed()

    # ---- the arms
    def evaluate(self, weights: np.ndarray, prices: np.ndarray) -> float:
        """Sum of the arms' values under group weights (K,) and prices (T, R); keeps their policies as columns."""
        worth = (weights @ self.per_mean)[self.cell]
        n_types, n_states = self.start.shape
        n_actions = self.kernel.shape[1] // n_states
        total = 0.0
        paid = np.zeros(n_types)
        use = np.zeros((self.horizon, self.n_rows, n_types))
        acted = np.zeros((self.horizon, n_types))
        for begin in range(0, n_types, self.chunk):
            part = slice(begin, min(begin + self.chunk, n_types))
            kernel, size = self.kernel[part], part.stop - begin
            reward = self.reward[part]
            scaled = reward * worth[part, None, None]
            cost = self.cost if self.cost.shape[1] == 1 else self.cost[:, part]
            value = np.zeros((size, n_states))
            choice = np.empty((self.horizon, size, n_states), dtype=np.int8)
            for t in range(self.horizon - 1, -1, -1):
                q = np.matmul(kernel, value[:, :, None]).reshape(size, n_actions, n_states)
                q *= self.discount
                q += scaled
                q -= np.tensordot(prices[t], cost, axes=(0, 0))
                value = q[:, 0].copy()
                taken = np.zeros((size, n_states), dtype=np.int8)
                for action in range(1, n_actions):
                    better = q[:, action] > value
                    taken[better] = action
                    np.maximum(value, q[:, action], out=value)
                choice[t] = taken
            total += float((self.start[part] * value).sum())
            mass = self.start[part]
            for t in range(self.horizon):
                flow = np.stack([np.where(choice[t] == action, mass, 0.0) for action in range(n_actions)], axis=1)
                paid[part] += self.round[t] * (flow * reward).sum(axis=(1, 2))
                use[t][:, part] = (cost * flow).sum(axis=(2, 3))
                acted[t, part] = flow[:, 1:].sum(axis=(1, 2))
                if t + 1 < self.horizon:
                    mass = np.matmul(flow.reshape(size, 1, n_actions * n_states), kernel)[:, 0]
        self._values.append(np.add.reduceat(paid, self.first))
        self._uses.append(np.add.reduceat(use, self.first, axis=2))
        self._acted.append(np.add.reduceat(acted, self.first, axis=1))
        self.evaluations += 1
        return total

    def bound(
        self, stage: Stage, share: np.ndarray, floor_price: np.ndarray, tilt: np.ndarray, prices: np.ndarray
    ) -> float:
        """Proven upper limit of a stage at multipliers."""
        weights = share + floor_price + tilt
        arms = self.evaluate(weights, prices)
        rent = float((self.round[:, None] * prices * self.limit).sum())
        finite = np.isfinite(stage.floors)
        value = arms + rent + float(weights @ self.past) - float(floor_price[finite] @ stage.floors[finite])
        if stage.curved:
            assert stage.welfare is not None
            assert stage.weights is not None
            seen = stage.weights > 0
            at = stage.welfare.inverse_slope(share[seen] / stage.weights[seen])
            value += float(stage.weights[seen] @ stage.welfare.each(at) - share[seen] @ at)
        return value

    def _seed(self) -> None:
        """First columns: every group weighs the same per arm, at constant prices from nothing to prohibitive."""
        span = float(np.ptp(self.reward)) + 1e-9
        smallest = np.array([np.abs(row[row != 0]).min() if (row != 0).any() else 1.0 for row in self.cost])
        for height in (self.horizon + 1.0, 1.0, 0.3, 0.1, 0.0):
            prices = np.broadcast_to(height * span / smallest, (self.horizon, self.n_rows))
            self.evaluate(self.groups.sizes, prices)

    # ---- the mixture
    def solve(self, stage: Stage, *, tolerance: float = 1e-7) -> Answer:
        """Best group values of a stage, to a relative gap; see :class:`Answer`.

        Raises
        ------
        InfeasibleError
            When no mixture keeps the limits and floors.
        SolverError
            When the gap does not close within the evaluations allowed.
        """
        stage = self._with_arms(stage)
        upper, best, kept = np.inf, -np.inf, None
        centre: Multipliers | None = None
        tangents = list(np.geomspace(1e-3, 1.0, 25) * self.top) if stage.curved else []
        fans = [np.full(len(self.groups), at) for at in tangents]
        rounds = 0
        while rounds < MOST_ROUNDS:
            rounds += 1
            values, missed, duals, acted, reached = self._mix(stage, fans)
            if stage.curved:
                fans = [*fans[:25], *fans[25:][-KEPT_FANS:], values]
            if missed <= 1e-9 * max(1.0, float(np.abs(self.limit).max())):
                height = stage.objective(values)
                if height > best:
                    best, kept = height, (values, acted)
            gap = tolerance * max(1.0, abs(best)) if np.isfinite(best) else -np.inf
            if upper - best <= gap:
                break
            if kept is None and missed > 1e-6 and upper - reached <= 1e-6 * max(1.0, abs(reached)):
                # The mixture is proven best although it pays the penalty: no mixture keeps all limits.
                break
            # Prices between the best so far and the newest; where that proves nothing new, the newest alone.
            points = [duals] if centre is None else [_between(centre, duals), duals]
            for point in points:
                found = self.bound(stage, *point)
                if found < upper:
                    improved = upper - found > 1e-3 * (upper - best) if np.isfinite(upper) else True
                    upper, centre = found, point
                    if improved:
                        break
            if upper - best <= gap:
                break
        if kept is None:
            raise InfeasibleError("no plan keeps these floors and limits", "lower a floor or raise a limit.")
        assert centre is not None
        share, floor_price, tilt, prices = centre
        own, (values, acted) = slice(self.n_groups), kept
        limits = best, max(upper, best)
        return Answer(values[own], *limits, share[own], floor_price[own], tilt[own], prices, acted[:, own], rounds)

    def _with_arms(self, stage: Stage) -> Stage:
        """The stage with a group for every arm that has a floor."""
        if not len(self.arm_floors):
            return stage
        nought = np.zeros(len(self.arm_floors))
        return Stage(
            np.concatenate([stage.floors, self.arm_floors]),
            None if stage.free is None else np.concatenate([stage.free, nought > 0]),
            None if stage.weights is None else np.concatenate([stage.weights, nought]),
            stage.welfare,
        )

    def _mix(self, stage: Stage, fans: list[np.ndarray]) -> tuple[np.ndarray, float, Multipliers, np.ndarray, float]:
        """Best mixture of the columns so far: values, missed limits, multipliers, use by group, penalised objective."""
        n_groups, n_cells, n_columns = len(self.groups), self.n_cells, len(self._values)
        n_limits = self.horizon * self.n_rows
        value, use = np.array(self._values), np.array(self._uses)
        n_theta = n_columns * n_cells
        cell = np.tile(np.arange(n_cells), n_columns)
        scale = self.round[:, None, None]
        limits = (use * scale).reshape(n_columns, n_limits, n_cells).transpose(1, 0, 2).reshape(n_limits, n_theta)
        means = (value[:, None, :] * self.per_mean).transpose(1, 0, 2).reshape(n_groups, n_theta)
        v0, z0, u0 = n_theta, n_theta + n_groups, n_theta + n_groups + 1
        slack = u0 + n_groups
        uneven = slack + 2 * n_limits + n_groups
        pairs = uneven + self.spread.matrix.shape[0]
        width = pairs + self.spread.n_pairs
        rows: list[sparse.csr_array] = []
        low: list[np.ndarray] = []
        high: list[np.ndarray] = []

        def add(matrix: sparse.sparray, lower: np.ndarray, upper: np.ndarray) -> None:
            rows.append(sparse.csr_array(matrix))
            low.append(lower)
            high.append(upper)

        def place(*blocks: tuple[int, np.ndarray | sparse.sparray]) -> sparse.csr_array:
            height = blocks[0][1].shape[0]
            parts, at = [], 0
            for begin, block in blocks:
                if begin > at:
                    parts.append(sparse.csr_array((height, begin - at)))
                parts.append(sparse.csr_array(block))
                at = begin + block.shape[1]
            if at < width:
                parts.append(sparse.csr_array((height, width - at)))
            return sparse.csr_array(sparse.hstack(parts))

        eye = sparse.eye_array(n_groups)
        one = np.ones(n_cells)
        pick = sparse.csr_array((np.ones(n_theta), (cell, np.arange(n_theta))), shape=(n_cells, n_theta))
        add(place((0, pick)), one, one)
        room = (self.limit * self.round[:, None]).ravel()
        steps = sparse.eye_array(n_limits)
        add(
            place((0, limits), (slack, -steps), (slack + n_limits, steps)),
            np.where(self.equal.ravel(), room, -np.inf),
            room,
        )
        add(place((0, means), (v0, -eye)), -self.past, -self.past)
        open_ = np.full(n_groups, np.inf)
        add(place((v0, eye), (slack + 2 * n_limits, eye)), stage.floors, open_)
        free = np.zeros(n_groups, dtype=bool) if stage.free is None else stage.free
        add(place((v0, -eye), (z0, np.ones((n_groups, 1)))), -open_, np.where(free, 0.0, np.inf))
        matrix = self.spread.matrix
        compared = self.n_groups
        spread = place(
            (v0, matrix[:, :compared]), (uneven, sparse.eye_array(matrix.shape[0])), (pairs, matrix[:, compared:])
        )
        add(spread, np.zeros(matrix.shape[0]), np.full(matrix.shape[0], np.inf))
        cost = np.zeros(width)
        if stage.curved:
            assert stage.welfare is not None
            for at in fans:
                at = np.maximum(at, 1e-6 * self.top)
                slope, height = stage.welfare.slope(at), stage.welfare.each(at)
                shrink = 1.0 / np.maximum(1.0, slope)
                add(
                    place((v0, sparse.diags_array(-slope * shrink)), (u0, sparse.diags_array(shrink))),
                    -open_,
                    (height - slope * at) * shrink,
                )
        if stage.free is not None:
            cost[z0] = 1.0
        else:
            assert stage.weights is not None
            begin = u0 if stage.curved else v0
            cost[begin : begin + n_groups] = stage.weights
        # Missing a limit costs more than any group could gain by it.
        penalty = PENALTY * max(1.0, float(np.abs(cost).max()))
        cost[slack:pairs] = -penalty
        lower = np.zeros(width)
        lower[v0:z0] = -np.inf
        upper = np.full(width, np.inf)
        lower[z0], upper[z0] = (-np.inf, np.inf) if free.any() else (0.0, 0.0)
        lower[u0:slack], upper[u0:slack] = (-np.inf, np.inf) if stage.curved else (0.0, 0.0)
        if not self.equal.any():
            upper[slack + n_limits : slack + 2 * n_limits] = 0.0
        program = Program(
            cost=cost,
            matrix=sparse.csr_array(sparse.vstack(rows)),
            row_lower=np.concatenate(low),
            row_upper=np.concatenate(high),
            lower=lower,
            upper=upper,
            integer=np.zeros(width, dtype=bool),
            maximise=True,
        )
        result = Session.from_arrays(program, load_profile("exact")).solve()
        if result.x is None or result.row_duals is None:
            raise SolverError(f"the mixture was not solved: {result.status}", "plan by the program instead.")
        x, dual = result.x, result.row_duals
        at = n_cells + n_limits
        prices = dual[n_cells:at].reshape(self.horizon, self.n_rows)
        prices = np.where(self.equal, prices, np.maximum(prices, 0.0))
        total = -dual[at : at + n_groups]
        floor_price = np.where(
            np.isfinite(stage.floors), np.maximum(-dual[at + n_groups : at + 2 * n_groups], 0.0), 0.0
        )
        share = np.maximum(dual[at + 2 * n_groups : at + 3 * n_groups], 0.0)
        after = at + 3 * n_groups
        tilt = np.zeros(n_groups)
        tilt[:compared] = self.spread.tilt(-dual[after : after + matrix.shape[0]])
        if stage.weights is not None:
            curved = np.where(stage.weights > 0, np.maximum(total - floor_price - tilt, 1e-12), 0.0)
            share = curved if stage.curved else stage.weights
        else:
            share = np.where(free, share, 0.0)
            share = share / share.sum() if share.sum() > 0 else free / free.sum()
        theta = np.maximum(x[:n_theta], 0.0)
        acted = (
            (np.array(self._acted).transpose(1, 0, 2).reshape(self.horizon, n_theta) * theta)
            .reshape(self.horizon, n_columns, n_cells)
            .sum(axis=1)
        )
        values = self.past + means @ theta
        missed = float(x[slack:pairs].sum())
        return values, missed, (share, floor_price, tilt, prices), acted @ self.pattern.T, float(result.objective)


def _between(centre: Multipliers, newest: Multipliers) -> Multipliers:
    share, floor_price, tilt, prices = (
        SMOOTHING * old + (1.0 - SMOOTHING) * new for old, new in zip(centre, newest, strict=True)
    )
    return share, floor_price, tilt, prices


def check_gap(tolerance: float) -> None:
    """Refuse a gap that arithmetic cannot reach."""
    if not 1e-12 <= tolerance < 1.0:
        raise ModelError(f"tolerance is {tolerance}", "give a relative gap between 1e-12 and 1.")
