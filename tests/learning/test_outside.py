"""Learners of another library as policies: column by column, within the constraints, repeatable, so many rounds."""

from __future__ import annotations

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import ModelError
from rmab_opt.learning import evaluate

pytest.importorskip("stable_baselines3", reason="the extra `rl` is not installed")

from rmab_opt.learning.picks import Picks


def model() -> ro.Model:
    return ro.load("budget", n_arms=5, horizon=3)


@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_a_learner_of_another_library_plays_by_the_rules_and_repeats(algorithm):
    names = [f"sb3:algorithm={algorithm},steps=40", f"sb3:algorithm={algorithm},steps=40,seed=1"]
    made = [make_policy(names[0], model()) for _ in range(2)]
    assert made[0]._world.rounds == 40
    states = np.random.default_rng(0).integers(2, size=(8, 5))
    for state in states:
        chosen = [one.decide(state, 1).action for one in made]
        assert np.array_equal(*chosen)
        assert model().actions.allows(chosen[0])
    table = evaluate(model(), names, episodes=2)
    assert len(table.rows) == 2


def test_choices_of_a_round_are_one_action_of_the_environment():
    world = Picks(model(), np.random.default_rng(0))
    most = model().actions.shape.at_most
    world.reset(seed=0)
    for pick in range(most - 1):
        seen, reward, over, _, _ = world.step(pick)
        assert (reward, over, world.rounds) == (0.0, False, 0)
        assert seen[-5 + pick] == 1.0
    seen, reward, _, _, _ = world.step(most - 1)
    assert world.rounds == 1
    assert not seen[-5:].any()
    # "Enough" at once is a round without any action, and so is a column that does not fit.
    assert world.step(5)[1] >= 0.0
    assert world.rounds == 2


def test_an_unknown_algorithm_is_named():
    with pytest.raises(ModelError, match="'pqo'"):
        make_policy("sb3:pqo", model())


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["ppo", "dqn"])
def test_learners_of_another_library_keep_the_promises_of_policies(algorithm):
    """In another unit of reward last digits of their training may fall otherwise."""
    from rmab_opt.testing import check_policy

    check_policy(f"sb3:algorithm={algorithm},steps=40", model(), scales=False)
