"""An encoded network is used as it was encoded, within its bounds, and at its own value; else a sentence says so."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest

from rmab_opt.encoder import EncodingWarning, Network, encode
from rmab_opt.errors import CertificateError, ModelError
from rmab_opt.solver import Session, check_encoded
from rmab_opt.solver.encoded import ATTRIBUTE

RNG = np.random.default_rng(4)
NETWORK = Network.from_arrays(
    [(RNG.normal(size=(6, 2)), RNG.normal(size=6), "relu"), (RNG.normal(size=(1, 6)), [0.0], "linear")]
)
GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 101), np.linspace(-1, 1, 101)), axis=-1)
MOST, LEAST = float(NETWORK(GRID).max()), float(NETWORK(GRID).min())


def model_with(sense: str | None = None):
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0, 1], bounds=(-1, 1))
    model.taste = pyo.Block()
    output, record = encode(NETWORK, model.taste, model.x, **({} if sense is None else {"sense": sense}))
    return model, output, record


def objective(model, expression, sense):
    model.goal = pyo.Objective(expr=expression, sense=sense)
    return model


@pytest.mark.parametrize(("direction", "right"), [(pyo.maximize, MOST), (pyo.minimize, LEAST)])
def test_the_default_is_right_in_both_directions(direction, right):
    model, output, _ = model_with()
    session = Session(objective(model, output, direction), "exact")
    result = session.solve()
    assert result.objective == pytest.approx(right, abs=2e-2)
    assert result.objective == pytest.approx(float(NETWORK(result.x[session.index(model.x)])), abs=1e-6)


def use(model, output, how):
    """A model that uses the output; whether ``maximise`` rows are right for it."""
    if how == "maximised":
        return objective(model, 3 * output, pyo.maximize), True
    if how == "its negative minimised":
        return objective(model, -output, pyo.minimize), True
    if how == "at least":
        model.row = pyo.Constraint(expr=2 * output >= LEAST)
        return objective(model, model.x[0], pyo.minimize), True
    if how == "not above, negative":
        model.row = pyo.Constraint(expr=-output <= -LEAST)
        return objective(model, model.x[0], pyo.minimize), True
    if how == "minimised":
        return objective(model, output, pyo.minimize), False
    if how == "its negative maximised":
        return objective(model, -output, pyo.maximize), False
    if how == "at most":
        model.row = pyo.Constraint(expr=output <= 0.5)
        return objective(model, model.x[0], pyo.maximize), False
    if how == "equality":
        model.v = pyo.Var()
        model.row = pyo.Constraint(expr=model.v == output)
        return objective(model, model.v, pyo.maximize), False
    if how == "range":
        model.row = pyo.Constraint(expr=(LEAST, output, MOST))
        return objective(model, model.x[0], pyo.maximize), False
    model.weight = pyo.Param(initialize=-1.0, mutable=True)
    return objective(model, model.weight * output, pyo.maximize), False


USES = (
    "maximised", "its negative minimised", "at least", "not above, negative", "minimised", "its negative maximised",
    "at most", "equality", "range", "by a Param",
)  # fmt: skip


@pytest.mark.parametrize("how", USES)
def test_one_sided_rows_are_held_to_their_direction(how):
    model, output, record = model_with("maximise")
    assert record.layers[0].count("one-sided") > 0
    model, fits = use(model, output, how)
    if fits:
        session = Session(model, "exact")
        point = session.solve().x[session.index(model.x)]
        assert model.taste is not None
        assert float(NETWORK(point)) >= LEAST - 1e-6
        return
    with pytest.raises(ModelError, match=r"block 'taste'.*(objective|constraint 'row')") as found:
        Session(model, "exact")
    assert 'sense="equal"' in found.value.fix


@pytest.mark.parametrize("how", USES)
def test_equal_rows_are_right_for_every_use(how):
    model, output, _ = model_with("equal")
    model, _ = use(model, output, how)
    session = Session(model, "exact")
    result = session.solve()
    claim = pyo.value(output, exception=False)
    assert claim is None or np.isfinite(claim)
    for watch in session._watches:
        assert watch.fault(session._arrays, result.x) is None


def test_a_direction_that_turns_later_is_seen_at_the_next_solve():
    model, output, _ = model_with("maximise")
    model.weight = pyo.Param(initialize=1.0, mutable=True)
    session = Session(objective(model, model.weight * output, pyo.maximize), "exact")
    assert session.solve().objective == pytest.approx(MOST, abs=2e-2)
    session.parameters["weight"] = -1.0
    with pytest.raises(ModelError, match="block 'taste'"):
        session.solve()


@pytest.mark.parametrize("sense", ["maximise", "equal"])
@pytest.mark.parametrize("end", ["lower", "upper"])
@pytest.mark.parametrize("when", ["after compiling", "by fixing"])
def test_bounds_that_were_widened_are_refused(sense, end, when):
    model, output, _ = model_with(sense)
    objective(model, output, pyo.maximize)
    if when == "after compiling":
        session = Session(model, "exact")
        session.solve()
        session.set_bounds(session.index(model.x[1]), **{end: {"lower": -5.0, "upper": 5.0}[end]})
        with pytest.raises(ModelError, match=r"'x\[1\]' may be .* block 'taste' was encoded for -1 to 1"):
            session.solve()
        return
    model.x[1].fix({"lower": -3.0, "upper": 3.0}[end], skip_validation=True)
    with (
        pytest.warns(EncodingWarning, match="block 'taste'"),
        pytest.raises(ModelError, match=r"'x\[1\]' may be .* block 'taste' was encoded for -1 to 1"),
    ):
        Session(model, "exact")


def widened(model, how):
    """The inputs' set made larger, and points of it."""
    points = np.stack(np.meshgrid(np.linspace(-3, 3, 241), np.linspace(-1, 1, 81)), axis=-1).reshape(-1, 2)
    if how == "a lower bound":
        model.x[0].setlb(-3.0)
        return points[points[:, 0] <= 1]
    if how == "an upper bound":
        model.x[0].setub(3.0)
        return points[points[:, 0] >= -1]
    if how == "a row inactive":
        model.narrow.deactivate()
    elif how == "a row gone":
        model.del_component(model.narrow)
    elif how == "a row looser":
        model.narrow.set_value((-0.6, model.x[0] - model.x[1], 0.6))
        points = points[np.abs(points[:, 0] - points[:, 1]) <= 0.6]
    else:
        model.narrow.set_value((-0.2, 0.1 * model.x[0] - model.x[1], 0.2))
        points = points[np.abs(0.1 * points[:, 0] - points[:, 1]) <= 0.2]
    return points[np.abs(points[:, 0]) <= 1]


@pytest.mark.parametrize(
    "how", ["a lower bound", "an upper bound", "a row inactive", "a row gone", "a row looser", "another row"]
)
@pytest.mark.parametrize("sense", ["maximise", "equal"])
def test_rows_are_written_again_where_the_inputs_set_was_widened(how, sense):
    """Never the old set's answer: the optimum is the wide set's, with a warning, also for who kept the expression."""
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0, 1], bounds=(-1, 1))
    model.narrow = pyo.Constraint(expr=(-0.2, model.x[0] - model.x[1], 0.2))
    if how.endswith("bound"):
        model.narrow.deactivate()
    model.taste = pyo.Block()
    output, record = encode(NETWORK, model.taste, model.x, sense=sense)
    objective(model, 2 * output - 0.5 * model.x[0], pyo.maximize)
    Session(model, "exact").solve()
    points = widened(model, how)
    with pytest.warns(EncodingWarning, match="block 'taste' may take values"):
        session = Session(model, "exact")
    result = session.solve()
    point = result.x[session.index(model.x)]
    assert result.objective == pytest.approx(2 * float(NETWORK(point)) - 0.5 * point[0], abs=1e-6)
    best = float((2 * NETWORK(points) - 0.5 * points[:, 0]).max())
    assert best - 1e-9 <= result.objective <= best + 0.2
    assert record.faults(points[::97]) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Session(model, "exact").solve().objective == pytest.approx(result.objective, abs=1e-6)


def test_a_row_that_is_opened_later_is_seen_at_the_next_solve():
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0, 1], bounds=(-1, 1))
    model.narrow = pyo.Constraint(expr=model.x[0] + model.x[1] <= -1)
    model.taste = pyo.Block()
    output, _ = encode(NETWORK, model.taste, model.x)
    session = Session(objective(model, output, pyo.maximize), "exact")
    session.set_rows(session.rows(model.narrow), upper=-1.5)
    session.solve()
    session.set_rows(session.rows(model.narrow), upper=0.0)
    with pytest.raises(ModelError, match="'narrow' is looser now; the bounds of block 'taste'"):
        session.solve()


def test_whole_inputs_that_become_shares_are_encoded_again():
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0, 1], domain=pyo.Binary)
    model.one = pyo.Constraint(expr=model.x[0] + model.x[1] <= 1.5)
    model.taste = pyo.Block()
    output, _ = encode(NETWORK, model.taste, model.x)
    objective(model, output, pyo.maximize)
    for variable in model.x.values():
        variable.domain = pyo.Reals
        variable.setlb(0)
        variable.setub(1)
    with pytest.warns(EncodingWarning):
        session = Session(model, "exact")
    result = session.solve()
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 101), np.linspace(0, 1, 101)), axis=-1).reshape(-1, 2)
    assert result.objective >= float(NETWORK(grid[grid.sum(axis=1) <= 1.5]).max()) - 1e-9


def test_narrowed_and_fixed_inputs_are_fine():
    model, output, _ = model_with("maximise")
    model.x[0].setlb(0.0)
    model.x[1].fix(0.25)
    session = Session(objective(model, output, pyo.maximize), "exact")
    result = session.solve()
    assert result.objective == pytest.approx(float(NETWORK(result.x[session.index(model.x)])), abs=1e-6)
    with_value = max(float(NETWORK(np.array([x, 0.25]))) for x in np.linspace(0, 1, 1001))
    assert result.objective == pytest.approx(with_value, abs=1e-3)


def test_a_point_where_the_network_says_otherwise_is_an_error():
    """The forward pass has the last word, after one tighter solve."""
    model, output, _ = model_with("equal")
    promised = getattr(model.taste, ATTRIBUTE)
    setattr(model.taste, ATTRIBUTE, replace(promised, value=lambda x, signs: float(NETWORK(x)) + 1e-3))
    session = Session(objective(model, output, pyo.maximize), "default")
    with pytest.raises(CertificateError, match=r"block 'taste' claims .* where its network says"):
        session.solve()


def test_a_wrong_point_is_solved_again_more_tightly(monkeypatch):
    model, output, _ = model_with("equal")
    session = Session(objective(model, output, pyo.maximize), "default")
    honest, calls = session._solver.solve, []

    def lying(*given):
        result, stopped = honest(*given)
        x = result.x.copy()
        x[session._watches[0].columns] += 0.01
        calls.append(1)
        return replace(result, x=x), stopped

    monkeypatch.setattr(session._solver, "solve", lying)
    result = session.solve()
    assert calls == [1]
    assert result.objective == pytest.approx(float(NETWORK(result.x[session.index(model.x)])), abs=1e-6)


def test_a_relaxation_claims_what_it_likes():
    model, output, record = model_with("equal")
    session = Session(objective(model, output, pyo.maximize), "exact")
    signs = [session.index(variable) for variable in record.variables if variable.is_binary()]
    session.set_integer(np.array(signs), False)
    assert session.solve().objective >= MOST - 1e-6


def test_the_framework_s_own_forward_pass_has_the_last_word():
    """Its value at the point found is computed again; a framework that says otherwise stops the session."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.ReLU(), torch.nn.Linear(6, 1))
    read = Network.from_torch(module)
    point = np.array([[0.3, -0.2], [1.0, 1.0]])
    with torch.no_grad():
        assert np.allclose(read.judge.forward(point), module(torch.as_tensor(point).float()).numpy()[:, 0], atol=1e-6)
    assert read.fold([1], [0.5]).judge.forward(point[:, :1]) == pytest.approx(read([[0.3, 0.5], [1.0, 0.5]]))
    read.judge = read.judge._replace(forward=lambda points: read(points) + 1e-3)
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0, 1], bounds=(-1, 1))
    model.taste = pyo.Block()
    output, _ = encode(read, model.taste, model.x)
    with pytest.raises(CertificateError, match=r"the framework gives .* block 'taste'"):
        Session(objective(model, output, pyo.maximize), "exact").solve()
    assert pickle.loads(pickle.dumps(read)).judge is None


@pytest.mark.parametrize("direction", [pyo.maximize, pyo.minimize])
def test_trees_are_held_to_their_own_prediction(direction):
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = np.random.default_rng(0).normal(size=(120, 3))
    forest = ensemble.RandomForestRegressor(6, max_depth=4, random_state=0).fit(x, x[:, 0] * x[:, 1] - x[:, 2])
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(3), bounds=(-0.5, 0.5))
    model.b = pyo.Block()
    output, record = encode(forest, model.b, model.x)
    objective(model, output, direction)
    first = Session(model, "exact").solve().objective
    model.x[0].setub(2.0)
    model.x[0].setlb(-2.0)
    with pytest.warns(EncodingWarning, match="block 'b' may take values"):
        session = Session(model, "exact")
    result = session.solve()
    sign = 1 if direction == pyo.maximize else -1
    draws = np.random.default_rng(1).uniform([-2, -0.5, -0.5], [2, 0.5, 0.5], size=(20000, 3))
    assert sign * result.objective >= max(sign * first, (sign * forest.predict(draws)).max()) - 1e-9
    session.set_bounds(session.index(model.x[1]), lower=-3.0)
    with pytest.raises(ModelError, match="block 'b' was encoded for"):
        session.solve()
    promised = getattr(model.b, ATTRIBUTE)
    lying = replace(
        record.ensemble, judge=record.ensemble.judge._replace(forward=lambda points: forest.predict(points) + 0.01)
    )
    other = pyo.ConcreteModel()
    other.x = pyo.Var(range(3), bounds=(-0.5, 0.5))
    other.b = pyo.Block()
    assert promised.sense == "equal"
    with pytest.raises(CertificateError, match="the framework gives"):
        Session(objective(other, encode(lying, other.b, other.x)[0], direction), "exact").solve()


def elsewhere(sense="equal"):
    """A model that Pyomo's own way to HiGHS has solved."""
    model, output, _ = model_with(sense)
    objective(model, output, pyo.maximize)
    check_encoded(model)
    pyo.SolverFactory("appsi_highs").solve(model)
    return model


@pytest.mark.parametrize("sense", ["maximise", "equal"])
def test_another_solver_s_values_are_held_against_the_network(sense):
    model = elsewhere(sense)
    check_encoded(model, solved=True)
    if sense == "maximise":
        return  # Its rows allow claims below the network's value.
    grown = next(variable for variable in model.taste.component_data_objects(pyo.Var) if variable.value > 0.1)
    grown.set_value(grown.value + 0.05, skip_validation=True)
    with pytest.raises(CertificateError, match=r"block 'taste' claims .* where its network says"):
        check_encoded(model, solved=True)
    grown.set_value(None)
    with pytest.raises(ModelError, match="has no value, which block 'taste' needs"):
        check_encoded(model, solved=True)


@pytest.mark.parametrize("how", USES)
def test_the_check_for_other_solvers_refuses_what_a_session_refuses(how):
    model, output, _ = model_with("maximise")
    model, fits = use(model, output, how)
    if fits:
        check_encoded(model)
        return
    with pytest.raises(ModelError, match=r"block 'taste'.*(objective|constraint 'row')"):
        check_encoded(model)


def test_an_output_used_twice_with_different_signs_is_refused():
    """Its own variables stand in the objective with one sign and in a row with the other."""
    model, output, _ = model_with("maximise")
    model.gap = pyo.Var(bounds=(0, 10))
    model.row = pyo.Constraint(expr=model.gap >= output - 0.3)
    objective(model, output - 0.1 * model.gap, pyo.maximize)
    for refuses in (check_encoded, Session):
        with pytest.raises(ModelError, match=r"block 'taste'.*constraint 'row' pushes it the other way"):
            refuses(model)


def test_the_check_for_other_solvers_sees_widened_inputs():
    model = elsewhere()
    model.x[1].setub(2.0)
    for solved in (False, True):
        with pytest.raises(ModelError, match=r"'x\[1\]' may be .* block 'taste' was encoded for -1 to 1"):
            check_encoded(model, solved=solved)
