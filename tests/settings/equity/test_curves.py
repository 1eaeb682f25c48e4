"""The table of charges: arms of any number of states, two actions."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount

from rmab_opt import ActionSet
from rmab_opt.actions.kinds import Budget
from rmab_opt.decisions import Situation
from rmab_opt.errors import CapabilityError
from rmab_opt.problem import Arms, Problem, Tabular
from rmab_opt.settings.equity import Groups
from rmab_opt.settings.equity.budgets import doubtful, share_units
from rmab_opt.settings.equity.curves import ChargeTable, group_curve
from rmab_opt.settings.equity.policies import FairObjective


@pytest.mark.parametrize("n_states", [2, 3, 5])
def test_an_index_is_the_charge_at_which_resting_is_as_good(n_states):
    """In the last round it is what acting pays more than resting; a table of 4000 charges is that near."""
    rng = np.random.default_rng(0)
    transition, reward = rng.dirichlet(np.ones(n_states), (3, 2, n_states)), rng.random((3, n_states, 2))
    table = ChargeTable(transition, reward, horizon=2, discount=1.0, charges=4000)
    found = np.stack([table.indices(np.full(3, state), 1) for state in range(n_states)], axis=1)
    gain = reward[..., 1] - reward[..., 0]
    assert found[gain > 0.01] == pytest.approx(gain[gain > 0.01], abs=2e-3)


def test_arms_with_more_actions_are_refused():
    transition, reward = np.full((2, 3, 2, 2), 0.5), np.zeros((2, 2, 3))
    with pytest.raises(CapabilityError, match="several actions"):
        ChargeTable(transition, reward, horizon=2, discount=1.0)


def drawn(seed, n_states=4, horizon=8):
    """Arms of three groups in which nearly every charge is somebody's breakpoint, and a state."""
    rng = np.random.default_rng(seed)
    sizes = (5, 4, 3)
    transition = rng.dirichlet(np.full(n_states, 0.5), (sum(sizes), 2, n_states))
    reward = np.repeat(np.sort(rng.random((sum(sizes), n_states)), axis=1)[:, :, None], 2, axis=2)
    arms = Arms.from_arrays(sum(sizes), group=[str(g) for g in np.repeat(np.arange(3), sizes)])
    problem = Problem(arms, Tabular(transition, reward), horizon=horizon, discount=0.97)
    return problem, rng.integers(0, n_states, sum(sizes))


@pytest.mark.parametrize("welfare", ["nash", "nash_groups", "leximin", 3.0])
@pytest.mark.parametrize("seed", range(amount(4, 12)))
def test_budgets_are_those_of_exact_curves(welfare, seed):
    """A table of few charges alone moves them in some states; refined, they are those of all breakpoints."""
    problem, state = drawn(seed)
    transition, reward = problem.dynamics.tabular()
    table = ChargeTable(transition, reward, horizon=problem.horizon, discount=problem.discount, charges=12)
    actions = ActionSet(problem.arms, {"budget": Budget(at_most=4)})
    fair = FairObjective(problem, actions, welfare=welfare, table=table)
    exact = np.array(
        [
            group_curve(
                transition[m], reward[m], state[m], horizon=problem.horizon, discount=problem.discount, tolerance=1e-13
            )(np.arange(5.0))
            for m in fair.groups.member
        ]
    )  # fmt: skip
    caps = (fair.groups.member & (table.indices(state, problem.horizon) > 0)).sum(axis=1)
    best = share_units(exact, 4, fair.groups, welfare=welfare, caps=caps)
    found = fair.shares(Situation(problem, actions.columns, state, 0))
    assert found.budgets.tolist() == best.budgets.tolist()


def test_a_table_of_few_charges_alone_would_move_budgets():
    """What refinement is for: without it some of these states get other budgets."""
    moved = 0
    for seed in range(12):
        problem, state = drawn(seed)
        tables = [
            ChargeTable(*problem.dynamics.tabular(), horizon=8, discount=0.97, charges=size) for size in (12, 20_000)
        ]
        groups = Groups.of(problem.arms, "group")
        budgets = [
            share_units(t.curves(state, 8, groups, 4).upper, 4, groups, welfare="nash").budgets.tolist() for t in tables
        ]
        moved += budgets[0] != budgets[1]
    assert moved > 0


@pytest.mark.parametrize("welfare", ["nash", "max_min", 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_budgets_without_doubt_are_those_of_every_curve_between_the_limits(welfare, seed):
    rng = np.random.default_rng(seed)
    groups = Groups.from_labels(np.repeat(np.arange(3), (6, 5, 4)))
    base = np.cumsum(np.sort(rng.random((3, 5)), axis=1)[:, ::-1], axis=1) + 3.0
    for width in (1e-1, 1e-2, 1e-3):
        lower, upper = base - width * rng.random(base.shape), base + width * rng.random(base.shape)
        shares = share_units(0.5 * (lower + upper), 6, groups, welfare=welfare)
        if doubtful(lower, upper, shares, groups, welfare=welfare).any():
            continue
        for _ in range(50):
            drawn_curve = lower + (upper - lower) * rng.random(base.shape)
            if (np.diff(drawn_curve, 2, axis=1) <= 0).all():
                assert share_units(drawn_curve, 6, groups, welfare=welfare).budgets.tolist() == shares.budgets.tolist()
