"""Routes: the checker, the program and a walk-by-walk search agree; the published counts come out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import all_actions, problem_for

import rmab_opt as ro
from rmab_opt.actions import ActionSet, tours
from rmab_opt.actions.kinds import Budget, Path
from rmab_opt.decisions import Chooser, Scores
from rmab_opt.errors import CapabilityError, ModelError
from rmab_opt.problem import Arms, Table


def edge_table(edges: list[tuple[int, int, int]]) -> Table:
    return Table(
        {
            "from": [f"arm{i}" for i, _, _ in edges],
            "to": [f"arm{j}" for _, j, _ in edges],
            "minutes": [m for *_, m in edges],
        }
    )


def visitable(edges: list[tuple[int, int, int]], length: int, vehicles: int) -> set[frozenset[int]]:
    """Sets of arms that walks from arm 0 and back pass, by trying every walk; one move after the other."""
    ways: dict[int, list[tuple[int, int]]] = {}
    for i, j, m in edges:
        ways.setdefault(i, []).append((j, m))
        ways.setdefault(j, []).append((i, m))
    tours, seen = set(), {(0, frozenset([0]), 0)}
    stack = list(seen)
    while stack:
        at, passed, time = stack.pop()
        if at == 0:
            tours.add(passed)
        for to, minutes in ways.get(at, []):
            state = (to, passed | {to}, time + minutes)
            if state[2] <= length and state not in seen:
                seen.add(state)
                stack.append(state)
    together = tours
    for _ in range(vehicles - 1):
        together = {one | two for one in together for two in tours}
    return together


@st.composite
def graphs(draw):
    n = draw(st.integers(2, 6))
    pairs = [(i, j) for i in range(n) for j in range(i)]
    chosen = draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=8, unique=True))
    edges = [(i, j, draw(st.integers(1, 2))) for i, j in chosen]
    return n, edges, draw(st.integers(1, 7)), draw(st.integers(1, 2))


@settings(max_examples=amount(40, 120))
@given(graphs(), st.integers(0, 999))
def test_checker_and_program_agree_with_every_walk(graph, seed):
    n, edges, length, vehicles = graph
    arms = Arms.from_arrays(n)
    rule = Path(edges=edge_table(edges), depot="arm0", length=length, vehicles=vehicles)
    actions = ActionSet(arms, {"route": rule})
    tours = visitable(edges, length, vehicles)
    accepted = []
    for action in all_actions(n):
        stops = set(np.flatnonzero(action).tolist()) | {0}
        fits = any(stops <= tour for tour in tours)
        assert (not actions.violations(action)) == fits, (action, edges, length, vehicles)
        if fits:
            accepted.append(action)
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n)
    best = max(float(action @ scores) for action in accepted)
    decision = Chooser(problem_for(arms, rng), actions, Scores(scores), "exact").decide(np.zeros(n, dtype=int))
    assert decision.value == pytest.approx(best, abs=1e-7)
    stops = [row["column"] for row in decision.assignment]
    assert sorted(stops) == sorted(decision.chosen)
    assert len({row["route"] for row in decision.assignment}) <= vehicles


def test_the_published_twenty_node_graph_has_its_visitable_sets():
    """3,931 sets of at most five arms, 1,929 of exactly five (specification, section 1.6)."""
    sets = ro.load("path").actions.enumerate()
    assert len(sets) == 3931
    assert int((sets.sum(axis=1) == 5).sum()) == 1929


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depot": "arm9"}, "depot: no arm 'arm9'"),
        ({"edges": Table({"from": ["arm0"], "to": ["arm7"]}, source="edges")}, "edges:1: no arm 'arm7'"),
        ({"edges": Table({"from": ["arm0"], "to": ["arm1"], "minutes": [1 / 3]}, source="edges")}, "minutes is 0.3333"),
    ],
)
def test_wrong_graphs_name_the_row(change, message):
    arguments = {"edges": edge_table([(0, 1, 1)]), "depot": "arm0", "length": 4, **change}
    with pytest.raises(ModelError) as caught:
        ActionSet(Arms.from_arrays(3), {"route": Path(**arguments)})
    assert message in str(caught.value)


def test_many_stops_are_settled_by_a_route_or_a_tree_and_else_refused():
    n = 25
    star, every = edge_table([(0, k, 1) for k in range(1, n)]), np.ones(n, dtype=int)

    def over(length: int) -> ActionSet:
        return ActionSet(Arms.from_arrays(n), {"route": Path(edges=star, depot="arm0", length=length)})

    assert over(48).allows(every)
    assert not over(48).misassigned(over(48).assignment(every), every)
    assert not over(23).allows(every)
    with pytest.raises(CapabilityError, match="the exact route check of 24 stops"):
        over(47).violations(every)


@settings(max_examples=30, deadline=None)
@given(graphs(), st.integers(0, 999))
def test_the_programs_own_routes_prove_its_action_and_longer_ones_do_not(graph, seed):
    n, edges, length, vehicles = graph
    rule = Path(edges=edge_table(edges), depot="arm0", length=length, vehicles=vehicles)
    actions = ActionSet(Arms.from_arrays(n), {"route": rule})
    model, session = actions.compiled
    session.parameters["score"][:] = np.random.default_rng(seed).uniform(-0.2, 1, n)
    x = session.solve().x
    action = np.rint(x[session.index(model.act)]).astype(int)
    rows = actions.witness(model, lambda variable: x[session.index(variable)])
    assert actions.misassigned(rows, action) is None
    assert actions.assignment(action, rows) == rows
    own = [{k: v for k, v in row.items() if k != "constraint"} for row in rows]
    shorter = rule.model_copy(update={"length": 0, "_cache": {}})
    away = [row for row in rows if row["column"] != "arm0"]
    assert (shorter.misassigned(own, action, actions.columns) is None) == (not away)


@pytest.mark.parametrize("seed", range(3))
def test_insertion_keeps_limits_and_2_opt_never_lengthens(seed):
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 10, (30, 2))
    between = np.linalg.norm(place[:, None] - place[None], axis=2)
    route = [0, *(rng.permutation(29) + 1).tolist(), 0]
    better = tours.shortened(route, between)
    assert sorted(better) == sorted(route)
    assert better[0] == better[-1] == 0
    length = [between[way[:-1], way[1:]].sum() for way in (route, better)]
    assert length[1] < 0.8 * length[0]
    for i in range(1, 30):  # No exchange is left, one by one.
        for j in range(i, 30):
            turned = [*better[:i], *better[i : j + 1][::-1], *better[j + 1 :]]
            assert between[turned[:-1], turned[1:]].sum() >= length[1] - 1e-9
    for size in (1, 2, 3):  # No stops in a row are better elsewhere, either way round.
        for i in range(1, 31 - size):
            part, rest = better[i : i + size], [*better[:i], *better[i + size :]]
            for leg in range(1, len(rest)):
                for moved in (part, part[::-1]):
                    other = [*rest[:leg], *moved, *rest[leg:]]
                    assert between[other[:-1], other[1:]].sum() >= length[1] - 1e-6


@pytest.mark.parametrize("seed", range(amount(2, 6)))
def test_collected_routes_keep_their_limits_and_are_nearly_as_good_as_the_list(seed):
    """Eleven stops, one or two vehicles, at most six of them: the list says what is best."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 10, (12, 2))
    minutes = np.maximum(1, np.ceil(np.linalg.norm(place[:, None] - place[None], axis=2))).astype(int)
    edges = [(i, j, int(minutes[i, j])) for i in range(12) for j in range(i)]
    route = Path(edges=edge_table(edges), depot="arm0", length=14, vehicles=1 + seed % 2)
    actions = ActionSet(Arms.from_arrays(12), {"route": route, "few": Budget(at_most=6)})
    gain = rng.uniform(0.1, 1.0, 12)
    task = actions.shape.orienteering
    action, rows = actions.shape.routed(tours.collected(task, task.worth(gain), rng), gain)
    assert actions.misassigned(rows, action) is None
    assert not actions.violations(action, rows)
    assert 0.9 * actions.routes.best(gain)[1] <= float(gain @ action) <= actions.routes.best(gain)[1] + 1e-9
    nothing, rows = actions.shape.routed(tours.collected(task, task.worth(gain), rng, late=lambda: True), gain)
    assert actions.misassigned(rows, nothing) is None


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 4), st.integers(0, 10**6))
def test_listed_routes_hold_every_set_that_a_walk_passes(graph, most, seed):
    """Their subsets are the visitable sets, and the best few stops within them are those of trying every action."""
    n, edges, length, _ = graph
    arms = Arms.from_arrays(n)
    route = Path(edges=edge_table(edges), depot="arm0", length=length)
    actions = ActionSet(arms, {"route": route, "few": Budget(at_most=most)})
    masks = route.passable(actions.columns)
    passed = visitable(edges, length, 1)
    listed = {frozenset(c for c in range(n) if int(mask) >> c & 1) for mask in masks}
    assert listed <= passed
    assert all(any(one <= other for other in listed) for one in passed)
    gain = np.random.default_rng(seed).normal(size=n).round(1)
    action, value = actions.routes.best(gain)
    assert not actions.violations(action)
    assert value == pytest.approx(max(float(gain @ a) for a in all_actions(n) if not actions.violations(a)))
    assert value == pytest.approx(float(gain @ action))


def test_a_long_route_over_forty_stations_is_decided_by_its_list():
    """The best route of a shorter day against the program, and a many-sets bound that leaves few to value."""
    model = ro.load(
        "path",
        **{
            "n_arms": 40,
            "n_stops": 6,
            "constraints.budget.at_most": 6,
            "constraints.route.length": 10,
            "constraints.route.depot": "arm10",
        },
    )
    rng = np.random.default_rng(0)
    listing = Chooser(model.problem, model.actions, Scores(np.zeros(40)), "exact")
    program = Chooser(model.problem, model.actions, Scores(np.zeros(40)), "exact", method="program")
    listing.objective.scores = program.objective.scores = rng.exponential(size=40)
    one, two = listing.decide(np.zeros(40, dtype=int)), program.decide(np.zeros(40, dtype=int))
    assert one.value == pytest.approx(two.value, abs=1e-6)
    assert "routes" in one.solver
    many = ActionSet(model.problem.arms, {"route": model.actions.constraints["route"]})
    assert many.routes.best(np.ones(40))[1] == max(int(mask).bit_count() for mask in many.routes.sets)


def test_families_of_a_village_are_passed_together_and_the_depot_is_no_arm():
    """Against walks over the roads tried one by one; three villages, a crossing without families, a clinic."""
    roads = [
        {"from": "clinic", "to": "crossing", "minutes": 1}, {"from": "crossing", "to": "A", "minutes": 1},
        {"from": "crossing", "to": "B", "minutes": 2}, {"from": "A", "to": "C", "minutes": 2},
    ]  # fmt: skip
    village = ["A", "A", "B", "C", "C", "clinic"]
    arms = Arms.read(Table({"id": [f"f{k}" for k in range(6)], "village": village}, source="c.csv"))
    near = {}
    for row in roads:
        near.setdefault(row["from"], []).append((row["to"], row["minutes"]))
        near.setdefault(row["to"], []).append((row["from"], row["minutes"]))

    def walks(at: str, left: int, seen: frozenset):
        if at == "clinic":
            yield seen
        for there, minutes in near[at]:
            if minutes <= left:
                yield from walks(there, left - minutes, seen | {there})

    for length in (4, 6, 8, 12):
        passed = set(walks("clinic", length, frozenset({"clinic"})))
        actions = ActionSet(arms, {"way": Path(edges=roads, depot="clinic", length=length, point="village")})
        for bits in product(range(2), repeat=6):
            wanted = {village[k] for k in range(6) if bits[k]}
            assert actions.allows(np.array(bits)) == any(wanted <= one for one in passed), (length, bits)
        assert actions.agreement().fault is None
    rows = actions.assignment(np.array([1, 1, 0, 1, 0, 1]))
    stops = {row["column"]: row["stop"] for row in rows}
    assert stops["f0"] == stops["f1"]
    assert stops["f5"] == "0"
    with pytest.raises(ModelError, match="no point of the roads 'clinik'"):
        ActionSet(arms, {"way": Path(edges=roads, depot="clinik", length=4, point="village")})
    with pytest.raises(ModelError, match="f5: no point 'clinic' on the roads"):
        ActionSet(arms, {"way": Path(edges=roads[1:], depot="crossing", length=4, point="village")})


def best_tour(minutes: np.ndarray, gain: np.ndarray, length: int) -> float:
    """The most that one way from point 0 and back collects, by trying every order of stops."""

    def onward(at: int, left: int, open_: tuple[int, ...]) -> float:
        return max(
            (
                gain[k] + onward(k, left - minutes[at, k], tuple(j for j in open_ if j != k))
                for k in open_
                if minutes[at, k] + minutes[k, 0] <= left
            ),
            default=0.0,
        )

    return float(gain[0] + onward(0, length, tuple(range(1, len(gain)))))


@pytest.mark.parametrize("part", range(4))
def test_a_hundred_orienteering_instances_equal_trying_every_order(part):
    for seed in range(25 * part, 25 * part + 25):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(3, 14))
        place = rng.uniform(0, 10, (n, 2))
        minutes = np.maximum(1, np.ceil(np.linalg.norm(place[:, None] - place[None], axis=2))).astype(int)
        edges = [(i, j, int(minutes[i, j])) for i in range(n) for j in range(i)]
        length, gain = int(rng.integers(10, 22)), rng.uniform(0.1, 1.0, n)
        rule = Path(edges=edge_table(edges), depot="arm0", length=length)
        arms = Arms.from_arrays(n)
        actions = ActionSet(arms, {"route": rule})
        decision = Chooser(problem_for(arms, rng), actions, Scores(gain), "exact", many=False).decide(
            np.zeros(n, dtype=int)
        )
        assert decision.value == pytest.approx(best_tour(minutes, gain, length), abs=1e-9), seed
        assert decision.status == "optimal"
        assert "route" in decision.solver


@settings(max_examples=40, deadline=None)
@given(graphs(), st.data())
def test_listed_routes_are_what_the_check_lets_pass(graph, data):
    """With villages, several arms at one point, and up to two vehicles."""
    n, edges, length, vehicles = graph
    homes = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=6))
    arms = Arms.from_arrays(len(homes), village=[f"arm{k}" for k in homes])
    linked = [*edges, *((0, k, 9) for k in range(1, n) if not any({i, j} == {0, k} for i, j, _ in edges))]
    rule = Path(edges=edge_table(linked), depot="arm0", length=length, vehicles=vehicles, point="village")
    actions = ActionSet(arms, {"route": rule})
    sets = rule.passable(actions.columns).tolist()
    for action in all_actions(len(homes)):
        mask = sum(1 << int(c) for c in np.flatnonzero(action))
        assert any(mask & own == mask for own in sets) == (not actions.violations(action)), (action, linked)
