"""Limits that clash: the one at fault is named, a plan exists with the least change and none with a little less."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st

import rmab_opt as ro
from rmab_opt.errors import InfeasibleError
from rmab_opt.planning import Coupling
from rmab_opt.settings.equity import Cohort, Groups, Limits, fair_plan, fair_plan_arrays, smallest_budget  # fmt: skip
from rmab_opt.settings.equity import blame as module
from rmab_opt.settings.equity.blame import blame
from rmab_opt.settings.equity.guarantees import Guarantee

LESS = 2e-3
"""A little less than a named change, as a share of it."""


def cohort(seed, n_arms=6, budget=1.0, horizon=4, unit=1.0):
    """Random arms in three groups that act for more, under one budget."""
    rng = np.random.default_rng(seed)
    move = rng.dirichlet(np.ones(3), (n_arms, 2, 3))
    pay = unit * np.repeat(np.sort(rng.random((n_arms, 3)), axis=1)[:, :, None], 2, axis=2)
    label = np.arange(n_arms) % 3
    groups = Groups(("north", "south", "west"), label == np.arange(3)[:, None])
    return Cohort(move, pay, rng.integers(0, 3, n_arms), groups, Coupling.budgets([budget]), horizon)


def possible(of, limits):
    """Whether a plan keeps the limits, judged by the program without blame."""
    try:
        fair_plan_arrays(of, limits, welfare="utilitarian", method="program")
    except InfeasibleError:
        return False
    return True


def tightened(limits, relaxed):
    """The relaxed limits, each of those that gave way back by a little, one at a time."""
    for name in ("floors", "arm_floors"):
        before, after = getattr(limits, name), getattr(relaxed, name)
        for place in [] if before is None else np.flatnonzero(np.asarray(before) != np.asarray(after)):
            back = np.array(after)
            back[place] += LESS * (before[place] - after[place]) + 3e-4 * abs(after[place])
            yield dataclasses.replace(relaxed, **{name: back})
    for name in ("gini", "ratio"):
        before, after = getattr(limits, name), getattr(relaxed, name)
        if before != after:
            yield dataclasses.replace(
                relaxed, **{name: after + (before - after) * LESS + 3e-4 * np.sign(before - after)}
            )
    for place, (before, after) in enumerate(zip(limits.services, relaxed.services, strict=True)):
        if before != after:
            more = 1 if before.certain else LESS * (before.at_least - after.at_least) + 3e-4 * after.at_least
            services = list(relaxed.services)
            services[place] = dataclasses.replace(after, at_least=after.at_least + more)
            yield dataclasses.replace(relaxed, services=tuple(services))


def best_of(of, group):
    """Largest value of one group, when nobody else counts."""
    one = Groups(("all",), np.ones((1, len(of.transition)), dtype=bool))
    share = of.groups.member[group] * len(of.transition) / of.groups.sizes[group]
    alone = dataclasses.replace(of, groups=one, reward=of.reward * share[:, None, None], past=None)
    return fair_plan_arrays(alone, welfare="utilitarian", method="program").upper


HIGH = np.array([9.0, -np.inf, -np.inf])
CLASHES = {
    "floor": Limits(floors=HIGH),
    "floors": Limits(floors=np.array([2.6, 2.6, 2.6])),
    "floors, constant budgets": Limits(floors=np.array([2.6, 2.6, 2.6]), mode="constant"),
    "floors, total budgets": Limits(floors=np.array([2.6, 2.6, 2.6]), mode="total"),
    "floors, whole budgets": Limits(floors=np.array([2.6, 2.6, 2.6]), mode="constant", whole=True),
    "arm floors": Limits(arm_floors=np.array([3.0, 3.0, 3.0, 0.0, 0.0, 0.0])),
    "services": Limits(services=(Guarantee(2),)),
    "services of groups": Limits(services=(Guarantee(1.8, per="group"),)),
    "services of a window": Limits(services=(Guarantee(0.5, begin=1, end=3),)),
    "certain services": Limits(services=(Guarantee(2, certain=True),)),
    "gini": Limits(gini=0.0, floors=np.array([2.2, 0.0, 0.0])),
    "gini alone": Limits(gini=0.0),
    "ratio": Limits(ratio=1.0, floors=np.array([2.2, 0.0, 0.0])),
    "gini and ratio": Limits(gini=0.01, ratio=0.99, floors=np.array([2.4, 0.0, 0.0])),
    "everything": Limits(
        floors=np.array([2.4, 2.0, 0.0]), arm_floors=np.full(6, 1.2), gini=0.02, ratio=0.9,
        services=(Guarantee(1), Guarantee(2.0, per="group")),
    ),
    "certain and floors": Limits(floors=np.array([2.5, 2.5, 0.0]), services=(Guarantee(1, certain=True),)),
}  # fmt: skip


@pytest.mark.parametrize("seed", amount([1], [1, 2, 3]))
@pytest.mark.parametrize("name", CLASHES)
def test_a_plan_exists_with_the_change_and_none_with_a_little_less(name, seed, monkeypatch):
    of, limits = cohort(seed), CLASHES[name]
    found = blame(of, limits)
    assert (found is None) == possible(of, limits)
    if found is None:
        return
    assert found.changes
    assert possible(of, found.relaxed)
    # Rounding a limit makes room for the others: what is tried closely is not rounded.
    monkeypatch.setattr(module, "DIGITS", 9)
    relaxed = blame(of, limits).relaxed
    tried = list(tightened(limits, relaxed))
    assert len(tried) == len(found.changes)
    for tighter in tried:
        assert not possible(of, tighter)


@given(st.integers(0, 10_000), st.sampled_from([1e-6, 1.0, 1e5]))
@settings(max_examples=8, deadline=None)
def test_one_floor_too_high_is_lowered_to_what_the_group_can_get_alone(seed, unit):
    of = cohort(seed, unit=unit)
    most = best_of(of, 1)
    floors = np.array([-np.inf, 1.3 * most, -np.inf])
    found = blame(of, Limits(floors=floors))
    (change,) = found.changes
    assert change.what == "floor of group 'south'"
    assert change.given == pytest.approx(floors[1])
    assert change.least == pytest.approx(most, rel=1e-5)
    assert change.proposed <= change.least * (1 + 1e-9)


def test_the_right_limit_is_blamed():
    """Floors that are easy to keep beside a guarantee that is not, and the other way about."""
    of = cohort(3)
    low = np.full(3, 0.1)
    (change,) = blame(of, Limits(floors=low, services=(Guarantee(2, end=2),))).changes
    assert change.what == "guarantee (at least 2 expected services per arm in rounds 1 to 2)"
    assert change.least == pytest.approx(2 / 6, rel=1e-5)  # Two rounds of one service for six arms.
    (change,) = blame(of, Limits(floors=HIGH, services=(Guarantee(0.1),))).changes
    assert change.what == "floor of group 'north'"


def test_plans_and_capacities_say_what_can_be_had_and_which_budget_would_do():
    of = cohort(3)
    limits = Limits(services=(Guarantee(1),))
    for method in ("program", "auto"):
        with pytest.raises(InfeasibleError, match=r"1: at most 0\.6666 can be had; lower it to that") as caught:
            fair_plan_arrays(of, limits, method=method)
        assert "or raise the budget from 1 to 1.5" in caught.value.fix
        assert list(caught.value.clash) == ["guarantee (at least 1 expected services per arm)"]
    enough = dataclasses.replace(of, rows=Coupling.budgets([1.501]))
    assert possible(enough, limits)
    assert not possible(dataclasses.replace(of, rows=Coupling.budgets([1.49])), limits)
    with pytest.raises(InfeasibleError, match=r"floor of group 'north' 9: at most 2\.\d+ can be had"):
        fair_plan_arrays(of, Limits(floors=HIGH), method="prices")
    small = ro.load("equity_synthetic", n_arms=20, at_most=4).problem
    with pytest.raises(InfeasibleError, match=r"floor of group 'C' 25: at most 17\.58 can be had"):
        smallest_budget(small, "group", np.array([0.0, 0.0, 25.0, 0.0, 0.0]))


def test_arms_are_called_by_their_ids():
    model = ro.load("equity_synthetic", n_arms=20, at_most=1)
    floors = np.where(np.arange(20) == 3, 99.0, -np.inf)
    with pytest.raises(InfeasibleError, match=f"floor of arm {model.problem.arms.ids[3]} 99: at most"):
        fair_plan(model.problem, model.actions, arm_floors=floors)


def test_an_action_set_that_allows_nothing_is_not_blamed_on_the_limits():
    must = Coupling(np.array([[[[0.0, 1.0]]]]), np.array([7.0]), np.array([True]), ("visits",))
    of = dataclasses.replace(cohort(1), rows=must)
    found = blame(of, Limits(floors=np.zeros(3)))
    assert found.changes == ()
    assert "whatever floors and limits say" in found.error().message


def test_a_large_program_is_told_so(monkeypatch):
    monkeypatch.setattr(module, "MOST_COLUMNS", 10)
    with pytest.raises(InfeasibleError, match="floors of groups"):
        blame(cohort(1), Limits(floors=HIGH))


def test_limits_that_a_plan_keeps_are_not_blamed(monkeypatch):
    """A back-end that calls them infeasible is told from limits that clash."""
    assert blame(cohort(1), Limits(floors=np.zeros(3), gini=0.9, ratio=0.01)) is None
