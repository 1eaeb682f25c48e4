"""The relaxed equity problem as one linear program over expected state-action frequencies, solved by HiGHS."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from scipy import sparse

from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.costs import Costs
from rmab_opt.planning.coupling import Coupling, merge_identical
from rmab_opt.planning.occupancy import Polyhedron, occupancy_program
from rmab_opt.settings.equity.cohort import Cohort, Limits
from rmab_opt.settings.equity.guarantees import Guarantee, counted
from rmab_opt.settings.equity.relaxed import Answer, Spread, Stage
from rmab_opt.solver import Program, Session, load_profile
from rmab_opt.solver.result import Result

__all__ = ["EquityProgram", "LimitRows", "columns_of"]

MOST_TANGENTS = 200
"""Rounds of tangents; ten to thirteen reach 1e-7."""

LARGE_COLUMNS = 10_000
"""Columns from which HiGHS solves by interior points: 17,000 with rosters took 4 s where its simplex method did not end
in five minutes, 58,000 (60 diabetes patients) 4.5 s against 23 s, 288,000 (300 patients) 95 s."""

MODES = ("step", "constant", "total", "capacity")


class _Rows:
    """Rows of a program, collected as coordinates."""

    def __init__(self, base: Program) -> None:
        matrix = sparse.coo_array(base.matrix)
        self.count = matrix.shape[0]
        self.parts = [(matrix.row, matrix.col, matrix.data)]
        self.lower, self.upper = [base.row_lower], [base.row_upper]

    def add(self, low: np.ndarray, high: np.ndarray, *entries: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """New rows with limits; entries are (row from 0, column, coefficient). Returns the row numbers."""
        numbers = self.count + np.arange(len(low))
        for row, column, value in entries:
            value = np.broadcast_to(value, np.shape(column))
            keep = value != 0
            self.parts.append((self.count + np.asarray(row)[keep], np.asarray(column)[keep], value[keep]))
        self.count += len(low)
        self.lower.append(np.asarray(low, dtype=float))
        self.upper.append(np.asarray(high, dtype=float))
        return numbers

    def matrix(self, width: int) -> sparse.csr_array:
        row, column, value = (np.concatenate(side) for side in zip(*self.parts, strict=True))
        return sparse.csr_array((value, (row, column)), shape=(self.count, width))


@dataclass(frozen=True, eq=False)
class LimitRows:
    """Row numbers of every limit that a plan may clash with, and the columns its values stand in.

    ``services`` has an array for each of the limits' services, empty for certain ones; ``resources`` (T, R) are the
    coupling's, or the one row of a budget that groups share. ``pairs`` are the distances between two groups' values.
    """

    floors: np.ndarray
    arm_floors: np.ndarray
    ratio: np.ndarray
    gini: np.ndarray
    services: list[np.ndarray]
    resources: np.ndarray
    values: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True, eq=False)
class _Pools:
    """Arms that move as one: ``kind`` (N,) is each arm's pool, the tables are those of the pools, M of them."""

    kind: np.ndarray
    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    member: np.ndarray
    """Of each group and pool, float (K, M)."""
    coupling: Coupling | None

    @classmethod
    def of(cls, cohort: Cohort, limits: Limits) -> _Pools:
        """Identical arms of the same groups, as long as nothing asks for a single arm."""
        transition, reward, start, coupling = cohort.transition, cohort.reward, cohort.start, cohort.coupling
        member, kind = cohort.groups.member.astype(float), np.arange(len(transition))
        own = limits.arm_floors is not None or any(
            not s.certain and (s.per == "arm" or s.owed is not None) for s in limits.services
        )
        if coupling is None or own:
            return cls(kind, transition, reward, start, member, coupling)
        n_actions = coupling.cost.shape[3]
        marks = Costs.of(np.repeat(member[:, :, None, None], n_actions, axis=3))
        merged = merge_identical(transition, reward, coupling.cost.beside(marks), start)
        kinds = merged.representative
        return cls(
            merged.member, transition[kinds], reward[kinds], merged.start, member[:, kinds], coupling.of_arms(kinds)
        )

    @property
    def of_arm(self) -> np.ndarray:
        """Whether a column of a round counts in a group, (K, M S A)."""
        return np.repeat(self.member, self.reward[0].size, axis=1)


def columns_of(cohort: Cohort, limits: Limits) -> int:
    """Frequencies that the program of a cohort has, before it is built."""
    return cohort.horizon * _Pools.of(_sure(cohort, limits)[0], limits).reward.size


def _sure(cohort: Cohort, limits: Limits) -> tuple[Cohort, np.ndarray | None]:
    """The cohort whose arms count their certain services, and what that closes."""
    sure = [service for service in limits.services if service.certain]
    if len(sure) > 1:
        raise CapabilityError(
            "several guarantees of certain services",
            sure,
            ("give one for certain", "guarantee the others on average"),
        )
    return counted(cohort, sure[0]) if sure else (cohort, None)


def _check_mode(cohort: Cohort, mode: str) -> None:
    """Raise where a budget cannot be shared this way."""
    if mode not in MODES:
        raise ModelError(f"mode is {mode!r}", f"use one of {', '.join(MODES)}.")
    coupling = cohort.coupling
    if mode != "step" and (coupling is None or coupling.n_rows != 1 or coupling.limit.ndim != 1):
        raise CapabilityError(f"mode {mode!r}", cohort.rows, ("use mode='step'", "use a single budget"))


class EquityProgram:
    """Columns: frequencies x (and the action set's own variables), budgets b, group values v, z, and u_g <= U(v_g).

    Parameters
    ----------
    cohort
        Arms, groups and resources; groups may overlap, except for the modes with group budgets.
    limits
        Of which ``mode`` says how the one budget is shared: ``step``, anew in every round; ``constant``, one number a
        group for all rounds (the published decision); ``total``, one number a group on its discounted total;
        ``capacity``, the budget of every round is a variable. ``whole``: whole budgets, a mixed-integer program.
    """

    def __init__(self, cohort: Cohort, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        cohort, closed = _sure(cohort, limits)
        _check_mode(cohort, limits.mode)
        self.groups, self.horizon, self.mode, self.whole = cohort.groups, cohort.horizon, limits.mode, limits.whole
        pools = _Pools.of(cohort, limits)
        inner: dict[str, Coupling | Polyhedron] = {}
        if self.mode == "step":
            inner = {"coupling": pools.coupling} if pools.coupling is not None else {"rows": cohort.rows}
        base, self._numbers = occupancy_program(
            pools.transition,
            pools.reward,
            pools.start,
            discount=cohort.discount,
            horizon=self.horizon,
            **inner,  # type: ignore[arg-type]
        )
        self._kind, self._table = pools.kind, (*pools.reward.shape,)
        self._block = pools.reward.size
        self._round = cohort.discount ** np.arange(self.horizon)
        self._acted = pools.of_arm * (np.arange(self._block) % self._table[2] > 0)
        self._place_columns(base.cost.size, limits)
        built = _Rows(base)
        self._add_values(built, pools, cohort.past)
        if self.mode != "step":
            self._tie_budgets(built, pools)
        self._add_limits(built, pools, limits)
        self._top = max(1e-6, float((np.abs(pools.reward).max() * self.horizon + cohort.past).max()))
        profile = load_profile("exact")
        if self._width > LARGE_COLUMNS and not self.whole:
            profile = dataclasses.replace(profile, options={**profile.options, "solver": "ipm"})
        self.session = Session.from_arrays(self._program(built, base, closed), profile)
        self.budgets: np.ndarray | None = None

    def _place_columns(self, n_base: int, limits: Limits) -> None:
        """Numbers of the columns after the frequencies."""
        n_groups = len(self.groups)
        n_budgets = {"step": 0, "constant": n_groups, "total": n_groups, "capacity": self.horizon}[self.mode]
        self._budget = n_base + np.arange(n_budgets)
        self._value = n_base + n_budgets + np.arange(n_groups)
        self._z = n_base + n_budgets + n_groups
        self._u = self._z + 1 + np.arange(n_groups)
        self._spread = Spread(n_groups, limits.gini, limits.ratio)
        self._pair = self._u[-1] + 1 + np.arange(self._spread.n_pairs)
        self._width = int(self._u[-1]) + 1 + self._spread.n_pairs

    def _add_values(self, built: _Rows, pools: _Pools, past: np.ndarray) -> None:
        """What the groups' values are, and rows for floors and the lowest of them."""
        n_groups = len(self.groups)
        one, free = np.arange(n_groups), np.full(n_groups, np.inf)
        worth = pools.of_arm / self.groups.sizes[:, None] * pools.reward.reshape(-1)
        weighted = np.tile(worth, self.horizon) * np.repeat(self._round, self._block)
        group, column = np.nonzero(weighted)
        self._define = built.add(
            -past, -past, (group, column, weighted[group, column]), (one, self._value, -np.ones(n_groups))
        )
        self._floor = built.add(-free, free, (one, self._value, np.ones(n_groups)))
        self._lowest = built.add(
            -free, free, (one, np.full(n_groups, self._z), np.ones(n_groups)), (one, self._value, -np.ones(n_groups))
        )

    def _add_limits(self, built: _Rows, pools: _Pools, limits: Limits) -> None:
        """Rows of inequality, of single arms and of services; each limit knows its rows."""
        uneven = sparse.coo_array(self._spread.matrix)
        columns = np.concatenate([self._value, self._pair])
        nought = np.zeros(uneven.shape[0])
        self._unequal = built.add(nought, nought + np.inf, (uneven.row, columns[uneven.col], uneven.data))
        self._arm_floor = np.empty(0, dtype=np.int64)
        n_types, n_states, n_actions = self._table
        if limits.arm_floors is not None:
            arm = np.tile(np.repeat(np.arange(n_types), n_states * n_actions), self.horizon)
            value = np.tile(pools.reward.reshape(-1), self.horizon) * np.repeat(self._round, self._block)
            every = np.arange(self.horizon * self._block)
            floors = np.asarray(limits.arm_floors, dtype=float)
            self._arm_floor = built.add(floors, np.full(n_types, np.inf), (arm, every, value))
        self._served = [
            np.empty(0, dtype=np.int64) if service.certain else self._serve(built, service)
            for service in limits.services
        ]

    def _program(self, built: _Rows, base: Program, closed: np.ndarray | None) -> Program:
        """All rows and columns, without an objective."""
        width, n_base = self._width, base.cost.size
        integer = np.zeros(width, dtype=bool)
        integer[self._budget] = self.whole
        low_end = np.full(width, -np.inf)
        low_end[:n_base], low_end[self._budget], low_end[self._pair] = base.lower, 0.0, 0.0
        high_end = np.full(width, np.inf)
        high_end[:n_base] = base.upper
        if closed is not None:
            shut = np.broadcast_to(closed[:, None], (self.horizon, *self._table)).ravel()
            high_end[: self.horizon * self._block][shut] = 0.0
        return Program(
            cost=np.zeros(width),
            matrix=built.matrix(width),
            row_lower=np.concatenate(built.lower),
            row_upper=np.concatenate(built.upper),
            lower=low_end,
            upper=high_end,
            integer=integer,
            maximise=True,
        )

    def _serve(self, built: _Rows, service: Guarantee) -> np.ndarray:
        """Expected services of every arm, or of every group, in the window; the rows' numbers."""
        n_types, n_states, n_actions = self._table
        acting = np.arange(self._block) % n_actions > 0
        if service.per == "group" and service.owed is None:
            count = len(self._acted)
            who, column = np.nonzero(self._acted * acting)
            share = self._acted[who, column]
        else:
            count = n_types if service.owed is None else len(service.owed.least)
            whose = np.arange(n_types) if service.owed is None else service.owed.of
            column = np.flatnonzero(acting)
            who, share = whose[column // (n_states * n_actions)], np.ones(len(column))
        rounds = range(self.horizon)[service.window(self.horizon)]
        entries = [(who, column + t * self._block, share) for t in rounds]
        least = np.full(count, float(service.at_least)) if service.owed is None else service.owed.least
        return built.add(least, np.full(count, np.inf), *entries)

    def _tie_budgets(self, built: _Rows, pools: _Pools) -> None:
        """Use of each round, or of all rounds, is at most the budget variables."""
        assert pools.coupling is not None
        n_groups, horizon, block = len(self.groups), self.horizon, self._block
        unit = np.broadcast_to(pools.coupling.cost.dense()[0], self._table).reshape(-1)
        used = pools.of_arm * unit
        if self.mode == "capacity":
            every = np.arange(horizon * block)
            self._tied = built.add(
                np.full(horizon, -np.inf),
                np.zeros(horizon),
                (every // block, every, np.tile(unit, horizon)),
                (np.arange(horizon), self._budget, -np.ones(horizon)),
            )
            return
        _ = self.groups.label
        nought, low = np.zeros(n_groups, dtype=int), np.full(n_groups, -np.inf)
        limit = np.array([float(pools.coupling.limit[0])])
        self._shared = built.add(low[:1], limit, (nought, self._budget, np.ones(n_groups)))
        one = np.arange(n_groups)
        group, column = np.nonzero(used)
        if self.mode == "total":
            entries = [
                (group, column + t * block, used[group, column] * weight) for t, weight in enumerate(self._round)
            ]
            built.add(low, np.zeros(n_groups), *entries, (one, self._budget, np.full(n_groups, -self._round.sum())))
            return
        for t in range(horizon):
            built.add(
                low,
                np.zeros(n_groups),
                (group, column + t * block, used[group, column]),
                (one, self._budget, -np.ones(n_groups)),
            )

    # ---- what clashes
    @property
    def limit_rows(self) -> LimitRows:
        """Where each limit stands."""
        inner = self._unequal[: len(self._unequal) - self._spread.ceiling]
        n_ratio = len(inner) - 2 * self._spread.n_pairs
        shared = {"step": self._numbers, "capacity": np.empty((0, 0), dtype=np.int64)}
        return LimitRows(
            self._floor,
            self._arm_floor,
            inner[:n_ratio],
            self._unequal[len(inner) :],
            self._served,
            shared[self.mode] if self.mode in shared else self._shared[None, :],
            self._value,
            self._pair,
        )

    @property
    def bare(self) -> Program:
        """The program without an objective and without a welfare."""
        program = self.session.program
        lower, upper = program.lower.copy(), program.upper.copy()
        for columns in (np.array([self._z]), self._u):
            lower[columns], upper[columns] = 0.0, 0.0
        return dataclasses.replace(program, lower=lower, upper=upper, cost=np.zeros(self._width))

    # ---- solving
    def solve(self, stage: Stage, *, tolerance: float = 1e-7, until: float | None = None) -> Answer:
        """Best group values of a stage.

        Raises
        ------
        InfeasibleError
            When no plan keeps the floors and limits.
        SolverError
            When the solver stops before the optimum.
        """
        session, n_groups = self.session, len(self.groups)
        free = np.zeros(n_groups, dtype=bool) if stage.free is None else stage.free
        open_ = np.full(n_groups, np.inf)
        session.set_rows(self._floor, stage.floors, open_)
        session.set_rows(self._lowest, -open_, np.where(free, 0.0, np.inf))
        self._loosen(np.array([self._z]), bool(free.any()))
        self._loosen(self._u, stage.curved)
        cost = np.zeros(self._width)
        if stage.free is not None:
            cost[self._z] = 1.0
        else:
            assert stage.weights is not None
            cost[self._u if stage.curved else self._value] = stage.weights
        session.set_cost(np.arange(self._width), cost)
        tangents = []
        if stage.curved:
            # A first fan of tangents bounds the objective; the others come where the optimum is.
            tangents = [self._tangent(stage, np.full(n_groups, at)) for at in np.geomspace(1e-3, 1.0, 9) * self._top]
        rounds, upper, best, answer = 0, np.inf, -np.inf, None
        try:
            while True:
                checkpoint()
                rounds += 1
                found = self._run()
                assert found.x is not None
                values = found.x[self._value]
                height = stage.objective(values)
                upper = min(upper, found.objective)
                if height > best:
                    best, answer = height, found
                late = until is not None and perf_counter() >= until
                if (
                    not stage.curved
                    or late
                    or upper - best <= tolerance * max(1.0, abs(best))
                    or rounds >= MOST_TANGENTS
                ):
                    break
                tangents.append(self._tangent(stage, values))
        finally:
            if tangents:
                session.delete_rows(np.concatenate(tangents))
        assert answer is not None
        return self._answer(stage, answer, best, max(upper, best), rounds)

    def smallest_budget(self, targets: np.ndarray, cost: np.ndarray, *, constant: bool) -> tuple[np.ndarray, Answer]:
        """Cheapest budgets (T,) with which every group's mean reaches its target; mode ``capacity`` only.

        Raises
        ------
        InfeasibleError
            When no budget is enough.
        """
        stage = Stage(floors=np.asarray(targets, dtype=float), weights=np.zeros(len(self.groups)))
        open_ = np.full(len(self.groups), np.inf)
        self.session.set_rows(self._floor, stage.floors, open_)
        self.session.set_rows(self._lowest, -open_, open_)
        self._loosen(np.array([self._z]), False)
        self._loosen(self._u, False)
        weight = np.zeros(self._width)
        weight[self._budget] = -np.asarray(cost, dtype=float)
        self.session.set_cost(np.arange(self._width), weight)
        extra = np.empty(0, dtype=np.int64)
        if constant:
            steps = self.horizon - 1
            at = np.arange(steps)
            same = sparse.csr_array(
                (
                    np.concatenate([np.ones(steps), -np.ones(steps)]),
                    (np.concatenate([at, at]), np.concatenate([self._budget[:-1], self._budget[1:]])),
                ),
                shape=(steps, self._width),
            )
            extra = self.session.add_rows(same, np.zeros(steps), np.zeros(steps))
        try:
            found = self._run()
        finally:
            if len(extra):
                self.session.delete_rows(extra)
        assert found.x is not None
        return found.x[self._budget], self._answer(stage, found, -found.objective, -found.objective, 1)

    def _loosen(self, columns: np.ndarray, open_: bool) -> None:
        limit = np.full(len(columns), np.inf if open_ else 0.0)
        self.session.set_bounds(columns, -limit, limit)

    def _tangent(self, stage: Stage, values: np.ndarray) -> np.ndarray:
        """Rows u_g - U'(v) v_g <= U(v) - U'(v) v at group values; their numbers."""
        assert stage.welfare is not None
        n_groups = len(self.groups)
        values = np.maximum(values, 1e-6 * self._top)
        slope, height = stage.welfare.slope(values), stage.welfare.each(values)
        # Slopes of small values are large: each row is scaled to a largest coefficient of one.
        scale = 1.0 / np.maximum(1.0, slope)
        one = np.arange(n_groups)
        row = sparse.csr_array(
            (np.concatenate([scale, -slope * scale]), (np.tile(one, 2), np.concatenate([self._u, self._value]))),
            shape=(n_groups, self._width),
        )
        return self.session.add_rows(row, np.full(n_groups, -np.inf), (height - slope * values) * scale)

    def _run(self) -> Result:
        result = self.session.solve()
        if result.status == "error" or (result.status == "optimal" and result.x is None):
            # A basis left from the stage before can end in cycling; the same program from nothing does not.
            result = Session.from_arrays(self.session.program, load_profile("default")).solve()
        if result.status in ("infeasible", "infeasible_or_unbounded"):
            raise InfeasibleError("no plan keeps these floors, not even on average", "lower a floor or raise a limit.")
        if result.x is None or result.status != "optimal":
            raise SolverError(f"the equity program was not solved: {result.status}", "plan by prices instead.")
        return result

    def _answer(self, stage: Stage, result: Result, lower: float, upper: float, rounds: int) -> Answer:
        x = result.x
        assert x is not None
        values = x[self._value]
        n_groups = len(self.groups)
        share, floor_price, tilt = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
        prices = np.zeros((self.horizon, 0))
        if result.row_duals is not None:
            total = -result.row_duals[self._define]
            floor_price = np.maximum(-result.row_duals[self._floor], 0.0)
            tilt = self._spread.tilt(-result.row_duals[self._unequal])
            lowest = np.maximum(result.row_duals[self._lowest], 0.0)
            share = lowest if stage.free is not None else total - floor_price - tilt
            numbers = self._tied[:, None] if self.mode == "capacity" else self._numbers
            prices = result.row_duals[numbers] / self._round[:, None]
        self._first_round = x[: self._block].reshape(self._table)
        self.budgets = x[self._budget] if len(self._budget) else None
        use = x[: self.horizon * self._block].reshape(self.horizon, -1) @ self._acted.T
        return Answer(values, lower, upper, share, floor_price, tilt, prices, use, rounds)

    def first_round(self, state: np.ndarray) -> np.ndarray:
        """Probability of each action of every arm in the plan's first round, (N, A), in states the plan starts from."""
        mass = self._first_round[self._kind, state]
        return mass / np.maximum(mass.sum(axis=1, keepdims=True), 1e-12)
