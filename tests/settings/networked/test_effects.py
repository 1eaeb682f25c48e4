"""A graph network trained on effects of actions, from a rule that contact graphs bring on arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.planning.improve import brought_rule, on_arrays


def test_a_graph_network_is_trained_from_the_look_ahead(tmp_path):
    pytest.importorskip("torch")
    from rmab_opt.learning import DQNConfig, load_policy, train

    model = ro.load("contacts_influencers", n_arms=12, **{"problem.influencers": 4, "visits.at_most": 1})
    told = {
        "targets": "advantages", "network": "graph", "states": 8, "draws": 2, "rounds": 1, "passes": 20,
        "validation_episodes": 4, "ablations": False, "rivals": ["lookahead_priced"],
    }  # fmt: skip
    config = DQNConfig.from_mapping(told)
    train(model, config, seed=0, out=tmp_path / "one")
    run = json.loads((tmp_path / "one" / "run.json").read_text(encoding="utf-8"))
    # The rival is played by the rule that the dynamics bring, and nothing else stands beside it.
    assert set(run["validation"]) == {"lookahead_priced", "round 1"}
    assert run["left_out"] == {}
    train(model, config, seed=0, out=tmp_path / "again")
    again = json.loads((tmp_path / "again" / "run.json").read_text(encoding="utf-8"))
    assert again["validation"] == run["validation"]
    chosen = load_policy(tmp_path / "one", model)
    action = chosen.decide(np.zeros(12, dtype=np.int64)).action
    assert model.actions.allows(action)


def test_effects_of_a_graph_network_are_its_own_differences():
    torch = pytest.importorskip("torch")
    from rmab_opt.learning.networks import make_network

    model = ro.load("contacts_influencers", n_arms=12, **{"problem.influencers": 4, "visits.at_most": 1})
    network = make_network("graph", model.problem, model.actions.columns, (4,), 0, 1.0, 3)
    state = torch.zeros((1, 12), dtype=torch.long)
    period = torch.zeros(1, dtype=torch.long)
    found = network.single_effects(state, period).detach()[0]
    idle, _ = network(state, period, torch.zeros((1, 12), dtype=torch.long))
    for n in range(12):
        alone = torch.zeros((1, 12), dtype=torch.long)
        alone[0, n] = 1
        acted, _ = network(state, period, alone)
        assert float(found[n]) == pytest.approx(float((acted - idle).detach().sum()), abs=1e-3)


def test_rules_that_dynamics_bring_come_before_those_of_all_arms():
    contacts = ro.load("contacts", n_arms=12, n_contacts=20)
    assert brought_rule(contacts.problem, contacts.actions, "lookahead_priced") is not None
    assert brought_rule(contacts.problem, contacts.actions, "single_gains") is None
    plain = ro.load("contagion")
    assert brought_rule(plain.problem, plain.actions, "hand") is None
    assert on_arrays(plain.problem, plain.actions, "hand") is not None
