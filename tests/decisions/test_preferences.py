"""Soft constraints at a price: against enumeration with a penalty worked out by hand, said and proven as priced."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Continuity, Linear, Path, PreferredSlot, SameWorker, Scheduling
from rmab_opt.decisions import Chooser, Scores, verify
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table, Tabular

N = 6
SLOTS = ("mon", "tue")
ROSTER = [
    {"worker": "asha", "slot": "mon", "calls": "1"},
    {"worker": "asha", "slot": "tue", "calls": "1"},
    {"worker": "brij", "slot": "tue", "calls": "2"},
]


def cohort(seed: int) -> Arms:
    rng = np.random.default_rng(seed)
    free = [[s for s in SLOTS if rng.random() < 0.7] or ["tue"] for _ in range(N)]
    table = {
        "id": [f"f{k}" for k in range(N)], "village": [("north", "south")[k % 2] for k in range(N)],
        "slots": [";".join(one) for one in free], "preferred": [one[0] if rng.random() < 0.7 else "" for one in free],
    }  # fmt: skip
    return Arms.read(Table(table, source="cohort.csv"))


def problem_of(arms: Arms, seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem(arms, Tabular(rng.dirichlet(np.ones(2), (N, 2, 2)), rng.random((N, 2, 2))))


def visits_cost(action, arms: Arms, last: dict[str, str], slot_price: float, worker_price: float) -> float:
    """Least cost of all ways to serve the chosen, tried one by one; infinite where there is none."""
    shifts = [(w, s) for row in ROSTER for w, s in [(row["worker"], row["slot"])] for _ in range(int(row["calls"]))]
    chosen = [n for n in range(N) if action[n]]
    liked, free = arms.text("preferred"), arms.text("slots")
    best = np.inf
    for picked in product(range(len(shifts)), repeat=len(chosen)):
        if len(set(picked)) < len(picked):
            continue
        cost = 0.0
        for n, k in zip(chosen, picked, strict=True):
            worker, slot = shifts[k]
            if slot not in free[n].split(";"):
                cost = np.inf
                break
            cost += slot_price * (bool(liked[n]) and slot != liked[n])
            cost += worker_price * (last.get(arms.ids[n], worker) != worker)
        best = min(best, cost)
    return best


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000))
def test_the_decision_is_best_of_all_by_value_less_what_preferences_cost(seed):
    rng = np.random.default_rng(seed)
    arms = cohort(seed)
    last = {f"f{k}": ("asha", "brij")[int(rng.integers(2))] for k in range(0, N, 2)}
    price = rng.choice([0.05, 0.2, 0.5], 4)
    rows = [{"id": name, "worker": worker} for name, worker in last.items()]
    actions = ActionSet(
        arms,
        {
            "weekly": Budget(at_most=4),
            "roster": Scheduling(roster=ROSTER),
            "each village": Linear(per="village", at_least=2, soft=float(price[0])),
            "few changes": Continuity(last=rows, at_most=1, soft=float(price[1])),
            "same worker": SameWorker(roster="roster", last=rows, soft=float(price[2])),
            "liked slot": PreferredSlot(roster="roster", soft=float(price[3])),
        },
    )
    assert set(actions.constraints) == {"weekly", "roster"}
    scores, worth = rng.random(N), {}
    for action in product(range(2), repeat=N):
        cost = visits_cost(action, arms, last, price[3], price[2]) if sum(action) <= 4 else np.inf
        if np.isfinite(cost):
            count = {
                v: sum(a for a, w in zip(action, arms.text("village"), strict=True) if w == v)
                for v in ("north", "south")
            }
            cost += price[0] * sum(max(2 - c, 0) for c in count.values())
            changes = sum(bool(a) != (name in last) for a, name in zip(action, arms.ids, strict=True))
            cost += price[1] * max(changes - 1, 0)
            worth[action] = float(scores @ action) - cost
    chooser = Chooser(problem_of(arms, seed), actions, Scores(scores))
    decision = chooser.decide(np.zeros(N, dtype=int))
    assert decision.value == pytest.approx(max(worth.values()), abs=1e-6)
    assert worth[tuple(decision.action.tolist())] == pytest.approx(decision.value, abs=1e-9)
    assert decision.bound >= max(worth.values()) - 1e-9
    assert verify(decision, chooser.problem, actions, Scores(scores)).ok
    said = sum(one.cost for one in actions.preferences.unmet(decision.action).values())
    assert said == pytest.approx(float(scores @ decision.action) - decision.value, abs=1e-9)
    # The visits that are printed are those that the price counts.
    against = sum(last.get(row["column"], row["worker"]) != row["worker"] for row in decision.assignment)
    assert against == actions.preferences.unmet(decision.action)["same worker"].units
    assert "of the priced problem" in str(decision)


def test_what_each_preference_cost_is_said_and_a_soft_roster_counts_visits():
    arms = cohort(1)
    actions = ActionSet(
        arms,
        {
            "weekly": Budget(equal=5),
            "roster": Scheduling(roster=ROSTER[:2], soft=0.3),
            "few": Budget(at_most=3, soft=0.1),
        },
    )
    scores = np.linspace(1, 2, N)
    decision = Chooser(problem_of(arms, 1), actions, Scores(scores)).decide(np.zeros(N, dtype=int))
    unmet = actions.preferences.unmet(decision.action)
    assert unmet["few"].units == 2
    assert unmet["roster"].units >= 3
    assert decision.value == pytest.approx(float(scores @ decision.action) - 0.2 - 0.3 * unmet["roster"].units)
    text = str(decision)
    assert "preference few" in text
    assert "costs 0.2 (2 not met): 5 chosen, allowed is at most 3" in text
    assert actions.describe()["few"].startswith("preferred at 0.1 a unit")


def test_what_has_no_unit_or_names_a_preference_is_refused():
    arms = cohort(2)
    edges = [{"from": f"f{k}", "to": f"f{k + 1}"} for k in range(N - 1)]
    with pytest.raises(ModelError, match="no unit of violation"):
        ActionSet(arms, {"way": Path(edges=edges, depot="f0", length=4, soft=0.2)})
    with pytest.raises(ModelError, match="no firm roster"):
        ActionSet(
            arms, {"roster": Scheduling(roster=ROSTER, soft=0.2), "slot": PreferredSlot(roster="roster", soft=0.1)}
        )


def test_a_high_price_keeps_a_preference_and_a_low_one_gives_way():
    arms = cohort(3)
    last = [{"id": "f0"}, {"id": "f1"}]
    scores = np.array([0.1, 0.1, 1, 1, 0.5, 0.5])
    problem = problem_of(arms, 3)
    chosen = {}
    for price in (0.01, 5.0):
        actions = ActionSet(arms, {"weekly": Budget(at_most=2), "few": Continuity(last=last, soft=price)})
        chosen[price] = Chooser(problem, actions, Scores(scores)).decide(np.zeros(N, dtype=int)).chosen
    assert chosen == {0.01: ("f2", "f3"), 5.0: ("f0", "f1")}
