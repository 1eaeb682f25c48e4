"""Fair decisions: the best by enumeration under any constraints, nothing wasted, everyone's turn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amounts import amount

import rmab_opt as ro
from rmab_opt.actions import ActionSet, Columns
from rmab_opt.actions.kinds import Budget, Capacity, Conflict, Path, Scheduling
from rmab_opt.decisions import Chooser, Model, Situation
from rmab_opt.decisions.policy import RulePolicy, make_policy
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms, Problem, Table, Tabular
from rmab_opt.settings.equity import WELFARES
from rmab_opt.settings.equity.fairness import compare_groups
from rmab_opt.settings.equity.policies import FairObjective, FairPolicy, HighRisk, model_groups
from rmab_opt.settings.equity.replan import FairReplan
from rmab_opt.settings.inspection.kinds import Frequency, SlotBudget, VisitColumns, Window


def model_of(seed=0, constraint=None, n=9, slots=0):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(3), (n, 2, 3))
    arms = Arms.from_arrays(
        n,
        village=[f"v{k % 3}" for k in range(n)],
        load=rng.integers(1, 4, n),
        slots=["mon", "tue", "mon;tue"] * (n // 3),
        window=[("0", "1", "0-1")[k] for k in rng.integers(0, 3, n)],
    )
    problem = Problem(arms, Tabular(transition, np.tile([0.0, 0.4, 1.0], (n, 1))), 5, 1.0, rng.integers(3, size=n))
    columns = VisitColumns(arms, slots) if slots else Columns.of_arms(arms)
    return Model(problem, ActionSet(columns, constraint or {"budget": Budget(at_most=4)}))


SETS = {
    "budget": {"budget": Budget(at_most=4)},
    "conflict": {"budget": Budget(at_most=5), "apart": Conflict(groups=[["arm0", "arm3", "arm6"], ["arm1", "arm4"]])},
    "schedule": {
        "roster": Scheduling(
            roster=Table({"worker": ["x", "y", "y"], "slot": ["mon", "mon", "tue"], "calls": [1, 1, 2]}), visits=1
        )
    },
    "route": {
        "budget": Budget(at_most=4),
        "route": Path(
            edges=Table({"from": [f"arm{k}" for k in range(8)], "to": [f"arm{k + 1}" for k in range(8)]}),
            depot="arm2",
            length=8,
        ),
    },
    "capacity": {
        "workers": Capacity(workers=Table({"worker": ["x", "y"], "capacity": [4, 3]}, source="workers"), cost="load")
    },
    "windows": {"own": Window(), "once": Frequency(at_most=1), "slot": SlotBudget(at_most=2)},
}


def set_of(seed, name):
    return model_of(seed, SETS[name], **({"n": 6, "slots": 2} if name == "windows" else {}))


def fairness(welfare, values, groups):
    """A key by which group values are compared: sorted, or one number."""
    kind = WELFARES[welfare]
    return tuple(np.round(np.sort(values), 6)) if kind.lowest_first else (round(kind.value(values, groups), 6),)


@pytest.mark.parametrize("seed", amount([3], [3, 4, 5]))
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("welfare", ["leximin", "nash_groups"])
def test_no_allowed_action_gives_fairer_group_budgets(name, welfare, seed):
    """All allowed actions are compared by the groups' predicted totals, also where constraints are no plain budget."""
    model = set_of(seed, name)
    objective = FairObjective(model.problem, model.actions, "village", welfare=welfare)
    objective.past = np.array([0.5, 0.0, 1.5])
    state, groups = model.problem.start, objective.groups
    decision = Chooser(model.problem, model.actions, objective, "exact").decide(state)
    helps = objective.table.indices(state, 5) > 0
    curves = objective.table.curves(state, 5, groups, int(groups.sizes.max()))
    curves.refine(np.ones(curves.upper.shape, dtype=bool))
    curves = curves.values

    def key(action):
        helped = groups.member.astype(int) @ ((action @ model.actions.columns.effect > 0) & helps)
        return fairness(welfare, (curves[np.arange(3), helped] + objective.past) / groups.sizes, groups)

    best = max(key(action) for action in model.actions.enumerate().astype(np.int64))
    assert key(decision.action) == pytest.approx(best, abs=2e-5)
    assert "exact" in decision.notes["fairness"]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("welfare", ["leximin", "nash"])
def test_a_fair_decision_is_the_best_of_all_allowed_actions(name, welfare):
    model = set_of(3, name)
    objective = FairObjective(model.problem, model.actions, "village", welfare=welfare)
    decision = Chooser(model.problem, model.actions, objective, "exact").decide(model.problem.start)
    situation = Situation(model.problem, model.actions.columns, model.problem.start, 0)
    every = model.actions.enumerate().astype(np.int64)
    assert decision.value == pytest.approx(objective.batch_value(every, situation).max(), abs=1e-7)
    assert decision.violations == {}


def test_group_budgets_are_met_exactly_where_only_a_budget_limits():
    model = model_of(1)
    objective = FairObjective(model.problem, model.actions, "village")
    situation = Situation(model.problem, model.actions.columns, model.problem.start, 0)
    action = Chooser(model.problem, model.actions, objective, "exact").decide(model.problem.start).action
    shares = objective.shares(situation)
    used = objective.groups.member @ action
    assert (used >= shares.budgets).all()
    assert used.sum() <= 4


def test_nothing_is_spent_on_groups_that_do_not_respond_and_the_last_round_rests():
    model = ro.load("equity_synthetic", at_most=33)
    table = compare_groups(model, ["leximin", "mmr"], episodes=2, bound=False)
    for name in ("leximin", "mmr"):
        assert table.units[name][3:].tolist() == [0.0, 0.0]
        assert table.row(name)["worst"] > 7.0
    made = FairPolicy(model).decide(np.zeros(100, dtype=int), 19, np.random.default_rng(0))
    assert made.action.sum() == 0


def test_the_past_of_an_episode_shifts_what_its_groups_get():
    model = ro.load("equity_synthetic")
    policy = FairPolicy(model)
    state = np.zeros(100, dtype=int)
    state[:25] = 1
    _, memory = policy.follow(state, 0, policy.begin(np.random.default_rng(0)))
    assert memory[0] == pytest.approx([25, 0, 0, 0, 0])
    situation = Situation(model.problem, model.actions.columns, np.zeros(100, dtype=int), 1)
    fresh = policy.objective.shares(situation).budgets[0]
    later = policy.objective.standing(np.array([100.0, 0, 0, 0, 0]), np.zeros(100))
    assert later.shares(situation).budgets[0] < fresh
    assert policy.objective.shares(situation).budgets[0] == fresh


def test_the_same_seed_gives_the_same_decision():
    model = model_of(2)
    first, again = (
        FairPolicy(model, group="village").decide(model.problem.start, 0, np.random.default_rng(5)).action
        for _ in range(2)
    )
    assert first.tolist() == again.tolist()


def test_round_robin_serves_every_high_risk_arm_before_any_a_second_time():
    model = ro.load("digital_diabetes", n_arms=30, at_most=5)
    policy = make_policy("round_robin_high_risk", model)
    memory = policy.begin(np.random.default_rng(0))
    served = np.zeros(30, dtype=int)
    state = np.full(30, 16)
    for period in range(6):
        decision, memory = policy.follow(state, period, memory)
        served += decision.action
    assert served.tolist() == [1] * 30


def test_high_risk_arms_come_first_in_both_rules():
    model = ro.load("digital_diabetes", n_arms=30, at_most=5)
    state = np.full(30, 20)  # engaged, A1c below 8
    state[:5] = 16
    for in_turn in (True, False):
        action = HighRisk(model, in_turn=in_turn).decide(state, 0, np.random.default_rng(1)).action
        assert np.flatnonzero(action).tolist() == [0, 1, 2, 3, 4]


def test_a_cohort_without_groups_is_told_how_to_name_them():
    with pytest.raises(ModelError, match="no column 'group'"):
        model_groups(model_of())
    assert model_groups(model_of(), "village").names == ("v0", "v1", "v2")


def test_replanning_refuses_arms_with_several_columns():
    model = set_of(3, "windows")
    with pytest.raises(CapabilityError, match="several columns of an arm"):
        FairReplan(model.problem, model.actions, "village")


@pytest.mark.parametrize("name", [name for name in SETS if name != "windows"])
def test_replanning_takes_any_constraint(name):
    """Two rounds of the plan made anew: somebody is served, and every action is allowed."""
    model = set_of(3, name)
    replan = FairReplan(model.problem, model.actions, "village")
    policy = RulePolicy(model, "fair_replan", lambda problem, actions: replan)
    state, rng = model.problem.start, np.random.default_rng(0)
    for period in range(2):
        decision = policy.decide(state, period, rng)
        assert decision.violations == {}
        assert decision.action.any()
        taken = model.actions.columns.arm_action(decision.action)
        state, _ = model.problem.dynamics.step(state, taken, rng)


def test_groups_that_overlap_share_the_arms_that_count_in_both():
    """Two attributes under a budget: the decision's levels of predicted totals are the best of all actions."""
    rng = np.random.default_rng(5)
    n = 6
    transition = rng.dirichlet(np.ones(2), (n, 2, 2))
    arms = Arms.from_arrays(n, village=list("AAABBB"), sex=list("fmfmfm"))
    problem = Problem(arms, Tabular(transition, np.tile([0.0, 1.0], (n, 1))), 4, 1.0, np.zeros(n, dtype=int))
    actions = ActionSet(arms, {"b": Budget(at_most=2)})
    objective = FairObjective(problem, actions, "village,sex")
    decision = Chooser(problem, actions, objective, "exact").decide(problem.start)
    situation = Situation(problem, actions.columns, problem.start)
    helps = objective.table.indices(problem.start, 4) > 0
    curves = objective.table.curves(problem.start, 4, objective.groups, 2)
    curves.refine(np.ones(curves.upper.shape, dtype=bool))
    curves = curves.values / objective.groups.sizes[:, None]

    def levels(action):
        helped = np.minimum(objective.helped(np.asarray(action), helps), 2)
        return sorted(np.round(curves[np.arange(4), helped], 6).tolist())

    best = max(levels(a) for a in itertools.product((0, 1), repeat=n) if sum(a) <= 2)
    assert levels(decision.action) == best
    assert "over all allowed actions" in objective.remarks(decision.action, situation)["fairness"]


@pytest.mark.parametrize("welfare", ["leximin", "nash", "utilitarian"])
@pytest.mark.parametrize("seed", range(amount(2, 6)))
def test_an_action_without_a_program_is_worth_what_the_program_finds(welfare, seed):
    """Simulated rounds take it; it is another action only where several are best."""
    rng = np.random.default_rng(seed)
    n = 9
    transition = rng.dirichlet(np.ones(3), (n, 2, 3))
    reward = np.repeat(np.sort(rng.random((n, 3)), axis=1)[:, :, None], 2, axis=2)
    arms = Arms.from_arrays(n, group=[str(k) for k in rng.integers(0, 3, n)])
    state = rng.integers(0, 3, n)
    problem = Problem(arms, Tabular(transition, reward), 5, 0.95, state)
    actions = ActionSet(arms, {"b": Budget(at_most=int(rng.integers(1, 6)))})
    fair = FairObjective(problem, actions, welfare=welfare)
    chooser = Chooser(problem, actions, fair, "exact")
    for period in (0, 3, 4):
        question = chooser.question(state, period)
        decision, action = chooser.answer(question), chooser.best(question)
        assert fair.choice(actions, question.situation) is not None
        assert actions.allows(action)
        assert fair.value(action, question.situation) == pytest.approx(decision.value, rel=1e-9, abs=1e-12)
    policy = FairPolicy(Model(problem, actions), welfare=welfare)
    followed, kept = policy.follow(state, 0, policy.begin(np.random.default_rng(1)))
    acted, same = policy.act(state, 0, policy.begin(np.random.default_rng(1)))
    assert followed.action.tolist() == acted.tolist()
    assert kept[0] == pytest.approx(same[0])
