"""Estimates from trajectories: counts by hand, coverage of intervals, reward that grows with data, drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liars import Everything

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Linear
from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import ModelError, RmabError
from rmab_opt.instances.synthetic import delayed
from rmab_opt.problem import Arms, Problem
from rmab_opt.settings.neural_index.estimation import (
    RefittedIndex,
    Trajectories,
    collect,
    count_moves,
    estimate,
    with_estimate,
)
from rmab_opt.settings.neural_index.index import NeuralIndexConfig, simulate_table, train_neural_index


def cohort(n_arms: int = 20, seed: int = 0) -> Model:
    made = delayed(n_arms, 3, 3, seed)
    arms = Arms.from_arrays(n_arms)
    limits = {f"b{a}": Linear(where={"action": a}, at_most=n) for a, n in ((1, 2), (2, 1))}
    return Model(Problem(arms, made.dynamics, 15, 1.0, made.start), ActionSet(Columns.of_arm_actions(arms, 3), limits))


def test_moves_are_counted_and_missing_states_left_out():
    state = np.array([[[0], [1], [-1], [1], [0]]])
    action = np.array([[[1], [0], [0], [1]]])
    counts = count_moves(Trajectories(state, action), 2, 2)
    wanted = np.zeros((1, 2, 2, 2))
    wanted[0, 1, 0, 1] = wanted[0, 1, 1, 0] = 1
    assert np.array_equal(counts, wanted)
    with pytest.raises(ModelError, match="not below 1"):
        count_moves(Trajectories(state, action), 1, 2)
    with pytest.raises(ModelError, match="trajectories"):
        Trajectories(state, action[:, :2])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 20.0), st.sampled_from(["cohort", "even"]))
def test_estimates_are_probabilities_inside_their_intervals(seed, smoothing, prior):
    counts = np.random.default_rng(seed).poisson(1.0, (4, 2, 3, 3)).astype(float)
    found = estimate(counts, smoothing=smoothing, prior=prior)
    assert np.allclose(found.transition.sum(axis=3), 1.0)
    assert (found.transition > 0).all()
    assert (found.low <= found.high).all()
    assert ((found.low >= 0) & (found.high <= 1)).all()


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Even prior, truths drawn from it: 95 % intervals hold the truth in 95 % of the cases."""
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(3), (400, 2, 3))
    counts = np.stack([rng.multinomial(8, row) for row in truth.reshape(-1, 3)]).reshape(truth.shape)
    found = estimate(counts, smoothing=3.0, prior="even")
    inside = ((found.low <= truth) & (truth <= found.high)).mean()
    assert inside == pytest.approx(0.95, abs=0.01)
    with pytest.raises(ModelError, match="smoothing"):
        estimate(counts, smoothing=0.0)


@pytest.mark.slow
def test_more_data_gives_better_estimates_and_rewards():
    model = cohort(30)
    truth = model.problem.dynamics.tabular()[0]
    network = train_neural_index(model, NeuralIndexConfig(steps=300, log_episodes=0)).network
    errors, rewards = [], []
    for episodes in (1, 200):
        seen = collect(model, make_policy("random", model), episodes, seed=1)
        found = estimate(count_moves(seen, 3, 3))
        errors.append(np.abs(found.transition - truth).mean())
        table = network.indices(with_estimate(model.problem, found))
        rewards.append(simulate_table(model, table, 40, np.random.default_rng(3)).mean())
    exact = simulate_table(model, network.indices(model.problem), 40, np.random.default_rng(3)).mean()
    assert errors[1] < 0.5 * errors[0]
    assert rewards[0] < rewards[1] <= 1.02 * exact


@pytest.mark.slow
def test_refitting_as_it_acts_comes_near_the_truth_without_reading_it():
    model = cohort(20)
    config = NeuralIndexConfig(steps=300, uniform=0.25, weight_decay=1.0, log_episodes=0)
    network = train_neural_index(cohort(60, seed=3), config).network
    truth = model.problem.dynamics.tabular()[0]
    policy = RefittedIndex(model, network)
    first = np.abs(estimate(policy.counts).transition - truth).mean()
    earned = policy.run(300, seed=1)[100:].mean()
    informed = RefittedIndex(model, network, every=10**6)
    informed.table = network.indices(model.problem)
    assert policy.refits == 301
    assert policy.counts.sum() == 300 * 20
    assert np.abs(estimate(policy.counts).transition - truth).mean() < 0.7 * first
    assert earned > 0.93 * informed.run(300, seed=1)[100:].mean()
    assert policy.decide(model.problem.start).violations == {}
    with pytest.raises(ModelError, match="every 0"):
        RefittedIndex(model, network, every=0)


def test_forgetting_keeps_a_window_of_evidence():
    model = cohort(10)
    network = train_neural_index(model, NeuralIndexConfig(steps=5, log_episodes=0)).network
    policy = RefittedIndex(model, network, every=50, forget=0.9)
    policy.run(100)
    assert policy.counts.sum() == pytest.approx(10 * (1 - 0.9**100) / 0.1)


def test_what_a_policy_says_of_its_own_action_is_not_collected():
    model = cohort(5)
    with pytest.raises(RmabError) as refused:
        collect(model, Everything(model), 2)
    assert "everything" in str(refused.value)
    assert next(iter(model.actions.constraints)) in str(refused.value)
