"""Value and bound of a running solve close in on the answer from both sides; a stop keeps the best so far."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from rmab_opt.solver import Program, Progress, Session


def knapsacks(n=30, rows=4, seed=1, scale=1.0, offset=0.0):
    """A market-split-like program that takes HiGHS some nodes."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(20, 100, size=(rows, n)).astype(float)
    return Program(
        cost=scale * (weight.sum(axis=0) / rows + rng.normal(0, 3, n)),
        offset=offset,
        maximise=True,
        matrix=sparse.csr_array(weight),
        row_lower=np.full(rows, -np.inf),
        row_upper=np.floor(weight.sum(axis=1) / 2),
        lower=np.zeros(n),
        upper=np.ones(n),
        integer=np.ones(n, dtype=bool),
    )


class Noted(Progress):
    """Keeps what it saw, and stops at the first value when told."""

    def __init__(self, at_first=False):
        super().__init__()
        self.seen, self.at_first = [], at_first

    def saw(self, value, bound):
        super().saw(value, bound)
        self.seen.append((self.value, self.bound))
        if self.at_first and np.isfinite(self.value):
            self.stop()


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (3e4, -7.0)])
def test_value_rises_and_bound_falls_around_the_answer_in_its_own_unit(scale, offset):
    watch = Noted()
    result = Session.from_arrays(knapsacks(scale=scale, offset=offset), "default").solve(interrupt=watch, nodes=200)
    assert result.has_solution
    values, bounds = zip(*watch.seen, strict=True)
    assert list(values) == sorted(values)
    assert list(bounds) == sorted(bounds, reverse=True)
    near = 1e-6 * scale * 1000
    assert np.isfinite(watch.value)
    assert watch.value <= result.objective + near
    assert watch.bound >= result.objective - near


def test_a_stop_ends_the_solve_with_the_best_so_far():
    whole = Session.from_arrays(knapsacks(seed=2), "default").solve(nodes=200)
    watch = Noted(at_first=True)
    result = Session.from_arrays(knapsacks(seed=2), "default").solve(interrupt=watch, nodes=200)
    assert result.has_solution
    assert watch()
    assert result.objective <= whole.objective + 1e-6
    assert result.bound >= whole.objective - 1e-6
    if result.status != "optimal":
        assert result.status == "interrupted"
        assert result.nodes <= whole.nodes


def test_a_stop_given_before_is_kept_by_every_unit():
    watch = Progress()
    inner = watch.in_unit(4.0, 1.0)
    inner.saw(2.0, 3.0)
    assert (watch.value, watch.bound) == (9.0, 13.0)
    inner.saw(-1e30, 1e30)
    assert (watch.value, watch.bound) == (9.0, 13.0)
    watch.stop()
    assert inner()
