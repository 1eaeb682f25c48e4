"""The relaxed equity problem by prices: weights on groups and a price a resource and round make the arms independent.

For weights c_g and prices p every arm solves its own small problem (:mod:`.arms`); arms of the same groups (a cell)
together give one plan: its reward and its use of the resources. A program over prices (:mod:`.master`) is cut by the
plans, and its multipliers mix them within the limits. Each price vector proves an upper limit,

    sum_arms V_arm(c, p) + rent(p) + c . past - floors . their prices + conjugate of the welfare at its share of c,

where c is the sum of the welfare's share, the floors' prices and the tilt that limits on inequality add;
the mixture is a plan that attains its objective, and the difference is a true gap. Rosters and routes are kept by rows
that are added where the mixture breaks them (:mod:`.resources`).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from time import perf_counter

import numpy as np
from scipy import sparse

from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.overdue import checkpoint
from rmab_opt.planning.occupancy import Polyhedron
from rmab_opt.settings.equity.arms import Arms, Plans
from rmab_opt.settings.equity.cohort import Cohort, Limits
from rmab_opt.settings.equity.descent import HEATS, MANY, descended
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.master import Master, Multipliers
from rmab_opt.settings.equity.relaxed import Answer, Spread, Stage
from rmab_opt.settings.equity.resources import Resources, Separator

__all__ = ["PricedGroups", "check_gap"]

SMOOTHING = 0.5
"""Weight of the best prices so far in the next ones; 0 is plain column generation, which zigzags."""

MOST_ROUNDS = 600
"""Mixtures until the search gives up and returns the gap it has."""

FANS = 25
"""Values at which a welfare that bends is known from the start."""

NEW = 1e-9
"""By how much a plan must beat those known to its cell, as a share of all values, to become a row."""

KEPT = 1e-7
"""How far a mixture may miss a limit, relative: what the solver's own tolerance leaves."""


class PricedGroups:
    """Arms under weights and prices, and the mixture of their plans.

    Parameters
    ----------
    cohort
        Arms, groups, resources.
    limits
        ``gini``, ``ratio`` and ``arm_floors``; floors of groups come with the stage.
    apart
        Whether equal arms are kept apart, for :meth:`persons`.
    """

    def __init__(self, cohort: Cohort, limits: Limits | None = None, *, apart: bool = False) -> None:
        limits = limits or Limits()
        n_arms, n_actions, n_states, _ = cohort.transition.shape
        self.horizon, self.n_groups = cohort.horizon, len(cohort.groups)
        self.spread = Spread(self.n_groups, limits.gini, limits.ratio)
        # An arm with a floor is one more group, of itself, that the welfare does not look at.
        floors = np.full(n_arms, -np.inf) if limits.arm_floors is None else np.asarray(limits.arm_floors, dtype=float)
        guarded = np.flatnonzero(np.isfinite(floors))
        self.arm_floors = floors[guarded]
        groups = cohort.groups
        if len(guarded):
            alone = np.zeros((len(guarded), n_arms), dtype=bool)
            alone[np.arange(len(guarded)), guarded] = True
            names = tuple(f"arm {n}" for n in guarded)
            groups = Groups((*groups.names, *names), np.concatenate([groups.member, alone]))
        self.groups = groups
        self.past = np.concatenate([cohort.past, np.zeros(len(guarded))])
        cell, pattern = groups.cells
        self.resources = Resources.of(cohort.rows, cohort.horizon, (n_arms, n_actions, n_states))
        own = isinstance(cohort.rows, Polyhedron) and cohort.rows.n_extra > 0
        self.separator = Separator(cohort.rows, n_arms, n_actions) if own else None  # type: ignore[arg-type]
        self.arms = Arms(cohort, cell, self.resources, apart=own or apart)
        self.pattern = pattern[:, self.arms.of_cell]
        self.per_mean = sparse.csr_array(self.pattern / groups.sizes[:, None])
        self.span = float(np.ptp(cohort.reward)) + 1e-9
        self.top = float(np.abs(cohort.reward).max()) * cohort.horizon + 1e-9
        self.plans: list[Plans] = []
        self.evaluations = 0
        self.learnt = 0
        """Cells that the last evaluation taught something."""
        self._begun: set[bool] = set()
        """Kinds of linear stages that were begun: for the lowest group (True), for a sum."""
        self.parts: np.ndarray | None = None
        """Of every plan and cell in the mixture that was answered last, (J, Q)."""
        self.master = self._new_master()
        self._seed()

    def _smallest(self) -> np.ndarray:
        """Smallest cost that a row knows, (R,)."""
        cost = sparse.csr_array(abs(self.resources.matrix))
        cost.eliminate_zeros()
        ends = cost.indptr
        return np.array([cost.data[a:b].min() if b > a else 1.0 for a, b in itertools.pairwise(ends)])

    def _new_master(self) -> Master:
        largest = float((1.0 / self.groups.sizes).max()) * self.span * (self.horizon + 1.0)
        res = self.resources
        worth = largest / self._smallest() if res.n_rows else np.zeros(0)
        return Master(self.arms, self.per_mean, self.spread, res.limit, res.equal, self.past, worth)

    # ---- the arms
    def evaluate(self, weights: np.ndarray, prices: np.ndarray) -> float:
        """Sum of the arms' values under group weights (K,) and prices (T, R); learns their plans."""
        found = self.arms.evaluate(weights @ self.per_mean, prices, actions=self.separator is not None)
        self.evaluations += 1
        self._learn(found, weights, prices)
        return found.total

    def _learn(self, found: Plans, weights: np.ndarray, prices: np.ndarray) -> None:
        """Rows for the cells whose plan beats those known at these weights and prices."""
        arms = self.arms
        paid = prices[:, arms.pair_row].T * arms.round
        worth = weights @ self.per_mean

        def net(plans: Plans) -> np.ndarray:
            charge = np.bincount(arms.pair_cell, (plans.use * paid).sum(axis=1), minlength=arms.n_cells)
            return np.asarray(worth * plans.values - charge)

        mine = net(found)
        least = mine - NEW * np.abs(mine).max(initial=0.0)
        new = np.ones(arms.n_cells, dtype=bool)
        for plans, numbers in zip(self.plans, self.master.numbers, strict=True):
            new &= (numbers < 0) | (net(plans) < least)
        self.learnt = int(new.sum())
        if self.learnt:
            self.plans.append(found)
            self.master.add(found, new)

    def bound(
        self, stage: Stage, share: np.ndarray, floor_price: np.ndarray, tilt: np.ndarray, prices: np.ndarray
    ) -> float:
        """Proven upper limit of a stage at multipliers."""
        weights = share + floor_price + tilt
        arms = self.evaluate(weights, prices)
        rent = float((self.arms.round[:, None] * prices * self.resources.limit).sum())
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
        """First plans: every group weighs the same per arm, at constant prices from nothing to prohibitive."""
        smallest = self._smallest()
        for height in (self.horizon + 1.0, 1.0, 0.3, 0.1, 0.0):
            prices = np.broadcast_to(height * self.span / smallest, self.resources.limit.shape)
            self.evaluate(self.groups.sizes, prices)

    def _bend(self, stage: Stage, share: np.ndarray) -> None:
        """Know the welfare where its slopes are the shares (K,) that the program would give next."""
        assert stage.welfare is not None
        assert stage.weights is not None
        seen = stage.weights > 0
        at = np.full(len(share), self.top)
        at[seen] = stage.welfare.inverse_slope(share[seen] / stage.weights[seen])
        self.master.bend_at(stage, np.clip(at, 1e-6 * self.top, 10.0 * self.top))

    def _descends(self, stage: Stage) -> bool:
        """Whether a stage begins with descents: of many arms, and the first whose objective is of its kind."""
        if stage.curved or self.separator is not None or self.spread.matrix.shape[0] or self.arms.shape[2] < MANY:
            return False
        lowest = stage.free is not None
        first = lowest not in self._begun
        self._begun.add(lowest)
        return first

    def _descended(
        self, stage: Stage, start: Multipliers | None, heat: tuple[float, float], until: float | None
    ) -> Multipliers:
        """Multipliers found by a descent; the plans drawn there are known from now on."""
        point, drawn = descended(
            self.arms, self.per_mean, self.resources, self.past, stage, self.span, start, heat, until
        )
        self.plans.append(drawn)
        self.master.add(drawn, np.ones(self.arms.n_cells, dtype=bool))
        return point

    # ---- the mixture
    def solve(self, stage: Stage, *, tolerance: float = 1e-7, until: float | None = None) -> Answer:
        """Best group values of a stage, to a relative gap or until the clock says ``until``; see :class:`Answer`.

        Raises
        ------
        InfeasibleError
            When no mixture keeps the limits and floors.
        SolverError
            When nothing that keeps them was found in the time.
        """
        stage = self._with_arms(stage)
        while True:
            answer = self._solve(stage, tolerance, until)
            if self.separator is None or not self._added(self.separator):
                return answer

    def _added(self, separator: Separator) -> bool:
        """Whether the last mixture breaks rows of rosters or routes; they are known from now on."""
        assert self.parts is not None
        n_actions, _, n_arms = self.arms.shape
        actions = np.zeros((self.horizon, n_actions, n_arms))
        for part, plans in zip(self.parts, self.plans, strict=False):
            if part.any():
                assert plans.actions is not None
                actions += part[self.arms.cell] * plans.actions
        matrix, limit = separator.broken(actions[:, :, self.arms.member])
        if not len(limit):
            return False
        self.resources = self.resources.joined(matrix, limit)
        self.arms.price(self.resources)
        known = self.master.numbers >= 0
        self.master = self._new_master()
        self.plans = [
            replace(plans, use=self.arms.use_of(plans.actions)) for plans in self.plans if plans.actions is not None
        ]
        for plans, cells in zip(self.plans, known, strict=True):
            self.master.add(plans, cells)
        return True

    def _solve(self, stage: Stage, tolerance: float, until: float | None) -> Answer:
        self.master.stage(stage)
        if stage.curved:
            for at in np.geomspace(1e-3, 1.0, FANS) * self.top:
                self.master.bend_at(stage, np.full(len(self.groups), at))
        upper, best, kept = np.inf, -np.inf, None
        centre = proven = None
        rounds = 0
        heats = list(HEATS) if self._descends(stage) else []
        limit_size = max(1.0, float(np.abs(self.resources.limit).max(initial=0.0)))
        while rounds < MOST_ROUNDS:
            checkpoint()
            rounds += 1
            mixture = self.master.solve(stage)
            values, missed = self._mixed(mixture.parts)
            if stage.curved:
                self._bend(stage, mixture.next[0])
            short = float(np.maximum(stage.floors - values, 0.0).max(initial=0.0))
            keeps = missed <= KEPT * limit_size and short <= KEPT * self.top
            if keeps:
                height = stage.objective(values)
                if height > best:
                    best, kept = height, (values, mixture)
            gap = tolerance * max(1.0, abs(best)) if np.isfinite(best) else -np.inf
            if upper - best <= gap:
                break
            # Prices between the best so far and the newest; where that proves or teaches nothing, the newest alone.
            taught = 0
            points = [mixture.next] if centre is None else [_between(centre, mixture.next), mixture.next]
            if heats:
                points = [self._descended(stage, centre, heats.pop(0), until)]
                taught = self.arms.n_cells
            for point in points:
                found = self.bound(stage, *point)
                taught += self.learnt
                improved = found < upper and not upper - found <= 1e-3 * (upper - best)
                if found < upper:
                    upper, centre, proven = found, point, point
                if improved and self.learnt:
                    break
            exact = not taught and not stage.curved
            if not taught and (kept is None or (exact and not keeps)):
                # The mixture is best although it pays for what it misses: that must cost more, if it can.
                if not self.master.dearer(stage):
                    break
                centre = None
                continue
            if upper - best <= gap or exact or (until is not None and kept is not None and perf_counter() >= until):
                break
        if kept is None:
            raise InfeasibleError("no plan keeps these floors and limits", "lower a floor or raise a limit.")
        assert proven is not None
        return self._answer(kept[1].parts, kept[0], proven, (best, max(upper, best)), rounds)

    def _mixed(self, parts: np.ndarray) -> tuple[np.ndarray, float]:
        """Group values of a mixture, (K,), and by how much it misses its rows at most."""
        arms = self.arms
        totals = np.zeros(arms.n_cells)
        use = np.zeros((self.resources.n_rows, self.horizon))
        for part, plans in zip(parts, self.plans, strict=True):
            if part.any():
                totals += part * plans.values
                np.add.at(use, arms.pair_row, part[arms.pair_cell, None] * plans.use)
        over = use.T - self.resources.limit
        missed = np.where(self.resources.equal, np.abs(over), over).max(initial=0.0)
        return self.past + self.per_mean @ totals, float(missed)

    def _answer(
        self,
        parts: np.ndarray,
        values: np.ndarray,
        centre: Multipliers,
        ends: tuple[float, float],
        rounds: int,
    ) -> Answer:
        share, floor_price, tilt, prices = centre
        own = slice(self.n_groups)
        acted = np.zeros((self.horizon, self.arms.n_cells))
        for part, plans in zip(parts, self.plans, strict=False):
            if part.any():
                acted += part * plans.acted
        self.parts = parts
        use = (acted @ self.pattern.T)[:, own]
        return Answer(values[own], *ends, share[own], floor_price[own], tilt[own], prices, use, rounds)

    def first_round(self, state: np.ndarray) -> np.ndarray:
        """Probability of each action of every arm in the first round of the last plan, (N, A), in states (N,)."""
        assert self.parts is not None
        member = self.arms.member
        chance = np.zeros((len(member), self.arms.shape[0]))
        for part, plans in zip(self.parts, self.plans, strict=False):
            if part.any():
                chance += part[self.arms.cell[member]][:, None] * plans.first[:, state, member].T
        return chance

    def persons(self) -> np.ndarray:
        """What each arm gets in the last plan, (N,); of arms that were kept apart."""
        assert self.parts is not None
        total = np.zeros(len(self.arms.kinds))
        for part, plans in zip(self.parts, self.plans, strict=False):
            if part.any():
                total += part[self.arms.cell] * plans.paid
        return total[self.arms.member]

    def free(self) -> np.ndarray:
        """What each arm gets at most, (N,), if nothing were scarce; of arms that were kept apart."""
        nothing = np.zeros(self.resources.limit.shape)
        return self.arms.evaluate(np.ones(self.arms.n_cells), nothing).paid[self.arms.member]

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


def _between(centre: Multipliers, newest: Multipliers) -> Multipliers:
    share, floor_price, tilt, prices = (
        SMOOTHING * old + (1.0 - SMOOTHING) * new for old, new in zip(centre, newest, strict=True)
    )
    return share, floor_price, tilt, prices


def check_gap(tolerance: float) -> None:
    """Refuse a gap that arithmetic cannot reach."""
    if not 1e-12 <= tolerance < 1.0:
        raise ModelError(f"tolerance is {tolerance}", "give a relative gap between 1e-12 and 1.")
