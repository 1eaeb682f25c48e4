"""Price iteration against scipy's assignment and enumeration."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.planning import assign


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(2, 4), st.booleans(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_value_equals_linear_sum_assignment(seed, n_arms, n_actions, equal, tied):
    """Replicated columns turn the problem into scipy's; ties and full use of budgets included."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (n_arms, n_actions)).astype(float) if tied else rng.normal(size=(n_arms, n_actions))
    budgets = rng.integers(0, n_arms // (n_actions - 1) + 1, n_actions - 1)
    found = assign(scores, budgets, equal=equal)
    worth = scores - scores[:, :1]
    columns = np.repeat(np.arange(1, n_actions), budgets)
    bonus = 1e4 if equal else 0.0
    table = np.concatenate([worth[:, columns] + bonus, np.zeros((n_arms, n_arms))], axis=1)
    rows, picked = linear_sum_assignment(table, maximize=True)
    assert found.value == pytest.approx(table[rows, picked].sum() - bonus * len(columns), abs=1e-7)
    used = np.bincount(found.action, minlength=n_actions)[1:]
    assert (used <= budgets).all()
    if equal:
        assert (used == budgets).all()
    assert worth[np.arange(n_arms), found.action].sum() == pytest.approx(found.value, abs=1e-9)
    # The certificate is re-evaluated here from the prices alone.
    dual = (worth - np.concatenate([[0.0], found.prices])).max(axis=1).sum() + found.prices @ budgets
    assert dual == pytest.approx(found.value, abs=1e-7)


def test_small_case_by_enumeration():
    scores = np.array([[0.0, 3.0, 4.0], [0.0, 2.0, 2.5], [0.0, -1.0, 5.0], [0.0, 1.0, 1.5]])
    best = max(
        sum(scores[n, a] for n, a in enumerate(actions))
        for actions in itertools.product(range(3), repeat=4)
        if actions.count(1) <= 1 and actions.count(2) <= 1
    )
    assert assign(scores, np.array([1, 1])).value == pytest.approx(best)


def test_ten_thousand_arms_within_ten_milliseconds():
    rng = np.random.default_rng(0)
    scores, budgets = rng.normal(size=(10_000, 3)), np.array([1000, 500])
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        found = assign(scores, budgets)
        seconds.append(time.process_time() - begun)
    assert found.method == "prices"
    assert found.gap <= 1e-9 * found.bound
    assert min(seconds) <= 0.010


def test_bad_input_is_refused():
    with pytest.raises(ModelError):
        assign(np.zeros((3, 2)), np.array([1, 1]))
    with pytest.raises(ModelError):
        assign(np.array([[0.0, np.nan]]), np.array([1]))
    with pytest.raises(InfeasibleError):
        assign(np.zeros((3, 3)), np.array([2, 2]), equal=True)
