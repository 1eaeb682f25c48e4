"""A fair plan as scores for a round's decision: action values of the weighted groups under the plan's own prices."""

from __future__ import annotations

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.errors import ModelError
from rmab_opt.planning.equity.groups import Groups
from rmab_opt.planning.equity.plan import FairPlan, fair_plan
from rmab_opt.planning.equity.welfare import Welfare
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.planning.scores import ScoreTable, priced_action_values
from rmab_opt.problem import Problem

__all__ = ["fair_scores"]

WORST_SHARE = 1e-3
"""Weight that utility keeps beside the worst group: settles what to do where the fair plan is indifferent."""


def fair_scores(
    problem: Problem,
    actions: ActionSet,
    groups: Groups | str = "group",
    *,
    welfare: str | float | Welfare = "max_min",
    plan: FairPlan | None = None,
) -> ScoreTable:
    """One table a round for any action set and any number of actions: the relaxed optimum is a weighted-sum optimum.

    No group gets a hard budget; the weights w_g of the plan scale each group's rewards, the prices of the action
    set's own relaxation (rosters and routes too) say what an action must be worth.

    Parameters
    ----------
    plan
        A plan found before, of mode ``step``.
    """
    named = Groups.of(problem.arms, groups) if isinstance(groups, str) else groups
    plan = fair_plan(problem, actions, named, welfare=welfare, tolerance=1e-5) if plan is None else plan
    transition, reward = problem.dynamics.tabular()
    rows = polyhedron(actions, reward.shape[2])
    coupling = rows.coupling(*transition.shape[:2])
    horizon = problem.horizon
    n_arms, n_actions = transition.shape[:2]
    arm_prices = np.zeros((horizon, n_arms, n_actions))
    if coupling is not None and plan.prices.shape[1] == coupling.n_rows:
        cost = np.broadcast_to(coupling.cost, (coupling.n_rows, n_arms, coupling.cost.shape[2], n_actions))[:, :, 0]
        arm_prices = np.einsum("tk,kna->tna", plan.prices, cost)
    elif plan.prices.shape[1] == rows.act.shape[0]:
        arm_prices[:, rows.arm, rows.action] = plan.prices @ rows.act
    else:
        raise ModelError("the plan is of another action set", "plan with mode='step' for this one.")
    even = named.sizes / named.sizes.sum()
    weights = plan.weights + WORST_SHARE * even
    worth = ((weights / named.sizes) @ named.member.astype(float)) * n_arms
    q, _ = priced_action_values(
        transition, reward * worth[:, None, None], arm_prices * n_arms, discount=problem.discount, horizon=horizon
    )
    return ScoreTable(q - q[..., :1], "fair_prices")
