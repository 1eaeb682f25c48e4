"""Policy improvement on contact graphs: rules on arrays, common chance, exact expectations, what one step reaches."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount

import rmab_opt as ro
from rmab_opt.decisions.policies.improved import Improve
from rmab_opt.decisions.policy import make_policy
from rmab_opt.planning.improve import Rollouts, improve
from rmab_opt.settings.networked.bound import _PricedArms, contact_bound
from rmab_opt.settings.networked.coverage import Coverage, celf
from rmab_opt.settings.networked.instances import TINY
from rmab_opt.settings.networked.rollouts import BatchLookahead, ExactRollouts
from rmab_opt.settings.networked.spread import OneRound, backward_induction, policy_value, set_bits


def tiny(name, horizon, seed=0):
    model, given = TINY[name]
    return ro.load(model, seed=seed, samples=20, **given, horizon=horizon)


def arm_actions(model):
    return model.actions.columns.arm_action(model.actions.enumerate().astype(np.int64))


def optimum(model):
    problem = model.problem
    return backward_induction(problem.dynamics, arm_actions(model), problem.horizon, problem.discount)[0][0, 0]


@pytest.mark.parametrize("weights", ["reward", "never_again", "priced", "contacts"])
@pytest.mark.parametrize("source", ["contacts_lapsing", "contacts_influencers"])
def test_the_rule_on_arrays_takes_what_lazy_greedy_takes_state_by_state(source, weights):
    model = ro.load(source, n_arms=30, **({"n_contacts": 60} if source == "contacts_lapsing" else {"influencers": 5}))
    rule = BatchLookahead(model.problem, model.actions, weights)
    states = np.random.default_rng(3).integers(0, 2, (40, 30))
    many = rule(states, 2)
    for state, chosen in zip(states, many, strict=True):
        one = OneRound(model.problem.dynamics, rule.live, state, rule.worth(2))
        cover = Coverage(0.0, one.alone_gain, one.share, one.by_source, one.idle_rows())
        room = model.actions.shape.room()
        celf(cover, room)
        assert np.flatnonzero(chosen).tolist() == np.flatnonzero(room.action).tolist()


def test_rules_on_arrays_obey_other_limits_than_a_count():
    model = ro.load("contacts_quotas", n_arms=20, n_contacts=30)
    chosen = BatchLookahead(model.problem, model.actions, "priced")(np.zeros((3, 20), dtype=np.int64), 0)
    assert all(model.actions.allows(row) and row.sum() for row in chosen)


def test_first_actions_meet_the_same_chance_and_every_state_its_exact_one():
    model = tiny("lapsing", 5)
    dynamics = model.problem.dynamics
    states = np.broadcast_to(np.array([1, 0, 0, 1, 0, 0, 0, 0]), (2, 3, 4000, 8))
    acted = np.zeros((2, 3, 1, 8), dtype=np.int64)
    acted[:, 1, 0, 4] = 1
    acted = np.broadcast_to(acted, states.shape)
    moved = dynamics.moved_together(states, acted, np.random.default_rng(0))
    # The first and the third action are the same; the second only ever adds.
    assert np.array_equal(moved[:, 0], moved[:, 2])
    assert (moved[:, 1] >= moved[:, 0]).all()
    assert not np.array_equal(moved[0], moved[1])
    for k in (0, 1):
        exact = dynamics.activation(states[0, 0, 0], acted[0, k, 0])
        assert moved[:, k].mean(axis=(0, 1)) == pytest.approx(exact, abs=4 * 0.5 / 8000**0.5)


def test_exact_expectations_are_the_value_of_the_base_and_the_mean_of_simulated_ones():
    model = tiny("influencers", 5)
    problem, actions = model.problem, model.actions
    rule = BatchLookahead(problem, actions, "priced")
    exact = ExactRollouts(problem, actions, rule)
    states = set_bits(8).astype(np.int64)
    chosen = np.stack([actions.columns.arm_action(rule(states, t)) for t in range(5)])
    value = policy_value(problem.dynamics, chosen, 5, problem.discount)
    assert exact.values[0] == pytest.approx(value)
    first = np.eye(8, dtype=np.int64)[[0, 7]]
    drawn = Rollouts(problem, actions, rule)(states[0], 0, None, first, 3000, np.random.default_rng(1))
    wanted = exact(states[0], 0, None, first, 1, np.random.default_rng(1))[:, 0]
    assert np.abs(drawn.mean(axis=1) - wanted).max() < 4 * drawn.std(axis=1).max() / 3000**0.5


def improved_share(model):
    """Share of the optimal gain over doing nothing of the base and of one step of improvement."""
    problem, actions = model.problem, model.actions
    states, horizon = set_bits(8).astype(np.int64), problem.horizon
    rollouts = ExactRollouts(problem, actions, BatchLookahead(problem, actions, "priced"))
    rng = np.random.default_rng(0)
    chosen = np.stack(
        [
            actions.columns.arm_action(
                np.stack([improve(rollouts, actions, state, t, None, 4, rng).action for state in states])
            )
            for t in range(horizon)
        ]
    )
    none = policy_value(problem.dynamics, np.zeros_like(chosen), horizon, problem.discount)[0]
    room = optimum(model) - none
    reached = policy_value(problem.dynamics, chosen, horizon, problem.discount)[0]
    return (rollouts.values[0][0] - none) / room, (reached - none) / room


def test_one_step_finds_the_influencers_that_looking_one_round_ahead_misses():
    base, reached = improved_share(tiny("influencers", 5))
    assert base < 0.95
    assert 0.99 <= reached <= 1 + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", list(TINY))
def test_one_step_is_within_a_per_cent_of_the_optimal_gain_in_all_regimes(name, seed):
    base, reached = improved_share(tiny(name, 12, seed))
    assert base - 1e-9 <= reached <= 1 + 1e-9
    assert reached >= 0.99


def test_the_policy_says_what_it_gained_and_keeps_limits_on_larger_graphs():
    model = ro.load("contacts_influencers", n_arms=40, influencers=6, horizon=8, at_most=2)
    policy = Improve(model, draws=8)
    assert policy.base == "lookahead_priced"
    made = policy.decide(np.zeros(40, dtype=np.int64), 0, np.random.default_rng(0))
    assert made.action.sum() <= 2
    assert "lookahead_priced" in made.notes["action"]
    quotas = ro.load("contacts_quotas", n_arms=20, n_contacts=30, horizon=4)
    assert make_policy("improve", quotas).decide(np.zeros(20, dtype=np.int64), 0).violations == {}
    # Without time the base's own action is the answer.
    hurried = Improve(model, draws=8, keep=1e9, seconds=1e-9)
    base = make_policy("lookahead_priced", model).decide(np.zeros(40, dtype=np.int64), 0)
    assert np.array_equal(hurried.decide(np.zeros(40, dtype=np.int64), 0).action, base.action)


@pytest.mark.parametrize("name", amount(list(TINY)[::5], list(TINY)))
def test_no_policy_is_above_the_bound_whatever_the_prices(name):
    model = tiny(name, 5, seed=3)
    problem, best = model.problem, optimum(model)
    bound = contact_bound(problem, model.actions)
    assert best - 1e-9 <= bound.value <= 1.35 * best
    arms, rng = _PricedArms(problem, model.actions, None), np.random.default_rng(0)
    for scale in (0.0, 0.3, 3.0):
        rows = [scale * rng.random(len(limit)) for limit in arms.limits]
        assert arms.value(scale * rng.random((5, 8)), rows)[0] >= bound.value - 1e-6
    active = np.ones(8, dtype=np.int64)
    value = backward_induction(problem.dynamics, arm_actions(model), 5, problem.discount)[0][0, -1]
    assert ro.bound(model, active).value >= value - 1e-9


def test_influencers_come_last_and_only_they_are_heard():
    problem = ro.load("contacts_influencers", n_arms=30, influencers=4, seed=2).problem
    graph = problem.dynamics.graph
    assert graph.directed
    assert (graph.tail >= 26).all()
    assert np.bincount(graph.head, minlength=30).tolist() == [3] * 26 + [0] * 4
    assert problem.arms.text("role")[25:27] == ["member", "influencer"]
    with pytest.raises(ro.errors.ModelError, match="influencers"):
        ro.load("contacts_influencers", n_arms=4, influencers=4)


@pytest.mark.slow
def test_a_bound_cut_short_holds_and_is_no_better_than_the_whole_one():
    model = ro.load("contacts", n_arms=40)
    whole, cut = ro.bound(model), ro.bound(model, seconds=0.0)
    assert whole.value <= cut.value < np.inf
    priced = _PricedArms(model.problem, model.actions, None)
    assert priced.value(*priced.search())[0] == whole.value
    # The first prices alone: nothing of the search is left.
    assert cut.value > whole.value
