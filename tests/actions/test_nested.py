"""Nested counts by sorting: the action and the prices that prove it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmab_opt.actions import ActionSet
from rmab_opt.actions.checker import price_bound
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Chooser
from rmab_opt.decisions.objective import Scores
from rmab_opt.decisions.proof import rows_of_set
from rmab_opt.instances.synthetic import ladder_mix
from rmab_opt.problem import Arms, Problem


@given(
    st.lists(st.floats(-1, 3, allow_nan=False), min_size=1, max_size=8),
    st.integers(0, 8),
    st.integers(0, 4),
    st.integers(1, 3),
    st.integers(0, 2),
)
def test_the_best_of_nested_counts_and_prices_that_prove_it(scores, budget, per_village, villages, per_house):
    """Against enumeration; the prices bound every action by the value itself."""
    n = len(scores)
    arms = Arms.from_arrays(
        n, village=[f"v{i % villages}" for i in range(n)], house=[f"h{i % (2 * villages)}" for i in range(n)]
    )
    actions = ActionSet(
        arms,
        {
            "budget": Budget(at_most=budget),
            "village": Linear(per="village", at_most=per_village),
            "house": Linear(per="house", at_most=per_house),
        },
    )
    assert actions.shape.nested
    gain = np.array(scores)
    action, prices = actions.shape.sorted(gain)
    allowed = [np.array(a) for a in itertools.product((0, 1), repeat=n) if actions.allows(np.array(a))]
    best = max(float(gain @ a) for a in allowed)
    assert actions.allows(action)
    assert gain @ action == pytest.approx(best, abs=1e-12)
    assert price_bound(rows_of_set(actions), gain, 0.0, prices) == pytest.approx(best, abs=1e-9)


def test_a_decision_under_a_budget_and_groups_is_proven_by_prices_without_a_program():
    """Equal values, too: the way is named, the bound is the value."""
    cohort = ladder_mix(n_arms=30, n_states=3, n_actions=2, seed=1)
    arms = Arms.from_arrays(30, village=[f"v{i % 4}" for i in range(30)])
    actions = ActionSet(arms, {"budget": Budget(at_most=7), "village": Linear(per="village", at_most=2)})
    problem = Problem(arms, cohort.dynamics, horizon=5, start=np.zeros(30, dtype=np.int64))
    gain = np.repeat([3.0, 2.0, 2.0, 1.0, 0.0, -1.0], 5)
    decision = Chooser(problem, actions, Scores(gain)).decide()
    program = Chooser(problem, actions, Scores(gain), method="program").decide()
    assert "sorting" in decision.solver
    assert decision.status == "optimal"
    assert decision.value == pytest.approx(program.value)
    assert decision.bound == pytest.approx(decision.value, rel=1e-12)
