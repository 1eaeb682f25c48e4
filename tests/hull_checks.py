"""What the bound through mixtures of allowed actions promises on any small model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.planning import bound, constant_action, joint_optimum
from rmab_opt.problem import Problem


def mixture_program(problem: Problem, actions: ActionSet) -> float:
    """The same bound from its primal side, all at once: frequencies whose actions are mixtures of listed actions."""
    transition, reward = problem.dynamics.tabular()
    n_arms, n_states, n_actions = reward.shape
    ways = np.unique(actions.columns.arm_action(actions.enumerate()), axis=0)
    rounds, block = problem.horizon, n_arms * n_states * n_actions
    size = rounds * (block + len(ways))
    x = np.arange(rounds * block).reshape(rounds, n_arms, n_states, n_actions)
    w = rounds * block + np.arange(rounds * len(ways)).reshape(rounds, -1)
    rows, right = [], []
    for t in range(rounds):
        for n in range(n_arms):
            for s in range(n_states):
                row = np.zeros(size)
                row[x[t, n, s]] = 1.0
                if t:
                    row[x[t - 1, n].ravel()] -= transition[n, :, :, s].T.ravel()
                rows.append(row)
                right.append(problem.start_distribution[n, s] if t == 0 else 0.0)
            for a in range(n_actions):
                row = np.zeros(size)
                row[x[t, n, :, a]] = 1.0
                row[w[t]] = -(ways[:, n] == a).astype(float)
                rows.append(row)
                right.append(0.0)
        row = np.zeros(size)
        row[w[t]] = 1.0
        rows.append(row)
        right.append(1.0)
    cost = np.zeros(size)
    for t in range(rounds):
        cost[x[t]] = problem.discount**t * reward
    found = linprog(-cost, A_eq=np.array(rows), b_eq=np.array(right), method="highs")
    return float(-found.fun)


def hull_lies_between(name: str, over: dict[str, Any], *, by_program: bool) -> None:
    """The hull's bound lies between the joint optimum and the linear relaxation, and is what the program says."""
    model = ro.load(name, **over)
    problem, actions = model.problem, model.actions
    found = bound(problem, actions, coupling="hull", tolerance=1e-7)
    assert found.coupling == "hull"
    assert found.converged
    assert joint_optimum(problem, actions).value <= found.value + 1e-7
    if not name.startswith("interventions"):
        assert found.value <= bound(problem, actions, coupling="relaxation").value + 1e-6
    if by_program:
        assert found.value == pytest.approx(mixture_program(problem, actions), rel=1e-6)


def asking_gives_what_listing_gives(name: str, over: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bound and constant action where allowed actions cannot be listed."""
    model = ro.load(name, **over)
    listed = bound(model.problem, model.actions, coupling="hull", tolerance=1e-7).value
    constant = constant_action(model.problem, model.actions)
    again = ro.load(name, **over)
    monkeypatch.setattr(ActionSet, "listed", None)
    assert bound(again.problem, again.actions, coupling="hull", tolerance=1e-7).value == pytest.approx(listed, rel=1e-6)
    assert np.array_equal(
        again.actions.columns.arm_action(constant_action(again.problem, again.actions)),
        model.actions.columns.arm_action(constant),
    )
