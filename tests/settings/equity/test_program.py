"""Identical arms move as one pool in the program: the same plan as arm by arm."""

from __future__ import annotations

import numpy as np
import pytest
from fair_plans import planned

from rmab_opt.planning import Coupling
from rmab_opt.settings.equity.groups import Groups

RNG = np.random.default_rng(0)
MOVE, PAY = RNG.dirichlet(np.ones(3), (2, 2, 3)), np.sort(RNG.random((2, 3, 2)), axis=2)
GROUPS = Groups(("a", "b"), np.array([[True, True, False, False], [False, False, True, True]]))


@pytest.mark.parametrize("by_state", [False, True])
def test_costs_of_single_arms_go_with_the_pool_they_are_in(by_state):
    """Twins in each group, dearer in the second: by the program and by prices, and with arms that hardly differ."""
    kind = np.array([0, 0, 1, 1])
    cost = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 2.5], [0.0, 2.5]])
    coupling = Coupling.knapsack(np.repeat(cost[:, None], 3, axis=1) if by_state else cost, 3.0)
    start = np.array([0, 0, 0, 0])

    def plan(move: np.ndarray, method: str) -> np.ndarray:
        return planned(move, PAY[kind], start, GROUPS, coupling, horizon=3, welfare="max_min", method=method).lower

    apart = MOVE[kind].copy()
    apart[1] = (1 - 1e-7) * apart[1] + 1e-7 / 3
    apart[3] = (1 - 1e-7) * apart[3] + 1e-7 / 3
    together = plan(MOVE[kind], "program")
    assert together == pytest.approx(plan(apart, "program"), abs=1e-5)
    assert together == pytest.approx(plan(MOVE[kind], "prices"), abs=1e-5)
