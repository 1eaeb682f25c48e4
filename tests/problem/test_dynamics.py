"""Simulated moves follow the tables; ladders equal their own tables."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import tabular

from rmab_opt.errors import ModelError
from rmab_opt.problem import Ladder, Tabular


def frequencies(dynamics, state, action, draws, seed):
    states = np.tile(state, (draws, 1))
    following, reward = dynamics.step(states, np.tile(action, (draws, 1)), np.random.default_rng(seed))
    return np.stack([(following == s).mean(axis=0) for s in range(dynamics.n_states)], axis=1), reward.mean(axis=0)


def test_steps_have_the_tables_frequencies():
    rng = np.random.default_rng(3)
    arms = tabular(4, 3, 2, rng)
    state, action = np.array([0, 1, 2, 1]), np.array([0, 1, 1, 0])
    seen, reward = frequencies(arms, state, action, 40_000, 5)
    wanted = arms.transition[np.arange(4), action, state]
    # Five standard errors of a frequency.
    assert np.abs(seen - wanted).max() < 5 * 0.5 / 200
    assert np.allclose(reward, arms.reward[np.arange(4), state, action])


def test_reward_on_arrival_is_realised_there_and_expected_before():
    transition = np.array([[[[0.25, 0.75], [1.0, 0.0]], [[0.0, 1.0], [0.5, 0.5]]]])
    arms = Tabular(transition, np.array([[0.0, 4.0]]), paid_on="arrival")
    assert arms.expected_reward(np.array([0]), np.array([0])).tolist() == [3.0]
    following, reward = arms.step(np.zeros((50, 1), dtype=int), np.zeros((50, 1), dtype=int), np.random.default_rng(0))
    assert np.array_equal(reward, 4.0 * following)


@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_a_ladder_is_its_own_table(seed, n_states, by_state):
    rng = np.random.default_rng(seed)
    shape = (3, n_states, 2) if by_state else (3, 2)
    up = rng.uniform(0, 0.6, shape)
    ladder = Ladder(up, rng.normal(size=(3, n_states)), stay=rng.uniform(0, 0.4, shape))
    transition, reward = ladder.tabular()
    table = Tabular(transition, reward)
    state, action = rng.integers(n_states, size=(7, 3)), rng.integers(2, size=(7, 3))
    assert np.allclose(ladder.expected_reward(state, action), table.expected_reward(state, action))
    following, paid = ladder.step(state, action, np.random.default_rng(1))
    assert np.abs(following - state).max() <= 1
    assert np.array_equal(paid, ladder.reward[np.arange(3), following])


def test_ladder_steps_have_their_tables_frequencies():
    ladder = Ladder(np.array([[0.2, 0.7]]), np.array([[0.0, 1.0, 2.0]]), stay=0.1)
    seen, _ = frequencies(ladder, np.array([1]), np.array([1]), 40_000, 2)
    assert np.abs(seen - [[0.2, 0.1, 0.7]]).max() < 5 * 0.5 / 200


def test_the_same_seed_gives_the_same_steps():
    arms = tabular(5, 3, 2, np.random.default_rng(0))
    state, action = np.zeros(5, dtype=int), np.ones(5, dtype=int)
    one, two = (arms.step(state, action, np.random.default_rng(9))[0] for _ in range(2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize(
    ("transition", "reward", "message"),
    [
        (np.full((1, 2, 2, 2), 0.4), np.zeros((1, 2)), "arm 0, action 0, state 0: probabilities sum to 0.8"),
        (np.array([[[[1.5, -0.5], [0, 1]]] * 2]), np.zeros((1, 2)), "probability of next state 1 is -0.5"),
        (np.full((1, 2, 2, 2), np.nan), np.zeros((1, 2)), "transition is nan at arm 0"),
        (np.full((1, 2, 2, 2), 0.5), np.array([[0.0, np.inf]]), "reward is inf at arm 0, state 1"),
        (np.full((1, 1, 2, 2), 0.5), np.zeros((1, 2)), "at least two actions"),
        (np.full((1, 2, 2, 2), 0.5), np.zeros((1, 3)), "reward has shape (1, 3)"),
    ],
)
def test_wrong_tables_name_arm_action_and_state(transition, reward, message):
    with pytest.raises(ModelError) as caught:
        Tabular(transition, reward)
    assert message in str(caught.value)


def test_ladder_probabilities_above_one_are_refused():
    with pytest.raises(ModelError, match=r"up \+ stay is 1.2 at arm 0, state 0, action 1"):
        Ladder(np.array([[0.1, 0.9]]), np.array([[0.0, 1.0]]), stay=0.3)
