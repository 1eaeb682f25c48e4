"""Baselines of the coupled settings: allowed, ending, and what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Chooser, Immediate, NetworkObjective, Scores, Situation
from rmab_opt.decisions.policy import Greedy, make_policy
from rmab_opt.encoder import Network
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning import constant_action, joint_optimum, joint_value

SETTINGS = {
    "scheduling": {"n_arms": 6, "n_workers": 3, "horizon": 4, "budget.at_most": 2},
    "capacity": {"n_arms": 6, "n_workers": 2, "horizon": 4},
    "path": {"n_arms": 6, "n_stops": 2, "horizon": 4, "budget.at_most": 3, "length": 4},
    "interventions": {"n_arms": 12, "n_interventions": 4, "problem.budget": 3, "budget.equal": 3, "horizon": 4},
    "scheduling_stateful": {"n_arms": 6, "n_workers": 3, "horizon": 4, "budget.at_most": 2, "n_touches": 2},
    "capacity_stateful": {"n_arms": 6, "n_workers": 2, "horizon": 4},
    "path_stateful": {"n_arms": 6, "n_stops": 2, "horizon": 4, "budget.at_most": 3, "length": 4},
    "interventions_stateful": {
        "n_arms": 6, "n_interventions": 5, "reach": 2, "problem.budget": 2, "budget.equal": 2, "horizon": 4,
    },
}  # fmt: skip
BASELINES = (
    "none", "random", "sampling", "myopic", "iterative_myopic", "static", "two_step", "rollout", "lagrangian",
    "lp_index", "hull_index", "lp_update",
)  # fmt: skip


def small(name: str, **more: int) -> ro.Model:
    settings = {**SETTINGS[name], **more}
    at_most = {key: value for key, value in settings.items() if key.startswith("budget.")}
    plain = {key: value for key, value in settings.items() if key not in at_most}
    return ro.load(name, **{f"constraints.{key}": value for key, value in at_most.items()}, **plain)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_baseline_acts_within_the_constraints_of_every_setting(name):
    model = small(name)
    rng = np.random.default_rng(0)
    states = [model.problem.sample_start(rng), rng.integers(model.problem.dynamics.n_states, size=model.problem.n_arms)]
    for baseline in BASELINES:
        chosen = make_policy(baseline, model)
        for state in states:
            for period in (0, model.problem.horizon - 1):
                decision = chosen.decide(state, period, rng)
                assert not model.actions.violations(decision.action), baseline


@pytest.mark.parametrize("name", SETTINGS)
def test_static_plays_the_best_constant_action(name):
    """By simulating every constant action exactly, arm by arm."""
    model = small(name)
    problem = model.problem
    transition, reward = problem.dynamics.tabular()
    arm = np.arange(problem.n_arms)

    def total(action: np.ndarray) -> float:
        taken = model.actions.columns.arm_action(action)
        value = np.zeros(reward.shape[:2])
        for _ in range(problem.horizon):
            value = reward[arm, :, taken] + problem.discount * np.einsum("nst,nt->ns", transition[arm, taken], value)
        return float((problem.start_distribution * value).sum())

    best = max(total(action) for action in model.actions.enumerate().astype(np.int64))
    assert total(constant_action(problem, model.actions)) == pytest.approx(best)
    static = make_policy("static", model)
    for state in (problem.sample_start(np.random.default_rng(1)), np.zeros(problem.n_arms, dtype=np.int64)):
        assert total(static.decide(state, 1, np.random.default_rng(0)).action) == pytest.approx(best)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_rungs_of_the_ladder_agree(name):
    """Listing and program, for linear values and for columns that share arms; the decision says which it was."""
    model = small(name)
    rng = np.random.default_rng(2)
    dynamics, n_arms = model.problem.dynamics, model.problem.n_arms
    table = rng.normal(size=(n_arms, dynamics.n_states, dynamics.n_actions))
    for objective in (Immediate(), Scores(table)):
        rungs = {
            method: Chooser(model.problem, model.actions, objective, "exact", method=method)
            for method in ("listing", "program")
        }
        for state in rng.integers(dynamics.n_states, size=(2, n_arms)):
            made = {method: chooser.decide(state) for method, chooser in rungs.items()}
            assert made["listing"].value == pytest.approx(made["program"].value, abs=1e-6)
            assert made["listing"].gap < 1e-12
            assert made["listing"].solver.startswith("listing of")
            situation = Situation(model.problem, model.actions.columns, state)
            every = model.actions.enumerate().astype(np.int64)
            assert made["listing"].value == pytest.approx(objective.batch_value(every, situation).max(), abs=1e-9)


@pytest.mark.parametrize("name", ["scheduling", "capacity", "path", "interventions"])
def test_the_rungs_for_networks_agree(name):
    """Listing, exact search and embedded program of one dense network; many states at once as one by one."""
    model = small(name)
    rng = np.random.default_rng(3)
    n_columns, n_arms = len(model.actions), model.problem.n_arms
    layers = [
        (rng.normal(size=(6, n_columns + n_arms)), rng.normal(size=6), "relu"),
        (rng.normal(size=(1, 6)), np.zeros(1), "linear"),
    ]
    whole = Network.from_arrays(layers)

    def at(situation: Situation) -> Network:
        return whole.fold(np.arange(n_columns, n_columns + n_arms), situation.state.astype(float))

    states = rng.integers(4, size=(3, n_arms))
    values = {}
    for method in ("listing", "search", "program"):
        objective = NetworkObjective(at)
        chooser = Chooser(model.problem, model.actions, objective, "exact", method=method)
        singly = [chooser.decide(state) for state in states]
        together = chooser.batch_decide(states)
        values[method] = [decision.value for decision in singly]
        assert [decision.value for decision in together] == pytest.approx(values[method], abs=1e-7)
        wording = {"listing": "listing of", "search": "exact search", "program": "highs"}[method]
        assert all(decision.solver.startswith(wording) and decision.status == "optimal" for decision in singly)
    assert values["search"] == pytest.approx(values["listing"], abs=1e-6)
    assert values["program"] == pytest.approx(values["listing"], abs=1e-6)


def test_a_set_too_large_to_list_is_refused_or_left_to_the_program():
    model = ro.load("scheduling", n_arms=40, **{"problem.n_workers": 10, "constraints.budget.at_most": 10})
    assert model.actions.listed is None
    with pytest.raises(CapabilityError, match="list of all"):
        Chooser(model.problem, model.actions, Immediate(), method="listing").decide(np.zeros(40, dtype=np.int64))


@pytest.mark.slow
@pytest.mark.parametrize("name", amount(["scheduling"], ["scheduling", "capacity", "path", "interventions_stateful"]))
def test_two_rounds_ahead_is_optimal_planning_over_two_rounds_up_to_the_next_rounds_competition(name):
    """Over a horizon of two it earns nearly the joint optimum, and never less than myopic by much."""
    model = small(name, horizon=2)
    best = joint_optimum(model.problem, model.actions).value
    rng = np.random.default_rng(0)
    values = {}
    for policy in ("two_step", "myopic"):
        chosen = make_policy(policy, model)
        values[policy] = joint_value(model.problem, model.actions, lambda s, t, c=chosen: c.decide(s, t, rng).action)
    assert values["two_step"] <= best + 1e-9
    assert values["two_step"] >= 0.97 * best
    assert values["two_step"] >= values["myopic"] - 0.01 * best


def test_greedy_meets_lower_limits_and_says_when_it_cannot():
    model = small("interventions")
    state = model.problem.sample_start(np.random.default_rng(0))
    made = make_policy("iterative_myopic", model).decide(state, 0, np.random.default_rng(0))
    assert made.action.sum() == 3
    loads = ro.load("capacity", n_arms=6, **{"problem.n_workers": 2, "horizon": 4})
    from rmab_opt.actions.kinds import Budget

    crowded = ActionSet(loads.actions.columns, {**loads.actions.constraints, "all": Budget(at_least=6)})
    greedy = Greedy(ro.Model(loads.problem, crowded), Immediate(), "iterative_myopic")
    with pytest.raises(ModelError, match="all unmet"):
        greedy.decide(np.zeros(6, dtype=np.int64), 0, np.random.default_rng(0))


def test_names_with_arguments():
    model = small("capacity")

    with pytest.raises(ModelError, match="argument is missing"):
        make_policy("iterative_dqn", model)
    with pytest.raises(ModelError, match="argument is taken"):
        make_policy("myopic:fast", model)


@pytest.mark.slow
def test_greedy_on_a_trained_network_in_all_four_settings(tmp_path):
    for name in ("scheduling", "capacity", "path", "interventions"):
        model = small(name)
        config = ro.learning.DQNConfig.from_mapping(
            {"network": "pooled", "episodes": 2, "hidden": (8,), "head": 2, "pretrain_steps": 5, "checkpoint_every": 2}
        )
        ro.train(model, config, out=tmp_path / name)
        table = ro.evaluate(model, [f"iterative_dqn:{tmp_path / name}", "random"], episodes=2, bound=False)
        assert table.rows[0]["policy"].startswith("iterative_dqn")
        assert np.isfinite(table.rows[0]["reward"])


def test_a_network_file_over_action_state_and_time_decides(tmp_path):
    """The file's inputs are folded by name: the decision's value is the forward pass on all of them."""
    folder = tmp_path / "calls"
    model = ro.load("capacity", n_arms=6, **{"problem.n_workers": 2})
    rng = np.random.default_rng(5)
    network = Network.from_arrays(
        [(rng.normal(size=(4, 13)), rng.normal(size=4), "relu"), (rng.normal(size=(1, 4)), np.zeros(1), "linear")]
    )
    folder.mkdir()
    network.to_safetensors(folder / "net.safetensors")
    (folder / "model.yaml").write_text(
        "format: 1\ntitle: Loads\nproblem: {domain: capacity, n_arms: 6, n_workers: 2, horizon: 20, seed: 0}\n"
        "constraints:\n  workers: {kind: capacity, workers: workers, cost: load}\n"
        "objective: {kind: network, file: net.safetensors, inputs: [state, action, time]}\n",
        encoding="utf-8",
    )
    read = ro.load(folder)
    state = rng.integers(4, size=6)
    every = model.actions.enumerate().astype(float)
    full = np.concatenate([np.tile(state, (len(every), 1)), every, np.full((len(every), 1), 15 / 20)], axis=1)
    assert ro.decide(read, state, period=5, solver="exact").value == pytest.approx(network(full).max(), abs=1e-7)
