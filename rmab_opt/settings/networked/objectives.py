"""Objectives on contact graphs by the names of model files."""

from __future__ import annotations

from pathlib import Path

from rmab_opt.actions import ActionSet
from rmab_opt.decisions.objective import Objective
from rmab_opt.errors import ModelError
from rmab_opt.problem import Problem
from rmab_opt.registry import register
from rmab_opt.settings.networked.cascade import Cascade
from rmab_opt.settings.networked.greedy import CascadeObjective


@register("objective", "cascade")
def _cascade_value(
    problem: Problem, actions: ActionSet, folder: Path, *, samples: int = 200, weights: str = "reward", seed: int = 0
) -> Objective:
    """Expected worth of the arms active at the end of the round, over drawn scenarios."""
    if not isinstance(problem.dynamics, Cascade):
        raise ModelError(
            f"objective cascade needs arms on a contact graph, these are {type(problem.dynamics).__name__}",
            "use dynamics {kind: cascade}, or another objective.",
        )
    budget = float(actions.shape.most_chosen) if weights in ("priced", "contacts") else 0.0
    return CascadeObjective(samples, weights, seed=seed, budget=budget)
