"""Indices of arms with windows: closed forms, an independent method, the published conventions."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.errors import ModelError
from rmab_opt.planning import whittle_indices
from rmab_opt.settings.inspection.beliefs import BeliefChains, EncodedArms, Windows
from rmab_opt.settings.inspection.indices import encoded_indices, exact_gains, free_indices

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
from inspection import bisected_indices

DISCOUNT = 0.99


def beta_arms(seed: int, n_arms: int, **options) -> BeliefChains:
    rng = np.random.default_rng(seed)
    return BeliefChains.build(rng.beta(5, 1, n_arms), rng.beta(1, 5, n_arms), **options)


@settings(max_examples=amount(4, 12), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cells=st.lists(st.sampled_from(["0-1", "2-4", "5", "0-5", "0-1;3-4", "1;3;5"]), min_size=3, max_size=3),
    allowance=st.integers(1, 2),
    n_slots=st.sampled_from([6, 8]),
)
def test_indices_agree_with_bisection_over_policy_iteration(seed, cells, allowance, n_slots):
    """The oracle walks all encoded states of one arm and knows nothing of renewals."""
    chains, windows = beta_arms(seed, 3, tolerance=0.03), Windows.parse(cells, n_slots, allowance)
    found = encoded_indices(chains, windows, DISCOUNT)
    arms = EncodedArms(chains, windows)
    rng = np.random.default_rng(seed)
    for arm in range(3):
        states = rng.choice(arms.n_states, 6, replace=False)
        slow, places = bisected_indices(arms, arm, DISCOUNT, states)
        for value, (age, slot, used) in zip(slow, places, strict=True):
            mine = found.values[arm, age, slot, used] if used < found.values.shape[3] else 0.0
            assert mine == pytest.approx(value, abs=1e-6)


def test_free_arms_have_the_closed_form_and_the_dense_library_agrees():
    chains = beta_arms(3, 6, tolerance=0.02)
    values = free_indices(chains, DISCOUNT)
    for arm in range(6):
        k = int(chains.length[arm])
        beliefs = chains.beliefs[arm, :k]
        following = np.minimum(np.arange(k) + 1, k - 1)
        transition = np.zeros((1, 2, k, k))
        transition[0, 0, np.arange(k), following] = 1.0
        transition[0, 1, :, 0] = 1.0
        reward = np.stack([beliefs[following], np.ones(k)], axis=1)[None]
        dense = whittle_indices(transition, reward, discount=DISCOUNT)
        assert values[arm, :k] == pytest.approx(dense.values[0], abs=1e-9)


def test_a_free_arm_of_negative_persistence_has_no_closed_form():
    with pytest.raises(ModelError, match="negative persistence"):
        free_indices(BeliefChains.build(np.array([0.2]), np.array([0.7])), DISCOUNT)


def last_slot(beliefs: np.ndarray, k: int) -> float:
    end = len(beliefs) - 1
    return sum(DISCOUNT**i * (beliefs[min(i, end)] - beliefs[min(k + 1 + i, end)]) for i in range(len(beliefs) + 1))


def test_closed_forms_of_two_slot_windows():
    """Where both histories have mixed before the next window: last slot G(k), first slot from G(k) and G(k + 1)."""
    chains = beta_arms(1, 200, rule="step")
    decoupled = np.flatnonzero(chains.length - 1 <= 10)
    chains = chains.of(decoupled)
    start = np.arange(len(chains)) % 11
    found = encoded_indices(chains, Windows.spans(start, 2, 12), DISCOUNT)
    for arm in range(len(chains)):
        k = int(chains.length[arm])
        beliefs = chains.beliefs[arm, :k]
        worth = [last_slot(beliefs, i) for i in range(k)]
        ahead = [worth[i] - DISCOUNT * worth[min(i + 1, k - 1)] for i in range(k)]
        first = [d if d < 0 else min(w, d / (1 - DISCOUNT)) for w, d in zip(worth, ahead, strict=True)]
        assert found.values[arm, :k, start[arm] + 1, 0] == pytest.approx(worth, abs=1e-9)
        assert found.values[arm, :k, start[arm], 0] == pytest.approx(first, abs=1e-8)
    assert found.indexable.all()


def test_effect_free_states_are_exactly_zero_and_waiting_makes_negative_ones():
    chains, start = beta_arms(5, 100), np.full(100, 4)
    found = encoded_indices(chains, Windows.spans(start, 2, 12), DISCOUNT)
    closed = np.delete(np.arange(12), [4, 5])
    assert (found.values[:, :, closed] == 0.0).all()
    assert (found.at(np.zeros(100, dtype=int), 4, 1) == 0.0).all()
    assert (found.values[:, 0, 4, 0] < -1e-3).mean() > 0.5
    assert found.indexable.all()


def test_at_the_chains_end_the_index_is_the_same_in_every_slot_and_the_free_arms():
    chains = beta_arms(2, 60, rule="step")
    chains = chains.of(np.flatnonzero(chains.persistence >= 0))
    found = encoded_indices(chains, Windows.spans(np.full(len(chains), 3), 2, 12), DISCOUNT)
    free = free_indices(chains, DISCOUNT)
    arm, end = np.arange(len(chains)), chains.length - 1
    assert found.values[arm, end, 3, 0] == pytest.approx(found.values[arm, end, 4, 0], abs=1e-8)
    assert found.values[arm, end, 3, 0] == pytest.approx(free[arm, end], abs=1e-8)


@given(seed=st.integers(0, 10**6), slot=st.integers(0, 5), beyond=st.integers(0, 7))
def test_gains_are_what_a_walk_through_the_slots_finds(seed, slot, beyond):
    chains = beta_arms(seed, 3, tolerance=0.05)
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 15, 3)
    gains = exact_gains(chains, age, 6, slot=slot, beyond=beyond)

    def reward(arm: int, visit: int | None) -> float:
        now, total = int(age[arm]), 0.0
        for t in range(slot, 6 + beyond):
            now = 0 if t == visit else now + 1
            total += float(chains.beliefs[arm, min(now, chains.beliefs.shape[1] - 1)])
        return total

    for arm in range(3):
        for t in range(6):
            expected = reward(arm, t) - reward(arm, None) if t >= slot else 0.0
            assert gains[arm, t] == pytest.approx(expected, abs=1e-9)
