"""The published curve by its formula, charge by charge."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.settings.equity.published import whittle_to_lagrange


def test_a_curve_is_the_arms_value_at_a_budget_s_charge_and_the_charge_of_the_budget():
    """Arms that stay where they are: an acting arm earns 1 a round more, so a charge c leaves max(0, gain - c)."""
    gain, rounds = np.array([3.0, 2.0, 0.5]), 4
    transition = np.ones((3, 2, 1, 1))
    reward = np.stack([np.zeros(3), gain], axis=1)[:, None, :]
    curve = whittle_to_lagrange(
        transition, reward, np.zeros(3, dtype=int), gain, rounds=rounds, discount=1.0, as_written=True
    )
    # No budget: nobody pays. One unit: the charge between the first two indices; then the next two; last the last.
    charges = [2.5, 1.25, 0.5]
    expected = [0.0, *(rounds * (np.maximum(gain - c, 0.0).sum() + c * b) for b, c in enumerate(charges, start=1))]
    assert curve == pytest.approx(expected)
