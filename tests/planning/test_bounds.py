"""One bound by several methods, against published values, joint dynamic programs and the order of bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Capacity, Knapsack, Linear, LockedIn, Scheduling
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.instances import ladders
from rmab_opt.instances.synthetic import delayed, ladder_mix, unstructured
from rmab_opt.planning import (
    Coupling,
    bound,
    bound_arrays,
    budget_curve,
    dual_average,
    dual_discounted,
    dual_finite,
    marginal_arms,
    occupancy_model,
    polyhedron,
    solve_occupancy,
    sweep,
)
from rmab_opt.planning.lagrangian import evaluate_prices
from rmab_opt.problem import Arms, Problem, Tabular
from rmab_opt.solver import Session

PUBLISHED = {
    # generator G-easy, seed 0: (states, actions, arms, horizon or None): value
    (5, 2, 100, None): 954.747577,
    (5, 2, 1000, None): 9520.967545,
    (10, 3, 100, None): 1077.998828,
    (10, 3, 1000, None): 10481.957569,
    (5, 2, 100, 20): 955.341236,
    (5, 2, 1000, 20): 9524.700373,
    (10, 3, 100, 20): 1076.514397,
}


def easy(n_arms, n_states, n_actions):
    cohort = ladder_mix(n_arms, n_states, n_actions, 0)
    transition, reward = cohort.dynamics.tabular()
    return transition, reward, Coupling.budgets([0.1 * n_arms, 0.05 * n_arms][: n_actions - 1]), cohort.start


@pytest.mark.parametrize("case", list(PUBLISHED))
def test_published_values_lie_between_the_two_sides_of_the_certificate(case):
    n_states, n_actions, n_arms, horizon = case
    transition, reward, coupling, start = easy(n_arms, n_states, n_actions)
    if horizon is None:
        found = dual_discounted(transition, reward, coupling, start, discount=0.95)
    else:
        found = dual_finite(transition, reward, coupling, start, horizon=horizon)
    slack = 1e-6 * found.value
    assert found.lower - slack <= PUBLISHED[case] <= found.value + 1e-6
    assert found.relative_gap <= 1e-6
    assert found.converged


@pytest.mark.parametrize(("seed", "value"), amount([(0, 1831.15)], [(0, 1831.15), (1, 1708.49), (2, 1685.53)]))
def test_published_bounds_of_the_hard_generator(seed, value):
    cohort = delayed(50, 4, 3, seed)
    found = dual_finite(*cohort.dynamics.tabular(), Coupling.budgets([5, 3]), cohort.start, horizon=50, tolerance=1e-5)
    assert found.value == pytest.approx(value, rel=2e-5)


@pytest.mark.slow
def test_published_bounds_of_the_other_generators():
    easy_one, free = ladder_mix(50, 4, 3, 0), unstructured(50, 4, 3, 0)
    budgets = Coupling.budgets([5, 3])
    value = dual_finite(*easy_one.dynamics.tabular(), budgets, easy_one.start, horizon=50, tolerance=1e-6).value
    assert value == pytest.approx(1392.246, rel=2e-6)
    value = dual_finite(*free.dynamics.tabular(), budgets, free.start, horizon=50, tolerance=1e-5).value
    assert value == pytest.approx(1342.73, rel=2e-5)


@pytest.mark.parametrize("n_actions", amount([3], [2, 3]))
@pytest.mark.parametrize("setting", ["discounted", "finite", "finite discounted", "average"])
def test_dual_simplex_interior_point_and_pyomo_agree(n_actions, setting):
    transition, reward, coupling, start = easy(100 if setting != "finite discounted" else 20, 4, n_actions)
    options = {
        "discounted": {"discount": 0.95},
        "finite": {"horizon": 6},
        "finite discounted": {"horizon": 6, "discount": 0.9},
        "average": {},
    }[setting]
    if setting == "average":
        found = dual_average(transition, reward, coupling, tolerance=1e-8, occupancy=True)
    elif setting == "discounted":
        found = dual_discounted(transition, reward, coupling, start, tolerance=1e-8, occupancy=True, **options)
    else:
        found = dual_finite(transition, reward, coupling, start, tolerance=1e-8, occupancy=True, **options)
    values = [
        solve_occupancy(transition, reward, start, coupling=coupling, algorithm=algorithm, **options).value
        for algorithm in ("simplex", "ipm")
    ]
    model = occupancy_model(transition, reward, start, coupling=coupling, **options)
    values.append(Session(model, "exact").solve().objective)
    assert np.allclose(values, found.value, rtol=1e-6)
    # The recovered occupancy earns the lower value and keeps the budgets.
    weight = options.get("discount", 1.0) ** np.arange(6) if "horizon" in options else np.ones(1)
    frequency = found.occupancy if "horizon" in options else found.occupancy[None]
    assert np.einsum("t,nsa,tnsa->", weight, reward, frequency) == pytest.approx(found.lower, rel=1e-7)
    rounds = 1 / (1 - 0.95) if setting == "discounted" else 1.0
    used = frequency.sum(axis=(1, 2))[:, 1:]
    assert (used <= coupling.limit * rounds * (1 + 1e-6) + 1e-6).all()


def joint_optimum(transition, reward, start, allowed, horizon, discount):
    """Exact dynamic program over joint states; ``allowed`` judges a joint action."""
    n_arms, n_actions, n_states, _ = transition.shape
    states = list(itertools.product(range(n_states), repeat=n_arms))
    actions = [a for a in itertools.product(range(n_actions), repeat=n_arms) if allowed(a)]
    value = np.zeros([n_states] * n_arms)
    for _ in range(horizon):
        fresh = np.empty_like(value)
        for s in states:
            best = -np.inf
            for a in actions:
                ahead = value
                for n in range(n_arms):
                    ahead = np.tensordot(transition[n, a[n], s[n]], ahead, axes=(0, 0))
                best = max(best, sum(reward[n, s[n], a[n]] for n in range(n_arms)) + discount * float(ahead))
            fresh[s] = best
        value = fresh
    return value[tuple(start)]


@given(st.integers(0, 10_000))
@settings(max_examples=amount(2, 6), deadline=None)
def test_joint_dynamic_program_stays_below_every_bound(seed):
    """Three arms, three states, two actions, all joint states enumerated; also the order of the bounds."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(3, 0.6), (3, 2, 3))
    reward = rng.random((3, 3, 2))
    start = rng.integers(0, 3, 3)
    coupling = Coupling.budgets([1])
    exact = joint_optimum(transition, reward, start, lambda a: sum(a) <= 1, 5, 0.9)
    indexed = dual_finite(transition, reward, coupling, start, horizon=5, discount=0.9)
    assert exact <= indexed.value + 1e-9
    free, _ = evaluate_prices(transition, reward, coupling, start, np.zeros(1), discount=0.9, horizon=5)
    some, _ = evaluate_prices(transition, reward, coupling, start, np.array([0.3]), discount=0.9, horizon=5)
    assert indexed.value <= min(some, free) + 1e-9
    # An endless run: more rounds, constant prices, tail.
    long = joint_optimum(transition, reward, start, lambda a: sum(a) <= 1, 60, 0.8)
    steady = bound_arrays(transition, reward, start, coupling, horizon=8, discount=0.8, kind="discounted")
    tail = bound_arrays(transition, reward, start, coupling, horizon=8, discount=0.8, kind="discounted_tail")
    assert long <= tail.value + 1e-9
    assert tail.value <= steady.value + 1e-9


@given(st.integers(0, 10_000))
@settings(max_examples=amount(4, 5), deadline=None)
def test_joint_dynamic_program_with_three_actions_and_a_knapsack(seed):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(2, 0.6), (3, 3, 2))
    reward = rng.random((3, 2, 3))
    start = rng.integers(0, 2, 3)
    cost = np.concatenate([np.zeros((3, 1)), rng.uniform(0.5, 2, (3, 2)).cumsum(axis=1)], axis=1)
    coupling = Coupling.knapsack(cost, 2.5)
    exact = joint_optimum(transition, reward, start, lambda a: cost[np.arange(3), a].sum() <= 2.5 + 1e-9, 4, 1.0)
    found = dual_finite(transition, reward, coupling, start, horizon=4)
    solved = solve_occupancy(transition, reward, start, coupling=coupling, horizon=4)
    assert exact <= found.value + 1e-9
    assert found.value == pytest.approx(solved.value, rel=2e-6)


def small_problem(n_arms=4, n_actions=2, horizon=5, seed=0, **columns):
    rng = np.random.default_rng(seed)
    dynamics = Tabular(rng.dirichlet(np.full(3, 0.7), (n_arms, n_actions, 3)), rng.random((n_arms, 3, n_actions)))
    return Problem(Arms.from_arrays(n_arms, **columns), dynamics, horizon=horizon, start=rng.integers(0, 3, n_arms))


def sets_of_rows():
    village = small_problem(village=["x", "x", "y", "y"], cost=[1, 2, 2, 1])
    yield village, ActionSet(village.arms, {"budget": Budget(at_most=2)})
    yield village, ActionSet(village.arms, {"budget": Budget(at_most=2), "village": Linear(per="village", at_most=1)})
    yield village, ActionSet(village.arms, {"money": Knapsack(cost="cost", at_most=3)})
    yield village, ActionSet(village.arms, {"budget": Budget(equal=2), "village": Linear(per="village", at_least=1)})
    yield village, ActionSet(village.arms, {"budget": Budget(at_most=2), "always": LockedIn(ids=("arm1",))})


@pytest.mark.parametrize("number", range(5))
def test_every_kind_of_rows_gives_one_number_by_all_methods_and_bounds_the_joint_optimum(number):
    problem, actions = list(sets_of_rows())[number]
    values = {method: bound(problem, actions, method=method) for method in ("dual", "highs", "pyomo")}
    reference = values["highs"].value
    for found in values.values():
        assert found.value == pytest.approx(reference, rel=3e-6)
        assert found.lower <= found.value
    transition, reward = problem.dynamics.tabular()
    exact = joint_optimum(
        transition, reward, problem.start, lambda a: not actions.violations(np.array(a)), problem.horizon, 1.0
    )
    assert exact <= values["dual"].value + 1e-9
    tight = bound(problem, actions, method="highs", integer=True)
    assert exact - 1e-7 <= tight.value <= reference + 1e-7


@pytest.mark.parametrize("domain", ["scheduling", "capacity"])
def test_coupling_through_rosters_and_capacities_tightens_the_bound_and_stays_above_the_joint_optimum(domain):
    instance = getattr(ladders, domain)(n_arms=4, n_workers=2, horizon=4, seed=3)
    problem = Problem(
        instance.problem.arms, instance.problem.dynamics, horizon=4, start=np.array([0, 1, 0, 1], dtype=np.int64)
    )
    if domain == "scheduling":
        kinds = {"roster": Scheduling(roster=instance.tables["roster"], visits=2), "weekly": Budget(at_most=2)}
    else:
        kinds = {"load": Capacity(workers=instance.tables["workers"], cost="load")}
    actions = ActionSet(problem.arms, kinds)
    found = bound(problem, actions)
    assert found.coupling == "relaxation"
    assert found.value == pytest.approx(bound(problem, actions, method="pyomo").value, rel=1e-6)
    loose = bound(problem, ActionSet(problem.arms, {"weekly": Budget(at_most=4)}))
    assert found.value <= loose.value + 1e-6
    exact = joint_optimum(
        *problem.dynamics.tabular(), problem.start, lambda a: not actions.violations(np.array(a)), 4, 1.0
    )
    tight = bound(problem, actions, integer=True)
    assert exact - 1e-7 <= tight.value <= found.value + 1e-7
    for kind in ("discounted", "average"):
        steady = bound(problem, actions, kind=kind, discount=0.9)
        readable = bound(problem, actions, kind=kind, discount=0.9, method="pyomo")
        assert steady.value == pytest.approx(readable.value, rel=1e-6)
        assert steady.gap < 1e-6 * steady.value


def test_actions_per_arm_with_budgets_of_their_own():
    problem = small_problem(n_arms=5, n_actions=3)
    columns = Columns.of_arm_actions(problem.arms, 3)
    kinds = {f"action{a}": Linear(where={"action": str(a)}, at_most=b) for a, b in ((1, 2), (2, 1))}
    actions = ActionSet(columns, kinds)
    found = bound(problem, actions)
    assert found.price_names == ("action1", "action2")
    transition, reward = problem.dynamics.tabular()
    direct = dual_finite(transition, reward, Coupling.budgets([2, 1]), problem.start, horizon=5)
    assert found.value == pytest.approx(direct.value, rel=3e-6)
    assert found.value == pytest.approx(bound(problem, actions, method="pyomo").value, rel=3e-6)
    rows = polyhedron(actions, 3)
    assert rows.arm.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rows.action.tolist() == [1, 2] * 5


def test_identical_arms_are_merged_without_changing_the_bound():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 30)
    transition = rng.dirichlet(np.ones(4), (3, 2, 4))[kinds]
    reward = rng.random((3, 4, 2))[kinds]
    start = rng.integers(0, 4, 30)
    coupling = Coupling.budgets([6])
    merged = dual_finite(transition, reward, coupling, start, horizon=6, tolerance=1e-8, occupancy=True)
    jitter = transition.copy()
    nudge = rng.uniform(0, 1e-9, 30)
    jitter[:, 0, 0, 0] += nudge
    jitter[:, 0, 0, 1] -= nudge
    separate = dual_finite(jitter, reward, coupling, start, horizon=6, tolerance=1e-8)
    assert merged.value == pytest.approx(separate.value, rel=1e-6)
    assert merged.occupancy.shape == (6, 30, 4, 2)
    small = solve_occupancy(transition, reward, start, coupling=coupling, horizon=6)
    assert small.columns == 6 * 3 * 4 * 2
    assert small.value == pytest.approx(merged.value, rel=1e-6)


def test_a_search_stopped_early_still_bounds():
    transition, reward, coupling, start = easy(100, 5, 2)
    for evaluations in (1, 3, 10):
        early = dual_finite(transition, reward, coupling, start, horizon=20, evaluations=evaluations)
        assert not early.converged
        assert early.evaluations == evaluations
        assert early.value >= 955.341235
        assert early.lower <= 955.341237
    warm = dual_finite(transition, reward, coupling, start, horizon=20)
    again = dual_finite(transition, reward, coupling, start, horizon=20, prices=warm.prices, evaluations=1)
    assert again.value == pytest.approx(warm.value, abs=1e-9)


def test_a_solver_without_time_leaves_the_unpriced_bound_and_says_so():
    instance = ladders.capacity(n_arms=20, n_workers=4, horizon=15)
    actions = ActionSet(instance.problem.arms, {"load": Capacity(workers=instance.tables["workers"], cost="load")})
    found = bound(instance.problem, actions, seconds=1e-4)
    full = bound(instance.problem, actions)
    if found.method == "none":
        assert not found.converged
    assert found.value >= full.value - 1e-6


@given(st.integers(0, 10_000), st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_any_price_gives_a_bound(seed, price):
    rng = np.random.default_rng(seed)
    transition, reward = rng.dirichlet(np.ones(3), (6, 2, 3)), rng.random((6, 3, 2))
    coupling, start = Coupling.budgets([2]), rng.integers(0, 3, 6)
    value, _ = evaluate_prices(transition, reward, coupling, start, np.array([price]), discount=0.9)
    assert value >= solve_occupancy(transition, reward, start, coupling=coupling, discount=0.9).value - 1e-8


def test_arms_with_several_recurrent_classes_keep_to_what_their_start_reaches():
    """Average reward, two closed states: the decomposition refuses, the program with transient variables is exact."""
    transition = np.zeros((1, 2, 3, 3))
    transition[:, :, 0, 1] = 1.0
    transition[:, :, 1, 1] = 1.0
    transition[:, :, 2, 2] = 1.0
    reward = np.array([[[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]])
    coupling = Coupling.budgets([1])
    with pytest.raises(CapabilityError):
        dual_average(transition, reward, coupling)
    reach = solve_occupancy(transition, reward, np.array([0]), coupling=coupling, transient=True)
    assert reach.value == pytest.approx(1.0)
    best_class = solve_occupancy(transition, reward, np.array([0]), coupling=coupling)
    assert best_class.value == pytest.approx(5.0)


def test_curve_over_a_budget_is_concave_and_equals_separate_bounds():
    problem = small_problem(n_arms=6, horizon=6, seed=2)
    curve = sweep(problem, ActionSet(problem.arms, {"budget": Budget(at_most=2)}), range(7), tolerance=1e-7)
    for limit, value in zip(curve.limits, curve.values, strict=True):
        one = bound(problem, ActionSet(problem.arms, {"budget": Budget(at_most=int(limit))}), tolerance=1e-7)
        assert value == pytest.approx(one.value, rel=1e-6)
    steps = np.diff(curve.values)
    assert (np.diff(steps) <= 1e-5).all()
    # Slopes bracket the steps: right of a limit the curve rises no faster, left of it no slower.
    assert (curve.marginal[:-1] >= steps - 1e-4).all()
    assert (curve.marginal[1:] <= steps + 1e-4).all()


def test_breakpoints_of_a_single_arm_are_where_its_program_changes():
    """One arm, discounted, one resource: between neighbouring breakpoints the curve is a straight line."""
    rng = np.random.default_rng(1)
    transition, reward = rng.dirichlet(np.ones(3), (1, 2, 3)), rng.random((1, 3, 2))
    curve = budget_curve(
        transition,
        reward,
        Coupling.budgets([0.5]),
        np.array([0]),
        [0.0, 1.0],
        horizon=None,
        discount=0.9,
        tolerance=1e-10,
        breakpoints=30,
    )
    assert 1 <= len(curve.breakpoints) <= 7
    corners = np.concatenate([[0.0], curve.breakpoints[:, 0], [1.0]])
    heights = np.concatenate([[curve.values[0]], curve.breakpoints[:, 1], [curve.values[-1]]])
    middle = 0.5 * (corners[1:] + corners[:-1])
    for limit, line in zip(middle, 0.5 * (heights[1:] + heights[:-1]), strict=True):
        exact = solve_occupancy(
            transition, reward, np.array([0]), coupling=Coupling.budgets([limit]), discount=0.9
        ).value
        assert exact == pytest.approx(line, rel=1e-7)


def test_marginal_arms_are_those_whose_worth_is_nearest_to_the_price():
    problem = small_problem(n_arms=8)
    actions = ActionSet(problem.arms, {"budget": Budget(at_most=3)})
    found = bound(problem, actions, tolerance=1e-8)
    transition, reward = problem.dynamics.tabular()
    listed = marginal_arms(
        transition, reward, problem.start, found, Coupling.budgets([3]), horizon=5, discount=1.0, most=8
    )
    assert [abs(arm.margin) for arm in listed] == sorted(abs(arm.margin) for arm in listed)
    assert all(arm.price == pytest.approx(found.prices[0, 0]) for arm in listed)
    # At the margin exactly the budget is worth its price: at most three arms lie clearly above it.
    assert sum(arm.margin > 1e-6 for arm in listed) <= 3


def test_what_cannot_be_bounded_is_refused_with_two_ways_out():
    problem = small_problem()
    actions = ActionSet(problem.arms, {"budget": Budget(at_most=2)})
    with pytest.raises(ModelError, match="kind"):
        bound(problem, actions, kind="weekly")
    with pytest.raises(ModelError, match="discount"):
        bound(problem, actions, kind="discounted")
    with pytest.raises(InfeasibleError):
        bound(problem, ActionSet(problem.arms, {"b": Budget(at_most=1), "c": Budget(at_least=3)}), method="highs")
    from scipy import sparse

    both = Columns(problem.arms, problem.arms.table, sparse.csr_array(np.ones((4, 4))))
    with pytest.raises(CapabilityError):
        bound(problem, ActionSet(both, {"budget": Budget(at_most=2)}), kind="discounted", discount=0.9)
    with pytest.raises(ModelError, match="add up to action 2"):
        bound(problem, ActionSet(both, {"budget": Budget(at_most=2)}))
    with pytest.raises(ModelError, match="coupling is"):
        bound(problem, actions, coupling="loose")
    with pytest.raises(ModelError, match="hull"):
        bound(problem, actions, coupling="hull", occupancy=True)


def test_the_printed_bound_has_no_letter_from_a_paper():
    problem = small_problem()
    found = bound(problem, ActionSet(problem.arms, {"budget": Budget(at_most=2)}))
    text = str(found)
    assert text.startswith("Bound · time_indexed · resources")
    assert "one more    budget" in text
    assert set(found.summary()) >= {"value", "gap", "kind", "prices", "seconds"}
    assert float(found) == found.value


def test_a_curve_in_no_time_is_a_bound_at_every_limit():
    problem = small_problem(n_arms=6, horizon=6, seed=2)
    actions = ActionSet(problem.arms, {"budget": Budget(at_most=2)})
    whole = sweep(problem, actions, range(1, 4), tolerance=1e-4)
    late = sweep(problem, actions, range(1, 4), tolerance=1e-4, breakpoints=5, seconds=0.0)
    assert (late.values >= whole.values - whole.gaps - 1e-6).all()
    assert late.breakpoints.size == 0
    assert late.evaluations <= whole.evaluations
