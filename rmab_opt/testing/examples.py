"""A small cohort, arms and a model that hold for most things that plug in."""

from __future__ import annotations

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.problem import Arms, Problem, Tabular

__all__ = ["cohort", "model", "tabular"]


def cohort(n_arms: int = 6) -> Arms:
    """Arms with a village, a cost, a load and slots."""
    rng = np.random.default_rng(7)
    return Arms.from_arrays(
        n_arms,
        village=[("north", "south", "east")[k % 3] for k in range(n_arms)],
        cost=rng.integers(1, 5, n_arms),
        load=rng.integers(1, 4, n_arms),
        slots=[("mon", "tue", "mon;tue")[k % 3] for k in range(n_arms)],
    )


def tabular(n_arms: int = 6, n_states: int = 3, n_actions: int = 2, seed: int = 0) -> Tabular:
    """Random arms: random chances, sorted rewards that acting raises."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(n_states), (n_arms, n_actions, n_states))
    reward = np.sort(rng.uniform(0.0, 2.0, (n_arms, n_states, n_actions)), axis=2)
    return Tabular(transition, reward)


def model(n_arms: int = 6, at_most: int = 2, horizon: int = 4, seed: int = 0) -> Model:
    """The cohort with random arms, a budget and the reward of the round as objective."""
    arms = cohort(n_arms)
    problem = Problem(arms, tabular(n_arms, seed=seed), horizon=horizon, start=np.arange(n_arms) % 3)
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=at_most)}), solver="exact", title="example")
