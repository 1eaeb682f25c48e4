"""Visit plans against all plans of small instances; structure, shortages and periods against independent methods."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from amounts import amount
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from strategies import all_actions

from rmab_opt.actions import ActionSet
from rmab_opt.actions.kinds import Linear
from rmab_opt.errors import InfeasibleError, ModelError
from rmab_opt.problem import Arms
from rmab_opt.settings.inspection import Cells, Frequency, Gap, SlotBudget, VisitColumns, Window
from rmab_opt.settings.inspection.beliefs import BeliefChains, Windows
from rmab_opt.settings.inspection.periods import plan_periods
from rmab_opt.settings.inspection.plan import plan_visits, shortage, two_sided

N, T = 3, 4
CELLS = ("0-1", "1-2", "2-3", "0;3", "0-3", "1")


def cohort(rng: np.random.Generator) -> Arms:
    return Arms.from_arrays(
        N,
        window=rng.choice(CELLS, N).tolist(),
        district=rng.choice(["north", "south"], N).tolist(),
        least=rng.integers(0, 2, N).tolist(),
        most=rng.integers(1, 3, N).tolist(),
        hours=rng.integers(1, 4, N).tolist(),
    )


def random_kind(name: str, arms: Arms, rng: np.random.Generator):
    cell = lambda: f"{rng.choice(arms.ids)}@{rng.integers(T)}"  # noqa: E731 - one cell
    if name == "window":
        return Window()
    if name == "frequency":
        options = [
            {"equal": 1},
            {"at_most": 1},
            {"at_least": "least", "at_most": "most"},
            {"at_least": 1, "at_most": 2},
        ]
        return Frequency(**options[rng.integers(4)])
    if name == "per_window":
        return Frequency(at_most=1, per="window")
    if name == "slot_budget":
        options = [{"at_most": 1}, {"at_most": (1, 2, 1, 2)}, {"at_least": 1, "at_most": 2}]
        return SlotBudget(**options[rng.integers(3)])
    if name == "districts":
        return SlotBudget(per="district", at_most=1)
    if name == "cells":
        must = cell()
        return Cells(must=[must], must_not=[c for c in {cell(), cell()} if c != must])
    if name == "gap":
        return Gap(slots=int(rng.integers(2, 4)))
    return Linear(column="hours", per="slot", at_most=int(rng.integers(2, 5)))


def allowed(rule, table: np.ndarray, arms: Arms) -> bool:
    """By definition, cell by cell."""
    visits = [(i, t) for i in range(N) for t in range(T) if table[i, t]]
    slots_of = {i: [t for j, t in visits if j == i] for i in range(N)}

    def windows(i: int) -> list[list[int]]:
        parts = [part.split("-") for part in arms.text(rule.column)[i].split(";")]
        return [list(range(int(part[0]), int(part[-1]) + 1)) for part in parts]

    if isinstance(rule, Window):
        return all(any(t in window for window in windows(i)) for i, t in visits)
    if isinstance(rule, Frequency):

        def limit(given, i: int, default: int) -> int:
            if isinstance(given, str):
                return int(arms.text(given)[i])
            return default if given is None else given

        for i in range(N):
            low, high = limit(rule.at_least, i, 0), limit(rule.at_most, i, T)
            low, high = (rule.equal, rule.equal) if rule.equal is not None else (low, high)
            groups = windows(i) if rule.per == "window" else [list(range(T))]
            if not all(low <= sum(t in group for t in slots_of[i]) <= high for group in groups):
                return False
        return True
    if isinstance(rule, SlotBudget):
        values = [""] * N if rule.per is None else arms.text(rule.per)
        for t in range(T):
            high = rule.at_most[t] if isinstance(rule.at_most, tuple) else rule.at_most
            for value in set(values):
                used = sum(values[i] == value and when == t for i, when in visits)
                if not (rule.at_least or 0) <= used <= high:
                    return False
        return True
    if isinstance(rule, Cells):
        names = {f"{arms.ids[i]}@{t}" for i, t in visits}
        return set(rule.must) <= names and not names & set(rule.must_not)
    if isinstance(rule, Gap):
        return all(abs(a - b) >= rule.slots for slots in slots_of.values() for a, b in itertools.combinations(slots, 2))
    return all(sum(int(arms.text("hours")[i]) for i, when in visits if when == t) <= rule.at_most for t in range(T))


ACTIONS = all_actions(N * T)
LINEAR = ("window", "frequency", "per_window", "slot_budget", "districts", "cells")
MIXED = ("gap", "hours")


@pytest.mark.parametrize("name", LINEAR + MIXED)
@settings(max_examples=amount(2, 8), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_kinds_checker_and_its_rows_are_its_definition(name, seed):
    rng = np.random.default_rng(seed)
    arms = cohort(rng)
    columns = VisitColumns(arms, T)
    rule = random_kind(name, arms, rng)
    actions = ActionSet(columns, {"rule": rule})
    sample = ACTIONS[rng.choice(len(ACTIONS), 300, replace=False)]
    plain = actions.plain_rows
    for action in sample:
        expected = allowed(rule, columns.table(action), arms)
        assert (not actions.violations(action)) == expected, (rule, columns.table(action))
        assert plain.allow(action) == expected
    assert actions.describe()["rule"]


@settings(max_examples=amount(15, 40), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    names=st.lists(st.sampled_from(LINEAR + MIXED), min_size=1, max_size=4, unique=True),
)
def test_a_plan_is_the_best_of_all_plans_on_both_paths(seed, names):
    rng = np.random.default_rng(seed)
    arms = cohort(rng)
    columns = VisitColumns(arms, T)
    rules = {name: random_kind(name, arms, rng) for name in names}
    gains = np.round(rng.normal(0.3, 1.0, len(columns)), 2)
    feasible = np.ones(len(ACTIONS), dtype=bool)
    for rule in rules.values():
        left = np.flatnonzero(feasible)
        feasible[left] = [allowed(rule, columns.table(action), arms) for action in ACTIONS[left]]
    actions = ActionSet(columns, rules)
    if not feasible.any():
        with pytest.raises(InfeasibleError):
            plan_visits(actions, gains)
        return
    plan = plan_visits(actions, gains)
    best = float((ACTIONS[feasible] @ gains).max())
    assert plan.value == pytest.approx(best, abs=1e-6)
    assert plan.bound == pytest.approx(best, abs=1e-5)
    if not set(names) & set(MIXED) and not {"districts", "slot_budget"} <= set(names):
        assert plan.fractional == 0


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ({"w": Window(), "f": Frequency(equal=1), "b": SlotBudget(at_most=2, at_least=0)}, "linear"),
        ({"f": Frequency(at_most=2), "p": Frequency(at_most=1, per="window"), "b": SlotBudget(at_most=2)}, "linear"),
        ({"f": Frequency(at_most=2), "b": SlotBudget(at_most=2), "d": SlotBudget(per="district", at_most=1)}, "linear"),
        ({"f": Frequency(at_most=2), "b": SlotBudget(at_most=2), "g": Gap(slots=2)}, "mixed-integer"),
        ({"f": Frequency(at_most=2), "h": Linear(column="hours", per="slot", at_most=4)}, "mixed-integer"),
    ],
)
def test_the_structure_decides_the_path_and_says_why(rules, path):
    arms = Arms.from_arrays(N, window=["0-1", "1-2", "2-3"], district=["north", "south", "north"], hours=[1, 2, 3])
    plan = plan_visits(ActionSet(VisitColumns(arms, T), rules), np.ones((N, T)))
    assert plan.path == path
    assert plan.reason


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 5), n=st.integers(1, 6))
def test_a_matrix_called_two_sided_has_subdeterminants_of_at_most_one(seed, rows, n):
    """The definition of total unimodularity, by every square submatrix."""
    rng = np.random.default_rng(seed)
    matrix = (rng.random((rows, n)) < 0.5).astype(float)
    found = two_sided(sparse.csr_array(matrix), np.zeros(rows), np.ones(rows))
    worst = max(
        abs(np.linalg.det(matrix[np.ix_(r, c)]))
        for size in range(1, min(rows, n) + 1)
        for r in itertools.combinations(range(rows), size)
        for c in itertools.combinations(range(n), size)
    )
    if found.exact:
        assert worst < 1.5
    if worst > 1.5:
        assert not found.exact


def placed(open_cells: np.ndarray, capacity: np.ndarray) -> bool:
    """Maximum flow: every arm into one of its slots."""
    graph = nx.DiGraph()
    graph.add_nodes_from(["source", "sink"])
    for i, row in enumerate(open_cells):
        graph.add_edge("source", ("arm", i), capacity=1)
        for t in np.flatnonzero(row).tolist():
            graph.add_edge(("arm", i), ("slot", t), capacity=1)
    for t, room in enumerate(capacity.tolist()):
        graph.add_edge(("slot", t), "sink", capacity=room)
    return nx.maximum_flow_value(graph, "source", "sink") == len(open_cells)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), n_arms=st.integers(1, 9), n_slots=st.integers(1, 6))
def test_intervals_say_what_a_maximum_flow_says(seed, n_arms, n_slots):
    rng = np.random.default_rng(seed)
    first = rng.integers(0, n_slots, n_arms)
    last = np.array([rng.integers(f, n_slots) for f in first])
    slot = np.arange(n_slots)
    cells = (slot >= first[:, None]) & (slot <= last[:, None])
    capacity = rng.integers(0, 4, n_slots)
    found = shortage(cells, np.ones(n_arms, dtype=int), capacity)
    assert (found is None) == placed(cells, capacity)
    if found is None:
        return
    inside = (first >= found.first) & (last <= found.last)
    assert found.visits == inside.sum()
    assert found.capacity == capacity[found.first : found.last + 1].sum()
    assert found.visits > found.capacity
    assert placed(cells, np.full(n_slots, found.least_budget))
    assert not placed(cells, np.full(n_slots, found.least_budget - 1))


def test_a_shortage_is_refused_with_interval_counts_and_the_least_budget():
    arms = Arms.from_arrays(25)
    columns = VisitColumns(arms, 12)
    with pytest.raises(InfeasibleError, match="25 visits must fall into slots 0 to 11, which can hold 24") as caught:
        plan_visits(ActionSet(columns, {"f": Frequency(equal=1), "b": SlotBudget(at_most=2)}), np.ones((25, 12)))
    assert "at least 3 visits a slot" in str(caught.value)


def test_a_kind_on_plain_arms_says_which_columns_it_needs():
    with pytest.raises(ModelError, match="arms with slots"):
        ActionSet(Arms.from_arrays(3), {"w": Window()})


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cells=st.lists(st.sampled_from(["0-1", "1-2", "0;2", "0-2"]), min_size=2, max_size=2),
    allowance=st.integers(1, 2),
    every=st.booleans(),
    begin=st.integers(0, 2),
)
def test_several_periods_are_the_best_of_all_walks(seed, cells, allowance, every, begin):
    """Two arms over five slots, all visit tables that have an effect, judged by counting in every window."""
    rng = np.random.default_rng(seed)
    horizon, n_slots, capacity = 5, 3, 1
    chains = BeliefChains.build(rng.uniform(0.5, 0.95, 2), rng.uniform(0.05, 0.4, 2), tolerance=1e-3)
    windows = Windows.parse(cells, n_slots, allowance)
    age = rng.integers(0, 6, 2)
    best = -np.inf
    for flat in all_actions(2 * horizon):
        table = flat.reshape(2, horizon).astype(bool)
        if (table.sum(axis=0) > capacity).any():
            continue
        fine = True
        for i in range(2):
            counts: dict[tuple[int, int], int] = {}
            for t in range(horizon):
                label = int(windows.label[i, (t + begin) % n_slots])
                if label >= 0:
                    key = ((t + begin) // n_slots, label)
                    counts[key] = counts.get(key, 0) + int(table[i, t])
                elif table[i, t]:
                    fine = False
            fine &= all((1 if every else 0) <= used <= allowance for used in counts.values())
        if fine:
            total = 0.0
            now = age.copy()
            for t in range(horizon):
                now = np.where(table[:, t], 0, now + 1)
                total += float(chains.at(now).sum())
            best = max(best, total)
    if best == -np.inf:
        with pytest.raises(InfeasibleError):
            plan_periods(chains, windows, horizon, capacity, slot=begin, age=age, every_window=every)
        return
    plan = plan_periods(chains, windows, horizon, capacity, slot=begin, age=age, every_window=every)
    assert plan.value == pytest.approx(best, abs=1e-7)
    assert plan.bound >= best - 1e-7
