"""Training repeats from its seed, survives being killed at any moment, and learns what a small exact program knows."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amounts import amount
from scipy import sparse

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Chooser, Model, Situation
from rmab_opt.decisions.policy import ChooserPolicy
from rmab_opt.encoder import Network
from rmab_opt.errors import ModelError
from rmab_opt.learning import DQNConfig, load_policy, train
from rmab_opt.learning.config import PRESETS
from rmab_opt.learning.learner import Learner
from rmab_opt.learning.networks import QNetwork, make_network
from rmab_opt.learning.replay import Replay
from rmab_opt.learning.samples import Successors, WarmStart
from rmab_opt.planning import joint_optimum, joint_value
from rmab_opt.planning.anchors import anchor_values
from rmab_opt.problem import Arms, Ladder, Problem, Table, Tabular

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
    """SIGKILL at random moments; weights and log are equal byte for byte."""
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
    for attempt in range(amount(3, 10)):
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
    assert killed_inside >= amount(1, 3)


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


FOUR_ARMS = {
    "scheduling": {"n_arms": 4, "n_workers": 2, "horizon": 8, "budget.at_most": 2},
    "capacity": {"n_arms": 4, "n_workers": 2, "horizon": 8},
    "path": {"n_arms": 4, "n_stops": 2, "horizon": 8, "budget.at_most": 2, "length": 4},
}


def four_arms(setting: str, seed: int) -> Model:
    """A published setting with four arms and eight rounds; interventions by hand, its generator needs six arms."""
    if setting != "interventions":
        return ro.load(setting, solver="exact", **FOUR_ARMS[setting]).instance(seed)
    rng = np.random.default_rng(seed)
    arms = Arms.from_arrays(4)
    # The first two arms hardly answer to one touch; the others do at once, and pay less.
    steep, shallow = [0.01, 0.03, 0.6, 0.9], [0.01, 0.35, 0.4, 0.45]
    up = np.array([steep, steep, shallow, shallow]) * rng.uniform(0.9, 1.0, (4, 1))
    reward = np.array([[0.2, 0.15, 0.1, 5.0], [0.2, 0.15, 0.1, 4.0], [0.1, 0.15, 0.2, 2.0], [0.1, 0.15, 0.2, 3.0]])
    effect = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 1, 0.0]])
    columns = Columns(arms, Table({"id": [f"c{k}" for k in range(5)]}, source="columns"), sparse.csr_array(effect))
    problem = Problem(arms, Ladder(up, reward), horizon=8, start=np.tile([0.8, 0.2, 0.0, 0.0], (4, 1)))
    return Model(problem, ActionSet(columns, {"budget": Budget(equal=2)}), solver="exact", title="interventions")


@pytest.mark.parametrize(
    ("setting", "next_states"),
    [
        ("scheduling", 1),
        pytest.param("capacity", 0, marks=pytest.mark.slow),
        pytest.param("path", 1, marks=pytest.mark.slow),
        pytest.param("interventions", 0, marks=pytest.mark.slow),
    ],
)
def test_four_arms_are_learned_to_within_three_per_cent_of_the_joint_optimum(tmp_path, setting, next_states):
    """The finished policy's exact value against the joint dynamic program; one or all next states a target."""
    model = four_arms(setting, 1)
    config = DQNConfig(episodes=4, network="anchored", head=2, hidden=(8,), next_states=next_states)
    run = train(model, config, seed=0, out=tmp_path)
    best = joint_optimum(model.problem, model.actions).value
    learned = joint_value(model.problem, model.actions, lambda s, t: run.policy.chooser.decide(s, t).action)
    assert 0.97 * best <= learned <= best * (1 + 1e-9)


@pytest.mark.slow
def test_the_learned_policy_comes_near_the_exact_joint_optimum(tmp_path):
    """Valuable arms pay only after a detour: one look ahead earns little, learning most of what is possible."""
    rng = np.random.default_rng(1)
    arms = Arms.from_arrays(4)
    up = np.stack([rng.uniform(0.0, 0.2, 4), rng.uniform(0.7, 0.9, 4)], axis=1)
    reward = np.array([[0.2, 0.15, 0.1, 5.0], [0.2, 0.15, 0.1, 4.0], [0.1, 0.15, 0.2, 1.0], [0.1, 0.15, 0.2, 2.0]])
    problem = Problem(arms, Ladder(up, reward), horizon=8)
    model = Model(problem, ActionSet(arms, {"budget": Budget(at_most=2)}), solver="exact", title="trap")
    run = train(model, DQNConfig(episodes=60, hidden=(24,), head=4, updates=4), seed=0, out=tmp_path)
    table = ro.evaluate(model, [run.policy, "myopic"], episodes=amount(60, 200))
    learned, myopic = (row["reward"] for row in table.rows)
    best = joint_optimum(model.problem, model.actions).value
    assert learned >= 0.93 * best
    assert learned > 1.2 * myopic
    assert table.rows[0]["low"] <= best * 1.02
    assert table.difference("learned", "myopic")[1] > 0


def several_touches() -> tuple[Problem, Columns]:
    """Five columns over four arms: two that add up on the first two arms, one more, one alone, one on two arms."""
    rng = np.random.default_rng(2)
    arms = Arms.from_arrays(4)
    problem = Problem(arms, Tabular(rng.dirichlet(np.ones(3), (4, 4, 3)), rng.normal(size=(4, 3, 4))), horizon=6)
    effect = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 2, 0], [0, 1, 0, 1.0]])
    table = Table({"id": [f"c{k}" for k in range(5)]}, source="columns")
    return problem, Columns(arms, table, sparse.csr_array(effect))


def one_touch(exclusive: bool) -> tuple[Problem, Columns]:
    rng = np.random.default_rng(2)
    n_actions = 3 if exclusive else 2
    arms = Arms.from_arrays(3)
    dynamics = Tabular(rng.dirichlet(np.ones(3), (3, n_actions, 3)), rng.normal(size=(3, 3, n_actions)))
    columns = Columns.of_arm_actions(arms, 3) if exclusive else Columns.of_arms(arms)
    return Problem(arms, dynamics, horizon=6), columns


def network_of(kind: str, problem: Problem, columns: Columns, **options: Any) -> QNetwork:
    """A network with weights that say something everywhere."""
    if kind == "anchored":
        shape = (problem.horizon, problem.n_arms, problem.dynamics.n_states, problem.dynamics.n_actions)
        options.setdefault("values", np.random.default_rng(9).normal(size=shape))
    network = make_network(kind, problem, columns, (5,), 3, 0.7, seed=1, **options)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.3 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))
    return network


@pytest.mark.parametrize("kind", ["pooled", "anchored", "dense"])
@pytest.mark.parametrize("columns", ["one an arm", "exclusive", "several touches"])
def test_the_network_over_columns_equals_the_torch_network(kind, columns):
    """`at` folds state and period; its numbers are the forward pass's on every action, also where columns add up."""
    problem, columns = several_touches() if columns == "several touches" else one_touch(columns == "exclusive")
    actions = ActionSet(columns, {"some": Linear(at_most=3)})
    network = network_of(kind, problem, columns)
    for state, period in ((np.array([0, 2, 1, 2]), 0), (np.array([1, 1, 0, 0]), 4)):
        state = state[: problem.n_arms]
        folded = network.at(Situation(problem, columns, state, period))
        assert isinstance(folded, Network)
        for action in actions.enumerate().astype(int):
            arms_part, rest = network(torch.tensor(state)[None], torch.tensor([period]), torch.tensor(action)[None])
            total = float(rest.detach()) + (0.0 if arms_part is None else float(arms_part.detach().sum()))
            assert float(np.ravel(folded(action[None].astype(float)))[0]) == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("alone", [False, True])
def test_a_decision_with_columns_that_add_up_is_the_best_of_all(alone):
    """The program over bends and head against trying every action."""
    problem, columns = several_touches()
    actions = ActionSet(columns, {"some": Linear(at_most=3)})
    network = network_of("anchored", problem, columns)
    objective = network.alone() if alone else network.objective()
    chooser = Chooser(problem, actions, objective, "exact", method="program")
    everything = actions.enumerate().astype(int)
    for state in np.random.default_rng(0).integers(3, size=(6, 4)):
        situation = Situation(problem, columns, state, 2)
        if alone:
            level = columns.arm_action(everything)
            values = network.base[2].numpy()[np.arange(4), state, level].sum(axis=1)
        else:
            values = network.at(situation)(everything.astype(float))
        assert chooser.decide(state, 2).value == pytest.approx(values.max(), abs=1e-6)


@pytest.mark.parametrize(
    ("anchor", "rule"),
    amount(
        [("prices", "lp_index"), ("open_loop", "open_loop")],
        [("prices", "lp_index"), ("hull", "hull_index"), ("rollout", "rollout"), ("open_loop", "open_loop")],
    ),
)
def test_an_anchored_network_begins_at_its_planning_rule(anchor, rule):
    """Before any training its greedy actions earn what the rule earns, on the same draws; with and without the head."""
    model = small_model(8)
    values = anchor_values(model.problem, model.actions, anchor)
    network = make_network("anchored", model.problem, model.actions.columns, (5,), 3, 1.0, 0, values=values)
    assert network.silent
    choosers = [Chooser(model.problem, model.actions, o, "exact") for o in (network.objective(), network.alone())]
    policies = [ChooserPolicy(chooser, f"anchored {k}") for k, chooser in enumerate(choosers)]
    table = ro.evaluate(model, [*policies, rule], episodes=30)
    for one in policies:
        assert np.allclose(table.episodes[one.name], table.episodes[rule])


def test_an_anchored_network_begins_at_the_level_its_anchor_earns():
    """Priced values leave out what the prices collect; the offset of each round makes up for it, on average."""
    config = DQNConfig(**{**vars(SMALL), "network": "anchored", "anchor": "prices", "validation_episodes": 40})
    learner = Learner(small_model(8), config, 0, "cpu")
    learner.begin()
    assert learner.kept == learner.anchor == "prices"
    _, before = learner._try(learner.online.alone(), learner.best)
    assert np.abs(before).max() < 1e-3
    assert float(learner.online.offset.detach()[0]) > 0.1


def test_chance_has_expectation_zero_over_next_states():
    """What an anchored target takes off is noise and nothing else: summed over all next states with their chances."""
    problem, columns = several_touches()
    network = network_of("anchored", problem, columns)
    successors = Successors(problem, 0)
    actions = ActionSet(columns, {"some": Linear(at_most=3)})
    state, action = np.array([0, 2, 1, 1]), np.array([1, 0, 1, 0, 1])
    following, weight, _ = successors(state, action, state, actions, np.random.default_rng(0))
    assert weight.sum() == pytest.approx(1.0)
    assert len(np.unique(following[weight > 0], axis=0)) == (weight > 0).sum() == 81
    habit = torch.tensor(np.random.default_rng(3).dirichlet(np.ones(4), 4))
    noise = network.chance(
        torch.tensor(state)[None], torch.tensor([1]), torch.tensor(action)[None], torch.tensor(following)[None], habit
    )
    assert float((noise[0].numpy() * weight).sum()) == pytest.approx(0.0, abs=1e-9)
    assert noise.std() > 0.1


def test_all_next_states_of_many_arms_are_refused():
    with pytest.raises(ModelError, match="next_states is 0"):
        Successors(small_model(12).problem, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"network": "dense"},
        pytest.param(
            {"network": "dense", "double": False, "target": "periodic", "target_every": 7}, marks=pytest.mark.slow
        ),
        {"network": "anchored", "next_states": 3},
        pytest.param({"network": "anchored", "next_states": 0, "anchor": "open_loop"}, marks=pytest.mark.slow),
        {"warm_start": "published"},
        pytest.param({"argmax": "hill_climb", "weight_decay": 0.1}, marks=pytest.mark.slow),
    ],
)
def test_every_choice_of_the_loop_repeats_and_records_itself(tmp_path, change):
    """Two runs of one seed agree to the byte, also when one of them was stopped; run.json says what was chosen."""
    config = DQNConfig(**{**vars(SMALL), "episodes": 4, "pretrain_steps": 20, **change})

    def stop(row):
        if row["episode"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small_model(), config, seed=1, out=tmp_path / "a", on_event=stop)
    one, two = (train(small_model(), config, seed=1, out=tmp_path / name) for name in ("a", "b"))
    assert content(one.folder) == content(two.folder)
    record = json.loads((one.folder / "run.json").read_text())
    assert record["argmax"] == {"training": f"{config.argmax}, profile training", "evaluation": "exact"}
    assert record["kept"] in record["validation"]
    assert {key: record["config"][key] for key in change} == change
    if config.network == "anchored":
        assert record["anchor"] in ("prices", "hull", "rollout", "open_loop")
        # Never worse than the anchor on the draws that chose.
        assert record["validation"][record["kept"]] >= record["validation"][record["anchor"]]


def test_a_run_without_trials_keeps_its_last_average(tmp_path):
    config = DQNConfig(**{**vars(SMALL), "episodes": 2, "validation_episodes": 0})
    train(small_model(), config, out=tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["kept"] == "average"
    with pytest.raises(ModelError, match="anchor is 'auto'"):
        DQNConfig(network="anchored", validation_episodes=0)


def test_trials_are_evenly_over_the_run_and_the_last_is_at_its_end(tmp_path):
    config = DQNConfig(**{**vars(SMALL), "episodes": 7, "validations": 3, "validation_episodes": 1})
    run = train(small_model(), config, out=tmp_path)
    # 7 k / 3 for k = 1, 2, 3, to the nearest episode.
    assert [row["episode"] for row in run.log if "validation" in row] == [2, 5, 7]


def test_the_published_recipe_is_a_preset_that_others_go_over():
    config = DQNConfig.from_mapping({"preset": "paper", "episodes": 7})
    assert (config.network, config.hidden, config.warm_start, config.double) == ("dense", (16, 32), "published", False)
    assert config.episodes == 7
    assert config.learning_rate == PRESETS["paper"]["learning_rate"]
    with pytest.raises(ModelError, match=r"train.preset is 'papr'"):
        DQNConfig.from_mapping({"preset": "papr"})
    loaded = ro.load("capacity", preset="paper", n_arms=6)
    assert DQNConfig.from_mapping(dict(loaded.settings["train"])).network == "dense"


def test_the_published_warm_start_is_diverse():
    """All starters stand at all plain states, and the arms of allowed actions stand at the top."""
    model = small_model()
    sample = WarmStart(model, "published", np.random.default_rng(0))
    seen = {(tuple(s), tuple(a)) for s, a in zip(sample.states.tolist(), sample.actions.tolist(), strict=True)}
    unit, none, everyone = np.eye(5, dtype=int), np.zeros(5, dtype=int), np.ones(5, dtype=int)
    for state in (none, everyone, *unit, *(1 - unit)):
        for action in (none, everyone, *unit, *(1 - unit)):
            assert (tuple(state.tolist()), tuple(action.tolist())) in seen
    high = [(s, a) for s, a in seen if sum(a) and all(x == 2 for x, y in zip(s, a, strict=True) if y)]
    assert len(high) > 50
    state, period, action, reward = sample.draw(16)
    expected = model.problem.dynamics.expected_reward(state, action)
    assert np.allclose(reward, expected)
    assert period.max() < model.problem.horizon


@pytest.mark.parametrize("network", amount(["anchored"], ["pooled", "anchored"]))
def test_one_set_of_weights_serves_a_cohort_of_another_size(tmp_path, network):
    """Trained on five arms, deciding for nine: with the stored features' scale, and this cohort's own anchor."""
    config = DQNConfig(**{**vars(SMALL), "network": network, "anchor": "open_loop", "validation_episodes": 0})
    run = train(small_model(5), config, out=tmp_path)
    larger = small_model(9)
    moved, own = load_policy(tmp_path, larger), load_policy(tmp_path, small_model(5))
    table = ro.evaluate(larger, [moved, "random", "none"], episodes=20)
    assert table.difference("learned", "random")[0] > 0
    assert np.array_equal(
        ro.evaluate(small_model(5), [own], episodes=4).episodes["learned"],
        ro.evaluate(small_model(5), [run.policy], episodes=4).episodes["learned"],
    )
    arms = Arms.from_arrays(5)
    other = Problem(arms, Ladder(np.tile([0.1, 0.8], (5, 1)), np.tile(np.arange(4.0), (5, 1))), horizon=5)
    with pytest.raises(ModelError, match="arms of 3 states and 2 actions"):
        load_policy(tmp_path, Model(other, ActionSet(arms, {"budget": Budget(at_most=2)})))


def test_replay_overwrites_the_oldest_and_comes_back_from_its_arrays():
    replay = Replay(3, n_arms=2, n_columns=2)
    for k in range(5):
        replay.add(
            state=[k, k], period=k, action=[0, 1], reward=[k, 0.5], next_state=[[k, 0]], next_action=[[1, 0]],
            weight=[1.0], ended=False,
        )  # fmt: skip
    assert sorted(replay.arrays["period"].tolist()) == [2, 3, 4]
    copy = Replay(3, n_arms=2, n_columns=2)
    copy.load(replay.save(), replay.added)
    one, two = (r.sample(np.random.default_rng(0), 10) for r in (replay, copy))
    assert all(np.array_equal(getattr(one, name), getattr(two, name)) for name in vars(one))


def test_weights_of_another_model_are_refused(tmp_path):
    train(small_model(), DQNConfig(**{**vars(SMALL), "network": "dense"}), out=tmp_path)
    with pytest.raises(ModelError, match="trained on another model"):
        load_policy(tmp_path, small_model(6))
    with pytest.raises(ModelError, match="holds no finished run"):
        load_policy(tmp_path / "nothing", small_model())
