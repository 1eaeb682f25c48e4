"""Groups under policies: limits hold, pairs are paired, and the worst group reaches what was promised."""

from __future__ import annotations

import json

import numpy as np
import pytest
from amounts import amount
from command_line import run
from liars import Everything

import rmab_opt as ro
from rmab_opt.errors import ModelError, RmabError
from rmab_opt.settings.equity import fairness
from rmab_opt.settings.equity.fairness import (
    capacity_plot,
    capacity_table,
    compare_groups,
    fairness_of,
    front_plot,
    group_plot,
    measure_front,
    welfare_front,
)


@pytest.mark.slow
def test_no_policy_exceeds_its_limits_beyond_noise():
    model = ro.load("equity_synthetic", n_arms=amount(20, 40), at_most=amount(2, 4))
    names = ["none", "random", "leximin", "nash", "mmr", "whittle"]
    table = compare_groups(model, names, episodes=8)
    for row in table.rows:
        assert row["low"] <= table.header["mean_limit"]
        assert row["worst_low"] <= table.header["worst_limit"]
    assert table.row("leximin")["worst"] > table.row("whittle")["worst"]
    assert table.row("leximin")["gini"] < table.row("whittle")["gini"]


def test_groups_out_of_reach_meet_the_same_draws_under_every_policy():
    table = compare_groups(ro.load("equity_synthetic"), ["none", "leximin"], episodes=3, bound=False)
    assert table.difference("none", "leximin", "D")[:3] == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert table.difference("leximin", "none")[0] > 1.0


@pytest.mark.slow
def test_fronts_and_capacity_are_solved_and_drawn(tmp_path):
    model = ro.load("equity_synthetic")
    front = welfare_front(model, ["utilitarian", "nash", "leximin"])
    assert [row["mean"] for row in front] == sorted((row["mean"] for row in front), reverse=True)
    assert [row["worst"] for row in front] == sorted(row["worst"] for row in front)
    capacity = capacity_table(model, [3.0, 5.427862])
    assert capacity[1]["budget"] == pytest.approx(10.0, abs=1e-3)
    table = compare_groups(model, ["none", "random"], episodes=2)
    group_plot(table, tmp_path / "groups.png")
    front_plot(front, tmp_path / "front.png")
    capacity_plot(capacity, tmp_path / "capacity.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("groups", "front", "capacity"))


def test_bars_stand_side_by_side_about_their_group_with_their_own_intervals(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    groups = {name: rng.uniform(1.0, 2.0, (5, 2)) for name in ("a", "b", "c")}
    table = fairness.GroupTable([{"policy": name} for name in groups], {"model": "m"}, ("g", "h"), groups)
    drawn = []
    monkeypatch.setattr(fairness, "_save", lambda figure, path: drawn.append(figure))
    group_plot(table, tmp_path / "groups.png")
    (axes,) = drawn[0].axes
    middles = np.array([[bar.get_x() + bar.get_width() / 2 for bar in bars] for bars in axes.containers[1::2]])
    assert middles.mean(axis=0) == pytest.approx(np.arange(2))
    assert np.diff(middles, axis=0) == pytest.approx(axes.patches[0].get_width())
    for bars, values in zip(axes.containers[1::2], groups.values(), strict=True):
        (ends,) = bars.errorbar.lines[2]
        for k, ((_, low), (_, high)) in enumerate(ends.get_segments()):
            mean, half = values[:, k].mean(), 2.7764451 * values[:, k].std(ddof=1) / 5**0.5
            assert bars[k].get_height() == pytest.approx(mean)
            assert (low, high) == pytest.approx((mean - half, mean + half))


def test_two_objectives_are_weighed_against_each_other_on_the_same_draws():
    models = {f"{alpha:g}": ro.load("digital_diabetes", n_arms=12, at_most=2, alpha=alpha) for alpha in (0.0, 1.0)}
    names = models["0"].problem.dynamics.state_names
    measures = {
        "programme": np.tile([not name.startswith("dropout") for name in names], (12, 1)),
        "low A1c": np.tile(["/low/" in name for name in names], (12, 1)),
    }
    rows = measure_front(models, ["leximin"], measures, episodes=2)
    assert [row["model"] for row in rows] == ["0", "1"]
    # With all the weight on one of them the reward is that measure.
    assert rows[0]["low A1c"] == pytest.approx(rows[0]["mean"])
    assert rows[1]["programme"] == pytest.approx(rows[1]["mean"])


def test_step_7_a_decision_tells_what_groups_get_and_what_max_min_costs():
    """Of a planner's week."""
    model = ro.load("weekly_calls", **{"problem.first": 30, "weekly.at_most": 6, "villages.at_least": 0})
    decision = ro.decide(model)
    fairness = fairness_of(model, decision, "village")
    assert sum(row["served"] for row in fairness.rows) == len(decision.chosen)
    assert sum(row["arms"] for row in fairness.rows) == 30
    assert fairness.lifted >= fairness.lowest - 1e-6
    assert 0.0 <= fairness.price <= 1.0
    assert fairness.lowest == min(row["planned"] for row in fairness.rows)
    assert f"worst group {fairness.worst}" in str(fairness)
    with pytest.raises(ModelError, match="village"):
        fairness_of(model, decision, "parish")


def test_the_command_line_plans_decides_and_compares_by_groups(tmp_path):
    small = ("--set", "n_arms=20", "--set", "at_most=3", "--groups", "group")
    decided = json.loads(run("decide", "equity_synthetic", *small, "--json").out)
    assert [row["group"] for row in decided["fairness"]["groups"]] == list("ABCDE")
    assert decided["notes"]["fairness"].startswith("leximin, exact")
    assert "worst group" in run("decide", "equity_synthetic", *small).out
    plan = json.loads(run("bound", "equity_synthetic", *small, "--welfare", "2", "--json").out)
    assert plan["lower"] <= plan["upper"]
    assert plan["relative_gap"] <= 1e-5
    capacity = json.loads(run("bound", "equity_synthetic", *small, "--target", "4", "--json").out)
    assert capacity[0]["worst"] == pytest.approx(4.0, abs=1e-6)
    policies = ("--policies", "none,leximin", "--episodes", "2", "--no-bound", "--out", tmp_path)
    assert run("evaluate", "equity_synthetic", *small, *policies).code == 0
    made = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert made == {"groups.csv", "groups.tex", "groups.png"}
    assert run("bound", "equity_synthetic", "--target", "4").code == 2
    assert run("evaluate", "equity_synthetic", *small, "--seeds", "2").code == 2
    assert run("bound", "equity_synthetic", *small, "--target", "90").code == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "budget", "worst", "published_mean"),
    [("equity_synthetic", 10, 5.3, 6.482), ("equity_synthetic", 20, 8.0, 7.658), ("maternal_health", 20, 6.8, 6.341)],
)
def test_the_worst_group_over_25_seeds_is_what_was_promised(name, budget, worst, published_mean):
    row = compare_groups(ro.load(name, at_most=budget), ["leximin"], episodes=25, bound=False).row("leximin")
    assert row["worst"] >= worst
    assert row["mean"] >= published_mean


def test_a_policy_that_chooses_everything_and_claims_no_violations_is_refused():
    model = ro.load("equity_synthetic")
    with pytest.raises(RmabError) as refused:
        compare_groups(model, [Everything(model)], episodes=2, bound=False)
    assert "everything" in str(refused.value)
    assert next(iter(model.actions.constraints)) in str(refused.value)
