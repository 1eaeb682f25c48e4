"""Simulation is exact in expectation, common in its draws, and refuses what the checkers refuse."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from amounts import amount
from command_line import run
from strategies import tabular

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser, Model, Scores
from rmab_opt.decisions.policy import ChooserPolicy, make_policy
from rmab_opt.errors import CapabilityError, ModelError, SolverError
from rmab_opt.learning import RestlessBanditEnv, Simulator, evaluate
from rmab_opt.learning.evaluation import row_names
from rmab_opt.problem import Arms, Problem


def small_model(horizon: int = 4, at_most: int = 1) -> Model:
    rng = np.random.default_rng(0)
    arms = Arms.from_arrays(3)
    problem = Problem(arms, tabular(3, 2, 2, rng), horizon=horizon, discount=0.9, start=np.array([0, 1, 0]))
    return Model(problem, ActionSet(arms, {"budget": Budget(at_most=at_most)}), solver="exact", title="small")


def test_the_policy_none_earns_what_the_passive_chains_earn():
    model = small_model()
    transition, reward = model.problem.dynamics.tabular()
    belief, total = model.problem.start_distribution, 0.0
    for period in range(model.problem.horizon):
        total += model.problem.discount**period * (belief * reward[:, :, 0]).sum()
        belief = np.einsum("ns,nst->nt", belief, transition[:, 0])
    exact = evaluate(model, ["none"], episodes=2).rows[0]
    assert exact["estimate"] == "exact"
    assert exact["reward"] == pytest.approx(total, rel=1e-12)
    for reward in ("expected", "sampled"):
        row = evaluate(model, ["none"], episodes=amount(600, 3000), reward=reward, bound=False).rows[0]
        assert row["estimate"] == "raw"
        assert abs(row["reward"] - total) < 4 * (row["high"] - row["low"]) / 3.92


def test_policies_meet_common_random_numbers_and_repeat_from_the_seed():
    model = small_model()

    class Twin:
        name = "twin"

        def __init__(self) -> None:
            self.inner = make_policy("none", model)

        def decide(self, state, period, rng):
            rng.random(17)  # a policy's own draws must not disturb the arms
            return self.inner.decide(state, period, rng)

    table = evaluate(model, ["none", Twin()], episodes=50)
    assert np.array_equal(table.raw["none"], table.raw["twin"])
    again = evaluate(model, ["none", "random"], episodes=50)
    assert np.array_equal(table.raw["none"], again.raw["none"])
    assert np.array_equal(again.episodes["random"], evaluate(model, ["random"], episodes=50).episodes["random"])


def test_no_sampled_action_beats_the_exact_myopic_one_in_one_round():
    model = small_model(horizon=1)
    table = evaluate(model, ["myopic", "sampling", "random", "none"], episodes=30)
    reward = {row["policy"]: row["reward"] for row in table.rows}
    assert reward["myopic"] >= max(reward.values()) - 1e-9
    assert reward["sampling"] >= reward["random"] - 1e-9
    assert {row["policy"]: row["proven_share"] for row in table.rows} == {
        "myopic": 1,
        "sampling": 0,
        "random": 0,
        "none": 0,
    }


def test_intervals_are_over_seeds_when_there_are_several():
    table = evaluate(small_model(), ["myopic"], seeds=range(5), episodes=4)
    means = table.episodes["myopic"].mean(axis=1)
    half = 2.7764451 * means.std(ddof=1) / np.sqrt(5)
    assert table.rows[0]["reward"] - table.rows[0]["low"] == pytest.approx(half, rel=1e-6)


def test_a_generated_model_is_another_instance_for_each_seed():
    model = ro.load("budget", n_arms=6, horizon=3)
    one, two = model.instance(1), model.instance(2)
    assert not np.array_equal(one.problem.dynamics.up, two.problem.dynamics.up)
    assert np.array_equal(one.problem.dynamics.up, model.instance(1).problem.dynamics.up)


def test_a_forbidden_action_is_refused_by_simulator_environment_and_evaluation():
    model = small_model()
    everything = np.ones(3, dtype=int)
    simulator = Simulator(model.problem, model.actions, [np.random.SeedSequence(0)])
    with pytest.raises(ModelError, match="forbidden action: budget: 3 chosen"):
        simulator.step(everything[None])
    environment = RestlessBanditEnv(model, forbidden="raise")
    environment.reset(seed=0)
    with pytest.raises(ModelError, match="forbidden action"):
        environment.step(everything)

    class Greedy:
        name = "greedy"

        def decide(self, state, period, rng):
            decision = make_policy("none", model).decide(state, period, rng)
            from dataclasses import replace

            return replace(decision, action=everything, violations=model.actions.violations(everything))

    with pytest.raises(SolverError, match=r"policy 'greedy'.*breaks budget"):
        evaluate(model, [Greedy()], episodes=1)


def test_tables_print_and_export():
    table = evaluate(small_model(), ["myopic", "none"], episodes=5)
    assert "policy" in str(table)
    assert table.to_csv().splitlines()[0].startswith("policy,reward,low,high,share_of_bound,share_low,share_high")
    assert r"\begin{tabular}" in table.to_latex()
    found = table.difference("myopic", "none")
    assert found.low <= found.mean <= found.high
    with pytest.raises(ModelError, match="no policy 'x'"):
        table.difference("myopic", "x")


@pytest.mark.parametrize("name", amount(["capacity"], ["scheduling", "capacity"]))
def test_rolling_out_the_constant_action_is_no_worse_than_it(name):
    """One policy improvement: paired on common draws, and below the bound of every policy."""
    model = ro.load(name, n_arms=10, n_workers=3, horizon=10)
    table = evaluate(model, ["rollout", "static", "none"], episodes=60)
    assert table.difference("rollout", "static")[2] > 0
    assert max(row["high"] for row in table.rows) <= table.header["bound"]
    assert {row["policy"]: row["normalised"] for row in table.rows}["none"] == 0.0


def test_the_greedy_baseline_stops_and_is_never_above_the_exact_myopic_choice():
    model = ro.load("capacity", n_arms=12, n_workers=3, horizon=4, solver="exact")
    rng = np.random.default_rng(0)
    greedy, exact = (make_policy(name, model) for name in ("iterative_myopic", "myopic"))
    for _ in range(20):
        state = rng.integers(4, size=12)
        one, two = (policy.decide(state, 0, rng) for policy in (greedy, exact))
        assert model.actions.allows(one.action)
        assert one.value <= two.value + 1e-9


def test_the_command_line_names_the_arms_at_the_margin():
    """Nearest first; an arm above its price stands before the limit, one below after it."""
    answer = run("bound", "budget", "--margin", "6", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    sizes = [abs(row["margin"]) for row in told["margin"]]
    assert len(sizes) == 6
    assert sizes == sorted(sizes)
    assert all(row["worth"] - row["price"] == pytest.approx(row["margin"]) for row in told["margin"])
    refused = run("bound", "scheduling", "--margin", "3")
    assert refused.code == 2
    assert "no resource prices" in refused.err


def _rewards(table) -> dict[str, list[list[float]]]:
    return {name: totals.tolist() for name, totals in table.episodes.items()}


def test_rewards_do_not_depend_on_the_number_of_workers():
    """Seeds, policies and blocks of episodes in two processes against one; a learned policy's solver travels too."""
    model = ro.load("budget", n_arms=6, horizon=3)
    run_of = ChooserPolicy(Chooser(model.problem, model.actions, Scores(np.arange(6.0))), "scored")
    arguments = (model, ["myopic", "lp_index", "random", run_of])
    one = evaluate(*arguments, seeds=range(2), episodes=60, n_jobs=1)
    seen = []
    two = evaluate(*arguments, seeds=range(2), episodes=60, n_jobs=2, on_event=seen.append)
    assert _rewards(one) == _rewards(two)
    assert one.header["bound"] == two.header["bound"]
    assert sum(event["advance"] for event in seen) == 2 * 4 * 2 * 3


class _Frail:
    """Acts on nobody; kills its process the first time it is asked."""

    name = "frail"

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "died"

    def decide(self, state, period, rng):
        if not self.mark.exists():
            self.mark.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)
        return make_policy("none", small_model()).decide(state, period, rng)


def test_a_lost_workers_episodes_are_simulated_again(tmp_path):
    table = evaluate(small_model(), [_Frail(tmp_path), "none", "random"], episodes=8, n_jobs=2)
    assert (tmp_path / "died").exists()
    assert np.array_equal(table.raw["frail"], table.raw["none"])
    assert _rewards(evaluate(small_model(), ["random"], episodes=8))["random"] == _rewards(table)["random"]


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_rewards():
    """joblib's own configuration names the cluster; no line of ours does."""
    distributed = pytest.importorskip("distributed")
    import joblib

    alone = evaluate(small_model(), ["random", "myopic"], episodes=6)
    with (
        distributed.Client(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None),
        joblib.parallel_config(backend="dask"),
    ):
        cluster = evaluate(small_model(), ["random", "myopic"], episodes=6, n_jobs=-1)
    assert _rewards(alone) == _rewards(cluster)


def test_two_policies_of_one_name_are_refused_and_runs_of_one_name_told_apart(tmp_path):
    """Their episodes were taken for those of one policy: twice as many draws, and a narrower interval."""
    model = small_model()
    for names in (["none", "none"], ["static", "none", "static"], ["none", make_policy("none", model)]):
        with pytest.raises(ModelError, match="stands 2 times"):
            evaluate(model, names, episodes=2, bound=False)
    runs = [str(tmp_path / one / "run") for one in "ab"]
    assert row_names([*runs, "none"]) == [*runs, "none"]
    assert row_names([runs[0], "none"]) == ["run", "none"]
    with pytest.raises(ModelError, match="stands 2 times"):
        row_names([runs[0], runs[0]])


class _Lacking:
    name = "lacking"

    def decide(self, state, period, rng):
        raise CapabilityError("what it needs", self, ("use policy 'none'", "declare it"))


def test_a_policy_that_finds_out_in_play_what_a_model_lacks_has_a_row_that_says_so():
    model = small_model()
    table = evaluate(model, ["none", _Lacking()], episodes=2, bound=False)
    assert [row["policy"] for row in table.rows] == ["none", "lacking"]
    assert "what it needs" in table.rows[1]["note"]
    with pytest.raises(CapabilityError, match="what it needs"):
        evaluate(model, [_Lacking()], episodes=2, bound=False)


def test_a_policy_that_was_played_under_a_limit_has_none_afterwards(monkeypatch):
    model, seen = small_model(), []
    mine, ask = make_policy("myopic", model), Chooser.question
    monkeypatch.setattr(Chooser, "question", lambda own, *a, **k: seen.append(k.get("deadline")) or ask(own, *a, **k))
    evaluate(model, [mine], episodes=2, bound=False, seconds=60.0, n_jobs=1)
    assert seen
    assert None not in seen
    seen.clear()
    mine.decide(model.problem.start)
    assert seen == [None]
