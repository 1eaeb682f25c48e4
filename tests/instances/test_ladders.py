"""Generators of the published settings: their distributions, exact link values and refusals."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import all_actions

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser, Immediate, Situation
from rmab_opt.errors import ModelError
from rmab_opt.instances import generate
from rmab_opt.instances.ladders import _distinct
from rmab_opt.problem import Arms, Ladder, Problem, Table


@pytest.mark.parametrize("name", ["budget", "scheduling", "capacity", "path", "interventions"])
def test_the_same_seed_gives_the_same_instance_and_another_seed_another(name):
    one, two, other = (ro.load(name, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.problem.dynamics.up, two.problem.dynamics.up)
    assert not np.array_equal(one.problem.dynamics.up, other.problem.dynamics.up)


def test_base_arms_have_the_published_ranges():
    dynamics = generate("budget", n_arms=400, n_valuable=200, seed=1).problem.dynamics
    passive, active = dynamics.up[:, 0, 0], dynamics.up[:, 0, 1]
    assert 0 <= passive.min() < 0.02
    assert 0.18 < passive.max() <= 0.2
    assert 0.7 <= active.min() < 0.72
    assert 0.88 < active.max() <= 0.9
    assert set(dynamics.reward[:200, 3]) == {4.0, 5.0, 6.0}
    assert set(dynamics.reward[200:, 3]) == {1.0, 2.0, 3.0}
    assert np.array_equal(dynamics.reward[0, :3], [0.20, 0.15, 0.10])
    assert np.array_equal(dynamics.reward[-1, :3], [0.10, 0.15, 0.20])


@pytest.mark.parametrize("seed", range(5))
def test_the_link_is_exact_at_its_attainable_points(seed):
    """0.01 at nothing; shallow arms near 0.31 a step, steep arms only with two or three (specification, 1.3)."""
    instance = generate("interventions", seed=seed)
    up = instance.problem.dynamics.up[:, 0]
    assert np.allclose(up[:, 0], 0.01)
    assert (np.diff(up, axis=1) > 0).all()
    assert up.max() < 1
    shallow, steep = up[:10], up[10:]
    assert (shallow[:, 1] > 0.1).all()
    assert (steep[:, 1] < 0.05).all()
    assert (steep[:, 3] > 0.5).all()
    effect = instance.columns[1]
    assert (effect.sum(axis=1) == 3).all()
    assert set(effect.sum(axis=0)) <= {0.0, 1.0, 3.0}


def test_a_hand_computed_link_value():
    """alpha 0.5, beta 1, x0 1: phi(3) = 0.98 (0.5 s(2) - 0.5 s(-1)) + 0.01 = 0.3098."""
    alpha, beta, middle = 0.5, 1.0, 1.0
    value = 0.98 * (alpha / (1 + np.exp(-(beta * 3 - middle))) - alpha / (1 + np.exp(middle))) + 0.01
    assert value == pytest.approx(0.310, abs=5e-4)


@pytest.mark.parametrize("size", [(20, 12, 8), (20, 8, 5), (5, 8, 4), (100, 20, 20)])
def test_sizes_that_cannot_be_built_are_refused_beforehand(size):
    n_arms, n_interventions, budget = size
    with pytest.raises(ModelError, match=r"need|choose at least one"):
        generate("interventions", n_arms=n_arms, n_interventions=n_interventions, budget=budget)


@pytest.mark.parametrize("n_arms", [20, 33, 40, 60, 100])
def test_graphs_are_connected_and_have_the_published_sizes(n_arms):
    table = generate("path", n_arms=n_arms).tables["edges"]
    graph = nx.Graph(zip(table.text("from"), table.text("to"), strict=True))
    assert graph.number_of_nodes() == n_arms
    assert nx.is_connected(graph)
    assert graph.number_of_edges() == {20: 29, 40: 56, 60: 82, 100: 133}.get(n_arms, graph.number_of_edges())
    if n_arms in (20, 40):
        assert nx.diameter(graph) == {20: 6, 40: 10}[n_arms]


@settings(max_examples=60)
@given(st.integers(0, 9999))
def test_columns_that_share_arms_are_valued_exactly_by_the_program(seed):
    """Several touches an arm: the program's level rows against plain evaluation of every action."""
    rng = np.random.default_rng(seed)
    n_arms, n_columns = int(rng.integers(2, 5)), int(rng.integers(2, 6))
    effect = rng.integers(0, 2, (n_columns, n_arms)).astype(float)
    most = int(effect.sum(axis=0).max())
    arms = Arms.from_arrays(n_arms)
    dynamics = Ladder(rng.uniform(0, 1, (n_arms, 3, max(2, most + 1))), rng.normal(size=(n_arms, 3)))
    problem = Problem(arms, dynamics)
    columns = Columns(arms, Table({"id": [f"c{k}" for k in range(n_columns)]}), effect)
    actions = ActionSet(columns, {"some": Budget(at_most=int(rng.integers(0, n_columns + 1)))})
    chooser = Chooser(problem, actions, Immediate(), "exact")
    for state in rng.integers(3, size=(2, n_arms)):
        situation = Situation(problem, columns, state)
        best = max(Immediate().value(a, situation) for a in all_actions(n_columns) if not actions.violations(a))
        assert chooser.decide(state).value == pytest.approx(best, abs=1e-7)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_positions_are_those_that_numpy_draws(seed, size):
    chance = np.sort(np.random.default_rng(seed).random(5))
    chance /= chance.sum()
    own, numpys = np.random.default_rng(seed), np.random.default_rng(seed)
    for _ in range(60):
        assert _distinct(own, size, chance) == numpys.choice(5, size, replace=False, p=chance).tolist()
    assert own.random() == numpys.random()
