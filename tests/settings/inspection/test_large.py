"""Large plans' own parts: walks by dynamic programs, their prices, seats that others make room for."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
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
    large,
)
from rmab_opt.settings.inspection.agenda import Asked, plan_rest
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.calendar import calendar
from rmab_opt.settings.inspection.events import CalendarEvent
from rmab_opt.settings.inspection.gains import VisitGains
from rmab_opt.settings.inspection.kinds import ClassRules
from rmab_opt.settings.inspection.longest import LAYERS, NEVER, Longest


def some_walks(seed: int, many: int, apart: int) -> Longest:
    rng = np.random.default_rng(seed)
    slots, arms = 6, 3
    shut = rng.random((slots, arms)) < 0.2
    first, lead, tail = (rng.normal(size=(slots, arms)) for _ in range(3))
    return Longest(
        np.where(shut, NEVER, first), np.where(shut, NEVER, lead), tail, rng.normal(size=(slots + 1, arms)),
        rng.integers(0, 2, arms), many, apart,
    )  # fmt: skip


def all_walks(longest: Longest, arm: int) -> list[tuple[tuple[int, ...], float]]:
    """Every walk of an arm with what it gains, by the definition."""
    slots, found = len(longest.first), []
    least = 0 if longest.free else int(longest.least[arm])
    for count in range(slots + 1 if longest.free else longest.many + 1):
        for walk in combinations(range(slots), count):
            near = any(b - a < longest.apart for a, b in pairwise(walk))
            if near or (longest.first[list(walk), arm] < NEVER / 2).any() or count < least:
                continue
            worth = longest.first[walk[0], arm] if walk else 0.0
            for a, b in pairwise(walk):
                worth += longest.lead[b, arm] + longest.tail[a, arm] + longest.between[b - a, arm]
            found.append((walk, float(worth)))
    return found


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), many=st.sampled_from([1, 2, 3, LAYERS + 1]), apart=st.integers(1, 3))
def test_the_best_walk_is_the_best_of_all(seed, many, apart):
    longest = some_walks(seed, many, apart)
    worth, visits = longest.best()
    told = longest.worth(visits)
    for arm in range(3):
        walks = dict(all_walks(longest, arm))
        if not walks:
            assert not visits[:, arm].any()
            continue
        walk = tuple(np.flatnonzero(visits[:, arm]).tolist())
        assert worth[arm] == pytest.approx(max(walks.values()), abs=1e-9)
        assert walks[walk] == pytest.approx(worth[arm], abs=1e-9)
        assert told[arm] == pytest.approx(worth[arm], abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), many=st.sampled_from([1, 2, 3, LAYERS + 1]), heat=st.sampled_from([0.1, 1.0]))
def test_soft_walks_weigh_all_of_them(seed, many, heat):
    longest = some_walks(seed, many, 1 + seed % 2)
    worth, visits = longest.soft(heat)
    for arm in range(3):
        walks = all_walks(longest, arm)
        if not walks:
            continue
        weight = np.array([value for _, value in walks]) / heat
        top = weight.max()
        share = np.exp(weight - top)
        assert worth[arm] == pytest.approx(heat * (top + np.log(share.sum())), rel=1e-9, abs=1e-9)
        expected = np.zeros(len(visits))
        for (walk, _), part in zip(walks, share / share.sum(), strict=True):
            expected[list(walk)] += part
        assert visits[:, arm] == pytest.approx(expected, abs=1e-9)


def city(n_arms: int = 300, n_slots: int = 40) -> Model:
    """Three classes, districts with limits of their own, visits apart: a small city as the large ones are."""
    rng = np.random.default_rng(1)
    risk = rng.beta(1.5, 8, n_arms)
    arms = Arms.from_arrays(n_arms, risk=1 + np.arange(n_arms) % 3, district=[f"d{i % 4}" for i in range(n_arms)])
    chains = BeliefChains.build(1 - 0.1 * risk, 0.1 * (1 - risk))
    rules = {
        "often": ClassRules(column="risk", rules={"class": ["1", "2", "3"], "visits": ["2", "1", "1"]}),
        "apart": Gap(slots=10),
        "slot": SlotBudget(at_most=int(1.3 * n_arms * 4 / 3 / n_slots) + 1),
        "areas": SlotBudget(per="district", at_most=max(2, n_arms // n_slots)),
    }
    columns = VisitColumns(arms, n_slots)
    dynamics = EncodedArms(chains, Windows.free(n_arms, n_slots, 2))
    return Model(Problem(arms, dynamics, horizon=n_slots), ActionSet(columns, rules), VisitGains(several=True))


def test_types_find_prices_that_prove_and_seat_nearly_the_optimum():
    model, caught = city(120, 30), []
    with mock.patch.object(agenda, "best_walks", side_effect=lambda task, *_, **__: caught.append(task)):
        plan_rest(Asked.first(model.problem, model.actions, model.objective.weights), strict=True)
    task = caught[0]
    whole = choose.best_walks(task, "exact")
    prices = large.type_prices(task, large.in_common(task))
    bound, _ = task.priced(prices)
    assert whole.value - 1e-6 <= bound <= 1.002 * whole.bound
    with mock.patch.object(choose, "WHOLE_ARCS", 0):
        plan = calendar(model)
    assert plan.path == "priced"
    assert plan.gap <= 0.004 * whole.value
    columns = model.actions.columns
    assert not model.actions.violations(plan.visits[columns.arm, columns.slot].astype(int))
    # One type for each kind of cells and needs proves less, but proves.
    with mock.patch.object(large, "TYPES", 1):
        few, _ = task.priced(large.type_prices(task, large.in_common(task)))
    assert whole.value - 1e-6 <= few <= 1.06 * whole.bound


def test_a_complaint_for_a_full_slot_sends_somebody_else_away():
    """No room in the slots asked for: one of those there goes where it loses least, and nobody else moves."""
    model = city()
    with mock.patch.object(choose, "WHOLE_ARCS", 0):
        plan = calendar(model)
        full = next(t for t in range(8, 40) if plan.load[t] == plan.capacity[t])
        who = next(i for i in range(1, 300, 3) if plan.visits[i, full + 1 :].any())
        with mock.patch.object(choose, "_sifted", side_effect=AssertionError("no program is needed")):
            event = CalendarEvent(event="complaint", arm=plan.ids[who], slot=full)
            made = plan.replan(full, events=[event])
    assert made.visits[who, full]
    assert not made.overdue
    assert made.load[full] == plan.load[full]
    assert 1 <= made.moved <= 6
    assert made.value <= made.bound + 1e-6


def test_what_is_late_in_a_large_plan_comes_as_soon_as_it_may_and_few_others_move():
    model = city()
    with mock.patch.object(choose, "WHOLE_ARCS", 0), mock.patch.object(agenda, "SETTLED", 0):
        plan = calendar(model)
        who, slot = next((i, t) for t in range(12, 40) for i in np.flatnonzero(plan.visits[:, t]))
        # A complaint within the gap after a visit cannot be in time.
        event = CalendarEvent(event="complaint", arm=plan.ids[who], slot=slot + 1, last=slot + 2)
        made = plan.replan(slot + 1, events=[event])
    assert made.late == (plan.ids[who],)
    then = made.overdue[0].planned
    assert made.visits[who, then]
    # The first slot that is far enough, full or not.
    assert then == slot + 10
    assert plan.load[then] == plan.capacity[then]
    assert made.moved <= 6
    assert "less than 10 slots before" in made.said(made.overdue[0])


def test_a_price_of_a_promise_proves_too():
    problem = generate("inspection", n_arms=30, n_slots=12, window=8, seed=1).problem
    rules = {"season": Window(), "yearly": Frequency(equal=1), "slot": SlotBudget(at_most=4)}
    plan = calendar(Model(problem, ActionSet(VisitColumns(problem.arms, 12), rules), VisitGains(), solver="exact"))
    made = plan.replan(2, must={plan.ids[3]: (2, 3)})
    asked = Asked(made._at, plan.model.actions.constraints, plan.model.objective.weights, np.ones((30, 12), bool), 2)
    caught = []
    with mock.patch.object(agenda, "best_walks", side_effect=lambda task, *_, **__: caught.append(task)):
        plan_rest(replace(asked), strict=True)
    task = caught[0]
    price = large.asking(task, np.zeros(len(task.rows.lower)))
    assert (price < 0).sum() == 1
    bound, cells = task.priced(price)
    assert task.grid.slot[cells & (task.grid.arm == 3)].tolist() in ([2], [3])
    assert bound >= choose.best_walks(task, "exact").value - 1e-6


def test_a_late_visit_beside_a_complaint_for_a_full_slot():
    """What cannot be in time makes nothing else late: room is made for the complaint, and the dates told hold."""
    model = city()
    with mock.patch.object(choose, "WHOLE_ARCS", 0), mock.patch.object(agenda, "SETTLED", 0):
        plan = calendar(model)
        who, slot = next((i, t) for t in range(8, 30) for i in np.flatnonzero(plan.visits[:, t]) if i % 3 == 0)
        late = CalendarEvent(event="complaint", arm=plan.ids[who], slot=slot + 1, last=slot + 2)
        full = next(t for t in range(slot + 2, 38) if plan.load[t] == plan.capacity[t])
        other = next(i for i in range(1, 300, 3) if plan.visits[i, full + 1 :].any())
        prompt = CalendarEvent(event="complaint", arm=plan.ids[other], slot=full)
        made = plan.replan(slot + 1, events=[late, prompt])
        again = made.replan(slot + 1)
    assert made.late == (plan.ids[who],)
    assert made.visits[other, full]
    assert made.visits[who, made.overdue[0].planned]
    assert made.moved <= 8
    assert again.moved == 0
    assert again.overdue[0].planned == made.overdue[0].planned
