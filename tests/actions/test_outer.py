"""Rosters and loads without a program: rows that hold for every allowed action, and decisions below their bound."""

from __future__ import annotations

import numpy as np
import pytest
from amounts import amount
from strategies import problem_for

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Capacity, Scheduling, assignment, scheduling
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.problem import Arms, Table

RULES = ("any", "distinct_workers", "same_slot")


@pytest.fixture
def all_large(monkeypatch):
    """Every roster and load counts as too large for a program."""
    monkeypatch.setattr(assignment, "LARGE", -1)
    monkeypatch.setattr(scheduling, "LARGE", -1)


def loaded(rng: np.random.Generator, n: int, n_workers: int, *, whole: bool, budget: int | None = None) -> ActionSet:
    load = rng.integers(0, 8, n).tolist() if whole else rng.uniform(0.3, 7.7, n).tolist()
    capacity = rng.integers(2, 12, n_workers).tolist()
    workers = Table({"worker": [f"w{i}" for i in range(n_workers)], "capacity": capacity}, source="workers")
    kinds = {} if budget is None else {"budget": Budget(at_most=budget)}
    return ActionSet(Arms.from_arrays(n, load=load), kinds | {"team": Capacity(workers=workers, cost="load")})


def rostered(rng: np.random.Generator, n: int, n_workers: int, rule: str, n_slots: int = 4) -> ActionSet:
    names = [f"s{k}" for k in range(n_slots)]
    cells = [";".join(rng.choice(names, rng.integers(1, 3), replace=False)) for _ in range(n)]
    duty = [(f"w{i}", slot) for i in range(n_workers) for slot in rng.choice(names, rng.integers(1, 4), replace=False)]
    duty.append(("w0x", "s0"))
    roster = Table(
        {
            "worker": [worker for worker, _ in duty],
            "slot": [slot for _, slot in duty],
            "calls": rng.integers(0, 3, len(duty)).tolist(),
        },
        source="roster",
    )
    return ActionSet(Arms.from_arrays(n, slots=cells), {"roster": Scheduling(roster=roster, visits=2, rule=rule)})


def drawn(seed: int) -> ActionSet:
    rng = np.random.default_rng(seed)
    if seed % 2:
        return loaded(rng, 9, 3, whole=bool(seed % 4 == 1), budget=4 if seed % 3 == 0 else None)
    return rostered(rng, 9, 4, RULES[seed // 2 % 3])


@pytest.mark.parametrize("seed", range(amount(8, 24)))
def test_outer_rows_hold_and_a_decision_lies_between_the_best_and_its_bound(all_large, seed):
    actions = drawn(seed)
    every = actions.enumerate()
    assert actions.outer is not None
    assert actions.outer.allow(every).all()
    gain = np.random.default_rng(seed).uniform(size=9)
    chooser = Chooser(
        problem_for(actions.columns.arms, np.random.default_rng(seed)), actions, Scores(gain), "default", many=False
    )
    decision = chooser.decide(np.zeros(9, dtype=int))
    best = float((every @ gain).max())
    assert "packing" in decision.solver
    assert decision.value <= best + 1e-9
    assert decision.bound >= best - 1e-9
    assert decision.value >= 0.75 * best
    assert actions.violations(decision.action, decision.assignment) == {}
    assert actions.misassigned(decision.assignment, decision.action) is None
    assert actions.agreement().fault is None


@pytest.mark.parametrize("seed", range(12))
def test_a_flow_of_types_serves_what_a_flow_of_arms_serves(seed):
    rng = np.random.default_rng(seed)
    actions = rostered(rng, 40, 6, RULES[seed % 3])
    roster, columns = actions.constraints["roster"], actions.columns
    plan = roster._plan(columns)
    for _ in range(20):
        chosen = np.flatnonzero(rng.random(40) < rng.uniform(0.05, 0.6))
        count = np.bincount(plan.alike[chosen], minlength=len(plan.types))
        assert roster._most_served(plan, count, columns) == roster._flow(plan, chosen)[1]


@pytest.mark.parametrize(("seed", "whole"), [(0, True), (1, True), (2, False)])
def test_large_packings_are_within_a_per_cent_of_the_program(seed, whole, monkeypatch):
    rng = np.random.default_rng(seed)
    actions = loaded(rng, 120, 12, whole=whole)
    problem, gain = problem_for(actions.columns.arms, rng), rng.uniform(size=120)

    def decided():
        return Chooser(problem, actions, Scores(gain), "default", many=False).decide(np.zeros(120, dtype=int))

    monkeypatch.setattr(assignment, "LARGE", 0)
    found = decided()
    assert "packing" in found.solver
    assert found.bound - found.value <= 0.01 * found.value


def test_patterns_are_as_good_as_the_program(monkeypatch):
    rng = np.random.default_rng(5)
    load, capacity = rng.integers(2, 7, 60), rng.integers(2, 8, 8)
    workers = Table({"worker": [f"w{i}" for i in range(8)], "capacity": capacity.tolist()}, source="workers")

    def decided():
        actions = ActionSet(Arms.from_arrays(60, load=load.tolist()), {"team": Capacity(workers=workers, cost="load")})
        problem = problem_for(actions.columns.arms, np.random.default_rng(5))
        gain = np.random.default_rng(6).uniform(size=60)
        return Chooser(problem, actions, Scores(gain), "exact", many=False).decide(np.zeros(60, dtype=int))

    program = decided()
    monkeypatch.setattr(assignment, "LARGE", 0)
    packed = decided()
    assert "packing" in packed.solver
    assert packed.value == pytest.approx(program.value, abs=1e-9)


@pytest.mark.parametrize("seed", range(1, 9))
def test_what_a_forced_column_costs_is_found_without_a_program(all_large, seed):
    actions = drawn(seed)
    every = actions.enumerate()
    gain = np.random.default_rng(seed).uniform(size=9)
    column = int(every.sum(axis=0).argmax())
    chooser = Chooser(
        problem_for(actions.columns.arms, np.random.default_rng(seed)), actions, Scores(gain), "default", many=False
    )
    decision = chooser.decide(np.zeros(9, dtype=int), force=[actions.columns.ids[column]])
    assert decision.action[column]
    assert "packing" in decision.solver
    assert decision.value <= float((every @ gain)[every[:, column] == 1].max()) + 1e-9
