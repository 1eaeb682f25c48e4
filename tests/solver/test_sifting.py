"""Programs of few rows over many columns against the same programs solved whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from rmab_opt.solver import Program, Session, Sifting, load_profile, siftable, sifting

FAST = load_profile("fast")


@pytest.fixture(autouse=True, scope="module")
def small():
    """Few columns count as many, and few are left in doubt."""
    patched = pytest.MonkeyPatch()
    for name, value in (("MANY_COLUMNS", 20), ("IN_DOUBT", 6), ("EACH_ROW", 2)):
        patched.setattr(sifting, name, value)
    yield
    patched.undo()


def program(seed: int, columns: int = 80, rows: int = 5, ties: bool = False) -> Program:
    """Rows of members with whole or ragged weights, some with limits from below, ends that are not all 0 and 1."""
    rng = np.random.default_rng(seed)
    table = (rng.random((rows, columns)) < 0.6) * rng.integers(1, 4, (rows, columns)).astype(float)
    cost = rng.integers(-2, 5, columns).astype(float) if ties else rng.normal(size=columns)
    lower, upper = np.zeros(columns), rng.integers(1, 3, columns).astype(float)
    upper[rng.random(columns) < 0.1] = 0.0
    most = rng.uniform(0.05, 0.7, rows) * (table @ upper)
    least = np.where(rng.random(rows) < 0.3, 0.5 * most, -np.inf)
    return Program(cost, sparse.csr_array(table), least, most, lower, upper, np.ones(columns, bool), maximise=True)


def whole(given_: Program):
    return Session.from_arrays(replace(given_, integer=np.zeros(len(given_.cost), dtype=bool)), FAST).solve()


@given(st.integers(0, 10**6), st.booleans())
@settings(deadline=None)
def test_the_optimum_is_that_of_the_whole_program(seed, ties):
    """Value, a point within all limits that attains it, and prices that prove it by weak duality alone."""
    asked = program(seed, ties=ties)
    right, found = whole(asked), Sifting(asked, FAST).solve()
    assert found.status == right.status
    if right.status != "optimal":
        return
    assert found.objective == pytest.approx(right.objective, rel=1e-9, abs=1e-9)
    assert found.x is not None
    used = asked.matrix @ found.x
    assert (used <= asked.row_upper + 1e-7).all()
    assert (used >= asked.row_lower - 1e-7).all()
    assert ((found.x >= asked.lower - 1e-9) & (found.x <= asked.upper + 1e-9)).all()
    assert asked.cost @ found.x == pytest.approx(found.objective, abs=1e-9)
    price = found.row_duals
    assert price is not None
    assert (price[np.isneginf(asked.row_lower)] >= 0).all()
    rent = sum(
        y * (u if y > 0 else low) for y, u, low in zip(price, asked.row_upper, asked.row_lower, strict=True) if y
    )
    left = asked.cost - asked.matrix.T @ price
    proven = rent + float(np.maximum(left * asked.upper, left * asked.lower).sum())
    assert proven == pytest.approx(right.objective, rel=1e-7, abs=1e-7)
    assert found.bound >= right.objective - 1e-9 * (1 + abs(right.objective))


def test_most_columns_are_never_in_a_program(monkeypatch):
    """Without that it would be no sifting: programs of three in ten columns settle it."""
    monkeypatch.setattr(sifting, "IN_DOUBT", 60)
    asked, sizes = program(1, columns=1000), []
    made = Session.from_arrays

    def noted(given_, *more):
        sizes.append(len(given_.cost))
        return made(given_, *more)

    monkeypatch.setattr(Session, "from_arrays", noted)
    assert Sifting(asked, FAST).solve().status == "optimal"
    assert max(sizes) <= 300


def test_no_answer_depends_on_the_questions_before():
    asked, rng = program(2, columns=300, ties=True), np.random.default_rng(0)
    every = np.arange(300)
    used, values = Sifting(asked, FAST), [rng.integers(0, 4, 300).astype(float) for _ in range(4)]
    for value in values:
        used.set_cost(every, value)
        fresh = Sifting(asked, FAST)
        fresh.set_cost(every, value)
        one, other = used.solve(), fresh.solve()
        np.testing.assert_array_equal(one.x, other.x)
        np.testing.assert_array_equal(one.row_duals, other.row_duals)


def test_columns_in_another_order_have_the_same_optimum():
    asked, order = program(3, columns=200), np.random.default_rng(1).permutation(200)
    moved = Program(
        asked.cost[order], sparse.csr_array(asked.matrix[:, order]), asked.row_lower, asked.row_upper,
        asked.lower[order], asked.upper[order], asked.integer, maximise=True,
    )  # fmt: skip
    assert Sifting(moved, FAST).solve().objective == pytest.approx(Sifting(asked, FAST).solve().objective, rel=1e-9)


def test_what_cannot_be_met_and_what_has_no_time_is_said():
    asked = program(4)
    never = replace(asked, row_lower=np.full(5, 1e6), row_upper=np.full(5, 1e7))
    assert Sifting(never, FAST).solve().status == "infeasible"
    late = Sifting(asked, FAST).solve(seconds=0.0)
    assert not late.has_solution or late.objective <= late.bound


def test_only_wide_programs_between_finite_ends_are_sifted():
    asked = program(5)
    assert siftable(asked)
    assert not siftable(replace(asked, upper=np.full(80, np.inf)))
    assert not siftable(replace(asked, maximise=False))
    assert not siftable(program(5, columns=10))
