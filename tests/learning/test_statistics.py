"""Adjusted totals are unbiased and never above the bound; intervals, differences and marks against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount
from scipy import stats
from strategies import tabular

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CertificateError
from rmab_opt.learning import evaluate, evaluation
from rmab_opt.learning.statistics import cross_fit, exact_value, interval, marks, paired
from rmab_opt.problem import Arms, Problem


def three_arms(seed: int, horizon: int = 5, discount: float = 0.8, scale: float = 1.0) -> Model:
    rng = np.random.default_rng(seed)
    dynamics = tabular(3, 2, 2, rng)
    dynamics = type(dynamics)(dynamics.transition, dynamics.reward * scale)
    start = rng.dirichlet(np.ones(2), size=3) if seed % 2 else np.array([0, 1, 0])
    problem = Problem(Arms.from_arrays(3), dynamics, horizon=horizon, discount=discount, start=start)
    return Model(problem, ActionSet(problem.arms, {"budget": Budget(at_most=1)}), solver="exact")


def exact_of(model: Model, name: str) -> float:
    """The policy's value by the joint chain of the three arms, written anew."""
    transition, reward = model.problem.dynamics.tabular()
    policy, arm = make_policy(name, model), np.arange(3)
    states = list(itertools.product(range(2), repeat=3))
    worth = dict.fromkeys(states, 0.0)
    for t in range(model.problem.horizon - 1, -1, -1):
        now = {}
        for state in states:
            taken = model.actions.columns.arm_action(policy.decide(np.array(state), t).action)
            ahead = sum(
                np.prod([transition[n, taken[n], state[n], after[n]] for n in arm]) * worth[after] for after in states
            )
            now[state] = reward[arm, list(state), taken].sum() + model.problem.discount * ahead
        worth = now
    start = model.problem.start_distribution
    return float(sum(np.prod([start[n, state[n]] for n in arm]) * worth[state] for state in states))


@pytest.mark.parametrize("reward", ["expected", "sampled"])
@pytest.mark.parametrize("bound", amount([True], [True, "hull"]))
@pytest.mark.parametrize("seed", range(amount(1, 3)))
def test_adjusted_means_are_the_policys_value_and_no_episode_is_above_the_bound(seed, bound, reward):
    model = three_arms(seed)
    table = evaluate(model, ["myopic", "lagrangian"], episodes=amount(200, 300), bound=bound, reward=reward)
    for row in table.rows:
        totals = table.episodes[row["policy"]][0]
        error = totals.std(ddof=1) / np.sqrt(totals.size)
        assert abs(row["reward"] - exact_of(model, row["policy"])) <= 4 * error + 1e-9
        assert row["share_high"] is None or row["share_high"] <= 1
        assert row["high"] <= table.header["bound"]


@pytest.mark.slow
def test_adjusted_means_over_fifty_seeds_and_short_runs_without_a_share_above_one():
    worst = []
    for seed in range(50):
        model = three_arms(seed)
        table = evaluate(model, ["lagrangian"], episodes=40)
        totals = table.episodes["lagrangian"][0]
        error = totals.std(ddof=1) / np.sqrt(totals.size)
        worst.append(abs(table.rows[0]["reward"] - exact_of(model, "lagrangian")) / (error + 1e-12))
        for first in range(4):
            short = evaluate(model, ["lagrangian"], seeds=[first], episodes=5).rows[0]
            assert short["share_of_bound"] is None or short["share_of_bound"] <= 1
    assert max(worst) < 4.5


@pytest.mark.slow
def test_the_recorded_table_of_the_shipped_budget():
    """Means and standard errors of an independent script, 60 episodes each on other draws."""
    recorded = {"lagrangian": (346.10, 0.43, 20), "lp_index": (348.24, 0.25, 40), "myopic": (227.1, 2.9, 1.2)}
    table = evaluate(ro.load("budget"), [*recorded, "none"], episodes=60)
    assert table.header["bound"] == pytest.approx(350.78, abs=0.01)
    for row in table.rows[:-1]:
        mean, error, ratio = recorded[row["policy"]]
        own = (row["high"] - row["low"]) / 4.0
        assert abs(row["reward"] - mean) < 4 * np.hypot(error, own)
        assert row["variance_ratio"] > ratio
    assert table.rows[-1]["reward"] == pytest.approx(exact_value(ro.load("budget").problem, np.zeros((20, 20), int)))


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_a_bound_that_is_too_low_is_refuted_by_an_episode(monkeypatch, share):
    model = three_arms(0)
    model = Model(
        Problem(
            model.problem.arms,
            type(model.problem.dynamics)(model.problem.dynamics.transition, model.problem.dynamics.reward + 1.0),
            horizon=5,
            discount=0.8,
            start=np.array([0, 1, 0]),
        ),
        model.actions,
        solver="exact",
    )
    right = evaluation.upper_bound
    from dataclasses import replace

    monkeypatch.setattr(
        evaluation, "upper_bound", lambda *given, **more: replace(f := right(*given, **more), value=share * f.value)
    )
    with pytest.raises(CertificateError, match=r"episode \d+ of seed number 0 of policy 'lagrangian'"):
        evaluate(model, ["lagrangian"], episodes=200)


def test_a_policy_that_looks_ahead_is_seen():
    """It is handed the draws of the arms: no policy may know them, and its episodes stand above the bound."""
    rng = np.random.default_rng(3)
    variate, limits = rng.normal(size=(1, 50)), np.array([10.0])
    from rmab_opt.learning.statistics import demand_below

    demand_below("honest", 10.0 + variate, variate, limits, mass=10.0)
    with pytest.raises(CertificateError, match="above the bound"):
        demand_below("seer", 10.0 + 1e-6 + variate, variate, limits, mass=10.0)


def test_the_cross_fit_is_unbiased_and_never_much_worse_than_the_plain_mean():
    rng = np.random.default_rng(0)
    errors, plain, full = [], [], []
    for _ in range(400):
        noise = 6.0 * rng.normal(size=(1, 40))
        totals = 5.0 + rng.normal(size=(1, 40)) + 0.1 * noise
        fitted = cross_fit(totals, noise, np.array([1e9]))
        errors.append(fitted.mean() - 5.0)
        plain.append(totals.mean() - 5.0)
        full.append((totals - noise).mean() - 5.0)
    assert abs(np.mean(errors)) < 4 * np.std(errors) / 20
    assert np.std(errors) < np.std(plain)
    assert np.std(errors) < 0.3 * np.std(full)


def test_where_the_fit_would_stand_above_the_bound_the_variate_counts_in_full():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(1, 20)) + 3.0
    totals = 10.0 + rng.normal(size=(1, 20)) * 0.01 + 0.0 * noise
    found = cross_fit(totals, noise, np.array([9.5]))
    assert np.array_equal(found, totals - noise)


def test_one_episode_has_no_interval():
    table = evaluate(three_arms(0), ["myopic", "lagrangian"], episodes=1)
    assert [row["low"] for row in table.rows] == [None, None]
    assert [row["against_best"] for row in table.rows] == [None, None]
    line = str(table).splitlines()[2].split()
    assert line[2:4] == ["-", "-"]
    assert interval(np.array([3.0])) == (3.0, None, None)
    assert "nothing is known" in str(table.difference("myopic", "lagrangian"))


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 5.0, 40.0])
def test_the_number_of_pairs_that_would_settle_a_sign(spread):
    apart = np.array([1.0 - spread, 1.0, 1.0 + spread])
    found = paired(apart, np.zeros(3))
    wanted = next(n for n in range(2, 10**6) if stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) <= 1.0)
    assert found.needed == wanted
    assert (found.low <= 0 <= found.high) == (found.needed > 3)


def test_holms_step_down_marks():
    """Four comparisons: chances by scipy, thresholds 0.05 / (4, 3, 2, 1), stop at the first that is not below."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=12)
    values = {"a": base + 1.0}
    for name, loss in zip("bcde", (3.0, 0.9, 0.6, 0.1), strict=True):
        values[name] = values["a"] - loss + 0.9 * rng.normal(size=12)
    best = max(values, key=lambda name: values[name].mean())
    chance = {name: stats.ttest_rel(values[best], each).pvalue for name, each in values.items() if name != best}
    wanted, open_ = {best: "best"}, True
    for step, name in enumerate(sorted(chance, key=chance.get)):
        open_ = open_ and chance[name] <= 0.05 / (4 - step)
        wanted[name] = "worse" if open_ else "not told apart"
    assert marks(values) == wanted
    assert set(wanted.values()) == {"best", "worse", "not told apart"}
    # A chance between the plain and the corrected level separates Holm from no correction at all.
    assert any(wanted[name] == "not told apart" and chance[name] < 0.05 for name in chance)


def test_a_raw_mean_above_a_known_bound_says_so_and_has_no_share():
    rows = evaluation.summary_rows({"lucky": np.array([[10.0, 12.0, 11.5]])}, 11.0)
    assert rows[0]["share_of_bound"] is None
    assert rows[0]["note"].startswith("raw mean above the bound by noise (0.")


@pytest.mark.parametrize("power", [-40, 40])
def test_shares_of_the_bound_do_not_depend_on_the_unit_of_reward(power):
    """A share of 0.827 stood for 0.970 at 2^-40 before bounds were scaled."""
    seen = []
    for k in (0, power):
        table = evaluate(three_arms(3, scale=2.0**k), ["lagrangian", "myopic", "none"], episodes=4, bound=True)
        seen.append([(row["policy"], row["share_of_bound"], row["reward"] / 2.0**k) for row in table.rows])
    assert seen[0] == seen[1]
