"""After an event only visits move that must: among plans of the same worth the one nearest to the plan before."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from scipy import optimize, sparse

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
from rmab_opt.problem import Arms, Problem
from rmab_opt.settings.inspection import (
    BeliefChains,
    Frequency,
    SlotBudget,
    VisitColumns,
    Windows,
    choose,
)
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.calendar import calendar
from rmab_opt.settings.inspection.gains import VisitGains


def fewest_moves(plan, made, arm: int, span: tuple[int, int], room: int) -> int:
    """Visits of the plan before that some plan as good as ``made`` gives up at least: a program of its own.

    One visit an arm in its window, one of ``arm`` in ``span`` beside or instead; worth by walking through the slots.
    """
    n_arms, n_slots = plan.visits.shape
    beliefs, now = plan.model.problem.dynamics.chains.beliefs, made.now
    open_ = np.array([[int(a) <= t <= int(b) for t in range(n_slots)] for a, b in
                      (cell.split("-") for cell in plan.cohort.text("window"))])  # fmt: skip
    open_[arm, span[0] : span[1] + 1] = True
    open_[:, :now] = False

    def earned(i: int, slots: tuple[int, ...]) -> float:
        age, total = 0, 0.0
        for t in range(n_slots):
            age = 0 if t in slots else age + 1
            total += beliefs[i, min(age, beliefs.shape[1] - 1)]
        return total

    choices = []
    for i in range(n_arms):
        past = tuple(np.flatnonzero(plan.visits[i, :now]).tolist())
        ahead = np.flatnonzero(open_[i]).tolist()
        if i == arm:
            promised = [t for t in ahead if span[0] <= t <= span[1]]
            choices += [(i, (*past, t)) for t in promised]
            assert not past or len(past) == 1
        elif past:
            choices.append((i, past))
        else:
            choices += [(i, (t,)) for t in ahead]
    worth = np.array([earned(i, slots) for i, slots in choices])
    moved = np.array([sum(plan.visits[i, t] and t not in s for t in range(now, n_slots)) for i, s in choices])
    who = sparse.csr_array((np.ones(len(choices)), ([i for i, _ in choices], range(len(choices)))))
    cells = [(t, k) for k, (_, slots) in enumerate(choices) for t in slots]
    load = sparse.csr_array((np.ones(len(cells)), tuple(zip(*cells, strict=True))), shape=(n_slots, len(choices)))
    rows = [
        optimize.LinearConstraint(who, 1, 1),
        optimize.LinearConstraint(load, -np.inf, room),
        optimize.LinearConstraint(worth[None, :], made.value - 1e-6, np.inf),
    ]
    found = optimize.milp(moved, constraints=rows, integrality=np.ones(len(choices)), bounds=(0, 1))
    assert found.success
    return round(found.fun)


@pytest.mark.parametrize("arm", [1, 7, 20, 33])
def test_a_complaint_moves_no_visit_more_than_it_must(arm):
    model = ro.load("inspection")
    plan = calendar(model)
    made = plan.replan(5, must={f"arm{arm}": (5, 6)})
    room = int(plan.capacity.max())
    assert made.gap <= 1e-6
    assert made.visits[arm, 5:7].any()
    least = fewest_moves(plan, made, arm, (5, 6), room)
    assert made.moved == least
    assert made.moved <= 6


@pytest.mark.parametrize("changed", [{"objective.beyond": 12}, {"objective.weights": "index"}])
def test_sixty_visits_stay_where_nothing_happens_whatever_weighs_them(changed):
    """22 of them moved once, with `beyond` and with `weights: index`."""
    plan = calendar(ro.load("inspection", **changed))
    for slot in (1, 5, 8):
        again = plan.replan(slot)
        assert again.moved == 0
        assert (again.visits == plan.visits).all()


@pytest.mark.parametrize("large", [False, True])
def test_where_dates_do_not_matter_loads_are_even(large):
    """Arms without memory: every date earns the same, and nobody wants 24 visits in one week and none in the next."""
    good = np.random.default_rng(0).uniform(0.7, 0.95, 120)
    arms = Arms.from_arrays(120)
    dynamics = EncodedArms(BeliefChains.build(good, good), Windows.free(120, 12))
    rules = {"often": Frequency(equal=1), "slot": SlotBudget(at_most=60)}
    model = Model(Problem(arms, dynamics, horizon=12), ActionSet(VisitColumns(arms, 12), rules), VisitGains())
    with mock.patch.object(choose, "WHOLE_ARCS", 0 if large else choose.WHOLE_ARCS):
        plan = calendar(model)
    assert plan.path == ("priced" if large else "linear")
    assert plan.load.sum() == 120
    assert plan.gap <= 1e-6
    # The first slots earn less where the season begins with everybody in order.
    later = plan.load[plan.load > 0]
    assert later.max() - later.min() <= 6
    assert plan.load.max() <= 20
