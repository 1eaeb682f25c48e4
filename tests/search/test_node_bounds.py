"""Bounds of nodes hold in exact arithmetic, rounding included, and layers' intervals are reached."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from rmab_opt.encoder import Support
from rmab_opt.encoder.bounds import masses
from rmab_opt.encoder.network import Hidden, Reduced
from rmab_opt.search.node_bounds import NodeBounds, _interval
from rmab_opt.search.oracle import Oracle

FREE = np.inf


def exactly(layers: tuple[Hidden, ...], point: np.ndarray) -> list[list[Fraction]]:
    """Pre-activations of every layer at a point, without any rounding; for ReLU layers."""
    values, found = [Fraction(float(x)) for x in point], []
    for layer in layers:
        x = [
            sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(float(b)))
            for row, b in zip(layer.weight, layer.bias, strict=True)
        ]
        found.append(x)
        values = [max(v, Fraction(0)) for v in x]
    return found


def relu(weight: np.ndarray, bias: np.ndarray) -> Hidden:
    return Hidden(weight, bias, np.zeros(len(bias)), np.ones(len(bias)))


def bounds_of(net: Reduced, n: int) -> NodeBounds:
    support = Support.from_rows(np.ones((1, n)), np.array([-FREE]), np.array([float(n)]))
    return NodeBounds(net, Oracle.of(support), masses(net, support)[:-1])


def nodes(low: np.ndarray, up: np.ndarray, width: int) -> dict[str, np.ndarray]:
    count = len(low)
    return {
        "low": low,
        "up": up,
        "lower": np.full((count, width), -FREE),
        "upper": np.full((count, width), FREE),
        "sign": np.zeros((count, width), dtype=np.int8),
        "parent": np.full(count, FREE),
    }


def test_bounds_of_single_actions_hold_in_exact_arithmetic():
    """Where large terms cancel, float64 sums stand on either side of the true ones: the margin covers both."""
    rng = np.random.default_rng(0)
    n, wide = 6, 8
    for _ in range(4):
        weight = rng.normal(size=(wide, n)) * 10.0 ** rng.integers(0, 4, (wide, n))
        layers = (relu(weight, -weight[:, ::2].sum(axis=1)), relu(rng.normal(size=(wide, wide)), rng.normal(size=wide)))
        bounds = bounds_of(Reduced(layers, rng.normal(size=wide), np.zeros(n), 0.0), n)
        points = rng.integers(0, 2, (8, n))
        node = nodes(points > 0, points > 0, 2 * wide)
        assert bounds.tighten(node).all()
        for k, point in enumerate(points):
            true = [x for layer in exactly(layers, point) for x in layer]
            assert all(Fraction(float(a)) <= x for a, x in zip(node["lower"][k], true, strict=True))
            assert all(x <= Fraction(float(b)) for b, x in zip(node["upper"][k], true, strict=True))


def test_sharpened_bounds_hold_in_exact_arithmetic_and_are_reached():
    """Behind a layer that is always active, the second layer is linear: its bounds are its best and worst action."""
    rng = np.random.default_rng(1)
    n, wide = 5, 6
    points = np.array(list(itertools.product([0, 1], repeat=n)))
    for _ in range(4):
        first = relu(1e5 * rng.uniform(0.1, 1.0, (wide, n)), 1e5 * rng.uniform(0.1, 1.0, wide))
        mixed = rng.normal(size=(wide, wide))
        middle = mixed @ (first.weight.sum(axis=1) / 2 + first.bias)
        layers = (first, relu(mixed, -middle))
        bounds = bounds_of(Reduced(layers, rng.normal(size=wide), np.zeros(n), 0.0), n)
        node = nodes(np.zeros((1, n), dtype=bool), np.ones((1, n), dtype=bool), 2 * wide)
        assert bounds.tighten(node).all()
        every = [exactly(layers, point)[1] for point in points]
        for j in range(wide):
            values = [x[j] for x in every]
            low, high = Fraction(float(node["lower"][0, wide + j])), Fraction(float(node["upper"][0, wide + j]))
            assert low <= min(values)
            assert max(values) <= high
            assert float(high - max(values)) < 1e-8 * 1e6
            assert float(min(values) - low) < 1e-8 * 1e6


@pytest.mark.parametrize("kind", ["relu", "leaky", "falling", "peaked", "mixed"])
def test_a_layer_s_interval_is_reached_at_both_ends(kind):
    """Inputs of one layer move on their own, so the least and the most of each sum are those of its terms."""
    rng = np.random.default_rng(2)
    slope, gain = {
        "relu": (np.zeros(4), np.ones(4)),
        "leaky": (np.full(4, 0.1), np.full(4, 0.9)),
        "falling": (np.full(4, -1.0), np.full(4, 0.5)),
        "peaked": (np.full(4, 0.5), np.full(4, -1.5)),
        "mixed": (np.array([-1.0, 0.0, 1.0, 0.5]), np.array([2.0, -1.0, 0.0, -1.5])),
    }[kind]
    layer = relu(rng.normal(size=(3, 4)), rng.normal(size=3))
    ends = np.sort(rng.normal(size=(2, 20, 4)), axis=0)
    least, most = _interval(Hidden(np.eye(4), np.zeros(4), slope, gain), layer, (ends[0], ends[1]))
    # Piecewise linear with a bend at 0: the extremes of each term are at the ends or at the bend.
    points = np.stack([ends[0], ends[1], np.clip(0.0, ends[0], ends[1])])
    terms = layer.weight[:, None, None, :] * (slope * points + gain * np.maximum(points, 0.0))
    assert least == pytest.approx((terms.min(axis=1).sum(axis=-1) + layer.bias[:, None]).T, abs=1e-12)
    assert most == pytest.approx((terms.max(axis=1).sum(axis=-1) + layer.bias[:, None]).T, abs=1e-12)
