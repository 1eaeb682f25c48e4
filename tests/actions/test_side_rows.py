"""Routes beside quotas, money and least numbers: proofs against every choice of every route; the rows by themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from actions.test_labels import best_within, most_brought, plane
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import problem_for

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Knapsack, Linear, Path
from rmab_opt.actions.labels import Labels, proven, searched
from rmab_opt.actions.side_rows import SideRows
from rmab_opt.actions.tours import Orienteering, collected
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.decisions.proof import recheck
from rmab_opt.decisions.scale import scaled
from rmab_opt.errors import InfeasibleError
from rmab_opt.problem import Arms, Table


def some_rows(rng: np.random.Generator, n: int) -> SideRows:
    """One to three rows: quotas of some columns, weights, least numbers."""
    rows, ends = [], []
    for _ in range(int(rng.integers(1, 4))):
        inside, kind = rng.random(n) < 0.6, int(rng.integers(5))
        weight = {1: rng.uniform(0.5, 2.0, n).round(1), 4: rng.choice([-1.0, 1.0, 2.0], n)}.get(kind, np.ones(n))
        room = float(rng.integers(0, 4))
        rows.append(np.where(inside, weight, 0.0))
        ends.append(
            [(-np.inf, room), (-np.inf, room + 0.5), (min(room, 2.0), np.inf), (1.0, 1.0 + room), (-np.inf, room - 1)][
                kind
            ]
        )
    low, high = np.array(ends).T
    return SideRows.of(sparse.csr_array(np.array(rows)), low, high)


def beside(seed: int, stops: int, length: int, vehicles: int = 1, *, villages: bool = False) -> Orienteering:
    """A plane whose stops hold a column each, or several, and rows beside the routes."""
    rng, task = np.random.default_rng(seed + 1), plane(seed, stops, length, vehicles)
    if not villages:
        return replace(task, beside=some_rows(rng, stops + 1))
    point = np.sort(rng.integers(0, stops + 1, stops + 3))
    members = tuple(np.flatnonzero(point == k) for k in range(stops + 1))
    return replace(task, members=members, beside=some_rows(rng, stops + 3))


def most_beside(task: Orienteering, gain: np.ndarray) -> float:
    """:func:`most_brought` over the columns of the points that routes can pass."""
    stops = [own.tolist() for own in task.members]
    every = replace(task, members=tuple(np.array([k]) for k in range(len(stops))), beside=None)
    reached = []
    for chosen in product((False, True), repeat=len(stops) - 1):
        # A gain that only these points bring: all of it is brought where a route passes them all.
        some = np.append(0.0, np.array(chosen, dtype=float))
        if most_brought(every, some) == some.sum():
            reached.append([0, *(1 + np.flatnonzero(chosen)).tolist()])
    return max(best_within(task, [c for k in own for c in stops[k]], gain) for own in reached)


@settings(max_examples=amount(60, 300), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 30), st.integers(1, 2), st.booleans())
def test_whatever_a_file_holds_no_allowed_choice_is_worth_more(seed, stops, length, vehicles, villages):
    task = beside(seed, stops, length, vehicles, villages=villages)
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=task.beside.matrix.shape[1]).round(int(rng.integers(0, 3)))
    best, rows, rounds = most_beside(task, gain), 0 if task.far is None else len(task.far), int(rng.integers(0, 4))
    prices = np.abs(rng.normal(size=(rounds, stops + 1 + rows)))
    prices[:, stops + 1 :] *= rng.choice([-1.0, 1.0], (rounds, rows))
    joined = rng.integers(-1, 4, (stops + 1, stops + 1)).astype(np.int16)
    may = task.countable
    counted = np.where(np.zeros(rows, dtype=bool) if may is None else may, rng.integers(-1, 3, rows), -1).astype(
        np.int16
    )
    around = [-5.0, best, best + 0.1] if np.isfinite(best) else [-5.0]
    for target, listed in product(around, (False, True)):
        assert proven(task, gain, Labels(prices, joined, target, listed, counted)) >= best - 1e-12, (target, best)


@settings(max_examples=amount(25, 120), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(5, 40), st.booleans())
def test_the_search_finds_allowed_choices_and_closes_those_of_counts(seed, stops, length, villages):
    task = beside(seed, stops, length, villages=villages)
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.1, 1.0, task.beside.matrix.shape[1])
    best = most_beside(task, gain)
    routes, labels, limit = searched(task, gain, collected(task, task.worth(gain), rng, rounds=5), rng)
    action = task.action(routes, gain)
    assert not np.isfinite(best) or proven(task, gain, labels) <= limit + 1e-12
    if action is not None:
        assert task.beside.allow(action)
        assert float(gain @ action) <= best + 1e-12 <= limit + 1e-9
        if task.beside.sorts:
            assert float(gain @ action) == pytest.approx(best, abs=1e-9)
            assert limit == pytest.approx(best, rel=1e-8)


def test_rows_of_every_kind_are_read_once_and_exactly():
    matrix = sparse.csr_array(np.array([[2.0, 2.0, 2.0], [0.3, 0.7, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]))
    rows = SideRows.of(matrix, np.array([2.0, -np.inf, 0.0, -np.inf]), np.array([5.0, 0.8, 1.0, 1.0]))
    assert rows.matrix.toarray().tolist() == [[1.0, 1.0, 1.0], [0.6, 1.4, 0.0], [0.0, 1.0, 1.0]]
    assert rows.lower.tolist() == [1.0, -np.inf, -np.inf]
    assert rows.upper.tolist() == [2.0, 1.6, 1.0]
    assert rows.growing.tolist() == [False, True, True]
    assert not rows.sorts
    every = np.array(list(product((0, 1), repeat=3)))
    for action in every:
        assert rows.allow(action) == bool(
            2 <= 2 * action.sum() <= 5 and action @ [0.3, 0.7, 0] <= 0.8 and action[1] + action[2] <= 1
        )


@settings(max_examples=amount(60, 300), deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_the_best_choice_at_hand_and_prices_of_rows(seed, n):
    rng = np.random.default_rng(seed)
    rows, gain = some_rows(rng, n), rng.normal(size=n)
    hand = np.flatnonzero(rng.random(n) < 0.8)
    every = np.array([one for one in product((0, 1), repeat=n) if not np.delete(one, hand).any()])
    allowed = every[[rows.allow(one) for one in every]]
    found = rows.best(hand, gain)
    assert (found is None) == (not len(allowed))
    if found is not None:
        assert rows.allow(found)
        assert float(gain @ found) == pytest.approx(float((allowed @ gain).max()), abs=1e-9)
    price, best = rng.normal(size=len(rows)), float((allowed @ gain).max(initial=-np.inf))
    for least in (-9.0, best - 0.1, best + 0.1):
        if np.isfinite(least):
            assert rows.most(hand, gain, price, least) == pytest.approx(max(best, least), abs=1e-12)
    pays, back, _ = rows.priced(price)
    for one in allowed:
        assert float(gain @ one) <= float((gain - pays) @ one) + back + 1e-12


def model(kinds: dict, stops: int, length: int, seed: int, **attributes) -> tuple[ActionSet, np.ndarray]:
    """Routes over a plane beside kinds of constraints, and scores."""
    task, n = plane(seed, stops, length), stops + 1
    pairs = [(i, j) for i in range(n) for j in range(i)]
    edges = {
        "from": [f"arm{i}" for i, _ in pairs], "to": [f"arm{j}" for _, j in pairs],
        "minutes": [int(task.between[pair]) for pair in pairs],
    }  # fmt: skip
    arms = Arms.from_arrays(n, **attributes)
    route = Path(edges=Table(edges), depot="arm0", length=length)
    gain = np.random.default_rng(seed).uniform(0.1, 1.0, n)
    return ActionSet(arms, {"route": route, **kinds}), gain


KINDS = {
    "quota": {"groups": Linear(per="village", at_most=1)},
    "quota and count": {"groups": Linear(per="village", at_most=2), "few": Budget(at_most=3)},
    "least": {"groups": Linear(per="village", at_least=1)},
    "money": {"money": Knapsack(cost="cost", at_most=4)},
    "exactly": {"few": Budget(equal=3)},
}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("seed", amount([0], range(5)))
def test_a_decision_is_the_best_of_all_allowed_actions(kinds, seed):
    villages = [f"v{k % 3}" for k in range(9)]
    cost = np.random.default_rng(seed).uniform(0.5, 2.0, 9).round(1).tolist()
    actions, gain = model(kinds, 8, 22, seed, village=villages, cost=cost)
    every = np.array(list(product((0, 1), repeat=9)))
    allowed = every[[actions.allows(one) for one in every]]
    chooser = Chooser(
        problem_for(actions.columns.arms, np.random.default_rng(0)), actions, Scores(gain), "default", many=False
    )
    decision = chooser.decide(np.zeros(9, dtype=int))
    assert decision.value == pytest.approx(float((allowed @ gain).max()), abs=1e-9)
    assert decision.proof.kind == "labels"
    assert decision.status == "optimal"
    unit, asked = scaled(decision.question)
    again = decision.proof.file().proof()
    assert unit.size * recheck(again, asked) == pytest.approx(decision.bound, rel=1e-9)


def test_no_route_within_least_numbers_is_said():
    actions, gain = model(
        {"groups": Linear(per="village", at_least=2)}, 8, 3, 0, village=[f"v{k % 3}" for k in range(9)]
    )
    chooser = Chooser(
        problem_for(actions.columns.arms, np.random.default_rng(0)), actions, Scores(gain), "default", many=False
    )
    with pytest.raises(InfeasibleError, match="no action satisfies"):
        chooser.decide(np.zeros(9, dtype=int))


def apart(low: float, high: float, inside: list[int], vehicles: int = 1) -> Orienteering:
    """Two stops of which a route reaches either, and a row over the columns of the depot and of these."""
    between = np.array([[0.0, 5.0, 5.0], [5.0, 0.0, 10.0], [5.0, 10.0, 0.0]])
    row = np.zeros((1, 3))
    row[0, inside] = 1.0
    rows = SideRows.of(sparse.csr_array(row), np.array([low]), np.array([high]))
    return Orienteering(between, 10, vehicles, tuple(np.array([k]) for k in range(3)), beside=rows)


@pytest.mark.parametrize(
    ("task", "best"),
    [
        (apart(1, np.inf, [2]), 0.5),
        (apart(2, np.inf, [0, 1, 2]), 1.25),
        (apart(1, np.inf, [0, 1, 2]), 1.25),
        (apart(2, 2, [1, 2], vehicles=2), 1.5),
        (apart(-np.inf, 1, [1, 2], vehicles=2), 1.25),
        (apart(-np.inf, 1, [0, 1]), 1.0),
    ],
    ids=["one", "with the depot", "the depot may be it", "two ways", "one of two", "not both"],
)
def test_what_walks_count_is_what_the_rows_ask_for(task, best):
    gain = np.array([0.25, 1.0, 0.25])
    counted = np.zeros(1, dtype=np.int16)
    nothing = Labels(np.zeros((1, 4)), np.full((3, 3), -1, dtype=np.int16), -1.0, counted=counted)
    assert most_beside(task, gain) == best
    assert proven(task, gain, nothing) >= best
    if task.vehicles == 1:
        # What rows leave of the depot's own columns is a matter of prices.
        assert proven(task, gain, nothing) <= best + (0.25 if task.beside.members(0)[0] == 0 else 0.0)


def test_a_point_of_several_columns_settles_its_own_counts():
    task = plane(0, 2, 40)
    members = (np.array([0]), np.array([1, 2, 3]), np.array([4, 5]))
    rows = SideRows.of(
        sparse.csr_array(np.array([[0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 0]], dtype=float)),
        np.full(3, -np.inf), np.array([2.0, 1.0, 1.0]),
    )  # fmt: skip
    task, gain = replace(task, members=members, beside=rows), np.array([0.5, 3.0, 2.0, 1.0, 4.0, 5.0])
    assert (len(task.near), len(task.far)) == (2, 1)
    assert task.worth(gain).tolist() == [0.5, 5.0, 5.0]
    assert task.picked(gain).tolist() == [True, True, True, False, False, True]
    assert task.value([[0, 1, 2, 0]], gain) == 10.5


def test_losses_that_rows_ask_for_count_in_the_measure_of_the_gains():
    task, gain = apart(2, np.inf, [0, 1, 2]), np.array([-0.5, 1.0, 1.0])
    nothing = Labels(np.zeros((1, 4)), np.full((3, 3), -1, dtype=np.int16), -5.0, counted=np.zeros(1, dtype=np.int16))
    assert most_beside(task, gain) == 0.5
    assert proven(task, gain, nothing) >= 0.5
    assert proven(task, gain, replace(nothing, target=0.25, listed=True)) >= 0.5


def test_a_program_that_chooses_badly_proves_nothing(monkeypatch):
    task = replace(
        plane(4, 4, 30),
        beside=SideRows.of(
            sparse.csr_array(np.array([[1.0, 1.5, 0.7, 1.2, 0.9]])), np.array([-np.inf]), np.array([2.5])
        ),
    )
    gain = np.array([0.1, 0.9, 0.6, 0.8, 0.7])
    best = most_beside(task, gain)
    labels = Labels(np.zeros((1, 6)), np.full((5, 5), -1, dtype=np.int16), 0.2, listed=True)
    monkeypatch.setattr(SideRows, "best", lambda self, at_hand, gain: np.zeros(len(gain), dtype=np.int64))
    assert proven(task, gain, labels) >= best
    assert proven(task, gain, replace(labels, target=best - 1e-9)) == pytest.approx(best, rel=1e-12)


def test_a_drivers_list_has_no_stop_without_a_visit():
    actions, gain = model({"few": Budget(at_most=2)}, 8, 40, 0)
    action, rows = actions.shape.routed([[*range(9), 0]], gain)
    assert action.sum() == 2
    assert not actions.violations(action, rows)
    assert sorted(row["stop"] for row in rows if row["stop"] != "0") == [str(k + 1) for k in range(action[1:].sum())]
