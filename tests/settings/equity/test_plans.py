"""Relaxed equity plans: published optima, two methods, brute force, exact joint programs, and what must not change."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount
from fair_plans import planned
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.planning import Coupling
from rmab_opt.settings.equity import WELFARES, Cohort, Groups, Welfare, gini, smallest_budget
from rmab_opt.settings.equity.budgets import share_units
from rmab_opt.settings.equity.curves import ChargeTable, group_curve, rounds_worth, values_at_charges
from rmab_opt.settings.equity.instances import digital_diabetes, equity_synthetic, maternal_health
from rmab_opt.settings.equity.program import EquityProgram
from rmab_opt.settings.equity.published import mmr, mnw, mnw_eg, whittle_to_lagrange
from rmab_opt.settings.equity.relaxed import Stage


def plan_of(problem, budget, **options):
    transition, reward = problem.dynamics.tabular()
    groups = options.pop("groups", None) or Groups.of(problem.arms, "group")
    common = {"horizon": problem.horizon, "discount": problem.discount}
    return planned(
        transition, reward, problem.start_distribution, groups, Coupling.budgets([budget]), **common, **options
    )


def cohort(seed, sizes, n_states=3, horizon=4):
    """Random two-action arms whose states pay, better when acted on; groups in blocks."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    transition = rng.dirichlet(np.ones(n_states), (n, 2, n_states))
    reward = np.repeat(np.sort(rng.random((n, n_states)), axis=1)[:, :, None], 2, axis=2)
    start = rng.dirichlet(np.ones(n_states), n)
    return transition, reward, start, Groups.from_labels(np.repeat(np.arange(len(sizes)), sizes)), horizon


SYNTHETIC = equity_synthetic().problem


# ---- published numbers
@pytest.mark.parametrize(
    ("budget", "mode", "worst"),
    [
        (0, "step", 1.4491),
        (5, "step", 3.5681),
        (5, "constant", 3.5524),
        (5, "total", 3.6661),
        (10, "step", 5.427862),
        (10, "constant", 5.3991),
        (10, "total", 5.6291),
        (15, "constant", 7.2458),
        (20, "step", 8.0924),
        (33, "total", 8.0924),
    ],
)
def test_the_worst_group_of_the_synthetic_domain_reaches_the_published_optimum(budget, mode, worst):
    plan = plan_of(SYNTHETIC, budget, welfare="max_min", mode=mode)
    assert plan.lower == pytest.approx(worst, abs=6e-5)
    assert plan.values.min() == pytest.approx(plan.lower, abs=1e-6)


def test_group_weights_and_whole_budgets_are_the_published_ones():
    assert plan_of(SYNTHETIC, 10, welfare="max_min").weights == pytest.approx(
        [0.36585, 0.51856, 0.11559, 0, 0], abs=1e-5
    )
    whole = plan_of(SYNTHETIC, 10, welfare="max_min", mode="total", whole=True)
    assert whole.lower == pytest.approx(5.2588, abs=5e-5)


@pytest.mark.parametrize(
    ("budget", "values", "mean"),
    [(20, (9.138, 9.138, 9.138, 8.092, 8.092), 8.668), (33, (13.240, 13.240, 13.240, 8.092, 8.092), 10.924)],
)
def test_leximin_goes_on_where_the_worst_group_is_saturated(budget, values, mean):
    plan = plan_of(SYNTHETIC, budget, welfare="leximin")
    assert plan.values == pytest.approx(values, abs=6e-4)
    assert plan.mean == pytest.approx(mean, abs=6e-4)


@pytest.mark.parametrize(
    ("welfare", "budget", "values"),
    [
        ("nash_groups", 10, (5.129, 3.618, 16.232)),
        ("nash", 10, (6.993, 4.934, 4.430)),
        ("nash_groups", 20, (10.239, 7.281, 17.583)),
        ("nash", 20, (11.252, 8.721, 7.829)),
    ],
)
def test_nash_values_are_the_published_ones(welfare, budget, values):
    plan = plan_of(SYNTHETIC, budget, welfare=welfare, mode="total")
    assert plan.values[:3] == pytest.approx(values, abs=1e-2)
    assert plan.relative_gap <= 1e-6


# ---- two methods and an independent evaluation of the prices
def priced_value(problem, groups, weights, prices, budget):
    """sum_arms V + rent by a plain loop over rounds: the dual objective without any of the package's planners."""
    transition, reward = problem.dynamics.tabular()
    worth = (weights / groups.sizes) @ groups.member
    value = np.zeros(reward.shape[:2])
    for t in range(problem.horizon - 1, -1, -1):
        q = np.einsum("nast,nt->nsa", transition, value) * problem.discount + reward * worth[:, None, None]
        q[:, :, 1] -= prices[t, 0]
        value = q.max(axis=2)
    rent = sum(problem.discount**t * prices[t, 0] * budget for t in range(problem.horizon))
    return float((problem.start_distribution * value).sum() + rent)


DOMAINS = {
    "synthetic": (SYNTHETIC, 10),
    "maternal": (maternal_health(n_arms=30).problem, 3),
    "diabetes": (digital_diabetes(noise=0.0, alpha=0.0, horizon=10).problem, 30),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_program_prices_and_leximin_agree_on_the_worst_group(name):
    problem, budget = DOMAINS[name]
    program = plan_of(problem, budget, welfare="max_min", method="program")
    prices = plan_of(problem, budget, welfare="max_min", method="prices", tolerance=1e-8)
    leximin = plan_of(problem, budget, welfare="leximin", method="program")
    dual = priced_value(problem, program.groups, program.weights, program.prices, budget)
    assert dual == pytest.approx(program.lower, rel=1e-6)
    assert prices.lower == pytest.approx(program.lower, rel=1e-6)
    assert prices.upper == pytest.approx(program.lower, rel=1e-6)
    assert leximin.values.min() == pytest.approx(program.lower, rel=1e-6)
    assert prices.lower <= prices.upper + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(("large", "worst"), [("A", 6.9477), ("B", 6.7661), ("C", 6.5089)])
def test_the_full_maternal_cohorts_reach_the_published_optimum_by_both_methods(large, worst):
    problem = maternal_health(large=large).problem
    program = plan_of(problem, 20, welfare="max_min", method="program")
    prices = plan_of(problem, 20, welfare="max_min", method="prices", tolerance=1e-7)
    assert program.lower == pytest.approx(worst, abs=5e-5)
    assert prices.lower == pytest.approx(program.lower, rel=1e-6)


@pytest.mark.slow
def test_the_full_diabetes_cohort_has_one_optimum_by_all_three_methods():
    """288,000 frequencies: the linear program by interior points, its dual by prices, leximin by prices."""
    problem = digital_diabetes().problem
    groups = Groups.of(problem.arms, "group")
    rows = Coupling.budgets([30])
    given = (*problem.dynamics.tabular(), problem.start_distribution, groups, rows, problem.horizon, problem.discount)
    program = EquityProgram(Cohort(*given)).solve(Stage(np.full(6, -np.inf), free=np.ones(6, dtype=bool)))
    prices = plan_of(problem, 30, welfare="max_min", method="prices", tolerance=1e-8)
    leximin = plan_of(problem, 30, welfare="leximin", method="prices", tolerance=1e-8)
    assert priced_value(problem, groups, program.weights, program.prices, 30) == pytest.approx(program.lower, rel=1e-6)
    assert [prices.lower, prices.upper] == pytest.approx([program.lower] * 2, rel=1e-6)
    assert leximin.values.min() == pytest.approx(program.lower, rel=1e-6)


@pytest.mark.parametrize(("alpha", "worst"), amount([(0.5, 10.4885)], [(0.0, 9.2206), (0.5, 10.4885), (1.0, 11.5211)]))
def test_diabetes_with_group_means_reaches_the_published_optimum(alpha, worst):
    plan = plan_of(digital_diabetes(noise=0.0, alpha=alpha).problem, 30, welfare="max_min", method="prices")
    assert plan.lower == pytest.approx(worst, abs=6e-5)


@pytest.mark.parametrize("welfare", ["nash", 3.0])
def test_nash_and_alpha_by_tangents_and_by_prices_agree_within_their_gaps(welfare):
    problem = DOMAINS["maternal"][0]
    tangents = plan_of(problem, 3, welfare=welfare, method="program")
    prices = plan_of(problem, 3, welfare=welfare, method="prices", tolerance=1e-4)
    assert tangents.lower <= prices.upper + 1e-9
    assert prices.lower <= tangents.upper + 1e-9
    assert tangents.relative_gap <= 1e-6
    assert prices.relative_gap <= 1e-4


def test_the_nash_optimum_is_a_utilitarian_optimum_with_weights_one_over_value():
    plan = plan_of(SYNTHETIC, 10, welfare="nash_groups", tolerance=1e-9)
    dual = priced_value(SYNTHETIC, plan.groups, plan.weights, plan.prices, 10)
    assert plan.weights == pytest.approx(1.0 / plan.values, rel=1e-2)
    # By the certificate sum_g V_g / V*_g cannot exceed K.
    assert dual == pytest.approx(5.0, abs=2e-3)


# ---- value curves
@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_value_curves_are_concave_and_do_not_fall(seed):
    transition, reward, start, _, horizon = cohort(seed, (4,))
    curve = group_curve(transition, reward, start, horizon=horizon, discount=0.95)
    budgets = np.linspace(0, 4, 33)
    values = curve(budgets)
    assert (np.diff(values) >= -1e-9).all()
    assert (np.diff(values, 2) <= 1e-9).all()
    # Every charge gives an upper limit; the curve is their minimum and touches them.
    charges = np.linspace(0, horizon, 400)
    grid = np.einsum("ns,nsl->l", start, values_at_charges(transition, reward, charges, horizon, 0.95)[horizon])
    limits = grid[:, None] + charges[:, None] * budgets * rounds_worth(horizon, 0.95)
    assert (values <= limits.min(axis=0) + 1e-9).all()
    assert values == pytest.approx(limits.min(axis=0), abs=2e-2)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_table_of_charges_brackets_the_exact_curves_and_refines_to_them(seed):
    transition, reward, _, groups, horizon = cohort(seed, (3, 2))
    state = np.random.default_rng(seed).integers(3, size=5)
    table = ChargeTable(transition, reward, horizon=horizon, discount=1.0)
    curves = table.curves(state, horizon, groups, 3)
    upper, lower = curves.upper.copy(), curves.lower.copy()
    assert (np.diff(upper, axis=1) >= -1e-6).all()
    assert (np.diff(upper, 2, axis=1) <= 1e-5).all()
    curves.refine(np.ones(upper.shape, dtype=bool))
    for g, members in enumerate(groups.member):
        exact = group_curve(
            transition[members], reward[members], state[members], horizon=horizon, tolerance=1e-13
        )(np.arange(4.0))  # fmt: skip
        assert (lower[g] <= exact + 1e-9).all()
        assert (upper[g] >= exact - 1e-9).all()
        assert upper[g] == pytest.approx(lower[g], abs=1e-2)
        assert curves.values[g] == pytest.approx(exact, abs=1e-9)
        assert (curves.upper[g] == curves.lower[g]).all()


def test_curves_of_a_published_group_and_of_one_that_cannot_respond():
    transition, reward = SYNTHETIC.dynamics.tabular()
    state = np.array([0] * 13 + [1] * 12)
    curve = group_curve(transition[:25], reward[:25], state, horizon=20, discount=0.9999)
    assert curve(5.0) == pytest.approx(184.411, abs=1e-3)
    assert curve(np.arange(3.0)) / 25 == pytest.approx([2.011, 3.084, 4.158], abs=1e-3)
    assert (np.diff(curve.slopes) <= 1e-9).all()
    flat = group_curve(transition[55:80], reward[55:80], state, horizon=20, discount=0.9999)
    assert flat.budgets.tolist() == [0.0]
    groups = Groups(("A",), np.ones((1, 25), dtype=bool))
    constant = planned(
        transition[:25],
        reward[:25],
        state,
        groups,
        Coupling.budgets([5.0]),
        horizon=20,
        discount=0.9999,
        welfare="max_min",
    )
    # One price a round is tighter than one for all rounds.
    assert 25 * constant.lower == pytest.approx(174.838, abs=1e-3)


# ---- brute force and exact joint programs
@pytest.mark.parametrize("welfare", ["max_min", "nash", "nash_groups", "utilitarian"])
@pytest.mark.parametrize("seed", range(3))
def test_whole_budgets_are_the_best_of_all_splits(welfare, seed):
    sizes, budget = (4, 3, 2), 5
    transition, reward, start, groups, horizon = cohort(seed, sizes)
    curves = np.array(
        [
            group_curve(transition[m], reward[m], start[m], horizon=horizon)(np.arange(budget + 1.0))
            for m in groups.member
        ]
    )
    kind = WELFARES[welfare]

    def worth(split):
        return kind.value(curves[np.arange(3), split] / groups.sizes, groups)

    splits = [s for s in itertools.product(range(5), range(4), range(3)) if sum(s) <= budget]
    best = max(worth(np.array(s)) for s in splits)
    greedy = share_units(curves, budget, groups, welfare=welfare)
    assert greedy.budgets.sum() <= budget
    assert worth(greedy.budgets) == pytest.approx(best, abs=1e-6)
    if kind.kind == "max_min":
        program = planned(
            transition,
            reward,
            start,
            groups,
            Coupling.budgets([budget]),
            horizon=horizon,
            welfare="max_min",
            mode="total",
            whole=True,
        )
        assert program.lower == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_no_joint_policy_exceeds_the_plan(seed):
    """The exact joint program over all states, with the plan's weights, stays below the plan's limit."""
    transition, reward, start, groups, horizon = cohort(seed, (2, 1), n_states=2, horizon=3)
    budget = 1
    plan = planned(transition, reward, start, groups, Coupling.budgets([budget]), horizon=horizon, welfare="max_min")
    worth = (plan.weights / groups.sizes) @ groups.member
    states = list(itertools.product(range(2), repeat=3))
    actions = [a for a in itertools.product(range(2), repeat=3) if sum(a) <= budget]
    value = dict.fromkeys(states, 0.0)
    for _ in range(horizon):
        value = {
            s: max(
                sum(worth[i] * reward[i, s[i], a[i]] for i in range(3))
                + sum(np.prod([transition[i, a[i], s[i], n[i]] for i in range(3)]) * value[n] for n in states)
                for a in actions
            )
            for s in states
        }
    joint = sum(np.prod([start[i, s[i]] for i in range(3)]) * value[s] for s in states)
    # The best worst group of any joint policy is at most its best weighted sum, which is at most the plan's limit.
    assert joint <= plan.upper + 1e-7
    nothing = planned(transition, reward, start, groups, Coupling.budgets([0]), horizon=horizon, welfare="max_min")
    assert joint >= nothing.lower - 1e-9


# ---- what must hold whatever the numbers
@given(st.integers(0, 10_000))
@settings(max_examples=amount(2, 10), deadline=None)
def test_more_budget_never_lowers_welfare(seed):
    transition, reward, start, groups, horizon = cohort(seed, (2, 3))
    for welfare in ("max_min", "nash"):
        values = [
            planned(transition, reward, start, groups, Coupling.budgets([b]), horizon=horizon, welfare=welfare).upper
            for b in (0, 1, 2, 5)
        ]
        assert (np.diff(values) >= -1e-6).all()


def test_nash_is_scale_free():
    transition, reward, start, groups, horizon = cohort(5, (3, 3))
    scaled = reward * np.where(groups.label == 1, 10.0, 1.0)[:, None, None]
    plans = {
        (welfare, kind): planned(
            transition, pay, start, groups, Coupling.budgets([2]), horizon=horizon, welfare=welfare, tolerance=1e-9
        )
        for welfare in ("nash",)
        for kind, pay in (("plain", reward), ("scaled", scaled))
    }
    nash = plans["nash", "plain"].values * [1.0, 10.0]
    assert plans["nash", "scaled"].values == pytest.approx(nash, rel=1e-3)


@pytest.mark.parametrize("welfare", ["max_min", "leximin", "nash", 2.0])
def test_plans_do_not_depend_on_the_unit_of_the_reward(welfare):
    transition, reward, start, groups, horizon = cohort(11, (3, 2))
    plans = [
        planned(
            transition,
            unit * reward,
            start,
            groups,
            Coupling.budgets([1]),
            horizon=horizon,
            welfare=welfare,
            tolerance=1e-9,
        )
        for unit in (1.0, 100.0)
    ]
    assert plans[1].values == pytest.approx(100.0 * plans[0].values, rel=1e-3)
    curves = [
        np.array(
            [
                group_curve(transition[m], unit * reward[m], start[m], horizon=horizon)(np.arange(4.0))
                for m in groups.member
            ]
        )
        for unit in (1.0, 100.0)
    ]
    given = [share_units(curve, 2, groups, welfare=welfare).budgets.tolist() for curve in curves]
    assert given[0] == given[1]


@pytest.mark.parametrize("welfare", ["max_min", "leximin", "nash", 2.0])
def test_symmetric_groups_get_symmetric_values_and_budgets(welfare):
    transition, reward, start, _, horizon = cohort(7, (3,))
    twice = [np.concatenate([part, part]) for part in (transition, reward, start)]
    groups = Groups.from_labels([0] * 3 + [1] * 3)
    plan = planned(
        *twice, groups, Coupling.budgets([2]), horizon=horizon, welfare=welfare, mode="total", tolerance=1e-10
    )
    assert plan.values[0] == pytest.approx(plan.values[1], abs=1e-4)
    curves = np.tile(group_curve(*[part[:3] for part in twice], horizon=horizon)(np.arange(4.0)), (2, 1))
    given = share_units(curves, 4, groups, welfare=welfare).budgets
    assert given[0] == given[1] > 0


def test_what_a_group_has_collected_counts():
    even = plan_of(SYNTHETIC, 10, welfare="max_min")
    ahead = plan_of(SYNTHETIC, 10, welfare="max_min", past=np.array([4.0, 0, 0, 0, 0]))
    assert ahead.use[:, 0].sum() < even.use[:, 0].sum()
    assert ahead.values[:3] == pytest.approx([ahead.lower] * 3, abs=1e-5)
    priced = plan_of(SYNTHETIC, 10, welfare="max_min", past=np.array([4.0, 0, 0, 0, 0]), method="prices")
    assert priced.lower == pytest.approx(ahead.lower, rel=1e-6)


def test_floors_ceilings_and_ratios_hold_and_cost_welfare():
    free = plan_of(SYNTHETIC, 10, welfare="utilitarian")
    floor = plan_of(SYNTHETIC, 10, welfare="utilitarian", floors=np.array([0, 3.0, 3.0, 0, 0]))
    assert (floor.values[1:3] >= 3.0 - 1e-6).all()
    ceiling = plan_of(SYNTHETIC, 10, welfare="utilitarian", gini=0.2)
    assert gini(ceiling.values) == pytest.approx(0.2, abs=1e-6)
    ratio = plan_of(SYNTHETIC, 10, welfare="utilitarian", ratio=0.5)
    assert ratio.values.min() / ratio.values.max() == pytest.approx(0.5, abs=1e-6)
    assert max(floor.lower, ceiling.lower, ratio.lower) < free.lower
    priced = plan_of(SYNTHETIC, 10, welfare="utilitarian", floors=np.array([0, 3.0, 3.0, 0, 0]), method="prices")
    assert priced.lower == pytest.approx(floor.lower, rel=1e-6)
    with pytest.raises(InfeasibleError):
        plan_of(SYNTHETIC, 10, welfare="utilitarian", floors=np.full(5, 9.0))
    with pytest.raises(InfeasibleError):
        plan_of(SYNTHETIC, 10, welfare="utilitarian", floors=np.full(5, 9.0), method="prices")
    with pytest.raises(CapabilityError, match="mode='total' and whole"):
        plan_of(SYNTHETIC, 10, mode="total", whole=True, method="prices")


@pytest.mark.parametrize(
    ("welfare", "limit"),
    [("utilitarian", {"gini": 0.15}), ("nash", {"gini": 0.15, "ratio": 0.5}), ("max_min", {"ratio": 0.99})],
)
def test_limits_on_inequality_by_prices_are_those_of_the_program(welfare, limit):
    problem = maternal_health(n_arms=30).problem
    program = plan_of(problem, 3, welfare=welfare, method="program", **limit)
    prices = plan_of(problem, 3, welfare=welfare, method="prices", tolerance=1e-5, **limit)
    free = plan_of(problem, 3, welfare=welfare, method="program")
    assert prices.lower == pytest.approx(program.lower, rel=2e-5)
    assert prices.upper == pytest.approx(program.lower, rel=2e-5)
    assert program.lower <= free.lower + 1e-9
    assert gini(prices.values) <= limit.get("gini", 1.0) + 1e-6
    assert prices.values.min() >= limit.get("ratio", 0.0) * prices.values.max() - 1e-6


def test_a_ceiling_on_inequality_that_nobody_can_keep_is_infeasible_by_both_methods():
    for method in ("program", "prices"):
        with pytest.raises(InfeasibleError):
            plan_of(SYNTHETIC, 0, welfare="utilitarian", gini=0.01, method=method)
    with pytest.raises(ModelError, match="gini is"):
        plan_of(SYNTHETIC, 10, gini=1.5)


@pytest.mark.parametrize("welfare", ["utilitarian", "max_min", "nash"])
def test_floors_of_single_arms_hold_by_both_methods(welfare):
    transition, reward, start, groups, horizon = cohort(2, (2, 2))
    common = {"horizon": horizon, "welfare": welfare, "tolerance": 1e-7}

    def plan(budget, **options):
        return planned(transition, reward, start, groups, Coupling.budgets([budget]), **common, **options)

    idle, free = plan(0), plan(1)
    floors = np.full(4, -np.inf)
    # What arm 2 gets when every round is its own costs the others.
    floors[2] = group_curve(transition[2:3], reward[2:3], start[2:3], horizon=horizon).values[-1] - 1e-4
    held, priced = plan(1, arm_floors=floors), plan(1, arm_floors=floors, method="prices")
    assert idle.lower < held.lower < free.lower - 1e-4
    assert [priced.lower, priced.upper] == pytest.approx([held.lower] * 2, rel=1e-6, abs=1e-6)
    assert priced.values.shape == priced.weights.shape == (2,)
    floors[2] = 100.0
    for method in ("program", "prices"):
        with pytest.raises(InfeasibleError):
            plan(1, arm_floors=floors, method=method)


def test_groups_may_overlap():
    problem = digital_diabetes(noise=0.0, n_arms=60).problem
    groups = Groups.of(problem.arms, "sex", "age")
    assert groups.names == ("sex=1", "sex=2", "age=30-44", "age=45-54", "age=55-64")
    program = plan_of(problem, 6, welfare="max_min", groups=groups, method="program")
    prices = plan_of(problem, 6, welfare="max_min", groups=groups, method="prices")
    assert prices.lower == pytest.approx(program.lower, rel=1e-6)
    with pytest.raises(ModelError, match="overlap"):
        plan_of(problem, 6, welfare="max_min", groups=groups, mode="total")


def test_the_smallest_budget_is_the_inverse_of_max_min():
    found = smallest_budget(SYNTHETIC, "group", 5.427862)
    assert found.budgets == pytest.approx(np.full(20, 10.0), abs=1e-3)
    by_round = smallest_budget(SYNTHETIC, "group", 5.427862, constant=False)
    assert by_round.cost <= found.cost + 1e-6
    assert smallest_budget(SYNTHETIC, "group", 5.0, whole=True).budgets[0] == 9
    with pytest.raises(InfeasibleError):
        smallest_budget(SYNTHETIC, "group", 8.5)


# ---- the published planners
def test_published_water_filling_feeds_the_saturated_and_the_repaired_one_does_not():
    flat, rising = np.full(11, 10.0), np.linspace(20, 40, 11)
    assert mmr([flat, rising], 8, as_written=True).tolist() == [8, 0]
    assert mmr([flat, rising], 8).tolist() == [0, 8]


def test_published_curves_fall_where_repaired_ones_do_not():
    transition, reward = SYNTHETIC.dynamics.tabular()
    state = np.array([0] * 13 + [1] * 12)
    index = np.where(state == 0, 1.342665, 0.639936)
    common = {"rounds": 20, "discount": 0.9999}
    written = whittle_to_lagrange(transition[:25], reward[:25], state, index, as_written=True, **common)
    repaired = whittle_to_lagrange(transition[:25], reward[:25], state, index, **common)
    exact = group_curve(transition[:25], reward[:25], state, horizon=20, discount=0.9999)(np.arange(26.0))
    assert (np.diff(written) < -1e-6).sum() == 2
    assert (np.diff(repaired) >= -1e-9).all()
    assert (repaired >= exact - 1e-9).all()
    assert (written >= repaired - 1e-9).all()


@pytest.mark.parametrize("budget", [98, 100, 130])
def test_equalised_nash_ends_where_the_published_loop_does_not(budget):
    members = np.split(np.arange(100), [25, 50, 55, 80])
    curve = {n: np.sqrt(np.arange(n + 1.0)) + 1.0 for n in (25, 5, 20)}
    given = mnw_eg(lambda arms: curve[len(arms)], members, budget, as_written=True, rng=np.random.default_rng(0))
    assert given.sum() == min(budget, 100)
    assert (given <= [25, 25, 5, 25, 20]).all()


def test_nash_over_groups_takes_zero_values():
    zero, rising = np.zeros(5), np.linspace(0.0, 4.0, 5)
    assert mnw([zero, rising], 3).tolist() == [0, 3]
    assert mnw([zero, rising], 3, as_written=True).sum() == 3


# ---- small things
def test_gini_by_its_definition():
    values = np.array([1.0, 2.0, 6.0])
    by_pairs = sum(abs(a - b) for a in values for b in values) / (2 * 9 * values.mean())
    assert gini(values) == pytest.approx(by_pairs)
    assert gini(np.zeros(3)) == 0.0
    assert gini(np.stack([values, values])) == pytest.approx([by_pairs] * 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Welfare.of("leximax"),
        lambda: Welfare("odd", "alpha", -1.0),
        lambda: Groups(("a", "b"), np.array([[True, True], [False, False]])),
        lambda: Groups(("a",), np.array([[True, False]])),
        lambda: plan_of(SYNTHETIC, 10, method="magic"),
        lambda: plan_of(SYNTHETIC, 10, mode="daily"),
        lambda: plan_of(SYNTHETIC, 10, tolerance=0.0),
    ],
)
def test_faults_are_named(make):
    with pytest.raises(ModelError) as raised:
        make()
    assert "To fix" in str(raised.value)
