"""Leximin by prices: each level against one linear program a level, overlapping groups, rosters, stopping early."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amounts import amount
from scipy import sparse
from scipy.optimize import linprog

import rmab_opt as ro
from rmab_opt import ActionSet
from rmab_opt.actions.kinds import Guarantee as Declared
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.planning import Coupling
from rmab_opt.planning.occupancy import occupancy_program
from rmab_opt.problem import Arms
from rmab_opt.settings.equity import Cohort, Groups, Limits, fair_plan, fair_plan_arrays
from rmab_opt.settings.equity.guarantees import Guarantee
from rmab_opt.settings.equity.instances import equity_synthetic
from rmab_opt.settings.equity.outcomes import fairness_of
from rmab_opt.settings.equity.policies import FairObjective


def random_cohort(seed, n_arms=9, n_groups=4, horizon=4, unit=1.0, overlap=True):
    """Random arms in groups that overlap, under a budget of two."""
    rng = np.random.default_rng(seed)
    move = rng.dirichlet(np.ones(3), (n_arms, 2, 3))
    pay = unit * np.repeat(np.sort(rng.random((n_arms, 3)), axis=1)[:, :, None], 2, axis=2)
    member = rng.random((n_groups, n_arms)) < (0.5 if overlap else 0.0)
    member[rng.integers(0, n_groups, n_arms), np.arange(n_arms)] = True
    member = member[member.any(axis=1)]
    groups = Groups(tuple(f"g{k}" for k in range(len(member))), member)
    return Cohort(move, pay, rng.integers(0, 3, n_arms), groups, Coupling.budgets([2.0]), horizon, 0.95)


def levels_by_scipy(cohort):
    """Leximin values by one linear program a level over all frequencies; groups that no optimum lifts are settled."""
    base, _ = occupancy_program(
        cohort.transition, cohort.reward, cohort.start, discount=cohort.discount, horizon=cohort.horizon,
        coupling=cohort.coupling,
    )  # fmt: skip
    n_groups, width = len(cohort.groups), base.cost.size
    weight = cohort.discount ** np.arange(cohort.horizon)
    per = cohort.groups.member / cohort.groups.sizes[:, None]
    value = np.concatenate([w * (per[:, :, None, None] * cohort.reward).reshape(n_groups, -1) for w in weight], axis=1)
    equal = base.row_lower == base.row_upper
    same, cap = base.matrix[np.flatnonzero(equal)], base.matrix[np.flatnonzero(~equal)]

    def best(cost, floors, free):
        """Largest cost' (x, z), z at most the free groups' values."""
        rows = sparse.vstack(
            [
                sparse.hstack([cap, sparse.csr_array((cap.shape[0], 1))]),
                sparse.hstack([sparse.csr_array(-value), sparse.csr_array(free[:, None].astype(float))]),
            ]
        )
        limit = np.concatenate([base.row_upper[~equal], np.where(free, 0.0, -floors)])
        found = linprog(
            -cost, rows, limit, sparse.hstack([same, sparse.csr_array((same.shape[0], 1))]), base.row_lower[equal],
            bounds=[(0, None)] * width + [(None, None)],
        )  # fmt: skip
        return -found.fun

    floors, free = np.full(n_groups, -np.inf), np.ones(n_groups, dtype=bool)
    while free.any():
        level = best(np.append(np.zeros(width), 1.0), np.where(free, 0.0, floors), free)
        for g in np.flatnonzero(free):
            # What this group can get when the others keep the level.
            held = np.where(free, level - 1e-9, floors)
            most = best(np.append(value[g], 0.0), held, np.zeros(n_groups, dtype=bool))
            if most <= level + 1e-6:
                free[g], floors[g] = False, level - 1e-9
    return floors


@pytest.mark.parametrize("seed", range(4))
def test_all_levels_of_overlapping_groups_are_those_of_plain_linear_programs(seed):
    cohort = random_cohort(seed)
    plan = fair_plan_arrays(cohort)
    assert plan.method == "prices"
    assert plan.values == pytest.approx(levels_by_scipy(cohort), abs=1e-5)
    assert plan.complete
    assert sorted(g for level in plan.levels for g in level.groups) == list(range(len(cohort.groups)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 54))
def test_fifty_more_overlapping_instances(seed):
    cohort = random_cohort(seed, n_arms=10 + seed % 5, n_groups=3 + seed % 4)
    assert fair_plan_arrays(cohort).values == pytest.approx(levels_by_scipy(cohort), abs=1e-5)


@pytest.mark.parametrize("unit", [1e-9, 1e7])
def test_the_unit_of_the_reward_does_not_matter(unit):
    plain, scaled = fair_plan_arrays(random_cohort(1)), fair_plan_arrays(random_cohort(1, unit=unit))
    assert scaled.values / unit == pytest.approx(plain.values, rel=1e-6)
    assert [scaled.lower / unit, scaled.upper / unit] == pytest.approx([plain.lower, plain.upper], rel=1e-6)


@pytest.mark.parametrize("k", amount([-40, 24], [-40, -20, 24, 40]))
@pytest.mark.parametrize("welfare", ["nash", 0.5, 2.0])
@pytest.mark.parametrize("method", ["prices", "program"])
def test_a_curved_welfare_is_planned_in_one_unit(method, welfare, k):
    """Rewards times 2^k: the same plan bit for bit, welfare and prices as the curve has them at the new values."""
    size = 2.0**k
    plain, scaled = (
        fair_plan_arrays(random_cohort(1, unit=one), welfare=welfare, method=method) for one in (1.0, size)
    )
    assert (scaled.values / size).tolist() == plain.values.tolist()
    curve = 1.0 if welfare == "nash" else size ** (1.0 - welfare)
    each = np.log(scaled.values) if welfare == "nash" else scaled.values ** (1.0 - welfare) / (1.0 - welfare)
    assert scaled.lower == pytest.approx(scaled.welfare.weights(scaled.groups) @ each, rel=1e-9)
    assert scaled.upper - scaled.lower == pytest.approx(
        curve * (plain.upper - plain.lower), rel=1e-3, abs=1e-12 * curve
    )
    assert scaled.prices == pytest.approx(plain.prices * curve, rel=1e-12)
    assert scaled.weights == pytest.approx(plain.weights * curve / size, rel=1e-12)


def test_levels_are_told_as_they_settle_and_a_stopped_plan_says_what_is_proven():
    cohort, told = random_cohort(2), []
    whole = fair_plan_arrays(cohort, on_level=told.append)
    assert [level.value for level in told] == [level.value for level in whole.levels]
    assert all(level.value <= level.upper + 1e-12 for level in told)
    stopped = fair_plan_arrays(cohort, seconds=0.0)
    assert not stopped.complete
    assert stopped.lower <= whole.upper + 1e-7
    assert stopped.upper >= whole.lower - 1e-7
    assert "stopped" in str(stopped)


def test_a_roster_is_kept_by_rows_that_the_plan_broke():
    """The same optimum as one program that holds the roster's own variables; rows were needed for it."""
    model = ro.load("weekly_calls", **{"problem.first": 14, "weekly.at_most": 6, "villages.at_least": 0})
    found = [
        fair_plan(model.problem, model.actions, "village", welfare="max_min", method=method, tolerance=1e-6)
        for method in ("prices", "program")
    ]
    assert found[0].lower == pytest.approx(found[1].lower, rel=1e-5)
    assert found[0].upper == pytest.approx(found[1].upper, rel=1e-5)


# ---- groups by several columns
PEOPLE = Arms.from_arrays(6, village=list("AABBCC"), sex=list("fmfmfm"), age=["old", "old", "", "young", "old", "old"])


def test_groups_by_several_columns_and_their_intersections():
    both = Groups.of(PEOPLE, "village,sex")
    assert both.names == ("village=A", "village=B", "village=C", "sex=f", "sex=m")
    assert both.overlap
    assert both.member.sum(axis=0).tolist() == [2] * 6
    assert Groups.of(PEOPLE, "village*sex").names == ("A*f", "A*m", "B*f", "B*m", "C*f", "C*m")
    assert "A*f (1)" in Groups.of(PEOPLE, "village*sex").small
    assert Groups.of(PEOPLE, "village", "sex").names == both.names


def test_a_group_without_a_name_and_an_unknown_column_are_refused():
    with pytest.raises(ModelError, match="has no age"):
        Groups.of(PEOPLE, "village,age")
    with pytest.raises(ModelError, match="no column 'parish'"):
        Groups.of(PEOPLE, "village*parish")


# ---- guaranteed services
def test_guaranteed_services_have_the_published_welfare_and_say_what_they_cost():
    problem = equity_synthetic().problem
    move, pay = problem.dynamics.tabular()
    groups = Groups.of(problem.arms, "group")
    rows = Coupling.budgets([20.0])
    cohort = Cohort(move, pay, problem.start_distribution, groups, rows, problem.horizon, problem.discount)
    free, sure = (
        fair_plan_arrays(cohort, Limits(services=services), welfare="utilitarian")
        for services in ((), (Guarantee(2, certain=True),))
    )
    assert free.lower == pytest.approx(8.88894, abs=1e-5)
    assert sure.lower == pytest.approx(8.22293, abs=1e-5)
    assert sure.cost == pytest.approx(8.88894 - 8.22293, abs=1e-3)
    assert "at least 2 certain services per arm" in str(sure)


@pytest.mark.slow
def test_two_expected_services_an_arm_cost_the_published_welfare():
    problem = equity_synthetic().problem
    move, pay = problem.dynamics.tabular()
    groups = Groups.of(problem.arms, "group")
    cohort = Cohort(move, pay, problem.start_distribution, groups, Coupling.budgets([20.0]), 20, problem.discount)
    plan = fair_plan_arrays(cohort, Limits(services=(Guarantee(2),)), welfare="utilitarian")
    assert plan.lower == pytest.approx(8.22293, abs=1e-5)


def test_certain_services_are_those_of_the_best_schedule_of_one_arm():
    """One arm that acting harms, two services in the first three of five rounds: every schedule is tried."""
    move = np.array([[[[0.5, 0.5], [0.2, 0.8]], [[0.9, 0.1], [0.7, 0.3]]]])
    pay = np.array([[[0.0, 0.0], [1.0, 1.0]]])
    cohort = Cohort(move, pay, np.array([1]), Groups.from_labels(["a"]), Coupling.budgets([1.0]), 5)
    sure = Limits(services=(Guarantee(2, end=3, certain=True),))
    found = fair_plan_arrays(cohort, sure, welfare="utilitarian").lower

    def best(state, period, given):
        if period == 5:
            return 0.0
        options = [0, 1] if 2 - given < max(0, 3 - period) or given >= 2 else [1]
        return max(
            pay[0, state, a] + sum(move[0, a, state, x] * best(x, period + 1, given + a) for x in (0, 1))
            for a in options
        )

    assert found == pytest.approx(best(1, 0, 0), abs=1e-7)
    free = fair_plan_arrays(dataclasses.replace(cohort), welfare="utilitarian").lower
    assert found < free - 0.1


def guaranteed(**fields):
    """Twenty synthetic arms under a budget of four, with a guarantee among the constraints."""
    model = ro.load("equity_synthetic", n_arms=20, at_most=4)
    constraints = model.actions.declared | {"sure": Declared.model_validate(fields)}
    return dataclasses.replace(model, actions=ActionSet(model.actions.columns, constraints))


@pytest.mark.parametrize("certain", [True, False])
def test_a_guarantee_of_the_model_is_kept_in_plans_and_costs_the_published_welfare(certain):
    model = guaranteed(at_least=2, end=20, certain=certain)
    plan = fair_plan(model.problem, model.actions, welfare="utilitarian")
    assert plan.upper == pytest.approx(8.22293, abs=5e-6)
    assert plan.method == "program"
    assert plan.over_all == pytest.approx(8.88894, abs=1e-4)
    with pytest.raises(CapabilityError, match="services by prices"):
        fair_plan(model.problem, model.actions, method="prices")


def test_services_before_a_round_count_in_its_plan():
    """Everybody has had theirs but one arm, who gets two in the three rounds that are left."""
    model = guaranteed(at_least=2, end=20)
    rows = [{"id": name, "services": 0 if n == 4 else 2} for n, name in enumerate(model.problem.arms.ids)]
    for certain in (True, False):
        later = guaranteed(at_least=2, end=20, certain=certain, done=rows, before=17)
        state = np.zeros(20, dtype=np.int64)
        plan = fair_plan(later.problem, later.actions, state=state, period=17, welfare="utilitarian")
        cohort = Cohort.of(later.problem, later.actions, "group", state=state, period=17)
        alone = Groups(("that arm", "others"), np.stack([np.arange(20) == 4, np.arange(20) != 4]))
        cohort = dataclasses.replace(cohort, groups=alone, past=None)
        served = fair_plan_arrays(
            cohort, Limits(services=Guarantee.declared(later.actions, 17)), welfare="utilitarian"
        )  # fmt: skip
        assert served.use[:, 0].sum() >= 2.0 - 1e-6
        free = fair_plan_arrays(cohort, welfare="utilitarian")
        assert plan.upper <= free.upper + 1e-7
    with pytest.raises(CapabilityError, match="none are counted in rounds that are simulated"):
        fair_plan(model.problem, model.actions, state=state, period=17)


def test_a_guarantee_of_groups_of_another_column_is_kept():
    model = guaranteed(at_least=9, per="group", end=20)
    pairs = Groups.from_labels(np.arange(20) % 2)
    plan = fair_plan(model.problem, model.actions, pairs, welfare="utilitarian")
    own = fair_plan(model.problem, model.actions, "group", welfare="utilitarian")
    assert plan.upper == pytest.approx(own.upper, rel=1e-7)
    assert own.use.sum(axis=0).min() >= 9.0 - 1e-6


def test_a_fair_decision_keeps_what_a_round_owes():
    model = guaranteed(at_least=2, end=2, room=20)
    sure = {"sure": model.actions.declared["sure"]}
    model = dataclasses.replace(model, actions=ActionSet(model.actions.columns, sure))
    fair = FairObjective(model.problem, model.actions)
    made = ro.decide(model.with_objective(fair), np.zeros(20, dtype=np.int64))
    assert len(made.chosen) == 20
    told = fairness_of(model, made, "group")
    assert "leave out sure" in told.sentence
