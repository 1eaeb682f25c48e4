"""Weights say of which arms they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rmab_opt as ro
from rmab_opt.errors import ModelError
from rmab_opt.learning.config import DQNConfig
from rmab_opt.learning.networks import ContextInput
from rmab_opt.learning.runs import _same_arms


@pytest.mark.parametrize("head", [1, 4])
def test_an_arm_s_layers_give_its_states_and_actions_whatever_the_head(head):
    model = ro.load("budget", n_arms=4)
    dynamics, config = model.problem.dynamics, replace(DQNConfig(), head=head)
    inputs = dynamics.n_states + 3 + 1 + ContextInput(model.problem).width
    outputs = dynamics.n_actions * (1 + head)

    def weights(more: int) -> dict[str, torch.Tensor]:
        return {
            "arm.0.weight": torch.zeros(8, inputs),
            "arm.2.weight": torch.zeros(outputs + more * (1 + head), 8),
            "feature_place": torch.zeros(3),
        }

    _same_arms(weights(0), model, config, Path("run"))
    with pytest.raises(ModelError, match=f"{dynamics.n_states} states and {dynamics.n_actions + 1} actions"):
        _same_arms(weights(1), model, config, Path("run"))
