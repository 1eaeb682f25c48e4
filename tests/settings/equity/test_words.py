"""What a fair plan's limit says: of every policy, or of plans of its kind with the limit of every policy beside it."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from strategies import tabular

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.errors import CertificateError
from rmab_opt.problem import Arms, Problem
from rmab_opt.settings.equity import fair_plan


def plan(**options):
    arms = Arms.from_arrays(4, group=list("AABB"))
    dynamics = tabular(4, 2, 2, np.random.default_rng(7))
    dynamics = type(dynamics)(dynamics.transition, np.abs(dynamics.reward))
    problem = Problem(arms, dynamics, horizon=4, start=np.zeros(4, int))
    return fair_plan(problem, ActionSet(arms, {"b": Budget(at_most=1)}), "group", welfare="max_min", **options)


RESTRICTED = {
    "mode constant": {"mode": "constant"},
    "whole budgets": {"mode": "constant", "whole": True},
    "floors of groups": {"floors": np.array([0.1, 0.1])},
    "floors of arms": {"arm_floors": np.array([0.01, -np.inf, -np.inf, -np.inf])},
    "Gini at most 0.4": {"gini": 0.4},
    "ratio at least 0.5": {"ratio": 0.5},
}


def test_only_an_unrestricted_plan_speaks_of_every_policy():
    free = plan()
    assert "no policy above" in str(free)
    assert free.limits == ()
    assert free.summary()["over_all_policies"] == free.upper


@pytest.mark.parametrize("words", RESTRICTED)
def test_a_restricted_plan_names_its_kind_and_the_limit_of_every_policy(words):
    found, free = plan(**RESTRICTED[words]), plan()
    text = str(found)
    assert "no policy above" not in text
    assert "no plan of this kind above" in text
    assert words in text
    assert found.over_all == pytest.approx(free.upper, rel=1e-4)
    assert found.lower <= found.over_all + 1e-7
    assert pickle.loads(pickle.dumps(found)).over_all == found.over_all


def test_a_smaller_class_above_the_larger_is_an_error():
    found = plan(mode="constant")
    wrong = replace(found, lower=found.over_all + 1e-3)
    with pytest.raises(CertificateError, match="above the limit of every policy"):
        str(wrong)
