"""Learning where arms share a state or have no tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from amounts import amount
from settings.coupled.tiny import tiny

from rmab_opt.decisions import Situation
from rmab_opt.learning import DQNConfig, evaluate, load_policy, train
from rmab_opt.learning.advantages import rule_of
from rmab_opt.learning.learner import Learner
from rmab_opt.learning.replay import Batch
from rmab_opt.learning.run_folder import RunFolder
from rmab_opt.learning.runs import load_network
from rmab_opt.learning.samples import Successors
from rmab_opt.planning import CoupledTable

SHORT = {"episodes": 2, "pretrain_steps": 5, "batch": 4, "hidden": (4,), "head": 2, "validation_episodes": 2}


@pytest.mark.parametrize("world", ["fatigue", "stock", "contagion"])
@pytest.mark.parametrize("network", amount(["pooled"], ["pooled", "dense"]))
def test_the_loop_trains_where_arms_share_a_state(world, network, tmp_path):
    model = tiny(world, 0)
    settings = {**SHORT, "network": network, "next_states": 2}
    run = train(model, DQNConfig(**settings), out=tmp_path / "run")
    again = train(model, DQNConfig(**settings), out=tmp_path / "again")
    assert run.weights_hash() == again.weights_hash()
    table = evaluate(model, [str(tmp_path / "run"), "random"], episodes=3, seeds=[0])
    assert np.isfinite(table.episodes["run"]).all()


def test_all_next_states_carry_their_shared_state():
    model = tiny("stock", 0)
    problem = model.problem
    action = np.array([1, 1, 0, 0, 0])
    states, weights, shared = Successors(problem, 0)(
        problem.start, action, problem.start, model.actions, np.random.default_rng(0), problem.start_shared,
        problem.start_shared,
    )  # fmt: skip
    assert weights.sum() == pytest.approx(1.0)
    assert (shared == 4.0).all()
    chance = problem.dynamics.chance_of_one(problem.start, action, problem.start_shared)
    assert weights @ states == pytest.approx(chance)


class _Exact(torch.nn.Module):
    """The exact value of the last round, as a target network that says nothing by arm."""

    def __init__(self, table: CoupledTable, values: list[np.ndarray]) -> None:
        super().__init__()
        self.table, self.values = table, values
        self.place = {tuple(s): k for k, s in enumerate(table.states)}

    def forward(self, state, period, action, shared=None):
        found = [
            self.values[int(t)][self.place[tuple(s)]] if int(t) < len(self.values) else 1e6
            for s, t in zip(state.tolist(), period.tolist(), strict=True)
        ]
        return None, torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize(
    ("left", "discount", "stated"),
    [
        (1, 1.0, [1.172895, 1.442395, 1.253613, 1.588695, 1.290345, 1.513879]),
        (2, 1.0, [2.585394, 3.327517, 2.754095, 3.147125, 2.750033, 2.889584]),
        (2, 0.9, [2.444144, 3.139005, 2.604047, 2.991282, 2.604064, 2.752013]),
    ],
)
def test_targets_of_the_last_two_rounds_are_the_exact_ones(left, discount, stated):
    """Specification 6, rows 3, 4 and 6: the mask at the end, and all next states with their chances."""
    base = tiny("contagion", 0)
    model = replace(base, problem=replace(base.problem, horizon=left, discount=discount))
    table = CoupledTable(model.problem, model.actions)
    _, taken = table.optimum()
    values = table.values(taken)
    learner = Learner(model, DQNConfig(network="dense", hidden=(4,), next_states=0), 0, "cpu")
    learner.target = _Exact(table, values)
    actions = np.vstack([np.zeros((1, 5), dtype=int), np.eye(5, dtype=int)])
    state = model.problem.start
    found = [learner.successors(state, a, state, model.actions, np.random.default_rng(0)) for a in actions]
    count, ended = len(found[0][0]), float(left == 1)
    reward = model.problem.expected_reward(state, actions)
    batch = Batch(
        np.arange(6),
        np.tile(state, (6, 1)),
        np.zeros(6, dtype=int),
        actions,
        reward,
        np.stack([part[0] for part in found]),
        np.zeros((6, count, 5), dtype=int),
        np.stack([part[1] for part in found]),
        np.full(6, ended),
    )
    _, rest = learner.follows(batch)
    assert reward.sum(axis=1) + rest.numpy() == pytest.approx(stated, abs=2e-6)


FEW = {"targets": "advantages", "states": 24, "draws": 4, "rounds": 2, "passes": 20, "hidden": (8,), "head": 0}


@pytest.mark.parametrize(
    ("world", "head"), amount([("contagion", 0)], [("contagion", 0), ("stock", 0), ("crowding", 2)])
)
def test_advantages_train_and_say_what_was_kept(world, head, tmp_path):
    model = tiny(world, 0)
    config = DQNConfig(**{**FEW, "head": head, "validation_episodes": 3})
    run = train(model, config, out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["finished"]
    assert record["kept"].startswith(("round", "planning rule kept"))
    assert {"head 0", "returns as targets"} <= set(record["ablations"])
    assert all(np.isfinite(part["gain"]) for part in record["paired"].values())
    table = evaluate(model, [str(tmp_path / "run"), "none"], episodes=3, seeds=[0])
    assert (table.episodes["run"].mean() > table.episodes["none"].mean()) or world == "crowding"
    assert run.log[0]["base"]


def test_effects_by_common_numbers_are_the_exact_ones_in_the_mean():
    """Single effects of the first round, base myopic, against the exact joint table."""
    from rmab_opt.planning.improve import Rollouts, base_rule

    model = tiny("contagion", 0)
    table = CoupledTable(model.problem, model.actions)
    _, taken = table.myopic()
    ahead = table.values(taken)[1]
    node = table.nodes[0]
    exact = node.reward + (node.chance * ahead[node.leads]).sum(axis=1)
    rollouts = Rollouts(model.problem, model.actions, base_rule(model.problem, model.actions, "myopic"))
    first = np.vstack([np.zeros((1, 5), dtype=int), np.eye(5, dtype=int)])
    found = rollouts(model.problem.start, 0, None, first, 4000, np.random.default_rng(0))
    apart = found[1:] - found[:1]
    error = apart.std(axis=1) / 4000**0.5
    assert (np.abs(apart.mean(axis=1) - (exact[1:] - exact[0])) < 5 * error + 1e-9).all()
    alone = rollouts(model.problem.start, 0, None, first, 4000, np.random.default_rng(1), common=False)
    # Common numbers are what makes effects visible: the variance of the differences falls by far.
    assert np.median((alone[1:] - alone[:1]).var(axis=1) / apart.var(axis=1)) > 3.0


def test_a_simulator_alone_is_trained_evaluated_and_decided_on(tmp_path):
    """Nothing but ``step``, and features that the user names; rewards are the realised ones."""
    hidden = tiny("contagion", 0).problem.dynamics

    class Simulator:
        n_arms, n_states, n_actions = 5, 2, 2

        def step(self, state, action, rng):
            return hidden.step(state, action, rng)

        def context(self, state, shared=None):
            return np.stack([np.broadcast_to(hidden.weight, state.shape), np.asarray(state @ hidden.weight)[..., None]
                             + 0.0 * state], axis=-1)  # fmt: skip

    known = tiny("contagion", 0)
    model = replace(known, problem=replace(known.problem, dynamics=Simulator()))
    config = DQNConfig(**{**FEW, "states": 12, "draws": 2, "rounds": 1, "validation_episodes": 3, "ablations": False})
    train(model, config, out=tmp_path / "run")
    table = evaluate(model, [str(tmp_path / "run"), "single_gains"], episodes=3, seeds=[0])
    assert np.isfinite(table.episodes["run"]).all()
    made = load_policy(tmp_path / "run", model).decide(known.problem.start, 0)
    assert model.actions.allows(made.action)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["left_out"].keys() == {"mean_field", "hand"}
    # The mean of a few steps is near what the equations say.
    said = model.problem.expected_reward(known.problem.start, np.zeros(5, dtype=int)).sum()
    assert said == pytest.approx(
        known.problem.expected_reward(known.problem.start, np.zeros(5, dtype=int)).sum(), abs=0.6
    )


def test_a_simulator_with_a_shared_state_needs_step_shared_alone(tmp_path):
    """A worker's fatigue moves with the load: no chances, no expected reward, the rivals named, base none."""
    known = tiny("fatigue", 0)
    hidden = known.problem.dynamics

    class Simulator:
        n_arms, n_states, n_actions, group = hidden.n_arms, 2, 2, hidden.group
        shared_names, shared_start = hidden.shared_names, hidden.shared_start

        def step_shared(self, state, action, shared, rng):
            return hidden.step_shared(state, action, shared, rng)

    model = replace(known, problem=replace(known.problem, dynamics=Simulator()))
    few = {**FEW, "network": "loads", "states": 12, "draws": 2, "rounds": 1, "validation_episodes": 3}
    train(model, DQNConfig(**few, ablations=False, rivals=("none",)), out=tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(record["paired"]) == {"none"}
    assert model.actions.allows(load_policy(tmp_path / "run", model).decide(known.problem.start, 0).action)
    # Several situations at once, each at the shared state of its own or at one of all.
    state, action = np.zeros((3, 5, hidden.n_arms), dtype=int), np.ones((3, 5, hidden.n_arms), dtype=int)
    tired = np.asarray(model.problem.start_shared) + 1.0
    found = model.problem.expected_reward(state, action, tired)
    assert found.shape == state.shape
    assert found == pytest.approx(known.problem.expected_reward(state, action, tired), abs=1.0)
    # Where no rival can be asked, acting on nobody is the base.
    train(model, DQNConfig(**few, ablations=False, rivals=("hand",)), out=tmp_path / "other")
    assert json.loads((tmp_path / "other" / "run.json").read_text())["left_out"].keys() == {"hand"}


def test_a_network_that_needs_a_program_is_maximised_over_the_list(tmp_path):
    """Dense networks and heads over few actions: the rule on arrays is the best of all of them."""
    model = tiny("contagion", 0)
    few = {**FEW, "network": "dense", "rounds": 1, "validation_episodes": 3, "ablations": False}
    train(model, DQNConfig(**few), out=tmp_path / "run")
    rule, every = rule_of(tmp_path / "run", model), model.actions.enumerate().astype(np.int64)
    network, rng = load_network(RunFolder(tmp_path / "run"), model), np.random.default_rng(0)
    states = rng.integers(2, size=(6, 5))
    for state, action in zip(states, rule(states, 3, None), strict=True):
        said = network.at(Situation(model.problem, model.actions.columns, state, 3))
        assert said(action.astype(float)) == pytest.approx(max(float(said(a.astype(float))) for a in every), rel=1e-5)
