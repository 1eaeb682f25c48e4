"""The exact search agrees with trying every action, and what it calls a bound is one."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import action_sets, all_actions

from rmab_opt.encoder import Network, Support, bounds
from rmab_opt.errors import CapabilityError, CertificateError, InfeasibleError, SolverError
from rmab_opt.search import branch_and_bound as module
from rmab_opt.search.branch_and_bound import maximise
from rmab_opt.search.local_search import climb

FREE = np.inf


def draw_network(rng: np.random.Generator, n: int, depth: int, wide: int, spread: float) -> Network:
    """Random weights over ``spread`` orders of magnitude either way, with dead, duplicate and zero rows."""
    layers, before = [], n
    for _ in range(depth):
        width = int(rng.integers(1, wide + 1))
        scale = 10.0 ** rng.uniform(-spread, spread, size=(width, 1))
        weight, bias = rng.normal(size=(width, before)) * scale, rng.normal(size=width) * scale[:, 0]
        if width > 3:
            weight[1], bias[1] = weight[0], bias[0]
            weight[2] = 0.0
            weight[3], bias[3] = -np.abs(weight[3]), -1.0
        kinds = [("leaky_relu", 0.1), ("clip", -0.5, 1.0), "relu", "relu", ("max", 2 if width % 2 == 0 else width)]
        kind = kinds[int(rng.integers(0, len(kinds)))]
        layers.append((weight, bias, kind))
        before = width // kind[1] if kind[0] == "max" else width
    layers.append((rng.normal(size=(1, before)), rng.normal(size=1), "linear"))
    return Network.from_arrays(layers, skip=rng.normal(size=n))


def draw_rows(rng: np.random.Generator, n: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    one = np.ones((1, n))
    if kind == "box":
        return np.zeros((0, n)), np.zeros(0), np.zeros(0)
    if kind == "budget":
        return one, np.array([-FREE]), np.array([float(rng.integers(1, n + 1))])
    if kind == "between":
        least = int(rng.integers(0, n))
        return one, np.array([float(least)]), np.array([float(rng.integers(least, n + 1))])
    if kind == "knapsack":
        return rng.uniform(0.1, 2, size=(1, n)), np.array([-FREE]), np.array([rng.uniform(0.5, n)])
    if kind == "cover":
        return rng.uniform(0.1, 2, size=(1, n)), np.array([rng.uniform(0.2, 0.5 * n)]), np.array([FREE])
    if kind == "signed":
        return rng.normal(size=(2, n)), np.array([-FREE, -1.0]), np.array([rng.uniform(0, 2), FREE])
    groups = rng.integers(0, 3, size=n)
    matrix = np.array([groups == g for g in range(3)], dtype=float)
    if kind == "villages":
        return matrix, np.full(3, -FREE), np.full(3, 1.0)
    return np.vstack([matrix, np.ones(n), rng.uniform(0.1, 1, size=n)]), np.full(5, -FREE), np.array([2, 2, 2, 3, 2.0])


KINDS = ["box", "budget", "between", "knapsack", "cover", "signed", "villages", "overlapping"]


def points_of(n: int, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    points = np.array(list(itertools.product([0.0, 1.0], repeat=n)))
    used = points @ rows[0].T
    return points[((used >= rows[1] - 1e-9) & (used <= rows[2] + 1e-9)).all(axis=1)]


def checker(rows: tuple[np.ndarray, np.ndarray, np.ndarray]):
    def allowed(action: np.ndarray) -> bool:
        used = rows[0] @ action
        return bool((used >= rows[1] - 1e-9).all() and (used <= rows[2] + 1e-9).all())

    return allowed


hard_searches = given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 9),
    depth=st.integers(1, 4),
    wide=st.sampled_from([1, 3, 8, 16]),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
    kind=st.sampled_from(KINDS),
    unit=st.sampled_from([2.0**-20, 1.0, 2.0**20]),
)
"""Arguments of :func:`search_equals_enumeration`, in three units."""


def search_equals_enumeration(seed: int, n: int, depth: int, wide: int, spread: float, kind: str, unit: float = 1.0):
    """Value, bound and action of a random network over random rows, written in a unit, against all its actions."""
    rng = np.random.default_rng(seed)
    network, rows = draw_network(rng, n, depth, wide, spread), draw_rows(rng, n, kind)
    points = points_of(n, rows)
    support = Support.from_rows(*(part * unit for part in rows))
    if not len(points):
        with pytest.raises(InfeasibleError):
            maximise(network, support, checker(rows))
        return
    best = network(points).max()
    found = maximise(network, support, checker(rows), gap=1e-7, absolute_gap=1e-9)
    size = max(1.0, abs(best))
    assert found.status == "optimal"
    assert found.value == pytest.approx(best, rel=1e-6, abs=1e-6 * size)
    assert found.bound >= best - 1e-9 * size
    assert network(found.action) == pytest.approx(found.value)
    assert checker(rows)(found.action)


@settings(max_examples=250, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 9),
    depth=st.integers(0, 4),
    wide=st.sampled_from([1, 3, 8, 16]),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
    kind=st.sampled_from(KINDS),
)
def test_search_equals_enumeration(seed, n, depth, wide, spread, kind):
    search_equals_enumeration(seed, n, depth, wide, spread, kind)


@pytest.mark.parametrize("seed", range(12))
def test_columns_are_fixed_only_where_that_cannot_cost_the_optimum(monkeypatch, seed):
    """Without local search the best found so far is poor: what is fixed against it must still hold the optimum."""
    monkeypatch.setattr(module._Search, "polish", lambda search: None)
    rng = np.random.default_rng(seed)
    network, rows = draw_network(rng, 9, 2, 16, 0.0), draw_rows(rng, 9, "budget")
    best = network(points_of(9, rows)).max()
    found = maximise(network, Support.from_rows(*rows), checker(rows), gap=1e-9, absolute_gap=1e-9, batch=8)
    assert found.value == pytest.approx(best, rel=1e-8)
    assert found.bound >= best - 1e-9 * max(1.0, abs(best))


TRAINED = sorted((Path(__file__).parents[2] / "benchmarks" / "data").glob("argmax_20_*.safetensors"))


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_trained_networks_of_the_benchmark_equal_enumeration(path):
    """All 21,700 actions with at most five of twenty arms; two states a network."""
    chosen = [c for k in range(6) for c in itertools.combinations(range(20), k)]
    points = np.zeros((len(chosen), 20))
    for row, columns in enumerate(chosen):
        points[row, list(columns)] = 1.0
    full = Network.from_safetensors(path)
    support = Support.from_rows(np.ones((1, 20)), [-FREE], [5.0])
    for seed in range(2):
        network = full.fold(np.arange(20, 40), np.random.default_rng(seed).integers(0, 2, 20))
        values = network(points)
        found = maximise(network, support, lambda action: action.sum() <= 5, gap=1e-6)
        assert found.value == pytest.approx(values.max(), rel=1e-6)
        assert found.bound >= values.max()
        for (low, high), x in zip(bounds(network, support), network.reduced.preactivations(points), strict=False):
            assert ((low <= x) & (x <= high)).all()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_two_thousand_random_networks_equal_enumeration(part):
    """Widths 1-40, depths 1-4, weights over six orders of magnitude, dead and duplicate neurons, zero rows."""
    rng = np.random.default_rng([2000, part])
    for kind in itertools.islice(itertools.cycle(KINDS), 100):
        n = int(rng.integers(1, 12))
        network = draw_network(rng, n, int(rng.integers(1, 5)), int(rng.integers(1, 41)), float(rng.choice([0, 1, 3])))
        rows = draw_rows(rng, n, kind)
        points, support = points_of(n, rows), Support.from_rows(*rows)
        if not len(points):
            continue
        best = network(points).max()
        size = max(1.0, abs(best))
        found = maximise(network, support, checker(rows), gap=1e-7, absolute_gap=1e-9)
        assert abs(found.value - best) <= 1e-6 * size
        assert found.bound >= best - 1e-9 * size
        sampled = points[rng.integers(0, len(points), 10_000)]
        reached = network.reduced.preactivations(sampled)
        for effort in ("interval", "linear"):
            for (low, high), x in zip(bounds(network, support, effort), reached, strict=False):
                assert ((low <= x) & (x <= high)).all()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 9), kind=st.sampled_from(KINDS), hidden=st.integers(1, 5))
def test_the_checker_decides_what_the_rows_do_not_know(seed, n, kind, hidden):
    """Forbidden pairs that the relaxation has never heard of."""
    rng = np.random.default_rng(seed)
    network, rows = draw_network(rng, n, 2, 8, 0.5), draw_rows(rng, n, kind)
    pairs = rng.integers(0, n, size=(hidden, 2))
    plain = checker(rows)

    def allowed(action: np.ndarray) -> bool:
        return plain(action) and not any(action[a] and action[b] for a, b in pairs)

    points = np.array([p for p in points_of(n, rows) if allowed(p)])
    support = Support.from_rows(*rows)
    if not len(points):
        with pytest.raises(InfeasibleError):
            maximise(network, support, allowed)
        return
    found = maximise(network, support, allowed, gap=1e-7)
    best = network(points).max()
    assert found.value == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert found.bound >= best - 1e-9 * max(1.0, abs(best))


@settings(max_examples=amount(50, 120), deadline=None)
@given(actions=action_sets(), seed=st.integers(0, 10**6))
def test_search_over_declared_constraints_equals_enumeration(actions, seed):
    """Rosters and capacities by prices of their units, everything judged by the kinds' own checks."""
    rng = np.random.default_rng(seed)
    network = draw_network(rng, len(actions), 2, 10, 0.5)
    model = actions.model()
    support = Support.from_model(model, list(model.act.values()))
    points = np.array([a for a in all_actions(len(actions)) if not actions.violations(a)])
    if not len(points):
        with pytest.raises(InfeasibleError):
            maximise(network, support, actions.allows)
        return
    found = maximise(network, support, actions.allows, gap=1e-7)
    best = network(points).max()
    assert found.value == pytest.approx(best, rel=1e-6, abs=1e-6)
    assert found.bound >= best - 1e-9 * max(1.0, abs(best))
    assert actions.violations(found.action) == {}


@settings(max_examples=60, deadline=None)
@given(actions=action_sets(), seed=st.integers(0, 10**6))
def test_a_compiled_set_is_read_as_the_model_is(actions, seed):
    """Row by row from Pyomo or from the session's arrays: the same function, fixed columns and units."""
    try:
        model, session = actions.compiled
    except InfeasibleError:
        return
    compiled = Support.from_program(session.program, session.index(model.act))
    read = Support.from_model(model, list(model.act.values()))
    cost = np.random.default_rng(seed).normal(size=(8, len(actions)))
    assert compiled(cost).values == pytest.approx(read(cost).values)
    assert (compiled.lower == read.lower).all()
    assert (compiled.upper == read.upper).all()
    assert len(compiled.assignments) == len(read.assignments)
    for one, other in zip(compiled.assignments, read.assignments, strict=True):
        assert all(np.array_equal(np.sort(a, axis=-1), np.sort(b, axis=-1)) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("nodes", [1, 40, 200])
def test_a_limit_gives_the_best_found_with_a_bound_that_holds(nodes):
    rng = np.random.default_rng(0)
    n = 12
    network, rows = draw_network(rng, n, 3, 40, 0.0), draw_rows(rng, n, "knapsack")
    found = maximise(network, Support.from_rows(*rows), checker(rows), gap=0.0, absolute_gap=0.0, nodes=nodes)
    best = network(points_of(n, rows)).max()
    assert found.value <= best + 1e-9
    assert found.bound >= best - 1e-9
    assert found.status == ("limit" if found.gap > 0 else "optimal")
    again = maximise(network, Support.from_rows(*rows), checker(rows), gap=0.0, absolute_gap=0.0, nodes=nodes)
    assert (again.action == found.action).all()
    assert (again.value, again.bound, again.nodes) == (found.value, found.bound, found.nodes)


def test_a_search_stops_at_its_node_limit_when_it_is_met_exactly():
    rng = np.random.default_rng(0)
    network, rows = draw_network(rng, 12, 3, 40, 0.0), draw_rows(rng, 12, "knapsack")
    options = {"gap": 0.0, "absolute_gap": 0.0}
    first = maximise(network, Support.from_rows(*rows), checker(rows), nodes=1, **options)
    second = maximise(network, Support.from_rows(*rows), checker(rows), nodes=first.nodes + 1, **options)
    assert first.status == second.status == "limit"
    assert first.nodes < second.nodes
    for met in (first, second):
        again = maximise(network, Support.from_rows(*rows), checker(rows), nodes=met.nodes, **options)
        assert (again.nodes, again.bound, again.status) == (met.nodes, met.bound, "limit")


def test_once_one_kind_of_branch_wins_the_other_is_tried_every_fifth_time(monkeypatch):
    """And in the first five: by then the search knows nothing of either."""
    rng = np.random.default_rng(0)
    network, rows = draw_network(rng, 12, 3, 40, 0.0), draw_rows(rng, 12, "knapsack")
    both = []
    right = module._Search.branch

    def watched(search, node):
        search.neurons_won = 1.0
        children = right(search, node)
        both.append(search.probing)
        return children

    monkeypatch.setattr(module._Search, "branch", watched)
    maximise(network, Support.from_rows(*rows), checker(rows), gap=0.0, absolute_gap=0.0, batch=8, nodes=400)
    assert [number for number, tried in enumerate(both[:16], start=1) if tried] == [1, 2, 3, 4, 5, 10, 15]


def test_a_sabotaged_bound_is_found_out(monkeypatch):
    """Half of every upper bound cut away: an action that is worth more is an error, not an answer."""
    right = module.bounds

    def wrong(network, support, effort):
        return [(low, low + 0.5 * (high - low)) for low, high in right(network, support, effort)]

    rng = np.random.default_rng(2)
    network, rows = draw_network(rng, 10, 1, 12, 0.0), draw_rows(rng, 10, "budget")
    monkeypatch.setattr(module, "bounds", wrong)
    with pytest.raises(CertificateError, match="above the proven bound"):
        maximise(network, Support.from_rows(*rows), checker(rows))


def test_interrupt_stops_with_what_is_there():
    rng = np.random.default_rng(1)
    network, rows = draw_network(rng, 12, 3, 40, 0.0), draw_rows(rng, 12, "budget")
    found = maximise(network, Support.from_rows(*rows), checker(rows), gap=0.0, interrupt=lambda: True)
    assert found.status == "interrupted"
    assert found.bound >= network(points_of(12, rows)).max() - 1e-9


def test_nothing_allowed_before_a_limit_raises():
    rng = np.random.default_rng(1)
    network, rows = draw_network(rng, 12, 2, 40, 0.0), draw_rows(rng, 12, "budget")
    with pytest.raises(SolverError, match="no allowed action was met"):
        maximise(network, Support.from_rows(*rows), lambda action: False, nodes=10)


def test_inputs_must_be_columns():
    network = Network.linear(np.ones(2))
    with pytest.raises(CapabilityError, match="not 0/1"):
        maximise(network, Support.box([0, 0], [1, 3]), lambda action: True)


def test_columns_fixed_by_the_support_stay_fixed():
    rng = np.random.default_rng(3)
    network = draw_network(rng, 6, 2, 8, 0.0)
    support = Support([0, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 1], np.ones((1, 6)), [-FREE], [3.0], whole=True)
    found = maximise(network, support, lambda action: action.sum() <= 3)
    points = points_of(6, (np.ones((1, 6)), np.array([-FREE]), np.array([3.0])))
    points = points[(points[:, 1] == 1) & (points[:, 2] == 0)]
    assert found.value == pytest.approx(network(points).max(), abs=1e-4)


def test_local_search_never_loses_and_stays_allowed():
    rng = np.random.default_rng(4)
    network, rows = draw_network(rng, 30, 2, 16, 0.0), draw_rows(rng, 30, "budget")
    allowed = checker(rows)
    action = np.zeros(30, dtype=int)
    action[0] = 1
    better, value = climb(network, action, lambda a: a @ rows[0].T[:, 0] <= rows[2][0], allowed)
    assert allowed(better)
    assert value == pytest.approx(network(better))
    assert value >= network(action)
    # No single flip improves it further.
    flips = np.abs(better[None] - np.eye(30))
    flips = np.array([f for f in flips if allowed(f)])
    assert network(flips).max() <= value + 1e-9
