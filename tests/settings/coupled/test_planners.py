"""Planners that see the coupling, against finite differences, exact tables and each other."""

from __future__ import annotations

import numpy as np
import pytest
from settings.coupled.tiny import tiny

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Model, Situation, decide
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CapabilityError
from rmab_opt.instances import generate
from rmab_opt.planning import CoupledTable
from rmab_opt.planning.improve import Rollouts, base_rule, best_action, improve
from rmab_opt.planning.mean_field import MeanField, _Fill, _Given, _Measured
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.planning.relaxation import information_bound
from rmab_opt.settings.coupled.within import AssortmentRevenue, best_assortment


@pytest.mark.parametrize("world", ["contagion", "villages", "influencers"])
def test_given_derivatives_are_the_measured_ones(world):
    """Where action does not depend on the state, an arm's own mean is all that the complex steps need."""
    problem, rng = tiny(world, 0).problem, np.random.default_rng(1)
    n = problem.n_arms
    if world != "influencers":
        # What an ill arm exerts on itself counts only where its own state is a mean.
        np.fill_diagonal(problem.dynamics.reach, 0.0)
    mean, act, weight = rng.random(n), np.repeat(rng.random((n, 1)), 2, axis=1), rng.normal(size=n)
    given, measured = _Given(problem.dynamics), _Measured(problem)
    for one, two in zip(given.at(mean, act, np.zeros(0)), measured.at(mean, act, np.zeros(0)), strict=True):
        # An influencer's own chance carries no spread by others, and contacts see influencers at their means.
        assert one == pytest.approx(two, abs=1e-12)
    one = given.pull(mean, act, np.zeros(0), weight, np.zeros(0))
    two = measured.pull(mean, act, np.zeros(0), weight, np.zeros(0))
    by_action = one[1] * (1 - mean) + one[2] * mean
    if world == "influencers":
        own = problem.dynamics.own
        slope = own[:, 1, 0] - own[:, 0, 0] + (own[:, 1, 1] - own[:, 1, 0] - own[:, 0, 1] + own[:, 0, 0]) * act[:, 0]
        passive = own[:, 1, 0] - own[:, 0, 0]
        scale = np.divide(slope, passive, out=np.zeros(n), where=passive != 0)
        assert one[0] * scale == pytest.approx(two[0], abs=1e-10)
        assert by_action == pytest.approx(two[1], abs=1e-10)
    else:
        assert one[0] == pytest.approx(two[0], abs=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_by_sorting_are_those_of_the_program(seed):
    rng = np.random.default_rng(seed)
    arms = generate("contagion", n_arms=6, seed=seed).problem.arms
    gain, mean = rng.normal(size=(6, 2)), rng.random(6)
    mass = np.stack([1 - mean, mean], axis=1)
    for rule in (Budget(at_most=2), Budget(equal=3)):
        fill = _Fill(ActionSet(arms, {"budget": rule}))
        assert fill.count is not None
        sorted_shares, _ = fill(gain, mass)
        # A second row that never binds: the same set by the program.
        other = _Fill(ActionSet(arms, {"budget": rule, "some": Linear(where={"village": "v0"}, at_most=6)}))
        other.count, other.rows = None, polyhedron(ActionSet(arms, {"budget": rule}), 2)
        shares, price = other(gain, mass)
        assert (shares * mass * gain).sum() == pytest.approx((sorted_shares * mass * gain).sum(), abs=1e-9)
        assert np.ptp(price) < 1e-9


def test_the_costate_finds_what_planning_by_arms_cannot():
    """The exact value of the planner on the small contagion: near the optimum; without the costate it is not."""
    model = tiny("contagion", 0)
    table = CoupledTable(model.problem, model.actions)
    optimum = table.optimum()[0]
    # The plan from the start as a table of indices: a policy on arrays, asked once a joint state.
    worth = {}
    for frozen in (False, True):
        rule = base_rule(model.problem, model.actions, f"mean_field:frozen={'true' if frozen else 'false'}")
        worth[frozen] = table.of(lambda state, period, shared, rule=rule: rule(state[None], period, None)[0])[0]
    assert worth[False] > 0.97 * optimum
    assert worth[True] < 0.8 * optimum


def test_improvement_keeps_the_base_unless_fresh_draws_say_otherwise():
    model = tiny("contagion", 0)
    problem, actions = model.problem, model.actions
    good = Rollouts(problem, actions, base_rule(problem, actions, "hand"))
    found = improve(good, actions, problem.start, 0, None, 64, np.random.default_rng(0))
    assert (found.action == [1, 0, 0, 0, 0]).all()
    poor = Rollouts(problem, actions, base_rule(problem, actions, "myopic"))
    better = improve(poor, actions, problem.start, 0, None, 64, np.random.default_rng(0))
    assert (better.action == [1, 0, 0, 0, 0]).all()
    assert (better.base == [0, 0, 1, 0, 0]).all()
    assert better.gain > 3 * better.error > 0
    kept = improve(poor, actions, problem.start, 0, None, 64, np.random.default_rng(0), keep=1e9)
    assert (kept.action == kept.base).all()
    assert kept.gain == 0.0


def test_improvement_keeps_classes_that_no_single_invitation_starts():
    model = tiny("sessions", 0)
    policy = make_policy("improve:base=hand,draws=16", model)
    assert policy.decide(model.problem.start, 0, np.random.default_rng(0)).action.sum() == 3


def test_a_simulator_alone_is_enough_to_improve():
    """With the equations hidden behind ``step`` the same action is found."""
    model = tiny("contagion", 0)

    class Hidden:
        n_arms, n_states, n_actions = 5, 2, 2

        def step(self, state, action, rng):
            return model.problem.dynamics.step(state, action, rng)

        def expected_reward(self, state, action):
            return model.problem.dynamics.expected_reward(state, action)

    from rmab_opt.problem import Problem

    problem = Problem(model.problem.arms, Hidden(), 8, 1.0, model.problem.start)
    hidden = Model(problem, model.actions)
    made = make_policy("improve:base=myopic,draws=32", hidden).decide(problem.start, 0, np.random.default_rng(0))
    assert (made.action == [1, 0, 0, 0, 0]).all()
    with pytest.raises(CapabilityError, match="p_next"):
        make_policy("mean_field", hidden)


@pytest.mark.parametrize("world", ["contagion", "stock"])
def test_the_statistical_bound_is_above_the_optimum_and_tight_with_the_true_values(world):
    model = tiny(world, 0)
    table = CoupledTable(model.problem, model.actions)
    optimum, taken = table.optimum()
    exact = information_bound(table, paths=3, values=table.values(taken))
    assert exact.mean == pytest.approx(optimum, abs=1e-9)
    assert exact.error == pytest.approx(0.0, abs=1e-9)
    planned, plain = information_bound(table, paths=12), information_bound(table, paths=12, penalty=False)
    assert optimum - 1e-9 <= planned.value < plain.value
    assert "statistical bound (99 %)" in str(planned)
    share, low, high = planned.share(np.array([optimum, optimum * 0.9]))
    assert low < share < high <= 1.2


@pytest.mark.parametrize("rules", [{"shown": Budget(equal=3)}, {"shown": Budget(at_most=4, at_least=1)}])
def test_the_best_assortment_is_the_best_of_all(rules):
    rng = np.random.default_rng(0)
    for seed in range(5):
        problem = generate("assortment", n_arms=7, seed=seed).problem
        actions = ActionSet(problem.arms, rules)
        everything = actions.enumerate().astype(np.int64)
        shared = problem.start_shared * rng.uniform(0.9, 1.1, len(problem.start_shared))
        situation = Situation(problem, actions.columns, problem.start, 0, shared)
        best = AssortmentRevenue().batch_value(everything, situation).max()
        action, revenue = best_assortment(problem.dynamics, actions, shared)
        assert revenue == pytest.approx(best, rel=1e-9)
        assert actions.allows(action)
        made = decide(
            Model(problem, actions, AssortmentRevenue(), solver="exact"), problem.start, shared=shared, method="program"
        )
        assert made.value == pytest.approx(best, rel=1e-6)


def test_scores_are_maximised_under_limits_that_depend_on_the_stock():
    model = tiny("stock", 0)
    rule = base_rule(model.problem, model.actions, "hand")
    states = np.zeros((3, 5), dtype=int)
    shared = np.array([[0.0], [1.0], [6.0]])
    assert rule(states, 0, shared).sum(axis=1).tolist() == [0, 1, 2]
    assert (best_action(model.actions.at(0, {"stock": 1.0}), np.ones((1, 5))).sum(axis=1) == 1).all()


def test_a_season_is_priced_so_that_the_stock_lasts():
    problem = tiny("stock", 0).problem
    planner = MeanField(problem, tiny("stock", 0).actions)
    plan = planner.plan(problem.start, 0, problem.start_shared)
    used = sum(((1 - m) * a[:, 0] + m * a[:, 1]).sum() for m, a in zip(plan.mean[:-1], plan.act, strict=True))
    assert used < 7.0
    free = planner.plan(problem.start, 0, np.array([100.0]))
    assert (free.index[0] >= plan.index[0] - 1e-9).all()
