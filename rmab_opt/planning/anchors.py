"""Known arm values Q[t, n, s, a] at which learning may begin, by name: ``make(problem, actions) -> (T, N, S, A)``."""

from __future__ import annotations

import numpy as np

from rmab_opt import registry
from rmab_opt.actions import ActionSet, shared_arms
from rmab_opt.planning.bound import bound
from rmab_opt.planning.mean_field import MeanField
from rmab_opt.planning.rollout import open_loop_values, rollout_values
from rmab_opt.planning.scores import priced_action_values
from rmab_opt.problem import Problem
from rmab_opt.problem.dynamics import require_tabular

__all__ = ["anchor_values", "anchors"]


def anchor_values(problem: Problem, actions: ActionSet, anchor: str) -> np.ndarray:
    """Arm values Q[t, n, s, a] of an anchor, shape (T, N, S, A).

    Raises
    ------
    ModelError
        When there is no such anchor.
    CapabilityError
        When the arms do not say what it needs.
    """
    return np.asarray(registry.make("anchor", anchor, problem, actions))


def anchors(actions: ActionSet) -> tuple[str, ...]:
    """Anchors worth trying for arms with tables: prices are the hull's where columns share arms."""
    if shared_arms(actions.columns):
        return "hull", "rollout", "open_loop"
    few = actions.structured and actions.listed is not None
    return ("prices", "hull", "rollout", "open_loop") if few else ("prices", "rollout", "open_loop")


def _priced(problem: Problem, actions: ActionSet, coupling: str) -> np.ndarray:
    found = bound(problem, actions, coupling=coupling)
    transition, reward = require_tabular(problem.dynamics, "an anchor at a bound's prices")
    values, _ = priced_action_values(
        transition, reward, found.arm_prices, discount=problem.discount, horizon=problem.horizon
    )
    return values


@registry.register("anchor", "prices")
def prices(problem: Problem, actions: ActionSet) -> np.ndarray:
    """Arm values at the prices of the bound by the set's relaxation: the policy ``lp_index``."""
    return _priced(problem, actions, "auto")


@registry.register("anchor", "hull")
def hull(problem: Problem, actions: ActionSet) -> np.ndarray:
    """The same with prices of the hull of the allowed actions: ``hull_index``."""
    return _priced(problem, actions, "hull")


@registry.register("anchor", "rollout")
def rollout(problem: Problem, actions: ActionSet) -> np.ndarray:
    """One round other than the best constant action, which follows."""
    return rollout_values(problem, actions)


@registry.register("anchor", "open_loop")
def open_loop(problem: Problem, actions: ActionSet) -> np.ndarray:
    """The action kept to the end."""
    return open_loop_values(problem)


@registry.register("anchor", "costate")
def costate(problem: Problem, actions: ActionSet) -> np.ndarray:
    """Indices of the plan around the means from the start, with what an arm does to the others; passive 0."""
    at = problem.start_distribution.argmax(axis=1)
    index = MeanField(problem, actions).plan(at, 0, problem.start_shared).index
    return np.stack([np.zeros_like(index), index], axis=-1)
