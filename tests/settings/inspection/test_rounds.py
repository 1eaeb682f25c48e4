"""An inspector's round of a day: the shortest, in the order that the sheets tell."""

from __future__ import annotations

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmab_opt.actions import ActionSet
from rmab_opt.decisions import Model
from rmab_opt.errors import ModelError
from rmab_opt.problem import Arms, Problem, Table
from rmab_opt.settings.inspection import BeliefChains, Frequency, VisitColumns, Windows
from rmab_opt.settings.inspection.beliefs import EncodedArms
from rmab_opt.settings.inspection.calendar import calendar
from rmab_opt.settings.inspection.gains import VisitGains
from rmab_opt.settings.inspection.kinds import Inspectors
from rmab_opt.settings.inspection.views import visit_rows


def ways_between(places: list[str], rng: np.random.Generator) -> tuple[Table, dict[frozenset[str], int]]:
    at = rng.integers(0, 20, (len(places), 2))
    told = {
        frozenset((a, b)): int(np.abs(at[i] - at[j]).sum()) + 1
        for i, a in enumerate(places)
        for j, b in enumerate(places)
        if i < j
    }
    pairs = [sorted(pair) for pair in told]
    return Table({"from": [a for a, _ in pairs], "to": [b for _, b in pairs], "cost": list(told.values())}), told


def length(home: str, order: list[str], ways: dict[frozenset[str], int]) -> int:
    stops = [home, *order, home]
    return sum(ways[frozenset(pair)] for pair in pairwise(stops) if pair[0] != pair[1])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6))
def test_a_round_is_the_shortest_of_all_orders(seed, n):
    places = [f"p{k}" for k in range(n + 1)]
    travel, ways = ways_between(places, np.random.default_rng(seed))
    kind = Inspectors(staff={"id": ["ann"], "capacity": [n], "district": ["p0"]}, travel=travel, routes=True)
    order = kind.round("p0", places[1:])
    assert sorted(order) == places[1:]
    assert length("p0", order, ways) == min(length("p0", list(way), ways) for way in permutations(places[1:]))


def test_more_districts_than_can_be_ordered_stay_as_they_are_and_odd_costs_are_refused():
    kind = Inspectors(staff={"id": ["ann"], "capacity": [20], "district": ["p0"]}, routes=True)
    many = [f"p{k}" for k in range(18)]
    assert kind.round("p0", many) == many
    assert kind.round("", many[:3]) == many[:3]
    travel = {"from": ["a", "a", "b"], "to": ["b", "c", "c"], "cost": [1.5, 1, 1]}
    odd = Inspectors(staff={"id": ["ann"], "capacity": [2], "district": ["a"]}, travel=travel, routes=True)
    with pytest.raises(ModelError, match="whole costs"):
        odd.round("a", ["b", "c"])


def test_visits_tell_their_stop_on_the_round():
    places = ["north", "south", "east", "west"]
    travel, ways = ways_between(places, np.random.default_rng(3))
    arms = Arms.from_arrays(12, district=[places[i % 4] for i in range(12)])
    dynamics = EncodedArms(BeliefChains.build(np.full(12, 0.9), np.full(12, 0.1)), Windows.free(12, 4))
    staff = {"id": ["ann", "bob"], "capacity": [2, 2], "district": ["north", "west"]}
    rules = {"often": Frequency(equal=1), "staff": Inspectors(staff=staff, travel=travel, routes=True)}
    plan = calendar(Model(Problem(arms, dynamics, horizon=4), ActionSet(VisitColumns(arms, 4), rules), VisitGains()))
    rows = visit_rows(plan)
    area, home = dict(zip(plan.ids, arms.text("district"), strict=True)), {"ann": "north", "bob": "west"}
    for name in home:
        for slot in plan.slots:
            mine = sorted((r for r in rows if (r["inspector"], r["slot"]) == (name, slot)), key=lambda r: r["stop"])
            assert [r["stop"] for r in mine] == list(range(1, len(mine) + 1))
            order = [area[r["id"]] for r in mine]
            best = min((length(home[name], list(way), ways) for way in permutations(order)), default=0)
            assert length(home[name], order, ways) == best
