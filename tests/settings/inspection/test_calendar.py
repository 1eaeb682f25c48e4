"""Calendars, re-planning and inspection policies: against every course of action, and after events."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Linear
from rmab_opt.decisions import Model
from rmab_opt.decisions.policy import make_policy
from rmab_opt.errors import CapabilityError, InfeasibleError, ModelError
from rmab_opt.instances import generate
from rmab_opt.learning import evaluate
from rmab_opt.settings.inspection import Frequency, SlotBudget, VisitColumns, Window
from rmab_opt.settings.inspection.calendar import calendar
from rmab_opt.settings.inspection.gains import VisitGains

POLICIES = (
    "random_eligible",
    "risk_first",
    "whittle_unwindowed",
    "time_constrained",
    "time_constrained_useful",
    "lookahead",
    "lookahead_once",
    "lookahead_gain",
    "lookahead_gain_once",
    "lookahead_periods",
    "lookahead_periods_once",
)


def slots_model(n_arms: int = 12, at_most: int = 2, horizon: int = 12, seed: int = 0, **options) -> Model:
    problem = generate("inspection", n_arms=n_arms, horizon=horizon, seed=seed, **options).problem
    return Model(problem, ActionSet(problem.arms, {"slot": Budget(at_most=at_most)}))


def plan_model(n_arms: int = 12, at_most: int = 2, seed: int = 0, **visits) -> Model:
    problem = generate("inspection", n_arms=n_arms, seed=seed).problem
    rules = {"season": Window(), "yearly": Frequency(**(visits or {"equal": 1})), "slot": SlotBudget(at_most=at_most)}
    return Model(problem, ActionSet(VisitColumns(problem.arms, 12), rules), VisitGains())


def total(model: Model, name: str) -> float:
    policy, arms, state = make_policy(name, model), model.problem.dynamics, model.problem.start
    rng, earned = np.random.default_rng(0), 0.0
    for period in range(model.problem.horizon):
        decision = policy.decide(state, period, rng)
        assert decision.violations == {}
        earned += float(arms.expected_reward(state, decision.action).sum())
        state = arms.move(state, decision.action)
    return earned


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_by_name_keeps_the_constraints_and_wastes_no_visit(name):
    model = slots_model(at_most=3)
    arms, state, rng = model.problem.dynamics, model.problem.start, np.random.default_rng(1)
    policy = make_policy(name, model)
    for period in range(12):
        action = policy.decide(state, period, rng).action
        assert action.sum() <= 3
        if name != "whittle_unwindowed":
            assert arms.eligible(state)[action > 0].all()
        state = arms.move(state, action)


def best_course(model: Model) -> float:
    """Backward over all reachable joint states and all actions: closed loop, no plan in sight."""
    arms, every = model.problem.dynamics, model.actions.enumerate().astype(np.int64)
    kept: dict[tuple[int, bytes], float] = {}

    def best(state: np.ndarray, period: int) -> float:
        if period == model.problem.horizon:
            return 0.0
        key = (period, state.tobytes())
        if key not in kept:
            kept[key] = max(
                float(arms.expected_reward(state, a).sum()) + best(arms.move(state, a), period + 1) for a in every
            )
        return kept[key]

    return best(model.problem.start, 0)


@settings(max_examples=amount(4, 8), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_open_loop_equals_closed_loop_where_beliefs_are_certain(seed):
    """The exact look-aheads earn what the best closed-loop course does, over one period and over two."""
    one = slots_model(3, 1, 4, seed, n_slots=4, tolerance=0.05, generator="beta")
    optimum = best_course(one)
    assert total(one, "lookahead_gain") == pytest.approx(optimum, abs=1e-7)
    assert total(one, "lookahead_periods") == pytest.approx(optimum, abs=1e-7)
    two = slots_model(3, 1, 6, seed, n_slots=3, tolerance=0.05, generator="beta")
    course = best_course(two)
    assert total(two, "lookahead_periods") == pytest.approx(course, abs=1e-7)
    assert total(two, "lookahead_periods:periods=2") == pytest.approx(course, abs=1e-7)


def test_the_exact_look_ahead_is_above_the_published_one():
    model = slots_model(100, 9)
    gain, index = total(model, "lookahead_gain_once"), total(model, "lookahead_once")
    assert gain > index
    assert total(model, "lookahead_gain") >= gain - 1e-9
    table = evaluate(slots_model(8, 1), ["none", "lookahead_gain", "random_eligible"], episodes=2)
    shares = {row["policy"]: row["share_of_bound"] for row in table.rows}
    assert shares["lookahead_gain"] == pytest.approx(1.0, abs=2e-3)
    assert shares["random_eligible"] <= 1.0


def test_a_plan_that_must_visit_all_says_why_it_cannot():
    with pytest.raises(InfeasibleError, match="must fall into"):
        total(slots_model(40, 2), "lookahead_once")


def test_district_rows_of_a_slot_hold_in_the_look_ahead():
    problem = generate("inspection", n_arms=12, n_districts=2).problem
    rules = {"slot": Budget(at_most=3), "district": Linear(per="district", at_most=1)}
    model = Model(problem, ActionSet(problem.arms, rules))
    assert total(model, "lookahead_gain") > total(model, "none")
    assert total(model, "time_constrained") > total(model, "none")
    assert total(model, "lookahead_periods") >= total(model, "lookahead_gain") - 1e-9


def test_other_dynamics_are_refused_with_a_way_out():
    with pytest.raises(CapabilityError, match="inspection"):
        make_policy("time_constrained", ro.load("budget"))


def test_a_calendar_agrees_with_decide_and_writes_what_it_holds(tmp_path):
    model = plan_model()
    plan = calendar(model, slots=[f"m{t + 1}" for t in range(12)])
    decision = ro.decide(model)
    assert plan.value == pytest.approx(decision.value, abs=1e-6)
    assert plan.gap == pytest.approx(0.0, abs=1e-6)
    assert plan.path == "linear"
    rows = list(csv.DictReader(io.StringIO(plan.to_csv(tmp_path / "plan.csv"))))
    marks = np.array([[row[f"m{t + 1}"] == "x" for t in range(12)] for row in rows])
    assert (marks == plan.visits).all()
    assert (tmp_path / "plan.csv").read_text() == plan.to_csv()
    assert [row["visits"] for row in plan.loads()] == marks.sum(axis=0).tolist()
    plan.to_excel(tmp_path / "plan.xlsx")
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.load_workbook(tmp_path / "plan.xlsx")
    assert book.sheetnames == ["plan", "visits", "load", "certificate"]
    assert sum(cell.value == "x" for line in book["plan"].iter_rows(min_row=2) for cell in line) == plan.visits.sum()
    plan.picture(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes()[:4] == b"\x89PNG"
    assert "bound" in str(plan)
    assert {row["status"] for row in plan.rows()} == {"planned"}


def test_the_rest_is_planned_again_after_events():
    plan = calendar(plan_model(at_most=3))
    visits = [(plan.ids[i], t) for t in range(12) for i in np.flatnonzero(plan.visits[:, t])]
    # A missed visit whose window still has a slot, seen right after it; a complaint outside the window.
    name, slot = next((n, t) for n, t in visits if _last_open(plan, n) > t)
    other = next(n for n, t in visits if t > slot + 3)
    again = plan.replan(slot + 1, missed=[(name, slot)], must={other: (slot + 1, slot + 2)})
    arm, late = plan.ids.index(name), plan.ids.index(other)
    assert again.visits[arm, slot + 1 :].sum() == 1
    assert again.visits[late, slot + 1 : slot + 3].any()
    past = plan.visits[:, : slot + 1].copy()
    past[arm, slot] = False
    assert (again.visits[:, : slot + 1] == past).all()
    assert (again.load <= 3).all()
    assert again.value <= again.bound + 1e-9
    assert again.now == slot + 1
    assert again.late == ()


def _last_open(plan, name: str) -> int:
    cell = plan.cohort.text("window")[plan.ids.index(name)]
    return int(cell.split("-")[1])


def test_nothing_happened_nothing_moves_and_a_lost_visit_is_named():
    plan = calendar(plan_model(at_most=3))
    again = plan.replan(6)
    assert again.value == pytest.approx(plan.value, abs=1e-9)
    assert again.bound == pytest.approx(plan.bound, abs=1e-6)
    name, slot = next((plan.ids[i], t) for t in range(12) for i in np.flatnonzero(plan.visits[:, t]))
    lost = plan.replan(_last_open(plan, name) + 1, missed=[(name, slot)])
    assert lost.late == (name,)
    found = lost.overdue[0]
    assert found.by == _last_open(plan, name)
    assert found.planned is not None
    assert found.planned > found.by
    assert lost.visits[plan.ids.index(name), found.planned]
    assert [row["slot"] for row in lost.rows() if row["status"] == "late"] == [str(found.planned)]


def test_staying_put_costs_at_most_what_it_was_told_to():
    plan = calendar(plan_model(30, 4))
    name, slot = next((plan.ids[i], t) for t in range(12) for i in np.flatnonzero(plan.visits[:, t]))
    must = {plan.ids[(plan.ids.index(name) + 7) % 30]: (slot + 1, slot + 2)}
    free, kept = (plan.replan(slot + 1, must=must, stay=stay) for stay in (0.0, 10.0))
    assert kept.moved <= free.moved
    assert kept.value <= free.value + 1e-9


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ({"missed": [("nobody", 0)]}, "name an arm"),
        ({"extra": [("arm0", 9)]}, "before 6"),
        ({"must": {"arm0": (2, 3)}}, "slots from 6"),
    ],
)
def test_events_that_cannot_be_are_refused(events, words):
    with pytest.raises(ModelError, match=words):
        calendar(plan_model(at_most=3)).replan(6, **events)


def test_models_with_visits_are_loaded_from_files_and_from_tables(tmp_path):
    plan = calendar(ro.load("inspection"))
    assert plan.visits.sum() == 60
    free = calendar(ro.load("inspection_windows_free"))
    assert free.path == "linear"
    (tmp_path / "arms.csv").write_text("id,good,back,window\nann,0.9,0.1,0-1\nbob,0.8,0.2,1-2;4\ncem,0.85,0.1,3-5\n")
    (tmp_path / "own.yaml").write_text(
        "format: 1\ntitle: Own\nproblem:\n  arms: arms.csv\n"
        "  dynamics: {kind: inspection, n_slots: 6, stay_good: good, recover: back}\n  horizon: 6\n"
        "columns: visits\nconstraints:\n  season: {kind: window}\n  often: {kind: frequency, at_most: 1, per: window}\n"
        "  slot: {kind: slot_budget, at_most: 1}\nobjective: {kind: visit_gains}\n"
    )
    own = calendar(ro.load(tmp_path / "own.yaml"))
    assert own.visits.sum(axis=1).tolist() == [1, 2, 1]
    assert own.value <= own.bound


@pytest.mark.parametrize(
    ("budget", "published", "exact"), [(430, 41186.96, 41236), (450, 41309.57, 41370), (500, 41331.99, 41647)]
)
def test_the_published_setting_at_5000_arms(budget, published, exact):
    """Table 1: exactly one visit an arm; exact gains pass the published plan, at the specification's level."""
    problem = generate("inspection", n_arms=5000, rule="step", seed=1).problem
    columns = VisitColumns(problem.arms, 12, problem.dynamics.windows.open)
    rules = {"yearly": Frequency(equal=1), "slot": SlotBudget(at_most=budget)}
    plan = calendar(Model(problem, ActionSet(columns, rules), VisitGains()))
    assert plan.value == pytest.approx(exact, rel=2e-3)
    assert plan.value > published
    assert plan.gap == pytest.approx(0.0, abs=1e-6)
    assert plan.path == "linear"


def test_the_published_setting_is_refused_below_417():
    problem = generate("inspection", n_arms=5000, rule="step", seed=1).problem
    columns = VisitColumns(problem.arms, 12, problem.dynamics.windows.open)
    rules = {"yearly": Frequency(equal=1), "slot": SlotBudget(at_most=416)}
    with pytest.raises(InfeasibleError, match="slots 0 to 11, which can hold 4992") as caught:
        calendar(Model(problem, ActionSet(columns, rules), VisitGains()))
    assert "at least 417 visits a slot" in str(caught.value)
