"""The transportation program behind assignments against scipy's matching."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from rmab_opt.planning.assignment import _program, assign


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_program_is_the_best_matching_of_arms_to_units(seed, equal):
    rng = np.random.default_rng(seed)
    count, n_arms = np.array([2, 1, 3]), 7
    worth = rng.normal(size=(3, n_arms))
    units = np.repeat(worth, count, axis=0)
    # Units that need not be used are worth nothing where they would cost.
    arms = linear_sum_assignment(units if equal else np.maximum(units, 0.0), maximize=True)
    best = (units if equal else np.maximum(units, 0.0))[arms].sum()
    found = _program(worth, count, equal)
    used = found.action > 0
    assert worth[found.action[used] - 1, np.flatnonzero(used)].sum() == pytest.approx(best)
    assert (np.bincount(found.action, minlength=4)[1:] <= count).all()
    scores = np.column_stack([np.zeros(n_arms), worth.T])
    assert scores[np.arange(n_arms), assign(scores, count, equal=equal).action].sum() == pytest.approx(best)
