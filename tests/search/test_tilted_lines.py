"""Lines that know the set lie above every neuron at every action, and a search that uses them finds the optimum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from amounts import amount
from hypothesis import settings
from search.test_branch_and_bound import FREE, KINDS, draw_rows, hard_searches, points_of, search_equals_enumeration

from rmab_opt.encoder import Network, Support, bounds
from rmab_opt.encoder.bounds import masses
from rmab_opt.search import branch_and_bound as module
from rmab_opt.search import tilted_lines
from rmab_opt.search.branch_and_bound import maximise
from rmab_opt.search.node_bounds import NodeBounds
from rmab_opt.search.oracle import Oracle

DATA = Path(__file__).parents[2] / "benchmarks" / "data"


@pytest.fixture
def early(monkeypatch):
    """Lines are fitted as soon as a node is open, in few steps."""
    for name in ("HARD_NODES", "HARD_OPEN", "EASY_NODES"):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(tilted_lines, "STEPS", 12)
    monkeypatch.setattr(tilted_lines, "ENDS_STEPS", 6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_by_tilted_lines_finds_the_optimum(early, kind):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        depth, wide = int(rng.integers(1, 4)), int(rng.choice([3, 8, 16]))
        search_equals_enumeration(seed, 8, depth, wide, float(rng.choice([0.0, 1.0])), kind)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@hard_searches
def test_many_searches_by_tilted_lines_find_the_optimum(seed, n, depth, wide, spread, kind, unit):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HARD_NODES", "HARD_OPEN", "EASY_NODES"):
            patch.setattr(module, name, 0)
        patch.setattr(tilted_lines, "STEPS", 12)
        patch.setattr(tilted_lines, "ENDS_STEPS", 6)
        search_equals_enumeration(seed, n, depth, wide, spread, kind, unit)


def root(network: Network, rows) -> tuple[NodeBounds, dict[str, np.ndarray]]:
    support = Support.from_rows(*rows)
    reduced = network.reduced.dense()
    made = NodeBounds(reduced, Oracle.of(support), masses(reduced, support)[:-1])
    lower, upper = (np.concatenate([end[side] for end in bounds(network, support)[:-1]])[None] for side in (0, 1))
    node = {
        "low": support.lower[None] > 0, "up": support.upper[None] > 0, "lower": lower, "upper": upper,
        "alpha": (upper > -lower).astype(float), "beta": np.zeros_like(lower),
        "sign": np.zeros(lower.shape, dtype=np.int8), "price": np.zeros((1, made.oracle.n_prices)),
        "share": np.zeros((1, len(reduced.hidden[0].bias))), "parent": np.full(1, np.inf),
    }  # fmt: skip
    return made, node


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_lines_and_ends_hold_at_every_action(kind, share):
    """Of the root and of a node with fixed columns: heights, ends of the second layer, and the bound of the output."""
    for seed in range(amount(2, 4)):
        rng = np.random.default_rng(seed)
        n = 8
        layers = [
            (rng.normal(size=(9, n)), rng.normal(size=9), "relu" if seed % 2 else ("leaky_relu", 0.2)),
            (rng.normal(size=(7, 9)), rng.normal(size=7), "relu"),
            (rng.normal(size=(1, 7)), rng.normal(size=1), "linear"),
        ]
        network, rows = Network.from_arrays(layers, skip=rng.normal(size=n)), draw_rows(rng, n, kind)
        points = points_of(n, rows)
        made, node = root(network, rows)
        tilted_lines.ends(made, node, lambda: False)
        made.tilt(tilted_lines.fit(made, node))
        node["share"][:] = share
        node["low"][0, 2], node["up"][0, 5] = True, False
        inside = points[(points[:, 2] == 1) & (points[:, 5] == 0)]
        first, second = network.reduced.preactivations(points)[:2]
        assert (node["lower"][0, made.parts[1]] <= second.min(axis=0, initial=FREE) + 1e-12).all()
        assert (node["upper"][0, made.parts[1]] >= second.max(axis=0, initial=-FREE) - 1e-12).all()
        lines = made.lines(node)
        assert made.tilted is not None
        over = inside @ made.tilted.T + lines["raised"][0]
        z = inside @ layers[0][0].T + layers[0][1]
        assert (over >= np.maximum(z, 0.0) - 1e-12).all()
        assert made.evaluate(node, False)["bound"][0] >= network(inside).max(initial=-FREE)
        assert first.shape[1] == 9


def test_a_tilted_line_is_as_low_as_the_set_allows():
    """Two columns of which one may be taken: the line above max(0, a1 - a2) may pass through all three actions."""
    network = Network.from_arrays(
        [(np.array([[1.0, -1.0]]), np.zeros(1), "relu"), (np.ones((1, 1)), np.zeros(1), "linear")],
        skip=np.array([-0.8, 0.0]),
    )
    rows = np.ones((1, 2)), np.array([-FREE]), np.array([1.0])
    made, node = root(network, rows)
    before = made.evaluate(node, False)["bound"][0]
    made.tilt(tilted_lines.fit(made, node))
    node["share"][:] = 1.0
    # The usual line is (z + 1) / 2, a half where nothing is taken; a1 itself is exact at all three.
    assert before == pytest.approx(0.5)
    assert made.evaluate(node, False)["bound"][0] == pytest.approx(0.2, abs=2e-2)


@pytest.mark.slow
def test_a_hard_network_is_proven_in_a_tenth_of_the_nodes(monkeypatch):
    full = Network.from_safetensors(DATA / "argmax_100_64_64.safetensors")
    rng = np.random.default_rng([100, 1, 0])
    network = full.fold(np.arange(100, 200), rng.integers(0, 2, 100))
    cost = rng.uniform(0.5, 2.0, 100).round(3)[None]
    support = Support.from_rows(cost, [-FREE], [20.0])
    allowed = lambda action: bool(cost @ action <= 20 + 1e-9)  # noqa: E731
    monkeypatch.setattr(module, "HARD_NODES", 300)
    found = maximise(network, support, allowed, nodes=20_000)
    monkeypatch.setattr(module, "HARD_NODES", np.inf)
    without = maximise(network, support, allowed, nodes=20_000)
    assert found.status == without.status == "optimal"
    assert found.value == pytest.approx(without.value, rel=1e-4)
    assert 4 * found.nodes < without.nodes
