"""Boxes of continuous inputs: bounds above every sample, points reached, the same optimum as the program's."""

from __future__ import annotations

import itertools

import numpy as np
import pyomo.environ as pyo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.encoder import Network, encode
from rmab_opt.errors import CertificateError, ModelError
from rmab_opt.search import maximise_box
from rmab_opt.solver import Session


def drawn(seed, n, widths):
    rng = np.random.default_rng(seed)
    layers, before = [], n
    kinds = ["relu", ("leaky_relu", -0.5), ("clip", -1.0, 1.0), "linear", ("leaky_relu", 0.2)]
    for width in widths:
        kind = kinds[int(rng.integers(len(kinds)))] if seed % 2 else "relu"
        layers.append((rng.normal(size=(width, before)) / np.sqrt(before), rng.normal(size=width) * 0.3, kind))
        before = width
    layers.append((rng.normal(size=(1, before)), [0.1], "linear"))
    return Network.from_arrays(layers, skip=rng.normal(size=n) * 0.1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 3), depth=st.integers(0, 3))
def test_the_optimum_is_the_program_s(seed, n, depth):
    network = drawn(seed, n, [5] * depth)
    found = maximise_box(network, -1.0, 1.5, gap=1e-4, boxes=200_000)
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(n), bounds=(-1.0, 1.5))
    model.q = pyo.Block()
    output, _ = encode(network, model.q, model.x)
    model.best = pyo.Objective(expr=output, sense=pyo.maximize)
    best = Session(model, "exact").solve().objective
    assert found.status == "optimal"
    assert found.value <= best + 1e-6 * max(1.0, abs(best))
    assert found.bound >= best - 1e-6 * max(1.0, abs(best))
    assert found.value == pytest.approx(float(network(found.point)), abs=1e-12)
    assert found.gap <= 1.01e-4 * max(abs(found.value), 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_whole_inputs_are_enumerated(seed):
    network = drawn(seed, 3, [6, 5])
    points = np.array(list(itertools.product(range(-2, 4), repeat=3)), dtype=float)
    found = maximise_box(network, -2.4, 3.2, whole=True, gap=1e-9)
    assert found.value == pytest.approx(network(points).max(), abs=1e-9)
    assert found.bound >= network(points).max() - 1e-9
    assert np.array_equal(found.point, np.rint(found.point))


def test_a_limit_leaves_a_proven_bound():
    network = drawn(8, 5, [40, 40, 40])
    found = maximise_box(network, -1.0, 1.0, boxes=2000)
    again = maximise_box(network, -1.0, 1.0, boxes=2000)
    samples = network(np.random.default_rng(1).uniform(-1, 1, size=(200_000, 5)))
    assert found.bound >= samples.max()
    assert found.value >= samples.max()
    assert (found.value, found.bound) == (again.value, again.bound)
    assert maximise_box(network, -1.0, 1.0, boxes=8000).bound <= found.bound


def test_the_value_is_the_model_s_own():
    network = drawn(4, 2, [5])
    found = maximise_box(network, -1.0, 1.0)
    assert found.certify(lambda x: float(network(x))).value == found.value
    with pytest.raises(CertificateError, match="was claimed"):
        found.certify(lambda x: float(network(x)) + 0.1)
    with pytest.raises(ModelError, match="input 1 has bounds"):
        maximise_box(network, [0.0, 1.0], [1.0, 0.0])
