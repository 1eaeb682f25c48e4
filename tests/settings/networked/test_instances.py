"""Contact networks: sizes, published ranges, edge lists of the user, models under routes and quotas."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.decisions import decide
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import ModelError
from rmab_opt.instances import generate
from rmab_opt.settings.networked.instances import attributes, contact_edges

ARMS = "id,p00,p01,p10,p11,worth\na,0.1,0.6,0.7,0.9,2\nb,0.1,0.6,0.7,0.9,1\nc,0.1,0.6,0.7,0.9,1\n"
MODEL = """format: 1
title: Mine
problem:
  arms: arms.csv
  dynamics: {kind: cascade, contacts: contacts.csv, ends: [from, to], probability: chance, value: worth}
  horizon: 5
constraints:
  visits: {kind: budget, at_most: 1}
objective: {kind: cascade, samples: 50}
"""


def test_the_synthetic_network_has_the_published_size():
    problem = generate("contacts", seed=4).problem
    graph = problem.dynamics.graph
    degree = np.bincount(np.concatenate([graph.tail, graph.head]), minlength=202)
    net = networkx.Graph(list(zip(graph.tail.tolist(), graph.head.tolist(), strict=True)))
    assert (problem.n_arms, len(graph)) == (202, 692)
    assert networkx.is_connected(net)
    assert degree.min() >= 1
    assert degree.max() > 2 * np.median(degree)
    again = generate("contacts", seed=4).problem.dynamics
    assert np.array_equal(again.chance, problem.dynamics.chance)
    assert np.array_equal(again.graph.tail, graph.tail)


def test_attributes_follow_the_published_ranges():
    chance, value = attributes(4000, np.random.default_rng(0))
    assert chance.mean(axis=0) == pytest.approx(np.array([[0.375, 0.75], [0.80, 0.90]]), abs=0.02)
    assert (chance[:, :, 1] >= chance[:, :, 0]).all()
    assert value.mean() == pytest.approx(1.5, abs=0.02)
    lapsing, _ = attributes(2000, np.random.default_rng(0), "lapsing")
    assert set(np.unique(lapsing[:, 1, 0])) == {0.05, 0.95}
    assert lapsing[:, 0, 0].max() <= 0.02
    with pytest.raises(ModelError, match="lapsing"):
        attributes(3, np.random.default_rng(0), "lapsin")


@pytest.mark.parametrize("shape", ["contacts", "random", "stars"])
def test_shapes_have_no_doubles_or_loops(shape):
    edges, villages = contact_edges(40, 80, np.random.default_rng(1), shape)
    assert len(np.unique(np.sort(edges, axis=1), axis=0)) == len(edges)
    assert (edges[:, 0] != edges[:, 1]).all()
    assert len(villages) == 40
    assert len(edges) == (39 if shape == "stars" else 80)


def test_your_own_edge_list_is_a_model_file(tmp_path):
    (tmp_path / "arms.csv").write_text(ARMS)
    (tmp_path / "contacts.csv").write_text("from,to,chance\na,b,0.5\nc,b,1\n")
    (tmp_path / "model.yaml").write_text(MODEL)
    model = ro.load(tmp_path / "model.yaml")
    dynamics = model.problem.dynamics
    assert dynamics.graph.weights.toarray().tolist() == [[0, 0.5, 0], [0.5, 0, 1], [0, 1, 0]]
    assert dynamics.chance[0].tolist() == [[0.1, 0.6], [0.7, 0.9]]
    assert dynamics.value.tolist() == [2, 1, 1]
    made = decide(ro.load(tmp_path / "model.yaml", samples=2000))
    exact = dynamics.expected_reward(made.state, made.action).sum()
    assert made.value == pytest.approx(exact, abs=0.15)
    (tmp_path / "contacts.csv").write_text("from,to,chance\na,d,0.5\nc,b,1.5\n")
    with pytest.raises(ModelError, match="no arm 'd'"):
        ro.load(tmp_path / "model.yaml")
    (tmp_path / "contacts.csv").write_text("from,to,chance\na,b,0.5\nb,b,0.5\nd,x,0.1\nb,a,0.2\n")
    with pytest.raises(ModelError) as caught:
        ro.load(tmp_path / "model.yaml")
    for part in ("4: no arm 'd'", "4: no arm 'x'"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "name", ["contacts_slow_start", "contacts_stars", "contacts_lapsing", "contacts_lapsing_stars"]
)
def test_regimes_that_tell_policies_apart_are_models_by_name(name):
    model = ro.load(name, n_arms=12, n_contacts=16, samples=20)
    assert model.problem.dynamics.chance[:, 0, 0].max() <= 0.02
    assert decide(model).violations == {}


def test_models_hold_routes_quotas_and_costs():
    model = ro.load("contacts_route", n_arms=12, n_contacts=16, samples=20)
    assert decide(model).violations == {}
    lapsing = ro.load("contacts_quotas", n_arms=20, n_contacts=30, samples=30)
    made = decide(lapsing)
    greedy = decide(lapsing, method="greedy")
    assert "money" in made.tight or "villages" in made.tight
    assert greedy.value <= made.bound + 1e-9
    assert greedy.bound >= made.value - 1e-9


def test_the_bound_counts_the_spread():
    model = ro.load("contacts", n_arms=6, n_contacts=8, horizon=5, at_most=2)
    best = make_policy("tabular", model).value[0, 0]
    assert best <= ro.bound(model).value <= 1.2 * best
