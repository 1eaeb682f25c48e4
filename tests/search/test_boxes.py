"""Boxes of continuous inputs: bounds above every sample, points reached, the same optimum as the program's."""

from __future__ import annotations

import itertools

import numpy as np
import pyomo.environ as pyo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.encoder import Network, encode
from rmab_opt.errors import CertificateError, InfeasibleError, ModelError
from rmab_opt.search import BoxOptions, maximise_box, maximise_over
from rmab_opt.search.boxes import _Bounder
from rmab_opt.search.domain import Domain
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


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 3), depth=st.integers(0, 3))
def test_the_optimum_is_the_program_s(seed, n, depth):
    network = drawn(seed, n, [5] * depth)
    found = maximise_box(network, -1.0, 1.5, options=BoxOptions(gap=1e-4, boxes=200_000))
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
    found = maximise_box(network, -2.4, 3.2, whole=True, options=BoxOptions(gap=1e-9))
    assert found.value == pytest.approx(network(points).max(), abs=1e-9)
    assert found.bound >= network(points).max() - 1e-9
    assert np.array_equal(found.point, np.rint(found.point))


def polytope(seed, n, mixed):
    """A model with rows that cut the box, one of them an equality now and then; and its network."""
    rng = np.random.default_rng(seed)
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(n), bounds=(-1.5, 2.0))
    if mixed:
        for i in range(0, n, 2):
            model.x[i].domain = pyo.Integers
    model.rows = pyo.ConstraintList()
    for _ in range(int(rng.integers(1, 4))):
        weight = rng.normal(size=n).round(2) + 0.01
        model.rows.add(sum(w * x for w, x in zip(weight.tolist(), model.x.values(), strict=True)) <= 0.7)
    if seed % 3 == 0 and not mixed:
        model.rows.add(model.x[0] + model.x[1] == 0.4)
    model.q = pyo.Block()
    return model, drawn(seed, n, [5, 4])


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_over_rows_is_the_program_s(seed, mixed):
    model, network = polytope(seed, 3, mixed)
    found = maximise_over(network, model.x, options=BoxOptions(gap=1e-4, boxes=20_000))
    output, _ = encode(network, model.q, model.x)
    model.best = pyo.Objective(expr=output, sense=pyo.maximize)
    session = Session(model, "exact")
    result = session.solve()
    # Both stand within the rows' own tolerance.
    slack = 2e-6 * max(1.0, abs(result.objective))
    assert found.status == "optimal"
    assert result.objective - 1.01e-4 * max(abs(found.value), 1e-6) - slack <= found.value <= result.objective + slack
    assert found.bound >= result.objective - slack
    assert found.value == pytest.approx(float(network(found.point)), abs=1e-12)
    for row in model.rows.values():
        for variable, x in zip(model.x.values(), found.point.tolist(), strict=True):
            variable.set_value(x, skip_validation=True)
        assert pyo.value(row.body) <= pyo.value(row.upper) + 1e-6
    start = session.index(model.x)
    session.start(start, found.point)
    assert session.solve().objective == pytest.approx(result.objective, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_whole_inputs_under_rows_are_enumerated(seed):
    network = drawn(seed, 4, [6, 5])
    points = np.array(list(itertools.product(range(-1, 3), repeat=4)), dtype=float)
    rows = (np.array([[1.0, 2.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]), [-np.inf, 1.0], [1.0, 1.0])
    allowed = points[(points @ rows[0][0] <= 1) & (points @ rows[0][1] == 1)]
    found = maximise_box(network, -1, 2, rows=rows, whole=True, options=BoxOptions(gap=1e-9))
    assert found.value == pytest.approx(network(allowed).max(), abs=1e-9)
    assert found.bound >= network(allowed).max() - 1e-9


def test_bounds_of_boxes_hold_every_point_of_the_rows():
    """Of any boxes inside, with any signs known from a larger box: never below a sample."""
    rng = np.random.default_rng(5)
    network = drawn(3, 4, [8, 7, 6])
    rows = (rng.normal(size=(3, 4)), np.full(3, -np.inf), np.full(3, 0.5))
    domain = Domain.of(4, -1.0, 1.0, False, rows)
    bounder = _Bounder(network, domain)
    ends = np.sort(rng.uniform(-1, 1, size=(40, 2, 4)), axis=1)
    low, high = np.concatenate([ends[:, 0], -np.ones((1, 4))]), np.concatenate([ends[:, 1], np.ones((1, 4))])
    root = bounder.bounded(-np.ones((1, 4)), np.ones((1, 4)), bounder.root())
    known = bounder.bounded(low, high, np.repeat(root.signs, 41, axis=0))
    tight_low, tight_high, alive = domain.tightened(low, high)
    for i in range(41):
        points = low[i] + (high[i] - low[i]) * rng.random((4000, 4))
        points = points[domain.allows(points)]
        if not len(points):
            continue
        assert alive[i]
        assert ((points >= tight_low[i] - 1e-9) & (points <= tight_high[i] + 1e-9)).all()
        assert known.bounds[i] >= network(points).max() - 1e-9
        assert (points @ known.line[i] + known.constant[i] >= network(points) - 1e-9).all()
        value, point = domain.best(known.line[i], low[i], high[i])
        assert value >= (points @ known.line[i]).max() - 1e-9
        assert value <= known.line[i] @ point + 1e-4


def test_what_cannot_be_proven_is_refused():
    network = drawn(2, 2, [4])
    model = pyo.ConcreteModel()
    model.x, model.y = pyo.Var([0, 1], bounds=(0, 1)), pyo.Var(bounds=(0, 1))
    model.tie = pyo.Constraint(expr=model.x[0] + model.y <= 1)
    with pytest.raises(ModelError, match="'tie' ties the inputs"):
        maximise_over(network, model.x)
    with pytest.raises(InfeasibleError, match="no point"):
        maximise_box(network, 0.0, 1.0, rows=([[1.0, 1.0]], [3.0], [np.inf]))
    with pytest.raises(ModelError, match="starts of shape"):
        maximise_box(network, 0.0, 1.0, options=BoxOptions(starts=[[1.0]]))


def test_starts_are_climbed_from_and_the_framework_judges():
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(3, 12), torch.nn.ReLU(), torch.nn.Linear(12, 1))
    network = Network.from_torch(module)
    few = BoxOptions(boxes=100)
    best = maximise_box(network, -1.0, 1.0, options=few)
    assert best.judged == pytest.approx(best.value, abs=1e-9)
    again = maximise_box(network, -1.0, 1.0, options=BoxOptions(starts=best.point, boxes=1))
    assert again.value >= best.value - 1e-12
    network.judge = network.judge._replace(forward=lambda points: network(points) - 0.1)
    with pytest.raises(CertificateError, match="the framework gives"):
        maximise_box(network, -1.0, 1.0, options=few)


def test_a_limit_leaves_a_proven_bound():
    network = drawn(8, 5, [30, 30, 30])
    found = maximise_box(network, -1.0, 1.0, options=BoxOptions(boxes=400))
    again = maximise_box(network, -1.0, 1.0, options=BoxOptions(boxes=400))
    samples = network(np.random.default_rng(1).uniform(-1, 1, size=(50_000, 5)))
    assert found.bound >= samples.max()
    assert found.value >= samples.max()
    assert (found.value, found.bound) == (again.value, again.bound)
    assert maximise_box(network, -1.0, 1.0, options=BoxOptions(boxes=1600)).bound <= found.bound


def test_the_value_is_the_model_s_own():
    network = drawn(4, 2, [5])
    found = maximise_box(network, -1.0, 1.0)
    assert found.certify(lambda x: float(network(x))).value == found.value
    with pytest.raises(CertificateError, match="was claimed"):
        found.certify(lambda x: float(network(x)) + 0.1)
    with pytest.raises(ModelError, match="input 1 has bounds"):
        maximise_box(network, [0.0, 1.0], [1.0, 0.0])


def test_limits_that_are_none_are_refused():
    for wrong in ({"gap": -1e-3}, {"boxes": -1}, {"seconds": float("nan")}):
        with pytest.raises(ModelError, match=f"{next(iter(wrong))} is"):
            BoxOptions(**wrong)
