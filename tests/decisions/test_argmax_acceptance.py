"""Random and trained networks over declared sets: every way to the maximum equals trying every action.

Widths 1-40, depths 1-4, weights over six orders of magnitude, dead and duplicate neurons, zero rows, leaky, clipped and
pooled activations, residual links; every bound is held against every allowed action (all of them, which any 10,000
samples are among), every row against every allowed action's forward pass.
"""

from __future__ import annotations

import importlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import action_sets, all_actions, tabular

import rmab_opt
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Chooser, NetworkObjective
from rmab_opt.encoder import Network, Support, assemble
from rmab_opt.encoder.record import LARGE_M
from rmab_opt.errors import CertificateError, InfeasibleError
from rmab_opt.problem import Arms, Problem
from rmab_opt.search.branch_and_bound import maximise
from rmab_opt.solver import Session

pytestmark = pytest.mark.filterwarnings("ignore::rmab_opt.encoder.EncodingWarning")

encoding = importlib.import_module("rmab_opt.encoder.encode")
"""The module; the package's own name ``encode`` is the function."""

TRAINED = sorted((Path(__file__).parents[2] / "benchmarks" / "data").glob("argmax_20_*.safetensors"))
EFFORTS = ("interval", "linear", "lp", "cutoff")
FORMULATIONS = ("big-m", "partition", "cuts")


def draw_network(rng: np.random.Generator, n: int) -> Network:
    """As the module's first lines say; one in five is a trained network with all but ``n`` of its inputs fixed."""
    if rng.random() < 0.2:
        network = Network.from_safetensors(TRAINED[int(rng.integers(len(TRAINED)))])
        kept = rng.choice(20, n, replace=False)
        fixed = np.setdiff1d(np.arange(network.n_inputs), kept)
        return network.fold(fixed, rng.integers(0, 2, len(fixed)))
    depth, spread = int(rng.integers(1, 5)), float(rng.choice([0.0, 1.0, 3.0]))
    widest = int(rng.choice([1, 4, 12, 40] if depth < 3 else [1, 4, 12]))
    layers, before, outputs = [], n, [n]
    for _ in range(depth):
        width = int(rng.integers(1, widest + 1))
        kinds = ["relu", "relu", ("leaky_relu", 0.1), ("clip", -0.5, 1.0), ("max", 2 if width % 2 == 0 else width)]
        kind = kinds[int(rng.integers(len(kinds)))]
        scale = 10.0 ** rng.uniform(-spread, spread, size=(width, 1))
        weight, bias = rng.normal(size=(width, before)) * scale, rng.normal(size=width) * scale[:, 0]
        if width > 3:
            weight[1], bias[1] = 2.0 * weight[0], 2.0 * bias[0]
            weight[2] = 0.0
            weight[3], bias[3] = -np.abs(weight[3]), -np.abs(bias[3])
        layers.append((weight, bias, kind))
        before = width // kind[1] if kind[0] == "max" else width
        outputs.append(before)
    layers.append((rng.normal(size=(1, before)), rng.normal(size=1), "linear"))
    links = {
        (int(rng.integers(-1, target - 1)), target): rng.normal(size=(len(layers[target][1]), 1))
        for target in range(1, depth + 1)
        if rng.random() < 0.3
    }
    links = {key: value @ rng.normal(size=(1, outputs[key[0] + 1])) for key, value in links.items()}
    return Network.from_arrays(layers, skip=rng.normal(size=n), links=links)


def support_of(actions) -> tuple:
    """The set's program, the columns in it, its support."""
    model, compiled = actions.compiled
    base, act = compiled.program, compiled.index(model.act)
    return base, act, Support.from_program(base, act)


def check(actions, seed: int, ways: int) -> None:
    """One network over one set, by the exact search and by ``ways`` of the programs."""
    rng = np.random.default_rng(seed)
    n = len(actions)
    network = draw_network(rng, n)
    points = np.array([a for a in all_actions(n) if not actions.violations(a)]).reshape(-1, n)
    if not len(points):
        # Some empty sets are already refused when they are compiled.
        with pytest.raises(InfeasibleError):
            maximise(network, support_of(actions)[2], actions.allows)
        return
    base, act, support = support_of(actions)
    values = network(points)
    best = float(values.max())
    close = 1e-6 * max(1.0, abs(best))
    found = maximise(network, support, actions.allows, gap=1e-8, absolute_gap=1e-9)
    assert abs(found.value - best) <= close
    assert found.bound >= best - close
    known = float(values[int(rng.integers(len(values)))])
    reached = [*network.reduced.preactivations(points), values[:, None]]
    combinations = list(itertools.product(EFFORTS, FORMULATIONS))
    chosen = rng.permutation(len(combinations))[:ways] if ways < len(combinations) else range(len(combinations))
    for effort, formulation in (combinations[i] for i in chosen):
        at_least = known if effort == "cutoff" else None
        record = assemble(network, support, effort=effort, formulation=formulation, at_least=at_least)
        kept = values >= (known if effort == "cutoff" else -np.inf)
        for (low, high), x in zip(record.bounds.layers, reached, strict=True):
            assert (x[kept] >= low).all()
            assert (x[kept] <= high).all()
        assert record.faults(points) == []
        if record.largest_m > LARGE_M:
            # No solver's tolerances are fit for it: a warning said so, and `auto` leaves it to the search.
            continue
        session = Session.from_arrays(record.arrays.join(base, act), "exact")
        result = session.solve()
        assert result.status == "optimal", (effort, formulation)
        action = np.rint(result.x[act]).astype(int)
        assert actions.violations(action) == {}
        value = float(network(action))
        assert abs(value - best) <= close, (effort, formulation, value, best, record.largest_m)
        assert result.bound >= best - 1e-6 * max(1.0, abs(best), record.largest_m)


@settings(max_examples=amount(20, 100), deadline=None)
@given(actions=action_sets(), seed=st.integers(0, 10**6))
def test_every_way_equals_enumeration(actions, seed):
    check(actions, seed, ways=1)


@pytest.mark.slow
@settings(max_examples=1900, deadline=None)
@given(actions=action_sets(most=7), seed=st.integers(0, 10**6))
def test_nineteen_hundred_networks_by_two_programs_each(actions, seed):
    check(actions, seed, ways=2)


@pytest.mark.slow
@settings(max_examples=amount(40, 100), deadline=None)
@given(actions=action_sets(most=7), seed=st.integers(0, 10**6))
def test_a_hundred_networks_by_every_program(actions, seed):
    check(actions, seed, ways=len(EFFORTS) * len(FORMULATIONS))


@settings(max_examples=amount(5, 30), deadline=None)
@given(actions=action_sets(most=6), seed=st.integers(0, 10**6), method=st.sampled_from(["auto", "program", "search"]))
def test_decisions_over_several_states_equal_enumeration(actions, seed, method):
    """One chooser, four states: what one state leaves behind never reaches the next one's certificate."""
    rng = np.random.default_rng(seed)
    n, arms = len(actions), actions.columns.arms
    full = draw_network(rng, n)
    bias = [full.layers()[0][1] + 0.5 * rng.normal(size=len(full.layers()[0][1])) for _ in range(3)]

    def at(situation):
        layers = full.layers()
        first = (layers[0][0], bias[int(situation.state[0])], layers[0][2])
        return Network.from_arrays([first, *layers[1:]], skip=full.skip, links=full.links())

    problem = Problem(arms, tabular(len(arms), 3, 2, rng), start=np.zeros(len(arms), dtype=int))
    points = np.array([a for a in all_actions(n) if not actions.violations(a)]).reshape(-1, n)
    goal = NetworkObjective(at, effort=EFFORTS[seed % 4], formulation=["auto", "partition", "cuts"][seed % 3])
    chooser = Chooser(problem, actions, goal, "exact", method=method)
    for first in (0, 1, 2, 0):
        state = np.zeros(len(arms), dtype=int)
        state[0] = first
        if not len(points):
            with pytest.raises(InfeasibleError):
                chooser.decide(state)
            continue
        decision = chooser.decide(state)
        best = float(goal.network(chooser.question(state).situation)(points).max())
        assert decision.value == pytest.approx(best, rel=1e-6, abs=1e-6)
        assert decision.bound >= best - 1e-6 * max(1.0, abs(best))
        assert decision.status in ("optimal", "solver_optimal")
        assert decision.violations == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["budget", "scheduling", "capacity", "path"])
def test_bounds_hold_what_ten_thousand_sampled_actions_reach(name):
    """Sets too large to list: twenty arms under the published constraints, thirty networks."""
    rng = np.random.default_rng(7)
    actions = rmab_opt.load(name).actions
    points = actions.sample(rng, 10_000)
    # Grown actions are as large as they get; these sets stay allowed when columns are left out.
    points[::2] *= rng.random((5_000, len(actions))) < rng.random((5_000, 1))
    assert all(actions.allows(point) for point in points[::500])
    support = support_of(actions)[2]
    for _ in range(30):
        network = draw_network(rng, len(actions))
        values = network(points)
        known = float(np.quantile(values, 0.9))
        reached = [*network.reduced.preactivations(points), values[:, None]]
        for effort in EFFORTS:
            at_least = known if effort == "cutoff" else None
            record = assemble(network, support, effort=effort, at_least=at_least)
            kept = values >= known if effort == "cutoff" else np.ones(len(points), dtype=bool)
            for (low, high), x in zip(record.bounds.layers, reached, strict=True):
                assert (x[kept] >= low).all(), effort
                assert (x[kept] <= high).all(), effort


# ---------------------------------------------------------------------------------------------- sabotage
def halved_bounds(monkeypatch, rng):
    """Upper bounds halfway to the lower ones."""
    right = encoding.rising

    def wrong(*given, **options):
        found = right(*given, **options)
        layers = [(low, low + 0.5 * (high - low)) for low, high in found.layers[:-1]]
        return replace(found, layers=[*layers, found.layers[-1]])

    monkeypatch.setattr(encoding, "rising", wrong)


def wrong_weight(monkeypatch, rng):
    """One weight of the first layer moved in the rows."""
    right = encoding.assemble_rows

    def wrong(reduced, *given, **options):
        first = reduced.hidden[0]
        weight = np.array(first.weight)
        weight[int(rng.integers(weight.shape[0])), int(rng.integers(weight.shape[1]))] += 1.0
        hidden = (replace(first, weight=weight), *reduced.hidden[1:])
        return right(replace(reduced, hidden=hidden), *given, **options)

    monkeypatch.setattr(encoding, "assemble_rows", wrong)


def wrong_row(monkeypatch, rng):
    """Every equality row asks for a little more."""
    right = encoding.assemble_rows

    def wrong(*given, **options):
        rows = right(*given, **options)
        equal = rows.row_lower == rows.row_upper
        return replace(rows, row_lower=rows.row_lower + 0.3 * equal, row_upper=rows.row_upper + 0.3 * equal)

    monkeypatch.setattr(encoding, "assemble_rows", wrong)


def wrong_output(monkeypatch, rng):
    """The output's expression forgets a term and a constant."""
    right = encoding.assemble_rows

    def wrong(*given, **options):
        rows = right(*given, **options)
        return replace(rows, cost=np.where(np.arange(len(rows.cost)) == rows.n_inputs, 0.0, rows.cost) - 0.2)

    monkeypatch.setattr(encoding, "assemble_rows", wrong)


def closed_action(monkeypatch, rng):
    """A row that no allowed action with the first two columns fulfils."""
    right = encoding.assemble_rows

    def wrong(*given, **options):
        rows = right(*given, **options)
        row = np.zeros((1, rows.matrix.shape[1]))
        row[0, :2] = 1.0
        matrix = sparse.csr_array(sparse.vstack([rows.matrix, sparse.csr_array(row)]))
        return replace(
            rows, matrix=matrix, row_lower=np.append(rows.row_lower, -np.inf), row_upper=np.append(rows.row_upper, 0.0)
        )

    monkeypatch.setattr(encoding, "assemble_rows", wrong)


SABOTAGE = [halved_bounds, wrong_weight, wrong_row, wrong_output, closed_action]


def sabotaged(seed: int, formulation: str) -> tuple[Chooser, float]:
    """A budget, a trained-like network over it and the best value."""
    rng = np.random.default_rng(seed)
    n = 8
    arms = Arms.from_arrays(n)
    actions = ActionSet(arms, {"weekly": Budget(at_most=4)})
    layers = [(rng.normal(size=(10, n)), rng.normal(size=10), "relu"), (rng.normal(size=(1, 10)), [0.0], "linear")]
    network = Network.from_arrays(layers)
    problem = Problem(arms, tabular(n, 3, 2, rng), start=np.zeros(n, dtype=int))
    points = np.array([a for a in all_actions(n) if a.sum() <= 4])
    goal = NetworkObjective(lambda _: network, formulation=formulation)
    return Chooser(problem, actions, goal, "fast", method="program"), float(network(points).max())


@pytest.mark.parametrize("formulation", amount(["cuts"], FORMULATIONS))
@pytest.mark.parametrize("sabotage", SABOTAGE, ids=lambda f: f.__name__)
def test_a_sabotaged_encoder_is_found_out(monkeypatch, sabotage, formulation):
    """Several networks: never another answer than the best, and an error that says what is wrong."""
    caught, networks = 0, amount(3, 10)
    for seed in range(networks):
        chooser, best = sabotaged(seed, formulation)
        assert chooser.decide().value == pytest.approx(best, abs=1e-3)
        with monkeypatch.context() as patch:
            sabotage(patch, np.random.default_rng(seed))
            chooser, best = sabotaged(seed, formulation)
            try:
                assert chooser.decide().value == pytest.approx(best, abs=1e-3)
            except CertificateError as error:
                caught += any(said in str(error) for said in ("is not the network", "did not survive its re-check"))
    assert caught == networks
