"""Stateful arms: what their description says of condition, fatigue, clock and touches; constant actions are poor."""

from __future__ import annotations

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.errors import ModelError
from rmab_opt.planning import constant_action
from rmab_opt.settings.coupled.instances import arms


def parts(dynamics, n_conditions: int, cycle: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel by condition, fatigue and clock, P[n, a, c, f, k, c', f', k'], and reward r[n, c, f, k, a]."""
    transition, reward = dynamics.tabular()
    shape = (n_conditions, 2, cycle)
    n_arms, n_actions = transition.shape[:2]
    return transition.reshape(n_arms, n_actions, *shape, *shape), reward.reshape(n_arms, *shape, n_actions)


def test_arms_are_as_described():
    rng = np.random.default_rng(0)
    dynamics, start = arms(50, rng, n_conditions=5, n_touches=2, fatigue=0.6, recovery=0.5, cycle=4, open_rounds=3)
    kernel, reward = parts(dynamics, 5, 4)
    assert np.allclose(start.sum(axis=1), 1.0)
    assert dynamics.state_names[0] == "0 round 1"
    # The clock always ticks; states move by one condition at most.
    for phase in range(4):
        assert np.allclose(kernel[:, :, :, :, phase, :, :, (phase + 1) % 4].sum(axis=(-2, -1)), 1.0)
    assert not kernel[:, :, 0, :, :, 2:].any()
    climb = kernel[:, :, :, :, :, :, :, :].sum(axis=(6, 7))
    up = np.stack([climb[:, :, c, :, :, c + 1] for c in range(4)], axis=2)
    # Open and rested: a second touch adds less than the first; higher is harder; tired arms feel less.
    first, second = up[:, 1, :, 0, 0], up[:, 2, :, 0, 0]
    assert (up[:, 0, :, 0, 0] == 0.0).all()
    assert (second > first).all()
    assert (second - first < first).all()
    assert (np.diff(first, axis=1) < 0).all()
    assert (up[:, 1, :, 1, 0] < first).all()
    # Closed: nothing that is done matters.
    assert np.array_equal(kernel[:, 1, :, :, 3], kernel[:, 0, :, :, 3])
    assert np.array_equal(kernel[:, 2, :, :, 3], kernel[:, 0, :, :, 3])
    # A touch while open tires for sure; without one, the tired recover by half.
    assert np.allclose(kernel[:, 1, :, :, 0, :, 0].sum(axis=(-2, -1)), 0.0)
    assert np.allclose(kernel[:, 0, :, 1, 0, :, 0].sum(axis=(-2, -1)), 0.5)
    # Half of the arms pay at the top only.
    gain = reward[:, :, 0, 0, 0]
    assert (gain >= 0).all()


def test_an_arm_may_be_open_for_a_single_round_of_its_cycle():
    dynamics, _ = arms(4, np.random.default_rng(0), n_conditions=3, n_touches=1, cycle=3, open_rounds=1)
    kernel, _ = parts(dynamics, 3, 3)
    different = [not np.array_equal(kernel[:, 0, :, :, phase], kernel[:, 1, :, :, phase]) for phase in range(3)]
    assert different == [True, False, False]


@pytest.mark.parametrize(
    "wrong",
    [{"n_conditions": 1}, {"n_touches": 0}, {"cycle": 2, "open_rounds": 3}, {"fatigue": 1.5}, {"late": -0.1}],
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ModelError):
        arms(3, np.random.default_rng(0), **wrong)


def test_interventions_that_touch_too_often_are_refused():
    with pytest.raises(ModelError, match="can feel"):
        ro.load("interventions_stateful", n_arms=4, n_interventions=15, n_touches=3)
    with pytest.raises(ModelError, match="choose at least one"):
        ro.load("interventions_stateful", **{"problem.budget": 15})


@pytest.mark.parametrize("name", ["scheduling", "capacity"])
def test_every_touch_takes_its_own_visit_or_load(name):
    model = ro.load(f"{name}_stateful", n_arms=6, n_touches=2, **{"problem.n_workers": 2})
    assert model.actions.columns.ids[:3] == ("arm0/1", "arm0/2", "arm1/1")
    assert model.problem.dynamics.n_actions == 3
    both = np.zeros(12, dtype=np.int64)
    both[:2] = 1
    assert model.actions.columns.arm_action(both).tolist() == [2, 0, 0, 0, 0, 0]
    carried = [row["column"] for row in model.actions.assignment(both)] if model.actions.allows(both) else []
    assert set(carried) <= {"arm0/1", "arm0/2"}


@pytest.mark.parametrize(
    "name",
    ["capacity", *(pytest.param(name, marks=pytest.mark.slow) for name in ("scheduling", "path", "interventions"))],
)
def test_the_best_constant_action_is_provably_poor(name):
    """Its exact value is at most three quarters of the bound."""
    model = ro.load(f"{name}_stateful")
    problem = model.problem
    transition, reward = problem.dynamics.tabular()
    taken = model.actions.columns.arm_action(constant_action(problem, model.actions))
    arm, value = np.arange(problem.n_arms), np.zeros(reward.shape[:2])
    for _ in range(problem.horizon):
        value = reward[arm, :, taken] + problem.discount * np.einsum("nst,nt->ns", transition[arm, taken], value)
    earned = float((problem.start_distribution * value).sum())
    # Even the bound's own lower end, which a loose gap keeps short to find.
    assert earned <= 0.75 * ro.bound(model, tolerance=0.01).lower
