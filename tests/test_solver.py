"""The solver layer against scipy and plain formulas: re-solves, traps, statuses, starts, interrupts."""

from __future__ import annotations

import pickle
import shutil
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyomo import gdp, mpec
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError, SolverError
from rmab_opt.solver import Parameters, Profile, Program, Result, Session, load_profile
from rmab_opt.solver.program import Arrays
from rmab_opt.solver.result import Limits, conclude

PLAIN = Profile("plain", interruptible=False, relative_gap=1e-9, absolute_gap=1e-9)
VALUE = 1e-6


def oracle(program):
    """Optimum by scipy, or its word for why there is none."""
    sign = -1.0 if program.maximise else 1.0
    if not program.integer.any():
        matrix, low, high = program.matrix.toarray(), program.row_lower, program.row_upper
        rows = np.vstack([matrix[high < np.inf], -matrix[low > -np.inf]])
        limits = np.concatenate([high[high < np.inf], -low[low > -np.inf]])
        found = linprog(sign * program.cost, rows, limits, bounds=np.c_[program.lower, program.upper])
    else:
        found = milp(
            sign * program.cost,
            integrality=program.integer.astype(int),
            bounds=Bounds(program.lower, program.upper),
            constraints=LinearConstraint(program.matrix, program.row_lower, program.row_upper),
            options={"mip_rel_gap": 1e-9},
        )
    if found.status == 0:
        return "optimal", sign * found.fun + program.offset
    return {2: "infeasible", 3: "unbounded"}.get(found.status, "unclear"), None


@st.composite
def programs(draw, integers=None):
    """Small programs with whole-number data: bounded or not, with ranges, equalities and empty rows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(1, 7)), draw(st.integers(0, 5))
    matrix = rng.integers(-4, 9, (m, n)) * (rng.random((m, n)) < 0.7)
    upper = rng.integers(0, 20, m).astype(float)
    lower = np.where(rng.random(m) < 0.5, -np.inf, upper - rng.integers(0, 9, m))
    integer = rng.random(n) < 0.6 if integers is None else np.full(n, integers)
    return Program(
        rng.integers(-9, 10, n),
        matrix,
        lower,
        np.where(rng.random(m) < 0.2, np.inf, upper),
        -rng.integers(0, 3, n),
        np.where(rng.random(n) < 0.1, np.inf, rng.integers(0, 4, n)),
        integer,
        draw(st.booleans()),
        float(rng.integers(-3, 4)),
    )


def hard_program(n=200, m=30, seed=1):
    """A knapsack with many rows that no laptop closes in minutes; solutions are found at once."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(1, 100, (m, n)).astype(float)
    return Program(
        rng.integers(1, 100, n),
        matrix,
        np.full(m, -np.inf),
        matrix.sum(axis=1) / 3,
        np.zeros(n),
        np.ones(n),
        np.ones(n, dtype=bool),
        True,
    )


# ------------------------------------------------------------------------------------------------- against scipy
@given(programs(integers=False))
@settings(max_examples=60, deadline=None)
def test_linear_programs_agree_with_linprog(program):
    status, value = oracle(program)
    result = Session.from_arrays(program, PLAIN).solve()
    if status == "optimal":
        assert result.status == "optimal"
        assert result.objective == pytest.approx(value, abs=VALUE)
        assert result.bound == pytest.approx(value, abs=VALUE)
        assert result.violation < 1e-6
    else:
        assert result.status in ("infeasible", "unbounded", "infeasible_or_unbounded")
        assert not result.has_solution
        assert result.x is None


@given(programs())
@settings(max_examples=60, deadline=None)
def test_mixed_integer_programs_agree_with_milp(program):
    status, value = oracle(program)
    result = Session.from_arrays(program, PLAIN).solve()
    if status == "optimal":
        assert result.status == "optimal"
        assert result.objective == pytest.approx(value, abs=VALUE)
        assert result.gap <= 1e-6 * max(1, abs(value))
    else:
        assert result.status in ("infeasible", "unbounded", "infeasible_or_unbounded")


@given(programs(), st.lists(st.sampled_from(["cost", "rows", "bounds", "coefficients", "integer", "add", "start"])))
@settings(max_examples=60, deadline=None)
def test_a_changed_session_solves_the_changed_program(program, changes):
    """After any changes the session agrees with scipy on the arrays it reports, and with a session begun there."""
    rng = np.random.default_rng(len(changes))
    session = Session.from_arrays(program, PLAIN)
    session.solve()
    added = np.zeros(0, dtype=int)
    for change in changes:
        n, m = session.program.cost.size, session.program.row_lower.size
        if change == "cost":
            session.set_cost(rng.integers(0, n, 2), rng.integers(-9, 10, 2))
        elif change == "rows" and m:
            session.set_rows(rng.integers(0, m), upper=rng.integers(0, 20))
        elif change == "bounds":
            session.set_bounds(rng.integers(0, n), 0, rng.integers(0, 4))
        elif change == "coefficients" and program.matrix.nnz:
            row, column = (index[0] for index in session.program.matrix.nonzero())
            session.set_coefficients(row, column, rng.integers(1, 9))
        elif change == "integer":
            session.set_integer(np.arange(n), rng.random(n) < 0.5)
        elif change == "add":
            session.delete_rows(added)
            added = session.add_rows(rng.integers(0, 5, (2, n)), -np.inf, rng.integers(3, 9, 2))
            assert added.tolist() == [session.program.row_lower.size - 2, session.program.row_lower.size - 1]
        elif change == "start":
            session.start(np.arange(n), 0)
    result = session.solve()
    status, value = oracle(session.program)
    if status == "optimal":
        assert result.status == "optimal"
        assert result.objective == pytest.approx(value, abs=VALUE)
        assert Session.from_arrays(session.program, PLAIN).solve().objective == pytest.approx(value, abs=VALUE)
    else:
        assert not result.has_solution


# ------------------------------------------------------------------------------------------------- Pyomo and Params
N = 5


def parametric_model():
    """Params in costs, right-hand sides, coefficients, bounds and the constant, some of them not affine."""
    model = pyo.ConcreteModel()
    model.price = pyo.Param(range(N), initialize=0.0, mutable=True)
    model.weight = pyo.Param(range(N), initialize=0.0, mutable=True)
    model.budget = pyo.Param(initialize=0.0, mutable=True)
    model.act = pyo.Var(range(N), within=pyo.Binary)
    model.extra = pyo.Var(bounds=(0, 1 + 2 * model.budget))
    model.total = pyo.Expression(expr=sum((model.weight[i] / 2 + 1) * model.act[i] for i in range(N)))
    model.spend = pyo.Constraint(expr=model.total + model.extra <= 3 * model.budget - model.weight[0])
    model.mixed = pyo.Constraint(expr=(-model.budget, model.budget**2 * model.act[1] - model.extra, 50))
    model.plain = pyo.Constraint(expr=(0, model.act[0] + model.act[1], 1))
    model.gain = pyo.Objective(
        expr=sum(-model.price[i] * (2 - 3) * model.act[i] for i in range(N)) + 0.5 * model.extra + 2 * model.budget,
        sense=pyo.maximize,
    )
    return model


def parametric_oracle(price, weight, budget):
    """The same program written down again as arrays."""
    rows = np.zeros((3, N + 1))
    rows[0] = [*(weight / 2 + 1), 1]
    rows[1, 1], rows[1, N] = budget**2, -1
    rows[2, :2] = 1
    return Program(
        [*price, 0.5],
        rows,
        [-np.inf, -budget, 0],
        [3 * budget - weight[0], 50, 1],
        np.zeros(N + 1),
        [*np.ones(N), 1 + 2 * budget],
        [True] * N + [False],
        True,
        2 * budget,
    )


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_parameters_resolve_like_a_fresh_program(seeds):
    """Compiled with every Param at zero, the session follows all of them; the model itself is left alone."""
    model = parametric_model()
    session = Session(model, PLAIN)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        price, weight, budget = rng.integers(-5, 9, N) * 1.0, rng.integers(0, 4, N) * 1.0, float(rng.integers(0, 5))
        session.parameters["price"][:] = price
        session.parameters["weight"] = weight
        session.parameters["budget"] = budget
        status, value = oracle(parametric_oracle(price, weight, budget))
        result = session.solve()
        assert result.status == status
        if status == "optimal":
            assert result.objective == pytest.approx(value, abs=VALUE)
    assert model.budget.value == 0
    assert all(c.active for c in model.component_data_objects(pyo.Constraint))


def test_zero_valued_parameters_keep_their_rows_and_columns():
    model = pyo.ConcreteModel()
    model.p = pyo.Param([0, 1], initialize=0, mutable=True)
    model.x = pyo.Var([0, 1], bounds=(0, 4))
    model.unused = pyo.Var(bounds=(0, 1))
    model.row = pyo.Constraint(expr=model.p[0] * model.x[0] <= 6)
    model.gain = pyo.Objective(expr=model.p[1] * model.x[0], sense=pyo.maximize)
    session = Session(model, PLAIN)
    assert session.solve().objective == 0
    session.parameters["p"] = [2.0, 5.0]
    assert session.solve().objective == pytest.approx(15)
    assert session.rows(model.row).tolist() == [0]
    assert len(session.variables) == 3


def test_many_changed_coefficients_pass_the_program_again_and_keep_the_basis():
    rng = np.random.default_rng(0)
    matrix = rng.uniform(1, 2, (60, 40))
    program = Program(
        np.ones(40), matrix, np.full(60, -np.inf), np.ones(60), np.zeros(40), np.ones(40), np.zeros(40), True
    )
    session = Session.from_arrays(program, PLAIN)
    first = session.solve()
    rows, columns = (index.ravel() for index in np.indices(matrix.shape))
    changed = matrix * rng.uniform(0.999, 1.001, matrix.shape)
    session.set_coefficients(rows, columns, changed.ravel())
    again = session.solve()
    assert again.objective == pytest.approx(oracle(session.program)[1], abs=VALUE)
    assert again.iterations < first.iterations
    for value in (9.0, changed[0, 0]):
        session.set_coefficients(0, 0, value)
        assert session.solve().objective == pytest.approx(oracle(session.program)[1], abs=VALUE)


def test_fixed_variables_are_columns_that_can_be_released():
    model = pyo.ConcreteModel()
    model.x = pyo.Var([0, 1], bounds=(0, 5))
    model.x[0].fix(2)
    model.row = pyo.Constraint(expr=model.x[0] + model.x[1] <= 6)
    model.gain = pyo.Objective(expr=3 * model.x[0] + model.x[1], sense=pyo.maximize)
    session = Session(model, PLAIN)
    assert model.x[0].fixed
    assert session.solve().objective == pytest.approx(10)
    session.set_bounds(session.index(model.x[0]), 0, 5)
    assert session.solve().objective == pytest.approx(16)


def test_rows_and_columns_find_their_way_back():
    model = pyo.ConcreteModel()
    model.x = pyo.Var(["a", "b"], bounds=(0, 5))
    model.sub = pyo.Block([0, 1])
    for i in (0, 1):
        model.sub[i].limit = pyo.Constraint(expr=(-1, model.x["a"] - i * model.x["b"], 3))
        model.sub[i].inner = pyo.Block()
        model.sub[i].inner.rows = pyo.ConstraintList()
        model.sub[i].inner.rows.add(model.x["b"] >= i)
    model.same = pyo.Reference(model.x)
    model.gain = pyo.Objective(expr=model.x["a"])
    session = Session(model, PLAIN)
    assert session.program.matrix.shape == (4, 2)
    every = [session.rows(part).tolist() for part in (model.sub[0], model.sub[1], model.sub, model)]
    assert sorted(every[0] + every[1]) == every[2] == every[3] == [0, 1, 2, 3]
    row = session.rows(model.sub[1].limit)[0]
    assert session.program.matrix[[row]].toarray().tolist() == [[1, -1]]
    assert (session.program.row_lower[row], session.program.row_upper[row]) == (-1, 3)
    assert session.index(model.x["b"]) == 1
    assert session.index(model.x).tolist() == session.index([model.x["a"], model.x["b"]]).tolist() == [0, 1]
    with pytest.raises(ModelError, match="not a variable"):
        session.index(pyo.Var())
    with pytest.raises(ModelError, match="not part"):
        session.rows(parametric_model().plain)


def test_unknown_parameter_names_the_nearest():
    with pytest.raises(ModelError, match="'price'"):
        Session(parametric_model(), PLAIN).parameters["pryce"]
    assert Session(parametric_model(), PLAIN).parameters.keys_of("price") == list(range(N))
    assert len(Parameters([])) == 0


# --------------------------------------------------------------------------------------------------------- refusals
def small_model():
    model = pyo.ConcreteModel()
    model.x = pyo.Var(range(3), bounds=(0, 4))
    model.row = pyo.Constraint(expr=model.x[0] + model.x[1] >= 1)
    model.gain = pyo.Objective(expr=sum(model.x.values()))
    return model


def with_disjunct(model):
    model.first, model.second = gdp.Disjunct(), gdp.Disjunct()
    model.first.row = pyo.Constraint(expr=model.x[0] >= 2)
    model.second.row = pyo.Constraint(expr=model.x[0] <= 1)
    model.either = gdp.Disjunction(expr=[model.first, model.second])


def with_logic(model):
    model.yes = pyo.BooleanVar([0, 1])
    model.rule = pyo.LogicalConstraint(expr=model.yes[0].implies(model.yes[1]))


def with_sos(model):
    model.one_of = pyo.SOSConstraint(var=model.x, sos=1)


def with_complementarity(model):
    model.pair = mpec.Complementarity(expr=mpec.complements(model.x[0] >= 0, model.x[1] >= 0))


def with_piecewise(model):
    from pyomo.contrib.piecewise import PiecewiseLinearFunction

    model.curve = PiecewiseLinearFunction(points=[0, 1, 4], function=lambda x: x**2)
    model.use = pyo.Constraint(expr=model.curve(model.x[0]) <= 3)


def with_wrong_piecewise(model):
    model.y = pyo.Var()
    model.curve = pyo.Piecewise(
        model.y, model.x[0], pw_pts=[0, 1, 4], pw_repn="BIGM_BIN", pw_constr_type="EQ", f_rule=[0, 1, 0]
    )


def with_second_objective(model):
    model.other = pyo.Objective(expr=model.x[0])


def with_odd_domain(model):
    model.odd = pyo.Var(within=[1, 3, 5])


def with_product(model):
    model.product = pyo.Constraint(expr=model.x[0] * model.x[1] <= 1)


def with_fixed_factor(model):
    model.x[0].fix(2)
    model.product = pyo.Constraint(expr=model.x[0] * model.x[1] <= 1)


def with_parametric_product(model):
    model.p = pyo.Param(initialize=1, mutable=True)
    model.product = pyo.Constraint(expr=model.p * model.x[0] * model.x[1] <= 1)


def with_nan_limit(model):
    model.limit = pyo.Constraint(expr=model.x[0] <= float("nan"))


def with_nan_cost(model):
    model.gain.expr = float("nan") * model.x[0]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (with_disjunct, "first: a Disjunct"),
        (with_logic, "rule: a LogicalConstraint"),
        (with_sos, "one_of: a SOSConstraint"),
        (with_complementarity, "pair: a Complementarity"),
        (with_piecewise, "curve: a PiecewiseLinearFunction"),
        (with_wrong_piecewise, "curve: Piecewise with BIGM_BIN"),
        (with_second_objective, "2 active objectives .gain, other"),
        (with_odd_domain, "odd: its domain"),
        (with_product, "product"),
        (with_fixed_factor, "product"),
        (with_parametric_product, "product: nonlinear"),
        (with_nan_limit, "limit"),
        (with_nan_cost, "cost of variable 'x.0.'"),
    ],
)
def test_what_a_linear_program_cannot_say_is_refused_by_name(spoil, named):
    model = small_model()
    spoil(model)
    with pytest.raises(ModelError, match=named):
        Session(model, PLAIN)


def test_no_objective_is_refused():
    model = small_model()
    model.gain.deactivate()
    with pytest.raises(ModelError, match="0 active objectives"):
        Session(model, PLAIN)


def test_transformed_disjunctions_solve():
    model = small_model()
    with_disjunct(model)
    model.floor = pyo.Constraint(expr=model.x[0] >= 0.5)
    pyo.TransformationFactory("gdp.bigm").apply_to(model)
    model.gain.sense = pyo.maximize
    assert Session(model, PLAIN).solve().objective == pytest.approx(12)


def test_a_row_that_cannot_hold_is_infeasible_by_name():
    model = small_model()
    model.never = pyo.Constraint(expr=0 * model.x[0] >= 1)
    with pytest.raises(InfeasibleError, match="never"):
        Session(model, PLAIN)


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("price", np.nan, "cost of variable 'act.3.'.*price.3. = nan"),
        ("price", np.inf, "cost of variable 'act.3.'.*price.3. = inf"),
        ("weight", np.nan, "coefficient of variable 'act.3.' in constraint 'spend'.*weight.3."),
        ("budget", np.nan, "budget = nan"),
        ("budget", 1e200, "coefficient of variable 'act.1.' in constraint 'mixed'.*budget = 1e.200"),
    ],
)
def test_unusable_parameter_values_never_reach_the_solver(name, value, named):
    """And the session still works once they are mended."""
    session = Session(parametric_model(), PLAIN)
    session.parameters["budget"] = 2.0
    before = session.solve().objective
    kept = session.parameters[name].copy()
    session.parameters[name][-2 : -1 if name != "budget" else None] = value
    with pytest.raises(ModelError, match=named):
        session.solve()
    session.parameters[name] = kept
    assert session.solve().objective == before


def test_a_parameter_without_a_value_is_named():
    model = small_model()
    model.price = pyo.Param(mutable=True, within=pyo.Reals)
    model.gain.expr = model.price * model.x[0]
    with pytest.raises(ModelError, match="price = nan"):
        Session(model, PLAIN)
    model.gain.expr = model.x[0]
    session = Session(model, PLAIN)
    assert np.isnan(session.parameters["price"]).all()
    assert session.solve().objective == 0


def test_infinite_limits_from_parameters_open_the_row():
    model = small_model()
    model.limit = pyo.Param(initialize=2.0, mutable=True)
    model.tight = pyo.Constraint(expr=sum(model.x.values()) <= model.limit)
    model.gain.sense = pyo.maximize
    session = Session(model, PLAIN)
    tight = session.solve().objective
    session.parameters["limit"] = np.inf
    assert session.solve().objective > tight


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.set_cost(0, np.nan),
        lambda s: s.set_cost(9, 1),
        lambda s: s.set_cost(-1, 1),
        lambda s: s.set_cost([0.5], 1),
        lambda s: s.set_bounds(0, lower=np.inf),
        lambda s: s.set_rows(0, lower=2, upper=-np.inf),
        lambda s: s.set_coefficients(0, 2, 1.0),
        lambda s: s.add_rows([[1, 2]], 0, 1),
        lambda s: s.add_rows([[1, np.nan, 2]], 0, 1),
        lambda s: s.delete_rows(0),
        lambda s: s.start(0, np.nan),
        lambda s: s.solve(seconds=-1),
        lambda s: s.solve(relative_gap=np.nan),
        lambda s: s.solve(objective_cutoff=np.nan),
    ],
)
def test_bad_changes_are_refused_and_leave_the_session_as_it_was(call):
    session = Session(small_model(), PLAIN)
    before = session.solve().objective
    with pytest.raises(ModelError):
        call(session)
    assert session.solve().objective == before


@pytest.mark.parametrize(
    "change",
    [
        {"cost": [1.0, 2.0]},
        {"cost": [np.inf]},
        {"matrix": [[np.nan]]},
        {"row_lower": [np.inf]},
        {"upper": [np.nan]},
        {"offset": np.nan},
    ],
)
def test_programs_with_bad_arrays_are_refused(change):
    good = {"cost": [1.0], "matrix": [[1.0]], "row_lower": [0.0], "row_upper": [1.0], "lower": [0.0], "upper": [1.0]}
    assert Program(**good, integer=[True]).matrix.indices.dtype == np.int32
    with pytest.raises(ModelError):
        Program(**(good | change), integer=[True])


# ---------------------------------------------------------------------------------------------------------- statuses
def test_statuses():
    free = Program([1.0], sparse.csr_array((0, 1)), [], [], [0], [np.inf], [False], True)
    assert Session.from_arrays(free, PLAIN).solve().status == "unbounded"
    crossed = replace(free, lower=np.array([2.0]), upper=np.array([1.0]))
    result = Session.from_arrays(crossed, PLAIN).solve()
    assert (result.status, result.has_solution, result.bound) == ("infeasible", False, np.inf)
    assert np.isnan(result.objective)
    assert result.gap == result.relative_gap == np.inf


@pytest.mark.parametrize(("low", "status", "objective"), [(-1.0, "empty", 1.5), (1.0, "infeasible", np.nan)])
def test_programs_without_columns(low, status, objective):
    """HiGHS says Empty for both."""
    none = np.zeros(0)
    program = Program(none, sparse.csr_array((1, 0)), [low], [2.0], none, none, none, True, 1.5)
    result = Session.from_arrays(program, PLAIN).solve()
    assert result.status == status
    np.testing.assert_equal(result.objective, objective)


def test_limits_and_their_policies():
    program = hard_program(80, 20)
    limited = Session.from_arrays(program, replace(PLAIN, nodes=1)).solve()
    assert limited.status == "feasible_limit"
    assert limited.bound > limited.objective
    assert limited.gap == pytest.approx(limited.bound - limited.objective)
    assert limited.relative_gap == pytest.approx(limited.gap / limited.bound)
    nothing = Session.from_arrays(program, PLAIN).solve(seconds=0)
    assert (nothing.status, nothing.has_solution) == ("no_solution_limit", False)
    strict = Session.from_arrays(program, replace(PLAIN, at_limit="raise"))
    with pytest.raises(SolverError, match="a limit stopped"):
        strict.solve(nodes=1)
    assert strict.last_result.has_solution


def test_time_limits_count_from_each_solve():
    """HiGHS holds the sum of all LP run times against time_limit."""
    rng = np.random.default_rng(0)
    matrix = sparse.random_array((1200, 600), density=0.01, rng=rng)
    program = Program(
        rng.uniform(1, 2, 600),
        matrix,
        np.full(1200, -np.inf),
        matrix.sum(axis=1) / 2 + 0.1,
        np.zeros(600),
        np.ones(600),
        np.zeros(600),
        True,
    )
    session = Session.from_arrays(program, PLAIN)
    total = session.solve().seconds
    limit = 1.5 * total + 0.05
    while total < 1.2 * limit:
        session.set_cost(np.arange(600), rng.uniform(1, 2, 600))
        total += session.solve().seconds
    session.set_cost(0, 1.5)
    assert session.solve(seconds=limit).status == "optimal"
    session.set_cost(np.arange(600), rng.uniform(1, 2, 600))
    assert session.solve(seconds=0).status in ("no_solution_limit", "feasible_limit")


def test_relative_gap_is_honoured_and_reported():
    result = Session.from_arrays(hard_program(), PLAIN).solve(relative_gap=0.2)
    assert result.status == "optimal"
    assert 0 < result.gap <= 0.2 * result.objective * (1 + 1e-9)


@given(programs(), st.integers(-30, 30))
@settings(max_examples=40, deadline=None)
def test_cutoff_finds_what_is_good_enough_or_proves_there_is_nothing(program, cutoff):
    status, value = oracle(program)
    if status != "optimal":
        return
    session = Session.from_arrays(program, replace(PLAIN, at_limit="raise"))
    result = session.solve(objective_cutoff=cutoff)
    reached = value >= cutoff if program.maximise else value <= cutoff
    if reached:
        assert result.status == "optimal"
        assert result.objective == pytest.approx(value, abs=VALUE)
    else:
        assert (result.status, result.bound) == ("no_solution_limit", cutoff)
    assert session.solve().objective == pytest.approx(value, abs=VALUE)


# ------------------------------------------------------------------------------------- status, bound and gap agree
def judged(status, x, bound, maximise=True, cutoff=None, integer=True):
    program = Program([1.0], [[1.0]], [-np.inf], [10.0], [0.0], [10.0], [integer], maximise)
    limits = Limits(seconds=1.0, nodes=None, relative_gap=1e-4, absolute_gap=1e-6, cutoff=cutoff)
    return conclude(Arrays.of(program), limits, status, None if x is None else np.array([x]), bound)


@pytest.mark.parametrize(
    ("arguments", "status", "objective", "bound"),
    [
        (("optimal", 4.0, 4.0), "optimal", 4, 4),
        (("optimal", 4.0, 4.0003), "optimal", 4, 4.0003),
        (("optimal", 4.0, 3.9999999), "optimal", 4, 4),
        (("optimal", 4.0, np.inf), "feasible_limit", 4, np.inf),
        (("optimal", 4.0, -np.inf), "feasible_limit", 4, np.inf),
        (("optimal", 4.0, 6.0), "feasible_limit", 4, 6),
        (("optimal", 4.0, 3.0), "feasible_limit", 4, np.inf),
        (("optimal", 4.0, -np.inf, False), "feasible_limit", 4, -np.inf),
        (("optimal", 4.0, 5.0, False), "feasible_limit", 4, -np.inf),
        (("optimal", np.nan, 4.0), "error", np.nan, 4),
        (("optimal", 11.0, 11.0), "error", np.nan, 11),
        (("optimal", 4.5, 4.5), "error", np.nan, 4.5),
        (("optimal", None, 4.0), "error", np.nan, 4),
        (("feasible_limit", None, 4.0), "no_solution_limit", np.nan, 4),
        (("infeasible", None, 4.0), "infeasible", np.nan, np.inf),
        (("infeasible", None, 4.0, True, 7.0), "no_solution_limit", np.nan, 7),
        (("feasible_limit", None, 4.0, True, 7.0), "no_solution_limit", np.nan, 7),
        (("interrupted", 4.0, 6.0), "interrupted", 4, 6),
        (("unbounded", 4.0, 4.0), "unbounded", np.nan, np.inf),
        (("optimal", 4.5, 4.5, True, None, False), "optimal", 4.5, 4.5),
        (("optimal", 4.5, 6.0, True, None, False), "feasible_limit", 4.5, 6),
        (("feasible_limit", 4.5, 4.5, True, None, False), "feasible_limit", 4.5, np.inf),
    ],
)
def test_results_agree_with_themselves(arguments, status, objective, bound):
    result = judged(*arguments)
    assert result.status == status
    assert result.has_solution == (result.x is not None)
    np.testing.assert_equal((result.objective, result.bound), (objective, bound))


# ------------------------------------------------------------------------------------------------------------ starts
def test_a_start_is_used_after_changes():
    """At a node limit of zero the start is the only solution there is."""
    program = hard_program()
    profile = replace(PLAIN, nodes=0, options={"mip_heuristic_effort": 0.0})
    known = Session.from_arrays(program, replace(PLAIN, nodes=50)).solve()
    session = Session.from_arrays(program, profile)
    without = session.solve()
    session.start(np.arange(200), known.x.round())
    session.set_cost(0, program.cost[0] + 0.0)
    result = session.solve()
    assert result.has_solution
    assert result.objective >= known.objective - VALUE
    assert not without.has_solution or without.objective < result.objective


@pytest.mark.parametrize("seed", [98, 112, 144, 221, 277, 309])
def test_a_started_solve_never_hands_back_the_start_as_the_optimum(seed):
    """HiGHS 1.16 reported the optimum's objective with the start's values on these."""
    rng = np.random.default_rng(seed)
    n, m, maximise = int(rng.integers(3, 25)), int(rng.integers(1, 6)), bool(rng.integers(2))
    matrix = rng.integers(0, 20, (m, n)).astype(float)
    cost = rng.integers(-10, 20, n) * (1.0 if maximise else -1.0)
    limits, integer = np.floor(matrix.sum(axis=1) / 3), rng.random(n) < 0.8
    program = Program(cost, matrix, np.full(m, -np.inf), limits, np.zeros(n), np.ones(n), integer, maximise)
    for profile in ("fast", "default"):
        again = np.random.default_rng(seed)
        again.bit_generator.state = rng.bit_generator.state
        session = Session.from_arrays(program, profile)
        result = session.solve()
        for k in range(4):
            session.start(np.arange(n), result.x)
            session.set_cost(np.arange(n), cost * (1 + 0.1 * k) if k < 2 else again.permutation(cost))
            result = session.solve()
            assert result.status == "optimal"
            assert result.objective == pytest.approx(oracle(session.program)[1], rel=1e-4, abs=1e-5)
            assert session.program.cost @ result.x == pytest.approx(result.objective)


# --------------------------------------------------------------------------------------------------------- interrupt
def test_interrupt_function_stops_a_solve_and_leaves_the_session_usable():
    session = Session.from_arrays(hard_program(), PLAIN)
    began = time.monotonic()
    result = session.solve(interrupt=lambda: time.monotonic() - began > 1.0)
    assert result.status == "interrupted"
    assert result.has_solution
    assert result.bound > result.objective
    # Without a function the flag left behind by the last one must be down.
    assert session.solve(relative_gap=0.2).status == "optimal"


def test_an_error_in_the_interrupt_function_stops_the_solve():
    session = Session.from_arrays(hard_program(), "default")
    calls = []

    def broken():
        calls.append(1)
        if len(calls) > 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session.solve(interrupt=broken)
    assert session.last_result.status == "interrupted"


def test_ctrl_c_stops_a_solve_and_keeps_the_incumbent():
    def press(*_):
        raise KeyboardInterrupt

    session = Session.from_arrays(hard_program(), "default")
    before = signal.signal(signal.SIGALRM, press)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            session.solve()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert session.last_result.status == "interrupted"
    assert session.last_result.has_solution
    assert session.solve(nodes=0).status in ("feasible_limit", "no_solution_limit")


# -------------------------------------------------------------------------------------------- repeats and threads
def test_same_seed_same_bits():
    runs = [
        Session.from_arrays(hard_program(80, 20), replace(load_profile("reproducible"), nodes=20)).solve() for _ in "ab"
    ]
    assert np.array_equal(runs[0].x, runs[1].x)
    assert (runs[0].objective, runs[0].bound, runs[0].nodes) == (runs[1].objective, runs[1].bound, runs[1].nodes)


def test_sessions_in_threads_agree_with_one_alone():
    programs_ = [hard_program(30, 4, seed) for seed in range(4)]
    alone = [Session.from_arrays(program, PLAIN).solve() for program in programs_]
    found: dict[int, Result] = {}

    def work(k):
        found[k] = Session.from_arrays(programs_[k], "default").solve(relative_gap=1e-9)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[k].objective for k in range(4)] == pytest.approx([result.objective for result in alone])


def test_sessions_with_other_thread_numbers_take_turns():
    """HiGHS refuses a second number of threads in a process: kError, status Not Set."""
    one, two = (Session.from_arrays(hard_program(30, 4), replace(PLAIN, threads=k)) for k in (1, 2))
    values = [session.solve().objective for session in (one, two, one, two)]
    assert values == pytest.approx([values[0]] * 4)
    slow = threading.Thread(target=Session.from_arrays(hard_program(), replace(PLAIN, seconds=1.0)).solve)
    slow.start()
    time.sleep(0.3)
    with pytest.raises(SolverError, match="threads"):
        two.solve()
    slow.join()
    assert two.solve().objective == pytest.approx(values[0])


def test_a_pool_that_other_code_set_up_is_replaced():
    import highspy

    one = Session.from_arrays(hard_program(30, 4), PLAIN)
    value = one.solve().objective
    highspy.Highs.resetGlobalScheduler(True)
    other = highspy.Highs()
    other.setOptionValue("output_flag", False)
    other.setOptionValue("threads", 2)
    other.addVar(0, 1)
    other.run()
    one.set_cost(0, one.program.cost[0])
    one.set_bounds(0, 0, 1)
    assert Session.from_arrays(hard_program(30, 4), PLAIN).solve().objective == pytest.approx(value)


def test_programs_travel_and_sessions_do_not():
    session = Session(parametric_model(), PLAIN)
    session.parameters["budget"] = 3.0
    session.parameters["price"] = 1.0
    program = pickle.loads(pickle.dumps(session.program))
    assert Session.from_arrays(program, PLAIN).solve().objective == pytest.approx(session.solve().objective)
    with pytest.raises(TypeError, match=r"session\.program"):
        pickle.dumps(session)


def test_the_program_handed_out_is_a_copy():
    session = Session.from_arrays(hard_program(), PLAIN)
    session.program.cost[:] = 0
    assert session.program.cost.any()


# ------------------------------------------------------------------------------------------------------------- duals
@pytest.mark.parametrize("maximise", [True, False])
def test_row_duals_are_derivatives_of_the_optimum(maximise):
    sign = 1.0 if maximise else -1.0
    program = Program(
        sign * np.array([3.0, 5.0]),
        [[1, 0], [0, 2], [3, 2]],
        [-np.inf] * 3,
        [4, 12, 18],
        [0, 0],
        [np.inf] * 2,
        [False] * 2,
        maximise,
    )
    session = Session.from_arrays(program, PLAIN)
    result = session.solve()
    for row in range(3):
        session.set_rows(row, upper=program.row_upper[row] + 1e-3)
        slope = (session.solve().objective - result.objective) / 1e-3
        assert result.row_duals[row] == pytest.approx(slope, abs=1e-6)
        session.set_rows(row, upper=program.row_upper[row])
    assert result.reduced_costs == pytest.approx(program.cost - program.matrix.T @ result.row_duals)
    session.set_integer([0, 1])
    assert session.solve().row_duals is None


# -------------------------------------------------------------------------------------------------- options, solvers
def test_options_that_highs_does_not_accept_are_errors():
    program = hard_program()
    with pytest.raises(SolverError, match="mip_heuristic_effort"):
        Session.from_arrays(program, replace(PLAIN, options={"mip_heuristic_efort": 0.1}))
    with pytest.raises(SolverError, match="presolve = 'maybe'"):
        Session.from_arrays(program, replace(PLAIN, options={"presolve": "maybe"}))
    with pytest.raises(SolverError, match="simplex_strategy"):
        Session.from_arrays(program, replace(PLAIN, options={"simplex_strategy": 1.5}))


def test_nothing_is_printed_and_the_log_is_kept_when_asked(capfd):
    result = Session.from_arrays(hard_program(80, 20), replace(PLAIN, log=True)).solve(nodes=1)
    Session.from_arrays(hard_program(80, 20), PLAIN).solve(nodes=1)
    assert "Solving report" in result.log
    assert capfd.readouterr().out == ""


def available(solver):
    try:
        Session.from_arrays(hard_program(5, 1), Profile("x", solver=solver))
    except SolverError:
        return False
    return True


@pytest.mark.parametrize("solver", ["gurobi", "scip", "cbc"])
def test_other_solvers_agree(solver):
    if not available(solver):
        pytest.skip(f"{solver} is not installed")
    profile = Profile(solver, solver=solver, relative_gap=1e-9)
    session = Session(parametric_model(), profile)
    price, weight = np.array([1.0, 4, 2, 6, 3]), np.array([1.0, 0, 2, 1, 3])
    session.parameters["price"], session.parameters["weight"], session.parameters["budget"] = price, weight, 2.0
    status, value = oracle(parametric_oracle(price, weight, 2.0))
    result = session.solve()
    assert result.status == status == "optimal"
    assert result.objective == pytest.approx(value, abs=1e-5)
    assert result.bound == pytest.approx(value, abs=1e-5)
    assert session.solve(objective_cutoff=value + 1).status == "no_solution_limit"
    session.add_rows(np.eye(N + 1)[[3]], -np.inf, 0)
    session.start(np.arange(N), 0)
    assert session.solve().objective == pytest.approx(oracle(session.program)[1], abs=1e-5)
    session.set_rows(0, -np.inf, -100)
    assert session.solve().status in ("infeasible", "infeasible_or_unbounded")
    with pytest.raises(CapabilityError, match="interrupt"):
        session.solve(interrupt=lambda: False)
    linear = Session.from_arrays(replace(hard_program(8, 2), integer=np.zeros(8)), profile)
    assert linear.solve().objective == pytest.approx(oracle(linear.program)[1], abs=1e-5)
    limited = Session.from_arrays(hard_program(), profile).solve(seconds=0.3)
    assert limited.status in ("feasible_limit", "no_solution_limit")
    if solver != "cbc":
        with pytest.raises(SolverError, match="failed"):
            Session.from_arrays(hard_program(5, 1), replace(profile, options={"nonsense": 1})).solve()


def test_a_missing_solver_says_what_to_install():
    if shutil.which("cbc"):
        pytest.skip("cbc is installed")
    with pytest.raises(SolverError, match=r"(?s)cbc is not installed.*executable"):
        Session.from_arrays(hard_program(5, 1), Profile("x", solver="cbc"))
