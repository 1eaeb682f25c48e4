"""Cascade dynamics against enumeration of every live-edge graph; indices against bisection."""

from __future__ import annotations

import itertools

import networkx
import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.settings.networked.cascade import Cascade, Graph, LiveEdges, active_sets, set_bits, two_state_whittle
from rmab_opt.settings.networked.spread import (
    Scenarios,
    backward_induction,
    continuation_weights,
    policy_value,
)


def random_graph(seed: int, n: int, directed: bool) -> Graph:
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(n) for j in range(n) if (i != j if directed else i < j) and rng.random() < 0.6]
    pairs = [pairs[k] for k in rng.permutation(len(pairs))[:9]]
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Graph.from_edges(edges, n, rng.choice([0.0, 0.3, 0.7, 1.0], len(pairs)), directed=directed)


def kernel_by_live_graphs(graph: Graph) -> np.ndarray:
    """Every live-edge graph with its probability; who is reached, by networkx."""
    n = graph.n_nodes
    kernel = np.zeros((2**n, 2**n))
    for live in itertools.product((False, True), repeat=len(graph)):
        chance = float(np.prod(np.where(live, graph.probability, 1 - graph.probability)))
        if chance == 0:
            continue
        net = networkx.DiGraph() if graph.directed else networkx.Graph()
        net.add_nodes_from(range(n))
        net.add_edges_from((t, h) for t, h, on in zip(graph.tail, graph.head, live, strict=True) if on)
        reach = [sum(1 << v for v in networkx.shortest_path(net, u)) for u in range(n)]
        for start in range(2**n):
            end = 0
            for u in range(n):
                if start >> u & 1:
                    end |= reach[u]
            kernel[start, end] += chance
    return kernel


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_the_kernel_is_the_sum_over_live_graphs(seed, n, directed):
    graph = random_graph(seed, n, directed)
    assert graph.kernel == pytest.approx(kernel_by_live_graphs(graph), abs=1e-12)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("seed", range(amount(1, 3)))
def test_simulation_and_samples_have_the_exact_marginals(seed, directed):
    graph = random_graph(seed, 6, directed)
    rng = np.random.default_rng(seed)
    chance = rng.random((6, 2, 2))
    dynamics = Cascade(graph, chance, rng.random(6))
    state, action = rng.integers(0, 2, 6), rng.integers(0, 2, 6)
    own = chance[np.arange(6), state, action]
    exact = active_sets(own) @ graph.kernel @ set_bits(6)
    assert dynamics.expected_reward(state, action) == pytest.approx(dynamics.value * exact, abs=1e-12)
    many = 20_000
    moved, paid = dynamics.step(np.tile(state, (many, 1)), action, rng)
    error = 5 * np.sqrt(0.25 / many)
    assert np.abs(moved.mean(axis=0) - exact).max() < error
    assert paid == pytest.approx(moved * dynamics.value)
    live = LiveEdges.draw(graph, many, rng)
    assert np.abs(live.activation(own) - exact).max() < error
    assert live.totals(own, dynamics.value).mean() == pytest.approx(float(live.activation(own) @ dynamics.value))
    drawn = Scenarios.draw(graph, many, rng)
    assert np.abs(drawn.activation(own[None])[0] - exact).max() < error
    found = drawn.values(own, own, dynamics.value, np.zeros((1, 6)))
    assert found.mean() == pytest.approx(float(exact @ dynamics.value), abs=6 * error)


def test_rare_contacts_are_drawn_at_their_own_probabilities():
    """Below a quarter contacts are drawn by points that fall on them, and thinned."""
    graph = Graph.from_edges([(0, 1), (1, 2), (2, 3)], 4, np.array([0.02, 0.2, 0.0]))
    live = np.unique(graph.draw(np.random.default_rng(0), 50_000))
    share = np.bincount(live % 3, minlength=3) / 50_000
    assert share[2] == 0
    assert np.abs(share - [0.02, 0.2, 0.0]).max() < 0.01
    pairs = np.bincount(np.bincount(live // 3, minlength=50_000) == 2) / 50_000
    assert pairs[1] == pytest.approx(0.02 * 0.2, abs=0.002)


def test_long_chains_spread_to_their_end_and_only_there():
    n = 200
    chain = [(i, i + 1) for i in range(n - 1)]
    start = np.zeros((2, n), dtype=bool)
    start[0, 0], start[1, 150] = True, True
    rng = np.random.default_rng(0)
    assert Graph.from_edges(chain, n, 1.0).spread(start, rng).all()
    onward = Graph.from_edges(chain, n, 1.0, directed=True).spread(start, rng)
    assert onward[0].all()
    assert np.array_equal(onward[1], np.arange(n) >= 150)


def test_draws_do_not_depend_on_the_action():
    graph = random_graph(1, 6, False)
    dynamics = Cascade(graph, np.full((6, 2, 2), 0.5))
    ends = []
    for act in (0, 1):
        rng = np.random.default_rng(7)
        dynamics.step(np.zeros(6, dtype=np.int64), np.full(6, act), rng)
        ends.append(rng.random())
    assert ends[0] == ends[1]


def test_graphs_without_contacts_or_live_ones_leave_arms_alone():
    for graph in (Graph.from_edges([], 3), Graph.from_edges([(0, 1)], 3, 0.0)):
        live = LiveEdges.draw(graph, 5, np.random.default_rng(0))
        assert live.activation(np.array([0.1, 0.2, 1.0])) == pytest.approx([0.1, 0.2, 1.0])
        assert live.merged.sources.shape[0] == 0


def test_graphs_come_from_networkx_with_an_attribute():
    net = networkx.DiGraph([("b", "a", {"w": 0.25})])
    graph = Graph.from_networkx(net, "w")
    assert graph.directed
    assert (graph.tail.tolist(), graph.head.tolist(), graph.probability.tolist()) == ([0], [1], [0.25])
    with pytest.raises(ModelError, match="no attribute 'weight'"):
        Graph.from_networkx(net, "weight")


def test_faults_of_a_graph_are_named_together():
    with pytest.raises(ModelError) as caught:
        Graph.from_edges([(0, 0), (0, 1), (1, 0), (1, 7)], 3, np.array([0.1, 0.1, 0.1, 1.5]))
    text = str(caught.value)
    for part in ("itself", "twice", "nodes 0 to 2", "probability 1.5"):
        assert part in text
    with pytest.raises(CapabilityError, match="exact kernel of 13"):
        _ = Graph.from_edges([], 13).kernel
    with pytest.raises(ModelError, match="arm 1, state 0, action 1 is 2"):
        Cascade(Graph.from_edges([], 2), np.array([[[0, 0], [0, 0]], [[0, 2.0], [0, 0]]]))


@pytest.mark.parametrize(("n", "directed"), [(4, True), (5, False), (6, False)])
def test_value_iteration_agrees_with_matrices_from_enumeration(n, directed):
    """Transition matrices by every live graph and every outcome of the own moves; plain value iteration on them."""
    graph = random_graph(n, n, directed)
    rng = np.random.default_rng(n)
    dynamics = Cascade(graph, rng.random((n, 2, 2)), rng.uniform(1, 2, n))
    spread, states = kernel_by_live_graphs(graph), set_bits(n)
    actions = [np.array(a) for a in itertools.product((0, 1), repeat=n) if sum(a) <= 1]
    matrices = []
    for action in actions:
        own = np.ones((2**n, 2**n))
        for s, u, i in itertools.product(range(2**n), range(2**n), range(n)):
            up = dynamics.chance[i, int(states[s, i]), action[i]]
            own[s, u] *= up if states[u, i] else 1 - up
        matrices.append(own @ spread)
    value = np.zeros(2**n)
    for _ in range(6):
        value = np.max([matrix @ (states @ dynamics.value + 0.9 * value) for matrix in matrices], axis=0)
    found, best = backward_induction(dynamics, np.array(actions), 6, 0.9)
    assert found[0] == pytest.approx(value, abs=1e-10)
    assert policy_value(dynamics, np.array(actions)[best], 6, 0.9) == pytest.approx(value, abs=1e-10)


def index_by_bisection(chance: np.ndarray, reward: float, discount: float, state: int) -> float:
    """Price of acting at which both actions are as good in ``state``, by policy evaluation over all four policies."""

    def advantage(price: float) -> float:
        best = None
        for first, second in itertools.product((0, 1), repeat=2):
            up = np.array([chance[0, first], chance[1, second]])
            transition = np.stack([1 - up, up], axis=1)
            paid = np.array([-price * first, reward - price * second])
            value = np.linalg.solve(np.eye(2) - discount * transition, paid)
            best = value if best is None else np.maximum(best, value)
        up = chance[state]
        return float(-price + discount * (up[1] - up[0]) * (best[1] - best[0]))

    low, high = -1.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if advantage(middle) > 0 else (low, middle)
    return (low + high) / 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 0.95]))
def test_the_closed_form_index_is_the_indifference_price(seed, discount):
    rng = np.random.default_rng(seed)
    chance = np.sort(rng.random((1, 2, 2)), axis=2)
    reward = rng.uniform(0.5, 2)
    closed = two_state_whittle(chance, np.array([reward]), discount)[0]
    for state in (0, 1):
        assert closed[state] == pytest.approx(index_by_bisection(chance[0], reward, discount, state), abs=1e-10)


def test_continuation_weights_are_passive_sums_and_fall_with_the_price():
    rng = np.random.default_rng(2)
    dynamics = Cascade(Graph.from_edges([], 5), np.sort(rng.random((5, 2, 2)), axis=2), rng.uniform(1, 2, 5))
    keeps = 0.9 * (dynamics.chance[:, 1, 0] - dynamics.chance[:, 0, 0])
    summed = sum(dynamics.value * keeps**k for k in range(6))
    assert continuation_weights(dynamics, 0.9, left=6) == pytest.approx(np.maximum(summed, 0))
    assert continuation_weights(dynamics, 0.9, left=1) == pytest.approx(dynamics.value)
    assert continuation_weights(dynamics, 0.9, "reward") == pytest.approx(dynamics.value)
    # At a price nobody pays, nobody acts again.
    dear = continuation_weights(dynamics, 0.9, "priced", budget=0.0)
    assert dear == pytest.approx(continuation_weights(dynamics, 0.9), rel=1e-6)
    assert not np.allclose(continuation_weights(dynamics, 0.9, "priced", budget=3.0), dear)
    with pytest.raises(ModelError, match="weights are 'all'"):
        continuation_weights(dynamics, 0.9, "all")
