"""The joint dynamic program against plain recursion, and exact policy values against it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning import joint_optimum, joint_value
from rmab_opt.problem import Arms, Problem, Table, Tabular

SMALL = {
    "scheduling": {"n_arms": 4, "n_workers": 2, "horizon": amount(4, 8), "budget.at_most": 2},
    "capacity": {"n_arms": 4, "n_workers": 2, "horizon": amount(4, 8)},
    "path": {"n_arms": 4, "n_stops": 2, "horizon": amount(4, 8), "budget.at_most": 2, "length": 4},
}


def recursion(problem: Problem, actions: ActionSet, state: tuple[int, ...], period: int) -> float:
    """Best value by trying every action and every next joint state, one by one."""
    if period == problem.horizon:
        return 0.0
    transition, reward = problem.dynamics.tabular()
    best = -np.inf
    for chosen in itertools.product((0, 1), repeat=len(actions)):
        if actions.violations(np.array(chosen)):
            continue
        taken = actions.columns.arm_action(np.array(chosen))
        total = sum(reward[n, s, taken[n]] for n, s in enumerate(state))
        for after in itertools.product(range(transition.shape[2]), repeat=len(state)):
            chance = np.prod([transition[n, taken[n], s, after[n]] for n, s in enumerate(state)])
            if chance:
                total += problem.discount * chance * recursion(problem, actions, after, period + 1)
        best = max(best, total)
    return float(best)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9999))
def test_two_arms_agree_with_plain_recursion(seed):
    """Also when two columns share an arm."""
    rng = np.random.default_rng(seed)
    shared = bool(rng.integers(2))
    n_actions = 3 if shared else 2
    kernel = rng.dirichlet(np.ones(2), (2, n_actions, 2)) * (rng.random((2, n_actions, 2, 2)) < 0.8)
    kernel[..., 0] += kernel.sum(axis=-1) == 0
    kernel /= kernel.sum(axis=-1, keepdims=True)
    arms = Arms.from_arrays(2)
    start = rng.integers(2, size=2)
    problem = Problem(arms, Tabular(kernel, rng.normal(size=(2, 2, n_actions))), 2, float(rng.uniform(0.5, 1)), start)
    columns = Columns(arms, Table({"id": ["a", "b", "c"]}), np.array([[1.0, 0], [1, 1], [0, 1]])) if shared else arms
    actions = ActionSet(columns, {"some": Budget(at_most=int(rng.integers(0, 3)))})
    found = joint_optimum(problem, actions)
    assert found.value == pytest.approx(recursion(problem, actions, tuple(start), 0), abs=1e-10)
    assert joint_value(problem, actions, found.action) == pytest.approx(found.value, abs=1e-10)


@pytest.mark.parametrize("name", amount(["capacity"], list(SMALL)))
def test_no_policy_beats_the_optimum_and_no_bound_undercuts_it(name):
    model = ro.load(name, **SMALL[name])
    best = joint_optimum(model.problem, model.actions)
    assert joint_value(model.problem, model.actions, best.action) == pytest.approx(best.value, abs=1e-9)
    assert best.value <= ro.bound(model).value + 1e-6
    rng = np.random.default_rng(0)
    for other in ("none", "myopic", "static", "rollout"):
        chosen = make_policy(other, model)
        value = joint_value(model.problem, model.actions, lambda s, t, c=chosen: c.decide(s, t, rng).action)
        assert value <= best.value + 1e-9, other


def test_large_problems_and_forbidden_actions_are_refused():
    model = ro.load("scheduling")
    with pytest.raises(CapabilityError, match="2000000 states"):
        joint_optimum(model.problem, model.actions)
    small = ro.load("scheduling", **SMALL["scheduling"])
    with pytest.raises(ModelError, match="forbidden action"):
        joint_value(small.problem, small.actions, lambda state, period: np.ones(4, dtype=np.int64))
    with pytest.raises(ModelError, match="cannot be in state 3"):
        joint_optimum(small.problem, small.actions).action(np.full(4, 3), 0)
