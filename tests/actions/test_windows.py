"""Routes with service times, windows, one-way roads and parts of minutes: every part agrees with trying every order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from pyomo.environ import ConcreteModel
from strategies import problem_for

import rmab_opt as ro
from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Budget, Path, path
from rmab_opt.actions.labels import Labels, proven, searched
from rmab_opt.actions.tours import Orienteering, collected, through
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.decisions.proof import recheck
from rmab_opt.decisions.scale import scaled
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms, Table


@dataclass
class Town:
    """Roads between villages, minutes in quarters, and families with service and windows; village 0 is the depot."""

    roads: list[dict]
    home: list[str]
    service: list[float]
    earliest: list[float]
    latest: list[float]
    length: float
    vehicles: int

    def set(self, scale: float = 1.0, order: list[int] | None = None, **more) -> ActionSet:
        order = list(range(len(self.home))) if order is None else order
        roads = [road | {"minutes": road["minutes"] * scale} for road in self.roads]
        cells = {
            "village": self.home, "visit": [scale * t for t in self.service],
            "opens": [scale * t for t in self.earliest],
            "closes": ["" if t == np.inf else scale * t for t in self.latest],
        }  # fmt: skip
        table = {"id": [f"f{k}" for k in order]} | {name: [row[k] for k in order] for name, row in cells.items()}
        rule = Path(
            edges=roads, depot="v0", length=self.length * scale, vehicles=self.vehicles, point="village",
            service="visit", earliest="opens", latest="closes",
        )  # fmt: skip
        return ActionSet(Arms.read(Table(table, source="families")), {"way": rule, **more})

    def fits(self) -> np.ndarray:
        """Which sets of families can be visited, bool (2**n,), by trying every order of every vehicle."""
        names = sorted({road[end] for road in self.roads for end in ("from", "to")})
        place = {name: k for k, name in enumerate(names)}
        way = np.full((len(names), len(names)), np.inf)
        np.fill_diagonal(way, 0.0)
        for road in self.roads:
            i, j = place[road["from"]], place[road["to"]]
            way[i, j] = min(way[i, j], road["minutes"])
            if road["one_way"] != "yes":
                way[j, i] = min(way[j, i], road["minutes"])
        for k in range(len(names)):
            way = np.minimum(way, way[:, k, None] + way[None, k])
        depot, n = place["v0"], len(self.home)
        at = [place[name] for name in self.home]
        away = [k for k in range(n) if at[k] != depot]
        here = sum(1 << k for k in range(n) if at[k] == depot)
        one = np.zeros(1 << n, dtype=bool)

        def onward(point: int, clock: float, done: int) -> None:
            if clock + way[point, depot] <= self.length:
                one[done | here] = True
            for k in away:
                if done >> k & 1:
                    continue
                begin = max(clock + way[point, at[k]], self.earliest[k])
                if begin <= self.latest[k] and begin + self.service[k] + way[at[k], depot] <= self.length:
                    onward(at[k], begin + self.service[k], done | 1 << k)

        onward(depot, 0.0, 0)
        every = one.copy()
        for _ in range(self.vehicles - 1):
            sets = np.flatnonzero(every)[:, None] | np.flatnonzero(one)[None]
            every[sets.ravel()] = True
        for k in range(n):
            pair = every.reshape(-1, 2, 1 << k)
            pair[:, 0] |= pair[:, 1]
        return every


def town(seed: int, families: int = 0) -> Town:
    rng = np.random.default_rng(seed)
    n = families or int(rng.integers(2, 7))
    villages = int(rng.integers(2, min(n, 5) + 2))
    pairs = [(i, j) for i in range(villages) for j in range(villages) if i != j]
    roads = [(k, k - 1, False) for k in range(1, villages)] + [
        (*pairs[k], True) for k in rng.permutation(len(pairs))[: int(rng.integers(0, 2 * villages))].tolist()
    ]
    seen, kept = set(), []
    for i, j, single in roads:
        if (i, j) not in seen:
            minutes = float(rng.integers(1, 20)) / 4
            kept.append({"from": f"v{i}", "to": f"v{j}", "minutes": minutes, "one_way": "yes" if single else ""})
            seen |= {(i, j)} if single else {(i, j), (j, i)}
    length = float(rng.integers(20, 80)) / 4
    earliest = np.where(rng.random(n) < 0.5, rng.integers(0, 30, n) / 4, 0.0)
    latest = np.where(rng.random(n) < 0.5, earliest + rng.integers(0, 30, n) / 4, np.inf)
    service = np.where(rng.random(n) < 0.6, rng.integers(0, 10, n) / 4, 0.0)
    home = [f"v{k}" for k in rng.integers(0, villages, n)]
    return Town(kept, home, service.tolist(), earliest.tolist(), latest.tolist(), length, int(rng.integers(1, 3)))


def bits(n: int) -> np.ndarray:
    """Every action, (2**n, n), column k being bit k."""
    return np.arange(1 << n)[:, None] >> np.arange(n) & 1


def chooser(actions: ActionSet, gain: np.ndarray, **how) -> Chooser:
    return Chooser(problem_for(actions.columns.arms, np.random.default_rng(0)), actions, Scores(gain), "exact", **how)


def agrees(seed: int, *, program: bool) -> None:
    given = town(seed)
    actions, fits, every = given.set(), given.fits(), bits(len(given.home))
    for action, right in zip(every, fits, strict=True):
        assert (not actions.violations(action)) == right, (seed, action)
        if right:
            rows = actions.assignment(action)
            assert actions.misassigned(rows, action) is None
    gain = np.random.default_rng(seed).normal(0.5, 1.0, len(given.home)).round(2)
    best = float((every @ gain)[fits].max())
    decision = chooser(actions, gain, many=False).decide(np.zeros(len(gain), dtype=int))
    assert decision.value == pytest.approx(best, abs=1e-9), seed
    assert decision.status == "optimal"
    if program:  # The program's own answer, and its rows against the check.
        solved = chooser(actions, gain, method="program").decide(np.zeros(len(gain), dtype=int))
        assert solved.value == pytest.approx(best, abs=1e-7), seed
        assert actions.agreement().fault is None


@pytest.mark.parametrize("seed", range(6))
def test_check_and_list_say_what_every_order_says(seed):
    agrees(seed, program=seed == 5)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_check_list_and_program_say_what_every_order_says_often(part):
    for seed in range(100 + 20 * part, 120 + 20 * part):
        agrees(seed, program=True)


def best_of(given: Town, gain: np.ndarray) -> float:
    return float((bits(len(given.home)) @ gain)[given.fits()].max())


@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.slow) for part in range(1, 21))])
def test_labels_close_small_towns_and_no_prices_prove_less_than_the_best(part):
    """One and two vehicles; what the search says is what the proof says again, and random proofs hold as well."""
    for seed in range(8 * part, 8 * part + 8):
        given, rng = town(seed), np.random.default_rng(seed)
        task, gain = given.set().shape.orienteering, rng.normal(0.5, 1.0, len(given.home)).round(2)
        best, k = best_of(given, gain), len(task.between)
        routes, labels, limit = searched(task, gain, [], rng)
        assert all(task.fits(route) for route in routes)
        assert float(gain @ task.action(routes, gain)) == pytest.approx(best, abs=1e-9), seed
        assert limit == pytest.approx(best, rel=1e-8), seed
        assert proven(task, gain, labels) == pytest.approx(limit, rel=1e-12)
        prices = np.maximum(rng.normal(size=(int(rng.integers(0, 4)), k + 1)), 0.0)
        joined = rng.integers(-1, 4, (k, k)).astype(np.int16)
        for target in (-5.0, 0.9 * best, best, best + 0.1):
            for listed in (False, True):
                assert proven(task, gain, Labels(prices, joined, target, listed)) >= best - 1e-12, (seed, target)


def test_a_count_is_part_of_what_is_put_together():
    for seed in range(3):
        given, rng = town(seed, families=6), np.random.default_rng(seed)
        most = 1 + seed % 3
        actions, gain = given.set(few=Budget(at_most=most)), rng.uniform(0.1, 1.0, 6)
        every = bits(6)[given.fits() & (bits(6).sum(axis=1) <= most)]
        task = actions.shape.orienteering
        routes, labels, limit = searched(task, gain, [], rng)
        best = float((every @ gain).max())
        assert float(gain @ task.action(routes, gain)) == pytest.approx(best, abs=1e-9)
        assert best - 1e-12 <= proven(task, gain, labels) <= limit * (1 + 1e-12)
        assert limit == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize(("vehicles", "stops"), [(1, 5), (2, 6), (3, 6)])
def test_several_vehicles_are_closed_without_windows_too(vehicles, stops):
    rng = np.random.default_rng(stops)
    place = rng.uniform(0, 10, (stops + 1, 2))
    roads = [
        {"from": f"v{i}", "to": f"v{j}", "minutes": max(1.0, round(float(np.hypot(*(place[i] - place[j]))), 1)),
         "one_way": ""} for i in range(stops + 1) for j in range(i)
    ]  # fmt: skip
    free = [0.0] * stops
    given = Town(roads, [f"v{k + 1}" for k in range(stops)], free, free, [np.inf] * stops, 9.5, vehicles)
    plain = ActionSet(
        given.set().columns.arms,
        {"way": Path(edges=[{**road, "one_way": "no"} for road in roads], depot="v0", length=9.5, vehicles=vehicles,
                     point="village")},
    )  # fmt: skip
    gain, task = rng.uniform(0.1, 1.0, stops), plain.shape.orienteering
    assert task.turns
    routes, labels, limit = searched(task, gain, [], rng)
    best = best_of(given, gain)
    assert float(gain @ task.action(routes, gain)) == pytest.approx(best, abs=1e-9)
    assert limit == pytest.approx(best, rel=1e-8)
    assert proven(task, gain, labels) == pytest.approx(limit, rel=1e-12)


@pytest.mark.parametrize("seed", [1, 4, 9])
def test_minutes_as_seconds_and_families_in_another_order_change_nothing(seed):
    given, rng = town(seed), np.random.default_rng(seed)
    n, gain = len(given.home), rng.uniform(0.1, 1.0, len(given.home)).round(3)
    order = rng.permutation(n).tolist()
    own, slow, turned = given.set(), given.set(scale=60.0), given.set(order=order)
    fits = given.fits()
    for action, right in zip(bits(n), fits, strict=True):
        assert slow.allows(action) == right
        assert turned.allows(action[order]) == right
    chosen = bits(n)[fits][(bits(n)[fits] @ gain).argmax()]
    minutes, seconds = own.assignment(chosen), slow.assignment(chosen)
    assert [float(row["arrival"]) * 60 for row in minutes] == [float(row["arrival"]) for row in seconds]
    labels = [searched(s.shape.orienteering, g, [], np.random.default_rng(0)) for s, g in ((own, gain), (slow, gain))]
    assert np.array_equal(labels[0][1].prices, labels[1][1].prices)
    assert labels[0][2] == labels[1][2]
    again = searched(turned.shape.orienteering, gain[order], [], np.random.default_rng(0))[2]
    assert again == pytest.approx(labels[0][2], rel=1e-8)


def clinic(**change) -> ActionSet:
    """Four families on a one-way round; the second opens late, the last closes early."""
    roads = [
        {"from": "clinic", "to": "A", "minutes": 2.5, "one_way": "yes"},
        {"from": "A", "to": "B", "minutes": 4, "one_way": "yes"},
        {"from": "B", "to": "clinic", "minutes": 3.25, "one_way": "yes"},
    ]
    cells = {
        "id": ["a", "late", "b", "early", "home"], "village": ["A", "A", "B", "B", "clinic"],
        "visit": [5, 5, 10, 1.5, 99], "opens": ["", 20, "", 25, ""], "closes": ["", "", "", 30, 1],
    }  # fmt: skip
    fields = {
        "edges": roads, "depot": "clinic", "length": 50.0, "point": "village", "service": "visit", "earliest": "opens",
        "latest": "closes",
    }  # fmt: skip
    return ActionSet(Arms.read(Table(cells, source="families")), {"way": Path(**(fields | change))})


def test_the_list_says_who_is_visited_when_and_the_clinic_needs_no_visit():
    actions = clinic()
    every = np.ones(5, dtype=int)
    rows = {row["column"]: (row["route"], row["stop"], row["arrival"]) for row in actions.assignment(every)}
    assert rows == {
        "home": ("1", "0", "0"), "a": ("1", "1", "2.5"), "late": ("1", "2", "20"), "early": ("1", "3", "29"),
        "b": ("1", "4", "30.5"),
    }  # fmt: skip
    assert clinic(length=43.75).allows(every)
    assert not clinic(length=43.74).allows(every)
    assert clinic(length=43.749999).violations(every)["way"] == [
        "no route of 43.75 minutes from clinic and back passes a, late, early, b in the windows"
    ]
    assert actions.describe()["way"] == (
        "on one route from clinic and back within 50 minutes, visits of its 'visit', not before its 'opens', "
        "not after its 'closes'"
    )
    decision = chooser(actions, np.ones(5), many=False).decide(np.zeros(5, dtype=int))
    assert [row["id"] for row in decision.rows()] == ["home", "a", "late", "early", "b"]
    assert list(decision.rows()[1])[:4] == ["id", "route", "stop", "arrival"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"late": {"arrival": "19.5"}}, "late is visited at 19.5, its window opens at 20"),
        ({"a": {"arrival": "2.25"}}, "a is visited at 2.25, the way there takes until 2.5"),
        ({"early": {"arrival": "30.25"}}, "early is visited at 30.25, its window closes at 30"),
        ({"b": {"arrival": "38"}}, "route 1 takes 51.25 minutes, 50 allowed"),
        ({"b": {"stop": "3"}}, "two places at stop 3 of route 1"),
        ({"a": {"route": "2"}}, "2 routes, 1 allowed"),
        ({"a": {"stop": "3"}, "early": {"stop": "1"}}, "late is visited at 20, the way there takes until 36.25"),
        ({"a": {"arrival": "soon"}}, "arrival of a is 'soon', no minutes"),
        ({"a": {"arrival": "nan"}}, "arrival of a is 'nan', no minutes"),
        ({"a": {"stop": "x"}}, "a row names column, route, stop"),
        ({"a": {"column": "b"}}, "not every chosen column stands once"),
    ],
)
def test_a_list_with_a_wrong_time_is_refused(change, message):
    actions, every = clinic(), np.ones(5, dtype=int)
    rows = [{**row, **change.get(row["column"], {})} for row in actions.assignment(every)]
    assert message in actions.misassigned(rows, every)
    assert not actions.constraints["way"].proves([{k: v for k, v in r.items() if k != "constraint"} for r in rows],
                                                 every, actions.columns)  # fmt: skip


def test_a_list_may_wait_and_lists_of_before_have_no_times():
    actions, every = clinic(), np.ones(5, dtype=int)
    rows = actions.assignment(every)
    assert actions.misassigned([{**r, "arrival": "33"} if r["column"] == "b" else r for r in rows], every) is None
    assert actions.misassigned([{k: v for k, v in r.items() if k != "arrival"} for r in rows], every) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 0}, "is 0; give minutes, a number above 0"),
        ({"length": float("nan")}, "is nan; give minutes"),
        ({"length": "soon"}, "is 'soon'; give minutes"),
        ({"length": True}, "is True; give minutes"),
        ({"service": -1}, "is -1; give minutes, 0 to 1e+09, or the name of a column"),
        ({"earliest": float("inf")}, "is inf; give minutes"),
        ({"latest": False}, "is False; give minutes"),
    ],
)
def test_wrong_fields_name_the_value_and_what_to_give(change, message):
    with pytest.raises(ValueError, match="validation error") as caught:
        clinic(**change)
    assert message in str(caught.value)
    assert next(iter(change)) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"service": "vist"}, "service: no column 'vist'\n  To fix, did you mean 'visit'?"),
        ({"service": "village"}, "village: 'A' is not a number"),
        ({"service": 1 / 3}, "service: a: 0.333333333 minutes; to fix, give at most six decimals"),
        ({"earliest": 31.0}, "early: earliest 31 is after latest 30; to fix, let the window open before it closes"),
    ],
)
def test_wrong_times_name_the_arm(change, message):
    with pytest.raises(ModelError) as caught:
        clinic(**change)
    assert message in str(caught.value)


def test_both_ways_take_one_time_unless_they_are_one_way():
    roads = [{"from": "a", "to": "b", "minutes": 2}, {"from": "b", "to": "a", "minutes": 3.5}]
    arms = Arms.read(Table({"id": ["a", "b"]}, source="two"))
    with pytest.raises(ModelError, match="'b' and 'a' are 2 minutes apart in another row"):
        ActionSet(arms, {"way": Path(edges=roads, depot="a", length=9)})
    single = [{**road, "one_way": "yes"} for road in roads]
    assert ActionSet(arms, {"way": Path(edges=single, depot="a", length=5.5)}).allows(np.ones(2, dtype=int))
    assert not ActionSet(arms, {"way": Path(edges=single, depot="a", length=5.25)}).allows(np.ones(2, dtype=int))
    assert not ActionSet(arms, {"way": Path(edges=single[:1], depot="a", length=99)}).allows(np.ones(2, dtype=int))
    with pytest.raises(ModelError, match="minutes is 0; to fix, give more than 0"):
        ActionSet(arms, {"way": Path(edges=[{"from": "a", "to": "b", "minutes": 0}], depot="a", length=9)})
    with pytest.raises(ModelError, match="one_way"):
        ActionSet(arms, {"way": Path(edges=[{"from": "a", "to": "b", "one_way": "perhaps"}], depot="a", length=9)})


def spread(stops: int, vehicles: int = 1, seed: int = 0) -> tuple[ActionSet, np.ndarray]:
    """Points in a plane with service 2.5 and windows of 30 minutes in a day of 90; uphill takes longer."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 20, (stops + 1, 2))
    far = np.linalg.norm(place[:, None] - place[None], axis=2) * (1 + 0.02 * (place[:, 1] - place[:, None, 1]).clip(0))
    one, two = np.nonzero(~np.eye(stops + 1, dtype=bool))
    edges = {
        "from": [f"arm{k}" for k in one], "to": [f"arm{k}" for k in two], "one_way": ["yes"] * len(one),
        "minutes": (np.ceil(2 * far[one, two] + 0.1) / 2).tolist(),
    }  # fmt: skip
    opens = np.floor(rng.uniform(0, 55, stops + 1))
    arms = Arms.from_arrays(stops + 1, opens=opens.tolist(), closes=(opens + 30).tolist())
    rule = Path(
        edges=Table(edges), depot="arm0", length=90, vehicles=vehicles, service=2.5, earliest="opens", latest="closes"
    )
    return ActionSet(arms, {"way": rule}), rng.uniform(0.1, 1.0, stops + 1).round(3)


@pytest.mark.parametrize("vehicles", [1, 2])
def test_a_decision_by_labels_is_proven_and_a_forged_file_proves_no_less(monkeypatch, vehicles):
    monkeypatch.setattr(path, "FEW_STOPS", 5)
    actions, gain = spread(12, vehicles)
    decision = Chooser(
        problem_for(actions.columns.arms, np.random.default_rng(0)), actions, Scores(gain), "default", many=False
    ).decide(np.zeros(13, dtype=int))
    assert decision.status == "optimal"
    assert decision.proof.kind == "labels"
    assert actions.misassigned(decision.assignment, decision.action) is None
    unit, asked = scaled(decision.question)
    again = decision.proof.file().proof()
    assert unit.size * recheck(again, asked) == pytest.approx(decision.bound, rel=1e-9)
    forged = [
        {"target": 0.0}, {"prices": 0.5 * again.labels.prices}, {"prices": again.labels.prices[:0]},
        {"joined": again.labels.joined * 0 - 1}, {"joined": again.labels.joined[::-1]},
        {"listed": not again.labels.listed}, {"target": 0.0, "listed": True},
    ]  # fmt: skip
    for change in forged:
        other = replace(again, labels=replace(again.labels, **change))
        assert unit.size * recheck(other, asked) >= decision.value - 1e-9, change


def test_fourteen_stops_with_windows_are_what_the_table_over_their_subsets_says():
    for seed, vehicles in ((1, 1), (2, 2)):
        actions, gain = spread(14 // vehicles, vehicles, seed)
        task = actions.shape.orienteering
        routes, labels, limit = searched(task, gain, [], np.random.default_rng(0))
        best = actions.routes.best(gain)[1]
        assert float(gain @ task.action(routes, gain)) == pytest.approx(best, rel=1e-9)
        assert proven(task, gain, labels) == pytest.approx(best, rel=1e-8)
        assert limit == pytest.approx(best, rel=1e-8)


@pytest.mark.slow
def test_many_stops_with_windows_are_allowed_by_a_route_that_is_found_and_else_refused():
    actions, gain = spread(40, 4)
    routes = collected(actions.shape.orienteering, gain, np.random.default_rng(0), rounds=30)
    action, rows = actions.shape.routed(routes, gain)
    assert action.sum() > 18
    assert actions.allows(action, rows)
    assert actions.misassigned(rows, action) is None
    few = np.where(np.cumsum(action) <= 20, action, 0)
    assert actions.allows(few)
    assert actions.misassigned(actions.assignment(few), few) is None
    with pytest.raises(CapabilityError, match="the exact route check of"):
        actions.violations(np.ones(41, dtype=int))


@pytest.mark.parametrize("vehicles", [1, 3])
def test_the_start_keeps_windows_and_through_finds_all_stops(vehicles):
    actions, gain = spread(24, vehicles, 3)
    task = actions.shape.orienteering
    routes = collected(task, task.worth(gain), np.random.default_rng(0), rounds=20)
    assert all(task.fits(route) for route in routes)
    inside = sorted({k for route in routes for k in route} - {0})
    assert len(inside) == sum(len(route) - 2 for route in routes)
    keep = [0, *inside]
    part = Orienteering(task.between[np.ix_(keep, keep)], task.length, vehicles, (), task.window[keep])
    found = through(part)
    assert found is None or sorted(k for route in found for k in route) == list(range(1, len(keep)))
    for k in inside:  # No stop is visited outside its window.
        for route in routes:
            if k in route:
                begin = task.begins(route)[route.index(k)]
                assert task.opens[k] <= begin <= task.closes[k]


def test_visits_in_no_time_at_one_place_follow_each_other_in_one_order():
    """Three families of one village without service and with windows of their own: any order, and none twice."""
    between = np.array([[0, 4, 4, 4], [4, 0, 0, 0], [4, 0, 0, 0], [4, 0, 0, 0]], dtype=float)
    window = np.array([[0, np.inf], [0, 9], [6, 20], [5, 7]], dtype=float)
    task = Orienteering(between, 12, 1, tuple(np.array([k]) for k in range(4)), window)
    assert not (task.moves & task.moves.T)[1:, 1:].any()
    gain = np.array([0.0, 1.0, 2.0, 4.0])
    routes, labels, limit = searched(task, gain, [], np.random.default_rng(0))
    assert float(gain @ task.action(routes, gain)) == limit == proven(task, gain, labels) == 7.0
    late = Orienteering(between, 12, 1, task.members, window + np.array([[0], [0], [5], [0]]))
    assert searched(late, gain, [], np.random.default_rng(0))[2] == 5.0


@pytest.mark.slow
def test_every_promise_of_a_kind_is_kept_with_windows():
    from rmab_opt.testing import check_constraint

    actions = clinic()
    check_constraint(actions.constraints["way"], actions.columns)


def test_every_small_set_of_product_is_counted_once():
    """The oracle itself: on a line without windows the sets are those that the farthest family allows."""
    roads = [{"from": f"v{k}", "to": f"v{k + 1}", "minutes": 1.5, "one_way": ""} for k in range(3)]
    given = Town(roads, ["v1", "v2", "v3"], [0.0] * 3, [0.0] * 3, [np.inf] * 3, 6.0, 1)
    allowed = {bits for bits in product((0, 1), repeat=3) if not bits[2]}
    assert {tuple(action) for action in bits(3)[given.fits()].tolist()} == allowed


@pytest.mark.parametrize("seed", [3, 8])
def test_the_program_over_the_order_of_stops_serves_plain_routes_too(monkeypatch, seed):
    """Where layers of time would be too many; several families at a point are one stop."""
    monkeypatch.setattr(path, "MOST_MOVES", 0)
    given = town(seed)
    rule = Path(edges=given.roads, depot="v0", length=given.length, vehicles=given.vehicles, point="village")
    actions = ActionSet(given.set().columns.arms, {"way": rule})
    n = len(given.home)
    free = replace(given, service=[0.0] * n, earliest=[0.0] * n, latest=[np.inf] * n)
    gain = np.random.default_rng(seed).uniform(0.1, 1.0, n).round(2)
    solved = chooser(actions, gain, method="program").decide(np.zeros(n, dtype=int))
    assert solved.value == pytest.approx(best_of(free, gain), abs=1e-7)
    assert solved.assignment


def test_times_in_millionths_are_decided_without_layers_of_time():
    """A table over times would have 10**8 rows: the program over the order of stops answers, and says so."""
    arms = Arms.from_arrays(18)
    edges = {
        "from": ["arm0"] * 17,
        "to": [f"arm{k}" for k in range(1, 18)],
        "minutes": [k + 1e-6 for k in range(1, 18)],
    }
    actions = ActionSet(arms, {"way": Path(edges=Table(edges), depot="arm0", length=13.000005)})
    assert actions.shape.orienteering.work > 10**8
    decision = chooser(actions, np.ones(18), many=False).decide(np.zeros(18, dtype=int))
    assert sorted(decision.chosen) == ["arm0", "arm1", "arm2", "arm3"]
    assert decision.proof.kind != "labels"
    for length in (24.000001, 24.000002):
        rule = Path(edges=Table(edges), depot="arm0", length=length)
        assert ActionSet(arms, {"way": rule}).allows(np.eye(1, 18, 12, dtype=int)[0]) == (length > 24.0000015)


def test_a_model_file_names_its_columns_and_the_list_is_written_in_order(tmp_path, caplog):
    (tmp_path / "families.csv").write_text(
        'id,village,visit,opens,closes\na,A,5,,\nlate,A,5,20,\nb,B,10,,\nearly,B,"1.5",25,30\n'
    )
    (tmp_path / "roads.csv").write_text("from,to,minutes,one_way\nclinic,A,2.5,yes\nA,B,4,yes\nB,clinic,3.25,yes\n")
    cells = product(("a", "late", "b", "early"), "xy", "01")
    chances = "".join(f"{','.join(row)},0.5,0.5\n" for row in cells)
    (tmp_path / "moves.csv").write_text("id,state,action,x,y\n" + chances)
    text = """format: 1
title: Visits
problem:
  arms: families.csv
  dynamics: {kind: tabular, file: moves.csv, reward: {x: 0, y: 1}}
  horizon: 2
constraints:
  way: {kind: path, edges: roads.csv, depot: clinic, point: village, length: 43.75, service: visit,
        earliest: opens, latest: closes}
objective: {kind: immediate}
solver: exact
"""
    (tmp_path / "model.yaml").write_text(text)
    model = ro.load(tmp_path / "model.yaml")
    decision = chooser(model.actions, np.ones(4), many=False).decide(np.zeros(4, dtype=int))
    model.actions.build(ConcreteModel())
    assert caplog.records == []
    lines = decision.to_csv().splitlines()
    assert lines[0].startswith("id,route,stop,arrival")
    assert [line.split(",")[:4] for line in lines[1:]] == [
        ["a", "1", "1", "2.5"], ["late", "1", "2", "20"], ["early", "1", "3", "29"], ["b", "1", "4", "30.5"]
    ]  # fmt: skip
    wrong = text.replace("service: visit", "service: vist")
    (tmp_path / "model.yaml").write_text(wrong)
    with pytest.raises(ModelError, match="way: service: no column 'vist'"):
        ro.load(tmp_path / "model.yaml")


def test_very_many_stops_are_refused_by_number_and_villages_are_not(monkeypatch):
    monkeypatch.setattr(path, "MOST_ORDERED", 5)
    actions, gain = spread(10)
    assert actions.shape.orienteering is None
    with pytest.raises(CapabilityError, match=r"the order of 10 stops within reach \(at most 4\)"):
        chooser(actions, gain, method="program").decide(np.zeros(11, dtype=int))
