"""Neural index policies: rounding is optimal and allowed, runs resume and repeat, networks act on arms never seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

import rmab_opt as ro
from rmab_opt import registry
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Capacity, Linear
from rmab_opt.decisions import Model
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.instances.synthetic import delayed
from rmab_opt.learning import load_policy
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.settings.neural_index.index import (
    NeuralIndexConfig,
    NeuralIndexPolicy,
    Rounding,
    load_neural_index,
    simulate_table,
    train_neural_index,
)

SHORT = NeuralIndexConfig(steps=60, log_every=20, checkpoint_every=20, log_episodes=1, hidden=(16,))


def cohort(n_arms: int = 12, seed: int = 0, budgets: tuple[int, int] = (2, 1), horizon: int = 15) -> Model:
    made = delayed(n_arms, 3, 3, seed)
    arms = Arms.from_arrays(n_arms, cost=np.random.default_rng(seed).integers(1, 4, n_arms))
    limits = {f"b{a + 1}": Linear(where={"action": a + 1}, at_most=limit) for a, limit in enumerate(budgets)}
    return Model(
        Problem(arms, made.dynamics, horizon, 1.0, made.start), ActionSet(Columns.of_arm_actions(arms, 3), limits)
    )


def costly(n_arms: int = 8, seed: int = 0) -> Model:
    """One shared budget of money and at most three visits: no plain budgets."""
    plain = cohort(n_arms, seed)
    arms = plain.problem.arms
    limits = {"money": Linear(column="cost", at_most=5), "visits": Linear(at_most=3)}
    return Model(plain.problem, ActionSet(Columns.of_arm_actions(arms, 3), limits))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_rounding_under_budgets_is_the_best_of_all_actions_and_of_the_program(seed, n_arms, first, second, tied):
    model = cohort(n_arms, 0, (first, second))
    scores = np.random.default_rng(seed).normal(size=(n_arms, 3))
    scores = np.round(scores) if tied else scores
    scores[:, 0] = 0.0
    rounding = Rounding(model)
    assert rounding.budgets is not None
    decision = rounding.decide(scores, np.zeros(n_arms, dtype=np.int64))
    best = max(
        sum(scores[n, a] for n, a in enumerate(joint))
        for joint in itertools.product(range(3), repeat=n_arms)
        if joint.count(1) <= first and joint.count(2) <= second
    )
    counts = np.kron(np.ones(n_arms), np.eye(3)[1:])
    program = linprog(
        -scores.ravel(), counts, [first, second], np.kron(np.eye(n_arms), np.ones(3)), np.ones(n_arms), method="highs"
    )
    assert decision.violations == {}
    assert decision.value == pytest.approx(best, abs=1e-9)
    assert decision.value == pytest.approx(-program.fun, abs=1e-7)
    assert decision.gap <= 1e-9 * (1 + abs(best))


@pytest.mark.parametrize("seed", range(3))
def test_rounding_under_costs_is_the_best_of_all_actions(seed):
    model = costly(6)
    rounding = Rounding(model)
    assert rounding.budgets is None
    scores = np.random.default_rng(seed).normal(size=(6, 3))
    scores[:, 0] = 0.0
    every = model.actions.enumerate().astype(np.int64)
    acting = model.actions.columns.arm_action(every)
    best = scores[np.arange(6), acting].sum(axis=1).max()
    decision = rounding.decide(scores, model.problem.start)
    assert decision.violations == {}
    assert decision.value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("loss", amount(["tempered"], ["tempered", "occupancy", "rollout"]))
@pytest.mark.parametrize("masses", amount(["upper"], ["upper", "equal"]))
def test_every_loss_trains_to_more_than_half_of_what_can_be_gained(loss, masses):
    model = cohort(12)
    config = NeuralIndexConfig(
        loss=loss, masses=masses, steps=60 if loss == "rollout" else 150, rounds=5, log_episodes=0
    )
    policy = train_neural_index(model, config).policy

    def total(table: np.ndarray) -> float:
        return simulate_table(model, table, 30, np.random.default_rng(5)).mean()

    idle, limit = total(np.zeros_like(policy.table)), ro.bound(model).value
    assert total(policy.table) > idle + 0.5 * (limit - idle)


@pytest.mark.parametrize("make", ["costs", "capacity", "rest"])
def test_it_works_under_constraints_that_are_not_budgets(make):
    """Costs, workers' capacities (variables of their own), and actions that must be used: all allowed, all proven."""
    if make == "costs":
        model = costly()
    else:
        plain = cohort(8)
        workers = Table({"worker": ["a", "b"], "capacity": [3, 2]}, source="workers")
        rule = Capacity(workers=workers, cost="cost") if make == "capacity" else Budget(at_least=2, at_most=3)
        model = Model(plain.problem, ActionSet(Columns.of_arm_actions(plain.problem.arms, 3), {"rule": rule}))
    policy = train_neural_index(model, NeuralIndexConfig(steps=30, log_episodes=0, hidden=(16,))).policy
    rng = np.random.default_rng(0)
    for _ in range(3):
        state = rng.integers(0, 3, 8)
        decision = policy.decide(state)
        assert model.actions.violations(decision.action) == {}
        assert decision.status == "optimal"


@pytest.mark.slow
def test_harmful_actions_are_left_unused_below_upper_limits():
    """Acting makes these arms worse: the trained index must say so, whatever constant the budgets absorb."""
    model = cohort(10)
    transition, reward = model.problem.dynamics.tabular()
    swapped = transition[:, ::-1].copy()
    from rmab_opt.problem import Tabular

    problem = Problem(model.problem.arms, Tabular(swapped, reward), 15, 1.0, model.problem.start)
    bad = Model(problem, model.actions)
    policy = train_neural_index(bad, NeuralIndexConfig(steps=300, log_episodes=0)).policy
    table = simulate_table(bad, policy.table, 30, np.random.default_rng(1)).mean()
    idle = simulate_table(bad, np.zeros_like(policy.table), 30, np.random.default_rng(1)).mean()
    assert table > 0.97 * idle


def test_a_run_resumes_to_the_same_weights_and_repeats(tmp_path):
    model, rows = cohort(), []
    whole = train_neural_index(model, SHORT, seed=3, out=tmp_path / "whole")

    def stop(row):
        rows.append(row)
        if row["step"] == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_neural_index(model, SHORT, seed=3, out=tmp_path / "cut", on_event=stop)
    resumed = train_neural_index(model, SHORT, seed=3, out=tmp_path / "cut")
    assert [row["step"] for row in rows] == [20, 40]
    assert resumed.weights_hash() == whole.weights_hash()
    assert resumed.log == whole.log
    assert train_neural_index(model, SHORT, seed=4).weights_hash() != whole.weights_hash()


@pytest.mark.parametrize("loss", ["rollout", "occupancy"])
def test_other_losses_resume_too(tmp_path, loss):
    config = NeuralIndexConfig(
        loss=loss, steps=8, log_every=4, checkpoint_every=4, log_episodes=0, rounds=2, batch=2, hidden=(8,)
    )

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_neural_index(cohort(), config, out=tmp_path / "cut", on_event=stop)
    resumed = train_neural_index(cohort(), config, out=tmp_path / "cut")
    assert resumed.weights_hash() == train_neural_index(cohort(), config).weights_hash()


def test_a_folder_of_another_run_is_refused(tmp_path):
    train_neural_index(cohort(), SHORT, seed=3, out=tmp_path)
    with pytest.raises(ModelError, match="another seed"):
        train_neural_index(cohort(), SHORT, seed=4, out=tmp_path)
    with pytest.raises(ModelError, match="another model"):
        train_neural_index(cohort(seed=1), SHORT, seed=3, out=tmp_path)


def test_a_saved_network_acts_on_other_arms_and_sizes(tmp_path):
    run = train_neural_index(cohort(12), SHORT, out=tmp_path / "run")
    run.network.save(tmp_path / "index.safetensors")
    other = cohort(30, seed=5, budgets=(3, 2))
    by_file = NeuralIndexPolicy(other, load_neural_index(tmp_path / "index.safetensors"))
    by_run = load_policy(tmp_path / "run", other)
    decision = by_file.decide(other.problem.start)
    assert decision.violations == {}
    assert np.array_equal(by_file.table, by_run.table)
    assert np.array_equal(decision.action, by_run.chooser.decide(other.problem.start).action)
    at = run.network.indices(other.problem, other.problem.start)
    assert np.allclose(at, by_file.table[np.arange(30), other.problem.start], atol=1e-6)
    table = ro.evaluate(other, [str(tmp_path / "run"), "lagrangian"], episodes=2)
    assert [row["policy"] for row in table.rows] == ["run", "lagrangian"]
    wrong = delayed(5, 4, 3, 0)
    with pytest.raises(ModelError, match="4 states"):
        run.network.indices(Problem(Arms.from_arrays(5), wrong.dynamics, 5, 1.0, wrong.start))


def test_the_onnx_file_gives_the_same_indices(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    model = cohort()
    network = train_neural_index(model, SHORT).network
    network.to_onnx(tmp_path / "index.onnx")
    transition, reward = model.problem.dynamics.tabular()
    raw = np.concatenate([transition.reshape(12, -1), reward.reshape(12, -1)], axis=1)
    inputs = np.concatenate([np.repeat(raw, 3, axis=0), np.tile(np.eye(3), (12, 1))], axis=1).astype(np.float32)
    (found,) = runtime.InferenceSession(str(tmp_path / "index.onnx")).run(None, {"x": inputs})
    assert np.allclose(found.reshape(12, 3, 3), network.indices(model.problem), atol=1e-4)


def test_cohort_columns_and_arms_by_name_are_features():
    model = cohort()
    seen = train_neural_index(model, NeuralIndexConfig(steps=5, features="none", columns=("cost",), log_episodes=0))
    cost = model.problem.arms.numbers("cost")
    same = np.flatnonzero(cost == cost[0])
    assert np.allclose(seen.policy.table[same], seen.policy.table[0])
    named = train_neural_index(model, NeuralIndexConfig(steps=5, features="arms", log_episodes=0)).network
    with pytest.raises(ModelError, match="features an arm"):
        named.indices(cohort(20).problem)


class _Samples:
    """Dynamics that can only be sampled."""

    def __init__(self, inner) -> None:
        self._inner = inner
        self.n_arms, self.n_states, self.n_actions = inner.n_arms, inner.n_states, inner.n_actions

    def step(self, state, action, rng):
        return self._inner.step(state, action, rng)

    def expected_reward(self, state, action):
        return self._inner.expected_reward(state, action)


@pytest.mark.slow
def test_unknown_dynamics_are_learned_from_samples_alone():
    known = cohort(12)
    problem = Problem(known.problem.arms, _Samples(known.problem.dynamics), 15, 1.0, known.problem.start)
    model = Model(problem, known.actions)
    with pytest.raises(CapabilityError, match="tabular"):
        train_neural_index(model, NeuralIndexConfig(features="arms", log_episodes=0))
    config = NeuralIndexConfig(loss="rollout", features="arms", steps=80, rounds=5, log_episodes=0)
    policy = train_neural_index(model, config).policy
    idle, learned = (
        simulate_table(model, table, 30, np.random.default_rng(5)).mean()
        for table in (np.zeros_like(policy.table), policy.table)
    )
    assert learned > idle + 0.5 * (ro.bound(known).value - idle)


def test_bad_settings_name_the_nearest_one():
    with pytest.raises(ModelError, match="tempered"):
        NeuralIndexConfig(loss="temperd")
    with pytest.raises(ModelError, match="epsilon"):
        NeuralIndexConfig.from_mapping({"epsilom": 0.1})
    with pytest.raises(ModelError, match=r"from 0\.0001"):
        NeuralIndexConfig(epsilon=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_published_targets_on_arms_with_delayed_effect(seed):
    """N = 50, 400 runs: tempered at least 97 %, the published target at least 94 % of the finite-horizon bound."""
    made = ro.load("neural_index", **{"problem.seed": seed})
    limit = ro.bound(made).value
    for loss, share in (("tempered", 0.97), ("occupancy", 0.94)):
        table = train_neural_index(made, NeuralIndexConfig(loss=loss, log_episodes=0), seed=seed).policy.table
        assert simulate_table(made, table, 400, np.random.default_rng(99)).mean() >= share * limit


@pytest.mark.slow
def test_unseen_arms_stay_near_the_lagrangian_policy():
    """A small version of the benchmark: 150 arms trained, 50 others acted on."""
    trained = train_neural_index(cohort(150, 0, (15, 9)), NeuralIndexConfig(steps=400, log_episodes=0)).network
    other = cohort(50, 7, (5, 3))
    fair = registry.find("rule", "lagrangian").make(other.problem, other.actions).values[0]
    mine, theirs = (
        simulate_table(other, table, 60, np.random.default_rng(2)).mean()
        for table in (trained.indices(other.problem), fair)
    )
    assert mine > 0.95 * theirs


@pytest.mark.parametrize("name", amount(["scheduling"], ["scheduling", "path"]))
def test_it_works_under_rosters_and_routes(name):
    """The shipped coupled settings: every decision is allowed, proven, and carries who goes where."""
    model = ro.load(name, horizon=4).instance(0)
    policy = train_neural_index(model, NeuralIndexConfig(steps=20, log_episodes=0, hidden=(16,))).policy
    rng = np.random.default_rng(1)
    for _ in range(2):
        decision = policy.decide(rng.integers(0, 4, 20))
        assert model.actions.violations(decision.action) == {}
        assert decision.status == "optimal"
        assert {row["column"] for row in decision.assignment} <= set(decision.chosen)
