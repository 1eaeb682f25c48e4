"""The unrolled graph network is the forward pass; climbing takes true marginals; training repeats from its seed."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import rmab_opt as ro
from rmab_opt.decisions import Chooser, Situation
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import ModelError
from rmab_opt.learning import DQNConfig, evaluate, load_policy, train
from rmab_opt.learning.learner import Learner
from rmab_opt.learning.networks import make_network
from rmab_opt.search import climb_network, hill_climb
from rmab_opt.settings.networked.cascade import Cascade
from rmab_opt.settings.networked.spread import continuation_weights


def small(n_arms: int = 8, at_most: int = 2):
    return ro.load(
        "contacts", n_arms=n_arms, n_contacts=n_arms + 3, at_most=at_most, probability=0.2, horizon=4, samples=20
    )


@pytest.mark.parametrize("kind", ["graph", "graph_lookahead"])
@pytest.mark.parametrize("hidden", [(4,), (3, 3)])
def test_the_unrolled_network_and_its_program_are_the_forward_pass(hidden, kind):
    model = small()
    network = make_network(kind, model.problem, model.actions.columns, hidden, 0, 1.5, 3).double()
    rng = np.random.default_rng(0)
    state, actions = rng.integers(0, 2, 8), rng.integers(0, 2, (6, 8))
    situation = Situation(model.problem, model.actions.columns, state, 1)
    with torch.no_grad():
        # Away from what a network begins at, where layers may be zero.
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.as_tensor(rng.standard_normal(parameter.shape)))
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


def test_a_lookahead_network_asks_that_acting_never_lowers_a_chance():
    model = small()
    dynamics, columns = model.problem.dynamics, model.actions.columns
    lowered = dynamics.chance.copy()
    lowered[3, 1] = lowered[3, 1, ::-1]
    assert lowered[3, 1, 1] < lowered[3, 1, 0]
    problem = replace(model.problem, dynamics=Cascade(dynamics.graph, lowered, dynamics.value))
    with pytest.raises(ModelError, match="acting on an arm lowers its chance"):
        make_network("graph_lookahead", problem, columns, (4,), 0, 1.5, 3)
    assert make_network("graph", problem, columns, (4,), 0, 1.5, 3) is not None


def test_a_lookahead_network_begins_at_the_lookahead(tmp_path):
    model = small()
    network = make_network("graph_lookahead", model.problem, model.actions.columns, (4,), 0, 1.0, 3)
    state, rng = np.array([0, 1, 0, 0, 1, 0, 0, 0]), np.random.default_rng(0)
    situation = Situation(model.problem, model.actions.columns, state, 1)
    allowed = model.actions.enumerate().astype(np.int64)
    values = np.asarray(network.at(situation)(allowed.astype(float))).reshape(-1)
    dynamics = model.problem.dynamics
    worth = continuation_weights(dynamics, model.problem.discount, left=3)
    exact = np.stack([dynamics.activation(state, action) @ worth for action in allowed])
    assert values == pytest.approx(exact, abs=0.35)
    # Coverage on samples: a set is worth no more than its parts, and more than any of them.
    single = {tuple(np.flatnonzero(a)): v for a, v in zip(allowed, values, strict=True)}
    for i, j in rng.permutation(8)[:6].reshape(3, 2):
        pair = single[tuple(sorted((int(i), int(j))))]
        assert pair - single[()] <= single[(int(i),)] + single[(int(j),)] - 2 * single[()] + 1e-5
        assert pair >= max(single[(int(i),)], single[(int(j),)]) - 1e-5


@pytest.mark.parametrize("kind", ["graph", "graph_lookahead", "dense"])
def test_climbing_by_the_first_layer_is_climbing_by_values(kind):
    model = small(12, 4)
    hidden = (6,) if kind.startswith("graph") else (8, 8)
    network = make_network(kind, model.problem, model.actions.columns, hidden, 0, 1.0, 1)
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


KILLED = """
import os, signal, sys
import rmab_opt as ro
from rmab_opt.learning import DQNConfig, train
from rmab_opt.learning.learner import Learner

model = ro.load("contacts", n_arms=6, n_contacts=9, at_most=1, probability=0.2, horizon=4, samples=20)
config = DQNConfig(episodes=4, network=sys.argv[2], hidden=(4,), argmax="hill_climb", pretrain_steps=5, batch=4)
learn, calls = Learner.learn, []

def counted(self, batch):
    calls.append(1)
    if len(calls) == 21:
        os.kill(os.getpid(), signal.SIGKILL)
    return learn(self, batch)

Learner.learn = counted
train(model, config, seed=1, out=sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_graph_run_goes_on_to_the_uninterrupted_one(tmp_path):
    """SIGKILL inside the third episode; the resumed run has the weights of one that was left alone."""
    kind = "graph_lookahead"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "killed"), kind], check=False)
    assert ended.returncode == -signal.SIGKILL
    config = DQNConfig(episodes=4, network=kind, hidden=(4,), argmax="hill_climb", pretrain_steps=5, batch=4)
    seen: list[int] = []
    resumed = train(
        small(6, 1), config, seed=1, out=tmp_path / "killed", on_event=lambda row: seen.append(row["episode"])
    )
    assert seen == [3, 4]
    assert resumed.weights_hash() == train(small(6, 1), config, seed=1, out=tmp_path / "whole").weights_hash()


def test_exploration_for_climbing_meets_partial_sets():
    """Climbing asks for the value of sets that are not full yet; training has to see such sets."""
    model = small(12, 4)
    sizes = {}
    for argmax in ("hill_climb", "program"):
        config = DQNConfig(network="graph", hidden=(4,), argmax=argmax, pretrain_steps=0)
        learner = Learner(model, config, 0, "cpu")
        sizes[argmax] = {int(learner.explore().sum()) for _ in range(60)}
    assert sizes == {"hill_climb": {0, 1, 2, 3, 4}, "program": {4}}


@pytest.mark.slow
def test_learned_policies_run_by_name_and_claim_no_guarantee():
    model = replace(small(6, 1), settings={"train": {"episodes": 2, "pretrain_steps": 20}})
    names = ["none", "gnn", "gnn_lookahead", "hill_climbing_dqn"]
    table = evaluate(model, names, episodes=5)
    assert [row["policy"] for row in table.rows] == names
    made = make_policy("gnn", model).decide(np.zeros(6, dtype=np.int64), 0, np.random.default_rng(0))
    assert made.notes["guarantee"].startswith("none")
    assert made.bound == np.inf
