"""The unrolled graph network is the forward pass; climbing takes true marginals; training repeats from its seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rmab_opt as ro
from rmab_opt.decisions import Chooser, Situation
from rmab_opt.decisions.cascade import climb_network, hill_climb
from rmab_opt.decisions.policy import make_policy
from rmab_opt.learning import DQNConfig, evaluate, load_policy, train
from rmab_opt.learning.networks import make_network


def small(n_arms: int = 8, at_most: int = 2):
    return ro.load(
        "contacts", n_arms=n_arms, n_contacts=n_arms + 3, at_most=at_most, probability=0.2, horizon=4, samples=20
    )


@pytest.mark.parametrize("hidden", [(4,), (3, 3)])
def test_the_unrolled_network_and_its_program_are_the_forward_pass(hidden):
    model = small()
    network = make_network("graph", model.problem, model.actions.columns, hidden, 0, 1.5, 3).double()
    rng = np.random.default_rng(0)
    state, actions = rng.integers(0, 2, 8), rng.integers(0, 2, (6, 8))
    situation = Situation(model.problem, model.actions.columns, state, 1)
    arms, rest = network(torch.as_tensor(np.tile(state, (6, 1))), torch.full((6,), 1), torch.as_tensor(actions))
    forward = (arms.sum(dim=1) + rest).detach().numpy()
    unrolled = network.at(situation)
    assert np.asarray(unrolled(actions.astype(float))).reshape(-1) == pytest.approx(forward, abs=1e-6)
    # The encoded program's optimum is the best forward pass over all allowed actions.
    chooser = Chooser(model.problem, model.actions, network.objective(), "exact", method="program")
    allowed = model.actions.enumerate().astype(np.int64)
    best = float(np.asarray(unrolled(allowed.astype(float))).max())
    made = chooser.decide(state, 1)
    assert made.value == pytest.approx(best, abs=1e-6)
    assert made.encoding_error < 1e-6
    # Another state is another program.
    assert chooser.decide(1 - state, 1).encoding_error < 1e-6


@pytest.mark.parametrize("kind", ["graph", "dense"])
def test_climbing_by_the_first_layer_is_climbing_by_values(kind):
    model = small(12, 4)
    network = make_network(kind, model.problem, model.actions.columns, (6,) if kind == "graph" else (8, 8), 0, 1.0, 1)
    situation = Situation(model.problem, model.actions.columns, np.zeros(12, dtype=np.int64), 0)
    whole = network.at(situation)
    action, value = climb_network(whole, model.actions)
    slow, slow_value = hill_climb(lambda a: np.asarray(whole(a.astype(float))).reshape(-1), model.actions)
    assert np.array_equal(action, slow)
    assert value == pytest.approx(slow_value)
    assert (
        value
        <= Chooser(model.problem, model.actions, network.objective(), "exact").decide(situation.state).value + 1e-6
    )


def test_training_on_a_graph_repeats_and_is_read_back(tmp_path):
    model = small(6, 1)
    config = DQNConfig(episodes=2, network="graph", hidden=(4,), argmax="hill_climb", pretrain_steps=5, batch=4)
    first = train(model, config, seed=1, out=tmp_path / "a")
    again = train(model, config, seed=1, out=tmp_path / "b")
    assert first.weights_hash() == again.weights_hash()
    assert train(model, config, seed=2, out=tmp_path / "c").weights_hash() != first.weights_hash()
    read = load_policy(tmp_path / "a", model).decide(np.zeros(6, dtype=np.int64), 0, np.random.default_rng(0))
    kept = first.policy.decide(np.zeros(6, dtype=np.int64), 0, np.random.default_rng(0))
    assert np.array_equal(read.action, kept.action)


def test_learned_policies_run_by_name_and_claim_no_guarantee():
    model = small(6, 1)
    table = evaluate(model, ["none", "gnn", "hill_climbing_dqn"], episodes=5)
    assert {row["policy"] for row in table.rows} == {"none", "gnn", "hill_climbing_dqn"}
    made = make_policy("gnn", model).decide(np.zeros(6, dtype=np.int64), 0, np.random.default_rng(0))
    assert made.notes["guarantee"].startswith("none")
    assert made.bound == np.inf
