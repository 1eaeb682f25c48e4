"""What the learner measures: the unit of its loss, and how far networks stand from what is earned."""

from __future__ import annotations

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.learning import DQNConfig, targets
from rmab_opt.learning.learner import Learner


def learner_of(n: int, **change: object) -> Learner:
    model = ro.load("budget", n_arms=n, at_most=1, horizon=3)
    config = DQNConfig(hidden=(4,), head=1, batch=2, capacity=10, validation_episodes=3, **change)
    return Learner(model, config, 0, "cpu")


def test_the_rest_s_unit_is_the_root_of_the_arms_times_an_arm_s(monkeypatch):
    """So noise does: the sum of N independent arms has root N times an arm's spread."""
    units, right = [], targets.bellman_loss
    monkeypatch.setattr(targets, "bellman_loss", lambda *given: units.append(given[3]) or right(*given))
    for n in (4, 9):
        learner = learner_of(n, network="dense")
        for period in range(3):
            learner.remember(
                state=[0] * n, period=period, action=[0] * n, reward=[0.0] * n, next_state=[[0] * n],
                next_action=np.zeros((1, n), dtype=int), weight=[1.0], ended=False,
            )  # fmt: skip
        learner.learn(learner.replay.sample(np.random.default_rng(0), 2))
        assert units[-1] == pytest.approx((learner.scale, learner.scale * n**0.5))


def test_a_network_that_claims_more_of_every_arm_is_that_much_further_above_what_is_earned():
    """One more an arm and two more beside them, with the same actions: six less earned over what is claimed."""
    learner = learner_of(4, network="pooled")
    objective = learner.average.objective()
    earned, over = learner._try(objective, learner.average)
    right = learner._parts

    def more(*given):
        arms, rest = right(*given)
        return arms + 1.0, rest + 2.0

    learner._parts = more
    same, less = learner._try(objective, learner.average)
    assert same == earned
    assert less == pytest.approx(over - 6.0, abs=1e-4)
