"""Rows over arm-actions: which resources are such rows."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.errors import CapabilityError
from rmab_opt.planning import Coupling
from rmab_opt.planning.occupancy import Polyhedron, occupancy_model
from rmab_opt.solver import Session


def test_resources_are_rows_over_arms_and_actions_unless_their_cost_hangs_on_the_state():
    cost = np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 4.0]])
    rows = Polyhedron.from_coupling(Coupling.knapsack(cost, 5.0), 2)
    assert rows.act.toarray().tolist() == [[1.0, 2.0, 3.0, 4.0]]
    assert rows.arm.tolist() == [0, 0, 1, 1]
    assert rows.action.tolist() == [1, 2, 1, 2]
    assert (rows.lower[0], rows.upper[0]) == (-np.inf, 5.0)
    by_state = Coupling.knapsack(np.stack([cost, 2.0 * cost], axis=1), 5.0)
    with pytest.raises(CapabilityError, match="rows with state-dependent costs"):
        Polyhedron.from_coupling(by_state, 2)
    weekly = Coupling.budgets(np.array([[1.0, 1.0], [2.0, 2.0]]))
    with pytest.raises(CapabilityError, match="limits change from round to round"):
        Polyhedron.from_coupling(weekly, 2)


def test_the_taught_program_with_budget_for_all_is_every_arm_s_own_dynamic_program():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(3), (2, 2, 3))
    reward = rng.random((2, 3, 2))
    start = np.array([2, 0])
    model = occupancy_model(transition, reward, start, coupling=Coupling.budgets([2]), horizon=4, discount=0.9)
    value = np.zeros((2, 3))
    for _ in range(4):
        value = (reward + 0.9 * np.einsum("nast,nt->nsa", transition, value)).max(axis=2)
    assert Session(model, "exact").solve().objective == pytest.approx(value[np.arange(2), start].sum())
