"""Labels of walks: whatever prices and memories they hold, no route is worth more; the search closes small tasks."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problem_for

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Path, path
from rmab_opt.actions.labels import Labels, measure, proven, searched
from rmab_opt.actions.side_rows import SideRows
from rmab_opt.actions.tours import Orienteering, collected
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.decisions.proof import recheck
from rmab_opt.decisions.scale import scaled
from rmab_opt.problem import Arms, Table


def plane(seed: int, stops: int, length: int, vehicles: int = 1, most: int | None = None) -> Orienteering:
    """Points of a plane, whole steps rounded up, every point a column."""
    place = np.random.default_rng(seed).uniform(0, 10, (stops + 1, 2))
    between = np.ceil(np.linalg.norm(place[:, None] - place[None], axis=2))
    between = np.maximum(between, 1.0 - np.eye(stops + 1))
    beside = None if most is None else SideRows.count(stops + 1, most)
    return Orienteering(between, length, vehicles, tuple(np.array([k]) for k in range(stops + 1)), beside=beside)


def most_brought(task: Orienteering, gain: np.ndarray) -> float:
    """By trying every order of every set of stops, and every pair of sets for two vehicles."""
    stops = range(1, len(task.between))
    passed = {frozenset([0])}
    for count in stops:
        for chosen in combinations(stops, count):
            if any(task.steps([0, *order, 0]) <= task.length for order in permutations(chosen)):
                passed.add(frozenset([0, *chosen]))
    if task.vehicles == 2:
        passed = {one | two for one in passed for two in passed}
    return max(best_within(task, list(one), gain) for one in passed)


def best_within(task: Orienteering, columns: list[int], gain: np.ndarray) -> float:
    """By trying every choice of the columns."""
    every = np.zeros((2 ** len(columns), len(gain)))
    every[:, columns] = (np.arange(len(every))[:, None] >> np.arange(len(columns))) & 1
    if task.beside is not None:
        used = every @ task.beside.matrix.T.toarray()
        every = every[((used >= task.beside.lower) & (used <= task.beside.upper)).all(axis=1)]
    return float((every @ gain).max(initial=-np.inf))


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 30), st.integers(1, 2), st.booleans())
def test_no_route_is_worth_more_than_any_prices_and_memories_say(seed, stops, length, vehicles, few):
    rng = np.random.default_rng(seed)
    task = plane(seed, stops, length, vehicles, int(rng.integers(1, stops + 1)) if few else None)
    gain = rng.normal(size=stops + 1).round(int(rng.integers(0, 3)))
    best = most_brought(task, gain)
    rounds = int(rng.integers(0, 4))
    prices = np.maximum(rng.normal(size=(rounds, stops + 1 + len(task.far or ()))), 0.0)
    joined = rng.integers(-1, 4, (stops + 1, stops + 1)).astype(np.int16)
    for target in (-5.0, 0.9 * best, best, best + 0.1):
        for listed in (False, True):
            assert proven(task, gain, Labels(prices, joined, target, listed)) >= best - 1e-12, (target, best)


@settings(max_examples=amount(13, 40), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(5, 40))
def test_the_search_closes_small_tasks_of_one_vehicle(seed, stops, length):
    rng = np.random.default_rng(seed)
    task, gain = plane(seed, stops, length), rng.uniform(0.1, 1.0, stops + 1)
    routes, labels, limit = searched(task, gain, [], rng)
    best = most_brought(task, gain)
    assert float(gain @ task.action(routes, gain)) == pytest.approx(best, abs=1e-9)
    assert proven(task, gain, labels) == pytest.approx(limit, rel=1e-12)
    assert limit == pytest.approx(best, rel=1e-8)


def test_the_bound_falls_to_the_measure_of_the_gains():
    assert measure(np.array([0.75, -1.0, 0.5])) == 0.25
    assert measure(np.array([6.0, 30.0, 12.0])) == 6.0
    assert measure(np.array([0.1, 0.2])) == 0.0
    assert measure(np.zeros(3)) == 0.0
    task = plane(3, 5, 14)
    gain = np.array([0.0, 6.0, 12.0, 6.0, 18.0, 12.0])
    best = most_brought(task, gain)
    labels = Labels(np.zeros((1, 6)), np.full((6, 6), -1, dtype=np.int16), best + 5.9)
    assert proven(task, gain, labels) % 6.0 == 0.0
    assert proven(task, gain, labels) >= best
    closed = searched(task, gain, [], np.random.default_rng(0))[1]
    assert proven(task, gain, closed) == best
    assert closed.target > best + 5.0


def routed(seed: int, stops: int, length: int, vehicles: int = 1, most: int | None = None) -> ActionSet:
    task = plane(seed, stops, length, vehicles)
    pairs = [(i, j) for i in range(stops + 1) for j in range(i)]
    edges = {
        "from": [f"arm{i}" for i, _ in pairs],
        "to": [f"arm{j}" for _, j in pairs],
        "minutes": [int(task.between[pair]) for pair in pairs],
    }
    rules = {"route": Path(edges=Table(edges), depot="arm0", length=length, vehicles=vehicles)}
    if most is not None:
        rules["few"] = Budget(at_most=most)
    return ActionSet(Arms.from_arrays(stops + 1), rules)


@pytest.mark.parametrize(
    ("seed", "vehicles", "most"), amount([(2, 2, None)], [(0, 1, None), (1, 1, None), (2, 2, None), (3, 1, 6)])
)
def test_seventeen_stops_are_decided_as_the_list_over_all_their_subsets_says(monkeypatch, seed, vehicles, most):
    length = 14 if vehicles == 2 else 24
    actions = routed(seed, 17, length, vehicles, most)
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.1, 1.0, 18)
    monkeypatch.setattr(path, "FEW_STOPS", 12)
    decision = Chooser(problem_for(actions.columns.arms, rng), actions, Scores(gain), "default", many=False).decide(
        np.zeros(18, dtype=int)
    )
    monkeypatch.setattr(path, "FEW_STOPS", 17)
    listed = routed(seed, 17, length, vehicles, most).routes
    value = listed.best(gain)[1]
    assert decision.value <= value + 1e-9 <= decision.bound + 2e-9
    if vehicles == 1 and most is None:
        assert decision.value == pytest.approx(value, rel=1e-4)
        assert decision.status == "optimal"
        assert decision.proof.kind == "labels"
    else:
        assert decision.value >= 0.97 * value
        assert decision.bound <= 1.1 * value


def test_memories_beyond_any_room_prove_nothing_at_once():
    task = plane(0, 60, 40)
    every = Labels(np.zeros((2, 61)), np.zeros((61, 61), dtype=np.int16), 0.0)
    assert proven(task, np.ones(61), every) == np.inf


def test_a_late_clock_leaves_an_allowed_action_and_a_bound_that_holds():
    actions, gain = routed(5, 30, 26), np.random.default_rng(5).uniform(0.1, 1.0, 31)
    task = actions.shape.orienteering
    rng = np.random.default_rng(0)
    routes = collected(task, gain, rng, late=lambda: True)
    more, labels, limit = searched(task, gain, routes, rng, late=lambda: True)
    action, rows = actions.shape.routed(more, gain)
    assert not actions.violations(action, rows)
    whole, closed, _ = searched(task, gain, routes, rng)
    best = float(gain @ task.action(whole, gain))
    assert float(gain @ action) <= best <= proven(task, gain, labels) <= limit * (1 + 1e-12)
    assert proven(task, gain, closed) == pytest.approx(best, rel=1e-8)


def test_the_file_of_a_decision_holds_the_proof_and_tampering_proves_no_less():
    actions = routed(7, 20, 22)
    rng = np.random.default_rng(7)
    gain = rng.uniform(0.1, 1.0, 21)
    problem = problem_for(actions.columns.arms, rng)
    chooser = Chooser(problem, actions, Scores(gain), "default", many=False)
    decision = chooser.decide(np.zeros(21, dtype=int))
    assert decision.status == "optimal"
    question = decision.question
    unit, asked = scaled(question)
    again = decision.proof.file().proof()
    assert unit.size * recheck(again, asked) == pytest.approx(decision.bound, rel=1e-9)
    for change in ({"target": 0.0}, {"prices": 0.5 * again.labels.prices}, {"joined": again.labels.joined * 0 - 1}):
        other = replace(again, labels=replace(again.labels, **change))
        assert unit.size * recheck(other, asked) >= decision.value - 1e-9
    assert recheck(replace(again, labels=replace(again.labels, prices=-again.labels.prices)), asked) == np.inf
