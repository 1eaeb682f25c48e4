"""Prices of a large relaxation, solved from inside, prove what the simplex' prices prove."""

from __future__ import annotations

import numpy as np
import pytest

import rmab_opt as ro
from rmab_opt.decisions import bench


def test_prices_from_inside_prove_the_same(monkeypatch):
    model = ro.load("weekly_calls", **{"problem.first": 60, "weekly.at_most": 12, "villages.at_least": 0})
    state = model.problem.sample_start(np.random.default_rng(1))
    first = ro.decide(model, state)
    monkeypatch.setattr(bench, "INSIDE", 0)
    fresh = ro.load("weekly_calls", **{"problem.first": 60, "weekly.at_most": 12, "villages.at_least": 0})
    second = ro.decide(fresh, state)
    assert second.proof.kind == first.proof.kind
    assert second.value == pytest.approx(first.value, abs=1e-9)
    assert second.bound == pytest.approx(first.bound, rel=1e-6)
