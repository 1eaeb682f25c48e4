"""The table of charges: arms of any number of states, two actions."""

from __future__ import annotations

import numpy as np
import pytest

from rmab_opt.errors import CapabilityError
from rmab_opt.settings.equity.curves import ChargeTable


@pytest.mark.parametrize("n_states", [2, 3, 5])
def test_an_index_is_the_charge_at_which_resting_is_as_good(n_states):
    """In the last round it is what acting pays more than resting; a table of 4000 charges is that near."""
    rng = np.random.default_rng(0)
    transition, reward = rng.dirichlet(np.ones(n_states), (3, 2, n_states)), rng.random((3, n_states, 2))
    table = ChargeTable(transition, reward, horizon=2, discount=1.0, charges=4000)
    found = np.stack([table.indices(np.full(3, state), 1) for state in range(n_states)], axis=1)
    gain = reward[..., 1] - reward[..., 0]
    assert found[gain > 0.01] == pytest.approx(gain[gain > 0.01], abs=2e-3)


def test_arms_with_more_actions_are_refused():
    transition, reward = np.full((2, 3, 2, 2), 0.5), np.zeros((2, 2, 3))
    with pytest.raises(CapabilityError, match="several actions"):
        ChargeTable(transition, reward, horizon=2, discount=1.0)
