"""Training repeats from its seed, survives being killed at any moment, and learns what a small exact program knows."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Chooser, Model, NetworkObjective, Situation
from rmab_opt.decisions.policy import ChooserPolicy
from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError
from rmab_opt.learning import DQNConfig, load_policy, train
from rmab_opt.learning.networks import make_network
from rmab_opt.learning.replay import Replay
from rmab_opt.problem import Arms, Ladder, Problem, Tabular

SMALL = DQNConfig(
    episodes=12, pretrain_steps=5, hidden=(8,), head=2, updates=1, batch=8, capacity=40, epsilon_start=0.6
)


def small_model(n: int = 5) -> Model:
    rng = np.random.default_rng(4)
    arms = Arms.from_arrays(n)
    up = np.stack([rng.uniform(0.0, 0.2, n), rng.uniform(0.7, 0.9, n)], axis=1)
    reward = np.sort(rng.uniform(0, 3, (n, 3)), axis=1)
    problem = Problem(arms, Ladder(up, reward), horizon=5, start=np.tile([0.7, 0.3, 0.0], (n, 1)))
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}), title="small")


def work(folder: str) -> None:
    train(small_model(), SMALL, seed=3, out=folder)


def content(folder: Path) -> tuple[bytes, str]:
    return (folder / "weights.safetensors").read_bytes(), (folder / "log.jsonl").read_text()


def test_a_killed_run_resumes_to_the_uninterrupted_one(tmp_path):
    """SIGKILL at ten random moments; weights and log are equal byte for byte."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rmab_opt.learning.dqn", "torch._dynamo", "rmab_opt.actions", "highspy"])

    def start(folder: Path) -> multiprocessing.Process:
        process = context.Process(target=work, args=(str(folder),))
        process.start()
        return process

    whole = tmp_path / "whole"
    process = start(whole)
    process.join(120)
    began = time.perf_counter()
    process = start(tmp_path / "again")
    process.join(120)
    length = time.perf_counter() - began
    assert content(tmp_path / "again") == content(whole)
    rng = np.random.default_rng(0)
    killed_inside = 0
    for attempt in range(10):
        folder = tmp_path / f"killed{attempt}"
        process = start(folder)
        time.sleep(float(rng.uniform(0.2, 1.0)) * length)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        record = (
            json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {"finished": False}
        )
        killed_inside += not record["finished"]
        process = start(folder)
        process.join(120)
        assert process.exitcode == 0
        assert content(folder) == content(whole), attempt
    assert killed_inside >= 3


def test_another_seed_gives_another_run_and_a_finished_one_is_not_repeated(tmp_path):
    model = small_model()
    one = train(model, SMALL, seed=0, out=tmp_path / "a")
    two = train(model, SMALL, seed=1, out=tmp_path / "b")
    assert one.weights_hash() != two.weights_hash()
    seen = []
    again = train(model, SMALL, seed=0, out=tmp_path / "a", on_event=seen.append)
    assert seen == []
    assert again.weights_hash() == one.weights_hash()
    assert again.log == one.log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: (small_model(), SMALL, 1), "seed 0, not 1"),
        (lambda: (small_model(), DQNConfig(**{**vars(SMALL), "batch": 9}), 0), "batch 8, not 9"),
        (lambda: (small_model(6), SMALL, 0), "another model"),
    ],
)
def test_a_folder_of_another_run_is_refused(tmp_path, change, message):
    train(small_model(), SMALL, seed=0, out=tmp_path)
    model, config, seed = change()
    with pytest.raises(ModelError, match=message):
        train(model, config, seed=seed, out=tmp_path)


def test_ctrl_c_keeps_the_finished_episodes(tmp_path):
    def stop(row):
        if row["episode"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small_model(), SMALL, seed=3, out=tmp_path / "stopped", on_event=stop)
    rows = [json.loads(line) for line in (tmp_path / "stopped" / "log.jsonl").read_text().splitlines()]
    assert [row["episode"] for row in rows] == [1, 2, 3, 4]
    train(small_model(), SMALL, seed=3, out=tmp_path / "stopped")
    train(small_model(), SMALL, seed=3, out=tmp_path / "whole")
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")


def test_a_torn_checkpoint_is_said_to_be_damaged(tmp_path):
    train(small_model(), SMALL, seed=0, out=tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="is damaged"):
        train(small_model(), SMALL, seed=0, out=tmp_path)


def joint_optimum(model: Model) -> float:
    """Value of the best policy by dynamic programming over all joint states."""
    transition, reward = model.problem.dynamics.tabular()
    n, n_states = model.problem.n_arms, transition.shape[2]
    states = np.array(np.unravel_index(np.arange(n_states**n), (n_states,) * n)).T
    actions = model.actions.enumerate().astype(int)
    value = np.zeros(len(states))
    arm = np.arange(n)
    for _ in range(model.problem.horizon):
        best = np.full(len(states), -np.inf)
        for action in actions:
            following = value.reshape((n_states,) * n)
            for k in range(n):
                following = np.moveaxis(np.tensordot(transition[k, action[k]], following, axes=(1, k)), 0, k)
            now = reward[arm, states, action].sum(axis=1)
            best = np.maximum(best, now + following.ravel())
        value = best
    start = model.problem.start_distribution
    return float((np.prod(start[arm, states], axis=1) * value).sum())


def test_the_learned_policy_comes_near_the_exact_joint_optimum(tmp_path):
    """Valuable arms pay only after a detour: one look ahead earns little, learning most of what is possible."""
    rng = np.random.default_rng(1)
    arms = Arms.from_arrays(4)
    up = np.stack([rng.uniform(0.0, 0.2, 4), rng.uniform(0.7, 0.9, 4)], axis=1)
    reward = np.array([[0.2, 0.15, 0.1, 5.0], [0.2, 0.15, 0.1, 4.0], [0.1, 0.15, 0.2, 1.0], [0.1, 0.15, 0.2, 2.0]])
    problem = Problem(arms, Ladder(up, reward), horizon=8)
    model = Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}), solver="exact", title="trap")
    run = train(model, DQNConfig(episodes=60, hidden=(24,), head=4, updates=4), seed=0, out=tmp_path)
    table = ro.evaluate(model, [run.policy, "myopic"], episodes=200)
    learned, myopic = (row["reward"] for row in table.rows)
    best = joint_optimum(model)
    assert learned >= 0.93 * best
    assert learned > 1.2 * myopic
    assert table.rows[0]["low"] <= best * 1.02
    assert table.difference("learned", "myopic")[1] > 0


@pytest.mark.parametrize("kind", ["pooled", "anchored", "dense"])
@pytest.mark.parametrize("exclusive", [False, True])
def test_the_network_over_columns_equals_the_torch_network(kind, exclusive):
    """`at` folds state and period; its numbers are the forward pass's on every allowed action."""
    import torch

    rng = np.random.default_rng(2)
    n_actions = 3 if exclusive else 2
    arms = Arms.from_arrays(3)
    dynamics = Tabular(rng.dirichlet(np.ones(3), (3, n_actions, 3)), rng.normal(size=(3, 3, n_actions)))
    problem = Problem(arms, dynamics, horizon=6)
    columns = Columns.of_arm_actions(arms, 3) if exclusive else Columns.of_arms(arms)
    actions = ActionSet(columns, {"some": Linear(at_most=3)})
    network = make_network(kind, problem, columns, (5,), 3, 0.7, seed=1, actions=actions)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.3 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))
    for state, period in ((np.array([0, 2, 1]), 0), (np.array([1, 1, 0]), 4)):
        folded = network.at(Situation(problem, columns, state, period))
        assert isinstance(folded, Network)
        for action in actions.enumerate().astype(int):
            arms_part, rest = network(torch.tensor(state)[None], torch.tensor([period]), torch.tensor(action)[None])
            total = float(rest.detach()) + (0.0 if arms_part is None else float(arms_part.detach().sum()))
            assert float(np.ravel(folded(action[None].astype(float)))[0]) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize(("anchor", "rule"), [("prices", "lp_index"), ("rollout", "rollout")])
def test_an_anchored_network_begins_at_its_planning_rule(anchor, rule):
    """Before any training its greedy actions earn what the rule earns, on the same draws."""
    model = small_model(8)
    columns = model.actions.columns
    network = make_network("anchored", model.problem, columns, (5,), 3, 1.0, 0, model.actions, anchor)
    chooser = Chooser(model.problem, model.actions, NetworkObjective(network.at), "exact")
    table = ro.evaluate(model, [ChooserPolicy(chooser, "anchored"), rule], episodes=30)
    assert np.allclose(table.episodes["anchored"], table.episodes[rule])


def test_replay_overwrites_the_oldest_and_comes_back_from_its_arrays():
    replay = Replay(3, n_arms=2, n_columns=2)
    for k in range(5):
        replay.add(
            state=[k, k], period=k, action=[0, 1], reward=[k, 0.5], next_state=[k, 0], next_action=[1, 0], ended=False
        )
    assert sorted(replay.arrays["period"].tolist()) == [2, 3, 4]
    copy = Replay(3, n_arms=2, n_columns=2)
    copy.load(replay.save(), replay.added)
    one, two = (r.sample(np.random.default_rng(0), 10) for r in (replay, copy))
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))


def test_weights_of_another_model_are_refused(tmp_path):
    train(small_model(), SMALL, out=tmp_path)
    with pytest.raises(ModelError, match="trained on another model"):
        load_policy(tmp_path, small_model(6))
    with pytest.raises(ModelError, match="holds no finished run"):
        load_policy(tmp_path / "nothing", small_model())
