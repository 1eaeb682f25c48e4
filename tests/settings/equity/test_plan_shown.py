"""A fair plan in a notebook and as a data frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from notebooks import EVIL, shown

import rmab_opt as ro
from rmab_opt.settings.equity.plan import fair_plan


def test_a_fair_plan_shows_its_groups_and_gives_a_frame():
    model = ro.load("equity_synthetic", **{"problem.n_arms": 12})
    plan = fair_plan(model.problem, model.actions, welfare="max_min")
    names = (EVIL, *plan.groups.names[1:])
    plan = replace(plan, groups=replace(plan.groups, names=names))
    text = shown(plan)
    assert all(name in text for name in names)
    assert f"{float(np.min(plan.values)):.4g}" in text
    polars = pytest.importorskip("polars")
    made = plan.to_frame("polars")
    assert isinstance(made, polars.DataFrame)
    assert made.to_dicts() == plan.rows()
