"""Largest worth of one round's columns at prices, round by round."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.planning import Coupling
from rmab_opt.planning.bound import support
from rmab_opt.planning.occupancy import Polyhedron


@pytest.mark.parametrize("integer", [False, True])
def test_rounds_of_equal_prices_have_equal_worth_and_others_their_own(integer):
    """Two of four arms may be chosen: the two largest prices above zero, whatever stood before and comes after."""
    rows = Polyhedron.from_coupling(Coupling.budgets([2.0]), 4)
    one, other = np.array([3.0, 1.0, -1.0, 2.0]), np.array([-1.0, 0.5, -2.0, -3.0])
    found = support(rows, np.array([one, one, other, other, one, one]), integer=integer)
    assert found == pytest.approx([5.0, 5.0, 0.5, 0.5, 5.0, 5.0], abs=1e-6)
