"""An encoded network is used as it was encoded, within its bounds, and at its own value; else a sentence says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest

from rmab_opt.encoder import Network, encode
from rmab_opt.errors import CertificateError, ModelError
from rmab_opt.solver import Session
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
@pytest.mark.parametrize("when", ["before compiling", "after compiling", "by fixing"])
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
    if when == "by fixing":
        model.x[1].fix({"lower": -3.0, "upper": 3.0}[end], skip_validation=True)
    else:
        model.x[1].setlb(-5.0) if end == "lower" else model.x[1].setub(5.0)
    with pytest.raises(ModelError, match=r"'x\[1\]' may be .* block 'taste' was encoded for -1 to 1"):
        Session(model, "exact")


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
    setattr(model.taste, ATTRIBUTE, replace(promised, value=lambda x: float(NETWORK(x)) + 1e-3))
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
