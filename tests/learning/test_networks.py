"""What tells arms without tables apart."""

from __future__ import annotations

import numpy as np

from rmab_opt.learning.networks import MEASURED_PAIRS, _measured
from rmab_opt.problem import Arms, Problem, Tabular


def test_arms_are_measured_at_some_states_of_many_under_every_action():
    """Twenty-one of fifty states, as 64 pairs allow for three actions; arms alike have equal rows."""
    rng = np.random.default_rng(0)
    transition, reward = rng.dirichlet(np.ones(50), (2, 3, 50)), rng.random((2, 50, 3))
    twins = Tabular(transition[[0, 1, 0]], reward[[0, 1, 0]])
    found = _measured(Problem(Arms.from_arrays(3), twins, horizon=2), np.random.default_rng(0))
    states = np.unique(np.linspace(0, 49, MEASURED_PAIRS // 3).astype(int))
    assert found.shape == (3, 2 * 3 * len(states))
    earned = found[:, ::2].reshape(3, len(states), 3)
    assert np.allclose(earned, reward[[0, 1, 0]][:, states])
    assert np.array_equal(earned[0], earned[2])
