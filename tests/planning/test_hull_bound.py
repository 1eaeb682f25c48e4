"""The bound through mixtures of allowed actions: between joint optimum and linear relaxation, any price valid."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount
from hull_checks import asking_gives_what_listing_gives, hull_lies_between, mixture_program
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget
from rmab_opt.planning import bound, joint_optimum
from rmab_opt.planning.hull import ActionOracle, hull_bound
from rmab_opt.planning.lagrangian import priced_arms_value
from rmab_opt.problem import Arms, Problem, Table, Tabular

SMALL = {
    "scheduling": {"n_arms": 5, "n_workers": 2, "horizon": 5, "budget.at_most": 2},
    "capacity": {"n_arms": 5, "n_workers": 2, "horizon": 5},
    "path": {"n_arms": 5, "n_stops": 2, "horizon": 5, "budget.at_most": 2, "length": 4},
    "interventions": {
        "n_arms": 6, "n_interventions": 2, "problem.budget": 1, "constraints.budget.equal": 1, "horizon": 4,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_the_hull_lies_between_the_optimum_and_the_relaxation(name):
    hull_lies_between(name, SMALL[name], by_program=name in ("path", "capacity"))


@pytest.mark.parametrize("name", ["capacity", "path", "scheduling"])
def test_asking_programs_gives_what_listing_gives(name, monkeypatch):
    asking_gives_what_listing_gives(name, SMALL[name], monkeypatch)


@settings(max_examples=amount(10, 30), deadline=None)
@given(st.integers(0, 9999))
def test_any_prices_bound_the_optimum_and_stopping_early_does_too(seed):
    """Shared arms and columns that touch several; random prices, by definition of g."""
    rng = np.random.default_rng(seed)
    arms = Arms.from_arrays(3)
    kernel = rng.dirichlet(np.ones(2), (3, 3, 2))
    problem = Problem(arms, Tabular(kernel, rng.normal(size=(3, 2, 3))), 3, 0.9, rng.integers(2, size=3))
    effect = np.array([[1.0, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 1]])
    columns = Columns(arms, Table({"id": list("abcd")}), sparse.csr_array(effect))
    actions = ActionSet(columns, {"some": Budget(at_least=1, at_most=int(rng.integers(1, 4)))})
    best = joint_optimum(problem, actions).value
    oracle = ActionOracle(actions, 3)
    prices = rng.normal(size=(3, 3, 3))
    prices[..., 0] = 0.0
    rents, treated = oracle.best(prices)
    every = columns.arm_action(actions.enumerate())
    for t in range(3):
        worth = prices[t][np.arange(3), every].sum(axis=1)
        assert rents[t] == pytest.approx(worth.max())
        assert prices[t][np.arange(3), treated[t]].sum() == pytest.approx(worth.max())
    kernel, reward = problem.dynamics.tabular()
    start = problem.start_distribution
    value = priced_arms_value(kernel, reward, start, prices, 3, 0.9, oracle.allowed) + 0.9 ** np.arange(3) @ rents
    assert best <= value + 1e-9
    full = hull_bound(kernel, reward, start, oracle, horizon=3, discount=0.9, tolerance=1e-8)
    early = hull_bound(kernel, reward, start, oracle, horizon=3, discount=0.9, tolerance=1e-8, seconds=0.0)
    tied = hull_bound(kernel, reward, start, oracle, horizon=3, discount=0.9, tolerance=1e-8, constant=True)
    assert best <= full.value + 1e-7
    assert full.value <= min(early.value, tied.value) + 1e-6
    assert not early.converged or early.tries == 1
    assert np.ptp(tied.prices, axis=0).max() == 0.0


def test_values_after_the_last_round_count():
    """A terminal value is what one more round would pay."""
    model = ro.load("capacity", **SMALL["capacity"])
    transition, reward = model.problem.dynamics.tabular()
    terminal = np.random.default_rng(1).normal(size=reward.shape[:2])
    oracle = ActionOracle(model.actions, 2)
    start = model.problem.start_distribution
    # The same as reward on leaving the second round.
    paid = reward + np.einsum("nast,nt->nsa", transition, terminal)
    first = hull_bound(transition, paid, start, oracle, horizon=1, tolerance=1e-8).value
    assert hull_bound(
        transition, reward, start, oracle, horizon=1, terminal=terminal, tolerance=1e-8
    ).value == pytest.approx(first, rel=1e-7)


@pytest.mark.slow
def test_the_published_routes_are_bounded_much_tighter():
    model = ro.load("path")
    hull = ro.bound(model, coupling="hull")
    assert hull.converged
    assert hull.value < 0.95 * ro.bound(model).value


@settings(max_examples=amount(5, 15), deadline=None)
@given(st.integers(0, 9999))
def test_arms_with_several_exclusive_actions_and_lower_limits(seed):
    """One column an arm-action, budgets to be met exactly: optimum <= hull <= relaxation."""
    rng = np.random.default_rng(seed)
    arms = Arms.from_arrays(3)
    kernel = rng.dirichlet(np.ones(2), (3, 3, 2))
    problem = Problem(arms, Tabular(kernel, rng.normal(size=(3, 2, 3))), 3, 0.95, rng.integers(2, size=3))
    columns = Columns.of_arm_actions(arms, 3)
    limit = Budget(equal=2) if rng.integers(2) else Budget(at_least=1, at_most=2)
    actions = ActionSet(columns, {"some": limit})
    found = bound(problem, actions, coupling="hull", tolerance=1e-8)
    assert joint_optimum(problem, actions).value <= found.value + 1e-7
    assert found.value <= bound(problem, actions, coupling="relaxation").value + 1e-5
    assert found.value == pytest.approx(mixture_program(problem, actions), rel=1e-6, abs=1e-6)
