"""Whittle indices against a plain bisection, closed forms and published behaviour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.errors import ModelError
from rmab_opt.planning.whittle import (
    passive_set_grows,
    whittle_by_bisection,
    whittle_indices,
    whittle_levels,
)


def random_arms(n_arms: int, n_states: int, seed: int, n_actions: int = 2, concentration: float = 1.0):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(n_states, concentration), (n_arms, n_actions, n_states))
    return transition, rng.random((n_arms, n_states, n_actions))


def gain_by_value_iteration(transition, reward, charge, discount):
    """Worth of acting in each state of one arm, by many sweeps of value iteration: the slow independent oracle."""
    value = np.zeros(np.broadcast_shapes(np.shape(charge), (len(reward),)))
    for _ in range(int(np.log(1e-13) / np.log(discount))):
        q0 = reward[:, 0] + discount * value @ transition[0].T
        q1 = reward[:, 1] - charge + discount * value @ transition[1].T
        value = np.maximum(q0, q1)
    return q1 - q0


@pytest.mark.parametrize("n_states", [2, 3, 7, 33, 70])
def test_at_its_index_a_state_is_indifferent(n_states):
    """Value iteration at the index itself gives equal worth of acting and resting, for small and panelled sizes."""
    transition, reward = random_arms(3, n_states, seed=n_states)
    found = whittle_indices(transition, reward, discount=0.9)
    assert found.indexable.all()
    for arm in range(3):
        for state in range(0, n_states, max(1, n_states // 6)):
            gain = gain_by_value_iteration(transition[arm], reward[arm], found.values[arm, state], 0.9)
            assert abs(gain[state]) < 1e-10


@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(0.3, 0.99))
@settings(max_examples=25, deadline=None)
def test_elimination_agrees_with_bisection(seed, n_states, discount):
    """Two methods that share no arithmetic: pivoting and halving with policy iteration."""
    transition, reward = random_arms(4, n_states, seed, concentration=0.7)
    found = whittle_indices(transition, reward, discount=discount)
    plain = whittle_by_bisection(transition, reward, discount=discount)
    good = found.indexable
    assert np.abs(found.values[good] - plain[good]).max(initial=0) < 1e-8
    assert passive_set_grows(transition[good], reward[good], found.values[good], discount=discount).all()


def test_panels_agree_with_the_dense_elimination():
    from rmab_opt.planning import whittle as module

    transition, reward = random_arms(4, 90, seed=5)
    passive, active = module._systems(transition, 0.97)
    ratio = module._divide(passive, active)
    q = np.matmul(ratio, reward[:, :, 1, None])[..., 0] - reward[:, :, 0]
    with np.errstate(all="ignore"):
        values, good, missed = module._pivot_panels(ratio.copy(), q.copy())
        dense, dense_good = module._pivot_dense(ratio, q)
    assert not missed.any()
    assert np.abs(values - dense).max() < 1e-10
    assert (good == dense_good).all()
    # Rubbish left in memory must not reach the verdict: a busy process once called good arms non-indexable.
    for _ in range(3):
        np.full((4, 90, 90), -1e3)
        assert whittle_indices(transition, reward, discount=0.97).indexable.all()


def test_large_sparse_arms_that_leave_the_panels_are_done_the_plain_way():
    transition, reward = random_arms(2, 60, seed=5, concentration=0.05)
    found = whittle_indices(transition, reward, discount=0.9)
    for arm in range(2):
        for state in (0, 17, 44):
            gain = gain_by_value_iteration(transition[arm], reward[arm], found.values[arm, state], 0.9)
            assert abs(gain[state]) < 1e-9


def test_free_inspection_arm_has_its_closed_form():
    """A reset arm: w(k) = sum_{i<=k} g^i (b_i - b_{k+1}), times g when rewards belong to the current state."""
    size, discount, rate = 8, 0.9, 0.15
    belief = 1 - (1 - rate) ** np.arange(1, size + 1)
    belief = 1 - belief
    transition = np.zeros((1, 2, size, size))
    for k in range(size):
        transition[0, 0, k, min(k + 1, size - 1)] = 1.0
        transition[0, 1, k, 0] = 1.0
    successor = np.stack([belief[np.minimum(np.arange(size) + 1, size - 1)], np.full(size, belief[0])], axis=1)
    found = whittle_indices(transition, successor[None], discount=discount)
    padded = np.append(belief, belief[-1])
    expected = [sum(discount**i * (belief[i] - padded[k + 1]) for i in range(k + 1)) for k in range(size)]
    assert found.indexable.all()
    assert np.abs(found.values[0] - expected).max() < 1e-12


def test_states_where_acting_changes_nothing_have_index_zero_however_many():
    """Identical rows under both actions: the case that a published library calls non-indexable."""
    transition, reward = random_arms(2, 40, seed=1)
    transition[:, 1, 5:] = transition[:, 0, 5:]
    reward[:, 5:, 1] = reward[:, 5:, 0]
    found = whittle_indices(transition, reward, discount=0.95)
    assert found.indexable.all()
    assert np.abs(found.values[:, 5:]).max() < 1e-12
    assert passive_set_grows(transition, reward, found.values, discount=0.95).all()


def test_an_arm_that_is_not_indexable_is_named_and_gets_the_fallback():
    """Sparse random arms: the verdict agrees with scanning charges, and the fallback is a crossing."""
    transition, reward = random_arms(400, 3, seed=3, concentration=0.15)
    found = whittle_indices(transition, reward, discount=0.99)
    bad = np.flatnonzero(~found.indexable)
    assert 0 < bad.size < 40
    assert found.fallback[bad].all()
    proven = 0
    for arm in bad:
        charges = np.linspace(found.values[arm].min() - 0.2, found.values[arm].max() + 0.2, 400)
        gain = gain_by_value_iteration(transition[arm], reward[arm], charges[:, None], 0.99)
        # A state that rests at some charge and acts at a higher one: the definition, on a grid.
        rested = np.maximum.accumulate(gain < -1e-7, axis=0)
        proven += bool((rested & (gain > 1e-7)).any())
        ends = gain_by_value_iteration(transition[arm], reward[arm], np.array([[-120.0], [120.0]]), 0.99)
        assert (ends[0] > 0).all()
        assert (ends[1] < 0).all()
    assert proven >= 0.5 * bad.size


def test_average_reward_is_the_limit_of_patient_discounting():
    transition, reward = random_arms(10, 6, seed=2)
    average = whittle_indices(transition, reward, criterion="average")
    patient = whittle_indices(transition, reward, discount=1 - 1e-7)
    assert average.indexable.all()
    assert np.abs(average.values - patient.values).max() < 1e-5
    assert np.abs(average.values - whittle_by_bisection(transition, reward, discount=1.0)).max() < 1e-9


def test_finite_horizon_index_makes_both_actions_tie_in_its_round():
    transition, reward = random_arms(4, 5, seed=4)
    found = whittle_indices(transition, reward, criterion="finite", horizon=6, discount=0.9)
    assert found.values.shape == (6, 4, 5)
    for arm in range(4):
        for period in range(6):
            for state in range(5):
                charge, value = found.values[period, arm, state], np.zeros(5)
                for _ in range(6 - period):
                    q0 = reward[arm, :, 0] + 0.9 * transition[arm, 0] @ value
                    q1 = reward[arm, :, 1] - charge + 0.9 * transition[arm, 1] @ value
                    value = np.maximum(q0, q1)
                assert abs(q1[state] - q0[state]) < 1e-9
    # In the last round only the reward difference counts.
    assert np.abs(found.values[-1] - (reward[..., 1] - reward[..., 0])).max() < 1e-10


def test_padding_is_found_and_changes_nothing():
    transition, reward = random_arms(6, 4, seed=6)
    padded = np.zeros((6, 2, 9, 9))
    padded[:, :, :4, :4] = transition
    padded[:, :, np.arange(4, 9), np.arange(4, 9)] = 1.0
    wide = np.zeros((6, 9, 2))
    wide[:, :4] = reward
    found = whittle_indices(padded, wide)
    assert np.abs(found.values[:, :4] - whittle_indices(transition, reward).values).max() < 1e-14
    assert (found.values[:, 4:] == 0).all()


def test_level_indices_of_two_levels_are_whittle_indices_and_three_levels_are_fair_charges():
    transition, reward = random_arms(8, 5, seed=7)
    assert (
        np.abs(whittle_levels(transition, reward).values[..., 0] - whittle_indices(transition, reward).values).max()
        < 1e-10
    )
    transition, reward = random_arms(5, 4, seed=8, n_actions=3)
    found = whittle_levels(transition, reward, discount=0.9)
    assert found.indexable.any()
    arm = int(np.flatnonzero(found.indexable)[0])
    levels = np.arange(3.0)
    for charge in np.linspace(-2, 2, 23):
        value = np.zeros(4)
        for _ in range(300):
            q = reward[arm] - charge * levels + 0.9 * np.einsum("asx,x->sa", transition[arm], value)
            value = q.max(axis=1)
        for state in range(4):
            if np.abs(found.values[arm, state] - charge).min() > 1e-6:
                # Levels whose charge exceeds the current one are bought, the others are not.
                assert q[state].argmax() == (found.values[arm, state] > charge).sum()


@pytest.mark.parametrize(
    "change",
    [{"discount": 1.0}, {"criterion": "weekly"}, {"criterion": "finite"}, {"criterion": "finite", "horizon": 0}],
)
def test_bad_options_are_refused(change):
    transition, reward = random_arms(2, 3, seed=0)
    with pytest.raises(ModelError):
        whittle_indices(transition, reward, **change)
    with pytest.raises(ModelError):
        whittle_indices(transition[:, :, :2], reward)


def test_agreement_with_the_published_library():
    """Development dependency only; compared where both call the arm indexable."""
    numba = pytest.importorskip("numba")
    library = pytest.importorskip("markovianbandit")
    assert numba.__version__
    try:
        transition, reward = random_arms(15, 12, seed=9)
        found = whittle_indices(transition, reward, discount=0.95)
        for arm in range(15):
            bandit = library.restless_bandit_from_P0P1_R0R1(
                transition[arm, 0], transition[arm, 1], reward[arm, :, 0], reward[arm, :, 1]
            )
            assert np.abs(bandit.whittle_indices(discount=0.95) - found.values[arm]).max() < 1e-8
    finally:
        # The library turns numpy's floating-point warnings into errors for the whole process.
        np.seterr(divide="warn", over="warn", under="ignore", invalid="warn")
