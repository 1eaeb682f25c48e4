"""Small random sets and networks of eight columns, all 256 vectors of which a test may look at."""

from __future__ import annotations

import itertools

import numpy as np

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Conflict, Knapsack
from rmab_opt.encoder import Network
from rmab_opt.problem import Arms, Problem, Tabular

__all__ = ["EVERY", "N", "network", "problem_of", "sets"]

N = 8
EVERY = np.array(list(itertools.product((0, 1), repeat=N)))


def sets(rng: np.random.Generator) -> ActionSet:
    cost = rng.integers(1, 9, N) if rng.random() < 0.5 else rng.uniform(0.5, 3.0, N).round(2)
    arms = Arms.from_arrays(N, cost=cost.tolist())
    kinds = {
        "budget": Budget(at_most=int(rng.integers(1, 5))),
        "money": Knapsack(cost="cost", at_most=float(np.round(0.4 * cost.sum(), 2))),
        "apart": Conflict(groups=[["arm0", "arm1", "arm2"], ["arm2", "arm5"]]),
    }
    return ActionSet(arms, {name: kinds[name] for name in rng.permutation(list(kinds))[: rng.integers(1, 4)]})


def problem_of(actions: ActionSet) -> Problem:
    rng = np.random.default_rng(7)
    tables = Tabular(rng.dirichlet(np.ones(2), (N, 2, 2)), rng.random((N, 2, 2)))
    return Problem(actions.columns.arms, tables, horizon=3, start=np.zeros(N, dtype=int))


def network(rng: np.random.Generator, scale: float = 1.0) -> Network:
    layers = [
        (rng.normal(size=(10, N)), rng.normal(size=10), "relu"),
        (rng.normal(size=(5, 10)), rng.normal(size=5), "relu"),
    ]
    return Network.from_arrays([*layers, (scale * rng.normal(size=(1, 5)), scale * rng.normal(size=1), "linear")])
