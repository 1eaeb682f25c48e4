"""A fair plan as scores for a round's decision, for any number of actions and any constraints."""

from __future__ import annotations

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.problem import Problem
from rmab_opt.settings.equity.cohort import Cohort
from rmab_opt.settings.equity.groups import Groups
from rmab_opt.settings.equity.levels import solve_levels
from rmab_opt.settings.equity.prices import PricedGroups
from rmab_opt.settings.equity.welfare import Welfare

__all__ = ["FairReplan"]

GAP = 1e-6
"""Relative gap of a level."""

TIE_BREAK = 1e-6
"""Random part of a score: arms of one pool have the same probability."""


class FairReplan:
    """Each round solves the relaxed plan of the rounds left, from the states and what groups have collected.

    The action set's own relaxation couples the arms, rosters and routes included; an arm's score for an action is the
    probability with which the plan takes it now, and the round's program takes the best allowed set. One linear
    program a round over all arms: for cohorts of some hundred arms.

    Parameters
    ----------
    groups
        Column of the cohort's table, or groups, which may overlap.
    welfare
        See :class:`Welfare`.
    """

    def __init__(
        self,
        problem: Problem,
        actions: ActionSet,
        groups: Groups | str = "group",
        *,
        welfare: str | float | Welfare = "leximin",
    ) -> None:
        self.problem = problem
        self.groups = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
        self.welfare = Welfare.of(welfare)
        self.transition, self.reward = problem.dynamics.tabular()
        self.rows = polyhedron(actions, self.reward.shape[2])
        self._past: dict[int, tuple[np.random.Generator, int, np.ndarray]] = {}

    def scores(
        self,
        state: np.ndarray,
        period: int,
        rng: np.random.Generator | None = None,
        shared: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probability of each action in the plan's first round, (N, A), resting 0.

        What groups have collected is remembered by ``rng``, as the state's rewards under no action: exact where
        rewards are paid for the state, an approximation where actions are paid for too.
        """
        n_groups, left = len(self.groups), max(1, self.problem.horizon - period)
        past = np.zeros(n_groups)
        kept = None if rng is None else self._past.get(id(rng))
        if kept is not None and kept[0] is rng and kept[1] == period and period > 0:
            past = kept[2]
        discount = self.problem.discount
        cohort = Cohort(
            self.transition, self.reward, state, self.groups, self.rows, left, discount, past / discount**period
        )
        plan = PricedGroups(cohort)
        solve_levels(plan, self.groups, self.welfare, tolerance=GAP)
        chance = plan.first_round(np.asarray(state))
        chance = np.where(chance > TIE_BREAK, chance, 0.0)
        if rng is not None:
            now = self.reward[np.arange(len(state)), state, 0]
            self._past[id(rng)] = (rng, period + 1, past + discount**period * self.groups.means(now))
            chance = chance + TIE_BREAK * rng.random(chance.shape) * (chance > 0)
        chance[:, 0] = 0.0
        return chance
