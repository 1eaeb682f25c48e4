"""The environment's order of calls."""

from __future__ import annotations

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.errors import CapabilityError
from rmab_opt.learning.environment import RestlessBanditEnv


def test_a_step_before_a_reset_is_refused_and_changes_nothing():
    model = ro.load("budget", n_arms=4, horizon=2)
    environment = RestlessBanditEnv(model)
    with pytest.raises(CapabilityError, match="step before reset"):
        environment.step(np.zeros(4, dtype=np.int64))
    environment.reset(seed=0)
    assert not environment.step(np.zeros(4, dtype=np.int64))[3]
    assert environment.step(np.zeros(4, dtype=np.int64))[3]
