"""Quadratics lie above the network at every allowed action, whatever their multipliers; searches by them are exact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount
from hypothesis import settings
from search.test_branch_and_bound import (
    FREE,
    KINDS,
    checker,
    draw_rows,
    hard_searches,
    points_of,
    search_equals_enumeration,
)
from search.test_tilted_lines import DATA, root

from rmab_opt.encoder import Network, Support
from rmab_opt.search import branch_and_bound as module
from rmab_opt.search import quadratic, quadratic_tree
from rmab_opt.search.branch_and_bound import maximise
from rmab_opt.search.quadratic import applies, fit


def early(patch: pytest.MonkeyPatch) -> None:
    """Quadratics take over as soon as a node is open, and few steps leave them branches to make."""
    for name in ("HARD_NODES", "HARD_OPEN", "EASY_NODES", "MANY_NEURONS"):
        patch.setattr(module, name, 0)
    patch.setattr(quadratic_tree, "SHARE", np.inf)
    patch.setattr(quadratic_tree, "ROOT_STEPS", 12)
    patch.setattr(quadratic_tree, "STEPS", 6)


def draw(rng: np.random.Generator, n: int, depth: int, unit: float = 1.0, third: float = 5.0) -> Network:
    """Random weights, the third column's so many times as large; every kind of later layer that quadratics meet."""
    layers, before, skip = [], n, rng.normal(size=n)
    skip[2] *= 6.0 * third if third > 1 else 1.0
    for k in range(depth):
        width = int(rng.integers(2, 12))
        kind = ("leaky_relu", 0.2) if k and rng.random() < 0.4 else ("clip", 0.0, 1.5) if rng.random() < 0.3 else "relu"
        layers.append((rng.normal(size=(width, before)), rng.normal(size=width), kind))
        before = width
    layers[0][0][:, 2] *= third
    layers.append((unit * rng.normal(size=(1, before)), unit * rng.normal(size=1), "linear"))
    return Network.from_arrays(layers, skip=unit * skip)


def products(above: quadratic._Fit, now: dict[str, np.ndarray], columns: np.ndarray) -> np.ndarray:
    """What the multipliers add at actions (B, columns), none of it negative: the quadratic lies above by as much."""
    z = columns @ above.weight.T + above.bias
    r = np.maximum(z, 0.0)
    total = r @ np.exp(now["on"]) + (r - z) @ np.exp(now["own"])
    total += (above.line * z + above.height - r) @ np.exp(now["under"]) + (r * (above.most - r)) @ np.exp(now["most"])
    for group in above.groups:
        room = group.upper - columns[:, group.members] @ group.weight
        total += columns[:, group.members] @ np.exp(now["row"][group.members]) * room
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_quadratics_lie_above_the_network_at_any_multipliers(kind):
    """And are concave, so that their tangents do, too; at the root and with columns fixed."""
    for seed in range(amount(4, 30)):
        rng = np.random.default_rng(seed)
        n = 8
        network, rows = draw(rng, n, 1 + seed % 3), draw_rows(rng, n, kind)
        points = points_of(n, rows)
        made, node = root(network, rows)
        assert applies(made)
        if seed % 2:
            node["low"][0, 2], node["up"][0, 5] = True, False
            points = points[(points[:, 2] == 1) & (points[:, 5] == 0)]
            if not made.tighten(node)[0]:
                continue
        above = quadratic._Fit(made, node)
        columns = points[:, above.kept]
        for spread in (0.0, 1.0, 4.0):
            now = above.begin()
            drawn = {name: value + spread * rng.normal(size=value.shape) for name, value in now.items()}
            drawn["alpha"] = rng.random(now["alpha"].shape)
            found, _ = above.above(drawn)
            assert np.linalg.eigvalsh(found.bend).max() <= 1e-14 * np.abs(found.bend).max()
            values = found.constant + columns @ found.linear + np.einsum("bi,ij,bj->b", columns, found.bend, columns)
            added = products(above, drawn, columns)
            assert (added >= -1e-9 * (1.0 + np.abs(added))).all()
            assert (values + found.size >= network(points) + added * (1.0 - 1e-12)).all()
            assert spread > 1 or found.size <= 1e-6 * (1.0 + np.abs(values).max(initial=0.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [2.0**-30, 1.0])
def test_a_fit_bounds_every_action_and_what_a_column_loses(kind, unit):
    for seed in range(amount(2, 16)):
        rng = np.random.default_rng(seed)
        n = 8
        network, rows = draw(rng, n, 1 + seed % 3, unit), draw_rows(rng, n, kind)
        points = points_of(n, rows)
        made, node = root(network, rows)
        values = network(points)
        first = fit(made, node, None, 30, -np.inf, lambda: False)
        assert first.bound >= values.max(initial=-FREE)
        for j in range(n):
            other = points[:, j] != (first.vertex[j] > 0.5)
            assert first.bound - first.loss[j] >= values[other].max(initial=-FREE) - 1e-9 * unit
        # On with the multipliers of the root, where two columns are fixed.
        node["low"][0, 2], node["up"][0, 5] = True, False
        inside = (points[:, 2] == 1) & (points[:, 5] == 0)
        if made.tighten(node)[0]:
            assert fit(made, node, first, 10, -np.inf, lambda: False).bound >= values[inside].max(initial=-FREE)


@pytest.mark.parametrize(("seed", "shift"), [(0, 0.0), (1, 2.0), (2, 0.0), (3, 2.0)])
def test_steps_follow_the_slopes_of_the_bound(seed, shift):
    """What a step takes as the slope of the tangent is the slope, by differences, for every multiplier.

    Where curves are steep the neurons' part must be raised to stay concave.
    """
    rng = np.random.default_rng(seed)
    network, rows = draw(rng, 9, 2), draw_rows(rng, 9, "knapsack")
    made, node = root(network, rows)
    above = quadratic._Fit(made, node)
    x, a = rng.random(9), rng.integers(0, 2, 9).astype(float)
    now = {name: value + 0.1 * rng.normal(size=value.shape) for name, value in above.begin().items()}
    now["q"] += shift
    now["alpha"] = rng.uniform(0.1, 0.9, now["alpha"].shape)

    def tangent(at):
        found, gradient = above.above(at)
        return (found.linear + 2 * found.bend @ x) @ a + found.constant - x @ found.bend @ x, gradient

    slopes = tangent(now)[1](x, a)
    for name, value in now.items():
        way = rng.normal(size=value.shape)
        ends = [tangent({**now, name: value + side * 1e-6 * way})[0] for side in (1, -1)]
        assert slopes[name] @ way == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-4), name


def test_a_quadratic_sees_what_no_line_sees():
    """Sixty-four neurons that agree on no action: lines let each take its own, the quadratic makes them share one."""
    rng = np.random.default_rng(0)
    n = 12
    layers = [(rng.normal(size=(64, n)), np.zeros(64), "relu"), (np.ones((1, 64)), np.zeros(1), "linear")]
    network, rows = Network.from_arrays(layers), (np.ones((1, n)), np.array([-FREE]), np.array([4.0]))
    best = network(points_of(n, rows)).max()
    made, node = root(network, rows)
    by_lines = made.evaluate(node, False)["bound"][0]
    found = fit(made, node, None, 100, -np.inf, lambda: False)
    assert best <= found.bound <= best + 0.2 * (by_lines - best)


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_by_quadratics_finds_the_optimum(monkeypatch, kind):
    early(monkeypatch)
    used = []
    monkeypatch.setattr(module, "close", lambda search, node: used.append(1) or quadratic_tree.close(search, node))
    for seed in range(5):
        rng = np.random.default_rng(seed)
        depth, wide = int(rng.integers(1, 4)), int(rng.choice([3, 8, 16]))
        search_equals_enumeration(seed, 8, depth, wide, float(rng.choice([0.0, 1.0])), kind)
    assert used


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@hard_searches
def test_many_searches_by_quadratics_find_the_optimum(seed, n, depth, wide, spread, kind, unit):
    with pytest.MonkeyPatch.context() as patch:
        early(patch)
        search_equals_enumeration(seed, n, depth, wide, spread, kind, unit)


@pytest.mark.parametrize("kind", ["box", "budget", "knapsack"])
def test_nothing_is_given_up_that_could_hold_the_optimum(monkeypatch, kind):
    """Without any suggestion the optimum is met only as the single action of a leaf: no branch to it may be cut."""
    early(monkeypatch)
    monkeypatch.setattr(quadratic_tree, "ROOT_STEPS", 80)
    for name in ("polish", "repair", "offer_points"):
        monkeypatch.setattr(module._Search, name, lambda *_: None)
    monkeypatch.setattr(quadratic_tree._Tree, "suggest", lambda *_: None)
    for seed in range(amount(6, 40)):
        rng = np.random.default_rng(seed)
        n = 7
        network, rows = draw(rng, n, 2, third=1.0), draw_rows(rng, n, kind)
        points = points_of(n, rows)
        values = network(points)
        order = np.argsort(values)
        if len(points) < 2 or values[order[-1]] - values[order[-2]] < 1e-6:
            continue
        # From the second best action: columns are fixed against it, and leaves closed.
        limits = {"gap": 1e-9, "absolute_gap": 1e-9, "climbed": True}
        found = maximise(network, Support.from_rows(*rows), checker(rows), points[order[-2]], **limits)
        assert found.value == pytest.approx(values.max(), rel=1e-8)
        assert found.bound >= values.max() - 1e-9


def test_a_trained_network_by_quadratics_equals_enumeration(monkeypatch):
    """All 21,700 actions with at most five of twenty arms."""
    for name in ("HARD_NODES", "HARD_OPEN", "EASY_NODES", "MANY_NEURONS"):
        monkeypatch.setattr(module, name, 0)
    monkeypatch.setattr(quadratic_tree, "SHARE", np.inf)
    chosen = [c for k in range(6) for c in itertools.combinations(range(20), k)]
    points = np.zeros((len(chosen), 20))
    for row, columns in enumerate(chosen):
        points[row, list(columns)] = 1.0
    rows = np.ones((1, 20)), np.array([-FREE]), np.array([5.0])
    full = Network.from_safetensors(DATA / "argmax_20_64_64.safetensors")
    network = full.fold(np.arange(20, 40), np.random.default_rng(0).integers(0, 2, 20))
    best = network(points).max()
    found = maximise(network, Support.from_rows(*rows), checker(rows), gap=1e-6)
    assert found.status == "optimal"
    assert best - 1e-12 <= found.bound <= best * (1 + 2e-6)
    assert found.value == pytest.approx(best, rel=1e-6)
