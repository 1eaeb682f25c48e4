"""A session's solver is its profile's; coefficients and rows change where they are said to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from rmab_opt.errors import ModelError
from rmab_opt.solver import Program, Session
from rmab_opt.solver.highs import HighsSolver


def program() -> Program:
    """Most of 3 x + 2 y + z under x + y <= 1.5, 2 y + z <= 2, within the unit cube."""
    matrix = sparse.csr_array(np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]]))
    return Program(
        cost=np.array([3.0, 2.0, 1.0]), matrix=matrix, row_lower=np.full(2, -np.inf), row_upper=np.array([1.5, 2.0]),
        lower=np.zeros(3), upper=np.ones(3), integer=np.zeros(3, dtype=bool), maximise=True,
    )  # fmt: skip


def test_a_profile_of_highs_is_solved_by_highs():
    session = Session.from_arrays(program(), "exact")
    assert isinstance(session._solver, HighsSolver)
    # x = 1, y = 1/2, z = 1.
    assert session.solve().objective == pytest.approx(5.0)


@pytest.mark.parametrize(("row", "column", "value"), [(0, 0, 2.0), (0, 1, 0.5), (1, 1, 4.0), (1, 2, 2.0)])
def test_each_coefficient_is_set_where_it_stands(row, column, value):
    session = Session.from_arrays(program(), "exact")
    session.set_coefficients(row, column, value)
    expected = program().matrix.toarray()
    expected[row, column] = value
    assert session.program.matrix.toarray().tolist() == expected.tolist()
    grid = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, 41)] * 3), axis=-1).reshape(-1, 3)
    fits = (grid @ expected.T <= np.array([1.5, 2.0]) + 1e-9).all(axis=1)
    assert session.solve().objective == pytest.approx((grid[fits] @ [3.0, 2.0, 1.0]).max(), abs=0.05)


def test_a_place_without_a_coefficient_is_named():
    session = Session.from_arrays(program(), "exact")
    for row, column in [(0, 2), (1, 0)]:
        with pytest.raises(ModelError, match="has no coefficient in"):
            session.set_coefficients(row, column, 1.0)


def test_one_row_goes_and_the_others_move_up():
    session = Session.from_arrays(program(), "exact")
    session.delete_rows(0)
    assert session.program.matrix.toarray().tolist() == [[0.0, 2.0, 1.0]]
    # x = 1, y = 1/2, z = 1.
    assert session.solve().objective == pytest.approx(3.0 + 2.0)


@pytest.mark.parametrize("k", [-60, -40, -20, 24, 40])
@pytest.mark.parametrize("whole", [False, True])
def test_rows_in_another_unit_change_nothing_but_their_prices(whole, k):
    """Weights and limits times 2^k: the same points at every change of the rows, prices times 2^-k."""

    def answers(unit):
        rng = np.random.default_rng(0)
        n, weights = 8, rng.integers(1, 9, size=(2, 8)) * unit
        nothing, most = np.full(2, -np.inf), np.array([17.0, 20.0]) * unit
        ends = np.zeros(n), np.ones(n), np.full(n, whole)
        program = Program(rng.random(n), sparse.csr_array(weights), nothing, most, *ends, maximise=True)
        session = Session.from_arrays(program)
        yield session.solve()
        new = session.add_rows(np.arange(1, n + 1) * unit, -np.inf, 9 * unit)
        yield session.solve()
        session.set_rows(new, upper=7 * unit)
        yield session.solve()
        session.set_coefficients(new, [0], [2 * unit])
        yield session.solve()
        session.delete_rows(new)
        yield session.solve()

    pairs = list(zip(answers(1.0), answers(2.0**k), strict=True))
    assert len({plain.objective for plain, _ in pairs}) > 2
    for plain, other in pairs:
        assert other.status == plain.status == "optimal"
        assert other.objective == pytest.approx(plain.objective, rel=1e-12)
        assert other.x == pytest.approx(plain.x, abs=1e-9)
        if not whole:
            assert other.row_duals == pytest.approx(plain.row_duals * 2.0**-k, rel=1e-9)
