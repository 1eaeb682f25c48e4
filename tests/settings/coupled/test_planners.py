"""Planners that see the coupling, against finite differences, exact tables and each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amounts import amount
from settings.coupled.tiny import tiny

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Model, Situation, decide
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.instances import generate
from rmab_opt.planning import CoupledTable
from rmab_opt.planning.improve import Rollouts, base_rule, best_action, improve, on_arrays
from rmab_opt.planning.mean_field import MeanField, _Fill, _Given, _Measured
from rmab_opt.planning.occupancy import polyhedron
from rmab_opt.planning.relaxation import decoupled_bound, information_bound
from rmab_opt.programme.front_door import choose_rule
from rmab_opt.settings.coupled.within import AssortmentRevenue, CrowdedVisits, HeldSessions, best_assortment


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
    one = (np.broadcast_to(one[0], (n,)), *one[1:])
    if world == "influencers":
        own = problem.dynamics.own
        slope = own[:, 1, 0] - own[:, 0, 0] + (own[:, 1, 1] - own[:, 1, 0] - own[:, 0, 1] + own[:, 0, 0]) * act[:, 0]
        passive = own[:, 1, 0] - own[:, 0, 0]
        scale = np.divide(slope, passive, out=np.zeros(n), where=passive != 0)
        assert one[0] * scale == pytest.approx(two[0], abs=1e-10)
        assert by_action == pytest.approx(two[1], abs=1e-10)
    else:
        assert one[0] == pytest.approx(two[0], abs=1e-10)


@pytest.mark.parametrize("world", ["crowding", "sessions", "fatigue"])
def test_given_derivatives_of_loads_are_the_measured_ones(world):
    """Every part, the shared state's included; several situations at once."""
    problem, rng = tiny(world, 0).problem, np.random.default_rng(2)
    n, k = problem.n_arms, len(problem.shared_names)
    mean, weight = rng.random((3, n)), rng.normal(size=(3, n))
    act, costate = np.repeat(rng.uniform(0.3, 1.0, (3, n, 1)), 2, axis=2), rng.normal(size=(3, k))
    shared = rng.uniform(0.5, 1.5, (3, k))
    given, measured = _Given(problem.dynamics), _Measured(problem)
    for row in range(3):
        at = mean[row], act[row], shared[row]
        for one, two in zip(given.at(*at), measured.at(*at), strict=True):
            assert one == pytest.approx(two, abs=1e-12)
        one, two = (about.pull(*at, weight[row], costate[row]) for about in (given, measured))
        for part, other in zip(one, two, strict=True):
            assert np.broadcast_to(part, other.shape) == pytest.approx(other, abs=1e-10)
    together = given.pull(mean, act, shared, weight, costate)
    for part, other in zip(together, given.pull(mean[1], act[1], shared[1], weight[1], costate[1]), strict=True):
        assert np.broadcast_to(part, (3, *np.shape(other)))[1] == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("world", ["contagion", "villages", "fatigue", "stock"])
def test_several_situations_are_planned_for_as_each_alone(world):
    model = tiny(world, 0)
    problem, rng = model.problem, np.random.default_rng(0)
    states = rng.integers(2, size=(4, problem.n_arms))
    shared = None
    if problem.shared_names:
        shared = np.stack([np.floor(rng.uniform(0, 3, len(problem.shared_names))) for _ in states])
    planner = MeanField(problem, model.actions)
    together = planner.scores(states, 1, None, shared)
    for k, state in enumerate(states):
        alone = planner.scores(state, 1, None, None if shared is None else shared[k])
        assert together[k] == pytest.approx(alone, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_by_sorting_are_those_of_the_program(seed):
    rng = np.random.default_rng(seed)
    arms = generate("contagion", n_arms=6, villages=2, seed=seed).problem.arms
    gain, mean = rng.normal(size=(6, 2)), rng.random(6)
    mass = np.stack([1 - mean, mean], axis=1)
    rules = (
        {"all": Budget(at_most=2)},
        {"all": Budget(equal=3)},
        {"all": Budget(at_most=3), "few": Linear(per="village", at_most=1)},
    )
    for rule in rules:
        fill = _Fill(ActionSet(arms, rule))
        assert fill.rows is None
        shares, price = (part[0] for part in fill(gain[None], mass[None]))
        other = _Fill(ActionSet(arms, rule))
        other.rows = polyhedron(ActionSet(arms, rule), 2)
        expected, charged = (part[0] for part in other(gain[None], mass[None]))
        assert (shares * mass * gain).sum() == pytest.approx((expected * mass * gain).sum(), abs=1e-9)
        # Whatever the dual solution is, prices are worth the same: what is left of each gain, and the limits' price.
        left, right = (np.maximum(gain - part[:, None], 0.0) * mass for part in (price, charged))
        used = (shares * mass).sum(axis=1)
        assert left.sum() + (price * used).sum() == pytest.approx(right.sum() + (charged * used).sum(), abs=1e-9)


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


@pytest.mark.parametrize("world", amount(["contagion"], ["contagion", "stock"]))
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


@pytest.mark.parametrize(
    "world",
    amount(
        ["contagion", "sessions", "stock"],
        ["contagion", "villages", "crowding", "sessions", "fatigue", "stock", "influencers"],
    ),
)
def test_the_bound_by_single_arms_is_above_the_optimum(world):
    """On every small world against the exact optimum; of arms that only a stock couples it is close."""
    model = tiny(world, 0)
    optimum = CoupledTable(model.problem, model.actions).optimum()[0]
    found = decoupled_bound(model.problem, model.actions, paths=60)
    assert found.value >= optimum - 1e-9
    assert found.mean >= optimum - 4.0 * found.error - 1e-9
    if world == "stock":
        assert found.mean <= 1.06 * optimum


def test_coupled_arms_have_a_statistical_bound_and_shares_with_intervals():
    model = ro.load("contagion", n_arms=8, horizon=5)
    found = ro.bound(model)
    assert str(found).startswith("statistical bound (99 %)")
    assert "proven" not in str(found)
    table = ro.evaluate(model, ["hand"], episodes=4)
    row = table.rows[0]
    assert 0.0 < row["share_low"] < row["share_of_bound"] < row["share_high"]
    assert table.header["bound_kind"] == "statistical bound (99 %)"
    assert row["share_of_bound"] == pytest.approx(row["reward"] / found.mean)
    with pytest.raises(ModelError, match="no option"):
        ro.bound(model, coupling="hull")


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


def _exact(model, rule):
    """Exact value of a rule on arrays, asked once a joint state."""
    table = CoupledTable(model.problem, model.actions)

    def asked(state, period, shared):
        return rule(state[None], period, None if shared is None else shared[None])[0]

    return table.of(asked)[0], table


@pytest.mark.slow
def test_a_class_is_planned_though_nobody_gains_from_coming_alone():
    """Acting on nobody is a point that no small change improves; planned from acting on all, classes are held."""
    model = tiny("sessions", 0)
    value, table = _exact(model, on_arrays(model.problem, model.actions, "mean_field"))
    assert value > 0.998 * table.optimum()[0]
    frozen = MeanField(model.problem, model.actions, frozen=True)
    assert not frozen.plan(model.problem.start, 0).act.any()


@pytest.mark.slow
@pytest.mark.parametrize("world", ["contagion", "villages", "crowding", "sessions", "fatigue"])
def test_the_plan_is_worth_no_less_than_the_rule_of_thumb(world):
    """By exact values of both."""
    model = tiny(world, 1)
    rules = {name: on_arrays(model.problem, model.actions, name) for name in ("mean_field", "hand")}
    assert _exact(model, rules["mean_field"])[0] >= _exact(model, rules["hand"])[0] - 1e-9


def test_a_plan_that_loses_to_the_rule_of_thumb_follows_it():
    """Tired workers: resting pays by leaps that slopes do not see."""
    large = ro.load("tiring")
    plan = MeanField(large.problem, large.actions).plan(large.problem.start, 0, large.problem.start_shared)
    assert plan.by_hand
    states, shared = large.problem.start[None], large.problem.start_shared[None]
    chosen = [on_arrays(large.problem, large.actions, name)(states, 0, shared) for name in ("mean_field", "hand")]
    assert np.array_equal(*chosen)
    followed = base_rule(large.problem, large.actions, "mean_field")
    assert np.array_equal(followed(states, 0, shared), chosen[1])


@pytest.mark.parametrize(("world", "objective"), [("crowding", CrowdedVisits), ("sessions", HeldSessions)])
def test_the_planned_round_is_the_best_of_all_by_the_plans_values(world, objective):
    model = replace(tiny(world, 0), objective=objective(), solver="exact")
    problem = model.problem
    policy, planner = make_policy("planned_round", model), MeanField(problem, model.actions)
    everything = model.actions.enumerate().astype(np.int64)
    for state in np.random.default_rng(0).integers(2, size=(4, problem.n_arms)):
        ahead = planner.plan(state, 1).values[1]
        worth = problem.dynamics.worth + ahead[:, 1] - ahead[:, 0]
        best = (worth * problem.dynamics.chance_of_one(state, everything)).sum(axis=1).max()
        made = policy.decide(state, 1)
        assert made.value == pytest.approx(best, abs=1e-6)
        assert worth @ problem.dynamics.chance_of_one(state, made.action) == pytest.approx(best, abs=1e-6)
    with pytest.raises(CapabilityError, match="round's own program"):
        make_policy("planned_round", tiny("contagion", 0))


def test_decisions_on_coupled_arms_look_beyond_the_round():
    contagion, sessions, shown = ro.load("contagion"), ro.load("sessions"), ro.load("assortment")
    assert choose_rule(contagion, 0).policy == "mean_field"
    assert choose_rule(ro.load("influencers"), 0).policy == "mean_field"
    assert choose_rule(sessions, 0).policy == "planned_round"
    assert choose_rule(contagion, 19).policy == "myopic"
    assert choose_rule(sessions, 19).policy == ""
    assert choose_rule(shown, 0).policy == ""
    assert choose_rule(sessions, 0, "model").policy == "model"


@pytest.mark.slow
def test_the_expert_is_the_enumeration_on_a_thousand_states():
    """Published size: the best 4 of 20 for the next customer among all 4,845 sets, along the expert's own episodes."""
    model, rng, seen = ro.load("assortment"), np.random.default_rng(0), 0
    everything = model.actions.enumerate().astype(np.float64)
    assert len(everything) == 4845
    for seed in range(13):
        problem = model.instance(seed).problem
        world, state, shared = problem.dynamics, problem.start, problem.start_shared
        for _ in range(problem.horizon):
            liked = world.attraction(shared)
            best = float((everything @ (world.worth * liked) / (1.0 + everything @ liked)).max())
            action, revenue = best_assortment(world, model.actions, shared)
            assert revenue == pytest.approx(best, rel=1e-9)
            state, _, shared = problem.step(state, action, shared, rng)
            seen += 1
    assert seen >= 1000
