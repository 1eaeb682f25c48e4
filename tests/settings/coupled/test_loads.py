"""The network over loads: its rule on arrays and its program against every action."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from settings.coupled.tiny import tiny

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Model, Situation, decide
from rmab_opt.errors import CapabilityError
from rmab_opt.instances import generate
from rmab_opt.learning import DQNConfig, load_policy, train
from rmab_opt.learning.advantages import rule_of
from rmab_opt.learning.loads import LoadRule
from rmab_opt.learning.networks import make_network


@pytest.mark.parametrize("world", ["crowding", "tiring"])
def test_the_best_action_by_loads_is_the_best_of_all(world):
    """By the table over groups, by the program and by listing, at random weights; limits of all and of groups."""
    problem = generate(world, n_arms=7, n_workers=2, seed=1).problem
    rules = {"visits": Budget(at_most=4), "capacity": Linear(per="worker", at_most=3)}
    actions = ActionSet(problem.arms, rules)
    network = make_network("loads", problem, actions.columns, (6,), 0, 1.0, 3)
    rng = np.random.default_rng(0)
    states, count = rng.integers(2, size=(3, 7)), len(problem.shared_names)
    shared = rng.integers(4, size=(3, count)).astype(float) if count else None
    rule, everything = LoadRule(problem, actions, network), actions.enumerate().astype(np.int64)
    chosen = rule(states, 2, shared)
    for k, state in enumerate(states):
        beside = None if shared is None else shared[k]
        situation = Situation(problem, actions.columns, state, 2, beside)
        objective = network.objective()
        worth = objective.batch_value(everything, situation)
        assert objective.value(chosen[k], situation) == pytest.approx(worth.max(), rel=1e-9)
        assert actions.allows(chosen[k])
        at = torch.as_tensor(state)[None], torch.tensor([2]), torch.as_tensor(everything)[None]
        said = network.effects(*at, None if beside is None else torch.as_tensor(beside)[None])
        assert said[0].detach().numpy() == pytest.approx(worth, rel=1e-4, abs=1e-4)
    last, beside = states[0], None if shared is None else shared[0]
    asked = Model(problem, actions, network.objective(), solver="exact")
    made = decide(asked, last, period=2, shared=beside, method="program")
    best = network.objective().batch_value(everything, Situation(problem, actions.columns, last, 2, beside)).max()
    assert made.value == pytest.approx(best, rel=1e-6)


def test_loads_are_trained_on_whole_actions_and_read_back(tmp_path):
    model = tiny("sessions", 0)
    few = {"targets": "advantages", "network": "loads", "states": 16, "draws": 2, "rounds": 1, "passes": 5}
    config = DQNConfig(**few, hidden=(8,), head=0, validation_episodes=3, ablations=False)
    train(model, config, out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["kept"].startswith(("round 1", "planning rule kept"))
    state = model.problem.start[None]
    assert model.actions.allows(rule_of(tmp_path / "run", model)(state, 0, None)[0])
    assert model.actions.allows(load_policy(tmp_path / "run", model).decide(model.problem.start, 0).action)
    with pytest.raises(CapabilityError, match="group"):
        make_network("loads", tiny("contagion", 0).problem, model.actions.columns, (4,), 0, 1.0, 0)
    other = replace(model, actions=ActionSet(model.problem.arms, {"two": Linear(where={"group": "g0"}, at_least=1)}))
    with pytest.raises(CapabilityError, match="counts"):
        LoadRule(
            other.problem, other.actions, make_network("loads", other.problem, other.actions.columns, (4,), 0, 1.0, 0)
        )
