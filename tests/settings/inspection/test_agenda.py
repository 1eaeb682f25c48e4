"""First plan and re-plan are one program: against enumeration, and nothing that is due is lost over many re-plans."""

from __future__ import annotations

from itertools import combinations, product
from unittest import mock

import numpy as np
import pytest
from amounts import amount
from hypothesis import example, given, settings
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
from rmab_opt.errors import CapabilityError, InfeasibleError
from rmab_opt.instances import generate
from rmab_opt.problem import Arms, Problem
from rmab_opt.settings.inspection import (
    BeliefChains,
    Frequency,
    Gap,
    SlotBudget,
    VisitColumns,
    Window,
    Windows,
    agenda,
    choose,
)
from rmab_opt.settings.inspection.agenda import Asked
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.calendar import calendar
from rmab_opt.settings.inspection.events import CalendarEvent
from rmab_opt.settings.inspection.gains import VisitGains
from rmab_opt.settings.inspection.periods import plan_periods


def small(seed: int, n_arms: int, n_slots: int, rules: dict, low: float = 0.0, beyond: int = 0) -> Model:
    """Arms of any persistence, any windows, under some rules."""
    rng = np.random.default_rng(seed)
    good, back = rng.uniform(low, 1, n_arms), rng.uniform(0, 1 if low == 0 else 0.4, n_arms)
    cells = [f"{a}-{rng.integers(a, n_slots)}" for a in rng.integers(0, n_slots, n_arms)]
    arms = Arms.from_arrays(n_arms, window=cells, stay_good=good, recover=back)
    dynamics = EncodedArms(BeliefChains.build(good, back, tolerance=1e-6), Windows.free(n_arms, n_slots, n_slots))
    return Model(
        Problem(arms, dynamics, horizon=n_slots), ActionSet(VisitColumns(arms, n_slots), rules),
        VisitGains(beyond=beyond), solver="exact",
    )  # fmt: skip


def walked(model: Model, table: np.ndarray, beyond: int = 0) -> float:
    """Reward slot after slot from b_0 = 1, b_{n+1} = g b_n + q (1 - b_n): no chain, no program."""
    good, back = (model.problem.arms.numbers(name) for name in ("stay_good", "recover"))
    belief, total = np.ones(len(good)), 0.0
    for t in range(table.shape[1] + beyond):
        belief = good * belief + back * (1 - belief)
        if t < table.shape[1]:
            belief = np.where(table[:, t], 1.0, belief)
        total += float(belief.sum())
    return total


def best_of_all(model: Model, beyond: int = 0, fixed: np.ndarray | None = None, now: int = 0) -> float:
    """The best table that every constraint's own words accept; slots before ``now`` are as in ``fixed``."""
    columns, best = model.actions.columns, -np.inf
    n_arms, n_slots = len(columns.arms), columns.n_slots
    for flat in product([False, True], repeat=n_arms * (n_slots - now)):
        table = np.zeros((n_arms, n_slots), dtype=bool)
        if fixed is not None:
            table[:, :now] = fixed[:, :now]
        table[:, now:] = np.array(flat).reshape(n_arms, n_slots - now)
        if not model.actions.violations(table[columns.arm, columns.slot].astype(np.int64)):
            best = max(best, walked(model, table, beyond))
    return best


@settings(max_examples=amount(6, 20), deadline=None)
@given(
    seed=st.integers(0, 10**6), room=st.integers(1, 2), most=st.integers(1, 3), gap=st.integers(1, 3),
    beyond=st.integers(0, 3), swing=st.booleans(),
)  # fmt: skip
def test_several_visits_of_any_persistence_equal_enumeration(seed, room, most, gap, beyond, swing):
    rules = {"often": Frequency(at_most=most), "slot": SlotBudget(at_most=room)}
    if gap > 1:
        rules["apart"] = Gap(slots=gap)
    model = small(seed, 2, 4, rules, 0.0 if swing else 0.5, beyond)
    plan, best = calendar(model), best_of_all(model, beyond)
    assert plan.value == pytest.approx(best, abs=1e-6)
    assert plan.value == pytest.approx(walked(model, plan.visits, beyond), abs=1e-5)
    assert plan.bound == pytest.approx(best, abs=1e-5)
    assert not model.actions.violations(plan.visits[model.actions.columns.arm, model.actions.columns.slot].astype(int))


def best_of_two_visits(model: Model, room: int) -> float:
    """The best of all choices of at most two open slots an arm, by arrays: rewards of arms add up, slots are shared."""
    good, back = (model.problem.arms.numbers(name) for name in ("stay_good", "recover"))
    n_slots = model.actions.columns.n_slots
    total, load = np.zeros(1), np.zeros((1, n_slots), dtype=int)
    for i, cell in enumerate(model.problem.arms.text("window")):
        first, last = map(int, cell.split("-"))
        chosen = [c for k in range(3) for c in combinations(range(first, last + 1), k)]
        marks = np.zeros((len(chosen), n_slots), dtype=int)
        for row, slots in enumerate(chosen):
            marks[row, list(slots)] = 1
        worth, belief = np.zeros(len(chosen)), np.ones(len(chosen))
        for t in range(n_slots):
            belief = np.where(marks[:, t] > 0, 1.0, good[i] * belief + back[i] * (1 - belief))
            worth += belief
        total = (total[:, None] + worth).ravel()
        load = (load[:, None] + marks).reshape(-1, n_slots)
    return float(total[(load <= room).all(axis=1)].max())


@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(200), marks=pytest.mark.slow)])
def test_two_visits_an_arm_equal_enumeration(seeds):
    for seed in seeds:
        rules = {"season": Window(), "often": Frequency(at_most=2), "slot": SlotBudget(at_most=1)}
        model = small(seed, 3, 6, rules, 0.5 if seed % 2 else 0.0)
        plan, best = calendar(model), best_of_two_visits(model, 1)
        assert plan.value == pytest.approx(best, abs=1e-5), seed
        assert plan.bound == pytest.approx(best, abs=1e-5), seed


@pytest.mark.parametrize(("enough", "least"), [(0.0, 0), (0.0, 1), (4e-3, 0), (4e-3, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_the_way_of_large_plans_is_certified_too(seed, enough, least):
    """Prices and arms one by one, or programs over some cells: no value above the optimum, no bound below it."""
    rules = {"season": Window(), "often": Frequency(at_least=least, at_most=2), "slot": SlotBudget(at_most=2)}
    model = small(seed, 3, 6, rules, 0.5)
    try:
        whole = calendar(model)
    except InfeasibleError:
        return
    with mock.patch.object(choose, "WHOLE_ARCS", 0), mock.patch.object(choose, "ENOUGH", enough):
        plan = calendar(model)
    columns = model.actions.columns
    assert not model.actions.violations(plan.visits[columns.arm, columns.slot].astype(int))
    assert plan.value <= whole.value + 1e-6
    assert plan.bound >= whole.value - 1e-6
    gained = whole.value - walked(model, np.zeros((3, 6), dtype=bool))
    assert plan.gap <= 0.1 * gained + 1e-6


def test_a_re_plan_of_a_large_plan_begins_from_it():
    problem = generate("inspection", n_arms=60, n_slots=12, window=6, seed=1).problem
    rules = {"season": Window(), "yearly": Frequency(equal=1), "slot": SlotBudget(at_most=8)}
    with mock.patch.object(choose, "WHOLE_ARCS", 0):
        plan = calendar(Model(problem, ActionSet(VisitColumns(problem.arms, 12), rules), VisitGains()))
        gained = plan.bound - walked(plan.model, np.zeros((60, 12), dtype=bool))
        closed = plan.replan(2, events=[CalendarEvent(event="closed", arm=plan.ids[3], slot=2)])
        fewer = closed.replan(5, events=[CalendarEvent(event="capacity", slot=5, last=6, change=-3)])
        asked = fewer.replan(5, events=[CalendarEvent(event="complaint", arm=plan.ids[7], slot=5, last=6)])
    assert plan.log[-1].prices
    assert closed.moved == 1
    for made, room in ((plan, 8), (closed, 8), (fewer, 5), (asked, 5)):
        assert made.load[5] <= room
        assert made.load.max() <= 8
        assert made.value <= made.bound + 1e-6
        assert made.gap <= 0.02 * gained
        assert not made.overdue
    assert asked.visits[7, 5:7].any()


def test_any_prices_bound_all_walks():
    rng, caught = np.random.default_rng(0), []

    def keep(task, *rest, **more):
        caught.append(task)

    for seed in range(12):
        model = small(seed, 3, 6, {"season": Window(), "often": Frequency(at_most=2), "slot": SlotBudget(at_most=1)})
        plan = calendar(model)
        with mock.patch.object(agenda, "best_walks", side_effect=keep):
            agenda.plan_rest(Asked.first(model.problem, model.actions, model.objective.weights), strict=True)
        task, none = caught.pop(), walked(model, np.zeros((3, 6), dtype=bool))
        for scale in (0.0, 0.1, 1.0):
            prices = rng.uniform(0, scale, len(task.rows.lower)) if scale else np.zeros(len(task.rows.lower))
            assert none + task.priced(prices)[0] >= plan.value - 1e-6


def test_two_visits_an_arm_earn_what_the_periods_planner_finds():
    problem = generate("inspection", n_arms=30, window=12, visits=2, generator="beta", seed=3).problem
    rules = {"often": Frequency(at_most=2), "slot": SlotBudget(at_most=4)}
    plan = calendar(Model(problem, ActionSet(VisitColumns(problem.arms, 12), rules), VisitGains(), solver="exact"))
    arms = problem.dynamics
    walks = plan_periods(arms.chains, arms.windows, 12, 4)
    assert plan.bound >= walks.value - 1e-6
    assert walks.bound >= plan.value - 1e-6
    assert plan.gap <= 1e-5


def test_the_case_of_negative_persistence_is_certified_at_its_optimum():
    """Visits that swing an arm's belief are worth more together than one by one."""
    n_slots = 4
    good, back = np.array([0.05, 0.1]), np.array([0.95, 0.9])
    arms = Arms.from_arrays(2, stay_good=good, recover=back, window=[f"0-{n_slots - 1}"] * 2)
    dynamics = EncodedArms(BeliefChains.build(good, back, tolerance=1e-6), Windows.free(2, n_slots, n_slots))
    rules = {"slot": SlotBudget(at_most=1), "often": Frequency(at_most=4)}
    actions = ActionSet(VisitColumns(arms, n_slots), rules)
    model = Model(Problem(arms, dynamics, horizon=n_slots), actions, VisitGains(), solver="exact")
    plan = calendar(model)
    assert plan.value == pytest.approx(best_of_all(model), abs=1e-6)
    assert plan.bound >= plan.value


def test_rounds_and_calendars_are_not_mixed_up():
    model = ro.load("inspection")
    plan, limit = calendar(model), ro.bound(model)
    assert limit.value >= plan.value - 1e-6
    assert limit.value == pytest.approx(plan.bound)
    from rmab_opt.learning import evaluate

    with pytest.raises(CapabilityError, match="rmab-opt plan"):
        evaluate(model, ["random"], episodes=1)
    several = ro.load("inspection", **{"yearly.equal": 2, "problem.window": 6, "monthly.at_most": 12})
    with pytest.raises(CapabilityError, match="rmab-opt plan"):
        ro.decide(several)
    twice = calendar(several)
    assert twice.gap <= 1e-4 * twice.value
    assert (twice.visits.sum(axis=1) == 2).all()


@pytest.mark.parametrize("objective", [VisitGains(beyond=8), VisitGains("index"), VisitGains()])
@pytest.mark.parametrize("often", [{"equal": 1}, {"at_most": 2}])
def test_without_an_event_nothing_moves(objective, often):
    problem = generate("inspection", n_arms=20, window=4, seed=2).problem
    rules = {"season": Window(), "often": Frequency(**often), "slot": SlotBudget(at_most=2)}
    plan = calendar(Model(problem, ActionSet(VisitColumns(problem.arms, 12), rules), objective))
    assert plan.value <= plan.bound + 1e-9
    assert np.isfinite(plan.bound)
    again = plan
    for slot in (0, 3, 4, 9):
        again = again.replan(slot)
        assert again.moved == 0
        assert (again.visits == plan.visits).all()
        assert again.value == pytest.approx(plan.value)


def test_staying_put_is_no_part_of_value_and_bound():
    problem = generate("inspection", n_arms=12, seed=0).problem
    rules = {"season": Window(), "yearly": Frequency(equal=1), "slot": SlotBudget(at_most=3)}
    plan = calendar(Model(problem, ActionSet(VisitColumns(problem.arms, 12), rules), VisitGains(), solver="exact"))
    free, kept = (plan.replan(1, must={"arm3": (9, 11)}, stay=stay) for stay in (0.0, 5.0))
    assert kept.bound == pytest.approx(free.bound, abs=1e-6)
    assert kept.value <= free.value + 1e-9
    assert kept.moved <= free.moved


def test_a_complaint_and_a_yearly_visit_outlive_every_later_re_plan():
    plan = calendar(ro.load("inspection"))
    promised = plan.replan(5, must={"arm1": (7, 8)})
    later = promised.replan(6).replan(7)
    assert later.visits[1, 7:9].any()
    missed = next(t for t in (7, 8) if later.visits[1, t])
    after = later.replan(9, missed=[("arm1", missed)])
    assert after.late == ("arm1",)
    assert after.visits[1, 9:].any()
    assert after.replan(9).late == ("arm1",)
    # The yearly visit of somebody whose window is over is still owed two re-plans later.
    name, slot = next((plan.ids[i], t) for t in range(4) for i in np.flatnonzero(plan.visits[:, t]))
    twice = plan.replan(6, missed=[(name, slot)]).replan(7)
    assert twice.visits[plan.ids.index(name)].sum() == 1


def events_at(rng: np.random.Generator, plan, now: int) -> list[CalendarEvent]:
    """Some events that can be at a slot."""
    n_slots, found = len(plan.slots), []
    past = [(n, t) for n, t in zip(*np.nonzero(plan.visits[:, max(0, now - 2) : now]), strict=True)]
    if past and rng.random() < 0.6:
        n, t = past[rng.integers(len(past))]
        found.append(CalendarEvent(event="missed", arm=plan.ids[n], slot=int(t) + max(0, now - 2)))
    if rng.random() < 0.5:
        last = int(rng.integers(now, n_slots))
        found.append(CalendarEvent(event="complaint", arm=str(rng.choice(plan.ids)), slot=now, last=last))
    if rng.random() < 0.2:
        found.append(CalendarEvent(event="closed", arm=str(rng.choice(plan.ids)), slot=now))
    if rng.random() < 0.2:
        found.append(CalendarEvent(event="holiday", slot=int(rng.integers(now, n_slots))))
    if rng.random() < 0.2:
        found.append(CalendarEvent(event="capacity", slot=now, last=n_slots - 1, change=int(rng.integers(-2, 2))))
    if rng.random() < 0.2:
        found.append(
            CalendarEvent(event="opened", arm=f"new{now}-{len(plan.ids)}", slot=now, last=n_slots - 1, like=plan.ids[0])
        )
    if rng.random() < 0.2:
        first = int(rng.integers(0, n_slots - 1))
        found.append(CalendarEvent(event="window", arm=plan.ids[1], slot=now, window=f"{first}-{n_slots - 1}"))
    return found


def owed(plan, log: list[CalendarEvent]) -> dict[str, int]:
    """Who must have had a visit by the period's end, by hand: one a year, and one after each complaint."""
    gone = {e.arm for e in log if e.event == "closed"}
    return {name: 1 for name in plan.ids if name not in gone}


@settings(max_examples=amount(2, 5), deadline=None)
@given(seed=st.integers(0, 10**6))
@example(seed=0)
@example(seed=100_000)
def test_a_chain_of_re_plans_loses_nothing_that_is_due(seed):
    """30 re-plans of 60 arms: every yearly visit and every complaint is done, planned, or named as late."""
    rng = np.random.default_rng(seed)
    problem = generate("inspection", n_arms=60, n_slots=12, window=3, seed=seed % 1000).problem
    rules = {"season": Window(), "yearly": Frequency(equal=1), "slot": SlotBudget(at_most=8)}
    plan = calendar(Model(problem, ActionSet(VisitColumns(problem.arms, 12), rules), VisitGains()))
    log: list[CalendarEvent] = []
    for step in range(steps := amount(10, 30)):
        now = step * 12 // steps
        events = events_at(rng, plan, now)
        if any(e.event == "missed" for e in events):
            known = {(e.arm, e.slot) for e in log if e.event == "missed"}
            events = [e for e in events if (e.arm, e.slot) not in known]
        before, plan = plan, plan.replan(now, events=events, stay=0.05)
        log += events
        if not events:
            assert plan.moved == 0
        assert (plan.visits[: len(before.ids), :now] <= before.visits[:, :now]).all()
        assert plan.value <= plan.bound + 1e-6
        for name in owed(plan, log):
            assert plan.visits[plan.ids.index(name)].any() or name in plan.late, name
        gone = {e.arm for e in log if e.event == "closed"}
        for e in (e for e in log if e.event == "complaint" and e.arm not in gone):
            row = plan.visits[plan.ids.index(e.arm)]
            kept = row[e.slot : e.last + 1].any()
            assert kept or row[e.slot :].any() or e.arm in plan.late, e
            if not kept and not row[e.slot : now].any():
                assert e.arm in plan.late, e
        shut = [e.slot for e in log if e.event == "holiday" and e.slot >= now]
        assert not plan.visits[:, shut].any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_certificate_of_a_re_plan_holds_against_enumeration(seed):
    rules = {"often": Frequency(at_most=2), "slot": SlotBudget(at_most=1)}
    model = small(seed, 2, 5, rules, 0.5)
    plan = calendar(model)
    taken = np.argwhere(plan.visits[:, :2])
    missed = [(plan.ids[taken[0][0]], int(taken[0][1]))] if len(taken) else []
    again = plan.replan(2, missed=missed, stay=0.3)
    done = plan.visits.copy()
    for name, t in missed:
        done[plan.ids.index(name), t] = False
    best = best_of_all(model, fixed=done, now=2)
    assert again.bound == pytest.approx(best, abs=1e-5)
    assert again.value <= best + 1e-6
