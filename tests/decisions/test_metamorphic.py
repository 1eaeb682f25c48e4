"""What a change of the question must do to the answer: scale, shift, order, copies, redundant rows, looser limits."""

from dataclasses import replace

import numpy as np
import pyomo.environ as pyo
import pytest
from amounts import amount

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Capacity, Conflict, Knapsack, Linear, LockedIn
from rmab_opt.decisions import Chooser, Immediate, Model, Scores, bound, decide
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table, Tabular

N = 7
COST = np.array([3, 5, 2, 7, 4, 6, 1])
KINDS = {
    "budget": {"few": Budget(at_most=3)},
    "money": {"money": Knapsack(cost="cost", at_most=11)},
    "mixed": {
        "few": Budget(at_most=3),
        "money": Knapsack(cost="cost", at_most=12),
        "apart": Conflict(groups=[["a1", "a4"]]),
    },
}
METHODS = {"budget": "prices", "money": "program", "mixed": "program"}


def tables():
    rng = np.random.default_rng(4)
    return rng.dirichlet(np.ones(3), (N, 2, 3)), rng.random((N, 3, 2)) + np.array([0.0, 0.5])


def model_of(case, reward=None, order=None, extra=None, copies=1, horizon=5, start=None):
    transition, own = tables()
    reward = own if reward is None else reward
    order = np.arange(N) if order is None else order
    order = np.tile(order, copies)
    ids = [f"a{i}" + ("" if k < N else "b") for k, i in enumerate(order)]
    arms = Arms.from_arrays(ids, cost=COST[order].tolist())
    kinds = dict(KINDS[case])
    if copies > 1:
        kinds = (
            {"few": Budget(at_most=3 * copies)}
            if case == "budget"
            else {"money": Knapsack(cost="cost", at_most=11 * copies)}
        )
    start = (np.arange(N) % 3)[order] if start is None else start
    problem = Problem(arms, Tabular(transition[order], reward[order]), horizon=horizon, discount=0.9, start=start)
    return Model(problem, ActionSet(arms, kinds | (extra or {})), Immediate())


def made(model, case):
    return Chooser(model.problem, model.actions, model.objective, "default", method=METHODS[case], many=False).decide()


@pytest.mark.parametrize("case", KINDS)
def test_every_power_of_two_bit_for_bit(case):
    reward, seen = tables()[1], set()
    for k in range(-40, 41):
        one = made(model_of(case, reward * 2.0**k), case)
        size = 2.0**k
        seen.add(
            (one.chosen, one.value / size, one.bound / size, one.status, one.relative_gap, one.proof.prices.tobytes())
        )
    assert len(seen) == 1


@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("factor", amount([1e-8], [3.0, 1e-8, 1e8]))
def test_other_factors_to_rounding(case, factor):
    reward = tables()[1]
    plain, scaled = made(model_of(case), case), made(model_of(case, reward * factor), case)
    assert scaled.chosen == plain.chosen
    assert scaled.value == pytest.approx(factor * plain.value, rel=1e-12)
    assert scaled.bound == pytest.approx(factor * plain.bound, rel=1e-9)
    assert scaled.status == plain.status
    whole, other = bound(model_of(case)), bound(model_of(case, reward * factor))
    assert other.value == pytest.approx(factor * whole.value, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual", "highs", "hull"])
def test_bounds_scale_bit_for_bit(method):
    how = {"coupling": "hull"} if method == "hull" else {"method": method}
    reward = tables()[1]
    seen = set()
    for k in (-40, -17, 0, 40):
        found = bound(model_of("money", reward * 2.0**k), **how)
        seen.add((found.value / 2.0**k, found.lower / 2.0**k, (found.arm_prices / 2.0**k).tobytes()))
    assert len(seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS)
@pytest.mark.parametrize("more", [2.0**-20, 1.0, 2.0**20])
def test_a_constant_on_every_reward_shifts_value_and_bound(case, more):
    plain, shifted = made(model_of(case), case), made(model_of(case, tables()[1] + more), case)
    mass = N * (more + 2)
    assert shifted.chosen == plain.chosen
    assert shifted.value - N * more == pytest.approx(plain.value, abs=64 * np.finfo(float).eps * mass)
    assert shifted.gap == pytest.approx(plain.gap, abs=1e-12 * mass)
    rounds = (1 - 0.9**5) / (1 - 0.9)
    whole, other = bound(model_of(case), method="highs"), bound(model_of(case, tables()[1] + more), method="highs")
    assert other.value - N * more * rounds == pytest.approx(whole.value, abs=1e-9 * mass * rounds)
    # Prices found step by step stop within 1e-6 wherever rounding leads them: both limits hold of one value.
    near = bound(model_of(case, tables()[1] + more))
    assert near.value - N * more * rounds == pytest.approx(whole.value, rel=2e-6, abs=1e-9 * mass * rounds)


@pytest.mark.slow
def test_a_constant_on_all_scores_under_an_exact_count():
    arms = Arms.from_arrays(N)
    problem = replace(model_of("budget").problem, arms=arms)
    actions, scores = ActionSet(arms, {"three": Budget(equal=3)}), np.random.default_rng(0).random(N)
    plain, shifted = (decide(Model(problem, actions, Scores(scores + more))) for more in (0.0, 0.25))
    assert shifted.chosen == plain.chosen
    assert shifted.value == pytest.approx(plain.value + 0.75, rel=1e-12)
    assert shifted.bound == pytest.approx(plain.bound + 0.75, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS)
def test_order_names_and_states_do_not_matter(case):
    rng, plain = np.random.default_rng(1), made(model_of(case), case)
    moved = made(model_of(case, order=rng.permutation(N)), case)
    assert set(moved.chosen) == set(plain.chosen)
    assert moved.value == pytest.approx(plain.value, rel=1e-12)
    assert bound(model_of(case, order=rng.permutation(N))).value == pytest.approx(bound(model_of(case)).value, rel=1e-6)
    swap = np.array([2, 0, 1])
    model = model_of(case)
    transition, reward = tables()
    new = np.argsort(swap)
    inside = Tabular(transition[:, :, swap][:, :, :, swap], reward[:, swap])
    again = replace(model, problem=replace(model.problem, dynamics=inside, start=new[np.arange(N) % 3]))
    other = made(again, case)
    assert other.chosen == plain.chosen
    assert other.value == pytest.approx(plain.value, rel=1e-12)
    certain = np.eye(3)[np.arange(N) % 3]
    assert bound(model_of(case, start=certain)).value == bound(model_of(case)).value


@pytest.mark.slow
@pytest.mark.parametrize("case", ["budget", "money"])
def test_every_arm_twice_and_every_limit_doubled(case):
    plain, double = made(model_of(case), case), made(model_of(case, copies=2), case)
    least = 2 * plain.value
    assert double.value >= least * (1 - 1e-9)
    assert bound(model_of(case, copies=2)).value == pytest.approx(2 * bound(model_of(case)).value, rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS)
def test_redundant_rows_and_hopeless_columns(case):
    plain = made(model_of(case), case)
    for extra in (
        {"all": Budget(at_most=N)},
        {"again": KINDS[case][next(iter(KINDS[case]))]},
        {"wide": Linear(column="cost", at_most=100.0)},
    ):
        with_row = Chooser(*_parts(model_of(case, extra=extra)), "default", many=False).decide()
        assert with_row.value == pytest.approx(plain.value, rel=1e-12)
        assert bound(model_of(case, extra=extra)).value == pytest.approx(bound(model_of(case)).value, rel=2e-6)
    tighter = Chooser(*_parts(model_of(case, extra={"two": Budget(at_most=2)})), "default", many=False).decide()
    assert tighter.value <= plain.value + 1e-12
    looser = {name: rule for name, rule in KINDS[case].items() if name != "few"} or {"few": Budget(at_most=4)}
    model = model_of(case)
    model = replace(model, actions=ActionSet(model.problem.arms, looser))
    assert Chooser(*_parts(model), "default", many=False).decide().value >= plain.value - 1e-12
    assert bound(model).value >= bound(model_of(case)).value * (1 - 1e-6)


def _parts(model):
    return model.problem, model.actions, model.objective


def test_weights_too_far_apart_in_one_row_are_refused():
    arms = Arms.from_arrays(3, cost=[1e-4, 1.0, 1e6])
    actions = ActionSet(arms, {"money": Knapsack(cost="cost", at_most=5)})
    with pytest.raises(ModelError, match=r"constraints\.money: weights from"):
        actions.allows(np.zeros(3, dtype=int))


IN_UNITS = {
    "knapsack": lambda unit: {"money": Knapsack(cost="cost", at_most=11 * unit), "few": Budget(at_most=4)},
    "money": lambda unit: {"money": Linear(column="cost", at_least=6 * unit, at_most=13 * unit)},
    "groups": lambda unit: {"money": Linear(column="cost", per="side", at_most=8 * unit)},
    "capacity": lambda unit: {
        "loads": Capacity(workers=Table({"worker": ["x", "y"], "capacity": [7 * unit, 6 * unit]}), cost="cost")
    },
}


def in_unit(case, unit):
    arms = Arms.from_arrays(N, cost=(COST * unit).tolist(), side=["l", "r"] * 3 + ["l"])
    return ActionSet(arms, IN_UNITS[case](unit))


@pytest.mark.parametrize("k", range(-40, 41, amount(20, 8)))
@pytest.mark.parametrize("case", IN_UNITS)
def test_a_row_in_another_unit_changes_nothing(case, k):
    """Money in cents or in millions, loads in tonnes or grams: the same answer, its prices in the row's own unit."""
    scores = np.random.default_rng(2).random(N)
    problem = model_of("budget").problem

    def answer(unit, method):
        actions = in_unit(case, unit)
        model = Model(replace(problem, arms=actions.columns.arms), actions, Scores(scores))
        made = Chooser(model.problem, actions, model.objective, "default", method=method, many=False).decide()
        rows = actions.plain_rows
        prices = np.zeros(0) if actions.structured or made.proof.prices is None else made.proof.prices
        return made, prices / (1.0 if rows.unit is None or not prices.size else rows.unit), actions

    for method in ("program", "listing"):
        (plain, paid, _), (other, now, actions) = answer(1.0, method), answer(2.0**k, method)
        assert (other.chosen, other.value, other.status) == (plain.chosen, plain.value, plain.status)
        assert other.bound == pytest.approx(plain.bound, rel=1e-12)
        if case != "knapsack":
            assert now == pytest.approx(paid * 2.0**-k, rel=1e-9)
        assert len(plain.chosen)
        assert plain.status == "optimal"
    # One unit too much is forbidden by the check in every unit, by rows and by words.
    every = in_unit(case, 1.0)
    for action in np.random.default_rng(k + 40).integers(0, 2, size=(40, N)):
        assert actions.allows(action) == every.allows(action)
        assert bool(actions.violations(action)) == bool(every.violations(action))
    assert len(actions.enumerate()) == len(every.enumerate())


@pytest.mark.parametrize("k", amount([-40, 24], [-40, -24, 24, 40]))
@pytest.mark.parametrize("case", ["knapsack", "money", "groups"])
def test_bounds_know_no_unit_of_a_row(case, k):
    base = model_of("budget")

    def limit(unit, method):
        actions = in_unit(case, unit)
        return bound(Model(replace(base.problem, arms=actions.columns.arms), actions, Immediate()), method=method)

    for method in ("dual", "highs"):
        plain, other = limit(1.0, method), limit(2.0**k, method)
        assert other.value == pytest.approx(plain.value, rel=1e-9)
        money = plain.price_names.index("money" if case != "groups" else plain.price_names[-1])
        assert other.prices[..., money] * 2.0**k == pytest.approx(plain.prices[..., money], rel=1e-6)


@pytest.mark.parametrize("case", IN_UNITS)
def test_a_relaxation_is_said_in_the_rows_own_unit(case):
    unit = 2.0**-30
    whole, small = (in_unit(case, one) for one in (1.0, unit))
    locked = {"all": LockedIn(ids=tuple(whole.columns.ids))}
    name = "loads" if case == "capacity" else "money"
    moves = [
        ActionSet(one.columns, {name: one.constraints[name], **locked}).least_relaxation(name) for one in (whole, small)
    ]
    assert moves[0].enough
    assert moves[0].total > 0
    assert moves[1].total == pytest.approx(moves[0].total * unit, rel=1e-6)
    assert {name: amount / unit for name, amount in moves[1].rows.items()} == pytest.approx(moves[0].rows, rel=1e-5)


def test_rows_that_a_kind_writes_itself_may_not_be_tiny():
    class Own(Knapsack, kind="knapsack_of_its_own_rows"):
        def build(self, block, act, columns):
            block.mine = pyo.Constraint(
                expr=sum(float(w) * act[c] for c, w in enumerate(columns.numbers(self.cost))) <= self.limit
            )

    arms = Arms.from_arrays(N, cost=(COST * 2.0**-30).tolist())
    with pytest.raises(ModelError, match="smaller unit"):
        ActionSet(arms, {"money": Own(cost="cost", at_most=11 * 2.0**-30)}).allows(np.zeros(N, dtype=int))
