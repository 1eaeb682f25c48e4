"""Encoded value equals the forward pass; optimum equals enumeration; bounds hold every activation."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pyomo.environ as pyo
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from rmab_opt.encoder import EncodingWarning, Network, Support, assemble, bounds, encode, rising
from rmab_opt.encoder.bounds import EFFORTS
from rmab_opt.errors import ModelError
from rmab_opt.solver import Session

ACTIVATIONS = ["relu", ("leaky_relu", 0.1), ("leaky_relu", 1.5), ("clip", -0.5, 1.0), "linear", ("max", 3)]


def forward(network: Network, inputs: np.ndarray) -> np.ndarray:
    """The value again, neuron by neuron, by the definitions."""
    values = []
    links = network.links()
    for x in inputs:
        h = [float(v) for v in x]
        reached = {-1: h}
        for k, (weight, bias, activation) in enumerate(network.layers()):
            rows = weight.toarray() if sparse.issparse(weight) else weight
            z = [sum(w * v for w, v in zip(row, h, strict=True)) + b for row, b in zip(rows, bias, strict=True)]
            for (source, target), link in links.items():
                if target == k:
                    given = link.toarray() if sparse.issparse(link) else link
                    z = [
                        v + sum(w * g for w, g in zip(row, reached[source], strict=True))
                        for v, row in zip(z, given, strict=True)
                    ]
            if activation.name == "relu":
                h = [max(0.0, v) for v in z]
            elif activation.name == "leaky_relu":
                h = [v if v > 0 else activation.slope * v for v in z]
            elif activation.name == "clip":
                h = [min(max(v, activation.lower), activation.upper) for v in z]
            elif activation.name == "max":
                h = [max(z[i : i + activation.group]) for i in range(0, len(z), activation.group)]
            else:
                h = z
            reached[k] = h
        head = h[0] if network.layers() else 0.0
        values.append(head + sum(a * b for a, b in zip(network.skip, x, strict=True)) + network.constant)
    return np.array(values)


def random_network(
    rng: np.random.Generator, n: int, widths: list[int], kinds: list, spread: float = 1.0, linked: bool = False
) -> Network:
    layers, before = [], n
    for outputs, kind in zip(widths, kinds, strict=True):
        width = 3 * outputs if kind == ("max", 3) else outputs
        scale = 10.0 ** rng.uniform(-spread, spread, size=(width, 1))
        weight = rng.normal(size=(width, before)) * scale
        if width > 2 and rng.random() < 0.5:
            weight[1] = 2.0 * weight[0]
        bias = rng.normal(size=width) * scale[:, 0]
        if width > 2 and rng.random() < 0.5:
            bias[1] = 2.0 * bias[0]
        if rng.random() < 0.3:
            weight[-1] = 0.0
        layers.append((weight, bias, kind))
        before = outputs
    layers.append((rng.normal(size=(1, before)), rng.normal(size=1), "linear"))
    # A link from two layers back, or from the inputs, into every layer that has one to read.
    outputs = [n, *widths]
    links = {
        (int(source), target): rng.normal(size=(len(layers[target][1]), outputs[source + 1]))
        for target in range(1, len(layers))
        for source in [rng.integers(-1, target - 1)]
        if linked
    }
    return Network.from_arrays(layers, skip=rng.normal(size=n), constant=float(rng.normal()), links=links)


def random_rows(rng: np.random.Generator, n: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    free = np.inf
    if kind == "box":
        return np.zeros((0, n)), np.zeros(0), np.zeros(0)
    if kind == "at most":
        return np.ones((1, n)), np.array([-free]), np.array([float(rng.integers(1, n + 1))])
    if kind == "exactly":
        count = float(rng.integers(0, n + 1))
        return np.ones((1, n)), np.array([count]), np.array([count])
    if kind == "at least":
        return np.ones((1, n)), np.array([float(rng.integers(1, n + 1))]), np.array([free])
    if kind == "knapsack":
        return rng.uniform(0.1, 2, size=(1, n)), np.array([-free]), np.array([rng.uniform(1, n)])
    if kind == "signed":
        return rng.normal(size=(1, n)), np.array([-free]), np.array([rng.uniform(0, 2)])
    groups = rng.integers(0, 3, size=n)
    matrix = np.array([groups == g for g in range(3)], dtype=float)
    limit = np.full(3, 1.0)
    if kind == "partition":
        return matrix, np.full(3, -free), limit
    both = np.vstack([matrix, np.ones(n)])  # "overlapping"
    return both, np.full(4, -free), np.append(limit + 1, 2.0)


KINDS = ["box", "at most", "exactly", "at least", "knapsack", "signed", "partition", "overlapping"]


def all_points(n: int, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    points = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
    activity = points @ rows[0].T
    return points[((activity >= rows[1] - 1e-9) & (activity <= rows[2] + 1e-9)).all(axis=1)]


def model_of(n: int, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> pyo.ConcreteModel:
    model = pyo.ConcreteModel()
    model.act = pyo.Var(range(n), domain=pyo.Binary)
    model.rows = pyo.ConstraintList()
    for weights, low, high in zip(*rows, strict=True):
        if not weights.any():
            continue
        body = sum(float(w) * model.act[j] for j, w in enumerate(weights) if w)
        if np.isfinite(low):
            model.rows.add(body >= float(low))
        if np.isfinite(high):
            model.rows.add(body <= float(high))
    model.q = pyo.Block()
    return model


FORMS = [("big-m", False), ("partition", False), ("cuts", False), ("big-m", True)]


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=str)
@pytest.mark.parametrize(("formulation", "reusable"), FORMS)
@pytest.mark.parametrize("sense", amount(["equal"], ["maximise", "minimise", "equal"]))
@pytest.mark.parametrize("linked", amount([True], [False, True]))
def test_encoded_value_is_the_forward_pass_at_fixed_inputs(kind, formulation, reusable, sense, linked):
    rng = np.random.default_rng(5)
    network = random_network(rng, 4, [5, 3], [kind, kind], linked=linked)
    model = model_of(4, random_rows(rng, 4, "box"))
    output, record = encode(network, model.q, model.act, reusable=reusable, sense=sense, formulation=formulation)
    assert record.faults(all_points(4, random_rows(rng, 4, "box"))) == []
    # With equality the output is pushed the other way and still must not leave the value.
    direction = {"maximise": pyo.maximize, "minimise": pyo.minimize, "equal": pyo.maximize}[sense]
    model.value = pyo.Objective(expr=output, sense=direction)
    session = Session(model, "exact")
    act = session.index(model.act)
    for point in all_points(4, random_rows(rng, 4, "box")):
        session.set_bounds(act, point, point)
        result = session.solve()
        assert result.objective == pytest.approx(forward(network, point[None])[0], abs=1e-6)
        assert record.value(point) == pytest.approx(result.objective, abs=1e-6)


@settings(max_examples=amount(13, 40), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 6),
    depth=st.integers(0, 3),
    kind=st.sampled_from(KINDS),
    effort=st.sampled_from(["interval", "linear", "lp"]),
    form=st.sampled_from(FORMS),
    linked=st.booleans(),
)
def test_optimum_is_the_best_enumerated_point(seed, n, depth, kind, effort, form, linked):
    formulation, reusable = form
    rng = np.random.default_rng(seed)
    widths = [int(w) for w in rng.integers(1, 7, size=depth)]
    kinds = [ACTIVATIONS[int(k)] for k in rng.integers(0, len(ACTIVATIONS), size=depth)]
    network = random_network(rng, n, widths, kinds, linked=linked)
    rows = random_rows(rng, n, kind)
    points = all_points(n, rows)
    if not len(points):
        return
    model = model_of(n, rows)
    output, record = encode(
        network, model.q, model.act, effort=effort, reusable=reusable, formulation=formulation, sense="maximise"
    )
    assert record.faults(points) == []
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    best = forward(network, points).max()
    result = Session(model, "exact").solve()
    assert result.status in ("optimal", "empty")
    assert result.objective == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert record.output[1] >= best - 1e-9
    assert str(record).count("layer ") == len(network.reduced.hidden)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), depth=st.integers(1, 4), kind=st.sampled_from(KINDS))
def test_bounds_hold_every_activation_and_tighten_with_effort(seed, n, depth, kind):
    """Weights over six orders of magnitude, zero rows, duplicates, width 1."""
    rng = np.random.default_rng(seed)
    widths = [int(w) for w in rng.integers(1, 8, size=depth)]
    network = random_network(rng, n, widths, ["relu"] * depth, spread=3.0)
    rows = random_rows(rng, n, kind)
    points = all_points(n, rows)
    support = Support.from_rows(*rows)
    interval, linear, lp = (bounds(network, support, effort) for effort in ("interval", "linear", "lp"))
    if not len(points):
        return
    h = points
    reached = []
    for weight, bias, _ in network.layers():
        z = h @ weight.T + bias
        reached.append(z)
        h = np.maximum(z, 0)
    reached[-1] = forward(network, points)[:, None]
    for found in (interval, linear, lp):
        for (low, high), z in zip(found, reached, strict=True):
            assert (z >= low).all()
            assert (z <= high).all()
    for loose, tight in itertools.pairwise([interval, linear, lp]):
        for (a, b), (c, d) in zip(loose, tight, strict=True):
            assert (a <= c + 1e-12 * np.abs(c)).all()
            assert (b >= d - 1e-12 * np.abs(d)).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 8), kind=st.sampled_from(KINDS))
def test_support_is_the_lp_of_its_rows(seed, n, kind):
    """The sorted form equals HiGHS where it says so, lies above it elsewhere, and never below an enumerated point."""
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, n, kind)
    support = Support.from_rows(*rows, whole=False)
    cost = rng.normal(size=(3, n))
    values, at = support(cost)
    lp = Support.from_rows(*rows, whole=False)(cost, effort="lp")
    assert np.allclose(np.einsum("mn,mn->m", cost, at), values)
    points = all_points(n, rows)
    if not len(points):
        return
    assert (values >= (points @ cost.T).max(axis=0) - 1e-9).all()
    assert (values >= lp.values - 1e-4).all()
    model = model_of(n, rows)
    for j in range(n):
        model.act[j].domain = pyo.UnitInterval
    model.value = pyo.Objective(expr=sum(float(cost[0, j]) * model.act[j] for j in range(n)), sense=pyo.maximize)
    optimum = Session(model).solve().objective
    assert values[0] >= optimum - 1e-7
    if support.exact:
        assert values[0] == pytest.approx(optimum, abs=1e-4)


def test_auxiliary_variables_count_in_the_lp_form():
    """Rows over other variables that are not an assignment are only seen by the LP."""
    model = model_of(3, (np.zeros((0, 3)), np.zeros(0), np.zeros(0)))
    model.carries = pyo.Var(range(3), bounds=(0, 1))
    model.carried = pyo.Constraint(range(3), rule=lambda m, j: m.carries[j] >= m.act[j])
    model.carrying = pyo.Constraint(expr=sum(model.carries[j] for j in range(3)) <= 1)
    support = Support.from_model(model, list(model.act.values()))
    cost = np.array([[1.0, 2.0, 3.0]])
    assert not support.exact
    assert support(cost).values[0] == pytest.approx(6.0)
    assert support(cost, effort="lp").values[0] == pytest.approx(3.0, abs=1e-5)


def test_assignments_imply_rows_for_the_inputs():
    """Five columns, two workers of capacity one: at most two; one column that nobody can carry."""
    model = model_of(5, (np.zeros((0, 5)), np.zeros(0), np.zeros(0)))
    pairs = [(c, w) for c in range(4) for w in range(2)]
    model.carries = pyo.Var(pairs, bounds=(0, 1))
    model.visits = pyo.Constraint(
        range(5), rule=lambda m, c: sum(m.carries[c, w] for w in range(2)) == m.act[c] if c < 4 else m.act[4] == 0
    )
    model.staff = pyo.Constraint(range(2), rule=lambda m, w: sum(m.carries[c, w] for c in range(4)) <= 1)
    support = Support.from_model(model, list(model.act.values()))
    values, points = support(np.array([[1.0, 2.0, 3.0, 0.5, 9.0]]))
    assert values[0] == pytest.approx(5.0)
    assert points[0].tolist() == [0, 1, 1, 0, 0]
    assert not support.exact


def test_rows_that_may_change_do_not_tighten_bounds():
    model = model_of(2, (np.zeros((0, 2)), np.zeros(0), np.zeros(0)))
    model.limit = pyo.Param(initialize=1.0, mutable=True)
    model.budget = pyo.Constraint(expr=model.act[0] + model.act[1] <= model.limit)
    model.act[0].fix(0)
    support = Support.from_model(model, list(model.act.values()))
    assert support(np.ones((1, 2))).values[0] == 2.0
    assert model.act[0].fixed


def test_reusable_encoding_follows_another_state_through_arrays_alone():
    rng = np.random.default_rng(3)
    n = 6
    rows = random_rows(rng, n, "at most")
    points = all_points(n, rows)
    full = random_network(rng, n + 3, [6, 4], ["relu", ("leaky_relu", 0.2)])
    model = model_of(n, rows)

    def at(state: np.ndarray) -> Network:
        return full.fold(np.arange(n, n + 3), state)

    output, record = encode(at(np.zeros(3)), model.q, model.act, reusable=True, weights_change=False)
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    session = Session(model, "exact")
    for _ in range(8):
        network = at(rng.normal(size=3) * 2)
        for name, values in record.update(network).items():
            session.parameters[f"q.{name}"] = values
        assert session.solve().objective == pytest.approx(forward(network, points).max(), abs=1e-6)
    with pytest.raises(ModelError, match="the skip changed, which this encoding holds fixed"):
        record.update(random_network(rng, n, [6, 4], ["relu", ("leaky_relu", 0.2)]))


def test_reusable_encoding_takes_new_first_layer_weights_and_skip():
    rng = np.random.default_rng(4)
    n = 5
    rows = random_rows(rng, n, "knapsack")
    points = all_points(n, rows)
    head = random_network(rng, 4, [4, 3], ["relu", "relu"]).layers()
    model = model_of(n, rows)

    def pooled() -> Network:
        first = (rng.normal(size=(4, n)), rng.normal(size=4), "relu")
        return Network.from_arrays([first, *head[1:]], skip=rng.normal(size=n), constant=float(rng.normal()))

    output, record = encode(pooled(), model.q, model.act, reusable=True)
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    session = Session(model, "exact")
    for _ in range(8):
        network = pooled()
        for name, values in record.update(network).items():
            session.parameters[f"q.{name}"] = values
        assert session.solve().objective == pytest.approx(forward(network, points).max(), abs=1e-6)


def test_what_needs_no_binary_gets_none():
    # Always on, always off, twice the first, never read, pushed down by the maximum, truly open.
    weight = np.array([[1.0, 1.0], [-1.0, -1.0], [2.0, 2.0], [1.0, -1.0], [1.0, -2.0], [-1.0, 2.0]])
    bias = np.array([0.5, -0.5, 1.0, 0.0, 0.0, 0.0])
    readout = np.array([[1.0, 1.0, 1.0, 0.0, -1.0, 1.0]])
    network = Network.from_arrays([(weight, bias, "relu"), (readout, [0.0], "linear")])
    model = model_of(2, (np.zeros((0, 2)), np.zeros(0), np.zeros(0)))
    output, record = encode(network, model.q, model.act, sense="maximise")
    assert record.layers[0].status == ["active", "dead", "merged", "unused", "one-sided", "split"]
    assert record.counts["binaries"] == 1
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    points = all_points(2, (np.zeros((0, 2)), np.zeros(0), np.zeros(0)))
    assert Session(model).solve().objective == pytest.approx(forward(network, points).max())


def test_input_concave_network_needs_no_binaries():
    rng = np.random.default_rng(0)
    layers = [
        (rng.normal(size=(8, 5)), rng.normal(size=8), "relu"),
        (np.abs(rng.normal(size=(6, 8))), rng.normal(size=6), "relu"),
        (-np.abs(rng.normal(size=(1, 6))), [1.0], "linear"),
    ]
    network = Network.from_arrays(layers)
    rows = random_rows(rng, 5, "at least")
    model = model_of(5, rows)
    output, record = encode(network, model.q, model.act, sense="maximise")
    assert record.counts["binaries"] == 0
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    assert Session(model).solve().objective == pytest.approx(forward(network, all_points(5, rows)).max(), abs=1e-6)


def test_numbers_among_the_inputs_are_folded():
    rng = np.random.default_rng(1)
    network = random_network(rng, 3, [4], ["relu"])
    model = model_of(2, (np.zeros((0, 2)), np.zeros(0), np.zeros(0)))
    output, _ = encode(network, model.q, [model.act[0], 0.5, model.act[1]])
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    points = np.array([[a, 0.5, b] for a in (0, 1) for b in (0, 1)])
    assert Session(model).solve().objective == pytest.approx(forward(network, points).max(), abs=1e-6)


def test_printed_record():
    network = Network.from_arrays([([[1.0, -2.0], [1.0, 1.0]], [0.0, 0.0], "relu"), ([[1.0, 1.0]], [0.0], "linear")])
    model = model_of(2, (np.ones((1, 2)), np.array([-np.inf]), np.array([1.0])))
    _, record = encode(network, model.q, model.act)
    assert str(record) == (
        "Encoding · Network(2 -> 2 -> 1) · big-m · for one network\n"
        "├ layer 0     2 neurons: 1 active, 1 split · x in [-2, 1]\n"
        "├ added       3 variables (1 binary), 3 rows · largest M 2\n"
        "├ bounds      4 by interval\n"
        "└ output      in [0, 2]"
    )


def test_missing_bounds_name_the_input():
    model = pyo.ConcreteModel()
    model.hours = pyo.Var(["monday", "friday"], bounds=(0, None))
    model.q = pyo.Block()
    network = Network.from_arrays([([[1.0, 1.0]], [0.0], "relu"), ([[1.0]], [0.0], "linear")])
    with pytest.raises(ModelError, match=r"hours\[monday\] has bounds \[0, inf\]"):
        encode(network, model.q, model.hours)


def test_large_coefficients_warn():
    network = Network.from_arrays([([[1e5, -1e5]], [0.0], "relu"), ([[1.0]], [0.0], "linear")])
    model = model_of(2, (np.zeros((0, 2)), np.zeros(0), np.zeros(0)))
    with pytest.warns(EncodingWarning, match="1e\\+05"):
        encode(network, model.q, model.act)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = model_of(2, (np.zeros((0, 2)), np.zeros(0), np.zeros(0)))
        encode(Network.from_arrays([([[1.0, -1.0]], [0.0], "relu"), ([[1.0]], [0.0], "linear")]), model.q, model.act)


def on_a_graph(rng: np.random.Generator, nodes: int, channels: int, rounds: int) -> Network:
    """Message passing on a ring with chords, unrolled: every node reads itself and its neighbours; sparse layers."""
    edges = [(v, (v + step) % nodes) for v in range(nodes) for step in (1, 5)]
    heard = sparse.csr_array(
        (np.full(2 * len(edges), 0.4), tuple(zip(*(edges + [(b, a) for a, b in edges]), strict=True))),
        shape=(nodes, nodes),
    )
    layers: list = []
    for number in range(rounds):
        before = 1 if number == 0 else channels
        mine, others = rng.normal(size=(channels, before)), rng.normal(size=(channels, before))
        weight = sparse.kron(sparse.eye_array(nodes), mine) + sparse.kron(heard, others)
        layers.append((sparse.csr_array(weight), rng.normal(size=nodes * channels) * 0.5, "relu"))
    layers.append((rng.normal(size=(1, nodes * channels)) / nodes, [0.0], "linear"))
    return Network.from_arrays(layers)


def as_dense(network: Network) -> Network:
    return Network.from_arrays([(w.toarray() if sparse.issparse(w) else w, b, a) for w, b, a in network.layers()])


@pytest.mark.parametrize("formulation", ["big-m", "partition", "cuts"])
def test_message_passing_on_a_fixed_graph_equals_enumeration(formulation):
    rng = np.random.default_rng(3)
    network = on_a_graph(rng, 7, 2, 2)
    rows = random_rows(rng, 7, "at most")
    model = model_of(7, rows)
    output, record = encode(network, model.q, model.act, formulation=formulation, sense="maximise")
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    points = all_points(7, rows)
    assert record.faults(points) == []
    assert Session(model, "exact").solve().objective == pytest.approx(network(points).max(), abs=1e-6)
    for (low, high), (a, b) in zip(
        record.bounds.layers, bounds(as_dense(network), record.support, "linear"), strict=True
    ):
        assert np.allclose(low, a, atol=1e-8)
        assert np.allclose(high, b, atol=1e-8)


def test_message_passing_on_a_wide_graph_stays_sparse():
    """500 nodes, two rounds of two channels: 2,000 neurons, no matrix of neurons times neurons."""
    rng = np.random.default_rng(4)
    network = on_a_graph(rng, 500, 2, 2)
    support = Support.from_rows(np.ones((1, 500)), [-np.inf], [20.0])
    record = assemble(network, support)
    assert record.arrays.matrix.nnz < 60 * len(record.arrays.row_lower)
    points = (rng.random((20, 500)).argsort(axis=1) < 20).astype(float)
    assert record.faults(points) == []
    assert network(points).max() <= record.output[1]


def test_pooled_networks_need_binaries_in_the_head_only():
    """Sums over any number of arms are linear in the columns: eight neurons, at most eight binaries."""
    rng = np.random.default_rng(5)
    for n in (12, 300):
        psi = rng.normal(size=(4, n)) / np.sqrt(n)
        head = [(rng.normal(size=(8, 4)) @ psi, rng.normal(size=8), "relu"), (rng.normal(size=(1, 8)), [0.0], "linear")]
        network = Network.from_arrays(head, skip=rng.normal(size=n) / n)
        support = Support.from_rows(np.ones((1, n)), [-np.inf], [5.0])
        record = assemble(network, support)
        assert record.counts["binaries"] <= 8
        assert len(record.arrays.lower) <= 3 * 8


def test_a_module_with_branches_is_taken_as_it_is():
    torch = pytest.importorskip("torch")

    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.back, self.last = torch.nn.Linear(5, 6), torch.nn.Linear(6, 5), torch.nn.Linear(5, 1)

        def forward(self, x):
            return self.last(torch.relu(x + self.back(torch.relu(self.inner(x)))))

    torch.manual_seed(0)
    module = Residual().double()
    rows = random_rows(np.random.default_rng(0), 5, "knapsack")
    model = model_of(5, rows)
    output, record = encode(module, model.q, model.act)
    model.value = pyo.Objective(expr=output, sense=pyo.maximize)
    points = all_points(5, rows)
    with torch.no_grad():
        best = float(module(torch.tensor(points)).max())
    assert Session(model, "exact").solve().objective == pytest.approx(best, abs=1e-6)
    assert "1 links" in str(record)


def test_bounds_tell_their_effort_and_a_cut_off_tightens_them():
    rng = np.random.default_rng(8)
    network = random_network(rng, 8, [12, 8], ["relu", "relu"], spread=0.3)
    rows = random_rows(rng, 8, "overlapping")
    points = all_points(8, rows)
    values = network(points)
    support = Support.from_rows(*rows)
    found = {effort: rising(network, support, effort, at_least=np.quantile(values, 0.9)) for effort in EFFORTS}
    widths = [sum(float((high - low).sum()) for low, high in each.layers) for each in found.values()]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[-2]
    assert [each.lps > 0 for each in found.values()] == [False, False, True, True]
    assert found["cutoff"].counts()["cutoff"] > 0
    kept = points[values >= np.quantile(values, 0.9)]
    for (low, high), x in zip(found["cutoff"].layers, network.reduced.preactivations(kept), strict=False):
        assert ((low <= x) & (x <= high)).all()
    with pytest.raises(ModelError, match="without a value"):
        rising(network, support, "cutoff")


def test_first_layers_are_bounded_once_for_all_states():
    rng = np.random.default_rng(9)
    full = random_network(rng, 12, [10, 4], ["relu", "relu"])
    support = Support.from_rows(np.ones((1, 8)), [-np.inf], [3.0])
    asked = []
    plain = support.values
    support.values = lambda cost: asked.append(cost.shape) or plain(cost)
    for _ in range(3):
        network = full.fold(np.arange(8, 12), rng.normal(size=4))
        again = Support.from_rows(np.ones((1, 8)), [-np.inf], [3.0])
        for (a, b), (c, d) in zip(bounds(network, support), bounds(network, again), strict=True):
            assert np.array_equal(a, c)
            assert np.array_equal(b, d)
    first = network.reduced.hidden[0].weight.shape
    assert asked.count(first) == 2
