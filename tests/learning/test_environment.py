"""Environments of the kernel's own models; those of coupled arms are tested with their setting."""

from __future__ import annotations

import numpy as np
import pytest
from gym_checks import checked

import rmab_opt as ro
from rmab_opt.errors import CapabilityError
from rmab_opt.learning import RestlessBanditEnv


@pytest.mark.parametrize("name", ["budget", "weekly_calls"])
def test_gymnasium_accepts_the_environment(name):
    checked(ro.load(name))


def test_a_step_before_a_reset_is_refused_and_changes_nothing():
    environment = RestlessBanditEnv(ro.load("budget", n_arms=4, horizon=2))
    with pytest.raises(CapabilityError, match="step before reset"):
        environment.step(np.zeros(4, dtype=np.int64))
    environment.reset(seed=0)
    assert not environment.step(np.zeros(4, dtype=np.int64))[2]
    assert environment.step(np.zeros(4, dtype=np.int64))[2]
